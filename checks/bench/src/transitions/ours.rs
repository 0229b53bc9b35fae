//! The core's machines, carried from action to action over the store in memory.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mcp_authz::authorization_server::authorization::{Authorizing, ConsentView, Recall, RequestOutcome};
use mcp_authz::authorization_server::caller::{AwaitingCaller, CallerOutcome};
use mcp_authz::authorization_server::decision::Decided;
use mcp_authz::authorization_server::record::{ClientCredential, ClientRecord};
use mcp_authz::authorization_server::refresh::{RefreshOutcome, RotationOutcome};
use mcp_authz::authorization_server::store::FindClient;
use mcp_authz::authorization_server::token::{CodeOutcome, RedemptionOutcome};
use mcp_authz::authorization_server::{AuthorizationServer, Configuration, KnownResource};
use mcp_authz::entropy::Entropy as _;
use mcp_authz::evidence::{Approval, Authentication};
use mcp_authz::identifier::{ClientId, Issuer, ResourceId, Scope};
use mcp_authz::jose::{Algorithm, SigningKeyId};
use mcp_authz::message::client_metadata::ClientMetadata;
use mcp_authz::message::exchange::{RequestHead, Respond};
use mcp_authz::secret::AgentBinding;
use mcp_authz::step::Step;
use mcp_authz_tokio::clock::{Clock as _, SystemClock};
use mcp_authz_tokio::entropy::ThreadEntropy;
use mcp_authz_tokio::store::memory::MemoryStore;
use mcp_authz_tokio::store::{Bounds, Store};

use super::{CLIENT, PERSON, REDIRECT_URI, RESOURCE, SCOPES, Server};

/// An authorization server of one resource with opaque tokens and one public client.
pub struct Ours<S = MemoryStore, W = AtOnce> {
    server: AuthorizationServer,
    store: S,
    waiting: W,
    person: Authentication,
    head: RequestHead,
}

/// How a store is waited for.
pub trait Wait {
    /// What the store gives.
    fn wait<T>(&self, future: impl Future<Output = T>) -> T;
}

/// The store in memory gives it at once.
#[derive(Default)]
pub struct AtOnce;

impl Wait for AtOnce {
    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("the store in memory waits for nothing"),
        }
    }
}

impl Wait for &tokio::runtime::Runtime {
    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.block_on(future)
    }
}

impl Default for Ours {
    /// A server that has granted nothing yet.
    fn default() -> Self {
        Self::over(MemoryStore::with_clock(Arc::new(SystemClock)).bounds(bounds()), AtOnce)
    }
}

/// All flows of a batch are one person's, and wait for the answer at one time.
pub fn bounds() -> Bounds {
    let mut bounds = Bounds::default();
    bounds.decisions_of_a_person = bounds.decisions;
    bounds
}

impl<S: Store, W: Wait> Ours<S, W> {
    /// A server over a store.
    pub fn over(store: S, waiting: W) -> Self {
        let scopes = SCOPES.split(' ').map(|scope| (Scope::new(scope).unwrap(), format!("May {scope}")));
        let resource = KnownResource::new(ResourceId::new(RESOURCE).unwrap(), scopes)
            .opaque_tokens(ClientId::new("notes").unwrap());
        let key = SigningKeyId::new("k1", Algorithm::EdDsa);
        let issuer = Issuer::new("https://as.example").unwrap();
        let server = AuthorizationServer::new(Configuration::new(issuer, vec![resource], key)).unwrap();
        let now = SystemClock.now();
        let metadata = format!(
            r#"{{"redirect_uris":["{REDIRECT_URI}"],"client_name":"Editor","grant_types":["authorization_code","refresh_token"]}}"#
        );
        let metadata = ClientMetadata::parse(metadata.as_bytes()).unwrap();
        let id = ClientId::new(CLIENT).unwrap();
        let client = ClientRecord::pre_registered(id, metadata, ClientCredential::None, now).unwrap();
        waiting.wait(store.put_client(client)).unwrap();
        let mut nonce = [0; 32];
        ThreadEntropy.fill(&mut nonce).unwrap();
        let person = Authentication::assertion(PERSON, AgentBinding::session(&nonce).unwrap(), now).unwrap();
        let head = RequestHead::new("POST", "/token")
            .with_header("content-type", b"application/x-www-form-urlencoded");
        Self { server, store, waiting, person, head }
    }

