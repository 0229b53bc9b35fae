//! The documents and replies a peer sends: what is accepted reads the same after it is written, and keeps its bounds.

use mcp_authz::identifier::Endpoint;
use mcp_authz::message::authorization::Callback;
use mcp_authz::message::client_metadata::{ClientMetadata, ClientMetadataDocument, RegistrationReply};
use mcp_authz::message::introspection::IntrospectionResponse;
use mcp_authz::message::protected_resource_metadata::ProtectedResourceMetadata;
use mcp_authz::message::server_metadata::ServerMetadata;
use mcp_authz::message::token::TokenReply;

/// Every JSON document of the protocol, from the same bytes (I-G1, I-G2, I-L9, MCP-SBP-041).
pub fn documents(data: &[u8]) {
    if let Ok(document) = ProtectedResourceMetadata::parse(data) {
        let again = ProtectedResourceMetadata::parse(&document.render());
        assert_eq!(again.as_ref(), Ok(&document), "resource metadata reads differently after it is written");
    }
    if let Ok(document) = ServerMetadata::parse(data) {
        for endpoint in [&document.authorization_endpoint, &document.token_endpoint].into_iter().flatten() {
            assert_web(endpoint);
        }
        let again = ServerMetadata::parse(&document.render());
        assert_eq!(again.as_ref(), Ok(&document), "server metadata reads differently after it is written");
    }
    if let Ok(metadata) = ClientMetadata::parse(data) {
        // Redirect URIs that no policy of ours takes are set aside and never written.
        let kept = ClientMetadata { other_redirect_uris: Vec::new(), ..metadata };
        assert_eq!(
            ClientMetadata::parse(&kept.render()).as_ref(),
            Ok(&kept),
            "client metadata reads differently"
        );
    }
    if let Ok(document) = ClientMetadataDocument::parse(data) {
        assert!(
            !String::from_utf8_lossy(data).contains("\"client_secret\""),
            "a document with a secret was taken"
        );
        assert!(document.metadata().client_name.is_some());
        let kept = ClientMetadata { other_redirect_uris: Vec::new(), ..document.metadata().clone() };
        if let Ok(kept) = ClientMetadataDocument::new(document.client_id().clone(), kept) {
            let again = ClientMetadataDocument::parse(&kept.render());
            assert_eq!(
                again.as_ref(),
                Ok(&kept),
                "a client's document reads differently after it is written"
            );
        }
    }
    for status in [200, 201, 400] {
        registration_reply(status, data);
        if let Ok(TokenReply::Tokens(tokens)) = TokenReply::parse(status, data) {
            assert_eq!(status, 200, "tokens of another status");
            let text = tokens.access_token.expose();
            assert!(
                !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()),
                "a token that breaks a field"
            );
        }
    }
    let _ = IntrospectionResponse::parse(data);
}

/// What a server registered reads the same after it is written, its secrets and all.
fn registration_reply(status: u16, data: &[u8]) {
    let Ok(RegistrationReply::Registered(mut reply)) = RegistrationReply::parse(status, data) else { return };
    assert_ne!(status, 400, "a registration under an error's status");
    reply.metadata.other_redirect_uris.clear();
    let written = reply.render();
    let Ok(RegistrationReply::Registered(again)) = RegistrationReply::parse(status, &written) else {
        panic!("a registration that cannot be read after it is written")
    };
    assert_eq!(again.metadata, reply.metadata, "registered metadata reads differently after it is written");
    assert_eq!(again.render(), written, "a registration reads differently after it is written");
}

fn assert_web(endpoint: &Endpoint) {
    let text = endpoint.as_str();
    let loopback =
        ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|start| text.starts_with(start));
    assert!(text.starts_with("https://") || loopback, "an endpoint that is no web address");
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "an endpoint that is no printable ASCII");
}

/// A callback URL: one meaning, its location as it came (I-L4, OAUTH21-4.1.2-6).
pub fn callback(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(callback) = Callback::from_url(text) else { return };
    let (location, query) = text.split_once('?').unwrap_or((text, ""));
    assert_eq!(callback.location(), location, "the location was changed");
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let values =
        |name: &str| pairs.iter().filter(|(known, value)| known == name && !value.is_empty()).count();
    assert_eq!(values("code") + values("error"), 1, "not exactly one of code and error");
    assert!(values("state") <= 1 && values("iss") <= 1, "a repeated parameter was taken");
    let state = pairs
        .iter()
        .find(|(name, value)| name == "state" && !value.is_empty())
        .map(|(_, value)| value.as_str());
    assert_eq!(callback.state().map(|state| state.expose()), state, "two readings of state");
}
