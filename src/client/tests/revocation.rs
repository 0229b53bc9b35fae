//! Logging out.

use super::*;
use crate::client::AwaitingRevocation;
use crate::message::exchange::FetchFailure;

const REVOCATION: (&str, &str) = ("revocation_endpoint", "\"https://as.example/revoke\"");

fn session_at(changes: &[(&str, &str)], tokens: &str) -> Session {
    let begun = begin(ready_with(&strict(), changes));
    let callback = begun.callback(GENUINE);
    let (_, state) = sent(begun.waiting.receive(callback, &HERE, now(), &mut Counter(5)));
    let (persist, state) = state.receive(Ok(json(tokens)), now()).unwrap().into_parts();
    state.persisted(persist.kept_in_memory()).unwrap()
}

fn revoking(session: Session) -> (Fetch, AwaitingRevocation) {
    match session.revoke(now(), &mut Counter(6)).unwrap() {
        EndpointCall::Fetch(step) => step.into_parts(),
        EndpointCall::Sign(step) => panic!("{step:?}"),
    }
}

// RFC7009-2.1-1, MCP-AUTH-080
#[test]
fn the_refresh_token_is_revoked_or_the_access_token_where_there_is_none() {
    let (fetch, _) = revoking(session_at(&[REVOCATION], TOKENS));
    assert_eq!((fetch.method(), fetch.url()), ("POST", "https://as.example/revoke"));
    let form = Form::parse(fetch.body()).unwrap();
    assert_eq!(
        (form.get("token"), form.get("token_type_hint"), form.get("client_id")),
        (Some("rt-1"), Some("refresh_token"), Some("c1"))
    );
    let (fetch, _) =
        revoking(session_at(&[REVOCATION], "{\"access_token\":\"at\",\"token_type\":\"Bearer\"}"));
    let form = Form::parse(fetch.body()).unwrap();
    assert_eq!((form.get("token"), form.get("token_type_hint")), (Some("at"), Some("access_token")));
}

// RFC7009-2-2, I-L3
#[test]
fn a_server_without_an_endpoint_that_may_be_used_is_not_sent_the_token() {
    let failed = session(&strict()).revoke(now(), &mut Counter(6)).unwrap_err();
    assert_eq!(incompatible(&failed.error), &PeerIncompatible::NoEndpoint("revocation endpoint"));
    assert!(failed.state.can_refresh());
    for endpoint in
        ["\"https://10.0.0.1/revoke\"", "\"http://127.0.0.1/revoke\"", "\"http://as.example/revoke\""]
    {
        let metadata = server_metadata(&[("revocation_endpoint", endpoint)]);
        assert!(awaiting_server(&strict(), ISSUER).receive(Ok(metadata)).is_err(), "{endpoint}");
    }
}

// RFC7009-2.2-2, RFC7009-2.2.1-2
#[test]
fn a_200_ends_the_session_and_anything_else_keeps_it() {
    for body in ["", "{\"error\":\"invalid_client\"}", "<p>"] {
        let (_, state) = revoking(session_at(&[REVOCATION], TOKENS));
        assert!(state.receive(Ok(Reply::new(200, body))).is_ok(), "{body}");
    }
    for (reply, remedy) in [
        (Ok(Reply::new(503, "").with_header("retry-after", b"7")), Some(core::time::Duration::from_secs(7))),
        (Err(FetchFailure::TimedOut), Some(core::time::Duration::from_secs(1))),
        (Ok(Reply::new(400, "{\"error\":\"unsupported_token_type\"}")), None),
        (Ok(Reply::new(302, "")), None),
    ] {
        let (_, state) = revoking(session_at(&[REVOCATION], TOKENS));
        let failed = state.receive(reply).unwrap_err();
        assert_eq!(failed.error.remedy(), remedy.map_or(Remedy::Refused, Remedy::RetryAfter));
        assert_eq!(failed.state.authorization_for(SERVER).unwrap().expose(), "Bearer at-1");
    }
}
