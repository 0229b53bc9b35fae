//! Clients that are URLs, over sockets: how often their documents are fetched, what a failed fetch does to whom, and what
//! becomes of a grant when a document changes.
#![cfg(feature = "aws-lc-rs")]

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use mcp_authz::authorization_server::{AuthorizationServer, Configuration, KnownResource, PushedRequests};
use mcp_authz::identifier::{Issuer, ResourceId, Scope};
use mcp_authz::jose::Algorithm;
use mcp_authz::pkce::CodeChallenge;
use mcp_authz::secret::CodeVerifier;
use mcp_authz::syntax::form;
use mcp_authz::time::{self, OffsetDateTime};
use mcp_authz_tokio::authorization_server::people::LocalUser;
use mcp_authz_tokio::authorization_server::{AuthorizationServerHost, DocumentCaching};
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::clock::Clock;
use mcp_authz_tokio::keys::SigningKey;
use mcp_authz_tokio::store::memory::MemoryStore;
use mcp_authz_tokio::store::{AdministeredStore as _, Store as _};
use tower::ServiceExt as _;

const ISSUER: &str = "http://127.0.0.1:7";
const RESOURCE: &str = "http://127.0.0.1:8/mcp";
const REDIRECT: &str = "http://127.0.0.1:9/callback";
const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters";
const KEYS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

#[derive(Debug, Default)]
struct Ticks(AtomicI64);

impl Ticks {
    fn pass(&self, time: time::Duration) {
        self.0.fetch_add(time.whole_seconds(), Ordering::SeqCst);
    }
}

impl Clock for Ticks {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(1_800_000_000 + self.0.load(Ordering::SeqCst))
    }
}

/// What the client's host answers.
#[derive(Debug, Clone)]
struct Page {
    status: StatusCode,
    redirect_uri: &'static str,
    cache: &'static str,
    method: &'static str,
    name: &'static str,
    delay: Duration,
}

const GOOD: Page = Page {
    status: StatusCode::OK,
    redirect_uri: REDIRECT,
    cache: "max-age=600",
    method: "none",
    name: "Notes app",
    delay: Duration::ZERO,
};

/// The client's host, which counts who comes.
struct Site {
    url: String,
    page: Mutex<Page>,
    fetches: AtomicUsize,
}

