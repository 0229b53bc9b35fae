//! The relaxations: every way in which the client may be less strict, as values a host names and an audit lists.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use crate::identifier::{Issuer, Origin, ResourceId};

/// One weakening of a strict rule, for one issuer, resource or origin (`docs/design.md` tells why each exists).
///
/// Written and read as `Name=value`, the form the tool's `--relax` takes.
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
        }
    }

    /// The one issuer, resource or origin it is for.
    pub fn scope(&self) -> &str {
        match self {
            Self::AssumeS256(issuer)
            | Self::IssuerRootSlash(issuer)
            | Self::OmitResource(issuer)
            | Self::SharedRedirect(issuer) => issuer.as_str(),
            Self::ResourcePathPrefix(resource) => resource.as_str(),
            Self::MetadataOnOtherOrigin(origin) => origin.as_str(),
        }
    }
}

impl fmt::Display for Relaxation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name(), self.scope())
    }
}

/// A relaxation that cannot be read: an unknown name, or a value that is no issuer, resource or origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
}

impl FromStr for Relaxation {
    type Err = InvalidRelaxation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or(InvalidRelaxation::NoScope)?;
        if value.is_empty() {
            return Err(InvalidRelaxation::NoScope);
        }
        fn scoped<T, E>(
            name: &'static str,
            parsed: Result<T, E>,
            make: fn(T) -> Relaxation,
        ) -> Result<Relaxation, InvalidRelaxation> {
            parsed.map(make).map_err(|_| InvalidRelaxation::InvalidScope { name })
        }
        let value = value.to_string();
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
            _ => Err(InvalidRelaxation::UnknownName),
        }
    }
}

/// The relaxations in force. Strict unless the host names one; nothing is inferred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    relaxations: BTreeSet<Relaxation>,
}

impl Policy {
    /// No relaxation at all: the default.
    pub fn strict() -> Self {
        Self::default()
    }

    /// Adds one relaxation.
    #[must_use]
    pub fn relax(mut self, relaxation: Relaxation) -> Self {
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
}

impl From<Policy> for String {
    fn from(policy: Policy) -> Self {
        policy.relaxations.iter().map(ToString::to_string).collect::<alloc::vec::Vec<_>>().join(" ")
    }
}
