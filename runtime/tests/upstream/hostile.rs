//! Providers that lie, callbacks of other browsers, and answers that come twice.

use mcp_authz::identifier::{ClientId, Issuer};
use mcp_authz::secret::ClientSecret;
use mcp_authz_tokio::authorization_server::upstream::UpstreamProvider;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::provider::{CLIENT, Lie, OpenIdProvider, SECRET};
use crate::world::{Browser, World, at, world};

const ALLOW: &str = "Allow this application";

// OIDCC-3.1.3.7-1 to -9: each lie signs nobody in, and the same provider without it does.
#[tokio::test]
async fn an_id_token_that_is_not_for_this_sign_in_signs_nobody_in() {
    let world = world().await;
    let client = world.register().await;
    let now = 1_700_000_000;
    for (lie, words) in [
        (Lie::Claim("nonce", json!("another")), "made for another sign-in"),
        (Lie::Claim("nonce", Value::Null), "made for another sign-in"),
        (Lie::Claim("aud", json!("another client")), "for another client"),
        (Lie::Claim("aud", json!([CLIENT, "another client"])), "issued to another client"),
        (Lie::Claim("azp", json!("another client")), "issued to another client"),
        (Lie::Claim("iss", json!("https://evil.example")), "of another issuer"),
        (Lie::Claim("exp", json!(now)), "has expired"),
        (Lie::Claim("iat", json!(now)), "issued before it was asked for"),
        (Lie::Claim("sub", Value::Null), "sub"),
        (Lie::Unsigned, "algorithm is not among those"),
        (Lie::SharedSecret, "algorithm is not among those"),
        (Lie::OtherKey, "signature does not verify"),
        (Lie::Type("at+jwt"), "another kind"),
        (Lie::NoIdToken, "id_token"),
    ] {
        world.provider.lies(lie.clone());
        let browser = Browser::new();
        let page = browser.sign_in(&world.asks(&client)).await;
        assert_eq!(page.status, StatusCode::BAD_GATEWAY, "{lie:?}: {}", page.body);
        assert!(page.body.contains(words), "{lie:?}: {}", page.body);
        assert!(!page.body.contains("evil.example") && !page.body.contains("another client\""));
        // Nobody is signed in.
        let page = browser.get(&world.asks(&client)).await;
        assert!(page.body.contains("name=\"provider\"") && !page.body.contains(ALLOW));
    }
    world.provider.lies(Lie::Claim("azp", json!(CLIENT)));
    assert!(Browser::new().sign_in(&world.asks(&client)).await.body.contains(ALLOW));
    world.provider.lies(Lie::None);
    assert!(Browser::new().sign_in(&world.asks(&client)).await.body.contains(ALLOW));
}

// MCP-SBP-012, I-P3: login CSRF and account swap. What is refused burns nothing.
#[tokio::test]
async fn a_callback_counts_in_the_browser_that_asked_and_nowhere_else() {
    let world = world().await;
    let client = world.register().await;
    let (ann, eve) = (Browser::new(), Browser::new());
    let of_ann = world.to_the_callback(&ann, &world.asks(&client)).await;
    world.provider.told.lock().unwrap().subject = "eve".to_owned();
    let of_eve = world.to_the_callback(&eve, &world.asks(&client)).await;
    for (browser, url) in [(&ann, &of_eve), (&eve, &of_ann), (&Browser::new(), &of_ann)] {
        let page = browser.get(url).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN);
        assert!(page.location.is_none() && page.cookies.is_empty());
        let page = browser.get(&world.asks(&client)).await;
        assert!(!page.body.contains(ALLOW), "nobody is signed in");
    }
    // A cookie of the one in the other's browser is nothing, either.
    let stolen = Browser::new();
    stolen.get(&world.asks(&client)).await;
    let sign_in = ann.jar.lock().unwrap()["mcp-authz-sign-in"].clone();
    stolen.jar.lock().unwrap().insert("mcp-authz-sign-in".to_owned(), sign_in);
    assert_eq!(stolen.get(&of_ann).await.status, StatusCode::FORBIDDEN);
    assert_eq!(world.provider.told.lock().unwrap().redeemed, 0, "no code was used");
    world.provider.told.lock().unwrap().subject = "ann".to_owned();
    let page = ann.get(&of_ann).await;
    let page = ann.follow(page).await;
    assert!(page.body.contains(ALLOW) && page.body.contains("#ann"), "{}", page.body);
}

