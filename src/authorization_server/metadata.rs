//! The document the server publishes about itself (RFC 8414 section 2), from configuration only.

use alloc::string::String;
use alloc::vec::Vec;

use super::{AuthorizationServer, PushedRequests, RegistrationPolicy};
use crate::identifier::ScopeSet;
use crate::jose::Algorithm;
use crate::message::exchange::Respond;
use crate::message::server_metadata::ServerMetadata;

/// Ways for a client to prove who it is.
pub(crate) const PROVING_METHODS: [&str; 3] =
    ["client_secret_basic", "client_secret_post", "private_key_jwt"];

/// Grant types the token endpoint has.
pub(crate) const GRANT_TYPES: [&str; 2] = ["authorization_code", "refresh_token"];

impl AuthorizationServer {
    /// The metadata document as a value.
    pub fn metadata(&self) -> ServerMetadata {
        let texts = |values: &[&str]| Some(values.iter().map(|value| String::from(*value)).collect());
        let scopes =
            self.resources().iter().fold(ScopeSet::new(), |all, resource| all.union(resource.scopes()));
        // RFC8414-2-1, RFC9207-2.3-1: the one configured issuer.
        let mut document = ServerMetadata::new(self.issuer().clone());
        // RFC8414-2-3, RFC8414-2-5: endpoints of every grant; the response types come with the document itself.
        document.authorization_endpoint = Some(self.shared.inner.authorization_endpoint.clone());
        document.token_endpoint = Some(self.shared.inner.token_endpoint.clone());
        document.revocation_endpoint = Some(self.shared.inner.revocation_endpoint.clone());
        document.registration_endpoint = match self.registration() {
            RegistrationPolicy::Closed => None,
            RegistrationPolicy::Open | RegistrationPolicy::InitialAccessToken(_) => {
                Some(self.shared.inner.registration_endpoint.clone())
            }
        };
        // RFC8414-2-12: below the issuer, which is https or loopback.
        document.jwks_uri = Some(self.shared.inner.jwks_uri.clone());
        document.response_modes_supported = texts(&["query"]);
        document.grant_types_supported = texts(&GRANT_TYPES);
        // RFC8414-2-6
        document.scopes_supported = Some(scopes);
        // MCP-SEC-014, OAUTH21-4.1.1-6, RFC7636-7.2-2: S256 is what is taken, so S256 is what is listed (I-C6).
        document.code_challenge_methods_supported = texts(&[crate::pkce::S256]);
        let public: &[&str] = if self.admits_public_clients() { &["none"] } else { &[] };
        let methods = [public, &PROVING_METHODS].concat();
        document.token_endpoint_auth_methods_supported = texts(&methods);
        // RFC8414-2-10: an assertion in any algorithm whose keys this server reads.
        let algorithms = texts(&Algorithm::ALL.map(Algorithm::name));
        document.token_endpoint_auth_signing_alg_values_supported = algorithms.clone();
        document.revocation_endpoint_auth_signing_alg_values_supported = algorithms.clone();
        document.introspection_endpoint_auth_signing_alg_values_supported = algorithms;
        document.revocation_endpoint_auth_methods_supported = texts(&methods);
        document.introspection_endpoint = Some(self.shared.inner.introspection_endpoint.clone());
        document.introspection_endpoint_auth_methods_supported = texts(&PROVING_METHODS);
        // RFC9126-2-2, RFC9126-2-1
        let pushed = self.pushed_requests();
        document.pushed_authorization_request_endpoint =
            (pushed != PushedRequests::Off).then(|| self.shared.inner.pushed_endpoint.clone());
        document.require_pushed_authorization_requests = pushed == PushedRequests::Required;
        // MCP-AUTH-032: every answer carries it.
        document.authorization_response_iss_parameter_supported = true;
        // MCP-REG-026
        document.client_id_metadata_document_supported = self.reads_metadata_documents();
        // RFC9728-4-1
        document.protected_resources =
            Some(self.resources().iter().map(|known| String::from(known.id().as_str())).collect::<Vec<_>>());
        document
    }

    /// The answer to a GET of the metadata document.
    pub fn metadata_response(&self) -> Respond {
        // MCP-AUTH-011, RFC8414-3.2-1
        Respond::json(200, self.metadata().render()).with_header("cache-control", "public, max-age=300")
    }

    /// The path at which the document stands: the well-known string inserted between host and path of the issuer.
    pub fn metadata_path(&self) -> String {
        // RFC8414-3-1
        let url = self.issuer().metadata_urls().into_iter().next().unwrap_or_default();
        let origin = self.shared.inner.token_endpoint.origin();
        String::from(url.get(origin.as_str().len()..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use crate::authorization_server::{
        AuthorizationServer, Configuration, KnownResource, RegistrationPolicy,
    };
    use crate::identifier::{Issuer, ResourceId, Scope};
    use crate::jose::{Algorithm, SigningKeyId};
    use crate::message::server_metadata::ServerMetadata;

    fn server(issuer: &str, registration: RegistrationPolicy) -> AuthorizationServer {
        let scope = (Scope::new("read").unwrap(), "Read".into());
        let resource = KnownResource::new(ResourceId::new("https://h.example/mcp").unwrap(), [scope]);
        let key = SigningKeyId::new("k1", Algorithm::EdDsa);
        let configuration = Configuration::new(Issuer::new(issuer).unwrap(), [resource].into(), key);
        AuthorizationServer::new(configuration.registration(registration)).unwrap()
    }

    // MCP-SEC-014, RFC8414-2-1, RFC8414-2-3, RFC9207-2.3-1
    #[test]
    fn the_document_says_what_the_server_does() {
        let server = server("https://as.example/t", RegistrationPolicy::Open);
        let document = ServerMetadata::parse(server.metadata_response().body()).unwrap();
        assert_eq!(document.issuer.as_str(), "https://as.example/t");
        assert!(document.lists_s256());
        assert_eq!(document.code_challenge_methods_supported.unwrap(), ["S256"]);
        assert_eq!(document.response_types_supported, ["code"]);
        assert!(document.authorization_response_iss_parameter_supported);
        assert!(document.authorization_endpoint.is_some() && document.token_endpoint.is_some());
        assert_eq!(document.registration_endpoint.unwrap().as_str(), "https://as.example/t/register");
        assert_eq!(server.metadata_path(), "/.well-known/oauth-authorization-server/t");
    }

    // RFC8414-2-10: wherever an assertion is taken, the algorithms of its signature are listed.
    #[test]
    fn each_endpoint_that_takes_an_assertion_lists_its_algorithms() {
        let document = server("https://as.example", RegistrationPolicy::Closed).metadata();
        for (methods, algorithms) in [
            (
                document.token_endpoint_auth_methods_supported,
                document.token_endpoint_auth_signing_alg_values_supported,
            ),
            (
                document.revocation_endpoint_auth_methods_supported,
                document.revocation_endpoint_auth_signing_alg_values_supported,
            ),
            (
                document.introspection_endpoint_auth_methods_supported,
                document.introspection_endpoint_auth_signing_alg_values_supported,
            ),
        ] {
            assert!(methods.unwrap().iter().any(|method| method == "private_key_jwt"));
            let every: Vec<_> = Algorithm::ALL.into_iter().map(Algorithm::name).collect();
            assert_eq!(algorithms.unwrap(), every);
        }
    }

    #[test]
    fn a_closed_registration_has_no_endpoint() {
        let server = server("https://as.example", RegistrationPolicy::Closed);
        assert_eq!(server.metadata().registration_endpoint, None);
        assert_eq!(server.metadata_path(), "/.well-known/oauth-authorization-server");
    }
}
