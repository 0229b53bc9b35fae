//! For the tests of a store: builds actions from records, and reads what a receipt says.
//!
//! Behind the feature `test-kit`, hidden, and outside the version promise. It weakens no server that is built with
//! it: an action is a request and proves nothing. Its receipt carries an id drawn here, which no waiting state has,
//! so every state refuses it as another's; and what a read found can be claimed by any host without this module.
//! Nothing here makes a receipt, a state or evidence.

use alloc::string::{String, ToString as _};

use super::record::{
    ClientCredential, ClientOrigin, ClientRecord, CodeRecord, DecisionRecord, Epochs, FamilyId, GrantRecord,
    RefreshRecord,
};
use super::store;
use super::store::{
    ClientFound, ClientInsertion, CodeFound, CodeRedemption, DecideOnce, DecisionFound, DecisionOutcome,
    DecisionTaken, FindClient, InsertClient, InsertDecision, ReadCode, ReadDecision, ReadRefresh, RedeemCode,
    RefreshFound, RefreshRotation, ReservationKind, ReserveOnce, RevocationReason, RevokeFamily,
    RotateRefresh,
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
    Ok(InsertDecision::new(key, record, client, entropy)?.0)
}

/// [`ReadDecision`] of a key.
pub fn read_decision(key: SecretDigest) -> ReadDecision {
    ReadDecision::new(key)
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
    Ok(DecideOnce::new(decision, agent, subject.to_string(), code, entropy)?.0)
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
    entropy: &mut dyn Entropy,
) -> Result<RedeemCode, EntropyUnavailable> {
    Ok(RedeemCode::new(digest, grant, refresh, entropy)?.0)
}

/// [`ReadRefresh`] of a digest.
pub fn read_refresh(digest: SecretDigest) -> ReadRefresh {
    ReadRefresh::new(digest)
}

/// [`RotateRefresh`] from a generation to a successor.
///
/// # Errors
/// [`EntropyUnavailable`]
pub fn rotate_refresh(
    presented: SecretDigest,
    generation: u64,
    successor_digest: SecretDigest,
    successor: RefreshRecord,
    entropy: &mut dyn Entropy,
) -> Result<RotateRefresh, EntropyUnavailable> {
    Ok(RotateRefresh::new(presented, generation, successor_digest, successor, entropy)?.0)
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
    (found.record, found.now)
}

/// Whether the client was inserted.
pub fn client_inserted(receipt: &ClientInsertion) -> bool {
    receipt.inserted
}

/// What was found, and the store's clock.
pub fn decision_found(found: DecisionFound) -> (Option<(DecisionRecord, Epochs)>, OffsetDateTime) {
    (found.record, found.now)
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

fn seen<R>(state: store::FoundState<R>) -> Seen<R> {
    match state {
        store::FoundState::Live(record) => Seen::Live(record),
        store::FoundState::Used(record) => Seen::Used(record),
        store::FoundState::Absent => Seen::Absent,
    }
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
        subject: subject.to_string(),
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
        grant,
    })
}

/// A refresh token of a grant.
pub fn sample_refresh(grant: GrantRecord, generation: u64) -> RefreshRecord {
    RefreshRecord { generation, expires: grant.not_after, grant }
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
        registered_redirect_uri: redirect_uri()?,
        redirect_uri: redirect_uri()?,
        resource: ResourceId::new("https://notes.example/mcp")?,
        scope: ScopeSet::new(),
        state: None,
        challenge: CodeChallenge::from_bytes([7; 32]),
        refresh: true,
        agent,
        subject: subject.to_string(),
        authenticated: now,
        csrf: SecretDigest::from_bytes([8; 32]),
        metadata_digest: SecretDigest::from_bytes([9; 32]),
        not_after: now.saturating_add(Duration::minutes(10)),
    })
}

fn redirect_uri() -> Result<RedirectUri, InvalidIdentifier> {
    RedirectUri::new("https://client.example/callback")
}
