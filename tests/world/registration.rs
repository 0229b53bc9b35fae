//! Dynamic registration: what is taken, what is answered, and that nobody's registration replaces another's.

use std::collections::BTreeSet;

use mcp_authz::authorization_server::RegistrationPolicy;
use mcp_authz::authorization_server::record::{ClientCredential, ClientOrigin, ClientRecord, SecretMethod};
use mcp_authz::authorization_server::registration::{AwaitingClientStored, RegistrationReason};
use mcp_authz::authorization_server::store::InsertClient;
use mcp_authz::entropy::{Entropy, EntropyUnavailable};
use mcp_authz::limits;
use mcp_authz::message::client_metadata::{ApplicationType, RegistrationReply, RegistrationResponse};
use mcp_authz::message::exchange::{RequestHead, Respond};
use proptest::prelude::*;

use crate::approvals::{Ask, CALLBACK, ISSUER, configuration, world, world_of};
use crate::grants::{Request, World};
use crate::token_host::Seeded;

const URIS: &str = r#""redirect_uris":["https://app.example/cb?tenant=a%2Fb"]"#;

impl World {
    fn begin_registration(
        &mut self,
        members: &str,
    ) -> Result<(InsertClient, AwaitingClientStored), RegistrationReason> {
        let body = format!("{{{members}}}");
        self.server
            .register(
                &RequestHead::new("POST", "/register"),
                body.as_bytes(),
                self.store.now(),
                &mut self.entropy,
            )
            .map(|step| step.into_parts())
    }

    /// Registers; the row and the answer.
    fn register(&mut self, members: &str) -> (ClientRecord, RegistrationResponse) {
        let (action, waiting) = self.begin_registration(members).unwrap();
        let record = action.record().clone();
        let respond = waiting.stored(self.store.insert_client(action)).unwrap();
        (record, registered(&respond))
    }
}

fn registered(respond: &Respond) -> RegistrationResponse {
    // RFC7591-3.2.1-1, OAUTH21-3.2.3-8
    assert_eq!((respond.status(), respond.header("cache-control")), (201, Some("no-store")));
    assert_eq!(respond.header("content-type"), Some("application/json"));
    match RegistrationReply::parse(respond.status(), respond.body()).unwrap() {
        RegistrationReply::Registered(response) => *response,
        RegistrationReply::Error(error) => panic!("{error:?}"),
    }
}

// RFC7591-2-7, RFC7591-3.2.1-1, RFC7591-3.2.1-2
#[test]
fn absent_members_get_their_defaults_and_are_told() {
    let mut world = world();
    let (record, response) = world.register(URIS);
    let metadata = &response.metadata;
    assert_eq!(metadata.grant_types.as_deref(), Some(&["authorization_code".to_owned()][..]));
    assert_eq!(metadata.response_types.as_deref(), Some(&["code".to_owned()][..]));
    assert_eq!(metadata.token_endpoint_auth_method.as_deref(), Some("client_secret_basic"));
    assert_eq!(metadata.application_type, Some(ApplicationType::Web));
    assert_eq!(metadata, &record.metadata);
    assert_eq!(response.client_id, record.client_id);
    assert_eq!(response.client_id_issued_at, u64::try_from(world.store.now().unix_timestamp()).ok());
    assert_eq!(response.client_secret.unwrap().expires_at, 0);
    assert_eq!(record.origin, ClientOrigin::Registered);
}

// RFC7591-2-5, RFC7591-3.2.1-1: what is known is kept, what is not is ignored.
#[test]
fn what_a_client_says_about_itself_is_registered_as_said() {
    let mut world = world();
    let members = r#""client_name":"N","scope":"read","software_id":"s","contacts":["c@app.example"],
        "application_type":"native","token_endpoint_auth_method":"none","tomorrow":{"x":[1]},
        "redirect_uris":["http://localhost/cb","https://app.example/cb"],
        "grant_types":["authorization_code","refresh_token"]"#;
    let (record, response) = world.register(members);
    let metadata = &response.metadata;
    assert_eq!(metadata.client_name.as_deref(), Some("N"));
    assert_eq!(metadata.application_type, Some(ApplicationType::Native));
    assert!(metadata.uses_grant_type("refresh_token"));
    let uris: Vec<_> = metadata.redirect_uris.iter().map(|uri| uri.as_str()).collect();
    assert_eq!(uris, ["http://localhost/cb", "https://app.example/cb"]);
    assert_eq!(record.metadata.scope.as_ref().unwrap().to_string(), "read");
    assert!(!String::from_utf8(record.to_bytes()).unwrap().contains("tomorrow"));
}

