//! The header fields in which a request of MCP 2026-07-28 repeats its body, so that gateways need not read it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};

/// The revision of MCP a request is of.
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";

/// The JSON-RPC method of the body.
pub const METHOD: &str = "mcp-method";

/// What the body is about: the name of a tool or prompt, or the URI of a resource.
pub const NAME: &str = "mcp-name";

/// The first revision that has [`METHOD`] and [`NAME`]. Revisions are dates, and compare as text.
const FIRST_REVISION: &str = "2026-07-28";

const ENCODED_START: &str = "=?base64?";
const ENCODED_END: &str = "?=";

/// The field value for a text: the text itself where a field can hold it, and otherwise its Base64 between markers.
///
/// A text that looks encoded is encoded as well, so that it comes out as what it was.
pub fn value(text: &str) -> HeaderValue {
    let plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && text.trim_matches(' ') == text
        && !is_encoded(text.as_bytes());
    let field = if plain { HeaderValue::from_str(text) } else { HeaderValue::from_str(&encoded(text)) };
    // Both are printable ASCII, which a field value may hold.
    field.unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Whether a field value says this text.
pub fn says(field: &HeaderValue, text: &str) -> bool {
    if is_encoded(field.as_bytes()) {
        // One text has one encoding: no other spelling of it is taken.
        return field.as_bytes() == encoded(text).as_bytes();
    }
    field.as_bytes() == text.as_bytes()
}

/// Whether the head is of a revision in which every request has [`METHOD`], and [`NAME`] where it has a name.
pub fn are_required(headers: &HeaderMap) -> bool {
    let revision = headers.get(PROTOCOL_VERSION).and_then(|revision| revision.to_str().ok());
    revision.is_some_and(|revision| revision >= FIRST_REVISION)
}

fn is_encoded(field: &[u8]) -> bool {
    field.starts_with(ENCODED_START.as_bytes()) && field.ends_with(ENCODED_END.as_bytes())
}

fn encoded(text: &str) -> String {
    format!("{ENCODED_START}{}{ENCODED_END}", STANDARD.encode(text))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::{says, value};

    #[test]
    fn a_text_that_a_field_cannot_hold_is_encoded() {
        for (text, field) in [
            ("write_note", "write_note"),
            ("file:///a b", "file:///a b"),
            ("caf\u{e9}", "=?base64?Y2Fmw6k=?="),
            (" a", "=?base64?IGE=?="),
            ("a\r\nb", "=?base64?YQ0KYg==?="),
            ("=?base64?YQ==?=", "=?base64?PT9iYXNlNjQ/WVE9PT89?="),
        ] {
            assert_eq!(value(text), field, "{text}");
        }
    }

    #[test]
    fn one_text_has_one_encoding() {
        let field = |text: &'static str| HeaderValue::from_static(text);
        assert!(says(&field("=?base64?YQ==?="), "a"));
        for other in ["=?base64?YQ?=", "=?base64?YR==?=", "=?BASE64?YQ==?=", "=?base64?YQ==", ""] {
            assert!(!says(&field(other), "a"), "{other}");
        }
        assert!(
            !says(&field("=?base64?YQ==?="), "=?base64?YQ==?="),
            "a marked field is never taken as it stands"
        );
    }

    proptest! {
        #[test]
        fn a_value_says_its_text_and_no_other(text in any::<String>(), other in any::<String>()) {
            prop_assert!(says(&value(&text), &text));
            prop_assert_eq!(says(&value(&text), &other), text == other);
        }

        #[test]
        fn near_texts_are_told_apart(text in "(=\\?base64\\?)?[ aQ=]{0,4}(\\?=)?", other in "(=\\?base64\\?)?[ aQ=]{0,4}(\\?=)?") {
            prop_assert_eq!(says(&value(&text), &other), text == other);
        }
    }
}
