//! A client's whole login against a server that deviates in one place: it goes on exactly where the invariant lets it.

use mcp_authz::client::{Client, Configuration, Session};
use mcp_authz::entropy::{Entropy, EntropyUnavailable};
use mcp_authz::evidence::IssuerForResource;
use mcp_authz::flow::{ClientAction, ClientFlow, ClientInput, ClientTurn};
use mcp_authz::identifier::{RedirectUri, ResourceId, ScopeSet};
use mcp_authz::message::authorization::Callback;
use mcp_authz::message::exchange::{FetchPurpose, Reply};
use mcp_authz::pkce::CodeChallenge;
use mcp_authz::secret::{AgentBinding, CodeVerifier};
use mcp_authz::syntax::form::{self, Form};
use mcp_authz::syntax::json::JsonObject;
use mcp_authz::time::{Duration, OffsetDateTime};
use proptest::prelude::*;

const SERVER: &str = "https://mcp.example/notes";
const METADATA: &str = "https://mcp.example/.well-known/oauth-protected-resource/notes";
const ISSUER: &str = "https://as.example";
const REDIRECT: &str = "http://127.0.0.1:4711/callback";
const AUTHORIZE: &str = "https://as.example/authorize";

struct Counter(u8);

impl Entropy for Counter {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyUnavailable> {
        for byte in buffer {
            self.0 = self.0.wrapping_mul(29).wrapping_add(17);
            *byte = self.0;
        }
        Ok(())
    }
}

/// What the peers and the browser do. The default is honest.
#[derive(Debug, Clone)]
struct Peers {
    /// Where the challenge says that the resource's document is.
    metadata_url: String,
    resource: String,
    issuer: String,
    methods: Vec<String>,
    announced: bool,
    token_endpoint: String,
    result: &'static str,
    /// The `state` that comes back; `None` for the one that was sent.
    state: Option<String>,
    iss: Option<String>,
    /// Where the browser comes back; `None` for the redirect URI that was sent.
    place: Option<String>,
    agent: AgentBinding,
    after: Duration,
    seed: u8,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            metadata_url: METADATA.to_owned(),
            resource: SERVER.to_owned(),
            issuer: ISSUER.to_owned(),
            methods: vec!["S256".to_owned()],
            announced: true,
            token_endpoint: "https://as.example/token".to_owned(),
            result: "code=the-code",
            state: None,
            iss: Some(ISSUER.to_owned()),
            place: None,
            agent: AgentBinding::this_process(),
            after: Duration::SECOND,
            seed: 7,
        }
    }
}

/// What left the client, and where it came to.
#[derive(Default)]
struct Seen {
    fetches: Vec<(FetchPurpose, String, String)>,
    opened: Option<String>,
    shown: String,
    session: Option<Session>,
}

impl Seen {
    fn fetched(&self, purpose: FetchPurpose) -> Option<&(FetchPurpose, String, String)> {
        self.fetches.iter().find(|(known, ..)| *known == purpose)
    }

    fn redeems(&self) -> bool {
        self.fetched(FetchPurpose::CodeExchange).is_some()
    }

    fn opened_with(&self, name: &str) -> String {
        let (_, query) = self.opened.as_deref().unwrap().split_once('?').unwrap();
        Form::parse(query.as_bytes()).unwrap().get(name).unwrap().to_owned()
    }
}

fn json(status: u16, body: String) -> Reply {
    Reply::new(status, body).with_header("content-type", b"application/json")
}

