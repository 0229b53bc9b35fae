//! The authorization layer of the Model Context Protocol as an I/O-free core.
#![no_std]
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

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod authorization_server;
pub mod client;
pub mod entropy;
pub mod error;
pub mod evidence;
pub mod flow;
pub mod identifier;
pub mod jose;
pub mod limits;
pub mod message;
pub mod pkce;
pub mod policy;
pub mod resource_server;
pub mod sealer;
pub mod secret;
pub mod step;
pub mod syntax;
pub mod time;
