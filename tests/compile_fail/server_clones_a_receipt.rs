//! One receipt advances one state.

use mcp_authz::authorization_server::store::FamilyRevocation;

fn copy(receipt: &FamilyRevocation) -> FamilyRevocation {
    receipt.clone()
}

fn main() {}
