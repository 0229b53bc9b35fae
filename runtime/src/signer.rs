//! Who holds private keys: this process, or a key-management service.

use std::fmt;

use mcp_authz::jose::{Jwk, Sign, Signed, SigningKeyId};

use crate::BoxFuture;

/// Holds private keys and signs with them.
pub trait Signer: Send + Sync + fmt::Debug + 'static {
    /// The key that signs now: the core names it in the token before it asks for the signature.
    ///
    /// # Errors
    /// [`SignerFailed`] while there is none.
    fn signing_key(&self) -> Result<SigningKeyId, SignerFailed>;

    /// Signs, or fails; nothing was issued or sent then.
    fn sign(&self, action: Sign) -> BoxFuture<'_, Result<Signed, SignerFailed>>;

    /// The public halves, to publish.
    fn public_keys(&self) -> Vec<Jwk>;
}

/// The key holder did not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key holder did not sign")]
pub struct SignerFailed;

#[cfg(feature = "aws-lc-rs")]
impl Signer for crate::keys::SigningKey {
    fn signing_key(&self) -> Result<SigningKeyId, SignerFailed> {
        Ok(self.id())
    }

    fn sign(&self, action: Sign) -> BoxFuture<'_, Result<Signed, SignerFailed>> {
        let signed = Self::sign(self, action).map_err(|_| SignerFailed);
        Box::pin(std::future::ready(signed))
    }

    fn public_keys(&self) -> Vec<Jwk> {
        vec![self.jwk().clone()]
    }
}
