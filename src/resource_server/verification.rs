//! From a presented token to a verified one: RFC 9068 section 4 for signed tokens, RFC 7662 section 2 for opaque ones,
//! RFC 8725 for both.
//!
//! Which check stands where is the same on both paths: whose token, which kind, which restrictions, for whom, when.

use alloc::boxed::Box;
use alloc::string::String;

use super::ResourceServer;
use super::admission::{Presented, PresentedToken};
use super::denial::{Denial, DenialReason};
use super::issuer::{Introspection, TokenProfile, TrustedIssuer};
use super::scope::RequiredScopes;
use crate::evidence::{AudienceAccepted, IssuerMatched};
use crate::identifier::{ClientId, Issuer, ScopeSet};
use crate::jose::{KeySet, UnverifiedJwt};
use crate::limits;
use crate::message::exchange::{Fetch, FetchFailure, FetchPolicy, FetchPurpose, Reply};
use crate::message::introspection::{ActiveToken, IntrospectionRequest, IntrospectionResponse};
use crate::message::jwt_claims::AccessTokenClaims;
use crate::message::revocation::TokenTypeHint;
use crate::message::token::{ClientParameters, TokenType};
use crate::secret::SubmittedToken;
use crate::step::Step;
use crate::syntax::basic;
use crate::time::OffsetDateTime;

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
pub struct VerifiedToken(Box<(ResourceServer, Facts)>);

/// What a verified token says; each field passed its check when this was made.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) issuer: IssuerMatched,
    pub(super) audience: AudienceAccepted,
    pub(super) subject: String,
    pub(super) client: ClientId,
    pub(super) scopes: ScopeSet,
    pub(super) expires_at: OffsetDateTime,
}

impl VerifiedToken {
    fn new(server: ResourceServer, facts: Facts) -> Self {
        Self(Box::new((server, facts)))
    }

    pub(super) fn into_parts(self) -> (ResourceServer, Facts) {
        *self.0
    }
}

impl PresentedToken {
    /// Verifies the token at this time, or says what has to be asked.
    pub fn verify(self, now: OffsetDateTime) -> VerificationOutcome {
        let Presented { server, token, required } = self.into_interior();
        let deny = |reason, issuer: Option<&Issuer>| {
            let denial = Denial::new(&server, &required, reason);
            VerificationOutcome::Denied(match issuer {
                Some(issuer) => denial.of_issuer(issuer),
                None => denial,
            })
        };
        match server.route(token.expose()) {
            Err(reason) => deny(reason, None),
            Ok(Route::Keys(jwt, trusted, keys)) => match server.check_jwt(jwt, trusted, keys, now) {
                Err(reason) => deny(reason, Some(trusted.issuer())),
                Ok(facts) => VerificationOutcome::Verified(VerifiedToken::new(server.clone(), facts)),
            },
            Ok(Route::Introspection(trusted, introspection)) => {
                // The two token types have one grammar, so that this cannot fail; if it did, the token would not pass.
                let Ok(submitted) = SubmittedToken::new(token.expose()) else {
                    return deny(DenialReason::OpaqueToken, None);
                };
                let fetch = introspect(introspection, submitted);
                let issuer = trusted.issuer().clone();
                let awaiting = AwaitingIntrospection(Box::new(Asked {
                    server: server.clone(),
                    issuer,
                    required: required.clone(),
                }));
                VerificationOutcome::Introspect(Step::new(fetch, awaiting))
            }
        }
    }
}

/// How a token is verified.
enum Route<'a> {
    Keys(UnverifiedJwt<'a>, &'a TrustedIssuer, &'a KeySet),
    Introspection(&'a TrustedIssuer, &'a Introspection),
}

impl ResourceServer {
    /// Chooses the issuer. A signed token names one of those configured; an opaque one belongs to the only issuer that
    /// can be asked. A token that one path refuses is never tried on the other.
    fn route<'a>(&'a self, token: &'a str) -> Result<Route<'a>, DenialReason> {
        let opaque = || {
            let trusted = self.0.asked.as_ref().and_then(|asked| self.0.issuers.get(asked.as_str()));
            trusted
                .and_then(|trusted| Some(Route::Introspection(trusted, trusted.introspection()?)))
                .ok_or(DenialReason::OpaqueToken)
        };
        if !self.0.any_keys || token.bytes().filter(|byte| *byte == b'.').count() != 2 {
            return opaque();
        }
        let jwt = UnverifiedJwt::parse(token).map_err(DenialReason::Token)?;
        // RFC8725-3.8-1: the issuer first, then a key of that issuer; an unknown one is not looked up anywhere.
        let trusted = jwt
            .claimed_issuer()
            .and_then(|issuer| self.0.issuers.get(issuer))
            .ok_or(DenialReason::UnknownIssuer)?;
        match (trusted.keys(), trusted.introspection()) {
            (Some(keys), _) => Ok(Route::Keys(jwt, trusted, keys)),
            (None, Some(asked)) => Ok(Route::Introspection(trusted, asked)),
            (None, None) => Err(DenialReason::UnknownIssuer),
        }
    }

