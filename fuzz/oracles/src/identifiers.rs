//! Identifiers, the comparisons between them, and PKCE, against second opinions.

use mcp_authz::identifier::{
    ClientMetadataUrl, Endpoint, Issuer, RedirectUri, ResourceId, ScopeSet, address,
};
use mcp_authz::pkce::CodeChallenge;
use mcp_authz::secret::CodeVerifier;

fn halves(data: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(data).ok()?.split_once('\n')
}

/// What is accepted keeps its bytes, and both URL readings agree on it (I-R3, I-L6).
pub fn redirect(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(uri) = RedirectUri::new(text) {
        assert_eq!(uri.as_str(), text, "the text was changed");
        let parsed = url::Url::parse(text).expect("the WHATWG reader takes it");
        assert!(matches!(parsed.scheme(), "https" | "http"), "a scheme that is no web address");
        assert!(parsed.username().is_empty() && parsed.password().is_none() && parsed.fragment().is_none());
        assert_eq!(
            parsed.host_str().unwrap_or_default(),
            uri.host_for_display().to_ascii_lowercase(),
            "two hosts"
        );
        if parsed.scheme() == "http" {
            assert!(
                matches!(parsed.host_str(), Some("127.0.0.1" | "localhost" | "[::1]")),
                "plain http leaves the machine"
            );
        }
        let emitted = uri.with_parameters([("code", "c d"), ("state", "s&"), ("iss", "https://as.example")]);
        if let Ok(emitted) = emitted {
            assert!(emitted.starts_with(text), "the registered bytes were changed");
            let parsed = url::Url::parse(&emitted).expect("what is emitted is a URL");
            for (name, value) in [("code", "c d"), ("state", "s&"), ("iss", "https://as.example")] {
                let values: Vec<_> = parsed.query_pairs().filter(|(known, _)| known == name).collect();
                assert!(values.len() == 1 && values[0].1 == value, "a parameter is not there exactly once");
            }
        }
    }
    if let Ok(endpoint) = Endpoint::new(text) {
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()) && endpoint.as_str() == text);
    }
    if let Ok(issuer) = Issuer::new(text) {
        assert!(issuer.as_str() == text && !text.contains(['?', '#']));
        let own = url::Url::parse(text).expect("an issuer is a URL");
        assert!(own.username().is_empty() && own.password().is_none(), "user information in an issuer");
        for url in issuer.metadata_urls() {
            let url = url::Url::parse(&url).expect("a URL");
            assert_eq!(url.origin(), own.origin(), "metadata on another origin");
        }
    }
    if let Ok(url) = ClientMetadataUrl::new(text) {
        let path = text.split('?').next().unwrap_or_default();
        assert!(url.as_str() == text && !path.contains("/../") && !path.contains("/./"));
    }
    if let Ok(scopes) = ScopeSet::parse(text) {
        assert_eq!(ScopeSet::parse(&scopes.to_string()), Ok(scopes), "scopes read differently");
    }
}

/// A request URL that a resource covers is on its origin and below its path in the WHATWG reading too (I-A2, I-L7).
pub fn resource(data: &[u8]) {
    let Some((resource, request)) = halves(data) else { return };
    let Ok(resource) = ResourceId::new(resource) else { return };
    if resource.covers(request) {
        let (own, other) =
            (url::Url::parse(resource.as_str()).expect("a URL"), url::Url::parse(request).expect("a URL"));
        assert_eq!(own.origin(), other.origin(), "another origin is covered");
        let base = own.path().trim_end_matches('/');
        let rest = other.path().strip_prefix(base).expect("a path below");
        assert!(rest.is_empty() || rest.starts_with('/'), "a path beside is covered");
        assert!(other.username().is_empty() && other.fragment().is_none());
        assert!(!other.path().to_ascii_lowercase().contains("%2e") && !other.path().contains("//"));
    }
    if resource.equals_audience(request) {
        let same = url::Url::parse(resource.as_str()).ok() == url::Url::parse(request).ok();
        assert!(same, "an audience of another resource");
    }
    if let Some(address) = address::literal(resource.host()) {
        let local = address.is_loopback() || address.is_unspecified() || address.is_multicast();
        assert!(!(local && address::is_public(address)), "a local address counts as public");
    }
}

/// Verifier and challenge: the grammar and the digest, against a straightforward reading (I-C5, I-C7).
pub fn pkce(data: &[u8]) {
    let Some((verifier, challenge)) = halves(data) else { return };
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let well_formed = (43..=128).contains(&verifier.len()) && verifier.bytes().all(unreserved);
    let parsed = CodeVerifier::new(verifier);
    assert_eq!(parsed.is_ok(), well_formed, "the verifier's grammar");
    let claimed = CodeChallenge::parse(challenge);
    if let Ok(claimed) = &claimed {
        assert_eq!(claimed.to_text(), challenge, "two texts of one challenge");
    }
    if let (Ok(verifier), Ok(claimed)) = (parsed, claimed) {
        let own = CodeChallenge::of(&verifier);
        assert_eq!(
            own.to_text() == challenge,
            own.as_bytes() == claimed.as_bytes(),
            "text and bytes disagree"
        );
    }
}
