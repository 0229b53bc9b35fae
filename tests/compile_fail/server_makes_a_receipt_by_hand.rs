//! A receipt is made by consuming the action only.

use mcp_authz::authorization_server::store::DecisionInsertion;

fn forge() -> DecisionInsertion {
    DecisionInsertion { id: [0; 16] }
}

fn main() {}
