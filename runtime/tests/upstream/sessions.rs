//! What ends the session of somebody who signed in at a provider.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use mcp_authz::authorization_server::store::{RevocationTarget, RevokeAll};
use mcp_authz_tokio::store::Store as _;
use mcp_authz_tokio::store::memory::MemoryStore;
use reqwest::StatusCode;

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
