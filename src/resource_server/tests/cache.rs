//! Remembered tokens (I-A14): the same answers as without a cache, for as long as nothing has changed.

use super::*;

fn at(seconds: i64) -> OffsetDateTime {
    now() + Duration::seconds(seconds)
}

/// What a request gets, through a cache: who, and whether that was remembered.
fn through(
    cache: &mut TokenCache,
    server: &ResourceServer,
    token: &str,
    needs: &RequiredScopes,
    now: OffsetDateTime,
) -> (Result<Authorized, DenialReason>, bool) {
    let presented = match server.admit(&bearing(token), needs) {
        Ok(presented) => presented,
        Err(denial) => return (Err(denial.reason()), false),
    };
    let (verified, remembered) = match cache.recall(presented, now) {
        Recalled::Verified(verified) => (Ok(verified), true),
        Recalled::Denied(denial) => (Err(denial), true),
        Recalled::Unknown(presented) => (
            match presented.verify(now) {
                VerificationOutcome::Verified(verified) => Ok(verified),
                VerificationOutcome::Denied(denial) => Err(denial),
                VerificationOutcome::Introspect(step) => {
                    let reply =
                        Reply::new(200, active(None)).with_header("content-type", b"application/json");
                    step.into_parts().1.receive(Ok(reply), now)
                }
            },
            false,
        ),
    };
    if !remembered {
        match &verified {
            Ok(verified) => cache.keep(verified, now),
            Err(denial) => cache.keep_denial(denial, now),
        }
    }
    (verified.and_then(|verified| verified.authorize(needs)).map_err(|denial| denial.reason()), remembered)
}

#[test]
fn a_token_is_verified_once_and_its_scopes_are_compared_every_time() {
    let (mut cache, server) = (TokenCache::default(), server());
    let token = token(&with("scope", "\"files:read\""));
    let mut call = |needs: &str| {
        let (outcome, remembered) = through(&mut cache, &server, &token, &required(needs), at(0));
        (outcome.map(|authorized| String::from(authorized.subject())), remembered)
    };
    assert_eq!(call("files:read"), (Ok("alice".into()), false));
    assert_eq!(call("files:read"), (Ok("alice".into()), true));
    assert_eq!(call("files:write"), (Err(DenialReason::InsufficientScope), true));
    assert_eq!(call("files:read"), (Ok("alice".into()), true));
}

// I-A14, I-T9
#[test]
fn nothing_is_remembered_at_or_past_its_end() {
    let (mut cache, server) = (TokenCache::default(), server());
    let token = token(&good_claims());
    let mut remembered =
        |seconds| through(&mut cache, &server, &token, &RequiredScopes::none(), at(seconds)).1;
    assert!(!remembered(0));
    assert!(remembered(299));
    // At `exp` it is verified again, and within the leeway still passes; it is not remembered any more.
    assert!(!remembered(300));
    assert!(!remembered(301));
    let (outcome, _) = through(&mut cache, &server, &token, &RequiredScopes::none(), at(330));
    assert_eq!(outcome.unwrap_err(), DenialReason::Expired);
    // Nor is anything remembered for a time before it was verified.
    assert!(!through(&mut cache, &server, &token, &RequiredScopes::none(), at(10)).1);
    assert!(!through(&mut cache, &server, &token, &RequiredScopes::none(), at(5)).1);
}

