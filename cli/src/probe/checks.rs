//! Every check, with its name in JSON and the requirements it is about (`docs/requirements.toml`). A check without one is
//! of good practice, and never fails.

use serde::Serialize;

/// A check: its stable name, the requirements it is about, and what a good server does, for people.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// The name in JSON; it does not change.
    #[serde(rename = "check")]
    pub(crate) name: &'static str,
    /// The ids of the requirements.
    pub(crate) requirements: &'static [&'static str],
    /// What is checked.
    pub(crate) title: &'static str,
}

macro_rules! checks {
    ($($ident:ident: $name:literal, [$($id:literal),*], $title:literal;)+) => {
        $(pub(crate) static $ident: Check = Check { name: $name, requirements: &[$($id),*], title: $title };)+

        /// All of them, in the order of a report.
        #[cfg(test)]
        pub(crate) static ALL: &[&Check] = &[$(&$ident),+];
    };
}

checks! {
    TRANSPORT: "server.https", ["OAUTH21-1.5-1"], "https, or http on this machine";
    NO_TOKEN_STATELESS: "no-token.stateless", ["MCP-AUTH-076"], "401 without a token (tools/list)";
    NO_TOKEN_INITIALIZE: "no-token.initialize", ["MCP-AUTH-076"], "401 without a token (initialize)";
    NO_TOKEN_GET: "no-token.get", ["MCP-AUTH-076"], "nothing by GET without a token";

    CHALLENGE_PRESENT: "challenge.present", ["OAUTH21-5.3.1-1"], "each 401 has WWW-Authenticate";
    CHALLENGE_GRAMMAR: "challenge.grammar", ["RFC9110-11.6.1-1"], "WWW-Authenticate is a list of challenges";
    CHALLENGE_REPEATS: "challenge.repeats", ["OAUTH21-5.3.1-3", "RFC9110-11.2-2"], "no parameter of a challenge stands twice";
    CHALLENGE_BEARER: "challenge.bearer", ["OAUTH21-5.3.1-2"], "the scheme is Bearer, with one parameter or more";
    CHALLENGE_CHARACTERS: "challenge.characters", ["OAUTH21-5.3.1-4"], "its values stay in their character sets";
    CHALLENGE_QUIET: "challenge.quiet", ["OAUTH21-5.3.2-2"], "no error where no token was sent";
    CHALLENGE_METADATA: "challenge.resource-metadata", ["MCP-DISC-005", "MCP-L0618-001"], "it says where the metadata is";
    CHALLENGE_ORIGIN: "challenge.metadata-url", ["MCP-SBP-020"], "the metadata is on the server's own origin";
    CHALLENGE_SCOPE: "challenge.scope", ["MCP-AUTH-014"], "it names the scopes needed";
    CHALLENGE_SCOPE_GRAMMAR: "challenge.scope-grammar", ["OAUTH21-A-1"], "scopes, with single spaces between";
    CHALLENGE_OFFLINE: "challenge.offline-access", ["MCP-AUTH-085"], "offline_access is not one of them";

    BAD_TOKEN: "bad-token.status", ["MCP-AUTH-076"], "401 for a token nobody issued";
    BAD_TOKEN_ERROR: "bad-token.error", ["OAUTH21-5.3.1-5", "OAUTH21-5.3.2-1"], "error=\"invalid_token\" for a bad token";
    BAD_TOKEN_CHALLENGE: "bad-token.challenge", ["OAUTH21-5.3.1-1"], "a challenge for a bad token, too";
    QUERY_TOKEN: "query-token", ["OAUTH21-5.1-2"], "a token in the query counts for nothing";
    MALFORMED_AUTHORIZATION: "malformed-authorization", ["MCP-AUTH-092"], "400 or 401 for a malformed field";
    TWO_AUTHORIZATIONS: "two-authorizations", ["MCP-AUTH-092"], "400 or 401 for two fields";
    OTHER_SCHEME: "other-scheme", ["MCP-AUTH-076"], "400 or 401 for Basic";
    CORS_SERVER: "server.cors", [], "pages of other origins may ask, and read the challenge";

    RESOURCE_FOUND: "resource-metadata.found", ["MCP-AUTH-009", "MCP-DISC-005"], "there is a document";
    RESOURCE_STATUS: "resource-metadata.status", ["RFC9728-3.2-1", "MCP-SBP-024"], "200, without a redirect";
    RESOURCE_TYPE: "resource-metadata.content-type", ["RFC9728-3.2-1"], "application/json";
    RESOURCE_SIZE: "resource-metadata.size", ["RFC9728-3.2-1"], "at most 64 KiB, within 10 seconds";
    RESOURCE_JSON: "resource-metadata.json", ["RFC9728-3.2-1"], "one JSON object, no member twice";
    RESOURCE_MEMBERS: "resource-metadata.members", ["RFC9728-2-2"], "members have their types and grammars";
    RESOURCE_EMPTY: "resource-metadata.empty-members", ["RFC9728-3.2-3"], "no empty arrays";
    RESOURCE_MATCH: "resource-metadata.resource", ["RFC9728-3.3-1", "RFC9728-3.3-2"], "its resource is this server's URL";
    RESOURCE_ISSUERS: "resource-metadata.authorization-servers", ["MCP-DISC-001", "RFC8414-2-1"], "it names authorization servers";
    RESOURCE_METHODS: "resource-metadata.bearer-methods", ["RFC9728-2-5", "RFC9728-2-6"], "tokens go in the header";
    RESOURCE_SCOPES: "resource-metadata.scopes", ["RFC9728-2-3"], "it lists its scopes";
    RESOURCE_OFFLINE: "resource-metadata.offline-access", ["MCP-AUTH-086"], "offline_access is not among the scopes";
    RESOURCE_NAME: "resource-metadata.name", ["RFC9728-2-4"], "it has a name for people";
    RESOURCE_AGREE: "resource-metadata.agreement", ["RFC9728-3-1", "MCP-DISC-006"], "every place says the same";
    RESOURCE_CORS: "resource-metadata.cors", [], "pages of other origins may read it";

    ISSUER_ADDRESS: "issuer.address", ["MCP-SBP-020"], "on an address a client may contact";
    SERVER_FOUND: "server-metadata.found", ["MCP-AUTH-011"], "there is a document";
    SERVER_RFC8414: "server-metadata.rfc8414", ["RFC8414-3-1", "MCP-L0618-002"], "at the RFC 8414 place";
    SERVER_TYPE: "server-metadata.content-type", ["RFC8414-3.2-1"], "200, application/json";
    SERVER_JSON: "server-metadata.json", ["RFC8414-3.2-1"], "one JSON object, no member twice";
    SERVER_MEMBERS: "server-metadata.members", ["RFC8414-2-1", "RFC8414-2-5", "MCP-SBP-041"], "members have their types and grammars";
    SERVER_ISSUER: "server-metadata.issuer", ["MCP-DISC-015", "RFC9207-2.3-1"], "its issuer is the one asked for, byte for byte";
    SERVER_ENDPOINTS: "server-metadata.endpoints", ["RFC8414-2-3", "MCP-SEC-005"], "authorization and token endpoint, on https";
    SERVER_ADDRESSES: "server-metadata.addresses", ["MCP-SBP-020"], "endpoints on addresses a client may contact";
    SERVER_CODE: "server-metadata.code-grant", ["RFC8414-2-5", "RFC8414-2-7"], "the code grant is offered";
    SERVER_OLD_GRANTS: "server-metadata.old-grants", ["OAUTH21-10.1-2"], "no implicit and no password grant";
    SERVER_PKCE: "server-metadata.pkce", ["MCP-SEC-014", "MCP-SEC-012"], "PKCE with S256 is listed";
    SERVER_PLAIN: "server-metadata.pkce-plain", ["RFC7636-7.2-2"], "plain is not listed";
    SERVER_ISS: "server-metadata.iss", ["MCP-AUTH-031", "MCP-AUTH-032"], "responses carry iss";
    SERVER_AUTH_METHODS: "server-metadata.auth-methods", ["RFC8414-2-8"], "a client without a secret may use the token endpoint";
    SERVER_AUTH_ALGORITHMS: "server-metadata.auth-algorithms", ["RFC8414-2-10"], "algorithms of assertions are listed";
    SERVER_REGISTRATION: "server-metadata.registration", ["MCP-AUTH-005", "MCP-REG-026"], "a client can introduce itself";
    SERVER_SCOPES: "server-metadata.scopes", ["RFC8414-2-6"], "it lists scopes, the resource's among them";
    SERVER_RESOURCES: "server-metadata.protected-resources", ["RFC9728-4-1"], "if it lists resources, this one is among them";
    SERVER_OPENID: "server-metadata.openid", ["OIDCD-3-1", "MCP-SEC-014"], "the OpenID document has what it must have";
    SERVER_AGREE: "server-metadata.agreement", ["RFC9207-2.3-1"], "both documents say the same";
    SERVER_KEYS: "server-metadata.keys", ["RFC8414-2-12"], "jwks_uri has public keys, and nothing else";
    SERVER_CORS: "server-metadata.cors", [], "pages of other origins may read the metadata";

    AUTHORIZE_REDIRECT: "authorize.open-redirect", ["OAUTH21-2.3.5-1"], "authorization endpoint: no redirect for an unknown client";
    AUTHORIZE_CORS: "authorize.cors", ["OAUTH21-3.1-9"], "authorization endpoint: no CORS";
    TOKEN_ERROR: "token.error", ["OAUTH21-3.2.4-1"], "token endpoint: a JSON error for a made-up code";
    TOKEN_TEXT: "token.error-text", ["OAUTH21-3.2.4-7"], "token endpoint: errors tell nothing of its insides";
    TOKEN_STORE: "token.no-store", ["OAUTH21-3.2.3-8"], "token endpoint: Cache-Control is no-store";
    TOKEN_GET: "token.get", ["OAUTH21-3.2-2"], "token endpoint: nothing for GET";
    REVOCATION: "revocation", ["RFC7009-2.1-2"], "revocation endpoint: not for anybody";
    INTROSPECTION: "introspection", ["RFC7662-2.1-2"], "introspection endpoint: not for anybody";

    REGISTER_CREATED: "register.created", ["RFC7591-3.2.1-1"], "registration: 201 with a client_id";
    REGISTER_ECHO: "register.redirect-uri", ["RFC7591-3.2.1-1", "MCP-SEC-015"], "registration: the redirect URI comes back";
    REGISTER_SECRET: "register.secret", ["OAUTH21-2.1-1", "RFC7591-3.2.1-2"], "registration: no secret where none was asked for";
    REGISTER_CLIENT_ID: "register.client-id", ["CIMD-6.9-1"], "registration: the client_id is no https URL";
    REGISTER_SCHEME: "register.script-redirect", ["MCP-SEC-008"], "registration: no javascript: redirect URI";
    REGISTER_HTTP: "register.http-redirect", ["MCP-SEC-008"], "registration: no http redirect URI on another host";
    KNOWN_REDIRECT: "registered.open-redirect", ["OAUTH21-2.3.5-1"], "registered client: no redirect to another's URI";
    KNOWN_NO_PKCE: "registered.no-pkce", ["OAUTH21-4.1.2.1-1"], "registered client: no code without a code challenge";
    KNOWN_PLAIN: "registered.plain-pkce", ["OAUTH21-4.1.2.1-2"], "registered client: no code for plain";
    KNOWN_RESPONSE: "registered.error-response", ["OAUTH21-4.1.2-3", "RFC9207-2-1"], "registered client: errors have state and iss";

    CLIENT: "client.discovery", ["MCP-AUTH-010"], "a strict client finds its way";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ALL;

    #[test]
    fn names_are_unique_and_every_requirement_is_in_the_ledger() {
        let ledger = include_str!("../../../docs/requirements.toml");
        let names: BTreeSet<&str> = ALL.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), ALL.len());
        for check in ALL {
            for id in check.requirements {
                assert!(ledger.contains(&format!("id = \"{id}\"")), "{}: {id}", check.name);
            }
        }
    }

    #[test]
    fn the_documentation_lists_every_check_as_it_is() {
        let documentation = include_str!("../../../docs/probe.md");
        let rows = documentation
            .lines()
            .skip_while(|line| *line != "## Checks")
            .filter(|line| line.starts_with("| `"));
        let expected: Vec<String> = ALL
            .iter()
            .map(|check| {
                let ids = check.requirements.join(", ");
                let ids = if ids.is_empty() { "practice" } else { ids.as_str() };
                format!("| `{}` | {ids} | {} |", check.name, check.title)
            })
            .collect();
        assert_eq!(rows.collect::<Vec<_>>(), expected);
    }
}
