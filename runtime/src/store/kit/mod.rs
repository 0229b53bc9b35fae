//! The contract of a store as tests: every store runs [`run`] and must come through.
//!
//! The checks follow the table in [`mcp_authz::authorization_server::store`]. A failure names the sentence that does
//! not hold.

use std::future::Future;
use std::sync::Arc;

use mcp_authz::authorization_server::record::{
    AccessRecord, ClientOrigin, ClientRecord, Epochs, FamilyId, GrantRecord, RefreshRecord,
};
use mcp_authz::authorization_server::store::{RevocationTarget, RevokeAll};
use mcp_authz::authorization_server::test_kit::{self as core, Decided, Seen};
use mcp_authz::entropy::{Entropy as _, EntropyUnavailable};
use mcp_authz::identifier::{ClientId, InvalidIdentifier, Issuer};
use mcp_authz::secret::{AgentBinding, InvalidSecret, SecretDigest};
use mcp_authz::time::{Duration, OffsetDateTime};

use super::{AdministeredStore, Store, StoreError};
use crate::entropy::OsEntropy;

mod administration;
mod later;

/// How many tasks try the same thing at once.
const RACERS: usize = 20;

/// Why the kit could not go on.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// A sentence of the contract does not hold.
    #[error("the store breaks its contract: {0}")]
    Broken(&'static str),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// No randomness for the test's own keys.
    #[error("no randomness")]
    Entropy(#[from] EntropyUnavailable),
    /// A sample does not parse.
    #[error("a sample is malformed: {0}")]
    Identifier(#[from] InvalidIdentifier),
    /// A sample does not parse.
    #[error("a sample is malformed: {0}")]
    Secret(#[from] InvalidSecret),
    /// A task of a race did not end.
    #[error("a task of a race did not end")]
    Task(#[from] tokio::task::JoinError),
}

type Checked = Result<(), KitError>;

fn holds(sentence: &'static str, condition: bool) -> Checked {
    if condition { Ok(()) } else { Err(KitError::Broken(sentence)) }
}

/// Runs every check, each on a store of its own that `make` gives; needs a tokio runtime with several threads.
///
/// # Errors
/// [`KitError::Broken`] with the first sentence that does not hold.
pub async fn run<S, F>(make: impl Fn() -> F) -> Result<(), KitError>
where
    S: Store,
    F: Future<Output = S>,
{
    registration_never_overwrites(make().await).await?;
    a_metadata_document_replaces_only_its_like(make().await).await?;
    the_operator_overwrites(make().await).await?;
    a_decision_is_taken_once_by_whom_it_was_shown(make().await).await?;
    a_denial_consumes_and_stores_nothing(make().await).await?;
    a_decision_race_has_one_winner(make().await).await?;
    a_code_is_redeemed_once(make().await).await?;
    a_redemption_race_has_one_winner(make().await).await?;
    a_refresh_token_is_rotated_once(make().await).await?;
    a_rotation_race_has_one_winner(make().await).await?;
    a_tombstone_stops_everything(make().await).await?;
    a_tombstone_holds_for_a_family_not_yet_known(make().await).await?;
    revocation_races_leave_no_live_token(make().await).await?;
    for target in 0..3_u8 {
        a_moved_epoch_revokes(make().await, target).await?;
    }
    an_identifier_is_reserved_once(make().await).await?;
    a_sweep_keeps_what_is_needed(make().await).await?;
    later::run(&make).await
}

/// Runs [`run`], and what an operator and the rotation of keys need.
///
/// # Errors
/// As [`run`].
pub async fn run_administered<S, F>(make: impl Fn() -> F) -> Result<(), KitError>
where
    S: AdministeredStore,
    F: Future<Output = S>,
{
    run(&make).await?;
    administration::run(&make).await
}

/// One person's way through a store: a decision, a code, its grant and first refresh token.
#[derive(Debug, Clone)]
pub struct Path {
    /// The key of the decision.
    pub decision: SecretDigest,
    /// The digest of the code.
    pub code: SecretDigest,
    /// The digest of the first refresh token.
    pub refresh: SecretDigest,
    /// The browser.
    pub agent: AgentBinding,
    /// What is granted.
    pub grant: GrantRecord,
}

const SUBJECT: &str = "ada";

impl Path {
    /// Fresh keys for the client `client`, under epochs that never moved.
    ///
    /// # Errors
    /// [`KitError`] where the samples cannot be built.
    pub fn fresh(client: &str, now: OffsetDateTime) -> Result<Self, KitError> {
        Ok(Self {
            decision: random_digest()?,
            code: random_digest()?,
            refresh: random_digest()?,
            agent: AgentBinding::session(&random::<16>()?)?,
            grant: core::sample_grant(
                FamilyId::from_bytes(random()?),
                client,
                SUBJECT,
                Epochs::default(),
                now,
            )?,
        })
    }

    /// Stores the decision.
    ///
    /// # Errors
    /// [`KitError`]
    pub async fn ask(&self, store: &impl Store) -> Result<(), KitError> {
        let record = core::sample_decision(
            self.grant.client_id.as_str(),
            &self.grant.subject,
            self.agent,
            self.grant.authenticated,
        )?;
        let insert = core::insert_decision(self.decision, record, None, &mut OsEntropy)?;
        let _stored = store.insert_decision(insert).await?;
        Ok(())
    }

    /// Approves it, as `subject` in the browser `agent`.
    ///
    /// # Errors
    /// [`KitError`]
    pub async fn approve(
        &self,
        store: &impl Store,
        agent: AgentBinding,
        subject: &str,
    ) -> Result<Decided, KitError> {
        let code = core::sample_code(self.grant.clone())?;
        let action =
            core::decide_once(self.decision, agent, subject, Some((self.code, code)), &mut OsEntropy)?;
        Ok(core::decided(&store.decide_once(action).await?))
    }

    /// Redeems the code for the grant and the first refresh token.
    ///
    /// # Errors
    /// [`KitError`]
    pub async fn redeem(&self, store: &impl Store, refresh: SecretDigest) -> Result<Seen<()>, KitError> {
        let record = core::sample_refresh(self.grant.clone(), 0);
        let action = core::redeem_code(
            self.code,
            self.grant.clone(),
            Some((refresh, record)),
            Some(self.access()),
            &mut OsEntropy,
        )?;
        Ok(core::redemption(&store.redeem_code(action).await?))
    }

    /// Rotates the token `presented` of a generation to `successor`.
    ///
    /// # Errors
    /// [`KitError`]
    pub async fn rotate(
        &self,
        store: &impl Store,
        presented: SecretDigest,
        generation: u64,
        successor: SecretDigest,
    ) -> Result<Seen<()>, KitError> {
        let record = core::sample_refresh(self.grant.clone(), generation.saturating_add(1));
        let (from, to) = ((presented, generation), (successor, record));
        let action = core::rotate_refresh(from, to, None, None, &mut OsEntropy)?;
        Ok(core::rotation(&store.rotate_refresh(action).await?))
    }

    /// The opaque access token that goes out with the first refresh token.
    #[must_use]
    pub fn access(&self) -> (SecretDigest, AccessRecord) {
        (SecretDigest::of(self.refresh.as_bytes()), core::sample_access(self.grant.clone()))
    }

    /// Revokes the family.
    ///
    /// # Errors
    /// [`KitError`]
    pub async fn revoke(&self, store: &impl Store) -> Result<(), KitError> {
        let _revoked = store.revoke_family(core::revoke_family(&self.grant, &mut OsEntropy)?).await?;
        Ok(())
    }

    /// Withdraws the person's consent to the client.
    ///
    /// # Errors
    /// [`KitError`]
    pub async fn withdraw(&self, store: &impl Store) -> Result<(), KitError> {
        let (subject, client_id) = (self.grant.subject.clone(), self.grant.client_id.clone());
        let target = RevocationTarget::Consent { subject, client_id };
        let _withdrawn = store.revoke_all(RevokeAll::of(target)).await?;
        Ok(())
    }

    async fn ask_and_approve(&self, store: &impl Store) -> Checked {
        self.ask(store).await?;
        let decided = self.approve(store, self.agent, SUBJECT).await?;
        holds("the person to whom it was shown can approve", decided == Decided::Stored)
    }

    async fn up_to_refresh(&self, store: &impl Store) -> Checked {
        self.ask_and_approve(store).await?;
        let redeemed = self.redeem(store, self.refresh).await?;
        holds("a live code under today's epochs is redeemed", redeemed == Seen::Live(()))
    }
}

fn random<const N: usize>() -> Result<[u8; N], KitError> {
    let mut bytes = [0; N];
    OsEntropy.fill(&mut bytes)?;
    Ok(bytes)
}

fn random_digest() -> Result<SecretDigest, KitError> {
    Ok(SecretDigest::from_bytes(random()?))
}

async fn client(store: &impl Store, id: &str) -> Result<(Option<ClientRecord>, OffsetDateTime), KitError> {
    Ok(core::client_found(store.find_client(core::find_client(ClientId::new(id)?)).await?))
}

/// What the store's clock says.
///
/// # Errors
/// [`KitError`]
pub async fn clock(store: &impl Store) -> Result<OffsetDateTime, KitError> {
    Ok(client(store, "nobody").await?.1)
}

/// Whether the refresh token is live, retired or gone.
///
/// # Errors
/// [`KitError`]
pub async fn refresh(store: &impl Store, digest: SecretDigest) -> Result<Seen<RefreshRecord>, KitError> {
    Ok(core::refresh_found(store.read_refresh(core::read_refresh(digest)).await?).0)
}

async fn code(store: &impl Store, path: &Path) -> Result<Seen<()>, KitError> {
    let found = core::code_found(store.read_code(core::read_code(path.code)).await?).0;
    // Compared in their stored form, which holds times to the second.
    let expected = core::sample_code(path.grant.clone())?.to_bytes();
    Ok(match found {
        Seen::Live(record) if record.to_bytes() == expected => Seen::Live(()),
        Seen::Used(record) if record.to_bytes() == expected => Seen::Used(()),
        Seen::Absent => Seen::Absent,
        _ => return Err(KitError::Broken("a read gives the record that was stored")),
    })
}

async fn decision(store: &impl Store, path: &Path) -> Result<Option<Epochs>, KitError> {
    let found = store.read_decision(core::read_decision(path.decision)).await?;
    Ok(core::decision_found(found).0.map(|(_, epochs)| epochs))
}

async fn race<S, T, F>(store: &Arc<S>, attempt: impl Fn(Arc<S>) -> F) -> Result<Vec<T>, KitError>
where
    F: Future<Output = Result<T, KitError>> + Send + 'static,
    T: Send + 'static,
{
    let attempts: Vec<_> = (0..RACERS).map(|_| tokio::spawn(attempt(Arc::clone(store)))).collect();
    let mut results = Vec::new();
    for attempt in attempts {
        results.push(attempt.await??);
    }
    Ok(results)
}

fn count<T: PartialEq>(results: &[T], wanted: &T) -> usize {
    results.iter().filter(|result| *result == wanted).count()
}

/// Registers a client; says whether its identifier was free.
///
/// # Errors
/// [`KitError`]
pub async fn register(store: &impl Store, id: &str, created: OffsetDateTime) -> Result<bool, KitError> {
    let insert = core::insert_client(core::sample_client(id, created)?, &mut OsEntropy)?;
    Ok(core::client_inserted(&store.insert_client(insert).await?))
}

// I-P5
async fn registration_never_overwrites<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    let now = clock(&store).await?;
    let first = core::sample_client("c1", now)?;
    let won = race(&store, |store| {
        let record = first.clone();
        async move {
            let insert = core::insert_client(record, &mut OsEntropy)?;
            Ok(core::client_inserted(&store.insert_client(insert).await?))
        }
    })
    .await?;
    holds("of a race to register one identifier, exactly one is inserted", count(&won, &true) == 1)?;
    let mut second = first.clone();
    second.metadata.client_name = Some("Other".to_owned());
    second.origin = ClientOrigin::MetadataDocument;
    let insert = core::insert_client(second, &mut OsEntropy)?;
    let receipt = store.insert_client(insert).await?;
    holds("a taken identifier is reported as taken", !core::client_inserted(&receipt))?;
    let found = client(&store, "c1").await?.0;
    holds("a client is found as it was stored", found.map(|r| r.to_bytes()) == Some(first.to_bytes()))?;
    holds("an unknown client is absent", client(&store, "c2").await?.0.is_none())
}

async fn a_metadata_document_replaces_only_its_like<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    let mut document = core::sample_client("https://client.example/id", now)?;
    document.origin = ClientOrigin::MetadataDocument;
    let id = document.client_id.as_str().to_owned();
    let mut newer = document.clone();
    newer.created = now.saturating_add(Duration::seconds(5));
    newer.metadata.client_name = Some("Newer".to_owned());
    for (offered, kept) in [(&document, &document), (&newer, &newer), (&document, &newer)] {
        let record = core::sample_decision(&id, SUBJECT, AgentBinding::this_process(), now)?;
        let insert = core::insert_decision(random_digest()?, record, Some(offered.clone()), &mut OsEntropy)?;
        let _stored = store.insert_decision(insert).await?;
        let found = client(&store, &id).await?.0.map(|record| record.to_bytes());
        holds("a metadata document is kept until a newer one comes", found == Some(kept.to_bytes()))?;
    }
    let registered = core::sample_client("c1", now)?;
    let _inserted = store.insert_client(core::insert_client(registered.clone(), &mut OsEntropy)?).await?;
    let mut document = registered.clone();
    document.origin = ClientOrigin::MetadataDocument;
    document.created = newer.created;
    let record = core::sample_decision("c1", SUBJECT, AgentBinding::this_process(), now)?;
    let insert = core::insert_decision(random_digest()?, record, Some(document), &mut OsEntropy)?;
    let _stored = store.insert_decision(insert).await?;
    let found = client(&store, "c1").await?.0.map(|record| record.to_bytes());
    holds("a registered client is not replaced by a document", found == Some(registered.to_bytes()))
}

async fn the_operator_overwrites<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    register(&store, "c1", now).await?;
    let mut record = core::sample_client("c1", now)?;
    record.origin = ClientOrigin::PreRegistered;
    record.metadata.client_name = Some("Configured".to_owned());
    store.put_client(record.clone()).await?;
    let found = client(&store, "c1").await?.0.map(|record| record.to_bytes());
    holds("the operator's record replaces what is there", found == Some(record.to_bytes()))?;
    holds("and is not overwritten by a registration", !register(&store, "c1", now).await?)?;
    let found = client(&store, "c1").await?.0.map(|record| record.to_bytes());
    holds("nor changed by it", found == Some(record.to_bytes()))
}

async fn a_decision_is_taken_once_by_whom_it_was_shown<S: Store>(store: S) -> Checked {
    let path = Path::fresh("c1", clock(&store).await?)?;
    let stranger = AgentBinding::session(&random::<16>()?)?;
    let early = path.approve(&store, path.agent, SUBJECT).await?;
    holds("a decision that was never asked for is absent", early == Decided::Absent)?;
    path.ask(&store).await?;
    for (agent, subject) in
        [(stranger, SUBJECT), (path.agent, "eve"), (AgentBinding::this_process(), SUBJECT)]
    {
        let decided = path.approve(&store, agent, subject).await?;
        holds("another browser or person is refused", decided == Decided::NotYours)?;
        holds("and changes no decision", decision(&store, &path).await? == Some(Epochs::default()))?;
        holds("and stores no code", code(&store, &path).await? == Seen::Absent)?;
    }
    let decided = path.approve(&store, path.agent, SUBJECT).await?;
    holds("the person to whom it was shown can approve", decided == Decided::Stored)?;
    holds("a decision that was taken is gone", decision(&store, &path).await?.is_none())?;
    holds("its code is live", code(&store, &path).await? == Seen::Live(()))?;
    let mut again = path.clone();
    again.code = random_digest()?;
    let decided = again.approve(&store, path.agent, SUBJECT).await?;
    holds("a second decision is absent", decided == Decided::Absent)?;
    holds("and stores no second code", code(&store, &again).await? == Seen::Absent)
}

async fn a_denial_consumes_and_stores_nothing<S: Store>(store: S) -> Checked {
    let path = Path::fresh("c1", clock(&store).await?)?;
    path.ask(&store).await?;
    let action = core::decide_once(path.decision, path.agent, SUBJECT, None, &mut OsEntropy)?;
    let denied = core::decided(&store.decide_once(action).await?);
    holds("a person can deny", denied == Decided::Stored)?;
    let decided = path.approve(&store, path.agent, SUBJECT).await?;
    holds("a denied request cannot be approved", decided == Decided::Absent)?;
    holds("a denial stores no code", code(&store, &path).await? == Seen::Absent)
}

async fn a_decision_race_has_one_winner<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    let path = Path::fresh("c1", clock(&store).await?)?;
    path.ask(&store).await?;
    let decided = race(&store, |store| {
        let mut path = path.clone();
        async move {
            path.code = random_digest()?;
            path.grant.family = FamilyId::from_bytes(random()?);
            path.approve(&store, path.agent, SUBJECT).await
        }
    })
    .await?;
    holds("of a race to decide, exactly one is stored", count(&decided, &Decided::Stored) == 1)?;
    holds("and the others are absent", count(&decided, &Decided::Absent) == RACERS.saturating_sub(1))
}

