//! The authorization layer of the Model Context Protocol as an I/O-free core: an OAuth 2.1 client, resource server and
//! authorization server, each a set of typestate machines that take parsed messages and give back actions.
//!
//! No I/O, clock, randomness, global state, `unsafe` or panic path: the host sends what [`message::exchange::Fetch`] says,
//! keeps what the store actions say, and passes in time and [`entropy::Entropy`].
//!
//! # Three short tours
//!
//! **Client.** [`client::Client::challenged`] takes a 401 and gives a fetch; from state to state, the flow comes to
//! [`client::Ready`], opens the person's browser, and ends in a [`client::Session`], whose token goes to its own resource only.
//!
//! **Resource server.** [`resource_server::ResourceServer::admit`] takes a request's head; `verify` and `authorize` follow;
//! the handler gets [`resource_server::Authorized`], or the peer a complete denial.
//!
//! **Authorization server.** [`authorization_server::AuthorizationServer`] has a method for each endpoint; each gives an action
//! on the store ([`authorization_server::store`]) and a state that waits for its receipt.
//!
//! # Where to look
//!
//! [`evidence`] has every proof type; [`policy`] every relaxation; [`flow`] one closed enum per role for host loops. Out of scope:
//! HTTP, signatures, user databases, storage; `mcp-authz-tokio` has one of each.
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
mod erased;
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
pub mod revision;
pub mod sealer;
pub mod secret;
pub mod step;
pub mod syntax;
pub mod time;

/// The README's examples, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[derive(Debug)]
pub struct ReadmeExamples;
