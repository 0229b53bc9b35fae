//! For the tests of a store: builds actions from records, and reads what a receipt says.
//!
//! Behind the feature `test-kit`, hidden, and outside the version promise. It weakens no server that is built with
//! it: an action is a request and proves nothing. Its receipt carries an id drawn here, which no waiting state has,
//! so every state refuses it as another's; and what a read found can be claimed by any host without this module.
//! Nothing here makes a receipt, a state or evidence.

use alloc::string::{String, ToString as _};
use alloc::sync::Arc;

use super::record::{
    AccessRecord, ClientCredential, ClientOrigin, ClientRecord, CodeRecord, ConsentRecord, DecisionRecord,
    Epochs, FamilyId, GrantRecord, PushedRecord, RefreshRecord,
};
use super::store;
use super::store::{
    AccessFound, Basis, ClientDeletion, ClientFound, ClientInsertion, ClientUpdate, CodeFound,
    CodeRedemption, ConsentFound, DecideOnce, DecisionFound, DecisionInsertion, DecisionOutcome,
    DecisionTaken, DeleteClient, FindClient, GrantFound, InsertClient, InsertDecision, InsertPushed,
    Insertion, PushedFound, PushedInsertion, ReadAccess, ReadCode, ReadConsent, ReadDecision, ReadGrant,
    ReadPushed, ReadRefresh, RedeemCode, RefreshFound, RefreshRotation, ReservationKind, ReserveOnce,
    RevocationReason, RevokeFamily, RotateRefresh, Rotation, UpdateClient, UpdateOutcome,
};
use crate::entropy::{Entropy, EntropyUnavailable};
use crate::identifier::{ClientId, InvalidIdentifier, Issuer, RedirectUri, ResourceId, ScopeSet};
use crate::message::client_metadata::ClientMetadata;
use crate::pkce::CodeChallenge;
use crate::secret::{AgentBinding, SecretDigest};
use crate::time::{Duration, OffsetDateTime};

/// What a read found, or what a conditional write met.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen<R> {
    /// The credential can be used; for a write: it was.
    Live(R),
    /// It had been used before.
    Used(R),
    /// Its family is revoked or an epoch moved.
    Revoked,
    /// There is none.
    Absent,
}

/// What [`DecideOnce`] met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// Consumed.
    Stored,
    /// Another's; nothing changed.
    NotYours,
    /// None, or decided before.
    Absent,
}

/// [`FindClient`] for an identifier.
pub fn find_client(client_id: ClientId) -> FindClient {
    FindClient::new(client_id)
}

/// [`InsertClient`] of a record.
///
/// # Errors
/// [`EntropyUnavailable`]
pub fn insert_client(
    record: ClientRecord,
    entropy: &mut dyn Entropy,
) -> Result<InsertClient, EntropyUnavailable> {
    Ok(InsertClient::new(record, entropy)?.0)
}

/// [`InsertDecision`] of a record, with the client of a metadata document or without.
///
/// # Errors
/// [`EntropyUnavailable`]
pub fn insert_decision(
    key: SecretDigest,
    record: DecisionRecord,
    client: Option<ClientRecord>,
    entropy: &mut dyn Entropy,
) -> Result<InsertDecision, EntropyUnavailable> {
    Ok(InsertDecision::new(key, record.into(), client.map(Arc::new), None, entropy)?.0)
}

/// [`ReadDecision`] of a key.
pub fn read_decision(key: SecretDigest) -> ReadDecision {
    ReadDecision::new(key)
}

/// [`InsertDecision`] that consumes a pushed request.
///
/// # Errors
/// [`EntropyUnavailable`]
pub fn insert_pushed_decision(
    key: SecretDigest,
    record: DecisionRecord,
    pushed: SecretDigest,
    entropy: &mut dyn Entropy,
) -> Result<InsertDecision, EntropyUnavailable> {
    Ok(InsertDecision::new(key, record.into(), None, Some(pushed), entropy)?.0)
}

/// Whether the decision was inserted.
pub fn decision_inserted(receipt: &DecisionInsertion) -> bool {
    receipt.outcome == Insertion::Done
}

/// Whether there was no room for the decision.
pub fn decision_full(receipt: &DecisionInsertion) -> bool {
    receipt.outcome == Insertion::Full
}

/// Whether there was no room for the pushed request.
pub fn pushed_full(receipt: &PushedInsertion) -> bool {
    receipt.outcome == Insertion::Full
}

/// Whether there was no room for the client.
pub fn client_full(receipt: &ClientInsertion) -> bool {
    receipt.outcome == Insertion::Full
}

