//! The document of an authorization server: RFC 8414 section 2, and the OpenID Connect discovery form of it.
//!
//! Whether the document belongs to the issuer asked for is not decided here: the client compares `issuer` with
//! the identifier the document's URL was made from (RFC 8414 section 3.3).

use alloc::string::String;
use alloc::vec::Vec;

use crate::identifier::{Endpoint, Issuer, ScopeSet};
use crate::limits;
use crate::syntax::json::{JsonObject, JsonValue};
use crate::syntax::uri::Uri;

use super::Malformed;
use super::protected_resource_metadata::refuse_none;
use super::read::{Document, Members};

/// Authorization server metadata; members that are not here are ignored when read.
///
/// `None` for a list means that the document does not have it, which the RFC sometimes gives a meaning; an empty
/// list means that nothing is supported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMetadata {
    /// The issuer, exactly as written.
    pub issuer: Issuer,
    /// Where a person's browser is sent.
    pub authorization_endpoint: Option<Endpoint>,
    /// Where codes and refresh tokens are turned into tokens.
    pub token_endpoint: Option<Endpoint>,
    /// Where clients register (RFC 7591).
    pub registration_endpoint: Option<Endpoint>,
    /// Where tokens are revoked (RFC 7009).
    pub revocation_endpoint: Option<Endpoint>,
    /// Where resource servers ask about tokens (RFC 7662).
    pub introspection_endpoint: Option<Endpoint>,
    /// Where authorization requests can be pushed (RFC 9126).
    pub pushed_authorization_request_endpoint: Option<Endpoint>,
    /// Whether they must be.
    pub require_pushed_authorization_requests: bool,
    /// The server's public keys.
    pub jwks_uri: Option<Endpoint>,
    /// The values of `response_type` it takes.
    pub response_types_supported: Vec<String>,
    /// The ways it returns an authorization response.
    pub response_modes_supported: Option<Vec<String>>,
    /// The grant types it takes; see [`ServerMetadata::supports_grant_type`] for what absence means.
    pub grant_types_supported: Option<Vec<String>>,
    /// Scopes it knows, possibly not all. The list says what exists, never what to ask for, so it may be longer than
    /// [`limits::SCOPES`]: large providers list hundreds.
    pub scopes_supported: Option<ScopeSet>,
    /// The PKCE methods it takes; absent means that it does not say.
    pub code_challenge_methods_supported: Option<Vec<String>>,
    /// How a client can authenticate at the token endpoint; absent means `client_secret_basic` alone.
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Algorithms of client assertions at the token endpoint.
    pub token_endpoint_auth_signing_alg_values_supported: Option<Vec<String>>,
    /// How a client can authenticate at the revocation endpoint.
    pub revocation_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Algorithms of client assertions at the revocation endpoint.
    pub revocation_endpoint_auth_signing_alg_values_supported: Option<Vec<String>>,
    /// How a caller can authenticate at the introspection endpoint.
    pub introspection_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Algorithms of client assertions at the introspection endpoint.
    pub introspection_endpoint_auth_signing_alg_values_supported: Option<Vec<String>>,
    /// Whether each authorization response has `iss` (RFC 9207 section 3).
    pub authorization_response_iss_parameter_supported: bool,
    /// Whether a client may be identified by the URL of its metadata document.
    pub client_id_metadata_document_supported: bool,
    /// The resources it issues tokens for (RFC 9728 section 4).
    pub protected_resources: Option<Vec<String>>,
    /// Algorithms of DPoP proofs (RFC 9449 section 5.1).
    pub dpop_signing_alg_values_supported: Option<Vec<String>>,
    /// OpenID Connect discovery only: kinds of subject identifier.
    pub subject_types_supported: Option<Vec<String>>,
    /// OpenID Connect discovery only: algorithms of ID tokens.
    pub id_token_signing_alg_values_supported: Option<Vec<String>>,
}

