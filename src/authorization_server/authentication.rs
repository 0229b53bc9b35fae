//! Who the client is: the credentials of a token, revocation or introspection request, and their check.
//!
//! OAuth 2.1 sections 2.4 and 3.2.2. Two steps, because the client's record lies in the store between them:
//! [`PresentedCredentials`] are read from the request, exactly one mechanism; [`ClientAuthenticated`] is what
//! their check against the record leaves, and nothing else in this role makes one.
//!
//! ```text
//!   RequestHead + Form ── read ──> PresentedCredentials ── FindClient ──> check ──> ClientAuthenticated
//! ```
//!
//! Mechanisms: `none`, `client_secret_basic`, `client_secret_post`, and an assertion (`private_key_jwt`, RFC 7523), whose
//! check needs the client's keys and a reservation in between: see `caller.rs`.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use core::fmt;

use crate::authorization_server::AuthorizationServer;
use crate::authorization_server::error::TokenReason;
use crate::authorization_server::record::{ClientCredential, ClientRecord};
use crate::authorization_server::store::ClientFound;
use crate::identifier::{ClientId, ScopeSet};
use crate::jose::{JwkSet, JwtBuffer, KeySet, UnverifiedJwt};
use crate::limits;
use crate::message::exchange::RequestHead;
use crate::secret::{ClientSecret, SecretDigest, SubmittedToken};
use crate::syntax::basic;
use crate::syntax::form::Form;
use crate::time::{self, OffsetDateTime};

/// What `client_assertion_type` says (RFC 7523 section 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The types an assertion may say it has; other tokens of the same signer are none (I-T7).
const ASSERTION_KINDS: [&str; 2] = ["JWT", "client-authentication+jwt"];

/// The credentials of one request, before anything is known about the client.
///
/// A secret is digested where it is read: nothing of it lives on in a state.
#[derive(Clone)]
pub(crate) struct PresentedCredentials {
    client_id: ClientId,
    mechanism: Mechanism,
}

#[derive(Clone)]
enum Mechanism {
    /// `client_id` in the body and nothing else: names a client, proves nothing (OAUTH21-2.2-1).
    None,
    /// A secret, in the `Authorization` field or the body.
    Secret(SecretDigest),
    /// A signed assertion in the body.
    Assertion(SubmittedToken),
}

/// What the client's record makes of the credentials.
pub(crate) enum Judged {
    /// They are the client's.
    Authenticated(ClientAuthenticated),
    /// They are an assertion, to be verified with the client's keys.
    Assertion(Box<Assertion>),
}

/// An assertion whose client is known, before anything of it is believed.
pub(crate) struct Assertion {
    record: Arc<ClientRecord>,
    token: SubmittedToken,
    now: OffsetDateTime,
}

/// An assertion that says what it must, to be used once.
pub(crate) struct AssertionVerified {
    pub(crate) client: ClientAuthenticated,
    pub(crate) jti: String,
    pub(crate) until: OffsetDateTime,
}

impl PresentedCredentials {
    /// Reads the one mechanism of the request. The query is not looked at: credentials there do not count.
    pub(crate) fn read(head: &RequestHead, form: &Form) -> Result<Self, TokenReason> {
        let mut fields = head.authorization();
        let field = fields.next();
        if fields.next().is_some() {
            return Err(TokenReason::SeveralCredentials);
        }
        let body_id = form.get("client_id");
        let body_secret = form.get("client_secret");
        // RFC7523-3.2-1: an assertion is a mechanism of its own, never a parameter to overlook.
        let assertion = form.get("client_assertion");
        if assertion.is_some() || form.get("client_assertion_type").is_some() {
            if field.is_some() || body_secret.is_some() {
                return Err(TokenReason::AssertionBesideCredentials);
            }
            // RFC7523-2.2-2
            if form.get("client_assertion_type") != Some(ASSERTION_TYPE) {
                return Err(TokenReason::UnsupportedAuthentication);
            }
            return Self::of_assertion(assertion.ok_or(TokenReason::AssertionInvalid)?, body_id);
        }
        match (field, body_secret) {
            // OAUTH21-2.4-2
            (Some(_), Some(_)) => Err(TokenReason::SeveralCredentials),
            (Some(field), None) => {
                // OAUTH21-2.4.1-4, OAUTH21-2.4.1-6: both halves are form-decoded by the parser.
                let (id, secret) = basic::decode(field).map_err(|_| TokenReason::UnreadableCredentials)?;
                // A client_id beside Basic is no second mechanism as long as it names the same client.
                if body_id.is_some_and(|other| other.as_bytes() != id.as_bytes()) {
                    return Err(TokenReason::SeveralCredentials);
                }
                Ok(Self { client_id: client_id(&id)?, mechanism: Mechanism::Secret(secret.digest()) })
            }
            (None, Some(secret)) => {
                // OAUTH21-2.4.1-1
                let secret =
                    ClientSecret::new(secret).map_err(|_| TokenReason::Malformed("client_secret"))?;
                let id = body_id.ok_or(TokenReason::NoClient)?;
                Ok(Self { client_id: client_id(id)?, mechanism: Mechanism::Secret(secret.digest()) })
            }
            (None, None) => {
                let id = body_id.ok_or(TokenReason::NoClient)?;
                Ok(Self { client_id: client_id(id)?, mechanism: Mechanism::None })
            }
        }
    }

