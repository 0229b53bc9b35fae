//! What comes to the redirect URI: from the authorization server that was asked, from another, from anybody (I-L4,
//! RFC 9207 section 2.4).

use std::time::Duration;

use mcp_authz::error::{OutsideFailed, PeerMisbehaved, Remedy};
use mcp_authz_tokio::client::connection::SendError;
use mcp_authz_tokio::client::driver::LoginError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::Answer;
use crate::world::{At, HONEST, World, control, core, stops_at};

/// A world whose authorization server sends the browser back to a changed place.
async fn answering(change: impl Fn(String) -> String + Clone + Send + Sync + 'static) -> World {
    let world = World::new().await;
    world.change(HONEST, At::Authorization, move |_, honest| honest.location(change.clone()));
    world
}

/// No code was exchanged, and another login goes on.
async fn nothing_was_used(mut world: World) {
    stops_at(&world, At::Authorization);
    world.mend(HONEST, At::Authorization);
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(world.reached(HONEST, At::Registration), 1);
}

// OAUTH21-4.1.2-6, I-G2: what holds a parameter twice, or nothing that is awaited, is nobody's answer.
#[tokio::test]
async fn a_callback_that_two_readers_could_understand_in_two_ways_is_waited_past() {
    control().await;
    let changes: [fn(String) -> String; 12] = [
        |back| format!("{back}&code=evil"),
        |back| format!("{back}&co%64e=evil"),
        |back| format!("{back}&state=evil"),
        |back| format!("{back}&iss=https%3A%2F%2Fevil.example"),
        |back| format!("{back}&error=access_denied"),
        |back| back.replace("code=", "cod="),
        |back| back.replace("code=", "Code="),
        |back| back.replace("state=", "state=x"),
        |back| back.replace("state=", "states="),
        |back| back.replace("/callback?", "/callback/?"),
        |back| back.replace("/callback?", "/other?"),
        |back| back.replace("/callback?", "/callback;x?"),
    ];
    for change in changes {
        let mut world = answering(change).await;
        let error = world.hurried_error().await;
        assert_eq!(error, OutsideFailed::NoCallback { reregister: true }.into());
        let pages = world.pages(1).await;
        assert_eq!(pages[0].0, 404, "{}", pages[0].1);
        // D40: nobody came back, perhaps because the server has forgotten this client: it was registered anew, once.
        stops_at(&world, At::Registration);
        assert_eq!(world.reached(HONEST, At::CodeExchange), 0);
        world.mend(HONEST, At::Authorization);
        assert_eq!(world.call().await.unwrap(), 200);
        assert_eq!(world.reached(HONEST, At::Registration), 2);
    }
}

// MCP-AUTH-030, MCP-AUTH-033, RFC9207-2.4-1, RFC9207-2.4-4
#[tokio::test]
async fn a_callback_of_another_issuer_is_rejected_before_its_code() {
    control().await;
    let changes: [fn(String) -> String; 9] = [
        |back| back.split("&iss=").next().unwrap().to_owned(),
        |back| back.replace("&iss=", "&iss=&x="),
        |back| back.replace("&iss=", "&Iss="),
        |back| format!("{back}%2F"),
        |back| format!("{back}1"),
        |back| back.replace("iss=http", "iss=HTTP"),
        |back| back.replace("iss=http%3A%2F%2F127.0.0.1", "iss=http%3A%2F%2Flocalhost"),
        |back| back.replace("iss=http", "iss=https"),
        |back| back.replace("iss=http", "iss=%2568ttp"),
    ];
    for change in changes {
        for error in [false, true] {
            let changed = move |back: String| {
                let changed = change(back);
                if error {
                    changed.replace("code=", "error=access_denied&error_description=call+0800&y=")
                } else {
                    changed
                }
            };
            let mut world = answering(changed).await;
            let met = world.call().await.unwrap_err();
            let shown = format!("{met} {met:?}");
            let error = core(met);
            assert_eq!(error, PeerMisbehaved::CallbackIssuer.into());
            assert_eq!(error.remedy(), Remedy::Reauthorize);
            assert!(!shown.contains("0800") && !shown.contains("access_denied"), "{shown}");
            let pages = world.pages(1).await;
            assert!(pages[0].1.contains("No access was granted") && !pages[0].1.contains("0800"));
            nothing_was_used(world).await;
        }
    }
}

// D4: what is sent without being announced is compared all the same, and what is not announced may be missing.
#[tokio::test]
async fn an_issuer_that_was_not_announced_is_compared() {
    let unannounced = || async {
        let world = World::new().await;
        world.change(HONEST, At::ServerMetadata, |_, honest| {
            honest.member("authorization_response_iss_parameter_supported", serde_json::Value::Null)
        });
        world
    };
    let mut world = unannounced().await;
    assert_eq!(world.call().await.unwrap(), 200);
    let mut world = unannounced().await;
    world.change(HONEST, At::Authorization, |_, honest| {
        honest.location(|back| back.split("&iss=").next().unwrap().to_owned())
    });
    assert_eq!(world.call().await.unwrap(), 200);
    let mut world = unannounced().await;
    world.change(HONEST, At::Authorization, |_, honest| honest.location(|back| format!("{back}%2F")));
    assert_eq!(world.error().await, PeerMisbehaved::CallbackIssuer.into());
    stops_at(&world, At::Authorization);
}

