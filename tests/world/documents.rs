//! Clients known by the URL of their metadata document: what is fetched, what is believed, what is kept.

use mcp_authz::authorization_server::authorization::{Authorizing, AwaitingMetadataDocument};
use mcp_authz::authorization_server::record::ClientOrigin;
use mcp_authz::authorization_server::refusal::RefusalReason;
use mcp_authz::limits;
use mcp_authz::message::error_code::AuthorizationErrorCode;
use mcp_authz::message::exchange::{AddressPolicy, Fetch, FetchFailure, FetchPurpose, Reply};
use mcp_authz::step::Step;
use proptest::prelude::*;

use crate::approvals::{Ask, Checked, ISSUER, answered, configuration, operators, world, world_of};
use crate::grants::{Request, World};

const URL: &str = "https://app.example/oauth/client.json";
const CALLBACK: &str = "http://127.0.0.1:3000/cb";

fn document_of(url: &str, more: &str) -> String {
    format!(
        r#"{{"client_id":"{url}","client_name":"Notes app","redirect_uris":["http://127.0.0.1/cb"],
        "grant_types":["authorization_code","refresh_token"],"token_endpoint_auth_method":"none"{more}}}"#
    )
}

fn document(more: &str) -> String {
    document_of(URL, more)
}

fn reply(status: u16, body: &str) -> Reply {
    Reply::new(status, body).with_header("content-type", b"application/json")
}

fn fetch(world: &World, ask: &Ask) -> Result<Step<Fetch, AwaitingMetadataDocument>, RefusalReason> {
    match world.server.authorize(&ask.query()) {
        Ok(Authorizing::Fetch(step)) => Ok(step),
        Ok(_) => panic!("a URL is looked up among registered clients"),
        Err(refusal) => Err(refusal.reason()),
    }
}

fn ask() -> Ask {
    Ask::of(URL, CALLBACK)
}

/// What a request of the client comes to, when its document is answered so.
fn after(world: &World, ask: &Ask, fetched: Result<Reply, FetchFailure>) -> Checked {
    let (_, waiting) = fetch(world, ask).unwrap().into_parts();
    waiting.receive(fetched, world.store.now()).into()
}

fn refused(fetched: Result<Reply, FetchFailure>) -> bool {
    let world = world();
    match after(&world, &ask(), fetched) {
        Checked::Page(refusal) => {
            // MCP-REG-025: shown, not redirected.
            let respond = refusal.respond();
            assert_eq!((refusal.reason(), respond.status()), (RefusalReason::MetadataDocument, 400));
            assert!(respond.header("location").is_none());
            true
        }
        Checked::Valid(_) => false,
        Checked::Error(error) => panic!("{error:?}"),
    }
}

// MCP-AUTH-005, MCP-REG-020, MCP-REG-023, CIMD-6.4-1, RFC7591-5-2
#[test]
fn a_client_comes_of_its_document_and_keeps_its_url_for_a_name() {
    let mut world = world();
    let request = after(&world, &ask(), Ok(reply(200, &document("")))).valid();
    let view = world.show(request);
    assert_eq!((view.client_id.as_str(), view.client.identity.as_str()), (URL, "app.example"));
    assert_eq!(view.client.name.as_deref(), Some("Notes app"));
    assert!(!view.client.verified && view.redirect_is_loopback);
    let redirect = world.approve(&view).unwrap();
    let code = answered(redirect.location()).get("code").unwrap().to_owned();
    // The client was stored with the decision: the token endpoint knows it.
    let tokens = world.send(&Request::code(URL).with("code", &code).with("redirect_uri", CALLBACK));
    assert!(tokens.is_success(), "{:?}", tokens.reason);
}

// MCP-REG-023, D10: the document's redirect URIs are the registered ones.
#[test]
fn only_the_documents_redirect_uris_are_answered() {
    let world = world();
    for other in ["http://localhost:3000/cb", "https://app.example/cb", "http://127.0.0.1:3000/cb/"] {
        let asked = ask().with("redirect_uri", other);
        let refusal = after(&world, &asked, Ok(reply(200, &document("")))).page();
        assert_eq!(refusal.reason(), RefusalReason::RedirectUri, "{other}");
    }
    let faulty = ask().without("code_challenge");
    let error = after(&world, &faulty, Ok(reply(200, &document("")))).error();
    assert_eq!(*error.code(), AuthorizationErrorCode::InvalidRequest);
    let other = r#","response_types":["none"]"#;
    let error = after(&world, &ask(), Ok(reply(200, &document(other)))).error();
    assert_eq!(*error.code(), AuthorizationErrorCode::UnauthorizedClient);
}

