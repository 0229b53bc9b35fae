//! Judgments of protected resource metadata: RFC 9728 sections 2 and 3, MCP authorization server discovery.

use mcp_authz::identifier::{Issuer, ResourceId};
use mcp_authz::limits;
use mcp_authz::message::Malformed;
use mcp_authz::message::protected_resource_metadata::ProtectedResourceMetadata;
use mcp_authz::policy::{Policy, Relaxation};
use mcp_authz::syntax::json::{JsonError, JsonObject, JsonValue};

use super::checks::{self, Check};
use super::finding::Section;
use super::line::{Count, Line, Peer, Peers, line};
use super::mcp_server::shown;
use super::observation::{Answer, Observed};

/// A place where the document may be.
#[derive(Debug)]
pub(crate) struct Place {
    /// How a client gets there.
    pub(crate) name: &'static str,
    /// The URL.
    pub(crate) url: String,
    /// What the document's `resource` must be, any one of them.
    pub(crate) expected: Vec<ResourceId>,
    /// What is there.
    pub(crate) observed: Observed,
}

impl Place {
    /// Whether a client takes what is there for the document, good or bad.
    pub(crate) fn has_document(&self) -> bool {
        self.observed.as_ref().is_ok_and(is_document)
    }

    fn metadata(&self) -> Option<Result<ProtectedResourceMetadata, Malformed>> {
        let answer = self.observed.as_ref().ok().filter(|answer| is_document(answer))?;
        answer.body.as_ref().ok().map(|body| ProtectedResourceMetadata::parse(body))
    }
}

/// 200 and JSON: anything else is no document.
pub(crate) fn is_document(answer: &Answer) -> bool {
    answer.status == 200 && answer.reply().is_json()
}

const ORDER: [&Check; 14] = [
    &checks::RESOURCE_FOUND,
    &checks::RESOURCE_STATUS,
    &checks::RESOURCE_TYPE,
    &checks::RESOURCE_SIZE,
    &checks::RESOURCE_JSON,
    &checks::RESOURCE_MEMBERS,
    &checks::RESOURCE_EMPTY,
    &checks::RESOURCE_MATCH,
    &checks::RESOURCE_ISSUERS,
    &checks::RESOURCE_METHODS,
    &checks::RESOURCE_SCOPES,
    &checks::RESOURCE_OFFLINE,
    &checks::RESOURCE_NAME,
    &checks::RESOURCE_AGREE,
];

/// Skips what cannot be seen once `failed` has.
fn skip_behind(section: &mut Section, failed: &Check) {
    let behind = ORDER.iter().skip_while(|check| check.name != failed.name).skip(1);
    section.skip_all(behind, "the document could not be read");
}

/// The places in the order of a client; `named` says that the first is the one the challenge names, and so the only one
/// that counts. Gives back the document, if a client can read it.
pub(crate) fn judge(
    section: &mut Section,
    policy: &Policy,
    server: &ResourceId,
    places: &[Place],
    named: bool,
) -> Option<ProtectedResourceMetadata> {
    let chosen = if named { places.first() } else { places.iter().find(|place| place.has_document()) };
    let Some(place) = chosen.or(places.first()) else {
        section.skip(&checks::RESOURCE_FOUND, "there is no place to look at");
        skip_behind(section, &checks::RESOURCE_FOUND);
        return None;
    };
    let body = match readable(section, places, place) {
        Ok(body) => body,
        Err(failed) => {
            skip_behind(section, failed);
            return None;
        }
    };
    let metadata = match parsed(section, body) {
        Ok(metadata) => metadata,
        Err(failed) => {
            skip_behind(section, failed);
            return None;
        }
    };
    resource(section, policy, server, place, &metadata.resource);
    issuers(section, &metadata);
    methods(section, &metadata);
    scopes(section, &metadata);
    section.pass_or_warn(
        &checks::RESOURCE_NAME,
        metadata.resource_name.is_some(),
        metadata.resource_name.as_ref().map_or(Line::from("no resource_name"), |name| line![Peer(name)]),
        "add resource_name: clients show it when they ask the person",
    );
    agreement(section, places, place, &metadata);
    Some(metadata)
}

