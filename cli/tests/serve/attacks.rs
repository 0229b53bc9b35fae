//! The attacks that reach the endpoints for clients from outside. The numbers are those of the list that the classes come from;
//! `docs/vulnerabilities.md` names the cases.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use mcp_authz::syntax::base64url;
use reqwest::StatusCode;
use reqwest::blocking::Response;
use serde_json::{Value, json};

use super::{CALLBACK, CHALLENGE, Server, VERIFIER, member};

fn server(more: &[&str]) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--store", "memory", "--dangerously-auto-approve", "ann"];
    let server = Server::start(folder.path(), &[&arguments[..], more].concat());
    (folder, server)
}

fn register(server: &Server, kind: &str, body: &str) -> Response {
    let request = server.http.post(format!("{}/register", server.base));
    request.header("content-type", kind).body(body.to_owned()).send().unwrap()
}

fn metadata(change: &[(&str, Value)]) -> String {
    let mut body = json!({ "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none" });
    for (name, value) in change {
        body[*name] = value.clone();
    }
    body.to_string()
}

fn is_refused(answer: Response, error: &str) {
    assert!(answer.status().is_client_error(), "{}", answer.status());
    assert_eq!(member(answer, "error"), error);
}

// 3, 12, 47: no scheme that runs anything, in any spelling, for an answer or on a page.
#[test]
fn a_registration_names_no_address_that_runs_anything() {
    let (_folder, server) = server(&[]);
    let json = "application/json";
    for uri in ["JaVaScRiPt:alert(1)", " javascript:alert(1)", "java\tscript:alert(1)", "data:text/html,x"] {
        is_refused(
            register(&server, json, &metadata(&[("redirect_uris", json!([uri]))])),
            "invalid_redirect_uri",
        );
    }
    for uri in ["http://app.example/cb", "https://app.example/cb#x"] {
        is_refused(
            register(&server, json, &metadata(&[("redirect_uris", json!([uri]))])),
            "invalid_redirect_uri",
        );
    }
    let logo = metadata(&[("logo_uri", json!("javascript:alert(1)"))]);
    is_refused(register(&server, json, &logo), "invalid_client_metadata");
}