// OAUTH21-4.1.3-1, I-C1
async fn a_code_is_redeemed_once<S: Store>(store: S) -> Checked {
    let path = Path::fresh("c1", clock(&store).await?)?;
    holds("an unknown code is absent", path.redeem(&store, path.refresh).await? == Seen::Absent)?;
    path.ask_and_approve(&store).await?;
    for _ in 0..3 {
        holds("a read changes nothing", code(&store, &path).await? == Seen::Live(()))?;
    }
    let mut other = path.clone();
    other.grant.family = Path::fresh("c1", clock(&store).await?)?.grant.family;
    let redeemed = other.redeem(&store, path.refresh).await?;
    holds("a code is not redeemed into another family", redeemed == Seen::Absent)?;
    let redeemed = path.redeem(&store, path.refresh).await?;
    holds("a live code is redeemed", redeemed == Seen::Live(()))?;
    holds("a redeemed code is spent", code(&store, &path).await? == Seen::Used(()))?;
    let second = random_digest()?;
    let replayed = path.redeem(&store, second).await?;
    holds("a spent code is a replay", replayed == Seen::Used(()))?;
    holds("a replay inserts no token", refresh(&store, second).await? == Seen::Absent)?;
    let live = matches!(refresh(&store, path.refresh).await?, Seen::Live(record) if record.generation == 0);
    holds("a replay changes no token", live)
}

