//! Judgments of what the MCP server answers to requests without a token, and with one that nobody issued: OAuth 2.1
//! section 5.3, RFC 9110 section 11.6.1, RFC 9728 section 5.1.

use mcp_authz::identifier::{Endpoint, ResourceId, ScopeSet};
use mcp_authz::message::challenge::{BearerChallenge, Challenge, ChallengeError, parse_challenges};
use mcp_authz::policy::{Policy, Relaxation};

use super::checks::{self, Check};
use super::finding::Section;
use super::line::{Count, Line, Peer, line};
use super::observation::{Answer, Observed};

/// What an answer was, in short.
pub(crate) fn shown(observed: &Observed) -> Line {
    match observed {
        Ok(answer) if answer.is_redirect() => {
            line![answer.status, " to ", Peer(answer.header("location").unwrap_or("nowhere"))]
        }
        Ok(answer) => line![answer.status],
        Err(failure) => line![*failure],
    }
}

/// A request without a token, by the name its check has.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The check.
    pub(crate) check: &'static Check,
    /// What came of it.
    pub(crate) observed: Observed,
}

impl Asked {
    /// The answer, if it asks for a token.
    pub(crate) fn refused(&self) -> Option<&Answer> {
        self.observed.as_ref().ok().filter(|answer| answer.status == 401)
    }
}

/// The requests that an MCP client begins with, each without a token.
pub(crate) fn judge_without_token(section: &mut Section, posts: &[Asked], get: &Asked) {
    let asks = posts.iter().any(|asked| asked.refused().is_some());
    for asked in posts {
        let seen = shown(&asked.observed);
        match &asked.observed {
            Ok(answer) if answer.status == 401 => section.pass(asked.check, seen),
            Ok(answer) if answer.is_success() => section.fail(
                asked.check,
                seen.and(": served without a token"),
                "answer 401 before anything of a request is handled; a server that is open to everybody needs no probe",
            ),
            Ok(answer) if asks && matches!(answer.status, 400 | 404 | 405 | 406 | 415) => section.warn(
                asked.check,
                seen.and(": refused before it is asked for a token"),
                "check the token first, whatever the request; if the server is of an older revision, say --revision",
            ),
            _ => section.fail(asked.check, seen, "answer 401 with a challenge when there is no token"),
        }
    }
    let seen = shown(&get.observed);
    match get.observed.as_ref().map(|answer| answer.status) {
        Ok(401) => section.pass(get.check, seen),
        Ok(400 | 404 | 405 | 406) => section.pass(get.check, seen.and(": nothing is served by GET")),
        _ => section.fail(
            get.check,
            seen,
            "answer 401 to a GET as to a POST, or 405 if there is nothing to get",
        ),
    }
}

const OF_CHALLENGE: [&Check; 10] = [
    &checks::CHALLENGE_GRAMMAR,
    &checks::CHALLENGE_REPEATS,
    &checks::CHALLENGE_BEARER,
    &checks::CHALLENGE_CHARACTERS,
    &checks::CHALLENGE_QUIET,
    &checks::CHALLENGE_METADATA,
    &checks::CHALLENGE_ORIGIN,
    &checks::CHALLENGE_SCOPE,
    &checks::CHALLENGE_SCOPE_GRAMMAR,
    &checks::CHALLENGE_OFFLINE,
];

/// Where a client finds the resource's metadata when no challenge says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Otherwise {
    /// At a well-known place.
    WellKnown,
    /// Nowhere.
    Nowhere,
    /// It needs none: the server is of revision 2025-03-26.
    NotNeeded,
}

