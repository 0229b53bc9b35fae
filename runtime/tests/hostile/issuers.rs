//! Two authorization servers, and a resource that names one that is not its own: mix-up (RFC 9207), counterfeit
//! resources (D36), and moving from one to the other (MCP-REG-051).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mcp_authz::client::{ChoosingIssuer, PreRegistered};
use mcp_authz::error::{HostMisuse, OutsideFailed, PeerIncompatible, PeerMisbehaved, Remedy};
use mcp_authz::identifier::{ClientId, ClientMetadataUrl, Issuer, RedirectUri, ResourceId};
use mcp_authz::syntax::form;
use mcp_authz_tokio::BoxFuture;
use mcp_authz_tokio::client::connection::{Connection, SendError};
use mcp_authz_tokio::client::driver::{DriverBuilder, LoginError};
use mcp_authz_tokio::client::pairing::{HostsWord, OnlyIssuer, OwnOrigin, Pairing};
use serde_json::{Value, json};

use crate::server::{Answer, Request};
use crate::world::{At, DOCUMENT, ELSEWHERE, HONEST, NOTES, Origins, SECOND, Setup, World, control};

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
    let own = |setup: &mut Setup| setup.driver = Box::new(silent);
    let mut world = World::with(|origins, setup| {
        own(setup);
        pre_registered(origins, setup, &format!("{}/mcp", origins.notes));
    })
    .await;
    assert_eq!(world.call().await.unwrap(), 200, "for its own resource nobody is asked");
    assert_eq!(world.reached(HONEST, At::Registration), 0);

    let mut world = World::with(|origins, setup| {
        own(setup);
        pre_registered(origins, setup, "https://api.example/");
    })
    .await;
    refused(&mut world).await;

    // At the host's word the request says whose token it is to be.
    let mut world = World::with(|origins, setup| {
        pre_registered(origins, setup, "https://api.example/");
        let issuer = Issuer::new(origins.honest.as_str()).unwrap();
        setup.driver = Box::new(|driver| driver.pairing(OnlyIssuer(issuer)));
    })
    .await;
    assert_eq!(world.call().await.unwrap(), 200);
    let resources =
        [At::Authorization, At::CodeExchange].map(|at| world.seen_at(HONEST, at)[0].parameter("resource"));
    assert_eq!(resources, [Some(world.server().to_string()), Some(world.server().to_string())]);
}

/// A driver whose host says nothing.
fn silent(driver: DriverBuilder) -> DriverBuilder {
    driver.pairing(Says(|_: &ChoosingIssuer| HostsWord::None))
}

/// A host that says what the function does.
struct Says<F>(F);

impl<F: Fn(&ChoosingIssuer) -> HostsWord + Send + Sync + 'static> Pairing for Says<F> {
    fn pair<'a>(&'a self, choosing: &'a ChoosingIssuer) -> BoxFuture<'a, HostsWord> {
        Box::pin(std::future::ready(self.0(choosing)))
    }
}

/// The resource's authorization server is not asked for anything, and the person for nothing.
async fn refused(world: &mut World) {
    let error = world.error().await;
    assert_eq!(error, HostMisuse::IssuerNotAsserted.into());
    assert_eq!(error.remedy(), Remedy::Vouch);
    assert!(!world.was_reached(HONEST) && world.opened().is_empty(), "{:?}", world.places());
}

// D36, I-L13: a client that registers itself.
#[tokio::test]
async fn a_fresh_registration_is_made_at_the_hosts_word_only() {
    control().await;
    let mut world = World::with(|_, setup| setup.driver = Box::new(silent)).await;
    refused(&mut world).await;
    // A driver that was told nothing is as one that says nothing.
    let mut world = World::untold().await;
    refused(&mut world).await;
}

// D36, I-L13: the registration was made for the honest resource, and is kept.
#[tokio::test]
async fn a_kept_registration_is_used_for_another_resource_at_the_hosts_word_only() {
    let hostile =
        |world: &World| Connection::new(world.driver.clone(), format!("{}/other", world.origins.notes));
    let honest = |choosing: &ChoosingIssuer| choosing.resource_matched().resource().path() == "/mcp";
    for (named, status) in [(false, None), (true, Some(200))] {
        let mut world = World::with(|_, setup| {
            setup.driver = Box::new(move |driver| {
                driver.pairing(Says(move |choosing: &ChoosingIssuer| match choosing.issuers() {
                    [issuer] if named || honest(choosing) => HostsWord::For(issuer.clone()),
                    _ => HostsWord::None,
                }))
            });
        })
        .await;
        assert_eq!(world.call().await.unwrap(), 200);
        let before = world.places().len();
        world.connection = hostile(&world).unwrap();
        match status {
            Some(status) => {
                assert_eq!(world.call().await.unwrap(), status);
                assert_eq!(world.reached(HONEST, At::Registration), 1, "the kept one");
            }
            None => {
                assert_eq!(world.error().await, HostMisuse::IssuerNotAsserted.into());
                let after = &world.places()[before..];
                assert!(after.iter().all(|(server, _)| *server == NOTES), "{after:?}");
                assert_eq!(world.opened().len(), 1);
            }
        }
    }
}

