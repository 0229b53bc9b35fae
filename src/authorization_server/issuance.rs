//! What a granted token request hands out: the access token's claims, the bounds of its life, the answer.
//!
//! OAuth 2.1 section 3.2.3, RFC 9068 section 2. Both grants share it. Nothing here decides whether a request is
//! granted: that is `token` and `refresh`, and what they found is the argument.

use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::authorization_server::authentication::ClientAuthenticated;
use crate::authorization_server::error::TokenReason;
use crate::authorization_server::record::{AccessRecord, FamilyId, GrantRecord, RefreshRecord};
use crate::authorization_server::{AuthorizationServer, KnownResource};
use crate::entropy::{Entropy, EntropyUnavailable, draw};
use crate::identifier::{ResourceId, ScopeSet};
use crate::jose::{AwaitedSignature, Sign, Signed};
use crate::message::exchange::Respond;
use crate::message::jwt_claims::AccessTokenClaims;
use crate::message::token::{TokenResponse, TokenType};
use crate::secret::{self, AccessToken, RefreshToken, SecretDigest};
use crate::syntax::base64url;
use crate::time::{self, OffsetDateTime};

/// Refuses a target other than the grant's one resource; none named means that one (D30).
pub(crate) fn check_target(grant: &GrantRecord, requested: Option<&str>) -> Result<(), TokenReason> {
    // The spelling that the grant has needs no reading.
    let Some(requested) = requested.filter(|text| *text != grant.resource.as_str()) else { return Ok(()) };
    // RFC8707-2.2-1, RFC8707-2-6, MCP-AUTH-058: looked up as at the authorization endpoint, minted in the configured spelling.
    let requested = ResourceId::from_server_url(requested).map_err(|_| TokenReason::TargetOutsideGrant)?;
    if !requested.has_lookup_key_of(&grant.resource) {
        return Err(TokenReason::TargetOutsideGrant);
    }
    Ok(())
}

/// The part of `wanted` that the resource still understands and the client may still have.
///
/// Configuration and registration may have shrunk since the person agreed: a token follows them (I-T4).
pub(crate) fn current_scope(
    server: &AuthorizationServer,
    client: &ClientAuthenticated,
    grant: &GrantRecord,
    wanted: &ScopeSet,
) -> Result<ScopeSet, TokenReason> {
    // RFC9068-3-3: a resource that is served no more gets no tokens.
    let understood = server.resource(&grant.resource).ok_or(TokenReason::TargetOutsideGrant)?.scopes();
    // RFC8707-2.2-3, RFC9068-2.2.3-2
    let mut scope = wanted.intersection(understood);
    if let Some(registered) = client.scope() {
        scope = scope.intersection(registered);
    }
    if scope.is_empty() && !wanted.is_empty() {
        return Err(TokenReason::ScopeExceeded);
    }
    Ok(scope)
}

/// What a refresh token of that generation is for: ends without use after the idle time, and with its family.
pub(crate) fn refresh_record(
    server: &AuthorizationServer,
    grant: &Arc<GrantRecord>,
    generation: u64,
    now: OffsetDateTime,
) -> Arc<RefreshRecord> {
    // OAUTH21-4.3.3-2
    let expires = time::after(now, server.lifetimes().refresh_idle).min(grant.not_after);
    // OAUTH21-4.3.3-1, OAUTH21-3.2.3-7, RFC8707-2.2-2: the whole grant, whatever part of it the access token gets.
    Arc::new(RefreshRecord { grant: Arc::clone(grant), generation, expires })
}

/// The first refresh token of a family.
pub(crate) fn first_refresh(
    server: &AuthorizationServer,
    grant: &Arc<GrantRecord>,
    now: OffsetDateTime,
    entropy: &mut dyn Entropy,
) -> Result<(RefreshToken, Arc<RefreshRecord>), TokenReason> {
    let token = secret::fresh(entropy, RefreshToken::new).map_err(|_| TokenReason::NoEntropy)?;
    Ok((token, refresh_record(server, grant, 0, now)))
}

/// What has to happen before the tokens of an answer are complete.
pub(crate) enum Planned {
    /// The access token is signed.
    Sign(Sign, Issuance),
    /// Nothing: the access token is opaque, and stored with everything else.
    Opaque(Issued, (SecretDigest, Arc<AccessRecord>)),
}

/// The tokens of one answer before the access token is signed.
pub(crate) struct Issuance {
    awaited: AwaitedSignature,
    expires_in: u64,
    scope: ScopeSet,
    refresh: Option<RefreshToken>,
}

