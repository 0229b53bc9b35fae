//! The authorization endpoint: what is answered on a page, what by a redirect, and what the person is shown.

use mcp_authz::authorization_server::refusal::RefusalReason;
use mcp_authz::authorization_server::{AuthorizationServer, InvalidConfiguration, RegistrationPolicy};
use mcp_authz::entropy::{Entropy, EntropyUnavailable};
use mcp_authz::evidence::Authentication;
use mcp_authz::identifier::{RedirectUri, ResourceId};
use mcp_authz::message::client_metadata::ClientMetadata;
use mcp_authz::message::error_code::AuthorizationErrorCode;
use mcp_authz::secret::AgentBinding;
use mcp_authz::syntax::form;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::approvals::{
    Ask, CALLBACK, Checked, ISSUER, PARTNER, PERSON, answered, browser, challenge, configuration, location,
    operators, operators_with, world, world_of,
};
use crate::grants::{RESOURCE, scope};

/// Somewhere to go for each way a request can be wrong although client and redirect URI are right.
type Change = fn(Ask) -> Ask;

const FAULTS: &[(&str, Change, &str)] = &[
    // OAUTH21-4.1.1-2
    ("no response type", |ask| ask.without("response_type"), "invalid_request"),
    ("empty response type", |ask| ask.with("response_type", ""), "invalid_request"),
    // OAUTH21-10.1-2
    ("implicit", |ask| ask.with("response_type", "token"), "unsupported_response_type"),
    ("hybrid", |ask| ask.with("response_type", "code id_token"), "unsupported_response_type"),
    ("wrong case", |ask| ask.with("response_type", "Code"), "unsupported_response_type"),
    ("fragment mode", |ask| ask.with("response_mode", "fragment"), "invalid_request"),
    ("form post mode", |ask| ask.with("response_mode", "form_post"), "invalid_request"),
    // OAUTH21-4.1.1-7, OAUTH21-4.1.2.1-1
    ("no challenge", |ask| ask.without("code_challenge"), "invalid_request"),
    ("empty challenge", |ask| ask.with("code_challenge", ""), "invalid_request"),
    // RFC7636-4.1-1
    ("short challenge", |ask| ask.with("code_challenge", &challenge()[1..]), "invalid_request"),
    ("long challenge", |ask| ask.with("code_challenge", &(challenge() + "A")), "invalid_request"),
    ("padded challenge", |ask| ask.with("code_challenge", &(challenge() + "=")), "invalid_request"),
    // OAUTH21-4.1.1-8, OAUTH21-4.1.2.1-2, RFC7636-7.2-2
    ("no method", |ask| ask.without("code_challenge_method"), "invalid_request"),
    ("plain", |ask| ask.with("code_challenge_method", "plain"), "invalid_request"),
    ("method in lower case", |ask| ask.with("code_challenge_method", "s256"), "invalid_request"),
    // RFC8707-2.1-1, RFC8707-2-6
    ("no resource", |ask| ask.without("resource"), "invalid_target"),
    ("unknown resource", |ask| ask.with("resource", "https://mcp.example/elsewhere"), "invalid_target"),
    ("resource above", |ask| ask.with("resource", "https://mcp.example"), "invalid_target"),
    ("relative resource", |ask| ask.with("resource", "/notes"), "invalid_target"),
    ("resource with fragment", |ask| ask.with("resource", &format!("{RESOURCE}#f")), "invalid_target"),
    // OAUTH21-A-1
    ("scope in two spaces", |ask| ask.with("scope", "read  write"), "invalid_scope"),
    ("scope with a quote", |ask| ask.with("scope", "read \"write\""), "invalid_scope"),
    ("scope of another resource", |ask| ask.with("scope", "list"), "invalid_scope"),
    // OAUTH21-1.4.1-2
    ("no scope and no default", |ask| ask.without("scope"), "invalid_scope"),
    // I-G11
    ("request object", |ask| ask.with("request", "e30.e30."), "request_not_supported"),
    ("request by reference", |ask| ask.with("request_uri", "urn:x"), "request_uri_not_supported"),
    ("rich request", |ask| ask.with("authorization_details", "[]"), "invalid_authorization_details"),
    ("bound code", |ask| ask.with("dpop_jkt", "x"), "invalid_request"),
    ("no page", |ask| ask.with("prompt", "none"), "consent_required"),
    ("no page, with more", |ask| ask.with("prompt", "login none"), "consent_required"),
];

