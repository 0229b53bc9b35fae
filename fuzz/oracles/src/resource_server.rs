//! The resource server over any request, token and answer of an issuer: what passes says what it must, to a second
//! reader of the same bytes, and what does not is answered in a form that reads back (I-A1, I-A3, I-A8, I-A10, I-A11,
//! I-A14, I-T9).

use mcp_authz::identifier::{ClientId, Endpoint, Issuer, ResourceId, ScopeSet};
use mcp_authz::jose::{Algorithm, BadSignature, KeySet, VerifyingKey};
use mcp_authz::message::challenge::{BearerChallenge, parse_challenges};
use mcp_authz::message::exchange::{Reply, RequestHead};
use mcp_authz::resource_server::{
    Authorized, Denial, Introspection, Recalled, RequiredScopes, ResourceServer, TokenCache, TrustedIssuer,
    VerificationOutcome,
};
use mcp_authz::secret::{ClientSecret, SecretDigest};
use mcp_authz::syntax::base64url;
use mcp_authz::time::OffsetDateTime;
use serde_json::Value;

const NOW: i64 = 1_800_000_000;
const LEEWAY: i64 = 30;
const ISSUER: &str = "https://as.example";
const RESOURCE: &str = "https://mcp.example/mcp";

struct Tag;

impl VerifyingKey for Tag {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDsa
    }

    fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if tag(signed) == signature { Ok(()) } else { Err(BadSignature) }
    }
}

fn tag(signed: &[u8]) -> Vec<u8> {
    SecretDigest::of(signed).as_bytes().repeat(2)
}

fn server() -> ResourceServer {
    let keys =
        KeySet::new([(Some("k".to_owned()), Box::new(Tag) as Box<dyn VerifyingKey>)]).expect("one key");
    let asked = Introspection::new(
        Endpoint::new("https://as.example/introspect").expect("an endpoint"),
        ClientId::new("rs").expect("a client"),
        ClientSecret::new("secret").expect("a secret"),
    );
    let issuer = TrustedIssuer::with_keys(Issuer::new(ISSUER).expect("an issuer"), keys);
    let resource = ResourceId::new(RESOURCE).expect("a resource");
    ResourceServer::new(resource, [issuer.and_introspection(asked)]).expect("a configuration")
}

