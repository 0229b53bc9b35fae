//! Ending grants, and identifiers that are used once.

use alloc::string::String;

use super::ActionId;
use crate::authorization_server::record::{FamilyId, GrantRecord};
use crate::entropy::{Entropy, EntropyUnavailable};
use crate::identifier::{ClientId, Issuer};
use crate::time::OffsetDateTime;

/// Why a family is revoked: for the operator's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RevocationReason {
    /// A spent code came back with everything that fits it.
    CodeReplayed,
    /// A retired refresh token came back from its client.
    RefreshReused,
    /// The client asked for it (RFC 7009).
    ClientRequest,
    /// The person, or the operator, ended the grant.
    PersonRequest,
}

impl RevocationReason {
    /// A word for logs and stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CodeReplayed => "code_replayed",
            Self::RefreshReused => "refresh_reused",
            Self::ClientRequest => "client_request",
            Self::PersonRequest => "person_request",
        }
    }
}

/// Revokes a family for good.
#[must_use = "the refusal goes out only after this is carried out"]
#[derive(Debug)]
pub struct RevokeFamily {
    id: ActionId,
    family: FamilyId,
    reason: RevocationReason,
    not_after: OffsetDateTime,
}

/// That [`RevokeFamily`] was carried out.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct FamilyRevocation {
    pub(crate) id: ActionId,
}

impl RevokeFamily {
    pub(crate) fn new(
        grant: &GrantRecord,
        reason: RevocationReason,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, ActionId), EntropyUnavailable> {
        let (id, twin) = ActionId::pair(entropy)?;
        Ok((Self { id, family: grant.family, reason, not_after: grant.not_after }, twin))
    }

    /// Ends one grant: for the person's own page, and for the operator.
    ///
    /// # Errors
    /// [`EntropyUnavailable`]; nothing was revoked.
    pub fn of_grant(grant: &GrantRecord, entropy: &mut dyn Entropy) -> Result<Self, EntropyUnavailable> {
        Ok(Self::new(grant, RevocationReason::PersonRequest, entropy)?.0)
    }

    /// The family.
    pub fn family(&self) -> FamilyId {
        self.family
    }

    /// Why.
    pub fn reason(&self) -> RevocationReason {
        self.reason
    }

    /// The end of the family: the tombstone is kept past it, until the longest access token has ended too.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// The tombstone is stored; it may have been there before.
    pub fn revoked(self) -> FamilyRevocation {
        FamilyRevocation { id: self.id }
    }
}

/// Whose grants end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RevocationTarget {
    /// Every grant of a client.
    Client(ClientId),
    /// Every grant of a person.
    Subject(String),
    /// What one person granted to one client.
    Consent {
        /// The person.
        subject: String,
        /// The client.
        client_id: ClientId,
    },
}

/// Ends all grants of a client, a person, or a person's consent, by moving an epoch. A host that keeps the person's epoch with
/// their sessions ends these as well.
#[must_use = "the grants end only once this is carried out"]
#[derive(Debug)]
pub struct RevokeAll {
    target: RevocationTarget,
}

/// That [`RevokeAll`] was carried out.
#[must_use = "it says that every grant made before has ended"]
#[derive(Debug)]
pub struct AllRevoked {
    target: RevocationTarget,
}

impl RevokeAll {
    /// Ends all grants of the target: for the operator, the person's own page, or the removal of an account.
    pub fn of(target: RevocationTarget) -> Self {
        // OAUTH21-4.3.3-3
        Self { target }
    }

    /// Whose.
    pub fn target(&self) -> &RevocationTarget {
        &self.target
    }

    /// The epoch has moved.
    pub fn revoked(self) -> AllRevoked {
        AllRevoked { target: self.target }
    }
}

impl AllRevoked {
    /// Whose grants have ended.
    pub fn target(&self) -> &RevocationTarget {
        &self.target
    }
}

/// What kind of identifier is used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReservationKind {
    /// The `jti` of a client assertion (RFC 7523).
    ClientAssertion,
    /// The `state` of a sign-in at an OpenID Provider.
    SignIn,
    /// A browser in which its person signed out.
    SignOut,
}

/// Reserves an identifier that may be used once; or names it, to be looked for.
#[must_use = "the identifier counts as used only once this is carried out"]
#[derive(Debug)]
pub struct ReserveOnce {
    kind: ReservationKind,
    issuer: String,
    audience: Issuer,
    value: String,
    until: OffsetDateTime,
}

/// That [`ReserveOnce`] was carried out.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct Reservation {
    value: String,
    reserved: bool,
}

impl Reservation {
    /// Whether the identifier was free, and is the one that was to be reserved. Anything else is a replay.
    pub fn reserves(&self, value: &str) -> bool {
        self.reserved && self.value.as_bytes() == value.as_bytes()
    }
}

impl ReserveOnce {
    pub(crate) fn new(
        kind: ReservationKind,
        (issuer, audience, value): (String, Issuer, String),
        until: OffsetDateTime,
    ) -> Self {
        Self { kind, issuer, audience, value, until }
    }

    /// What kind it is.
    pub fn kind(&self) -> ReservationKind {
        self.kind
    }

    /// Who made the identifier.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// For whom.
    pub fn audience(&self) -> &Issuer {
        &self.audience
    }

    /// The identifier.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Until when the reservation must be kept.
    pub fn until(&self) -> OffsetDateTime {
        self.until
    }

    /// It was free and is reserved. All four parts make the key, each with its length, so that no two share one.
    pub fn reserved(self) -> Reservation {
        Reservation { value: self.value, reserved: true }
    }

    /// It had been used before.
    pub fn already_seen(self) -> Reservation {
        Reservation { value: self.value, reserved: false }
    }
}