async fn a_redemption_race_has_one_winner<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    let path = Path::fresh("c1", clock(&store).await?)?;
    path.ask_and_approve(&store).await?;
    let redeemed = race(&store, |store| {
        let path = path.clone();
        async move {
            let token = random_digest()?;
            let redeemed = path.redeem(&store, token).await?;
            let live = matches!(refresh(&store, token).await?, Seen::Live(_));
            holds("exactly the winner's token is live", live == (redeemed == Seen::Live(())))?;
            Ok(redeemed)
        }
    })
    .await?;
    holds("of a race to redeem, exactly one wins", count(&redeemed, &Seen::Live(())) == 1)?;
    holds("and the others are replays", count(&redeemed, &Seen::Used(())) == RACERS.saturating_sub(1))
}

// OAUTH21-4.3.1-3, I-T1
async fn a_refresh_token_is_rotated_once<S: Store>(store: S) -> Checked {
    let path = Path::fresh("c1", clock(&store).await?)?;
    let (second, third) = (random_digest()?, random_digest()?);
    holds("an unknown token is absent", path.rotate(&store, path.refresh, 0, second).await? == Seen::Absent)?;
    path.up_to_refresh(&store).await?;
    for _ in 0..3 {
        let found = refresh(&store, path.refresh).await?;
        holds("a read changes nothing", matches!(found, Seen::Live(_)))?;
    }
    let rotated = path.rotate(&store, path.refresh, 1, second).await?;
    holds("a generation that is not the token's is absent", rotated == Seen::Absent)?;
    let rotated = path.rotate(&store, path.refresh, 0, second).await?;
    holds("a leaf is rotated", rotated == Seen::Live(()))?;
    let found = refresh(&store, path.refresh).await?;
    holds("what was presented is retired", matches!(found, Seen::Used(record) if record.generation == 0))?;
    let rotated = path.rotate(&store, path.refresh, 0, third).await?;
    holds("a retired token is told from an unknown one", rotated == Seen::Used(()))?;
    holds("and inserts nothing", refresh(&store, third).await? == Seen::Absent)?;
    let found = refresh(&store, second).await?;
    holds("the successor stays live", matches!(found, Seen::Live(record) if record.generation == 1))?;
    let rotated = path.rotate(&store, second, 1, third).await?;
    holds("the successor is rotated in its turn", rotated == Seen::Live(()))?;
    let found = refresh(&store, path.refresh).await?;
    holds("a retired token stays retired", matches!(found, Seen::Used(_)))
}

