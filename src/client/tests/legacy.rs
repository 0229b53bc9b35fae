//! Servers of earlier revisions, which the host states.

use super::*;
use crate::error::HostMisuse;
use crate::revision::Revision;
use crate::sealer::PlaintextRecords;

const WELL_KNOWN: &str = "https://mcp.example/.well-known/oauth-authorization-server";

fn stated(revision: Revision, relaxations: &[Relaxation]) -> Client {
    let policy = relaxations.iter().cloned().fold(policy(), Policy::relax);
    client_of(configuration().policy(policy).revision_of(server(), revision))
}

fn legacy() -> Relaxation {
    Relaxation::LegacyEndpoints(server())
}

/// After both places for resource metadata had none.
fn without_resource_metadata(client: &Client) -> Result<ChoosingIssuer, Error> {
    let (_, state) = challenged(client, &challenge("Bearer scope=\"read\"")).into_parts();
    let Ok(ResourceMetadataOutcome::Next(step)) = state.receive(Ok(Reply::new(404, ""))) else {
        panic!("there is a second place")
    };
    match step.into_parts().1.receive(Ok(Reply::new(404, ""))) {
        Ok(ResourceMetadataOutcome::Found(choosing)) => Ok(choosing),
        Ok(ResourceMetadataOutcome::Next(_)) => panic!("there is no third place"),
        Err(failed) => Err(failed.error),
    }
}

/// After both places for the origin's metadata gave these answers.
fn at_origin(client: &Client, replies: [Reply; 2]) -> Result<ChoosingIdentity, Error> {
    let choosing = without_resource_metadata(client)?;
    let base = issuer("https://mcp.example");
    let (fetch, mut state) =
        choosing.choose(&base, word("https://mcp.example")).map_err(|failed| failed.error)?.into_parts();
    assert_eq!(fetch.url(), WELL_KNOWN);
    for reply in replies {
        state = match state.receive(Ok(reply)) {
            Ok(ServerMetadataOutcome::Found(choosing)) => return Ok(choosing),
            Ok(ServerMetadataOutcome::Next(step)) => step.into_parts().1,
            Err(failed) => return Err(failed.error),
        };
    }
    panic!("there is no third place")
}

fn nothing(client: &Client) -> Result<ChoosingIdentity, Error> {
    at_origin(client, [Reply::new(404, ""), Reply::new(404, "")])
}

// MCP-L0326-001, MCP-DISC-010, MCP-AUTH-010
#[test]
fn without_resource_metadata_the_origin_is_the_server_only_where_that_revision_is_stated() {
    for revision in Revision::ALL {
        let found = without_resource_metadata(&stated(revision, &[legacy()]));
        if revision == Revision::V2025_03_26 {
            let choosing = found.unwrap();
            assert_eq!(choosing.issuers(), [issuer("https://mcp.example")]);
            assert_eq!(choosing.resource_matched().resource(), &server());
        } else {
            let error = found.unwrap_err();
            assert_eq!(incompatible(&error), &PeerIncompatible::NoResourceMetadata);
            assert_eq!(error.remedy(), Remedy::StateRevision(Revision::V2025_03_26));
        }
    }
    let other = ResourceId::new("https://other.example").unwrap();
    let client = client_of(configuration().revision_of(other.clone(), Revision::V2025_03_26));
    assert!(without_resource_metadata(&client).is_err(), "the statement is about one server");
    assert_eq!(client.revision(&other), Revision::V2025_03_26);
    assert_eq!(client.revision(&server()), Revision::V2026_07_28);
    let client = client_of(configuration().revision(Revision::V2025_03_26));
    assert!(without_resource_metadata(&client).is_ok());
}

