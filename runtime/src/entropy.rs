//! Randomness from the operating system.

use mcp_authz::entropy::{Entropy, EntropyUnavailable};

/// The operating system's generator (`getrandom`), which never gives bytes before it is seeded.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyUnavailable> {
        // OAUTH21-7.7-1
        getrandom::fill(buffer).map_err(|_| EntropyUnavailable)
    }
}

#[cfg(test)]
mod tests {
    use mcp_authz::entropy::Entropy as _;

    use super::OsEntropy;

    #[test]
    fn two_draws_differ() {
        let (mut first, mut second) = ([0_u8; 32], [0_u8; 32]);
        OsEntropy.fill(&mut first).unwrap();
        OsEntropy.fill(&mut second).unwrap();
        assert_ne!(first, second);
        assert_ne!(first, [0; 32]);
    }
}
