//! How somebody signs in, and what ends their session.

use std::future::Future as _;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHasher as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use http::StatusCode;
use http::request::Parts;
use mcp_authz::authorization_server::store::{RevocationTarget, RevokeAll};
use mcp_authz::time::{Duration, OffsetDateTime};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::super::browser::Browser;
use super::super::passwords::{Passwords, hash_password};
use super::super::people::{EndedBy, Person, PersonAuthentication, Standing};
use super::super::sessions::SESSION;
use super::super::{AuthorizationEvent, AuthorizationServerHost};
use super::{Answer, World, authorize};
use crate::BoxFuture;
use crate::clock::Clock;
use crate::sealer::AeadSealer;
use crate::store::memory::MemoryStore;
use crate::store::{AdministeredStore, EPOCH_KEPT, Store};

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
struct Minutes(AtomicI64);

impl Clock for Minutes {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::days(20_000) + Duration::minutes(self.0.load(Ordering::SeqCst))
    }
}

const PASSWORD: &str = "a password";

/// Of everybody here, and quickly computed.
static HASH: LazyLock<String> = LazyLock::new(|| {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
    argon2.hash_password(PASSWORD.as_bytes(), &SaltString::generate(&mut OsRng)).unwrap().to_string()
});

const NAMES: [&str; 3] = ["ann", "bob", "eve"];

/// What the answer sets.
fn cookies(answer: &Answer) -> Vec<String> {
    let set = answer.headers.get_all("set-cookie").iter();
    set.map(|value| value.to_str().unwrap().split(';').next().unwrap().to_owned()).collect()
}

fn served(
    store: Arc<dyn AdministeredStore>,
    clock: Arc<dyn Clock>,
    change: impl FnOnce(AuthorizationServerHost) -> AuthorizationServerHost,
) -> World {
    let people = NAMES.map(|name| (name.to_owned(), HASH.clone()));
    let sealer = Arc::new(AeadSealer::ephemeral().unwrap());
    let shared: Arc<dyn Store> = Arc::new(Arc::clone(&store));
    let people =
        Passwords::new(people, Arc::clone(&shared), sealer, false).unwrap().clock(Arc::clone(&clock));
    World::of(shared, Arc::new(people), |host| change(host.grants_page(store).clock(clock)))
}

async fn sign_in(world: &World, name: &str) -> Answer {
    let page = world.get("/as/grants", None).await;
    let pairs = [("request", "/grants"), ("name", name), ("password", PASSWORD)];
    world.post("/as/sign-in", page.cookie().as_deref(), &pairs).await
}

/// The cookies of that person, who has just signed in.
async fn signed_in(world: &World, name: &str) -> String {
    let answer = sign_in(world, name).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    cookies(&answer).join("; ")
}

async fn counts(world: &World, name: &str, cookies: &str) -> bool {
    let page = world.get("/as/grants", Some(cookies)).await;
    assert_eq!(page.status, StatusCode::OK);
    let counts = page.body.contains(&format!("You are signed in as {name}"));
    assert_eq!(counts, !page.body.contains("type=\"password\""), "{}", page.body);
    counts
}

/// Revokes everything of a person. In memory nothing is waited for.
fn revoke(store: &MemoryStore, name: &str) {
    let target = RevocationTarget::Subject(name.to_owned());
    let revoked = pin!(store.revoke_all(RevokeAll::of(target))).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Ok(_revoked)) = revoked else { panic!("it was not revoked") };
}

