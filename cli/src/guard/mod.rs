//! `mcp-authz guard`: the resource server as a reverse proxy before an MCP server that knows nothing of authorization.
//!
//! Whoever reaches the server behind it was authorized here: the inbound token is gone, and fields say who it is. That
//! holds only while the server behind is reached through the guard alone.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use ipnet::IpNet;
use mcp_authz::identifier::{Endpoint, InvalidIdentifier, Issuer, Network, Origin, ResourceId, ScopeSet};
use mcp_authz::resource_server::{KeyPlaceFailure, ResourceServer, TokenProfile, TrustedIssuer};
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::keys::AwsLcImporter;
use mcp_authz_tokio::resource_server::{KeySource, McpScopes, ResourceServerLayer};

use proxy::Upstream;

use crate::listener::{self, Terms, told_to_stop};
use crate::network::proxies;

mod proxy;

type Failure = Box<dyn Error + Send + Sync>;

/// What the guard is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The MCP server behind: where requests go once they are authorized.
    #[arg(long, value_name = "URL")]
    upstream: String,
    /// The identifier of the resource, as clients know it: the public URL of the MCP server.
    #[arg(long, value_name = "URL")]
    resource: String,
    /// The authorization server whose signed tokens are taken.
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// Where that server publishes its keys, if its metadata does not say.
    #[arg(long, value_name = "URL")]
    jwks: Option<String>,
    /// A private network in which the authorization server and its keys may lie: ADDRESS/PREFIX. Can be repeated.
    #[arg(long, value_name = "NETWORK")]
    private_network: Vec<Network>,
    /// Where to listen. TLS belongs before it.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8088")]
    listen: SocketAddr,
    /// The proxy with TLS before it, as an address or a network such as 10.0.0.0/8: it may open more connections than others.
    /// Where the guard listens on loopback, whoever reaches it may. Can be repeated.
    #[arg(long, value_name = "CIDR", value_parser = proxies)]
    trusted_proxy: Vec<IpNet>,
    /// The scopes every request needs, separated by spaces.
    #[arg(long, value_name = "SCOPES")]
    scope: Option<String>,
    /// What a call of one tool needs besides: NAME=SCOPES. Can be repeated.
    #[arg(long, value_name = "NAME=SCOPES")]
    tool: Vec<String>,
    /// What one JSON-RPC method needs besides: NAME=SCOPES. Can be repeated.
    #[arg(long, value_name = "NAME=SCOPES")]
    method: Vec<String>,
    /// How the issuer writes its tokens, if not by RFC 9068.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Profile::Rfc9068)]
    profile: Profile,
    /// An audience that is accepted instead of the resource's identifier. Can be repeated.
    #[arg(long, value_name = "TEXT")]
    audience: Vec<String>,
    /// A host that requests are addressed to, instead of the resource's: as it stands in the Host field. Can be repeated.
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// A web origin whose pages may call. Can be repeated.
    #[arg(long, value_name = "ORIGIN")]
    origin: Vec<String>,
}

/// The profiles of tokens that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Profile {
    Rfc9068,
    EntraV2,
    Okta,
    Auth0,
    Keycloak,
}

impl Profile {
    fn of_tokens(self) -> TokenProfile {
        match self {
            Self::Rfc9068 => TokenProfile::rfc9068(),
            Self::EntraV2 => TokenProfile::entra_v2(),
            Self::Okta => TokenProfile::okta(),
            Self::Auth0 => TokenProfile::auth0(),
            Self::Keycloak => TokenProfile::keycloak(),
        }
    }
}

/// Runs it until it is interrupted.
pub(crate) fn run(options: &Options) -> ExitCode {
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(serve(options)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mcp-authz guard: {error}");
            crate::FAILED.into()
        }
    }
}

