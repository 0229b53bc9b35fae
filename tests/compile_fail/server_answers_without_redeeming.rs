//! Tokens are released for the receipt of the redemption only.

use mcp_authz::authorization_server::token::AwaitingRedemption;
use mcp_authz::message::exchange::Respond;

fn skip(state: AwaitingRedemption) -> Respond {
    state.respond()
}

fn main() {}
