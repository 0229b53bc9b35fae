//! The contract of what came after codes and refresh tokens: opaque access tokens, the repetition of a rotation,
//! remembered consent, pushed requests, managed registrations; and that a store leaves expiry to the core.

use std::sync::Arc;

use mcp_authz::authorization_server::record::{AccessRecord, Epochs};
use mcp_authz::authorization_server::test_kit::{self as core, Decided, Seen};
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::Duration;

use super::{
    Checked, KitError, Path, RACERS, SUBJECT, client, clock, code, count, decision, holds, race,
    random_digest, refresh,
};
use crate::entropy::OsEntropy;
use crate::store::Store;

pub(super) async fn run<S, F>(make: &impl Fn() -> F) -> Checked
where
    S: Store,
    F: Future<Output = S>,
{
    an_access_token_ends_with_its_grant(make().await).await?;
    a_rotation_is_repeated_within_its_bounds(make().await).await?;
    a_race_to_repeat_stays_within_the_bound(make().await).await?;
    a_consent_is_remembered_until_something_ends_it(make().await).await?;
    a_pushed_request_is_consumed_once(make().await).await?;
    an_update_of_a_client_is_a_compare_and_swap(make().await).await?;
    a_deleted_client_takes_its_grants_with_it(make().await).await?;
    expiry_is_left_to_the_record(make().await).await?;
    a_withdrawal_is_a_barrier(make().await).await
}

async fn access(store: &impl Store, digest: SecretDigest) -> Result<Option<AccessRecord>, KitError> {
    Ok(core::access_found(store.read_access(core::read_access(digest)).await?))
}

async fn grant_stands(store: &impl Store, path: &Path) -> Result<bool, KitError> {
    let found = core::grant_found(store.read_grant(core::read_grant(path.grant.family)).await?);
    match found {
        None => Ok(false),
        Some(grant) => {
            holds("a grant is read as it was stored", grant.to_bytes() == path.grant.to_bytes())?;
            Ok(true)
        }
    }
}

// I-T2, RFC7662-4-1
async fn an_access_token_ends_with_its_grant<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    for withdraws in [false, true] {
        let path = Path::fresh(if withdraws { "c2" } else { "c1" }, now)?;
        let (digest, record) = path.access();
        path.ask_and_approve(&store).await?;
        holds("a grant that is not redeemed does not stand", !grant_stands(&store, &path).await?)?;
        holds("and has no access token", access(&store, digest).await?.is_none())?;
        let redeemed = path.redeem(&store, path.refresh).await?;
        holds("a live code is redeemed", redeemed == Seen::Live(()))?;
        holds("a redeemed grant stands", grant_stands(&store, &path).await?)?;
        let found = access(&store, digest).await?.map(|record| record.to_bytes());
        holds("an access token is read as it was stored", found == Some(record.to_bytes()))?;
        let (second, third) = (random_digest()?, random_digest()?);
        let (from, to) = ((path.refresh, 0), (second, core::sample_refresh(path.grant.clone(), 1)));
        let issued = Some((third, core::sample_access(path.grant.clone())));
        let rotate = core::rotate_refresh(from, to, issued.clone(), None, &mut OsEntropy)?;
        let rotated = core::rotation(&store.rotate_refresh(rotate).await?);
        holds("a rotation stores its access token", rotated == Seen::Live(()))?;
        holds("beside the earlier one", access(&store, third).await?.is_some())?;
        let lost = random_digest()?;
        let issued = issued.map(|(_, record)| (lost, record));
        let to = (random_digest()?, core::sample_refresh(path.grant.clone(), 1));
        let rotate = core::rotate_refresh((path.refresh, 0), to, issued, None, &mut OsEntropy)?;
        let reused = core::rotation(&store.rotate_refresh(rotate).await?);
        holds("a retired token is not rotated", reused == Seen::Used(()))?;
        holds("and issues nothing", access(&store, lost).await?.is_none())?;
        if withdraws {
            path.withdraw(&store).await?
        } else {
            path.revoke(&store).await?
        }
        holds("a revoked grant does not stand", !grant_stands(&store, &path).await?)?;
        for token in [digest, third] {
            holds("an access token ends with its grant", access(&store, token).await?.is_none())?;
        }
    }
    Ok(())
}

