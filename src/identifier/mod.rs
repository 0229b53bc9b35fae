//! Identifiers: newtypes over the exact string, checked once, compared by bytes.
//!
//! None is ever re-serialised through a URL type: `https://h` and `https://h/` stay what they are (decision D3).

use alloc::string::String;
use core::fmt;

use crate::syntax::form::{self, Form};
use crate::syntax::uri::{Uri, UriError};

pub mod address;
mod audience;
mod client_id;
mod endpoint;
mod issuer;
mod network;
mod redirect_uri;
mod resource;
mod scope;

pub use audience::Audience;
pub use client_id::{ClientId, ClientMetadataUrl};
pub use endpoint::{Endpoint, Origin};
pub use issuer::Issuer;
pub use network::{InvalidNetwork, Network};
pub use redirect_uri::RedirectUri;
pub use resource::{MetadataLocation, ResourceId};
pub use scope::{Scope, ScopeSet};

/// Text that is no identifier of its kind. The text itself is not repeated: it may be a peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InvalidIdentifier {
    kind: &'static str,
    fault: IdentifierFault,
}

/// What is wrong with the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum IdentifierFault {
    /// It is no absolute URI that every parser reads alike.
    #[error("{0}")]
    Uri(#[from] UriError),
    /// The scheme is not https, nor http on a loopback host.
    #[error("it must be https, or http on localhost, 127.0.0.1 or [::1]")]
    Scheme,
    /// It has user information.
    #[error("it has a user name or password")]
    Userinfo,
    /// It has a query where none may be.
    #[error("it has a query")]
    Query,
    /// It has a fragment.
    #[error("it has a fragment")]
    Fragment,
    /// It has a path where none may be, or lacks one.
    #[error("its path is not what this identifier needs")]
    Path,
    /// It is empty, too long, or has characters outside its grammar.
    #[error("it is empty, too long, or has a character that its grammar does not allow")]
    Grammar,
    /// A parameter that the protocol adds would stand twice in the query.
    #[error("its query has a parameter that the protocol adds, or one was to be added twice")]
    Parameter,
}

impl InvalidIdentifier {
    pub(crate) fn new(kind: &'static str, fault: impl Into<IdentifierFault>) -> Self {
        Self { kind, fault: fault.into() }
    }

    /// The kind of identifier it was to be.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// What is wrong with it.
    pub fn fault(&self) -> IdentifierFault {
        self.fault
    }
}

impl fmt::Display for InvalidIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an acceptable {}: {}", self.kind, self.fault)
    }
}

impl core::error::Error for InvalidIdentifier {}

/// The three spellings of this machine that may be reached by plain http (D9). Compared as text, so that no
/// other spelling of a loopback address counts.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// An https URI, or http on a loopback host, with neither user information nor fragment.
pub(crate) fn web_uri<'u>(kind: &'static str, text: &'u str) -> Result<Uri<'u>, InvalidIdentifier> {
    let refuse = |fault| InvalidIdentifier { kind, fault };
    // The scheme comes first: what another one makes of the rest is not what is wrong.
    let uri = Uri::read(text).map_err(|error| refuse(error.into()))?;
    match uri.scheme() {
        "https" => {}
        // OAUTH21-1.5-1, MCP-SBP-022: plain http stays on this machine.
        "http" if is_loopback_host(uri.host()) => {}
        // MCP-SBP-040, MCP-SBP-041: an allow-list, so that javascript:, data: and file: need no mention.
        _ => return Err(refuse(IdentifierFault::Scheme)),
    }
    uri.agrees_with_whatwg(text).map_err(|error| refuse(error.into()))?;
    if uri.userinfo().is_some() {
        return Err(refuse(IdentifierFault::Userinfo));
    }
    if uri.fragment().is_some() {
        return Err(refuse(IdentifierFault::Fragment));
    }
    Ok(uri)
}

