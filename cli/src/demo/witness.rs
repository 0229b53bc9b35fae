//! What was seen: each event of the three roles becomes a line to show and a fact for the final table.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mcp_authz::message::challenge::{BearerChallenge, parse_challenges};
use mcp_authz::message::exchange::{Fetch, FetchPurpose, Reply};
use mcp_authz::syntax::form::Form;
use mcp_authz::syntax::json::JsonObject;
use mcp_authz_tokio::authorization_server::AuthorizationEvent;
use mcp_authz_tokio::client::event::ClientEvent;
use mcp_authz_tokio::resource_server::ResourceEvent;
use zeroize::Zeroizing;

use super::event::{Event, Party};
use super::sink::Recorder;

/// Facts that the final table and the attacks are judged by.
#[derive(Default)]
pub(super) struct Facts {
    /// By name of the evidence: how often, and what the last one vouched for.
    pub(super) evidence: BTreeMap<&'static str, (usize, String)>,
    /// Why resource servers refused.
    pub(super) denials: Vec<String>,
    /// Why the token endpoint refused.
    pub(super) token_failures: Vec<String>,
    /// Why the person was shown an error.
    pub(super) refusals: Vec<String>,
    /// Why the client rejected a callback.
    pub(super) rejections: Vec<String>,
    /// The scopes the person agreed to, one entry for each consent.
    pub(super) consents: Vec<String>,
    /// Requests that reached the token endpoint.
    pub(super) token_requests: usize,
    /// The store's last receipt, until tokens go out for it.
    stored: Option<(&'static str, &'static str)>,
    /// The client's last code exchange, as an attacker might have recorded it.
    pub(super) exchange: Option<(String, Zeroizing<Vec<u8>>)>,
}

/// Turns events into lines and facts. Clones see the same.
#[derive(Clone)]
pub(super) struct Witness {
    pub(super) recorder: Recorder,
    facts: Arc<Mutex<Facts>>,
}

