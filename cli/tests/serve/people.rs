//! The attacks that go through a person's browser: foreign pages, other browsers, changed forms, names that are markup.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use mcp_authz::syntax::form::Form;
use reqwest::StatusCode;
use reqwest::blocking::Response;

use super::{CALLBACK, CHALLENGE, Server, TOOL, VERIFIER, member};

pub(crate) fn user(name: &str) -> String {
    user_with(name, &format!("password of {name}"))
}

pub(crate) fn user_with(name: &str, password: &str) -> String {
    let mut child =
        Command::new(TOOL).arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    let hash = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    format!("{name}:{}", hash.trim())
}

fn start(folder: &Path) -> Server {
    let (ann, bob) = (user("ann"), user("bob"));
    Server::start(folder, &["--store", "memory", "--user", &ann, "--user", &bob])
}

/// A browser: its cookies, and the page it shows.
pub(crate) struct Browser<'s> {
    server: &'s Server,
    pub(crate) cookies: Vec<(String, String)>,
}

impl<'s> Browser<'s> {
    pub(crate) fn new(server: &'s Server) -> Self {
        Self { server, cookies: Vec::new() }
    }

    pub(crate) fn of(server: &'s Server, name: &str, client: &str) -> Self {
        let mut browser = Self::new(server);
        let answer = browser.sign_in(&path(client, &[]), name, &format!("password of {name}"));
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        browser
    }

    /// The same browser, or one with a copy of its cookies, at another process.
    pub(crate) fn at(&self, server: &'s Server) -> Self {
        Self { server, cookies: self.cookies.clone() }
    }

    pub(crate) fn sign_in(&mut self, path: &str, name: &str, password: &str) -> Response {
        let page = self.visit(path);
        let request = hidden(&page, "request");
        let pairs = [("request", request.as_str()), ("name", name), ("password", password)];
        self.submit("/sign-in", &pairs, &[])
    }

