//! The token and revocation endpoints: what they grant, what they refuse, and that a refusal changes nothing.

use std::sync::Arc;

use crate::grants::{
    APP, CODE, NO_CODES, OTHER, RESOURCE, Request, SECRET, SHORT, VERIFIER, WEB, World, approval, client,
    family, opened, scope, secret, server_with, start, tokens,
};
use crate::token_host::{Flow, Seeded};
use mcp_authz::authorization_server::Lifetimes;
use mcp_authz::authorization_server::caller::CallerOutcome;
use mcp_authz::authorization_server::record::ClientCredential;
use mcp_authz::authorization_server::refresh::RefreshOutcome;
use mcp_authz::authorization_server::revocation::RevocableOutcome;
use mcp_authz::authorization_server::token::CodeOutcome;
use mcp_authz::message::exchange::RequestHead;
use mcp_authz::time::Duration;
use proptest::prelude::*;

fn refusal(code: &str) -> (u16, String) {
    let status = if code == "invalid_client" { 401 } else { 400 };
    (status, code.to_owned())
}

const LONG_AGO: &str = "verifier-verifier-verifier-verifier-verifieR";

// OAUTH21-3.2.3-1, OAUTH21-3.2.3-4, OAUTH21-3.2.3-8, RFC9068-2.1-1, RFC9068-2.2-1, OAUTH21-1.4.1-1, I-C2
#[test]
fn a_code_becomes_tokens_for_what_was_approved() {
    let mut world = World::with_code_for(APP);
    let answer = world.send(&Request::code(APP));
    assert_eq!(answer.respond.header("cache-control"), Some("no-store"));
    assert_eq!(answer.respond.header("content-type"), Some("application/json"));
    let tokens = tokens(&answer);
    assert_eq!(tokens.token_type.as_str(), "Bearer");
    assert_eq!(tokens.expires_in, Some(300));
    assert_eq!(tokens.scope, Some(scope("read write")));
    let (header, claims) = opened(&tokens);
    assert_eq!(header.string("typ"), Ok(Some("at+jwt")));
    assert_eq!(header.string("alg"), Ok(Some("EdDSA")));
    assert_eq!(header.string("kid"), Ok(Some("key-1")));
    assert_eq!(claims.iss, "https://as.example");
    assert_eq!(claims.sub, "ann");
    assert_eq!(claims.aud, [RESOURCE]);
    assert_eq!(claims.client_id, APP);
    assert_eq!(claims.iat, Some(start().unix_timestamp()));
    assert_eq!(claims.exp, start().unix_timestamp() + 300);
    assert_eq!(claims.scope, Some(scope("read write")));
    assert!(claims.jti.is_some_and(|jti| jti.len() >= 22));
    assert!(world.store.was_used(APP));
}

// OAUTH21-10.2-1, RFC8707-2.2-1: both may be left out, and the grant's hold.
#[test]
fn redirect_uri_and_resource_may_be_left_out() {
    let mut world = World::with_code_for(APP);
    let answer = world.send(&Request::code(APP).without("redirect_uri").without("resource"));
    assert_eq!(opened(&tokens(&answer)).1.aud, [RESOURCE]);
}

// D30, MCP-AUTH-058: looked up with case folded, minted as configured.
#[test]
fn another_spelling_of_the_resource_is_minted_as_configured() {
    let mut world = World::with_code_for(APP);
    let answer = world.send(&Request::code(APP).with("resource", "https://MCP.example/notes"));
    assert_eq!(opened(&tokens(&answer)).1.aud, [RESOURCE]);
}

// OAUTH21-3.2-3: what the endpoint does not know is ignored, what is empty is absent.
#[test]
fn unknown_parameters_are_ignored_and_empty_ones_absent() {
    let mut world = World::with_code_for(APP);
    let request =
        Request::code(APP).with("scope", "read admin").with("audience", "x").with("redirect_uri", "");
    assert_eq!(tokens(&world.send(&request)).scope, Some(scope("read write")));
    let mut world = World::with_code_for(APP);
    let answer = world.send(&Request::code(APP).with("code_verifier", ""));
    assert_eq!(answer.error(), refusal("invalid_request"));
}

