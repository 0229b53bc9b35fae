//! The document of a protected resource (RFC 9728 section 2): who it is and who issues tokens for it.
//!
//! Whether the document belongs to the resource asked for is not decided here: the client compares `resource`
//! with the identifier the document's URL was made from (RFC 9728 section 3.3).

use alloc::string::String;
use alloc::vec::Vec;

use crate::identifier::{Endpoint, Issuer, ResourceId, ScopeSet};
use crate::limits;
use crate::syntax::json::JsonObject;

use super::read::{Document, Members};
use super::{Malformed, PageUri};

/// Protected resource metadata; members that are not here are ignored when read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectedResourceMetadata {
    /// The resource's identifier, exactly as written.
    pub resource: ResourceId,
    /// The issuers of tokens for it, in the document's order.
    pub authorization_servers: Vec<Issuer>,
    /// The scopes it knows.
    pub scopes_supported: Option<ScopeSet>,
    /// Where a token may stand in a request; for MCP `header` only. An empty list says that no token is taken at all.
    pub bearer_methods_supported: Option<Vec<String>>,
    /// The resource's own keys.
    pub jwks_uri: Option<Endpoint>,
    /// Algorithms of signed answers of the resource.
    pub resource_signing_alg_values_supported: Option<Vec<String>>,
    /// Its name, self-asserted, for a person.
    pub resource_name: Option<String>,
    /// Documentation for developers.
    pub resource_documentation: Option<PageUri>,
    /// Its policy on the use of data.
    pub resource_policy_uri: Option<PageUri>,
    /// Its terms of service.
    pub resource_tos_uri: Option<PageUri>,
    /// Whether it takes only tokens bound to a DPoP key (RFC 9449).
    pub dpop_bound_access_tokens_required: bool,
}

impl ProtectedResourceMetadata {
    /// A document with a resource and its issuers, and nothing else.
    pub fn new(resource: ResourceId, authorization_servers: Vec<Issuer>) -> Self {
        Self {
            resource,
            authorization_servers,
            scopes_supported: None,
            bearer_methods_supported: None,
            jwks_uri: None,
            resource_signing_alg_values_supported: None,
            resource_name: None,
            resource_documentation: None,
            resource_policy_uri: None,
            resource_tos_uri: None,
            dpop_bound_access_tokens_required: false,
        }
    }

    /// Reads a document.
    ///
    /// A document without `authorization_servers` has an empty list here: RFC 9728 permits it, MCP does not, and
    /// the client says so.
    ///
    /// # Errors
    /// [`Malformed`] when `resource` is missing, a member has another JSON type than the RFC gives it, an issuer,
    /// endpoint or scope breaks its grammar, or there are more issuers than
    /// [`limits::AUTHORIZATION_SERVERS`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        // RFC9728-3.2-2: members not read here are ignored; RFC9728-2.2-1: signed_metadata is one of them
        let object = JsonObject::parse(bytes, limits::DOCUMENT_BYTES)?;
        let members = Members::of(&object);
        let signing = members.texts("resource_signing_alg_values_supported")?;
        refuse_none(signing.as_deref(), "resource_signing_alg_values_supported")?;
        Ok(Self {
            // RFC9728-2-2, RFC9728-6-1
            resource: members.required_typed("resource", ResourceId::new)?,
            authorization_servers: members
                .typed_list("authorization_servers", limits::AUTHORIZATION_SERVERS, Issuer::new)?
                .unwrap_or_default(),
            scopes_supported: members.scope_list("scopes_supported", limits::SCOPES)?,
            bearer_methods_supported: members.texts("bearer_methods_supported")?,
            // RFC9728-2-7
            jwks_uri: members.endpoint("jwks_uri")?,
            resource_signing_alg_values_supported: signing,
            // RFC9728-2.1-1
            resource_name: members.display_text("resource_name", limits::DOCUMENT_BYTES)?,
            resource_documentation: members.page("resource_documentation")?,
            resource_policy_uri: members.page("resource_policy_uri")?,
            resource_tos_uri: members.page("resource_tos_uri")?,
            dpop_bound_access_tokens_required: members.flag("dpop_bound_access_tokens_required")?,
        })
    }

    /// The document as JSON; members without a value are left out, the order is fixed. A list that is there and empty is
    /// written as it is: it says more than its absence.
    pub fn render(&self) -> Vec<u8> {
        // RFC9728-2-1, RFC9728-3.2-3
        Document::new()
            .text("resource", Some(self.resource.as_str()))
            .texts("authorization_servers", self.authorization_servers.iter().map(Issuer::as_str))
            .scope_list("scopes_supported", self.scopes_supported.as_ref())
            .list("bearer_methods_supported", self.bearer_methods_supported.as_deref())
            .endpoint("jwks_uri", self.jwks_uri.as_ref())
            .list(
                "resource_signing_alg_values_supported",
                self.resource_signing_alg_values_supported.as_deref(),
            )
            .text("resource_name", self.resource_name.as_deref())
            .page("resource_documentation", self.resource_documentation.as_ref())
            .page("resource_policy_uri", self.resource_policy_uri.as_ref())
            .page("resource_tos_uri", self.resource_tos_uri.as_ref())
            .flag("dpop_bound_access_tokens_required", self.dpop_bound_access_tokens_required)
            .finish()
    }
}

