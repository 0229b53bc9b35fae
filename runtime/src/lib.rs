//! The tokio runtime of `mcp-authz`.
