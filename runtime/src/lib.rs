//! The tokio runtime of `mcp-authz`: it carries out what the core asks for.
//!
//! The core decides, this package does: [`client`] sends the fetches, opens the browser and listens for the
//! callback.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::as_conversions,
        clippy::arithmetic_side_effects
    )
)]

use std::future::Future;
use std::pin::Pin;

pub mod authorization_server;
pub mod client;
pub mod clock;
mod core_time;
pub mod entropy;
pub mod http_io;
#[cfg(feature = "aws-lc-rs")]
pub mod keys;
pub mod mcp_fields;
pub mod resource_server;
#[cfg(feature = "aws-lc-rs")]
pub mod sealer;
pub mod signer;
pub mod store;
pub mod text;

pub use core_time::CoreTime;

/// A future behind a pointer: what the traits of this package return, so that a host can choose at run time.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
