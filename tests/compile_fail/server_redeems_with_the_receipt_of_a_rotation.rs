//! Another action's receipt is another type.

use mcp_authz::authorization_server::store::RefreshRotation;
use mcp_authz::authorization_server::token::AwaitingRedemption;
use mcp_authz::entropy::Entropy;

fn mix(state: AwaitingRedemption, receipt: RefreshRotation, entropy: &mut dyn Entropy) {
    let _ = state.redeemed(receipt, entropy);
}

fn main() {}
