//! Refresh, alone and beside other processes.

use alloc::string::ToString as _;

use proptest::prelude::*;

use super::*;
use crate::client::{AwaitingClaim, ClaimRefresh, RecordVersion, RefreshOutcome, SessionRecord, Settled};
use crate::error::HostMisuse;
use crate::error::OutsideFailed;
use crate::message::exchange::FetchFailure;
use crate::sealer::PlaintextRecords;
use crate::step::Failed;

fn refreshed(session: Session, reply: Result<Reply, FetchFailure>) -> RefreshOutcome {
    let (fetch, state) = refreshing(session);
    let form = Form::parse(fetch.body()).unwrap();
    assert_eq!(
        (fetch.url(), form.get("grant_type"), form.get("resource")),
        ("https://as.example/token", Some("refresh_token"), Some(SERVER))
    );
    assert_eq!(form.get("scope"), None);
    state.receive(reply, now())
}

fn renewed(session: Session, body: &str) -> Session {
    let RefreshOutcome::Refreshed(step) = refreshed(session, Ok(json(body))) else { panic!("not refreshed") };
    let (commit, state) = step.into_parts();
    match state.committed(commit.committed(RecordVersion::new(2))).unwrap() {
        Settled::Session(session) => session,
        Settled::Ended(failed) => panic!("{failed:?}"),
    }
}

/// Why the grant is over, when the store has no newer session either.
fn over(outcome: RefreshOutcome) -> Failed<Ready> {
    let RefreshOutcome::Ended(step) = outcome else { panic!("{outcome:?}") };
    let (discard, state) = step.into_parts();
    match state.discarded(discard.discarded()).unwrap() {
        Settled::Ended(failed) => failed,
        Settled::Session(session) => panic!("{session:?}"),
    }
}

fn refresh_token(session: Session) -> String {
    let (fetch, _) = refreshing(session);
    Form::parse(fetch.body()).unwrap().get("refresh_token").unwrap().to_owned()
}

// OAUTH21-4.3.2-1, OAUTH21-4.3.2-2, I-L11
#[test]
fn a_new_refresh_token_replaces_and_none_keeps_the_old() {
    let kept = renewed(session(&strict()), "{\"access_token\":\"at-2\",\"token_type\":\"Bearer\"}");
    assert_eq!(kept.authorization_for(SERVER).unwrap().expose(), "Bearer at-2");
    assert_eq!(kept.scopes(), &scopes("read"));
    assert_eq!(refresh_token(kept), "rt-1");
    let rotated = renewed(
        session(&strict()),
        "{\"access_token\":\"at-2\",\"token_type\":\"Bearer\",\"refresh_token\":\"rt-2\"}",
    );
    assert_eq!(refresh_token(rotated), "rt-2");
}

// D39, I-T5
#[test]
fn a_refresh_that_brings_nothing_keeps_the_session_and_one_that_ends_it_says_so() {
    for reply in [
        Ok(Reply::new(503, "")),
        Err(FetchFailure::TimedOut),
        Ok(json("{")),
        Ok(Reply::new(400, "{\"error\":\"temporarily_unavailable\"}")),
    ] {
        let RefreshOutcome::Kept(failed, release) = refreshed(session(&strict()), reply) else {
            panic!("lost")
        };
        assert_eq!(release.fence(), None);
        assert_eq!(failed.state.authorization_for(SERVER).unwrap().expose(), "Bearer at-1");
        assert_eq!(refresh_token(failed.state), "rt-1");
    }
    for code in ["invalid_grant", "invalid_client"] {
        let reply = Reply::new(400, format!("{{\"error\":\"{code}\"}}"));
        let failed = over(refreshed(session(&strict()), Ok(reply)));
        assert!(failed.state.begin(&ScopeSet::new(), HERE, now(), &mut Counter(0)).is_ok());
    }
    let wider = "{\"access_token\":\"at-2\",\"token_type\":\"Bearer\",\"scope\":\"read admin\"}";
    let failed = over(refreshed(session(&strict()), Ok(json(wider))));
    assert_eq!(misbehaved(&failed.error), &PeerMisbehaved::ScopeWidened);
}

