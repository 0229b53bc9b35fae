//! The authorization server through its driver, with a store in memory: whatever is asked in whatever order, a code
//! gives tokens once, a family has one live leaf, a refusal changes nothing, and a browser goes back to the client only.

use std::collections::{BTreeMap, BTreeSet};

use mcp_authz::authorization_server::record::FamilyId;
use mcp_authz::authorization_server::{
    AuthorizationServer, Configuration, KnownResource, RegistrationPolicy,
};
use mcp_authz::entropy::{Entropy, EntropyUnavailable};
use mcp_authz::evidence::{Approval, Authentication};
use mcp_authz::flow::{ServerAction, ServerEnd, ServerFlow, ServerInput, ServerTurn};
use mcp_authz::identifier::{Issuer, ResourceId, Scope, ScopeSet};
use mcp_authz::jose::{Algorithm, SigningKeyId};
use mcp_authz::message::client_metadata::RegistrationReply;
use mcp_authz::message::exchange::{RequestHead, Respond};
use mcp_authz::message::token::{Grant, TokenReply};
use mcp_authz::secret::AgentBinding;
use mcp_authz::syntax::form::{self, Form};
use mcp_authz::time::{Duration, OffsetDateTime};

use crate::choices::Choices;
use crate::store::Store;

const RESOURCE: &str = "https://mcp.example/notes";
const REDIRECT: &str = "https://app.example/callback";
/// Verifier and challenge of RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

struct Counter(u64);

impl Entropy for Counter {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyUnavailable> {
        for byte in buffer {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = u8::try_from(self.0 >> 56).unwrap_or_default();
        }
        Ok(())
    }
}

struct World {
    server: AuthorizationServer,
    store: Store,
    entropy: Counter,
    client_id: String,
    handles: Vec<(String, String)>,
    codes: Vec<String>,
    refresh: Vec<String>,
    /// Token answers by code: never more than one (I-C1).
    redeemed: BTreeMap<String, u32>,
    /// Refresh tokens by how often they gave a successor: never more than once (I-T1).
    rotated: BTreeMap<String, u32>,
    /// The families whose code came back, genuine: none of them may live (I-C3).
    replayed: BTreeSet<FamilyId>,
    /// The family of a code that was redeemed.
    families: BTreeMap<String, FamilyId>,
}

/// Any sequence of requests: no panic, and I-C1, I-C3, I-C4, I-R1, I-R5, I-R8, I-T1, I-G9.
pub fn server_flow(data: &[u8]) {
    run(data);
}

/// Any body at the token endpoint, as the server reads it; behind a `+`, from a client that is registered: no panic, no
/// grant that nobody asked for by its name, no tokens, and nothing changes.
pub fn token(data: &[u8]) {
    let mut world = World::new();
    let body = match data.split_first() {
        Some((b'+', rest)) => [format!("client_id={}&", world.client_id).as_bytes(), rest].concat(),
        _ => data.to_vec(),
    };
    let head =
        RequestHead::new("POST", "/token").with_header("content-type", b"application/x-www-form-urlencoded");
    let grant = Form::parse(&body).ok().and_then(|form| Grant::from_form(&form).ok());
    let is_served = matches!(grant, Some(Grant::AuthorizationCode(_) | Grant::RefreshToken(_)));
    match world.server.token(&head, &body) {
        Ok(_) => assert!(is_served, "a grant that this server does not have"),
        Err(failure) => assert!((400..500).contains(&failure.respond().status())),
    }
    let before = world.store.credentials();
    let turn = ServerFlow::token(&world.server.clone(), &head, &body);
    let Some(ServerEnd::Respond(answer)) = world.run(turn, false) else { panic!("no answer") };
    assert!((400..500).contains(&answer.status()), "{}", answer.status());
    assert!(!matches!(TokenReply::parse(answer.status(), answer.body()), Ok(TokenReply::Tokens(_))));
    assert!(before == world.store.credentials(), "what nobody was granted changed something");
}

/// Runs the requests; gives back how many codes and how many refresh tokens were used.
fn run(data: &[u8]) -> (usize, usize) {
    let mut choices = Choices::new(data);
    let mut world = World::new();
    for _ in 0..96 {
        let Some(operation) = choices.byte() else { break };
        match operation % 8 {
            0 | 1 => world.authorize(&mut choices),
            2 => world.decide(&mut choices),
            3 | 4 => world.redeem(&mut choices),
            5 => world.rotate(&mut choices),
            6 => world.revoke(&mut choices),
            _ => {
                world.store.pass(Duration::seconds(i64::from(choices.byte().unwrap_or(0)) * 3));
                let (server, body) = (world.server.clone(), choices.text());
                let turn = ServerFlow::register(
                    &server,
                    &RequestHead::new("POST", "/register"),
                    body.as_bytes(),
                    world.store.now(),
                    &mut world.entropy,
                );
                let _ = world.run(turn, false);
            }
        }
        world.holds();
    }
    (world.redeemed.len(), world.rotated.len())
}

