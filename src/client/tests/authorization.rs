//! From an identity to tokens.

use super::*;
use crate::client::CallbackRecord;
use crate::error::{HostMisuse, OutsideFailed};
use crate::message::exchange::FetchFailure;
use crate::pkce::CodeChallenge;
use crate::sealer::{PlaintextRecords, Sealer, SealerFailed};
use crate::secret::CodeVerifier;

// OAUTH21-4.1.1-1, OAUTH21-4.1.1-3, OAUTH21-4.1.1-5, MCP-AUTH-051, MCP-AUTH-054, MCP-AUTH-062, I-L5
#[test]
fn the_request_has_everything_once_and_fresh() {
    let begun = begin(ready(&strict()));
    let form = parameters(&begun.url);
    assert!(begun.url.starts_with("https://as.example/authorize?"));
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "c1"),
        ("redirect_uri", REDIRECT),
        ("code_challenge_method", "S256"),
        ("resource", SERVER),
        ("scope", "read"),
    ] {
        assert_eq!(form.get(name), Some(value), "{name}");
    }
    assert!(begun.state().len() >= 22 && CodeChallenge::parse(form.get("code_challenge").unwrap()).is_ok());
    let mut entropy = Counter(100);
    let (open, _) = ready(&strict()).begin(&ScopeSet::new(), HERE, now(), &mut entropy).unwrap().into_parts();
    let other = parameters(open.url());
    for name in ["state", "code_challenge"] {
        assert_ne!(form.get(name), other.get(name), "{name} is fresh for each request");
    }
    assert!(!format!("{open:?}").contains(other.get("state").unwrap()));
    assert_eq!(open.endpoint(), "https://as.example/authorize");
}

// OAUTH21-3.1-3, OAUTH21-3.1-6, I-L6
#[test]
fn an_endpoints_query_is_kept_unless_it_is_in_the_way() {
    let with = |url: &str| ready_with(&strict(), &[("authorization_endpoint", &format!("\"{url}\""))]);
    assert!(
        begin(with("https://as.example/a?tenant=%41"))
            .url
            .starts_with("https://as.example/a?tenant=%41&response_type=")
    );
    let failed = with("https://as.example/a?state=x")
        .begin(&ScopeSet::new(), HERE, now(), &mut Counter(0))
        .unwrap_err();
    assert_eq!(failed.error, Error::Peer(PeerMisbehaved::AuthorizationEndpoint));
    assert_eq!(failed.error.remedy(), Remedy::Refused);
}

// I-G1, D36: scopes are bounded one by one, and together by the URL.
#[test]
fn what_does_not_fit_into_a_url_is_not_asked_for() {
    let asking = |count: usize| {
        let scope: Vec<_> = (0..count).map(|number| format!("{number:0>200}")).collect();
        let (_, state) =
            challenged(&strict(), &challenge(&format!("Bearer scope=\"{}\"", scope.join(" ")))).into_parts();
        let Ok(ResourceMetadataOutcome::Found(state)) = state.receive(Ok(resource_metadata(SERVER, ISSUER)))
        else {
            panic!("no document")
        };
        let (_, state) = state.choose(&issuer(ISSUER), word(ISSUER)).unwrap().into_parts();
        let Ok(ServerMetadataOutcome::Found(state)) = state.receive(Ok(server_metadata(&[]))) else {
            panic!("no document")
        };
        let (_, state) = state.register().unwrap().into_parts();
        let ready = state.receive(Ok(Reply::new(201, "{\"client_id\":\"c1\"}"))).unwrap();
        ready.begin(&ScopeSet::new(), HERE, now(), &mut Counter(0)).map(|_| ()).map_err(|failed| failed.error)
    };
    assert_eq!(asking(35), Ok(()));
    let error = asking(45).unwrap_err();
    assert_eq!(incompatible(&error), &PeerIncompatible::AuthorizationUrlTooLong);
    assert_eq!(error.remedy(), Remedy::Refused);
}

