//! The ID tokens that OpenID Connect Core publishes in its appendix A, through the whole of a sign-in: signed with RS256 by the
//! key of A.7, for one client, one nonce and a quarter of an hour of 2011.

use mcp_authz::client::{
    Client, Configuration, EndpointCall, PreRegistered, Provider, SignInOutcome, SignInRecord, SignedIn,
};
use mcp_authz::error::{Error, IdTokenFault, PeerMisbehaved};
use mcp_authz::identifier::{ClientId, Issuer, RedirectUri};
use mcp_authz::jose::JwsError;
use mcp_authz::message::authorization::Callback;
use mcp_authz::message::exchange::Reply;
use mcp_authz::sealer::{Sealer, SealerFailed};
use mcp_authz::secret::{AgentBinding, SecretDigest};
use mcp_authz::syntax::base64url;
use mcp_authz::time::OffsetDateTime;
use mcp_authz_tokio::entropy::OsEntropy;
use mcp_authz_tokio::keys::AwsLcImporter;
use serde_json::{Value, json};
use zeroize::Zeroizing;

const ISSUER: &str = "https://server.example.com";
const CLIENT: &str = "s6BhdRkqt3";
const NONCE: &str = "n-0S6_WzA2Mj";
const REDIRECT: &str = "https://client.example.org/cb";
const ISSUED: i64 = 1_311_280_970;
const EXPIRES: i64 = 1_311_281_970;

/// With the claims of a profile (A.2).
const PROFILE: &str = concat!(
    "eyJraWQiOiIxZTlnZGs3IiwiYWxnIjoiUlMyNTYifQ.ewogImlzcyI6ICJodHRwczovL3NlcnZlci5leGFtcGxlLmNvbSIsC",
    "iAic3ViIjogIjI0ODI4OTc2MTAwMSIsCiAiYXVkIjogInM2QmhkUmtxdDMiLAogIm5vbmNlIjogIm4tMFM2X1d6QTJNaiIsC",
    "iAiZXhwIjogMTMxMTI4MTk3MCwKICJpYXQiOiAxMzExMjgwOTcwLAogIm5hbWUiOiAiSmFuZSBEb2UiLAogImdpdmVuX25hb",
    "WUiOiAiSmFuZSIsCiAiZmFtaWx5X25hbWUiOiAiRG9lIiwKICJnZW5kZXIiOiAiZmVtYWxlIiwKICJiaXJ0aGRhdGUiOiAiM",
    "DAwMC0xMC0zMSIsCiAiZW1haWwiOiAiamFuZWRvZUBleGFtcGxlLmNvbSIsCiAicGljdHVyZSI6ICJodHRwOi8vZXhhbXBsZ",
    "S5jb20vamFuZWRvZS9tZS5qcGciCn0.NTibBYW_ZoNHGm4ZrWCqYA9oJaxr1AVrJCze6FEcac4t_EOQiJFbD2nVEPkUXPuMs",
    "hKjjTn7ESLIFUnfHq8UKTGibIC8uqrBgQAcUQFMeWeg-PkLvDTHk43Dn4_aNrxhmWwMNQfkjqx3wd2Fvta9j8yG2Qn790Gwb",
    "5psGcmBhqMJUUnFrGpyxQDhFIzzodmPokM7tnUxBNj-JuES_4CE-BvZICH4jKLp0TMu-WQsVst0ss-vY2RPdU1MzL59mq_eK",
    "k8Rv9XhxIr3WteA2ZlrgVyT0cwH3hlCnRUsLfHtIEb8k1Y_WaqKUu3DaKPxqRi6u0rN7RO2uZYPzC454xe-mg",
);

