//! A connection against servers that do what the test says: tokens that stop working, an authorization server that is
//! replaced by another, and replies that come as event streams.

use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::RawQuery;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::{get, post};
use mcp_authz::client::{Client, Configuration, OpenUserAgent};
use mcp_authz::error::{Error, PeerMisbehaved};
use mcp_authz::identifier::{ClientMetadataUrl, Issuer};
use mcp_authz::message::exchange::FetchFailure;
use mcp_authz::policy::{Policy, Relaxation};
use mcp_authz::syntax::form::{self, Form};
use mcp_authz::time::{self, OffsetDateTime};
use mcp_authz_tokio::BoxFuture;
use mcp_authz_tokio::client::browser::BrowserFailed;
use mcp_authz_tokio::client::callback::CallbackListener;
use mcp_authz_tokio::client::connection::{Connection, McpRequest, SendError};
use mcp_authz_tokio::client::credentials::{CredentialStore, MemoryStore};
use mcp_authz_tokio::client::driver::{Driver, LoginError};
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::client::pairing::WhateverTheResourceNames;
use mcp_authz_tokio::client::resolver::Resolver;
use mcp_authz_tokio::client::user_agent::UserAgent;
use mcp_authz_tokio::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;

/// Follows the authorization endpoint's redirect, which is all it does.
#[derive(Debug)]
struct Consenting(reqwest::Client);

impl UserAgent for Consenting {
    fn open<'a>(&'a self, action: &'a OpenUserAgent) -> BoxFuture<'a, Result<(), BrowserFailed>> {
        Box::pin(async move {
            let answer = self.0.get(action.url()).send().await.unwrap();
            let location = answer.headers()[LOCATION].to_str().unwrap().to_owned();
            tokio::spawn(self.0.get(location).send());
            Ok(())
        })
    }
}

/// What the servers do, and what they saw.
#[derive(Debug, Default)]
struct Script {
    /// The issuers the resource names.
    named: Vec<String>,
    /// Only tokens that begin so are taken.
    takes: String,
    /// Status of the resource metadata.
    metadata_fails: bool,
    gives_refresh_tokens: bool,
    /// The resource asks for this scope, whatever token it gets.
    wants: Option<&'static str>,
    /// Registrations as a native application are refused.
    refuses_native: bool,
    /// The person says no.
    denies: bool,
    refuses_refresh: bool,
    /// The content of the reply to a request with a token; JSON without one.
    events: Vec<&'static str>,
    /// The stream does not end behind its events.
    stays_open: bool,
    tokens: u32,
    /// Tokens are said to live so many seconds.
    expires_in: Option<u64>,
    /// The token endpoint answers with this status instead.
    token_status: Option<u16>,
    /// So long the token endpoint takes.
    token_takes: Duration,
    /// Requests to the resource, and whether each had a token that was taken.
    requests: Vec<bool>,
    /// Each request to an authorization server: its name, the endpoint, the parameters.
    seen: Vec<(&'static str, &'static str, String)>,
}

type Shared = Arc<Mutex<Script>>;

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    let body = Body::from(body.to_string());
    Response::builder().status(status).header(CONTENT_TYPE, "application/json").body(body).unwrap()
}

async fn serve(router: impl FnOnce(&str) -> Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let router = router(&origin);
    tokio::spawn(async move { axum::serve(listener, router).await });
    origin
}

