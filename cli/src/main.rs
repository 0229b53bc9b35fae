//! The `mcp-authz` tool.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::as_conversions
    )
)]

mod demo;
mod guard;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Authorization for the Model Context Protocol: client, resource server and authorization server.
#[derive(Debug, Parser)]
#[command(name = "mcp-authz", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one person's authorization over real sockets, from a 401 to a tool call, and four attacks that fail.
    Demo(demo::Options),
    /// Stand before an MCP server, in whichever language, and let only authorized requests through.
    Guard(Box<guard::Options>),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Guard(options) => guard::run(&options),
    }
}
