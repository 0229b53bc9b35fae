//! From a challenge to an authorization server.

use super::*;
use crate::error::{HostMisuse, OutsideFailed};
use crate::evidence::IssuerForResource;
use crate::identifier::ClientMetadataUrl;
use crate::identifier::Origin;
use crate::message::exchange::{AddressPolicy, FetchFailure};

fn found(outcome: ResourceMetadataOutcome) -> ChoosingIssuer {
    match outcome {
        ResourceMetadataOutcome::Found(state) => state,
        ResourceMetadataOutcome::Next(_) => panic!("not found"),
    }
}

// MCP-DISC-007, MCP-DISC-008, MCP-DISC-009, RFC9728-3.1-1
#[test]
fn the_challenge_says_where_the_metadata_is_else_path_then_root() {
    let named = "Basic realm=\"x\", bearer resource_metadata=\"https://mcp.example/meta\"";
    let (fetch, state) = challenged(&strict(), &challenge(named)).into_parts();
    assert_eq!((fetch.method(), fetch.url()), ("GET", "https://mcp.example/meta"));
    assert!(
        found(state.receive(Ok(resource_metadata(SERVER, ISSUER))).unwrap()).challenged_scopes().is_none()
    );

    let (fetch, state) = challenged(&strict(), &Reply::new(401, "")).into_parts();
    assert_eq!(fetch.url(), "https://mcp.example/.well-known/oauth-protected-resource/notes");
    for reply in [Reply::new(404, ""), Reply::new(302, ""), Reply::new(200, "<html>"), Reply::new(401, "")] {
        let (_, state) = challenged(&strict(), &Reply::new(401, "")).into_parts();
        let Ok(ResourceMetadataOutcome::Next(step)) = state.receive(Ok(reply)) else {
            panic!("no next location")
        };
        assert_eq!(step.action().url(), "https://mcp.example/.well-known/oauth-protected-resource");
    }
    let Ok(ResourceMetadataOutcome::Next(step)) = state.receive(Ok(Reply::new(404, ""))) else {
        panic!("no next")
    };
    let (_, state) = step.into_parts();
    // D1: the root document speaks for the origin, and for nothing else.
    let failed = state.receive(Ok(resource_metadata(SERVER, ISSUER))).unwrap_err();
    assert_eq!(misbehaved(&failed.error), &PeerMisbehaved::ResourceMismatch { relaxation: None });
    assert!(failed.state.receive(Ok(resource_metadata("https://mcp.example", ISSUER))).is_ok());
}

// D6
#[test]
fn nothing_else_is_tried_when_the_challenge_named_a_place() {
    let (_, state) =
        challenged(&strict(), &challenge("Bearer resource_metadata=\"https://mcp.example/meta\""))
            .into_parts();
    let failed = state.receive(Ok(Reply::new(404, ""))).unwrap_err();
    assert_eq!(misbehaved(&failed.error), &PeerMisbehaved::NoMetadataWhereSaid);
}

// D5
#[test]
fn a_failing_server_is_asked_again_and_gives_nothing_away() {
    for reply in [
        Ok(Reply::new(503, "").with_header("retry-after", b"7")),
        Ok(Reply::new(429, "")),
        Err(FetchFailure::TimedOut),
    ] {
        let (_, state) = challenged(&strict(), &Reply::new(401, "")).into_parts();
        let failed = state.receive(reply).unwrap_err();
        assert!(matches!(failed.error, Error::Outside(_)), "{:?}", failed.error);
        assert!(matches!(failed.error.remedy(), Remedy::RetryAfter(_)));
        let step = failed.state.retry().unwrap();
        assert_eq!(step.action().url(), "https://mcp.example/.well-known/oauth-protected-resource/notes");
    }
}

// I-G1: what was too large once is so again.
#[test]
fn a_reply_that_is_too_large_is_not_asked_for_again() {
    let (_, state) = challenged(&strict(), &Reply::new(401, "")).into_parts();
    let failed = state.receive(Err(FetchFailure::TooLarge)).unwrap_err();
    assert_eq!(failed.error, Error::Outside(OutsideFailed::Fetch(FetchFailure::TooLarge)));
    assert_eq!(failed.error.remedy(), Remedy::Refused);
}

// I-L8
#[test]
fn discovery_ends() {
    let (_, mut state) = challenged(&strict(), &Reply::new(401, "")).into_parts();
    let mut fetches = 1;
    let error = loop {
        match state.retry() {
            Ok(step) => state = step.into_parts().1,
            Err(failed) => break failed.error,
        }
        fetches += 1;
    };
    assert_eq!(error, Error::Outside(OutsideFailed::TooManyFetches));
    assert_eq!(fetches, crate::limits::DISCOVERY_FETCHES);
}