/// An authorization server whose clients and tokens carry its name.
///
/// One that `reads_documents` sends no `iss` and registers nobody.
async fn authorization_server(name: &'static str, script: Shared, reads_documents: bool) -> String {
    serve(move |origin| {
        let mut metadata = json!({
            "issuer": origin, "response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"],
            "authorization_endpoint": format!("{origin}/authorize"), "token_endpoint": format!("{origin}/token"),
            "registration_endpoint": format!("{origin}/register"),
            "authorization_response_iss_parameter_supported": true,
        });
        if reads_documents {
            metadata["client_id_metadata_document_supported"] = true.into();
            metadata.as_object_mut().unwrap().remove("registration_endpoint");
            metadata.as_object_mut().unwrap().remove("authorization_response_iss_parameter_supported");
        }
        let (registering, asking, spending) = (Arc::clone(&script), Arc::clone(&script), script);
        let issuer = origin.to_owned();
        Router::new()
            .route(
                "/.well-known/oauth-authorization-server",
                get(move || async move { answer(StatusCode::OK, &metadata) }),
            )
            .route(
                "/register",
                post(move |body: Bytes| async move {
                    let body: Value = serde_json::from_slice(&body).unwrap();
                    registering.lock().unwrap().seen.push((name, "register", body.to_string()));
                    if registering.lock().unwrap().refuses_native && body["application_type"] == "native" {
                        return answer(StatusCode::BAD_REQUEST, &json!({"error": "invalid_client_metadata"}));
                    }
                    let client = json!({
                        "client_id": format!("{name}-client"), "client_secret": format!("{name}-secret"),
                        "client_secret_expires_at": 0, "token_endpoint_auth_method": "client_secret_post",
                        "redirect_uris": body["redirect_uris"],
                    });
                    answer(StatusCode::CREATED, &client)
                }),
            )
            .route(
                "/authorize",
                get(move |RawQuery(query): RawQuery| async move {
                    let query = query.unwrap();
                    let asked = Form::parse(query.as_bytes()).unwrap();
                    asking.lock().unwrap().seen.push((name, "authorize", query));
                    let code = format!("{name}-code");
                    let said = match asking.lock().unwrap().denies {
                        true => ("error", "access_denied"),
                        false => ("code", code.as_str()),
                    };
                    let mut back = vec![said, ("state", asked.get("state").unwrap())];
                    if !reads_documents {
                        back.push(("iss", issuer.as_str()));
                    }
                    let back = form::encode(back);
                    let location = format!("{}?{back}", asked.get("redirect_uri").unwrap());
                    Response::builder().status(302).header(LOCATION, location).body(Body::empty()).unwrap()
                }),
            )
            .route(
                "/token",
                post(move |body: Bytes| async move {
                    let form = Form::parse(&body).unwrap();
                    let takes = spending.lock().unwrap().token_takes;
                    tokio::time::sleep(takes).await;
                    let mut script = spending.lock().unwrap();
                    script.seen.push((name, "token", String::from_utf8(body.to_vec()).unwrap()));
                    if form.get("grant_type") == Some("refresh_token") && script.refuses_refresh {
                        return answer(StatusCode::BAD_REQUEST, &json!({"error": "invalid_grant"}));
                    }
                    if let Some(status) = script.token_status {
                        return answer(StatusCode::from_u16(status).unwrap(), &json!({"error": "invalid_request"}));
                    }
                    script.tokens += 1;
                    let number = script.tokens;
                    let mut tokens =
                        json!({"access_token": format!("{name}-token-{number}"), "token_type": "Bearer"});
                    if let Some(seconds) = script.expires_in {
                        tokens["expires_in"] = seconds.into();
                    }
                    if script.gives_refresh_tokens {
                        tokens["refresh_token"] = format!("{name}-refresh-{number}").into();
                    }
                    answer(StatusCode::OK, &tokens)
                }),
            )
    })
    .await
}

/// The system's clock, so many seconds later.
#[derive(Debug, Clone, Default)]
struct Later(Arc<AtomicI64>);

impl Clock for Later {
    fn now(&self) -> OffsetDateTime {
        SystemClock.now() + time::Duration::seconds(self.0.load(Ordering::SeqCst))
    }
}

struct World {
    connection: Connection,
    /// The same server in another program that shares the store.
    other: Connection,
    clock: Later,
    script: Shared,
    first: String,
    second: String,
}

async fn world() -> World {
    world_of(false).await
}

