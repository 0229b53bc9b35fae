//! The inbound token exchanged for another: where it goes, and what is accepted in return (RFC 8693).

use super::*;
use crate::message::exchange::AddressPolicy;
use crate::syntax::form::Form;

const TARGET: &str = "https://calendar.example/api";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

fn exchange_of(issuer_id: &str) -> TokenExchange {
    TokenExchange::new(
        issuer(issuer_id),
        Endpoint::new("https://as.example/token").unwrap(),
        ClientId::new("rs").unwrap(),
        ClientSecret::new("rs-secret-canary").unwrap(),
    )
}

fn exchanging() -> ResourceServer {
    server().with_token_exchange(exchange_of(ISSUER)).unwrap()
}

fn authorized(server: &ResourceServer) -> (String, Authorized) {
    let token = token(&good_claims());
    let authorized = verify(server, &token).unwrap().authorize(&required("files:read")).unwrap();
    (token, authorized)
}

fn begin(scope: &str) -> (Fetch, AwaitingExchange) {
    let scopes = if scope.is_empty() { ScopeSet::new() } else { scopes(scope) };
    let (_, authorized) = authorized(&exchanging());
    authorized.subject_token().unwrap().exchange(ResourceId::new(TARGET).unwrap(), &scopes).into_parts()
}

fn receive(scope: &str, status: u16, body: &str) -> Result<ExchangedToken, ExchangeFailure> {
    let reply = Reply::new(status, body).with_header("content-type", b"application/json");
    begin(scope).1.receive(Ok(reply), now())
}

