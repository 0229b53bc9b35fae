//! Credentials that outlive a process, against a real authorization server on loopback: shared by processes that refresh
//! at once or die on the way, and by the servers behind one authorization server.
//!
//! The other processes are this test binary again, running the same test in a role.
#![cfg(all(feature = "aws-lc-rs", unix))]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{COOKIE, LOCATION, SET_COOKIE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use mcp_authz::authorization_server::{
    AuthorizationServer, Configuration, KnownResource, RegistrationPolicy,
};
use mcp_authz::client::{Client, Configuration as ClientConfiguration, OpenUserAgent, Session};
use mcp_authz::error::{Error, OutsideFailed, Remedy};
use mcp_authz::identifier::{Issuer, ResourceId, Scope};
use mcp_authz::jose::Algorithm;
use mcp_authz::limits;
use mcp_authz::message::exchange::Reply;
use mcp_authz::syntax::form::{self, Form};
use mcp_authz::time::{Duration as CoreDuration, OffsetDateTime};
use mcp_authz_tokio::BoxFuture;
use mcp_authz_tokio::authorization_server::AuthorizationServerHost;
use mcp_authz_tokio::authorization_server::people::LocalUser;
use mcp_authz_tokio::client::browser::BrowserFailed;
use mcp_authz_tokio::client::callback::CallbackListener;
use mcp_authz_tokio::client::credentials::{CredentialStore, FileStore, KeySource, MemoryStore};
use mcp_authz_tokio::client::driver::{Driver, LoginError, Refreshed};
use mcp_authz_tokio::client::event::ClientEvent;
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::client::pairing::WhateverTheResourceNames;
use mcp_authz_tokio::client::user_agent::UserAgent;
use mcp_authz_tokio::clock::{Clock, SystemClock};
use mcp_authz_tokio::keys::SigningKey;
use mcp_authz_tokio::store::memory::MemoryStore as ServersStore;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// A person who allows everything.
#[derive(Debug, Clone, Default)]
struct Browser(Arc<AtomicUsize>);

impl Browser {
    async fn visit(url: String) {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        let asked = reqwest::Url::parse(&url).unwrap();
        let page = http.get(asked.clone()).send().await.unwrap();
        let cookie = page.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
        let page = page.text().await.unwrap();
        let hidden = |name: &str| {
            let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
            rest.split_once('"').unwrap().0.to_owned()
        };
        let (handle, csrf) = (hidden("handle"), hidden("csrf"));
        let body = form::encode([
            ("handle", handle.as_str()),
            ("csrf", csrf.as_str()),
            ("scope.read", "on"),
            ("decision", "approve"),
        ]);
        let answer = http
            .post(asked.join("/decision").unwrap())
            .header("content-type", "application/x-www-form-urlencoded")
            .header(COOKIE, cookie)
            .body(body)
            .send()
            .await
            .unwrap();
        // The program may have ended before the page is there.
        drop(http.get(answer.headers()[LOCATION].to_str().unwrap()).send().await);
    }
}

impl UserAgent for Browser {
    fn open<'a>(&'a self, action: &'a OpenUserAgent) -> BoxFuture<'a, Result<(), BrowserFailed>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(Self::visit(action.url().to_owned()));
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What the authorization server sees, and what becomes of it.
#[derive(Debug, Default)]
struct Seen {
    registrations: AtomicUsize,
    refreshes: AtomicUsize,
    revocations: AtomicUsize,
    /// Clients that the server does not know any more.
    forgotten: Mutex<BTreeSet<String>>,
    forgets_all: AtomicBool,
    /// A refresh that arrives gets no answer.
    silent: AtomicBool,
    /// A revocation is refused.
    keeps_tokens: AtomicBool,
    arrived: Notify,
}

impl Seen {
    async fn pass(self: Arc<Self>, request: Request, next: Next) -> Response {
        let path = request.uri().path().to_owned();
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 100_000).await.unwrap();
        match path.as_str() {
            "/register" => drop(self.registrations.fetch_add(1, Ordering::SeqCst)),
            "/revoke" => {
                self.revocations.fetch_add(1, Ordering::SeqCst);
                if self.keeps_tokens.load(Ordering::SeqCst) {
                    return StatusCode::SERVICE_UNAVAILABLE.into_response();
                }
            }
            "/token" => {
                let form = Form::parse(&body).unwrap();
                if form.get("grant_type") == Some("refresh_token") {
                    self.refreshes.fetch_add(1, Ordering::SeqCst);
                    // Read first: whoever waits for the arrival may change it at once.
                    let silent = self.silent.load(Ordering::SeqCst);
                    self.arrived.notify_one();
                    if silent {
                        std::future::pending::<()>().await;
                    }
                }
                let client = form.get("client_id").unwrap_or_default();
                let forgotten = self.forgotten.lock().unwrap().contains(client);
                if forgotten || self.forgets_all.load(Ordering::SeqCst) {
                    let body = r#"{"error":"invalid_client"}"#;
                    let kind = [("content-type", "application/json")];
                    return (StatusCode::UNAUTHORIZED, kind, body).into_response();
                }
            }
            _ => {}
        }
        next.run(Request::from_parts(head, Body::from(body))).await
    }

