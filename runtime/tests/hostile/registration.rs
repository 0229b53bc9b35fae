//! What the registration endpoint answers.

use mcp_authz::error::{Error, PeerIncompatible, PeerMisbehaved, Remedy};
use mcp_authz::message::Malformed;
use mcp_authz::message::exchange::FetchFailure;
use serde_json::{Value, json};

use crate::server::Answer;
use crate::world::{At, HONEST, World, control, failed, stops_at};

/// The registration is answered, the answer is of no use, and nobody is sent anywhere.
async fn refused(change: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> Error {
    let mut world = World::new().await;
    world.change(HONEST, At::Registration, move |_, honest| change(honest));
    let error = world.error().await;
    stops_at(&world, At::Registration);
    assert!(world.opened().is_empty());
    world.mend(HONEST, At::Registration);
    assert_eq!(world.call().await.unwrap(), 200, "the next one registers anew");
    error
}

async fn refused_with(member: &'static str, value: impl Into<Value>) -> Error {
    let value = value.into();
    refused(move |honest| honest.member(member, value.clone())).await
}

// MCP-SEC-015
#[tokio::test]
async fn a_client_with_other_redirect_uris_is_not_this_one() {
    control().await;
    for uris in [
        json!(["https://evil.example/callback"]),
        json!(["javascript:alert(1)"]),
        json!(["http://127.0.0.1:1/other"]),
        json!(["http://127.0.0.1:1/callback#x"]),
    ] {
        let error = refused_with("redirect_uris", uris.clone()).await;
        assert_eq!(error, PeerMisbehaved::RegisteredRedirectUri.into(), "{uris}");
        assert_eq!(error.remedy(), Remedy::Reregister);
    }
    for uris in [json!("http://127.0.0.1/callback"), json!([7]), json!({})] {
        let error = refused_with("redirect_uris", uris.clone()).await;
        assert!(matches!(error, Error::Peer(PeerMisbehaved::Malformed { .. })), "{uris}: {error:?}");
    }
}

// I-P6, MCP-REG-043
#[tokio::test]
async fn a_secret_goes_with_the_method_that_was_registered_or_nowhere() {
    control().await;
    let mut world = World::new().await;
    world.change(HONEST, At::Registration, |_, honest| honest.member("token_endpoint_auth_method", "none"));
    assert_eq!(world.call().await.unwrap(), 200);
    assert!(world.seen().iter().all(|one| !one.request.text().contains("client-secret")));

    let mut world = World::new().await;
    world.change(HONEST, At::Registration, |_, honest| {
        honest.member("token_endpoint_auth_method", "client_secret_basic")
    });
    // Without `client_id` in the form the honest server of these tests does not answer as it should.
    world.change(HONEST, At::CodeExchange, |request, _| {
        assert!(request.parameter("client_secret").is_none() && request.parameter("client_id").is_none());
        let field = mcp_authz::syntax::basic::encode(
            "honest-client",
            &mcp_authz::secret::ClientSecret::new("honest-client-secret").unwrap(),
        );
        assert_eq!(request.header("authorization"), Some(field.as_str()));
        Answer::document(200, &json!({"access_token": "honest-access-9", "token_type": "Bearer"}))
    });
    assert_eq!(world.call().await.unwrap(), 200);

    for method in ["client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth", "None"]
    {
        let error = refused(move |honest| {
            honest.member("token_endpoint_auth_method", method).member("client_secret", Value::Null)
        })
        .await;
        assert!(
            matches!(
                error,
                Error::Peer(PeerMisbehaved::RegisteredCredential | PeerMisbehaved::Malformed { .. })
            ),
            "{method}: {error:?}"
        );
    }
    for secret in [json!(""), json!("a\u{0}b"), json!("ö"), json!(7)] {
        let error = refused_with("client_secret", secret.clone()).await;
        assert!(matches!(error, Error::Peer(PeerMisbehaved::Malformed { .. })), "{secret}: {error:?}");
    }
}

// I-G1, I-G2
#[tokio::test]
async fn a_client_id_is_one_or_there_is_no_client() {
    control().await;
    let error = refused_with("client_id", "x".repeat(1 << 20)).await;
    assert_eq!(error, failed(FetchFailure::TooLarge));
    assert_eq!(error.remedy(), Remedy::Refused);
    let long = "x".repeat(60_000);
    for id in [json!(""), json!("a\r\nb"), json!("a\u{0}"), json!("ö"), json!(7), json!(["a"]), json!(long)]
    {
        let error = refused_with("client_id", id).await;
        assert!(matches!(error, Error::Peer(PeerMisbehaved::Malformed { .. })), "{error:?}");
        assert_eq!(error.remedy(), Remedy::Refused);
    }
    let error = refused_with("client_id", Value::Null).await;
    let fault = Malformed::Missing("client_id");
    assert_eq!(error, PeerMisbehaved::Malformed { document: "registration response", fault }.into());
    let error = refused(|honest| {
        let text = String::from_utf8(honest.body.clone()).unwrap();
        honest.body(format!("{{\"client_id\":\"other\",{}", &text[1..]))
    })
    .await;
    assert!(matches!(error, Error::Peer(PeerMisbehaved::Malformed { .. })));
}

// RFC 7591 section 3.2.1
#[tokio::test]
async fn a_secret_that_is_over_before_it_is_used_leads_to_another_registration() {
    control().await;
    let mut world = World::new().await;
    world.change(HONEST, At::Registration, |_, honest| honest.member("client_secret_expires_at", 1));
    for _ in 0..2 {
        let error = world.error().await;
        assert_eq!(error, PeerIncompatible::SecretExpired.into());
        assert_eq!(error.remedy(), Remedy::Reregister);
        stops_at(&world, At::Registration);
        assert!(world.opened().is_empty(), "the person is not asked for what could not be used");
    }
    // The first is replaced at once, in case the server has changed its mind; then once for each request.
    assert_eq!(world.reached(HONEST, At::Registration), 3);
    world.mend(HONEST, At::Registration);
    assert_eq!(world.call().await.unwrap(), 200);
    for expires in [json!(-1), json!("0"), json!(1.5)] {
        let error = refused_with("client_secret_expires_at", expires).await;
        assert!(matches!(error, Error::Peer(PeerMisbehaved::Malformed { .. })));
    }
    for expires in [json!(u64::MAX), json!(1_u64 << 40)] {
        let mut world = World::new().await;
        let member = expires.clone();
        world.change(HONEST, At::Registration, move |_, honest| {
            honest.member("client_secret_expires_at", member.clone())
        });
        assert_eq!(world.call().await.unwrap(), 200, "{expires}");
    }
}

// MCP-REG-043
#[tokio::test]
async fn a_refusal_is_told_in_our_words() {
    control().await;
    for (code, shown) in
        [("invalid_redirect_uri", "(invalid_redirect_uri)"), ("call_0800", "(an unregistered error code)")]
    {
        let error = refused(move |_| {
            Answer::document(400, &json!({"error": code, "error_description": "call 0800 \u{1b}[2J"}))
        })
        .await;
        assert!(matches!(error, Error::Incompatible(PeerIncompatible::RegistrationRefused { .. })));
        assert!(
            error.to_string().contains(shown) && !format!("{error} {error:?}").contains("0800"),
            "{error}"
        );
    }
}
