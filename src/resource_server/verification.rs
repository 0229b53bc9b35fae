//! From a presented token to a verified one: RFC 9068 section 4 for signed tokens, RFC 7662 section 2 for opaque ones,
//! RFC 8725 for both.
//!
//! Which check stands where is the same on both paths: whose token, which kind, which restrictions, for whom, when.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;

use super::ResourceServer;
use super::admission::{Presented, PresentedToken};
use super::denial::{Denial, DenialReason};
use super::exchange::SubjectToken;
use super::issuer::{Introspection, KeysNow, TokenProfile, TrustedIssuer};
use super::scope::RequiredScopes;
use crate::evidence::{AudienceAccepted, IssuerMatched};
use crate::identifier::{ClientId, Issuer};
use crate::jose::{JwsError, JwtBuffer, KeySet, UnverifiedJwt};
use crate::limits;
use crate::message::exchange::{Fetch, FetchFailure, FetchPolicy, FetchPurpose, Reply};
use crate::message::introspection::{ActiveToken, IntrospectionRequest, IntrospectionResponse};
use crate::message::jwt_claims::{PresentedClaims, ScopeClaim};
use crate::message::revocation::TokenTypeHint;
use crate::message::token::{ClientParameters, TokenType};
use crate::secret::{SecretDigest, SubmittedToken};
use crate::step::Step;
use crate::syntax::basic;
use crate::time::{Duration, OffsetDateTime};

/// What became of a presented token.
#[derive(Debug)]
#[must_use = "the request is not to be handled unless its token is verified"]
pub enum VerificationOutcome {
    /// It is what it says.
    Verified(VerifiedToken),
    /// It is not; answer with this.
    Denied(Denial),
    /// Its issuer has to be asked.
    Introspect(Step<Fetch, AwaitingIntrospection>),
}

/// A token that is genuine, meant for this resource, and valid now. What it allows is decided by
/// [`VerifiedToken::authorize`].
#[derive(Debug)]
#[must_use = "a verified token allows nothing until its scopes are compared"]
pub struct VerifiedToken(Arc<Verified>);

/// What is known of one request's token: the facts, which a cache may share, and what belongs to this request alone.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) facts: Arc<Facts>,
    /// What the operation needed; nothing until that was compared.
    pub(super) required: RequiredScopes,
    pub(super) subject_token: Option<SubjectToken>,
}

impl VerifiedToken {
    pub(super) fn new(facts: Arc<Facts>, subject_token: Option<SubjectToken>) -> Self {
        Self(Arc::new(Verified { facts, required: RequiredScopes::none(), subject_token }))
    }

    pub(super) fn facts(&self) -> &Arc<Facts> {
        &self.0.facts
    }

    /// What the handler gets, once the scopes were compared. Nobody else holds it, so that it is written where it lies.
    pub(super) fn with_required(mut self, required: &RequiredScopes) -> Option<Arc<Verified>> {
        Arc::get_mut(&mut self.0)?.required = required.clone();
        Some(self.0)
    }
}

/// What a verified token says; each field passed its check when this was made. It holds no token.
pub(super) struct Facts {
    pub(super) server: ResourceServer,
    pub(super) issuer: IssuerMatched,
    pub(super) audience: AudienceAccepted,
    pub(super) client: ClientId,
    /// The subject, and behind it the scope tokens with a space before each: one text for both.
    text: String,
    subject_bytes: usize,
    pub(super) expires_at: OffsetDateTime,
    /// The second from which on nobody may rely on this without verifying again.
    pub(super) stale_at: i64,
    /// The token's, where a cache was asked for it.
    pub(super) digest: Option<SecretDigest>,
}

impl Facts {
    /// Who the token is about.
    pub(super) fn subject(&self) -> &str {
        self.text.get(..self.subject_bytes).unwrap_or_default()
    }

