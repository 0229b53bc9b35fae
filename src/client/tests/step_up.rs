//! Step-ups: counted in one place before the person is asked, and back to the session that was there.

use proptest::prelude::*;

use super::session::{VERSION, insufficient};
use super::*;
use crate::client::step_up::{Attempt, StepUpLedger};
use crate::client::{
    AwaitingStepUp, CallbackRecord, CountStepUp, RegistrationRecord, SessionRecord, StepUp, StepUpRecord,
};
use crate::error::{HostMisuse, OutsideFailed};
use crate::message::exchange::FetchFailure;
use crate::sealer::{PlaintextRecords, Sealer, SealerFailed};

fn looped() -> Error {
    PeerMisbehaved::StepUpLoop.into()
}

/// What a 403 for that scope comes to, before anybody is asked.
fn counting(session: Session, scope: &str) -> Result<(CountStepUp, AwaitingStepUp), Error> {
    match session.challenged("op", &insufficient(scope), now()) {
        Ok(StepUp::Count(step)) => Ok(step.into_parts()),
        Ok(other) => panic!("{other:?}"),
        Err(failed) => Err(failed.error),
    }
}

/// Where the person is asked, for a host that keeps nothing.
pub(super) fn asked(session: Session, scope: &str) -> Result<Ready, Error> {
    let (count, state) = counting(session, scope)?;
    Ok(state.counted(count.kept_in_memory()).unwrap())
}

/// A store for the count of one server.
#[derive(Default)]
struct Shelf(Option<Vec<u8>>);

impl Shelf {
    /// The step-up as a host makes it: joined, kept, then asked.
    fn step_up(&mut self, session: Session, scope: &str) -> Result<Ready, Error> {
        let (count, state) = counting(session, scope)?;
        assert_eq!(count.server().as_str(), SERVER);
        let joined = count.join().joined(self.0.as_deref(), &PlaintextRecords)?;
        self.0 = Some(joined.to_bytes());
        Ok(state.counted(count.counted()).unwrap())
    }
}

/// The session after the person consented, which the server granted nothing new of.
fn granted(ready: Ready) -> Session {
    let begun = begin(ready);
    let callback = begun.callback(GENUINE);
    let (_, state) = sent(begun.waiting.receive(callback, &HERE, now(), &mut Counter(5)));
    let (persist, state) = state.receive(Ok(json(TOKENS)), now()).unwrap().into_parts();
    state.persisted(persist.persisted(VERSION)).unwrap()
}

/// The same in the next process, from its record.
fn restarted(session: &Session) -> Session {
    let record = session.record(&PlaintextRecords).unwrap().to_bytes();
    SessionRecord::from_bytes(&record).unwrap().resume(&strict(), &PlaintextRecords, VERSION).unwrap()
}

// D33, I-L8, MCP-AUTH-115: also after each successful exchange.
#[test]
fn a_server_that_challenges_for_ever_is_stopped() {
    let mut session = session(&strict());
    for scope in ["a", "b", "c"] {
        session = granted(asked(session, scope).unwrap());
    }
    assert_eq!(counting(session, "d").unwrap_err(), looped());
    let session = granted(asked(super::session(&strict()), "a").unwrap());
    assert_eq!(counting(session, "a").unwrap_err(), looped(), "asked before");
    let session = granted(asked(super::session(&strict()), "a").unwrap());
    let tomorrow = now() + Duration::days(1);
    assert!(
        session.challenged("op", &insufficient("a"), tomorrow).is_ok(),
        "a denial is forgotten after a day"
    );
    let session = granted(asked(super::session(&strict()), "a").unwrap()).forgetting_step_ups();
    assert!(counting(session, "a").is_ok(), "the person says that it may ask again");
}

