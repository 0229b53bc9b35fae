//! The resource server as a whole: what passes, what does not, and what the answers say.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::identifier::{ClientId, Endpoint};
use crate::jose::toy::ToyKey;
use crate::jose::{Algorithm, JwsError};
use crate::message::exchange::{Fetch, FetchFailure, FetchPurpose, Reply, RequestHead};
use crate::message::jwt_claims::ClaimNames;
use crate::secret::ClientSecret;
use crate::syntax::base64url;
use crate::syntax::json::JsonObject;
use crate::time::OffsetDateTime;

mod addressing;
mod cache;
mod exchange;
mod keys;
mod profiles;

const RESOURCE: &str = "https://mcp.example/mcp";
const ISSUER: &str = "https://as.example";
const OTHER_ISSUER: &str = "https://other.example";
const NOW: i64 = 1_800_000_000;
const HEADER: &str = r#"{"alg":"EdDSA","kid":"k1","typ":"at+jwt"}"#;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW).unwrap()
}

fn issuer(text: &str) -> Issuer {
    Issuer::new(text).unwrap()
}

fn key() -> ToyKey {
    ToyKey::new(Algorithm::EdDsa, 1)
}

fn keys_of(key: ToyKey) -> KeySet {
    KeySet::new([(Some("k1".into()), Box::new(key) as Box<_>)]).unwrap()
}

fn signed_issuer() -> TrustedIssuer {
    TrustedIssuer::with_keys(issuer(ISSUER), keys_of(key()))
}

fn introspection() -> Introspection {
    Introspection::new(
        Endpoint::new("https://as.example/introspect").unwrap(),
        ClientId::new("rs").unwrap(),
        ClientSecret::new("rs-secret-canary").unwrap(),
    )
}

fn server_with(issuers: impl IntoIterator<Item = TrustedIssuer>) -> ResourceServer {
    ResourceServer::new(ResourceId::new(RESOURCE).unwrap(), issuers).unwrap()
}

fn server() -> ResourceServer {
    server_with([signed_issuer()])
}

fn asking_server() -> ResourceServer {
    server_with([TrustedIssuer::with_introspection(issuer(ISSUER), introspection())])
}

fn scopes(text: &str) -> ScopeSet {
    ScopeSet::parse(text).unwrap()
}

fn required(text: &str) -> RequiredScopes {
    RequiredScopes::new(scopes(text)).unwrap()
}

fn head() -> RequestHead {
    to("/mcp")
}

/// The head of a request to that target, addressed to the resource's host.
fn to(target: &str) -> RequestHead {
    RequestHead::new("POST", target).with_header("host", b"mcp.example")
}

fn bearing(token: &str) -> RequestHead {
    head().with_header("authorization", format!("Bearer {token}").as_bytes())
}

/// The claims of a good token, each as JSON text.
fn good_claims() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("iss", format!("\"{ISSUER}\"")),
        ("sub", "\"alice\"".into()),
        ("aud", format!("\"{RESOURCE}\"")),
        ("client_id", "\"client-1\"".into()),
        ("exp", (NOW + 300).to_string()),
        ("iat", (NOW - 10).to_string()),
        ("jti", "\"1\"".into()),
        ("scope", "\"files:read files:write\"".into()),
    ])
}