    /// Each scope token, as its issuer wrote it.
    pub(super) fn scopes(&self) -> impl Iterator<Item = &str> + Clone {
        let scopes = self.text.get(self.subject_bytes..).unwrap_or_default();
        scopes.split(' ').filter(|token| !token.is_empty())
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("client", &self.client)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Subject and scopes in one text.
fn one_text(subject: &str, scope: Option<ScopeClaim<'_>>) -> String {
    let bytes = scope.map_or(0, ScopeClaim::text_bytes);
    let mut text = String::with_capacity(subject.len().saturating_add(bytes));
    text.push_str(subject);
    if let Some(scope) = scope {
        scope.append_to(&mut text);
    }
    text
}

impl PresentedToken {
    /// Verifies the token at this time, or says what has to be asked.
    pub fn verify(self, now: OffsetDateTime) -> VerificationOutcome {
        let presented = self.into_interior();
        let Presented { server, token, required, digest } = &*presented;
        let deny = |reason, issuer: Option<&Issuer>| {
            let denial = Denial::new(server, required, reason);
            VerificationOutcome::Denied(match issuer {
                Some(issuer) => denial.of_issuer(issuer),
                None => denial,
            })
        };
        let mut buffer = JwtBuffer::new();
        // What has not three segments is opaque, and so is every token where no issuer has keys. It stays where it is read.
        let parsed = if server.0.any_keys {
            UnverifiedJwt::parse(token.bytes(), &mut buffer)
        } else {
            Err(JwsError::Segments)
        };
        let jwt = match &parsed {
            Ok(jwt) => Some(jwt),
            Err(JwsError::Segments) => None,
            Err(error) => return deny(DenialReason::Token(*error), None),
        };
        match server.route(jwt, now) {
            Err(Unroutable { reason, issuer }) => deny(reason, issuer),
            Ok(Route::Keys { jwt, trusted, keys, until }) => {
                match server.check_jwt(jwt, trusted, keys, until, *digest, now) {
                    Err(DenialReason::UnknownKey) => VerificationOutcome::Denied(
                        Denial::new(server, required, DenialReason::UnknownKey)
                            .of_issuer(trusted.issuer())
                            .for_key(jwt.kid()),
                    ),
                    Err(reason) => deny(reason, Some(trusted.issuer())),
                    Ok(facts) => VerificationOutcome::Verified(VerifiedToken::new(
                        Arc::new(facts),
                        SubjectToken::of(&presented, trusted.issuer()),
                    )),
                }
            }
            Ok(Route::Introspection(trusted, introspection)) => {
                // The two token types have one grammar, so that this cannot fail; if it did, the token would not pass.
                let Ok(submitted) = SubmittedToken::new(token.expose()) else {
                    return deny(DenialReason::OpaqueToken, None);
                };
                let fetch = introspect(introspection, submitted);
                let awaiting = AwaitingIntrospection(Box::new(Asked {
                    server: server.clone(),
                    issuer: trusted.issuer().clone(),
                    required: required.clone(),
                    digest: *digest,
                    subject_token: SubjectToken::of(&presented, trusted.issuer()),
                }));
                VerificationOutcome::Introspect(Step::new(fetch, awaiting))
            }
        }
    }
}

/// How a token is verified.
enum Route<'a> {
    Keys {
        jwt: &'a UnverifiedJwt<'a>,
        trusted: &'a TrustedIssuer,
        keys: &'a KeySet,
        until: Option<OffsetDateTime>,
    },
    Introspection(&'a TrustedIssuer, &'a Introspection),
}

/// Nothing to verify a token with.
struct Unroutable<'a> {
    reason: DenialReason,
    issuer: Option<&'a Issuer>,
}

impl From<DenialReason> for Unroutable<'_> {
    fn from(reason: DenialReason) -> Self {
        Self { reason, issuer: None }
    }
}

