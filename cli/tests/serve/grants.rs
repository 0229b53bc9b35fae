//! The page where a person sees what they allowed and wanted remembered, and ends it.

use reqwest::StatusCode;

use super::people::{Browser, CONFIDENTIAL, code, confidential, hidden, path_to, user};
use super::{Server, VERIFIER, free_port};

const REMEMBERED: &str = "You are not asked about";

/// What the links of the page say and where they lead.
fn more(page: &str) -> Vec<String> {
    let links = page.split("href=\"/grants?").skip(1);
    links.map(|rest| format!("/grants?{}", rest.split_once('"').unwrap().0)).collect()
}

#[test]
fn every_grant_is_on_a_page_however_many_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let limits = "limits = { registrations = 10000, authorizations = 10000, token_requests = 10000 }\n";
    std::fs::write(folder.path().join("serve.toml"), limits).unwrap();
    let arguments = ["--store", "memory", "--dangerously-auto-approve", "ann", "--config", "serve.toml"];
    let server = Server::start(folder.path(), &arguments);
    let clients: Vec<String> = (0..103).map(|_| server.register()).collect();
    for client in &clients {
        assert_eq!(server.redeem(client, &server.code(client), VERIFIER).status(), StatusCode::OK);
    }
    let shown = |page: &str| clients.iter().filter(|client| page.contains(client.as_str())).count();
    let mut ann = Browser::new(&server);
    let first = ann.visit("/grants");
    assert_eq!((shown(&first), more(&first).len()), (100, 1));
    let second = ann.visit(&more(&first)[0]);
    assert_eq!((shown(&second), more(&second).len()), (3, 0));
    assert!(clients.iter().all(|client| first.contains(client) != second.contains(client)));
    // What a later page shows is ended from there.
    let last = clients.iter().find(|client| second.contains(client.as_str())).unwrap();
    let pairs = [("csrf", &hidden(&second, "csrf")[..]), ("client", last)];
    assert_eq!(ann.submit("/grants", &pairs, &[]).status(), StatusCode::SEE_OTHER);
    assert_eq!(shown(&ann.visit(&more(&first)[0])), 2);
    for nowhere in ["/grants?after=x", "/grants?after=&remembered=AA", "/grants?after=a&after=b", "/grants?%"]
    {
        assert_eq!(shown(&ann.visit(nowhere)), 100, "{nowhere}: the first page");
    }
    assert!(ann.visit(&format!("/grants?after={}", "_".repeat(21) + "w")).contains("Nothing more."));
}

// I-P2
#[test]
fn what_a_person_wanted_remembered_is_shown_and_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (ann, bob) = (user("ann"), user("bob"));
    let server =
        Server::start_at(free_port(), folder.path(), &["--store", "memory", "--user", &ann, "--user", &bob]);
    let (client, secret) = confidential(&server);
    let asked = path_to(CONFIDENTIAL, &client, &[]);
    let mut ann = Browser::new(&server);
    assert_eq!(ann.sign_in(&asked, "ann", "password of ann").status(), StatusCode::SEE_OTHER);
    let page = ann.visit(&asked);
    assert!(!ann.visit("/grants").contains(REMEMBERED));
    assert_eq!(ann.approve(&page, &[("remember", "on")]).status(), StatusCode::SEE_OTHER);
    // Nothing was redeemed, and yet something stands that she can end.
    let page = ann.visit("/grants");
    assert!(page.contains(REMEMBERED) && page.contains(&client) && !page.contains("It may reach"), "{page}");
    let mut bob = Browser::new(&server);
    assert_eq!(bob.sign_in("/grants", "bob", "password of bob").status(), StatusCode::SEE_OTHER);
    assert!(!bob.visit("/grants").contains(&client));
    let answer = ann.send(server.http.get(format!("{}{asked}", server.base)));
    assert_eq!(answer.status(), StatusCode::SEE_OTHER, "she is not asked");
    let pairs = [
        ("grant_type", "authorization_code"),
        ("client_id", &client),
        ("client_secret", &secret),
        ("code", &code(&answer)),
        ("code_verifier", VERIFIER),
        ("redirect_uri", CONFIDENTIAL),
    ];
    assert_eq!(server.post("/token", &pairs).status(), StatusCode::OK);
    let page = ann.visit("/grants");
    assert!(page.contains(REMEMBERED) && page.contains("It may reach"), "{page}");
    let pairs = [("csrf", &hidden(&page, "csrf")[..]), ("client", &client)];
    assert_eq!(ann.submit("/grants", &pairs, &[]).status(), StatusCode::SEE_OTHER);
    let page = ann.visit("/grants");
    assert!(!page.contains(REMEMBERED) && !page.contains(&client), "{page}");
    assert!(ann.visit(&asked).contains("name=\"decision\""), "she is asked again");
}
