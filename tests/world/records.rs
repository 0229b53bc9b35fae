//! The stored forms: what comes back is what went in, and nothing else comes back as anything.

use mcp_authz::authorization_server::record::{
    AccessRecord, ClientCredential, ClientRecord, CodeRecord, DecisionRecord, GrantRecord, InvalidRecord,
    RefreshRecord,
};
use mcp_authz::identifier::{ClientId, RedirectUri, ScopeSet};
use mcp_authz::limits;
use mcp_authz::message::client_metadata::ClientMetadata;
use mcp_authz::secret::SecretDigest;
use mcp_authz::syntax::base64url;
use mcp_authz::time::Duration;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::approvals::{Ask, CALLBACK, operators, world};
use crate::grants::{approval, secret, start};

/// A stored form, read and written again; `None` where it is refused.
type Again = fn(&[u8]) -> Result<Vec<u8>, InvalidRecord>;

/// One record of each kind, with what reads it.
fn samples() -> Vec<(&'static str, String, Again)> {
    let mut world = world();
    let request = world.ask(&Ask::partner()).valid();
    let step = request.show(&world.person(), world.store.now(), &mut world.entropy).unwrap();
    let mut decision = DecisionRecord::clone(step.action().record());
    decision.rememberable = Some(SecretDigest::of(b"metadata"));
    let code = approval("app");
    let grant = code.grant.to_bytes();
    let refresh =
        r#"{"kind":"refresh","version":1,"generation":"18446744073709551615","expires":1800000000}"#
            .to_owned();
    let access =
        r#"{"kind":"access","version":1,"scope":"read","issued":1800000000,"expires":1800000300}"#.to_owned();
    let mut confidential =
        crate::grants::client("c", &["authorization_code"], secret(Some(start() + Duration::DAY)));
    confidential.management = Some(SecretDigest::of(b"management"));
    confidential.gone_since = Some(start());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    vec![
        ("client", text(operators("c", &[CALLBACK]).to_bytes()), |b| {
            ClientRecord::from_bytes(b).map(|it| it.to_bytes())
        }),
        ("client", text(confidential.to_bytes()), |b| ClientRecord::from_bytes(b).map(|it| it.to_bytes())),
        ("decision", text(decision.to_bytes()), |b| DecisionRecord::from_bytes(b).map(|it| it.to_bytes())),
        ("grant", text(grant), |b| GrantRecord::from_bytes(b).map(|it| it.to_bytes())),
        ("code", text(code.to_bytes()), |b| CodeRecord::from_bytes(b).map(|it| it.to_bytes())),
        ("refresh", refresh, |b| RefreshRecord::from_bytes(b, approval("app").grant).map(|it| it.to_bytes())),
        ("access", access, |b| AccessRecord::from_bytes(b, approval("app").grant).map(|it| it.to_bytes())),
    ]
}

#[test]
fn a_record_comes_back_as_it_went() {
    for (kind, stored, again) in samples() {
        assert_eq!(String::from_utf8(again(stored.as_bytes()).unwrap()).unwrap(), stored, "{kind}");
    }
    let code = approval("app");
    assert_eq!(CodeRecord::from_bytes(&code.to_bytes()).unwrap(), code);
}

