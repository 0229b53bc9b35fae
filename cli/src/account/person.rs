//! How the person gets to the authorization server's page and back: in a browser here, or in one elsewhere, from which
//! the address it ended at is pasted.

use std::io::{IsTerminal as _, Write as _};

use mcp_authz::client::OpenUserAgent;
use mcp_authz::syntax::form::Form;
use mcp_authz_tokio::BoxFuture;
use mcp_authz_tokio::client::browser::BrowserFailed;
use mcp_authz_tokio::client::user_agent::{SystemBrowser, UserAgent};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// A pasted address may be as long as this.
const ADDRESS_BYTES: usize = 16 * 1024;

/// The person before the terminal.
#[derive(Debug)]
pub(super) struct Person {
    no_browser: bool,
    paste: bool,
}

impl Person {
    pub(super) fn new(no_browser: bool, paste: bool) -> Self {
        // Without a terminal nobody pastes, unless a program was told to take the browser's part.
        Self { no_browser, paste: paste && (no_browser || std::io::stdin().is_terminal()) }
    }
}

impl UserAgent for Person {
    fn open<'a>(&'a self, action: &'a OpenUserAgent) -> BoxFuture<'a, Result<(), BrowserFailed>> {
        Box::pin(async move {
            if !self.no_browser && SystemBrowser.open(action).await.is_ok() {
                eprintln!("Your browser shows the authorization server's page. If not, open this address:");
            } else {
                eprintln!("Open this address in a browser, sign in and decide:");
            }
            eprintln!("\n{}\n", action.url());
            let back = redirect_uri(action.url());
            match back.filter(|_| self.paste) {
                Some(back) => {
                    eprintln!(
                        "On another machine the browser ends at an address that it cannot open, and that"
                    );
                    eprintln!("begins with {back}. Paste it here:");
                    let _ = std::io::stderr().flush();
                    tokio::spawn(take_pasted(back));
                }
                None => eprintln!("Waiting for the browser to come back."),
            }
            Ok(())
        })
    }
}

/// Where the browser will be sent: this program's own address, as it stands in the authorization URL.
fn redirect_uri(url: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    let form = Form::parse(query.as_bytes()).ok()?;
    form.get("redirect_uri").map(str::to_owned)
}

/// Hands pasted addresses to the listener of this program, as the browser would have. Whether it is the awaited one is
/// for the core to say; one that is not leaves the login waiting.
async fn take_pasted(back: String) {
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(std::time::Duration::from_secs(60))
        .build();
    let Ok(http) = http else { return };
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if line.len() > ADDRESS_BYTES || !is_for(line, &back) {
            eprintln!("That address does not begin with {back}. Paste the whole address from the browser:");
            continue;
        }
        // The answer comes when the login is over; a wrong address is answered at once.
        match http.get(line).send().await {
            Ok(answer) if answer.status().as_u16() == 404 => {
                eprintln!("That address is not of this login. Paste the one the browser ended at now:");
            }
            _ => return,
        }
    }
}

/// Whether the address is the redirect URI with a query: nothing else is sent anywhere.
fn is_for(address: &str, back: &str) -> bool {
    address.strip_prefix(back).is_some_and(|rest| rest.starts_with(['?', '&']))
}

#[cfg(test)]
mod tests {
    use super::{is_for, redirect_uri};

    #[test]
    fn only_an_address_of_this_program_is_sent_on() {
        let url = "https://as.example/authorize?response_type=code&redirect_uri=http%3A%2F%2F127.0.0.1%3A4711%2Fcallback";
        let back = redirect_uri(url).unwrap();
        assert_eq!(back, "http://127.0.0.1:4711/callback");
        assert!(is_for("http://127.0.0.1:4711/callback?code=a&state=b", &back));
        for other in [
            "http://127.0.0.1:4711/callback",
            "http://127.0.0.1:4711/callbackx?code=a",
            "http://127.0.0.1:47111/callback?code=a",
            "https://evil.example/?http://127.0.0.1:4711/callback?code=a",
            "http://127.0.0.1:4711@evil.example/callback?code=a",
        ] {
            assert!(!is_for(other, &back), "{other}");
        }
    }
}
