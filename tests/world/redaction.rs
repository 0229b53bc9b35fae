//! A host that logs the `Debug` of everything: no secret is in its log (I-G7, I-G13).

use mcp_authz::client::StepUp;
use mcp_authz::flow::{ClientFlow, ClientInput};
use mcp_authz::identifier::ScopeSet;
use mcp_authz::sealer::PlaintextRecords;
use mcp_authz::secret::AgentBinding;
use mcp_authz::time::Duration;

use crate::peers::{Answer, NOTES, Seen, Served, World, session, with_parameter};

#[test]
fn nothing_that_passes_in_a_whole_login_shows_a_secret() {
    let mut world = World::new();
    let client = world.client();
    let before = world.authorize(&client, NOTES);
    let Served::Denied(refused) = world.call_with(&before, NOTES, "write") else { panic!("written") };
    let StepUp::Count(step) = before.challenged("write", &refused, world.now).unwrap() else {
        panic!("no step-up")
    };
    let (count, waiting) = step.into_parts();
    let kept = count.join().joined(None, &PlaintextRecords).unwrap();
    world.shown.push_str(&format!("{count:?} {waiting:?} {kept:?}"));
    let ready = waiting.counted(count.counted()).unwrap();
    world.shown.push_str(&format!("{ready:?}"));
    let begin = ClientInput::Begin(ScopeSet::new(), AgentBinding::this_process());
    let turn = ClientFlow::Ready(ready).advance(begin, world.now, &mut world.entropy).unwrap();
    let (url, flow) = world.until_browser(turn).unwrap();
    let after = session(world.through_browser(&url, flow, &Answer::Approve));
    world.pass(Duration::minutes(6));
    let turn =
        ClientFlow::Session(after).advance(ClientInput::Refresh, world.now, &mut world.entropy).unwrap();
    let refreshed = session(world.settle(turn));
    let header = refreshed.authorization_for(NOTES).unwrap();
    world.secrets.push(header.expose().trim_start_matches("Bearer ").to_owned());
    let record = refreshed.record(&PlaintextRecords).unwrap();
    world.shown.push_str(&format!("{refreshed:?} {header:?} {record:?}"));
    // A refused callback, and one that is refused by the token endpoint.
    let (url, flow) = world.begin(&client, NOTES);
    let Seen::Returned(back) = world.visit(&url, &Answer::Approve) else { panic!("no code") };
    let turn = world.arrive(flow, &with_parameter(&back, "iss", "https://evil.example"));
    world.shown.push_str(&format!("{turn:?} {}", turn.error.as_ref().unwrap()));

    world.secrets.sort();
    world.secrets.dedup();
    assert!(world.secrets.len() >= 16, "secrets passed unnoticed: {}", world.secrets.len());
    for secret in &world.secrets {
        assert!(secret.len() >= 20, "not a secret");
        assert!(!world.shown.contains(secret), "a secret of {} bytes is shown", secret.len());
    }
    // The log is there: what may be shown, is.
    for shown in ["https://as.example", NOTES, "AwaitingTokens", "RedeemCode"] {
        assert!(world.shown.contains(shown), "{shown}");
    }
}

#[test]
fn urls_hold_no_secret_but_the_code_and_the_state() {
    let mut world = World::new();
    let client = world.client();
    let _session = world.authorize(&client, NOTES);
    for (_, url) in &world.fetches {
        for secret in &world.secrets {
            assert!(!url.contains(secret), "a secret in a URL");
        }
    }
}