impl Site {
    async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/client.json", listener.local_addr().unwrap());
        let site = Arc::new(Self { url, page: Mutex::new(GOOD), fetches: AtomicUsize::new(0) });
        let router = Router::new().route("/client.json", get(Self::serve)).with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        site
    }

    async fn serve(State(site): State<Arc<Self>>) -> Response {
        site.fetches.fetch_add(1, Ordering::SeqCst);
        let page = site.page.lock().unwrap().clone();
        tokio::time::sleep(page.delay).await;
        let keys = if page.method == "none" { String::new() } else { format!(r#","jwks":{KEYS}"#) };
        let body = format!(
            r#"{{"client_id":"{}","client_name":"{}","redirect_uris":["{}"],"token_endpoint_auth_method":"{}",
            "grant_types":["authorization_code","refresh_token"]{keys}}}"#,
            site.url, page.name, page.redirect_uri, page.method
        );
        let headers = [("content-type", "application/json"), ("cache-control", page.cache)];
        (page.status, headers, body).into_response()
    }

    fn now_answers(&self, page: Page) {
        *self.page.lock().unwrap() = page;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

struct World {
    router: Router,
    host: AuthorizationServerHost,
    store: Arc<MemoryStore>,
    clock: Arc<Ticks>,
    site: Arc<Site>,
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(Ticks::default());
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        Self::of(store, clock, Site::start().await, AuthorizationServerHost::dangerously_approve_everything)
    }

    /// A further process over the store.
    fn beside(&self) -> Self {
        let (store, clock, site) = (self.store.clone(), self.clock.clone(), self.site.clone());
        Self::of(store, clock, site, AuthorizationServerHost::dangerously_approve_everything)
    }

    fn of(
        store: Arc<MemoryStore>,
        clock: Arc<Ticks>,
        site: Arc<Site>,
        change: impl FnOnce(AuthorizationServerHost) -> AuthorizationServerHost,
    ) -> Self {
        let scopes = [(Scope::new("read").unwrap(), "Read".to_owned())];
        let resource = KnownResource::new(ResourceId::new(RESOURCE).unwrap(), scopes);
        let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let configuration = Configuration::new(Issuer::new(ISSUER).unwrap(), vec![resource], key.id())
            .pushed_requests(PushedRequests::Offered);
        let server = AuthorizationServer::new(configuration).unwrap();
        let people = Arc::new(LocalUser::automatic("alice").unwrap());
        let caching = DocumentCaching::within(Duration::from_secs(1), Duration::from_secs(3600)).unwrap();
        let host = AuthorizationServerHost::new(
            server,
            store.clone(),
            Arc::new(key),
            people,
            Fetcher::new().unwrap(),
        )
        .clock(clock.clone())
        .document_caching(caching)
        .grants_page(store.clone());
        let host = change(host);
        Self { router: host.clone().router(), host, store, clock, site }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Option<String>, String) {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let location = answer.headers().get("location").map(|to| to.to_str().unwrap().to_owned());
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, location, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The parameters of a request, some changed; an empty one is left out.
    fn parameters(&self, change: &[(&str, &str)]) -> Vec<(String, String)> {
        let challenge = CodeChallenge::of(&CodeVerifier::new(VERIFIER).unwrap()).to_text();
        let pairs = [
            ("response_type", "code"),
            ("client_id", self.site.url.as_str()),
            ("redirect_uri", REDIRECT),
            ("scope", "read"),
            ("resource", RESOURCE),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let kept = pairs.into_iter().filter(|(name, _)| change.iter().all(|(changed, _)| changed != name));
        let all = kept.chain(change.iter().copied()).filter(|(_, value)| !value.is_empty());
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    async fn authorize(&self) -> (StatusCode, Option<String>) {
        self.authorize_with(&[]).await
    }

    async fn authorize_with(&self, change: &[(&str, &str)]) -> (StatusCode, Option<String>) {
        let pairs = self.parameters(change);
        let query = form::encode(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let request = Request::get(format!("/authorize?{query}")).body(Body::empty()).unwrap();
        let (status, location, _) = self.send(request).await;
        let code = location.map(|location| {
            let query = location.split_once('?').unwrap().1.to_owned();
            form::Form::parse(query.as_bytes()).unwrap().get("code").unwrap_or_default().to_owned()
        });
        (status, code)
    }

    async fn push(&self, change: &[(&str, &str)]) -> (StatusCode, String) {
        let pairs = self.parameters(change);
        let body = form::encode(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let request = Request::post("/par").header("content-type", "application/x-www-form-urlencoded");
        let (status, _, body) = self.send(request.body(body.into()).unwrap()).await;
        (status, body)
    }

    /// How many clients the store knows, without anybody asking for one.
    async fn clients(&self) -> usize {
        self.store.list_clients(None).await.unwrap().len()
    }

    async fn code(&self) -> String {
        let (status, code) = self.authorize().await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        code.unwrap()
    }

    async fn token(&self, client: &str, pairs: &[(&str, &str)]) -> (StatusCode, String) {
        let pairs = [&[("client_id", client)], pairs].concat();
        let request = Request::post("/token").header("content-type", "application/x-www-form-urlencoded");
        let (status, _, body) = self.send(request.body(form::encode(pairs).into()).unwrap()).await;
        (status, body)
    }

    async fn redeem(&self, code: &str) -> (StatusCode, String) {
        let pairs = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", REDIRECT),
        ];
        self.token(&self.site.url, &pairs).await
    }

    /// Uses the refresh token; on success there is the next one.
    async fn refresh(&self, token: &mut String) -> StatusCode {
        let pairs = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
        let (status, body) = self.token(&self.site.url, &pairs).await;
        if status == StatusCode::OK {
            *token = member(&body, "refresh_token");
        }
        status
    }

    async fn granted(&self) -> String {
        let (status, body) = self.redeem(&self.code().await).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        member(&body, "refresh_token")
    }
}

fn member(body: &str, name: &'static str) -> String {
    let object = mcp_authz::syntax::json::JsonObject::parse(body.as_bytes(), 65_536).unwrap();
    object.required_string(name).unwrap().to_owned()
}

// MCP-REG-022
#[tokio::test]
async fn one_fetch_serves_all_who_wait_for_it_and_all_who_come_while_it_is_fresh() {
    let world = World::new().await;
    world.site.now_answers(Page { delay: Duration::from_millis(200), ..GOOD });
    let world = Arc::new(world);
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.authorize().await.0 })
        })
        .collect();
    for asked in asking {
        assert_eq!(asked.await.unwrap(), StatusCode::SEE_OTHER);
    }
    assert_eq!(world.site.fetches(), 1);
    world.clock.pass(time::Duration::seconds(599));
    let mut token = world.granted().await;
    assert_eq!((world.refresh(&mut token).await, world.site.fetches()), (StatusCode::OK, 1));
    world.clock.pass(time::Duration::seconds(2));
    assert_eq!((world.refresh(&mut token).await, world.site.fetches()), (StatusCode::OK, 2));
    assert_eq!((world.authorize().await.0, world.site.fetches()), (StatusCode::SEE_OTHER, 2));
}

