//! An authorization server whose tokens are accepted: how they are verified, for which audiences, in which profile.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::InvalidConfiguration;
use crate::identifier::{Audience, ClientId, Endpoint, Issuer, ResourceId};
use crate::jose::KeySet;
use crate::limits;
use crate::message::exchange::AddressPolicy;
use crate::message::jwt_claims::{ClaimNames, ScopeShape};
use crate::secret::{ClientSecret, SecretDigest};
use crate::time::{Duration, OffsetDateTime};

/// One issuer with its own keys, its own introspection endpoint, or both; its own audiences and its own profile.
///
/// Nothing is shared between issuers (RFC 8725 section 3.8): a key of one never verifies a token of another.
#[derive(Debug, Clone)]
pub struct TrustedIssuer {
    issuer: Arc<Issuer>,
    keys: Keys,
    introspection: Option<Introspection>,
    /// Empty until the resource server it belongs to is made: then the resource, unless others were named.
    audiences: Vec<Arc<Audience>>,
    own_audiences: bool,
    profile: TokenProfile,
}

/// What an issuer's signed tokens are verified with.
#[derive(Debug, Clone)]
enum Keys {
    /// Nothing: it has no signed tokens, or they are looked up like opaque ones.
    None,
    /// They were not fetched yet.
    Awaited,
    /// These, up to a time if they were fetched.
    Held(KeySet, Option<Fetched>),
}

/// A document of keys, and how long it holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fetched {
    pub(super) document: SecretDigest,
    pub(super) until: OffsetDateTime,
}

/// The keys of an issuer at one time.
pub(super) enum KeysNow<'a> {
    /// These, and until when.
    Usable(&'a KeySet, Option<OffsetDateTime>),
    /// There are none yet, or they are too old to be believed (D42).
    Unavailable,
}

impl TrustedIssuer {
    fn new(issuer: Issuer, keys: Keys, introspection: Option<Introspection>) -> Self {
        Self {
            issuer: Arc::new(issuer),
            keys,
            introspection,
            audiences: Vec::new(),
            own_audiences: false,
            profile: TokenProfile::default(),
        }
    }

    /// An issuer of signed tokens whose keys the host configured. They stay in force until they are replaced.
    pub fn with_keys(issuer: Issuer, keys: KeySet) -> Self {
        Self::new(issuer, Keys::Held(keys, None), None)
    }

    /// An issuer of signed tokens whose keys are fetched: its tokens are answered with 503 until they are there.
    pub fn awaiting_keys(issuer: Issuer) -> Self {
        Self::new(issuer, Keys::Awaited, None)
    }

    /// An issuer that is asked about each token.
    pub fn with_introspection(issuer: Issuer, introspection: Introspection) -> Self {
        Self::new(issuer, Keys::None, Some(introspection))
    }

    /// Also asks the issuer about tokens that are not signed ones.
    #[must_use]
    pub fn and_introspection(mut self, introspection: Introspection) -> Self {
        self.introspection = Some(introspection);
        self
    }

    /// Accepts these audiences of this issuer instead of the resource identifier, for issuers that write something
    /// else into `aud`.
    ///
    /// # Errors
    /// [`InvalidConfiguration::NoAudience`] for an empty list or an empty audience (I-G8).
    pub fn accepting_audiences(
        mut self,
        audiences: impl IntoIterator<Item = String>,
    ) -> Result<Self, InvalidConfiguration> {
        // MCP-SEC-028: there is always an audience to compare with.
        self.audiences = audiences
            .into_iter()
            .map(|audience| Audience::new(audience).map(Arc::new))
            .collect::<Result<_, _>>()
            .map_err(|_| InvalidConfiguration::NoAudience)?;
        self.own_audiences = true;
        if self.audiences.is_empty() { Err(InvalidConfiguration::NoAudience) } else { Ok(self) }
    }

    /// Reads this issuer's signed tokens by another profile than RFC 9068's.
    #[must_use]
    pub fn with_profile(mut self, profile: TokenProfile) -> Self {
        self.profile = profile;
        self
    }

