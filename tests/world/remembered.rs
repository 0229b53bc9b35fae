//! Remembered consent (I-P2): it stands in for the person for the identical request of a client that proves who it is, and
//! for nothing else.

use mcp_authz::authorization_server::PushedRequests;
use mcp_authz::authorization_server::authorization::{
    Authorizing, ConsentView, Recall, Recalled, RequestValidated,
};
use mcp_authz::authorization_server::decision::Decided;
use mcp_authz::authorization_server::record::{ClientCredential, ClientRecord};
use mcp_authz::authorization_server::store::{Basis, RevocationTarget, RevokeAll};
use mcp_authz::evidence::{Approval, Authentication};
use mcp_authz::identifier::{ClientId, RedirectUri};
use mcp_authz::message::client_metadata::ClientMetadata;
use mcp_authz::message::exchange::Reply;
use mcp_authz::syntax::form;
use mcp_authz::syntax::json::JsonObject;
use mcp_authz::time::Duration;
use proptest::prelude::*;

use crate::approvals::{Ask, CALLBACK, Checked, ISSUER, PERSON, browser, configuration, world, world_of};
use crate::grants::{Request, SECRET, World, scope, secret, start};
use crate::token_host::Flow;

pub(crate) const BANK: &str = "bank";
const LOOPBACK: &str = "http://127.0.0.1/cb";
pub(crate) const SECOND: &str = "https://app.example/second";

fn confidential(name: &str, credential: ClientCredential) -> ClientRecord {
    let metadata = ClientMetadata {
        redirect_uris: [CALLBACK, SECOND, LOOPBACK].map(|uri| RedirectUri::new(uri).unwrap()).into(),
        grant_types: Some(vec!["authorization_code".into(), "refresh_token".into()]),
        client_name: Some(name.into()),
        ..ClientMetadata::default()
    };
    ClientRecord::pre_registered(ClientId::new(BANK).unwrap(), metadata, credential, start()).unwrap()
}

pub(crate) fn bank() -> World {
    let mut world = world();
    world.store.put_client(confidential("Bank", secret(None)));
    world
}

fn ask() -> Ask {
    Ask::of(BANK, CALLBACK)
}

/// The page of a request, and the person's approval of those scopes, to be remembered.
fn remember(world: &mut World, ask: &Ask, scopes: &str) -> ConsentView {
    let view = world.shown(ask);
    let approval = Approval::assertion(PERSON, browser(1), scope(scopes)).remembered();
    let (action, waiting) = world.press(&view, approval, &view.csrf).unwrap();
    assert_eq!(action.remember().is_some(), view.may_remember, "whatever the form says");
    let receipt = world.store.decide_once(action);
    assert!(matches!(waiting.decided(receipt), Ok(Decided::Redirect(_))));
    view
}

/// What becomes of a request when the person comes with it: a code at once, or the page.
fn comes(world: &mut World, request: RequestValidated, person: &Authentication) -> Option<String> {
    let step = match request.recall(person) {
        Recall::Read(step) => step,
        Recall::Ask(_) => return None,
    };
    let (action, waiting) = step.into_parts();
    match waiting.found(world.store.read_consent(action), &mut world.entropy) {
        Recalled::Remembered(step) => {
            let (action, waiting) = step.into_parts();
            assert!(matches!(action.basis(), Basis::Remembered(_)) && action.remember().is_none());
            match waiting.decided(world.store.decide_once(action)) {
                Ok(Decided::Redirect(redirect)) => Some(redirect.location().to_owned()),
                other => panic!("{other:?}"),
            }
        }
        Recalled::Ask(..) => None,
        Recalled::Refused(refusal) => panic!("{refusal:?}"),
    }
}

fn again(world: &mut World, ask: &Ask) -> bool {
    let request = world.ask(ask).valid();
    let person = world.person();
    comes(world, request, &person).is_some()
}

