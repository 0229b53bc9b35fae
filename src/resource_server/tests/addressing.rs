//! Host and Origin, pre-flight requests, and what pages may read.

use super::*;
use crate::identifier::Origin;

fn from(host: &str, origin: Option<&str>) -> RequestHead {
    let head = RequestHead::new("POST", "/mcp").with_header("host", host.as_bytes());
    match origin {
        Some(origin) => head.with_header("origin", origin.as_bytes()),
        None => head,
    }
}

fn reason(server: &ResourceServer, head: &RequestHead) -> Option<DenialReason> {
    server.addressed(head).err().map(|denial| denial.reason())
}

// I-A11
#[test]
fn a_request_is_for_one_host_and_that_is_this_one() {
    let server = server();
    for host in ["mcp.example", "MCP.Example", "mcp.example:443"] {
        assert_eq!(reason(&server, &from(host, None)), None, "{host}");
    }
    for host in [
        "",
        "evil.example",
        "mcp.example.evil.example",
        "mcp.example:80",
        "mcp.example:8443",
        "mcp.example:",
        "mcp.example.",
        " mcp.example",
        "localhost",
        "127.0.0.1",
        "\u{e9}",
    ] {
        assert_eq!(reason(&server, &from(host, None)), Some(DenialReason::Host), "{host:?}");
    }
    assert_eq!(reason(&server, &RequestHead::new("POST", "/mcp")), Some(DenialReason::Host));
    let twice = from("mcp.example", None).with_header("Host", b"mcp.example");
    assert_eq!(reason(&server, &twice), Some(DenialReason::Host));
    let denial = server.addressed(&from("evil.example", None)).unwrap_err();
    assert_eq!((denial.status(), denial.challenge()), (421, None));
}

// I-A11, I-G8
#[test]
fn other_hosts_are_named_and_take_the_place_of_the_own_one() {
    let server = server().with_hosts(["Internal:8080".into(), "[::1]:3000".into()]).unwrap();
    for host in ["internal:8080", "[::1]:3000"] {
        assert_eq!(reason(&server, &from(host, None)), None, "{host}");
    }
    for host in ["mcp.example", "internal", "internal:80"] {
        assert_eq!(reason(&server, &from(host, None)), Some(DenialReason::Host), "{host}");
    }
    for hosts in [&[][..], &[""], &["a b"], &["a/b"], &["user@a"], &["a", ""]] {
        let hosts = hosts.iter().map(|host| String::from(*host));
        assert_eq!(super::server().with_hosts(hosts).unwrap_err(), InvalidConfiguration::Host);
    }
}

// I-A11
#[test]
fn a_page_may_send_only_from_an_allowed_origin() {
    let server = server().with_origins([Origin::new("https://app.example").unwrap()]);
    for origin in ["https://mcp.example", "https://app.example"] {
        assert_eq!(reason(&server, &from("mcp.example", Some(origin))), None, "{origin}");
    }
    for origin in [
        "null",
        "",
        "https://evil.example",
        "http://app.example",
        "https://app.example:8443",
        "https://app.example/",
        "https://APP.example",
        "https://app.example.evil.example",
        "*",
    ] {
        let denial = server.addressed(&from("mcp.example", Some(origin))).unwrap_err();
        assert_eq!((denial.reason(), denial.status()), (DenialReason::Origin, 403), "{origin}");
    }
    let twice =
        from("mcp.example", Some("https://app.example")).with_header("origin", b"https://app.example");
    assert_eq!(reason(&server, &twice), Some(DenialReason::Origin));
}

// I-A11: even a good token, or a bad one, is not looked at before.
#[test]
fn host_and_origin_are_decided_before_any_word_about_tokens() {
    let good = token(&good_claims());
    for (value, without) in
        [(format!("Bearer {good}"), None), ("Bearer a b".into(), Some(DenialReason::MalformedCredentials))]
    {
        for (host, origin, expected) in [
            ("evil.example", None, Some(DenialReason::Host)),
            ("mcp.example", Some("https://evil.example"), Some(DenialReason::Origin)),
            ("mcp.example", None, without),
        ] {
            let head = from(host, origin).with_header("authorization", value.as_bytes());
            let denial = server().admit(&head, &required("files:read")).err();
            assert_eq!(denial.map(|denial| denial.reason()), expected);
        }
    }
}

// D45
#[test]
fn a_preflight_request_is_answered_without_a_token_and_never_with_401() {
    let server = server().with_origins([Origin::new("https://app.example").unwrap()]);
    let preflight = |host: &str, origin: &str| {
        let head = RequestHead::new("OPTIONS", "/mcp")
            .with_header("host", host.as_bytes())
            .with_header("origin", origin.as_bytes());
        server.preflight(&head).unwrap()
    };
    let answer = preflight("mcp.example", "https://app.example").unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(answer.header("access-control-allow-headers").unwrap().contains("authorization"));
    assert!(answer.header("access-control-allow-methods").unwrap().contains("POST"));
    assert_eq!(answer.header("vary"), Some("origin"));
    let denial = preflight("mcp.example", "https://evil.example").unwrap_err();
    assert_eq!((denial.reason(), denial.status()), (DenialReason::Origin, 403));
    assert_eq!(preflight("evil.example", "https://app.example").unwrap_err().status(), 421);
    // Not one: another method, or nothing a browser sent.
    assert!(server.preflight(&from("mcp.example", Some("https://app.example"))).is_none());
    assert!(
        server.preflight(&RequestHead::new("OPTIONS", "/mcp").with_header("host", b"mcp.example")).is_none()
    );
}

// D45
#[test]
fn pages_of_allowed_origins_read_the_challenge_and_nobody_sends_cookies() {
    let server = server().with_origins([Origin::new("https://app.example").unwrap()]);
    let fields = server.cross_origin(&from("mcp.example", Some("https://app.example")));
    let field = |name| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_str());
    assert_eq!(field("access-control-allow-origin"), Some("https://app.example"));
    assert!(field("access-control-expose-headers").unwrap().contains("www-authenticate"));
    assert!(fields.iter().all(|(name, value)| *name != "access-control-allow-credentials" && value != "*"));
    for origin in [None, Some("https://evil.example"), Some("null")] {
        assert!(server.cross_origin(&from("mcp.example", origin)).is_empty(), "{origin:?}");
    }
}

proptest! {
    // I-A9, I-A11: what is allowed is a string of the configuration, and so is what is answered.
    #[test]
    fn nothing_of_a_request_is_repeated_across_origins(origin in "(https?://)?[a-z.:*/]{0,24}", host in "[a-z.:]{0,16}") {
        let server = server().with_origins([Origin::new("https://app.example").unwrap()]);
        let head = from(&host, Some(&origin));
        let allowed = matches!(origin.as_str(), "https://mcp.example" | "https://app.example");
        prop_assert_eq!(!server.cross_origin(&head).is_empty(), allowed);
        let own = matches!(host.as_str(), "mcp.example" | "mcp.example:443");
        prop_assert_eq!(server.addressed(&head).is_ok(), own && allowed);
    }
}
