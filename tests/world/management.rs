//! Registrations that their clients manage (RFC 7592), and the token that lets a client register at all (RFC 7591).

use mcp_authz::authorization_server::RegistrationPolicy;
use mcp_authz::authorization_server::management::ManagementOutcome;
use mcp_authz::authorization_server::record::{ClientOrigin, ClientRecord};
use mcp_authz::authorization_server::registration::RegistrationReason;
use mcp_authz::message::client_metadata::{RegistrationReply, RegistrationResponse};
use mcp_authz::message::exchange::{RequestHead, Respond};
use mcp_authz::secret::SecretDigest;

use crate::approvals::{Ask, CALLBACK, ISSUER, PARTNER, configuration, world, world_of};
use crate::grants::{Request, World};

const BODY: &str = r#""redirect_uris":["https://app.example/cb?tenant=a%2Fb"],"client_name":"N","contacts":["c@app.example"],
    "grant_types":["authorization_code","refresh_token"]"#;

fn managed() -> World {
    world_of(configuration(ISSUER).managed_registrations(true))
}

fn response(respond: &Respond) -> RegistrationResponse {
    match RegistrationReply::parse(respond.status(), respond.body()).unwrap() {
        RegistrationReply::Registered(response) => *response,
        RegistrationReply::Error(error) => panic!("{error:?}"),
    }
}

fn register(world: &mut World, more: &str) -> RegistrationResponse {
    let body = format!("{{{BODY}{more}}}");
    let head = RequestHead::new("POST", "/register");
    let step = world.server.register(&head, body.as_bytes(), world.store.now(), &mut world.entropy).unwrap();
    let (action, waiting) = step.into_parts();
    response(&waiting.stored(world.store.insert_client(action)).unwrap())
}

pub(crate) fn head(method: &str, token: Option<&str>) -> RequestHead {
    let head = RequestHead::new(method, "/register/x").with_header("content-type", b"application/json");
    match token {
        Some(token) => head.with_header("authorization", format!("Bearer {token}").as_bytes()),
        None => head,
    }
}

fn manage(world: &mut World, id: &str, head: &RequestHead, body: &str) -> Respond {
    let step = match world.server.manage(id, head, body.as_bytes()) {
        Ok(step) => step,
        Err(answer) => return answer,
    };
    let (action, waiting) = step.into_parts();
    match waiting.found(world.store.find_client(action), &mut world.entropy) {
        ManagementOutcome::Answer(answer) => answer,
        ManagementOutcome::Update(step) => {
            let (action, waiting) = step.into_parts();
            waiting.updated(world.store.update_client(action)).unwrap()
        }
        ManagementOutcome::Delete(step) => {
            let (action, waiting) = step.into_parts();
            waiting.deleted(world.store.delete_client(action)).unwrap()
        }
    }
}

pub(crate) struct Registered {
    pub(crate) id: String,
    pub(crate) token: String,
    secret: Option<String>,
}

pub(crate) fn registered(world: &mut World, more: &str) -> Registered {
    let response = register(world, more);
    let management = response.management.unwrap();
    assert_eq!(
        management.uri.as_str(),
        format!("{ISSUER}/register/{}", response.client_id.as_str()),
        "RFC7592-3-1"
    );
    Registered {
        id: response.client_id.as_str().to_owned(),
        token: management.token.expose().to_owned(),
        secret: response.client_secret.map(|issued| issued.secret.expose().to_owned()),
    }
}

fn record(world: &World, id: &str) -> Option<ClientRecord> {
    world.store.client(id)
}

// RFC7592-2.1-2: what the operator wrote down is the operator's to change.
#[test]
fn only_a_client_that_registered_manages_its_registration() {
    let mut world = managed();
    let registered = registered(&mut world, "");
    assert_eq!(manage(&mut world, &registered.id, &head("GET", Some(&registered.token)), "").status(), 200);
    let mut taken_over = record(&world, &registered.id).unwrap();
    taken_over.origin = ClientOrigin::PreRegistered;
    world.store.put_client(taken_over);
    for method in ["GET", "DELETE"] {
        assert_eq!(
            manage(&mut world, &registered.id, &head(method, Some(&registered.token)), "").status(),
            401
        );
    }
    assert!(record(&world, &registered.id).is_some());
}

