//! A person who signs in at an OpenID Provider, from the first request to tokens, through the server as an operator runs it; and
//! what somebody else does in between.

use std::path::Path;

use mcp_authz::syntax::base64url;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::people::{Browser, code, hidden, path};
use super::provider::{CANARY, CLIENT, Lie, OpenIdProvider, SECRET};
use super::{STORED, Server, VERIFIER, free_port};

const ALLOW: &str = "Allow this application";

/// A provider, the runtime it lives in, and a server whose people sign in there.
struct World {
    provider: OpenIdProvider,
    server: Server,
    client: String,
    _runtime: tokio::runtime::Runtime,
    folder: tempfile::TempDir,
    port: u16,
}

fn arguments(provider: &OpenIdProvider) -> Vec<String> {
    let login = ["--login-oidc", &provider.origin, "--login-client-id", CLIENT];
    let secret = ["--login-client-secret-file", "op.secret"];
    login.into_iter().chain(secret).chain(STORED).map(str::to_owned).collect()
}

fn start(provider: &OpenIdProvider, issuer: u16, port: u16, folder: &Path) -> Server {
    let arguments = arguments(provider);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Each try is several requests.
    let limits = "limits = { authorizations = 10000 }\n";
    std::fs::write(folder.join("serve.toml"), limits).unwrap();
    Server::start_beside(issuer, port, folder, &[&arguments[..], &["--config", "serve.toml"]].concat())
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let provider = runtime.block_on(OpenIdProvider::start());
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("op.secret");
        std::fs::write(&secret, SECRET).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let port = free_port();
        let server = start(&provider, port, port, folder.path());
        let client = server.register();
        Self { provider, server, client, _runtime: runtime, folder, port }
    }

    fn asks(&self) -> String {
        path(&self.client, &[])
    }

    /// The person approves the way to the provider, and is sent back from there: the callback, which nobody has followed yet.
    fn to_the_callback(&self, browser: &mut Browser<'_>) -> String {
        let page = browser.visit(&self.asks());
        let (request, csrf) = (hidden(&page, "request"), hidden(&page, "csrf"));
        let pairs = [("request", &request[..]), ("csrf", &csrf), ("provider", "oidc")];
        let sent = browser.submit("/sign-in", &pairs, &[]);
        assert_eq!(sent.status(), StatusCode::SEE_OTHER);
        let there = sent.headers()["location"].to_str().unwrap().to_owned();
        assert!(there.starts_with(&self.provider.origin), "{there}");
        let back = self.server.http.get(there).send().unwrap();
        let back = back.headers()["location"].to_str().unwrap();
        back.strip_prefix(&self.server.base).unwrap().to_owned()
    }

    /// What the browser sees that comes back there: the status, and the page.
    fn comes_back(&self, browser: &mut Browser<'_>, callback: &str) -> (StatusCode, String) {
        let answer = browser.send(self.server.http.get(format!("{}{callback}", self.server.base)));
        (answer.status(), answer.text().unwrap())
    }

    fn is_signed_in(&self, browser: &mut Browser<'_>) -> bool {
        browser.visit(&self.asks()).contains(ALLOW)
    }
}

fn claims(token: &str) -> Value {
    let claims = base64url::decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&claims).unwrap()
}