#[tokio::test]
async fn a_person_signs_in_by_password_and_only_then_is_asked() {
    let sealer = Arc::new(AeadSealer::ephemeral().unwrap());
    let people = [("alice".to_owned(), hash_password("correct horse").unwrap())];
    let store = Arc::new(MemoryStore::new());
    let people = Arc::new(Passwords::new(people, store.clone(), sealer, false).unwrap());
    let world = World::of(store, people, |host| host);
    let client = world.register().await;
    let page = world.consent_page(&client, None).await;
    assert!(page.body.contains("type=\"password\"") && !page.body.contains("name=\"decision\""));
    let (cookie, request) = (page.cookie().unwrap(), page.hidden("request"));
    let sign_in = async |name: &str, password: &str, request: &str| {
        let pairs = [("request", request), ("name", name), ("password", password)];
        world.post("/as/sign-in", Some(&cookie), &pairs).await
    };
    let refused = sign_in("alice", "wrong", &request).await;
    assert!(refused.status == StatusCode::FORBIDDEN && refused.cookie().is_none());
    // No open redirect.
    let elsewhere = sign_in("alice", "correct horse", "//evil.example/").await;
    assert!(elsewhere.status == StatusCode::FORBIDDEN && elsewhere.cookie().is_none());
    let signed_in = sign_in("alice", "correct horse", &request).await;
    assert_eq!(signed_in.status, StatusCode::SEE_OTHER);
    let cookies = cookies(&signed_in);
    assert_eq!(cookies.len(), 3);
    let both = cookies.join("; ");
    let page = world.get(&authorize(&client, "notes:read"), Some(&both)).await;
    assert!(page.body.contains("signed in as"), "{}", page.body);
    assert_eq!(world.decide(&page, Some(&both), "approve").await.status, StatusCode::SEE_OTHER);
    // The one cookie is nothing without the other.
    let stolen = format!("{cookie}; {}", cookies[1]);
    let page = world.get(&authorize(&client, "notes:read"), Some(&stolen)).await;
    assert!(page.body.contains("type=\"password\""));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    SignIn(usize),
    Revoke(usize),
    Sweep,
    /// So many minutes go by.
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let around = |time: Duration| (time.whole_minutes() - 1)..=(time.whole_minutes() + 1);
    let minutes = prop_oneof![Just(0), 1_i64..300, around(SESSION), around(EPOCH_KEPT)];
    let step = prop_oneof![
        3 => (0..NAMES.len()).prop_map(Step::SignIn),
        2 => (0..NAMES.len()).prop_map(Step::Revoke),
        1 => Just(Step::Sweep),
        2 => minutes.prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..20)
}

/// A session, and what is to be said of it.
struct Expected {
    name: &'static str,
    cookies: String,
    since: OffsetDateTime,
    is_revoked: bool,
}

// I-T4: a session stands if and only if its time is not over and no revocation of its person came after it began.
#[test]
fn a_session_stands_until_everything_of_its_person_is_revoked() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let clock = Arc::new(Minutes::default());
    let store = Arc::new(MemoryStore::with_clock(clock.clone()));
    let world = served(store.clone(), clock.clone(), |host| host);
    let pass = |minutes| {
        clock.0.fetch_add(minutes, Ordering::SeqCst);
    };
    let scenario = async |steps| {
        let mut sessions: Vec<Expected> = Vec::new();
        for step in steps {
            match step {
                Step::SignIn(who) => {
                    let (name, since) = (NAMES[who], clock.now());
                    let cookies = signed_in(&world, name).await;
                    sessions.push(Expected { name, cookies, since, is_revoked: false });
                }
                Step::Revoke(who) => {
                    revoke(&store, NAMES[who]);
                    let theirs = sessions.iter_mut().filter(|session| session.name == NAMES[who]);
                    theirs.for_each(|session| session.is_revoked = true);
                }
                Step::Sweep => store.sweep().await.unwrap(),
                Step::Pass(minutes) => pass(minutes),
            }
            for Expected { name, cookies, since, is_revoked } in &sessions {
                let expected = !is_revoked && clock.now() < *since + SESSION;
                assert_eq!(counts(&world, name, cookies).await, expected, "{name}, since {since}");
            }
        }
    };
    let mut runner = TestRunner::new(ProptestConfig::with_cases(32));
    let done = runner.run(&steps(), |steps| {
        // Each begins with what was left of those before: epochs that may be forgotten.
        pass(EPOCH_KEPT.whole_minutes() + 1);
        runtime.block_on(scenario(steps));
        Ok(())
    });
    done.unwrap_or_else(|failed| panic!("{failed}"));
}