    fn refreshes(&self) -> usize {
        self.refreshes.load(Ordering::SeqCst)
    }

    fn registrations(&self) -> usize {
        self.registrations.load(Ordering::SeqCst)
    }
}

/// Two MCP servers behind one authorization server, which revokes the family of a refresh token that comes twice.
struct World {
    seen: Arc<Seen>,
    notes: String,
    mail: String,
    browser: Browser,
}

async fn world() -> World {
    let (issuing, serving) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let issuer = Issuer::new(format!("http://{}", issuing.local_addr().unwrap())).unwrap();
    let origin = format!("http://{}", serving.local_addr().unwrap());
    let (notes, mail) = (format!("{origin}/notes"), format!("{origin}/mail"));
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let known = |url: &str| {
        let scope = (Scope::new("read").unwrap(), "Read".to_owned());
        KnownResource::new(ResourceId::new(url).unwrap(), [scope])
    };
    let configuration = Configuration::new(issuer.clone(), vec![known(&notes), known(&mail)], key.id())
        .registration(RegistrationPolicy::Open);
    let host = AuthorizationServerHost::new(
        AuthorizationServer::new(configuration).unwrap(),
        Arc::new(ServersStore::new()),
        Arc::new(key),
        Arc::new(LocalUser::automatic("alice").unwrap()),
        Fetcher::new().unwrap(),
    );
    let seen = Arc::new(Seen::default());
    let passing = Arc::clone(&seen);
    let pass = move |request: Request, next: Next| Arc::clone(&passing).pass(request, next);
    let router = host.router().layer(middleware::from_fn(pass));
    tokio::spawn(async move { axum::serve(issuing, router).await });

    let mut router = Router::new();
    for (url, name) in [(&notes, "notes"), (&mail, "mail")] {
        let document = format!(
            r#"{{"resource":"{url}","authorization_servers":["{issuer}"],"scopes_supported":["read"]}}"#
        );
        let document = get(move || async move { ([("content-type", "application/json")], document) });
        router = router.route(&format!("/.well-known/oauth-protected-resource/{name}"), document);
    }
    tokio::spawn(async move { axum::serve(serving, router).await });
    World { seen, notes, mail, browser: Browser::default() }
}

/// What a program starts with: a port of its own, and a store that others have too.
async fn driver(store: Arc<dyn CredentialStore>, browser: Browser) -> Driver {
    shifted_driver(store, browser, Arc::new(SystemClock), |_| {}).await
}

