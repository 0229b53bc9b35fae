//! A receipt is made by consuming the action only.

use mcp_authz::authorization_server::store::FamilyRevocation;

fn forge() -> FamilyRevocation {
    FamilyRevocation { id: [0; 16] }
}

fn main() {}
