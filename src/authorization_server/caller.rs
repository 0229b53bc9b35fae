//! Who calls: the front that the token, revocation, introspection and pushed request endpoints share.
//!
//! ```text
//!   token / revoke / introspect / push
//!      │ FindClient; a client that pushes and is new: the Fetch of its document
//!   AwaitingCaller ─────────── none, secret ────────────┐
//!      │ assertion: keys of the record, or Fetch        │
//!   AwaitingCallerKeys                                  │
//!      │ ReserveOnce                                    │
//!   AwaitingReservation ────────────────────────────────┴──▶ CallerOutcome: the endpoint's own first action
//! ```
//!
//! Nothing about a grant is read before the client is who it says (OAUTH21-3.2.2-2).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use crate::authorization_server::AuthorizationServer;
use crate::authorization_server::authentication::{
    Assertion, AssertionVerified, ClientAuthenticated, Judged, PresentedCredentials,
};
use crate::authorization_server::client::{address_policy, client_of_document};
use crate::authorization_server::error::{TokenFailure, TokenReason};
use crate::authorization_server::introspection::{AwaitingIntrospected, Introspecting};
use crate::authorization_server::pushed::{AwaitingPushed, Pushing};
use crate::authorization_server::refresh::AwaitingRefresh;
use crate::authorization_server::revocation::{AwaitingRevocable, Revoking};
use crate::authorization_server::store::{
    ClientFound, FindClient, InsertPushed, ReadAccess, ReadCode, ReadRefresh, Reservation, ReservationKind,
    ReserveOnce,
};
use crate::authorization_server::token::{AwaitingCode, Presented};
use crate::entropy::Entropy;
use crate::identifier::ClientMetadataUrl;
use crate::jose::{JwkSet, KeyImporter, KeySet};
use crate::limits;
use crate::message::exchange::{Fetch, FetchFailure, FetchPolicy, FetchPurpose, Reply, Respond};
use crate::step::Step;
use crate::time::OffsetDateTime;

/// What the endpoint was asked, while its caller is found out.
#[derive(Debug)]
pub(crate) enum Asked {
    Token(Presented),
    Revocation(Revoking),
    Introspection(Introspecting),
    Push(Pushing),
}

/// Waits for the record of the client that the request names.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingCaller(Box<CallerInner>);

#[derive(Debug)]
struct CallerInner {
    server: AuthorizationServer,
    credentials: PresentedCredentials,
    asked: Asked,
}

/// What follows on who the caller is.
#[must_use = "the request goes on from here, or is answered"]
#[derive(Debug)]
pub enum CallerOutcome {
    /// At the token endpoint: the client's code is read.
    Code(Step<ReadCode, AwaitingCode>),
    /// At the token endpoint: the client's refresh token is read.
    Refresh(Step<ReadRefresh, AwaitingRefresh>),
    /// At the revocation endpoint: the token is read.
    Revocation(Step<ReadRefresh, AwaitingRevocable>),
    /// At the introspection endpoint: the token is read.
    Introspection(Step<ReadAccess, AwaitingIntrospected>),
    /// At the endpoint for pushed requests: the request is stored.
    Push(Step<InsertPushed, AwaitingPushed>),
    /// The client's keys stand at a URL: they are fetched.
    Fetch(Step<Fetch, AwaitingCallerKeys>),
    /// The client's keys stand in its record: they are imported.
    Keys(AwaitingCallerKeys),
    /// The assertion is the client's: its identifier is reserved, so that it serves once.
    Reserve(Step<ReserveOnce, AwaitingReservation>),
    /// Answer with this: the pushed request is not acceptable.
    Answer(Respond),
    /// Answer with this.
    Refused(TokenFailure),
}

impl AwaitingCaller {
    pub(crate) fn step(
        server: &AuthorizationServer,
        credentials: PresentedCredentials,
        asked: Asked,
    ) -> Step<FindClient, Self> {
        let find = FindClient::new(credentials.client_id().clone());
        Step::new(find, Self(Box::new(CallerInner { server: server.clone(), credentials, asked })))
    }