async fn world_of(reads_documents: bool) -> World {
    let script = Shared::default();
    let first = authorization_server("first", Arc::clone(&script), reads_documents).await;
    let second = authorization_server("second", Arc::clone(&script), reads_documents).await;
    {
        let mut script = script.lock().unwrap();
        script.named.push(first.clone());
        script.takes = "first-".into();
    }
    let (naming, taking) = (Arc::clone(&script), Arc::clone(&script));
    let origin = serve(|origin| {
        let resource = format!("{origin}/mcp");
        Router::new()
            .route(
                "/.well-known/oauth-protected-resource/mcp",
                get(move || async move {
                    let script = naming.lock().unwrap();
                    let status = if script.metadata_fails { 500 } else { 200 };
                    let document = json!({"resource": resource, "authorization_servers": script.named});
                    answer(StatusCode::from_u16(status).unwrap(), &document)
                }),
            )
            .route(
                "/mcp",
                post(move |headers: HeaderMap| async move {
                    let mut script = taking.lock().unwrap();
                    let token = headers.get(AUTHORIZATION).and_then(|field| field.to_str().ok());
                    let token = token.and_then(|field| field.strip_prefix("Bearer "));
                    let taken = token.is_some_and(|token| token.starts_with(&script.takes));
                    script.requests.push(taken);
                    if !taken {
                        let refused = Response::builder().status(401).header(WWW_AUTHENTICATE, "Bearer");
                        return refused.body(Body::empty()).unwrap();
                    }
                    if let Some(scope) = script.wants {
                        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
                        let refused = Response::builder().status(403).header(WWW_AUTHENTICATE, challenge);
                        return refused.body(Body::empty()).unwrap();
                    }
                    if script.events.is_empty() {
                        return answer(StatusCode::OK, &json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
                    }
                    let events = script.events.clone();
                    let rest = if script.stays_open { None } else { Some(Ok("")) };
                    let stream = tokio_stream::iter(events.into_iter().map(Ok::<_, std::io::Error>));
                    let body = match rest {
                        Some(last) => Body::from_stream(stream.chain(tokio_stream::once(last))),
                        None => Body::from_stream(stream.chain(tokio_stream::pending())),
                    };
                    Response::builder()
                        .header(CONTENT_TYPE, "text/event-stream; charset=utf-8")
                        .body(body)
                        .unwrap()
                }),
            )
    })
    .await;
    let slash = Relaxation::IssuerRootSlash(Issuer::new(format!("{first}/")).unwrap());
    let browser =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
    let clock = Later::default();
    let store: Arc<dyn CredentialStore> = Arc::new(MemoryStore::new());
    let url = format!("{origin}/mcp");
    let listeners = [CallbackListener::bind().await.unwrap(), CallbackListener::bind().await.unwrap()];
    let [connection, other] = listeners.map(|listener| {
        let redirect_uri = listener.redirect_uri("/callback").unwrap();
        let mut configuration =
            Configuration::new("A client", redirect_uri).policy(Policy::strict().relax(slash.clone()));
        if reads_documents {
            let document = ClientMetadataUrl::new("https://client.example/metadata.json").unwrap();
            configuration = configuration.metadata_document(document);
        }
        let (store, fetcher) = (Arc::clone(&store), Fetcher::new().unwrap());
        let agent = Consenting(browser.clone());
        let driver =
            Driver::builder_over(store, Client::new(configuration).unwrap(), fetcher, listener, agent)
                .pairing(WhateverTheResourceNames)
                .clock(Arc::new(clock.clone()))
                .patience(Duration::from_secs(5))
                .build();
        Connection::new(driver, url.as_str()).unwrap()
    });
    World { connection, other, clock, script, first, second }
}

impl World {
    fn request() -> McpRequest {
        McpRequest::json_rpc("tools/list", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#)
    }

    async fn call(&self) -> Result<u16, SendError> {
        self.connection.send(&Self::request()).await.map(|reply| reply.status)
    }

    fn issuer(&self) -> String {
        self.connection.session(|session| session.issuer().as_str().to_owned()).unwrap()
    }

    fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    /// The endpoints of a server that were reached, in order.
    fn reached(&self, name: &str) -> Vec<&'static str> {
        let script = self.script.lock().unwrap();
        script.seen.iter().filter(|(server, ..)| *server == name).map(|(_, endpoint, _)| *endpoint).collect()
    }

    /// Where each authorization request to a server wants to be answered, as a path.
    fn callback_paths(&self, name: &str) -> Vec<String> {
        let script = self.script.lock().unwrap();
        let asked = script.seen.iter().filter(|(server, at, _)| *server == name && *at == "authorize");
        let uris = asked.map(|(.., query)| {
            let form = Form::parse(query.as_bytes()).unwrap();
            form.get("redirect_uri").unwrap().to_owned()
        });
        uris.map(|uri| uri.splitn(4, '/').nth(3).unwrap().to_owned()).collect()
    }

    /// Whether a server was ever sent something of the other's.
    fn was_sent(&self, name: &str, text: &str) -> bool {
        let script = self.script.lock().unwrap();
        script.seen.iter().any(|(server, _, sent)| *server == name && sent.contains(text))
    }

    fn move_to_second(&self) {
        let second = self.second.clone();
        self.script(|script| {
            script.named = vec![second];
            script.takes = "second-".into();
        });
    }
}

#[tokio::test]
async fn a_resource_that_moves_to_another_issuer_is_followed_with_nothing_of_the_old_one() {
    // MCP-REG-051, MCP-REG-052: with and without a refresh token, which the old server goes on exchanging.
    for gives_refresh_tokens in [false, true] {
        let world = world().await;
        world.script(|script| script.gives_refresh_tokens = gives_refresh_tokens);
        assert_eq!(world.call().await.unwrap(), 200);
        world.move_to_second();
        assert_eq!(world.call().await.unwrap(), 200);
        assert_eq!(world.reached("second"), ["register", "authorize", "token"]);
        assert!(world.was_sent("second", "second-client") && !world.was_sent("second", "first-"));
        assert!(!world.was_sent("first", "second-"));
        assert_eq!(world.issuer(), world.second);
        let first = ["register", "authorize", "token", "token"];
        assert_eq!(world.reached("first"), first[..3 + usize::from(gives_refresh_tokens)]);
    }
}

#[tokio::test]
async fn servers_without_iss_are_told_apart_by_a_callback_path_that_stays_theirs() {
    // D29: one metadata document, whose paths are given out and remembered.
    let world = world_of(true).await;
    assert_eq!(world.call().await.unwrap(), 200);
    world.move_to_second();
    assert_eq!(world.call().await.unwrap(), 200);
    let first = world.first.clone();
    world.script(|script| {
        script.named = vec![first];
        script.takes = "first-token-3".into();
    });
    // Another program of the person comes back to the first.
    assert_eq!(world.other.send(&World::request()).await.unwrap().status, 200);
    let (first, second) = (world.callback_paths("first"), world.callback_paths("second"));
    assert_eq!((first.len(), second.len()), (2, 1));
    assert_eq!(first[0], first[1]);
    assert_ne!(first[0], second[0]);
    assert!(world.was_sent("second", "client.example"));
}

// MCP-REG-045
#[tokio::test]
async fn a_registration_that_is_refused_is_tried_once_as_the_other_type_of_application() {
    let world = world().await;
    world.script(|script| script.refuses_native = true);
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(world.reached("first"), ["register", "register", "authorize", "token"]);
}

// D33: what the person had is what the person keeps.
#[tokio::test]
async fn a_step_up_that_is_denied_leaves_the_session_that_was_there() {
    let world = world().await;
    assert_eq!(world.call().await.unwrap(), 200);
    world.script(|script| (script.wants, script.denies) = (Some("write"), true));
    let denied = world.call().await.unwrap_err();
    assert!(matches!(denied, SendError::Login(LoginError::Refused(_))), "{denied:?}");
    world.script(|script| script.wants = None);
    assert_eq!(world.call().await.unwrap(), 200, "with the token there was");
    assert_eq!(world.reached("first"), ["register", "authorize", "token", "authorize"]);
    // The same again is not asked again.
    world.script(|script| script.wants = Some("write"));
    let refused = world.call().await.unwrap_err();
    assert!(matches!(refused, SendError::Denied(Error::Peer(PeerMisbehaved::StepUpLoop))), "{refused:?}");
    assert_eq!(world.reached("first").len(), 4);
}

// D33, MCP-AUTH-115
#[tokio::test]
async fn programs_that_share_a_store_count_step_ups_together() {
    let world = world().await;
    assert_eq!(world.call().await.unwrap(), 200);
    let asked = |world: &World| world.reached("first").iter().filter(|it| **it == "authorize").count();
    let looped = |refused: Result<u16, SendError>| {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, SendError::Denied(Error::Peer(PeerMisbehaved::StepUpLoop))), "{refused:?}");
    };
    // What was granted is asked for again, so that the request is given up.
    for (scope, count) in [("a", 2), ("b", 3)] {
        world.script(|script| script.wants = Some(scope));
        looped(world.call().await);
        assert_eq!(asked(&world), count);
    }
    // The other program takes the session up, and the count with it.
    let request = World::request();
    let other = || async { world.other.send(&request).await.map(|reply| reply.status) };
    world.script(|script| script.wants = Some("c"));
    looped(other().await);
    assert_eq!(asked(&world), 4);
    world.script(|script| script.wants = Some("d"));
    looped(other().await);
    looped(world.call().await);
    assert_eq!(asked(&world), 4, "nobody is asked a fourth time");
    // And it goes on with what there is.
    world.script(|script| script.wants = None);
    assert_eq!(world.call().await.unwrap(), 200);
}

