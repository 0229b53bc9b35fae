//! Every proof that a check was made: the comparison *is* the constructor, and this file is the only place with
//! access to the fields.
//!
//! Evidence owns what it vouches for; later states read the value only through it, so that evidence of one login
//! cannot serve another. None of these types can be cloned, built from parts, or read from a store.
//!
//! | evidence | vouches for | origin |
//! |---|---|---|
//! | [`ResourceMatched`] | the metadata document is of the resource that was asked for | equality of bytes, RFC 9728 3.3 |
//! | [`IssuerMatched`] | a document or callback is the expected issuer's | equality of bytes, RFC 8414 3.3, RFC 9207 2.4 |
//! | [`CallbackMatched`] | a callback answers the request this state made | agent, redirect URI, `state`, time |
//! | [`NonceMatched`] | an ID token was made for the request this state made | digest, in constant time |
//! | [`RedirectMatched`] | a requested redirect URI is a registered one | equality of bytes, or the loopback port rule |
//! | [`VerifierMatched`] | the code verifier is the challenge's | SHA-256, in constant time |
//! | [`AudienceAccepted`] | a token is meant for this resource server | equality; for a URL scheme and host folded |
//! | [`ConsentGiven`] | the person who was shown a request approved it, in the same browser | host's assertion, checked |

use alloc::sync::Arc;
use core::fmt;

use subtle::ConstantTimeEq as _;

use crate::identifier::{Audience, Issuer, RedirectUri, ResourceId, ScopeSet};
use crate::pkce::CodeChallenge;
use crate::secret::{AgentBinding, CodeVerifier, SecretDigest, State};
use crate::time::OffsetDateTime;

macro_rules! shown {
    ($($name:ident),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )+};
}

/// The metadata document is of the resource that was asked for.
#[derive(Debug)]
pub struct ResourceMatched(ResourceId);

impl ResourceMatched {
    /// The document's resource is, byte for byte, one of the identifiers its URL was built from.
    pub(crate) fn exactly(expected: &[ResourceId], document: &ResourceId) -> Option<Self> {
        // RFC9728-3.3-1, RFC9728-3.3-2, RFC9728-6-1
        expected.contains(document).then(|| Self(document.clone()))
    }

    /// The document's resource is a proper path prefix of the URL asked for: the relaxation
    /// `ResourcePathPrefix` (D1), which the caller has found named for this resource.
    pub(crate) fn by_path_prefix(asked_for: &ResourceId, document: &ResourceId) -> Option<Self> {
        document.is_proper_prefix_of(asked_for).then(|| Self(document.clone()))
    }

    /// No document of the resource exists anywhere, and the resource is the URL the person gave (D2): for a server of
    /// revision 2025-03-26, which the caller has found stated.
    pub(crate) fn without_document(server: &ResourceId, resource: &ResourceId) -> Option<Self> {
        (server == resource).then(|| Self(resource.clone()))
    }

    /// The resource.
    pub fn resource(&self) -> &ResourceId {
        &self.0
    }
}

/// A metadata document, or a callback, is the expected issuer's.
#[derive(Debug)]
pub struct IssuerMatched(Arc<Issuer>);

/// Why a callback's issuer did not match (RFC 9207 section 2.4, MCP authorization response issuer validation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IssuerMismatch {
    /// The server announced that it sends `iss`, and this callback has none.
    Missing,
    /// `iss` is not the recorded issuer.
    Different,
}

impl IssuerMatched {
    /// The document's `issuer` is the identifier its URL was built from, character for character.
    pub(crate) fn by_document(expected: &Issuer, document: &str) -> Option<Self> {
        // MCP-DISC-015, RFC8414-3.3-1: no folding, no trailing slash, no default port.
        (expected.as_str().as_bytes() == document.as_bytes()).then(|| Self(Arc::new(expected.clone())))
    }

    /// The document's `issuer` is the expected one without its lone slash, or with one: the relaxation
    /// `IssuerRootSlash`, which the caller has found named. The document's spelling is kept.
    pub(crate) fn but_for_root_slash(expected: &Issuer, document: &Issuer) -> Option<Self> {
        expected.differs_by_root_slash(document).then(|| Self(Arc::new(document.clone())))
    }

