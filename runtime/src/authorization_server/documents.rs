//! The metadata documents of clients that are URLs: fetched under the core's policy, one fetch in flight for each, kept for
//! as long as their header fields say within bounds, and compared with the store's copy before anything reads them.
//!
//! Strangers name URLs. What they name is kept apart from the clients that people were asked about, so that no flood of
//! names pushes those out; both places have a bound, and so has the number of fetches in flight.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use mcp_authz::authorization_server::document::{DocumentOutcome, DocumentVerdict, KnownDocument};
use mcp_authz::identifier::ClientId;
use mcp_authz::message::exchange::{Fetch, FetchFailure, Reply, Respond};
use mcp_authz::time::OffsetDateTime;
use tokio::sync::{Mutex, Semaphore};

use super::freshness::DocumentCaching;
use super::{AuthorizationEvent, AuthorizationServerHost};
use crate::client::fetch::reply_of;
use crate::entropy::OsEntropy;

/// How long a fetch that brought no document is not repeated.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// How long a client that asks for tokens waits for its own document. Longer, and it would give its request up.
const AT_THE_TOKEN_ENDPOINT: Duration = Duration::from_secs(5);

/// Documents of clients that people were asked about.
const KNOWN: usize = 2048;

/// Documents, and failures to get them, of other URLs.
const NAMED: usize = 512;

/// Fetches in flight, for each of the two.
const IN_FLIGHT: usize = 32;

/// What was looked up for a URL.
#[derive(Debug, Clone)]
pub(super) struct Looked {
    /// What the fetch brought.
    pub(super) fetched: Result<Reply, FetchFailure>,
    /// When.
    pub(super) at: OffsetDateTime,
    /// Whether the client may go on at the endpoints for clients; `None` when nothing is known of it.
    verdict: Option<DocumentVerdict>,
    until: OffsetDateTime,
}

#[derive(Debug)]
struct Slot {
    is_known: bool,
    used: u64,
    looked: Arc<Mutex<Option<Looked>>>,
}

#[derive(Debug, Default)]
struct Slots {
    of: HashMap<String, Slot>,
    uses: u64,
}

impl Slots {
    /// The place for a URL; `None` while every place of its kind is in use.
    fn of(&mut self, url: &str, is_known: bool) -> Option<Arc<Mutex<Option<Looked>>>> {
        self.uses = self.uses.saturating_add(1);
        let used = self.uses;
        if let Some(slot) = self.of.get_mut(url) {
            slot.used = used;
            if slot.is_known || !is_known {
                return Some(Arc::clone(&slot.looked));
            }
        }
        let kept = self.of.get(url).map(|slot| Arc::clone(&slot.looked));
        // I-P7: each kind makes room among its own.
        let room = if is_known { KNOWN } else { NAMED };
        if self.of.values().filter(|slot| slot.is_known == is_known).count() >= room {
            let idle = self
                .of
                .iter()
                .filter(|(_, slot)| slot.is_known == is_known && Arc::strong_count(&slot.looked) == 1);
            let oldest = idle.min_by_key(|(_, slot)| slot.used).map(|(url, _)| url.clone())?;
            self.of.remove(&oldest);
        }
        let looked = kept.unwrap_or_default();
        self.of.insert(url.to_owned(), Slot { is_known, used, looked: Arc::clone(&looked) });
        Some(looked)
    }
}

/// The documents of one server.
#[derive(Debug)]
pub(super) struct Documents {
    caching: DocumentCaching,
    slots: StdMutex<Slots>,
    known: Semaphore,
    named: Semaphore,
}

impl Documents {
    pub(super) fn new(caching: DocumentCaching) -> Self {
        let (known, named) = (Semaphore::new(IN_FLIGHT), Semaphore::new(IN_FLIGHT));
        Self { caching, slots: StdMutex::default(), known, named }
    }

    fn slot(&self, url: &str, is_known: bool) -> Option<Arc<Mutex<Option<Looked>>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).of(url, is_known)
    }
}

fn later(at: OffsetDateTime, by: Duration) -> OffsetDateTime {
    let by = mcp_authz::time::Duration::seconds(i64::try_from(by.as_secs()).unwrap_or(i64::MAX));
    at.checked_add(by).unwrap_or(at)
}

impl AuthorizationServerHost {
    /// The document that a request at the authorization endpoint names.
    pub(super) async fn document(&self, fetch: &Fetch) -> Result<Looked, Respond> {
        let Ok(client_id) = ClientId::new(fetch.url()) else { return Ok(self.not_sent()) };
        let is_known = self.known_document(&client_id).await?.is_some();
        self.looked(&client_id, fetch, is_known).await
    }