/// [`InsertPushed`] of a request of that client, which is the operator's and has proved it, or anybody's.
///
/// # Errors
/// [`EntropyUnavailable`]
pub fn insert_pushed(
    key: SecretDigest,
    client_id: ClientId,
    of_operator: bool,
    not_after: OffsetDateTime,
    entropy: &mut dyn Entropy,
) -> Result<InsertPushed, EntropyUnavailable> {
    let record = PushedRecord { client_id, query: String::from("scope=read"), not_after };
    Ok(InsertPushed::new(key, record, of_operator, entropy)?.0)
}

/// Whether a pushed request waits under the key: a read of it.
pub fn read_pushed(key: SecretDigest) -> ReadPushed {
    ReadPushed::new(key)
}

/// What was found.
pub fn pushed_found(found: PushedFound) -> Option<PushedRecord> {
    found.record
}

/// [`DecideOnce`] by a browser and a person.
///
/// # Errors
/// [`EntropyUnavailable`]
pub fn decide_once(
    decision: SecretDigest,
    agent: AgentBinding,
    subject: &str,
    code: Option<(SecretDigest, CodeRecord)>,
    entropy: &mut dyn Entropy,
) -> Result<DecideOnce, EntropyUnavailable> {
    decide_and_remember(decision, agent, subject, code, None, entropy)
}

/// [`DecideOnce`] by a browser and a person, with a consent to remember.
///
/// # Errors
/// [`EntropyUnavailable`]
pub fn decide_and_remember(
    decision: SecretDigest,
    agent: AgentBinding,
    subject: &str,
    code: Option<(SecretDigest, CodeRecord)>,
    remember: Option<ConsentRecord>,
    entropy: &mut dyn Entropy,
) -> Result<DecideOnce, EntropyUnavailable> {
    let basis = Basis::Answer { decision, agent, subject: subject.into() };
    let remember = remember.map(|record| (record.key(), record));
    Ok(DecideOnce::new(basis, code.map(shared), remember, entropy)?.0)
}

/// [`DecideOnce`] on a remembered consent.
///
/// # Errors
/// [`EntropyUnavailable`]
pub fn decide_remembered(
    key: SecretDigest,
    code: (SecretDigest, CodeRecord),
    entropy: &mut dyn Entropy,
) -> Result<DecideOnce, EntropyUnavailable> {
    Ok(DecideOnce::new(Basis::Remembered(key), Some(shared(code)), None, entropy)?.0)
}

/// [`ReadConsent`] of a key.
pub fn read_consent(key: SecretDigest) -> ReadConsent {
    ReadConsent::new(key)
}

/// What was found.
pub fn consent_found(found: ConsentFound) -> Option<(ConsentRecord, Epochs)> {
    found.record
}

/// [`UpdateClient`] from one record to another.
///
/// # Errors
/// [`EntropyUnavailable`]
pub fn update_client(
    expected: &ClientRecord,
    record: ClientRecord,
    entropy: &mut dyn Entropy,
) -> Result<UpdateClient, EntropyUnavailable> {
    Ok(UpdateClient::new(SecretDigest::of(&expected.to_bytes()), record, entropy)?.0)
}

/// Whether the client was updated.
pub fn client_updated(receipt: &ClientUpdate) -> bool {
    receipt.outcome == UpdateOutcome::Done
}

/// [`DeleteClient`] of a record.
///
/// # Errors
/// [`EntropyUnavailable`]
pub fn delete_client(
    expected: &ClientRecord,
    entropy: &mut dyn Entropy,
) -> Result<DeleteClient, EntropyUnavailable> {
    let digest = SecretDigest::of(&expected.to_bytes());
    Ok(DeleteClient::new(digest, expected.client_id.clone(), entropy)?.0)
}

/// Whether the client was deleted.
pub fn client_deleted(receipt: &ClientDeletion) -> bool {
    receipt.outcome == UpdateOutcome::Done
}

/// [`ReadCode`] of a digest.
pub fn read_code(digest: SecretDigest) -> ReadCode {
    ReadCode::new(digest)
}

/// [`RedeemCode`] for a grant.
///
/// # Errors
/// [`EntropyUnavailable`]
pub fn redeem_code(
    digest: SecretDigest,
    grant: GrantRecord,
    refresh: Option<(SecretDigest, RefreshRecord)>,
    access: Option<(SecretDigest, AccessRecord)>,
    entropy: &mut dyn Entropy,
) -> Result<RedeemCode, EntropyUnavailable> {
    Ok(RedeemCode::new(digest, grant.into(), refresh.map(shared), access.map(shared), entropy)?.0)
}

