//! The client's records: a callback in flight, a session, a registration. They hold secrets and leave sealed.
//!
//! A record keeps the *inputs* of the checks, and `resume` makes the checks again: a document of another issuer, an
//! endpoint on a forbidden address or an expired request is refused as if it had just arrived. What a record is for (its
//! kind and version, issuer, resource, agent, the client's name and policy) is authenticated with it.

use alloc::boxed::Box;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use core::fmt;

use super::Client;
use super::authorization::{AwaitingCallback, Prepared, Request, Waiting};
use super::recorded::{
    identity, identity_written, optional_time, read, redirect_uri, required, scope, time, written,
};
use super::registration::{Identity, IdentityKind};
use super::session::{Held, Session, Tokens};
use super::sign_in::{AwaitingSignIn, Provider, SigningIn};
use crate::erased::Erased;
use crate::error::{Error, HostMisuse};
use crate::evidence::IssuerForResource;
use crate::identifier::{Issuer, RedirectUri, ResourceId, ScopeSet};
use crate::policy::Relaxation;
use crate::sealer::Sealer;
use crate::secret::{AccessToken, AgentBinding, CodeVerifier, RefreshToken, SecretDigest};
use crate::syntax::base64url;
use crate::syntax::json::{JsonObject, JsonValue, ObjectWriter};
use crate::time::OffsetDateTime;

/// Under which version a store holds a record: every write makes another. The store chooses the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordVersion(u64);

impl RecordVersion {
    /// The version of that number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub fn number(self) -> u64 {
        self.0
    }
}

pub(super) const RECORD_BYTES: usize = 512 * 1024;

/// What tells kinds of records apart: a name, the version that is written, and the oldest that is read.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind {
    name: &'static str,
    version: i64,
    oldest: i64,
}

/// Version 1 had the count of step-ups, which has a record of its own since; version 2 did not say who vouched for the
/// pair of resource and issuer, and resumes where today's configuration does.
const CALLBACK: Kind = Kind { name: "callback", version: 3, oldest: 1 };
/// As for [`CALLBACK`].
const SESSION: Kind = Kind { name: "session", version: 3, oldest: 1 };
const SIGN_IN: Kind = Kind { name: "sign-in", version: 1, oldest: 1 };
const REGISTRATION: Kind = Kind { name: "registration", version: 1, oldest: 1 };
const PAIRING: Kind = Kind { name: "pairing", version: 1, oldest: 1 };

/// The clear part of a record of that kind, and its version.
pub(super) fn clear(
    kind: &str,
    bytes: &[u8],
    versions: core::ops::RangeInclusive<i64>,
) -> Result<(JsonObject, i64), Error> {
    let object = JsonObject::parse(bytes, RECORD_BYTES).map_err(|_| foreign())?;
    if object.string("kind") != Ok(Some(kind)) {
        return Err(foreign());
    }
    match object.integer("version") {
        Ok(Some(version)) if versions.contains(&version) => Ok((object, version)),
        Ok(Some(later)) if later > *versions.end() => Err(HostMisuse::LaterRecord.into()),
        Ok(Some(_)) => Err(HostMisuse::EarlierRecord.into()),
        _ => Err(foreign()),
    }
}

pub(super) fn foreign() -> Error {
    HostMisuse::ForeignRecord.into()
}

/// What every record has in the clear, authenticated by the seal.
#[derive(Clone, PartialEq, Eq)]
struct Envelope {
    kind: Kind,
    version: i64,
    issuer: Issuer,
    resource: Option<ResourceId>,
    agent: Option<AgentBinding>,
    sealed: Vec<u8>,
}

