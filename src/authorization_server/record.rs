//! What an authorization server keeps in its store: the inputs of its checks, and digests instead of secrets.
//!
//! Each record has one stored form: a flat JSON object with its kind and version, read back strictly. A store keeps it as a blob
//! beside the key columns it needs; an unknown kind or version is refused by name and never guessed at.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::identifier::{ClientId, RedirectUri, ResourceId, ScopeSet};
use crate::message::client_metadata::ClientMetadata;
use crate::pkce::CodeChallenge;
use crate::secret::{AgentBinding, SecretDigest, State};
use crate::time::OffsetDateTime;

mod access;
mod consent;
mod family;
mod form;
mod pushed;

pub use access::AccessRecord;
pub use consent::ConsentRecord;
pub use family::FamilyId;
pub use pushed::PushedRecord;

use form::{Members, Written};

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
        let written = Written::new("client")
            .string("client_id", self.client_id.as_str())
            .string("origin", origin)
            .string("method", self.credential.method())
            .string("metadata", &String::from_utf8_lossy(&self.metadata.render()))
            .time("created", self.created)
            .optional(self.management, |it, digest| it.bytes("management", digest.as_bytes()))
            .optional(self.gone_since, |it, at| it.time("gone_since", at))
            .optional(self.configured.then_some(true), |it, yes| it.boolean("configured", yes))
            .optional(self.initial_access.then_some(true), |it, yes| it.boolean("initial_access", yes));
        match &self.credential {
            ClientCredential::None | ClientCredential::PrivateKey => written,
            ClientCredential::Secret { digest, expires, .. } => written
                .bytes("secret_digest", digest.as_bytes())
                .optional(*expires, |it, at| it.time("secret_expires", at)),
        }
        .finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`InvalidRecord`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        let members = Members::of("client", bytes)?;
        let origin = match members.required("origin")? {
            "pre-registered" => ClientOrigin::PreRegistered,
            "registered" => ClientOrigin::Registered,
            "metadata-document" => ClientOrigin::MetadataDocument,
            _ => return Err(InvalidRecord::Member("origin")),
        };
        let has_secret = members.has("secret_digest");
        let secret = |method| -> Result<_, InvalidRecord> {
            Ok(ClientCredential::Secret {
                method,
                digest: members.digest("secret_digest")?,
                expires: members.optional_time("secret_expires")?,
            })
        };
        let metadata = members.parsed("metadata", |text| ClientMetadata::parse(text.as_bytes()))?;
        let has_keys = metadata.jwks.is_some() || metadata.jwks_uri.is_some();
        // OAUTH21-2.1-1, I-P6: public exactly when there is no secret.
        let credential = match members.required("method")? {
            "none" if !has_secret => ClientCredential::None,
            "private_key_jwt" if !has_secret && has_keys => ClientCredential::PrivateKey,
            "client_secret_basic" => secret(SecretMethod::Basic)?,
            "client_secret_post" => secret(SecretMethod::Post)?,
            _ => return Err(InvalidRecord::Member("method")),
        };
        Ok(Self {
            client_id: members.parsed("client_id", ClientId::new)?,
            origin,
            credential,
            metadata,
            created: members.time("created")?,
            management: members.optional_digest("management")?,
            gone_since: members.optional_time("gone_since")?,
            configured: members.flag("configured")?,
            initial_access: members.flag("initial_access")?,
        })
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
        Written::new("decision")
            .string("client_id", self.client_id.as_str())
            .string("redirect_uri", self.redirect_uri.as_str())
            .string("resource", self.resource.as_str())
            .scope("scope", &self.scope)
            .optional(self.state.as_ref(), |it, state| it.string("state", state.expose()))
            .bytes("challenge", self.challenge.as_bytes())
            .boolean("refresh", self.refresh)
            .bytes("agent", &self.agent.to_bytes())
            .string("subject", &self.subject)
            .time("authenticated", self.authenticated)
            .bytes("csrf", self.csrf.as_bytes())
            .optional(self.rememberable, |it, digest| it.bytes("rememberable", digest.as_bytes()))
            .time("not_after", self.not_after)
            .finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`InvalidRecord`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        let members = Members::of("decision", bytes)?;
        let state = members.optional("state")?.map(State::new).transpose();
        Ok(Self {
            client_id: members.parsed("client_id", ClientId::new)?,
            redirect_uri: members.redirect_uri()?,
            resource: members.parsed("resource", ResourceId::new)?,
            scope: members.scope("scope")?,
            state: state.map_err(|_| InvalidRecord::Member("state"))?,
            challenge: members.challenge()?,
            refresh: members.boolean("refresh")?,
            agent: AgentBinding::from_bytes(&members.bytes::<33>("agent")?)
                .ok_or(InvalidRecord::Member("agent"))?,
            subject: members.subject()?,
            authenticated: members.time("authenticated")?,
            csrf: members.digest("csrf")?,
            rememberable: members.optional_digest("rememberable")?,
            not_after: members.time("not_after")?,
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
    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        Written::new("grant").grant(self).finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`InvalidRecord`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        Members::of("grant", bytes)?.grant()
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
        Written::new("code")
            .grant(&self.grant)
            .bytes("challenge", &self.challenge)
            .string("redirect_uri", self.redirect_uri.as_str())
            .boolean("refresh", self.refresh)
            .time("expires", self.expires)
            .finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`InvalidRecord`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        let members = Members::of("code", bytes)?;
        Ok(Self {
            grant: Arc::new(members.grant()?),
            challenge: *members.challenge()?.as_bytes(),
            redirect_uri: members.redirect_uri()?,
            refresh: members.boolean("refresh")?,
            expires: members.time("expires")?,
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
    /// The stored form, which does not have the grant: a store keeps that once for all tokens of its family.
    pub fn to_bytes(&self) -> Vec<u8> {
        Written::new("refresh")
            .string("generation", &alloc::format!("{}", self.generation))
            .time("expires", self.expires)
            .finish()
    }

    /// Reads the stored form of a token of that grant's family.
    ///
    /// # Errors
    /// [`InvalidRecord`] for anything else.
    pub fn from_bytes(bytes: &[u8], grant: Arc<GrantRecord>) -> Result<Self, InvalidRecord> {
        let members = Members::of("refresh", bytes)?;
        Ok(Self {
            grant,
            generation: members.parsed("generation", |text| text.parse())?,
            expires: members.time("expires")?,
        })
    }
}