// MCP-AUTH-016, MCP-AUTH-017, MCP-AUTH-083, D16
#[test]
fn scopes_come_of_the_challenge_then_of_the_metadata_then_of_nothing() {
    let asked = |challenge_value: &str, metadata: &str, changes: &[(&str, &str)]| {
        let client = strict();
        let (_, state) = challenged(&client, &challenge(challenge_value)).into_parts();
        let body =
            format!("{{\"resource\":\"{SERVER}\",\"authorization_servers\":[\"{ISSUER}\"]{metadata}}}");
        let Ok(ResourceMetadataOutcome::Found(state)) = state.receive(Ok(json(body))) else {
            panic!("no document")
        };
        let (_, state) = state.choose(&issuer(ISSUER), word(ISSUER)).unwrap().into_parts();
        let Ok(ServerMetadataOutcome::Found(state)) = state.receive(Ok(server_metadata(changes))) else {
            panic!("no document")
        };
        let (_, state) = state.register().unwrap().into_parts();
        let ready = state.receive(Ok(Reply::new(201, "{\"client_id\":\"c1\"}"))).unwrap();
        parameters(&begin(ready).url).get("scope").map(str::to_owned)
    };
    let listed = ",\"scopes_supported\":[\"read\",\"list\"]";
    let offline = [("scopes_supported", "[\"offline_access\"]")];
    assert_eq!(asked("Bearer scope=\"unlisted\"", listed, &[]).as_deref(), Some("unlisted"));
    assert_eq!(asked("Bearer", listed, &[]).as_deref(), Some("list read"));
    assert_eq!(asked("Bearer", "", &[]), None);
    assert_eq!(asked("Bearer", "", &offline), None);
    assert_eq!(asked("Bearer scope=\"read\"", listed, &offline).as_deref(), Some("offline_access read"));
    assert_eq!(asked("Bearer scope=\"read offline_access\"", listed, &[]).as_deref(), Some("read"));
}

#[test]
fn without_randomness_nothing_begins() {
    let failed = ready(&strict()).begin(&ScopeSet::new(), HERE, now(), &mut NoEntropy).unwrap_err();
    assert!(matches!(failed.error, Error::Outside(OutsideFailed::Entropy(_))));
    assert!(failed.state.begin(&ScopeSet::new(), HERE, now(), &mut Counter(0)).is_ok());
}

// I-L4, MCP-AUTH-033, OAUTH21-2.3.3-1, RFC8252-8.10-1: a stranger cannot cancel a login.
#[test]
fn whatever_is_not_ours_gives_the_state_back() {
    let begun = begin(ready(&strict()));
    let state = begun.state();
    let genuine = begun.callback(GENUINE);
    let mut waiting = begun.waiting;
    for url in [
        format!("{REDIRECT}?code=c&state=guess&iss=https%3A%2F%2Fas.example"),
        format!("{REDIRECT}?code=c&iss=https%3A%2F%2Fas.example"),
        format!("{REDIRECT}?error=access_denied"),
        format!("{REDIRECT}/?code=c&state={state}&iss=https%3A%2F%2Fas.example"),
        format!("http://127.0.0.1:4712/callback?code=c&state={state}"),
        format!("http://localhost:4711/callback?code=c&state={state}"),
        format!("https://127.0.0.1:4711/callback?code=c&state={state}"),
    ] {
        match waiting.receive(Callback::from_url(&url).unwrap(), &HERE, now(), &mut Counter(5)) {
            CallbackOutcome::Unsolicited(same) => waiting = same,
            other => panic!("{url}: {other:?}"),
        }
    }
    let other_browser = AgentBinding::session(&[1; 16]).unwrap();
    let CallbackOutcome::Unsolicited(waiting) =
        waiting.receive(genuine.clone(), &other_browser, now(), &mut Counter(5))
    else {
        panic!("another browser's callback was taken")
    };
    let late = waiting.not_after();
    let CallbackOutcome::Unsolicited(waiting) =
        waiting.receive(genuine.clone(), &HERE, late, &mut Counter(5))
    else {
        panic!("too late")
    };
    assert!(matches!(waiting.receive(genuine, &HERE, now(), &mut Counter(5)), CallbackOutcome::Accepted(_)));
}

