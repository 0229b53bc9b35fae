//! Pushed authorization requests (RFC 9126): the client hands its request in by itself, before the browser comes.
//!
//! ```text
//!   AuthorizationServer::push
//!      │ FindClient
//!   AwaitingCaller (caller.rs)
//!      │ InsertPushed
//!   AwaitingPushed ─▶ Respond 201, request_uri
//!
//!   AuthorizationServer::authorize(client_id, request_uri)
//!      │ ReadPushed
//!   AwaitingPushedRequest ─▶ as if the browser had brought the query (authorization.rs)
//! ```
//!
//! The request is checked when it is pushed, so that its client learns at once what is wrong, and again when the browser
//! comes, because configuration and registration may have changed. It is consumed when the person is shown it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use crate::authorization_server::authentication::{ClientAuthenticated, PresentedCredentials};
use crate::authorization_server::authorization::{Authorizing, ForeignReceipt, Pending, RequestOutcome};
use crate::authorization_server::caller::{Asked, AwaitingCaller};
use crate::authorization_server::error::{TokenFailure, TokenReason};
use crate::authorization_server::record::{ClientCredential, ClientOrigin, ClientRecord, PushedRecord};
use crate::authorization_server::refusal::{Refusal, RefusalReason};
use crate::authorization_server::store::{
    ActionId, FindClient, InsertPushed, Insertion, PushedFound, PushedInsertion, ReadPushed,
};
use crate::authorization_server::token::{malformed, read_form};
use crate::authorization_server::{AuthorizationServer, PushedRequests};
use crate::entropy::{Entropy, draw_text};
use crate::identifier::{ClientId, ClientMetadataUrl, RedirectUri};
use crate::message::authorization::AuthorizationRequest;
use crate::message::client_metadata::ClientMetadata;
use crate::message::error_code::ErrorDetail;
use crate::message::exchange::{RequestHead, Respond};
use crate::secret::SecretDigest;
use crate::step::{Failed, Step};
use crate::syntax::form;
use crate::syntax::json::ObjectWriter;
use crate::time::{self, OffsetDateTime};

/// What every request URI of this server begins with (RFC 9126 section 2.2).
const PREFIX: &str = "urn:ietf:params:oauth:request_uri:";

/// Credentials of the client, which are no part of its request.
const CREDENTIALS: [&str; 3] = ["client_secret", "client_assertion", "client_assertion_type"];

impl AuthorizationServer {
    /// A request at the endpoint for pushed requests: the head and the body, read up to [`crate::limits::FORM_BYTES`].
    ///
    /// # Errors
    /// [`TokenFailure`], whose answer goes out at once, when the request is no well-formed form, or there is no such
    /// endpoint.
    pub fn push(
        &self,
        head: &RequestHead,
        body: &[u8],
    ) -> Result<Step<FindClient, AwaitingCaller>, TokenFailure> {
        if self.pushed_requests() == PushedRequests::Off {
            return Err(TokenFailure::new(TokenReason::NoEndpoint));
        }
        // RFC9126-2-1
        let request = AuthorizationRequest::from_form(read_form(head, body)?).map_err(malformed)?;
        let form = request.form();
        // RFC9126-2.1-2: a pushed request is not a reference to another.
        if form.get("request_uri").is_some() {
            return Err(TokenFailure::new(TokenReason::Malformed("request_uri")));
        }
        let credentials = PresentedCredentials::read(head, form).map_err(TokenFailure::new)?;
        let names = form.names().filter(|name| !CREDENTIALS.contains(name));
        let pairs = names.filter_map(|name| Some((name, form.get(name)?)));
        let query = form::encode(pairs.filter(|(name, _)| *name != "client_id"));
        Ok(AwaitingCaller::step(self, credentials, Asked::Push(Pushing { query })))
    }

    /// The browser brings a reference to a pushed request.
    pub(crate) fn read_pushed(
        &self,
        client_id: ClientId,
        request_uri: &str,
    ) -> Result<Step<ReadPushed, AwaitingPushedRequest>, Refusal> {
        // RFC9126-4-2: only references this server made.
        if self.pushed_requests() == PushedRequests::Off || !request_uri.starts_with(PREFIX) {
            return Err(Refusal::new(RefusalReason::PushedRequest));
        }
        let key = SecretDigest::of(request_uri.as_bytes());
        let inner = RequestInner { server: self.clone(), client_id, key };
        Ok(Step::new(ReadPushed::new(key), AwaitingPushedRequest(Box::new(inner))))
    }
}

/// A pushed request, while its client is found out.
pub(crate) struct Pushing {
    query: String,
}

impl fmt::Debug for Pushing {
    /// Without the query: its `state` is the client's secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pushing(redacted)")
    }
}

impl Pushing {
    /// Whether there could be a document of that URL under which the request is acceptable: one that names its redirect URI.
    pub(crate) fn may_be_accepted(&self, server: &AuthorizationServer, url: &ClientMetadataUrl) -> bool {
        let client_id = url.to_client_id();
        let query = with_client(&client_id, &self.query);
        let Ok(request) = AuthorizationRequest::parse(query.as_bytes()) else { return false };
        // A request that names none gets the document's only one, whatever that is.
        let Ok(redirect_uri) = RedirectUri::new(request.redirect_uri().unwrap_or(url.as_str())) else {
            return false;
        };
        let client = ClientRecord {
            client_id,
            origin: ClientOrigin::MetadataDocument,
            credential: ClientCredential::None,
            metadata: ClientMetadata { redirect_uris: [redirect_uri].into(), ..ClientMetadata::default() },
            created: OffsetDateTime::UNIX_EPOCH,
            management: None,
            gone_since: None,
            configured: false,
            initial_access: false,
        };
        matches!(
            Pending::new(server.clone(), request).pushing().validate(Arc::new(client)),
            RequestOutcome::Validated(_)
        )
    }

