//! Whose grant a read found: the host asks whether that person is still one of its own before anything follows (I-T4).

use super::{AccessFound, CodeFound, FoundState, GrantFound, RefreshFound};

impl CodeFound {
    /// The person of the code's grant, if the code is there.
    pub fn subject(&self) -> Option<&str> {
        match &self.state {
            FoundState::Live(record) | FoundState::Used(record) => Some(&*record.grant.subject),
            FoundState::Absent => None,
        }
    }

    /// The person is no longer known: a code that was not used counts as none. A used one stays used, so that its replay
    /// still ends the family.
    pub fn withheld(self) -> Self {
        Self { state: self.state.withheld(), ..self }
    }
}

impl RefreshFound {
    /// The person of the token's grant, if the token is there.
    pub fn subject(&self) -> Option<&str> {
        match &self.state {
            FoundState::Live(record) | FoundState::Used(record) => Some(&*record.grant.subject),
            FoundState::Absent => None,
        }
    }

    /// The person is no longer known: a live token counts as none, and no answer is repeated for a retired one.
    pub fn withheld(self) -> Self {
        Self { state: self.state.withheld(), retirement: None, ..self }
    }
}

impl AccessFound {
    /// The person of the token's grant, if the token is there.
    pub fn subject(&self) -> Option<&str> {
        self.record.as_ref().map(|record| &*record.grant.subject)
    }

    /// The person is no longer known: the token counts as none.
    pub fn withheld(self) -> Self {
        Self { record: None, ..self }
    }
}

impl GrantFound {
    /// The person of the grant, if it stands.
    pub fn subject(&self) -> Option<&str> {
        self.record.as_ref().map(|record| &*record.subject)
    }

    /// The person is no longer known: the grant counts as ended.
    pub fn withheld(self) -> Self {
        Self { record: None, ..self }
    }
}

impl<R> FoundState<R> {
    fn withheld(self) -> Self {
        match self {
            Self::Live(_) | Self::Absent => Self::Absent,
            Self::Used(record) => Self::Used(record),
        }
    }
}

#[cfg(all(test, feature = "test-kit"))]
mod tests {
    use alloc::string::String;
    use alloc::sync::Arc;

    use super::{FoundState, RefreshFound};
    use crate::authorization_server::record::{Epochs, FamilyId, RefreshRecord};
    use crate::authorization_server::store::Retirement;
    use crate::authorization_server::test_kit::{sample_grant, sample_refresh};
    use crate::secret::SecretDigest;
    use crate::time::OffsetDateTime;

    fn found(state: fn(Arc<RefreshRecord>) -> FoundState<Arc<RefreshRecord>>) -> RefreshFound {
        let now = OffsetDateTime::UNIX_EPOCH;
        let digest = SecretDigest::of(b"token");
        let grant = sample_grant(FamilyId::from_bytes([1; 16]), "c", "ann", Epochs::default(), now).unwrap();
        let retirement = Retirement { at: now, request: digest, repeats: 0, successor_unused: true };
        let record = Arc::new(sample_refresh(grant, 0));
        RefreshFound { digest, state: state(record), retirement: Some(retirement), now }
    }

    // I-T3, I-T4: no answer is repeated for a person who is gone, and reuse is still noticed.
    #[test]
    fn a_retired_token_of_somebody_removed_is_reuse_and_nothing_else() {
        let live = found(FoundState::Live);
        assert_eq!(live.subject().map(String::from).as_deref(), Some("ann"));
        assert!(matches!(live.withheld().state, FoundState::Absent));
        let retired = found(FoundState::Used).withheld();
        assert!(matches!(retired.state, FoundState::Used(_)) && retired.retirement.is_none());
    }
}
