//! What strangers cause to be stored is bounded, and a flood locks nobody out (I-P7).

use mcp_authz::authorization_server::record::{ClientOrigin, ClientRecord};
use mcp_authz::authorization_server::test_kit as core;
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::{Duration, OffsetDateTime};

use super::{Checked, KitError, Path, SUBJECT, client, clock, decision, holds, random_digest};
use crate::entropy::OsEntropy;
use crate::store::{Bounds, Store};

/// Small enough to be reached, and each of its own size.
fn small() -> Bounds {
    Bounds {
        decisions: 4,
        decisions_of_a_person: 2,
        pushed_of_operator: 4,
        pushed_of_strangers: 3,
        pushed_of_a_client: 2,
        unused_clients: 3,
    }
}

/// Runs the checks of the bounds, each on a store of its own that `make` gives for those bounds.
///
/// # Errors
/// As [`super::run`].
pub async fn run_bounded<S, F>(make: impl Fn(Bounds) -> F) -> Result<(), KitError>
where
    S: Store,
    F: Future<Output = S>,
{
    a_person_makes_room_for_themselves_only(make(small()).await).await?;
    what_has_ended_makes_room(make(small()).await).await?;
    a_client_that_something_rests_on_stays(make(small()).await).await?;
    a_document_without_room_is_not_shown(make(small()).await).await?;
    a_client_that_was_asked_for_is_not_swept(make(small()).await).await?;
    for of_operator in [false, true] {
        a_client_makes_room_for_itself_only(make(small()).await, of_operator).await?;
    }
    strangers_take_no_room_of_the_operators_clients(make(small()).await).await
}

/// Asks `subject` about `client`; says whether there was room.
async fn ask(store: &impl Store, path: &Path, subject: &str, from: OffsetDateTime) -> Result<bool, KitError> {
    let record = core::sample_decision(path.grant.client_id.as_str(), subject, path.agent, from)?;
    let insert = core::insert_decision(path.decision, record, None, &mut OsEntropy)?;
    let receipt = store.insert_decision(insert).await?;
    let full = core::decision_full(&receipt);
    holds("a decision is stored, or there is no room", full != core::decision_inserted(&receipt))?;
    Ok(!full)
}

async fn waits(store: &impl Store, path: &Path) -> Result<bool, KitError> {
    Ok(decision(store, path).await?.is_some())
}

async fn a_person_makes_room_for_themselves_only<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    let mut pages = Vec::new();
    // Ada asks three times; the later ones end later.
    for (second, subject) in [(0, "ada"), (1, "ada"), (2, "ada"), (3, "bob"), (4, "bob")] {
        let page = Path::fresh("c1", now)?;
        let from = now.saturating_add(Duration::seconds(second));
        holds("there is room for a few", ask(&store, &page, subject, from).await?)?;
        pages.push(page);
    }
    let [ada, ada2, ada3, bob, bob2] = pages.as_slice() else {
        return Err(KitError::Broken("five pages"));
    };
    holds("a person's oldest page gives way to their newest", !waits(&store, ada).await?)?;
    for page in [ada2, ada3, bob, bob2] {
        holds("and no other", waits(&store, page).await?)?;
    }
    let carol = Path::fresh("c1", now)?;
    holds("where all places are taken, a newcomer finds none", !ask(&store, &carol, "carol", now).await?)?;
    holds("and is not stored", !waits(&store, &carol).await?)?;
    for page in [ada2, ada3, bob, bob2] {
        holds("and takes nobody's", waits(&store, page).await?)?;
    }
    let again = Path::fresh("c1", now)?;
    let later = now.saturating_add(Duration::seconds(9));
    holds("who is there can still ask", ask(&store, &again, "ada", later).await?)?;
    holds("in the place of their own", waits(&store, &again).await? && !waits(&store, ada2).await?)?;
    for page in [ada3, bob, bob2] {
        holds("and of nobody else", waits(&store, page).await?)?;
    }
    Ok(())
}

async fn what_has_ended_makes_room<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    let ended = now.saturating_sub(Duration::minutes(11));
    for subject in ["ada", "bob", "carol", "dan"] {
        let page = Path::fresh("c1", now)?;
        holds("there is room", ask(&store, &page, subject, ended).await?)?;
    }
    let page = Path::fresh("c1", now)?;
    holds("a page that has ended takes no room", ask(&store, &page, "eve", now).await?)?;
    holds("and the new one waits", waits(&store, &page).await?)
}

/// Registers a client; says whether there was room.
async fn register(store: &impl Store, id: &str, created: OffsetDateTime) -> Result<bool, KitError> {
    let insert = core::insert_client(core::sample_client(id, created)?, &mut OsEntropy)?;
    let receipt = store.insert_client(insert).await?;
    holds("no identifier was taken", core::client_full(&receipt) != core::client_inserted(&receipt))?;
    Ok(!core::client_full(&receipt))
}