// D33: the count is the store's: a restart, a logout and another session begin nothing anew.
#[test]
fn the_count_outlives_processes_and_sessions() {
    let mut shelf = Shelf::default();
    let mut session = session(&strict());
    for scope in ["a", "b", "c"] {
        session = restarted(&granted(shelf.step_up(session, scope).unwrap()));
    }
    assert_eq!(shelf.step_up(session, "d").unwrap_err(), looped(), "after restarts");
    // Logged out, and in again.
    assert_eq!(shelf.step_up(super::session(&strict()), "d").unwrap_err(), looped(), "after a logout");
    // A step-up that the join refuses leaves the session and the record as they were.
    let before = shelf.0.clone();
    let (count, state) = counting(super::session(&strict()), "d").unwrap();
    assert_eq!(count.join().joined(shelf.0.as_deref(), &PlaintextRecords), Err(looped()));
    assert!(state.given_up().authorization_for(SERVER).is_ok());
    assert_eq!(shelf.0, before);
    // What is refused in one process is refused in another that had counted less.
    let renamed = Configuration::new("Another", RedirectUri::new(REDIRECT).unwrap()).policy(policy());
    let error = shelf.step_up(super::session(&client_of(renamed)), "d").unwrap_err();
    assert_eq!(error, looped(), "another configuration does not begin anew either");
}

// Two processes at once: each counted for itself, and the store has both.
#[test]
fn no_process_lowers_what_another_counted() {
    let mut shelf = Shelf::default();
    let (first, second) = (session(&strict()), session(&strict()));
    let _ = shelf.step_up(first, "a").unwrap();
    let _ = shelf.step_up(second, "b").unwrap();
    let (count, _) = counting(session(&strict()), "c").unwrap();
    // The record of an earlier time comes back: what this process knows is joined to it.
    let mut stale = Shelf::default();
    let _ = stale.step_up(session(&strict()), "x").unwrap();
    let joined = count.join().joined(shelf.0.as_deref(), &PlaintextRecords).unwrap();
    shelf.0 = Some(joined.to_bytes());
    assert_eq!(shelf.step_up(session(&strict()), "d").unwrap_err(), looped());
    let mut session = session(&strict());
    for scope in ["a", "b", "c"] {
        session = granted(asked(session, scope).unwrap());
    }
    let mut nothing = Shelf(None);
    assert_eq!(
        nothing.step_up(session, "d").unwrap_err(),
        looped(),
        "an emptied store lowers no count in memory"
    );
}

// D33, MCP-AUTH-115
#[test]
fn another_authorization_server_does_not_begin_the_count_anew() {
    let mut session = session(&strict());
    for scope in ["a", "b", "c"] {
        session = granted(asked(session, scope).unwrap());
    }
    let moved = granted(ready(&strict()).counting_on(&session.into_ready()));
    assert_eq!(counting(moved, "d").unwrap_err(), looped());
}

// D33, D40
#[test]
fn a_server_that_forgets_its_clients_does_not_begin_the_count_anew() {
    let mut session = session(&strict());
    for scope in ["a", "b", "c"] {
        session = granted(asked(session, scope).unwrap());
    }
    let forgotten = session.into_ready();
    let wanted = forgotten.scopes();
    let (_, state) = forgotten.choose_identity().register().unwrap().into_parts();
    let ready = state.receive(Ok(Reply::new(201, "{\"client_id\":\"c2\"}"))).unwrap();
    assert_eq!(ready.client_id().as_str(), "c2");
    assert_eq!(ready.scopes(), wanted);
    assert_eq!(counting(granted(ready), "d").unwrap_err(), looped());
}

// D33: nobody is asked before the receipt, and a receipt is of its own step-up.
#[test]
fn nobody_is_asked_before_the_step_up_is_counted() {
    let (_, state) = counting(session(&strict()), "a").unwrap();
    let (other, _) = counting(session(&strict()), "b").unwrap();
    let failed = state.counted(other.counted()).unwrap_err();
    assert_eq!(failed.error, Error::Host(HostMisuse::ForeignReceipt));
    let session = failed.state.given_up();
    assert_eq!(session.scopes(), &scopes("read"));
    assert!(counting(session, "a").is_ok(), "nothing was counted");
}

#[test]
fn sixty_four_operations_a_day_are_enough() {
    let mut ledger = StepUpLedger::default();
    for number in 0..64 {
        ledger.attempt(&format!("op{number}"), &scopes("a"), now()).unwrap();
    }
    assert_eq!(ledger.attempt("op64", &scopes("a"), now()), Err(looped()));
    assert_eq!(ledger.attempt("op0", &scopes("b"), now()), Ok(()));
    assert_eq!(ledger.attempt("op64", &scopes("a"), now() + Duration::days(1)), Ok(()));
}