// MCP-AUTH-034 to MCP-AUTH-040
#[test]
fn the_issuer_is_checked_before_code_and_error() {
    const SILENT: (&str, &str) = ("authorization_response_iss_parameter_supported", "");
    let client = relaxed(Relaxation::SharedRedirect(issuer(ISSUER)));
    let outcome = |announced: bool, rest: &str| {
        let changes: &[_] = if announced { &[] } else { &[SILENT] };
        let begun = begin(ready_with(&client, changes));
        let callback = begun.callback(rest);
        begun.waiting.receive(callback, &HERE, now(), &mut Counter(5))
    };
    for announced in [true, false] {
        assert!(matches!(
            outcome(announced, "&code=c&iss=https%3A%2F%2Fas.example"),
            CallbackOutcome::Accepted(_)
        ));
        let CallbackOutcome::Refused(response, _) =
            outcome(announced, "&error=access_denied&iss=https%3A%2F%2Fas.example")
        else {
            panic!("an error of the right issuer")
        };
        assert_eq!(response.code.as_str(), "access_denied");
        for iss in [
            "https%3A%2F%2Fevil.example",
            "https%3A%2F%2Fas.example%2F",
            "https%3A%2F%2FAS.example",
            "https%3A%2F%2Fas.example%3A443",
        ] {
            for result in ["code=c", "error=access_denied&error_description=pay+here"] {
                let CallbackOutcome::Rejected(failed) = outcome(announced, &format!("&{result}&iss={iss}"))
                else {
                    panic!("{iss} was taken")
                };
                assert_eq!(misbehaved(&failed.error), &PeerMisbehaved::CallbackIssuer);
                assert!(!format!("{failed:?}").contains("pay here"));
            }
        }
    }
    assert!(matches!(outcome(true, "&code=c"), CallbackOutcome::Rejected(_)), "announced and missing");
    assert!(matches!(outcome(true, "&error=x"), CallbackOutcome::Rejected(_)));
    assert!(matches!(outcome(false, "&code=c"), CallbackOutcome::Accepted(_)), "not announced and missing");
}

// I-L3, OAUTH21-4.1.2-5, OAUTH21-4.1.3-8, OAUTH21-7.14-1, MCP-AUTH-052, OAUTH21-3.2-2, D14
#[test]
fn the_code_goes_to_the_recorded_issuers_token_endpoint_with_its_own_verifier() {
    let begun = begin(ready(&strict()));
    let challenge = parameters(&begun.url).get("code_challenge").unwrap().to_owned();
    let callback = begun.callback(GENUINE);
    let (fetch, state) = sent(begun.waiting.receive(callback, &HERE, now(), &mut Counter(5)));
    assert_eq!((fetch.method(), fetch.url()), ("POST", "https://as.example/token"));
    assert_eq!(fetch.content_type(), Some("application/x-www-form-urlencoded"));
    let form = Form::parse(fetch.body()).unwrap();
    for (name, value) in [
        ("grant_type", "authorization_code"),
        ("code", "c"),
        ("client_id", "c1"),
        ("redirect_uri", REDIRECT),
        ("resource", SERVER),
    ] {
        assert_eq!(form.get(name), Some(value), "{name}");
    }
    let verifier = CodeVerifier::new(form.get("code_verifier").unwrap()).unwrap();
    assert_eq!(CodeChallenge::of(&verifier).to_text(), challenge);
    assert_eq!(state.callback_matched().redirect_uri().as_str(), REDIRECT);
    assert_eq!(state.issuer_matched().issuer().as_str(), ISSUER);
}

// D36: without `resource` only where scopes are pinned.
#[test]
fn the_resource_is_left_out_only_by_name_and_with_pinned_scopes() {
    let policy = || Policy::strict().relax(Relaxation::OmitResource(issuer(ISSUER)));
    let ready_of = |identity: PreRegistered, policy: Policy| {
        let client = client_of(configuration().policy(policy).pre_registered(identity));
        choosing_identity(&client, &[]).pre_registered().unwrap()
    };
    let has_resource = |ready: Ready| {
        let begun = begin(ready);
        let asked = parameters(&begun.url).get("resource").is_some();
        let callback = begun.callback(GENUINE);
        let (fetch, _) = sent(begun.waiting.receive(callback, &HERE, now(), &mut Counter(5)));
        let sent = Form::parse(fetch.body()).unwrap().get("resource").is_some();
        assert_eq!(asked, sent);
        asked
    };
    assert!(has_resource(ready_of(pre_registered().scopes(scopes("read")), Policy::strict())));
    assert!(has_resource(ready_of(pre_registered(), policy())), "scopes are not pinned");
    assert!(!has_resource(ready_of(pre_registered().scopes(scopes("read")), policy())));
}

