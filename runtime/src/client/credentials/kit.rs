//! The contract of a credential store as tests: every store runs [`run`] and must come through.
//!
//! The checks follow decision D39. A failure names the sentence that does not hold.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mcp_authz::client::{
    AwaitingClaim, AwaitingPersisted, AwaitingRefresh, CallbackOutcome, ChoosingIdentity, ClaimOutcome,
    Client, CommitRefresh, Configuration, EndpointCall, PersistSession, Ready, RefreshOutcome,
    RegistrationRecord, ResourceMetadataOutcome, ServerMetadataOutcome, Session, SessionRecord, Settled,
};
use mcp_authz::error::Error;
use mcp_authz::evidence::IssuerForResource;
use mcp_authz::identifier::{InvalidIdentifier, Issuer, RedirectUri, ResourceId, ScopeSet};
use mcp_authz::limits;
use mcp_authz::message::Malformed;
use mcp_authz::message::authorization::Callback;
use mcp_authz::message::exchange::Reply;
use mcp_authz::sealer::Sealer;
use mcp_authz::secret::AgentBinding;
use mcp_authz::step::Failed;
use mcp_authz::time::{Duration, OffsetDateTime};

use super::{CredentialStore, StoreFailed};
use crate::clock::Clock;
use crate::entropy::OsEntropy;

/// How many tasks try the same thing at once.
const RACERS: usize = 20;

pub(super) const SERVER: &str = "https://mcp.example/notes";
pub(super) const ISSUER: &str = "https://as.example";

