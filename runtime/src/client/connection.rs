//! Requests to one MCP server: the token goes along, a 401 is answered by a refresh or a login, a 403
//! `insufficient_scope` by a step-up, and the request is then repeated once (MCP scope challenge handling).
//!
//! A reply is JSON or an event stream, as streamable HTTP has it; either way it is read as messages.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use mcp_authz::client::{Ready, Session, StepUp};
use mcp_authz::error::{Error, Remedy};
use mcp_authz::identifier::{InvalidIdentifier, Issuer, ResourceId, ScopeSet};
use mcp_authz::limits;
use mcp_authz::message::exchange::{AddressPolicy, FetchFailure, Reply};
use mcp_authz::step::Failed;

use super::driver::{Driver, LoginError, Refreshed};
use super::event::ClientEvent;
use super::fetch::{Outgoing, reply_of, secret_header};
pub use super::reply::{McpReply, OpenReply};

/// One request, to be sent once or, after an authorization, twice.
#[derive(Debug, Clone)]
pub struct McpRequest {
    /// What it is for: attempts at a step-up are counted by it, so the same operation has the same name.
    pub operation: String,
    /// The method.
    pub method: Method,
    /// Header fields besides `Authorization`, which the connection sets.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl McpRequest {
    /// A POST of one JSON-RPC message, as streamable HTTP has it.
    pub fn json_rpc(operation: impl Into<String>, message: impl Into<Vec<u8>>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let accept = HeaderValue::from_static("application/json, text/event-stream");
        headers.insert(http::header::ACCEPT, accept);
        Self { operation: operation.into(), method: Method::POST, headers, body: message.into() }
    }
}

/// Why a request has no answer that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The MCP server could not be reached.
    #[error("the MCP server gave no answer: {0}")]
    Fetch(FetchFailure),
    /// The authorization that the server asked for failed.
    #[error("{0}")]
    Login(#[from] LoginError),
    /// The server asks for authorization, but none would help.
    #[error("{0}")]
    Denied(Error),
}

/// What is known of the authorization at this server.
#[derive(Debug)]
enum Access {
    None,
    Ready(Ready),
    /// The registration is of no use any more; what is counted goes on.
    Unregistered(Ready),
    Session(Session),
}

/// One MCP server, and the authorization for it as far as there is one.
#[derive(Debug)]
pub struct Connection {
    driver: Driver,
    server: ResourceId,
    url: String,
    access: Access,
    max_bytes: usize,
    patience: Duration,
}

impl Connection {
    /// A connection to the MCP server at the URL the person gave; nothing is known of it yet.
    ///
    /// # Errors
    /// [`InvalidIdentifier`] for a URL no MCP server can have.
    pub fn new(driver: Driver, url: impl Into<String>) -> Result<Self, InvalidIdentifier> {
        let url = url.into();
        let server = ResourceId::from_server_url(&url)?;
        let (access, max_bytes, patience) = (Access::None, limits::DOCUMENT_BYTES, Duration::from_secs(60));
        Ok(Self { driver, server, url, access, max_bytes, patience })
    }

    /// Goes on with a session of an earlier process.
    #[must_use]
    pub fn with_session(self, session: Session) -> Self {
        Self { access: Access::Session(session), ..self }
    }

