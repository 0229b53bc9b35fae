//! Every action on the store, and what its transaction must give.
//!
//! A host carries an action out and consumes it with the result: that makes the receipt, which the waiting state
//! takes. A receipt is neither cloned nor built from parts, and names the action it came of, so that one action's
//! result cannot advance another flow. A read names what was read and the store's clock: where many processes share
//! a store, they compare expiry with that clock and not with their own.
//!
//! | action | the transaction |
//! |---|---|
//! | [`FindClient`], [`ReadDecision`], [`ReadCode`], [`ReadRefresh`] | a read of the primary copy; changes nothing |
//! | [`InsertClient`] | inserts if the id is free; never overwrites |
//! | [`InsertDecision`] | inserts under a fresh key, with the client of a metadata document if one comes along |
//! | [`DecideOnce`] | consumes the decision and, on approval, inserts the code and its family (`pending`), or changes nothing |
//! | [`RedeemCode`] | if the code is live, its family pending and the epochs unchanged: marks it spent, activates the family, inserts grant and refresh token |
//! | [`RotateRefresh`] | if the token is the leaf of that generation, its family active and the epochs unchanged: retires it and inserts the successor |
//! | [`RevokeFamily`] | upserts a tombstone; every insert into a family is conditional on its absence |
//! | [`RevokeAll`] | adds one to an epoch, which the conditional writes compare |
//! | [`ReserveOnce`] | sets if absent, on the injective key of all its parts |
//!
//! Commits are durable before the receipt is made. A store that fails makes no receipt: the states answer 503.

use alloc::string::String;
use core::fmt;

use crate::authorization_server::record::{
    ClientRecord, CodeRecord, DecisionRecord, Epochs, FamilyId, GrantRecord, RefreshRecord,
};
use crate::entropy::{Entropy, EntropyUnavailable, draw};
use crate::identifier::{ClientId, Issuer};
use crate::secret::{AgentBinding, SecretDigest};
use crate::time::OffsetDateTime;

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
    pub(crate) record: Option<ClientRecord>,
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
    pub fn found(self, record: ClientRecord, now: OffsetDateTime) -> ClientFound {
        // A store that answers with another client's record has found nothing.
        let record = (record.client_id == self.client_id).then_some(record);
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
    pub(crate) inserted: bool,
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
        ClientInsertion { id: self.id, inserted: true }
    }

    /// The identifier was taken; nothing was changed.
    pub fn taken(self) -> ClientInsertion {
        ClientInsertion { id: self.id, inserted: false }
    }
}

/// Inserts a request that is about to be shown to a person.
#[must_use = "nobody can decide before this is carried out"]
#[derive(Debug)]
pub struct InsertDecision {
    id: ActionId,
    key: SecretDigest,
    record: DecisionRecord,
    client: Option<ClientRecord>,
}

/// That [`InsertDecision`] was carried out.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct DecisionInsertion {
    pub(crate) id: ActionId,
}

impl InsertDecision {
    pub(crate) fn new(
        key: SecretDigest,
        record: DecisionRecord,
        client: Option<ClientRecord>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, ActionId), EntropyUnavailable> {
        let (id, twin) = ActionId::pair(entropy)?;
        Ok((Self { id, key, record, client }, twin))
    }

    /// The key: the digest of the handle in the form.
    pub fn key(&self) -> SecretDigest {
        self.key
    }

    /// The row.
    pub fn record(&self) -> &DecisionRecord {
        &self.record
    }

    /// A client known by its metadata document, to insert or replace in the same transaction: the token endpoint will
    /// look it up. Only a client of that origin is ever replaced.
    pub fn client(&self) -> Option<&ClientRecord> {
        self.client.as_ref()
    }

    /// It is stored.
    pub fn inserted(self) -> DecisionInsertion {
        DecisionInsertion { id: self.id }
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
    pub(crate) record: Option<(DecisionRecord, Epochs)>,
    pub(crate) now: OffsetDateTime,
}

impl ReadDecision {
    pub(crate) fn new(key: SecretDigest) -> Self {
        Self { key }
    }

    /// The key.
    pub fn key(&self) -> SecretDigest {
        self.key
    }

    /// It is pending. `epochs` are today's of its client, its subject and their consent, read in the same transaction.
    pub fn found(self, record: DecisionRecord, epochs: Epochs, now: OffsetDateTime) -> DecisionFound {
        DecisionFound { key: self.key, record: Some((record, epochs)), now }
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
    decision: SecretDigest,
    agent: AgentBinding,
    subject: String,
    code: Option<(SecretDigest, CodeRecord)>,
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
        decision: SecretDigest,
        agent: AgentBinding,
        subject: String,
        code: Option<(SecretDigest, CodeRecord)>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, ActionId), EntropyUnavailable> {
        let (id, twin) = ActionId::pair(entropy)?;
        Ok((Self { id, decision, agent, subject, code }, twin))
    }