    pub(crate) fn send(&mut self, request: reqwest::blocking::RequestBuilder) -> Response {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = request.header("cookie", cookies.join("; ")).send().unwrap();
        for set in answer.headers().get_all("set-cookie") {
            let pair = set.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            if !set.to_str().unwrap().contains("Max-Age=0") {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        answer
    }

    pub(crate) fn visit(&mut self, path: &str) -> String {
        let request = self.server.http.get(format!("{}{path}", self.server.base));
        self.send(request).text().unwrap()
    }

    pub(crate) fn submit(
        &mut self,
        path: &str,
        pairs: &[(&str, &str)],
        fields: &[(&'static str, &str)],
    ) -> Response {
        let body = mcp_authz::syntax::form::encode(pairs.iter().copied());
        let mut request = self.server.http.post(format!("{}{path}", self.server.base));
        request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.send(request)
    }

    pub(crate) fn approve(&mut self, page: &str, more: &[(&str, &str)]) -> Response {
        let (handle, csrf) = (hidden(page, "handle"), hidden(page, "csrf"));
        let pairs =
            [("handle", handle.as_str()), ("csrf", &csrf), ("decision", "approve"), ("scope.mcp", "on")];
        self.submit("/decision", &[&pairs[..], more].concat(), &[])
    }
}

/// Where a client on a server of its own has its answers.
pub(crate) const CONFIDENTIAL: &str = "https://app.example/callback";

/// A client that proves who it is, and its secret.
pub(crate) fn confidential(server: &Server) -> (String, String) {
    let body = serde_json::json!({
        "redirect_uris": [CONFIDENTIAL],
        "token_endpoint_auth_method": "client_secret_post",
    });
    let request = server.http.post(format!("{}/register", server.base));
    let answer = request.header("content-type", "application/json").body(body.to_string()).send().unwrap();
    let body: serde_json::Value = answer.json().unwrap();
    (body["client_id"].as_str().unwrap().to_owned(), body["client_secret"].as_str().unwrap().to_owned())
}

pub(crate) fn path(client: &str, more: &[(&str, &str)]) -> String {
    path_to(CALLBACK, client, more)
}

/// A request whose answer goes there.
pub(crate) fn path_to(redirect_uri: &str, client: &str, more: &[(&str, &str)]) -> String {
    let pairs = [
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", redirect_uri),
        ("state", "s"),
        ("resource", "http://127.0.0.1:8/mcp"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    format!("/authorize?{}", mcp_authz::syntax::form::encode([&pairs[..], more].concat()))
}

pub(crate) fn hidden(page: &str, name: &str) -> String {
    let start = format!("name=\"{name}\" value=\"");
    let rest = page.split_once(&start).unwrap_or_else(|| panic!("no {name} in {page}")).1;
    rest.split_once('"').unwrap().0.replace("&amp;", "&")
}

pub(crate) fn code(answer: &Response) -> String {
    let location = answer.headers()["location"].to_str().unwrap();
    let query = location.split_once('?').unwrap().1;
    Form::parse(query.as_bytes()).unwrap().get("code").unwrap().to_owned()
}

fn registered(server: &Server, name: &str) -> String {
    let body = serde_json::json!({
        "redirect_uris": [CALLBACK],
        "client_name": name,
        "token_endpoint_auth_method": "none",
    });
    let request = server.http.post(format!("{}/register", server.base));
    let answer = request.header("content-type", "application/json").body(body.to_string()).send().unwrap();
    member(answer, "client_id")
}

// 45, 67, 75, 106: the page says who asks and where the answer goes, and a name is text. 162: and nobody frames it.
#[test]
fn a_consent_page_says_who_asks_and_a_name_is_no_markup() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let client = registered(&server, "<script>alert(1)</script>\u{202e}\"'><img src=x>");
    let mut ann = Browser::of(&server, "ann", &client);
    let answer = ann.send(server.http.get(format!("{}{}", server.base, path(&client, &[]))));
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(answer.headers()["x-frame-options"], "DENY");
    let page = answer.text().unwrap();
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains('\u{202e}'), "{page}");
    for said in ["&lt;script&gt;", "unverified", "a program on this computer", "127.0.0.1", &client] {
        assert!(page.contains(said), "{said}: {page}");
    }
    // 84: what a link says is on no page.
    let refused =
        ann.visit("/authorize?client_id=%3Cscript%3Ealert(1)%3C/script%3E&error_description=%3Cscript%3E");
    assert!(!refused.contains("<script") && !refused.contains("alert(1)"), "{refused}");
}

// 105, 30, 33: a public client is asked about each time, whatever was allowed before.
#[test]
fn an_earlier_answer_is_no_answer_for_a_public_client() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let client = server.register();
    let mut ann = Browser::of(&server, "ann", &client);
    for _ in 0..2 {
        let page = ann.visit(&path(&client, &[]));
        assert_eq!(ann.approve(&page, &[("remember", "on")]).status(), StatusCode::SEE_OTHER);
    }
}

// 31, 43, 56, 57, 69, 76: an answer counts from the browser and the person that were shown the page, with what the page
// holds, and once.
#[test]
fn an_answer_from_elsewhere_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let client = server.register();
    let mut ann = Browser::of(&server, "ann", &client);
    let page = ann.visit(&path(&client, &[]));
    let refused = |answer: Response| {
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert!(!answer.headers().contains_key("location"));
    };
    // Nobody, somebody who is not signed in, and another person, with everything that the page holds.
    refused(Browser::new(&server).approve(&page, &[]));
    let mut stranger = Browser::new(&server);
    stranger.visit(&path(&client, &[]));
    refused(stranger.approve(&page, &[]));
    refused(Browser::of(&server, "bob", &client).approve(&page, &[]));
    // The same person in another browser.
    refused(Browser::of(&server, "ann", &client).approve(&page, &[]));
    // A page of another origin in her own browser, and a form value that is not the page's.
    let (handle, csrf) = (hidden(&page, "handle"), hidden(&page, "csrf"));
    let pairs = [("handle", handle.as_str()), ("csrf", &csrf), ("decision", "approve"), ("scope.mcp", "on")];
    for fields in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
        refused(ann.submit("/decision", &pairs, &[fields]));
    }
    for other in ["", "x", &handle] {
        let pairs =
            [("handle", handle.as_str()), ("csrf", other), ("decision", "approve"), ("scope.mcp", "on")];
        refused(ann.submit("/decision", &pairs, &[]));
    }
    // 102: and signing in leads to no other place.
    for elsewhere in ["//evil.example", "https://evil.example", "/\\evil.example", "/authorize.evil", ""] {
        let pairs = [("request", elsewhere), ("name", "ann"), ("password", "password of ann")];
        refused(ann.submit("/sign-in", &pairs, &[]));
    }
    // None of it used the page up; she does, once.
    let answer = ann.approve(&page, &[]);
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert_eq!(server.redeem(&client, &code(&answer), VERIFIER).status(), StatusCode::OK);
    refused(ann.approve(&page, &[]));
}

// 4, 98, 125, 164: the request is what was stored, whatever the form says.
#[test]
fn a_changed_form_changes_nothing_about_the_request() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let client = server.register();
    let mut ann = Browser::of(&server, "ann", &client);
    let page = ann.visit(&path(&client, &[]));
    assert_eq!(ann.approve(&page, &[("scope.admin", "on")]).status(), StatusCode::BAD_REQUEST);
    let page = ann.visit(&path(&client, &[]));
    let changed = [
        ("redirect_uri", "https://evil.example/"),
        ("code_challenge", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("client_id", "other"),
        ("response_type", "token"),
        ("state", "other"),
    ];
    let answer = ann.approve(&page, &changed);
    let location = answer.headers()["location"].to_str().unwrap();
    assert!(location.starts_with(CALLBACK) && location.contains("state=s&"), "{location}");
    assert_eq!(server.redeem(&client, &code(&answer), VERIFIER).status(), StatusCode::OK);
}
