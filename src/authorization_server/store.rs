//! Every action on the store, and what its transaction must give.
//!
//! A host carries an action out and consumes it with the result: that makes the receipt, which the waiting state
//! takes. A receipt is neither cloned nor built from parts, and names the action it came of, so that one action's
//! result cannot advance another flow. A read names what was read and the store's clock: where many processes share
//! a store, they compare expiry with that clock and not with their own.
//!
//! | action | the transaction |
//! |---|---|
//! | [`FindClient`], [`ReadDecision`], [`ReadCode`], [`ReadRefresh`], [`ReadAccess`], [`ReadGrant`], [`ReadConsent`], [`ReadPushed`] | a read of the primary copy; changes nothing |
//! | [`InsertClient`] | inserts if the id is free and there is room; never overwrites |
//! | [`UpdateClient`], [`DeleteClient`] | a compare-and-swap on the whole record; a deletion moves the client's epoch as well |
//! | [`InsertPushed`] | inserts under a fresh key if there is room among those of its kind |
//! | [`InsertDecision`] | if there is room, inserts under a fresh key, with the client of a metadata document if one comes along; consumes the pushed request it came of, or changes nothing |
//! | [`DecideOnce`] | consumes the decision and, on approval, inserts the code and its family (`pending`) and what the person wants remembered, or changes nothing |
//! | [`RedeemCode`] | if the code is live, its family pending and the epochs unchanged: marks it spent, activates the family, inserts grant, refresh token and opaque access token |
//! | [`RotateRefresh`] | if the token is the leaf of that generation, its family active and the epochs unchanged: retires it and inserts the successor and the opaque access token; the repetition of a rotation has conditions of its own |
//! | [`RevokeFamily`] | upserts a tombstone; every insert into a family is conditional on its absence |
//! | [`RevokeAll`] | moves an epoch to a greater number, which the conditional writes compare; a person's ends their sessions as well |
//! | [`ReserveOnce`] | sets if absent, on the injective key of all its parts |
//!
//! What strangers cause to be stored is bounded (I-P7). Room is made by deleting what has ended, then the oldest of the
//! same person or client, never what somebody else waits for or uses; where that leaves none, the newcomer is refused. What the
//! operator's clients push and what strangers may have pushed are counted apart.
//!
//! Actions and receipts share the records they carry: a store in memory keeps the very record an action brings and gives
//! it back at each read, without a copy; one that writes it down gives what it read.
//!
//! Commits are durable before the receipt is made. A store that fails makes no receipt: the states answer 503.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use crate::authorization_server::record::{
    AccessRecord, ClientRecord, CodeRecord, ConsentRecord, DecisionRecord, Epochs, GrantRecord, RefreshRecord,
};
use crate::entropy::{Entropy, EntropyUnavailable, draw};
use crate::identifier::ClientId;
use crate::secret::{AgentBinding, SecretDigest};
use crate::time::OffsetDateTime;

mod access;
mod consents;
mod pushed;
mod registrations;
mod revocation;
mod subject;

pub use access::{AccessFound, GrantFound, ReadAccess, ReadGrant};
pub use consents::{ConsentFound, ReadConsent};
pub use pushed::{InsertPushed, PushedFound, PushedInsertion, ReadPushed};
pub(crate) use registrations::UpdateOutcome;
pub use registrations::{ClientDeletion, ClientUpdate, DeleteClient, UpdateClient};
pub use revocation::{
    AllRevoked, FamilyRevocation, Reservation, ReservationKind, ReserveOnce, RevocationReason,
    RevocationTarget, RevokeAll, RevokeFamily,
};

/// Ties a receipt to the action it came of.
#[derive(PartialEq, Eq)]
pub(crate) struct ActionId([u8; 16]);

impl ActionId {
    /// A fresh id and its twin, for the action and for the state that waits.
    pub(crate) fn pair(entropy: &mut dyn Entropy) -> Result<(Self, Self), EntropyUnavailable> {
        let bytes = *draw::<16>(entropy)?;
        Ok((Self(bytes), Self(bytes)))
    }
}

impl fmt::Debug for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, ..] = self.0;
        write!(f, "ActionId({a:02x}{b:02x}…)")
    }
}

/// Looks a client up by its identifier.
#[must_use = "the state waits for what was found"]
#[derive(Debug)]
pub struct FindClient {
    client_id: ClientId,
}

