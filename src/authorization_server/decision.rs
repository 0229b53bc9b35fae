//! The answer to the consent page: checked against what was shown, consumed once, answered with a code or a denial.
//!
//! ```text
//! decide(handle) ─ReadDecision▶ AwaitingDecision ─found─▶ Deciding ─approve / deny─DecideOnce▶ AwaitingCodeStored
//!                                                                                                  │ decided
//!                                                                                               Redirect
//! ```

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

use super::AuthorizationServer;
use super::authorization::{Answer, ForeignReceipt, Redirect};
use super::record::{CodeRecord, ConsentRecord, DecisionRecord, Epochs, FamilyId, GrantRecord};
use super::refusal::{Refusal, RefusalReason};
use super::store::{
    ActionId, Basis, DecideOnce, DecisionFound, DecisionOutcome, DecisionTaken, PendingDecision, ReadDecision,
};
use crate::entropy::{Ahead, Entropy};
use crate::evidence::{Approval, ConsentExpected, ConsentGiven, RedirectMatched};
use crate::identifier::{ClientId, RedirectUri, ResourceId};
use crate::message::error_code::AuthorizationErrorCode;
use crate::pkce::CodeChallenge;
use crate::secret::{self, AgentBinding, AuthorizationCode, SecretDigest};
use crate::step::{Failed, Step};
use crate::time::{self, OffsetDateTime};

impl AuthorizationServer {
    /// A form of the consent page came back; `handle` is its hidden field.
    pub fn decide(&self, handle: &str) -> Step<ReadDecision, AwaitingDecision> {
        let key = SecretDigest::of(handle.as_bytes());
        Step::new(ReadDecision::new(key), AwaitingDecision(Box::new((self.clone(), key))))
    }
}

/// Waits for the record of what was shown.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub struct AwaitingDecision(Box<(AuthorizationServer, SecretDigest)>);

impl AwaitingDecision {
    /// The store has read it.
    ///
    /// # Errors
    /// A [`Refusal`] to show when nothing is pending under that handle, or when the client has been removed or has withdrawn the
    /// redirect URI since.
    pub fn found(self, found: DecisionFound) -> Result<Deciding, Refusal> {
        let (server, key) = *self.0;
        let refused = || Refusal::new(RefusalReason::Decision);
        if found.key != key {
            return Err(refused());
        }
        let PendingDecision { record, client, epochs } = found.record.ok_or_else(refused)?;
        let client = client.filter(|client| client.client_id == record.client_id);
        let client = client.ok_or_else(|| Refusal::new(RefusalReason::UnknownClient))?;
        // OAUTH21-2.3.5-1, I-R1, at completion too, and with what is registered today: who has taken over an address that was
        // withdrawn while the page was shown gets no code.
        let redirect = RedirectMatched::compare(client.redirect_uris(), &record.redirect_uri)
            .ok_or_else(|| Refusal::new(RefusalReason::RedirectUri))?;
        Ok(Deciding(Box::new(Inner { server, key, record, epochs, redirect, now: found.now })))
    }

    /// The store could not be read; the page can be sent again.
    pub fn store_failed(self) -> Refusal {
        Refusal::new(RefusalReason::Unavailable)
    }
}

/// Holds what was shown, and waits for what the person said.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub struct Deciding(Box<Inner>);

#[derive(Debug)]
struct Inner {
    server: AuthorizationServer,
    key: SecretDigest,
    record: Arc<DecisionRecord>,
    epochs: Epochs,
    redirect: RedirectMatched,
    now: OffsetDateTime,
}

impl Deciding {
    /// The person pressed approve; `csrf` is the form's hidden field.
    ///
    /// # Errors
    /// A [`Refusal`] to show when browser, person, form or time are not those of the page, when a scope was not shown, or
    /// when there is no randomness. The decision stays pending: a stranger's form cannot use it up.
    pub fn approve(
        self,
        approval: Approval,
        csrf: &str,
        entropy: &mut dyn Entropy,
    ) -> Result<Step<DecideOnce, AwaitingCodeStored>, Refusal> {
        if !approval.scopes().is_subset_of(&self.0.record.scope) {
            return Err(Refusal::new(RefusalReason::Scopes));
        }
        if approval.scopes().is_empty() {
            let agent = *approval.agent();
            return self.deny(approval.subject(), agent, csrf, entropy);
        }
        let consent = self.0.consent(&approval, csrf)?;
        // OAUTH21-3.1-1, I-C9: a code comes of consent and of nothing else.
        let remembered = approval.is_remembered();
        let inner = *self.0;
        inner.take(Some(consent), remembered, entropy)
    }

    /// The person pressed deny, or approved nothing.
    ///
    /// # Errors
    /// As for [`Deciding::approve`].
    pub fn deny(
        self,
        subject: &str,
        agent: AgentBinding,
        csrf: &str,
        entropy: &mut dyn Entropy,
    ) -> Result<Step<DecideOnce, AwaitingCodeStored>, Refusal> {
        let answer = Approval::assertion(subject, agent, crate::identifier::ScopeSet::new());
        let _same_person_and_browser: ConsentGiven = self.0.consent(&answer, csrf)?;
        let inner = *self.0;
        inner.take(None, false, entropy)
    }
}

impl Inner {
    fn consent(&self, approval: &Approval, csrf: &str) -> Result<ConsentGiven, Refusal> {
        // I-P9, MCP-SBP-005
        let expected = ConsentExpected {
            subject: &self.record.subject,
            agent: &self.record.agent,
            csrf: &self.record.csrf,
            scopes: &self.record.scope,
            not_after: self.record.not_after,
        };
        ConsentGiven::compare(&expected, approval, &SecretDigest::of(csrf.as_bytes()), self.now)
            .ok_or_else(|| Refusal::new(RefusalReason::Decision))
    }

