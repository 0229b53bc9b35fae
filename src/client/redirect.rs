//! Where the browser comes back for one issuer: the configured redirect URI, written as that issuer wants it, on a path
//! of the issuer's own where no `iss` tells servers apart (decisions D9, D29).
//!
//! | identity | where the server sends `iss` | where it does not |
//! |---|---|---|
//! | registered by hand | its own redirect URI | the same, which must serve nobody else |
//! | metadata document | the configured one | one of the document's [`CALLBACK_PATHS`], kept for this issuer |
//! | registered dynamically | the configured one | the configured one, and a segment made of the issuer |

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::registration::{IdentityKind, Server};
use super::{Client, RegistrationRecord};
use crate::error::{Error, HostMisuse, PeerIncompatible};
use crate::identifier::{Issuer, RedirectUri};
use crate::policy::{LoopbackRedirect, Relaxation};
use crate::sealer::Sealer;
use crate::secret::SecretDigest;
use crate::syntax::base64url;

/// Callback paths in the client's metadata document: the configured one, and those that issuers without `iss` get.
pub(crate) const CALLBACK_PATHS: usize = 16;

/// Which callback paths of the metadata document are in use, as the host's store has it
/// ([`Client::callback_paths`]).
#[derive(Debug, Clone)]
pub struct CallbackPaths(BTreeMap<Issuer, RedirectUri>);

impl Client {
    /// The callback paths that these registrations use: all that the host keeps for this client. One that does not open
    /// here is of another configuration, under which no answer is awaited.
    pub fn callback_paths<'r>(
        &self,
        kept: impl IntoIterator<Item = &'r RegistrationRecord>,
        sealer: &dyn Sealer,
    ) -> CallbackPaths {
        let paths = kept.into_iter().filter_map(|record| {
            let redirect_uri = record.callback_path(self, sealer)?;
            Some((record.issuer().clone(), redirect_uri))
        });
        CallbackPaths(paths.collect())
    }

    /// Every redirect URI of the metadata document, in all the ways that issuers want it written.
    pub(crate) fn document_redirect_uris(&self) -> Vec<RedirectUri> {
        let configuration = self.configuration();
        let mut written = Vec::from([configuration.redirect_uri.clone()]);
        for redirect in configuration.policy.relaxations().filter_map(|relaxation| match relaxation {
            Relaxation::LoopbackRedirect(redirect) => Some(redirect),
            _ => None,
        }) {
            for uri in written_for(redirect, &configuration.redirect_uri) {
                if !written.contains(&uri) {
                    written.push(uri);
                }
            }
        }
        let all = written.iter().flat_map(|base| (0..CALLBACK_PATHS).filter_map(|path| numbered(base, path)));
        let mut uris = Vec::new();
        for uri in all {
            if !uris.contains(&uri) {
                uris.push(uri);
            }
        }
        uris
    }
}

/// The URI on the numbered path: the first is the URI itself. A private-use scheme has one path.
fn numbered(base: &RedirectUri, path: usize) -> Option<RedirectUri> {
    match path {
        0 => Some(base.clone()),
        _ if base.is_private_scheme() => None,
        number => below(base, &format!("{number}")),
    }
}

fn below(base: &RedirectUri, segment: &str) -> Option<RedirectUri> {
    let query = base.query().map_or_else(String::new, |query| format!("?{query}"));
    let base = base.without_query();
    let base = base.strip_suffix('/').unwrap_or(base);
    RedirectUri::new(format!("{base}/{segment}{query}")).ok()
}

/// The ways that an issuer which compares loopback URIs exactly may know this one by; one for each of its ports.
fn written_for(redirect: &LoopbackRedirect, uri: &RedirectUri) -> Vec<RedirectUri> {
    let named = if redirect.localhost() { uri.by_loopback_name() } else { uri.clone() };
    if redirect.ports().len() == 0 || !named.is_loopback() {
        return Vec::from([named]);
    }
    redirect.ports().map(|port| named.at_port(port)).collect()
}

impl Server {
    /// That redirect URI as this issuer is to know it.
    ///
    /// # Errors
    /// [`HostMisuse::Unnamed`] for a private-use scheme, or the name `localhost`, that the policy does not name;
    /// [`HostMisuse::LoopbackPort`] for a port that this issuer does not know.
    pub(super) fn written(&self, uri: &RedirectUri) -> Result<RedirectUri, Error> {
        let policy = self.target.client.policy();
        // D9, OAUTH21-2.3.1-3: this very URI and no other.
        let exact = Relaxation::PrivateScheme(uri.clone());
        if uri.is_private_scheme() && !policy.allows(&exact) {
            return Err(HostMisuse::Unnamed { relaxation: exact }.into());
        }
        let redirect = policy.loopback_redirect(&self.target.listed_issuer);
        if !uri.is_loopback_http() {
            return Ok(uri.clone());
        }
        if redirect.is_some_and(|redirect| !redirect.knows(uri.port())) {
            return Err(HostMisuse::LoopbackPort.into());
        }
        if redirect.is_some_and(LoopbackRedirect::localhost) {
            return Ok(uri.by_loopback_name());
        }
        // OAUTH21-8.4.2-1: an address of this machine, and not a name that something else may answer to.
        if *uri == uri.by_loopback_name() {
            let relaxation = self.loopback_name(uri);
            return Err(relaxation
                .map_or(HostMisuse::RedirectUri, |relaxation| HostMisuse::Unnamed { relaxation })
                .into());
        }
        Ok(uri.clone())
    }

