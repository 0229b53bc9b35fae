//! Resource identifiers: what a token is for (RFC 8707 section 2, RFC 9728 section 1.2).

use alloc::string::String;
use alloc::vec::Vec;

use super::endpoint::{Origin, origin_of};
use super::{
    IdentifierFault, InvalidIdentifier, fold_scheme_and_host, identifier, is_bare_root, is_loopback_host,
    origin_and_rest, web_uri,
};
use crate::syntax::uri::Uri;

identifier!(
    /// The identifier of a protected resource: an https URL (or http on a loopback host) without fragment.
    ///
    /// It goes into every `resource` parameter byte for byte (D2).
    ResourceId
);

const KIND: &str = "resource identifier";

/// A place where a resource's metadata may stand, and the identifier the document there must have (D1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataLocation {
    /// The URL to fetch.
    pub url: String,
    /// What the document's `resource` must equal; any one of them.
    pub identifiers: Vec<ResourceId>,
}

impl ResourceId {
    /// Takes the exact text.
    ///
    /// # Errors
    /// [`InvalidIdentifier`] for another scheme, a fragment or user information.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidIdentifier> {
        let text = text.as_ref();
        // RFC9728-1.2-1, RFC8707-2-1, RFC8707-2-2: absolute, https, no fragment.
        web_uri(KIND, text)?;
        Ok(Self(text.into()))
    }

    /// The identifier of the MCP server at a URL a person typed: scheme and host in lower case, and nothing else
    /// changed but a lone slash behind the host (MCP authorization, canonical server URI; D2, D3).
    ///
    /// # Errors
    /// [`InvalidIdentifier`] as for [`ResourceId::new`].
    pub fn from_server_url(text: &str) -> Result<Self, InvalidIdentifier> {
        let refuse = || InvalidIdentifier::new(KIND, IdentifierFault::Scheme);
        // MCP-AUTH-056, MCP-AUTH-059
        // RFC8707-2-3: a query is there only if the person's URL has one.
        let folded = fold_scheme_and_host(text).ok_or_else(refuse)?;
        Self::new(without_root_slash(&folded))
    }

    /// Its origin.
    pub fn origin(&self) -> Origin {
        origin_of(&self.0)
    }

    /// The host, for a person to read.
    pub fn host(&self) -> &str {
        Uri::read(&self.0).map_or("", |uri| uri.host())
    }

    /// The path as written; may be empty.
    pub fn path(&self) -> &str {
        Uri::read(&self.0).map_or("", |uri| uri.path())
    }

    /// Whether it lies on a loopback host.
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(self.host())
    }

    /// Where its metadata may stand, in the order to try: path-inserted, then root (RFC 9728 section 3.1, MCP
    /// protected resource metadata discovery). Without a path there is one place only.
    pub fn metadata_locations(&self) -> Vec<MetadataLocation> {
        // MCP-AUTH-055: the most specific first.
        const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
        let Ok(uri) = Uri::read(&self.0) else { return Vec::new() };
        let end = self.0.len().saturating_sub(
            uri.path().len().saturating_add(uri.query().map_or(0, |query| query.len().saturating_add(1))),
        );
        let base = self.0.get(..end).unwrap_or_default();
        let at_root: Vec<Self> =
            ["", "/"].iter().filter_map(|slash| Self::new([base, *slash].concat()).ok()).collect();
        let root = MetadataLocation { url: [base, WELL_KNOWN].concat(), identifiers: at_root };
        // RFC9728-3.1-2: the slash directly behind the host goes, the query stays at the end.
        let path = if uri.path() == "/" { "" } else { uri.path() };
        if path.is_empty() && uri.query().is_none() {
            return Vec::from([root]);
        }
        let query = uri.query().map_or_else(String::new, |query| ["?", query].concat());
        let inserted = MetadataLocation {
            url: [base, WELL_KNOWN, path, &query].concat(),
            identifiers: Vec::from([self.clone()]),
        };
        // MCP-DISC-008
        Vec::from([inserted, root])
    }

    /// Whether a request to that URL is a request to this resource: same scheme, host and port, and its path
    /// equals this path or continues it at a segment border (I-A2, I-L7). Anything ambiguous is not covered.
    ///
    /// A resource with a query covers the same path with the same query only; without one, any query of the request
    /// is left to the server behind.
    pub fn covers(&self, request_url: &str) -> bool {
        let (Ok(resource), Ok(request)) = (Uri::read(&self.0), web_uri("request URL", request_url)) else {
            return false;
        };
        let same_query = |query| {
            request.query() == Some(query) && plain_root(resource.path()) == plain_root(request.path())
        };
        // MCP-AUTH-053: another scheme, host or port is another resource.
        resource.scheme() == request.scheme()
            && resource.host().eq_ignore_ascii_case(request.host())
            && resource.effective_port() == request.effective_port()
            && resource.query().is_none_or(same_query)
            && is_below(resource.path(), request.path())
    }

    /// Whether this identifier is a proper path prefix of the other, on the same origin (D1, `ResourcePathPrefix`).
    pub fn is_proper_prefix_of(&self, other: &Self) -> bool {
        self.path().len() < other.path().len() && self.covers(other.as_str())
    }

    /// Whether an audience names this resource: equal after scheme and host are put into lower case, nothing
    /// else (D3, I-A1).
    pub fn equals_audience(&self, audience: &str) -> bool {
        // MCP-AUTH-057
        fold_scheme_and_host(&self.0)
            .is_some_and(|own| fold_scheme_and_host(audience).is_some_and(|it| own == it))
    }

    /// Whether an authorization server looks this resource up under the other's name, too: their
    /// [`ResourceId::lookup_key`] is the same (D30).
    pub(crate) fn has_lookup_key_of(&self, other: &Self) -> bool {
        // MCP-AUTH-058
        match (origin_and_rest(&self.0), origin_and_rest(&other.0)) {
            (Some((origin, rest)), Some((other_origin, other_rest))) => {
                let lone = |rest| if rest == "/" { "" } else { rest };
                origin.eq_ignore_ascii_case(other_origin) && lone(rest) == lone(other_rest)
            }
            _ => false,
        }
    }

    /// The form under which an authorization server looks a requested resource up: scheme and host in lower case,
    /// a lone slash behind the host dropped (D30). Not an identifier to send or to mint.
    pub fn lookup_key(&self) -> String {
        // MCP-AUTH-058
        let folded = fold_scheme_and_host(&self.0).unwrap_or_default();
        without_root_slash(&folded).into()
    }
}