async fn shifted_driver(
    store: Arc<dyn CredentialStore>,
    browser: Browser,
    clock: Arc<dyn Clock>,
    observer: impl Fn(ClientEvent<'_>) + Send + Sync + 'static,
) -> Driver {
    let listener = CallbackListener::bind().await.unwrap();
    let redirect_uri = listener.redirect_uri("/callback").unwrap();
    let client = Client::new(ClientConfiguration::new("A program", redirect_uri)).unwrap();
    Driver::builder_over(store, client, Fetcher::new().unwrap(), listener, browser)
        .clock(clock)
        .pairing(WhateverTheResourceNames)
        .observer(observer)
        .build()
}

fn server(url: &str) -> ResourceId {
    ResourceId::from_server_url(url).unwrap()
}

async fn login(driver: &Driver, url: &str) -> Session {
    driver.authorize(&server(url), &Reply::new(401, "")).await.unwrap()
}

fn token(session: &Session) -> String {
    session.authorization_for(session.resource().as_str()).unwrap().expose().to_owned()
}

impl World {
    async fn driver(&self, store: &Arc<dyn CredentialStore>) -> Driver {
        driver(Arc::clone(store), self.browser.clone()).await
    }

    fn logins(&self) -> usize {
        self.browser.0.load(Ordering::SeqCst)
    }
}

// ---- Other processes

/// A clock that is ahead, or behind.
#[derive(Debug)]
struct Shifted(i64);

impl Clock for Shifted {
    fn now(&self) -> OffsetDateTime {
        SystemClock.now() + CoreDuration::seconds(self.0)
    }
}

/// In a process that a test started: what it is to do.
struct Role {
    directory: PathBuf,
    url: String,
    clock_ahead: i64,
    dies_before_commit: bool,
}

impl Role {
    fn of_this_process() -> Option<Self> {
        let of = |name: &str| std::env::var(name).ok();
        Some(Self {
            directory: of("CREDENTIALS_DIRECTORY")?.into(),
            url: of("CREDENTIALS_URL")?,
            clock_ahead: of("CREDENTIALS_CLOCK_AHEAD")?.parse().unwrap(),
            dies_before_commit: of("CREDENTIALS_DIES")?.parse().unwrap(),
        })
    }

    /// Takes the session up, waits for the word, refreshes once, and says what came of it.
    async fn play(self) {
        let clock: Arc<dyn Clock> = Arc::new(Shifted(self.clock_ahead));
        let (store, _) = FileStore::open(&self.directory, KeySource::File).await.unwrap();
        let store = Arc::new(store.with_clock(Arc::clone(&clock)));
        let dies = self.dies_before_commit;
        let observer = move |event: ClientEvent<'_>| {
            if dies && matches!(event, ClientEvent::Committing(_)) {
                std::process::exit(9);
            }
        };
        let driver = shifted_driver(store, Browser::default(), clock, observer).await;
        let session = driver.resume(&server(&self.url)).await.unwrap().unwrap();
        say("ready");
        std::io::stdin().read_line(&mut String::new()).unwrap();
        say(&match driver.refresh(session).await {
            Refreshed::Renewed(session) => token(&session),
            Refreshed::Kept(failed) => format!("kept: {}", failed.error),
            Refreshed::Ended(failed) => format!("ended: {}", failed.error),
            Refreshed::Lost(error) => format!("lost: {error}"),
        });
    }
}

fn say(what: &str) {
    println!("\nprocess: {what}");
    std::io::stdout().flush().unwrap();
}

struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts a process of that test in a role, and waits until it has taken the session up.
    fn start(test: &str, directory: &Path, url: &str, clock_ahead: i64, dies: bool) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env("CREDENTIALS_DIRECTORY", directory)
            .env("CREDENTIALS_URL", url)
            .env("CREDENTIALS_CLOCK_AHEAD", clock_ahead.to_string())
            .env("CREDENTIALS_DIES", dies.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut process = Self { child, input, output };
        assert_eq!(process.says(), "ready");
        process
    }

    fn go(&mut self) {
        self.input.write_all(b"go\n").unwrap();
    }

    /// The next thing it says; nothing when it has ended.
    fn says(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            if self.output.read_line(&mut line).unwrap() == 0 {
                return String::new();
            }
            if let Some(said) = line.trim_end().strip_prefix("process: ") {
                return said.to_owned();
            }
        }
    }

    async fn said(mut self) -> String {
        tokio::task::spawn_blocking(move || self.says()).await.unwrap()
    }
}

/// As far ahead as a claim is long: every claim made before has ended there, and one made there is a claim here, not one
/// of before the clock was set back.
const AFTER_THE_CLAIM: i64 = limits::REFRESH_CLAIM_SECONDS;

/// A store in a directory with a session for the notes in it.
async fn signed_in(world: &World, folder: &Path) -> (PathBuf, Arc<dyn CredentialStore>, Session) {
    let directory = folder.join("credentials");
    let (store, _) = FileStore::open(&directory, KeySource::File).await.unwrap();
    let store: Arc<dyn CredentialStore> = Arc::new(store);
    let session = login(&world.driver(&store).await, &world.notes).await;
    (directory, store, session)
}

