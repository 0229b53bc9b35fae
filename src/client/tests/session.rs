//! Tokens in use.

use proptest::prelude::*;

use super::*;
use crate::client::{RecordVersion, SessionRecord, StepUp};
use crate::error::HostMisuse;
use crate::sealer::PlaintextRecords;

const VERSION: RecordVersion = RecordVersion::new(1);

fn insufficient(scope: &str) -> Reply {
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

// MCP-AUTH-017, MCP-AUTH-102, D33
#[test]
fn a_step_up_asks_for_the_union_and_ends_when_nothing_is_new() {
    let StepUp::Authorize(ready) =
        session(&strict()).challenged("op", &insufficient("write"), now()).unwrap()
    else {
        panic!()
    };
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

/// A session after a step-up that the server granted nothing of.
fn after_step_up(session: Session, scope: &str) -> Result<Session, Error> {
    let ready = match session.challenged("op", &insufficient(scope), now()) {
        Ok(StepUp::Authorize(ready)) => ready,
        Ok(StepUp::Refresh(_)) => panic!("a refresh widens nothing"),
        Err(failed) => return Err(failed.error),
    };
    granted(ready)
}

/// The session after the person consented, brought back from its record.
fn granted(ready: Ready) -> Result<Session, Error> {
    let begun = begin(ready);
    let callback = begun.callback(GENUINE);
    let (_, state) = sent(begun.waiting.receive(callback, &HERE, now(), &mut Counter(5)));
    let (persist, state) = state.receive(Ok(json(TOKENS)), now()).unwrap().into_parts();
    let record = persist.record(&PlaintextRecords).unwrap().to_bytes();
    drop(state.persisted(persist.persisted(VERSION)).unwrap());
    // The count survives a restart.
    SessionRecord::from_bytes(&record).unwrap().resume(&strict(), &PlaintextRecords, VERSION)
}

// D33, I-L8: also after each successful exchange, and after each restart.
#[test]
fn a_server_that_challenges_for_ever_is_stopped() {
    let mut session = session(&strict());
    for scope in ["a", "b", "c"] {
        session = after_step_up(session, scope).unwrap();
    }
    assert_eq!(after_step_up(session, "d").unwrap_err(), Error::Peer(PeerMisbehaved::StepUpLoop));
    let session = after_step_up(super::session(&strict()), "a").unwrap();
    assert_eq!(
        after_step_up(session, "a").unwrap_err(),
        Error::Peer(PeerMisbehaved::StepUpLoop),
        "asked before"
    );
    let session = after_step_up(super::session(&strict()), "a").unwrap();
    let tomorrow = now() + Duration::days(1);
    assert!(
        session.challenged("op", &insufficient("a"), tomorrow).is_ok(),
        "a denial is forgotten after a day"
    );
}

// D33, MCP-AUTH-115
#[test]
fn another_authorization_server_does_not_begin_the_count_anew() {
    let mut session = session(&strict());
    for scope in ["a", "b", "c"] {
        session = after_step_up(session, scope).unwrap();
    }
    let moved = granted(ready(&strict()).counting_on(&session.into_ready())).unwrap();
    assert_eq!(after_step_up(moved, "d").unwrap_err(), Error::Peer(PeerMisbehaved::StepUpLoop));
}

// D33, D40
#[test]
fn a_server_that_forgets_its_clients_does_not_begin_the_count_anew() {
    let mut session = session(&strict());
    for scope in ["a", "b", "c"] {
        session = after_step_up(session, scope).unwrap();
    }
    let forgotten = session.into_ready();
    let asked = forgotten.scopes();
    let (_, state) = forgotten.choose_identity().register().unwrap().into_parts();
    let ready = state.receive(Ok(Reply::new(201, "{\"client_id\":\"c2\"}"))).unwrap();
    assert_eq!(ready.client_id().as_str(), "c2");
    assert_eq!(ready.scopes(), asked);
    assert_eq!(after_step_up(granted(ready).unwrap(), "d").unwrap_err(), PeerMisbehaved::StepUpLoop.into());
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
    let restarted = Client::new(Configuration::new("Test", moved).policy(policy()));
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
    assert!(SessionRecord::from_bytes(text.replace("\"version\":1", "\"version\":2").as_bytes()).is_err());
    assert!(!format!("{record:?}").contains("at-1"));
}

/// The clear part of a record is a format that other versions read: its bytes are pinned.
#[test]
fn the_envelope_of_a_record_is_pinned() {
    let text = String::from_utf8(session(&strict()).record(&PlaintextRecords).unwrap().to_bytes()).unwrap();
    let (clear, _) = text.split_once("\"resource\"").unwrap();
    insta::assert_snapshot!(clear, @r#"{"issuer":"https://as.example","kind":"session","#);
    let (_, end) = text.rsplit_once(',').unwrap();
    insta::assert_snapshot!(end, @r#""version":1}"#);
}

proptest! {
    // I-G1: bytes from a store are refused or read, and never panic.
    #[test]
    fn records_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<proptest::sample::Index>(), flip in 1_u8..) {
        let _ = SessionRecord::from_bytes(&bytes);
        let mut genuine = session(&strict()).record(&PlaintextRecords).unwrap().to_bytes();
        let at = at.index(genuine.len());
        genuine[at] ^= flip;
        if let Ok(record) = SessionRecord::from_bytes(&genuine) {
            let _ = record.resume(&strict(), &PlaintextRecords, VERSION);
        }
    }
}
