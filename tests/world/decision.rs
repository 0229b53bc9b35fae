//! The answer to the consent page: whose it must be, what it may say, how often it counts.

use std::sync::Arc;

use mcp_authz::authorization_server::decision::Decided;
use mcp_authz::authorization_server::record::DecisionRecord;
use mcp_authz::authorization_server::refusal::RefusalReason;
use mcp_authz::authorization_server::store::{Basis, RevocationTarget, RevokeAll};
use mcp_authz::entropy::{Entropy, EntropyUnavailable};
use mcp_authz::evidence::Approval;
use mcp_authz::identifier::{ClientId, RedirectUri};
use mcp_authz::secret::AgentBinding;
use mcp_authz::time::Duration;
use proptest::prelude::*;

use crate::approvals::{Ask, CALLBACK, PARTNER, PERSON, answered, browser, operators_with, world};
use crate::grants::{RESOURCE, Request, VERIFIER, World, scope};

fn partner_code(code: &str) -> Request {
    Request::code(PARTNER).with("code", code).with("redirect_uri", CALLBACK)
}

// I-C9, OAUTH21-4.1.2-2: the code is bound to everything that was asked, shown and approved.
#[test]
fn a_code_stands_for_what_was_shown_and_approved() {
    let mut world = world();
    world.store.pass(Duration::seconds(90));
    let view = world.shown(&Ask::partner());
    world.store.pass(Duration::seconds(30));
    let approval = Approval::assertion(PERSON, browser(1), scope("read"));
    let (action, waiting) = world.press(&view, approval, &view.csrf).unwrap();
    let redirect = world.decided(action, waiting).unwrap();
    let code = world.store.code(answered(redirect.location()).get("code").unwrap()).unwrap();
    let now = world.store.now();
    assert_eq!(code.grant.client_id.as_str(), PARTNER);
    assert_eq!(&*code.grant.subject, PERSON);
    assert_eq!(code.grant.resource.as_str(), RESOURCE);
    assert_eq!(code.grant.scope, scope("read"));
    assert_eq!(code.grant.authenticated, now - Duration::seconds(30));
    assert_eq!(code.grant.not_after, now + Duration::days(90));
    assert_eq!(code.redirect_uri.as_str(), CALLBACK);
    assert_eq!(code.challenge().to_text(), crate::approvals::challenge());
    assert_eq!(code.expires, now + Duration::minutes(1));
    assert!(code.refresh);
}

// OAUTH21-3.2.3-6: who did not register for refresh tokens is not given one.
#[test]
fn only_a_client_that_asked_for_refresh_tokens_may_get_one() {
    let mut world = world();
    let record = operators_with("short", &[CALLBACK], |it| it.grant_types = None);
    world.store.put_client(record);
    let code = world.code(&Ask::of("short", CALLBACK));
    assert!(!world.store.code(&code).unwrap().refresh);
}

// OAUTH21-4.1.2-1
#[test]
fn a_code_ends_soon() {
    let mut world = world();
    let late = world.code(&Ask::partner());
    world.store.pass(Duration::seconds(60));
    assert_eq!(world.send(&partner_code(&late)).error().1, "invalid_grant");
    let code = world.code(&Ask::partner());
    world.store.pass(Duration::seconds(59));
    assert!(world.send(&partner_code(&code)).is_success());
}

// OAUTH21-4.1.2-4, OAUTH21-1.4-2: a code is random and says nothing.
#[test]
fn a_code_is_random_text() {
    let mut world = world();
    let one = world.code(&Ask::partner());
    let two = world.code(&Ask::partner());
    assert!(one != two && one.len() == 43 && two.len() == 43);
    assert!(!one.contains(&VERIFIER[..8]));
}

/// One difference between the answer and the page it should be of.
#[derive(Debug, Clone)]
enum Difference {
    Browser(AgentBinding),
    Person(String),
    FormValue(String),
    Late(i64),
}

fn difference() -> impl Strategy<Value = Difference> {
    prop_oneof![
        (2..=u8::MAX).prop_map(|n| Difference::Browser(browser(n))),
        Just(Difference::Browser(AgentBinding::this_process())),
        "[a-zA-Z]{0,4}".prop_filter("the person", |who| who != PERSON).prop_map(Difference::Person),
        "[A-Za-z0-9_-]{0,43}".prop_map(Difference::FormValue),
        (600..100_000_i64).prop_map(Difference::Late),
    ]
}

