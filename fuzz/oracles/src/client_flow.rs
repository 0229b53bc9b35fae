//! The client through its driver, against a server that may say anything: at each state the generator offers what the
//! state waits for, right, nearly right or wild, and what leaves the client is checked.

use mcp_authz::client::{Client, Configuration, PreRegistered, RecordVersion};
use mcp_authz::entropy::{Entropy, EntropyUnavailable};
use mcp_authz::evidence::IssuerForResource;
use mcp_authz::flow::{ClientAction, ClientFlow, ClientInput, ClientTurn};
use mcp_authz::identifier::{ClientId, Issuer, RedirectUri, ResourceId, ScopeSet};
use mcp_authz::limits;
use mcp_authz::message::authorization::Callback;
use mcp_authz::message::exchange::{AddressPolicy, Fetch, FetchFailure, FetchPurpose, Reply};
use mcp_authz::policy::{Policy, Relaxation};
use mcp_authz::secret::AgentBinding;
use mcp_authz::time::{Duration, OffsetDateTime};

use crate::choices::Choices;

const SERVER: &str = "https://mcp.example/notes";
const REDIRECT: &str = "http://127.0.0.1:4711/callback";
const ISSUERS: [&str; 6] = [
    "https://as.example",
    "https://as.example/",
    "https://as.example/t",
    "https://AS.example",
    "http://127.0.0.1:1",
    "https://10.0.0.1",
];
const ENDPOINTS: [&str; 8] = [
    "https://as.example/e",
    "https://as.example/e?tenant=1",
    "https://as.example/e?state=1",
    "https://evil.example/e",
    "http://127.0.0.1:1/e",
    "https://169.254.169.254/e",
    "https://[fd00::1]/e",
    "javascript:alert(1)",
];

pub(crate) struct Counter(pub(crate) u64);

impl Entropy for Counter {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyUnavailable> {
        for byte in buffer {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = u8::try_from(self.0 >> 56).unwrap_or_default();
        }
        Ok(())
    }
}

/// What was seen leaving.
#[derive(Default)]
struct Seen {
    fetches: u32,
    opened: Option<String>,
}

/// Any sequence of inputs: no panic, and I-L3, I-L4, I-L6, I-L7, I-L8.
pub fn client_flow(data: &[u8]) {
    run(data);
}

/// Runs the flow; gives back whether it came to a session.
fn run(data: &[u8]) -> bool {
    let mut choices = Choices::new(data);
    let client = client(&mut choices);
    let server = ResourceId::new(SERVER).expect("a resource");
    let mut now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
    let mut entropy = Counter(7);
    let challenge = challenge(&mut choices);
    let Ok(turn) = ClientFlow::challenged(&client, &server, &challenge) else { return false };
    let mut seen = Seen::default();
    let mut turn = Some(turn);
    let mut came_to_session = false;
    for _ in 0..64 {
        let Some(ClientTurn { flow, action, .. }) = turn.take() else { return came_to_session };
        check_session(&flow);
        came_to_session |= matches!(flow, ClientFlow::Session(_));
        let input = match action {
            Some(ClientAction::Fetch(fetch)) => {
                check_fetch(&fetch, &mut seen, &flow);
                ClientInput::Fetched(fetched(&mut choices, &fetch, &flow))
            }
            Some(ClientAction::OpenUserAgent(open)) => {
                check_opened(open.url());
                seen.opened = Some(open.url().to_owned());
                callback(&mut choices, open.url())
            }
            Some(ClientAction::Count(count)) => match choices.byte().unwrap_or(0) % 4 {
                0 => ClientInput::NotCounted,
                _ => ClientInput::Counted(count.kept_in_memory()),
            },
            Some(ClientAction::Persist(persist)) => ClientInput::Persisted(persist.kept_in_memory()),
            Some(ClientAction::Claim(claim)) => ClientInput::Claimed(match choices.byte().unwrap_or(0) % 4 {
                0 => claim.claimed(1),
                1 => claim.busy(now),
                2 => claim.absent(),
                _ => claim.alone(),
            }),
            Some(ClientAction::Commit(commit)) => {
                ClientInput::Committed(match choices.byte().unwrap_or(0) % 3 {
                    0 => commit.committed(RecordVersion::new(2)),
                    1 => commit.absent(),
                    _ => commit.kept_in_memory(),
                })
            }
            Some(ClientAction::Discard(discard)) => ClientInput::Discarded(discard.discarded()),
            // The key holder of this client fails: what is signed is the host's affair.
            Some(ClientAction::Sign(_)) => ClientInput::SignerFailed,
            Some(ClientAction::Release(_)) | None if choices.is_empty() => return came_to_session,
            Some(ClientAction::Release(_)) | None => input(&mut choices, &flow, seen.opened.as_deref()),
            Some(_) => return came_to_session,
        };
        now += Duration::seconds(i64::from(choices.byte().unwrap_or(0)) * 10);
        turn = Some(match flow.advance(input, now, &mut entropy) {
            Ok(turn) => turn,
            Err(failed) => ClientTurn { flow: failed.state, action: None, error: None, refused: None },
        });
    }
    came_to_session
}