// I-P2
#[test]
fn the_identical_request_of_a_confidential_client_is_not_asked_twice() {
    let mut world = bank();
    let view = remember(&mut world, &ask(), "read write");
    assert!(view.may_remember);
    let request = world.ask(&ask().with("state", "another")).valid();
    let person = world.person();
    let location = comes(&mut world, request, &person).unwrap();
    assert!(location.starts_with(CALLBACK) && location.contains("state=another"), "{location}");
    let code = location.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let grant = world.store.code(&code).unwrap().grant;
    assert_eq!((&*grant.subject, grant.scope.clone()), (PERSON, scope("read write")));
    // A smaller scope is covered as well.
    assert!(again(&mut world, &ask().with("scope", "read")));
}

// I-P2, OAUTH21-7.3-1: everything that differs has the person asked.
#[test]
fn a_request_that_differs_in_one_thing_is_asked() {
    let mut world = bank();
    remember(&mut world, &ask(), "read");
    assert!(again(&mut world, &ask().with("scope", "read")));
    assert!(!again(&mut world, &ask()), "a scope more");
    assert!(!again(&mut world, &ask().with("scope", "read").with("redirect_uri", SECOND)), "redirect URI");
    let other = ask().with("resource", "https://other.example").with("scope", "list");
    assert!(!again(&mut world, &other), "resource");
    let request = world.ask(&ask().with("scope", "read")).valid();
    let eve = Authentication::assertion("eve", browser(1), world.store.now()).unwrap();
    assert!(comes(&mut world, request, &eve).is_none(), "person");
    world.store.put_client(confidential("Bank of somebody", secret(None)));
    assert!(!again(&mut world, &ask().with("scope", "read")), "client metadata");
}

#[test]
fn what_was_revoked_or_is_over_is_asked() {
    let ends: [fn(&mut World); 4] = [
        |world| world.store.pass(Duration::days(90)),
        |world| {
            let target = RevocationTarget::Consent {
                subject: PERSON.to_owned(),
                client_id: ClientId::new(BANK).unwrap(),
            };
            let _moved = world.store.revoke_all(RevokeAll::of(target));
        },
        |world| {
            let _moved = world.store.revoke_all(RevokeAll::of(RevocationTarget::Subject(PERSON.to_owned())));
        },
        |world| {
            let target = RevocationTarget::Client(ClientId::new(BANK).unwrap());
            let _moved = world.store.revoke_all(RevokeAll::of(target));
        },
    ];
    for end in ends {
        let mut world = bank();
        remember(&mut world, &ask(), "read write");
        end(&mut world);
        assert!(!again(&mut world, &ask()));
    }
}

// I-P2: a program that only says who it is, and an answer that another program could catch, are always asked for.
#[test]
fn public_clients_and_loopback_answers_are_never_remembered() {
    let mut world = bank();
    let view = remember(&mut world, &Ask::partner(), "read write");
    assert!(!view.may_remember);
    assert!(!again(&mut world, &Ask::partner()));
    let loopback = Ask::of(BANK, LOOPBACK);
    let view = remember(&mut world, &loopback, "read write");
    assert!(!view.may_remember);
    assert!(!again(&mut world, &loopback));
    // A client that gave up its credentials since is public again.
    remember(&mut world, &ask(), "read write");
    world.store.put_client(confidential("Bank", ClientCredential::None));
    assert!(!again(&mut world, &ask()));
}

