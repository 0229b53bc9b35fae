//! Tokens in use.

use super::*;
use crate::client::{RecordVersion, SessionRecord, StepUp};
use crate::error::HostMisuse;
use crate::sealer::PlaintextRecords;

pub(super) const VERSION: RecordVersion = RecordVersion::new(1);

pub(super) fn insufficient(scope: &str) -> Reply {
    let value = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
    Reply::new(403, "").with_header("www-authenticate", value.as_bytes())
}

// I-L7, MCP-AUTH-053, MCP-AUTH-070, OAUTH21-7.1.3-1
#[test]
fn the_token_goes_to_its_own_resource_only() {
    let session = session(&strict());
    for url in [SERVER, "https://mcp.example/notes/x?y=1"] {
        assert_eq!(session.authorization_for(url).unwrap().expose(), "Bearer at-1");
    }
    for url in [
        "https://mcp.example",
        "https://mcp.example/notesx",
        "http://mcp.example/notes",
        "https://as.example/token",
        "https://evil.example/notes",
        "https://mcp.example/notes/../x",
    ] {
        assert_eq!(
            session.authorization_for(url).unwrap_err(),
            Error::Host(HostMisuse::OtherResource),
            "{url}"
        );
    }
}

// OAUTH21-1.4-1: what a token looks like, or says when it is decoded, changes nothing.
#[test]
fn a_token_is_not_read() {
    // {"alg":"none"} and {"exp":1,"aud":"https://evil.example","scope":"admin"}
    let token =
        "eyJhbGciOiJub25lIn0.eyJleHAiOjEsImF1ZCI6Imh0dHBzOi8vZXZpbC5leGFtcGxlIiwic2NvcGUiOiJhZG1pbiJ9.";
    let (_, state) = exchanged(&strict());
    let body = TOKENS.replace("at-1", token);
    let (persist, state) = state.receive(Ok(json(body)), now()).unwrap().into_parts();
    let session = state.persisted(persist.kept_in_memory()).unwrap();
    assert_eq!(session.authorization_for(SERVER).unwrap().expose(), format!("Bearer {token}"));
    assert_eq!(session.expires(), Some(now() + Duration::seconds(300)));
    assert_eq!(session.scopes(), &scopes("read"));
    assert!(session.authorization_for("https://evil.example").is_err());
}

// MCP-AUTH-084
#[test]
fn without_a_refresh_token_the_person_is_asked_again() {
    let (_, state) = exchanged(&strict());
    let (persist, state) = state
        .receive(Ok(json("{\"access_token\":\"at\",\"token_type\":\"Bearer\"}")), now())
        .unwrap()
        .into_parts();
    let session = state.persisted(persist.kept_in_memory()).unwrap();
    let failed = session.refresh(now(), &mut Counter(1)).unwrap_err();
    assert_eq!(
        (&failed.error, failed.error.remedy()),
        (&Error::Host(HostMisuse::NoRefreshToken), Remedy::Reauthorize)
    );
    assert!(matches!(failed.state.challenged("op", &Reply::new(401, ""), now()), Ok(StepUp::Authorize(_))));
}

// OAUTH21-3.2.3-5
#[test]
fn an_early_401_leads_to_a_refresh_and_expiry_is_known() {
    let session = session(&strict());
    assert!(!session.is_expired(now(), Duration::ZERO) && session.is_expired(now(), Duration::seconds(300)));
    assert!(session.is_expired(now() + Duration::seconds(300), Duration::ZERO));
    assert!(matches!(
        session.challenged("op", &challenge("Bearer error=\"invalid_token\""), now()),
        Ok(StepUp::Refresh(_))
    ));
}

// MCP-AUTH-017, MCP-AUTH-102, MCP-AUTH-114, D33
#[test]
fn a_step_up_asks_for_the_union_and_ends_when_nothing_is_new() {
    let ready = step_up::asked(session(&strict()), "write").unwrap();
    assert_eq!(ready.scopes(), scopes("read write"));
    for (status, reply) in [
        ("adds nothing", insufficient("read")),
        ("no challenge", Reply::new(403, "")),
        (
            "another error",
            Reply::new(403, "")
                .with_header("www-authenticate", b"Bearer error=\"invalid_token\", scope=\"x\""),
        ),
        (
            "no scope",
            Reply::new(403, "").with_header("www-authenticate", b"Bearer error=\"insufficient_scope\""),
        ),
        ("malformed", insufficient("a  b")),
        ("another status", Reply::new(404, "")),
    ] {
        let failed = session(&strict()).challenged("op", &reply, now()).unwrap_err();
        assert!(failed.state.authorization_for(SERVER).is_ok(), "{status}");
    }
}

#[test]
fn a_session_record_belongs_to_its_client_and_place() {
    let record = session(&strict()).record(&PlaintextRecords).unwrap();
    let bytes = record.to_bytes();
    let resumed =
        SessionRecord::from_bytes(&bytes).unwrap().resume(&strict(), &PlaintextRecords, VERSION).unwrap();
    assert_eq!(resumed.authorization_for(SERVER).unwrap().expose(), "Bearer at-1");
    assert_eq!(resumed.expires(), Some(now() + Duration::seconds(300)));
    let moved = RedirectUri::new("http://127.0.0.1:5000/callback").unwrap();
    let restarted = client_of(Configuration::new("Test", moved).policy(policy()));
    let resumed =
        SessionRecord::from_bytes(&bytes).unwrap().resume(&restarted, &PlaintextRecords, VERSION).unwrap();
    assert_eq!(
        begin(resumed.into_ready()).redirect_uri(),
        "http://127.0.0.1:5000/callback",
        "on the port it listens on now"
    );
    let text = String::from_utf8(bytes).unwrap();
    let elsewhere = text.replace(SERVER, "https://mcp.example/other");
    assert!(
        SessionRecord::from_bytes(elsewhere.as_bytes())
            .unwrap()
            .resume(&strict(), &PlaintextRecords, VERSION)
            .is_err()
    );
    assert!(SessionRecord::from_bytes(text.replace("\"session\"", "\"callback\"").as_bytes()).is_err());
    assert!(!format!("{record:?}").contains("at-1"));
}
