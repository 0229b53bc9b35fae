//! Scopes are compared for a verified token only.

use mcp_authz::resource_server::{Authorized, PresentedToken, RequiredScopes};

fn skip(token: PresentedToken, required: &RequiredScopes) -> Authorized {
    token.authorize(required).unwrap()
}

fn main() {}