// MCP-SEC-021, CIMD-4-3, CIMD-6.6-1, CIMD-6.5-2: the fetch says that a stranger chose where it goes.
#[test]
fn the_fetch_is_bounded_and_goes_to_public_addresses() {
    let step = fetch(&world(), &ask()).unwrap();
    let fetch = step.action();
    assert_eq!((fetch.method(), fetch.url()), ("GET", URL));
    assert_eq!(fetch.purpose(), FetchPurpose::ClientMetadataDocument);
    assert_eq!(fetch.policy().addresses(), AddressPolicy::Public);
    assert_eq!(fetch.policy().max_bytes(), limits::CLIENT_METADATA_DOCUMENT_BYTES);
    assert!(fetch.authorization().is_none() && fetch.body().is_empty());
}

// CIMD-3-2, I-P1: a malformed URL is refused before anything is fetched, and is looked up nowhere.
#[test]
fn a_url_outside_the_grammar_is_not_fetched() {
    let mut world = world();
    for url in [
        "https://app.example",
        "https://app.example/",
        "http://app.example/client.json",
        "HTTPS://app.example/client.json",
        "https://app.example/./client.json",
        "https://app.example/a/../client.json",
        "https://app.example/%2e%2e/client.json",
        "https://app.example/client.json#f",
        "https://me@app.example/client.json",
        "https://app.example\\client.json",
        "https://app.example/client json",
        "https:///client.json",
    ] {
        assert_eq!(
            fetch(&world, &ask().with("client_id", url)).unwrap_err(),
            RefusalReason::UnknownClient,
            "{url}"
        );
    }
    world.store.put_client(operators("c", &[CALLBACK]));
    assert!(fetch(&world, &ask()).is_ok(), "a URL is never looked up");
}

// CIMD-6.5-1, CIMD-6.5-2: no address of this machine or its network, however it is written.
#[test]
fn a_literal_special_address_is_not_fetched() {
    let world = world();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "[fe80::1]",
        "[::ffff:a00:1]",
        "[fd00::1]",
        "0.0.0.0",
        "100.64.0.1",
        "[64:ff9b::a00:1]",
    ] {
        let asked = ask().with("client_id", &format!("https://{host}/client.json"));
        assert_eq!(fetch(&world, &asked).unwrap_err(), RefusalReason::MetadataDocument, "{host}");
    }
    assert!(fetch(&world, &ask().with("client_id", "https://93.184.216.34/client.json")).is_ok());
}

// CIMD-6.5-2: a server on this machine may talk to itself, and to nothing else that is not public.
#[test]
fn a_loopback_server_fetches_from_loopback() {
    let local = world_of(configuration("http://127.0.0.1:9000"));
    let asked = |url: &str| ask().with("client_id", url);
    let policy = |url: &str| fetch(&local, &asked(url)).map(|step| step.action().policy().addresses());
    assert_eq!(policy("http://127.0.0.1:8000/client.json"), Ok(AddressPolicy::Loopback));
    assert_eq!(policy("https://localhost/client.json"), Ok(AddressPolicy::Loopback));
    assert_eq!(policy(URL), Ok(AddressPolicy::Public));
    assert_eq!(policy("https://10.0.0.1/client.json"), Err(RefusalReason::MetadataDocument));
}

// I-G8: who turned documents off knows no client by URL.
#[test]
fn documents_can_be_turned_off() {
    let world = world_of(configuration(ISSUER).metadata_documents(false));
    assert_eq!(fetch(&world, &ask()).unwrap_err(), RefusalReason::UnknownClient);
    assert!(!world.server.metadata().client_id_metadata_document_supported);
}

// CIMD-4.1-5
#[test]
fn json_has_several_names() {
    for name in ["application/json", "application/json; charset=utf-8", "Application/Client+JSON"] {
        let reply = Reply::new(200, document("")).with_header("content-type", name.as_bytes());
        assert!(!refused(Ok(reply)), "{name}");
    }
    for name in ["text/html", "text/json", "application/jsonp", ""] {
        let reply = Reply::new(200, document("")).with_header("content-type", name.as_bytes());
        assert!(refused(Ok(reply)), "{name}");
    }
    assert!(refused(Ok(Reply::new(200, document("")))));
}