/// [`ReadAccess`] of a digest.
pub fn read_access(digest: SecretDigest) -> ReadAccess {
    ReadAccess::new(digest)
}

/// What was found.
pub fn access_found(found: AccessFound) -> Option<AccessRecord> {
    found.record.map(Arc::unwrap_or_clone)
}

/// [`ReadGrant`] of a family.
pub fn read_grant(family: FamilyId) -> ReadGrant {
    ReadGrant::new(family)
}

/// What was found.
pub fn grant_found(found: GrantFound) -> Option<GrantRecord> {
    found.record.map(Arc::unwrap_or_clone)
}

/// [`ReadRefresh`] of a digest.
pub fn read_refresh(digest: SecretDigest) -> ReadRefresh {
    ReadRefresh::new(digest)
}

/// [`RotateRefresh`] from a generation to a successor, or the repetition of that.
///
/// # Errors
/// [`EntropyUnavailable`]
pub fn rotate_refresh(
    (presented, presented_generation): (SecretDigest, u64),
    (successor_digest, successor): (SecretDigest, RefreshRecord),
    access: Option<(SecretDigest, AccessRecord)>,
    repeats: Option<u32>,
    entropy: &mut dyn Entropy,
) -> Result<RotateRefresh, EntropyUnavailable> {
    let request = SecretDigest::of(b"the request");
    let successor = Arc::new(successor);
    let rotation =
        Rotation { presented, presented_generation, request, successor_digest, successor, repeats };
    Ok(RotateRefresh::new(rotation, access.map(shared), entropy)?.0)
}

/// What a store noted about a retired token: when, of which request, repeated how often, successor unused.
pub fn retirement(found: &RefreshFound) -> Option<(OffsetDateTime, SecretDigest, u32, bool)> {
    let noted = found.retirement?;
    Some((noted.at, noted.request, noted.repeats, noted.successor_unused))
}

/// [`RevokeFamily`] of a grant.
///
/// # Errors
/// [`EntropyUnavailable`]
pub fn revoke_family(
    grant: &GrantRecord,
    entropy: &mut dyn Entropy,
) -> Result<RevokeFamily, EntropyUnavailable> {
    Ok(RevokeFamily::new(grant, RevocationReason::ClientRequest, entropy)?.0)
}

/// [`ReserveOnce`] of an identifier.
pub fn reserve_once(issuer: &str, audience: Issuer, value: &str, until: OffsetDateTime) -> ReserveOnce {
    ReserveOnce::new(
        ReservationKind::ClientAssertion,
        (issuer.to_string(), audience, value.to_string()),
        until,
    )
}

/// What was found, and the store's clock.
pub fn client_found(found: ClientFound) -> (Option<ClientRecord>, OffsetDateTime) {
    (found.record.map(Arc::unwrap_or_clone), found.now)
}

/// Whether the client was inserted.
pub fn client_inserted(receipt: &ClientInsertion) -> bool {
    receipt.outcome == Insertion::Done
}

/// What was found, and the store's clock.
pub fn decision_found(found: DecisionFound) -> (Option<(DecisionRecord, Epochs)>, OffsetDateTime) {
    let record = found.record.map(|pending| (Arc::unwrap_or_clone(pending.record), pending.epochs));
    (record, found.now)
}

/// The client of what was found, as it is today.
pub fn client_of_decision(found: &DecisionFound) -> Option<&ClientRecord> {
    found.record.as_ref()?.client.as_deref()
}

/// What the decision met.
pub fn decided(receipt: &DecisionTaken) -> Decided {
    match receipt.outcome {
        DecisionOutcome::Stored => Decided::Stored,
        DecisionOutcome::NotYours => Decided::NotYours,
        DecisionOutcome::Absent => Decided::Absent,
    }
}

/// What was found, and the store's clock.
pub fn code_found(found: CodeFound) -> (Seen<CodeRecord>, OffsetDateTime) {
    (seen(found.state), found.now)
}

/// What the redemption met.
pub fn redemption(receipt: &CodeRedemption) -> Seen<()> {
    outcome(receipt.outcome)
}

/// What was found, and the store's clock.
pub fn refresh_found(found: RefreshFound) -> (Seen<RefreshRecord>, OffsetDateTime) {
    (seen(found.state), found.now)
}

/// What the rotation met.
pub fn rotation(receipt: &RefreshRotation) -> Seen<()> {
    outcome(receipt.outcome)
}

fn seen<R: Clone>(state: store::FoundState<Arc<R>>) -> Seen<R> {
    match state {
        store::FoundState::Live(record) => Seen::Live(Arc::unwrap_or_clone(record)),
        store::FoundState::Used(record) => Seen::Used(Arc::unwrap_or_clone(record)),
        store::FoundState::Absent => Seen::Absent,
    }
}

