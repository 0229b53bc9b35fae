//! `mcp-authz bridge URL`: an MCP server over stdio for programs that cannot log in, and behind it an authorized one over
//! HTTP.

use std::process::ExitCode;

use tokio::io::BufReader;

use crate::account::{Account, Failure, ServerOptions, block_on};

mod message;
mod relay;

/// What `bridge` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    server: ServerOptions,
}

pub(crate) fn run(options: &Options) -> ExitCode {
    block_on(bridge(options), "bridge")
}

async fn bridge(options: &Options) -> Result<ExitCode, Failure> {
    // Standard input is the MCP client's: nothing can be pasted.
    let Account { connection, .. } = options.server.open(false).await?;
    let connection = connection.patience(relay::PATIENCE);
    relay::run(connection, BufReader::new(tokio::io::stdin()), tokio::io::stdout()).await?;
    Ok(ExitCode::SUCCESS)
}