fn client(choices: &mut Choices<'_>) -> Client {
    let redirect = RedirectUri::new(REDIRECT).expect("a redirect URI");
    let issuer = Issuer::new(ISSUERS[0]).expect("an issuer");
    let resource = ResourceId::new(SERVER).expect("a resource");
    let mut policy = Policy::strict();
    let bits = choices.byte().unwrap_or(0);
    if bits & 1 != 0 {
        policy = policy.relax(Relaxation::AssumeS256(issuer.clone()));
    }
    if bits & 2 != 0 {
        policy = policy.relax(Relaxation::IssuerRootSlash(issuer.clone()));
    }
    if bits & 4 != 0 {
        policy = policy.relax(Relaxation::SharedRedirect(issuer.clone()));
    }
    let configuration = Configuration::new("Fuzz", redirect.clone()).policy(policy);
    let id = ClientId::new("pre").expect("a client id");
    Client::new(if bits & 8 != 0 {
        let resources = if bits & 16 != 0 { vec![resource] } else { Vec::new() };
        configuration.pre_registered(PreRegistered::new(issuer, id, redirect, resources))
    } else {
        configuration
    })
    .expect("one identity")
}

fn challenge(choices: &mut Choices<'_>) -> Reply {
    let status = *choices.of(&[401, 403, 200]);
    let reply = Reply::new(status, "");
    match choices.byte().unwrap_or(0) % 5 {
        0 => reply,
        1 => reply.with_header(
            "www-authenticate",
            b"Bearer scope=\"read\", resource_metadata=\"https://mcp.example/.well-known/oauth-protected-resource/notes\"",
        ),
        2 => reply.with_header("www-authenticate", b"Bearer resource_metadata=\"https://evil.example/m\""),
        3 => reply.with_header("www-authenticate", b"Basic realm=\"x\", Bearer error=\"insufficient_scope\", scope=\"write\""),
        _ => reply.with_header("www-authenticate", choices.text().as_bytes()),
    }
}

fn json(status: u16, body: String) -> Reply {
    Reply::new(status, body).with_header("content-type", b"application/json")
}

