//! The servers that are measured, as processes: `mcp-authz serve` and npm's oidc-provider.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::load::{self, CALLBACK};

const SETTINGS: &str = "\
[limits]
registrations = 1000000000
authorizations = 1000000000
token_requests = 1000000000
tokens_per_client = 1000000000
pages_per_person = 10000
";

/// Where npm's oidc-provider is.
pub struct Rival<'a> {
    pub node: &'a str,
    pub modules: &'a str,
    pub script: &'a str,
}

/// A server process that ends with its guard.
pub struct Server {
    pub child: Child,
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

/// Whether ours can serve; an error where it does not listen yet.
fn is_ready(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let request = format!("GET /readyz HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200 "))
}

impl Server {
    pub fn ours(tool: &str, folder: &Path, store: &str) -> Self {
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
            if is_ready(port).unwrap_or(false) {
                return server;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the server does not come up: {}", std::fs::read_to_string(folder.join("log")).unwrap());
    }

    /// Several processes can share PostgreSQL only: one for each processor then, as each is one thread.
    pub fn oidc_provider(rival: &Rival, folder: &Path, store: Option<&str>) -> Self {
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
    pub fn measure(&self, connections: usize, time: Duration) -> f64 {
        load::measure(self.port, self.authorization_path, connections, time)
    }
}
