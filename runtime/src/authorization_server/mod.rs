//! The authorization server as an axum router over the core's machines, a [`Store`] and a [`Signer`].
//!
//! | path, below the issuer's | what |
//! |---|---|
//! | `GET  /.well-known/oauth-authorization-server` (inserted before the issuer's path) | RFC 8414 document |
//! | `GET  /authorize` | checks the request, has the person signed in, shows the consent page |
//! | `POST /decision` | the consent page's form |
//! | `POST /sign-in` | the sign-in page's form |
//! | `POST /sign-out` | the button on the pages of somebody who is signed in |
//! | `GET  /sign-in/ID` | where a provider that people sign in at sends the browser back |
//! | `GET, POST /grants` | where a person sees and ends what they allowed |
//! | `POST /token`, `/register`, `/revoke`, `/introspect`, `/par` | for clients |
//! | `GET, PUT, DELETE /register/ID` | for the client of that registration |
//! | `GET  /jwks` | the signing keys' public halves |
//!
//! Every request runs to its end even if the peer hangs up: whoever replays a code cannot keep its family from being
//! revoked by closing the connection (I-G5). Rate limits and TLS belong in front of the router.
//!
//! ```no_run
//! use std::sync::Arc;
//! use mcp_authz::authorization_server::AuthorizationServer;
//! use mcp_authz_tokio::authorization_server::{AuthorizationServerHost, people::LocalUser};
//! use mcp_authz_tokio::{client::fetch::Fetcher, keys::SigningKey, store::sqlite::SqliteStore};
//!
//! # async fn serve(server: AuthorizationServer, key: SigningKey) -> Result<(), Box<dyn std::error::Error>> {
//! let store = Arc::new(SqliteStore::open("authz.db").await?);
//! let people = Arc::new(LocalUser::with_page("alice").ok_or("a subject is not empty")?);
//! let host = AuthorizationServerHost::new(server, store, Arc::new(key), people, Fetcher::new()?);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, host.router()).await?;
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::sync::Arc;

use mcp_authz::authorization_server::AuthorizationServer;
use mcp_authz::authorization_server::authorization::{ConsentView, Redirect};
use mcp_authz::authorization_server::error::TokenFailure;
use mcp_authz::authorization_server::refusal::Refusal;
use mcp_authz::authorization_server::registration::RegistrationReason;
use mcp_authz::authorization_server::store::{
    ClientInsertion, CodeRedemption, DecideOnce, DecisionTaken, FamilyRevocation, FindClient, InsertClient,
    InsertDecision, ReadCode, ReadDecision, ReadRefresh, RedeemCode, RefreshRotation, RevokeFamily,
    RotateRefresh,
};
use mcp_authz::evidence::{RedirectMatched, VerifierMatched};
use mcp_authz::jose::{KeyImporter, Sign};
use mcp_authz::message::exchange::Fetch;

use crate::client::fetch::Fetcher;
use crate::clock::{Clock, SystemClock};
use crate::core_time::CoreTime;
use crate::signer::Signer;
use crate::store::{AdministeredStore, Store, StoreError};

pub mod browser;
mod clients;
#[cfg(feature = "passwords")]
mod devices;
mod documents;
mod forms;
mod freshness;
mod grants;
#[cfg(feature = "aws-lc-rs")]
pub mod key_ring;
mod key_sets;
mod origin;
mod pages;
#[cfg(feature = "passwords")]
pub mod passwords;
pub mod people;
mod person_endpoints;
mod router;
mod sessions;
mod slots;
#[cfg(feature = "passwords")]
mod tries;
pub mod upstream;

pub use freshness::DocumentCaching;
pub use origin::{AllowedOrigin, InvalidOrigin};

use browser::Browsers;
use documents::Documents;
use forms::Forms;
use key_sets::KeySets;
use people::PersonAuthentication;

