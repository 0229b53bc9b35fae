//! What is inside a record: written as the inputs of the checks, read by way of the checks.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::authorization::Prepared;
use super::discovery::{Target, check_recorded, issuer_of};
use super::issuer::configured;
use super::registration::{ClientAuthentication, Identity, IdentityKind, Server, by_hand};
use super::step_up::StepUpLedger;
use super::{Client, PreRegistered};
use crate::error::{Error, HostMisuse, PeerMisbehaved, malformed};
use crate::evidence::{IssuerMatched, ResourceMatched};
use crate::identifier::{ClientId, Issuer, RedirectUri, ResourceId, ScopeSet};
use crate::jose::{Algorithm, SigningKeyId};
use crate::message::server_metadata::ServerMetadata;
use crate::policy::Relaxation;
use crate::secret::ClientSecret;
use crate::syntax::json::{JsonObject, JsonValue, ObjectWriter};
use crate::time::OffsetDateTime;

pub(super) fn written(prepared: &Prepared) -> ObjectWriter {
    // Neither the count of step-ups, which has a record of its own, nor the tokens of an earlier session.
    let Prepared { server, identity, wanted, .. } = prepared;
    let target = &server.target;
    ObjectWriter::new()
        .string("server", target.server.as_str())
        .strings("expected", target.expected.iter().map(ResourceId::as_str))
        .string("resource", target.resource.resource().as_str())
        .string("listed_issuer", target.listed_issuer.as_str())
        .boolean("asserted", target.asserted)
        .optional_string("resource_scopes", target.resource_scopes.as_ref().map(ScopeSet::to_string))
        .string("metadata", String::from_utf8_lossy(&server.metadata.render()))
        .value("identity", JsonValue::Object(identity_written(identity)))
        .string("wanted", wanted.to_string())
}

/// Reads what `written` wrote, by way of the checks that the first flow made.
pub(super) fn read(client: &Client, object: &JsonObject) -> Result<Prepared, Error> {
    let foreign = || Error::from(HostMisuse::ForeignRecord);
    let server = ResourceId::new(required(object, "server")?).map_err(|_| foreign())?;
    let resource = ResourceId::new(required(object, "resource")?).map_err(|_| foreign())?;
    let expected: Vec<ResourceId> = object
        .strings("expected")
        .map_err(|_| foreign())?
        .unwrap_or_default()
        .into_iter()
        .map(|text| ResourceId::new(text).map_err(|_| foreign()))
        .collect::<Result<_, _>>()?;
    let relaxation = Relaxation::ResourcePathPrefix(resource.clone());
    let matched = ResourceMatched::exactly(&expected, &resource)
        .or_else(|| {
            let allowed = client.policy().allows(&relaxation);
            allowed.then(|| ResourceMatched::by_path_prefix(&server, &resource))?
        })
        .or_else(|| {
            // Without identifiers there was no document: for a server of revision 2025-03-26, still stated.
            let legacy = expected.is_empty() && super::legacy::authorization_base(client, &server).is_some();
            legacy.then(|| ResourceMatched::without_document(&server, &resource))?
        })
        .ok_or(PeerMisbehaved::ResourceMismatch { relaxation: None })?;
    let metadata = ServerMetadata::parse(required(object, "metadata")?.as_bytes())
        .map_err(malformed("recorded authorization server metadata"))?;
    let resource_scopes = match object.get("resource_scopes") {
        None => None,
        Some(_) => Some(scope(object, "resource_scopes")?),
    };
    let target = Target {
        client: client.clone(),
        server,
        expected,
        resource: matched,
        listed_issuer: Issuer::new(required(object, "listed_issuer")?).map_err(|_| foreign())?,
        // Before version 3 nobody wrote down who vouched, so nobody did.
        asserted: object.boolean("asserted").map_err(|_| foreign())?.unwrap_or(false),
        challenge_scope: None,
        resource_scopes,
        ledger: StepUpLedger::default(),
        chosen_again: false,
    };
    let issuer = issuer_of(&target, &metadata)?;
    check_recorded(&target, &metadata)?;
    // D36, I-L13: the word in the record, or today's configuration.
    if !target.asserted && !configured(client, target.resource.resource(), &target.listed_issuer) {
        return Err(HostMisuse::IssuerNotAsserted.into());
    }
    Ok(Prepared {
        identity: still_configured(&target, &issuer, identity(client, object)?)?,
        server: Server { target, issuer, metadata },
        wanted: scope(object, "wanted")?,
        // Of version 1.
        ledger: match object.get("ledger") {
            None => StepUpLedger::default(),
            Some(_) => StepUpLedger::read(object, "ledger")?,
        },
        earlier: None,
    })
}

/// An identity that was registered by hand is still one for this resource, and has the pins of today's configuration,
/// whatever it was recorded with.
fn still_configured(target: &Target, issuer: &IssuerMatched, identity: Identity) -> Result<Identity, Error> {
    if identity.kind != IdentityKind::PreRegistered {
        return Ok(identity);
    }
    // D36: what the host took out of its configuration is not used any more.
    let same = |it: &&PreRegistered| it.client_id == identity.client_id;
    let configured = by_hand(target, issuer).find(same).ok_or(HostMisuse::IdentityGone)?;
    let pinned_scopes = configured.scopes.clone().or(identity.pinned_scopes);
    Ok(Identity { pinned_scopes, ..identity })
}

