//! The world: every message is a value, every host a few lines, and nothing happens unless a test makes it.

use std::collections::BTreeMap;

use mcp_authz::authorization_server::authorization::ConsentView;
use mcp_authz::authorization_server::{
    AuthorizationServer, Configuration, KnownResource, RegistrationPolicy,
};
use mcp_authz::client::{self, Client, Session};
use mcp_authz::entropy::{Entropy, EntropyUnavailable};
use mcp_authz::error::Error;
use mcp_authz::evidence::{Approval, Authentication, IssuerForResource};
use mcp_authz::flow::{
    ClientAction, ClientFlow, ClientInput, ClientTurn, ServerAction, ServerEnd, ServerFlow, ServerInput,
    ServerTurn,
};
use mcp_authz::identifier::{Issuer, RedirectUri, ResourceId, Scope, ScopeSet};
use mcp_authz::jose::{Algorithm, BadSignature, KeySet, Sign, SigningKeyId, VerifyingKey};
use mcp_authz::message::authorization::Callback;
use mcp_authz::message::exchange::{Fetch, FetchFailure, FetchPurpose, Reply, RequestHead, Respond};
use mcp_authz::policy::{Policy, Relaxation};
use mcp_authz::resource_server::{RequiredScopes, ResourceServer, TrustedIssuer, VerificationOutcome};
use mcp_authz::secret::{AgentBinding, SecretDigest};
use mcp_authz::syntax::form;
use mcp_authz::time::{Duration, OffsetDateTime};

use crate::store::Store;

pub(crate) const ISSUER: &str = "https://as.example";
pub(crate) const NOTES: &str = "https://mcp.example/notes";
pub(crate) const MAIL: &str = "https://mcp.example/mail";
pub(crate) const REDIRECT: &str = "http://127.0.0.1:4711/callback";

/// Bytes that differ on every draw and repeat on every run.
#[derive(Debug)]
pub(crate) struct Seeded(pub(crate) u64);