    /// Its identifier.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    pub(super) fn shared_issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    pub(super) fn for_resource(mut self, resource: &ResourceId) -> Self {
        if self.audiences.is_empty() {
            self.audiences.push(Arc::new(Audience::from(resource.clone())));
        }
        self
    }

    pub(super) fn has_keys(&self) -> bool {
        !matches!(self.keys, Keys::None)
    }

    /// The keys to verify with at this time; `None` for an issuer without.
    pub(super) fn keys_at(&self, now: OffsetDateTime) -> Option<KeysNow<'_>> {
        match &self.keys {
            Keys::None => None,
            Keys::Awaited => Some(KeysNow::Unavailable),
            // D42: keys that could not be fetched again for so long may have been withdrawn.
            Keys::Held(_, Some(fetched)) if now >= fetched.until => Some(KeysNow::Unavailable),
            Keys::Held(keys, fetched) => Some(KeysNow::Usable(keys, fetched.map(|fetched| fetched.until))),
        }
    }

    /// Whether its keys are still to be fetched.
    pub(super) fn awaits_keys(&self) -> bool {
        matches!(self.keys, Keys::Awaited)
    }

    /// Whether its keys are those of that document.
    pub(super) fn has_keys_of(&self, document: SecretDigest) -> bool {
        matches!(&self.keys, Keys::Held(_, Some(fetched)) if fetched.document == document)
    }

    /// Replaces the keys of an issuer that has keys; says whether it has.
    pub(super) fn replace_keys(&mut self, keys: KeySet, fetched: Option<Fetched>) -> bool {
        // I-A4: the old ones are gone.
        let has = self.has_keys();
        if has {
            self.keys = Keys::Held(keys, fetched);
        }
        has
    }

    pub(super) fn introspection(&self) -> Option<&Introspection> {
        self.introspection.as_ref()
    }

    pub(super) fn audiences(&self) -> &[Arc<Audience>] {
        &self.audiences
    }

    pub(super) fn profile(&self) -> &TokenProfile {
        &self.profile
    }

    /// What is accepted of this issuer beyond the strict default.
    pub(super) fn relaxations(&self) -> impl Iterator<Item = ResourceRelaxation> {
        let named = |condition, relaxation: fn(Issuer) -> ResourceRelaxation| {
            if condition { Some(relaxation(Issuer::clone(&self.issuer))) } else { None }
        };
        let non_expiring = self.introspection.as_ref().is_some_and(|asked| asked.non_expiring.is_some());
        [
            named(self.own_audiences, ResourceRelaxation::AcceptedAudiences),
            named(self.profile != TokenProfile::rfc9068(), ResourceRelaxation::NamedProfile),
            named(non_expiring, ResourceRelaxation::NonExpiring),
        ]
        .into_iter()
        .flatten()
    }
}

/// What a resource server accepts beyond the strict default; each was named by the host for one issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResourceRelaxation {
    /// Other audiences than the resource identifier.
    AcceptedAudiences(Issuer),
    /// Signed tokens that do not follow RFC 9068.
    NamedProfile(Issuer),
    /// Opaque tokens without an expiry.
    NonExpiring(Issuer),
}

/// Where and as whom an issuer is asked about tokens (RFC 7662 section 2.1).
#[derive(Debug, Clone)]
pub struct Introspection {
    endpoint: Endpoint,
    client_id: ClientId,
    client_secret: ClientSecret,
    addresses: AddressPolicy,
    non_expiring: Option<Duration>,
}

impl Introspection {
    /// Asks this endpoint with HTTP Basic authentication. A loopback endpoint is reached on loopback, any other on
    /// public addresses.
    pub fn new(endpoint: Endpoint, client_id: ClientId, client_secret: ClientSecret) -> Self {
        let addresses = if endpoint.is_loopback() { AddressPolicy::Loopback } else { AddressPolicy::Public };
        Self { endpoint, client_id, client_secret, addresses, non_expiring: None }
    }

    /// Lets the endpoint lie in the private networks the host has named.
    #[must_use]
    pub fn on_private_networks(mut self) -> Self {
        self.addresses = AddressPolicy::PublicAndPrivateNetworks;
        self
    }

    /// Takes active tokens of this issuer that have no `exp`, and asks again after this time. The relaxation
    /// `NonExpiring`: the issuer alone ends such a token (D32).
    ///
    /// # Errors
    /// [`InvalidConfiguration::NonExpiring`] when the time is not between one second and
    /// [`limits::NON_EXPIRING_SECONDS_MOST`].
    pub fn accepting_tokens_without_expiry(mut self, held: Duration) -> Result<Self, InvalidConfiguration> {
        let most = Duration::seconds(limits::NON_EXPIRING_SECONDS_MOST);
        if held < Duration::SECOND || held > most {
            return Err(InvalidConfiguration::NonExpiring);
        }
        self.non_expiring = Some(held);
        Ok(self)
    }

