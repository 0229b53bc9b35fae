//! A receipt is made by consuming the action only.

use mcp_authz::client::SessionPersisted;
use mcp_authz::secret::SecretDigest;

fn forge() -> SessionPersisted {
    SessionPersisted { id: SecretDigest::of(b"guess") }
}

fn main() {}
