//! Secrets leave through `expose` only, in the places that are listed.

use mcp_authz::secret::ClientSecret;

fn write(secret: &ClientSecret) -> String {
    serde_json::to_string(secret).unwrap()
}

fn main() {}
