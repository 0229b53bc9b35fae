//! The metadata documents of clients that are URLs: fetched under the core's policy, one fetch in flight for each, kept for
//! as long as their header fields say within bounds, and compared with the store's copy before anything reads them.
//!
//! Strangers name URLs. What they name is kept apart from the clients that people were asked about, so that no flood of
//! names pushes those out; both places have a bound, and so has the number of fetches in flight.

use std::time::Duration;

use mcp_authz::authorization_server::document::{
    DocumentOutcome, DocumentVerdict, KeptDocument, KnownDocument,
};
use mcp_authz::authorization_server::record::{ClientOrigin, ClientRecord};
use mcp_authz::identifier::ClientId;
use mcp_authz::message::exchange::{Fetch, FetchFailure, Reply, Respond};
use mcp_authz::time::OffsetDateTime;

use super::freshness::DocumentCaching;
use super::slots::Slots;
use super::{AuthorizationEvent, AuthorizationServerHost};
use crate::client::fetch::document_of;
use crate::entropy::ThreadEntropy;
use crate::store::StoreError;

/// How long a fetch that brought no document is not repeated.
pub(super) const REFUSED_FOR: Duration = Duration::from_secs(30);

/// How long a document is not fetched before it is fetched without being asked for.
const UNSEEN: Duration = Duration::from_secs(86_400);

/// How long a client that asks for tokens waits for its own document. Longer, and it would give its request up.
const AT_THE_TOKEN_ENDPOINT: Duration = Duration::from_secs(5);

/// What was looked up for a URL.
#[derive(Debug, Clone)]
pub(super) struct Looked {
    /// What the fetch brought; where it was kept and is no document, that nothing was sent.
    pub(super) fetched: Result<Reply, FetchFailure>,
    /// When.
    pub(super) at: OffsetDateTime,
    /// Whether the store knew no such client when somebody asked.
    pub(super) is_new: bool,
    /// Whether the client may go on at the endpoints for clients; `None` when nothing is known of it.
    verdict: Option<DocumentVerdict>,
    until: OffsetDateTime,
}

/// The documents of one server.
#[derive(Debug)]
pub(super) struct Documents {
    pub(super) caching: DocumentCaching,
    slots: Slots<Looked>,
}

impl Documents {
    pub(super) fn new(caching: DocumentCaching) -> Self {
        Self { caching, slots: Slots::default() }
    }
}

pub(super) fn later(at: OffsetDateTime, by: Duration) -> OffsetDateTime {
    let by = mcp_authz::time::Duration::seconds(i64::try_from(by.as_secs()).unwrap_or(i64::MAX));
    at.checked_add(by).unwrap_or(at)
}

impl AuthorizationServerHost {
    /// The document that a request at the authorization endpoint names.
    pub(super) async fn document(&self, fetch: &Fetch) -> Result<Looked, Respond> {
        let Ok(client_id) = ClientId::new(fetch.url()) else { return Ok(self.not_sent()) };
        let known = self.known_document(&client_id).await?;
        let is_new = known.is_none();
        let looked = self.looked(&client_id, fetch, known).await?;
        Ok(Looked { is_new, ..looked })
    }

    /// Looks after the document of a client that calls, before its request is looked at: its own, if the store has one, and
    /// nothing else.
    pub(super) async fn tend(&self, client_id: &ClientId) -> Result<(), Respond> {
        match self.tended(client_id).await? {
            DocumentVerdict::Serves => Ok(()),
            DocumentVerdict::Refused(failure) => Err(self.refused(&failure)),
        }
    }

    async fn tended(&self, client_id: &ClientId) -> Result<DocumentVerdict, Respond> {
        // Where the store has none, there is nothing to refuse: the endpoint finds nothing, either.
        let Some(known) = self.known_document(client_id).await? else { return Ok(DocumentVerdict::Serves) };
        let fetch = match known.fetch() {
            Ok(fetch) => fetch,
            Err(failure) => return Ok(DocumentVerdict::Refused(failure)),
        };
        // The fetch goes on when the client has waited long enough: the next request finds what it brought.
        let (host, id) = (self.clone(), client_id.clone());
        let looking = tokio::spawn(async move { host.looked(&id, &fetch, Some(known)).await });
        let verdict = match tokio::time::timeout(AT_THE_TOKEN_ENDPOINT, looking).await {
            Ok(Ok(looked)) => looked?.verdict,
            Ok(Err(_)) | Err(_) => None,
        };
        // Too slow, or too many at once: as a fetch that failed.
        let verdict = match verdict {
            Some(verdict) => Some(verdict),
            None => self.reconciled(client_id, &Err(FetchFailure::TimedOut), self.clock.now()).await?,
        };
        Ok(verdict.unwrap_or(DocumentVerdict::Serves))
    }

