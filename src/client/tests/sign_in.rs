//! Signing in at an OpenID Provider: OpenID Connect Core section 3.1.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::{Counter, NoEntropy, configuration, issuer, json, now, policy, scopes, server_metadata};
use crate::client::{
    AwaitingSignIn, Client, EndpointCall, PreRegistered, Provider, SignInOutcome, SignInRecord, SignedIn,
};
use crate::error::{
    Error, HostMisuse, IdTokenFault, OutsideFailed, PeerIncompatible, PeerMisbehaved, Remedy,
};
use crate::identifier::{ClientId, Origin, RedirectUri};
use crate::jose::toy::{ToyImporter, ToyKey};
use crate::jose::{Algorithm, InvalidKeySet, JwsError};
use crate::message::Malformed;
use crate::message::authorization::Callback;
use crate::message::exchange::{AddressPolicy, Fetch, FetchFailure, FetchPurpose, Reply};
use crate::policy::{PrivateNetworks, Relaxation};
use crate::sealer::PlaintextRecords;
use crate::secret::{AgentBinding, ClientSecret};
use crate::syntax::base64url;
use crate::syntax::form::Form;
use crate::time::Duration;

const ISSUER: &str = "https://as.example";
const REDIRECT: &str = "https://host.example/sign-in/op";

fn identity(issuer_text: &str, redirect: &str) -> PreRegistered {
    let redirect = RedirectUri::new(redirect).unwrap();
    PreRegistered::new(issuer(issuer_text), ClientId::new("host").unwrap(), redirect, [])
        .secret(ClientSecret::new("secret").unwrap())
}

fn client() -> Client {
    Client::new(configuration().pre_registered(identity(ISSUER, REDIRECT))).unwrap()
}

/// The provider's document, with a place of its keys.
fn document(changes: &[(&str, &str)]) -> Reply {
    let mut all = Vec::from([("jwks_uri", "\"https://as.example/jwks\"")]);
    all.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    all.extend(changes);
    server_metadata(&all)
}

fn provider_of(client: &Client, changes: &[(&str, &str)]) -> Result<Provider, Error> {
    let (fetch, waiting) = client.sign_in(&issuer(ISSUER))?.into_parts();
    assert_eq!(fetch.url(), "https://as.example/.well-known/openid-configuration");
    assert_eq!(fetch.policy().addresses(), AddressPolicy::Public);
    waiting.receive(Ok(document(changes)))
}

fn provider() -> Provider {
    provider_of(&client(), &[]).unwrap()
}

fn browser(n: u8) -> AgentBinding {
    AgentBinding::session(&[n; 32]).unwrap()
}

/// A sign-in that has begun in browser 1, and the parameters of its request.
fn begun(provider: &Provider) -> (Form, AwaitingSignIn) {
    let (open, waiting) = provider.begin(browser(1), now(), &mut Counter(0)).unwrap().into_parts();
    let query = open.url().split_once('?').unwrap().1.to_string();
    (Form::parse(query.as_bytes()).unwrap(), waiting)
}

fn callback(at: &str, form: &Form, rest: &str) -> Callback {
    let state = form.get("state").unwrap();
    Callback::from_parts(at, &format!("state={state}&{rest}")).unwrap()
}

const ANSWER: &str = "code=c&iss=https%3A%2F%2Fas.example";

fn answered(waiting: AwaitingSignIn, form: &Form) -> SignInOutcome {
    waiting.receive(callback(REDIRECT, form, ANSWER), &browser(1), now(), &mut Counter(9))
}

