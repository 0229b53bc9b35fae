//! Where the parts of a JSON text lie: white space, strings without escapes and small integers are read here, the extent
//! of anything else is found for a reader that checks it.

use super::words::{below, each, equal, length_before};

/// A place in a text. Every step forward leaves it at a boundary of characters.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// A value, or a name, as far as it was read.
pub(super) enum Token<'a> {
    /// What stands between the quotes of a string without escapes.
    Plain(&'a str),
    /// An integer of at most 18 digits.
    Integer(i64),
    /// `[`, taken.
    Array,
    /// One whole value of another form, not checked.
    Unread(&'a str),
}

/// The text is no JSON.
pub(super) struct NotJson;

/// An integer of more digits might not fit.
const DIGITS: usize = 18;

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    /// Skips white space (RFC 8259 section 2).
    fn skip_blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.skip(1);
        }
    }

    /// Whether nothing but white space is left.
    pub(super) fn is_at_end(&mut self) -> bool {
        self.skip_blank();
        self.byte().is_none()
    }

    /// Takes this byte, behind white space, if it is the next.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        self.skip_blank();
        let found = self.byte() == Some(byte);
        if found {
            self.skip(1);
        }
        found
    }

    /// Takes this byte, behind white space.
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.take(byte) { Ok(()) } else { Err(NotJson) }
    }

    /// Takes a value or a name; of an array its beginning.
    #[inline(always)]
    pub(super) fn value(&mut self) -> Result<Token<'a>, NotJson> {
        self.skip_blank();
        match self.byte() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => Ok(self.number()),
            Some(b'[') => {
                self.skip(1);
                Ok(Token::Array)
            }
            Some(b'{') => self.enclosed(),
            Some(b't' | b'f' | b'n') => {
                let word = self.rest().iter().take_while(|byte| byte.is_ascii_lowercase()).count();
                Ok(Token::Unread(self.piece(word)))
            }
            _ => Err(NotJson),
        }
    }

    /// Takes so many bytes.
    fn piece(&mut self, bytes: usize) -> &'a str {
        let start = self.at;
        self.skip(bytes);
        // Nothing, where it would end within a character: that is no value either.
        self.text.get(start..self.at).unwrap_or_default()
    }

    #[inline(always)]
    fn string(&mut self) -> Result<Token<'a>, NotJson> {
        let (start, rest) = (self.at, self.rest());
        let inner = rest.get(1..).unwrap_or_default();
        let length = plain_length(inner);
        match inner.get(length) {
            Some(b'"') => {
                self.skip(1);
                let text = self.piece(length);
                self.skip(1);
                Ok(Token::Plain(text))
            }
            Some(b'\\') => {
                self.skip(length.saturating_add(1));
                self.escaped(start)
            }
            _ => Err(NotJson),
        }
    }

    /// The rest of a string that has escapes.
    #[cold]
    fn escaped(&mut self, start: usize) -> Result<Token<'a>, NotJson> {
        while let Some(byte) = self.byte() {
            self.skip(if byte == b'\\' { 2 } else { 1 });
            if byte == b'"' {
                return Ok(Token::Unread(self.text.get(start..self.at).unwrap_or_default()));
            }
        }
        Err(NotJson)
    }

    fn number(&mut self) -> Token<'a> {
        let rest = self.rest();
        let sign = usize::from(rest.first() == Some(&b'-'));
        let written = rest.get(sign..).unwrap_or_default();
        let (mut value, mut digits) = (0_i64, 0_usize);
        // It wraps only where there are too many digits. A time has ten.
        while let Some(eight) = written.get(digits..).and_then(|rest| eight_digits(rest.first_chunk()?)) {
            value = value.wrapping_mul(100_000_000).wrapping_add(eight);
            digits = digits.saturating_add(8);
        }
        for byte in written.get(digits..).unwrap_or_default() {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
            digits = digits.saturating_add(1);
        }
        let length = sign.saturating_add(digits);
        let goes_on = matches!(rest.get(length), Some(b'-' | b'+' | b'.' | b'e' | b'E'));
        // Zero has no sign, and no longer number begins with it.
        let from_zero = rest.get(sign) == Some(&b'0') && length > 1;
        if digits == 0 || digits > DIGITS || from_zero || goes_on {
            return Token::Unread(self.long_number());
        }
        self.skip(length);
        Token::Integer(if sign == 0 { value } else { value.wrapping_neg() })
    }

    /// As many bytes as could belong to one number.
    #[cold]
    fn long_number(&mut self) -> &'a str {
        let numeric = |byte: &&u8| matches!(**byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = self.rest().iter().take_while(numeric).count();
        self.piece(length)
    }

    /// Takes an object: up to where its brackets are closed again, whatever is between.
    fn enclosed(&mut self) -> Result<Token<'a>, NotJson> {
        let start = self.at;
        let mut open = 0_usize;
        while let Some(byte) = self.byte() {
            match byte {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => open = open.saturating_add(1),
                b'}' | b']' => open = open.saturating_sub(1),
                _ => {}
            }
            self.skip(1);
            if open == 0 {
                return Ok(Token::Unread(self.text.get(start..self.at).unwrap_or_default()));
            }
        }
        Err(NotJson)
    }
}

