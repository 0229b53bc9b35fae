//! The contract of what operators and the rotation of signing keys need.

use std::sync::Arc;

use mcp_authz::authorization_server::record::{ClientOrigin, ConsentRecord, FamilyId, GrantRecord};
use mcp_authz::authorization_server::test_kit::{self as core, Decided, Seen};
use mcp_authz::identifier::ClientId;
use mcp_authz::time::Duration;

use super::{
    Checked, KitError, Path, SUBJECT, client, clock, code, count, decision, holds, race, random_digest,
    refresh, register,
};
use crate::entropy::OsEntropy;
use crate::store::{AdministeredStore, GrantsOf, KeyRow, KeyState, LISTED, ReadSession};

pub(super) async fn run<S, F>(make: &impl Fn() -> F) -> Checked
where
    S: AdministeredStore,
    F: Future<Output = S>,
{
    grants_that_stand_are_listed(make().await).await?;
    lists_go_on_where_they_ended(make().await).await?;
    what_is_remembered_is_listed_while_it_stands(make().await).await?;
    a_removed_client_takes_its_grants_with_it(make().await).await?;
    one_key_waits_and_one_signs(make().await).await?;
    an_incarnation_only_grows(make().await).await?;
    a_restoration_ends_everything(make().await).await
}

async fn listed(store: &impl AdministeredStore, of: GrantsOf<'_>) -> Result<Vec<FamilyId>, KitError> {
    Ok(store.list_grants(of, None).await?.iter().map(|grant| grant.family).collect())
}

async fn grants_that_stand_are_listed<S: AdministeredStore>(store: S) -> Checked {
    let now = clock(&store).await?;
    let (pending, one, two) = (Path::fresh("c1", now)?, Path::fresh("c1", now)?, Path::fresh("c2", now)?);
    pending.ask_and_approve(&store).await?;
    for path in [&one, &two] {
        path.up_to_refresh(&store).await?;
    }
    let (c1, c2) = (ClientId::new("c1")?, ClientId::new("c2")?);
    let mut both = vec![one.grant.family, two.grant.family];
    both.sort_unstable();
    holds("a person's grants are listed", listed(&store, GrantsOf::Subject("ada")).await? == both)?;
    holds("and nobody else's", listed(&store, GrantsOf::Subject("ad")).await?.is_empty())?;
    holds("everybody's too", listed(&store, GrantsOf::All).await? == both)?;
    holds("a client's are listed", listed(&store, GrantsOf::Client(&c1)).await? == [one.grant.family])?;
    one.revoke(&store).await?;
    holds("a revoked one is not", listed(&store, GrantsOf::Client(&c1)).await?.is_empty())?;
    two.withdraw(&store).await?;
    holds("nor a withdrawn one", listed(&store, GrantsOf::Client(&c2)).await?.is_empty())
}

async fn lists_go_on_where_they_ended<S: AdministeredStore>(store: S) -> Checked {
    let now = clock(&store).await?;
    let total = LISTED.saturating_add(3);
    for number in 0..total {
        register(&store, &format!("client-{number:04}"), now).await?;
        Path::fresh("c1", now)?.up_to_refresh(&store).await?;
    }
    let (mut seen, mut after) = (0_usize, None);
    loop {
        let page: Vec<GrantRecord> = store.list_grants(GrantsOf::Subject("ada"), after).await?;
        holds("a page is bounded", page.len() <= LISTED)?;
        let Some(last) = page.last() else { break };
        holds("and goes on", after.is_none_or(|after| page.iter().all(|grant| grant.family > after)))?;
        seen = seen.saturating_add(page.len());
        after = Some(last.family);
    }
    holds("every grant is on one page", seen == total)?;
    let (mut seen, mut after) = (0_usize, None);
    loop {
        let page = store.list_clients(after.as_ref()).await?;
        let Some(last) = page.last() else { break };
        seen = seen.saturating_add(page.len());
        after = Some(last.client_id.clone());
    }
    holds("every client too", seen == total)
}