// I-L2, MCP-SBP-020
#[test]
fn a_challenge_that_leads_elsewhere_is_refused_unless_the_host_named_the_place() {
    let elsewhere = challenge("Bearer resource_metadata=\"https://meta.example/m\"");
    let error = strict().challenged(&server(), &elsewhere).unwrap_err();
    assert_eq!(names(&error.remedy()), Some("MetadataOnOtherOrigin"));
    let client = relaxed(Relaxation::MetadataOnOtherOrigin(Origin::new("https://meta.example").unwrap()));
    assert!(client.challenged(&server(), &elsewhere).is_ok());
    let third = challenge("Bearer resource_metadata=\"https://other.example/m\"");
    assert!(client.challenged(&server(), &third).is_err(), "the relaxation is for one origin");
    for hostile in
        ["javascript:alert(1)", "file:///etc/passwd", "http://mcp.example/m", "//mcp.example/m", "m"]
    {
        assert!(
            strict()
                .challenged(&server(), &challenge(&format!("Bearer resource_metadata=\"{hostile}\"")))
                .is_err()
        );
    }
}

// RFC9110-11.2-2
#[test]
fn a_malformed_challenge_is_refused_and_another_status_is_none() {
    for value in ["Bearer scope=\"a\", scope=\"b\"", "Bearer scope=\"a", "Bearer scope=\"a  b\"", "\u{1}"] {
        assert!(matches!(strict().challenged(&server(), &challenge(value)), Err(Error::Peer(_))), "{value}");
    }
    let error = strict().challenged(&server(), &Reply::new(200, "")).unwrap_err();
    assert_eq!(error, Error::Host(HostMisuse::NotAChallenge));
}

// RFC9728-3.3-1, RFC9728-3.3-3, RFC9728-2-2, RFC9728-2-6, I-L2
#[test]
fn metadata_of_another_resource_is_not_used() {
    for other in [
        "https://mcp.example/other",
        "https://mcp.example/notes/",
        "https://MCP.example/notes",
        "https://evil.example/notes",
    ] {
        let (_, state) = challenged(&strict(), &Reply::new(401, "")).into_parts();
        let failed = state.receive(Ok(resource_metadata(other, ISSUER))).unwrap_err();
        assert_eq!(
            misbehaved(&failed.error),
            &PeerMisbehaved::ResourceMismatch { relaxation: None },
            "{other}"
        );
    }
    for body in [
        "{\"authorization_servers\":[\"https://as.example\"]}",
        "{\"resource\":1,\"authorization_servers\":[]}",
        "{\"resource\":\"https://mcp.example/notes\",\"authorization_servers\":\"https://as.example\"}",
        "{\"resource\":\"https://mcp.example/notes\",\"resource\":\"https://mcp.example/notes\"}",
        "[]",
    ] {
        let (_, state) = challenged(&strict(), &Reply::new(401, "")).into_parts();
        let failed = state.receive(Ok(json(body))).unwrap_err();
        assert!(matches!(failed.error, Error::Peer(PeerMisbehaved::Malformed { .. })), "{body}");
    }
    let (_, state) = challenged(&strict(), &Reply::new(401, "")).into_parts();
    let body = format!(
        "{{\"resource\":\"{SERVER}\",\"authorization_servers\":[\"{ISSUER}\"],\"bearer_methods_supported\":[\"query\"]}}"
    );
    let failed = state.receive(Ok(json(body))).unwrap_err();
    assert_eq!(incompatible(&failed.error), &PeerIncompatible::NoHeaderMethod);
    let failed = failed.state.receive(Ok(json(format!("{{\"resource\":\"{SERVER}\"}}")))).unwrap_err();
    assert_eq!(incompatible(&failed.error), &PeerIncompatible::NoAuthorizationServer);
}

// D1
#[test]
fn a_path_prefix_needs_its_relaxation_and_stays_on_the_origin() {
    let prefix = ResourceId::new("https://mcp.example").unwrap();
    let (_, state) = challenged(&strict(), &Reply::new(401, "")).into_parts();
    let failed = state.receive(Ok(resource_metadata("https://mcp.example", ISSUER))).unwrap_err();
    assert_eq!(names(&failed.error.remedy()), Some("ResourcePathPrefix"));
    let client = relaxed(Relaxation::ResourcePathPrefix(prefix));
    let (_, state) = challenged(&client, &Reply::new(401, "")).into_parts();
    let state = found(state.receive(Ok(resource_metadata("https://mcp.example", ISSUER))).unwrap());
    assert_eq!(state.resource_matched().resource().as_str(), "https://mcp.example");
    let (_, state) = challenged(&client, &Reply::new(401, "")).into_parts();
    assert!(state.receive(Ok(resource_metadata("https://evil.example", ISSUER))).is_err());
}

