//! Introspection (RFC 7662): a resource server asks what a token is worth now; so may the client it was issued to.
//!
//! ```text
//!   AuthorizationServer::introspect
//!      │ FindClient
//!   AwaitingCaller (caller.rs)
//!      │ ReadAccess
//!   AwaitingIntrospected ──┬── an opaque access token ─────────────▶ Respond
//!                          ├── a JWT ─ReadGrant▶ AwaitingIntrospectedGrant ─▶ Respond
//!                          └── else ─ReadRefresh▶ AwaitingIntrospectedRefresh ─▶ Respond
//! ```
//!
//! `active` means all of it: signature, time, and that nothing revoked the grant since (RFC 7662 section 4). For a signed
//! token too, although resource servers that verify it by themselves take it until its `exp`. Whatever the caller may not
//! know is answered like a token that never was (I-T8).

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::authorization_server::AuthorizationServer;
use crate::authorization_server::authentication::{ClientAuthenticated, PresentedCredentials};
use crate::authorization_server::caller::{Asked, AwaitingCaller};
use crate::authorization_server::error::{TokenFailure, TokenReason};
use crate::authorization_server::issuance::family_of;
use crate::authorization_server::record::GrantRecord;
use crate::authorization_server::store::{
    AccessFound, FindClient, FoundState, GrantFound, ReadAccess, ReadGrant, ReadRefresh, RefreshFound,
};
use crate::authorization_server::token::{malformed, read_form};
use crate::identifier::ScopeSet;
use crate::jose::{JwtBuffer, KeySet, UnverifiedJwt};
use crate::message::exchange::{RequestHead, Respond};
use crate::message::introspection::{ActiveToken, IntrospectionRequest, IntrospectionResponse};
use crate::message::jwt_claims::AccessTokenClaims;
use crate::message::token::TokenType;
use crate::secret::SubmittedToken;
use crate::step::Step;
use crate::time::OffsetDateTime;

impl AuthorizationServer {
    /// A request at the introspection endpoint: the head and the body, read up to [`crate::limits::FORM_BYTES`].
    ///
    /// # Errors
    /// [`TokenFailure`], whose answer goes out at once, when the request is no well-formed introspection request.
    pub fn introspect(
        &self,
        head: &RequestHead,
        body: &[u8],
    ) -> Result<Step<FindClient, AwaitingCaller>, TokenFailure> {
        let form = read_form(head, body)?;
        // RFC7662-2.1-3: the hint is not needed to find a token here, so a wrong one cannot mislead.
        let token = IntrospectionRequest::from_form(&form).map_err(malformed)?.token;
        let credentials = PresentedCredentials::read(head, &form).map_err(TokenFailure::new)?;
        Ok(AwaitingCaller::step(self, credentials, Asked::Introspection(Introspecting { token })))
    }
}

/// What is introspected, while its caller is found out.
#[derive(Debug)]
pub(crate) struct Introspecting {
    token: SubmittedToken,
}

impl Introspecting {
    pub(crate) fn go_on(
        self,
        server: AuthorizationServer,
        caller: ClientAuthenticated,
    ) -> Result<Step<ReadAccess, AwaitingIntrospected>, TokenReason> {
        // RFC7662-2.1-2: a name is no authorization.
        if !caller.has_proved() {
            return Err(TokenReason::CallerNotProved);
        }
        let read = ReadAccess::new(self.token.digest());
        let inner = Inner { server, caller, token: self.token };
        Ok(Step::new(read, AwaitingIntrospected(Box::new(inner))))
    }
}

/// Waits for the record of the token, if it is an opaque access token.
#[must_use = "the caller waits for an answer"]
#[derive(Debug)]
pub struct AwaitingIntrospected(Box<Inner>);

#[derive(Debug)]
struct Inner {
    server: AuthorizationServer,
    caller: ClientAuthenticated,
    token: SubmittedToken,
}

/// What follows on the token's record.
#[must_use = "the request goes on from here, or is answered"]
#[derive(Debug)]
pub enum IntrospectionOutcome {
    /// It is a signed token of this server: next its grant is read.
    Grant(Step<ReadGrant, AwaitingIntrospectedGrant>),
    /// It is no access token: it may be a refresh token.
    Refresh(Step<ReadRefresh, AwaitingIntrospectedRefresh>),
    /// Answer with this.
    Answer(Respond),
    /// Answer with this.
    Refused(TokenFailure),
}

impl AwaitingIntrospected {
    /// The store has looked for an opaque access token. `keys` are the public halves of every key this server signed
    /// with within the life of a token.
    pub fn found(self, found: AccessFound, keys: &KeySet) -> IntrospectionOutcome {
        let inner = *self.0;
        if found.digest != inner.token.digest() {
            return IntrospectionOutcome::Refused(TokenFailure::new(TokenReason::HostMisuse));
        }
        if let Some(record) = found.record {
            let token = Known {
                expires: record.expires.unix_timestamp(),
                issued: Some(record.issued.unix_timestamp()),
                jti: None,
                scope: record.scope.clone(),
            };
            return IntrospectionOutcome::Answer(inner.access(&record.grant, token, found.now));
        }
        if !inner.token.expose().contains('.') {
            let read = ReadRefresh::new(inner.token.digest());
            let waiting = AwaitingIntrospectedRefresh(Box::new(inner));
            return IntrospectionOutcome::Refresh(Step::new(read, waiting));
        }
        match inner.verified(keys) {
            Some((claims, family)) => {
                let read = ReadGrant::new(family);
                let waiting = AwaitingIntrospectedGrant(Box::new((inner, claims)));
                IntrospectionOutcome::Grant(Step::new(read, waiting))
            }
            None => IntrospectionOutcome::Answer(inactive()),
        }
    }