    /// The `iss` of a token, or of the answer about one, is the issuer it was verified for, character for character.
    pub(crate) fn by_token(expected: &Arc<Issuer>, iss: &str) -> Option<Self> {
        // RFC9068-4-2
        (expected.as_str().as_bytes() == iss.as_bytes()).then(|| Self(expected.clone()))
    }

    /// The `iss` of an ID token is this very issuer, character for character.
    pub(crate) fn repeated(&self, iss: &str) -> Option<Self> {
        Self::by_token(&self.0, iss)
    }

    /// The four rows of the callback's `iss`: announced or not, present or not. For error responses too
    /// (MCP-AUTH-039): an error is read only behind this.
    pub(crate) fn by_callback(
        recorded: &Self,
        announced: bool,
        iss: Option<&str>,
    ) -> Result<Self, IssuerMismatch> {
        match (announced, iss) {
            // MCP-AUTH-034, MCP-AUTH-036, MCP-AUTH-038: compared as plain strings, announced or not.
            (_, Some(iss)) if iss.as_bytes() == recorded.0.as_str().as_bytes() => {
                Ok(Self(recorded.0.clone()))
            }
            (_, Some(_)) => Err(IssuerMismatch::Different),
            // MCP-AUTH-035
            (true, None) => Err(IssuerMismatch::Missing),
            // MCP-AUTH-037
            (false, None) => Ok(Self(recorded.0.clone())),
        }
    }

    /// The issuer.
    pub fn issuer(&self) -> &Issuer {
        &self.0
    }
}

/// A callback answers the request its state made: same browser, same redirect URI, same `state`, in time.
#[derive(Debug)]
pub struct CallbackMatched(RedirectUri);

/// What was recorded when the browser was sent away.
#[derive(Debug)]
pub(crate) struct CallbackExpected<'r> {
    pub(crate) agent: &'r AgentBinding,
    pub(crate) redirect_uri: &'r RedirectUri,
    pub(crate) state: &'r SecretDigest,
    pub(crate) not_after: OffsetDateTime,
}

impl CallbackMatched {
    /// Compares everything that ties a callback to its request; one difference, and it is none of ours.
    pub(crate) fn compare(
        expected: &CallbackExpected<'_>,
        agent: &AgentBinding,
        arrived_on: &str,
        state: Option<&State>,
        now: OffsetDateTime,
    ) -> Option<Self> {
        // OAUTH21-2.3.4-1: the same user agent.
        let same_agent = expected.agent == agent;
        // RFC8252-8.10-1: the very redirect URI that was sent, parameters of the response aside.
        let same_place = expected.redirect_uri.without_query() == arrived_on;
        // OAUTH21-2.3.3-1: the one-time state, by digest and in constant time.
        let same_state = state.is_some_and(|state| state.digest() == *expected.state);
        let in_time = now < expected.not_after;
        (same_agent && same_place && same_state && in_time).then(|| Self(expected.redirect_uri.clone()))
    }

    /// The redirect URI it arrived on: the one to name in the token request (D14).
    pub fn redirect_uri(&self) -> &RedirectUri {
        &self.0
    }
}

/// An ID token was made for the request whose nonce it repeats.
#[derive(Debug)]
pub struct NonceMatched(SecretDigest);

impl NonceMatched {
    /// Compares digests in constant time; an empty nonce matches nothing.
    pub(crate) fn compare(expected: &SecretDigest, presented: &str) -> Option<Self> {
        // OIDCC-3.1.3.7-9
        let presented = (!presented.is_empty()).then(|| SecretDigest::of(presented.as_bytes()))?;
        (presented == *expected).then_some(Self(presented))
    }

    /// The digest of the nonce.
    pub fn digest(&self) -> &SecretDigest {
        &self.0
    }
}

/// A requested redirect URI is one the client registered.
#[derive(Debug)]
pub struct RedirectMatched(RedirectUri);

impl RedirectMatched {
    /// Equal bytes, or the loopback port rule; the *requested* URI is what is vouched for.
    pub(crate) fn compare(registered: &[RedirectUri], requested: &RedirectUri) -> Option<Self> {
        // OAUTH21-2.3.1-2, OAUTH21-4.1.1-11, MCP-SEC-008 (I-R1, I-R2)
        registered.iter().any(|known| known.matches(requested)).then(|| Self(requested.clone()))
    }

