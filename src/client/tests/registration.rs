//! Who the client is at an authorization server.

use super::*;
use crate::client::{IdentityKind, RegistrationRecord};
use crate::error::HostMisuse;
use crate::identifier::ClientMetadataUrl;
use crate::message::exchange::FetchFailure;
use crate::sealer::PlaintextRecords;
use crate::secret::ClientSecret;

const CIMD: (&str, &str) = ("client_id_metadata_document_supported", "true");

fn metadata_url() -> ClientMetadataUrl {
    ClientMetadataUrl::new("https://app.example/client.json").unwrap()
}

// MCP-REG-001, MCP-AUTH-013
#[test]
fn identities_are_offered_best_first() {
    let everything =
        client_of(configuration().pre_registered(pre_registered()).metadata_document(metadata_url()));
    assert_eq!(
        choosing_identity(&everything, &[CIMD]).identities(),
        [IdentityKind::PreRegistered, IdentityKind::MetadataDocument, IdentityKind::Registered]
    );
    assert_eq!(
        choosing_identity(&everything, &[("registration_endpoint", "")]).identities(),
        [IdentityKind::PreRegistered]
    );
    let none = client_of(configuration().dynamic_registration(false));
    assert!(choosing_identity(&none, &[CIMD]).identities().is_empty());
    assert_eq!(
        choosing_identity(&none, &[]).register().unwrap_err().error,
        Error::Host(HostMisuse::NoIdentity)
    );
    assert_eq!(
        choosing_identity(&none, &[CIMD]).metadata_document().unwrap_err().error,
        Error::Host(HostMisuse::NoIdentity)
    );
    assert_eq!(
        choosing_identity(&none, &[]).pre_registered().unwrap_err().error,
        Error::Host(HostMisuse::NoIdentity)
    );
}

// MCP-REG-053
#[test]
fn an_identity_whose_issuer_is_not_named_any_more_is_reported_and_not_tried_elsewhere() {
    let redirect = || RedirectUri::new("http://127.0.0.1:4711/own").unwrap();
    let at = |issuer_url: &str| {
        PreRegistered::new(issuer(issuer_url), ClientId::new("pre").unwrap(), redirect(), [server()])
    };
    let choose = |configuration: Configuration| {
        choosing_issuer(&client_of(configuration), ISSUER).choose(&issuer(ISSUER), word(ISSUER)).map(drop)
    };
    let failed = choose(configuration().pre_registered(at("https://old.example"))).unwrap_err();
    assert_eq!(incompatible(&failed.error), &PeerIncompatible::OtherIssuer);
    assert_eq!(failed.error.remedy(), Remedy::ConfigureIdentity);
    let both = configuration().pre_registered(at("https://old.example")).pre_registered(at(ISSUER));
    assert!(choose(both).is_ok(), "one of them is named");
    let other = PreRegistered::new(
        issuer("https://old.example"),
        ClientId::new("pre").unwrap(),
        redirect(),
        [ResourceId::new("https://mcp.example/mail").unwrap()],
    );
    assert!(choose(configuration().pre_registered(other)).is_ok(), "it is for another resource");
}

// MCP-REG-003, MCP-REG-004
#[test]
fn where_nothing_identifies_the_client_the_host_is_asked_for_an_identity() {
    let no_endpoint = [("registration_endpoint", "")];
    let state = choosing_identity(&strict(), &no_endpoint);
    assert!(state.identities().is_empty());
    let failed = state.register().unwrap_err();
    assert_eq!(failed.error.remedy(), Remedy::ConfigureIdentity);
    assert!(format!("{}", failed.error).contains("identity"));
    // Dynamic registration is there where the server has an endpoint for it, and the host did not switch it off.
    let (fetch, _) = choosing_identity(&strict(), &[]).register().unwrap().into_parts();
    assert_eq!(fetch.url(), "https://as.example/register");
    let off = client_of(configuration().dynamic_registration(false));
    assert!(choosing_identity(&off, &[]).register().is_err());
}

