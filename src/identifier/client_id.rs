//! Client identifiers (OAuth 2.1 section 2.2) and client metadata document URLs (client ID metadata document draft).

use super::{IdentifierFault, InvalidIdentifier, identifier, is_loopback_host};
use crate::entropy::{Entropy, EntropyUnavailable, draw, text_of};
use crate::limits;
use crate::syntax::uri::Uri;

identifier!(
    /// A client identifier: visible ASCII and spaces, compared by bytes.
    ClientId
);

identifier!(
    /// A client identifier that is the URL of the client's metadata document.
    ClientMetadataUrl
);

impl ClientId {
    /// Takes the exact text.
    ///
    /// # Errors
    /// [`InvalidIdentifier`] when it is empty, too long or has other characters.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidIdentifier> {
        let text = text.as_ref();
        let allowed = text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
        if text.is_empty() || text.len() > limits::URL_BYTES || !allowed {
            return Err(InvalidIdentifier::new("client id", IdentifierFault::Grammar));
        }
        Ok(Self(text.into()))
    }

    /// A fresh one, for a client that is registered: 255 random bits as 43 characters of base64url. The first is a letter, because
    /// a command line takes what begins with a hyphen for an option.
    ///
    /// # Errors
    /// [`EntropyUnavailable`]
    pub fn draw(entropy: &mut dyn Entropy) -> Result<Self, EntropyUnavailable> {
        let mut bytes = draw::<32>(entropy)?;
        // The digits of base64url below 32 are letters.
        if let Some(first) = bytes.first_mut() {
            *first &= 0x7f;
        }
        // RFC7591-3.2.1-1, CIMD-6.9-1, I-P5: base64url has no colon, so that the identifier is never a URL.
        Ok(Self(text_of(&bytes).into()))
    }

    /// Whether it has the shape of a metadata document URL, well-formed or not: such an id is never looked up
    /// among registered clients, and never issued.
    pub fn looks_like_url(&self) -> bool {
        // CIMD-6.9-1: schemes have no case (RFC 3986), so an attacker may write any.
        self.0.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"))
            || self.0.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("http://"))
    }
}

impl ClientMetadataUrl {
    /// Takes the exact text.
    ///
    /// # Errors
    /// [`InvalidIdentifier`] unless it is https (http on a loopback host, for development) with a path, without dot
    /// segments, fragment and user information, all judged on the raw bytes.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidIdentifier> {
        const KIND: &str = "client metadata document URL";
        let text = text.as_ref();
        // CIMD-3-1, CIMD-3-2: dot segments, backslashes and controls never pass the URI grammar (I-P1).
        let uri = super::web_uri(KIND, text)?;
        if uri.path().is_empty() || uri.path() == "/" {
            return Err(InvalidIdentifier::new(KIND, IdentifierFault::Path));
        }
        Ok(Self(text.into()))
    }

    /// The same text as a client id.
    pub fn to_client_id(&self) -> ClientId {
        ClientId(self.0.clone())
    }

    /// The host, for a person to read.
    pub fn host(&self) -> &str {
        Uri::read(&self.0).map_or("", |uri| uri.host())
    }

    /// Whether it lies on a loopback host.
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(self.host())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ClientId, ClientMetadataUrl};
    use crate::entropy::{Entropy, EntropyUnavailable};

    #[test]
    fn ids_are_visible_ascii() {
        for text in ["", "a\n", "ä", "\u{7f}", &"x".repeat(3000)] {
            assert!(ClientId::new(text).is_err(), "{text:?}");
        }
        assert_eq!(ClientId::new("a b%20").unwrap().as_str(), "a b%20");
    }

    // I-P5
    #[test]
    fn ids_that_look_like_urls_are_known_in_every_case() {
        for text in ["https://a.example/c", "HTTPS://a", "HttpS://", "http://a"] {
            assert!(ClientId::new(text).unwrap().looks_like_url(), "{text}");
        }
        assert!(!ClientId::new("client-https://a").unwrap().looks_like_url());
    }

    // CIMD-3-2, I-P1
    #[test]
    fn metadata_urls_keep_the_rules_on_raw_bytes() {
        for text in [
            "https://a.example",
            "https://a.example/",
            "http://a.example/c",
            "https://a.example/./c",
            "https://a.example/../c",
            "https://a.example/%2e%2E/c",
            "https://a.example/c#f",
            "https://a.example/c#",
            "https://u@a.example/c",
            "https://:p@a.example/c",
            "https://a.example\\c",
            "https://a.example/c\t",
            "ftp://a.example/c",
            "c",
        ] {
            assert!(ClientMetadataUrl::new(text).is_err(), "{text}");
        }
        for text in ["https://a.example/c", "https://a.example:8443/c.json?v=1", "http://127.0.0.1:1/c"] {
            assert_eq!(ClientMetadataUrl::new(text).unwrap().to_client_id().as_str(), text);
        }
    }

    /// Fills with one pattern, whatever it is asked for.
    struct Bytes([u8; 32]);

    impl Entropy for Bytes {
        fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyUnavailable> {
            buffer.iter_mut().zip(self.0).for_each(|(byte, drawn)| *byte = drawn);
            Ok(())
        }
    }

    proptest! {
        // An operator names clients on a command line.
        #[test]
        fn a_drawn_id_begins_with_a_letter(bytes in any::<[u8; 32]>()) {
            let id = ClientId::draw(&mut Bytes(bytes)).unwrap();
            prop_assert!(id.as_str().starts_with(|first: char| first.is_ascii_alphabetic()), "{}", id);
            prop_assert_eq!(id.as_str().len(), 43);
            prop_assert!(ClientId::new(id.as_str()).is_ok() && !id.looks_like_url());
            // Nothing but the one bit is lost.
            let mut other = bytes;
            other[0] ^= 0x80;
            prop_assert_eq!(&ClientId::draw(&mut Bytes(other)).unwrap(), &id);
            other[31] ^= 1;
            prop_assert_ne!(&ClientId::draw(&mut Bytes(other)).unwrap(), &id);
        }
    }

    // 248 to 251 are what a hyphen would be drawn from.
    #[test]
    fn no_first_byte_gives_a_hyphen() {
        for first in 0..=u8::MAX {
            let mut bytes = [0; 32];
            bytes[0] = first;
            assert!(!ClientId::draw(&mut Bytes(bytes)).unwrap().as_str().starts_with(['-', '_']), "{first}");
        }
    }
}