    pub(super) fn non_expiring(&self) -> Option<Duration> {
        self.non_expiring
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    pub(super) fn client_secret(&self) -> &ClientSecret {
        &self.client_secret
    }

    pub(super) fn addresses(&self) -> AddressPolicy {
        self.addresses
    }
}

/// How an issuer writes its signed access tokens (D32). The default is RFC 9068.
///
/// The presets are what these products document for tokens of their own APIs. With any profile but RFC 9068 the type
/// does not tell access tokens from ID tokens: the marks of ID tokens are refused then, and so is an audience that is
/// the client itself unless it is configured as one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenProfile {
    token_types: Vec<String>,
    untyped: bool,
    claims: ClaimNames,
}

impl Default for TokenProfile {
    fn default() -> Self {
        Self::rfc9068()
    }
}

/// The types of RFC 9068 section 4, and nothing else.
const ACCESS_TOKEN_TYPES: [&str; 2] = ["at+jwt", "application/at+jwt"];

impl TokenProfile {
    /// RFC 9068: `typ` is `at+jwt`, the client is `client_id`, the scope is `scope`.
    pub fn rfc9068() -> Self {
        Self::of(&ACCESS_TOKEN_TYPES, false, ClaimNames::RFC9068)
    }

    /// Microsoft Entra ID, tokens of version 2.0: `azp` is the client, `scp` the scopes in one string. `aud` is the
    /// application's identifier: name it with [`TrustedIssuer::accepting_audiences`].
    pub fn entra_v2() -> Self {
        let claims = ClaimNames {
            client_id: "azp",
            scope: "scp",
            scope_shape: ScopeShape::Text,
            requires_iat: true,
            requires_jti: false,
        };
        Self::of(&["JWT"], false, claims)
    }

    /// Okta, custom authorization servers: no `typ`, `cid` is the client, `scp` the scopes as an array.
    pub fn okta() -> Self {
        let claims = ClaimNames {
            client_id: "cid",
            scope: "scp",
            scope_shape: ScopeShape::List,
            requires_iat: true,
            requires_jti: true,
        };
        Self::of(&[], true, claims)
    }

    /// Auth0 with its default token dialect: `azp` is the client, `scope` the scopes in one string. APIs set to the RFC 9068 dialect
    /// need no profile.
    pub fn auth0() -> Self {
        let claims = ClaimNames { client_id: "azp", requires_jti: false, ..ClaimNames::RFC9068 };
        Self::of(&["JWT"], false, claims)
    }

    /// Keycloak: `azp` is the client, `scope` the scopes in one string. Refresh and ID tokens have the same `typ` in
    /// their header; the `typ` claim tells them apart.
    pub fn keycloak() -> Self {
        let claims = ClaimNames { client_id: "azp", ..ClaimNames::RFC9068 };
        Self::of(&["JWT"], false, claims)
    }

    /// The named opt-out for an issuer that follows its own conventions: these `typ` values and claim names.
    ///
    /// # Errors
    /// [`InvalidConfiguration::NoTokenType`] for an empty list: a token without a type is accepted only where
    /// [`TokenProfile::untyped`] says so.
    pub fn named(
        token_types: impl IntoIterator<Item = String>,
        claims: ClaimNames,
    ) -> Result<Self, InvalidConfiguration> {
        let token_types: Vec<String> = token_types.into_iter().collect();
        if token_types.is_empty() || token_types.iter().any(String::is_empty) {
            return Err(InvalidConfiguration::NoTokenType);
        }
        Ok(Self { token_types, untyped: false, claims })
    }

    /// As [`TokenProfile::named`] for an issuer whose tokens have no `typ` at all.
    pub fn untyped(claims: ClaimNames) -> Self {
        Self::of(&[], true, claims)
    }

    fn of(token_types: &[&str], untyped: bool, claims: ClaimNames) -> Self {
        Self { token_types: token_types.iter().copied().map(String::from).collect(), untyped, claims }
    }

    pub(super) fn accepts_type(&self, token_type: Option<&str>) -> bool {
        // RFC9068-4-1: compared as bytes; a token without a type is an access token only where that is configured.
        match token_type {
            Some(token_type) => self.token_types.iter().any(|accepted| accepted == token_type),
            None => self.untyped,
        }
    }

    /// Whether that type says by itself that the token is an access token.
    pub(super) fn is_explicit(token_type: Option<&str>) -> bool {
        token_type.is_some_and(|token_type| ACCESS_TOKEN_TYPES.contains(&token_type))
    }

    pub(super) fn claims(&self) -> ClaimNames {
        self.claims
    }
}
