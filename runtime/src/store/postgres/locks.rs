//! What a transaction holds until it ends, in a database where writers do not queue by themselves.
//!
//! A name is a digest of what it stands for. Two that collide make transactions wait for one another for no reason, and
//! nothing worse.

use std::collections::BTreeMap;

use mcp_authz::authorization_server::record::{FamilyId, GrantRecord};
use mcp_authz::secret::SecretDigest;

use super::{Connection, StoreError};

/// The lock of one transaction: one thing that nobody else may touch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Locks(Option<i64>);

impl Locks {
    /// None: the statements themselves are conditional.
    pub(super) const NONE: Self = Self(None);

    /// The signing keys and the incarnation.
    pub(super) const KEYS: Self = Self(Some(1));

    /// A revocation of a family.
    pub(super) fn of_family(id: FamilyId) -> Self {
        Self(Some(family(id)))
    }

    /// A move of an epoch: a barrier for every write that rests on it.
    pub(super) fn moving(kind: u8, subject: &str, client: &str) -> Self {
        Self(Some(name(kind, subject, client)))
    }

    /// The statement that waits for it; nothing where there is none.
    pub(super) fn statement(self) -> String {
        self.0.map_or_else(String::new, |name| format!("SELECT pg_advisory_xact_lock({name}); "))
    }
}

/// For writes into families, that nothing else happens to the families, and that no epoch moves that their grants rest on: the
/// names of the locks, and which are exclusive. In one order for all, so that no two transactions wait for each other.
pub(super) fn of_grants<'a>(grants: impl Iterator<Item = &'a GrantRecord>) -> (Vec<i64>, Vec<bool>) {
    let mut locks = BTreeMap::new();
    for grant in grants {
        let (client, subject) = (grant.client_id.as_str(), &*grant.subject);
        for shared in [name(1, "", client), name(2, subject, ""), name(3, subject, client)] {
            locks.entry(shared).or_insert(false);
        }
        locks.insert(family(grant.family), true);
    }
    locks.into_iter().unzip()
}

/// Waits for others that look for room, until they have ended: two that found the same oldest row would both go away
/// with less than they counted on.
pub(super) async fn take_turns(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query("SELECT pg_advisory_xact_lock(2)").execute(connection).await?;
    Ok(())
}

fn name(kind: u8, subject: &str, client: &str) -> i64 {
    let length = u64::try_from(subject.len()).unwrap_or(u64::MAX);
    let parts: [&[u8]; 4] = [&[kind], &length.to_be_bytes(), subject.as_bytes(), client.as_bytes()];
    number(&parts.concat())
}

/// The name of a family.
pub(super) fn family(id: FamilyId) -> i64 {
    number(&[&[9], id.as_bytes().as_slice()].concat())
}

fn number(bytes: &[u8]) -> i64 {
    first(SecretDigest::of(bytes))
}

/// The beginning of a digest.
pub(super) fn first(digest: SecretDigest) -> i64 {
    digest.as_bytes().first_chunk().map_or(0, |first| i64::from_be_bytes(*first))
}