impl Entropy for Seeded {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyUnavailable> {
        for chunk in buffer.chunks_mut(32) {
            self.0 += 1;
            let digest = SecretDigest::of(&self.0.to_be_bytes());
            chunk.copy_from_slice(&digest.as_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// A key whose signature is a digest over a secret and the input: enough to tell forged from genuine.
#[derive(Debug, Clone)]
pub(crate) struct TestKey(&'static str);

impl TestKey {
    fn tag(&self, input: &[u8]) -> Vec<u8> {
        let once = SecretDigest::of(&[self.0.as_bytes(), b"|", input].concat());
        let twice = SecretDigest::of(&[self.0.as_bytes(), b"|again|", input].concat());
        [once.as_bytes().as_slice(), twice.as_bytes()].concat()
    }
}

impl VerifyingKey for TestKey {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDsa
    }

    fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if self.tag(signed) == signature { Ok(()) } else { Err(BadSignature) }
    }
}

/// How a request at an MCP server ended.
#[derive(Debug)]
pub(crate) enum Served {
    /// The tool ran, for that person.
    Ran(String),
    /// It did not.
    Denied(Reply),
}

/// What the person's browser ended at.
#[derive(Debug)]
pub(crate) enum Seen {
    /// The client's redirect URI, with parameters.
    Returned(String),
    /// An error page, with its status.
    Page(u16),
}

/// What a person does on the consent page.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Approve,
    ApproveOnly(&'static str),
    Deny,
}

pub(crate) struct World {
    pub(crate) now: OffsetDateTime,
    pub(crate) entropy: Seeded,
    pub(crate) store: Store,
    pub(crate) server: AuthorizationServer,
    pub(crate) resources: BTreeMap<&'static str, ResourceServer>,
    pub(crate) browser: AgentBinding,
    /// Every fetch the client's host carried out.
    pub(crate) fetches: Vec<(FetchPurpose, String)>,
    /// What a careless host would have logged: the `Debug` of everything that passed.
    pub(crate) shown: String,
    /// Every secret that passed, as text.
    pub(crate) secrets: Vec<String>,
    /// Documents that stand somewhere else.
    pub(crate) pages: BTreeMap<String, Reply>,
    key: TestKey,
}

pub(crate) fn scopes(text: &str) -> ScopeSet {
    if text.is_empty() { ScopeSet::new() } else { ScopeSet::parse(text).unwrap() }
}

fn known(resource: &str) -> KnownResource {
    let words = [("read", "Read your notes"), ("write", "Change your notes")];
    let words = words.map(|(scope, words)| (Scope::new(scope).unwrap(), words.to_owned()));
    KnownResource::new(ResourceId::new(resource).unwrap(), words)
}

impl World {
    pub(crate) fn new() -> Self {
        let key = TestKey("key of the authorization server");
        let issuer = Issuer::new(ISSUER).unwrap();
        let signing = SigningKeyId::new("k1", Algorithm::EdDsa);
        let configuration = Configuration::new(issuer.clone(), vec![known(NOTES), known(MAIL)], signing);
        let server = AuthorizationServer::new(configuration.registration(RegistrationPolicy::Open)).unwrap();
        let resource = |id: &str| {
            let keys = KeySet::new([(Some("k1".to_owned()), Box::new(key.clone()) as Box<dyn VerifyingKey>)])
                .unwrap();
            ResourceServer::new(
                ResourceId::new(id).unwrap(),
                [TrustedIssuer::with_keys(issuer.clone(), keys)],
            )
            .unwrap()
            .with_scopes_supported(scopes("read"))
            .unwrap()
        };
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        Self {
            now,
            entropy: Seeded(0),
            store: Store::new(now),
            resources: [(NOTES, resource(NOTES)), (MAIL, resource(MAIL))].into(),
            server,
            browser: AgentBinding::session(b"the browser of ann").unwrap(),
            fetches: Vec::new(),
            shown: String::new(),
            secrets: Vec::new(),
            pages: BTreeMap::new(),
            key,
        }
    }

    pub(crate) fn client(&self) -> Client {
        self.client_with(Policy::strict().relax(Relaxation::PlaintextRecords))
    }

    pub(crate) fn client_with(&self, policy: Policy) -> Client {
        let redirect = RedirectUri::new(REDIRECT).unwrap();
        Client::new(client::Configuration::new("Notebook", redirect).policy(policy)).unwrap()
    }

    pub(crate) fn pass(&mut self, duration: Duration) {
        self.now += duration;
        self.store.pass(duration);
    }

    fn see(&mut self, passing: &dyn std::fmt::Debug) {
        self.shown.push_str(&format!("{passing:?} {passing:#?}\n"));
    }

    /// Remembers the values of a form or JSON text that nobody may show.
    fn keep_secrets(&mut self, text: &str) {
        const NAMES: [&str; 8] = [
            "code",
            "code_verifier",
            "refresh_token",
            "access_token",
            "client_secret",
            "state",
            "token",
            "client_assertion",
        ];
        for name in NAMES {
            let quoted = text.split(&format!("\"{name}\":\"")).nth(1).and_then(|rest| rest.split('"').next());
            self.secrets.extend(quoted.map(str::to_owned));
        }
        if let Ok(form) = form::Form::parse(text.as_bytes()) {
            self.secrets.extend(NAMES.iter().filter_map(|name| form.get(name)).map(str::to_owned));
        }
    }

    /// A request to an MCP server for an operation that needs these scopes.
    pub(crate) fn call(&self, url: &'static str, authorization: Option<&str>, needs: &str) -> Served {
        let server = &self.resources[url];
        let mut head = RequestHead::new("POST", server.resource().path()).with_header("host", b"mcp.example");
        if let Some(value) = authorization {
            head = head.with_header("authorization", value.as_bytes());
        }
        let required = RequiredScopes::new(scopes(needs)).unwrap();
        let admitted = match server.admit(&head, &required) {
            Ok(presented) => presented.verify(self.now),
            Err(denial) => return Served::Denied(reply(denial.respond())),
        };
        let verified = match admitted {
            VerificationOutcome::Verified(verified) => verified,
            VerificationOutcome::Denied(denial) => return Served::Denied(reply(denial.respond())),
            VerificationOutcome::Introspect(_) => panic!("this world has no introspection"),
        };
        match verified.authorize(&required) {
            Ok(authorized) => Served::Ran(authorized.subject().to_owned()),
            Err(denial) => Served::Denied(reply(denial.respond())),
        }
    }

    /// The same with a session's token, if the session gives it out for that URL.
    pub(crate) fn call_with(&self, session: &Session, url: &'static str, needs: &str) -> Served {
        let header = session.authorization_for(url).unwrap();
        self.call(url, Some(header.expose()), needs)
    }

    /// The 401 of a request without a token.
    pub(crate) fn unauthorized(&self, url: &'static str) -> Reply {
        match self.call(url, None, "read") {
            Served::Denied(reply) => reply,
            Served::Ran(_) => panic!("served without a token"),
        }
    }

    /// Carries out what the client's host is asked to fetch.
    pub(crate) fn fetch(&mut self, fetch: Fetch) -> Result<Reply, FetchFailure> {
        self.see(&fetch);
        self.keep_secrets(&String::from_utf8_lossy(fetch.body()));
        let brought = self.bring(fetch);
        if let Ok(reply) = &brought {
            self.keep_secrets(&String::from_utf8_lossy(reply.body()));
            self.see(reply);
        }
        brought
    }

    fn bring(&mut self, fetch: Fetch) -> Result<Reply, FetchFailure> {
        self.fetches.push((fetch.purpose(), fetch.url().to_owned()));
        if let Some(page) = self.pages.get(fetch.url()) {
            return Ok(page.clone());
        }
        let url = fetch.url();
        for server in self.resources.values() {
            if url == server.metadata_url() {
                return Ok(reply(server.metadata_response()));
            }
        }
        let Some(path) = url.strip_prefix(ISSUER) else { return Err(FetchFailure::Unreachable) };
        let mut head = RequestHead::new(fetch.method(), path);
        if let Some(kind) = fetch.content_type() {
            head = head.with_header("content-type", kind.as_bytes());
        }
        if let Some(value) = fetch.authorization() {
            head = head.with_header("authorization", value.as_bytes());
        }
        let respond = match path {
            "/.well-known/oauth-authorization-server" => self.server.metadata_response(),
            "/register" => {
                let turn =
                    ServerFlow::register(&self.server, &head, fetch.body(), self.now, &mut self.entropy);
                self.respond(turn)
            }
            "/token" => {
                let turn = ServerFlow::token(&self.server, &head, fetch.body());
                self.respond(turn)
            }
            "/revoke" => {
                let turn = ServerFlow::revoke(&self.server, &head, fetch.body());
                self.respond(turn)
            }
            _ => return Ok(Reply::new(404, "")),
        };
        Ok(reply(respond))
    }

    /// A form posted to the token endpoint by somebody.
    pub(crate) fn token(&mut self, pairs: &[(&str, &str)]) -> Reply {
        let body = form::encode(pairs.iter().copied());
        let head = RequestHead::new("POST", "/token")
            .with_header("content-type", b"application/x-www-form-urlencoded");
        let turn = ServerFlow::token(&self.server, &head, body.as_bytes());
        reply(self.respond(turn))
    }

    fn respond(&mut self, turn: ServerTurn) -> Respond {
        match self.run(turn) {
            Ran::End(ServerEnd::Respond(respond)) => respond,
            other => panic!("not an answer: {other:?}"),
        }
    }

    /// Carries a server flow's actions out until it ends or waits for the host.
    pub(crate) fn run(&mut self, mut turn: ServerTurn) -> Ran {
        loop {
            self.see(&turn);
            let (action, flow) = match turn {
                ServerTurn::End(end) => return Ran::End(end),
                ServerTurn::Wait(flow) => return Ran::Wait(flow),
                ServerTurn::Act(action, flow) => (action, flow),
            };
            let input = match action {
                ServerAction::FindClient(action) => ServerInput::ClientFound(self.store.find_client(action)),
                ServerAction::Fetch(fetch) => ServerInput::Fetched(self.fetch(fetch)),
                ServerAction::InsertDecision(action) => {
                    ServerInput::DecisionInserted(self.store.insert_decision(*action))
                }
                ServerAction::ReadDecision(action) => {
                    ServerInput::DecisionFound(self.store.read_decision(action))
                }
                ServerAction::DecideOnce(action) => {
                    ServerInput::DecisionTaken(self.store.decide_once(*action))
                }
                ServerAction::ReadCode(action) => ServerInput::CodeFound(self.store.read_code(action)),
                ServerAction::Sign(action) => ServerInput::Signed(self.sign(action)),
                ServerAction::RedeemCode(action) => {
                    ServerInput::CodeRedeemed(self.store.redeem_code(*action))
                }
                ServerAction::ReadRefresh(action) => {
                    ServerInput::RefreshFound(self.store.read_refresh(action))
                }
                ServerAction::RotateRefresh(action) => {
                    ServerInput::RefreshRotated(self.store.rotate_refresh(*action))
                }
                ServerAction::RevokeFamily(action) => {
                    ServerInput::FamilyRevoked(self.store.revoke_family(action))
                }
                ServerAction::InsertClient(action) => {
                    ServerInput::ClientInserted(self.store.insert_client(*action))
                }
                other => panic!("an action this host does not know: {other:?}"),
            };
            self.see(&input);
            turn = flow.advance(input, self.now, &mut self.entropy).expect("the flow waits for this result");
        }
    }

    fn sign(&self, sign: Sign) -> mcp_authz::jose::Signed {
        let signature = self.key.tag(sign.input());
        sign.signed(signature).unwrap()
    }

    /// The browser opens the authorization URL; ann is signed in.
    pub(crate) fn open(&mut self, url: &str) -> Result<ConsentView, Seen> {
        let query = url.strip_prefix(ISSUER).and_then(|rest| rest.strip_prefix("/authorize?")).unwrap();
        let turn = ServerFlow::authorize(&self.server, query);
        let flow = match self.run(turn) {
            Ran::Wait(flow) => flow,
            Ran::End(end) => return Err(seen(end)),
        };
        let person = Authentication::assertion("ann", self.browser, self.now).unwrap();
        let turn = flow.advance(ServerInput::Person(person), self.now, &mut self.entropy).unwrap();
        match self.run(turn) {
            Ran::End(ServerEnd::Consent(view)) => {
                self.secrets.extend([view.handle.clone(), view.csrf.clone()]);
                Ok(*view)
            }
            Ran::End(end) => Err(seen(end)),
            Ran::Wait(_) => panic!("nothing to wait for"),
        }
    }

    /// The form of the consent page goes back from that browser.
    pub(crate) fn submit(
        &mut self,
        handle: &str,
        csrf: &str,
        subject: &str,
        agent: AgentBinding,
        answer: &Answer,
        shown: &ScopeSet,
    ) -> Seen {
        let turn = ServerFlow::decide(&self.server, handle);
        let flow = match self.run(turn) {
            Ran::Wait(flow) => flow,
            Ran::End(end) => return seen(end),
        };
        let input = match answer {
            Answer::Approve => {
                ServerInput::Approve(Approval::assertion(subject, agent, shown.clone()), csrf.to_owned())
            }
            Answer::ApproveOnly(some) => {
                ServerInput::Approve(Approval::assertion(subject, agent, scopes(some)), csrf.to_owned())
            }
            Answer::Deny => ServerInput::Deny(subject.to_owned(), agent, csrf.to_owned()),
        };
        let turn = flow.advance(input, self.now, &mut self.entropy).unwrap();
        match self.run(turn) {
            Ran::End(end) => seen(end),
            Ran::Wait(_) => panic!("nothing to wait for"),
        }
    }

    /// Opens the URL and answers the page.
    pub(crate) fn visit(&mut self, url: &str, answer: &Answer) -> Seen {
        let view = match self.open(url) {
            Ok(view) => view,
            Err(seen) => return seen,
        };
        let shown: ScopeSet = view.scopes.iter().map(|shown| shown.scope.clone()).collect();
        let browser = self.browser;
        self.submit(&view.handle, &view.csrf, "ann", browser, answer, &shown)
    }

    /// Runs a client flow up to where the person's browser is opened.
    pub(crate) fn until_browser(
        &mut self,
        mut turn: ClientTurn,
    ) -> Result<(String, ClientFlow), (Error, ClientFlow)> {
        loop {
            self.see(&turn);
            if let Some(error) = turn.error {
                return Err((error, turn.flow));
            }
            let input = match (turn.action, &turn.flow) {
                (Some(ClientAction::OpenUserAgent(open)), _) => {
                    return Ok((open.url().to_owned(), turn.flow));
                }
                (Some(ClientAction::Fetch(fetch)), _) => ClientInput::Fetched(self.fetch(fetch)),
                (None, ClientFlow::ChoosingIssuer(state)) => {
                    let resource = state.resource_matched().resource().clone();
                    let issuer = state.issuers()[0].clone();
                    // The person of this world knows whose resources these are.
                    let word = IssuerForResource::assertion(resource, issuer.clone());
                    ClientInput::Choose(issuer, Some(word))
                }
                (None, ClientFlow::ChoosingIdentity(state)) => ClientInput::Identify(state.identities()[0]),
                (None, ClientFlow::Ready(_)) => {
                    ClientInput::Begin(ScopeSet::new(), AgentBinding::this_process())
                }
                (action, flow) => panic!("stuck: {action:?} {flow:?}"),
            };
            turn = turn.flow.advance(input, self.now, &mut self.entropy).unwrap();
        }
    }

    /// The browser arrives at the client's redirect URI; the flow goes on to a session.
    pub(crate) fn arrive(&mut self, flow: ClientFlow, url: &str) -> ClientTurn {
        let callback = Box::new(Callback::from_url(url).unwrap());
        self.see(&callback);
        self.secrets.extend(parameter(url, "code"));
        let input = ClientInput::Callback(callback, AgentBinding::this_process());
        let turn = flow.advance(input, self.now, &mut self.entropy).unwrap();
        self.settle(turn)
    }

    /// Carries out fetches and persists until there is nothing to carry out.
    pub(crate) fn settle(&mut self, mut turn: ClientTurn) -> ClientTurn {
        loop {
            self.see(&turn);
            let input = match turn.action.take() {
                None | Some(ClientAction::Release(_)) => return turn,
                Some(ClientAction::Fetch(fetch)) => ClientInput::Fetched(self.fetch(fetch)),
                Some(ClientAction::Persist(persist)) => ClientInput::Persisted(persist.kept_in_memory()),
                Some(ClientAction::Claim(claim)) => ClientInput::Claimed(claim.alone()),
                Some(ClientAction::Commit(commit)) => ClientInput::Committed(commit.kept_in_memory()),
                Some(ClientAction::Discard(discard)) => ClientInput::Discarded(discard.discarded()),
                Some(other) => panic!("not to be carried out here: {other:?}"),
            };
            turn = turn.flow.advance(input, self.now, &mut self.entropy).unwrap();
        }
    }

    /// The browser's part between two halves of a client flow.
    pub(crate) fn through_browser(&mut self, url: &str, flow: ClientFlow, answer: &Answer) -> ClientTurn {
        match self.visit(url, answer) {
            Seen::Returned(url) => self.arrive(flow, &url),
            Seen::Page(status) => panic!("the person sees an error page: {status}"),
        }
    }

    /// From a 401 to a session.
    pub(crate) fn authorize(&mut self, client: &Client, url: &'static str) -> Session {
        let reply = self.unauthorized(url);
        let server = ResourceId::from_server_url(url).unwrap();
        let turn = ClientFlow::challenged(client, &server, &reply).unwrap();
        let (opened, flow) = self.until_browser(turn).unwrap();
        let turn = self.through_browser(&opened, flow, &Answer::Approve);
        session(turn)
    }

    /// As [`World::authorize`], stopped where the browser is opened.
    pub(crate) fn begin(&mut self, client: &Client, url: &'static str) -> (String, ClientFlow) {
        let reply = self.unauthorized(url);
        let server = ResourceId::from_server_url(url).unwrap();
        let turn = ClientFlow::challenged(client, &server, &reply).unwrap();
        self.until_browser(turn).unwrap()
    }
}

#[derive(Debug)]
pub(crate) enum Ran {
    End(ServerEnd),
    Wait(ServerFlow),
}

pub(crate) fn session(turn: ClientTurn) -> Session {
    match (turn.error, turn.flow) {
        (None, ClientFlow::Session(session)) => session,
        (error, flow) => panic!("no session: {error:?} {flow:?}"),
    }
}

fn seen(end: ServerEnd) -> Seen {
    match end {
        ServerEnd::Redirect(redirect) => {
            let url = redirect.location().to_owned();
            let respond = redirect.respond();
            // I-R8
            assert_eq!((respond.status(), respond.header("location")), (303, Some(url.as_str())));
            Seen::Returned(url)
        }
        ServerEnd::Refusal(refusal) => {
            let respond = refusal.respond();
            assert_eq!(respond.header("location"), None);
            Seen::Page(respond.status())
        }
        other => panic!("neither redirect nor page: {other:?}"),
    }
}

pub(crate) fn reply(respond: Respond) -> Reply {
    let headers: Vec<_> = respond.headers().map(|(name, value)| (name, value.to_owned())).collect();
    let reply = Reply::new(respond.status(), respond.body());
    headers.into_iter().fold(reply, |reply, (name, value)| reply.with_header(name, value.as_bytes()))
}

pub(crate) fn parameter(url: &str, name: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    form::Form::parse(query.as_bytes()).unwrap().get(name).map(str::to_owned)
}

/// The URL with one parameter replaced.
pub(crate) fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let (base, query) = url.split_once('?').unwrap();
    let form = form::Form::parse(query.as_bytes()).unwrap();
    let mut pairs: Vec<(String, String)> = form
        .names()
        .filter(|known| *known != name)
        .map(|known| (known.to_owned(), form.get(known).unwrap_or_default().to_owned()))
        .collect();
    pairs.push((name.to_owned(), value.to_owned()));
    format!("{base}?{}", form::encode(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
}
