//! Whole flows over HTTP, each an authorization request, a code for tokens and a refresh, as fast as a server answers
//! them over so many connections: `mcp-authz serve` and npm's oidc-provider, each on each store, in turn.
//!
//! `flows TOOL NODE NODE_MODULES SCRIPT [SECONDS [ROUNDS [CONNECTIONS...]]]`

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mcp_authz_bench::http::Connection;
use mcp_authz_bench::postgres::Postgres;

const CALLBACK: &str = "http://127.0.0.1:9/callback";
const QUERY: &str = "response_type=code&client_id=editor&redirect_uri=http%3A%2F%2F127.0.0.1%3A9%2Fcallback&scope=mcp\
    &state=af0ifjsldkj4Tz0s8sXw3Q&resource=http%3A%2F%2F127.0.0.1%3A8%2Fmcp\
    &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

const SETTINGS: &str = "\
[limits]
registrations = 1000000000
authorizations = 1000000000
token_requests = 1000000000
tokens_per_client = 1000000000
pages_per_person = 10000
";

/// Connections above which oidc-provider's store in memory, of a thousand entries, forgets flows before they end.
const REMEMBERED: usize = 64;

/// Where npm's oidc-provider is.
struct Rival<'a> {
    node: &'a str,
    modules: &'a str,
    script: &'a str,
}