// RFC7591-3.2.1-3
#[test]
fn what_the_server_registered_counts_and_not_what_was_asked_for() {
    let answered = |rest: &str| {
        let (_, state) = choosing_identity(&strict(), &[]).register().unwrap().into_parts();
        state.receive(Ok(Reply::new(201, format!("{{\"client_id\":\"c1\"{rest}}}"))))
    };
    for wrong in [
        ",\"redirect_uris\":[\"http://127.0.0.1:4711/other\"]",
        ",\"redirect_uris\":[\"com.example.app:/cb\"]",
        ",\"token_endpoint_auth_method\":\"client_secret_basic\"",
        ",\"token_endpoint_auth_method\":\"private_key_jwt\"",
        ",\"token_endpoint_auth_method\":\"tls_client_auth\"",
    ] {
        let failed = answered(wrong).unwrap_err();
        assert_eq!(failed.error.remedy(), Remedy::Reregister, "{wrong}");
    }
    assert!(answered(&format!(",\"redirect_uris\":[\"{REDIRECT}\"]")).is_ok());
}

// MCP-DISC-003, MCP-DISC-004, MCP-REG-051, MCP-REG-052
#[test]
fn an_identity_stays_at_its_issuer() {
    let redirect = RedirectUri::new(REDIRECT).unwrap();
    let elsewhere = PreRegistered::new(
        issuer("https://other.example"),
        ClientId::new("pre").unwrap(),
        redirect,
        [ResourceId::new("https://mcp.example/mail").unwrap()],
    );
    let client = client_of(configuration().pre_registered(elsewhere));
    assert!(choosing_identity(&client, &[]).pre_registered().is_err());
    let record = ready(&strict()).registration_record(&PlaintextRecords).unwrap().unwrap();
    let bytes = record.to_bytes();
    let moved = String::from_utf8(bytes.clone()).unwrap().replace(ISSUER, "https://other.example");
    let moved = RegistrationRecord::from_bytes(moved.as_bytes()).unwrap();
    assert!(choosing_identity(&strict(), &[]).registered(&moved, &PlaintextRecords, now()).is_err());
    // A genuine one of the other issuer is of no use here, and the client has to register anew.
    let there = [
        ("issuer", "\"https://other.example\""),
        ("authorization_endpoint", "\"https://other.example/authorize\""),
        ("token_endpoint", "\"https://other.example/token\""),
        ("registration_endpoint", "\"https://other.example/register\""),
    ];
    let (_, state) = choosing_issuer(&strict(), "https://other.example")
        .choose(&issuer("https://other.example"), word("https://other.example"))
        .unwrap()
        .into_parts();
    let Ok(ServerMetadataOutcome::Found(state)) = state.receive(Ok(server_metadata(&there))) else {
        panic!("refused")
    };
    let (_, state) = state.register().unwrap().into_parts();
    let others = state.receive(Ok(Reply::new(201, "{\"client_id\":\"c2\"}"))).unwrap();
    let others = others.registration_record(&PlaintextRecords).unwrap().unwrap();
    let failed = choosing_identity(&strict(), &[]).registered(&others, &PlaintextRecords, now()).unwrap_err();
    assert_eq!(failed.error, Error::Host(HostMisuse::ForeignRecord));
    assert!(failed.state.register().is_ok());
    let record = RegistrationRecord::from_bytes(&bytes).unwrap();
    let again = choosing_identity(&strict(), &[]).registered(&record, &PlaintextRecords, now()).unwrap();
    assert_eq!((again.client_id().as_str(), again.identity_kind()), ("c1", IdentityKind::Registered));
}

// MCP-REG-040, MCP-REG-041
#[test]
fn the_request_says_what_the_client_is() {
    let (fetch, _) = choosing_identity(&strict(), &[]).register().unwrap().into_parts();
    assert_eq!(
        (fetch.method(), fetch.url(), fetch.content_type()),
        ("POST", "https://as.example/register", Some("application/json"))
    );
    let body = String::from_utf8(fetch.body().to_vec()).unwrap();
    for member in [
        "\"application_type\":\"native\"",
        "\"token_endpoint_auth_method\":\"none\"",
        "\"refresh_token\"",
        REDIRECT,
    ] {
        assert!(body.contains(member), "{member} {body}");
    }
    let web = client_of(
        Configuration::new("Test", RedirectUri::new("https://app.example/cb").unwrap()).policy(policy()),
    );
    let (fetch, _) = choosing_identity(&web, &[]).register().unwrap().into_parts();
    assert!(String::from_utf8_lossy(fetch.body()).contains("\"application_type\":\"web\""));
}