/// One change of a request, of the world it meets, or of the time; and the answer to it.
fn flips() -> Vec<(&'static str, Request, Duration, &'static str)> {
    let same = Duration::ZERO;
    let ask = || Request::code(APP);
    vec![
        ("client", ask().with("client_id", OTHER), same, "invalid_grant"),
        ("unknown client", ask().with("client_id", "nobody"), same, "invalid_client"),
        ("client's case", ask().with("client_id", "App"), same, "invalid_client"),
        ("verifier", ask().with("code_verifier", LONG_AGO), same, "invalid_grant"),
        ("verifier, longer", ask().with("code_verifier", &format!("{VERIFIER}v")), same, "invalid_grant"),
        ("verifier, short", ask().with("code_verifier", "v"), same, "invalid_request"),
        ("verifier, none", ask().without("code_verifier"), same, "invalid_request"),
        (
            "redirect port",
            ask().with("redirect_uri", "http://127.0.0.1:4712/callback"),
            same,
            "invalid_grant",
        ),
        (
            "redirect path",
            ask().with("redirect_uri", "http://127.0.0.1:4711/callback/"),
            same,
            "invalid_grant",
        ),
        (
            "redirect host",
            ask().with("redirect_uri", "http://localhost:4711/callback"),
            same,
            "invalid_grant",
        ),
        (
            "redirect query",
            ask().with("redirect_uri", "http://127.0.0.1:4711/callback?"),
            same,
            "invalid_grant",
        ),
        ("code", ask().with("code", "another-code"), same, "invalid_grant"),
        ("code's end", ask().with("code", &format!("{CODE}x")), same, "invalid_grant"),
        ("code's start", ask().with("code", &CODE[..CODE.len() - 1]), same, "invalid_grant"),
        ("code's case", ask().with("code", &CODE.to_uppercase()), same, "invalid_grant"),
        ("resource", ask().with("resource", "https://mcp.example/other"), same, "invalid_target"),
        ("resource, unknown", ask().with("resource", "https://evil.example/"), same, "invalid_target"),
        ("resource, path", ask().with("resource", "https://mcp.example/notes/"), same, "invalid_target"),
        ("resource, fragment", ask().with("resource", "https://mcp.example/notes#x"), same, "invalid_target"),
        ("resource, text", ask().with("resource", "notes"), same, "invalid_target"),
        ("expiry", ask(), Duration::MINUTE, "invalid_grant"),
        ("grant type", ask().with("grant_type", "password"), same, "unsupported_grant_type"),
        ("grant type's case", ask().with("grant_type", "Authorization_code"), same, "unsupported_grant_type"),
    ]
}

// I-C2, I-C8, OAUTH21-4.1.3-4, OAUTH21-4.1.3-5, OAUTH21-4.1.3-6, OAUTH21-10.2-1, RFC8707-2.2-1, RFC8707-2-6,
// OAUTH21-3.2.4-4, OAUTH21-10.1-2, I-T11
#[test]
fn one_changed_field_is_refused_and_changes_nothing() {
    for (what, request, later, code) in flips() {
        let mut world = World::with_code_for(APP);
        world.store.pass(later);
        let before = world.store.credentials();
        let answer = world.send(&request);
        assert_eq!(answer.error(), refusal(code), "{what}");
        assert_eq!(answer.respond.header("cache-control"), Some("no-store"), "{what}");
        // I-C3 (b), D18
        assert_eq!(world.store.credentials(), before, "{what}");
        if later == Duration::ZERO {
            assert!(world.send(&Request::code(APP)).is_success(), "{what}: the owner's turn");
        }
    }
}

// OAUTH21-4.1.2-1: the last moment counts, the next does not.
#[test]
fn a_code_ends_on_the_stores_clock() {
    let mut world = World::with_code_for(APP);
    world.store.pass(Duration::MINUTE - Duration::MILLISECOND);
    assert!(world.send(&Request::code(APP)).is_success());
}

// I-C3 (b), OAUTH21-7.5.3-1: a spent code in the wrong hands is as harmless as a live one.
#[test]
fn a_wrong_guess_at_a_spent_code_revokes_nothing() {
    for (what, request, _, _) in flips().into_iter().filter(|(what, ..)| !what.starts_with("resource")) {
        if what == "expiry" {
            continue;
        }
        let mut world = World::with_code_for(APP);
        let refresh = world.refresh_token();
        let before = world.store.credentials();
        assert!(!world.send(&request).is_success(), "{what}");
        assert_eq!(world.store.credentials(), before, "{what}");
        assert!(world.send(&Request::refresh(APP, &refresh)).is_success(), "{what}");
    }
}

// I-C3 (a), OAUTH21-4.1.3-2, OAUTH21-4.1.3-3
#[test]
fn a_genuine_replay_revokes_the_family() {
    for later in [Duration::ZERO, Duration::HOUR] {
        let mut world = World::with_code_for(APP);
        let refresh = world.refresh_token();
        world.store.pass(later);
        let answer = world.send(&Request::code(APP));
        assert_eq!(answer.error(), refusal("invalid_grant"));
        assert_eq!(world.store.revocation(family()), Some("code_replayed"));
        assert_eq!(world.store.live_leaves(family()), 0);
        assert_eq!(world.send(&Request::refresh(APP, &refresh)).error(), refusal("invalid_grant"));
    }
}

// I-G5, I-G9: no final word while the family may still live.
#[test]
fn a_replay_is_not_answered_before_the_revocation_is_stored() {
    let mut world = World::with_code_for(APP);
    world.redeem();
    let mut flow = Request::code(APP).begin(&world.server);
    while !matches!(flow, Flow::Revoke(..)) {
        flow = flow.advance(&mut world.store, &mut world.entropy);
    }
    assert_eq!(flow.fail().answer().error(), (503, String::new()));
    assert!(!world.store.is_revoked(family()));
}

