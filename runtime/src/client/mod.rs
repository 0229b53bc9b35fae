//! The client's side: fetches, the browser, the loopback listener.

pub mod browser;
pub mod callback;
pub mod fetch;
pub mod resolver;
