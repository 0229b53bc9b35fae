//! The key sets of clients that sign and publish their keys at a URL: fetched once for all who wait, kept for a while, in a
//! bounded number of places. Whoever says a client's name causes no more than one fetch in half a minute.

use std::time::Duration;

use mcp_authz::authorization_server::caller::{AwaitingCallerKeys, CallerOutcome};
use mcp_authz::message::exchange::{Fetch, FetchFailure, Reply};
use mcp_authz::step::Step;
use mcp_authz::time::OffsetDateTime;

use super::documents::{REFUSED_FOR, later};
use super::slots::Slots;
use super::{AuthorizationEvent, AuthorizationServerHost};
use crate::client::fetch::document_of;

/// Longest that a key set is used. A client that withdraws a key waits so long at most.
const MOST: Duration = Duration::from_secs(300);

/// A key set that was fetched, or the failure to.
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    reply: Result<Reply, FetchFailure>,
    /// Until when nothing is fetched, whatever key an assertion names.
    rests: OffsetDateTime,
    until: OffsetDateTime,
}

/// The key sets of one server's clients.
pub(super) type KeySets = Slots<Fetched>;

impl AuthorizationServerHost {
    /// The keys for a client's assertion, and what follows on them.
    pub(super) async fn with_key_set(&self, step: Step<Fetch, AwaitingCallerKeys>) -> CallerOutcome {
        let (fetch, waiting) = step.into_parts();
        let fetched = self.key_set_at(&fetch, &waiting).await;
        let outcome = self.core.measure(|| waiting.receive(fetched, self.importer.as_ref()));
        if matches!(outcome, CallerOutcome::Reserve(_)) {
            // Its client has proved who it is: strangers do not push it out (I-P7).
            let _ = self.key_sets.of(fetch.url(), true);
        }
        outcome
    }

    async fn key_set_at(&self, fetch: &Fetch, waiting: &AwaitingCallerKeys) -> Result<Reply, FetchFailure> {
        // I-P7: nobody has authenticated yet.
        let (is_known, slot) = match self.key_sets.known(fetch.url()) {
            Some(slot) => (true, slot),
            None => (false, self.key_sets.of(fetch.url(), false).ok_or(FetchFailure::NotSent)?),
        };
        let mut slot = slot.lock().await;
        let now = self.clock.now();
        if let Some(kept) = slot.as_ref().filter(|kept| now < kept.until) {
            // A client that takes a new key is not refused until the old set has ended.
            let may_be_old = kept.reply.as_ref().is_ok_and(|reply| !waiting.is_named_in(reply));
            if now < kept.rests || !may_be_old {
                return kept.reply.clone();
            }
        }
        self.observe(AuthorizationEvent::FetchDocument(fetch));
        let fetching = self.fetcher.fetch_whole(fetch);
        let fetching = self.key_sets.in_flight(fetch.url(), is_known, fetching);
        // It gave way to another.
        let incoming = fetching.await.ok_or(FetchFailure::NotSent)?;
        let at = self.clock.now();
        let rests = later(at, REFUSED_FOR);
        let until = match &incoming {
            Ok(answer) if answer.status == 200 => {
                later(at, self.documents.caching.fresh_for(&answer.headers, at).min(MOST))
            }
            _ => rests,
        };
        let reply = incoming.map(document_of);
        *slot = Some(Fetched { reply: reply.clone(), rests, until });
        reply
    }
}
