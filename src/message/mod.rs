//! Typed messages of the wire, both directions; no policy, no role.
//!
//! Every message is parsed from bytes to a type whose values have already been checked one by one, and rendered
//! from the same type. Members a specification does not define are ignored; a member it does define has its type
//! and grammar, or the whole message is refused with [`Malformed`], which names the member and repeats nothing
//! the peer wrote.

#[cfg(test)]
mod arbitrary;
pub mod authorization;
pub mod challenge;
pub mod client_metadata;
pub mod error_code;
pub mod exchange;
pub mod id_token;
pub mod introspection;
pub mod jwt_claims;
mod malformed;
mod page_uri;
pub mod protected_resource_metadata;
mod read;
pub mod revocation;
pub mod server_metadata;
pub mod token;

pub use malformed::Malformed;
pub use page_uri::{InvalidPageUri, PageUri};
