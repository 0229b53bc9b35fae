//! The parts a server is made of, from what it was told.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcp_authz::authorization_server::grace::{GraceKey, RefreshGrace};
use mcp_authz::authorization_server::record::{ClientCredential, ClientRecord, SecretMethod};
use mcp_authz::authorization_server::{
    AuthorizationServer, Configuration, DocumentHosts, KnownResource, Lifetimes, PushedRequests,
    RegistrationPolicy,
};
use mcp_authz::entropy::Entropy as _;
use mcp_authz::identifier::{ClientId, ResourceId, Scope, ScopeSet};
use mcp_authz::jose::{Algorithm, SigningKeyId};
use mcp_authz::secret::SecretDigest;
use mcp_authz::syntax::base64url;
use mcp_authz::time::{Duration, OffsetDateTime};
use mcp_authz_tokio::authorization_server::DocumentCaching;
use mcp_authz_tokio::entropy::OsEntropy;
use mcp_authz_tokio::sealer::derived_key;
use mcp_authz_tokio::store::memory::MemoryStore;
use mcp_authz_tokio::store::postgres::PostgresStore;
use mcp_authz_tokio::store::sqlite::SqliteStore;
use mcp_authz_tokio::store::{AdministeredStore, Bounds};
use zeroize::Zeroizing;

use super::configuration::{Misconfigured, Registration, Settings};

/// The environment variable with the master key.
const MASTER_KEY: &str = "MCP_AUTHZ_MASTER_KEY";

fn wrong(
    what: impl std::fmt::Display,
) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Misconfigured {
    move |error| Misconfigured(format!("{what}: {error}"))
}

/// The store, opened.
pub(super) async fn store(url: &str, bounds: Bounds) -> Result<Arc<dyn AdministeredStore>, Misconfigured> {
    if url == "memory" {
        return Ok(Arc::new(MemoryStore::new().bounds(bounds)));
    }
    if let Some(file) = url.strip_prefix("sqlite:") {
        let opened = SqliteStore::open(file).await;
        return Ok(Arc::new(opened.map_err(|error| wrong(url)(error.into()))?.bounds(bounds)));
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        // The URL may hold a password: it is not repeated.
        let opened = PostgresStore::open(url).await;
        return Ok(Arc::new(opened.map_err(|error| wrong("the store")(error.into()))?.bounds(bounds)));
    }
    Err(Misconfigured("the store must be memory, sqlite:FILE or postgres://USER@HOST/DATABASE".to_owned()))
}

/// The file in which a server notes how far that store has counted.
pub(super) fn witness(settings: &Settings) -> Option<PathBuf> {
    if settings.store == "memory" {
        return None;
    }
    let name = SecretDigest::of(place(&settings.store).as_bytes());
    let name = base64url::encode(name.as_bytes().get(..9).unwrap_or_default());
    Some(settings.state_directory.join(format!("mcp-authz-{name}.incarnation")))
}

/// Where the store is, whoever opens it: neither name nor password are part of it.
fn place(store: &str) -> String {
    let Some(mut url) = reqwest::Url::parse(store).ok().filter(reqwest::Url::has_host) else {
        return store.to_owned();
    };
    let is_place = |name: &str| !matches!(name, "user" | "password");
    let query: Vec<(String, String)> =
        url.query_pairs().into_owned().filter(|(name, _)| is_place(name)).collect();
    url.set_query(None);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    // Neither fails where there is a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// Warns where the note of how far the store has counted lies with the store: who restores a copy of the folder restores both,
/// and nothing is noticed.
pub(super) fn warn_of_one_place(settings: &Settings) {
    if is_one_place(settings) {
        tracing::warn!(
            state_directory = ?settings.state_directory,
            "the state directory is the database's own: whoever restores a copy of it restores both, and an old store is not \
             noticed; name another one in the configuration (state_directory), which no backup brings back"
        );
    }
}

fn is_one_place(settings: &Settings) -> bool {
    let Some(file) = settings.store.strip_prefix("sqlite:") else { return false };
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let real = |folder: &Path| {
        fs::canonicalize(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }).ok()
    };
    real(folder).is_some_and(|folder| real(&settings.state_directory) == Some(folder))
}

/// The master key: of the file, of the environment, or for a store in memory one that ends with the process.
pub(super) fn master_key(settings: &Settings) -> Result<Zeroizing<[u8; 32]>, Misconfigured> {
    if let Some(file) = &settings.master_key {
        return key_file(file);
    }
    if let Ok(text) = std::env::var(MASTER_KEY) {
        let bytes = Zeroizing::new(base64url::decode(text.trim()).unwrap_or_default());
        return bytes
            .as_slice()
            .try_into()
            .map(Zeroizing::new)
            .map_err(|_| Misconfigured(format!("{MASTER_KEY} must be 32 bytes in base64url")));
    }
    if settings.store == "memory" {
        return fresh_key();
    }
    Err(Misconfigured(format!("name a file for the master key with --master-key, or set {MASTER_KEY}")))
}

