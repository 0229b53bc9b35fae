//! An authorization begins from `Ready` only.

use mcp_authz::client::ChoosingIdentity;
use mcp_authz::entropy::Entropy;
use mcp_authz::identifier::ScopeSet;
use mcp_authz::secret::AgentBinding;
use mcp_authz::time::OffsetDateTime;

fn skip(state: ChoosingIdentity, now: OffsetDateTime, entropy: &mut dyn Entropy) {
    let _ = state.begin(&ScopeSet::new(), AgentBinding::this_process(), now, entropy);
}

fn main() {}
