//! Clients that sign, and publish their keys at a URL.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use aws_lc_rs::signature::Ed25519KeyPair;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use http::{Request, StatusCode};
use mcp_authz::jose::{Algorithm, JwkSet};
use mcp_authz::syntax::base64url;
use mcp_authz::syntax::json::ObjectWriter;
use mcp_authz::time::{Duration, OffsetDateTime};

use super::super::people::LocalUser;
use super::{Answer, ISSUER, REDIRECT, VERIFIER, World};
use crate::clock::{Clock, SystemClock};
use crate::keys::SigningKey;
use crate::store::memory::MemoryStore;

const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

#[derive(Debug, Default)]
struct Later(AtomicI64);

impl Clock for Later {
    fn now(&self) -> OffsetDateTime {
        SystemClock.now() + Duration::seconds(self.0.load(Ordering::SeqCst))
    }
}

/// Where the client publishes its keys.
#[derive(Default)]
struct Site {
    document: std::sync::Mutex<Vec<u8>>,
    asked: AtomicUsize,
}

impl Site {
    fn publish(&self, keys: &[&SigningKey]) {
        let keys = JwkSet::new(keys.iter().map(|key| key.jwk().clone())).unwrap();
        *self.document.lock().unwrap() = keys.render();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Serves it until the test ends; its URL.
    async fn serve(self: &Arc<Self>) -> String {
        async fn document(State(site): State<Arc<Site>>) -> Vec<u8> {
            site.asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            site.document.lock().unwrap().clone()
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let router = Router::new().route("/jwks", get(document)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }
}

struct Application {
    id: String,
    asserted: AtomicUsize,
}

impl Application {
    async fn register(world: &World, jwks_uri: &str) -> Self {
        let body = format!(
            r#"{{"redirect_uris":["{REDIRECT}"],"token_endpoint_auth_method":"private_key_jwt","jwks_uri":"{jwks_uri}"}}"#
        );
        let request = Request::post("/as/register").header("content-type", "application/json");
        let answer = world.send(request.body(Body::from(body)).unwrap()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        Self { id: answer.member("client_id"), asserted: AtomicUsize::new(0) }
    }

    /// An assertion by that key, or with its name and nobody's signature.
    fn assertion(&self, key: &SigningKey, is_signed: bool) -> String {
        let id = self.id.as_str();
        let jti = self.asserted.fetch_add(1, Ordering::SeqCst);
        let header = ObjectWriter::new().string("alg", "EdDSA").string("kid", key.id().kid()).finish();
        let claims = ObjectWriter::new().string("iss", id).string("sub", id).string("aud", ISSUER);
        let claims = claims.integer("exp", SystemClock.now().unix_timestamp() + 60);
        let claims = claims.string("jti", format!("{jti}")).finish();
        let input = format!("{}.{}", base64url::encode(&header), base64url::encode(&claims));
        let pair = Ed25519KeyPair::from_pkcs8(key.to_pkcs8().unwrap().expose()).unwrap();
        let signature = pair.sign(if is_signed { input.as_bytes() } else { b"something else" });
        format!("{input}.{}", base64url::encode(signature.as_ref()))
    }

    /// What a request for tokens with a code that is none comes to.
    async fn ask(&self, world: &World, key: &SigningKey, is_signed: bool) -> Answer {
        let assertion = self.assertion(key, is_signed);
        let pairs = [
            ("grant_type", "authorization_code"),
            ("code", "none"),
            ("code_verifier", VERIFIER),
            ("redirect_uri", REDIRECT),
            ("client_assertion_type", KIND),
            ("client_assertion", assertion.as_str()),
        ];
        world.post("/as/token", None, &pairs).await
    }

    async fn is_let_in(&self, world: &World, key: &SigningKey) -> bool {
        let answer = self.ask(world, key, true).await;
        answer.member("error") == "invalid_grant"
    }
}

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::EdDsa).unwrap()
}

fn world(clock: &Arc<Later>) -> World {
    let people = Arc::new(LocalUser::automatic("alice").unwrap());
    let clock = clock.clone();
    World::of(Arc::new(MemoryStore::new()), people, |host| host.clock(clock))
}

// I-P7: whoever says a client's name has its keys fetched once, however many requests they send.
#[tokio::test]
async fn strangers_cannot_have_the_keys_of_a_client_fetched_again_and_again() {
    let (site, clock) = (Arc::new(Site::default()), Arc::new(Later::default()));
    let (own, other) = (key(), key());
    site.publish(&[&own]);
    let world = world(&clock);
    let app = Application::register(&world, &site.serve().await).await;
    let asking = (0..20).map(|n| app.ask(&world, if n % 2 == 0 { &own } else { &other }, false));
    let mut statuses = Vec::new();
    // All of them at once: each is under way before one is answered.
    let mut asking: Vec<_> = asking.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        asking.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Ready(answer) => {
                statuses.push(answer.status);
                false
            }
            std::task::Poll::Pending => true,
        });
        if asking.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    assert_eq!(statuses, [StatusCode::UNAUTHORIZED; 20]);
    assert_eq!(site.asked(), 1);
    assert!(app.is_let_in(&world, &own).await);
    assert_eq!(site.asked(), 1);
}