// 10, 59, 65: a body of another kind, with members in other cases or said twice, or too long, is refused and breaks nothing.
#[test]
fn a_registration_that_two_readers_could_understand_in_two_ways_is_none() {
    let (_folder, server) = server(&[]);
    for kind in ["text/plain; application/json", "multipart/form-data; boundary=application/json", ""] {
        let answer = register(&server, kind, &metadata(&[]));
        assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
    }
    let twice = metadata(&[]).replacen('{', r#"{"redirect_uris":["http://127.0.0.1:1/"],"#, 1);
    let cased = metadata(&[]).replace("redirect_uris", "Redirect_URIs");
    for body in [twice.as_str(), &cased, "[]", "{", "\u{0}"] {
        assert!(register(&server, "application/json", body).status().is_client_error(), "{body}");
    }
    let long = metadata(&[("client_name", json!("x".repeat(100_000)))]);
    assert_eq!(register(&server, "application/json", &long).status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(server.get("/readyz").status(), StatusCode::OK);
}

// 69, 79, 104, 109, 122: what a client gets is its own, random, and shown to it alone.
#[test]
fn secrets_are_fresh_and_a_public_client_has_none() {
    let (_folder, server) = server(&[]);
    let public: Value = register(&server, "application/json", &metadata(&[])).json().unwrap();
    assert!(public.get("client_secret").is_none());
    let confidential = metadata(&[("token_endpoint_auth_method", json!("client_secret_basic"))]);
    let two: Vec<Value> =
        (0..2).map(|_| register(&server, "application/json", &confidential).json().unwrap()).collect();
    let text = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
    for name in ["client_id", "client_secret"] {
        assert_ne!(text(&two[0], name), text(&two[1], name));
        assert!(text(&two[0], name).len() >= 22 && !text(&two[0], name).starts_with("http"));
    }
    let id = text(&two[0], "client_id");
    // The secret of another client, none, an empty one, and one beside the other way to present it.
    let secret = text(&two[0], "client_secret");
    let basic = |id: &str, secret: &str, more: &[(&str, &str)]| {
        let pairs = [("grant_type", "authorization_code"), ("code", "x"), ("code_verifier", VERIFIER)];
        let body = mcp_authz::syntax::form::encode([&pairs[..], more].concat());
        let request = server.http.post(format!("{}/token", server.base)).basic_auth(id, Some(secret));
        request.header("content-type", "application/x-www-form-urlencoded").body(body).send().unwrap()
    };
    is_refused(basic(&id, &secret, &[]), "invalid_grant");
    for other in [text(&two[1], "client_secret"), String::new(), format!("{secret}x"), secret[1..].to_owned()]
    {
        is_refused(basic(&id, &other, &[]), "invalid_client");
    }
    is_refused(basic(&id, &secret, &[("client_secret", &secret)]), "invalid_request");
    // 130: a field that is not quite Basic is no Basic.
    for field in ["Basic", "Basic ", "Basic !!!!", "Basic YQ==", "Basic\tYTpi", "Bearer x"] {
        let request = server.http.post(format!("{}/token", server.base)).header("authorization", field);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body("grant_type=authorization_code&code=x").send().unwrap();
        assert!(answer.status().is_client_error(), "{field}");
    }
    // The registration itself answers to its own token only.
    assert_eq!(server.get(&format!("/register/{id}")).status(), StatusCode::UNAUTHORIZED);
}

// 1, 38, 61, 90, 101, 108, 110, 111, 131: an error goes to no address that is not registered, and none takes long to refuse.
#[test]
fn no_error_is_sent_where_no_answer_may_go() {
    let (_folder, server) = server(&[]);
    let client = server.register();
    let long = format!("http://127.0.0.1:9/{}", "a.".repeat(3000));
    for uri in [
        "https://evil.example/callback",
        "http://127.0.0.1:9/callback/../../x",
        "http://127.0.0.1:9/%2e%2e/callback",
        "http://127.0.0.1:9%25@evil.example/callback",
        "http://127.0.0.1:9/callback/",
        "http://127.0.0.1:9/callbackx",
        "http://127.0.0.1:9/callback?x=1",
        &long,
    ] {
        for fault in [
            ("prompt", "none"),
            ("response_type", "token"),
            ("scope", "\u{1}"),
            ("request", "e30."),
            ("nonce", "x"),
        ] {
            let answer = server.authorize(&client, &[("redirect_uri", uri), fault]);
            assert!(answer.status().is_client_error(), "{uri} {fault:?}");
            assert!(!answer.headers().contains_key("location"), "{uri} {fault:?}");
        }
    }
    // Nobody is known by a name that was never registered.
    for unknown in ["nobody", "*", "", "https://evil.example", "null"] {
        let answer = server.authorize(unknown, &[]);
        assert!(answer.status().is_client_error() && !answer.headers().contains_key("location"), "{unknown}");
    }
}

// 13, 99, 130, 97: an extension that would change what the request means is refused, never passed over.
#[test]
fn a_request_that_means_more_than_is_read_is_refused() {
    let (_folder, server) = server(&[]);
    let client = server.register();
    for (name, value, error) in [
        ("request", "eyJhbGciOiJub25lIn0.e30.", "request_not_supported"),
        ("authorization_details", "[]", "invalid_authorization_details"),
        ("dpop_jkt", "x", "invalid_request"),
        ("response_mode", "fragment", "invalid_request"),
    ] {
        let answer = server.authorize(&client, &[(name, value)]);
        let location = answer.headers()["location"].to_str().unwrap();
        assert!(location.contains(&format!("error={error}")) && !location.contains("code="), "{location}");
    }
    // A reference that is none of this server's leads nowhere, and is not fetched.
    let answer = server.authorize(&client, &[("request_uri", "https://evil.example/r")]);
    assert!(answer.status().is_client_error() && !answer.headers().contains_key("location"));
}

// 14, 32, 52, 11: a token is for the resource and the scopes that were approved, and a request for more uses nothing up.
#[test]
fn a_token_is_for_what_was_approved_and_nothing_more() {
    let (_folder, server) = server(&["--resource", "http://127.0.0.1:8/other"]);
    let client = server.register();
    let code = server.code(&client);
    let asked = |more: &[(&str, &str)]| {
        let pairs = [
            ("grant_type", "authorization_code"),
            ("client_id", &client),
            ("code", &code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", CALLBACK),
        ];
        server.post("/token", &[&pairs[..], more].concat())
    };
    for other in ["http://127.0.0.1:8/other", "http://127.0.0.1:8/", "https://api.example"] {
        is_refused(asked(&[("resource", other)]), "invalid_target");
    }
    let issued: Value = asked(&[("resource", "http://127.0.0.1:8/mcp")]).json().unwrap();
    let claims = issued["access_token"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&base64url::decode(claims).unwrap()).unwrap();
    assert_eq!(claims["aud"], "http://127.0.0.1:8/mcp");
    let refresh = issued["refresh_token"].as_str().unwrap();
    for (name, value, error) in
        [("scope", "mcp admin", "invalid_scope"), ("resource", "http://127.0.0.1:8/other", "invalid_target")]
    {
        let pairs =
            [("grant_type", "refresh_token"), ("client_id", client.as_str()), ("refresh_token", refresh)];
        is_refused(server.post("/token", &[&pairs[..], &[(name, value)]].concat()), error);
    }
    assert_eq!(server.refresh(&client, refresh).status(), StatusCode::OK);
}

/// How many of twenty requests at one time were answered with tokens.
fn winners(request: impl Fn() -> Response + Sync) -> usize {
    let (ready, won) = (std::sync::Barrier::new(20), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                ready.wait();
                let answer = request();
                let status = answer.status();
                if status == StatusCode::OK {
                    won.fetch_add(1, Ordering::SeqCst);
                } else {
                    // 85: and every other one hears the same.
                    assert_eq!(
                        (status, member(answer, "error").as_str()),
                        (StatusCode::BAD_REQUEST, "invalid_grant")
                    );
                }
            });
        }
    });
    won.into_inner()
}

