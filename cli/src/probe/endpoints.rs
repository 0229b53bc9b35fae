//! Judgments of an authorization server's endpoints, from requests that begin no login and change nothing: OAuth 2.1
//! sections 3 and 4.1.2, RFC 7009, RFC 7662.

use mcp_authz::limits;
use mcp_authz::message::token::TokenErrorResponse;
use mcp_authz::syntax::json::{JsonObject, JsonValue};

use super::checks::{self, Check};
use super::finding::Section;
use super::line::{Count, Line, Peer, Peers, line};
use super::mcp_server::shown;
use super::observation::{Answer, Observed};
use super::registration;

/// Where the probe's requests ask to be redirected to: a name that cannot exist (RFC 2606).
pub(crate) const FOREIGN_REDIRECT: &str = "https://mcp-authz-probe.invalid/callback";
/// The host of it.
const FOREIGN_HOST: &str = "mcp-authz-probe.invalid";

/// Every check of an endpoint, and of a registration.
pub(crate) fn skip_all(section: &mut Section, why: &'static str) {
    let of_endpoints = [
        &checks::SERVER_KEYS,
        &checks::SERVER_CORS,
        &checks::AUTHORIZE_REDIRECT,
        &checks::AUTHORIZE_CORS,
        &checks::TOKEN_ERROR,
        &checks::TOKEN_TEXT,
        &checks::TOKEN_STORE,
        &checks::TOKEN_GET,
        &checks::REVOCATION,
        &checks::INTROSPECTION,
    ];
    section.skip_all(&of_endpoints, why);
    registration::skip_all(section, why);
}

/// Whether an answer sends the browser to the foreign redirect URI, in any of the ways a browser follows by itself.
fn sends_away(answer: &Answer) -> bool {
    let to_it = |url: &str| {
        let rest = url.trim().split_once("//").map_or("", |(_, rest)| rest);
        let host = rest.split(['/', '?', '#', ':']).next().unwrap_or_default();
        host.eq_ignore_ascii_case(FOREIGN_HOST)
    };
    let refresh = answer.header("refresh").and_then(|value| value.split_once('=')).map(|(_, url)| url);
    let body = answer.body.as_deref().map(String::from_utf8_lossy).unwrap_or_default().to_ascii_lowercase();
    let in_page = body.contains("http-equiv=\"refresh\"") && body.contains(FOREIGN_HOST);
    answer.header("location").is_some_and(to_it) || refresh.is_some_and(to_it) || in_page
}

/// A request with a redirect URI that is nobody's must not be redirected there.
pub(crate) fn judge_redirect(section: &mut Section, check: &'static Check, observed: &Observed) {
    let fix = "show an error page: a server that redirects anywhere lends its name to phishing";
    let seen = shown(observed);
    match observed {
        Ok(answer) if sends_away(answer) => section.fail(check, seen.and(": an open redirector"), fix),
        Ok(answer) if answer.is_redirect() => {
            section.skip(check, seen.and(", before the client is looked at"));
        }
        Ok(answer) if answer.status >= 500 => {
            section.warn(
                check,
                seen,
                "answer 400 with a page: a wrong client_id is no failure of the server",
            );
        }
        Ok(answer) if answer.is_success() => section.pass(check, seen.and(", a page and no redirect")),
        Ok(_) => section.pass(check, seen.and(", no redirect")),
        Err(_) => section.fail(check, seen, "the authorization endpoint has to be there for a GET"),
    }
}

/// The page is for the person's browser, never for a script of another origin.
pub(crate) fn judge_page_cors(section: &mut Section, observed: &Observed) {
    let check = &checks::AUTHORIZE_CORS;
    let Ok(answer) = observed else { return section.skip(check, shown(observed)) };
    let allowed = answer.header("access-control-allow-origin");
    let seen =
        allowed.map_or(Line::from("none"), |origin| line!["Access-Control-Allow-Origin: ", Peer(origin)]);
    section.pass_or_fail(
        check,
        allowed.is_none(),
        seen,
        "take the authorization endpoint out of the CORS rules",
    );
}

/// Words that come out of a program and not out of a specification.
const INSIDES: [&str; 12] = [
    "traceback (most recent",
    "stack trace",
    "stacktrace",
    "\n\tat ",
    "\n    at ",
    "\\n    at ",
    "exception in thread",
    "panicked at",
    "node_modules",
    "site-packages",
    "sqlstate",
    ".java:",
];

/// The token endpoint's answer to a code that nobody issued.
pub(crate) fn judge_token(section: &mut Section, post: &Observed, get: &Observed) {
    let seen = shown(post);
    match post {
        Err(_) => {
            section.fail(&checks::TOKEN_ERROR, seen, "the token endpoint has to be there for a POST");
            section.skip_all(&[&checks::TOKEN_TEXT, &checks::TOKEN_STORE], "there is no answer");
        }
        Ok(answer) => {
            token_error(section, answer);
            token_text(section, answer);
            let store = answer.header("cache-control").unwrap_or_default().to_ascii_lowercase();
            section.pass_or_fail(
                &checks::TOKEN_STORE,
                store.split(',').any(|directive| directive.trim() == "no-store"),
                if store.is_empty() { Line::from("no Cache-Control") } else { line![Peer(&store)] },
                "send Cache-Control: no-store with every answer of the token endpoint",
            );
        }
    }
    let seen = shown(get);
    match get {
        Ok(answer) if matches!(answer.status, 400..500) => section.pass(&checks::TOKEN_GET, seen),
        _ => section.fail(&checks::TOKEN_GET, seen, "answer 405: a code in a URL ends up in logs"),
    }
}