fn fresh_key() -> Result<Zeroizing<[u8; 32]>, Misconfigured> {
    let mut key = Zeroizing::new([0_u8; 32]);
    OsEntropy
        .fill(key.as_mut_slice())
        .map_err(|_| Misconfigured("the operating system gives no randomness".to_owned()))?;
    Ok(key)
}

fn key_file(file: &Path) -> Result<Zeroizing<[u8; 32]>, Misconfigured> {
    let named = || format!("the master key file {}", file.display());
    if !file.exists() {
        // Whole or not at all, and no other's: processes may begin together.
        let key = fresh_key()?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut new| {
            new.write_all(key.as_slice())?;
            new.as_file().sync_all()?;
            Ok(new)
        });
        let new = written.map_err(|error| wrong(named())(error.into()))?;
        match new.persist_noclobber(file) {
            Ok(_) => return Ok(key),
            Err(refused) if refused.error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(refused) => return Err(wrong(named())(refused.error.into())),
        }
    }
    let metadata = fs::metadata(file).map_err(|error| wrong(named())(error.into()))?;
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0 {
        return Err(Misconfigured(format!("{} is readable by others: chmod 600 it", named())));
    }
    let bytes = Zeroizing::new(fs::read(file).map_err(|error| wrong(named())(error.into()))?);
    let key = bytes.as_slice().try_into().map(Zeroizing::new);
    key.map_err(|_| Misconfigured(format!("{} must hold exactly 32 bytes", named())))
}

/// The signing algorithm.
pub(super) fn algorithm(settings: &Settings) -> Result<Algorithm, Misconfigured> {
    // RFC9068-2.1-2
    match settings.signing_algorithm.as_str() {
        "EdDSA" => Ok(Algorithm::EdDsa),
        "ES256" => Ok(Algorithm::Es256),
        "RS256" => Ok(Algorithm::Rs256),
        other => {
            Err(Misconfigured(format!("signing_algorithm must be EdDSA, ES256 or RS256, not {other:?}")))
        }
    }
}

fn digest(text: &str, what: &str) -> Result<SecretDigest, Misconfigured> {
    let bytes = base64url::decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes
        .map(SecretDigest::from_bytes)
        .ok_or_else(|| Misconfigured(format!("{what} must be a SHA-256 in base64url")))
}

fn scopes(names: &[String]) -> Result<ScopeSet, Misconfigured> {
    names.iter().map(|name| scope(name)).collect()
}

fn scope(name: &str) -> Result<Scope, Misconfigured> {
    Scope::new(name).map_err(|error| Misconfigured(format!("scope {name:?}: {error}")))
}

