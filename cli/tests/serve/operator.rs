//! What an operator does beside running the server: clients by command, proxies, limits.

use reqwest::StatusCode;
use serde_json::Value;

use super::attacks::{ok, site};
use super::{CALLBACK, STORED, Server, VERIFIER, free_port, member, tool};

fn line<'t>(text: &'t str, name: &str) -> &'t str {
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    found.unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[test]
fn a_client_is_added_with_a_secret_that_is_shown_once_and_removed_with_its_grants() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let port = free_port();
    let arguments = [&STORED[..], &["--dangerously-auto-approve", "ann"]].concat();
    let server = Server::start_at(port, folder, &arguments);
    let with = |words: &[&str]| tool(folder, &[words, &STORED].concat());
    let add = ["clients", "add", "--name", "Notes \u{1b}[31mapp", "--redirect-uri", CALLBACK];
    let added = with(&[&add[..], &["--method", "client-secret-post", "--scope", "mcp"]].concat());
    let said = String::from_utf8(added.stdout).unwrap();
    let (id, secret) = (line(&said, "client_id: "), line(&said, "client_secret: "));
    let listed = String::from_utf8(with(&["clients", "list"]).stdout).unwrap();
    assert!(listed.contains(id) && listed.contains("client_secret_post") && !listed.contains(secret));
    assert!(!listed.contains('\u{1b}'), "{listed}");
    let redeem = |secret: &str| {
        let code = server.code(id);
        let pairs = [
            ("grant_type", "authorization_code"),
            ("client_id", id),
            ("client_secret", secret),
            ("code", &code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", CALLBACK),
        ];
        server.post("/token", &pairs)
    };
    for wrong in ["", "x", &secret[1..]] {
        assert_eq!(redeem(wrong).status(), StatusCode::UNAUTHORIZED, "{wrong}");
    }
    let issued: Value = redeem(secret).json().unwrap();
    assert_eq!(issued["scope"], "mcp");
    let refresh = issued["refresh_token"].as_str().unwrap();
    let pairs = |token| {
        [
            ("grant_type", "refresh_token"),
            ("client_id", id),
            ("client_secret", secret),
            ("refresh_token", token),
        ]
    };
    let next = member(server.post("/token", &pairs(refresh)), "refresh_token");
    // 88, 132: what a removed client had has ended.
    assert!(with(&["clients", "remove", id]).status.success());
    assert_eq!(server.post("/token", &pairs(&next)).status(), StatusCode::UNAUTHORIZED);
    assert!(!with(&["clients", "remove", id]).status.success());
    let listed = with(&["grants", "list"]);
    assert!(listed.status.success() && listed.stdout.is_empty());
    // A store in memory is another process's own: that is said, and is no empty list.
    let memory = tool(folder, &["clients", "list", "--store", "memory"]);
    assert!(
        memory.status.code() == Some(2) && String::from_utf8(memory.stderr).unwrap().contains("in memory")
    );
    assert!(!with(&["keys", "rotate"]).status.success(), "keys belong to an issuer");

    // A public client has no secret, and one without refresh tokens gets none.
    let added = with(&[&add[..], &["--no-refresh"]].concat());
    let said = String::from_utf8(added.stdout).unwrap();
    assert!(!said.contains("client_secret"), "{said}");
    let id = line(&said, "client_id: ");
    let issued: Value = server.redeem(id, &server.code(id), VERIFIER).json().unwrap();
    assert!(issued["access_token"].is_string() && issued.get("refresh_token").is_none());
    for wrong in [
        &["clients", "add", "--name", "x", "--redirect-uri", "http://app.example/cb"][..],
        &["clients", "add", "--name", "x", "--redirect-uri", "com.example:/cb"],
        &["clients", "add", "--name", "x", "--redirect-uri", CALLBACK, "--method", "private-key-jwt"],
        &["clients", "add", "--name", "x"],
    ] {
        assert!(!with(wrong).status.success(), "{wrong:?}");
    }
}

// I-A9, 95: whoever is no proxy cannot have itself counted as somebody else.
#[test]
fn only_a_proxy_that_is_named_says_for_whom_a_request_is() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--store", "memory", "--dangerously-auto-approve", "ann"];
    let limited = |server: &Server| {
        (0..40).any(|n: u8| {
            let request = server.http.post(format!("{}/register", server.base));
            let request = request.header("x-forwarded-for", format!("198.51.100.{n}"));
            let request = request.header("forwarded", format!("for=198.51.100.{n}"));
            request.header("content-type", "application/json").body("{}").send().unwrap().status()
                == StatusCode::TOO_MANY_REQUESTS
        })
    };
    assert!(limited(&Server::start(folder.path(), &arguments)));
    let behind = [&arguments[..], &["--trusted-proxy", "127.0.0.0/8"]].concat();
    assert!(!limited(&Server::start(folder.path(), &behind)));
    let wrong =
        ["serve", "--issuer", "http://127.0.0.1:7", "--listen", "127.0.0.1:0", "--trusted-proxy", "any"];
    let output =
        tool(folder.path(), &[&wrong[..], &arguments, &["--resource", "http://127.0.0.1:8/mcp"]].concat());
    assert!(String::from_utf8(output.stderr).unwrap().contains("trusted_proxies"));
}