// MCP-REG-022: no more than the most, and no less than the least.
#[tokio::test]
async fn the_clients_host_does_not_say_how_long_without_bounds() {
    let world = World::new().await;
    world.site.now_answers(Page { cache: "max-age=999999999", ..GOOD });
    world.code().await;
    world.clock.pass(time::Duration::seconds(3601));
    world.site.now_answers(Page { cache: "no-store", ..GOOD });
    world.code().await;
    world.code().await;
    assert_eq!(world.site.fetches(), 2);
    world.clock.pass(time::Duration::seconds(1));
    world.code().await;
    assert_eq!(world.site.fetches(), 3);
}

// CIMD-4.4-3: what is no document answers who asked for it and nobody else, and is not asked for again at once.
#[tokio::test]
async fn a_fetch_that_fails_is_not_repeated_at_once_and_not_kept_as_a_document() {
    let world = World::new().await;
    let broken = [
        Page { status: StatusCode::INTERNAL_SERVER_ERROR, ..GOOD },
        Page { method: "client_secret_basic", ..GOOD },
        Page { status: StatusCode::FOUND, ..GOOD },
    ];
    for (at, page) in broken.into_iter().enumerate() {
        world.site.now_answers(page);
        assert_eq!(world.authorize().await.0, StatusCode::BAD_REQUEST);
        assert_eq!(world.authorize().await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(world.site.fetches(), at + 1);
        world.clock.pass(time::Duration::seconds(31));
    }
    world.site.now_answers(GOOD);
    world.code().await;
    world.clock.pass(time::Duration::seconds(601));
    world.site.now_answers(Page { status: StatusCode::INTERNAL_SERVER_ERROR, ..GOOD });
    assert_eq!(
        world.authorize().await.0,
        StatusCode::BAD_REQUEST,
        "nobody new is asked under an old document"
    );
}

// D41
#[tokio::test]
async fn a_client_whose_document_fails_keeps_its_grant_and_then_is_asked_to_wait() {
    let world = World::new().await;
    let mut token = world.granted().await;
    world.site.now_answers(Page { status: StatusCode::INTERNAL_SERVER_ERROR, ..GOOD });
    world.clock.pass(time::Duration::days(6));
    assert_eq!(world.refresh(&mut token).await, StatusCode::OK);
    assert_eq!((world.refresh(&mut token).await, world.site.fetches()), (StatusCode::OK, 2));
    world.clock.pass(time::Duration::days(2));
    assert_eq!(world.refresh(&mut token).await, StatusCode::SERVICE_UNAVAILABLE);
    world.site.now_answers(GOOD);
    world.clock.pass(time::Duration::seconds(31));
    assert_eq!(world.refresh(&mut token).await, StatusCode::OK);
}

// D41
#[tokio::test]
async fn a_client_whose_document_is_gone_for_a_week_ends() {
    let world = World::new().await;
    let mut token = world.granted().await;
    world.site.now_answers(Page { status: StatusCode::NOT_FOUND, ..GOOD });
    world.clock.pass(time::Duration::days(1));
    assert_eq!(world.refresh(&mut token).await, StatusCode::OK);
    world.clock.pass(time::Duration::days(5));
    assert_eq!(world.refresh(&mut token).await, StatusCode::OK);
    world.clock.pass(time::Duration::days(2));
    assert_eq!(world.refresh(&mut token).await, StatusCode::UNAUTHORIZED);
    world.site.now_answers(GOOD);
    world.clock.pass(time::Duration::seconds(31));
    assert_eq!(world.refresh(&mut token).await, StatusCode::UNAUTHORIZED, "it does not come back by itself");
    let mut next = world.granted().await;
    assert_eq!(
        world.refresh(&mut token).await,
        StatusCode::BAD_REQUEST,
        "a new consent revives no old grant"
    );
    assert_eq!(world.refresh(&mut next).await, StatusCode::OK);
}

// D41: what was approved for a client that proves itself is not handed to whoever claims its name.
#[tokio::test]
async fn a_document_that_proves_less_ends_what_was_approved_before() {
    let world = World::new().await;
    world.site.now_answers(Page { method: "private_key_jwt", cache: "max-age=1", ..GOOD });
    let code = world.code().await;
    world.site.now_answers(Page { cache: "max-age=1", ..GOOD });
    let (status, body) = world.redeem(&code).await;
    assert_eq!((status, member(&body, "error").as_str()), (StatusCode::UNAUTHORIZED, "invalid_client"));
    world.clock.pass(time::Duration::seconds(2));
    let (status, body) = world.redeem(&code).await;
    assert_eq!((status, member(&body, "error").as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"));
    assert_eq!(world.site.fetches(), 2);
    // The control: nothing is wrong with a code of the client as it is now.
    world.granted().await;
    // And a change of its name alone ends nothing.
    let code = world.code().await;
    world.site.now_answers(Page { name: "Other", ..GOOD });
    world.clock.pass(time::Duration::seconds(2));
    assert_eq!(world.redeem(&code).await.0, StatusCode::OK);
}

// I-P1: the endpoints for clients fetch nothing for a stranger.
#[tokio::test]
async fn a_url_that_nobody_was_asked_about_is_not_fetched_at_the_token_endpoint() {
    let world = World::new().await;
    let mut token = "x".repeat(43);
    assert_eq!(world.refresh(&mut token).await, StatusCode::UNAUTHORIZED);
    assert_eq!(world.site.fetches(), 0);
}

// I-P7: hosts that take connections and say nothing keep no other client out.
#[tokio::test]
async fn silent_hosts_keep_no_new_client_out() {
    let world = Arc::new(World::new().await);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let mut asking = Vec::new();
    let mut held = Vec::new();
    for n in 0..40 {
        let (world, url) = (world.clone(), format!("{silent}/{n}"));
        asking.push(tokio::spawn(async move { world.authorize_with(&[("client_id", &url)]).await.0 }));
        held.push(listener.accept().await.unwrap());
    }
    let began = std::time::Instant::now();
    assert_eq!(world.authorize().await.0, StatusCode::SEE_OTHER);
    assert!(began.elapsed() < Duration::from_secs(4), "it waited for none of them");
    // Who gave way is asked to come again, and is fetched when it does.
    assert_eq!(asking.remove(0).await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
    let again = world.clone();
    let url = format!("{silent}/0");
    let _again = tokio::spawn(async move { again.authorize_with(&[("client_id", &url)]).await });
    listener.accept().await.unwrap();
    // The others had five seconds.
    let began = std::time::Instant::now();
    assert_eq!(asking.pop().unwrap().await.unwrap(), StatusCode::BAD_REQUEST);
    assert!(began.elapsed() < Duration::from_secs(10));
}

// D41: a host that answers slowly makes its own client wait, and not for ever.
#[tokio::test]
async fn a_client_does_not_wait_for_its_slow_host() {
    let world = World::new().await;
    let mut token = world.granted().await;
    world.clock.pass(time::Duration::days(1));
    world.site.now_answers(Page { delay: Duration::from_secs(15), ..GOOD });
    let began = std::time::Instant::now();
    assert_eq!(world.refresh(&mut token).await, StatusCode::OK);
    assert!(began.elapsed() < Duration::from_secs(12));
}

// I-P7: and nobody holds a fetch's place with a host that says nothing.
#[tokio::test]
async fn a_stranger_does_not_wait_for_a_slow_host_for_long() {
    let world = World::new().await;
    world.site.now_answers(Page { delay: Duration::from_secs(60), ..GOOD });
    let answer = tokio::time::timeout(Duration::from_secs(12), world.authorize()).await;
    assert_eq!(answer.unwrap().0, StatusCode::BAD_REQUEST);
}

// D41: a process that has kept an older document asks nobody under it, once another has fetched the next one.
#[tokio::test]
async fn a_process_with_an_older_document_runs_nobody_back_to_it() {
    let one = World::new().await;
    let other = one.beside();
    one.code().await;
    one.clock.pass(time::Duration::seconds(60));
    assert_eq!((one.authorize().await.0, one.site.fetches()), (StatusCode::SEE_OTHER, 1), "the control");
    // The client's redirect URI is another, because somebody else holds the old one now.
    let moved = "http://127.0.0.1:9/moved";
    one.site.now_answers(Page { redirect_uri: moved, ..GOOD });
    let (status, code) = other.authorize_with(&[("redirect_uri", moved)]).await;
    assert_eq!((status, code.is_some(), one.site.fetches()), (StatusCode::SEE_OTHER, true, 2));
    assert_eq!(one.authorize().await, (StatusCode::BAD_REQUEST, None));
    assert_eq!(one.site.fetches(), 3, "it is fetched again, once");
    assert_eq!(one.authorize_with(&[("redirect_uri", moved)]).await.0, StatusCode::SEE_OTHER);
    assert_eq!((other.authorize().await.0, one.site.fetches()), (StatusCode::BAD_REQUEST, 3));
}

// D41, I-P7: two processes that are answered differently do not fetch in turn for every request.
#[tokio::test]
async fn a_host_that_answers_differently_is_not_fetched_for_every_request() {
    let one = World::new().await;
    let other = one.beside();
    one.code().await;
    one.site.now_answers(Page { name: "Other", ..GOOD });
    one.clock.pass(time::Duration::seconds(5));
    other.code().await;
    for _ in 0..5 {
        assert_eq!(one.authorize().await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(one.site.fetches(), 2);
    one.clock.pass(time::Duration::seconds(30));
    assert_eq!((one.authorize().await.0, one.site.fetches()), (StatusCode::SEE_OTHER, 3));
}

// D41: what one process fetched before the client was known is compared with what another wrote down since.
#[tokio::test]
async fn a_newer_document_is_compared_when_the_store_has_an_older_one() {
    let one = World::new().await;
    let other = one.beside();
    let unknown_scope = [("scope", "nothing")];
    one.site.now_answers(Page { method: "private_key_jwt", ..GOOD });
    assert_eq!(one.authorize_with(&unknown_scope).await.1.as_deref(), Some(""));
    one.clock.pass(time::Duration::seconds(60));
    one.site.now_answers(GOOD);
    assert_eq!(other.authorize_with(&unknown_scope).await.1.as_deref(), Some(""));
    assert_eq!((one.clients().await, one.site.fetches()), (0, 2));
    // Approved for a client that proves itself; the other process knows that it does not any more.
    let code = one.code().await;
    let (status, body) = other.redeem(&code).await;
    assert_eq!((status, member(&body, "error").as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"));
    assert_eq!(one.site.fetches(), 2);
    let (status, body) = other.redeem(&other.code().await).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

// RFC9126-2-1: a client may come to the endpoint for pushed requests first.
#[tokio::test]
async fn a_client_of_a_document_may_push_its_very_first_request() {
    let world = World::new().await;
    let (status, body) = world.push(&[]).await;
    assert_eq!((status, world.site.fetches()), (StatusCode::CREATED, 1), "{body}");
    assert_eq!(world.clients().await, 0, "nobody was asked yet");
    let uri = member(&body, "request_uri");
    let query = form::encode([("client_id", world.site.url.as_str()), ("request_uri", &uri)]);
    let request = Request::get(format!("/authorize?{query}")).body(Body::empty()).unwrap();
    let (status, location, _) = world.send(request).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let location = location.unwrap();
    let answer = form::Form::parse(location.split_once('?').unwrap().1.as_bytes()).unwrap();
    assert_eq!(world.redeem(answer.get("code").unwrap()).await.0, StatusCode::OK);
    assert_eq!(world.site.fetches(), 1);
    assert_eq!(world.push(&[]).await.0, StatusCode::CREATED, "and push the next one");
}

// I-P1, CIMD-6.6-1: nothing is fetched for a request that no document could make acceptable.
#[tokio::test]
async fn nothing_is_fetched_for_a_pushed_request_that_cannot_succeed() {
    let world = World::new().await;
    for change in [
        ("code_challenge", ""),
        ("code_challenge_method", "plain"),
        ("response_type", "token"),
        ("resource", "https://other.example"),
        ("resource", ""),
        ("scope", "nothing"),
        ("redirect_uri", "http://evil.example/"),
        ("redirect_uri", "javascript:alert(1)"),
        ("authorization_details", "[]"),
        ("request", "x"),
        ("prompt", "none"),
        ("client_secret", "a-secret-that-no-document-has"),
        ("client_id", "https://10.0.0.1/client.json"),
        ("client_id", "http://app.example/client.json"),
        ("client_id", "https://app.example/../client.json"),
    ] {
        let (status, body) = world.push(&[change]).await;
        assert_eq!((status, member(&body, "error").as_str()), (StatusCode::UNAUTHORIZED, "invalid_client"));
    }
    assert_eq!(world.site.fetches(), 0);
    for path in ["/token", "/revoke", "/introspect"] {
        let body = form::encode([("client_id", world.site.url.as_str()), ("token", "x"), ("code", "x")]);
        let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        let (status, ..) = world.send(request.body(body.into()).unwrap()).await;
        assert!(status.is_client_error(), "{path}: {status}");
    }
    assert_eq!(world.site.fetches(), 0, "nothing was granted to a client that nobody was asked about");
    // What only the document can say is said by it.
    assert_eq!(world.push(&[("redirect_uri", "http://127.0.0.1:9/other")]).await.0, StatusCode::BAD_REQUEST);
    assert_eq!((world.push(&[("redirect_uri", "")]).await.0, world.site.fetches()), (StatusCode::CREATED, 1));
    world.clock.pass(time::Duration::seconds(601));
    world.site.now_answers(Page { method: "private_key_jwt", ..GOOD });
    assert_eq!(world.push(&[]).await.0, StatusCode::UNAUTHORIZED);
    for (page, expected) in [
        (Page { status: StatusCode::BAD_GATEWAY, ..GOOD }, StatusCode::SERVICE_UNAVAILABLE),
        (Page { status: StatusCode::NOT_FOUND, ..GOOD }, StatusCode::UNAUTHORIZED),
        (Page { method: "client_secret_basic", ..GOOD }, StatusCode::UNAUTHORIZED),
    ] {
        world.clock.pass(time::Duration::seconds(601));
        world.site.now_answers(page);
        assert_eq!(world.push(&[]).await.0, expected);
    }
}

// D41: seven days by the clock, however seldom anybody asks.
#[tokio::test]
async fn a_document_that_is_gone_ends_its_client_whether_anybody_asks_or_not() {
    let world = World::new().await;
    world.granted().await;
    world.site.now_answers(Page { status: StatusCode::NOT_FOUND, ..GOOD });
    for day in 1..=9 {
        world.clock.pass(time::Duration::days(1));
        world.host.look_after_documents().await.unwrap();
        // Noticed on the first day.
        assert_eq!(world.clients().await, usize::from(day < 8), "day {day}");
    }
    // One that comes back meanwhile begins anew, though nobody came to see it.
    let world = World::new().await;
    let mut token = world.granted().await;
    for (day, status) in
        [(1, StatusCode::GONE), (3, StatusCode::OK), (9, StatusCode::GONE), (15, StatusCode::GONE)]
    {
        let days = time::Duration::days(day) - time::Duration::seconds(world.clock.0.load(Ordering::SeqCst));
        world.clock.pass(days);
        world.site.now_answers(Page { status, ..GOOD });
        world.host.look_after_documents().await.unwrap();
        assert_eq!(world.clients().await, 1, "day {day}");
    }
    world.clock.pass(time::Duration::days(1));
    world.host.look_after_documents().await.unwrap();
    assert_eq!(world.clients().await, 0);
    assert_eq!(world.refresh(&mut token).await, StatusCode::UNAUTHORIZED);
}

// I-P7: a document that is there is fetched once a day at most, and one that a stranger named never.
#[tokio::test]
async fn only_documents_that_people_were_asked_under_are_looked_after() {
    let world = World::new().await;
    world.authorize_with(&[("scope", "nothing")]).await;
    world.clock.pass(time::Duration::days(2));
    world.host.look_after_documents().await.unwrap();
    assert_eq!(world.site.fetches(), 1);
    world.granted().await;
    for hour in 0..48 {
        world.host.look_after_documents().await.unwrap();
        assert!(world.site.fetches() <= 2 + hour / 24, "hour {hour}: {}", world.site.fetches());
        world.clock.pass(time::Duration::hours(1));
    }
    assert_eq!(world.site.fetches(), 3);
}

// I-P2: what was wanted remembered does not stand in for a page that has to write the client down.
#[tokio::test]
async fn a_remembered_client_that_was_forgotten_is_asked_about_again() {
    const AWAY: &str = "https://app.example/callback";
    let clock = Arc::new(Ticks::default());
    let store = Arc::new(MemoryStore::with_clock(clock.clone()));
    let world = World::of(store, clock, Site::start().await, |host| host);
    world.site.now_answers(Page { method: "private_key_jwt", redirect_uri: AWAY, ..GOOD });
    let mut cookie = String::new();
    let mut asked = async |remember: bool| {
        let pairs = world.parameters(&[("redirect_uri", AWAY)]);
        let query = form::encode(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let request = Request::get(format!("/authorize?{query}")).header("cookie", &cookie);
        let answer = world.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        if let Some(set) = answer.headers().get("set-cookie") {
            cookie = set.to_str().unwrap().split(';').next().unwrap().to_owned();
        }
        let is_page = answer.status() == StatusCode::OK;
        let page = answer.into_body().collect().await.unwrap().to_bytes();
        let page = String::from_utf8(page.to_vec()).unwrap();
        if remember {
            let hidden = |name: &str| {
                let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
                rest.split_once('"').unwrap().0.to_owned()
            };
            let (handle, csrf) = (hidden("handle"), hidden("csrf"));
            let pairs =
                [("handle", &handle[..]), ("csrf", &csrf), ("decision", "approve"), ("scope.read", "on")];
            let body = form::encode([&pairs[..], &[("remember", "on")]].concat());
            let request = Request::post("/decision").header("cookie", &cookie);
            let request = request.header("content-type", "application/x-www-form-urlencoded");
            let (status, ..) = world.send(request.body(body.into()).unwrap()).await;
            assert_eq!(status, StatusCode::SEE_OTHER);
        }
        is_page
    };
    assert!(asked(true).await, "the first time");
    assert!(!asked(false).await, "not again");
    // It never redeemed a code, so that the store forgets it, and the consent stands for two months more.
    world.clock.pass(time::Duration::days(31));
    world.store.sweep().await.unwrap();
    assert_eq!(world.clients().await, 0);
    assert!(asked(false).await);
    assert_eq!(world.clients().await, 1);
    assert!(!asked(false).await);
}
