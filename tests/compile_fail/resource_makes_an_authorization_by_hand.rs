//! `Authorized` has one origin.

use mcp_authz::resource_server::Authorized;

fn forge() -> Authorized {
    Authorized(std::sync::Arc::new(()))
}

fn main() {}