/// What [`FindClient`] found.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct ClientFound {
    pub(crate) client_id: ClientId,
    pub(crate) record: Option<Arc<ClientRecord>>,
    pub(crate) now: OffsetDateTime,
}

impl FindClient {
    pub(crate) fn new(client_id: ClientId) -> Self {
        Self { client_id }
    }

    /// The key.
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// The client is known; `now` is the store's clock.
    pub fn found(self, record: impl Into<Arc<ClientRecord>>, now: OffsetDateTime) -> ClientFound {
        // A store that answers with another client's record has found nothing.
        let record = Some(record.into()).filter(|record| record.client_id == self.client_id);
        ClientFound { client_id: self.client_id, record, now }
    }

    /// No client has that identifier.
    pub fn absent(self, now: OffsetDateTime) -> ClientFound {
        ClientFound { client_id: self.client_id, record: None, now }
    }
}

/// Inserts a client that registered.
#[must_use = "the client is known only once this is carried out"]
#[derive(Debug)]
pub struct InsertClient {
    id: ActionId,
    record: ClientRecord,
}

/// That [`InsertClient`] was carried out.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct ClientInsertion {
    pub(crate) id: ActionId,
    pub(crate) outcome: Insertion,
}

/// The result of an insertion that has conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Insertion {
    /// It is stored.
    Done,
    /// What it needs is gone, or its key is taken; nothing was changed.
    Refused,
    /// There is no room, and nothing that may make some; nothing was changed.
    Full,
}

impl InsertClient {
    pub(crate) fn new(
        record: ClientRecord,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, ActionId), EntropyUnavailable> {
        let (id, twin) = ActionId::pair(entropy)?;
        Ok((Self { id, record }, twin))
    }

    /// The row; its key is the client's identifier.
    pub fn record(&self) -> &ClientRecord {
        &self.record
    }

    /// The identifier was free and the client is stored.
    pub fn inserted(self) -> ClientInsertion {
        ClientInsertion { id: self.id, outcome: Insertion::Done }
    }

    /// The identifier was taken; nothing was changed.
    pub fn taken(self) -> ClientInsertion {
        ClientInsertion { id: self.id, outcome: Insertion::Refused }
    }

    /// There are as many clients as there may be, and each of them has something that rests on it (I-P7); nothing was
    /// changed.
    pub fn full(self) -> ClientInsertion {
        ClientInsertion { id: self.id, outcome: Insertion::Full }
    }
}

/// Inserts a request that is about to be shown to a person.
#[must_use = "nobody can decide before this is carried out"]
#[derive(Debug)]
pub struct InsertDecision {
    id: ActionId,
    key: SecretDigest,
    record: Arc<DecisionRecord>,
    client: Option<Arc<ClientRecord>>,
    pushed: Option<SecretDigest>,
}

/// That [`InsertDecision`] was carried out.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct DecisionInsertion {
    pub(crate) id: ActionId,
    pub(crate) outcome: Insertion,
}

impl InsertDecision {
    pub(crate) fn new(
        key: SecretDigest,
        record: Arc<DecisionRecord>,
        client: Option<Arc<ClientRecord>>,
        pushed: Option<SecretDigest>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, ActionId), EntropyUnavailable> {
        let (id, twin) = ActionId::pair(entropy)?;
        Ok((Self { id, key, record, client, pushed }, twin))
    }

    /// The key: the digest of the handle in the form.
    pub fn key(&self) -> SecretDigest {
        self.key
    }

    /// The row.
    pub fn record(&self) -> &Arc<DecisionRecord> {
        &self.record
    }

    /// A client known by its metadata document, to insert or replace in the same transaction: the token endpoint will
    /// look it up. Only a client of that origin is ever replaced.
    pub fn client(&self) -> Option<&Arc<ClientRecord>> {
        self.client.as_ref()
    }

    /// The pushed request it came of, to be consumed in the same transaction.
    pub fn pushed(&self) -> Option<SecretDigest> {
        self.pushed
    }

    /// It is stored.
    pub fn inserted(self) -> DecisionInsertion {
        DecisionInsertion { id: self.id, outcome: Insertion::Done }
    }

