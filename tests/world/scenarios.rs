//! What happens when everybody keeps the rules.

use mcp_authz::client::{RecordVersion, SessionRecord, StepUp};
use mcp_authz::flow::{ClientFlow, ClientInput};
use mcp_authz::identifier::{ResourceId, ScopeSet};
use mcp_authz::message::exchange::FetchPurpose;
use mcp_authz::sealer::PlaintextRecords;
use mcp_authz::secret::AgentBinding;
use mcp_authz::time::Duration;

use crate::peers::{Answer, MAIL, NOTES, Seen, Served, World, scopes, session};

#[test]
fn from_a_401_to_a_tool_call() {
    let mut world = World::new();
    let client = world.client();
    let session = world.authorize(&client, NOTES);
    assert_eq!(session.scopes(), &scopes("read"));
    assert_eq!(session.resource().as_str(), NOTES);
    assert!(matches!(world.call_with(&session, NOTES, "read"), Served::Ran(person) if person == "ann"));
    let purposes: Vec<_> = world.fetches.iter().map(|(purpose, _)| *purpose).collect();
    assert_eq!(
        purposes,
        [
            FetchPurpose::ProtectedResourceMetadata,
            FetchPurpose::AuthorizationServerMetadata,
            FetchPurpose::Registration,
            FetchPurpose::CodeExchange,
        ]
    );
}

#[test]
fn a_write_needs_a_step_up_that_keeps_what_was_granted() {
    let mut world = World::new();
    let client = world.client();
    let session_before = world.authorize(&client, NOTES);
    let Served::Denied(refused) = world.call_with(&session_before, NOTES, "write") else { panic!("written") };
    assert_eq!(refused.status(), 403);
    let StepUp::Count(step) = session_before.challenged("add_note", &refused, world.now).unwrap() else {
        panic!("no step-up")
    };
    let (count, waiting) = step.into_parts();
    let ready = waiting.counted(count.kept_in_memory()).unwrap();
    assert_eq!(ready.scopes(), scopes("read write"));
    let begin = ClientInput::Begin(ScopeSet::new(), AgentBinding::this_process());
    let turn = ClientFlow::Ready(ready).advance(begin, world.now, &mut world.entropy).unwrap();
    let (url, flow) = world.until_browser(turn).unwrap();
    let after = session(world.through_browser(&url, flow, &Answer::Approve));
    assert!(matches!(world.call_with(&after, NOTES, "write"), Served::Ran(_)));
    assert!(matches!(world.call_with(&after, NOTES, "read"), Served::Ran(_)));
}

#[test]
fn an_expired_token_is_refreshed_and_the_refresh_token_rotates() {
    let mut world = World::new();
    let client = world.client();
    let before = world.authorize(&client, NOTES);
    world.pass(Duration::minutes(6));
    assert!(before.is_expired(world.now, Duration::ZERO));
    let Served::Denied(refused) = world.call_with(&before, NOTES, "read") else {
        panic!("an expired token ran")
    };
    let StepUp::Refresh(before) = before.challenged("read", &refused, world.now).unwrap() else {
        panic!("no refresh")
    };
    let old = before.record(&PlaintextRecords).unwrap();
    let turn =
        ClientFlow::Session(before).advance(ClientInput::Refresh, world.now, &mut world.entropy).unwrap();
    let after = session(world.settle(turn));
    assert!(matches!(world.call_with(&after, NOTES, "read"), Served::Ran(_)));
    // The old refresh token comes back: whoever holds it, the family ends for both.
    let thief = old.resume(&client, &PlaintextRecords, RecordVersion::new(1)).unwrap();
    let turn =
        ClientFlow::Session(thief).advance(ClientInput::Refresh, world.now, &mut world.entropy).unwrap();
    assert!(matches!(world.settle(turn).flow, ClientFlow::Ready(_)));
    let turn =
        ClientFlow::Session(after).advance(ClientInput::Refresh, world.now, &mut world.entropy).unwrap();
    assert!(matches!(world.settle(turn).flow, ClientFlow::Ready(_)), "the family is revoked");
}

#[test]
fn a_session_outlives_its_process() {
    let mut world = World::new();
    let client = world.client();
    let before = world.authorize(&client, NOTES);
    let bytes = before.record(&PlaintextRecords).unwrap().to_bytes();
    drop(before);
    let record = SessionRecord::from_bytes(&bytes).unwrap();
    let after = record.resume(&client, &PlaintextRecords, RecordVersion::new(1)).unwrap();
    assert!(matches!(world.call_with(&after, NOTES, "read"), Served::Ran(_)));
    world.pass(Duration::minutes(6));
    let turn =
        ClientFlow::Session(after).advance(ClientInput::Refresh, world.now, &mut world.entropy).unwrap();
    let refreshed = session(world.settle(turn));
    assert!(matches!(world.call_with(&refreshed, NOTES, "read"), Served::Ran(_)));
}