async fn a_rotation_race_has_one_winner<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    let path = Path::fresh("c1", clock(&store).await?)?;
    path.up_to_refresh(&store).await?;
    let rotated = race(&store, |store| {
        let path = path.clone();
        async move {
            let token = random_digest()?;
            let rotated = path.rotate(&store, path.refresh, 0, token).await?;
            let live = matches!(refresh(&store, token).await?, Seen::Live(_));
            holds("a family never has two live leaves", live == (rotated == Seen::Live(())))?;
            Ok(rotated)
        }
    })
    .await?;
    holds("of a race to rotate, exactly one wins", count(&rotated, &Seen::Live(())) == 1)?;
    holds("and the others find it retired", count(&rotated, &Seen::Used(())) == RACERS.saturating_sub(1))
}

async fn a_tombstone_stops_everything<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    let path = Path::fresh("c1", now)?;
    path.ask_and_approve(&store).await?;
    path.revoke(&store).await?;
    let redeemed = path.redeem(&store, path.refresh).await?;
    holds("a code of a revoked family is not redeemed", redeemed == Seen::Revoked)?;
    holds("and no token is inserted", refresh(&store, path.refresh).await? == Seen::Absent)?;
    holds("and the code is not spent", code(&store, &path).await? == Seen::Live(()))?;

    let path = Path::fresh("c1", now)?;
    let successor = random_digest()?;
    path.up_to_refresh(&store).await?;
    path.revoke(&store).await?;
    path.revoke(&store).await?;
    let rotated = path.rotate(&store, path.refresh, 0, successor).await?;
    holds("a leaf of a revoked family is not rotated", rotated == Seen::Revoked)?;
    holds("and is not read", refresh(&store, path.refresh).await? == Seen::Absent)?;
    holds("and no successor is inserted", refresh(&store, successor).await? == Seen::Absent)
}

