//! The authorization server against a store in memory, one action at a time.

#[path = "../world/grants.rs"]
mod grants;
#[path = "../world/store.rs"]
mod store;
#[path = "../world/token_host.rs"]
mod token_host;

mod approval;
mod races;
mod token_endpoint;
