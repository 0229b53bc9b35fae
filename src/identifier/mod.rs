//! Identifiers: newtypes over the exact string, checked once, compared by bytes.
//!
//! None is ever re-serialised through a URL type: `https://h` and `https://h/` stay what they are (decision D3).

use alloc::string::String;
use core::fmt;

use crate::syntax::uri::{Uri, UriError};

pub mod address;
mod client_id;
mod endpoint;
mod issuer;
mod redirect_uri;
mod resource;
mod scope;

pub use client_id::{ClientId, ClientMetadataUrl};
pub use endpoint::{Endpoint, Origin};
pub use issuer::Issuer;
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
    /// A parameter the core adds is already in the query.
    #[error("its query already has a parameter that the protocol adds")]
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
    let uri = Uri::parse(text).map_err(|error| refuse(error.into()))?;
    match uri.scheme() {
        _ if !uri.has_authority() => return Err(refuse(IdentifierFault::Scheme)),
        "https" => {}
        // OAUTH21-1.5-1: plain http stays on this machine.
        "http" if is_loopback_host(uri.host()) => {}
        // MCP-SBP-040, MCP-SBP-041: an allow-list, so that javascript:, data: and file: need no mention.
        _ => return Err(refuse(IdentifierFault::Scheme)),
    }
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
    let separator = match uri.split_once('?') {
        None => "?",
        Some((_, query)) => {
            let form = crate::syntax::form::Form::parse(query.as_bytes())
                .map_err(|_| InvalidIdentifier { kind, fault: IdentifierFault::Query })?;
            // OAUTH21-3.1-6: no parameter is emitted twice.
            if parameters.clone().into_iter().any(|(name, _)| form.has_name(name)) {
                return Err(InvalidIdentifier { kind, fault: IdentifierFault::Parameter });
            }
            if query.is_empty() || query.ends_with('&') { "" } else { "&" }
        }
    };
    let encoded = crate::syntax::form::encode(parameters);
    Ok([uri, separator, &encoded].concat())
}

/// The text with scheme and host in lower case and everything else as it was; `None` where it is no such URI.
///
/// For comparison of audiences and of URLs a person typed only (D3, D30): never for issuers.
pub(crate) fn fold_scheme_and_host(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(end)?;
    let mut folded = String::with_capacity(text.len());
    folded.push_str(scheme);
    folded.push_str("://");
    folded.push_str(authority);
    folded.make_ascii_lowercase();
    folded.push_str(rest);
    Some(folded)
}

/// A newtype over the exact string.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(alloc::string::String);

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
