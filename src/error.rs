//! Errors of the client side, split by whose fault they are, each with a remedy.
//!
//! The server roles answer instead: see `resource_server::denial` and `authorization_server::error`.

use alloc::boxed::Box;
use core::fmt;
use core::time::Duration;

use crate::entropy::EntropyUnavailable;
use crate::identifier::InvalidIdentifier;
use crate::jose::{InvalidKeySet, JwsError};
use crate::message::Malformed;
use crate::message::challenge::ChallengeError;
use crate::message::client_metadata::ApplicationType;
use crate::message::exchange::FetchFailure;
use crate::policy::Relaxation;
use crate::revision::Revision;
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

/// The peer broke a rule of its specification. Nothing of what it sent is in the words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A document or reply does not parse.
    #[error("the server's {document} is malformed: {fault}")]
    Malformed {
        /// Which one.
        document: &'static str,
        /// What is wrong with it.
        fault: Malformed,
    },
    /// `WWW-Authenticate` is not a list of challenges (RFC 9110 section 11.6.1).
    #[error("the server's challenge is malformed: {0}")]
    Challenge(#[from] ChallengeError),
    /// The metadata is of another resource than the one that was asked for (RFC 9728 section 3.3).
    #[error("the resource metadata is of another resource than the one it was fetched for")]
    ResourceMismatch {
        /// What would accept it, where it is a path prefix on the same origin.
        relaxation: Option<Relaxation>,
    },
    /// The challenge points to metadata on another origin.
    #[error("the challenge points to resource metadata on another origin than the server's")]
    MetadataOnOtherOrigin {
        /// What would accept it.
        relaxation: Relaxation,
    },
    /// There is no resource metadata at the URL the challenge gave (D6).
    #[error("there is no resource metadata at the URL that the challenge gave")]
    NoMetadataWhereSaid,
    /// The document's `issuer` is not the one its URL was built from (RFC 8414 section 3.3).
    #[error("the authorization server's metadata names another issuer than the one it was fetched for")]
    IssuerMismatch {
        /// What would accept it, where only the slash behind the host differs.
        relaxation: Option<Relaxation>,
    },
    /// A URL of the server's leads to a loopback or private address (MCP security best practices, SSRF).
    #[error("the server's {what} leads to an address that this client must not contact")]
    ForbiddenAddress {
        /// Which URL.
        what: &'static str,
        /// What would allow it, for a private address.
        relaxation: Option<Relaxation>,
    },
    /// The authorization endpoint's query holds what the client adds, or is no list of parameters (OAuth 2.1 section 3.1).
    #[error("the authorization endpoint's own query is in the way of the authorization request")]
    AuthorizationEndpoint,
    /// The callback's `iss` is not the recorded issuer, or is missing although it was announced (RFC 9207 section 2.4).
    #[error(
        "the callback does not come from the authorization server that was asked: possibly a mix-up attack"
    )]
    CallbackIssuer,
    /// The registration names other redirect URIs than the one asked for.
    #[error("the server registered other redirect URIs than the one this client uses")]
    RegisteredRedirectUri,
    /// The registration contradicts itself: a secret for a public client, or none for a confidential one.
    #[error("the server's registration and its client secret contradict each other")]
    RegisteredCredential,
    /// The server widened the scope of a refreshed token.
    #[error("the server answered a refresh with more scope than was granted")]
    ScopeWidened,
    /// The provider's ID token does not say who signed in (OpenID Connect Core section 3.1.3.7).
    #[error("the sign-in provider's ID token cannot be used: {0}")]
    IdToken(IdTokenFault),
    /// The resource asks for more authorization again although nothing new is asked for, or too often (D33).
    #[error("the resource keeps asking for more authorization without asking for anything new")]
    StepUpLoop,
}

/// Why an ID token signs nobody in. Nothing of the token is in the words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdTokenFault {
    /// It is no signed token of the kinds that are taken: unsigned and encrypted ones, and shared secrets, among them.
    #[error("{0}")]
    Token(#[from] JwsError),
    /// It is a token of another kind.
    #[error("the token is of another kind than an ID token")]
    Kind,
    /// The provider's keys cannot be used.
    #[error("{0}")]
    Keys(#[from] InvalidKeySet),
    /// It is signed with a key that the provider does not publish.
    #[error("it names no key that the provider publishes for that algorithm")]
    UnknownKey,
    /// A claim is missing, or has another type than it must have.
    #[error("{0}")]
    Claims(#[from] Malformed),
    /// It is of another issuer.
    #[error("it is of another issuer than the one that was asked")]
    Issuer,
    /// It is for another client.
    #[error("it is for another client than this one")]
    Audience,
    /// It was issued to another client, or to nobody of several.
    #[error("it was issued to another client than this one")]
    AuthorizedParty,
    /// It has expired.
    #[error("it has expired; compare the clocks of both servers")]
    Expired,
    /// It was issued before it was asked for, or lies in the future.
    #[error(
        "it was issued before it was asked for, or lies in the future; compare the clocks of both servers"
    )]
    IssuedAt,
    /// It was made for another request.
    #[error("it was made for another sign-in than this one")]
    Nonce,
}

