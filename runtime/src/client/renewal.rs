//! The driver's way from one refresh token to the next, beside other programs that share the session (decision D39).

use std::time::Duration;

use mcp_authz::client::{
    AwaitingCommit, AwaitingDiscard, AwaitingRefresh, ClaimOutcome, CommitRefresh, DiscardSession, Ready,
    RefreshOutcome, Session, Settled,
};
use mcp_authz::message::exchange::{FetchFailure, Reply};
use mcp_authz::step::{Failed, Step};

use super::driver::{Driver, LoginError, failed, is_forgotten};
use super::event::ClientEvent;
use crate::entropy::OsEntropy;

/// How often a claim is asked for while another process refreshes, and how long the pauses between are: longer together
/// than a claim lives.
const CLAIM_ATTEMPTS: u32 = 700;
const CLAIM_PAUSE: Duration = Duration::from_millis(100);

/// How often a store that fails is asked again where giving up would lose a login.
const STORE_ATTEMPTS: u32 = 3;

/// What a refresh came to.
#[derive(Debug)]
#[must_use = "the session is in here"]
pub enum Refreshed {
    /// The session with new tokens.
    Renewed(Session),
    /// Not now: the session as it was.
    Kept(Failed<Session, LoginError>),
    /// The grant is over: authorize anew.
    Ended(Failed<Ready>),
    /// The new tokens could not be kept and are gone, or the grant is over and who this client is with it: begin at a 401.
    Lost(LoginError),
}

impl Driver {
    /// Exchanges the refresh token for new tokens, unless another process that shares the session does: then for its.
    pub async fn refresh(&self, mut session: Session) -> Refreshed {
        let core = self.core_time();
        for _ in 0..CLAIM_ATTEMPTS {
            let now = self.now();
            let (claim, waiting) = match core.measure(|| session.refresh(now, &mut OsEntropy)) {
                Ok(step) => step.into_parts(),
                Err(Failed { error, state }) => return Refreshed::Kept(failed(error, state)),
            };
            self.observe(ClientEvent::Claiming(&claim));
            let receipt = match self.store().claim(claim).await {
                Ok(receipt) => receipt,
                Err(error) => return Refreshed::Kept(failed(error, waiting.store_failed())),
            };
            let now = self.now();
            match core.measure(|| waiting.claimed(receipt, now, &mut OsEntropy)) {
                Ok(ClaimOutcome::Claimed(call)) => {
                    let (waiting, reply) = self.call(call).await;
                    return self.refreshed(waiting, reply).await;
                }
                Ok(ClaimOutcome::Superseded(newer)) => {
                    self.observe(ClientEvent::RefreshElsewhere);
                    return Refreshed::Renewed(newer);
                }
                Ok(ClaimOutcome::Busy(same, _)) => {
                    self.observe(ClientEvent::RefreshElsewhere);
                    session = same;
                    tokio::time::sleep(CLAIM_PAUSE).await;
                }
                Ok(ClaimOutcome::Ended(failed)) => return self.ended(failed).await,
                Ok(ClaimOutcome::Kept(Failed { error, state }, release)) => {
                    self.store().release(release).await;
                    return Refreshed::Kept(failed(error, state));
                }
                Err(foreign) => return Refreshed::Kept(failed(foreign.error, foreign.state.store_failed())),
            }
        }
        Refreshed::Kept(failed(LoginError::Busy, session))
    }

    async fn refreshed(&self, waiting: AwaitingRefresh, reply: Result<Reply, FetchFailure>) -> Refreshed {
        let now = self.now();
        match self.core_time().measure(|| waiting.receive(reply, now)) {
            RefreshOutcome::Kept(Failed { error, state }, release) => {
                self.store().release(release).await;
                Refreshed::Kept(failed(error, state))
            }
            RefreshOutcome::Ended(step) => self.discard(step).await,
            RefreshOutcome::Refreshed(step) => self.commit(step).await,
        }
    }

    async fn commit(&self, mut step: Step<CommitRefresh, AwaitingCommit>) -> Refreshed {
        let mut attempts = 0_u32;
        loop {
            let (action, waiting) = step.into_parts();
            self.observe(ClientEvent::Committing(&action));
            match self.store().commit(action).await {
                Ok(receipt) => match self.core_time().measure(|| waiting.committed(receipt)) {
                    Ok(settled) => return self.settled(settled).await,
                    Err(failed) => return Refreshed::Lost(failed.error.into()),
                },
                Err(error) if attempts >= STORE_ATTEMPTS => return Refreshed::Lost(error.into()),
                Err(_) => {
                    tokio::time::sleep(CLAIM_PAUSE).await;
                    attempts = attempts.saturating_add(1);
                    step = waiting.again();
                }
            }
        }
    }

    async fn discard(&self, mut step: Step<DiscardSession, AwaitingDiscard>) -> Refreshed {
        let mut attempts = 0_u32;
        loop {
            let (action, waiting) = step.into_parts();
            match self.store().discard(action).await {
                Ok(receipt) => match self.core_time().measure(|| waiting.discarded(receipt)) {
                    Ok(settled) => return self.settled(settled).await,
                    Err(failed) => return Refreshed::Lost(failed.error.into()),
                },
                Err(error) if attempts >= STORE_ATTEMPTS => return Refreshed::Lost(error.into()),
                Err(_) => {
                    tokio::time::sleep(CLAIM_PAUSE).await;
                    attempts = attempts.saturating_add(1);
                    step = waiting.again();
                }
            }
        }
    }

    async fn settled(&self, settled: Settled) -> Refreshed {
        match settled {
            Settled::Session(session) => {
                self.observe(ClientEvent::Established(&session));
                Refreshed::Renewed(session)
            }
            Settled::Ended(failed) => self.ended(failed).await,
        }
    }

    async fn ended(&self, failed: Failed<Ready>) -> Refreshed {
        self.observe(ClientEvent::Ended(&failed.error));
        let Failed { error, state } = failed;
        if !is_forgotten(&error, &state) {
            return Refreshed::Ended(Failed { error, state });
        }
        match self.register_anew(state).await {
            Ok(state) => Refreshed::Ended(Failed { error, state }),
            Err(error) => Refreshed::Lost(error),
        }
    }
}