// MCP-REG-021, MCP-REG-024, CIMD-4.1-4, CIMD-6.2-2, CIMD-6.6-1, I-P1
#[test]
fn a_document_that_breaks_a_rule_is_no_client() {
    assert!(!refused(Ok(reply(200, &document("")))));
    assert!(!refused(Ok(reply(200, &document("").replace(r#","token_endpoint_auth_method":"none""#, "")))));
    for more in [
        r#","client_secret":"s""#,
        r#","client_secret_expires_at":0"#,
        r#","client_name":"twice""#,
        r#","scope":"a  b""#,
        r#","logo_uri":"javascript:alert(1)""#,
    ] {
        assert!(refused(Ok(reply(200, &document(more)))), "{more}");
    }
    for method in ["client_secret_basic", "client_secret_post", "client_secret_jwt", "tls_client_auth"] {
        let body = document("").replace(r#"method":"none""#, &format!(r#"method":"{method}""#));
        assert!(refused(Ok(reply(200, &body))), "{method}");
    }
    // A client that promises assertions says with which keys, and is held to it.
    let keys = r#","jwks_uri":"https://app.example/jwks""#;
    let signing = |keys| document(keys).replace(r#"method":"none""#, r#"method":"private_key_jwt""#);
    assert!(!refused(Ok(reply(200, &signing(keys)))));
    assert!(refused(Ok(reply(200, &signing("")))));
    for member in ["client_id", "client_name", "redirect_uris"] {
        let body = document("").replace(&format!(r#""{member}":"#), r#""other":"#);
        assert!(refused(Ok(reply(200, &body))), "{member}");
    }
    for uris in ["[]", r#"["com.example.app:/cb"]"#, r#""http://127.0.0.1/cb""#] {
        let body = document("").replace(r#"["http://127.0.0.1/cb"]"#, uris);
        assert!(refused(Ok(reply(200, &body))), "{uris}");
    }
    for body in ["", "[]", "null", "<html>", &document("")[1..]] {
        assert!(refused(Ok(reply(200, body))), "{body}");
    }
    let padded = |n: usize| document(&format!(r#","x":"{}""#, "y".repeat(n)));
    let room = limits::CLIENT_METADATA_DOCUMENT_BYTES - padded(0).len();
    assert!(!refused(Ok(reply(200, &padded(room)))));
    assert!(refused(Ok(reply(200, &padded(room + 1)))));
}

// CIMD-4.4-3, I-G9
#[test]
fn a_fetch_without_a_reply_is_no_client() {
    use FetchFailure::{AddressForbidden, TimedOut, TooLarge, Unreachable};
    for failure in [Unreachable, TimedOut, TooLarge, AddressForbidden] {
        assert!(refused(Err(failure)), "{failure}");
    }
}

// I-P5: a document takes the place of an older one of its own URL, and of nothing that was registered.
#[test]
fn a_document_is_stored_as_what_it_is() {
    let mut world = world();
    let request = after(&world, &ask(), Ok(reply(200, &document("")))).valid();
    let step = request.show(&world.person(), world.store.now(), &mut world.entropy).unwrap();
    let client = step.action().client().unwrap();
    assert_eq!((client.origin, client.client_id.as_str()), (ClientOrigin::MetadataDocument, URL));
    let known = world.ask(&Ask::partner()).valid();
    let step = known.show(&world.person(), world.store.now(), &mut world.entropy).unwrap();
    assert!(step.action().client().is_none());
}

proptest! {
    // CIMD-4-2, CIMD-4-3
    #[test]
    fn every_status_but_200_is_a_failed_fetch(status in 100_u16..600) {
        prop_assert_eq!(refused(Ok(reply(status, &document("")))), status != 200);
    }

    // MCP-REG-021, I-P1
    #[test]
    fn a_document_of_another_url_is_not_this_client(
        at in any::<prop::sample::Index>(),
        byte in prop::sample::select(&b"aA0/.:%?-_~"[..]),
        insert in any::<bool>(),
    ) {
        let mut other = URL.to_owned().into_bytes();
        let at = at.index(other.len());
        if insert { other.insert(at, byte) } else { other[at] = byte }
        let other = String::from_utf8(other).unwrap();
        prop_assert_eq!(refused(Ok(reply(200, &document_of(&other, "")))), other != URL);
    }

    // I-G1
    #[test]
    fn any_document_is_answered(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let body = Reply::new(200, body).with_header("content-type", b"application/json");
        prop_assert!(refused(Ok(body)));
    }
}