// MCP-AUTH-010, MCP-AUTH-077
#[test]
fn only_a_listed_issuer_is_chosen() {
    let other = "https://other.example";
    let failed = choosing_issuer(&strict(), ISSUER).choose(&issuer(other), word(other)).unwrap_err();
    assert_eq!(failed.error, Error::Host(HostMisuse::IssuerNotListed));
    assert!(failed.state.choose(&issuer(ISSUER), word(ISSUER)).is_ok());
}

fn for_resources<const N: usize>(client_id: &str, resources: [&str; N]) -> PreRegistered {
    PreRegistered::new(
        issuer(ISSUER),
        ClientId::new(client_id).unwrap(),
        RedirectUri::new(REDIRECT).unwrap(),
        resources.map(|resource| ResourceId::new(resource).unwrap()),
    )
}

// D36, I-L13: whoever the client would be there.
#[test]
fn a_pair_of_resource_and_issuer_needs_the_hosts_word() {
    const OTHER: &str = "https://mcp.example/other";
    let document = ClientMetadataUrl::new("https://app.example/client.json").unwrap();
    for configuration in [
        configuration(),
        configuration().dynamic_registration(false).metadata_document(document),
        configuration().pre_registered(for_resources("pre", [OTHER])),
        // Part of a path is no resource of an identity.
        configuration().pre_registered(for_resources("pre", ["https://mcp.example"])),
    ] {
        let client = client_of(configuration);
        let state = choosing_issuer(&client, ISSUER);
        assert!(state.needs_assertion(&issuer(ISSUER)));
        let failed = state.choose(&issuer(ISSUER), None).unwrap_err();
        assert_eq!(failed.error, Error::Host(HostMisuse::IssuerNotAsserted));
        assert_eq!(failed.error.remedy(), Remedy::Vouch);
        let other = ResourceId::new(OTHER).unwrap();
        let of_another = IssuerForResource::assertion(other, issuer(ISSUER));
        let failed = failed.state.choose(&issuer(ISSUER), Some(of_another)).unwrap_err();
        assert_eq!(failed.error, Error::Host(HostMisuse::IssuerNotAsserted));
        let failed = failed.state.choose(&issuer(ISSUER), word("https://as.example/")).unwrap_err();
        assert_eq!(failed.error, Error::Host(HostMisuse::IssuerNotAsserted));
        assert!(failed.state.choose(&issuer(ISSUER), word(ISSUER)).is_ok());
    }
}

// D36: who registered a client by hand for exactly this resource has said so.
#[test]
fn an_identity_for_the_resource_is_the_hosts_word() {
    let client = client_of(configuration().pre_registered(for_resources("pre", [SERVER])));
    let state = choosing_issuer(&client, ISSUER);
    assert!(!state.needs_assertion(&issuer(ISSUER)));
    assert!(state.choose(&issuer(ISSUER), None).is_ok());
    // Of this issuer, and of no other.
    let state = choosing_issuer(&client, "https://other.example");
    assert!(state.needs_assertion(&issuer("https://other.example")));
}

// D36: the server lists its resources, and this one is not among them; the word for the pair is of another sort than the
// list of an identity's resources.
#[test]
fn a_server_that_does_not_know_the_resource_needs_the_hosts_word() {
    let listed = |text: &'static str| [("protected_resources", text)];
    let client = client_of(configuration().pre_registered(for_resources("pre", [SERVER])));
    let awaiting =
        |said| choosing_issuer(&client, ISSUER).choose(&issuer(ISSUER), said).unwrap().into_parts().1;
    let others = || server_metadata(&listed("[\"https://other.example\"]"));
    let failed = awaiting(None).receive(Ok(others())).unwrap_err();
    assert_eq!(failed.error, Error::Host(HostMisuse::IssuerNotAsserted));
    assert!(failed.state.receive(Ok(server_metadata(&listed("[\"https://mcp.example/notes\"]")))).is_ok());
    assert!(awaiting(word(ISSUER)).receive(Ok(others())).is_ok());
}