// 8, 62, 63, 68, 85, 115, 116: of many at one time one gets tokens, on each store that a process opens.
#[test]
fn of_many_at_one_time_one_gets_tokens() {
    for store in ["memory", "sqlite:store.db"] {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["--store", store, "--master-key", "master.key", "--dangerously-auto-approve", "ann"];
        let server = Server::start(folder.path(), &arguments);
        let client = server.register();
        let code = server.code(&client);
        assert_eq!(winners(|| server.redeem(&client, &code, VERIFIER)), 1, "{store}");
        let refresh = member(server.redeem(&client, &server.code(&client), VERIFIER), "refresh_token");
        assert_eq!(winners(|| server.refresh(&client, &refresh)), 1, "{store}");
    }
}

// 2, 15, 51, 81, 96, 117, 165: there is no way around the verifier.
#[test]
fn a_code_is_worth_nothing_without_its_verifier() {
    let (_folder, server) = server(&[]);
    let client = server.register();
    let code = server.code(&client);
    let without = [
        ("grant_type", "authorization_code"),
        ("client_id", client.as_str()),
        ("code", &code),
        ("redirect_uri", CALLBACK),
    ];
    // Without one, with an empty one, with the challenge itself, and without one again.
    is_refused(server.post("/token", &without), "invalid_request");
    for wrong in ["", CHALLENGE] {
        let answer = server.post("/token", &[&without[..], &[("code_verifier", wrong)]].concat());
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
    is_refused(server.post("/token", &without), "invalid_request");
    assert_eq!(server.redeem(&client, &code, VERIFIER).status(), StatusCode::OK);
}

// 121: nothing secret is read from a URL, and no answer with tokens is kept by anybody.
#[test]
fn tokens_and_codes_do_not_travel_in_urls() {
    let (_folder, server) = server(&[]);
    let client = server.register();
    let code = server.code(&client);
    let query = format!(
        "/token?grant_type=authorization_code&client_id={client}&code={code}&code_verifier={VERIFIER}"
    );
    assert_eq!(server.get(&query).status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(server.post(&query, &[("redirect_uri", CALLBACK)]).status().is_client_error());
    let answer = server.redeem(&client, &code, VERIFIER);
    assert_eq!(
        (answer.status(), answer.headers()["cache-control"].as_bytes()),
        (StatusCode::OK, &b"no-store"[..])
    );
}

// 6, 83, 107: a public client ends its own grant, and that it ended shows at once.
#[test]
fn a_client_ends_its_own_grant_and_no_other() {
    let (_folder, server) = server(&[]);
    let (client, other) = (server.register(), server.register());
    let refresh = member(server.redeem(&client, &server.code(&client), VERIFIER), "refresh_token");
    assert_eq!(
        server.post("/revoke", &[("token", &refresh), ("client_id", &other)]).status(),
        StatusCode::OK
    );
    let next = member(server.refresh(&client, &refresh), "refresh_token");
    assert_eq!(server.post("/revoke", &[("token", &next), ("client_id", &client)]).status(), StatusCode::OK);
    is_refused(server.refresh(&client, &next), "invalid_grant");
}

// 48, 82, 84: an assertion is for this issuer, of this client's key, and serves once.
#[test]
fn an_assertion_serves_once_and_for_this_issuer() {
    let (_folder, server) = server(&[]);
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": base64url::encode(key.public_key().as_ref())});
    let body = metadata(&[
        ("token_endpoint_auth_method", json!("private_key_jwt")),
        ("jwks", json!({ "keys": [jwk] })),
    ]);
    let client = member(register(&server, "application/json", &body), "client_id");
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let assertion = |key: &Ed25519KeyPair, audience: Value, jti: &str| {
        let header = base64url::encode(br#"{"alg":"EdDSA"}"#);
        let claims = json!({"iss": client, "sub": client, "aud": audience, "exp": now + 60, "jti": jti});
        let signed = format!("{header}.{}", base64url::encode(claims.to_string().as_bytes()));
        format!("{signed}.{}", base64url::encode(key.sign(signed.as_bytes()).as_ref()))
    };
    let ask = |assertion: &str| {
        let answer = server.post(
            "/token",
            &[
                ("grant_type", "authorization_code"),
                ("code", "x"),
                ("code_verifier", VERIFIER),
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                ("client_assertion", assertion),
            ],
        );
        member(answer, "error")
    };
    let good = assertion(&key, json!(server.base), "1");
    assert_eq!(ask(&good), "invalid_grant", "it is let in; only the code is wrong");
    assert_eq!(ask(&good), "invalid_client", "and once");
    let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    assert_eq!(ask(&assertion(&other, json!(server.base), "2")), "invalid_client");
    for audience in [
        json!(format!("{}/token", server.base)),
        json!(format!("{}/", server.base)),
        json!([server.base, "https://other.example"]),
        json!([]),
    ] {
        assert_eq!(ask(&assertion(&key, audience.clone(), "3")), "invalid_client", "{audience}");
    }
}

/// A host of client metadata documents, which answers with that.
pub(crate) fn site(answer: Arc<Mutex<String>>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/client.json", listener.local_addr().unwrap());
    let fetches = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&fetches);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.lock().unwrap().as_bytes());
        }
    });
    (url, fetches)
}