/// What the browser, the person and the form say, with one difference.
fn answer_with(world: &mut World, csrf: &str, difference: &Difference) -> (AgentBinding, String, String) {
    let mut answer = (browser(1), PERSON.to_owned(), csrf.to_owned());
    match difference {
        Difference::Browser(other) => answer.0 = *other,
        Difference::Person(other) => other.clone_into(&mut answer.1),
        Difference::FormValue(other) => other.clone_into(&mut answer.2),
        Difference::Late(seconds) => world.store.pass(Duration::seconds(*seconds)),
    }
    answer
}

proptest! {
    // I-P9, MCP-SBP-005, OAUTH21-3.1-1
    #[test]
    fn an_answer_that_differs_in_one_thing_changes_nothing(difference in difference(), deny in any::<bool>()) {
        let mut world = world();
        let view = world.shown(&Ask::partner());
        let (agent, person, csrf) = answer_with(&mut world, &view.csrf, &difference);
        let deciding = world.deciding(&view.handle).unwrap();
        let refused = if deny {
            deciding.deny(&person, agent, &csrf, &mut world.entropy)
        } else {
            deciding.approve(Approval::assertion(person, agent, scope("read")), &csrf, &mut world.entropy)
        };
        prop_assert_eq!(refused.unwrap_err().reason(), RefusalReason::Decision);
        prop_assert_eq!((world.store.codes(), world.store.pending()), (0, 1));
        // A stranger's form does not use the page up.
        if !matches!(difference, Difference::Late(_)) {
            prop_assert!(world.approve(&view).is_ok());
        }
    }

    // I-C9, I-P9: however many answers are under way, one counts.
    #[test]
    fn one_answer_counts(answers in prop::collection::vec(any::<bool>(), 2..6), first in 0_usize..6) {
        let mut world = world();
        let view = world.shown(&Ask::partner());
        let mut waiting = Vec::new();
        for approve in &answers {
            let deciding = world.deciding(&view.handle).unwrap();
            let step = if *approve {
                let approval = Approval::assertion(PERSON, browser(1), scope("read"));
                deciding.approve(approval, &view.csrf, &mut world.entropy).unwrap()
            } else {
                deciding.deny(PERSON, browser(1), &view.csrf, &mut world.entropy).unwrap()
            };
            waiting.push(step.into_parts());
        }
        let first = first % answers.len();
        waiting.rotate_left(first);
        let mut redirects = 0;
        for (action, state) in waiting {
            match world.decided(action, state) {
                Ok(_) => redirects += 1,
                Err(reason) => prop_assert_eq!(reason, RefusalReason::Decision),
            }
        }
        prop_assert_eq!(redirects, 1);
        prop_assert_eq!(world.store.codes(), usize::from(answers[first]));
        prop_assert_eq!(world.deciding(&view.handle).unwrap_err(), RefusalReason::Decision);
    }

    // I-G12: the form's handle is the only thing it says about what was asked.
    #[test]
    fn no_other_handle_finds_the_page(handle in "[A-Za-z0-9_-]{0,60}", at in any::<prop::sample::Index>()) {
        let mut world = world();
        let view = world.shown(&Ask::partner());
        prop_assert_eq!(world.deciding(&handle).unwrap_err(), RefusalReason::Decision);
        let shorter = &view.handle[..at.index(view.handle.len())];
        prop_assert_eq!(world.deciding(shorter).unwrap_err(), RefusalReason::Decision);
        prop_assert_eq!(world.deciding(&format!("{} ", view.handle)).unwrap_err(), RefusalReason::Decision);
    }
}

// I-T5: a scope that was not on the page is not approved by naming it.
#[test]
fn more_than_was_shown_cannot_be_approved() {
    let mut world = world();
    let view = world.shown(&Ask::partner().with("scope", "read"));
    for wanted in ["read write", "write", "admin"] {
        let approval = Approval::assertion(PERSON, browser(1), scope(wanted));
        let refused = world.press(&view, approval, &view.csrf).unwrap_err();
        assert_eq!(refused, RefusalReason::Scopes, "{wanted}");
    }
    assert_eq!((world.store.codes(), world.store.pending()), (0, 1));
    let _redirect = world.approve(&view).unwrap();
}

