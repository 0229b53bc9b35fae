//! The stored form of a record: how it is written, and how its members are read.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Epochs, GrantRecord, InvalidRecord};
use crate::identifier::{RedirectUri, ScopeSet};
use crate::limits;
use crate::pkce::CodeChallenge;
use crate::secret::SecretDigest;
use crate::syntax::base64url;
use crate::syntax::flat::FlatObject;
use crate::syntax::json::ObjectText;
use crate::time::OffsetDateTime;

/// Largest stored record, in bytes: what was accepted must fit. A client's metadata is kept as text inside the
/// record, where each quotation mark and backslash takes twice its place.
const RECORD_BYTES: usize = 4 * limits::DOCUMENT_BYTES;

const VERSION: i64 = 1;

/// A record that is being written, member by member.
pub(super) struct Written(ObjectText);

impl Written {
    /// A record of that kind.
    pub(super) fn new(kind: &'static str) -> Self {
        Self(ObjectText::with_room_for(768)).string("kind", kind).integer("version", VERSION)
    }

    pub(super) fn string(mut self, name: &'static str, text: &str) -> Self {
        self.0.member(name).string(text);
        self
    }

    pub(super) fn bytes(self, name: &'static str, bytes: &[u8]) -> Self {
        self.string(name, &base64url::encode(bytes))
    }

    pub(super) fn scope(mut self, name: &'static str, scope: &ScopeSet) -> Self {
        self.0.member(name).words(scope.iter().map(|scope| scope.as_str()));
        self
    }

    pub(super) fn integer(mut self, name: &'static str, number: i64) -> Self {
        self.0.member(name).integer(number);
        self
    }

    pub(super) fn time(self, name: &'static str, at: OffsetDateTime) -> Self {
        self.integer(name, at.unix_timestamp())
    }

    pub(super) fn boolean(mut self, name: &'static str, value: bool) -> Self {
        self.0.member(name).boolean(value);
        self
    }

    /// The members of a grant, beside those of what was issued under it.
    pub(super) fn grant(self, grant: &GrantRecord) -> Self {
        self.bytes("family", grant.family.as_bytes())
            .string("client_id", grant.client_id.as_str())
            .string("subject", &grant.subject)
            .string("resource", grant.resource.as_str())
            .scope("scope", &grant.scope)
            .epochs(grant.epochs)
            .time("authenticated", grant.authenticated)
            .time("not_after", grant.not_after)
    }

    pub(super) fn epochs(self, Epochs { client, subject, consent }: Epochs) -> Self {
        self.string("epochs", &alloc::format!("{client} {subject} {consent}"))
    }

    /// Adds what there is.
    pub(super) fn optional<T>(self, value: Option<T>, add: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => add(self, value),
            None => self,
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0.finish()
    }
}

/// The members of a stored record.
pub(super) struct Members<'a>(FlatObject<'a>);

impl<'a> Members<'a> {
    /// Those of a record of that kind, in the version that this program knows.
    pub(super) fn of(kind: &'static str, bytes: &'a [u8]) -> Result<Self, InvalidRecord> {
        let object = FlatObject::parse(bytes, RECORD_BYTES).map_err(|_| InvalidRecord::Kind(kind))?;
        let same = object.string("kind") == Ok(Some(kind)) && object.integer("version") == Ok(Some(VERSION));
        if same { Ok(Self(object)) } else { Err(InvalidRecord::Kind(kind)) }
    }

    pub(super) fn has(&self, name: &'static str) -> bool {
        self.0.has(name)
    }

    pub(super) fn required(&self, name: &'static str) -> Result<&str, InvalidRecord> {
        self.0.required_string(name).map_err(|_| InvalidRecord::Member(name))
    }

    pub(super) fn optional(&self, name: &'static str) -> Result<Option<&str>, InvalidRecord> {
        self.0.string(name).map_err(|_| InvalidRecord::Member(name))
    }

