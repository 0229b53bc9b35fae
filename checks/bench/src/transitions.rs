//! One authorization from the query of the authorization request to a refreshed token, without HTTP and without
//! signatures: by the core's machines over the store in memory, and by `oxide-auth` over its maps in memory.
//!
//! Both sides begin at the same text and end with the same kind of text: a query or a form's body in, the URL of the
//! redirect or the JSON of the answer out. The client is public and has one exact redirect URI, the code challenge is
//! S256, codes and tokens are 32 random bytes in base64, a refresh replaces both tokens.

use std::collections::HashMap;

mod ours;
mod oxide;

pub use ours::{AtOnce, Ours, Wait, bounds};
pub use oxide::Oxide;

/// The query of every authorization request.
pub const QUERY: &str = "response_type=code&client_id=editor&redirect_uri=https%3A%2F%2Feditor.example%2Fcallback\
    &scope=notes%3Aread+notes%3Awrite&state=af0ifjsldkj4Tz0s8sXw3Q&resource=https%3A%2F%2Fmcp.example%2Fnotes\
    &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CLIENT: &str = "editor";
const REDIRECT_URI: &str = "https://editor.example/callback";
const RESOURCE: &str = "https://mcp.example/notes";
const SCOPES: &str = "notes:read notes:write";
const PERSON: &str = "ann";

/// A server under measurement.
pub trait Server {
    /// What the consent page's form brings back.
    type Page;
    /// The authorization request, up to what the person is asked.
    fn authorize(&mut self, query: &str) -> Self::Page;
    /// The person approves: the URL that the browser is sent to.
    fn approve(&mut self, page: Self::Page) -> String;
    /// The code for tokens: the JSON of the answer.
    fn redeem(&mut self, body: &str) -> String;
    /// The refresh token for new tokens: the JSON of the answer.
    fn refresh(&mut self, body: &str) -> String;
}

/// The steps of a flow, in their order.
pub const STEPS: [&str; 4] = ["authorize", "decide", "token", "refresh"];

/// Runs so many flows step by step, and tells how long each step took for all of them, in nanoseconds.
pub fn run<S: Server>(server: &mut S, flows: usize) -> [f64; 4] {
    let mut times = [0.0; 4];
    let mut step = 0;
    run_measured(server, flows, &mut |work| {
        let start = std::time::Instant::now();
        work();
        times[step] = start.elapsed().as_secs_f64() * 1e9;
        step += 1;
    });
    times
}

/// Runs so many flows step by step, each step of all of them through `measure`.
///
/// What the client does between two steps is outside of it.
pub fn run_measured<S: Server>(server: &mut S, flows: usize, measure: &mut dyn FnMut(&mut dyn FnMut())) {
    let queries = vec![QUERY; flows];
    let pages = step(queries, measure, |query| server.authorize(query));
    let redirects = step(pages, measure, |page| server.approve(page));
    let bodies: Vec<String> = redirects.iter().map(|url| token_body(url)).collect();
    let answers = step(bodies, measure, |body| server.redeem(&body));
    let bodies: Vec<String> = answers.iter().map(|answer| refresh_body(answer)).collect();
    let answers = step(bodies, measure, |body| server.refresh(&body));
    for answer in &answers {
        assert!(member(answer, "refresh_token").len() >= 43 && member(answer, "access_token").len() >= 43);
    }
}

fn step<I, O>(
    inputs: Vec<I>,
    measure: &mut dyn FnMut(&mut dyn FnMut()),
    mut one: impl FnMut(I) -> O,
) -> Vec<O> {
    let mut outputs = Vec::with_capacity(inputs.len());
    let mut inputs = inputs.into_iter();
    measure(&mut || outputs.extend(inputs.by_ref().map(&mut one)));
    outputs
}

fn token_body(redirect: &str) -> String {
    let (target, query) = redirect.split_once('?').unwrap();
    assert_eq!(target, REDIRECT_URI);
    let pairs: HashMap<String, String> = serde_urlencoded::from_str(query).unwrap();
    assert_eq!(pairs["state"], "af0ifjsldkj4Tz0s8sXw3Q");
    form(&[
        ("grant_type", "authorization_code"),
        ("client_id", CLIENT),
        ("code", &pairs["code"]),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", VERIFIER),
        ("resource", RESOURCE),
    ])
}

fn refresh_body(answer: &str) -> String {
    form(&[
        ("grant_type", "refresh_token"),
        ("client_id", CLIENT),
        ("refresh_token", &member(answer, "refresh_token")),
        ("resource", RESOURCE),
    ])
}

fn form(pairs: &[(&str, &str)]) -> String {
    serde_urlencoded::to_string(pairs).unwrap()
}

fn member(answer: &str, name: &str) -> String {
    let answer: HashMap<String, serde_json::Value> = serde_json::from_str(answer).unwrap();
    answer[name].as_str().unwrap().to_owned()
}
