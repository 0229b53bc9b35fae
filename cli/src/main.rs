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

mod account;
mod bridge;
mod client_metadata;
mod demo;
mod guard;
mod listener;
mod network;
mod policy;
mod probe;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

/// A flow asks for memory some hundreds of times, on whichever thread serves it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Exit code: it was done, and the answer is no. A check failed, or a server, a person or a rule refused.
pub(crate) const REFUSED: u8 = 1;
/// Exit code: it could not be done. An option, the configuration, the network, the store; clap's for options, too.
pub(crate) const FAILED: u8 = 2;
/// Exit code: nobody has logged in at this server.
pub(crate) const NOT_LOGGED_IN: u8 = 3;

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
    /// Log in at an MCP server, and keep the tokens for the commands below and for other programs of yours.
    Login(account::login::Options),
    /// Print a fresh access token for an MCP server.
    Token(account::token::Options),
    /// Revoke the tokens for an MCP server, and forget them.
    Logout(account::logout::Options),
    /// Be an MCP server over standard input and output, for a program that cannot log in at the one at this URL.
    Bridge(bridge::Options),
    /// Print the client metadata document of this tool for that URL, or check what is published there.
    ClientMetadata(client_metadata::Options),
    /// Look at an MCP server's authorization setup from outside, and hold it against the requirements.
    Probe(probe::Options),
    /// Stand before an MCP server, in whichever language, and let only authorized requests through.
    Guard(Box<guard::Options>),
    /// Run an authorization server for MCP servers.
    Serve {
        /// Print a configuration file with every option and what it means, and stop.
        #[arg(long)]
        example_configuration: bool,
        #[command(flatten)]
        options: Box<serve::Options>,
    },
    /// List or end what people have granted.
    #[command(subcommand)]
    Grants(Box<serve::Grants>),
    /// Add, list or remove clients.
    #[command(subcommand)]
    Clients(Box<serve::Clients>),
    /// Rotate the signing keys.
    #[command(subcommand)]
    Keys(Box<serve::Keys>),
    /// Say that an older copy of the store was restored.
    #[command(subcommand)]
    Store(Box<serve::Stores>),
    /// Read a password from standard input and print the hash for the configuration.
    HashPassword,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Login(options) => account::login::run(&options),
        Command::Token(options) => account::token::run(&options),
        Command::Logout(options) => account::logout::run(&options),
        Command::Bridge(options) => bridge::run(&options),
        Command::ClientMetadata(options) => client_metadata::run(&options),
        Command::Probe(options) => probe::run(&options),
        Command::Guard(options) => guard::run(&options),
        Command::Serve { example_configuration: true, .. } => serve::run(serve::Command::Example),
        Command::Serve { options, .. } => serve::run(serve::Command::Serve(options)),
        Command::Grants(command) => serve::run(serve::Command::Grants(command)),
        Command::Clients(command) => serve::run(serve::Command::Clients(command)),
        Command::Keys(command) => serve::run(serve::Command::Keys(command)),
        Command::Store(command) => serve::run(serve::Command::Store(command)),
        Command::HashPassword => serve::run(serve::Command::HashPassword),
    }
}
