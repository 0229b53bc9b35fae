//! The client against a server that says whatever a test wants.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{
    AwaitingCallback, AwaitingRefresh, AwaitingResourceMetadata, AwaitingServerMetadata, CallbackOutcome,
    ChoosingIdentity, ChoosingIssuer, ClaimOutcome, Client, Configuration, EndpointCall, PreRegistered,
    Ready, ResourceMetadataOutcome, ServerMetadataOutcome, Session,
};
use crate::entropy::{Entropy, EntropyUnavailable};
use crate::error::{Error, PeerIncompatible, PeerMisbehaved, Remedy};
use crate::evidence::IssuerForResource;
use crate::identifier::{ClientId, Issuer, RedirectUri, ResourceId, ScopeSet};
use crate::message::authorization::Callback;
use crate::message::exchange::{Fetch, Reply};
use crate::policy::{Policy, Relaxation};
use crate::secret::{AgentBinding, SecretDigest};
use crate::step::Step;
use crate::syntax::form::Form;
use crate::time::{Duration, OffsetDateTime};

mod assertion;
mod authorization;
mod client_metadata;
mod discovery;
mod legacy;
mod records;
mod refresh;
mod registration;
mod relaxations;
mod revocation;
mod session;
mod sign_in;
mod step_up;

const SERVER: &str = "https://mcp.example/notes";
const ISSUER: &str = "https://as.example";
const REDIRECT: &str = "http://127.0.0.1:4711/callback";

struct Counter(u64);

