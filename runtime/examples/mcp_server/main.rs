//! An MCP server, built with the `rmcp` crate, that takes access tokens: one layer before its router.
//!
//! ```text
//! cargo run -p mcp-authz-tokio --example mcp_server -- http://127.0.0.1:8090/mcp https://as.example https://as.example/jwks
//! ```
//!
//! The arguments are the resource's own identifier, the authorization server that is trusted, and where that one
//! publishes its keys. `read_notes` needs the scope `notes:read`, `add_note` also `notes:write`.

mod server;

use std::process::ExitCode;

use mcp_authz::identifier::ResourceId;

use server::{Failure, layer, router};

async fn serve(resource: &str, issuer: &str, jwks: &str) -> Result<(), Failure> {
    let router = router(layer(resource, issuer, jwks)?);
    let address = ResourceId::new(resource)?.origin();
    let address = address.as_str().split_once("://").map(|(_, address)| address).ok_or("no address")?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [resource, issuer, jwks] = arguments.as_slice() else {
        eprintln!("mcp_server RESOURCE ISSUER JWKS_URL");
        return ExitCode::from(2);
    };
    match serve(resource, issuer, jwks).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