/// The text without the slash of a path that is nothing else.
fn without_root_slash(text: &str) -> &str {
    if is_bare_root(text) { text.strip_suffix('/').unwrap_or(text) } else { text }
}

/// The empty path is requested as a lone slash (RFC 9110 section 4.2.3).
fn plain_root(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// Whether `path` equals `base` or lies below it, segment by segment; paths with tricks lie nowhere.
fn is_below(base: &str, path: &str) -> bool {
    let (base, path) = (plain_root(base), plain_root(path));
    let Some(rest) = path.strip_prefix(base) else { return false };
    // `/mcp` has `/mcp` and `/mcp/x` below it, `/mcp/` has `/mcp/x` but not `/mcp`, and neither has `/mcpx`.
    if !(rest.is_empty() || rest.starts_with('/') || base.ends_with('/')) {
        return false;
    }
    let inner = path.strip_suffix('/').unwrap_or(path);
    inner.is_empty() || inner.split('/').skip(1).all(is_name)
}

/// Whether every server reads the path segment as the same name, and as nothing that leads elsewhere.
///
/// One rule for all disguises of dot segments and separators: what some server undoes before it looks a path up is undone,
/// and a name must be left. A server may take off parameters behind a semicolon (`..;x`), and blanks and dots at the ends; an
/// escape of a character that means something in a path (`%2e`, `%2f`, `%5c`, `%3b`, and `%25`, which hides another escape) is
/// in no name, nor are control characters and what is not UTF-8, as an overlong dot is not.
fn is_name(segment: &str) -> bool {
    let mut decoded = Vec::new();
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let escaped = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        match escaped.filter(|byte| !byte.is_ascii_control() && !b"./\\%;".contains(byte)) {
            Some(byte) => decoded.push(byte),
            None => return false,
        }
    }
    let Ok(text) = core::str::from_utf8(&decoded) else { return false };
    let name = text.split(';').next().unwrap_or_default();
    !name.trim_matches(|it: char| it == '.' || it.is_whitespace()).is_empty()
}