async fn a_tombstone_holds_for_a_family_not_yet_known<S: Store>(store: S) -> Checked {
    let path = Path::fresh("c1", clock(&store).await?)?;
    path.ask(&store).await?;
    path.revoke(&store).await?;
    let code = core::sample_code(path.grant.clone())?;
    let action =
        core::decide_once(path.decision, path.agent, SUBJECT, Some((path.code, code)), &mut OsEntropy)?;
    // A store may refuse the approval or take it: no token may come of it.
    let _either = store.decide_once(action).await;
    let redeemed = path.redeem(&store, path.refresh).await?;
    let refused = matches!(redeemed, Seen::Revoked | Seen::Absent);
    holds("nothing is inserted into a family whose tombstone came first", refused)?;
    holds("and no token is live", refresh(&store, path.refresh).await? == Seen::Absent)
}

/// Whatever order a revocation and twenty redemptions or rotations take: afterwards nothing of the grant is live.
async fn revocation_races_leave_no_live_token<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    for (client, rotates, withdraws) in
        [("c1", false, false), ("c2", false, true), ("c3", true, false), ("c4", true, true)]
    {
        let path = Path::fresh(client, clock(&store).await?)?;
        if rotates {
            path.up_to_refresh(&store).await?;
        } else {
            path.ask_and_approve(&store).await?;
        }
        let revoker = {
            let (path, store) = (path.clone(), Arc::clone(&store));
            tokio::spawn(async move {
                if withdraws { path.withdraw(&store).await } else { path.revoke(&store).await }
            })
        };
        let tokens = race(&store, |store| {
            let path = path.clone();
            async move {
                let token = random_digest()?;
                let _any = if rotates {
                    path.rotate(&store, path.refresh, 0, token).await?
                } else {
                    path.redeem(&store, token).await?
                };
                Ok(token)
            }
        })
        .await?;
        revoker.await??;
        for token in tokens.into_iter().chain([path.refresh]) {
            holds("no token outlives its grant", refresh(&store, token).await? == Seen::Absent)?;
        }
    }
    Ok(())
}

