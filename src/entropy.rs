//! Randomness as an argument: the core never asks the operating system for it.

use alloc::string::String;

use crate::erased::Erased;
use crate::syntax::base64url;

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

/// What one transition needs of randomness, asked for at once and given piece by piece.
///
/// A byte is given once, and what is left is erased. What goes beyond `N` is asked for as it comes.
pub(crate) struct Ahead<'e, const N: usize> {
    source: &'e mut dyn Entropy,
    /// The first of them are given away.
    bytes: Erased<[u8; N]>,
    /// How many are; none before the source was asked.
    given: Option<usize>,
}

impl<'e, const N: usize> Ahead<'e, N> {
    pub(crate) fn of(source: &'e mut dyn Entropy) -> Self {
        Self { source, bytes: Erased::new([0; N]), given: None }
    }
}

impl<const N: usize> Entropy for Ahead<'_, N> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyUnavailable> {
        let begin = match self.given {
            Some(given) => given,
            None => {
                self.source.fill(self.bytes.as_mut_slice())?;
                0
            }
        };
        self.given = Some(begin);
        let end = begin.saturating_add(buffer.len());
        match self.bytes.get(begin..end) {
            Some(next) => {
                buffer.copy_from_slice(next);
                self.given = Some(end);
                Ok(())
            }
            None => self.source.fill(buffer),
        }
    }
}

/// Draws `N` bytes; the copy is erased when dropped.
pub(crate) fn draw<const N: usize>(entropy: &mut dyn Entropy) -> Result<Erased<[u8; N]>, EntropyUnavailable> {
    let mut bytes = Erased::new([0_u8; N]);
    entropy.fill(bytes.as_mut_slice())?;
    Ok(bytes)
}

/// 256 random bits as 43 characters of base64url: the form of every handle, code and token the core makes.
pub(crate) fn draw_text(entropy: &mut dyn Entropy) -> Result<Erased<String>, EntropyUnavailable> {
    // OAUTH21-7.7-1: 256 bits, above the recommended 160, without bias.
    Ok(Erased::new(text_of(&*draw::<32>(entropy)?)))
}

/// 32 drawn bytes as [`draw_text`] gives them, for whoever erases them.
pub(crate) fn text_of(bytes: &[u8; 32]) -> String {
    base64url::encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Ahead, Entropy, EntropyUnavailable};

    /// Gives 1, 2, 3 and so on, so many times.
    struct Numbers {
        next: u8,
        draws: usize,
    }

    impl Entropy for Numbers {
        fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyUnavailable> {
            self.draws = self.draws.checked_sub(1).ok_or(EntropyUnavailable)?;
            for byte in buffer {
                self.next += 1;
                *byte = self.next;
            }
            Ok(())
        }
    }

    // I-G10
    #[test]
    fn no_byte_is_given_twice_and_all_are_of_the_source() {
        let mut source = Numbers { next: 0, draws: 3 };
        let mut ahead = Ahead::<8>::of(&mut source);
        let mut given = [0; 13];
        let (first, rest) = given.split_at_mut(3);
        let (second, rest) = rest.split_at_mut(5);
        let (third, fourth) = rest.split_at_mut(4);
        for piece in [first, second, third, fourth] {
            ahead.fill(piece).unwrap();
        }
        assert_eq!(given, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
        assert!(ahead.fill(&mut [0]).is_err(), "the source has nothing left");
    }

    #[test]
    fn without_randomness_nothing_is_given() {
        let mut source = Numbers { next: 0, draws: 0 };
        let mut ahead = Ahead::<8>::of(&mut source);
        for _ in 0..2 {
            assert_eq!(ahead.fill(&mut [0; 4]), Err(EntropyUnavailable));
        }
    }
}
