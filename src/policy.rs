//! The relaxations: every way in which the client may be less strict, as values a host names and an audit lists.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use crate::identifier::{Issuer, Network, Origin, RedirectUri, ResourceId};

mod values;

pub use values::{AuthorizationExtras, LoopbackRedirect, PrivateNetworks, ProxyUrl};

/// One weakening of a strict rule, for one issuer, resource or origin (`docs/design.md` tells why each exists).
///
/// Written and read as `Name=scope`, with what else it says behind a space: the form the tool's `--relax` takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Relaxation {
    /// This issuer leaves `code_challenge_methods_supported` out; S256 is sent all the same.
    AssumeS256(Issuer),
    /// Resource metadata may list `https://host/` where this issuer's document says `https://host`.
    IssuerRootSlash(Issuer),
    /// This issuer refuses the `resource` parameter; the identity must pin its scopes (D36).
    OmitResource(Issuer),
    /// The `resource` of the metadata may be this proper path prefix of the URL asked for (D1).
    ResourcePathPrefix(ResourceId),
    /// The `resource_metadata` URL of a challenge may lie on this other origin.
    MetadataOnOtherOrigin(Origin),
    /// One redirect URI may serve this issuer beside others although it sends no `iss` (D29).
    SharedRedirect(Issuer),
    /// This issuer takes client assertions for its token endpoint's URL only (D19).
    AssertionAudience(Issuer),
    /// This server of revision 2025-03-26 has no metadata at all: its endpoints are at their default paths (D35).
    LegacyEndpoints(ResourceId),
    /// This issuer compares loopback redirect URIs exactly: by the name `localhost`, or with fixed ports.
    LoopbackRedirect(LoopbackRedirect),
    /// This issuer is sent further parameters in the authorization request.
    AuthorizationExtras(AuthorizationExtras),
    /// Servers of this origin, and what their metadata names, may lie in these private networks.
    PrivateNetworks(PrivateNetworks),
    /// Fetches go through this proxy, which takes the check of addresses over.
    EgressProxy(ProxyUrl),
    /// The client is answered at this very URI of a private-use scheme (D9).
    PrivateScheme(RedirectUri),
    /// Records leave unencrypted, for a store that encrypts by itself.
    PlaintextRecords,
}

impl Relaxation {
    /// Its name, as in the table of relaxations.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AssumeS256(_) => "AssumeS256",
            Self::IssuerRootSlash(_) => "IssuerRootSlash",
            Self::OmitResource(_) => "OmitResource",
            Self::ResourcePathPrefix(_) => "ResourcePathPrefix",
            Self::MetadataOnOtherOrigin(_) => "MetadataOnOtherOrigin",
            Self::SharedRedirect(_) => "SharedRedirect",
            Self::AssertionAudience(_) => "AssertionAudience",
            Self::LegacyEndpoints(_) => "LegacyEndpoints",
            Self::LoopbackRedirect(_) => "LoopbackRedirect",
            Self::AuthorizationExtras(_) => "AuthorizationExtras",
            Self::PrivateNetworks(_) => "PrivateNetworks",
            Self::EgressProxy(_) => "EgressProxy",
            Self::PrivateScheme(_) => "PrivateScheme",
            Self::PlaintextRecords => "PlaintextRecords",
        }
    }

    /// The one issuer, resource, origin or URI it is for; nothing for `PlaintextRecords`, which is for the host's own
    /// store.
    pub fn scope(&self) -> &str {
        match self {
            Self::AssumeS256(issuer)
            | Self::IssuerRootSlash(issuer)
            | Self::OmitResource(issuer)
            | Self::SharedRedirect(issuer)
            | Self::AssertionAudience(issuer) => issuer.as_str(),
            Self::ResourcePathPrefix(resource) | Self::LegacyEndpoints(resource) => resource.as_str(),
            Self::MetadataOnOtherOrigin(origin) => origin.as_str(),
            Self::LoopbackRedirect(redirect) => redirect.issuer().as_str(),
            Self::AuthorizationExtras(extras) => extras.issuer().as_str(),
            Self::PrivateNetworks(networks) => networks.origin().as_str(),
            Self::EgressProxy(proxy) => proxy.as_str(),
            Self::PrivateScheme(uri) => uri.as_str(),
            Self::PlaintextRecords => "",
        }
    }
}

