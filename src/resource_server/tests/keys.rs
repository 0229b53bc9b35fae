//! Fetched keys: when they are asked for, what replaces them, and when they end (D42).

use super::*;
use crate::jose::toy::ToyImporter;
use crate::message::exchange::AddressPolicy;

const SET: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"n"}]}"#;

fn at(seconds: i64) -> OffsetDateTime {
    now() + Duration::seconds(seconds)
}

fn schedule() -> KeyCache {
    KeyCache::new(issuer(ISSUER), Endpoint::new("https://as.example/jwks").unwrap(), AddressPolicy::Public)
}

/// The denial of a token that names this key.
fn unknown(kid: &str) -> Denial {
    let header = format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"at+jwt"}}"#);
    let denial = verify(&server(), &key().token(&header, &json(&good_claims()))).unwrap_err();
    assert_eq!(denial.reason(), DenialReason::UnknownKey);
    denial
}

fn fetched(
    keys: &mut KeyCache,
    step: crate::step::Step<Fetch, AwaitingKeySet>,
    now: OffsetDateTime,
) -> FetchedKeys {
    let (fetch, waiting) = step.into_parts();
    assert_eq!((fetch.purpose(), fetch.url()), (FetchPurpose::KeySet, "https://as.example/jwks"));
    keys.receive(waiting, Ok(Reply::new(200, SET)), &ToyImporter, now).unwrap()
}