/// The peer keeps the rules but lacks what this client needs, or refuses what it asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIncompatible {
    /// The server has no resource metadata (RFC 9728).
    #[error("the server publishes no resource metadata, so nothing says where to authorize")]
    NoResourceMetadata,
    /// The metadata names no authorization server.
    #[error("the resource metadata names no authorization server")]
    NoAuthorizationServer,
    /// The client was registered by hand for this resource, at an authorization server that the resource does not name.
    #[error(
        "the resource does not name the authorization server that this client's identity for it is registered at"
    )]
    OtherIssuer,
    /// The resource takes tokens by other ways than the `Authorization` field only.
    #[error("the resource does not take tokens in the Authorization field")]
    NoHeaderMethod,
    /// None of the well-known locations has authorization server metadata.
    #[error("the authorization server publishes no metadata")]
    NoServerMetadata {
        /// What would let the flow go on, for a server of revision 2025-03-26.
        relaxation: Option<Relaxation>,
    },
    /// The metadata lacks an endpoint this flow needs.
    #[error("the authorization server has no {0}")]
    NoEndpoint(&'static str),
    /// The authorization server does not say that it supports S256 (MCP authorization code protection).
    #[error("the authorization server does not list S256 among its code challenge methods")]
    NoS256 {
        /// What would let the flow go on, if the server is known and trusted; nothing, if it lists other methods only.
        relaxation: Option<Relaxation>,
    },
    /// The server has no code grant.
    #[error("the authorization server does not offer the authorization code grant")]
    NoCodeGrant,
    /// The server sends no `iss`, and this identity has one redirect URI for all servers (D29).
    #[error("the authorization server sends no iss, and this client's redirect URI serves other servers too")]
    SharedRedirect {
        /// What would let the flow go on.
        relaxation: Relaxation,
    },
    /// Registration was refused (RFC 7591 section 3.2.2).
    #[error("the authorization server refused to register this client ({code})")]
    RegistrationRefused {
        /// Its code.
        code: KnownCode,
        /// What may be tried next.
        remedy: Box<Remedy>,
    },
    /// The secret of a registration has ended (RFC 7591 section 3.2.1).
    #[error("the client secret that the authorization server issued has expired")]
    SecretExpired,
    /// The token endpoint does not take who this client is configured to be there.
    #[error("the authorization server does not accept this client's configured identity ({code})")]
    IdentityRefused {
        /// Its code.
        code: KnownCode,
        /// What may help, for a client that proves itself by an assertion.
        relaxation: Option<Relaxation>,
    },
    /// The token endpoint refused (OAuth 2.1 section 3.2.4).
    #[error("the authorization server refused the token request ({0})")]
    TokenRefused(KnownCode),
    /// The revocation endpoint refused (RFC 7009 section 2.2.1).
    #[error("the authorization server refused to revoke the token ({0})")]
    RevocationRefused(KnownCode),
    /// The server takes no assertion signed with the algorithm of the configured key.
    #[error("the authorization server takes no client assertion of the configured key's algorithm")]
    AssertionAlgorithm,
    /// The token is of a type this client cannot use.
    #[error("the token is of a type that this client cannot present")]
    TokenType,
    /// The resource asks only for scopes beyond those the client's identity is pinned to (D36).
    #[error("the resource asks only for scopes that this client's identity must not ask for")]
    ScopesNotPinned,
    /// The servers' names, scopes and identifiers do not fit into one authorization URL.
    #[error("what the servers ask for does not fit into an authorization URL")]
    AuthorizationUrlTooLong,
    /// The 401 or 403 asks for nothing that more authorization could give.
    #[error("the server refused the request without saying what authorization would help")]
    NothingToGain,
}

/// An error code of the registry, or "another one": what a peer wrote is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownCode(&'static str);

impl KnownCode {
    const KNOWN: [&'static str; 15] = [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_target",
        "access_denied",
        "unsupported_response_type",
        "server_error",
        "temporarily_unavailable",
        "invalid_redirect_uri",
        "invalid_client_metadata",
        "invalid_software_statement",
        "unapproved_software_statement",
    ];

    /// The code of that text, if a specification has it.
    pub fn of(code: &str) -> Self {
        Self(Self::KNOWN.into_iter().find(|known| *known == code).unwrap_or("an unregistered error code"))
    }

