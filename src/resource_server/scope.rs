//! From a verified token to an authorized request: scopes, and which scope implies which (RFC 6750 section 3.1, MCP
//! authorization: scope challenges).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use core::fmt;

use super::denial::{Denial, DenialReason};
use super::verification::{Facts, VerifiedToken};
use super::{InvalidConfiguration, ResourceServer};
use crate::evidence::{AudienceAccepted, IssuerMatched};
use crate::identifier::{ClientId, Scope, ScopeSet};
use crate::time::OffsetDateTime;

/// The scopes one operation needs, all of them: the same for the check and for every challenge about it.
///
/// A host derives it from its configuration for the operation, so that the same operation always names the same
/// scopes (MCP-AUTH-019). It may be empty: then any valid token will do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequiredScopes(ScopeSet);

impl RequiredScopes {
    /// These scopes.
    ///
    /// # Errors
    /// [`InvalidConfiguration::OfflineAccess`]: that scope is never a resource's to ask for.
    pub fn new(scopes: ScopeSet) -> Result<Self, InvalidConfiguration> {
        // MCP-AUTH-085
        refuse_offline_access(&scopes)?;
        Ok(Self(scopes))
    }

    /// No scope at all: any token that is valid for the resource will do.
    pub fn none() -> Self {
        Self::default()
    }

    /// The scopes.
    pub fn scopes(&self) -> &ScopeSet {
        &self.0
    }

    /// As the `scope` parameter of a challenge.
    pub(super) fn to_parameter(&self) -> Option<String> {
        // MCP-AUTH-019: made from the operation's scopes and nothing else, in one order.
        if self.0.is_empty() { None } else { Some(self.0.to_string()) }
    }
}

/// `offline_access` asks for a refresh token, which a resource never sees.
pub(super) fn refuse_offline_access(scopes: &ScopeSet) -> Result<(), InvalidConfiguration> {
    // MCP-AUTH-085, MCP-AUTH-086
    if scopes.iter().any(|scope| scope.as_str() == "offline_access") {
        return Err(InvalidConfiguration::OfflineAccess);
    }
    Ok(())
}

/// Which scope implies which others.
#[derive(Debug, Clone, Default)]
pub(super) struct Hierarchy(BTreeMap<Scope, BTreeSet<Scope>>);

impl Hierarchy {
    pub(super) fn imply(&mut self, broader: Scope, narrower: ScopeSet) {
        self.0.entry(broader).or_default().extend(narrower.iter().cloned());
    }

    /// Whether scopes that were granted contain, or imply, everything required.
    fn satisfies(&self, granted: &ScopeSet, required: &ScopeSet) -> bool {
        required.iter().all(|scope| granted.contains(scope)) || self.implies(granted, required)
    }

    fn implies(&self, granted: &ScopeSet, required: &ScopeSet) -> bool {
        // MCP-AUTH-118: walks each scope at most once, so that circles end.
        let mut reached: BTreeSet<&Scope> = BTreeSet::new();
        let mut open: alloc::vec::Vec<&Scope> = granted.iter().collect();
        while let Some(scope) = open.pop() {
            if reached.insert(scope) {
                open.extend(self.0.get(scope).into_iter().flatten());
            }
        }
        required.iter().all(|scope| reached.contains(scope))
    }
}

impl VerifiedToken {
    /// Allows the operation if the token has its scopes.
    ///
    /// The host's own rules come after this: a scope says what the client may do for the person, not what the person
    /// may do.
    ///
    /// # Errors
    /// The [`Denial`] that names every scope of the operation at once.
    pub fn authorize(self, required: &RequiredScopes) -> Result<Authorized, Denial> {
        let (server, facts) = self.into_parts();
        // MCP-SEC-027: the one way to what a handler takes. OAUTH21-5.2-1, MCP-AUTH-091, I-A13: each scope of the operation, on every path.
        if !server.0.hierarchy.satisfies(&facts.scopes, &required.0) {
            return Err(Denial::new(&server, required, DenialReason::InsufficientScope));
        }
        Ok(Authorized(Arc::new(Allowed { server, facts, required: required.clone() })))
    }
}

/// A request that may be handled: who it is for, through which client, with which scopes. It has one origin,
/// [`VerifiedToken::authorize`], and holds no token.
#[derive(Clone)]
pub struct Authorized(Arc<Allowed>);

struct Allowed {
    server: ResourceServer,
    facts: Facts,
    required: RequiredScopes,
}

impl Authorized {
    /// The subject, unique within its issuer: keep both together as the key of a person.
    pub fn subject(&self) -> &str {
        &self.0.facts.subject
    }

    /// The client the token was issued to.
    pub fn client(&self) -> &ClientId {
        &self.0.facts.client
    }

    /// The scopes of the token, as its issuer wrote them.
    pub fn scopes(&self) -> &ScopeSet {
        &self.0.facts.scopes
    }

    /// The issuer of the token, which is one of those configured.
    pub fn issuer(&self) -> &IssuerMatched {
        &self.0.facts.issuer
    }

    /// The audience of the token that is accepted here.
    pub fn audience(&self) -> &AudienceAccepted {
        &self.0.facts.audience
    }

    /// When the token expires.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.0.facts.expires_at
    }

    /// The scopes that were required for this operation.
    pub fn required(&self) -> &RequiredScopes {
        &self.0.required
    }

    /// Refuses after all, by the host's own rules about this subject or client: a 403 that no other token would mend.
    pub fn refuse(&self) -> Denial {
        // MCP-SBP-053
        Denial::new(&self.0.server, &self.0.required, DenialReason::LocalPolicy)
    }
}

impl fmt::Debug for Authorized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorized")
            .field("issuer", &self.0.facts.issuer)
            .field("client", &self.0.facts.client)
            .field("scopes", &self.0.facts.scopes)
            .field("expires_at", &self.0.facts.expires_at)
            .finish_non_exhaustive()
    }
}