impl Envelope {
    fn seal(
        kind: Kind,
        client: &Client,
        place: (&Issuer, Option<&ResourceId>, Option<&AgentBinding>),
        content: ObjectWriter,
        sealer: &dyn Sealer,
    ) -> Result<Self, Error> {
        let (issuer, resource, agent) = place;
        let mut envelope = Self {
            kind,
            version: kind.version,
            issuer: issuer.clone(),
            resource: resource.cloned(),
            agent: agent.copied(),
            sealed: Vec::new(),
        };
        // MCP-SEC-001: what is secret leaves sealed.
        named(client, sealer)?;
        let plaintext = Erased::new(content.finish());
        envelope.sealed = sealer.seal(&envelope.associated(client), &plaintext)?;
        Ok(envelope)
    }

    fn open(&self, client: &Client, sealer: &dyn Sealer) -> Result<JsonObject, Error> {
        named(client, sealer)?;
        let plaintext = sealer.open(&self.associated(client), &self.sealed)?;
        JsonObject::parse(&plaintext, RECORD_BYTES).map_err(|_| HostMisuse::ForeignRecord.into())
    }

    fn place(&self) -> ObjectWriter {
        ObjectWriter::new()
            .string("kind", self.kind.name)
            .integer("version", self.version)
            .string("issuer", self.issuer.as_str())
            .optional_string("resource", self.resource.as_ref().map(ResourceId::as_str))
            .optional_string("agent", self.agent.map(|agent| base64url::encode(&agent.to_bytes())))
    }

    fn associated(&self, client: &Client) -> Vec<u8> {
        self.place().string("client", base64url::encode(client.digest().as_bytes())).finish()
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.place().string("sealed", base64url::encode(&self.sealed)).finish()
    }

    fn from_bytes(kind: Kind, bytes: &[u8]) -> Result<Self, Error> {
        let (object, version) = clear(kind.name, bytes, kind.oldest..=kind.version)?;
        let text = |name| object.string(name).map_err(|_| foreign());
        let resource = text("resource")?.map(ResourceId::new).transpose().map_err(|_| foreign())?;
        let agent = match text("agent")? {
            None => None,
            Some(text) => {
                let bytes = base64url::decode(text).map_err(|_| foreign())?;
                Some(AgentBinding::from_bytes(&bytes).ok_or_else(foreign)?)
            }
        };
        Ok(Self {
            kind,
            version,
            issuer: Issuer::new(required(&object, "issuer")?).map_err(|_| foreign())?,
            resource,
            agent,
            sealed: base64url::decode(required(&object, "sealed")?).map_err(|_| foreign())?,
        })
    }
}

/// A sealer that seals nothing is one the host named.
pub(super) fn named(client: &Client, sealer: &dyn Sealer) -> Result<(), Error> {
    // MCP-SEC-001
    let relaxation = Relaxation::PlaintextRecords;
    if sealer.leaves_plaintext() && !client.policy().allows(&relaxation) {
        return Err(HostMisuse::Unnamed { relaxation }.into());
    }
    Ok(())
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.kind.name)
            .field("issuer", &self.issuer)
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

