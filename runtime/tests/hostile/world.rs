//! One MCP server, two authorization servers and a place nobody should go to. All are honest but for what a case
//! changes, and everything that reaches them is kept: when a world ends, no secret has been anywhere but in its place.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use mcp_authz::client::{Client, Configuration, OpenUserAgent, PreRegistered, Session};
use mcp_authz::error::{Error, Remedy};
use mcp_authz::identifier::{ClientMetadataUrl, Issuer, ResourceId};
use mcp_authz::message::exchange::{FetchFailure, Reply};
use mcp_authz::pkce::CodeChallenge;
use mcp_authz::policy::Policy;
use mcp_authz::secret::CodeVerifier;
use mcp_authz_tokio::BoxFuture;
use mcp_authz_tokio::client::browser::BrowserFailed;
use mcp_authz_tokio::client::callback::CallbackListener;
use mcp_authz_tokio::client::connection::{Connection, McpRequest, SendError};
use mcp_authz_tokio::client::driver::{Driver, DriverBuilder, LoginError};
use mcp_authz_tokio::client::event::ClientEvent;
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::client::pairing::WhateverTheResourceNames;
use mcp_authz_tokio::client::user_agent::UserAgent;
use serde_json::{Value, json};

use crate::server::{Answer, Request, serve};

/// Where a request of the client or the browser arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    Mcp,
    ResourceMetadata,
    ServerMetadata,
    Registration,
    Authorization,
    CodeExchange,
    Refresh,
    Revocation,
    /// Anywhere no honest party is.
    Elsewhere,
}

pub(crate) const NOTES: &str = "notes";
pub(crate) const HONEST: &str = "honest";
pub(crate) const SECOND: &str = "second";
pub(crate) const ELSEWHERE: &str = "elsewhere";
/// Where a client that has one publishes its metadata document.
pub(crate) const DOCUMENT: &str = "https://client.example/metadata.json";

/// A request that reached a server.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) server: &'static str,
    pub(crate) at: At,
    pub(crate) request: Request,
}

type Change = Box<dyn Fn(&Request, &dyn Fn() -> Answer) -> Answer + Send + Sync>;

/// What an authorization server remembers.
#[derive(Debug, Default)]
struct Issued {
    /// Challenge and redirect URI by code.
    codes: BTreeMap<String, (String, String)>,
    /// The one refresh token that is good.
    refresh: Option<String>,
    count: u32,
}

