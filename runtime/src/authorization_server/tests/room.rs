//! A store that has no room, or more to do than it can, as a client and a browser see it.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, StatusCode};
use mcp_authz::authorization_server::record::{ClientCredential, ClientRecord, SecretMethod};
use mcp_authz::authorization_server::store::{
    AccessFound, AllRevoked, ClientDeletion, ClientFound, ClientInsertion, ClientUpdate, CodeFound,
    CodeRedemption, ConsentFound, DecideOnce, DecisionFound, DecisionInsertion, DecisionTaken, DeleteClient,
    FamilyRevocation, FindClient, GrantFound, InsertClient, InsertDecision, InsertPushed, PushedFound,
    PushedInsertion, ReadAccess, ReadCode, ReadConsent, ReadDecision, ReadGrant, ReadPushed, ReadRefresh,
    RedeemCode, RefreshFound, RefreshRotation, Reservation, ReserveOnce, RevokeAll, RevokeFamily,
    RotateRefresh, UpdateClient,
};
use mcp_authz::identifier::{ClientId, RedirectUri};
use mcp_authz::message::client_metadata::ClientMetadata;
use mcp_authz::secret::ClientSecret;
use mcp_authz::syntax::form::Form;

use super::{Answer, LocalUser, REDIRECT, World, authorize, world_with};
use crate::clock::{Clock as _, SystemClock};
use crate::store::memory::MemoryStore;
use crate::store::{Bounds, ReadSession, SessionFound, Store, StoreError, Stored};

/// A client of the operator, with a secret.
fn operators(id: &str, secret: &str) -> ClientRecord {
    let metadata = ClientMetadata {
        redirect_uris: vec![RedirectUri::new(REDIRECT).unwrap()],
        grant_types: Some(vec!["authorization_code".into()]),
        ..ClientMetadata::default()
    };
    let digest = ClientSecret::new(secret).unwrap().digest();
    let credential = ClientCredential::Secret { method: SecretMethod::Post, digest, expires: None };
    ClientRecord::pre_registered(ClientId::new(id).unwrap(), metadata, credential, SystemClock.now()).unwrap()
}

/// Pushes a request of the client, with these parameters besides.
async fn push(world: &World, client: &str, more: &[(&str, &str)]) -> Answer {
    let target = authorize(client, "notes:read");
    let form = Form::parse(target.split_once('?').unwrap().1.as_bytes()).unwrap();
    let pairs: Vec<(&str, &str)> = form.names().map(|name| (name, form.get(name).unwrap())).collect();
    world.post("/as/par", None, &[&pairs, more].concat()).await
}

// I-P7: open registration makes as many clients as a stranger likes, with secrets too, and none of them takes the room of a client
// that the operator wrote.
#[tokio::test]
async fn strangers_who_fill_their_room_keep_no_client_of_the_operator_out() {
    let mut bounds = Bounds::default();
    (bounds.pushed_of_strangers, bounds.pushed_of_operator, bounds.pushed_of_a_client) = (6, 2, 2);
    let store = MemoryStore::new().bounds(bounds);
    for id in ["bank", "shop", "late"] {
        store.put_client(operators(id, id)).await.unwrap();
    }
    let world = world_with(Arc::new(store), LocalUser::automatic("alice").unwrap());

    let public = world.register().await;
    let body =
        format!(r#"{{"redirect_uris":["{REDIRECT}"],"token_endpoint_auth_method":"client_secret_post"}}"#);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..8 {
        let request = Request::post("/as/register").header("content-type", "application/json");
        let registered = world.send(request.body(Body::from(body.clone())).unwrap()).await;
        let secret = registered.member("client_secret");
        for _ in 0..2 {
            match push(&world, &registered.member("client_id"), &[("client_secret", &secret)]).await.status {
                StatusCode::CREATED => taken += 1,
                StatusCode::SERVICE_UNAVAILABLE => refused += 1,
                other => panic!("{other}"),
            }
        }
    }
    assert_eq!((taken, refused), (6, 10));
    let stranger = push(&world, &public, &[]).await;
    assert_eq!(stranger.status, StatusCode::SERVICE_UNAVAILABLE);
    // What takes the room is there for a minute: whoever came every second would only be in the way.
    assert_eq!(stranger.headers["retry-after"], "60");

    for id in ["bank", "shop"] {
        let pushed = push(&world, id, &[("client_secret", id)]).await;
        assert_eq!(pushed.status, StatusCode::CREATED, "{id}: {}", pushed.body);
        let uri = pushed.member("request_uri").replace(':', "%3A");
        let page = world.get(&format!("/as/authorize?client_id={id}&request_uri={uri}"), None).await;
        assert_eq!(page.status, StatusCode::OK, "{id}");
        assert_eq!(push(&world, id, &[("client_secret", id)]).await.status, StatusCode::CREATED, "{id}");
    }
    // Nor do they keep each other's bound, and who does not prove to be one of them has none of it.
    let late = push(&world, "late", &[("client_secret", "late")]).await;
    assert_eq!(late.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(push(&world, "bank", &[]).await.status, StatusCode::UNAUTHORIZED);
}

// RFC 9110 section 10.2.3: a page waits for minutes, so that nobody is told to come again in a second.
#[tokio::test]
async fn a_page_without_room_is_asked_for_again_in_a_minute() {
    let bounds = Bounds { decisions: 1, ..Bounds::default() };
    let store = Arc::new(MemoryStore::new().bounds(bounds));
    let [alice, bob] =
        ["alice", "bob"].map(|name| world_with(store.clone(), LocalUser::automatic(name).unwrap()));
    let client = alice.register().await;
    assert_eq!(alice.consent_page(&client, None).await.status, StatusCode::OK);
    let refused = bob.consent_page(&client, None).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers["retry-after"], "60");
    assert!(refused.body.contains("try again in a few minutes"), "{}", refused.body);
}

