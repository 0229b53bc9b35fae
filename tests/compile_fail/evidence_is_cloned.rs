//! Evidence of one login cannot serve another.

use mcp_authz::evidence::CallbackMatched;

fn copy(evidence: &CallbackMatched) -> CallbackMatched {
    evidence.clone()
}

fn main() {}
