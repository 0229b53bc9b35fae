//! Two peers and everything between them in memory: a client host, a resource host, a server host and a person with a
//! browser, under a virtual clock and seeded randomness. Scenarios read like what happens.

#[path = "../world/store.rs"]
mod store;
mod world;

mod attacks;
mod scenarios;