    /// The client an assertion claims to be, in `sub`, and in `client_id` if that is there.
    fn of_assertion(text: &str, body_id: Option<&str>) -> Result<Self, TokenReason> {
        const INVALID: TokenReason = TokenReason::AssertionInvalid;
        let token = SubmittedToken::new(text).map_err(|_| INVALID)?;
        let mut buffer = JwtBuffer::new();
        let claimed = UnverifiedJwt::parse(text, &mut buffer).map_err(|_| INVALID)?;
        // RFC7523-3-2: the client is the issuer of its own assertion; nothing is believed before the signature is.
        let id = claimed.claimed_issuer().ok_or(INVALID)?.to_string();
        if body_id.is_some_and(|other| other.as_bytes() != id.as_bytes()) {
            return Err(INVALID);
        }
        Ok(Self { client_id: client_id(&id)?, mechanism: Mechanism::Assertion(token) })
    }

    /// Whether a client of a metadata document could present such credentials: it has no secret.
    pub(crate) fn may_be_of_a_document(&self, server: &AuthorizationServer) -> bool {
        match self.mechanism {
            Mechanism::None => server.admits_public_clients(),
            Mechanism::Secret(_) => false,
            Mechanism::Assertion(_) => true,
        }
    }

    /// The client the request names, to be looked up.
    pub(crate) fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// Checks the credentials against the record of the client they name.
    pub(crate) fn check(
        self,
        server: &AuthorizationServer,
        found: ClientFound,
    ) -> Result<Judged, TokenReason> {
        if found.client_id != self.client_id {
            return Err(TokenReason::HostMisuse);
        }
        let record = found.record.ok_or(TokenReason::UnknownClient)?;
        match (self.mechanism, &record.credential) {
            // OAUTH21-2.2-1: named, not authenticated; what it may do rests on code, verifier or refresh token.
            (Mechanism::None, ClientCredential::None) if server.admits_public_clients() => {}
            (Mechanism::None, ClientCredential::None) => return Err(TokenReason::UnsupportedAuthentication),
            // OAUTH21-3.2.2-2
            (Mechanism::None, ClientCredential::Secret { .. } | ClientCredential::PrivateKey) => {
                return Err(TokenReason::SecretMissing);
            }
            // OAUTH21-3.2.2-3: credentials nobody asked for are checked all the same, and there is none to match.
            (Mechanism::Secret(_), ClientCredential::None | ClientCredential::PrivateKey)
            | (Mechanism::Assertion(_), ClientCredential::None | ClientCredential::Secret { .. }) => {
                return Err(TokenReason::SecretUnexpected);
            }
            (Mechanism::Secret(presented), ClientCredential::Secret { digest, expires, .. }) => {
                // OAUTH21-2.4.1-6: digests of equal length, compared in constant time (I-G6).
                if presented != *digest {
                    return Err(TokenReason::SecretWrong);
                }
                if expires.is_some_and(|expires| found.now >= expires) {
                    return Err(TokenReason::SecretExpired);
                }
            }
            (Mechanism::Assertion(token), ClientCredential::PrivateKey) => {
                return Ok(Judged::Assertion(Box::new(Assertion { record, token, now: found.now })));
            }
        }
        Ok(Judged::Authenticated(ClientAuthenticated(record)))
    }
}

impl Assertion {
    /// The client, with what it registered.
    pub(crate) fn record(&self) -> &ClientRecord {
        &self.record
    }

    /// Whether one of the keys has the name that the assertion gives its own. One without a name looks for no other keys.
    pub(crate) fn is_named_in(&self, keys: &JwkSet) -> bool {
        let mut buffer = JwtBuffer::new();
        let Ok(token) = UnverifiedJwt::parse(self.token.expose(), &mut buffer) else { return true };
        token.kid().is_none_or(|kid| keys.keys().iter().any(|key| key.kid() == Some(kid)))
    }