    fn take(
        self,
        consent: Option<ConsentGiven>,
        wanted: bool,
        entropy: &mut dyn Entropy,
    ) -> Result<Step<DecideOnce, AwaitingCodeStored>, Refusal> {
        let Self { server, key, record, epochs, redirect, now } = self;
        // I-P2: only where the page offered it, whatever the form says.
        let rememberable = record.rememberable.filter(|_| wanted);
        let remembered = consent.as_ref().zip(rememberable).map(|(consent, metadata_digest)| ConsentRecord {
            subject: Arc::clone(&record.subject),
            client_id: record.client_id.clone(),
            redirect_uri: record.redirect_uri.clone(),
            resource: record.resource.clone(),
            metadata_digest,
            scope: consent.scopes().clone(),
            epochs,
            not_after: time::after(now, server.lifetimes().consent),
        });
        let basis =
            Basis::Answer { decision: key, agent: record.agent, subject: Arc::clone(&record.subject) };
        let approved = Approved {
            client_id: record.client_id.clone(),
            subject: Arc::clone(&record.subject),
            resource: record.resource.clone(),
            redirect_uri: record.redirect_uri.clone(),
            challenge: record.challenge,
            refresh: record.refresh,
            authenticated: record.authenticated,
            epochs,
        };
        let answer = Answer { server, redirect, state: record.state.clone() };
        approved.take(answer, basis, consent, remembered, now, entropy)
    }
}

/// What a person was asked, whether just now or before.
pub(crate) struct Approved {
    pub(crate) client_id: ClientId,
    pub(crate) subject: Arc<str>,
    pub(crate) resource: ResourceId,
    pub(crate) redirect_uri: RedirectUri,
    pub(crate) challenge: CodeChallenge,
    pub(crate) refresh: bool,
    pub(crate) authenticated: OffsetDateTime,
    pub(crate) epochs: Epochs,
}

impl Approved {
    /// With consent, a code and its row; without, only that the answer was given.
    pub(crate) fn take(
        self,
        answer: Answer,
        basis: Basis,
        consent: Option<ConsentGiven>,
        remember: Option<ConsentRecord>,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Step<DecideOnce, AwaitingCodeStored>, Refusal> {
        let unavailable = |_| Refusal::new(RefusalReason::Unavailable);
        let entropy = &mut Ahead::<58>::of(entropy);
        let lifetimes = *answer.server.lifetimes();
        let (code, row) = match consent {
            None => (None, None),
            Some(consent) => {
                // OAUTH21-7.7-1, OAUTH21-4.1.2-4: random, so that nothing can be read off it.
                let code = secret::fresh(entropy, AuthorizationCode::new).map_err(unavailable)?;
                let grant = GrantRecord {
                    family: FamilyId::fresh(now, entropy).map_err(unavailable)?,
                    client_id: self.client_id,
                    subject: self.subject,
                    resource: self.resource,
                    scope: consent.scopes().clone(),
                    epochs: self.epochs,
                    authenticated: self.authenticated,
                    not_after: time::after(now, lifetimes.family),
                };
                // OAUTH21-4.1.2-2: everything the code is bound to.
                let row = CodeRecord {
                    grant: Arc::new(grant),
                    challenge: *self.challenge.as_bytes(),
                    redirect_uri: self.redirect_uri,
                    refresh: self.refresh,
                    expires: time::after(now, lifetimes.code),
                };
                let digest = code.digest();
                (Some(code), Some((digest, Arc::new(row))))
            }
        };
        let remember = remember.map(|record| (record.key(), record));
        let (action, id) = DecideOnce::new(basis, row, remember, entropy).map_err(unavailable)?;
        Ok(Step::new(action, AwaitingCodeStored(Box::new(Stored { id, answer, code }))))
    }
}

/// Waits until the store has consumed the decision and holds the code.
#[must_use = "the client waits for an answer"]
pub struct AwaitingCodeStored(Box<Stored>);

struct Stored {
    id: ActionId,
    answer: Answer,
    code: Option<AuthorizationCode>,
}

impl core::fmt::Debug for AwaitingCodeStored {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let outcome = if self.0.code.is_some() { "approved" } else { "denied" };
        f.debug_struct("AwaitingCodeStored").field("outcome", &String::from(outcome)).finish_non_exhaustive()
    }
}

/// What became of the decision.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub enum Decided {
    /// The browser goes back to the client.
    Redirect(Redirect),
    /// Somebody was faster, or the decision is not theirs: show this.
    Refused(Refusal),
}

impl AwaitingCodeStored {
    /// The store has carried it out.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn decided(self, receipt: DecisionTaken) -> Result<Decided, Failed<Self, ForeignReceipt>> {
        if receipt.id != self.0.id {
            return Err(Failed::new(ForeignReceipt, self));
        }
        let Stored { answer, code, .. } = *self.0;
        let refused = |reason| Decided::Refused(Refusal::new(reason));
        Ok(match receipt.outcome {
            DecisionOutcome::Stored => {
                let redirect = match code {
                    Some(code) => answer.code(code),
                    // OAUTH21-4.1.2.1-3
                    None => {
                        answer.error(AuthorizationErrorCode::AccessDenied, "the person denied the request")
                    }
                };
                redirect.map_or_else(Decided::Refused, Decided::Redirect)
            }
            DecisionOutcome::NotYours | DecisionOutcome::Absent => refused(RefusalReason::Decision),
        })
    }

    /// The store failed; the decision may be sent again.
    pub fn store_failed(self) -> Refusal {
        Refusal::new(RefusalReason::Unavailable)
    }
}
