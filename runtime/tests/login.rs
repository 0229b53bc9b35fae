//! Driver and connection against real servers on loopback: what a host sees of a login, whatever the person, the
//! store and the MCP server do.
#![cfg(feature = "aws-lc-rs")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{COOKIE, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use axum::routing::any;
use mcp_authz::authorization_server::{
    AuthorizationServer, Configuration, KnownResource, RegistrationPolicy,
};
use mcp_authz::client::{
    ClaimRefresh, Client, CommitRefresh, Configuration as ClientConfiguration, DiscardSession, OpenUserAgent,
    PairingRecord, PersistSession, RefreshClaim, RefreshCommitted, RegistrationRecord, ReleaseClaim,
    SessionDiscarded, SessionPersisted,
};
use mcp_authz::error::{Error, OutsideFailed};
use mcp_authz::identifier::{Issuer, ResourceId, Scope};
use mcp_authz::jose::Algorithm;
use mcp_authz::sealer::Sealer;
use mcp_authz::syntax::form;
use mcp_authz_tokio::BoxFuture;
use mcp_authz_tokio::authorization_server::AuthorizationServerHost;
use mcp_authz_tokio::authorization_server::people::LocalUser;
use mcp_authz_tokio::client::browser::BrowserFailed;
use mcp_authz_tokio::client::callback::CallbackListener;
use mcp_authz_tokio::client::connection::{Connection, McpRequest, SendError};
use mcp_authz_tokio::client::credentials::{
    Choosing, CredentialStore, Joining, KeptSession, MemoryStore as CredentialsInMemory, StoreFailed, Stored,
};
use mcp_authz_tokio::client::driver::{Driver, LoginError};
use mcp_authz_tokio::client::event::ClientEvent;
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::client::pairing::WhateverTheResourceNames;
use mcp_authz_tokio::client::user_agent::UserAgent;
use mcp_authz_tokio::keys::SigningKey;
use mcp_authz_tokio::store::memory::MemoryStore;
use tokio::net::TcpListener;

/// What the person does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Person {
    Allows,
    Denies,
    /// Another page makes the browser visit the callback first.
    IsMisled,
    Leaves,
}

#[derive(Debug, Clone)]
struct Browser {
    person: Person,
    strays: Arc<Mutex<Vec<u16>>>,
}

impl Browser {
    async fn visit(self, url: String) {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        let asked = reqwest::Url::parse(&url).unwrap();
        if self.person == Person::Leaves {
            return;
        }
        let page = http.get(asked.clone()).send().await.unwrap();
        let cookie = page.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
        let page = page.text().await.unwrap();
        let hidden = |name: &str| {
            let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
            rest.split_once('"').unwrap().0.to_owned()
        };
        let decision = if self.person == Person::Denies { "deny" } else { "approve" };
        let (handle, csrf) = (hidden("handle"), hidden("csrf"));
        let body = form::encode([
            ("handle", handle.as_str()),
            ("csrf", csrf.as_str()),
            ("scope.notes:read", "on"),
            ("decision", decision),
        ]);
        let answer = http
            .post(asked.join("/decision").unwrap())
            .header("content-type", "application/x-www-form-urlencoded")
            .header(COOKIE, cookie)
            .body(body)
            .send()
            .await
            .unwrap();
        let callback = answer.headers()[LOCATION].to_str().unwrap().to_owned();
        if self.person == Person::IsMisled {
            let (place, _) = callback.split_once('?').unwrap();
            let stray = http.get(format!("{place}?code=forged&state=guessed")).send().await.unwrap();
            self.strays.lock().unwrap().push(stray.status().as_u16());
        }
        http.get(callback).send().await.unwrap();
    }
}

impl UserAgent for Browser {
    fn open<'a>(&'a self, action: &'a OpenUserAgent) -> BoxFuture<'a, Result<(), BrowserFailed>> {
        tokio::spawn(self.clone().visit(action.url().to_owned()));
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Counts the sessions it is given to keep, and fails from the given one on.
#[derive(Debug, Clone)]
struct Failing {
    store: CredentialsInMemory,
    kept: Arc<AtomicUsize>,
    fails_from: usize,
}

impl Failing {
    fn keeps<'a, T: Send + 'a>(&self, kept: Stored<'a, T>) -> Stored<'a, T> {
        let failed = self.kept.fetch_add(1, Ordering::SeqCst) >= self.fails_from;
        if failed {
            Box::pin(std::future::ready(Err(StoreFailed::Place("the disk is full".into()))))
        } else {
            kept
        }
    }
}

impl CredentialStore for Failing {
    fn sealer(&self) -> &(dyn Sealer + Send + Sync) {
        self.store.sealer()
    }

    fn keep(&self, action: PersistSession) -> Stored<'_, SessionPersisted> {
        self.keeps(self.store.keep(action))
    }

    fn claim(&self, action: ClaimRefresh) -> Stored<'_, RefreshClaim> {
        self.store.claim(action)
    }

    fn commit(&self, action: CommitRefresh) -> Stored<'_, RefreshCommitted> {
        self.keeps(self.store.commit(action))
    }

