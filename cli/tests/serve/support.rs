//! What the runtime's provider for tests needs.

#[path = "../../../runtime/tests/support/port.rs"]
mod port;

pub(crate) use port::port;