    /// The store has looked the client up.
    pub fn found(self, found: ClientFound, entropy: &mut dyn Entropy) -> CallerOutcome {
        self.0.judge(found, entropy).unwrap_or_else(refused)
    }

    /// The fetch of the metadata document that a pushed request needs whose client the store does not know; `None` for every
    /// other endpoint, and for a request that would be refused whatever the document said.
    pub fn document(&self, found: &ClientFound) -> Option<Fetch> {
        let CallerInner { server, credentials, asked: Asked::Push(pushing) } = &*self.0 else { return None };
        // I-P1, RFC9126-2.1-2: nothing is fetched in vain for a stranger.
        let is_new = found.record.is_none() && found.client_id == *credentials.client_id();
        let url = ClientMetadataUrl::new(credentials.client_id().as_str()).ok()?;
        let fits = credentials.may_be_of_a_document(server) && pushing.may_be_accepted(server, &url);
        if is_new && fits { server.fetch_metadata_document(&url).ok() } else { None }
    }

    /// The store does not know the client, and a fetch of its document brought that, then: of [`AwaitingCaller::document`].
    pub fn found_document(
        self,
        found: ClientFound,
        fetched: Result<Reply, FetchFailure>,
        at: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> CallerOutcome {
        let Ok(url) = ClientMetadataUrl::new(found.client_id.as_str()) else {
            return refused(TokenReason::HostMisuse);
        };
        // I-G9: what failed outside says nothing about the client.
        if fetched.as_ref().map_or(true, |reply| reply.status() >= 500) {
            return refused(TokenReason::DocumentUnavailable);
        }
        match client_of_document(&url, fetched, at) {
            Ok(record) => self.found(ClientFound { record: Some(Arc::new(record)), ..found }, entropy),
            Err(_) => refused(TokenReason::UnknownClient),
        }
    }

    /// The store could not be read. Nothing was changed; the client may try again.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}

fn refused(reason: TokenReason) -> CallerOutcome {
    CallerOutcome::Refused(TokenFailure::new(reason))
}

impl CallerInner {
    fn judge(self, found: ClientFound, entropy: &mut dyn Entropy) -> Result<CallerOutcome, TokenReason> {
        let now = found.now;
        // OAUTH21-3.2.2-2, OAUTH21-3.2.2-3, RFC7009-2.1-2: before anything about the grant is read.
        let assertion = match self.credentials.check(&self.server, found)? {
            Judged::Authenticated(client) => return self.asked.go_on(self.server, client, now, entropy),
            Judged::Assertion(assertion) => assertion,
        };
        let metadata = &assertion.record().metadata;
        let fetch = match &metadata.jwks_uri {
            None => None,
            Some(uri) => {
                // I-L8: the client chose the URL.
                let addresses = address_policy(&self.server, uri.host(), uri.is_loopback())
                    .ok_or(TokenReason::AssertionInvalid)?;
                let policy = FetchPolicy::new(addresses, limits::DOCUMENT_BYTES);
                Some(Fetch::get(FetchPurpose::KeySet, uri.as_str(), policy))
            }
        };
        let inner = KeysInner { server: self.server, assertion, asked: self.asked, now };
        let waiting = AwaitingCallerKeys(Box::new(inner));
        Ok(match fetch {
            Some(fetch) => CallerOutcome::Fetch(Step::new(fetch, waiting)),
            None => CallerOutcome::Keys(waiting),
        })
    }
}

/// Waits for the client's keys.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingCallerKeys(Box<KeysInner>);

#[derive(Debug)]
struct KeysInner {
    server: AuthorizationServer,
    assertion: Box<Assertion>,
    asked: Asked,
    now: OffsetDateTime,
}

impl AwaitingCallerKeys {
    /// The keys are those of the record: of [`CallerOutcome::Keys`].
    pub fn import(self, importer: &dyn KeyImporter) -> CallerOutcome {
        let document = self.0.assertion.record().metadata.jwks.as_ref().map(|jwks| jwks.to_bytes());
        match document {
            Some(document) => self.0.with_keys(&document, importer).unwrap_or_else(refused),
            // The keys stand elsewhere, and were not fetched.
            None => refused(TokenReason::HostMisuse),
        }
    }

    /// Whether keys that were fetched before may hold the one that signed the assertion: a set that does not name it may be
    /// older than the key, and is worth another fetch.
    pub fn is_named_in(&self, fetched: &Reply) -> bool {
        JwkSet::parse(fetched.body()).is_ok_and(|keys| self.0.assertion.is_named_in(&keys))
    }

    /// What the fetch of the keys brought: of [`CallerOutcome::Fetch`].
    pub fn receive(self, fetched: Result<Reply, FetchFailure>, importer: &dyn KeyImporter) -> CallerOutcome {
        // Keys that cannot be had are a failure outside, and say nothing about the client (I-G9).
        match fetched {
            Ok(reply) if reply.status() == 200 => {
                self.0.with_keys(reply.body(), importer).unwrap_or_else(refused)
            }
            _ => refused(TokenReason::KeysUnavailable),
        }
    }
}

impl KeysInner {
    fn with_keys(self, document: &[u8], importer: &dyn KeyImporter) -> Result<CallerOutcome, TokenReason> {
        let keys = JwkSet::parse(document).map_err(|_| TokenReason::AssertionInvalid)?;
        let keys = KeySet::import(&keys, importer).map_err(|_| TokenReason::AssertionInvalid)?;
        let AssertionVerified { client, jti, until } = self.assertion.verify(&self.server, &keys)?;
        // RFC7523-3-6, I-A12
        let reserve = ReserveOnce::new(
            ReservationKind::ClientAssertion,
            (String::from(client.client_id().as_str()), self.server.issuer().clone(), jti.clone()),
            until,
        );
        let inner = ReservationInner { server: self.server, client, asked: self.asked, jti, now: self.now };
        Ok(CallerOutcome::Reserve(Step::new(reserve, AwaitingReservation(Box::new(inner)))))
    }
}

/// Waits until the assertion's identifier is reserved.
#[must_use = "the client waits for an answer"]
pub struct AwaitingReservation(Box<ReservationInner>);

struct ReservationInner {
    server: AuthorizationServer,
    client: ClientAuthenticated,
    asked: Asked,
    jti: String,
    now: OffsetDateTime,
}

impl fmt::Debug for AwaitingReservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwaitingReservation").field("client", &self.0.client).finish_non_exhaustive()
    }
}

impl AwaitingReservation {
    /// The store has reserved it, or found it used.
    pub fn reserved(self, receipt: Reservation, entropy: &mut dyn Entropy) -> CallerOutcome {
        let ReservationInner { server, client, asked, jti, now } = *self.0;
        if !receipt.reserves(&jti) {
            return refused(TokenReason::AssertionReplayed);
        }
        asked.go_on(server, client, now, entropy).unwrap_or_else(refused)
    }

    /// The store failed. The identifier may be used up: the client makes another assertion.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}

impl Asked {
    /// The client is who it says: the endpoint's own first step.
    fn go_on(
        self,
        server: AuthorizationServer,
        client: ClientAuthenticated,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<CallerOutcome, TokenReason> {
        match self {
            Self::Token(presented) => presented.go_on(server, client),
            Self::Revocation(revoking) => Ok(CallerOutcome::Revocation(revoking.go_on(client)?)),
            Self::Introspection(asking) => Ok(CallerOutcome::Introspection(asking.go_on(server, client)?)),
            Self::Push(pushing) => match pushing.go_on(server, client, now, entropy)? {
                Ok(step) => Ok(CallerOutcome::Push(step)),
                Err(answer) => Ok(CallerOutcome::Answer(answer)),
            },
        }
    }
}