#[tokio::test]
async fn a_resource_that_names_others_besides_is_not_followed_to_them() {
    let world = world().await;
    assert_eq!(world.call().await.unwrap(), 200);
    let second = world.second.clone();
    world.script(|script| {
        script.named.insert(0, second);
        script.takes = "first-token-2".into();
    });
    assert_eq!(world.call().await.unwrap(), 200);
    assert!(world.reached("second").is_empty());
}

#[tokio::test]
async fn an_issuer_under_another_spelling_that_was_accepted_is_still_the_same() {
    let world = world().await;
    world.script(|script| script.named[0].push('/'));
    assert_eq!(world.call().await.unwrap(), 200);
    world.script(|script| script.takes = "first-token-2".into());
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(world.reached("first"), ["register", "authorize", "token", "authorize", "token"]);
}

#[tokio::test]
async fn a_grant_that_is_over_leads_to_another_login_with_the_same_registration() {
    for gives_refresh_tokens in [false, true] {
        let world = world().await;
        world.script(|script| script.gives_refresh_tokens = gives_refresh_tokens);
        assert_eq!(world.call().await.unwrap(), 200);
        world.script(|script| {
            script.refuses_refresh = true;
            script.takes = "first-token-2".into();
        });
        assert_eq!(world.call().await.unwrap(), 200);
        let mut reached = world.reached("first");
        // The refresh that was refused.
        assert_eq!(reached.len(), 5 + usize::from(gives_refresh_tokens));
        reached.retain(|endpoint| *endpoint == "register");
        assert_eq!(reached.len(), 1);
        assert_eq!(world.issuer(), world.first);
    }
}