// MCP-REG-043, MCP-SEC-015
#[test]
fn a_registration_that_fails_leaves_the_choice_open() {
    let answers: [(Result<Reply, FetchFailure>, bool); 7] = [
        (
            Ok(Reply::new(400, "{\"error\":\"invalid_redirect_uri\",\"error_description\":\"\u{1b}[2J\"}")),
            false,
        ),
        (Ok(Reply::new(503, "")), true),
        (Err(FetchFailure::Unreachable), true),
        (Ok(Reply::new(201, "{}")), false),
        (Ok(Reply::new(201, "{\"client_id\":\"c\",\"redirect_uris\":[\"https://evil.example/cb\"]}")), false),
        (
            Ok(Reply::new(
                201,
                "{\"client_id\":\"c\",\"token_endpoint_auth_method\":\"client_secret_basic\"}",
            )),
            false,
        ),
        (Ok(Reply::new(201, "{\"client_id\":\"c\",\"client_id\":\"d\"}")), false),
    ];
    for (answer, outside) in answers {
        let shown = format!("{answer:?}");
        let (_, state) = choosing_identity(&strict(), &[]).register().unwrap().into_parts();
        let failed = state.receive(answer).unwrap_err();
        assert_eq!(matches!(failed.error, Error::Outside(_)), outside, "{shown}");
        assert!(!format!("{}", failed.error).contains('\u{1b}'));
        assert!(failed.state.register().is_ok());
    }
}

// OAUTH21-2.4-1, OAUTH21-2.4.1-5, OAUTH21-3.2.1-1, D37
#[test]
fn a_secret_is_presented_in_the_one_way_that_was_registered() {
    let registered = |method: &str, changes: &[(&str, &str)]| {
        let (_, state) = choosing_identity(&strict(), changes).register().unwrap().into_parts();
        let method = if method.is_empty() {
            String::new()
        } else {
            format!(",\"token_endpoint_auth_method\":\"{method}\"")
        };
        let body = format!(
            "{{\"client_id\":\"c 1\",\"client_secret\":\"s:1\",\"client_secret_expires_at\":0{method}}}"
        );
        let begun = begin(state.receive(Ok(Reply::new(201, body))).unwrap());
        let callback = begun.callback(GENUINE);
        let (fetch, _) = sent(begun.waiting.receive(callback, &HERE, now(), &mut Counter(5)));
        let body = Form::parse(fetch.body()).unwrap();
        (
            fetch.authorization().map(str::to_owned),
            body.get("client_id").map(str::to_owned),
            body.get("client_secret").map(str::to_owned),
        )
    };
    let basic = (Some("Basic YysxOnMlM0Ex".to_owned()), None, None);
    let post = (None, Some("c 1".to_owned()), Some("s:1".to_owned()));
    assert_eq!(registered("client_secret_basic", &[]), basic);
    assert_eq!(registered("client_secret_post", &[]), post);
    assert_eq!(registered("none", &[]), (None, Some("c 1".to_owned()), None));
    assert_eq!(registered("", &[]), basic);
    let only_post = ("token_endpoint_auth_methods_supported", "[\"client_secret_post\"]");
    assert_eq!(registered("", &[only_post]), post);
}

#[test]
fn an_expired_secret_is_not_used_again() {
    let (_, state) = choosing_identity(&strict(), &[]).register().unwrap().into_parts();
    let expires = now().unix_timestamp() + 10;
    let body = format!(
        "{{\"client_id\":\"c\",\"client_secret\":\"s\",\"client_secret_expires_at\":{expires},\"token_endpoint_auth_method\":\"client_secret_post\"}}"
    );
    let ready = state.receive(Ok(Reply::new(201, body))).unwrap();
    let record = ready.registration_record(&PlaintextRecords).unwrap().unwrap();
    let again = |now| choosing_identity(&strict(), &[]).registered(&record, &PlaintextRecords, now);
    let later = now() + Duration::seconds(10);
    // RFC7591-3.2.1-4
    let kept = again(now()).unwrap();
    let failed = again(later).unwrap_err();
    assert_eq!(incompatible(&failed.error), &PeerIncompatible::SecretExpired);
    assert_eq!(failed.error.remedy(), Remedy::Reregister);
    // Nor is it used in a flow that went on meanwhile: the person is not asked for what cannot be redeemed.
    let failed = kept.begin(&ScopeSet::new(), HERE, later, &mut Counter(0)).unwrap_err();
    assert_eq!(failed.error.remedy(), Remedy::Reregister);
    // A session whose secret has ended leads to another login, and not to a refresh that must fail.
    let begun = begin(failed.state);
    let callback = begun.callback(GENUINE);
    let (_, state) = sent(begun.waiting.receive(callback, &HERE, now(), &mut Counter(5)));
    let (persist, state) = state.receive(Ok(json(TOKENS)), now()).unwrap().into_parts();
    let session = state.persisted(persist.kept_in_memory()).unwrap();
    assert!(session.can_refresh());
    let asked = session.challenged("op", &challenge("Bearer error=\"invalid_token\""), later).unwrap();
    assert!(matches!(asked, crate::client::StepUp::Authorize(_)), "{asked:?}");
}

