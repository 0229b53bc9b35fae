//! A code comes of the person's answer to what was shown.

use mcp_authz::authorization_server::authorization::RequestValidated;
use mcp_authz::authorization_server::store::DecideOnce;

fn skip(state: RequestValidated) -> DecideOnce {
    state.approve()
}

fn main() {}