// I-T3, D17
async fn a_rotation_is_repeated_within_its_bounds<S: Store>(store: S) -> Checked {
    let before = clock(&store).await?;
    let path = Path::fresh("c1", before)?;
    let (second, third) = (random_digest()?, random_digest()?);
    path.up_to_refresh(&store).await?;
    let early = path.repeat(&store, second, 3).await?;
    holds("a token that is not retired has no rotation to repeat", early == Seen::Used(()))?;
    holds("and stays live", matches!(refresh(&store, path.refresh).await?, Seen::Live(_)))?;
    let rotated = path.rotate(&store, path.refresh, 0, second).await?;
    holds("a leaf is rotated", rotated == Seen::Live(()))?;
    for repeats in 0..2_u32 {
        let found = store.read_refresh(core::read_refresh(path.refresh)).await?;
        let (at, request, counted, unused) =
            core::retirement(&found).ok_or(KitError::Broken("a retired token says how it was retired"))?;
        let after = clock(&store).await?;
        let slack = Duration::seconds(2);
        holds(
            "a retirement has the store's time",
            at >= before.saturating_sub(slack) && at <= after.saturating_add(slack),
        )?;
        holds("and the request's digest", request == SecretDigest::of(b"the request"))?;
        holds("and how often it was repeated", counted == repeats)?;
        holds("and that the successor is unused", unused)?;
        let stranger = path.repeat(&store, random_digest()?, 3).await?;
        holds("only the stored successor is handed out again", stranger == Seen::Used(()))?;
        let repeated = path.repeat(&store, second, 2).await?;
        holds("a rotation is repeated", repeated == Seen::Live(()))?;
        let live = matches!(refresh(&store, second).await?, Seen::Live(record) if record.generation == 1);
        holds("and changes no token", live)?;
    }
    let beyond = path.repeat(&store, second, 2).await?;
    holds("but not beyond its bound", beyond == Seen::Used(()))?;
    let rotated = path.rotate(&store, second, 1, third).await?;
    holds("the successor is rotated in its turn", rotated == Seen::Live(()))?;
    let found = store.read_refresh(core::read_refresh(path.refresh)).await?;
    let used = core::retirement(&found).is_some_and(|(_, _, _, unused)| !unused);
    holds("a used successor shows", used)?;
    let late = path.repeat(&store, second, 9).await?;
    holds("a used successor closes the repetition", late == Seen::Used(()))?;
    path.revoke(&store).await?;
    let revoked = path.repeat(&store, second, 9).await?;
    holds("nothing of a revoked family is repeated", revoked == Seen::Revoked)
}

async fn a_race_to_repeat_stays_within_the_bound<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    let path = Path::fresh("c1", clock(&store).await?)?;
    let second = random_digest()?;
    path.up_to_refresh(&store).await?;
    let _rotated = path.rotate(&store, path.refresh, 0, second).await?;
    let repeated = race(&store, |store| {
        let path = path.clone();
        async move { path.repeat(&store, second, 3).await }
    })
    .await?;
    holds("of a race to repeat, as many win as may", count(&repeated, &Seen::Live(())) == 3)?;
    holds("and the others are refused", count(&repeated, &Seen::Used(())) == RACERS.saturating_sub(3))
}