    /// The store could not be read.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}

/// Waits for the grant of a signed access token.
#[must_use = "the caller waits for an answer"]
#[derive(Debug)]
pub struct AwaitingIntrospectedGrant(Box<(Inner, AccessTokenClaims)>);

impl AwaitingIntrospectedGrant {
    /// The store has looked for the grant.
    ///
    /// # Errors
    /// [`TokenFailure`] for the answer about another family.
    pub fn found(self, found: GrantFound) -> Result<Respond, TokenFailure> {
        let (inner, claims) = *self.0;
        let family = claims.jti.as_deref().and_then(family_of);
        if family != Some(found.family) {
            return Err(TokenFailure::new(TokenReason::HostMisuse));
        }
        // RFC7662-2.2-3, RFC7662-4-1: the family was revoked, or is gone.
        let Some(grant) = found.record else { return Ok(inactive()) };
        let same = claims.sub.as_bytes() == grant.subject.as_bytes()
            && claims.client_id.as_bytes() == grant.client_id.as_str().as_bytes();
        if !same {
            return Ok(inactive());
        }
        let token = Known {
            expires: claims.exp,
            issued: claims.iat,
            jti: claims.jti,
            scope: claims.scope.unwrap_or_default(),
        };
        Ok(inner.access(&grant, token, found.now))
    }

    /// The store could not be read.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}

/// Waits for the record of the token, if it is a refresh token.
#[must_use = "the caller waits for an answer"]
#[derive(Debug)]
pub struct AwaitingIntrospectedRefresh(Box<Inner>);

impl AwaitingIntrospectedRefresh {
    /// The store has looked for a refresh token. Only its own client is told of one.
    ///
    /// # Errors
    /// [`TokenFailure`] for the answer about another token.
    pub fn found(self, found: RefreshFound) -> Result<Respond, TokenFailure> {
        let inner = *self.0;
        if found.digest != inner.token.digest() {
            return Err(TokenFailure::new(TokenReason::HostMisuse));
        }
        let record = match found.state {
            FoundState::Live(record)
                if record.grant.client_id == *inner.caller.client_id() && found.now < record.expires =>
            {
                record
            }
            _ => return Ok(inactive()),
        };
        let grant = &record.grant;
        Ok(answer(&IntrospectionResponse::Active(Box::new(ActiveToken {
            scope: (!grant.scope.is_empty()).then(|| grant.scope.clone()),
            client_id: Some(grant.client_id.as_str().to_string()),
            exp: Some(record.expires.unix_timestamp()),
            sub: Some(String::from(&*grant.subject)),
            iss: Some(inner.server.issuer().as_str().to_string()),
            ..ActiveToken::default()
        }))))
    }

    /// The store could not be read.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}

/// What is known of an access token beside its grant.
struct Known {
    expires: i64,
    issued: Option<i64>,
    jti: Option<String>,
    scope: ScopeSet,
}

impl Inner {
    /// The claims of a token that this server signed, and the family they name.
    fn verified(
        &self,
        keys: &KeySet,
    ) -> Option<(AccessTokenClaims, crate::authorization_server::record::FamilyId)> {
        // RFC7662-4-1: the signature, by a key of this server.
        let mut buffer = JwtBuffer::new();
        let token = UnverifiedJwt::parse(self.token.expose(), &mut buffer).ok()?;
        let key = keys.find(token.kid(), token.algorithm()).ok()?;
        let verified = token.verify(key).ok()?;
        // I-T7
        if verified.token_type() != Some("at+jwt") {
            return None;
        }
        let claims = AccessTokenClaims::read(verified.claims()).ok()?;
        let ours = claims.iss.as_bytes() == self.server.issuer().as_str().as_bytes();
        let family = family_of(claims.jti.as_deref()?)?;
        ours.then_some((claims, family))
    }

    /// The answer about an access token whose grant stands.
    fn access(&self, grant: &GrantRecord, token: Known, now: OffsetDateTime) -> Respond {
        // RFC7662-2.2-3, RFC7662-4-1, I-T9
        if now.unix_timestamp() >= token.expires || !self.may_know(grant) {
            return inactive();
        }
        answer(&IntrospectionResponse::Active(Box::new(ActiveToken {
            scope: (!token.scope.is_empty()).then_some(token.scope),
            client_id: Some(grant.client_id.as_str().to_string()),
            token_type: Some(TokenType::Bearer),
            exp: Some(token.expires),
            iat: token.issued,
            sub: Some(String::from(&*grant.subject)),
            aud: Vec::from([grant.resource.as_str().to_string()]),
            iss: Some(self.server.issuer().as_str().to_string()),
            jti: token.jti,
            ..ActiveToken::default()
        })))
    }

    /// Whether the caller is the token's client, or the resource server it is for.
    fn may_know(&self, grant: &GrantRecord) -> bool {
        // RFC7662-2.1-2, RFC7662-4-1 (I-T8)
        let caller = self.caller.client_id();
        let resource = self.server.resource(&grant.resource);
        grant.client_id == *caller || resource.is_some_and(|resource| resource.introspector() == Some(caller))
    }
}

fn inactive() -> Respond {
    answer(&IntrospectionResponse::Inactive)
}

fn answer(response: &IntrospectionResponse) -> Respond {
    Respond::json(200, response.render()).with_header("cache-control", "no-store")
}