#[tokio::test]
async fn a_resource_that_cannot_say_where_to_authorize_costs_no_session() {
    let world = world().await;
    world.script(|script| script.gives_refresh_tokens = true);
    assert_eq!(world.call().await.unwrap(), 200);
    world.script(|script| {
        script.metadata_fails = true;
        script.takes = "nothing".into();
    });
    assert!(matches!(world.call().await, Err(SendError::Login(_))));
    world.script(|script| script.takes = "first-".into());
    assert_eq!(world.call().await.unwrap(), 200);
}

/// Sends so many requests at the same time.
async fn at_once(world: &World, count: usize) -> Vec<Result<u16, SendError>> {
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..count {
        let connection = world.connection.clone();
        calls.spawn(async move { connection.send(&World::request()).await.map(|reply| reply.status) });
    }
    calls.join_all().await
}

#[tokio::test]
async fn requests_at_the_same_time_cost_one_login_and_later_one_refresh() {
    let world = world().await;
    world.script(|script| {
        script.gives_refresh_tokens = true;
        script.token_takes = Duration::from_millis(50);
    });
    assert!(at_once(&world, 12).await.into_iter().all(|status| status.unwrap() == 200));
    assert_eq!(world.reached("first"), ["register", "authorize", "token"]);
    world.script(|script| script.takes = "first-token-2".into());
    assert!(at_once(&world, 12).await.into_iter().all(|status| status.unwrap() == 200));
    assert_eq!(world.reached("first"), ["register", "authorize", "token", "token"]);
}

