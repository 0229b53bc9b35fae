//! From the head of a request to one presented token: RFC 6750 section 2, OAuth 2.1 section 5.1, RFC 9110 section 11.
//!
//! | what the request has | answer |
//! |---|---|
//! | one `Authorization` field, `Bearer` and one token68 | the token |
//! | no field, or one of another scheme | 401, no error code |
//! | a token in the query alone | 401, no error code: it is not looked at |
//! | a token in the query or body besides the field | 400 |
//! | two fields, or `Bearer` with anything but one token68 | 400 |
//!
//! Whether the request is addressed to this server at all is decided first ([`ResourceServer::addressed`]).

use alloc::boxed::Box;

use super::ResourceServer;
use super::denial::{Denial, DenialReason};
use super::scope::RequiredScopes;
use crate::limits;
use crate::message::exchange::RequestHead;
use crate::secret::{BearerToken, SecretDigest};

/// A token somebody presented: nothing about it is known. It has one use, to be verified.
#[derive(Debug)]
#[must_use = "a presented token has to be verified before the request is handled"]
pub struct PresentedToken(Box<Presented>);

#[derive(Debug)]
pub(super) struct Presented {
    pub(super) server: ResourceServer,
    pub(super) token: BearerToken,
    pub(super) required: RequiredScopes,
    /// Known once a cache was asked.
    pub(super) digest: Option<SecretDigest>,
}

impl ResourceServer {
    /// Takes the one token out of a request's head.
    ///
    /// `required` are the scopes of the operation as far as the head tells; denials name them, so that a client asks
    /// for the right ones at once. The query is the target's own and the body is not read here: a host whose
    /// endpoints take forms uses [`ResourceServer::admit_form`].
    ///
    /// # Errors
    /// The [`Denial`] to answer with, by the table above.
    pub fn admit(&self, head: &RequestHead, required: &RequiredScopes) -> Result<PresentedToken, Denial> {
        let in_query = head.query().is_some_and(|query| names_a_token(query.as_bytes()));
        self.admit_with(head, in_query, required)
    }

    /// As [`ResourceServer::admit`] for a request whose body is a form: a token in it is refused like one in the query.
    ///
    /// # Errors
    /// As [`ResourceServer::admit`].
    pub fn admit_form(
        &self,
        head: &RequestHead,
        form: &[u8],
        required: &RequiredScopes,
    ) -> Result<PresentedToken, Denial> {
        // OAUTH21-5.1.2-1: no token is taken from a body.
        let in_query = head.query().is_some_and(|query| names_a_token(query.as_bytes()));
        self.admit_with(head, in_query || names_a_token(form), required)
    }

    fn admit_with(
        &self,
        head: &RequestHead,
        elsewhere: bool,
        required: &RequiredScopes,
    ) -> Result<PresentedToken, Denial> {
        // I-A11: before any word about tokens.
        let token = self.check_addressed(head).and_then(|()| bearer_token(head, elsewhere));
        match token {
            Ok(token) => Ok(PresentedToken(Box::new(Presented {
                server: self.clone(),
                token,
                required: required.clone(),
                digest: None,
            }))),
            Err(reason) => Err(Denial::new(self, required, reason)),
        }
    }
}

impl PresentedToken {
    /// The SHA-256 of the whole token, computed once. A host that keeps a [`TokenCache`](super::TokenCache) behind a
    /// lock calls this before it takes the lock.
    pub fn digest(&mut self) -> SecretDigest {
        // MCP-SEC-002
        let presented = &mut *self.0;
        *presented.digest.get_or_insert_with(|| presented.token.digest())
    }

    pub(super) fn into_interior(self) -> Box<Presented> {
        self.0
    }

    pub(super) fn interior_mut(&mut self) -> &mut Presented {
        &mut self.0
    }
}

fn bearer_token(head: &RequestHead, elsewhere: bool) -> Result<BearerToken, DenialReason> {
    // MCP-SBP-031, MCP-L1125-002: nothing but this field is ever a credential; a session or state handle is none.
    let mut fields = head.shared_authorization();
    let field = match (fields.next(), fields.next()) {
        // MCP-AUTH-092: two credentials, and no rule for which of them counts.
        (Some(_), Some(_)) => return Err(DenialReason::SeveralCredentials),
        (Some(_), None) if elsewhere => return Err(DenialReason::SeveralCredentials),
        // OAUTH21-5.1-2: a token in a URI has been in logs and referrers; it counts for nothing.
        (None, _) if elsewhere => return Err(DenialReason::TokenOutsideHeader),
        (None, _) => return Err(DenialReason::NoCredentials),
        (Some(field), None) => field,
    };
    if field.len() > limits::FIELD_BYTES {
        return Err(DenialReason::MalformedCredentials);
    }
    let scheme_end = field.iter().position(|byte| *byte == b' ').unwrap_or(field.len());
    let (scheme, rest) = field.split_at_checked(scheme_end).ok_or(DenialReason::MalformedCredentials)?;
    if scheme.is_empty() || !scheme.iter().all(|byte| is_token_byte(*byte)) {
        return Err(DenialReason::MalformedCredentials);
    }
    // RFC6750-2.1-1, OAUTH21-5.1.1-1
    if !scheme.eq_ignore_ascii_case(b"Bearer") {
        return Err(DenialReason::OtherScheme);
    }
    // I-A10: one token68 behind one or more spaces, nothing after it, and no other white space anywhere.
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    let start = scheme_end.saturating_add(spaces);
    BearerToken::in_field(field, start).map_err(|_| DenialReason::MalformedCredentials)
}

/// RFC 9110 section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether form-encoded text has a parameter `access_token`, however it is escaped and however broken the rest is.
fn names_a_token(encoded: &[u8]) -> bool {
    encoded.split(|byte| matches!(byte, b'&' | b';')).any(|pair| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        unescaped(name).eq(b"access_token".iter().copied())
    })
}

/// The bytes of a name after percent-decoding; a broken escape stands for itself.
fn unescaped(name: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = name;
    core::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        if let (b'%', Some((escape, after))) = (*first, after.split_at_checked(2)) {
            let text = core::str::from_utf8(escape).ok();
            if let Some(byte) = text.and_then(|text| u8::from_str_radix(text, 16).ok()) {
                rest = after;
                return Some(byte);
            }
        }
        rest = after;
        Some(*first)
    })
}
