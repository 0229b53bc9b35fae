//! Servers of revision 2025-03-26: there is no resource metadata, and the origin of the MCP URL is the authorization
//! server (MCP 2025-03-26 authorization, sections on metadata discovery and fallbacks).
//!
//! ```text
//! no resource metadata anywhere ── host states 2025-03-26 ─▶ the origin is the issuer, and has metadata like any other
//!                               ── no metadata there either ─ LegacyEndpoints named ─▶ /authorize, /token, /register
//! ```
//!
//! Nothing else is loosened: S256, `state` and `resource` are sent all the same (D35).

use alloc::vec::Vec;

use super::Client;
use super::discovery::Target;
use crate::identifier::{Endpoint, Issuer, ResourceId};
use crate::message::protected_resource_metadata::ProtectedResourceMetadata;
use crate::message::server_metadata::ServerMetadata;
use crate::policy::Relaxation;
use crate::revision::Revision;

/// The authorization server of a server without resource metadata: its own origin, if the host stated the revision that
/// has none.
pub(crate) fn authorization_base(client: &Client, server: &ResourceId) -> Option<Issuer> {
    // MCP-L0326-001, MCP-AUTH-010
    let stated = client.revision(server) == Revision::V2025_03_26;
    stated.then(|| Issuer::new(server.origin().as_str()).ok())?
}

/// What the missing document would say: the resource is the URL the person gave, the origin its authorization server.
pub(crate) fn resource_metadata(client: &Client, server: &ResourceId) -> Option<ProtectedResourceMetadata> {
    let base = authorization_base(client, server)?;
    Some(ProtectedResourceMetadata::new(server.clone(), Vec::from([base])))
}

/// The default endpoints below the origin.
fn default_endpoints(base: Issuer) -> Option<ServerMetadata> {
    let at = |path: &str| Endpoint::new([base.as_str(), path].concat()).ok();
    // MCP-L0326-003
    let authorization_endpoint = Some(at("/authorize")?);
    let token_endpoint = Some(at("/token")?);
    // MCP-L0326-007
    let registration_endpoint = Some(at("/register")?);
    Some(ServerMetadata {
        authorization_endpoint,
        token_endpoint,
        registration_endpoint,
        ..ServerMetadata::new(base)
    })
}

/// Why the default endpoints cannot be taken.
pub(crate) enum NoDefault {
    /// The server is not one of revision 2025-03-26 without metadata.
    NotLegacy,
    /// It is, but the host has not named the relaxation.
    Strict(Relaxation),
}

/// The default endpoints, for a target whose resource and whose origin have no document at all.
pub(crate) fn assumed(target: &Target) -> Result<ServerMetadata, NoDefault> {
    let base = authorization_base(&target.client, &target.server);
    // A target with identifiers got them from a resource metadata document.
    let legacy = base.filter(|base| target.expected.is_empty() && *base == target.listed_issuer);
    let metadata = legacy.and_then(default_endpoints).ok_or(NoDefault::NotLegacy)?;
    // D35
    let relaxation = Relaxation::LegacyEndpoints(target.server.clone());
    if target.client.policy().allows(&relaxation) { Ok(metadata) } else { Err(NoDefault::Strict(relaxation)) }
}

/// Whether a record's metadata are the default endpoints, which the host still allows.
pub(crate) fn is_assumed(target: &Target, metadata: &ServerMetadata) -> bool {
    assumed(target).is_ok_and(|assumed| assumed == *metadata)
}