    /// The pushed request was consumed before; nothing was changed.
    pub fn pushed_is_gone(self) -> DecisionInsertion {
        DecisionInsertion { id: self.id, outcome: Insertion::Refused }
    }

    /// As many decisions wait as may, all of other people, or there is no room for the client (I-P7); nothing was
    /// changed.
    pub fn full(self) -> DecisionInsertion {
        DecisionInsertion { id: self.id, outcome: Insertion::Full }
    }
}

/// Reads a pending decision.
#[must_use = "the state waits for what was found"]
#[derive(Debug)]
pub struct ReadDecision {
    key: SecretDigest,
}

/// What [`ReadDecision`] found.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct DecisionFound {
    pub(crate) key: SecretDigest,
    pub(crate) record: Option<PendingDecision>,
    pub(crate) now: OffsetDateTime,
}

/// A decision with what it rests on today.
#[derive(Debug)]
pub(crate) struct PendingDecision {
    pub(crate) record: Arc<DecisionRecord>,
    pub(crate) client: Option<Arc<ClientRecord>>,
    pub(crate) epochs: Epochs,
}

impl ReadDecision {
    pub(crate) fn new(key: SecretDigest) -> Self {
        Self { key }
    }

    /// The key.
    pub fn key(&self) -> SecretDigest {
        self.key
    }

    /// It is pending. `client` is its client as it is today, none where there is none any more, and `epochs` are today's of its
    /// client, its subject and their consent: all read in the same transaction.
    pub fn found(
        self,
        record: impl Into<Arc<DecisionRecord>>,
        client: Option<Arc<ClientRecord>>,
        epochs: Epochs,
        now: OffsetDateTime,
    ) -> DecisionFound {
        let record = PendingDecision { record: record.into(), client, epochs };
        DecisionFound { key: self.key, record: Some(record), now }
    }

    /// There is none, or it was decided before.
    pub fn absent(self, now: OffsetDateTime) -> DecisionFound {
        DecisionFound { key: self.key, record: None, now }
    }
}

/// Consumes a pending decision and, on approval, inserts the code and its family.
#[must_use = "the answer goes out only after this is carried out"]
#[derive(Debug)]
pub struct DecideOnce {
    id: ActionId,
    basis: Basis,
    code: Option<(SecretDigest, Arc<CodeRecord>)>,
    remember: Option<Box<(SecretDigest, ConsentRecord)>>,
}

/// What a code rests on.
#[derive(Debug)]
pub enum Basis {
    /// A person's answer to the page.
    Answer {
        /// The key of the decision to consume.
        decision: SecretDigest,
        /// The browser that decides; another than the record's is [`DecideOnce::not_yours`].
        agent: AgentBinding,
        /// The person who decides; another than the record's is [`DecideOnce::not_yours`].
        subject: Arc<str>,
    },
    /// What the person wanted remembered: the key of a consent that must still be there, and stays. If it is gone,
    /// [`DecideOnce::absent`].
    Remembered(SecretDigest),
}

/// That [`DecideOnce`] was carried out.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct DecisionTaken {
    pub(crate) id: ActionId,
    pub(crate) outcome: DecisionOutcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecisionOutcome {
    Stored,
    NotYours,
    Absent,
}

impl DecideOnce {
    pub(crate) fn new(
        basis: Basis,
        code: Option<(SecretDigest, Arc<CodeRecord>)>,
        remember: Option<(SecretDigest, ConsentRecord)>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, ActionId), EntropyUnavailable> {
        let (id, twin) = ActionId::pair(entropy)?;
        Ok((Self { id, basis, code, remember: remember.map(Box::new) }, twin))
    }

    /// What it rests on.
    pub fn basis(&self) -> &Basis {
        &self.basis
    }

    /// On approval: the code's digest and its row. Its family starts as `pending`.
    pub fn code(&self) -> Option<(SecretDigest, &Arc<CodeRecord>)> {
        self.code.as_ref().map(|(digest, record)| (*digest, record))
    }

    /// What the person wants remembered, to insert or replace under its key.
    pub fn remember(&self) -> Option<(SecretDigest, &ConsentRecord)> {
        self.remember.as_deref().map(|(key, record)| (*key, record))
    }

    /// The decision is consumed and, on approval, code and family are stored.
    pub fn stored(self) -> DecisionTaken {
        DecisionTaken { id: self.id, outcome: DecisionOutcome::Stored }
    }

