//! Acceptance of signed tokens against an independent implementation: whatever the resource server takes,
//! `jsonwebtoken` takes as well. It may take more; the core is the stricter of the two by intent.

use std::sync::LazyLock;

use jsonwebtoken::{DecodingKey, Validation};
use mcp_authz::identifier::{Issuer, ResourceId};
use mcp_authz::jose::{Algorithm, KeyImporter as _, KeySet, PublicKey};
use mcp_authz::message::exchange::RequestHead;
use mcp_authz::resource_server::{RequiredScopes, ResourceServer, TrustedIssuer, VerificationOutcome};
use mcp_authz::syntax::base64url;
use mcp_authz::time::OffsetDateTime;
use mcp_authz_bench::{ISSUER, RESOURCE, sign};
use mcp_authz_tokio::keys::{AwsLcImporter, SigningKey};
use proptest::prelude::*;

/// One issuer with one key, known to both.
struct Both {
    key: SigningKey,
    server: ResourceServer,
    decoding: DecodingKey,
    validation: Validation,
    now: i64,
}

static EACH: LazyLock<Vec<Both>> = LazyLock::new(|| {
    let both = |algorithm, theirs| {
        let key = SigningKey::generate(algorithm).unwrap();
        let verifier = AwsLcImporter.import(key.jwk()).unwrap();
        let keys = KeySet::new([(Some("k1".to_owned()), verifier)]).unwrap();
        let trusted = TrustedIssuer::with_keys(Issuer::new(ISSUER).unwrap(), keys);
        let decoding = match key.jwk().key() {
            PublicKey::Ed25519 { x } => DecodingKey::from_ed_components(&base64url::encode(x)),
            PublicKey::P256 { x, y } => {
                DecodingKey::from_ec_components(&base64url::encode(x), &base64url::encode(y))
            }
            PublicKey::P384 { x, y } => {
                DecodingKey::from_ec_components(&base64url::encode(x), &base64url::encode(y))
            }
            PublicKey::Rsa { n, e } => {
                DecodingKey::from_rsa_components(&base64url::encode(n), &base64url::encode(e))
            }
            other => panic!("{other:?}"),
        };
        let mut validation = Validation::new(theirs);
        validation.set_audience(&[RESOURCE]);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = 30;
        Both {
            key,
            server: ResourceServer::new(ResourceId::new(RESOURCE).unwrap(), [trusted]).unwrap(),
            decoding: decoding.unwrap(),
            validation,
            // It reads the system's clock, so the tokens follow that.
            now: std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().try_into().unwrap(),
        }
    };
    vec![
        both(Algorithm::EdDsa, jsonwebtoken::Algorithm::EdDSA),
        both(Algorithm::Es256, jsonwebtoken::Algorithm::ES256),
        both(Algorithm::Es384, jsonwebtoken::Algorithm::ES384),
        both(Algorithm::Rs256, jsonwebtoken::Algorithm::RS256),
        both(Algorithm::Ps256, jsonwebtoken::Algorithm::PS256),
    ]
});