fn token_error(section: &mut Section, answer: &Answer) {
    let check = &checks::TOKEN_ERROR;
    let fix = "answer 400 (401 for invalid_client) and {\"error\": \"invalid_grant\"} as application/json";
    let body = answer.body.as_deref().unwrap_or_default();
    let error = TokenErrorResponse::parse(body);
    match (answer.status, error) {
        (429, _) => section.skip(check, "429: the server limits how often it may be asked"),
        (400 | 401 | 403, Ok(error)) if answer.reply().is_json() => {
            section.pass(check, line![answer.status, " ", Peer(error.code.as_str())]);
        }
        (status, Ok(error)) => section.fail(check, line![status, " ", Peer(error.code.as_str())], fix),
        (status, Err(fault)) => section.fail(check, line![status, ": ", fault], fix),
    }
}

fn token_text(section: &mut Section, answer: &Answer) {
    let check = &checks::TOKEN_TEXT;
    let body = answer.body.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let lower = body.to_ascii_lowercase();
    if let Some(words) = INSIDES.iter().find(|words| lower.contains(**words)) {
        let fix = "log it and answer an error code: a stack trace helps attackers only";
        return section.fail(check, line!["the body has \"", Peer(words.trim()), "\""], fix);
    }
    let allowed = |byte: u8| matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~');
    let object = JsonObject::parse(body.as_bytes(), limits::REPLY_BYTES).unwrap_or_default();
    let wrong = ["error", "error_description"].into_iter().find(|name| match object.get(name) {
        Some(JsonValue::String(text)) => !text.bytes().all(allowed),
        _ => false,
    });
    match wrong {
        None => section.pass(check, ""),
        Some(name) => section.fail(
            check,
            line![name, " has characters outside its set"],
            "write error and error_description in printable ASCII, without quotation marks and backslashes",
        ),
    }
}

/// Introspection tells about tokens, so it is for callers that are known.
pub(crate) fn judge_introspection(section: &mut Section, observed: Option<&Observed>) {
    let check = &checks::INTROSPECTION;
    let Some(observed) = observed else {
        return section.skip(check, "no introspection endpoint is announced");
    };
    let seen = shown(observed);
    match observed.as_ref().map(|answer| answer.status) {
        Ok(400 | 401 | 403 | 405) => section.pass(check, seen),
        Ok(429) => section.skip(check, seen),
        _ => section.fail(check, seen, "answer 401 to a caller that does not authenticate"),
    }
}

/// Revocation is for the client whose token it is. That a stranger is told 200 gives nothing away.
pub(crate) fn judge_revocation(section: &mut Section, observed: Option<&Observed>) {
    let check = &checks::REVOCATION;
    let Some(observed) = observed else { return section.skip(check, "no revocation endpoint is announced") };
    let seen = shown(observed);
    match observed.as_ref().map(|answer| answer.status) {
        Ok(400 | 401 | 403 | 405) => section.pass(check, seen),
        Ok(429) => section.skip(check, seen),
        Ok(200..300) => section.warn(check, seen.and(" to an unknown client"), "answer 401 invalid_client"),
        _ => section.fail(check, seen, "answer 401 invalid_client to a client that is not registered"),
    }
}

/// The published keys.
pub(crate) fn judge_keys(section: &mut Section, observed: Option<&Observed>) {
    let check = &checks::SERVER_KEYS;
    let Some(observed) = observed else { return section.skip(check, "the metadata names no jwks_uri") };
    let fix = "serve a JSON object with \"keys\", as application/json";
    let body = match observed {
        Ok(answer) if answer.status == 200 => answer.body.as_deref().unwrap_or_default(),
        _ => return section.fail(check, shown(observed), fix),
    };
    let object = match JsonObject::parse(body, limits::DOCUMENT_BYTES) {
        Ok(object) => object,
        Err(error) => return section.fail(check, line![error], fix),
    };
    let Some(JsonValue::Array(keys)) = object.get("keys") else {
        return section.fail(check, "no keys", fix);
    };
    let members = |key: &JsonValue| match key {
        JsonValue::Object(key) => {
            // Private halves (RFC 7518 sections 6.2.2 and 6.3.2, RFC 8037), and keys that are nothing but secret.
            let secret =
                ["d", "p", "q", "dp", "dq", "qi", "k"].into_iter().filter(|name| key.get(name).is_some());
            secret.collect::<Vec<_>>()
        }
        _ => vec![],
    };
    let secret: Vec<&str> = keys.iter().flat_map(members).collect();
    if secret.is_empty() {
        section.pass_or_fail(
            check,
            !keys.is_empty(),
            line![Count(keys.len(), "key")],
            "publish the keys that tokens are signed with",
        );
    } else {
        let seen = line!["keys with the private members ", Peers(secret.as_slice())];
        section.fail(check, seen, "replace these keys at once, and publish public halves only");
    }
}

/// Whether pages of other origins may read a document, if they may use the server at all.
pub(crate) fn judge_document_cors(
    section: &mut Section,
    check: &'static Check,
    observed: Option<&Observed>,
    server: bool,
) {
    let allowed = |observed: &Observed| {
        observed.as_ref().is_ok_and(|answer| answer.has_header("access-control-allow-origin"))
    };
    match observed {
        None => section.skip(check, "there is no document"),
        Some(observed) if allowed(observed) => section.pass(check, ""),
        Some(_) if server => section.warn(
            check,
            "they may use the MCP server, but not read this",
            "send Access-Control-Allow-Origin with the document: it holds no secret",
        ),
        Some(_) => section.skip(check, "they may not use the MCP server either"),
    }
}