    /// The redirect URI to answer to.
    pub fn redirect_uri(&self) -> &RedirectUri {
        &self.0
    }
}

/// The code verifier belongs to the challenge the code was issued for.
#[derive(Debug)]
pub struct VerifierMatched(CodeChallenge);

impl VerifierMatched {
    /// Hashes the verifier and compares 32 bytes in constant time.
    pub(crate) fn compare(challenge: &CodeChallenge, verifier: &CodeVerifier) -> Option<Self> {
        // OAUTH21-4.1.3-6 (I-C2); the verifier's grammar was checked when its type was made (I-C7).
        let presented = CodeChallenge::of(verifier);
        bool::from(presented.as_bytes().ct_eq(challenge.as_bytes())).then_some(Self(presented))
    }

    /// The challenge it answered.
    pub fn challenge(&self) -> &CodeChallenge {
        &self.0
    }
}

/// A token is meant for this resource server: one of its audiences is accepted here of its issuer.
#[derive(Debug)]
pub struct AudienceAccepted(Arc<Audience>);

impl AudienceAccepted {
    /// Looks for an accepted audience among those the token claims; none of either matches nothing.
    pub(crate) fn compare<'c, C>(accepted: &[Arc<Audience>], claimed: C) -> Option<Self>
    where
        C: Iterator<Item = &'c str> + Clone,
    {
        // RFC9068-4-3, MCP-AUTH-074, MCP-AUTH-057 (I-A1)
        let accepted = accepted.iter().find(|own| claimed.clone().any(|claimed| own.equals(claimed)));
        accepted.map(|own| Self(Arc::clone(own)))
    }

    /// The audience, in the configured spelling.
    pub fn audience(&self) -> &Audience {
        &self.0
    }
}

/// The host's word that a person is signed in, in the browser that sent this request.
///
/// Make one only after the host's own check of the session (OAuth 2.1 section 3.1).
#[derive(Debug, Clone)]
pub struct Authentication {
    subject: alloc::sync::Arc<str>,
    agent: AgentBinding,
    authenticated: OffsetDateTime,
}

impl Authentication {
    /// `subject` signed in at `authenticated`, fully (every factor), and sits before the browser `agent`. `None` for an
    /// empty subject: nobody is nobody. `None` for a binding that is no browser session: it would be equal for all.
    pub fn assertion(
        subject: impl Into<alloc::sync::Arc<str>>,
        agent: AgentBinding,
        authenticated: OffsetDateTime,
    ) -> Option<Self> {
        let subject = subject.into();
        // OAUTH21-3.1-1, I-P9
        let in_a_browser = agent != AgentBinding::this_process();
        (!subject.is_empty() && in_a_browser).then_some(Self { subject, agent, authenticated })
    }

    /// Who.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Who, for a record.
    pub(crate) fn shared_subject(&self) -> &alloc::sync::Arc<str> {
        &self.subject
    }

    /// In which browser.
    pub fn agent(&self) -> &AgentBinding {
        &self.agent
    }

    /// Since when.
    pub fn authenticated(&self) -> OffsetDateTime {
        self.authenticated
    }
}

/// The host's word that a person approved what was shown to them.
///
/// Make one only in the request in which the person pressed the button, and only after the host's own check that the
/// session is this person's (OAuth 2.1 section 3.1).
#[derive(Debug)]
pub struct Approval {
    subject: alloc::sync::Arc<str>,
    agent: AgentBinding,
    scopes: ScopeSet,
    remembered: bool,
}

impl Approval {
    /// `subject` pressed approve in the browser `agent`, for these scopes (the person may have unticked some).
    pub fn assertion(
        subject: impl Into<alloc::sync::Arc<str>>,
        agent: AgentBinding,
        scopes: ScopeSet,
    ) -> Self {
        Self { subject: subject.into(), agent, scopes, remembered: false }
    }

    /// The person also asked not to be asked the same again. It counts only where the page offered it.
    #[must_use]
    pub fn remembered(self) -> Self {
        Self { remembered: true, ..self }
    }