// OAUTH21-2.4-2: of two tokens none lets in, though both would alone.
#[test]
fn two_initial_access_tokens_are_none() {
    let policy = |token: &[u8]| RegistrationPolicy::InitialAccessToken(vec![SecretDigest::of(token)]);
    let mut world = world_of(configuration(ISSUER).registration(policy(b"let-me-in")));
    let body = format!("{{{BODY}}}");
    let mut register = |tokens: usize| {
        let head = (0..tokens).fold(RequestHead::new("POST", "/register"), |head, _| {
            head.with_header("authorization", b"Bearer let-me-in")
        });
        world.server.register(&head, body.as_bytes(), world.store.now(), &mut world.entropy).map(drop)
    };
    assert_eq!(register(1), Ok(()));
    assert_eq!(register(0), Err(RegistrationReason::NoInitialAccess));
    assert_eq!(register(2), Err(RegistrationReason::NoInitialAccess));
}

// RFC7592-3-1, I-G7: the row has the digest of the token and of the secret.
#[test]
fn a_client_reads_its_registration_with_its_token() {
    let mut world = managed();
    let client = registered(&mut world, "");
    let answer = manage(&mut world, &client.id, &head("GET", Some(&client.token)), "");
    assert_eq!((answer.status(), answer.header("cache-control")), (200, Some("no-store")));
    let read = response(&answer);
    assert_eq!(read.client_id.as_str(), client.id);
    assert_eq!(read.metadata.client_name.as_deref(), Some("N"));
    assert_eq!(read.management.unwrap().token.expose(), client.token);
    assert!(read.client_secret.is_none());
    let stored = String::from_utf8(record(&world, &client.id).unwrap().to_bytes()).unwrap();
    assert!(!stored.contains(&client.token) && !stored.contains(client.secret.as_deref().unwrap()));
}

