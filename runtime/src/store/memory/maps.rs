//! Maps under random keys, and rows that wait under their owner.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use mcp_authz::authorization_server::record::{DecisionRecord, FamilyId, PushedRecord};
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::OffsetDateTime;

use super::tables::Room;

/// The bytes of a digest. Looking one up may leak its bytes by time, and they are no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key([u8; 32]);

impl From<SecretDigest> for Key {
    fn from(digest: SecretDigest) -> Self {
        Self(*digest.as_bytes())
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Equal keys have equal last bytes.
        state.write(self.0.last_chunk::<8>().unwrap_or(&[0; 8]));
    }
}

/// Takes the last bytes of a key for its hash: the name of a family begins with a time.
///
/// Only where this server draws what the key is made of: the keys are spread evenly then, and nobody chooses two that
/// meet. Whatever somebody else has a hand in stays under the hasher of the standard library.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastBytes(u64);

impl Hasher for LastBytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.last_chunk().map_or(0, |last| u64::from_ne_bytes(*last));
    }

    /// The length in front of a key's bytes says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Rows under the digest of something that this server drew.
pub(super) type ByDigest<R> = HashMap<Key, R, BuildHasherDefault<LastBytes>>;

/// Rows under the name of a family, which this server drew.
pub(super) type ByFamily<R> = HashMap<FamilyId, R, BuildHasherDefault<LastBytes>>;

/// What waits for somebody, and ends unless they come.
pub(super) trait Waits {
    /// Whose it is.
    type Owner: Clone + Eq + Hash;
    /// Whose it is.
    fn owner(&self) -> &Self::Owner;
    /// When it ends.
    fn end(&self) -> OffsetDateTime;
}

impl Waits for Arc<DecisionRecord> {
    type Owner = Arc<str>;

    fn owner(&self) -> &Arc<str> {
        &self.subject
    }

    fn end(&self) -> OffsetDateTime {
        self.not_after
    }
}

impl Waits for PushedRecord {
    type Owner = ClientId;

    fn owner(&self) -> &ClientId {
        &self.client_id
    }

    fn end(&self) -> OffsetDateTime {
        self.not_after
    }
}

/// Rows that wait, each owner's by their end.
pub(super) struct Waiting<R: Waits> {
    rows: ByDigest<R>,
    /// Each owner's by their end, the first at the front. No owner is without a row.
    of_owner: HashMap<R::Owner, VecDeque<(OffsetDateTime, Key)>>,
}

impl<R: Waits> Default for Waiting<R> {
    fn default() -> Self {
        Self { rows: HashMap::default(), of_owner: HashMap::new() }
    }
}

impl<R: Waits> Waiting<R> {
    pub(super) fn get(&self, key: Key) -> Option<&R> {
        self.rows.get(&key)
    }