// I-G9, I-C4: at whatever action the host fails, the client gets 503 and its next try succeeds.
#[test]
fn a_failure_at_any_action_is_503_and_costs_nothing() {
    for fails_at in 0..4 {
        let mut world = World::with_code_for(APP);
        let mut flow = Request::code(APP).begin(&world.server);
        for _ in 0..fails_at {
            flow = flow.advance(&mut world.store, &mut world.entropy);
        }
        let before = world.store.credentials();
        assert_eq!(flow.fail().answer().error(), (503, String::new()), "{fails_at}");
        assert_eq!(world.store.credentials(), before, "{fails_at}");
        let refresh = world.refresh_token();

        let mut flow = Request::refresh(APP, &refresh).begin(&world.server);
        for _ in 0..fails_at {
            flow = flow.advance(&mut world.store, &mut world.entropy);
        }
        assert_eq!(flow.fail().answer().error(), (503, String::new()), "{fails_at}");
        assert!(world.send(&Request::refresh(APP, &refresh)).is_success(), "{fails_at}");
    }
}

/// Carries a request out until the action that `stop` names waits.
fn until(world: &mut World, mut flow: Flow, stop: fn(&Flow) -> bool) -> Flow {
    while !stop(&flow) {
        flow = flow.advance(&mut world.store, &mut world.entropy);
    }
    flow
}

// I-G4, I-G5: nobody gets an answer by the receipt of another's action, and the state is given back.
#[test]
fn a_receipt_of_another_action_advances_nothing() {
    let mut world = World::with_code_for(APP);
    let redeem = |world: &mut World| {
        let flow = Request::code(APP).begin(&world.server);
        until(world, flow, |flow| matches!(flow, Flow::Redeem(..)))
    };
    let (first, second) = (redeem(&mut world), redeem(&mut world));
    let (Flow::Redeem(action, own), Flow::Redeem(other, _)) = (first, second) else { panic!() };
    let own = own.redeemed(world.store.redeem_code(other), &mut world.entropy).unwrap_err().state;
    let receipt = world.store.redeem_code(action);
    assert!(own.redeemed(receipt, &mut world.entropy).is_ok());

    let mut world = World::with_code_for(APP);
    let refresh = Request::refresh(APP, &world.refresh_token());
    let rotate = |world: &mut World| {
        let flow = refresh.begin(&world.server);
        until(world, flow, |flow| matches!(flow, Flow::Rotate(..)))
    };
    let (first, second) = (rotate(&mut world), rotate(&mut world));
    let (Flow::Rotate(_, own), Flow::Rotate(other, _)) = (first, second) else { panic!() };
    assert!(own.rotated(world.store.rotate_refresh(other), &mut world.entropy).is_err());

    let replay = |world: &mut World| {
        let flow = Request::code(APP).begin(&world.server);
        until(world, flow, |flow| matches!(flow, Flow::Revoke(..)))
    };
    let (first, second) = (replay(&mut world), replay(&mut world));
    let (Flow::Revoke(_, own), Flow::Revoke(other, _)) = (first, second) else { panic!() };
    let receipt = world.store.revoke_family(other);
    assert!(own.revoked(receipt).is_err());

    let mut world = World::with_code_for(APP);
    let ask = Request::revocation(APP, &world.refresh_token());
    let revoke = |world: &mut World| {
        let flow = ask.begin_revocation(&world.server);
        until(world, flow, |flow| matches!(flow, Flow::Revoked(..)))
    };
    let (first, second) = (revoke(&mut world), revoke(&mut world));
    let (Flow::Revoked(_, own), Flow::Revoked(other, _)) = (first, second) else { panic!() };
    let receipt = world.store.revoke_family(other);
    assert!(own.revoked(receipt).is_err());
}

// I-G4, I-C2: what was read for one request says nothing about another.
#[test]
fn what_was_read_for_another_request_advances_nothing() {
    let mut world = World::with_code_for(APP);
    let (server, entropy) = (world.server.clone(), &mut Seeded(5));
    let Flow::Client(_, own) = Request::code(WEB).begin(&server) else { panic!() };
    let Flow::Client(other, _) = Request::code(APP).begin(&server) else { panic!() };
    let CallerOutcome::Refused(failure) = own.found(world.store.find_client(other), &mut world.entropy)
    else {
        panic!()
    };
    assert_eq!(failure.respond().status(), 500);

    let read = |world: &mut World, request: &Request| {
        let flow = request.begin(&server);
        flow.advance(&mut world.store, &mut Seeded(6))
    };
    let guess = Request::code(APP).with("code", "a-guess");
    let Flow::Code(_, own) = read(&mut world, &guess) else { panic!() };
    let Flow::Code(other, _) = read(&mut world, &Request::code(APP)) else { panic!() };
    let CodeOutcome::Refused(failure) = own.found(world.store.read_code(other), entropy) else { panic!() };
    assert_eq!(failure.respond().status(), 500);

    let token = world.refresh_token();
    let Flow::Refresh(_, own) = read(&mut world, &Request::refresh(APP, "a-guess")) else { panic!() };
    let Flow::Refresh(other, _) = read(&mut world, &Request::refresh(APP, &token)) else { panic!() };
    let RefreshOutcome::Refused(failure) = own.found(world.store.read_refresh(other), entropy) else {
        panic!()
    };
    assert_eq!(failure.respond().status(), 500);

    let revocable = |world: &mut World, token: &str| {
        let flow = Request::revocation(APP, token).begin_revocation(&server);
        flow.advance(&mut world.store, &mut Seeded(7))
    };
    let Flow::Revocable(_, own) = revocable(&mut world, "a-guess") else { panic!() };
    let Flow::Revocable(other, _) = revocable(&mut world, &token) else { panic!() };
    let RevocableOutcome::Refused(failure) = own.found(world.store.read_refresh(other), entropy) else {
        panic!()
    };
    assert_eq!(failure.respond().status(), 500);
}

