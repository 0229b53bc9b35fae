//! Whole flows over HTTP, each an authorization request, a code for tokens and a refresh, as fast as one server answers
//! them over so many connections: `mcp-authz serve` on each store, and npm's oidc-provider, in turn.
//!
//! `flows TOOL NODE NODE_MODULES SCRIPT [SECONDS [CONNECTIONS [ROUNDS]]]`

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

    fn oidc_provider(node: &str, modules: &str, script: &str) -> Self {
        let port = free_port();
        let mut child = Command::new(node)
            .env("NODE_ENV", "production")
            .args([script, &port.to_string(), modules])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while line != "ready\n" {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "oidc-provider does not come up");
        }
        // Whatever it says from now on must not block it.
        std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        Self { child, port, authorization_path: "/auth" }
    }

    /// Flows a second over so many connections.
    fn measure(&self, connections: usize, time: Duration) -> f64 {
        let (done, ready, stop) =
            (AtomicU32::new(0), std::sync::Barrier::new(connections + 1), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..connections {
                scope.spawn(|| {
                    let mut flows = Flows::new(self);
                    // The first one signs the person in.
                    flows.one();
                    ready.wait();
                    while !stop.load(Ordering::Relaxed) {
                        flows.one();
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            ready.wait();
            let (start, before) = (Instant::now(), done.load(Ordering::Relaxed));
            std::thread::sleep(time);
            let count = done.load(Ordering::Relaxed) - before;
            let elapsed = start.elapsed();
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
        panic!("flows TOOL NODE NODE_MODULES SCRIPT [SECONDS [CONNECTIONS [ROUNDS]]]");
    };
    let number = |at: usize, default: f64| rest.get(at).map_or(default, |text| text.parse().unwrap());
    let (time, connections, rounds) =
        (Duration::from_secs_f64(number(0, 4.0)), number(1, 64.0) as usize, number(2, 3.0) as usize);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let postgres = Postgres::start();
    let servers = [
        ("serve, in memory", Server::ours(tool, folders[0].path(), "memory")),
        ("serve, SQLite", Server::ours(tool, folders[1].path(), "sqlite:store.db")),
        ("serve, PostgreSQL", Server::ours(tool, folders[2].path(), &postgres.url())),
        ("oidc-provider, in memory", Server::oidc_provider(node, modules, script)),
    ];
    println!(
        "flows a second over {connections} connections, best of {rounds} rounds of {} s, one server after the other",
        time.as_secs_f64()
    );
    let mut best = [0.0_f64; 4];
    for _ in 0..rounds {
        for ((_, server), best) in servers.iter().zip(&mut best) {
            *best = best.max(server.measure(connections, time));
        }
    }
    for ((name, _), rate) in servers.iter().zip(best) {
        println!("{rate:8.0}  {name}  {:.1} times oidc-provider", rate / best[3]);
    }
}
