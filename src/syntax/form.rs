//! `application/x-www-form-urlencoded`: bodies and queries, read strictly and written (RFC 6749 appendix B).
//!
//! A repeated name is an error, so that no two readers can pick different values (I-G2).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use crate::limits;

/// Why bytes are not an acceptable form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormError {
    /// More bytes or parameters than the core reads.
    #[error("the form is too large")]
    TooLarge,
    /// A percent sign without two hexadecimal digits, or a byte that must be escaped.
    #[error("the form has a character that must be escaped, or a broken escape")]
    Escape,
    /// The decoded text is not UTF-8.
    #[error("the form is not UTF-8")]
    Utf8,
    /// A name stands twice.
    #[error("the form repeats a parameter")]
    Duplicate,
}

/// A decoded form without repeated names. Values may be secrets: `Debug` shows names only, and memory is erased.
#[derive(Clone, Default)]
pub struct Form {
    /// Names and values, decoded, one behind the other.
    text: Zeroizing<String>,
    /// Of each parameter: where its name begins, where it ends and the value begins, and where that ends.
    bounds: Vec<[usize; 3]>,
}

impl Form {
    /// Reads a form body or the query of a URL (without its question mark). No bytes are an empty form.
    ///
    /// # Errors
    /// [`FormError`], never with the text itself.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormError> {
        // OAUTH21-7.11-1, OAUTH21-7.11-2: length and syntax before use.
        if bytes.len() > limits::FORM_BYTES {
            return Err(FormError::TooLarge);
        }
        let mut text = Zeroizing::new(String::with_capacity(bytes.len()));
        let mut form = Self { text: Zeroizing::default(), bounds: Vec::with_capacity(8) };
        for pair in bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            if form.bounds.len() == limits::FORM_PARAMETERS {
                return Err(FormError::TooLarge);
            }
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let begin = text.len();
            decode_onto(&mut text, halves.next().unwrap_or_default())?;
            let middle = text.len();
            decode_onto(&mut text, halves.next().unwrap_or_default())?;
            form.bounds.push([begin, middle, text.len()]);
        }
        form.text = text;
        // OAUTH21-3.1-7, OAUTH21-3.2-4, OAUTH21-4.1.2-6: a parameter stands once.
        let mut names = form.names();
        while let Some(name) = names.next() {
            if names.clone().any(|other| other == name) {
                return Err(FormError::Duplicate);
            }
        }
        drop(names);
        Ok(form)
    }

    /// The value of a parameter; an empty value counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        // OAUTH21-3.1-8, OAUTH21-3.2-3
        let (_, value) = self.pairs().find(|(known, _)| *known == name)?;
        (!value.is_empty()).then_some(value)
    }

    /// Whether the name occurs, with or without a value.
    pub fn has_name(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.pairs().map(|(name, _)| name)
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.bounds.iter().map(|[begin, middle, end]| {
            let of = |range| self.text.get(range).unwrap_or_default();
            (of(*begin..*middle), of(*middle..*end))
        })
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// Encodes pairs; spaces become `+`, everything outside `A-Za-z0-9*-._` is escaped.
pub fn encode<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    // OAUTH21-B-1
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        push_encoded(&mut out, name);
        out.push('=');
        push_encoded(&mut out, value);
    }
    out
}

/// Encodes one name or value.
pub fn encode_component(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_encoded(&mut out, text);
    out
}

/// Decodes one name or value.
///
/// # Errors
/// [`FormError`] for a broken escape, a byte that must be escaped, or text that is not UTF-8.
pub fn decode_component(text: &str) -> Result<String, FormError> {
    let mut decoded = String::with_capacity(text.len());
    decode_onto(&mut decoded, text.as_bytes())?;
    Ok(decoded)
}

