//! Metadata documents that are none: what a JSON reader could understand in two ways, what does not end, what does not
//! come.

use std::time::Duration;

use mcp_authz::error::{Error, PeerIncompatible, PeerMisbehaved, Remedy};
use mcp_authz::limits;
use mcp_authz::message::exchange::FetchFailure;
use mcp_authz_tokio::client::connection::SendError;
use serde_json::Value;
use tokio::time::Instant;

use crate::server::{Answer, Piece};
use crate::world::{At, HONEST, NOTES, World, control, failed, stops_at};

/// Where a metadata document is, who has it, and what the errors call it.
const DOCUMENTS: [(&str, At, &str); 2] = [
    (NOTES, At::ResourceMetadata, "resource metadata"),
    (HONEST, At::ServerMetadata, "authorization server metadata"),
];

fn json(bytes: impl Into<Vec<u8>>) -> Answer {
    Answer::status(200).with("content-type", "application/json").body(bytes)
}

/// The honest document with text put behind its first brace.
fn beginning_with(honest: &Answer, text: &str) -> Vec<u8> {
    [b"{", text.as_bytes(), &honest.body[1..]].concat()
}

/// What a document becomes, and what that is called.
type Broken = (&'static str, fn(&Answer) -> Vec<u8>);

// I-G1, I-G2
#[tokio::test]
async fn a_document_that_two_readers_could_understand_in_two_ways_is_not_used() {
    control().await;
    let changes: [Broken; 17] = [
        ("nothing", |_| Vec::new()),
        ("white space", |_| b" \n".to_vec()),
        ("an array", |honest| [b"[", honest.body.as_slice(), b"]"].concat()),
        ("null", |_| b"null".to_vec()),
        ("a text", |_| b"\"{}\"".to_vec()),
        ("two documents", |honest| [honest.body.as_slice(), &honest.body].concat()),
        ("something behind it", |honest| [honest.body.as_slice(), b"x"].concat()),
        ("half of it", |honest| honest.body[..honest.body.len() / 2].to_vec()),
        ("a byte order mark", |honest| [b"\xef\xbb\xbf", honest.body.as_slice()].concat()),
        ("UTF-16", |honest| honest.body.iter().flat_map(|byte| [0, *byte]).collect()),
        ("no UTF-8", |honest| {
            beginning_with(honest, "\"x\":\"?\",")
                .iter()
                .map(|byte| if *byte == b'?' { 0xff } else { *byte })
                .collect()
        }),
        ("NUL behind it", |honest| [honest.body.as_slice(), b"\0"].concat()),
        ("NUL in it", |honest| beginning_with(honest, "\"x\":\"\0\",")),
        ("a comment", |honest| beginning_with(honest, "/**/")),
        ("issuer and resource twice", |honest| {
            beginning_with(
                honest,
                "\"issuer\":\"https://evil.example\",\"resource\":\"https://evil.example\",",
            )
        }),
        ("a member twice deep inside", |honest| beginning_with(honest, "\"x\":[{\"a\":1,\"\\u0061\":2}],")),
        ("a nest of a thousand", |honest| {
            beginning_with(honest, &format!("\"x\":{}{},", "[".repeat(1000), "]".repeat(1000)))
        }),
    ];
    for (server, at, document) in DOCUMENTS {
        for (name, change) in changes {
            let mut world = World::new().await;
            world.change(server, at, move |_, honest| json(change(&honest)));
            let error = world.error().await;
            assert!(
                matches!(&error, Error::Peer(PeerMisbehaved::Malformed { document: said, .. }) if *said == document),
                "{document}, {name}: {error:?}"
            );
            assert_eq!(error.remedy(), Remedy::Refused);
            stops_at(&world, at);
        }
    }
}

// I-G1: so many members that a tree of them would be many times the document.
#[tokio::test]
async fn a_document_of_many_values_is_not_used() {
    for (server, at, _) in DOCUMENTS {
        let mut world = World::new().await;
        world.change(server, at, |_, honest| {
            json(beginning_with(&honest, &format!("\"x\":[{}0],", "0,".repeat(20_000))))
        });
        assert!(matches!(world.error().await, Error::Peer(PeerMisbehaved::Malformed { .. })));
        stops_at(&world, at);
    }
}

// I-G2: a name is its bytes, so another case is another member, which is passed over.
#[tokio::test]
async fn a_member_in_another_case_is_another_member() {
    let mut world = World::new().await;
    world.change(NOTES, At::ResourceMetadata, |_, honest| {
        honest.member("Resource", "https://evil.example").member("Authorization_Servers", "evil")
    });
    world.change(HONEST, At::ServerMetadata, |_, honest| {
        honest.member("ISSUER", "https://evil.example").member("Token_Endpoint", "https://evil.example/token")
    });
    assert_eq!(world.call().await.unwrap(), 200);
    for (server, at, _) in DOCUMENTS {
        let required = if server == NOTES { "resource" } else { "issuer" };
        let mut world = World::new().await;
        world.change(server, at, move |_, honest| {
            let value: Value = serde_json::from_slice::<Value>(&honest.body).unwrap()[required].clone();
            honest.member(required, Value::Null).member(&required.to_uppercase(), value)
        });
        assert!(matches!(world.error().await, Error::Peer(PeerMisbehaved::Malformed { .. })));
        stops_at(&world, at);
    }
}

// I-G2
#[tokio::test]
async fn a_member_of_another_type_is_refused_and_not_read_as_what_it_could_mean() {
    for (server, at, member) in [
        (NOTES, At::ResourceMetadata, "resource"),
        (NOTES, At::ResourceMetadata, "authorization_servers"),
        (HONEST, At::ServerMetadata, "issuer"),
        (HONEST, At::ServerMetadata, "authorization_endpoint"),
        (HONEST, At::ServerMetadata, "token_endpoint"),
        (HONEST, At::ServerMetadata, "registration_endpoint"),
        (HONEST, At::ServerMetadata, "response_types_supported"),
        (HONEST, At::ServerMetadata, "code_challenge_methods_supported"),
        (HONEST, At::ServerMetadata, "authorization_response_iss_parameter_supported"),
    ] {
        for value in [
            serde_json::json!(7),
            serde_json::json!({"a": 1}),
            serde_json::json!([1]),
            serde_json::json!("true"),
        ] {
            // One text is what most of these are.
            if value == "true" && matches!(member, "resource" | "issuer") {
                continue;
            }
            let mut world = World::new().await;
            world.change(server, at, move |_, honest| honest.member(member, value.clone()));
            let error = world.error().await;
            assert!(matches!(error, Error::Peer(PeerMisbehaved::Malformed { .. })), "{member}: {error:?}");
            stops_at(&world, at);
        }
    }
}

// RFC9728-3.2-4, D5, D6
#[tokio::test]
async fn what_is_not_called_json_is_no_document() {
    control().await;
    for called in
        ["text/html", "text/plain", "application/jsonp", "application/json-seq", "text/json", "json", ""]
    {
        let mut world = World::new().await;
        world.change(NOTES, At::ResourceMetadata, move |_, honest| honest.with("content-type", called));
        let error = world.error().await;
        assert_eq!(error, PeerMisbehaved::NoMetadataWhereSaid.into(), "{called}");
        assert_eq!(error.remedy(), Remedy::Refused);
        stops_at(&world, At::ResourceMetadata);

        let mut world = World::new().await;
        world.change(HONEST, At::ServerMetadata, move |_, honest| honest.with("content-type", called));
        let error = world.error().await;
        assert_eq!(error, PeerIncompatible::NoServerMetadata { relaxation: None }.into(), "{called}");
        // The other place where it could be.
        assert_eq!(world.seen().last().unwrap().request.target, "/.well-known/openid-configuration");
        assert!(world.opened().is_empty());
    }
    let mut world = World::new().await;
    world.change(HONEST, At::ServerMetadata, |_, honest| {
        honest.with("content-type", "Application/JSON; charset=utf-8")
    });
    assert_eq!(world.call().await.unwrap(), 200);
}

/// Head of a chunked reply.
fn chunked() -> Answer {
    Answer::status(200).with("content-type", "application/json").with("transfer-encoding", "chunked")
}

// I-G1, CIMD-6.6-1: 100 MB are announced, or none are and more come; what is read is the limit and what lies in the
// sockets' buffers.
#[tokio::test]
async fn a_document_without_an_end_is_read_up_to_the_limit() {
    control().await;
    const BUFFERS: usize = 12 << 20;
    let floods: [fn() -> Answer; 5] = [
        || json("").with("content-length", "104857600").pieces([Piece::Endless(vec![b' '; 65_536], None)]),
        || json("").pieces([Piece::Endless(vec![b'{'; 65_536], None)]),
        || {
            chunked()
                .pieces([Piece::Endless([b"10000\r\n", [b'['; 65_536].as_slice(), b"\r\n"].concat(), None)])
        },
        || chunked().pieces([Piece::Endless(b"10\r\n                \r\n".repeat(1000), None)]),
        || json("").with("content-length", "999999999999").pieces([Piece::Endless(vec![b'x'; 1000], None)]),
    ];
    for (server, at, _) in DOCUMENTS {
        for flood in floods {
            let mut world = World::new().await;
            world.change(server, at, move |_, _| flood());
            let error = world.error().await;
            assert_eq!(error, failed(FetchFailure::TooLarge));
            assert_eq!(error.remedy(), Remedy::Refused);
            stops_at(&world, at);
            assert!(world.sent() < BUFFERS, "{} bytes were taken", world.sent());
        }
    }
    // The limit is what it says.
    for (size, taken) in [(limits::DOCUMENT_BYTES, true), (limits::DOCUMENT_BYTES + 1, false)] {
        let mut world = World::new().await;
        world.change(HONEST, At::ServerMetadata, move |_, honest| {
            let filled = format!(
                "{}{}",
                String::from_utf8(honest.body.clone()).unwrap(),
                " ".repeat(size - honest.body.len())
            );
            honest.body(filled)
        });
        assert_eq!(world.call().await.is_ok(), taken, "{size}");
    }
}

// I-G1
#[tokio::test]
async fn a_head_without_an_end_is_given_up() {
    let status = b"HTTP/1.1 200 OK\r\n".to_vec();
    let floods = [
        Answer::raw([Piece::Bytes(status.clone()), Piece::Endless(b"x: y\r\n".repeat(100), None)]),
        Answer::raw([
            Piece::Bytes([status.as_slice(), b"x: "].concat()),
            Piece::Endless(vec![b'y'; 65_536], None),
        ]),
        Answer::raw([Piece::Endless(vec![b'H'; 65_536], None)]),
        chunked().pieces([Piece::Bytes(b"1;".to_vec()), Piece::Endless(vec![b'x'; 65_536], None)]),
        Answer::raw([Piece::Bytes(
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx".to_vec(),
        )]),
        Answer::raw([Piece::Bytes(b"HTTP/1.1 200 OK\r\na b: c\r\n\r\n".to_vec())]),
        Answer::raw([Piece::Bytes(b"SSH-2.0-server\r\n".to_vec())]),
        Answer::raw([Piece::Bytes(Vec::new())]),
    ];
    for (server, at, _) in DOCUMENTS {
        for (number, flood) in floods.iter().cloned().enumerate() {
            let mut world = World::new().await;
            world.change(server, at, move |_, _| flood.clone());
            let error = world.error().await;
            assert_eq!(error, failed(FetchFailure::Unreachable), "{number}");
            assert!(matches!(error.remedy(), Remedy::RetryAfter(_)));
            stops_at(&world, at);
            assert!(world.sent() < 12 << 20, "{} bytes were taken", world.sent());
        }
    }
}

#[tokio::test]
async fn a_document_that_breaks_off_is_not_used() {
    let broken: [fn(Answer) -> Answer; 3] = [
        |honest| {
            let length = honest.body.len() + 1;
            let body = honest.body.clone();
            honest.with("content-length", length.to_string()).pieces([Piece::Bytes(body)])
        },
        |honest| {
            let chunk = format!("{:x}\r\n", honest.body.len()).into_bytes();
            let body = [chunk, honest.body.clone(), b"\r\n".to_vec()].concat();
            honest.with("transfer-encoding", "chunked").pieces([Piece::Bytes(body)])
        },
        |honest| {
            let body = honest.body.clone();
            honest
                .with("content-length", (body.len() / 2).to_string())
                .with("transfer-encoding", "chunked")
                .pieces([Piece::Bytes(body)])
        },
    ];
    for (server, at, _) in DOCUMENTS {
        for (number, breaking) in broken.into_iter().enumerate() {
            let mut world = World::new().await;
            world.change(server, at, move |_, honest| breaking(honest));
            assert_eq!(world.error().await, failed(FetchFailure::Unreachable), "{number}");
            stops_at(&world, at);
            world.mend(server, at);
            assert_eq!(world.call().await.unwrap(), 200, "and nothing is lost by it");
        }
    }
}

/// The document in a gzip member that stores it as it is: whoever unpacks it has the honest document.
fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    let length = u16::try_from(bytes.len()).unwrap();
    [
        b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01".as_slice(),
        &length.to_le_bytes(),
        &(!length).to_le_bytes(),
        bytes,
        &(!crc).to_le_bytes(),
        &u32::from(length).to_le_bytes(),
    ]
    .concat()
}

