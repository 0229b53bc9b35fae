//! The grace for a client that never saw the answer to its refresh (D17): within a short window the very same successor
//! goes out again, computed and not stored.
//!
//! A lost answer otherwise logs a person out, because the client's next try presents a retired token. The grace ends
//! with the window, with the count, and with the first use of the successor; what comes later is reuse.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest as _, Sha256};

use super::record::FamilyId;
use crate::erased::Erased;
use crate::secret::RefreshToken;
use crate::syntax::base64url;
use crate::time::Duration;

/// Longest window.
const WINDOW: Duration = Duration::minutes(1);
/// Most repetitions.
const REPEATS: u32 = 3;
/// Keeps a successor apart from anything else made under the same key.
const LABEL: &[u8] = b"mcp-authz refresh successor 1";

/// The grace: a named relaxation of refresh token rotation, off unless the operator asks for it.
#[derive(Clone)]
pub struct RefreshGrace {
    window: Duration,
    repeats: u32,
    key: GraceKey,
}

/// Why a grace is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a refresh grace has a window of up to 60 seconds and 1 to 3 repetitions")]
pub struct InvalidGrace;

/// The key under which successors are computed: 32 random bytes, kept like a signing key and outside the store.
#[derive(Clone)]
pub struct GraceKey(Erased<[u8; 32]>);

impl GraceKey {
    /// Takes the bytes over. Every process over one store has the same.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Erased::new(bytes))
    }
}

impl fmt::Debug for GraceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GraceKey(redacted)")
    }
}

impl RefreshGrace {
    /// A grace of that length for at most that many repetitions of one rotation.
    ///
    /// # Errors
    /// [`InvalidGrace`] outside the bounds.
    pub fn new(window: Duration, repeats: u32, key: GraceKey) -> Result<Self, InvalidGrace> {
        let fits = window.is_positive() && window <= WINDOW && (1..=REPEATS).contains(&repeats);
        if fits { Ok(Self { window, repeats, key }) } else { Err(InvalidGrace) }
    }

    /// How long after the rotation its answer is repeated.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// How often at most.
    pub fn repeats(&self) -> u32 {
        self.repeats
    }

    /// The one successor of a token, the same whenever it is computed.
    pub(crate) fn successor(
        &self,
        presented: &RefreshToken,
        family: FamilyId,
        generation: u64,
    ) -> Option<RefreshToken> {
        let length = u64::try_from(presented.expose().len()).ok()?;
        let parts: [&[u8]; 5] = [
            LABEL,
            family.as_bytes(),
            &generation.to_be_bytes(),
            &length.to_be_bytes(),
            presented.expose().as_bytes(),
        ];
        let tag = hmac_sha256(&self.key.0, &parts);
        RefreshToken::new(base64url::encode(tag.as_slice())).ok()
    }
}

impl fmt::Debug for RefreshGrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshGrace")
            .field("window", &self.window)
            .field("repeats", &self.repeats)
            .finish_non_exhaustive()
    }
}

/// HMAC-SHA-256 (RFC 2104) under a key of 32 bytes.
fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> Erased<[u8; 32]> {
    let block = |mask: u8| {
        let mut block: Erased<Vec<u8>> = Erased::new(key.iter().map(|byte| byte ^ mask).collect());
        block.resize(64, mask);
        block
    };
    let mut inner = Sha256::new();
    inner.update(block(0x36).as_slice());
    for part in parts {
        inner.update(part);
    }
    let mut outer = Sha256::new();
    outer.update(block(0x5c).as_slice());
    outer.update(inner.finalize());
    Erased::new(outer.finalize().into())
}

/// What a request at the token endpoint asks for, as one text: a repetition has to ask for the same.
pub(crate) fn request_text(client: &str, scope: Option<&str>, resource: Option<&str>) -> String {
    // The three cannot hold a line feed where they are well-formed, and an absent one differs from an empty one.
    let text = |value: Option<&str>| value.map_or_else(|| String::from("-"), |value| [value, "+"].concat());
    [client, "\n", &text(scope), "\n", &text(resource)].concat()
}

#[cfg(test)]
mod tests {
    use super::{GraceKey, InvalidGrace, RefreshGrace, hmac_sha256};
    use crate::authorization_server::record::FamilyId;
    use crate::secret::RefreshToken;
    use crate::time::Duration;

    fn hex(bytes: &[u8]) -> alloc::string::String {
        bytes.iter().map(|byte| alloc::format!("{byte:02x}")).collect()
    }

    /// RFC 4231 test cases 1 and 2: a shorter key is one that zeros fill up.
    #[test]
    fn the_published_examples_of_hmac_agree() {
        let mut key = [0; 32];
        key[..20].copy_from_slice(&[0x0b; 20]);
        assert_eq!(
            hex(hmac_sha256(&key, &[b"Hi There"]).as_slice()),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        assert_eq!(
            hex(hmac_sha256(&key, &[b"what do ya want ", b"for nothing?"]).as_slice()),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    // D17
    #[test]
    fn the_bounds_hold() {
        let grace = |seconds, repeats| {
            RefreshGrace::new(Duration::seconds(seconds), repeats, GraceKey::new([1; 32])).map(|_| ())
        };
        assert_eq!(grace(60, 3), Ok(()));
        for (seconds, repeats) in [(61, 1), (0, 1), (-1, 1), (30, 0), (30, 4)] {
            assert_eq!(grace(seconds, repeats), Err(InvalidGrace));
        }
    }

    #[test]
    fn a_successor_depends_on_key_token_family_and_generation() {
        let of = |key: u8, token: &str, family: u8, generation| {
            let grace = RefreshGrace::new(Duration::MINUTE, 1, GraceKey::new([key; 32])).unwrap();
            let token = RefreshToken::new(token).unwrap();
            grace.successor(&token, FamilyId::from_bytes([family; 16]), generation).unwrap().digest()
        };
        let one = of(1, "token", 1, 1);
        assert_eq!(of(1, "token", 1, 1), one);
        for other in [of(2, "token", 1, 1), of(1, "tokem", 1, 1), of(1, "token", 2, 1), of(1, "token", 1, 2)]
        {
            assert_ne!(other, one);
        }
    }
}
