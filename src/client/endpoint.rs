//! Requests to the issuer's own endpoints, authenticated in the one way of the identity: with nothing, with a secret, or
//! with an assertion that a private key signs first (OAuth 2.1 section 2.4, RFC 7523 sections 2.2 and 3).

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::counterpart::Counterpart;
use super::registration::ClientAuthentication;
use crate::entropy::{self, Entropy};
use crate::error::{Error, HostMisuse, PeerIncompatible};
use crate::identifier::{ClientId, Network};
use crate::jose::{AwaitedSignature, Sign, Signed, SigningKeyId};
use crate::limits;
use crate::message::exchange::{Fetch, FetchPolicy, FetchPurpose};
use crate::message::revocation::{RevocationRequest, TokenTypeHint};
use crate::message::token::{ClientParameters, Grant, TokenRequest};
use crate::policy::Relaxation;
use crate::secret::SubmittedToken;
use crate::step::{Failed, Step};
use crate::syntax::basic;
use crate::syntax::json::ObjectWriter;
use crate::time::{self, Duration, OffsetDateTime};

/// The media subtype of an assertion that authenticates a client.
const ASSERTION_TYPE: &str = "client-authentication+jwt";

/// What `client_assertion_type` says (RFC 7523 section 2.2).
const ASSERTION_PARAMETER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A request to the issuer: to be sent now, or once its assertion is signed.
#[must_use = "the request has not been sent"]
#[derive(Debug)]
pub enum EndpointCall<S> {
    /// Send it.
    Fetch(Step<Fetch, S>),
    /// Sign first (`private_key_jwt`); the signature makes the fetch.
    Sign(Step<Sign, AwaitingAssertion<S>>),
}

impl<S> EndpointCall<S> {
    /// The state that will wait for the answer, for a look at its evidence.
    pub fn state(&self) -> &S {
        match self {
            Self::Fetch(step) => step.state(),
            Self::Sign(step) => &step.state().0.1,
        }
    }
}

/// Waits for the signature that authenticates the client.
#[must_use = "the request has not been sent"]
#[derive(Debug)]
pub struct AwaitingAssertion<S>(Box<(Unsigned, S)>);

impl<S> AwaitingAssertion<S> {
    /// The key holder has signed: here is the request.
    ///
    /// # Errors
    /// [`Failed`] with this state when the signature is of another action.
    pub fn signed(self, signed: Signed) -> Result<Step<Fetch, S>, Failed<Self>> {
        let (unsigned, state) = *self.0;
        let token = signed.into_token(&unsigned.awaited).ok();
        let Some(assertion) = token.and_then(|token| SubmittedToken::new(token.as_str()).ok()) else {
            return Err(Failed::new(HostMisuse::ForeignReceipt, Self(Box::new((unsigned, state)))));
        };
        let Unsigned { unsent, client_id, .. } = unsigned;
        // RFC7523-2.2-1
        let client = ClientParameters {
            client_assertion_type: Some(ASSERTION_PARAMETER.into()),
            client_assertion: Some(assertion),
            ..ClientParameters::public(client_id)
        };
        Ok(Step::new(unsent.send(client, None), state))
    }

    /// The key holder failed, and nothing was sent: the state takes
    /// [`FetchFailure::NotSent`](crate::message::exchange::FetchFailure::NotSent).
    pub fn signer_failed(self) -> S {
        self.0.1
    }
}

/// What a request asks of the issuer.
#[derive(Debug)]
pub(super) enum Body {
    Token(Grant),
    Revocation(SubmittedToken, TokenTypeHint),
}

impl Body {
    fn render(self, client: ClientParameters) -> String {
        match self {
            Self::Token(grant) => TokenRequest { grant, client }.render(),
            Self::Revocation(token, hint) => {
                RevocationRequest { token, token_type_hint: Some(hint), client }.render()
            }
        }
    }
}

/// A request without what authenticates it.
#[derive(Debug)]
struct Unsent {
    purpose: FetchPurpose,
    url: String,
    policy: FetchPolicy,
    networks: Vec<Network>,
    body: Body,
}

impl Unsent {
    fn send(self, client: ClientParameters, authorization: Option<zeroize::Zeroizing<String>>) -> Fetch {
        let form = self.body.render(client);
        Fetch::post_form(self.purpose, &self.url, form, authorization, self.policy).within(&self.networks)
    }
}

