//! `private_key_jwt`: an assertion signed by the client, for this issuer, of now, once.

use mcp_authz::authorization_server::caller::{AwaitingCallerKeys, CallerOutcome};
use mcp_authz::authorization_server::record::{ClientCredential, ClientRecord};
use mcp_authz::identifier::{ClientId, Endpoint, RedirectUri};
use mcp_authz::jose::{Algorithm, JwkSet, SigningKeyId, signing_input};
use mcp_authz::message::client_metadata::ClientMetadata;
use mcp_authz::message::exchange::{AddressPolicy, FetchFailure, FetchPurpose, Reply};
use mcp_authz::syntax::base64url;
use mcp_authz::syntax::json::{JsonObject, JsonValue, ObjectWriter};
use mcp_authz::time::Duration;

use crate::grants::{APP, REDIRECT, Request, SECRET, WEB, World, approval, start};
use crate::keys::{ToyImporter, ToyKey};
use crate::token_host::{Answer, Flow};

const SIGNER: &str = "signer";
const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const OWN: ToyKey = ToyKey(7);

fn jwks(keys: &[(ToyKey, &str)]) -> JsonObject {
    let set = JwkSet::new(keys.iter().map(|(key, kid)| key.jwk(kid))).unwrap();
    JsonObject::parse(&set.render(), 10_000).unwrap()
}

fn signer(change: impl FnOnce(&mut ClientMetadata)) -> ClientRecord {
    let mut metadata = ClientMetadata {
        redirect_uris: vec![RedirectUri::new(REDIRECT).unwrap()],
        grant_types: Some(vec!["authorization_code".into(), "refresh_token".into()]),
        jwks: Some(jwks(&[(OWN, "k")])),
        ..ClientMetadata::default()
    };
    change(&mut metadata);
    let id = ClientId::new(SIGNER).unwrap();
    ClientRecord::pre_registered(id, metadata, ClientCredential::PrivateKey, start()).unwrap()
}

fn world() -> World {
    let mut world = World::with_code(approval(SIGNER));
    world.store.put_client(signer(|_| {}));
    world
}

/// An assertion, open to change.
struct Assertion {
    claims: Vec<(&'static str, JsonValue)>,
    key: ToyKey,
    kid: &'static str,
    kind: &'static str,
}

fn text(value: &str) -> JsonValue {
    JsonValue::String(value.to_owned())
}

fn seconds(from_now: i64) -> JsonValue {
    JsonValue::Integer(start().unix_timestamp() + from_now)
}

impl Assertion {
    fn new() -> Self {
        let claims = vec![
            ("iss", text(SIGNER)),
            ("sub", text(SIGNER)),
            ("aud", text("https://as.example")),
            ("exp", seconds(60)),
            ("iat", seconds(0)),
            ("jti", text("j-1")),
        ];
        Self { claims, key: OWN, kid: "k", kind: "client-authentication+jwt" }
    }

    fn with(mut self, name: &'static str, value: JsonValue) -> Self {
        self.claims.retain(|(known, _)| *known != name);
        self.claims.push((name, value));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.claims.retain(|(known, _)| *known != name);
        self
    }

    fn render(self) -> String {
        let writer =
            self.claims.into_iter().fold(ObjectWriter::new(), |w, (name, value)| w.value(name, value));
        let id = SigningKeyId::new(self.kid, Algorithm::EdDsa);
        let input = signing_input(&id, self.kind, &writer.finish());
        let signature = base64url::encode(&self.key.sign(&input));
        format!("{}.{signature}", String::from_utf8(input).unwrap())
    }

