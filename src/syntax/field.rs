//! The pieces of which structured HTTP fields are made (RFC 9110 sections 5.6 and 11.2): token, token68,
//! quoted-string, optional white space.

use alloc::string::String;
use alloc::vec::Vec;

/// A quoted-string that is not one: no closing quote, a control character, or text that is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a quoted-string of UTF-8 text without control characters")]
pub struct QuotedStringError;

/// Whether the byte may stand in a token (RFC 9110 section 5.6.2).
pub const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Whether the byte may stand in a token68 before its padding (RFC 9110 section 11.2).
pub const fn is_token68_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
}

/// Whether the whole text is one token.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_token_byte)
}

/// Whether the whole text is one token68: at least one character, then any number of `=`.
pub fn is_token68(text: &[u8]) -> bool {
    let mut reader = FieldReader::new(text);
    reader.token68().is_some() && reader.is_at_end()
}

/// Writes a quoted-string, with a backslash before each quote and backslash.
///
/// `None` for text with anything but printable ASCII: it has no spelling that every reader agrees on, and a
/// line break would end the field.
pub fn quote(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            ' '..='~' => out.push(character),
            _ => return None,
        }
    }
    out.push('"');
    Some(out)
}

/// Reads a field value from left to right. A method that does not find what it reads moves nothing.
#[derive(Debug, Clone)]
pub struct FieldReader<'v> {
    rest: &'v [u8],
}

impl<'v> FieldReader<'v> {
    /// Starts at the first byte.
    pub const fn new(value: &'v [u8]) -> Self {
        Self { rest: value }
    }

    /// Whether everything was read.
    pub const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Passes one byte if it stands here.
    pub fn skip(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Passes spaces and tabs (OWS and BWS).
    pub fn skip_white_space(&mut self) {
        self.take_while(|byte| matches!(byte, b' ' | b'\t'));
    }

    /// Passes spaces only; how many there were.
    pub fn skip_spaces(&mut self) -> usize {
        self.take_while(|byte| byte == b' ').len()
    }

    /// A token.
    pub fn token(&mut self) -> Option<&'v str> {
        ascii(self.take_while(is_token_byte))
    }

    /// A token68 with its padding.
    pub fn token68(&mut self) -> Option<&'v str> {
        let start = self.rest;
        let body = self.take_while(is_token68_byte).len();
        if body == 0 {
            return None;
        }
        let padding = self.take_while(|byte| byte == b'=').len();
        ascii(start.get(..body.saturating_add(padding)).unwrap_or_default())
    }

    /// A quoted-string, unescaped; `None` where no quote stands here.
    ///
    /// # Errors
    /// [`QuotedStringError`] when an opening quote stands here and no quoted-string follows.
    pub fn quoted_string(&mut self) -> Result<Option<String>, QuotedStringError> {
        if !self.skip(b'"') {
            return Ok(None);
        }
        let mut text = Vec::new();
        let mut bytes = self.rest.iter();
        loop {
            match bytes.next().ok_or(QuotedStringError)? {
                b'"' => break,
                b'\\' => match bytes.next() {
                    Some(byte) if is_quotable(*byte) => text.push(*byte),
                    _ => return Err(QuotedStringError),
                },
                byte if is_quotable(*byte) => text.push(*byte),
                _ => return Err(QuotedStringError),
            }
        }
        self.rest = bytes.as_slice();
        // I-G2: other encodings are not guessed.
        String::from_utf8(text).map(Some).map_err(|_| QuotedStringError)
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'v [u8] {
        let end = self.rest.iter().position(|byte| !wanted(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }
}

/// Tab, space, visible characters and bytes beyond ASCII: what may follow a backslash.
const fn is_quotable(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn ascii(bytes: &[u8]) -> Option<&str> {
    core::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;

    use proptest::prelude::*;

    use super::{FieldReader, QuotedStringError, is_token, is_token68, quote};

    fn unquote(text: &[u8]) -> Result<Option<String>, QuotedStringError> {
        FieldReader::new(text).quoted_string()
    }

    #[test]
    fn tokens_are_told_from_other_text() {
        for text in ["a", "Bearer", "!#$%&'*+-.^_`|~09AZaz"] {
            assert!(is_token(text.as_bytes()), "{text}");
        }
        for text in
            ["", "a b", "a,b", "a=b", "\"a\"", "a/b", "a\t", "a\r\n", "(a)", "a:b", "ä", "a\u{7f}", "a\0"]
        {
            assert!(!is_token(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn token68_ends_with_padding_only() {
        for text in ["a", "a=", "YWJj==", "-._~+/", "a======"] {
            assert!(is_token68(text.as_bytes()), "{text}");
        }
        for text in ["", "=", "==", "a=b", "a b", "a,", "a\"", "a ", " a", "ä"] {
            assert!(!is_token68(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn quoted_pairs_are_resolved_once() {
        assert_eq!(unquote(br#""a\"b\\c\d""#), Ok(Some(String::from(r#"a"b\cd"#))));
        assert_eq!(unquote(b"\"\""), Ok(Some(String::new())));
        assert_eq!(unquote("\"a\tä\\ü\"".as_bytes()), Ok(Some(String::from("a\täü"))));
        assert_eq!(unquote(b"a"), Ok(None));
        assert_eq!(unquote(b""), Ok(None));
    }

    #[test]
    fn broken_quoted_strings_are_refused() {
        for text in [
            &b"\""[..],
            b"\"a",
            b"\"a\\",
            b"\"a\\\"",
            b"\"a\rb\"",
            b"\"a\nb\"",
            b"\"a\\\nb\"",
            b"\"a\0\"",
            b"\"a\x7f\"",
            b"\"\xff\"",
            b"\"\xc3\"",
            b"\"\xed\xa0\x80\"",
        ] {
            assert_eq!(unquote(text), Err(QuotedStringError), "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_quoted_is_not() {
        for text in ["a\r\nb", "a\tb", "ä", "\u{7f}", "\0", "\u{2028}"] {
            assert_eq!(quote(text), None, "{text:?}");
        }
        assert_eq!(quote(r#"a"\"#).unwrap(), r#""a\"\\""#);
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_read_back(text in "[ -~]{0,60}", tail in "[^\"]{0,10}") {
            let quoted = format!("{}{tail}", quote(&text).unwrap());
            let mut reader = FieldReader::new(quoted.as_bytes());
            prop_assert_eq!(reader.quoted_string(), Ok(Some(text)));
            prop_assert_eq!(reader.rest, tail.as_bytes());
        }

        // I-G1
        #[test]
        fn reading_never_panics_and_never_moves_back(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut reader = FieldReader::new(&bytes);
            let mut left = bytes.len();
            while !reader.is_at_end() {
                let _ = reader.clone().quoted_string();
                reader.skip_white_space();
                if reader.token68().is_none() && reader.token().is_none() {
                    let byte = reader.rest.first().copied().unwrap_or_default();
                    reader.skip(byte);
                }
                prop_assert!(reader.rest.len() < left);
                left = reader.rest.len();
            }
        }
    }
}
