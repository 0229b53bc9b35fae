//! How long somebody stays signed in, over processes and restarts: until they sign out, or their password or they themselves go.

use std::path::Path;

use reqwest::StatusCode;

use super::people::{Browser, CONFIDENTIAL, code, confidential, hidden, path, path_to, user, user_with};
use super::{STORED, Server, VERIFIER, free_port, tool};

const SIGNED_IN: &str = "You are signed in as ann";

fn arguments<'a>(users: &[&'a str]) -> Vec<&'a str> {
    STORED.into_iter().chain(users.iter().flat_map(|user| ["--user", user])).collect()
}

/// Two processes over one store, where ann and bob may sign in.
fn two_processes(folder: &Path) -> (Server, Server) {
    let (ann, bob) = (user("ann"), user("bob"));
    let arguments = arguments(&[&ann, &bob]);
    let (port, second) = (free_port(), free_port());
    (Server::start_at(port, folder, &arguments), Server::start_beside(port, second, folder, &arguments))
}

/// The value of the button to sign out.
fn leave(page: &str) -> String {
    hidden(page.split_once("/sign-out").unwrap().1, "csrf")
}

// I-P9
#[test]
fn a_session_counts_in_every_process_until_the_password_or_the_person_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (ann, bob) = (user("ann"), user("bob"));
    let (port, second) = (free_port(), free_port());
    let mut one = Server::start_at(port, folder, &arguments(&[&ann]));
    let mut other = Server::start_beside(port, second, folder, &arguments(&[&ann]));
    let client = one.register();
    let cookies = Browser::of(&one, "ann", &client).cookies;
    let shown = |server: &Server| {
        let mut browser = Browser::new(server);
        browser.cookies.clone_from(&cookies);
        let page = browser.visit("/grants");
        // Whoever is shown no grants is not asked for consent either, and decides nothing.
        let asked = browser.visit(&path(&client, &[]));
        assert_eq!(asked.contains("name=\"decision\""), page.contains(SIGNED_IN), "{asked}");
        page.contains(SIGNED_IN)
    };
    assert!(shown(&one) && shown(&other), "the processes share it");
    other.stop();
    let other = Server::start_beside(port, second, folder, &arguments(&[&ann]));
    assert!(shown(&other), "a restart ends nothing");
    drop(other);
    // Her password is changed: whoever signed in with the old one is out, and the old one lets nobody in.
    let changed = user_with("ann", "another password of ann");
    let mut other = Server::start_beside(port, second, folder, &arguments(&[&changed]));
    assert!(!shown(&other));
    let refused = Browser::new(&other).sign_in("/grants", "ann", "password of ann");
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let mut ann_again = Browser::new(&other);
    let answer = ann_again.sign_in("/grants", "ann", "another password of ann");
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert!(ann_again.visit("/grants").contains(SIGNED_IN));
    // A process that has not heard of it yet takes the old password, and not the session that came of the new one.
    assert!(shown(&one) && !ann_again.at(&one).visit("/grants").contains(SIGNED_IN));
    other.stop();
    one.stop();
    let one = Server::start_at(port, folder, &arguments(&[&bob]));
    assert!(!shown(&one), "she is gone");
}

// I-P9
#[test]
fn whoever_signs_out_is_signed_out_everywhere_and_nobody_else_signs_them_out() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = two_processes(folder.path());
    let client = one.register();
    let mut browser = Browser::of(&one, "ann", &client);
    let mut elsewhere = Browser::of(&one, "ann", &client);
    let copy = browser.at(&other);
    let page = browser.visit(&path(&client, &[]));
    let token = leave(&page);
    assert_eq!(token, leave(&browser.visit("/grants")));
    // Other pages, other forms, other browsers.
    let decision = hidden(&page, "csrf");
    let of_elsewhere = leave(&elsewhere.visit("/grants"));
    for (csrf, fields) in [
        ("", &[][..]),
        ("x", &[]),
        (&decision[..], &[]),
        (&of_elsewhere, &[]),
        (&token, &[("origin", "https://evil.example")]),
        (&token, &[("sec-fetch-site", "cross-site")]),
    ] {
        let answer = browser.submit("/sign-out", &[("csrf", csrf)], fields);
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert!(browser.visit("/grants").contains(SIGNED_IN));
    }
    assert_eq!(one.get("/sign-out").status(), StatusCode::METHOD_NOT_ALLOWED);
    let answer = browser.submit("/sign-out", &[("csrf", &token)], &[]);
    assert_eq!(answer.status(), StatusCode::OK);
    let said = answer.text().unwrap();
    assert!(said.contains("You are signed out"), "{said}");
    let kept: Vec<&str> = browser.cookies.iter().map(|(name, _)| name.as_str()).collect();
    assert!(!kept.contains(&"mcp-authz-person") && kept.contains(&"mcp-authz-device"), "{kept:?}");
    assert!(!browser.visit("/grants").contains(SIGNED_IN));
    // Whoever has a copy of the cookies is out as well, in the other process too, and its page answers nothing.
    for server in [&one, &other] {
        let mut copy = copy.at(server);
        let answer = copy.approve(&page, &[]);
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert!(!copy.visit("/grants").contains(SIGNED_IN));
    }
    // She is still signed in where she did not sign out, and can sign in again.
    assert!(elsewhere.visit("/grants").contains(SIGNED_IN));
    let answer = browser.sign_in("/grants", "bob", "password of bob");
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert!(browser.visit("/grants").contains("You are signed in as bob"));
}

