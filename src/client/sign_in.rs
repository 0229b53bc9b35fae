//! Signing a person in at an OpenID Provider (OpenID Connect Core section 3.1): for a web host that needs to know who sits
//! before the browser, and nothing else. No token of the provider's is kept, and none leads anywhere.
//!
//! ```text
//!   Client::sign_in(issuer)           the host's configuration names the issuer
//!      │ Fetch                        OpenID Connect discovery
//!   AwaitingProvider
//!      │ receive
//!   Provider                          at rest, for every person
//!      │ begin ─ OpenUserAgent
//!   AwaitingSignIn ── Unsolicited: the state comes back ── Refused, Rejected: the end
//!      │ receive ─ Fetch              OAuth 2.1 section 4.1.3
//!   AwaitingIdToken
//!      │ receive ─ Fetch              RFC 7517
//!   AwaitingProviderKeys
//!      │ receive
//!   SignedIn
//! ```
//!
//! From the authorization request to the token request this is the flow for a resource (`counterpart.rs`), with the scope
//! `openid` and a nonce for a resource. The issuer is the host's word, as the MCP server's URL is the person's: it says
//! where the provider's endpoints may lie. The keys are fetched for each sign-in, so that none is kept too long.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::authorization::{ErrorResponse, OpenUserAgent, Request};
use super::counterpart::{Answered, Asked, Counterpart};
use super::discovery::{Document, check_server, document, issuer_for};
use super::endpoint::EndpointCall;
use super::id_token::{IdTokenExpected, SignedIn};
use super::record::SignInRecord;
use super::registration::{Identity, IdentityKind, authentication_of};
use super::{Client, Given, PreRegistered, addresses_for, networks_for};
use crate::entropy::Entropy;
use crate::error::{Error, HostMisuse, OutsideFailed, PeerIncompatible, PeerMisbehaved, malformed};
use crate::evidence::IssuerMatched;
use crate::identifier::{Issuer, RedirectUri, Scope};
use crate::jose::{InvalidKeySet, JwkSet, KeyImporter, KeySet};
use crate::limits;
use crate::message::authorization::Callback;
use crate::message::exchange::{Fetch, FetchFailure, FetchPolicy, FetchPurpose, Reply};
use crate::message::id_token::id_token_of;
use crate::message::server_metadata::ServerMetadata;
use crate::policy::Relaxation;
use crate::sealer::Sealer;
use crate::secret::{self, AgentBinding, IdToken, Nonce, SecretDigest};
use crate::step::{Failed, Step};
use crate::time::OffsetDateTime;

impl Client {
    /// Finds the OpenID Provider of that issuer, where this client is registered by hand for no resource: that identity
    /// is for signing people in.
    ///
    /// # Errors
    /// [`HostMisuse::NoIdentity`] when there is no such identity, [`HostMisuse::RedirectUri`] when it has no web redirect
    /// URI, [`PeerMisbehaved::ForbiddenAddress`] for an issuer on an address that nothing may go to.
    pub fn sign_in(&self, issuer: &Issuer) -> Result<Step<Fetch, AwaitingProvider>, Error> {
        let mut identities = self.configuration().pre_registered.iter();
        let identity = identities.find(|it| it.issuer == *issuer && it.resources.is_empty());
        let identity = identity.ok_or(HostMisuse::NoIdentity)?.clone();
        if identity.redirect_uri.is_private_scheme() {
            return Err(HostMisuse::RedirectUri.into());
        }
        AwaitingProvider(Box::new(Sought { client: self.clone(), identity })).again()
    }
}

#[derive(Debug)]
struct Sought {
    client: Client,
    identity: PreRegistered,
}

/// Waits for the provider's metadata document.
#[must_use = "the flow goes on with the fetch's result"]
#[derive(Debug)]
pub struct AwaitingProvider(Box<Sought>);

