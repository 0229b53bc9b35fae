//! A redirect at every step: none is followed, with or without what the request held (D8, MCP-SBP-024, I-L7).

use mcp_authz::error::{Error, PeerIncompatible, PeerMisbehaved, Remedy};
use mcp_authz_tokio::client::driver::Refreshed;

use serde_json::json;

use crate::server::Answer;
use crate::world::{At, ELSEWHERE, HONEST, NOTES, World, control, core, stops_at};

const STATUSES: [u16; 6] = [300, 301, 302, 303, 307, 308];

/// Sends whoever comes there to another origin, keeping the path, with the honest answer as the body.
async fn redirecting(server: &'static str, at: At, status: u16) -> World {
    let world = World::new().await;
    redirect(&world, server, at, status);
    world
}

fn redirect(world: &World, server: &'static str, at: At, status: u16) {
    let elsewhere = world.origins.elsewhere.clone();
    if at == At::Refresh {
        // What the redirect says is not taken for an answer either, and the refresh token is still good.
        return world.instead(server, at, move |request| {
            let tokens = json!({"access_token": "honest-access-9", "token_type": "Bearer"});
            Answer::document(status, &tokens).with("location", format!("{elsewhere}{}", request.target))
        });
    }
    world.change(server, at, move |request, mut honest| {
        honest.status = status;
        honest.with("location", format!("{elsewhere}{}", request.target))
    });
}

#[tokio::test]
async fn a_reply_of_the_mcp_server_is_handed_back() {
    control().await;
    for status in STATUSES {
        let mut world = redirecting(NOTES, At::Mcp, status).await;
        assert_eq!(world.call().await.unwrap(), status);
        assert_eq!(world.places(), [(NOTES, At::Mcp)]);
        // With a token as well.
        world.mend(NOTES, At::Mcp);
        assert_eq!(world.call().await.unwrap(), 200);
        redirect(&world, NOTES, At::Mcp, status);
        assert_eq!(world.call().await.unwrap(), status);
        assert!(!world.was_reached(ELSEWHERE));
    }
}

#[tokio::test]
async fn a_metadata_document_is_where_it_is_looked_for_or_not_there() {
    for status in STATUSES {
        let mut world = redirecting(NOTES, At::ResourceMetadata, status).await;
        let error = world.error().await;
        assert_eq!(error, PeerMisbehaved::NoMetadataWhereSaid.into());
        assert_eq!(error.remedy(), Remedy::Refused);
        stops_at(&world, At::ResourceMetadata);

        let mut world = redirecting(HONEST, At::ServerMetadata, status).await;
        let error = world.error().await;
        assert_eq!(error, PeerIncompatible::NoServerMetadata { relaxation: None }.into());
        assert_eq!(error.remedy(), Remedy::Refused);
        assert!(!world.was_reached(ELSEWHERE) && world.opened().is_empty());
    }
}

#[tokio::test]
async fn a_registration_and_a_code_go_to_their_endpoint_and_no_further() {
    for status in STATUSES {
        for (at, document) in
            [(At::Registration, "registration response"), (At::CodeExchange, "token response")]
        {
            let mut world = redirecting(HONEST, at, status).await;
            let error = world.error().await;
            assert!(
                matches!(&error, Error::Peer(PeerMisbehaved::Malformed { document: said, .. }) if *said == document),
                "{at:?} {status}: {error:?}"
            );
            assert_eq!(error.remedy(), Remedy::Refused);
            stops_at(&world, at);
            world.mend(HONEST, at);
            assert_eq!(world.call().await.unwrap(), 200, "another login goes on");
        }
    }
}

#[tokio::test]
async fn a_refresh_token_goes_to_its_endpoint_and_the_session_is_kept() {
    for status in STATUSES {
        let mut world = redirecting(HONEST, At::Refresh, status).await;
        assert_eq!(world.call().await.unwrap(), 200);
        world.takes("honest-access-3");
        let error = core(world.call().await.unwrap_err());
        assert!(
            matches!(&error, Error::Peer(PeerMisbehaved::Malformed { document: "token response", .. })),
            "{status}: {error:?}"
        );
        stops_at(&world, At::Refresh);
        world.mend(HONEST, At::Refresh);
        assert_eq!(world.call().await.unwrap(), 200, "with the same refresh token");
        let sent: Vec<_> = world
            .seen_at(HONEST, At::Refresh)
            .iter()
            .map(|it| it.parameter("refresh_token").unwrap())
            .collect();
        assert_eq!(sent[0], sent[1]);
        assert_eq!(world.reached(HONEST, At::Authorization), 1);
    }
}

#[tokio::test]
async fn a_token_to_revoke_goes_to_its_endpoint() {
    for status in STATUSES {
        let world = redirecting(HONEST, At::Revocation, status).await;
        let session = world.session().await;
        let failed = world.driver.revoke(session).await.unwrap_err();
        assert!(matches!(failed.error, Error::Incompatible(PeerIncompatible::RevocationRefused(_))));
        stops_at(&world, At::Revocation);
        world.mend(HONEST, At::Revocation);
        assert!(world.driver.revoke(failed.state).await.is_ok());
    }
}

// The session the refresh of which was sent elsewhere is still one.
#[tokio::test]
async fn a_refresh_that_is_redirected_gives_the_session_back() {
    let world = redirecting(HONEST, At::Refresh, 307).await;
    let session = world.session().await;
    let Refreshed::Kept(failed) = world.driver.refresh(session).await else { panic!("not kept") };
    world.mend(HONEST, At::Refresh);
    assert!(matches!(world.driver.refresh(failed.state).await, Refreshed::Renewed(_)));
}
