//! Reading and writing the members of a JSON message: the rules all documents share.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::identifier::{Endpoint, Scope, ScopeSet};
use crate::syntax::json::{JsonObject, JsonValue, ObjectWriter};

use super::{Malformed, PageUri};

/// The members of a document. A member of another JSON type than asked for is an error, `null` included; one
/// that is absent is `None`.
pub(super) struct Members<'a>(&'a JsonObject);

impl<'a> Members<'a> {
    pub(super) fn of(object: &'a JsonObject) -> Self {
        Self(object)
    }

    pub(super) fn has(&self, name: &'static str) -> bool {
        self.0.get(name).is_some()
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<&'a str>, Malformed> {
        Ok(self.0.string(name)?)
    }

    /// Text that is there and not empty.
    pub(super) fn required_text(&self, name: &'static str) -> Result<&'a str, Malformed> {
        self.text(name)?.filter(|text| !text.is_empty()).ok_or(Malformed::Missing(name))
    }

    /// Text for a person or a log; empty text says nothing and counts as absent.
    pub(super) fn display_text(
        &self,
        name: &'static str,
        max_bytes: usize,
    ) -> Result<Option<String>, Malformed> {
        match self.text(name)? {
            None | Some("") => Ok(None),
            Some(text) if text.len() > max_bytes => Err(Malformed::Invalid(name)),
            Some(text) => Ok(Some(text.to_owned())),
        }
    }

    /// Text with a grammar, where present.
    pub(super) fn typed<T, E>(
        &self,
        name: &'static str,
        make: impl FnOnce(String) -> Result<T, E>,
    ) -> Result<Option<T>, Malformed> {
        match self.text(name)? {
            None => Ok(None),
            Some(text) => make(text.to_owned()).map(Some).map_err(|_| Malformed::Invalid(name)),
        }
    }

    /// Text with a grammar that must be there.
    pub(super) fn required_typed<T, E>(
        &self,
        name: &'static str,
        make: impl FnOnce(String) -> Result<T, E>,
    ) -> Result<T, Malformed> {
        self.required_text(name)?;
        self.typed(name, make)?.ok_or(Malformed::Missing(name))
    }

    /// An endpoint: https, or http on loopback; anything else refuses the document.
    pub(super) fn endpoint(&self, name: &'static str) -> Result<Option<Endpoint>, Malformed> {
        // MCP-SBP-041
        self.typed(name, Endpoint::new)
    }

    /// A link for a person; an empty one counts as absent.
    pub(super) fn page(&self, name: &'static str) -> Result<Option<PageUri>, Malformed> {
        match self.text(name)? {
            None | Some("") => Ok(None),
            Some(text) => PageUri::new(text).map(Some).map_err(|_| Malformed::Invalid(name)),
        }
    }

    pub(super) fn texts(&self, name: &'static str) -> Result<Option<Vec<String>>, Malformed> {
        Ok(self.0.strings(name)?.map(|texts| texts.into_iter().map(ToOwned::to_owned).collect()))
    }

    /// A list of values of one grammar, no longer than `most`.
    pub(super) fn typed_list<T, E>(
        &self,
        name: &'static str,
        most: usize,
        make: impl Fn(String) -> Result<T, E>,
    ) -> Result<Option<Vec<T>>, Malformed> {
        let Some(texts) = self.0.strings(name)? else { return Ok(None) };
        if texts.len() > most {
            return Err(Malformed::Invalid(name));
        }
        texts
            .into_iter()
            .map(|text| make(text.to_owned()).map_err(|_| Malformed::Invalid(name)))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// A flag whose absence means false.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Malformed> {
        Ok(self.0.boolean(name)?.unwrap_or(false))
    }

    /// A whole number, zero or more.
    pub(super) fn count(&self, name: &'static str) -> Result<Option<u64>, Malformed> {
        match self.0.integer(name)? {
            None => Ok(None),
            Some(number) => u64::try_from(number).map(Some).map_err(|_| Malformed::Invalid(name)),
        }
    }

    /// A whole number of seconds since 1970.
    pub(super) fn seconds(&self, name: &'static str) -> Result<Option<i64>, Malformed> {
        Ok(self.0.integer(name)?)
    }

    /// Scope as one string of tokens with single spaces between them; an empty string is the empty set, which grants
    /// nothing, and is not absence.
    pub(super) fn scope(&self, name: &'static str) -> Result<Option<ScopeSet>, Malformed> {
        match self.text(name)? {
            None => Ok(None),
            Some("") => Ok(Some(ScopeSet::new())),
            Some(text) => ScopeSet::parse(text).map(Some).map_err(|_| Malformed::Invalid(name)),
        }
    }

    /// Scope as an array of at most that many tokens. An array of none names no scope, as an absent one does, and is read
    /// as absent; of other lists that would make "nothing" out of it, which absence often is not.
    pub(super) fn scope_list(&self, name: &'static str, most: usize) -> Result<Option<ScopeSet>, Malformed> {
        // D36: bounded in count and length
        let scopes = self.typed_list(name, most, Scope::new)?;
        Ok(scopes.filter(|scopes| !scopes.is_empty()).map(ScopeSet::from_iter))
    }

    /// An object, kept as it is.
    pub(super) fn object(&self, name: &'static str) -> Result<Option<JsonObject>, Malformed> {
        Ok(self.0.object(name)?.cloned())
    }

    /// One string or an array of strings, each non-empty: the shape of `aud`.
    pub(super) fn one_or_more(&self, name: &'static str) -> Result<Option<Vec<String>>, Malformed> {
        let texts = match self.0.string(name) {
            Ok(None) => return Ok(None),
            Ok(Some(text)) => [text.to_owned()].into(),
            Err(_) => self.texts(name)?.unwrap_or_default(),
        };
        if texts.is_empty() || texts.iter().any(String::is_empty) {
            return Err(Malformed::Missing(name));
        }
        Ok(Some(texts))
    }
}

/// Writes a document member by member, so that it reads as it was: what is absent is left out, and so is an empty list
/// of a member of which absence says the same.
pub(super) struct Document(ObjectWriter);

impl Document {
    pub(super) fn new() -> Self {
        Self(ObjectWriter::new())
    }