// I-P7: a client's share of tokens, whatever addresses it comes from; its name alone uses nothing up.
#[test]
fn a_client_gets_its_share_of_tokens_and_strangers_cannot_use_it_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serve.toml");
    std::fs::write(&file, "limits = { tokens_per_client = 3 }\ntrusted_proxies = [\"127.0.0.1\"]\n").unwrap();
    let metrics = format!("127.0.0.1:{}", free_port());
    let server = Server::start(
        folder.path(),
        &[
            "--store",
            "memory",
            "--dangerously-auto-approve",
            "ann",
            "--config",
            "serve.toml",
            "--metrics-listen",
            &metrics,
        ],
    );
    let (client, other) = (server.register(), server.register());
    for _ in 0..20 {
        assert_eq!(server.refresh(&client, "no-such-token").status(), StatusCode::BAD_REQUEST);
    }
    let statuses: Vec<_> =
        (0..6).map(|_| server.redeem(&client, &server.code(&client), VERIFIER).status().as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 4, "{statuses:?}");
    assert_eq!(statuses[5], 429);
    assert_eq!(server.redeem(&other, &server.code(&other), VERIFIER).status(), StatusCode::OK);
    let counted = server.http.get(format!("http://{metrics}/metrics")).send().unwrap().text().unwrap();
    assert!(counted.contains("mcp_authz_limited_total 2"), "{counted}");
}

// I-T4: whoever is taken out of the configuration gets nothing more for what they granted.
#[test]
fn a_person_who_is_taken_out_ends_their_grants_with_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let port = free_port();
    let people = |name: &'static str| [&STORED[..], &["--dangerously-auto-approve", name]].concat();
    let mut server = Server::start_at(port, folder, &people("ann"));
    let client = server.register();
    let issued = server.redeem(&client, &server.code(&client), VERIFIER);
    let refresh = member(issued, "refresh_token");
    let code = server.code(&client);
    assert_eq!(server.stop(), Some(0));
    let mut server = Server::start_at(port, folder, &people("bob"));
    assert_eq!(member(server.refresh(&client, &refresh), "error"), "invalid_grant");
    assert_eq!(member(server.redeem(&client, &code, VERIFIER), "error"), "invalid_grant");
    let of_bob = server.redeem(&client, &server.code(&client), VERIFIER);
    let of_bob = member(of_bob, "refresh_token");
    // For good: whoever gets the name next does not come into it.
    let ended = |line: &String| line.contains("ann") && line.contains("what they allowed has ended");
    let wait = std::time::Duration::from_secs(20);
    while !ended(&server.log.lock().unwrap().recv_timeout(wait).unwrap()) {}
    member(server.refresh(&client, &of_bob), "refresh_token");
    server.stop();
    let server = Server::start_at(port, folder, &people("ann"));
    assert_eq!(member(server.refresh(&client, &refresh), "error"), "invalid_grant");
    assert_eq!(member(server.redeem(&client, &code, VERIFIER), "error"), "invalid_grant");
}

// I-T4: a client ends with its file, and one that was added by command does not.
#[test]
fn a_client_whose_file_is_taken_out_ends_until_the_file_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = format!(
        r#"{{"client_id":"from-a-file","redirect_uris":["{CALLBACK}"],"token_endpoint_auth_method":"none",
        "grant_types":["authorization_code","refresh_token"]}}"#
    );
    std::fs::write(folder.join("client.json"), file).unwrap();
    let port = free_port();
    let without = [&STORED[..], &["--dangerously-auto-approve", "ann"]].concat();
    let with = [&without[..], &["--client", "client.json"]].concat();
    let added =
        tool(folder, &[&["clients", "add", "--name", "x", "--redirect-uri", CALLBACK], &STORED[..]].concat());
    let added = line(&String::from_utf8(added.stdout).unwrap(), "client_id: ").to_owned();
    let granted = |server: &Server, client: &str| {
        member(server.redeem(client, &server.code(client), VERIFIER), "refresh_token")
    };
    let mut server = Server::start_at(port, folder, &with);
    let (mut ours, mut theirs) = (granted(&server, "from-a-file"), granted(&server, &added));
    let code = server.code("from-a-file");
    server.stop();
    // With the file nothing ends.
    let mut server = Server::start_at(port, folder, &with);
    ours = member(server.refresh("from-a-file", &ours), "refresh_token");
    server.stop();
    let mut server = Server::start_at(port, folder, &without);
    assert_eq!(server.authorize("from-a-file", &[]).status(), StatusCode::BAD_REQUEST);
    assert_eq!(server.refresh("from-a-file", &ours).status(), StatusCode::UNAUTHORIZED);
    theirs = member(server.refresh(&added, &theirs), "refresh_token");
    let listed =
        |what: &str| String::from_utf8(tool(folder, &[&[what, "list"], &STORED[..]].concat()).stdout);
    for what in ["clients", "grants"] {
        let listed = listed(what).unwrap();
        assert!(!listed.contains("from-a-file") && listed.contains(&added), "{listed}");
    }
    server.stop();
    let logged: Vec<String> = server.log.lock().unwrap().iter().collect();
    let said = logged.iter().any(|line| line.contains("from-a-file") && line.contains("removed"));
    assert!(said && !logged.iter().any(|line| line.contains(&added)), "{logged:?}");
    // It comes back with its file; what it was granted before does not.
    let server = Server::start_at(port, folder, &with);
    assert_eq!(member(server.refresh("from-a-file", &ours), "error"), "invalid_grant");
    assert_eq!(member(server.redeem("from-a-file", &code, VERIFIER), "error"), "invalid_grant");
    granted(&server, "from-a-file");
    member(server.refresh(&added, &theirs), "refresh_token");
}