/// No list of signature algorithms may offer to do without a signature.
pub(super) fn refuse_none(algorithms: Option<&[String]>, name: &'static str) -> Result<(), Malformed> {
    // RFC9728-2-8, RFC8414-2-11
    match algorithms.unwrap_or_default().iter().any(|algorithm| algorithm == "none") {
        true => Err(Malformed::Invalid(name)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::prelude::*;

    use super::super::arbitrary::{endpoint, https_url, maybe_texts, page, scopes, text, utf8};
    use super::*;

    const MINIMAL: &str =
        r#"{"authorization_servers":["https://as.example.com"],"resource":"https://mcp.example.com/mcp"}"#;

    fn with(member: &str) -> Result<ProtectedResourceMetadata, Malformed> {
        ProtectedResourceMetadata::parse(
            format!(r#"{{"resource":"https://mcp.example.com/mcp",{member}}}"#).as_bytes(),
        )
    }

    #[test]
    fn a_minimal_document_keeps_its_identifiers_byte_for_byte() {
        // RFC9728-2-1
        let document = ProtectedResourceMetadata::parse(MINIMAL.as_bytes()).unwrap();
        assert_eq!(document.resource.as_str(), "https://mcp.example.com/mcp");
        assert_eq!(document.authorization_servers[0].as_str(), "https://as.example.com");
        assert_eq!(utf8(&document.render()), MINIMAL);
    }

    #[test]
    fn identifiers_are_read_after_json_escapes_and_changed_in_no_other_way() {
        // RFC9728-6-1
        let document = ProtectedResourceMetadata::parse(
            br#"{"resource":"https:\/\/mcp.example.com\/\u0041%41/","authorization_servers":[]}"#,
        )
        .unwrap();
        assert_eq!(document.resource.as_str(), "https://mcp.example.com/A%41/");
    }

    #[test]
    fn a_document_without_resource_is_refused() {
        // RFC9728-2-2
        for document in
            [r#"{"authorization_servers":["https://as.example.com"]}"#, r#"{"resource":""}"#, "{}"]
        {
            assert_eq!(
                ProtectedResourceMetadata::parse(document.as_bytes()).unwrap_err(),
                Malformed::Missing("resource")
            );
        }
    }

    #[test]
    fn a_member_of_another_json_type_is_refused_never_read_as_absent() {
        // RFC9728-2-2, I-G2
        for member in [
            r#""authorization_servers":"https://as.example.com""#,
            r#""authorization_servers":null"#,
            r#""authorization_servers":["https://as.example.com",1]"#,
            r#""scopes_supported":"a b""#,
            r#""bearer_methods_supported":"header""#,
            r#""jwks_uri":7"#,
            r#""resource_name":["x"]"#,
            r#""dpop_bound_access_tokens_required":"true""#,
        ] {
            let error = with(member).unwrap_err();
            assert!(matches!(error, Malformed::Json(_)), "{member}: {error:?}");
            assert!(error.member().is_some(), "{member}");
        }
        for document in
            [r#"{"resource":null}"#, r#"{"resource":["https://mcp.example.com"]}"#, "[]", "null", ""]
        {
            assert!(ProtectedResourceMetadata::parse(document.as_bytes()).is_err(), "{document}");
        }
    }

    #[test]
    fn hostile_members_refuse_the_whole_document() {
        // MCP-SBP-041, RFC9728-2-7, RFC9728-2-8
        for member in [
            r#""authorization_servers":["http://as.example.com"]"#,
            r#""authorization_servers":["https://as.example.com?x=1"]"#,
            r#""authorization_servers":["https://as.example.com","javascript:alert(1)"]"#,
            r#""jwks_uri":"http://mcp.example.com/jwks""#,
            r#""jwks_uri":"file:///etc/passwd""#,
            r#""scopes_supported":["a b"]"#,
            r#""scopes_supported":["a\"b"]"#,
            r#""scopes_supported":[""]"#,
            r#""resource_signing_alg_values_supported":["ES256","none"]"#,
            r#""resource_documentation":"javascript:alert(1)""#,
        ] {
            assert!(matches!(with(member), Err(Malformed::Invalid(_))), "{member}");
        }
    }

    #[test]
    fn more_issuers_than_the_limit_are_refused() {
        let issuers = |count: usize| {
            let list: Vec<String> = (0..count).map(|i| format!("\"https://as{i}.example\"")).collect();
            with(&format!("\"authorization_servers\":[{}]", list.join(",")))
        };
        assert_eq!(
            issuers(limits::AUTHORIZATION_SERVERS).unwrap().authorization_servers.len(),
            limits::AUTHORIZATION_SERVERS
        );
        assert_eq!(
            issuers(limits::AUTHORIZATION_SERVERS + 1).unwrap_err(),
            Malformed::Invalid("authorization_servers")
        );
    }

    #[test]
    fn unknown_members_are_ignored_but_a_repeated_one_is_refused() {
        // RFC9728-3.2-2, RFC9728-2.2-1, I-G2
        assert!(with(r#""signed_metadata":"x.y.z","x-anything":{"a":[null]}"#).is_ok());
        assert!(with(r#""resource":"https://evil.example""#).is_err());
        assert!(with(r#""x":1,"x":2"#).is_err());
    }

    #[test]
    fn lists_without_elements_are_left_out_where_absence_says_the_same() {
        // RFC9728-3.2-3
        let mut document = ProtectedResourceMetadata::parse(MINIMAL.as_bytes()).unwrap();
        document.authorization_servers.clear();
        document.scopes_supported = Some(ScopeSet::new());
        assert_eq!(utf8(&document.render()), r#"{"resource":"https://mcp.example.com/mcp"}"#);
    }

    #[test]
    fn a_resource_that_takes_no_token_says_so_after_it_is_written() {
        // I-G8
        let document = with(r#""bearer_methods_supported":[]"#).unwrap();
        assert_eq!(document.bearer_methods_supported, Some(Vec::new()));
        assert_eq!(ProtectedResourceMetadata::parse(&document.render()), Ok(document));
    }

    proptest! {
        #[test]
        fn what_is_rendered_reads_back_the_same(
            resource in https_url(), issuers in proptest::collection::vec("https://[a-z]{1,9}\\.example", 0..4),
            scopes in proptest::option::of(scopes()), methods in maybe_texts(), jwks in proptest::option::of(endpoint()),
            name in proptest::option::of(text()), page in proptest::option::of(page()), dpop: bool,
        ) {
            // RFC9728-2.1-1
            let document = ProtectedResourceMetadata {
                scopes_supported: scopes,
                bearer_methods_supported: methods,
                jwks_uri: jwks,
                resource_name: name,
                resource_documentation: page.clone(),
                resource_policy_uri: page.clone(),
                resource_tos_uri: page,
                dpop_bound_access_tokens_required: dpop,
                ..ProtectedResourceMetadata::new(
                    ResourceId::new(resource).unwrap(),
                    issuers.into_iter().map(|issuer| Issuer::new(issuer).unwrap()).collect(),
                )
            };
            prop_assert_eq!(ProtectedResourceMetadata::parse(&document.render()).unwrap(), document);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = ProtectedResourceMetadata::parse(&bytes);
        }
    }
}