// OAUTH21-4.1.2.1-3: denial, or approval of nothing, is access_denied and ends the page.
#[test]
fn a_denial_goes_back_to_the_client() {
    for untick in [false, true] {
        let mut world = world();
        let view = world.shown(&Ask::partner());
        let deciding = world.deciding(&view.handle).unwrap();
        let step = if untick {
            let nothing = Approval::assertion(PERSON, browser(1), Default::default());
            deciding.approve(nothing, &view.csrf, &mut world.entropy).unwrap()
        } else {
            deciding.deny(PERSON, browser(1), &view.csrf, &mut world.entropy).unwrap()
        };
        let (action, waiting) = step.into_parts();
        assert!(action.code().is_none());
        let redirect = world.decided(action, waiting).unwrap().respond();
        assert_eq!(redirect.status(), 303);
        let answer = answered(redirect.header("location").unwrap());
        assert_eq!(answer.get("error"), Some("access_denied"));
        assert_eq!((world.store.codes(), world.store.pending()), (0, 0));
        assert_eq!(world.approve(&view).unwrap_err(), RefusalReason::Decision);
    }
}

// What a person ends while a code is on its way ends the code: it carries the numbers of the time before.
#[test]
fn a_withdrawal_reaches_a_code_that_is_under_way() {
    let mut world = world();
    let client_id = ClientId::new(PARTNER).unwrap();
    let targets = [
        RevocationTarget::Client(client_id.clone()),
        RevocationTarget::Subject(PERSON.into()),
        RevocationTarget::Consent { subject: PERSON.into(), client_id },
    ];
    for target in targets {
        let view = world.shown(&Ask::partner());
        let approval = Approval::assertion(PERSON, browser(1), scope("read"));
        let (action, waiting) = world.press(&view, approval, &view.csrf).unwrap();
        let _done = world.store.revoke_all(RevokeAll::of(target));
        let redirect = world.decided(action, waiting).unwrap();
        let code = answered(redirect.location()).get("code").unwrap().to_owned();
        assert_eq!(world.send(&partner_code(&code)).error().1, "invalid_grant");
    }
    let code = world.code(&Ask::partner());
    assert!(world.send(&partner_code(&code)).is_success());
}

// The code leaves for the receipt of its own storing only.
#[test]
fn a_code_waits_for_its_own_receipt() {
    let mut world = world();
    let press = |world: &mut World| {
        let view = world.shown(&Ask::partner());
        world.press(&view, Approval::assertion(PERSON, browser(1), scope("read")), &view.csrf).unwrap()
    };
    let (one, first) = press(&mut world);
    let (two, second) = press(&mut world);
    let failed = first.decided(world.store.decide_once(two)).unwrap_err();
    assert!(matches!(failed.state.decided(world.store.decide_once(one)), Ok(Decided::Redirect(_))));
    assert_eq!(second.store_failed().respond().status(), 503);
}

// I-P9: the store compares browser and person once more, in the transaction.
#[test]
fn a_store_that_finds_another_person_stores_nothing() {
    let mut world = world();
    let view = world.shown(&Ask::partner());
    let approval = Approval::assertion(PERSON, browser(1), scope("read"));
    let (action, waiting) = world.press(&view, approval, &view.csrf).unwrap();
    let Basis::Answer { agent, subject, .. } = action.basis() else { panic!() };
    assert_eq!((*agent, &**subject), (browser(1), PERSON));
    let Ok(Decided::Refused(refusal)) = waiting.decided(action.not_yours()) else { panic!() };
    assert_eq!(refusal.respond().status(), 403);
}

/// Answers the read of a decision with what a store could hold after somebody changed it.
fn found_after(world: &mut World, change: impl Fn(&str) -> String) -> Result<(), RefusalReason> {
    let request = world.ask(&Ask::partner()).valid();
    let step = request.show(&world.person(), world.store.now(), &mut world.entropy).unwrap();
    let (insert, waiting) = step.into_parts();
    let stored = String::from_utf8(insert.record().to_bytes()).unwrap();
    let record = DecisionRecord::from_bytes(change(&stored).as_bytes()).unwrap();
    let view = waiting.stored(insert.inserted()).unwrap().into_page().unwrap();
    let (read, waiting) = world.server.decide(&view.handle).into_parts();
    let client = world.store.client(PARTNER).map(Arc::new);
    let found = read.found(record, client, Default::default(), world.store.now());
    waiting.found(found).map(drop).map_err(|refusal| refusal.reason())
}

