//! Clients: never overwritten by strangers, always by the operator.

use std::future::Future;
use std::sync::Arc;

use mcp_authz::authorization_server::record::{ClientOrigin, ClientRecord};
use mcp_authz::authorization_server::test_kit as core;
use mcp_authz::secret::AgentBinding;
use mcp_authz::time::Duration;

use super::{Checked, KitError, Path, SUBJECT, client, clock, count, holds, race, random_digest, register};
use crate::entropy::OsEntropy;
use crate::store::Store;

pub(super) async fn run<S, F>(make: &impl Fn() -> F) -> Checked
where
    S: Store,
    F: Future<Output = S>,
{
    registration_never_overwrites(make().await).await?;
    a_metadata_document_replaces_only_its_like(make().await).await?;
    the_operator_overwrites(make().await).await?;
    a_decision_is_found_with_its_client_of_today(make().await).await
}

// I-R1: what a client withdrew while a page was shown counts when the page is answered.
async fn a_decision_is_found_with_its_client_of_today<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    register(&store, "another", now).await?;
    let path = Path::fresh("c1", now)?;
    path.ask(&store).await?;
    let found = async || -> Result<Option<Vec<u8>>, KitError> {
        let found = store.read_decision(core::read_decision(path.decision)).await?;
        Ok(core::client_of_decision(&found).map(ClientRecord::to_bytes))
    };
    holds("a decision is found without a client where there is none", found().await?.is_none())?;
    let mut record = core::sample_client("c1", now)?;
    for name in ["Before", "After"] {
        record.metadata.client_name = Some(name.to_owned());
        store.put_client(record.clone()).await?;
        let is_todays = found().await? == Some(record.to_bytes());
        holds("a decision is found with its client as it is", is_todays)?;
    }
    let delete = core::delete_client(&record, &mut OsEntropy)?;
    let _deleted = store.delete_client(delete).await?;
    holds("a decision is found without a client that was deleted", found().await?.is_none())
}

// I-P5
async fn registration_never_overwrites<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    let now = clock(&store).await?;
    let first = core::sample_client("c1", now)?;
    let won = race(&store, |store| {
        let record = first.clone();
        async move {
            let insert = core::insert_client(record, &mut OsEntropy)?;
            Ok(core::client_inserted(&store.insert_client(insert).await?))
        }
    })
    .await?;
    holds("of a race to register one identifier, exactly one is inserted", count(&won, &true) == 1)?;
    let mut second = first.clone();
    second.metadata.client_name = Some("Other".to_owned());
    second.origin = ClientOrigin::MetadataDocument;
    let insert = core::insert_client(second, &mut OsEntropy)?;
    let receipt = store.insert_client(insert).await?;
    holds("a taken identifier is reported as taken", !core::client_inserted(&receipt))?;
    let found = client(&store, "c1").await?.0;
    holds("a client is found as it was stored", found.map(|r| r.to_bytes()) == Some(first.to_bytes()))?;
    holds("an unknown client is absent", client(&store, "c2").await?.0.is_none())
}

async fn a_metadata_document_replaces_only_its_like<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    let mut document = core::sample_client("https://client.example/id", now)?;
    document.origin = ClientOrigin::MetadataDocument;
    let id = document.client_id.as_str().to_owned();
    let mut newer = document.clone();
    newer.created = now.saturating_add(Duration::seconds(5));
    newer.metadata.client_name = Some("Newer".to_owned());
    for (offered, kept) in [(&document, &document), (&newer, &newer), (&document, &newer)] {
        let record = core::sample_decision(&id, SUBJECT, AgentBinding::this_process(), now)?;
        let insert = core::insert_decision(random_digest()?, record, Some(offered.clone()), &mut OsEntropy)?;
        let _stored = store.insert_decision(insert).await?;
        let found = client(&store, &id).await?.0.map(|record| record.to_bytes());
        holds("a metadata document is kept until a newer one comes", found == Some(kept.to_bytes()))?;
    }
    let registered = core::sample_client("c1", now)?;
    let _inserted = store.insert_client(core::insert_client(registered.clone(), &mut OsEntropy)?).await?;
    let mut document = registered.clone();
    document.origin = ClientOrigin::MetadataDocument;
    document.created = newer.created;
    let record = core::sample_decision("c1", SUBJECT, AgentBinding::this_process(), now)?;
    let insert = core::insert_decision(random_digest()?, record, Some(document), &mut OsEntropy)?;
    let _stored = store.insert_decision(insert).await?;
    let found = client(&store, "c1").await?.0.map(|record| record.to_bytes());
    holds("a registered client is not replaced by a document", found == Some(registered.to_bytes()))
}

async fn the_operator_overwrites<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    register(&store, "c1", now).await?;
    let mut record = core::sample_client("c1", now)?;
    record.origin = ClientOrigin::PreRegistered;
    record.metadata.client_name = Some("Configured".to_owned());
    store.put_client(record.clone()).await?;
    let found = client(&store, "c1").await?.0.map(|record| record.to_bytes());
    holds("the operator's record replaces what is there", found == Some(record.to_bytes()))?;
    holds("and is not overwritten by a registration", !register(&store, "c1", now).await?)?;
    let found = client(&store, "c1").await?.0.map(|record| record.to_bytes());
    holds("nor changed by it", found == Some(record.to_bytes()))
}
