//! The operations of a store, over named bytes under one lock: what a directory has, and what memory has.
//!
//! Numbers come from one sequence for the whole store, which never runs backwards: a version or a fence of a session that
//! was removed is not given to the session that takes its place, so a process that slept in between finds out.

use std::fmt;
use std::sync::Arc;

use mcp_authz::client::{
    ClaimRefresh, CommitRefresh, DiscardSession, PairingRecord, PersistSession, RecordVersion, RefreshClaim,
    RefreshCommitted, RegistrationRecord, ReleaseClaim, SessionDiscarded, SessionPersisted, SessionRecord,
};
use mcp_authz::error::{Error, HostMisuse};
use mcp_authz::identifier::{Issuer, ResourceId};
use mcp_authz::sealer::Sealer;
use mcp_authz::secret::SecretDigest;
use mcp_authz::step::Failed;

use super::entry::{Claim, Entry};
use super::{Choosing, CredentialStore, Joining, KeptSession, SharedSealer, StoreFailed, Stored};
use crate::BoxFuture;
use crate::clock::Clock;

/// Where the sequence of the numbers lies.
const SEQUENCE: &str = "sequence";

/// Named bytes, while the lock on all of them is held. A write is whole or absent, and durable when it returns.
pub(super) trait Blobs {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreFailed>;
    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreFailed>;
    fn remove(&mut self, name: &str) -> Result<(), StoreFailed>;
    fn names(&self) -> Result<Vec<String>, StoreFailed>;
    /// Where the bytes of that name lie, for the person to find.
    fn place(&self, name: &str) -> String;
}

/// Something to do while the lock is held: quick, and without waiting for anybody.
pub(super) type Work<T> = Box<dyn FnOnce(&mut dyn Blobs) -> Result<T, StoreFailed> + Send>;

/// A place for named bytes. What has this is a [`CredentialStore`].
pub(super) trait Shelf: Send + Sync + fmt::Debug + 'static {
    fn sealer(&self) -> &SharedSealer;
    fn clock(&self) -> &Arc<dyn Clock>;
    fn locked<T: Send + 'static>(&self, work: Work<T>) -> Stored<'_, T>;
}

const SESSION: &str = "session";
const REGISTRATION: &str = "registration";
const STEP_UPS: &str = "step-ups";
const PAIRING: &str = "pairing";
const KINDS: [&str; 4] = [SESSION, REGISTRATION, STEP_UPS, PAIRING];

/// The name for what is kept under these words.
fn name(kind: &str, words: [&str; 2]) -> String {
    // Neither word has a control character: identifiers are URLs.
    let digest = SecretDigest::of(words.join("\n").as_bytes());
    digest.as_bytes().iter().fold(format!("{kind}-"), |name, byte| format!("{name}{byte:02x}"))
}

fn session_name(issuer: &Issuer, resource: &ResourceId) -> String {
    name(SESSION, [issuer.as_str(), resource.as_str()])
}

fn pairing_name(issuer: &Issuer, resource: &ResourceId) -> String {
    name(PAIRING, [issuer.as_str(), resource.as_str()])
}

fn registration_name(issuer: &Issuer) -> String {
    name(REGISTRATION, [issuer.as_str(), ""])
}

fn step_ups_name(server: &ResourceId) -> String {
    name(STEP_UPS, [server.as_str(), ""])
}

/// The names of what is kept of these kinds. Other names in the place are not the store's.
fn names(blobs: &dyn Blobs, kinds: &[&str]) -> Result<Vec<String>, StoreFailed> {
    let of_kind = |name: &String| {
        let kind = name.rsplit_once('-').map(|(kind, _)| kind);
        kind.is_some_and(|kind| kinds.contains(&kind))
    };
    Ok(blobs.names()?.into_iter().filter(of_kind).collect())
}

/// Whether nothing is kept.
#[cfg(feature = "aws-lc-rs")]
pub(super) fn is_empty(blobs: &dyn Blobs) -> Result<bool, StoreFailed> {
    Ok(names(blobs, &KINDS)?.is_empty())
}