// I-P2
async fn what_is_remembered_is_listed_while_it_stands<S: AdministeredStore>(store: S) -> Checked {
    let now = clock(&store).await?;
    let remember = async |client: &str, age: Duration| -> Result<(Path, ConsentRecord), KitError> {
        let path = Path::fresh(client, now)?;
        let mut record = core::sample_consent(&path.grant)?;
        record.not_after = record.not_after.saturating_sub(age);
        path.ask(&store).await?;
        let code = Some((path.code, core::sample_code(path.grant.clone())?));
        let decide = core::decide_and_remember(
            path.decision,
            path.agent,
            SUBJECT,
            code,
            Some(record.clone()),
            &mut OsEntropy,
        )?;
        holds("it is stored", core::decided(&store.decide_once(decide).await?) == Decided::Stored)?;
        Ok((path, record))
    };
    let total = LISTED.saturating_add(3);
    let mut expected = Vec::new();
    for number in 0..total {
        expected.push(remember(&format!("client-{number:04}"), Duration::ZERO).await?.1);
    }
    let (withdrawn, _) = remember("withdrawn", Duration::ZERO).await?;
    withdrawn.withdraw(&store).await?;
    remember("ended", Duration::days(10_000)).await?;
    expected.sort_unstable_by_key(|record| *record.key().as_bytes());
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = store.list_consents(GrantsOf::Subject(SUBJECT), after).await?;
        holds("a page is bounded", page.len() <= LISTED)?;
        let Some(last) = page.last() else { break };
        after = Some(last.key());
        listed.extend(page.iter().map(ConsentRecord::to_bytes));
    }
    let expected: Vec<_> = expected.iter().map(ConsentRecord::to_bytes).collect();
    holds("what stands is listed, in order, and nothing else", listed == expected)?;
    holds("and nobody else's", store.list_consents(GrantsOf::Subject("ad"), None).await?.is_empty())?;
    for (of, how_many) in [
        (GrantsOf::All, LISTED),
        (GrantsOf::Client(&ClientId::new("client-0001")?), 1),
        (GrantsOf::Client(&ClientId::new("withdrawn")?), 0),
        (GrantsOf::Client(&ClientId::new("ended")?), 0),
    ] {
        let page = store.list_consents(of, None).await?;
        holds("a client's and everybody's are listed too", page.len() == how_many)?;
    }
    Ok(())
}

async fn a_removed_client_takes_its_grants_with_it<S: AdministeredStore>(store: S) -> Checked {
    let now = clock(&store).await?;
    register(&store, "c1", now).await?;
    let path = Path::fresh("c1", now)?;
    path.up_to_refresh(&store).await?;
    let id = ClientId::new("c1")?;
    holds("a client is removed", store.remove_client(&id).await?)?;
    holds("and gone", client(&store, "c1").await?.0.is_none())?;
    holds("its tokens with it", refresh(&store, path.refresh).await? == Seen::Absent)?;
    holds("there is none to remove again", !store.remove_client(&id).await?)
}

fn key(kid: &str) -> KeyRow {
    KeyRow {
        kid: kid.to_owned(),
        algorithm: "EdDSA".to_owned(),
        state: KeyState::Retired,
        public_jwk: b"{}".to_vec(),
        sealed: vec![1, 2, 3],
        since: mcp_authz::time::OffsetDateTime::UNIX_EPOCH,
    }
}

// D43
async fn one_key_waits_and_one_signs<S: AdministeredStore>(store: S) -> Checked {
    let store = Arc::new(store);
    let states = async || -> Result<Vec<(String, KeyState)>, KitError> {
        let mut rows: Vec<_> = store.keys().await?.0.into_iter().map(|row| (row.kid, row.state)).collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(rows)
    };
    let row = |kid: &str, state| (kid.to_owned(), state);
    let won = race(&store, |store| async move { Ok(store.publish_key(key("a")).await?) }).await?;
    holds("of a race to publish, exactly one wins", count(&won, &true) == 1)?;
    holds("a key is published first, whatever it says", states().await? == [row("a", KeyState::Published)])?;
    let (rows, now) = store.keys().await?;
    let found = rows.first().ok_or(KitError::Broken("a key is stored"))?;
    holds(
        "with its parts",
        found.sealed == [1, 2, 3] && found.public_jwk == b"{}" && found.algorithm == "EdDSA",
    )?;
    let since = found.since;
    let recent = since <= now && now < since.saturating_add(mcp_authz::time::Duration::MINUTE);
    holds("and the store's time", recent)?;
    holds("only one key waits", !store.publish_key(key("b")).await?)?;
    holds("a key that waits is not forgotten", !store.forget_key("a").await?)?;
    let won = race(&store, |store| async move { Ok(store.promote_key("a").await?) }).await?;
    holds("of a race to promote, exactly one wins", count(&won, &true) == 1)?;
    holds("it signs", states().await? == [row("a", KeyState::Signing)])?;
    holds("a key is published once", !store.publish_key(key("a")).await?)?;
    holds("the next one may wait", store.publish_key(key("b")).await?)?;
    holds("a key that is not there does not sign", !store.promote_key("c").await?)?;
    holds(
        "and retires none",
        states().await? == [row("a", KeyState::Signing), row("b", KeyState::Published)],
    )?;
    holds("the next one signs", store.promote_key("b").await?)?;
    holds(
        "and retires the first",
        states().await? == [row("a", KeyState::Retired), row("b", KeyState::Signing)],
    )?;
    holds("a retired key does not sign again", !store.promote_key("a").await?)?;
    holds("a key that signs is not forgotten", !store.forget_key("b").await?)?;
    holds("a retired one is", store.forget_key("a").await?)?;
    holds("and gone", states().await? == [row("b", KeyState::Signing)])?;
    // After a leak: no key of before is left, whether it signed or had signed.
    holds("a third waits", store.publish_key(key("c")).await? && store.promote_key("c").await?)?;
    holds("and a fourth", store.publish_key(key("d")).await?)?;
    for other in ["b", "c", "x"] {
        holds("what does not wait replaces nothing", !store.replace_keys(other).await?)?;
    }
    holds("nothing is gone", states().await?.len() == 3)?;
    let won = race(&store, |store| async move { Ok(store.replace_keys("d").await?) }).await?;
    holds("of a race to replace, exactly one wins", count(&won, &true) == 1)?;
    holds("only the new one is left, and signs", states().await? == [row("d", KeyState::Signing)])
}