    /// The key of the decision to consume.
    pub fn decision(&self) -> SecretDigest {
        self.decision
    }

    /// The browser that decides; another than the record's is [`DecideOnce::not_yours`].
    pub fn agent(&self) -> &AgentBinding {
        &self.agent
    }

    /// The person who decides; another than the record's is [`DecideOnce::not_yours`].
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// On approval: the code's digest and its row. Its family starts as `pending`.
    pub fn code(&self) -> Option<(SecretDigest, &CodeRecord)> {
        self.code.as_ref().map(|(digest, record)| (*digest, record))
    }

    /// The decision is consumed and, on approval, code and family are stored.
    pub fn stored(self) -> DecisionTaken {
        DecisionTaken { id: self.id, outcome: DecisionOutcome::Stored }
    }

    /// The decision belongs to another browser or person; nothing was changed.
    pub fn not_yours(self) -> DecisionTaken {
        DecisionTaken { id: self.id, outcome: DecisionOutcome::NotYours }
    }

    /// There is no such pending decision.
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
    pub(crate) state: FoundState<CodeRecord>,
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
    pub fn live(self, record: CodeRecord, now: OffsetDateTime) -> CodeFound {
        CodeFound { digest: self.digest, state: FoundState::Live(record), now }
    }

    /// The code was redeemed before. Keep such rows until the family's end and the longest access token are past.
    pub fn spent(self, record: CodeRecord, now: OffsetDateTime) -> CodeFound {
        CodeFound { digest: self.digest, state: FoundState::Used(record), now }
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
    grant: GrantRecord,
    refresh: Option<(SecretDigest, RefreshRecord)>,
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
        grant: GrantRecord,
        refresh: Option<(SecretDigest, RefreshRecord)>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, ActionId), EntropyUnavailable> {
        let (id, twin) = ActionId::pair(entropy)?;
        Ok((Self { id, digest, grant, refresh }, twin))
    }

    /// The code to mark as spent.
    pub fn digest(&self) -> SecretDigest {
        self.digest
    }

    /// The grant to insert; its family goes from `pending` to `active`, its epochs must be today's. The store also
    /// notes that the client was used (D40).
    pub fn grant(&self) -> &GrantRecord {
        &self.grant
    }

    /// The first refresh token to insert, if one goes out.
    pub fn refresh(&self) -> Option<(SecretDigest, &RefreshRecord)> {
        self.refresh.as_ref().map(|(digest, record)| (*digest, record))
    }

    /// The code was live and is spent; family, grant and refresh token are stored.
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
    pub(crate) state: FoundState<RefreshRecord>,
    pub(crate) now: OffsetDateTime,
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
    pub fn live(self, record: RefreshRecord, now: OffsetDateTime) -> RefreshFound {
        RefreshFound { digest: self.digest, state: FoundState::Live(record), now }
    }

    /// The token was rotated away before. Keep such rows until the family's end and the longest access token are past.
    pub fn retired(self, record: RefreshRecord, now: OffsetDateTime) -> RefreshFound {
        RefreshFound { digest: self.digest, state: FoundState::Used(record), now }
    }

    /// There is none, or its family is revoked.
    pub fn absent(self, now: OffsetDateTime) -> RefreshFound {
        RefreshFound { digest: self.digest, state: FoundState::Absent, now }
    }
}

/// Replaces a refresh token by its successor: a compare-and-swap on the leaf of its family.
#[must_use = "no token leaves before this is carried out"]
#[derive(Debug)]
pub struct RotateRefresh {
    id: ActionId,
    presented: SecretDigest,
    presented_generation: u64,
    successor_digest: SecretDigest,
    successor: RefreshRecord,
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
        presented: SecretDigest,
        presented_generation: u64,
        successor_digest: SecretDigest,
        successor: RefreshRecord,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, ActionId), EntropyUnavailable> {
        let (id, twin) = ActionId::pair(entropy)?;
        Ok((Self { id, presented, presented_generation, successor_digest, successor }, twin))
    }

    /// The token to retire.
    pub fn presented(&self) -> SecretDigest {
        self.presented
    }

    /// Its generation: the swap holds only if the family's leaf has this one.
    pub fn presented_generation(&self) -> u64 {
        self.presented_generation
    }

    /// The successor's key.
    pub fn successor_digest(&self) -> SecretDigest {
        self.successor_digest
    }

    /// The successor; its grant names the family and the epochs to compare.
    pub fn successor(&self) -> &RefreshRecord {
        &self.successor
    }

    /// The presented token is retired and the successor stored.
    pub fn rotated(self) -> RefreshRotation {
        RefreshRotation { id: self.id, outcome: Outcome::Done }
    }