// I-P8, MCP-AUTH-040: a refusal is told by its code, and one that no specification has by ours.
#[tokio::test]
async fn a_refusal_is_told_in_our_words() {
    control().await;
    for (error, told) in [
        ("access_denied", "access_denied"),
        ("server_error", "server_error"),
        ("call_0800_now", "an unregistered error code"),
        ("call+0800+now", "an unregistered error code"),
    ] {
        let mut world = answering(move |back| {
            back.replace(
                "code=",
                &format!("error={error}&error_description=call+0800+%1B%5B2J%E2%80%AE&error_uri=https%3A%2F%2F0800.example&x="),
            )
        })
        .await;
        let met = world.call().await.unwrap_err();
        let SendError::Login(LoginError::Refused(response)) = &met else { panic!("{met:?}") };
        let description = response.detail.description.as_ref().unwrap().as_str();
        assert!(description.contains("0800") && description.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        assert_eq!(met.to_string(), format!("the authorization server refused with {told}"));
        let observed = world.shared.events.lock().unwrap().join("\n");
        assert!(!observed.contains("0800"), "{observed}");
        let pages = world.pages(1).await;
        assert!(pages[0].1.contains("No access was granted") && !pages[0].1.contains("0800"));
        nothing_was_used(world).await;
    }
}

/// The connection's answer, or nothing where it was cut off.
async fn visit(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

// I-L4, I-L12, I-A11: anybody can reach a loopback port, and nobody ends a login by it.
#[tokio::test]
async fn strangers_at_the_callback_do_not_end_the_login() {
    control().await;
    let mut world = World::new().await;
    world.visited(|callback| {
        Box::pin(async move {
            let address = callback.split('/').nth(2).unwrap().to_owned();
            let target = callback.split_once(&address).unwrap().1.to_owned();
            let state = target.split("state=").nth(1).unwrap().split('&').next().unwrap().to_owned();
            let get = |target: &str, host: &str| {
                format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n").into_bytes()
            };
            for (request, status) in [
                // The genuine answer, at the wrong door.
                (get(&target, "evil.example"), "421"),
                (get(&target, "localhost"), "421"),
                (get(&target, &format!("{address}.evil.example")), "421"),
                (format!("GET {target} HTTP/1.1\r\n\r\n").into_bytes(), "421"),
                (get(&format!("http://evil.example{target}"), &address), "421"),
                (get(&format!("http://evil.example{target}"), "evil.example"), "421"),
                (get(&target.replace("/callback", "/callback/"), &address), "404"),
                (get(&target.replace("/callback", "//callback"), &address), "404"),
                (get(&target.replace("/callback", "/x/../callback"), &address), "404"),
                (
                    format!("POST {target} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\n\r\n")
                        .into_bytes(),
                    "405",
                ),
                (format!("HEAD {target} HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes(), "405"),
                (format!("OPTIONS * HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes(), "405"),
                // At the right one, with something else.
                (get("/callback?code=x&state=guess", &address), "404"),
                (get("/callback?error=access_denied", &address), "404"),
                (
                    get("/callback?error=access_denied&state=guess&iss=https%3A%2F%2Fevil.example", &address),
                    "404",
                ),
                (get(&format!("/callback?code=x&state={}", &state[..state.len() - 1]), &address), "404"),
                (get(&format!("{target}&code=x"), &address), "404"),
                (get("/callback", &address), "404"),
                (get("/", &address), "404"),
                (get(&format!("/callback?code={}&state={state}", "x".repeat(10_000)), &address), "404"),
                // No HTTP, or too much of it.
                (get(&format!("/callback?code={}", "x".repeat(100_000)), &address), "4"),
                (
                    format!("GET / HTTP/1.1\r\nhost: {address}\r\n{}\r\n", "x: y\r\n".repeat(10_000))
                        .into_bytes(),
                    "4",
                ),
                (b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), "400"),
                (b"GET\r\n\r\n".to_vec(), "400"),
                (format!("CONNECT evil.example:443 HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes(), "4"),
            ] {
                let answer = visit(&address, &request).await;
                let shown = String::from_utf8_lossy(&request[..request.len().min(100)]).into_owned();
                // Whoever is not read to the end may see its connection reset instead.
                assert!(
                    answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status}")),
                    "{shown}: {}",
                    &answer[..answer.len().min(200)]
                );
                assert!(!answer.contains("evil") && !answer.contains("guess"), "{shown}: {answer}");
            }
        })
    });
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(world.pages(1).await[0].0, 200);
    assert_eq!(world.reached(HONEST, At::CodeExchange), 1);
}

// Many who say nothing are no obstacle to the one who does.
#[tokio::test]
async fn silent_crowds_at_the_callback_do_not_hold_the_login_up() {
    let mut world = World::new().await;
    world.visited(|callback| {
        Box::pin(async move {
            let address = callback.split('/').nth(2).unwrap().to_owned();
            let mut crowd = Vec::new();
            for number in 0..60 {
                let mut stream = TcpStream::connect(&address).await.unwrap();
                if number % 2 == 0 {
                    let _ = stream.write_all(b"GET /callback?code=").await;
                }
                crowd.push(stream);
            }
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(30)).await;
                drop(crowd);
            });
        })
    });
    let started = tokio::time::Instant::now();
    assert_eq!(world.call().await.unwrap(), 200);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

// The page that the browser ends at has nothing of what brought it there.
#[tokio::test]
async fn the_page_repeats_nothing_of_the_callback() {
    for hostile in ["<script>alert(1)</script>", "\u{1b}]0;x\u{7}", "\u{202e}x"] {
        let encoded = mcp_authz::syntax::form::encode([("x", hostile)]);
        let mut world = answering(move |back| format!("{back}&{encoded}")).await;
        assert_eq!(world.call().await.unwrap(), 200);
        let pages = world.pages(1).await;
        assert_eq!(pages[0].0, 200);
        assert!(!pages[0].1.contains("alert") && pages[0].1.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        assert!(!pages[0].1.contains("honest") && !pages[0].1.contains("state"));
    }
    assert_eq!(Answer::status(200).status, 200);
}