async fn known(store: &impl Store, id: &str) -> Result<bool, KitError> {
    Ok(client(store, id).await?.0.is_some())
}

async fn a_client_that_something_rests_on_stays<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    let at = |second: i64| now.saturating_sub(Duration::hours(1)).saturating_add(Duration::seconds(second));
    let mut operator: ClientRecord = core::sample_client("operator", at(0))?;
    operator.origin = ClientOrigin::PreRegistered;
    store.put_client(operator).await?;
    holds("there is room", register(&store, "used", at(1)).await?)?;
    Path::fresh("used", now)?.up_to_refresh(&store).await?;
    for (second, id) in [(2, "asked"), (3, "approved"), (4, "idle")] {
        holds("used clients and the operator's take no room", register(&store, id, at(second)).await?)?;
    }
    let asked = Path::fresh("asked", now)?;
    asked.ask(&store).await?;
    Path::fresh("approved", now)?.ask_and_approve(&store).await?;

    holds("a newcomer finds room", register(&store, "newer", at(5)).await?)?;
    holds("in the place of the oldest that nothing rests on", !known(&store, "idle").await?)?;
    for id in ["operator", "used", "asked", "approved", "newer"] {
        holds("and of no other", known(&store, id).await?)?;
    }
    Path::fresh("newer", now)?.ask(&store).await?;
    holds("where something rests on all, a newcomer finds none", !register(&store, "late", at(6)).await?)?;
    holds("and is not stored", !known(&store, "late").await?)?;
    for id in ["operator", "used", "asked", "approved", "newer"] {
        holds("and takes nobody's place", known(&store, id).await?)?;
    }
    let denied = core::decide_once(asked.decision, asked.agent, SUBJECT, None, &mut OsEntropy)?;
    let _denied = store.decide_once(denied).await?;
    holds("what was denied makes room", register(&store, "late", at(7)).await?)?;
    holds("in its place", !known(&store, "asked").await?)?;

    // What has ended is nothing that a client could lose.
    let mut ended = Path::fresh("late", now)?;
    ended.grant.authenticated = now.saturating_sub(Duration::minutes(11));
    ended.ask_and_approve(&store).await?;
    ended.decision = random_digest()?;
    ended.ask(&store).await?;
    holds("a page and a code that have ended hold no place", register(&store, "last", at(8)).await?)?;
    holds("of their client", !known(&store, "late").await?)
}

async fn a_document_without_room_is_not_shown<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    for (subject, id) in [("ada", "c1"), ("bob", "c2"), ("carol", "c3")] {
        holds("there is room", register(&store, id, now).await?)?;
        holds("and for a page", ask(&store, &Path::fresh(id, now)?, subject, now).await?)?;
    }
    let mut document = core::sample_client("https://client.example/id", now)?;
    document.origin = ClientOrigin::MetadataDocument;
    let page = Path::fresh("https://client.example/id", now)?;
    let show = async |document: &ClientRecord| -> Result<bool, KitError> {
        let id = document.client_id.as_str();
        let record = core::sample_decision(id, "dan", page.agent, now)?;
        let insert = core::insert_decision(page.decision, record, Some(document.clone()), &mut OsEntropy)?;
        Ok(!core::decision_full(&store.insert_decision(insert).await?))
    };
    holds("a client of a document takes a place too", !show(&document).await?)?;
    holds("without one, its page does not wait", !waits(&store, &page).await?)?;
    holds("nor is it known", !known(&store, document.client_id.as_str()).await?)?;
    for id in ["c1", "c2", "c3"] {
        holds("and takes nobody's place", known(&store, id).await?)?;
    }
    // A registration that nothing rests on any more makes room.
    let withdrawn = store.find_client(core::find_client(ClientId::new("c1")?)).await?;
    let record = core::client_found(withdrawn).0.ok_or(KitError::Broken("a client is known"))?;
    let _deleted = store.delete_client(core::delete_client(&record, &mut OsEntropy)?).await?;
    holds("with one, it is shown", show(&document).await? && waits(&store, &page).await?)?;
    holds("and known", known(&store, document.client_id.as_str()).await?)
}