// I-G4: a token is signed for one answer.
#[test]
fn the_signature_of_another_token_is_refused() {
    let mut world = World::with_code_for(APP);
    let sign = |world: &mut World| {
        let flow = Request::code(APP).begin(&world.server);
        until(world, flow, |flow| matches!(flow, Flow::Sign(..)))
    };
    let (first, second) = (sign(&mut world), sign(&mut world));
    let (Flow::Sign(_, own), Flow::Sign(other, _)) = (first, second) else { panic!() };
    let failure = own.signed(other.signed([0_u8; 64]).unwrap()).unwrap_err();
    assert_eq!(failure.respond().status(), 500);
    assert!(world.send(&Request::code(APP)).is_success());
}

// OAUTH21-3.2.3-6, OAUTH21-3.2.4-5
#[test]
fn grant_types_follow_the_registration_and_the_decision() {
    let mut world = World::with_code_for(SHORT);
    assert!(tokens(&world.send(&Request::code(SHORT))).refresh_token.is_none());
    let mut without = approval(APP);
    without.refresh = false;
    let mut world = World::with_code(without);
    assert!(world.redeem().refresh_token.is_none());
    let mut world = World::with_code_for(NO_CODES);
    assert_eq!(world.send(&Request::code(NO_CODES)).error(), refusal("unauthorized_client"));
    assert_eq!(world.send(&Request::refresh(SHORT, "x")).error(), refusal("unauthorized_client"));
}

// MCP-SEC-003, RFC6750-5.2-1: no token outlives its family.
#[test]
fn no_token_outlives_its_family() {
    let mut record = approval(APP);
    Arc::make_mut(&mut record.grant).not_after = start() + Duration::seconds(90);
    let mut world = World::with_code(record.clone());
    let first = world.redeem();
    assert_eq!(first.expires_in, Some(90));
    assert_eq!(opened(&first).1.exp, (start() + Duration::seconds(90)).unix_timestamp());
    world.store.pass(Duration::seconds(80));
    let refresh = first.refresh_token.unwrap().expose().to_owned();
    let second = tokens(&world.send(&Request::refresh(APP, &refresh)));
    assert_eq!(second.expires_in, Some(10));
    world.store.pass(Duration::seconds(10));
    let refresh = second.refresh_token.unwrap().expose().to_owned();
    assert_eq!(world.send(&Request::refresh(APP, &refresh)).error(), refusal("invalid_grant"));
    Arc::make_mut(&mut record.grant).not_after = start();
    let mut world = World::with_code(record);
    assert_eq!(world.send(&Request::code(APP)).error(), refusal("invalid_grant"));
}

// OAUTH21-3.2-4, OAUTH21-3.2.4-1, OAUTH21-3.2.4-3
#[test]
fn a_request_that_is_no_form_is_refused_at_once() {
    let mut world = World::with_code_for(APP);
    let good = Request::code(APP);
    let mut send = |head: &RequestHead, body: &str| {
        Flow::token(&world.server, head, body.as_bytes()).finish(&mut world.store, &mut world.entropy).error()
    };
    let body = good.body();
    for (name, value) in &good.form {
        let twice = format!("{body}&{}", mcp_authz::syntax::form::encode([(*name, value.as_str())]));
        assert_eq!(send(&good.head(), &twice), refusal("invalid_request"), "{name} twice");
    }
    assert_eq!(send(&good.head(), ""), refusal("invalid_request"));
    assert_eq!(send(&good.head(), "%"), refusal("invalid_request"));
    assert_eq!(send(&good.head(), "{\"grant_type\":\"refresh_token\"}"), refusal("invalid_request"));
    for name in ["grant_type", "code"] {
        assert_eq!(
            send(&good.head(), &good.clone().without(name).body()),
            refusal("invalid_request"),
            "{name}"
        );
    }
    let no_type = RequestHead::new("POST", "/token");
    assert_eq!(send(&no_type, &body), refusal("invalid_request"));
    for kind in ["application/json", "application/x-www-form-urlencodedx", "text/plain", ""] {
        let head = no_type.clone().with_header("content-type", kind.as_bytes());
        assert_eq!(send(&head, &body), refusal("invalid_request"), "{kind}");
    }
    let twice = good.head().with_header("content-type", b"application/x-www-form-urlencoded");
    assert_eq!(send(&twice, &body), refusal("invalid_request"));
    let get =
        RequestHead::new("GET", "/token").with_header("content-type", b"application/x-www-form-urlencoded");
    assert_eq!(send(&get, &body), (405, String::new()));
    let charset = no_type.with_header("content-type", b"Application/X-WWW-Form-Urlencoded; charset=UTF-8");
    assert_eq!(send(&charset, &body).0, 200);
}