/// Ways to leave nobody to redirect to.
const NOBODY: &[(&str, Change, RefusalReason)] = &[
    ("no client", |ask| ask.without("client_id"), RefusalReason::UnknownClient),
    ("empty client", |ask| ask.with("client_id", ""), RefusalReason::UnknownClient),
    ("unknown client", |ask| ask.with("client_id", "partne"), RefusalReason::UnknownClient),
    ("client in another case", |ask| ask.with("client_id", "Partner"), RefusalReason::UnknownClient),
    ("client outside its grammar", |ask| ask.with("client_id", "partner\n"), RefusalReason::UnknownClient),
    (
        "client at a URL without path",
        |ask| ask.with("client_id", "https://app.example"),
        RefusalReason::UnknownClient,
    ),
    ("two clients", |ask| ask.twice("client_id"), RefusalReason::MalformedRequest),
    ("two redirect URIs", |ask| ask.twice("redirect_uri"), RefusalReason::MalformedRequest),
    (
        "no redirect URI of two",
        |ask| ask.without("redirect_uri").with("client_id", "two"),
        RefusalReason::RedirectUri,
    ),
    (
        "another's redirect URI",
        |ask| ask.with("redirect_uri", "https://evil.example/cb"),
        RefusalReason::RedirectUri,
    ),
    (
        "a longer redirect URI",
        |ask| ask.with("redirect_uri", &format!("{CALLBACK}&x=1")),
        RefusalReason::RedirectUri,
    ),
    (
        "a redirect URI below",
        |ask| ask.with("redirect_uri", "https://app.example/cb/x"),
        RefusalReason::RedirectUri,
    ),
    (
        "a redirect URI that decodes alike",
        |ask| ask.with("redirect_uri", "https://app.example/%63b?tenant=a%2Fb"),
        RefusalReason::RedirectUri,
    ),
    (
        "a script for a redirect URI",
        |ask| ask.with("redirect_uri", "javascript:alert(1)"),
        RefusalReason::RedirectUri,
    ),
    ("a relative redirect URI", |ask| ask.with("redirect_uri", "/cb"), RefusalReason::RedirectUri),
    (
        "a redirect URI with fragment",
        |ask| ask.with("redirect_uri", &format!("{CALLBACK}#f")),
        RefusalReason::RedirectUri,
    ),
];

// OAUTH21-4.1.1-2, OAUTH21-10.1-2, OAUTH21-4.1.1-7, OAUTH21-4.1.2.1-1, OAUTH21-4.1.1-8, OAUTH21-4.1.2.1-2, RFC7636-4.1-1,
// RFC7636-7.2-2, RFC8707-2.1-1, RFC8707-2-6, OAUTH21-A-1, OAUTH21-1.4.1-2, OAUTH21-4.1.2.1-3, RFC9207-2-1, MCP-AUTH-031
#[test]
fn each_fault_goes_back_to_the_client_as_its_error() {
    let world = world();
    for (what, change, code) in FAULTS {
        let error = world.ask(&change(Ask::partner())).error();
        assert_eq!(error.code().as_str(), *code, "{what}");
        let redirect = error.redirect(&world.person()).unwrap().respond();
        assert_eq!(redirect.status(), 303);
        let location = location(&redirect);
        assert!(location.starts_with(&format!("{CALLBACK}&")), "{what}");
        let answer = answered(location);
        assert_eq!(answer.get("error"), Some(*code), "{what}");
        assert_eq!(answer.get("state"), Some("state-of-the-client"), "{what}");
        assert_eq!(answer.get("iss"), Some(ISSUER), "{what}");
        assert!(!answer.has_name("code"), "{what}");
    }
}

// OAUTH21-4.1.1-7: a client with a secret sends a challenge like everybody.
#[test]
fn a_confidential_client_is_not_excused_from_pkce() {
    let mut world = world();
    world.store.put_client(crate::grants::client(
        "secretive",
        &["authorization_code"],
        crate::grants::secret(None),
    ));
    let ask = Ask::of("secretive", crate::grants::REDIRECT);
    let _valid = world.ask(&ask).valid();
    let error = world.ask(&ask.without("code_challenge").with("nonce", "n")).error();
    assert_eq!(*error.code(), AuthorizationErrorCode::InvalidRequest);
}

