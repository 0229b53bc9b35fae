//! `mcp-authz login URL`: gets a token and keeps it.

use std::process::ExitCode;

use mcp_authz::client::Session;
use mcp_authz::time::OffsetDateTime;
use mcp_authz_tokio::client::connection::McpRequest;
use mcp_authz_tokio::text::TerminalText;

use super::{Account, Failure, ServerOptions, block_on};

/// What `login` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    server: ServerOptions,
}

pub(crate) fn run(options: &Options) -> ExitCode {
    block_on(login(options), "login")
}

/// A request that every MCP server answers, or answers with what it wants.
fn hello() -> McpRequest {
    McpRequest::json_rpc(
        "initialize",
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"2025-11-25","capabilities":{{}},"clientInfo":{{"name":"mcp-authz","version":"{}"}}}}}}"#,
            env!("CARGO_PKG_VERSION")
        ),
    )
}

async fn login(options: &Options) -> Result<ExitCode, Failure> {
    let Account { connection, server, directory, key, .. } = options.server.open(true).await?;
    let reply = connection.open(&hello()).await?;
    let status = reply.status();
    let Some(lines) = connection.session(lines) else {
        if (200..300).contains(&status) {
            println!("{server} answers without a login: there is nothing to keep.");
            return Ok(ExitCode::SUCCESS);
        }
        return Err(format!("the MCP server answered with status {status}, and asked for no login").into());
    };
    if matches!(status, 401 | 403) {
        return Err(format!(
            "the MCP server refuses the new token with status {status}; see `mcp-authz probe`"
        )
        .into());
    }
    println!("Logged in at {server}");
    for (name, value) in lines {
        println!("  {name:<21} {value}");
    }
    println!("  {:<21} {}", "kept in", directory.display());
    println!("  {:<21} {key}", "under a key in");
    Ok(ExitCode::SUCCESS)
}

/// What a person may want to know of a session. The scopes and the issuer are a peer's words (I-P8).
pub(super) fn lines(session: &Session) -> Vec<(&'static str, String)> {
    let scopes = session.scopes().to_string();
    let mut lines = vec![
        ("authorization server", TerminalText(session.issuer().as_str()).to_string()),
        ("token is for", session.resource().as_str().to_owned()),
        (
            "scopes",
            if scopes.is_empty() { "none named".to_owned() } else { TerminalText(&scopes).to_string() },
        ),
    ];
    let renewed = if session.can_refresh() { "renewed by itself" } else { "then log in again" };
    let until = match session.expires() {
        Some(expires) => {
            let left = expires.unix_timestamp().saturating_sub(now().unix_timestamp()).max(0);
            format!("for {left} s, {renewed}")
        }
        None => "until the server ends it".to_owned(),
    };
    lines.push(("valid", until));
    lines
}

fn now() -> OffsetDateTime {
    use mcp_authz_tokio::clock::{Clock as _, SystemClock};
    SystemClock.now()
}
