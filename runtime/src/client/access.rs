//! What a program is allowed at one MCP server, shared by all its requests: one of them authorizes, the others wait.
//!
//! Nothing is locked while a peer, a person or a store is waited for. Whoever authorizes takes the access out, and a task
//! of its own puts it back: a request that is given up in the meantime costs nobody the session.
//!
//! ```text
//!   request ─▶ token ──▶ reply, 401 or 403 ──▶ taken ─▶ refresh, login ─▶ put back ─▶ the request once more
//!                                  others wait ──┘                           └──▶ with the new token
//! ```

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mcp_authz::client::{Ready, Session, StepUp};
use mcp_authz::identifier::{Issuer, ResourceId};
use mcp_authz::message::exchange::Reply;
use mcp_authz::step::Failed;
use mcp_authz::time::{Duration, OffsetDateTime};
use tokio::sync::watch;

use super::connection::SendError;
use super::driver::{Driver, LoginError, Refreshed};

/// A token that ends so soon is renewed before it is sent.
const MARGIN: Duration = Duration::seconds(30);

/// So long no early renewal is tried after a new token, or after one that failed: the token is still good.
const PAUSE: Duration = Duration::seconds(15);

/// What is known of the authorization at this server.
#[derive(Debug)]
pub(super) enum Access {
    None,
    Ready(Ready),
    Session(Session),
}

/// The access of one server.
pub(super) struct Shared {
    pub(super) driver: Driver,
    pub(super) server: ResourceId,
    state: Mutex<State>,
    /// Tells those who wait that the access was put back.
    put_back: watch::Sender<()>,
}

struct State {
    /// Nothing while somebody authorizes.
    access: Option<Access>,
    /// How many sessions there were: a request that was refused with an older one is repeated with the newest.
    grants: u64,
    /// Why there was none, the last time.
    failure: Option<Arc<str>>,
    /// Whether the store was asked for a session of an earlier process.
    resumed: bool,
    /// No early renewal before then.
    renew_after: Option<OffsetDateTime>,
}

/// What one request may still cause: at most one look into the store, one refresh and one login (MCP scope challenge
/// handling).
#[derive(Debug, Clone, Copy)]
pub(super) struct Tries {
    resume: bool,
    refresh: bool,
    login: bool,
    /// How often it may be repeated because others got a new token.
    others: u8,
}

impl Default for Tries {
    fn default() -> Self {
        Self { resume: true, refresh: true, login: true, others: 3 }
    }
}

/// What a request was sent with.
pub(super) struct Used<T> {
    pub(super) with: Option<T>,
    grants: u64,
}