    fn request(self) -> Request {
        Request::code(SIGNER)
            .without("client_id")
            .with("client_assertion_type", KIND)
            .with("client_assertion", &self.render())
    }
}

fn refused(answer: &Answer) -> bool {
    answer.error() == (401, "invalid_client".to_owned())
}

// RFC7523-3-3, RFC7523BIS-2, D19
#[test]
fn an_assertion_for_this_issuer_authenticates() {
    for audience in [text("https://as.example"), JsonValue::Array(vec![text("https://as.example")])] {
        let mut world = world();
        assert!(world.send(&Assertion::new().with("aud", audience).request()).is_success());
    }
    // RFC7523BIS-4
    for kind in ["JWT", "client-authentication+jwt"] {
        let mut world = world();
        let assertion = Assertion { kind, ..Assertion::new() };
        assert!(world.send(&assertion.request().with("client_id", SIGNER)).is_success());
    }
}

// I-C8: one thing changed, and it authenticates nobody and changes nothing.
#[test]
fn an_assertion_that_differs_in_one_thing_is_none() {
    let list = |values: &[&str]| JsonValue::Array(values.iter().map(|value| text(value)).collect());
    let cases: Vec<(&str, Assertion)> = vec![
        ("issuer", Assertion::new().with("iss", text(APP))),
        ("subject", Assertion::new().with("sub", text(APP))),
        ("no subject", Assertion::new().without("sub")),
        ("audience: endpoint", Assertion::new().with("aud", text("https://as.example/token"))),
        ("audience: slash", Assertion::new().with("aud", text("https://as.example/"))),
        ("audience: two", Assertion::new().with("aud", list(&["https://as.example", "https://b.example"]))),
        ("audience: none", Assertion::new().with("aud", list(&[]))),
        ("no audience", Assertion::new().without("aud")),
        ("expired", Assertion::new().with("exp", seconds(-30))),
        ("no end", Assertion::new().without("exp")),
        ("end as text", Assertion::new().with("exp", text("2000000000"))),
        ("end far away", Assertion::new().with("exp", seconds(601))),
        ("not yet", Assertion::new().with("nbf", seconds(31))),
        ("issued later", Assertion::new().with("iat", seconds(31))),
        ("no identifier", Assertion::new().without("jti")),
        ("empty identifier", Assertion::new().with("jti", text(""))),
        ("other key", Assertion { key: ToyKey(8), ..Assertion::new() }),
        ("other kid", Assertion { kid: "other", ..Assertion::new() }),
        ("an access token", Assertion { kind: "at+jwt", ..Assertion::new() }),
    ];
    for (name, assertion) in cases {
        let mut world = world();
        let before = world.store.credentials();
        assert!(refused(&world.send(&assertion.request())), "{name}");
        assert_eq!(world.store.credentials(), before, "{name}");
        assert!(world.send(&Assertion::new().request()).is_success(), "{name}: the right one still counts");
    }
}

// RFC7523-3-6, I-A12, RFC7523-2.2-2
#[test]
fn an_assertion_serves_once() {
    let mut world = world();
    let request = Assertion::new().request();
    let token = crate::grants::tokens(&world.send(&request)).refresh_token.unwrap();
    let again = Request::refresh(SIGNER, token.expose()).without("client_id");
    let with = |assertion: Assertion| {
        again.clone().with("client_assertion_type", KIND).with("client_assertion", &assertion.render())
    };
    assert!(refused(&world.send(&with(Assertion::new()))));
    assert!(world.send(&with(Assertion::new().with("jti", text("j-2")))).is_success());
}

// RFC7523-3.2-1, RFC7523-2.2-2, RFC7523-3-2
#[test]
fn an_assertion_stands_alone_and_is_of_its_type() {
    let mut world = world();
    for request in [
        Assertion::new().request().with_basic(SIGNER, SECRET),
        Assertion::new().request().with("client_secret", SECRET),
        Assertion::new()
            .request()
            .with("client_assertion_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        Assertion::new().request().without("client_assertion_type"),
        Assertion::new().request().without("client_assertion").with("client_id", SIGNER),
        Assertion::new().request().with("client_id", APP),
        // The client without its assertion, and another's secret method.
        Request::code(SIGNER),
        Request::code(SIGNER).with("client_secret", SECRET),
    ] {
        assert!(refused(&world.send(&request)), "{request:?}");
    }
    // A client that registered a secret, or none, cannot change to assertions by itself.
    for client in [APP, WEB] {
        let assertion = Assertion::new().with("iss", text(client)).with("sub", text(client));
        assert!(refused(&world.send(&assertion.request())), "{client}");
    }
    assert!(world.send(&Assertion::new().request()).is_success());
}

#[test]
fn the_registered_algorithm_is_the_only_one() {
    let mut world = world();
    world.store.put_client(signer(|metadata| {
        metadata.token_endpoint_auth_signing_alg = Some("ES256".to_owned());
    }));
    assert!(refused(&world.send(&Assertion::new().request())));
}

fn by_reference(uri: &str) -> World {
    let mut world = world();
    world.store.put_client(signer(|metadata| {
        metadata.jwks = None;
        metadata.jwks_uri = Some(Endpoint::new(uri).unwrap());
    }));
    world
}

fn fetch(world: &mut World) -> Option<(mcp_authz::message::exchange::Fetch, AwaitingCallerKeys)> {
    let flow = Assertion::new().request().begin(&world.server);
    match flow.advance(&mut world.store, &mut world.entropy) {
        Flow::Fetch(fetch, waiting) => Some((fetch, waiting)),
        _ => None,
    }
}

// I-L8: the client chose the URL.
#[test]
fn keys_by_reference_are_fetched_from_public_addresses_only() {
    let mut world = by_reference("https://client.example/jwks");
    let (wanted, waiting) = fetch(&mut world).unwrap();
    assert_eq!((wanted.purpose(), wanted.url()), (FetchPurpose::KeySet, "https://client.example/jwks"));
    assert_eq!(wanted.policy().addresses(), AddressPolicy::Public);
    let document = jwks(&[(ToyKey(8), "old"), (OWN, "k")]).to_bytes();
    let outcome = waiting.receive(Ok(Reply::new(200, document)), &ToyImporter);
    let CallerOutcome::Reserve(step) = outcome else { panic!("{outcome:?}") };
    let (action, waiting) = step.into_parts();
    assert_eq!((action.issuer(), action.value()), (SIGNER, "j-1"));
    assert!(action.until() >= start() + Duration::seconds(60));
    let outcome = waiting.reserved(world.store.reserve_once(action), &mut world.entropy);
    assert!(matches!(outcome, CallerOutcome::Code(_)));
    for special in ["https://10.0.0.1/jwks", "https://[::1]/jwks", "http://127.0.0.1:1/jwks"] {
        assert!(fetch(&mut by_reference(special)).is_none(), "{special}");
    }
}

// I-G9: keys that cannot be had say nothing about the client; a document without its key does.
#[test]
fn keys_that_cannot_be_had_are_503_and_wrong_ones_401() {
    let status = |fetched: Result<Reply, FetchFailure>| {
        let (_, waiting) = fetch(&mut by_reference("https://client.example/jwks")).unwrap();
        let CallerOutcome::Refused(failure) = waiting.receive(fetched, &ToyImporter) else { panic!() };
        failure.respond().status()
    };
    assert_eq!(status(Err(FetchFailure::Unreachable)), 503);
    assert_eq!(status(Ok(Reply::new(404, ""))), 503);
    assert_eq!(status(Ok(Reply::new(200, "{}"))), 401);
    assert_eq!(status(Ok(Reply::new(200, jwks(&[(ToyKey(8), "k")]).to_bytes()))), 401);
}

// I-P6: keys make a client confidential, by registration as by the operator's hand.
#[test]
fn a_client_of_keys_needs_keys() {
    let id = || ClientId::new(SIGNER).unwrap();
    let without =
        ClientMetadata { redirect_uris: vec![RedirectUri::new(REDIRECT).unwrap()], ..Default::default() };
    assert!(ClientRecord::pre_registered(id(), without, ClientCredential::PrivateKey, start()).is_none());
    let record = signer(|_| {});
    assert!(record.credential.is_confidential());
    assert_eq!(ClientRecord::from_bytes(&record.to_bytes()).unwrap(), record);
    let stored = String::from_utf8(record.to_bytes()).unwrap();
    let public = stored.replace("private_key_jwt", "none");
    assert_eq!(ClientRecord::from_bytes(public.as_bytes()).unwrap().credential, ClientCredential::None);
    let bare = stored.replace("jwks", "jwkz");
    assert!(ClientRecord::from_bytes(bare.as_bytes()).is_err());
}

// I-G7
#[test]
fn an_assertion_shows_in_no_debug_output() {
    let mut world = world();
    let request = Assertion::new().with("jti", text("canary-jti")).request();
    let assertion = request.form["client_assertion"].clone();
    let mut flow = request.begin(&world.server);
    let mut log = String::new();
    while !flow.is_done() {
        log += &format!("{flow:?}");
        flow = flow.advance(&mut world.store, &mut world.entropy);
    }
    assert!(!log.contains(&assertion));
    assert!(log.contains("AwaitingReservation"));
}