// The metrics are where the operator wants them, and nowhere else.
#[test]
fn metrics_are_served_at_their_own_address_only() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--store", "memory", "--dangerously-auto-approve", "ann"];
    let metrics = format!("127.0.0.1:{}", free_port());
    let server = Server::start(folder.path(), &[&arguments[..], &["--metrics-listen", &metrics]].concat());
    let at = |path: &str| server.http.get(format!("http://{metrics}{path}")).send().unwrap();
    assert_eq!(at("/metrics").status(), StatusCode::OK);
    assert_eq!(server.get("/metrics").status(), StatusCode::NOT_FOUND);
    for path in ["/", "/healthz", "/token", "/grants", "/authorize", "/jwks"] {
        assert_eq!(at(path).status(), StatusCode::NOT_FOUND, "{path}");
    }
    let server = Server::start(folder.path(), &arguments);
    assert_eq!(server.get("/metrics").status(), StatusCode::NOT_FOUND, "off unless it is wanted");
    // An address that is taken is told at the start.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let common = ["serve", "--issuer", "http://127.0.0.1:7", "--listen", "127.0.0.1:0"];
    let common =
        [&common[..], &["--resource", "http://127.0.0.1:8/mcp", "--metrics-listen", &taken]].concat();
    assert!(!tool(folder.path(), &[&common[..], &arguments].concat()).status.success());
}

// D41: a document that was gone is looked for without anybody asking.
#[test]
fn a_document_that_was_gone_is_looked_for_by_the_server_itself() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(
        folder.join("serve.toml"),
        "document_cache = { least_seconds = 1, most_seconds = 1, stale_days = 7 }\n",
    )
    .unwrap();
    let answer = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let (url, fetches) = site(answer.clone());
    let fetches = || fetches.load(std::sync::atomic::Ordering::SeqCst);
    let body = format!(r#"{{"client_id":"{url}","client_name":"x","redirect_uris":["{CALLBACK}"]}}"#);
    *answer.lock().unwrap() = ok(&body);
    let port = free_port();
    let arguments = [&STORED[..], &["--dangerously-auto-approve", "ann", "--config", "serve.toml"]].concat();
    let mut server = Server::start_at(port, folder, &arguments);
    let code = server.code(&url);
    *answer.lock().unwrap() = ok(&body).replace("200 OK", "404 Not Found");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(server.redeem(&url, &code, VERIFIER).status(), StatusCode::OK);
    assert_eq!(fetches(), 2);
    server.stop();
    let _server = Server::start_at(port, folder, &arguments);
    for _ in 0..100 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        if fetches() > 2 {
            break;
        }
    }
    assert_eq!(fetches(), 3);
}

// After a leak: the old key is in no key set any longer, and the new one signs.
#[test]
fn a_rotation_at_once_leaves_no_key_of_before() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let port = free_port();
    let arguments = [&STORED[..], &["--dangerously-auto-approve", "ann"]].concat();
    let kids = |server: &Server| -> Vec<Value> {
        let keys = server.get("/jwks").json::<Value>().unwrap();
        keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect()
    };
    let mut server = Server::start_at(port, folder, &arguments);
    let (issuer, leaked) = (server.base.clone(), kids(&server));
    let rotated =
        tool(folder, &[&["keys", "rotate", "--at-once", "--issuer", &issuer], &STORED[..]].concat());
    assert!(rotated.status.success(), "{rotated:?}");
    server.stop();
    let server = Server::start_at(port, folder, &arguments);
    let now = kids(&server);
    assert!(leaked.len() == 1 && now.len() == 1 && leaked != now, "{leaked:?} {now:?}");
}