// OAUTH21-2.4-2, OAUTH21-2.4.1-1, OAUTH21-2.4.1-4, OAUTH21-2.4.1-6, OAUTH21-3.2.2-2, OAUTH21-3.2.4-2, D21
#[test]
fn a_confidential_client_presents_its_secret_in_exactly_one_way() {
    let ask = || Request::code(WEB).without("client_id");
    let basic = ask().with_basic(WEB, SECRET);
    let post = ask().with("client_id", WEB).with("client_secret", SECRET);
    for (what, request, expected) in [
        ("basic", basic.clone(), None),
        ("post", post.clone(), None),
        ("basic and the id", basic.clone().with("client_id", WEB), None),
        ("basic and another id", basic.clone().with("client_id", APP), Some("invalid_request")),
        ("basic and post", basic.clone().with("client_secret", SECRET), Some("invalid_request")),
        ("basic twice", basic.clone().with_basic(WEB, SECRET), Some("invalid_request")),
        ("nothing", ask(), Some("invalid_client")),
        ("the id alone", ask().with("client_id", WEB), Some("invalid_client")),
        ("an empty secret", ask().with("client_id", WEB).with("client_secret", ""), Some("invalid_client")),
        ("a wrong secret", ask().with_basic(WEB, "wrong"), Some("invalid_client")),
        ("a wrong posted secret", post.clone().with("client_secret", "wrong"), Some("invalid_client")),
        ("a prefix", ask().with_basic(WEB, &SECRET[..SECRET.len() - 1]), Some("invalid_client")),
        ("another client's name", ask().with_basic(OTHER, SECRET), Some("invalid_client")),
        ("nobody's name", ask().with_basic("nobody", SECRET), Some("invalid_client")),
        (
            "an assertion",
            ask().with("client_id", WEB).with("client_assertion", "a.b.c"),
            Some("invalid_client"),
        ),
        ("assertion and basic", basic.clone().with("client_assertion_type", "x"), Some("invalid_client")),
        ("assertion and post", post.with("client_assertion", "a.b.c"), Some("invalid_client")),
    ] {
        let mut world = World::with_code_for(WEB);
        let before = world.store.credentials();
        let answer = world.send(&request);
        match expected {
            None => assert!(answer.is_success(), "{what}: {:?}", answer.reason),
            Some(code) => {
                assert_eq!(answer.error(), refusal(code), "{what}");
                assert_eq!(world.store.credentials(), before, "{what}");
                let challenge = answer.respond.header("www-authenticate");
                assert_eq!(challenge.is_some(), code == "invalid_client", "{what}");
                assert!(challenge.is_none_or(|value| value.starts_with("Basic realm=")), "{what}");
            }
        }
    }
}

// OAUTH21-2.4.1-6: the halves are form-encoded, so that a colon or a space in them is no border.
#[test]
fn other_schemes_and_broken_credentials_authenticate_nobody() {
    for field in ["Bearer abc", "Basic", "Basic %%%", "Basic d2ViIGFwcDoxOmE=", "DPoP x", ""] {
        let mut world = World::with_code_for(APP);
        let mut request = Request::code(APP);
        request.fields.push(("authorization", field.as_bytes().to_vec()));
        assert_eq!(world.send(&request).error(), refusal("invalid_client"), "{field}");
    }
}

// OAUTH21-2.4.1-3
#[test]
fn credentials_in_the_query_do_not_count() {
    let mut world = World::with_code_for(WEB);
    let mut request = Request::code(WEB);
    request.target = "/token?client_id=web+app%3A1&client_secret=a+secret%3A+with+%25+%2B+and+colon";
    assert_eq!(world.send(&request).error(), refusal("invalid_client"));
    assert_eq!(world.send(&request.without("client_id")).error(), refusal("invalid_client"));
}

// OAUTH21-3.2.2-3: a public client has no secret that could be right (I-P6).
#[test]
fn a_public_client_with_a_secret_is_refused() {
    let mut world = World::with_code_for(APP);
    let secret = Request::code(APP).with("client_secret", "anything");
    assert_eq!(world.send(&secret).error(), refusal("invalid_client"));
    let basic = Request::code(APP).without("client_id").with_basic(APP, "anything");
    assert_eq!(world.send(&basic).error(), refusal("invalid_client"));
}

