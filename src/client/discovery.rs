//! From a challenge to an authorization server: RFC 9728 sections 3 and 5, RFC 8414 section 3, OpenID Connect
//! discovery section 4, MCP authorization (protected resource metadata, server metadata discovery).
//!
//! Each document is fetched without redirects, from an address the person's own URL permits, and used only if it names
//! what it was fetched for. A 3xx, a 4xx or a body that is not JSON means "no document here"; a 5xx or a failed fetch
//! means "not now", and gives the state back.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use super::issuer::{ChoosingIssuer, Chosen};
use super::legacy::{self, NoDefault};
use super::registration::ChoosingIdentity;
use super::step_up::StepUpLedger;
use super::{Client, Given, addresses_for, networks_for};
use crate::error::{Error, HostMisuse, OutsideFailed, PeerIncompatible, PeerMisbehaved, malformed};
use crate::evidence::{IssuerMatched, ResourceMatched};
use crate::identifier::{Endpoint, Issuer, MetadataLocation, Network, ResourceId, ScopeSet};
use crate::limits;
use crate::message::challenge::{BearerChallenge, parse_challenges};
use crate::message::exchange::{AddressPolicy, Fetch, FetchFailure, FetchPolicy, FetchPurpose, Reply};
use crate::message::protected_resource_metadata::ProtectedResourceMetadata;
use crate::message::server_metadata::ServerMetadata;
use crate::policy::Relaxation;
use crate::revision::Revision;
use crate::step::{Failed, Step};

impl Client {
    /// A request to the MCP server at `server` was answered with this 401 (or 403): find out where to authorize.
    ///
    /// `server` is the URL the *person* gave, as [`ResourceId::from_server_url`] reads it. A reply without a challenge is
    /// taken too (D7): the metadata is then looked for at its well-known places.
    ///
    /// # Errors
    /// [`HostMisuse::NotAChallenge`] for another status, [`PeerMisbehaved`] for a challenge that is malformed or leads
    /// elsewhere.
    pub fn challenged(
        &self,
        server: &ResourceId,
        reply: &Reply,
    ) -> Result<Step<Fetch, AwaitingResourceMetadata>, Error> {
        // MCP-AUTH-001: nothing begins where no authorization is asked for.
        if !matches!(reply.status(), 401 | 403) {
            return Err(HostMisuse::NotAChallenge.into());
        }
        // MCP-DISC-009, RFC9110-11.6.1-1
        let challenges = parse_challenges(reply.www_authenticate()).map_err(PeerMisbehaved::from)?;
        let challenge = BearerChallenge::find(&challenges).map_err(PeerMisbehaved::from)?;
        let scope = match challenge.as_ref().and_then(|challenge| challenge.scope.as_deref()) {
            Some(text) => Some(
                ScopeSet::parse(text)
                    .map_err(|_| malformed("challenge")(crate::message::Malformed::Invalid("scope")))?,
            ),
            None => None,
        };
        let (locations, named_by_challenge) =
            match challenge.and_then(|challenge| challenge.resource_metadata) {
                // MCP-DISC-007: the named URL, and no well-known place before it.
                Some(url) => (Vec::from([self.named_location(server, url)?]), true),
                None => (server.metadata_locations(), false),
            };
        let mut locations = VecDeque::from(locations);
        let current = locations.pop_front().ok_or(PeerIncompatible::NoResourceMetadata)?;
        let search = ResourceSearch {
            client: self.clone(),
            server: server.clone(),
            challenge_scope: scope,
            current,
            remaining: locations,
            named_by_challenge,
            fetches: 0,
        };
        search.step()
    }

    fn named_location(&self, server: &ResourceId, url: String) -> Result<MetadataLocation, Error> {
        let invalid = || malformed("challenge")(crate::message::Malformed::Invalid("resource_metadata"));
        let endpoint = Endpoint::new(url.as_str()).map_err(|_| invalid())?;
        // I-L2: the server's own origin, or one the host named.
        let origin = endpoint.origin();
        if origin != server.origin() {
            let relaxation = Relaxation::MetadataOnOtherOrigin(origin);
            if !self.policy().allows(&relaxation) {
                return Err(PeerMisbehaved::MetadataOnOtherOrigin { relaxation }.into());
            }
        }
        // RFC9728-3.3-2, RFC9728-5.2-1: with each challenge, whatever was there before.
        Ok(MetadataLocation { url, identifiers: Vec::from([server.clone()]) })
    }
}