// D29, OAUTH21-2.3.4-1
#[test]
fn a_server_without_iss_gets_a_redirect_uri_of_its_own() {
    const SILENT: (&str, &str) = ("authorization_response_iss_parameter_supported", "");
    let own = begin(ready_with(&strict(), &[SILENT])).redirect_uri();
    assert!(own.starts_with(&format!("{REDIRECT}/")) && own.len() > REDIRECT.len() + 10, "{own}");
    assert_eq!(begin(ready(&strict())).redirect_uri(), REDIRECT);
    let client = relaxed(Relaxation::SharedRedirect(issuer(ISSUER)));
    assert_eq!(begin(ready_with(&client, &[SILENT])).redirect_uri(), REDIRECT);

    let document = client_of(configuration().metadata_document(metadata_url()));
    let failed = choosing_identity(&document, &[CIMD, SILENT]).metadata_document().unwrap_err();
    assert_eq!(names(&failed.error.remedy()), Some("SharedRedirect"));
    assert!(choosing_identity(&document, &[CIMD]).metadata_document().is_ok());

    let shared = PreRegistered::new(
        issuer(ISSUER),
        ClientId::new("pre").unwrap(),
        RedirectUri::new(REDIRECT).unwrap(),
        [server()],
    );
    let client = client_of(configuration().pre_registered(shared));
    assert!(choosing_identity(&client, &[SILENT]).pre_registered().is_err());
    let client = client_of(configuration().pre_registered(pre_registered()));
    assert!(choosing_identity(&client, &[SILENT]).pre_registered().is_ok());
}

// D29: a registration from before the server stopped to send `iss`, whose redirect URI serves other servers too.
#[test]
fn an_earlier_registration_has_its_own_redirect_uri_or_the_server_sends_iss() {
    const SILENT: (&str, &str) = ("authorization_response_iss_parameter_supported", "");
    let recorded = |ready: Ready| ready.registration_record(&PlaintextRecords).unwrap().unwrap();
    let again = |client: &Client, changes: &[(&str, &str)], record| {
        choosing_identity(client, changes).registered(record, &PlaintextRecords, now())
    };
    let shared = recorded(ready(&strict()));
    assert!(again(&strict(), &[], &shared).is_ok());
    let failed = again(&strict(), &[SILENT], &shared).unwrap_err();
    assert_eq!(names(&failed.error.remedy()), Some("SharedRedirect"));
    let own = recorded(ready_with(&strict(), &[SILENT]));
    assert!(again(&strict(), &[SILENT], &own).is_ok());
    let client = relaxed(Relaxation::SharedRedirect(issuer(ISSUER)));
    let shared = recorded(ready(&client));
    assert!(again(&client, &[SILENT], &shared).is_ok());
}

// D36
#[test]
fn pinned_scopes_bound_every_request() {
    let identity = pre_registered().scopes(scopes("read")).secret(ClientSecret::new("s").unwrap());
    let client = client_of(configuration().pre_registered(identity));
    let ready = choosing_identity(&client, &[]).pre_registered().unwrap();
    let (open, _) = ready.begin(&scopes("write admin"), HERE, now(), &mut Counter(0)).unwrap().into_parts();
    assert_eq!(parameters(open.url()).get("scope"), Some("read"));
}

// MCP-SEC-001, PlaintextRecords
#[test]
fn records_are_written_and_read_in_the_clear_only_where_the_policy_says_so() {
    let client = client_of(configuration().policy(Policy::strict()));
    let refused = |error: Error| assert_eq!(names(&error.remedy()), Some("PlaintextRecords"));
    refused(ready(&client).registration_record(&PlaintextRecords).unwrap_err());
    let failed = begin(ready(&client)).waiting.park(&PlaintextRecords).unwrap_err();
    refused(failed.error);
    let parked = begin(ready(&strict())).waiting.park(&PlaintextRecords).unwrap();
    refused(parked.clone().resume(&client, &PlaintextRecords, now()).unwrap_err());
    assert!(parked.resume(&strict(), &PlaintextRecords, now()).is_ok());
    refused(session(&client).record(&PlaintextRecords).unwrap_err());
}

