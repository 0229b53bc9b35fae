//! Pushed authorization requests (RFC 9126).

use mcp_authz::authorization_server::authorization::PageOutcome;
use mcp_authz::authorization_server::record::ClientOrigin;
use mcp_authz::authorization_server::refusal::RefusalReason;
use mcp_authz::authorization_server::{Lifetimes, PushedRequests, RegistrationPolicy};
use mcp_authz::message::exchange::RequestHead;
use mcp_authz::secret::SecretDigest;
use mcp_authz::syntax::form;
use mcp_authz::syntax::json::JsonObject;
use mcp_authz::time::Duration;

use crate::approvals::{Ask, CALLBACK, Checked, ISSUER, PARTNER, configuration, operators, world, world_of};
use crate::grants::{SECRET, World, secret};
use crate::token_host::{Answer, Flow};

fn world_with(pushed: PushedRequests) -> World {
    world_of(configuration(ISSUER).pushed_requests(pushed))
}

fn push(world: &mut World, ask: &Ask) -> Answer {
    let head =
        RequestHead::new("POST", "/par").with_header("content-type", b"application/x-www-form-urlencoded");
    let flow = Flow::push(&world.server, &head, ask.query().as_bytes());
    flow.finish(&mut world.store, &mut world.entropy)
}

fn pushed(world: &mut World, ask: &Ask) -> String {
    let answer = push(world, ask);
    assert_eq!(answer.respond.status(), 201, "{:?}", answer.reason);
    assert_eq!(answer.respond.header("cache-control"), Some("no-store"));
    let body = JsonObject::parse(answer.respond.body(), 10_000).unwrap();
    assert_eq!(body.integer("expires_in"), Ok(Some(60)));
    body.required_string("request_uri").unwrap().to_owned()
}

fn reference(client: &str, uri: &str) -> String {
    form::encode([("client_id", client), ("request_uri", uri)])
}

// RFC9126-2.2-1, RFC9126-2-2, RFC9126-2-1
#[test]
fn a_pushed_request_is_shown_as_it_was_pushed() {
    let mut world = world_with(PushedRequests::Offered);
    let metadata = world.server.metadata();
    let endpoint = metadata.pushed_authorization_request_endpoint.unwrap();
    assert_eq!(endpoint.as_str(), "https://as.example/tenant/par");
    assert!(!metadata.require_pushed_authorization_requests);
    let uri = pushed(&mut world, &Ask::partner().with("scope", "read"));
    assert!(uri.starts_with("urn:ietf:params:oauth:request_uri:") && uri.len() > 70, "{uri}");
    // What else the browser brings does not count.
    let query = format!("{}&scope=write&redirect_uri=https%3A%2F%2Fevil.example", reference(PARTNER, &uri));
    let request = world.ask_raw(&query).valid();
    let view = world.show(request);
    assert_eq!(view.scopes.iter().map(|shown| shown.scope.as_str()).collect::<Vec<_>>(), ["read"]);
    let redirect = world.approve(&view).unwrap();
    assert!(redirect.location().starts_with(CALLBACK));
    assert!(redirect.location().contains("state=state-of-the-client"));
}

// RFC9126-4-2
#[test]
fn a_reference_serves_once_in_time_for_its_client() {
    let mut world = world_with(PushedRequests::Offered);
    world.store.put_client(operators("other", &[CALLBACK]));
    let uri = pushed(&mut world, &Ask::partner());
    let refused = |world: &World, client: &str, uri: &str| {
        world.ask_raw(&reference(client, uri)).page().reason() == RefusalReason::PushedRequest
    };
    assert!(refused(&world, "other", &uri));
    assert!(refused(&world, PARTNER, "urn:ietf:params:oauth:request_uri:guess"));
    assert!(refused(&world, PARTNER, "https://evil.example/request"));
    // Loading the page twice before anything is decided uses it up once.
    let (one, two) =
        (world.ask_raw(&reference(PARTNER, &uri)).valid(), world.ask_raw(&reference(PARTNER, &uri)).valid());
    world.show(one);
    let step = two.show(&world.person(), world.store.now(), &mut world.entropy).unwrap();
    let (action, waiting) = step.into_parts();
    let outcome = waiting.stored(world.store.insert_decision(action)).unwrap();
    assert!(
        matches!(outcome, PageOutcome::Refused(refusal) if refusal.reason() == RefusalReason::PushedRequest)
    );
    assert!(refused(&world, PARTNER, &uri));
    let late = pushed(&mut world, &Ask::partner());
    world.store.pass(Duration::seconds(60));
    assert!(refused(&world, PARTNER, &late));
}

// RFC9126-2.1-2, RFC9126-7.2-1: what a browser could not bring cannot be pushed either.
#[test]
fn a_push_is_checked_like_a_direct_request() {
    let mut world = world_with(PushedRequests::Offered);
    for (ask, code) in [
        (Ask::partner().with("request_uri", "urn:x"), "invalid_request"),
        (Ask::partner().with("redirect_uri", "https://evil.example/cb"), "invalid_request"),
        (Ask::partner().without("code_challenge"), "invalid_request"),
        (Ask::partner().with("code_challenge_method", "plain"), "invalid_request"),
        (Ask::partner().with("resource", "https://unknown.example"), "invalid_target"),
        (Ask::partner().with("scope", "unknown"), "invalid_scope"),
        (Ask::partner().with("response_type", "token"), "unsupported_response_type"),
        (Ask::partner().with("request", "e30"), "request_not_supported"),
    ] {
        let answer = push(&mut world, &ask);
        assert_eq!(answer.error(), (400, code.to_owned()), "{ask:?}");
    }
    assert_eq!(push(&mut world, &Ask::of("nobody", CALLBACK)).error(), (401, "invalid_client".to_owned()));
}