#[derive(Debug)]
struct ResourceSearch {
    client: Client,
    server: ResourceId,
    challenge_scope: Option<ScopeSet>,
    current: MetadataLocation,
    remaining: VecDeque<MetadataLocation>,
    named_by_challenge: bool,
    fetches: u32,
}

impl ResourceSearch {
    fn fetch(&mut self) -> Result<Fetch, Error> {
        self.fetches = counted(self.fetches)?;
        let addresses =
            addresses_for(&self.client, &self.server, &self.current.url, "resource metadata URL")?;
        let policy = FetchPolicy::new(addresses, limits::DOCUMENT_BYTES);
        // RFC9728-3.1-1
        let fetch = Fetch::get(FetchPurpose::ProtectedResourceMetadata, self.current.url.as_str(), policy);
        let fetch = fetch.within(networks_for(&self.client, &self.server));
        Ok(fetch.of_revision(announced(&self.client, &self.server)))
    }

    fn step(mut self) -> Result<Step<Fetch, AwaitingResourceMetadata>, Error> {
        let fetch = self.fetch()?;
        Ok(Step::new(fetch, AwaitingResourceMetadata(Box::new(self))))
    }
}

/// The revision to say in discovery: 2025-03-26 asks for the field, later ones do not mention it.
fn announced(client: &Client, server: &ResourceId) -> Option<Revision> {
    // MCP-L0326-004
    Some(client.revision(server)).filter(|revision| *revision == Revision::V2025_03_26)
}

/// I-L8: so many fetches, and no more, before an authorization begins.
pub(super) fn counted(fetches: u32) -> Result<u32, Error> {
    let fetches = fetches.saturating_add(1);
    if fetches > limits::DISCOVERY_FETCHES { Err(OutsideFailed::TooManyFetches.into()) } else { Ok(fetches) }
}

/// What a fetch of a metadata document came to.
pub(super) enum Document<'r> {
    Found(&'r [u8]),
    NotHere,
}

pub(super) fn document(reply: &Reply) -> Result<Document<'_>, Error> {
    match reply.status() {
        // RFC9728-3.2-4
        200 if reply.is_json() => Ok(Document::Found(reply.body())),
        // D5: a failing server says nothing about whether there is a document.
        status @ 500.. => Err(OutsideFailed::Unavailable { status, retry_after: reply.retry_after() }.into()),
        status @ 429 => Err(OutsideFailed::Unavailable { status, retry_after: reply.retry_after() }.into()),
        // D8: a redirect is not followed; it is no document.
        _ => Ok(Document::NotHere),
    }
}

/// Waits for the protected resource's metadata document.
#[must_use = "the flow goes on with the fetch's result"]
#[derive(Debug)]
pub struct AwaitingResourceMetadata(Box<ResourceSearch>);

/// How the search for resource metadata goes on.
#[must_use = "the flow goes on from here"]
#[derive(Debug)]
pub enum ResourceMetadataOutcome {
    /// No document here; fetch the next location.
    Next(Step<Fetch, AwaitingResourceMetadata>),
    /// The document is of this resource; the host chooses among its authorization servers.
    Found(ChoosingIssuer),
}

impl AwaitingResourceMetadata {
    /// What the fetch brought.
    ///
    /// # Errors
    /// [`Failed`] with this state. After a fault of the network or a 5xx, [`AwaitingResourceMetadata::retry`] goes on;
    /// after a fault of the peer nothing of its document was used.
    pub fn receive(
        self,
        fetched: Result<Reply, FetchFailure>,
    ) -> Result<ResourceMetadataOutcome, Failed<Self>> {
        match self.0.judge(fetched) {
            Ok(Some((matched, metadata))) => {
                Ok(ResourceMetadataOutcome::Found(ChoosingIssuer(Box::new(Chosen {
                    client: self.0.client,
                    server: self.0.server,
                    expected: self.0.current.identifiers,
                    challenge_scope: self.0.challenge_scope,
                    resource: matched,
                    metadata,
                    fetches: self.0.fetches,
                }))))
            }
            Ok(None) => self.next(),
            Err(error) => Err(Failed { error, state: self }),
        }
    }

    fn next(mut self) -> Result<ResourceMetadataOutcome, Failed<Self>> {
        if self.0.named_by_challenge {
            // D6: the challenge said where, so nothing else is tried.
            return Err(Failed::new(PeerMisbehaved::NoMetadataWhereSaid, self));
        }
        // MCP-DISC-008
        let Some(location) = self.0.remaining.pop_front() else {
            return self.without_metadata();
        };
        self.0.current = location;
        match self.0.fetch() {
            Ok(fetch) => Ok(ResourceMetadataOutcome::Next(Step::new(fetch, self))),
            Err(error) => Err(Failed { error, state: self }),
        }
    }