async fn a_moved_epoch_revokes<S: Store>(store: S, target: u8) -> Checked {
    let now = clock(&store).await?;
    let (client_id, subject) = (ClientId::new("c1")?, SUBJECT.to_owned());
    let (target, moved) = match target {
        0 => (RevocationTarget::Client(client_id), Epochs::new(1, 0, 0)),
        1 => (RevocationTarget::Subject(subject), Epochs::new(0, 1, 0)),
        _ => (RevocationTarget::Consent { subject, client_id }, Epochs::new(0, 0, 1)),
    };
    let (asked, approved, refreshed) =
        (Path::fresh("c1", now)?, Path::fresh("c1", now)?, Path::fresh("c1", now)?);
    let mut bystander = Path::fresh("c2", now)?;
    bystander.grant.subject = "bob".to_owned();
    asked.ask(&store).await?;
    approved.ask_and_approve(&store).await?;
    refreshed.up_to_refresh(&store).await?;
    bystander.ask(&store).await?;
    let _stored = bystander.approve(&store, bystander.agent, "bob").await?;

    let _revoked = store.revoke_all(RevokeAll::of(target)).await?;

    holds("a pending decision sees the new epoch", decision(&store, &asked).await? == Some(moved))?;
    let redeemed = approved.redeem(&store, approved.refresh).await?;
    holds("a code under an older epoch is not redeemed", redeemed == Seen::Revoked)?;
    holds("and stays unspent", code(&store, &approved).await? == Seen::Live(()))?;
    let rotated = refreshed.rotate(&store, refreshed.refresh, 0, random_digest()?).await?;
    holds("a token under an older epoch is not rotated", rotated == Seen::Revoked)?;
    holds("and is not read", refresh(&store, refreshed.refresh).await? == Seen::Absent)?;
    let redeemed = bystander.redeem(&store, bystander.refresh).await?;
    holds("others are not touched", redeemed == Seen::Live(()))?;
    let mut later = Path::fresh("c1", now)?;
    later.grant.epochs = moved;
    later.up_to_refresh(&store).await
}

