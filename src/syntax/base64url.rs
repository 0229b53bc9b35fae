//! base64url without padding, in canonical form only (RFC 4648 section 5, RFC 7515 appendix C).

use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Not canonical unpadded base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not base64url without padding in its canonical form")]
pub struct Base64Error;

/// Encodes without padding.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes; padding, other alphabets, white space and non-zero trailing bits are refused, so that no two texts
/// decode to the same bytes (I-A6, I-T11).
///
/// # Errors
/// [`Base64Error`] for anything but the canonical form.
pub fn decode(text: &str) -> Result<Vec<u8>, Base64Error> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Base64Error)
}

/// Decodes into the front of a buffer and says how many bytes that are.
///
/// # Errors
/// [`Base64Error`] as [`decode`], and for a buffer that is too small.
pub fn decode_into(text: &str, buffer: &mut [u8]) -> Result<usize, Base64Error> {
    URL_SAFE_NO_PAD.decode_slice(text, buffer).map_err(|_| Base64Error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{decode, decode_into, encode};

    #[test]
    fn other_spellings_of_the_same_bytes_are_refused() {
        assert_eq!(decode("AA"), Ok([0].to_vec()));
        for text in ["AA==", "AB", "A", "A+", "A/", "A A", "AA\n", "\u{ff21}A"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }

    proptest! {
        // I-T11
        #[test]
        fn decoding_is_injective(text in "[A-Za-z0-9_-]{0,64}") {
            if let Ok(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }

        #[test]
        fn both_ways_of_decoding_agree(text in "[A-Za-z0-9_=+-]{0,24}") {
            let mut buffer = [0; 24];
            let into = decode_into(&text, &mut buffer).map(|length| buffer[..length].to_vec());
            prop_assert_eq!(into, decode(&text));
        }

        #[test]
        fn what_is_encoded_decodes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&encode(&bytes)), Ok(bytes));
        }
    }
}