// I-T4: a page that was shown is answered by nobody whose session has ended, and whenever in the answer the revocation comes,
// nothing is granted that outlives it.
#[tokio::test]
async fn a_page_of_before_grants_nothing_after_everything_was_revoked() {
    let clock = Arc::new(Minutes::default());
    for when in ["Before", "ReadDecision", "DecideOnce", "DecisionTaken"] {
        let store = Arc::new(MemoryStore::with_clock(clock.clone()));
        let is_armed = Arc::new(AtomicBool::new(false));
        let (of_observer, armed) = (store.clone(), is_armed.clone());
        let world = served(store.clone(), clock.clone(), |host| {
            host.observer(move |event: AuthorizationEvent<'_>| {
                if format!("{event:?}").starts_with(when) && armed.swap(false, Ordering::SeqCst) {
                    revoke(&of_observer, "ann");
                }
            })
        });
        let client = world.register().await;
        let ann = signed_in(&world, "ann").await;
        let page = world.get(&authorize(&client, "notes:read"), Some(&ann)).await;
        if when == "Before" {
            revoke(&store, "ann");
        } else {
            is_armed.store(true, Ordering::SeqCst);
        }
        let answer = world.decide(&page, Some(&ann), "approve").await;
        assert!(!is_armed.load(Ordering::SeqCst), "{when} did not come");
        match answer.parameter("code") {
            None => assert_eq!(answer.status, StatusCode::FORBIDDEN, "{when}"),
            Some(code) => {
                assert!(when.starts_with("Deci"), "{when}");
                let refused = world.redeem(&client, &code).await;
                assert_eq!(refused.member("error"), "invalid_grant", "{when}");
            }
        }
        // She is asked to sign in, and can; the page is another browser's now.
        let asked = world.get(&authorize(&client, "notes:read"), Some(&ann)).await;
        assert!(asked.body.contains("type=\"password\"") && !asked.body.contains("name=\"decision\""));
        let again = signed_in(&world, "ann").await;
        assert_eq!(world.decide(&page, Some(&again), "approve").await.status, StatusCode::FORBIDDEN);
        let page = world.get(&authorize(&client, "notes:read"), Some(&again)).await;
        let code = world.decide(&page, Some(&again), "approve").await.parameter("code").unwrap();
        assert_eq!(world.redeem(&client, &code).await.status, StatusCode::OK, "{when}");
    }
}

// I-G14: what ended a session since the copy was made is not in it.
#[tokio::test]
async fn after_an_older_copy_was_restored_everybody_signs_in_again() {
    let store = Arc::new(MemoryStore::new());
    let world = served(store.clone(), Arc::new(crate::clock::SystemClock), |host| host);
    let ann = signed_in(&world, "ann").await;
    assert!(counts(&world, "ann", &ann).await);
    store.restored(7).await.unwrap();
    assert!(!counts(&world, "ann", &ann).await);
    assert!(counts(&world, "ann", &signed_in(&world, "ann").await).await);
}

// I-G8: who cannot be known to stand, is not signed in.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn while_the_store_cannot_be_asked_nobody_is_signed_in() {
    let folder = tempfile::tempdir().unwrap();
    let store = crate::store::sqlite::SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    // What the page shows is in another, which answers.
    let shown = Arc::new(MemoryStore::new());
    let clock = Arc::new(crate::clock::SystemClock);
    let world = served(Arc::new(store.clone()), clock, |host| host.grants_page(shown));
    let ann = signed_in(&world, "ann").await;
    assert!(counts(&world, "ann", &ann).await);
    store.close().await;
    assert_eq!(world.get("/as/grants", Some(&ann)).await.status, StatusCode::SERVICE_UNAVAILABLE);
    // Not that the page has expired: she can send it again.
    let sent = world.post("/as/grants", Some(&ann), &[("client", "c1")]).await;
    assert_eq!(sent.status, StatusCode::SERVICE_UNAVAILABLE);
    // Whoever counts the store's failures hears of this one, too.
    world.events.lock().unwrap().clear();
    let answer = sign_in(&world, "ann").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(cookies(&answer).is_empty());
    let events = world.events.lock().unwrap();
    assert!(matches!(&events[..], [event] if event.starts_with("StoreFailed(")), "{events:?}");
}

/// A host whose one session counts in every browser.
#[derive(Debug)]
struct Everywhere;

impl PersonAuthentication for Everywhere {
    fn standing<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Standing> {
        Box::pin(std::future::ready(Standing::Known))
    }

    fn person<'a>(&'a self, _: &'a Parts, _: &'a Browser) -> BoxFuture<'a, Person> {
        Box::pin(std::future::ready(Person::SignedIn {
            subject: "ann".to_owned(),
            since: OffsetDateTime::UNIX_EPOCH,
            name: None,
            ended_by: EndedBy::Epoch(0),
        }))
    }
}

// I-T4
#[tokio::test]
async fn a_session_that_ended_is_none_in_another_browser_either() {
    let store = Arc::new(MemoryStore::new());
    let administered = store.clone();
    let world = World::of(store.clone(), Arc::new(Everywhere), |host| host.grants_page(administered));
    let page = world.get("/as/grants", None).await;
    let known = page.cookie();
    assert!(page.body.contains("You are signed in as ann"));
    let client = world.register().await;
    let asked = world.get(&authorize(&client, "notes:read"), known.as_deref()).await;
    revoke(&store, "ann");
    let answer = world.decide(&asked, known.as_deref(), "approve").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    for cookie in [None, known.as_deref()] {
        assert_eq!(world.get("/as/grants", cookie).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