// OAUTH21-3.2.4-5: which grant a client may use, it said when it registered.
#[test]
fn a_client_that_did_not_register_for_codes_gets_none() {
    let mut world = world();
    for (id, change) in [
        ("refresher", (|it| it.grant_types = Some(vec!["refresh_token".into()])) as fn(&mut ClientMetadata)),
        ("talker", |it| it.response_types = Some(vec!["none".into()])),
    ] {
        world.store.put_client(operators_with(id, &[CALLBACK], change));
        let error = world.ask(&Ask::of(id, CALLBACK)).error();
        assert_eq!(*error.code(), AuthorizationErrorCode::UnauthorizedClient, "{id}");
    }
}

// I-R5, OAUTH21-2.3.5-1, OAUTH21-2.3.5-2, OAUTH21-2.3.2-2: with nobody to redirect to, no other fault makes a redirect.
#[test]
fn without_client_or_redirect_uri_every_fault_stays_on_the_page() {
    let mut world = world();
    world.store.put_client(operators("two", &["https://app.example/1", "https://app.example/2"]));
    let none: (&str, Change, &str) = ("nothing else", |ask| ask, "");
    for (nobody, change, reason) in NOBODY {
        for (fault, and, _) in FAULTS.iter().chain([&none]) {
            let refusal = world.ask(&and(change(Ask::partner()))).page();
            assert_eq!(refusal.reason(), *reason, "{nobody}, {fault}");
            let respond = refusal.respond();
            assert_eq!(respond.status(), 400, "{nobody}, {fault}");
            assert!(respond.header("location").is_none(), "{nobody}, {fault}");
            assert_eq!(respond.header("cache-control"), Some("no-store"));
        }
    }
}

// OAUTH21-3.1-7, I-G2: nobody decides which of two values counts.
#[test]
fn a_repeated_parameter_of_any_name_ends_on_the_page() {
    let world = world();
    let names: Vec<String> = Ask::partner().0.into_iter().map(|(name, _)| name).chain(["x".into()]).collect();
    for name in names {
        let refusal = world.ask(&Ask::partner().with("x", "1").twice(&name)).page();
        assert_eq!(refusal.reason(), RefusalReason::MalformedRequest, "{name}");
    }
}

// OAUTH21-3.1-4, OAUTH21-3.1-5, OAUTH21-3.1-8
#[test]
fn unknown_and_empty_parameters_change_nothing() {
    let mut world = world();
    let ask =
        Ask::partner().with("foo", "bar").with("request", "").with("prompt", "login").with("nonce", "n");
    assert_eq!(world.shown(&ask).scopes.len(), 2);
}

// OAUTH21-7.11-2
#[test]
fn syntax_and_length_are_checked_before_use() {
    let world = world();
    for query in [
        "client_id=%zz".to_owned(),
        "client_id=partner&state=%0d%0aSet-Cookie:x".to_owned(),
        format!("client_id=partner&state={}", "s".repeat(3000)),
        format!("client_id=partner&x={}", "y".repeat(40_000)),
        (0..100).map(|n| format!("p{n}=1&")).collect(),
        "client_id=\u{fffd}".to_owned(),
    ] {
        assert_eq!(world.ask_raw(&query).page().respond().status(), 400, "{query:.60}");
    }
}

// OAUTH21-2.3.2-2: one registered redirect URI needs no naming, for several it has to be said.
#[test]
fn an_absent_redirect_uri_means_the_only_one() {
    let world = world();
    let request = world.ask(&Ask::partner().without("redirect_uri")).valid();
    assert_eq!(request.redirect_matched().redirect_uri().as_str(), CALLBACK);
}

// OAUTH21-2.3.1-4: each of several is as good as the first.
#[test]
fn each_registered_redirect_uri_can_be_asked_for() {
    let mut world = world();
    let uris = ["https://app.example/1", "https://app.example/2", "http://localhost/3"];
    world.store.put_client(operators("several", &uris));
    for uri in uris {
        let request = world.ask(&Ask::of("several", uri)).valid();
        assert_eq!(request.redirect_matched().redirect_uri().as_str(), uri);
    }
}

