//! What ends sessions, of which no store keeps any.

use std::future::Future;
use std::sync::Arc;

use mcp_authz::authorization_server::store::{ReserveOnce, RevocationTarget, RevokeAll};
use mcp_authz::authorization_server::test_kit as core;
use mcp_authz::identifier::{ClientId, Issuer};
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::{Duration, OffsetDateTime};

use super::aging::Minutes;
use super::{Checked, KitError, Path, SUBJECT, clock, holds};
use crate::clock::Clock as _;
use crate::store::{EPOCH_KEPT, ReadSession, SessionFound, Store, epoch_at};

pub(super) async fn run<S, F>(make: &impl Fn() -> F) -> Checked
where
    S: Store,
    F: Future<Output = S>,
{
    a_person_is_revoked_and_nobody_else(make().await).await?;
    everybody_is_told_of_their_own_session(make().await).await
}

async fn found(store: &impl Store, subject: &str) -> Result<SessionFound, KitError> {
    Ok(store.read_session(ReadSession::of(subject)).await?)
}

async fn revoke(store: &impl Store, target: RevocationTarget) -> Checked {
    let _revoked = store.revoke_all(RevokeAll::of(target)).await?;
    Ok(())
}

async fn revoke_person(store: &impl Store, subject: &str) -> Checked {
    revoke(store, RevocationTarget::Subject(subject.to_owned())).await
}

// I-T4
async fn a_person_is_revoked_and_nobody_else<S: Store>(store: S) -> Checked {
    let before = found(&store, SUBJECT).await?;
    holds("nobody is revoked at first", before.epoch == 0 && !before.signed_out)?;
    let path = Path::fresh("c1", clock(&store).await?)?;
    path.up_to_refresh(&store).await?;
    revoke_person(&store, "bob").await?;
    revoke(&store, RevocationTarget::Client(ClientId::new("c1")?)).await?;
    path.withdraw(&store).await?;
    holds("nor by what another allowed, or a client", found(&store, SUBJECT).await?.epoch == 0)?;
    // Of bob nothing was ever stored.
    let bob = found(&store, "bob").await?;
    holds("a person's epoch moves though they granted nothing", bob.epoch > 0)?;
    holds("to no less than the time", bob.epoch >= epoch_at(before.now) && bob.now >= before.now)?;
    revoke_person(&store, "bob").await?;
    let again = found(&store, "bob").await?;
    holds("and only grows", again.epoch > bob.epoch && again.is_revoked_since(bob.epoch))?;
    store.sweep().await?;
    holds("a sweep leaves it", found(&store, "bob").await?.epoch == again.epoch)
}

/// The reservation of that browser.
fn browser(name: &str, until: OffsetDateTime) -> Result<ReserveOnce, KitError> {
    Ok(core::reserve_once("as", Issuer::new("https://as.example")?, name, until))
}

// I-P9: however many ask at once.
async fn everybody_is_told_of_their_own_session<S: Store>(store: S) -> Checked {
    let store = Arc::new(store);
    let until = clock(&store).await?.saturating_add(Duration::minutes(5));
    revoke_person(&store, "bob").await?;
    revoke_person(&store, "eve").await?;
    let _reserved = store.reserve_once(browser("left", until)?).await?;
    let (bob, eve) = (found(&store, "bob").await?.epoch, found(&store, "eve").await?.epoch);
    let mut asked = Vec::new();
    for round in 0..5 {
        for (subject, epoch) in [(SUBJECT, 0), ("bob", bob), ("eve", eve)] {
            for (name, signed_out) in [(None, false), (Some("left"), true), (Some("stayed"), false)] {
                let store = Arc::clone(&store);
                let read = ReadSession::of(subject);
                let read = match name {
                    Some(name) => read.in_browser(browser(name, until)?),
                    None => read,
                };
                let task = tokio::spawn(async move { store.read_session(read).await });
                // Some for themselves, too.
                if round == 0 {
                    tokio::task::yield_now().await;
                }
                asked.push((task, epoch, signed_out));
            }
        }
    }
    for (task, epoch, signed_out) in asked {
        let found = task.await??;
        holds("whoever asks hears of that person", found.epoch == epoch)?;
        holds("and of that browser", found.signed_out == signed_out)?;
        holds("and a session ends by either", found.stands(epoch) != signed_out)?;
        holds("one of an older epoch always", epoch == 0 || !found.stands(epoch.saturating_sub(1)))?;
        // What was forgotten since.
        holds(
            "one of a later epoch by the browser alone",
            found.stands(epoch.saturating_add(1)) != signed_out,
        )?;
    }
    Ok(())
}

/// Somebody who signed in.
struct SignedIn {
    subject: String,
    at: OffsetDateTime,
    epoch: u64,
    is_revoked: bool,
}

/// Whatever order people sign in, are revoked, allow something and are swept in, a session stands if and only if nobody revoked
/// its person since it began.
// I-T4
pub(super) async fn a_session_stands_until_its_person_is_revoked<S: Store>(
    store: S,
    clock: &Minutes,
) -> Checked {
    let mut sessions: Vec<SignedIn> = Vec::new();
    for step in 0..400_u32 {
        // Nobody's choice, and the same each time.
        let drawn = SecretDigest::of(&step.to_be_bytes());
        let [what, who, ..] = *drawn.as_bytes();
        let subject = format!("person-{}", who % 4);
        match what % 9 {
            0..3 => {
                let epoch = found(&store, &subject).await?.epoch;
                sessions.push(SignedIn { subject, at: clock.now(), epoch, is_revoked: false });
            }
            3..5 => {
                revoke_person(&store, &subject).await?;
                let theirs = sessions.iter_mut().filter(|session| session.subject == subject);
                theirs.for_each(|session| session.is_revoked = true);
            }
            5 => store.sweep().await?,
            // A part of the time for which an epoch is kept, and more than half of it.
            6 => clock.pass(Duration::hours(14)),
            7 => clock.pass(Duration::hours(91)),
            // Keeps an epoch for longer.
            _ => {
                let mut page = Path::fresh("c1", clock.now())?;
                page.grant.subject = subject.into();
                page.ask(&store).await?;
            }
        }
        let now = clock.now();
        sessions.retain(|session| now < session.at.saturating_add(EPOCH_KEPT));
        for session in &sessions {
            let stands = found(&store, &session.subject).await?.stands(session.epoch);
            holds("a session ends with everything of its person", !(stands && session.is_revoked))?;
            holds("and by nothing else", stands || session.is_revoked)?;
        }
    }
    // Nothing was granted to anybody.
    clock.pass(EPOCH_KEPT);
    store.sweep().await?;
    for number in 0..4 {
        let forgotten = found(&store, &format!("person-{number}")).await?.epoch == 0;
        holds("an epoch that ends nothing any more is not kept", forgotten)?;
    }
    Ok(())
}
