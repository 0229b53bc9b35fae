//! Tokens are there once the session is kept.

use mcp_authz::client::AwaitingPersisted;

fn early(state: AwaitingPersisted) {
    let _ = state.authorization_for("https://mcp.example/notes");
}

fn main() {}