// I-R1: the comparison of redirect URIs is made once more, from what was stored, before a code can exist.
#[test]
fn the_redirect_uri_is_compared_again_at_completion() {
    let mut world = world();
    assert_eq!(found_after(&mut world, str::to_owned), Ok(()));
    let moved = |text: &str| text.replacen("\"https://app.example/cb", "\"https://evil.example/cb", 1);
    assert_eq!(found_after(&mut world, moved), Err(RefusalReason::RedirectUri));
    let anothers = |text: &str| text.replacen("\"partner\"", "\"other\"", 1);
    assert_eq!(found_after(&mut world, anothers), Err(RefusalReason::UnknownClient));
}

// I-R1: and with what is registered then. Whoever has taken over an address that was withdrawn while the page was shown gets
// no code; neither does a client that was removed.
#[test]
fn what_was_withdrawn_while_the_page_was_shown_gets_no_code() {
    let mut world = world();
    let view = world.shown(&Ask::partner());
    let registered = world.store.client(PARTNER).unwrap();
    let mut changed = registered.clone();
    changed.metadata.redirect_uris = vec![RedirectUri::new("https://new.example/cb").unwrap()];
    world.store.put_client(changed);
    assert_eq!(world.deciding(&view.handle).unwrap_err(), RefusalReason::RedirectUri);
    world.store.drop_client(PARTNER);
    assert_eq!(world.deciding(&view.handle).unwrap_err(), RefusalReason::UnknownClient);
    // Nothing was used up.
    world.store.put_client(registered);
    let _redirect = world.approve(&view).unwrap();
}

// The answer to another read is not the answer to this one.
#[test]
fn a_page_that_was_read_for_another_form_is_none() {
    let mut world = world();
    let one = world.shown(&Ask::partner());
    let two = world.shown(&Ask::partner());
    let (_, waiting) = world.server.decide(&one.handle).into_parts();
    let (others, _) = world.server.decide(&two.handle).into_parts();
    let refused = waiting.found(world.store.read_decision(others)).unwrap_err();
    assert_eq!(refused.reason(), RefusalReason::Decision);
    let (_, waiting) = world.server.decide(&one.handle).into_parts();
    assert_eq!(waiting.store_failed().respond().status(), 503);
}

struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&mut self, _: &mut [u8]) -> Result<(), EntropyUnavailable> {
        Err(EntropyUnavailable)
    }
}

// I-G10: without randomness there is no code, and the page can be answered again.
#[test]
fn without_randomness_the_page_stays_open() {
    let mut world = world();
    let view = world.shown(&Ask::partner());
    let deciding = world.deciding(&view.handle).unwrap();
    let approval = Approval::assertion(PERSON, browser(1), scope("read"));
    let refusal = deciding.approve(approval, &view.csrf, &mut NoEntropy).unwrap_err();
    assert_eq!(refusal.respond().status(), 503);
    let _redirect = world.approve(&view).unwrap();
}

// I-G7: what the host logs of states and actions has no code, state, handle or form value in it.
#[test]
fn debug_output_shows_no_secret() {
    let mut world = world();
    let ask = Ask::partner().with("state", "canary-of-the-state");
    let request = world.ask(&ask).valid();
    let mut log = format!("{request:?}");
    let step = request.show(&world.person(), world.store.now(), &mut world.entropy).unwrap();
    log += &format!("{step:?}");
    let (action, waiting) = step.into_parts();
    let view = waiting.stored(world.store.insert_decision(action)).unwrap().into_page().unwrap();
    log += &format!("{view:?}");
    let deciding = world.deciding(&view.handle).unwrap();
    log += &format!("{deciding:?}");
    let approval = Approval::assertion(PERSON, browser(1), scope("read"));
    let step = deciding.approve(approval, &view.csrf, &mut world.entropy).unwrap();
    log += &format!("{step:?}");
    let (action, waiting) = step.into_parts();
    let stored = action.code().map(|(_, record)| String::from_utf8(record.to_bytes()).unwrap()).unwrap();
    let redirect = world.decided(action, waiting).unwrap();
    log += &format!("{redirect:?}");
    let code = answered(redirect.location()).get("code").unwrap().to_owned();
    for secret in ["canary-of-the-state", &code, &view.handle, &view.csrf] {
        assert!(!log.contains(secret), "{log}");
    }
    assert!(!stored.contains(&code));
}
