//! People who sign in at an OpenID Provider, over sockets: the whole way to a tool, and providers, clients and browsers
//! that are not what they should be.
#![cfg(all(feature = "aws-lc-rs", feature = "rmcp"))]

#[path = "../support/port.rs"]
mod support;

mod hostile;
mod provider;
mod published;
mod sessions;
mod world;

use std::sync::Arc;

use axum::Router;
use axum::http::request::Parts;
use mcp_authz::client::{Client, Configuration};
use mcp_authz::identifier::{ClientId, Endpoint, Issuer, ResourceId, ScopeSet};
use mcp_authz::resource_server::{Authorized, ResourceServer, TrustedIssuer};
use mcp_authz_tokio::authorization_server::people::{PersonAuthentication as _, Standing};
use mcp_authz_tokio::authorization_server::upstream::{InvalidProvider, Upstream, UpstreamProvider};
use mcp_authz_tokio::client::callback::CallbackListener;
use mcp_authz_tokio::client::connection::Connection;
use mcp_authz_tokio::client::driver::Driver;
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::client::pairing::OnlyIssuer;
use mcp_authz_tokio::client::rmcp::AuthorizedHttp;
use mcp_authz_tokio::keys::AwsLcImporter;
use mcp_authz_tokio::resource_server::{KeySource, McpScopes, ResourceServerLayer};
use reqwest::StatusCode;
use rmcp::handler::server::common::Extension;
use rmcp::model::CallToolRequestParams;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, ServiceExt as _, tool, tool_handler, tool_router};

use provider::{CANARY, Lie, OpenIdProvider};
use world::{Browser, World, at, world};

#[derive(Debug, Clone)]
struct WhoAmI;

#[tool_router]
impl WhoAmI {
    #[tool(description = "Say who calls")]
    async fn who_am_i(&self, Extension(parts): Extension<Parts>) -> String {
        parts.extensions.get::<Authorized>().unwrap().subject().to_owned()
    }
}

#[tool_handler(router = Self::tool_router())]
impl ServerHandler for WhoAmI {}

// OIDCC-5.7-1, I-A7: from a client that knows nothing to a tool, through a provider; its tokens stay where they were.
#[tokio::test]
async fn a_client_reaches_a_tool_in_the_name_of_somebody_who_signed_in_at_a_provider() {
    let (listener, origin) = support::port().await;
    let url = format!("{origin}/mcp");
    let world = World::of(&url, |upstream, provider| upstream.provider(at(provider)).unwrap()).await;
    let fetcher = Fetcher::new().unwrap();
    let jwks = Endpoint::new(world.url("/jwks")).unwrap();
    let issuer = world.issuer.clone();
    let keys = KeySource::new(issuer.clone(), jwks, Arc::new(AwsLcImporter)).fetch(&fetcher).await.unwrap();
    let resource = ResourceId::new(url.as_str()).unwrap();
    let server = ResourceServer::new(resource, [TrustedIssuer::with_keys(issuer, keys)]).unwrap();
    let scopes = McpScopes::new(ScopeSet::parse("notes:read").unwrap()).unwrap();
    let layer = ResourceServerLayer::builder(server, fetcher.clone(), scopes).build().unwrap();
    let configuration = StreamableHttpServerConfig::default().with_json_response(true);
    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(|| Ok(WhoAmI), sessions, configuration);
    let router = Router::new().route_service("/mcp", service).layer(layer);
    tokio::spawn(async move { axum::serve(listener, router).await });

    let listener = CallbackListener::bind().await.unwrap();
    let client =
        Client::new(Configuration::new("A client", listener.redirect_uri("/callback").unwrap())).unwrap();
    let browser = Browser::new();
    let driver = Driver::builder(client, fetcher, listener, browser.clone())
        .pairing(OnlyIssuer(world.issuer.clone()))
        .build();
    let connection = Connection::new(driver, url).unwrap();
    let client = ().serve(AuthorizedHttp::new(connection).transport()).await.unwrap();
    let answer = client.call_tool(CallToolRequestParams::new("who_am_i")).await.unwrap();
    let text = answer.content.iter().find_map(|content| content.as_text()).unwrap().text.clone();
    assert_eq!(text, format!("{}#248289761001", world.provider.origin));
    client.cancel().await.unwrap();
    assert_eq!(world.provider.told.lock().unwrap().redeemed, 1);
    // Nothing of the provider's is kept: not with the browser, not in what happened.
    let jar = format!("{:?}", browser.jar.lock().unwrap());
    assert!(!jar.contains(CANARY) && !world.events.lock().unwrap().join("\n").contains(CANARY));
    assert!(!jar.contains("mcp-authz-sign-in"), "what the return was compared with is gone: {jar}");
}