#[test]
fn a_login_goes_on_in_another_process_of_the_host() {
    let mut world = World::new();
    let client = world.client();
    let (url, flow) = world.begin(&client, NOTES);
    let ClientFlow::AwaitingCallback(waiting) = flow else { panic!("{flow:?}") };
    let record = waiting.park(&PlaintextRecords).unwrap().to_bytes();
    let record = mcp_authz::client::CallbackRecord::from_bytes(&record).unwrap();
    let waiting = record.resume(&client, &PlaintextRecords, world.now).unwrap();
    let turn = world.through_browser(&url, ClientFlow::AwaitingCallback(waiting), &Answer::Approve);
    assert!(matches!(world.call_with(&session(turn), NOTES, "read"), Served::Ran(_)));
}

#[test]
fn a_person_says_no() {
    let mut world = World::new();
    let client = world.client();
    let (url, flow) = world.begin(&client, NOTES);
    let turn = world.through_browser(&url, flow, &Answer::Deny);
    assert!(turn.error.is_none());
    assert_eq!(turn.refused.unwrap().code.as_str(), "access_denied");
    assert!(matches!(turn.flow, ClientFlow::Ready(_)), "the person may be asked again");
}

#[test]
fn a_person_grants_less_than_was_asked_for() {
    let mut world = World::new();
    let client = world.client();
    let reply = world.unauthorized(NOTES);
    let server = ResourceId::from_server_url(NOTES).unwrap();
    let mut turn = ClientFlow::challenged(&client, &server, &reply).unwrap();
    // Everything up to `Ready`, then more scope than the challenge asked for.
    let (url, flow) = loop {
        let (opened, flow) = world.until_browser(turn).unwrap();
        let ClientFlow::AwaitingCallback(waiting) = flow else { panic!("{flow:?}") };
        if opened.contains("write") {
            break (opened, ClientFlow::AwaitingCallback(waiting));
        }
        let begin = ClientInput::Begin(scopes("write"), AgentBinding::this_process());
        turn = ClientFlow::Ready(waiting.abandon()).advance(begin, world.now, &mut world.entropy).unwrap();
    };
    let granted = session(world.through_browser(&url, flow, &Answer::ApproveOnly("read")));
    assert_eq!(granted.scopes(), &scopes("read"));
    let Served::Denied(refused) = world.call_with(&granted, NOTES, "write") else { panic!("written") };
    assert_eq!(refused.status(), 403);
}

#[test]
fn two_servers_behind_one_authorization_server_never_share_a_token() {
    let mut world = World::new();
    let client = world.client();
    let notes = world.authorize(&client, NOTES);
    let mail = world.authorize(&client, MAIL);
    assert!(matches!(world.call_with(&notes, NOTES, "read"), Served::Ran(_)));
    assert!(matches!(world.call_with(&mail, MAIL, "read"), Served::Ran(_)));
    assert!(notes.authorization_for(MAIL).is_err() && mail.authorization_for(NOTES).is_err());
}

#[test]
fn a_client_is_known_by_its_metadata_document() {
    let mut world = World::new();
    let url = mcp_authz::identifier::ClientMetadataUrl::new("https://notebook.example/client.json").unwrap();
    let redirect = mcp_authz::identifier::RedirectUri::new(crate::peers::REDIRECT).unwrap();
    let configuration =
        mcp_authz::client::Configuration::new("Notebook", redirect).metadata_document(url.clone());
    let client = mcp_authz::client::Client::new(configuration).unwrap();
    let document = client.client_metadata_document().unwrap();
    let page = mcp_authz::message::exchange::Reply::new(200, document)
        .with_header("content-type", b"application/json");
    world.pages.insert(url.as_str().to_owned(), page);
    let reply = world.unauthorized(NOTES);
    let server = ResourceId::from_server_url(NOTES).unwrap();
    let turn = ClientFlow::challenged(&client, &server, &reply).unwrap();
    let (opened, flow) = world.until_browser(turn).unwrap();
    let ClientFlow::AwaitingCallback(_) = &flow else { panic!("{flow:?}") };
    let view = world.open(&opened).unwrap();
    assert_eq!((view.client.identity.as_str(), view.client.verified), ("notebook.example", false));
    let browser = world.browser;
    let seen = world.submit(&view.handle, &view.csrf, "ann", browser, &Answer::Approve, &scopes("read"));
    let Seen::Returned(url) = seen else { panic!("{seen:?}") };
    let session = session(world.arrive(flow, &url));
    assert!(matches!(world.call_with(&session, NOTES, "read"), Served::Ran(_)));
    let registrations = world.fetches.iter().filter(|(purpose, _)| *purpose == FetchPurpose::Registration);
    assert_eq!(registrations.count(), 0);
}
