//! What an authorization server keeps in its store: the inputs of its checks, and digests instead of secrets.
//!
//! Each record has one stored form: a JSON object with its kind and version, read back strictly. A store keeps it as a blob
//! beside the key columns it needs; an unknown kind or version is refused by name and never guessed at.

use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::identifier::{ClientId, RedirectUri, ResourceId, ScopeSet};
use crate::limits;
use crate::message::client_metadata::ClientMetadata;
use crate::pkce::CodeChallenge;
use crate::secret::{AgentBinding, SecretDigest, State};
use crate::syntax::base64url;
use crate::syntax::json::{JsonObject, JsonValue, ObjectWriter};
use crate::time::OffsetDateTime;

mod access;
mod consent;
mod family;
mod pushed;

pub use access::AccessRecord;
pub use consent::ConsentRecord;
pub use family::FamilyId;
pub use pushed::PushedRecord;

/// Largest stored record, in bytes: what was accepted must fit. A client's metadata is kept as text inside the
/// record, where each quotation mark and backslash takes twice its place.
const RECORD_BYTES: usize = 4 * limits::DOCUMENT_BYTES;

/// Bytes from a store that are no record of the kind and version they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRecord {
    /// Not a record of this kind, or of a version this program does not know.
    #[error("the stored bytes are not a {0} record of a version this program knows")]
    Kind(&'static str),
    /// A member is missing or malformed.
    #[error("the stored record's member {0:?} is missing or malformed")]
    Member(&'static str),
}

/// How often everything of a client, a person, or a person's consent to a client was revoked. A grant made under
/// other numbers than today's is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Epochs {
    /// Of the client.
    pub client: u64,
    /// Of the person.
    pub subject: u64,
    /// Of the person's consent to the client.
    pub consent: u64,
}

impl Epochs {
    /// The three numbers a store read in one transaction.
    pub const fn new(client: u64, subject: u64, consent: u64) -> Self {
        Self { client, subject, consent }
    }

    fn to_text(self) -> String {
        alloc::format!("{} {} {}", self.client, self.subject, self.consent)
    }

    fn read(object: &JsonObject) -> Result<Self, InvalidRecord> {
        let wrong = InvalidRecord::Member("epochs");
        let mut numbers = required(object, "epochs")?.split(' ').map(str::parse::<u64>);
        let mut number = || numbers.next().and_then(Result::ok).ok_or(wrong);
        let epochs = Self { client: number()?, subject: number()?, consent: number()? };
        if numbers.next().is_some() { Err(wrong) } else { Ok(epochs) }
    }
}

/// How a client came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientOrigin {
    /// Written by the operator.
    PreRegistered,
    /// By dynamic registration (RFC 7591).
    Registered,
    /// By its client ID metadata document.
    MetadataDocument,
}

/// How a client authenticates at the token endpoint. Public means that there is no secret, by type (I-P6).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientCredential {
    /// A public client: `none`.
    None,
    /// A shared secret.
    Secret {
        /// The one way to present it that was registered.
        method: SecretMethod,
        /// Its SHA-256.
        digest: SecretDigest,
        /// When it ends; `None` is never.
        expires: Option<OffsetDateTime>,
    },
    /// An assertion signed with one of the keys in the client's metadata.
    PrivateKey,
}

/// How a client secret is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretMethod {
    /// `client_secret_basic`
    Basic,
    /// `client_secret_post`
    Post,
}

impl ClientCredential {
    /// The name of the authentication method.
    pub fn method(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Secret { method: SecretMethod::Basic, .. } => "client_secret_basic",
            Self::Secret { method: SecretMethod::Post, .. } => "client_secret_post",
            Self::PrivateKey => "private_key_jwt",
        }
    }

    /// Whether the client proves who it is.
    pub fn is_confidential(&self) -> bool {
        !matches!(self, Self::None)
    }
}