    /// There is no document anywhere: the end, but for a server of revision 2025-03-26.
    fn without_metadata(self) -> Result<ResourceMetadataOutcome, Failed<Self>> {
        let ResourceSearch { client, server, .. } = &*self.0;
        // MCP-DISC-010
        let found = legacy::resource_metadata(client, server)
            .and_then(|metadata| Some((ResourceMatched::without_document(server, server)?, metadata)));
        let Some((resource, metadata)) = found else {
            return Err(Failed::new(PeerIncompatible::NoResourceMetadata, self));
        };
        let ResourceSearch { client, server, challenge_scope, fetches, .. } = *self.0;
        let expected = Vec::new();
        let chosen = Chosen { client, server, expected, challenge_scope, resource, metadata, fetches };
        Ok(ResourceMetadataOutcome::Found(ChoosingIssuer(Box::new(chosen))))
    }

    /// Fetches the same location again.
    ///
    /// # Errors
    /// [`Failed`] with this state and [`OutsideFailed::TooManyFetches`] when the allowance is used up.
    pub fn retry(mut self) -> Result<Step<Fetch, Self>, Failed<Self>> {
        match self.0.fetch() {
            Ok(fetch) => Ok(Step::new(fetch, self)),
            Err(error) => Err(Failed { error, state: self }),
        }
    }
}

impl ResourceSearch {
    fn judge(
        &self,
        fetched: Result<Reply, FetchFailure>,
    ) -> Result<Option<(ResourceMatched, ProtectedResourceMetadata)>, Error> {
        let reply = fetched.map_err(OutsideFailed::from)?;
        let Document::Found(body) = document(&reply)? else { return Ok(None) };
        // RFC9728-2-2, RFC9728-3.2-2
        let metadata = ProtectedResourceMetadata::parse(body).map_err(malformed("resource metadata"))?;
        // RFC9728-3.3-1, RFC9728-3.3-2, RFC9728-3.3-3: nothing of another resource's document is used.
        let matched = ResourceMatched::exactly(&self.current.identifiers, &metadata.resource)
            .or_else(|| self.by_path_prefix(&metadata.resource))
            .ok_or_else(|| PeerMisbehaved::ResourceMismatch {
                relaxation: self.prefix_relaxation(&metadata.resource),
            })?;
        if metadata.authorization_servers.is_empty() {
            return Err(PeerIncompatible::NoAuthorizationServer.into());
        }
        // RFC9728-2-6
        let methods = metadata.bearer_methods_supported.as_ref();
        if methods.is_some_and(|methods| !methods.iter().any(|method| method == "header")) {
            return Err(PeerIncompatible::NoHeaderMethod.into());
        }
        Ok(Some((matched, metadata)))
    }

    fn by_path_prefix(&self, document: &ResourceId) -> Option<ResourceMatched> {
        let relaxation = self.prefix_relaxation(document)?;
        self.client
            .policy()
            .allows(&relaxation)
            .then(|| ResourceMatched::by_path_prefix(&self.server, document))?
    }

    fn prefix_relaxation(&self, document: &ResourceId) -> Option<Relaxation> {
        document.is_proper_prefix_of(&self.server).then(|| Relaxation::ResourcePathPrefix(document.clone()))
    }
}

pub(super) fn server_metadata_fetch(client: &Client, server: &ResourceId, url: &str) -> Result<Fetch, Error> {
    let addresses = addresses_for(client, server, url, "issuer")?;
    let policy = FetchPolicy::new(addresses, limits::DOCUMENT_BYTES);
    let fetch = Fetch::get(FetchPurpose::AuthorizationServerMetadata, url, policy);
    Ok(fetch.within(networks_for(client, server)).of_revision(announced(client, server)))
}

/// What a flow is for: frozen from here on.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) client: Client,
    /// The URL the person gave.
    pub(crate) server: ResourceId,
    /// The identifiers the metadata URL was built from: the inputs of the comparison, for records.
    pub(crate) expected: Vec<ResourceId>,
    pub(crate) resource: ResourceMatched,
    /// The issuer as the resource lists it.
    pub(crate) listed_issuer: Issuer,
    /// Whether the host gave its word for the pair (D36); without it an identity was registered by hand for the resource.
    pub(crate) asserted: bool,
    pub(crate) challenge_scope: Option<ScopeSet>,
    pub(crate) resource_scopes: Option<ScopeSet>,
    /// The step-ups counted before the identity was chosen.
    pub(crate) ledger: StepUpLedger,
    /// Whether another identity was given up for this one: once is enough (D40).
    pub(crate) chosen_again: bool,
}

