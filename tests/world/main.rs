//! Both peers and everything between them in memory: a client host, a resource host, a server host and a person with a
//! browser, under a virtual clock and seeded randomness. Scenarios read like what happens.

mod approval;
mod approvals;
mod assertions;
mod attacks;
mod authorization;
mod decision;
mod documents;
mod grace;
mod grants;
mod introspection;
mod keys;
mod management;
mod peers;
mod pushed;
mod races;
mod receipts;
mod records;
mod redaction;
mod registration;
mod remembered;
mod room;
mod scenarios;
#[path = "../../fuzz/oracles/src/store.rs"]
pub mod store;
mod tended;
mod token_endpoint;
mod token_host;