impl World {
    fn new() -> Self {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let scopes = ["read", "write"].map(|scope| (Scope::new(scope).expect("a scope"), scope.to_owned()));
        let resource = KnownResource::new(ResourceId::new(RESOURCE).expect("a resource"), scopes);
        let issuer = Issuer::new("https://as.example").expect("an issuer");
        let key = SigningKeyId::new("k1", Algorithm::EdDsa);
        let configuration =
            Configuration::new(issuer, vec![resource], key).registration(RegistrationPolicy::Open);
        let mut world = Self {
            server: AuthorizationServer::new(configuration).expect("a configuration"),
            store: Store::new(now),
            entropy: Counter(11),
            client_id: String::new(),
            handles: Vec::new(),
            codes: Vec::new(),
            refresh: Vec::new(),
            redeemed: BTreeMap::new(),
            rotated: BTreeMap::new(),
            replayed: BTreeSet::new(),
            families: BTreeMap::new(),
        };
        let body = format!(
            "{{\"redirect_uris\":[\"{REDIRECT}\"],\"token_endpoint_auth_method\":\"none\",\"client_name\":\"Fuzz\",\
             \"grant_types\":[\"authorization_code\",\"refresh_token\"]}}"
        );
        let server = world.server.clone();
        let turn = ServerFlow::register(
            &server,
            &RequestHead::new("POST", "/register"),
            body.as_bytes(),
            now,
            &mut world.entropy,
        );
        let Some(ServerEnd::Respond(answer)) = world.run(turn, false) else { panic!("no registration") };
        let Ok(RegistrationReply::Registered(client)) =
            RegistrationReply::parse(answer.status(), answer.body())
        else {
            panic!("not registered")
        };
        world.client_id = client.client_id.as_str().to_owned();
        world
    }

    /// Runs a flow to its end. With `failing`, the store fails instead of its first action.
    fn run(&mut self, mut turn: ServerTurn, mut failing: bool) -> Option<ServerEnd> {
        let now = self.store.now();
        loop {
            let (action, flow) = match turn {
                ServerTurn::End(end) => return Some(end),
                ServerTurn::Wait(flow) => {
                    let person = Authentication::assertion("ann", agent(), now)?;
                    let Ok(next) = flow.advance(ServerInput::Person(person), now, &mut self.entropy) else {
                        return None;
                    };
                    turn = next;
                    continue;
                }
                ServerTurn::Act(action, flow) => (action, flow),
            };
            let input = match action {
                _ if std::mem::take(&mut failing) => ServerInput::Failed,
                ServerAction::FindClient(action) => ServerInput::ClientFound(self.store.find_client(action)),
                ServerAction::InsertClient(action) => {
                    ServerInput::ClientInserted(self.store.insert_client(*action))
                }
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
                ServerAction::Sign(action) => match action.signed([7; 64]) {
                    Ok(signed) => ServerInput::Signed(signed),
                    Err(_) => return None,
                },
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
                _ => return None,
            };
            match flow.advance(input, now, &mut self.entropy) {
                Ok(next) => turn = next,
                Err(_) => return None,
            }
        }
    }

