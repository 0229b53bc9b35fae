//! The `mcp-authz` tool.

fn main() {}
