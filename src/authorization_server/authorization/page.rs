//! A request with nothing wrong, and the page that asks the person about it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::{Answer, Checked, ForeignReceipt};
use crate::authorization_server::client::ClientShown;
use crate::authorization_server::record::{ClientOrigin, ClientRecord, DecisionRecord};
use crate::authorization_server::refusal::{Refusal, RefusalReason};
use crate::authorization_server::sign_in::RequestShown;
use crate::authorization_server::store::{ActionId, DecisionInsertion, InsertDecision, Insertion};
use crate::entropy::{Ahead, Entropy, draw, text_of};
use crate::evidence::{Authentication, RedirectMatched};
use crate::identifier::{ClientId, ResourceId, Scope, is_loopback_host};
use crate::secret::SecretDigest;
use crate::step::{Failed, Step};
use crate::time::{self, OffsetDateTime};

/// A request with nothing wrong. The host signs the person in and then shows it.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub struct RequestValidated(pub(super) Box<Validated>);

#[derive(Debug)]
pub(super) struct Validated {
    pub(super) client: Arc<ClientRecord>,
    pub(super) answer: Answer,
    pub(super) checked: Checked,
    pub(super) pushed: Option<SecretDigest>,
}

impl Validated {
    /// Whether an earlier consent may stand in for the person (I-P2): only where the client proves who it is, and the
    /// answer goes nowhere that another program on the person's machine could listen. A pushed request is used up by its
    /// page.
    pub(super) fn may_remember(&self) -> bool {
        // OAUTH21-7.3-1, RFC9126-4-2
        self.client.credential.is_confidential()
            && !self.answer.redirect.redirect_uri().is_loopback()
            && self.pushed.is_none()
    }
}

impl RequestValidated {
    /// The evidence for the redirect URI.
    pub fn redirect_matched(&self) -> &RedirectMatched {
        &self.0.answer.redirect
    }

    /// The request, for a page that somebody sees who has not signed in.
    pub fn shown(&self) -> RequestShown {
        let Validated { client, answer, checked, .. } = &*self.0;
        RequestShown {
            resource: Some(checked.resource.clone()),
            scopes: checked.shown.clone(),
            ..RequestShown::new(client.shown(), answer.redirect.redirect_uri())
        }
    }

