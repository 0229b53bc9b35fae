//! `mcp-authz logout URL`: revokes the tokens and forgets them.

use std::process::ExitCode;

use mcp_authz_tokio::client::logout::LoggedOut;
use mcp_authz_tokio::text::{OwnText, TerminalText};

use super::{Account, Failure, ServerOptions, block_on};
use crate::NOT_LOGGED_IN;

/// What `logout` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    server: ServerOptions,
    /// Forget the registration of this tool at the authorization server, too.
    #[arg(long)]
    forget_client: bool,
}

pub(crate) fn run(options: &Options) -> ExitCode {
    block_on(logout(options), "logout")
}

async fn logout(options: &Options) -> Result<ExitCode, Failure> {
    let Account { driver, server, .. } = options.server.open(false).await?;
    let store = driver.store();
    let kept = store.sessions_for(server.as_str()).await?;
    if kept.is_empty() {
        eprintln!("mcp-authz logout: nobody has logged in at {server}");
        return Ok(NOT_LOGGED_IN.into());
    }
    // Every session this server's URL is covered by: none is left that a later command would find.
    for session in kept {
        let (issuer, resource) = (session.issuer().clone(), session.resource().clone());
        match session.resume(driver.client(), store.sealer()) {
            Ok(session) => {
                let LoggedOut { not_revoked, .. } = driver.logout(session).await?;
                match not_revoked {
                    None => println!("Logged out at {resource}: the tokens are revoked and forgotten."),
                    Some(error) => {
                        println!("Logged out at {resource}: the tokens are forgotten.");
                        eprintln!("They are not revoked: {}", OwnText(&error.to_string()));
                    }
                }
            }
            Err(_) => {
                store.remove(&issuer, &resource).await?;
                println!("Logged out at {resource}: the tokens are forgotten.");
                eprintln!("They are not revoked: they were kept with other options than these.");
            }
        }
        if options.forget_client
            && let Some(record) = store.registration(&issuer).await?
        {
            store.forget_registration(record).await?;
            println!("The registration at {} is forgotten.", TerminalText(issuer.as_str()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
