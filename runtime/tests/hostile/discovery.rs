//! What a resource or an authorization server says of itself: methods, issuers, resources, endpoints, addresses.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mcp_authz::error::{Error, PeerIncompatible, PeerMisbehaved, Remedy};
use mcp_authz::identifier::{Origin, ResourceId};
use mcp_authz::message::Malformed;
use mcp_authz::message::exchange::{FetchFailure, Reply};
use mcp_authz::policy::Relaxation;
use mcp_authz_tokio::BoxFuture;
use mcp_authz_tokio::client::connection::{Connection, SendError};
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::client::resolver::Resolver;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::server::Answer;
use crate::world::{At, ELSEWHERE, HONEST, NOTES, World, control, failed, relaxation, request, stops_at};

/// The authorization server's metadata with one member set, or removed by `null`.
async fn server_metadata_with(member: &'static str, value: impl Into<Value>) -> (Error, World) {
    let mut world = World::new().await;
    let value = value.into();
    world.change(HONEST, At::ServerMetadata, move |_, honest| honest.member(member, value.clone()));
    let error = world.error().await;
    stops_at(&world, At::ServerMetadata);
    (error, world)
}

// MCP-SEC-010, MCP-SEC-012, MCP-SEC-013
#[tokio::test]
async fn a_server_that_does_not_list_s256_is_not_asked_for_a_code() {
    control().await;
    let (error, world) = server_metadata_with("code_challenge_methods_supported", Value::Null).await;
    let assume = Relaxation::AssumeS256(world.issuer());
    assert_eq!(error, PeerIncompatible::NoS256 { relaxation: Some(assume.clone()) }.into());
    assert_eq!(error.remedy(), Remedy::Relax(assume));
    for methods in [json!(["plain"]), json!([]), json!(["s256"]), json!(["S512"])] {
        let (error, _) = server_metadata_with("code_challenge_methods_supported", methods).await;
        assert_eq!(error, PeerIncompatible::NoS256 { relaxation: None }.into());
        assert_eq!(error.remedy(), Remedy::Refused);
    }
    let mut world = World::new().await;
    world.change(HONEST, At::ServerMetadata, |_, honest| {
        honest.member("code_challenge_methods_supported", json!(["plain", "S256"]))
    });
    assert_eq!(world.call().await.unwrap(), 200);
    assert!(world.opened()[0].contains("code_challenge_method=S256"));
}

// MCP-DISC-015, MCP-DISC-016, D3, D5
#[tokio::test]
async fn a_document_of_an_issuer_that_is_spelled_otherwise_is_not_used() {
    control().await;
    let spellings: [fn(&str) -> String; 6] = [
        |own| own.replace("http://", "HTTP://"),
        |own| own.replace("127.0.0.1", "LOCALHOST"),
        |own| own.replace("127.0.0.1", "localhost"),
        |own| own.replace("127.0.0.1", "127.0.0.1."),
        |own| format!("{own}/x"),
        |own| format!("{own}//"),
    ];
    for spelled in spellings {
        let mut world = World::new().await;
        let other = spelled(&world.origins.honest);
        let member = other.clone();
        world.change(HONEST, At::ServerMetadata, move |_, honest| honest.member("issuer", member.clone()));
        let error = world.error().await;
        let refused = matches!(
            &error,
            Error::Peer(
                PeerMisbehaved::IssuerMismatch { relaxation: None }
                    | PeerMisbehaved::Malformed { fault: Malformed::Invalid("issuer"), .. }
            )
        );
        assert!(refused, "{other}: {error:?}");
        assert_eq!(error.remedy(), Remedy::Refused);
        stops_at(&world, At::ServerMetadata);
    }
    let mut world = World::new().await;
    let slash = format!("{}/", world.origins.honest);
    world.change(HONEST, At::ServerMetadata, move |_, honest| honest.member("issuer", slash.clone()));
    let error = world.error().await;
    assert!(matches!(error, Error::Peer(PeerMisbehaved::IssuerMismatch { .. })), "{error:?}");
    assert_eq!(relaxation(&error.remedy()), Some("IssuerRootSlash"));
    stops_at(&world, At::ServerMetadata);
}

