//! Tombstones and epochs: nothing that was granted before comes through.

use std::future::Future;
use std::sync::Arc;

use mcp_authz::authorization_server::record::Epochs;
use mcp_authz::authorization_server::store::{RevocationTarget, RevokeAll};
use mcp_authz::authorization_server::test_kit::{self as core, Seen};
use mcp_authz::identifier::ClientId;

use super::{Checked, KitError, Path, SUBJECT, clock, code, decision, holds, race, random_digest, refresh};
use crate::entropy::OsEntropy;
use crate::store::Store;

pub(super) async fn run<S, F>(make: &impl Fn() -> F) -> Checked
where
    S: Store,
    F: Future<Output = S>,
{
    a_tombstone_stops_everything(make().await).await?;
    a_tombstone_holds_for_a_family_not_yet_known(make().await).await?;
    revocation_races_leave_no_live_token(make().await).await?;
    for target in 0..3_u8 {
        a_moved_epoch_revokes(make().await, target).await?;
    }
    an_epoch_is_written_only_where_it_ends_something(make().await).await
}

async fn a_tombstone_stops_everything<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    let path = Path::fresh("c1", now)?;
    path.ask_and_approve(&store).await?;
    path.revoke(&store).await?;
    let redeemed = path.redeem(&store, path.refresh).await?;
    holds("a code of a revoked family is not redeemed", redeemed == Seen::Revoked)?;
    holds("and no token is inserted", refresh(&store, path.refresh).await? == Seen::Absent)?;
    holds("and the code is not spent", code(&store, &path).await? == Seen::Live(()))?;

    let path = Path::fresh("c1", now)?;
    let successor = random_digest()?;
    path.up_to_refresh(&store).await?;
    path.revoke(&store).await?;
    path.revoke(&store).await?;
    let rotated = path.rotate(&store, path.refresh, 0, successor).await?;
    holds("a leaf of a revoked family is not rotated", rotated == Seen::Revoked)?;
    holds("and is not read", refresh(&store, path.refresh).await? == Seen::Absent)?;
    holds("and no successor is inserted", refresh(&store, successor).await? == Seen::Absent)
}

async fn a_tombstone_holds_for_a_family_not_yet_known<S: Store>(store: S) -> Checked {
    let path = Path::fresh("c1", clock(&store).await?)?;
    path.ask(&store).await?;
    path.revoke(&store).await?;
    let code = core::sample_code(path.grant.clone())?;
    let action =
        core::decide_once(path.decision, path.agent, SUBJECT, Some((path.code, code)), &mut OsEntropy)?;
    // A store may refuse the approval or take it: no token may come of it.
    let _either = store.decide_once(action).await;
    let redeemed = path.redeem(&store, path.refresh).await?;
    let refused = matches!(redeemed, Seen::Revoked | Seen::Absent);
    holds("nothing is inserted into a family whose tombstone came first", refused)?;
    holds("and no token is live", refresh(&store, path.refresh).await? == Seen::Absent)
}

/// Whatever order a revocation and twenty redemptions or rotations take: afterwards nothing of the grant is live.
async fn revocation_races_leave_no_live_token<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    for (client, rotates, withdraws) in
        [("c1", false, false), ("c2", false, true), ("c3", true, false), ("c4", true, true)]
    {
        let path = Path::fresh(client, clock(&store).await?)?;
        if rotates {
            path.up_to_refresh(&store).await?;
        } else {
            path.ask_and_approve(&store).await?;
        }
        let revoker = {
            let (path, store) = (path.clone(), Arc::clone(&store));
            tokio::spawn(async move {
                if withdraws { path.withdraw(&store).await } else { path.revoke(&store).await }
            })
        };
        let tokens = race(&store, |store| {
            let path = path.clone();
            async move {
                let token = random_digest()?;
                let _any = if rotates {
                    path.rotate(&store, path.refresh, 0, token).await?
                } else {
                    path.redeem(&store, token).await?
                };
                Ok(token)
            }
        })
        .await?;
        revoker.await??;
        for token in tokens.into_iter().chain([path.refresh]) {
            holds("no token outlives its grant", refresh(&store, token).await? == Seen::Absent)?;
        }
    }
    Ok(())
}