impl fmt::Display for Relaxation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::PlaintextRecords => Ok(()),
            Self::LoopbackRedirect(redirect) => write!(f, "={redirect}"),
            Self::AuthorizationExtras(extras) => write!(f, "={extras}"),
            Self::PrivateNetworks(networks) => write!(f, "={networks}"),
            Self::EgressProxy(proxy) => write!(f, "={proxy}"),
            _ => write!(f, "={}", self.scope()),
        }
    }
}

/// A relaxation that cannot be read: an unknown name, or a value that is no issuer, resource or origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRelaxation {
    /// There is no `=`, or nothing behind it: a relaxation without a scope would hold for everyone.
    #[error("a relaxation is written NAME=URL; without a URL it would hold for every server")]
    NoScope,
    /// No relaxation has that name.
    #[error("there is no relaxation of that name")]
    UnknownName,
    /// The value is not what this relaxation is scoped to.
    #[error("the value of {name} is not the URL of one server")]
    InvalidScope {
        /// The relaxation's name.
        name: &'static str,
    },
    /// What stands behind the scope is not what this relaxation needs.
    #[error("{name} is written {usage}")]
    InvalidValue {
        /// The relaxation's name.
        name: &'static str,
        /// How it is written.
        usage: &'static str,
    },
    /// The same relaxation is there for the same scope already.
    #[error("{name} is named twice for the same scope")]
    Twice {
        /// The relaxation's name.
        name: &'static str,
    },
}

impl FromStr for Relaxation {
    type Err = InvalidRelaxation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        fn scoped<T, E>(
            name: &'static str,
            parsed: Result<T, E>,
            make: fn(T) -> Relaxation,
        ) -> Result<Relaxation, InvalidRelaxation> {
            parsed.map(make).map_err(|_| InvalidRelaxation::InvalidScope { name })
        }
        if text == "PlaintextRecords" {
            return Ok(Self::PlaintextRecords);
        }
        let (name, value) = text.split_once('=').ok_or(InvalidRelaxation::NoScope)?;
        // I-G8: a relaxation without a scope would hold for everyone.
        if value.is_empty() {
            return Err(InvalidRelaxation::NoScope);
        }
        match name {
            "AssumeS256" => scoped("AssumeS256", Issuer::new(value), Self::AssumeS256),
            "IssuerRootSlash" => scoped("IssuerRootSlash", Issuer::new(value), Self::IssuerRootSlash),
            "OmitResource" => scoped("OmitResource", Issuer::new(value), Self::OmitResource),
            "ResourcePathPrefix" => {
                scoped("ResourcePathPrefix", ResourceId::new(value), Self::ResourcePathPrefix)
            }
            "MetadataOnOtherOrigin" => {
                scoped("MetadataOnOtherOrigin", Origin::new(value), Self::MetadataOnOtherOrigin)
            }
            "SharedRedirect" => scoped("SharedRedirect", Issuer::new(value), Self::SharedRedirect),
            "AssertionAudience" => scoped("AssertionAudience", Issuer::new(value), Self::AssertionAudience),
            "LegacyEndpoints" => scoped("LegacyEndpoints", ResourceId::new(value), Self::LegacyEndpoints),
            "LoopbackRedirect" => value.parse().map(Self::LoopbackRedirect),
            "AuthorizationExtras" => value.parse().map(Self::AuthorizationExtras),
            "PrivateNetworks" => value.parse().map(Self::PrivateNetworks),
            "EgressProxy" => value.parse().map(Self::EgressProxy),
            "PrivateScheme" => {
                scoped("PrivateScheme", RedirectUri::private_scheme(value), Self::PrivateScheme)
            }
            "PlaintextRecords" => Err(InvalidRelaxation::InvalidScope { name: "PlaintextRecords" }),
            _ => Err(InvalidRelaxation::UnknownName),
        }
    }
}

