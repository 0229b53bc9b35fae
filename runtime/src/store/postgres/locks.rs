//! What a transaction holds until it ends, in a database where writers do not queue by themselves.
//!
//! A name is a digest of what it stands for. Two that collide make transactions wait for one another for no reason, and
//! nothing worse.

use mcp_authz::authorization_server::record::{FamilyId, GrantRecord};
use mcp_authz::secret::SecretDigest;

use super::{Connection, StoreError};

/// The locks of one transaction: epochs that must not move, and one thing that nobody else may touch.
#[derive(Debug, Clone)]
pub(super) struct Locks {
    shared: [Option<i64>; 3],
    exclusive: Option<i64>,
}

impl Locks {
    /// None: the statements themselves are conditional.
    pub(super) const NONE: Self = Self { shared: [None; 3], exclusive: None };

    /// The signing keys and the incarnation.
    pub(super) const KEYS: Self = Self { shared: [None; 3], exclusive: Some(1) };

    /// A write into a family: nothing else happens to the family, and no epoch that its grant rests on moves.
    pub(super) fn of_grant(grant: &GrantRecord) -> Self {
        let (client, subject) = (grant.client_id.as_str(), &*grant.subject);
        let mut shared = [name(1, "", client), name(2, subject, ""), name(3, subject, client)];
        // One order for all, so that no two transactions wait for each other.
        shared.sort_unstable();
        Self { shared: shared.map(Some), exclusive: Some(family(grant.family)) }
    }

    /// A revocation of a family.
    pub(super) fn of_family(id: FamilyId) -> Self {
        Self { exclusive: Some(family(id)), ..Self::NONE }
    }

    /// A move of an epoch: a barrier for every write that rests on it.
    pub(super) fn moving(kind: u8, subject: &str, client: &str) -> Self {
        Self { exclusive: Some(name(kind, subject, client)), ..Self::NONE }
    }

    /// The statement that waits for them, in the order in which everybody takes them; nothing where there are none.
    pub(super) fn statement(&self) -> String {
        let shared = self.shared.iter().flatten().map(|name| format!("pg_advisory_xact_lock_shared({name})"));
        let exclusive = self.exclusive.map(|name| format!("pg_advisory_xact_lock({name})"));
        let all: Vec<String> = shared.chain(exclusive).collect();
        if all.is_empty() { String::new() } else { format!("SELECT {}; ", all.join(", ")) }
    }
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

fn family(id: FamilyId) -> i64 {
    number(&[&[9], id.as_bytes().as_slice()].concat())
}

fn number(bytes: &[u8]) -> i64 {
    let digest = SecretDigest::of(bytes);
    digest.as_bytes().first_chunk().map_or(0, |first| i64::from_be_bytes(*first))
}