#[tokio::test]
async fn a_session_of_another_program_is_taken_up_before_the_person_is_asked() {
    let world = world().await;
    world.script(|script| script.gives_refresh_tokens = true);
    assert_eq!(world.call().await.unwrap(), 200);
    let elsewhere = world.other.send(&World::request()).await.unwrap();
    assert_eq!(elsewhere.status, 200);
    assert_eq!(world.reached("first"), ["register", "authorize", "token"]);
    // Begun before there was a session, and asked again when there is one.
    drop(world.connection.take_session().await.unwrap());
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(world.reached("first"), ["register", "authorize", "token"]);
    // What one renews is the other's as well: the token that was retired is not sent.
    world.script(|script| script.takes = "first-token-2".into());
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(world.other.send(&World::request()).await.unwrap().status, 200);
    assert_eq!(world.reached("first"), ["register", "authorize", "token", "token"]);
}

#[tokio::test]
async fn a_login_that_fails_is_not_asked_for_again_by_those_who_waited_for_it() {
    let world = world().await;
    world.script(|script| {
        script.token_status = Some(400);
        script.token_takes = Duration::from_millis(100);
    });
    let ended = at_once(&world, 6).await;
    assert_eq!(world.reached("first"), ["register", "authorize", "token"]);
    let elsewhere = ended.iter().filter(|it| matches!(it, Err(SendError::Elsewhere(_)))).count();
    let own = ended.iter().filter(|it| matches!(it, Err(SendError::Login(_)))).count();
    assert_eq!((own, elsewhere), (1, 5), "{ended:?}");
    // Whoever asks later is another matter.
    world.script(|script| script.token_status = None);
    assert_eq!(world.call().await.unwrap(), 200);
}

#[tokio::test]
async fn a_request_that_is_given_up_takes_no_session_with_it() {
    let world = world().await;
    world.script(|script| {
        script.gives_refresh_tokens = true;
        script.token_takes = Duration::from_millis(200);
    });
    let given_up = tokio::time::timeout(Duration::from_millis(100), world.call()).await;
    assert!(given_up.is_err());
    assert_eq!(world.call().await.unwrap(), 200);
    world.script(|script| script.takes = "first-token-2".into());
    let given_up = tokio::time::timeout(Duration::from_millis(100), world.call()).await;
    assert!(given_up.is_err());
    assert_eq!(world.call().await.unwrap(), 200);
    world.script(|script| script.takes = "first-".into());
    let given_up = tokio::time::timeout(Duration::from_millis(100), world.connection.refresh()).await;
    assert!(given_up.is_err());
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(world.reached("first"), ["register", "authorize", "token", "token", "token"]);
}

#[tokio::test]
async fn a_token_that_is_about_to_end_is_renewed_before_it_is_sent() {
    let world = world().await;
    world.script(|script| {
        script.gives_refresh_tokens = true;
        script.expires_in = Some(300);
    });
    assert_eq!(world.call().await.unwrap(), 200);
    world.clock.0.store(275, Ordering::SeqCst);
    assert!(at_once(&world, 5).await.into_iter().all(|status| status.unwrap() == 200));
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(world.reached("first"), ["register", "authorize", "token", "token"]);
    // Only the very first request was refused.
    let refused = world.script.lock().unwrap().requests.iter().filter(|taken| !**taken).count();
    assert_eq!(refused, 1);
}

#[tokio::test]
async fn tokens_of_a_few_seconds_are_not_renewed_at_each_request() {
    let world = world().await;
    world.script(|script| {
        script.gives_refresh_tokens = true;
        script.expires_in = Some(5);
    });
    for _ in 0..4 {
        assert_eq!(world.call().await.unwrap(), 200);
    }
    assert_eq!(world.reached("first"), ["register", "authorize", "token"]);
}

#[tokio::test]
async fn a_renewal_that_fails_costs_no_request_and_is_not_tried_at_each() {
    let world = world().await;
    world.script(|script| {
        script.gives_refresh_tokens = true;
        script.expires_in = Some(300);
    });
    assert_eq!(world.call().await.unwrap(), 200);
    world.clock.0.store(275, Ordering::SeqCst);
    world.script(|script| {
        script.token_status = Some(503);
        script.seen.clear();
    });
    for _ in 0..3 {
        assert_eq!(world.call().await.unwrap(), 200);
    }
    assert_eq!(world.reached("first"), ["token"]);
}

const PROGRESS: &str = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n";
const QUESTION: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n\n";
const ANSWER: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n";