// I-P2
async fn a_consent_is_remembered_until_something_ends_it<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    let path = Path::fresh("c1", now)?;
    let record = core::sample_consent(&path.grant)?;
    let key = record.key();
    let read = async || -> Result<_, KitError> {
        let found = core::consent_found(store.read_consent(core::read_consent(key)).await?);
        Ok(found.map(|(record, epochs)| (record.to_bytes(), epochs)))
    };
    let fresh_code =
        |path: &Path| -> Result<_, KitError> { Ok((path.code, core::sample_code(path.grant.clone())?)) };
    let action = core::decide_remembered(key, fresh_code(&path)?, &mut OsEntropy)?;
    let decided = core::decided(&store.decide_once(action).await?);
    holds("nothing rests on a consent that is not there", decided == Decided::Absent)?;
    holds("and no code is stored", code(&store, &path).await? == Seen::Absent)?;
    path.ask(&store).await?;
    let (code_digest, code_record) = fresh_code(&path)?;
    let approve = |agent| {
        let code = Some((code_digest, code_record.clone()));
        core::decide_and_remember(path.decision, agent, SUBJECT, code, Some(record.clone()), &mut OsEntropy)
    };
    let stranger = mcp_authz::secret::AgentBinding::this_process();
    let decided = core::decided(&store.decide_once(approve(stranger)?).await?);
    holds("another browser is refused", decided == Decided::NotYours)?;
    holds("and nothing is remembered", read().await?.is_none())?;
    let decided = core::decided(&store.decide_once(approve(path.agent)?).await?);
    holds("an approval is stored with its memory", decided == Decided::Stored)?;
    holds(
        "a consent is read as it was stored, under today's epochs",
        read().await? == Some((record.to_bytes(), Epochs::default())),
    )?;
    let again = Path::fresh("c1", now)?;
    let action = core::decide_remembered(key, fresh_code(&again)?, &mut OsEntropy)?;
    let decided = core::decided(&store.decide_once(action).await?);
    holds("a code rests on a consent that is there", decided == Decided::Stored)?;
    holds("and is stored", code(&store, &again).await? == Seen::Live(()))?;
    holds("and the consent stays", read().await?.is_some())?;
    path.withdraw(&store).await?;
    holds(
        "a withdrawal shows in the epochs",
        read()
            .await?
            .is_some_and(|(_, epochs)| epochs.consent > 0 && epochs.client == 0 && epochs.subject == 0),
    )
}

// RFC9126-4-2
async fn a_pushed_request_is_consumed_once<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    let now = clock(&store).await?;
    let (key, end) = (random_digest()?, now.saturating_add(Duration::MINUTE));
    let read = async || -> Result<_, KitError> {
        Ok(core::pushed_found(store.read_pushed(core::read_pushed(key)).await?))
    };
    holds("an unknown request is absent", read().await?.is_none())?;
    let insert = core::insert_pushed(key, ClientId::new("c1")?, false, end, &mut OsEntropy)?;
    let _inserted = store.insert_pushed(insert).await?;
    for _ in 0..2 {
        holds(
            "a read consumes nothing",
            read().await?.is_some_and(|found| found.client_id.as_str() == "c1"),
        )?;
    }
    let paths = race(&store, |store| async move {
        let path = Path::fresh("c1", clock(&store).await?)?;
        let record = core::sample_decision("c1", SUBJECT, path.agent, path.grant.authenticated)?;
        let insert = core::insert_pushed_decision(path.decision, record, key, &mut OsEntropy)?;
        let inserted = core::decision_inserted(&store.insert_decision(insert).await?);
        holds("exactly the winner's page waits", decision(&store, &path).await?.is_some() == inserted)?;
        Ok(inserted)
    })
    .await?;
    holds("of a race to show a pushed request, exactly one wins", count(&paths, &true) == 1)?;
    holds("and it is gone", read().await?.is_none())
}

// RFC7592-2.2-2
async fn an_update_of_a_client_is_a_compare_and_swap<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    let now = clock(&store).await?;
    let first = core::sample_client("c1", now)?;
    let absent = core::update_client(&first, first.clone(), &mut OsEntropy)?;
    let updated = core::client_updated(&store.update_client(absent).await?);
    holds("an unknown client is not updated", !updated && client(&store, "c1").await?.0.is_none())?;
    let _inserted = store.insert_client(core::insert_client(first.clone(), &mut OsEntropy)?).await?;
    let won = race(&store, |store| {
        let (old, mut new) = (first.clone(), first.clone());
        async move {
            new.metadata.client_name = Some(format!("name {:?}", random_digest()?));
            let stored = new.to_bytes();
            let update = core::update_client(&old, new, &mut OsEntropy)?;
            let updated = core::client_updated(&store.update_client(update).await?);
            Ok(updated.then_some(stored))
        }
    })
    .await?;
    let mut winners = won.into_iter().flatten();
    let found = client(&store, "c1").await?.0.map(|record| record.to_bytes());
    holds("of a race to update, exactly one wins", found.is_some() && winners.next() == found)?;
    holds("and nobody else", winners.next().is_none())
}