    /// What is made of a string.
    pub(super) fn parsed<T, E>(
        &self,
        name: &'static str,
        make: impl FnOnce(String) -> Result<T, E>,
    ) -> Result<T, InvalidRecord> {
        make(self.required(name)?.into()).map_err(|_| InvalidRecord::Member(name))
    }

    pub(super) fn redirect_uri(&self) -> Result<RedirectUri, InvalidRecord> {
        let make =
            |text: String| RedirectUri::new(text.clone()).or_else(|_| RedirectUri::private_scheme(text));
        self.parsed("redirect_uri", make)
    }

    pub(super) fn subject(&self) -> Result<Arc<str>, InvalidRecord> {
        let subject = self.required("subject")?;
        if subject.is_empty() { Err(InvalidRecord::Member("subject")) } else { Ok(subject.into()) }
    }

    pub(super) fn scope(&self, name: &'static str) -> Result<ScopeSet, InvalidRecord> {
        match self.required(name)? {
            "" => Ok(ScopeSet::new()),
            text => ScopeSet::parse(text).map_err(|_| InvalidRecord::Member(name)),
        }
    }

    pub(super) fn challenge(&self) -> Result<CodeChallenge, InvalidRecord> {
        CodeChallenge::parse(self.required("challenge")?).map_err(|_| InvalidRecord::Member("challenge"))
    }

    pub(super) fn grant(&self) -> Result<GrantRecord, InvalidRecord> {
        Ok(GrantRecord {
            family: super::FamilyId::from_bytes(self.bytes("family")?),
            client_id: self.parsed("client_id", super::ClientId::new)?,
            subject: self.subject()?,
            resource: self.parsed("resource", super::ResourceId::new)?,
            scope: self.scope("scope")?,
            epochs: self.epochs()?,
            authenticated: self.time("authenticated")?,
            not_after: self.time("not_after")?,
        })
    }

    pub(super) fn epochs(&self) -> Result<Epochs, InvalidRecord> {
        let wrong = InvalidRecord::Member("epochs");
        let mut numbers = self.required("epochs")?.split(' ').map(str::parse::<u64>);
        let mut number = || numbers.next().and_then(Result::ok).ok_or(wrong);
        let epochs = Epochs { client: number()?, subject: number()?, consent: number()? };
        if numbers.next().is_some() { Err(wrong) } else { Ok(epochs) }
    }

    pub(super) fn boolean(&self, name: &'static str) -> Result<bool, InvalidRecord> {
        self.0.boolean(name).ok().flatten().ok_or(InvalidRecord::Member(name))
    }

    /// A member that is there and true, or not there.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, InvalidRecord> {
        match self.0.boolean(name) {
            Ok(None) => Ok(false),
            Ok(Some(true)) => Ok(true),
            _ => Err(InvalidRecord::Member(name)),
        }
    }

    pub(super) fn optional_time(&self, name: &'static str) -> Result<Option<OffsetDateTime>, InvalidRecord> {
        let wrong = InvalidRecord::Member(name);
        let seconds = self.0.integer(name).map_err(|_| wrong)?;
        seconds.map(|at| OffsetDateTime::from_unix_timestamp(at).map_err(|_| wrong)).transpose()
    }

    pub(super) fn time(&self, name: &'static str) -> Result<OffsetDateTime, InvalidRecord> {
        self.optional_time(name)?.ok_or(InvalidRecord::Member(name))
    }

    pub(super) fn digest(&self, name: &'static str) -> Result<SecretDigest, InvalidRecord> {
        self.bytes(name).map(SecretDigest::from_bytes)
    }

    pub(super) fn optional_digest(&self, name: &'static str) -> Result<Option<SecretDigest>, InvalidRecord> {
        if self.has(name) { self.digest(name).map(Some) } else { Ok(None) }
    }

    pub(super) fn bytes<const N: usize>(&self, name: &'static str) -> Result<[u8; N], InvalidRecord> {
        let bytes = base64url::decode(self.required(name)?).map_err(|_| InvalidRecord::Member(name))?;
        bytes.try_into().map_err(|_| InvalidRecord::Member(name))
    }
}