// D39
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_processes_that_refresh_at_once_send_one_request_and_all_stay_signed_in() {
    if let Some(role) = Role::of_this_process() {
        return role.play().await;
    }
    let test = "eight_processes_that_refresh_at_once_send_one_request_and_all_stay_signed_in";
    let world = world().await;
    let folder = tempfile::tempdir().unwrap();
    let (directory, store, first) = signed_in(&world, folder.path()).await;
    let mut processes: Vec<Process> =
        (0..8).map(|_| Process::start(test, &directory, &world.notes, 0, false)).collect();
    processes.iter_mut().for_each(Process::go);
    let said: Vec<_> = processes.into_iter().map(|process| tokio::spawn(process.said())).collect();
    let mut tokens = BTreeSet::new();
    for said in said {
        tokens.insert(said.await.unwrap());
    }
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    let new = tokens.pop_first().unwrap();
    assert!(new.starts_with("Bearer ") && new != token(&first), "{new}");
    assert_eq!(world.seen.refreshes(), 1);
    // The family lives: had one token come twice, the server had revoked it.
    let driver = world.driver(&store).await;
    let Refreshed::Renewed(session) = driver.refresh(first).await else { panic!("signed out") };
    assert_eq!((token(&session), world.seen.refreshes()), (new, 1), "what the others brought is taken");
    let Refreshed::Renewed(_) = driver.refresh(session).await else { panic!("signed out") };
    assert_eq!((world.seen.refreshes(), world.logins()), (2, 1));
}

// D39
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_process_that_is_killed_with_the_claim_holds_others_up_until_the_claim_ends() {
    if let Some(role) = Role::of_this_process() {
        return role.play().await;
    }
    let test = "a_process_that_is_killed_with_the_claim_holds_others_up_until_the_claim_ends";
    let world = world().await;
    let folder = tempfile::tempdir().unwrap();
    let (directory, _, first) = signed_in(&world, folder.path()).await;
    world.seen.silent.store(true, Ordering::SeqCst);
    let mut killed = Process::start(test, &directory, &world.notes, 0, false);
    killed.go();
    tokio::time::timeout(Duration::from_secs(20), world.seen.arrived.notified()).await.unwrap();
    killed.child.kill().unwrap();
    assert_eq!(killed.says(), "");
    world.seen.silent.store(false, Ordering::SeqCst);
    let mut waits = Process::start(test, &directory, &world.notes, 0, false);
    waits.go();
    let waiting = tokio::spawn(waits.said());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished() && world.seen.refreshes() == 1, "nobody goes on while the claim holds");
    let mut next = Process::start(test, &directory, &world.notes, AFTER_THE_CLAIM, false);
    next.go();
    let new = next.said().await;
    assert!(new.starts_with("Bearer ") && new != token(&first), "{new}");
    assert_eq!((waiting.await.unwrap(), world.seen.refreshes()), (new, 2));
}

// D39
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_process_that_dies_before_the_commit_costs_one_more_request_and_a_login() {
    if let Some(role) = Role::of_this_process() {
        return role.play().await;
    }
    let test = "a_process_that_dies_before_the_commit_costs_one_more_request_and_a_login";
    let world = world().await;
    let folder = tempfile::tempdir().unwrap();
    let (directory, store, first) = signed_in(&world, folder.path()).await;
    let mut dies = Process::start(test, &directory, &world.notes, 0, true);
    dies.go();
    assert_eq!(dies.said().await, "");
    assert_eq!(world.seen.refreshes(), 1);
    let mut next: Vec<Process> =
        (0..2).map(|_| Process::start(test, &directory, &world.notes, AFTER_THE_CLAIM, false)).collect();
    next.iter_mut().for_each(Process::go);
    let mut said = Vec::new();
    for process in next {
        said.push(process.said().await);
    }
    said.sort();
    assert_eq!(
        said,
        [
            "ended: the authorization server refused the token request (invalid_grant)",
            "ended: the session was ended by another program of this person"
        ]
    );
    assert_eq!(world.seen.refreshes(), 2, "the token in doubt is tried once");
    let driver = world.driver(&store).await;
    assert!(driver.resume(&server(&world.notes)).await.unwrap().is_none());
    let again = login(&driver, &world.notes).await;
    assert_ne!(token(&again), token(&first));
    assert_eq!(world.seen.registrations(), 1, "the registration outlives the session");
}

