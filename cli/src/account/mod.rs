//! The commands of one person at an MCP server: `login`, `token`, `logout`, and what `bridge` shares with them.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mcp_authz::client::{Client, Configuration, PreRegistered};
use mcp_authz::error::{Error, HostMisuse, OutsideFailed, Remedy};
use mcp_authz::identifier::{ClientId, ClientMetadataUrl, Issuer, ResourceId, ScopeSet};
use mcp_authz::policy::{Policy, Relaxation};
use mcp_authz::revision::Revision;
use mcp_authz::secret::ClientSecret;
use mcp_authz_tokio::client::callback::CallbackListener;
use mcp_authz_tokio::client::connection::{Connection, SendError};
use mcp_authz_tokio::client::credentials::{FileStore, KeyPlace, KeySource, default_directory};
use mcp_authz_tokio::client::driver::{Driver, LoginError};
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::text::{OwnText, TerminalText};

use zeroize::Zeroizing;

use person::Person;
use word::PersonsWord;

use crate::{FAILED, REFUSED, policy};

pub(crate) mod login;
pub(crate) mod logout;
mod person;
pub(crate) mod token;
mod word;

/// The name under which this tool registers itself and keeps what is secret.
pub(crate) const APPLICATION: &str = "mcp-authz";

/// Why a command came to nothing.
pub(crate) type Failure = Box<dyn StdError + Send + Sync>;

/// One MCP server, and how to log in there.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerOptions {
    /// URL of the MCP server.
    url: String,
    /// Log in at this authorization server, one of those the MCP server names. It is your word that it is this MCP server's;
    /// one on the MCP server's own origin needs none, and for any other `login` asks you at the terminal.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Use this client, registered by hand at --issuer.
    #[arg(long, value_name = "ID", requires = "issuer")]
    client_id: Option<String>,
    /// Read the secret of --client-id from this file.
    #[arg(long, value_name = "FILE", requires = "client_id")]
    client_secret_file: Option<PathBuf>,
    /// Ask for these scopes at most, separated by spaces; with --client-id.
    #[arg(long, value_name = "SCOPES", requires = "client_id")]
    scopes: Option<String>,
    /// Use the client metadata document published at this URL where the authorization server reads such documents.
    #[arg(long, value_name = "URL")]
    client_metadata: Option<String>,
    /// Let one rule go for one server, as an error names it: for example `AssumeS256=https://as.example`.
    #[arg(long, value_name = "NAME=URL")]
    relax: Vec<Relaxation>,
    /// Revision of MCP the server keeps to.
    #[arg(long, default_value_t, value_name = "REVISION")]
    revision: Revision,
    /// Directory of the credentials; yours on this system without it.
    #[arg(long, value_name = "DIRECTORY", env = "MCP_AUTHZ_STORE")]
    store: Option<PathBuf>,
    /// Keep the key of the credentials in a file, also where there is a keychain.
    #[arg(long)]
    no_keychain: bool,
    /// Port of 127.0.0.1 that the browser comes back to; a free one without it.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    callback_port: u16,
    /// Print the page's address instead of opening a browser.
    #[arg(long)]
    no_browser: bool,
    /// Seconds to wait for you in the browser.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u64,
}

/// Everything a command needs.
pub(crate) struct Account {
    pub(crate) driver: Driver,
    pub(crate) connection: Connection,
    pub(crate) server: ResourceId,
    directory: PathBuf,
    key: KeyPlace,
}

impl ServerOptions {
    /// Opens the store, and gets ready to log in. `ask` says whether the person sits at the terminal: to paste an address, and
    /// to say which authorization server is meant.
    pub(crate) async fn open(&self, ask: bool) -> Result<Account, Failure> {
        let server = ResourceId::from_server_url(&self.url).map_err(|_| {
            format!("“{}” is not the URL of an MCP server: it begins with https://, or with http:// on this machine",
                TerminalText(&self.url))
        })?;
        let policy = policy::of(&self.relax)?;
        let fetcher = Fetcher::builder().policy(&policy).build()?;
        let issuer = self.issuer()?;
        let listener = self.listener(&policy, issuer.as_ref()).await?;
        let mut configuration = Configuration::new(APPLICATION, listener.redirect_uri("/callback")?)
            .policy(policy)
            .revision(self.revision);
        if let Some(url) = &self.client_metadata {
            let url = ClientMetadataUrl::new(url.as_str())
                .map_err(|error| format!("--client-metadata {}: {error}", TerminalText(url)))?;
            configuration = configuration.metadata_document(url);
        }
        if let Some(issuer) = &issuer
            && let Some(identity) = self.identity(issuer, &listener, &server)?
        {
            configuration = configuration.pre_registered(identity);
        }
        let directory = match &self.store {
            Some(directory) => directory.clone(),
            None => default_directory(APPLICATION)
                .ok_or("the environment names no home directory: say where with --store DIRECTORY")?,
        };
        let source = if self.no_keychain { KeySource::File } else { KeySource::system(APPLICATION) };
        let (store, key) = FileStore::open(directory.clone(), source).await?;
        let person = Person::new(self.no_browser, ask);
        let driver =
            Driver::builder_over(Arc::new(store), Client::new(configuration)?, fetcher, listener, person)
                .patience(Duration::from_secs(self.patience))
                .pairing(PersonsWord::new(issuer, ask))
                .build();
        let connection = Connection::new(driver.clone(), self.url.as_str())?;
        Ok(Account { driver, connection, server, directory, key })
    }