    fn discard(&self, action: DiscardSession) -> Stored<'_, SessionDiscarded> {
        self.store.discard(action)
    }

    fn release(&self, action: ReleaseClaim) -> BoxFuture<'_, ()> {
        self.store.release(action)
    }

    fn sessions(&self) -> Stored<'_, Vec<KeptSession>> {
        self.store.sessions()
    }

    fn remove(&self, issuer: &Issuer, resource: &ResourceId) -> Stored<'_, bool> {
        self.store.remove(issuer, resource)
    }

    fn pairings(&self, resource: &ResourceId) -> Stored<'_, Vec<PairingRecord>> {
        self.store.pairings(resource)
    }

    fn registration(&self, issuer: &Issuer) -> Stored<'_, Option<RegistrationRecord>> {
        self.store.registration(issuer)
    }

    fn keep_registration(&self, record: RegistrationRecord) -> Stored<'_, ()> {
        self.store.keep_registration(record)
    }

    fn choose_registration(&self, choose: Choosing) -> Stored<'_, ()> {
        self.store.choose_registration(choose)
    }

    fn forget_registration(&self, record: RegistrationRecord) -> Stored<'_, ()> {
        self.store.forget_registration(record)
    }

    fn step_ups(&self, server: &ResourceId) -> Stored<'_, Option<Vec<u8>>> {
        self.store.step_ups(server)
    }

    fn join_step_ups(&self, server: &ResourceId, join: Joining) -> Stored<'_, ()> {
        self.store.join_step_ups(server, join)
    }
}

struct World {
    connection: Connection,
    /// Requests that reached the MCP server, with and without a token.
    requests: Arc<Mutex<Vec<bool>>>,
    kept: Arc<AtomicUsize>,
    strays: Arc<Mutex<Vec<u16>>>,
    events: Arc<Mutex<Vec<String>>>,
}

