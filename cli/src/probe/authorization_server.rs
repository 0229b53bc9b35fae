//! Judgments of an authorization server's metadata: RFC 8414 sections 2 and 3, OpenID Connect discovery, MCP
//! authorization.

use mcp_authz::client::Client;
use mcp_authz::error::{Error, Remedy};
use mcp_authz::identifier::{Endpoint, Issuer, ResourceId, Scope, ScopeSet};
use mcp_authz::limits;
use mcp_authz::message::Malformed;
use mcp_authz::message::server_metadata::ServerMetadata;
use mcp_authz::policy::Relaxation;
use mcp_authz::revision::Revision;
use mcp_authz::syntax::json::{JsonError, JsonObject};

use super::checks::{self, Check};
use super::finding::{Section, option};
use super::line::{Count, Line, Peer, Peers, line};
use super::mcp_server::shown;
use super::observation::{Answer, Observed};
use super::resource::{content_type, is_document};

/// What was seen of one authorization server.
#[derive(Debug)]
pub(crate) struct Seen {
    /// As the resource lists it.
    pub(crate) issuer: Issuer,
    /// The places of its metadata, in the order of a client, and what is there.
    pub(crate) places: Vec<(String, Observed)>,
    /// What the strict client came to with the same answers.
    pub(crate) client: Result<ServerMetadata, Error>,
}

/// What it is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Against<'a> {
    pub(crate) client: &'a Client,
    pub(crate) server: &'a ResourceId,
    /// The resource as its metadata names it.
    pub(crate) resource: &'a ResourceId,
    pub(crate) scopes: Option<&'a ScopeSet>,
}

const ORDER: [&Check; 20] = [
    &checks::SERVER_FOUND,
    &checks::SERVER_RFC8414,
    &checks::SERVER_TYPE,
    &checks::SERVER_JSON,
    &checks::SERVER_MEMBERS,
    &checks::SERVER_ISSUER,
    &checks::SERVER_ENDPOINTS,
    &checks::SERVER_ADDRESSES,
    &checks::SERVER_CODE,
    &checks::SERVER_OLD_GRANTS,
    &checks::SERVER_PKCE,
    &checks::SERVER_PLAIN,
    &checks::SERVER_ISS,
    &checks::SERVER_AUTH_METHODS,
    &checks::SERVER_AUTH_ALGORITHMS,
    &checks::SERVER_REGISTRATION,
    &checks::SERVER_SCOPES,
    &checks::SERVER_RESOURCES,
    &checks::SERVER_OPENID,
    &checks::SERVER_AGREE,
];

fn skip_behind(section: &mut Section, failed: &Check) {
    let behind = ORDER.iter().skip_while(|check| check.name != failed.name).skip(1);
    section.skip_all(behind, "the document could not be read");
}

/// Judges the documents; gives back the metadata that the later checks go by.
pub(crate) fn judge(section: &mut Section, against: Against<'_>, seen: &Seen) -> Option<ServerMetadata> {
    let Some((url, answer)) = document(seen) else {
        return without_document(section, against, seen);
    };
    section.pass(&checks::SERVER_FOUND, line![Peer(url)]);
    section.pass_or_warn(
        &checks::SERVER_RFC8414,
        url.contains("/.well-known/oauth-authorization-server"),
        if url.contains("/.well-known/oauth-authorization-server") { "" } else { "only the OpenID document" },
        "serve the document at /.well-known/oauth-authorization-server too: 2025-06-18 clients look nowhere else",
    );
    let metadata = match readable(section, answer) {
        Ok(metadata) => metadata,
        Err(failed) => {
            skip_behind(section, failed);
            return None;
        }
    };
    let usable = issuer(section, against, seen, &metadata.issuer);
    endpoints(section, against, &metadata);
    grants(section, &metadata);
    pkce(section, against, seen, &metadata);
    iss(section, &metadata);
    authentication(section, &metadata);
    registration(section, against, &metadata);
    scopes(section, against, &metadata);
    resources(section, against, &metadata);
    other_document(section, seen, url, &metadata);
    // MCP-DISC-016: what another issuer names is not asked for anything.
    usable.then_some(metadata)
}