// RFC9728-3.3-1, RFC9728-3.3-3, I-L2
#[tokio::test]
async fn metadata_of_another_resource_is_not_used() {
    control().await;
    let others: [fn(&str) -> String; 7] = [
        |own| format!("{own}/other"),
        |own| format!("{own}/mcp/"),
        |own| format!("{own}/mcp/below"),
        |own| format!("{}/mcp", own.replace("http://", "https://")),
        |own| format!("{}:1/mcp", own.rsplit_once(':').unwrap().0),
        |own| format!("{}/mcp", own.replace("127.0.0.1", "localhost")),
        |own| format!("{own}/MCP"),
    ];
    for other in others {
        let mut world = World::new().await;
        let resource = other(&world.origins.notes);
        let member = resource.clone();
        world.change(NOTES, At::ResourceMetadata, move |_, honest| honest.member("resource", member.clone()));
        let error = world.error().await;
        assert_eq!(error, PeerMisbehaved::ResourceMismatch { relaxation: None }.into(), "{resource}");
        assert_eq!(error.remedy(), Remedy::Refused, "{resource}");
        stops_at(&world, At::ResourceMetadata);
    }
    let mut world = World::new().await;
    world.change(NOTES, At::ResourceMetadata, |_, honest| {
        honest.edit(|it| it["resource"] = it["resource"].as_str().unwrap().replace("/mcp", "").into())
    });
    assert_eq!(relaxation(&world.error().await.remedy()), Some("ResourcePathPrefix"));
    stops_at(&world, At::ResourceMetadata);
}

fn pointing_to(url: String) -> impl Fn(&crate::server::Request, Answer) -> Answer + Send + Sync {
    move |request, honest| match request.header("authorization") {
        Some(_) => honest,
        None => honest.with("www-authenticate", format!("Bearer resource_metadata=\"{url}\"")),
    }
}

// I-L2, MCP-SBP-020
#[tokio::test]
async fn a_challenge_leads_to_its_own_origin_or_nowhere() {
    control().await;
    let mut world = World::new().await;
    let elsewhere = Origin::new(world.origins.elsewhere.as_str()).unwrap();
    world.change(NOTES, At::Mcp, pointing_to(format!("{}/meta", world.origins.elsewhere)));
    let error = world.error().await;
    let named = Relaxation::MetadataOnOtherOrigin(elsewhere.clone());
    assert_eq!(error, PeerMisbehaved::MetadataOnOtherOrigin { relaxation: named.clone() }.into());
    assert_eq!(error.remedy(), Remedy::Relax(named));
    stops_at(&world, At::Mcp);

    let mut relaxed = World::with(|origins, setup| {
        let origin = Origin::new(origins.elsewhere.as_str()).unwrap();
        setup.policy = setup.policy.clone().relax(Relaxation::MetadataOnOtherOrigin(origin));
    })
    .await;
    relaxed.change(NOTES, At::Mcp, pointing_to(format!("{}/meta", relaxed.origins.elsewhere)));
    let document =
        json!({"resource": relaxed.server().as_str(), "authorization_servers": [relaxed.origins.honest]});
    relaxed.change(ELSEWHERE, At::Elsewhere, move |_, _| Answer::document(200, &document));
    assert_eq!(relaxed.call().await.unwrap(), 200);

    for url in [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "data:application/json,{}",
        "//127.0.0.1/meta",
        "/meta",
        "meta",
        "--upload-pack=x",
        "http://user@127.0.0.1/meta",
        "http://mcp.example/meta",
        "",
    ] {
        let mut world = World::new().await;
        world.change(NOTES, At::Mcp, pointing_to(url.to_owned()));
        let error = world.error().await;
        let fault = Malformed::Invalid("resource_metadata");
        assert_eq!(error, PeerMisbehaved::Malformed { document: "challenge", fault }.into(), "{url}");
        assert_eq!(error.remedy(), Remedy::Refused);
        stops_at(&world, At::Mcp);
    }
}

/// What is no endpoint, whatever it is an endpoint of.
const NO_ENDPOINT: [&str; 28] = [
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,x",
    "file:///etc/passwd",
    "vbscript:x",
    "smb://host/share",
    "--upload-pack=touch",
    "-x",
    "http://as.example/authorize",
    "https://user:secret@as.example/authorize",
    "https://as.example@evil.example/authorize",
    "https://as.example/authorize#fragment",
    "https://as.example/\u{0}",
    "https://as.example/a\r\nhost: evil.example",
    "https://as.example/a\tb",
    " https://as.example/authorize",
    "https://as.example/authorize ",
    "https://as.example/a b",
    "https://as.example\\@evil.example/",
    "https:\\\\as.example\\authorize",
    "https://as.example/$(calc)`x`",
    "https://as.example/it's",
    "https:as.example/authorize",
    "//as.example/authorize",
    "/authorize",
    "https://ａs.example/authorize",
    "https:///authorize",
    "",
];