/// A client.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ClientRecord {
    /// Its identifier.
    pub client_id: ClientId,
    /// How it came to be known.
    pub origin: ClientOrigin,
    /// How it authenticates.
    pub credential: ClientCredential,
    /// What it says about itself, as accepted.
    pub metadata: ClientMetadata,
    /// When it was made known.
    pub created: OffsetDateTime,
    /// The digest of the token with which it manages its registration (RFC 7592); `None` where it cannot.
    pub management: Option<SecretDigest>,
    /// Since when nothing is at the URL of its metadata document (404 or 410).
    pub gone_since: Option<OffsetDateTime>,
    /// Whether it stands in the operator's configuration, which ends it by leaving it out.
    pub configured: bool,
    /// Whether it registered with an initial access token (RFC 7591 section 3).
    pub initial_access: bool,
}

impl ClientRecord {
    /// The SHA-256 of the accepted metadata: remembered consent is void when it changes (I-P2).
    pub fn metadata_digest(&self) -> SecretDigest {
        SecretDigest::of(&self.metadata.render())
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let origin = match self.origin {
            ClientOrigin::PreRegistered => "pre-registered",
            ClientOrigin::Registered => "registered",
            ClientOrigin::MetadataDocument => "metadata-document",
        };
        let writer = envelope("client")
            .string("client_id", self.client_id.as_str())
            .string("origin", origin)
            .string("method", self.credential.method())
            .string("metadata", String::from_utf8_lossy(&self.metadata.render()))
            .integer("created", self.created.unix_timestamp())
            .optional_string(
                "management",
                self.management.map(|digest| base64url::encode(digest.as_bytes())),
            );
        let writer = match self.gone_since {
            Some(at) => writer.integer("gone_since", at.unix_timestamp()),
            None => writer,
        };
        let writer = if self.configured { writer.boolean("configured", true) } else { writer };
        let writer = if self.initial_access { writer.boolean("initial_access", true) } else { writer };
        match &self.credential {
            ClientCredential::None | ClientCredential::PrivateKey => writer,
            ClientCredential::Secret { digest, expires, .. } => {
                let writer = writer.string("secret_digest", base64url::encode(digest.as_bytes()));
                match expires {
                    Some(at) => writer.integer("secret_expires", at.unix_timestamp()),
                    None => writer,
                }
            }
        }
        .finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`InvalidRecord`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        let object = opened("client", bytes)?;
        let origin = match required(&object, "origin")? {
            "pre-registered" => ClientOrigin::PreRegistered,
            "registered" => ClientOrigin::Registered,
            "metadata-document" => ClientOrigin::MetadataDocument,
            _ => return Err(InvalidRecord::Member("origin")),
        };
        let has_secret = object.get("secret_digest").is_some();
        let secret = |method| -> Result<_, InvalidRecord> {
            Ok(ClientCredential::Secret {
                method,
                digest: SecretDigest::from_bytes(bytes_of(&object, "secret_digest")?),
                expires: optional_time(&object, "secret_expires")?,
            })
        };
        let metadata = parsed(&object, "metadata", |text| ClientMetadata::parse(text.as_bytes()))?;
        let has_keys = metadata.jwks.is_some() || metadata.jwks_uri.is_some();
        // OAUTH21-2.1-1, I-P6: public exactly when there is no secret.
        let credential = match required(&object, "method")? {
            "none" if !has_secret => ClientCredential::None,
            "private_key_jwt" if !has_secret && has_keys => ClientCredential::PrivateKey,
            "client_secret_basic" => secret(SecretMethod::Basic)?,
            "client_secret_post" => secret(SecretMethod::Post)?,
            _ => return Err(InvalidRecord::Member("method")),
        };
        Ok(Self {
            client_id: parsed(&object, "client_id", ClientId::new)?,
            origin,
            credential,
            metadata,
            created: time(&object, "created")?,
            management: optional_digest(&object, "management")?,
            gone_since: optional_time(&object, "gone_since")?,
            configured: flag(&object, "configured")?,
            initial_access: flag(&object, "initial_access")?,
        })
    }
}