#[test]
fn a_person_signs_in_at_a_provider_consents_and_the_client_has_tokens() {
    let mut world = World::new();
    let person = format!("{}#248289761001", world.provider.origin);
    let mut browser = Browser::new(&world.server);
    let callback = world.to_the_callback(&mut browser);
    assert_eq!(world.comes_back(&mut browser, &callback).0, StatusCode::SEE_OTHER);
    let page = browser.visit(&world.asks());
    assert!(page.contains(ALLOW) && page.contains("#248289761001"), "{page}");
    assert!(page.contains("Ann &lt;b&gt;Other") && !page.contains("<b>"), "a name is text: {page}");
    let answer = browser.approve(&page, &[]);
    let issued: Value = world.server.redeem(&world.client, &code(&answer), VERIFIER).json().unwrap();
    let token = claims(issued["access_token"].as_str().unwrap());
    assert_eq!((&token["sub"], &token["client_id"]), (&json!(person), &json!(world.client)));
    assert!(!token.to_string().contains("ann@example.com") && !token.to_string().contains(CANARY));
    let mut refresh = issued["refresh_token"].as_str().unwrap().to_owned();
    assert!(browser.visit("/grants").contains(&world.client));
    // The same person in another process over the store, which takes the callback that the first one is the answer to.
    let (cookies, mut leaving) = (browser.cookies.clone(), Browser::new(&world.server));
    let callback = world.to_the_callback(&mut leaving);
    let other = start(&world.provider, world.port, free_port(), world.folder.path());
    let mut there = leaving.at(&other);
    let answer = there.send(other.http.get(format!("{}{callback}", other.base)));
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert!(there.visit(&world.asks()).contains(ALLOW));
    let mut same = Browser::new(&other);
    same.cookies.clone_from(&cookies);
    let page = same.visit("/grants");
    let leave = hidden(page.split_once("/sign-out").unwrap().1, "csrf");
    assert_eq!(same.submit("/sign-out", &[("csrf", &leave)], &[]).status(), StatusCode::OK);
    let mut same = Browser::new(&world.server);
    same.cookies = cookies;
    assert!(!world.is_signed_in(&mut same), "signed out in both");
    refresh = super::member(world.server.refresh(&world.client, &refresh), "refresh_token");
    // Neither what the provider gave nor what was given out is logged.
    world.server.stop();
    for line in world.server.log.lock().unwrap().iter() {
        for secret in [CANARY, SECRET, "ann@example.com", &refresh] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

// OIDCC-3.1.3.7-1 to -9: each lie signs nobody in, and the same provider without it does.
#[test]
fn a_provider_that_lies_signs_nobody_in() {
    let world = World::new();
    for lie in [
        Lie::Claim("nonce", json!("another")),
        Lie::Claim("iss", json!("https://evil.example")),
        Lie::Claim("aud", json!("another client")),
        Lie::Claim("exp", json!(1_700_000_000)),
        Lie::Unsigned,
        Lie::SharedSecret,
        Lie::OtherKey,
        Lie::Type("at+jwt"),
        Lie::CallbackIssuer("https://evil.example"),
        Lie::NoCallbackIssuer,
        Lie::Denies,
        Lie::Down,
        Lie::NoIdToken,
    ] {
        world.provider.lies(lie.clone());
        let mut browser = Browser::new(&world.server);
        let callback = world.to_the_callback(&mut browser);
        let (status, page) = world.comes_back(&mut browser, &callback);
        assert!(status.is_client_error() || status.is_server_error(), "{lie:?}: {status}");
        assert!(page.contains("did not work") && !page.contains("evil.example"), "{lie:?}: {page}");
        assert!(!world.is_signed_in(&mut browser), "{lie:?}");
    }
    world.provider.lies(Lie::None);
    let mut browser = Browser::new(&world.server);
    let callback = world.to_the_callback(&mut browser);
    assert_eq!(world.comes_back(&mut browser, &callback).0, StatusCode::SEE_OTHER);
    assert!(world.is_signed_in(&mut browser));
    assert_eq!(world.provider.visits(), 14);
}

// MCP-SBP-012, MCP-SBP-013, I-P3: login CSRF, account swap and replay.
#[test]
fn a_callback_counts_once_in_the_browser_that_asked() {
    let world = World::new();
    let (mut ann, mut eve) = (Browser::new(&world.server), Browser::new(&world.server));
    let of_ann = world.to_the_callback(&mut ann);
    world.provider.told.lock().unwrap().subject = "eve".to_owned();
    let of_eve = world.to_the_callback(&mut eve);
    let mut nobody = Browser::new(&world.server);
    let mut asked = Browser::new(&world.server);
    asked.visit(&world.asks());
    for (browser, callback) in
        [(&mut ann, &of_eve), (&mut eve, &of_ann), (&mut nobody, &of_ann), (&mut asked, &of_ann)]
    {
        assert_eq!(world.comes_back(browser, callback).0, StatusCode::FORBIDDEN);
        assert!(!world.is_signed_in(browser));
    }
    // Another state, another provider's place, and one without the code.
    let state = of_ann.split("state=").nth(1).unwrap().split('&').next().unwrap();
    for changed in [
        of_ann.replace(state, "guessed"),
        of_ann.replace("/sign-in/oidc", "/sign-in/other"),
        of_ann.replace("code=", "other="),
        of_ann.replace("state=", "other="),
    ] {
        let (status, _) = world.comes_back(&mut ann.at(&world.server), &changed);
        assert!(status.is_client_error(), "{changed}: {status}");
    }
    assert_eq!(world.provider.told.lock().unwrap().redeemed, 0, "no code was used");
    world.provider.told.lock().unwrap().subject = "ann".to_owned();
    let before = ann.at(&world.server);
    assert_eq!(world.comes_back(&mut ann, &of_ann).0, StatusCode::SEE_OTHER);
    assert!(ann.visit(&world.asks()).contains("#ann"));
    // It is used up, for her and for whoever has her cookies from before.
    assert_eq!(world.comes_back(&mut ann, &of_ann).0, StatusCode::FORBIDDEN);
    let mut kept = before.at(&world.server);
    assert_eq!(world.comes_back(&mut kept, &of_ann).0, StatusCode::FORBIDDEN);
    assert!(!world.is_signed_in(&mut kept) && !world.is_signed_in(&mut before.at(&world.server)));
    assert_eq!(world.provider.told.lock().unwrap().redeemed, 1);
}
