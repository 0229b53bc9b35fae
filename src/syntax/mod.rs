//! Grammar: bytes to structure, no policy.

pub mod base64url;
pub mod basic;
mod cursor;
pub mod field;
pub mod flat;
pub mod form;
pub mod json;
pub mod uri;
mod words;
