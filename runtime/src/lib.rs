//! The tokio runtime of `mcp-authz`.

pub mod text;

#[cfg(feature = "aws-lc-rs")]
pub mod keys;
