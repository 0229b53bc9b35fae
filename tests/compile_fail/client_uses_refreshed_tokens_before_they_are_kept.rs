//! Rotated tokens are there once the store holds them.

use mcp_authz::client::AwaitingCommit;

fn early(state: AwaitingCommit) {
    let _ = state.authorization_for("https://mcp.example/notes");
}

fn main() {}