    /// Reads replies, or each message of an event stream, up to so many bytes; without this call 64 KiB.
    #[must_use]
    pub fn max_bytes(self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self }
    }

    /// Waits so long for a reply, and for each further piece of an event stream; without this call a minute.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The session, if there is one.
    pub fn session(&self) -> Option<&Session> {
        match &self.access {
            Access::Session(session) => Some(session),
            Access::None | Access::Ready(_) | Access::Unregistered(_) => None,
        }
    }

    /// Takes the session out; the connection begins anew.
    pub fn take_session(&mut self) -> Option<Session> {
        match std::mem::replace(&mut self.access, Access::None) {
            Access::Session(session) => Some(session),
            other => {
                self.access = other;
                None
            }
        }
    }

    /// Sends a request with the token, answers a challenge as [`Connection::open`] does, and reads the reply: a body, or
    /// the messages of an event stream up to the answer to this request.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn send(&mut self, request: &McpRequest) -> Result<McpReply, SendError> {
        let reply = self.open(request).await?;
        reply.finish(&request.body, self.max_bytes).await.map_err(SendError::Fetch)
    }

    /// Sends a request with the token, and answers a challenge: at most one refresh and one login, then the request
    /// once more. What comes then is the reply, whatever its status; an event stream is yet to be read, by
    /// [`OpenReply::message`], while other requests are sent.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn open(&mut self, request: &McpRequest) -> Result<OpenReply, SendError> {
        let mut may_refresh = true;
        let mut may_login = true;
        loop {
            let (reply, opened) = self.send_once(request).await?;
            if !self.is_challenge(&reply) {
                return Ok(opened);
            }
            match std::mem::replace(&mut self.access, Access::None) {
                Access::None if may_login => {
                    let ready = self.driver.prepare(&self.server, &reply).await?;
                    self.login(ready).await?;
                    may_login = false;
                }
                Access::Ready(ready) if may_login => {
                    self.authorize_anew(ready, &reply).await?;
                    may_login = false;
                }
                Access::Unregistered(ready) if may_login => {
                    match self.driver.prepare(&self.server, &reply).await {
                        Ok(anew) => self.login(anew.counting_on(&ready)).await?,
                        Err(error) => {
                            self.access = Access::Unregistered(ready);
                            return Err(error.into());
                        }
                    }
                    may_login = false;
                }
                Access::Session(session) => match self.driver.challenged(session, &request.operation, &reply)
                {
                    Ok(StepUp::Refresh(session)) if may_refresh => {
                        may_refresh = false;
                        match self.driver.refresh(session).await {
                            Refreshed::Ended(Failed { state, .. }) if may_login => {
                                self.authorize_anew(state, &reply).await?;
                                may_login = false;
                            }
                            refreshed => self.refreshed(refreshed)?,
                        }
                    }
                    Ok(StepUp::Authorize(ready)) if may_login => {
                        match reply.status() {
                            401 => self.authorize_anew(ready, &reply).await?,
                            _ => self.login(ready).await?,
                        }
                        may_login = false;
                    }
                    // A fresh token is not taken either: the server's answer stands, unless it is another
                    // authorization server's tokens that it takes now.
                    Ok(StepUp::Refresh(session)) => {
                        let moved =
                            if may_login { self.moved(session.issuer(), &reply).await } else { Ok(None) };
                        match moved {
                            Ok(Some(ready)) => self.login(ready.counting_on(&session.into_ready())).await?,
                            Ok(None) => {
                                self.access = Access::Session(session);
                                return Ok(opened);
                            }
                            Err(error) => {
                                self.access = Access::Session(session);
                                return Err(error);
                            }
                        }
                        may_login = false;
                    }
                    Ok(StepUp::Authorize(ready)) => {
                        self.access = Access::Ready(ready);
                        return Ok(opened);
                    }
                    Err(Failed { error, state }) => {
                        self.access = Access::Session(state);
                        return Err(SendError::Denied(error));
                    }
                },
                access => {
                    self.access = access;
                    return Ok(opened);
                }
            }
        }
    }

    /// A 401 is one always, a 403 only with a token: without one there is nothing to widen.
    fn is_challenge(&self, reply: &Reply) -> bool {
        match reply.status() {
            401 => true,
            403 => matches!(self.access, Access::Session(_)),
            _ => false,
        }
    }

    async fn moved(&self, issuer: &Issuer, reply: &Reply) -> Result<Option<Ready>, SendError> {
        Ok(self.driver.moved(issuer, &self.server, reply).await?)
    }

    /// Logs in again after a grant came to nothing, at the server the resource names by now.
    async fn authorize_anew(&mut self, ready: Ready, reply: &Reply) -> Result<(), SendError> {
        match self.moved(ready.issuer(), reply).await {
            Ok(Some(moved)) => self.login(moved.counting_on(&ready)).await,
            Ok(None) => self.login(ready).await,
            Err(error) => {
                self.access = Access::Ready(ready);
                Err(error)
            }
        }
    }

    async fn login(&mut self, ready: Ready) -> Result<(), SendError> {
        match self.driver.login(ready).await {
            Ok(session) => {
                self.access = Access::Session(session);
                Ok(())
            }
            Err(Failed { error, state }) => {
                // D40: with a registration that the server does not take, every further login would end the same way.
                let of_no_use =
                    matches!(&error, LoginError::Core(error) if error.remedy() == Remedy::Reregister);
                let back = if of_no_use { Access::Unregistered } else { Access::Ready };
                self.access = state.map_or(Access::None, back);
                Err(error.into())
            }
        }
    }

    /// Exchanges the refresh token now, not only when the access token is refused.
    ///
    /// # Errors
    /// [`SendError`]; a grant that is over leaves the connection ready for another login.
    pub async fn refresh(&mut self) -> Result<(), SendError> {
        match self.take_session() {
            Some(session) => {
                let refreshed = self.driver.refresh(session).await;
                self.refreshed(refreshed)
            }
            None => Ok(()),
        }
    }

    fn refreshed(&mut self, refreshed: Refreshed) -> Result<(), SendError> {
        match refreshed {
            Refreshed::Renewed(session) => {
                self.access = Access::Session(session);
                Ok(())
            }
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

    async fn send_once(&self, request: &McpRequest) -> Result<(Reply, OpenReply), SendError> {
        let mut headers = request.headers.clone();
        headers.remove(http::header::AUTHORIZATION);
        if let Access::Session(session) = &self.access {
            // MCP-AUTH-053, MCP-AUTH-071: with every request; the core hands the token out for its own resource only.
            let field = self.driver.core_time().measure(|| session.authorization_for(&self.url));
            let field = field.map_err(SendError::Denied)?;
            let field = secret_header(field.expose()).ok_or(SendError::Fetch(FetchFailure::Unreachable))?;
            headers.insert(http::header::AUTHORIZATION, field);
        }
        self.driver.observe(ClientEvent::Sending {
            operation: &request.operation,
            method: request.method.as_str(),
            url: &self.url,
            with_token: self.session().is_some(),
        });
        let loopback = self.server.is_loopback();
        let outgoing = Outgoing {
            method: request.method.clone(),
            url: &self.url,
            headers,
            body: &request.body,
            // The person gave this URL, so it may lie in a network the host named.
            addresses: if loopback {
                AddressPolicy::Loopback
            } else {
                AddressPolicy::PublicAndPrivateNetworks
            },
        };
        let exchange = async {
            OpenReply::read(self.driver.fetcher().open(outgoing).await?, self.max_bytes, self.patience).await
        };
        let exchange = tokio::time::timeout(self.patience, exchange).await;
        let opened = exchange.unwrap_or(Err(FetchFailure::TimedOut)).map_err(SendError::Fetch)?;
        let reply = reply_of(opened.status(), opened.headers(), opened.body());
        self.driver.observe(ClientEvent::Answered(&reply));
        Ok((reply, opened))
    }

    /// The scopes the session has; none without one.
    pub fn scopes(&self) -> ScopeSet {
        self.session().map(|session| session.scopes().clone()).unwrap_or_default()
    }
}
