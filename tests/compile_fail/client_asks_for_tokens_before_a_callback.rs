//! There is no way to tokens but through a callback.

use mcp_authz::client::Ready;
use mcp_authz::message::exchange::Reply;
use mcp_authz::time::OffsetDateTime;

fn skip(ready: Ready, reply: Reply, now: OffsetDateTime) {
    let _ = ready.receive(Ok(reply), now);
}

fn main() {}