impl ServerMetadata {
    /// A document of that issuer, with `response_types_supported` of `code` and nothing else.
    pub fn new(issuer: Issuer) -> Self {
        Self {
            issuer,
            authorization_endpoint: None,
            token_endpoint: None,
            registration_endpoint: None,
            revocation_endpoint: None,
            introspection_endpoint: None,
            pushed_authorization_request_endpoint: None,
            require_pushed_authorization_requests: false,
            jwks_uri: None,
            response_types_supported: [String::from("code")].into(),
            response_modes_supported: None,
            grant_types_supported: None,
            scopes_supported: None,
            code_challenge_methods_supported: None,
            token_endpoint_auth_methods_supported: None,
            token_endpoint_auth_signing_alg_values_supported: None,
            revocation_endpoint_auth_methods_supported: None,
            revocation_endpoint_auth_signing_alg_values_supported: None,
            introspection_endpoint_auth_methods_supported: None,
            introspection_endpoint_auth_signing_alg_values_supported: None,
            authorization_response_iss_parameter_supported: false,
            client_id_metadata_document_supported: false,
            protected_resources: None,
            dpop_signing_alg_values_supported: None,
            subject_types_supported: None,
            id_token_signing_alg_values_supported: None,
        }
    }

    /// Reads a document of either form.
    ///
    /// # Errors
    /// [`Malformed`] when `issuer` or `response_types_supported` is missing, a member has another JSON type than
    /// its specification gives it, or any endpoint, known or not, has a scheme it must not have.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        // RFC9728-3.2-2: members not read here are ignored, signed_metadata among them (RFC9728-2.2-1)
        let object = JsonObject::parse(bytes, limits::DOCUMENT_BYTES)?;
        refuse_hostile_endpoints(&object)?;
        let members = Members::of(&object);
        let assertion_algorithms = |name| {
            let listed = members.texts(name)?;
            refuse_none(listed.as_deref(), name)?;
            Ok::<_, Malformed>(listed)
        };
        Ok(Self {
            // RFC8414-2-2
            issuer: members.required_typed("issuer", Issuer::new)?,
            // MCP-SBP-040
            authorization_endpoint: members.endpoint("authorization_endpoint")?,
            token_endpoint: members.endpoint("token_endpoint")?,
            registration_endpoint: members.endpoint("registration_endpoint")?,
            // RFC7009-2-2
            revocation_endpoint: members.endpoint("revocation_endpoint")?,
            introspection_endpoint: members.endpoint("introspection_endpoint")?,
            pushed_authorization_request_endpoint: members
                .endpoint("pushed_authorization_request_endpoint")?,
            require_pushed_authorization_requests: members.flag("require_pushed_authorization_requests")?,
            jwks_uri: members.endpoint("jwks_uri")?,
            response_types_supported: members
                .texts("response_types_supported")?
                .ok_or(Malformed::Missing("response_types_supported"))?,
            response_modes_supported: members.texts("response_modes_supported")?,
            grant_types_supported: members.texts("grant_types_supported")?,
            scopes_supported: members.scope_list("scopes_supported", limits::JSON_NODES)?,
            code_challenge_methods_supported: members.texts("code_challenge_methods_supported")?,
            token_endpoint_auth_methods_supported: members.texts("token_endpoint_auth_methods_supported")?,
            token_endpoint_auth_signing_alg_values_supported: assertion_algorithms(
                "token_endpoint_auth_signing_alg_values_supported",
            )?,
            revocation_endpoint_auth_methods_supported: members
                .texts("revocation_endpoint_auth_methods_supported")?,
            revocation_endpoint_auth_signing_alg_values_supported: assertion_algorithms(
                "revocation_endpoint_auth_signing_alg_values_supported",
            )?,
            introspection_endpoint_auth_methods_supported: members
                .texts("introspection_endpoint_auth_methods_supported")?,
            introspection_endpoint_auth_signing_alg_values_supported: assertion_algorithms(
                "introspection_endpoint_auth_signing_alg_values_supported",
            )?,
            authorization_response_iss_parameter_supported: members
                .flag("authorization_response_iss_parameter_supported")?,
            client_id_metadata_document_supported: members.flag("client_id_metadata_document_supported")?,
            protected_resources: members.texts("protected_resources")?,
            dpop_signing_alg_values_supported: members.texts("dpop_signing_alg_values_supported")?,
            subject_types_supported: members.texts("subject_types_supported")?,
            id_token_signing_alg_values_supported: members.texts("id_token_signing_alg_values_supported")?,
        })
    }

    /// Whether the server says that it takes this grant type; a document without the list means
    /// `authorization_code` and `implicit` (RFC 8414 section 2), nothing more.
    pub fn supports_grant_type(&self, grant_type: &str) -> bool {
        // RFC8414-2-7
        match &self.grant_types_supported {
            Some(listed) => listed.iter().any(|listed| listed == grant_type),
            None => matches!(grant_type, "authorization_code" | "implicit"),
        }
    }

    /// Whether the server says that a client may authenticate this way at the token endpoint; a document without
    /// the list means `client_secret_basic` alone.
    pub fn supports_token_endpoint_auth_method(&self, method: &str) -> bool {
        // RFC8414-2-8
        match &self.token_endpoint_auth_methods_supported {
            Some(listed) => listed.iter().any(|listed| listed == method),
            None => method == "client_secret_basic",
        }
    }

    /// Whether the document lists S256; one without the list does not say so.
    pub fn lists_s256(&self) -> bool {
        // MCP-SEC-012
        self.code_challenge_methods_supported
            .as_ref()
            .is_some_and(|listed| listed.iter().any(|m| m == "S256"))
    }

    /// The document as JSON; members without a value are left out, the order is fixed.
    ///
    /// A list that is there and empty is written as it is, because a reader takes its absence for a default. A document
    /// to publish has none (RFC 8414 section 3.2): it says `None` there, as [`AuthorizationServer::metadata`] does.
    ///
    /// [`AuthorizationServer::metadata`]: crate::authorization_server::AuthorizationServer::metadata
    pub fn render(&self) -> Vec<u8> {
        // RFC8414-3.2-1, OIDCD-4.2-1
        Document::new()
            .text("issuer", Some(self.issuer.as_str()))
            .endpoint("authorization_endpoint", self.authorization_endpoint.as_ref())
            .endpoint("token_endpoint", self.token_endpoint.as_ref())
            .endpoint("registration_endpoint", self.registration_endpoint.as_ref())
            .endpoint("revocation_endpoint", self.revocation_endpoint.as_ref())
            .endpoint("introspection_endpoint", self.introspection_endpoint.as_ref())
            .endpoint(
                "pushed_authorization_request_endpoint",
                self.pushed_authorization_request_endpoint.as_ref(),
            )
            .flag("require_pushed_authorization_requests", self.require_pushed_authorization_requests)
            .endpoint("jwks_uri", self.jwks_uri.as_ref())
            .list("response_types_supported", Some(&self.response_types_supported))
            .list("response_modes_supported", self.response_modes_supported.as_deref())
            .list("grant_types_supported", self.grant_types_supported.as_deref())
            .scope_list("scopes_supported", self.scopes_supported.as_ref())
            .list("code_challenge_methods_supported", self.code_challenge_methods_supported.as_deref())
            .list(
                "token_endpoint_auth_methods_supported",
                self.token_endpoint_auth_methods_supported.as_deref(),
            )
            .list(
                "token_endpoint_auth_signing_alg_values_supported",
                self.token_endpoint_auth_signing_alg_values_supported.as_deref(),
            )
            .list(
                "revocation_endpoint_auth_methods_supported",
                self.revocation_endpoint_auth_methods_supported.as_deref(),
            )
            .list(
                "revocation_endpoint_auth_signing_alg_values_supported",
                self.revocation_endpoint_auth_signing_alg_values_supported.as_deref(),
            )
            .list(
                "introspection_endpoint_auth_methods_supported",
                self.introspection_endpoint_auth_methods_supported.as_deref(),
            )
            .list(
                "introspection_endpoint_auth_signing_alg_values_supported",
                self.introspection_endpoint_auth_signing_alg_values_supported.as_deref(),
            )
            .flag(
                "authorization_response_iss_parameter_supported",
                self.authorization_response_iss_parameter_supported,
            )
            .flag("client_id_metadata_document_supported", self.client_id_metadata_document_supported)
            .list("protected_resources", self.protected_resources.as_deref())
            .list("dpop_signing_alg_values_supported", self.dpop_signing_alg_values_supported.as_deref())
            .list("subject_types_supported", self.subject_types_supported.as_deref())
            .list(
                "id_token_signing_alg_values_supported",
                self.id_token_signing_alg_values_supported.as_deref(),
            )
            .finish()
    }
}

