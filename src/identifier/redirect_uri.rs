//! Redirect URIs and the one rule by which a requested one matches a registered one (OAuth 2.1 sections 2.3, 4.1.1,
//! RFC 8252 section 7.3, decision D9).

use alloc::string::String;

use super::{IdentifierFault, InvalidIdentifier, identifier, is_loopback_host, web_uri, with_parameters};
use crate::syntax::form::Form;
use crate::syntax::uri::Uri;

identifier!(
    /// An absolute redirect URI without fragment: https, or http on `localhost`, `127.0.0.1` or `[::1]`.
    RedirectUri
);

const KIND: &str = "redirect URI";

/// The parameters of an authorization response.
const RESPONSE_PARAMETERS: [&str; 6] = ["code", "state", "iss", "error", "error_description", "error_uri"];

impl RedirectUri {
    /// Takes the exact text.
    ///
    /// # Errors
    /// [`InvalidIdentifier`] for any other scheme, a fragment or user information, a missing path, an asterisk, and a
    /// query that is no form or already has a parameter of the response.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidIdentifier> {
        let text = text.as_ref();
        // OAUTH21-2.3-1, OAUTH21-2.3-2, MCP-SEC-007, MCP-SEC-008, I-R4: checked by `web_uri`.
        let uri = web_uri(KIND, text)?;
        check_path_and_query(&uri)?;
        Ok(Self(text.into()))
    }

    /// Takes one exact URI of a private-use scheme (RFC 8252 section 7.1): the relaxation `PrivateScheme` (D9).
    ///
    /// # Errors
    /// [`InvalidIdentifier`] unless the scheme has a dot in it, for a host, and as for [`RedirectUri::new`].
    pub fn private_scheme(text: impl AsRef<str>) -> Result<Self, InvalidIdentifier> {
        let text = text.as_ref();
        let refuse = |fault: IdentifierFault| InvalidIdentifier::new(KIND, fault);
        let uri = Uri::parse(text).map_err(|error| refuse(error.into()))?;
        // OAUTH21-2.3.1-3: a domain name in reverse; `javascript`, `data` and their like have no dot.
        if uri.has_authority() || !uri.scheme().contains('.') {
            return Err(refuse(IdentifierFault::Scheme));
        }
        if uri.fragment().is_some() {
            return Err(refuse(IdentifierFault::Fragment));
        }
        check_path_and_query(&uri)?;
        Ok(Self(text.into()))
    }

    /// Whether a requested redirect URI is this registered one: equal bytes or, both being http on the same
    /// loopback host, equal bytes without the port (I-R2).
    pub(crate) fn matches(&self, requested: &Self) -> bool {
        // OAUTH21-2.3.1-2, OAUTH21-4.1.1-11
        if self.0 == requested.0 {
            return true;
        }
        match (self.without_loopback_port(), requested.without_loopback_port()) {
            (Some(registered), Some(requested)) => registered == requested,
            _ => false,
        }
    }

    /// What stands before and after the port of an http loopback URI, as written.
    fn without_loopback_port(&self) -> Option<(&str, &str)> {
        let rest = self.0.strip_prefix("http://")?;
        let host = ["localhost", "127.0.0.1", "[::1]"].into_iter().find(|host| rest.starts_with(host))?;
        let rest = rest.get(host.len()..)?;
        let after = match rest.strip_prefix(':') {
            Some(port) => port.trim_start_matches(|c: char| c.is_ascii_digit()),
            None => rest,
        };
        (after.is_empty() || after.starts_with(['/', '?'])).then_some((host, after))
    }

    /// This loopback URI with the port of another on the same host, or on the host whose name this one has: a program that
    /// restarts listens on another port. Any other URI stays what it is.
    pub(crate) fn at_port_of(&self, other: &Self) -> Self {
        match (self.without_loopback_port(), other.without_loopback_port()) {
            (Some((host, tail)), Some((other_host, _))) if host == other_host || host == "localhost" => {
                let port = other.port().map_or_else(String::new, |port| alloc::format!(":{port}"));
                Self(["http://", host, &port, tail].concat().into())
            }
            _ => self.clone(),
        }
    }

    /// This loopback URI at another port. Any other URI stays what it is.
    pub(crate) fn at_port(&self, port: u16) -> Self {
        match self.without_loopback_port() {
            Some((host, tail)) => Self(alloc::format!("http://{host}:{port}{tail}").into()),
            None => self.clone(),
        }
    }

    /// This loopback URI with the name `localhost` instead of an address. Any other URI stays what it is.
    pub(crate) fn by_loopback_name(&self) -> Self {
        match self.without_loopback_port() {
            Some((_, tail)) => {
                let port = self.port().map_or_else(String::new, |port| alloc::format!(":{port}"));
                Self(["http://localhost", &port, tail].concat().into())
            }
            None => self.clone(),
        }
    }

    /// Whether a browser would arrive at the same place, whatever port this program listens on.
    pub(crate) fn is_at_place_of(&self, other: &Self) -> bool {
        match (self.without_loopback_port(), other.without_loopback_port()) {
            (Some((host, tail)), Some((other_host, other_tail))) => {
                let path = |tail: &str| tail.split('?').next() == other_tail.split('?').next();
                host == other_host && path(tail)
            }
            _ => self.without_query() == other.without_query(),
        }
    }

    /// Whether it is http on this machine.
    pub(crate) fn is_loopback_http(&self) -> bool {
        self.without_loopback_port().is_some()
    }

    /// Whether it is what [`RedirectUri::new`] takes: any of a private-use scheme has neither of these beginnings.
    pub(crate) fn is_web(&self) -> bool {
        self.0.starts_with("https://") || self.0.starts_with("http://")
    }

    /// Whether it is of a private-use scheme (RFC 8252 section 7.1).
    pub fn is_private_scheme(&self) -> bool {
        Uri::read(&self.0).is_ok_and(|uri| !uri.has_authority())
    }

    /// The host, for a person to read; the scheme of a private-use URI.
    pub fn host_for_display(&self) -> &str {
        // MCP-SEC-024: plain ASCII; an international name stands in its `xn--` form.
        let Some((_, rest)) = self.0.split_once("://").filter(|_| self.is_web()) else {
            return self.0.split_once(':').map_or("", |(scheme, _)| scheme);
        };
        // It was read when it was made: no user information stands before the host.
        let end = match rest.find(']').filter(|_| rest.starts_with('[')) {
            Some(bracket) => bracket.saturating_add(1),
            None => rest.find([':', '/', '?']).unwrap_or(rest.len()),
        };
        rest.get(..end).unwrap_or_default()
    }

    /// Whether it leads to this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(self.host_for_display())
    }

    /// The port as written.
    pub fn port(&self) -> Option<u16> {
        Uri::read(&self.0).ok()?.port()
    }

    /// The text up to its query: what a callback must arrive on.
    pub fn without_query(&self) -> &str {
        self.0.split_once('?').map_or(&self.0, |(before, _)| before)
    }

    /// The query as written.
    pub fn query(&self) -> Option<&str> {
        self.0.split_once('?').map(|(_, query)| query)
    }

    /// The URI with response parameters added; a query it already has is kept byte for byte.
    ///
    /// # Errors
    /// [`InvalidIdentifier`] when its query already has one of the names, or is no form.
    pub fn with_parameters<'a>(
        &self,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)> + Clone,
    ) -> Result<String, InvalidIdentifier> {
        // OAUTH21-2.3-3
        with_parameters(KIND, &self.0, parameters)
    }
}