// I-P6, MCP-AUTH-004, OAUTH21-2.1-1, OAUTH21-8.1-1: public exactly when there is no secret, in row, answer and use.
#[test]
fn a_secret_is_what_makes_a_client_confidential() {
    for (method, stored) in [
        ("none", None),
        ("client_secret_basic", Some(SecretMethod::Basic)),
        ("client_secret_post", Some(SecretMethod::Post)),
    ] {
        let mut world = world();
        let members =
            format!(r#"{URIS},"token_endpoint_auth_method":"{method}","application_type":"native""#);
        let (record, response) = world.register(&members);
        assert_eq!(response.metadata.token_endpoint_auth_method.as_deref(), Some(method));
        assert_eq!(record.credential.method(), method);
        let id = response.client_id.as_str();
        let code = world.code(&Ask::of(id, CALLBACK));
        let request = Request::code(id).with("code", &code).with("redirect_uri", CALLBACK);
        match (&record.credential, stored, response.client_secret) {
            (ClientCredential::None, None, None) => assert!(world.send(&request).is_success()),
            (ClientCredential::Secret { method, digest, expires }, Some(expected), Some(issued)) => {
                assert_eq!((*method, expires), (expected, &None));
                assert_eq!(*digest, issued.secret.digest());
                assert_eq!(world.send(&request).error(), (401, "invalid_client".to_owned()));
                assert!(world.send(&request.with("client_secret", issued.secret.expose())).is_success());
            }
            other => panic!("{method}: {other:?}"),
        }
    }
}

// RFC7591-5-4, I-G7: each instance has a secret of its own, and the row has no secret at all.
#[test]
fn no_two_clients_share_a_secret_and_no_row_has_one() {
    let mut world = world();
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        let (record, response) = world.register(URIS);
        let secret = response.client_secret.unwrap().secret;
        assert!(secret.expose().len() >= 43);
        let row = String::from_utf8(record.to_bytes()).unwrap();
        assert!(!row.contains(secret.expose()) && !format!("{record:?}").contains(secret.expose()));
        assert!(seen.insert(secret.expose().to_owned()));
    }
}

/// The error of a refused registration.
fn refused(world: &mut World, members: &str) -> (u16, String) {
    let reason = world.begin_registration(members).map(drop).unwrap_err();
    let respond = reason.respond();
    assert_eq!(respond.header("cache-control"), Some("no-store"));
    match RegistrationReply::parse(respond.status(), respond.body()).unwrap() {
        RegistrationReply::Error(error) => (respond.status(), error.code.as_str().to_owned()),
        RegistrationReply::Registered(_) => panic!("{members}"),
    }
}

