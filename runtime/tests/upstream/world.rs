//! An authorization server whose people sign in at a provider, and browsers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::http::header::{COOKIE, LOCATION, SET_COOKIE};
use mcp_authz::authorization_server::{
    AuthorizationServer, Configuration, KnownResource, RegistrationPolicy,
};
use mcp_authz::client::OpenUserAgent;
use mcp_authz::identifier::{ClientId, Issuer, ResourceId, Scope, ScopeSet};
use mcp_authz::jose::Algorithm;
use mcp_authz::pkce::CodeChallenge;
use mcp_authz::secret::{ClientSecret, CodeVerifier};
use mcp_authz::syntax::form;
use mcp_authz_tokio::BoxFuture;
use mcp_authz_tokio::authorization_server::upstream::{Upstream, UpstreamProvider};
use mcp_authz_tokio::authorization_server::{AuthorizationEvent, AuthorizationServerHost};
use mcp_authz_tokio::client::browser::BrowserFailed;
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::client::user_agent::UserAgent;
use mcp_authz_tokio::keys::SigningKey;
use mcp_authz_tokio::sealer::AeadSealer;
use mcp_authz_tokio::store::memory::MemoryStore;
use mcp_authz_tokio::store::{AdministeredStore, Store};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::provider::{CLIENT, OpenIdProvider, SECRET};

pub(crate) const REDIRECT: &str = "http://127.0.0.1:9/callback";
const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters";

/// The server, its provider, and what happened.
pub(crate) struct World {
    pub(crate) issuer: Issuer,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) provider: OpenIdProvider,
    pub(crate) resource: String,
    pub(crate) events: Arc<Mutex<Vec<String>>>,
}

pub(crate) fn at(provider: &OpenIdProvider) -> UpstreamProvider {
    let issuer = Issuer::new(provider.origin.as_str()).unwrap();
    UpstreamProvider::new("op", issuer, ClientId::new(CLIENT).unwrap())
        .secret(ClientSecret::new(SECRET).unwrap())
        .scopes(ScopeSet::parse("profile").unwrap())
}

pub(crate) async fn world() -> World {
    World::of("http://127.0.0.1:8/mcp", |upstream, provider| upstream.provider(at(provider)).unwrap()).await
}

struct Parts {
    server: AuthorizationServer,
    store: Arc<MemoryStore>,
    key: Arc<SigningKey>,
    fetcher: Fetcher,
}

fn parts(issuer: Issuer, resource: &str) -> Parts {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let scopes = [(Scope::new("notes:read").unwrap(), "Read your notes".to_owned())];
    let known = KnownResource::new(ResourceId::new(resource).unwrap(), scopes);
    let configuration =
        Configuration::new(issuer, vec![known], key.id()).registration(RegistrationPolicy::Open);
    let server = AuthorizationServer::new(configuration).unwrap();
    let (store, key) = (Arc::new(MemoryStore::new()), Arc::new(key));
    Parts { server, store, key, fetcher: Fetcher::new().unwrap() }
}

/// People of a server that nobody reaches.
pub(crate) fn nowhere() -> Upstream {
    let Parts { server, store, fetcher, .. } =
        parts(Issuer::new("http://127.0.0.1:7").unwrap(), "http://127.0.0.1:8/mcp");
    Upstream::new(server, store, Arc::new(AeadSealer::ephemeral().unwrap()), fetcher)
}

impl World {
    pub(crate) async fn of(
        resource: &str,
        change: impl FnOnce(Upstream, &OpenIdProvider) -> Upstream,
    ) -> Self {
        Self::over(None, resource, change).await
    }

    /// The people's store is that one, if it is not the server's.
    pub(crate) async fn over(
        of_people: Option<Arc<dyn Store>>,
        resource: &str,
        change: impl FnOnce(Upstream, &OpenIdProvider) -> Upstream,
    ) -> Self {
        let provider = OpenIdProvider::start().await;
        let (listener, origin) = crate::support::port().await;
        let issuer = Issuer::new(origin).unwrap();
        let Parts { server, store, key, fetcher } = parts(issuer.clone(), resource);
        let sealer = Arc::new(AeadSealer::ephemeral().unwrap());
        let of_people = of_people.unwrap_or_else(|| store.clone());
        let upstream = Upstream::new(server.clone(), of_people, sealer, fetcher.clone());
        let people = Arc::new(change(upstream, &provider));
        let administered: Arc<dyn AdministeredStore> = store.clone();
        let events = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&events);
        let host = AuthorizationServerHost::new(server, store.clone(), key, people, fetcher)
            .grants_page(administered)
            .observer(move |event: AuthorizationEvent<'_>| log.lock().unwrap().push(format!("{event:?}")));
        tokio::spawn(async move { axum::serve(listener, host.router()).await });
        Self { issuer, store, provider, resource: resource.to_owned(), events }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }

    /// Registers a client with a name that is no good.
    pub(crate) async fn register(&self) -> String {
        let body = json!({
            "redirect_uris": [REDIRECT], "client_name": "Nice <script>client", "token_endpoint_auth_method": "none",
        });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = http.post(self.url("/register")).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["client_id"].as_str().unwrap().to_owned()
    }

