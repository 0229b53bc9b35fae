//! What ends the session of somebody who signed in at a provider.

use std::pin::pin;
#[cfg(feature = "sqlite")]
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mcp_authz::authorization_server::store::{RevocationTarget, RevokeAll};
use mcp_authz_tokio::store::Store as _;
use mcp_authz_tokio::store::memory::MemoryStore;
#[cfg(feature = "sqlite")]
use mcp_authz_tokio::store::sqlite::SqliteStore;
use reqwest::StatusCode;
#[cfg(feature = "sqlite")]
use tokio::{runtime::Handle, task::block_in_place};

#[cfg(feature = "sqlite")]
use crate::world::at;
use crate::world::{Browser, World, world};

const ALLOW: &str = "Allow this application";

/// Revokes everything of a person. In memory nothing is waited for.
fn revoke(store: &MemoryStore, subject: &str) {
    let target = RevocationTarget::Subject(subject.to_owned());
    let revoked = pin!(store.revoke_all(RevokeAll::of(target))).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Ok(_revoked)) = revoked else { panic!("it was not revoked") };
}

fn subject(world: &World, name: &str) -> String {
    format!("{}#{name}", world.provider.origin)
}

/// A browser in which that person has signed in.
async fn signed_in(world: &World, client: &str, name: &str) -> Browser {
    name.clone_into(&mut world.provider.told.lock().unwrap().subject);
    let browser = Browser::new();
    assert!(browser.sign_in(&world.asks(client)).await.body.contains(ALLOW));
    browser
}

// I-T4
#[tokio::test]
async fn whoever_is_revoked_signs_in_at_the_provider_again() {
    let world = world().await;
    let client = world.register().await;
    let (ann, bob) = (signed_in(&world, &client, "ann").await, signed_in(&world, &client, "bob").await);
    let page = ann.get(&world.asks(&client)).await;
    revoke(&world.store, &subject(&world, "ann"));
    assert_eq!(ann.approve(&page).await.status, StatusCode::FORBIDDEN);
    let asked = ann.get(&world.asks(&client)).await;
    assert!(asked.body.contains("name=\"provider\"") && !asked.body.contains(ALLOW), "{}", asked.body);
    assert!(!ann.get(&world.url("/grants")).await.body.contains("You are signed in"));
    assert!(bob.get(&world.asks(&client)).await.body.contains(ALLOW), "another is not concerned");
    "ann".clone_into(&mut world.provider.told.lock().unwrap().subject);
    let page = ann.sign_in(&world.asks(&client)).await;
    assert!(page.body.contains(ALLOW), "{}", page.body);
    assert!(ann.approve(&page).await.location.is_some_and(|place| place.contains("code=")));
}

// I-T4: what the provider says of a person may be older than the revocation, whenever since they were sent there that came.
#[tokio::test]
async fn a_revocation_while_somebody_signs_in_ends_the_sign_in() {
    let world = world().await;
    let client = world.register().await;
    "ann".clone_into(&mut world.provider.told.lock().unwrap().subject);
    let browser = Browser::new();
    for at_the_provider in [true, false] {
        let (store, ann) = (world.store.clone(), subject(&world, "ann"));
        let revocation: Option<Box<dyn FnOnce() + Send>> = Some(Box::new(move || revoke(&store, &ann)));
        {
            let mut told = world.provider.told.lock().unwrap();
            *(if at_the_provider { &mut told.proved } else { &mut told.meanwhile }) = revocation;
        }
        let page = browser.sign_in(&world.asks(&client)).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{at_the_provider}");
        assert!(
            page.body.contains("ended while you signed in") && !page.body.contains(ALLOW),
            "{}",
            page.body
        );
        assert!(!browser.get(&world.asks(&client)).await.body.contains(ALLOW));
    }
    // That of another concerns nobody else, and the next time nothing is in the way.
    let (store, bob) = (world.store.clone(), subject(&world, "bob"));
    world.provider.told.lock().unwrap().meanwhile = Some(Box::new(move || revoke(&store, &bob)));
    assert!(browser.sign_in(&world.asks(&client)).await.body.contains(ALLOW));
}

// I-G8: who may have been revoked is not signed in; and whoever counts the store's failures hears of it.
#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_cannot_be_asked_nobody_signs_in_at_a_provider() {
    for when in ["sent there", "back", "known"] {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
        // What the pages show is in another, which answers.
        let world =
            World::over(Some(Arc::new(store.clone())), "http://127.0.0.1:8/mcp", |upstream, provider| {
                upstream.provider(at(provider)).unwrap()
            });
        let world = world.await;
        let asks = world.asks(&world.register().await);
        let browser = Browser::new();
        let answer = match when {
            "sent there" => {
                let page = browser.get(&asks).await;
                store.close().await;
                browser.press(&page, "op").await
            }
            "back" => {
                let back = world.to_the_callback(&browser, &asks).await;
                store.close().await;
                browser.get(&back).await
            }
            _ => {
                let close = move || block_in_place(|| Handle::current().block_on(store.close()));
                world.provider.told.lock().unwrap().meanwhile = Some(Box::new(close));
                browser.sign_in(&asks).await
            }
        };
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{when}: {}", answer.body);
        assert!(answer.body.contains("cannot sign anybody in at the moment"), "{when}: {}", answer.body);
        assert!(!answer.body.contains("store"), "{when}: {}", answer.body);
        assert!(!browser.jar.lock().unwrap().contains_key("mcp-authz-upstream"), "{when}");
        let events = world.events.lock().unwrap();
        let failures = events.iter().filter(|event| event.starts_with("StoreFailed(")).count();
        assert_eq!(failures, 1, "{when}: {events:?}");
    }
}