// I-A14, I-A4
#[test]
fn any_change_of_the_configuration_empties_the_cache() {
    let mut cache = TokenCache::default();
    let server = server();
    let token = token(&good_claims());
    let none = RequiredScopes::none();
    assert!(!through(&mut cache, &server, &token, &none, at(0)).1);
    assert!(through(&mut cache, &server.clone(), &token, &none, at(0)).1, "the same configuration");
    let replaced =
        server.clone().with_replaced_keys(&issuer(ISSUER), keys_of(ToyKey::new(Algorithm::EdDsa, 9)));
    let (outcome, remembered) = through(&mut cache, &replaced.unwrap(), &token, &none, at(0));
    assert_eq!((outcome.unwrap_err(), remembered), (DenialReason::Token(JwsError::Signature), false));
    assert!(cache.is_empty());
    assert!(!through(&mut cache, &server, &token, &none, at(0)).1);
    for changed in [
        server.clone().with_clock_leeway(Duration::ZERO).unwrap(),
        server.clone().with_name("Files"),
        super::server(),
    ] {
        assert!(!through(&mut cache, &changed, &token, &none, at(0)).1);
        assert!(!through(&mut cache, &server, &token, &none, at(0)).1);
    }
}

// What was verified before a change is not remembered after it.
#[test]
fn a_verification_that_a_change_overtook_is_not_kept() {
    let (mut cache, old) = (TokenCache::default(), server());
    let token = token(&good_claims());
    let Recalled::Unknown(presented) =
        cache.recall(old.admit(&bearing(&token), &RequiredScopes::none()).unwrap(), at(0))
    else {
        panic!("nothing is known yet")
    };
    let VerificationOutcome::Verified(verified) = presented.verify(at(0)) else { panic!("a good token") };
    let new =
        old.clone().with_replaced_keys(&issuer(ISSUER), keys_of(ToyKey::new(Algorithm::EdDsa, 9))).unwrap();
    assert!(through(&mut cache, &new, &token, &RequiredScopes::none(), at(0)).0.is_err());
    cache.keep(&verified, at(0));
    assert!(cache.is_empty());
    assert!(through(&mut cache, &new, &token, &RequiredScopes::none(), at(0)).0.is_err());
}

// A token that no cache was asked for has no digest to be found by.
#[test]
fn only_what_was_looked_up_is_kept() {
    let (mut cache, server) = (TokenCache::default(), server());
    let verified = verify(&server, &token(&good_claims())).unwrap();
    cache.keep(&verified, at(0));
    assert!(cache.is_empty());
}

// I-G1
#[test]
fn a_cache_is_bounded_and_the_oldest_go_first() {
    let (mut cache, server) = (TokenCache::new(3), server());
    let none = RequiredScopes::none();
    let tokens: Vec<_> = (0..5).map(|n| token(&with("jti", format!("\"{n}\"")))).collect();
    for token in &tokens {
        assert!(!through(&mut cache, &server, token, &none, at(0)).1);
        assert!(cache.len() <= 3);
    }
    assert!(!through(&mut cache, &server, &tokens[0], &none, at(0)).1);
    assert!(through(&mut cache, &server, &tokens[4], &none, at(0)).1);
    let mut empty = TokenCache::new(0);
    for token in tokens.iter().cycle().take(10) {
        assert!(!through(&mut empty, &server, token, &none, at(0)).1);
        assert!(empty.is_empty());
    }
}

// D32, I-A14
#[test]
fn the_answer_about_an_opaque_token_is_used_for_a_minute_at_most() {
    let (mut cache, server) = (TokenCache::default(), asking_server());
    let mut remembered =
        |seconds| through(&mut cache, &server, "opaque", &RequiredScopes::none(), at(seconds)).1;
    assert!(!remembered(0));
    assert!(remembered(limits::INTROSPECTION_CACHE_SECONDS - 1));
    assert!(!remembered(limits::INTROSPECTION_CACHE_SECONDS));
}