/// An MCP server that takes the first `takes` requests that carry a token and answers 401 to every other.
async fn world(person: Person, takes: usize, fails_from: usize) -> World {
    let (issuing, serving) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let issuer = Issuer::new(format!("http://{}", issuing.local_addr().unwrap())).unwrap();
    let origin = format!("http://{}", serving.local_addr().unwrap());
    let url = format!("{origin}/mcp");
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let scope = (Scope::new("notes:read").unwrap(), "Read your notes".to_owned());
    let resource = KnownResource::new(ResourceId::new(url.as_str()).unwrap(), [scope]);
    let configuration =
        Configuration::new(issuer.clone(), vec![resource], key.id()).registration(RegistrationPolicy::Open);
    let host = AuthorizationServerHost::new(
        AuthorizationServer::new(configuration).unwrap(),
        Arc::new(MemoryStore::new()),
        Arc::new(key),
        Arc::new(LocalUser::automatic("alice").unwrap()),
        Fetcher::new().unwrap(),
    );
    tokio::spawn(async move { axum::serve(issuing, host.router()).await });

    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&requests);
    let taken = Arc::new(AtomicUsize::new(0));
    let handler = any(move |request: axum::extract::Request| {
        let with_token = request.headers().contains_key("authorization");
        log.lock().unwrap().push(with_token);
        let welcome = with_token && taken.fetch_add(1, Ordering::SeqCst) < takes;
        async move {
            let status = if welcome { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
            (status, [(WWW_AUTHENTICATE, "Bearer scope=\"notes:read\"")])
        }
    });
    let document = format!(r#"{{"resource":"{url}","authorization_servers":["{issuer}"]}}"#);
    let document = axum::routing::get(move || {
        let document = document.clone();
        async move { ([("content-type", "application/json")], document) }
    });
    let router =
        Router::new().route("/mcp", handler).route("/.well-known/oauth-protected-resource/mcp", document);
    tokio::spawn(async move { axum::serve(serving, router).await });

    let listener = CallbackListener::bind().await.unwrap();
    let redirect_uri = listener.redirect_uri("/callback").unwrap();
    let client = Client::new(ClientConfiguration::new("A client", redirect_uri)).unwrap();
    let browser = Browser { person, strays: Arc::default() };
    let store = Failing { store: CredentialsInMemory::new(), kept: Arc::default(), fails_from };
    let (strays, kept) = (Arc::clone(&browser.strays), Arc::clone(&store.kept));
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let driver = Driver::builder_over(Arc::new(store), client, Fetcher::new().unwrap(), listener, browser)
        .pairing(WhateverTheResourceNames)
        .patience(Duration::from_millis(if person == Person::Leaves { 200 } else { 10_000 }))
        .observer(move |event: ClientEvent<'_>| seen.lock().unwrap().push(format!("{event:?}")))
        .build();
    let connection = Connection::new(driver, url).unwrap();
    World { connection, requests, kept, strays, events }
}

impl World {
    async fn call(&self) -> Result<u16, SendError> {
        let request = McpRequest::json_rpc("tools/list", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
        self.connection.send(&request).await.map(|reply| reply.status)
    }

    fn requests(&self) -> Vec<bool> {
        self.requests.lock().unwrap().clone()
    }

    fn saw(&self, name: &str) -> bool {
        self.events.lock().unwrap().iter().any(|event| event.starts_with(name))
    }
}

#[tokio::test]
async fn a_request_without_a_token_becomes_one_with_a_token() {
    let world = world(Person::Allows, usize::MAX, usize::MAX).await;
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(world.requests(), [false, true, true]);
    assert_eq!(world.connection.scopes().to_string(), "notes:read");
}

#[tokio::test]
async fn a_session_is_kept_before_it_is_used_and_again_at_each_rotation() {
    let world = world(Person::Allows, usize::MAX, usize::MAX).await;
    world.call().await.unwrap();
    assert_eq!(world.kept.load(Ordering::SeqCst), 1);
    world.connection.refresh().await.unwrap();
    assert_eq!(world.kept.load(Ordering::SeqCst), 2);
    let events = world.events.lock().unwrap();
    let position = |name: &str| events.iter().position(|event| event.starts_with(name)).unwrap();
    assert!(position("Keeping") < position("Established"));
}

#[tokio::test]
async fn a_session_that_cannot_be_kept_is_not_used() {
    let world = world(Person::Allows, usize::MAX, 0).await;
    assert!(matches!(world.call().await, Err(SendError::Login(LoginError::Store(_)))));
    assert_eq!(world.requests(), [false]);
    assert!(world.connection.session(|_| ()).is_none());
}

#[tokio::test]
async fn a_token_that_is_not_taken_any_more_is_refreshed_once_and_the_answer_then_stands() {
    let world = world(Person::Allows, 1, usize::MAX).await;
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(world.call().await.unwrap(), 401);
    assert_eq!(world.requests(), [false, true, true, true]);
    assert_eq!(world.kept.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_server_that_never_takes_a_token_costs_one_login_and_one_refresh() {
    let world = world(Person::Allows, 0, usize::MAX).await;
    assert_eq!(world.call().await.unwrap(), 401);
    assert_eq!(world.requests(), [false, true, true]);
}

#[tokio::test]
async fn a_person_who_denies_is_told_apart_and_asked_once() {
    let world = world(Person::Denies, usize::MAX, usize::MAX).await;
    match world.call().await {
        Err(SendError::Login(LoginError::Refused(response))) => {
            assert_eq!(response.code.as_str(), "access_denied");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.requests(), [false]);
    assert!(world.saw("Refused") && !world.saw("Established"));
}

#[tokio::test]
async fn a_visit_that_is_not_the_awaited_one_leaves_the_login_waiting() {
    let world = world(Person::IsMisled, usize::MAX, usize::MAX).await;
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(*world.strays.lock().unwrap(), [404]);
    assert!(world.saw("CallbackUnsolicited"));
}

#[tokio::test]
async fn a_person_who_never_comes_back_ends_the_login_and_can_be_asked_again() {
    let world = world(Person::Leaves, usize::MAX, usize::MAX).await;
    for _ in 0..3 {
        let unanswered = world.call().await.unwrap_err();
        let SendError::Login(LoginError::Core(error)) = unanswered else { panic!("{unanswered:?}") };
        assert!(matches!(error, Error::Outside(OutsideFailed::NoCallback { .. })), "{error:?}");
    }
    // D40: the server may have told the person that it does not know this client, so it is registered anew, once.
    let count = |what: &str| world.events.lock().unwrap().iter().filter(|it| it.contains(what)).count();
    assert_eq!(count("Fetched(Registration"), 2);
    // Discovery is not done again.
    assert_eq!(count("Fetched(AuthorizationServerMetadata"), 1);
}

#[tokio::test]
async fn nothing_an_observer_can_print_holds_a_secret() {
    let world = world(Person::Allows, usize::MAX, usize::MAX).await;
    world.call().await.unwrap();
    world.connection.refresh().await.unwrap();
    for event in world.events.lock().unwrap().iter() {
        assert!(!event.contains("eyJ") && !event.contains("code=") && !event.contains("state="), "{event}");
    }
}
