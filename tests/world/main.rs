//! Both peers and everything between them in memory: a client host, a resource host, a server host and a person with a
//! browser, under a virtual clock and seeded randomness. Scenarios read like what happens.

mod approval;
mod approvals;
mod attacks;
mod authorization;
mod decision;
mod documents;
mod grants;
mod peers;
mod races;
mod records;
mod redaction;
mod registration;
mod scenarios;
#[path = "../../fuzz/oracles/src/store.rs"]
pub mod store;
mod token_endpoint;
mod token_host;
