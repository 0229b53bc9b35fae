//! What the server does for people who sign in elsewhere: at an OpenID Provider, before they are asked.
//!
//! The page that leads there names who asks ([`RequestShown`]), and the browser's return counts once
//! ([`AuthorizationServer::sign_in_once`]). The sign-in itself is a client's: see [`crate::client::Client::sign_in`]. However
//! somebody signed in, a browser they sign out in is noted ([`AuthorizationServer::signed_out`]).

use alloc::boxed::Box;
use alloc::string::String;

use super::AuthorizationServer;
use super::authorization::ScopeShown;
use super::client::ClientShown;
use super::store::{Reservation, ReservationKind, ReserveOnce};
use crate::identifier::{Issuer, RedirectUri, ResourceId};
use crate::secret::{AgentBinding, SecretDigest};
use crate::step::Step;
use crate::syntax::base64url;
use crate::time::OffsetDateTime;

/// A request as it is shown to somebody who has not signed in: who asks, for what, and where the answer goes.
///
/// Client name and identity are a peer's text: the page escapes them (I-P8).
#[derive(Debug, Clone)]
pub struct RequestShown {
    /// Who asks.
    pub client: ClientShown,
    /// The host the answer goes to: the one thing the client cannot invent.
    pub redirect_host: String,
    /// Whether the answer goes to a program on the person's own machine.
    pub redirect_is_loopback: bool,
    /// What the client wants to reach; none in a request whose answer is an error.
    pub resource: Option<ResourceId>,
    /// What it wants to do there.
    pub scopes: alloc::vec::Vec<ScopeShown>,
}

impl RequestShown {
    /// A request of that client, to be answered there.
    pub(super) fn new(client: ClientShown, redirect_uri: &RedirectUri) -> Self {
        Self {
            client,
            // MCP-SEC-024, MCP-SBP-004
            redirect_host: String::from(redirect_uri.host_for_display()),
            redirect_is_loopback: redirect_uri.is_loopback(),
            resource: None,
            scopes: alloc::vec::Vec::new(),
        }
    }
}

impl AuthorizationServer {
    /// A browser came back from the provider its person signs in at, with an answer to the request of this `state`: it
    /// counts once, in whichever process it arrives.
    ///
    /// The host calls it before anything of the answer is used; `until` is when the request ends.
    pub fn sign_in_once(
        &self,
        provider: &Issuer,
        state: &SecretDigest,
        until: OffsetDateTime,
    ) -> Step<ReserveOnce, AwaitingSignInReserved> {
        // MCP-SBP-013, I-P3
        let value = base64url::encode(state.as_bytes());
        let parts = (String::from(provider.as_str()), self.issuer().clone(), value);
        let action = ReserveOnce::new(ReservationKind::SignIn, parts, until);
        Step::new(action, AwaitingSignInReserved(Box::new(*state)))
    }

    /// That the person signs out in this browser: carried out, it ends the sessions there in every process over one store, and
    /// copies of their cookies with them. The store is asked for the same before a session counts.
    ///
    /// `until` is when the last session of that browser ends by itself.
    pub fn signed_out(&self, agent: &AgentBinding, until: OffsetDateTime) -> ReserveOnce {
        // I-P9
        let value = base64url::encode(&agent.to_bytes());
        let parts = (String::from(self.issuer().as_str()), self.issuer().clone(), value);
        ReserveOnce::new(ReservationKind::SignOut, parts, until)
    }
}

/// Waits for the receipt that an answer counts.
#[must_use = "the person waits"]
#[derive(Debug)]
pub struct AwaitingSignInReserved(Box<SecretDigest>);

impl AwaitingSignInReserved {
    /// Whether this is the first answer to the request. Anything else is a replay.
    pub fn reserved(self, receipt: &Reservation) -> bool {
        receipt.reserves(&base64url::encode(self.0.as_bytes()))
    }
}
