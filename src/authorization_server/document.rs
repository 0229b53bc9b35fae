//! A client that is a URL, looked after once its metadata document is known: what a change of the document means for what
//! was granted, and how long a document serves that can no longer be fetched (D41).
//!
//! ```text
//! tend_document ─FindClient▶ AwaitingKnownDocument ─▶ KnownDocument ─(Fetch)─▶ receive
//!      the same, fetched of late ───────────────────────────────▶ Settled
//!      changed ───────────────────────────── UpdateClient ──────▶ AwaitingDocumentStored ─▶ Settled
//!      weaker, or its keys gone ─RevokeAll▶ AwaitingGrantsEnded ─┘
//!      404 or 410 ─ the first time ──────── UpdateClient ───────┘
//!                 └ for seven days ──────── DeleteClient ───────▶ AwaitingDocumentForgotten ─▶ Settled
//! ```
//!
//! The host runs it whenever it has fetched a document, before anything else reads it, and at the endpoints for clients
//! before the request of a client whose document it holds is looked at. A name that no person was ever asked about is not
//! fetched there: a stranger's token request makes no request of ours.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::AuthorizationServer;
use super::client::client_of_document;
use super::error::{TokenFailure, TokenReason};
use super::record::{ClientOrigin, ClientRecord};
use super::store::{
    ActionId, AllRevoked, ClientDeletion, ClientFound, ClientUpdate, DeleteClient, FindClient,
    RevocationTarget, RevokeAll, UpdateClient,
};
use crate::authorization_server::authorization::ForeignReceipt;
use crate::entropy::Entropy;
use crate::identifier::{ClientId, ClientMetadataUrl};
use crate::jose::JwkSet;
use crate::limits;
use crate::message::client_metadata::ClientMetadata;
use crate::message::exchange::{Fetch, FetchFailure, Reply, Respond};
use crate::secret::SecretDigest;
use crate::step::{Failed, Step};
use crate::time::{Duration, OffsetDateTime};

/// How old the note of the last fetch may be before it is written anew, in minutes.
const NOTE_MINUTES: i64 = 60;

/// Why a change of a client's document ends what people granted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrantsEnd {
    /// The client proved who it is, and now need not.
    AuthenticationWeakened,
    /// None of the keys it proved it with is left.
    KeysDisappeared,
}

impl GrantsEnd {
    /// Compares the document that grants were made under with a newer one of the same client.
    ///
    /// Everything else that changes voids remembered consent alone, whose key holds the digest of the metadata.
    pub fn between(before: &ClientRecord, after: &ClientRecord) -> Option<Self> {
        // CIMD-6.3-1, D41
        match (before.credential.is_confidential(), after.credential.is_confidential()) {
            (true, false) => Some(Self::AuthenticationWeakened),
            (true, true) if !shares_keys(&before.metadata, &after.metadata) => Some(Self::KeysDisappeared),
            _ => None,
        }
    }
}

/// Whether a key of the one is a key of the other, or both name the same place for them. A client that changes its keys
/// lists old and new ones together for a while.
fn shares_keys(before: &ClientMetadata, after: &ClientMetadata) -> bool {
    match (&before.jwks, &after.jwks) {
        (Some(before), Some(after)) => match (JwkSet::from_json(before), JwkSet::from_json(after)) {
            (Ok(before), Ok(after)) => {
                let listed = |key: &[u8; 32]| after.keys().iter().any(|other| other.thumbprint() == *key);
                before.keys().iter().any(|key| listed(&key.thumbprint()))
            }
            _ => false,
        },
        (None, None) => before.jwks_uri == after.jwks_uri,
        _ => false,
    }
}

impl AuthorizationServer {
    /// Begins to look after the document of the client that a request names; `None` for a name that is no URL.
    pub fn tend_document(&self, client_id: &ClientId) -> Option<Step<FindClient, AwaitingKnownDocument>> {
        let url = ClientMetadataUrl::new(client_id.as_str()).ok()?;
        let waiting = AwaitingKnownDocument(Box::new((self.clone(), url)));
        Some(Step::new(FindClient::new(client_id.clone()), waiting))
    }
}

impl AuthorizationServer {
    /// Whether what a fetch brought is the document of this client: only that may be kept for as long as its header fields
    /// say.
    pub fn is_document_of(&self, client_id: &ClientId, fetched: &Result<Reply, FetchFailure>) -> bool {
        // CIMD-4.4-3
        let url = ClientMetadataUrl::new(client_id.as_str());
        url.is_ok_and(|url| client_of_document(&url, fetched.clone(), OffsetDateTime::UNIX_EPOCH).is_ok())
    }
}

