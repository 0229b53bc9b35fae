//! Only the comparison makes evidence.

use mcp_authz::evidence::RedirectMatched;
use mcp_authz::identifier::RedirectUri;

fn forge(uri: RedirectUri) -> RedirectMatched {
    RedirectMatched(uri)
}

fn main() {}