/// With the digest of an access token (A.3).
const WITH_TOKEN: &str = concat!(
    "eyJraWQiOiIxZTlnZGs3IiwiYWxnIjoiUlMyNTYifQ.ewogImlzcyI6ICJodHRwczovL3NlcnZlci5leGFtcGxlLmNvbSIsC",
    "iAic3ViIjogIjI0ODI4OTc2MTAwMSIsCiAiYXVkIjogInM2QmhkUmtxdDMiLAogIm5vbmNlIjogIm4tMFM2X1d6QTJNaiIsC",
    "iAiZXhwIjogMTMxMTI4MTk3MCwKICJpYXQiOiAxMzExMjgwOTcwLAogImF0X2hhc2giOiAiNzdRbVVQdGpQZnpXdEYyQW5wS",
    "zlSUSIKfQ.kdqTmftlaXg5WBYBr1wkxhkqCGZPc0k8vTiV5g2jj67jQ7XkrDamYx2bOkZLdZrpMPIzkdYB1nZI_G8vQGQuam",
    "RhJcEIt21kblGPZ-yhEhdkAiZIZLu38rChalDS2Mh0glE_rke5XXRhmqqoEFFdziFdnO3p61-7y51co84OEAZvARSINQaOWI",
    "zvioRfs4zwIFOaT33Vpxfqr8HDyh31zo9eBW2dSQuCa071z0ENWChWoPliK1JCo_Bk9eDg2uwo2ZwhsvHzj6TMQ0lYOTzufS",
    "lSmXIKfjlOsb3nftQeR697_hA-nMZyAdL8_NRfaC37XnAbW8WB9wCfECp7cuNuOg",
);

/// With the digest of a code (A.4).
const WITH_CODE: &str = concat!(
    "eyJraWQiOiIxZTlnZGs3IiwiYWxnIjoiUlMyNTYifQ.ewogImlzcyI6ICJodHRwczovL3NlcnZlci5leGFtcGxlLmNvbSIsC",
    "iAic3ViIjogIjI0ODI4OTc2MTAwMSIsCiAiYXVkIjogInM2QmhkUmtxdDMiLAogIm5vbmNlIjogIm4tMFM2X1d6QTJNaiIsC",
    "iAiZXhwIjogMTMxMTI4MTk3MCwKICJpYXQiOiAxMzExMjgwOTcwLAogImNfaGFzaCI6ICJMRGt0S2RvUWFrM1BrMGNuWHhDb",
    "HRBIgp9.MRPihYtNIcwKTZ_mcMSPfreVytGR4jfl1Tzbv4tH5Jr4WqONs2lUWrIEpZ2joKbZfAGlouAqwqSYpfR3FQYKYvdg",
    "nZ3kjIJ_5M4fAARXHVSciGyhfqB-OhDUMXSHzFHiGKNY9TKSgRfiXf_314WRujpqaDtj2uoXbppobYXvAZIxWtsOein0-t91",
    "LDS39EW4frNWAopKTBBi_XJPlpLVynWTDvNleEBP6UxIMgYJBKlqsP7RGfHTGk3ReXDacR7RGZlIVGa-0qRyDzvNqD7xfu9a",
    "YufUP0oBGqdBGgFVNmwJ7rmB0gdPtC2eJsXq9svCgBBfhRQZxhx1iLJjNc9nSw",
);

/// The modulus of the key (A.7).
const MODULUS: &str = concat!(
    "w7Zdfmece8iaB0kiTY8pCtiBtzbptJmP28nSWwtdjRu0f2GFpajvWE4VhfJAjEsOcwYzay7XGN0b-X84BfC8hmCTOj2b2eHT",
    "7NsZegFPKRUQzJ9wW8ipn_aDJWMGDuB1XyqT1E7DYqjUCEOD1b4FLpy_xPn6oV_TYOfQ9fZdbE5HGxJUzekuGcOKqOQ8M7wf",
    "YHhHHLxGpQVgL0apWuP2gDDOdTtpuld4D2LK1MZK99s9gaSjRHE8JDb1Z4IGhEcEyzkxswVdPndUWzfvWBBWXWxtSUvQGBRk",
    "uy1BHOa4sP6FKjWEeeF7gm7UMs2Nm2QUgNZw6xvEDGaLk4KASdIxRQ",
);

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

fn json_reply(body: &Value) -> Reply {
    Reply::new(200, body.to_string()).with_header("content-type", b"application/json")
}

fn provider(client_id: &str) -> Provider {
    let (issuer, redirect) = (Issuer::new(ISSUER).unwrap(), RedirectUri::new(REDIRECT).unwrap());
    let identity =
        PreRegistered::new(issuer.clone(), ClientId::new(client_id).unwrap(), redirect.clone(), []);
    let client = Client::new(Configuration::new("Host", redirect).pre_registered(identity)).unwrap();
    let document = json!({
        "issuer": ISSUER,
        "authorization_endpoint": format!("{ISSUER}/authorize"),
        "token_endpoint": format!("{ISSUER}/token"),
        "jwks_uri": format!("{ISSUER}/jwks"),
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
    });
    client.sign_in(&issuer).unwrap().into_parts().1.receive(Ok(json_reply(&document))).unwrap()
}

