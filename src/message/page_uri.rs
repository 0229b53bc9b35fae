//! Links a message carries for a person to follow: documentation, logos, policies.

use alloc::string::String;
use core::fmt;

use crate::identifier::is_loopback_host;
use crate::limits;
use crate::syntax::uri::Uri;

/// A link for a person: https, or http on a loopback host; no user name or password. It may have a fragment.
///
/// It says nothing about who controls the page: it is self-asserted by the peer whose message carried it
/// (RFC 7591 section 5), and is shown only where the person can see its host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageUri(String);

/// Text that is no link a person may be offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an https URL, or http URL of a loopback host, without user name and password")]
pub struct InvalidPageUri;

impl PageUri {
    /// Takes an absolute URL, exactly as written.
    ///
    /// # Errors
    /// [`InvalidPageUri`] for any other scheme, for user information, and for what is no URL.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidPageUri> {
        let text = text.into();
        if text.len() > limits::URL_BYTES {
            return Err(InvalidPageUri);
        }
        let uri = Uri::parse(&text).map_err(|_| InvalidPageUri)?;
        // MCP-SBP-041: a link is an https one, whatever a peer writes
        let allowed = uri.scheme().eq_ignore_ascii_case("https")
            || (uri.scheme().eq_ignore_ascii_case("http") && is_loopback_host(uri.host()));
        if !allowed || uri.userinfo().is_some() || uri.host().is_empty() {
            return Err(InvalidPageUri);
        }
        Ok(Self(text))
    }

    /// The exact text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PageUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_https_or_loopback_and_keeps_its_bytes() {
        for link in [
            "https://example.com",
            "https://example.com/a?b=c#d",
            "http://localhost:3000/x",
            "http://[::1]/x",
        ] {
            assert_eq!(PageUri::new(link).unwrap().as_str(), link);
        }
    }

    #[test]
    fn a_link_of_another_scheme_or_with_user_information_is_refused() {
        // MCP-SBP-041, I-P8
        for link in [
            "",
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///x",
            "http://example.com/",
            "http://localhost.example.com/",
            "https://user:password@example.com/",
            "https://",
            "https:example.com",
            "//example.com",
            "https://example.com/\u{1b}[31m",
            "https://example.com/ x",
        ] {
            assert!(PageUri::new(link).is_err(), "{link:?}");
        }
        let long = alloc::format!("https://example.com/{}", "a".repeat(limits::URL_BYTES));
        assert!(PageUri::new(long).is_err());
    }
}
