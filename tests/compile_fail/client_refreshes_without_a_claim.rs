//! A refresh token is sent for a claim on the session only.

use mcp_authz::client::AwaitingClaim;
use mcp_authz::message::exchange::Reply;
use mcp_authz::time::OffsetDateTime;

fn early(state: AwaitingClaim, reply: Reply, now: OffsetDateTime) {
    let _ = state.receive(Ok(reply), now);
}

fn main() {}