    /// Looks after the documents of all clients, whoever asks for them: those that nobody has fetched for a day, and those that
    /// were gone, so that it is the clock that says for how long (D41). The host calls it about once an hour.
    ///
    /// # Errors
    /// [`StoreError`] when the clients cannot be listed. What becomes of one document is no failure of this.
    pub async fn look_after_documents(&self) -> Result<(), StoreError> {
        let Some(administered) = &self.administered else { return Ok(()) };
        let mut after: Option<ClientId> = None;
        loop {
            let page = administered.list_clients(after.as_ref()).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.client_id.clone());
            for client in page.iter().filter(|client| self.is_due(client)) {
                // No client asked: nobody is refused, and a store that fails says so where it is asked.
                let _verdict = self.tended(&client.client_id).await;
            }
        }
    }

    fn is_due(&self, client: &ClientRecord) -> bool {
        client.origin == ClientOrigin::MetadataDocument
            && (client.gone_since.is_some() || later(client.created, UNSEEN) <= self.clock.now())
    }

    fn not_sent(&self) -> Looked {
        let at = self.clock.now();
        Looked { fetched: Err(FetchFailure::NotSent), at, is_new: false, verdict: None, until: at }
    }

    /// What is kept for the URL while it is fresh; else what a fetch brings, once for all who wait.
    async fn looked(
        &self,
        client_id: &ClientId,
        fetch: &Fetch,
        known: Option<KnownDocument>,
    ) -> Result<Looked, Respond> {
        let (documents, is_known) = (&self.documents, known.is_some());
        let Some(slot) = documents.slots.of(fetch.url(), is_known) else { return Ok(self.not_sent()) };
        let mut slot = slot.lock().await;
        let now = self.clock.now();
        if let Some(kept) = slot.as_ref().filter(|looked| now < looked.until) {
            // D41: another process over the store has a cache of its own.
            match known.map_or(KeptDocument::Current, |known| known.against(&kept.fetched, kept.at)) {
                KeptDocument::Current => return Ok(kept.clone()),
                KeptDocument::Newer => {
                    let verdict = self.reconciled(client_id, &kept.fetched, kept.at).await?.or(kept.verdict);
                    let looked = Looked { verdict, ..kept.clone() };
                    *slot = Some(looked.clone());
                    return Ok(looked);
                }
                // What its host answers to the one and to the other differs, or their clocks do: nobody is asked under either.
                KeptDocument::Older if now < later(kept.at, REFUSED_FOR) => return Ok(self.not_sent()),
                KeptDocument::Older => {}
            }
        }
        self.observe(AuthorizationEvent::FetchDocument(fetch));
        let fetching = self.fetcher.fetch_whole(fetch);
        let fetching = documents.slots.in_flight(fetch.url(), is_known, fetching);
        // It gave way: nothing is known of the document, and the next who asks has it fetched again.
        let Some(incoming) = fetching.await else { return Ok(self.not_sent()) };
        let at = self.clock.now();
        let headers = incoming.as_ref().map(|incoming| incoming.headers.clone()).unwrap_or_default();
        let fetched = incoming.map(document_of);
        // CIMD-4.4-3: its header fields count for a document only.
        let is_document = self.core.measure(|| self.server.is_document_of(client_id, &fetched));
        let fresh = if is_document { documents.caching.fresh_for(&headers, at) } else { REFUSED_FOR };
        let until = later(at, fresh);
        // Nobody reads what is not yet compared with what grants were made under.
        let verdict = self.reconciled(client_id, &fetched, at).await?;
        let verdict = verdict.or(is_document.then_some(DocumentVerdict::Serves));
        let looked = Looked { fetched, at, is_new: false, verdict, until };
        // CIMD-4.4-3: what is no document answers nobody else. Whoever comes before the next fetch is told to try again.
        let kept = if is_document { looked.fetched.clone() } else { Err(FetchFailure::NotSent) };
        *slot = Some(Looked { fetched: kept, ..looked.clone() });
        Ok(looked)
    }

    async fn known_document(&self, client_id: &ClientId) -> Result<Option<KnownDocument>, Respond> {
        let Some(step) = self.server.tend_document(client_id) else { return Ok(None) };
        let (action, waiting) = step.into_parts();
        match self.store.find_client(action).await {
            Ok(found) => Ok(waiting.found(found)),
            Err(error) => {
                self.store_failed(&error);
                Err(waiting.store_failed())
            }
        }
    }

    /// Compares what was fetched with what the store has, and does what follows (D41).
    async fn reconciled(
        &self,
        client_id: &ClientId,
        fetched: &Result<Reply, FetchFailure>,
        at: OffsetDateTime,
    ) -> Result<Option<DocumentVerdict>, Respond> {
        let Some(known) = self.known_document(client_id).await? else { return Ok(None) };
        let mut outcome = self.core.measure(|| known.receive(fetched.clone(), at, &mut ThreadEntropy));
        loop {
            outcome = match outcome {
                DocumentOutcome::Settled(verdict) => return Ok(Some(verdict)),
                DocumentOutcome::EndGrants(why, step) => {
                    tracing::warn!(?why, "a client's metadata document changed; what it was granted ends");
                    let (action, waiting) = step.into_parts();
                    let receipt = self.store.revoke_all(action).await;
                    let (receipt, waiting) = self.held(receipt, waiting, |waiting| waiting.store_failed())?;
                    let ended = waiting.ended(receipt, &mut ThreadEntropy);
                    ended.map_err(|failed| failed.state.store_failed())?
                }
                DocumentOutcome::Store(step) => {
                    let (action, waiting) = step.into_parts();
                    let receipt = self.store.update_client(action).await;
                    let (receipt, waiting) = self.held(receipt, waiting, |waiting| waiting.store_failed())?;
                    let stored = waiting.stored(receipt);
                    return stored.map(Some).map_err(|failed| failed.state.store_failed());
                }
                DocumentOutcome::Forget(step) => {
                    tracing::warn!("a client's metadata document has been gone for days; the client ends");
                    let (action, waiting) = step.into_parts();
                    let receipt = self.store.delete_client(action).await;
                    let (receipt, waiting) = self.held(receipt, waiting, |waiting| waiting.store_failed())?;
                    let forgotten = waiting.forgotten(receipt);
                    return forgotten.map(Some).map_err(|failed| failed.state.store_failed());
                }
            };
        }
    }
}
