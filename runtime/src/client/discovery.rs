//! The driver's way from a 401 to who this client is: discovery, the choice of an authorization server, identity.

use mcp_authz::client::{
    AwaitingRegistration, AwaitingResourceMetadata, AwaitingServerMetadata, ChoosingIdentity, ChoosingIssuer,
    IdentityKind, Ready, RegistrationRecord, ResourceMetadataOutcome, ServerMetadataOutcome,
};
use mcp_authz::error::{Error, HostMisuse, Remedy};
use mcp_authz::evidence::IssuerForResource;
use mcp_authz::identifier::{ClientId, Issuer, ResourceId};
use mcp_authz::message::exchange::{Fetch, Reply};
use mcp_authz::sealer::Sealer;
use mcp_authz::step::{Failed, Step};
use tokio::sync::oneshot;

use super::credentials::StoreFailed;
use super::driver::{Driver, LoginError};
use super::pairing::HostsWord;

/// An issuer, and the host's word where it gave one for this pair.
type Vouched = (Issuer, Option<IssuerForResource>);

impl Driver {
    /// From the reply that asked for authorization to where the person can be asked: discovery and identity.
    ///
    /// # Errors
    /// [`LoginError`]
    pub async fn prepare(&self, server: &ResourceId, reply: &Reply) -> Result<Ready, LoginError> {
        let choosing = self.find(server, reply).await?;
        let choosing = self.choose(choosing).await?;
        self.identify(choosing).await
    }

    /// From a 401 to a request with a token, or after a grant ended: whether the resource no longer names the
    /// authorization server `issuer`, and if so, who this client is at one that it names now (MCP client registration:
    /// what was registered at one server is never used at another). `None` when nothing changed.
    ///
    /// # Errors
    /// [`LoginError`]
    pub async fn moved(
        &self,
        issuer: &Issuer,
        server: &ResourceId,
        reply: &Reply,
    ) -> Result<Option<Ready>, LoginError> {
        let choosing = self.find(server, reply).await?;
        // A choice among several stands as long as it can.
        if choosing.issuers().contains(issuer) {
            return Ok(None);
        }
        let choosing = self.choose(choosing).await?;
        // MCP-REG-051, MCP-REG-052: nothing of the other server's is taken along; this client introduces itself anew.
        if choosing.issuer_matched().issuer() == issuer {
            return Ok(None);
        }
        self.identify(choosing).await.map(Some)
    }

    async fn find(&self, server: &ResourceId, reply: &Reply) -> Result<ChoosingIssuer, LoginError> {
        let step = self.core_time().measure(|| self.client().challenged(server, reply))?;
        let choosing = self.resource(step).await?;
        self.evidence("ResourceMatched", choosing.resource_matched());
        Ok(choosing)
    }

    async fn choose(&self, choosing: ChoosingIssuer) -> Result<ChoosingIdentity, LoginError> {
        let (issuer, word) = match self.known(&choosing).await? {
            Some(known) => known,
            None => self.asked(&choosing).await?,
        };
        let unasked = word.is_none();
        let found = match self.at_issuer(choosing, &issuer, word).await? {
            // D36: the server lists its resources without this one, which takes more than a configured identity.
            Err(Failed { error: Error::Host(HostMisuse::IssuerNotAsserted), state }) if unasked => {
                let choosing = state.choose_again();
                let (issuer, word) = self.asked(&choosing).await?;
                self.at_issuer(choosing, &issuer, word).await?
            }
            found => found,
        };
        let choosing = found.map_err(|failed| failed.error)?;
        self.evidence("IssuerMatched", choosing.issuer_matched());
        Ok(choosing)
    }

    async fn at_issuer(
        &self,
        choosing: ChoosingIssuer,
        issuer: &Issuer,
        word: Option<IssuerForResource>,
    ) -> Result<Result<ChoosingIdentity, Failed<AwaitingServerMetadata>>, LoginError> {
        let step =
            self.core_time().measure(|| choosing.choose(issuer, word)).map_err(|failed| failed.error)?;
        Ok(self.server(step).await)
    }

    /// The first of the issuers that somebody vouched for before: at a login that came to its tokens, or with an identity
    /// registered by hand for the resource.
    async fn known(&self, choosing: &ChoosingIssuer) -> Result<Option<Vouched>, LoginError> {
        // I-L13
        let resource = choosing.resource_matched().resource();
        let kept = self.store().pairings(resource).await?;
        // Of another configuration of this client: the word is asked for again.
        let words = kept.iter().filter_map(|record| record.open(self.client(), self.store().sealer()).ok());
        let mut words: Vec<_> = words.collect();
        for issuer in choosing.issuers().iter().filter(|issuer| self.pairing().stands(resource, issuer)) {
            let kept = words.iter().position(|word| word.is_for(resource, issuer));
            if let Some(kept) = kept {
                return Ok(Some((issuer.clone(), Some(words.swap_remove(kept)))));
            }
            if !choosing.needs_assertion(issuer) {
                return Ok(Some((issuer.clone(), None)));
            }
        }
        Ok(None)
    }

    /// The host's word for one of the issuers.
    async fn asked(&self, choosing: &ChoosingIssuer) -> Result<Vouched, LoginError> {
        match self.pairing().pair(choosing).await {
            HostsWord::For(issuer) => {
                let resource = choosing.resource_matched().resource().clone();
                let word = IssuerForResource::assertion(resource, issuer.clone());
                Ok((issuer, Some(word)))
            }
            HostsWord::None => Err(Error::from(HostMisuse::IssuerNotAsserted).into()),
            HostsWord::Refused => Err(LoginError::NoIssuer),
        }
    }