// OAUTH21-4.1.1-11: the program listens where it found a free port, and the answer goes to that port.
#[test]
fn a_loopback_answer_goes_to_the_port_of_the_request() {
    let mut world = world();
    world.store.put_client(operators("native", &["http://127.0.0.1:1/cb"]));
    let view = world.shown(&Ask::of("native", "http://127.0.0.1:50123/cb"));
    assert!(view.redirect_is_loopback);
    let redirect = world.approve(&view).unwrap();
    assert!(redirect.location().starts_with("http://127.0.0.1:50123/cb?"));
}

// MCP-AUTH-058, D30: any spelling of a known resource is that resource, in the configured spelling.
#[test]
fn a_resource_is_known_in_any_case_of_its_host() {
    let mut world = world();
    let view = world.shown(&Ask::partner().with("resource", "HTTPS://MCP.example/notes"));
    assert_eq!(view.resource.as_str(), RESOURCE);
    let ask = Ask::partner().with("scope", "list");
    for spelling in ["https://other.example", "https://other.example/", "https://OTHER.example/"] {
        let view = world.shown(&ask.clone().with("resource", spelling));
        assert_eq!(view.resource.as_str(), "https://Other.example", "{spelling}");
    }
    assert!(matches!(world.ask(&ask.with("resource", "https://mcp.example/Notes")), Checked::Error(_)));
}

// RFC9068-3-2, D30: a request that names no resource is refused, unless the operator named one for it.
#[test]
fn a_default_resource_is_only_the_operators() {
    let ask = Ask::partner().without("resource");
    assert_eq!(world().ask(&ask).error().code().as_str(), "invalid_target");
    let named = |id: &str| configuration(ISSUER).default_resource(ResourceId::new(id).unwrap());
    let mut world = world_of(named(RESOURCE));
    let view = world.shown(&ask);
    assert_eq!(view.resource.as_str(), RESOURCE);
    let unknown = AuthorizationServer::new(named("https://unknown.example"));
    assert_eq!(unknown.unwrap_err(), InvalidConfiguration::DefaultResource);
}

// OAUTH21-1.4.1-3, OAUTH21-1.4.1-2, D38: unknown scopes are dropped, an absent one has the operator's default.
#[test]
fn the_person_is_asked_for_known_scopes_only() {
    let mut world = world();
    let asked = |view: &mcp_authz::authorization_server::authorization::ConsentView| {
        view.scopes.iter().map(|shown| format!("{}: {}", shown.scope, shown.words)).collect::<Vec<_>>()
    };
    let view = world.shown(&Ask::partner().with("scope", "write delete list"));
    assert_eq!(asked(&view), ["write: May write your notes"]);
    let view = world.shown(&Ask::partner().without("scope").with("resource", "https://other.example"));
    assert_eq!(asked(&view), ["list: May list your notes"]);

    // What a client registered for bounds what it can ask for.
    world.store.put_client(operators_with("reader", &[CALLBACK], |it| it.scope = Some(scope("read other"))));
    assert_eq!(asked(&world.shown(&Ask::of("reader", CALLBACK))), ["read: May read your notes"]);
    let error = world.ask(&Ask::of("reader", CALLBACK).with("scope", "write")).error();
    assert_eq!(*error.code(), AuthorizationErrorCode::InvalidScope);
}

// MCP-SEC-024, MCP-SEC-022, RFC7591-5-2, MCP-SBP-004
#[test]
fn the_page_has_what_the_client_cannot_invent() {
    let mut world = world();
    let view = world.shown(&Ask::partner());
    assert_eq!(view.redirect_host, "app.example");
    assert!(!view.redirect_is_loopback && view.client.verified);
    assert_eq!(view.client.name.as_deref(), Some("Notes app"));
    assert_eq!((view.client_id.as_str(), view.client.identity.as_str()), (PARTNER, PARTNER));
    assert_eq!(&*view.subject, PERSON);

    for loopback in
        ["http://localhost:1/cb", "http://127.0.0.1/cb", "http://[::1]/cb", "https://localhost/cb"]
    {
        world.store.put_client(operators("native", &[loopback]));
        assert!(world.shown(&Ask::of("native", loopback)).redirect_is_loopback, "{loopback}");
    }
}