pub(crate) fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

// 39, 41, 78, 80: what a stranger has this server fetch is small, near to nothing private, and its own name.
#[test]
fn a_metadata_document_is_what_stands_at_its_own_url() {
    let (_folder, server) = server(&[]);
    let answer = Arc::new(Mutex::new(String::new()));
    let document = |url: &str, more: &str| {
        format!(r#"{{"client_id":"{url}","client_name":"x","redirect_uris":["{CALLBACK}"]{more}}}"#)
    };
    let with = |body: &str| {
        let (url, fetches) = site(Arc::clone(&answer));
        *answer.lock().unwrap() = body.replace("{url}", &url);
        let status = server.authorize(&url, &[]).status();
        (status, fetches.load(Ordering::SeqCst))
    };
    // Each URL is another port's: nothing that was kept of one serves for another.
    let good = ok(&document("{url}", ""));
    let long = good.replace("content-length", "x-length");
    assert_eq!(with(&long), (StatusCode::SEE_OTHER, 1));
    let elsewhere =
        "HTTP/1.1 302 Found\r\nlocation: {url}?again\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let padded = document("{url}", &format!(r#","x":"{}""#, "y".repeat(6000)));
    for refused in [
        elsewhere,
        &long.replace("200 OK", "404 Not Found"),
        &ok(&padded).replace("content-length", "x-length"),
        &long.replace(r#""client_id":"{url}""#, r#""client_id":"{url}x""#),
        &long.replace(r#""client_name""#, r#""client_secret":"s","client_name""#),
        &long.replace("application/json", "text/html"),
    ] {
        assert_eq!(with(refused), (StatusCode::BAD_REQUEST, 1), "{refused}");
    }
    for private in [
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.1]/c.json",
        "https://[64:ff9b::a00:1]/c.json",
        "https://[2002:a00:1::]/c.json",
        "https://10.0.0.1/c.json",
        "http://app.example/c.json",
        "https://app.example/../c.json",
        "https://me@app.example/c.json",
    ] {
        let answer = server.authorize(private, &[]);
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{private}");
    }
}

// I-P7: what one stranger leaves in the store has a bound, whatever it sends.
#[test]
fn one_stranger_fills_neither_memory_nor_store() {
    let (_folder, server) = server(&[]);
    let began = std::time::Instant::now();
    let mut clients = Vec::new();
    for _ in 0..50 {
        let answer = register(&server, "application/json", &metadata(&[]));
        if answer.status() == StatusCode::CREATED {
            clients.push(member(answer, "client_id"));
        } else {
            assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        }
    }
    let push = || {
        let request = [
            ("client_id", &*clients[0]),
            ("response_type", "code"),
            ("redirect_uri", CALLBACK),
            ("resource", "http://127.0.0.1:8/mcp"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        server.post("/par", &request).status()
    };
    let pushed: Vec<_> = (0..200).map(|_| push()).collect();
    let taken = pushed.iter().filter(|status| **status == StatusCode::CREATED).count();
    assert_eq!(pushed.iter().filter(|status| **status == StatusCode::TOO_MANY_REQUESTS).count(), 200 - taken);
    // Ten and sixty a minute, at once or one after the other.
    let minutes = usize::try_from(began.elapsed().as_secs() / 60).unwrap() + 1;
    assert!((10..=10 * (minutes + 1)).contains(&clients.len()), "{}", clients.len());
    assert!((60..=60 * (minutes + 1)).contains(&taken), "{taken}");
}

// D41: what was granted to a client that proved who it is, is nobody's who only says its name.
#[test]
fn a_document_that_proves_less_inherits_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let caching = "document_cache = { least_seconds = 1, most_seconds = 1, stale_days = 7 }\n";
    std::fs::write(folder.path().join("serve.toml"), caching).unwrap();
    let arguments = ["--store", "memory", "--dangerously-auto-approve", "ann", "--config", "serve.toml"];
    let server = Server::start(folder.path(), &arguments);
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let answer = Arc::new(Mutex::new(String::new()));
    let (url, _) = site(Arc::clone(&answer));
    let document = |method: &str, keys: Value| {
        let document = json!({
            "client_id": url, "client_name": "x", "redirect_uris": [CALLBACK], "token_endpoint_auth_method": method,
            "grant_types": ["authorization_code", "refresh_token"], "jwks": { "keys": keys },
        });
        ok(&document.to_string())
    };
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": base64url::encode(key.public_key().as_ref())});
    *answer.lock().unwrap() = document("private_key_jwt", json!([jwk]));
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let assertion = |jti: &str| {
        let claims = json!({"iss": url, "sub": url, "aud": server.base, "exp": now + 60, "jti": jti});
        let text = |text: &str| base64url::encode(text.as_bytes());
        let signed = format!("{}.{}", text(r#"{"alg":"EdDSA"}"#), text(&claims.to_string()));
        format!("{signed}.{}", base64url::encode(key.sign(signed.as_bytes()).as_ref()))
    };
    let ask = |jti: &str, pairs: &[(&str, &str)]| {
        let assertion = assertion(jti);
        let kind = ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        server.post("/token", &[pairs, &[kind, ("client_assertion", &assertion)]].concat())
    };
    let code = server.code(&url);
    let issued = ask(
        "1",
        &[
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", CALLBACK),
        ],
    );
    let refresh = member(issued, "refresh_token");
    let refresh =
        member(ask("2", &[("grant_type", "refresh_token"), ("refresh_token", &refresh)]), "refresh_token");
    // Whoever has taken the host over needs no key any more, and gets nothing for that.
    *answer.lock().unwrap() = document("none", json!([]));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    is_refused(server.refresh(&url, &refresh), "invalid_grant");
    server.code(&url);
    is_refused(server.refresh(&url, &refresh), "invalid_grant");
}

// 40, MCP-SEC-025: an allow-list that is given is kept to, an empty one too.
#[test]
fn documents_of_other_hosts_than_the_operators_are_not_fetched() {
    let answer = Arc::new(Mutex::new(String::new()));
    let (url, fetches) = site(Arc::clone(&answer));
    let body = format!(r#"{{"client_id":"{url}","client_name":"x","redirect_uris":["{CALLBACK}"]}}"#);
    *answer.lock().unwrap() = ok(&body);
    for (hosts, status, expected) in [
        ("[]", StatusCode::BAD_REQUEST, 0),
        (r#"["*.example.com"]"#, StatusCode::BAD_REQUEST, 0),
        (r#"["127.0.0.1"]"#, StatusCode::SEE_OTHER, 1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("serve.toml"), format!("document_hosts = {hosts}\n")).unwrap();
        let server = Server::start(
            folder.path(),
            &["--store", "memory", "--dangerously-auto-approve", "ann", "--config", "serve.toml"],
        );
        let answer = server.authorize(&url, &[]);
        assert_eq!((answer.status(), fetches.load(Ordering::SeqCst)), (status, expected), "{hosts}");
        if status == StatusCode::BAD_REQUEST {
            assert!(answer.text().unwrap().contains("certain hosts only"));
        }
    }
}
