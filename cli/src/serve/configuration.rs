//! What the server is told: options of the command line over a file.
//!
//! The file is TOML; `mcp-authz serve --example-configuration` prints one with every option and its meaning.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use mcp_authz::identifier::Issuer;
use mcp_authz_tokio::store::Bounds;
use serde::Deserialize;

use super::file::{Within, parse};
use super::login::{Login, LoginOptions};

/// A file with every option, as documentation: the tests read it.
pub(super) const EXAMPLE: &str = include_str!("example.toml");

/// What can be said on the command line; each of it wins over the file.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Read the configuration from this file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The issuer: the URL under which clients and browsers reach this server.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where to serve the metrics, apart from everything else, such as 127.0.0.1:9464; nowhere unless named.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// The certificate chain for TLS, as PEM.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its private key, as PEM. Both files are read again at SIGHUP.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// A proxy with TLS before this server, as an address or a network such as 10.0.0.0/8. Repeatable.
    #[arg(long, value_name = "CIDR")]
    trusted_proxy: Vec<String>,
    /// Where to keep everything: memory, sqlite:FILE or postgres://USER@HOST/DATABASE.
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// An MCP server to issue tokens for, with the one scope "mcp"; a file says more. Repeatable.
    #[arg(long, value_name = "URL")]
    resource: Vec<String>,
    /// A client's registration as JSON, with its client_id and, if it has one, its client_secret. Repeatable.
    #[arg(long, value_name = "FILE")]
    client: Vec<PathBuf>,
    /// A person who may sign in, with the hash that `hash-password` printed. Repeatable.
    #[arg(long, value_name = "NAME:HASH")]
    user: Vec<String>,
    #[command(flatten)]
    login: LoginOptions,
    /// A file of 32 random bytes, readable by its owner only, that seals the signing keys. Made if it is not there.
    #[arg(long, value_name = "FILE")]
    master_key: Option<PathBuf>,
    /// Who may register clients: open, closed or token.
    #[arg(long, value_name = "WHO")]
    registration: Option<Registration>,
    /// Log one JSON object a line.
    #[arg(long)]
    json_log: bool,
    /// FOR TESTS ONLY: everybody is this person, and every request is approved without a question.
    #[arg(long, value_name = "USER")]
    dangerously_auto_approve: Option<String>,
}

/// Who may register a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Registration {
    /// Everybody, within the rate limit.
    Open,
    /// Nobody.
    Closed,
    /// Who has one of the configured tokens.
    Token,
}

/// A resource of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resource {
    pub(crate) id: String,
    pub(crate) scopes: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) default_scopes: Vec<String>,
    #[serde(default)]
    pub(crate) risky_scopes: Vec<String>,
    #[serde(default)]
    pub(crate) opaque_tokens: bool,
    pub(crate) introspection_client: Option<String>,
    /// The SHA-256 of the introspection client's secret, in base64url.
    pub(crate) introspection_secret_digest: Option<String>,
}

/// A person of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) password_hash: String,
}

/// The grace for lost answers to a refresh.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grace {
    pub(crate) seconds: Within<1, 60>,
    pub(crate) repeats: u32,
}

/// Requests a minute.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    pub(crate) registrations: NonZeroU32,
    pub(crate) authorizations: NonZeroU32,
    pub(crate) token_requests: NonZeroU32,
    pub(crate) tokens_per_client: NonZeroU32,
    pub(crate) pages_per_person: NonZeroUsize,
}

/// For how long clients' metadata documents are used.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DocumentCache {
    pub(crate) least_seconds: u64,
    pub(crate) most_seconds: u64,
    pub(crate) stale_days: Within<1, 30>,
}

impl Default for DocumentCache {
    fn default() -> Self {
        Self { least_seconds: 300, most_seconds: 86_400, stale_days: Within::of::<7>() }
    }
}