impl Entropy for Counter {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyUnavailable> {
        for chunk in buffer.chunks_mut(32) {
            self.0 += 1;
            chunk.copy_from_slice(&SecretDigest::of(&self.0.to_be_bytes()).as_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&mut self, _: &mut [u8]) -> Result<(), EntropyUnavailable> {
        Err(EntropyUnavailable)
    }
}

fn now() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::days(20_000)
}

fn server() -> ResourceId {
    ResourceId::from_server_url(SERVER).unwrap()
}

fn issuer(text: &str) -> Issuer {
    Issuer::new(text).unwrap()
}

fn scopes(text: &str) -> ScopeSet {
    ScopeSet::parse(text).unwrap()
}

/// Strict but for the records, which these tests read.
fn policy() -> Policy {
    Policy::strict().relax(Relaxation::PlaintextRecords)
}

fn configuration() -> Configuration {
    Configuration::new("Test", RedirectUri::new(REDIRECT).unwrap()).policy(policy())
}

fn client_of(configuration: Configuration) -> Client {
    Client::new(configuration).unwrap()
}

/// The host's word for the server of these tests and that issuer.
fn word(listed: &str) -> Option<IssuerForResource> {
    Some(IssuerForResource::assertion(server(), issuer(listed)))
}

fn strict() -> Client {
    client_of(configuration())
}

fn relaxed(relaxation: Relaxation) -> Client {
    client_of(configuration().policy(policy().relax(relaxation)))
}

fn pre_registered() -> PreRegistered {
    let redirect = RedirectUri::new("http://127.0.0.1:4711/own").unwrap();
    PreRegistered::new(issuer(ISSUER), ClientId::new("pre").unwrap(), redirect, [server()])
}

fn json(body: impl Into<Vec<u8>>) -> Reply {
    Reply::new(200, body).with_header("content-type", b"application/json")
}

fn challenge(value: &str) -> Reply {
    Reply::new(401, "").with_header("www-authenticate", value.as_bytes())
}

fn resource_metadata(resource: &str, issuer: &str) -> Reply {
    json(format!(
        "{{\"resource\":\"{resource}\",\"authorization_servers\":[\"{issuer}\"],\"scopes_supported\":[\"read\",\"list\"]}}"
    ))
}

/// Authorization server metadata as text, with one member replaced by another text, or left out by an empty one.
fn server_metadata(changes: &[(&str, &str)]) -> Reply {
    let mut members: Vec<(String, String)> = [
        ("issuer", "\"https://as.example\""),
        ("authorization_endpoint", "\"https://as.example/authorize\""),
        ("token_endpoint", "\"https://as.example/token\""),
        ("registration_endpoint", "\"https://as.example/register\""),
        ("response_types_supported", "[\"code\"]"),
        ("code_challenge_methods_supported", "[\"S256\"]"),
        ("authorization_response_iss_parameter_supported", "true"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for (name, value) in changes {
        members.retain(|(known, _)| known != name);
        if !value.is_empty() {
            members.push(((*name).to_owned(), (*value).to_owned()));
        }
    }
    let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    json(format!("{{{}}}", members.join(",")))
}

fn challenged(client: &Client, reply: &Reply) -> Step<Fetch, AwaitingResourceMetadata> {
    client.challenged(&server(), reply).unwrap()
}

fn choosing_issuer(client: &Client, listed: &str) -> ChoosingIssuer {
    let (fetch, state) = challenged(client, &challenge("Bearer scope=\"read\"")).into_parts();
    assert_eq!(fetch.url(), "https://mcp.example/.well-known/oauth-protected-resource/notes");
    match state.receive(Ok(resource_metadata(SERVER, listed))).unwrap() {
        ResourceMetadataOutcome::Found(state) => state,
        ResourceMetadataOutcome::Next(_) => panic!("the document is there"),
    }
}

fn awaiting_server(client: &Client, listed: &str) -> AwaitingServerMetadata {
    choosing_issuer(client, listed).choose(&issuer(listed), word(listed)).unwrap().into_parts().1
}

fn choosing_identity(client: &Client, changes: &[(&str, &str)]) -> ChoosingIdentity {
    match awaiting_server(client, ISSUER).receive(Ok(server_metadata(changes))).unwrap() {
        ServerMetadataOutcome::Found(state) => state,
        ServerMetadataOutcome::Next(_) => panic!("the document is there"),
    }
}

fn ready(client: &Client) -> Ready {
    ready_with(client, &[])
}

fn ready_with(client: &Client, changes: &[(&str, &str)]) -> Ready {
    let (fetch, state) = choosing_identity(client, changes).register().unwrap().into_parts();
    let asked = String::from_utf8(fetch.body().to_vec()).unwrap();
    let redirect = asked.split("\"redirect_uris\":[\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let body = format!(
        "{{\"client_id\":\"c1\",\"token_endpoint_auth_method\":\"none\",\"redirect_uris\":[\"{redirect}\"]}}"
    );
    state.receive(Ok(Reply::new(201, body))).unwrap()
}

/// The parameters of a URL.
fn parameters(url: &str) -> Form {
    Form::parse(url.split_once('?').unwrap().1.as_bytes()).unwrap()
}

struct Begun {
    waiting: AwaitingCallback,
    url: String,
}

impl Begun {
    fn state(&self) -> String {
        parameters(&self.url).get("state").unwrap().to_owned()
    }

    fn redirect_uri(&self) -> String {
        parameters(&self.url).get("redirect_uri").unwrap().to_owned()
    }

    /// The genuine callback, with something added.
    fn callback(&self, rest: &str) -> Callback {
        Callback::from_url(&format!("{}?state={}{rest}", self.redirect_uri(), self.state())).unwrap()
    }
}

fn begin(ready: Ready) -> Begun {
    let agent = AgentBinding::this_process();
    let (open, waiting) = ready.begin(&ScopeSet::new(), agent, now(), &mut Counter(0)).unwrap().into_parts();
    Begun { waiting, url: open.url().to_owned() }
}

const HERE: AgentBinding = AgentBinding::this_process();
const GENUINE: &str = "&code=c&iss=https%3A%2F%2Fas.example";

fn exchanged(client: &Client) -> (Fetch, super::AwaitingTokens) {
    let begun = begin(ready(client));
    let callback = begun.callback(GENUINE);
    sent(begun.waiting.receive(callback, &HERE, now(), &mut Counter(5)))
}

/// The token request of an accepted callback.
fn sent(outcome: CallbackOutcome) -> (Fetch, super::AwaitingTokens) {
    match outcome {
        CallbackOutcome::Accepted(EndpointCall::Fetch(step)) => step.into_parts(),
        other => panic!("{other:?}"),
    }
}

/// A refresh of a session that no other process knows.
fn refreshing(session: Session) -> (Fetch, AwaitingRefresh) {
    let (claim, state) = session.refresh(now(), &mut Counter(6)).unwrap().into_parts();
    match state.claimed(claim.alone(), now(), &mut Counter(7)).unwrap() {
        ClaimOutcome::Claimed(EndpointCall::Fetch(step)) => step.into_parts(),
        other => panic!("{other:?}"),
    }
}

const TOKENS: &str = "{\"access_token\":\"at-1\",\"token_type\":\"Bearer\",\"expires_in\":300,\"refresh_token\":\"rt-1\",\"scope\":\"read\"}";

fn session(client: &Client) -> Session {
    let (_, state) = exchanged(client);
    let (persist, state) = state.receive(Ok(json(TOKENS)), now()).unwrap().into_parts();
    state.persisted(persist.kept_in_memory()).unwrap()
}

fn incompatible(error: &Error) -> &PeerIncompatible {
    match error {
        Error::Incompatible(error) => error,
        other => panic!("{other:?}"),
    }
}

fn misbehaved(error: &Error) -> &PeerMisbehaved {
    match error {
        Error::Peer(error) => error,
        other => panic!("{other:?}"),
    }
}

fn names(remedy: &Remedy) -> Option<&'static str> {
    match remedy {
        Remedy::Relax(relaxation) => Some(relaxation.name()),
        _ => None,
    }
}