// MCP-DISC-012, MCP-DISC-013
#[test]
fn the_locations_of_server_metadata_are_tried_in_order() {
    let mut state = awaiting_server(&strict(), "https://as.example/t");
    let mut urls = Vec::new();
    loop {
        match state.receive(Ok(Reply::new(404, ""))) {
            Ok(ServerMetadataOutcome::Next(step)) => {
                urls.push(step.action().url().to_owned());
                state = step.into_parts().1;
            }
            Ok(ServerMetadataOutcome::Found(_)) => panic!("nothing is there"),
            Err(failed) => {
                assert_eq!(
                    incompatible(&failed.error),
                    &PeerIncompatible::NoServerMetadata { relaxation: None }
                );
                break;
            }
        }
    }
    assert_eq!(
        urls,
        [
            "https://as.example/.well-known/openid-configuration/t",
            "https://as.example/t/.well-known/openid-configuration"
        ]
    );
}

// MCP-DISC-015, MCP-DISC-016, I-L1
#[test]
fn a_document_of_another_issuer_ends_the_search() {
    for other in
        ["https://AS.example", "https://as.example:443", "https://as.example/x", "https://evil.example"]
    {
        let changed = server_metadata(&[("issuer", &format!("\"{other}\""))]);
        let failed = awaiting_server(&strict(), ISSUER).receive(Ok(changed)).unwrap_err();
        assert_eq!(
            misbehaved(&failed.error),
            &PeerMisbehaved::IssuerMismatch { relaxation: None },
            "{other}"
        );
    }
    let slash = || server_metadata(&[("issuer", "\"https://as.example/\"")]);
    let failed = awaiting_server(&strict(), ISSUER).receive(Ok(slash())).unwrap_err();
    assert_eq!(names(&failed.error.remedy()), Some("IssuerRootSlash"));
    let client = relaxed(Relaxation::IssuerRootSlash(issuer(ISSUER)));
    let Ok(ServerMetadataOutcome::Found(state)) = awaiting_server(&client, ISSUER).receive(Ok(slash()))
    else {
        panic!("refused")
    };
    assert_eq!(
        state.issuer_matched().issuer().as_str(),
        "https://as.example/",
        "the document's spelling counts from here"
    );
    let other = server_metadata(&[("issuer", "\"https://evil.example/\"")]);
    assert!(awaiting_server(&client, ISSUER).receive(Ok(other)).is_err());
}

// D36: a spelling that the relaxation takes for the same issuer is the same pair, and without the relaxation it is not.
#[test]
fn the_other_spelling_of_an_issuer_is_the_same_as_far_as_the_policy_says() {
    const SLASH: &str = "https://as.example/";
    for (configured, listed) in [(ISSUER, SLASH), (SLASH, ISSUER)] {
        let client = |resource: &str, relaxed: bool| {
            let identity = PreRegistered::new(
                issuer(configured),
                ClientId::new("pre").unwrap(),
                RedirectUri::new(REDIRECT).unwrap(),
                [ResourceId::new(resource).unwrap()],
            );
            let policy = match relaxed {
                true => policy().relax(Relaxation::IssuerRootSlash(issuer(listed))),
                false => policy(),
            };
            client_of(configuration().policy(policy).pre_registered(identity))
        };
        let needs = |client: &Client| choosing_issuer(client, listed).needs_assertion(&issuer(listed));
        assert!(!needs(&client(SERVER, true)));
        assert!(needs(&client(SERVER, false)));
        assert!(needs(&client("https://mcp.example/other", true)));
    }
}

// MCP-SEC-010, MCP-SEC-012, MCP-SEC-013, I-L5
#[test]
fn s256_is_listed_or_the_flow_ends() {
    const METHODS: &str = "code_challenge_methods_supported";
    let unlisted = || server_metadata(&[(METHODS, "")]);
    let failed = awaiting_server(&strict(), ISSUER).receive(Ok(unlisted())).unwrap_err();
    assert_eq!(names(&failed.error.remedy()), Some("AssumeS256"));
    let client = relaxed(Relaxation::AssumeS256(issuer(ISSUER)));
    assert!(awaiting_server(&client, ISSUER).receive(Ok(unlisted())).is_ok());
    let elsewhere = relaxed(Relaxation::AssumeS256(issuer("https://other.example")));
    assert!(awaiting_server(&elsewhere, ISSUER).receive(Ok(unlisted())).is_err());
    for listed in ["[\"plain\"]", "[]", "[\"s256\"]"] {
        for client in [&strict(), &client] {
            let failed = awaiting_server(client, ISSUER)
                .receive(Ok(server_metadata(&[(METHODS, listed)])))
                .unwrap_err();
            assert_eq!(
                incompatible(&failed.error),
                &PeerIncompatible::NoS256 { relaxation: None },
                "{listed}"
            );
            assert_eq!(failed.error.remedy(), Remedy::Refused);
        }
    }
}