impl Issuance {
    /// The claims to sign or the row to store, and what will go out with them.
    ///
    /// `scope` is what this token gets, a part of the grant's. The token ends with the configured lifetime or with
    /// its family, whichever comes first.
    pub(crate) fn plan(
        server: &AuthorizationServer,
        grant: &Arc<GrantRecord>,
        scope: ScopeSet,
        refresh: Option<RefreshToken>,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Planned, TokenReason> {
        // MCP-SEC-003, RFC6750-5.2-1: always a bounded life, and none beyond the family's.
        let end = time::after(now, server.lifetimes().access_token).min(grant.not_after);
        let expires = end.unix_timestamp();
        let issued = now.unix_timestamp();
        let expires_in = u64::try_from(expires.saturating_sub(issued)).unwrap_or(0);
        if expires_in == 0 {
            return Err(TokenReason::GrantExpired);
        }
        if server.resource(&grant.resource).is_some_and(KnownResource::has_opaque_tokens) {
            let token = secret::fresh(entropy, AccessToken::new).map_err(|_| TokenReason::NoEntropy)?;
            let record =
                AccessRecord { grant: Arc::clone(grant), scope: scope.clone(), issued: now, expires: end };
            let row = (token.digest(), Arc::new(record));
            return Ok(Planned::Opaque(Issued::new(token, expires_in, refresh, scope), row));
        }
        // The family stands in the identifier, so that introspection finds what may have been revoked since.
        let jti = jti_of(grant.family, entropy).map_err(|_| TokenReason::NoEntropy)?;
        // RFC9068-2.2-1, RFC9068-2.2-2, RFC9068-2.2.3-1; RFC9068-3-1, RFC8707-2-5, RFC9068-5-1: one audience, the grant's.
        let claims = AccessTokenClaims {
            iss: server.issuer().as_str().to_string(),
            sub: String::from(&*grant.subject),
            aud: Vec::from([grant.resource.as_str().to_string()]),
            client_id: grant.client_id.as_str().to_string(),
            exp: expires,
            nbf: None,
            iat: Some(issued),
            jti: Some(jti),
            scope: (!scope.is_empty()).then(|| scope.clone()),
            auth_time: None,
            acr: None,
        };
        // RFC9068-2.1-1
        let (sign, awaited) = Sign::new(server.signing_key().clone(), "at+jwt", &claims.render());
        Ok(Planned::Sign(sign, Self { awaited, expires_in, scope, refresh }))
    }

    /// Puts the signature in: from here on the answer is complete and waits only for the store.
    pub(crate) fn signed(self, signed: Signed) -> Result<Issued, TokenReason> {
        let token = signed.into_token(&self.awaited).map_err(|_| TokenReason::HostMisuse)?;
        let access_token = AccessToken::new(token.to_string()).map_err(|_| TokenReason::SignerFailed)?;
        Ok(Issued::new(access_token, self.expires_in, self.refresh, self.scope))
    }
}

/// Family and 128 random bits.
fn jti_of(family: FamilyId, entropy: &mut dyn Entropy) -> Result<String, EntropyUnavailable> {
    let random = draw::<16>(entropy)?;
    Ok(base64url::encode(&[family.as_bytes().as_slice(), random.as_slice()].concat()))
}

/// The family in an identifier that [`jti_of`] made.
pub(crate) fn family_of(jti: &str) -> Option<FamilyId> {
    let bytes: [u8; 32] = base64url::decode(jti).ok()?.try_into().ok()?;
    let (family, _) = bytes.split_first_chunk::<16>()?;
    Some(FamilyId::from_bytes(*family))
}

impl fmt::Debug for Issuance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuance").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// A complete answer, held back until the store has committed.
pub(crate) struct Issued(TokenResponse);

impl Issued {
    fn new(
        access_token: AccessToken,
        expires_in: u64,
        refresh_token: Option<RefreshToken>,
        scope: ScopeSet,
    ) -> Self {
        Self(TokenResponse {
            access_token,
            token_type: TokenType::Bearer,
            // OAUTH21-3.2.3-4
            expires_in: Some(expires_in),
            refresh_token,
            // OAUTH21-1.4.1-1: always stated, so that a smaller one never goes unseen.
            scope: Some(scope),
        })
    }

    /// The answer, released.
    pub(crate) fn respond(self) -> Respond {
        // OAUTH21-3.2.3-1, OAUTH21-3.2.3-8
        Respond::json(200, self.0.render()).with_header("cache-control", "no-store")
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issued(redacted)")
    }
}