    /// Whether the person asked not to be asked the same again.
    pub fn is_remembered(&self) -> bool {
        self.remembered
    }

    /// Who approved.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// In which browser.
    pub fn agent(&self) -> &AgentBinding {
        &self.agent
    }

    /// For which scopes.
    pub fn scopes(&self) -> &ScopeSet {
        &self.scopes
    }
}

/// The person who was shown a request approved it, in the browser it was shown in.
#[derive(Debug)]
pub struct ConsentGiven(ScopeSet);

/// What was recorded when the request was shown.
#[derive(Debug)]
pub(crate) struct ConsentExpected<'r> {
    pub(crate) subject: &'r str,
    pub(crate) agent: &'r AgentBinding,
    pub(crate) csrf: &'r SecretDigest,
    pub(crate) scopes: &'r ScopeSet,
    pub(crate) not_after: OffsetDateTime,
}

/// One side of the comparison of a request with a remembered consent.
#[derive(Debug)]
pub(crate) struct ConsentRemembered<'r> {
    /// The digest of person, client, redirect URI, resource and client metadata.
    pub(crate) key: SecretDigest,
    pub(crate) scopes: &'r ScopeSet,
    /// How often client, person and consent were revoked.
    pub(crate) epochs: [u64; 3],
}

impl ConsentGiven {
    /// Compares the approval with what was shown: same person, same browser, the form's one-time value, in time,
    /// and no scope that was not shown.
    pub(crate) fn compare(
        expected: &ConsentExpected<'_>,
        approval: &Approval,
        csrf: &SecretDigest,
        now: OffsetDateTime,
    ) -> Option<Self> {
        // I-P9, MCP-SBP-005, OAUTH21-3.1-1
        let same_person =
            !approval.subject.is_empty() && approval.subject.as_bytes() == expected.subject.as_bytes();
        let same_agent = approval.agent == *expected.agent;
        let same_form = csrf == expected.csrf;
        let in_time = now < expected.not_after;
        let within = approval.scopes.is_subset_of(expected.scopes);
        (same_person && same_agent && same_form && in_time && within).then(|| Self(approval.scopes.clone()))
    }

    /// Compares a request with what the person wanted remembered: the identical person, client, redirect URI, resource
    /// and client metadata, no scope beyond, nothing revoked since, in time (I-P2).
    ///
    /// The epochs of `expected` are today's. The caller has found that the client proves who it is.
    pub(crate) fn remembered(
        expected: &ConsentRemembered<'_>,
        record: &ConsentRemembered<'_>,
        not_after: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Option<Self> {
        let same = record.key == expected.key;
        let within = !expected.scopes.is_empty() && expected.scopes.is_subset_of(record.scopes);
        let unrevoked = record.epochs == expected.epochs;
        (same && within && unrevoked && now < not_after).then(|| Self(expected.scopes.clone()))
    }

    /// The approved scopes.
    pub fn scopes(&self) -> &ScopeSet {
        &self.0
    }
}

/// The host's word that an authorization server may be used for a resource (D36).
///
/// A hostile resource can name an honest authorization server; show resource host, issuer host and scopes to the
/// person, or look the pair up in configuration, before making one. Where a store keeps
/// [`PairingRecord`](crate::client::PairingRecord)s, the word is given once.
#[derive(Debug)]
pub struct IssuerForResource {
    resource: ResourceId,
    issuer: Issuer,
}

impl IssuerForResource {
    /// `issuer` may issue tokens for `resource`.
    pub fn assertion(resource: ResourceId, issuer: Issuer) -> Self {
        Self { resource, issuer }
    }

    /// Whether it speaks of this pair.
    pub fn is_for(&self, resource: &ResourceId, issuer: &Issuer) -> bool {
        self.resource == *resource && self.issuer == *issuer
    }
}

shown!(ResourceMatched, IssuerMatched, CallbackMatched, RedirectMatched, AudienceAccepted, ConsentGiven);

impl fmt::Display for VerifierMatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("S256(code_verifier) = code_challenge")
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::{
        AgentBinding, Approval, Audience, AudienceAccepted, Authentication, CallbackExpected,
        CallbackMatched, CodeChallenge, CodeVerifier, ConsentExpected, ConsentGiven, ConsentRemembered,
        Issuer, IssuerForResource, IssuerMatched, IssuerMismatch, OffsetDateTime, RedirectMatched,
        RedirectUri, ResourceId, ResourceMatched, ScopeSet, SecretDigest, State, VerifierMatched,
    };
    use crate::identifier::Scope;
    use crate::time::Duration;

