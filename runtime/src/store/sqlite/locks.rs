//! Names for what a transaction would have to hold, were there more than one writer: the file has one write lock, and it
//! holds everything.

use mcp_authz::authorization_server::record::{FamilyId, GrantRecord};

/// See `store/postgres/locks.rs`, which has some.
#[derive(Debug, Clone, Copy)]
pub(super) struct Locks;

impl Locks {
    pub(super) const NONE: Self = Self;
    pub(super) const KEYS: Self = Self;

    pub(super) fn of_grant(_: &GrantRecord) -> Self {
        Self
    }

    pub(super) fn of_family(_: FamilyId) -> Self {
        Self
    }

    pub(super) fn moving(_: u8, _: &str, _: &str) -> Self {
        Self
    }
}