impl AwaitingProvider {
    fn again(self) -> Result<Step<Fetch, Self>, Error> {
        let Sought { client, identity } = &*self.0;
        let issuer = &identity.issuer;
        // OIDCD-4.1-1: a provider has its document at one place.
        let url = issuer.metadata_urls().pop();
        let url = url.ok_or(PeerIncompatible::NoServerMetadata { relaxation: None })?;
        let policy = FetchPolicy::new(addresses_for(client, issuer, &url, "issuer")?, limits::DOCUMENT_BYTES);
        let fetch = Fetch::get(FetchPurpose::AuthorizationServerMetadata, url, policy);
        Ok(Step::new(fetch.within(networks_for(client, issuer)), self))
    }

    /// What the fetch brought.
    ///
    /// # Errors
    /// [`Error`]; nothing of the document was used. Begin anew.
    pub fn receive(self, fetched: Result<Reply, FetchFailure>) -> Result<Provider, Error> {
        let Sought { client, identity } = *self.0;
        let listed = identity.issuer.clone();
        let reply = fetched.map_err(OutsideFailed::from)?;
        let Document::Found(body) = document(&reply)? else {
            return Err(PeerIncompatible::NoServerMetadata { relaxation: None }.into());
        };
        let metadata = ServerMetadata::parse(body).map_err(malformed("provider metadata"))?;
        let issuer = issuer_for(&client, &listed, &metadata)?;
        check_server(&client, &listed, &listed, &metadata)?;
        let keys = metadata.jwks_uri.as_ref().ok_or(PeerIncompatible::NoEndpoint("key set"))?;
        addresses_for(&client, &listed, keys.as_str(), "key set")?;
        check_redirect(&client, &identity, &metadata)?;
        let authentication = authentication_of(&metadata, identity.credential)?;
        let identity = Identity {
            kind: IdentityKind::PreRegistered,
            client_id: identity.client_id,
            authentication,
            redirect_uri: identity.redirect_uri,
            pinned_scopes: identity.scopes,
            secret_expires: None,
        };
        Ok(Provider(Arc::new(Known { client, listed, issuer, metadata, identity })))
    }
}

/// D29: where no `iss` will tell providers apart, the redirect URI must.
fn check_redirect(client: &Client, identity: &PreRegistered, metadata: &ServerMetadata) -> Result<(), Error> {
    let mut identities = client.configuration().pre_registered.iter();
    let shared = identities
        .any(|it| it.issuer != identity.issuer && it.redirect_uri.is_at_place_of(&identity.redirect_uri));
    let relaxation = Relaxation::SharedRedirect(identity.issuer.clone());
    let told_apart =
        metadata.authorization_response_iss_parameter_supported || client.policy().allows(&relaxation);
    if shared && !told_apart {
        return Err(PeerIncompatible::SharedRedirect { relaxation }.into());
    }
    Ok(())
}

#[derive(Debug)]
struct Known {
    client: Client,
    listed: Issuer,
    issuer: IssuerMatched,
    metadata: ServerMetadata,
    identity: Identity,
}

/// At rest: a provider whose document is known, at which any number of people may sign in. Cheap to clone. Look for it
/// anew now and then: its endpoints may move.
#[derive(Debug, Clone)]
pub struct Provider(Arc<Known>);

impl Provider {
    /// The provider.
    pub fn issuer(&self) -> &Issuer {
        self.0.issuer.issuer()
    }

    /// Where its answers arrive.
    pub fn redirect_uri(&self) -> &RedirectUri {
        &self.0.identity.redirect_uri
    }

    pub(super) fn client(&self) -> &Client {
        &self.0.client
    }