impl Witness {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self { recorder, facts: Arc::default() }
    }

    /// The facts so far.
    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often such evidence was seen, and what the last one vouched for.
    pub(super) fn evidence(&self, name: &str) -> (usize, String) {
        self.facts().evidence.get(name).cloned().unwrap_or_default()
    }

    fn proof(&self, at: Party, name: &'static str, of: impl Display) {
        let of = of.to_string();
        let mut facts = self.facts();
        let entry = facts.evidence.entry(name).or_default();
        entry.0 = entry.0.saturating_add(1);
        entry.1.clone_from(&of);
        drop(facts);
        self.recorder.record(Event::Evidence { at, name: name.to_owned(), of });
    }

    /// Somebody refuses.
    pub(super) fn refusal(&self, at: Party, why: &str) {
        self.recorder.record(Event::Refusal { at, why: why.to_owned() });
    }

    /// An event of the client.
    pub(super) fn client(&self, event: &ClientEvent<'_>) {
        let client = Party::Client;
        match event {
            ClientEvent::Sending { operation, with_token, .. } => {
                let token = if *with_token { "with token" } else { "no token" };
                self.recorder.message(client, Party::McpServer, format!("{operation}, {token}"));
            }
            ClientEvent::Answered(reply) => {
                let said = said(reply.body()).map(|said| format!(" {said}")).unwrap_or_default();
                self.recorder.message(Party::McpServer, client, mcp_answer(reply) + &said);
            }
            ClientEvent::Fetching(fetch) => {
                if fetch.purpose() == FetchPurpose::CodeExchange {
                    self.facts().exchange =
                        Some((fetch.url().to_owned(), Zeroizing::new(fetch.body().to_vec())));
                }
                self.recorder.message(client, peer(fetch.purpose()), request_line(fetch));
            }
            ClientEvent::Fetched(purpose, reply) => {
                let what = match reply {
                    Ok(reply) => fetched(*purpose, reply),
                    Err(failure) => failure.to_string(),
                };
                self.recorder.message(peer(*purpose), client, what);
            }
            ClientEvent::OpeningUserAgent(open) => {
                let path = path_of(open.endpoint());
                self.recorder.message(client, Party::Browser, format!("open {path} in the browser"));
            }
            ClientEvent::CallbackArrived(callback) => {
                let iss = callback.iss().map_or_else(|| "no iss".to_owned(), |iss| format!("iss {iss}"));
                let path = path_of(callback.location());
                self.recorder.message(Party::Browser, client, format!("GET {path}, {iss}"));
            }
            ClientEvent::CallbackUnsolicited => self.refusal(client, "not the awaited callback"),
            ClientEvent::Refused(response) => self.refusal(client, response.code.as_str()),
            ClientEvent::Rejected(error) => {
                self.facts().rejections.push(error.to_string());
                self.refusal(client, &error.to_string());
            }
            ClientEvent::Evidence(name, value) => self.proof(client, name, value),
            ClientEvent::Established(session) => {
                self.proof(client, "Session", format!("for {}", session.scopes()));
            }
            ClientEvent::SteppingUp(ready) => {
                self.proof(client, "StepUp", format!("asks for {}", ready.scopes()));
            }
            ClientEvent::Ended(error) => self.refusal(client, &error.to_string()),
            // A session kept before it is used is shown by the session.
            _ => {}
        }
    }

    /// An event of a resource server.
    pub(super) fn resource(&self, event: &ResourceEvent<'_>) {
        match event {
            ResourceEvent::Authorized(authorized) => {
                self.proof(Party::McpServer, "AudienceAccepted", authorized.audience());
            }
            ResourceEvent::Denied(denial) => {
                let why = denial.reason().to_string();
                self.refusal(Party::McpServer, &why);
                self.facts().denials.push(why);
            }
            _ => {}
        }
    }

    /// An event of the authorization server.
    pub(super) fn authorization(&self, event: &AuthorizationEvent<'_>) {
        let server = Party::AuthorizationServer;
        match event {
            AuthorizationEvent::RedirectMatched(matched) => self.proof(server, "RedirectMatched", matched),
            AuthorizationEvent::VerifierMatched(matched) => self.proof(server, "VerifierMatched", matched),
            AuthorizationEvent::DecideOnce(action) => {
                if let Some((_, code)) = action.code() {
                    let scope = code.grant.scope.to_string();
                    self.proof(server, "ConsentGiven", format!("{} for {scope}", code.grant.subject));
                    self.facts().consents.push(scope);
                }
            }
            AuthorizationEvent::CodeRedemption(_) => {
                self.facts().stored = Some(("CodeRedemption", "code spent, family begun"));
            }
            AuthorizationEvent::RefreshRotation(_) => {
                self.facts().stored = Some(("RefreshRotation", "old one retired, new one kept"));
            }
            // Only a receipt of what was meant lets tokens out.
            AuthorizationEvent::TokensIssued => {
                let stored = self.facts().stored.take();
                if let Some((name, of)) = stored {
                    self.proof(server, name, of);
                }
            }
            AuthorizationEvent::RevokeFamily(action) => {
                self.proof(server, "RevokeFamily", action.reason().as_str());
            }
            AuthorizationEvent::TokenFailure(failure) => {
                self.refusal(server, &failure.to_string());
                self.facts().token_failures.push(failure.to_string());
            }
            AuthorizationEvent::Refusal(refusal) => {
                let why = refusal.reason().to_string();
                self.refusal(server, &why);
                self.facts().refusals.push(why);
            }
            AuthorizationEvent::RegistrationRefused(reason) => self.refusal(server, &reason.to_string()),
            AuthorizationEvent::StoreFailed(_) => self.refusal(server, "the store failed"),
            _ => {}
        }
    }
}

/// Who answers a fetch.
fn peer(purpose: FetchPurpose) -> Party {
    match purpose {
        FetchPurpose::ProtectedResourceMetadata => Party::McpServer,
        _ => Party::AuthorizationServer,
    }
}

/// The path of a URL without its query.
pub(super) fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/");
    path.split('?').next().unwrap_or(path)
}

fn request_line(fetch: &Fetch) -> String {
    let grant = Form::parse(fetch.body()).ok().and_then(|form| form.get("grant_type").map(str::to_owned));
    let line = format!("{} {}", fetch.method(), path_of(fetch.url()));
    match grant {
        Some(grant) => format!("{line}, {grant}"),
        None => line,
    }
}

fn fetched(purpose: FetchPurpose, reply: &Reply) -> String {
    let status = reply.status();
    if status >= 400 {
        return error_answer(status, reply.body());
    }
    match JsonObject::parse(reply.body(), 64 * 1024) {
        Ok(document) => format!("{status} {}", gist(purpose, &document)),
        Err(_) => format!("{status}, not JSON"),
    }
}