/// Without a session bus, the keychain of this system says so at once, and a key that lies there is not replaced.
#[cfg(all(feature = "keyring", target_os = "linux"))]
#[tokio::test]
async fn a_system_without_a_keychain_says_so_at_once() {
    use mcp_authz_tokio::client::credentials::keychain::{Keychain, KeychainUnusable};
    use zeroize::Zeroizing;

    #[derive(Debug)]
    struct Fixed;

    impl Keychain for Fixed {
        fn read(&self) -> Result<Option<Zeroizing<String>>, KeychainUnusable> {
            Ok(Some(Zeroizing::new("A".repeat(43))))
        }

        fn write(&self, _: &str) -> Result<(), KeychainUnusable> {
            Err(KeychainUnusable("read only".into()))
        }
    }

    if let Some(directory) = std::env::var_os("CREDENTIALS_NO_BUS").map(PathBuf::from) {
        let source = || KeySource::system("mcp-authz test without a keychain");
        let (_, place) = FileStore::open(directory.join("new"), source()).await.unwrap();
        say(&place.to_string());
        say(&FileStore::open(directory.join("used"), source()).await.unwrap_err().to_string());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    FileStore::open(folder.path().join("used"), KeySource::Keychain(Arc::new(Fixed))).await.unwrap();
    let begun = std::time::Instant::now();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_system_without_a_keychain_says_so_at_once", "--nocapture"])
        .env("CREDENTIALS_NO_BUS", folder.path())
        .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
        .output()
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    let output = String::from_utf8(output.stdout).unwrap();
    let said: Vec<_> = output.lines().filter_map(|line| line.strip_prefix("process: ")).collect();
    assert_eq!(said[0], folder.path().join("new.key").display().to_string());
    assert!(said[1].contains("the keychain: it cannot be reached"), "{}", said[1]);
    assert!(!folder.path().join("used.key").exists());
}

// ---- One process, or two drivers that stand for two

fn in_memory() -> Arc<dyn CredentialStore> {
    Arc::new(MemoryStore::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_drivers_over_one_store_in_memory_refresh_once() {
    let world = world().await;
    let store = in_memory();
    let first = login(&world.driver(&store).await, &world.notes).await;
    let mut resumed = Vec::new();
    for _ in 0..20 {
        let driver = world.driver(&store).await;
        let session = driver.resume(&server(&world.notes)).await.unwrap().unwrap();
        resumed.push((driver, session));
    }
    let refreshing = resumed.into_iter().map(|(driver, session)| {
        tokio::spawn(async move {
            match driver.refresh(session).await {
                Refreshed::Renewed(session) => token(&session),
                other => panic!("{other:?}"),
            }
        })
    });
    let refreshing: Vec<_> = refreshing.collect();
    let mut tokens = BTreeSet::new();
    for refreshed in refreshing {
        tokens.insert(refreshed.await.unwrap());
    }
    assert_eq!((tokens.len(), world.seen.refreshes()), (1, 1));
    assert!(!tokens.contains(&token(&first)));
}

// MCP-DISC-003
#[tokio::test]
async fn servers_behind_one_authorization_server_share_the_registration_and_no_token() {
    let world = world().await;
    let store = in_memory();
    let notes = login(&world.driver(&store).await, &world.notes).await;
    let mail = login(&world.driver(&store).await, &world.mail).await;
    assert_eq!((world.seen.registrations(), world.logins()), (1, 2));
    assert_ne!(token(&notes), token(&mail));
    assert!(notes.authorization_for(&world.mail).is_err());
    let driver = world.driver(&store).await;
    for (url, session) in [(&world.notes, notes), (&world.mail, mail)] {
        let found = driver.resume(&server(url)).await.unwrap().unwrap();
        assert_eq!((found.resource().as_str(), token(&found)), (url.as_str(), token(&session)));
    }
    let elsewhere = server(&world.notes.replace("/notes", "/other"));
    assert!(driver.resume(&elsewhere).await.unwrap().is_none());
}

// D40
#[tokio::test]
async fn a_registration_that_the_server_forgot_is_replaced_once() {
    let world = world().await;
    let store = in_memory();
    let driver = world.driver(&store).await;
    let issuer = login(&driver, &world.notes).await.issuer().clone();
    let first = store.registration(&issuer).await.unwrap().unwrap();
    let client_id = |ready: mcp_authz::client::Ready| ready.client_id().to_string();
    let prepared = async || driver.prepare(&server(&world.mail), &Reply::new(401, "")).await.unwrap();
    let dead = client_id(prepared().await);
    world.seen.forgotten.lock().unwrap().insert(dead.clone());

    // At the code exchange: the person is asked once more, and the new registration is kept.
    let mail = login(&driver, &world.mail).await;
    assert_eq!((world.seen.registrations(), world.logins()), (2, 3));
    let second = store.registration(&issuer).await.unwrap().unwrap();
    assert_ne!(first, second);
    assert_ne!(client_id(prepared().await), dead);

    // At a refresh of the other server's session: what the first one registered is taken.
    let notes = driver.resume(&server(&world.notes)).await.unwrap().unwrap();
    let Refreshed::Ended(ended) = driver.refresh(notes).await else { panic!("the client is not known") };
    assert_eq!(ended.error.remedy(), Remedy::Reregister);
    assert_eq!(ended.state.client_id(), mail.into_ready().client_id());
    let notes = driver.login(ended.state).await.unwrap();
    assert_eq!(notes.resource().as_str(), world.notes);
    assert_eq!((world.seen.registrations(), world.logins()), (2, 4));
    assert_eq!(store.registration(&issuer).await.unwrap(), Some(second));
}

// D40
#[tokio::test]
async fn a_server_that_forgets_every_registration_is_asked_twice_and_not_for_ever() {
    let world = world().await;
    let driver = world.driver(&in_memory()).await;
    world.seen.forgets_all.store(true, Ordering::SeqCst);
    let ready = driver.prepare(&server(&world.notes), &Reply::new(401, "")).await.unwrap();
    let failed = driver.login(ready).await.unwrap_err();
    assert!(matches!(failed.error, LoginError::Core(error) if error.remedy() == Remedy::Reregister));
    assert!(failed.state.is_some());
    assert_eq!((world.seen.registrations(), world.logins()), (2, 2));
}

#[tokio::test]
async fn who_logs_out_is_logged_out_everywhere() {
    let world = world().await;
    let store = in_memory();
    let (here, there) = (world.driver(&store).await, world.driver(&store).await);
    let session = login(&here, &world.notes).await;
    let mail = login(&here, &world.mail).await;
    let other = there.resume(&server(&world.notes)).await.unwrap().unwrap();
    // The other program has refreshed meanwhile: its token is the one to be revoked.
    let Refreshed::Renewed(other) = there.refresh(other).await else { panic!("signed in") };
    let out = here.logout(session).await.unwrap();
    assert!(out.not_revoked.is_none());
    assert_eq!(out.ready.scopes().to_string(), "read");
    assert!(here.resume(&server(&world.notes)).await.unwrap().is_none());
    let Refreshed::Ended(ended) = there.refresh(other).await else { panic!("signed out") };
    assert_eq!(ended.error, Error::Outside(OutsideFailed::SessionRemoved));
    assert_eq!((world.seen.revocations.load(Ordering::SeqCst), world.seen.refreshes()), (1, 1));
    let Refreshed::Renewed(_) = here.refresh(mail).await else { panic!("the other server's session stays") };
}

#[tokio::test]
async fn a_session_is_removed_also_when_the_server_does_not_revoke_it() {
    let world = world().await;
    let store = in_memory();
    let driver = world.driver(&store).await;
    let session = login(&driver, &world.notes).await;
    world.seen.keeps_tokens.store(true, Ordering::SeqCst);
    let out = driver.logout(session).await.unwrap();
    assert!(matches!(out.not_revoked, Some(Error::Outside(OutsideFailed::Unavailable { status: 503, .. }))));
    assert!(store.sessions().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_session_of_another_configuration_is_not_resumed_in_silence() {
    let world = world().await;
    let store = in_memory();
    drop(login(&world.driver(&store).await, &world.notes).await);
    let listener = CallbackListener::bind().await.unwrap();
    let redirect_uri = listener.redirect_uri("/callback").unwrap();
    let client = Client::new(ClientConfiguration::new("Another program", redirect_uri)).unwrap();
    let fetcher = Fetcher::new().unwrap();
    let other = Driver::builder_over(store, client, fetcher, listener, world.browser.clone())
        .pairing(WhateverTheResourceNames)
        .build();
    let refused = other.resume(&server(&world.notes)).await.unwrap_err();
    assert!(matches!(refused, LoginError::Core(_)), "{refused}");
    // It registers under its own name, and signs in beside.
    drop(login(&other, &world.notes).await);
    assert_eq!((world.seen.registrations(), world.logins()), (2, 2));
}