#[test]
fn an_inactive_token_is_remembered_briefly_and_apart() {
    let (mut cache, server) = (TokenCache::new(4), asking_server());
    let none = RequiredScopes::none();
    let inactive = |cache: &mut TokenCache, token: &str, seconds| {
        let presented = server.admit(&bearing(token), &none).unwrap();
        match cache.recall(presented, at(seconds)) {
            Recalled::Denied(denial) => (denial.reason(), true),
            Recalled::Verified(_) => panic!("it was never verified"),
            Recalled::Unknown(presented) => {
                let VerificationOutcome::Introspect(step) = presented.verify(at(seconds)) else {
                    panic!("opaque")
                };
                let reply =
                    Reply::new(200, r#"{"active":false}"#).with_header("content-type", b"application/json");
                let denial = step.into_parts().1.receive(Ok(reply), at(seconds)).unwrap_err();
                cache.keep_denial(&denial, at(seconds));
                (denial.reason(), false)
            }
        }
    };
    assert!(!through(&mut cache, &server, "good", &none, at(0)).1);
    assert_eq!(inactive(&mut cache, "stale", 0), (DenialReason::Inactive, false));
    assert_eq!(
        inactive(&mut cache, "stale", limits::INACTIVE_CACHE_SECONDS - 1),
        (DenialReason::Inactive, true)
    );
    assert_eq!(
        inactive(&mut cache, "stale", limits::INACTIVE_CACHE_SECONDS),
        (DenialReason::Inactive, false)
    );
    // A stranger's invented tokens push no good one out.
    for n in 0..100 {
        inactive(&mut cache, &format!("invented-{n}"), 1);
    }
    assert!(through(&mut cache, &server, "good", &none, at(1)).1);
}

// D32
#[test]
fn a_token_without_an_end_needs_the_relaxation_and_is_asked_about_again() {
    let without_exp = active(Some(("exp", None)));
    assert_eq!(introspected(&without_exp).unwrap_err(), DenialReason::Claim(Some("exp")));
    for seconds in [0, -1, limits::NON_EXPIRING_SECONDS_MOST + 1] {
        let held = introspection().accepting_tokens_without_expiry(Duration::seconds(seconds));
        assert_eq!(held.unwrap_err(), InvalidConfiguration::NonExpiring, "{seconds}");
    }
    let held = introspection().accepting_tokens_without_expiry(Duration::seconds(20)).unwrap();
    let server = server_with([TrustedIssuer::with_introspection(issuer(ISSUER), held)]);
    let receive = |answer: &str| {
        let reply = Reply::new(200, answer).with_header("content-type", b"application/json");
        ask(&server, "opaque").1.receive(Ok(reply), now())
    };
    let authorized = receive(&without_exp).unwrap().authorize(&RequiredScopes::none()).unwrap();
    assert_eq!(authorized.expires_at(), at(20));
    // One that says when it ends is held to it, and one that says it wrongly is refused.
    assert_eq!(
        receive(&active(None)).unwrap().authorize(&RequiredScopes::none()).unwrap().expires_at(),
        at(300)
    );
    assert!(receive(&active(Some(("exp", Some("1"))))).is_err());
    assert!(receive(&active(Some(("exp", Some("null"))))).is_err());
}

proptest! {
    // I-A14: with a cache the answers are those without, whatever is asked in whichever order; a remembered token may
    // only be refused sooner.
    #[test]
    fn a_cache_changes_no_answer(
        calls in proptest::collection::vec((0_usize..6, "[a-c]( [a-c])?", 0_i64..60, any::<bool>()), 1..40),
    ) {
        let mut cache = TokenCache::new(3);
        let servers = [server(), server().with_clock_leeway(Duration::ZERO).unwrap()];
        let tokens: Vec<_> = (0..6_i64).map(|n| {
            let scope = ["a", "b", "c", "a b", "b c", ""][usize::try_from(n).unwrap()];
            let mut claims = with("scope", format!("\"{scope}\""));
            claims.insert("exp", (NOW + 40 * n).to_string());
            token(&claims)
        }).collect();
        let mut second = 0;
        for (which, needs, pause, other) in calls {
            second += pause;
            let (server, needs) = (&servers[usize::from(other)], required(&needs));
            let (cached, _) = through(&mut cache, server, &tokens[which], &needs, at(second));
            let (fresh, _) = through(&mut TokenCache::new(0), server, &tokens[which], &needs, at(second));
            prop_assert_eq!(cached.map(|who| who.scopes()), fresh.map(|who| who.scopes()));
        }
    }
}