/// A session that began with these tokens, after refreshes that were answered with these scopes; over with the last if it
/// went too far. Between each two it is kept and brought back.
fn scopes_after(client: &Client, granted: Option<&str>, refreshes: &[Option<&str>]) -> Option<String> {
    let with = |scope: Option<&str>| {
        let scope = scope.map(|scope| format!(",\"scope\":\"{scope}\"")).unwrap_or_default();
        json(format!("{{\"access_token\":\"at\",\"token_type\":\"Bearer\",\"refresh_token\":\"rt\"{scope}}}"))
    };
    let (_, state) = exchanged(client);
    let (persist, state) = state.receive(Ok(with(granted)), now()).unwrap().into_parts();
    let mut session = state.persisted(persist.kept_in_memory()).unwrap();
    for scope in refreshes {
        let record = session.record(&PlaintextRecords).unwrap();
        session = record.resume(client, &PlaintextRecords, ONE).unwrap();
        let (claim, state) = claiming(session);
        let ClaimOutcome::Claimed(EndpointCall::Fetch(step)) =
            state.claimed(claim.claimed(1), now(), &mut Counter(7)).unwrap()
        else {
            panic!("not claimed")
        };
        session = match step.into_parts().1.receive(Ok(with(*scope)), now()) {
            RefreshOutcome::Refreshed(step) => {
                let (commit, state) = step.into_parts();
                match state.committed(commit.kept_in_memory()).unwrap() {
                    Settled::Session(session) => session,
                    Settled::Ended(failed) => panic!("{failed:?}"),
                }
            }
            RefreshOutcome::Ended(step) => {
                let (discard, state) = step.into_parts();
                let Settled::Ended(failed) = state.discarded(discard.discarded()).unwrap() else {
                    panic!("somebody else's")
                };
                assert_eq!(misbehaved(&failed.error), &PeerMisbehaved::ScopeWidened);
                return None;
            }
            other @ RefreshOutcome::Kept(..) => panic!("{other:?}"),
        };
    }
    Some(session.scopes().to_string())
}

// I-T5, RFC 6749 sections 5.1 and 6
#[test]
fn a_refresh_may_narrow_and_return_and_goes_no_further_than_the_grant() {
    let after = |refreshes: &[Option<&str>]| scopes_after(&strict(), Some("read write"), refreshes);
    assert_eq!(after(&[Some("read")]).as_deref(), Some("read"));
    assert_eq!(
        after(&[Some("read"), Some("read write")]).as_deref(),
        Some("read write"),
        "what it had at first"
    );
    assert_eq!(after(&[Some("read"), Some("write")]).as_deref(), Some("write"));
    assert_eq!(after(&[Some("read"), None]).as_deref(), Some("read write"), "silence means the first grant");
    assert_eq!(after(&[Some("read"), Some("read admin")]), None);
    assert_eq!(after(&[Some("admin")]), None);
}

// The challenge and the metadata name no scope, and neither does the server at the login.
#[test]
fn a_scope_that_is_named_first_at_a_refresh_is_the_grant_from_then_on() {
    let client = strict();
    let (_, state) = challenged(&client, &challenge("Bearer")).into_parts();
    let silent = format!("{{\"resource\":\"{SERVER}\",\"authorization_servers\":[\"{ISSUER}\"]}}");
    let Ok(ResourceMetadataOutcome::Found(state)) = state.receive(Ok(json(silent))) else {
        panic!("refused")
    };
    let (_, state) = state.choose(&issuer(ISSUER), word(ISSUER)).unwrap().into_parts();
    let Ok(ServerMetadataOutcome::Found(state)) = state.receive(Ok(server_metadata(&[]))) else {
        panic!("refused")
    };
    let (_, state) = state.register().unwrap().into_parts();
    let ready = state.receive(Ok(Reply::new(201, "{\"client_id\":\"c1\"}"))).unwrap();
    let begun = begin(ready);
    let callback = begun.callback(GENUINE);
    let (_, state) = sent(begun.waiting.receive(callback, &HERE, now(), &mut Counter(5)));
    let tokens = "{\"access_token\":\"at\",\"token_type\":\"Bearer\",\"refresh_token\":\"rt\"}";
    let (persist, state) = state.receive(Ok(json(tokens)), now()).unwrap().into_parts();
    let session = state.persisted(persist.kept_in_memory()).unwrap();
    assert!(session.scopes().is_empty());
    let named = |scope: &str| {
        format!(
            "{{\"access_token\":\"at\",\"token_type\":\"Bearer\",\"refresh_token\":\"rt\",\"scope\":\"{scope}\"}}"
        )
    };
    let session = renewed(session, &named("read"));
    assert_eq!(session.scopes().to_string(), "read");
    let failed = over(refreshed(session, Ok(json(named("read write")))));
    assert_eq!(misbehaved(&failed.error), &PeerMisbehaved::ScopeWidened);
}