macro_rules! record {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name(Envelope);

        impl $name {
            /// The stored form. What is secret in it is sealed.
            pub fn to_bytes(&self) -> Vec<u8> {
                self.0.to_bytes()
            }

            /// Reads the stored form.
            ///
            /// # Errors
            /// [`HostMisuse::LaterRecord`] for a version this crate does not know yet, [`HostMisuse::EarlierRecord`] for one
            /// it no longer reads, [`HostMisuse::ForeignRecord`] for another kind or other bytes.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
                Envelope::from_bytes($kind, bytes).map(Self)
            }

            /// The issuer it belongs to.
            pub fn issuer(&self) -> &Issuer {
                &self.0.issuer
            }

            /// The resource it belongs to; none for a registration, which serves every resource of its issuer.
            pub fn resource(&self) -> Option<&ResourceId> {
                self.0.resource.as_ref()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

record!(
    /// An authorization whose answer is still to come: [`AwaitingCallback`] put away.
    ///
    /// Take it out of its store when the callback arrives, found by the browser's session and never by `state` alone.
    CallbackRecord, CALLBACK
);
record!(
    /// A sign-in at an OpenID Provider whose answer is still to come: [`AwaitingSignIn`] put away.
    ///
    /// It is sealed, for the browser it began in, and short: a cookie of that browser may hold it, if the host then reserves
    /// the [`AwaitingSignIn::state_digest`] before a callback is used.
    SignInRecord, SIGN_IN
);
record!(
    /// A session with everything needed to use and refresh it after a restart.
    SessionRecord, SESSION
);
record!(
    /// A dynamic registration, to be used again at its issuer.
    RegistrationRecord, REGISTRATION
);
record!(
    /// The host's word for a resource and an issuer, to be taken again at the next login (D36).
    ///
    /// It is made of a session ([`PersistSession::pairing`](super::PersistSession::pairing)): a login that came to
    /// nothing leaves none.
    PairingRecord, PAIRING
);

impl CallbackRecord {
    pub(crate) fn seal(waiting: &Waiting, sealer: &dyn Sealer) -> Result<Self, Error> {
        let Waiting { prepared, request } = waiting;
        let content = written(prepared)
            .string("verifier", request.verifier.expose())
            .string("state", base64url::encode(request.state.as_bytes()))
            .string("request_scope", request.scope.to_string())
            .string("request_redirect_uri", request.redirect_uri.as_str())
            .integer("not_after", request.not_after.unix_timestamp());
        let place = (
            prepared.server.issuer.issuer(),
            Some(prepared.server.target.resource.resource()),
            Some(&request.agent),
        );
        Envelope::seal(CALLBACK, &prepared.server.target.client, place, content, sealer).map(Self)
    }

    /// Brings the state back. Every check is made again.
    ///
    /// # Errors
    /// [`Error`] when the record does not open here, has expired, or would not pass today's checks.
    pub fn resume(
        self,
        client: &Client,
        sealer: &dyn Sealer,
        now: OffsetDateTime,
    ) -> Result<AwaitingCallback, Error> {
        let object = self.0.open(client, sealer)?;
        let prepared = read(client, &object)?;
        self.belongs(&prepared)?;
        // The answer comes where the request said, whatever port this process listens on. Version 1 knew one URI.
        let asked = match object.get("request_redirect_uri") {
            Some(_) => required(&object, "request_redirect_uri")?,
            None => {
                let identity = object.object("identity").ok().flatten().ok_or(HostMisuse::ForeignRecord)?;
                required(identity, "redirect_uri")?
            }
        };
        let redirect_uri = redirect_uri(client, asked)?;
        let not_after = time(&object, "not_after")?;
        let agent = self.0.agent.ok_or(HostMisuse::ForeignRecord)?;
        // I-L4 (a): an expired request cannot be answered.
        if now >= not_after {
            return Err(HostMisuse::ForeignRecord.into());
        }
        let state =
            base64url::decode(required(&object, "state")?).ok().and_then(|bytes| bytes.try_into().ok());
        let request = Request {
            verifier: CodeVerifier::new(required(&object, "verifier")?)
                .map_err(|_| HostMisuse::ForeignRecord)?,
            state: SecretDigest::from_bytes(state.ok_or(HostMisuse::ForeignRecord)?),
            agent,
            redirect_uri,
            scope: scope(&object, "request_scope")?,
            not_after,
        };
        Ok(AwaitingCallback(Box::new(Waiting { prepared, request })))
    }

    fn belongs(&self, prepared: &Prepared) -> Result<(), Error> {
        belongs(&self.0, prepared)
    }
}

impl SignInRecord {
    pub(super) fn seal(waiting: &SigningIn, sealer: &dyn Sealer) -> Result<Self, Error> {
        let SigningIn { provider, request, nonce, begun, announced } = waiting;
        let content = ObjectWriter::new()
            .string("verifier", request.verifier.expose())
            .string("state", base64url::encode(request.state.as_bytes()))
            .string("nonce", base64url::encode(nonce.as_bytes()))
            .string("redirect_uri", request.redirect_uri.as_str())
            .string("iss", if *announced { "announced" } else { "silent" })
            .integer("begun", begun.unix_timestamp())
            .integer("not_after", request.not_after.unix_timestamp());
        let place = (provider.issuer(), None, Some(&request.agent));
        Envelope::seal(SIGN_IN, provider.client(), place, content, sealer).map(Self)
    }

    /// Brings the state back, at the provider as it is known today.
    ///
    /// # Errors
    /// [`HostMisuse::ForeignRecord`] when the record is of another provider, place or time, or does not open here.
    pub fn resume(
        self,
        provider: &Provider,
        sealer: &dyn Sealer,
        now: OffsetDateTime,
    ) -> Result<AwaitingSignIn, Error> {
        // I-L3: what was asked of one issuer is not answered by another.
        if self.0.issuer != *provider.issuer() {
            return Err(foreign());
        }
        let object = self.0.open(provider.client(), sealer)?;
        let digest = |name| -> Result<SecretDigest, Error> {
            let bytes = base64url::decode(required(&object, name)?).map_err(|_| foreign())?;
            bytes.try_into().map(SecretDigest::from_bytes).map_err(|_| foreign())
        };
        let redirect_uri = provider.redirect_uri();
        let not_after = time(&object, "not_after")?;
        // MCP-SBP-013
        if required(&object, "redirect_uri")? != redirect_uri.as_str() || now >= not_after {
            return Err(foreign());
        }
        let request = Request {
            verifier: CodeVerifier::new(required(&object, "verifier")?).map_err(|_| foreign())?,
            state: digest("state")?,
            agent: self.0.agent.ok_or_else(foreign)?,
            redirect_uri: redirect_uri.clone(),
            scope: ScopeSet::new(),
            not_after,
        };
        let announced = match required(&object, "iss")? {
            "announced" => true,
            "silent" => false,
            _ => return Err(foreign()),
        };
        let (nonce, begun) = (digest("nonce")?, time(&object, "begun")?);
        let provider = provider.clone();
        Ok(AwaitingSignIn(Box::new(SigningIn { provider, request, nonce, begun, announced })))
    }
}

/// What is inside must be for what is outside.
fn belongs(envelope: &Envelope, prepared: &Prepared) -> Result<(), Error> {
    let same = envelope.issuer == *prepared.server.issuer.issuer()
        && envelope.resource.as_ref() == Some(prepared.server.target.resource.resource());
    if same { Ok(()) } else { Err(HostMisuse::ForeignRecord.into()) }
}

/// A copy of what a session record is made of.
pub(crate) struct SessionInputs {
    client: Client,
    issuer: Issuer,
    resource: ResourceId,
    /// The issuer as the resource lists it, where the host gave its word for the pair.
    asserted: Option<Issuer>,
    content: Erased<Vec<u8>>,
}

impl fmt::Debug for SessionInputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInputs").field("resource", &self.resource).finish_non_exhaustive()
    }
}

