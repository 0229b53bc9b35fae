//! The states of each role as one closed enum, with one `advance`: for host loops, foreign-function interfaces and
//! fuzzers. Nothing is decided here that the states do not decide.
//!
//! An input that the present state does not wait for gives the flow back unchanged, as [`OutOfTurn`]: what the typed
//! states refuse to compile, the driver refuses to run.

mod client;
mod server;

pub use client::{ClientAction, ClientFlow, ClientInput, ClientTurn};
pub use server::{Importer, ServerAction, ServerEnd, ServerFlow, ServerInput, ServerTurn};

/// The input is not one that the present state waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the present state does not wait for this input")]
pub struct OutOfTurn;
