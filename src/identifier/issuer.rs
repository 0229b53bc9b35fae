//! Issuer identifiers (RFC 8414 section 2, RFC 9207 section 2).

use alloc::string::String;
use alloc::vec::Vec;

use super::endpoint::{Origin, origin_of};
use super::{IdentifierFault, InvalidIdentifier, identifier, is_loopback_host, web_uri};
use crate::syntax::uri::Uri;

identifier!(
    /// The identifier of an authorization server: https (or http on a loopback host), no query, no fragment.
    ///
    /// Two issuers are the same only if their bytes are: case, default port and a trailing slash all count (D3).
    Issuer
);

const KIND: &str = "issuer";

impl Issuer {
    /// Takes the exact text.
    ///
    /// # Errors
    /// [`InvalidIdentifier`] when it is no https URL, or has a query, a fragment or user information.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidIdentifier> {
        let text = text.as_ref();
        let uri = web_uri(KIND, text)?;
        // RFC8414-2-1, RFC8414-2-2
        if uri.query().is_some() {
            return Err(InvalidIdentifier::new(KIND, IdentifierFault::Query));
        }
        Ok(Self(text.into()))
    }

    /// Whether it lies on a loopback host.
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(self.host())
    }

    /// The host, for a person to read.
    pub fn host(&self) -> &str {
        Uri::read(&self.0).map_or("", |uri| uri.host())
    }

    /// Whether the two differ in the lone slash behind the host and in nothing else: what the relaxation
    /// `IssuerRootSlash` takes for one issuer.
    pub fn differs_by_root_slash(&self, other: &Self) -> bool {
        let longer = |short: &Self, long: &Self| {
            long.0.strip_suffix('/') == Some(&*short.0) && short.0.matches('/').count() == 2
        };
        longer(self, other) || longer(other, self)
    }

    /// Its origin.
    pub fn origin(&self) -> Origin {
        origin_of(&self.0)
    }

    /// The URLs at which its metadata may stand, in the order to try them (MCP authorization, server discovery).
    pub fn metadata_urls(&self) -> Vec<String> {
        let (origin, path) = self.split();
        // RFC8414-3.1-2, OIDCD-4.1-1: a terminating slash is dropped before the well-known string is inserted.
        let path = path.strip_suffix('/').unwrap_or(path);
        let joined = |parts: &[&str]| parts.concat();
        // MCP-DISC-011, MCP-DISC-014: several places, the default suffix and no other.
        let oauth = joined(&[origin, "/.well-known/oauth-authorization-server", path]);
        let openid_inserted = joined(&[origin, "/.well-known/openid-configuration", path]);
        if path.is_empty() {
            // MCP-DISC-013
            return Vec::from([oauth, openid_inserted]);
        }
        // MCP-DISC-012
        let openid_appended = joined(&[origin, path, "/.well-known/openid-configuration"]);
        Vec::from([oauth, openid_inserted, openid_appended])
    }

    fn split(&self) -> (&str, &str) {
        let after_scheme = self.0.find("://").map_or(0, |at| at.saturating_add(3));
        let path = self.0.get(after_scheme..).and_then(|rest| rest.find('/'));
        let at = path.map_or(self.0.len(), |at| at.saturating_add(after_scheme));
        self.0.split_at_checked(at).unwrap_or((&self.0, ""))
    }
}

#[cfg(test)]
mod tests {
    use super::Issuer;

    #[test]
    fn the_exact_text_is_kept_and_compared() {
        for text in
            ["https://as.example", "https://as.example/", "https://AS.example", "https://as.example:443"]
        {
            assert_eq!(Issuer::new(text).unwrap().as_str(), text);
        }
        assert_ne!(Issuer::new("https://as.example"), Issuer::new("https://as.example/"));
        assert_ne!(Issuer::new("https://as.example"), Issuer::new("https://AS.example"));
        assert_ne!(Issuer::new("https://as.example"), Issuer::new("https://as.example:443"));
    }

    // RFC8414-2-1
    #[test]
    fn other_schemes_queries_fragments_and_users_are_refused() {
        for text in [
            "http://as.example",
            "ftp://as.example",
            "javascript:alert(1)",
            "https://as.example?",
            "https://as.example/?a=b",
            "https://as.example/#",
            "https://u@as.example",
            "https://@as.example",
            "http://127.0.0.2",
            "http://LOCALHOST",
            "http://localhost.evil.example",
            "as.example",
            "",
        ] {
            assert!(Issuer::new(text).is_err(), "{text}");
        }
        for text in ["http://localhost:1", "http://127.0.0.1:8080/t", "http://[::1]:9"] {
            assert!(Issuer::new(text).unwrap().is_loopback(), "{text}");
        }
        assert!(!Issuer::new("https://as.example").unwrap().is_loopback());
        let issuer = Issuer::new("https://AS.example:443/t").unwrap();
        assert_eq!((issuer.host(), issuer.origin().as_str()), ("AS.example", "https://as.example"));
    }

    // MCP-DISC-012, MCP-DISC-013, RFC8414-3.1-2, OIDCD-4.1-1
    #[test]
    fn metadata_is_looked_for_in_the_order_of_the_specification() {
        assert_eq!(
            Issuer::new("https://as.example/tenant/1").unwrap().metadata_urls(),
            [
                "https://as.example/.well-known/oauth-authorization-server/tenant/1",
                "https://as.example/.well-known/openid-configuration/tenant/1",
                "https://as.example/tenant/1/.well-known/openid-configuration",
            ]
        );
        assert_eq!(
            Issuer::new("https://as.example:8443/t/").unwrap().metadata_urls(),
            [
                "https://as.example:8443/.well-known/oauth-authorization-server/t",
                "https://as.example:8443/.well-known/openid-configuration/t",
                "https://as.example:8443/t/.well-known/openid-configuration",
            ]
        );
        for text in ["https://as.example", "https://as.example/"] {
            assert_eq!(
                Issuer::new(text).unwrap().metadata_urls(),
                [
                    "https://as.example/.well-known/oauth-authorization-server",
                    "https://as.example/.well-known/openid-configuration",
                ]
            );
        }
    }
}
