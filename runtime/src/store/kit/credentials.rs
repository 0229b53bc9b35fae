//! Decisions, codes and refresh tokens: each serves once, whoever races.

use std::future::Future;
use std::sync::Arc;

use mcp_authz::authorization_server::record::{Epochs, FamilyId};
use mcp_authz::authorization_server::test_kit::{self as core, Decided, Seen};
use mcp_authz::secret::AgentBinding;

use super::{
    Checked, Path, RACERS, SUBJECT, clock, code, count, decision, holds, race, random, random_digest, refresh,
};
use crate::entropy::OsEntropy;
use crate::store::Store;

pub(super) async fn run<S, F>(make: &impl Fn() -> F) -> Checked
where
    S: Store,
    F: Future<Output = S>,
{
    a_decision_is_taken_once_by_whom_it_was_shown(make().await).await?;
    a_denial_consumes_and_stores_nothing(make().await).await?;
    a_decision_race_has_one_winner(make().await).await?;
    a_code_is_redeemed_once(make().await).await?;
    a_redemption_race_has_one_winner(make().await).await?;
    a_refresh_token_is_rotated_once(make().await).await?;
    a_rotation_race_has_one_winner(make().await).await?;
    a_credential_serves_its_own_family_only(make().await).await
}

async fn a_decision_is_taken_once_by_whom_it_was_shown<S: Store>(store: S) -> Checked {
    let path = Path::fresh("c1", clock(&store).await?)?;
    let stranger = AgentBinding::session(&random::<16>()?)?;
    let early = path.approve(&store, path.agent, SUBJECT).await?;
    holds("a decision that was never asked for is absent", early == Decided::Absent)?;
    path.ask(&store).await?;
    for (agent, subject) in
        [(stranger, SUBJECT), (path.agent, "eve"), (AgentBinding::this_process(), SUBJECT)]
    {
        let decided = path.approve(&store, agent, subject).await?;
        holds("another browser or person is refused", decided == Decided::NotYours)?;
        holds("and changes no decision", decision(&store, &path).await? == Some(Epochs::default()))?;
        holds("and stores no code", code(&store, &path).await? == Seen::Absent)?;
    }
    let decided = path.approve(&store, path.agent, SUBJECT).await?;
    holds("the person to whom it was shown can approve", decided == Decided::Stored)?;
    holds("a decision that was taken is gone", decision(&store, &path).await?.is_none())?;
    holds("its code is live", code(&store, &path).await? == Seen::Live(()))?;
    let mut again = path.clone();
    again.code = random_digest()?;
    let decided = again.approve(&store, path.agent, SUBJECT).await?;
    holds("a second decision is absent", decided == Decided::Absent)?;
    holds("and stores no second code", code(&store, &again).await? == Seen::Absent)
}

async fn a_denial_consumes_and_stores_nothing<S: Store>(store: S) -> Checked {
    let path = Path::fresh("c1", clock(&store).await?)?;
    path.ask(&store).await?;
    let action = core::decide_once(path.decision, path.agent, SUBJECT, None, &mut OsEntropy)?;
    let denied = core::decided(&store.decide_once(action).await?);
    holds("a person can deny", denied == Decided::Stored)?;
    let decided = path.approve(&store, path.agent, SUBJECT).await?;
    holds("a denied request cannot be approved", decided == Decided::Absent)?;
    holds("a denial stores no code", code(&store, &path).await? == Seen::Absent)
}

async fn a_decision_race_has_one_winner<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    let path = Path::fresh("c1", clock(&store).await?)?;
    path.ask(&store).await?;
    let decided = race(&store, |store| {
        let mut path = path.clone();
        async move {
            path.code = random_digest()?;
            path.grant.family = FamilyId::from_bytes(random()?);
            path.approve(&store, path.agent, SUBJECT).await
        }
    })
    .await?;
    holds("of a race to decide, exactly one is stored", count(&decided, &Decided::Stored) == 1)?;
    holds("and the others are absent", count(&decided, &Decided::Absent) == RACERS.saturating_sub(1))
}

// OAUTH21-4.1.3-1, I-C1
async fn a_code_is_redeemed_once<S: Store>(store: S) -> Checked {
    let path = Path::fresh("c1", clock(&store).await?)?;
    holds("an unknown code is absent", path.redeem(&store, path.refresh).await? == Seen::Absent)?;
    path.ask_and_approve(&store).await?;
    for _ in 0..3 {
        holds("a read changes nothing", code(&store, &path).await? == Seen::Live(()))?;
    }
    let mut other = path.clone();
    other.grant.family = Path::fresh("c1", clock(&store).await?)?.grant.family;
    let redeemed = other.redeem(&store, path.refresh).await?;
    holds("a code is not redeemed into another family", redeemed == Seen::Absent)?;
    let redeemed = path.redeem(&store, path.refresh).await?;
    holds("a live code is redeemed", redeemed == Seen::Live(()))?;
    holds("a redeemed code is spent", code(&store, &path).await? == Seen::Used(()))?;
    let second = random_digest()?;
    let replayed = path.redeem(&store, second).await?;
    holds("a spent code is a replay", replayed == Seen::Used(()))?;
    holds("a replay inserts no token", refresh(&store, second).await? == Seen::Absent)?;
    let live = matches!(refresh(&store, path.refresh).await?, Seen::Live(record) if record.generation == 0);
    holds("a replay changes no token", live)
}