#[tokio::test]
async fn an_event_stream_is_read_to_the_answer_and_no_further() {
    for stays_open in [true, false] {
        let world = world().await;
        world.script(|script| {
            script.events = vec![": hello\n\n", PROGRESS, QUESTION, ANSWER, PROGRESS];
            script.stays_open = stays_open;
        });
        let reply = world.connection.send(&World::request()).await.unwrap();
        let messages: Vec<_> = reply.messages().map(<[u8]>::to_vec).collect();
        let expected =
            [PROGRESS, QUESTION, ANSWER].map(|event| event.as_bytes()[6..event.len() - 2].to_vec());
        assert_eq!(messages, expected);
        assert!(reply.body.is_empty());
    }
}

#[tokio::test]
async fn the_messages_of_an_open_reply_come_one_by_one_while_other_requests_are_sent() {
    let world = world().await;
    world.script(|script| {
        script.events = vec![PROGRESS, ANSWER];
        script.stays_open = true;
    });
    let mut open = world.connection.open(&World::request()).await.unwrap();
    assert_eq!(open.status(), 200);
    assert!(open.message().await.unwrap().unwrap().ends_with(b"progress\"}"));
    assert_eq!(world.call().await.unwrap(), 200);
    assert!(open.message().await.unwrap().unwrap().ends_with(b"\"result\":{}}"));
    world.script(|script| script.events.clear());
    let mut whole = world.connection.open(&World::request()).await.unwrap();
    assert!(whole.message().await.unwrap().is_some());
    assert!(whole.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_stream_that_is_too_long_or_falls_silent_is_given_up() {
    let mut world = world().await;
    world.connection = world.connection.max_bytes(100);
    world.script(|script| script.events = vec![PROGRESS, PROGRESS, PROGRESS, ANSWER]);
    let failure = world.connection.send(&World::request()).await.unwrap_err();
    assert!(matches!(failure, SendError::Fetch(FetchFailure::TooLarge)), "{failure:?}");
    world.connection = world.connection.max_bytes(1000).patience(Duration::from_millis(200));
    world.script(|script| {
        script.events = vec![PROGRESS];
        script.stays_open = true;
    });
    let failure = world.connection.send(&World::request()).await.unwrap_err();
    assert!(matches!(failure, SendError::Fetch(FetchFailure::TimedOut)), "{failure:?}");
    // Without its answer a stream that ends is handed over as it is.
    world.script(|script| script.stays_open = false);
    assert_eq!(world.connection.send(&World::request()).await.unwrap().messages().count(), 1);
}

/// Says that every name is in a network of its own.
#[derive(Debug)]
struct Inside;

impl Resolver for Inside {
    fn resolve(&self, _: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::ready(Ok(vec![IpAddr::from([10, 1, 2, 3])])))
    }
}

// I-L8, PrivateNetworks: a request to an MCP server reaches the networks that were named for it, and no other server's.
#[tokio::test]
async fn an_mcp_server_is_reached_in_its_own_private_networks_only() {
    let policy: Policy =
        "PrivateNetworks=https://a.test 10.1.0.0/16\nPrivateNetworks=https://b.test 192.168.0.0/16"
            .parse()
            .unwrap();
    let fetcher = Fetcher::builder().resolver(Arc::new(Inside)).policy(&policy).build().unwrap();
    let listener = CallbackListener::bind().await.unwrap();
    let configuration =
        Configuration::new("A client", listener.redirect_uri("/callback").unwrap()).policy(policy);
    let agent = Consenting(reqwest::Client::builder().no_proxy().build().unwrap());
    let driver = Driver::builder(Client::new(configuration).unwrap(), fetcher, listener, agent).build();
    for (url, forbidden) in [
        ("https://a.test/mcp", false),
        ("https://b.test/mcp", true),
        ("https://c.test/mcp", true),
        ("https://a.test:8443/mcp", true),
        ("https://10.1.2.3/mcp", true),
    ] {
        let connection = Connection::new(driver.clone(), url).unwrap().patience(Duration::from_millis(100));
        let request = McpRequest::json_rpc("tools/list", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
        let SendError::Fetch(failure) = connection.send(&request).await.unwrap_err() else { panic!("{url}") };
        assert_eq!(failure == FetchFailure::AddressForbidden, forbidden, "{url}: {failure}");
    }
}
