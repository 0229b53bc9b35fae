//! TLS by the server itself.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::blocking::Client;

use super::{TOOL, free_port, tool};

fn certificate(folder: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    readable_by(folder, 0o600);
    made.cert.pem()
}

fn readable_by(folder: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder.join("key.pem"), std::fs::Permissions::from_mode(mode)).unwrap();
}

fn trusting(certificate: &str) -> Client {
    let root = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
    // A connection of its own for each request: the certificate is of the handshake.
    Client::builder().no_proxy().tls_certs_only([root]).pool_max_idle_per_host(0).build().unwrap()
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn arguments(port: u16) -> Vec<String> {
    let listen = format!("127.0.0.1:{port}");
    ["--listen", &listen, "--store", "memory", "--resource", "http://127.0.0.1:8/mcp"]
        .into_iter()
        .chain(["--dangerously-auto-approve", "ann", "--tls-cert", "cert.pem", "--tls-key", "key.pem"])
        .map(str::to_owned)
        .collect()
}

fn answers(client: &Client, url: &str) -> bool {
    (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        client.get(url).send().is_ok_and(|answer| answer.status() == 200)
    })
}

#[test]
fn a_certificate_is_served_and_read_again_when_the_operator_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let first = trusting(&certificate(folder));
    let port = free_port();
    let base = format!("https://127.0.0.1:{port}");
    let child = Command::new(TOOL)
        .current_dir(folder)
        .args(["serve", "--issuer", &base])
        .args(arguments(port))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    let url = format!("{base}/.well-known/oauth-authorization-server");
    assert!(answers(&first, &url));
    let document = first.get(&url).send().unwrap().text().unwrap();
    assert!(document.contains(&format!("{base}/token")), "{document}");
    // Plain HTTP is not spoken there.
    let plain = Client::builder().no_proxy().build().unwrap();
    assert!(plain.get(url.replace("https", "http")).send().is_err());
    // The cookie of a browser is for this host and TLS only.
    let page = first.get(format!("{base}/authorize?client_id=x")).send().unwrap();
    let cookie = page.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-") && cookie.contains("; Secure"), "{cookie}");

    let hang_up = || {
        let pid = running.0.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    };
    // A file that is no certificate changes nothing.
    std::fs::write(folder.join("cert.pem"), "nothing").unwrap();
    hang_up();
    std::thread::sleep(Duration::from_millis(300));
    assert!(first.get(&url).send().is_ok());
    let second = trusting(&certificate(folder));
    assert!(second.get(&url).send().is_err());
    hang_up();
    assert!(answers(&second, &url));
    assert!(first.get(&url).send().is_err());
}

#[test]
fn tls_that_is_not_set_up_right_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let refused = |issuer: &str| {
        let arguments = arguments(0);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = tool(folder.path(), &[&["serve", "--issuer", issuer][..], &arguments].concat());
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused("http://127.0.0.1:7").contains("https://"));
    readable_by(folder.path(), 0o644);
    assert!(refused("https://127.0.0.1:7").contains("readable by others"));
    readable_by(folder.path(), 0o600);
    certificate(folder.path());
    std::fs::write(folder.path().join("cert.pem"), "").unwrap();
    assert!(refused("https://127.0.0.1:7").contains("cert.pem"));
    // The key of another certificate.
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.path().join("cert.pem"), other.cert.pem()).unwrap();
    assert!(refused("https://127.0.0.1:7").contains("cert.pem"));
    let alone = ["serve", "--issuer", "https://127.0.0.1:7", "--tls-cert", "cert.pem", "--store", "memory"];
    let output = tool(folder.path(), &alone);
    assert!(String::from_utf8(output.stderr).unwrap().contains("name both"));
}