// RFC7591-3.2.2-1, RFC7591-3-1, RFC7591-2.1-1, MCP-SEC-008, D9
#[test]
fn each_unacceptable_member_is_refused_by_name() {
    let mut world = world();
    for (members, code) in [
        ("", "invalid_redirect_uri"),
        (r#""redirect_uris":[]"#, "invalid_redirect_uri"),
        (r#""redirect_uris":"https://app.example/cb""#, "invalid_redirect_uri"),
        (r#""redirect_uris":["https://app.example/cb",7]"#, "invalid_redirect_uri"),
        (r#""redirect_uris":["http://app.example/cb"]"#, "invalid_redirect_uri"),
        (r#""redirect_uris":["com.example.app:/cb","javascript:alert(1)"]"#, "invalid_redirect_uri"),
        (r#""redirect_uris":["https://app.example"]"#, "invalid_redirect_uri"),
        (r#""redirect_uris":["https://app.example/*"]"#, "invalid_redirect_uri"),
        (r#""redirect_uris":["https://app.example/cb#f"]"#, "invalid_redirect_uri"),
        (r#""redirect_uris":["https://app.example/cb?code=x"]"#, "invalid_redirect_uri"),
        (r#""redirect_uris":["https://app.example/cb?iss=x"]"#, "invalid_redirect_uri"),
    ] {
        assert_eq!(refused(&mut world, members), (400, code.to_owned()), "{members}");
    }
    for member in [
        r#""token_endpoint_auth_method":"private_key_jwt""#,
        r#""token_endpoint_auth_method":"client_secret_jwt""#,
        r#""token_endpoint_auth_method":"None""#,
        r#""token_endpoint_auth_method":null"#,
        r#""grant_types":[]"#,
        r#""grant_types":["implicit"]"#,
        r#""grant_types":["refresh_token"]"#,
        r#""grant_types":["client_credentials","password"]"#,
        r#""response_types":[]"#,
        r#""response_types":["token"]"#,
        r#""response_types":["code","token"]"#,
        r#""application_type":"desktop""#,
        r#""scope":"a  b""#,
        r#""client_name":7"#,
        r#""client_uri":"javascript:alert(1)""#,
        r#""logo_uri":"http://app.example/logo""#,
        r#""jwks":{"keys":[{"kty":"oct","k":"AA"}]}"#,
        r#""jwks":{"keys":[]},"jwks_uri":"https://app.example/jwks""#,
        r#""client_name":"a","client_name":"b""#,
        r#""x":"#,
    ] {
        let members = format!("{URIS},{member}");
        assert_eq!(refused(&mut world, &members), (400, "invalid_client_metadata".to_owned()), "{member}");
    }
    let long = format!(r#"{URIS},"client_name":"{}""#, "n".repeat(limits::CLIENT_NAME_BYTES + 1));
    assert_eq!(refused(&mut world, &long).0, 400);
    let many: Vec<_> = (0..=limits::REDIRECT_URIS).map(|n| format!(r#""https://app.example/{n}""#)).collect();
    assert_eq!(
        refused(&mut world, &format!(r#""redirect_uris":[{}]"#, many.join(","))).1,
        "invalid_redirect_uri"
    );
}

// D9: an unacceptable redirect URI of a list is left out, and the answer says what was registered.
#[test]
fn what_cannot_be_registered_of_a_list_is_left_out() {
    let mut world = world();
    let members = r#""redirect_uris":["cursor://x.y/cb","http://app.example/cb","https://app.example/cb"],
        "grant_types":["authorization_code","implicit"]"#;
    let (record, response) = world.register(members);
    let uris: Vec<_> = response.metadata.redirect_uris.iter().map(|uri| uri.as_str()).collect();
    assert_eq!(uris, ["https://app.example/cb"]);
    assert!(record.metadata.other_redirect_uris.is_empty());
    assert_eq!(response.metadata.grant_types.unwrap(), ["authorization_code"]);
}

// MCP-REG-040: what a client does not say is read off its redirect URIs.
#[test]
fn an_unsaid_application_type_follows_the_redirect_uris() {
    let mut world = world();
    let (_, response) = world.register(r#""redirect_uris":["http://127.0.0.1/cb"]"#);
    assert_eq!(response.metadata.application_type, Some(ApplicationType::Native));
}

// I-P7, I-G1: what a stranger can have stored is bounded.
#[test]
fn a_large_registration_is_refused() {
    let mut world = world();
    let padded = |bytes: usize| format!(r#"{URIS},"x":"{}""#, "y".repeat(bytes - URIS.len() - 9));
    assert_eq!(padded(100).len(), 98);
    assert!(world.begin_registration(&padded(limits::REGISTRATION_BYTES)).is_ok());
    let reason = world.begin_registration(&padded(limits::REGISTRATION_BYTES + 1)).map(drop).unwrap_err();
    assert_eq!(reason, RegistrationReason::TooLarge);
    assert_eq!(reason.respond().status(), 400);
}

// RFC7591-3-3, I-G8: only a server that says so registers anybody.
#[test]
fn a_closed_server_registers_nobody() {
    let closed = world_of(configuration(ISSUER).registration(RegistrationPolicy::Closed));
    let body = format!("{{{URIS}}}");
    let reason = closed
        .server
        .register(&RequestHead::new("POST", "/register"), body.as_bytes(), closed.store.now(), &mut Seeded(1))
        .map(drop)
        .unwrap_err();
    assert_eq!((reason.respond().status(), closed.server.metadata().registration_endpoint), (403, None));
}

// I-P5: what is registered stays what it is, whatever is registered later.
#[test]
fn a_taken_identifier_is_not_overwritten() {
    let mut world = world();
    world.entropy = Seeded(5);
    let (first, _) =
        world.register(&format!(r#"{URIS},"client_name":"first","token_endpoint_auth_method":"none""#));
    world.entropy = Seeded(5);
    let members = r#""redirect_uris":["https://evil.example/cb"],"token_endpoint_auth_method":"none""#;
    let (action, waiting) = world.begin_registration(members).unwrap();
    assert_eq!(action.record().client_id, first.client_id);
    let respond = waiting.stored(world.store.insert_client(action)).unwrap();
    assert_eq!((respond.status(), respond.body().len()), (503, 0));
    let view = world.shown(&Ask::of(first.client_id.as_str(), CALLBACK));
    assert_eq!(view.client.name.as_deref(), Some("first"));
}

// RFC7591-5-2: who registered by themselves is shown with an unverified name.
#[test]
fn a_registered_name_is_unverified() {
    let mut world = world();
    let (record, _) = world.register(&format!(r#"{URIS},"client_name":"Your Bank""#));
    let view = world.shown(&Ask::of(record.client_id.as_str(), CALLBACK));
    assert!(!view.client.verified);
    assert_eq!(view.client.identity, record.client_id.as_str());
}

struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&mut self, _: &mut [u8]) -> Result<(), EntropyUnavailable> {
        Err(EntropyUnavailable)
    }
}

// I-G9, I-G10
#[test]
fn without_randomness_or_store_nobody_is_registered() {
    let mut world = world();
    let body = format!("{{{URIS}}}");
    let reason = world
        .server
        .register(&RequestHead::new("POST", "/register"), body.as_bytes(), world.store.now(), &mut NoEntropy)
        .map(drop)
        .unwrap_err();
    assert_eq!(reason, RegistrationReason::Unavailable);
    let (_, waiting) = world.begin_registration(URIS).unwrap();
    for respond in [reason.respond(), waiting.store_failed()] {
        assert_eq!((respond.status(), respond.header("retry-after")), (503, Some("1")));
    }
}

// The secret leaves for the receipt of its own row only.
#[test]
fn an_answer_waits_for_its_own_receipt() {
    let mut world = world();
    let (one, first) = world.begin_registration(URIS).unwrap();
    let (two, _second) = world.begin_registration(URIS).unwrap();
    let failed = first.stored(world.store.insert_client(two)).unwrap_err();
    let id = one.record().client_id.clone();
    let respond = failed.state.stored(world.store.insert_client(one)).unwrap();
    assert_eq!(registered(&respond).client_id, id);
}

// I-G7
#[test]
fn debug_output_shows_no_secret() {
    let mut world = world();
    let (action, waiting) = world.begin_registration(URIS).unwrap();
    let log = format!("{action:?} {waiting:?}");
    let response = registered(&waiting.stored(world.store.insert_client(action)).unwrap());
    let secret = response.client_secret.as_ref().unwrap().secret.expose().to_owned();
    assert!(!log.contains(&secret) && !format!("{response:?}").contains(&secret));
}

proptest! {
    // I-P5, CIMD-6.9-1, RFC7591-3.2.1-1
    #[test]
    fn identifiers_are_fresh_and_never_urls(seed in any::<u64>()) {
        let mut world = world();
        world.entropy = Seeded(seed);
        let mut seen = BTreeSet::new();
        for _ in 0..8 {
            let (record, _) = world.register(URIS);
            prop_assert!(!record.client_id.looks_like_url());
            prop_assert!(record.client_id.as_str().len() == 43);
            prop_assert!(seen.insert(record.client_id.as_str().to_owned()));
        }
    }

    // I-G1, I-G2
    #[test]
    fn any_body_is_answered(body in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "\\{(\"[a-z_]{1,26}\":(\"[ -~]{0,9}\"|[0-9]{1,3}|\\[\\]|null),?){0,4}\\}".prop_map(String::into_bytes),
    ]) {
        let mut world = world();
        if let Err(reason) = world.server.register(&RequestHead::new("POST", "/register"), &body, world.store.now(), &mut world.entropy) {
            prop_assert_eq!(reason.respond().status(), 400);
        }
    }
}
