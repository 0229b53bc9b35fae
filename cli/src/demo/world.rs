//! The parties on free loopback ports: an authorization server over SQLite, two MCP servers, and clients that are
//! told nothing but an MCP server's URL.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use mcp_authz::authorization_server::{
    AuthorizationServer, Configuration, KnownResource, RegistrationPolicy,
};
use mcp_authz::client::{Client, Configuration as ClientConfiguration};
use mcp_authz::identifier::{Endpoint, Issuer, ResourceId, Scope, ScopeSet};
use mcp_authz::jose::Algorithm;
use mcp_authz::resource_server::{ResourceServer, TrustedIssuer};
use mcp_authz::syntax::form::Form;
use mcp_authz_tokio::CoreTime;
use mcp_authz_tokio::authorization_server::AuthorizationServerHost;
use mcp_authz_tokio::authorization_server::people::LocalUser;
use mcp_authz_tokio::client::callback::CallbackListener;
use mcp_authz_tokio::client::driver::Driver;
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::client::pairing::OnlyIssuer;
use mcp_authz_tokio::client::user_agent::UserAgent;
use mcp_authz_tokio::keys::{AwsLcImporter, SigningKey};
use mcp_authz_tokio::resource_server::{KeySource, McpScopes, ResourceServerLayer};
use mcp_authz_tokio::store::sqlite::SqliteStore;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::event::Party;
use super::notes;
use super::witness::{Witness, path_of};

/// What setting up can fail with.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// The servers, as long as this lives.
pub(super) struct World {
    pub(super) witness: Witness,
    pub(super) core: CoreTime,
    pub(super) http: reqwest::Client,
    /// The MCP server that the story is about.
    pub(super) notes_url: String,
    /// Another one of the same authorization server.
    pub(super) calendar_url: String,
    issuer: Issuer,
    fetcher: Fetcher,
    store: SqliteStore,
    servers: JoinSet<()>,
    directory: tempfile::TempDir,
}

impl World {
    /// Starts everything.
    pub(super) async fn start(witness: Witness) -> Result<Self, Failure> {
        let directory = tempfile::Builder::new().prefix("mcp-authz-demo-").tempdir()?;
        let store = SqliteStore::open(directory.path().join("authorization-server.db")).await?;
        let fetcher = Fetcher::new()?;
        let core = CoreTime::default();
        let (issuer_port, notes_port, calendar_port) = (port().await?, port().await?, port().await?);
        let issuer = Issuer::new(format!("http://{}", issuer_port.local_addr()?))?;
        let notes_url = format!("http://{}/mcp", notes_port.local_addr()?);
        let calendar_url = format!("http://{}/mcp", calendar_port.local_addr()?);

        let key = SigningKey::generate(Algorithm::EdDsa)?;
        let known = |url: &str, scopes: &[(&str, &str)]| -> Result<KnownResource, Failure> {
            let scopes = scopes.iter().map(|(scope, words)| Ok((Scope::new(*scope)?, (*words).to_owned())));
            Ok(KnownResource::new(ResourceId::new(url)?, scopes.collect::<Result<Vec<_>, Failure>>()?))
        };
        let resources = vec![
            known(&notes_url, &[("notes:read", "Read your notes"), ("notes:write", "Add notes")])?,
            known(&calendar_url, &[("events:read", "Read your calendar")])?,
        ];
        let configuration = Configuration::new(issuer.clone(), resources, key.id())
            .registration(RegistrationPolicy::Open)
            .metadata_documents(false);
        let observer = witness.clone();
        let people = LocalUser::with_page("alice").ok_or("nobody has no name")?;
        let host = AuthorizationServerHost::new(
            AuthorizationServer::new(configuration)?,
            Arc::new(store.clone()),
            Arc::new(key),
            Arc::new(people),
            fetcher.clone(),
        )
        .core_time(core.clone())
        .observer(move |event| observer.authorization(&event));
        let mut servers = JoinSet::new();
        let pages = from_fn_with_state(witness.clone(), seen);
        serve(&mut servers, issuer_port, host.router().layer(pages));

        let mut world = Self {
            witness,
            core,
            http: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .timeout(Duration::from_secs(10))
                .build()?,
            notes_url,
            calendar_url,
            issuer,
            fetcher,
            store,
            servers,
            directory,
        };
        let notes = world.layer(&world.issuer, &world.notes_url, "notes:read", &["notes:write"]).await?;
        let calendar = world.layer(&world.issuer, &world.calendar_url, "events:read", &[]).await?;
        serve(&mut world.servers, notes_port, notes::router(notes));
        serve(&mut world.servers, calendar_port, notes::router(calendar));
        Ok(world)
    }

