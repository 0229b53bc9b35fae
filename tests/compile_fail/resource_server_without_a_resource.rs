//! A resource server has a resource, or it is none.

use mcp_authz::resource_server::{ResourceServer, TrustedIssuer};

fn nobody(issuer: TrustedIssuer) {
    let _ = ResourceServer::new([issuer]);
}

fn main() {}
