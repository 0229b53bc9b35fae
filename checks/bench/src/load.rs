//! Whole flows over HTTP, each an authorization request, a code for tokens and a refresh, on so many connections at once. One
//! thread serves all of them, because it shares the processors with the server that is measured.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::http::{Answer, Connection};

/// Where the server is to send the person back to.
pub const CALLBACK: &str = "http://127.0.0.1:9/callback";
const QUERY: &str = "response_type=code&client_id=editor&redirect_uri=http%3A%2F%2F127.0.0.1%3A9%2Fcallback&scope=mcp\
    &state=af0ifjsldkj4Tz0s8sXw3Q&resource=http%3A%2F%2F127.0.0.1%3A8%2Fmcp\
    &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// Of a flow of somebody who is signed in.
const ANSWERS: f64 = 3.0;

/// How long a server may say nothing at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// Flows a second over so many connections.
pub fn measure(port: u16, authorization_path: &str, connections: usize, time: Duration) -> f64 {
    let mut poll = Poll::new().unwrap();
    let mut all: Vec<Flows> = (0..connections).map(|_| Flows::new(port, authorization_path)).collect();
    for (at, flows) in all.iter_mut().enumerate() {
        poll.registry().register(flows.connection.source(), Token(at), Interest::READABLE).unwrap();
    }
    // The first one on each signs the person in.
    run(&mut poll, &mut all, Duration::ZERO);
    // What is under way at the end counts as far as it has come: a slow server has as much of it as a quick one.
    f64::from(run(&mut poll, &mut all, time)) / ANSWERS / time.as_secs_f64()
}

/// Begins flows on all of them for so long, at least one on each, and goes on until the last has ended. Tells how many answers
/// came in time.
fn run(poll: &mut Poll, all: &mut [Flows], time: Duration) -> u32 {
    let end = Instant::now() + time;
    let (mut done, mut under_way) = (0, all.len());
    all.iter_mut().for_each(Flows::begin);
    let mut events = Events::with_capacity(all.len());
    while under_way > 0 {
        match poll.poll(&mut events, Some(PATIENCE)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled.unwrap(),
        }
        assert!(!events.is_empty(), "no answer in {PATIENCE:?}");
        for event in &events {
            let flows = &mut all[event.token().0];
            let Some(was_last) = flows.proceed() else { continue };
            let in_time = Instant::now() < end;
            done += u32::from(in_time);
            match was_last {
                true if in_time => flows.begin(),
                true => under_way -= 1,
                false => {}
            }
        }
    }
    done
}

/// One connection, and where it is in its flow.
struct Flows {
    connection: Connection,
    authorize: String,
    awaits: Awaits,
}

/// What the next answer brings.
enum Awaits {
    Code,
    Tokens,
    Refreshed,
}

impl Flows {
    fn new(port: u16, authorization_path: &str) -> Self {
        let authorize = format!("{authorization_path}?{QUERY}");
        Self { connection: Connection::open(port).unwrap(), authorize, awaits: Awaits::Code }
    }

    fn begin(&mut self) {
        self.awaits = Awaits::Code;
        self.connection.get(&self.authorize);
    }

    /// Does what follows from an answer, if one has come, and tells whether that was the last of a flow.
    fn proceed(&mut self) -> Option<bool> {
        let answer = self.connection.receive()?;
        Some(match self.awaits {
            Awaits::Code => {
                let Some(location) = &answer.location else { panic!("{} {}", answer.status, answer.body) };
                if !location.starts_with(CALLBACK) {
                    // Only the first time: signing in.
                    let path = location.find("://").map_or(location.as_str(), |at| {
                        let rest = &location[at + 3..];
                        &rest[rest.find('/').unwrap()..]
                    });
                    self.connection.get(path);
                    return Some(false);
                }
                let (_, rest) = location.split_once("code=").unwrap_or_else(|| panic!("{location}"));
                let code = rest.split('&').next().unwrap();
                let form = format!(
                    "grant_type=authorization_code&client_id=editor&code={code}&code_verifier={VERIFIER}\
                     &redirect_uri=http%3A%2F%2F127.0.0.1%3A9%2Fcallback"
                );
                self.connection.post("/token", &form);
                self.awaits = Awaits::Tokens;
                false
            }
            Awaits::Tokens => {
                let token = refresh_token(&answer);
                let form = format!("grant_type=refresh_token&client_id=editor&refresh_token={token}");
                self.connection.post("/token", &form);
                self.awaits = Awaits::Refreshed;
                false
            }
            Awaits::Refreshed => {
                refresh_token(&answer);
                true
            }
        })
    }
}

fn refresh_token(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.contains("\"access_token\":\"ey"), "a signed access token: {}", answer.body);
    let (_, rest) = answer.body.split_once("\"refresh_token\":\"").unwrap();
    rest.split('"').next().unwrap()
}