// I-G1: what is not unpacked cannot grow. No encoding is asked for, and one that comes all the same is not read.
#[tokio::test]
async fn a_compressed_document_is_not_unpacked() {
    control().await;
    for (server, at, document) in DOCUMENTS {
        let mut world = World::new().await;
        world.change(server, at, |_, honest| {
            let packed = gzipped(&honest.body);
            honest.with("content-encoding", "gzip").body(packed)
        });
        let error = world.error().await;
        assert!(
            matches!(&error, Error::Peer(PeerMisbehaved::Malformed { document: said, .. }) if *said == document),
            "{error:?}"
        );
        stops_at(&world, at);
        assert!(world.seen().iter().all(|one| one.request.header("accept-encoding").is_none()));
    }
}

/// The clock stands still from the first bytes of the slow answer on, and jumps to what is waited for next.
fn slowly(pieces: [Piece; 2]) -> Answer {
    tokio::time::pause();
    Answer::raw(pieces)
}

// I-L8, CIMD-6.6-1: the time limit is from connecting to the last byte, however they are spread.
#[tokio::test]
async fn a_document_that_trickles_runs_out_of_time_and_the_next_login_goes_on() {
    for (server, at) in [
        (NOTES, At::ResourceMetadata),
        (HONEST, At::ServerMetadata),
        (HONEST, At::Registration),
        (HONEST, At::CodeExchange),
    ] {
        for (head, rest) in [
            (
                &b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"[..],
                Piece::Endless(b" ".to_vec(), Some(Duration::from_secs(1))),
            ),
            // The length of a chunk, which has leading zeros.
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                Piece::Endless(b"0".to_vec(), Some(Duration::from_secs(1))),
            ),
            (b"HTTP/1.1 200 OK\r\nx-slow: ", Piece::Endless(b"y".to_vec(), Some(Duration::from_secs(1)))),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{", Piece::Silence),
            (b"", Piece::Silence),
        ] {
            let mut world = World::new().await;
            let answer = [Piece::Bytes(head.to_vec()), rest];
            world.change(server, at, move |_, _| slowly(answer.clone()));
            let started = Instant::now();
            let error = world.error().await;
            assert_eq!(error, failed(FetchFailure::TimedOut));
            assert!(matches!(error.remedy(), Remedy::RetryAfter(_)));
            let (limit, slack) = (Duration::from_secs(limits::FETCH_SECONDS.into()), Duration::from_secs(2));
            assert!((limit..limit + slack).contains(&started.elapsed()), "{:?}", started.elapsed());
            stops_at(&world, at);
            tokio::time::resume();
            world.mend(server, at);
            assert_eq!(world.call().await.unwrap(), 200);
        }
    }
}