/// The challenges of the 401 answers.
pub(crate) fn judge_challenge(
    section: &mut Section,
    policy: &Policy,
    server: &ResourceId,
    refused: &[&Answer],
    otherwise: Otherwise,
) {
    let rest = || OF_CHALLENGE.iter();
    let Some(first) = refused.first() else {
        section.skip(&checks::CHALLENGE_PRESENT, "no request was answered with 401");
        return section.skip_all(rest(), "no request was answered with 401");
    };
    let without = refused.iter().filter(|answer| !answer.has_header("www-authenticate")).count();
    section.pass_or_fail(
        &checks::CHALLENGE_PRESENT,
        without == 0,
        line![refused.len().saturating_sub(without), " of ", refused.len()],
        "send WWW-Authenticate: Bearer resource_metadata=\"...\", scope=\"...\" with every 401",
    );
    let with = refused.iter().find(|answer| answer.has_header("www-authenticate"));
    let Some(answer) = with else {
        missing_metadata(section, otherwise);
        let rest = rest().filter(|check| check.name != checks::CHALLENGE_METADATA.name);
        return section.skip_all(rest, "there is no challenge");
    };
    let answer = if first.has_header("www-authenticate") { first } else { answer };
    let reply = answer.reply();
    let parsed = parse_challenges(reply.www_authenticate());
    let found = parsed.and_then(|all| BearerChallenge::find(&all).map(|bearer| (all, bearer)));
    let (all, bearer) = match found {
        Ok(found) => found,
        Err(error) => {
            let repeats = matches!(error, ChallengeError::Duplicate | ChallengeError::Conflict);
            let at = if repeats { &checks::CHALLENGE_REPEATS } else { &checks::CHALLENGE_GRAMMAR };
            if repeats {
                section.pass(&checks::CHALLENGE_GRAMMAR, "");
            }
            let seen = line![error, ": ", Peer(answer.header("www-authenticate").unwrap_or("not text"))];
            section.fail(at, seen, "write Bearer name=\"value\", name=\"value\", each name once");
            let after = rest().skip_while(|check| check.name != at.name).skip(1);
            return section.skip_all(after, "a client that is strict takes nothing from this challenge");
        }
    };
    section.pass(&checks::CHALLENGE_GRAMMAR, line![Count(all.len(), "challenge")]);
    section.pass(&checks::CHALLENGE_REPEATS, "");
    bearer_with_parameters(section, &all);
    characters(section, &all);
    let bearer = bearer.unwrap_or_default();
    section.pass_or_warn(
        &checks::CHALLENGE_QUIET,
        bearer.error.is_none(),
        bearer.error.as_ref().map_or(Line::from("none"), |error| line!["error ", Peer(error)]),
        "leave error out where the request had no token: a client takes it as said of a token",
    );
    match bearer.resource_metadata.as_deref() {
        Some(url) => {
            section.pass(&checks::CHALLENGE_METADATA, line![Peer(url)]);
            metadata_url(section, policy, server, url);
        }
        None => {
            missing_metadata(section, otherwise);
            section.skip(&checks::CHALLENGE_ORIGIN, "the challenge names no metadata");
        }
    }
    scopes(section, bearer.scope.as_deref());
}

/// Without the parameter the well-known places have to do.
fn missing_metadata(section: &mut Section, otherwise: Otherwise) {
    let fix =
        "add resource_metadata=\"https://.../.well-known/oauth-protected-resource/...\" to the challenge";
    let check = &checks::CHALLENGE_METADATA;
    match otherwise {
        Otherwise::WellKnown => {
            let seen = "no resource_metadata; the well-known place has the document, but 2025-06-18 clients do not look \
                        there";
            section.warn(check, seen, fix);
        }
        Otherwise::Nowhere => {
            section.fail(check, "no resource_metadata, and no document at a well-known place", fix);
        }
        Otherwise::NotNeeded => section.skip(check, "2025-03-26 has no resource metadata"),
    }
}

fn bearer_with_parameters(section: &mut Section, all: &[Challenge]) {
    let schemes: Vec<&str> = all.iter().map(Challenge::scheme).collect();
    let bearer = all.iter().find(|challenge| challenge.has_scheme("Bearer"));
    let parameters = bearer.map_or(0, |bearer| bearer.params().count());
    let seen = match bearer {
        Some(_) => line!["Bearer with ", Count(parameters, "parameter")],
        None => line!["no Bearer, but ", super::line::Peers(schemes.as_slice())],
    };
    section.pass_or_fail(
        &checks::CHALLENGE_BEARER,
        parameters > 0,
        seen,
        "name the scheme Bearer and at least one parameter: resource_metadata",
    );
}