// I-L9, OAUTH21-3.2.3-2, OAUTH21-3.2.3-3, RFC6749-7.1-1, OAUTH21-1.4.1-4, D37
#[test]
fn a_token_reply_is_taken_whole_or_not_at_all() {
    let outcome = |reply: Result<Reply, FetchFailure>| exchanged(&strict()).1.receive(reply, now());
    for body in [
        "{}",
        "[]",
        "",
        "{\"access_token\":\"at\"}",
        "{\"token_type\":\"Bearer\"}",
        "{\"access_token\":\"\",\"token_type\":\"Bearer\"}",
        "{\"access_token\":\"a b\",\"token_type\":\"Bearer\"}",
        "{\"access_token\":\"a\\r\\nb\",\"token_type\":\"Bearer\"}",
        "{\"access_token\":\"at\",\"token_type\":\"mac\"}",
        "{\"access_token\":\"at\",\"token_type\":\"DPoP\"}",
        "{\"access_token\":\"at\",\"token_type\":\"Bearer\",\"expires_in\":\"300\"}",
        "{\"access_token\":\"at\",\"access_token\":\"other\",\"token_type\":\"Bearer\"}",
        "{\"error\":\"invalid_grant\",\"access_token\":\"at\",\"token_type\":\"Bearer\"}",
    ] {
        assert!(outcome(Ok(json(body))).is_err(), "{body}");
    }
    for (reply, remedy) in [
        (Reply::new(400, "{\"error\":\"invalid_grant\"}"), Remedy::Reauthorize),
        (Reply::new(401, "{\"error\":\"invalid_client\"}"), Remedy::Reregister),
        (Reply::new(400, "{\"error\":\"\\u001b[2J\"}"), Remedy::Refused),
    ] {
        let failed = outcome(Ok(reply)).unwrap_err();
        assert_eq!(failed.error.remedy(), remedy);
        assert!(!format!("{}", failed.error).contains('\u{1b}'));
        assert!(
            failed.state.begin(&ScopeSet::new(), HERE, now(), &mut Counter(9)).is_ok(),
            "the host can go on"
        );
    }
    assert!(matches!(outcome(Ok(Reply::new(503, ""))).unwrap_err().error, Error::Outside(_)));
    assert!(outcome(Err(FetchFailure::TimedOut)).is_err());

    let granted = |body: &str| {
        let (persist, state) = outcome(Ok(json(body))).unwrap().into_parts();
        state.persisted(persist.kept_in_memory()).unwrap()
    };
    let silent = granted("{\"access_token\":\"at\",\"token_type\":\"bearer\",\"unknown\":1}");
    assert_eq!((silent.scopes(), silent.expires(), silent.can_refresh()), (&scopes("read"), None, false));
    let less = granted(
        "{\"access_token\":\"at\",\"token_type\":\"BEARER\",\"scope\":\"list\",\"expires_in\":9223372036854775808}",
    );
    assert_eq!(less.scopes(), &scopes("list"));
    assert!(!less.is_expired(now() + Duration::days(365_000), Duration::ZERO));
}

// Receipts: another session's receipt keeps the state waiting.
#[test]
fn tokens_are_there_for_the_receipt_of_their_own_record_only() {
    let (_, one) = exchanged(&strict());
    let (_, two) = exchanged(&strict());
    let (_persist, one) = one.receive(Ok(json(TOKENS)), now()).unwrap().into_parts();
    let (other, _two) = two.receive(Ok(json(TOKENS.replace("at-1", "at-2"))), now()).unwrap().into_parts();
    let failed = one.persisted(other.persisted(crate::client::RecordVersion::new(1))).unwrap_err();
    assert_eq!(failed.error, Error::Host(HostMisuse::ForeignReceipt));
}

struct Xor(u8);

