//! What the person wanted remembered, in place of the page: only for the identical request of a client that proves who
//! it is (I-P2).

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::page::{RequestValidated, Validated};
use crate::authorization_server::decision::{Approved, AwaitingCodeStored};
use crate::authorization_server::record::{ConsentRecord, Epochs};
use crate::authorization_server::refusal::{Refusal, RefusalReason};
use crate::authorization_server::store::{Basis, ConsentFound, DecideOnce, ReadConsent};
use crate::entropy::Entropy;
use crate::evidence::{Authentication, ConsentGiven, ConsentRemembered};
use crate::step::Step;
use crate::time::OffsetDateTime;

impl RequestValidated {
    /// The person is signed in, and may have wanted the answer to this very request remembered: that is read first. A request
    /// with a `prompt` is shown.
    ///
    /// The host does not call it for a client of a metadata document that its store does not know: the page writes it down.
    pub fn recall(self, person: &Authentication) -> Recall {
        if !self.0.may_remember() || self.0.checked.wants_page {
            return Recall::Ask(self);
        }
        let read = ReadConsent::new(self.0.consent_of(person).key());
        Recall::Read(Step::new(read, AwaitingConsent(Box::new((self, person.clone())))))
    }
}

impl Validated {
    /// The remembered consent of this very request, as far as it can be known before it is read.
    fn consent_of(&self, person: &Authentication) -> ConsentRecord {
        ConsentRecord {
            subject: Arc::clone(person.shared_subject()),
            client_id: self.client.client_id.clone(),
            redirect_uri: self.answer.redirect.redirect_uri().clone(),
            resource: self.checked.resource.clone(),
            metadata_digest: self.client.metadata_digest(),
            scope: self.checked.scope.clone(),
            epochs: Epochs::default(),
            not_after: person.authenticated(),
        }
    }
}

/// Whether an earlier answer may stand in for the person.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub enum Recall {
    /// It may: it is read.
    Read(Step<ReadConsent, AwaitingConsent>),
    /// It may not: the person is asked.
    Ask(RequestValidated),
}

/// Waits for what the person wanted remembered.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub struct AwaitingConsent(Box<(RequestValidated, Authentication)>);

/// What the memory came to.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub enum Recalled {
    /// The person agreed to all of this before: the code is stored.
    Remembered(Step<DecideOnce, AwaitingCodeStored>),
    /// The person is asked.
    Ask(RequestValidated, Authentication),
    /// Show this.
    Refused(Refusal),
}

impl AwaitingConsent {
    /// The store has looked for it.
    pub fn found(self, found: ConsentFound, entropy: &mut dyn Entropy) -> Recalled {
        let (request, person) = *self.0;
        let expected = request.0.consent_of(&person);
        let Some((record, epochs)) = found.record.filter(|_| found.key == expected.key()) else {
            return Recalled::Ask(request, person);
        };
        let Some(consent) = remembered(&expected, &record, epochs, found.now) else {
            return Recalled::Ask(request, person);
        };
        let Validated { client, answer, checked, .. } = *request.0;
        let approved = Approved {
            client_id: client.client_id.clone(),
            subject: record.subject,
            resource: checked.resource,
            redirect_uri: answer.redirect.redirect_uri().clone(),
            challenge: checked.challenge,
            refresh: client.metadata.uses_grant_type("refresh_token"),
            authenticated: person.authenticated(),
            epochs,
        };
        let basis = Basis::Remembered(found.key);
        match approved.take(answer, basis, Some(consent), None, found.now, entropy) {
            Ok(step) => Recalled::Remembered(step),
            Err(refusal) => Recalled::Refused(refusal),
        }
    }

    /// The store could not be read.
    pub fn store_failed(self) -> Refusal {
        Refusal::new(RefusalReason::Unavailable)
    }
}

fn remembered(
    expected: &ConsentRecord,
    record: &ConsentRecord,
    today: Epochs,
    now: OffsetDateTime,
) -> Option<ConsentGiven> {
    fn side(consent: &ConsentRecord, epochs: Epochs) -> ConsentRemembered<'_> {
        let epochs = [epochs.client, epochs.subject, epochs.consent];
        ConsentRemembered { key: consent.key(), scopes: &consent.scope, epochs }
    }
    ConsentGiven::remembered(&side(expected, today), &side(record, record.epochs), record.not_after, now)
}
