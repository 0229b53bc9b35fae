//! A state is used once: a second callback finds nothing to match.

use mcp_authz::client::AwaitingCallback;
use mcp_authz::entropy::Entropy;
use mcp_authz::message::authorization::Callback;
use mcp_authz::secret::AgentBinding;
use mcp_authz::time::OffsetDateTime;

fn twice(state: AwaitingCallback, one: Callback, two: Callback, agent: &AgentBinding, now: OffsetDateTime, entropy: &mut dyn Entropy) {
    let _ = state.receive(one, agent, now, entropy);
    let _ = state.receive(two, agent, now, entropy);
}

fn main() {}