// RFC9126-2.1-2
#[test]
fn a_push_is_authenticated_and_keeps_no_credentials() {
    let mut world = world_with(PushedRequests::Offered);
    let mut record = operators("bank", &[CALLBACK]);
    record.credential = secret(None);
    world.store.put_client(record);
    let ask = Ask::of("bank", CALLBACK);
    assert_eq!(push(&mut world, &ask).error(), (401, "invalid_client".to_owned()));
    assert_eq!(push(&mut world, &ask.clone().with("client_secret", "wrong")).error().0, 401);
    let uri = pushed(&mut world, &ask.with("client_secret", SECRET));
    let request = world.ask_raw(&reference("bank", &uri)).valid();
    world.show(request);
    assert!(!format!("{:?}", world.store).contains("a secret"));
}

// RFC9126-4-3
#[test]
fn a_server_may_insist() {
    let mut world = world_with(PushedRequests::Required);
    assert!(world.server.metadata().require_pushed_authorization_requests);
    let Checked::Error(error) = world.ask(&Ask::partner()) else { panic!() };
    assert_eq!(error.code().as_str(), "invalid_request");
    let uri = pushed(&mut world, &Ask::partner());
    assert!(matches!(world.ask_raw(&reference(PARTNER, &uri)), Checked::Valid(_)));
}

#[test]
fn a_server_without_the_endpoint_knows_no_reference() {
    let mut world = world();
    assert_eq!(push(&mut world, &Ask::partner()).respond.status(), 404);
    assert!(world.server.metadata().pushed_authorization_request_endpoint.is_none());
    let Checked::Error(error) = world.ask(&Ask::partner().with("request_uri", "urn:x")) else { panic!() };
    assert_eq!(error.code().as_str(), "request_uri_not_supported");
}

/// Registration and configuration are asked again when the browser comes.
#[test]
fn a_client_that_changed_since_is_held_to_what_it_is_now() {
    let mut world = world_with(PushedRequests::Offered);
    let uri = pushed(&mut world, &Ask::partner());
    world.store.put_client(operators(PARTNER, &["https://app.example/moved"]));
    assert_eq!(world.ask_raw(&reference(PARTNER, &uri)).page().reason(), RefusalReason::RedirectUri);
    assert_eq!(Lifetimes::default().pushed, Duration::MINUTE);
}

/// Whether the store is to count what is pushed among the requests of the operator's clients.
fn is_of_operator(world: &mut World, ask: &Ask) -> bool {
    let head =
        RequestHead::new("POST", "/par").with_header("content-type", b"application/x-www-form-urlencoded");
    let flow = Flow::push(&world.server, &head, ask.query().as_bytes());
    let Flow::Push(action, _) = flow.advance(&mut world.store, &mut world.entropy) else {
        panic!("it is not pushed")
    };
    action.is_of_operator()
}

/// Registers a client with that method, at a server of that policy; gives the request it would push.
fn registered(policy: RegistrationPolicy, method: &str) -> (World, Ask) {
    let configuration = configuration(ISSUER).pushed_requests(PushedRequests::Offered).registration(policy);
    let mut world = world_of(configuration);
    let head = RequestHead::new("POST", "/register")
        .with_header("content-type", b"application/json")
        .with_header("authorization", b"Bearer let-me-in");
    let body = format!(r#"{{"redirect_uris":["{CALLBACK}"],"token_endpoint_auth_method":"{method}"}}"#);
    let step = world.server.register(&head, body.as_bytes(), world.store.now(), &mut world.entropy).unwrap();
    let (action, waiting) = step.into_parts();
    let respond = waiting.stored(world.store.insert_client(action)).unwrap();
    let body = JsonObject::parse(respond.body(), 10_000).unwrap();
    let ask = Ask::of(body.required_string("client_id").unwrap(), CALLBACK);
    let ask = match body.string("client_secret").unwrap() {
        Some(secret) => ask.with("client_secret", secret),
        None => ask,
    };
    (world, ask)
}

// I-P7: strangers are whoever proves nothing, and whoever anybody could have made.
#[test]
fn only_a_client_that_the_operator_let_in_and_that_proves_it_is_no_stranger() {
    let mut world = world_with(PushedRequests::Offered);
    assert!(!is_of_operator(&mut world, &Ask::partner()), "anybody can push in its name");
    let mut bank = operators("bank", &[CALLBACK]);
    bank.credential = secret(None);
    world.store.put_client(bank.clone());
    let ask = Ask::of("bank", CALLBACK).with("client_secret", SECRET);
    assert!(is_of_operator(&mut world, &ask));
    bank.origin = ClientOrigin::MetadataDocument;
    world.store.put_client(bank);
    assert!(!is_of_operator(&mut world, &ask), "anybody publishes a document");

    let by_token = || RegistrationPolicy::InitialAccessToken(vec![SecretDigest::of(b"let-me-in")]);
    for (policy, method, expected) in [
        (by_token(), "client_secret_post", true),
        (by_token(), "none", false),
        // A token that nobody asked for proves nothing.
        (RegistrationPolicy::Open, "client_secret_post", false),
        (RegistrationPolicy::Open, "none", false),
    ] {
        let (mut world, ask) = registered(policy, method);
        assert_eq!(is_of_operator(&mut world, &ask), expected, "{method}");
    }
}