const SHORT: Duration = Duration::from_millis(150);

// I-G1: the MCP server's own replies are bounded as well, in bytes and in time.
#[tokio::test]
async fn a_reply_without_an_end_is_given_up() {
    control().await;
    let event_stream = || Answer::status(200).with("content-type", "text/event-stream");
    let cases: [(&str, Answer, FetchFailure); 9] = [
        ("a body", json("").pieces([Piece::Endless(vec![b'x'; 65_536], None)]), FetchFailure::TooLarge),
        (
            "a 401",
            Answer::status(401).pieces([Piece::Endless(vec![b'x'; 65_536], None)]),
            FetchFailure::TooLarge,
        ),
        (
            "an event",
            event_stream().pieces([Piece::Endless(b"data: x\n".repeat(1000), None)]),
            FetchFailure::TooLarge,
        ),
        ("a line", event_stream().pieces([Piece::Endless(vec![b'x'; 65_536], None)]), FetchFailure::TooLarge),
        (
            "events",
            event_stream().pieces([Piece::Endless(b"data: {}\n\n".repeat(1000), None)]),
            FetchFailure::TooLarge,
        ),
        (
            "comments",
            event_stream().pieces([Piece::Endless(b": x\n\n".repeat(1000), None)]),
            FetchFailure::TooLarge,
        ),
        (
            "empty lines",
            event_stream().pieces([Piece::Endless(b"\r\n".repeat(1000), None)]),
            FetchFailure::TooLarge,
        ),
        ("silence", event_stream().pieces([Piece::Silence]), FetchFailure::TimedOut),
        (
            "interim replies",
            Answer::raw([Piece::Endless(
                b"HTTP/1.1 100 Continue\r\n\r\n".repeat(10),
                Some(Duration::from_millis(10)),
            )]),
            FetchFailure::TimedOut,
        ),
    ];
    for (name, answer, failure) in cases {
        let mut world = World::new().await;
        assert_eq!(world.call().await.unwrap(), 200);
        // A flood ends by its size, however slow the machine is.
        let patience = if failure == FetchFailure::TimedOut { SHORT } else { Duration::from_secs(10) };
        world.connection = world.connection.patience(patience).max_bytes(limits::DOCUMENT_BYTES);
        world.change(NOTES, At::Mcp, move |_, _| answer.clone());
        match world.call().await {
            Err(SendError::Fetch(met)) => assert_eq!(met, failure, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        assert!(world.sent() < 12 << 20, "{name}: {} bytes were taken", world.sent());
        world.connection = world.connection.patience(Duration::from_secs(10));
        world.mend(NOTES, At::Mcp);
        assert_eq!(world.call().await.unwrap(), 200, "the session outlives it");
        assert_eq!(world.reached(HONEST, At::CodeExchange), 1);
    }
}