/// What becomes of a request that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is another token: once more.
    Repeat,
    /// The answer stands.
    Stands,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(driver: Driver, server: ResourceId) -> Self {
        let state =
            State { access: Some(Access::None), grants: 0, failure: None, resumed: false, renew_after: None };
        Self { driver, server, state: Mutex::new(state), put_back: watch::Sender::new(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is replaced whole: a panic elsewhere leaves none half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the session, if there is one at rest.
    pub(super) fn session<T>(&self, look: impl FnOnce(&Session) -> T) -> Option<T> {
        match &self.state().access {
            Some(Access::Session(session)) => Some(look(session)),
            Some(Access::None | Access::Ready(_)) | None => None,
        }
    }

    /// Puts a session of an earlier process there.
    pub(super) fn begin_with(&self, session: Session) {
        let mut state = self.state();
        state.access = Some(Access::Session(session));
        state.resumed = true;
        state.grants = state.grants.saturating_add(1);
    }

    /// Takes the access out, once nobody authorizes.
    pub(super) async fn take(self: &Arc<Self>) -> Taken {
        let mut put_back = self.put_back.subscribe();
        loop {
            if let Some(access) = self.state().access.take() {
                return Taken::new(self, access);
            }
            // The sender lives as long as `self`.
            let _ = put_back.changed().await;
        }
    }

    /// What the next request goes with, made by `attach` from the session. Waits while somebody authorizes, and renews a
    /// token that is about to end.
    pub(super) async fn attach<T>(
        self: &Arc<Self>,
        attach: impl Fn(&Session) -> Result<T, SendError>,
    ) -> Result<Used<T>, SendError> {
        let mut put_back = self.put_back.subscribe();
        let mut renewed = false;
        loop {
            match self.next(&attach, renewed)? {
                Next::Send(used) => return Ok(used),
                Next::Resume => self.resume().await?,
                Next::Renew => {
                    renewed = true;
                    self.renew_early().await;
                }
                Next::Wait => {
                    let _ = put_back.changed().await;
                }
            }
        }
    }

    fn next<T>(
        &self,
        attach: impl FnOnce(&Session) -> Result<T, SendError>,
        renewed: bool,
    ) -> Result<Next<T>, SendError> {
        let now = self.driver.now();
        let state = self.state();
        Ok(match &state.access {
            None => Next::Wait,
            Some(Access::None) if !state.resumed => Next::Resume,
            Some(Access::Session(session)) if !renewed && state.renews(session, now) => Next::Renew,
            Some(Access::Session(session)) => {
                Next::Send(Used { with: Some(attach(session)?), grants: state.grants })
            }
            Some(Access::None | Access::Ready(_)) => Next::Send(Used { with: None, grants: state.grants }),
        })
    }

    /// Brings a session of an earlier process back, the first time.
    async fn resume(self: &Arc<Self>) -> Result<(), SendError> {
        let mut taken = self.take().await;
        if !matches!(taken.access, Access::None) || std::mem::replace(&mut self.state().resumed, true) {
            return Ok(());
        }
        let resuming = async move { taken.resume().await.map(drop) };
        tokio::spawn(resuming).await.map_err(|_| SendError::Interrupted)?
    }

    /// Renews a token that is about to end. If that comes to nothing the request goes out with what there is.
    async fn renew_early(self: &Arc<Self>) {
        let mut taken = self.take().await;
        let now = self.driver.now();
        // Somebody may have renewed it in the meantime.
        let due = matches!(&taken.access, Access::Session(session) if self.state().renews(session, now));
        if due {
            let renewing = async move {
                if taken.refresh().await.is_err() {
                    taken.pause();
                }
            };
            let _ = tokio::spawn(renewing).await;
        }
    }

    /// Answers a 401 or 403 to a request that was sent with `used`.
    pub(super) async fn challenged<T>(
        self: &Arc<Self>,
        used: &Used<T>,
        operation: &str,
        reply: &Reply,
        tries: &mut Tries,
    ) -> Result<Verdict, SendError> {
        let mut put_back = self.put_back.subscribe();
        let mut waited = false;
        loop {
            match self.turn(used.grants, waited, tries) {
                Some(Turn::Repeat) => return Ok(Verdict::Repeat),
                Some(Turn::Failed(why)) => return Err(SendError::Elsewhere(why)),
                Some(Turn::Ours(taken)) => {
                    return taken.answer(operation.to_owned(), reply.clone(), tries).await;
                }
                None => {
                    waited = true;
                    let _ = put_back.changed().await;
                }
            }
        }
    }

    /// Whose turn it is to answer a challenge to a request that was sent after so many grants; nothing while somebody
    /// authorizes.
    fn turn(self: &Arc<Self>, grants: u64, waited: bool, tries: &mut Tries) -> Option<Turn> {
        let mut state = self.state();
        // Another request got a new token since this one was sent.
        let newer = state.grants != grants && matches!(state.access, Some(Access::Session(_)));
        if newer && tries.others > 0 {
            tries.others = tries.others.saturating_sub(1);
            return Some(Turn::Repeat);
        }
        let access = state.access.take()?;
        // Another was refused what this one would ask for: the person is not asked twice.
        if let Some(why) = state.failure.clone().filter(|_| waited) {
            state.access = Some(access);
            return Some(Turn::Failed(why));
        }
        Some(Turn::Ours(Taken::new(self, access)))
    }
}

/// What stands between a request and being sent.
enum Next<T> {
    Send(Used<T>),
    Resume,
    Renew,
    Wait,
}

enum Turn {
    Repeat,
    Failed(Arc<str>),
    Ours(Taken),
}

impl State {
    fn renews(&self, session: &Session, now: OffsetDateTime) -> bool {
        session.can_refresh()
            && session.is_expired(now, MARGIN)
            && self.renew_after.is_none_or(|after| now >= after)
    }
}

/// The access, taken out by the one who authorizes. Dropped, it goes back.
pub(super) struct Taken {
    shared: Arc<Shared>,
    access: Access,
    granted: bool,
    renew_after: Option<OffsetDateTime>,
    failure: Option<Arc<str>>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.access = Some(std::mem::replace(&mut self.access, Access::None));
        state.failure = self.failure.take();
        if self.granted {
            state.grants = state.grants.saturating_add(1);
        }
        if self.renew_after.is_some() {
            state.renew_after = self.renew_after;
        }
        drop(state);
        self.shared.put_back.send_replace(());
    }
}

impl Taken {
    fn new(shared: &Arc<Shared>, access: Access) -> Self {
        let shared = Arc::clone(shared);
        Self { shared, access, granted: false, renew_after: None, failure: None }
    }

    /// Leaves nothing behind; the session comes out, if there is one.
    pub(super) fn into_session(mut self) -> Option<Session> {
        match std::mem::replace(&mut self.access, Access::None) {
            Access::Session(session) => Some(session),
            other => {
                self.access = other;
                None
            }
        }
    }

    /// Authorizes in a task of its own: whoever asked for it may be gone before it ends.
    async fn answer(
        mut self,
        operation: String,
        reply: Reply,
        tries: &mut Tries,
    ) -> Result<Verdict, SendError> {
        let mut left = *tries;
        let authorizing = async move {
            let ended = self.authorize(&operation, &reply, &mut left).await;
            self.failure = ended.as_ref().err().map(|error| error.to_string().into());
            drop(self);
            (ended, left)
        };
        let (ended, left) = tokio::spawn(authorizing).await.map_err(|_| SendError::Interrupted)?;
        *tries = left;
        ended
    }

    async fn authorize(
        &mut self,
        operation: &str,
        reply: &Reply,
        tries: &mut Tries,
    ) -> Result<Verdict, SendError> {
        if matches!(self.access, Access::None) && std::mem::take(&mut tries.resume) {
            // D39: another program may have logged in since.
            if self.resume().await? == Verdict::Repeat {
                return Ok(Verdict::Repeat);
            }
        }
        match std::mem::replace(&mut self.access, Access::None) {
            Access::None if tries.login => {
                tries.login = false;
                let ready = self.shared.driver.prepare(&self.shared.server, reply).await?;
                self.login(ready).await
            }
            Access::Ready(ready) if tries.login => {
                tries.login = false;
                self.authorize_anew(ready, reply).await
            }
            Access::Session(session) => self.widen(session, operation, reply, tries).await,
            access => {
                self.access = access;
                Ok(Verdict::Stands)
            }
        }
    }

    /// Takes the session that the store has for this server. One that does not open here is as good as none.
    async fn resume(&mut self) -> Result<Verdict, SendError> {
        match self.shared.driver.resume(&self.shared.server).await {
            Ok(Some(session)) => {
                self.access = Access::Session(session);
                self.granted = true;
                Ok(Verdict::Repeat)
            }
            Ok(None) | Err(LoginError::Core(_)) => Ok(Verdict::Stands),
            Err(error) => Err(error.into()),
        }
    }

    /// What the core makes of a refusal of this session's token.
    async fn widen(
        &mut self,
        session: Session,
        operation: &str,
        reply: &Reply,
        tries: &mut Tries,
    ) -> Result<Verdict, SendError> {
        match self.shared.driver.challenged(session, operation, reply) {
            Ok(StepUp::Refresh(session)) if tries.refresh => {
                tries.refresh = false;
                match self.shared.driver.refresh(session).await {
                    Refreshed::Ended(Failed { state, .. }) if tries.login => {
                        tries.login = false;
                        self.authorize_anew(state, reply).await
                    }
                    refreshed => self.settle(refreshed),
                }
            }
            Ok(StepUp::Authorize(ready)) if tries.login => {
                tries.login = false;
                self.authorize_anew(ready, reply).await
            }
            Ok(StepUp::Count(step)) if tries.login => {
                tries.login = false;
                match self.shared.driver.step_up(step).await {
                    Ok(ready) => self.login(ready).await,
                    Err(Failed { error, state }) => {
                        self.access = Access::Session(state);
                        Err(match error {
                            LoginError::Core(error) => SendError::Denied(error),
                            error => error.into(),
                        })
                    }
                }
            }
            // Nobody is asked twice for one request, and nothing is counted for it.
            Ok(StepUp::Count(step)) => {
                self.access = Access::Session(step.into_parts().1.given_up());
                Ok(Verdict::Stands)
            }
            // A fresh token is not taken either: the server's answer stands, unless it is another authorization server's
            // tokens that it takes now.
            Ok(StepUp::Refresh(session)) => {
                let moved = match tries.login {
                    true => self.moved(session.issuer(), reply).await,
                    false => Ok(None),
                };
                match moved {
                    Ok(Some(ready)) => {
                        tries.login = false;
                        self.login(ready.counting_on(&session.into_ready())).await
                    }
                    Ok(None) => {
                        self.access = Access::Session(session);
                        Ok(Verdict::Stands)
                    }
                    Err(error) => {
                        self.access = Access::Session(session);
                        Err(error)
                    }
                }
            }
            Ok(StepUp::Authorize(ready)) => {
                self.access = Access::Ready(ready);
                Ok(Verdict::Stands)
            }
            Err(Failed { error, state }) => {
                self.access = Access::Session(state);
                Err(SendError::Denied(error))
            }
        }
    }

    async fn moved(&self, issuer: &Issuer, reply: &Reply) -> Result<Option<Ready>, SendError> {
        Ok(self.shared.driver.moved(issuer, &self.shared.server, reply).await?)
    }

    /// Logs in again after a grant came to nothing, at the server the resource names by now.
    async fn authorize_anew(&mut self, ready: Ready, reply: &Reply) -> Result<Verdict, SendError> {
        match self.moved(ready.issuer(), reply).await {
            Ok(Some(moved)) => self.login(moved.counting_on(&ready)).await,
            Ok(None) => self.login(ready).await,
            Err(error) => {
                self.access = Access::Ready(ready);
                Err(error)
            }
        }
    }

    async fn login(&mut self, ready: Ready) -> Result<Verdict, SendError> {
        match self.shared.driver.login(ready).await {
            Ok(session) => Ok(self.hold(session)),
            Err(Failed { error, state }) => {
                // A step-up that came to nothing takes away nothing: the tokens there were are as good as before.
                self.access = state.map_or(Access::None, |ready| {
                    ready.earlier_session().map_or_else(Access::Ready, Access::Session)
                });
                Err(error.into())
            }
        }
    }

    /// Exchanges the refresh token; without a session there is nothing to do.
    pub(super) async fn refresh(&mut self) -> Result<Verdict, SendError> {
        match std::mem::replace(&mut self.access, Access::None) {
            Access::Session(session) => {
                let refreshed = self.shared.driver.refresh(session).await;
                self.settle(refreshed)
            }
            other => {
                self.access = other;
                Ok(Verdict::Stands)
            }
        }
    }

    fn settle(&mut self, refreshed: Refreshed) -> Result<Verdict, SendError> {
        match refreshed {
            Refreshed::Renewed(session) => Ok(self.hold(session)),
            Refreshed::Kept(Failed { error, state }) => {
                self.access = Access::Session(state);
                Err(error.into())
            }
            Refreshed::Ended(Failed { error, state }) => {
                self.access = Access::Ready(state);
                Err(SendError::Denied(error))
            }
            Refreshed::Lost(error) => Err(error.into()),
        }
    }

    fn hold(&mut self, session: Session) -> Verdict {
        self.access = Access::Session(session);
        self.granted = true;
        // A server whose tokens live for less than the margin is not asked for one at each request.
        self.pause();
        Verdict::Repeat
    }

    fn pause(&mut self) {
        self.renew_after = Some(self.shared.driver.now().saturating_add(PAUSE));
    }
}