fn answer(change: Option<(&str, &str)>) -> String {
    let mut members = BTreeMap::from([
        ("access_token", "\"new-token\"".into()),
        ("issued_token_type", format!("\"{ACCESS_TOKEN}\"")),
        ("token_type", "\"bearer\"".into()),
        ("expires_in", "60".into()),
    ]);
    if let Some((name, value)) = change {
        members.insert(name, value.into());
    }
    let members: Vec<_> = members
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

// RFC8693-2.1-1, RFC8693-2.1-2
#[test]
fn the_request_goes_to_the_configured_endpoint_and_names_one_target() {
    let (token, authorized) = authorized(&exchanging());
    let step = authorized
        .subject_token()
        .unwrap()
        .exchange(ResourceId::new(TARGET).unwrap(), &scopes("events:read"));
    let (fetch, waiting) = step.into_parts();
    assert_eq!((fetch.purpose(), fetch.method()), (FetchPurpose::TokenExchange, "POST"));
    assert_eq!(fetch.url(), "https://as.example/token");
    assert_eq!(fetch.policy().addresses(), AddressPolicy::Public);
    assert!(fetch.authorization().unwrap().starts_with("Basic "));
    let form = Form::parse(fetch.body()).unwrap();
    for (name, value) in [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", &token),
        ("subject_token_type", ACCESS_TOKEN),
        ("requested_token_type", ACCESS_TOKEN),
        ("resource", TARGET),
        ("scope", "events:read"),
    ] {
        assert_eq!(form.get(name), Some(value), "{name}");
    }
    assert_eq!(form.names().count(), 6);
    let shown = format!("{fetch:?} {waiting:?} {authorized:?} {:?}", authorized.subject_token());
    assert!(!shown.contains(&token) && !shown.contains("canary"), "{shown}");
    // Without scopes the parameter is not there.
    assert_eq!(Form::parse(begin("").0.body()).unwrap().get("scope"), None);
}

// I-A7, MCP-AUTH-079
#[test]
fn without_that_configuration_no_token_is_kept() {
    let (token, authorized) = authorized(&server());
    assert!(authorized.subject_token().is_none());
    assert!(!format!("{authorized:?}").contains(&token));
}

// I-A7
#[test]
fn a_token_of_another_issuer_is_not_exchanged() {
    let other = TrustedIssuer::with_keys(issuer(OTHER_ISSUER), keys_of(key()));
    let server = server_with([signed_issuer(), other]).with_token_exchange(exchange_of(ISSUER)).unwrap();
    let theirs = token(&with("iss", format!("\"{OTHER_ISSUER}\"")));
    let mut cache = TokenCache::default();
    let mut subject_token = |token: &str| {
        let presented = server.admit(&bearing(token), &RequiredScopes::none()).unwrap();
        let verified = match cache.recall(presented, now()) {
            Recalled::Verified(verified) => verified,
            Recalled::Denied(denial) => panic!("{denial:?}"),
            Recalled::Unknown(presented) => {
                let VerificationOutcome::Verified(verified) = presented.verify(now()) else { panic!("good") };
                cache.keep(&verified, now());
                verified
            }
        };
        verified.authorize(&RequiredScopes::none()).unwrap().subject_token().is_some()
    };
    // The second time it is remembered.
    for _ in 0..2 {
        assert!(subject_token(&token(&good_claims())));
        assert!(!subject_token(&theirs));
    }
    let asking = TrustedIssuer::with_introspection(issuer(OTHER_ISSUER), introspection());
    let asking = server_with([signed_issuer(), asking]).with_token_exchange(exchange_of(ISSUER)).unwrap();
    let step = match asking.admit(&bearing("opaque"), &RequiredScopes::none()).unwrap().verify(now()) {
        VerificationOutcome::Introspect(step) => step,
        other => panic!("{other:?}"),
    };
    let answer = active(Some(("iss", None)));
    let reply = Reply::new(200, answer).with_header("content-type", b"application/json");
    let verified = step.into_parts().1.receive(Ok(reply), now()).unwrap();
    assert!(verified.authorize(&RequiredScopes::none()).unwrap().subject_token().is_none());
}

// I-G8
#[test]
fn an_exchange_is_of_an_issuer_whose_tokens_are_accepted() {
    let refused = server().with_token_exchange(exchange_of(OTHER_ISSUER));
    assert_eq!(refused.unwrap_err(), InvalidConfiguration::ExchangeIssuer);
}

#[test]
fn a_remembered_token_can_be_exchanged_as_itself() {
    let (server, mut cache) = (exchanging(), TokenCache::default());
    let token = token(&good_claims());
    let mut recall = || cache.recall(server.admit(&bearing(&token), &RequiredScopes::none()).unwrap(), now());
    let Recalled::Unknown(presented) = recall() else { panic!("nothing is known yet") };
    let VerificationOutcome::Verified(verified) = presented.verify(now()) else { panic!("a good token") };
    cache.keep(&verified, now());
    assert!(!format!("{cache:?}").contains(&token), "the cache holds no token");
    let Recalled::Verified(verified) =
        cache.recall(server.admit(&bearing(&token), &RequiredScopes::none()).unwrap(), now())
    else {
        panic!("it is remembered")
    };
    let authorized = verified.authorize(&RequiredScopes::none()).unwrap();
    let step =
        authorized.subject_token().unwrap().exchange(ResourceId::new(TARGET).unwrap(), &ScopeSet::new());
    assert_eq!(Form::parse(step.action().body()).unwrap().get("subject_token"), Some(token.as_str()));
}

// I-L7
#[test]
fn what_comes_back_is_for_the_target_alone() {
    let exchanged = receive("events:read", 200, &answer(None)).unwrap();
    assert_eq!(exchanged.target().as_str(), TARGET);
    assert_eq!(exchanged.scopes(), &scopes("events:read"));
    assert_eq!(exchanged.expires_at(), Some(now() + Duration::seconds(60)));
    for url in [TARGET, "https://calendar.example/api/events"] {
        assert_eq!(exchanged.authorization_for(url).unwrap().as_str(), "Bearer new-token", "{url}");
    }
    for url in [
        "https://calendar.example/",
        "https://calendar.example/apix",
        "http://calendar.example/api",
        RESOURCE,
        "",
    ] {
        assert!(exchanged.authorization_for(url).is_none(), "{url}");
    }
    assert!(!format!("{exchanged:?}").contains("new-token"));
}

// RFC 8693 section 2.2.1
#[test]
fn only_the_access_token_that_was_asked_for_is_taken() {
    for (name, value) in [
        ("issued_token_type", "\"urn:ietf:params:oauth:token-type:id_token\""),
        ("issued_token_type", "\"urn:ietf:params:oauth:token-type:refresh_token\""),
        ("token_type", "\"DPoP\""),
    ] {
        let refused = receive("a", 200, &answer(Some((name, value)))).unwrap_err();
        assert_eq!(refused, ExchangeFailure::OtherType, "{name} {value}");
    }
    for (name, value) in [
        ("issued_token_type", ""),
        ("issued_token_type", "1"),
        ("token_type", "\"N_A\""),
        ("token_type", ""),
        ("access_token", "\"\""),
        ("access_token", "\"a b\""),
        ("expires_in", "\"60\""),
        ("scope", "[\"a\"]"),
    ] {
        let refused = receive("a", 200, &answer(Some((name, value)))).unwrap_err();
        assert_eq!(refused, ExchangeFailure::Malformed, "{name} {value}");
    }
    let more = receive("a b", 200, &answer(Some(("scope", "\"a c\"")))).unwrap_err();
    assert_eq!(more, ExchangeFailure::MoreScopes);
    assert_eq!(receive("a b", 200, &answer(Some(("scope", "\"a\"")))).unwrap().scopes(), &scopes("a"));
    assert_eq!(receive("", 200, &answer(Some(("scope", "\"a\"")))).unwrap().scopes(), &scopes("a"));
}

// D26
#[test]
fn refusals_and_failures_are_told_apart() {
    for (status, error) in
        [(400, "invalid_request"), (400, "invalid_target"), (401, "invalid_client"), (200, "invalid_grant")]
    {
        let refused = receive("a", status, &format!(r#"{{"error":"{error}"}}"#)).unwrap_err();
        assert!(matches!(refused, ExchangeFailure::Refused(_)), "{error}");
    }
    for status in [201, 302, 404, 429, 500, 503] {
        assert_eq!(receive("a", status, &answer(None)).unwrap_err(), ExchangeFailure::Status(status));
    }
    for body in ["", "{}", "[]", r#"{"access_token":"a","access_token":"b"}"#] {
        assert_eq!(receive("a", 200, body).unwrap_err(), ExchangeFailure::Malformed, "{body}");
    }
    let page = Reply::new(200, answer(None)).with_header("content-type", b"text/html");
    assert_eq!(begin("a").1.receive(Ok(page), now()).unwrap_err(), ExchangeFailure::Malformed);
    let failed = begin("a").1.receive(Err(FetchFailure::TimedOut), now()).unwrap_err();
    assert_eq!(failed, ExchangeFailure::Fetch(FetchFailure::TimedOut));
}

// RFC8693-4.1-1
#[test]
fn an_actor_inside_a_token_decides_nothing() {
    let act = r#"{"sub":"admin","client_id":"other","scope":"files:delete","act":{"sub":"root"}}"#;
    let plain =
        verify(&server(), &token(&good_claims())).unwrap().authorize(&required("files:read")).unwrap();
    let acted =
        verify(&server(), &token(&with("act", act))).unwrap().authorize(&required("files:read")).unwrap();
    assert_eq!(
        (acted.subject(), acted.client(), acted.scopes()),
        (plain.subject(), plain.client(), plain.scopes())
    );
    let delete = verify(&server(), &token(&with("act", act))).unwrap().authorize(&required("files:delete"));
    assert_eq!(delete.unwrap_err().reason(), DenialReason::InsufficientScope);
}