async fn an_incarnation_only_grows<S: AdministeredStore>(store: S) -> Checked {
    let store = Arc::new(store);
    holds("a fresh store begins at 0", store.incarnation().await? == 0)?;
    let mut numbers = race(&store, |store| async move { Ok(store.advance_incarnation().await?) }).await?;
    numbers.sort_unstable();
    let distinct = numbers.iter().zip(1..).all(|(number, expected)| *number == expected);
    holds("each advance gives a number of its own", distinct)?;
    holds("and the store has the last", numbers.last() == Some(&store.incarnation().await?))
}

// I-G14
async fn a_restoration_ends_everything<S: AdministeredStore>(store: S) -> Checked {
    let now = clock(&store).await?;
    register(&store, "c1", now).await?;
    let mut document = core::sample_client("https://client.example/id", now)?;
    document.origin = ClientOrigin::MetadataDocument;
    let shown =
        core::sample_decision("https://client.example/id", SUBJECT, Path::fresh("c1", now)?.agent, now)?;
    let insert = core::insert_decision(random_digest()?, shown, Some(document), &mut OsEntropy)?;
    let _inserted = store.insert_decision(insert).await?;
    let mut operator = core::sample_client("operator", now)?;
    operator.origin = ClientOrigin::PreRegistered;
    store.put_client(operator).await?;
    store.publish_key(key("a")).await?;
    store.promote_key("a").await?;
    store.publish_key(key("b")).await?;
    let (asked, approved, live) = (Path::fresh("c1", now)?, Path::fresh("c1", now)?, Path::fresh("c1", now)?);
    asked.ask(&store).await?;
    approved.ask_and_approve(&store).await?;
    live.up_to_refresh(&store).await?;
    let signed_in = store.read_session(ReadSession::of(SUBJECT)).await?.epoch;
    holds("the number passes what was seen", store.restored(41).await? == 42)?;
    let found = store.read_session(ReadSession::of(SUBJECT)).await?;
    holds("no session of before stands, whatever has ended since", !found.stands(signed_in))?;
    holds("and those of later do", found.stands(found.epoch))?;
    holds("and is stored", store.incarnation().await? == 42)?;
    holds("nothing is pending", decision(&store, &asked).await?.is_none())?;
    holds("no code is left", code(&store, &approved).await? == Seen::Absent)?;
    holds("nor a token", refresh(&store, live.refresh).await? == Seen::Absent)?;
    holds("nor a grant", listed(&store, GrantsOf::All).await?.is_empty())?;
    holds("nor a key, which might have been withdrawn since", store.keys().await?.0.is_empty())?;
    for (id, stays) in [("c1", false), ("https://client.example/id", false), ("operator", true)] {
        holds("clients but the operator's go", client(&store, id).await?.0.is_some() == stays)?;
    }
    holds("and another key may wait", store.publish_key(key("c")).await?)?;
    let again = Path::fresh("c1", clock(&store).await?)?;
    again.up_to_refresh(&store).await?;
    holds("the number only grows", store.restored(7).await? == 43)
}
