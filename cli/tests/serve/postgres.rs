//! Processes over one PostgreSQL: what one did, the other knows. Without server binaries these tests fail and say what to install.

#[path = "../../../runtime/tests/postgres/server.rs"]
mod server;

use mcp_authz::syntax::base64url;
use reqwest::StatusCode;
use serde_json::Value;

use super::people::{Browser, code, hidden, path, user};
use super::{Server, VERIFIER, free_port, member, tool};

#[test]
fn two_processes_over_one_database_are_one_server() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(server::Server::start());
    let url = database.url(&runtime.block_on(database.database(None)));
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let ann = user("ann");
    let store = ["--store", &url, "--master-key", "master.key"];
    let arguments = [&store[..], &["--user", &ann]].concat();
    let (port, second) = (free_port(), free_port());
    // They begin on an empty database together.
    let (one, other) = std::thread::scope(|scope| {
        let first = scope.spawn(|| Server::start_at(port, folder, &arguments));
        let other = Server::start_beside(port, second, folder, &arguments);
        (first.join().unwrap(), other)
    });
    let client = one.register();
    let grant = || {
        // She signs in at the one, is asked at the other, and answers at the one.
        let mut browser = Browser::of(&one, "ann", &client);
        let page = browser.at(&other).visit(&path(&client, &[]));
        let answer = browser.approve(&page, &[]);
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        (browser, code(&answer))
    };
    let (mut browser, approved) = grant();
    let issued: Value = other.redeem(&client, &approved, VERIFIER).json().unwrap();
    let again: Value = one.refresh(&client, issued["refresh_token"].as_str().unwrap()).json().unwrap();
    // Whichever of them signs, both publish the key.
    for answer in [&issued, &again] {
        let header = answer["access_token"].as_str().unwrap().split('.').next().unwrap();
        let header: Value = serde_json::from_slice(&base64url::decode(header).unwrap()).unwrap();
        for server in [&one, &other] {
            let keys: Value = server.get("/jwks").json().unwrap();
            let kids: Vec<&Value> = keys["keys"].as_array().unwrap().iter().map(|key| &key["kid"]).collect();
            assert!(kids.contains(&&header["kid"]), "{header} {keys}");
        }
    }
    let next = again["refresh_token"].as_str().unwrap().to_owned();
    // A revocation at the first is known to the other.
    assert_eq!(one.post("/revoke", &[("token", &next), ("client_id", &client)]).status(), StatusCode::OK);
    assert_eq!(member(other.refresh(&client, &next), "error"), "invalid_grant");
    // A code that was redeemed at the one is a replay at the other, and ends what came of it.
    let (_, approved) = grant();
    let refresh = member(one.redeem(&client, &approved, VERIFIER), "refresh_token");
    assert_eq!(member(other.redeem(&client, &approved, VERIFIER), "error"), "invalid_grant");
    assert_eq!(member(one.refresh(&client, &refresh), "error"), "invalid_grant");
    // So is a refresh token.
    let (_, approved) = grant();
    let refresh = member(one.redeem(&client, &approved, VERIFIER), "refresh_token");
    let next = member(other.refresh(&client, &refresh), "refresh_token");
    assert_eq!(member(one.refresh(&client, &refresh), "error"), "invalid_grant");
    assert_eq!(member(other.refresh(&client, &next), "error"), "invalid_grant");
    // The database crashes and comes back: what was answered stands, and both processes find it again.
    let (_, approved) = grant();
    let refresh = member(other.redeem(&client, &approved, VERIFIER), "refresh_token");
    database.crash();
    assert_eq!(one.refresh(&client, &refresh).status(), StatusCode::SERVICE_UNAVAILABLE);
    runtime.block_on(database.launch());
    let again = (0..100).find_map(|_| {
        let answer = other.refresh(&client, &refresh);
        if answer.status() == StatusCode::OK {
            return Some(member(answer, "refresh_token"));
        }
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        std::thread::sleep(std::time::Duration::from_millis(50));
        None
    });
    let refresh = again.expect("the process finds its database again");
    // What she ends on her page at the one has ended at the other; and so has her session where she signs out.
    let page = browser.visit("/grants");
    let pairs = [("csrf", &hidden(&page, "csrf")[..]), ("client", &client)];
    assert_eq!(browser.submit("/grants", &pairs, &[]).status(), StatusCode::SEE_OTHER);
    assert_eq!(member(other.refresh(&client, &refresh), "error"), "invalid_grant");
    let leave = hidden(page.split_once("/sign-out").unwrap().1, "csrf");
    let mut copy = browser.at(&other);
    assert!(copy.visit("/grants").contains("You are signed in as ann"));
    assert_eq!(browser.submit("/sign-out", &[("csrf", &leave)], &[]).status(), StatusCode::OK);
    assert!(!copy.visit("/grants").contains("You are signed in as ann"));
    // And the operator's commands reach both.
    let (browser, approved) = grant();
    let refresh = member(one.redeem(&client, &approved, VERIFIER), "refresh_token");
    let signed_in = |server| browser.at(server).visit("/grants").contains("You are signed in as ann");
    assert!(signed_in(&one) && signed_in(&other));
    assert!(tool(folder, &[&["grants", "revoke", "--subject", "ann"], &store[..]].concat()).status.success());
    assert_eq!(member(other.refresh(&client, &refresh), "error"), "invalid_grant");
    assert!(!signed_in(&one) && !signed_in(&other));
}
