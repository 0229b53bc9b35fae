//! What a 401 or 403 says, and how often (D33, I-L8, RFC 9110 section 11.6.1).

use mcp_authz::error::{Error, PeerIncompatible, PeerMisbehaved, Remedy};
use mcp_authz::message::Malformed;
use mcp_authz::message::challenge::ChallengeError;
use mcp_authz_tokio::client::connection::SendError;

use crate::server::{Answer, Request};
use crate::world::{At, HONEST, NOTES, World, control, core, stops_at};

/// A 401 with these field lines for a request without a token.
fn challenging(lines: Vec<Vec<u8>>) -> impl Fn(&Request, Answer) -> Answer + Send + Sync {
    move |request, honest| match request.header("authorization") {
        Some(_) => honest,
        None => lines
            .iter()
            .fold(Answer::status(401), |answer, line| answer.and("www-authenticate", line.clone())),
    }
}

async fn world(lines: Vec<Vec<u8>>) -> World {
    let world = World::new().await;
    world.change(NOTES, At::Mcp, challenging(lines));
    world
}

// RFC9110-11.6.1-1, RFC9110-11.2-2, MCP-DISC-009
#[tokio::test]
async fn a_challenge_that_two_readers_could_understand_in_two_ways_is_not_used() {
    control().await;
    let many = |count: usize| (0..count).map(|number| format!("p{number}=1")).collect::<Vec<_>>().join(", ");
    let url = "http://127.0.0.1:1/m";
    for (line, fault) in [
        (format!("Bearer {}", many(5000)), ChallengeError::TooLarge),
        (format!("Bearer {}", many(33)), ChallengeError::TooLarge),
        (format!("Bearer realm=\"{}\"", "x".repeat(20_000)), ChallengeError::TooLarge),
        ("Basic, ".repeat(17) + "Bearer", ChallengeError::TooLarge),
        (
            format!("Bearer resource_metadata=\"{url}\", resource_metadata=\"{url}\""),
            ChallengeError::Duplicate,
        ),
        (
            format!("Bearer resource_metadata=\"{url}\", Resource_Metadata=\"{url}2\""),
            ChallengeError::Duplicate,
        ),
        ("Bearer scope=\"a\", scope=\"b\"".to_owned(), ChallengeError::Duplicate),
        (
            format!("Bearer resource_metadata=\"{url}\", Bearer resource_metadata=\"{url}2\""),
            ChallengeError::Conflict,
        ),
        (
            format!("DPoP resource_metadata=\"{url}\", Bearer resource_metadata=\"{url}2\""),
            ChallengeError::Conflict,
        ),
        ("Bearer scope=\"a".to_owned(), ChallengeError::Malformed),
        ("Bearer scope=\"a\\".to_owned(), ChallengeError::Malformed),
        ("Bearer scope=\"a\\\"".to_owned(), ChallengeError::Malformed),
        ("Bearer scope=\"a\"b\"".to_owned(), ChallengeError::Malformed),
        ("Bearer scope='a b'".to_owned(), ChallengeError::Malformed),
        ("Bearer scope=a b".to_owned(), ChallengeError::Malformed),
        ("Bearer scope=\"a\"; error=\"b\"".to_owned(), ChallengeError::Malformed),
        (format!("Bearer resource_metadata={url}"), ChallengeError::Malformed),
        ("=".to_owned(), ChallengeError::Malformed),
    ] {
        let mut world = world(vec![line.clone().into_bytes()]).await;
        let error = world.error().await;
        let shown = &line[..line.len().min(80)];
        assert_eq!(error, PeerMisbehaved::Challenge(fault).into(), "{shown}");
        assert_eq!(error.remedy(), Remedy::Refused);
        stops_at(&world, At::Mcp);
    }
    let many = format!(
        "Bearer scope=\"{}\"",
        (0..3000).map(|number| format!("s{number}")).collect::<Vec<_>>().join(" ")
    );
    for scope in [
        many.as_str(),
        "Bearer scope=\"a  b\"",
        "Bearer scope=\"a\\\\b\"",
        "Bearer scope=\"a\\\"b\"",
        "Bearer scope=\"a\\\", resource_metadata=\\\"http://127.0.0.1:1/m\"",
    ] {
        let mut world = world(vec![scope.as_bytes().to_vec()]).await;
        let error = world.error().await;
        let fault = Malformed::Invalid("scope");
        assert!(
            error == PeerMisbehaved::Malformed { document: "challenge", fault }.into()
                || error == PeerMisbehaved::Challenge(ChallengeError::TooLarge).into(),
            "{error:?}"
        );
        stops_at(&world, At::Mcp);
    }
    // Bytes beyond ASCII, in a value that is read and in one that is not.
    for line in [b"Bearer scope=\"\xff\"".as_slice(), b"Bearer resource_metadata=\"\xe2\x80\xae\""] {
        let mut world = world(vec![line.to_vec()]).await;
        assert!(matches!(world.error().await, Error::Peer(_)));
        stops_at(&world, At::Mcp);
    }
}