/// Endpoints we never use are ignored, but one with a scheme such as `javascript` shows what the document is for.
fn refuse_hostile_endpoints(object: &JsonObject) -> Result<(), Malformed> {
    // MCP-SBP-041
    for name in object.names().filter(|name| name.ends_with("_endpoint")) {
        let Some(JsonValue::String(text)) = object.get(name) else { continue };
        let web = Uri::parse(text).is_ok_and(|uri| {
            uri.scheme().eq_ignore_ascii_case("https") || uri.scheme().eq_ignore_ascii_case("http")
        });
        if !web {
            return Err(Malformed::Invalid("an endpoint"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::option::of;
    use proptest::prelude::*;

    use super::super::arbitrary::{endpoint, maybe_texts, scopes, texts, utf8};
    use super::*;

    const MINIMAL: &str = r#"{"issuer":"https://as.example.com","response_types_supported":["code"]}"#;

    fn with(member: &str) -> Result<ServerMetadata, Malformed> {
        ServerMetadata::parse(
            format!(r#"{{"issuer":"https://as.example.com","response_types_supported":["code"],{member}}}"#)
                .as_bytes(),
        )
    }

    #[test]
    fn a_minimal_document_keeps_its_issuer_byte_for_byte() {
        let document = ServerMetadata::parse(MINIMAL.as_bytes()).unwrap();
        assert_eq!(document.issuer.as_str(), "https://as.example.com");
        assert_eq!(document, ServerMetadata::new(document.issuer.clone()));
        assert_eq!(utf8(&document.render()), MINIMAL);
    }

    #[test]
    fn a_document_without_issuer_or_response_types_is_refused() {
        // RFC8414-2-1, RFC8414-2-5
        for (document, missing) in [
            (r#"{"response_types_supported":["code"]}"#, "issuer"),
            (r#"{"issuer":"","response_types_supported":["code"]}"#, "issuer"),
            (r#"{"issuer":"https://as.example.com"}"#, "response_types_supported"),
        ] {
            assert_eq!(
                ServerMetadata::parse(document.as_bytes()).unwrap_err(),
                Malformed::Missing(missing),
                "{document}"
            );
        }
    }

    #[test]
    fn an_issuer_that_is_not_https_or_has_query_or_fragment_is_refused() {
        // RFC8414-2-2
        for issuer in [
            "http://as.example.com",
            "https://as.example.com?tenant=1",
            "https://as.example.com#x",
            "https://user@as.example.com",
            "ftp://as.example.com",
            "as.example.com",
        ] {
            let document = format!(r#"{{"issuer":"{issuer}","response_types_supported":["code"]}}"#);
            assert_eq!(
                ServerMetadata::parse(document.as_bytes()).unwrap_err(),
                Malformed::Invalid("issuer"),
                "{issuer}"
            );
        }
    }

    #[test]
    fn an_endpoint_of_a_forbidden_scheme_refuses_the_whole_document() {
        // MCP-SBP-040, MCP-SBP-041, RFC7009-2-2
        for name in [
            "authorization_endpoint",
            "token_endpoint",
            "registration_endpoint",
            "revocation_endpoint",
            "introspection_endpoint",
            "pushed_authorization_request_endpoint",
            "jwks_uri",
        ] {
            for url in [
                "javascript:alert(1)",
                "data:text/html,x",
                "file:///etc/passwd",
                "vbscript:x",
                "http://as.example.com/x",
                "https://as.example.com/x#fragment",
                "https://as.example.com/ x",
                "https:///x",
                "/relative",
                "",
            ] {
                assert!(with(&format!(r#""{name}":"{url}""#)).is_err(), "{name}: {url}");
            }
            assert!(with(&format!(r#""{name}":"https://as.example.com/x""#)).is_ok(), "{name}");
            assert!(with(&format!(r#""{name}":"http://127.0.0.1:8080/x""#)).is_ok(), "{name}");
        }
    }

    #[test]
    fn even_an_endpoint_we_never_use_must_not_have_a_hostile_scheme() {
        // MCP-SBP-041
        for url in ["javascript:alert(1)", "data:,x", "file:///x", "not a url"] {
            assert!(with(&format!(r#""device_authorization_endpoint":"{url}""#)).is_err(), "{url}");
        }
        assert!(with(r#""userinfo_endpoint":"https://as.example.com/me""#).is_ok());
        assert!(with(r#""op_policy_uri":"anything","x_endpoint":5"#).is_ok());
    }

    #[test]
    fn a_member_of_another_json_type_is_refused_never_read_as_absent() {
        // I-G2
        for member in [
            r#""code_challenge_methods_supported":"S256""#,
            r#""code_challenge_methods_supported":null"#,
            r#""authorization_response_iss_parameter_supported":"true""#,
            r#""authorization_response_iss_parameter_supported":1"#,
            r#""client_id_metadata_document_supported":null"#,
            r#""token_endpoint":["https://as.example.com/token"]"#,
            r#""scopes_supported":"a""#,
            r#""grant_types_supported":{}"#,
        ] {
            assert!(matches!(with(member), Err(Malformed::Json(_))), "{member}");
        }
    }

    #[test]
    fn absent_lists_have_the_meaning_the_rfc_gives_them_and_empty_ones_mean_nothing() {
        // RFC8414-2-7, RFC8414-2-8, MCP-SEC-012, I-G8
        let absent = ServerMetadata::parse(MINIMAL.as_bytes()).unwrap();
        assert!(absent.supports_grant_type("authorization_code"));
        assert!(!absent.supports_grant_type("refresh_token"));
        assert!(absent.supports_token_endpoint_auth_method("client_secret_basic"));
        assert!(!absent.supports_token_endpoint_auth_method("none"));
        assert!(!absent.lists_s256());
        let empty = with(
            r#""grant_types_supported":[],"token_endpoint_auth_methods_supported":[],"code_challenge_methods_supported":[]"#,
        )
        .unwrap();
        assert!(!empty.supports_grant_type("authorization_code"));
        assert!(!empty.supports_token_endpoint_auth_method("client_secret_basic"));
        assert!(!empty.lists_s256());
        for (list, listed) in
            [(r#"["S256"]"#, true), (r#"["plain","S256"]"#, true), (r#"["s256","plain"]"#, false)]
        {
            let document = with(&format!(r#""code_challenge_methods_supported":{list}"#)).unwrap();
            assert_eq!(document.lists_s256(), listed, "{list}");
        }
    }

    #[test]
    fn none_is_no_signature_algorithm() {
        // RFC8414-2-11
        for endpoint in ["token", "revocation", "introspection"] {
            let list =
                |name| format!(r#""{endpoint}_endpoint_auth_signing_alg_values_supported":["ES256"{name}]"#);
            assert!(with(&list("")).is_ok(), "{endpoint}");
            assert!(with(&list(r#","none""#)).is_err(), "{endpoint}");
        }
    }

    #[test]
    fn unknown_members_are_ignored_but_a_repeated_one_is_refused() {
        // RFC9728-3.2-2, I-G2
        assert!(with(r#""signed_metadata":"x.y.z","mtls_endpoint_aliases":{"token_endpoint":1}"#).is_ok());
        assert!(with(r#""issuer":"https://evil.example""#).is_err());
    }

    #[test]
    fn a_list_of_scopes_without_elements_is_left_out() {
        // RFC8414-3.2-1, OIDCD-4.2-1
        let mut document = ServerMetadata::parse(MINIMAL.as_bytes()).unwrap();
        document.scopes_supported = Some(ScopeSet::default());
        assert_eq!(utf8(&document.render()), MINIMAL);
        assert_eq!(with(r#""scopes_supported":[]"#).unwrap().scopes_supported, None);
    }

    #[test]
    fn a_document_that_offers_nothing_offers_nothing_after_it_is_written() {
        // I-G8
        let empty = with(
            r#""grant_types_supported":[],"token_endpoint_auth_methods_supported":[],"protected_resources":[]"#,
        )
        .unwrap();
        let again = ServerMetadata::parse(&empty.render()).unwrap();
        assert!(!again.supports_grant_type("authorization_code"));
        assert!(!again.supports_token_endpoint_auth_method("client_secret_basic"));
        assert_eq!(again.protected_resources, Some(Vec::new()));
        assert_eq!(again, empty);
    }

    proptest! {
        #[test]
        fn what_is_rendered_reads_back_the_same(
            endpoints in proptest::collection::vec(of(endpoint()), 7),
            lists in proptest::collection::vec(maybe_texts(), 10),
            flags in proptest::collection::vec(any::<bool>(), 3),
            types in texts(), scopes in of(scopes()),
        ) {
            let document = ServerMetadata {
                issuer: Issuer::new("https://as.example.com/tenant").unwrap(),
                authorization_endpoint: endpoints[0].clone(),
                token_endpoint: endpoints[1].clone(),
                registration_endpoint: endpoints[2].clone(),
                revocation_endpoint: endpoints[3].clone(),
                introspection_endpoint: endpoints[4].clone(),
                pushed_authorization_request_endpoint: endpoints[5].clone(),
                require_pushed_authorization_requests: flags[0],
                jwks_uri: endpoints[6].clone(),
                response_types_supported: types,
                response_modes_supported: lists[0].clone(),
                grant_types_supported: lists[1].clone(),
                scopes_supported: scopes,
                code_challenge_methods_supported: lists[2].clone(),
                token_endpoint_auth_methods_supported: lists[3].clone(),
                token_endpoint_auth_signing_alg_values_supported: Some(["ES256".into()].into()),
                revocation_endpoint_auth_methods_supported: lists[4].clone(),
                revocation_endpoint_auth_signing_alg_values_supported: Some(["EdDSA".into()].into()),
                introspection_endpoint_auth_methods_supported: lists[5].clone(),
                introspection_endpoint_auth_signing_alg_values_supported: None,
                authorization_response_iss_parameter_supported: flags[1],
                client_id_metadata_document_supported: flags[2],
                protected_resources: lists[6].clone(),
                dpop_signing_alg_values_supported: lists[7].clone(),
                subject_types_supported: lists[8].clone(),
                id_token_signing_alg_values_supported: lists[9].clone(),
            };
            let bytes = document.render();
            prop_assert_eq!(ServerMetadata::parse(&bytes).unwrap(), document.clone());
            prop_assert_eq!(document.render(), bytes);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = ServerMetadata::parse(&bytes);
        }
    }
}