impl SessionInputs {
    pub(crate) fn of(prepared: &Prepared, tokens: &Tokens) -> Self {
        let content = written(prepared)
            .string("access_token", tokens.access.expose())
            .optional_string("refresh_token", tokens.refresh.as_ref().map(RefreshToken::expose))
            .string("granted", tokens.scope.to_string())
            .string("first_granted", tokens.granted.to_string());
        let content = match tokens.expires {
            Some(at) => content.integer("expires", at.unix_timestamp()),
            None => content,
        };
        Self {
            client: prepared.server.target.client.clone(),
            issuer: prepared.server.issuer.issuer().clone(),
            resource: prepared.server.target.resource.resource().clone(),
            asserted: prepared.server.target.asserted.then(|| prepared.server.target.listed_issuer.clone()),
            content: Erased::new(content.finish()),
        }
    }

    pub(crate) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    pub(crate) fn resource(&self) -> &ResourceId {
        &self.resource
    }

    pub(crate) fn seal(&self, sealer: &dyn Sealer) -> Result<SessionRecord, Error> {
        let mut envelope = Envelope {
            kind: SESSION,
            version: SESSION.version,
            issuer: self.issuer.clone(),
            resource: Some(self.resource.clone()),
            agent: None,
            sealed: Vec::new(),
        };
        named(&self.client, sealer)?;
        envelope.sealed = sealer.seal(&envelope.associated(&self.client), &self.content)?;
        Ok(SessionRecord(envelope))
    }

