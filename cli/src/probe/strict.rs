//! What the core's strict client makes of what was observed: the same states as in a login, fed with the same answers.

use std::collections::BTreeMap;

use mcp_authz::client::{ChoosingIssuer, Client, ResourceMetadataOutcome, ServerMetadataOutcome};
use mcp_authz::error::Error;
use mcp_authz::evidence::IssuerForResource;
use mcp_authz::identifier::{Issuer, ResourceId};
use mcp_authz::message::exchange::{Fetch, FetchFailure, Reply};
use mcp_authz::message::server_metadata::ServerMetadata;

use super::observation::{Answer, Observed};

/// What is at each URL.
type Documents = BTreeMap<String, Observed>;

/// How far the client came.
#[derive(Debug)]
pub(crate) struct Came {
    /// The authorization servers of the resource.
    pub(crate) issuers: Vec<Issuer>,
    /// The resource as its metadata names it.
    pub(crate) resource: ResourceId,
}

/// From the challenge to the authorization servers of the resource.
pub(crate) fn resource(
    client: &Client,
    server: &ResourceId,
    challenge: &Reply,
    documents: &Documents,
) -> Result<Came, Error> {
    let choosing = find(client, server, challenge, documents)?;
    let resource = choosing.resource_matched().resource().clone();
    Ok(Came { issuers: choosing.issuers().to_vec(), resource })
}

/// From the challenge to the metadata of one of them. The prober gives the word for every pair (D36): it reads documents
/// that anybody may read, and never logs in.
pub(crate) fn server(
    client: &Client,
    server: &ResourceId,
    challenge: &Reply,
    issuer: &Issuer,
    documents: &Documents,
) -> Result<ServerMetadata, Error> {
    metadata(find(client, server, challenge, documents)?, issuer, documents)
}

fn reply(documents: &Documents, fetch: &Fetch) -> Result<Reply, FetchFailure> {
    let observed = documents.get(fetch.url()).cloned();
    observed.unwrap_or(Err(FetchFailure::NotSent)).and_then(Answer::whole)
}

fn find(
    client: &Client,
    server: &ResourceId,
    challenge: &Reply,
    documents: &Documents,
) -> Result<ChoosingIssuer, Error> {
    let mut step = client.challenged(server, challenge)?;
    loop {
        let (fetch, waiting) = step.into_parts();
        match waiting.receive(reply(documents, &fetch)).map_err(|failed| failed.error)? {
            ResourceMetadataOutcome::Found(choosing) => return Ok(choosing),
            ResourceMetadataOutcome::Next(next) => step = next,
        }
    }
}

fn metadata(
    choosing: ChoosingIssuer,
    issuer: &Issuer,
    documents: &Documents,
) -> Result<ServerMetadata, Error> {
    let resource = choosing.resource_matched().resource().clone();
    let word = IssuerForResource::assertion(resource, issuer.clone());
    let mut step = choosing.choose(issuer, Some(word)).map_err(|failed| failed.error)?;
    loop {
        let (fetch, waiting) = step.into_parts();
        match waiting.receive(reply(documents, &fetch)).map_err(|failed| failed.error)? {
            ServerMetadataOutcome::Found(choosing) => return Ok(choosing.server_metadata().clone()),
            ServerMetadataOutcome::Next(next) => step = next,
        }
    }
}
