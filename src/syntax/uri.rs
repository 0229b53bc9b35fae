//! Absolute URIs, read by RFC 3986 to the letter, and only if the WHATWG reading agrees (I-R3).
//!
//! The parts are slices of the input: nothing is decoded, folded or normalised. What two parsers could read in two
//! ways (a backslash, a tab, an octal host, a dot segment) is refused here, so that no comparison above has to
//! think of it.

use core::net::Ipv6Addr;

use crate::limits;

/// Why text is not an acceptable absolute URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// Longer than the core reads.
    #[error("it is too long")]
    TooLong,
    /// No scheme, or one that is not lower-case letters, digits, plus, minus and dots.
    #[error("it does not begin with a scheme in lower case")]
    Scheme,
    /// A character that RFC 3986 does not have, or a broken percent-escape.
    #[error("it has a character that a URI may not have, or a broken escape")]
    Character,
    /// The host is empty, has an escape or an empty label, or is no well-formed address or name.
    #[error("its host is empty or malformed")]
    Host,
    /// The port is empty, zero, too large or has a leading zero.
    #[error("its port is malformed")]
    Port,
    /// Another parser would read another scheme, host, port or path.
    #[error("two parsers would read it differently")]
    Ambiguous,
}

/// The parts of an absolute URI, as slices of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uri<'u> {
    scheme: &'u str,
    authority: Option<&'u str>,
    userinfo: Option<&'u str>,
    host: &'u str,
    port: Option<u16>,
    path: &'u str,
    query: Option<&'u str>,
    fragment: Option<&'u str>,
}

impl<'u> Uri<'u> {
    /// Reads an absolute URI.
    ///
    /// # Errors
    /// [`UriError`] for anything that is not one, or that the `url` crate reads otherwise.
    pub fn parse(text: &'u str) -> Result<Self, UriError> {
        let uri = Self::read(text)?;
        uri.agrees_with_whatwg(text)?;
        Ok(uri)
    }

    /// Reads by RFC 3986 alone. For the text of an identifier, which [`Uri::parse`] accepted when it was made.
    pub(crate) fn read(text: &'u str) -> Result<Self, UriError> {
        // OAUTH21-7.11-1, OAUTH21-7.11-2: length and syntax before use.
        if text.len() > limits::URL_BYTES {
            return Err(UriError::TooLong);
        }
        check_characters(text.as_bytes())?;
        let (scheme, rest) = text.split_once(':').ok_or(UriError::Scheme)?;
        let mut letters = scheme.bytes();
        if !letters.next().is_some_and(|first| first.is_ascii_lowercase())
            || !letters
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'))
        {
            return Err(UriError::Scheme);
        }
        let (rest, fragment) = split_optional(rest, '#');
        let (rest, query) = split_optional(rest, '?');
        if fragment.is_some_and(|fragment| fragment.contains('#')) {
            return Err(UriError::Character);
        }
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                let (authority, path) = rest.split_at_checked(end).ok_or(UriError::Host)?;
                (Some(authority), path)
            }
            None => (None, rest),
        };
        // Brackets belong to an address literal and to nothing else.
        if [path, query.unwrap_or_default(), fragment.unwrap_or_default()]
            .iter()
            .any(|part| part.contains(['[', ']']))
        {
            return Err(UriError::Character);
        }
        let (userinfo, host, port) = match authority {
            Some(authority) => split_authority(authority)?,
            None => (None, "", None),
        };
        Ok(Self { scheme, authority, userinfo, host, port, path, query, fragment })
    }

    /// The scheme, in lower case.
    pub fn scheme(&self) -> &'u str {
        self.scheme
    }

    /// Whether there is an authority (`//host`).
    pub fn has_authority(&self) -> bool {
        self.authority.is_some()
    }

    /// User information before an `@`, even if empty.
    pub fn userinfo(&self) -> Option<&'u str> {
        self.userinfo
    }

    /// The host as written, an IPv6 address with its brackets; empty without an authority.
    pub fn host(&self) -> &'u str {
        self.host
    }

    /// The port as written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port as written, or the scheme's default (443, 80).
    pub fn effective_port(&self) -> Option<u16> {
        self.port.or(match self.scheme {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        })
    }

    /// The path as written; may be empty.
    pub fn path(&self) -> &'u str {
        self.path
    }

    /// The query without its question mark.
    pub fn query(&self) -> Option<&'u str> {
        self.query
    }

    /// The fragment without its hash mark.
    pub fn fragment(&self) -> Option<&'u str> {
        self.fragment
    }

    /// Whether the path holds a dot segment, in any spelling.
    pub fn has_dot_segment(&self) -> bool {
        self.path.split('/').any(is_dot_segment)
    }

    /// Refuses what was [`Uri::read`] of that text if the other reading is another one, or none.
    pub(crate) fn agrees_with_whatwg(&self, text: &str) -> Result<(), UriError> {
        if self.is_plain() {
            return Ok(());
        }
        let other = url::Url::parse(text).map_err(|_| UriError::Ambiguous)?;
        if !self.has_authority() {
            // A private-use URI: what follows the scheme is opaque to the other reading, dot segments too. For
            // https the other reading takes a host out of the path, so that the paths differ.
            let same = other.scheme() == self.scheme && other.path() == self.path;
            return if same && !self.has_dot_segment() { Ok(()) } else { Err(UriError::Ambiguous) };
        }
        let mut host = alloc::string::String::from(self.host);
        host.make_ascii_lowercase();
        // Dot segments, escaped ones too, end here: the other reading has resolved them.
        let same_path = other.path() == self.path || (self.path.is_empty() && other.path() == "/");
        let same = other.scheme() == self.scheme
            && other.host_str() == Some(host.as_str())
            && other.port_or_known_default() == self.effective_port()
            && same_path;
        if same { Ok(()) } else { Err(UriError::Ambiguous) }
    }

    /// Whether there is nothing in it that the other reading changes, so that it need not be made: http or https, a name of which
    /// no word may be an encoded one or the last a number, or the loopback address, and a path without escapes and dots that
    /// lead a segment.
    fn is_plain(&self) -> bool {
        let last = self.host.rsplit('.').next().unwrap_or_default();
        let is_name =
            !self.host.contains("--") && last.starts_with(|first: char| first.is_ascii_alphabetic());
        let is_segment = |segment: &str| !segment.starts_with('.') && !segment.contains('%');
        matches!(self.scheme, "https" | "http")
            && (is_name || self.host == "127.0.0.1")
            && self.path.split('/').all(is_segment)
    }
}