/// What a person would want to know of a document: which members are there, and never the value of a secret one.
fn gist(purpose: FetchPurpose, document: &JsonObject) -> String {
    let has = |name: &str| document.get(name).is_some();
    let texts = |name: &'static str| document.strings(name).ok().flatten().unwrap_or_default();
    let mut parts: Vec<String> = Vec::new();
    match purpose {
        FetchPurpose::ProtectedResourceMetadata => {
            let servers = texts("authorization_servers").len();
            parts
                .push(format!("names {servers} authorization server{}", if servers == 1 { "" } else { "s" }));
        }
        FetchPurpose::AuthorizationServerMetadata => {
            let endpoints = document.names().filter(|name| name.ends_with("_endpoint")).count();
            parts.push(counted(endpoints, "endpoint"));
            parts.extend(texts("code_challenge_methods_supported").iter().map(|&method| method.to_owned()));
        }
        FetchPurpose::Registration => {
            parts.extend(
                ["client_id", "client_secret"].iter().filter(|name| has(name)).map(|&name| name.to_owned()),
            );
        }
        FetchPurpose::CodeExchange | FetchPurpose::Refresh => {
            let known = [("access_token", "access token"), ("refresh_token", "refresh token")];
            parts.extend(known.iter().filter(|(name, _)| has(name)).map(|(_, words)| (*words).to_owned()));
        }
        _ => {}
    }
    parts.join(", ")
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// The status and the error code of an answer in JSON.
pub(super) fn error_answer(status: u16, body: &[u8]) -> String {
    let error = JsonObject::parse(body, 64 * 1024).ok();
    let code = error.as_ref().and_then(|error| error.string("error").ok().flatten());
    code.map_or_else(|| status.to_string(), |code| format!("{status} {code}"))
}

/// What a JSON-RPC result says, as far as a person would want to read it; a peer's text.
fn said(body: &[u8]) -> Option<String> {
    let message = serde_json::from_slice::<serde_json::Value>(body).ok()?;
    let result = message.get("result")?;
    if let Some(tools) = result.get("tools").and_then(|tools| tools.as_array()) {
        let names: Vec<&str> = tools.iter().filter_map(|tool| tool.get("name")?.as_str()).collect();
        return Some(names.join(", "));
    }
    if let Some(text) = result.pointer("/content/0/text").and_then(|text| text.as_str()) {
        return Some(format!("\u{201c}{}\u{201d}", text.replace('\n', "; ")));
    }
    let version = result.get("protocolVersion")?.as_str()?;
    Some(format!("MCP {version}"))
}

/// The status of an MCP server's answer and what its challenge says.
pub(super) fn mcp_answer(reply: &Reply) -> String {
    let challenge = parse_challenges(reply.www_authenticate()).ok();
    let challenge = challenge.and_then(|list| BearerChallenge::find(&list).ok().flatten());
    let status = reply.status();
    let Some(challenge) = challenge else { return status.to_string() };
    let error = challenge.error.map(|error| format!(" {error}"));
    let scope = challenge.scope.map(|scope| format!(", needs {scope}"));
    format!("{status}{}{}", error.unwrap_or_default(), scope.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use mcp_authz::message::exchange::{FetchPurpose, Reply};

    use super::{fetched, path_of};

    #[test]
    fn a_line_says_what_the_answer_holds() {
        let line = |purpose, body: &str| fetched(purpose, &Reply::new(200, body));
        let whole = r#"{"access_token":"canary","refresh_token":"canary"}"#;
        assert_eq!(line(FetchPurpose::CodeExchange, whole), "200 access token, refresh token");
        assert_eq!(line(FetchPurpose::Refresh, r#"{"access_token":"canary"}"#), "200 access token");
        let metadata = r#"{"token_endpoint":"t","code_challenge_methods_supported":["plain"]}"#;
        assert_eq!(line(FetchPurpose::AuthorizationServerMetadata, metadata), "200 1 endpoint, plain");
        let resource = r#"{"authorization_servers":["a","b"]}"#;
        assert_eq!(
            line(FetchPurpose::ProtectedResourceMetadata, resource),
            "200 names 2 authorization servers"
        );
        assert_eq!(line(FetchPurpose::Registration, r#"{"client_id":"c"}"#), "200 client_id");
        assert_eq!(line(FetchPurpose::Registration, "<p>"), "200, not JSON");
    }

    #[test]
    fn a_path_has_neither_host_nor_query() {
        assert_eq!(path_of("http://h:1/a/b?code=c"), "/a/b");
        assert_eq!(path_of("http://h:1"), "/");
        assert_eq!(path_of("/authorize?x"), "/authorize");
    }
}