async fn an_identifier_is_reserved_once<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    let until = clock(&store).await?.saturating_add(Duration::minutes(5));
    let audience = Issuer::new("https://as.example")?;
    let won = race(&store, |store| {
        let audience = audience.clone();
        async move {
            let action = core::reserve_once("c1", audience, "j1", until);
            Ok(store.reserve_once(action).await?.reserves("j1"))
        }
    })
    .await?;
    holds("of a race to reserve, exactly one wins", count(&won, &true) == 1)?;
    let elsewhere = Issuer::new("https://as.example/t")?;
    // The last two have the same bytes in a row.
    for (issuer, audience, value) in
        [("c1", &audience, "j2"), ("c2", &audience, "j1"), ("c1", &elsewhere, "j1"), ("c", &audience, "1j1")]
    {
        let action = core::reserve_once(issuer, audience.clone(), value, until);
        let reserved = store.reserve_once(action).await?.reserves(value);
        holds("all parts of a reservation make its key", reserved)?;
    }
    let ended = clock(&store).await?.saturating_sub(Duration::seconds(1));
    for _ in 0..2 {
        let action = core::reserve_once("c1", audience.clone(), "ended", ended);
        let reserved = store.reserve_once(action).await?.reserves("ended");
        holds("a reservation that has ended is free again", reserved)?;
    }
    Ok(())
}