    /// The person is signed in: what they will be asked is stored first, bound to them and to their browser.
    ///
    /// # Errors
    /// A [`Refusal`] when there is no randomness; nothing was stored.
    pub fn show(
        self,
        person: &Authentication,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Step<InsertDecision, AwaitingDecisionStored>, Refusal> {
        let may_remember = self.0.may_remember();
        let Validated { client, answer, checked, pushed } = *self.0;
        let unavailable = |_| Refusal::new(RefusalReason::Unavailable);
        // OAUTH21-7.7-1, OAUTH21-1.4-2: neither can be guessed. The page is shown whatever was approved before
        // (OAUTH21-7.3-1).
        let entropy = &mut Ahead::<80>::of(entropy);
        let handle = draw(entropy).map_err(unavailable)?;
        let csrf = draw(entropy).map_err(unavailable)?;
        let (handle, csrf) = (text_of(&handle), text_of(&csrf));
        let key = SecretDigest::of(handle.as_bytes());
        let redirect_uri = answer.redirect.redirect_uri().clone();
        let record = DecisionRecord {
            client_id: client.client_id.clone(),
            redirect_uri: redirect_uri.clone(),
            resource: checked.resource.clone(),
            scope: checked.scope,
            state: answer.state,
            challenge: checked.challenge,
            // OAUTH21-3.2.3-6: only where the client registered the grant.
            refresh: client.metadata.uses_grant_type("refresh_token"),
            agent: *person.agent(),
            subject: Arc::clone(person.shared_subject()),
            authenticated: person.authenticated(),
            csrf: SecretDigest::of(csrf.as_bytes()),
            rememberable: may_remember.then(|| client.metadata_digest()),
            not_after: time::after(now, answer.server.lifetimes().decision),
        };
        let redirect_host = redirect_uri.host_for_display();
        let view = ConsentView {
            client: client.shown(),
            client_id: client.client_id.clone(),
            // MCP-SEC-024, MCP-SBP-004
            redirect_host: String::from(redirect_host),
            // MCP-SEC-022: any program on the machine can claim a loopback redirect: the name is worth nothing there.
            redirect_is_loopback: is_loopback_host(redirect_host),
            resource: checked.resource,
            scopes: checked.shown,
            subject: Arc::clone(person.shared_subject()),
            may_remember,
            handle,
            csrf,
        };
        let document = (client.origin == ClientOrigin::MetadataDocument).then_some(client);
        let (insert, id) =
            InsertDecision::new(key, Arc::new(record), document, pushed, entropy).map_err(unavailable)?;
        Ok(Step::new(insert, AwaitingDecisionStored(Box::new((id, view)))))
    }
}

/// Waits until the store holds what the person will be asked.
#[must_use = "the person waits for the page"]
#[derive(Debug)]
pub struct AwaitingDecisionStored(Box<(ActionId, ConsentView)>);

/// What the person is shown.
#[must_use = "the person waits for the page"]
#[derive(Debug)]
pub enum PageOutcome {
    /// The consent page.
    Consent(Box<ConsentView>),
    /// Why there is none.
    Refused(Refusal),
}

impl PageOutcome {
    /// The consent page, or the refusal.
    ///
    /// # Errors
    /// The [`Refusal`] to show instead.
    pub fn into_page(self) -> Result<ConsentView, Refusal> {
        match self {
            Self::Consent(view) => Ok(*view),
            Self::Refused(refusal) => Err(refusal),
        }
    }
}

impl AwaitingDecisionStored {
    /// The store holds it: the page may be shown. Or the pushed request it came of was used before, or
    /// there is no room: the refusal is.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn stored(self, receipt: DecisionInsertion) -> Result<PageOutcome, Failed<Self, ForeignReceipt>> {
        if receipt.id != self.0.0 {
            return Err(Failed::new(ForeignReceipt, self));
        }
        // RFC9126-4-2: single use.
        let refused = |reason| PageOutcome::Refused(Refusal::new(reason));
        Ok(match receipt.outcome {
            Insertion::Done => PageOutcome::Consent(Box::new(self.0.1)),
            Insertion::Refused => refused(RefusalReason::PushedRequest),
            // I-P7: nobody's page makes way for a stranger's.
            Insertion::Full => refused(RefusalReason::Full),
        })
    }

    /// The store failed; nothing is pending.
    pub fn store_failed(self) -> Refusal {
        Refusal::new(RefusalReason::Unavailable)
    }
}

/// A scope as the person is asked about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeShown {
    /// The scope.
    pub scope: Scope,
    /// What it allows, in the operator's words.
    pub words: Arc<str>,
    /// Whether the operator marked it.
    pub is_risky: bool,
}

/// What the consent page shows and what its form sends back.
///
/// Client name and identity are a peer's text: the page escapes them (I-P8).
pub struct ConsentView {
    /// Who asks.
    pub client: ClientShown,
    /// The client's identifier.
    pub client_id: ClientId,
    /// The host the answer goes to: the one thing the client cannot invent.
    pub redirect_host: String,
    /// Whether the answer goes to a program on the person's own machine.
    pub redirect_is_loopback: bool,
    /// What the client wants to reach.
    pub resource: ResourceId,
    /// What it wants to do there.
    pub scopes: Vec<ScopeShown>,
    /// Who is signed in.
    pub subject: Arc<str>,
    /// Whether the person may have the answer remembered.
    pub may_remember: bool,
    /// The handle of the decision, for a hidden field of the form. Secret.
    pub handle: String,
    /// The anti-forgery value, for a hidden field of the form. Secret.
    pub csrf: String,
}

impl fmt::Debug for ConsentView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsentView")
            .field("client_id", &self.client_id)
            .field("redirect_host", &self.redirect_host)
            .field("resource", &self.resource)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}