/// The document a client takes: the first that is one.
fn document(seen: &Seen) -> Option<(&str, &Answer)> {
    let mut answers =
        seen.places.iter().filter_map(|(url, observed)| Some((url.as_str(), observed.as_ref().ok()?)));
    answers.find(|(_, answer)| is_document(answer))
}

/// There is none: a failure, but for a server of 2025-03-26 whose default endpoints the person allows.
fn without_document(section: &mut Section, against: Against<'_>, seen: &Seen) -> Option<ServerMetadata> {
    let mut words = Line::new();
    for (at, (url, observed)) in seen.places.iter().enumerate() {
        words = words.and(if at == 0 { "" } else { "; " }).and(Peer(url)).and(": ").and(shown(observed));
    }
    let fix =
        "serve RFC 8414 metadata at /.well-known/oauth-authorization-server (the issuer's path behind it)";
    if let Ok(metadata) = &seen.client {
        section.warn(&checks::SERVER_FOUND, "none: the default endpoints of 2025-03-26, by relaxation", fix);
        skip_behind(section, &checks::SERVER_FOUND);
        return Some(metadata.clone());
    }
    let html = seen.places.iter().find_map(|(_, observed)| {
        observed.as_ref().ok().filter(|answer| answer.status == 200 && !answer.reply().is_json())
    });
    if let Some(answer) = html {
        let kind = answer.header("content-type").unwrap_or("no type");
        section.fail(&checks::SERVER_FOUND, words, fix);
        section.skip(&checks::SERVER_RFC8414, "there is no document");
        section.fail(&checks::SERVER_TYPE, line![Peer(kind)], "send Content-Type: application/json");
        skip_behind(section, &checks::SERVER_TYPE);
        return None;
    }
    let relaxed = seen.client.as_ref().err().map(Error::remedy);
    if let Some(Remedy::Relax(relaxation @ Relaxation::LegacyEndpoints(_))) = relaxed {
        let policy = against.client.policy();
        section.fail_or_relax(&checks::SERVER_FOUND, policy, &relaxation, words, fix);
    } else {
        section.fail(&checks::SERVER_FOUND, words, fix);
    }
    skip_behind(section, &checks::SERVER_FOUND);
    None
}

fn readable(section: &mut Section, answer: &Answer) -> Result<ServerMetadata, &'static Check> {
    content_type(section, &checks::SERVER_TYPE, answer)?;
    let json = &checks::SERVER_JSON;
    let body = match &answer.body {
        Ok(body) => body,
        Err(failure) => {
            section.fail(json, line![*failure], "a client reads 64 KiB, and not for long");
            return Err(json);
        }
    };
    if let Err(error) = JsonObject::parse(body, limits::DOCUMENT_BYTES) {
        section.fail(json, line![error], "write one JSON object in which no member stands twice");
        return Err(json);
    }
    section.pass(json, "");
    match ServerMetadata::parse(body) {
        Ok(metadata) => {
            section.pass(&checks::SERVER_MEMBERS, "");
            Ok(metadata)
        }
        Err(fault) => {
            let check = check_of(&fault);
            section.fail(
                check,
                line![fault],
                "write the member as RFC 8414 section 2 has it; endpoints are https URLs",
            );
            let between = ORDER.iter().skip_while(|known| known.name != checks::SERVER_MEMBERS.name);
            section.skip_all(
                between.take_while(|known| known.name != check.name),
                "the document could not be read",
            );
            Err(check)
        }
    }
}

fn check_of(fault: &Malformed) -> &'static Check {
    match fault {
        Malformed::Json(JsonError::Malformed | JsonError::TooLarge) => &checks::SERVER_JSON,
        _ => match fault.member() {
            Some(name) if name.ends_with("_endpoint") => &checks::SERVER_ENDPOINTS,
            _ => &checks::SERVER_MEMBERS,
        },
    }
}