    pub(super) fn contains_key(&self, key: Key) -> bool {
        self.rows.contains_key(&key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &R> {
        self.rows.values()
    }

    /// Puts a row in the place of another of that key.
    pub(super) fn insert(&mut self, key: Key, row: R) {
        self.remove(key);
        let end = row.end();
        match self.of_owner.get_mut(row.owner()) {
            // What comes later mostly ends later.
            Some(own) if own.back().is_none_or(|(last, _)| *last <= end) => own.push_back((end, key)),
            Some(own) => own.insert(own.partition_point(|(other, _)| *other <= end), (end, key)),
            None => {
                self.of_owner.insert(row.owner().clone(), VecDeque::from([(end, key)]));
            }
        }
        self.rows.insert(key, row);
    }

    pub(super) fn remove(&mut self, key: Key) {
        let Some(row) = self.rows.remove(&key) else { return };
        if let Some(own) = self.of_owner.get_mut(row.owner()) {
            let end = row.end();
            let first = own.partition_point(|(other, _)| *other < end);
            let place = own.range(first..).position(|(_, other)| *other == key);
            if let Some(place) = place.and_then(|place| place.checked_add(first)) {
                own.remove(place);
            }
            if own.is_empty() {
                self.of_owner.remove(row.owner());
            }
        }
    }

    /// Forgets what has ended by then.
    pub(super) fn forget_ended(&mut self, now: OffsetDateTime) {
        self.rows.retain(|_, row| row.end() > now);
        self.of_owner.retain(|_, own| {
            own.retain(|(end, _)| *end > now);
            !own.is_empty()
        });
    }

    /// Room for one more of that owner, where so many may wait in all and so many of one owner.
    pub(super) fn room(
        &mut self,
        owner: &R::Owner,
        most: usize,
        most_of_owner: usize,
        now: OffsetDateTime,
    ) -> Room<Key> {
        if self.rows.len() >= most {
            self.forget_ended(now);
        }
        let own = self.of_owner.get(owner);
        if self.rows.len() < most && own.map_or(0, VecDeque::len) < most_of_owner {
            return Room::Free;
        }
        // I-P7: the owner's oldest gives way, and nobody else's.
        let oldest = own.and_then(VecDeque::front);
        oldest.map_or(Room::None, |(_, key)| Room::InsteadOf(*key))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::{BuildHasher as _, BuildHasherDefault};
    use std::sync::Arc;

    use mcp_authz::authorization_server::record::FamilyId;
    use mcp_authz::secret::SecretDigest;
    use mcp_authz::time::{Duration, OffsetDateTime};
    use proptest::prelude::*;

    use super::{Key, LastBytes, Waiting, Waits};
    use crate::store::memory::tables::Room;

    #[derive(Clone)]
    struct Row {
        owner: Arc<str>,
        end: OffsetDateTime,
    }

    impl Waits for Row {
        type Owner = Arc<str>;

        fn owner(&self) -> &Arc<str> {
            &self.owner
        }

        fn end(&self) -> OffsetDateTime {
            self.end
        }
    }

    fn key(number: u8) -> Key {
        Key::from(SecretDigest::of(&[number]))
    }

    fn at(second: u8) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::seconds(second.into())
    }

    /// They begin alike, and would all be in one place of the map.
    #[test]
    fn families_of_one_moment_are_spread() {
        let hasher = BuildHasherDefault::<LastBytes>::default();
        let family = |drawn: u8| {
            let (time, random) = ([7; 6], *SecretDigest::of(&[drawn]).as_bytes());
            let mut bytes = [0; 16];
            bytes.iter_mut().zip(time.iter().chain(&random)).for_each(|(to, from)| *to = *from);
            FamilyId::from_bytes(bytes)
        };
        let hashes: HashSet<u64> = (0..=255).map(|drawn| hasher.hash_one(family(drawn))).collect();
        assert_eq!(hashes.len(), 256);
        // A map takes the place from the low bits and a mark from the high ones.
        let places: HashSet<u64> = hashes.iter().map(|hash| hash & 0xff).collect();
        let marks: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        assert!(places.len() > 128 && marks.len() > 64, "{} {}", places.len(), marks.len());
    }

    proptest! {
        // I-P7: the index by owner says what a walk over all rows would.
        #[test]
        fn who_gives_way_is_what_a_walk_over_all_rows_finds(
            steps in prop::collection::vec((0_u8..4, 0_u8..12, 0_u8..3, 0_u8..9), 1..60),
            most in 1_usize..8,
            most_of_owner in 1_usize..5,
        ) {
            let mut waiting = Waiting::default();
            let mut walked: Vec<(Key, Row)> = Vec::new();
            for (step, number, owner, second) in steps {
                let owner: Arc<str> = format!("p{owner}").into();
                match step {
                    0 | 1 => {
                        let row = Row { owner, end: at(second) };
                        walked.retain(|(known, _)| *known != key(number));
                        walked.push((key(number), row.clone()));
                        waiting.insert(key(number), row);
                    }
                    2 => {
                        walked.retain(|(known, _)| *known != key(number));
                        waiting.remove(key(number));
                    }
                    _ => {
                        if walked.len() >= most {
                            walked.retain(|(_, row)| row.end > at(second));
                        }
                        let own: Vec<_> = walked.iter().filter(|(_, row)| row.owner == owner).collect();
                        let oldest = own.iter().map(|(_, row)| row.end).min();
                        match waiting.room(&owner, most, most_of_owner, at(second)) {
                            Room::Free => prop_assert!(walked.len() < most && own.len() < most_of_owner),
                            Room::InsteadOf(key) => {
                                prop_assert!(walked.len() >= most || own.len() >= most_of_owner);
                                let ends = own.iter().find(|(known, _)| *known == key).map(|(_, row)| row.end);
                                prop_assert!(ends.is_some() && ends == oldest);
                            }
                            Room::None => prop_assert!(walked.len() >= most && own.is_empty()),
                        }
                    }
                }
                prop_assert_eq!(waiting.values().count(), walked.len());
                for (known, row) in &walked {
                    let same = waiting.get(*known).unwrap();
                    prop_assert_eq!((same.end, &same.owner), (row.end, &row.owner));
                }
            }
        }
    }
}