/// The next number of the store's sequence.
fn next(blobs: &mut dyn Blobs) -> Result<u64, StoreFailed> {
    let damaged = |blobs: &dyn Blobs| StoreFailed::Damaged(blobs.place(SEQUENCE));
    let number = match blobs.read(SEQUENCE)? {
        Some(bytes) => {
            let text = std::str::from_utf8(&bytes).ok().map(str::trim);
            text.and_then(|text| text.parse::<u64>().ok()).ok_or_else(|| damaged(blobs))?
        }
        // A new store, or one whose sequence was lost: begin above everything that is there.
        None => {
            let mut highest = 0;
            for name in names(blobs, &KINDS)? {
                if let Some(entry) = read(blobs, &name)? {
                    let fence = entry.claim.map_or(0, |claim| claim.fence);
                    highest = highest.max(entry.number).max(fence);
                }
            }
            highest
        }
    };
    let number = number.checked_add(1).ok_or_else(|| damaged(blobs))?;
    blobs.write(SEQUENCE, number.to_string().as_bytes())?;
    Ok(number)
}

fn read(blobs: &dyn Blobs, name: &str) -> Result<Option<Entry>, StoreFailed> {
    blobs.read(name)?.map(|bytes| Entry::from_bytes(&bytes, &blobs.place(name))).transpose()
}

fn write(blobs: &mut dyn Blobs, name: &str, entry: &Entry) -> Result<(), StoreFailed> {
    blobs.write(name, &entry.to_bytes()?)
}

/// Keeps a record under a number of its own, without a claim.
fn put(blobs: &mut dyn Blobs, name: &str, record: Vec<u8>) -> Result<RecordVersion, StoreFailed> {
    let number = next(blobs)?;
    write(blobs, name, &Entry { number, claim: None, record })?;
    Ok(RecordVersion::new(number))
}

/// A record that does not read: a later version's is one to keep.
fn unreadable(error: Error, place: String) -> StoreFailed {
    match error {
        Error::Host(HostMisuse::LaterRecord) => StoreFailed::Later(place),
        _ => StoreFailed::Damaged(place),
    }
}

fn session(blobs: &dyn Blobs, name: &str) -> Result<Option<(Entry, KeptSession)>, StoreFailed> {
    let Some(entry) = read(blobs, name)? else { return Ok(None) };
    let record =
        SessionRecord::from_bytes(&entry.record).map_err(|error| unreadable(error, blobs.place(name)))?;
    let kept = KeptSession::new(record, RecordVersion::new(entry.number))
        .filter(|kept| session_name(kept.issuer(), kept.resource()) == name)
        .ok_or_else(|| StoreFailed::Damaged(blobs.place(name)))?;
    Ok(Some((entry, kept)))
}

/// The core did not take a record for this action.
fn not_taken<S>(failed: Failed<S>) -> StoreFailed {
    StoreFailed::Record(failed.error)
}

impl<P: Shelf> CredentialStore for P {
    fn sealer(&self) -> &(dyn Sealer + Send + Sync) {
        &**Shelf::sealer(self)
    }

