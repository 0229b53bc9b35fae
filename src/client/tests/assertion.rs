//! `private_key_jwt`: who the client is, signed for one issuer, once.

use super::*;
use crate::client::{AwaitingTokens, RefreshOutcome};
use crate::error::HostMisuse;
use crate::jose::toy::ToyKey;
use crate::jose::{Algorithm, JwtBuffer, KeySet, UnverifiedJwt};
use crate::message::exchange::FetchFailure;
use crate::step::Step;

fn key() -> ToyKey {
    ToyKey::new(Algorithm::EdDsa, 3)
}

fn client() -> Client {
    client_of(configuration().pre_registered(pre_registered().private_key(key().id("k1"))))
}

fn signing() -> Step<crate::jose::Sign, crate::client::AwaitingAssertion<AwaitingTokens>> {
    let begun = begin(choosing_identity(&client(), &[]).pre_registered().unwrap());
    let callback = begun.callback(GENUINE);
    match begun.waiting.receive(callback, &HERE, now(), &mut Counter(5)) {
        CallbackOutcome::Accepted(EndpointCall::Sign(step)) => step,
        other => panic!("{other:?}"),
    }
}

// RFC7523-2.2-1, RFC7523-3-1, RFC7523BIS-1, RFC7523BIS-3, D19
#[test]
fn the_assertion_is_for_the_issuer_alone_and_for_a_minute() {
    let (sign, state) = signing().into_parts();
    let signature = key().sign(sign.input());
    let (fetch, _) = state.signed(sign.signed(signature).unwrap()).unwrap().into_parts();
    assert_eq!((fetch.url(), fetch.authorization()), ("https://as.example/token", None));
    let form = Form::parse(fetch.body()).unwrap();
    assert_eq!(form.get("client_id"), Some("pre"));
    assert_eq!(form.get("client_secret"), None);
    assert_eq!(
        form.get("client_assertion_type"),
        Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
    );
    let token = form.get("client_assertion").unwrap();
    let mut buffer = JwtBuffer::new();
    let jwt = UnverifiedJwt::parse(token, &mut buffer).unwrap();
    assert_eq!((jwt.token_type(), jwt.kid()), (Some("client-authentication+jwt"), Some("k1")));
    let keys = KeySet::new([(Some("k1".into()), alloc::boxed::Box::new(key()) as _)]).unwrap();
    assert!(jwt.verify(keys.find(Some("k1"), Algorithm::EdDsa).unwrap()).is_ok());
    let claims = crate::syntax::base64url::decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims = crate::syntax::json::JsonObject::parse(&claims, 4096).unwrap();
    for (name, value) in [("iss", "pre"), ("sub", "pre"), ("aud", ISSUER)] {
        assert_eq!(claims.string(name), Ok(Some(value)), "{name}");
    }
    let at = now().unix_timestamp();
    assert_eq!((claims.integer("iat"), claims.integer("exp")), (Ok(Some(at)), Ok(Some(at + 60))));
    assert!(claims.required_string("jti").unwrap().len() >= 22);
    assert_eq!(claims.names().count(), 6);
}

#[test]
fn each_request_has_an_assertion_of_its_own() {
    let inputs = [1, 2].map(|seed| {
        let begun = begin(choosing_identity(&client(), &[]).pre_registered().unwrap());
        let callback = begun.callback(GENUINE);
        match begun.waiting.receive(callback, &HERE, now(), &mut Counter(seed * 100)) {
            CallbackOutcome::Accepted(EndpointCall::Sign(step)) => step.action().input().to_vec(),
            other => panic!("{other:?}"),
        }
    });
    assert_ne!(inputs[0], inputs[1], "the jti is fresh");
    let begun = begin(choosing_identity(&client(), &[]).pre_registered().unwrap());
    let callback = begun.callback(GENUINE);
    assert!(matches!(
        begun.waiting.receive(callback, &HERE, now(), &mut NoEntropy),
        CallbackOutcome::Rejected(_)
    ));
}

#[test]
fn another_signature_is_not_taken_and_a_failed_signer_sends_nothing() {
    let (_, state) = signing().into_parts();
    let (other, _) = crate::jose::Sign::new(key().id("k1"), "JWT", b"{}");
    let signature = key().sign(other.input());
    let failed = state.signed(other.signed(signature).unwrap()).unwrap_err();
    assert_eq!(failed.error, Error::Host(HostMisuse::ForeignReceipt));
    let failed = failed.state.signer_failed().receive(Err(FetchFailure::NotSent), now()).unwrap_err();
    assert!(failed.state.begin(&ScopeSet::new(), HERE, now(), &mut Counter(1)).is_ok(), "the host can go on");
}

// RFC8414-2-9: the algorithms a server lists are the ones it takes.
#[test]
fn a_key_whose_algorithm_the_server_does_not_list_is_refused() {
    let listed = |list: &str| {
        choosing_identity(&client(), &[("token_endpoint_auth_signing_alg_values_supported", list)])
            .pre_registered()
    };
    assert!(listed("[\"ES256\",\"EdDSA\"]").is_ok());
    let failed = listed("[\"ES256\"]").unwrap_err();
    assert_eq!(incompatible(&failed.error), &PeerIncompatible::AssertionAlgorithm);
    assert_eq!(failed.error.remedy(), Remedy::FixConfiguration);
}

#[test]
fn a_refresh_is_signed_too_and_survives_a_restart() {
    let (sign, state) = signing().into_parts();
    let signature = key().sign(sign.input());
    let (_, state) = state.signed(sign.signed(signature).unwrap()).unwrap().into_parts();
    let (persist, state) = state.receive(Ok(json(TOKENS)), now()).unwrap().into_parts();
    let record = persist.record(&crate::sealer::PlaintextRecords).unwrap().to_bytes();
    drop(state);
    let record = crate::client::SessionRecord::from_bytes(&record).unwrap();
    let version = crate::client::RecordVersion::new(1);
    let session = record.resume(&client(), &crate::sealer::PlaintextRecords, version).unwrap();
    let (claim, state) = session.refresh(now(), &mut Counter(8)).unwrap().into_parts();
    let outcome = state.claimed(claim.claimed(1), now(), &mut Counter(9)).unwrap();
    let ClaimOutcome::Claimed(EndpointCall::Sign(step)) = outcome else { panic!("{outcome:?}") };
    let (sign, state) = step.into_parts();
    assert_eq!(sign.key(), &key().id("k1"));
    let RefreshOutcome::Kept(failed, release) =
        state.signer_failed().receive(Err(FetchFailure::NotSent), now())
    else {
        panic!("nothing was sent")
    };
    assert_eq!(release.fence(), Some(1));
    assert!(failed.state.can_refresh());
}