impl Both {
    fn header(&self) -> Vec<(String, String)> {
        let alg = format!("\"{}\"", self.key.id().algorithm().name());
        [("alg", alg.as_str()), ("kid", "\"k1\""), ("typ", "\"at+jwt\"")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    fn claims(&self) -> Vec<(String, String)> {
        [
            ("iss", format!("\"{ISSUER}\"")),
            ("sub", "\"alice\"".to_owned()),
            ("aud", format!("\"{RESOURCE}\"")),
            ("client_id", "\"c1\"".to_owned()),
            ("exp", (self.now + 3000).to_string()),
            ("nbf", (self.now - 3000).to_string()),
            ("iat", (self.now - 10).to_string()),
            ("jti", "\"1\"".to_owned()),
            ("scope", "\"read\"".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn token(&self, header: &str, claims: &str) -> String {
        let encode = |text: &str| base64url::encode(text.as_bytes());
        sign(&self.key, &format!("{}.{}", encode(header), encode(claims)))
    }

    fn ours(&self, token: &str) -> bool {
        let head = RequestHead::new("POST", "/mcp")
            .with_header("host", b"mcp.example.com")
            .with_header("authorization", format!("Bearer {token}").as_bytes());
        let now = OffsetDateTime::from_unix_timestamp(self.now).unwrap();
        self.server
            .admit(&head, &RequiredScopes::none())
            .is_ok_and(|presented| matches!(presented.verify(now), VerificationOutcome::Verified(_)))
    }

    fn theirs(&self, token: &str) -> bool {
        jsonwebtoken::decode::<std::collections::BTreeMap<String, serde::de::IgnoredAny>>(
            token,
            &self.decoding,
            &self.validation,
        )
        .is_ok()
    }
}

fn object(members: &[(String, String)]) -> String {
    let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// What a member may be replaced by: JSON of every type, near misses among them. Not the audience in other case: the
/// core folds scheme and host there (RFC 3986 section 6.2.2.1), which `jsonwebtoken` does not.
const VALUES: &str = r#"(null|true|0|-1|1|1e3|1\.5|9999999999|99999999999999999999|""|"x"|"none"|"HS256"|"EdDSA"|"ES256"|"ES384"|"RS256"|"PS256"|"at\+jwt"|"JWT"|"k1"|\[\]|\[""\]|\["x"\]|\{\}|"https://as\.example\.com"|"https://as\.example\.com/"|"https://mcp\.example\.com/mcp"|\["https://mcp\.example\.com/mcp"\]|\["x","https://mcp\.example\.com/mcp"\]|"https://mcp\.example\.com"|"https:\\/\\/as\.example\.com")"#;

#[test]
fn the_token_that_is_changed_passes_with_both() {
    for both in EACH.iter() {
        let token = both.token(&object(&both.header()), &object(&both.claims()));
        assert!(both.ours(&token) && both.theirs(&token));
        assert!(both.ours(&format!("  {token}")));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    // Members changed, removed, doubled or added before it is signed.
    #[test]
    fn a_signed_token_with_other_members_is_not_taken_by_us_alone(
        which in 0..EACH.len(),
        changes in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>(), 0_u8..4, "(alg|kid|typ|crit|jwk|exp|nbf|iat|aud|iss|sub|client_id|x)", VALUES), 0..4),
    ) {
        let both = &EACH[which];
        let (mut header, mut claims) = (both.header(), both.claims());
        for (in_header, at, kind, name, value) in changes {
            let members = if in_header { &mut header } else { &mut claims };
            if members.is_empty() {
                continue;
            }
            let at = at.index(members.len());
            match kind {
                0 => members[at].1 = value,
                1 => drop(members.remove(at)),
                2 => members.push((members[at].0.clone(), value)),
                _ => members.push((name, value)),
            }
        }
        let token = both.token(&object(&header), &object(&claims));
        prop_assert!(!both.ours(&token) || both.theirs(&token), "{} {}", object(&header), object(&claims));
    }

    // The text changed after it was signed.
    #[test]
    fn a_changed_text_is_not_taken_by_us_alone(
        which in 0..EACH.len(), at in any::<prop::sample::Index>(), kind in 0_u8..4, with in "[A-Za-z0-9_.=+/ -]{1,3}",
    ) {
        let both = &EACH[which];
        let good = both.token(&object(&both.header()), &object(&both.claims()));
        let at = at.index(good.len());
        let changed = match kind {
            0 => format!("{}{with}{}", &good[..at], &good[at..]),
            1 => format!("{}{}", &good[..at], &good[at + 1..]),
            2 => format!("{}{with}{}", &good[..at], &good[at + 1..]),
            _ => good[..at].to_owned(),
        };
        // Spaces before it belong to the header (RFC 6750 section 2.1: `1*SP`), not to the token.
        let token = changed.trim_start_matches(' ');
        prop_assert!(!both.ours(&changed) || both.theirs(token), "{changed}");
        // And, for what it is worth beside that: only the text itself is taken.
        prop_assert_eq!(both.ours(&changed), token == good);
    }
}