/// Waits for what the store knows of the client.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingKnownDocument(Box<(AuthorizationServer, ClientMetadataUrl)>);

impl AwaitingKnownDocument {
    /// The store has looked the client up. `None`: no document of it was ever kept, and there is nothing to do.
    pub fn found(self, found: ClientFound) -> Option<KnownDocument> {
        let (server, url) = *self.0;
        let record = found.record.filter(|record| {
            record.origin == ClientOrigin::MetadataDocument
                && record.client_id.as_str().as_bytes() == url.as_str().as_bytes()
        })?;
        let record = Arc::unwrap_or_clone(record);
        Some(KnownDocument(Box::new(Known { server, url, record, now: found.now })))
    }

    /// The store could not be read.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}

/// A client whose document the store has.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct KnownDocument(Box<Known>);

#[derive(Debug)]
struct Known {
    server: AuthorizationServer,
    url: ClientMetadataUrl,
    record: ClientRecord,
    now: OffsetDateTime,
}

/// What is to be done about a document.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub enum DocumentOutcome {
    /// What was granted ends first.
    EndGrants(GrantsEnd, Step<RevokeAll, AwaitingGrantsEnded>),
    /// The store is told what was fetched, or that nothing is there.
    Store(Step<UpdateClient, AwaitingDocumentStored>),
    /// The document has been gone for so long that the client is: it is deleted, and its grants end with it.
    Forget(Step<DeleteClient, AwaitingDocumentForgotten>),
    /// Nothing more.
    Settled(DocumentVerdict),
}

/// What a document that a process has kept is to the one in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptDocument {
    /// The same, or no document.
    Current,
    /// The store has a newer one: it is fetched again before anybody is asked under the old one.
    Older,
    /// The store has an older one: what follows on the newer one is done before anything else reads it
    /// ([`KnownDocument::receive`]).
    Newer,
}

/// Whether the client's request may go on with the document that the store has.
#[must_use = "the client waits for an answer"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentVerdict {
    /// It may.
    Serves,
    /// It may not, or not now: the endpoints for clients answer with this.
    Refused(TokenFailure),
}

impl KnownDocument {
    /// The fetch of it, as at the authorization endpoint.
    ///
    /// # Errors
    /// [`TokenFailure`] where this server reads no documents, or none of that host.
    pub fn fetch(&self) -> Result<Fetch, TokenFailure> {
        // I-G8: who is trusted no longer is let in no longer.
        let fetch = self.0.server.fetch_metadata_document(&self.0.url);
        fetch.map_err(|_| TokenFailure::new(TokenReason::UnknownClient))
    }

    /// What a document that was fetched then, and kept since, is to the one that the store has: another process may have
    /// fetched after this one, or asked people under what it had fetched before.
    pub fn against(&self, kept: &Result<Reply, FetchFailure>, at: OffsetDateTime) -> KeptDocument {
        // D41
        let Known { url, record, .. } = &*self.0;
        let Ok(kept) = client_of_document(url, kept.clone(), at) else { return KeptDocument::Current };
        if kept.metadata_digest() == record.metadata_digest() && kept.credential == record.credential {
            KeptDocument::Current
        } else if at.unix_timestamp() > record.created.unix_timestamp() {
            KeptDocument::Newer
        } else {
            KeptDocument::Older
        }
    }

    /// A fetch brought that, then.
    pub fn receive(
        self,
        fetched: Result<Reply, FetchFailure>,
        at: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> DocumentOutcome {
        if fetched.as_ref().is_ok_and(|reply| matches!(reply.status(), 404 | 410)) {
            return self.0.gone(at, entropy);
        }
        match client_of_document(&self.0.url, fetched, at) {
            Ok(fetched) => self.0.compare(fetched, entropy),
            // CIMD-4.4-3: what failed or does not parse takes nobody's place.
            Err(_) => DocumentOutcome::Settled(self.0.verdict()),
        }
    }
}

impl Known {
    /// A document that cannot be fetched serves for a while; then the client is asked to wait, and never told that it is
    /// unknown (D41).
    fn verdict(&self) -> DocumentVerdict {
        let age = self.now.unix_timestamp().saturating_sub(self.record.created.unix_timestamp());
        if age < self.server.lifetimes().stale_document.whole_seconds() {
            DocumentVerdict::Serves
        } else {
            DocumentVerdict::Refused(TokenFailure::new(TokenReason::DocumentUnavailable))
        }
    }