// I-T4
#[test]
fn whoever_is_revoked_is_signed_out_everywhere_and_can_sign_in_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (one, other) = two_processes(folder);
    let client = one.register();
    let mut browsers = [Browser::of(&one, "ann", &client), Browser::of(&other, "ann", &client)];
    let mut bob = Browser::of(&one, "bob", &client);
    let of_bob = bob.visit(&path(&client, &[]));
    let pages = browsers.each_mut().map(|browser| browser.visit(&path(&client, &[])));
    let revoke = |whom: &[&str]| {
        let done = tool(folder, &[&["grants", "revoke"], whom, &STORED[..]].concat());
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    // What ends a part of it signs nobody out.
    for part in [&["--client-id", &client][..], &["--subject", "ann", "--client-id", &client]] {
        assert!(!revoke(part).contains("signed out"));
        assert!(browsers.iter_mut().all(|browser| browser.visit("/grants").contains(SIGNED_IN)));
    }
    // She allowed nothing yet, so that nothing is stored of her.
    assert!(revoke(&["--subject", "ann"]).contains("signed out everywhere"));
    for server in [&one, &other] {
        for (browser, page) in browsers.iter().zip(&pages) {
            let mut browser = browser.at(server);
            let answer = browser.approve(page, &[]);
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "a page of before grants nothing");
            let asked = browser.visit(&path(&client, &[]));
            assert!(asked.contains("type=\"password\"") && !asked.contains("name=\"decision\""), "{asked}");
            assert!(!browser.visit("/grants").contains(SIGNED_IN));
        }
    }
    let answer = bob.approve(&of_bob, &[]);
    assert_eq!(
        one.redeem(&client, &code(&answer), VERIFIER).status(),
        StatusCode::OK,
        "bob is not concerned"
    );
    // She signs in again in the same browser, at either process.
    let [mut browser, _] = browsers;
    let answer = browser.sign_in(&path(&client, &[]), "ann", "password of ann");
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    let mut browser = browser.at(&other);
    let page = browser.visit(&path(&client, &[]));
    let answer = browser.approve(&page, &[]);
    assert_eq!(other.redeem(&client, &code(&answer), VERIFIER).status(), StatusCode::OK);
    assert!(browser.visit("/grants").contains(SIGNED_IN));
}

// I-T4: with a person's place in the configuration goes what they wanted remembered, and their sessions, though no grant stands.
#[test]
fn a_person_who_is_taken_out_is_asked_for_everything_anew() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (ann, bob) = (user("ann"), user("bob"));
    let port = free_port();
    let mut server = Server::start_at(port, folder, &arguments(&[&ann, &bob]));
    let (client, _) = confidential(&server);
    let asked = path_to(CONFIDENTIAL, &client, &[]);
    let remember = |name: &str| {
        let mut browser = Browser::new(&server);
        let answer = browser.sign_in(&asked, name, &format!("password of {name}"));
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let page = browser.visit(&asked);
        assert_eq!(browser.approve(&page, &[("remember", "on")]).status(), StatusCode::SEE_OTHER);
        browser.cookies
    };
    let (of_ann, of_bob) = (remember("ann"), remember("bob"));
    server.stop();
    let mut server = Server::start_at(port, folder, &arguments(&[&bob]));
    let ended = |line: &String| line.contains("ann") && line.contains("what they allowed has ended");
    let wait = std::time::Duration::from_secs(20);
    while !ended(&server.log.lock().unwrap().recv_timeout(wait).unwrap()) {}
    server.stop();
    let server = Server::start_at(port, folder, &arguments(&[&ann, &bob]));
    let at = |cookies: &[(String, String)]| {
        let mut browser = Browser::new(&server);
        browser.cookies = cookies.to_vec();
        let answer = browser.send(server.http.get(format!("{}{asked}", server.base)));
        (answer.status(), answer.text().unwrap())
    };
    let (status, page) = at(&of_ann);
    assert!(status == StatusCode::OK && page.contains("type=\"password\""), "{page}");
    let mut ann = Browser::new(&server);
    assert_eq!(ann.sign_in(&asked, "ann", "password of ann").status(), StatusCode::SEE_OTHER);
    assert!(ann.visit(&asked).contains("name=\"decision\""), "she is asked again");
    assert_eq!(at(&of_bob).0, StatusCode::SEE_OTHER, "and he is not");
}