    /// The decision belongs to another browser or person; nothing was changed.
    pub fn not_yours(self) -> DecisionTaken {
        DecisionTaken { id: self.id, outcome: DecisionOutcome::NotYours }
    }

    /// There is no such pending decision, or no such consent.
    pub fn absent(self) -> DecisionTaken {
        DecisionTaken { id: self.id, outcome: DecisionOutcome::Absent }
    }
}

/// Reads a code, live or spent.
#[must_use = "the state waits for what was found"]
#[derive(Debug)]
pub struct ReadCode {
    digest: SecretDigest,
}

/// What [`ReadCode`] found.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct CodeFound {
    pub(crate) digest: SecretDigest,
    pub(crate) state: FoundState<Arc<CodeRecord>>,
    pub(crate) now: OffsetDateTime,
}

/// The state of a stored credential.
#[derive(Debug)]
pub(crate) enum FoundState<R> {
    Live(R),
    Used(R),
    Absent,
}

impl ReadCode {
    pub(crate) fn new(digest: SecretDigest) -> Self {
        Self { digest }
    }

    /// The key.
    pub fn digest(&self) -> SecretDigest {
        self.digest
    }

    /// The code was never redeemed.
    pub fn live(self, record: impl Into<Arc<CodeRecord>>, now: OffsetDateTime) -> CodeFound {
        CodeFound { digest: self.digest, state: FoundState::Live(record.into()), now }
    }

    /// The code was redeemed before. Keep such rows until the family's end and the longest access token are past.
    pub fn spent(self, record: impl Into<Arc<CodeRecord>>, now: OffsetDateTime) -> CodeFound {
        CodeFound { digest: self.digest, state: FoundState::Used(record.into()), now }
    }

    /// There is none.
    pub fn absent(self, now: OffsetDateTime) -> CodeFound {
        CodeFound { digest: self.digest, state: FoundState::Absent, now }
    }
}

/// Redeems a code: at most once, whatever else happens at the same time.
#[must_use = "no token leaves before this is carried out"]
#[derive(Debug)]
pub struct RedeemCode {
    id: ActionId,
    digest: SecretDigest,
    grant: Arc<GrantRecord>,
    refresh: Option<(SecretDigest, Arc<RefreshRecord>)>,
    access: Option<(SecretDigest, Arc<AccessRecord>)>,
}

/// That [`RedeemCode`] was carried out.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct CodeRedemption {
    pub(crate) id: ActionId,
    pub(crate) outcome: Outcome,
}

/// The result of a conditional write on a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The condition held and everything was written.
    Done,
    /// The credential had been used before; nothing was written.
    Used,
    /// The family is revoked or an epoch moved; nothing was written.
    Revoked,
    /// There is no such credential.
    Absent,
}

impl RedeemCode {
    pub(crate) fn new(
        digest: SecretDigest,
        grant: Arc<GrantRecord>,
        refresh: Option<(SecretDigest, Arc<RefreshRecord>)>,
        access: Option<(SecretDigest, Arc<AccessRecord>)>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, ActionId), EntropyUnavailable> {
        let (id, twin) = ActionId::pair(entropy)?;
        Ok((Self { id, digest, grant, refresh, access }, twin))
    }

    /// The code to mark as spent.
    pub fn digest(&self) -> SecretDigest {
        self.digest
    }

    /// The grant to insert; its family goes from `pending` to `active`, its epochs must be today's. The store also
    /// notes that the client was used (D40).
    pub fn grant(&self) -> &Arc<GrantRecord> {
        &self.grant
    }

    /// The first refresh token to insert, if one goes out.
    pub fn refresh(&self) -> Option<(SecretDigest, &Arc<RefreshRecord>)> {
        self.refresh.as_ref().map(|(digest, record)| (*digest, record))
    }

    /// The opaque access token to insert, if one goes out.
    pub fn access(&self) -> Option<(SecretDigest, &Arc<AccessRecord>)> {
        self.access.as_ref().map(|(digest, record)| (*digest, record))
    }

    /// The code was live and is spent; family, grant and tokens are stored.
    pub fn redeemed(self) -> CodeRedemption {
        CodeRedemption { id: self.id, outcome: Outcome::Done }
    }