fn characters(section: &mut Section, all: &[Challenge]) {
    let text = |byte: u8| matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~');
    let allowed = |name: &str, value: &str| match name.to_ascii_lowercase().as_str() {
        "scope" | "error" | "error_description" => value.bytes().all(text),
        "error_uri" => value.bytes().all(|byte| text(byte) && byte != b' '),
        _ => true,
    };
    let bearers = all.iter().filter(|challenge| challenge.has_scheme("Bearer"));
    let outside = bearers.flat_map(Challenge::params).find(|(name, value)| !allowed(name, value));
    match outside {
        None => section.pass(&checks::CHALLENGE_CHARACTERS, ""),
        Some((name, value)) => section.fail(
            &checks::CHALLENGE_CHARACTERS,
            line![Peer(name), " is ", Peer(value)],
            "printable ASCII only, without quotation marks and backslashes",
        ),
    }
}

fn metadata_url(section: &mut Section, policy: &Policy, server: &ResourceId, url: &str) {
    let check = &checks::CHALLENGE_ORIGIN;
    let endpoint = match Endpoint::new(url) {
        Ok(endpoint) => endpoint,
        Err(error) => return section.fail(check, line![error], "name an absolute https URL"),
    };
    let origin = endpoint.origin();
    if origin == server.origin() {
        return section.pass(check, line![Peer(&origin)]);
    }
    let fix = "serve the document on the origin of the MCP URL: elsewhere, anybody could have written it";
    section.fail_or_relax(
        check,
        policy,
        &Relaxation::MetadataOnOtherOrigin(origin.clone()),
        line![Peer(&origin)],
        fix,
    );
}

fn scopes(section: &mut Section, scope: Option<&str>) {
    let Some(text) = scope else {
        section.warn(
            &checks::CHALLENGE_SCOPE,
            "no scope: a client then asks for every scope of the metadata",
            "add scope=\"...\" with what the refused request needs",
        );
        section.skip(&checks::CHALLENGE_SCOPE_GRAMMAR, "the challenge names no scope");
        return section.skip(&checks::CHALLENGE_OFFLINE, "the challenge names no scope");
    };
    section.pass(&checks::CHALLENGE_SCOPE, line![Peer(text)]);
    match ScopeSet::parse(text) {
        Ok(scopes) => {
            section.pass(&checks::CHALLENGE_SCOPE_GRAMMAR, line![Count(scopes.len(), "scope")]);
            section.pass_or_warn(
                &checks::CHALLENGE_OFFLINE,
                !scopes.contains_str("offline_access"),
                if scopes.contains_str("offline_access") { "it is" } else { "" },
                "leave offline_access out: refresh tokens are the client's affair, not the resource's",
            );
        }
        Err(error) => {
            let fix = "separate scopes by single spaces, and name at least one";
            section.fail(&checks::CHALLENGE_SCOPE_GRAMMAR, line![error], fix);
            section.skip(&checks::CHALLENGE_OFFLINE, "the scopes cannot be read");
        }
    }
}

/// What the server answers to credentials that are none.
#[derive(Debug)]
pub(crate) struct Pretended {
    /// A Bearer token that nobody issued.
    pub(crate) token: Observed,
    /// The same in the query, and nothing in the field.
    pub(crate) query: Observed,
    /// `Bearer` and two words.
    pub(crate) malformed: Observed,
    /// Two fields.
    pub(crate) twice: Observed,
    /// Another scheme.
    pub(crate) basic: Observed,
}

fn error_of(answer: &Answer) -> Option<String> {
    let reply = answer.reply();
    let all = parse_challenges(reply.www_authenticate()).ok()?;
    BearerChallenge::find(&all).ok()??.error
}