const ONE: RecordVersion = RecordVersion::new(1);
const TWO: RecordVersion = RecordVersion::new(2);

/// A session that a store holds under version one, and its record.
fn stored() -> (Session, SessionRecord) {
    let record = session(&strict()).record(&PlaintextRecords).unwrap();
    (record.clone().resume(&strict(), &PlaintextRecords, ONE).unwrap(), record)
}

fn claiming(session: Session) -> (ClaimRefresh, AwaitingClaim) {
    session.refresh(now(), &mut Counter(1)).unwrap().into_parts()
}

/// A record of the session after a refresh by another process.
fn newer_record() -> SessionRecord {
    renewed(
        session(&strict()),
        "{\"access_token\":\"at-2\",\"token_type\":\"Bearer\",\"refresh_token\":\"rt-2\"}",
    )
    .record(&PlaintextRecords)
    .unwrap()
}

// D39: what is claimed, and for how long.
#[test]
fn a_claim_names_its_place_version_and_end() {
    let (claim, _) = claiming(stored().0);
    assert_eq!((claim.issuer().as_str(), claim.resource().as_str()), (ISSUER, SERVER));
    assert_eq!(claim.version(), Some(ONE));
    assert_eq!(claim.until(), now() + Duration::seconds(60));
    let (claim, _) = claiming(session(&strict()));
    assert_eq!(claim.version(), None, "no store holds it");
}

// D39: superseded, busy and removed send nothing.
#[test]
fn only_who_holds_the_claim_sends_the_refresh_token() {
    let outcome = |answer: fn(ClaimRefresh) -> crate::client::RefreshClaim| {
        let (claim, state) = claiming(stored().0);
        state.claimed(answer(claim), now(), &mut Counter(2)).unwrap()
    };
    let superseded = outcome(|claim| claim.superseded(newer_record(), TWO, &PlaintextRecords).unwrap());
    let ClaimOutcome::Superseded(newer) = superseded else { panic!("{superseded:?}") };
    assert_eq!(newer.authorization_for(SERVER).unwrap().expose(), "Bearer at-2");
    assert_eq!(claiming(newer).0.version(), Some(TWO));
    let busy = outcome(|claim| claim.busy(now()));
    let ClaimOutcome::Busy(same, until) = busy else { panic!("{busy:?}") };
    assert_eq!((same.authorization_for(SERVER).unwrap().expose(), until), ("Bearer at-1", now()));
    let removed = outcome(ClaimRefresh::absent);
    let ClaimOutcome::Ended(failed) = removed else { panic!("{removed:?}") };
    assert_eq!(failed.error, Error::Outside(OutsideFailed::SessionRemoved));
    assert_eq!(failed.error.remedy(), Remedy::Reauthorize);
    let ours = outcome(|claim| claim.claimed(7));
    let ClaimOutcome::Claimed(EndpointCall::Fetch(step)) = ours else { panic!("{ours:?}") };
    let form = Form::parse(step.action().body()).unwrap();
    assert_eq!(form.get("refresh_token"), Some("rt-1"));
}