    async fn resource(
        &self,
        mut step: Step<Fetch, AwaitingResourceMetadata>,
    ) -> Result<ChoosingIssuer, LoginError> {
        loop {
            let (fetch, waiting) = step.into_parts();
            let reply = self.fetch(fetch).await;
            match self.core_time().measure(|| waiting.receive(reply)).map_err(|failed| failed.error)? {
                ResourceMetadataOutcome::Found(choosing) => return Ok(choosing),
                ResourceMetadataOutcome::Next(next) => step = next,
            }
        }
    }

    async fn server(
        &self,
        mut step: Step<Fetch, AwaitingServerMetadata>,
    ) -> Result<ChoosingIdentity, Failed<AwaitingServerMetadata>> {
        loop {
            let (fetch, waiting) = step.into_parts();
            let reply = self.fetch(fetch).await;
            match self.core_time().measure(|| waiting.receive(reply))? {
                ServerMetadataOutcome::Found(choosing) => return Ok(choosing),
                ServerMetadataOutcome::Next(next) => step = next,
            }
        }
    }

    async fn identify(&self, choosing: ChoosingIdentity) -> Result<Ready, LoginError> {
        let core = self.core_time();
        let offered = choosing.identities();
        let kind = self.identities().iter().find(|kind| offered.contains(kind));
        match kind.ok_or(LoginError::NoIdentity)? {
            IdentityKind::PreRegistered => {
                Ok(core.measure(|| choosing.pre_registered()).map_err(|failed| failed.error)?)
            }
            IdentityKind::MetadataDocument => self.by_document(choosing).await,
            IdentityKind::Registered => self.registered(choosing, None).await,
            _ => Err(LoginError::NoIdentity),
        }
    }

    /// As the client of the metadata document. A server that sends no `iss` gets a callback path for itself (D29), which
    /// is kept before anybody is asked there.
    async fn by_document(&self, choosing: ChoosingIdentity) -> Result<Ready, LoginError> {
        let (core, client) = (self.core_time().clone(), self.client().clone());
        let (sender, mut chosen) = oneshot::channel();
        let choose = move |kept: &[RegistrationRecord], sealer: &dyn Sealer| {
            let paths = client.callback_paths(kept, sealer);
            let ready =
                core.measure(|| choosing.metadata_document_among(&paths)).map_err(|failed| failed.error)?;
            let record = ready.registration_record(sealer)?;
            // Nobody waits any more where this fails.
            drop(sender.send(ready));
            Ok(record)
        };
        self.store().choose_registration(Box::new(choose)).await.map_err(|error| match error {
            StoreFailed::Record(error) => LoginError::Core(error),
            other => other.into(),
        })?;
        chosen.try_recv().map_err(|_| LoginError::NoIdentity)
    }

    /// Registers anew at a server that does not know this client's registration any more
    /// ([`Remedy::Reregister`]), unless another program has done so already. What
    /// was asked for and counted so far goes along.
    ///
    /// # Errors
    /// [`LoginError`]
    pub async fn register_anew(&self, ready: Ready) -> Result<Ready, LoginError> {
        let dead = ready.client_id().clone();
        self.registered(ready.choose_identity(), Some(&dead)).await
    }

    /// The registration that is kept for the server, unless it is the one that is `dead`; else a new one, which is kept
    /// from then on. Every server behind this authorization server uses the same.
    async fn registered(
        &self,
        choosing: ChoosingIdentity,
        dead: Option<&ClientId>,
    ) -> Result<Ready, LoginError> {
        let store = self.store();
        let mut choosing = choosing;
        // MCP-DISC-003, MCP-REG-001: looked up by the matched issuer.
        if let Some(record) = store.registration(choosing.issuer_matched().issuer()).await? {
            let now = self.now();
            let kept = self.core_time().measure(|| choosing.registered(&record, store.sealer(), now));
            choosing = match kept {
                Ok(ready) if Some(ready.client_id()) != dead => return Ok(ready),
                Ok(ready) => ready.choose_identity(),
                // Of another configuration of this client, or expired.
                Err(failed) => failed.state,
            };
            store.forget_registration(record).await?;
        }
        let ready = match self.register(self.core_time().measure(|| choosing.register())).await {
            // MCP-REG-045: once, as the type of application that the core says.
            Err(Failed { error, state }) => match error.remedy() {
                Remedy::RegisterAs(application_type) => {
                    let again = self.core_time().measure(|| state.register_as(application_type));
                    self.register(again).await.map_err(|failed| failed.error)?
                }
                _ => return Err(error.into()),
            },
            Ok(ready) => ready,
        };
        if let Some(record) = ready.registration_record(store.sealer())? {
            store.keep_registration(record).await?;
        }
        Ok(ready)
    }

    async fn register(
        &self,
        begun: Result<Step<Fetch, AwaitingRegistration>, Failed<ChoosingIdentity>>,
    ) -> Result<Ready, Failed<ChoosingIdentity>> {
        let (fetch, waiting) = begun?.into_parts();
        let reply = self.fetch(fetch).await;
        self.core_time().measure(|| waiting.receive(reply))
    }
}