#[cfg(test)]
mod tests {
    use std::borrow::ToOwned as _;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::ResourceId;

    fn resource(text: &str) -> ResourceId {
        ResourceId::new(text).unwrap()
    }

    fn locations(text: &str) -> Vec<(String, Vec<String>)> {
        resource(text)
            .metadata_locations()
            .into_iter()
            .map(|location| {
                let identifiers = location.identifiers.iter().map(|id| String::from(id.as_str())).collect();
                (location.url, identifiers)
            })
            .collect()
    }

    /// What a server that is generous with escapes makes of a path.
    fn unescaped(path: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = path.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            let digits = after.get(..2).and_then(|it| core::str::from_utf8(it).ok());
            match digits.and_then(|it| u8::from_str_radix(it, 16).ok()).filter(|_| *first == b'%') {
                Some(0xc0) => rest = after.get(2..).unwrap(),
                Some(0xae) => {
                    bytes.push(b'.');
                    rest = after.get(2..).unwrap();
                }
                Some(byte) => {
                    bytes.push(byte);
                    rest = after.get(2..).unwrap();
                }
                None => {
                    bytes.push(*first);
                    rest = after;
                }
            }
        }
        bytes
    }

    // RFC9728-3.1-2, MCP-DISC-008
    #[test]
    fn metadata_stands_below_the_well_known_path() {
        let well_known = "https://h.example/.well-known/oauth-protected-resource";
        let roots = || Vec::from(["https://h.example".into(), "https://h.example/".into()]);
        assert_eq!(locations("https://h.example"), [(well_known.into(), roots())]);
        assert_eq!(locations("https://h.example/"), [(well_known.into(), roots())]);
        assert_eq!(
            locations("https://h.example/mcp"),
            [
                (format!("{well_known}/mcp"), Vec::from(["https://h.example/mcp".into()])),
                (well_known.into(), roots())
            ]
        );
        assert_eq!(
            locations("https://h.example/a/mcp?t=1").first().unwrap(),
            &(format!("{well_known}/a/mcp?t=1"), Vec::from(["https://h.example/a/mcp?t=1".into()]))
        );
    }

    #[test]
    fn a_typed_url_is_folded_and_a_lone_slash_dropped() {
        let typed = |text: &str| ResourceId::from_server_url(text).map(|id| String::from(id.as_str()));
        assert_eq!(typed("HTTPS://Mcp.Example.com/MCP").unwrap(), "https://mcp.example.com/MCP");
        assert_eq!(typed("https://mcp.example.com/").unwrap(), "https://mcp.example.com");
        assert_eq!(typed("https://mcp.example.com/mcp/").unwrap(), "https://mcp.example.com/mcp/");
        assert_eq!(typed("https://mcp.example.com?x=/").unwrap(), "https://mcp.example.com?x=/");
        assert_eq!(typed("https://mcp.example.com/?x").unwrap(), "https://mcp.example.com/?x");
        for text in [
            "mcp.example.com",
            "http://mcp.example.com",
            "https://mcp.example.com/#x",
            "https://a@b.example/",
        ] {
            assert!(typed(text).is_err(), "{text}");
        }
    }

    // I-A2, I-L7
    #[test]
    fn a_request_is_covered_by_origin_and_whole_segments() {
        let api = resource("https://h.example/api");
        for url in [
            "https://h.example/api",
            "https://h.example/api/",
            "https://h.example/api/x?y=1",
            "https://H.example:443/api/x",
            "https://h.example/api/.well-known/x",
            "https://h.example/api/x;v=1/a.b..c",
            "https://h.example/api/%C3%A9t%C3%A9",
            "https://h.example/api/two%20words",
        ] {
            assert!(api.covers(url), "{url}");
        }
        for url in [
            "https://h.example/",
            "https://h.example/apix",
            "https://h.example/API",
            "http://h.example/api",
            "https://h.example:8443/api",
            "https://g.example/api",
            "https://u@h.example/api",
            "https://h.example/api/../admin",
            "https://h.example/api/%2e%2e/admin",
            "https://h.example/api/%2E./admin",
            "https://h.example/api%2f..%2fadmin",
            "https://h.example/api/%5c..%5cadmin",
            "https://h.example/api\\..\\admin",
            "https://h.example/api/x%2Fy",
            "https://h.example/api/x%2fy",
            "https://h.example/api/x%5Cy",
            "https://h.example/api/x%2Ey",
            "https://h.example/api/x%00",
            "https://h.example/api/..;/admin",
            "https://h.example/api/..;a=b/admin",
            "https://h.example/api/.;/admin",
            "https://h.example/api/;/admin",
            "https://h.example/api/;x",
            "https://h.example/api/..%3b/admin",
            "https://h.example/api/%252e%252e/admin",
            "https://h.example/api/..%20/admin",
            "https://h.example/api/.../admin",
            "https://h.example/api/%c0%ae%c0%ae/admin",
            "https://h.example/api/..%09/admin",
            "https://h.example/api/%2e%2e;x/admin",
            "https://h.example/api;/../admin",
            "https://h.example/api;x",
            "https://h.example/api//x",
            "https://h.example/api/x//",
            "https://h.example//api",
            "https://h.example/api/#f",
            "javascript://h.example/api",
            "",
        ] {
            assert!(!api.covers(url), "{url}");
        }
        assert!(resource("https://h.example").covers("https://h.example/any/path"));
        assert!(resource("https://h.example").covers("https://h.example"));
        assert!(!resource("http://localhost:443/a").covers("https://localhost:443/a"));
        let tenant = resource("https://h.example/a?t=1");
        assert!(tenant.covers("https://h.example/a?t=1"));
        for url in ["https://h.example/a?t=2", "https://h.example/a", "https://h.example/a/b?t=1"] {
            assert!(!tenant.covers(url), "{url}");
        }
        let slashed = resource("https://h.example/a/");
        assert!(slashed.covers("https://h.example/a/") && slashed.covers("https://h.example/a/b"));
        assert!(!slashed.covers("https://h.example/a"));
        assert!(resource("https://h.example/?t").covers("https://h.example?t"));
        assert!(!resource("https://h.example//a").covers("https://h.example//a/b"));
    }

    // I-A1
    #[test]
    fn audiences_are_folded_in_scheme_and_host_only() {
        let api = resource("https://h.example/Api");
        for audience in ["https://h.example/Api", "HTTPS://H.Example/Api"] {
            assert!(api.equals_audience(audience), "{audience}");
        }
        for audience in [
            "https://h.example/api",
            "https://h.example/Api/",
            "https://h.example",
            "https://h.example:443/Api",
            "h.example/Api",
            "https://h.example/Api?",
            "https://h.example/Ap",
            "https://h.example/Api ",
            "",
            "null",
        ] {
            assert!(!api.equals_audience(audience), "{audience}");
        }
    }

    #[test]
    fn lookup_folds_the_lone_slash() {
        assert_eq!(resource("https://h.example/").lookup_key(), resource("https://h.example").lookup_key());
        assert_eq!(resource("https://H.example/A").lookup_key(), "https://h.example/A");
        assert_ne!(
            resource("https://h.example?a=/").lookup_key(),
            resource("https://h.example?a=").lookup_key()
        );
        assert_ne!(
            resource("https://h.example/a/").lookup_key(),
            resource("https://h.example/a").lookup_key()
        );
    }

    #[test]
    fn a_prefix_is_proper_and_on_the_same_origin() {
        let url = resource("https://h.example/a/b");
        assert!(resource("https://h.example").is_proper_prefix_of(&url));
        assert!(resource("https://h.example/a").is_proper_prefix_of(&url));
        for text in [
            "https://h.example/a/b",
            "https://h.example/a/b/c",
            "https://g.example/a",
            "https://h.example/a/bb",
        ] {
            assert!(!resource(text).is_proper_prefix_of(&url), "{text}");
        }
    }

    proptest! {
        // D30
        #[test]
        fn resources_are_looked_up_alike_exactly_where_their_keys_are_equal(
            one in "(https|HTTPS)://(h|H)(:443|)(/|/a|/A|//|)(\\?|\\?/|)", two in "(https|HTTPS)://(h|H)(:443|)(/|/a|/A|//|)(\\?|\\?/|)",
        ) {
            if let (Ok(one), Ok(two)) = (ResourceId::new(one), ResourceId::new(two)) {
                prop_assert_eq!(one.has_lookup_key_of(&two), one.lookup_key() == two.lookup_key());
            }
        }

        // I-A2: on plain segments, covered means exactly that the list of segments is a prefix.
        #[test]
        fn plain_paths_are_covered_by_their_prefixes_and_by_nothing_else(
            base in proptest::collection::vec("[ab]{1,2}", 0..4), path in proptest::collection::vec("[ab]{1,2}", 0..5),
            port in proptest::option::of(1_u16..), other in proptest::option::of(1_u16..),
        ) {
            let url = |port: Option<u16>, segments: &[String]| {
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
                format!("https://h.example{port}{path}")
            };
            let own = resource(&url(port, &base));
            prop_assert_eq!(own.covers(&url(port, &path)), path.starts_with(&base));
            let same = port.unwrap_or(443) == other.unwrap_or(443);
            prop_assert_eq!(own.covers(&url(other, &path)), same && path.starts_with(&base));
            let proper = path.len() > base.len() && path.starts_with(&base);
            prop_assert_eq!(own.is_proper_prefix_of(&resource(&url(port, &path))), proper);
        }

        // I-A2, I-L7: a server undoes escapes, parameters and blanks as often as it likes, and never gets out.
        #[test]
        fn no_disguise_leads_out_of_a_resource(
            pieces in proptest::collection::vec(
                proptest::sample::select(&[
                    ".", "..", "%2e", "%2E", "%252e", "%c0%ae", "/", "%2f", "%5c", "\\", ";", ";a=b", "%3b", "%20", "%09", "%00", "a", "%61",
                ][..]),
                0..6,
            ),
        ) {
            let url = format!("https://h.example/api/{}", pieces.concat());
            if resource("https://h.example/api").covers(&url) {
                let mut path = url.trim_start_matches("https://h.example").to_owned();
                for _ in 0..3 {
                    path = String::from_utf8_lossy(&unescaped(&path)).replace('\\', "/");
                }
                let segments: Vec<&str> = path
                    .split('/')
                    .map(|segment| segment.split(';').next().unwrap().trim())
                    .collect();
                prop_assert!(segments[1] == "api", "{}", url);
                let dots = |segment: &&str| segment.chars().all(|it| it == '.' || it.is_whitespace());
                let (last, inner) = segments[2..].split_last().unwrap();
                prop_assert!(!inner.iter().any(dots) && (last.is_empty() || !dots(last)), "{}", url);
            }
        }

        // I-A1: case of scheme and host aside, one changed byte is another audience.
        #[test]
        fn an_audience_with_one_changed_byte_is_another(
            path in "(/[a-zA-Z0-9]{1,4}){0,3}", at in any::<proptest::sample::Index>(), byte in 0x21_u8..0x7f,
        ) {
            let text = format!("https://h.example{path}");
            let own = resource(&text);
            let mut changed = text.clone().into_bytes();
            let at = at.index(changed.len());
            let folded = at < "https://h.example".len() && changed[at].eq_ignore_ascii_case(&byte);
            let same = folded || changed[at] == byte;
            changed[at] = byte;
            prop_assert_eq!(own.equals_audience(&String::from_utf8(changed).unwrap()), same);
            prop_assert!(own.equals_audience(&text.replace("https://h.example", "HTTPS://H.EXAMPLE")));
        }

        // I-A2
        #[test]
        fn coverage_is_a_segment_list_prefix(
            base in proptest::collection::vec("[a-z%.]{1,4}", 0..4), path in proptest::collection::vec("[a-z%.]{0,4}", 0..5),
        ) {
            let join = |segments: &[String]| segments.iter().map(|s| format!("/{s}")).collect::<String>();
            let url = format!("https://h.example{}", join(&path));
            if ResourceId::new(format!("https://h.example{}", join(&base))).is_ok_and(|it| it.covers(&url)) {
                let path: Vec<_> = path.iter().filter(|segment| !segment.is_empty()).collect();
                prop_assert!(base.iter().zip(&path).all(|(a, b)| a == *b) && path.len() >= base.len());
                prop_assert!(path.iter().all(|s| *s != "." && *s != ".."));
            }
        }
    }
}