// A store that fails, or gives a record of another place, changes nothing.
#[test]
fn a_store_that_fails_or_forges_leaves_the_session_as_it_is() {
    let (claim, state) = claiming(stored().0);
    let foreign = |from: &str, to: &str| {
        let text = String::from_utf8(newer_record().to_bytes()).unwrap();
        assert!(text.contains(from));
        SessionRecord::from_bytes(text.replace(from, to).as_bytes()).unwrap()
    };
    let elsewhere = foreign(SERVER, "https://mcp.example/other");
    let failed = claim.superseded(elsewhere, TWO, &PlaintextRecords).unwrap_err();
    assert_eq!(failed.error, Error::Host(HostMisuse::ForeignRecord));
    let another = foreign("\"issuer\":\"https://as.example\"", "\"issuer\":\"https://evil.example\"");
    let failed = failed.state.superseded(another, TWO, &PlaintextRecords).unwrap_err();
    assert_eq!(failed.error, Error::Host(HostMisuse::ForeignRecord));
    let same = state.store_failed();
    assert_eq!(same.authorization_for(SERVER).unwrap().expose(), "Bearer at-1");
    assert_eq!(refresh_token(same), "rt-1");
}

// Receipts: of this very action.
#[test]
fn a_receipt_of_another_claim_commit_or_discard_is_not_taken() {
    let (claim, state) = claiming(stored().0);
    let (other, _) = stored().0.refresh(now(), &mut Counter(99)).unwrap().into_parts();
    let failed = state.claimed(other.claimed(1), now(), &mut Counter(2)).unwrap_err();
    assert_eq!(failed.error, Error::Host(HostMisuse::ForeignReceipt));
    let outcome = failed.state.claimed(claim.claimed(1), now(), &mut Counter(2)).unwrap();
    let ClaimOutcome::Claimed(EndpointCall::Fetch(step)) = outcome else { panic!("{outcome:?}") };
    let RefreshOutcome::Refreshed(ours) = step.into_parts().1.receive(Ok(json(TOKENS)), now()) else {
        panic!()
    };
    let RefreshOutcome::Refreshed(theirs) = refreshed(session(&strict()), Ok(json(TOKENS))) else { panic!() };
    let (_, state) = ours.into_parts();
    let failed = state.committed(theirs.into_parts().0.committed(TWO)).unwrap_err();
    assert_eq!(failed.error, Error::Host(HostMisuse::ForeignReceipt));
    let (commit, state) = failed.state.again().into_parts();
    assert_eq!(commit.fence(), Some(1), "the same action once more");
    assert!(matches!(state.committed(commit.committed(TWO)), Ok(Settled::Session(_))));
    let denied = || Ok(Reply::new(400, "{\"error\":\"invalid_grant\"}"));
    let RefreshOutcome::Ended(ours) = refreshed(session(&strict()), denied()) else { panic!() };
    let (claim, state) = claiming(stored().0);
    let outcome = state.claimed(claim.claimed(3), now(), &mut Counter(44)).unwrap();
    let ClaimOutcome::Claimed(EndpointCall::Fetch(step)) = outcome else { panic!("{outcome:?}") };
    let RefreshOutcome::Ended(theirs) = step.into_parts().1.receive(denied(), now()) else { panic!() };
    let (discard, _) = theirs.into_parts();
    assert_eq!(discard.fence(), Some(3));
    let failed = ours.into_parts().1.discarded(discard.discarded()).unwrap_err();
    let (discard, state) = failed.state.again().into_parts();
    assert!(matches!(state.discarded(discard.discarded()), Ok(Settled::Ended(_))));
}

