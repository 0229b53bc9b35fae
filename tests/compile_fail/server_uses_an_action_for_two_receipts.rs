//! An action is consumed by its result.

use mcp_authz::authorization_server::store::{CodeRedemption, RedeemCode};

fn twice(action: RedeemCode) -> (CodeRedemption, CodeRedemption) {
    (action.redeemed(), action.redeemed())
}

fn main() {}