// RFC7592-2.1-2, I-T8: an unknown client and a wrong token look the same.
#[test]
fn without_the_right_token_nothing_is_told_or_changed() {
    let mut world = managed();
    let (one, two) = (registered(&mut world, ""), registered(&mut world, ""));
    let before = record(&world, &one.id);
    let wrong = manage(&mut world, &one.id, &head("GET", Some(&two.token)), "");
    let unknown = manage(&mut world, "nobody", &head("GET", Some(&one.token)), "");
    assert_eq!((wrong.status(), wrong.body()), (unknown.status(), unknown.body()));
    assert_eq!(wrong.status(), 401);
    assert!(wrong.header("www-authenticate").is_some());
    let update = format!(r#"{{"client_id":"{}",{BODY}}}"#, one.id);
    for method in ["GET", "PUT", "DELETE"] {
        for token in [None, Some(two.token.as_str()), Some("x"), Some(one.id.as_str())] {
            assert_eq!(manage(&mut world, &one.id, &head(method, token), &update).status(), 401, "{method}");
        }
        // The operator's clients are managed by the operator.
        assert_eq!(manage(&mut world, PARTNER, &head(method, Some("x")), &update).status(), 401);
    }
    let twice = head("GET", Some(&one.token)).with_header("authorization", b"Bearer x");
    assert_eq!(manage(&mut world, &one.id, &twice, "").status(), 401);
    assert_eq!(record(&world, &one.id), before);
    let answer = manage(&mut world, &one.id, &head("PATCH", Some(&one.token)), "");
    assert_eq!((answer.status(), answer.header("allow")), (405, Some("GET, PUT, DELETE")));
}

// RFC7592-2.2-2
#[test]
fn an_update_replaces_everything_and_chooses_no_secret() {
    let mut world = managed();
    let client = registered(&mut world, "");
    let put =
        |world: &mut World, body: &str| manage(world, &client.id, &head("PUT", Some(&client.token)), body);
    let own = format!(r#""client_id":"{}","redirect_uris":["https://app.example/new"]"#, client.id);
    let answer = put(&mut world, &format!("{{{own}}}"));
    assert_eq!(answer.status(), 200);
    let updated = response(&answer);
    // What was left out is cleared, or has its default again.
    assert_eq!((updated.metadata.client_name, updated.metadata.contacts.len()), (None, 0));
    assert!(!record(&world, &client.id).unwrap().metadata.uses_grant_type("refresh_token"));
    for bad in [
        r#""client_secret":"mine""#,
        r#""client_secret_expires_at":0"#,
        r#""client_id_issued_at":1"#,
        r#""registration_access_token":"mine""#,
        r#""registration_client_uri":"https://evil.example""#,
        r#""token_endpoint_auth_method":"tls_client_auth""#,
    ] {
        assert_eq!(put(&mut world, &format!("{{{own},{bad}}}")).status(), 400, "{bad}");
    }
    for id in [r#""client_id":"other","#, ""] {
        let body = format!(r#"{{{id}"redirect_uris":["https://app.example/new"]}}"#);
        assert_eq!(put(&mut world, &body).status(), 400);
    }
    // Its secret is still the one it has.
    let code = world.code(&Ask::of(&client.id, "https://app.example/new"));
    let request = Request::code(&client.id)
        .with("code", &code)
        .with("redirect_uri", "https://app.example/new")
        .with("client_secret", client.secret.as_deref().unwrap());
    assert!(world.send(&request).is_success());
}

// I-P6: another way to authenticate comes with credentials of its own, and the old ones end.
#[test]
fn a_change_of_method_changes_the_credentials() {
    let mut world = managed();
    let client = registered(&mut world, r#","token_endpoint_auth_method":"none""#);
    assert!(client.secret.is_none());
    let body = format!(
        r#"{{"client_id":"{}",{BODY},"token_endpoint_auth_method":"client_secret_post"}}"#,
        client.id
    );
    let answer = manage(&mut world, &client.id, &head("PUT", Some(&client.token)), &body);
    let issued = response(&answer).client_secret.unwrap();
    let code = world.code(&Ask::of(&client.id, CALLBACK));
    let request = Request::code(&client.id).with("code", &code).with("redirect_uri", CALLBACK);
    assert_eq!(world.send(&request).error(), (401, "invalid_client".to_owned()));
    assert!(world.send(&request.with("client_secret", issued.secret.expose())).is_success());
}

// RFC7592-2.3-1, RFC7592-2.3-2
#[test]
fn a_deletion_ends_client_token_and_grants() {
    let mut world = managed();
    let client = registered(&mut world, r#","token_endpoint_auth_method":"none""#);
    let code = world.code(&Ask::of(&client.id, CALLBACK));
    let pending = world.code(&Ask::of(&client.id, CALLBACK));
    let request = Request::code(&client.id).with("code", &code).with("redirect_uri", CALLBACK);
    let refresh = crate::grants::tokens(&world.send(&request)).refresh_token.unwrap();
    let kept = record(&world, &client.id).unwrap();
    let answer = manage(&mut world, &client.id, &head("DELETE", Some(&client.token)), "");
    assert_eq!((answer.status(), answer.body()), (204, &b""[..]));
    assert!(record(&world, &client.id).is_none());
    let again = manage(&mut world, &client.id, &head("DELETE", Some(&client.token)), "");
    assert_eq!(again.status(), 401);
    let dead = |world: &mut World, request: &Request| world.send(request).error().1;
    assert_eq!(dead(&mut world, &Request::refresh(&client.id, refresh.expose())), "invalid_client");
    // Even if the row came back, its grants would not.
    world.store.put_client(kept);
    assert_eq!(dead(&mut world, &Request::refresh(&client.id, refresh.expose())), "invalid_grant");
    assert_eq!(dead(&mut world, &request.with("code", &pending)), "invalid_grant");
}

/// A registration that changed in between is not overwritten by what was read before.
#[test]
fn of_two_updates_at_once_one_wins() {
    let mut world = managed();
    let client = registered(&mut world, "");
    let body = format!(r#"{{"client_id":"{}",{BODY}}}"#, client.id);
    let begin = |world: &mut World| {
        let head = head("PUT", Some(&client.token));
        let (action, waiting) = world.server.manage(&client.id, &head, body.as_bytes()).unwrap().into_parts();
        match waiting.found(world.store.find_client(action), &mut world.entropy) {
            ManagementOutcome::Update(step) => step.into_parts(),
            other => panic!("{other:?}"),
        }
    };
    // A receipt is for its own request only.
    let ((one, first), (_, second)) = (begin(&mut world), begin(&mut world));
    let receipt = world.store.update_client(one);
    assert!(second.updated(receipt).is_err());
    drop(first);
    let (two, third) = begin(&mut world);
    let mut changed = record(&world, &client.id).unwrap();
    changed.metadata.client_name = Some("Other".to_owned());
    world.store.put_client(changed.clone());
    assert_eq!(third.updated(world.store.update_client(two)).unwrap().status(), 503);
    assert_eq!(record(&world, &client.id), Some(changed));
}

#[test]
fn a_server_that_manages_nothing_offers_nothing() {
    let mut world = world();
    assert!(register(&mut world, "").management.is_none());
    assert_eq!(manage(&mut world, PARTNER, &head("GET", Some("x")), "").status(), 404);
}

// RFC7591-3-3
#[test]
fn an_initial_access_token_lets_in_and_nothing_else_does() {
    let policy = RegistrationPolicy::InitialAccessToken(vec![SecretDigest::of(b"let-me-in")]);
    let world = world_of(configuration(ISSUER).registration(policy));
    assert!(world.server.metadata().registration_endpoint.is_some());
    let body = format!("{{{BODY}}}");
    let mut entropy = crate::token_host::Seeded(4);
    let mut with = |token| {
        let head = head("POST", token);
        world.server.register(&head, body.as_bytes(), world.store.now(), &mut entropy).map(drop)
    };
    assert_eq!(with(Some("let-me-in")), Ok(()));
    for token in [None, Some("let-me-i"), Some("LET-ME-IN")] {
        let reason = with(token).unwrap_err();
        assert_eq!(reason, RegistrationReason::NoInitialAccess);
        assert_eq!(reason.respond().status(), 401);
        assert!(reason.respond().header("www-authenticate").is_some());
    }
    let nobody = world_of(configuration(ISSUER).registration(RegistrationPolicy::InitialAccessToken(vec![])));
    let refused = nobody.server.register(
        &head("POST", Some("let-me-in")),
        body.as_bytes(),
        nobody.store.now(),
        &mut crate::token_host::Seeded(4),
    );
    assert_eq!(refused.map(drop), Err(RegistrationReason::NoInitialAccess));
}

// OAUTH21-8.1-1: a server for confidential clients registers, lists and lets in no other.
#[test]
fn a_server_may_have_no_public_clients() {
    let mut world = world_of(configuration(ISSUER).public_clients(false));
    let methods = world.server.metadata().token_endpoint_auth_methods_supported.unwrap();
    assert!(!methods.iter().any(|method| method == "none"));
    let body = format!(r#"{{{BODY},"token_endpoint_auth_method":"none"}}"#);
    let refused =
        world.server.register(&head("POST", None), body.as_bytes(), world.store.now(), &mut world.entropy);
    assert_eq!(refused.map(drop), Err(RegistrationReason::PublicClient));
    let request = Request::code(PARTNER);
    assert_eq!(world.send(&request).error(), (401, "invalid_client".to_owned()));
}