    fn keep(&self, action: PersistSession) -> Stored<'_, SessionPersisted> {
        Box::pin(async move {
            let record = action.record(CredentialStore::sealer(self))?.to_bytes();
            let word = action.pairing(CredentialStore::sealer(self))?;
            self.locked(Box::new(move |blobs| {
                let name = session_name(action.issuer(), action.resource());
                // What cannot be read is not written over.
                session(blobs, &name)?;
                let version = put(blobs, &name, record)?;
                // D36: only now, that there is a token.
                if let Some(word) = word {
                    let name = pairing_name(action.issuer(), action.resource());
                    pairing(blobs, &name)?;
                    put(blobs, &name, word.to_bytes())?;
                }
                Ok(action.persisted(version))
            }))
            .await
        })
    }

    fn claim(&self, action: ClaimRefresh) -> Stored<'_, RefreshClaim> {
        let (sealer, clock) = (Arc::clone(Shelf::sealer(self)), Arc::clone(self.clock()));
        self.locked(Box::new(move |blobs| {
            // A session that was never kept is no other process's business.
            let Some(version) = action.version() else { return Ok(action.alone()) };
            let name = session_name(action.issuer(), action.resource());
            let Some((entry, kept)) = session(blobs, &name)? else { return Ok(action.absent()) };
            // D39: whoever knows an older version sends nothing.
            if kept.version() != version {
                return action.superseded(kept.record, kept.version, &*sealer).map_err(not_taken);
            }
            if let Some(claim) = entry.claim.filter(|claim| claim.holds(clock.now())) {
                return Ok(action.busy(claim.until));
            }
            let fence = next(blobs)?;
            let claim = Some(Claim { fence, until: action.until() });
            write(blobs, &name, &Entry { claim, ..entry })?;
            Ok(action.claimed(fence))
        }))
    }

    fn commit(&self, action: CommitRefresh) -> Stored<'_, RefreshCommitted> {
        Box::pin(async move {
            let sealer = Arc::clone(Shelf::sealer(self));
            let record = action.record(&*sealer)?.to_bytes();
            self.locked(Box::new(move |blobs| {
                if action.fence().is_none() {
                    return Ok(action.kept_in_memory());
                }
                let name = session_name(action.issuer(), action.resource());
                let Some((entry, kept)) = session(blobs, &name)? else { return Ok(action.absent()) };
                // D39: the claim may have ended, and another process gone on.
                if entry.claim.map(|claim| claim.fence) != action.fence() {
                    return action.fenced(kept.record, kept.version, &*sealer).map_err(not_taken);
                }
                let version = put(blobs, &name, record)?;
                Ok(action.committed(version))
            }))
            .await
        })
    }

    fn discard(&self, action: DiscardSession) -> Stored<'_, SessionDiscarded> {
        let sealer = Arc::clone(Shelf::sealer(self));
        self.locked(Box::new(move |blobs| {
            let name = session_name(action.issuer(), action.resource());
            let kept = match action.fence() {
                Some(_) => session(blobs, &name)?,
                None => None,
            };
            let Some((entry, kept)) = kept else { return Ok(action.discarded()) };
            // D39: somebody else's session is not this process's to remove.
            if entry.claim.map(|claim| claim.fence) != action.fence() {
                return action.superseded(kept.record, kept.version, &*sealer).map_err(not_taken);
            }
            blobs.remove(&name)?;
            Ok(action.discarded())
        }))
    }

    fn release(&self, action: ReleaseClaim) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let released = self.locked(Box::new(move |blobs| {
                let name = session_name(action.issuer(), action.resource());
                let Some((entry, _)) = session(blobs, &name)? else { return Ok(()) };
                match entry.claim {
                    Some(claim) if Some(claim.fence) == action.fence() => {
                        write(blobs, &name, &Entry { claim: None, ..entry })
                    }
                    _ => Ok(()),
                }
            }));
            if released.await.is_err() {
                tracing::warn!("a claim could not be given back; it ends by itself");
            }
        })
    }

    fn sessions(&self) -> Stored<'_, Vec<KeptSession>> {
        self.locked(Box::new(|blobs| {
            let mut sessions = Vec::new();
            for name in names(blobs, &[SESSION])? {
                sessions.extend(session(blobs, &name)?.map(|(_, kept)| kept));
            }
            Ok(sessions)
        }))
    }

    fn remove(&self, issuer: &Issuer, resource: &ResourceId) -> Stored<'_, bool> {
        let name = session_name(issuer, resource);
        let word = pairing_name(issuer, resource);
        self.locked(Box::new(move |blobs| {
            let there = session(blobs, &name)?.is_some();
            if pairing(blobs, &word)?.is_some() {
                blobs.remove(&word)?;
            }
            if there {
                blobs.remove(&name)?;
            }
            Ok(there)
        }))
    }

    fn pairings(&self, resource: &ResourceId) -> Stored<'_, Vec<PairingRecord>> {
        let resource = resource.clone();
        self.locked(Box::new(move |blobs| {
            let mut words = Vec::new();
            for name in names(blobs, &[PAIRING])? {
                words.extend(pairing(blobs, &name)?.filter(|word| word.resource() == Some(&resource)));
            }
            Ok(words)
        }))
    }

    fn registration(&self, issuer: &Issuer) -> Stored<'_, Option<RegistrationRecord>> {
        let issuer = issuer.clone();
        self.locked(Box::new(move |blobs| registration(blobs, &issuer)))
    }

    fn keep_registration(&self, record: RegistrationRecord) -> Stored<'_, ()> {
        self.locked(Box::new(move |blobs| put_registration(blobs, &record)))
    }

    fn choose_registration(&self, choose: Choosing) -> Stored<'_, ()> {
        let sealer = Arc::clone(Shelf::sealer(self));
        self.locked(Box::new(move |blobs| {
            let mut kept = Vec::new();
            for name in names(blobs, &[REGISTRATION])? {
                kept.extend(registration_at(blobs, &name)?);
            }
            match choose(&kept, &*sealer)? {
                Some(record) => put_registration(blobs, &record),
                None => Ok(()),
            }
        }))
    }

    fn forget_registration(&self, record: RegistrationRecord) -> Stored<'_, ()> {
        self.locked(Box::new(move |blobs| {
            if registration(blobs, record.issuer())?.as_ref() == Some(&record) {
                blobs.remove(&registration_name(record.issuer()))?;
            }
            Ok(())
        }))
    }

    fn step_ups(&self, server: &ResourceId) -> Stored<'_, Option<Vec<u8>>> {
        let name = step_ups_name(server);
        self.locked(Box::new(move |blobs| Ok(read(blobs, &name)?.map(|entry| entry.record))))
    }

    fn join_step_ups(&self, server: &ResourceId, join: Joining) -> Stored<'_, ()> {
        let name = step_ups_name(server);
        self.locked(Box::new(move |blobs| {
            let earlier = read(blobs, &name)?.map(|entry| entry.record);
            put(blobs, &name, join(earlier.as_deref())?).map(drop)
        }))
    }
}