    fn issuer(text: &str) -> Issuer {
        Issuer::new(text).unwrap()
    }

    fn matched(text: &str) -> IssuerMatched {
        IssuerMatched::by_document(&issuer(text), text).unwrap()
    }

    fn resource(text: &str) -> ResourceId {
        ResourceId::new(text).unwrap()
    }

    // MCP-DISC-015, I-L1
    #[test]
    fn a_documents_issuer_is_compared_character_by_character() {
        let expected = issuer("https://as.example/a");
        assert!(IssuerMatched::by_document(&expected, "https://as.example/a").is_some());
        for text in [
            "https://as.example/a/",
            "https://AS.example/a",
            "https://as.example:443/a",
            "https://as.example/%61",
            "",
        ] {
            assert!(IssuerMatched::by_document(&expected, text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_root_slash_is_forgiven_only_at_the_root() {
        let forgiven = |a: &str, b: &str| IssuerMatched::but_for_root_slash(&issuer(a), &issuer(b)).is_some();
        assert!(forgiven("https://as.example/", "https://as.example"));
        assert!(forgiven("https://as.example", "https://as.example/"));
        assert!(!forgiven("https://as.example/a", "https://as.example/a/"));
        assert!(!forgiven("https://as.example/", "https://as.example2"));
        assert!(!forgiven("https://as.example", "https://as.example//"));
    }

    // MCP-AUTH-034 to MCP-AUTH-038: the four rows.
    #[test]
    fn the_callbacks_issuer_follows_the_four_rows() {
        let recorded = matched("https://as.example");
        let row = |announced, iss| IssuerMatched::by_callback(&recorded, announced, iss).map(|_| ());
        assert_eq!(row(true, Some("https://as.example")), Ok(()));
        assert_eq!(row(false, Some("https://as.example")), Ok(()));
        assert_eq!(row(false, None), Ok(()));
        assert_eq!(row(true, None), Err(IssuerMismatch::Missing));
        for announced in [true, false] {
            for iss in [
                "https://evil.example",
                "https://as.example/",
                "https://AS.example",
                "https://as.example:443",
                "x",
            ] {
                assert_eq!(row(announced, Some(iss)), Err(IssuerMismatch::Different), "{iss}");
            }
        }
    }

    // RFC9728-3.3-1, RFC9728-3.3-2, I-L2
    #[test]
    fn a_documents_resource_is_one_of_those_its_url_was_built_from() {
        let expected = [resource("https://h.example/mcp")];
        assert!(ResourceMatched::exactly(&expected, &resource("https://h.example/mcp")).is_some());
        for text in
            ["https://h.example", "https://h.example/mcp/", "https://H.example/mcp", "https://g.example/mcp"]
        {
            assert!(ResourceMatched::exactly(&expected, &resource(text)).is_none(), "{text}");
        }
        assert!(ResourceMatched::exactly(&[], &resource("https://h.example")).is_none());
        assert!(ResourceMatched::by_path_prefix(&expected[0], &resource("https://h.example")).is_some());
        assert!(ResourceMatched::by_path_prefix(&expected[0], &resource("https://g.example")).is_none());
    }

    // I-A1, RFC9068-4-3
    #[test]
    fn a_token_without_an_accepted_audience_is_meant_for_somebody_else() {
        let own = ["https://h.example/mcp", "api://x"].map(|text| Arc::new(Audience::new(text).unwrap()));
        let compare = |own: &[Arc<Audience>], claimed: &[&str]| {
            let accepted = AudienceAccepted::compare(own, claimed.iter().copied());
            accepted.map(|it| String::from(it.audience().as_str()))
        };
        assert_eq!(compare(&own, &["a", "HTTPS://H.example/mcp"]).as_deref(), Some("https://h.example/mcp"));
        assert_eq!(compare(&own, &["api://x"]).as_deref(), Some("api://x"));
        assert!(compare(&own, &["https://h.example", "API://x", ""]).is_none());
        assert!(compare(&own, &[]).is_none());
        assert!(compare(&[], &["https://h.example/mcp", ""]).is_none());
    }

    // RFC9068-4-2
    #[test]
    fn a_tokens_issuer_is_compared_character_by_character() {
        let expected = Arc::new(issuer("https://as.example"));
        assert!(IssuerMatched::by_token(&expected, "https://as.example").is_some());
        for text in ["https://as.example/", "HTTPS://as.example", "https://AS.example", ""] {
            assert!(IssuerMatched::by_token(&expected, text).is_none(), "{text}");
        }
    }

    // I-R1
    #[test]
    fn what_is_vouched_for_is_the_requested_uri() {
        let registered = [RedirectUri::new("http://127.0.0.1/cb").unwrap()];
        let requested = RedirectUri::new("http://127.0.0.1:4711/cb").unwrap();
        assert_eq!(RedirectMatched::compare(&registered, &requested).unwrap().redirect_uri(), &requested);
        assert!(RedirectMatched::compare(&[], &requested).is_none());
        let other = RedirectUri::new("http://127.0.0.1:4711/cb2").unwrap();
        assert!(RedirectMatched::compare(&registered, &other).is_none());
    }

    const SECONDS: Duration = Duration::SECOND;

    fn agent(n: u8) -> AgentBinding {
        AgentBinding::session(&[n; 16]).unwrap()
    }

    // I-L4, I-C8: everything is compared, and one difference is enough.
    #[test]
    fn a_callback_that_differs_in_one_thing_is_not_ours() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let redirect_uri = RedirectUri::new("http://127.0.0.1:1/cb?x=1").unwrap();
        let state = State::new("s".repeat(43)).unwrap();
        let own = agent(1);
        let digest = state.digest();
        let expected = CallbackExpected {
            agent: &own,
            redirect_uri: &redirect_uri,
            state: &digest,
            not_after: now + SECONDS,
        };
        let place = "http://127.0.0.1:1/cb";
        let compare = |agent: &AgentBinding, place: &str, state: Option<&State>, now| {
            CallbackMatched::compare(&expected, agent, place, state, now).is_some()
        };
        assert!(compare(&own, place, Some(&state), now));
        assert!(!compare(&agent(2), place, Some(&state), now));
        assert!(!compare(&AgentBinding::this_process(), place, Some(&state), now));
        assert!(!compare(&own, "http://127.0.0.1:1/cb/", Some(&state), now));
        assert!(!compare(&own, "http://127.0.0.1:2/cb", Some(&state), now));
        assert!(!compare(&own, place, Some(&State::new("other").unwrap()), now));
        assert!(!compare(&own, place, None, now));
        assert!(!compare(&own, place, Some(&state), now + SECONDS));
    }

    // I-P9, MCP-SBP-005
    #[test]
    fn consent_that_differs_in_one_thing_is_none() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let (own, csrf) = (agent(1), SecretDigest::of(b"csrf"));
        let scopes = ScopeSet::parse("read write").unwrap();
        let expected = ConsentExpected {
            subject: "ann",
            agent: &own,
            csrf: &csrf,
            scopes: &scopes,
            not_after: now + SECONDS,
        };
        let compare = |subject: &str, agent: AgentBinding, csrf: &SecretDigest, scopes: &str, now| {
            let approval = Approval::assertion(subject, agent, ScopeSet::parse(scopes).unwrap());
            ConsentGiven::compare(&expected, &approval, csrf, now).is_some()
        };
        assert!(compare("ann", own, &csrf, "read", now));
        assert!(!compare("bob", own, &csrf, "read", now));
        assert!(!compare("", own, &csrf, "read", now));
        assert!(!compare("ann", agent(2), &csrf, "read", now));
        assert!(!compare("ann", own, &SecretDigest::of(b"other"), "read", now));
        assert!(!compare("ann", own, &csrf, "read admin", now));
        assert!(!compare("ann", own, &csrf, "read", now + SECONDS));
    }

    #[test]
    fn an_empty_subject_never_consents() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let (own, csrf, scopes) = (agent(1), SecretDigest::of(b"csrf"), ScopeSet::new());
        let expected = ConsentExpected {
            subject: "",
            agent: &own,
            csrf: &csrf,
            scopes: &scopes,
            not_after: now + SECONDS,
        };
        let approval = Approval::assertion("", own, ScopeSet::new());
        assert!(ConsentGiven::compare(&expected, &approval, &csrf, now).is_none());
    }

    // I-P2
    #[test]
    fn a_remembered_consent_that_differs_in_one_thing_is_none() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let scopes = |text: &str| text.split_whitespace().map(|s| Scope::new(s).unwrap()).collect();
        let compare = |key: &[u8], asked: &str, epochs, not_after| {
            let (asked, kept): (ScopeSet, ScopeSet) = (scopes(asked), scopes("read write"));
            let key = SecretDigest::of(key);
            let expected = ConsentRemembered { key, scopes: &asked, epochs };
            let key = SecretDigest::of(b"key");
            let record = ConsentRemembered { key, scopes: &kept, epochs: [1, 2, 3] };
            ConsentGiven::remembered(&expected, &record, not_after, now).map(|given| given.scopes().clone())
        };
        let later = now + SECONDS;
        assert_eq!(compare(b"key", "read", [1, 2, 3], later), Some(scopes("read")));
        assert_eq!(compare(b"another", "read", [1, 2, 3], later), None);
        assert_eq!(compare(b"key", "", [1, 2, 3], later), None);
        assert_eq!(compare(b"key", "read admin", [1, 2, 3], later), None);
        for epochs in [[2, 2, 3], [1, 3, 3], [1, 2, 4]] {
            assert_eq!(compare(b"key", "read", epochs, later), None, "{epochs:?}");
        }
        assert_eq!(compare(b"key", "read", [1, 2, 3], now), None);
    }