    /// Verifies the assertion (RFC 7523 section 3): signature, kind, issuer, subject, audience, time.
    pub(crate) fn verify(
        self,
        server: &AuthorizationServer,
        keys: &KeySet,
    ) -> Result<AssertionVerified, TokenReason> {
        const INVALID: TokenReason = TokenReason::AssertionInvalid;
        let mut buffer = JwtBuffer::new();
        let token = UnverifiedJwt::parse(self.token.expose(), &mut buffer).map_err(|_| INVALID)?;
        let algorithm = token.algorithm();
        let registered = self.record.metadata.token_endpoint_auth_signing_alg.as_deref();
        if registered.is_some_and(|registered| registered != algorithm.name()) {
            return Err(INVALID);
        }
        // RFC7523-3-7, I-A4: a key the client registered, by its name and for its algorithm.
        let key = keys.find(token.kid(), algorithm).map_err(|_| INVALID)?;
        let verified = token.verify(key).map_err(|_| INVALID)?;
        // RFC7523BIS-4
        if verified
            .token_type()
            .is_some_and(|kind| !ASSERTION_KINDS.iter().any(|own| kind.eq_ignore_ascii_case(own)))
        {
            return Err(INVALID);
        }
        let claims = verified.claims();
        let text = |name| claims.string(name).ok().flatten();
        let seconds = |name| claims.integer(name).map_err(|_| INVALID);
        let id = self.record.client_id.as_str();
        // RFC7523-3-2
        if text("iss") != Some(id) || text("sub") != Some(id) {
            return Err(INVALID);
        }
        // RFC7523-3-3, RFC7523BIS-2 (D19): this issuer, and nobody besides.
        let listed = claims.one_or_more("aud").ok().flatten();
        let mut listed = listed.iter().flat_map(|listed| listed.iter());
        let only = listed.next().filter(|_| listed.next().is_none());
        if only != Some(server.issuer().as_str()) {
            return Err(INVALID);
        }
        let now = self.now.unix_timestamp();
        let leeway = limits::CLOCK_LEEWAY_SECONDS;
        let expires = seconds("exp")?.ok_or(INVALID)?;
        // RFC7523-3-4
        if now >= expires.saturating_add(leeway)
            || seconds("nbf")?.is_some_and(|from| from > now.saturating_add(leeway))
        {
            return Err(INVALID);
        }
        // RFC7523-3-5
        let ceiling = now.saturating_add(limits::CLIENT_ASSERTION_SECONDS_MOST);
        if expires > ceiling || seconds("iat")?.is_some_and(|issued| issued > now.saturating_add(leeway)) {
            return Err(INVALID);
        }
        // RFC7523-3-6, I-A12: kept as long as the assertion would be taken.
        let jti =
            text("jti").filter(|jti| !jti.is_empty() && jti.len() <= limits::URL_BYTES).ok_or(INVALID)?;
        let jti = String::from(jti);
        let left = u64::try_from(expires.saturating_sub(now).saturating_add(leeway)).unwrap_or(0);
        let until = time::after(self.now, time::seconds(left.saturating_add(1)));
        Ok(AssertionVerified { client: ClientAuthenticated(self.record), jti, until })
    }
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Assertion").field(&self.record.client_id).finish()
    }
}

/// The client of a request, its credentials checked against its record. Only [`PresentedCredentials::check`] and
/// [`Assertion::verify`] make one.
pub(crate) struct ClientAuthenticated(Arc<ClientRecord>);

impl ClientAuthenticated {
    /// Which client.
    pub(crate) fn client_id(&self) -> &ClientId {
        &self.0.client_id
    }

    /// Whether the client has proved who it is, and not only said so.
    pub(crate) fn has_proved(&self) -> bool {
        self.0.credential.is_confidential()
    }

    /// Its record.
    pub(crate) fn record(&self) -> &ClientRecord {
        &self.0
    }

    /// Its record.
    pub(crate) fn into_record(self) -> Arc<ClientRecord> {
        self.0
    }

    /// Whether the client is registered for a grant type.
    pub(crate) fn may_use(&self, grant_type: &str) -> bool {
        self.0.metadata.uses_grant_type(grant_type)
    }

    /// The scopes the client is registered for; `None` for one that named none.
    pub(crate) fn scope(&self) -> Option<&ScopeSet> {
        self.0.metadata.scope.as_ref()
    }
}

impl fmt::Debug for ClientAuthenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientAuthenticated").field(&self.0.client_id).finish()
    }
}

/// Text outside the grammar names no client.
fn client_id(text: &str) -> Result<ClientId, TokenReason> {
    ClientId::new(text).map_err(|_| TokenReason::UnknownClient)
}

impl fmt::Debug for PresentedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mechanism = match &self.mechanism {
            Mechanism::None => "none",
            Mechanism::Secret(_) => "secret (redacted)",
            Mechanism::Assertion(_) => "assertion (redacted)",
        };
        f.debug_struct("PresentedCredentials")
            .field("client_id", &self.client_id)
            .field("mechanism", &mechanism)
            .finish()
    }
}
