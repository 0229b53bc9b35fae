//! `mcp-authz client-metadata URL`: the document to publish at that URL so that authorization servers know this tool by
//! it, and whether what is published there is that (client ID metadata documents).

use std::process::ExitCode;
use std::time::Duration;

use mcp_authz::client::{Client, Configuration};
use mcp_authz::identifier::{ClientMetadataUrl, RedirectUri};
use mcp_authz::limits;
use mcp_authz::message::exchange::AddressPolicy;
use mcp_authz_tokio::client::fetch::{Fetcher, Outgoing, reply_of};
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};

use crate::REFUSED;
use crate::account::{APPLICATION, Failure, block_on};

/// Without a port: a server takes any port of a loopback redirect URI (RFC 8252 section 7.3).
const REDIRECT: &str = "http://127.0.0.1/callback";

/// What `client-metadata` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the document is, or will be: https, with a path, for `--client-metadata` of the other commands.
    url: String,
    /// Fetch what is published there, and say whether an authorization server and this tool can use it.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(options: &Options) -> ExitCode {
    block_on(client_metadata(options), "client-metadata")
}

async fn client_metadata(options: &Options) -> Result<ExitCode, Failure> {
    let url = ClientMetadataUrl::new(options.url.as_str())?;
    if options.url.contains('?') {
        return Err("the URL of a client metadata document has no query: each would be another client".into());
    }
    let configuration = Configuration::new(APPLICATION, RedirectUri::new(REDIRECT)?);
    let client = Client::new(configuration.metadata_document(url))?;
    let document = client.client_metadata_document()?;
    if !options.check {
        println!("{}", String::from_utf8(document)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let outgoing = Outgoing {
        method: Method::GET,
        url: &options.url,
        headers,
        body: &[],
        addresses: AddressPolicy::Public,
        networks: &[],
    };
    let reply = Fetcher::new()?
        .send(outgoing, limits::CLIENT_METADATA_DOCUMENT_BYTES, Duration::from_secs(10))
        .await
        .map_err(|failure| format!("the document cannot be fetched: {failure}"))?;
    match client.check_published_document(&reply_of(reply.status, &reply.headers, reply.body)) {
        Ok(()) => {
            println!("The document can be used: --client-metadata {}", options.url);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("mcp-authz client-metadata: {error}");
            eprintln!("  Publish what `mcp-authz client-metadata {}` prints.", options.url);
            Ok(REFUSED.into())
        }
    }
}