#[tokio::test]
async fn one_challenge_among_others_is_found_and_no_challenge_hides_another() {
    for lines in [
        vec![
            b"Basic realm=\"Bearer scope=\\\"x\\\"\", bearer scope=\"notes:read\", Digest qop=\"auth\""
                .to_vec(),
        ],
        vec![b"Basic realm=\"a\"".to_vec(), b"Bearer".to_vec(), b"Negotiate".to_vec()],
        vec![b"Negotiate TlRMTVNTUA==, Bearer sc\x6fpe=\"notes:re\\ad\"".to_vec()],
        vec![b", ,Bearer".to_vec()],
        vec![b"Bearer realm=\"\xc3\xb6\"".to_vec()],
        vec![],
    ] {
        let mut world = world(lines.clone()).await;
        assert_eq!(world.call().await.unwrap(), 200, "{lines:?}");
    }
}

// I-G1, D36: what a challenge asks for is bounded, alone and together.
#[tokio::test]
async fn scopes_that_do_not_fit_into_a_url_are_not_asked_for() {
    let scopes: Vec<_> = (0..50).map(|number| format!("{number:0>200}")).collect();
    let mut world = world(vec![format!("Bearer scope=\"{}\"", scopes.join(" ")).into_bytes()]).await;
    let error = world.error().await;
    assert_eq!(error, PeerIncompatible::AuthorizationUrlTooLong.into());
    assert_eq!(error.remedy(), Remedy::Refused);
    stops_at(&world, At::Registration);
    assert!(world.opened().is_empty());
}

/// A 403 for a request with a token.
fn forbidding(challenge: Option<&'static str>) -> impl Fn(&Request, Answer) -> Answer + Send + Sync {
    move |request, honest| match (request.header("authorization"), challenge) {
        (Some(_), Some(challenge)) => Answer::status(403).with("www-authenticate", challenge),
        (Some(_), None) => Answer::status(403),
        (None, _) => honest,
    }
}

// MCP-AUTH-110, MCP-AUTH-113
#[tokio::test]
async fn a_403_that_asks_for_nothing_is_the_answer_and_the_request_is_not_repeated() {
    control().await;
    for challenge in [
        None,
        Some("Bearer"),
        Some("Basic realm=\"x\""),
        Some("Bearer error=\"insufficient_scope\""),
        Some("Bearer error=\"invalid_token\", scope=\"admin\""),
        Some("Bearer scope=\"admin\""),
        Some("Bearer error=\"Insufficient_Scope\", scope=\"admin\""),
        Some("Basic error=\"insufficient_scope\", scope=\"admin\""),
    ] {
        let mut world = World::new().await;
        world.change(NOTES, At::Mcp, forbidding(challenge));
        let error = world.error().await;
        assert_eq!(error, PeerIncompatible::NothingToGain.into(), "{challenge:?}");
        assert_eq!(error.remedy(), Remedy::Refused);
        assert_eq!((world.reached(NOTES, At::Mcp), world.reached(HONEST, At::Authorization)), (2, 1));
        // The session is still there for what it is good for.
        world.mend(NOTES, At::Mcp);
        assert_eq!(world.call().await.unwrap(), 200);
        assert_eq!(world.reached(HONEST, At::Authorization), 1);
    }
    // Without a token there is nothing to widen: that is the server's answer.
    let mut world = World::new().await;
    world.change(NOTES, At::Mcp, |_, _| {
        Answer::status(403).with("www-authenticate", "Bearer error=\"insufficient_scope\", scope=\"admin\"")
    });
    assert_eq!(world.call().await.unwrap(), 403);
    assert_eq!(world.places(), [(NOTES, At::Mcp)]);
}

