//! A handler exchanges the token of a request; it cannot read it.

use mcp_authz::resource_server::SubjectToken;

fn read(token: &SubjectToken) -> &str {
    token.token.expose()
}

fn main() {}
