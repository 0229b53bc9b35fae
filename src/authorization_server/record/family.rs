//! The name of a family.

use core::fmt;

use crate::entropy::{Entropy, EntropyUnavailable, draw};
use crate::syntax::base64url;
use crate::time::OffsetDateTime;

/// Names a family: all credentials that descend from one authorization code. Not a secret, and the `jti` of its signed access
/// tokens begins with it: whoever sees one sees when its grant was made.
///
/// It begins with the time, so that the families of one moment stand side by side wherever a store keeps them in order: an
/// index of a million random names would write a page of its own for each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FamilyId([u8; 16]);

impl FamilyId {
    /// 48 bits of Unix milliseconds, then 80 random ones.
    pub(crate) fn fresh(now: OffsetDateTime, entropy: &mut dyn Entropy) -> Result<Self, EntropyUnavailable> {
        let milliseconds = now.unix_timestamp_nanos().div_euclid(1_000_000);
        let [_, _, _, _, _, _, _, _, _, _, time @ ..] = milliseconds.to_be_bytes();
        let random = draw::<10>(entropy)?;
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(time.iter().chain(random.iter())) {
            *to = *from;
        }
        Ok(Self(bytes))
    }

    /// Read back from a store.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// For a store.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for FamilyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FamilyId({})", base64url::encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Duration;

    /// The same byte, over and over.
    struct Same(u8);

    impl Entropy for Same {
        fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyUnavailable> {
            buffer.fill(self.0);
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn families_stand_in_the_order_of_their_time(
            at in 0_i64..4_000_000_000, later in 1_i64..1_000_000_000, bytes in any::<[u8; 2]>(),
        ) {
            let at = OffsetDateTime::from_unix_timestamp(at).unwrap();
            let family = |after: i64, byte| {
                FamilyId::fresh(at.saturating_add(Duration::milliseconds(after)), &mut Same(byte)).unwrap()
            };
            prop_assert!(family(0, bytes[0]) < family(later, bytes[1]));
            // Those of one moment differ by what was drawn, in all that is left.
            prop_assert_eq!(family(0, bytes[0]) < family(0, bytes[1]), bytes[0] < bytes[1]);
            prop_assert!(family(0, bytes[0]).as_bytes()[6..].iter().all(|byte| *byte == bytes[0]));
        }
    }
}
