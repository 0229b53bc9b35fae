//! The document a protected resource publishes about itself: RFC 9728 sections 2 and 3, from configuration alone.

use alloc::string::{String, ToString as _};
use alloc::vec;

use super::ResourceServer;
use crate::identifier::ResourceId;
use crate::message::exchange::Respond;
use crate::message::protected_resource_metadata::ProtectedResourceMetadata;

/// How long a client may keep the document, in seconds.
const MAX_AGE_SECONDS: u32 = 3600;

impl ResourceServer {
    /// The document.
    pub fn metadata(&self) -> ProtectedResourceMetadata {
        let configuration = &*self.0;
        // MCP-AUTH-009, MCP-DISC-001, RFC9728-2-1: the configuration has a resource and one issuer or more.
        let mut document = ProtectedResourceMetadata::new(
            configuration.resource.clone(),
            configuration.issuer_order.clone(),
        );
        // RFC9728-2-3
        document.scopes_supported = configuration.scopes_supported.clone();
        // RFC9728-2-5: the only place this role takes a token from.
        document.bearer_methods_supported = Some(vec!["header".to_string()]);
        // RFC9728-2-4
        document.resource_name = configuration.name.clone();
        document.resource_documentation = configuration.documentation.clone();
        document
    }

    /// The URL of the document, as challenges name it.
    pub fn metadata_url(&self) -> &str {
        &self.0.metadata_url
    }

    /// The path of the document on the resource's host, for the host's routing table.
    pub fn metadata_path(&self) -> &str {
        path_of(&self.0.metadata_url)
    }

    /// The answer to a GET of [`ResourceServer::metadata_path`]. It needs no token.
    pub fn metadata_response(&self) -> Respond {
        // RFC9728-3.2-1, RFC9728-7.10-1
        // Whether a page may read it depends on the page's origin, so that no cache hands one page's answer to another.
        Respond::json(200, self.metadata().render())
            .with_header("vary", "origin")
            .with_header("cache-control", alloc::format!("public, max-age={MAX_AGE_SECONDS}"))
    }
}

/// Where the document of a resource is: the well-known path stands between host and path of its identifier.
pub(super) fn document_url(resource: &ResourceId) -> String {
    // RFC9728-3-1, MCP-DISC-006
    resource.metadata_locations().into_iter().next().map(|location| location.url).unwrap_or_default()
}

fn path_of(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    after_scheme.find('/').and_then(|at| after_scheme.get(at..)).unwrap_or("/")
}