    /// An authorization request of that client.
    pub(crate) fn asks(&self, client: &str) -> String {
        let challenge = CodeChallenge::of(&CodeVerifier::new(VERIFIER).unwrap()).to_text();
        let query = form::encode([
            ("response_type", "code"),
            ("client_id", client),
            ("redirect_uri", REDIRECT),
            ("scope", "notes:read"),
            ("resource", &self.resource),
            ("state", "downstream-state"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        self.url(&format!("/authorize?{query}"))
    }

    /// A browser that has come back from the provider and has not been let in yet: the callback's URL.
    pub(crate) async fn to_the_callback(&self, browser: &Browser, url: &str) -> String {
        let page = browser.get(url).await;
        let sent = browser.press(&page, "op").await;
        assert_eq!(sent.status, StatusCode::SEE_OTHER, "{}", sent.body);
        browser.get(&sent.location.unwrap()).await.location.unwrap()
    }
}

/// A browser with its cookies. All servers of a test are one host to it.
#[derive(Debug, Clone)]
pub(crate) struct Browser {
    http: reqwest::Client,
    pub(crate) jar: Arc<Mutex<BTreeMap<String, String>>>,
}

pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) location: Option<String>,
    pub(crate) body: String,
    pub(crate) cookies: Vec<String>,
    url: reqwest::Url,
}

impl Browser {
    pub(crate) fn new() -> Self {
        let redirect = reqwest::redirect::Policy::none();
        let http = reqwest::Client::builder().redirect(redirect).no_proxy().build().unwrap();
        Self { http, jar: Arc::default() }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Page {
        let cookies: Vec<_> =
            self.jar.lock().unwrap().iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = request.header(COOKIE, cookies.join("; ")).send().await.unwrap();
        let set = answer.headers().get_all(SET_COOKIE).iter();
        let set: Vec<String> = set.map(|value| value.to_str().unwrap().to_owned()).collect();
        for cookie in &set {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            let mut jar = self.jar.lock().unwrap();
            if cookie.contains("Max-Age=0") {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
        let url = answer.url().clone();
        let location = answer.headers().get(LOCATION);
        let location = location.map(|place| url.join(place.to_str().unwrap()).unwrap().to_string());
        Page { status: answer.status(), location, cookies: set, url, body: answer.text().await.unwrap() }
    }

    pub(crate) async fn get(&self, url: &str) -> Page {
        self.send(self.http.get(url)).await
    }

    pub(crate) async fn post(&self, url: &str, pairs: &[(&str, &str)]) -> Page {
        let request = self.http.post(url).header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(form::encode(pairs.iter().copied()))).await
    }

    /// Presses the button of a provider on a page.
    pub(crate) async fn press(&self, page: &Page, provider: &str) -> Page {
        let (request, csrf) = (page.hidden("request"), page.hidden("csrf"));
        let url = page.url.join("/sign-in").unwrap();
        let pairs = [("request", request.as_str()), ("csrf", &csrf), ("provider", provider)];
        self.post(url.as_str(), &pairs).await
    }

    /// Follows redirects of the two servers up to a page, or to a place of a client's.
    pub(crate) async fn follow(&self, mut page: Page) -> Page {
        while let Some(place) = page.location.clone().filter(|place| !place.contains("/callback?")) {
            page = self.get(&place).await;
        }
        page
    }

    /// From an authorization request to the consent page.
    pub(crate) async fn sign_in(&self, url: &str) -> Page {
        let page = self.get(url).await;
        let sent = self.press(&page, "op").await;
        self.follow(sent).await
    }

    pub(crate) async fn approve(&self, page: &Page) -> Page {
        let (handle, csrf) = (page.hidden("handle"), page.hidden("csrf"));
        let url = page.url.join("/decision").unwrap();
        let pairs = [
            ("handle", handle.as_str()),
            ("csrf", &csrf),
            ("scope.notes:read", "on"),
            ("decision", "approve"),
        ];
        self.post(url.as_str(), &pairs).await
    }
}

impl Page {
    pub(crate) fn hidden(&self, name: &str) -> String {
        let start = format!("name=\"{name}\" value=\"");
        let (_, rest) = self.body.split_once(&start).unwrap_or_else(|| panic!("no {name}: {}", self.body));
        rest.split_once('"').unwrap().0.replace("&amp;", "&")
    }
}

/// The person before that browser signs in at the provider and allows everything.
impl UserAgent for Browser {
    fn open<'a>(&'a self, action: &'a OpenUserAgent) -> BoxFuture<'a, Result<(), BrowserFailed>> {
        let (browser, url) = (self.clone(), action.url().to_owned());
        tokio::spawn(async move {
            let page = browser.get(&url).await;
            let page =
                if page.body.contains("name=\"provider\"") { browser.sign_in(&url).await } else { page };
            let done = browser.approve(&page).await;
            browser.get(&done.location.unwrap()).await;
        });
        Box::pin(std::future::ready(Ok(())))
    }
}