// OAUTH21-7.12.2-1, MCP-SEC-020: an error is held until the person is known, with what a page in between would say.
#[test]
fn an_error_waits_for_the_person() {
    let world = world();
    let error = world.ask(&Ask::partner().with("scope", "list")).error();
    assert_eq!(error.redirect_host(), "app.example");
    assert!(error.client().verified);
    assert_eq!(error.words(), "no scope of the request is known for this resource");
}

// OAUTH21-3.1-1, I-P9
#[test]
fn nobody_and_no_browser_in_particular_cannot_be_asked() {
    let now = crate::grants::start();
    assert!(Authentication::assertion("", browser(1), now).is_none());
    assert!(Authentication::assertion(PERSON, AgentBinding::this_process(), now).is_none());
    assert!(Authentication::assertion(PERSON, browser(1), now).is_some());
}

// OAUTH21-7.3-1: what was approved once is asked for again.
#[test]
fn consent_is_asked_for_every_time() {
    let mut world = world();
    for _ in 0..3 {
        let view = world.shown(&Ask::partner());
        let _redirect = world.approve(&view).unwrap();
    }
}

// OAUTH21-7.7-1: a page's handle and form value are its own.
#[test]
fn each_page_has_values_of_its_own() {
    let mut world = world();
    let one = world.shown(&Ask::partner());
    let two = world.shown(&Ask::partner());
    assert!([&one.handle, &one.csrf, &two.handle, &two.csrf].iter().all(|value| value.len() == 43));
    assert!(one.handle != two.handle && one.csrf != two.csrf && one.handle != one.csrf);
}

struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&mut self, _: &mut [u8]) -> Result<(), EntropyUnavailable> {
        Err(EntropyUnavailable)
    }
}

// I-G9, I-G10
#[test]
fn without_randomness_or_store_the_person_is_asked_to_try_again() {
    let world = world();
    let request = world.ask(&Ask::partner()).valid();
    let refusal = request.show(&world.person(), world.store.now(), &mut NoEntropy).unwrap_err();
    assert_eq!(refusal.respond().status(), 503);
}

// A page that was stored for another request is not shown for this one.
#[test]
fn a_page_waits_for_its_own_receipt() {
    let mut world = world();
    let begin = |world: &mut crate::grants::World| {
        let request = world.ask(&Ask::partner()).valid();
        request.show(&world.person(), world.store.now(), &mut world.entropy).unwrap().into_parts()
    };
    let (one, first) = begin(&mut world);
    let (two, second) = begin(&mut world);
    let failed = first.stored(world.store.insert_decision(two)).unwrap_err();
    let _view = failed.state.stored(world.store.insert_decision(one)).unwrap();
    assert_eq!(second.store_failed().respond().status(), 503);
}

// One lookup's answer does not serve another request.
#[test]
fn a_client_that_was_found_for_another_request_is_unknown() {
    use mcp_authz::authorization_server::authorization::Authorizing;
    let mut world = world();
    world.store.put_client(operators("other", &[CALLBACK]));
    let begin = |ask: &Ask| match world.server.authorize(&ask.query()).unwrap() {
        Authorizing::Find(step) => step.into_parts(),
        _ => panic!("no URL was given"),
    };
    let (_, waiting) = begin(&Ask::partner());
    let (others, _) = begin(&Ask::of("other", CALLBACK));
    let refusal = Checked::from(waiting.found(world.store.find_client(others))).page();
    assert_eq!(refusal.reason(), RefusalReason::UnknownClient);
}

// I-R8, OAUTH21-7.5.4-1, OAUTH21-3.1-9, OAUTH21-3.2.3-8
#[test]
fn redirects_are_303_and_readable_by_no_other_origin() {
    let mut world = world();
    let view = world.shown(&Ask::partner());
    let success = world.approve(&view).unwrap().respond();
    let error = world.ask(&Ask::partner().without("scope")).error();
    for respond in [success, error.redirect(&world.person()).unwrap().respond()] {
        assert_eq!(respond.status(), 303);
        assert_eq!(respond.header("cache-control"), Some("no-store"));
        assert_eq!(respond.header("referrer-policy"), Some("no-referrer"));
        assert!(respond.headers().all(|(name, _)| !name.starts_with("access-control")));
    }
}

