//! The documents the roles publish, whatever their configuration leaves empty: no list without elements is in them
//! (RFC 8414 section 3.2, RFC 9728 section 3.2).

use mcp_authz::authorization_server::{
    AuthorizationServer, Configuration, KnownResource, PushedRequests, RegistrationPolicy,
};
use mcp_authz::identifier::{Issuer, ResourceId, Scope, ScopeSet};
use mcp_authz::jose::{Algorithm, SigningKeyId};
use mcp_authz::message::exchange::Respond;
use mcp_authz::message::protected_resource_metadata::ProtectedResourceMetadata;
use mcp_authz::message::server_metadata::ServerMetadata;
use mcp_authz::resource_server::{ResourceServer, TrustedIssuer};
use mcp_authz::syntax::json::{JsonObject, JsonValue};

/// The names of the empty arrays of a document that was answered.
fn empty_lists(respond: &Respond) -> Vec<String> {
    assert_eq!(respond.status(), 200);
    let document = JsonObject::parse(respond.body(), 100_000).unwrap();
    let is_empty =
        |name: &&str| matches!(document.get(name), Some(JsonValue::Array(elements)) if elements.is_empty());
    document.names().filter(is_empty).map(str::to_owned).collect()
}

fn resource() -> ResourceId {
    ResourceId::new("https://mcp.example/notes").unwrap()
}

fn issuer() -> Issuer {
    Issuer::new("https://as.example").unwrap()
}

// RFC8414-3.2-1, OIDCD-4.2-1
#[test]
fn what_a_server_publishes_has_no_list_without_elements() {
    for (public, pushed) in [(false, PushedRequests::Off), (true, PushedRequests::Required)] {
        let known = KnownResource::new(resource(), [(Scope::new("read").unwrap(), "Read notes".to_owned())]);
        let key = SigningKeyId::new("k1", Algorithm::EdDsa);
        let configuration = Configuration::new(issuer(), vec![known], key)
            .public_clients(public)
            .metadata_documents(public)
            .registration(RegistrationPolicy::Closed)
            .pushed_requests(pushed);
        let respond = AuthorizationServer::new(configuration).unwrap().metadata_response();
        assert_eq!(empty_lists(&respond), [""; 0], "public clients: {public}");
        assert!(ServerMetadata::parse(respond.body()).is_ok());
    }
}

// RFC9728-3.2-3
#[test]
fn what_a_resource_publishes_has_no_list_without_elements() {
    for scopes in ["", "read"] {
        let issuers = [TrustedIssuer::awaiting_keys(issuer())];
        let scopes = scopes.split_whitespace().map(|scope| Scope::new(scope).unwrap()).collect::<ScopeSet>();
        let server =
            ResourceServer::new(resource(), issuers).unwrap().with_scopes_supported(scopes.clone()).unwrap();
        let respond = server.metadata_response();
        assert_eq!(empty_lists(&respond), [""; 0], "{scopes:?}");
        let document = ProtectedResourceMetadata::parse(respond.body()).unwrap();
        assert_eq!(document.scopes_supported.unwrap_or_default(), scopes);
    }
}