fn failed(keys: &mut KeyCache, step: crate::step::Step<Fetch, AwaitingKeySet>, now: OffsetDateTime) {
    let (_, waiting) = step.into_parts();
    assert!(keys.receive(waiting, Ok(Reply::new(200, r#"{"keys":[]}"#)), &ToyImporter, now).is_err());
}

fn asked(missing: MissingKey) -> Option<crate::step::Step<Fetch, AwaitingKeySet>> {
    match missing {
        MissingKey::Fetch(step) => Some(step),
        MissingKey::UnderWay | MissingKey::Deny => None,
    }
}

// D42
#[test]
fn keys_are_fetched_at_once_then_when_they_are_due_and_sooner_after_a_failure() {
    let mut keys = schedule();
    let step = keys.timed(at(0)).unwrap();
    assert!(keys.timed(at(0)).is_none(), "one fetch at a time");
    let until = fetched(&mut keys, step, at(1)).until();
    assert_eq!(until, at(1 + limits::KEYS_FRESH_SECONDS + limits::KEYS_STALE_SECONDS));
    assert!(keys.timed(at(limits::KEYS_FRESH_SECONDS)).is_none());
    let step = keys.timed(at(1 + limits::KEYS_FRESH_SECONDS)).unwrap();
    failed(&mut keys, step, at(601));
    assert!(keys.timed(at(601 + limits::KEYS_RETRY_SECONDS - 1)).is_none());
    assert!(keys.timed(at(601 + limits::KEYS_RETRY_SECONDS)).is_some());
    // A host that never reports does not keep the keys from being fetched for ever.
    assert!(keys.timed(at(601 + limits::KEYS_RETRY_SECONDS + 39)).is_none());
    assert!(keys.timed(at(601 + limits::KEYS_RETRY_SECONDS + 40)).is_some());
}

// D42: a clock that ran ahead and was set back leaves nothing behind that waits for the wrong time.
#[test]
fn a_clock_that_was_set_back_does_not_hold_the_keys_up() {
    let year = 365 * 24 * 3600;
    let mut keys = schedule();
    let step = keys.timed(at(year)).unwrap();
    fetched(&mut keys, step, at(year));
    let step = asked(keys.missing(&unknown("genuine"), at(year))).unwrap();
    fetched(&mut keys, step, at(year));
    assert!(keys.timed(at(year)).is_none());
    let step = asked(keys.missing(&unknown("genuine"), at(0))).unwrap();
    fetched(&mut keys, step, at(0));
    let mut keys = schedule();
    let step = keys.timed(at(year)).unwrap();
    assert!(keys.is_under_way(at(year)) && !keys.is_under_way(at(0)));
    fetched(&mut keys, step, at(year));
    assert!(keys.timed(at(0)).is_some());
}

// I-A14, D42
#[test]
fn the_same_document_again_holds_longer_and_leaves_what_is_remembered() {
    let new = ToyKey::new(Algorithm::EdDsa, 0xd7);
    let header = r#"{"alg":"EdDSA","kid":"n","typ":"at+jwt"}"#;
    let theirs = new.token(header, &json(&with("exp", i64::MAX.to_string())));
    let get = |second: i64, document: &str| {
        let mut keys = schedule();
        let (_, waiting) = keys.timed(at(second)).unwrap().into_parts();
        let reply = Reply::new(200, document).with_header("content-type", b"application/json");
        keys.receive(waiting, Ok(reply), &ToyImporter, at(second)).unwrap()
    };
    let mut cache = TokenCache::default();
    let mut remembered = |server: &ResourceServer, second: i64| {
        let presented = server.admit(&bearing(&theirs), &RequiredScopes::none()).unwrap();
        match cache.recall(presented, at(second)) {
            Recalled::Verified(_) => true,
            Recalled::Denied(denial) => panic!("{denial:?}"),
            Recalled::Unknown(presented) => {
                let VerificationOutcome::Verified(verified) = presented.verify(at(second)) else {
                    panic!("a good token")
                };
                cache.keep(&verified, at(second));
                false
            }
        }
    };
    let server = server_with([TrustedIssuer::awaiting_keys(issuer(ISSUER))]);
    assert_eq!(server.awaited_keys().count(), 1);
    let server = server.with_fetched_keys(&get(0, SET)).unwrap();
    assert_eq!(server.awaited_keys().count(), 0);
    assert!(!remembered(&server, 0) && remembered(&server, 1));
    let again = server.clone().with_fetched_keys(&get(2, SET)).unwrap();
    assert!(remembered(&again, 3));
    // Its keys hold as long as they would have without the first time.
    let held = limits::KEYS_FRESH_SECONDS + limits::KEYS_STALE_SECONDS;
    assert!(!remembered(&again, held + 1));
    // Another document, with the same key: everything is verified again.
    let other = again.with_fetched_keys(&get(held + 1, &SET.replacen("{", "{ ", 1))).unwrap();
    assert!(!remembered(&other, held + 1));
}

// D42: invented key names must not turn this server against the issuer, nor starve the timed refresh.
#[test]
fn unknown_key_names_have_a_budget_of_their_own() {
    let mut keys = schedule();
    let step = keys.timed(at(0)).unwrap();
    fetched(&mut keys, step, at(0));
    let step = asked(keys.missing(&unknown("forged-1"), at(1))).unwrap();
    assert!(matches!(keys.missing(&unknown("forged-2"), at(1)), MissingKey::UnderWay));
    failed(&mut keys, step, at(1));
    for second in 2..61 {
        let forged = unknown(&format!("forged-{second}"));
        assert!(matches!(keys.missing(&forged, at(second)), MissingKey::Deny), "{second}");
    }
    assert!(asked(keys.missing(&unknown("forged-61"), at(61))).is_some());
    // Whatever became of those, the timed refresh comes when it is due: the one under way is given up after a while.
    assert!(keys.timed(at(limits::KEYS_FRESH_SECONDS)).is_some());
}

// D42
#[test]
fn a_key_name_that_a_fresh_set_does_not_have_spends_no_budget_again() {
    let mut keys = schedule();
    let step = asked(keys.missing(&unknown("forged"), at(0))).unwrap();
    fetched(&mut keys, step, at(0));
    assert!(matches!(keys.missing(&unknown("forged"), at(100)), MissingKey::Deny));
    assert!(asked(keys.missing(&unknown("genuine"), at(100))).is_some(), "the budget is still there");
    let later = limits::ABSENT_KEY_SECONDS + 100;
    assert!(asked(keys.missing(&unknown("forged"), at(later))).is_some());
}

// D42, I-G1
#[test]
fn what_is_known_not_to_be_there_is_bounded() {
    let mut keys = schedule();
    let most = limits::ABSENT_KEY_SECONDS / limits::UNKNOWN_KEY_SECONDS + 1;
    for n in 0..1000 {
        if let Some(step) = asked(keys.missing(&unknown(&format!("forged-{n}")), at(n * 7))) {
            fetched(&mut keys, step, at(n * 7));
        }
        let known = i64::try_from(format!("{keys:?}").matches("SecretDigest(").count()).unwrap();
        assert!(known <= most, "{known}");
    }
}

#[test]
fn only_a_missing_key_of_this_issuer_calls_for_a_fetch() {
    let mut keys = schedule();
    let expired = verify(&server(), &token(&with("exp", "1"))).unwrap_err();
    assert!(matches!(keys.missing(&expired, at(0)), MissingKey::Deny));
    let other = TrustedIssuer::with_keys(issuer(OTHER_ISSUER), keys_of(key()));
    let header = r#"{"alg":"EdDSA","kid":"x","typ":"at+jwt"}"#;
    let claims = with("iss", format!("\"{OTHER_ISSUER}\""));
    let denial = verify(&server_with([other]), &key().token(header, &json(&claims))).unwrap_err();
    assert_eq!(denial.reason(), DenialReason::UnknownKey);
    assert!(matches!(keys.missing(&denial, at(0)), MissingKey::Deny));
}

// D42, I-A4
#[test]
fn fetched_keys_replace_what_there_was_and_end_when_they_are_too_old() {
    let awaiting = server_with([TrustedIssuer::awaiting_keys(issuer(ISSUER))]);
    let new = ToyKey::new(Algorithm::EdDsa, 0xd7);
    let header = r#"{"alg":"EdDSA","kid":"n","typ":"at+jwt"}"#;
    let long = with("exp", i64::MAX.to_string());
    let theirs = new.token(header, &json(&long));
    let denial = verify(&awaiting, &theirs).unwrap_err();
    assert_eq!((denial.reason(), denial.status()), (DenialReason::KeysUnavailable, 503));
    assert_eq!(denial.challenge(), None);

    let mut keys = schedule();
    let step = asked(keys.missing(&denial, at(0))).unwrap();
    assert!(matches!(keys.missing(&denial, at(0)), MissingKey::UnderWay));
    let got = fetched(&mut keys, step, at(0));
    let server = awaiting.with_fetched_keys(&got).unwrap();
    let verify_at = |server: &ResourceServer, now| match server
        .admit(&bearing(&theirs), &RequiredScopes::none())
        .unwrap()
        .verify(now)
    {
        VerificationOutcome::Verified(_) => None,
        VerificationOutcome::Denied(denial) => Some(denial.reason()),
        VerificationOutcome::Introspect(_) => panic!("the issuer is not to be asked"),
    };
    assert_eq!(verify_at(&server, at(0)), None);
    assert_eq!(verify_at(&server, got.until() - Duration::SECOND), None);
    assert_eq!(verify_at(&server, got.until()), Some(DenialReason::KeysUnavailable));

    // In place of configured ones too, of which nothing is left.
    let replaced = super::server().with_fetched_keys(&got).unwrap();
    assert_eq!(verify(&replaced, &token(&good_claims())).unwrap_err().reason(), DenialReason::UnknownKey);
    assert!(asking_server().with_fetched_keys(&got).is_err());
}

proptest! {
    // D42: whatever is asked and whatever comes back, the issuer is not asked more often than the budgets say.
    #[test]
    fn the_budgets_hold_for_any_sequence(events in proptest::collection::vec((0_i64..20, 0_u8..4, any::<bool>()), 1..200)) {
        let mut keys = schedule();
        let (mut second, mut timed, mut unknowns, mut last_unknown) = (0, 0_i64, 0_i64, None::<i64>);
        for (pause, event, good) in events {
            second += pause;
            let step = match event {
                0 => keys.timed(at(second)).inspect(|_| timed += 1),
                kid => asked(keys.missing(&unknown(&format!("forged-{kid}")), at(second))).inspect(|_| {
                    unknowns += 1;
                }),
            };
            if event != 0 && step.is_some() {
                prop_assert!(last_unknown.is_none_or(|last| second - last >= limits::UNKNOWN_KEY_SECONDS));
                last_unknown = Some(second);
            }
            match step {
                Some(step) if good => drop(fetched(&mut keys, step, at(second))),
                Some(step) => failed(&mut keys, step, at(second)),
                None => {}
            }
        }
        prop_assert!(timed <= 1 + second / limits::KEYS_RETRY_SECONDS);
        prop_assert!(unknowns <= 1 + second / limits::UNKNOWN_KEY_SECONDS);
    }
}

mod places {
    use super::*;

    fn search() -> crate::step::Step<Fetch, AwaitingKeyPlace> {
        find_key_set(issuer("https://as.example/tenant"), AddressPolicy::Public).unwrap()
    }

    fn document(issuer: &str) -> Reply {
        let body = format!(
            r#"{{"issuer":"{issuer}","response_types_supported":["code"],"jwks_uri":"https://keys.example/jwks"}}"#
        );
        Reply::new(200, body).with_header("content-type", b"application/json")
    }

    // D5
    #[test]
    fn each_location_is_asked_until_one_has_a_document() {
        let mut step = search();
        let mut asked = Vec::new();
        let failure = loop {
            let (fetch, waiting) = step.into_parts();
            assert_eq!(fetch.purpose(), FetchPurpose::AuthorizationServerMetadata);
            asked.push(String::from(fetch.url()));
            match waiting.receive(Ok(Reply::new(404, ""))) {
                Ok(KeyPlace::Next(next)) => step = next,
                Ok(KeyPlace::Found(place)) => panic!("{place}"),
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure, KeyPlaceFailure::NotThere);
        assert_eq!(asked, issuer("https://as.example/tenant").metadata_urls());
        let (_, waiting) = search().into_parts();
        let KeyPlace::Next(step) = waiting.receive(Ok(Reply::new(302, ""))).unwrap() else {
            panic!("not followed")
        };
        let found = step.into_parts().1.receive(Ok(document("https://as.example/tenant"))).unwrap();
        assert!(matches!(found, KeyPlace::Found(place) if place.as_str() == "https://keys.example/jwks"));
    }

    // I-L1, RFC8414-3.3-1
    #[test]
    fn a_document_of_another_issuer_names_no_keys() {
        for other in [
            "https://as.example",
            "https://as.example/tenant/",
            "https://evil.example/tenant",
            "https://AS.example/tenant",
        ] {
            let refused = search().into_parts().1.receive(Ok(document(other))).unwrap_err();
            assert_eq!(refused, KeyPlaceFailure::OtherIssuer, "{other}");
        }
    }

    #[test]
    fn a_server_that_fails_or_says_something_else_ends_the_search() {
        let receive = |reply| search().into_parts().1.receive(reply).unwrap_err();
        assert_eq!(receive(Err(FetchFailure::TimedOut)), KeyPlaceFailure::Fetch(FetchFailure::TimedOut));
        assert_eq!(receive(Ok(Reply::new(503, ""))), KeyPlaceFailure::Status(503));
        let json = |body: &str| Ok(Reply::new(200, body).with_header("content-type", b"application/json"));
        assert_eq!(receive(json("{}")), KeyPlaceFailure::Malformed);
        let silent = r#"{"issuer":"https://as.example/tenant","response_types_supported":["code"]}"#;
        assert_eq!(receive(json(silent)), KeyPlaceFailure::NoKeys);
    }
}