    fn compare(self, fetched: ClientRecord, entropy: &mut dyn Entropy) -> DocumentOutcome {
        const SERVES: DocumentOutcome = DocumentOutcome::Settled(DocumentVerdict::Serves);
        // Another process has fetched it since.
        if fetched.created < self.record.created {
            return SERVES;
        }
        let noted = fetched.created.unix_timestamp().saturating_sub(self.record.created.unix_timestamp());
        // As stored: what is not kept of a document is no change of it.
        let is_same = fetched.metadata_digest() == self.record.metadata_digest()
            && fetched.credential == self.record.credential;
        if is_same && self.record.gone_since.is_none() && noted < NOTE_MINUTES.saturating_mul(60) {
            return SERVES;
        }
        let ends = GrantsEnd::between(&self.record, &fetched);
        let replacement = Replacement { expected: self.digest(), record: fetched };
        match ends {
            None => replacement.store(DocumentVerdict::Serves, entropy),
            Some(why) => {
                let target = RevocationTarget::Client(replacement.record.client_id.clone());
                let waiting = AwaitingGrantsEnded(Box::new(replacement));
                DocumentOutcome::EndGrants(why, Step::new(RevokeAll::of(target), waiting))
            }
        }
    }

    fn gone(self, at: OffsetDateTime, entropy: &mut dyn Entropy) -> DocumentOutcome {
        let (expected, verdict) = (self.digest(), self.verdict());
        let Some(since) = self.record.gone_since else {
            let record = ClientRecord { gone_since: Some(at), ..self.record };
            return Replacement { expected, record }.store(verdict, entropy);
        };
        // D41: seven days, so that a mistake of its host, or of a stranger who holds its name for a day, ends nothing.
        let gone = at.unix_timestamp().saturating_sub(since.unix_timestamp());
        if gone < Duration::days(limits::DOCUMENT_GONE_DAYS).whole_seconds() {
            return DocumentOutcome::Settled(verdict);
        }
        match DeleteClient::new(expected, self.record.client_id, entropy) {
            Ok((delete, id)) => {
                DocumentOutcome::Forget(Step::new(delete, AwaitingDocumentForgotten(Box::new(id))))
            }
            Err(_) => no_entropy(),
        }
    }

    fn digest(&self) -> SecretDigest {
        SecretDigest::of(&self.record.to_bytes())
    }
}

fn no_entropy() -> DocumentOutcome {
    DocumentOutcome::Settled(DocumentVerdict::Refused(TokenFailure::new(TokenReason::NoEntropy)))
}

#[derive(Debug)]
struct Replacement {
    expected: SecretDigest,
    record: ClientRecord,
}

impl Replacement {
    fn store(self, verdict: DocumentVerdict, entropy: &mut dyn Entropy) -> DocumentOutcome {
        match UpdateClient::new(self.expected, self.record, entropy) {
            Ok((update, id)) => {
                DocumentOutcome::Store(Step::new(update, AwaitingDocumentStored(Box::new((id, verdict)))))
            }
            Err(_) => no_entropy(),
        }
    }
}

/// Waits until what the client was granted has ended. Only then does its new document take the old one's place.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingGrantsEnded(Box<Replacement>);

impl AwaitingGrantsEnded {
    /// They have ended.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another's grants.
    pub fn ended(
        self,
        receipt: AllRevoked,
        entropy: &mut dyn Entropy,
    ) -> Result<DocumentOutcome, Failed<Self, ForeignReceipt>> {
        let target = RevocationTarget::Client(self.0.record.client_id.clone());
        if *receipt.target() != target {
            return Err(Failed::new(ForeignReceipt, self));
        }
        Ok(self.0.store(DocumentVerdict::Serves, entropy))
    }

    /// The store failed: the old document is still there, and is compared again with the next fetch.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}

/// Waits until the store holds what was fetched.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingDocumentStored(Box<(ActionId, DocumentVerdict)>);

impl AwaitingDocumentStored {
    /// It does; or another process was faster, whose record is as good.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn stored(self, receipt: ClientUpdate) -> Result<DocumentVerdict, Failed<Self, ForeignReceipt>> {
        if receipt.id == self.0.0 { Ok(self.0.1) } else { Err(Failed::new(ForeignReceipt, self)) }
    }

    /// The store failed.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}

/// Waits until the client is forgotten.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingDocumentForgotten(Box<ActionId>);

impl AwaitingDocumentForgotten {
    /// It is; or another process has written of it since, and the store says what.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn forgotten(self, receipt: ClientDeletion) -> Result<DocumentVerdict, Failed<Self, ForeignReceipt>> {
        if receipt.id == *self.0 {
            Ok(DocumentVerdict::Serves)
        } else {
            Err(Failed::new(ForeignReceipt, self))
        }
    }

    /// The store failed.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}