// MCP-L0326-002, MCP-L0326-003, MCP-L0326-007, D35
#[test]
fn the_default_endpoints_need_a_server_without_any_metadata_and_their_relaxation() {
    let strict = stated(Revision::V2025_03_26, &[]);
    let error = nothing(&strict).unwrap_err();
    assert_eq!(error.remedy(), Remedy::Relax(legacy()));
    let elsewhere = Relaxation::LegacyEndpoints(ResourceId::new("https://mcp.example").unwrap());
    assert!(
        nothing(&stated(Revision::V2025_03_26, &[elsewhere])).is_err(),
        "the relaxation is for one resource"
    );

    let client = stated(Revision::V2025_03_26, &[legacy()]);
    let choosing = nothing(&client).unwrap();
    assert_eq!(choosing.issuer_matched().issuer().as_str(), "https://mcp.example");
    let (fetch, state) = choosing.register().unwrap().into_parts();
    assert_eq!(fetch.url(), "https://mcp.example/register");
    let begun = begin(state.receive(Ok(Reply::new(201, "{\"client_id\":\"c\"}"))).unwrap());
    assert!(begun.url.starts_with("https://mcp.example/authorize?"), "{}", begun.url);
    let sent = parameters(&begun.url);
    assert_eq!((sent.get("code_challenge_method"), sent.get("resource")), (Some("S256"), Some(SERVER)));
    let callback = begun.callback("&code=c");
    let CallbackOutcome::Accepted(crate::client::EndpointCall::Fetch(step)) =
        begun.waiting.receive(callback, &HERE, now(), &mut Counter(9))
    else {
        panic!("refused")
    };
    assert_eq!(step.action().url(), "https://mcp.example/token");
}

// D35, D5, D6: anything that is there is held to the rules.
#[test]
fn a_document_or_a_failing_server_is_no_absence() {
    let client = stated(Revision::V2025_03_26, &[legacy()]);
    let document = |changes: &[(&str, &str)]| {
        let mut all = std::vec![
            ("issuer", "\"https://mcp.example\""),
            ("authorization_endpoint", "\"https://mcp.example/authorize\""),
            ("token_endpoint", "\"https://mcp.example/token\""),
            ("registration_endpoint", "\"https://mcp.example/register\""),
        ];
        all.extend_from_slice(changes);
        [server_metadata(&all), Reply::new(404, "")]
    };
    assert!(at_origin(&client, document(&[])).is_ok());
    assert!(at_origin(&stated(Revision::V2025_03_26, &[]), document(&[])).is_ok(), "needs no relaxation");
    // The very endpoints that would be assumed, but announced without S256.
    let iss = ("authorization_response_iss_parameter_supported", "");
    let error = at_origin(&client, document(&[("code_challenge_methods_supported", ""), iss])).unwrap_err();
    assert_eq!(names(&error.remedy()), Some("AssumeS256"));
    let error = at_origin(&client, document(&[("issuer", "\"https://as.example\"")])).unwrap_err();
    assert!(matches!(misbehaved(&error), PeerMisbehaved::IssuerMismatch { .. }));
    let error = at_origin(&client, [Reply::new(404, ""), Reply::new(503, "")]).unwrap_err();
    assert!(matches!(error, Error::Outside(_)));

    let named = challenge("Bearer resource_metadata=\"https://mcp.example/meta\"");
    let (_, state) = challenged(&client, &named).into_parts();
    let failed = state.receive(Ok(Reply::new(404, ""))).unwrap_err();
    assert_eq!(misbehaved(&failed.error), &PeerMisbehaved::NoMetadataWhereSaid);
    let (_, state) = challenged(&client, &challenge("Bearer")).into_parts();
    assert!(matches!(state.receive(Ok(Reply::new(500, ""))).unwrap_err().error, Error::Outside(_)));
}

// MCP-L0326-004
#[test]
fn discovery_says_the_revision_where_that_revision_asks_for_it() {
    for revision in Revision::ALL {
        let client = stated(revision, &[]);
        let expected = (revision == Revision::V2025_03_26).then_some("2025-03-26");
        let (fetch, _) = challenged(&client, &challenge("Bearer")).into_parts();
        assert_eq!(fetch.protocol_version(), expected);
        let step = choosing_issuer(&client, ISSUER).choose(&issuer(ISSUER), word(ISSUER)).unwrap();
        assert_eq!(step.action().protocol_version(), expected);
        let (fetch, _) = choosing_identity(&client, &[]).register().unwrap().into_parts();
        assert_eq!(fetch.protocol_version(), None);
    }
}