    /// What would have this issuer told the name `localhost`, where that is not in force.
    pub(super) fn loopback_name(&self, uri: &RedirectUri) -> Option<Relaxation> {
        let issuer = &self.target.listed_issuer;
        let known = self.target.client.policy().loopback_redirect(issuer);
        let ports = known.into_iter().flat_map(LoopbackRedirect::ports);
        let named = LoopbackRedirect::new(issuer.clone(), true, ports).ok().map(Relaxation::LoopbackRedirect);
        named.filter(|_| uri.is_loopback_http() && !known.is_some_and(LoopbackRedirect::localhost))
    }

    /// The URIs to register, so that every port the issuer knows is among them: the one in use first.
    pub(super) fn registered_forms(&self, uri: &RedirectUri) -> Vec<RedirectUri> {
        let mut forms = Vec::from([uri.clone()]);
        if let Some(redirect) = self.target.client.policy().loopback_redirect(&self.target.listed_issuer) {
            forms.extend(written_for(redirect, uri).into_iter().filter(|form| form != uri));
        }
        forms
    }

    fn shared_redirect(&self) -> Relaxation {
        Relaxation::SharedRedirect(self.target.listed_issuer.clone())
    }

    /// Whether answers of this server are known by something else than where they arrive.
    fn is_told_apart(&self) -> bool {
        self.metadata.authorization_response_iss_parameter_supported
            || self.target.client.policy().allows(&self.shared_redirect())
    }

    /// D29: where no `iss` will tell servers apart, the redirect URI must.
    fn own(&self, shared: bool) -> Result<(), Error> {
        // OAUTH21-2.3.4-1
        if !shared || self.is_told_apart() {
            return Ok(());
        }
        Err(PeerIncompatible::SharedRedirect { relaxation: self.shared_redirect() }.into())
    }

    /// Whether other servers answer to that redirect URI as well as `issuer`: those this client `registers` with, those
    /// that read its metadata document, or those where it was registered by hand.
    fn serves_others(&self, redirect_uri: &RedirectUri, issuer: &Issuer, registers: bool) -> bool {
        let configuration = self.target.client.configuration();
        let path = redirect_uri.without_query();
        let document = configuration.metadata_url.is_some();
        configuration.redirect_uri.is_at_place_of(redirect_uri) && (registers || document)
            || document
                && self.target.client.document_redirect_uris().iter().any(|uri| uri.without_query() == path)
            || self.is_anothers(redirect_uri, issuer)
    }

    fn is_anothers(&self, redirect_uri: &RedirectUri, issuer: &Issuer) -> bool {
        let mut identities = self.target.client.configuration().pre_registered.iter();
        identities.any(|other| other.issuer != *issuer && other.redirect_uri.is_at_place_of(redirect_uri))
    }

    /// The redirect URI of an identity that was registered by hand at `issuer`.
    pub(super) fn redirect_by_hand(
        &self,
        configured: &RedirectUri,
        issuer: &Issuer,
    ) -> Result<RedirectUri, Error> {
        let registers = self.target.client.configuration().dynamic_registration;
        self.own(self.serves_others(configured, issuer, registers))?;
        self.written(configured)
    }

    /// The redirect URI to register dynamically.
    pub(super) fn redirect_to_register(&self) -> Result<RedirectUri, Error> {
        let configured = self.written(&self.target.client.configuration().redirect_uri)?;
        if self.is_told_apart() {
            return Ok(configured);
        }
        // A private-use scheme is exactly the URI that the policy names, and has no other path.
        self.own(configured.is_private_scheme())?;
        let digest = SecretDigest::of(self.issuer.issuer().as_str().as_bytes());
        let own = base64url::encode(digest.as_bytes().get(..12).unwrap_or_default());
        below(&configured, &own).ok_or_else(|| HostMisuse::RedirectUri.into())
    }

    /// The redirect URI of a registration that was made before: what the server announces today counts, not what it did
    /// then.
    pub(super) fn redirect_of_registration(&self, registered: &RedirectUri) -> Result<RedirectUri, Error> {
        self.own(self.serves_others(registered, self.issuer.issuer(), true))?;
        self.written(registered)
    }

    /// The redirect URI of the metadata document for this server; `taken` is what the document's other paths are used
    /// for, where the host knows it.
    pub(super) fn redirect_of_document(&self, taken: Option<&CallbackPaths>) -> Result<RedirectUri, Error> {
        let configured = self.written(&self.target.client.configuration().redirect_uri)?;
        if self.is_told_apart() {
            return Ok(configured);
        }
        let issuer = self.issuer.issuer();
        let free = |taken: &CallbackPaths| {
            let mut paths = (1..CALLBACK_PATHS).filter_map(|path| numbered(&configured, path));
            let kept = taken.0.get(issuer);
            let used = |uri: &RedirectUri| {
                let mut others = taken.0.iter().filter(|(other, _)| *other != issuer);
                others.any(|(_, used)| used.is_at_place_of(uri)) || self.is_anothers(uri, issuer)
            };
            let is_kept = |uri: &RedirectUri| kept.is_some_and(|kept| kept.is_at_place_of(uri));
            paths.clone().find(|uri| is_kept(uri) && !used(uri)).or_else(|| paths.find(|uri| !used(uri)))
        };
        // D29
        let relaxation = self.shared_redirect();
        taken.and_then(free).ok_or_else(|| PeerIncompatible::SharedRedirect { relaxation }.into())
    }
}

impl RegistrationRecord {
    /// The callback path that an identity of the metadata document has at its issuer.
    fn callback_path(&self, client: &Client, sealer: &dyn Sealer) -> Option<RedirectUri> {
        let (kind, redirect_uri) = self.redirect(client, sealer).ok()?;
        (kind == IdentityKind::MetadataDocument).then_some(redirect_uri)
    }
}