async fn a_moved_epoch_revokes<S: Store>(store: S, target: u8) -> Checked {
    let now = clock(&store).await?;
    let (client_id, subject) = (ClientId::new("c1")?, SUBJECT.to_owned());
    let (target, which) = match target {
        0 => (RevocationTarget::Client(client_id), 0),
        1 => (RevocationTarget::Subject(subject), 1),
        _ => (RevocationTarget::Consent { subject, client_id }, 2),
    };
    let (asked, approved, refreshed) =
        (Path::fresh("c1", now)?, Path::fresh("c1", now)?, Path::fresh("c1", now)?);
    let mut bystander = Path::fresh("c2", now)?;
    bystander.grant.subject = "bob".into();
    asked.ask(&store).await?;
    approved.ask_and_approve(&store).await?;
    refreshed.up_to_refresh(&store).await?;
    bystander.ask(&store).await?;
    let _stored = bystander.approve(&store, bystander.agent, "bob").await?;

    let _revoked = store.revoke_all(RevokeAll::of(target.clone())).await?;

    let moved = decision(&store, &asked).await?.ok_or(KitError::Broken("a pending decision stays"))?;
    let only = [moved.client, moved.subject, moved.consent]
        .iter()
        .enumerate()
        .all(|(n, e)| (*e > 0) == (n == which));
    holds("a pending decision sees the new epoch, and the others as they were", only)?;
    let redeemed = approved.redeem(&store, approved.refresh).await?;
    holds("a code under an older epoch is not redeemed", redeemed == Seen::Revoked)?;
    holds("and stays unspent", code(&store, &approved).await? == Seen::Live(()))?;
    let rotated = refreshed.rotate(&store, refreshed.refresh, 0, random_digest()?).await?;
    holds("a token under an older epoch is not rotated", rotated == Seen::Revoked)?;
    holds("and is not read", refresh(&store, refreshed.refresh).await? == Seen::Absent)?;
    let redeemed = bystander.redeem(&store, bystander.refresh).await?;
    holds("others are not touched", redeemed == Seen::Live(()))?;
    let mut later = Path::fresh("c1", now)?;
    later.grant.epochs = moved;
    later.up_to_refresh(&store).await?;
    let _revoked = store.revoke_all(RevokeAll::of(target)).await?;
    let again = decision(&store, &asked).await?.ok_or(KitError::Broken("a pending decision stays"))?;
    let grows = again.client > moved.client || again.subject > moved.subject || again.consent > moved.consent;
    holds("an epoch only grows", grows)?;
    holds("and ends what came between", refresh(&store, later.refresh).await? == Seen::Absent)
}

/// What a stranger names, and a client that comes and goes, leave no row behind: only that shows here which it would write.
async fn an_epoch_is_written_only_where_it_ends_something<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    let (client_id, subject) = (ClientId::new("c1")?, SUBJECT.to_owned());
    let mut other = Path::fresh("c2", now)?;
    other.up_to_refresh(&store).await?;
    other.grant.subject = "bob".into();
    for target in [
        RevocationTarget::Client(client_id.clone()),
        RevocationTarget::Consent { subject: subject.clone(), client_id: client_id.clone() },
        RevocationTarget::Consent { subject: "eve".to_owned(), client_id: ClientId::new("c2")? },
    ] {
        let _nothing = store.revoke_all(RevokeAll::of(target)).await?;
    }
    let record = core::sample_client("c1", now)?;
    let _inserted = store.insert_client(core::insert_client(record.clone(), &mut OsEntropy)?).await?;
    let _deleted = store.delete_client(core::delete_client(&record, &mut OsEntropy)?).await?;
    let path = Path::fresh("c1", now)?;
    path.ask(&store).await?;
    holds(
        "no epoch moves where there is nothing to end",
        decision(&store, &path).await? == Some(Epochs::default()),
    )?;
    let page = Path::fresh("c2", now)?;
    let shown = core::sample_decision("c2", "eve", page.agent, now)?;
    let insert = core::insert_decision(page.decision, shown, None, &mut OsEntropy)?;
    let _inserted = store.insert_decision(insert).await?;
    holds("nor for a person who granted nothing", decision(&store, &page).await? == Some(Epochs::default()))?;
    // Each thing that may be ended is one: a page, a code, a grant, a consent.
    for step in 0..4_u8 {
        let (client, subject) = (format!("e{step}"), SUBJECT.to_owned());
        let path = Path::fresh(&client, now)?;
        path.ask(&store).await?;
        let remembered = (step == 3).then(|| core::sample_consent(&path.grant)).transpose()?;
        let code = (step < 3).then(|| core::sample_code(path.grant.clone())).transpose()?;
        let code = code.map(|code| (path.code, code));
        if step > 0 {
            let decide = core::decide_and_remember(
                path.decision,
                path.agent,
                SUBJECT,
                code,
                remembered,
                &mut OsEntropy,
            )?;
            let _decided = store.decide_once(decide).await?;
        }
        if step == 2 {
            let _redeemed = path.redeem(&store, path.refresh).await?;
        }
        let client_id = ClientId::new(client.as_str())?;
        let _ended =
            store.revoke_all(RevokeAll::of(RevocationTarget::Consent { subject, client_id })).await?;
        let page = Path::fresh(&client, now)?;
        page.ask(&store).await?;
        let moved = decision(&store, &page).await?.is_some_and(|epochs| epochs.consent > 0);
        holds("an epoch moves where there is something to end", moved)?;
    }
    Ok(())
}