// A key that the client has just published counts after half a minute, one that it withdrew no longer than five.
#[tokio::test]
async fn a_client_may_change_its_keys() {
    let (site, clock) = (Arc::new(Site::default()), Arc::new(Later::default()));
    let (old, new) = (key(), key());
    site.publish(&[&old]);
    let world = world(&clock);
    let app = Application::register(&world, &site.serve().await).await;
    assert!(app.is_let_in(&world, &old).await);
    site.publish(&[&new]);
    assert!(!app.is_let_in(&world, &new).await);
    assert_eq!(site.asked(), 1);
    clock.0.store(31, Ordering::SeqCst);
    assert!(app.is_let_in(&world, &old).await, "what was fetched is used");
    assert_eq!(site.asked(), 1);
    assert!(app.is_let_in(&world, &new).await);
    assert_eq!(site.asked(), 2);
    assert!(!app.is_let_in(&world, &old).await);
    site.publish(&[&old]);
    clock.0.store(31 + 301, Ordering::SeqCst);
    assert!(!app.is_let_in(&world, &new).await, "withdrawn");
    assert_eq!(site.asked(), 3);
}

// I-G9: a site that is down is not asked again and again, either.
#[tokio::test]
async fn a_site_that_fails_rests() {
    let (site, clock) = (Arc::new(Site::default()), Arc::new(Later::default()));
    let own = key();
    let world = world(&clock);
    let url = site.serve().await;
    let app = Application::register(&world, &url.replace("/jwks", "/nothing")).await;
    for _ in 0..3 {
        assert_eq!(app.ask(&world, &own, true).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    let fetches = || {
        let events = world.events.lock().unwrap();
        events.iter().filter(|event| event.starts_with("FetchDocument")).count()
    };
    assert_eq!(fetches(), 1);
    clock.0.store(31, Ordering::SeqCst);
    assert_eq!(app.ask(&world, &own, true).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(fetches(), 2);
}

// I-P7: nobody has authenticated when a key set is fetched, so that whoever registers may name a host that says nothing.
#[tokio::test]
async fn silent_hosts_keep_no_client_that_signs_out() {
    let (site, own) = (Arc::new(Site::default()), key());
    site.publish(&[&own]);
    let world = Arc::new(world(&Arc::default()));
    let app = Application::register(&world, &site.serve().await).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let (mut asking, mut held) = (Vec::new(), Vec::new());
    for n in 0..40 {
        let evil = Application::register(&world, &format!("{silent}/{n}")).await;
        let (world, key) = (Arc::clone(&world), key());
        asking.push(tokio::spawn(async move { evil.ask(&world, &key, true).await.status }));
        held.push(listener.accept().await.unwrap());
    }
    assert!(app.is_let_in(&world, &own).await);
    assert_eq!(asking.remove(0).await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!asking.pop().unwrap().is_finished());
}
