//! What the core's strict client makes of what was observed: the same states as in a login, fed with the same answers.

use mcp_authz::client::{
    AwaitingResourceMetadata, AwaitingServerMetadata, ChoosingIssuer, Client, ResourceMetadataOutcome,
    ServerMetadataOutcome,
};
use mcp_authz::error::{Error, HostMisuse};
use mcp_authz::evidence::IssuerForResource;
use mcp_authz::identifier::{Issuer, ResourceId};
use mcp_authz::message::exchange::{Fetch, Reply};
use mcp_authz::message::server_metadata::ServerMetadata;
use mcp_authz::step::Step;

use super::observation::Observed;

/// Answers that were observed already, by URL.
pub(crate) trait Answers {
    /// What is at that URL.
    async fn at(&mut self, fetch: &Fetch) -> Observed;
}

/// How far the client came.
#[derive(Debug)]
pub(crate) struct Came {
    /// The authorization servers of the resource, and the resource as the metadata names it.
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) resource: ResourceId,
}

/// From the challenge to the authorization servers of the resource.
pub(crate) async fn resource(
    client: &Client,
    server: &ResourceId,
    challenge: &Reply,
    answers: &mut impl Answers,
) -> Result<Came, Error> {
    let choosing = find(client, server, challenge, answers).await?;
    Ok(Came {
        issuers: choosing.issuers().to_vec(),
        resource: choosing.resource_matched().resource().clone(),
    })
}

async fn find(
    client: &Client,
    server: &ResourceId,
    challenge: &Reply,
    answers: &mut impl Answers,
) -> Result<ChoosingIssuer, Error> {
    let mut step: Step<Fetch, AwaitingResourceMetadata> = client.challenged(server, challenge)?;
    loop {
        let (fetch, waiting) = step.into_parts();
        let reply = answers.at(&fetch).await.and_then(|answer| answer.whole());
        match waiting.receive(reply).map_err(|failed| failed.error)? {
            ResourceMetadataOutcome::Found(choosing) => return Ok(choosing),
            ResourceMetadataOutcome::Next(next) => step = next,
        }
    }
}

/// From the challenge to the metadata of one of them. A server that lists its resources without this one is asked all
/// the same: the person gave the URL of the resource.
pub(crate) async fn server(
    client: &Client,
    server: &ResourceId,
    challenge: &Reply,
    issuer: &Issuer,
    answers: &mut impl Answers,
) -> Result<ServerMetadata, Error> {
    match metadata(client, server, challenge, issuer, false, answers).await {
        Err(Error::Host(HostMisuse::IssuerNotAsserted)) => {
            metadata(client, server, challenge, issuer, true, answers).await
        }
        other => other,
    }
}

async fn metadata(
    client: &Client,
    server: &ResourceId,
    challenge: &Reply,
    issuer: &Issuer,
    asserted: bool,
    answers: &mut impl Answers,
) -> Result<ServerMetadata, Error> {
    let choosing = find(client, server, challenge, answers).await?;
    let resource = choosing.resource_matched().resource().clone();
    let word = asserted.then(|| IssuerForResource::assertion(resource, issuer.clone()));
    let mut step: Step<Fetch, AwaitingServerMetadata> =
        choosing.choose(issuer, word).map_err(|failed| failed.error)?;
    loop {
        let (fetch, waiting) = step.into_parts();
        let reply = answers.at(&fetch).await.and_then(|answer| answer.whole());
        match waiting.receive(reply).map_err(|failed| failed.error)? {
            ServerMetadataOutcome::Found(choosing) => return Ok(choosing.server_metadata().clone()),
            ServerMetadataOutcome::Next(next) => step = next,
        }
    }
}