// D39: a claim that ran out commits nothing, and a refusal is believed only if nobody has renewed the session.
#[test]
fn what_another_process_stored_goes_before_what_this_one_brought() {
    let refreshed = || {
        let (claim, state) = claiming(stored().0);
        let outcome = state.claimed(claim.claimed(1), now(), &mut Counter(2)).unwrap();
        let ClaimOutcome::Claimed(EndpointCall::Fetch(step)) = outcome else { panic!("{outcome:?}") };
        step.into_parts().1
    };
    let late = "{\"access_token\":\"at-late\",\"token_type\":\"Bearer\",\"refresh_token\":\"rt-late\"}";
    let RefreshOutcome::Refreshed(step) = refreshed().receive(Ok(json(late)), now()) else { panic!() };
    let (commit, state) = step.into_parts();
    let receipt = commit.fenced(newer_record(), TWO, &PlaintextRecords).unwrap();
    let Ok(Settled::Session(theirs)) = state.committed(receipt) else { panic!("the stored one counts") };
    assert_eq!(theirs.authorization_for(SERVER).unwrap().expose(), "Bearer at-2");
    let RefreshOutcome::Refreshed(step) = refreshed().receive(Ok(json(late)), now()) else { panic!() };
    let (commit, state) = step.into_parts();
    let Ok(Settled::Ended(failed)) = state.committed(commit.absent()) else { panic!("somebody logged out") };
    assert_eq!(failed.error, Error::Outside(OutsideFailed::SessionRemoved));
    let denied = Reply::new(400, "{\"error\":\"invalid_grant\"}");
    let RefreshOutcome::Ended(step) = refreshed().receive(Ok(denied), now()) else { panic!() };
    let (discard, state) = step.into_parts();
    let receipt = discard.superseded(newer_record(), TWO, &PlaintextRecords).unwrap();
    let Ok(Settled::Session(theirs)) = state.discarded(receipt) else { panic!("nobody is logged out") };
    assert_eq!(theirs.authorization_for(SERVER).unwrap().expose(), "Bearer at-2");
}

#[test]
fn without_randomness_nothing_is_claimed_or_sent() {
    let failed = stored().0.refresh(now(), &mut NoEntropy).unwrap_err();
    assert!(matches!(failed.error, Error::Outside(OutsideFailed::Entropy(_))));
    let (claim, state) = claiming(failed.state);
    let outcome = state.claimed(claim.claimed(1), now(), &mut NoEntropy).unwrap();
    let ClaimOutcome::Kept(failed, release) = outcome else { panic!("{outcome:?}") };
    assert_eq!(
        (release.fence(), release.issuer().as_str(), release.resource().as_str()),
        (Some(1), ISSUER, SERVER)
    );
    assert_eq!(refresh_token(failed.state), "rt-1");
}

/// A store as D39 wants it, an authorization server that rotates without grace, and processes that share both.
#[derive(Default)]
struct Shared {
    version: u64,
    fence: u64,
    claim: Option<(u64, OffsetDateTime)>,
    record: Option<Vec<u8>>,
    /// The number of the one refresh token the server takes; any other ends the family.
    live: u64,
    family_ended: bool,
    sent: Vec<String>,
}

enum Process {
    Idle(Session),
    Claiming(ClaimRefresh, AwaitingClaim),
    Sending(String, AwaitingRefresh),
    Answered(RefreshOutcome),
    LoggedOut,
}

impl Shared {
    fn stored(&self) -> Option<(SessionRecord, RecordVersion)> {
        let record = self.record.as_ref()?;
        Some((SessionRecord::from_bytes(record).unwrap(), RecordVersion::new(self.version)))
    }

