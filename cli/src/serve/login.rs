//! How people sign in: by password, at OpenID Providers, or both.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcp_authz::authorization_server::AuthorizationServer;
use mcp_authz::identifier::{ClientId, Issuer, ScopeSet};
use mcp_authz::policy::Relaxation;
use mcp_authz::secret::ClientSecret;
use mcp_authz_tokio::authorization_server::passwords::Passwords;
use mcp_authz_tokio::authorization_server::people::{LocalUser, PersonAuthentication};
use mcp_authz_tokio::authorization_server::upstream::{Upstream, UpstreamProvider};
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::sealer::{AeadSealer, derived_key};
use mcp_authz_tokio::store::Store;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::configuration::{Misconfigured, Settings};

/// The provider of the command line has this name: it is in its redirect URI.
const NAME: &str = "oidc";

/// An OpenID Provider on the command line; a file says more.
#[derive(Debug, clap::Args)]
pub(crate) struct LoginOptions {
    /// Let people sign in at the OpenID Provider of this issuer; its redirect URI here is ISSUER/sign-in/oidc.
    #[arg(long, value_name = "ISSUER", requires = "login_client_id")]
    login_oidc: Option<String>,
    /// This server's client identifier at that provider.
    #[arg(long, value_name = "ID", requires = "login_oidc")]
    login_client_id: Option<String>,
    /// A file with this server's client secret there, readable by its owner only.
    #[arg(long, value_name = "FILE", requires = "login_oidc")]
    login_client_secret_file: Option<PathBuf>,
}

/// An OpenID Provider of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    name: String,
    issuer: String,
    client_id: String,
    client_secret_file: Option<PathBuf>,
    #[serde(default = "profile")]
    scopes: Vec<String>,
    subjects: Option<Vec<String>>,
    #[serde(default)]
    relax: Vec<String>,
}

/// A name to show.
fn profile() -> Vec<String> {
    vec!["profile".to_owned()]
}

impl LoginOptions {
    /// The provider, if one is named.
    pub(super) fn login(self) -> Option<Login> {
        Some(Login {
            name: NAME.to_owned(),
            issuer: self.login_oidc?,
            client_id: self.login_client_id?,
            client_secret_file: self.login_client_secret_file,
            scopes: profile(),
            subjects: None,
            relax: Vec::new(),
        })
    }
}

/// A fault of the file, at that provider.
fn wrong(name: &str, what: &str, error: &dyn std::fmt::Display) -> Misconfigured {
    Misconfigured(format!("login {name:?}: {what}: {error}"))
}

impl Login {
    fn provider(&self) -> Result<UpstreamProvider, Misconfigured> {
        let wrong = |what: &'static str| {
            let name = self.name.clone();
            move |error: &dyn std::fmt::Display| wrong(&name, what, error)
        };
        let issuer = Issuer::new(self.issuer.as_str()).map_err(|error| wrong("issuer")(&error))?;
        let client_id = ClientId::new(self.client_id.as_str()).map_err(|error| wrong("client_id")(&error))?;
        let scopes = ScopeSet::parse(&self.scopes.join(" "));
        let scopes = if self.scopes.is_empty() { Ok(ScopeSet::new()) } else { scopes };
        let scopes = scopes.map_err(|error| wrong("scopes")(&error))?;
        let relaxations: Result<Vec<Relaxation>, _> = self.relax.iter().map(|text| text.parse()).collect();
        let relaxations = relaxations.map_err(|error| wrong("relax")(&error))?;
        let policy = crate::policy::of(&relaxations).map_err(|error| wrong("relax")(&error))?;
        let provider =
            UpstreamProvider::new(self.name.as_str(), issuer, client_id).scopes(scopes).policy(policy);
        let provider = match &self.client_secret_file {
            None => provider,
            Some(file) => provider.secret(secret(file).map_err(|error| wrong("client_secret_file")(&error))?),
        };
        Ok(match &self.subjects {
            None => provider,
            Some(subjects) => provider.subjects(subjects.iter().cloned()),
        })
    }
}

/// The one line of a file that nobody else reads.
fn secret(file: &Path) -> Result<ClientSecret, Misconfigured> {
    let named = |error: &dyn std::fmt::Display| Misconfigured(format!("{}: {error}", file.display()));
    #[cfg(unix)]
    {
        let metadata = std::fs::metadata(file).map_err(|error| named(&error))?;
        if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0 {
            return Err(named(&"it is readable by others: chmod 600 it"));
        }
    }
    let text = Zeroizing::new(std::fs::read_to_string(file).map_err(|error| named(&error))?);
    ClientSecret::new(text.trim_end_matches(['\r', '\n'])).map_err(|error| named(&error))
}

/// Who may sign in to that server, and how.
pub(super) fn people(
    settings: &Settings,
    master: &[u8; 32],
    server: &AuthorizationServer,
    store: Arc<dyn Store>,
    fetcher: &Fetcher,
) -> Result<Arc<dyn PersonAuthentication>, Misconfigured> {
    if let Some(user) = &settings.auto_approve {
        let user = LocalUser::automatic(user.as_str());
        return Ok(Arc::new(user.ok_or_else(|| Misconfigured("the person has no name".to_owned()))?));
    }
    let secure = settings.issuer.starts_with("https://");
    let sealer = Arc::new(AeadSealer::new(*derived_key(master, b"mcp-authz sessions 1")));
    let users = settings.user.iter().map(|user| (user.name.clone(), user.password_hash.clone()));
    let passwords = || Passwords::new(users, Arc::clone(&store), sealer.clone(), secure);
    let invalid = |error: &dyn std::fmt::Display| Misconfigured(error.to_string());
    if settings.login.is_empty() {
        return Ok(Arc::new(passwords().map_err(|error| invalid(&error))?));
    }
    let mut upstream = Upstream::new(server.clone(), Arc::clone(&store), sealer.clone(), fetcher.clone());
    for login in &settings.login {
        let provider = login.provider()?;
        let redirect_uri = provider.redirect_uri(server.issuer());
        let redirect_uri = redirect_uri.map_err(|error| wrong(&login.name, "name", &error))?;
        tracing::info!(provider = %login.issuer, %redirect_uri, "people sign in there; it must know this redirect URI");
        upstream = upstream.provider(provider).map_err(|error| wrong(&login.name, "login", &error))?;
    }
    if settings.user.is_empty() {
        return Ok(Arc::new(upstream));
    }
    Ok(Arc::new(upstream.beside(Arc::new(passwords().map_err(|error| invalid(&error))?))))
}