fn push_encoded(out: &mut String, text: &str) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or('0');
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => {
                out.push('%');
                out.push(digit(byte >> 4));
                out.push(digit(byte & 0x0f));
            }
        }
    }
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Decodes one name or value onto the end of a text that has room for it.
fn decode_onto(text: &mut String, bytes: &[u8]) -> Result<(), FormError> {
    let plain = bytes.iter().all(|byte| matches!(byte, 0x21..=0x7e) && !matches!(byte, b'%' | b'+'));
    if let (true, Ok(bytes)) = (plain, core::str::from_utf8(bytes)) {
        text.push_str(bytes);
        return Ok(());
    }
    let mut decoded = Zeroizing::new(Vec::with_capacity(bytes.len()));
    let mut rest = bytes.iter().copied();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let high = rest.next().and_then(hex).ok_or(FormError::Escape)?;
                let low = rest.next().and_then(hex).ok_or(FormError::Escape)?;
                decoded.push((high << 4) | low);
            }
            // Controls, spaces and bytes beyond ASCII never stand raw in a form (I-G1: no second reading).
            0x00..=0x20 | 0x7f.. => return Err(FormError::Escape),
            _ => decoded.push(byte),
        }
    }
    text.push_str(core::str::from_utf8(&decoded).map_err(|_| FormError::Utf8)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::{String, ToString};

    use proptest::prelude::*;

    use super::{Form, FormError, decode_component, encode, encode_component};
    use crate::limits;

    #[test]
    fn reads_what_forms_hold() {
        let form = Form::parse(b"a=1&b=x+y%20z&empty=&flag&%C3%A4=%e2%82%ac&&").unwrap();
        assert_eq!(form.get("a"), Some("1"));
        assert_eq!(form.get("b"), Some("x y z"));
        assert_eq!(form.get("ä"), Some("€"));
        assert_eq!(form.get("empty"), None);
        assert!(form.has_name("empty") && form.has_name("flag") && !form.has_name("other"));
        assert_eq!(form.names().count(), 5);
        assert!(Form::parse(b"").unwrap().names().next().is_none());
        assert_eq!(Form::parse(b"a=b=c").unwrap().get("a"), Some("b=c"));
    }

    #[test]
    fn a_repeated_name_is_an_error_however_it_is_spelled() {
        for text in ["a=1&a=2", "a=1&a=1", "a=&a=1", "a&a", "a=1&%61=1", "=1&=2"] {
            assert_eq!(Form::parse(text.as_bytes()).unwrap_err(), FormError::Duplicate, "{text}");
        }
        assert!(Form::parse(b"a=1&A=2").is_ok(), "names are case-sensitive");
    }

    #[test]
    fn broken_text_is_refused() {
        for text in ["a=%", "a=%2", "a=%zz", "a=b c", "a=\u{1}", "a=\u{7f}", "a=ä", "a=b\r\n"] {
            assert_eq!(Form::parse(text.as_bytes()).unwrap_err(), FormError::Escape, "{text:?}");
        }
        for text in ["a=%ff", "a=%c3", "a=%ed%a0%80", "a=%c0%80"] {
            assert_eq!(Form::parse(text.as_bytes()).unwrap_err(), FormError::Utf8, "{text}");
        }
    }

    #[test]
    fn size_is_bounded() {
        let long = |bytes: usize| format!("a={}", "x".repeat(bytes - 2));
        assert!(Form::parse(long(limits::FORM_BYTES).as_bytes()).is_ok());
        assert_eq!(Form::parse(long(limits::FORM_BYTES + 1).as_bytes()).unwrap_err(), FormError::TooLarge);
        let many = |count: usize| (0..count).map(|n| format!("p{n}=1&")).collect::<String>();
        assert!(Form::parse(many(limits::FORM_PARAMETERS).as_bytes()).is_ok());
        assert_eq!(
            Form::parse(many(limits::FORM_PARAMETERS + 1).as_bytes()).unwrap_err(),
            FormError::TooLarge
        );
    }

    #[test]
    fn values_stay_out_of_debug() {
        let form = Form::parse(b"code=canary").unwrap();
        assert_eq!(format!("{form:?}"), "{\"code\"}");
    }

    proptest! {
        // I-G1
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Form::parse(&bytes);
        }

        #[test]
        fn what_is_written_is_read_back(pairs in proptest::collection::btree_map(".{0,12}", ".{0,24}", 0..8)) {
            let text = encode(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            let form = Form::parse(text.as_bytes()).unwrap();
            for (name, value) in &pairs {
                let expected = (!value.is_empty()).then_some(value.as_str());
                prop_assert_eq!(form.get(name), expected);
            }
            prop_assert_eq!(form.names().count(), pairs.len());
        }

        // I-G2
        #[test]
        fn a_duplicate_is_found_wherever_it_stands(
            pairs in proptest::collection::btree_map("[a-z]{1,6}", "[a-z]{0,6}", 1..8),
            at in any::<proptest::sample::Index>(),
        ) {
            let text = encode(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let name = pairs.keys().nth(at.index(pairs.len())).unwrap();
            let doubled = format!("{text}&{name}=again");
            prop_assert_eq!(Form::parse(doubled.as_bytes()).unwrap_err(), FormError::Duplicate);
        }

        // I-G2
        #[test]
        fn an_accepted_form_reads_the_same_to_the_whatwg_reader(text in "[a-c=&+%0-9A-F ]{0,40}") {
            if let Ok(form) = Form::parse(text.as_bytes()) {
                let second: std::vec::Vec<_> = url::form_urlencoded::parse(text.as_bytes()).collect();
                prop_assert!(form.names().eq(second.iter().map(|(name, _)| name.as_ref())));
                for (name, value) in &second {
                    prop_assert_eq!(form.get(name).unwrap_or_default(), value.as_ref());
                }
            }
        }

        #[test]
        fn components_round_trip(text in ".{0,40}") {
            prop_assert_eq!(decode_component(&encode_component(&text)), Ok(text.to_string()));
        }
    }
}
