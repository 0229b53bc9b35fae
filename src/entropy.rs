//! Randomness as an argument: the core never asks the operating system for it.

use alloc::string::String;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// A source of unpredictable bytes, given by the host.
///
/// An implementation must fill the whole buffer with bytes from a cryptographic generator or fail; the core
/// draws at least 128 bits for every value that must not be guessed (OAuth 2.1 section 7.7).
pub trait Entropy {
    /// Fills the buffer, or fails without a promise about its content.
    ///
    /// # Errors
    /// [`EntropyUnavailable`] when the source has nothing to give; the transition that asked is not taken.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyUnavailable>;
}

/// The host's source of randomness gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the host's source of randomness failed; nothing was done")]
pub struct EntropyUnavailable;

/// Draws `N` bytes; the copy is erased when dropped.
pub(crate) fn draw<const N: usize>(
    entropy: &mut dyn Entropy,
) -> Result<Zeroizing<[u8; N]>, EntropyUnavailable> {
    let mut bytes = Zeroizing::new([0_u8; N]);
    entropy.fill(bytes.as_mut_slice())?;
    Ok(bytes)
}

/// 256 random bits as 43 characters of base64url: the form of every handle, code and token the core makes.
pub(crate) fn draw_text(entropy: &mut dyn Entropy) -> Result<Zeroizing<String>, EntropyUnavailable> {
    // OAUTH21-7.7-1: 256 bits, above the recommended 160, without bias.
    let bytes = draw::<32>(entropy)?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}
