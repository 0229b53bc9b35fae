//! What was fetched from URLs that strangers name: a bounded place for each, one fetch in flight for it.
//!
//! What strangers name is kept apart from what this server knows, so that no flood of names pushes that out. A host that says
//! nothing keeps nobody out, either: while as many fetches are in flight as may be, the next one takes the place of one that
//! has had the most time.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use mcp_authz::message::exchange::FetchFailure;
use tokio::sync::{Mutex, oneshot};

/// URLs that this server knows.
const KNOWN: usize = 2048;

/// URLs that were merely named.
const NAMED: usize = 512;

/// Fetches in flight, for each of the two.
const IN_FLIGHT: usize = 32;

/// How long a fetch of what was merely named may take in all. A person waits for it.
const NAMED_FETCH: Duration = Duration::from_secs(5);

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

/// A fetch in flight. Dropping it ends the fetch.
#[derive(Debug)]
struct Flight {
    number: u64,
    host: String,
    _goes_on: oneshot::Sender<()>,
}

/// The fetches of one kind that are in flight, the oldest first.
#[derive(Debug, Default)]
struct Flights {
    begun: u64,
    of: Vec<Flight>,
}

impl Flights {
    /// Begins one, in the place of another if there is no room: its number, and what ends when it has to give way.
    fn begin(&mut self, host: String) -> (u64, oneshot::Receiver<()>) {
        if self.of.len() >= IN_FLIGHT {
            // I-P7: no cap that keeps everybody else out. The host that has the most in flight gives, and the oldest of its.
            let of_host = |host: &str| self.of.iter().filter(|flight| flight.host == host).count();
            let load =
                |flight: &Flight| of_host(&flight.host).saturating_add(usize::from(flight.host == host));
            let ends = self.of.iter().enumerate().min_by_key(|(_, flight)| Reverse(load(flight)));
            if let Some((at, _)) = ends {
                self.of.remove(at);
            }
        }
        self.begun = self.begun.saturating_add(1);
        let (goes_on, gives_way) = oneshot::channel();
        self.of.push(Flight { number: self.begun, host, _goes_on: goes_on });
        (self.begun, gives_way)
    }
}

/// A place among the fetches in flight, left when it is dropped.
struct InFlight<'a> {
    among: &'a StdMutex<Flights>,
    number: u64,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut flights = self.among.lock().unwrap_or_else(PoisonError::into_inner);
        flights.of.retain(|flight| flight.number != self.number);
    }
}

/// The places for what URLs of one kind brought.
#[derive(Debug)]
pub(super) struct Slots<T> {
    table: StdMutex<Table<T>>,
    known: StdMutex<Flights>,
    named: StdMutex<Flights>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        let table = StdMutex::new(Table { of: HashMap::new(), uses: 0 });
        Self { table, known: StdMutex::default(), named: StdMutex::default() }
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

    /// What the fetch of a URL brings, within the time for its kind; `None` when it had to give way to another.
    pub(super) async fn in_flight<R>(
        &self,
        url: &str,
        is_known: bool,
        fetch: impl Future<Output = Result<R, FetchFailure>>,
    ) -> Option<Result<R, FetchFailure>> {
        let among = if is_known { &self.known } else { &self.named };
        let (number, gives_way) = among.lock().unwrap_or_else(PoisonError::into_inner).begin(host_of(url));
        let _in_flight = InFlight { among, number };
        let fetch = async {
            if is_known {
                return fetch.await;
            }
            // I-P7, CIMD-6.6-1
            tokio::time::timeout(NAMED_FETCH, fetch).await.unwrap_or(Err(FetchFailure::TimedOut))
        };
        tokio::select! {
            biased;
            brought = fetch => Some(brought),
            _ = gives_way => None,
        }
    }
}

/// Whom a fetch asks. A host answers at as many ports as it likes, and stays one.
fn host_of(url: &str) -> String {
    let url = reqwest::Url::parse(url).ok();
    url.as_ref().and_then(reqwest::Url::host_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::time::Duration;

    use mcp_authz::message::exchange::FetchFailure;
    use tokio::time::Instant;

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

    type Fetching = tokio::task::JoinHandle<Option<Result<(), FetchFailure>>>;

    /// A fetch from a host that says nothing, under way.
    async fn silent(slots: &Arc<Slots<()>>, url: &str, is_known: bool) -> Fetching {
        let (slots, url) = (Arc::clone(slots), url.to_owned());
        let fetching = tokio::spawn(async move { slots.in_flight(&url, is_known, pending()).await });
        tokio::task::yield_now().await;
        fetching
    }

    async fn honest(slots: &Slots<()>, url: &str) -> Option<Result<(), FetchFailure>> {
        let answers = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(())
        };
        slots.in_flight(url, false, answers).await
    }

    // I-P7
    #[tokio::test(start_paused = true)]
    async fn hosts_that_say_nothing_keep_no_other_out() {
        let slots = Arc::new(Slots::default());
        let mut waiting = Vec::new();
        for n in 0..IN_FLIGHT {
            waiting.push(silent(&slots, &format!("https://{n}.evil.example/"), false).await);
        }
        assert_eq!(honest(&slots, "https://client.example/c").await, Some(Ok(())));
        assert!(waiting[0].is_finished(), "the oldest gives way");
        assert_eq!(waiting.remove(0).await.unwrap(), None);
        assert!(waiting.iter().all(|fetching| !fetching.is_finished()), "and one is enough");
        // Who was done has left its place.
        assert_eq!(honest(&slots, "https://client.example/c").await, Some(Ok(())));
        assert!(waiting.iter().all(|fetching| !fetching.is_finished()));
    }

    // I-P7
    #[tokio::test(start_paused = true)]
    async fn the_host_that_has_the_most_in_flight_gives_way() {
        let slots = Arc::new(Slots::default());
        let first = silent(&slots, "https://slow.example/c", false).await;
        let mut waiting = Vec::new();
        for n in 1..IN_FLIGHT {
            waiting.push(silent(&slots, &format!("https://evil.example:{n}/{n}"), false).await);
        }
        for n in 0..3 * IN_FLIGHT {
            waiting.push(silent(&slots, &format!("https://evil.example/again/{n}"), false).await);
        }
        assert!(!first.is_finished(), "it is the oldest of all");
        assert_eq!(waiting.iter().filter(|fetching| !fetching.is_finished()).count(), IN_FLIGHT - 1);
        assert_eq!(honest(&slots, "https://client.example/c").await, Some(Ok(())));
        assert!(!first.is_finished());
    }

    // I-P7, CIMD-6.6-1
    #[tokio::test(start_paused = true)]
    async fn a_strangers_host_has_five_seconds_in_all_and_takes_no_place_of_a_known_one() {
        let slots = Arc::new(Slots::default());
        let known = silent(&slots, "https://known.example/c", true).await;
        let began = Instant::now();
        let named = silent(&slots, "https://evil.example/", false).await;
        let named = tokio::time::timeout(Duration::from_secs(60), named).await.unwrap();
        assert_eq!(named.unwrap(), Some(Err(FetchFailure::TimedOut)));
        assert_eq!(began.elapsed().as_secs(), 5);
        for n in 0..2 * IN_FLIGHT {
            silent(&slots, &format!("https://{n}.evil.example/"), false).await;
        }
        assert!(!known.is_finished(), "its time is that of every fetch");
    }
}
