//! Audiences: what an issuer may write into `aud` for a resource (RFC 7519 section 4.1.3).

use super::{IdentifierFault, InvalidIdentifier, ResourceId, identifier};
use crate::limits;

identifier!(
    /// A value of `aud` that a resource answers to: mostly its own identifier, for some issuers a name of theirs.
    Audience
);

impl Audience {
    /// Takes the exact text.
    ///
    /// # Errors
    /// [`InvalidIdentifier`] when it is empty or longer than [`limits::URL_BYTES`].
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidIdentifier> {
        let text = text.as_ref();
        // I-G8: an empty audience would be met by a claim that says nothing.
        if text.is_empty() || text.len() > limits::URL_BYTES {
            return Err(InvalidIdentifier::new("audience", IdentifierFault::Grammar));
        }
        Ok(Self(text.into()))
    }

    /// Whether a claimed audience is this one: for the URL of a resource its scheme and host are compared without
    /// regard to case, everything else as bytes (D3, I-A1).
    pub fn equals(&self, claimed: &str) -> bool {
        // MCP-AUTH-057
        *claimed == *self.0
            || ResourceId::new(&self.0).is_ok_and(|resource| resource.equals_audience(claimed))
    }
}

impl From<ResourceId> for Audience {
    fn from(resource: ResourceId) -> Self {
        Self(resource.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_is_never_empty() {
        assert!(Audience::new("").is_err());
        assert!(Audience::new("a".repeat(limits::URL_BYTES + 1)).is_err());
    }

    #[test]
    fn urls_fold_scheme_and_host_and_names_fold_nothing() {
        let url = Audience::new("https://mcp.example/Tools").unwrap();
        assert!(url.equals("https://mcp.example/Tools"));
        assert!(url.equals("HTTPS://MCP.example/Tools"));
        for other in ["https://mcp.example/tools", "https://mcp.example/Tools/", "https://mcp.example", ""] {
            assert!(!url.equals(other), "{other}");
        }
        let name = Audience::new("api://Tools").unwrap();
        assert!(name.equals("api://Tools"));
        for other in ["API://Tools", "api://tools", "api://Tools/", "Tools", ""] {
            assert!(!name.equals(other), "{other}");
        }
    }
}