// I-G8: two values of the configuration that contradict each other are found when it is built.
#[test]
fn a_default_scope_is_one_of_the_resources_scopes() {
    use mcp_authz::authorization_server::{Configuration, InvalidConfiguration, KnownResource};
    use mcp_authz::identifier::{Issuer, ResourceId, Scope};
    use mcp_authz::jose::{Algorithm, SigningKeyId};
    let resource = KnownResource::new(
        ResourceId::new(RESOURCE).unwrap(),
        [(Scope::new("read").unwrap(), "Read".to_owned())],
    );
    let build = |default| {
        let key = SigningKeyId::new("k", Algorithm::EdDsa);
        let resource = resource.clone().default_scopes(scope(default));
        AuthorizationServer::new(Configuration::new(Issuer::new(ISSUER).unwrap(), vec![resource], key))
    };
    assert!(build("read").is_ok());
    assert!(matches!(build("read write").unwrap_err(), InvalidConfiguration::DefaultScope(_)));
}

// MCP-SEC-008, OAUTH21-2-1, MCP-REG-020
#[test]
fn an_operators_client_has_usable_redirect_uris_and_no_url_for_a_name() {
    use mcp_authz::authorization_server::record::{ClientCredential, ClientRecord};
    use mcp_authz::identifier::ClientId;
    let make = |id: &str, uris: Vec<RedirectUri>| {
        let metadata = ClientMetadata { redirect_uris: uris, ..ClientMetadata::default() };
        let id = ClientId::new(id).unwrap();
        ClientRecord::pre_registered(id, metadata, ClientCredential::None, crate::grants::start())
    };
    let web = || RedirectUri::new(CALLBACK).unwrap();
    assert!(make("c", vec![web()]).is_some());
    assert!(make("c", vec![]).is_none());
    assert!(make("c", vec![web(), RedirectUri::private_scheme("com.example.app:/cb").unwrap()]).is_none());
    assert!(make("https://app.example/client.json", vec![web()]).is_none());
}

#[test]
fn a_closed_server_still_answers_its_own_clients() {
    let mut world =
        world_of(configuration(ISSUER).registration(RegistrationPolicy::Closed).metadata_documents(false));
    let view = world.shown(&Ask::partner());
    let _redirect = world.approve(&view).unwrap();
}

const POOL: &[&str] = &[
    "https://app.example/cb",
    "https://app.example/cb?x=1",
    "https://app.example/cb2",
    "https://app.example:8443/cb",
    "http://127.0.0.1/cb",
    "http://127.0.0.1:8080/cb",
    "http://127.0.0.1/cb?a=b",
    "http://localhost/cb",
    "http://[::1]:3000/cb",
];

/// I-R2 as it is written down: equal, or equal but for the port of the same http loopback host.
fn is_registered(registered: &str, requested: &str) -> bool {
    let elided = |uri: &str| {
        ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().find_map(|start| {
            let rest = uri.strip_prefix(start)?;
            let (port, tail) = rest.split_at(rest.find('/')?);
            let port_is_one = match port.strip_prefix(':') {
                None => port.is_empty(),
                Some(digits) => digits.parse::<u16>().is_ok_and(|n| n > 0 && n.to_string() == digits),
            };
            port_is_one.then(|| format!("{start}{tail}"))
        })
    };
    registered == requested || elided(registered).is_some_and(|it| elided(requested) == Some(it))
}