/// A store that so many wait for that it begins nothing more.
#[derive(Debug)]
struct Busy;

macro_rules! busy {
    ($($method:ident($action:ty) -> $receipt:ty;)*) => {
        $(fn $method(&self, _: $action) -> Stored<'_, $receipt> {
            Stored::at_once(Err(StoreError::Busy))
        })*
    };
}

impl Store for Busy {
    busy! {
        find_client(FindClient) -> ClientFound;
        insert_client(InsertClient) -> ClientInsertion;
        put_client(ClientRecord) -> ();
        update_client(UpdateClient) -> ClientUpdate;
        delete_client(DeleteClient) -> ClientDeletion;
        insert_pushed(InsertPushed) -> PushedInsertion;
        read_pushed(ReadPushed) -> PushedFound;
        read_consent(ReadConsent) -> ConsentFound;
        read_access(ReadAccess) -> AccessFound;
        read_grant(ReadGrant) -> GrantFound;
        insert_decision(InsertDecision) -> DecisionInsertion;
        read_decision(ReadDecision) -> DecisionFound;
        decide_once(DecideOnce) -> DecisionTaken;
        read_code(ReadCode) -> CodeFound;
        redeem_code(RedeemCode) -> CodeRedemption;
        read_refresh(ReadRefresh) -> RefreshFound;
        rotate_refresh(RotateRefresh) -> RefreshRotation;
        revoke_family(RevokeFamily) -> FamilyRevocation;
        revoke_all(RevokeAll) -> AllRevoked;
        reserve_once(ReserveOnce) -> Reservation;
        read_session(ReadSession) -> SessionFound;
    }

    fn sweep(&self) -> Stored<'_, ()> {
        Stored::at_once(Err(StoreError::Busy))
    }
}

// RFC 9110 section 10.2.3: whoever comes at a bad moment is told when to come again, at every endpoint that needs the store.
#[tokio::test]
async fn a_busy_store_says_when_to_come_again() {
    let world = world_with(Arc::new(Busy), LocalUser::automatic("alice").unwrap());
    let token = world.redeem("c1", "code").await;
    let refreshed = world.refresh("c1", "token").await;
    let revoked = world.post("/as/revoke", None, &[("client_id", "c1"), ("token", "t")]).await;
    let introspected = world.post("/as/introspect", None, &[("client_id", "c1"), ("token", "t")]).await;
    let pushed = push(&world, "c1", &[]).await;
    let body = format!(r#"{{"redirect_uris":["{REDIRECT}"],"token_endpoint_auth_method":"none"}}"#);
    let request = Request::post("/as/register").header("content-type", "application/json");
    let registered = world.send(request.body(Body::from(body)).unwrap()).await;
    let request = Request::get("/as/register/c1").header("authorization", "Bearer token");
    let managed = world.send(request.body(Body::empty()).unwrap()).await;
    let shown = world.consent_page("c1", None).await;
    let decided = world.post("/as/decision", shown.cookie().as_deref(), &[("handle", "h")]).await;
    let reference = world
        .get("/as/authorize?client_id=c1&request_uri=urn%3Aietf%3Aparams%3Aoauth%3Arequest_uri%3Ax", None);
    for (endpoint, answer) in [
        ("code", token),
        ("refresh", refreshed),
        ("revocation", revoked),
        ("introspection", introspected),
        ("push", pushed),
        ("registration", registered),
        ("management", managed),
        ("authorization", shown),
        ("decision", decided),
        ("reference", reference.await),
    ] {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{endpoint}: {}", answer.body);
        let later = answer.headers.get("retry-after").map(|later| later.to_str().unwrap().parse::<u32>());
        assert!(later.is_some_and(|later| later.is_ok_and(|later| (1..10).contains(&later))), "{endpoint}");
    }
    // Nobody is asked to come again for what needs no store, or is wrong.
    for target in ["/.well-known/oauth-authorization-server/as", "/as/authorize"] {
        assert!(!world.get(target, None).await.headers.contains_key("retry-after"), "{target}");
    }
}
