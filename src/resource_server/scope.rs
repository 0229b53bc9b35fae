//! From a verified token to an authorized request: scopes, and which scope implies which (RFC 6750 section 3.1, MCP
//! authorization: scope challenges).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::InvalidConfiguration;
use super::denial::{Denial, DenialReason};
use super::exchange::SubjectToken;
use super::verification::{Verified, VerifiedToken};
use crate::evidence::{AudienceAccepted, IssuerMatched};
use crate::identifier::{ClientId, Scope, ScopeSet};
use crate::time::OffsetDateTime;

/// The scopes one operation needs, all of them: the same for the check and for every challenge about it.
///
/// A host derives it from its configuration for the operation, so that the same operation always names the same
/// scopes (MCP-AUTH-019). It may be empty: then any valid token will do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequiredScopes(Option<Arc<ScopeSet>>);

static NONE: ScopeSet = ScopeSet::new();

impl RequiredScopes {
    /// These scopes.
    ///
    /// # Errors
    /// [`InvalidConfiguration::OfflineAccess`]: that scope is never a resource's to ask for.
    pub fn new(scopes: ScopeSet) -> Result<Self, InvalidConfiguration> {
        // MCP-AUTH-085
        refuse_offline_access(&scopes)?;
        Ok(Self((!scopes.is_empty()).then(|| Arc::new(scopes))))
    }

    /// No scope at all: any token that is valid for the resource will do.
    pub fn none() -> Self {
        Self::default()
    }

    /// The scopes.
    pub fn scopes(&self) -> &ScopeSet {
        self.0.as_deref().unwrap_or(&NONE)
    }

    /// As the `scope` parameter of a challenge.
    pub(super) fn to_parameter(&self) -> Option<String> {
        // MCP-AUTH-019: made from the operation's scopes and nothing else, in one order.
        self.0.as_ref().map(|scopes| scopes.to_string())
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
pub(super) struct Hierarchy(BTreeMap<String, BTreeSet<Scope>>);

impl Hierarchy {
    pub(super) fn imply(&mut self, broader: &Scope, narrower: &ScopeSet) {
        self.0.entry(broader.to_string()).or_default().extend(narrower.iter().cloned());
    }

    /// Whether scopes that were granted contain, or imply, everything required.
    fn satisfies<'g>(&self, granted: impl Iterator<Item = &'g str> + Clone, required: &ScopeSet) -> bool {
        required.iter().all(|scope| granted.clone().any(|granted| granted == scope.as_str()))
            || (!self.0.is_empty() && self.implies(granted, required))
    }

    fn implies<'g>(&self, granted: impl Iterator<Item = &'g str>, required: &ScopeSet) -> bool {
        // MCP-AUTH-118: walks each scope at most once, so that circles end.
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut open: Vec<&str> = granted.collect();
        while let Some(scope) = open.pop() {
            if reached.insert(scope) {
                open.extend(self.0.get(scope).into_iter().flatten().map(Scope::as_str));
            }
        }
        required.iter().all(|scope| reached.contains(scope.as_str()))
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
        // MCP-SEC-027: the one way to what a handler takes. OAUTH21-5.2-1, MCP-AUTH-091, I-A13: each scope of the operation, on every path.
        let facts = self.facts();
        if !facts.server.0.hierarchy.satisfies(facts.scopes(), required.scopes()) {
            return Err(Denial::new(&facts.server, required, DenialReason::InsufficientScope));
        }
        let server = facts.server.clone();
        let authorized = self.with_required(required).map(Authorized);
        authorized.ok_or_else(|| Denial::new(&server, required, DenialReason::InsufficientScope))
    }
}

/// A request that may be handled: who it is for, through which client, with which scopes. It has one origin,
/// [`VerifiedToken::authorize`], and shows no token.
#[derive(Clone)]
pub struct Authorized(Arc<Verified>);

impl Authorized {
    /// The subject, unique within its issuer: keep both together as the key of a person.
    pub fn subject(&self) -> &str {
        self.0.facts.subject()
    }

    /// The client the token was issued to.
    pub fn client(&self) -> &ClientId {
        &self.0.facts.client
    }

    /// The scopes of the token. Those they imply are not among them.
    pub fn scopes(&self) -> ScopeSet {
        // Each was checked when the token was read.
        self.0.facts.scopes().filter_map(|scope| Scope::new(scope).ok()).collect()
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

    /// What the token can be exchanged by, where the resource server was configured to.
    pub fn subject_token(&self) -> Option<&SubjectToken> {
        self.0.subject_token.as_ref()
    }

    /// Refuses after all, by the host's own rules about this subject or client: a 403 that no other token would mend.
    pub fn refuse(&self) -> Denial {
        // MCP-SBP-053
        Denial::new(&self.0.facts.server, &self.0.required, DenialReason::LocalPolicy)
    }
}

impl fmt::Debug for Authorized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorized")
            .field("issuer", &self.0.facts.issuer)
            .field("client", &self.0.facts.client)
            .field("scopes", &self.scopes())
            .field("expires_at", &self.0.facts.expires_at)
            .finish_non_exhaustive()
    }
}
