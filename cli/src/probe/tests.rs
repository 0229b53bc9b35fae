//! The probe against a site of which one thing is broken at a time, and against sites that want to harm it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mcp_authz::policy::{Policy, Relaxation};

use super::checks;
use super::finding::{Status, Verdict};
use super::output::{Context, json, table};
use super::walk::{Limits, Plan, walk};
use site::{Canned, Content, Site, not_passed};

mod site;

use Status::{Fail, Warn};

#[tokio::test]
async fn a_good_site_passes_every_check() {
    let report = Site::good().report().await;
    assert_eq!(not_passed(&report), []);
    assert_eq!(report.verdict(), Verdict::Pass, "{:?}", report.cut_short);
    let passed: BTreeSet<&str> = report.names(Status::Pass).into_iter().collect();
    let all: BTreeSet<&str> = checks::ALL.iter().map(|check| check.name).collect();
    assert_eq!(all.difference(&passed).collect::<Vec<_>>(), Vec::<&&str>::new());
}

/// What is broken, and what comes of it.
type Row = (&'static str, fn(&mut Site), &'static [(&'static str, Status)]);

/// A strict client goes no further either.
const STOPS: (&str, Status) = ("client.discovery", Fail);

const ROWS: &[Row] = &[
    (
        "served without a token",
        |site| site.set("stateless", Canned::json(200, "{}")),
        &[("no-token.stateless", Fail)],
    ),
    (
        "refused before a token is asked for",
        |site| site.set("stateless", Canned::of(400)),
        &[("no-token.stateless", Warn)],
    ),
    (
        "403 for the first request",
        |site| site.set("initialize", Canned::of(403)),
        &[("no-token.initialize", Fail)],
    ),
    (
        "an event stream for everybody",
        |site| {
            site.set("stream", Canned::of(200).with("content-type", "text/event-stream"));
        },
        &[("no-token.get", Fail)],
    ),
    (
        "a 401 without challenge",
        |site| {
            site.change("initialize", |answer| Canned { headers: Vec::new(), ..answer });
        },
        &[("challenge.present", Fail)],
    ),
    (
        "no challenge at all",
        |site| {
            for key in ["initialize", "stateless"] {
                site.change(key, |mut answer| {
                    answer.headers.retain(|(name, _)| *name != "www-authenticate");
                    answer
                });
            }
        },
        &[("challenge.present", Fail), ("challenge.resource-metadata", Warn)],
    ),
    (
        "a challenge that is no list",
        |site| site.challenge("Bearer realm=\"x"),
        &[("challenge.grammar", Fail), STOPS],
    ),
    (
        "a parameter twice",
        |site| site.challenge("Bearer scope=\"a\", scope=\"a\""),
        &[("challenge.repeats", Fail), STOPS],
    ),
    (
        "a lone Bearer",
        |site| site.challenge("Bearer"),
        &[("challenge.bearer", Fail), ("challenge.resource-metadata", Warn), ("challenge.scope", Warn)],
    ),
    (
        "characters outside",
        |site| {
            site.challenge(&format!("{}, error_description=\"caf\u{e9}\"", site::CHALLENGE));
        },
        &[("challenge.characters", Fail)],
    ),
    (
        "an error where there was no token",
        |site| {
            site.challenge(&format!("{}, error=\"invalid_token\"", site::CHALLENGE));
        },
        &[("challenge.quiet", Warn)],
    ),
    (
        "metadata elsewhere",
        |site| {
            site.challenge("Bearer scope=\"read\", resource_metadata=\"https://other.invalid/x\"");
        },
        &[("challenge.metadata-url", Fail), STOPS],
    ),
    (
        "metadata at no URL",
        |site| site.challenge("Bearer scope=\"read\", resource_metadata=\"/x\""),
        &[("challenge.metadata-url", Fail), STOPS],
    ),
    (
        "two spaces between scopes",
        |site| {
            site.challenge(&site::CHALLENGE.replace("\"read\"", "\"read  write\""));
        },
        &[("challenge.scope-grammar", Fail), STOPS],
    ),
    (
        "offline_access in the challenge",
        |site| {
            site.challenge(&site::CHALLENGE.replace("\"read\"", "\"read offline_access\""));
        },
        &[("challenge.offline-access", Warn)],
    ),
    (
        "a made-up token is taken",
        |site| site.set("token", Canned::json(200, "{}")),
        &[("bad-token.status", Fail)],
    ),
    (
        "a made-up token breaks the server",
        |site| site.set("token", Canned::of(500)),
        &[("bad-token.status", Fail)],
    ),
    (
        "no error for a made-up token",
        |site| {
            site.change("token", |answer| answer.with("www-authenticate", site::CHALLENGE));
        },
        &[("bad-token.error", Warn)],
    ),
    (
        "no challenge for a made-up token",
        |site| site.set("token", Canned::of(401)),
        &[("bad-token.challenge", Fail), ("bad-token.error", Warn)],
    ),
    (
        "a token in the query is taken",
        |site| site.set("query", Canned::json(200, "{}")),
        &[("query-token", Fail)],
    ),
    (
        "a token in the query is looked at",
        |site| {
            site.change("query", |answer| {
                let value = format!("{}, error=\"invalid_token\"", site::CHALLENGE);
                answer.with("www-authenticate", &value)
            });
        },
        &[("query-token", Fail)],
    ),
    (
        "a malformed field breaks the server",
        |site| site.set("malformed", Canned::of(500)),
        &[("malformed-authorization", Fail)],
    ),
    ("two fields are taken", |site| site.set("twice", Canned::of(200)), &[("two-authorizations", Fail)]),
    ("Basic is taken", |site| site.set("basic", Canned::of(200)), &[("other-scheme", Fail)]),
    (
        "a preflight without Authorization",
        |site| {
            site.change("preflight", |answer| answer.with("access-control-allow-headers", "Content-Type"));
        },
        &[("server.cors", Warn)],
    ),
    (
        "a challenge that pages cannot read",
        |site| {
            site.change("stateless", |answer| answer.with("access-control-expose-headers", "Date"));
        },
        &[("server.cors", Warn)],
    ),
    (
        "no metadata",
        |site| site.set("resource", Canned::of(404)),
        &[("resource-metadata.found", Fail), STOPS],
    ),
    (
        "neither challenge nor metadata",
        |site| {
            site.set("resource", Canned::of(404));
            site.challenge("Bearer scope=\"read\"");
        },
        &[("challenge.resource-metadata", Fail), ("resource-metadata.found", Fail), STOPS],
    ),
    (
        "metadata that fails",
        |site| site.set("resource", Canned::of(503)),
        &[("resource-metadata.found", Fail), STOPS],
    ),
    (
        "metadata behind a redirect",
        |site| {
            site.set(
                "resource",
                Canned::of(302).with("location", "ORIGIN/.well-known/oauth-protected-resource"),
            );
        },
        &[("resource-metadata.found", Fail), ("resource-metadata.status", Fail), STOPS],
    ),
    (
        "metadata as text",
        |site| site.change("resource", |answer| answer.with("content-type", "text/plain")),
        &[("resource-metadata.content-type", Fail), STOPS],
    ),
    (
        "metadata of a type of its own",
        |site| {
            site.change("resource", |answer| answer.with("content-type", "application/resource+json"));
        },
        &[("resource-metadata.content-type", Warn)],
    ),
    (
        "metadata of 100 MB",
        |site| site.change("resource", |answer| Canned { body: Content::Huge, ..answer }),
        &[("resource-metadata.size", Fail), STOPS],
    ),
    (
        "metadata with a member twice",
        |site| site.resource("{", "{\"resource\":\"ORIGIN/mcp\","),
        &[("resource-metadata.json", Fail), STOPS],
    ),
    ("metadata that is no JSON", |site| site.resource("}", ""), &[("resource-metadata.json", Fail), STOPS]),
    (
        "a member of another type",
        |site| site.resource("\"Site\"", "7"),
        &[("resource-metadata.members", Fail), STOPS],
    ),
    (
        "no resource",
        |site| site.resource("\"resource\"", "\"resourse\""),
        &[("resource-metadata.members", Fail), STOPS],
    ),
    (
        "an empty array",
        |site| site.resource("{", "{\"resource_signing_alg_values_supported\":[],"),
        &[("resource-metadata.empty-members", Fail)],
    ),
    (
        "another resource",
        |site| site.resource("ORIGIN/mcp", "ORIGIN/other"),
        &[("resource-metadata.resource", Fail), ("server-metadata.protected-resources", Warn), STOPS],
    ),
    (
        "a slash too many",
        |site| site.resource("ORIGIN/mcp", "ORIGIN/mcp/"),
        &[("resource-metadata.resource", Fail), ("server-metadata.protected-resources", Warn), STOPS],
    ),
    (
        "the host for the path",
        |site| site.resource("ORIGIN/mcp", "ORIGIN"),
        &[("resource-metadata.resource", Fail), ("server-metadata.protected-resources", Warn), STOPS],
    ),
    (
        "no authorization server",
        |site| site.resource("\"authorization_servers\":[\"ORIGIN\"],", ""),
        &[("resource-metadata.authorization-servers", Fail), STOPS],
    ),
    (
        "an issuer on http",
        |site| site.resource("[\"ORIGIN\"]", "[\"http://as.invalid\"]"),
        &[("resource-metadata.authorization-servers", Fail), STOPS],
    ),
    (
        "tokens in the query only",
        |site| site.resource("[\"header\"]", "[\"query\"]"),
        &[("resource-metadata.bearer-methods", Fail), STOPS],
    ),
    (
        "no scopes",
        |site| site.resource("\"scopes_supported\":[\"read\"],", ""),
        &[("resource-metadata.scopes", Warn)],
    ),
    (
        "a scope with a space",
        |site| site.resource("[\"read\"]", "[\"read write\"]"),
        &[("resource-metadata.scopes", Fail), STOPS],
    ),
    (
        "offline_access among the scopes",
        |site| site.resource("[\"read\"]", "[\"read\",\"offline_access\"]"),
        &[("resource-metadata.offline-access", Warn), ("server-metadata.scopes", Warn)],
    ),
    ("no name", |site| site.resource(",\"resource_name\":\"Site\"", ""), &[("resource-metadata.name", Warn)]),
    (
        "two places that disagree",
        |site| {
            let other = site::RESOURCE
                .replace("ORIGIN/mcp", "ORIGIN")
                .replace("[\"ORIGIN\"]", "[\"https://as.invalid\"]");
            site.set("resource-root", Canned::json(200, &other));
        },
        &[("resource-metadata.agreement", Warn)],
    ),
    (
        "metadata that pages cannot read",
        |site| {
            site.change("resource", |answer| Canned::json(answer.status, site::RESOURCE));
        },
        &[("resource-metadata.cors", Warn)],
    ),
    (
        "an authorization server on a private address",
        |site| {
            site.resource("[\"ORIGIN\"]", "[\"https://10.0.0.1\"]");
        },
        &[("issuer.address", Fail), ("server-metadata.found", Fail), STOPS],
    ),
    (
        "no server metadata",
        |site| {
            site.set("rfc8414", Canned::of(404));
            site.set("openid", Canned::of(404));
        },
        &[("server-metadata.found", Fail), STOPS],
    ),
    (
        "server metadata that fails",
        |site| {
            site.set("rfc8414", Canned::of(500));
            site.set("openid", Canned::of(404));
        },
        &[("server-metadata.found", Fail), STOPS],
    ),
    (
        "the OpenID document alone",
        |site| site.set("rfc8414", Canned::of(404)),
        &[("server-metadata.rfc8414", Warn)],
    ),
    (
        "server metadata as a page",
        |site| {
            site.set("openid", Canned::of(404));
            site.change("rfc8414", |answer| answer.with("content-type", "text/html"));
        },
        &[("server-metadata.content-type", Fail), ("server-metadata.found", Fail), STOPS],
    ),
    (
        "server metadata of a type of its own",
        |site| {
            site.change("rfc8414", |answer| answer.with("content-type", "application/x+json"));
        },
        &[("server-metadata.content-type", Warn)],
    ),
    (
        "server metadata with a member twice",
        |site| site.server("{", "{\"issuer\":\"ORIGIN\","),
        &[("server-metadata.json", Fail), STOPS],
    ),
    (
        "server metadata of 100 MB",
        |site| {
            site.change("rfc8414", |answer| Canned { body: Content::Huge, ..answer });
        },
        &[("server-metadata.json", Fail), STOPS],
    ),
    (
        "a script for an endpoint",
        |site| site.server("{", "{\"device_endpoint\":\"javascript:alert(1)\","),
        &[("server-metadata.members", Fail), STOPS],
    ),
    (
        "no response types",
        |site| site.server("response_types_supported", "x"),
        &[("server-metadata.members", Fail), STOPS],
    ),
    (
        "another issuer",
        |site| site.server("\"issuer\":\"ORIGIN\"", "\"issuer\":\"https://honest.invalid\""),
        &[("server-metadata.issuer", Fail), STOPS],
    ),
    (
        "an issuer with a slash",
        |site| site.server("\"issuer\":\"ORIGIN\"", "\"issuer\":\"ORIGIN/\""),
        &[("server-metadata.issuer", Fail), ("registered.error-response", Fail), STOPS],
    ),
    (
        "no token endpoint",
        |site| site.server("\"token_endpoint\":\"ORIGIN/token\",", ""),
        &[("server-metadata.endpoints", Fail), STOPS],
    ),
    (
        "a token endpoint on http",
        |site| site.server("ORIGIN/token", "http://as.invalid/token"),
        &[("server-metadata.endpoints", Fail), STOPS],
    ),
    (
        "an endpoint on a link-local address",
        |site| site.server("ORIGIN/revoke", "https://169.254.169.254/"),
        &[("revocation", Fail), ("server-metadata.addresses", Fail), STOPS],
    ),
    (
        "no code grant",
        |site| site.server("[\"code\"]", "[\"token\"]"),
        &[("server-metadata.code-grant", Fail), STOPS],
    ),
    (
        "the password grant",
        |site| site.server("\"refresh_token\"", "\"refresh_token\",\"password\""),
        &[("server-metadata.old-grants", Fail)],
    ),
    (
        "no code challenge methods",
        |site| site.server("\"code_challenge_methods_supported\":[\"S256\"],", ""),
        &[("server-metadata.openid", Fail), ("server-metadata.pkce", Fail), STOPS],
    ),
    (
        "plain alone",
        |site| site.server("[\"S256\"]", "[\"plain\"]"),
        &[("server-metadata.pkce", Fail), ("server-metadata.pkce-plain", Warn), STOPS],
    ),
    (
        "no iss",
        |site| site.server("\"authorization_response_iss_parameter_supported\":true,", ""),
        &[("server-metadata.iss", Warn)],
    ),
    ("no public clients", |site| site.server("[\"none\",", "["), &[("server-metadata.auth-methods", Warn)]),
    (
        "no algorithms of assertions",
        |site| {
            site.server("\"token_endpoint_auth_signing_alg_values_supported\":[\"ES256\"],", "");
        },
        &[("server-metadata.auth-algorithms", Fail)],
    ),
    (
        "no way to register",
        |site| {
            site.server(
                "\"registration_endpoint\":\"ORIGIN/register\",",
                "\"client_id_metadata_document_supported\":false,\"x\":[\"",
            );
            let document = site::SERVER
                .replace("\"registration_endpoint\":\"ORIGIN/register\",", "")
                .replace("\"client_id_metadata_document_supported\":true,", "");
            site.change("rfc8414", |answer| answer.containing(&document));
            site.change("openid", |answer| answer.containing(&document));
        },
        &[("server-metadata.registration", Warn)],
    ),
    (
        "scopes without the resource's",
        |site| site.server("[\"read\"]", "[\"openid\"]"),
        &[("server-metadata.scopes", Warn)],
    ),
    (
        "resources without this one",
        |site| site.server("[\"ORIGIN/mcp\"]", "[\"ORIGIN/other\"]"),
        &[("server-metadata.protected-resources", Warn)],
    ),
    (
        "half an OpenID document",
        |site| {
            let document = site::SERVER.replace("\"subject_types_supported\":[\"public\"],", "");
            site.change("openid", |answer| answer.containing(&document));
        },
        &[("server-metadata.openid", Fail)],
    ),
    (
        "two documents that disagree",
        |site| {
            let document = site::SERVER.replace("ORIGIN/token", "ORIGIN/oauth/token");
            site.change("openid", |answer| answer.containing(&document));
        },
        &[("server-metadata.agreement", Fail)],
    ),
    (
        "private keys",
        |site| {
            site.set("jwks", Canned::json(200, r#"{"keys":[{"kty":"OKP","x":"AA","d":"AA"}]}"#));
        },
        &[("server-metadata.keys", Fail)],
    ),
    (
        "server metadata that pages cannot read",
        |site| {
            site.set("rfc8414", Canned::json(200, site::SERVER));
        },
        &[("server-metadata.cors", Warn)],
    ),
    (
        "an open redirector",
        |site| {
            let to = "https://mcp-authz-probe.invalid/callback?error=unauthorized_client";
            site.set("authorize-unknown", Canned::of(302).with("location", to));
        },
        &[("authorize.open-redirect", Fail)],
    ),
    (
        "an open redirector without a redirect",
        |site| {
            let page =
                "<meta http-equiv=\"refresh\" content=\"0;url=https://mcp-authz-probe.invalid/callback\">";
            site.set("authorize-unknown", Canned::of(200).containing(page));
        },
        &[("authorize.open-redirect", Fail)],
    ),
    (
        "a page for scripts of anybody",
        |site| {
            site.change("authorize-unknown", |answer| answer.with("access-control-allow-origin", "*"));
        },
        &[("authorize.cors", Fail)],
    ),
    (
        "200 for a made-up code",
        |site| {
            site.change("exchange", |answer| Canned { status: 200, ..answer });
        },
        &[("token.error", Fail)],
    ),
    (
        "an error as a page",
        |site| {
            site.change("exchange", |answer| answer.with("content-type", "text/html"));
        },
        &[("token.error", Fail)],
    ),
    (
        "a stack trace",
        |site| {
            let trace = r#"{"error":"invalid_grant","trace":"Error\n    at /srv/node_modules/x.js:1"}"#;
            site.change("exchange", |answer| answer.containing(trace));
        },
        &[("token.error-text", Fail)],
    ),
    (
        "quotation marks in an error",
        |site| {
            site.change("exchange", |answer| {
                answer.containing(r#"{"error":"invalid_grant","error_description":"no \"code\""}"#)
            });
        },
        &[("token.error-text", Fail)],
    ),
    (
        "tokens that are stored on the way",
        |site| {
            site.change("exchange", |answer| answer.with("cache-control", "private"));
        },
        &[("token.no-store", Fail)],
    ),
    (
        "GET at the token endpoint",
        |site| site.set("exchange-get", Canned::json(200, "{}")),
        &[("token.get", Fail)],
    ),
    ("revocation for everybody", |site| site.set("revoke", Canned::of(200)), &[("revocation", Warn)]),
    (
        "introspection for everybody",
        |site| {
            site.set("introspect", Canned::json(200, "{\"active\":false}"));
        },
        &[("introspection", Fail)],
    ),
    (
        "200 for a registration",
        |site| site.set("register", Canned::json(200, site::REGISTERED)),
        &[("register.created", Fail)],
    ),
    (
        "a registration that is refused",
        |site| {
            site.set("register", Canned::json(400, "{\"error\":\"invalid_client_metadata\"}"));
        },
        &[("register.created", Fail)],
    ),
    (
        "another redirect URI registered",
        |site| {
            site.set("register", Canned::json(201, &site::REGISTERED.replace("33418", "1")));
        },
        &[("register.redirect-uri", Fail)],
    ),
    (
        "a secret for a public client",
        |site| {
            site.set(
                "register",
                Canned::json(201, &site::REGISTERED.replace('{', "{\"client_secret\":\"s3cr3t-of-theirs\",")),
            );
        },
        &[("register.secret", Fail)],
    ),
    (
        "a client_id that is a URL",
        |site| {
            site.set("register", Canned::json(201, &site::REGISTERED.replace("c1", "https://as.invalid/c1")));
        },
        &[("register.client-id", Warn)],
    ),
    (
        "a script for a redirect URI",
        |site| {
            site.set(
                "register-script",
                Canned::json(
                    201,
                    &site::REGISTERED.replace("http://127.0.0.1:33418/callback", "javascript:alert(1)"),
                ),
            );
        },
        &[("register.script-redirect", Fail)],
    ),
    (
        "http for a redirect URI",
        |site| site.set("register-http", Canned::json(201, site::REGISTERED)),
        &[("register.http-redirect", Fail)],
    ),
    (
        "any redirect URI for a registered client",
        |site| {
            site.set(
                "authorize-foreign",
                Canned::of(303).with("location", "HTTPS://MCP-AUTHZ-PROBE.INVALID?error=x"),
            );
        },
        &[("registered.open-redirect", Fail)],
    ),
    (
        "a code without a challenge",
        |site| {
            let to = "http://127.0.0.1:33418/callback?code=abc&state=mcp-authz-probe-state&iss=ORIGIN";
            site.set("authorize-without", Canned::of(302).with("location", to));
        },
        &[("registered.no-pkce", Fail)],
    ),
    (
        "a code for plain",
        |site| {
            site.set(
                "authorize-plain",
                Canned::of(302).with("location", "http://127.0.0.1:33418/callback?code=abc"),
            );
        },
        &[("registered.plain-pkce", Fail)],
    ),
    (
        "an error without iss",
        |site| {
            site.change("authorize-without", |answer| {
                answer.with(
                    "location",
                    "http://127.0.0.1:33418/callback?error=invalid_request&state=mcp-authz-probe-state",
                )
            });
        },
        &[("registered.error-response", Fail)],
    ),
    (
        "an error with another state",
        |site| {
            site.change("authorize-without", |answer| {
                answer.with(
                    "location",
                    "http://127.0.0.1:33418/callback?error=invalid_request&state=x&iss=ORIGIN",
                )
            });
        },
        &[("registered.error-response", Fail)],
    ),
];

#[tokio::test]
async fn each_fault_is_found_and_nothing_else() {
    let mut found = BTreeSet::from(["server.https"]);
    let mut wrong = Vec::new();
    for (name, fault, expected) in ROWS {
        let mut site = Site::good();
        fault(&mut site);
        let report = site.report().await;
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let seen = not_passed(&report);
        if seen != expected {
            wrong.push(format!("{name}: {seen:?} instead of {expected:?}"));
        }
        found.extend(seen.iter().map(|(check, _)| *check));
        let fails = expected.iter().any(|(_, status)| *status == Fail);
        assert_eq!((report.exit_code(false), report.exit_code(true)), (u8::from(fails), 1), "{name}");
        for finding in report.findings().filter(|finding| matches!(finding.status, Warn | Fail)) {
            assert!(!finding.fix.as_ref().unwrap().as_str().is_empty(), "{name}");
            assert!(finding.status == Warn || !finding.check.requirements.is_empty(), "{name}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let all: BTreeSet<&str> = checks::ALL.iter().map(|check| check.name).collect();
    assert_eq!(all.difference(&found).collect::<Vec<_>>(), Vec::<&&str>::new(), "no row breaks these");
}

/// A report in both its forms.
fn drawn(report: &super::finding::Report) -> [String; 2] {
    let plan = Plan {
        url: String::new(),
        policy: Policy::strict(),
        revision: mcp_authz::revision::Revision::default(),
        register: true,
        limits: Limits::within(Duration::from_secs(1)),
        fetcher: site::fetcher(),
    };
    let context = Context::of(&plan, false);
    let (mut shown, mut machine) = (Vec::new(), Vec::new());
    table(&mut shown, report, &context, false).unwrap();
    json(&mut machine, report, &context).unwrap();
    [shown, machine].map(|bytes| String::from_utf8(bytes).unwrap())
}

fn relaxed(origin: &str, text: &str) -> Policy {
    Policy::strict().relax(text.replace("ORIGIN", origin).parse::<Relaxation>().unwrap())
}

#[tokio::test]
async fn the_relaxation_that_a_client_would_need_is_named_and_then_taken() {
    type Row = (fn(&mut Site), &'static str, &'static str);
    let rows: &[Row] = &[
        (
            |site| site.resource("ORIGIN/mcp", "ORIGIN"),
            "resource-metadata.resource",
            "ResourcePathPrefix=ORIGIN",
        ),
        (
            |site| site.server("\"issuer\":\"ORIGIN\"", "\"issuer\":\"ORIGIN/\""),
            "server-metadata.issuer",
            "IssuerRootSlash=ORIGIN",
        ),
        (
            |site| site.server("\"code_challenge_methods_supported\":[\"S256\"],", ""),
            "server-metadata.pkce",
            "AssumeS256=ORIGIN",
        ),
    ];
    for (fault, check, relaxation) in rows {
        let mut site = Site::good();
        fault(&mut site);
        let strict = site.clone().report().await;
        let finding = strict.findings().find(|finding| finding.check.name == *check).unwrap();
        let (name, _) = relaxation.split_once('=').unwrap();
        assert_eq!(finding.status, Fail);
        let fix = finding.fix.as_ref().unwrap().as_str();
        assert!(fix.contains(&format!("--relax '{name}=http://127.0.0.1:")), "{fix}");

        let limits = Limits::within(Duration::from_secs(60));
        let report = site.probed(|origin| relaxed(origin, relaxation), limits).await;
        let finding = report.findings().find(|finding| finding.check.name == *check).unwrap();
        assert_eq!(finding.status, Warn, "{check}");
        let client = report.findings().find(|finding| finding.check.name == "client.discovery").unwrap();
        assert_eq!(client.status, Status::Pass, "{check}: {}", client.seen);
    }
}

// I-P8
#[tokio::test]
async fn nothing_that_a_peer_writes_can_steer_what_is_shown() {
    let hostile = "\\u001b[2J\\u202eevil\\u0007\\u200b\\u009b31m";
    let mut site = Site::good();
    site.resource("\"Site\"", &format!("\"{hostile}\""));
    site.resource("[\"header\"]", &format!("[\"header\",\"{hostile}\"]"));
    site.server("[\"code\"]", &format!("[\"code\",\"{hostile}\"]"));
    let mut sites = vec![site];
    for (key, name) in [
        ("stateless", "www-authenticate"),
        ("resource", "content-type"),
        ("exchange", "cache-control"),
        ("authorize-unknown", "location"),
    ] {
        let mut site = Site::good();
        let text = "\u{202e}\u{9b}31m\u{200b}evil";
        site.change(key, |answer| answer.with(name, &format!("Bearer error=\"{text}\"")));
        sites.push(site);
    }
    for from in ["ORIGIN/mcp", "\"read\"", "[\"S256\"]", "\"none\"", "ORIGIN/authorize"] {
        let mut site = Site::good();
        let evil = if from.starts_with('[') { format!("[\"{hostile}\"]") } else { format!("\"{hostile}\"") };
        site.server(&if from.starts_with('O') { format!("\"{from}\"") } else { from.to_owned() }, &evil);
        sites.push(site);
    }
    for body in ["{\"error\":\"HOSTILE\"}", "{\"error\":\"x\",\"error_description\":\"HOSTILE\"}", "HOSTILE"]
    {
        let mut site = Site::good();
        let body = body.replace("HOSTILE", hostile);
        site.change_all(|answer| answer.containing(&body));
        sites.push(site);
        let mut site = Site::good();
        site.change("register", |answer| answer.containing(&site::REGISTERED.replace("none", hostile)));
        sites.push(site);
    }
    for site in sites {
        let report = site.report().await;
        for text in drawn(&report) {
            let bad =
                |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{200b}');
            assert!(!text.contains(bad), "{text:?}");
        }
    }
}

// I-L8
#[tokio::test]
async fn bodies_without_end_redirects_and_silence_are_left_within_the_bounds() {
    let limits = Limits { each: Duration::from_millis(300), ..Limits::within(Duration::from_secs(4)) };
    for content in [Content::Huge, Content::Slow] {
        let mut site = Site::good();
        site.change_all(|answer| Canned { body: content.clone(), ..answer });
        let started = Instant::now();
        let report = site.probed(|_| Policy::strict(), limits).await;
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
        assert_eq!(report.verdict(), Verdict::Fail);
        assert!(report.names(Fail).contains(&"resource-metadata.size"));
    }
    let mut site = Site::good();
    site.change_all(|answer| Canned { status: 302, ..answer }.with("location", "ORIGIN/mcp"));
    let report = site.report().await;
    assert_eq!(report.verdict(), Verdict::Incomplete);
    assert_eq!(report.requests, 2, "no redirect is followed");

    let limits = Limits { requests: 9, ..Limits::within(Duration::from_secs(60)) };
    let report = Site::good().probed(|_| Policy::strict(), limits).await;
    assert!(report.requests <= 9 && report.cut_short.is_some());
    assert_ne!(report.exit_code(false), 0, "what was not seen is not as it should be");
}

#[tokio::test]
async fn a_walk_that_leads_nowhere_is_no_pass() {
    let plan = |url: &str| Plan {
        url: url.into(),
        policy: Policy::strict(),
        revision: mcp_authz::revision::Revision::default(),
        register: false,
        limits: Limits::within(Duration::from_secs(5)),
        fetcher: site::fetcher(),
    };
    for (url, code) in [
        ("http://127.0.0.1:1/mcp", 2),
        ("https://10.0.0.1/mcp", 2),
        ("https://169.254.169.254/", 2),
        ("no url", 2),
        ("ftp://server.invalid/", 2),
        ("http://server.invalid/mcp", 1),
    ] {
        let report = walk(plan(url)).await;
        assert_eq!(report.exit_code(false), code, "{url}");
        assert!(report.cut_short.is_some(), "{url}");
        let sent = report.requests;
        assert!(sent == 0 || url.starts_with("http://127"), "{url}: {sent} requests");
    }
    // What is wrong is the scheme, and that is said.
    for url in ["ftp://x", "ftp://server.invalid/", "file:///etc/passwd", "mcp.example"] {
        let why = walk(plan(url)).await.cut_short.unwrap();
        assert!(why.as_str().contains("begins with https:// (http:// on this machine only)"), "{why}");
        assert!(!why.as_str().contains("two parsers"), "{why}");
    }
    let private = walk(plan("https://10.0.0.1/mcp")).await;
    let why = private.cut_short.unwrap();
    assert!(why.as_str().contains("--relax 'PrivateNetworks=https://10.0.0.1 10.0.0.1/32'"), "{why}");
    for status in [404, 301, 500] {
        let mut site = Site::good();
        site.set("initialize", Canned::of(status));
        site.set("stateless", Canned::of(status));
        let report = site.report().await;
        assert_eq!((report.exit_code(false), report.requests), (2, 2), "{status}");
    }
}

#[tokio::test]
async fn servers_of_2025_03_26_have_no_resource_metadata_and_need_a_relaxation_for_their_default_endpoints() {
    let mut site = Site::good();
    for key in ["resource", "resource-root", "rfc8414", "openid"] {
        site.set(key, Canned::of(404));
    }
    site.challenge("Bearer scope=\"read\"");
    let revision = mcp_authz::revision::Revision::V2025_03_26;
    let strict = site.clone().probed_as(revision, |_| Policy::strict()).await;
    assert!(strict.names(Fail).contains(&"server-metadata.found"));
    let fixes: Vec<String> =
        strict.findings().filter_map(|finding| Some(finding.fix.as_ref()?.to_string())).collect();
    assert!(fixes.iter().any(|fix| fix.contains("--relax 'LegacyEndpoints=http://")), "{fixes:?}");
    let report = site.probed_as(revision, |origin| relaxed(origin, "LegacyEndpoints=ORIGIN/mcp")).await;
    assert_eq!(report.names(Fail), [""; 0]);
    assert!(report.names(Status::Pass).contains(&"client.discovery"));
    assert!(report.names(Status::Pass).contains(&"token.error"));
}