pub(super) fn identity_written(identity: &Identity) -> JsonObject {
    let kind = match identity.kind {
        IdentityKind::PreRegistered => "pre-registered",
        IdentityKind::MetadataDocument => "metadata-document",
        IdentityKind::Registered => "registered",
    };
    let (method, secret, key) = match &identity.authentication {
        ClientAuthentication::None => ("none", None, None),
        ClientAuthentication::Basic(secret) => ("client_secret_basic", Some(secret), None),
        ClientAuthentication::Post(secret) => ("client_secret_post", Some(secret), None),
        ClientAuthentication::PrivateKey(key) => ("private_key_jwt", None, Some(key)),
    };
    let writer = ObjectWriter::new()
        .string("kind", kind)
        .string("client_id", identity.client_id.as_str())
        .string("method", method)
        .optional_string("secret", secret.map(ClientSecret::expose))
        .optional_string("kid", key.map(SigningKeyId::kid))
        .optional_string("alg", key.map(|key| key.algorithm().name()))
        .string("redirect_uri", identity.redirect_uri.as_str())
        .optional_string("pinned_scopes", identity.pinned_scopes.as_ref().map(ScopeSet::to_string));
    match identity.secret_expires {
        Some(at) => writer.integer("secret_expires", at.unix_timestamp()),
        None => writer,
    }
    .into_object()
}

pub(super) fn identity(client: &Client, object: &JsonObject) -> Result<Identity, Error> {
    let foreign = || Error::from(HostMisuse::ForeignRecord);
    let object = object.object("identity").ok().flatten().ok_or_else(foreign)?;
    let secret = object.string("secret").map_err(|_| foreign())?.map(ClientSecret::new).transpose();
    let authentication = match (required(object, "method")?, secret.map_err(|_| foreign())?) {
        ("none", None) => ClientAuthentication::None,
        ("private_key_jwt", None) => {
            let algorithm = Algorithm::from_name(required(object, "alg")?).map_err(|_| foreign())?;
            ClientAuthentication::PrivateKey(SigningKeyId::new(required(object, "kid")?, algorithm))
        }
        ("client_secret_basic", Some(secret)) => ClientAuthentication::Basic(secret),
        ("client_secret_post", Some(secret)) => ClientAuthentication::Post(secret),
        _ => return Err(foreign()),
    };
    let kind = match required(object, "kind")? {
        "pre-registered" => IdentityKind::PreRegistered,
        "metadata-document" => IdentityKind::MetadataDocument,
        "registered" => IdentityKind::Registered,
        _ => return Err(foreign()),
    };
    let redirect_uri = redirect_uri(client, required(object, "redirect_uri")?)?;
    let pinned_scopes = match object.get("pinned_scopes") {
        None => None,
        Some(_) => Some(scope(object, "pinned_scopes")?),
    };
    Ok(Identity {
        kind,
        client_id: ClientId::new(required(object, "client_id")?).map_err(|_| foreign())?,
        authentication,
        // A restarted program listens on another loopback port, which every server must take (OAUTH21-4.1.1-11).
        redirect_uri: redirect_uri.at_port_of(&client.configuration().redirect_uri),
        pinned_scopes,
        secret_expires: optional_time(object, "secret_expires")?,
    })
}

/// A redirect URI that an identity may have: of a private-use scheme only where the policy names it.
pub(super) fn redirect_uri(client: &Client, text: &str) -> Result<RedirectUri, Error> {
    if let Ok(uri) = RedirectUri::new(text) {
        return Ok(uri);
    }
    // D9
    let uri = RedirectUri::private_scheme(text).map_err(|_| HostMisuse::ForeignRecord)?;
    let named = client.policy().allows(&Relaxation::PrivateScheme(uri.clone()));
    if named { Ok(uri) } else { Err(HostMisuse::ForeignRecord.into()) }
}

pub(super) fn required<'o>(object: &'o JsonObject, name: &'static str) -> Result<&'o str, Error> {
    object.required_string(name).map_err(|_| HostMisuse::ForeignRecord.into())
}

pub(super) fn scope(object: &JsonObject, name: &'static str) -> Result<ScopeSet, Error> {
    match required(object, name)? {
        "" => Ok(ScopeSet::new()),
        text => ScopeSet::parse(text).map_err(|_| HostMisuse::ForeignRecord.into()),
    }
}

pub(super) fn optional_time(
    object: &JsonObject,
    name: &'static str,
) -> Result<Option<OffsetDateTime>, Error> {
    let foreign = || Error::from(HostMisuse::ForeignRecord);
    match object.integer(name).map_err(|_| foreign())? {
        None => Ok(None),
        Some(at) => OffsetDateTime::from_unix_timestamp(at).map(Some).map_err(|_| foreign()),
    }
}

pub(super) fn time(object: &JsonObject, name: &'static str) -> Result<OffsetDateTime, Error> {
    optional_time(object, name)?.ok_or_else(|| HostMisuse::ForeignRecord.into())
}