/// What an ID token says, with one claim replaced, or left out by an empty text.
fn claims(nonce: &str, changes: &[(&str, &str)]) -> String {
    let at = now().unix_timestamp();
    let mut members = Vec::from([
        ("iss".to_string(), "\"https://as.example\"".to_string()),
        ("sub".to_string(), "\"248289761001\"".to_string()),
        ("aud".to_string(), "\"host\"".to_string()),
        ("exp".to_string(), (at + 300).to_string()),
        ("iat".to_string(), at.to_string()),
        ("nonce".to_string(), format!("\"{nonce}\"")),
        ("name".to_string(), "\"Ann\"".to_string()),
    ]);
    for (name, value) in changes {
        members.retain(|(known, _)| known != name);
        if !value.is_empty() {
            members.push((name.to_string(), value.to_string()));
        }
    }
    let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

const HEADER: &str = r#"{"alg":"EdDSA","kid":"k"}"#;

fn key() -> ToyKey {
    ToyKey::new(Algorithm::EdDsa, 7)
}

fn jwks() -> Reply {
    let x = base64url::encode(&[7; 32]);
    json(format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"k","x":"{x}"}}]}}"#))
}

/// What a sign-in comes to in which the provider sends this token.
fn signed_in_by(token: impl FnOnce(&str) -> String) -> Result<SignedIn, Error> {
    let (form, waiting) = begun(&provider());
    let SignInOutcome::Accepted(EndpointCall::Fetch(step)) = answered(waiting, &form) else {
        panic!("the answer is ours")
    };
    let token = token(form.get("nonce").unwrap());
    let (_, waiting) = step.into_parts();
    let reply = json(format!(r#"{{"access_token":"t","token_type":"Bearer","id_token":"{token}"}}"#));
    let (fetch, waiting) = waiting.receive(Ok(reply))?.into_parts();
    assert_eq!((fetch.purpose(), fetch.url()), (FetchPurpose::KeySet, "https://as.example/jwks"));
    waiting.receive(Ok(jwks()), &ToyImporter, now())
}

fn fault(header: &str, changes: &[(&str, &str)]) -> IdTokenFault {
    match signed_in_by(|nonce| key().token(header, &claims(nonce, changes))) {
        Err(Error::Peer(PeerMisbehaved::IdToken(fault))) => fault,
        other => panic!("{header} {changes:?}: {other:?}"),
    }
}

// OIDCC-3.1.2.1-1, OIDCC-3.1.2.1-2, I-L5, I-P4
#[test]
fn the_request_asks_who_the_person_is_and_for_no_resource() {
    let provider = provider();
    let (form, _) = begun(&provider);
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "host"),
        ("redirect_uri", REDIRECT),
        ("scope", "openid"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(form.get(name), Some(value), "{name}");
    }
    assert_eq!(form.get("resource"), None);
    let drawn = ["state", "nonce", "code_challenge"].map(|name| form.get(name).unwrap().to_string());
    assert!(drawn.iter().all(|value| value.len() == 43));
    assert!(drawn[0] != drawn[1] && drawn[1] != drawn[2]);
    let (open, _) = provider.begin(browser(1), now(), &mut Counter(50)).unwrap().into_parts();
    assert!(drawn.iter().all(|value| !open.url().contains(value.as_str())), "each request has its own");
    assert!(provider.begin(browser(1), now(), &mut NoEntropy).is_err());
    let pinned = identity(ISSUER, REDIRECT).scopes(scopes("profile email"));
    let pinned = Client::new(configuration().pre_registered(pinned)).unwrap();
    assert_eq!(begun(&provider_of(&pinned, &[]).unwrap()).0.get("scope"), Some("email openid profile"));
}

#[test]
fn a_person_signs_in_and_is_known_by_issuer_and_subject() {
    let signed_in = signed_in_by(|nonce| key().token(HEADER, &claims(nonce, &[]))).unwrap();
    assert_eq!(signed_in.issuer().as_str(), ISSUER);
    assert_eq!((signed_in.subject(), signed_in.name()), ("248289761001", Some("Ann")));
    assert_eq!(signed_in.local_subject(), "https://as.example#248289761001");
    assert_eq!(signed_in.authenticated(), now());
    let early = (now().unix_timestamp() - 7200).to_string();
    let signed_in = signed_in_by(|nonce| key().token(HEADER, &claims(nonce, &[("auth_time", &early)])));
    assert_eq!(signed_in.unwrap().authenticated(), now() - Duration::hours(2));
    // Nobody has authenticated tomorrow, whatever the provider's clock says.
    let ahead = (now().unix_timestamp() + 86_400).to_string();
    let signed_in = signed_in_by(|nonce| key().token(HEADER, &claims(nonce, &[("auth_time", &ahead)])));
    assert_eq!(signed_in.unwrap().authenticated(), now());
}

// OIDCC-5.7-1
#[test]
fn a_local_subject_is_of_one_provider_and_one_person() {
    let local = |sub: &str| {
        let sub = format!("\"{sub}\"");
        signed_in_by(|nonce| key().token(HEADER, &claims(nonce, &[("sub", &sub)]))).unwrap().local_subject()
    };
    assert_eq!(local("a#b c/%"), "https://as.example#a%23b%20c%2F%25");
    assert_ne!(local("a%20"), local("a "));
    // No mail address or name makes two people one.
    let with = |sub: &str| {
        let changes = [("sub", sub), ("email", "\"ann@example.com\""), ("email_verified", "true")];
        signed_in_by(|nonce| key().token(HEADER, &claims(nonce, &changes))).unwrap().local_subject()
    };
    assert_ne!(with("\"1\""), with("\"2\""));
}

// OIDCC-3.1.3.7-1 to -9
#[test]
fn each_claim_of_an_id_token_is_checked() {
    let at = now().unix_timestamp();
    let text = |offset: i64| (at + offset).to_string();
    let cases: [(&str, &str, IdTokenFault); 17] = [
        ("iss", "\"https://as.example/\"", IdTokenFault::Issuer),
        ("iss", "\"https://evil.example\"", IdTokenFault::Issuer),
        ("aud", "\"other\"", IdTokenFault::Audience),
        ("aud", "[\"other\",\"Host\"]", IdTokenFault::Audience),
        ("aud", "[\"host\",\"other\"]", IdTokenFault::AuthorizedParty),
        ("azp", "\"other\"", IdTokenFault::AuthorizedParty),
        ("azp", "\"\"", IdTokenFault::AuthorizedParty),
        ("exp", &text(-30), IdTokenFault::Expired),
        ("iat", &text(31), IdTokenFault::IssuedAt),
        ("iat", &text(-31), IdTokenFault::IssuedAt),
        ("nbf", &text(31), IdTokenFault::IssuedAt),
        ("nonce", "\"another\"", IdTokenFault::Nonce),
        ("nonce", "\"\"", IdTokenFault::Nonce),
        ("nonce", "", IdTokenFault::Nonce),
        ("sub", "", IdTokenFault::Claims(Malformed::Missing("sub"))),
        ("typ", "\"Bearer\"", IdTokenFault::Kind),
        ("typ", "\"Logout\"", IdTokenFault::Kind),
    ];
    for (name, value, expected) in cases {
        assert_eq!(fault(HEADER, &[(name, value)]), expected, "{name} {value}");
    }
    let late = [("iat", text(31)), ("nbf", text(0))];
    let late: Vec<_> = late.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(fault(HEADER, &late), IdTokenFault::IssuedAt);
    // What each of them is a step away from.
    for changes in [
        &[("aud", "[\"host\",\"other\"]"), ("azp", "\"host\"")][..],
        &[("aud", "[\"host\"]")],
        &[("azp", "\"host\"")],
        &[("exp", &text(-29))],
        &[("iat", &text(30))],
        &[("iat", &text(-30))],
        &[("nbf", &text(30))],
        &[("typ", "\"ID\"")],
    ] {
        assert!(signed_in_by(|nonce| key().token(HEADER, &claims(nonce, changes))).is_ok(), "{changes:?}");
    }
}

// OIDCC-3.1.3.7-5, OIDCC-3.1.3.7-6, I-A5
#[test]
fn an_id_token_is_signed_with_a_key_that_the_provider_publishes() {
    for (header, expected) in [
        (r#"{"alg":"none"}"#, IdTokenFault::Token(JwsError::Algorithm)),
        (r#"{"alg":"HS256","kid":"k"}"#, IdTokenFault::Token(JwsError::Algorithm)),
        (r#"{"alg":"EdDSA","kid":"other"}"#, IdTokenFault::UnknownKey),
        (r#"{"alg":"ES256","kid":"k"}"#, IdTokenFault::UnknownKey),
        (r#"{"alg":"EdDSA","kid":"k","jwk":{}}"#, IdTokenFault::Token(JwsError::EmbeddedKey)),
        (r#"{"alg":"EdDSA","kid":"k","typ":"at+jwt"}"#, IdTokenFault::Kind),
        (r#"{"alg":"EdDSA","kid":"k","typ":"logout+jwt"}"#, IdTokenFault::Kind),
    ] {
        assert_eq!(fault(header, &[]), expected, "{header}");
    }
    for header in [
        r#"{"alg":"EdDSA","kid":"k","typ":"JWT"}"#,
        r#"{"alg":"EdDSA","kid":"k","typ":"jwt"}"#,
        r#"{"alg":"EdDSA"}"#,
    ] {
        assert!(signed_in_by(|nonce| key().token(header, &claims(nonce, &[]))).is_ok(), "{header}");
    }
    let forged = ToyKey::new(Algorithm::EdDsa, 8);
    let refused = signed_in_by(|nonce| forged.token(HEADER, &claims(nonce, &[]))).unwrap_err();
    assert_eq!(refused, PeerMisbehaved::IdToken(IdTokenFault::Token(JwsError::Signature)).into());
    assert_eq!(refused.remedy(), Remedy::Refused);
}

// MCP-SBP-012, MCP-SBP-013, I-P3: login CSRF, a swap between browsers, another place, another request, too late.
#[test]
fn whatever_is_not_the_answer_to_this_browsers_request_gives_the_state_back() {
    let provider = provider();
    let (form, mut waiting) = begun(&provider);
    let (other, _) = provider.begin(browser(2), now(), &mut Counter(70)).unwrap().into_parts();
    let other = Form::parse(other.url().split_once('?').unwrap().1.as_bytes()).unwrap();
    let late = now() + Duration::minutes(15);
    for (at, form, agent, time) in [
        (REDIRECT, &form, browser(2), now()),
        (REDIRECT, &other, browser(1), now()),
        ("https://host.example/sign-in/other", &form, browser(1), now()),
        (REDIRECT, &form, browser(1), late),
    ] {
        for rest in [ANSWER, "error=access_denied&iss=https%3A%2F%2Fas.example"] {
            let outcome = waiting.receive(callback(at, form, rest), &agent, time, &mut Counter(9));
            let SignInOutcome::Unsolicited(back) = outcome else { panic!("{outcome:?}") };
            waiting = back;
        }
    }
    assert!(matches!(answered(waiting, &form), SignInOutcome::Accepted(_)), "nothing was burnt");
}

// MCP-AUTH-039, RFC9207-2.4-4: mix-up
#[test]
fn the_issuer_is_checked_before_code_and_error() {
    for (announced, answer, accepted) in [
        ("true", "code=c&iss=https%3A%2F%2Fas.example", true),
        ("true", "code=c", false),
        ("true", "code=c&iss=https%3A%2F%2Fevil.example", false),
        ("true", "error=access_denied&iss=https%3A%2F%2Fevil.example", false),
        ("false", "code=c", true),
        ("false", "code=c&iss=https%3A%2F%2Fevil.example", false),
    ] {
        let changes = [("authorization_response_iss_parameter_supported", announced)];
        let (form, waiting) = begun(&provider_of(&client(), &changes).unwrap());
        let outcome = waiting.receive(callback(REDIRECT, &form, answer), &browser(1), now(), &mut Counter(9));
        match outcome {
            SignInOutcome::Accepted(_) => assert!(accepted, "{answer}"),
            SignInOutcome::Rejected(error) => {
                assert!(!accepted && error == PeerMisbehaved::CallbackIssuer.into(), "{answer}");
            }
            other => panic!("{other:?}"),
        }
    }
    let (form, waiting) = begun(&provider());
    let refusal = callback(REDIRECT, &form, "error=access_denied&iss=https%3A%2F%2Fas.example");
    let outcome = waiting.receive(refusal, &browser(1), now(), &mut Counter(9));
    assert!(matches!(outcome, SignInOutcome::Refused(response) if response.code.as_str() == "access_denied"));
}

// I-L3
#[test]
fn the_code_goes_to_the_providers_token_endpoint_with_this_requests_verifier() {
    let (form, waiting) = begun(&provider());
    let SignInOutcome::Accepted(EndpointCall::Fetch(step)) = answered(waiting, &form) else {
        panic!("the answer is ours")
    };
    let (fetch, _) = step.into_parts();
    assert_eq!(fetch.url(), "https://as.example/token");
    assert!(fetch.authorization().unwrap().starts_with("Basic "));
    let body = Form::parse(fetch.body()).unwrap();
    let verifier = crate::secret::CodeVerifier::new(body.get("code_verifier").unwrap()).unwrap();
    let challenge = crate::pkce::CodeChallenge::of(&verifier).to_text();
    assert_eq!(form.get("code_challenge"), Some(challenge.as_str()));
    assert_eq!((body.get("code"), body.get("redirect_uri")), (Some("c"), Some(REDIRECT)));
    assert_eq!(body.get("resource"), None);
}

#[test]
fn a_provider_is_used_only_if_its_document_is_its_own_and_has_what_is_needed() {
    let of = |changes: &[(&str, &str)]| provider_of(&client(), changes).map(|_| ()).unwrap_err();
    // MCP-DISC-015
    let mismatch = PeerMisbehaved::IssuerMismatch { relaxation: None };
    assert_eq!(of(&[("issuer", "\"https://evil.example\"")]), mismatch.into());
    assert_eq!(of(&[("jwks_uri", "")]), PeerIncompatible::NoEndpoint("key set").into());
    assert_eq!(of(&[("token_endpoint", "")]), PeerIncompatible::NoEndpoint("token endpoint").into());
    let relaxation = Some(Relaxation::AssumeS256(issuer(ISSUER)));
    assert_eq!(
        of(&[("code_challenge_methods_supported", "")]),
        PeerIncompatible::NoS256 { relaxation }.into()
    );
    for place in ["\"http://127.0.0.1/jwks\"", "\"https://10.0.0.1/jwks\"", "\"https://localhost/jwks\""] {
        let error = of(&[("jwks_uri", place)]);
        assert!(matches!(error, Error::Peer(PeerMisbehaved::ForbiddenAddress { .. })), "{place} {error:?}");
    }
    let waiting = || client().sign_in(&issuer(ISSUER)).unwrap().into_parts().1;
    let absent = PeerIncompatible::NoServerMetadata { relaxation: None };
    assert_eq!(waiting().receive(Ok(Reply::new(404, ""))).map(|_| ()).unwrap_err(), absent.into());
    let down = waiting().receive(Err(FetchFailure::TimedOut)).map(|_| ()).unwrap_err();
    assert_eq!(down, OutsideFailed::from(FetchFailure::TimedOut).into());
    assert_eq!(
        client().sign_in(&issuer("https://other.example")).map(|_| ()).unwrap_err(),
        HostMisuse::NoIdentity.into()
    );
    // An application's own scheme is no place that a web host can be called back at.
    let scheme = RedirectUri::private_scheme("com.example.app:/cb").unwrap();
    let app = PreRegistered::new(issuer(ISSUER), ClientId::new("host").unwrap(), scheme.clone(), []);
    let app = configuration().policy(policy().relax(Relaxation::PrivateScheme(scheme))).pre_registered(app);
    assert_eq!(
        Client::new(app).unwrap().sign_in(&issuer(ISSUER)).map(|_| ()).unwrap_err(),
        HostMisuse::RedirectUri.into()
    );
    // An identity for a resource signs nobody in.
    let for_a_resource = Client::new(configuration().pre_registered(super::pre_registered())).unwrap();
    assert_eq!(
        for_a_resource.sign_in(&issuer(ISSUER)).map(|_| ()).unwrap_err(),
        HostMisuse::NoIdentity.into()
    );
}

// MCP-SBP-020, I-L8: the host's own word opens loopback, and nothing else does.
#[test]
fn a_provider_on_loopback_is_reached_on_loopback() {
    let local = "http://127.0.0.1:8080";
    let client = Client::new(configuration().pre_registered(identity(local, REDIRECT))).unwrap();
    let (fetch, waiting) = client.sign_in(&issuer(local)).unwrap().into_parts();
    assert_eq!(fetch.policy().addresses(), AddressPolicy::Loopback);
    let document = server_metadata(&[
        ("issuer", "\"http://127.0.0.1:8080\""),
        ("authorization_endpoint", "\"http://127.0.0.1:8080/a\""),
        ("token_endpoint", "\"http://127.0.0.1:8080/t\""),
        ("registration_endpoint", ""),
        ("jwks_uri", "\"http://127.0.0.1:8080/j\""),
    ]);
    let provider = waiting.receive(Ok(document)).unwrap();
    assert_eq!(
        keys_of(&provider, "http%3A%2F%2F127.0.0.1%3A8080").policy().addresses(),
        AddressPolicy::Loopback
    );
}

/// The fetch of the provider's keys, after a sign-in that it answered as that issuer.
fn keys_of(provider: &Provider, iss: &str) -> Fetch {
    let (form, waiting) = begun(provider);
    let answer = callback(REDIRECT, &form, &format!("code=c&iss={iss}"));
    let SignInOutcome::Accepted(EndpointCall::Fetch(step)) =
        waiting.receive(answer, &browser(1), now(), &mut Counter(9))
    else {
        panic!("the answer is ours")
    };
    let reply = json(r#"{"access_token":"t","token_type":"Bearer","id_token":"a.b.c"}"#);
    step.into_parts().1.receive(Ok(reply)).unwrap().into_parts().0
}

// I-L8, PrivateNetworks: a provider in the host's own network is reached there where its origin is named, its keys as well.
#[test]
fn a_provider_in_a_private_network_is_reached_there_by_name() {
    let network = "10.1.0.0/16".parse().unwrap();
    let networks = |origin: &str| {
        let networks = PrivateNetworks::new(Origin::new(origin).unwrap(), [network]).unwrap();
        let policy = policy().relax(Relaxation::PrivateNetworks(networks));
        Client::new(configuration().policy(policy).pre_registered(identity(ISSUER, REDIRECT))).unwrap()
    };
    for (origin, expected) in [(ISSUER, &[network][..]), ("https://other.example", &[])] {
        let (fetch, waiting) = networks(origin).sign_in(&issuer(ISSUER)).unwrap().into_parts();
        assert_eq!(fetch.private_networks(), expected, "{origin}");
        let provider = waiting.receive(Ok(document(&[]))).unwrap();
        assert_eq!(keys_of(&provider, "https%3A%2F%2Fas.example").private_networks(), expected, "{origin}");
    }
}

// D29, OAUTH21-2.3.4-1
#[test]
fn providers_that_send_no_iss_have_a_redirect_uri_each() {
    let with = |redirect: &str, relaxed: bool| {
        let shared = Relaxation::SharedRedirect(issuer(ISSUER));
        let policy = if relaxed { policy().relax(shared) } else { policy() };
        let client = Client::new(
            configuration()
                .policy(policy)
                .pre_registered(identity(ISSUER, REDIRECT))
                .pre_registered(identity("https://second.example", redirect)),
        )
        .unwrap();
        let silent = [("authorization_response_iss_parameter_supported", "false")];
        (provider_of(&client, &silent).map(|_| ()), provider_of(&client, &[]).map(|_| ()))
    };
    let (silent, told) = with(REDIRECT, false);
    assert!(matches!(silent, Err(Error::Incompatible(PeerIncompatible::SharedRedirect { .. }))));
    assert!(told.is_ok());
    assert!(with(REDIRECT, true).0.is_ok());
    assert!(with("https://host.example/sign-in/second", false).0.is_ok());
}

#[test]
fn keys_or_tokens_that_cannot_be_had_sign_nobody_in() {
    let waiting = || {
        let (form, waiting) = begun(&provider());
        match answered(waiting, &form) {
            SignInOutcome::Accepted(EndpointCall::Fetch(step)) => step.into_parts().1,
            other => panic!("{other:?}"),
        }
    };
    let reply = |body: &str| waiting().receive(Ok(json(body))).map(|_| ()).unwrap_err();
    let missing = reply(r#"{"access_token":"t","token_type":"Bearer"}"#);
    let document = "token response";
    assert_eq!(missing, PeerMisbehaved::Malformed { document, fault: Malformed::Missing("id_token") }.into());
    let both = reply(r#"{"error":"invalid_grant","id_token":"a.b.c"}"#);
    assert!(matches!(both, Error::Incompatible(PeerIncompatible::TokenRefused(_))), "{both:?}");
    assert!(matches!(waiting().receive(Err(FetchFailure::NotSent)), Err(Error::Outside(_))));
    for status in [429, 500, 503] {
        // Whatever the body says: who is busy has refused nobody.
        let busy = Reply::new(status, r#"{"error":"invalid_grant"}"#);
        let busy = waiting().receive(Ok(busy)).map(|_| ()).unwrap_err();
        assert!(matches!(busy, Error::Outside(OutsideFailed::Unavailable { .. })), "{status}: {busy:?}");
    }
    let keys = || {
        let reply = json(r#"{"access_token":"t","token_type":"Bearer","id_token":"a.b.c"}"#);
        waiting().receive(Ok(reply)).unwrap().into_parts().1
    };
    let of = |reply| keys().receive(reply, &ToyImporter, now()).map(|_| ()).unwrap_err();
    assert_eq!(of(Ok(Reply::new(404, ""))), PeerIncompatible::NoEndpoint("key set").into());
    for status in [429, 500, 503] {
        let busy = of(Ok(Reply::new(status, "")));
        assert!(matches!(busy, Error::Outside(OutsideFailed::Unavailable { .. })), "{status}: {busy:?}");
    }
    assert!(matches!(of(Err(FetchFailure::TooLarge)), Error::Outside(_)));
    let empty = of(Ok(json(r#"{"keys":[]}"#)));
    assert!(
        matches!(
            empty,
            Error::Peer(PeerMisbehaved::IdToken(IdTokenFault::Keys(
                InvalidKeySet::Empty | InvalidKeySet::Malformed(_)
            )))
        ),
        "{empty:?}"
    );
}

#[test]
fn a_sign_in_that_was_put_away_is_the_same_for_its_browser_and_provider_only() {
    let client = client();
    let provider = provider_of(&client, &[]).unwrap();
    let (form, waiting) = begun(&provider);
    let digest = waiting.state_digest();
    let record = waiting.park(&PlaintextRecords).unwrap();
    let bytes = record.to_bytes();
    assert!(bytes.len() < 1024, "a cookie holds it: {}", bytes.len());
    let back = |provider: &Provider, at| {
        SignInRecord::from_bytes(&bytes).unwrap().resume(provider, &PlaintextRecords, at)
    };
    let waiting = back(&provider, now()).unwrap();
    assert_eq!(waiting.state_digest(), digest);
    let swapped = waiting.receive(callback(REDIRECT, &form, ANSWER), &browser(2), now(), &mut Counter(9));
    assert!(matches!(swapped, SignInOutcome::Unsolicited(_)));
    assert!(matches!(answered(back(&provider, now()).unwrap(), &form), SignInOutcome::Accepted(_)));
    let late = now() + Duration::minutes(15);
    assert!(matches!(back(&provider, late), Err(Error::Host(HostMisuse::ForeignRecord))));
    // Another redirect URI, or another client, is another place.
    let moved = identity(ISSUER, "https://host.example/elsewhere");
    let moved = Client::new(configuration().pre_registered(moved)).unwrap();
    assert!(back(&provider_of(&moved, &[]).unwrap(), now()).is_err());
    // I-L3: another provider is another place, even at the same redirect URI.
    let second = "https://second.example";
    let both = configuration().pre_registered(identity(ISSUER, REDIRECT));
    let both = Client::new(both.pre_registered(identity(second, REDIRECT))).unwrap();
    let (_, asked) = both.sign_in(&issuer(second)).unwrap().into_parts();
    let second = asked.receive(Ok(document(&[("issuer", "\"https://second.example\"")]))).unwrap();
    let first = provider_of(&both, &[]).unwrap();
    let bytes = begun(&first).1.park(&PlaintextRecords).unwrap().to_bytes();
    let back_at = |provider: &Provider| {
        SignInRecord::from_bytes(&bytes).unwrap().resume(provider, &PlaintextRecords, now())
    };
    assert!(back_at(&first).is_ok());
    assert!(matches!(back_at(&second), Err(Error::Host(HostMisuse::ForeignRecord))));
    // What announced `iss` when it was asked must send it, whatever its document says today.
    let silent = [("authorization_response_iss_parameter_supported", "false")];
    let waiting = back(&provider_of(&client, &silent).unwrap(), now()).unwrap();
    let outcome = waiting.receive(callback(REDIRECT, &form, "code=c"), &browser(1), now(), &mut Counter(9));
    assert!(matches!(outcome, SignInOutcome::Rejected(_)));
}

proptest! {
    // OIDCC-3.1.3.7-1 to -9: a token that is accepted is this issuer's, for this client, for this request, in time.
    #[test]
    fn an_accepted_id_token_is_for_this_client_and_this_request(
        iss in prop_oneof![3 => Just("https://as.example"), 1 => Just("https://as.example/"), 1 => Just("https://b.example")],
        aud in proptest::collection::vec(prop_oneof![3 => Just("host"), 1 => Just("other"), 1 => Just("")], 0..3),
        azp in prop_oneof![3 => Just(None), 2 => Just(Some("host")), 1 => Just(Some("other"))],
        exp in -60_i64..60, iat in -60_i64..60,
        nonce in prop_oneof![4 => Just(0), 1 => Just(1), 1 => Just(2)],
    ) {
        let at = now().unix_timestamp();
        let signed_in = signed_in_by(|ours| {
            let aud: Vec<_> = aud.iter().map(|aud| format!("\"{aud}\"")).collect();
            let nonce = match nonce { 0 => format!("\"{ours}\""), 1 => "\"another\"".to_string(), _ => String::new() };
            let changes = [
                ("iss", format!("\"{iss}\"")),
                ("aud", format!("[{}]", aud.join(","))),
                ("azp", azp.map_or_else(String::new, |azp| format!("\"{azp}\""))),
                ("exp", (at + exp).to_string()),
                ("iat", (at + iat).to_string()),
                ("nonce", nonce),
            ];
            let changes: Vec<_> = changes.iter().map(|(name, value)| (*name, value.as_str())).collect();
            key().token(HEADER, &claims(ours, &changes))
        });
        let others = aud.iter().any(|aud| *aud != "host");
        let good = iss == ISSUER && aud.contains(&"host") && !aud.contains(&"")
            && azp.map_or(!others, |azp| azp == "host")
            && exp > -30 && (-30..=30).contains(&iat) && nonce == 0;
        prop_assert_eq!(signed_in.is_ok(), good, "{:?}", signed_in.err());
    }

    #[test]
    fn any_text_is_refused_as_an_id_token(token in "[A-Za-z0-9_.-]{1,200}") {
        prop_assert!(signed_in_by(|_| token).is_err());
    }
}
