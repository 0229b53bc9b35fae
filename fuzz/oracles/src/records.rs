//! The client's records on their way in: any bytes from a store, and any plaintext under a seal that holds.
//!
//! Whoever can write under the seal can write a session of their own; what they cannot do is come out of it with a flow
//! that makes fewer checks than the one that began at a 401.

use std::cell::RefCell;
use std::sync::LazyLock;

use mcp_authz::client::{
    CallbackOutcome, CallbackRecord, Client, Configuration, EndpointCall, IdentityKind, PreRegistered,
    Provider, Ready, RecordVersion, RegistrationRecord, Session, SessionRecord, SignInOutcome, SignInRecord,
    StepUp, StepUpJoin, StepUpRecord,
};
use mcp_authz::evidence::IssuerForResource;
use mcp_authz::flow::{ClientAction, ClientFlow, ClientInput, ClientTurn};
use mcp_authz::identifier::{ClientId, Issuer, RedirectUri, ResourceId, ScopeSet};
use mcp_authz::message::authorization::Callback;
use mcp_authz::message::exchange::{AddressPolicy, FetchPurpose, Reply};
use mcp_authz::sealer::{Sealer, SealerFailed};
use mcp_authz::secret::AgentBinding;
use mcp_authz::time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use crate::choices::Choices;
use crate::client_flow::{Counter, check_opened};

const SERVER: &str = "https://mcp.example/notes";
const ISSUER: &str = "https://as.example";
const REDIRECT: &str = "http://127.0.0.1:4711/callback";
const SIGN_IN: &str = "https://host.example/sign-in/op";
const VERSION: RecordVersion = RecordVersion::new(1);

/// What a mutation puts into a record.
const WORDS: [&str; 16] = [
    "",
    "\"\"",
    "null",
    "[]",
    "https://evil.example",
    "https://mcp.example",
    "https://as.example/",
    "http://127.0.0.1:1/x",
    "https://10.0.0.1/",
    "http://localhost:4711/callback",
    "com.evil.app:/cb",
    "read write admin",
    "plain",
    "99999999999",
    "\\\"code_challenge_methods_supported\\\":[\\\"plain\\\"],",
    "\"challenge\":{},",
];

/// Seals by handing the plaintext over, and opens to whatever it was told.
#[derive(Default)]
struct Opens(RefCell<Vec<u8>>);