fn with(claim: &'static str, json: impl Into<String>) -> BTreeMap<&'static str, String> {
    let mut claims = good_claims();
    claims.insert(claim, json.into());
    claims
}

fn without(claim: &'static str) -> BTreeMap<&'static str, String> {
    let mut claims = good_claims();
    claims.remove(claim);
    claims
}

fn json(claims: &BTreeMap<&'static str, String>) -> String {
    let members: Vec<_> = claims.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

fn token(claims: &BTreeMap<&'static str, String>) -> String {
    key().token(HEADER, &json(claims))
}

/// The way of a token to a verified one, without introspection.
fn verify(server: &ResourceServer, token: &str) -> Result<VerifiedToken, Denial> {
    match server.admit(&bearing(token), &required("files:read"))?.verify(now()) {
        VerificationOutcome::Verified(verified) => Ok(verified),
        VerificationOutcome::Denied(denial) => Err(denial),
        VerificationOutcome::Introspect(_) => panic!("the issuer is not to be asked"),
    }
}

fn refusal(claims: &BTreeMap<&'static str, String>) -> DenialReason {
    verify(&server(), &token(claims)).unwrap_err().reason()
}

fn ask(server: &ResourceServer, token: &str) -> (Fetch, AwaitingIntrospection) {
    match server.admit(&bearing(token), &required("files:read")).unwrap().verify(now()) {
        VerificationOutcome::Introspect(step) => step.into_parts(),
        other => panic!("{other:?}"),
    }
}

/// The way of an opaque token with this answer of its issuer.
fn introspected(answer: &str) -> Result<VerifiedToken, DenialReason> {
    let reply = Reply::new(200, answer).with_header("content-type", b"application/json");
    let (_, awaiting) = ask(&asking_server(), "opaque-token");
    awaiting.receive(Ok(reply), now()).map_err(|denial| denial.reason())
}

/// A good answer, changed in one member.
fn active(change: Option<(&'static str, Option<&str>)>) -> String {
    let mut members = good_claims();
    members.insert("active", "true".into());
    members.insert("token_type", "\"Bearer\"".into());
    match change {
        Some((name, Some(value))) => {
            members.insert(name, value.into());
        }
        Some((name, None)) => {
            members.remove(name);
        }
        None => {}
    }
    json(&members)
}

mod configuration {
    use super::*;

    // MCP-DISC-001, I-G8
    #[test]
    fn a_server_without_issuers_or_with_one_twice_is_refused() {
        let resource = ResourceId::new(RESOURCE).unwrap();
        let refused = ResourceServer::new(resource.clone(), []).unwrap_err();
        assert_eq!(refused, InvalidConfiguration::NoIssuer);
        let refused = ResourceServer::new(resource.clone(), [signed_issuer(), signed_issuer()]).unwrap_err();
        assert_eq!(refused, InvalidConfiguration::Issuers);
        let many = (0..=limits::AUTHORIZATION_SERVERS)
            .map(|at| TrustedIssuer::with_keys(issuer(&format!("https://as{at}.example")), keys_of(key())));
        assert_eq!(ResourceServer::new(resource, many).unwrap_err(), InvalidConfiguration::Issuers);
    }

    #[test]
    fn two_issuers_cannot_both_be_asked_about_opaque_tokens() {
        let one = TrustedIssuer::with_introspection(issuer(ISSUER), introspection());
        let two = TrustedIssuer::with_introspection(issuer(OTHER_ISSUER), introspection());
        let refused = ResourceServer::new(ResourceId::new(RESOURCE).unwrap(), [one, two]).unwrap_err();
        assert_eq!(refused, InvalidConfiguration::SeveralIntrospections);
    }

    // I-A1, I-G8
    #[test]
    fn accepted_audiences_are_never_empty() {
        assert!(signed_issuer().accepting_audiences([]).is_err());
        assert!(signed_issuer().accepting_audiences(["".into()]).is_err());
        assert!(signed_issuer().accepting_audiences(["api://x".into()]).is_ok());
    }

    #[test]
    fn a_profile_names_a_token_type() {
        assert!(TokenProfile::named([], ClaimNames::RFC9068).is_err());
        assert!(TokenProfile::named(["".into()], ClaimNames::RFC9068).is_err());
    }

    // MCP-AUTH-060, RFC9728-1.2-1, RFC9728-1.2-2
    #[test]
    fn the_identifier_is_written_as_clients_will_compare_it() {
        for text in ["https://mcp.example/", "https://mcp.example/mcp?tenant=a", "https://mcp.example?"] {
            let resource = ResourceId::new(text).unwrap();
            let refused = ResourceServer::new(resource, [signed_issuer()]).unwrap_err();
            assert_eq!(refused, InvalidConfiguration::Resource, "{text}");
        }
        for text in ["http://mcp.example/mcp", "https://mcp.example/mcp#a", "mcp.example"] {
            assert!(ResourceId::new(text).is_err(), "{text}");
        }
        for text in ["https://mcp.example", "https://mcp.example/mcp", "https://mcp.example/mcp/"] {
            assert!(ResourceServer::new(ResourceId::new(text).unwrap(), [signed_issuer()]).is_ok(), "{text}");
        }
    }

    // MCP-AUTH-085, MCP-AUTH-086
    #[test]
    fn offline_access_is_neither_required_nor_listed() {
        assert_eq!(
            RequiredScopes::new(scopes("files:read offline_access")).unwrap_err(),
            InvalidConfiguration::OfflineAccess
        );
        assert_eq!(
            server().with_scopes_supported(scopes("offline_access")).unwrap_err(),
            InvalidConfiguration::OfflineAccess
        );
    }

    #[test]
    fn the_leeway_is_small() {
        for seconds in [-1, limits::CLOCK_LEEWAY_SECONDS_MOST + 1, i64::MAX] {
            assert!(server().with_clock_leeway(Duration::seconds(seconds)).is_err(), "{seconds}");
        }
        assert!(server().with_clock_leeway(Duration::ZERO).is_ok());
    }

    // I-A4
    #[test]
    fn new_keys_replace_the_old_ones() {
        let old = token(&good_claims());
        let next = ToyKey::new(Algorithm::EdDsa, 9);
        let replaced = server().with_replaced_keys(&issuer(ISSUER), keys_of(next)).unwrap();
        assert_eq!(verify(&replaced, &old).unwrap_err().reason(), DenialReason::Token(JwsError::Signature));
        assert!(verify(&replaced, &next.token(HEADER, &json(&good_claims()))).is_ok());
        assert!(server().with_replaced_keys(&issuer(OTHER_ISSUER), keys_of(next)).is_err());
        assert!(asking_server().with_replaced_keys(&issuer(ISSUER), keys_of(next)).is_err());
    }

    #[test]
    fn public_types_can_cross_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<ResourceServer>();
        check::<TrustedIssuer>();
        check::<PresentedToken>();
        check::<VerificationOutcome>();
        check::<AwaitingIntrospection>();
        check::<AwaitingKeySet>();
        check::<VerifiedToken>();
        check::<Authorized>();
        check::<Denial>();
        check::<RequiredScopes>();
        check::<TokenCache>();
        check::<Recalled>();
        check::<KeyCache>();
        check::<FetchedKeys>();
        check::<SubjectToken>();
        check::<AwaitingExchange>();
        check::<ExchangedToken>();
        let pointer = core::mem::size_of::<usize>();
        assert_eq!(core::mem::size_of::<PresentedToken>(), pointer);
        assert_eq!(core::mem::size_of::<AwaitingIntrospection>(), pointer);
        assert_eq!(core::mem::size_of::<AwaitingExchange>(), pointer);
        assert_eq!(core::mem::size_of::<Denial>(), pointer);
        assert_eq!(core::mem::size_of::<VerifiedToken>(), pointer);
        assert_eq!(core::mem::size_of::<Authorized>(), pointer);
    }
}

mod admission {
    use super::*;

    fn admit(head: &RequestHead) -> Result<PresentedToken, DenialReason> {
        server().admit(head, &required("files:read")).map_err(|denial| denial.reason())
    }

    fn field(value: &str) -> Result<PresentedToken, DenialReason> {
        admit(&head().with_header("Authorization", value.as_bytes()))
    }

    // RFC6750-2.1-1, OAUTH21-5.1.1-1
    #[test]
    fn the_scheme_is_matched_in_any_case() {
        for value in ["Bearer abc", "bearer abc", "BEARER abc", "bEaReR  abc", "Bearer a-._~+/1=="] {
            assert!(field(value).is_ok(), "{value}");
        }
    }

    // I-A10, MCP-AUTH-092
    #[test]
    fn anything_but_one_token_is_malformed() {
        for value in [
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer a, Bearer b",
            "Bearer a,b",
            "Bearer a ",
            "Bearer\ta",
            "Bearer a\t",
            " Bearer a",
            "Bearer \"a\"",
            "Bearer a=b",
            "Bearer =",
            "Bearer é",
            "Bearer a;b",
            "",
            "Bearer:a",
            "B\u{e9}arer a",
        ] {
            assert_eq!(field(value).unwrap_err(), DenialReason::MalformedCredentials, "{value:?}");
        }
        let invalid = head().with_header("authorization", b"Bearer \xff\xfe");
        assert_eq!(admit(&invalid).unwrap_err(), DenialReason::MalformedCredentials);
        let long = format!("Bearer {}", "a".repeat(limits::FIELD_BYTES));
        assert_eq!(field(&long).unwrap_err(), DenialReason::MalformedCredentials);
        let long = format!("Bearer{}a", " ".repeat(limits::FIELD_BYTES));
        assert_eq!(field(&long).unwrap_err(), DenialReason::MalformedCredentials);
    }

    // OAUTH21-5.3.2-2
    #[test]
    fn no_credentials_and_other_schemes_are_unauthenticated() {
        assert_eq!(admit(&head()).unwrap_err(), DenialReason::NoCredentials);
        for value in ["Basic YTpi", "DPoP abc", "Bearers abc", "Bear abc", "Negotiate"] {
            assert_eq!(field(value).unwrap_err(), DenialReason::OtherScheme, "{value}");
        }
    }

    // MCP-SBP-031
    #[test]
    fn a_session_or_cookie_is_no_credential() {
        let head = head()
            .with_header("mcp-session-id", b"1868a90c")
            .with_header("cookie", b"session=1")
            .with_header("x-access-token", b"abc")
            .with_header("proxy-authorization", b"Bearer abc");
        assert_eq!(admit(&head).unwrap_err(), DenialReason::NoCredentials);
    }

    // MCP-AUTH-092
    #[test]
    fn two_fields_are_refused_even_when_they_agree() {
        for second in ["Bearer abc", "Basic YTpi", ""] {
            let head = bearing("abc").with_header("AUTHORIZATION", second.as_bytes());
            assert_eq!(admit(&head).unwrap_err(), DenialReason::SeveralCredentials, "{second}");
        }
    }

    // OAUTH21-5.1-2, OAUTH21-5.1.2-1
    #[test]
    fn a_token_in_query_or_body_counts_for_nothing_and_beside_the_field_spoils_the_request() {
        let queries = [
            "access_token=abc",
            "a=1&access_token=abc",
            "access_token",
            "access%5Ftoken=abc",
            "%61ccess_token=abc&b",
            "a=%zz&access_token=abc",
            "a;access_token=abc",
        ];
        for query in queries {
            let target = format!("/mcp?{query}");
            let alone = to(&target);
            assert_eq!(admit(&alone).unwrap_err(), DenialReason::TokenOutsideHeader, "{query}");
            let both = alone.with_header("authorization", b"Bearer abc");
            assert_eq!(admit(&both).unwrap_err(), DenialReason::SeveralCredentials, "{query}");
            let form = |head: &RequestHead| {
                server().admit_form(head, query.as_bytes(), &required("a")).map_err(|denial| denial.reason())
            };
            assert_eq!(form(&head()).unwrap_err(), DenialReason::TokenOutsideHeader, "{query}");
            assert_eq!(form(&bearing("abc")).unwrap_err(), DenialReason::SeveralCredentials, "{query}");
        }
        let in_both = to("/mcp?access_token=a").with_header("authorization", b"Bearer abc");
        assert!(server().admit_form(&in_both, b"a=b", &required("a")).is_err());
        for query in
            ["access_tokens=abc", "token=access_token", "x_access_token=a", "access=token", "access%5ftok"]
        {
            let head = to(&format!("/mcp?{query}")).with_header("authorization", b"Bearer abc");
            assert!(admit(&head).is_ok(), "{query}");
        }
    }

    // MCP-SEC-002
    #[test]
    fn an_admitted_token_is_not_shown() {
        let mut presented = admit(&bearing("canary-token")).unwrap();
        assert_eq!(presented.digest(), crate::secret::SecretDigest::of(b"canary-token"));
        assert!(!format!("{presented:?}").contains("canary"));
    }

    proptest! {
        // I-A10: what is admitted is exactly `Bearer`, spaces, one token68.
        #[test]
        fn only_one_token68_is_admitted(value in "(Bearer|bearer|Basic|B)?[ \t]{0,3}[a-zA-Z0-9._~+/=, \t\"-]{0,12}") {
            let admitted = field(&value).is_ok();
            let rest = value.get(6..).filter(|_| value[..6].eq_ignore_ascii_case("bearer"));
            let token = rest.filter(|rest| rest.starts_with(' ')).map(|rest| rest.trim_start_matches(' '));
            let well_formed = token.is_some_and(|token| {
                let body = token.trim_end_matches('=');
                !body.is_empty() && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b))
            });
            prop_assert_eq!(admitted, well_formed);
        }

        // I-G1
        #[test]
        fn any_field_and_query_are_decided_without_a_panic(value in proptest::collection::vec(any::<u8>(), 0..64), query in ".{0,64}") {
            let head = to(&format!("/mcp?{query}")).with_header("authorization", &value);
            let _ = admit(&head);
        }
    }
}

mod signed_tokens {
    use super::*;

    #[test]
    fn a_good_token_passes_and_says_who_it_is_for() {
        let authorized =
            verify(&server(), &token(&good_claims())).unwrap().authorize(&required("files:read")).unwrap();
        assert_eq!(authorized.subject(), "alice");
        assert_eq!(authorized.client().as_str(), "client-1");
        assert_eq!(authorized.issuer().issuer().as_str(), ISSUER);
        assert_eq!(authorized.audience().audience().as_str(), RESOURCE);
        assert_eq!(authorized.scopes(), scopes("files:read files:write"));
        assert_eq!(authorized.expires_at().unix_timestamp(), NOW + 300);
        assert_eq!(authorized.required(), &required("files:read"));
    }

    // I-A7, MCP-AUTH-079: what the handler gets has no token text.
    #[test]
    fn what_the_handler_gets_holds_no_token() {
        let token = token(&good_claims());
        let signature = token.rsplit('.').next().unwrap();
        let verified = verify(&server(), &token).unwrap();
        assert!(!format!("{verified:?}").contains(signature));
        let authorized = verified.authorize(&required("files:read")).unwrap();
        assert!(!format!("{authorized:?}").contains(signature));
    }

    // I-A3, RFC9068-4-6
    #[test]
    fn every_claim_of_the_profile_must_be_there() {
        for claim in ["sub", "aud", "client_id", "exp", "iat", "jti"] {
            assert_eq!(refusal(&without(claim)), DenialReason::Claim(Some(claim)), "{claim}");
        }
        assert_eq!(refusal(&without("iss")), DenialReason::UnknownIssuer);
        // Without a scope a token may still be valid; it just allows little.
        assert!(verify(&server(), &token(&without("scope"))).is_ok());
    }

    // I-A3, I-T9: another type or an empty value is a refusal, never an absence.
    #[test]
    fn a_claim_of_the_wrong_type_or_without_content_is_refused() {
        let texts = ["\"\"", "null", "1", "true", "[]", "{}", "[\"a\",1]"];
        for claim in ["sub", "client_id"] {
            for text in texts {
                assert_eq!(refusal(&with(claim, text)), DenialReason::Claim(Some(claim)), "{claim} {text}");
            }
        }
        for text in ["\"\"", "null", "1", "true", "[]", "{}", "[1]", "[\"\"]"] {
            assert_eq!(refusal(&with("aud", text)), DenialReason::Claim(Some("aud")), "aud {text}");
        }
        let mixed = format!("[\"{RESOURCE}\",1]");
        assert_eq!(refusal(&with("aud", mixed)), DenialReason::Claim(Some("aud")));
        for claim in ["exp", "iat", "nbf"] {
            for text in ["\"1900000000\"", "null", "true", "[]", "{}", "1.9e9", "1900000000.5", "\"\""] {
                assert_eq!(refusal(&with(claim, text)), DenialReason::Claim(Some(claim)), "{claim} {text}");
            }
        }
        for text in ["null", "1", "[\"files:read\"]", "{}"] {
            assert_eq!(refusal(&with("scope", text)), DenialReason::Claim(Some("scope")), "{text}");
        }
        for text in ["\"\"", "null", "1", "[]"] {
            assert_eq!(refusal(&with("iss", text)), DenialReason::UnknownIssuer, "{text}");
        }
    }

    // RFC9068-4-1
    #[test]
    fn only_an_access_token_type_passes() {
        let claims = json(&good_claims());
        for header in [
            r#"{"alg":"EdDSA","kid":"k1"}"#,
            r#"{"alg":"EdDSA","kid":"k1","typ":"JWT"}"#,
            r#"{"alg":"EdDSA","kid":"k1","typ":"at+JWT"}"#,
            r#"{"alg":"EdDSA","kid":"k1","typ":"dpop+jwt"}"#,
            r#"{"alg":"EdDSA","kid":"k1","typ":""}"#,
            r#"{"alg":"EdDSA","kid":"k1","typ":"application/jwt"}"#,
        ] {
            let reason = verify(&server(), &key().token(header, &claims)).unwrap_err().reason();
            assert_eq!(reason, DenialReason::TokenType, "{header}");
        }
        let header = r#"{"alg":"EdDSA","kid":"k1","typ":"application/at+jwt"}"#;
        assert!(verify(&server(), &key().token(header, &claims)).is_ok());
    }

    // I-T9, RFC7519-4.1-1: the second at which a token stops and the one at which it starts.
    #[test]
    fn a_token_lives_from_its_beginning_to_its_end_and_no_second_more() {
        let leeway = limits::CLOCK_LEEWAY_SECONDS;
        assert!(verify(&server(), &token(&with("exp", (NOW - leeway + 1).to_string()))).is_ok());
        for exp in [NOW - leeway, NOW - leeway - 1, 1, 0] {
            assert_eq!(refusal(&with("exp", exp.to_string())), DenialReason::Expired, "{exp}");
        }
        for claim in ["exp", "nbf", "iat"] {
            for before in [-1, i64::MIN] {
                assert_eq!(refusal(&with(claim, before.to_string())), DenialReason::Claim(Some(claim)));
            }
        }
        for claim in ["nbf", "iat"] {
            assert!(verify(&server(), &token(&with(claim, (NOW + leeway).to_string()))).is_ok());
            for later in [NOW + leeway + 1, i64::MAX] {
                assert_eq!(
                    refusal(&with(claim, later.to_string())),
                    DenialReason::NotYetValid,
                    "{claim} {later}"
                );
            }
        }
        // Numbers no calendar holds.
        for exp in ["9223372036854775807", "18446744073709551615", "9223372036854775808"] {
            let verified = verify(&server(), &token(&with("exp", exp))).unwrap();
            let authorized = verified.authorize(&RequiredScopes::none()).unwrap();
            assert_eq!(authorized.expires_at().year(), 9999, "{exp}");
        }
        let strict = server().with_clock_leeway(Duration::ZERO).unwrap();
        assert!(verify(&strict, &token(&with("exp", (NOW + 1).to_string()))).is_ok());
        assert!(verify(&strict, &token(&with("exp", NOW.to_string()))).is_err());
    }

    // I-A1, MCP-AUTH-057
    #[test]
    fn a_token_for_another_resource_is_refused() {
        for audience in [
            "https://mcp.example",
            "https://mcp.example/",
            "https://mcp.example/mcp/",
            "https://mcp.example/MCP",
            "https://mcp.example/mcp?a",
            "https://mcp.example/mc",
            "https://mcp.example/mcp2",
            "https://mcp.example/mcp/../mcp",
            "https://mcp.example:443/mcp",
            "https://evil.example/mcp",
            "https://mcp.example.evil.example/mcp",
            "mcp.example/mcp",
            "as.example",
            "*",
            " ",
        ] {
            assert_eq!(
                refusal(&with("aud", format!("\"{audience}\""))),
                DenialReason::Audience,
                "{audience}"
            );
        }
        for audience in [
            format!("[\"https://other.example\",\"{RESOURCE}\"]"),
            "\"HTTPS://MCP.Example/mcp\"".into(),
            format!("[\"{RESOURCE}\"]"),
        ] {
            assert!(verify(&server(), &token(&with("aud", audience.as_str()))).is_ok(), "{audience}");
        }
    }

    #[test]
    fn each_issuer_has_its_own_audiences() {
        let other_key = ToyKey::new(Algorithm::EdDsa, 2);
        let other = TrustedIssuer::with_keys(issuer(OTHER_ISSUER), keys_of(other_key))
            .accepting_audiences(["api://tools".into()])
            .unwrap();
        let server = server_with([signed_issuer(), other]);
        let mut claims = with("iss", format!("\"{OTHER_ISSUER}\""));
        assert_eq!(
            verify(&server, &other_key.token(HEADER, &json(&claims))).unwrap_err().reason(),
            DenialReason::Audience
        );
        claims.insert("aud", "\"api://tools\"".into());
        assert!(verify(&server, &other_key.token(HEADER, &json(&claims))).is_ok());
        let foreign = token(&with("aud", "\"api://tools\""));
        assert_eq!(verify(&server, &foreign).unwrap_err().reason(), DenialReason::Audience);
    }

    // I-A4, RFC8725-3.8-1
    #[test]
    fn the_key_of_one_issuer_verifies_no_token_of_another() {
        let other_key = ToyKey::new(Algorithm::EdDsa, 2);
        let other = TrustedIssuer::with_keys(issuer(OTHER_ISSUER), keys_of(other_key));
        let server = server_with([signed_issuer(), other]);
        let forged = other_key.token(HEADER, &json(&good_claims()));
        let denial = verify(&server, &forged).unwrap_err();
        assert_eq!(denial.reason(), DenialReason::Token(JwsError::Signature));
        assert_eq!(denial.issuer().unwrap().as_str(), ISSUER);
        let unknown = with("iss", "\"https://evil.example\"");
        assert_eq!(verify(&server, &token(&unknown)).unwrap_err().reason(), DenialReason::UnknownIssuer);
        // RFC9068-4-2: by bytes.
        for iss in ["https://as.example/", "HTTPS://as.example", "https://AS.example", "https://as.example "]
        {
            let claims = with("iss", format!("\"{iss}\""));
            assert_eq!(
                verify(&server, &token(&claims)).unwrap_err().reason(),
                DenialReason::UnknownIssuer,
                "{iss}"
            );
        }
    }

    // I-A4
    #[test]
    fn an_unknown_key_name_or_algorithm_is_told_apart_for_the_host() {
        for header in [
            r#"{"alg":"EdDSA","kid":"k2","typ":"at+jwt"}"#,
            r#"{"alg":"ES256","kid":"k1","typ":"at+jwt"}"#,
            r#"{"alg":"EdDSA","kid":"","typ":"at+jwt"}"#,
        ] {
            let denial = verify(&server(), &key().token(header, &json(&good_claims()))).unwrap_err();
            assert_eq!(denial.reason(), DenialReason::UnknownKey, "{header}");
            assert_eq!(denial.issuer().unwrap().as_str(), ISSUER);
            assert_eq!(denial.status(), 401);
        }
        let unnamed = r#"{"alg":"EdDSA","typ":"at+jwt"}"#;
        assert!(verify(&server(), &key().token(unnamed, &json(&good_claims()))).is_ok());
    }

    // I-A5
    #[test]
    fn an_unsigned_or_symmetric_token_is_refused() {
        for alg in ["none", "HS256"] {
            let header = format!(r#"{{"alg":"{alg}","kid":"k1","typ":"at+jwt"}}"#);
            let reason =
                verify(&server(), &key().token(&header, &json(&good_claims()))).unwrap_err().reason();
            assert_eq!(reason, DenialReason::Token(JwsError::Algorithm), "{alg}");
        }
        let encode = |text: &str| base64url::encode(text.as_bytes());
        let unsigned = format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(&json(&good_claims())));
        assert!(verify(&server(), &unsigned).is_err());
    }

    // I-G11, RFC9449-7.2-1
    #[test]
    fn restrictions_that_are_not_understood_refuse_the_token() {
        for cnf in [r#"{"jkt":"abc"}"#, "{}", "null", "1", "[]"] {
            assert_eq!(refusal(&with("cnf", cnf)), DenialReason::BoundToKey, "{cnf}");
        }
        assert_eq!(refusal(&with("authorization_details", "[]")), DenialReason::AuthorizationDetails);
    }

    #[test]
    fn a_profile_without_the_type_refuses_id_tokens_by_their_marks() {
        let profile =
            TokenProfile::named(["JWT".into()], ClaimNames { requires_jti: false, ..ClaimNames::RFC9068 });
        let issuer = signed_issuer().with_profile(profile.unwrap());
        let server = server_with([issuer]);
        let header = r#"{"alg":"EdDSA","kid":"k1","typ":"JWT"}"#;
        let verify = |claims: &BTreeMap<_, _>| super::verify(&server, &key().token(header, &json(claims)));
        assert!(verify(&without("jti")).is_ok());
        for claims in
            [with("nonce", "\"n\""), with("at_hash", "\"h\""), with("c_hash", "\"h\""), with("typ", "\"ID\"")]
        {
            assert_eq!(verify(&claims).unwrap_err().reason(), DenialReason::IdToken);
        }
        let for_the_client = with("aud", format!("[\"{RESOURCE}\",\"client-1\"]"));
        assert_eq!(verify(&for_the_client).unwrap_err().reason(), DenialReason::IdToken);
        assert!(super::verify(&server, &token(&good_claims())).is_err());
        // With the type of an access token the marks mean nothing.
        assert!(super::verify(&super::server(), &token(&with("nonce", "\"n\""))).is_ok());
    }

    #[test]
    fn text_that_is_no_signed_token_is_opaque_and_nobody_can_be_asked() {
        for text in ["opaque", "a.b", "a.b.c.d", "a.b.c.d.e"] {
            assert_eq!(verify(&server(), text).unwrap_err().reason(), DenialReason::OpaqueToken, "{text}");
        }
        assert!(matches!(verify(&server(), "a.b.c").unwrap_err().reason(), DenialReason::Token(_)));
    }

    proptest! {
        // I-T11: only the exact token is accepted.
        #[test]
        fn no_prefix_extension_or_variant_of_a_token_is_accepted(
            at in any::<prop::sample::Index>(), extra in "[A-Za-z0-9._~+/=-]{1,3}", to in "[A-Za-z0-9._-]",
        ) {
            let server = server();
            let token = token(&good_claims());
            prop_assert!(verify(&server, &token).is_ok());
            let at = at.index(token.len());
            prop_assert!(verify_any(&server, &token[..at]).is_err());
            let longer = format!("{token}{extra}");
            prop_assert!(verify_any(&server, &longer).is_err());
            let longer = format!("{extra}{token}");
            prop_assert!(verify_any(&server, &longer).is_err());
            let mut changed = token.clone();
            changed.replace_range(at..=at, &to);
            prop_assert_eq!(verify_any(&server, &changed).is_ok(), changed == token);
            let folded = token.to_ascii_lowercase();
            prop_assert!(verify_any(&server, &folded).is_err());
        }

        // I-A1, I-A2: an audience is accepted exactly when it equals ours but for the case of scheme and host.
        #[test]
        fn the_audience_is_compared_exactly(
            audience in "(https|HTTPS|http)://(mcp|MCP|a)\\.example(:443)?(/mcp|/MCP|/m%63p|/mcp/|/\\./mcp|/x/\\.\\./mcp|//mcp|\\\\mcp)?(\\?|#)?",
        ) {
            let json = format!("\"{}\"", audience.replace('\\', "\\\\"));
            let accepted = verify(&server(), &token(&with("aud", json))).is_ok();
            let (scheme, rest) = audience.split_once("://").unwrap();
            let equal = scheme.eq_ignore_ascii_case("https")
                && rest.get(..11).is_some_and(|host| host.eq_ignore_ascii_case("mcp.example"))
                && rest.get(11..) == Some("/mcp");
            prop_assert_eq!(accepted, equal);
        }

        // I-T9
        #[test]
        fn no_time_is_accepted_outside_its_bounds(exp in any::<i64>(), nbf in any::<i64>(), now in 0_i64..4_000_000_000) {
            let server = server();
            let mut claims = with("exp", exp.to_string());
            claims.insert("nbf", nbf.to_string());
            claims.insert("iat", "0".into());
            let presented = server.admit(&bearing(&token(&claims)), &RequiredScopes::none()).unwrap();
            let verified = matches!(
                presented.verify(OffsetDateTime::from_unix_timestamp(now).unwrap()),
                VerificationOutcome::Verified(_)
            );
            let leeway = i128::from(limits::CLOCK_LEEWAY_SECONDS);
            let (exp, nbf, now) = (i128::from(exp), i128::from(nbf), i128::from(now));
            let alive = now < (exp + leeway).min(i128::from(i64::MAX)) && now + leeway >= nbf;
            prop_assert_eq!(verified, alive && exp >= 0 && nbf >= 0);
        }

        // I-A3: one claim replaced by any JSON never widens what the token says.
        #[test]
        fn a_replaced_claim_is_refused_or_is_what_it_was(
            claim in prop::sample::select(&["iss", "sub", "aud", "client_id", "exp"][..]),
            value in "(null|true|0|-1|1e3|\"\"|\"x\"|\\[\\]|\\[\"\"\\]|\\[null\\]|\\{\\}|\\[\"x\"\\])",
        ) {
            match verify(&server(), &token(&with(claim, value.as_str()))) {
                Err(_) => {}
                Ok(_) => prop_assert!(matches!(claim, "sub" | "client_id") && value == "\"x\""),
            }
        }
    }

    fn verify_any(server: &ResourceServer, token: &str) -> Result<(), DenialReason> {
        let presented =
            server.admit(&bearing(token), &RequiredScopes::none()).map_err(|denial| denial.reason())?;
        match presented.verify(now()) {
            VerificationOutcome::Verified(_) => Ok(()),
            VerificationOutcome::Denied(denial) => Err(denial.reason()),
            VerificationOutcome::Introspect(_) => panic!("nobody can be asked"),
        }
    }
}

mod opaque_tokens {
    use super::*;
    use crate::message::exchange::AddressPolicy;

    // RFC7662-2.1-1
    #[test]
    fn the_issuer_is_asked_with_authentication_at_the_configured_endpoint() {
        let (fetch, _) = ask(&asking_server(), "opaque-token");
        assert_eq!(fetch.purpose(), FetchPurpose::Introspection);
        assert_eq!(fetch.method(), "POST");
        assert_eq!(fetch.url(), "https://as.example/introspect");
        assert!(fetch.authorization().unwrap().starts_with("Basic "));
        assert_eq!(fetch.policy().addresses(), AddressPolicy::Public);
        let body = core::str::from_utf8(fetch.body()).unwrap();
        assert!(body.contains("token=opaque-token"), "{body}");
    }

    // I-L8
    #[test]
    fn the_endpoint_is_reached_where_it_lies_and_nowhere_else() {
        let addresses = |endpoint: &str, private: bool| {
            let mut introspection = Introspection::new(
                Endpoint::new(endpoint).unwrap(),
                ClientId::new("rs").unwrap(),
                ClientSecret::new("secret").unwrap(),
            );
            if private {
                introspection = introspection.on_private_networks();
            }
            let server = server_with([TrustedIssuer::with_introspection(issuer(ISSUER), introspection)]);
            ask(&server, "opaque-token").0.policy().addresses()
        };
        assert_eq!(addresses("https://as.example/i", false), AddressPolicy::Public);
        assert_eq!(addresses("http://127.0.0.1:8080/i", false), AddressPolicy::Loopback);
        assert_eq!(addresses("https://as.example/i", true), AddressPolicy::PublicAndPrivateNetworks);
    }

    // I-A7, I-G7
    #[test]
    fn neither_action_nor_state_shows_the_token_or_the_secret() {
        let (fetch, awaiting) = ask(&asking_server(), "canary-token");
        let shown = format!("{fetch:?} {awaiting:?}");
        assert!(!shown.contains("canary"), "{shown}");
        assert!(!fetch.url().contains("canary"));
    }

    #[test]
    fn an_active_token_passes_with_what_its_issuer_says() {
        let authorized = introspected(&active(None)).unwrap().authorize(&required("files:read")).unwrap();
        assert_eq!(authorized.subject(), "alice");
        assert_eq!(authorized.client().as_str(), "client-1");
        assert_eq!(authorized.scopes(), scopes("files:read files:write"));
        assert_eq!(authorized.expires_at().unix_timestamp(), NOW + 300);
        // The endpoint speaks for its issuer.
        assert!(introspected(&active(Some(("iss", None)))).is_ok());
        assert!(introspected(&active(Some(("token_type", None)))).is_ok());
    }

    // RFC7662-2.2-2
    #[test]
    fn nothing_but_active_true_makes_a_token_valid() {
        assert_eq!(introspected(r#"{"active":false}"#).unwrap_err(), DenialReason::Inactive);
        assert_eq!(
            introspected(&active(Some(("active", Some("false"))))).unwrap_err(),
            DenialReason::Inactive
        );
        for flag in ["\"true\"", "1", "null", "\"false\"", "[]"] {
            let answer = active(Some(("active", Some(flag))));
            assert_eq!(introspected(&answer).unwrap_err(), DenialReason::IntrospectionAnswer, "{flag}");
        }
        for answer in ["", "{}", "[]", "true", "null", "active", r#"{"active":true,"active":true}"#] {
            assert_eq!(introspected(answer).unwrap_err(), DenialReason::IntrospectionAnswer, "{answer}");
        }
        let twice = active(None).replacen('{', r#"{"active":false,"#, 1);
        assert_eq!(introspected(&twice).unwrap_err(), DenialReason::IntrospectionAnswer);
    }

    // RFC7662-4-3, I-A3
    #[test]
    fn an_answer_without_this_audience_does_not_count() {
        assert_eq!(introspected(&active(Some(("aud", None)))).unwrap_err(), DenialReason::Audience);
        let other = active(Some(("aud", Some("\"https://other.example\""))));
        assert_eq!(introspected(&other).unwrap_err(), DenialReason::Audience);
        for aud in ["[]", "\"\"", "null", "1", "[1]"] {
            assert!(introspected(&active(Some(("aud", Some(aud))))).is_err(), "{aud}");
        }
    }

    // I-A3
    #[test]
    fn the_answer_names_subject_client_and_end() {
        for claim in ["sub", "client_id", "exp"] {
            assert_eq!(
                introspected(&active(Some((claim, None)))).unwrap_err(),
                DenialReason::Claim(Some(claim)),
                "{claim}"
            );
            for value in ["\"\"", "null", "[]", "true"] {
                assert!(introspected(&active(Some((claim, Some(value))))).is_err(), "{claim} {value}");
            }
        }
    }

    // D32, I-T9, I-G11
    #[test]
    fn issuer_time_and_restrictions_are_checked_as_for_signed_tokens() {
        let refused = |name, value: &str| introspected(&active(Some((name, Some(value))))).unwrap_err();
        assert_eq!(refused("iss", "\"https://other.example\""), DenialReason::UnknownIssuer);
        assert_eq!(refused("iss", "\"https://as.example/\""), DenialReason::UnknownIssuer);
        let leeway = limits::CLOCK_LEEWAY_SECONDS;
        assert_eq!(refused("exp", &(NOW - leeway).to_string()), DenialReason::Expired);
        assert_eq!(refused("exp", "0"), DenialReason::Expired);
        assert_eq!(refused("nbf", &(NOW + leeway + 1).to_string()), DenialReason::NotYetValid);
        assert_eq!(refused("iat", &(NOW + leeway + 1).to_string()), DenialReason::NotYetValid);
        assert_eq!(refused("cnf", "{}"), DenialReason::BoundToKey);
        assert_eq!(refused("token_type", "\"DPoP\""), DenialReason::BoundToKey);
        assert_eq!(refused("authorization_details", "[]"), DenialReason::AuthorizationDetails);
        // An empty name is a wrong one, and not the absence of one.
        assert_eq!(refused("iss", "\"\""), DenialReason::IntrospectionAnswer);
    }

    // D32, I-T7
    #[test]
    fn an_active_token_of_another_kind_is_not_accepted() {
        for (name, value) in [
            ("typ", "\"Refresh\""),
            ("typ", "\"ID\""),
            ("token_use", "\"refresh_token\""),
            ("nonce", "\"n\""),
            ("at_hash", "\"h\""),
            ("aud", &format!("[\"{RESOURCE}\",\"client-1\"]")),
        ] {
            let refused = introspected(&active(Some((name, Some(value))))).unwrap_err();
            assert_eq!(refused, DenialReason::IdToken, "{name} {value}");
        }
        for (name, value) in [("typ", "\"Bearer\""), ("token_use", "\"access_token\"")] {
            assert!(introspected(&active(Some((name, Some(value))))).is_ok(), "{name} {value}");
        }
    }

    #[test]
    fn when_the_issuer_cannot_answer_the_token_is_not_called_invalid() {
        let receive = |reply| {
            let (_, awaiting) = ask(&asking_server(), "opaque-token");
            awaiting.receive(reply, now()).unwrap_err()
        };
        for failure in [FetchFailure::Unreachable, FetchFailure::TimedOut, FetchFailure::TooLarge] {
            let denial = receive(Err(failure));
            assert_eq!(denial.reason(), DenialReason::IntrospectionFailed(failure));
            assert_eq!(denial.status(), 503);
        }
        for status in [201, 204, 302, 400, 401, 403, 404, 500, 503] {
            let reply = Reply::new(status, active(None)).with_header("content-type", b"application/json");
            let denial = receive(Ok(reply));
            assert_eq!(denial.reason(), DenialReason::IntrospectionRefused(status));
            assert_eq!(denial.status(), 503, "{status}");
        }
        let page = Reply::new(200, active(None)).with_header("content-type", b"text/html");
        assert_eq!(receive(Ok(page)).reason(), DenialReason::IntrospectionAnswer);
    }

    #[test]
    fn a_signed_token_is_verified_by_keys_and_never_falls_through_to_asking() {
        let both = server_with([signed_issuer().and_introspection(introspection())]);
        assert!(verify(&both, &token(&good_claims())).is_ok());
        let forged = ToyKey::new(Algorithm::EdDsa, 9).token(HEADER, &json(&good_claims()));
        assert_eq!(verify(&both, &forged).unwrap_err().reason(), DenialReason::Token(JwsError::Signature));
        assert!(matches!(verify(&both, "a.b.c").unwrap_err().reason(), DenialReason::Token(_)));
        let (fetch, _) = ask(&both, "opaque-token");
        assert_eq!(fetch.purpose(), FetchPurpose::Introspection);
    }

    #[test]
    fn an_issuer_without_keys_is_asked_about_its_own_signed_tokens() {
        let asked = TrustedIssuer::with_introspection(issuer(OTHER_ISSUER), introspection());
        let server = server_with([signed_issuer(), asked]);
        let theirs = ToyKey::new(Algorithm::EdDsa, 9)
            .token(HEADER, &json(&with("iss", format!("\"{OTHER_ISSUER}\""))));
        let (fetch, awaiting) = ask(&server, &theirs);
        assert_eq!(fetch.purpose(), FetchPurpose::Introspection);
        // The answer is theirs, not the other issuer's.
        let reply = Reply::new(200, active(None)).with_header("content-type", b"application/json");
        assert_eq!(awaiting.receive(Ok(reply), now()).unwrap_err().reason(), DenialReason::UnknownIssuer);
    }
}

mod scopes_of_operations {
    use super::*;

    fn authorize(server: &ResourceServer, granted: &str, needed: &str) -> Result<Authorized, Denial> {
        let token = token(&with("scope", format!("\"{granted}\"")));
        verify(server, &token).unwrap().authorize(&required(needed))
    }

    // I-A13, MCP-AUTH-091, MCP-AUTH-105
    #[test]
    fn a_token_without_a_needed_scope_is_told_all_of_them_at_once() {
        let denial = authorize(&server(), "files:read", "files:read files:write files:delete").unwrap_err();
        assert_eq!(denial.reason(), DenialReason::InsufficientScope);
        assert_eq!(denial.status(), 403);
        let challenge = denial.challenge().unwrap();
        assert!(challenge.contains(r#"error="insufficient_scope""#), "{challenge}");
        for scope in ["files:read", "files:write", "files:delete"] {
            assert!(challenge.contains(scope), "{challenge}");
        }
        assert!(challenge.contains("resource_metadata="), "{challenge}");
    }

    // MCP-AUTH-118
    #[test]
    fn a_broader_scope_implies_the_narrower_ones_through_each_other() {
        let scope = |text: &str| Scope::new(text).unwrap();
        let server = server()
            .with_implied_scopes(scope("root"), scopes("admin"))
            .with_implied_scopes(scope("admin"), scopes("files"))
            .with_implied_scopes(scope("files"), scopes("files:read files:write"))
            .with_implied_scopes(scope("files:write"), scopes("files"));
        assert!(authorize(&server, "admin", "files:read files:write").is_ok());
        assert!(authorize(&server, "root", "files:read files:write").is_ok());
        assert!(authorize(&server, "files:write", "files:read").is_ok());
        assert!(authorize(&server, "files:read", "files:write").is_err());
        assert!(authorize(&server, "files:read", "admin").is_err());
        assert!(authorize(&server, "files", "admin").is_err());
        // Without the hierarchy a longer name is another name.
        assert!(authorize(&super::server(), "files", "files:read").is_err());
    }

    #[test]
    fn nothing_required_needs_a_valid_token_and_nothing_more() {
        let verified = verify(&server(), &token(&without("scope"))).unwrap();
        assert!(verified.authorize(&RequiredScopes::none()).is_ok());
    }

    // MCP-SBP-053
    #[test]
    fn the_host_has_the_last_word_and_its_refusal_asks_for_no_other_token() {
        let authorized = authorize(&server(), "files:read", "files:read").unwrap();
        let denial = authorized.refuse();
        assert_eq!(denial.status(), 403);
        let challenge = denial.challenge().unwrap();
        assert!(!challenge.contains("error") && !challenge.contains("scope="), "{challenge}");
    }

    proptest! {
        // I-A13
        #[test]
        fn access_is_given_exactly_when_no_scope_is_missing(
            granted in proptest::collection::btree_set("[a-e]", 0..5), needed in proptest::collection::btree_set("[a-e]", 0..5),
        ) {
            let join = |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
            let mut claims = good_claims();
            if granted.is_empty() {
                claims.remove("scope");
            } else {
                claims.insert("scope", format!("\"{}\"", join(&granted)));
            }
            let needs = if needed.is_empty() { RequiredScopes::none() } else { required(&join(&needed)) };
            let outcome = verify(&server(), &token(&claims)).unwrap().authorize(&needs);
            prop_assert_eq!(outcome.is_ok(), needed.is_subset(&granted));
            if let Err(denial) = outcome {
                prop_assert_eq!(denial.status(), 403);
                let challenge = denial.challenge().unwrap();
                let parameter = format!("scope=\"{}\"", join(&needed));
                prop_assert!(challenge.contains(&parameter));
            }
        }
    }
}

mod answers {
    use super::*;
    use crate::message::challenge::{BearerChallenge, parse_challenges};

    const METADATA: &str = "https://mcp.example/.well-known/oauth-protected-resource/mcp";

    fn of(reason: DenialReason) -> Denial {
        Denial::new(&server(), &required("files:read files:write"), reason)
    }

    fn parsed(denial: &Denial) -> BearerChallenge {
        let respond = denial.respond();
        let value = respond.header("www-authenticate").unwrap();
        let challenges = parse_challenges([value.as_bytes()]).unwrap();
        assert_eq!(challenges.len(), 1);
        BearerChallenge::find(&challenges).unwrap().unwrap()
    }

    // OAUTH21-5.3.2-2, MCP-AUTH-014, MCP-AUTH-076, OAUTH21-5.3.1-1, OAUTH21-5.3.1-2
    #[test]
    fn without_credentials_the_challenge_has_scope_and_place_and_no_error() {
        for reason in
            [DenialReason::NoCredentials, DenialReason::OtherScheme, DenialReason::TokenOutsideHeader]
        {
            let denial = of(reason);
            assert_eq!(denial.status(), 401);
            let challenge = parsed(&denial);
            assert_eq!(challenge.error, None);
            assert_eq!(challenge.error_description, None);
            assert_eq!(challenge.scope.as_deref(), Some("files:read files:write"));
            assert_eq!(challenge.resource_metadata.as_deref(), Some(METADATA));
        }
    }

    // OAUTH21-5.3.1-5, OAUTH21-5.3.2-1, RFC9068-4-6
    #[test]
    fn a_token_that_failed_is_invalid_whatever_the_reason() {
        let reasons = [
            DenialReason::Token(JwsError::Signature),
            DenialReason::OpaqueToken,
            DenialReason::UnknownIssuer,
            DenialReason::UnknownKey,
            DenialReason::TokenType,
            DenialReason::Claim(Some("sub")),
            DenialReason::Audience,
            DenialReason::Expired,
            DenialReason::NotYetValid,
            DenialReason::BoundToKey,
            DenialReason::AuthorizationDetails,
            DenialReason::IdToken,
            DenialReason::Inactive,
            DenialReason::IntrospectionAnswer,
        ];
        let mut answers: Vec<_> = reasons
            .into_iter()
            .map(|reason| {
                let denial = of(reason);
                assert_eq!(denial.status(), 401, "{reason}");
                assert_eq!(parsed(&denial).error.as_deref(), Some("invalid_token"));
                assert_eq!(parsed(&denial).scope.as_deref(), Some("files:read files:write"));
                (denial.challenge(), denial.respond().body().to_vec())
            })
            .collect();
        // The peer cannot tell one from the other.
        answers.dedup();
        assert_eq!(answers.len(), 1);
    }

    // MCP-AUTH-092
    #[test]
    fn a_malformed_attempt_is_a_bad_request() {
        for reason in [DenialReason::SeveralCredentials, DenialReason::MalformedCredentials] {
            let denial = of(reason);
            assert_eq!(denial.status(), 400);
            assert_eq!(parsed(&denial).error.as_deref(), Some("invalid_request"));
        }
    }

    // MCP-AUTH-101, MCP-AUTH-102, MCP-AUTH-103
    #[test]
    fn a_shortfall_names_scopes_place_and_error() {
        let challenge = parsed(&of(DenialReason::InsufficientScope));
        assert_eq!(challenge.error.as_deref(), Some("insufficient_scope"));
        assert_eq!(challenge.scope.as_deref(), Some("files:read files:write"));
        assert_eq!(challenge.resource_metadata.as_deref(), Some(METADATA));
        assert!(challenge.error_description.is_some());
    }

    #[test]
    fn an_issuer_out_of_reach_is_503_with_a_time_to_come_back() {
        for reason in [
            DenialReason::IntrospectionFailed(FetchFailure::TimedOut),
            DenialReason::IntrospectionRefused(500),
        ] {
            let respond = of(reason).respond();
            assert_eq!(respond.status(), 503);
            assert_eq!(respond.header("www-authenticate"), None);
            assert!(respond.header("retry-after").is_some());
        }
    }

    #[test]
    fn bodies_are_json_and_are_not_cached() {
        for reason in [DenialReason::NoCredentials, DenialReason::Expired, DenialReason::LocalPolicy] {
            let respond = of(reason).respond();
            assert_eq!(respond.header("content-type"), Some("application/json"));
            assert_eq!(respond.header("cache-control"), Some("no-store"));
            assert!(JsonObject::parse(respond.body(), 1000).is_ok());
        }
    }

    // MCP-AUTH-015, MCP-SBP-050, MCP-AUTH-104
    #[test]
    fn a_challenge_names_the_scopes_of_the_operation_and_not_the_catalogue() {
        let server = server().with_scopes_supported(scopes("a b c d")).unwrap();
        let missing = server.admit(&head(), &required("b x")).unwrap_err();
        assert_eq!(parsed(&missing).scope.as_deref(), Some("b x"));
        let short = verify(&server, &token(&with("scope", "\"b\"")))
            .unwrap()
            .authorize(&required("b x"))
            .unwrap_err();
        assert_eq!(parsed(&short).scope.as_deref(), Some("b x"));
    }

    // MCP-AUTH-019
    #[test]
    fn the_same_operation_is_challenged_the_same_way() {
        let denial = || server().admit(&head(), &required("b a")).unwrap_err().challenge();
        assert_eq!(denial(), denial());
        let short =
            verify(&server(), &token(&without("scope"))).unwrap().authorize(&required("a b")).unwrap_err();
        let missing = server().admit(&head(), &required("b a")).unwrap_err();
        assert_eq!(parsed(&short).scope, parsed(&missing).scope);
    }

    #[test]
    fn a_challenge_without_scopes_still_has_a_parameter() {
        let denial = server().admit(&head(), &RequiredScopes::none()).unwrap_err();
        let challenge = parsed(&denial);
        assert_eq!(challenge.scope, None);
        assert_eq!(challenge.resource_metadata.as_deref(), Some(METADATA));
    }

    // I-A9: nothing of the request's head reaches an answer.
    #[test]
    fn answers_and_document_do_not_depend_on_the_request() {
        let head = to("/evil?host=evil.example")
            .with_header("x-forwarded-host", b"evil.example")
            .with_header("forwarded", b"host=evil.example");
        let evil = server().admit(&head, &required("a")).unwrap_err();
        let plain = server().admit(&super::head(), &required("a")).unwrap_err();
        assert_eq!(evil.challenge(), plain.challenge());
        assert_eq!(evil.respond().body(), plain.respond().body());
    }

    proptest! {
        // I-A8: whatever the scopes, the challenge is printable ASCII and reads back to the same values.
        #[test]
        fn a_challenge_reads_back_to_what_was_meant(
            names in proptest::collection::btree_set("[!#-\\[\\]-~]{1,12}", 1..6), path in "[a-zA-Z0-9/_-]{0,12}",
        ) {
            prop_assume!(!names.contains("offline_access") && !path.ends_with('/') && !path.contains("//"));
            let path = path.trim_start_matches('/');
            let text = names.iter().cloned().collect::<Vec<_>>().join(" ");
            let resource = ResourceId::new(format!("https://mcp.example/x{path}")).unwrap();
            let server = ResourceServer::new(resource, [signed_issuer()]).unwrap();
            for reason in [DenialReason::InsufficientScope, DenialReason::NoCredentials, DenialReason::Expired] {
                let denial = Denial::new(&server, &required(&text), reason);
                let value = denial.challenge().unwrap();
                prop_assert!(value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
                let challenge = parsed(&denial);
                prop_assert_eq!(challenge.scope.map(|scope| ScopeSet::parse(&scope).unwrap()), Some(scopes(&text)));
                prop_assert_eq!(challenge.resource_metadata.as_deref(), Some(server.metadata_url()));
                prop_assert_eq!(challenge.realm, None);
            }
        }
    }
}

mod documents {
    use super::*;
    use crate::message::protected_resource_metadata::ProtectedResourceMetadata;

    // MCP-AUTH-009, MCP-DISC-001, MCP-DISC-006, RFC9728-2-1, RFC9728-3-1, RFC9728-3.2-1, RFC9728-3.2-3
    #[test]
    fn the_document_says_who_the_resource_is_and_who_issues_tokens() {
        let other = TrustedIssuer::with_keys(issuer(OTHER_ISSUER), keys_of(key()));
        let server = server_with([other, signed_issuer()])
            .with_scopes_supported(scopes("files:read files:write"))
            .unwrap()
            .with_name("Files");
        assert_eq!(server.metadata_path(), "/.well-known/oauth-protected-resource/mcp");
        assert_eq!(server.metadata_url(), "https://mcp.example/.well-known/oauth-protected-resource/mcp");
        let respond = server.metadata_response();
        assert_eq!(respond.status(), 200);
        assert_eq!(respond.header("content-type"), Some("application/json"));
        assert!(respond.header("cache-control").unwrap().contains("max-age"));
        let document = ProtectedResourceMetadata::parse(respond.body()).unwrap();
        assert_eq!(document.resource.as_str(), RESOURCE);
        let issuers: Vec<_> = document.authorization_servers.iter().map(Issuer::as_str).collect();
        assert_eq!(issuers, [OTHER_ISSUER, ISSUER]);
        assert_eq!(document.scopes_supported, Some(scopes("files:read files:write")));
        assert_eq!(document.bearer_methods_supported, Some(Vec::from(["header".to_string()])));
        assert_eq!(document.resource_name.as_deref(), Some("Files"));
    }

    #[test]
    fn what_is_not_configured_is_left_out() {
        let respond = server().metadata_response();
        let document = JsonObject::parse(respond.body(), 10_000).unwrap();
        let names: Vec<_> = document.names().collect();
        assert_eq!(names, ["authorization_servers", "bearer_methods_supported", "resource"]);
    }

    #[test]
    fn a_host_alone_has_its_document_at_the_root() {
        let server =
            ResourceServer::new(ResourceId::new("https://mcp.example").unwrap(), [signed_issuer()]).unwrap();
        assert_eq!(server.metadata_path(), "/.well-known/oauth-protected-resource");
        assert_eq!(server.metadata().resource.as_str(), "https://mcp.example");
    }
}

mod key_sets {
    use super::*;
    use crate::jose::toy::ToyImporter;
    use crate::message::exchange::AddressPolicy;

    const SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"n"}]}"#;

    fn receive(reply: Result<Reply, FetchFailure>) -> Result<(Issuer, KeySet), KeySetFailure> {
        let uri = Endpoint::new("https://as.example/jwks").unwrap();
        let (fetch, awaiting) = fetch_key_set(issuer(ISSUER), &uri, AddressPolicy::Public).into_parts();
        assert_eq!((fetch.method(), fetch.url()), ("GET", "https://as.example/jwks"));
        assert_eq!(awaiting.issuer().as_str(), ISSUER);
        awaiting.receive(reply, &ToyImporter)
    }

    #[test]
    fn a_fetched_set_is_taken_whole_for_its_issuer() {
        let (of, keys) = receive(Ok(Reply::new(200, SET))).unwrap();
        let server = server().with_replaced_keys(&of, keys).unwrap();
        let fetched = ToyKey::new(Algorithm::EdDsa, 0xd7);
        let header = r#"{"alg":"EdDSA","kid":"n","typ":"at+jwt"}"#;
        assert!(verify(&server, &fetched.token(header, &json(&good_claims()))).is_ok());
        assert_eq!(verify(&server, &token(&good_claims())).unwrap_err().reason(), DenialReason::UnknownKey);
    }

    // D42
    #[test]
    fn a_set_that_cannot_be_used_is_a_failed_fetch() {
        assert!(matches!(receive(Err(FetchFailure::TimedOut)), Err(KeySetFailure::Fetch(_))));
        for status in [204, 302, 404, 500] {
            assert!(
                matches!(receive(Ok(Reply::new(status, SET))), Err(KeySetFailure::Status(_))),
                "{status}"
            );
        }
        for body in ["", "{}", r#"{"keys":[]}"#, "<html>"] {
            assert!(matches!(receive(Ok(Reply::new(200, body))), Err(KeySetFailure::Invalid(_))), "{body}");
        }
        let twice = SET.replace("[{", "[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\",\"kid\":\"n\"},{");
        assert!(matches!(receive(Ok(Reply::new(200, twice))), Err(KeySetFailure::Invalid(_))));
    }
}
