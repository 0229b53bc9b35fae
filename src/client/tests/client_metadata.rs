//! What the client publishes about itself, and the callback path that each server without `iss` gets of it.

use proptest::prelude::*;

use super::*;
use crate::client::{CallbackPaths, DocumentKeys, RegistrationRecord};
use crate::error::HostMisuse;
use crate::identifier::{ClientMetadataUrl, Endpoint};
use crate::jose::Algorithm;
use crate::jose::toy::ToyKey;
use crate::message::PageUri;
use crate::message::client_metadata::{ApplicationType, ClientMetadataDocument};
use crate::sealer::PlaintextRecords;
use crate::syntax::json::JsonObject;

const CIMD: (&str, &str) = ("client_id_metadata_document_supported", "true");
const SILENT: (&str, &str) = ("authorization_response_iss_parameter_supported", "");
const URL: &str = "https://app.example/client.json";

fn published() -> Configuration {
    configuration().metadata_document(ClientMetadataUrl::new(URL).unwrap())
}

fn document(client: &Client) -> ClientMetadataDocument {
    ClientMetadataDocument::parse(&client.client_metadata_document().unwrap()).unwrap()
}

// MCP-REG-012, MCP-REG-013, MCP-AUTH-081, D29
#[test]
fn the_document_names_its_own_url_and_a_fixed_set_of_callback_paths() {
    let document = document(&client_of(published()));
    assert_eq!(document.client_id().as_str(), URL);
    let metadata = document.metadata();
    let uris: Vec<_> = metadata.redirect_uris.iter().map(RedirectUri::as_str).collect();
    assert_eq!(uris.len(), 16);
    assert_eq!(uris[0], REDIRECT);
    assert!(uris[1..].iter().all(|uri| uri.starts_with(&format!("{REDIRECT}/"))));
    assert!(metadata.uses_grant_type("refresh_token") && metadata.uses_grant_type("authorization_code"));
    assert_eq!(metadata.token_endpoint_auth_method.as_deref(), Some("none"));
    assert_eq!(strict().client_metadata_document().unwrap_err(), Error::Host(HostMisuse::NoIdentity));
}

// CIMD-3-3, CIMD-3-4
#[test]
fn the_identifier_that_is_proposed_has_no_query_and_is_short() {
    let long = format!("https://app.example/{}", "x".repeat(300));
    for url in ["https://app.example/client.json?v=1", &long] {
        let configuration = configuration().metadata_document(ClientMetadataUrl::new(url).unwrap());
        let client = client_of(configuration);
        let refused = Error::Host(HostMisuse::Metadata(crate::message::Malformed::Invalid("client_id")));
        assert_eq!(client.client_metadata_document().unwrap_err(), refused);
        assert_eq!(choosing_identity(&client, &[CIMD]).metadata_document().unwrap_err().error, refused);
    }
}

