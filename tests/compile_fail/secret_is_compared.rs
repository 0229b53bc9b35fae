//! Secrets are compared by digests in constant time, never with `==`.

use mcp_authz::secret::RefreshToken;

fn same(one: &RefreshToken, two: &RefreshToken) -> bool {
    one == two
}

fn main() {}