impl Target {
    /// Where a URL that the authorization server named may lead.
    pub(crate) fn addresses(&self, url: &str, what: &'static str) -> Result<AddressPolicy, Error> {
        addresses_for(&self.client, &self.server, url, what)
    }

    /// The private networks that its fetches may reach.
    pub(crate) fn networks(&self) -> &[Network] {
        networks_for(&self.client, &self.server)
    }
}

#[derive(Debug)]
pub(super) struct ServerSearch {
    pub(super) target: Target,
    pub(super) metadata: ProtectedResourceMetadata,
    pub(super) current: String,
    pub(super) remaining: VecDeque<String>,
    pub(super) fetches: u32,
}

/// Waits for the authorization server's metadata document.
#[must_use = "the flow goes on with the fetch's result"]
#[derive(Debug)]
pub struct AwaitingServerMetadata(pub(super) Box<ServerSearch>);

/// How the search for server metadata goes on.
#[must_use = "the flow goes on from here"]
#[derive(Debug)]
pub enum ServerMetadataOutcome {
    /// No document here; fetch the next location.
    Next(Step<Fetch, AwaitingServerMetadata>),
    /// The document is this issuer's; the host chooses an identity.
    Found(ChoosingIdentity),
}

impl AwaitingServerMetadata {
    /// What the fetch brought.
    ///
    /// # Errors
    /// [`Failed`] with this state; as for [`AwaitingResourceMetadata::receive`]. An issuer mismatch is final: no other
    /// location is tried (D5).
    pub fn receive(
        self,
        fetched: Result<Reply, FetchFailure>,
    ) -> Result<ServerMetadataOutcome, Failed<Self>> {
        match self.0.judge(fetched) {
            Ok(Some((issuer, metadata))) => {
                Ok(ServerMetadataOutcome::Found(ChoosingIdentity::new(self.0.target, issuer, metadata)))
            }
            Ok(None) => self.next(),
            Err(error) => Err(Failed { error, state: self }),
        }
    }

    fn next(mut self) -> Result<ServerMetadataOutcome, Failed<Self>> {
        let Some(url) = self.0.remaining.pop_front() else {
            return self.without_metadata();
        };
        self.0.current = url;
        match self.0.fetch() {
            Ok(fetch) => Ok(ServerMetadataOutcome::Next(Step::new(fetch, self))),
            Err(error) => Err(Failed { error, state: self }),
        }
    }

    /// There is no document anywhere: the end, but for a server of revision 2025-03-26 whose default endpoints the host
    /// allows.
    fn without_metadata(self) -> Result<ServerMetadataOutcome, Failed<Self>> {
        let assumed = match legacy::assumed(&self.0.target) {
            Ok(metadata) => issuer_of(&self.0.target, &metadata).map(|issuer| (issuer, metadata)),
            Err(NoDefault::Strict(relaxation)) => {
                Err(PeerIncompatible::NoServerMetadata { relaxation: Some(relaxation) }.into())
            }
            Err(NoDefault::NotLegacy) => Err(PeerIncompatible::NoServerMetadata { relaxation: None }.into()),
        };
        match assumed {
            Ok((issuer, metadata)) => {
                Ok(ServerMetadataOutcome::Found(ChoosingIdentity::new(self.0.target, issuer, metadata)))
            }
            Err(error) => Err(Failed { error, state: self }),
        }
    }

    /// Goes back to the choice of an issuer, for a resource that names several.
    pub fn choose_again(self) -> ChoosingIssuer {
        // MCP-DISC-002: the choice is the host's, before and after a failure; none is tried in its place.
        let ServerSearch { target, metadata, fetches, .. } = *self.0;
        let Target { client, server, expected, resource, challenge_scope, .. } = target;
        ChoosingIssuer(Box::new(Chosen {
            client,
            server,
            expected,
            challenge_scope,
            resource,
            metadata,
            fetches,
        }))
    }

    /// Fetches the same location again.
    ///
    /// # Errors
    /// [`Failed`] with this state and [`OutsideFailed::TooManyFetches`] when the allowance is used up.
    pub fn retry(mut self) -> Result<Step<Fetch, Self>, Failed<Self>> {
        match self.0.fetch() {
            Ok(fetch) => Ok(Step::new(fetch, self)),
            Err(error) => Err(Failed { error, state: self }),
        }
    }
}