impl Sealer for Xor {
    fn seal(&self, associated: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealerFailed> {
        let plain = PlaintextRecords.seal(associated, plaintext)?;
        Ok(plain.into_iter().map(|byte| byte ^ self.0).collect())
    }

    fn open(&self, associated: &[u8], sealed: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>, SealerFailed> {
        let plain: Vec<u8> = sealed.iter().map(|byte| byte ^ self.0).collect();
        PlaintextRecords.open(associated, &plain)
    }
}

#[test]
fn a_parked_login_resumes_where_it_was_sealed_for_and_nowhere_else() {
    let park = || {
        let begun = begin(ready(&strict()));
        let callback = begun.callback(GENUINE);
        (begun.waiting.park(&Xor(7)).unwrap().to_bytes(), callback)
    };
    let (bytes, callback) = park();
    let resume = |bytes: &[u8], client: &Client, sealer: &dyn Sealer, now| {
        CallbackRecord::from_bytes(bytes).and_then(|record| record.resume(client, sealer, now))
    };
    let waiting = resume(&bytes, &strict(), &Xor(7), now()).unwrap();
    assert!(matches!(waiting.receive(callback, &HERE, now(), &mut Counter(5)), CallbackOutcome::Accepted(_)));
    assert!(resume(&bytes, &strict(), &Xor(8), now()).is_err(), "another key");
    assert!(resume(&bytes, &strict(), &PlaintextRecords, now()).is_err(), "no key");
    assert!(resume(&bytes, &strict(), &Xor(7), now() + Duration::hours(1)).is_err(), "too late");
    let renamed = client_of(Configuration::new("Other", RedirectUri::new(REDIRECT).unwrap()));
    assert!(resume(&bytes, &renamed, &Xor(7), now()).is_err(), "another client");
    let looser = relaxed(Relaxation::AssumeS256(issuer(ISSUER)));
    assert!(resume(&bytes, &looser, &Xor(7), now()).is_err(), "another policy");
    let text = String::from_utf8(bytes.clone()).unwrap();
    for (from, to) in [
        ("https://as.example", "https://evil.example"),
        ("https://mcp.example/notes", "https://mcp.example/other"),
        ("\"version\":3", "\"version\":1"),
        ("\"version\":3", "\"version\":4"),
        ("\"kind\":\"callback\"", "\"kind\":\"session\""),
    ] {
        assert!(text.contains(from));
        assert!(resume(text.replace(from, to).as_bytes(), &strict(), &Xor(7), now()).is_err(), "{from}");
    }
    let agent = crate::syntax::base64url::encode(&HERE.to_bytes());
    let other = crate::syntax::base64url::encode(&AgentBinding::session(&[1; 16]).unwrap().to_bytes());
    assert!(
        resume(text.replace(&agent, &other).as_bytes(), &strict(), &Xor(7), now()).is_err(),
        "another browser"
    );
    assert!(resume(&bytes[..bytes.len() - 8], &strict(), &Xor(7), now()).is_err());
    assert!(resume(b"{}", &strict(), &Xor(7), now()).is_err());
}

// What is inside is checked again, even when the seal is right: a store that forges cannot widen.
#[test]
fn a_resumed_record_passes_todays_checks() {
    let begun = begin(ready(&strict()));
    let bytes = begun.waiting.park(&PlaintextRecords).unwrap().to_bytes();
    let object = crate::syntax::json::JsonObject::parse(&bytes, 1 << 20).unwrap();
    let sealed = crate::syntax::base64url::decode(object.required_string("sealed").unwrap()).unwrap();
    let (associated, plain) = sealed.split_at(32);
    let plain = String::from_utf8(plain.to_vec()).unwrap();
    let envelope = String::from_utf8(bytes.clone()).unwrap();
    let rewritten = |from: &str, to: &str| {
        assert!(plain.contains(from), "{from}");
        let forged = [associated, plain.replace(from, to).as_bytes()].concat();
        let text = envelope
            .replace(object.required_string("sealed").unwrap(), &crate::syntax::base64url::encode(&forged));
        CallbackRecord::from_bytes(text.as_bytes()).unwrap().resume(&strict(), &PlaintextRecords, now())
    };
    assert!(rewritten("\"kind\":\"registered\"", "\"kind\":\"registered\"").is_ok());
    for (from, to) in [
        ("\\\"S256\\\"", "\\\"plain\\\""),
        ("https://as.example/token", "https://169.254.169.254/token"),
        ("\\\"issuer\\\":\\\"https://as.example\\\"", "\\\"issuer\\\":\\\"https://evil.example\\\""),
        ("\"expected\":[\"https://mcp.example/notes\"]", "\"expected\":[\"https://mcp.example/other\"]"),
        ("\"resource\":\"https://mcp.example/notes\"", "\"resource\":\"https://mcp.example/other\""),
        ("\"method\":\"none\"", "\"method\":\"client_secret_basic\""),
    ] {
        assert!(rewritten(from, to).is_err(), "{from}");
    }
}