// MCP-SBP-013, I-P3
#[tokio::test]
async fn a_callback_counts_once() {
    let world = world().await;
    let client = world.register().await;
    let browser = Browser::new();
    let url = world.to_the_callback(&browser, &world.asks(&client)).await;
    let before = browser.jar.lock().unwrap().clone();
    let first = browser.get(&url).await;
    assert_eq!(first.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.get(&url).await.status, StatusCode::FORBIDDEN, "the browser has forgotten it");
    // Whoever kept the cookies from before has them for nothing.
    let kept = Browser::new();
    *kept.jar.lock().unwrap() = before;
    let replayed = kept.get(&url).await;
    assert!(
        replayed.status == StatusCode::FORBIDDEN && replayed.body.contains("expired"),
        "{}",
        replayed.body
    );
    assert_eq!(world.provider.told.lock().unwrap().redeemed, 1);
    // A refusal counts once, too.
    world.provider.lies(Lie::Denies);
    let browser = Browser::new();
    let url = world.to_the_callback(&browser, &world.asks(&client)).await;
    let before = browser.jar.lock().unwrap().clone();
    assert!(browser.get(&url).await.body.contains("access_denied"));
    *browser.jar.lock().unwrap() = before;
    assert!(!browser.get(&url).await.body.contains("access_denied"));
}

// OAUTH21-7.9-1: session fixation. Whoever knew the cookies from before is not signed in.
#[tokio::test]
async fn a_sign_in_gives_the_browser_another_cookie() {
    let world = world().await;
    let client = world.register().await;
    let browser = Browser::new();
    let url = world.to_the_callback(&browser, &world.asks(&client)).await;
    let before = browser.jar.lock().unwrap().clone();
    let done = browser.get(&url).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER);
    let after = browser.jar.lock().unwrap().clone();
    let (name, _) = before.iter().find(|(name, _)| !name.ends_with("sign-in")).unwrap();
    assert_ne!(before[name], after[name]);
    let fixed = Browser::new();
    let mut jar = after.clone();
    jar.insert(name.clone(), before[name].clone());
    *fixed.jar.lock().unwrap() = jar;
    assert!(!fixed.get(&world.asks(&client)).await.body.contains(ALLOW));
    assert!(browser.get(&world.asks(&client)).await.body.contains(ALLOW));
}

// RFC9207-2.4-4, MCP-AUTH-039: mix-up. The code of another provider is given to nobody.
#[tokio::test]
async fn a_callback_of_another_provider_is_rejected_before_its_code() {
    let world = world().await;
    let client = world.register().await;
    for lie in [Lie::CallbackIssuer("https://evil.example"), Lie::NoCallbackIssuer] {
        world.provider.lies(lie.clone());
        let page = Browser::new().sign_in(&world.asks(&client)).await;
        assert!(page.body.contains("possibly a mix-up attack"), "{lie:?}: {}", page.body);
        assert_eq!(world.provider.told.lock().unwrap().redeemed, 0);
    }
    world.provider.lies(Lie::None);
    assert!(Browser::new().sign_in(&world.asks(&client)).await.body.contains(ALLOW));
}

// D29: of two providers, an answer at the other one's place is nobody's.
#[tokio::test]
async fn an_answer_at_another_providers_place_is_nobodys() {
    let second = OpenIdProvider::start().await;
    let other = UpstreamProvider::new(
        "second",
        Issuer::new(second.origin.as_str()).unwrap(),
        ClientId::new(CLIENT).unwrap(),
    );
    let other = other.secret(ClientSecret::new(SECRET).unwrap());
    let world = World::of("http://127.0.0.1:8/mcp", |upstream, provider| {
        upstream.provider(at(provider)).unwrap().provider(other).unwrap()
    })
    .await;
    let client = world.register().await;
    let browser = Browser::new();
    let url = world.to_the_callback(&browser, &world.asks(&client)).await;
    let moved = url.replace("/sign-in/op?", "/sign-in/second?");
    assert_eq!(browser.get(&moved).await.status, StatusCode::FORBIDDEN);
    assert_eq!(
        browser.get(&url.replace("/sign-in/op?", "/sign-in/third?")).await.status,
        StatusCode::NOT_FOUND
    );
    let page = browser.get(&url).await;
    assert!(browser.follow(page).await.body.contains(ALLOW));
    // The same subject at another provider is another person.
    let page = Browser::new();
    let shown = page.get(&world.asks(&client)).await;
    let sent = page.press(&shown, "second").await;
    let consent = page.follow(sent).await;
    assert!(
        consent.body.contains(&format!("{}#", second.origin.rsplit_once(':').unwrap().1)),
        "{}",
        consent.body
    );
}

// I-G1, I-P7: what strangers send to the callback is refused before anybody is asked.
#[tokio::test]
async fn strangers_at_the_callback_reach_no_provider() {
    let world = world().await;
    let browser = Browser::new();
    for query in
        ["", "?code=c&state=s", "?error=access_denied&state=s", "?code=c&code=d&state=s", "?state=%FF"]
    {
        assert_eq!(
            browser.get(&world.url(&format!("/sign-in/op{query}"))).await.status,
            StatusCode::FORBIDDEN
        );
    }
    browser.jar.lock().unwrap().insert("mcp-authz-sign-in".to_owned(), "AAAA.AAAA".to_owned());
    assert_eq!(browser.get(&world.url("/sign-in/op?code=c&state=s")).await.status, StatusCode::FORBIDDEN);
    assert_eq!(world.provider.visits(), 0);
}