// The tokens of a session are good for what they were, whatever becomes of the step-up.
#[test]
fn a_step_up_that_comes_to_nothing_leaves_the_session_that_was_there() {
    let same = |ready: Ready| {
        let session = ready.earlier_session().unwrap();
        assert_eq!(session.authorization_for(SERVER).unwrap().expose(), "Bearer at-1");
        assert_eq!((session.scopes(), session.can_refresh()), (&scopes("read"), true));
        let again = begin(session.into_ready());
        assert_eq!(
            parameters(&again.url).get("scope"),
            Some("read"),
            "not asked for again with the next login"
        );
    };
    let step_up = || asked(granted(ready(&strict())), "write").unwrap();
    same(step_up());
    // Denied.
    let begun = begin(step_up());
    assert_eq!(parameters(&begun.url).get("scope"), Some("read write"));
    let denied = begun.callback("&error=access_denied&iss=https%3A%2F%2Fas.example");
    match begun.waiting.receive(denied, &HERE, now(), &mut Counter(5)) {
        CallbackOutcome::Refused(_, ready) => same(ready),
        other => panic!("{other:?}"),
    }
    // Mixed up.
    let begun = begin(step_up());
    let callback = begun.callback("&code=c&iss=https%3A%2F%2Fevil.example");
    match begun.waiting.receive(callback, &HERE, now(), &mut Counter(5)) {
        CallbackOutcome::Rejected(failed) => same(failed.state),
        other => panic!("{other:?}"),
    }
    // Nobody came back. That the registration is good, the session shows (D40).
    let failed = begin(step_up()).waiting.timed_out();
    assert_eq!(failed.error.remedy(), Remedy::Reauthorize);
    same(failed.state);
    // The exchange failed.
    let begun = begin(step_up());
    let callback = begun.callback(GENUINE);
    let (_, state) = sent(begun.waiting.receive(callback, &HERE, now(), &mut Counter(5)));
    same(state.receive(Err(FetchFailure::TimedOut), now()).unwrap_err().state);
}

#[test]
fn an_earlier_session_ends_with_its_place() {
    // A grant that succeeded replaces it.
    let session = granted(asked(granted(ready(&strict())), "write").unwrap());
    assert!(session.into_ready().earlier_session().is_err());
    // A login without a session before it has none.
    let ready = ready(&strict()).earlier_session().unwrap_err();
    assert_eq!(ready.client_id().as_str(), "c1");
    // Another identity has none.
    let stepping = asked(granted(ready), "write").unwrap();
    let (_, state) = stepping.choose_identity().register().unwrap().into_parts();
    let other = state.receive(Ok(Reply::new(201, "{\"client_id\":\"c2\"}"))).unwrap();
    assert!(other.earlier_session().is_err());
    // A parked login does not take its tokens along: the store has them.
    let parked = begin(asked(granted(super::ready(&strict())), "write").unwrap()).waiting;
    let record = parked.park(&PlaintextRecords).unwrap();
    let opened = String::from_utf8_lossy(
        &crate::syntax::base64url::decode(
            crate::syntax::json::JsonObject::parse(&record.to_bytes(), 65536)
                .unwrap()
                .required_string("sealed")
                .unwrap(),
        )
        .unwrap(),
    )
    .into_owned();
    assert!(!opened.contains("at-1") && !opened.contains("rt-1"), "{opened}");
    let back = CallbackRecord::from_bytes(&record.to_bytes()).unwrap();
    let back = back.resume(&strict(), &PlaintextRecords, now()).unwrap();
    assert!(back.abandon().earlier_session().is_err());
}

