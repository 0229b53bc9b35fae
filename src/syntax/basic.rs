//! HTTP Basic as OAuth uses it: both halves form-encoded before they are joined (OAuth 2.1 section 2.4.1).

use alloc::string::{String, ToString as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::limits;
use crate::secret::ClientSecret;
use crate::syntax::form;

/// Not a well-formed Basic credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed Basic credential of a form-encoded client id and secret")]
pub struct BasicError;

/// The value of the `Authorization` field.
pub fn encode(client_id: &str, secret: &ClientSecret) -> Zeroizing<String> {
    // OAUTH21-2.4.1-5: each half is form-encoded before the colon joins them.
    let id = form::encode_component(client_id);
    let secret = Zeroizing::new(form::encode_component(secret.expose()));
    let pair = Zeroizing::new([id.as_str(), ":", &secret].concat());
    let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    Zeroizing::new(["Basic ", &encoded].concat())
}

/// Whether the field value's scheme is Basic, in any case.
pub fn is_basic(field: &[u8]) -> bool {
    field.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"Basic "))
}

/// Reads the value of an `Authorization` field; the scheme is matched without regard to case.
///
/// # Errors
/// [`BasicError`] for another scheme, non-canonical base64, a missing colon, broken form-encoding or empty halves.
pub fn decode(field: &[u8]) -> Result<(String, ClientSecret), BasicError> {
    // OAUTH21-2.4.1-6
    if field.len() > limits::FIELD_BYTES || !is_basic(field) {
        return Err(BasicError);
    }
    let credential = field.get(6..).unwrap_or_default();
    let spaces = credential.iter().take_while(|byte| **byte == b' ').count();
    let credential = credential.get(spaces..).unwrap_or_default();
    let pair = Zeroizing::new(STANDARD.decode(credential).map_err(|_| BasicError)?);
    let pair = core::str::from_utf8(&pair).map_err(|_| BasicError)?;
    let (id, secret) = pair.split_once(':').ok_or(BasicError)?;
    let id = form::decode_component(id).map_err(|_| BasicError)?;
    let secret = Zeroizing::new(form::decode_component(secret).map_err(|_| BasicError)?);
    if id.is_empty() {
        return Err(BasicError);
    }
    Ok((id, ClientSecret::new(secret.to_string()).map_err(|_| BasicError)?))
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::{decode, encode};
    use crate::limits;
    use crate::secret::ClientSecret;

    fn field(pair: &str) -> String {
        ["Basic ", &STANDARD.encode(pair)].concat()
    }

    #[test]
    fn halves_are_form_encoded() {
        let secret = ClientSecret::new("p:a ss%+").unwrap();
        assert_eq!(*encode("id:1 x", &secret), field("id%3A1+x:p%3Aa+ss%25%2B"));
    }

    #[test]
    fn broken_credentials_are_refused() {
        for pair in ["id", ":secret", "id:", "id:a b", "id:%zz", "id:a:b\n"] {
            assert!(decode(field(pair).as_bytes()).is_err(), "{pair}");
        }
        for text in [
            "",
            "Basic",
            "Basic ",
            "Basic %%%",
            "Bearer aWQ6cw==",
            "Basic aWQ6cw",
            "Basic aWQ6cw==,",
            "Basic aWQ6cx==",
        ] {
            assert!(decode(text.as_bytes()).is_err(), "{text}");
        }
        for text in ["Basic\taWQ6cw==", "Basic aWQ6cw== ", "Basic aWQ6cw==, Basic aWQ6cw==", "Basic aWQ_cw=="]
        {
            assert!(decode(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(decode(field(":secret").as_bytes()).is_err(), "an empty identifier");
        assert!(decode(&[&b"Basic "[..], STANDARD.encode(b"\xff:s").as_bytes()].concat()).is_err());
        for text in ["bAsIc aWQ6cw==", "Basic   aWQ6cw=="] {
            assert!(decode(text.as_bytes()).is_ok(), "{text}");
        }
    }

    // I-G1
    #[test]
    fn size_is_bounded() {
        let padded = |bytes: usize| ["Basic", &" ".repeat(bytes - 13), "aWQ6cw=="].concat();
        assert!(decode(padded(limits::FIELD_BYTES).as_bytes()).is_ok());
        assert!(decode(padded(limits::FIELD_BYTES + 1).as_bytes()).is_err());
    }

    #[test]
    fn an_identifier_may_be_a_url() {
        let secret = ClientSecret::new("s").unwrap();
        let (id, _) = decode(encode("https://c.example/m.json", &secret).as_bytes()).unwrap();
        assert_eq!(id, "https://c.example/m.json");
    }

    // I-G7
    #[test]
    fn the_secret_stays_out_of_debug() {
        let shown = std::format!("{:?}", decode(field("id:canary").as_bytes()));
        assert!(!shown.contains("canary"), "{shown}");
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(id in ".{1,30}", secret in "[ -~]{1,40}") {
            let (got_id, got_secret) = decode(encode(&id, &ClientSecret::new(&*secret).unwrap()).as_bytes()).unwrap();
            prop_assert_eq!(got_id, id);
            prop_assert_eq!(got_secret.expose(), secret);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes);
        }
    }
}
