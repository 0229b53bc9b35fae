//! Whose pages may read the answers for clients.

use http::HeaderValue;
use mcp_authz::identifier::Issuer;

/// The origin of pages whose programs may read the answers for clients: https, or on loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin(HeaderValue);

/// Text that names no such origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an origin is https://HOST or https://HOST:PORT, in lower case and without the port 443, or http on loopback; neither \"*\" nor \"null\" names anybody"
)]
pub struct InvalidOrigin;

impl AllowedOrigin {
    /// The origin as browsers write it.
    ///
    /// # Errors
    /// [`InvalidOrigin`] for everybody (`*`), nobody (`null`), other schemes, and whatever has a path.
    pub fn new(text: &str) -> Result<Self, InvalidOrigin> {
        // I-G8: an issuer without a path is an origin.
        let parsed = Issuer::new(text).map_err(|_| InvalidOrigin)?;
        if parsed.origin().as_str() != text {
            return Err(InvalidOrigin);
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| InvalidOrigin)
    }

    pub(super) fn as_value(&self) -> &HeaderValue {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::AllowedOrigin;

    // I-G8, D45
    #[test]
    fn everybody_and_nobody_are_no_origin() {
        for text in ["https://app.example", "https://app.example:8443", "http://127.0.0.1:3000"] {
            assert!(AllowedOrigin::new(text).is_ok(), "{text}");
        }
        for text in [
            "*",
            "null",
            "",
            "app.example",
            "http://app.example",
            "https://app.example/",
            "https://app.example/path",
            "https://App.example",
            "https://app.example:443",
            "https://*.app.example",
            "https://a.example https://b.example",
        ] {
            assert!(AllowedOrigin::new(text).is_err(), "{text}");
        }
    }
}
