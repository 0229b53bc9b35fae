//! The choice of an authorization server among those a resource names (RFC 9728 section 7.6, decision D36).
//!
//! Anybody can run a resource, and a resource can name anybody's authorization server: with a hostile one, a person's login
//! at an honest server would give the resource tokens of another's. So the pair of resource and issuer needs the host's
//! word, [`IssuerForResource`], whoever the client will be there. The one word given beforehand is an identity that was
//! registered by hand for exactly this resource.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::discovery::{AwaitingServerMetadata, ServerSearch, Target, counted, server_metadata_fetch};
use super::step_up::StepUpLedger;
use super::{Client, PreRegistered};
use crate::error::{HostMisuse, PeerIncompatible};
use crate::evidence::{IssuerForResource, ResourceMatched};
use crate::identifier::{Issuer, ResourceId, ScopeSet};
use crate::message::exchange::Fetch;
use crate::message::protected_resource_metadata::ProtectedResourceMetadata;
use crate::policy::Relaxation;
use crate::step::{Failed, Step};

/// Whether an identity that was registered by hand at that issuer is for exactly this resource.
pub(super) fn configured(client: &Client, resource: &ResourceId, issuer: &Issuer) -> bool {
    // D36: the other spelling is the same issuer only where the host said so.
    let other_spelling = client.policy().allows(&Relaxation::IssuerRootSlash(issuer.clone()));
    client.configuration().pre_registered.iter().any(|identity| {
        let here =
            identity.issuer == *issuer || (other_spelling && identity.issuer.differs_by_root_slash(issuer));
        here && identity.resources.contains(resource)
    })
}

/// Holds the resource's metadata and waits for the host to choose an authorization server.
#[must_use = "the host chooses an authorization server"]
#[derive(Debug)]
pub struct ChoosingIssuer(pub(super) Box<Chosen>);

#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) client: Client,
    pub(super) server: ResourceId,
    pub(super) expected: Vec<ResourceId>,
    pub(super) challenge_scope: Option<ScopeSet>,
    pub(super) resource: ResourceMatched,
    pub(super) metadata: ProtectedResourceMetadata,
    pub(super) fetches: u32,
}

impl ChoosingIssuer {
    /// The authorization servers the resource names, in its order.
    pub fn issuers(&self) -> &[Issuer] {
        &self.0.metadata.authorization_servers
    }

    /// The evidence for the resource.
    pub fn resource_matched(&self) -> &ResourceMatched {
        &self.0.resource
    }

    /// What the resource calls itself; a peer's text.
    pub fn resource_name(&self) -> Option<&str> {
        self.0.metadata.resource_name.as_deref()
    }

    /// The scopes the challenge asked for.
    pub fn challenged_scopes(&self) -> Option<&ScopeSet> {
        self.0.challenge_scope.as_ref()
    }

    /// Whether choosing this issuer needs [`IssuerForResource`]: always, but for an issuer at which an identity was
    /// registered by hand for this resource (D36).
    pub fn needs_assertion(&self, issuer: &Issuer) -> bool {
        !configured(&self.0.client, self.0.resource.resource(), issuer)
    }

    /// Whether identities were registered by hand for this resource, all at issuers that it does not name.
    fn names_none_of_the_configured(&self) -> bool {
        let resource = self.0.resource.resource();
        let configured = self.0.client.configuration().pre_registered.iter();
        let mut ours = configured.filter(|identity| identity.resources.contains(resource)).peekable();
        let named = |identity: &PreRegistered| {
            let mut issuers = self.issuers().iter();
            issuers.any(|it| *it == identity.issuer || it.differs_by_root_slash(&identity.issuer))
        };
        ours.peek().is_some() && !ours.any(named)
    }

    /// Chooses one of the issuers.
    ///
    /// # Errors
    /// [`Failed`] with this state when the issuer is not listed, needs an assertion, or lies on a forbidden address.
    pub fn choose(
        self,
        issuer: &Issuer,
        assertion: Option<IssuerForResource>,
    ) -> Result<Step<Fetch, AwaitingServerMetadata>, Failed<Self>> {
        // MCP-AUTH-077, MCP-AUTH-010: only a server this resource names.
        if !self.issuers().contains(issuer) {
            return Err(Failed::new(HostMisuse::IssuerNotListed, self));
        }
        // MCP-REG-053: credentials for this resource whose issuer it does not name any more are not tried at another.
        if self.names_none_of_the_configured() {
            return Err(Failed::new(PeerIncompatible::OtherIssuer, self));
        }
        let resource = self.0.resource.resource().clone();
        let asserted = assertion.is_some_and(|assertion| assertion.is_for(&resource, issuer));
        // D36, I-L13
        if self.needs_assertion(issuer) && !asserted {
            return Err(Failed::new(HostMisuse::IssuerNotAsserted, self));
        }
        // MCP-DISC-011, MCP-DISC-012, MCP-DISC-013, MCP-L0326-002: the origin's root first, where that is the issuer.
        let mut urls = VecDeque::from(issuer.metadata_urls());
        let Some(current) = urls.pop_front() else {
            return Err(Failed::new(PeerIncompatible::NoServerMetadata { relaxation: None }, self));
        };
        let fetch = counted(self.0.fetches).and_then(|fetches| {
            Ok((server_metadata_fetch(&self.0.client, &self.0.server, &current)?, fetches))
        });
        match fetch {
            Err(error) => Err(Failed { error, state: self }),
            Ok((fetch, fetches)) => {
                let Chosen { client, server, expected, challenge_scope, resource, metadata, .. } = *self.0;
                let target = Target {
                    client,
                    server,
                    expected,
                    resource,
                    listed_issuer: issuer.clone(),
                    asserted,
                    challenge_scope,
                    resource_scopes: metadata.scopes_supported.clone(),
                    ledger: StepUpLedger::default(),
                    chosen_again: false,
                };
                let search = ServerSearch { target, metadata, current, remaining: urls, fetches };
                Ok(Step::new(fetch, AwaitingServerMetadata(Box::new(search))))
            }
        }
    }
}