impl Peers {
    fn answer(&self, purpose: FetchPurpose, body: &[u8]) -> Reply {
        let Self { resource, issuer, token_endpoint, announced, .. } = self;
        match purpose {
            FetchPurpose::ProtectedResourceMetadata => {
                json(200, format!(r#"{{"resource":"{resource}","authorization_servers":["{ISSUER}"]}}"#))
            }
            FetchPurpose::AuthorizationServerMetadata => {
                let methods: Vec<String> =
                    self.methods.iter().map(|method| format!("\"{method}\"")).collect();
                let methods = methods.join(",");
                json(
                    200,
                    format!(
                        r#"{{"issuer":"{issuer}","authorization_endpoint":"{AUTHORIZE}","token_endpoint":"{token_endpoint}","registration_endpoint":"https://as.example/register","response_types_supported":["code"],"code_challenge_methods_supported":[{methods}],"authorization_response_iss_parameter_supported":{announced}}}"#
                    ),
                )
            }
            FetchPurpose::Registration => {
                let asked = JsonObject::parse(body, 10_000).unwrap();
                let redirect = asked.strings("redirect_uris").unwrap().unwrap()[0];
                json(201, format!(r#"{{"client_id":"c1","redirect_uris":["{redirect}"]}}"#))
            }
            _ => {
                json(200, r#"{"access_token":"the-token","token_type":"Bearer","expires_in":60}"#.to_owned())
            }
        }
    }

    fn callback(&self, seen: &Seen) -> String {
        let state = self.state.clone().unwrap_or_else(|| seen.opened_with("state"));
        let iss = self.iss.as_ref().map(|iss| format!("&iss={}", form::encode_component(iss)));
        let iss = iss.unwrap_or_default();
        let place = self.place.clone().unwrap_or_else(|| seen.opened_with("redirect_uri"));
        format!("{place}?{}&state={}{iss}", self.result, form::encode_component(&state))
    }

    /// Runs a login until it waits for something that these peers do not give.
    fn log_in(&self) -> Seen {
        let client = Client::new(Configuration::new("Reader", RedirectUri::new(REDIRECT).unwrap())).unwrap();
        let challenge = format!("Bearer resource_metadata=\"{}\"", self.metadata_url);
        let challenge = Reply::new(401, "").with_header("www-authenticate", challenge.as_bytes());
        let (mut seen, mut entropy) = (Seen::default(), Counter(self.seed));
        let mut now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let server = ResourceId::new(SERVER).unwrap();
        let mut turn = match ClientFlow::challenged(&client, &server, &challenge) {
            Ok(turn) => turn,
            Err(error) => {
                seen.shown.push_str(&format!("{error:?} {error}"));
                return seen;
            }
        };
        for _ in 0..32 {
            let ClientTurn { flow, action, error, refused } = turn;
            seen.shown.push_str(&format!("{flow:?} {action:?} {error:?} {}", refused.is_some()));
            if error.is_some() || refused.is_some() {
                return seen;
            }
            let input = match (action, flow_input(&flow)) {
                (Some(ClientAction::Fetch(fetch)), _) => {
                    let body = String::from_utf8_lossy(fetch.body()).into_owned();
                    seen.fetches.push((fetch.purpose(), fetch.url().to_owned(), body));
                    ClientInput::Fetched(Ok(self.answer(fetch.purpose(), fetch.body())))
                }
                (Some(ClientAction::OpenUserAgent(open)), _) => {
                    seen.opened = Some(open.url().to_owned());
                    let Ok(callback) = Callback::from_url(&self.callback(&seen)) else { return seen };
                    now += self.after;
                    ClientInput::Callback(Box::new(callback), self.agent)
                }
                (Some(ClientAction::Persist(persist)), _) => ClientInput::Persisted(persist.kept_in_memory()),
                (_, Some(input)) => input,
                (_, None) => {
                    if let ClientFlow::Session(session) = flow {
                        seen.session = Some(session);
                    }
                    return seen;
                }
            };
            turn = match flow.advance(input, now, &mut entropy) {
                Ok(turn) => turn,
                Err(failed) => {
                    seen.shown.push_str(&format!("{failed:?}"));
                    return seen;
                }
            };
        }
        panic!("a login that never ends")
    }
}

/// What a host says where a state waits for it.
fn flow_input(flow: &ClientFlow) -> Option<ClientInput> {
    match flow {
        ClientFlow::ChoosingIssuer(state) => {
            let issuer = state.issuers()[0].clone();
            let resource = state.resource_matched().resource().clone();
            let word = IssuerForResource::assertion(resource, issuer.clone());
            Some(ClientInput::Choose(issuer, Some(word)))
        }
        ClientFlow::ChoosingIdentity(state) => Some(ClientInput::Identify(state.identities()[0])),
        ClientFlow::Ready(_) => {
            Some(ClientInput::Begin(ScopeSet::parse("read").unwrap(), AgentBinding::this_process()))
        }
        _ => None,
    }
}

#[test]
fn an_honest_login_comes_to_a_session() {
    let seen = Peers::default().log_in();
    assert!(seen.session.is_some(), "{}", seen.shown);
}

/// A URL, and those that are nearly it.
fn near(text: &'static str) -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), "[a-z/:.A-Z0-9]").prop_map(move |(at, with)| {
        let at = at.index(text.len());
        [&text[..at], &with, &text[at + 1..]].concat()
    });
    prop_oneof![
        2 => Just(text.to_owned()),
        4 => change,
        2 => "[/:?#.]{1,2}|:443|/x".prop_map(move |end| [text, &end].concat()),
        1 => "https://[a-z]{1,6}\\.example(/[a-z]{0,5})?",
        1 => Just(text.to_ascii_uppercase()),
    ]
}

proptest! {
    // I-L1
    #[test]
    fn no_document_of_another_issuer_is_used(issuer in near(ISSUER)) {
        let seen = Peers { issuer: issuer.clone(), ..Peers::default() }.log_in();
        prop_assert_eq!(seen.opened.is_some(), issuer == ISSUER);
        prop_assert_eq!(seen.fetched(FetchPurpose::Registration).is_some(), issuer == ISSUER);
    }

    // I-L2
    #[test]
    fn no_document_of_another_resource_is_used(resource in near(SERVER)) {
        let seen = Peers { resource: resource.clone(), ..Peers::default() }.log_in();
        let used = seen.fetched(FetchPurpose::AuthorizationServerMetadata).is_some();
        prop_assert_eq!(used, resource == SERVER, "{}", resource);
    }

    // I-L2
    #[test]
    fn a_challenge_leads_to_its_own_origin_or_nowhere(url in near(METADATA)) {
        let seen = Peers { metadata_url: url.clone(), ..Peers::default() }.log_in();
        for (_, fetched, _) in seen.fetches.iter().filter(|(_, fetched, _)| *fetched == url) {
            // Scheme and host are the same in any case (RFC 3986 section 6.2.2.1).
            prop_assert!(fetched.to_ascii_lowercase().starts_with("https://mcp.example/"), "{}", fetched);
        }
    }

    // I-L3
    #[test]
    fn code_and_verifier_go_to_the_issuers_token_endpoint_and_nowhere_else(
        path in "[a-z]{1,8}(/[a-z]{1,8})?(\\?t=[a-z]{1,4})?",
    ) {
        let token_endpoint = format!("https://as.example/{path}");
        let seen = Peers { token_endpoint: token_endpoint.clone(), ..Peers::default() }.log_in();
        prop_assert!(seen.redeems());
        for (purpose, url, body) in &seen.fetches {
            let secret = body.contains("the-code") || body.contains("code_verifier");
            prop_assert_eq!(secret, *purpose == FetchPurpose::CodeExchange);
            prop_assert!(!secret || *url == token_endpoint, "a code leaves for {}", url);
            prop_assert!(!url.contains("the-code") && !url.contains("code_verifier"));
        }
        prop_assert!(!seen.opened.unwrap().contains("verifier"));
    }

    // I-L4: state, place, browser, time and issuer, each of them; and of an error no word before them.
    #[test]
    fn a_code_is_redeemed_exactly_when_the_callback_answers_the_request(
        state in prop_oneof![4 => Just(None), 1 => "[A-Za-z0-9_-]{1,43}".prop_map(Some)],
        iss in prop_oneof![
            3 => Just(Some(ISSUER.to_owned())), 2 => Just(None), 2 => near(ISSUER).prop_map(Some),
        ],
        elsewhere in prop_oneof![4 => Just(None), 1 => near(REDIRECT).prop_map(Some)],
        same_agent in prop::bool::weighted(0.8),
        announced: bool,
        minutes in prop_oneof![4 => 0_i64..5, 1 => 11_i64..10_000],
        result in prop::sample::select(vec!["code=the-code", "error=access_denied&error_description=peer-words"]),
    ) {
        let own = AgentBinding::this_process();
        let agent = if same_agent { own } else { AgentBinding::session(&[1; 16]).unwrap() };
        let after = Duration::minutes(minutes);
        let issuer = match iss.as_deref() {
            Some(iss) => iss == ISSUER,
            None => !announced,
        };
        // An error is the issuer's own, or its words are nobody's.
        let is_code = result == "code=the-code";
        let peers = Peers { state, iss, place: elsewhere, agent, announced, after, result, ..Peers::default() };
        let seen = peers.log_in();
        let sent = seen.opened_with("redirect_uri");
        let ours = peers.state.is_none() && peers.place.is_none_or(|place| place == sent) && same_agent && minutes < 10;
        prop_assert_eq!(seen.redeems(), ours && issuer && is_code, "{}", seen.shown);
        prop_assert!(!seen.shown.contains("peer-words"));
    }

    // I-L5
    #[test]
    fn a_login_goes_on_exactly_where_s256_is_listed(
        methods in prop::collection::vec(prop::sample::select(vec!["S256", "plain", "s256", "S384", "", "S256 "]), 0..4),
    ) {
        let methods: Vec<String> = methods.into_iter().map(str::to_owned).collect();
        let listed = methods.iter().any(|method| method == "S256");
        let seen = Peers { methods, ..Peers::default() }.log_in();
        prop_assert_eq!(seen.opened.is_some(), listed);
    }

    // I-L5
    #[test]
    fn a_verifier_is_fresh_and_the_one_of_the_challenge_that_was_sent(seed: u8, other: u8) {
        let [first, second] = [seed, other].map(|seed| Peers { seed, ..Peers::default() }.log_in());
        for seen in [&first, &second] {
            let (_, _, body) = seen.fetched(FetchPurpose::CodeExchange).unwrap();
            let verifier = Form::parse(body.as_bytes()).unwrap().get("code_verifier").unwrap().to_owned();
            let challenge = CodeChallenge::of(&CodeVerifier::new(verifier.as_str()).unwrap());
            prop_assert_eq!(challenge.to_text(), seen.opened_with("code_challenge"));
            prop_assert_ne!(verifier, seen.opened_with("state"));
        }
        for name in ["code_challenge", "state"] {
            prop_assert_eq!(first.opened_with(name) == second.opened_with(name), seed == other, "{}", name);
        }
    }

    // I-L7
    #[test]
    fn a_token_goes_to_its_resource_and_below_and_nowhere_else(
        url in prop_oneof![
            near(SERVER),
            "(/[a-z]{1,4}){0,3}(\\?[a-z=]{0,5})?".prop_map(|rest| [SERVER, &rest].concat()),
            "(https|http)://(mcp|evil)\\.example(:443|:8443)?/(notes|notesx|other)(/[a-z]{1,3})?",
        ],
    ) {
        let session = Peers::default().log_in().session.unwrap();
        let given = session.authorization_for(&url).is_ok();
        let port = url.strip_prefix("https://mcp.example:443/").map(|rest| format!("https://mcp.example/{rest}"));
        let plain = port.unwrap_or_else(|| url.clone());
        // Scheme and host are the same in any case (RFC 3986 section 6.2.2.1); a token need not go to another.
        let path_at = plain.find("//").and_then(|at| plain[at + 2..].find('/').map(|path| at + 2 + path));
        let (origin, path) = plain.split_at(path_at.unwrap_or(plain.len()));
        let folded = [&origin.to_ascii_lowercase(), path].concat();
        let below = folded.strip_prefix(SERVER).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        prop_assert!(!given || below, "a token leaves for {}", url);
        let clean = |rest: &str| rest.split('?').next().unwrap().split('/').skip(1).all(|segment| {
            !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_alphanumeric())
        }) && !rest.contains('#');
        let simple = plain.strip_prefix(SERVER).is_some_and(clean);
        prop_assert!(given || !(below && simple), "no token for {}", url);
    }
}