// I-L6, MCP-SBP-040, MCP-SBP-041, MCP-SBP-044
#[tokio::test]
async fn what_is_no_endpoint_is_neither_opened_nor_fetched() {
    control().await;
    for endpoint in
        ["authorization_endpoint", "token_endpoint", "registration_endpoint", "revocation_endpoint"]
    {
        for url in NO_ENDPOINT {
            let (error, world) = server_metadata_with(endpoint, url).await;
            let refused = matches!(
                &error,
                Error::Peer(PeerMisbehaved::Malformed { document: "authorization server metadata", .. })
            );
            assert!(refused, "{endpoint} {url}: {error:?}");
            assert_eq!(error.remedy(), Remedy::Refused);
            assert!(world.opened().is_empty());
        }
    }
}

// I-L6, OAUTH21-3.1-6
#[tokio::test]
async fn an_authorization_endpoint_that_holds_a_parameter_of_ours_is_not_opened() {
    control().await;
    for parameter in [
        "state=x",
        "client_id=x",
        "redirect_uri=x",
        "code_challenge=x",
        "resource=x",
        "st%61te=x",
        "a=1&scope=",
    ] {
        let mut world = World::new().await;
        world.change(HONEST, At::ServerMetadata, move |_, honest| {
            honest.edit(|it| {
                let endpoint = format!("{}?{parameter}", it["authorization_endpoint"].as_str().unwrap());
                it["authorization_endpoint"] = endpoint.into();
            })
        });
        let error = world.error().await;
        assert_eq!(error, PeerMisbehaved::AuthorizationEndpoint.into(), "{parameter}");
        assert_eq!(error.remedy(), Remedy::Refused);
        stops_at(&world, At::Registration);
        assert!(world.opened().is_empty());
    }
    let mut world = World::new().await;
    world.change(HONEST, At::ServerMetadata, move |_, honest| {
        honest.edit(|it| {
            let endpoint = format!("{}?tenant=%41", it["authorization_endpoint"].as_str().unwrap());
            it["authorization_endpoint"] = endpoint.into();
        })
    });
    assert_eq!(world.call().await.unwrap(), 200);
    assert!(world.opened()[0].contains("?tenant=%41&response_type="));
}

/// Addresses no client on the public network is sent to, and whether a host can allow them by name.
const INSIDE: [(&str, bool); 20] = [
    ("10.0.0.1", true),
    ("172.16.0.1", true),
    ("192.168.1.1", true),
    ("[fd00::1]", true),
    ("169.254.169.254", false),
    ("100.64.0.1", false),
    ("0.0.0.0", false),
    ("255.255.255.255", false),
    ("224.0.0.1", false),
    ("192.0.2.1", false),
    ("[fe80::1]", false),
    ("[::]", false),
    ("[::ffff:a00:1]", false),
    ("[::ffff:7f00:1]", false),
    ("[64:ff9b::a00:1]", false),
    ("[64:ff9b::7f00:1]", false),
    ("[2002:a00:1::1]", false),
    ("[2002:7f00:1::1]", false),
    ("[2001:0:a00:1::1]", false),
    ("[ff02::1]", false),
];

/// Other spellings of loopback and private addresses, which are no hosts.
const NUMBERS: [&str; 11] = [
    "[::ffff:10.0.0.1]",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "127.0.0.1.",
    "167772161",
    "012.0.0.1",
    "[::127.0.0.1%25lo]",
    "１27.0.0.1",
];

// MCP-SBP-020, MCP-SBP-023, I-L8
#[tokio::test]
async fn an_endpoint_inside_a_network_is_not_reached() {
    control().await;
    for endpoint in
        ["authorization_endpoint", "token_endpoint", "registration_endpoint", "revocation_endpoint"]
    {
        for (host, nameable) in INSIDE {
            let (error, _) = server_metadata_with(endpoint, format!("https://{host}/x")).await;
            let what = endpoint.replace('_', " ");
            let Error::Peer(PeerMisbehaved::ForbiddenAddress { what: said, .. }) = &error else {
                panic!("{endpoint} {host}: {error:?}")
            };
            assert_eq!(*said, what);
            assert_eq!(relaxation(&error.remedy()).is_some(), nameable, "{host}");
            assert!(nameable || error.remedy() == Remedy::Refused);
        }
        for host in NUMBERS {
            let (error, _) = server_metadata_with(endpoint, format!("https://{host}/x")).await;
            assert!(matches!(error, Error::Peer(_)), "{endpoint} {host}: {error:?}");
            assert_eq!(error.remedy(), Remedy::Refused, "{host}");
        }
    }
}