async fn serve(options: &Options) -> Result<(), Failure> {
    let fetcher = Fetcher::builder().private_networks(options.private_network.iter().copied()).build()?;
    let server = server(options)?;
    let scopes = scopes(options)?;
    let upstream = Upstream::new(
        Endpoint::new(&*options.upstream).map_err(of("--upstream"))?,
        server.resource().clone(),
    )?;
    let keys = keys(options, &fetcher).await?;
    let listening = tokio::net::TcpListener::bind(options.listen).await?;
    let mut said = format!(
        "guarding {} at {}, before {}\nclients find {} and get their tokens from {}\n",
        server.resource(),
        listening.local_addr()?,
        upstream.endpoint(),
        server.metadata_url(),
        options.issuer,
    );
    for relaxation in server.relaxations() {
        let _ = writeln!(said, "relaxed: {relaxation:?}");
    }
    // Nobody has to read it: a closed pipe does not stop the guard.
    let _ = std::io::stdout().write_all(said.as_bytes());
    let layer = ResourceServerLayer::builder(server, fetcher, scopes).refresh_keys(keys).build()?;
    let router = Router::new().fallback(move |request| upstream.clone().pass(request)).layer(layer);
    listener::serve(listening, None, terms(options), router, told_to_stop()).await;
    Ok(())
}

/// Whose connections are counted: not those of the proxy, which are everybody's.
fn terms(options: &Options) -> Terms {
    let on_loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].map(IpNet::from);
    let inside = options.listen.ip().is_loopback().then_some(on_loopback).into_iter().flatten();
    Terms::new(options.trusted_proxy.iter().copied().chain(inside).collect())
}

/// Names the option at fault.
fn of(option: &'static str) -> impl Fn(InvalidIdentifier) -> Failure {
    move |fault| format!("{option}: {fault}").into()
}

fn server(options: &Options) -> Result<ResourceServer, Failure> {
    let mut trusted = TrustedIssuer::awaiting_keys(Issuer::new(&*options.issuer).map_err(of("--issuer"))?)
        .with_profile(options.profile.of_tokens());
    if !options.audience.is_empty() {
        trusted = trusted.accepting_audiences(options.audience.iter().cloned())?;
    }
    let mut server =
        ResourceServer::new(ResourceId::new(&*options.resource).map_err(of("--resource"))?, [trusted])?;
    if !options.host.is_empty() {
        server = server.with_hosts(options.host.iter().cloned())?;
    }
    let origins = options.origin.iter().map(|origin| Origin::new(&**origin));
    server = server.with_origins(origins.collect::<Result<Vec<_>, _>>()?);
    let all = [&options.scope.clone().into_iter().collect(), &options.tool, &options.method];
    let all = all
        .into_iter()
        .flatten()
        .map(|text| text.split_once('=').map_or(text.as_str(), |(_, scopes)| scopes));
    let mut known = ScopeSet::new();
    for scopes in all {
        known = known.union(&ScopeSet::parse(scopes)?);
    }
    if !known.is_empty() {
        server = server.with_scopes_supported(known)?;
    }
    Ok(server)
}

fn scopes(options: &Options) -> Result<McpScopes, Failure> {
    let parsed = |text: &str| ScopeSet::parse(text).map_err(Failure::from);
    let pair = |text: &str| {
        let (name, scopes) = text.split_once('=').ok_or("write NAME=SCOPES")?;
        Ok::<_, Failure>((name.to_owned(), parsed(scopes)?))
    };
    let base = options.scope.as_deref().map_or(Ok(ScopeSet::new()), parsed)?;
    let mut needed = McpScopes::new(base)?;
    for tool in &options.tool {
        let (name, scopes) = pair(tool)?;
        needed = needed.tool(&name, scopes)?;
    }
    for method in &options.method {
        let (name, scopes) = pair(method)?;
        needed = needed.method(&name, scopes)?;
    }
    Ok(needed)
}

async fn keys(options: &Options, fetcher: &Fetcher) -> Result<KeySource, Failure> {
    let (issuer, importer) =
        (Issuer::new(&*options.issuer).map_err(of("--issuer"))?, Arc::new(AwsLcImporter));
    let inside = !options.private_network.is_empty();
    let unfound = |error: KeyPlaceFailure| {
        format!("the keys of {} cannot be found: {error}; --jwks says where they are", options.issuer)
    };
    Ok(match &options.jwks {
        Some(place) if inside => {
            KeySource::new(issuer, Endpoint::new(&**place).map_err(of("--jwks"))?, importer)
                .on_private_networks()
        }
        Some(place) => KeySource::new(issuer, Endpoint::new(&**place).map_err(of("--jwks"))?, importer),
        None if inside => {
            KeySource::discover_on_private_networks(issuer, fetcher, importer).await.map_err(unfound)?
        }
        None => KeySource::discover(issuer, fetcher, importer).await.map_err(unfound)?,
    })
}
