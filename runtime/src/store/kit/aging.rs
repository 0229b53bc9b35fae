//! What stays how long: the store's clock is moved, and housekeeping runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mcp_authz::authorization_server::record::Epochs;
use mcp_authz::authorization_server::test_kit::{self as core, Seen};
use mcp_authz::time::{Duration, OffsetDateTime};

use super::sessions::a_session_stands_until_its_person_is_revoked;
use super::{Checked, KitError, Path, SUBJECT, client, code, decision, holds, refresh, register};
use crate::clock::Clock;
use crate::entropy::OsEntropy;
use crate::store::Store;

/// A clock that stands still until it is set.
#[derive(Debug, Default)]
pub(super) struct Minutes(AtomicI64);

impl Minutes {
    fn set(&self, since: Duration) {
        self.0.store(since.whole_minutes(), Ordering::SeqCst);
    }

    pub(super) fn pass(&self, time: Duration) {
        self.0.fetch_add(time.whole_minutes(), Ordering::SeqCst);
    }
}

impl Clock for Minutes {
    fn now(&self) -> OffsetDateTime {
        let start = OffsetDateTime::UNIX_EPOCH.saturating_add(Duration::days(20_000));
        start.saturating_add(Duration::minutes(self.0.load(Ordering::SeqCst)))
    }
}

/// Runs the checks of what stays how long, each on a store of its own that `make` gives for that clock.
///
/// # Errors
/// As [`super::run`].
pub async fn run_aging<S, F>(make: impl Fn(Arc<dyn Clock>) -> F) -> Result<(), KitError>
where
    S: Store,
    F: Future<Output = S>,
{
    let clock = Arc::new(Minutes::default());
    a_client_stays_as_long_as_a_grant_of_it(make(clock.clone()).await, &clock).await?;
    let clock = Arc::new(Minutes::default());
    an_epoch_stays_as_long_as_what_it_ends(make(clock.clone()).await, &clock).await?;
    let clock = Arc::new(Minutes::default());
    a_code_stays_as_long_as_it_is_told_from_a_guess(make(clock.clone()).await, &clock).await?;
    let clock = Arc::new(Minutes::default());
    a_session_stands_until_its_person_is_revoked(make(clock.clone()).await, &clock).await
}

/// The second sweep sees what the first one's order left.
async fn sweep(store: &impl Store) -> Checked {
    store.sweep().await?;
    Ok(store.sweep().await?)
}

// D40, I-P7
async fn a_client_stays_as_long_as_a_grant_of_it<S: Store>(store: S, clock: &Minutes) -> Checked {
    register(&store, "c1", clock.now()).await?;
    let mut path = Path::fresh("c1", clock.now())?;
    path.grant.not_after = clock.now().saturating_add(Duration::days(300));
    path.up_to_refresh(&store).await?;
    for (day, stays) in [(179, true), (181, true), (299, true), (301, false)] {
        clock.set(Duration::days(day));
        sweep(&store).await?;
        let known = client(&store, "c1").await?.0.is_some();
        holds("a client stays as long as a grant of it, and no longer", known == stays)?;
        let live = matches!(refresh(&store, path.refresh).await?, Seen::Live(_));
        holds("and so does the grant's token", live == stays)?;
    }
    Ok(())
}

/// Whether anything was ever revoked for that client, as a new page of it says.
async fn is_moved(store: &impl Store, id: &str, clock: &Minutes) -> Result<bool, KitError> {
    let page = Path::fresh(id, clock.now())?;
    page.ask(store).await?;
    let epochs = decision(store, &page).await?.ok_or(KitError::Broken("a page waits"))?;
    // The page itself would keep the epoch.
    let denied = core::decide_once(page.decision, page.agent, SUBJECT, None, &mut OsEntropy)?;
    let _denied = store.decide_once(denied).await?;
    Ok(epochs != Epochs::default())
}

async fn an_epoch_stays_as_long_as_what_it_ends<S: Store>(store: S, clock: &Minutes) -> Checked {
    let mut granted = Path::fresh("c1", clock.now())?;
    granted.grant.not_after = clock.now().saturating_add(Duration::days(90));
    granted.up_to_refresh(&store).await?;
    let approved = Path::fresh("c2", clock.now())?;
    approved.ask_and_approve(&store).await?;
    for ended in [&granted, &approved] {
        ended.withdraw(&store).await?;
    }
    // Each is looked at once it was kept for a week, and again a week later.
    for (day, of_grant, of_code) in [(0, true, true), (8, true, false), (89, true, false), (97, false, false)]
    {
        clock.set(Duration::days(day));
        sweep(&store).await?;
        holds("an epoch stays while a grant is there", is_moved(&store, "c1", clock).await? == of_grant)?;
        holds("or a code, and no longer", is_moved(&store, "c2", clock).await? == of_code)?;
        holds("what has ended never lives again", refresh(&store, granted.refresh).await? == Seen::Absent)?;
        let redeemed = approved.redeem(&store, approved.refresh).await?;
        let refused = if of_code { Seen::Revoked } else { Seen::Absent };
        holds("nor is it redeemed", redeemed == refused)?;
    }
    Ok(())
}

// I-C3
async fn a_code_stays_as_long_as_it_is_told_from_a_guess<S: Store>(store: S, clock: &Minutes) -> Checked {
    let (unspent, spent) = (Path::fresh("c1", clock.now())?, Path::fresh("c1", clock.now())?);
    unspent.ask_and_approve(&store).await?;
    spent.up_to_refresh(&store).await?;
    // A code lives a minute here, its family an hour; either is kept for twenty minutes more.
    for (minute, unspent_stays, spent_stays) in
        [(2, true, true), (20, true, true), (22, false, true), (79, false, true), (81, false, false)]
    {
        clock.set(Duration::minutes(minute));
        sweep(&store).await?;
        let live = code(&store, &unspent).await? == Seen::Live(());
        holds("a code that nobody redeemed goes once it is over", live == unspent_stays)?;
        let used = code(&store, &spent).await? == Seen::Used(());
        holds("one that was redeemed stays as long as its family", used == spent_stays)?;
    }
    Ok(())
}