// I-G8, I-P7: ten tries for a name from an address, and ten for a browser that its person signed in with.
#[test]
fn a_stranger_locks_nobody_out_of_the_browser_they_signed_in_with() {
    let folder = tempfile::tempdir().unwrap();
    let (ann, bob) = (user("ann"), user("bob"));
    let arguments = ["--store", "memory", "--trusted-proxy", "127.0.0.1", "--user", &ann, "--user", &bob];
    let server = Server::start(folder.path(), &arguments);
    let try_in = |browser: &mut Browser<'_>, from: &str, name: &str, password: &str| {
        let pairs = [("request", "/grants"), ("name", name), ("password", password)];
        browser.visit("/grants");
        let answer = browser.submit("/sign-in", &pairs, &[("x-forwarded-for", from)]);
        let status = answer.status();
        // What is drawn for each page says nothing.
        let page = answer.text().unwrap();
        let drawn = page.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        (status, page.replace(drawn, ""))
    };
    let (hers, office) = ("198.51.100.7", "198.51.100.8");
    let mut known = Browser::new(&server);
    assert_eq!(try_in(&mut known, hers, "ann", "password of ann").0, StatusCode::SEE_OTHER);
    let leaving = leave(&known.visit("/grants"));
    assert_eq!(known.submit("/sign-out", &[("csrf", &leaving)], &[]).status(), StatusCode::OK);
    assert!(!known.visit("/grants").contains(SIGNED_IN), "the cookie for tries signs nobody in");
    // Somebody in her own network guesses.
    let mut stranger = Browser::new(&server);
    let wrong = try_in(&mut stranger, hers, "ann", "a guess");
    assert_eq!(wrong.0, StatusCode::FORBIDDEN);
    for _ in 1..10 {
        assert_eq!(try_in(&mut stranger, hers, "ann", "a guess"), wrong);
    }
    let mut fresh = Browser::new(&server);
    assert_eq!(try_in(&mut fresh, hers, "ann", "password of ann"), wrong, "it rests, and nothing says so");
    assert_eq!(try_in(&mut Browser::new(&server), hers, "nobody", "a guess"), wrong);
    assert_eq!(try_in(&mut Browser::new(&server), hers, "bob", "password of bob").0, StatusCode::SEE_OTHER);
    assert_eq!(try_in(&mut Browser::new(&server), office, "ann", "password of ann").0, StatusCode::SEE_OTHER);
    assert_eq!(try_in(&mut known.at(&server), hers, "ann", "password of ann").0, StatusCode::SEE_OTHER);
    // Bob's browser is one of anybody's for her name, and a cookie that was made up is none.
    let mut bobs = Browser::new(&server);
    assert_eq!(try_in(&mut bobs, office, "bob", "password of bob").0, StatusCode::SEE_OTHER);
    assert_eq!(try_in(&mut bobs.at(&server), hers, "ann", "password of ann"), wrong);
    let mut forged = known.at(&server);
    for (name, value) in &mut forged.cookies {
        if name == "mcp-authz-device" {
            let last = if value.ends_with('A') { "B" } else { "A" };
            value.replace_range(value.len() - 8..value.len() - 7, last);
        }
    }
    assert_eq!(try_in(&mut forged, hers, "ann", "password of ann"), wrong);
    // Whoever took her browser has ten tries in it, wherever from; everybody else has theirs.
    for n in 0..10 {
        let from = format!("198.51.100.{}", 20 + n);
        assert_eq!(try_in(&mut known.at(&server), &from, "ann", "a guess"), wrong);
    }
    assert_eq!(try_in(&mut known.at(&server), "198.51.100.40", "ann", "password of ann"), wrong);
    assert_eq!(try_in(&mut Browser::new(&server), office, "ann", "password of ann").0, StatusCode::SEE_OTHER);
}