    fn authorize(&mut self, choices: &mut Choices<'_>) {
        let mut pairs: Vec<(&str, String)> = vec![
            ("response_type", "code".into()),
            ("client_id", self.client_id.clone()),
            ("redirect_uri", REDIRECT.into()),
            ("code_challenge", CHALLENGE.into()),
            ("code_challenge_method", "S256".into()),
            ("scope", "read write".into()),
            ("state", "s".into()),
            ("resource", RESOURCE.into()),
        ];
        let at = usize::from(choices.byte().unwrap_or(0)) % 16;
        let wrong = at < pairs.len();
        if wrong {
            let other = choices.text();
            pairs[at].1 = (*choices.of(&[
                other.as_str(),
                "",
                "plain",
                "https://app.example/callback/",
                "https://evil.example/",
            ]))
            .to_owned();
        }
        // I-R5: where nobody is known to send the browser back to, a second fault changes nothing.
        let nobody = match at {
            1 => pairs[1].1 != self.client_id,
            2 => !pairs[2].1.is_empty() && pairs[2].1 != REDIRECT,
            _ => false,
        };
        if nobody {
            let second = usize::from(choices.byte().unwrap_or(0)) % pairs.len();
            if !(1..=2).contains(&second) {
                pairs[second].1 = (*choices.of(&["", "plain", "token", "none"])).to_owned();
            }
        }
        let query = form::encode(pairs.iter().map(|(name, value)| (*name, value.as_str())));
        let turn = ServerFlow::authorize(&self.server.clone(), &query);
        match self.run(turn, false) {
            Some(ServerEnd::Consent(_) | ServerEnd::Redirect(_)) if nobody => {
                panic!("a page or a redirect for nobody")
            }
            Some(ServerEnd::Consent(view)) => self.handles.push((view.handle.clone(), view.csrf.clone())),
            Some(ServerEnd::Redirect(redirect)) => check_redirect(redirect.location(), false),
            Some(ServerEnd::Refusal(refusal)) => assert!(refusal.respond().header("location").is_none()),
            _ => {}
        }
    }

    fn decide(&mut self, choices: &mut Choices<'_>) {
        let Some((handle, csrf)) =
            self.handles.get(usize::from(choices.byte().unwrap_or(0)) % self.handles.len().max(1)).cloned()
        else {
            return;
        };
        let now = self.store.now();
        let ServerTurn::Act(ServerAction::ReadDecision(read), flow) =
            ServerFlow::decide(&self.server.clone(), &handle)
        else {
            return;
        };
        let found = self.store.read_decision(read);
        let Ok(ServerTurn::Wait(flow)) =
            flow.advance(ServerInput::DecisionFound(found), now, &mut self.entropy)
        else {
            return;
        };
        let bits = choices.byte().unwrap_or(0);
        let genuine = bits & 7 == 0 || bits & 7 > 3;
        let subject = if bits & 7 == 1 { "bob" } else { "ann" };
        let browser = if bits & 7 == 2 { AgentBinding::this_process() } else { agent() };
        let csrf = if bits & 7 == 3 { "guess".to_owned() } else { csrf };
        let scopes =
            ScopeSet::parse(choices.of::<&str>(&["read", "read write", "read write admin"])).expect("scopes");
        let within = !scopes.contains_str("admin");
        let input = if bits & 8 == 0 {
            ServerInput::Approve(Approval::assertion(subject, browser, scopes), csrf)
        } else {
            ServerInput::Deny(subject.to_owned(), browser, csrf)
        };
        let Ok(turn) = flow.advance(input, now, &mut self.entropy) else { return };
        if let Some(ServerEnd::Redirect(redirect)) = self.run(turn, false) {
            assert!(genuine && (within || bits & 8 != 0), "somebody else's answer was taken");
            check_redirect(redirect.location(), bits & 8 == 0);
            let parsed = url::Url::parse(redirect.location()).expect("a URL");
            if let Some((_, code)) = parsed.query_pairs().find(|(name, _)| name == "code") {
                self.codes.push(code.into_owned());
            }
        }
    }

    fn token(&mut self, pairs: &[(&str, &str)], failing: bool) -> Respond {
        let body = form::encode(pairs.iter().copied());
        let head = RequestHead::new("POST", "/token")
            .with_header("content-type", b"application/x-www-form-urlencoded");
        let before = self.store.credentials();
        let turn = ServerFlow::token(&self.server.clone(), &head, body.as_bytes());
        let Some(ServerEnd::Respond(answer)) = self.run(turn, failing) else { panic!("no answer") };
        if failing {
            // I-G9
            assert_eq!(answer.status(), 503, "a failing store was taken for success");
            assert!(before == self.store.credentials(), "a failing store changed something");
        }
        answer
    }