/// `.` and `..`, also with dots written as escapes.
pub(crate) fn is_dot_segment(segment: &str) -> bool {
    let mut rest = segment;
    let mut dots = 0_u8;
    while !rest.is_empty() {
        let dot = [".", "%2e", "%2E"].iter().find_map(|dot| rest.strip_prefix(dot));
        match dot {
            Some(after) if dots < 2 => rest = after,
            _ => return false,
        }
        dots = dots.saturating_add(1);
    }
    dots > 0
}

fn split_optional(text: &str, mark: char) -> (&str, Option<&str>) {
    match text.split_once(mark) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn check_characters(bytes: &[u8]) -> Result<(), UriError> {
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let escaped = [rest.next(), rest.next()];
                if !escaped.iter().all(|digit| digit.is_some_and(u8::is_ascii_hexdigit)) {
                    return Err(UriError::Character);
                }
            }
            b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b'?' | b'#' | b'[' | b']' | b'@' | b'!' | b'$'
            | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => {}
            byte if byte.is_ascii_alphanumeric() => {}
            _ => return Err(UriError::Character),
        }
    }
    Ok(())
}

type Authority<'u> = (Option<&'u str>, &'u str, Option<u16>);

fn split_authority(authority: &str) -> Result<Authority<'_>, UriError> {
    let (userinfo, host_and_port) = match authority.rsplit_once('@') {
        Some((userinfo, rest)) => (Some(userinfo), rest),
        None => (None, authority),
    };
    let (host, port) = if host_and_port.starts_with('[') {
        let end = host_and_port.find(']').ok_or(UriError::Host)?.saturating_add(1);
        let (host, rest) = host_and_port.split_at_checked(end).ok_or(UriError::Host)?;
        let address = host.get(1..host.len().saturating_sub(1)).unwrap_or_default();
        address.parse::<Ipv6Addr>().map_err(|_| UriError::Host)?;
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(UriError::Host),
        }
    } else {
        match host_and_port.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (host_and_port, None),
        }
    };
    // Narrower than `reg-name`: what no resolver knows is refused, and so is a dot at the end, a second spelling.
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if !(host.starts_with('[') || host.split('.').all(is_label)) {
        return Err(UriError::Host);
    }
    let port = match port {
        None => None,
        Some(digits) => {
            if digits.starts_with('0') || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(UriError::Port);
            }
            Some(digits.parse::<u16>().map_err(|_| UriError::Port)?)
        }
    };
    Ok((userinfo, host, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Uri, UriError, is_dot_segment};

    #[test]
    fn parts_are_slices_of_the_text() {
        let uri = Uri::parse("https://u@Example.com:8443/a//b%2Fc?x=1?#f").unwrap();
        assert_eq!(uri.scheme(), "https");
        assert_eq!(uri.userinfo(), Some("u"));
        assert_eq!(uri.host(), "Example.com");
        assert_eq!(uri.port(), Some(8443));
        assert_eq!(uri.path(), "/a//b%2Fc");
        assert_eq!(uri.query(), Some("x=1?"));
        assert_eq!(uri.fragment(), Some("f"));
        let uri = Uri::parse("http://[::1]").unwrap();
        assert_eq!((uri.host(), uri.port(), uri.effective_port(), uri.path()), ("[::1]", None, Some(80), ""));
        let uri = Uri::parse("com.example.app:/callback").unwrap();
        assert_eq!((uri.has_authority(), uri.host(), uri.path()), (false, "", "/callback"));
    }

    #[test]
    fn hostile_spellings_are_refused() {
        for text in [
            "",
            "https",
            "https:",
            "https://",
            "https:///path",
            "//host/path",
            "/path",
            "https:/host",
            "HTTPS://host/",
            "https://host\\@evil/",
            "https://host/\\evil",
            "https://ho\tst/",
            "https://host/a b",
            "https://host/\n",
            " https://host/",
            "https://host/ ",
            "https://hôst/",
            "https://ｈost/",
            "https://host/ä",
            "https://host/\"",
            "https://host/<a>",
            "https://host/{a}",
            "https://host/a|b",
            "https://host/a^b",
            "https://host/`",
            "https://host/%",
            "https://host/%2",
            "https://host/%zz",
            "https://ho%73t/",
            "https://host:/",
            "https://host:0/",
            "https://host:65536/",
            "https://host:080/",
            "https://host:8 0/",
            "https://host:+80/",
            "https://host:80:80/",
            "http://0177.0.0.1/",
            "http://0x7f.0.0.1/",
            "http://2130706433/",
            "http://127.1/",
            "http://127.0.0.1./",
            "https://host./",
            "https://a..b/",
            "https://.host/",
            "https://a,b/",
            "https://ho!st/",
            "https://0x7f000001/",
            "https://[::ffff:127.0.0.1]/",
            "https://[v1.x]/",
            "https:host",
            "https://host/a/../b",
            "https://host/a/./b",
            "https://host/..",
            "https://host/%2e%2e/b",
            "https://host/.%2E",
            "https://[::1/",
            "https://[::g]/",
            "https://[::1]x/",
            "https://[0:0:0:0:0:0:0:1]/",
            "https://[::1%25lo]/",
            "https://host/[",
            "https://host/?a[]=1",
            "https://host/#a#b",
            "1http://host/",
            "ht tp://host/",
            "javascript://%0aalert(1)",
            "https://a@b@c:x/",
        ] {
            assert!(Uri::parse(text).is_err(), "{text:?} was accepted");
        }
        let long = ["https://h/", &"a".repeat(3000)].concat();
        assert_eq!(Uri::parse(&long), Err(UriError::TooLong));
    }

    // I-R3: what is wrong is found by this reading, before the other is asked.
    #[test]
    fn a_fault_is_found_where_it_lies() {
        for (text, fault) in [
            ("HTTPS://host/", UriError::Scheme),
            ("hTtps://host/", UriError::Scheme),
            ("1http://host/", UriError::Scheme),
            ("ht_tp://host/", UriError::Scheme),
            ("://host/", UriError::Scheme),
            ("https://[::1]x/", UriError::Host),
            ("https://[::1]8080/", UriError::Host),
            ("https://[::1", UriError::Host),
        ] {
            assert_eq!(Uri::parse(text), Err(fault), "{text}");
        }
    }

    // I-R3: our reading refuses these by itself, and the other reading those.
    #[test]
    fn neither_reading_leaves_its_work_to_the_other() {
        for text in [
            "https://[::g]/",
            "https://[v1.x]/",
            "https://[]/",
            "https://host:+80/",
            "https://host:8a/",
            "https://host:/",
            "https://host:65536/",
            "https://ho%73t/",
            "https://host/a b",
            "https://host\\@evil/",
            "https://",
        ] {
            assert!(Uri::read(text).is_err(), "{text}");
        }
        for text in [
            "http://0x7f.1/",
            "https://[0:0:0:0:0:0:0:1]/",
            "https://host/a/%2E./b",
            "https:/host/",
            "https:host",
            "com.example:a/../b",
            "com.example:/a/%2e/b",
            "ftp://host/",
            "wss://host/",
            "https://xn--0.example/",
        ] {
            assert!(Uri::read(text).is_ok(), "{text}");
            assert_eq!(Uri::parse(text), Err(UriError::Ambiguous), "{text}");
        }
    }

    #[test]
    fn dot_segments_are_known_in_every_spelling() {
        for segment in [".", "..", "%2e", "%2E", ".%2e", "%2e.", "%2E%2e"] {
            assert!(is_dot_segment(segment), "{segment}");
        }
        for segment in ["", "...", "a.", ".a", "%2f", ".%2", "%2e%2e%2e"] {
            assert!(!is_dot_segment(segment), "{segment}");
        }
    }

    proptest! {
        // I-R3: what is read once is what would be read twice.
        #[test]
        fn a_plain_uri_has_one_reading(
            text in "https?://[a-zA-Z0-9_\\-]{1,80}(\\.[a-zA-Z0-9_\\-]{1,5}){0,3}(:[1-9][0-9]{0,3})?(/[a-zA-Z0-9.~_!$&'()*+,;=:@\\-]{0,9}){0,4}",
        ) {
            if let Some(uri) = Uri::read(&text).ok().filter(Uri::is_plain) {
                let other = url::Url::parse(&text).unwrap();
                prop_assert_eq!(other.scheme(), uri.scheme());
                prop_assert_eq!(other.host_str().unwrap(), uri.host().to_ascii_lowercase());
                prop_assert_eq!(other.port_or_known_default(), uri.effective_port());
                prop_assert_eq!(other.path(), if uri.path().is_empty() { "/" } else { uri.path() });
            }
        }

        // I-G1
        #[test]
        fn never_panics(text in "(https?:|[a-z]{0,5}:)?/{0,3}.{0,40}") {
            let _ = Uri::parse(&text);
        }

        // I-R3
        #[test]
        fn what_parsers_read_differently_is_refused(
            host in prop::sample::select(std::vec![
                "host", "a.b-c", "127.0.0.1", "[::1]", "0177.0.0.1", "0x7f.0.0.1", "127.1", "2130706433", "1.2.3.4.5",
            ]),
            port in prop::sample::select(std::vec!["", ":1", ":443", ":080", ":"]),
            segments in prop::collection::vec(
                prop::sample::select(std::vec!["a", "", ".", "..", "%2e", ".%2E", "b%2Fc", "...", "a."]), 0..4,
            ),
        ) {
            let path: std::string::String = segments.iter().map(|segment| std::format!("/{segment}")).collect();
            let text = std::format!("https://{host}{port}{path}");
            let plain = url::Url::parse(&text).is_ok_and(|other| {
                other.host_str() == Some(host) && (other.path() == path || path.is_empty())
            });
            let read = Uri::parse(&text);
            prop_assert!(read.is_err() || plain, "{} has two readings", text);
            prop_assert!(read.is_err() || !segments.iter().any(|segment| is_dot_segment(segment)), "{}", text);
            prop_assert_eq!(read.is_ok(), plain && !matches!(port, ":080" | ":"), "{}", text);
        }

        // I-R3
        #[test]
        fn what_is_accepted_reads_the_same_in_both_parsers(
            text in "https?://([a-zA-Z0-9.@%_\\-]{1,12}|\\[::1\\])(:[0-9]{0,6})?(/[a-z.%2eE/\\\\]{0,12})?(\\?[a-z=&]{0,8})?(#[a-z]{0,3})?",
        ) {
            if let Ok(uri) = Uri::parse(&text) {
                let other = url::Url::parse(&text).unwrap();
                prop_assert_eq!(other.scheme(), uri.scheme());
                prop_assert_eq!(other.host_str().unwrap(), uri.host().to_ascii_lowercase());
                prop_assert_eq!(other.port_or_known_default(), uri.effective_port());
                prop_assert_eq!(other.path().trim_start_matches('/'), uri.path().trim_start_matches('/'));
                prop_assert_eq!(other.query(), uri.query());
                prop_assert_eq!(!other.username().is_empty() || other.password().is_some(),
                    uri.userinfo().is_some_and(|u| !u.trim_matches(':').is_empty()));
            }
        }
    }
}