impl ResourceServer {
    /// Chooses the issuer. A signed token names one of those configured; an opaque one belongs to the only issuer that
    /// can be asked. A token that one path refuses is never tried on the other.
    fn route<'a>(
        &'a self,
        jwt: Option<&'a UnverifiedJwt<'a>>,
        now: OffsetDateTime,
    ) -> Result<Route<'a>, Unroutable<'a>> {
        let Some(jwt) = jwt else {
            let trusted = self.0.asked.as_ref().and_then(|asked| self.0.issuers.get(asked.as_str()));
            return trusted
                .and_then(|trusted| Some(Route::Introspection(trusted, trusted.introspection()?)))
                .ok_or(Unroutable::from(DenialReason::OpaqueToken));
        };
        // RFC8725-3.8-1: the issuer first, then a key of that issuer; an unknown one is not looked up anywhere.
        let trusted = jwt
            .claimed_issuer()
            .and_then(|issuer| self.0.issuers.get(issuer))
            .ok_or(DenialReason::UnknownIssuer)?;
        match (trusted.keys_at(now), trusted.introspection()) {
            (Some(KeysNow::Usable(keys, until)), _) => Ok(Route::Keys { jwt, trusted, keys, until }),
            // D42: refused as not known now, never taken on trust and never called invalid.
            (Some(KeysNow::Unavailable), _) => {
                Err(Unroutable { reason: DenialReason::KeysUnavailable, issuer: Some(trusted.issuer()) })
            }
            (None, Some(asked)) => Ok(Route::Introspection(trusted, asked)),
            (None, None) => Err(DenialReason::UnknownIssuer.into()),
        }
    }

    fn check_jwt(
        &self,
        jwt: &UnverifiedJwt<'_>,
        trusted: &TrustedIssuer,
        keys: &KeySet,
        until: Option<OffsetDateTime>,
        digest: Option<SecretDigest>,
        now: OffsetDateTime,
    ) -> Result<Facts, DenialReason> {
        // RFC9068-4-4, RFC8725-3.8-1
        let key = keys.find(jwt.kid(), jwt.algorithm()).map_err(|_| DenialReason::UnknownKey)?;
        let jwt = jwt.verify(key).map_err(DenialReason::Token)?;
        let profile = trusted.profile();
        // RFC9068-4-1
        if !profile.accepts_type(jwt.token_type()) {
            return Err(DenialReason::TokenType);
        }
        let claims = PresentedClaims::read(jwt.claims(), profile.claims())
            .map_err(|malformed| DenialReason::Claim(malformed.member()))?;
        // RFC9068-4-2
        let issuer = IssuerMatched::by_token(trusted.shared_issuer(), claims.iss)
            .ok_or(DenialReason::UnknownIssuer)?;
        refuse_restrictions(claims.bound_to_key, claims.authorization_details)?;
        // RFC9068-4-3, MCP-AUTH-074, MCP-SEC-028
        let audience = AudienceAccepted::compare(trusted.audiences(), claims.aud.iter())
            .ok_or(DenialReason::Audience)?;
        if !TokenProfile::is_explicit(jwt.token_type()) {
            refuse_other_kind(claims.id_token_marks, claims.client_id, claims.aud.iter(), trusted)?;
        }
        self.check_time(claims.exp, claims.nbf, claims.iat, now)?;
        let keys_until = until.map_or(i64::MAX, OffsetDateTime::unix_timestamp);
        Ok(Facts {
            server: self.clone(),
            issuer,
            audience,
            client: ClientId::new(claims.client_id)
                .map_err(|_| DenialReason::Claim(Some(profile.claims().client_id)))?,
            text: one_text(claims.sub, claims.scope),
            subject_bytes: claims.sub.len(),
            expires_at: instant(claims.exp),
            stale_at: claims.exp.min(keys_until),
            digest,
        })
    }

    fn check_active(
        &self,
        active: &ActiveToken,
        trusted: &TrustedIssuer,
        digest: Option<SecretDigest>,
        now: OffsetDateTime,
    ) -> Result<Facts, DenialReason> {
        // The endpoint speaks for its issuer; if it names one, it is that one (D32).
        let claimed = active.iss.as_deref().unwrap_or(trusted.issuer().as_str());
        let issuer =
            IssuerMatched::by_token(trusted.shared_issuer(), claimed).ok_or(DenialReason::UnknownIssuer)?;
        if active.token_type.is_some_and(|kind| kind != TokenType::Bearer) {
            return Err(DenialReason::BoundToKey);
        }
        refuse_restrictions(active.bound_to_key, active.authorization_details)?;
        // RFC7662-4-3, MCP-AUTH-074: an answer without an audience does not tie the token to this resource.
        let audience = AudienceAccepted::compare(trusted.audiences(), active.aud.iter().map(String::as_str))
            .ok_or(DenialReason::Audience)?;
        let missing = |claim| DenialReason::Claim(Some(claim));
        // D32: a token without an end is one only where that relaxation is named, and then for a minute at most.
        let held = trusted.introspection().and_then(Introspection::non_expiring);
        let exp = match (active.exp, held) {
            (Some(exp), _) => exp,
            (None, Some(held)) => now.saturating_add(held).unix_timestamp(),
            (None, None) => return Err(missing("exp")),
        };
        self.check_time(exp, active.nbf, active.iat, now)?;
        let client = active.client_id.as_deref().ok_or(missing("client_id"))?;
        refuse_other_kind(active.other_kind, client, active.aud.iter().map(String::as_str), trusted)?;
        let subject = active.sub.as_deref().ok_or(missing("sub"))?;
        // RFC7662-4-2: an answer is not used past the token's end, and for a minute at most.
        let scope = active.scope.as_ref().map(ToString::to_string);
        let asked_again =
            now.saturating_add(Duration::seconds(limits::INTROSPECTION_CACHE_SECONDS)).unix_timestamp();
        Ok(Facts {
            server: self.clone(),
            issuer,
            audience,
            client: ClientId::new(client).map_err(|_| missing("client_id"))?,
            text: one_text(subject, scope.as_deref().map(ScopeClaim::Text)),
            subject_bytes: subject.len(),
            expires_at: instant(exp),
            stale_at: exp.min(asked_again),
            digest,
        })
    }

    /// Zero is a time like any other; whole seconds, saturating.
    fn check_time(
        &self,
        exp: i64,
        nbf: Option<i64>,
        iat: Option<i64>,
        now: OffsetDateTime,
    ) -> Result<(), DenialReason> {
        let leeway = self.0.leeway.whole_seconds();
        let now = now.unix_timestamp();
        // RFC7519-4.1-1, OAUTH21-5.2-1: refused at `exp` and ever after.
        if now >= exp.saturating_add(leeway) {
            return Err(DenialReason::Expired);
        }
        // RFC7519-4.1-1
        let latest = now.saturating_add(leeway);
        if nbf.is_some_and(|nbf| latest < nbf) || iat.is_some_and(|iat| latest < iat) {
            return Err(DenialReason::NotYetValid);
        }
        Ok(())
    }
}

