//! Where an issuer publishes its keys, when the host knows the issuer only: waits for the issuer's metadata (RFC 8414
//! section 3, OpenID Connect Discovery) and takes its `jwks_uri`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::IntoIter;

use crate::evidence::IssuerMatched;
use crate::identifier::{Endpoint, Issuer};
use crate::limits;
use crate::message::exchange::{AddressPolicy, Fetch, FetchFailure, FetchPolicy, FetchPurpose, Reply};
use crate::message::server_metadata::ServerMetadata;
use crate::step::Step;

/// Asks for the metadata of an issuer of the host's configuration, for the sake of its `jwks_uri`.
///
/// # Errors
/// [`KeyPlaceFailure::NotThere`] for an issuer without a location to ask; there is none such.
pub fn find_key_set(
    issuer: Issuer,
    addresses: AddressPolicy,
) -> Result<Step<Fetch, AwaitingKeyPlace>, KeyPlaceFailure> {
    let locations = issuer.metadata_urls().into_iter();
    AwaitingKeyPlace(Box::new(Search { issuer, addresses, locations })).next()
}

/// Waits for a metadata document of an issuer.
#[derive(Debug)]
#[must_use = "the place of the keys comes with the reply"]
pub struct AwaitingKeyPlace(Box<Search>);

#[derive(Debug)]
struct Search {
    issuer: Issuer,
    addresses: AddressPolicy,
    /// Those not asked yet.
    locations: IntoIter<String>,
}

/// What came of one location.
#[derive(Debug)]
pub enum KeyPlace {
    /// The keys are there.
    Found(Endpoint),
    /// There is no document at this location; the next one is asked.
    Next(Step<Fetch, AwaitingKeyPlace>),
}

/// Why the place of an issuer's keys cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyPlaceFailure {
    /// The fetch brought no reply: try again later.
    #[error("{0}")]
    Fetch(#[from] FetchFailure),
    /// The server failed: no evidence that there is no document.
    #[error("the issuer's metadata could not be read (status {0})")]
    Status(u16),
    /// No location has a document.
    #[error("the issuer publishes no metadata; name the URL of its keys")]
    NotThere,
    /// The document breaks its specification.
    #[error("the issuer's metadata is malformed")]
    Malformed,
    /// The document is of another issuer.
    #[error(
        "the metadata is of another issuer than the one asked for; compare the spelling, a trailing slash among it"
    )]
    OtherIssuer,
    /// The document names no keys.
    #[error("the issuer's metadata names no jwks_uri")]
    NoKeys,
}

impl AwaitingKeyPlace {
    fn next(mut self) -> Result<Step<Fetch, Self>, KeyPlaceFailure> {
        let url = self.0.locations.next().ok_or(KeyPlaceFailure::NotThere)?;
        let policy = FetchPolicy::new(self.0.addresses, limits::DOCUMENT_BYTES);
        Ok(Step::new(Fetch::get(FetchPurpose::AuthorizationServerMetadata, url, policy), self))
    }

    /// Takes the reply.
    ///
    /// # Errors
    /// [`KeyPlaceFailure`]; a document that says something else than it must ends the search.
    pub fn receive(self, reply: Result<Reply, FetchFailure>) -> Result<KeyPlace, KeyPlaceFailure> {
        let reply = reply?;
        match reply.status() {
            200 if reply.is_json() => {}
            // D5: no document here is not no document anywhere; a server that fails says neither.
            500.. => return Err(KeyPlaceFailure::Status(reply.status())),
            _ => return self.next().map(KeyPlace::Next),
        }
        let metadata = ServerMetadata::parse(reply.body()).map_err(|_| KeyPlaceFailure::Malformed)?;
        // I-L1, RFC8414-3.3-1: byte for byte, or nothing of it is used.
        IssuerMatched::by_document(&self.0.issuer, metadata.issuer.as_str())
            .ok_or(KeyPlaceFailure::OtherIssuer)?;
        metadata.jwks_uri.map(KeyPlace::Found).ok_or(KeyPlaceFailure::NoKeys)
    }
}
