//! Only the comparison makes evidence.

use mcp_authz::evidence::IssuerMatched;
use mcp_authz::identifier::Issuer;

fn forge(issuer: Issuer) -> IssuerMatched {
    IssuerMatched(std::sync::Arc::new(issuer))
}

fn main() {}
