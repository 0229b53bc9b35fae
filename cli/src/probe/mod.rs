//! `mcp-authz probe`: looks at the authorization setup of an MCP server from outside, without logging in, and says what
//! is as the requirements have it, what is not, and how to mend it.
//!
//! ```text
//! walk ─ requests ─▶ observation ─▶ mcp_server, resource, authorization_server, endpoints, registration ─▶ finding ─▶ table or JSON
//! ```
//!
//! Judgments are functions of what was observed, and go by the core's own parsers and states; the walk decides nothing.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use mcp_authz::policy::Relaxation;
use mcp_authz::revision::Revision;

use mcp_authz_tokio::client::fetch::Fetcher;
use walk::{Limits, Plan};

mod authorization_server;
mod checks;
mod endpoints;
mod finding;
mod line;
mod mcp_server;
mod observation;
mod output;
mod registration;
mod requests;
mod resource;
mod strict;
#[cfg(test)]
mod tests;
mod walk;

/// What the probe is told.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 when no check failed, 1 when one did, 2 when the walk could not be done.\n\
    Requests are few, small and begin no login; nothing is registered without --register."
)]
pub(crate) struct Options {
    /// The URL of the MCP endpoint.
    url: String,
    /// Print one JSON object, and nothing else.
    #[arg(long)]
    json: bool,
    /// Let warnings fail, too.
    #[arg(long)]
    warnings_fail: bool,
    /// Register a client, and look at the answers. It stays registered.
    #[arg(long)]
    register: bool,
    /// Look as a client with this relaxation does; may be given several times.
    #[arg(long, value_name = "NAME=URL")]
    relax: Vec<Relaxation>,
    /// The revision of MCP that the server keeps to.
    #[arg(long, value_name = "DATE", default_value_t)]
    revision: Revision,
    /// The time for all of it, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=3600))]
    timeout: u16,
    /// Print without colour.
    #[arg(long)]
    no_color: bool,
}

/// Walks and shows.
pub(crate) fn run(options: &Options) -> ExitCode {
    match shown(options) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("mcp-authz probe: {error}");
            crate::FAILED.into()
        }
    }
}

fn shown(options: &Options) -> io::Result<u8> {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let colour = !options.no_color
        && !set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
        && io::stdout().is_terminal();
    let policy = crate::policy::of(&options.relax).map_err(io::Error::other)?;
    let fetcher = Fetcher::builder().policy(&policy).build().map_err(io::Error::other)?;
    let plan = Plan {
        url: options.url.clone(),
        policy,
        revision: options.revision,
        register: options.register,
        limits: Limits::within(Duration::from_secs(options.timeout.into())),
        fetcher,
    };
    let context = output::Context::of(&plan, options.warnings_fail);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(walk::walk(plan));
    // A name that is still being looked up must not hold the end up.
    runtime.shutdown_timeout(Duration::from_millis(100));
    let out = io::stdout().lock();
    if options.json {
        output::json(out, &report, &context)?;
    } else {
        output::table(out, &report, &context, colour)?;
    }
    Ok(report.exit_code(options.warnings_fail))
}
