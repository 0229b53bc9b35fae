//! The tokio runtime of `mcp-authz`.

pub mod text;