// D36, I-G8: without the parameter the server grants what it likes, so that nothing asked for would be everything.
#[test]
fn a_pinned_identity_always_names_its_scopes() {
    let pinned = |pins| {
        let client = client_of(configuration().pre_registered(pre_registered().scopes(pins)));
        choosing_identity(&client, &[]).pre_registered().unwrap()
    };
    let begun = |ready: Ready, wanted: &ScopeSet| ready.begin(wanted, HERE, now(), &mut Counter(0));
    let none = ScopeSet::new();
    // The challenge asks for `read`.
    let (open, _) = begun(pinned(scopes("read list")), &none).unwrap().into_parts();
    assert_eq!(parameters(open.url()).get("scope"), Some("read"));
    for (pins, wanted) in [(scopes("list"), &none), (scopes("list"), &scopes("admin")), (none.clone(), &none)]
    {
        let failed = begun(pinned(pins), wanted).unwrap_err();
        assert_eq!(incompatible(&failed.error), &PeerIncompatible::ScopesNotPinned);
    }
    // Nobody says what is needed: what may be asked for is asked for.
    let client = client_of(configuration().pre_registered(pre_registered().scopes(scopes("list read"))));
    let (_, state) = challenged(&client, &challenge("Bearer")).into_parts();
    let silent =
        "{\"resource\":\"https://mcp.example/notes\",\"authorization_servers\":[\"https://as.example\"]}";
    let Ok(ResourceMetadataOutcome::Found(state)) = state.receive(Ok(json(silent))) else {
        panic!("refused")
    };
    let (_, state) = state.choose(&issuer(ISSUER), word(ISSUER)).unwrap().into_parts();
    let Ok(ServerMetadataOutcome::Found(state)) = state.receive(Ok(server_metadata(&[]))) else {
        panic!("refused")
    };
    let ready = state.pre_registered().unwrap();
    assert_eq!(ready.scopes(), scopes("list read"));
    let (open, _) = begun(ready, &none).unwrap().into_parts();
    assert_eq!(parameters(open.url()).get("scope"), Some("list read"));
}

fn named(client_id: &str, resources: &[ResourceId]) -> PreRegistered {
    let redirect = RedirectUri::new("http://127.0.0.1:4711/own").unwrap();
    PreRegistered::new(issuer(ISSUER), ClientId::new(client_id).unwrap(), redirect, resources.iter().cloned())
}

// D36
#[test]
fn of_two_identities_at_one_issuer_the_one_for_the_resource_is_used() {
    let other = ResourceId::new("https://mcp.example/other").unwrap();
    let both = [named("theirs", core::slice::from_ref(&other)), named("ours", &[server()])];
    let [theirs, ours] = both.clone();
    for order in [both, [ours, theirs]] {
        let client = client_of(order.into_iter().fold(configuration(), Configuration::pre_registered));
        let choose = |said| {
            let step = choosing_issuer(&client, ISSUER).choose(&issuer(ISSUER), said).unwrap();
            let Ok(ServerMetadataOutcome::Found(state)) =
                step.into_parts().1.receive(Ok(server_metadata(&[])))
            else {
                panic!("refused")
            };
            state.pre_registered().unwrap().client_id().as_str().to_owned()
        };
        assert_eq!([choose(None), choose(word(ISSUER))], ["ours", "ours"]);
    }
    // Where none is for the resource, the host's word is for the issuer's first.
    let client = [named("first", &[other]), named("second", &[])]
        .into_iter()
        .fold(configuration(), Configuration::pre_registered);
    let ready = choosing_identity(&client_of(client), &[]).pre_registered().unwrap();
    assert_eq!(ready.client_id().as_str(), "first");
}

// D36
#[test]
fn two_identities_for_one_resource_at_one_issuer_make_no_client() {
    let other = ResourceId::new("https://mcp.example/other").unwrap();
    let made = |one: PreRegistered, two: PreRegistered| {
        Client::new(configuration().pre_registered(one).pre_registered(two)).map(drop)
    };
    let clash = made(named("a", &[server()]), named("b", &[other.clone(), server()]));
    assert_eq!(clash, Err(HostMisuse::TwoIdentities.into()));
    let slash = PreRegistered { issuer: issuer("https://as.example/"), ..named("b", &[server()]) };
    assert_eq!(made(named("a", &[server()]), slash), Err(HostMisuse::TwoIdentities.into()));
    let elsewhere = PreRegistered { issuer: issuer("https://other.example"), ..named("b", &[server()]) };
    assert_eq!(made(named("a", &[server()]), elsewhere), Ok(()));
    assert_eq!(made(named("a", &[server()]), named("b", &[other])), Ok(()));
}