    /// The listener for the browser: where an authorization server has to be told certain ports or the name `localhost`,
    /// there.
    async fn listener(&self, policy: &Policy, issuer: Option<&Issuer>) -> Result<CallbackListener, Failure> {
        let mut known = policy.relaxations().filter_map(|relaxation| match relaxation {
            Relaxation::LoopbackRedirect(redirect) => Some(redirect),
            _ => None,
        });
        let redirect = match issuer {
            Some(issuer) => policy.loopback_redirect(issuer),
            None => known.next(),
        };
        if issuer.is_none() && known.next().is_some() {
            return Err(
                "LoopbackRedirect is named for several servers: say which is meant with --issuer".into()
            );
        }
        if let Some(redirect) = redirect
            && self.callback_port == 0
        {
            return Ok(CallbackListener::bind_as(redirect).await.map_err(|error| {
                format!("none of the ports of LoopbackRedirect can be listened on: {error}")
            })?);
        }
        let bound = CallbackListener::bind_port(self.callback_port).await;
        Ok(bound.map_err(|error| {
            format!("port {} of 127.0.0.1 cannot be listened on: {error}", self.callback_port)
        })?)
    }

    fn issuer(&self) -> Result<Option<Issuer>, Failure> {
        let parsed = self.issuer.as_deref().map(Issuer::new).transpose();
        parsed.map_err(|_| "--issuer: an issuer is an https:// URL without query and fragment".into())
    }

    /// The client that was registered by hand at that issuer.
    fn identity(
        &self,
        issuer: &Issuer,
        listener: &CallbackListener,
        server: &ResourceId,
    ) -> Result<Option<PreRegistered>, Failure> {
        let Some(client_id) = &self.client_id else { return Ok(None) };
        let client_id = ClientId::new(client_id.as_str()).map_err(|error| format!("--client-id: {error}"))?;
        // A path of its own: a hand-made registration shares its redirect URI with no other server (D29).
        let redirect_uri = listener.redirect_uri("/registered")?;
        let mut identity = PreRegistered::new(issuer.clone(), client_id, redirect_uri, [server.clone()]);
        if let Some(file) = &self.client_secret_file {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
            let text = Zeroizing::new(text);
            let secret = ClientSecret::new(text.trim_end_matches(['\r', '\n']))
                .map_err(|_| format!("{} holds no client secret", file.display()))?;
            identity = identity.secret(secret);
        }
        if let Some(scopes) = &self.scopes {
            let scopes = ScopeSet::parse(scopes)
                .map_err(|_| "--scopes: scopes are words separated by single spaces")?;
            identity = identity.scopes(scopes);
        }
        Ok(Some(identity))
    }
}

/// Runs a command to its end.
pub(crate) fn block_on(command: impl Future<Output = Result<ExitCode, Failure>>, name: &str) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mcp-authz {name}: {error}");
            return FAILED.into();
        }
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = command => ended,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        }
    });
    // A thread that reads the terminal cannot be stopped: it is left behind.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("mcp-authz {name}: {}", OwnText(&failure.to_string()));
            if let Some(advice) = advice(&failure) {
                eprintln!("  {advice}");
            }
            code_of(&failure).into()
        }
    }
}

/// The core's error in a failure, if it has one.
fn core_error(failure: &Failure) -> Option<&Error> {
    let login = match failure.downcast_ref::<SendError>() {
        Some(SendError::Denied(error)) => return Some(error),
        Some(SendError::Login(error)) => Some(error),
        Some(_) => None,
        None => failure.downcast_ref::<LoginError>(),
    };
    match login {
        Some(LoginError::Core(error) | LoginError::Rejected(error)) => Some(error),
        _ => failure.downcast_ref::<Error>(),
    }
}

/// Why there was no login, if that is what failed.
fn login_error(failure: &Failure) -> Option<&LoginError> {
    match failure.downcast_ref::<SendError>() {
        Some(SendError::Login(error)) => Some(error),
        _ => failure.downcast_ref::<LoginError>(),
    }
}

fn code_of(failure: &Failure) -> u8 {
    let refused = |error: &LoginError| {
        matches!(error, LoginError::Refused(_) | LoginError::NoIssuer | LoginError::NoIdentity)
    };
    let login = login_error(failure);
    match core_error(failure) {
        Some(Error::Peer(_) | Error::Incompatible(_) | Error::Host(HostMisuse::IssuerNotAsserted)) => REFUSED,
        _ if login.is_some_and(refused) => REFUSED,
        _ => FAILED,
    }
}

/// What the person can do about it, as an option of this tool.
fn advice(failure: &Failure) -> Option<String> {
    if let Some(LoginError::NoIdentity) = login_error(failure) {
        return Some(
            "It registers nobody by itself. Have this tool registered there by hand, and name what you get with --client-id and \
             --issuer; or publish what `mcp-authz client-metadata` prints, and name its URL with --client-metadata, if that \
             server reads such documents."
                .to_owned(),
        );
    }
    let error = core_error(failure)?;
    if matches!(error, Error::Host(HostMisuse::ForeignRecord) | Error::Outside(OutsideFailed::Sealer(_))) {
        return Some("Give the options you logged in with, or log in again with these.".to_owned());
    }
    match error.remedy() {
        Remedy::RetryAfter(wait) => Some(format!("Try again in {} s.", wait.as_secs().max(1))),
        Remedy::Vouch => {
            Some("If that authorization server is this MCP server's, say so with --issuer URL.".to_owned())
        }
        Remedy::Reauthorize => Some("Log in again with `mcp-authz login`.".to_owned()),
        Remedy::Reregister => {
            Some("Log out with `mcp-authz logout --forget-client`, then log in again.".to_owned())
        }
        Remedy::Relax(relaxation) => Some(format!(
            "If you trust this server all the same, let the rule go with --relax '{}'.",
            OwnText(&relaxation.to_string())
        )),
        Remedy::StateRevision(revision) => {
            Some(format!("If the server is of an older revision, say so with --revision {revision}."))
        }
        _ => None,
    }
}
