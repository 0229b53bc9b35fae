//! Nobody is redirected before the host says who the person is.

use mcp_authz::authorization_server::authorization::{ErrorAwaitingPerson, Redirect};

fn skip(state: ErrorAwaitingPerson) -> Redirect {
    state.redirect().unwrap()
}

fn main() {}