// RFC9126-4-2: the page is what uses a pushed request up.
#[test]
fn a_pushed_request_is_asked_whatever_is_remembered() {
    let mut world = world_of(configuration(ISSUER).pushed_requests(PushedRequests::Offered));
    world.store.put_client(confidential("Bank", secret(None)));
    remember(&mut world, &ask(), "read write");
    assert!(again(&mut world, &ask()));
    let request = Request::new(&[]).with_basic(BANK, SECRET);
    let query = ask().without("client_id").query();
    let head = request.head();
    let flow = Flow::push(&world.server, &head, query.as_bytes());
    let answer = flow.finish(&mut world.store, &mut world.entropy);
    let body = JsonObject::parse(answer.respond.body(), 10_000).unwrap();
    let uri = body.required_string("request_uri").unwrap();
    let request = world.ask_raw(&form::encode([("client_id", BANK), ("request_uri", uri)])).valid();
    let person = world.person();
    assert!(comes(&mut world, request, &person).is_none());
    // Nor is it offered on the page of one.
    let answer =
        Flow::push(&world.server, &head, query.as_bytes()).finish(&mut world.store, &mut world.entropy);
    let body = JsonObject::parse(answer.respond.body(), 10_000).unwrap();
    let uri = body.required_string("request_uri").unwrap();
    let request = world.ask_raw(&form::encode([("client_id", BANK), ("request_uri", uri)])).valid();
    assert!(!world.show(request).may_remember);
}

// OpenID Connect Core section 3.1.2.1: a client that wants its person asked has them asked.
#[test]
fn a_request_that_wants_a_page_is_shown_whatever_is_remembered() {
    let mut world = bank();
    remember(&mut world, &ask(), "read write");
    assert!(again(&mut world, &ask()));
    for prompt in ["consent", "login consent", "login", "select_account", "anything"] {
        assert!(!again(&mut world, &ask().with("prompt", prompt)), "{prompt}");
    }
    assert!(again(&mut world, &ask().with("prompt", "")), "an empty parameter is none");
}

// I-P2, D41: a client of a metadata document proves who it is with the keys that the document names.
#[test]
fn a_client_of_a_document_that_signs_is_remembered_until_its_document_changes() {
    const URL: &str = "https://app.example/client.json";
    let mut world = world();
    let asked = |world: &World, name: &str, method: &str| {
        let body = format!(
            r#"{{"client_id":"{URL}","client_name":"{name}","redirect_uris":["{CALLBACK}"],
            "token_endpoint_auth_method":"{method}","jwks_uri":"https://app.example/keys"}}"#
        );
        let reply = Reply::new(200, body).with_header("content-type", b"application/json");
        let Ok(Authorizing::Fetch(step)) = world.server.authorize(&Ask::of(URL, CALLBACK).query()) else {
            panic!("a URL is fetched")
        };
        Checked::from(step.into_parts().1.receive(Ok(reply), world.store.now())).valid()
    };
    let person = world.person();
    let request = asked(&world, "App", "private_key_jwt");
    let view = world.show(request);
    assert!(view.may_remember);
    let approval = Approval::assertion(PERSON, browser(1), scope("read write")).remembered();
    let (action, waiting) = world.press(&view, approval, &view.csrf).unwrap();
    let receipt = world.store.decide_once(action);
    assert!(matches!(waiting.decided(receipt), Ok(Decided::Redirect(_))));
    let request = asked(&world, "App", "private_key_jwt");
    assert!(comes(&mut world, request, &person).is_some());
    for (name, method) in [("Another", "private_key_jwt"), ("App", "none")] {
        let request = asked(&world, name, method);
        assert!(comes(&mut world, request, &person).is_none(), "{name} {method}");
    }
}

#[test]
fn nothing_is_remembered_unless_the_person_says_so() {
    let mut world = bank();
    let view = world.shown(&ask());
    let redirect = world.approve(&view).unwrap();
    assert!(redirect.location().contains("code="));
    assert!(!again(&mut world, &ask()));
}

proptest! {
    // I-P2: remembered is exactly what lies within what was agreed to.
    #[test]
    fn a_scope_is_remembered_exactly_when_it_was_agreed_to(
        agreed in prop::sample::subsequence(vec!["read", "write"], 1..=2),
        asked in prop::sample::subsequence(vec!["read", "write"], 1..=2),
    ) {
        let mut world = bank();
        remember(&mut world, &ask(), &agreed.join(" "));
        let within = asked.iter().all(|scope| agreed.contains(scope));
        prop_assert_eq!(again(&mut world, &ask().with("scope", &asked.join(" "))), within);
    }
}
