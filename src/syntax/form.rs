//! `application/x-www-form-urlencoded`: bodies and queries, read strictly and written (RFC 6749 appendix B).
//!
//! A repeated name is an error, so that no two readers can pick different values (I-G2).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::words::{below, beyond_print, equal, length_unmarked};
use crate::erased::Erased;
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
    text: Erased<String>,
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
        let mut text = Erased::new(Vec::with_capacity(bytes.len()));
        let bounds = decode_pairs(&mut text, bytes)?;
        // OAUTH21-3.1-7, OAUTH21-3.2-4, OAUTH21-4.1.2-6: a parameter stands once.
        let name = |[begin, middle, _]: &[usize; 3]| text.get(*begin..*middle);
        let mut others = bounds.as_slice();
        while let [one, rest @ ..] = others {
            if rest.iter().any(|other| name(other) == name(one)) {
                return Err(FormError::Duplicate);
            }
            others = rest;
        }
        let text = read_utf8(core::mem::take(&mut *text))?;
        // No character of several bytes lies across two of them.
        if bounds.iter().flatten().any(|bound| !text.is_char_boundary(*bound)) {
            return Err(FormError::Utf8);
        }
        Ok(Self { text, bounds })
    }

    /// The value of a parameter; an empty value counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        // OAUTH21-3.1-8, OAUTH21-3.2-3
        let known = |[begin, middle, _]: &&[usize; 3]| {
            middle.saturating_sub(*begin) == name.len()
                && self.text.as_bytes().get(*begin..*middle) == Some(name.as_bytes())
        };
        let [_, middle, end] = self.bounds.iter().find(known)?;
        self.text.get(*middle..*end).filter(|value| !value.is_empty())
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
    encode_onto(&mut out, pairs);
    out
}

/// Encodes pairs onto the end of a text.
pub(crate) fn encode_onto<'a>(out: &mut String, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
    // OAUTH21-B-1
    for (index, (name, value)) in pairs.into_iter().enumerate() {
        if index > 0 {
            out.push('&');
        }
        push_encoded(out, name);
        out.push('=');
        push_encoded(out, value);
    }
}

/// How many bytes a pair takes at most once it is encoded, with the sign before it and the one between its halves.
pub(crate) fn most_encoded_length(name: &str, value: &str) -> usize {
    name.len().saturating_add(value.len()).saturating_mul(3).saturating_add(2)
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
    let mut decoded = Erased::new(Vec::with_capacity(text.len()));
    decode_onto(&mut decoded, text.as_bytes(), &[])?;
    read_utf8(core::mem::take(&mut *decoded)).map(|mut text| core::mem::take(&mut *text))
}

/// Whether a byte of a name or value is written as it is; a space is not.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'*' | b'-' | b'.' | b'_')
}

/// The same, for every byte.
static PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut rest: &mut [bool] = &mut table;
    let mut byte = 0_u8;
    while let Some((entry, after)) = rest.split_first_mut() {
        *entry = is_plain(byte);
        rest = after;
        byte = byte.wrapping_add(1);
    }
    table
};

fn push_encoded(out: &mut String, text: &str) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let plain = |byte: u8| PLAIN.get(usize::from(byte)).copied().unwrap_or_default();
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or('0');
    let mut rest = text;
    loop {
        let (plain, tail) =
            rest.split_at_checked(rest.bytes().take_while(|byte| plain(*byte)).count()).unwrap_or((rest, ""));
        out.push_str(plain);
        let mut others = tail.chars();
        let Some(other) = others.next() else { return };
        rest = others.as_str();
        if other == ' ' {
            out.push('+');
            continue;
        }
        for byte in other.encode_utf8(&mut [0; 4]).bytes() {
            out.push('%');
            out.push(digit(byte >> 4));
            out.push(digit(byte & 0x0f));
        }
    }
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Whether a byte of a form stands for itself wherever it stands.
fn is_itself(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && !matches!(byte, b'%' | b'+' | b'&' | b'=')
}