    /// The code had been redeemed before; nothing was changed.
    pub fn replayed(self) -> CodeRedemption {
        CodeRedemption { id: self.id, outcome: Outcome::Used }
    }

    /// The family is revoked, or an epoch moved; nothing was changed.
    pub fn revoked(self) -> CodeRedemption {
        CodeRedemption { id: self.id, outcome: Outcome::Revoked }
    }

    /// There is no such code.
    pub fn absent(self) -> CodeRedemption {
        CodeRedemption { id: self.id, outcome: Outcome::Absent }
    }
}

/// Reads a refresh token, live or retired.
#[must_use = "the state waits for what was found"]
#[derive(Debug)]
pub struct ReadRefresh {
    digest: SecretDigest,
}

/// What [`ReadRefresh`] found.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct RefreshFound {
    pub(crate) digest: SecretDigest,
    pub(crate) state: FoundState<Arc<RefreshRecord>>,
    pub(crate) retirement: Option<Retirement>,
    pub(crate) now: OffsetDateTime,
}

/// How a refresh token was rotated away: what a server with a [`RefreshGrace`](super::grace::RefreshGrace) needs to
/// tell a client that lost an answer from a thief.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retirement {
    pub(crate) at: OffsetDateTime,
    pub(crate) request: SecretDigest,
    pub(crate) repeats: u32,
    pub(crate) successor_unused: bool,
}

impl Retirement {
    /// The token was rotated `at` that time by the store's clock, by a request of that digest
    /// ([`RotateRefresh::request`]), which was repeated that often since; `successor_unused` says whether the family's
    /// live token is still the one that replaced it.
    pub const fn new(
        at: OffsetDateTime,
        request: SecretDigest,
        repeats: u32,
        successor_unused: bool,
    ) -> Self {
        Self { at, request, repeats, successor_unused }
    }
}

impl ReadRefresh {
    pub(crate) fn new(digest: SecretDigest) -> Self {
        Self { digest }
    }

    /// The key.
    pub fn digest(&self) -> SecretDigest {
        self.digest
    }

    /// The token is the leaf of its family, and its family is active under today's epochs.
    pub fn live(self, record: impl Into<Arc<RefreshRecord>>, now: OffsetDateTime) -> RefreshFound {
        let state = FoundState::Live(record.into());
        RefreshFound { digest: self.digest, state, retirement: None, now }
    }

    /// The token was rotated away before. Keep such rows until the family's end and the longest access token are past.
    pub fn retired(
        self,
        record: impl Into<Arc<RefreshRecord>>,
        retirement: Retirement,
        now: OffsetDateTime,
    ) -> RefreshFound {
        let state = FoundState::Used(record.into());
        RefreshFound { digest: self.digest, state, retirement: Some(retirement), now }
    }

    /// There is none, or its family is revoked.
    pub fn absent(self, now: OffsetDateTime) -> RefreshFound {
        RefreshFound { digest: self.digest, state: FoundState::Absent, retirement: None, now }
    }
}

/// Replaces a refresh token by its successor: a compare-and-swap on the leaf of its family. Or repeats the answer of a
/// rotation that a client has lost, where [`RotateRefresh::repeats`] says so.
#[must_use = "no token leaves before this is carried out"]
#[derive(Debug)]
pub struct RotateRefresh {
    id: ActionId,
    rotation: Rotation,
    access: Option<(SecretDigest, Arc<AccessRecord>)>,
}

/// Everything of a rotation but the access token that goes out with it.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) presented: SecretDigest,
    pub(crate) presented_generation: u64,
    pub(crate) request: SecretDigest,
    pub(crate) successor_digest: SecretDigest,
    pub(crate) successor: Arc<RefreshRecord>,
    pub(crate) repeats: Option<u32>,
}

/// That [`RotateRefresh`] was carried out.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct RefreshRotation {
    pub(crate) id: ActionId,
    pub(crate) outcome: Outcome,
}

impl RotateRefresh {
    pub(crate) fn new(
        rotation: Rotation,
        access: Option<(SecretDigest, Arc<AccessRecord>)>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, ActionId), EntropyUnavailable> {
        let (id, twin) = ActionId::pair(entropy)?;
        Ok((Self { id, rotation, access }, twin))
    }

    /// The token to retire.
    pub fn presented(&self) -> SecretDigest {
        self.rotation.presented
    }

