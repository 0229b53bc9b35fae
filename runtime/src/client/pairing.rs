//! Which authorization server may be used for which MCP server: the host's word, asked for once (decision D36).
//!
//! A resource names its authorization servers itself, and a hostile one names an honest one, to be given the tokens of
//! whoever logs in there. So a [`Driver`](super::driver::Driver) asks its host before it goes to an issuer, unless an
//! identity was registered by hand for the resource, or a login at the same pair came to its tokens before: the store
//! keeps the word then, until somebody logs out.

use mcp_authz::client::ChoosingIssuer;
use mcp_authz::identifier::{Issuer, ResourceId};

use crate::BoxFuture;

/// What the host says to the issuers a resource names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostsWord {
    /// This one may be used for this resource.
    For(Issuer),
    /// The host knows nothing of them: the login ends with
    /// [`IssuerNotAsserted`](mcp_authz::error::HostMisuse::IssuerNotAsserted).
    None,
    /// The person was shown the pair, and does not want it.
    Refused,
}

/// Gives the host's word for a pair of resource and issuer.
pub trait Pairing: Send + Sync + 'static {
    /// Whether a word of before, kept in the store or configured with an identity, still stands: then nobody is asked.
    fn stands(&self, resource: &ResourceId, issuer: &Issuer) -> bool {
        let _ = (resource, issuer);
        true
    }

    /// Chooses one of [`ChoosingIssuer::issuers`] for [`ChoosingIssuer::resource_matched`]. A host that shows them to the
    /// person shows both hosts and the [scopes](ChoosingIssuer::challenged_scopes);
    /// [`ChoosingIssuer::resource_name`] is a peer's text, and proves nothing.
    fn pair<'a>(&'a self, choosing: &'a ChoosingIssuer) -> BoxFuture<'a, HostsWord>;
}

fn said<'a>(word: HostsWord) -> BoxFuture<'a, HostsWord> {
    Box::pin(std::future::ready(word))
}

/// The host has said nothing.
pub(super) struct Nobody;

impl Pairing for Nobody {
    fn pair<'a>(&'a self, _: &'a ChoosingIssuer) -> BoxFuture<'a, HostsWord> {
        said(HostsWord::None)
    }
}

/// This authorization server and no other, whatever was said before: for a host that knows it from its configuration, or
/// from the person. The driver must be for MCP servers that belong to it.
#[derive(Debug, Clone)]
pub struct OnlyIssuer(pub Issuer);

impl Pairing for OnlyIssuer {
    fn stands(&self, _: &ResourceId, issuer: &Issuer) -> bool {
        *issuer == self.0
    }

    fn pair<'a>(&'a self, _: &'a ChoosingIssuer) -> BoxFuture<'a, HostsWord> {
        said(HostsWord::For(self.0.clone()))
    }
}

/// The authorization server on the resource's own origin: whoever gave the URL of the one has vouched for the other.
#[derive(Debug, Clone, Copy)]
pub struct OwnOrigin;

impl OwnOrigin {
    /// The first issuer on the resource's origin.
    pub fn issuer(choosing: &ChoosingIssuer) -> Option<&Issuer> {
        let origin = choosing.resource_matched().resource().origin();
        choosing.issuers().iter().find(|issuer| issuer.origin() == origin)
    }
}

impl Pairing for OwnOrigin {
    fn pair<'a>(&'a self, choosing: &'a ChoosingIssuer) -> BoxFuture<'a, HostsWord> {
        said(Self::issuer(choosing).cloned().map_or(HostsWord::None, HostsWord::For))
    }
}

/// Whatever the resource names first, unseen. For tests, and for a host whose person was shown the pair by other means:
/// with a hostile resource it gives away what the person's login is good for.
#[derive(Debug, Clone, Copy)]
pub struct WhateverTheResourceNames;

impl Pairing for WhateverTheResourceNames {
    fn pair<'a>(&'a self, choosing: &'a ChoosingIssuer) -> BoxFuture<'a, HostsWord> {
        said(choosing.issuers().first().cloned().map_or(HostsWord::None, HostsWord::For))
    }
}
