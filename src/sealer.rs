//! Records of the client hold secrets and leave the process sealed (architecture: Persistence).

use alloc::vec::Vec;

use zeroize::Zeroizing;

/// Authenticated encryption of client records, given by the host.
///
/// `associated` names what the record is for: its type and version, issuer, resource, agent binding and the
/// digest of the configuration. An implementation must authenticate it, so that a record opens only in the
/// place it was sealed for.
pub trait Sealer {
    /// Encrypts and authenticates.
    ///
    /// # Errors
    /// [`SealerFailed`] when the key or randomness is not to be had.
    fn seal(&self, associated: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealerFailed>;

    /// Opens what `seal` made with the same associated data.
    ///
    /// # Errors
    /// [`SealerFailed`] for anything else.
    fn open(&self, associated: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealerFailed>;

    /// Whether what it seals can be read without a key. A client takes such a sealer only where its policy names
    /// [`PlaintextRecords`](crate::policy::Relaxation::PlaintextRecords).
    fn leaves_plaintext(&self) -> bool {
        false
    }
}

/// The record was not sealed here, not for this place, or was changed; or the sealer has no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record does not open: another key, another place, or changed bytes")]
pub struct SealerFailed;

/// The relaxation `PlaintextRecords`: records leave unencrypted, for a store that encrypts by itself. The client's policy
/// has to name it, or no record is written or read with it.
///
/// The associated data is still compared, so a record does not open in another place by mistake; nothing stops
/// somebody who can write to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlaintextRecords;

impl Sealer for PlaintextRecords {
    fn seal(&self, associated: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealerFailed> {
        let digest = crate::secret::SecretDigest::of(associated);
        let mut sealed = Vec::with_capacity(plaintext.len().saturating_add(32));
        sealed.extend_from_slice(digest.as_bytes());
        sealed.extend_from_slice(plaintext);
        Ok(sealed)
    }

    fn open(&self, associated: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealerFailed> {
        let (digest, plaintext) = sealed.split_at_checked(32).ok_or(SealerFailed)?;
        if digest != crate::secret::SecretDigest::of(associated).as_bytes() {
            return Err(SealerFailed);
        }
        Ok(Zeroizing::new(plaintext.to_vec()))
    }

    fn leaves_plaintext(&self) -> bool {
        true
    }
}