    /// One step of one process; the order of all steps is what the property chooses.
    fn step(&mut self, process: Process, at: OffsetDateTime, entropy: &mut Counter) -> Process {
        match process {
            Process::Idle(session) => {
                let (claim, state) = session.refresh(at, entropy).unwrap().into_parts();
                Process::Claiming(claim, state)
            }
            Process::Claiming(claim, state) => {
                let receipt = match (self.stored(), self.claim) {
                    (None, _) => claim.absent(),
                    (Some((record, version)), _) if claim.version() != Some(version) => {
                        claim.superseded(record, version, &PlaintextRecords).unwrap()
                    }
                    (Some(_), Some((_, until))) if at < until => claim.busy(until),
                    (Some(_), _) => {
                        self.fence += 1;
                        self.claim = Some((self.fence, claim.until()));
                        claim.claimed(self.fence)
                    }
                };
                match state.claimed(receipt, at, entropy).unwrap() {
                    ClaimOutcome::Claimed(EndpointCall::Fetch(step)) => {
                        let (fetch, state) = step.into_parts();
                        let form = Form::parse(fetch.body()).unwrap();
                        let token = form.get("refresh_token").unwrap().to_owned();
                        self.sent.push(token.clone());
                        Process::Sending(token, state)
                    }
                    ClaimOutcome::Superseded(session) | ClaimOutcome::Busy(session, _) => {
                        Process::Idle(session)
                    }
                    ClaimOutcome::Ended(_) => Process::LoggedOut,
                    other => panic!("{other:?}"),
                }
            }
            Process::Sending(token, state) => {
                let reply = if !self.family_ended && token == format!("rt-{}", self.live) {
                    self.live += 1;
                    let (access, refresh) = (self.live, self.live);
                    json(format!(
                        "{{\"access_token\":\"at-{access}\",\"token_type\":\"Bearer\",\"refresh_token\":\"rt-{refresh}\"}}"
                    ))
                } else {
                    self.family_ended = true;
                    Reply::new(400, "{\"error\":\"invalid_grant\"}")
                };
                Process::Answered(state.receive(Ok(reply), at))
            }
            Process::Answered(RefreshOutcome::Refreshed(step)) => {
                let (commit, state) = step.into_parts();
                let holds = self.claim.is_some_and(|(fence, _)| Some(fence) == commit.fence());
                let receipt = match self.stored() {
                    None => commit.absent(),
                    Some(_) if holds => {
                        self.version += 1;
                        self.record = Some(commit.record(&PlaintextRecords).unwrap().to_bytes());
                        self.claim = None;
                        commit.committed(RecordVersion::new(self.version))
                    }
                    Some((record, version)) => commit.fenced(record, version, &PlaintextRecords).unwrap(),
                };
                settled(state.committed(receipt).unwrap())
            }
            Process::Answered(RefreshOutcome::Ended(step)) => {
                let (discard, state) = step.into_parts();
                let holds = self.claim.is_some_and(|(fence, _)| Some(fence) == discard.fence());
                let receipt = match self.stored() {
                    Some((record, version)) if !holds => {
                        discard.superseded(record, version, &PlaintextRecords).unwrap()
                    }
                    _ => {
                        self.record = None;
                        discard.discarded()
                    }
                };
                settled(state.discarded(receipt).unwrap())
            }
            Process::Answered(RefreshOutcome::Kept(failed, _)) => panic!("{failed:?}"),
            Process::LoggedOut => Process::LoggedOut,
        }
    }
}

fn settled(settled: Settled) -> Process {
    match settled {
        Settled::Session(session) => Process::Idle(session),
        Settled::Ended(_) => Process::LoggedOut,
    }
}

proptest! {
    // D39, I-L11: whatever the order of their steps, processes that share a store never send one refresh token twice and
    // never log each other out, as long as each finishes within its claim.
    #[test]
    fn processes_that_share_a_store_never_send_a_refresh_token_twice(
        order in proptest::collection::vec(0_usize..4, 1..120)
    ) {
        let (first, record) = stored();
        let mut shared = Shared { version: 1, live: 1, record: Some(record.to_bytes()), ..Shared::default() };
        let mut entropy = Counter(1000);
        let resumed = || record.clone().resume(&strict(), &PlaintextRecords, ONE).unwrap();
        let mut processes = [
            Some(Process::Idle(first)),
            Some(Process::Idle(resumed())),
            Some(Process::Idle(resumed())),
            Some(Process::Idle(resumed())),
        ];
        for index in order {
            let process = processes[index].take().unwrap();
            processes[index] = Some(shared.step(process, now(), &mut entropy));
        }
        let mut sent = shared.sent.clone();
        sent.dedup();
        prop_assert_eq!(&sent, &shared.sent, "a refresh token was sent twice");
        prop_assert!(!shared.family_ended);
        prop_assert!(!processes.iter().flatten().any(|process| matches!(process, Process::LoggedOut)));
    }
}
