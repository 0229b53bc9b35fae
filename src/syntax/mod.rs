//! Grammar: bytes to structure, no policy.

pub mod base64url;
pub mod basic;
pub mod field;
pub mod flat;
pub mod form;
pub mod json;
pub mod uri;