// MCP-SBP-002, MCP-SBP-004, MCP-SBP-009, MCP-SBP-010, MCP-SBP-011, I-P3, I-P4
#[tokio::test]
async fn nobody_is_sent_to_the_provider_who_has_not_approved_it_for_this_client() {
    let world = world().await;
    let client = world.register().await;
    let browser = Browser::new();
    let page = browser.get(&world.asks(&client)).await;
    assert_eq!(page.status, StatusCode::OK);
    // Who asks, where the answer goes, and for what.
    assert!(page.body.contains("Nice &lt;script&gt;client") && page.body.contains("unverified"));
    assert!(page.body.contains(&client) && page.body.contains("a program on this computer"));
    assert!(page.body.contains("Read your notes") && page.body.contains(&world.resource));
    // Nothing that a callback could answer is there yet.
    let names: Vec<String> = browser.jar.lock().unwrap().keys().cloned().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let before = browser.jar.lock().unwrap()[&names[0]].clone();
    let sign_in = world.url("/sign-in");
    let (request, csrf) = (page.hidden("request"), page.hidden("csrf"));
    let other = Browser::new();
    let foreign = other.get(&world.asks(&client)).await.hidden("csrf");
    let another = world.asks(&world.register().await);
    let another = another.strip_prefix(world.issuer.as_str()).unwrap();
    for (request, csrf) in [
        (request.as_str(), ""),
        (&request, "AAAA"),
        (&request, foreign.as_str()),
        (another, &csrf),
        ("/grants", &csrf),
        ("//evil.example/", &csrf),
    ] {
        let pairs = [("request", request), ("csrf", csrf), ("provider", "op")];
        let answer = browser.post(&sign_in, &pairs).await;
        assert!(answer.status == StatusCode::FORBIDDEN && answer.location.is_none(), "{request} {csrf}");
    }
    assert_eq!(Browser::new().press(&page, "op").await.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.press(&page, "nobody").await.status, StatusCode::NOT_FOUND);
    assert_eq!(world.provider.visits(), 0);
    let sent = browser.press(&page, "op").await;
    let place = sent.location.unwrap();
    assert!(place.starts_with(&format!("{}/authorize?", world.provider.origin)));
    for own in ["downstream-state", client.as_str(), "notes%3Aread"] {
        assert!(!place.contains(own), "{own}");
    }
    // A nonce of its own, made after the approval.
    assert_ne!(browser.jar.lock().unwrap()[&names[0]], before);
    assert!(sent.cookies.iter().all(|cookie| cookie.contains("HttpOnly; SameSite=Lax")));
}

// I-P9: the consent page comes after, for this person in this browser; then the sign-in is remembered.
#[tokio::test]
async fn somebody_who_signed_in_is_asked_and_not_sent_away_again() {
    let world = world().await;
    let client = world.register().await;
    let browser = Browser::new();
    let consent = browser.sign_in(&world.asks(&client)).await;
    assert_eq!(consent.status, StatusCode::OK);
    assert!(consent.body.contains("Allow this application to act for you?"), "{}", consent.body);
    // The name is the provider's word, and no markup.
    assert!(consent.body.contains("Ann &lt;b&gt;Other&lt;/b&gt;") && consent.body.contains("#248289761001"));
    let done = browser.approve(&consent).await;
    let place = done.location.unwrap();
    assert!(place.starts_with(world::REDIRECT) && place.contains("state=downstream-state"), "{place}");
    let again = browser.get(&world.asks(&client)).await;
    assert!(again.body.contains("Allow this application to act for you?"));
    let grants = browser.get(&world.url("/grants")).await;
    assert!(grants.body.contains("Ann &lt;b&gt;Other&lt;/b&gt;"), "{}", grants.body);
    assert_eq!(world.provider.visits(), 1);
    // Another browser is nobody's.
    let other = Browser::new().get(&world.asks(&client)).await;
    assert!(other.body.contains("name=\"provider\""));
    // The page of what was allowed leads there, too.
    let other = Browser::new();
    let grants = other.sign_in(&world.url("/grants")).await;
    assert!(grants.body.contains("What you have allowed"), "{}", grants.body);
}