/// Appends parameters to a URI that may have a query: validated bytes, a separator, our parameters (I-R6, I-L6).
pub(crate) fn with_parameters<'a>(
    kind: &'static str,
    uri: &str,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)> + Clone,
) -> Result<String, InvalidIdentifier> {
    let query = uri.split_once('?').map(|(_, query)| query);
    let present = query.map(|query| Form::parse(query.as_bytes())).transpose();
    let present = present.map_err(|_| InvalidIdentifier { kind, fault: IdentifierFault::Query })?;
    let mut length = uri.len().saturating_add(1);
    for (index, (name, value)) in parameters.clone().into_iter().enumerate() {
        // OAUTH21-3.1-6: no parameter is emitted twice, whether the URI or the caller brings it a second time.
        let is_second = parameters.clone().into_iter().take(index).any(|(earlier, _)| earlier == name);
        let is_present = present.as_ref().is_some_and(|present| present.has_name(name));
        if is_present || is_second {
            return Err(InvalidIdentifier { kind, fault: IdentifierFault::Parameter });
        }
        length = length.saturating_add(form::most_encoded_length(name, value));
    }
    if parameters.clone().into_iter().next().is_none() {
        return Ok(uri.into());
    }
    let separator = match query {
        None => "?",
        Some(query) if query.is_empty() || query.ends_with('&') => "",
        Some(_) => "&",
    };
    let mut text = String::with_capacity(length);
    text.push_str(uri);
    text.push_str(separator);
    form::encode_onto(&mut text, parameters);
    Ok(text)
}

/// The text with scheme and host in lower case and everything else as it was; `None` where it is no such URI.
///
/// For comparison of audiences and of URLs a person typed only (D3, D30): never for issuers.
pub(crate) fn fold_scheme_and_host(text: &str) -> Option<String> {
    let (origin, rest) = origin_and_rest(text)?;
    let mut folded = String::with_capacity(text.len());
    folded.push_str(origin);
    folded.make_ascii_lowercase();
    folded.push_str(rest);
    Some(folded)
}

/// Scheme, host and port, and everything behind them; `None` where the text has no host.
fn origin_and_rest(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    text.split_at_checked(scheme.len().checked_add(3)?.checked_add(end)?)
}

/// Whether the path is empty or a lone slash and nothing follows it: `https://h` and `https://h/`.
pub(crate) fn is_bare_root(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| {
        rest.strip_suffix('/').unwrap_or(rest).bytes().all(|byte| !matches!(byte, b'/' | b'?' | b'#'))
    })
}

/// A newtype over the exact string, shared by its clones: an identifier is made once and goes into many records.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(alloc::sync::Arc<str>);

        impl $name {
            /// The exact text it was made from.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl core::str::FromStr for $name {
            type Err = $crate::identifier::InvalidIdentifier;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }
    };
}
pub(crate) use identifier;

#[cfg(test)]
mod tests {
    use std::string::{String, ToString as _};
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::{
        ClientId, ClientMetadataUrl, Endpoint, InvalidIdentifier, Issuer, Origin, RedirectUri, ResourceId,
        Scope, is_bare_root, is_loopback_host,
    };

    /// What each kind keeps of a text it accepts, and what it says of one it refuses.
    fn every_kind(text: &str) -> Vec<Result<String, InvalidIdentifier>> {
        Vec::from([
            Issuer::new(text).map(|id| id.as_str().into()),
            ResourceId::new(text).map(|id| id.as_str().into()),
            RedirectUri::new(text).map(|id| id.as_str().into()),
            RedirectUri::private_scheme(text).map(|id| id.as_str().into()),
            Endpoint::new(text).map(|id| id.to_string()),
            Origin::new(text).map(|id| id.to_string()),
            ClientId::new(text).map(|id| id.to_string()),
            ClientMetadataUrl::new(text).map(|id| id.to_client_id().as_str().into()),
            Scope::new(text).map(|id| id.as_str().into()),
        ])
    }