/// Whether the document is the issuer's, but for what a relaxation would take.
fn issuer(section: &mut Section, against: Against<'_>, seen: &Seen, found: &Issuer) -> bool {
    let check = &checks::SERVER_ISSUER;
    let words = line![Peer(found)];
    if *found == seen.issuer {
        section.pass(check, words);
        return true;
    }
    let fix = line!["make them one: the resource metadata lists it as ", Peer(&seen.issuer)];
    let relaxation = Relaxation::IssuerRootSlash(seen.issuer.clone());
    let relaxed = found.differs_by_root_slash(&seen.issuer);
    if relaxed {
        section.fail_or_relax(check, against.client.policy(), &relaxation, words, fix);
    } else {
        section.fail(check, words.and(": another issuer, whose metadata no client may use"), fix);
    }
    relaxed
}

fn named(metadata: &ServerMetadata) -> [(&'static str, Option<&Endpoint>); 6] {
    [
        ("authorization_endpoint", metadata.authorization_endpoint.as_ref()),
        ("token_endpoint", metadata.token_endpoint.as_ref()),
        ("registration_endpoint", metadata.registration_endpoint.as_ref()),
        ("revocation_endpoint", metadata.revocation_endpoint.as_ref()),
        ("introspection_endpoint", metadata.introspection_endpoint.as_ref()),
        ("jwks_uri", metadata.jwks_uri.as_ref()),
    ]
}

fn endpoints(section: &mut Section, against: Against<'_>, metadata: &ServerMetadata) {
    let endpoints = named(metadata);
    let missing: Vec<&str> =
        endpoints.iter().take(2).filter(|(_, url)| url.is_none()).map(|(name, _)| *name).collect();
    section.pass_or_fail(
        &checks::SERVER_ENDPOINTS,
        missing.is_empty(),
        if missing.is_empty() {
            Line::from("both are there")
        } else {
            line!["no ", Peers(missing.as_slice())]
        },
        "add the endpoint: the code grant needs both",
    );
    let forbidden = endpoints.into_iter().find_map(|(name, url)| {
        let error = against.client.addresses(against.server, url?.as_str()).err()?;
        Some((name, url?, error))
    });
    match forbidden {
        None => section.pass(&checks::SERVER_ADDRESSES, ""),
        Some((name, url, error)) => {
            let fix = Line::from(
                "name endpoints on public addresses; a public server never leads to a private one",
            );
            let fix = match error.remedy() {
                Remedy::Relax(relaxation) => line![fix, ". In an intranet: ", option(&relaxation)],
                _ => fix,
            };
            section.fail(&checks::SERVER_ADDRESSES, line![name, " ", Peer(url)], fix);
        }
    }
}

fn grants(section: &mut Section, metadata: &ServerMetadata) {
    let types = metadata.response_types_supported.as_slice();
    let code = types.iter().any(|known| known == "code");
    let grant = metadata.supports_grant_type("authorization_code");
    let refresh = metadata.supports_grant_type("refresh_token");
    section.pass_or_fail(
        &checks::SERVER_CODE,
        code && grant,
        match (code, grant) {
            (true, true) if refresh => Line::from("code, and refresh tokens"),
            (true, true) => Line::from("code; refresh tokens are not announced"),
            (true, false) => Line::from("grant_types_supported lacks authorization_code"),
            (false, _) => line!["response_types_supported is ", Peers(types)],
        },
        "list code in response_types_supported and authorization_code in grant_types_supported",
    );
    // Without the list RFC 8414 has implicit in it, which says nothing of the server's mind.
    let listed = metadata.grant_types_supported.as_deref().unwrap_or_default();
    let old: Vec<&String> =
        listed.iter().filter(|grant| matches!(grant.as_str(), "implicit" | "password")).collect();
    let seen = if old.is_empty() { Line::from("neither is listed") } else { line![Peers(old.as_slice())] };
    section.pass_or_fail(
        &checks::SERVER_OLD_GRANTS,
        old.is_empty(),
        seen,
        "switch them off: OAuth 2.1 has neither",
    );
}

fn pkce(section: &mut Section, against: Against<'_>, seen: &Seen, metadata: &ServerMetadata) {
    let methods = metadata.code_challenge_methods_supported.as_deref();
    let fix = "add \"code_challenge_methods_supported\": [\"S256\"]";
    match methods {
        Some(methods) if metadata.lists_s256() => section.pass(&checks::SERVER_PKCE, line![Peers(methods)]),
        Some(methods) => section.fail(&checks::SERVER_PKCE, line!["only ", Peers(methods)], fix),
        None => {
            let relaxation = Relaxation::AssumeS256(seen.issuer.clone());
            let policy = against.client.policy();
            section.fail_or_relax(
                &checks::SERVER_PKCE,
                policy,
                &relaxation,
                "no code_challenge_methods_supported",
                fix,
            );
        }
    }
    let plain = methods.unwrap_or_default().iter().any(|method| method == "plain");
    section.pass_or_warn(
        &checks::SERVER_PLAIN,
        !plain,
        if plain { "it is" } else { "" },
        "take plain off the list, and refuse it",
    );
}

fn iss(section: &mut Section, metadata: &ServerMetadata) {
    let announced = metadata.authorization_response_iss_parameter_supported;
    section.pass_or_warn(
        &checks::SERVER_ISS,
        announced,
        if announced { "announced" } else { "not announced" },
        "send iss in every authorization response and set authorization_response_iss_parameter_supported: it is what \
         stops mix-up attacks",
    );
}

fn authentication(section: &mut Section, metadata: &ServerMetadata) {
    let methods = metadata.token_endpoint_auth_methods_supported.as_deref();
    section.pass_or_warn(
        &checks::SERVER_AUTH_METHODS,
        metadata.supports_token_endpoint_auth_method("none"),
        methods
            .map_or(Line::from("not said, which means client_secret_basic"), |methods| line![Peers(methods)]),
        "list none: MCP clients on people's machines cannot keep a secret",
    );
    let asserts = |method: &String| matches!(method.as_str(), "private_key_jwt" | "client_secret_jwt");
    let check = &checks::SERVER_AUTH_ALGORITHMS;
    if !methods.unwrap_or_default().iter().any(asserts) {
        return section.skip(check, "no assertions are taken");
    }
    let algorithms = metadata.token_endpoint_auth_signing_alg_values_supported.as_deref();
    section.pass_or_fail(
        check,
        algorithms.is_some_and(|algorithms| !algorithms.is_empty()),
        algorithms.map_or(Line::from("none"), |algorithms| line![Peers(algorithms)]),
        "add token_endpoint_auth_signing_alg_values_supported",
    );
}

fn registration(section: &mut Section, against: Against<'_>, metadata: &ServerMetadata) {
    let check = &checks::SERVER_REGISTRATION;
    let dynamic = metadata.registration_endpoint.is_some();
    let before_documents = against.client.revision(against.server) < Revision::V2025_11_25;
    let fix = "set client_id_metadata_document_supported, and read clients' metadata documents";
    match (metadata.client_id_metadata_document_supported, dynamic) {
        (true, true) => section.pass(check, "by metadata document, and dynamically"),
        (true, false) => section.pass(check, "by metadata document"),
        (false, true) if before_documents => section.pass(check, "dynamically"),
        (false, true) => section.warn(check, "dynamically only, which MCP deprecates", fix),
        (false, false) => {
            section.warn(check, "in neither way: every client has to be registered here by hand", fix);
        }
    }
}

fn scopes(section: &mut Section, against: Against<'_>, metadata: &ServerMetadata) {
    let check = &checks::SERVER_SCOPES;
    let fix = "add scopes_supported with the scopes of the resources";
    let Some(listed) = &metadata.scopes_supported else {
        return section.warn(check, "no scopes_supported", fix);
    };
    let lacking = against.scopes.map(|scopes| scopes.difference(listed)).unwrap_or_default();
    let lacking: Vec<&Scope> = lacking.iter().collect();
    if lacking.is_empty() {
        section.pass(check, line![Count(listed.len(), "scope")]);
    } else {
        section.warn(check, line!["not among them: ", Peers(lacking.as_slice())], fix);
    }
}

fn resources(section: &mut Section, against: Against<'_>, metadata: &ServerMetadata) {
    let check = &checks::SERVER_RESOURCES;
    let Some(listed) = metadata.protected_resources.as_deref() else {
        return section.skip(check, "the server lists no resources");
    };
    section.pass_or_warn(
        check,
        listed.iter().any(|resource| resource == against.resource.as_str()),
        line![Peers(listed)],
        "add this resource to protected_resources, or leave the member out: a client asks the person before it goes on",
    );
}

/// The RFC 8414 and the OpenID document stand side by side, and a client may read either.
fn other_document(section: &mut Section, seen: &Seen, chosen: &str, metadata: &ServerMetadata) {
    let documents: Vec<(&str, &[u8])> = seen
        .places
        .iter()
        .filter_map(|(url, observed)| {
            let answer = observed.as_ref().ok().filter(|answer| is_document(answer))?;
            Some((url.as_str(), answer.body.as_ref().ok()?.as_slice()))
        })
        .collect();
    let openid = documents.iter().find(|(url, _)| url.contains("/openid-configuration"));
    match openid.map(|(_, body)| ServerMetadata::parse(body)) {
        None => section.skip(&checks::SERVER_OPENID, "there is no OpenID document"),
        Some(Err(fault)) => {
            section.fail(&checks::SERVER_OPENID, line![fault], "write it as OpenID discovery has it")
        }
        Some(Ok(openid)) => {
            let members = [
                ("jwks_uri", openid.jwks_uri.is_some()),
                ("subject_types_supported", openid.subject_types_supported.is_some()),
                (
                    "id_token_signing_alg_values_supported",
                    openid.id_token_signing_alg_values_supported.is_some(),
                ),
                ("code_challenge_methods_supported", openid.code_challenge_methods_supported.is_some()),
            ];
            let missing: Vec<&str> =
                members.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
            let words = if missing.is_empty() {
                Line::from("it has")
            } else {
                line!["no ", Peers(missing.as_slice())]
            };
            section.pass_or_fail(&checks::SERVER_OPENID, missing.is_empty(), words, "add what is missing");
        }
    }
    let mut others = documents.iter().filter(|(url, _)| *url != chosen).peekable();
    if others.peek().is_none() {
        return section.skip(&checks::SERVER_AGREE, "there is one document");
    }
    let differs = others.find_map(|(_, body)| {
        let other = ServerMetadata::parse(body).ok()?;
        let s256 = other.lists_s256() == metadata.lists_s256();
        let pairs = named(metadata).into_iter().zip(named(&other));
        let endpoint = pairs.take(3).find(|((_, one), (_, two))| one != two).map(|((name, _), _)| name);
        let rest = [
            ("issuer", other.issuer == metadata.issuer),
            ("code_challenge_methods_supported", s256),
            (
                "authorization_response_iss_parameter_supported",
                other.authorization_response_iss_parameter_supported
                    == metadata.authorization_response_iss_parameter_supported,
            ),
        ];
        endpoint.or(rest.into_iter().find(|(_, same)| !same).map(|(name, _)| name))
    });
    match differs {
        None => section.pass(&checks::SERVER_AGREE, ""),
        Some(member) => section.fail(
            &checks::SERVER_AGREE,
            line!["they differ in ", member],
            "make both documents from one configuration: a client may read either",
        ),
    }
}