// D40
#[test]
fn a_login_that_nobody_came_back_from_is_registered_anew_once() {
    let failed = begin(ready(&strict())).waiting.timed_out();
    assert_eq!(failed.error, Error::Outside(OutsideFailed::NoCallback { reregister: true }));
    assert_eq!(failed.error.remedy(), Remedy::Reregister);
    let (_, state) = failed.state.choose_identity().register().unwrap().into_parts();
    let anew = state.receive(Ok(Reply::new(201, "{\"client_id\":\"c2\"}"))).unwrap();
    assert_eq!(begin(anew).waiting.timed_out().error.remedy(), Remedy::Reauthorize, "once");
    let client = client_of(configuration().pre_registered(pre_registered()));
    let configured = choosing_identity(&client, &[]).pre_registered().unwrap();
    assert_eq!(begin(configured).waiting.timed_out().error.remedy(), Remedy::Reauthorize);
}

#[test]
fn the_count_belongs_to_its_server_and_is_sealed() {
    let mut shelf = Shelf::default();
    let _ = shelf.step_up(session(&strict()), "a").unwrap();
    let bytes = shelf.0.clone().unwrap();
    let record = StepUpRecord::from_bytes(&bytes).unwrap();
    assert_eq!(record.server(), &server());
    let text = String::from_utf8(bytes.clone()).unwrap();
    let (count, _) = counting(session(&strict()), "b").unwrap();
    let join = |bytes: &[u8]| count.join().joined(Some(bytes), &PlaintextRecords).map(drop);
    assert_eq!(join(&bytes), Ok(()));
    let elsewhere = text.replace(SERVER, "https://mcp.example/other");
    assert!(join(elsewhere.as_bytes()).is_err());
    assert_eq!(join(b"{}"), Err(HostMisuse::ForeignRecord.into()));
    assert_eq!(join(b""), Err(HostMisuse::ForeignRecord.into()), "an emptied record is no count of nothing");
    let later = text.replace("\"version\":1", "\"version\":2");
    assert_eq!(join(later.as_bytes()), Err(HostMisuse::LaterRecord.into()));
    let earlier = text.replace("\"version\":1", "\"version\":0");
    assert_eq!(join(earlier.as_bytes()), Err(HostMisuse::EarlierRecord.into()));
    assert!(RegistrationRecord::from_bytes(&bytes).is_err());
    // PlaintextRecords
    let unnamed = client_of(configuration().policy(Policy::strict()));
    let (count, _) = counting(session(&unnamed), "a").unwrap();
    let error = count.join().joined(None, &PlaintextRecords).unwrap_err();
    assert_eq!(names(&error.remedy()), Some("PlaintextRecords"));
    assert!(count.join().joined(None, &Broken).is_err());
}

struct Broken;

impl Sealer for Broken {
    fn seal(&self, _: &[u8], _: &[u8]) -> Result<Vec<u8>, SealerFailed> {
        Err(SealerFailed)
    }

    fn open(&self, _: &[u8], _: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>, SealerFailed> {
        Err(SealerFailed)
    }
}

prop_compose! {
    fn attempt()(count in 0_u32..4, hours in 0_i64..48, bits in 0_u8..8) -> Attempt {
        let asked = ["a", "b", "c"].iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0);
        let asked = asked.flat_map(|(_, text)| scopes(text).iter().cloned().collect::<Vec<_>>()).collect();
        Attempt { count, since: now() + Duration::hours(hours), asked }
    }
}

prop_compose! {
    fn ledger()(attempts in proptest::collection::btree_map("[xyz]", attempt(), 0..4)) -> StepUpLedger {
        StepUpLedger { attempts }
    }
}

proptest! {
    // D33: joining is the same in every order, and no count is lower than it was on either side.
    #[test]
    fn joining_lowers_nothing(one in ledger(), other in ledger()) {
        let joined = |a: &StepUpLedger, b: &StepUpLedger| { let mut a = a.clone(); a.join(b); a };
        let both = joined(&one, &other);
        prop_assert_eq!(&both, &joined(&other, &one));
        prop_assert_eq!(&both, &joined(&both, &one));
        for side in [&one, &other] {
            for (operation, attempt) in &side.attempts {
                let after = &both.attempts[operation];
                prop_assert!(after.count >= attempt.count && after.since >= attempt.since);
                prop_assert!(attempt.asked.is_subset_of(&after.asked));
            }
        }
    }
}
