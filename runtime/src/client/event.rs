//! What a driver tells its observer.

use std::fmt;

use mcp_authz::client::{
    ClaimRefresh, CommitRefresh, ErrorResponse, OpenUserAgent, PersistSession, Ready, Session,
};
use mcp_authz::error::Error;
use mcp_authz::message::authorization::Callback;
use mcp_authz::message::exchange::{Fetch, FetchFailure, FetchPurpose, Reply};

/// What happens at the client, for a log or a demonstration.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientEvent<'a> {
    /// A request is sent to the MCP server.
    Sending {
        /// What it is for, in the host's words.
        operation: &'a str,
        /// The method.
        method: &'a str,
        /// Where to.
        url: &'a str,
        /// Whether an access token goes with it.
        with_token: bool,
    },
    /// The MCP server answered it.
    Answered(&'a Reply),
    /// A fetch of the core's is sent. Its body and authorization are secret.
    Fetching(&'a Fetch),
    /// What a fetch brought. The body may hold tokens.
    Fetched(FetchPurpose, Result<&'a Reply, FetchFailure>),
    /// The person is sent to the authorization server. The whole URL is secret, its endpoint is not.
    OpeningUserAgent(&'a OpenUserAgent),
    /// A browser came to the callback listener; whether with what was awaited is yet to be seen. It may hold a code.
    CallbackArrived(&'a Callback),
    /// It was not the awaited one: the listener goes on waiting.
    CallbackUnsolicited,
    /// The authorization server says no.
    Refused(&'a ErrorResponse),
    /// The answer to this request, but from another issuer: nothing of it was used.
    Rejected(&'a Error),
    /// The session is kept before it is used.
    Keeping(&'a PersistSession),
    /// The session is claimed before its refresh token is sent.
    Claiming(&'a ClaimRefresh),
    /// Another process is refreshing the session, or has refreshed it: nothing is sent from here.
    RefreshElsewhere,
    /// The refreshed session is kept before it is used.
    Committing(&'a CommitRefresh),
    /// A comparison held: the name of the evidence and what it vouches for.
    Evidence(&'static str, &'a dyn EvidenceValue),
    /// There is a session.
    Established(&'a Session),
    /// The resource asks for more authorization, for these scopes together with those there are.
    SteppingUp(&'a Ready),
    /// The grant is over; another authorization may begin.
    Ended(&'a Error),
}

/// A piece of evidence that can be shown.
pub trait EvidenceValue: fmt::Debug + fmt::Display {}

impl<T: fmt::Debug + fmt::Display> EvidenceValue for T {}