/// A member that is there and true, or not there.
fn flag(object: &JsonObject, name: &'static str) -> Result<bool, InvalidRecord> {
    match object.get(name) {
        None => Ok(false),
        Some(JsonValue::Boolean(true)) => Ok(true),
        Some(_) => Err(InvalidRecord::Member(name)),
    }
}

/// A request that was shown to a person and waits for their answer. It lives in the store only, never in a form or a
/// cookie; the form holds the handle whose digest is the key.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DecisionRecord {
    /// The client.
    pub client_id: ClientId,
    /// The redirect URI of the request: where the answer goes.
    pub redirect_uri: RedirectUri,
    /// The resource, in the configured spelling.
    pub resource: ResourceId,
    /// The scopes that were shown.
    pub scope: ScopeSet,
    /// The client's `state`, to be echoed unchanged.
    pub state: Option<State>,
    /// The code challenge.
    pub challenge: CodeChallenge,
    /// Whether the client may get a refresh token.
    pub refresh: bool,
    /// The browser it was shown in.
    pub agent: AgentBinding,
    /// The person it was shown to.
    pub subject: Arc<str>,
    /// When that person authenticated.
    pub authenticated: OffsetDateTime,
    /// The digest of the form's anti-forgery value.
    pub csrf: SecretDigest,
    /// Where the answer may be remembered, only for a client that proves who it is (I-P2): the digest of the client's
    /// metadata when it was shown.
    pub rememberable: Option<SecretDigest>,
    /// When the answer comes too late.
    pub not_after: OffsetDateTime,
}

impl DecisionRecord {
    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        envelope("decision")
            .string("client_id", self.client_id.as_str())
            .string("redirect_uri", self.redirect_uri.as_str())
            .string("resource", self.resource.as_str())
            .string("scope", self.scope.to_string())
            .optional_string("state", self.state.as_ref().map(State::expose))
            .string("challenge", self.challenge.to_text())
            .boolean("refresh", self.refresh)
            .string("agent", base64url::encode(&self.agent.to_bytes()))
            .string("subject", &*self.subject)
            .integer("authenticated", self.authenticated.unix_timestamp())
            .string("csrf", base64url::encode(self.csrf.as_bytes()))
            .optional_string(
                "rememberable",
                self.rememberable.map(|digest| base64url::encode(digest.as_bytes())),
            )
            .integer("not_after", self.not_after.unix_timestamp())
            .finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`InvalidRecord`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        let object = opened("decision", bytes)?;
        let state = match object.string("state").map_err(|_| InvalidRecord::Member("state"))? {
            Some(text) => Some(State::new(text).map_err(|_| InvalidRecord::Member("state"))?),
            None => None,
        };
        Ok(Self {
            client_id: parsed(&object, "client_id", ClientId::new)?,
            redirect_uri: redirect_uri(&object, "redirect_uri")?,
            resource: parsed(&object, "resource", ResourceId::new)?,
            scope: scope(&object)?,
            state,
            challenge: challenge(&object)?,
            refresh: boolean(&object, "refresh")?,
            agent: AgentBinding::from_bytes(&bytes_of::<33>(&object, "agent")?)
                .ok_or(InvalidRecord::Member("agent"))?,
            subject: subject(&object)?,
            authenticated: time(&object, "authenticated")?,
            csrf: SecretDigest::from_bytes(bytes_of(&object, "csrf")?),
            rememberable: optional_digest(&object, "rememberable")?,
            not_after: time(&object, "not_after")?,
        })
    }
}

