//! What is used once, and what a sweep keeps.

use std::future::Future;
use std::sync::Arc;

use mcp_authz::authorization_server::record::ClientOrigin;
use mcp_authz::authorization_server::store::ReserveOnce;
use mcp_authz::authorization_server::test_kit::{self as core, Seen};
use mcp_authz::identifier::Issuer;
use mcp_authz::time::Duration;

use super::{
    Checked, KitError, Path, SUBJECT, client, clock, code, count, decision, holds, race, refresh, register,
};
use crate::store::{ReadSession, Store};

pub(super) async fn run<S, F>(make: &impl Fn() -> F) -> Checked
where
    S: Store,
    F: Future<Output = S>,
{
    an_identifier_is_reserved_once(make().await).await?;
    a_sweep_keeps_what_is_needed(make().await).await
}

async fn an_identifier_is_reserved_once<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    let until = clock(&store).await?.saturating_add(Duration::minutes(5));
    let audience = Issuer::new("https://as.example")?;
    let won = race(&store, |store| {
        let audience = audience.clone();
        async move {
            let action = core::reserve_once("c1", audience, "j1", until);
            Ok(store.reserve_once(action).await?.reserves("j1"))
        }
    })
    .await?;
    holds("of a race to reserve, exactly one wins", count(&won, &true) == 1)?;
    let looked = core::reserve_once("c1", audience.clone(), "j1", until);
    holds("it is known to be reserved", signed_out(&store, looked).await?)?;
    let elsewhere = Issuer::new("https://as.example/t")?;
    // The last two have the same bytes in a row.
    for (issuer, audience, value) in
        [("c1", &audience, "j2"), ("c2", &audience, "j1"), ("c1", &elsewhere, "j1"), ("c", &audience, "1j1")]
    {
        let looked = core::reserve_once(issuer, audience.clone(), value, until);
        holds("to look reserves nothing, and finds no other's", !signed_out(&store, looked).await?)?;
        let action = core::reserve_once(issuer, audience.clone(), value, until);
        let reserved = store.reserve_once(action).await?.reserves(value);
        holds("all parts of a reservation make its key", reserved)?;
    }
    let ended = clock(&store).await?.saturating_sub(Duration::seconds(1));
    let action = core::reserve_once("c1", audience.clone(), "ended", ended);
    let reserved = store.reserve_once(action).await?.reserves("ended");
    holds("what has ended is reserved no more: it might have been, and be forgotten", !reserved)?;
    Ok(())
}

/// Whether the identifier is known, as a session asks.
async fn signed_out(store: &impl Store, looked: ReserveOnce) -> Result<bool, KitError> {
    Ok(store.read_session(ReadSession::of(SUBJECT).in_browser(looked)).await?.signed_out)
}

async fn a_sweep_keeps_what_is_needed<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    let ended = |ago: Duration| -> Result<Path, KitError> {
        let mut path = Path::fresh("c1", now)?;
        let made = now.saturating_sub(ago).saturating_sub(Duration::hours(1));
        path.grant = core::sample_grant(path.grant.family, "c1", SUBJECT, path.grant.epochs, made)?;
        Ok(path)
    };
    let (live, recent) = (Path::fresh("c1", now)?, ended(Duration::minutes(19))?);
    let (over, revoked) = (ended(Duration::minutes(21))?, ended(Duration::minutes(19))?);
    for path in [&live, &recent, &over] {
        path.up_to_refresh(&store).await?;
    }
    revoked.up_to_refresh(&store).await?;
    revoked.revoke(&store).await?;
    let (mut pending, mut late) = (Path::fresh("c1", now)?, Path::fresh("c1", now)?);
    pending.grant.authenticated = now.saturating_sub(Duration::minutes(9));
    late.grant.authenticated = now.saturating_sub(Duration::minutes(11));
    pending.ask(&store).await?;
    late.ask(&store).await?;
    // "used" is used by a grant of its own; a grant of the others is only asked for.
    for (id, days) in [("new", 29), ("old", 31), ("used", 31)] {
        register(&store, id, now.saturating_sub(Duration::days(days))).await?;
    }
    Path::fresh("used", now)?.up_to_refresh(&store).await?;
    let mut operator = core::sample_client("operator", now.saturating_sub(Duration::days(999)))?;
    operator.origin = ClientOrigin::PreRegistered;
    store.put_client(operator).await?;

    store.sweep().await?;

    holds("what is over is gone", code(&store, &over).await? == Seen::Absent)?;
    holds("its tokens too", refresh(&store, over.refresh).await? == Seen::Absent)?;
    for path in [&live, &recent] {
        holds(
            "a spent code stays while a token of it may live",
            code(&store, path).await? == Seen::Used(()),
        )?;
        let kept = matches!(refresh(&store, path.refresh).await?, Seen::Live(_));
        holds("and so does its refresh token", kept)?;
    }
    holds("and a code of a revoked family", code(&store, &revoked).await? == Seen::Used(()))?;
    holds("with its tombstone", refresh(&store, revoked.refresh).await? == Seen::Absent)?;
    holds("a pending decision stays", decision(&store, &pending).await?.is_some())?;
    holds("a late one goes", decision(&store, &late).await?.is_none())?;
    // D40
    for (id, kept) in [("new", true), ("old", false), ("used", true), ("operator", true)] {
        let found = client(&store, id).await?.0.is_some();
        holds("a client goes when it was never used in 30 days, and no other", found == kept)?;
    }
    Ok(())
}