    /// Its generation: the swap holds only if the family's leaf has this one.
    pub fn presented_generation(&self) -> u64 {
        self.rotation.presented_generation
    }

    /// What was asked for, as a digest: kept with the retired token, beside the time by the store's clock. Zeros where no
    /// answer is repeated.
    pub fn request(&self) -> SecretDigest {
        self.rotation.request
    }

    /// Set where the answer of an earlier rotation is repeated, to how often at most. The conditions are then: the
    /// token is retired and was repeated less often than that, the family is active under today's epochs, and its live
    /// token is the one under [`RotateRefresh::successor_digest`]. One repetition is counted, nothing else is changed
    /// but for the access token.
    pub fn repeats(&self) -> Option<u32> {
        self.rotation.repeats
    }

    /// The opaque access token to insert, if one goes out.
    pub fn access(&self) -> Option<(SecretDigest, &Arc<AccessRecord>)> {
        self.access.as_ref().map(|(digest, record)| (*digest, record))
    }

    /// The successor's key.
    pub fn successor_digest(&self) -> SecretDigest {
        self.rotation.successor_digest
    }

    /// The successor; its grant names the family and the epochs to compare.
    pub fn successor(&self) -> &Arc<RefreshRecord> {
        &self.rotation.successor
    }

    /// The presented token is retired and the successor stored; or the repetition is counted.
    pub fn rotated(self) -> RefreshRotation {
        RefreshRotation { id: self.id, outcome: Outcome::Done }
    }

    /// The presented token had been retired before, or a repetition does not meet its conditions; nothing was changed.
    pub fn retired(self) -> RefreshRotation {
        RefreshRotation { id: self.id, outcome: Outcome::Used }
    }

    /// The family is revoked, or an epoch moved; nothing was changed.
    pub fn revoked(self) -> RefreshRotation {
        RefreshRotation { id: self.id, outcome: Outcome::Revoked }
    }

    /// There is no such token.
    pub fn absent(self) -> RefreshRotation {
        RefreshRotation { id: self.id, outcome: Outcome::Absent }
    }
}

#[cfg(test)]
mod tests {
    use super::{FindClient, ReadGrant, ReservationKind, ReserveOnce};
    use crate::authorization_server::record::{
        ClientCredential, ClientOrigin, ClientRecord, Epochs, FamilyId, GrantRecord,
    };
    use crate::identifier::{ClientId, Issuer, ResourceId, ScopeSet};
    use crate::message::client_metadata::ClientMetadata;
    use crate::time::OffsetDateTime;

    // I-A12
    #[test]
    fn a_reservation_is_of_its_own_identifier() {
        let reserve = |value: &str| {
            let audience = Issuer::new("https://as.example").unwrap();
            let parts = ("c1".into(), audience, value.into());
            ReserveOnce::new(ReservationKind::ClientAssertion, parts, OffsetDateTime::UNIX_EPOCH)
        };
        assert!(reserve("j1").reserved().reserves("j1"));
        assert!(!reserve("j1").reserved().reserves("j2"));
        assert!(!reserve("j1").already_seen().reserves("j1"));
    }

    // I-G8: a store that answers with another row than the one asked for has found nothing.
    #[test]
    fn a_row_of_another_key_is_not_found() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let id = |text: &str| ClientId::new(text).unwrap();
        let client = ClientRecord {
            client_id: id("c1"),
            origin: ClientOrigin::Registered,
            credential: ClientCredential::None,
            metadata: ClientMetadata::default(),
            created: now,
            management: None,
            gone_since: None,
            configured: false,
            initial_access: false,
        };
        assert!(FindClient::new(id("c1")).found(client.clone(), now).record.is_some());
        assert!(FindClient::new(id("C1")).found(client, now).record.is_none());
        let family = FamilyId::from_bytes([1; 16]);
        let grant = GrantRecord {
            family,
            client_id: id("c1"),
            subject: "ada".into(),
            resource: ResourceId::new("https://h.example").unwrap(),
            scope: ScopeSet::new(),
            epochs: Epochs::default(),
            authenticated: now,
            not_after: now,
        };
        assert!(ReadGrant::new(family).found(grant.clone(), now).record.is_some());
        assert!(ReadGrant::new(FamilyId::from_bytes([2; 16])).found(grant, now).record.is_none());
    }
}