    /// The code, or our words for an unregistered one.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for KnownCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The host asked for something that cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostMisuse {
    /// The receipt belongs to another action.
    #[error("the receipt is for another action than the one this state waits for")]
    ForeignReceipt,
    /// The reply is neither 401 nor 403.
    #[error("only a 401 or 403 begins an authorization")]
    NotAChallenge,
    /// The chosen issuer is not among those the resource names.
    #[error("the chosen issuer is not among those that the resource names")]
    IssuerNotListed,
    /// The pair of issuer and resource needs the host's assertion (D36).
    #[error(
        "nobody vouched for this authorization server and this MCP server, and anybody can name one: show both to the person, or look the pair up in configuration, and give the host's word"
    )]
    IssuerNotAsserted,
    /// The identity of a record is not registered by hand for the resource any more.
    #[error(
        "the client that this record was made for is not configured for this resource any more; authorize anew"
    )]
    IdentityGone,
    /// Two identities were registered by hand at one issuer for one resource.
    #[error("two clients are configured at one authorization server for one resource: say which is meant")]
    TwoIdentities,
    /// There is no identity of that kind for this issuer.
    #[error("no identity of that kind is configured for this authorization server")]
    NoIdentity,
    /// The issuer knows the client at other ports of this machine than the one it listens on.
    #[error(
        "the policy gives this authorization server fixed loopback ports, and the redirect URI has none of them"
    )]
    LoopbackPort,
    /// The redirect URI does not fit the identity.
    #[error("the redirect URI is not one that this identity registered")]
    RedirectUri,
    /// The token is for another resource.
    #[error("the token is not for that URL: it is attached to requests to its own resource only")]
    OtherResource,
    /// There is no refresh token.
    #[error("there is no refresh token; authorize anew")]
    NoRefreshToken,
    /// The metadata cannot be registered or published.
    #[error("the client's own metadata is not valid: {0}")]
    Metadata(Malformed),
    /// What is published at the client's metadata URL is not the document it needs there.
    #[error("the client metadata document as published does not do: {0}; publish the one this client writes")]
    Published(Malformed),
    /// The further parameters that the host named for this issuer do not go with its authorization endpoint.
    #[error("the authorization endpoint cannot take the further parameters that were named for it: {0}")]
    AuthorizationUrl(InvalidIdentifier),
    /// What the host does is there for a relaxation it has not named.
    #[error("the policy does not name {}, which this needs", relaxation.name())]
    Unnamed {
        /// Which one.
        relaxation: Relaxation,
    },
    /// The record does not belong here.
    #[error("the record is of another kind, client configuration or place")]
    ForeignRecord,
    /// The record was written by an earlier version of this crate, which is not read any more.
    #[error("the record is of an earlier version than this program reads; authorize anew")]
    EarlierRecord,
    /// The record was written by a later version of this crate.
    #[error(
        "the record is of a later version than this program reads; authorize anew, or use the later program"
    )]
    LaterRecord,
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
    /// The person's browser did not come back in time.
    #[error("the browser did not come back from the authorization server")]
    NoCallback {
        /// Whether the server may have forgotten the registration, which it tells the person and not this client (D40).
        reregister: bool,
    },
    /// Another process is refreshing the session.
    #[error("another program of this person is refreshing the session")]
    RefreshElsewhere,
    /// Another process removed the session from the store they share.
    #[error("the session was ended by another program of this person")]
    SessionRemoved,
    /// Discovery took more fetches than it may.
    #[error("finding the authorization server took more requests than allowed")]
    TooManyFetches,
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
    /// Register once more, as this type of application.
    RegisterAs(ApplicationType),
    /// Have this client registered by hand at the authorization server, and configure that identity.
    ConfigureIdentity,
    /// If the peer is known and trusted, name this relaxation in the policy.
    Relax(Relaxation),
    /// If the server is known to be of this revision of MCP, state that in the configuration.
    StateRevision(Revision),
    /// Show the authorization server and the resource to the person, or look the pair up in configuration, and pass
    /// [`IssuerForResource::assertion`](crate::evidence::IssuerForResource::assertion) for the two.
    Vouch,
    /// Correct the host's configuration or code, as the message says.
    FixConfiguration,
    /// Nothing on this side helps: the peer must mend it, or is hostile.
    Refused,
}

