//! A session comes out of its states or its sealed record.

use mcp_authz::client::Session;

fn forge() -> Session {
    Session(Box::new(()))
}

fn main() {}