    /// The presented token had been retired before; nothing was changed.
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

/// Why a family is revoked: for the operator's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RevocationReason {
    /// A spent code came back with everything that fits it.
    CodeReplayed,
    /// A retired refresh token came back from its client.
    RefreshReused,
    /// The client asked for it (RFC 7009).
    ClientRequest,
}

impl RevocationReason {
    /// A word for logs and stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CodeReplayed => "code_replayed",
            Self::RefreshReused => "refresh_reused",
            Self::ClientRequest => "client_request",
        }
    }
}

/// Revokes a family for good.
#[must_use = "the refusal goes out only after this is carried out"]
#[derive(Debug)]
pub struct RevokeFamily {
    id: ActionId,
    family: FamilyId,
    reason: RevocationReason,
    not_after: OffsetDateTime,
}

/// That [`RevokeFamily`] was carried out.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct FamilyRevocation {
    pub(crate) id: ActionId,
}

impl RevokeFamily {
    pub(crate) fn new(
        grant: &GrantRecord,
        reason: RevocationReason,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, ActionId), EntropyUnavailable> {
        let (id, twin) = ActionId::pair(entropy)?;
        Ok((Self { id, family: grant.family, reason, not_after: grant.not_after }, twin))
    }

    /// The family.
    pub fn family(&self) -> FamilyId {
        self.family
    }

    /// Why.
    pub fn reason(&self) -> RevocationReason {
        self.reason
    }

    /// The end of the family: the tombstone is kept past it, until the longest access token has ended too.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// The tombstone is stored; it may have been there before.
    pub fn revoked(self) -> FamilyRevocation {
        FamilyRevocation { id: self.id }
    }
}

/// Whose grants end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RevocationTarget {
    /// Every grant of a client.
    Client(ClientId),
    /// Every grant of a person.
    Subject(String),
    /// What one person granted to one client.
    Consent {
        /// The person.
        subject: String,
        /// The client.
        client_id: ClientId,
    },
}

/// Ends all grants of a client, a person, or a person's consent, by moving an epoch.
#[must_use = "the grants end only once this is carried out"]
#[derive(Debug)]
pub struct RevokeAll {
    target: RevocationTarget,
}

/// That [`RevokeAll`] was carried out.
#[must_use = "it says that every grant made before has ended"]
#[derive(Debug)]
pub struct AllRevoked {
    target: RevocationTarget,
}

impl RevokeAll {
    /// Ends all grants of the target: for the operator, the person's own page, or the removal of an account.
    pub fn of(target: RevocationTarget) -> Self {
        // OAUTH21-4.3.3-3
        Self { target }
    }

    /// Whose.
    pub fn target(&self) -> &RevocationTarget {
        &self.target
    }

    /// The epoch has moved.
    pub fn revoked(self) -> AllRevoked {
        AllRevoked { target: self.target }
    }
}

impl AllRevoked {
    /// Whose grants have ended.
    pub fn target(&self) -> &RevocationTarget {
        &self.target
    }
}

/// What kind of identifier is used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReservationKind {
    /// The `jti` of a client assertion (RFC 7523).
    ClientAssertion,
}

/// Reserves an identifier that may be used once.
#[must_use = "the identifier counts as used only once this is carried out"]
#[derive(Debug)]
pub struct ReserveOnce {
    kind: ReservationKind,
    issuer: String,
    audience: Issuer,
    value: String,
    until: OffsetDateTime,
}

/// That [`ReserveOnce`] was carried out.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct Reservation {
    value: String,
    reserved: bool,
}

impl Reservation {
    /// Whether the identifier was free, and is the one that was to be reserved. Anything else is a replay.
    pub fn reserves(&self, value: &str) -> bool {
        self.reserved && self.value.as_bytes() == value.as_bytes()
    }
}

impl ReserveOnce {
    /// No endpoint reads client assertions yet: only the tests of a store reserve.
    #[cfg(feature = "test-kit")]
    pub(crate) fn new(
        kind: ReservationKind,
        (issuer, audience, value): (String, Issuer, String),
        until: OffsetDateTime,
    ) -> Self {
        Self { kind, issuer, audience, value, until }
    }

    /// What kind it is.
    pub fn kind(&self) -> ReservationKind {
        self.kind
    }

    /// Who made the identifier.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// For whom.
    pub fn audience(&self) -> &Issuer {
        &self.audience
    }

    /// The identifier.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Until when the reservation must be kept.
    pub fn until(&self) -> OffsetDateTime {
        self.until
    }

    /// It was free and is reserved. All four parts make the key, each with its length, so that no two share one.
    pub fn reserved(self) -> Reservation {
        Reservation { value: self.value, reserved: true }
    }

    /// It had been used before.
    pub fn already_seen(self) -> Reservation {
        Reservation { value: self.value, reserved: false }
    }
}