impl Error {
    /// What to do about it.
    pub fn remedy(&self) -> Remedy {
        const SOON: Duration = Duration::from_secs(1);
        match self {
            Self::Peer(peer) => match peer {
                PeerMisbehaved::ResourceMismatch { relaxation: Some(relaxation) }
                | PeerMisbehaved::IssuerMismatch { relaxation: Some(relaxation) }
                | PeerMisbehaved::ForbiddenAddress { relaxation: Some(relaxation), .. }
                | PeerMisbehaved::MetadataOnOtherOrigin { relaxation } => Remedy::Relax(relaxation.clone()),
                PeerMisbehaved::CallbackIssuer | PeerMisbehaved::ScopeWidened => Remedy::Reauthorize,
                PeerMisbehaved::RegisteredRedirectUri | PeerMisbehaved::RegisteredCredential => {
                    Remedy::Reregister
                }
                PeerMisbehaved::Malformed { .. }
                | PeerMisbehaved::Challenge(_)
                | PeerMisbehaved::ResourceMismatch { relaxation: None }
                | PeerMisbehaved::IssuerMismatch { relaxation: None }
                | PeerMisbehaved::NoMetadataWhereSaid
                | PeerMisbehaved::ForbiddenAddress { relaxation: None, .. }
                | PeerMisbehaved::AuthorizationEndpoint
                | PeerMisbehaved::IdToken(_)
                | PeerMisbehaved::StepUpLoop => Remedy::Refused,
            },
            Self::Incompatible(peer) => match peer {
                PeerIncompatible::NoS256 { relaxation: Some(relaxation) }
                | PeerIncompatible::NoServerMetadata { relaxation: Some(relaxation) }
                | PeerIncompatible::SharedRedirect { relaxation } => Remedy::Relax(relaxation.clone()),
                PeerIncompatible::TokenRefused(code) => match code.as_str() {
                    "invalid_client" | "unauthorized_client" => Remedy::Reregister,
                    "temporarily_unavailable" | "server_error" => Remedy::RetryAfter(SOON),
                    _ => Remedy::Reauthorize,
                },
                PeerIncompatible::RegistrationRefused { remedy, .. } => (**remedy).clone(),
                PeerIncompatible::SecretExpired => Remedy::Reregister,
                PeerIncompatible::IdentityRefused { relaxation: Some(relaxation), .. } => {
                    Remedy::Relax(relaxation.clone())
                }
                PeerIncompatible::OtherIssuer => Remedy::ConfigureIdentity,
                PeerIncompatible::AssertionAlgorithm
                | PeerIncompatible::IdentityRefused { relaxation: None, .. } => Remedy::FixConfiguration,
                PeerIncompatible::NoResourceMetadata => Remedy::StateRevision(Revision::V2025_03_26),
                PeerIncompatible::NoAuthorizationServer
                | PeerIncompatible::NoHeaderMethod
                | PeerIncompatible::NoServerMetadata { relaxation: None }
                | PeerIncompatible::NoEndpoint(_)
                | PeerIncompatible::NoCodeGrant
                | PeerIncompatible::NoS256 { relaxation: None }
                | PeerIncompatible::RevocationRefused(_)
                | PeerIncompatible::TokenType
                | PeerIncompatible::ScopesNotPinned
                | PeerIncompatible::AuthorizationUrlTooLong
                | PeerIncompatible::NothingToGain => Remedy::Refused,
            },
            // D36
            Self::Host(HostMisuse::IssuerNotAsserted) => Remedy::Vouch,
            Self::Host(
                HostMisuse::NoRefreshToken
                | HostMisuse::EarlierRecord
                | HostMisuse::LaterRecord
                | HostMisuse::IdentityGone,
            )
            | Self::Outside(OutsideFailed::SessionRemoved) => Remedy::Reauthorize,
            Self::Host(HostMisuse::Unnamed { relaxation }) => Remedy::Relax(relaxation.clone()),
            // MCP-REG-004
            Self::Host(HostMisuse::NoIdentity) => Remedy::ConfigureIdentity,
            Self::Host(_) => Remedy::FixConfiguration,
            // D40
            Self::Outside(OutsideFailed::NoCallback { reregister: true }) => Remedy::Reregister,
            Self::Outside(OutsideFailed::NoCallback { reregister: false }) => Remedy::Reauthorize,
            Self::Outside(OutsideFailed::Unavailable { retry_after: Some(wait), .. }) => {
                Remedy::RetryAfter(*wait)
            }
            // The same request would come to the same end.
            Self::Outside(
                OutsideFailed::Fetch(FetchFailure::AddressForbidden | FetchFailure::TooLarge)
                | OutsideFailed::TooManyFetches,
            ) => Remedy::Refused,
            // The same key and the same place are what would help, not another attempt.
            Self::Outside(OutsideFailed::Sealer(_)) => Remedy::FixConfiguration,
            Self::Outside(_) => Remedy::RetryAfter(SOON),
        }
    }
}

/// A document of the peer's that does not parse.
pub(crate) fn malformed(document: &'static str) -> impl Fn(Malformed) -> Error {
    move |fault| PeerMisbehaved::Malformed { document, fault }.into()
}

impl From<EntropyUnavailable> for Error {
    fn from(error: EntropyUnavailable) -> Self {
        OutsideFailed::from(error).into()
    }
}

impl From<SealerFailed> for Error {
    fn from(error: SealerFailed) -> Self {
        OutsideFailed::from(error).into()
    }
}