/// What happens at the authorization server, for a log or a demonstration: the core's actions before they are
/// carried out, their receipts, its evidence and its answers. Nothing in it holds a token, and the codes in it are
/// digests.
#[derive(Debug)]
#[non_exhaustive]
pub enum AuthorizationEvent<'a> {
    /// The RFC 8414 document was asked for.
    MetadataServed,
    /// The key set was asked for.
    KeySetServed,
    /// A client is looked up.
    FindClient(&'a FindClient),
    /// A client's metadata document is fetched.
    FetchDocument(&'a Fetch),
    /// The requested redirect URI is a registered one.
    RedirectMatched(&'a RedirectMatched),
    /// A valid request is stored before it is shown.
    InsertDecision(&'a InsertDecision),
    /// The consent page goes out.
    Shown(&'a ConsentView),
    /// An answer to a consent page came in.
    ReadDecision(&'a ReadDecision),
    /// The person has decided.
    DecideOnce(&'a DecideOnce),
    /// What became of the decision.
    DecisionTaken(&'a DecisionTaken),
    /// The browser goes back to the client.
    Redirected(&'a Redirect),
    /// A code was presented.
    ReadCode(&'a ReadCode),
    /// The presenter of the code holds its verifier.
    VerifierMatched(&'a VerifierMatched),
    /// An access token is signed.
    Sign(&'a Sign),
    /// A code is redeemed.
    RedeemCode(&'a RedeemCode),
    /// What became of the redemption.
    CodeRedemption(&'a CodeRedemption),
    /// A refresh token was presented.
    ReadRefresh(&'a ReadRefresh),
    /// A refresh token is rotated.
    RotateRefresh(&'a RotateRefresh),
    /// What became of the rotation.
    RefreshRotation(&'a RefreshRotation),
    /// A family is revoked.
    RevokeFamily(&'a RevokeFamily),
    /// The family is revoked.
    FamilyRevocation(&'a FamilyRevocation),
    /// A client registers.
    InsertClient(&'a InsertClient),
    /// What became of the registration.
    ClientInsertion(&'a ClientInsertion),
    /// Tokens go out.
    TokensIssued,
    /// The token or revocation endpoint refuses.
    TokenFailure(&'a TokenFailure),
    /// The person is shown a refusal.
    Refusal(&'a Refusal),
    /// A registration is refused.
    RegistrationRefused(&'a RegistrationReason),
    /// The store failed; the answer is 503.
    StoreFailed(&'a StoreError),
}

type Observer = Arc<dyn Fn(AuthorizationEvent<'_>) + Send + Sync>;

/// An authorization server on this machine. Cheap to clone.
#[derive(Clone)]
pub struct AuthorizationServerHost {
    server: AuthorizationServer,
    store: Arc<dyn Store>,
    signer: Arc<dyn Signer>,
    people: Arc<dyn PersonAuthentication>,
    fetcher: Fetcher,
    importer: Arc<dyn KeyImporter>,
    administered: Option<Arc<dyn AdministeredStore>>,
    documents: Arc<Documents>,
    key_sets: Arc<KeySets>,
    forms: Arc<Forms>,
    origins: Vec<AllowedOrigin>,
    approves_everything: bool,
    clock: Arc<dyn Clock>,
    core: CoreTime,
    observer: Option<Observer>,
    browsers: Arc<Browsers>,
}

impl AuthorizationServerHost {
    /// A server of this configuration over these parts.
    pub fn new(
        server: AuthorizationServer,
        store: Arc<dyn Store>,
        signer: Arc<dyn Signer>,
        people: Arc<dyn PersonAuthentication>,
        fetcher: Fetcher,
    ) -> Self {
        let browsers = Arc::new(Browsers::new(server.issuer()));
        let (clock, core) = (Arc::new(SystemClock), CoreTime::default());
        let importer = default_importer();
        let (administered, forms, observer) = (None, Arc::new(Forms::new()), None);
        let (origins, approves_everything) = (Vec::new(), false);
        let documents = Arc::new(Documents::new(DocumentCaching::default()));
        Self {
            server,
            store,
            signer,
            people,
            fetcher,
            importer,
            administered,
            documents,
            key_sets: Arc::default(),
            forms,
            origins,
            approves_everything,
            clock,
            core,
            observer,
            browsers,
        }
    }

    /// Gives a person a page of what they have allowed, at `/grants`. The store is the one that the host has.
    #[must_use]
    pub fn grants_page(mut self, store: Arc<dyn AdministeredStore>) -> Self {
        self.administered = Some(store);
        self
    }

    /// Sets for how long the metadata documents of clients are used before they are fetched again.
    #[must_use]
    pub fn document_caching(mut self, caching: DocumentCaching) -> Self {
        self.documents = Arc::new(Documents::new(caching));
        self
    }

    /// Lets programs in pages of these origins read the answers of the endpoints for clients, never those for people
    /// (D45). No credentials go along.
    #[must_use]
    pub fn allowed_origins(mut self, origins: Vec<AllowedOrigin>) -> Self {
        self.origins = origins;
        self
    }

    /// Approves every valid request without asking: for tests only, on a server that nobody else can reach.
    #[must_use]
    pub fn dangerously_approve_everything(mut self) -> Self {
        self.approves_everything = true;
        self
    }

    /// Shares the value in its own pages' forms with other processes, whose browsers may come to this one: 32 random
    /// bytes, the same for all. Without it a form is taken only by the process that made it.
    #[must_use]
    pub fn form_key(mut self, key: [u8; 32]) -> Self {
        self.forms = Arc::new(Forms::with_key(key));
        self
    }

    /// Imports the keys of clients that sign with that, and its own keys to introspect its tokens.
    #[must_use]
    pub fn importer(mut self, importer: Arc<dyn KeyImporter>) -> Self {
        self.importer = importer;
        self
    }

    /// Reads the time there; give the store the same clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Counts the time spent in the core there.
    #[must_use]
    pub fn core_time(mut self, core: CoreTime) -> Self {
        self.core = core;
        self
    }

    /// Calls this for everything that happens. It must be quick: the request waits.
    #[must_use]
    pub fn observer(mut self, observer: impl Fn(AuthorizationEvent<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// The configuration.
    pub fn server(&self) -> &AuthorizationServer {
        &self.server
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    fn observe(&self, event: AuthorizationEvent<'_>) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }

    /// Notes that the store failed. What it said is for the log of this machine only.
    fn store_failed(&self, error: &StoreError) {
        tracing::error!(%error, "the store failed");
        self.observe(AuthorizationEvent::StoreFailed(error));
    }
}

impl fmt::Debug for AuthorizationServerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationServerHost")
            .field("server", &self.server)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "aws-lc-rs")]
fn default_importer() -> Arc<dyn KeyImporter> {
    Arc::new(crate::keys::AwsLcImporter)
}

/// Without an implementation of signatures no client that signs is let in, until the host brings one.
#[cfg(not(feature = "aws-lc-rs"))]
fn default_importer() -> Arc<dyn KeyImporter> {
    struct None;
    impl KeyImporter for None {
        fn import(
            &self,
            _: &mcp_authz::jose::Jwk,
        ) -> Result<Box<dyn mcp_authz::jose::VerifyingKey>, mcp_authz::jose::ImportFailed> {
            Err(mcp_authz::jose::ImportFailed)
        }
    }
    Arc::new(None)
}

#[cfg(all(test, feature = "aws-lc-rs"))]
mod tests;