fn fetched(choices: &mut Choices<'_>, fetch: &Fetch, _flow: &ClientFlow) -> Result<Reply, FetchFailure> {
    match choices.byte().unwrap_or(0) % 12 {
        0 => return Err(*choices.of(&[FetchFailure::TimedOut, FetchFailure::AddressForbidden])),
        1 => return Ok(Reply::new(*choices.of(&[302, 404, 500, 429, 200]), choices.text())),
        2 => return Ok(json(200, choices.text())),
        _ => {}
    }
    let quoted = |text: &str| format!("\"{text}\"");
    Ok(match fetch.purpose() {
        FetchPurpose::ProtectedResourceMetadata => {
            let resource = *choices.of(&[
                SERVER,
                "https://mcp.example",
                "https://mcp.example/",
                "https://evil.example/notes",
            ]);
            let issuer = *choices.of(&ISSUERS);
            json(
                200,
                format!(
                    "{{\"resource\":\"{resource}\",\"authorization_servers\":[\"{issuer}\"],\"scopes_supported\":[\"read\"]}}"
                ),
            )
        }
        FetchPurpose::AuthorizationServerMetadata => {
            let methods = *choices.of(&["[\"S256\"]", "[\"plain\"]", "[]", "[\"S256\",\"plain\"]"]);
            let body = format!(
                "{{\"issuer\":{},\"authorization_endpoint\":{},\"token_endpoint\":{},\"registration_endpoint\":{},\
                 \"response_types_supported\":[\"code\"],\"code_challenge_methods_supported\":{methods},\
                 \"authorization_response_iss_parameter_supported\":{}}}",
                quoted(choices.of::<&str>(&ISSUERS)),
                quoted(choices.of::<&str>(&ENDPOINTS)),
                quoted(choices.of::<&str>(&ENDPOINTS)),
                quoted(choices.of::<&str>(&ENDPOINTS)),
                choices.of::<&str>(&["true", "false"]),
            );
            json(200, body)
        }
        FetchPurpose::Registration => {
            let redirect = *choices.of(&[REDIRECT, "https://evil.example/cb"]);
            let secret = *choices.of(&["", ",\"client_secret\":\"s\",\"client_secret_expires_at\":0"]);
            json(201, format!("{{\"client_id\":\"c1\",\"redirect_uris\":[\"{redirect}\"]{secret}}}"))
        }
        _ => {
            let kind = *choices.of(&["Bearer", "bearer", "DPoP", "mac"]);
            let token = *choices.of(&["at", "", "a b", "a\\r\\nb"]);
            let scope = *choices.of(&["", ",\"scope\":\"read\"", ",\"scope\":\"read admin\""]);
            let refresh = *choices.of(&["", ",\"refresh_token\":\"rt\""]);
            json(
                200,
                format!(
                    "{{\"access_token\":\"{token}\",\"token_type\":\"{kind}\",\"expires_in\":60{scope}{refresh}}}"
                ),
            )
        }
    })
}