fn pairing(blobs: &dyn Blobs, name: &str) -> Result<Option<PairingRecord>, StoreFailed> {
    let Some(entry) = read(blobs, name)? else { return Ok(None) };
    let record =
        PairingRecord::from_bytes(&entry.record).map_err(|error| unreadable(error, blobs.place(name)))?;
    let at_its_place =
        record.resource().is_some_and(|resource| pairing_name(record.issuer(), resource) == name);
    if at_its_place { Ok(Some(record)) } else { Err(StoreFailed::Damaged(blobs.place(name))) }
}

fn registration(blobs: &dyn Blobs, issuer: &Issuer) -> Result<Option<RegistrationRecord>, StoreFailed> {
    registration_at(blobs, &registration_name(issuer))
}

fn registration_at(blobs: &dyn Blobs, name: &str) -> Result<Option<RegistrationRecord>, StoreFailed> {
    let Some(entry) = read(blobs, name)? else { return Ok(None) };
    let record = RegistrationRecord::from_bytes(&entry.record)
        .map_err(|error| unreadable(error, blobs.place(name)))?;
    // MCP-DISC-003: what was registered at one issuer is never used at another.
    if registration_name(record.issuer()) != name {
        return Err(StoreFailed::Damaged(blobs.place(name)));
    }
    Ok(Some(record))
}

fn put_registration(blobs: &mut dyn Blobs, record: &RegistrationRecord) -> Result<(), StoreFailed> {
    // What cannot be read is not written over.
    registration(blobs, record.issuer())?;
    put(blobs, &registration_name(record.issuer()), record.to_bytes()).map(drop)
}
