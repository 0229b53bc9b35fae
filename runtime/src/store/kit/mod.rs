//! The contract of a store as tests: every store runs [`run`] and must come through.
//!
//! The checks follow the table in [`mcp_authz::authorization_server::store`]. A failure names the sentence that does
//! not hold.

use std::future::Future;
use std::sync::Arc;

use mcp_authz::authorization_server::record::{
    AccessRecord, ClientRecord, Epochs, FamilyId, GrantRecord, RefreshRecord,
};
use mcp_authz::authorization_server::store::{RevocationTarget, RevokeAll};
use mcp_authz::authorization_server::test_kit::{self as core, Decided, Seen};
use mcp_authz::entropy::{Entropy as _, EntropyUnavailable};
use mcp_authz::identifier::{ClientId, InvalidIdentifier};
use mcp_authz::secret::{AgentBinding, InvalidSecret, SecretDigest};
use mcp_authz::time::OffsetDateTime;

use super::{AdministeredStore, Store, StoreError};
use crate::entropy::OsEntropy;

mod administration;
mod aging;
mod bounds;
mod clients;
mod credentials;
mod housekeeping;
mod later;
mod revocation;
mod sessions;

pub use aging::run_aging;
pub use bounds::run_bounded;

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
    clients::run(&make).await?;
    credentials::run(&make).await?;
    revocation::run(&make).await?;
    sessions::run(&make).await?;
    housekeeping::run(&make).await?;
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

    /// Repeats the rotation of the first token to `successor`, at most `most` times.
    ///
    /// # Errors
    /// [`KitError`] where the store fails.
    pub async fn repeat(
        &self,
        store: &impl Store,
        successor: SecretDigest,
        most: u32,
    ) -> Result<Seen<()>, KitError> {
        let to = (successor, core::sample_refresh(self.grant.clone(), 1));
        let issued = Some((random_digest()?, core::sample_access(self.grant.clone())));
        let action = core::rotate_refresh((self.refresh, 0), to, issued, Some(most), &mut OsEntropy)?;
        Ok(core::rotation(&store.rotate_refresh(action).await?))
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
        let target = RevocationTarget::Consent { subject: subject.to_string(), client_id };
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