#[test]
fn an_expired_secret_is_refused() {
    let both = ["authorization_code", "refresh_token"];
    let mut world = World::with_code_for(WEB);
    world.store.put_client(client(WEB, &both, secret(Some(start() + Duration::SECOND))));
    let request = Request::code(WEB).without("client_id").with_basic(WEB, SECRET);
    let mut early = World::with_code_for(WEB);
    early.store.put_client(client(WEB, &both, secret(Some(start() + Duration::SECOND))));
    assert!(early.send(&request).is_success());
    world.store.pass(Duration::SECOND);
    assert_eq!(world.send(&request).error(), refusal("invalid_client"));
}

// D40: whether a client exists is not to be learned from the answer.
#[test]
fn an_unknown_client_and_a_wrong_secret_get_one_answer() {
    let mut world = World::with_code_for(WEB);
    let ask = |id: &str| Request::code(WEB).without("client_id").with_basic(id, "wrong");
    let (known, unknown) = (world.send(&ask(WEB)), world.send(&ask("nobody")));
    assert_eq!(known.respond.body(), unknown.respond.body());
    assert!(known.respond.headers().eq(unknown.respond.headers()));
    assert_ne!(known.reason, unknown.reason);
}

// I-T1, I-T2, MCP-SEC-004, OAUTH21-4.3.1-5
#[test]
fn each_refresh_retires_the_token_it_used_and_reuse_ends_the_family() {
    let mut world = World::with_code_for(APP);
    let first = world.refresh_token();
    let second = tokens(&world.send(&Request::refresh(APP, &first))).refresh_token.unwrap();
    assert_ne!(second.expose(), first);
    assert_eq!(world.store.live_leaves(family()), 1);
    let reuse = world.send(&Request::refresh(APP, &first));
    assert_eq!(reuse.error(), refusal("invalid_grant"));
    assert_eq!(world.store.revocation(family()), Some("refresh_reused"));
    let descendant = world.send(&Request::refresh(APP, second.expose()));
    assert_eq!(descendant.error(), refusal("invalid_grant"));
}

// I-T2: before the client is known to be the token's own, reuse sets nothing off.
#[test]
fn a_stranger_with_a_retired_token_revokes_nothing() {
    let mut record = approval(WEB);
    record.refresh = true;
    let mut world = World::with_code(record);
    let own = |request: Request| request.without("client_id").with_basic(WEB, SECRET);
    let first = tokens(&world.send(&own(Request::code(WEB)))).refresh_token.unwrap();
    assert!(world.send(&own(Request::refresh(WEB, first.expose()))).is_success());
    let before = world.store.credentials();
    for request in [
        Request::refresh(APP, first.expose()),
        Request::refresh(WEB, first.expose()),
        Request::refresh(WEB, first.expose()).without("client_id").with_basic(WEB, "wrong"),
    ] {
        assert!(!world.send(&request).is_success());
        assert_eq!(world.store.credentials(), before);
    }
}

// I-T4, OAUTH21-4.3-1, OAUTH21-4.3.1-3
#[test]
fn a_refresh_checks_client_grant_and_time_again() {
    type Change = fn(&mut World);
    let consent = |world: &mut World, target| {
        let action = mcp_authz::authorization_server::store::RevokeAll::of(target);
        let _done = world.store.revoke_all(action);
    };
    use mcp_authz::authorization_server::store::RevocationTarget as Target;
    use mcp_authz::identifier::ClientId;
    let app = || ClientId::new(APP).unwrap();
    let mut world = World::with_code_for(APP);
    let token = world.refresh_token();
    let before = world.store.credentials();
    assert_eq!(world.send(&Request::refresh(OTHER, &token)).error(), refusal("invalid_grant"));
    assert_eq!(world.store.credentials(), before);
    for target in [
        Target::Client(app()),
        Target::Subject("ann".into()),
        Target::Consent { subject: "ann".into(), client_id: app() },
    ] {
        let mut world = World::with_code_for(APP);
        let token = world.refresh_token();
        consent(&mut world, target.clone());
        assert_eq!(
            world.send(&Request::refresh(APP, &token)).error(),
            refusal("invalid_grant"),
            "{target:?}"
        );
        let mut world = World::with_code_for(APP);
        consent(&mut world, target.clone());
        assert_eq!(world.send(&Request::code(APP)).error(), refusal("invalid_grant"), "{target:?}");
    }
    let changes: [(Change, &str); 4] = [
        (|world| world.store.drop_client(APP), "invalid_client"),
        (|world| world.store.pass(Duration::WEEK), "invalid_grant"),
        (|world| world.server = server_with(&["admin"], Lifetimes::default()), "invalid_scope"),
        (
            |world| {
                let credential = ClientCredential::None;
                world.store.put_client(client(APP, &["authorization_code"], credential));
            },
            "unauthorized_client",
        ),
    ];
    for (at, (change, code)) in changes.into_iter().enumerate() {
        let mut world = World::with_code_for(APP);
        let token = world.refresh_token();
        change(&mut world);
        let before = world.store.credentials();
        assert_eq!(world.send(&Request::refresh(APP, &token)).error(), refusal(code), "{at}");
        assert_eq!(world.store.credentials(), before, "{at}");
    }
}

