//! The router as a client and a browser see it, over both stores.

mod key_sets;
mod room;
#[cfg(feature = "passwords")]
mod sessions;
mod standing;

use std::sync::{Arc, LazyLock, Mutex};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use mcp_authz::authorization_server::{
    AuthorizationServer, Configuration, KnownResource, PushedRequests, RegistrationPolicy,
};
use mcp_authz::identifier::{ClientId, Issuer, ResourceId, Scope};
use mcp_authz::jose::Algorithm;
use mcp_authz::pkce::CodeChallenge;
use mcp_authz::secret::CodeVerifier;
use mcp_authz::syntax::form;
use mcp_authz::syntax::json::JsonObject;
use tower::ServiceExt as _;

use super::people::{LocalUser, PersonAuthentication};
use super::{AuthorizationEvent, AuthorizationServerHost};
use crate::client::fetch::Fetcher;
use crate::keys::SigningKey;
use crate::store::Store;
use crate::store::memory::MemoryStore;

const ISSUER: &str = "http://127.0.0.1:7/as";
const RESOURCE: &str = "http://127.0.0.1:8/mcp";
const REDIRECT: &str = "http://127.0.0.1:9/callback";
/// Its tokens are opaque.
const OPAQUE: &str = "http://127.0.0.1:8/opaque";
const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters";

/// One key for all servers: they may be the same one, started again.
static KEY: LazyLock<Arc<SigningKey>> =
    LazyLock::new(|| Arc::new(SigningKey::generate(Algorithm::EdDsa).unwrap()));

struct World {
    router: Router,
    events: Arc<Mutex<Vec<String>>>,
}

fn world_with(store: Arc<dyn Store>, people: LocalUser) -> World {
    World::of(store, Arc::new(people), |host| host)
}

impl World {
    fn of(
        store: Arc<dyn Store>,
        people: Arc<dyn PersonAuthentication>,
        change: impl FnOnce(AuthorizationServerHost) -> AuthorizationServerHost,
    ) -> Self {
        let scope = |name, words: &str| (Scope::new(name).unwrap(), words.to_owned());
        let scopes =
            [scope("notes:read", "Read your notes"), scope("notes:write", "Change <b>your</b> notes")];
        let resource = KnownResource::new(ResourceId::new(RESOURCE).unwrap(), scopes.clone());
        let opaque = KnownResource::new(ResourceId::new(OPAQUE).unwrap(), scopes)
            .opaque_tokens(ClientId::new("resource-server").unwrap());
        let resources = vec![resource, opaque];
        let configuration = Configuration::new(Issuer::new(ISSUER).unwrap(), resources, KEY.id())
            .registration(RegistrationPolicy::Open)
            .managed_registrations(true)
            .pushed_requests(PushedRequests::Offered);
        let server = AuthorizationServer::new(configuration).unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&events);
        let host = AuthorizationServerHost::new(server, store, KEY.clone(), people, Fetcher::new().unwrap())
            .observer(move |event: AuthorizationEvent<'_>| log.lock().unwrap().push(format!("{event:?}")));
        Self { router: change(host).router(), events }
    }
}

fn world() -> World {
    world_with(Arc::new(MemoryStore::new()), LocalUser::automatic("alice").unwrap())
}

impl World {
    async fn send(&self, request: Request<Body>) -> Answer {
        Answer::of(self.router.clone().oneshot(request).await.unwrap()).await
    }

