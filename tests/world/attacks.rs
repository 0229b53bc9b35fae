//! What happens when somebody does not, each beside the control that must succeed.

use mcp_authz::error::{Error, PeerMisbehaved, Remedy};
use mcp_authz::flow::{ClientFlow, ClientInput};
use mcp_authz::message::authorization::Callback;
use mcp_authz::message::exchange::FetchPurpose;
use mcp_authz::message::token::{TokenReply, TokenResponse};
use mcp_authz::secret::AgentBinding;
use mcp_authz::time::Duration;

use crate::peers::{
    Answer, MAIL, NOTES, REDIRECT, Seen, Served, World, parameter, scopes, session, with_parameter,
};

/// A thief's own verifier and its challenge (RFC 7636 appendix B).
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A code of ann's for a client whose verifier the test knows.
fn code(world: &mut World) -> (String, String) {
    let client = world.client();
    let (url, _flow) = world.begin(&client, NOTES);
    let url = with_parameter(&url, "code_challenge", CHALLENGE);
    let client_id = parameter(&url, "client_id").unwrap();
    let Seen::Returned(back) = world.visit(&url, &Answer::Approve) else { panic!("no code") };
    (client_id, parameter(&back, "code").unwrap())
}

fn redeem(world: &mut World, client_id: &str, code: &str, verifier: &str) -> Result<TokenResponse, String> {
    let reply = world.token(&[
        ("grant_type", "authorization_code"),
        ("client_id", client_id),
        ("code", code),
        ("code_verifier", verifier),
        ("redirect_uri", REDIRECT),
        ("resource", NOTES),
    ]);
    match TokenReply::parse(reply.status(), reply.body()).unwrap() {
        TokenReply::Tokens(tokens) => Ok(tokens),
        TokenReply::Error(error) => Err(error.code.as_str().to_owned()),
    }
}

fn refresh(world: &mut World, client_id: &str, tokens: &TokenResponse) -> Result<TokenResponse, String> {
    let token = tokens.refresh_token.as_ref().unwrap().expose().to_owned();
    let reply =
        world.token(&[("grant_type", "refresh_token"), ("client_id", client_id), ("refresh_token", &token)]);
    match TokenReply::parse(reply.status(), reply.body()).unwrap() {
        TokenReply::Tokens(tokens) => Ok(tokens),
        TokenReply::Error(error) => Err(error.code.as_str().to_owned()),
    }
}

#[test]
fn a_replayed_code_gives_nothing_and_ends_what_it_gave() {
    // I-C1, I-C3
    let mut world = World::new();
    let (client_id, code) = code(&mut world);
    let tokens = redeem(&mut world, &client_id, &code, VERIFIER).unwrap();
    assert_eq!(redeem(&mut world, &client_id, &code, VERIFIER).unwrap_err(), "invalid_grant");
    assert_eq!(refresh(&mut world, &client_id, &tokens).unwrap_err(), "invalid_grant");
}

#[test]
fn a_stranger_who_replays_a_code_ends_nothing() {
    // I-C3 (b), I-C4
    let mut world = World::new();
    let (client_id, code) = code(&mut world);
    let wrong = "x".repeat(43);
    assert_eq!(redeem(&mut world, &client_id, &code, &wrong).unwrap_err(), "invalid_grant");
    let tokens = redeem(&mut world, &client_id, &code, VERIFIER).unwrap();
    assert_eq!(redeem(&mut world, &client_id, &code, &wrong).unwrap_err(), "invalid_grant");
    assert_eq!(redeem(&mut world, "somebody-else", &code, VERIFIER).unwrap_err(), "invalid_client");
    assert!(refresh(&mut world, &client_id, &tokens).is_ok());
}

#[test]
fn a_token_for_another_resource_is_refused() {
    // I-A1
    let mut world = World::new();
    let (client_id, code) = code(&mut world);
    let tokens = redeem(&mut world, &client_id, &code, VERIFIER).unwrap();
    let header = format!("Bearer {}", tokens.access_token.expose());
    assert!(matches!(world.call(NOTES, Some(&header), "read"), Served::Ran(_)));
    let Served::Denied(refused) = world.call(MAIL, Some(&header), "read") else { panic!("confused deputy") };
    assert_eq!(refused.status(), 401);
}

