//! The bounded grace of decision D17: a client that lost the answer to its refresh gets the same one again, a thief no more
//! than a race already gives, and without the relaxation nobody gets anything twice.

use mcp_authz::authorization_server::grace::{GraceKey, RefreshGrace};
use mcp_authz::authorization_server::refresh::RefreshOutcome;
use mcp_authz::authorization_server::store::Retirement;
use mcp_authz::authorization_server::{AuthorizationServer, Lifetimes};
use mcp_authz::time::Duration;

use crate::grants::{APP, Request, World, family, server_with, tokens, with_grace};
use crate::token_host::Flow;

fn grace(seconds: i64, repeats: u32) -> RefreshGrace {
    RefreshGrace::new(Duration::seconds(seconds), repeats, GraceKey::new([5; 32])).unwrap()
}

fn world() -> World {
    let mut world = World::with_code_for(APP);
    world.server = with_grace(grace(30, 2));
    world
}

fn refresh_of(world: &mut World, token: &str) -> Result<String, (u16, String)> {
    let answer = world.send(&Request::refresh(APP, token));
    if answer.is_success() {
        Ok(tokens(&answer).refresh_token.unwrap().expose().to_owned())
    } else {
        Err(answer.error())
    }
}

fn reuse() -> Result<String, (u16, String)> {
    Err((400, "invalid_grant".to_owned()))
}

// D17, I-T3
#[test]
fn a_lost_answer_is_repeated_a_few_times_and_never_forks() {
    let mut world = world();
    let first = world.refresh_token();
    let second = refresh_of(&mut world, &first).unwrap();
    for _ in 0..2 {
        assert_eq!(refresh_of(&mut world, &first).as_ref(), Ok(&second));
        assert_eq!(world.store.live_leaves(family()), 1);
    }
    // The third repetition is one too many: reuse, and the family ends.
    assert_eq!(refresh_of(&mut world, &first), reuse());
    assert_eq!(world.store.revocation(family()), Some("refresh_reused"));
    assert_eq!(refresh_of(&mut world, &second), reuse());
}

// I-T3: by the clock of the store, from the rotation on.
#[test]
fn the_window_ends() {
    for (seconds, within) in [(29, true), (30, false)] {
        let mut world = world();
        let first = world.refresh_token();
        let second = refresh_of(&mut world, &first).unwrap();
        world.store.pass(Duration::seconds(seconds));
        let again = refresh_of(&mut world, &first);
        assert_eq!(again, if within { Ok(second) } else { reuse() }, "{seconds}");
        assert_eq!(world.store.is_revoked(family()), !within);
    }
}

// I-T3: whoever used the successor has proved that the answer arrived.
#[test]
fn the_first_use_of_the_successor_closes_the_window() {
    let mut world = world();
    let first = world.refresh_token();
    let second = refresh_of(&mut world, &first).unwrap();
    let _third = refresh_of(&mut world, &second).unwrap();
    assert_eq!(refresh_of(&mut world, &first), reuse());
    assert!(world.store.is_revoked(family()));
}

/// What the store noted is judged before anything is signed, and not left to the store's own conditions.
#[test]
fn a_retirement_outside_the_bounds_is_reuse_at_once() {
    for (repeats, unused, within) in [(1, true, true), (2, true, false), (0, false, false)] {
        let mut world = world();
        let first = world.refresh_token();
        refresh_of(&mut world, &first).unwrap();
        let flow = Request::refresh(APP, &first).begin(&world.server);
        let Flow::Refresh(read, waiting) = flow.advance(&mut world.store, &mut world.entropy) else {
            panic!()
        };
        let (record, at, request) = world.store.retired(read.digest()).unwrap();
        let found = read.retired(record, Retirement::new(at, request, repeats, unused), world.store.now());
        let outcome = waiting.found(found, &mut world.entropy);
        assert_eq!(matches!(outcome, RefreshOutcome::Sign(_)), within, "{repeats} {unused}");
        assert_eq!(matches!(outcome, RefreshOutcome::Reused(_)), !within, "{repeats} {unused}");
    }
}

#[test]
fn only_the_identical_request_is_repeated() {
    for (name, value) in [("scope", "read"), ("resource", crate::grants::RESOURCE)] {
        let mut world = world();
        let first = world.refresh_token();
        refresh_of(&mut world, &first).unwrap();
        let answer = world.send(&Request::refresh(APP, &first).with(name, value));
        assert_eq!(answer.error(), (400, "invalid_grant".to_owned()), "{name}");
        assert!(world.store.is_revoked(family()), "{name}");
    }
}

// D17: off unless the operator asks for it.
#[test]
fn without_the_relaxation_a_second_presentation_is_reuse() {
    let mut world = World::with_code_for(APP);
    assert!(world.server.refresh_grace().is_none());
    let first = world.refresh_token();
    let _second = refresh_of(&mut world, &first).unwrap();
    assert_eq!(refresh_of(&mut world, &first), reuse());
    assert!(world.store.is_revoked(family()));
}

/// Two copies of one request run side by side: both end with the same token, whichever commits first.
#[test]
fn two_copies_of_one_request_at_the_same_time_get_the_same_token() {
    let mut world = world();
    let first = world.refresh_token();
    let request = Request::refresh(APP, &first);
    let up_to_rotation = |world: &mut World| {
        let mut flow = request.begin(&world.server);
        while !matches!(flow, Flow::Rotate(..)) {
            flow = flow.advance(&mut world.store, &mut world.entropy);
        }
        flow
    };
    let (one, two) = (up_to_rotation(&mut world), up_to_rotation(&mut world));
    let one = tokens(&one.finish(&mut world.store, &mut world.entropy));
    let two = tokens(&two.finish(&mut world.store, &mut world.entropy));
    let text = |tokens: &mcp_authz::message::token::TokenResponse| {
        tokens.refresh_token.as_ref().unwrap().expose().to_owned()
    };
    assert_eq!(text(&one), text(&two));
    assert_ne!(one.access_token.expose(), two.access_token.expose());
    assert!(!world.store.is_revoked(family()));
    assert_eq!(world.store.live_leaves(family()), 1);
}

/// A revocation between reading and repeating wins.
#[test]
fn nothing_is_repeated_of_a_revoked_family() {
    let mut world = world();
    let first = world.refresh_token();
    let second = refresh_of(&mut world, &first).unwrap();
    let mut flow = Request::refresh(APP, &first).begin(&world.server);
    while !matches!(flow, Flow::Rotate(..)) {
        flow = flow.advance(&mut world.store, &mut world.entropy);
    }
    assert!(world.send_revocation(&Request::revocation(APP, &second)).is_success());
    let answer = flow.finish(&mut world.store, &mut world.entropy);
    assert_eq!(answer.error(), (400, "invalid_grant".to_owned()));
}

// I-G7: the key and what is computed under it stay out of every log.
#[test]
fn the_key_shows_in_no_debug_output() {
    let server: AuthorizationServer = with_grace(grace(60, 3));
    let shown = format!("{server:?} {:?}", GraceKey::new([5; 32]));
    assert!(shown.contains("RefreshGrace") && !shown.contains("5, 5"), "{shown}");
    let plain = server_with(&["read"], Lifetimes::default());
    assert!(!format!("{plain:?}").contains("GraceKey"));
}