/// The server's configuration, and the resource servers that introspect.
pub(super) fn server(
    settings: &Settings,
    master: &[u8; 32],
    now: OffsetDateTime,
) -> Result<(AuthorizationServer, Vec<ClientRecord>), Misconfigured> {
    let issuer = settings.issuer()?;
    let (mut resources, mut introspectors) = (Vec::new(), Vec::new());
    for resource in &settings.resource {
        let named =
            |error: &dyn std::fmt::Display| Misconfigured(format!("resource {:?}: {error}", resource.id));
        let id = ResourceId::new(resource.id.as_str()).map_err(|error| named(&error))?;
        let words = resource.scopes.iter().map(|(name, words)| Ok((scope(name)?, words.clone())));
        let mut known = KnownResource::new(id, words.collect::<Result<Vec<_>, Misconfigured>>()?)
            .default_scopes(scopes(&resource.default_scopes)?)
            .risky_scopes(scopes(&resource.risky_scopes)?);
        match (&resource.introspection_client, &resource.introspection_secret_digest) {
            (Some(client), Some(secret)) => {
                let client = ClientId::new(client.as_str()).map_err(|error| named(&error))?;
                let digest = digest(secret, "introspection_secret_digest")?;
                let credential =
                    ClientCredential::Secret { method: SecretMethod::Basic, digest, expires: None };
                let record = ClientRecord::resource_server(client.clone(), credential, now)
                    .ok_or_else(|| named(&"introspection_client must not be a URL"))?;
                // One server may stand before many resources, as itself (I-G8).
                let same = introspectors.iter().find(|known: &&ClientRecord| known.client_id == client);
                match same {
                    None => introspectors.push(record),
                    Some(same) if same.credential == record.credential => {}
                    Some(_) => {
                        return Err(named(&format_args!(
                            "introspection_client {:?} has another introspection_secret_digest at another resource",
                            client.as_str()
                        )));
                    }
                }
                known = if resource.opaque_tokens {
                    known.opaque_tokens(client)
                } else {
                    known.introspected_by(client)
                };
            }
            (None, None) if !resource.opaque_tokens => {}
            _ => {
                return Err(named(
                    &"opaque tokens need introspection_client, and that needs introspection_secret_digest",
                ));
            }
        }
        resources.push(known);
    }
    let registration = match settings.registration {
        Registration::Open => RegistrationPolicy::Open,
        Registration::Closed => RegistrationPolicy::Closed,
        Registration::Token => {
            let digests = settings.initial_access_token_digests.iter();
            let digests = digests.map(|text| digest(text, "initial_access_token_digests"));
            RegistrationPolicy::InitialAccessToken(digests.collect::<Result<_, _>>()?)
        }
    };
    let pushed = match (settings.pushed_requests, settings.require_pushed_requests) {
        (_, true) => PushedRequests::Required,
        (true, false) => PushedRequests::Offered,
        (false, false) => PushedRequests::Off,
    };
    // The key ring names the key of each token; this one only says that there is one.
    let key = SigningKeyId::new("the key ring's", algorithm(settings)?);
    let lifetimes = Lifetimes {
        access_token: Duration::seconds(settings.access_token_seconds.get()),
        refresh_idle: Duration::days(settings.refresh_idle_days.get()),
        family: Duration::days(settings.grant_days.get()),
        stale_document: Duration::days(settings.document_cache.stale_days.get()),
        ..Lifetimes::default()
    };
    let mut configuration = Configuration::new(issuer, resources, key)
        .lifetimes(lifetimes)
        .registration(registration)
        .managed_registrations(settings.managed_registrations)
        .public_clients(settings.public_clients)
        .metadata_documents(settings.metadata_documents)
        .pushed_requests(pushed);
    if let Some(hosts) = &settings.document_hosts {
        let hosts = DocumentHosts::parse(hosts.iter().map(String::as_str));
        let hosts = hosts.map_err(|error| Misconfigured(format!("document_hosts: {error}")))?;
        configuration = configuration.document_hosts(hosts);
    }
    if let Some(resource) = &settings.default_resource {
        let id = ResourceId::new(resource.as_str())
            .map_err(|error| Misconfigured(format!("default_resource: {error}")))?;
        configuration = configuration.default_resource(id);
    }
    if let Some(grace) = &settings.refresh_grace {
        let key = GraceKey::new(*derived_key(master, b"mcp-authz refresh grace 1"));
        let grace = RefreshGrace::new(Duration::seconds(grace.seconds.get()), grace.repeats, key);
        configuration = configuration
            .refresh_grace(grace.map_err(|error| Misconfigured(format!("refresh_grace: {error}")))?);
    }
    let server = AuthorizationServer::new(configuration).map_err(|error| Misconfigured(error.to_string()))?;
    Ok((server, introspectors))
}

/// For how long documents of clients are used.
pub(super) fn document_caching(settings: &Settings) -> Result<DocumentCaching, Misconfigured> {
    let seconds = |n| std::time::Duration::from_secs(n);
    let cache = settings.document_cache;
    DocumentCaching::within(seconds(cache.least_seconds), seconds(cache.most_seconds)).ok_or_else(|| {
        Misconfigured(
            "document_cache: the least is a second or more, and the most no less, up to a week".to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{Settings, is_one_place, place, witness};

    // I-G7: the name of a file is no secret, and a new password makes no new store.
    #[test]
    fn a_store_is_known_by_its_place_and_not_by_who_opens_it() {
        let of = |store: &str| witness(&Settings { store: store.to_owned(), ..Settings::default() });
        let plain = of("postgres://db.example/authz?sslmode=require");
        for same in [
            "postgres://ann@db.example/authz?sslmode=require",
            "postgres://ann:secret@db.example/authz?sslmode=require",
            "postgres://bob:other@db.example/authz?user=x&sslmode=require&password=y",
        ] {
            assert_eq!(of(same), plain, "{same}");
        }
        for other in [
            "postgres://db.example/other?sslmode=require",
            "postgres://other.example/authz?sslmode=require",
            "sqlite:authz.db",
        ] {
            assert_ne!(of(other), plain, "{other}");
        }
        assert_eq!(place("sqlite:some file.db"), "sqlite:some file.db");
        assert!(!place("postgres://ann:secret@db.example/authz").contains("secret"));
        assert_eq!(of("memory"), None);
    }

    #[test]
    fn a_state_directory_beside_the_database_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("state")).unwrap();
        let database = folder.path().join("authz.db");
        let of = |state: &std::path::Path| {
            let store = format!("sqlite:{}", database.display());
            is_one_place(&Settings { store, state_directory: state.to_owned(), ..Settings::default() })
        };
        assert!(of(folder.path()) && of(&folder.path().join("state/..")));
        assert!(!of(&folder.path().join("state")) && !of(&folder.path().join("gone")));
    }
}