fn numbered(number: usize) -> (String, [(&'static str, String); 4]) {
    let issuer = format!("https://as{number}.example");
    let changes = [
        ("issuer", format!("\"{issuer}\"")),
        ("authorization_endpoint", format!("\"{issuer}/authorize\"")),
        ("token_endpoint", format!("\"{issuer}/token\"")),
        (CIMD.0, CIMD.1.to_owned()),
    ];
    (issuer, changes)
}

/// The choice of an identity at one of many issuers that read metadata documents and send no `iss`.
fn at(client: &Client, number: usize) -> ChoosingIdentity {
    let (issuer_url, changes) = numbered(number);
    let mut changes: Vec<(&str, &str)> = changes.iter().map(|(name, value)| (*name, &**value)).collect();
    changes.push(SILENT);
    let (_, state) = challenged(client, &challenge("Bearer")).into_parts();
    let Ok(ResourceMetadataOutcome::Found(state)) = state.receive(Ok(resource_metadata(SERVER, &issuer_url)))
    else {
        panic!("no document")
    };
    let (_, state) = state.choose(&issuer(&issuer_url), word(&issuer_url)).unwrap().into_parts();
    match state.receive(Ok(server_metadata(&changes))) {
        Ok(ServerMetadataOutcome::Found(state)) => state,
        other => panic!("{other:?}"),
    }
}

fn kept(ready: &Ready) -> Option<RegistrationRecord> {
    ready.registration_record(&PlaintextRecords).unwrap()
}

fn taken(client: &Client, records: &[RegistrationRecord]) -> CallbackPaths {
    client.callback_paths(records, &PlaintextRecords)
}

// D29, OAUTH21-2.3.4-1, MCP-REG-054
#[test]
fn each_server_without_iss_gets_a_path_of_its_own_until_none_is_left() {
    let client = client_of(published());
    let listed = document(&client).metadata().redirect_uris.clone();
    let mut records = Vec::new();
    let mut used = Vec::new();
    for number in 0..15 {
        let ready = at(&client, number).metadata_document_among(&taken(&client, &records)).unwrap();
        records.push(kept(&ready).unwrap());
        let uri = begin(ready).redirect_uri();
        assert!(listed.iter().any(|listed| listed.as_str() == uri) && uri != REDIRECT, "{uri}");
        assert!(!used.contains(&uri), "{uri} serves two servers");
        used.push(uri);
    }
    let failed = at(&client, 15).metadata_document_among(&taken(&client, &records)).unwrap_err();
    assert_eq!(names(&failed.error.remedy()), Some("SharedRedirect"));
    // One that has a path keeps it, and one that is forgotten leaves it to the next.
    let again = at(&client, 7).metadata_document_among(&taken(&client, &records)).unwrap();
    assert_eq!(begin(again).redirect_uri(), used[7]);
    let next = failed.state.metadata_document_among(&taken(&client, &records[1..])).unwrap();
    assert_eq!(begin(next).redirect_uri(), used[0]);
    // Where the host does not say what is taken, nothing is free.
    let failed = at(&client, 3).metadata_document().unwrap_err();
    assert_eq!(names(&failed.error.remedy()), Some("SharedRedirect"));
    // A server that sends `iss` has the shared path, and nothing to keep.
    let ready = choosing_identity(&client, &[CIMD]).metadata_document().unwrap();
    assert!(kept(&ready).is_none());
    assert_eq!(begin(ready).redirect_uri(), REDIRECT);
    // The record is no registration.
    let failed = at(&client, 0).registered(&records[0], &PlaintextRecords, now()).unwrap_err();
    assert_eq!(failed.error, Error::Host(HostMisuse::ForeignRecord));
}

#[test]
fn a_path_that_an_identity_registered_by_hand_uses_is_not_free() {
    let first = RedirectUri::new(format!("{REDIRECT}/1")).unwrap();
    let by_hand = PreRegistered::new(issuer(OTHER), ClientId::new("pre").unwrap(), first, []);
    let client = client_of(published().pre_registered(by_hand));
    let ready = at(&client, 0).metadata_document_among(&taken(&client, &[])).unwrap();
    assert_eq!(begin(ready).redirect_uri(), format!("{REDIRECT}/2"));
}

const OTHER: &str = "https://other.example";

// A record of another configuration of this client is not counted, and not trusted.
#[test]
fn paths_are_read_from_this_clients_records_only() {
    let client = client_of(published());
    let ready = at(&client, 0).metadata_document_among(&taken(&client, &[])).unwrap();
    let record = kept(&ready).unwrap();
    let renamed = Configuration::new("Renamed", RedirectUri::new(REDIRECT).unwrap())
        .policy(policy())
        .metadata_document(ClientMetadataUrl::new(URL).unwrap());
    let renamed = client_of(renamed);
    let next = at(&renamed, 1).metadata_document_among(&taken(&renamed, &[record])).unwrap();
    assert_eq!(begin(next).redirect_uri(), format!("{REDIRECT}/1"));
}

fn key() -> ToyKey {
    ToyKey::new(Algorithm::EdDsa, 3)
}

fn jwks(kid: &str) -> DocumentKeys {
    let set =
        format!("{{\"keys\":[{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"{kid}\",\"x\":\"AA\"}}]}}");
    DocumentKeys::Inline(JsonObject::parse(set.as_bytes(), 4096).unwrap())
}

// MCP-REG-014, CIMD-6.2-1
#[test]
fn a_document_with_a_key_authenticates_every_request_with_it() {
    let client = client_of(published().document_key(key().id("k1"), jwks("k1")));
    let document = document(&client);
    assert_eq!(document.metadata().token_endpoint_auth_method.as_deref(), Some("private_key_jwt"));
    assert_eq!(document.metadata().token_endpoint_auth_signing_alg.as_deref(), Some("EdDSA"));
    assert!(document.metadata().jwks.is_some());
    let begun = begin(choosing_identity(&client, &[CIMD]).metadata_document().unwrap());
    let callback = begun.callback(GENUINE);
    let outcome = begun.waiting.receive(callback, &HERE, now(), &mut Counter(5));
    let CallbackOutcome::Accepted(EndpointCall::Sign(step)) = outcome else { panic!("{outcome:?}") };
    let (sign, state) = step.into_parts();
    let signature = key().sign(sign.input());
    let (fetch, state) = state.signed(sign.signed(signature).unwrap()).unwrap().into_parts();
    let form = Form::parse(fetch.body()).unwrap();
    assert_eq!(form.get("client_id"), Some(URL));
    assert!(form.has_name("client_assertion") && !form.has_name("client_secret"));
    // So does the refresh.
    let (persist, state) = state.receive(Ok(json(TOKENS)), now()).unwrap().into_parts();
    let session = state.persisted(persist.kept_in_memory()).unwrap();
    let (claim, state) = session.refresh(now(), &mut Counter(6)).unwrap().into_parts();
    let outcome = state.claimed(claim.alone(), now(), &mut Counter(7)).unwrap();
    assert!(matches!(outcome, ClaimOutcome::Claimed(EndpointCall::Sign(_))), "{outcome:?}");

    let at_uri = DocumentKeys::At(Endpoint::new("https://app.example/jwks.json").unwrap());
    let client = client_of(published().document_key(key().id("k1"), at_uri));
    let text = String::from_utf8(client.client_metadata_document().unwrap()).unwrap();
    assert!(text.contains("\"jwks_uri\":\"https://app.example/jwks.json\"") && !text.contains("\"jwks\":"));
    // A key that the set does not have would leave every request unverifiable.
    let client = client_of(published().document_key(key().id("k2"), jwks("k1")));
    assert!(matches!(client.client_metadata_document(), Err(Error::Host(HostMisuse::Metadata(_)))));
    // RFC8414-2-9
    let client = client_of(published().document_key(key().id("k1"), jwks("k1")));
    let only = ("token_endpoint_auth_signing_alg_values_supported", "[\"ES256\"]");
    let failed = choosing_identity(&client, &[CIMD, only]).metadata_document().unwrap_err();
    assert_eq!(incompatible(&failed.error), &PeerIncompatible::AssertionAlgorithm);
}

// MCP-REG-012, MCP-REG-013, MCP-REG-024, CIMD-4.1-4, CIMD-6.6-1
#[test]
fn what_is_published_is_checked_as_a_server_would_read_it() {
    let client = client_of(published().document_key(key().id("k1"), jwks("k1")));
    let ours = String::from_utf8(client.client_metadata_document().unwrap()).unwrap();
    let check = |reply: Reply| client.check_published_document(&reply);
    assert_eq!(check(json(ours.clone())), Ok(()));
    // Names are the publisher's own.
    assert_eq!(check(json(ours.replace("\"Test\"", "\"My editor, beta\""))), Ok(()));
    let fault = |reply: Reply| match check(reply).unwrap_err() {
        Error::Host(HostMisuse::Published(fault)) => fault.member(),
        other => panic!("{other:?}"),
    };
    let changed = |from: &str, to: &str| {
        assert!(ours.contains(from), "{from}");
        fault(json(ours.replace(from, to)))
    };
    assert_eq!(changed("app.example/client.json", "app.example/client"), Some("client_id"));
    assert_eq!(changed("4711/callback/15\"", "4711/callback/16\""), Some("redirect_uris"));
    assert_eq!(changed("\"client_name\":\"Test\"", "\"client_secret\":\"s\""), Some("client_secret"));
    assert_eq!(changed("\"client_name\":\"Test\",", ""), Some("client_name"));
    assert_eq!(changed(",\"refresh_token\"", ""), Some("grant_types"));
    assert_eq!(changed("\"code\"", "\"token\""), Some("response_types"));
    assert_eq!(changed("private_key_jwt", "none"), Some("token_endpoint_auth_method"));
    assert_eq!(changed("\"kid\":\"k1\"", "\"kid\":\"k2\""), Some("jwks"));
    assert_eq!(changed("\"x\":\"AA\"", "\"x\":\"AA\",\"d\":\"AA\""), Some("jwks"));
    let padded = format!("{}{}", ours, " ".repeat(5 * 1024));
    assert!(check(json(padded)).is_err());
    assert!(check(json(format!("{}{}", &ours[..ours.len() - 1], ",\"client_id\":\"x\"}"))).is_err());
    assert_eq!(fault(Reply::new(404, ours.clone())), Some("status"));
    assert_eq!(fault(Reply::new(301, ours.clone())), Some("status"));
    assert_eq!(fault(Reply::new(200, ours.clone())), Some("content-type"));
}

// RFC7591-2-9
#[test]
fn the_client_says_its_name_and_its_home_page() {
    let page = PageUri::new("https://app.example/about").unwrap();
    let client = client_of(configuration().client_uri(page));
    let (fetch, _) = choosing_identity(&client, &[]).register().unwrap().into_parts();
    let body = JsonObject::parse(fetch.body(), 4096).unwrap();
    assert_eq!(body.string("client_name"), Ok(Some("Test")));
    assert_eq!(body.string("client_uri"), Ok(Some("https://app.example/about")));
    // RFC7591-3-2
    assert_eq!((fetch.method(), fetch.content_type()), ("POST", Some("application/json")));
}

// MCP-REG-043, MCP-REG-045
#[test]
fn a_refused_registration_says_what_to_try_next_and_ends() {
    let refused = |state: ChoosingIdentity, application_type: Option<ApplicationType>, reply: Reply| {
        let step = match application_type {
            None => state.register().unwrap(),
            Some(application_type) => state.register_as(application_type).unwrap(),
        };
        let (fetch, state) = step.into_parts();
        let body = JsonObject::parse(fetch.body(), 4096).unwrap();
        let said = body.string("application_type").unwrap().unwrap().to_owned();
        let failed = state.receive(Ok(reply)).unwrap_err();
        (said, failed.error.remedy(), failed.state)
    };
    let error = |code: &str| Reply::new(400, format!("{{\"error\":\"{code}\"}}"));
    let start = || choosing_identity(&strict(), &[]);
    let (said, remedy, state) = refused(start(), None, error("invalid_client_metadata"));
    assert_eq!((said.as_str(), &remedy), ("native", &Remedy::RegisterAs(ApplicationType::Web)));
    let (said, remedy, _) = refused(state, Some(ApplicationType::Web), error("invalid_client_metadata"));
    assert_eq!((said.as_str(), remedy), ("web", Remedy::ConfigureIdentity));
    for reply in [
        error("unapproved_software_statement"),
        error("access_denied"),
        Reply::new(403, "<html>forbidden</html>"),
        Reply::new(401, ""),
    ] {
        assert_eq!(refused(start(), None, reply).1, Remedy::ConfigureIdentity);
    }
    // A redirect URI on the web is not written in another way.
    let web = Configuration::new("Test", RedirectUri::new("https://app.example/cb").unwrap());
    let web = client_of(web.policy(policy()));
    let (said, remedy, _) = refused(choosing_identity(&web, &[]), None, error("invalid_redirect_uri"));
    assert_eq!((said.as_str(), remedy), ("web", Remedy::ConfigureIdentity));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    // D29: whatever is kept, no path is given twice.
    #[test]
    fn no_two_servers_share_a_path(order in proptest::collection::vec(0_usize..20, 1..24)) {
        let client = client_of(published());
        let mut records: alloc::collections::BTreeMap<usize, (RegistrationRecord, String)> = Default::default();
        for number in order {
            let kept_records: Vec<_> = records.values().map(|(record, _)| record.clone()).collect();
            let Ok(ready) = at(&client, number).metadata_document_among(&taken(&client, &kept_records)) else {
                prop_assert_eq!(records.len(), 15);
                continue;
            };
            let record = kept(&ready).unwrap();
            let uri = begin(ready).redirect_uri();
            prop_assert!(records.iter().all(|(other, (_, used))| *other == number || *used != uri));
            records.insert(number, (record, uri));
        }
    }
}