async fn a_redemption_race_has_one_winner<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    let path = Path::fresh("c1", clock(&store).await?)?;
    path.ask_and_approve(&store).await?;
    let redeemed = race(&store, |store| {
        let path = path.clone();
        async move {
            let token = random_digest()?;
            let redeemed = path.redeem(&store, token).await?;
            let live = matches!(refresh(&store, token).await?, Seen::Live(_));
            holds("exactly the winner's token is live", live == (redeemed == Seen::Live(())))?;
            Ok(redeemed)
        }
    })
    .await?;
    holds("of a race to redeem, exactly one wins", count(&redeemed, &Seen::Live(())) == 1)?;
    holds("and the others are replays", count(&redeemed, &Seen::Used(())) == RACERS.saturating_sub(1))
}

// OAUTH21-4.3.1-3, I-T1
async fn a_refresh_token_is_rotated_once<S: Store>(store: S) -> Checked {
    let path = Path::fresh("c1", clock(&store).await?)?;
    let (second, third) = (random_digest()?, random_digest()?);
    holds("an unknown token is absent", path.rotate(&store, path.refresh, 0, second).await? == Seen::Absent)?;
    path.up_to_refresh(&store).await?;
    for _ in 0..3 {
        let found = refresh(&store, path.refresh).await?;
        holds("a read changes nothing", matches!(found, Seen::Live(_)))?;
    }
    let rotated = path.rotate(&store, path.refresh, 1, second).await?;
    holds("a generation that is not the token's is absent", rotated == Seen::Absent)?;
    let rotated = path.rotate(&store, path.refresh, 0, second).await?;
    holds("a leaf is rotated", rotated == Seen::Live(()))?;
    let found = refresh(&store, path.refresh).await?;
    holds("what was presented is retired", matches!(found, Seen::Used(record) if record.generation == 0))?;
    let rotated = path.rotate(&store, path.refresh, 0, third).await?;
    holds("a retired token is told from an unknown one", rotated == Seen::Used(()))?;
    holds("and inserts nothing", refresh(&store, third).await? == Seen::Absent)?;
    let found = refresh(&store, second).await?;
    holds("the successor stays live", matches!(found, Seen::Live(record) if record.generation == 1))?;
    let rotated = path.rotate(&store, second, 1, third).await?;
    holds("the successor is rotated in its turn", rotated == Seen::Live(()))?;
    let found = refresh(&store, path.refresh).await?;
    holds("a retired token stays retired", matches!(found, Seen::Used(_)))
}

async fn a_rotation_race_has_one_winner<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    let path = Path::fresh("c1", clock(&store).await?)?;
    path.up_to_refresh(&store).await?;
    let rotated = race(&store, |store| {
        let path = path.clone();
        async move {
            let token = random_digest()?;
            let rotated = path.rotate(&store, path.refresh, 0, token).await?;
            let live = matches!(refresh(&store, token).await?, Seen::Live(_));
            holds("a family never has two live leaves", live == (rotated == Seen::Live(())))?;
            Ok(rotated)
        }
    })
    .await?;
    holds("of a race to rotate, exactly one wins", count(&rotated, &Seen::Live(())) == 1)?;
    holds("and the others find it retired", count(&rotated, &Seen::Used(())) == RACERS.saturating_sub(1))
}

async fn a_credential_serves_its_own_family_only<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    let (one, two) = (Path::fresh("c1", now)?, Path::fresh("c1", now)?);
    one.ask_and_approve(&store).await?;
    two.ask_and_approve(&store).await?;
    let mut mixed = one.clone();
    mixed.grant = two.grant.clone();
    let redeemed = mixed.redeem(&store, mixed.refresh).await?;
    holds("a code is not redeemed for the grant of another family", redeemed == Seen::Absent)?;
    holds("and stays live", code(&store, &one).await? == Seen::Live(()))?;
    holds("and so does the other", code(&store, &two).await? == Seen::Live(()))?;
    for path in [&one, &two] {
        let redeemed = path.redeem(&store, path.refresh).await?;
        holds("each is redeemed for its own", redeemed == Seen::Live(()))?;
    }
    let rotated = mixed.rotate(&store, one.refresh, 0, random_digest()?).await?;
    holds("a token is not rotated into another family", rotated == Seen::Absent)?;
    for path in [&one, &two] {
        let live = matches!(refresh(&store, path.refresh).await?, Seen::Live(_));
        holds("and both stay live", live)?;
    }
    Ok(())
}
