//! What an operator does to a store: list and end grants, list and remove clients, rotate keys, own up to a restored copy.

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::Arc;

use mcp_authz::authorization_server::record::{ClientRecord, FamilyId};
use mcp_authz::authorization_server::store::{RevocationTarget, RevokeAll};
use mcp_authz::entropy::Entropy as _;
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::syntax::base64url;
use mcp_authz::time::Duration;
use mcp_authz_tokio::authorization_server::key_ring::KeyRing;
use mcp_authz_tokio::authorization_server::people::is_of_a_provider;
use mcp_authz_tokio::clock::{Clock as _, SystemClock};
use mcp_authz_tokio::entropy::OsEntropy;
use mcp_authz_tokio::sealer::AeadSealer;
use mcp_authz_tokio::store::witness::Witness;
use mcp_authz_tokio::store::{AdministeredStore, GrantsOf};
use mcp_authz_tokio::text::TerminalText;
use zeroize::Zeroizing;

use super::configuration::{Misconfigured, Options, Settings};
use super::{clients, parts};

/// Lists or ends grants.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Grants {
    /// Lists the grants that stand.
    List {
        /// Only this person's.
        #[arg(long)]
        subject: Option<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Ends everything that a person granted, or that a client was granted, or what one granted the other.
    Revoke {
        /// The person. Named without a client, they are signed out everywhere as well.
        #[arg(long)]
        subject: Option<String>,
        /// The client.
        #[arg(long)]
        client_id: Option<String>,
        #[command(flatten)]
        options: Options,
    },
}

/// How a client that is added authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Method {
    /// By nothing: an application on a person's device.
    None,
    /// By a secret in the Authorization field.
    ClientSecretBasic,
    /// By a secret in the form.
    ClientSecretPost,
    /// By assertions that it signs.
    PrivateKeyJwt,
}

impl Method {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
        }
    }
}

/// A client to add.
#[derive(Debug, clap::Args)]
pub(crate) struct NewClient {
    /// The name that people see on the consent page.
    #[arg(long)]
    name: String,
    /// Where answers go: https, or http on loopback. Repeatable.
    #[arg(long, value_name = "URL", required = true)]
    redirect_uri: Vec<String>,
    /// How it authenticates at the token endpoint.
    #[arg(long, value_enum, default_value_t = Method::None)]
    method: Method,
    /// The scopes it may ask for, separated by spaces; left out, every scope.
    #[arg(long, value_name = "SCOPES")]
    scope: Option<String>,
    /// Where its public keys stand, for private_key_jwt.
    #[arg(long, value_name = "URL")]
    jwks_uri: Option<String>,
    /// Do not let it have refresh tokens.
    #[arg(long)]
    no_refresh: bool,
}

/// Adds, lists or removes clients.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Clients {
    /// Adds a client of the operator's, and prints its identifier and, once, its secret.
    Add {
        #[command(flatten)]
        client: NewClient,
        #[command(flatten)]
        options: Options,
    },
    /// Lists the clients.
    List {
        #[command(flatten)]
        options: Options,
    },
    /// Removes a client and ends its grants.
    Remove {
        /// The client.
        client_id: String,
        #[command(flatten)]
        options: Options,
    },
}

/// Rotates the signing keys.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Keys {
    /// Publishes a new key, which signs as soon as every cached key set has it.
    Rotate {
        /// Let it sign at once, after a leak, and delete every key of before: tokens of the new one are refused until resource
        /// servers fetch the key set again, tokens of the old ones from then on.
        #[arg(long)]
        at_once: bool,
        #[command(flatten)]
        options: Options,
    },
}

