//! The revisions of the MCP specification, by their dates.

use core::fmt;
use core::str::FromStr;

/// A revision of the MCP specification that a host states for a server; it is never guessed from what a server does.
///
/// Ordered by date. Where an older text says nothing, the rule of the newest holds: a revision adds what its servers
/// need and takes no check away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Revision {
    /// 2025-03-26: no resource metadata; the authorization server is the origin of the MCP URL.
    V2025_03_26,
    /// 2025-06-18: resource metadata, RFC 8414 metadata, resource indicators.
    V2025_06_18,
    /// 2025-11-25: OpenID Connect discovery, client metadata documents, scope challenges.
    V2025_11_25,
    /// 2026-07-28: issuer in the callback, credentials bound to their issuer.
    #[default]
    V2026_07_28,
}

/// Text that is the date of no revision this crate knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no known revision of the MCP specification has that date")]
pub struct UnknownRevision;

impl Revision {
    /// Every revision, oldest first.
    pub const ALL: [Self; 4] = [Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25, Self::V2026_07_28];

    /// Its date, as in the field `MCP-Protocol-Version`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Revision {
    type Err = UnknownRevision;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|revision| revision.as_str() == text).ok_or(UnknownRevision)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString as _;

    use super::{Revision, UnknownRevision};

    #[test]
    fn a_revision_is_named_by_its_date_and_ordered_by_it() {
        for revision in Revision::ALL {
            assert_eq!(revision.to_string().parse(), Ok(revision));
        }
        assert!(Revision::ALL.is_sorted());
        assert_eq!(Revision::ALL.last(), Some(&Revision::default()));
        for text in ["", "2025-03-26 ", "2024-11-05", "latest", "2026-07-29"] {
            assert_eq!(text.parse::<Revision>(), Err(UnknownRevision), "{text}");
        }
    }
}
