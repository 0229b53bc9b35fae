//! Records of clients that were read lately, as they were parsed.
//!
//! A client is looked up by each request of each of its flows, and its record is a document in JSON with identifiers in it. The
//! database is still asked each time: what is saved is to parse the same bytes again. Equal bytes give an equal record, so a
//! record from here is never an older one.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, PoisonError};

use mcp_authz::authorization_server::record::{ClientRecord, InvalidRecord};

/// How many records are kept: each has one place, which it shares with whichever other comes to it by its hash.
const KEPT: usize = 256;

/// Bytes above which a record is not kept: keys that a client registers parse to many times their text.
const LARGEST: usize = 4 * 1024;

/// A record with the bytes that it was parsed from.
struct Place {
    bytes: Vec<u8>,
    record: Arc<ClientRecord>,
}

/// Parsed records. Clones share them.
#[derive(Clone)]
pub(super) struct ParsedClients(Arc<Shared>);

struct Shared {
    places: Vec<Mutex<Option<Place>>>,
    /// Nobody outside knows who shares a place with whom.
    hasher: RandomState,
}

impl Default for ParsedClients {
    fn default() -> Self {
        Self::with(KEPT)
    }
}

impl fmt::Debug for ParsedClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParsedClients").finish_non_exhaustive()
    }
}

impl ParsedClients {
    fn with(places: usize) -> Self {
        let places = std::iter::repeat_with(Mutex::default).take(places).collect();
        Self(Arc::new(Shared { places, hasher: RandomState::new() }))
    }

    /// The record of these bytes.
    pub(super) fn read(&self, bytes: Vec<u8>) -> Result<Arc<ClientRecord>, InvalidRecord> {
        let places = &self.0.places;
        // The low bits are as good as all of them, whatever the width of `usize`.
        let hash = self.0.hasher.hash_one(&bytes) & 0xffff_ffff;
        let at = usize::try_from(hash).ok().and_then(|hash| hash.checked_rem(places.len()));
        let Some(place) = at.and_then(|at| places.get(at)) else {
            return Ok(Arc::new(ClientRecord::from_bytes(&bytes)?));
        };
        if let Some(found) = &*place.lock().unwrap_or_else(PoisonError::into_inner)
            && found.bytes == bytes
        {
            return Ok(Arc::clone(&found.record));
        }
        let record = Arc::new(ClientRecord::from_bytes(&bytes)?);
        if bytes.len() <= LARGEST {
            let kept = Place { bytes, record: Arc::clone(&record) };
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use mcp_authz::authorization_server::test_kit::sample_client;
    use mcp_authz::time::OffsetDateTime;
    use proptest::prelude::*;

    use super::*;

    /// Stored forms of two clients, each known since one of two instants, and what is none.
    fn stored(id: u8, since: i64) -> Vec<u8> {
        match id {
            0 | 1 => {
                let since = OffsetDateTime::from_unix_timestamp(since).unwrap();
                sample_client(&format!("client-{id}"), since).unwrap().to_bytes()
            }
            2 => b"{}".to_vec(),
            _ => {
                let mut long = stored(0, since);
                long.extend(std::iter::repeat_n(b' ', LARGEST));
                long
            }
        }
    }

    proptest! {
        #[test]
        fn a_record_is_what_its_own_bytes_say(reads in prop::collection::vec((0_u8..4, 0_i64..2), 1..40)) {
            let everywhere = ParsedClients::default();
            // All share one place.
            let crowded = ParsedClients::with(1);
            for (id, since) in reads {
                let bytes = stored(id, since);
                let expected = ClientRecord::from_bytes(&bytes).ok();
                for parsed in [&everywhere, &crowded] {
                    let read = parsed.read(bytes.clone()).ok();
                    prop_assert_eq!(read.as_deref(), expected.as_ref());
                }
            }
        }
    }

    #[test]
    fn equal_bytes_are_parsed_once() {
        let parsed = ParsedClients::default();
        let [one, same, other] =
            [(0, 0), (0, 0), (0, 1)].map(|(id, since)| parsed.read(stored(id, since)).unwrap());
        assert!(Arc::ptr_eq(&one, &same));
        assert!(!Arc::ptr_eq(&one, &other));
    }

    #[test]
    fn what_is_large_is_not_kept() {
        let parsed = ParsedClients::default();
        let [one, same] = [0; 2].map(|since| parsed.read(stored(3, since)).unwrap());
        assert!(!Arc::ptr_eq(&one, &same));
    }
}
