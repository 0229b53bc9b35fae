//! What a store says about one action moves no other flow (I-G4): neither a receipt nor a finding can be swapped.

use mcp_authz::authorization_server::authorization::{Authorizing, Recall, Recalled};
use mcp_authz::authorization_server::introspection::IntrospectionOutcome;
use mcp_authz::authorization_server::management::ManagementOutcome;
use mcp_authz::authorization_server::record::Epochs;
use mcp_authz::authorization_server::refusal::RefusalReason;
use mcp_authz::authorization_server::{AuthorizationServer, PushedRequests};
use mcp_authz::evidence::Approval;
use mcp_authz::message::exchange::RequestHead;
use mcp_authz::syntax::base64url;
use mcp_authz::syntax::form;
use mcp_authz::syntax::json::JsonObject;

use crate::approvals::{Ask, CALLBACK, ISSUER, PARTNER, PERSON, browser, configuration, world, world_of};
use crate::grants::{SECRET, World, scope};
use crate::keys::own_keys;
use crate::token_host::Flow;

fn pushing() -> World {
    world_of(configuration(ISSUER).pushed_requests(PushedRequests::Offered))
}

fn push(world: &mut World) -> Flow {
    let head =
        RequestHead::new("POST", "/par").with_header("content-type", b"application/x-www-form-urlencoded");
    let flow = Flow::push(&world.server, &head, Ask::partner().query().as_bytes());
    flow.advance(&mut world.store, &mut world.entropy)
}

#[test]
fn a_page_is_shown_for_its_own_insertion_only() {
    let mut world = world();
    let mut shown = || {
        let request = world.ask(&Ask::partner()).valid();
        request.show(&world.person(), world.store.now(), &mut world.entropy).unwrap().into_parts()
    };
    let ((first, waiting), (second, _)) = (shown(), shown());
    let failed = waiting.stored(second.inserted()).unwrap_err();
    assert!(failed.state.stored(first.inserted()).is_ok(), "the state is given back");
}

#[test]
fn a_reference_goes_out_for_its_own_insertion_only() {
    let mut world = pushing();
    let (Flow::Push(first, waiting), Flow::Push(second, _)) = (push(&mut world), push(&mut world)) else {
        panic!()
    };
    let failed = waiting.stored(second.inserted()).unwrap_err();
    assert_eq!(failed.state.stored(first.inserted()).unwrap().status(), 201);
}

#[test]
fn a_pushed_request_is_not_taken_for_another() {
    let mut world = pushing();
    let mut pushed = || {
        let answer = push(&mut world).finish(&mut world.store, &mut world.entropy);
        let body = JsonObject::parse(answer.respond.body(), 10_000).unwrap();
        let uri = body.required_string("request_uri").unwrap().to_owned();
        let query = form::encode([("client_id", PARTNER), ("request_uri", &uri)]);
        let Ok(Authorizing::Pushed(step)) = world.server.authorize(&query) else { panic!() };
        step.into_parts()
    };
    let ((_, waiting), (second, _)) = (pushed(), pushed());
    let refused = waiting.found(world.store.read_pushed(second)).unwrap_err();
    assert_eq!(refused.reason(), RefusalReason::PushedRequest);
}

// RFC9126-4-2: what is no reference of this server's is not looked for.
#[test]
fn a_reference_of_another_kind_is_refused_before_any_read() {
    let world = pushing();
    for uri in ["https://evil.example/request", "urn:ietf:params:oauth:request_uri"] {
        let query = form::encode([("client_id", PARTNER), ("request_uri", uri)]);
        assert_eq!(world.server.authorize(&query).unwrap_err().reason(), RefusalReason::PushedRequest);
    }
}

// I-P2
#[test]
fn a_consent_found_under_another_key_is_none() {
    let mut world = crate::remembered::bank();
    let ask = Ask::of(crate::remembered::BANK, CALLBACK);
    let view = world.shown(&ask);
    let approval = Approval::assertion(PERSON, browser(1), scope("read write")).remembered();
    let (action, _waiting) = world.press(&view, approval, &view.csrf).unwrap();
    let remembered = action.remember().unwrap().1.clone();
    let recalled = |ask: &Ask| {
        let request = world.ask(ask).valid();
        let Recall::Read(step) = request.recall(&world.person()) else { panic!() };
        step.into_parts()
    };
    let (first, waiting) = recalled(&ask);
    let (second, again) = recalled(&ask.clone().with("redirect_uri", crate::remembered::SECOND));
    let now = world.store.now();
    let found = second.found(remembered.clone(), Epochs::default(), now);
    assert!(matches!(waiting.found(found, &mut world.entropy), Recalled::Ask(..)));
    let found = first.found(remembered, Epochs::default(), now);
    assert!(matches!(again.found(found, &mut world.entropy), Recalled::Ask(..)));
}

#[test]
fn a_deletion_is_answered_for_its_own_receipt_and_only_when_done() {
    let mut world = world_of(configuration(ISSUER).managed_registrations(true));
    let mut delete = || {
        let registered = crate::management::registered(&mut world, "");
        let head = crate::management::head("DELETE", Some(&registered.token));
        let (find, waiting) = world.server.manage(&registered.id, &head, b"").unwrap().into_parts();
        match waiting.found(world.store.find_client(find), &mut world.entropy) {
            ManagementOutcome::Delete(step) => step.into_parts(),
            other => panic!("{other:?}"),
        }
    };
    let ((first, waiting), (second, _), (third, changed)) = (delete(), delete(), delete());
    let failed = waiting.deleted(second.deleted()).unwrap_err();
    assert_eq!(failed.state.deleted(first.deleted()).unwrap().status(), 204);
    assert_eq!(changed.deleted(third.changed()).unwrap().status(), 503);
}

/// The introspection of a token, up to the reading of its row.
fn introspected(server: &AuthorizationServer, world: &mut World, token: &str) -> Flow {
    let request =
        crate::grants::Request::new(&[("token", token)]).with_basic(crate::introspection::NOTES_RS, SECRET);
    let flow = Flow::introspection(server, &request.head(), request.body().as_bytes());
    flow.advance(&mut world.store, &mut world.entropy)
}

// RFC7662-4-1
#[test]
fn what_was_found_of_another_token_says_nothing() {
    let mut world = crate::introspection::world(true);
    let server = world.server.clone();
    let token = world.redeem().access_token.expose().to_owned();
    let (genuine, unknown) =
        (introspected(&server, &mut world, &token), introspected(&server, &mut world, "unknown"));
    let (Flow::Introspected(read, _), Flow::Introspected(_, waiting)) = (genuine, unknown) else { panic!() };
    let outcome = waiting.found(world.store.read_access(read), &own_keys());
    assert!(matches!(outcome, IntrospectionOutcome::Refused(_)), "{outcome:?}");

    let mut world = crate::introspection::world(false);
    let server = world.server.clone();
    let token = world.redeem().access_token.expose().to_owned();
    let family = base64url::encode(crate::grants::family().as_bytes());
    let other_family = crate::introspection::resigned(&token, &family[..8], "AAAAAAAA");
    let mut grant = |token: &str| {
        let flow = introspected(&server, &mut world, token);
        let Flow::IntrospectedGrant(read, waiting) = flow.advance(&mut world.store, &mut world.entropy)
        else {
            panic!()
        };
        (read, waiting)
    };
    let ((read, _), (_, waiting)) = (grant(&token), grant(&other_family));
    let failure = waiting.found(world.store.read_grant(read)).unwrap_err();
    assert_eq!(failure.respond().status(), 500);
}
