//! Two authorization servers, and a resource that names one that is not its own: mix-up (RFC 9207), counterfeit
//! resources (D36), and moving from one to the other (MCP-REG-051).

use mcp_authz::client::PreRegistered;
use mcp_authz::error::{HostMisuse, OutsideFailed, PeerMisbehaved, Remedy};
use mcp_authz::evidence::IssuerForResource;
use mcp_authz::identifier::{ClientId, Issuer, RedirectUri, ResourceId};
use mcp_authz::syntax::form;
use serde_json::{Value, json};

use crate::server::{Answer, Request};
use crate::world::{At, ELSEWHERE, HONEST, NOTES, Origins, SECOND, Setup, World, control};

/// Sends the browser on to another server's authorization endpoint with the same request, as far as it is not changed.
fn sending_on(to: String, change: impl Fn(&str, String) -> String) -> impl Fn(&Request) -> Answer {
    move |request| {
        let names = [
            "response_type",
            "client_id",
            "redirect_uri",
            "code_challenge",
            "code_challenge_method",
            "state",
            "resource",
        ];
        let pairs = names.map(|name| (name, change(name, request.parameter(name).unwrap_or_default())));
        let query = form::encode(pairs.iter().map(|(name, value)| (*name, value.as_str())));
        Answer::status(302).with("location", format!("{to}/authorize?{query}"))
    }
}

// MCP-AUTH-030, RFC9207-2.4-4, D29
#[tokio::test]
async fn a_code_of_the_honest_server_is_not_given_to_the_one_that_was_asked() {
    control().await;
    let mut world = World::new().await;
    world.names(&world.origins.second.clone());
    world.takes("second-access-");
    assert_eq!(world.call().await.unwrap(), 200, "the second server is one like any other");

    let mut world = World::new().await;
    world.names(&world.origins.second.clone());
    world.instead(
        SECOND,
        At::Authorization,
        sending_on(world.origins.honest.clone(), |name, value| {
            if name == "client_id" { "honest-client".to_owned() } else { value }
        }),
    );
    let error = world.error().await;
    assert_eq!(error, PeerMisbehaved::CallbackIssuer.into());
    assert_eq!(error.remedy(), Remedy::Reauthorize);
    assert_eq!(world.places().last(), Some(&(HONEST, At::Authorization)));
    assert_eq!(world.reached(SECOND, At::CodeExchange) + world.reached(HONEST, At::CodeExchange), 0);
}

// D29: where neither sends `iss`, the place the browser comes back to tells them apart.
#[tokio::test]
async fn without_iss_each_server_has_a_redirect_uri_of_its_own() {
    let mut world = World::new().await;
    for server in [HONEST, SECOND] {
        world.change(server, At::ServerMetadata, |_, honest| {
            honest.member("authorization_response_iss_parameter_supported", Value::Null)
        });
    }
    world.change(HONEST, At::Authorization, |_, honest| {
        honest.location(|back| back.split("&iss=").next().unwrap().to_owned())
    });
    assert_eq!(world.call().await.unwrap(), 200);
    let honest_place = world.seen_at(HONEST, At::Authorization)[0].parameter("redirect_uri").unwrap();
    assert!(honest_place.starts_with(&format!("{}/", world.origins.redirect_uri)));
    // The second server sends the browser to the honest one, which takes only the redirect URI it knows.
    world.names(&world.origins.second.clone());
    world.takes("second-access-");
    let place = honest_place.clone();
    world.instead(
        SECOND,
        At::Authorization,
        sending_on(world.origins.honest.clone(), move |name, value| match name {
            "client_id" => "honest-client".to_owned(),
            "redirect_uri" => place.clone(),
            _ => value,
        }),
    );
    assert_eq!(world.hurried_error().await, OutsideFailed::NoCallback { reregister: true }.into());
    let second_place = world.seen_at(SECOND, At::Authorization)[0].parameter("redirect_uri").unwrap();
    assert_ne!(second_place, honest_place);
    assert_eq!((world.reached(SECOND, At::CodeExchange), world.reached(HONEST, At::CodeExchange)), (0, 1));
    assert_eq!(world.pages(2).await[1].0, 404);
}

// I-L1, I-L3: one server's page, another one's token endpoint.
#[tokio::test]
async fn a_document_that_mixes_endpoints_of_two_servers_gets_no_code() {
    control().await;
    let mut world = World::new().await;
    world.names(&world.origins.second.clone());
    let theirs = format!("{}/authorize", world.origins.honest);
    world.change(SECOND, At::ServerMetadata, move |_, honest| {
        honest.member("authorization_endpoint", theirs.clone())
    });
    assert_eq!(world.error().await, PeerMisbehaved::CallbackIssuer.into());
    assert_eq!(world.reached(SECOND, At::CodeExchange) + world.reached(HONEST, At::CodeExchange), 0);

    // A document under the honest server's own name, with the token endpoint somewhere else, is that server's word; one
    // under another name is not.
    let mut world = World::new().await;
    let (issuer, endpoint) = (world.origins.second.clone(), format!("{}/token", world.origins.elsewhere));
    world.change(HONEST, At::ServerMetadata, move |_, honest| {
        honest.member("issuer", issuer.clone()).member("token_endpoint", endpoint.clone())
    });
    assert_eq!(world.error().await, PeerMisbehaved::IssuerMismatch { relaxation: None }.into());
    assert!(!world.was_reached(ELSEWHERE) && world.opened().is_empty());
}