/// Why the kit could not go on.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// A sentence of the contract does not hold.
    #[error("the store breaks its contract: {0}")]
    Broken(&'static str),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreFailed),
    /// The core refused a step.
    #[error("the core refused: {0}")]
    Core(#[from] Error),
    /// A sample does not parse.
    #[error("a sample is malformed: {0}")]
    Identifier(#[from] InvalidIdentifier),
    /// A sample does not parse.
    #[error("a sample is malformed: {0}")]
    Sample(#[from] Malformed),
    /// A task of a race did not end.
    #[error("a task of a race did not end")]
    Task(#[from] tokio::task::JoinError),
}

impl<S> From<Failed<S>> for KitError {
    fn from(failed: Failed<S>) -> Self {
        Self::Core(failed.error)
    }
}

type Checked = Result<(), KitError>;

fn holds(sentence: &'static str, condition: bool) -> Checked {
    if condition { Ok(()) } else { Err(KitError::Broken(sentence)) }
}

/// A clock that the kit sets, and the store reads.
#[derive(Debug, Default)]
pub struct Hands(AtomicI64);

impl Hands {
    fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn now(&self) -> OffsetDateTime {
        // Between two seconds, as clocks are.
        let since = Duration::new(1_728_000_000, 123_456_789);
        let since = since.saturating_add(Duration::seconds(self.0.load(Ordering::SeqCst)));
        OffsetDateTime::UNIX_EPOCH.checked_add(since).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// A store, and what the programs that share it have in common.
pub(super) struct Shared<S> {
    pub(super) store: Arc<S>,
    pub(super) client: Client,
    pub(super) clock: Arc<Hands>,
}

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), client: self.client.clone(), clock: Arc::clone(&self.clock) }
    }
}

/// Runs every check, each on an empty store that `make` gives, which reads the clock it is given; needs a tokio runtime
/// with several threads.
///
/// # Errors
/// [`KitError::Broken`] with the first sentence that does not hold.
pub async fn run<S, F>(make: impl Fn(Arc<dyn Clock>) -> F) -> Result<(), KitError>
where
    S: CredentialStore,
    F: Future<Output = S>,
{
    let shared = async || {
        let clock = Arc::new(Hands::default());
        let hands: Arc<dyn Clock> = Arc::<Hands>::clone(&clock);
        let store = Arc::new(make(hands).await);
        let redirect_uri = RedirectUri::new("http://127.0.0.1:4711/callback")?;
        let client = Client::new(Configuration::new("The kit", redirect_uri))?;
        Ok::<_, KitError>(Shared { store, client, clock })
    };
    a_session_is_found_by_its_own_resource(shared().await?).await?;
    a_race_for_the_claim_has_one_winner(shared().await?).await?;
    a_claim_keeps_others_waiting_until_it_ends(shared().await?).await?;
    a_claim_that_no_clock_can_have_made_holds_nobody_up(shared().await?).await?;
    a_claim_that_is_given_back_holds_nobody_up(shared().await?).await?;
    who_comes_late_takes_the_newer_session(shared().await?).await?;
    a_commit_after_the_claim_ended_is_dropped(shared().await?).await?;
    a_session_in_doubt_is_tried_once_and_then_given_up(shared().await?).await?;
    a_session_is_given_up_only_if_nobody_renewed_it(shared().await?).await?;
    a_login_ends_the_claims_of_before(shared().await?).await?;
    a_logout_ends_the_claims_of_before(shared().await?).await?;
    a_session_that_was_never_kept_is_not_the_stores(shared().await?).await?;
    the_hosts_word_is_kept_with_a_session_until_somebody_logs_out(shared().await?).await?;
    a_registration_is_found_by_its_issuer(shared().await?).await?;
    a_registration_is_forgotten_only_if_it_is_the_same(shared().await?).await?;
    registrations_are_chosen_one_after_the_other(shared().await?).await?;
    counts_of_step_ups_are_joined_and_never_lost(shared().await?).await
}

fn json(status: u16, body: String) -> Reply {
    Reply::new(status, body).with_header("content-type", b"application/json")
}

/// The first fetch of a call; the kit's client has no key to sign with.
fn fetched<A>(call: EndpointCall<A>) -> Result<A, KitError> {
    match call {
        EndpointCall::Fetch(step) => Ok(step.into_parts().1),
        EndpointCall::Sign(_) => Err(KitError::Broken("a public client signs nothing")),
    }
}

fn tokens(number: u32) -> Reply {
    json(
        200,
        format!(
            r#"{{"access_token":"access-{number}","token_type":"Bearer","expires_in":300,"refresh_token":"refresh-{number}"}}"#
        ),
    )
}

fn refused() -> Reply {
    json(400, r#"{"error":"invalid_grant"}"#.into())
}

/// The number of the session's access token.
fn number(session: &Session, resource: &str) -> Result<Option<u32>, KitError> {
    let field = session.authorization_for(resource)?;
    Ok(field.expose().rsplit_once('-').and_then(|(_, number)| number.parse().ok()))
}

impl<S: CredentialStore> Shared<S> {
    fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    fn choosing_identity(&self, resource: &str, issuer: &str) -> Result<ChoosingIdentity, KitError> {
        let server = ResourceId::new(resource)?;
        let (_, waiting) = self.client.challenged(&server, &Reply::new(401, ""))?.into_parts();
        let document =
            json(200, format!(r#"{{"resource":"{resource}","authorization_servers":["{issuer}"]}}"#));
        let choosing = match waiting.receive(Ok(document))? {
            ResourceMetadataOutcome::Found(choosing) => choosing,
            ResourceMetadataOutcome::Next(_) => return Err(KitError::Broken("the document is there")),
        };
        let issuer_named = Issuer::new(issuer)?;
        let word = IssuerForResource::assertion(server, issuer_named.clone());
        let (_, waiting) = choosing.choose(&issuer_named, Some(word))?.into_parts();
        let document = json(
            200,
            format!(
                r#"{{"issuer":"{issuer}","authorization_endpoint":"{issuer}/authorize","token_endpoint":"{issuer}/token","registration_endpoint":"{issuer}/register","response_types_supported":["code"],"code_challenge_methods_supported":["S256"],"authorization_response_iss_parameter_supported":true}}"#
            ),
        );
        match waiting.receive(Ok(document))? {
            ServerMetadataOutcome::Found(choosing) => Ok(choosing),
            ServerMetadataOutcome::Next(_) => Err(KitError::Broken("the document is there")),
        }
    }

    fn registered(&self, resource: &str, issuer: &str, client_id: &str) -> Result<Ready, KitError> {
        let (_, waiting) = self.choosing_identity(resource, issuer)?.register()?.into_parts();
        Ok(waiting.receive(Ok(json(201, format!(r#"{{"client_id":"{client_id}"}}"#))))?)
    }

    pub(super) fn registration(&self, issuer: &str, client_id: &str) -> Result<RegistrationRecord, KitError> {
        let record = self.registered(SERVER, issuer, client_id)?.registration_record(self.store.sealer())?;
        record.ok_or(KitError::Broken("a registration can be kept"))
    }

    /// A login that ends with tokens of that number, yet to be kept.
    fn granted(
        &self,
        resource: &str,
        issuer: &str,
        number: u32,
    ) -> Result<(PersistSession, AwaitingPersisted), KitError> {
        let ready = self.registered(resource, issuer, "c1")?;
        let agent = AgentBinding::this_process();
        let (open, waiting) = ready.begin(&ScopeSet::new(), agent, self.now(), &mut OsEntropy)?.into_parts();
        let state = open.url().split_once("&state=").map_or("", |(_, rest)| rest);
        let state = state.split_once('&').map_or(state, |(state, _)| state);
        let url = format!("http://127.0.0.1:4711/callback?code=c&iss={issuer}&state={state}");
        let callback = Callback::from_url(&url)?;
        let CallbackOutcome::Accepted(call) = waiting.receive(callback, &agent, self.now(), &mut OsEntropy)
        else {
            return Err(KitError::Broken("the callback is the awaited one"));
        };
        Ok(fetched(call)?.receive(Ok(tokens(number)), self.now())?.into_parts())
    }

    /// A login that ends with tokens of that number, which are kept.
    pub(super) async fn login_at(
        &self,
        resource: &str,
        issuer: &str,
        number: u32,
    ) -> Result<Session, KitError> {
        let (persist, waiting) = self.granted(resource, issuer, number)?;
        Ok(waiting.persisted(self.store.keep(persist).await?)?)
    }

    pub(super) async fn login(&self, number: u32) -> Result<Session, KitError> {
        self.login_at(SERVER, ISSUER, number).await
    }

    /// What another process finds.
    pub(super) async fn find(&self) -> Result<Option<Session>, KitError> {
        let found = self.store.sessions_for(SERVER).await?.into_iter().next();
        Ok(found.map(|kept| kept.resume(&self.client, self.store.sealer())).transpose()?)
    }

    /// Another process's copy of it.
    pub(super) async fn copy(&self) -> Result<Session, KitError> {
        self.find().await?.ok_or(KitError::Broken("what was kept is there"))
    }

    async fn claim(&self, session: Session) -> Result<ClaimOutcome, KitError> {
        let (claim, waiting) = session.refresh(self.now(), &mut OsEntropy)?.into_parts();
        let receipt = self.store.claim(claim).await?;
        Ok(AwaitingClaim::claimed(waiting, receipt, self.now(), &mut OsEntropy)?)
    }

    /// Claims, which nobody hinders.
    pub(super) async fn claimed(&self, session: Session) -> Result<AwaitingRefresh, KitError> {
        match self.claim(session).await? {
            ClaimOutcome::Claimed(call) => fetched(call),
            _ => Err(KitError::Broken("an unclaimed session is claimed by who asks")),
        }
    }

    /// Sends the refresh token, is given tokens of that number, and commits them.
    pub(super) async fn commits(&self, waiting: AwaitingRefresh, number: u32) -> Result<Settled, KitError> {
        let RefreshOutcome::Refreshed(step) = waiting.receive(Ok(tokens(number)), self.now()) else {
            return Err(KitError::Broken("new tokens are a refresh"));
        };
        let (action, waiting): (CommitRefresh, _) = step.into_parts();
        Ok(waiting.committed(self.store.commit(action).await?)?)
    }

    /// Sends the refresh token, is told that the grant is over, and looks into the store.
    async fn gives_up(&self, waiting: AwaitingRefresh) -> Result<Settled, KitError> {
        let RefreshOutcome::Ended(step) = waiting.receive(Ok(refused()), self.now()) else {
            return Err(KitError::Broken("a refused grant is over"));
        };
        let (action, waiting) = step.into_parts();
        Ok(waiting.discarded(self.store.discard(action).await?)?)
    }
}

pub(super) fn is_session(settled: &Settled, expected: u32) -> Result<bool, KitError> {
    Ok(match settled {
        Settled::Session(session) => number(session, SERVER)? == Some(expected),
        Settled::Ended(_) => false,
    })
}

// MCP-DISC-003, MCP-AUTH-053
async fn a_session_is_found_by_its_own_resource<S: CredentialStore>(shared: Shared<S>) -> Checked {
    holds("an empty store has no session", shared.store.sessions().await?.is_empty())?;
    drop(shared.login_at("https://mcp.example", ISSUER, 1).await?);
    drop(shared.login_at(SERVER, ISSUER, 2).await?);
    drop(shared.login_at("https://mcp.example/other", ISSUER, 3).await?);
    drop(shared.login_at(SERVER, "https://other.example", 4).await?);
    let found = async |url: &str| {
        let mut numbers = Vec::new();
        for kept in shared.store.sessions_for(url).await? {
            let resource = kept.resource().clone();
            let session = kept.resume(&shared.client, shared.store.sealer())?;
            numbers.extend(number(&session, resource.as_str())?);
        }
        Ok::<_, KitError>(numbers)
    };
    let sentence =
        "the most specific resource comes first, of one resource the newest, and no other is there";
    holds(sentence, found(SERVER).await? == [4, 2, 1])?;
    holds(sentence, found("https://mcp.example/notes/deep?x=y").await? == [4, 2, 1])?;
    holds(sentence, found("https://mcp.example/elsewhere").await? == [1])?;
    holds(sentence, found("https://evil.example/notes").await?.is_empty())?;
    holds("a login replaces its own place only", shared.store.sessions().await?.len() == 4)?;
    drop(shared.login_at(SERVER, ISSUER, 5).await?);
    holds("a login replaces its own place", found(SERVER).await? == [5, 4, 1])?;
    holds("a login replaces its own place only", shared.store.sessions().await?.len() == 4)
}

async fn a_race_for_the_claim_has_one_winner<S: CredentialStore>(shared: Shared<S>) -> Checked {
    drop(shared.login(1).await?);
    let mut racers = Vec::new();
    for _ in 0..RACERS {
        let (shared, session) = (shared.clone(), shared.copy().await?);
        racers.push(tokio::spawn(async move { shared.claim(session).await }));
    }
    let mut claimed = Vec::new();
    for racer in racers {
        match racer.await?? {
            ClaimOutcome::Claimed(call) => claimed.push(call),
            ClaimOutcome::Busy(..) => {}
            _ => return Err(KitError::Broken("who does not win the claim is told to wait")),
        }
    }
    holds("exactly one of many claims a session", claimed.len() == 1)
}

async fn a_claim_keeps_others_waiting_until_it_ends<S: CredentialStore>(shared: Shared<S>) -> Checked {
    let session = shared.login(1).await?;
    let other = shared.copy().await?;
    let end = shared.now().checked_add(Duration::seconds(limits::REFRESH_CLAIM_SECONDS));
    let _ = shared.claimed(session).await?;
    shared.clock.set(limits::REFRESH_CLAIM_SECONDS - 1);
    let other = match shared.claim(other).await? {
        ClaimOutcome::Busy(other, until) => {
            holds("others are told when the claim ends", Some(until) == end)?;
            other
        }
        _ => return Err(KitError::Broken("a claim holds until it ends")),
    };
    shared.clock.set(limits::REFRESH_CLAIM_SECONDS);
    holds("a claim ends by itself", matches!(shared.claim(other).await?, ClaimOutcome::Claimed(_)))
}

async fn a_claim_that_no_clock_can_have_made_holds_nobody_up<S: CredentialStore>(
    shared: Shared<S>,
) -> Checked {
    shared.clock.set(86_400);
    let session = shared.login(1).await?;
    let other = shared.copy().await?;
    let _ = shared.claimed(session).await?;
    // The clock is put right by a little, and then set back by a day.
    shared.clock.set(86_390);
    let ClaimOutcome::Busy(other, _) = shared.claim(other).await? else {
        return Err(KitError::Broken("a claim holds although the clock was put right"));
    };
    shared.clock.set(0);
    holds(
        "a claim that reaches far further than a claim can has ended",
        matches!(shared.claim(other).await?, ClaimOutcome::Claimed(_)),
    )
}

async fn a_claim_that_is_given_back_holds_nobody_up<S: CredentialStore>(shared: Shared<S>) -> Checked {
    let session = shared.login(1).await?;
    let (other, third) = (shared.copy().await?, shared.copy().await?);
    let waiting = shared.claimed(session).await?;
    let RefreshOutcome::Kept(_, release) = waiting.receive(Ok(Reply::new(503, "")), shared.now()) else {
        return Err(KitError::Broken("no answer leaves the session as it is"));
    };
    shared.clock.set(limits::REFRESH_CLAIM_SECONDS);
    let _ = shared.claimed(other).await?;
    shared.store.release(release).await;
    let third = match shared.claim(third).await? {
        ClaimOutcome::Busy(third, _) => third,
        _ => return Err(KitError::Broken("a claim is given back by who holds it only")),
    };
    shared.clock.set(limits::REFRESH_CLAIM_SECONDS * 2);
    let waiting = shared.claimed(third).await?;
    let RefreshOutcome::Kept(Failed { state, .. }, release) =
        waiting.receive(Ok(Reply::new(503, "")), shared.now())
    else {
        return Err(KitError::Broken("no answer leaves the session as it is"));
    };
    shared.store.release(release).await;
    let again = shared.claim(state).await?;
    holds("a claim that is given back holds nobody up", matches!(again, ClaimOutcome::Claimed(_)))
}

async fn who_comes_late_takes_the_newer_session<S: CredentialStore>(shared: Shared<S>) -> Checked {
    let session = shared.login(1).await?;
    let other = shared.copy().await?;
    let waiting = shared.claimed(session).await?;
    let settled = shared.commits(waiting, 2).await?;
    holds("who holds the claim commits", is_session(&settled, 2)?)?;
    let ClaimOutcome::Superseded(newer) = shared.claim(other).await? else {
        return Err(KitError::Broken("who knows an older version sends nothing"));
    };
    holds("who comes late takes the newer session", number(&newer, SERVER)? == Some(2))?;
    holds(
        "and the next one begins from there",
        matches!(shared.claim(newer).await?, ClaimOutcome::Claimed(_)),
    )
}

async fn a_commit_after_the_claim_ended_is_dropped<S: CredentialStore>(shared: Shared<S>) -> Checked {
    let session = shared.login(1).await?;
    let other = shared.copy().await?;
    let slow = shared.claimed(session).await?;
    shared.clock.set(limits::REFRESH_CLAIM_SECONDS);
    let quick = shared.claimed(other).await?;
    let settled = shared.commits(slow, 2).await?;
    holds("who lost the claim does not commit", is_session(&settled, 1)?)?;
    let settled = shared.commits(quick, 3).await?;
    holds("who has the claim commits", is_session(&settled, 3)?)?;
    holds("what was committed is there", number(&shared.copy().await?, SERVER)? == Some(3))
}

async fn a_session_in_doubt_is_tried_once_and_then_given_up<S: CredentialStore>(
    shared: Shared<S>,
) -> Checked {
    let session = shared.login(1).await?;
    let (other, third) = (shared.copy().await?, shared.copy().await?);
    // This process dies between the server's answer and the commit.
    drop(shared.claimed(session).await?);
    shared.clock.set(limits::REFRESH_CLAIM_SECONDS);
    let waiting = shared.claimed(other).await?;
    let settled = shared.gives_up(waiting).await?;
    holds("a session that nobody renewed is over", matches!(settled, Settled::Ended(_)))?;
    holds("a session that is over is removed", shared.find().await?.is_none())?;
    let outcome = shared.claim(third).await?;
    holds("others hear that the session is over", matches!(outcome, ClaimOutcome::Ended(_)))
}

async fn a_session_is_given_up_only_if_nobody_renewed_it<S: CredentialStore>(shared: Shared<S>) -> Checked {
    let session = shared.login(1).await?;
    let other = shared.copy().await?;
    let slow = shared.claimed(session).await?;
    shared.clock.set(limits::REFRESH_CLAIM_SECONDS);
    let quick = shared.claimed(other).await?;
    drop(shared.commits(quick, 2).await?);
    let settled = shared.gives_up(slow).await?;
    holds("who is refused takes what another has renewed", is_session(&settled, 2)?)?;
    holds("what another has renewed stays", number(&shared.copy().await?, SERVER)? == Some(2))
}

async fn a_login_ends_the_claims_of_before<S: CredentialStore>(shared: Shared<S>) -> Checked {
    let session = shared.login(1).await?;
    let waiting = shared.claimed(session).await?;
    drop(shared.login(2).await?);
    let settled = shared.commits(waiting, 3).await?;
    holds("a claim of before a login does not commit", is_session(&settled, 2)?)?;
    let session = shared.copy().await?;
    holds(
        "a claim of before a login holds nobody up",
        matches!(shared.claim(session).await?, ClaimOutcome::Claimed(_)),
    )
}

async fn a_logout_ends_the_claims_of_before<S: CredentialStore>(shared: Shared<S>) -> Checked {
    let (issuer, resource) = (Issuer::new(ISSUER)?, ResourceId::new(SERVER)?);
    holds("nothing is there to be removed", !shared.store.remove(&issuer, &resource).await?)?;
    let session = shared.login(1).await?;
    let (second, stale) = (shared.copy().await?, shared.copy().await?);
    let first = shared.claimed(session).await?;
    shared.clock.set(limits::REFRESH_CLAIM_SECONDS);
    let second = shared.claimed(second).await?;
    holds("a session is removed", shared.store.remove(&issuer, &resource).await?)?;
    let settled = shared.commits(first, 2).await?;
    holds("nothing is committed after a logout", matches!(settled, Settled::Ended(_)))?;
    holds("nothing is there after a logout", shared.find().await?.is_none())?;
    // Somebody logs in again, and claims: no number of before may fit.
    let session = shared.login(3).await?;
    let third = shared.claimed(session).await?;
    let settled = shared.commits(second, 4).await?;
    holds("a claim of before a logout does not commit after the next login", is_session(&settled, 3)?)?;
    let ClaimOutcome::Superseded(newer) = shared.claim(stale).await? else {
        return Err(KitError::Broken("a session of before a logout is not claimed after the next login"));
    };
    holds("it is replaced by the new one", number(&newer, SERVER)? == Some(3))?;
    let settled = shared.commits(third, 5).await?;
    holds("the new session's claim commits", is_session(&settled, 5)?)
}

async fn a_session_that_was_never_kept_is_not_the_stores<S: CredentialStore>(shared: Shared<S>) -> Checked {
    drop(shared.login(1).await?);
    let (persist, waiting) = shared.granted(SERVER, ISSUER, 7)?;
    let elsewhere = waiting.persisted(persist.kept_in_memory())?;
    let waiting = shared.claimed(elsewhere).await?;
    let settled = shared.commits(waiting, 8).await?;
    holds("a session that was never kept goes on by itself", is_session(&settled, 8)?)?;
    holds("and what is kept stays", number(&shared.copy().await?, SERVER)? == Some(1))
}

// D36, I-L13
async fn the_hosts_word_is_kept_with_a_session_until_somebody_logs_out<S: CredentialStore>(
    shared: Shared<S>,
) -> Checked {
    let (issuer, resource) = (Issuer::new(ISSUER)?, ResourceId::new(SERVER)?);
    let issuers = async |resource: &ResourceId| {
        let kept = shared.store.pairings(resource).await?;
        let mut issuers = Vec::new();
        for record in &kept {
            let word = record.open(&shared.client, shared.store.sealer())?;
            holds("a word is for its pair", word.is_for(resource, record.issuer()))?;
            issuers.push(record.issuer().as_str().to_owned());
        }
        issuers.sort_unstable();
        Ok::<_, KitError>(issuers)
    };
    holds("an empty store has no word", issuers(&resource).await?.is_empty())?;
    drop(shared.granted(SERVER, ISSUER, 1)?);
    holds("nothing is kept of a login before it is kept", issuers(&resource).await?.is_empty())?;
    drop(shared.login(1).await?);
    drop(shared.login_at(SERVER, "https://other.example", 2).await?);
    drop(shared.login_at("https://mcp.example/other", ISSUER, 3).await?);
    holds(
        "a word is kept with each session",
        issuers(&resource).await? == [ISSUER, "https://other.example"],
    )?;
    // The grant is over, and nobody logged out.
    let waiting = shared.claimed(shared.copy().await?).await?;
    drop(shared.gives_up(waiting).await?);
    holds("a word outlives its session", issuers(&resource).await? == [ISSUER, "https://other.example"])?;
    let _ = shared.store.remove(&issuer, &resource).await?;
    holds("a logout forgets its own pair's word", issuers(&resource).await? == ["https://other.example"])?;
    let elsewhere = ResourceId::new("https://mcp.example/other")?;
    holds("and no other's", issuers(&elsewhere).await? == [ISSUER])
}

// MCP-DISC-003
async fn a_registration_is_found_by_its_issuer<S: CredentialStore>(shared: Shared<S>) -> Checked {
    let (here, there) = (Issuer::new(ISSUER)?, Issuer::new("https://other.example")?);
    holds("an empty store has no registration", shared.store.registration(&here).await?.is_none())?;
    let first = shared.registration(ISSUER, "c1")?;
    shared.store.keep_registration(first.clone()).await?;
    holds("a registration is found by its issuer", shared.store.registration(&here).await? == Some(first))?;
    holds("and by no other", shared.store.registration(&there).await?.is_none())?;
    let second = shared.registration(ISSUER, "c2")?;
    shared.store.keep_registration(second.clone()).await?;
    holds("a later registration replaces", shared.store.registration(&here).await? == Some(second))?;
    holds("a registration is no session", shared.store.sessions().await?.is_empty())
}

async fn a_registration_is_forgotten_only_if_it_is_the_same<S: CredentialStore>(
    shared: Shared<S>,
) -> Checked {
    let here = Issuer::new(ISSUER)?;
    let (first, second) = (shared.registration(ISSUER, "c1")?, shared.registration(ISSUER, "c2")?);
    shared.store.keep_registration(second.clone()).await?;
    shared.store.forget_registration(first).await?;
    let sentence = "another program's registration is not forgotten";
    holds(sentence, shared.store.registration(&here).await?.as_ref() == Some(&second))?;
    shared.store.forget_registration(second).await?;
    holds("a registration is forgotten", shared.store.registration(&here).await?.is_none())
}

// D29
async fn registrations_are_chosen_one_after_the_other<S: CredentialStore>(shared: Shared<S>) -> Checked {
    let mut racers = Vec::new();
    for racer in 0..RACERS {
        let shared = shared.clone();
        let record = shared.registration(&format!("https://as{racer}.example"), "c")?;
        racers.push(tokio::spawn(async move {
            let (sender, mut seen) = tokio::sync::oneshot::channel();
            let choose = move |kept: &[RegistrationRecord], _: &dyn Sealer| {
                let _ = sender.send(kept.len());
                Ok(Some(record))
            };
            shared.store.choose_registration(Box::new(choose)).await.map(|()| seen.try_recv().ok())
        }));
    }
    let mut seen = Vec::new();
    for racer in racers {
        seen.push(racer.await??);
    }
    seen.sort_unstable();
    holds("each sees all that were chosen before", seen == (0..RACERS).map(Some).collect::<Vec<_>>())?;
    let none = |_: &[RegistrationRecord], _: &dyn Sealer| Ok(None);
    shared.store.choose_registration(Box::new(none)).await?;
    let fails = |_: &[RegistrationRecord], _: &dyn Sealer| RegistrationRecord::from_bytes(b"").map(Some);
    holds("a choice that fails is told", shared.store.choose_registration(Box::new(fails)).await.is_err())
}

async fn counts_of_step_ups_are_joined_and_never_lost<S: CredentialStore>(shared: Shared<S>) -> Checked {
    let (here, there) = (ResourceId::new(SERVER)?, ResourceId::new("https://other.example")?);
    holds("an empty store counts nothing", shared.store.step_ups(&here).await?.is_none())?;
    let mut racers = Vec::new();
    for _ in 0..RACERS {
        let (shared, here) = (shared.clone(), here.clone());
        racers.push(tokio::spawn(async move {
            let join = |earlier: Option<&[u8]>| Ok([earlier.unwrap_or_default(), b"x"].concat());
            shared.store.join_step_ups(&here, Box::new(join)).await
        }));
    }
    for racer in racers {
        racer.await??;
    }
    let counted = shared.store.step_ups(&here).await?.map(|bytes| bytes.len());
    holds("no count is lost among many", counted == Some(RACERS))?;
    holds("a count is of one server", shared.store.step_ups(&there).await?.is_none())?;
    let fails = |_: Option<&[u8]>| SessionRecord::from_bytes(b"").map(|_| Vec::new());
    holds("a join that fails is told", shared.store.join_step_ups(&here, Box::new(fails)).await.is_err())?;
    let counted = shared.store.step_ups(&here).await?.map(|bytes| bytes.len());
    holds("a join that fails changes nothing", counted == Some(RACERS))
}