// D33, MCP-AUTH-102, MCP-AUTH-115, MCP-AUTH-117
#[tokio::test]
async fn a_chain_of_step_ups_ends_after_three() {
    control().await;
    let mut world = World::new().await;
    assert_eq!(world.call().await.unwrap(), 200);
    // Each 403 asks for a scope that was not asked for before, whatever was granted.
    let count = std::sync::atomic::AtomicUsize::new(0);
    world.change(NOTES, At::Mcp, move |request, honest| {
        if request.header("authorization").is_none() {
            return honest;
        }
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"scope-{number}\"");
        Answer::status(403).with("www-authenticate", challenge)
    });
    let mut ended = 0;
    for _ in 0..12 {
        match world.call().await {
            Ok(status) => assert_eq!(status, 403),
            Err(error) => {
                let error = core(error);
                assert_eq!(error, PeerMisbehaved::StepUpLoop.into());
                assert_eq!(error.remedy(), Remedy::Refused);
                ended += 1;
            }
        }
    }
    assert!(ended >= 8, "{ended}");
    assert_eq!(world.reached(HONEST, At::Authorization), 1 + 3, "the person was asked three times more");
}

// D33, MCP-AUTH-102
#[tokio::test]
async fn a_step_up_to_what_the_token_has_is_none() {
    let mut world = World::new().await;
    world.change(
        NOTES,
        At::Mcp,
        forbidding(Some("Bearer error=\"insufficient_scope\", scope=\"notes:read\"")),
    );
    let error = world.error().await;
    assert_eq!(error, PeerMisbehaved::StepUpLoop.into());
    assert_eq!(error.remedy(), Remedy::Refused);
    assert_eq!(world.reached(HONEST, At::Authorization), 1);
    // Nor one that is granted nothing of what was asked for, and asks again.
    let mut world = World::new().await;
    world.change(
        NOTES,
        At::Mcp,
        forbidding(Some("Bearer error=\"insufficient_scope\", scope=\"notes:write\"")),
    );
    world.change(HONEST, At::CodeExchange, |_, honest| honest.member("scope", "notes:read"));
    for _ in 0..4 {
        let _ = world.call().await;
    }
    let error = world.error().await;
    assert_eq!(error, PeerMisbehaved::StepUpLoop.into());
    assert!(world.reached(HONEST, At::Authorization) <= 1 + 3, "{:?}", world.places());
}

// I-L8: a server that takes no token costs one login and one refresh for each request, and no more.
#[tokio::test]
async fn a_server_that_takes_no_token_gets_each_once() {
    control().await;
    let mut world = World::new().await;
    world.takes("no token begins like this");
    assert_eq!(world.call().await.unwrap(), 401);
    let sent: Vec<_> =
        world.seen_at(NOTES, At::Mcp).iter().map(|it| it.header("authorization").is_some()).collect();
    assert_eq!(sent, [false, true, true]);
    assert_eq!(world.reached(HONEST, At::Authorization), 1);
    assert_eq!(world.call().await.unwrap(), 401);
    assert_eq!((world.reached(HONEST, At::Authorization), world.reached(HONEST, At::Refresh)), (1, 2));
    let tokens: Vec<_> = world
        .seen_at(NOTES, At::Mcp)
        .iter()
        .filter_map(|it| it.header("authorization").map(str::to_owned))
        .collect();
    assert!(tokens.len() <= 4, "{tokens:?}");
}

// A status that no challenge has is the server's answer, whatever its fields say.
#[tokio::test]
async fn only_a_401_or_403_is_a_challenge() {
    for status in [400, 402, 404, 405, 407, 418, 500, 503] {
        let mut world = World::new().await;
        world.change(NOTES, At::Mcp, move |_, mut honest| {
            honest.status = status;
            honest
        });
        match world.call().await {
            Ok(met) => assert_eq!(met, status),
            Err(SendError::Fetch(_)) => panic!("{status} is an answer"),
            Err(other) => panic!("{status}: {other:?}"),
        }
        stops_at(&world, At::Mcp);
    }
}