/// What all servers share.
#[derive(Default)]
pub(crate) struct Shared {
    seen: Mutex<Vec<Seen>>,
    changes: Mutex<BTreeMap<(&'static str, At), Change>>,
    issued: Mutex<BTreeMap<&'static str, Issued>>,
    /// Codes, tokens and client secrets, and who made them.
    secrets: Mutex<Vec<(Kind, &'static str, String)>>,
    /// What the access tokens that are taken begin with.
    takes: Mutex<String>,
    named: Mutex<String>,
    opened: Mutex<Vec<String>>,
    pages: Mutex<Vec<(u16, String)>>,
    pub(crate) events: Mutex<Vec<String>>,
    sent: Arc<AtomicUsize>,
    /// The next page of a stray visit stops the clock.
    hurries: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    AccessToken,
    RefreshToken,
    ClientSecret,
}

impl Shared {
    fn secret(&self, kind: Kind, of: &'static str, text: &str) {
        self.secrets.lock().unwrap().push((kind, of, text.to_owned()));
    }

    fn answer(&self, server: &'static str, own: &str, request: Request) -> Answer {
        let at = place(server, &request);
        let honest = || match server {
            NOTES => self.notes(at, own, &request),
            ELSEWHERE => Answer::document(200, &json!({"issuer": own, "resource": own})),
            _ => self.authorization_server(server, at, own, &request),
        };
        self.seen.lock().unwrap().push(Seen { server, at, request: request.clone() });
        match self.changes.lock().unwrap().get(&(server, at)) {
            Some(change) => change(&request, &honest),
            None => honest(),
        }
    }

    fn notes(&self, at: At, own: &str, request: &Request) -> Answer {
        match at {
            At::ResourceMetadata => {
                let path = request.path().trim_start_matches(&well_known(""));
                Answer::document(
                    200,
                    &json!({"resource": format!("{own}{path}"), "authorization_servers": [*self.named.lock().unwrap()]}),
                )
            }
            At::Mcp => {
                let token = request.header("authorization").and_then(|field| field.strip_prefix("Bearer "));
                let takes = self.takes.lock().unwrap();
                if token.is_some_and(|token| token.starts_with(takes.as_str())) {
                    return Answer::document(200, &json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
                }
                let metadata = well_known(request.path());
                let challenge = format!("Bearer resource_metadata=\"{own}{metadata}\", scope=\"notes:read\"");
                Answer::status(401).with("www-authenticate", challenge)
            }
            _ => Answer::status(404),
        }
    }

    fn authorization_server(&self, name: &'static str, at: At, own: &str, request: &Request) -> Answer {
        let parameter = |name: &str| request.parameter(name).unwrap_or_default();
        let mut all = self.issued.lock().unwrap();
        let issued = all.entry(name).or_default();
        let refused = |code: &str| Answer::document(400, &json!({ "error": code }));
        match at {
            At::ServerMetadata => Answer::document(
                200,
                &json!({
                    "issuer": own, "response_types_supported": ["code"],
                    "code_challenge_methods_supported": ["S256"],
                    "authorization_endpoint": format!("{own}/authorize"),
                    "token_endpoint": format!("{own}/token"),
                    "registration_endpoint": format!("{own}/register"),
                    "revocation_endpoint": format!("{own}/revoke"),
                    "authorization_response_iss_parameter_supported": true,
                }),
            ),
            At::Registration => {
                let asked: Value = serde_json::from_str(&request.body).unwrap();
                let secret = format!("{name}-client-secret");
                self.secret(Kind::ClientSecret, name, &secret);
                Answer::document(
                    201,
                    &json!({
                        "client_id": format!("{name}-client"), "client_secret": secret,
                        "client_secret_expires_at": 0, "token_endpoint_auth_method": "client_secret_post",
                        "redirect_uris": asked["redirect_uris"],
                    }),
                )
            }
            At::Authorization => {
                issued.count += 1;
                let code = format!("{name}-code-{}", issued.count);
                self.secret(Kind::Code, name, &code);
                issued.codes.insert(code.clone(), (parameter("code_challenge"), parameter("redirect_uri")));
                let back = mcp_authz::syntax::form::encode([
                    ("code", code.as_str()),
                    ("state", parameter("state").as_str()),
                    ("iss", own),
                ]);
                Answer::status(302).with("location", format!("{}?{back}", parameter("redirect_uri")))
            }
            At::CodeExchange => match issued.codes.remove(&parameter("code")) {
                Some((challenge, redirect_uri))
                    if CodeVerifier::new(parameter("code_verifier"))
                        .is_ok_and(|verifier| CodeChallenge::of(&verifier).to_text() == challenge)
                        && redirect_uri == parameter("redirect_uri")
                        && [format!("{name}-client"), DOCUMENT.to_owned()]
                            .contains(&parameter("client_id")) =>
                {
                    self.tokens(name, issued)
                }
                _ => refused("invalid_grant"),
            },
            At::Refresh if issued.refresh.as_ref() == Some(&parameter("refresh_token")) => {
                self.tokens(name, issued)
            }
            At::Refresh => refused("invalid_grant"),
            At::Revocation => Answer::status(200),
            _ => Answer::status(404),
        }
    }

    fn tokens(&self, name: &'static str, issued: &mut Issued) -> Answer {
        issued.count += 1;
        let (access, refresh) =
            (format!("{name}-access-{}", issued.count), format!("{name}-refresh-{}", issued.count));
        self.secret(Kind::AccessToken, name, &access);
        self.secret(Kind::RefreshToken, name, &refresh);
        issued.refresh = Some(refresh.clone());
        let tokens = json!({
            "access_token": access, "token_type": "Bearer", "expires_in": 3600, "refresh_token": refresh,
        });
        Answer::document(200, &tokens)
    }
}

/// Where the metadata of the resource with that path is.
fn well_known(path: &str) -> String {
    format!("/.well-known/oauth-protected-resource{path}")
}

fn place(server: &str, request: &Request) -> At {
    let grant = || request.parameter("grant_type");
    match (server, request.method.as_str(), request.path()) {
        (NOTES, "POST", "/mcp" | "/other") => At::Mcp,
        (NOTES, "GET", path) if ["/mcp", "/other"].map(well_known).contains(&path.to_owned()) => {
            At::ResourceMetadata
        }
        (HONEST | SECOND, "GET", "/.well-known/oauth-authorization-server") => At::ServerMetadata,
        (HONEST | SECOND, "POST", "/register") => At::Registration,
        (HONEST | SECOND, "GET", "/authorize") => At::Authorization,
        (HONEST | SECOND, "POST", "/token") if grant().as_deref() == Some("refresh_token") => At::Refresh,
        (HONEST | SECOND, "POST", "/token") => At::CodeExchange,
        (HONEST | SECOND, "POST", "/revoke") => At::Revocation,
        _ => At::Elsewhere,
    }
}

/// When it ends, every request that reached a server held only what belongs there.
struct Places(Arc<Shared>);

impl Drop for Places {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let seen = self.0.seen.lock().unwrap();
            for one in seen.iter() {
                self.check(one, &seen);
            }
            let printed = self.0.events.lock().unwrap().join("\n");
            for (_, _, secret) in self.0.secrets.lock().unwrap().iter() {
                assert!(!printed.contains(secret.as_str()), "an observer could print {secret}");
            }
        }
    }
}

impl Places {
    fn check(&self, one: &Seen, all: &[Seen]) {
        let Seen { server, at, request } = one;
        let (text, grant) = (request.text(), request.parameter("grant_type"));
        let grant = grant.as_deref();
        // Without what stands in the one place where a secret may stand.
        let without = |name: &str| match request.parameter(name) {
            Some(value) => text.replacen(&value, "", 1),
            None => text.clone(),
        };
        for (kind, of, secret) in self.0.secrets.lock().unwrap().iter() {
            let field = format!("authorization: Bearer {secret}\n");
            let rest = match kind {
                Kind::Code if at == &At::CodeExchange && server == of => without("code"),
                Kind::RefreshToken if at == &At::Refresh && server == of => without("refresh_token"),
                Kind::RefreshToken | Kind::AccessToken if at == &At::Revocation && server == of => {
                    without("token")
                }
                Kind::ClientSecret
                    if server == of
                        && matches!(at, At::CodeExchange | At::Refresh | At::Revocation)
                        && request.method == "POST" =>
                {
                    without("client_secret")
                }
                // A token goes to the resource it is for; what it is for, its authorization server was told.
                Kind::AccessToken if at == &At::Mcp => format!("{text}\n").replacen(&field, "", 1),
                _ => text.clone(),
            };
            assert!(!rest.contains(secret.as_str()), "{secret} where it does not belong:\n{server}: {text}");
        }
        if let Some(verifier) = text.split("code_verifier=").nth(1) {
            let verifier = verifier.split('&').next().unwrap();
            assert_eq!((*at, grant), (At::CodeExchange, Some("authorization_code")), "{text}");
            let challenge = CodeChallenge::of(&CodeVerifier::new(verifier).unwrap()).to_text();
            let asked =
                |seen: &&Seen| seen.at == At::Authorization && seen.request.target.contains(&challenge);
            let asked: Vec<_> = all.iter().filter(asked).map(|seen| seen.server).collect();
            assert_eq!(asked, [*server], "a verifier of another login");
            let times = all.iter().filter(|seen| seen.request.text().contains(verifier)).count();
            assert_eq!(times, 1, "a verifier is sent once");
        }
        for opened in self.0.opened.lock().unwrap().iter() {
            let state = opened.split("&state=").nth(1).unwrap().split('&').next().unwrap();
            assert!(!text.contains(state) || *at == At::Authorization, "the state in {text}");
        }
    }
}

/// Goes where it is sent, as long as it is one of this world's servers, and comes back with what it got.
#[derive(Clone)]
struct Browser {
    shared: Arc<Shared>,
    own: Vec<String>,
    http: reqwest::Client,
    /// What else comes to the callback before it does.
    before: Arc<Mutex<Option<Visitors>>>,
}

/// Visits somebody else makes, given the callback's full URL.
pub(crate) type Visitors = Box<dyn FnOnce(String) -> BoxFuture<'static, ()> + Send>;

impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Browser")
    }
}