#[test]
fn a_callback_of_a_mixed_up_issuer_is_refused_before_any_request() {
    // I-L4 (b), (c), (d)
    for (change, value) in [("iss", "https://evil.example"), ("iss", "https://as.example/"), ("iss", "")] {
        let mut world = World::new();
        let client = world.client();
        let (url, flow) = world.begin(&client, NOTES);
        let Seen::Returned(back) = world.visit(&url, &Answer::Approve) else { panic!("no code") };
        let turn = world.arrive(flow, &with_parameter(&back, change, value));
        assert_eq!(turn.error, Some(Error::Peer(PeerMisbehaved::CallbackIssuer)));
        assert_eq!(turn.error.unwrap().remedy(), Remedy::Reauthorize);
        assert!(matches!(turn.flow, ClientFlow::Ready(_)));
        assert!(world.fetches.iter().all(|(purpose, _)| *purpose != FetchPurpose::CodeExchange));
    }
}

#[test]
fn an_error_of_a_mixed_up_issuer_is_not_shown() {
    // I-L4 (d), MCP-AUTH-040
    let mut world = World::new();
    let client = world.client();
    let (url, flow) = world.begin(&client, NOTES);
    let state = parameter(&url, "state").unwrap();
    let forged = format!(
        "{REDIRECT}?error=access_denied&error_description=pay+here&state={state}&iss=https%3A%2F%2Fevil.example"
    );
    let turn = world.arrive(flow, &forged);
    assert!(turn.refused.is_none());
    assert!(!format!("{turn:?}").contains("pay here"));
}

#[test]
fn a_stray_callback_does_not_cancel_the_login() {
    // I-L4 (a), (e)
    let mut world = World::new();
    let client = world.client();
    let (url, mut flow) = world.begin(&client, NOTES);
    let Seen::Returned(back) = world.visit(&url, &Answer::Approve) else { panic!("no code") };
    let stray = [
        format!("{REDIRECT}?code=x&state=guess"),
        format!("{REDIRECT}?error=access_denied"),
        back.replace("/callback", "/callback/other"),
        back.replace("4711", "4712"),
        with_parameter(&back, "state", "x"),
    ];
    for stray in stray {
        let turn = world.arrive(flow, &stray);
        assert!(turn.error.is_none() && turn.refused.is_none(), "{stray}");
        flow = turn.flow;
        assert!(matches!(flow, ClientFlow::AwaitingCallback(_)), "{stray}");
    }
    let other_browser = AgentBinding::session(b"the browser of mallory").unwrap();
    let callback = Box::new(Callback::from_url(&back).unwrap());
    let turn =
        flow.advance(ClientInput::Callback(callback, other_browser), world.now, &mut world.entropy).unwrap();
    assert!(matches!(turn.flow, ClientFlow::AwaitingCallback(_)));
    let session = session(world.arrive(turn.flow, &back));
    assert!(matches!(world.call_with(&session, NOTES, "read"), Served::Ran(_)));
}

#[test]
fn a_redirect_uri_that_differs_by_one_byte_is_shown_and_not_followed() {
    // I-R1, I-R5
    let mut world = World::new();
    let client = world.client();
    let (url, _) = world.begin(&client, NOTES);
    assert!(world.open(&url).is_ok());
    for other in [
        "http://127.0.0.1:4711/callbacl",
        "http://127.0.0.1:4711/callback/",
        "http://127.0.0.1:4711/Callback",
        "http://127.0.0.2:4711/callback",
        "https://127.0.0.1:4711/callback",
        "http://127.0.0.1:4711/callback?x",
        "https://evil.example/callback",
        "javascript:alert(1)",
    ] {
        let changed = with_parameter(&url, "redirect_uri", other);
        assert!(matches!(world.open(&changed), Err(Seen::Page(400))), "{other}");
        // However wrong the rest is: no redirect of any kind.
        for (name, value) in [
            ("response_type", "token"),
            ("scope", "\""),
            ("code_challenge_method", "plain"),
            ("resource", "x"),
        ] {
            let worse = with_parameter(&changed, name, value);
            assert!(matches!(world.open(&worse), Err(Seen::Page(400))), "{other} {name}");
        }
    }
    // The port of a loopback redirect URI is free (RFC 8252 section 7.3).
    assert!(world.open(&with_parameter(&url, "redirect_uri", "http://127.0.0.1:5000/callback")).is_ok());
}