/// How many bytes stand before the first quote, backslash or control character.
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    let marks = |word| equal(word, b'"') | equal(word, b'\\') | below(word, b' ');
    length_before(bytes, marks, |byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))
}

/// What eight digits say, if they are digits: neighbours are put together, then pairs, then fours.
fn eight_digits(text: &[u8; 8]) -> Option<i64> {
    // The first digit is the lowest byte. What is no digit is above nine then.
    let ones = u64::from_le_bytes(*text) ^ each(b'0');
    if (ones | ones.wrapping_add(each(0x80 - 10))) & each(0x80) != 0 {
        return None;
    }
    let pairs = ones.wrapping_mul(10).wrapping_add(ones >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    let eight = fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff;
    i64::try_from(eight).ok()
}

#[cfg(test)]
mod tests {
    use std::format;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_are_read_here_only_where_they_are_written_plainly_and_fit() {
        for (text, value) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-1", Some(-1)),
            ("1234567", Some(1_234_567)),
            ("12345678", Some(12_345_678)),
            ("1906543210", Some(1_906_543_210)),
            ("-1906543210", Some(-1_906_543_210)),
            ("1234567890123456", Some(1_234_567_890_123_456)),
            ("12345678901234567890123456789", None),
            ("999999999999999999", Some(999_999_999_999_999_999)),
            ("-999999999999999999", Some(-999_999_999_999_999_999)),
            ("1000000000000000000", None),
            ("-0", None),
            ("00", None),
            ("01", None),
            ("-01", None),
            ("-", None),
            ("", None),
            ("1.0", None),
            ("1e3", None),
            ("1-1", None),
            ("+1", None),
            ("--1", None),
        ] {
            for behind in ["", ",", "}", " "] {
                let text = format!("{text}{behind}");
                let mut cursor = Cursor::new(&text);
                let read = match cursor.number() {
                    Token::Integer(number) => Some(number),
                    _ => None,
                };
                assert_eq!(read, value, "{text}");
                assert_eq!(
                    cursor.rest(),
                    behind.as_bytes(),
                    "{text}: what stands behind is not of the number"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn eight_digits_are_a_number_and_eight_bytes_that_are_not_digits_none(
            digits in "[0-9]{8}", at in 0_usize..8, byte: u8,
        ) {
            let mut bytes: [u8; 8] = digits.as_bytes().try_into().unwrap();
            prop_assert_eq!(eight_digits(&bytes), digits.parse().ok());
            bytes[at] = byte;
            let text = core::str::from_utf8(&bytes).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            prop_assert_eq!(eight_digits(&bytes), text.and_then(|text| text.parse().ok()));
        }

        // The first of the bytes that end a plain string, at every place of a word.
        #[test]
        fn the_end_of_a_plain_string_is_the_first_byte_that_can_be_none_of_it(
            bytes in proptest::collection::vec(
                prop_oneof![9 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'\\'), 1 => Just(0x1f), 1 => Just(0x20)],
                0..40,
            ),
        ) {
            let first = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
            prop_assert_eq!(plain_length(&bytes), first.unwrap_or(bytes.len()));
        }
    }
}