#[derive(Debug)]
struct Unsigned {
    awaited: AwaitedSignature,
    unsent: Unsent,
    client_id: ClientId,
}

/// A request on its way, until it is known which state waits for it.
#[derive(Debug)]
pub(super) enum Call {
    Fetch(Fetch),
    Sign(Sign, Box<UnsignedCall>),
}

/// The part of a call that waits for its signature.
#[derive(Debug)]
pub(super) struct UnsignedCall(Unsigned);

impl Call {
    /// The state that waits for the answer.
    pub(super) fn before<S>(self, state: S) -> EndpointCall<S> {
        match self {
            Self::Fetch(fetch) => EndpointCall::Fetch(Step::new(fetch, state)),
            Self::Sign(sign, unsigned) => {
                EndpointCall::Sign(Step::new(sign, AwaitingAssertion(Box::new((unsigned.0, state)))))
            }
        }
    }
}

impl Counterpart<'_> {
    /// A request to an endpoint of the recorded issuer, authenticated in the one way of the identity.
    pub(super) fn call(
        &self,
        purpose: FetchPurpose,
        body: Body,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Call, Error> {
        // OAUTH21-7.14-1, RFC9700-2.6-2, I-L3: from the metadata of the matched issuer, and from nowhere else.
        let metadata = self.metadata;
        let (endpoint, what) = match &body {
            Body::Token(_) => (&metadata.token_endpoint, "token endpoint"),
            // RFC7009-2-2: https, or loopback, as every endpoint.
            Body::Revocation(..) => (&metadata.revocation_endpoint, "revocation endpoint"),
        };
        let endpoint = endpoint.as_ref().ok_or(PeerIncompatible::NoEndpoint(what))?;
        let addresses = self.addresses(endpoint.as_str(), what)?;
        let policy = FetchPolicy::new(addresses, limits::REPLY_BYTES);
        let networks = self.networks().to_vec();
        let unsent = Unsent { purpose, url: endpoint.as_str().to_string(), policy, networks, body };
        // OAUTH21-3.2.1-1, OAUTH21-4.1.3-8, OAUTH21-2.4.1-2: in the body or the field, never in the URL.
        let client_id = self.identity.client_id.clone();
        Ok(match &self.identity.authentication {
            ClientAuthentication::None => Call::Fetch(unsent.send(ClientParameters::public(client_id), None)),
            ClientAuthentication::Post(secret) => {
                let mut parameters = ClientParameters::public(client_id);
                parameters.client_secret = Some(secret.clone());
                Call::Fetch(unsent.send(parameters, None))
            }
            ClientAuthentication::Basic(secret) => {
                let authorization = basic::encode(client_id.as_str(), secret);
                Call::Fetch(unsent.send(ClientParameters::none(), Some(authorization)))
            }
            ClientAuthentication::PrivateKey(key) => {
                let claims = self.assertion_claims(now, entropy)?;
                // RFC7523BIS-3
                let (sign, awaited) = Sign::new(SigningKeyId::clone(key), ASSERTION_TYPE, &claims);
                Call::Sign(sign, Box::new(UnsignedCall(Unsigned { awaited, unsent, client_id })))
            }
        })
    }

    /// Who the client is, for this issuer alone, for a minute, once.
    fn assertion_claims(&self, now: OffsetDateTime, entropy: &mut dyn Entropy) -> Result<Vec<u8>, Error> {
        let client_id = self.identity.client_id.as_str();
        let lifetime = Duration::seconds(limits::CLIENT_ASSERTION_SECONDS);
        let jti = entropy::draw_text(entropy)?;
        // RFC7523-3-1, RFC7523BIS-1, D19: the issuer alone, or what the host knows this issuer to ask for instead.
        let relaxation = Relaxation::AssertionAudience(self.listed_issuer.clone());
        let token_endpoint = self.metadata.token_endpoint.as_ref();
        let audience = match token_endpoint.filter(|_| self.client.policy().allows(&relaxation)) {
            Some(endpoint) => endpoint.as_str(),
            None => self.issuer.issuer().as_str(),
        };
        Ok(ObjectWriter::new()
            .string("iss", client_id)
            .string("sub", client_id)
            .string("aud", audience)
            .integer("iat", now.unix_timestamp())
            .integer("exp", time::after(now, lifetime).unix_timestamp())
            .string("jti", jti.as_str())
            .finish())
    }
}