    /// The client is who it says: its request is checked like one that a browser brings.
    pub(crate) fn go_on(
        self,
        server: AuthorizationServer,
        client: ClientAuthenticated,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Result<Step<InsertPushed, AwaitingPushed>, Respond>, TokenReason> {
        // I-P7: anybody can push in the name of a public client, the operator's too; and where registration is open, or metadata
        // documents are taken, anybody makes as many clients with credentials as they like, each of which proves no more than
        // that it is itself. Only one that the operator let in, and that has proved to be that one, is no stranger.
        let of_operator = client.has_proved() && client.record().is_of_operator();
        let client = client.into_record();
        let client_id = client.client_id.clone();
        let query = with_client(&client_id, &self.query);
        let request = AuthorizationRequest::parse(query.as_bytes()).map_err(|_| TokenReason::NotAForm)?;
        // RFC9126-2.1-2, RFC9126-7.2-1: everything a direct request is checked for, its redirect URI first.
        match Pending::new(server.clone(), request).pushing().validate(client) {
            RequestOutcome::Validated(_) => {}
            RequestOutcome::Error(error) => {
                let words = ErrorDetail::of(error.words()).description;
                let body = ObjectWriter::new()
                    .string("error", error.code().as_str())
                    .optional_string("error_description", words.as_ref().map(|words| words.as_str()));
                return Ok(Err(Respond::json(400, body.finish()).with_header("cache-control", "no-store")));
            }
            RequestOutcome::Refused(_) => return Err(TokenReason::Malformed("redirect_uri")),
        }
        let no_entropy = |_| TokenReason::NoEntropy;
        // RFC9126-2.2-1: cannot be guessed, and belongs to this client.
        let uri = [PREFIX, draw_text(entropy).map_err(no_entropy)?.as_str()].concat();
        let lifetime = server.lifetimes().pushed;
        let record = PushedRecord { client_id, query: self.query, not_after: time::after(now, lifetime) };
        let (insert, id) = InsertPushed::new(SecretDigest::of(uri.as_bytes()), record, of_operator, entropy)
            .map_err(no_entropy)?;
        let inner = PushedInner { id, uri, expires_in: lifetime.whole_seconds() };
        Ok(Ok(Step::new(insert, AwaitingPushed(Box::new(inner)))))
    }
}

/// The query with its client named first.
fn with_client(client_id: &ClientId, query: &str) -> String {
    [&form::encode([("client_id", client_id.as_str())]), "&", query].concat()
}

/// Waits until the store holds the pushed request.
#[must_use = "the client waits for an answer"]
pub struct AwaitingPushed(Box<PushedInner>);

struct PushedInner {
    id: ActionId,
    uri: String,
    expires_in: i64,
}

impl fmt::Debug for AwaitingPushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwaitingPushed(redacted)")
    }
}

impl AwaitingPushed {
    /// The store holds it: the answer with the request URI. Or there is no room: 503.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn stored(self, receipt: PushedInsertion) -> Result<Respond, Failed<Self, ForeignReceipt>> {
        if receipt.id != self.0.id {
            return Err(Failed::new(ForeignReceipt, self));
        }
        // I-P7
        if receipt.outcome != Insertion::Done {
            return Ok(TokenFailure::new(TokenReason::Full).respond());
        }
        // RFC9126-2.2-1
        let body = ObjectWriter::new()
            .string("request_uri", self.0.uri.as_str())
            .integer("expires_in", self.0.expires_in)
            .finish();
        Ok(Respond::json(201, body).with_header("cache-control", "no-store"))
    }

    /// The store failed; nothing was pushed.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}

/// Waits for the pushed request that the browser refers to.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub struct AwaitingPushedRequest(Box<RequestInner>);

#[derive(Debug)]
struct RequestInner {
    server: AuthorizationServer,
    client_id: ClientId,
    key: SecretDigest,
}

impl AwaitingPushedRequest {
    /// The store has looked for it. It goes on like a request that the browser brought in full; never with
    /// [`Authorizing::Pushed`] again.
    ///
    /// # Errors
    /// A [`Refusal`] to show when it is gone, has ended, or is another client's.
    pub fn found(self, found: PushedFound) -> Result<Authorizing, Refusal> {
        let RequestInner { server, client_id, key } = *self.0;
        let refused = || Refusal::new(RefusalReason::PushedRequest);
        let record = found.record.filter(|_| found.key == key).ok_or_else(refused)?;
        // RFC9126-4-2
        if found.now >= record.not_after || record.client_id != client_id {
            return Err(refused());
        }
        let query = with_client(&record.client_id, &record.query);
        let request = AuthorizationRequest::parse(query.as_bytes()).map_err(|_| refused())?;
        server.resolve_client(Pending::new(server.clone(), request).pushed_as(key))
    }

    /// The store could not be read.
    pub fn store_failed(self) -> Refusal {
        Refusal::new(RefusalReason::Unavailable)
    }
}
