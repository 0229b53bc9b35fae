//! `mcp-authz token URL`: prints a fresh access token, for scripts.

use std::process::ExitCode;

use mcp_authz::error::Remedy;
use mcp_authz::time::Duration;
use mcp_authz_tokio::client::driver::{LoginError, Refreshed};
use mcp_authz_tokio::clock::{Clock as _, SystemClock};

use super::{Account, Failure, ServerOptions, block_on};
use crate::NOT_LOGGED_IN;

/// What `token` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    server: ServerOptions,
    /// Print the whole `Authorization` field: `Authorization: Bearer …`.
    #[arg(long)]
    header: bool,
    /// Print a token that is good for so many seconds at least; one that ends earlier is renewed.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    valid_for: u32,
}

pub(crate) fn run(options: &Options) -> ExitCode {
    block_on(token(options), "token")
}

async fn token(options: &Options) -> Result<ExitCode, Failure> {
    let Account { driver, connection, server, .. } = options.server.open(false).await?;
    let resumed = driver.resume(&server).await;
    let not_logged_in = |why: &str| {
        eprintln!("mcp-authz token: {why}; run `mcp-authz login {server}`, with the same options");
        Ok(NOT_LOGGED_IN.into())
    };
    let session = match resumed {
        Ok(Some(session)) => session,
        Ok(None) => return not_logged_in("nobody has logged in at this server"),
        Err(LoginError::Core(error)) if matches!(error.remedy(), Remedy::Vouch) => {
            eprintln!(
                "mcp-authz token: the session that is kept was begun with other options: give those of the login, \
                 --issuer and --client-id among them, or log in again with these"
            );
            return Ok(NOT_LOGGED_IN.into());
        }
        Err(LoginError::Core(error)) if matches!(error.remedy(), Remedy::Reauthorize) => {
            return not_logged_in(&format!("the session that is kept cannot be used ({error})"));
        }
        Err(error) => return Err(error.into()),
    };
    let margin = Duration::seconds(options.valid_for.into());
    let session = if session.is_expired(SystemClock.now(), margin) && session.can_refresh() {
        match driver.refresh(session).await {
            Refreshed::Renewed(session) => session,
            // The old one may be good for a while yet.
            Refreshed::Kept(kept) if !kept.state.is_expired(SystemClock.now(), Duration::ZERO) => kept.state,
            Refreshed::Kept(kept) => return Err(kept.error.into()),
            Refreshed::Ended(ended) => return not_logged_in(&format!("the grant is over ({})", ended.error)),
            Refreshed::Lost(error) => return Err(error.into()),
        }
    } else {
        session
    };
    if session.is_expired(SystemClock.now(), Duration::ZERO) {
        return not_logged_in("the token has ended, and there is none to renew it with");
    }
    let field = session.authorization_for(connection.url())?;
    match (options.header, field.expose().strip_prefix("Bearer ")) {
        (true, _) => println!("Authorization: {}", field.expose()),
        (false, Some(token)) => println!("{token}"),
        (false, None) => return Err("the token is no bearer token".into()),
    }
    Ok(ExitCode::SUCCESS)
}