/// Lines: `Host`, `Origin`, target, `Authorization`, header and claims of a token that takes the place of `%` in the
/// line before; the rest is the issuer's answer about an opaque token.
pub fn resource_server(data: &[u8]) {
    let mut lines = data.splitn(7, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (host, origin, target, authorization) = (line(), line(), line(), line());
    let (header, claims, answer) = (line(), line(), line());
    let signed = format!("{}.{}", base64url::encode(header), base64url::encode(claims));
    let token = format!("{signed}.{}", base64url::encode(&tag(signed.as_bytes())));
    let mut field = Vec::new();
    for byte in authorization {
        match byte {
            b'%' => field.extend_from_slice(token.as_bytes()),
            byte => field.push(*byte),
        }
    }
    let target = String::from_utf8_lossy(target);
    let mut head = RequestHead::new("POST", &target);
    for (name, value) in [("host", host), ("origin", origin), ("authorization", field.as_slice())] {
        if !value.is_empty() {
            head = head.with_header(name, value);
        }
    }

    let server = server();
    let required = RequiredScopes::new(ScopeSet::parse("read").expect("a scope")).expect("no offline_access");
    let mut cache = TokenCache::default();
    let first = decide(&server, &head, &required, answer, &mut cache);
    let second = decide(&server, &head, &required, answer, &mut cache);
    match (&first, &second) {
        (Ok(one), Ok(other)) => assert_eq!((one.subject(), one.scopes()), (other.subject(), other.scopes())),
        (Err(one), Err(other)) => assert_eq!(one.reason(), other.reason(), "a cache changes an answer"),
        _ => panic!("a cache changes an answer"),
    }
    match first {
        Ok(authorized) => {
            assert!(
                host.eq_ignore_ascii_case(b"mcp.example") || host.eq_ignore_ascii_case(b"mcp.example:443")
            );
            assert!(origin.is_empty() || origin == b"https://mcp.example");
            let presented = bearer(&field).expect("something else than a bearer token is taken");
            let says = if presented.matches('.').count() == 2 { claims } else { answer };
            holds(&authorized, says, says == answer);
            if says == claims {
                assert!(presented == token, "another text than the token is taken");
            }
        }
        Err(denial) => readable(&denial),
    }
}

fn decide(
    server: &ResourceServer,
    head: &RequestHead,
    required: &RequiredScopes,
    answer: &[u8],
    cache: &mut TokenCache,
) -> Result<Authorized, Denial> {
    let now = OffsetDateTime::from_unix_timestamp(NOW).expect("a time");
    let verified = match cache.recall(server.admit(head, required)?, now) {
        Recalled::Verified(verified) => return verified.authorize(required),
        Recalled::Denied(denial) => return Err(denial),
        Recalled::Unknown(presented) => match presented.verify(now) {
            VerificationOutcome::Verified(verified) => Ok(verified),
            VerificationOutcome::Denied(denial) => Err(denial),
            VerificationOutcome::Introspect(step) => {
                let reply = Reply::new(200, answer).with_header("content-type", b"application/json");
                step.into_parts().1.receive(Ok(reply), now)
            }
        },
    };
    match verified {
        Ok(verified) => {
            cache.keep(&verified, now);
            verified.authorize(required)
        }
        Err(denial) => {
            cache.keep_denial(&denial, now);
            Err(denial)
        }
    }
}

/// The token of a well-formed field, read another way.
fn bearer(field: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(field).ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim_start_matches(' ');
    let plain = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte));
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && plain).then_some(token)
}

/// What passed says what it must to another JSON reader.
fn holds(authorized: &Authorized, says: &[u8], by_issuer: bool) {
    let says: Value = serde_json::from_slice(says).expect("what is no JSON is taken");
    let text = |name: &str| says.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    assert_eq!(text("sub"), Some(authorized.subject()));
    assert_eq!(text("client_id"), Some(authorized.client().as_str()));
    assert!(text("iss") == Some(ISSUER) || (by_issuer && says.get("iss").is_none()));
    let ours = |audience: &Value| {
        audience.as_str().is_some_and(|text| text.eq_ignore_ascii_case(RESOURCE) && text.ends_with("/mcp"))
    };
    let audience = &says["aud"];
    assert!(ours(audience) || audience.as_array().is_some_and(|each| each.iter().any(ours)));
    let exp = &says["exp"];
    assert!(exp.is_u64() && exp.as_i64().is_none_or(|exp| exp > NOW - LEEWAY));
    for start in ["nbf", "iat"] {
        assert!(
            says.get(start).is_none_or(|start| start.as_i64().is_some_and(|start| start <= NOW + LEEWAY))
        );
    }
    assert!(says.get("cnf").is_none() && says.get("authorization_details").is_none());
    assert!(text("scope").is_some_and(|scope| scope.split(' ').any(|token| token == "read")));
    assert!(!by_issuer || says["active"] == Value::Bool(true));
}

/// A denial is answered, and its challenge reads back to what every challenge of that server says.
fn readable(denial: &Denial) {
    let respond = denial.respond();
    assert!(matches!(respond.status(), 400 | 401 | 403 | 421 | 503));
    let Some(challenge) = denial.challenge() else { return };
    assert!(challenge.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
    let challenges = parse_challenges([challenge.as_bytes()]).expect("our own challenge reads back");
    let bearer =
        BearerChallenge::find(&challenges).expect("a well-formed challenge").expect("a Bearer challenge");
    let place = "https://mcp.example/.well-known/oauth-protected-resource/mcp";
    assert_eq!(bearer.resource_metadata.as_deref(), Some(place));
    assert!(bearer.scope.is_none_or(|scope| scope == "read"));
}
