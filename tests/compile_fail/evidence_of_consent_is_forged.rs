//! Consent is compared with what was shown; nobody else can say that it was given.

use mcp_authz::evidence::ConsentGiven;
use mcp_authz::identifier::ScopeSet;

fn forge(scopes: ScopeSet) -> ConsentGiven {
    ConsentGiven(scopes)
}

fn main() {}
