//! Judgments of a registration that the person asked for, and of what the authorization endpoint says to the client that
//! came of it: RFC 7591 section 3, OAuth 2.1 section 4.1.2.1, RFC 9207 section 2.

use mcp_authz::message::client_metadata::{RegistrationReply, RegistrationResponse};
use mcp_authz::syntax::form::Form;

use super::checks::{self, Check};
use super::finding::Section;
use super::line::{Line, Peer, Peers, line};
use super::mcp_server::shown;
use super::observation::Observed;

/// Where the probe's client would be answered. Nothing listens there, and no browser is sent there.
pub(crate) const REDIRECT: &str = "http://127.0.0.1:33418/callback";
/// The `state` of its requests.
pub(crate) const STATE: &str = "mcp-authz-probe-state";

const OF_RESPONSE: [&Check; 3] =
    [&checks::REGISTER_ECHO, &checks::REGISTER_SECRET, &checks::REGISTER_CLIENT_ID];

/// Checks that need a registered client.
pub(crate) const OF_CLIENT: [&Check; 4] =
    [&checks::KNOWN_REDIRECT, &checks::KNOWN_NO_PKCE, &checks::KNOWN_PLAIN, &checks::KNOWN_RESPONSE];

/// Every check that registers or needs a registration.
pub(crate) fn skip_all(section: &mut Section, why: &'static str) {
    let of_registration = [&checks::REGISTER_CREATED];
    let refusals = [&checks::REGISTER_SCHEME, &checks::REGISTER_HTTP];
    section.skip_all(of_registration.iter().chain(&OF_RESPONSE).chain(&refusals).chain(&OF_CLIENT), why);
}

fn registered(observed: &Observed) -> Option<RegistrationReply> {
    let answer = observed.as_ref().ok()?;
    RegistrationReply::parse(answer.status, answer.body.as_ref().ok()?).ok()
}

/// The answer to the client's own registration.
pub(crate) fn judge(section: &mut Section, observed: &Observed) -> Option<RegistrationResponse> {
    let fix =
        "answer 201 with client_id and everything that was registered, as RFC 7591 section 3.2.1 has it";
    let response = match registered(observed) {
        Some(RegistrationReply::Registered(response)) => response,
        other => {
            let seen = match other {
                Some(RegistrationReply::Error(error)) => {
                    line![shown(observed), " ", Peer(error.code.as_str())]
                }
                _ => shown(observed).and(", and nothing that could be read"),
            };
            section.fail(&checks::REGISTER_CREATED, seen, fix);
            section.skip_all(&OF_RESPONSE, "there is no registration");
            return None;
        }
    };
    let created = observed.as_ref().is_ok_and(|answer| answer.status == 201);
    let seen = line![shown(observed), ", client_id ", Peer(&response.client_id), "; it stays there"];
    section.pass_or_fail(&checks::REGISTER_CREATED, created, seen, fix);
    let listed = &response.metadata.redirect_uris;
    section.pass_or_fail(
        &checks::REGISTER_ECHO,
        listed.iter().any(|uri| uri.as_str() == REDIRECT),
        if listed.is_empty() { Line::from("none came back") } else { line![Peers(listed.as_slice())] },
        "return redirect_uris as registered, byte for byte",
    );
    let method = response.metadata.token_endpoint_auth_method.as_deref();
    let public = matches!(method, None | Some("none"));
    let seen = match (&response.client_secret, method) {
        (None, Some(method)) => line!["method ", Peer(method), ", no secret"],
        (None, None) => Line::from("no method, no secret"),
        (Some(_), Some(method)) => line!["method ", Peer(method), ", and a secret"],
        (Some(_), None) => Line::from("no method, and a secret"),
    };
    section.pass_or_fail(
        &checks::REGISTER_SECRET,
        public == response.client_secret.is_none(),
        seen,
        "give a client that registers with none no secret, and every other one a secret",
    );
    let url = response.client_id.as_str().starts_with("https://");
    section.pass_or_warn(
        &checks::REGISTER_CLIENT_ID,
        !url,
        if url { "it is" } else { "" },
        "give out client_ids that nobody takes for the URL of a metadata document",
    );
    Some(*response)
}

/// A registration that must be refused, because its one redirect URI is `uri`.
pub(crate) fn judge_refused(section: &mut Section, check: &'static Check, observed: &Observed) {
    let fix =
        "answer 400 invalid_redirect_uri: https, or http on localhost, 127.0.0.1 and [::1], and nothing else";
    let Ok(answer) = observed else {
        return section.skip(check, shown(observed));
    };
    match (answer.status, registered(observed)) {
        (_, Some(RegistrationReply::Registered(_))) => {
            section.fail(check, shown(observed).and(": registered"), fix)
        }
        (400..500, Some(RegistrationReply::Error(error))) => {
            section.pass(check, line![answer.status, " ", Peer(error.code.as_str())]);
        }
        (429, _) => section.skip(check, "429: the server limits how often it may be asked"),
        (400..500, _) => section.pass(check, line![answer.status, ", without an error that could be read"]),
        _ => section.fail(check, shown(observed), fix),
    }
}

/// The parameters of an answer that was sent to the client's redirect URI.
fn answered(observed: &Observed) -> Option<Form> {
    let answer = observed.as_ref().ok().filter(|answer| answer.is_redirect())?;
    let query = answer.header("location")?.strip_prefix(REDIRECT)?.strip_prefix('?')?;
    Form::parse(query.as_bytes()).ok()
}

/// A request that must not come to a code, because its code challenge is missing or weak.
pub(crate) fn judge_weak(section: &mut Section, check: &'static Check, observed: &Observed) {
    let fix = "answer invalid_request: without S256 whoever steals the code can use it";
    let seen = shown(observed);
    let form = answered(observed);
    let parameter = |name| form.as_ref().and_then(|form| form.get(name));
    match (observed, parameter("error"), parameter("code")) {
        (_, Some(error), None) => section.pass(check, line![Peer(error)]),
        (_, _, Some(_)) => section.fail(check, "it got a code", fix),
        (Ok(answer), ..) if (400..500).contains(&answer.status) => section.pass(check, seen),
        (Ok(answer), ..) if answer.is_redirect() || answer.is_success() => {
            section
                .skip(check, seen.and(": the person is asked first, so nothing can be seen without a login"));
        }
        _ => section.fail(check, seen, fix),
    }
}

/// An error that was sent to the client's redirect URI.
pub(crate) fn judge_response(section: &mut Section, observed: &Observed, issuer: &str, announced: bool) {
    let check = &checks::KNOWN_RESPONSE;
    let Some(form) = answered(observed) else {
        return section.skip(check, "no error response was seen");
    };
    let state = form.get("state") == Some(STATE);
    let (good, iss) = match form.get("iss") {
        Some(iss) => (iss == issuer, line!["iss ", Peer(iss)]),
        None => (!announced, Line::from("no iss")),
    };
    let state_seen = if state { "state as sent, " } else { "another state, or none, " };
    let fix = "return state as it was sent and iss as the metadata writes it, in errors too";
    section.pass_or_fail(check, good && state, line![state_seen, iss], fix);
}
