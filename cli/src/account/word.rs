//! The person's word for an authorization server and an MCP server (decision D36): by `--issuer`, by the MCP server's own
//! URL, or by an answer at the terminal.

use std::io::{IsTerminal as _, Write as _};

use mcp_authz::client::ChoosingIssuer;
use mcp_authz::identifier::{Issuer, ResourceId};
use mcp_authz_tokio::BoxFuture;
use mcp_authz_tokio::client::pairing::{HostsWord, OwnOrigin, Pairing};
use mcp_authz_tokio::text::TerminalText;

/// What the person said with the options, and whether to ask for more.
#[derive(Debug)]
pub(super) struct PersonsWord {
    named: Option<Issuer>,
    ask: bool,
}

impl PersonsWord {
    /// `ask` says whether a person may sit before this command; without a terminal nobody does.
    pub(super) fn new(named: Option<Issuer>, ask: bool) -> Self {
        let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        Self { named, ask: ask && terminal }
    }
}

impl Pairing for PersonsWord {
    fn stands(&self, _: &ResourceId, issuer: &Issuer) -> bool {
        self.named.as_ref().is_none_or(|named| named == issuer)
    }

    fn pair<'a>(&'a self, choosing: &'a ChoosingIssuer) -> BoxFuture<'a, HostsWord> {
        Box::pin(async move {
            // Who gave the MCP server's URL has vouched for what is on its origin.
            if let Some(issuer) = self.named.as_ref().or_else(|| OwnOrigin::issuer(choosing)) {
                return HostsWord::For(issuer.clone());
            }
            let Some(first) = choosing.issuers().first() else { return HostsWord::None };
            eprint!("{}", shown(choosing));
            if !self.ask {
                return HostsWord::None;
            }
            eprint!("Log in at {} for this MCP server? [y/N] ", TerminalText(first.as_str()));
            let _ = std::io::stderr().flush();
            // A terminal that is closed says no.
            let answer = tokio::task::spawn_blocking(|| {
                let mut line = String::new();
                std::io::stdin().read_line(&mut line).map(|_| line).unwrap_or_default()
            });
            if is_yes(&answer.await.unwrap_or_default()) {
                HostsWord::For(first.clone())
            } else {
                HostsWord::Refused
            }
        })
    }
}

/// What the person decides about. Everything but our own words is a peer's (I-P8).
fn shown(choosing: &ChoosingIssuer) -> String {
    let resource = choosing.resource_matched().resource();
    let scopes = choosing.challenged_scopes().map(ToString::to_string).unwrap_or_default();
    let mut lines = vec![
        "The MCP server names an authorization server at another place, and any server can name any."
            .to_owned(),
        format!("  MCP server            {}", TerminalText(&resource.origin().to_string())),
    ];
    if let Some(name) = choosing.resource_name() {
        lines.push(format!("  calls itself          {} (not verified)", TerminalText(name)));
    }
    for issuer in choosing.issuers() {
        lines.push(format!("  authorization server  {}", TerminalText(issuer.as_str())));
    }
    let scopes = if scopes.is_empty() { "none named".to_owned() } else { TerminalText(&scopes).to_string() };
    lines.push(format!("  asks for the scopes   {scopes}"));
    if choosing.issuers().len() > 1 {
        lines.push("The first is meant; choose another with --issuer URL.".to_owned());
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

/// Nothing but a plain yes is one.
fn is_yes(answer: &str) -> bool {
    let answer = answer.trim();
    answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes")
}

#[cfg(test)]
mod tests {
    use mcp_authz::client::{ChoosingIssuer, Client, Configuration, ResourceMetadataOutcome};
    use mcp_authz::identifier::{Issuer, RedirectUri, ResourceId};
    use mcp_authz::message::exchange::Reply;
    use mcp_authz_tokio::client::pairing::{HostsWord, Pairing as _};

    use super::{PersonsWord, is_yes, shown};

    fn choosing(name: &str, issuers: &str) -> ChoosingIssuer {
        let redirect_uri = RedirectUri::new("http://127.0.0.1:4711/callback").unwrap();
        let client = Client::new(Configuration::new("test", redirect_uri)).unwrap();
        let server = ResourceId::from_server_url("https://mcp.example/notes").unwrap();
        let challenge = Reply::new(401, "").with_header("www-authenticate", b"Bearer scope=\"read write\"");
        let (_, waiting) = client.challenged(&server, &challenge).unwrap().into_parts();
        let document = format!(
            r#"{{"resource":"https://mcp.example/notes","resource_name":"{name}","authorization_servers":[{issuers}]}}"#
        );
        let reply = Reply::new(200, document).with_header("content-type", b"application/json");
        match waiting.receive(Ok(reply)).unwrap() {
            ResourceMetadataOutcome::Found(choosing) => choosing,
            ResourceMetadataOutcome::Next(_) => panic!("the document is there"),
        }
    }

    // I-P8
    #[test]
    fn the_person_sees_both_hosts_and_the_scopes_and_no_control_character() {
        let choosing =
            choosing("Notes\\u001b[2J\\u202e", r#""https://as.example/t","https://other.example""#);
        let text = shown(&choosing);
        for part in
            ["https://mcp.example", "https://as.example/t", "https://other.example", "read write", "--issuer"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(
            text.chars().all(|it| it == '\n' || !it.is_control()) && !text.contains('\u{202e}'),
            "{text:?}"
        );
    }

    // D36
    #[tokio::test]
    async fn without_an_option_and_a_terminal_only_the_own_origin_is_taken() {
        let word =
            |named: Option<&str>| PersonsWord { named: named.map(|it| Issuer::new(it).unwrap()), ask: false };
        let elsewhere = choosing("Notes", r#""https://as.example""#);
        assert_eq!(word(None).pair(&elsewhere).await, HostsWord::None);
        let named = Issuer::new("https://as.example").unwrap();
        assert_eq!(word(Some("https://as.example")).pair(&elsewhere).await, HostsWord::For(named.clone()));
        let resource = elsewhere.resource_matched().resource().clone();
        assert!(word(None).stands(&resource, &named));
        assert!(!word(Some("https://other.example")).stands(&resource, &named));
        let own = choosing("Notes", r#""https://as.example","https://mcp.example/login""#);
        let issuer = Issuer::new("https://mcp.example/login").unwrap();
        assert_eq!(word(None).pair(&own).await, HostsWord::For(issuer));
        for near in ["https://mcp.example:8443", "https://mcp.example.evil.example", "https://a.mcp.example"]
        {
            let near = choosing("Notes", &format!("\"{near}\""));
            assert_eq!(word(None).pair(&near).await, HostsWord::None);
        }
    }

    #[test]
    fn only_a_plain_yes_is_one() {
        assert!(["y", "Y\n", " yes ", "YES\r\n"].iter().all(|answer| is_yes(answer)));
        assert!(
            ["", "\n", "n", "no", "yes, but", "ye", "https://as.example"]
                .iter()
                .all(|answer| !is_yes(answer))
        );
    }
}
