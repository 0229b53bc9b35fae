//! What the token endpoint answers: taken whole or not at all (I-L9), and never more than was granted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcp_authz::client::Session;
use mcp_authz::error::{Error, HostMisuse, PeerIncompatible, PeerMisbehaved, Remedy};
use mcp_authz::message::Malformed;
use mcp_authz_tokio::client::driver::Refreshed;
use serde_json::{Value, json};

use crate::server::Answer;
use crate::world::{At, HONEST, NOTES, World, control, stops_at};

fn malformed(fault: Malformed) -> Error {
    PeerMisbehaved::Malformed { document: "token response", fault }.into()
}

/// The code is exchanged, the answer is of no use, and no token reaches the resource.
async fn refused(change: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> Error {
    let mut world = World::new().await;
    world.change(HONEST, At::CodeExchange, move |_, honest| change(honest));
    let error = world.error().await;
    stops_at(&world, At::CodeExchange);
    assert_eq!(world.pages(1).await[0].1.matches("No access was granted").count(), 1);
    // The client can go on: another login, with the same registration.
    world.mend(HONEST, At::CodeExchange);
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(world.reached(HONEST, At::Registration), 1);
    error
}

async fn refused_with(member: &'static str, value: impl Into<Value>) -> Error {
    let value = value.into();
    refused(move |honest| honest.member(member, value.clone())).await
}

// RFC6749-7.1-1, OAUTH21-3.2.3-3
#[tokio::test]
async fn a_token_of_another_type_is_not_presented() {
    control().await;
    for kind in ["mac", "N_A", "Bearer ", "bearer,dpop"] {
        let error = refused_with("token_type", kind).await;
        assert_eq!(error, malformed(Malformed::Invalid("token_type")), "{kind}");
        assert_eq!(error.remedy(), Remedy::Refused);
    }
    for none in [Value::Null, json!("")] {
        assert_eq!(refused_with("token_type", none).await, malformed(Malformed::Missing("token_type")));
    }
    assert!(matches!(refused_with("token_type", 7).await, Error::Peer(_)));
    let error = refused_with("token_type", "DPoP").await;
    assert_eq!(error, PeerIncompatible::TokenType.into());
    assert_eq!(error.remedy(), Remedy::Refused);
    let mut world = World::new().await;
    world.change(HONEST, At::CodeExchange, |_, honest| honest.member("token_type", "bEARER"));
    assert_eq!(world.call().await.unwrap(), 200);
}

// I-L9, I-A8: nothing that could end the header field, or be read as two credentials.
#[tokio::test]
async fn a_token_that_is_no_token_is_not_presented() {
    control().await;
    let long = "x".repeat(mcp_authz::limits::TOKEN_BYTES + 1);
    for token in [
        " ",
        "a b",
        "a\r\nx-injected: 1",
        "a\nb",
        "a\tb",
        "a\u{0}b",
        "tök",
        "a\u{7f}",
        "\"quoted\"",
        "a,b",
        long.as_str(),
    ] {
        let error = refused_with("access_token", token).await;
        assert_eq!(error, malformed(Malformed::Invalid("access_token")), "{token:?}");
        assert_eq!(error.remedy(), Remedy::Refused);
    }
    for none in [Value::Null, json!("")] {
        assert_eq!(refused_with("access_token", none).await, malformed(Malformed::Missing("access_token")));
    }
    assert!(matches!(refused_with("access_token", json!(["a"])).await, Error::Peer(_)));
    for token in ["a\r\nb", "a\tb", "tök"] {
        assert_eq!(
            refused_with("refresh_token", token).await,
            malformed(Malformed::Invalid("refresh_token"))
        );
    }
    for scope in ["a  b", "\"", "a\nb", "ö"] {
        assert_eq!(refused_with("scope", scope).await, malformed(Malformed::Invalid("scope")), "{scope}");
    }
    let error = refused(|honest| {
        let text = String::from_utf8(honest.body.clone()).unwrap();
        honest.body(format!("{{\"access_token\":\"other\",{}", &text[1..]))
    })
    .await;
    assert!(matches!(error, Error::Peer(PeerMisbehaved::Malformed { document: "token response", .. })));
}

// I-T9
#[tokio::test]
async fn a_lifetime_is_a_count_of_seconds_and_nothing_else() {
    control().await;
    for lifetime in [json!(-1), json!("3600"), json!(1.5), json!(true), json!([3600]), json!(1e30)] {
        let error = refused_with("expires_in", lifetime.clone()).await;
        assert!(
            matches!(error, Error::Peer(PeerMisbehaved::Malformed { document: "token response", .. })),
            "{lifetime}: {error:?}"
        );
    }
    for lifetime in [json!(0), json!(1_u64 << 63), json!(u64::MAX), Value::Null] {
        let mut world = World::new().await;
        let member = lifetime.clone();
        world.change(HONEST, At::CodeExchange, move |_, honest| honest.member("expires_in", member.clone()));
        assert_eq!(world.call().await.unwrap(), 200, "{lifetime}");
    }
}

// D37, OAUTH21-3.2.4-8
#[tokio::test]
async fn an_error_is_one_under_any_status() {
    control().await;
    for status in [200, 400, 401, 403, 418] {
        for (code, remedy) in [
            ("invalid_grant", Remedy::Reauthorize),
            ("temporarily_unavailable", Remedy::RetryAfter(Duration::from_secs(1))),
            ("made_up_by_the_server", Remedy::Reauthorize),
        ] {
            let error = refused(move |mut honest| {
                honest.status = status;
                honest.member("error", code).member("error_description", "call 0800")
            })
            .await;
            assert!(matches!(error, Error::Incompatible(PeerIncompatible::TokenRefused(_))), "{error:?}");
            assert_eq!(error.remedy(), remedy, "{code}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("0800") && !shown.contains("made_up"), "{shown}");
        }
    }
    for (status, body) in
        [(200, "<html>"), (200, ""), (404, "<html>"), (201, "{}"), (200, "{\"error\":\"\\u001b[2J\"}")]
    {
        let error = refused(move |mut honest| {
            honest.status = status;
            honest.body(body)
        })
        .await;
        assert!(matches!(error, Error::Peer(PeerMisbehaved::Malformed { .. })), "{status} {body}: {error:?}");
    }
    for status in [500, 502, 503, 429] {
        let error = refused(move |mut honest| {
            honest.status = status;
            honest.with("retry-after", "7")
        })
        .await;
        assert_eq!(error.remedy(), Remedy::RetryAfter(Duration::from_secs(7)));
    }
}

// I-L7, MCP-AUTH-053, OAUTH21-7.1.3-1
#[tokio::test]
async fn a_token_is_for_its_own_resource_and_nothing_else() {
    let world = World::new().await;
    let session = world.session().await;
    let here = world.server().as_str().to_owned();
    assert!(session.authorization_for(&here).is_ok());
    assert!(session.authorization_for(&format!("{here}/tools?x=1")).is_ok());
    for elsewhere in [
        world.origins.notes.clone(),
        format!("{here}2"),
        format!("{here}/../admin"),
        format!("{here}/%2e%2e/admin"),
        format!("{here}/a/%2E./../../admin"),
        format!("{here}\\..\\admin"),
        format!("{here}#fragment"),
        here.replace("http://", "https://"),
        here.replace("127.0.0.1", "localhost"),
        here.replace("127.0.0.1", "127.0.0.1.evil.example"),
        here.replace("http://", "http://evil.example@"),
        here.replace("http://", "http://evil.example\\@"),
        format!("{}/mcp", world.origins.elsewhere),
        format!("{}/mcp", world.origins.honest),
        "https://evil.example/mcp".to_owned(),
        "/mcp".to_owned(),
        String::new(),
    ] {
        let refused = session.authorization_for(&elsewhere).map(|_| ());
        assert_eq!(refused, Err(HostMisuse::OtherResource.into()), "{elsewhere}");
    }
}

async fn refreshed(session: Session, world: &World) -> Result<Session, Error> {
    match world.driver.refresh(session).await {
        Refreshed::Renewed(session) => Ok(session),
        Refreshed::Ended(failed) => Err(failed.error),
        other => panic!("{other:?}"),
    }
}

// OAUTH21-4.3.2-1, OAUTH21-4.3.2-2
#[tokio::test]
async fn a_refresh_without_a_new_refresh_token_keeps_the_old_one() {
    let world = World::new().await;
    let session = world.session().await;
    let old = Arc::new(Mutex::new(None::<String>));
    let keeping = Arc::clone(&old);
    // The server goes on taking the old one, as one does that does not rotate.
    world.change(HONEST, At::Refresh, move |request, honest| {
        *keeping.lock().unwrap() = request.parameter("refresh_token");
        Answer::document(200, &json!({"access_token": "honest-access-9", "token_type": "Bearer"}))
            .with("x-honest", honest.status.to_string())
    });
    let session = refreshed(session, &world).await.unwrap();
    let first = old.lock().unwrap().take().unwrap();
    let session = refreshed(session, &world).await.unwrap();
    assert_eq!(old.lock().unwrap().take().unwrap(), first);
    assert!(session.can_refresh());
}

// I-T5
#[tokio::test]
async fn a_refresh_that_widens_ends_the_session() {
    control().await;
    let world = World::new().await;
    let session = world.session().await;
    world.change(HONEST, At::Refresh, |_, honest| honest.member("scope", "notes:read notes:delete"));
    let error = refreshed(session, &world).await.unwrap_err();
    assert_eq!(error, PeerMisbehaved::ScopeWidened.into());
    assert_eq!(error.remedy(), Remedy::Reauthorize);
    let session = world.session().await;
    world.change(HONEST, At::Refresh, |_, honest| honest.member("scope", "notes:read"));
    assert_eq!(refreshed(session, &world).await.unwrap().scopes().to_string(), "notes:read");
}

// D39
#[tokio::test]
async fn who_comes_after_another_process_uses_its_session_and_sends_nothing() {
    let mut world = World::new().await;
    let late = world.session().await;
    let early = world.driver.resume(&world.server()).await.unwrap().unwrap();
    let early = refreshed(early, &world).await.unwrap();
    // From here on the server refuses the token that is retired, as it should.
    let late = refreshed(late, &world).await.unwrap();
    let header =
        |session: &Session| session.authorization_for(world.server().as_str()).unwrap().expose().to_owned();
    assert_eq!(header(&early), header(&late));
    assert_eq!(world.seen_at(HONEST, At::Refresh).len(), 1);
    world.connection = world.connection.with_session(late);
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(world.reached(HONEST, At::Authorization), 1);
    assert_eq!(world.reached(NOTES, At::Mcp), 1);
}