    fn redeem(&mut self, choices: &mut Choices<'_>) {
        let Some(code) =
            self.codes.get(usize::from(choices.byte().unwrap_or(0)) % self.codes.len().max(1)).cloned()
        else {
            return;
        };
        let bits = choices.byte().unwrap_or(0) % 16;
        let client = if bits == 1 { "somebody-else".to_owned() } else { self.client_id.clone() };
        let verifier = if bits == 2 { "x".repeat(43) } else { VERIFIER.to_owned() };
        let redirect = if bits == 3 { "https://app.example/other" } else { REDIRECT };
        let resource = if bits == 4 { "https://mcp.example/mail" } else { RESOURCE };
        let genuine = !(1..=3).contains(&bits);
        let before = self.store.credentials();
        let known = self.store.families();
        let answer = self.token(
            &[
                ("grant_type", "authorization_code"),
                ("client_id", &client),
                ("code", &code),
                ("code_verifier", &verifier),
                ("redirect_uri", redirect),
                ("resource", resource),
            ],
            bits == 5,
        );
        match TokenReply::parse(answer.status(), answer.body()) {
            Ok(TokenReply::Tokens(tokens)) => {
                assert!(genuine && bits != 4, "tokens for somebody else, or for another resource");
                let new = self.store.families().into_iter().find(|family| !known.contains(family));
                self.families.extend(new.map(|family| (code.clone(), family)));
                *self.redeemed.entry(code).or_default() += 1;
                self.refresh.extend(tokens.refresh_token.map(|token| token.expose().to_owned()));
            }
            // I-C3 (b), I-C4: who cannot prove that the code is theirs changes nothing.
            // I-C3 (a)
            _ if genuine && bits != 5 && self.redeemed.contains_key(&code) => {
                self.replayed.extend(self.families.get(&code));
            }
            _ if !genuine => assert!(before == self.store.credentials(), "a stranger changed something"),
            _ => {}
        }
    }

    fn rotate(&mut self, choices: &mut Choices<'_>) {
        let Some(token) =
            self.refresh.get(usize::from(choices.byte().unwrap_or(0)) % self.refresh.len().max(1)).cloned()
        else {
            return;
        };
        let bits = choices.byte().unwrap_or(0) % 8;
        let client = if bits == 1 { "somebody-else".to_owned() } else { self.client_id.clone() };
        let mut pairs =
            vec![("grant_type", "refresh_token"), ("client_id", &client), ("refresh_token", &token)];
        if bits == 2 {
            pairs.push(("scope", "read write admin"));
        }
        let answer = self.token(&pairs, bits == 3);
        if let Ok(TokenReply::Tokens(tokens)) = TokenReply::parse(answer.status(), answer.body()) {
            assert!(bits != 1 && bits != 2, "more than was granted, or to somebody else");
            *self.rotated.entry(token).or_default() += 1;
            self.refresh.extend(tokens.refresh_token.map(|token| token.expose().to_owned()));
        }
    }

    fn revoke(&mut self, choices: &mut Choices<'_>) {
        let Some(token) =
            self.refresh.get(usize::from(choices.byte().unwrap_or(0)) % self.refresh.len().max(1)).cloned()
        else {
            return;
        };
        let client = if choices.byte().unwrap_or(0).is_multiple_of(2) {
            self.client_id.clone()
        } else {
            "somebody-else".into()
        };
        let before = self.store.credentials();
        let body = form::encode([("token", token.as_str()), ("client_id", client.as_str())]);
        let head = RequestHead::new("POST", "/revoke")
            .with_header("content-type", b"application/x-www-form-urlencoded");
        let turn = ServerFlow::revoke(&self.server.clone(), &head, body.as_bytes());
        let _ = self.run(turn, false);
        // I-T8
        assert!(client == self.client_id || before == self.store.credentials(), "somebody else revoked");
    }

    fn holds(&self) {
        assert!(self.redeemed.values().all(|count| *count <= 1), "a code gave tokens twice");
        assert!(self.rotated.values().all(|count| *count <= 1), "a refresh token gave two successors");
        for family in &self.replayed {
            assert_eq!(self.store.live_leaves(*family), 0, "a family outlives the replay of its code");
        }
        for family in self.store.families() {
            assert!(self.store.live_leaves(family) <= 1, "two live leaves in a family");
        }
    }
}

fn agent() -> AgentBinding {
    AgentBinding::session(b"the browser of ann").expect("long enough")
}

fn check_redirect(location: &str, approved: bool) {
    // I-R1, I-R6, I-R7
    assert!(location.starts_with(&format!("{REDIRECT}?")), "a browser was sent elsewhere");
    let parsed = url::Url::parse(location).expect("a URL");
    let count = |name: &str| parsed.query_pairs().filter(|(known, _)| known == name).count();
    assert_eq!((count("iss"), count("code") + count("error")), (1, 1));
    assert_eq!(count("code") == 1, approved);
}

#[cfg(test)]
mod tests {
    use super::run;

    #[test]
    fn a_seed_redeems_and_rotates() {
        let (redeemed, rotated) = run(include_bytes!("../../corpus/server_flow/happy"));
        assert!(redeemed > 0 && rotated > 0, "{redeemed} {rotated}");
    }
}
