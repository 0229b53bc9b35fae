//! Secrets have no `Display`.

use mcp_authz::secret::AccessToken;

fn show(token: &AccessToken) -> String {
    format!("{token}")
}

fn main() {}