// D35, MCP-AUTH-035, MCP-AUTH-036, MCP-SEC-012, MCP-REG-040: an older text that is silent takes no check away.
#[test]
fn every_revision_keeps_every_check() {
    for revision in Revision::ALL {
        let client = stated(revision, &[legacy()]);
        let unlisted = server_metadata(&[("code_challenge_methods_supported", "")]);
        assert!(awaiting_server(&client, ISSUER).receive(Ok(unlisted)).is_err(), "{revision}");
        let other = server_metadata(&[("issuer", "\"https://as.example/\"")]);
        assert!(awaiting_server(&client, ISSUER).receive(Ok(other)).is_err(), "{revision}");
        let (fetch, _) = choosing_identity(&client, &[]).register().unwrap().into_parts();
        assert!(String::from_utf8_lossy(fetch.body()).contains("\"application_type\":\"native\""));
        for rest in ["&code=c", "&code=c&iss=https%3A%2F%2Fevil.example"] {
            let begun = begin(ready(&client));
            let sent = parameters(&begun.url);
            assert_eq!(
                (sent.get("code_challenge_method"), sent.get("resource")),
                (Some("S256"), Some(SERVER))
            );
            let callback = begun.callback(rest);
            assert!(
                matches!(
                    begun.waiting.receive(callback, &HERE, now(), &mut Counter(9)),
                    CallbackOutcome::Rejected(_)
                ),
                "{revision} {rest}"
            );
        }
    }
}

// D35: the checks are made again, with what the host states today.
#[test]
fn a_record_of_assumed_endpoints_needs_the_statement_and_the_relaxation_again() {
    let client = stated(Revision::V2025_03_26, &[legacy()]);
    let parked = || {
        let (_, state) = nothing(&client).unwrap().register().unwrap().into_parts();
        let ready = state.receive(Ok(Reply::new(201, "{\"client_id\":\"c\"}"))).unwrap();
        begin(ready).waiting.park(&PlaintextRecords).unwrap()
    };
    let again = parked().resume(&client, &PlaintextRecords, now()).unwrap();
    assert!(again.redirect_uri().as_str().starts_with(REDIRECT));
    let later = stated(Revision::V2025_06_18, &[legacy()]);
    let error = parked().resume(&later, &PlaintextRecords, now()).unwrap_err();
    assert!(matches!(misbehaved(&error), PeerMisbehaved::ResourceMismatch { .. }));
    let strict = stated(Revision::V2025_03_26, &[]);
    let error = parked().resume(&strict, &PlaintextRecords, now()).unwrap_err();
    assert!(!matches!(error, Error::Host(HostMisuse::NoIdentity)), "another policy opens nothing");
}

// MCP-DISC-002
#[test]
fn the_host_may_choose_another_issuer_after_one_failed() {
    let (_, state) = challenged(&strict(), &challenge("Bearer")).into_parts();
    let metadata = json(format!(
        "{{\"resource\":\"{SERVER}\",\"authorization_servers\":[\"https://down.example\",\"{ISSUER}\"]}}"
    ));
    let Ok(ResourceMetadataOutcome::Found(choosing)) = state.receive(Ok(metadata)) else { panic!("refused") };
    let (_, state) =
        choosing.choose(&issuer("https://down.example"), word("https://down.example")).unwrap().into_parts();
    let failed = state.receive(Ok(server_metadata(&[]))).unwrap_err();
    assert!(matches!(misbehaved(&failed.error), PeerMisbehaved::IssuerMismatch { .. }));
    let choosing = failed.state.choose_again();
    assert_eq!(choosing.issuers().len(), 2);
    let (fetch, state) = choosing.choose(&issuer(ISSUER), word(ISSUER)).unwrap().into_parts();
    assert_eq!(fetch.url(), "https://as.example/.well-known/oauth-authorization-server");
    assert!(matches!(state.receive(Ok(server_metadata(&[]))), Ok(ServerMetadataOutcome::Found(_))));
}

// I-L8
#[test]
fn choosing_again_counts_against_the_same_allowance() {
    let mut choosing = choosing_issuer(&strict(), ISSUER);
    let mut fetches = 1;
    let error = loop {
        match choosing.choose(&issuer(ISSUER), word(ISSUER)) {
            Ok(step) => choosing = step.into_parts().1.choose_again(),
            Err(failed) => break failed.error,
        }
        fetches += 1;
    };
    assert_eq!(error, Error::Outside(crate::error::OutsideFailed::TooManyFetches));
    assert_eq!(fetches, crate::limits::DISCOVERY_FETCHES);
}
