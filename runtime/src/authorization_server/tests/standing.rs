//! Somebody is removed, and the server starts again over the same store.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, StatusCode};

use super::super::people::{LocalUser, PersonAuthentication, Standing};
use super::{Answer, OPAQUE, REDIRECT, RESOURCE, VERIFIER, World, authorize, world_with};
use crate::BoxFuture;
use crate::store::memory::MemoryStore;

/// A client with a secret, which may introspect its own tokens.
struct Application {
    id: String,
    secret: String,
}

impl Application {
    async fn register(world: &World) -> Self {
        let body = format!(
            r#"{{"redirect_uris":["{REDIRECT}"],"token_endpoint_auth_method":"client_secret_post","grant_types":["authorization_code","refresh_token"]}}"#
        );
        let request = Request::post("/as/register").header("content-type", "application/json");
        let answer = world.send(request.body(Body::from(body)).unwrap()).await;
        Self { id: answer.member("client_id"), secret: answer.member("client_secret") }
    }

    async fn post(&self, world: &World, path: &str, pairs: &[(&str, &str)]) -> Answer {
        let own = [("client_id", self.id.as_str()), ("client_secret", self.secret.as_str())];
        world.post(path, None, &[&own, pairs].concat()).await
    }

    async fn code(&self, world: &World, resource: &str) -> String {
        let target = authorize(&self.id, "notes:read");
        let encode = |text: &str| text.replace(':', "%3A").replace('/', "%2F");
        let target = target.replace(&encode(RESOURCE), &encode(resource));
        let page = world.get(&target, None).await;
        let answer = world.decide(&page, page.cookie().as_deref(), "approve").await;
        answer.parameter("code").unwrap()
    }

    async fn redeem(&self, world: &World, code: &str) -> Answer {
        let pairs = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", REDIRECT),
        ];
        self.post(world, "/as/token", &pairs).await
    }

    async fn refresh(&self, world: &World, token: &str) -> Answer {
        let pairs = [("grant_type", "refresh_token"), ("refresh_token", token)];
        self.post(world, "/as/token", &pairs).await
    }

    async fn is_active(&self, world: &World, token: &str) -> bool {
        let answer = self.post(world, "/as/introspect", &[("token", token)]).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.json().boolean("active").unwrap().unwrap()
    }
}

fn served_for(store: &Arc<MemoryStore>, name: &str) -> World {
    world_with(store.clone(), LocalUser::automatic(name).unwrap())
}

fn is_invalid_grant(answer: &Answer) -> bool {
    answer.status == StatusCode::BAD_REQUEST && answer.member("error") == "invalid_grant"
}

// I-T4
#[tokio::test]
async fn a_person_who_is_removed_ends_what_they_granted() {
    let store = Arc::new(MemoryStore::new());
    let before = served_for(&store, "alice");
    let app = Application::register(&before).await;
    let issued = app.redeem(&before, &app.code(&before, RESOURCE).await).await;
    let opaque = app.redeem(&before, &app.code(&before, OPAQUE).await).await;
    let code = app.code(&before, RESOURCE).await;
    let of = |answer: &Answer, name| answer.member(name);
    let tokens = [
        of(&issued, "access_token"),
        of(&issued, "refresh_token"),
        of(&opaque, "access_token"),
        of(&opaque, "refresh_token"),
    ];
    assert!(tokens[0].contains('.') && !tokens[2].contains('.'));
    for token in &tokens {
        assert!(app.is_active(&before, token).await);
    }

    let after = served_for(&store, "bob");
    for token in &tokens {
        assert!(!app.is_active(&after, token).await, "{token}");
    }
    assert!(is_invalid_grant(&app.redeem(&after, &code).await));
    for refresh in [&tokens[1], &tokens[3]] {
        assert!(is_invalid_grant(&app.refresh(&after, refresh).await));
    }

    // Nothing was used up: it was no client's fault, and an operator may have slipped.
    let again = served_for(&store, "alice");
    assert!(app.is_active(&again, &tokens[2]).await);
    assert_eq!(app.refresh(&again, &tokens[1]).await.status, StatusCode::OK);
    assert_eq!(app.redeem(&again, &code).await.status, StatusCode::OK);
}

/// A directory that does not answer.
#[derive(Debug)]
struct Unreachable(LocalUser);

impl PersonAuthentication for Unreachable {
    fn standing<'a>(&'a self, _subject: &'a str) -> BoxFuture<'a, Standing> {
        Box::pin(std::future::ready(Standing::Unavailable))
    }

    fn person<'a>(
        &'a self,
        request: &'a http::request::Parts,
        browser: &'a super::super::browser::Browser,
    ) -> BoxFuture<'a, super::super::people::Person> {
        self.0.person(request, browser)
    }
}

// I-G8, I-G9: what cannot be known is neither a yes nor the end of a grant.
#[tokio::test]
async fn while_a_person_cannot_be_looked_up_clients_wait() {
    let store = Arc::new(MemoryStore::new());
    let before = served_for(&store, "alice");
    let app = Application::register(&before).await;
    let issued = app.redeem(&before, &app.code(&before, RESOURCE).await).await;
    let (refresh, access) = (issued.member("refresh_token"), issued.member("access_token"));
    let opaque = app.redeem(&before, &app.code(&before, OPAQUE).await).await.member("access_token");
    let code = app.code(&before, RESOURCE).await;
    let people = Arc::new(Unreachable(LocalUser::automatic("alice").unwrap()));
    let meanwhile = World::of(store.clone(), people, |host| host);
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(app.refresh(&meanwhile, &refresh).await.status, unavailable);
    assert_eq!(app.redeem(&meanwhile, &code).await.status, unavailable);
    for token in [&refresh, &access, &opaque] {
        assert_eq!(app.post(&meanwhile, "/as/introspect", &[("token", token)]).await.status, unavailable);
    }
    assert_eq!(app.refresh(&before, &refresh).await.status, StatusCode::OK);
}