impl Sealer for Opens {
    fn seal(&self, _: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealerFailed> {
        self.0.replace(plaintext.to_vec());
        Ok(b"sealed".to_vec())
    }

    fn open(&self, _: &[u8], _: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealerFailed> {
        Ok(Zeroizing::new(self.0.borrow().clone()))
    }
}

/// The stored form and the plaintext of one genuine record of each kind.
struct Genuine {
    callback: (Vec<u8>, Vec<u8>),
    session: (Vec<u8>, Vec<u8>),
    registration: (Vec<u8>, Vec<u8>),
    step_up: (Vec<u8>, Vec<u8>),
    sign_in: (Vec<u8>, Vec<u8>),
    /// The `state` of the sign-in.
    state: String,
}

static GENUINE: LazyLock<Genuine> = LazyLock::new(genuine);

fn now() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::days(20_000)
}

fn client() -> Client {
    Client::new(Configuration::new("Fuzz", RedirectUri::new(REDIRECT).expect("a redirect URI")))
        .expect("no identities")
}

fn json(status: u16, body: &str) -> Reply {
    Reply::new(status, body).with_header("content-type", b"application/json")
}

/// Answers every fetch as an honest server does, until the flow waits for somebody else.
fn fetched(mut turn: ClientTurn, entropy: &mut Counter) -> ClientTurn {
    while let Some(ClientAction::Fetch(fetch)) = turn.action {
        let reply = match fetch.purpose() {
            FetchPurpose::ProtectedResourceMetadata => json(
                200,
                r#"{"resource":"https://mcp.example/notes","authorization_servers":["https://as.example"]}"#,
            ),
            FetchPurpose::AuthorizationServerMetadata => json(
                200,
                r#"{"issuer":"https://as.example","authorization_endpoint":"https://as.example/a","token_endpoint":"https://as.example/t","registration_endpoint":"https://as.example/r","response_types_supported":["code"],"code_challenge_methods_supported":["S256"],"authorization_response_iss_parameter_supported":true}"#,
            ),
            FetchPurpose::Registration => json(201, r#"{"client_id":"c1"}"#),
            _ => json(
                200,
                r#"{"access_token":"at","token_type":"Bearer","expires_in":60,"refresh_token":"rt","scope":"read"}"#,
            ),
        };
        turn = turn.flow.advance(ClientInput::Fetched(Ok(reply)), now(), entropy).expect("in turn");
        turn = match turn.flow {
            ClientFlow::ChoosingIssuer(state) => {
                let issuer = state.issuers()[0].clone();
                let resource = state.resource_matched().resource().clone();
                let word = IssuerForResource::assertion(resource, issuer.clone());
                let flow = ClientFlow::ChoosingIssuer(state);
                flow.advance(ClientInput::Choose(issuer, Some(word)), now(), entropy).expect("in turn")
            }
            ClientFlow::ChoosingIdentity(state) => ClientFlow::ChoosingIdentity(state)
                .advance(ClientInput::Identify(IdentityKind::Registered), now(), entropy)
                .expect("in turn"),
            flow => ClientTurn { flow, ..turn },
        };
    }
    turn
}

fn ready(entropy: &mut Counter) -> Ready {
    let server = ResourceId::new(SERVER).expect("a resource");
    let challenge = Reply::new(401, "").with_header("www-authenticate", b"Bearer scope=\"read\"");
    let turn = ClientFlow::challenged(&client(), &server, &challenge).expect("a challenge");
    let ClientFlow::Ready(ready) = fetched(turn, entropy).flow else { panic!("not ready") };
    ready
}

/// The callback record's parts and the session after it.
fn genuine() -> Genuine {
    let (sealer, mut entropy) = (Opens::default(), Counter(7));
    let seen = |bytes: Vec<u8>| (bytes, sealer.0.take());
    let here = AgentBinding::this_process();
    let ready = ready(&mut entropy);
    let record = ready.registration_record(&sealer).expect("a record").expect("a registration");
    let registration = seen(record.to_bytes());
    let begun = ready.begin(&ScopeSet::new(), here, now(), &mut entropy).expect("begun");
    let (open, waiting) = begun.into_parts();
    let callback = seen(waiting.park(&sealer).expect("parked").to_bytes());
    // The same login goes on from its record.
    sealer.0.replace(callback.1.clone());
    let record = CallbackRecord::from_bytes(&callback.0).expect("a record");
    let waiting = record.resume(&client(), &sealer, now()).expect("resumed");
    let url = url::Url::parse(open.url()).expect("a URL");
    let state = url.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned();
    let back = format!("{REDIRECT}?code=c&state={state}&iss=https%3A%2F%2Fas.example");
    let back = Callback::from_url(&back).expect("a callback");
    let input = ClientInput::Callback(Box::new(back), here);
    let turn = ClientFlow::AwaitingCallback(waiting).advance(input, now(), &mut entropy).expect("in turn");
    let turn = fetched(turn, &mut entropy);
    let Some(ClientAction::Persist(persist)) = turn.action else { panic!("nothing to keep") };
    let session = seen(persist.record(&sealer).expect("a record").to_bytes());
    let kept = ClientInput::Persisted(persist.persisted(VERSION));
    let turn = turn.flow.advance(kept, now(), &mut entropy).expect("in turn");
    let ClientFlow::Session(held) = turn.flow else { panic!("no session") };
    let step_up = seen(join(held).joined(None, &sealer).expect("a count").to_bytes());
    let begun = provider(ISSUER).begin(browser(1), now(), &mut entropy).expect("begun");
    let (open, waiting) = begun.into_parts();
    let sign_in = seen(waiting.park(&sealer).expect("parked").to_bytes());
    let url = url::Url::parse(open.url()).expect("a URL");
    let state = url.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned();
    Genuine { callback, session, registration, step_up, sign_in, state }
}

fn browser(n: u8) -> AgentBinding {
    AgentBinding::session(&[n; 32]).expect("a nonce")
}

/// A provider at which people sign in to a web host.
fn provider(issuer: &str) -> Provider {
    let issuer = Issuer::new(issuer).expect("an issuer");
    let redirect = RedirectUri::new(SIGN_IN).expect("a redirect URI");
    let identity =
        PreRegistered::new(issuer.clone(), ClientId::new("host").expect("an id"), redirect.clone(), []);
    let host = Client::new(Configuration::new("Fuzz", redirect).pre_registered(identity)).expect("a client");
    let origin = issuer.as_str();
    let document = format!(
        r#"{{"issuer":"{origin}","authorization_endpoint":"{origin}/a","token_endpoint":"{origin}/t","jwks_uri":"{origin}/j","response_types_supported":["code"],"code_challenge_methods_supported":["S256"],"authorization_response_iss_parameter_supported":true}}"#
    );
    let asked = host.sign_in(&issuer).expect("an identity").into_parts().1;
    asked.receive(Ok(json(200, &document))).expect("a provider")
}

/// How a step-up of that session is counted.
fn join(session: Session) -> StepUpJoin {
    let challenge = b"Bearer error=\"insufficient_scope\", scope=\"write\"";
    let refused = Reply::new(403, "").with_header("www-authenticate", challenge);
    match session.challenged("op", &refused, now()) {
        Ok(StepUp::Count(step)) => step.action().join(),
        other => panic!("{other:?}"),
    }
}

/// Any bytes as a record of each kind, and any plaintext in a genuine one.
pub fn records(data: &[u8]) {
    as_they_come(data);
    let mut choices = Choices::new(data);
    let kind = choices.byte().unwrap_or(0);
    let genuine = &*GENUINE;
    let (bytes, plaintext) = match kind % 4 {
        _ if kind >= 128 => &genuine.sign_in,
        0 => &genuine.callback,
        1 => &genuine.session,
        2 => &genuine.registration,
        _ => &genuine.step_up,
    };
    let plaintext = match kind & 4 {
        0 => mutated(plaintext, &mut choices),
        _ => data.get(1..).unwrap_or_default().to_vec(),
    };
    let sealer = Opens(RefCell::new(plaintext));
    match kind % 4 {
        _ if kind >= 128 => resumed_sign_in(bytes, &sealer),
        0 => resumed_login(bytes, &sealer),
        1 => resumed_session(bytes, &sealer),
        2 => used_registration(bytes, &sealer),
        _ => joined_count(bytes, &sealer),
    }
}

fn as_they_come(data: &[u8]) {
    // I-G1: what is read is written the same way.
    if let Ok(record) = CallbackRecord::from_bytes(data) {
        assert_eq!(CallbackRecord::from_bytes(&record.to_bytes()).as_ref(), Ok(&record));
    }
    if let Ok(record) = SessionRecord::from_bytes(data) {
        assert_eq!(SessionRecord::from_bytes(&record.to_bytes()).as_ref(), Ok(&record));
    }
    if let Ok(record) = RegistrationRecord::from_bytes(data) {
        assert_eq!(RegistrationRecord::from_bytes(&record.to_bytes()).as_ref(), Ok(&record));
    }
    if let Ok(record) = SignInRecord::from_bytes(data) {
        assert_eq!(SignInRecord::from_bytes(&record.to_bytes()).as_ref(), Ok(&record));
    }
    if let Ok(record) = StepUpRecord::from_bytes(data) {
        assert_eq!(StepUpRecord::from_bytes(&record.to_bytes()).as_ref(), Ok(&record));
    }
}

/// The plaintext with words put in the place of some of it.
fn mutated(plaintext: &[u8], choices: &mut Choices<'_>) -> Vec<u8> {
    let mut plaintext = plaintext.to_vec();
    for _ in 0..4 {
        if choices.is_empty() {
            break;
        }
        let mut number =
            || usize::from(choices.byte().unwrap_or(0)) * 256 + usize::from(choices.byte().unwrap_or(0));
        let start = number() % (plaintext.len() + 1);
        let end = (start + number() % 64).min(plaintext.len());
        let word = *choices.of(&WORDS);
        plaintext.splice(start..end, word.bytes());
    }
    plaintext
}

/// What holds of every flow that comes out of a record.
fn check(ready: Ready) {
    assert_eq!(ready.issuer().as_str(), ISSUER, "a record of one issuer came out as another's");
    assert_eq!(ready.resource_matched().resource().as_str(), SERVER);
    let begun = ready.begin(&ScopeSet::new(), AgentBinding::this_process(), now(), &mut Counter(3));
    let Ok(step) = begun else { return };
    let (open, waiting) = step.into_parts();
    check_opened(open.url());
    let redirect = waiting.redirect_uri().as_str();
    let ours = redirect.starts_with("http://127.0.0.1:4711/") || redirect.starts_with("https://");
    assert!(ours || redirect.starts_with("http://[::1]"), "the answer would go to {redirect}");
    let url = url::Url::parse(open.url()).expect("a URL");
    let sent: Vec<_> = url.query_pairs().filter(|(name, _)| name == "resource").collect();
    assert_eq!(sent[0].1, SERVER);
    let host = url.host_str().unwrap_or_default();
    for forbidden in ["127.", "localhost", "10.", "169.254"] {
        assert!(!host.starts_with(forbidden), "the browser is sent into a private range");
    }
}

fn resumed_login(bytes: &[u8], sealer: &Opens) {
    let record = CallbackRecord::from_bytes(bytes).expect("a genuine record");
    let Ok(waiting) = record.resume(&client(), sealer, now()) else { return };
    assert!(waiting.not_after() > now(), "an expired login came back");
    let guess = format!("{}?code=c&state=guess&iss=https%3A%2F%2Fas.example", waiting.redirect_uri());
    let Ok(guess) = Callback::from_url(&guess) else { return };
    let here = AgentBinding::this_process();
    let CallbackOutcome::Unsolicited(waiting) = waiting.receive(guess, &here, now(), &mut Counter(3)) else {
        panic!("a guessed state was taken")
    };
    check(waiting.abandon());
}

fn resumed_sign_in(bytes: &[u8], sealer: &Opens) {
    let back = |provider: &Provider| {
        let record = SignInRecord::from_bytes(bytes).expect("a genuine record");
        record.resume(provider, sealer, now())
    };
    // I-L3: whatever is under the seal, the record is of one provider.
    assert!(back(&provider("https://evil.example")).is_err(), "a sign-in went on at another provider");
    let provider = provider(ISSUER);
    let answered = |agent: u8, place: &str, query: &str| {
        let waiting = back(&provider).ok()?;
        assert!(waiting.not_after() > now(), "an expired sign-in came back");
        let callback = Callback::from_parts(place, query).expect("a callback");
        Some(waiting.receive(callback, &browser(agent), now(), &mut Counter(9)))
    };
    let state = &GENUINE.state;
    let genuine = format!("code=c&state={state}&iss=https%3A%2F%2Fas.example");
    let guess = "code=c&state=guess&iss=https%3A%2F%2Fas.example";
    for (agent, place, query) in
        [(1, SIGN_IN, guess), (2, SIGN_IN, &genuine), (1, "https://host.example/sign-in/other", &genuine)]
    {
        let answer = answered(agent, place, query);
        assert!(
            matches!(answer, None | Some(SignInOutcome::Unsolicited(_))),
            "{agent} {place} {query} counts"
        );
    }
    // MCP-AUTH-039: of another issuer, no code is used.
    let other = format!("code=c&state={state}&iss=https%3A%2F%2Fevil.example");
    assert!(!matches!(answered(1, SIGN_IN, &other), Some(SignInOutcome::Accepted(_))));
    if let Some(SignInOutcome::Accepted(EndpointCall::Fetch(step))) = answered(1, SIGN_IN, &genuine) {
        let fetch = step.action();
        assert_eq!(
            (fetch.url(), fetch.policy().addresses()),
            ("https://as.example/t", AddressPolicy::Public)
        );
    }
}

fn resumed_session(bytes: &[u8], sealer: &Opens) {
    let record = SessionRecord::from_bytes(bytes).expect("a genuine record");
    let Ok(session) = record.resume(&client(), sealer, VERSION) else { return };
    for elsewhere in ["https://evil.example/notes", "http://mcp.example/notes", "https://mcp.example/other"] {
        assert!(session.authorization_for(elsewhere).is_err(), "a token leaves for {elsewhere}");
    }
    let turn = ClientFlow::Session(session).advance(ClientInput::Refresh, now(), &mut Counter(5));
    let Ok(ClientTurn { flow, action: Some(ClientAction::Claim(claim)), .. }) = turn else { return };
    let turn = flow.advance(ClientInput::Claimed(claim.alone()), now(), &mut Counter(6)).expect("in turn");
    if let Some(ClientAction::Fetch(fetch)) = turn.action {
        assert!(fetch.url().starts_with("https://"));
        assert_eq!(fetch.policy().addresses(), AddressPolicy::Public);
    }
    let record = SessionRecord::from_bytes(bytes).expect("a genuine record");
    let session = record.resume(&client(), sealer, VERSION).expect("it did before");
    check(session.into_ready());
}

fn used_registration(bytes: &[u8], sealer: &Opens) {
    let record = RegistrationRecord::from_bytes(bytes).expect("a genuine record");
    let _ = client().callback_paths([&record], sealer);
    let choosing = ready(&mut Counter(7)).choose_identity();
    let Ok(ready) = choosing.registered(&record, sealer, now()) else { return };
    assert_eq!(ready.identity_kind(), IdentityKind::Registered);
    check(ready);
}

fn joined_count(bytes: &[u8], sealer: &Opens) {
    let genuine = Opens(RefCell::new(GENUINE.session.1.clone()));
    let record = SessionRecord::from_bytes(&GENUINE.session.0).expect("a genuine record");
    let session = record.resume(&client(), &genuine, VERSION).expect("a genuine session");
    let join = join(session);
    // D33: whatever lies there, what is put in its place is readable, and no emptier.
    if let Ok(joined) = join.joined(Some(bytes), sealer) {
        let text = String::from_utf8_lossy(&sealer.0.borrow()).into_owned();
        assert!(text.contains("\"operation\":\"op\"") && text.contains("write"));
        let again = join.joined(Some(&joined.to_bytes()), sealer);
        assert!(again.is_err(), "the same step-up was counted twice");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_genuine_records_resume() {
        for kind in [0_u8, 1, 2, 3, 128] {
            records(&[kind]);
        }
        // Not by being refused.
        let sealer = Opens(RefCell::new(GENUINE.sign_in.1.clone()));
        let record = SignInRecord::from_bytes(&GENUINE.sign_in.0).unwrap();
        let waiting = record.resume(&provider(ISSUER), &sealer, now()).unwrap();
        let answer = format!("code=c&state={}&iss=https%3A%2F%2Fas.example", GENUINE.state);
        let answer = Callback::from_parts(SIGN_IN, &answer).unwrap();
        let outcome = waiting.receive(answer, &browser(1), now(), &mut Counter(9));
        assert!(matches!(outcome, SignInOutcome::Accepted(_)), "{outcome:?}");
        let text = String::from_utf8(GENUINE.session.1.clone()).unwrap();
        assert!(text.contains("\"access_token\":\"at\""));
    }
}