    fn counterpart(&self) -> Counterpart<'_> {
        let Known { client, listed, issuer, metadata, identity } = &*self.0;
        Counterpart { client, given: Given::from(listed), listed_issuer: listed, issuer, metadata, identity }
    }

    /// Begins one person's sign-in: the host sends the browser there.
    ///
    /// Call it when the person has just said, on a page of the host's own that names who asks, that they want to sign in
    /// there; and not before. `agent` is the browser they said it in, by a nonce that was made for this answer: it is the
    /// only one whose callback counts (I-P3).
    ///
    /// # Errors
    /// [`Error`] when there is no randomness, or the authorization endpoint's own query is in the way.
    pub fn begin(
        &self,
        agent: AgentBinding,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Step<OpenUserAgent, AwaitingSignIn>, Error> {
        // OIDCC-3.1.2.1-1
        let mut scope = self.0.identity.pinned_scopes.clone().unwrap_or_default();
        scope.insert(Scope::new("openid").map_err(|_| HostMisuse::NoIdentity)?);
        // OIDCC-3.1.2.1-2: fresh, and drawn beside state and verifier; none of them is of the request that waits for the
        // person (I-P4).
        let nonce = secret::fresh(entropy, Nonce::new)?;
        let digest = nonce.digest();
        let asked = Asked { scope, resource: None, nonce: Some(nonce) };
        let (open, request) = self.counterpart().request(asked, agent, now, entropy)?;
        let announced = self.0.metadata.authorization_response_iss_parameter_supported;
        let waiting = SigningIn { provider: self.clone(), request, nonce: digest, begun: now, announced };
        Ok(Step::new(open, AwaitingSignIn(Box::new(waiting))))
    }
}

#[derive(Debug)]
pub(super) struct SigningIn {
    pub(super) provider: Provider,
    pub(super) request: Request,
    pub(super) nonce: SecretDigest,
    pub(super) begun: OffsetDateTime,
    /// Whether the provider said, when the request was sent, that it sends `iss`.
    pub(super) announced: bool,
}

/// Waits for the browser to come back from the provider.
#[must_use = "the browser will come back"]
#[derive(Debug)]
pub struct AwaitingSignIn(pub(super) Box<SigningIn>);

/// What a callback came to.
#[must_use = "the sign-in goes on from here"]
#[derive(Debug)]
pub enum SignInOutcome {
    /// Not an answer to this request: another browser, place or state, or too late. Go on waiting.
    Unsolicited(AwaitingSignIn),
    /// A code of the provider that was asked: exchange it, once the request's [`AwaitingSignIn::state_digest`] is
    /// reserved.
    Accepted(EndpointCall<AwaitingIdToken>),
    /// The provider says no, or the person said it there.
    Refused(ErrorResponse),
    /// The answer to this request, but not from the provider that was asked. Nothing of it was used.
    Rejected(Error),
}

impl AwaitingSignIn {
    /// What stands for this request among all others. A host that keeps the record where it can be read twice, as in a
    /// cookie, reserves it before a callback is used.
    pub fn state_digest(&self) -> SecretDigest {
        self.0.request.state
    }

    /// When an answer comes too late.
    pub fn not_after(&self) -> OffsetDateTime {
        self.0.request.not_after
    }

