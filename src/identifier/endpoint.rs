//! Endpoints that a metadata document names, and origins.

use alloc::string::String;

use super::{IdentifierFault, InvalidIdentifier, identifier, is_loopback_host, web_uri, with_parameters};
use crate::syntax::uri::Uri;

identifier!(
    /// A URL the core sends a request or a browser to: https, or http on a loopback host; no fragment, no user.
    Endpoint
);

identifier!(
    /// Scheme, host and port of a URL: `https://host` or `https://host:port`, without a slash behind it.
    Origin
);

impl Endpoint {
    /// Takes the exact text.
    ///
    /// # Errors
    /// [`InvalidIdentifier`] for any scheme but https (http on a loopback host), a fragment or user information.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidIdentifier> {
        let text = text.as_ref();
        // OAUTH21-3.1-2, OAUTH21-3.2-1, MCP-SBP-040: checked by `web_uri`.
        web_uri("endpoint", text)?;
        // MCP-SBP-044: the one quote that RFC 3986 has; hosts hand this text to the operating system.
        if text.contains('\'') {
            return Err(InvalidIdentifier::new("endpoint", IdentifierFault::Grammar));
        }
        Ok(Self(text.into()))
    }

    /// Its origin.
    pub fn origin(&self) -> Origin {
        origin_of(&self.0)
    }

    /// The host, for a person to read.
    pub fn host(&self) -> &str {
        Uri::read(&self.0).map_or("", |uri| uri.host())
    }

    /// Whether it lies on a loopback host.
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(self.host())
    }

    /// The endpoint with parameters added; a query it already has is kept byte for byte.
    ///
    /// # Errors
    /// [`InvalidIdentifier`] when its query already has one of the names, or is no form.
    pub fn with_parameters<'a>(
        &self,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)> + Clone,
    ) -> Result<String, InvalidIdentifier> {
        // OAUTH21-3.1-3, MCP-SBP-044
        with_parameters("endpoint", &self.0, parameters)
    }
}

impl Origin {
    /// Takes an origin in the form browsers write it: lower case, no default port, nothing behind the port.
    ///
    /// # Errors
    /// [`InvalidIdentifier`] for anything else.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidIdentifier> {
        let text = text.as_ref();
        let uri = web_uri("origin", text)?;
        if !uri.path().is_empty() || uri.query().is_some() || *origin_of(text).0 != *text {
            return Err(InvalidIdentifier::new("origin", IdentifierFault::Path));
        }
        Ok(Self(text.into()))
    }
}

/// The origin of a URL that was checked before: scheme and host in lower case, the port unless it is the default.
pub(super) fn origin_of(text: &str) -> Origin {
    let Ok(uri) = Uri::read(text) else { return Origin("".into()) };
    let mut origin = [uri.scheme(), "://", uri.host()].concat();
    origin.make_ascii_lowercase();
    let default = matches!((uri.scheme(), uri.port()), (_, None) | ("https", Some(443)) | ("http", Some(80)));
    if let (false, Some(port)) = (default, uri.port()) {
        origin = alloc::format!("{origin}:{port}");
    }
    Origin(origin.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Endpoint, Origin};

    // MCP-SBP-040, MCP-SBP-041
    #[test]
    fn only_web_schemes_pass() {
        for text in [
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "vbscript:x",
            "ftp://h/",
            "http://h.example/",
            "--upload-pack=x",
            "https://h.example/#f",
            "https://u:p@h.example/",
            "https:h.example",
            "https://h.example/it's",
            "https://h.example/?q='",
            "",
        ] {
            assert!(Endpoint::new(text).is_err(), "{text}");
        }
        assert!(Endpoint::new("https://h.example/authorize?tenant=1").is_ok());
        assert!(Endpoint::new("http://127.0.0.1:1/authorize").unwrap().is_loopback());
    }

    // OAUTH21-3.1-3, OAUTH21-3.1-6
    #[test]
    fn parameters_are_added_behind_what_is_there() {
        let added = |text: &str| Endpoint::new(text).unwrap().with_parameters([("a", "x y"), ("b", "&")]);
        assert_eq!(added("https://h/p").unwrap(), "https://h/p?a=x+y&b=%26");
        assert_eq!(added("https://h/p?").unwrap(), "https://h/p?a=x+y&b=%26");
        assert_eq!(added("https://h/p?t=%41").unwrap(), "https://h/p?t=%41&a=x+y&b=%26");
        assert_eq!(added("https://h").unwrap(), "https://h?a=x+y&b=%26");
        for text in ["https://h/p?a=1", "https://h/p?%61=1", "https://h/p?x=1&b", "https://h/p?x=1&x=2"] {
            assert!(added(text).is_err(), "{text}");
        }
        let endpoint = Endpoint::new("https://h/p").unwrap();
        assert!(endpoint.with_parameters([("a", "1"), ("b", "2"), ("a", "3")]).is_err());
        assert_eq!(endpoint.with_parameters([]).unwrap(), "https://h/p");
    }

    #[test]
    fn origins_are_written_one_way() {
        assert_eq!(
            Endpoint::new("https://H.example:443/x?y").unwrap().origin().as_str(),
            "https://h.example"
        );
        assert_eq!(Endpoint::new("http://[::1]:81/x").unwrap().origin().as_str(), "http://[::1]:81");
        for text in [
            "https://h/",
            "https://h:443",
            "https://H",
            "https://h?",
            "https://h?a",
            "https://h#",
            "https://u@h",
            "http://h",
            "null",
            "",
        ] {
            assert!(Origin::new(text).is_err(), "{text}");
        }
        assert!(Origin::new("https://h.example:8443").is_ok());
    }

    proptest! {
        // I-L6
        #[test]
        fn what_is_opened_is_the_endpoint_and_our_parameters(
            path in "(/[a-z0-9]{0,6}){0,3}", query in proptest::option::of("[a-z]{1,4}=[a-z0-9]{0,4}"), value in ".{0,20}",
        ) {
            let text = ["https://h.example", &path, &query.map(|q| ["?", &q].concat()).unwrap_or_default()].concat();
            let endpoint = Endpoint::new(text.clone()).unwrap();
            let url = endpoint.with_parameters([("STATE", value.as_str())]).unwrap();
            prop_assert!(url.starts_with(&text));
            prop_assert!(url.bytes().all(|byte| byte.is_ascii_graphic()));
            let pairs: std::vec::Vec<_> = url::Url::parse(&url).unwrap().query_pairs().into_owned().collect();
            prop_assert_eq!(pairs.iter().filter(|(name, _)| name == "STATE").count(), 1);
            prop_assert_eq!(&pairs.last().unwrap().1, &value);
        }
    }
}