/// I-G11: a restriction that is not understood is not ignored.
fn refuse_restrictions(bound_to_key: bool, authorization_details: bool) -> Result<(), DenialReason> {
    // RFC9449-7.2-1: a bound token is no bearer token.
    if bound_to_key {
        return Err(DenialReason::BoundToKey);
    }
    if authorization_details {
        return Err(DenialReason::AuthorizationDetails);
    }
    Ok(())
}

/// D32: where no type tells access tokens from ID tokens and refresh tokens, their marks do.
fn refuse_other_kind<'t>(
    marks: bool,
    client: &str,
    mut audience: impl Iterator<Item = &'t str>,
    trusted: &TrustedIssuer,
) -> Result<(), DenialReason> {
    let for_the_client = audience.any(|audience| audience == client)
        && AudienceAccepted::compare(trusted.audiences(), core::iter::once(client)).is_none();
    if marks || for_the_client { Err(DenialReason::IdToken) } else { Ok(()) }
}

/// Seconds since 1970, held at the ends of what can be represented.
fn instant(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or_else(|_| {
        let end = if seconds < 0 { ::time::PrimitiveDateTime::MIN } else { ::time::PrimitiveDateTime::MAX };
        end.assume_utc()
    })
}

fn introspect(introspection: &Introspection, token: SubmittedToken) -> Fetch {
    // RFC7662-2.1-1: a POST, authenticated as this resource server. MCP-AUTH-079: the only place a token goes (I-A7).
    let request = IntrospectionRequest {
        token,
        token_type_hint: Some(TokenTypeHint::AccessToken),
        client: ClientParameters::none(),
    };
    let credentials = basic::encode(introspection.client_id().as_str(), introspection.client_secret());
    Fetch::post_form(
        FetchPurpose::Introspection,
        introspection.endpoint().as_str(),
        request.render(),
        Some(credentials),
        FetchPolicy::new(introspection.addresses(), limits::REPLY_BYTES),
    )
}

/// Waits for what the issuer says about a token. It does not hold the token, unless it is to be exchanged later.
#[derive(Debug)]
#[must_use = "the request is not to be handled before the issuer has answered"]
pub struct AwaitingIntrospection(Box<Asked>);

#[derive(Debug)]
struct Asked {
    server: ResourceServer,
    issuer: Issuer,
    required: RequiredScopes,
    digest: Option<SecretDigest>,
    subject_token: Option<SubjectToken>,
}

impl AwaitingIntrospection {
    /// The issuer that is asked.
    pub fn issuer(&self) -> &Issuer {
        &self.0.issuer
    }

    /// Takes the issuer's answer at this time.
    ///
    /// # Errors
    /// The [`Denial`] to answer with: 401 when the token is not valid here, 503 when that is not known.
    pub fn receive(
        self,
        reply: Result<Reply, FetchFailure>,
        now: OffsetDateTime,
    ) -> Result<VerifiedToken, Denial> {
        let Asked { server, issuer, required, digest, subject_token } = *self.0;
        match server.check_answer(&issuer, reply, digest, now) {
            Ok(facts) => Ok(VerifiedToken::new(Arc::new(facts), subject_token)),
            Err(reason) => Err(Denial::new(&server, &required, reason).of_issuer(&issuer).of_token(digest)),
        }
    }
}

impl ResourceServer {
    fn check_answer(
        &self,
        issuer: &Issuer,
        reply: Result<Reply, FetchFailure>,
        digest: Option<SecretDigest>,
        now: OffsetDateTime,
    ) -> Result<Facts, DenialReason> {
        let reply = reply.map_err(DenialReason::IntrospectionFailed)?;
        if reply.status() != 200 {
            return Err(DenialReason::IntrospectionRefused(reply.status()));
        }
        let trusted = self.0.issuers.get(issuer.as_str()).ok_or(DenialReason::UnknownIssuer)?;
        // RFC7662-2.2-2: nothing but a well-formed answer that says active makes a token valid.
        if !reply.is_json() {
            return Err(DenialReason::IntrospectionAnswer);
        }
        match IntrospectionResponse::parse(reply.body()) {
            Err(_) => Err(DenialReason::IntrospectionAnswer),
            Ok(IntrospectionResponse::Inactive) => Err(DenialReason::Inactive),
            Ok(IntrospectionResponse::Active(active)) => self.check_active(&active, trusted, digest, now),
        }
    }
}