/// The body, if the answer is a document.
fn readable<'p>(
    section: &mut Section,
    places: &[Place],
    place: &'p Place,
) -> Result<&'p [u8], &'static Check> {
    let answer = match &place.observed {
        Ok(answer) => answer,
        Err(_) => return Err(not_found(section, places)),
    };
    match answer.status {
        200 => section.pass(&checks::RESOURCE_FOUND, line![place.name, ": ", Peer(&place.url)]),
        300..400 => {
            section.fail(
                &checks::RESOURCE_FOUND,
                line![place.name, ": ", Peer(&place.url)],
                "serve the document there",
            );
            let fix = "serve the document itself: a client does not follow a redirect to it";
            section.fail(&checks::RESOURCE_STATUS, shown(&place.observed), fix);
            return Err(&checks::RESOURCE_STATUS);
        }
        _ => return Err(not_found(section, places)),
    }
    section.pass(&checks::RESOURCE_STATUS, "200");
    content_type(section, &checks::RESOURCE_TYPE, answer)?;
    match &answer.body {
        Ok(body) => {
            section.pass(&checks::RESOURCE_SIZE, line![Count(body.len(), "byte")]);
            Ok(body)
        }
        Err(failure) => {
            section.fail(&checks::RESOURCE_SIZE, line![*failure], "a client reads 64 KiB, and not for long");
            Err(&checks::RESOURCE_SIZE)
        }
    }
}

fn not_found(section: &mut Section, places: &[Place]) -> &'static Check {
    let mut seen = Line::new();
    for (at, place) in places.iter().enumerate() {
        seen =
            seen.and(if at == 0 { "" } else { "; " }).and(place.name).and(": ").and(shown(&place.observed));
    }
    let fix = "serve the document at /.well-known/oauth-protected-resource and the path of the MCP URL, without a token";
    section.fail(&checks::RESOURCE_FOUND, seen, fix);
    &checks::RESOURCE_FOUND
}

/// The media type of a document.
pub(crate) fn content_type(
    section: &mut Section,
    check: &'static Check,
    answer: &Answer,
) -> Result<(), &'static Check> {
    let reply = answer.reply();
    let value = reply.content_type().unwrap_or("none");
    let essence = value.split(';').next().unwrap_or_default().trim();
    let fix = "send Content-Type: application/json";
    if !reply.is_json() {
        section.fail(check, line![Peer(value)], fix);
        return Err(check);
    }
    section.pass_or_warn(check, essence.eq_ignore_ascii_case("application/json"), line![Peer(value)], fix);
    Ok(())
}

/// Which check a member belongs to.
fn check_of(fault: &Malformed) -> &'static Check {
    match fault {
        Malformed::Json(JsonError::Malformed | JsonError::TooLarge) => &checks::RESOURCE_JSON,
        _ => match fault.member() {
            Some("authorization_servers") => &checks::RESOURCE_ISSUERS,
            Some("scopes_supported") => &checks::RESOURCE_SCOPES,
            _ => &checks::RESOURCE_MEMBERS,
        },
    }
}

fn parsed(section: &mut Section, body: &[u8]) -> Result<ProtectedResourceMetadata, &'static Check> {
    let object = match JsonObject::parse(body, limits::DOCUMENT_BYTES) {
        Ok(object) => object,
        Err(error) => {
            section.fail(
                &checks::RESOURCE_JSON,
                line![error],
                "write one JSON object in which no member stands twice",
            );
            return Err(&checks::RESOURCE_JSON);
        }
    };
    section.pass(&checks::RESOURCE_JSON, "");
    match ProtectedResourceMetadata::parse(body) {
        Ok(metadata) => {
            section.pass(&checks::RESOURCE_MEMBERS, "");
            empty_members(section, &checks::RESOURCE_EMPTY, &object);
            Ok(metadata)
        }
        Err(fault) => {
            let check = check_of(&fault);
            section.fail(check, line![fault], "write the member as RFC 9728 section 2 has it");
            // What stands before it in the order was not looked at on its own.
            let between = ORDER.iter().skip_while(|known| known.name != checks::RESOURCE_MEMBERS.name);
            let between = between.take_while(|known| known.name != check.name);
            section.skip_all(between, "the document could not be read");
            Err(check)
        }
    }
}

/// Arrays with nothing in them.
pub(crate) fn empty_members(section: &mut Section, check: &'static Check, object: &JsonObject) {
    let is_empty =
        |name: &&str| matches!(object.get(name), Some(JsonValue::Array(values)) if values.is_empty());
    let empty: Vec<&str> = object.names().filter(is_empty).collect();
    let seen = if empty.is_empty() { Line::from("none") } else { line![Peers(empty.as_slice())] };
    section.pass_or_fail(check, empty.is_empty(), seen, "leave out a member that has nothing in it");
}

