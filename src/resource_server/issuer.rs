//! An authorization server whose tokens are accepted: how they are verified, for which audiences, in which profile.

use alloc::string::String;
use alloc::vec::Vec;

use super::InvalidConfiguration;
use crate::identifier::{Audience, ClientId, Endpoint, Issuer, ResourceId};
use crate::jose::KeySet;
use crate::message::exchange::AddressPolicy;
use crate::message::jwt_claims::ClaimNames;
use crate::secret::ClientSecret;

/// One issuer with its own keys, its own introspection endpoint, or both; its own audiences and its own profile.
///
/// Nothing is shared between issuers (RFC 8725 section 3.8): a key of one never verifies a token of another.
#[derive(Debug, Clone)]
pub struct TrustedIssuer {
    issuer: Issuer,
    keys: Option<KeySet>,
    introspection: Option<Introspection>,
    /// Empty until the resource server it belongs to is made: then the resource, unless others were named.
    audiences: Vec<Audience>,
    profile: TokenProfile,
}

impl TrustedIssuer {
    /// An issuer of signed tokens.
    pub fn with_keys(issuer: Issuer, keys: KeySet) -> Self {
        Self {
            issuer,
            keys: Some(keys),
            introspection: None,
            audiences: Vec::new(),
            profile: TokenProfile::default(),
        }
    }

    /// An issuer that is asked about each token.
    pub fn with_introspection(issuer: Issuer, introspection: Introspection) -> Self {
        Self {
            issuer,
            keys: None,
            introspection: Some(introspection),
            audiences: Vec::new(),
            profile: TokenProfile::default(),
        }
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
            .map(Audience::new)
            .collect::<Result<_, _>>()
            .map_err(|_| InvalidConfiguration::NoAudience)?;
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

    pub(super) fn for_resource(mut self, resource: &ResourceId) -> Self {
        if self.audiences.is_empty() {
            self.audiences.push(Audience::from(resource.clone()));
        }
        self
    }

    pub(super) fn keys(&self) -> Option<&KeySet> {
        self.keys.as_ref()
    }

    /// Replaces the keys of an issuer that has keys; says whether it has.
    pub(super) fn replace_keys(&mut self, keys: KeySet) -> bool {
        self.keys.replace(keys).is_some()
    }

    pub(super) fn introspection(&self) -> Option<&Introspection> {
        self.introspection.as_ref()
    }

    pub(super) fn audiences(&self) -> &[Audience] {
        &self.audiences
    }

    pub(super) fn profile(&self) -> &TokenProfile {
        &self.profile
    }
}

/// Where and as whom an issuer is asked about tokens (RFC 7662 section 2.1).
#[derive(Debug, Clone)]
pub struct Introspection {
    endpoint: Endpoint,
    client_id: ClientId,
    client_secret: ClientSecret,
    addresses: AddressPolicy,
}

impl Introspection {
    /// Asks this endpoint with HTTP Basic authentication. A loopback endpoint is reached on loopback, any other on
    /// public addresses.
    pub fn new(endpoint: Endpoint, client_id: ClientId, client_secret: ClientSecret) -> Self {
        let addresses = if endpoint.is_loopback() { AddressPolicy::Loopback } else { AddressPolicy::Public };
        Self { endpoint, client_id, client_secret, addresses }
    }

    /// Lets the endpoint lie in the private networks the host has named.
    #[must_use]
    pub fn on_private_networks(mut self) -> Self {
        self.addresses = AddressPolicy::PublicAndPrivateNetworks;
        self
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenProfile {
    token_types: Vec<String>,
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
        Self {
            token_types: ACCESS_TOKEN_TYPES.iter().copied().map(String::from).collect(),
            claims: ClaimNames::RFC9068,
        }
    }

    /// The named opt-out for an issuer that follows its own conventions: these `typ` values and claim names. Tokens
    /// that look like ID tokens are refused then.
    ///
    /// # Errors
    /// [`InvalidConfiguration::NoTokenType`] for an empty list: a token without a type is never accepted.
    pub fn named(
        token_types: impl IntoIterator<Item = String>,
        claims: ClaimNames,
    ) -> Result<Self, InvalidConfiguration> {
        let token_types: Vec<String> = token_types.into_iter().collect();
        if token_types.is_empty() || token_types.iter().any(String::is_empty) {
            return Err(InvalidConfiguration::NoTokenType);
        }
        Ok(Self { token_types, claims })
    }

    pub(super) fn accepts_type(&self, token_type: Option<&str>) -> bool {
        // RFC9068-4-1: compared as bytes; a token without a type is not an access token.
        token_type.is_some_and(|token_type| self.token_types.iter().any(|accepted| accepted == token_type))
    }

    /// Whether that type says by itself that the token is an access token.
    pub(super) fn is_explicit(token_type: Option<&str>) -> bool {
        token_type.is_some_and(|token_type| ACCESS_TOKEN_TYPES.contains(&token_type))
    }

    pub(super) fn claims(&self) -> ClaimNames {
        self.claims
    }
}