/// What a person granted a client: everything its tokens may ever be for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GrantRecord {
    /// The family of its credentials.
    pub family: FamilyId,
    /// The client.
    pub client_id: ClientId,
    /// The person.
    pub subject: Arc<str>,
    /// The resource.
    pub resource: ResourceId,
    /// The approved scopes.
    pub scope: ScopeSet,
    /// The epochs under which it was approved.
    pub epochs: Epochs,
    /// When the person authenticated.
    pub authenticated: OffsetDateTime,
    /// The end of the family: no token of it outlives this.
    pub not_after: OffsetDateTime,
}

impl GrantRecord {
    fn to_object(&self) -> JsonObject {
        envelope("grant")
            .string("family", base64url::encode(self.family.as_bytes()))
            .string("client_id", self.client_id.as_str())
            .string("subject", &*self.subject)
            .string("resource", self.resource.as_str())
            .string("scope", self.scope.to_string())
            .string("epochs", self.epochs.to_text())
            .integer("authenticated", self.authenticated.unix_timestamp())
            .integer("not_after", self.not_after.unix_timestamp())
            .into_object()
    }

    fn from_object(object: &JsonObject) -> Result<Self, InvalidRecord> {
        checked("grant", object)?;
        let epochs = Epochs::read(object)?;
        Ok(Self {
            family: FamilyId::from_bytes(bytes_of(object, "family")?),
            client_id: parsed(object, "client_id", ClientId::new)?,
            subject: subject(object)?,
            resource: parsed(object, "resource", ResourceId::new)?,
            scope: scope(object)?,
            epochs,
            authenticated: time(object, "authenticated")?,
            not_after: time(object, "not_after")?,
        })
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_object().to_bytes()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`InvalidRecord`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        Self::from_object(&opened("grant", bytes)?)
    }
}

/// An authorization code, kept under its digest.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CodeRecord {
    /// What its tokens may be for.
    pub grant: Arc<GrantRecord>,
    /// The code challenge: there is no code without one (I-C5).
    pub challenge: ChallengeBytes,
    /// The redirect URI the code was sent to.
    pub redirect_uri: RedirectUri,
    /// Whether a refresh token goes out with the access token.
    pub refresh: bool,
    /// When the code ends.
    pub expires: OffsetDateTime,
}

/// The 32 bytes of an S256 challenge, comparable for tests and stores.
pub type ChallengeBytes = [u8; 32];

impl CodeRecord {
    /// The code challenge.
    pub fn challenge(&self) -> CodeChallenge {
        CodeChallenge::from_bytes(self.challenge)
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        envelope("code")
            .value("grant", JsonValue::Object(self.grant.to_object()))
            .string("challenge", self.challenge().to_text())
            .string("redirect_uri", self.redirect_uri.as_str())
            .boolean("refresh", self.refresh)
            .integer("expires", self.expires.unix_timestamp())
            .finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`InvalidRecord`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        let object = opened("code", bytes)?;
        Ok(Self {
            grant: grant(&object)?,
            challenge: *challenge(&object)?.as_bytes(),
            redirect_uri: redirect_uri(&object, "redirect_uri")?,
            refresh: boolean(&object, "refresh")?,
            expires: time(&object, "expires")?,
        })
    }
}

/// A refresh token, kept under its digest.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RefreshRecord {
    /// What its tokens may be for.
    pub grant: Arc<GrantRecord>,
    /// Its place in the chain: the first is 0, each rotation adds one.
    pub generation: u64,
    /// When it ends without use.
    pub expires: OffsetDateTime,
}

impl RefreshRecord {
    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        envelope("refresh")
            .value("grant", JsonValue::Object(self.grant.to_object()))
            .string("generation", self.generation.to_string())
            .integer("expires", self.expires.unix_timestamp())
            .finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`InvalidRecord`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        let object = opened("refresh", bytes)?;
        let generation =
            required(&object, "generation")?.parse().map_err(|_| InvalidRecord::Member("generation"))?;
        Ok(Self { grant: grant(&object)?, generation, expires: time(&object, "expires")? })
    }
}

const VERSION: i64 = 1;