/// A redirect URI of the pool, or one that differs from it by little.
fn near_pool() -> impl Strategy<Value = String> {
    let one = || select(POOL).prop_map(str::to_owned);
    let port = (one(), any::<u16>()).prop_map(|(uri, port)| {
        let at = uri.rfind("/cb").unwrap();
        let (host, path) = uri.split_at(at);
        let host = host
            .rfind(':')
            .filter(|colon| *colon > 6 && !host[*colon..].contains(']'))
            .map_or(host, |c| &host[..c]);
        format!("{host}:{port}{path}")
    });
    let byte = (one(), any::<Index>(), any::<u8>()).prop_map(|(uri, at, byte)| {
        let mut bytes = uri.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let inserted =
        (one(), any::<Index>(), select(&["/", ".", "@", "#", "\\", "%2e", "?", ":", " ", "\t"][..]))
            .prop_map(|(mut uri, at, text)| {
                uri.insert_str(at.index(uri.len()), text);
                uri
            });
    prop_oneof![one(), port, byte, inserted]
}

proptest! {
    // I-R1, I-R2, I-R3, I-R4, OAUTH21-2.3.1-2, OAUTH21-4.1.1-11, OAUTH21-2.3-3
    #[test]
    fn an_answer_goes_to_a_registered_redirect_uri_or_nowhere(
        registered in prop::collection::btree_set(select(POOL), 1..4),
        requested in near_pool(),
        faulty in any::<bool>(),
    ) {
        let mut world = world();
        let registered: Vec<&str> = registered.into_iter().collect();
        world.store.put_client(operators("c", &registered));
        let ask = Ask::of("c", &requested);
        let ask = if faulty { ask.without("code_challenge") } else { ask };
        let expected = registered.iter().any(|known| is_registered(known, &requested));
        let sent = match world.ask(&ask) {
            Checked::Page(refusal) => {
                prop_assert_eq!(refusal.reason(), RefusalReason::RedirectUri);
                None
            }
            Checked::Error(error) => Some(error.redirect(&world.person()).unwrap()),
            Checked::Valid(request) => {
                let view = world.show(request);
                Some(world.approve(&view).unwrap())
            }
        };
        prop_assert_eq!(sent.is_some(), expected, "{}", requested);
        if let Some(redirect) = sent {
            let separator = if requested.contains('?') { '&' } else { '?' };
            let rest = redirect.location().strip_prefix(&requested).unwrap();
            prop_assert!(rest.starts_with(separator));
        }
    }

    // I-R6, I-R7, OAUTH21-4.1.2-3, RFC9207-2-1, RFC9207-2.3-1: whatever the state is, it comes back, and iss is the issuer.
    #[test]
    fn state_and_issuer_come_back_once_and_unchanged(state in "[ -~]{1,80}", answer in 0..3) {
        let mut world = world();
        let ask = Ask::partner().with("state", &state);
        let redirect = match answer {
            0 => {
                let view = world.shown(&ask);
                world.approve(&view).unwrap()
            }
            1 => world.ask(&ask.with("response_type", "token")).error().redirect(&world.person()).unwrap(),
            _ => {
                let view = world.shown(&ask);
                let deciding = world.deciding(&view.handle).unwrap();
                let step = deciding.deny(PERSON, browser(1), &view.csrf, &mut world.entropy).unwrap();
                let (action, waiting) = step.into_parts();
                world.decided(action, waiting).unwrap()
            }
        };
        let (base, query) = redirect.location().split_once('?').unwrap();
        prop_assert_eq!(base, "https://app.example/cb");
        prop_assert!(query.starts_with("tenant=a%2Fb&"), "the client's own query is as it was");
        let answer = answered(redirect.location());
        prop_assert_eq!(answer.get("state"), Some(state.as_str()));
        let published = world.server.metadata().issuer;
        prop_assert_eq!(answer.get("iss"), Some(published.as_str()));
        prop_assert!(answer.has_name("code") != answer.has_name("error"));
    }

    // I-C5, I-C6: nothing but the text of 32 bytes, under S256, is a challenge.
    #[test]
    fn only_a_canonical_s256_challenge_is_taken(
        text in prop_oneof!["[A-Za-z0-9_-]{42,44}", "[A-Za-z0-9._~=+/-]{43}", "[ -~]{0,60}"],
        method in prop_oneof![Just("S256"), Just("plain"), Just("s256"), Just("S512"), Just("")],
    ) {
        let world = world();
        let ask = Ask::partner().with("code_challenge", &text).with("code_challenge_method", method);
        // Four bits of the last character are no part of 32 bytes: they are zero or the text is another's.
        let canonical = text.len() == 43
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && "AEIMQUYcgkosw048".contains(text.chars().last().unwrap());
        prop_assert_eq!(matches!(world.ask(&ask), Checked::Valid(_)), canonical && method == "S256");
    }

    // I-G1: any query is answered.
    #[test]
    fn no_query_upsets_the_endpoint(query in "\\PC{0,200}", name in "[a-z_]{1,12}") {
        let world = world();
        let _ = world.server.authorize(&query);
        let _ = world.ask(&Ask::partner().with(&name, &query));
        let _ = world.ask_raw(&format!("client_id={PARTNER}&{}&{query}", form::encode([("redirect_uri", CALLBACK)])));
    }
}