fn resource(section: &mut Section, policy: &Policy, server: &ResourceId, place: &Place, found: &ResourceId) {
    let check = &checks::RESOURCE_MATCH;
    let seen = line![Peer(found)];
    if place.expected.contains(found) {
        return section.pass(check, seen);
    }
    let expected = place.expected.first().map_or("", ResourceId::as_str);
    let fix = line!["write \"resource\": \"", Peer(expected), "\""];
    if found.is_proper_prefix_of(server) {
        let relaxation = Relaxation::ResourcePathPrefix(found.clone());
        return section.fail_or_relax(check, policy, &relaxation, seen, fix);
    }
    let same_but = |change: fn(&str) -> String| change(found.as_str()) == change(expected);
    let seen = if same_but(|text| text.trim_end_matches('/').to_owned()) {
        seen.and(": differs in the slash at its end")
    } else if same_but(str::to_ascii_lowercase) {
        seen.and(": differs in upper and lower case")
    } else {
        seen.and(": another resource")
    };
    section.fail(check, seen, fix.and(": a client compares the bytes"));
}

fn issuers(section: &mut Section, metadata: &ProtectedResourceMetadata) {
    let issuers = metadata.authorization_servers.as_slice();
    let seen = if issuers.is_empty() { Line::from("none") } else { line![Peers(issuers)] };
    section.pass_or_fail(
        &checks::RESOURCE_ISSUERS,
        !issuers.is_empty(),
        seen,
        "add authorization_servers with the issuer, exactly as its own metadata writes it",
    );
}

fn methods(section: &mut Section, metadata: &ProtectedResourceMetadata) {
    let methods = metadata.bearer_methods_supported.as_deref();
    let good = methods.is_none_or(|methods| methods.iter().any(|method| method == "header"));
    let seen = methods.map_or(Line::from("not said, which is as good"), |methods| line![Peers(methods)]);
    section.pass_or_fail(
        &checks::RESOURCE_METHODS,
        good,
        seen,
        "list header: MCP clients send tokens in Authorization and nowhere else",
    );
}

fn scopes(section: &mut Section, metadata: &ProtectedResourceMetadata) {
    let scopes = metadata.scopes_supported.as_ref();
    section.pass_or_warn(
        &checks::RESOURCE_SCOPES,
        scopes.is_some(),
        scopes.map_or(Line::from("no scopes_supported"), |scopes| line![Peer(scopes)]),
        "add scopes_supported with the scopes a client may need",
    );
    match scopes.map(|scopes| scopes.contains_str("offline_access")) {
        None => section.skip(&checks::RESOURCE_OFFLINE, "no scopes are listed"),
        Some(listed) => section.pass_or_warn(
            &checks::RESOURCE_OFFLINE,
            !listed,
            if listed { "it is" } else { "" },
            "leave offline_access out: refresh tokens are the client's affair, not the resource's",
        ),
    }
}

/// Clients go by the challenge or by a well-known place, and must come to the same.
fn agreement(section: &mut Section, places: &[Place], chosen: &Place, metadata: &ProtectedResourceMetadata) {
    let check = &checks::RESOURCE_AGREE;
    let fix =
        "serve the same authorization_servers everywhere, each document with the resource its place is for";
    let mut others = 0_usize;
    for place in places.iter().filter(|place| place.url != chosen.url) {
        let Some(found) = place.metadata() else { continue };
        others += 1;
        let wrong = match found {
            Err(fault) => Some(line![fault]),
            // MCP-DISC-006: the root may repeat the document of an endpoint below it.
            Ok(other) if other.resource != metadata.resource && !place.expected.contains(&other.resource) => {
                Some(line!["its resource is ", Peer(&other.resource)])
            }
            Ok(other) => {
                let servers = other.authorization_servers.as_slice();
                (!same(servers, &metadata.authorization_servers))
                    .then(|| line!["its authorization servers are ", Peers(servers)])
            }
        };
        if let Some(wrong) = wrong {
            return section.warn(check, line![place.name, ": ", wrong], fix);
        }
    }
    match others {
        0 => section.pass(check, "there is one place"),
        others => section.pass(check, line![Count(others.saturating_add(1), "place")]),
    }
}

fn same(one: &[Issuer], other: &[Issuer]) -> bool {
    one.len() == other.len() && one.iter().all(|issuer| other.contains(issuer))
}