    /// Looks after the document of a client that calls, before its request is looked at: its own, if the store has one, and
    /// nothing else.
    pub(super) async fn tend(&self, client_id: &ClientId) -> Result<(), Respond> {
        let Some(known) = self.known_document(client_id).await? else { return Ok(()) };
        let fetch = known.fetch().map_err(|failure| self.refused(&failure))?;
        // The fetch goes on when the client has waited long enough: the next request finds what it brought.
        let (host, id) = (self.clone(), client_id.clone());
        let looking = tokio::spawn(async move { host.looked(&id, &fetch, true).await });
        let verdict = match tokio::time::timeout(AT_THE_TOKEN_ENDPOINT, looking).await {
            Ok(Ok(looked)) => looked?.verdict,
            Ok(Err(_)) | Err(_) => None,
        };
        // Too slow, or too many at once: as a fetch that failed.
        let verdict = verdict.unwrap_or_else(|| {
            let failed = known.receive(Err(FetchFailure::TimedOut), self.clock.now(), &mut OsEntropy);
            if let DocumentOutcome::Settled(verdict) = failed { verdict } else { DocumentVerdict::Serves }
        });
        match verdict {
            DocumentVerdict::Serves => Ok(()),
            DocumentVerdict::Refused(failure) => Err(self.refused(&failure)),
        }
    }

    fn not_sent(&self) -> Looked {
        let at = self.clock.now();
        Looked { fetched: Err(FetchFailure::NotSent), at, verdict: None, until: at }
    }

    /// What is kept for the URL while it is fresh; else what a fetch brings, once for all who wait.
    async fn looked(&self, client_id: &ClientId, fetch: &Fetch, is_known: bool) -> Result<Looked, Respond> {
        let documents = &self.documents;
        let Some(slot) = documents.slot(fetch.url(), is_known) else { return Ok(self.not_sent()) };
        let mut slot = slot.lock().await;
        if let Some(looked) = slot.as_ref().filter(|looked| self.clock.now() < looked.until) {
            return Ok(looked.clone());
        }
        let permits = if is_known { &documents.known } else { &documents.named };
        let Ok(_permit) = permits.try_acquire() else { return Ok(self.not_sent()) };
        self.observe(AuthorizationEvent::FetchDocument(fetch));
        let incoming = self.fetcher.fetch_whole(fetch).await;
        let at = self.clock.now();
        let headers = incoming.as_ref().map(|incoming| incoming.headers.clone()).unwrap_or_default();
        let fetched = incoming.map(|incoming| reply_of(incoming.status, &incoming.headers, incoming.body));
        // CIMD-4.4-3: its header fields count for a document only.
        let is_document = self.core.measure(|| self.server.is_document_of(client_id, &fetched));
        let fresh = if is_document { documents.caching.fresh_for(&headers, at) } else { REFUSED_FOR };
        let until = later(at, fresh);
        // Nobody reads what is not yet compared with what grants were made under.
        let verdict = self.reconciled(client_id, &fetched, at).await?;
        let verdict = verdict.or(is_document.then_some(DocumentVerdict::Serves));
        let looked = Looked { fetched, at, verdict, until };
        *slot = Some(looked.clone());
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
        let mut outcome = self.core.measure(|| known.receive(fetched.clone(), at, &mut OsEntropy));
        loop {
            outcome = match outcome {
                DocumentOutcome::Settled(verdict) => return Ok(Some(verdict)),
                DocumentOutcome::EndGrants(why, step) => {
                    tracing::warn!(?why, "a client's metadata document changed; what it was granted ends");
                    let (action, waiting) = step.into_parts();
                    let receipt = self.store.revoke_all(action).await;
                    let (receipt, waiting) = self.held(receipt, waiting, |waiting| waiting.store_failed())?;
                    let ended = waiting.ended(receipt, &mut OsEntropy);
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

#[cfg(test)]
mod tests {
    use super::{KNOWN, NAMED, Slots};

    // I-P7
    #[test]
    fn strangers_names_are_bounded_and_push_out_no_known_client() {
        let mut slots = Slots::default();
        let client = slots.of("https://client.example/c", true).unwrap();
        for stranger in 0..3 * NAMED {
            assert!(slots.of(&format!("https://stranger.example/{stranger}"), false).is_some());
        }
        assert_eq!(slots.of.len(), NAMED + 1);
        assert!(std::sync::Arc::ptr_eq(&client, &slots.of("https://client.example/c", false).unwrap()));
        for known in 0..KNOWN + 10 {
            assert!(slots.of(&format!("https://known.example/{known}"), true).is_some());
        }
        assert_eq!(slots.of.values().filter(|slot| slot.is_known).count(), KNOWN);
        assert!(slots.of.contains_key("https://client.example/c"), "one that is in use stays");
    }

    #[test]
    fn while_every_place_is_in_use_nothing_is_begun() {
        let mut slots = Slots::default();
        let held: Vec<_> = (0..NAMED).map(|n| slots.of(&format!("https://s.example/{n}"), false)).collect();
        assert!(slots.of("https://s.example/one-more", false).is_none());
        assert!(slots.of("https://s.example/known", true).is_some());
        drop(held);
        assert!(slots.of("https://s.example/one-more", false).is_some());
    }

    #[test]
    fn a_name_that_becomes_known_keeps_what_was_fetched() {
        let mut slots = Slots::default();
        let named = slots.of("https://client.example/c", false).unwrap();
        let known = slots.of("https://client.example/c", true).unwrap();
        assert!(std::sync::Arc::ptr_eq(&named, &known) && slots.of.len() == 1);
    }
}