    pub(crate) fn pairing(&self, sealer: &dyn Sealer) -> Result<Option<PairingRecord>, Error> {
        let Some(listed) = &self.asserted else { return Ok(None) };
        let place = (&self.issuer, Some(&self.resource), None);
        let content = ObjectWriter::new().string("listed_issuer", listed.as_str());
        Envelope::seal(PAIRING, &self.client, place, content, sealer)
            .map(|envelope| Some(PairingRecord(envelope)))
    }
}

impl PairingRecord {
    /// The word, for the resource it was given for and the issuer as that resource listed it.
    ///
    /// # Errors
    /// [`Error`] when the record does not open here: the word is asked for again.
    pub fn open(&self, client: &Client, sealer: &dyn Sealer) -> Result<IssuerForResource, Error> {
        let object = self.0.open(client, sealer)?;
        let resource = self.0.resource.clone().ok_or_else(foreign)?;
        let listed = Issuer::new(required(&object, "listed_issuer")?).map_err(|_| foreign())?;
        // What is inside is for what is outside.
        if listed != self.0.issuer && !listed.differs_by_root_slash(&self.0.issuer) {
            return Err(foreign());
        }
        Ok(IssuerForResource::assertion(resource, listed))
    }
}

impl SessionRecord {
    /// Brings the session back from the store that holds it under this version. Every check is made again.
    ///
    /// # Errors
    /// [`Error`] when the record does not open here, or would not pass today's checks.
    pub fn resume(
        self,
        client: &Client,
        sealer: &dyn Sealer,
        version: RecordVersion,
    ) -> Result<Session, Error> {
        let object = self.0.open(client, sealer)?;
        let prepared = read(client, &object)?;
        belongs(&self.0, &prepared)?;
        let foreign = || Error::from(HostMisuse::ForeignRecord);
        let refresh = object.string("refresh_token").map_err(|_| foreign())?;
        let tokens = Tokens {
            access: AccessToken::new(required(&object, "access_token")?).map_err(|_| foreign())?,
            expires: optional_time(&object, "expires")?,
            refresh: refresh.map(RefreshToken::new).transpose().map_err(|_| foreign())?,
            scope: scope(&object, "granted")?,
            granted: match object.get("first_granted") {
                Some(_) => scope(&object, "first_granted")?,
                // Before version 3, what was granted last stood for it.
                None => scope(&object, "granted")?,
            },
        };
        Ok(Session(Box::new(Held { prepared, tokens, version: Some(version) })))
    }
}

impl RegistrationRecord {
    pub(crate) fn seal(
        client: &Client,
        issuer: &Issuer,
        identity: &Identity,
        sealer: &dyn Sealer,
    ) -> Result<Self, Error> {
        let content = ObjectWriter::new().value("identity", JsonValue::Object(identity_written(identity)));
        Envelope::seal(REGISTRATION, client, (issuer, None, None), content, sealer).map(Self)
    }

    /// How the identity came about, and its redirect URI.
    pub(crate) fn redirect(
        &self,
        client: &Client,
        sealer: &dyn Sealer,
    ) -> Result<(IdentityKind, RedirectUri), Error> {
        let identity = identity(client, &self.0.open(client, sealer)?)?;
        Ok((identity.kind, identity.redirect_uri))
    }

    /// The identity, for the client and the issuer it was made for only.
    pub(crate) fn open(
        &self,
        client: &Client,
        issuer: &Issuer,
        sealer: &dyn Sealer,
    ) -> Result<Identity, Error> {
        // MCP-DISC-003, MCP-DISC-004, MCP-REG-052
        if self.0.issuer != *issuer {
            return Err(HostMisuse::ForeignRecord.into());
        }
        identity(client, &self.0.open(client, sealer)?)
    }
}
