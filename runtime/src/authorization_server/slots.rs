//! What was fetched from URLs that strangers name: a bounded place for each, one fetch in flight for it.
//!
//! What strangers name is kept apart from what this server knows, so that no flood of names pushes that out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use mcp_authz::message::exchange::{Fetch, FetchFailure};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::client::fetch::{Fetcher, Incoming};

/// URLs that this server knows.
const KNOWN: usize = 2048;

/// URLs that were merely named.
const NAMED: usize = 512;

/// Fetches in flight, for each of the two.
const IN_FLIGHT: usize = 64;

/// How long a fetch waits for its turn, and how long one for a stranger takes at most (I-P7). Hosts that say nothing hold every turn
/// no longer than that: whoever waits so long has had one.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is kept for one URL, and who fetches it holds the lock.
type Place<T> = Arc<Mutex<Option<T>>>;

#[derive(Debug)]
struct Slot<T> {
    is_known: bool,
    used: u64,
    looked: Place<T>,
}

#[derive(Debug)]
struct Table<T> {
    of: HashMap<String, Slot<T>>,
    uses: u64,
}

impl<T> Table<T> {
    /// The place for a URL; `None` while every place of its kind is in use.
    fn of(&mut self, url: &str, is_known: bool) -> Option<Place<T>> {
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

/// The places for what URLs of one kind brought.
#[derive(Debug)]
pub(super) struct Slots<T> {
    table: StdMutex<Table<T>>,
    known: Semaphore,
    named: Semaphore,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        let table = StdMutex::new(Table { of: HashMap::new(), uses: 0 });
        Self { table, known: Semaphore::new(IN_FLIGHT), named: Semaphore::new(IN_FLIGHT) }
    }
}

impl<T> Slots<T> {
    /// The place for a URL; `None` while every place of its kind is in use. Whoever locks it reads what is there, or
    /// fetches.
    pub(super) fn of(&self, url: &str, is_known: bool) -> Option<Place<T>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).of(url, is_known)
    }

    /// The place for a URL that is known.
    pub(super) fn known(&self, url: &str) -> Option<Place<T>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = table.of.get(url).is_some_and(|slot| slot.is_known);
        is_known.then(|| table.of(url, true)).flatten()
    }

    /// Leave to fetch, in turn; `None` where as many fetches of that kind are in flight as may, and none ends soon.
    pub(super) async fn permit(&self, is_known: bool) -> Option<SemaphorePermit<'_>> {
        let turn = if is_known { &self.known } else { &self.named }.acquire();
        timeout(PATIENCE, turn).await.ok()?.ok()
    }
}

/// Fetches what a URL holds: for what was merely named, not for long.
///
/// # Errors
/// [`FetchFailure`]
pub(super) async fn fetched(
    fetcher: &Fetcher,
    fetch: &Fetch,
    is_known: bool,
) -> Result<Incoming, FetchFailure> {
    let fetched = fetcher.fetch_whole(fetch);
    if is_known {
        return fetched.await;
    }
    // I-P7
    timeout(PATIENCE, fetched).await.unwrap_or(Err(FetchFailure::TimedOut))
}

#[cfg(test)]
mod tests {
    use super::{IN_FLIGHT, KNOWN, NAMED, Slots, Table};

    fn table() -> Table<()> {
        Table { of: std::collections::HashMap::new(), uses: 0 }
    }

    // I-P7
    #[test]
    fn strangers_names_are_bounded_and_push_out_no_known_client() {
        let mut slots = table();
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

    // I-P7: nobody is refused because of others who are done soon, and no flood of names takes a client's turn.
    #[tokio::test(start_paused = true)]
    async fn fetches_take_turns() {
        let slots = Slots::<()>::default();
        let mut turns = Vec::new();
        for _ in 0..IN_FLIGHT {
            turns.push(slots.permit(false).await.unwrap());
        }
        assert!(slots.permit(true).await.is_some());
        let (next, ()) = tokio::join!(slots.permit(false), async {
            tokio::time::sleep(std::time::Duration::from_secs(4)).await;
            turns.pop();
        });
        turns.push(next.unwrap());
        assert!(slots.permit(false).await.is_none());
    }

    #[test]
    fn while_every_place_is_in_use_nothing_is_begun() {
        let mut slots = table();
        let held: Vec<_> = (0..NAMED).map(|n| slots.of(&format!("https://s.example/{n}"), false)).collect();
        assert!(slots.of("https://s.example/one-more", false).is_none());
        assert!(slots.of("https://s.example/known", true).is_some());
        drop(held);
        assert!(slots.of("https://s.example/one-more", false).is_some());
    }

    #[test]
    fn a_name_that_becomes_known_keeps_what_was_fetched() {
        let mut slots = table();
        let named = slots.of("https://client.example/c", false).unwrap();
        let known = slots.of("https://client.example/c", true).unwrap();
        assert!(std::sync::Arc::ptr_eq(&named, &known) && slots.of.len() == 1);
    }
}