/// Marks the first byte that may not stand for itself.
fn marks(word: u64) -> u64 {
    let signs = equal(word, b'%') | equal(word, b'+') | equal(word, b'&') | equal(word, b'=');
    signs | below(word, 0x21) | beyond_print(word)
}

/// Decodes the pairs onto the end of a text that has room for as many bytes: where each half begins and ends.
fn decode_pairs(text: &mut Vec<u8>, bytes: &[u8]) -> Result<Vec<[usize; 3]>, FormError> {
    let mut bounds = Vec::new();
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        if *first == b'&' {
            rest = tail;
            continue;
        }
        if bounds.len() == limits::FORM_PARAMETERS {
            return Err(FormError::TooLarge);
        }
        if bounds.is_empty() {
            bounds.reserve_exact(8);
        }
        let begin = text.len();
        let (end, value) = decode_onto(text, rest, b"&=")?;
        let middle = text.len();
        rest = match end {
            Some(b'=') => decode_onto(text, value, b"&")?.1,
            _ => value,
        };
        bounds.push([begin, middle, text.len()]);
    }
    Ok(bounds)
}

/// Decodes one name or value onto the end of a text that has room for as many bytes, up to one of the signs that end it:
/// which one that was, and what stands behind.
fn decode_onto<'a>(
    text: &mut Vec<u8>,
    bytes: &'a [u8],
    ends: &[u8],
) -> Result<(Option<u8>, &'a [u8]), FormError> {
    let mut rest = bytes;
    loop {
        // Eight at a time; those behind the first that is marked are taken back.
        while let Some((word, behind)) = rest.split_first_chunk::<8>() {
            text.extend_from_slice(word);
            let plain = length_unmarked(marks(u64::from_le_bytes(*word)));
            if plain < 8 {
                text.truncate(text.len().saturating_sub(8).saturating_add(plain));
                rest = rest.get(plain..).unwrap_or_default();
                break;
            }
            rest = behind;
        }
        rest = match rest {
            [] => return Ok((None, rest)),
            [byte, tail @ ..] if is_itself(*byte) => {
                text.push(*byte);
                tail
            }
            [b'+', tail @ ..] => {
                text.push(b' ');
                tail
            }
            [b'%', high, low, tail @ ..] => {
                let high = hex(*high).ok_or(FormError::Escape)?;
                text.push((high << 4) | hex(*low).ok_or(FormError::Escape)?);
                tail
            }
            [sign @ (b'&' | b'='), tail @ ..] => {
                if ends.contains(sign) {
                    return Ok((Some(*sign), tail));
                }
                text.push(*sign);
                tail
            }
            // Controls, spaces and bytes beyond ASCII never stand raw in a form (I-G1: no second reading).
            _ => return Err(FormError::Escape),
        };
    }
}

/// The bytes as text, in the place where they are; erased where they are none.
fn read_utf8(bytes: Vec<u8>) -> Result<Erased<String>, FormError> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Erased::new(text)),
        Err(error) => {
            drop(Erased::new(error.into_bytes()));
            Err(FormError::Utf8)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::{String, ToString};

    use proptest::prelude::*;

    use super::{
        Form, FormError, decode_component, encode, encode_component, is_itself, length_unmarked, marks,
    };
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
        // The last two are a character whose bytes lie in two halves, or in two parameters.
        for text in ["a=%ff", "a=%c3", "a=%ed%a0%80", "a=%c0%80", "%c3=%a4", "a=%c3&%a4=1"] {
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

    // I-G2: eight bytes at a time says what each byte says.
    #[test]
    fn any_two_bytes_wherever_they_stand_are_read_as_one_by_one() {
        for (first, second) in (0..=255_u8).flat_map(|first| (0..=255_u8).map(move |second| (first, second)))
        {
            for at in 0..7 {
                let mut word = [b'x'; 8];
                word[at] = first;
                word[at + 1] = second;
                let expected = word.iter().take_while(|byte| is_itself(**byte)).count();
                assert_eq!(length_unmarked(marks(u64::from_le_bytes(word))), expected, "{word:?}");
            }
        }
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