fn parameter(url: &str, name: &str) -> String {
    let parsed = url::Url::parse(url).expect("what was opened is a URL");
    parsed
        .query_pairs()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

fn callback(choices: &mut Choices<'_>, opened: &str) -> ClientInput {
    let redirect = parameter(opened, "redirect_uri");
    let state = if choices.byte().unwrap_or(0).is_multiple_of(4) {
        "guess".to_owned()
    } else {
        parameter(opened, "state")
    };
    let iss = *choices.of(&[
        "&iss=https%3A%2F%2Fas.example",
        "",
        "&iss=https%3A%2F%2Fevil.example",
        "&iss=https%3A%2F%2Fas.example%2F",
    ]);
    let result = *choices.of(&["code=c", "error=access_denied", "error=x&error_description=y"]);
    let place = choices.of(&[redirect, format!("{REDIRECT}/other")]).clone();
    let agent =
        *choices.of(&[AgentBinding::this_process(), AgentBinding::session(&[1; 16]).expect("long enough")]);
    match Callback::from_url(&format!("{place}?{result}&state={state}{iss}")) {
        Ok(callback) => ClientInput::Callback(Box::new(callback), agent),
        Err(_) => ClientInput::Abandon,
    }
}

fn input(choices: &mut Choices<'_>, flow: &ClientFlow, opened: Option<&str>) -> ClientInput {
    match flow {
        ClientFlow::ChoosingIssuer(state) => {
            let issuer = choices.of(state.issuers()).clone();
            let resource = state.resource_matched().resource().clone();
            let assertion = choices
                .byte()
                .unwrap_or(0)
                .is_multiple_of(2)
                .then(|| IssuerForResource::assertion(resource, issuer.clone()));
            ClientInput::Choose(issuer, assertion)
        }
        ClientFlow::ChoosingIdentity(state) if !state.identities().is_empty() => {
            ClientInput::Identify(*choices.of(&state.identities()))
        }
        ClientFlow::Ready(_) => {
            let scopes = match choices.byte().unwrap_or(0) {
                255 => return ClientInput::Return,
                byte => ["read", "write", "read write"][usize::from(byte) % 3],
            };
            let scopes = ScopeSet::parse(scopes).expect("scopes");
            ClientInput::Begin(scopes, AgentBinding::this_process())
        }
        ClientFlow::AwaitingCallback(_) => match opened {
            Some(opened) => callback(choices, opened),
            None => ClientInput::Abandon,
        },
        ClientFlow::Session(_) => match choices.byte().unwrap_or(0) % 2 {
            0 => ClientInput::Refresh,
            _ => ClientInput::Challenged(choices.of(&["a", "b"]).to_string(), challenge(choices)),
        },
        _ => ClientInput::Retry,
    }
}

fn check_fetch(fetch: &Fetch, seen: &mut Seen, flow: &ClientFlow) {
    // I-L8: bounded, https, never to an address the person's URL does not permit.
    if matches!(
        fetch.purpose(),
        FetchPurpose::ProtectedResourceMetadata | FetchPurpose::AuthorizationServerMetadata
    ) {
        seen.fetches += 1;
        assert!(seen.fetches <= limits::DISCOVERY_FETCHES, "discovery never ends");
    }
    assert_eq!(fetch.policy().addresses(), AddressPolicy::Public);
    assert!(fetch.policy().max_bytes() <= limits::DOCUMENT_BYTES.max(limits::REPLY_BYTES));
    let url = url::Url::parse(fetch.url()).expect("a fetch goes to a URL");
    assert_eq!(url.scheme(), "https");
    let host = url.host_str().unwrap_or_default();
    for forbidden in ["127.", "localhost", "10.", "169.254", "[fd00"] {
        assert!(!host.starts_with(forbidden), "a fetch into a private range");
    }
    // I-L4: no code leaves after a mismatch; the state is `Ready` and has to begin anew.
    if fetch.purpose() == FetchPurpose::CodeExchange {
        assert!(matches!(flow, ClientFlow::AwaitingTokens(_)));
        let body = String::from_utf8_lossy(fetch.body()).into_owned();
        for needed in ["code=c", "code_verifier=", "grant_type=authorization_code", "resource="] {
            assert!(body.contains(needed), "a token request lacks {needed}");
        }
    }
    assert!(!fetch.url().contains("code_verifier") && !fetch.url().contains("token="), "a secret in a URL");
}

pub(crate) fn check_opened(opened: &str) {
    // I-L5, I-L6
    assert!(opened.starts_with("https://") && opened.bytes().all(|byte| byte.is_ascii_graphic()));
    let parsed = url::Url::parse(opened).expect("a URL");
    for name in [
        "response_type",
        "client_id",
        "redirect_uri",
        "code_challenge",
        "code_challenge_method",
        "state",
        "resource",
    ] {
        assert_eq!(
            parsed.query_pairs().filter(|(known, _)| known == name).count(),
            1,
            "{name} is not there once"
        );
    }
    assert_eq!(parameter(opened, "code_challenge_method"), "S256");
}

fn check_session(flow: &ClientFlow) {
    // I-L7
    if let ClientFlow::Session(session) = flow {
        for elsewhere in
            ["https://evil.example/notes", "http://mcp.example/notes", "https://mcp.example:8443/notes"]
        {
            assert!(session.authorization_for(elsewhere).is_err(), "a token leaves for {elsewhere}");
        }
        let header = session.authorization_for(SERVER).expect("the token is for its resource");
        assert!(header.expose().bytes().all(|byte| (0x20..0x7f).contains(&byte)), "a token breaks the field");
    }
}

#[cfg(test)]
mod tests {
    use super::run;

    #[test]
    fn a_seed_comes_to_a_session() {
        assert!(run(include_bytes!("../../corpus/client_flow/happy")));
    }
}
