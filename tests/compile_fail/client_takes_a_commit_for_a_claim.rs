//! Each action has a receipt of its own kind.

use mcp_authz::client::{AwaitingClaim, RefreshCommitted};
use mcp_authz::entropy::Entropy;
use mcp_authz::time::OffsetDateTime;

fn mixed(state: AwaitingClaim, receipt: RefreshCommitted, now: OffsetDateTime, entropy: &mut dyn Entropy) {
    let _ = state.claimed(receipt, now, entropy);
}

fn main() {}