    pub(super) fn text(self, name: &'static str, value: Option<&str>) -> Self {
        match value {
            Some(value) => Self(self.0.string(name, value)),
            None => self,
        }
    }

    pub(super) fn endpoint(self, name: &'static str, value: Option<&Endpoint>) -> Self {
        self.text(name, value.map(Endpoint::as_str))
    }

    pub(super) fn page(self, name: &'static str, value: Option<&PageUri>) -> Self {
        self.text(name, value.map(PageUri::as_str))
    }

    /// A list whose absence means that it has no element.
    pub(super) fn texts<'a>(self, name: &'static str, values: impl IntoIterator<Item = &'a str>) -> Self {
        // RFC8414-3.2-1, RFC9728-3.2-3
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() { self } else { Self(self.0.strings(name, values)) }
    }

    /// A list whose absence means something else than an empty one, commonly that a default holds.
    pub(super) fn list(self, name: &'static str, values: Option<&[String]>) -> Self {
        // I-G8
        match values {
            Some(values) => Self(self.0.strings(name, values)),
            None => self,
        }
    }

    pub(super) fn scope_list(self, name: &'static str, scopes: Option<&ScopeSet>) -> Self {
        self.texts(name, scopes.into_iter().flat_map(|scopes| scopes.iter().map(Scope::as_str)))
    }

    pub(super) fn scope(self, name: &'static str, scopes: Option<&ScopeSet>) -> Self {
        let text = scopes.map(ToString::to_string);
        self.text(name, text.as_deref())
    }

    /// One value as a string, more as an array: the shape of `aud`.
    pub(super) fn audience(self, name: &'static str, values: &[String]) -> Self {
        match values {
            [one] => self.text(name, Some(one)),
            values => self.texts(name, values.iter().map(String::as_str)),
        }
    }

    /// A flag whose absence means false.
    pub(super) fn flag(self, name: &'static str, value: bool) -> Self {
        if value { Self(self.0.boolean(name, true)) } else { self }
    }

    pub(super) fn boolean(self, name: &'static str, value: bool) -> Self {
        Self(self.0.boolean(name, value))
    }

    pub(super) fn count(self, name: &'static str, value: Option<u64>) -> Self {
        self.seconds(name, value.map(|value| i64::try_from(value).unwrap_or(i64::MAX)))
    }

    pub(super) fn seconds(self, name: &'static str, value: Option<i64>) -> Self {
        match value {
            Some(value) => Self(self.0.integer(name, value)),
            None => self,
        }
    }

    pub(super) fn object(self, name: &'static str, value: Option<&JsonObject>) -> Self {
        match value {
            Some(value) => Self(self.0.value(name, JsonValue::Object(value.clone()))),
            None => self,
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0.finish()
    }
}
