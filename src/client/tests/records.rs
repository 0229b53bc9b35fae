//! Records: pinned bytes, versions, and what a store may bring back.

use proptest::prelude::*;

use super::session::VERSION;
use super::*;
use crate::client::{CallbackRecord, PairingRecord, RegistrationRecord, SessionRecord, StepUpRecord};
use crate::error::HostMisuse;
use crate::identifier::ClientMetadataUrl;
use crate::sealer::{PlaintextRecords, Sealer, SealerFailed};
use crate::syntax::base64url;
use crate::syntax::json::{JsonObject, JsonValue, ObjectWriter};

fn callback_record(client: &Client) -> CallbackRecord {
    begin(ready(client)).waiting.park(&PlaintextRecords).unwrap()
}

fn registration_record(client: &Client) -> RegistrationRecord {
    ready(client).registration_record(&PlaintextRecords).unwrap().unwrap()
}

fn pairing_record(client: &Client) -> Option<PairingRecord> {
    let (_, state) = exchanged(client);
    let (persist, _) = state.receive(Ok(json(TOKENS)), now()).unwrap().into_parts();
    persist.pairing(&PlaintextRecords).unwrap()
}

fn step_up_record() -> StepUpRecord {
    let challenge = super::session::insufficient("write");
    match session(&strict()).challenged("op", &challenge, now()) {
        Ok(crate::client::StepUp::Count(step)) => {
            step.action().join().joined(None, &PlaintextRecords).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

/// Clear part and plaintext, for a reader of this file; the digest of what the record is for stands between.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let object = JsonObject::parse(bytes, 65_536).unwrap();
    let sealed = object.required_string("sealed").unwrap();
    let opened = base64url::decode(sealed).unwrap();
    let plaintext = String::from_utf8(opened[32..].to_vec()).unwrap();
    let (digest, _) = sealed.split_at(43);
    format!("{}\n{digest}\n{plaintext}", text.replace(sealed, "..."))
}

// Other processes and later versions read these bytes: a change is a new version.
#[test]
fn the_bytes_of_every_kind_of_record_are_pinned() {
    insta::assert_snapshot!("callback-3", shown(&callback_record(&strict()).to_bytes()));
    insta::assert_snapshot!(
        "session-3",
        shown(&session(&strict()).record(&PlaintextRecords).unwrap().to_bytes())
    );
    insta::assert_snapshot!("registration-1", shown(&registration_record(&strict()).to_bytes()));
    insta::assert_snapshot!("pairing-1", shown(&pairing_record(&strict()).unwrap().to_bytes()));
    insta::assert_snapshot!("step-up-1", shown(&step_up_record().to_bytes()));
}

// Version 1 held the count of step-ups, which goes on; neither of the two says who vouched for the pair (D36).
#[test]
fn records_of_earlier_versions_resume_where_the_configuration_vouches() {
    let sessions: [&[u8]; 2] =
        [include_bytes!("records/session-1.json"), include_bytes!("records/session-2.json")];
    let callbacks: [&[u8]; 2] =
        [include_bytes!("records/callback-1.json"), include_bytes!("records/callback-2.json")];
    let vouched = client_of(configuration().pre_registered(pre_registered()));
    for bytes in sessions {
        let record = SessionRecord::from_bytes(bytes).unwrap();
        let error = record.clone().resume(&strict(), &PlaintextRecords, VERSION).unwrap_err();
        assert_eq!(error, HostMisuse::IssuerNotAsserted.into());
        let session = record.resume(&vouched, &PlaintextRecords, VERSION).unwrap();
        assert_eq!(session.authorization_for(SERVER).unwrap().expose(), "Bearer at-1");
    }
    let record = SessionRecord::from_bytes(sessions[0]).unwrap();
    let session = record.resume(&vouched, &PlaintextRecords, VERSION).unwrap();
    let again = super::step_up::asked(session, "a").unwrap_err();
    assert_eq!(again, PeerMisbehaved::StepUpLoop.into(), "asked before, in version 1");
    for bytes in callbacks {
        let record = CallbackRecord::from_bytes(bytes).unwrap();
        let error = record.clone().resume(&strict(), &PlaintextRecords, now()).unwrap_err();
        assert_eq!(error, HostMisuse::IssuerNotAsserted.into());
        let waiting = record.clone().resume(&vouched, &PlaintextRecords, now()).unwrap();
        assert_eq!(waiting.redirect_uri().as_str(), REDIRECT);
        // It is still the record of its version if it is put back as it is.
        assert_eq!(record.to_bytes(), bytes);
    }
}

// D36, I-L13: the word is for the pair, and comes from a login that has its tokens.
#[test]
fn the_hosts_word_is_taken_again_for_the_same_pair_only() {
    let record = pairing_record(&strict()).unwrap();
    let said = record.open(&strict(), &PlaintextRecords).unwrap();
    assert!(said.is_for(&server(), &issuer(ISSUER)));
    assert!(choosing_issuer(&strict(), ISSUER).choose(&issuer(ISSUER), Some(said)).is_ok());
    let renamed =
        client_of(Configuration::new("Other", RedirectUri::new(REDIRECT).unwrap()).policy(policy()));
    assert!(record.open(&renamed, &PlaintextRecords).is_err());
    for (from, to) in [(SERVER, "https://evil.example/notes"), (ISSUER, "https://evil.example")] {
        let moved = String::from_utf8(record.to_bytes()).unwrap().replace(from, to);
        let moved = PairingRecord::from_bytes(moved.as_bytes()).unwrap();
        assert!(moved.open(&strict(), &PlaintextRecords).is_err(), "{to}");
    }
    let inside = String::from_utf8(with_member(&plaintext(&record.to_bytes()), "", None)).unwrap();
    let sealer = Tampered(inside.replace(ISSUER, "https://evil.example").into_bytes());
    assert_eq!(record.open(&strict(), &sealer).unwrap_err(), HostMisuse::ForeignRecord.into());
    // Where the configuration speaks for the pair, nobody gave a word that could be kept.
    let client = client_of(configuration().pre_registered(pre_registered()));
    let step = choosing_issuer(&client, ISSUER).choose(&issuer(ISSUER), None).unwrap();
    let Ok(ServerMetadataOutcome::Found(state)) = step.into_parts().1.receive(Ok(server_metadata(&[])))
    else {
        panic!("refused")
    };
    let begun = begin(state.pre_registered().unwrap());
    let callback = begun.callback(GENUINE);
    let (_, state) = sent(begun.waiting.receive(callback, &HERE, now(), &mut Counter(5)));
    let (persist, _) = state.receive(Ok(json(TOKENS)), now()).unwrap().into_parts();
    assert_eq!(persist.pairing(&PlaintextRecords).unwrap(), None);
}

// D36, I-L13: what the host took out of its configuration since.
#[test]
fn a_record_does_not_outlive_the_identity_it_was_made_for() {
    let by_hand = |client_id: &str, resource: &str| {
        let identity = PreRegistered {
            client_id: ClientId::new(client_id).unwrap(),
            resources: [ResourceId::new(resource).unwrap()].into(),
            ..pre_registered()
        };
        client_of(configuration().pre_registered(identity))
    };
    let client = by_hand("pre", SERVER);
    for said in [None, word(ISSUER)] {
        let asserted = said.is_some();
        let step = choosing_issuer(&client, ISSUER).choose(&issuer(ISSUER), said).unwrap();
        let Ok(ServerMetadataOutcome::Found(state)) = step.into_parts().1.receive(Ok(server_metadata(&[])))
        else {
            panic!("refused")
        };
        let begun = begin(state.pre_registered().unwrap());
        let callback = begun.callback(GENUINE);
        let parked = begun.waiting.park(&PlaintextRecords).unwrap();
        let resumed = |client: &Client| parked.clone().resume(client, &PlaintextRecords, now());
        let waiting = resumed(&client).unwrap();
        let (_, state) = sent(waiting.receive(callback, &HERE, now(), &mut Counter(5)));
        let (persist, _) = state.receive(Ok(json(TOKENS)), now()).unwrap().into_parts();
        let session = persist.record(&PlaintextRecords).unwrap();
        let both = |client: &Client| {
            let session = session.clone().resume(client, &PlaintextRecords, VERSION).map(drop);
            assert_eq!(resumed(client).map(drop), session);
            session
        };
        assert_eq!(both(&client), Ok(()));
        let other_resource = both(&by_hand("pre", "https://mcp.example/other"));
        if asserted {
            assert_eq!(other_resource, Ok(()), "the host's word stands");
            assert_eq!(both(&strict()), Err(HostMisuse::IdentityGone.into()));
        } else {
            assert_eq!(other_resource, Err(HostMisuse::IssuerNotAsserted.into()));
            assert_eq!(both(&strict()), Err(HostMisuse::IssuerNotAsserted.into()));
        }
        let renamed = both(&by_hand("another", SERVER)).unwrap_err();
        assert_eq!(renamed, HostMisuse::IdentityGone.into());
        assert_eq!(renamed.remedy(), Remedy::Reauthorize);
    }
}

#[test]
fn versions_that_are_not_read_are_refused_by_name() {
    let with = |bytes: &[u8], from: &str, to: &str| {
        String::from_utf8(bytes.to_vec()).unwrap().replace(from, to).into_bytes()
    };
    let session = session(&strict()).record(&PlaintextRecords).unwrap().to_bytes();
    let registration = registration_record(&strict()).to_bytes();
    let read = |bytes: &[u8]| SessionRecord::from_bytes(bytes).map(drop).map_err(|error| error.remedy());
    let error = SessionRecord::from_bytes(&with(&session, "\"version\":3", "\"version\":4")).unwrap_err();
    assert_eq!(error, HostMisuse::LaterRecord.into());
    let error = SessionRecord::from_bytes(&with(&session, "\"version\":3", "\"version\":0")).unwrap_err();
    assert_eq!(error, HostMisuse::EarlierRecord.into());
    for version in ["\"version\":4", "\"version\":0"] {
        assert_eq!(read(&with(&session, "\"version\":3", version)), Err(Remedy::Reauthorize));
    }
    for version in ["\"version\":\"3\"", "\"version\":3.5", "\"version\":null"] {
        let error = SessionRecord::from_bytes(&with(&session, "\"version\":3", version)).unwrap_err();
        assert_eq!(error, HostMisuse::ForeignRecord.into(), "{version}");
    }
    // A version is authenticated with the rest: a record does not become another version's by its label.
    let relabelled = with(&session, "\"version\":3", "\"version\":1");
    let relabelled = SessionRecord::from_bytes(&relabelled).unwrap();
    assert!(relabelled.resume(&strict(), &PlaintextRecords, VERSION).is_err());
    let error = RegistrationRecord::from_bytes(&with(&registration, "\"version\":1", "\"version\":2"));
    assert_eq!(error.unwrap_err(), HostMisuse::LaterRecord.into());
}

// The answer comes where the request said; a login that begins later says where this process listens.
#[test]
fn a_parked_login_keeps_its_port() {
    let moved = RedirectUri::new("http://127.0.0.1:5000/callback").unwrap();
    let restarted = client_of(Configuration::new("Test", moved).policy(policy()));
    let waiting = callback_record(&strict()).resume(&restarted, &PlaintextRecords, now()).unwrap();
    assert_eq!(waiting.redirect_uri().as_str(), REDIRECT);
}

// D36: an identity registered by hand has today's pins.
#[test]
fn a_record_does_not_take_an_identity_beyond_its_pins() {
    let client = |pins: &str| {
        let identity = pre_registered().scopes(scopes(pins));
        client_of(configuration().pre_registered(identity))
    };
    let wide = client("read write");
    let ready = choosing_identity(&wide, &[]).pre_registered().unwrap();
    let parked = begin(ready).waiting.park(&PlaintextRecords).unwrap();
    let back = parked.resume(&client("read"), &PlaintextRecords, now()).unwrap().abandon();
    let (open, _) = back.begin(&scopes("write"), HERE, now(), &mut Counter(0)).unwrap().into_parts();
    assert_eq!(parameters(open.url()).get("scope"), Some("read"));
}

/// A sealer that opens every record to the same plaintext: what a broken key store, or a thief of the key, could bring.
struct Tampered(Vec<u8>);

impl Sealer for Tampered {
    fn seal(&self, _: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealerFailed> {
        Ok(plaintext.to_vec())
    }

    fn open(&self, _: &[u8], _: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>, SealerFailed> {
        Ok(zeroize::Zeroizing::new(self.0.clone()))
    }
}

/// The plaintext of a genuine record.
fn plaintext(bytes: &[u8]) -> JsonObject {
    let sealed = JsonObject::parse(bytes, 65_536).unwrap();
    let opened = base64url::decode(sealed.required_string("sealed").unwrap()).unwrap();
    JsonObject::parse(&opened[32..], 65_536).unwrap()
}

/// The object with one member replaced, or left out.
fn with_member(object: &JsonObject, name: &str, value: Option<JsonValue>) -> Vec<u8> {
    let others = object.names().filter(|known| *known != name);
    let writer = others
        .fold(ObjectWriter::new(), |writer, known| writer.value(known, object.get(known).unwrap().clone()));
    match value {
        Some(value) => writer.value(name, value),
        None => writer,
    }
    .finish()
}

// I-L3: a seal that opens everything does not turn the session of one server into another's.
#[test]
fn what_is_inside_a_record_is_for_what_is_outside() {
    let client = strict();
    let session = || session(&client).record(&PlaintextRecords).unwrap();
    let callback = || callback_record(&client);
    for (from, to) in [(SERVER, "https://mcp.example/other"), (ISSUER, "https://evil.example")] {
        let elsewhere = |bytes: &[u8]| {
            let plaintext = with_member(&plaintext(bytes), "", None);
            Tampered(String::from_utf8(plaintext).unwrap().replace(from, to).into_bytes())
        };
        let sealer = elsewhere(&session().to_bytes());
        assert_eq!(
            session().resume(&client, &sealer, VERSION).unwrap_err(),
            HostMisuse::ForeignRecord.into()
        );
        let sealer = elsewhere(&callback().to_bytes());
        assert_eq!(callback().resume(&client, &sealer, now()).unwrap_err(), HostMisuse::ForeignRecord.into());
    }
}

const WILD: [&str; 16] = [
    "",
    "https://evil.example",
    "https://evil.example/notes",
    "https://mcp.example",
    "https://as.example/",
    "http://127.0.0.1:1/x",
    "https://10.0.0.1/",
    "read write admin",
    "com.evil.app:/cb",
    "http://localhost:4711/callback",
    "https://app.evil.example/cb",
    "private_key_jwt",
    "client_secret_post",
    "pre-registered",
    "javascript:alert(1)",
    "{\"issuer\":\"https://as.example\",\"authorization_endpoint\":\"https://10.0.0.1/a\",\"token_endpoint\":\"https://as.example/token\",\"response_types_supported\":[\"code\"],\"code_challenge_methods_supported\":[\"plain\"]}",
];

fn wild() -> impl Strategy<Value = Option<JsonValue>> {
    let text = proptest::sample::select(&WILD[..]).prop_map(|text| JsonValue::String(text.into()));
    prop_oneof![
        Just(None),
        text.clone().prop_map(Some),
        text.prop_map(|text| Some(JsonValue::Array([text].into()))),
        Just(Some(JsonValue::Array(Vec::new()))),
        Just(Some(JsonValue::Null)),
        any::<i32>().prop_map(|number| Some(JsonValue::Integer(number.into()))),
    ]
}

/// What holds of every flow that comes out of a record, whatever was in it.
fn check(ready: Ready) -> Result<(), TestCaseError> {
    prop_assert_eq!(ready.issuer().as_str(), ISSUER);
    prop_assert_eq!(ready.resource_matched().resource().as_str(), SERVER);
    let metadata = &ready.0.server.metadata;
    prop_assert!(metadata.lists_s256());
    for endpoint in [&metadata.authorization_endpoint, &metadata.token_endpoint] {
        let url = endpoint.as_ref().unwrap().as_str();
        prop_assert!(
            url.starts_with("https://as.example/") || url.starts_with("https://evil.example"),
            "{}",
            url
        );
    }
    // Where the browser comes back is a place that the policy allows.
    if let Ok(step) = ready.begin(&ScopeSet::new(), HERE, now(), &mut Counter(0)) {
        let (open, _) = step.into_parts();
        let form = parameters(open.url());
        let redirect = form.get("redirect_uri").unwrap();
        prop_assert!(
            redirect.starts_with("http://127.0.0.1:4711/") || redirect.starts_with("https://"),
            "{}",
            redirect
        );
        prop_assert_eq!(form.get("code_challenge_method"), Some("S256"));
        prop_assert_eq!(form.get("resource"), Some(SERVER));
    }
    Ok(())
}

proptest! {
    // I-G1: bytes from a store are refused or read, and never panic.
    #[test]
    fn records_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<proptest::sample::Index>(), flip in 1_u8..) {
        let _ = (SessionRecord::from_bytes(&bytes), CallbackRecord::from_bytes(&bytes));
        let _ = (RegistrationRecord::from_bytes(&bytes), StepUpRecord::from_bytes(&bytes));
        let mut genuine = session(&strict()).record(&PlaintextRecords).unwrap().to_bytes();
        let at = at.index(genuine.len());
        genuine[at] ^= flip;
        if let Ok(record) = SessionRecord::from_bytes(&genuine) {
            let _ = record.resume(&strict(), &PlaintextRecords, VERSION);
        }
    }

    // Even where the seal is worth nothing, the checks of the first flow are made again.
    #[test]
    fn a_mutated_record_never_resumes_with_looser_checks(member in any::<proptest::sample::Index>(), value in wild(), inner in any::<bool>()) {
        let mutated = |object: &JsonObject| {
            let names: Vec<String> = object.names().map(Into::into).collect();
            let name = &names[member.index(names.len())];
            match object.get("identity") {
                Some(JsonValue::Object(identity)) if inner => {
                    let names: Vec<String> = identity.names().map(Into::into).collect();
                    let identity = with_member(identity, &names[member.index(names.len())], value.clone());
                    let identity = JsonObject::parse(&identity, 65_536).unwrap();
                    with_member(object, "identity", Some(JsonValue::Object(identity)))
                }
                _ => with_member(object, name, value.clone()),
            }
        };
        let client = strict();
        let record = session(&client).record(&PlaintextRecords).unwrap();
        let sealer = Tampered(mutated(&plaintext(&record.to_bytes())));
        if let Ok(session) = record.resume(&client, &sealer, VERSION) {
            prop_assert!(session.authorization_for("https://evil.example/notes").is_err());
            prop_assert!(session.authorization_for("https://mcp.example/other").is_err());
            check(session.into_ready())?;
        }
        let record = callback_record(&client);
        let sealer = Tampered(mutated(&plaintext(&record.to_bytes())));
        if let Ok(waiting) = record.resume(&client, &sealer, now()) {
            let late = waiting.not_after();
            let redirect = waiting.redirect_uri().clone();
            let guess = Callback::from_url(&format!("{redirect}?code=c&state=guess&iss=https%3A%2F%2Fas.example"));
            let waiting = match waiting.receive(guess.unwrap(), &HERE, now(), &mut Counter(5)) {
                CallbackOutcome::Unsolicited(waiting) => waiting,
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert!(late > now());
            check(waiting.abandon())?;
        }
        let record = registration_record(&client);
        let sealer = Tampered(mutated(&plaintext(&record.to_bytes())));
        if let Ok(ready) = choosing_identity(&client, &[]).registered(&record, &sealer, now()) {
            prop_assert_eq!(ready.identity_kind(), crate::client::IdentityKind::Registered);
            check(ready)?;
        }
        let document = client_of(configuration().metadata_document(ClientMetadataUrl::new("https://app.example/c").unwrap()));
        let _ = document.callback_paths([&record], &sealer);
    }

    // A plaintext that is no record at all.
    #[test]
    fn any_plaintext_is_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (client, sealer) = (strict(), Tampered(bytes));
        prop_assert!(session(&client).record(&PlaintextRecords).unwrap().resume(&client, &sealer, VERSION).is_err());
        prop_assert!(callback_record(&client).resume(&client, &sealer, now()).is_err());
        prop_assert!(choosing_identity(&client, &[]).registered(&registration_record(&client), &sealer, now()).is_err());
    }
}

// The answer comes on the port that was asked for; whatever is asked next, on this process's.
#[test]
fn a_callback_that_another_process_asked_for_leaves_this_ones_port_to_later_requests() {
    let redirect_uri = RedirectUri::new("http://127.0.0.1:5000/callback").unwrap();
    let other = client_of(Configuration { redirect_uri, ..configuration() });
    let waiting = callback_record(&strict()).resume(&other, &PlaintextRecords, now()).unwrap();
    assert_eq!(waiting.redirect_uri().as_str(), "http://127.0.0.1:4711/callback");
    let (open, _) =
        waiting.abandon().begin(&ScopeSet::new(), HERE, now(), &mut Counter(0)).unwrap().into_parts();
    assert_eq!(parameters(open.url()).get("redirect_uri"), Some("http://127.0.0.1:5000/callback"));
}