    async fn get(&self, target: &str, cookie: Option<&str>) -> Answer {
        let mut request = Request::get(target);
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, cookie: Option<&str>, pairs: &[(&str, &str)]) -> Answer {
        let mut request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        let body = form::encode(pairs.iter().copied());
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    async fn register(&self) -> String {
        let body = format!(
            r#"{{"redirect_uris":["{REDIRECT}"],"client_name":"<script>Nice\u202e client","token_endpoint_auth_method":"none","grant_types":["authorization_code","refresh_token"]}}"#
        );
        let request = Request::post("/as/register").header("content-type", "application/json");
        let answer = self.send(request.body(Body::from(body)).unwrap()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        answer.json().required_string("client_id").unwrap().to_owned()
    }

    async fn consent_page(&self, client: &str, cookie: Option<&str>) -> Answer {
        self.get(&authorize(client, "notes:read notes:write"), cookie).await
    }

    /// A code, from request to redirect.
    async fn code(&self, client: &str) -> String {
        let page = self.consent_page(client, None).await;
        let cookie = page.cookie().unwrap();
        let answer = self.decide(&page, Some(&cookie), "approve").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        answer.parameter("code").unwrap()
    }

    async fn decide(&self, page: &Answer, cookie: Option<&str>, word: &str) -> Answer {
        let pairs = [
            ("handle", page.hidden("handle")),
            ("csrf", page.hidden("csrf")),
            ("scope.notes:read", "on".to_owned()),
            ("decision", word.to_owned()),
        ];
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.post("/as/decision", cookie, &pairs).await
    }

    async fn redeem(&self, client: &str, code: &str) -> Answer {
        let pairs = [
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", REDIRECT),
            ("resource", RESOURCE),
        ];
        self.post("/as/token", None, &pairs).await
    }

    async fn refresh(&self, client: &str, token: &str) -> Answer {
        let pairs = [("grant_type", "refresh_token"), ("client_id", client), ("refresh_token", token)];
        self.post("/as/token", None, &pairs).await
    }
}

fn authorize(client: &str, scope: &str) -> String {
    let challenge = CodeChallenge::of(&CodeVerifier::new(VERIFIER).unwrap()).to_text();
    let query = form::encode([
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", REDIRECT),
        ("scope", scope),
        ("resource", RESOURCE),
        ("state", "a state & more"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ]);
    format!("/as/authorize?{query}")
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: String,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Self { status: parts.status, headers: parts.headers, body }
    }

    fn cookie(&self) -> Option<String> {
        let value = self.headers.get("set-cookie")?.to_str().unwrap();
        Some(value.split(';').next().unwrap().to_owned())
    }

    fn hidden(&self, name: &str) -> String {
        let rest = self.body.split_once(&format!("name=\"{name}\" value=\"")).unwrap().1;
        rest.split_once('"').unwrap().0.replace("&amp;", "&")
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let location = self.headers.get("location")?.to_str().unwrap();
        let query = location.split_once('?').unwrap().1;
        form::Form::parse(query.as_bytes()).unwrap().get(name).map(str::to_owned)
    }

    fn json(&self) -> JsonObject {
        JsonObject::parse(self.body.as_bytes(), 65536).unwrap()
    }

    fn member(&self, name: &'static str) -> String {
        self.json().required_string(name).unwrap().to_owned()
    }
}

async fn whole_flow(world: &World) {
    let client = world.register().await;
    let code = world.code(&client).await;
    let first = world.redeem(&client, &code).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.body);
    assert_eq!(first.headers["cache-control"], "no-store");
    assert_eq!(first.member("scope"), "notes:read");
    let second = world.refresh(&client, &first.member("refresh_token")).await;
    assert_eq!(second.status, StatusCode::OK, "{}", second.body);
    // I-T2: the retired token comes back, and the live one dies with it.
    let reused = world.refresh(&client, &first.member("refresh_token")).await;
    assert_eq!((reused.status, reused.member("error").as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"));
    let dead = world.refresh(&client, &second.member("refresh_token")).await;
    assert_eq!(dead.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_person_allows_and_tokens_follow_and_reuse_ends_them() {
    whole_flow(&world()).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn the_same_over_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = Arc::new(crate::store::sqlite::SqliteStore::open(&path).await.unwrap());
    whole_flow(&world_with(store.clone(), LocalUser::automatic("alice").unwrap())).await;
    store.close().await;
}

// I-C1, I-C3
#[tokio::test]
async fn a_replayed_code_is_refused_and_ends_the_family() {
    let world = world();
    let client = world.register().await;
    let code = world.code(&client).await;
    let tokens = world.redeem(&client, &code).await;
    let replay = world.redeem(&client, &code).await;
    assert_eq!((replay.status, replay.member("error").as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"));
    let refresh = world.refresh(&client, &tokens.member("refresh_token")).await;
    assert_eq!(refresh.status, StatusCode::BAD_REQUEST);
}

// I-C3, I-G5: the peer hangs up as soon as it has asked.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn hanging_up_does_not_save_a_replayed_family() {
    // A store that makes its callers wait: in memory the one poll below would be enough.
    let folder = tempfile::tempdir().unwrap();
    let store = crate::store::sqlite::SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let world = world_with(Arc::new(store), LocalUser::automatic("alice").unwrap());
    let client = world.register().await;
    let code = world.code(&client).await;
    let tokens = world.redeem(&client, &code).await;
    let replay = world.redeem(&client, &code);
    let mut replay = Box::pin(replay);
    let polled = std::future::poll_fn(|context| {
        let _ = replay.as_mut().poll(context);
        std::task::Poll::Ready(())
    });
    polled.await;
    drop(replay);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let refresh = world.refresh(&client, &tokens.member("refresh_token")).await;
    assert_eq!(refresh.status, StatusCode::BAD_REQUEST);
}

// I-P8, I-R8, MCP-SBP-006
#[tokio::test]
async fn the_consent_page_escapes_the_client_and_cannot_be_framed() {
    let world = world();
    let client = world.register().await;
    let page = world.consent_page(&client, None).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("&lt;script&gt;Nice\\u{202e} client") && !page.body.contains("<script"));
    // MCP-SEC-024, CIMD-6.4-1
    assert!(page.body.contains("(127.0.0.1)") && page.body.contains(&client));
    assert!(page.body.contains("unverified") && page.body.contains("a program on this computer"));
    assert!(page.body.contains("Change &lt;b&gt;your&lt;/b&gt; notes") && page.body.contains(RESOURCE));
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("form-action"));
    assert_eq!(page.headers["x-frame-options"], "DENY");
    assert_eq!(page.headers["cache-control"], "no-store");
}

// I-P9, MCP-SBP-005
#[tokio::test]
async fn only_the_browser_that_was_asked_can_answer_and_only_once() {
    let world = world();
    let client = world.register().await;
    let page = world.consent_page(&client, None).await;
    let cookie = page.cookie().unwrap();
    let other = world.consent_page(&client, None).await.cookie().unwrap();
    for stranger in [None, Some(other.as_str())] {
        assert_eq!(world.decide(&page, stranger, "approve").await.status, StatusCode::FORBIDDEN);
    }
    let pairs = [("handle", page.hidden("handle")), ("csrf", "x".repeat(43))];
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(world.post("/as/decision", Some(&cookie), &pairs).await.status, StatusCode::FORBIDDEN);
    let elsewhere = Request::post("/as/decision")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("cookie", &cookie)
        .header("origin", "https://evil.example");
    let body = form::encode([
        ("handle", page.hidden("handle").as_str()),
        ("csrf", page.hidden("csrf").as_str()),
        ("decision", "approve"),
    ]);
    let answer = world.send(elsewhere.body(Body::from(body)).unwrap()).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    // None of that used it up.
    let answer = world.decide(&page, Some(&cookie), "approve").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(answer.parameter("iss").as_deref(), Some(ISSUER));
    assert_eq!(answer.parameter("state").as_deref(), Some("a state & more"));
    assert_eq!(world.decide(&page, Some(&cookie), "approve").await.status, StatusCode::FORBIDDEN);
}

// OAUTH21-4.1.2.1-3
#[tokio::test]
async fn whatever_is_not_the_word_approve_denies() {
    let world = world();
    let client = world.register().await;
    for word in ["deny", "Approve", ""] {
        let page = world.consent_page(&client, None).await;
        let answer = world.decide(&page, page.cookie().as_deref(), word).await;
        assert_eq!(answer.parameter("error").as_deref(), Some("access_denied"), "{word}");
        assert!(answer.parameter("code").is_none());
    }
}

// I-R5
#[tokio::test]
async fn an_unregistered_redirect_uri_is_told_to_the_person_only() {
    let world = world();
    let client = world.register().await;
    let target = authorize(&client, "notes:read").replace("%2Fcallback", "%2Fcallbacl");
    let answer = world.get(&target, None).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.headers.get("location").is_none());
}

// MCP-SEC-019, MCP-SEC-020: whoever registers a client has a redirect URI; it sends nobody there who did not ask to go.
#[tokio::test]
async fn an_error_of_a_client_that_nobody_vouches_for_is_shown_and_sends_nobody_there() {
    let world = world();
    let client = world.register().await;
    for fault in
        [("response_type=code", "response_type=token"), ("notes%3Aread", "unknown"), ("S256", "plain")]
    {
        let target = authorize(&client, "notes:read").replace(fault.0, fault.1);
        let page = world.get(&target.replace("a+state", "%22%3E%3Cscript%3E"), None).await;
        assert!(
            page.status == StatusCode::BAD_REQUEST && page.headers.get("location").is_none(),
            "{fault:?}"
        );
        assert!(page.body.contains("(127.0.0.1)") && page.body.contains("unverified"), "{}", page.body);
        assert!(!page.body.contains("<script") && !page.body.contains("\u{202e}"), "{}", page.body);
        let link = page.body.split_once("<a href=\"").unwrap().1.split_once('"').unwrap().0;
        assert!(link.starts_with(REDIRECT) && link.contains("error=") && !link.contains("code="), "{link}");
    }
    // Where every request is approved without a question there is nobody to ask.
    let world =
        World::of(Arc::new(MemoryStore::new()), Arc::new(LocalUser::automatic("alice").unwrap()), |host| {
            host.dangerously_approve_everything()
        });
    let client = world.register().await;
    let answer = world.get(&authorize(&client, "unknown"), None).await;
    assert_eq!(answer.parameter("error").as_deref(), Some("invalid_scope"), "{}", answer.body);
}

// OAUTH21-7.12.2-1
#[tokio::test]
async fn a_person_signs_in_before_anything_is_shown_or_redirected() {
    let world = world_with(Arc::new(MemoryStore::new()), LocalUser::with_page("alice").unwrap());
    let client = world.register().await;
    let faulty = world.get(&authorize(&client, "unknown"), None).await;
    assert!(faulty.status == StatusCode::OK && faulty.body.contains("Continue as alice"));
    let page = world.consent_page(&client, None).await;
    assert!(
        page.body.contains("Continue as alice") && !page.body.contains("Read your notes"),
        "{}",
        page.body
    );
    let cookie = page.cookie().unwrap();
    let request = page.hidden("request");
    let answer = world.post("/as/sign-in", Some(&cookie), &[("request", &request)]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let back = answer.headers["location"].to_str().unwrap();
    assert_eq!(back, authorize(&client, "notes:read notes:write"));
    // Whoever knew the cookie from before is not signed in.
    let page = world.get(back, Some(&cookie)).await;
    assert!(page.body.contains("Continue as alice"));
    let cookie = answer.cookie().unwrap();
    let page = world.get(back, Some(&cookie)).await;
    assert!(page.body.contains("Read your notes"), "{}", page.body);
    assert_eq!(world.decide(&page, Some(&cookie), "approve").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn bodies_are_bounded_and_of_the_right_kind() {
    let world = world();
    let long = "x".repeat(40 * 1024);
    assert_eq!(world.post("/as/token", None, &[("a", &long)]).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let request = Request::post("/as/register").body(Body::from("{}")).unwrap();
    assert_eq!(world.send(request).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(world.get("/as/token", None).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let long = format!("/as/authorize?a={}", "x".repeat(9000));
    assert_eq!(world.get(&long, None).await.status, StatusCode::URI_TOO_LONG);
}

#[tokio::test]
async fn documents_stand_where_clients_look_for_them() {
    let world = world();
    let metadata = world.get("/.well-known/oauth-authorization-server/as", None).await;
    assert_eq!(metadata.member("issuer"), ISSUER);
    assert_eq!(metadata.member("token_endpoint"), format!("{ISSUER}/token"));
    let keys = world.get("/as/jwks", None).await;
    assert!(keys.body.contains("\"keys\"") && keys.body.contains("OKP") && !keys.body.contains("\"d\""));
}

// RFC7009-2-1
#[tokio::test]
async fn a_client_ends_its_own_grant() {
    let world = world();
    let client = world.register().await;
    let tokens = world.redeem(&client, &world.code(&client).await).await;
    let token = tokens.member("refresh_token");
    let pairs = [("token", token.as_str()), ("client_id", client.as_str())];
    assert_eq!(world.post("/as/revoke", None, &pairs).await.status, StatusCode::OK);
    assert_eq!(world.refresh(&client, &token).await.status, StatusCode::BAD_REQUEST);
}

// I-G7
#[tokio::test]
async fn events_hold_no_secret() {
    let world = world();
    let client = world.register().await;
    let page = world.consent_page(&client, None).await;
    let cookie = page.cookie().unwrap();
    let answer = world.decide(&page, Some(&cookie), "approve").await;
    let code = answer.parameter("code").unwrap();
    let tokens = world.redeem(&client, &code).await;
    let next = world.refresh(&client, &tokens.member("refresh_token")).await;
    let log = world.events.lock().unwrap().join("\n");
    for secret in [
        code,
        page.hidden("handle"),
        page.hidden("csrf"),
        tokens.member("access_token"),
        tokens.member("refresh_token"),
        next.member("refresh_token"),
        cookie.split_once('=').unwrap().1.to_owned(),
        VERIFIER.to_owned(),
    ] {
        assert!(!log.contains(&secret), "a secret is in the events");
    }
    assert!(log.contains("TokensIssued") && log.contains("VerifierMatched"));
}

// OAUTH21-4.3.3-3, I-P9: the page shows what was allowed, and ending it ends every token of it.
#[tokio::test]
async fn a_person_sees_and_ends_what_they_allowed() {
    let store = Arc::new(MemoryStore::new());
    let people = Arc::new(LocalUser::automatic("alice").unwrap());
    let administered = store.clone();
    let world = World::of(store, people, move |host| host.grants_page(administered));
    let client = world.register().await;
    let code = world.code(&client).await;
    let tokens = world.redeem(&client, &code).await;
    let page = world.get("/as/grants", None).await;
    let cookie = page.cookie().unwrap();
    assert!(page.body.contains("notes:read") && page.body.contains(&client), "{}", page.body);
    let csrf = page.hidden("csrf");
    for (cookie, csrf) in [(Some(cookie.as_str()), ""), (Some(&cookie), "AAAA"), (None, csrf.as_str())] {
        let answer = world.post("/as/grants", cookie, &[("csrf", csrf), ("client", &client)]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    let ended = world.post("/as/grants", Some(&cookie), &[("csrf", &csrf), ("client", &client)]).await;
    assert_eq!(ended.status, StatusCode::SEE_OTHER);
    assert!(world.get("/as/grants", Some(&cookie)).await.body.contains("No application may act for you"));
    let dead = world.refresh(&client, &tokens.member("refresh_token")).await;
    assert_eq!((dead.status, dead.member("error").as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"));
    assert_eq!(
        world_with(Arc::new(MemoryStore::new()), LocalUser::automatic("a").unwrap())
            .get("/as/grants", None)
            .await
            .status,
        StatusCode::NOT_FOUND
    );
}

// RFC9126-2.2-1, RFC7592-2.1-2, over HTTP.
#[tokio::test]
async fn requests_are_pushed_and_registrations_managed_over_http() {
    let world = world();
    let client = world.register().await;
    let query = authorize(&client, "notes:read");
    let form = form::Form::parse(query.split_once('?').unwrap().1.as_bytes()).unwrap();
    let pairs: Vec<(&str, &str)> = form.names().map(|name| (name, form.get(name).unwrap())).collect();
    let pushed = world.post("/as/par", None, &pairs).await;
    assert_eq!(pushed.status, StatusCode::CREATED, "{}", pushed.body);
    let uri = pushed.member("request_uri");
    let reference = form::encode([("client_id", client.as_str()), ("request_uri", &uri)]);
    let page = world.get(&format!("/as/authorize?{reference}"), None).await;
    let cookie = page.cookie().unwrap();
    let answer = world.decide(&page, Some(&cookie), "approve").await;
    assert!(answer.parameter("code").is_some());
    let again = world.get(&format!("/as/authorize?{reference}"), Some(&cookie)).await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST);
    let manage = async |token: &str| {
        let request = Request::get(format!("/as/register/{client}"));
        let request = request.header("authorization", format!("Bearer {token}"));
        world.send(request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(manage("wrong").await.status, StatusCode::UNAUTHORIZED);
}

// D45
#[tokio::test]
async fn pages_of_configured_origins_read_answers_for_clients_and_nothing_for_people() {
    let people = Arc::new(LocalUser::automatic("alice").unwrap());
    let origins = vec![super::AllowedOrigin::new("https://app.example").unwrap()];
    let world = World::of(Arc::new(MemoryStore::new()), people, |host| host.allowed_origins(origins));
    let preflight = async |path: &str, origin: &str| {
        let request = Request::options(path)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization");
        world.send(request.body(Body::empty()).unwrap()).await
    };
    let well_known = "/.well-known/oauth-authorization-server/as";
    for path in [well_known, "/as/jwks", "/as/token", "/as/register", "/as/revoke", "/as/par"] {
        let answer = preflight(path, "https://app.example").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
        for other in ["https://evil.example", "null", "https://app.example.evil"] {
            let answer = preflight(path, other).await;
            assert!(!answer.headers.contains_key("access-control-allow-origin"), "{path} {other}");
        }
    }
    let denied = Request::post("/as/token").header("origin", "https://app.example");
    let denied = world.send(denied.body(Body::empty()).unwrap()).await;
    assert_eq!(denied.headers["access-control-expose-headers"], "www-authenticate,retry-after");
    for path in ["/as/authorize", "/as/decision", "/as/grants", "/as/sign-in"] {
        let answer = preflight(path, "https://app.example").await;
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{path}");
    }
}