impl UserAgent for Browser {
    fn open<'a>(&'a self, action: &'a OpenUserAgent) -> BoxFuture<'a, Result<(), BrowserFailed>> {
        let url = action.url().to_owned();
        self.shared.opened.lock().unwrap().push(url.clone());
        if self.own.iter().any(|own| url.starts_with(own)) {
            let browser = self.clone();
            tokio::spawn(async move {
                let mut callback = url;
                while browser.own.iter().any(|own| callback.starts_with(&format!("{own}/"))) {
                    let answer = browser.http.get(callback).send().await.unwrap();
                    let Some(location) = answer.headers().get("location") else { return };
                    callback = location.to_str().unwrap().to_owned();
                }
                let before = browser.before.lock().unwrap().take();
                if let Some(before) = before {
                    before(callback.clone()).await;
                }
                if let Ok(page) = browser.http.get(callback).send().await {
                    let page = (page.status().as_u16(), page.text().await.unwrap());
                    if page.0 == 404 && browser.shared.hurries.swap(false, Ordering::SeqCst) {
                        tokio::time::pause();
                    }
                    browser.shared.pages.lock().unwrap().push(page);
                }
            });
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

/// How a client is set up where it is not as a program without settings would be.
pub(crate) struct Setup {
    pub(crate) policy: Policy,
    pub(crate) pre_registered: Vec<PreRegistered>,
    pub(crate) metadata_document: Option<ClientMetadataUrl>,
    pub(crate) fetcher: Fetcher,
    pub(crate) driver: Box<dyn FnOnce(DriverBuilder) -> DriverBuilder>,
}

/// Where the servers are.
#[derive(Debug, Clone)]
pub(crate) struct Origins {
    pub(crate) notes: String,
    pub(crate) honest: String,
    pub(crate) second: String,
    pub(crate) elsewhere: String,
    pub(crate) redirect_uri: String,
}

pub(crate) struct World {
    pub(crate) connection: Connection,
    pub(crate) driver: Driver,
    pub(crate) origins: Origins,
    pub(crate) shared: Arc<Shared>,
    before: Arc<Mutex<Option<Visitors>>>,
    _places: Places,
}

fn browser_http() -> reqwest::Client {
    static HTTP: OnceLock<reqwest::Client> = OnceLock::new();
    let made = || {
        reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .no_proxy()
            .build()
            .unwrap()
    };
    HTTP.get_or_init(made).clone()
}

/// One fetcher for all cases: it keeps no connection, and reading the certificate store takes its time.
pub(crate) fn fetcher() -> Fetcher {
    static FETCHER: OnceLock<Fetcher> = OnceLock::new();
    FETCHER.get_or_init(|| Fetcher::new().unwrap()).clone()
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    /// A client whose driver was told nothing about authorization servers.
    pub(crate) async fn untold() -> Self {
        Self::with(|_, setup| setup.driver = Box::new(|driver| driver)).await
    }

    pub(crate) async fn with(change: impl FnOnce(&Origins, &mut Setup)) -> Self {
        let shared = Arc::<Shared>::default();
        let mut own = Vec::new();
        for name in [NOTES, HONEST, SECOND, ELSEWHERE] {
            let answering = Arc::clone(&shared);
            let sent = Arc::clone(&shared.sent);
            own.push(serve(sent, move |own, request| answering.answer(name, own, request)).await);
        }
        let listener = CallbackListener::bind().await.unwrap();
        let redirect_uri = listener.redirect_uri("/callback").unwrap();
        let [notes, honest, second, elsewhere] = own.clone().try_into().unwrap();
        let origins =
            Origins { notes, honest, second, elsewhere, redirect_uri: redirect_uri.as_str().to_owned() };
        *shared.named.lock().unwrap() = origins.honest.clone();
        *shared.takes.lock().unwrap() = format!("{HONEST}-access-");
        let mut setup = Setup {
            policy: Policy::strict(),
            pre_registered: Vec::new(),
            metadata_document: None,
            fetcher: fetcher(),
            // The cases are about what comes after; those of `issuers` are about the word itself.
            driver: Box::new(|driver| driver.pairing(WhateverTheResourceNames)),
        };
        change(&origins, &mut setup);
        let configuration = Configuration::new("A client", redirect_uri).policy(setup.policy);
        let configuration =
            setup.pre_registered.into_iter().fold(configuration, Configuration::pre_registered);
        let configuration = match setup.metadata_document {
            Some(url) => configuration.metadata_document(url),
            None => configuration,
        };
        let before = Arc::default();
        let browser =
            Browser { shared: Arc::clone(&shared), own, http: browser_http(), before: Arc::clone(&before) };
        let events = Arc::clone(&shared);
        let driver = Driver::builder(Client::new(configuration).unwrap(), setup.fetcher, listener, browser)
            .patience(Duration::from_secs(10))
            .observer(move |event: ClientEvent<'_>| events.events.lock().unwrap().push(format!("{event:?}")));
        let driver = (setup.driver)(driver).build();
        let connection = Connection::new(driver.clone(), format!("{}/mcp", origins.notes)).unwrap();
        let places = Places(Arc::clone(&shared));
        Self { connection, driver, origins, shared, before, _places: places }
    }

    /// From now on this server answers like this there.
    pub(crate) fn change(
        &self,
        server: &'static str,
        at: At,
        change: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
    ) {
        let change: Change = Box::new(move |request, honest| change(request, honest()));
        self.shared.changes.lock().unwrap().insert((server, at), change);
    }

    /// From now on this server answers like this there, and does nothing of what it should do.
    pub(crate) fn instead(
        &self,
        server: &'static str,
        at: At,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) {
        let change: Change = Box::new(move |request, _| answer(request));
        self.shared.changes.lock().unwrap().insert((server, at), change);
    }

    /// Honest again.
    pub(crate) fn mend(&self, server: &'static str, at: At) {
        self.shared.changes.lock().unwrap().remove(&(server, at));
    }

    /// Lets somebody else visit the callback before the browser comes back.
    pub(crate) fn visited(&self, before: impl FnOnce(String) -> BoxFuture<'static, ()> + Send + 'static) {
        *self.before.lock().unwrap() = Some(Box::new(before));
    }

    /// What comes of a login whose browser is sent away from the callback: from then on the clock jumps to what is waited
    /// for.
    pub(crate) async fn hurried_error(&mut self) -> Error {
        self.shared.hurries.store(true, Ordering::SeqCst);
        let error = self.error().await;
        tokio::time::resume();
        error
    }

    /// The resource takes access tokens that begin like this.
    pub(crate) fn takes(&self, prefix: &str) {
        *self.shared.takes.lock().unwrap() = prefix.to_owned();
    }

    /// The resource names this issuer.
    pub(crate) fn names(&self, issuer: &str) {
        *self.shared.named.lock().unwrap() = issuer.to_owned();
    }

    pub(crate) async fn call(&mut self) -> Result<u16, SendError> {
        self.call_as("tools/list").await
    }

    pub(crate) async fn call_as(&mut self, operation: &str) -> Result<u16, SendError> {
        self.connection.send(&request(operation)).await.map(|reply| reply.status)
    }

    /// What came of it, where it must not be an answer.
    pub(crate) async fn error(&mut self) -> Error {
        match self.call().await {
            Err(error) => core(error),
            Ok(status) => panic!("answered with {status}: {:?}", self.places()),
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn seen_at(&self, server: &str, at: At) -> Vec<Request> {
        let seen = self.seen();
        seen.into_iter().filter(|one| one.server == server && one.at == at).map(|one| one.request).collect()
    }

    /// Where requests arrived, in order.
    pub(crate) fn places(&self) -> Vec<(&'static str, At)> {
        self.seen().iter().map(|one| (one.server, one.at)).collect()
    }

    /// How often this server was reached there.
    pub(crate) fn reached(&self, server: &str, at: At) -> usize {
        self.seen_at(server, at).len()
    }

    /// Whether the server was reached at all.
    pub(crate) fn was_reached(&self, server: &str) -> bool {
        self.seen().iter().any(|one| one.server == server)
    }

    pub(crate) fn opened(&self) -> Vec<String> {
        self.shared.opened.lock().unwrap().clone()
    }

    /// Status and text of the pages the browser was shown at the callback, once there are so many.
    pub(crate) async fn pages(&self, count: usize) -> Vec<(u16, String)> {
        for _ in 0..1000 {
            let pages = self.shared.pages.lock().unwrap().clone();
            if pages.len() >= count {
                return pages;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the browser saw fewer than {count} pages")
    }

    /// The bytes that endless answers have brought to the socket.
    pub(crate) fn sent(&self) -> usize {
        self.shared.sent.load(Ordering::SeqCst)
    }

    pub(crate) fn server(&self) -> ResourceId {
        ResourceId::from_server_url(&format!("{}/mcp", self.origins.notes)).unwrap()
    }

    /// A session, by the driver alone.
    pub(crate) async fn session(&self) -> Session {
        let challenge = Reply::new(401, "").with_header("www-authenticate", b"Bearer scope=\"notes:read\"");
        self.driver.authorize(&self.server(), &challenge).await.unwrap()
    }

    pub(crate) fn issuer(&self) -> Issuer {
        Issuer::new(self.origins.honest.as_str()).unwrap()
    }
}

pub(crate) fn request(operation: &str) -> McpRequest {
    McpRequest::json_rpc(operation, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#)
}

/// The core's word in it.
pub(crate) fn core(error: SendError) -> Error {
    match error {
        SendError::Login(LoginError::Core(error) | LoginError::Rejected(error))
        | SendError::Denied(error) => error,
        SendError::Fetch(failure) => panic!("no answer of the MCP server: {failure}"),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn failed(failure: FetchFailure) -> Error {
    mcp_authz::error::OutsideFailed::from(failure).into()
}

/// An honest world, which the case is measured by: it comes to an answer.
pub(crate) async fn control() {
    let mut world = World::new().await;
    assert_eq!(world.call().await.unwrap(), 200);
    let login = [
        (NOTES, At::Mcp),
        (NOTES, At::ResourceMetadata),
        (HONEST, At::ServerMetadata),
        (HONEST, At::Registration),
        (HONEST, At::Authorization),
        (HONEST, At::CodeExchange),
        (NOTES, At::Mcp),
    ];
    assert_eq!(world.places(), login);
}

/// Everything up to that place is as in the control, and there the client stops: nothing leaves after it.
pub(crate) fn stops_at(world: &World, at: At) {
    let last = world.places().last().copied();
    assert_eq!(last.map(|(_, at)| at), Some(at), "{:?}", world.places());
    assert!(!world.was_reached(ELSEWHERE) && !world.was_reached(SECOND), "{:?}", world.places());
}

pub(crate) fn relaxation(remedy: &Remedy) -> Option<&'static str> {
    match remedy {
        Remedy::Relax(relaxation) => Some(relaxation.name()),
        _ => None,
    }
}
