//! A code is redeemed after everything else has worked.

use mcp_authz::authorization_server::store::CodeRedemption;
use mcp_authz::authorization_server::token::AwaitingSignature;
use mcp_authz::entropy::Entropy;

fn skip(state: AwaitingSignature, receipt: CodeRedemption, entropy: &mut dyn Entropy) {
    let _ = state.redeemed(receipt, entropy);
}

fn main() {}