// MCP-SBP-020, MCP-SBP-040, MCP-SBP-041, OAUTH21-1.5-1, I-L8
#[test]
fn endpoints_that_lead_into_a_private_range_or_to_a_program_are_refused() {
    for endpoint in
        ["authorization_endpoint", "token_endpoint", "registration_endpoint", "revocation_endpoint"]
    {
        for url in [
            "http://127.0.0.1:1/x",
            "http://localhost/x",
            "https://localhost/x",
            "https://127.0.0.1/x",
            "https://10.0.0.1/x",
            "https://169.254.169.254/x",
            "https://[::1]/x",
            "https://[fd00::1]/x",
            "https://[64:ff9b::7f00:1]/x",
            "https://[2002:7f00:1::]/x",
            "http://as.example/x",
            "javascript:alert(1)",
            "file:///x",
            "--upload-pack=x",
        ] {
            let changed = server_metadata(&[(endpoint, &format!("\"{url}\""))]);
            assert!(awaiting_server(&strict(), ISSUER).receive(Ok(changed)).is_err(), "{endpoint} {url}");
        }
    }
    for required in ["authorization_endpoint", "token_endpoint"] {
        let failed =
            awaiting_server(&strict(), ISSUER).receive(Ok(server_metadata(&[(required, "")]))).unwrap_err();
        assert!(matches!(incompatible(&failed.error), PeerIncompatible::NoEndpoint(_)));
    }
    for (name, value) in
        [("response_types_supported", "[\"token\"]"), ("grant_types_supported", "[\"refresh_token\"]")]
    {
        let failed =
            awaiting_server(&strict(), ISSUER).receive(Ok(server_metadata(&[(name, value)]))).unwrap_err();
        assert_eq!(incompatible(&failed.error), &PeerIncompatible::NoCodeGrant);
    }
}

// I-L8: loopback is reached from a loopback URL only.
#[test]
fn a_server_on_this_machine_may_name_another_one_here() {
    let here = ResourceId::from_server_url("http://127.0.0.1:8000/mcp").unwrap();
    let (fetch, state) = strict().challenged(&here, &Reply::new(401, "")).unwrap().into_parts();
    assert_eq!(fetch.policy().addresses(), AddressPolicy::Loopback);
    let state = found(
        state.receive(Ok(resource_metadata("http://127.0.0.1:8000/mcp", "http://127.0.0.1:9000"))).unwrap(),
    );
    let there = issuer("http://127.0.0.1:9000");
    let said = IssuerForResource::assertion(here, there.clone());
    let (fetch, _) = state.choose(&there, Some(said)).unwrap().into_parts();
    assert_eq!(fetch.policy().addresses(), AddressPolicy::Loopback);

    let (_, state) = challenged(&strict(), &Reply::new(401, "")).into_parts();
    let state = found(state.receive(Ok(resource_metadata(SERVER, "http://127.0.0.1:9000"))).unwrap());
    let failed = state.choose(&issuer("http://127.0.0.1:9000"), word("http://127.0.0.1:9000")).unwrap_err();
    assert!(matches!(misbehaved(&failed.error), PeerMisbehaved::ForbiddenAddress { .. }));
}

// MCP-SBP-020, I-L8
#[test]
fn a_host_that_sends_requests_of_its_own_is_told_where_they_may_go() {
    let addresses = |client: &Client, server: &str, url: &str| {
        client.addresses(&ResourceId::from_server_url(server).unwrap(), url).ok()
    };
    let here = "http://127.0.0.1:8000/mcp";
    assert_eq!(addresses(&strict(), SERVER, "https://as.example/token"), Some(AddressPolicy::Public));
    assert_eq!(addresses(&strict(), here, "http://127.0.0.1:9000/token"), Some(AddressPolicy::Loopback));
    for url in
        ["http://127.0.0.1:9000/", "http://as.example/", "https://10.0.0.1/", "https://169.254.169.254/", "x"]
    {
        assert_eq!(addresses(&strict(), SERVER, url), None, "{url}");
    }
    let text = format!("PrivateNetworks={} 10.0.0.0/8", ResourceId::new(SERVER).unwrap().origin());
    let relaxed = relaxed(text.parse().unwrap());
    let private = Some(AddressPolicy::PublicAndPrivateNetworks);
    assert_eq!(addresses(&relaxed, SERVER, "https://10.0.0.1/"), private);
    assert_eq!(addresses(&relaxed, "https://other.example/", "https://10.0.0.1/"), None);
}