const fn requests<const NUMBER: u32>() -> NonZeroU32 {
    const { assert!(NUMBER > 0) }
    NonZeroU32::MIN.saturating_add(NUMBER.saturating_sub(1))
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            registrations: requests::<10>(),
            authorizations: requests::<60>(),
            token_requests: requests::<600>(),
            tokens_per_client: requests::<6000>(),
            pages_per_person: NonZeroUsize::new(Bounds::default().decisions_of_a_person)
                .unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// Everything, from file and command line.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    pub(crate) issuer: String,
    pub(crate) listen: SocketAddr,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) store: String,
    pub(crate) state_directory: PathBuf,
    pub(crate) master_key: Option<PathBuf>,
    pub(crate) signing_algorithm: String,
    pub(crate) signing_key_days: Within<1, 3650>,
    pub(crate) registration: Registration,
    pub(crate) initial_access_token_digests: Vec<String>,
    pub(crate) managed_registrations: bool,
    pub(crate) public_clients: bool,
    pub(crate) metadata_documents: bool,
    pub(crate) document_hosts: Option<Vec<String>>,
    pub(crate) document_cache: DocumentCache,
    pub(crate) pushed_requests: bool,
    pub(crate) require_pushed_requests: bool,
    pub(crate) default_resource: Option<String>,
    pub(crate) refresh_grace: Option<Grace>,
    pub(crate) access_token_seconds: Within<1, 900>,
    pub(crate) refresh_idle_days: Within<1, 400>,
    pub(crate) grant_days: Within<1, 400>,
    pub(crate) allowed_origins: Vec<String>,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) json_log: bool,
    pub(crate) client: Vec<PathBuf>,
    pub(crate) resource: Vec<Resource>,
    pub(crate) user: Vec<User>,
    pub(crate) login: Vec<Login>,
    #[serde(skip)]
    pub(crate) auto_approve: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            metrics_listen: None,
            tls_cert: None,
            tls_key: None,
            store: "sqlite:mcp-authz.db".to_owned(),
            state_directory: PathBuf::from("."),
            master_key: None,
            signing_algorithm: "EdDSA".to_owned(),
            signing_key_days: Within::of::<30>(),
            registration: Registration::Closed,
            initial_access_token_digests: Vec::new(),
            managed_registrations: true,
            public_clients: true,
            metadata_documents: true,
            document_hosts: None,
            document_cache: DocumentCache::default(),
            pushed_requests: true,
            require_pushed_requests: false,
            default_resource: None,
            refresh_grace: None,
            access_token_seconds: Within::of::<300>(),
            refresh_idle_days: Within::of::<14>(),
            grant_days: Within::of::<90>(),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            limits: Limits::default(),
            json_log: false,
            client: Vec::new(),
            resource: Vec::new(),
            user: Vec::new(),
            login: Vec::new(),
            auto_approve: None,
        }
    }
}

/// Why there is no configuration.
#[derive(Debug)]
pub(crate) struct Misconfigured(pub(crate) String);

impl std::fmt::Display for Misconfigured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misconfigured {}

impl Options {
    /// The file with the command line over it.
    pub(crate) fn settings(self) -> Result<Settings, Misconfigured> {
        let mut settings = match &self.config {
            None => Settings::default(),
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| Misconfigured(format!("{} cannot be read: {error}", file.display())))?;
                parse(&text).map_err(|error| Misconfigured(format!("{}: {error}", file.display())))?
            }
        };
        if let Some(issuer) = self.issuer {
            settings.issuer = issuer;
        }
        settings.listen = self.listen.unwrap_or(settings.listen);
        settings.metrics_listen = self.metrics_listen.or(settings.metrics_listen);
        settings.tls_cert = self.tls_cert.or(settings.tls_cert);
        settings.tls_key = self.tls_key.or(settings.tls_key);
        settings.trusted_proxies.extend(self.trusted_proxy);
        if let Some(store) = self.store {
            settings.store = store;
        }
        settings.master_key = self.master_key.or(settings.master_key);
        settings.registration = self.registration.unwrap_or(settings.registration);
        settings.json_log |= self.json_log;
        settings.client.extend(self.client);
        for id in self.resource {
            let words = format!("Use {id} for you");
            settings.resource.push(Resource {
                id,
                scopes: [("mcp".to_owned(), words)].into(),
                default_scopes: vec!["mcp".to_owned()],
                risky_scopes: Vec::new(),
                opaque_tokens: false,
                introspection_client: None,
                introspection_secret_digest: None,
            });
        }
        for user in self.user {
            let (name, password_hash) =
                user.split_once(':').ok_or_else(|| Misconfigured("--user must be NAME:HASH".to_owned()))?;
            settings.user.push(User { name: name.to_owned(), password_hash: password_hash.to_owned() });
        }
        settings.login.extend(self.login.login());
        settings.auto_approve = self.dangerously_auto_approve;
        Ok(settings)
    }
}

impl Limits {
    /// How much may wait in the store.
    pub(crate) fn bounds(&self) -> Bounds {
        let mut bounds = Bounds::default();
        bounds.decisions_of_a_person = self.pages_per_person.get();
        bounds
    }
}

impl Settings {
    /// The issuer, which a server and its keys have, and a look into a store does not need.
    pub(crate) fn issuer(&self) -> Result<Issuer, Misconfigured> {
        if self.issuer.is_empty() {
            return Err(Misconfigured("name the issuer, in the file or with --issuer".to_owned()));
        }
        Issuer::new(self.issuer.as_str())
            .map_err(|error| Misconfigured(format!("issuer {:?}: {error}", self.issuer)))
    }
}

#[cfg(test)]
mod tests {
    use super::{EXAMPLE, Settings, parse};

    #[test]
    fn the_example_is_a_configuration_and_names_every_option() {
        let settings: Settings = parse(EXAMPLE).unwrap();
        assert_eq!(settings.issuer, "https://auth.example.com");
        // Every name of the settings stands in the example, so that each option is documented.
        let shown = format!("{:#?}", Settings::default());
        for line in shown.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     ")) {
            let Some((name, _)) = line.trim().split_once(':') else { continue };
            assert!(name == "auto_approve" || EXAMPLE.contains(name), "the example has no {name}");
        }
    }

    #[test]
    fn an_option_that_nobody_knows_is_refused() {
        assert!(parse::<Settings>("isuer = \"https://x\"").is_err());
        assert!(parse::<Settings>("[[resource]]\nid = \"https://x\"\nscopes = {}\nscope = 1").is_err());
        assert!(parse::<Settings>("registration = \"everyone\"").is_err());
    }
}