#[tokio::test]
async fn only_people_of_the_list_sign_in_and_an_empty_list_is_a_mistake() {
    let mut listed = vec!["248289761001".to_owned()];
    let world = World::of("http://127.0.0.1:8/mcp", |upstream, provider| {
        upstream.provider(at(provider).subjects(listed.drain(..))).unwrap()
    })
    .await;
    let client = world.register().await;
    let consent = Browser::new().sign_in(&world.asks(&client)).await;
    assert!(consent.body.contains("Allow this application"));
    world.provider.told.lock().unwrap().subject = "ann@example.com".to_owned();
    let refused = Browser::new().sign_in(&world.asks(&client)).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.body.contains("not among those") && refused.body.contains("ann@example.com"));
}

// I-G8
#[tokio::test]
async fn a_provider_that_lets_nobody_in_or_has_no_name_of_its_own_is_a_mistake() {
    let provider = OpenIdProvider::start().await;
    for name in ["", "Op", "a/b", "a.b", &"a".repeat(33)] {
        let issuer = Issuer::new("https://op.example").unwrap();
        let named = UpstreamProvider::new(name, issuer.clone(), ClientId::new("c").unwrap());
        assert!(matches!(named.redirect_uri(&issuer), Err(InvalidProvider::Name)), "{name}");
    }
    let fails = |providers: Vec<UpstreamProvider>| {
        providers.into_iter().try_fold(world::nowhere(), Upstream::provider).unwrap_err().to_string()
    };
    assert!(fails(vec![at(&provider).subjects([])]).contains("nobody could"));
    assert!(fails(vec![at(&provider), at(&provider)]).contains("no other provider's"));
}

// I-T4: whoever is of no provider here, or not on its list, keeps nothing that was granted.
#[tokio::test]
async fn only_people_of_a_provider_that_is_configured_and_on_its_list_are_known() {
    let provider = OpenIdProvider::start().await;
    let everybody = world::nowhere().provider(at(&provider)).unwrap();
    let one = world::nowhere().provider(at(&provider).subjects(["ann".to_owned()])).unwrap();
    let ann = format!("{}#ann", provider.origin);
    let bob = format!("{}#bob", provider.origin);
    for subject in [ann.as_str(), &bob] {
        assert_eq!(everybody.standing(subject).await, Standing::Known);
    }
    assert_eq!((one.standing(&ann).await, one.standing(&bob).await), (Standing::Known, Standing::Removed));
    for other in
        ["ann", "", "https://gone.example#ann", &provider.origin, &format!("{}0#ann", provider.origin)]
    {
        assert_eq!(everybody.standing(other).await, Standing::Removed, "{other}");
    }
    assert_eq!(world::nowhere().standing(&ann).await, Standing::Removed);
}

// The request that waits for the person survives what goes wrong elsewhere.
#[tokio::test]
async fn a_sign_in_that_failed_says_whose_fault_it_is_and_can_be_tried_again() {
    let world = world().await;
    let client = world.register().await;
    for (lie, status, words, advice) in [
        (Lie::Denies, StatusCode::FORBIDDEN, "the provider answered access_denied", "Try again."),
        (Lie::Down, StatusCode::SERVICE_UNAVAILABLE, "the server is unavailable (status 503)", "in a moment"),
        (Lie::OtherKey, StatusCode::BAD_GATEWAY, "signature does not verify", "tell the operator"),
    ] {
        world.provider.lies(lie.clone());
        let browser = Browser::new();
        let failed = browser.sign_in(&world.asks(&client)).await;
        assert_eq!(failed.status, status, "{lie:?}");
        assert!(failed.body.contains(words) && failed.body.contains(advice), "{lie:?}: {}", failed.body);
        assert!(!failed.body.contains("<b>no") && !failed.body.contains("no&lt;/b&gt;"));
        world.provider.lies(Lie::None);
        let sent = browser.press(&failed, "op").await;
        let consent = browser.follow(sent).await;
        assert!(consent.body.contains("Allow this application"), "{lie:?}: {}", consent.body);
    }
}

// A request too long for a cookie costs one more click, and signs in all the same.
#[tokio::test]
async fn a_request_too_long_for_a_cookie_is_started_once_more() {
    let world = world().await;
    let client = world.register().await;
    let long = world.asks(&client).replace("downstream-state", &"s".repeat(2000));
    let browser = Browser::new();
    let page = browser.sign_in(&long).await;
    assert!(page.body.contains("You are signed in") && page.body.contains("Start again"), "{}", page.body);
    assert!(browser.get(&long).await.body.contains("Allow this application"));
    for cookie in page.cookies {
        assert!(cookie.len() < 4096);
    }
}