/// Speaks of the store itself.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Stores {
    /// Says that an older copy of the store was restored: ends everything that was granted, with the signing keys and the
    /// clients that were not yours, so that it can be served.
    Restored {
        #[command(flatten)]
        options: Options,
    },
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn say(line: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

async fn opened(options: Options) -> Result<(Settings, Arc<dyn AdministeredStore>), Misconfigured> {
    let settings = options.settings()?;
    if settings.store == "memory" {
        return Err(Misconfigured(
            "a store in memory is known to the server's own process alone: name the store with --store or --config"
                .to_owned(),
        ));
    }
    let store = parts::store(&settings.store, settings.limits.bounds()).await?;
    Ok((settings, store))
}

pub(super) async fn grants(command: Grants) -> Result<(), Failure> {
    match command {
        Grants::List { subject, options } => {
            let (_, store) = opened(options).await?;
            let mut after = None;
            loop {
                let of = subject.as_deref().map_or(GrantsOf::All, GrantsOf::Subject);
                let page = store.list_grants(of, after).await?;
                let Some(last) = page.last() else { return Ok(()) };
                after = Some(last.family);
                for grant in page {
                    say(format_args!(
                        "{}  {}  {}  {}  until {}",
                        TerminalText(&grant.subject),
                        TerminalText(grant.client_id.as_str()),
                        TerminalText(grant.resource.as_str()),
                        TerminalText(&grant.scope.to_string()),
                        grant.not_after.date()
                    ))?;
                }
            }
        }
        Grants::Revoke { subject, client_id, options } => {
            let client_id = client_id.map(ClientId::new).transpose()?;
            let target = match (subject, client_id) {
                (Some(subject), Some(client_id)) => RevocationTarget::Consent { subject, client_id },
                (Some(subject), None) => RevocationTarget::Subject(subject),
                (None, Some(client_id)) => RevocationTarget::Client(client_id),
                // Nothing named never means everything (I-G8).
                (None, None) => {
                    return Err(Misconfigured("name --subject, --client-id or both".to_owned()).into());
                }
            };
            let is_person = matches!(target, RevocationTarget::Subject(_));
            let (_, store) = opened(options).await?;
            let _revoked = store.revoke_all(RevokeAll::of(target)).await?;
            say(format_args!(
                "Nothing of it stands any longer, whatever there was. Signed access tokens live on for a few minutes, until they expire."
            ))?;
            if is_person {
                say(format_args!(
                    "Whoever was signed in as this person is signed out everywhere, and can sign in again with the password or at \
                     the provider: a new password, or taking the person out of the configuration, ends that with the next start. \
                     A server with --dangerously-auto-approve asks nobody to sign in, and signs nobody out."
                ))?;
            }
            Ok(())
        }
    }
}

pub(super) async fn clients(command: Clients) -> Result<(), Failure> {
    match command {
        Clients::Add { client, options } => {
            let (record, secret) = added(&client)?;
            let (_, store) = opened(options).await?;
            let id = record.client_id.clone();
            store.put_client(record).await?;
            say(format_args!("client_id: {id}"))?;
            match secret {
                Some(secret) => say(format_args!(
                    "client_secret: {}\nThe secret is not kept here and not shown again.",
                    secret.as_str()
                )),
                None => Ok(()),
            }
        }
        Clients::List { options } => {
            let (_, store) = opened(options).await?;
            let mut after: Option<ClientId> = None;
            loop {
                let page = store.list_clients(after.as_ref()).await?;
                let Some(last) = page.last() else { return Ok(()) };
                after = Some(last.client_id.clone());
                for client in page {
                    say(format_args!(
                        "{}  {}  {}  since {}",
                        TerminalText(client.client_id.as_str()),
                        client.credential.method(),
                        TerminalText(client.metadata.client_name.as_deref().unwrap_or("(no name)")),
                        client.created.date()
                    ))?;
                }
            }
        }
        Clients::Remove { client_id, options } => {
            let (_, store) = opened(options).await?;
            if store.remove_client(&ClientId::new(client_id)?).await? {
                say(format_args!("Removed, and its grants ended."))
            } else {
                Err(Misconfigured("there is no such client".to_owned()).into())
            }
        }
    }
}

/// Ends the clients that stood in the configuration of an earlier start and stand in this one no longer. What the operator added
/// by command stays.
pub(super) async fn end_clients_taken_out(
    store: &dyn AdministeredStore,
    configured: &[ClientRecord],
) -> Result<(), Failure> {
    let mut after: Option<ClientId> = None;
    loop {
        let page = store.list_clients(after.as_ref()).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.client_id.clone());
        let were = page.iter().filter(|client| client.configured);
        // I-T4
        for client in were.filter(|client| configured.iter().all(|known| known.client_id != client.client_id))
        {
            store.remove_client(&client.client_id).await?;
            tracing::warn!(
                client_id = %TerminalText(client.client_id.as_str()),
                "this client stands in the configuration no longer: it is removed, and what it was granted has ended"
            );
        }
    }
}

/// Ends for good what people of this server's own allowed who stand in its configuration no longer: whoever gets the name next
/// must not come into it. Until then it is withheld, and what people of a provider allowed always is.
///
/// It looks at every grant and every remembered consent that stands, so it runs beside the server. Somebody of whom neither is
/// left is not found, and has nothing but sessions, which count in no process that was started with this configuration.
pub(super) async fn end_people_taken_out(
    store: &dyn AdministeredStore,
    configured: &HashSet<String>,
) -> Result<(), Failure> {
    let mut seen = HashSet::new();
    let mut after: Option<FamilyId> = None;
    loop {
        let page = store.list_grants(GrantsOf::All, after).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.family);
        let subjects = page.iter().map(|grant| &grant.subject);
        end_those_gone(store, configured, &mut seen, subjects).await?;
    }
    let mut after: Option<SecretDigest> = None;
    loop {
        let page = store.list_consents(GrantsOf::All, after).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.key());
        let subjects = page.iter().map(|consent| &consent.subject);
        end_those_gone(store, configured, &mut seen, subjects).await?;
    }
}

/// Ends what those allowed who are this server's own, stand in its configuration no longer, and were not seen before.
async fn end_those_gone<'a>(
    store: &dyn AdministeredStore,
    configured: &HashSet<String>,
    seen: &mut HashSet<Arc<str>>,
    subjects: impl Iterator<Item = &'a Arc<str>>,
) -> Result<(), Failure> {
    let gone = subjects.filter(|subject| !is_of_a_provider(subject) && !configured.contains(&***subject));
    for subject in gone {
        if !seen.insert(Arc::clone(subject)) {
            continue;
        }
        // I-T4
        let _revoked =
            store.revoke_all(RevokeAll::of(RevocationTarget::Subject(subject.to_string()))).await?;
        tracing::warn!(
            subject = %TerminalText(subject),
            "this person stands in the configuration no longer: what they allowed has ended, and so have their sessions"
        );
    }
    Ok(())
}

