//! Only the comparison makes evidence.

use mcp_authz::evidence::IssuerMatched;
use mcp_authz::identifier::Issuer;

fn forge(issuer: Issuer) -> IssuerMatched {
    IssuerMatched(issuer)
}

fn main() {}