    fn check_jwt(
        &self,
        jwt: UnverifiedJwt<'_>,
        trusted: &TrustedIssuer,
        keys: &KeySet,
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
        let claims = AccessTokenClaims::parse_named(jwt.claims(), profile.claims())
            .map_err(|malformed| DenialReason::Claim(malformed.member()))?;
        // RFC9068-4-2
        let issuer =
            IssuerMatched::by_token(trusted.issuer(), &claims.iss).ok_or(DenialReason::UnknownIssuer)?;
        refuse_restrictions(claims.bound_to_key, claims.authorization_details)?;
        // RFC9068-4-3, MCP-AUTH-074, MCP-SEC-028
        let audience =
            AudienceAccepted::compare(trusted.audiences(), &claims.aud).ok_or(DenialReason::Audience)?;
        if !TokenProfile::is_explicit(jwt.token_type()) {
            refuse_id_token(&claims, trusted)?;
        }
        self.check_time(Some(claims.exp), claims.nbf, claims.iat, now)?;
        Ok(Facts {
            issuer,
            audience,
            subject: claims.sub,
            client: ClientId::new(claims.client_id)
                .map_err(|_| DenialReason::Claim(Some(profile.claims().client_id)))?,
            scopes: claims.scope.unwrap_or_default(),
            expires_at: instant(claims.exp),
        })
    }

    fn check_active(
        &self,
        active: ActiveToken,
        trusted: &TrustedIssuer,
        now: OffsetDateTime,
    ) -> Result<Facts, DenialReason> {
        // The endpoint speaks for its issuer; if it names one, it is that one (D32).
        let claimed = active.iss.as_deref().unwrap_or(trusted.issuer().as_str());
        let issuer = IssuerMatched::by_token(trusted.issuer(), claimed).ok_or(DenialReason::UnknownIssuer)?;
        if active.token_type.is_some_and(|kind| kind != TokenType::Bearer) {
            return Err(DenialReason::BoundToKey);
        }
        refuse_restrictions(active.bound_to_key, active.authorization_details)?;
        // RFC7662-4-3, MCP-AUTH-074: an answer without an audience does not tie the token to this resource.
        let audience =
            AudienceAccepted::compare(trusted.audiences(), &active.aud).ok_or(DenialReason::Audience)?;
        self.check_time(active.exp, active.nbf, active.iat, now)?;
        let missing = |claim| DenialReason::Claim(Some(claim));
        let client = active.client_id.ok_or(missing("client_id"))?;
        Ok(Facts {
            issuer,
            audience,
            subject: active.sub.ok_or(missing("sub"))?,
            client: ClientId::new(client).map_err(|_| missing("client_id"))?,
            scopes: active.scope.unwrap_or_default(),
            expires_at: instant(active.exp.ok_or(missing("exp"))?),
        })
    }

    /// `exp` is required; zero is a time like any other; whole seconds, saturating.
    fn check_time(
        &self,
        exp: Option<i64>,
        nbf: Option<i64>,
        iat: Option<i64>,
        now: OffsetDateTime,
    ) -> Result<(), DenialReason> {
        let leeway = self.0.leeway.whole_seconds();
        let now = now.unix_timestamp();
        let exp = exp.ok_or(DenialReason::Claim(Some("exp")))?;
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

/// D32: where the type does not tell access tokens from ID tokens, their marks do.
fn refuse_id_token(claims: &AccessTokenClaims, trusted: &TrustedIssuer) -> Result<(), DenialReason> {
    let own_client = core::slice::from_ref(&claims.client_id);
    let for_the_client = claims.aud.contains(&claims.client_id)
        && AudienceAccepted::compare(trusted.audiences(), own_client).is_none();
    if claims.id_token_marks || for_the_client { Err(DenialReason::IdToken) } else { Ok(()) }
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

/// Waits for what the issuer says about a token. It does not hold the token.
#[derive(Debug)]
#[must_use = "the request is not to be handled before the issuer has answered"]
pub struct AwaitingIntrospection(Box<Asked>);

#[derive(Debug)]
struct Asked {
    server: ResourceServer,
    issuer: Issuer,
    required: RequiredScopes,
}

impl AwaitingIntrospection {
    /// Takes the issuer's answer at this time.
    ///
    /// # Errors
    /// The [`Denial`] to answer with: 401 when the token is not valid here, 503 when that is not known.
    pub fn receive(
        self,
        reply: Result<Reply, FetchFailure>,
        now: OffsetDateTime,
    ) -> Result<VerifiedToken, Denial> {
        let Asked { server, issuer, required } = *self.0;
        match server.check_answer(&issuer, reply, now) {
            Ok(facts) => Ok(VerifiedToken::new(server, facts)),
            Err(reason) => Err(Denial::new(&server, &required, reason).of_issuer(&issuer)),
        }
    }
}

impl ResourceServer {
    fn check_answer(
        &self,
        issuer: &Issuer,
        reply: Result<Reply, FetchFailure>,
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
            Ok(IntrospectionResponse::Active(active)) => self.check_active(*active, trusted, now),
        }
    }
}