#[test]
fn a_record_of_another_kind_or_version_is_refused_by_name() {
    for (kind, stored, again) in samples() {
        for changed in [
            stored.replacen(r#""version":1"#, r#""version":2"#, 1),
            stored.replacen(r#""version":1"#, r#""version":"1""#, 1),
            stored.replacen(r#""version":1"#, r#""age":1"#, 1),
            stored.replacen(&format!(r#""kind":"{kind}""#), r#""kind":"other""#, 1),
            format!("{stored} {stored}"),
            stored.replacen('{', r#"{"kind":"x","#, 1),
            String::new(),
        ] {
            assert_ne!(changed, stored);
            assert!(matches!(again(changed.as_bytes()), Err(InvalidRecord::Kind(_))), "{kind}: {changed}");
        }
        for (other, text, _) in samples() {
            assert_eq!(again(text.as_bytes()).is_ok(), other == kind, "{other} read as {kind}");
        }
    }
}

// I-G8: nothing that is missing means anything.
#[test]
fn every_member_is_needed_and_of_its_type() {
    let optional = ["state", "secret_expires", "management", "gone_since", "rememberable"];
    for (kind, stored, again) in samples() {
        let names: Vec<&str> = stored
            .match_indices("\":")
            .filter_map(|(end, _)| stored[..end].rsplit_once('"').map(|(_, name)| name))
            .filter(|name| !name.contains('\\') && *name != "kind" && *name != "version")
            .collect();
        assert!(names.len() > 1, "{kind}: {names:?}");
        for name in names {
            let member = format!("\"{name}\":");
            let missing = stored.replacen(&member, "\"no\":", 1);
            assert_eq!(again(missing.as_bytes()).is_ok(), optional.contains(&name), "{kind}.{name}");
            let at = stored.find(&member).unwrap() + member.len();
            for wrong in ["null,\"no\":", "[],\"no\":", "-1.5,\"no\":", "\"\\u0000\",\"no\":"] {
                let changed = format!("{}{wrong}{}", &stored[..at], &stored[at..]);
                // Whatever the host calls a person is a subject.
                if name == "subject" && wrong.starts_with('"') {
                    continue;
                }
                assert!(again(changed.as_bytes()).is_err(), "{kind}.{name} {wrong}");
            }
        }
    }
}

// MCP-SEC-008, I-P5: what the operator writes down has to be of use, and leaves URLs to documents.
#[test]
fn a_client_that_could_not_be_used_is_not_written_down() {
    let written = |id: &str, metadata: ClientMetadata| {
        let id = ClientId::new(id).unwrap();
        ClientRecord::pre_registered(id, metadata, ClientCredential::None, start()).is_some()
    };
    let with = |redirect_uris| ClientMetadata { redirect_uris, ..ClientMetadata::default() };
    let https = || RedirectUri::new(CALLBACK).unwrap();
    let private = RedirectUri::private_scheme("com.example.app:/cb").unwrap();
    assert!(written("c", with(vec![https()])));
    assert!(!written("c", with(Vec::new())));
    assert!(!written("c", with(vec![https(), private])));
    assert!(!written("https://client.example/id", with(vec![https()])));
}

// I-P6: who signs has keys.
#[test]
fn a_row_that_signs_without_keys_is_refused() {
    let public = String::from_utf8(operators("c", &[CALLBACK]).to_bytes()).unwrap();
    let signs = public.replacen(r#""method":"none""#, r#""method":"private_key_jwt""#, 1);
    assert_eq!(ClientRecord::from_bytes(signs.as_bytes()), Err(InvalidRecord::Member("method")));
}

// I-G8: a list with nothing in it allows nothing, and does not come back as one that is not there.
#[test]
fn an_empty_list_stays_empty() {
    let reread = |metadata: ClientMetadata| {
        let mut record = operators("c", &[CALLBACK]);
        record.metadata = metadata;
        let again = ClientRecord::from_bytes(&record.to_bytes()).unwrap();
        assert_eq!(again.metadata, record.metadata);
        again.metadata
    };
    let said = operators("c", &[CALLBACK]).metadata;
    let absent =
        reread(ClientMetadata { grant_types: None, response_types: None, scope: None, ..said.clone() });
    assert!(absent.uses_grant_type("authorization_code") && absent.uses_response_type("code"));
    assert_eq!(absent.scope, None);
    let empty = reread(ClientMetadata {
        grant_types: Some(Vec::new()),
        response_types: Some(Vec::new()),
        scope: Some(ScopeSet::new()),
        ..said.clone()
    });
    assert!(!empty.uses_grant_type("authorization_code") && !empty.uses_response_type("code"));
    assert_eq!(empty.scope, Some(ScopeSet::new()));
    let nowhere = reread(ClientMetadata { redirect_uris: Vec::new(), ..said });
    assert!(nowhere.redirect_uris.is_empty());
}

// I-G8: nobody is no person.
#[test]
fn a_row_without_a_person_is_refused() {
    let mut seen = 0;
    for (kind, stored, again) in samples() {
        let Some(at) = stored.find(r#""subject":""#) else { continue };
        let at = at + r#""subject":""#.len();
        let end = at + stored[at..].find('"').unwrap();
        let nobody = format!("{}{}", &stored[..at], &stored[end..]);
        assert!(again(nobody.as_bytes()).is_err(), "{kind}: {nobody}");
        seen += 1;
    }
    assert_eq!(seen, 3, "decision, grant, code");
}

// I-P6, OAUTH21-2.1-1: a row cannot be public with a secret, nor confidential without one.
#[test]
fn a_row_is_public_exactly_when_it_has_no_secret() {
    let public = String::from_utf8(operators("c", &[CALLBACK]).to_bytes()).unwrap();
    let digest = base64url::encode(SecretDigest::of(b"s").as_bytes());
    let with_secret = |row: &str| row.replacen('{', &format!(r#"{{"secret_digest":"{digest}","#), 1);
    let method =
        |row: &str, name: &str| row.replacen(r#""method":"none""#, &format!(r#""method":"{name}""#), 1);
    assert!(ClientRecord::from_bytes(with_secret(&public).as_bytes()).is_err());
    for name in ["client_secret_basic", "client_secret_post"] {
        assert!(ClientRecord::from_bytes(method(&public, name).as_bytes()).is_err());
        let record = ClientRecord::from_bytes(with_secret(&method(&public, name)).as_bytes()).unwrap();
        assert!(matches!(record.credential, ClientCredential::Secret { expires: None, .. }));
        assert_eq!(record.credential.method(), name);
    }
    assert!(ClientRecord::from_bytes(with_secret(&method(&public, "private_key_jwt")).as_bytes()).is_err());
    let blank = with_secret(&method(&public, "client_secret_post")).replacen(&digest, "", 1);
    assert!(ClientRecord::from_bytes(blank.as_bytes()).is_err());
}

// A registration that was accepted is readable, however much of it has to be escaped.
#[test]
fn the_largest_metadata_fits_its_row() {
    let uri = RedirectUri::new(CALLBACK).unwrap();
    let mut metadata = ClientMetadata { redirect_uris: vec![uri], ..ClientMetadata::default() };
    let quotes = (limits::DOCUMENT_BYTES - metadata.render().len()) / 2 - 16;
    metadata.contacts = vec!["\"".repeat(quotes)];
    assert!(metadata.render().len() > limits::DOCUMENT_BYTES - 64);
    let id = ClientId::new("c").unwrap();
    let record = ClientRecord::pre_registered(id, metadata, ClientCredential::None, start()).unwrap();
    assert_eq!(ClientRecord::from_bytes(&record.to_bytes()).unwrap(), record);
}

// I-G14: a word that lets a client in is there in one form, or not there.
#[test]
fn what_lets_a_client_in_is_true_or_absent() {
    let mut record = operators("c", &[CALLBACK]);
    for member in ["configured", "initial_access"] {
        (record.configured, record.initial_access) = (member == "configured", member == "initial_access");
        let stored = String::from_utf8(record.to_bytes()).unwrap();
        assert_eq!(ClientRecord::from_bytes(stored.as_bytes()).unwrap(), record);
        let said = format!(r#""{member}":true"#);
        assert_eq!(stored.matches(&said).count(), 1);
        for other in ["false", "1", "null", r#""true""#] {
            let other = stored.replace(&said, &format!(r#""{member}":{other}"#));
            assert!(ClientRecord::from_bytes(other.as_bytes()).is_err(), "{other}");
        }
    }
}

// I-P2: the digest changes with the metadata, and with nothing else.
#[test]
fn the_metadata_digest_is_of_the_metadata() {
    let one = operators("a", &[CALLBACK]);
    assert_eq!(one.metadata_digest(), operators("b", &[CALLBACK]).metadata_digest());
    assert_ne!(one.metadata_digest(), operators("a", &["https://app.example/cb"]).metadata_digest());
    let back = ClientRecord::from_bytes(&one.to_bytes()).unwrap();
    assert_eq!(one.metadata_digest(), back.metadata_digest());
}

proptest! {
    // I-G1, I-G14: damage is an error or changes what the record says, and never a panic.
    #[test]
    fn a_damaged_record_is_read_as_itself_or_not_at_all(which in 0_usize..7, at in any::<Index>(), byte in any::<u8>()) {
        let (_, stored, again) = samples().swap_remove(which);
        let mut bytes = stored.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(written) = again(&bytes) {
            // What was read is written in the one form there is for it.
            prop_assert_eq!(again(&written).unwrap(), written);
        }
    }

    // Epochs are numbers of their own; none can run into another.
    #[test]
    fn epochs_come_back(client in any::<u64>(), subject in any::<u64>(), consent in any::<u64>()) {
        let text = String::from_utf8(approval("app").grant.to_bytes()).unwrap();
        let text = text.replacen("\"0 0 0\"", &format!("\"{client} {subject} {consent}\""), 1);
        let epochs = GrantRecord::from_bytes(text.as_bytes()).unwrap().epochs;
        prop_assert_eq!((epochs.client, epochs.subject, epochs.consent), (client, subject, consent));
    }

    #[test]
    fn epochs_of_another_shape_are_refused(text in select(&["", "0", "0 0", "0 0 0 0", "0 0 -1", "0  0 0", "+1 0 0 ", "0,0,0"][..])) {
        let grant = String::from_utf8(approval("app").grant.to_bytes()).unwrap();
        let grant = grant.replacen("\"0 0 0\"", &format!("\"{text}\""), 1);
        prop_assert!(GrantRecord::from_bytes(grant.as_bytes()).is_err());
    }
}
