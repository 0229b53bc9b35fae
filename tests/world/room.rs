//! A store that has no room left (I-P7): the newcomer is told so, nothing is shown or issued, and it may try again.

use mcp_authz::authorization_server::PushedRequests;
use mcp_authz::authorization_server::RegistrationPolicy;
use mcp_authz::authorization_server::authorization::PageOutcome;
use mcp_authz::authorization_server::refusal::RefusalReason;
use mcp_authz::message::exchange::RequestHead;

use crate::approvals::{Ask, ISSUER, configuration, world, world_of};
use crate::token_host::Flow;

#[test]
fn a_page_without_room_is_not_shown() {
    let mut world = world();
    let request = world.ask(&Ask::partner()).valid();
    let step = request.show(&world.person(), world.store.now(), &mut world.entropy).unwrap();
    let (action, waiting) = step.into_parts();
    let PageOutcome::Refused(refusal) = waiting.stored(action.full()).unwrap() else {
        panic!("a page that nobody can answer was shown")
    };
    assert_eq!((refusal.reason(), refusal.status()), (RefusalReason::Full, 503));
    let said = refusal.respond();
    assert_eq!((said.header("location"), said.header("retry-after")), (None, Some("60")));
    assert!(std::str::from_utf8(said.body()).unwrap().contains("try again in a few minutes"));
    // The same request finds room later.
    world.shown(&Ask::partner());
}

#[test]
fn a_registration_without_room_gets_no_identifier() {
    let mut world = world_of(configuration(ISSUER).registration(RegistrationPolicy::Open));
    let body = br#"{"redirect_uris":["https://app.example/cb"]}"#;
    let head = RequestHead::new("POST", "/register");
    let step = world.server.register(&head, body, world.store.now(), &mut world.entropy).unwrap();
    let (action, waiting) = step.into_parts();
    let id = action.record().client_id.as_str().to_owned();
    let respond = waiting.stored(action.full()).unwrap();
    assert_eq!((respond.status(), respond.header("retry-after")), (503, Some("60")));
    let said = std::str::from_utf8(respond.body()).unwrap();
    assert!(said.contains("try again later") && !said.contains(&id), "{said}");
}

#[test]
fn a_push_without_room_gets_no_reference() {
    let mut world = world_of(configuration(ISSUER).pushed_requests(PushedRequests::Offered));
    let head =
        RequestHead::new("POST", "/par").with_header("content-type", b"application/x-www-form-urlencoded");
    let flow = Flow::push(&world.server, &head, Ask::partner().query().as_bytes());
    let Flow::Push(action, waiting) = flow.advance(&mut world.store, &mut world.entropy) else { panic!() };
    let respond = waiting.stored(action.full()).unwrap();
    // What takes the room is there for a minute.
    assert_eq!((respond.status(), respond.header("retry-after")), (503, Some("60")));
    let said = std::str::from_utf8(respond.body()).unwrap();
    assert!(said.contains("temporarily_unavailable") && !said.contains("request_uri"), "{said}");
}