    /// A request reached the redirect URI, in the browser `agent`.
    ///
    /// Checked in this order: browser, place, state and time; then the issuer; then error or code. Anybody can send a
    /// browser here, so the first group gives the state back.
    pub fn receive(
        self,
        callback: Callback,
        agent: &AgentBinding,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> SignInOutcome {
        let SigningIn { provider, request, announced, .. } = &*self.0;
        let counterpart = provider.counterpart();
        match counterpart.answered(request, *announced, callback, agent, now) {
            Answered::Unsolicited => SignInOutcome::Unsolicited(self),
            Answered::Rejected(error) => SignInOutcome::Rejected(error),
            Answered::Refused(response) => SignInOutcome::Refused(response),
            Answered::Code { code, matched, .. } => {
                match counterpart.exchange(code, request, &matched, None, now, entropy) {
                    Ok(call) => SignInOutcome::Accepted(call.before(AwaitingIdToken(self.0))),
                    Err(error) => SignInOutcome::Rejected(error),
                }
            }
        }
    }

    /// Puts the state away until the browser comes back.
    ///
    /// # Errors
    /// [`Failed`] with this state when the sealer fails.
    pub fn park(self, sealer: &dyn Sealer) -> Result<SignInRecord, Failed<Self>> {
        match SignInRecord::seal(&self.0, sealer) {
            Ok(record) => Ok(record),
            Err(error) => Err(Failed { error, state: self }),
        }
    }
}

/// Waits for the provider's token endpoint.
#[must_use = "the sign-in goes on with the fetch's result"]
#[derive(Debug)]
pub struct AwaitingIdToken(Box<SigningIn>);

impl AwaitingIdToken {
    /// What the fetch brought. The provider's keys are asked for next; its access token, and a refresh token if there is
    /// one, are gone.
    ///
    /// # Errors
    /// [`Error`]: the code is used up, and the person may sign in again.
    pub fn receive(
        self,
        fetched: Result<Reply, FetchFailure>,
    ) -> Result<Step<Fetch, AwaitingProviderKeys>, Error> {
        let counterpart = self.0.provider.counterpart();
        let id_token =
            fetched.as_ref().map_or(Err(FetchFailure::NotSent), |reply| Ok(id_token_of(reply.body())));
        // Read for their grammar, and dropped.
        let _tokens = counterpart.tokens_of(fetched)?;
        let id_token = id_token.map_err(OutsideFailed::from)?.map_err(malformed("token response"))?;
        let uri = counterpart.metadata.jwks_uri.as_ref().ok_or(PeerIncompatible::NoEndpoint("key set"))?;
        // I-A4: where the provider's document says, and never where a token does.
        let policy =
            FetchPolicy::new(counterpart.addresses(uri.as_str(), "key set")?, limits::DOCUMENT_BYTES);
        let fetch = Fetch::get(FetchPurpose::KeySet, uri.as_str(), policy).within(counterpart.networks());
        Ok(Step::new(fetch, AwaitingProviderKeys(Box::new((*self.0, id_token)))))
    }
}

/// Waits for the provider's keys.
#[must_use = "the sign-in goes on with the fetch's result"]
#[derive(Debug)]
pub struct AwaitingProviderKeys(Box<(SigningIn, IdToken)>);

impl AwaitingProviderKeys {
    /// What the fetch brought: who signed in. The ID token is dropped.
    ///
    /// # Errors
    /// [`PeerMisbehaved::IdToken`] for a token or a key set that is not good, [`OutsideFailed`] when the keys cannot be
    /// had. The person may sign in again.
    pub fn receive(
        self,
        fetched: Result<Reply, FetchFailure>,
        importer: &dyn KeyImporter,
        now: OffsetDateTime,
    ) -> Result<SignedIn, Error> {
        let (signing_in, token) = *self.0;
        let reply = fetched.map_err(OutsideFailed::from)?;
        match reply.status() {
            200 => {}
            status @ (429 | 500..) => {
                return Err(OutsideFailed::Unavailable { status, retry_after: reply.retry_after() }.into());
            }
            _ => return Err(PeerIncompatible::NoEndpoint("key set").into()),
        }
        let keys = JwkSet::parse(reply.body()).map_err(InvalidKeySet::from);
        let keys = keys.and_then(|keys| KeySet::import(&keys, importer));
        let keys = keys.map_err(|fault| PeerMisbehaved::IdToken(fault.into()))?;
        let SigningIn { provider, nonce, begun, .. } = &signing_in;
        let Known { issuer, identity, .. } = &*provider.0;
        let expected = IdTokenExpected { issuer, client_id: &identity.client_id, nonce, begun: *begun };
        SignedIn::of(&token, &keys, &expected, now).map_err(|fault| PeerMisbehaved::IdToken(fault).into())
    }
}