    /// The layer before an MCP server, which fetches the issuer's keys once at the start.
    async fn layer(
        &self,
        issuer: &Issuer,
        url: &str,
        base: &str,
        write: &[&str],
    ) -> Result<ResourceServerLayer, Failure> {
        let jwks = Endpoint::new(format!("{issuer}/jwks"))?;
        let source = KeySource::new(issuer.clone(), jwks, Arc::new(AwsLcImporter));
        let keys = source.fetch(&self.fetcher).await?;
        let server =
            ResourceServer::new(ResourceId::new(url)?, [TrustedIssuer::with_keys(issuer.clone(), keys)])?;
        let mut scopes = McpScopes::new(ScopeSet::parse(base)?)?;
        for write in write {
            scopes = scopes.tool("add_note", ScopeSet::parse(write)?)?;
        }
        let observer = self.witness.clone();
        Ok(ResourceServerLayer::builder(server, self.fetcher.clone(), scopes)
            .core_time(self.core.clone())
            .observer(move |event| observer.resource(&event))
            .build()?)
    }

    /// A client of its own, with its own listener, that sends the person to this user agent.
    pub(super) async fn client(&self, agent: impl UserAgent, patience: Duration) -> Result<Driver, Failure> {
        let listener = CallbackListener::bind().await?;
        let redirect_uri = listener.redirect_uri("/callback")?;
        let client = Client::new(ClientConfiguration::new("mcp-authz demo", redirect_uri))?;
        let observer = self.witness.clone();
        Ok(Driver::builder(client, self.fetcher.clone(), listener, agent)
            .core_time(self.core.clone())
            .patience(patience)
            .pairing(OnlyIssuer(self.issuer.clone()))
            .observer(move |event| observer.client(&event))
            .build())
    }

    /// Stops the servers and removes the store's file.
    pub(super) async fn stop(mut self) {
        self.servers.shutdown().await;
        self.store.close().await;
        // A file that cannot be removed is in the system's directory for temporary ones.
        let _ = self.directory.close();
    }
}

async fn port() -> std::io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", 0)).await
}

fn serve(servers: &mut JoinSet<()>, listener: TcpListener, router: Router) {
    servers.spawn(async move {
        // It ends only with the demonstration.
        let _ = axum::serve(listener, router).await;
    });
}

/// Sees what browsers ask the authorization server and are answered, and counts token requests.
async fn seen(State(witness): State<Witness>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    if path == "/token" {
        let mut facts = witness.facts();
        facts.token_requests = facts.token_requests.saturating_add(1);
    }
    if !matches!(path.as_str(), "/authorize" | "/sign-in" | "/decision") {
        return next.run(request).await;
    }
    let (browser, server) = (Party::Browser, Party::AuthorizationServer);
    let form = request.uri().query().and_then(|query| Form::parse(query.as_bytes()).ok());
    let asks = form.map_or_else(String::new, |form| {
        let redirect = form.get("redirect_uri").map(path_of).unwrap_or_default();
        let scope = form.get("scope").map(|scope| format!(", {scope}")).unwrap_or_default();
        format!(", back to {redirect}{scope}")
    });
    witness.recorder.message(browser, server, format!("{} {path}{asks}", request.method()));
    let (head, body) = next.run(request).await.into_parts();
    let body = to_bytes(body, 256 * 1024).await.unwrap_or_default();
    let status = head.status.as_u16();
    let to = head.headers.get(LOCATION).and_then(|to| to.to_str().ok());
    let what = match to {
        Some(to) if to.starts_with('/') => format!("{status} to {}", path_of(to)),
        Some(to) => format!("{status} to {} with {}", path_of(to), names(to)),
        None => format!("{status} page \u{201c}{}\u{201d}", title(&body)),
    };
    witness.recorder.message(server, browser, what);
    Response::from_parts(head, Body::from(body))
}

/// The names of the parameters, never their values.
fn names(url: &str) -> String {
    let form = url.split_once('?').and_then(|(_, query)| Form::parse(query.as_bytes()).ok());
    form.map(|form| form.names().collect::<Vec<_>>().join(", ")).unwrap_or_default()
}

fn title(page: &[u8]) -> String {
    let page = String::from_utf8_lossy(page);
    let title = page.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    title.map(|(title, _)| title.to_owned()).unwrap_or_default()
}
