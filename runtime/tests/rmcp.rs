//! An `rmcp` client over a [`Connection`], against an `rmcp` server behind the resource-server layer: neither knows that
//! there is authorization.
#![cfg(all(feature = "aws-lc-rs", feature = "rmcp"))]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use mcp_authz::client::{Client, Configuration};
use mcp_authz::identifier::{Endpoint, ResourceId, ScopeSet};
use mcp_authz::resource_server::{ResourceServer, TrustedIssuer};
use mcp_authz_tokio::client::callback::CallbackListener;
use mcp_authz_tokio::client::connection::Connection;
use mcp_authz_tokio::client::driver::Driver;
use mcp_authz_tokio::client::event::ClientEvent;
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::client::pairing::WhateverTheResourceNames;
use mcp_authz_tokio::client::rmcp::AuthorizedHttp;
use mcp_authz_tokio::keys::AwsLcImporter;
use mcp_authz_tokio::resource_server::{KeySource, McpScopes, ResourceServerLayer};
use rmcp::model::CallToolRequestParams;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, ServiceExt as _, tool, tool_handler, tool_router};

#[derive(Debug, Clone)]
struct Notes;

#[tool_router]
impl Notes {
    #[tool(description = "Read the notes")]
    async fn read_notes(&self) -> String {
        "buy milk".to_owned()
    }

    #[tool(description = "Clear the notes")]
    async fn clear_notes(&self) -> String {
        "cleared".to_owned()
    }
}

#[tool_handler(router = Self::tool_router())]
impl ServerHandler for Notes {}

struct World {
    connection: Connection,
    logins: Arc<AtomicUsize>,
}

async fn world(sessions: bool, json: bool) -> World {
    let (listener, origin) = support::port().await;
    let url = format!("{origin}/mcp");
    let issuer = support::authorization_server(&url, &["notes:read", "notes:write"]).await;
    let fetcher = Fetcher::new().unwrap();
    let jwks = Endpoint::new(format!("{issuer}/jwks")).unwrap();
    let keys = KeySource::new(issuer.clone(), jwks, Arc::new(AwsLcImporter)).fetch(&fetcher).await.unwrap();
    let resource = ResourceId::new(url.as_str()).unwrap();
    let server = ResourceServer::new(resource, [TrustedIssuer::with_keys(issuer, keys)]).unwrap();
    let scopes = McpScopes::new(ScopeSet::parse("notes:read").unwrap())
        .unwrap()
        .tool("clear_notes", ScopeSet::parse("notes:write").unwrap())
        .unwrap();
    let layer = ResourceServerLayer::builder(server, fetcher.clone(), scopes).build().unwrap();
    let configuration =
        StreamableHttpServerConfig::default().with_legacy_session_mode(sessions).with_json_response(json);
    let service =
        StreamableHttpService::new(|| Ok(Notes), Arc::new(LocalSessionManager::default()), configuration);
    let router = Router::new().route_service("/mcp", service).layer(layer);
    tokio::spawn(async move { axum::serve(listener, router).await });

    let listener = CallbackListener::bind().await.unwrap();
    let client =
        Client::new(Configuration::new("A client", listener.redirect_uri("/callback").unwrap())).unwrap();
    let logins = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&logins);
    let driver = Driver::builder(client, fetcher, listener, support::Allowing::new())
        .pairing(WhateverTheResourceNames)
        .observer(move |event: ClientEvent<'_>| {
            if matches!(event, ClientEvent::OpeningUserAgent(_)) {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        })
        .build();
    World { connection: Connection::new(driver, url).unwrap(), logins }
}

fn text(result: &rmcp::model::CallToolResult) -> String {
    result.content.iter().filter_map(|content| content.as_text()).map(|text| text.text.clone()).collect()
}

#[tokio::test]
async fn an_rmcp_client_logs_in_steps_up_and_knows_nothing_of_it() {
    // With the sessions and event streams of earlier revisions, and without.
    for (sessions, json) in [(false, true), (true, false), (false, false)] {
        let world = world(sessions, json).await;
        let client = ().serve(AuthorizedHttp::new(world.connection.clone()).transport()).await.unwrap();
        let tools = client.list_all_tools().await.unwrap();
        assert_eq!(tools.len(), 2);
        assert_eq!(world.logins.load(Ordering::SeqCst), 1);
        let read = client.call_tool(CallToolRequestParams::new("read_notes")).await.unwrap();
        assert_eq!(text(&read), "buy milk");
        let cleared = client.call_tool(CallToolRequestParams::new("clear_notes")).await.unwrap();
        assert_eq!(text(&cleared), "cleared");
        assert_eq!(world.logins.load(Ordering::SeqCst), 2);
        assert_eq!(world.connection.scopes().to_string(), "notes:read notes:write");
        client.cancel().await.unwrap();
    }
}

#[tokio::test]
async fn no_token_goes_to_another_url_and_none_but_the_connections() {
    let world = world(false, true).await;
    let elsewhere = StreamableHttpClientTransportConfig::with_uri("http://127.0.0.1:1/mcp");
    let transport = AuthorizedHttp::new(world.connection.clone()).transport_with(elsewhere);
    let refused = ().serve(transport).await.unwrap_err();
    assert!(format!("{refused:?}").contains("OtherUrl"), "{refused:?}");
    let own = StreamableHttpClientTransportConfig::with_uri(world.connection.url()).auth_header("own-token");
    let transport = AuthorizedHttp::new(world.connection.clone()).transport_with(own);
    let refused = ().serve(transport).await.unwrap_err();
    assert!(format!("{refused:?}").contains("OwnToken"), "{refused:?}");
    assert_eq!(world.logins.load(Ordering::SeqCst), 0);
}