    #[test]
    fn only_three_spellings_are_the_local_host() {
        for host in ["localhost", "127.0.0.1", "[::1]"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.2", "127.1", "::1", "[::]"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn a_bare_root_has_nothing_behind_the_host() {
        assert!(is_bare_root("https://h") && is_bare_root("https://h/"));
        for text in ["https://h/a", "https://h//", "https://h?", "https://h/?", "https://h?x=/", "h/"] {
            assert!(!is_bare_root(text), "{text}");
        }
    }

    #[test]
    fn user_information_fragments_and_long_texts_are_refused_by_all_urls() {
        let long = ["https://h.example/", &"a".repeat(3000)].concat();
        for text in ["https://u@h.example/a", "https://@h.example/a", "https://h.example/a#", long.as_str()] {
            assert!(Issuer::new(text).is_err(), "{text}");
            assert!(ResourceId::new(text).is_err(), "{text}");
            assert!(RedirectUri::new(text).is_err(), "{text}");
            assert!(Endpoint::new(text).is_err(), "{text}");
            assert!(ClientMetadataUrl::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_the_text() {
        for text in
            ["canary\n://", "canary://x", "https://canary#f", "https://canary@h", "https://canary/it's"]
        {
            for refusal in every_kind(text).into_iter().filter_map(Result::err) {
                let shown = std::format!("{refusal} {refusal:?} {} {:?}", refusal.kind(), refusal.fault());
                assert!(!shown.contains("canary"), "{shown}");
            }
        }
    }

    proptest! {
        // D3: nothing is folded, decoded, trimmed or re-serialised.
        #[test]
        fn every_identifier_keeps_the_exact_text(
            text in "(https|http|com.example)://([a-zA-Z]{1,4}(\\.[a-z]{1,4}){0,2}|localhost|127.0.0.1|\\[::1\\])(:[1-9][0-9]{0,4}|)(/[A-Za-z%2-4e.~;=*]{0,5}){0,3}(\\?[a-z=%&4]{0,6}|)|.{0,20}",
        ) {
            for kept in every_kind(&text).into_iter().flatten() {
                prop_assert_eq!(&kept, &text);
            }
        }

        // I-R6, I-L6: what is emitted is the text, a separator and our parameters, and each name stands there once.
        #[test]
        fn a_parameter_is_emitted_once_or_nothing_is(
            there in prop::collection::vec("code|state|iss|error|x|y|sta%74e", 0..4),
            added in prop::collection::vec("code|state|iss|error", 1..4),
            value in "[ -~]{0,8}",
        ) {
            let query = there.iter().map(|name| std::format!("{name}=1")).collect::<Vec<_>>().join("&");
            let uri = if there.is_empty() { "https://h/p".into() } else { std::format!("https://h/p?{query}") };
            let pairs: Vec<(&str, &str)> = added.iter().map(|name| (name.as_str(), value.as_str())).collect();
            let mut names: Vec<String> =
                there.iter().map(|name| name.replace("%74", "t")).chain(added.iter().cloned()).collect();
            let count = names.len();
            names.sort();
            names.dedup();
            match super::with_parameters("test", &uri, pairs) {
                Err(_) => prop_assert!(names.len() < count, "{uri}"),
                Ok(emitted) => {
                    prop_assert!(emitted.starts_with(&uri));
                    let parsed = url::Url::parse(&emitted).unwrap();
                    for name in names {
                        prop_assert_eq!(parsed.query_pairs().filter(|(known, _)| *known == name).count(), 1);
                    }
                    prop_assert!(parsed.query_pairs().all(|(name, given)| !added.contains(&name.into()) || given == value));
                }
            }
        }

        // I-R4, I-L6: a scheme that is not https, or http on this machine, is no URL of ours.
        #[test]
        fn no_other_scheme_and_no_plain_http_passes(
            scheme in "[a-z][a-z0-9+-]{0,9}", host in "[a-z]{1,6}\\.example",
        ) {
            prop_assume!(scheme != "https");
            let text = std::format!("{scheme}://{host}/p");
            prop_assert!(every_kind(&text).into_iter().filter_map(Result::ok).count() <= 2);
            prop_assert!(ClientId::new(text.as_str()).is_ok() && Scope::new(text.as_str()).is_ok());
        }
    }
}