// D36, I-L13: a client that is known by its metadata document at every server that reads such documents.
#[tokio::test]
async fn a_metadata_document_is_shown_at_the_hosts_word_only() {
    let document = |setup: &mut Setup| {
        let url = ClientMetadataUrl::new(DOCUMENT).unwrap();
        setup.metadata_document = Some(url);
    };
    let reads = |world: &World| {
        world.change(HONEST, At::ServerMetadata, |_, honest| {
            honest.member("client_id_metadata_document_supported", json!(true))
        });
    };
    let mut world = World::with(|_, setup| document(setup)).await;
    reads(&world);
    assert_eq!(world.call().await.unwrap(), 200);
    assert_eq!(world.reached(HONEST, At::Registration), 0);
    let asked = world.seen_at(HONEST, At::Authorization)[0].parameter("client_id");
    assert_eq!(asked.as_deref(), Some(DOCUMENT));

    let mut world = World::with(|_, setup| {
        document(setup);
        setup.driver = Box::new(silent);
    })
    .await;
    reads(&world);
    refused(&mut world).await;
}

// D36: the word once given is kept with the tokens, and forgotten with them at a logout.
#[tokio::test]
async fn the_word_is_asked_for_once_until_somebody_logs_out() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let mut world = World::with(|_, setup| {
        setup.driver = Box::new(|driver| {
            driver.pairing(Says(move |choosing: &ChoosingIssuer| {
                counter.fetch_add(1, Ordering::SeqCst);
                HostsWord::For(choosing.issuers()[0].clone())
            }))
        });
    })
    .await;
    // No token came of this, so nothing is remembered.
    world.instead(HONEST, At::CodeExchange, |_| Answer::document(400, &json!({"error": "invalid_grant"})));
    world.error().await;
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(world.driver.store().pairings(&world.server()).await.unwrap().is_empty());
    world.mend(HONEST, At::CodeExchange);
    drop(world.session().await);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let session = world.session().await;
    assert_eq!(asked.load(Ordering::SeqCst), 2, "a second login does not ask");
    let _ = world.driver.logout(session).await.unwrap();
    drop(world.session().await);
    assert_eq!(asked.load(Ordering::SeqCst), 3, "after a logout it does");
    // A host that knows better asks nobody, and takes no other.
    let other = Issuer::new(world.origins.second.as_str()).unwrap();
    assert!(!OnlyIssuer(other).stands(&world.server(), &world.issuer()));
}

// D36: what the host does not want, and what it wants and the resource does not name.
#[tokio::test]
async fn a_host_takes_its_own_issuer_or_none() {
    let mut world = World::with(|_, setup| {
        setup.driver = Box::new(|driver| driver.pairing(Says(|_: &ChoosingIssuer| HostsWord::Refused)));
    })
    .await;
    let refused = world.call().await.unwrap_err();
    assert!(matches!(refused, SendError::Login(LoginError::NoIssuer)), "{refused}");
    let mut world = World::with(|origins, setup| {
        let second = Issuer::new(origins.second.as_str()).unwrap();
        setup.driver = Box::new(|driver| driver.pairing(OnlyIssuer(second)));
    })
    .await;
    assert_eq!(world.error().await, HostMisuse::IssuerNotListed.into());
    assert!(!world.was_reached(HONEST) && !world.was_reached(SECOND));
    // The two of this world are on different ports, which are different origins.
    let mut world = World::with(|_, setup| setup.driver = Box::new(|driver| driver.pairing(OwnOrigin))).await;
    self::refused(&mut world).await;
    world.names(&world.origins.notes.clone());
    let metadata = PeerIncompatible::NoServerMetadata { relaxation: None };
    assert_eq!(world.error().await, metadata.into(), "on its own origin it is looked for");
}

// D36: the authorization server lists its resources, and this is none of them.
#[tokio::test]
async fn a_server_that_does_not_know_the_resource_is_not_asked_for_its_tokens() {
    control().await;
    let lists = |world: &World, resource: String| {
        world.change(HONEST, At::ServerMetadata, move |_, honest| {
            honest.member("protected_resources", json!([resource.clone()]))
        });
    };
    let by_hand = |origins: &Origins, setup: &mut Setup| {
        pre_registered(origins, setup, &format!("{}/mcp", origins.notes));
    };
    let mut world = World::with(|origins, setup| {
        setup.driver = Box::new(silent);
        by_hand(origins, setup);
    })
    .await;
    lists(&world, "https://api.example/".to_owned());
    assert_eq!(world.error().await, HostMisuse::IssuerNotAsserted.into());
    assert_eq!(world.places().last(), Some(&(HONEST, At::ServerMetadata)));
    assert!(world.opened().is_empty());
    lists(&world, world.server().as_str().to_owned());
    assert_eq!(world.call().await.unwrap(), 200);
    // A host that has a word for it is asked then.
    let mut world = World::with(by_hand).await;
    lists(&world, "https://api.example/".to_owned());
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
