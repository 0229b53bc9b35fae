//! The revocation request (RFC 7009 section 2.1). Its answer is a status, its error a
//! [`TokenErrorResponse`](super::token::TokenErrorResponse).

use alloc::string::String;
use alloc::vec::Vec;

use crate::secret::SubmittedToken;
use crate::syntax::form::{self, Form};

use super::Malformed;
use super::token::{ClientParameters, typed};

/// What kind of token the sender takes it for; it may be wrong (RFC 7009 section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenTypeHint {
    /// `access_token`.
    AccessToken,
    /// `refresh_token`.
    RefreshToken,
}

impl TokenTypeHint {
    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "access_token",
            Self::RefreshToken => "refresh_token",
        }
    }

    /// Reads a hint; one that is not known says nothing.
    pub(super) fn read(form: &Form) -> Option<Self> {
        // RFC7009-2.1-3, RFC7662-2.1-3
        match form.get("token_type_hint")? {
            "access_token" => Some(Self::AccessToken),
            "refresh_token" => Some(Self::RefreshToken),
            _ => None,
        }
    }
}

/// A revocation request.
#[derive(Debug, Clone)]
pub struct RevocationRequest {
    /// `token`.
    pub token: SubmittedToken,
    /// `token_type_hint`.
    pub token_type_hint: Option<TokenTypeHint>,
    /// What the body says about the client.
    pub client: ClientParameters,
}

impl RevocationRequest {
    /// Reads the body of a POST.
    ///
    /// # Errors
    /// [`Malformed`] for broken encoding, a repeated parameter, no `token`, and a value outside its grammar.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        Self::from_form(&Form::parse(body)?)
    }

    /// Reads a form.
    ///
    /// # Errors
    /// As [`RevocationRequest::parse`].
    pub fn from_form(form: &Form) -> Result<Self, Malformed> {
        Ok(Self {
            token: typed(form, "token", SubmittedToken::new)?.ok_or(Malformed::Missing("token"))?,
            token_type_hint: TokenTypeHint::read(form),
            client: ClientParameters::from_form(form)?,
        })
    }

    /// The body of the POST, each parameter once, in a fixed order. It holds secrets.
    pub fn render(&self) -> String {
        // RFC7009-2.1-1
        render(&self.token, self.token_type_hint, &self.client)
    }
}

/// The form that revocation and introspection share.
pub(super) fn render(
    token: &SubmittedToken,
    hint: Option<TokenTypeHint>,
    client: &ClientParameters,
) -> String {
    let mut pairs: Vec<(&str, &str)> = [("token", token.expose())].into();
    pairs.extend(hint.map(|hint| ("token_type_hint", hint.as_str())));
    pairs.extend(client.pairs());
    form::encode(pairs)
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::prelude::*;

    use super::super::arbitrary::CANARY;
    use super::*;
    use crate::identifier::ClientId;

    #[test]
    fn a_request_without_token_or_with_two_is_refused() {
        // RFC7009-2.1-1
        let parse = |body: &str| RevocationRequest::parse(body.as_bytes());
        assert_eq!(parse("client_id=c").unwrap_err(), Malformed::Missing("token"));
        assert_eq!(parse("token=&client_id=c").unwrap_err(), Malformed::Missing("token"));
        assert!(matches!(parse("token=a&token=b"), Err(Malformed::Form(_))));
        assert_eq!(parse("token=a%0Ab").unwrap_err(), Malformed::Invalid("token"));
    }

    #[test]
    fn a_hint_that_is_not_known_says_nothing() {
        // RFC7009-2.1-3
        let hint = |text: &str| {
            RevocationRequest::parse(format!("token=t&token_type_hint={text}").as_bytes())
                .unwrap()
                .token_type_hint
        };
        assert_eq!(hint("refresh_token"), Some(TokenTypeHint::RefreshToken));
        assert_eq!(hint("access_token"), Some(TokenTypeHint::AccessToken));
        assert_eq!(hint("pat"), None);
        assert_eq!(hint(""), None);
    }

    #[test]
    fn debug_shows_no_token() {
        // I-G7
        let request =
            RevocationRequest::parse(format!("token={CANARY}&client_secret={CANARY}").as_bytes()).unwrap();
        assert!(!format!("{request:?}").contains(CANARY), "{request:?}");
    }

    proptest! {
        #[test]
        fn a_request_reads_back_the_same(token in "[ -~]{1,40}", refresh: bool) {
            let sent = RevocationRequest {
                token: SubmittedToken::new(token.clone()).unwrap(),
                token_type_hint: refresh.then_some(TokenTypeHint::RefreshToken),
                client: ClientParameters::public(ClientId::new("c").unwrap()),
            };
            let read = RevocationRequest::parse(sent.render().as_bytes()).unwrap();
            prop_assert_eq!(read.token.expose(), token);
            prop_assert_eq!(read.token_type_hint, sent.token_type_hint);
            prop_assert_eq!(read.client.client_id, sent.client.client_id);
        }
    }
}