    /// The client of a request at the token endpoint, and what follows.
    fn called(&self, body: &str) -> CallerOutcome {
        let step: Step<FindClient, AwaitingCaller> = self.server.token(&self.head, body.as_bytes()).unwrap();
        let (find, waiting) = step.into_parts();
        waiting.found(self.waiting.wait(self.store.find_client(find)).unwrap(), &mut ThreadEntropy)
    }
}

impl<S: Store, W: Wait> Server for Ours<S, W> {
    type Page = ConsentView;

    fn authorize(&mut self, query: &str) -> ConsentView {
        let Ok(Authorizing::Find(step)) = self.server.authorize(query) else {
            panic!("a client is looked up")
        };
        let (find, waiting) = step.into_parts();
        let request = match waiting.found(self.waiting.wait(self.store.find_client(find)).unwrap()) {
            RequestOutcome::Validated(request) => request,
            other => panic!("{other:?}"),
        };
        let Recall::Ask(request) = request.recall(&self.person) else {
            panic!("a public client is asked about")
        };
        let step = request.show(&self.person, SystemClock.now(), &mut ThreadEntropy).unwrap();
        let (insert, waiting) = step.into_parts();
        let receipt = self.waiting.wait(self.store.insert_decision(insert)).unwrap();
        waiting.stored(receipt).unwrap().into_page().unwrap()
    }

    fn approve(&mut self, page: ConsentView) -> String {
        let scopes = page.scopes.into_iter().map(|shown| shown.scope).collect();
        let approval = Approval::assertion(self.person.subject(), *self.person.agent(), scopes);
        let (read, waiting) = self.server.decide(&page.handle).into_parts();
        let deciding = waiting.found(self.waiting.wait(self.store.read_decision(read)).unwrap()).unwrap();
        let step = deciding.approve(approval, &page.csrf, &mut ThreadEntropy).unwrap();
        let (decide, waiting) = step.into_parts();
        match waiting.decided(self.waiting.wait(self.store.decide_once(decide)).unwrap()).unwrap() {
            Decided::Redirect(redirect) => redirect.location().to_owned(),
            Decided::Refused(refusal) => panic!("{refusal:?}"),
        }
    }

    fn redeem(&mut self, body: &str) -> String {
        let CallerOutcome::Code(step) = self.called(body) else { panic!("a code was presented") };
        let (read, waiting) = step.into_parts();
        let found = self.waiting.wait(self.store.read_code(read)).unwrap();
        let CodeOutcome::Redeem(step) = waiting.found(found, &mut ThreadEntropy) else {
            panic!("the code is good")
        };
        let (redeem, waiting) = step.into_parts();
        let receipt = self.waiting.wait(self.store.redeem_code(redeem)).unwrap();
        match waiting.redeemed(receipt, &mut ThreadEntropy).unwrap() {
            RedemptionOutcome::Tokens(answer) => text(&answer),
            other => panic!("{other:?}"),
        }
    }

    fn refresh(&mut self, body: &str) -> String {
        let CallerOutcome::Refresh(step) = self.called(body) else { panic!("a refresh token was presented") };
        let (read, waiting) = step.into_parts();
        let found = self.waiting.wait(self.store.read_refresh(read)).unwrap();
        let RefreshOutcome::Rotate(step) = waiting.found(found, &mut ThreadEntropy) else { panic!("it is good") };
        let (rotate, waiting) = step.into_parts();
        let receipt = self.waiting.wait(self.store.rotate_refresh(rotate)).unwrap();
        match waiting.rotated(receipt, &mut ThreadEntropy).unwrap() {
            RotationOutcome::Tokens(answer) => text(&answer),
            other => panic!("{other:?}"),
        }
    }
}

fn text(answer: &Respond) -> String {
    assert_eq!(answer.status(), 200);
    String::from_utf8(answer.body().to_vec()).unwrap()
}