fn envelope(kind: &'static str) -> ObjectWriter {
    ObjectWriter::new().string("kind", kind).integer("version", VERSION)
}

fn opened(kind: &'static str, bytes: &[u8]) -> Result<JsonObject, InvalidRecord> {
    let object = JsonObject::parse(bytes, RECORD_BYTES).map_err(|_| InvalidRecord::Kind(kind))?;
    checked(kind, &object)?;
    Ok(object)
}

fn checked(kind: &'static str, object: &JsonObject) -> Result<(), InvalidRecord> {
    let same = object.string("kind") == Ok(Some(kind)) && object.integer("version") == Ok(Some(VERSION));
    if same { Ok(()) } else { Err(InvalidRecord::Kind(kind)) }
}

fn required<'o>(object: &'o JsonObject, name: &'static str) -> Result<&'o str, InvalidRecord> {
    object.required_string(name).map_err(|_| InvalidRecord::Member(name))
}

fn parsed<T, E>(
    object: &JsonObject,
    name: &'static str,
    make: impl FnOnce(String) -> Result<T, E>,
) -> Result<T, InvalidRecord> {
    make(required(object, name)?.to_string()).map_err(|_| InvalidRecord::Member(name))
}

fn redirect_uri(object: &JsonObject, name: &'static str) -> Result<RedirectUri, InvalidRecord> {
    parsed(object, name, |text| RedirectUri::new(text.clone()).or_else(|_| RedirectUri::private_scheme(text)))
}

fn subject(object: &JsonObject) -> Result<Arc<str>, InvalidRecord> {
    let subject = required(object, "subject")?;
    if subject.is_empty() { Err(InvalidRecord::Member("subject")) } else { Ok(subject.into()) }
}

fn scope(object: &JsonObject) -> Result<ScopeSet, InvalidRecord> {
    match required(object, "scope")? {
        "" => Ok(ScopeSet::new()),
        text => ScopeSet::parse(text).map_err(|_| InvalidRecord::Member("scope")),
    }
}

fn challenge(object: &JsonObject) -> Result<CodeChallenge, InvalidRecord> {
    CodeChallenge::parse(required(object, "challenge")?).map_err(|_| InvalidRecord::Member("challenge"))
}

fn grant(object: &JsonObject) -> Result<Arc<GrantRecord>, InvalidRecord> {
    let grant = object.object("grant").ok().flatten().ok_or(InvalidRecord::Member("grant"))?;
    GrantRecord::from_object(grant).map(Arc::new)
}

fn boolean(object: &JsonObject, name: &'static str) -> Result<bool, InvalidRecord> {
    object.boolean(name).ok().flatten().ok_or(InvalidRecord::Member(name))
}

fn optional_time(object: &JsonObject, name: &'static str) -> Result<Option<OffsetDateTime>, InvalidRecord> {
    match object.integer(name).map_err(|_| InvalidRecord::Member(name))? {
        None => Ok(None),
        Some(at) => {
            OffsetDateTime::from_unix_timestamp(at).map(Some).map_err(|_| InvalidRecord::Member(name))
        }
    }
}

fn time(object: &JsonObject, name: &'static str) -> Result<OffsetDateTime, InvalidRecord> {
    optional_time(object, name)?.ok_or(InvalidRecord::Member(name))
}

fn optional_digest(object: &JsonObject, name: &'static str) -> Result<Option<SecretDigest>, InvalidRecord> {
    match object.get(name) {
        None => Ok(None),
        Some(_) => Ok(Some(SecretDigest::from_bytes(bytes_of(object, name)?))),
    }
}

fn bytes_of<const N: usize>(object: &JsonObject, name: &'static str) -> Result<[u8; N], InvalidRecord> {
    let bytes = base64url::decode(required(object, name)?).map_err(|_| InvalidRecord::Member(name))?;
    bytes.try_into().map_err(|_| InvalidRecord::Member(name))
}