async fn a_client_that_was_asked_for_is_not_swept<S: Store>(store: S) -> Checked {
    let now = clock(&store).await?;
    let long_ago = now.saturating_sub(Duration::days(31));
    for id in ["asked", "approved", "idle"] {
        register(&store, id, long_ago).await?;
    }
    Path::fresh("asked", now)?.ask(&store).await?;
    Path::fresh("approved", now)?.ask_and_approve(&store).await?;
    store.sweep().await?;
    holds("a client stays while a page of it waits", known(&store, "asked").await?)?;
    holds("and while a code of it was not redeemed", known(&store, "approved").await?)?;
    holds("and else goes", !known(&store, "idle").await?)
}

/// Pushes a request of that client, which ends so many seconds from now; says whether there was room.
async fn push(
    store: &impl Store,
    (id, of_operator): (&str, bool),
    second: i64,
) -> Result<(SecretDigest, bool), KitError> {
    let (key, end) = (random_digest()?, clock(store).await?.saturating_add(Duration::seconds(second)));
    let insert = core::insert_pushed(key, ClientId::new(id)?, of_operator, end, &mut OsEntropy)?;
    Ok((key, !core::pushed_full(&store.insert_pushed(insert).await?)))
}

async fn is_pushed(store: &impl Store, key: SecretDigest) -> Result<bool, KitError> {
    Ok(core::pushed_found(store.read_pushed(core::read_pushed(key)).await?).is_some())
}

async fn a_client_makes_room_for_itself_only<S: Store>(store: S, of_operator: bool) -> Checked {
    let push = async |id: &str, second: i64| push(&store, (id, of_operator), second).await;
    let there = async |key| is_pushed(&store, key).await;
    let (first, second, third) = (push("c1", 50).await?, push("c1", 51).await?, push("c1", 52).await?);
    holds("a client's pushed requests find room", first.1 && second.1 && third.1)?;
    holds("its oldest gives way", !there(first.0).await?)?;
    let other = push("c2", 40).await?;
    holds("and nobody else's", other.1 && there(second.0).await? && there(third.0).await?)?;
    let more = if of_operator { Some(push("c4", 45).await?) } else { None };
    holds("each kind has as many places as its bound says", more.is_none_or(|more| more.1))?;
    let newcomer = push("c3", 60).await?;
    holds("where all places are taken, a newcomer finds none", !newcomer.1 && !there(newcomer.0).await?)?;
    for key in [second.0, third.0, other.0] {
        holds("and takes nobody's", there(key).await?)?;
    }
    let own = push("c2", 61).await?;
    holds("who is there can still push", own.1 && there(own.0).await? && !there(other.0).await?)
}

/// As many as may wait of one kind, by as many clients as it takes, refuse and take away nothing of the other.
async fn strangers_take_no_room_of_the_operators_clients<S: Store>(store: S) -> Checked {
    let mut waiting = Vec::new();
    for (id, of_operator, second) in
        [("own", true, 50), ("shared", true, 30), ("s1", false, 50), ("s2", false, 51), ("shared", false, 52)]
    {
        let pushed = push(&store, (id, of_operator), second).await?;
        holds("there is room for a few", pushed.1)?;
        waiting.push(pushed.0);
    }
    for id in ["s3", "s4", "s5"] {
        holds("strangers fill their own room", !push(&store, (id, false), 60).await?.1)?;
    }
    for key in &waiting {
        holds("and take nobody's", is_pushed(&store, *key).await?)?;
    }
    for id in ["own", "late"] {
        let pushed = push(&store, (id, true), 55).await?;
        holds("a client of the operator finds its own", pushed.1 && is_pushed(&store, pushed.0).await?)?;
        waiting.push(pushed.0);
    }
    holds("as much as there is", !push(&store, ("later", true), 60).await?.1)?;
    // In the name of a client of the operator, by who has not proved to be it.
    let [_, _, _, _, by_a_stranger, ..] = waiting.as_slice() else { return Err(KitError::Broken("pushes")) };
    let by_a_stranger = *by_a_stranger;
    let again = push(&store, ("shared", false), 61).await?;
    holds("who pushes in another's name takes only what was pushed like that", again.1)?;
    for key in &waiting {
        holds("and no other", is_pushed(&store, *key).await? == (*key != by_a_stranger))?;
    }
    // Where some of the strangers' have gone, there is room for theirs, whatever the operator's clients have taken.
    let record = core::sample_decision(
        "s1",
        SUBJECT,
        Path::fresh("s1", clock(&store).await?)?.agent,
        clock(&store).await?,
    )?;
    let Some(shown) = waiting.get(2) else { return Err(KitError::Broken("pushes")) };
    let insert = core::insert_pushed_decision(random_digest()?, record, *shown, &mut OsEntropy)?;
    let _shown = store.insert_decision(insert).await?;
    holds("what was shown makes room among its own kind", push(&store, ("s6", false), 60).await?.1)?;
    holds("and not among the other", !push(&store, ("later", true), 60).await?.1)
}