fn pre_registered(origins: &Origins, setup: &mut Setup, resource: &str) {
    let (issuer, redirect_uri) = (origins.honest.as_str(), origins.redirect_uri.as_str());
    let identity = PreRegistered::new(
        Issuer::new(issuer).unwrap(),
        ClientId::new("honest-client").unwrap(),
        RedirectUri::new(redirect_uri).unwrap(),
        [ResourceId::new(resource).unwrap()],
    );
    setup.pre_registered.push(identity);
}

// D36, I-L13: the resource is hostile, and the authorization server it names is the honest one of another resource.
#[tokio::test]
async fn an_identity_for_another_resource_is_used_at_the_hosts_word_only() {
    let mut world =
        World::with(|origins, setup| pre_registered(origins, setup, &format!("{}/mcp", origins.notes))).await;
    assert_eq!(world.call().await.unwrap(), 200, "for its own resource");
    assert_eq!(world.reached(HONEST, At::Registration), 0);

    let mut world =
        World::with(|origins, setup| pre_registered(origins, setup, "https://api.example/")).await;
    let error = world.error().await;
    assert_eq!(error, HostMisuse::IssuerNotAsserted.into());
    assert_eq!(error.remedy(), Remedy::FixConfiguration);
    assert!(!world.was_reached(HONEST) && world.opened().is_empty(), "{:?}", world.places());

    // Another resource's word does not count, the right one does, and the request says whose token it is to be.
    for (right, resource) in [(false, "https://api.example/"), (true, "")] {
        let mut world = World::with(|origins, setup| {
            pre_registered(origins, setup, "https://api.example/");
            let (here, issuer) =
                (format!("{}/mcp", origins.notes), Issuer::new(origins.honest.as_str()).unwrap());
            let resource = ResourceId::new(if right { here.as_str() } else { resource }).unwrap();
            setup.driver = Box::new(move |driver| {
                driver.choose_issuer(move |_| {
                    let word = IssuerForResource::assertion(resource.clone(), issuer.clone());
                    Some((issuer.clone(), Some(word)))
                })
            });
        })
        .await;
        if right {
            assert_eq!(world.call().await.unwrap(), 200);
            let resources = [At::Authorization, At::CodeExchange]
                .map(|at| world.seen_at(HONEST, at)[0].parameter("resource").unwrap());
            assert_eq!(resources, [world.server().as_str(), world.server().as_str()]);
        } else {
            assert_eq!(world.error().await, HostMisuse::IssuerNotAsserted.into());
            assert!(!world.was_reached(HONEST));
        }
    }
}

// D36: the authorization server lists its resources, and this is none of them.
#[tokio::test]
async fn a_server_that_does_not_know_the_resource_is_not_asked_for_its_tokens() {
    control().await;
    let mut world = World::new().await;
    world.change(HONEST, At::ServerMetadata, |_, honest| {
        honest.member("protected_resources", json!(["https://api.example/"]))
    });
    let error = world.error().await;
    assert_eq!(error, HostMisuse::IssuerNotAsserted.into());
    assert_eq!(world.places().last(), Some(&(HONEST, At::ServerMetadata)));
    assert!(world.opened().is_empty());
    let here = world.server().as_str().to_owned();
    world.change(HONEST, At::ServerMetadata, move |_, honest| {
        honest.member("protected_resources", json!([here]))
    });
    assert_eq!(world.call().await.unwrap(), 200);
}

// MCP-REG-051, MCP-REG-052, I-L3: `world` checks that nothing of the first is sent to the second.
#[tokio::test]
async fn a_resource_that_moves_takes_nothing_along() {
    control().await;
    for status_of_refresh in [200, 400, 503] {
        let mut world = World::new().await;
        assert_eq!(world.call().await.unwrap(), 200);
        world.names(&world.origins.second.clone());
        world.takes("second-access-");
        if status_of_refresh != 200 {
            world.change(HONEST, At::Refresh, move |_, mut honest| {
                honest.status = status_of_refresh;
                honest.body(r#"{"error":"invalid_grant"}"#)
            });
        }
        match world.call().await {
            Ok(status) => assert_eq!(status, 200),
            // The first server does not answer, so the session is kept.
            Err(_) => assert_eq!(status_of_refresh, 503),
        }
        let second: Vec<_> =
            world.places().into_iter().filter(|(server, _)| *server == SECOND).map(|(_, at)| at).collect();
        if status_of_refresh == 503 {
            assert!(second.is_empty());
            continue;
        }
        assert_eq!(second, [At::ServerMetadata, At::Registration, At::Authorization, At::CodeExchange]);
        let sent: Vec<_> = world
            .seen_at(NOTES, At::Mcp)
            .iter()
            .map(|it| it.header("authorization").map(str::to_owned))
            .collect();
        assert!(sent.last().unwrap().as_ref().unwrap().starts_with("Bearer second-access-"));
    }
}

// The metadata of the same issuer moves its token endpoint: the login that began goes to where it began.
#[tokio::test]
async fn endpoints_that_change_during_a_login_change_nothing_of_it() {
    let mut world = World::new().await;
    assert_eq!(world.call().await.unwrap(), 200);
    let elsewhere = format!("{}/token", world.origins.elsewhere);
    world.change(HONEST, At::ServerMetadata, move |_, honest| {
        honest.member("token_endpoint", elsewhere.clone())
    });
    world.takes("honest-access-3");
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(world.reached(HONEST, At::Refresh), 1);
    assert!(!world.was_reached(ELSEWHERE));
}
