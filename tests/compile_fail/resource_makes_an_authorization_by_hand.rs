//! `Authorized` has one origin.

use mcp_authz::resource_server::{Authorized, RequiredScopes};

fn forge(authorized: Authorized, required: RequiredScopes) -> Authorized {
    Authorized { required, ..authorized }
}

fn main() {}