/// The relaxations in force. Strict unless the host names one; nothing is inferred.
///
/// As text, one relaxation per line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    relaxations: BTreeSet<Relaxation>,
}

impl Policy {
    /// No relaxation at all: the default.
    pub fn strict() -> Self {
        Self::default()
    }

    /// Adds one relaxation. One of the same name for the same scope is replaced by it.
    #[must_use]
    pub fn relax(mut self, relaxation: Relaxation) -> Self {
        self.relaxations.retain(|known| !same_scope(known, &relaxation));
        self.relaxations.insert(relaxation);
        self
    }

    /// Every relaxation in force, for an audit.
    pub fn relaxations(&self) -> impl ExactSizeIterator<Item = &Relaxation> {
        self.relaxations.iter()
    }

    /// Whether exactly this relaxation was named.
    pub fn allows(&self, relaxation: &Relaxation) -> bool {
        self.relaxations.contains(relaxation)
    }

    /// How loopback redirect URIs are to be written for that issuer.
    pub fn loopback_redirect(&self, issuer: &Issuer) -> Option<&LoopbackRedirect> {
        self.relaxations.iter().find_map(|relaxation| match relaxation {
            Relaxation::LoopbackRedirect(redirect) if redirect.issuer() == issuer => Some(redirect),
            _ => None,
        })
    }

    /// The further parameters for that issuer's authorization endpoint.
    pub fn authorization_extras(&self, issuer: &Issuer) -> Option<&AuthorizationExtras> {
        self.relaxations.iter().find_map(|relaxation| match relaxation {
            Relaxation::AuthorizationExtras(extras) if extras.issuer() == issuer => Some(extras),
            _ => None,
        })
    }

    /// The private networks that a flow for a server of that origin may reach.
    pub fn private_networks(&self, origin: &Origin) -> Option<&PrivateNetworks> {
        self.relaxations.iter().find_map(|relaxation| match relaxation {
            Relaxation::PrivateNetworks(networks) if networks.origin() == origin => Some(networks),
            _ => None,
        })
    }

    /// The networks of every such relaxation, for the fetcher.
    pub fn networks(&self) -> impl Iterator<Item = Network> {
        self.relaxations
            .iter()
            .flat_map(|relaxation| match relaxation {
                Relaxation::PrivateNetworks(networks) => networks.networks(),
                _ => &[],
            })
            .copied()
    }

    /// The proxy, for the fetcher.
    pub fn egress_proxy(&self) -> Option<&ProxyUrl> {
        self.relaxations.iter().find_map(|relaxation| match relaxation {
            Relaxation::EgressProxy(proxy) => Some(proxy),
            _ => None,
        })
    }
}

/// Whether two relaxations speak of the same thing: there is one egress, whatever its proxies are called.
fn same_scope(one: &Relaxation, other: &Relaxation) -> bool {
    one.name() == other.name() && (one.scope() == other.scope() || matches!(one, Relaxation::EgressProxy(_)))
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, relaxation) in self.relaxations.iter().enumerate() {
            write!(f, "{}{relaxation}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl FromStr for Policy {
    type Err = InvalidRelaxation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut policy = Self::strict();
        for line in text.lines() {
            let relaxation: Relaxation = line.parse()?;
            // I-G2
            if policy.relaxations.iter().any(|known| same_scope(known, &relaxation)) {
                return Err(InvalidRelaxation::Twice { name: relaxation.name() });
            }
            policy.relaxations.insert(relaxation);
        }
        Ok(policy)
    }
}

impl From<Policy> for String {
    fn from(policy: Policy) -> Self {
        policy.to_string()
    }
}

#[cfg(test)]
mod tests;
