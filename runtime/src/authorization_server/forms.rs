//! The anti-forgery value of forms that wait for no record of the store: a digest under a secret of this server, over the
//! browser and the person the page was made for.

use std::fmt;

use mcp_authz::secret::{AgentBinding, SecretDigest};
use mcp_authz::syntax::base64url;
use zeroize::Zeroizing;

/// Makes and knows the values.
pub(super) struct Forms {
    /// `None` when there was no randomness: then no form is taken.
    key: Option<Zeroizing<[u8; 32]>>,
}

impl Forms {
    pub(super) fn new() -> Self {
        let mut key = Zeroizing::new([0_u8; 32]);
        Self { key: getrandom::fill(key.as_mut_slice()).is_ok().then_some(key) }
    }

    pub(super) fn with_key(key: [u8; 32]) -> Self {
        Self { key: Some(Zeroizing::new(key)) }
    }

    fn digest(&self, agent: &AgentBinding, subject: &str) -> Option<SecretDigest> {
        let key = self.key.as_ref()?;
        // Key, browser and label have fixed lengths, so that the parts are told apart. The value is a digest of a digest:
        // nobody can go on from one.
        let inner = SecretDigest::of(
            &[b"mcp-authz form 1".as_slice(), key.as_slice(), &agent.to_bytes(), subject.as_bytes()].concat(),
        );
        Some(SecretDigest::of(&[key.as_slice(), inner.as_bytes()].concat()))
    }

    /// The value for a page made for that person in that browser.
    pub(super) fn token(&self, agent: &AgentBinding, subject: &str) -> String {
        self.digest(agent, subject).map_or_else(String::new, |digest| base64url::encode(digest.as_bytes()))
    }

    /// Whether that is the value, compared in constant time.
    pub(super) fn is_token(&self, agent: &AgentBinding, subject: &str, text: &str) -> bool {
        let presented = base64url::decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let presented = presented.map(SecretDigest::from_bytes);
        // I-G8: no value equals no value.
        presented.is_some_and(|presented| self.digest(agent, subject) == Some(presented))
    }
}

impl fmt::Debug for Forms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forms(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use mcp_authz::secret::AgentBinding;

    use super::Forms;

    // I-P9
    #[test]
    fn a_value_is_for_one_browser_and_one_person_of_one_server() {
        let agent = |n: u8| AgentBinding::session(&[n; 16]).unwrap();
        let forms = Forms::new();
        let token = forms.token(&agent(1), "ann");
        assert!(forms.is_token(&agent(1), "ann", &token));
        assert!(!forms.is_token(&agent(2), "ann", &token));
        assert!(!forms.is_token(&agent(1), "bob", &token));
        assert!(!forms.is_token(&agent(1), "ann", ""));
        assert!(!Forms::new().is_token(&agent(1), "ann", &token));
        let (one, two) = (Forms::with_key([3; 32]), Forms::with_key([3; 32]));
        assert!(two.is_token(&agent(1), "ann", &one.token(&agent(1), "ann")));
    }
}