/// Opens what it sealed with that nonce in the place of the one that was drawn.
struct WithNonce<'n>(&'n str);

impl Sealer for WithNonce<'_> {
    fn seal(&self, _: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealerFailed> {
        Ok(plaintext.to_vec())
    }

    fn open(&self, _: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealerFailed> {
        let mut content: Value = serde_json::from_slice(sealed).unwrap();
        content["nonce"] = base64url::encode(SecretDigest::of(self.0.as_bytes()).as_bytes()).into();
        Ok(Zeroizing::new(content.to_string().into_bytes()))
    }
}

/// A sign-in that sent that nonce then, and got this token.
fn signed_in(client_id: &str, nonce: &str, token: &str, (begun, now): (i64, i64)) -> Result<SignedIn, Error> {
    let (provider, browser) = (provider(client_id), AgentBinding::session(&[1; 32]).unwrap());
    let (open, waiting) = provider.begin(browser, at(begun), &mut OsEntropy).unwrap().into_parts();
    let record = waiting.park(&WithNonce(nonce)).unwrap().to_bytes();
    let record = SignInRecord::from_bytes(&record).unwrap();
    let waiting = record.resume(&provider, &WithNonce(nonce), at(begun)).unwrap();
    let state = reqwest::Url::parse(open.url()).unwrap();
    let state = state.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let callback = Callback::from_parts(REDIRECT, &format!("code=c&state={state}")).unwrap();
    let outcome = waiting.receive(callback, &browser, at(begun), &mut OsEntropy);
    let SignInOutcome::Accepted(EndpointCall::Fetch(step)) = outcome else { panic!("{outcome:?}") };
    let reply = json!({ "access_token": "t", "token_type": "Bearer", "id_token": token });
    let waiting = step.into_parts().1.receive(Ok(json_reply(&reply)))?.into_parts().1;
    let keys =
        json!({ "keys": [{ "kty": "RSA", "kid": "1e9gdk7", "n": MODULUS, "e": "AQAB", "alg": "RS256" }] });
    waiting.receive(Ok(json_reply(&keys)), &AwsLcImporter, at(now))
}

fn fault(outcome: Result<SignedIn, Error>) -> IdTokenFault {
    match outcome {
        Err(Error::Peer(PeerMisbehaved::IdToken(fault))) => fault,
        other => panic!("{other:?}"),
    }
}

// OIDCC-3.1.3.7-1 to -9
#[test]
fn the_published_id_tokens_say_who_signed_in() {
    for (token, name) in [(PROFILE, Some("Jane Doe")), (WITH_TOKEN, None), (WITH_CODE, None)] {
        let person = signed_in(CLIENT, NONCE, token, (ISSUED, ISSUED + 30)).unwrap();
        assert_eq!((person.subject(), person.name()), ("248289761001", name));
        assert_eq!(person.local_subject(), "https://server.example.com#248289761001");
        assert_eq!(person.authenticated(), at(ISSUED));
    }
}

#[test]
fn the_published_id_tokens_say_it_to_one_client_for_one_request_in_time() {
    for token in [PROFILE, WITH_TOKEN, WITH_CODE] {
        let of = |client, nonce, times| fault(signed_in(client, nonce, token, times));
        let soon = (ISSUED, ISSUED + 30);
        assert_eq!(of("another", NONCE, soon), IdTokenFault::Audience);
        assert_eq!(of(CLIENT, "n-0S6_WzA2Mk", soon), IdTokenFault::Nonce);
        assert_eq!(of(CLIENT, NONCE, (ISSUED, EXPIRES + 30)), IdTokenFault::Expired);
        assert_eq!(of(CLIENT, NONCE, (ISSUED - 60, ISSUED - 31)), IdTokenFault::IssuedAt);
        assert_eq!(of(CLIENT, NONCE, (ISSUED + 31, ISSUED + 60)), IdTokenFault::IssuedAt);
        // Every part of it is signed: one letter of the claims, and one of the signature.
        for place in [62, token.len() - 20] {
            let mut changed = token.as_bytes().to_vec();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            let fault = fault(signed_in(CLIENT, NONCE, &changed, soon));
            assert_eq!(fault, IdTokenFault::Token(JwsError::Signature), "{place}");
        }
    }
}