// RFC7592-2.3-1, RFC7592-2.3-2
async fn a_deleted_client_takes_its_grants_with_it<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    let record = core::sample_client("c1", now)?;
    let _inserted = store.insert_client(core::insert_client(record.clone(), &mut OsEntropy)?).await?;
    let (approved, live) = (Path::fresh("c1", now)?, Path::fresh("c1", now)?);
    approved.ask_and_approve(&store).await?;
    live.up_to_refresh(&store).await?;
    let mut other = record.clone();
    other.metadata.client_name = Some("Other".to_owned());
    let delete = core::delete_client(&other, &mut OsEntropy)?;
    holds(
        "a record that changed is not deleted",
        !core::client_deleted(&store.delete_client(delete).await?) && client(&store, "c1").await?.0.is_some(),
    )?;
    holds("and no epoch moves", matches!(refresh(&store, live.refresh).await?, Seen::Live(_)))?;
    let delete = core::delete_client(&record, &mut OsEntropy)?;
    holds("a client is deleted", core::client_deleted(&store.delete_client(delete).await?))?;
    holds("and gone", client(&store, "c1").await?.0.is_none())?;
    holds("its tokens with it", refresh(&store, live.refresh).await? == Seen::Absent)?;
    let redeemed = approved.redeem(&store, approved.refresh).await?;
    holds("and its codes", redeemed == Seen::Revoked)
}

/// A store that decided about expiry by itself could be wrong by its own time-to-live: it gives what it has, and the core
/// compares. Housekeeping is the only thing that makes rows disappear.
async fn expiry_is_left_to_the_record<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    let mut path = Path::fresh("c1", now)?;
    let long_ago = now.saturating_sub(Duration::hours(2));
    path.grant = core::sample_grant(path.grant.family, "c1", SUBJECT, path.grant.epochs, long_ago)?;
    path.ask(&store).await?;
    holds("a decision that is over is read", decision(&store, &path).await?.is_some())?;
    let decided = path.approve(&store, path.agent, SUBJECT).await?;
    holds("and decided", decided == Decided::Stored)?;
    holds("a code that is over is read", code(&store, &path).await? == Seen::Live(()))?;
    let redeemed = path.redeem(&store, path.refresh).await?;
    holds("and redeemed", redeemed == Seen::Live(()))?;
    holds(
        "a refresh token that is over is read",
        matches!(refresh(&store, path.refresh).await?, Seen::Live(_)),
    )?;
    holds("an access token that is over is read", access(&store, path.access().0).await?.is_some())?;
    let key = random_digest()?;
    let insert = core::insert_pushed(key, ClientId::new("c1")?, false, long_ago, &mut OsEntropy)?;
    let _inserted = store.insert_pushed(insert).await?;
    let found = core::pushed_found(store.read_pushed(core::read_pushed(key)).await?);
    holds("a pushed request that is over is read", found.is_some())
}

/// Whatever had begun before: once a withdrawal has returned, nothing that was granted before is ever given out again.
async fn a_withdrawal_is_a_barrier<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    let now = clock(&store).await?;
    for round in 0..4_u8 {
        let name = format!("c{round}");
        let path = Path::fresh(&name, now)?;
        path.up_to_refresh(&store).await?;
        let rotations: Vec<_> = (0..RACERS)
            .map(|_| {
                let (path, store) = (path.clone(), Arc::clone(&store));
                tokio::spawn(async move { path.rotate(&store, path.refresh, 0, random_digest()?).await })
            })
            .collect();
        if round % 2 == 0 {
            path.withdraw(&store).await?
        } else {
            path.revoke(&store).await?
        }
        // Begun after the receipt: refused, however many of the others still run.
        let late = path.rotate(&store, path.refresh, 0, random_digest()?).await?;
        holds("what begins after a revocation is refused", matches!(late, Seen::Revoked | Seen::Used(())))?;
        holds("and reads nothing", refresh(&store, path.refresh).await? == Seen::Absent)?;
        holds("nor its access token", access(&store, path.access().0).await?.is_none())?;
        for rotation in rotations {
            let _either = rotation.await??;
        }
    }
    Ok(())
}