fn check_path_and_query(uri: &Uri<'_>) -> Result<(), InvalidIdentifier> {
    let refuse = |fault| Err(InvalidIdentifier::new(KIND, fault));
    let query = uri.query().unwrap_or_default();
    // OAUTH21-2.3.1-1: a complete URI, no bare host and no pattern.
    if uri.path().is_empty() {
        return refuse(IdentifierFault::Path);
    }
    if uri.path().contains('*') || query.contains('*') {
        return refuse(IdentifierFault::Grammar);
    }
    // I-R6: a query that answers by itself would put `code`, `state` or `iss` there twice.
    match Form::parse(query.as_bytes()) {
        Err(_) => refuse(IdentifierFault::Query),
        Ok(form) if RESPONSE_PARAMETERS.iter().any(|name| form.has_name(name)) => {
            refuse(IdentifierFault::Parameter)
        }
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::{String, ToString};

    use proptest::prelude::*;

    use super::RedirectUri;
    use crate::syntax::uri::Uri;

    fn matches(registered: &str, requested: &str) -> bool {
        match (RedirectUri::new(registered), RedirectUri::new(requested)) {
            (Ok(registered), Ok(requested)) => registered.matches(&requested),
            _ => false,
        }
    }

    // I-R2, OAUTH21-4.1.1-11
    #[test]
    fn any_port_of_the_same_loopback_uri_matches() {
        for (registered, requested) in [
            ("http://127.0.0.1/cb", "http://127.0.0.1:1/cb"),
            ("http://127.0.0.1:8080/cb", "http://127.0.0.1:65535/cb"),
            ("http://127.0.0.1:8080/cb", "http://127.0.0.1/cb"),
            ("http://[::1]/cb?a=1", "http://[::1]:9/cb?a=1"),
            ("http://localhost/cb", "http://localhost:3000/cb"),
            ("http://localhost/", "http://localhost:3000/"),
            ("https://app.example/cb", "https://app.example/cb"),
        ] {
            assert!(matches(registered, requested), "{registered} {requested}");
        }
    }

    // I-R1, I-R2, I-R3
    #[test]
    fn nothing_else_matches() {
        for (registered, requested) in [
            ("https://app.example/cb", "https://app.example:443/cb"),
            ("https://app.example/cb", "https://app.example:8443/cb"),
            ("https://app.example/cb", "https://app.example/cb/"),
            ("https://app.example/cb", "https://app.example/CB"),
            ("https://app.example/cb", "https://App.example/cb"),
            ("https://app.example/cb", "https://app.example/cb?x=1"),
            ("https://app.example/cb", "https://app.example/c%62"),
            ("https://app.example/cb", "https://app.example/x/../cb"),
            ("https://app.example/cb", "http://app.example/cb"),
            ("https://app.example/cb", "https://app.example@evil.example/cb"),
            ("http://127.0.0.1/cb", "http://localhost/cb"),
            ("http://127.0.0.1/cb", "http://[::1]/cb"),
            ("http://127.0.0.1/cb", "https://127.0.0.1/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:1/cb2"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:1/cb?x"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:1"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:0/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:65536/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:01/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:1@evil.example/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1.evil.example/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:80.evil.example/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:1\\@evil.example/cb"),
            ("http://127.0.0.1/cb", "http://0177.0.0.1/cb"),
            ("http://127.0.0.1/cb", "http://2130706433/cb"),
            ("http://127.0.0.1/cb", "http://127.1/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.2/cb"),
            ("http://127.0.0.1/cb", "http://１２7.0.0.1/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:1/./cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:1//cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:1/cb#f"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:1/c\tb"),
            ("http://127.0.0.1/cb", "HTTP://127.0.0.1/cb"),
            ("http://127.0.0.1/cb", "http:/127.0.0.1/cb"),
            ("http://127.0.0.1/cb", "http:127.0.0.1/cb"),
            ("http://127.0.0.1/cb", "http:///127.0.0.1/cb"),
            ("http://127.0.0.1/cb", "http:\\\\127.0.0.1\\cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1./cb"),
            ("http://127.0.0.1/cb", "http://0x7f000001/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:1/%2e/cb"),
            ("http://127.0.0.1/cb", "http://127.0.0.1:1/cb/.."),
            ("http://127.0.0.1/cb", "http://a@127.0.0.1:1/cb"),
            ("http://[::1]/cb", "http://[0:0:0:0:0:0:0:1]/cb"),
            ("http://[::1]/cb", "http://[::ffff:127.0.0.1]/cb"),
            ("http://localhost/cb", "http://localhost./cb"),
            ("https://localhost:1/cb", "https://localhost:2/cb"),
            ("http://localhost/cb", "http://LOCALHOST/cb"),
            ("http://localhost/cb", "http://localhost.evil.example/cb"),
        ] {
            assert!(!matches(registered, requested), "{registered} {requested}");
        }
    }

    // I-R4
    #[test]
    fn only_web_schemes_are_redirect_uris() {
        for text in [
            "javascript:alert(1)",
            "JaVaScRiPt:x",
            " https://a.example/",
            "data:x",
            "file:///x",
            "http://app.example/cb",
            "com.example.app:/cb",
            "https://a.example/#f",
            "/cb",
            "",
            "https:/a.example",
            "urn:ietf:wg:oauth:2.0:oob",
        ] {
            assert!(RedirectUri::new(text).is_err(), "{text}");
        }
        assert!(RedirectUri::new("https://a.example/").is_ok());
        assert!(RedirectUri::private_scheme("com.example.app:/cb").is_ok());
        for text in [
            "javascript:alert(1)",
            "myapp:/cb",
            "com.example.app://host/cb",
            "com.example:/cb#f",
            "https://a.example/",
        ] {
            assert!(RedirectUri::private_scheme(text).is_err(), "{text}");
        }
    }

    // OAUTH21-2.3.1-1
    #[test]
    fn a_bare_host_and_a_pattern_are_refused() {
        for text in [
            "https://a.example",
            "http://localhost:3000",
            "https://a.example?x",
            "https://a.example/*",
            "https://*.a.example/cb",
            "https://a.example/cb?x=*",
        ] {
            assert!(RedirectUri::new(text).is_err(), "{text}");
        }
        assert!(RedirectUri::private_scheme("com.example.app:").is_err());
        assert!(RedirectUri::private_scheme("com.example.app:/*").is_err());
    }

    // I-R6
    #[test]
    fn a_query_that_answers_by_itself_is_refused() {
        for name in ["code", "state", "iss", "error", "error_description", "error_uri", "%63ode", "st%61te"] {
            for text in [format!("https://a.example/cb?{name}=x"), format!("https://a.example/cb?a=1&{name}")]
            {
                assert!(RedirectUri::new(text.as_str()).is_err(), "{text}");
            }
            assert!(RedirectUri::private_scheme(format!("com.example.app:/cb?{name}=x")).is_err(), "{name}");
        }
        for text in ["https://a.example/cb?a=1&a=2", "https://a.example/cb?a=%ff"] {
            assert!(RedirectUri::new(text).is_err(), "{text}");
        }
        assert!(RedirectUri::new("https://a.example/cb?codes=1&State=2").is_ok());
    }

    #[test]
    fn what_a_person_sees_and_a_callback_arrives_on() {
        let uri = RedirectUri::new("http://[::1]:8080/cb?a=1").unwrap();
        assert_eq!((uri.host_for_display(), uri.port(), uri.is_loopback()), ("[::1]", Some(8080), true));
        assert_eq!((uri.without_query(), uri.query()), ("http://[::1]:8080/cb", Some("a=1")));
        let uri = RedirectUri::new("https://xn--exmple-cua.example/cb").unwrap();
        assert_eq!((uri.host_for_display(), uri.is_loopback()), ("xn--exmple-cua.example", false));
        assert!(RedirectUri::new("https://localhost:1/cb").unwrap().is_loopback());
        let uri = RedirectUri::private_scheme("com.example.app:/cb").unwrap();
        assert_eq!((uri.host_for_display(), uri.is_loopback()), ("com.example.app", false));
    }

    fn loopback() -> impl Strategy<Value = (String, String)> {
        ("(127\\.0\\.0\\.1|\\[::1\\]|localhost)", "(/[a-z0-9]{0,5}){1,3}(\\?[a-z]=[a-z0-9]{0,3})?")
    }

    proptest! {
        // MCP-SEC-024
        #[test]
        fn the_host_that_is_shown_is_the_one_the_grammar_finds(
            text in "(https|http)://([a-z]{1,4}(\\.[a-z]{1,4}){0,2}|localhost|127.0.0.1|\\[::1\\]|\\[2001:db8::1\\])(:[1-9][0-9]{0,3}|)(/[a-z:@]{0,5}){1,3}(\\?[a-z]=[a-z:/]{0,6}|)|[a-z]{1,4}\\.[a-z]{1,4}:/[a-z:]{0,4}(\\?u=https://x/|)",
        ) {
            for uri in [RedirectUri::new(&text), RedirectUri::private_scheme(&text)].into_iter().flatten() {
                let read = Uri::read(&text).unwrap();
                let expected = if read.has_authority() { read.host() } else { read.scheme() };
                prop_assert_eq!(uri.host_for_display(), expected);
            }
        }

        // I-R2: equal but for the port, and only then.
        #[test]
        fn the_loopback_rule_elides_the_port_and_nothing_else(
            (host, tail) in loopback(), (other_host, other_tail) in loopback(), a in 1_u16.., b in proptest::option::of(1_u16..),
        ) {
            let port = b.map(|port| format!(":{port}")).unwrap_or_default();
            let registered = format!("http://{host}:{a}{tail}");
            let same = format!("http://{host}{port}{tail}");
            let other = format!("http://{other_host}{port}{other_tail}");
            prop_assert!(matches(&registered, &same));
            let equal = host == other_host && tail == other_tail;
            prop_assert_eq!(matches(&registered, &other), equal);
        }

        // I-R1: one byte more, less or different is another URI.
        #[test]
        fn one_changed_byte_outside_a_loopback_port_is_refused(
            path in "(/[a-z0-9]{1,5}){1,3}", at in any::<proptest::sample::Index>(), byte in 0x21_u8..0x7f,
        ) {
            let registered = format!("https://app.example{path}");
            let mut changed = registered.clone().into_bytes();
            let at = at.index(changed.len());
            prop_assume!(changed[at] != byte);
            changed[at] = byte;
            prop_assert!(!matches(&registered, &String::from_utf8(changed).unwrap()));
            let (longer, shorter) = (format!("{registered}x"), &registered[..registered.len() - 1]);
            prop_assert!(!matches(&registered, &longer));
            prop_assert!(!matches(&registered, shorter));
        }

        // I-R6, I-R3
        #[test]
        fn the_emitted_uri_is_the_registered_one_and_our_parameters(
            tail in "(/[a-z0-9]{0,5}){1,3}(\\?[a-z]{2}=[a-z0-9]{0,3})?", state in "[ -~]{1,30}",
        ) {
            let uri = RedirectUri::new(format!("https://app.example{tail}")).unwrap();
            let emitted = uri.with_parameters([("code", "c"), ("state", &state), ("iss", "https://as.example")]).unwrap();
            prop_assert!(emitted.starts_with(uri.as_str()));
            let parsed = url::Url::parse(&emitted).unwrap();
            for (name, value) in [("code", "c"), ("state", state.as_str()), ("iss", "https://as.example")] {
                let values: std::vec::Vec<_> =
                    parsed.query_pairs().filter(|(n, _)| n == name).map(|(_, v)| v.to_string()).collect();
                prop_assert_eq!(values, [value]);
            }
        }
    }
}