async fn a_sweep_keeps_what_is_needed<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    let ended = |ago: Duration| -> Result<Path, KitError> {
        let mut path = Path::fresh("c1", now)?;
        let made = now.saturating_sub(ago).saturating_sub(Duration::hours(1));
        path.grant = core::sample_grant(path.grant.family, "c1", SUBJECT, path.grant.epochs, made)?;
        Ok(path)
    };
    let (live, recent) = (Path::fresh("c1", now)?, ended(Duration::minutes(19))?);
    let (over, revoked) = (ended(Duration::minutes(21))?, ended(Duration::minutes(19))?);
    for path in [&live, &recent, &over] {
        path.up_to_refresh(&store).await?;
    }
    revoked.ask_and_approve(&store).await?;
    revoked.revoke(&store).await?;
    let (mut pending, mut late) = (Path::fresh("c1", now)?, Path::fresh("c1", now)?);
    pending.grant.authenticated = now.saturating_sub(Duration::minutes(9));
    late.grant.authenticated = now.saturating_sub(Duration::minutes(11));
    pending.ask(&store).await?;
    late.ask(&store).await?;
    // "used" is used by a grant of its own; a grant of the others is only asked for.
    for (id, days) in [("new", 29), ("old", 31), ("used", 31)] {
        register(&store, id, now.saturating_sub(Duration::days(days))).await?;
    }
    Path::fresh("used", now)?.up_to_refresh(&store).await?;
    let mut operator = core::sample_client("operator", now.saturating_sub(Duration::days(999)))?;
    operator.origin = ClientOrigin::PreRegistered;
    store.put_client(operator).await?;

    store.sweep().await?;

    holds("what is over is gone", code(&store, &over).await? == Seen::Absent)?;
    holds("its tokens too", refresh(&store, over.refresh).await? == Seen::Absent)?;
    for path in [&live, &recent] {
        holds(
            "a spent code stays while a token of it may live",
            code(&store, path).await? == Seen::Used(()),
        )?;
        let kept = matches!(refresh(&store, path.refresh).await?, Seen::Live(_));
        holds("and so does its refresh token", kept)?;
    }
    let redeemed = revoked.redeem(&store, revoked.refresh).await?;
    holds("and so does a tombstone", redeemed == Seen::Revoked)?;
    holds("a pending decision stays", decision(&store, &pending).await?.is_some())?;
    holds("a late one goes", decision(&store, &late).await?.is_none())?;
    // D40
    for (id, kept) in [("new", true), ("old", false), ("used", true), ("operator", true)] {
        let found = client(&store, id).await?.0.is_some();
        holds("a client goes when it was never used in 30 days, and no other", found == kept)?;
    }
    Ok(())
}