/// 256 random bits as text.
fn drawn() -> Result<Zeroizing<String>, Failure> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    OsEntropy.fill(bytes.as_mut_slice())?;
    Ok(Zeroizing::new(base64url::encode(bytes.as_slice())))
}

/// The record of a new client, under a fresh identifier, and its secret if it has one.
fn added(client: &NewClient) -> Result<(ClientRecord, Option<Zeroizing<String>>), Failure> {
    // I-G10: so many bits that no identifier is another's and no secret is guessed.
    let id = ClientId::draw(&mut OsEntropy)?;
    let has_secret = matches!(client.method, Method::ClientSecretBasic | Method::ClientSecretPost);
    let secret = has_secret.then(drawn).transpose()?;
    let mut grants = vec!["authorization_code"];
    if !client.no_refresh {
        grants.push("refresh_token");
    }
    let json = serde_json::json!({
        "client_id": id.as_str(),
        "client_name": client.name,
        "redirect_uris": client.redirect_uri,
        "token_endpoint_auth_method": client.method.as_str(),
        "grant_types": grants,
    });
    let serde_json::Value::Object(mut json) = json else {
        return Err(Misconfigured("the client is no object".to_owned()).into());
    };
    for (name, value) in [
        ("scope", client.scope.as_deref()),
        ("jwks_uri", client.jwks_uri.as_deref()),
        ("client_secret", secret.as_ref().map(|secret| secret.as_str())),
    ] {
        if let Some(value) = value {
            json.insert(name.to_owned(), value.into());
        }
    }
    let json = Zeroizing::new(serde_json::to_vec(&json)?);
    Ok((clients::client_of(&json, "the client", SystemClock.now())?, secret))
}

/// The signing keys of a store.
pub(super) fn key_ring(
    settings: &Settings,
    master: &[u8; 32],
    store: Arc<dyn AdministeredStore>,
) -> Result<KeyRing, Misconfigured> {
    let issuer = settings.issuer()?;
    let lifetime = Duration::days(settings.signing_key_days.get());
    let sealer = Arc::new(AeadSealer::new(*master));
    Ok(KeyRing::new(store, sealer, issuer, parts::algorithm(settings)?, lifetime))
}

pub(super) async fn keys(command: Keys) -> Result<(), Failure> {
    let Keys::Rotate { at_once, options } = command;
    let (settings, store) = opened(options).await?;
    let ring = key_ring(&settings, &*parts::master_key(&settings)?, store)?;
    let published = ring.publish().await?;
    if at_once {
        if !ring.promote_at_once().await? {
            return Err(
                Misconfigured("another process rotated the keys meanwhile: try again".to_owned()).into()
            );
        }
        return say(format_args!(
            "A new key signs, and no key of before is in the key set any longer. Servers that run take that up within a minute, \
             resource servers when they fetch the key set again: it may be cached for five minutes."
        ));
    }
    if published {
        say(format_args!("A new key is published, and signs in a few minutes."))
    } else {
        say(format_args!("A new key was published before, and signs in a few minutes."))
    }
}

pub(super) async fn stores(command: Stores) -> Result<(), Failure> {
    let Stores::Restored { options } = command;
    let (settings, store) = opened(options).await?;
    let Some(file) = parts::witness(&settings) else {
        return Err(Misconfigured("a store in memory is never restored".to_owned()).into());
    };
    let witness = match Witness::open(&file) {
        Ok(witness) => witness,
        // The operator has just said what the file would have told.
        Err(mcp_authz_tokio::store::witness::WitnessError::Malformed(_)) => {
            std::fs::remove_file(&file)?;
            Witness::open(&file)?
        }
        Err(error) => return Err(error.into()),
    };
    witness.restored(store.as_ref()).await?;
    say(format_args!(
        "Everything that was granted has ended, and people sign in again. The signing keys of the copy are gone, because one of \
         them may have been withdrawn since: the server makes a new one when it starts. Clients that registered themselves, or \
         came of their metadata document, are gone too, because one of them may have been deleted since: they come back by \
         themselves."
    ))?;
    let mut after: Option<ClientId> = None;
    loop {
        let page = store.list_clients(after.as_ref()).await?;
        let Some(last) = page.last() else { return Ok(()) };
        if after.is_none() {
            say(format_args!(
                "Your own clients are as in the copy. End those that you had removed since, with `mcp-authz clients remove`, \
                 and give those a new secret that you had given one:"
            ))?;
        }
        after = Some(last.client_id.clone());
        for client in page {
            say(format_args!(
                "{}  {}  since {}",
                TerminalText(client.client_id.as_str()),
                TerminalText(client.metadata.client_name.as_deref().unwrap_or("(no name)")),
                client.created.date()
            ))?;
        }
    }
}
