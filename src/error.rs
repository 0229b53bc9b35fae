//! Errors of the client side, split by whose fault they are, each with a remedy.
//!
//! The server roles answer instead: see `resource_server::denial` and `authorization_server::error`.

use core::time::Duration;

use crate::entropy::EntropyUnavailable;
use crate::message::exchange::FetchFailure;
use crate::policy::Relaxation;
use crate::sealer::SealerFailed;

/// Why a transition did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer broke a rule of the specifications; nothing it said was used.
    #[error("{0}")]
    Peer(#[from] PeerMisbehaved),
    /// The peer keeps the rules but lacks what this client needs.
    #[error("{0}")]
    Incompatible(#[from] PeerIncompatible),
    /// The host called the core in a way that cannot be right.
    #[error("{0}")]
    Host(#[from] HostMisuse),
    /// The network, a store, a key holder or the source of randomness failed; the same call may succeed later.
    #[error("{0}")]
    Outside(#[from] OutsideFailed),
}

/// The peer broke a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A document or reply does not parse.
    #[error("the server's {document} is malformed")]
    Malformed {
        /// Which one.
        document: &'static str,
    },
}

/// The peer lacks something this client needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIncompatible {
    /// The authorization server does not say that it supports S256.
    #[error("the authorization server does not list S256 among its code challenge methods")]
    NoS256 {
        /// What would let the flow go on, if the server is known and trusted.
        relaxation: Relaxation,
    },
}

/// The host asked for something that cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostMisuse {
    /// The receipt belongs to another action.
    #[error("the receipt is for another action than the one this state waits for")]
    ForeignReceipt,
}

/// Something outside both peers failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutsideFailed {
    /// A fetch brought no reply.
    #[error("{0}")]
    Fetch(#[from] FetchFailure),
    /// The host's randomness failed.
    #[error("{0}")]
    Entropy(#[from] EntropyUnavailable),
    /// The host's sealer failed.
    #[error("{0}")]
    Sealer(#[from] SealerFailed),
    /// The server answered that it cannot serve now.
    #[error("the server is unavailable (status {status})")]
    Unavailable {
        /// Its HTTP status.
        status: u16,
        /// When it asks to be tried again.
        retry_after: Option<Duration>,
    },
}

/// What the host, or the person, can do about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// Try the same again, not before that time.
    RetryAfter(Duration),
    /// Start a new authorization from `Ready`.
    Reauthorize,
    /// Forget this client registration and register anew.
    Reregister,
    /// If the peer is known and trusted, name this relaxation in the policy.
    Relax(Relaxation),
    /// Correct the host's configuration or code, as the message says.
    FixConfiguration,
    /// Nothing on this side helps: the peer must mend it, or is hostile.
    Refused,
}

impl Error {
    /// What to do about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Peer(_) => Remedy::Refused,
            Self::Incompatible(PeerIncompatible::NoS256 { relaxation }) => Remedy::Relax(relaxation.clone()),
            Self::Host(_) => Remedy::FixConfiguration,
            Self::Outside(OutsideFailed::Unavailable { retry_after: Some(wait), .. }) => {
                Remedy::RetryAfter(*wait)
            }
            Self::Outside(_) => Remedy::RetryAfter(Duration::from_secs(1)),
        }
    }
}