fn shared<K, R>((key, record): (K, R)) -> (K, Arc<R>) {
    (key, Arc::new(record))
}

fn outcome(outcome: store::Outcome) -> Seen<()> {
    match outcome {
        store::Outcome::Done => Seen::Live(()),
        store::Outcome::Used => Seen::Used(()),
        store::Outcome::Revoked => Seen::Revoked,
        store::Outcome::Absent => Seen::Absent,
    }
}

/// A registered public client.
///
/// # Errors
/// [`InvalidIdentifier`] where `id` is none.
pub fn sample_client(id: &str, created: OffsetDateTime) -> Result<ClientRecord, InvalidIdentifier> {
    Ok(ClientRecord {
        client_id: ClientId::new(id)?,
        origin: ClientOrigin::Registered,
        credential: ClientCredential::None,
        metadata: ClientMetadata {
            redirect_uris: [redirect_uri()?].into(),
            client_name: Some(String::from("Notes")),
            ..ClientMetadata::default()
        },
        created,
        management: None,
        gone_since: None,
        configured: false,
        initial_access: false,
    })
}

/// A grant of `subject` to `client`, made at `now`, that ends an hour later.
///
/// # Errors
/// [`InvalidIdentifier`] where `client` is none.
pub fn sample_grant(
    family: FamilyId,
    client: &str,
    subject: &str,
    epochs: Epochs,
    now: OffsetDateTime,
) -> Result<GrantRecord, InvalidIdentifier> {
    Ok(GrantRecord {
        family,
        client_id: ClientId::new(client)?,
        subject: subject.into(),
        resource: ResourceId::new("https://notes.example/mcp")?,
        scope: ScopeSet::new(),
        epochs,
        authenticated: now,
        not_after: now.saturating_add(Duration::hours(1)),
    })
}

/// A code of a grant, that ends a minute after its person authenticated.
///
/// # Errors
/// [`InvalidIdentifier`]
pub fn sample_code(grant: GrantRecord) -> Result<CodeRecord, InvalidIdentifier> {
    Ok(CodeRecord {
        challenge: [7; 32],
        redirect_uri: redirect_uri()?,
        refresh: true,
        expires: grant.authenticated.saturating_add(Duration::minutes(1)),
        grant: grant.into(),
    })
}

/// An opaque access token of a grant, that ends five minutes after its person authenticated.
pub fn sample_access(grant: GrantRecord) -> AccessRecord {
    AccessRecord {
        scope: ScopeSet::new(),
        issued: grant.authenticated,
        expires: grant.authenticated.saturating_add(Duration::minutes(5)),
        grant: grant.into(),
    }
}

/// A consent that the person of a grant wants remembered, as long as the grant.
///
/// # Errors
/// [`InvalidIdentifier`]
pub fn sample_consent(grant: &GrantRecord) -> Result<ConsentRecord, InvalidIdentifier> {
    Ok(ConsentRecord {
        subject: grant.subject.clone(),
        client_id: grant.client_id.clone(),
        redirect_uri: redirect_uri()?,
        resource: grant.resource.clone(),
        metadata_digest: SecretDigest::from_bytes([9; 32]),
        scope: grant.scope.clone(),
        epochs: grant.epochs,
        not_after: grant.not_after,
    })
}

/// A refresh token of a grant.
pub fn sample_refresh(grant: GrantRecord, generation: u64) -> RefreshRecord {
    RefreshRecord { generation, expires: grant.not_after, grant: grant.into() }
}

/// A decision that waits for `subject` in the browser `agent`, until ten minutes after `now`.
///
/// # Errors
/// [`InvalidIdentifier`] where `client` is none.
pub fn sample_decision(
    client: &str,
    subject: &str,
    agent: AgentBinding,
    now: OffsetDateTime,
) -> Result<DecisionRecord, InvalidIdentifier> {
    Ok(DecisionRecord {
        client_id: ClientId::new(client)?,
        redirect_uri: redirect_uri()?,
        resource: ResourceId::new("https://notes.example/mcp")?,
        scope: ScopeSet::new(),
        state: None,
        challenge: CodeChallenge::from_bytes([7; 32]),
        refresh: true,
        agent,
        subject: subject.into(),
        authenticated: now,
        csrf: SecretDigest::from_bytes([8; 32]),
        rememberable: None,
        not_after: now.saturating_add(Duration::minutes(10)),
    })
}

fn redirect_uri() -> Result<RedirectUri, InvalidIdentifier> {
    RedirectUri::new("https://client.example/callback")
}