/// A server process that ends with its guard.
struct Server {
    child: Child,
    port: u16,
    authorization_path: &'static str,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    fn ours(tool: &str, folder: &Path, store: &str) -> Self {
        let port = free_port();
        std::fs::write(folder.join("settings.toml"), SETTINGS).unwrap();
        let client = format!(
            r#"{{"client_id":"editor","client_name":"Editor","redirect_uris":["{CALLBACK}"],"token_endpoint_auth_method":"none","grant_types":["authorization_code","refresh_token"]}}"#
        );
        std::fs::write(folder.join("editor.json"), client).unwrap();
        let child = Command::new(tool)
            .current_dir(folder)
            .args([
                "serve",
                "--config",
                "settings.toml",
                "--client",
                "editor.json",
                "--master-key",
                "master.key",
            ])
            .args(["--issuer", &format!("http://127.0.0.1:{port}"), "--listen", &format!("127.0.0.1:{port}")])
            .args(["--resource", "http://127.0.0.1:8/mcp", "--store", store])
            .args(["--dangerously-auto-approve", "ann"])
            .stderr(std::fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let server = Self { child, port, authorization_path: "/authorize" };
        for _ in 0..600 {
            let ready =
                Connection::open(port).is_ok_and(|mut connection| connection.get("/readyz").status == 200);
            if ready {
                return server;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the server does not come up: {}", std::fs::read_to_string(folder.join("log")).unwrap());
    }

    /// Several processes can share PostgreSQL only: one for each processor then, as each is one thread.
    fn oidc_provider(rival: &Rival, folder: &Path, store: Option<&str>) -> Self {
        let port = free_port();
        let processes = match store {
            Some(url) if url.starts_with("postgres:") => std::thread::available_parallelism().unwrap().get(),
            _ => 1,
        };
        let mut child = Command::new(rival.node)
            .env("NODE_ENV", "production")
            .args([rival.script, &port.to_string(), rival.modules, &processes.to_string()])
            .args(store)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let server = Self { child, port, authorization_path: "/auth" };
        let mut line = String::new();
        while line != "ready\n" {
            line.clear();
            let read = lines.read_line(&mut line).unwrap();
            assert!(read > 0, "{}", std::fs::read_to_string(folder.join("log")).unwrap());
        }
        // Whatever it says from now on must not block it.
        std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        server
    }

    /// Flows a second over so many connections.
    fn measure(&self, connections: usize, time: Duration) -> f64 {
        let (done, stop) = (AtomicU32::new(0), AtomicBool::new(false));
        let signed_in = || {
            let mut flows = Flows::new(self);
            // The first one signs the person in.
            flows.one();
            flows
        };
        let ready: Vec<Flows> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..connections).map(|_| scope.spawn(signed_in)).collect();
            starting.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        std::thread::scope(|scope| {
            for mut flows in ready {
                let (done, stop) = (&done, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        flows.one();
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let start = Instant::now();
            std::thread::sleep(time);
            let (count, elapsed) = (done.load(Ordering::Relaxed), start.elapsed());
            stop.store(true, Ordering::Relaxed);
            f64::from(count) / elapsed.as_secs_f64()
        })
    }
}

/// One connection, and what it sends.
struct Flows {
    connection: Connection,
    authorize: String,
}

impl Flows {
    fn new(server: &Server) -> Self {
        let authorize = format!("{}?{QUERY}", server.authorization_path);
        Self { connection: Connection::open(server.port).unwrap(), authorize }
    }

    fn one(&mut self) {
        let mut answer = self.connection.get(&self.authorize);
        let code = loop {
            let location = answer.location.unwrap_or_else(|| panic!("{} {}", answer.status, answer.body));
            if location.starts_with(CALLBACK) {
                let (_, rest) = location.split_once("code=").unwrap_or_else(|| panic!("{location}"));
                break rest.split('&').next().unwrap().to_owned();
            }
            // Only the first time: signing in.
            let path = location.find("://").map_or(location.as_str(), |at| {
                let rest = &location[at + 3..];
                &rest[rest.find('/').unwrap()..]
            });
            answer = self.connection.get(path);
        };
        let form = format!(
            "grant_type=authorization_code&client_id=editor&code={code}&code_verifier={VERIFIER}\
             &redirect_uri=http%3A%2F%2F127.0.0.1%3A9%2Fcallback"
        );
        let token = self.refresh_token_of(&form);
        self.refresh_token_of(&format!("grant_type=refresh_token&client_id=editor&refresh_token={token}"));
    }

    fn refresh_token_of(&mut self, form: &str) -> String {
        let answer = self.connection.post("/token", form);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.contains("\"access_token\":\"ey"), "a signed access token: {}", answer.body);
        let (_, rest) = answer.body.split_once("\"refresh_token\":\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tool, node, modules, script, rest @ ..] = arguments.as_slice() else {
        panic!("flows TOOL NODE NODE_MODULES SCRIPT [SECONDS [ROUNDS [CONNECTIONS...]]]");
    };
    let number = |at: usize, default: f64| rest.get(at).map_or(default, |text| text.parse().unwrap());
    let (time, rounds) = (Duration::from_secs_f64(number(0, 3.0)), number(1, 5.0) as usize);
    let connections: Vec<usize> = match rest.get(2..) {
        None | Some([]) => vec![64, 256],
        Some(given) => given.iter().map(|text| text.parse().unwrap()).collect(),
    };
    assert!(rounds % 2 == 1, "an odd number of rounds has a median");
    assert!(
        connections.iter().any(|&connections| connections <= REMEMBERED),
        "oidc-provider in memory takes part with at most {REMEMBERED} connections"
    );
    let rival = Rival { node, modules, script };
    let folder = tempfile::tempdir().unwrap();
    let postgres = Postgres::start();
    let file = folder.path().join("theirs.db");
    let mut stores = [
        ("memory", "memory".to_owned(), None),
        ("SQLite", "sqlite:store.db".to_owned(), file.to_str().map(str::to_owned)),
        ("PostgreSQL", postgres.url(), Some(postgres.url())),
    ]
    .map(|(name, ours, theirs)| {
        let place = [format!("{name}.ours"), format!("{name}.theirs")].map(|place| folder.path().join(place));
        place.iter().for_each(|place| std::fs::create_dir(place).unwrap());
        let servers = [
            Server::ours(tool, &place[0], &ours),
            Server::oidc_provider(&rival, &place[1], theirs.as_deref()),
        ];
        // Of each number of connections, of ours and theirs, the rate in each round.
        (name, servers, vec![[Vec::new(), Vec::new()]; connections.len()])
    });
    println!(
        "authorizations a second, medians of {rounds} rounds of {} s, one server after the other",
        time.as_secs_f64()
    );
    for _ in 0..rounds {
        for (name, servers, rates) in &mut stores {
            for (&connections, rates) in connections.iter().zip(rates) {
                let forgets = *name == "memory" && connections > REMEMBERED;
                let those = if forgets { &servers[..1] } else { &servers[..] };
                for (server, rates) in those.iter().zip(rates) {
                    rates.push(server.measure(connections, time));
                }
            }
        }
    }
    println!("store       connections   serve   oidc-provider");
    for (name, _, rates) in &stores {
        for (connections, [ours, theirs]) in connections.iter().zip(rates) {
            let theirs =
                if theirs.is_empty() { "forgets".to_owned() } else { format!("{:.0}", median(theirs)) };
            println!("{name:10} {connections:12} {:7.0} {theirs:>15}", median(ours));
        }
    }
    // Each over as many connections as suit it best.
    let bests = stores.map(|(name, _, rates)| {
        let best = |which: usize| {
            let all = rates.iter().map(|rates| &rates[which]).filter(|rates| !rates.is_empty());
            all.max_by(|one, other| median(one).total_cmp(&median(other))).unwrap().clone()
        };
        (name, best(0), best(1))
    });
    // The machine wanders: what was measured in one round is compared.
    let times = |ours: &[f64], theirs: &[f64]| {
        median(&ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
    };
    let in_memory = bests[0].2.clone();
    println!(
        "each over as many connections as suit it best: times oidc-provider in memory, and on the same store"
    );
    for (name, ours, theirs) in &bests {
        println!("{name:10} {:7.1} {:7.1}", times(ours, &in_memory), times(ours, theirs));
    }
}

/// What half of them are above.
fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
