//! The client's side: fetches, the browser, the loopback listener, and the loop that drives a login.

mod access;
pub mod browser;
pub mod callback;
pub mod connection;
pub mod credentials;
mod discovery;
pub mod driver;
pub mod event;
pub mod event_stream;
pub mod fetch;
pub mod logout;
pub mod pairing;
mod renewal;
mod reply;
pub mod resolver;
#[cfg(feature = "rmcp")]
pub mod rmcp;
pub mod user_agent;