/// Credentials that are none; `first` is the answer to the same request without any.
pub(crate) fn judge_pretended(section: &mut Section, pretended: &Pretended, first: Option<&Answer>) {
    let seen = shown(&pretended.token);
    let served = |observed: &Observed| observed.as_ref().is_ok_and(Answer::is_success);
    match &pretended.token {
        Ok(answer) if answer.status == 401 => {
            section.pass(&checks::BAD_TOKEN, seen);
            let error = error_of(answer);
            section.pass_or_warn(
                &checks::BAD_TOKEN_ERROR,
                error.as_deref() == Some("invalid_token"),
                error.as_ref().map_or(Line::from("no error"), |error| line![Peer(error)]),
                "add error=\"invalid_token\": without it a client cannot tell a bad token from none",
            );
            section.pass_or_fail(
                &checks::BAD_TOKEN_CHALLENGE,
                answer.has_header("www-authenticate"),
                if answer.has_header("www-authenticate") { "" } else { "no WWW-Authenticate" },
                "send the challenge with every 401",
            );
        }
        other => {
            let fix = match other {
                Ok(answer) if answer.is_success() => "verify tokens: this one was made up, and was taken",
                _ => "answer 401 with error=\"invalid_token\" to a token that does not verify",
            };
            section.fail(&checks::BAD_TOKEN, seen, fix);
            let rest = [&checks::BAD_TOKEN_ERROR, &checks::BAD_TOKEN_CHALLENGE];
            section.skip_all(&rest, "the answer is no 401");
        }
    }
    // OAUTH21-5.1-2: a made-up token proves nothing by being refused, but the error tells that somebody looked at it.
    let looked_at = pretended.query.as_ref().ok().and_then(error_of).filter(|error| error == "invalid_token");
    let as_without = first.and_then(error_of).is_some();
    let fix = "ignore access_token in the query: URLs end up in logs";
    let seen = shown(&pretended.query);
    match &pretended.query {
        observed if served(observed) => section.fail(&checks::QUERY_TOKEN, seen, fix),
        _ if looked_at.is_some() && !as_without => {
            section.fail(&checks::QUERY_TOKEN, seen.and(", error invalid_token: it was looked at"), fix);
        }
        Ok(answer) if matches!(answer.status, 400 | 401) => section.pass(&checks::QUERY_TOKEN, seen),
        _ => section.fail(&checks::QUERY_TOKEN, seen, "answer 401, as without a token"),
    }
    for (check, observed) in [
        (&checks::MALFORMED_AUTHORIZATION, &pretended.malformed),
        (&checks::TWO_AUTHORIZATIONS, &pretended.twice),
        (&checks::OTHER_SCHEME, &pretended.basic),
    ] {
        let good = matches!(observed.as_ref().map(|answer| answer.status), Ok(400 | 401));
        section.pass_or_fail(check, good, shown(observed), "answer 400, or 401 with a challenge");
    }
}

/// Whether pages of other origins may use the server; a server that has nothing to do with them is one of those too.
pub(crate) fn judge_cors(section: &mut Section, preflight: &Observed, challenge: Option<&Answer>) {
    let check = &checks::CORS_SERVER;
    let allowed = |answer: &Answer| answer.has_header("access-control-allow-origin");
    match preflight {
        Ok(answer) if allowed(answer) => {
            let headers =
                answer.header("access-control-allow-headers").unwrap_or_default().to_ascii_lowercase();
            let exposed = challenge.and_then(|answer| answer.header("access-control-expose-headers"));
            let exposed = exposed.unwrap_or_default().to_ascii_lowercase();
            let names = |list: &str, name: &str| list.split(',').any(|it| it.trim() == name);
            if !names(&headers, "authorization") {
                section.warn(
                    check,
                    "the preflight does not allow Authorization",
                    "allow the field Authorization",
                );
            } else if challenge.is_some() && !names(&exposed, "www-authenticate") {
                section.warn(
                    check,
                    "a 401 does not expose WWW-Authenticate",
                    "expose the field WWW-Authenticate",
                );
            } else {
                section.pass(check, "");
            }
        }
        Ok(answer) if matches!(answer.status, 401 | 403) => {
            let seen =
                line![answer.status, " to a preflight, so no page of another origin can use the server"];
            section.skip(check, seen);
        }
        _ => section.skip(check, "no answer to a preflight: pages of other origins cannot use the server"),
    }
}
