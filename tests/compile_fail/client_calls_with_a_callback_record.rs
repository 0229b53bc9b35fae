//! A parked login is no state: it has to be resumed, which checks it again.

use mcp_authz::client::CallbackRecord;
use mcp_authz::message::authorization::Callback;
use mcp_authz::secret::AgentBinding;
use mcp_authz::time::OffsetDateTime;

fn skip(record: CallbackRecord, callback: Callback, agent: &AgentBinding, now: OffsetDateTime) {
    let _ = record.receive(callback, agent, now);
}

fn main() {}