// RFC8707-2.2-3, I-T4: what the resource or the registration lost, the token loses.
#[test]
fn a_token_has_only_what_resource_and_client_still_have() {
    let mut world = World::with_code_for(APP);
    let token = world.refresh_token();
    world.server = server_with(&["write", "admin"], Lifetimes::default());
    let second = tokens(&world.send(&Request::refresh(APP, &token)));
    assert_eq!(second.scope, Some(scope("write")));
    world.server = server_with(&["read", "write"], Lifetimes::default());
    let mut record = client(APP, &["authorization_code", "refresh_token"], ClientCredential::None);
    record.metadata.scope = Some(scope("read admin"));
    world.store.put_client(record);
    let third = tokens(&world.send(&Request::refresh(APP, second.refresh_token.unwrap().expose())));
    assert_eq!(opened(&third).1.scope, Some(scope("read")));
}

// OAUTH21-4.3.3-2
#[test]
fn a_refresh_token_ends_without_use() {
    let idle = Lifetimes { refresh_idle: Duration::HOUR, ..Lifetimes::default() };
    for (wait, works) in [(Duration::HOUR - Duration::SECOND, true), (Duration::HOUR, false)] {
        let mut world = World::with_code_for(APP);
        world.server = server_with(&["read", "write"], idle);
        let token = world.refresh_token();
        world.store.pass(wait);
        assert_eq!(world.send(&Request::refresh(APP, &token)).is_success(), works);
    }
}

// I-T7: a token of one kind is none of another.
#[test]
fn tokens_of_one_kind_are_refused_as_another() {
    let mut world = World::with_code_for(APP);
    let first = world.redeem();
    let refresh = first.refresh_token.as_ref().unwrap().expose();
    let before = world.store.credentials();
    for text in [CODE, first.access_token.expose(), VERIFIER] {
        assert_eq!(world.send(&Request::refresh(APP, text)).error(), refusal("invalid_grant"));
    }
    for text in [refresh, first.access_token.expose()] {
        assert_eq!(world.send(&Request::code(APP).with("code", text)).error(), refusal("invalid_grant"));
    }
    assert_eq!(world.store.credentials(), before);
}

// I-T8, RFC7009-2-1, RFC7009-2.1-2, RFC7009-2.1-3, RFC7009-2.2-1
#[test]
fn revocation_ends_only_the_clients_own_and_tells_nothing_of_others() {
    let mut world = World::with_code_for(APP);
    let token = world.refresh_token();
    let before = world.store.credentials();
    let other = world.send_revocation(&Request::revocation(OTHER, &token));
    let unknown = world.send_revocation(&Request::revocation(OTHER, "no-such-token"));
    assert_eq!(world.store.credentials(), before);
    for hint in ["access_token", "refresh_token", "nonsense"] {
        let mut world = World::with_code_for(APP);
        let token = world.refresh_token();
        let own = world.send_revocation(&Request::revocation(APP, &token).with("token_type_hint", hint));
        for answer in [&other, &unknown] {
            assert_eq!(answer.respond.status(), 200);
            assert_eq!(answer.respond.body(), own.respond.body());
            assert!(answer.respond.headers().eq(own.respond.headers()));
        }
        assert_eq!(world.store.revocation(family()), Some("client_request"), "{hint}");
        assert_eq!(world.send(&Request::refresh(APP, &token)).error(), refusal("invalid_grant"));
    }
}

// RFC7009-2.1-2, RFC7009-2.2.1-1, OAUTH21-3.2.4-1
#[test]
fn revocation_authenticates_the_client_and_names_what_it_cannot_do() {
    let mut world = World::with_code_for(WEB);
    let own = Request::code(WEB).without("client_id").with_basic(WEB, SECRET);
    let first = tokens(&world.send(&own));
    let refresh = first.refresh_token.unwrap();
    let before = world.store.credentials();
    let alone = Request::revocation(WEB, refresh.expose());
    assert_eq!(world.send_revocation(&alone).error(), refusal("invalid_client"));
    let wrong = alone.clone().without("client_id").with_basic(WEB, "wrong");
    assert_eq!(world.send_revocation(&wrong).error(), refusal("invalid_client"));
    let own = |token: &str| Request::revocation(WEB, token).without("client_id").with_basic(WEB, SECRET);
    let jwt = world.send_revocation(&own(first.access_token.expose()));
    assert_eq!(jwt.error(), refusal("unsupported_token_type"));
    let nothing = world.send_revocation(&own("x").without("token"));
    assert_eq!(nothing.error(), refusal("invalid_request"));
    assert_eq!(world.store.credentials(), before);
    let flow = own(refresh.expose()).begin_revocation(&world.server);
    let flow =
        flow.advance(&mut world.store, &mut world.entropy).advance(&mut world.store, &mut world.entropy);
    assert_eq!(flow.fail().answer().error(), (503, String::new()));
    assert!(!world.store.is_revoked(family()));
    assert!(world.send_revocation(&own(refresh.expose())).is_success());
    assert!(world.store.is_revoked(family()));
}