#[test]
fn every_other_fault_goes_back_with_state_and_issuer() {
    // I-R6, I-R7, I-C5, I-C6
    let mut world = World::new();
    let client = world.client();
    let (url, _) = world.begin(&client, NOTES);
    for (name, value, code) in [
        ("response_type", "token", "unsupported_response_type"),
        ("response_type", "", "invalid_request"),
        ("code_challenge", "", "invalid_request"),
        ("code_challenge", "short", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("code_challenge_method", "", "invalid_request"),
        ("resource", "https://elsewhere.example/mcp", "invalid_target"),
        ("resource", "", "invalid_target"),
        ("scope", "unknown", "invalid_scope"),
        ("scope", "\"", "invalid_scope"),
        ("response_mode", "fragment", "invalid_request"),
        ("request", "e30.e30.", "request_not_supported"),
        ("request_uri", "https://client.example/r", "request_uri_not_supported"),
        ("prompt", "none", "consent_required"),
        ("dpop_jkt", "x", "invalid_request"),
        ("authorization_details", "[]", "invalid_authorization_details"),
    ] {
        let Err(Seen::Returned(back)) = world.open(&with_parameter(&url, name, value)) else {
            panic!("{name}={value}")
        };
        assert!(back.starts_with(&format!("{REDIRECT}?")), "{back}");
        assert_eq!(parameter(&back, "error").as_deref(), Some(code), "{name}={value}");
        assert_eq!(parameter(&back, "state"), parameter(&url, "state"));
        assert_eq!(parameter(&back, "iss").as_deref(), Some("https://as.example"));
        assert_eq!(parameter(&back, "code"), None);
    }
    let doubled = format!("{url}&state=again");
    assert!(
        matches!(world.open(&doubled), Err(Seen::Page(400))),
        "a repeated parameter leaves nobody to answer to"
    );
}

#[test]
fn consent_counts_only_in_the_browser_and_for_the_person_it_was_shown_to() {
    // I-P9, I-C9
    let mut world = World::new();
    let client = world.client();
    let (url, flow) = world.begin(&client, NOTES);
    let view = world.open(&url).unwrap();
    let (ann, mallory) = (world.browser, AgentBinding::session(b"the browser of mallory").unwrap());
    let shown = scopes("read");
    let refused = |seen: Seen| matches!(seen, Seen::Page(_));
    assert!(refused(world.submit(&view.handle, &view.csrf, "ann", mallory, &Answer::Approve, &shown)));
    assert!(refused(world.submit(&view.handle, &view.csrf, "bob", ann, &Answer::Approve, &shown)));
    assert!(refused(world.submit(&view.handle, "guess", "ann", ann, &Answer::Approve, &shown)));
    assert!(refused(world.submit("guess", &view.csrf, "ann", ann, &Answer::Approve, &shown)));
    assert!(refused(world.submit(
        &view.handle,
        &view.csrf,
        "ann",
        ann,
        &Answer::ApproveOnly("read write"),
        &shown
    )));
    assert!(refused(world.submit(&view.handle, &view.csrf, "ann", mallory, &Answer::Deny, &shown)));
    // None of it used the decision up; the person's own answer does, once.
    let Seen::Returned(back) = world.submit(&view.handle, &view.csrf, "ann", ann, &Answer::Approve, &shown)
    else {
        panic!("refused")
    };
    assert!(refused(world.submit(&view.handle, &view.csrf, "ann", ann, &Answer::Approve, &shown)));
    assert!(world.arrive(flow, &back).error.is_none());
    let view = world.open(&url).unwrap();
    world.pass(Duration::minutes(11));
    assert!(
        refused(world.submit(&view.handle, &view.csrf, "ann", ann, &Answer::Approve, &shown)),
        "too late"
    );
}

#[test]
fn a_code_that_was_injected_into_another_login_cannot_be_redeemed() {
    // OAUTH21-4.1.2-5: the attacker's code in the victim's callback fails at the verifier.
    let mut world = World::new();
    let client = world.client();
    let (attacker_url, _) = world.begin(&client, NOTES);
    let Seen::Returned(attacker) = world.visit(&attacker_url, &Answer::Approve) else { panic!("no code") };
    let (victim_url, flow) = world.begin(&client, NOTES);
    let Seen::Returned(victim) = world.visit(&victim_url, &Answer::Approve) else { panic!("no code") };
    let injected = with_parameter(&victim, "code", &parameter(&attacker, "code").unwrap());
    let turn = world.arrive(flow, &injected);
    assert!(matches!(turn.flow, ClientFlow::Ready(_)) && turn.error.is_some());
}

#[test]
fn an_old_code_and_an_old_login_are_worth_nothing() {
    let mut world = World::new();
    let (client_id, code) = code(&mut world);
    world.pass(Duration::minutes(2));
    assert_eq!(redeem(&mut world, &client_id, &code, VERIFIER).unwrap_err(), "invalid_grant");
    let client = world.client();
    let (url, flow) = world.begin(&client, NOTES);
    let Seen::Returned(back) = world.visit(&url, &Answer::Approve) else { panic!("no code") };
    world.pass(Duration::hours(1));
    assert!(matches!(world.arrive(flow, &back).flow, ClientFlow::AwaitingCallback(_)));
}
