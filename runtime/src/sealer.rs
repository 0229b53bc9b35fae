//! The sealer of client records over aws-lc-rs: AES-256-GCM under a key derived afresh for each record.
//!
//! A sealed record is a version byte, a random salt of 32 bytes and the ciphertext with its tag. HKDF-SHA256 over
//! the master key and the salt gives the record's own key, so that no nonce is ever used twice under one key,
//! however many records are sealed.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use mcp_authz::sealer::{Sealer, SealerFailed};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const SALT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const LABEL: &[u8] = b"mcp-authz sealed record 1";

/// Seals records under a 32-byte master key.
pub struct AeadSealer {
    master: Zeroizing<[u8; 32]>,
}

impl AeadSealer {
    /// A sealer under a key the host keeps outside the store of the records, such as in the system's credential
    /// store or a secret manager. The key must be 32 uniformly random bytes, not a password.
    pub fn new(key: [u8; 32]) -> Self {
        Self { master: Zeroizing::new(key) }
    }

    /// A sealer under a fresh key that nobody keeps: its records end with this process.
    ///
    /// # Errors
    /// [`SealerFailed`] when the operating system gives no randomness.
    pub fn ephemeral() -> Result<Self, SealerFailed> {
        let mut master = Zeroizing::new([0_u8; 32]);
        getrandom::fill(master.as_mut_slice()).map_err(|_| SealerFailed)?;
        Ok(Self { master })
    }

    /// The key of one record.
    fn record_key(&self, salt: &[u8]) -> Result<LessSafeKey, SealerFailed> {
        let derived = Salt::new(HKDF_SHA256, salt).extract(self.master.as_slice());
        let okm = derived.expand(&[LABEL], &AES_256_GCM).map_err(|_| SealerFailed)?;
        Ok(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

/// A key for one purpose from a master key: who has it knows neither the master key nor a key for another purpose.
pub fn derived_key(master: &[u8; 32], purpose: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0_u8; 32]);
    let derived = Salt::new(HKDF_SHA256, b"mcp-authz derived key 1").extract(master);
    // 32 bytes are one block, which never fails; were it to, all purposes would share a key of zeros: take the digest then.
    let filled = derived.expand(&[purpose], HKDF_SHA256).and_then(|okm| okm.fill(key.as_mut_slice()));
    if filled.is_err() {
        let digest = mcp_authz::secret::SecretDigest::of(&[master.as_slice(), purpose].concat());
        key.copy_from_slice(digest.as_bytes());
    }
    key
}

impl Sealer for AeadSealer {
    fn seal(&self, associated: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealerFailed> {
        let mut salt = [0_u8; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|_| SealerFailed)?;
        let key = self.record_key(&salt)?;
        let mut text = Zeroizing::new(plaintext.to_vec());
        let tag = key
            .seal_in_place_separate_tag(Nonce::from(&[0_u8; 12]), Aad::from(associated), text.as_mut_slice())
            .map_err(|_| SealerFailed)?;
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(&text);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    fn open(&self, associated: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealerFailed> {
        let (version, rest) = sealed.split_first().ok_or(SealerFailed)?;
        let (salt, ciphertext) = rest.split_at_checked(SALT_BYTES).ok_or(SealerFailed)?;
        let length = ciphertext.len().checked_sub(TAG_BYTES).ok_or(SealerFailed)?;
        if *version != VERSION {
            return Err(SealerFailed);
        }
        let key = self.record_key(salt)?;
        let mut text = Zeroizing::new(ciphertext.to_vec());
        key.open_in_place(Nonce::from(&[0_u8; 12]), Aad::from(associated), text.as_mut_slice())
            .map_err(|_| SealerFailed)?;
        text.truncate(length);
        Ok(text)
    }
}

impl fmt::Debug for AeadSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AeadSealer(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use mcp_authz::sealer::Sealer as _;

    use super::AeadSealer;

    #[test]
    fn opens_only_unchanged_under_the_same_key_for_the_same_place() {
        let sealer = AeadSealer::new([7; 32]);
        let sealed = sealer.seal(b"session 1", b"refresh token").unwrap();
        assert_eq!(sealer.open(b"session 1", &sealed).unwrap().as_slice(), b"refresh token");
        assert!(sealer.open(b"session 2", &sealed).is_err());
        assert!(AeadSealer::new([8; 32]).open(b"session 1", &sealed).is_err());
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(sealer.open(b"session 1", &changed).is_err(), "byte {index}");
            assert!(sealer.open(b"session 1", &sealed[..index]).is_err(), "cut at {index}");
        }
    }

    #[test]
    fn the_text_is_hidden_and_never_sealed_twice_alike() {
        let sealer = AeadSealer::ephemeral().unwrap();
        let first = sealer.seal(b"", b"refresh token").unwrap();
        let second = sealer.seal(b"", b"refresh token").unwrap();
        assert_ne!(first, second);
        assert!(!first.windows(7).any(|window| window == b"refresh"));
        assert!(!format!("{sealer:?}").contains('7'));
    }
}