    // OAUTH21-3.1-1, I-P9, I-G8
    #[test]
    fn a_person_is_somebody_in_a_browser() {
        let now = OffsetDateTime::UNIX_EPOCH;
        assert!(Authentication::assertion("ann", agent(1), now).is_some());
        assert!(Authentication::assertion("", agent(1), now).is_none());
        assert!(Authentication::assertion("ann", AgentBinding::this_process(), now).is_none());
    }

    // D2
    #[test]
    fn without_a_document_the_resource_is_the_url_that_was_given() {
        let (given, other) = (resource("https://h.example/mcp"), resource("https://h.example/other"));
        assert!(ResourceMatched::without_document(&given, &given).is_some());
        assert!(ResourceMatched::without_document(&given, &other).is_none());
    }

    // D36
    #[test]
    fn an_assertion_speaks_of_one_pair_only() {
        let (h, g) = (resource("https://h.example"), resource("https://g.example"));
        let (a, b) = (issuer("https://a.example"), issuer("https://b.example"));
        let assertion = IssuerForResource::assertion(h.clone(), a.clone());
        assert!(assertion.is_for(&h, &a));
        assert!(!assertion.is_for(&g, &a) && !assertion.is_for(&h, &b) && !assertion.is_for(&g, &b));
    }

    proptest! {
        // I-C2, I-C7, I-C8: the verifier of the challenge matches, and one changed character does not.
        #[test]
        fn only_the_verifier_of_the_challenge_matches(
            text in "[A-Za-z0-9._~-]{43,128}", at in any::<proptest::sample::Index>(), other in "[A-Za-z0-9._~-]",
        ) {
            let verifier = CodeVerifier::new(text.as_str()).unwrap();
            let challenge = CodeChallenge::of(&verifier);
            prop_assert!(VerifierMatched::compare(&challenge, &verifier).is_some());
            let mut changed: Vec<char> = text.chars().collect();
            let at = at.index(changed.len());
            changed[at] = other.chars().next().unwrap();
            let changed: String = changed.into_iter().collect();
            let matches = VerifierMatched::compare(&challenge, &CodeVerifier::new(changed.as_str()).unwrap()).is_some();
            prop_assert_eq!(matches, changed == text);
            if let Ok(longer) = CodeVerifier::new(format!("{text}a")) {
                prop_assert!(VerifierMatched::compare(&challenge, &longer).is_none());
            }
        }
    }
}