// I-G7: states and answers keep what they hold to themselves.
#[test]
fn no_state_shows_a_secret() {
    let mut world = World::with_code_for(WEB);
    let ask = Request::code(WEB).without("client_id").with_basic(WEB, SECRET);
    let mut flow = ask.begin(&world.server);
    let mut shown = Vec::new();
    while !flow.is_done() {
        shown.push(format!("{flow:?}"));
        flow = flow.advance(&mut world.store, &mut world.entropy);
    }
    let answer = flow.answer();
    shown.push(format!("{answer:?}"));
    let first = tokens(&answer);
    let refresh = first.refresh_token.unwrap();
    let ask = Request::refresh(WEB, refresh.expose()).without("client_id").with_basic(WEB, SECRET);
    let mut flow = ask.begin(&world.server);
    while !flow.is_done() {
        shown.push(format!("{flow:?}"));
        flow = flow.advance(&mut world.store, &mut world.entropy);
    }
    let second = tokens(&flow.answer()).refresh_token.unwrap();
    let claims = first.access_token.expose().split('.').nth(1).unwrap();
    for text in shown {
        for secret in [CODE, VERIFIER, SECRET, claims, refresh.expose(), second.expose()] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // I-T5, OAUTH21-4.3.1-2, OAUTH21-4.3.3-1, OAUTH21-3.2.4-6
    #[test]
    fn a_refresh_narrows_the_token_and_never_the_grant(asked in "(read|write|admin|x)( (read|write|admin|x)){0,3}|[ -~]{1,6}") {
        let mut world = World::with_code_for(APP);
        let token = world.refresh_token();
        let before = world.store.credentials();
        let answer = world.send(&Request::refresh(APP, &token).with("scope", &asked));
        let wanted = mcp_authz::identifier::ScopeSet::parse(&asked).ok();
        match wanted.filter(|wanted| !wanted.is_empty() && wanted.is_subset_of(&scope("read write"))) {
            Some(wanted) => {
                let narrowed = tokens(&answer);
                prop_assert_eq!(narrowed.scope.clone(), Some(wanted.clone()));
                prop_assert_eq!(opened(&narrowed).1.scope, Some(wanted));
                let next = narrowed.refresh_token.unwrap();
                let whole = tokens(&world.send(&Request::refresh(APP, next.expose())));
                prop_assert_eq!(whole.scope, Some(scope("read write")));
            }
            None => {
                prop_assert_eq!(answer.error(), refusal("invalid_scope"));
                prop_assert_eq!(world.store.credentials(), before);
            }
        }
    }

    // I-T6, RFC8707-2.2-1
    #[test]
    fn a_refresh_never_leaves_the_resource(path in "/(notes|other|note|notes/|notes/sub|Notes)?", host in "mcp|MCP|evil") {
        let mut world = World::with_code_for(APP);
        let token = world.refresh_token();
        let asked = format!("https://{host}.example{path}");
        let answer = world.send(&Request::refresh(APP, &token).with("resource", &asked));
        if path == "/notes" && host != "evil" {
            prop_assert_eq!(opened(&tokens(&answer)).1.aud, [RESOURCE]);
        } else {
            prop_assert_eq!(answer.error(), refusal("invalid_target"));
            prop_assert!(world.send(&Request::refresh(APP, &token)).is_success());
        }
    }

    // I-C4: whatever fails before, the owner's request is accepted; nobody else's ever is.
    #[test]
    fn failed_attempts_never_change_what_is_accepted(attempts in proptest::collection::vec(0_usize..23, 0..8)) {
        let all = flips();
        let mut world = World::with_code_for(APP);
        let before = world.store.credentials();
        for at in attempts {
            let (what, request, later, _) = &all[at % all.len()];
            if *later == Duration::ZERO {
                prop_assert!(!world.send(request).is_success(), "{}", what);
            }
        }
        prop_assert_eq!(world.store.credentials(), before);
        prop_assert!(world.send(&Request::code(APP)).is_success());
    }

    // I-C2, I-C7: only the one verifier.
    #[test]
    fn only_the_verifier_of_the_challenge_redeems(verifier in "[A-Za-z0-9._~-]{43,50}|[ -~]{0,50}") {
        prop_assume!(verifier != VERIFIER);
        let mut world = World::with_code_for(APP);
        let before = world.store.credentials();
        prop_assert!(!world.send(&Request::code(APP).with("code_verifier", &verifier)).is_success());
        prop_assert_eq!(world.store.credentials(), before);
    }

    // I-G1: any bytes get an answer.
    #[test]
    fn any_body_gets_an_answer(body in proptest::collection::vec(any::<u8>(), 0..200), field in proptest::collection::vec(any::<u8>(), 0..60)) {
        let mut world = World::with_code_for(APP);
        let head = Request::code(APP).head().with_header("authorization", &field);
        let answer = Flow::token(&world.server, &head, &body).finish(&mut world.store, &mut Seeded(3));
        prop_assert!(!answer.is_success());
        let answer = Flow::revocation(&world.server, &head, &body).finish(&mut world.store, &mut world.entropy);
        prop_assert!(!answer.is_success());
    }
}