// MCP-SBP-020, I-L8
#[tokio::test]
async fn an_issuer_inside_a_network_is_not_asked() {
    control().await;
    for (host, nameable) in INSIDE {
        let mut world = World::new().await;
        world.names(&format!("https://{host}"));
        let error = world.error().await;
        assert!(
            matches!(error, Error::Peer(PeerMisbehaved::ForbiddenAddress { what: "issuer", .. })),
            "{host}: {error:?}"
        );
        assert_eq!(relaxation(&error.remedy()).is_some(), nameable, "{host}");
        stops_at(&world, At::ResourceMetadata);
    }
    for host in NUMBERS {
        let mut world = World::new().await;
        world.names(&format!("https://{host}"));
        assert!(matches!(world.error().await, Error::Peer(PeerMisbehaved::Malformed { .. })), "{host}");
        stops_at(&world, At::ResourceMetadata);
    }
}

/// Gives these answers, one after the other.
#[derive(Debug, Clone, Default)]
struct Names {
    answers: Arc<Mutex<Vec<Vec<IpAddr>>>>,
    asked: Arc<AtomicUsize>,
}

impl Names {
    fn answering(answers: &[&[&str]]) -> Self {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        let mut answers: Vec<_> = answers.iter().map(parse).collect();
        answers.reverse();
        Self { answers: Arc::new(Mutex::new(answers)), asked: Arc::default() }
    }
}

impl Resolver for Names {
    fn resolve(&self, _: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop().unwrap() } else { answers[0].clone() };
        Box::pin(std::future::ready(Ok(answer)))
    }
}

/// A listener that counts who comes.
async fn counted() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counting = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((_stream, _)) = listener.accept().await {
            counting.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, count)
}

// MCP-SBP-025, I-L8
#[tokio::test]
async fn a_name_that_leads_inside_is_not_connected_to() {
    control().await;
    let (port, reached) = counted().await;
    for answer in [
        &["127.0.0.1"][..],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["10.0.0.1"],
        &["169.254.169.254"],
        &["0.0.0.0"],
        // One public address beside it makes it no better.
        &["203.0.114.1", "127.0.0.1"],
    ] {
        let names = Names::answering(&[answer]);
        let fetcher = Fetcher::builder().resolver(Arc::new(names.clone())).build().unwrap();
        let mut world = World::with(|_, setup| setup.fetcher = fetcher).await;
        // The authorization server of a resource on this machine: public by its name, and so held to public addresses.
        world.names(&format!("https://inside.test:{port}"));
        let error = world.error().await;
        assert_eq!(error, failed(FetchFailure::AddressForbidden), "{answer:?}");
        assert_eq!(error.remedy(), Remedy::Refused);
        stops_at(&world, At::ResourceMetadata);
        // The MCP server itself, and what a challenge of it points to.
        let url = format!("https://inside.test:{port}/mcp");
        let connection = Connection::new(world.driver.clone(), url.as_str()).unwrap();
        let refused = connection.send(&request("tools/list")).await.unwrap_err();
        assert!(matches!(refused, SendError::Fetch(FetchFailure::AddressForbidden)), "{refused:?}");
        let server = ResourceId::from_server_url(&url).unwrap();
        let refused = world.driver.prepare(&server, &Reply::new(401, "")).await.unwrap_err();
        assert_eq!(refused.to_string(), FetchFailure::AddressForbidden.to_string());
        assert_eq!(names.asked.load(Ordering::SeqCst), 3, "no second answer is waited for");
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}

// MCP-SBP-020: what lies on this machine is reached from a URL that does so too, and from no other.
#[tokio::test]
async fn a_public_server_leads_nobody_to_this_machine() {
    let world = World::new().await;
    let server = ResourceId::from_server_url("https://mcp.example/mcp").unwrap();
    for url in [format!("{}/meta", world.origins.notes), "http://localhost/meta".to_owned()] {
        let challenge = format!("Bearer resource_metadata=\"{url}\"");
        let reply = Reply::new(401, "").with_header("www-authenticate", challenge.as_bytes());
        assert!(world.driver.prepare(&server, &reply).await.is_err());
    }
    assert!(world.places().is_empty());
}