impl ServerSearch {
    fn fetch(&mut self) -> Result<Fetch, Error> {
        self.fetches = counted(self.fetches)?;
        server_metadata_fetch(&self.target.client, &self.target.server, &self.current)
    }

    fn judge(
        &self,
        fetched: Result<Reply, FetchFailure>,
    ) -> Result<Option<(IssuerMatched, ServerMetadata)>, Error> {
        let reply = fetched.map_err(OutsideFailed::from)?;
        let Document::Found(body) = document(&reply)? else { return Ok(None) };
        // MCP-AUTH-012
        let metadata = ServerMetadata::parse(body).map_err(malformed("authorization server metadata"))?;
        let issuer = issuer_of(&self.target, &metadata)?;
        check_metadata(&self.target, &metadata)?;
        if let Some(listed) = &metadata.protected_resources {
            // D36: the server knows its resources, and this one is not among them.
            let ours = self.target.resource.resource();
            if !self.target.asserted && !listed.iter().any(|resource| resource == ours.as_str()) {
                return Err(HostMisuse::IssuerNotAsserted.into());
            }
        }
        Ok(Some((issuer, metadata)))
    }
}

/// The document is the listed issuer's, or the host named the one relaxation there is.
pub(crate) fn issuer_of(target: &Target, metadata: &ServerMetadata) -> Result<IssuerMatched, Error> {
    issuer_for(&target.client, &target.listed_issuer, metadata)
}

/// The same for an issuer that the host knows.
pub(super) fn issuer_for(
    client: &Client,
    listed: &Issuer,
    metadata: &ServerMetadata,
) -> Result<IssuerMatched, Error> {
    // MCP-DISC-015, MCP-DISC-016, RFC8414-3.3-1
    if let Some(matched) = IssuerMatched::by_document(listed, metadata.issuer.as_str()) {
        return Ok(matched);
    }
    let relaxation = Relaxation::IssuerRootSlash(listed.clone());
    match IssuerMatched::but_for_root_slash(listed, &metadata.issuer) {
        Some(matched) if client.policy().allows(&relaxation) => Ok(matched),
        Some(_) => Err(PeerMisbehaved::IssuerMismatch { relaxation: Some(relaxation) }.into()),
        None => Err(PeerMisbehaved::IssuerMismatch { relaxation: None }.into()),
    }
}

/// The same for metadata that a record brings back: they may be the default endpoints, which no document announced.
pub(crate) fn check_recorded(target: &Target, metadata: &ServerMetadata) -> Result<(), Error> {
    if legacy::is_assumed(target, metadata) { Ok(()) } else { check_metadata(target, metadata) }
}

fn check_metadata(target: &Target, metadata: &ServerMetadata) -> Result<(), Error> {
    check_server(&target.client, &target.server, &target.listed_issuer, metadata)
}

/// What every flow needs of the document.
pub(super) fn check_server(
    client: &Client,
    given: impl Into<Given>,
    listed: &Issuer,
    metadata: &ServerMetadata,
) -> Result<(), Error> {
    let given = given.into();
    let addresses = |url: &str, what| addresses_for(client, given.clone(), url, what);
    // MCP-SEC-010, MCP-SEC-012, MCP-SEC-013: S256 is announced, or the host vouches for it.
    if !metadata.lists_s256() {
        let unlisted = metadata.code_challenge_methods_supported.is_none();
        let relaxation = unlisted.then(|| Relaxation::AssumeS256(listed.clone()));
        if !relaxation.as_ref().is_some_and(|relaxation| client.policy().allows(relaxation)) {
            return Err(PeerIncompatible::NoS256 { relaxation }.into());
        }
    }
    if !metadata.supports_grant_type("authorization_code")
        || !metadata.response_types_supported.iter().any(|response| response == "code")
    {
        return Err(PeerIncompatible::NoCodeGrant.into());
    }
    let required = [
        ("authorization endpoint", &metadata.authorization_endpoint),
        ("token endpoint", &metadata.token_endpoint),
    ];
    for (what, endpoint) in required {
        // RFC8414-2-4
        let endpoint = endpoint.as_ref().ok_or(PeerIncompatible::NoEndpoint(what))?;
        // OAUTH21-1.5-1, MCP-SBP-020, MCP-SBP-040
        addresses(endpoint.as_str(), what)?;
    }
    let optional = [
        ("registration endpoint", &metadata.registration_endpoint),
        ("revocation endpoint", &metadata.revocation_endpoint),
    ];
    for (what, endpoint) in optional {
        if let Some(endpoint) = endpoint {
            addresses(endpoint.as_str(), what)?;
        }
    }
    Ok(())
}
