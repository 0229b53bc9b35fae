//! Typed messages of the wire, both directions; no policy, no role.

pub mod exchange;
