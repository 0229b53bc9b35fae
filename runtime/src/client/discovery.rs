//! The driver's way from a 401 to who this client is: discovery, the choice of an authorization server, identity.

use mcp_authz::client::{
    AwaitingResourceMetadata, AwaitingServerMetadata, ChoosingIdentity, ChoosingIssuer, IdentityKind, Ready,
    ResourceMetadataOutcome, ServerMetadataOutcome,
};
use mcp_authz::identifier::{Issuer, ResourceId};
use mcp_authz::message::exchange::{Fetch, Reply};
use mcp_authz::step::Step;

use super::driver::{Driver, LoginError};

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
        let (issuer, word) = self.choice(&choosing).ok_or(LoginError::NoIssuer)?;
        let step =
            self.core_time().measure(|| choosing.choose(&issuer, word)).map_err(|failed| failed.error)?;
        let choosing = self.server(step).await?;
        self.evidence("IssuerMatched", choosing.issuer_matched());
        Ok(choosing)
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
    ) -> Result<ChoosingIdentity, LoginError> {
        loop {
            let (fetch, waiting) = step.into_parts();
            let reply = self.fetch(fetch).await;
            match self.core_time().measure(|| waiting.receive(reply)).map_err(|failed| failed.error)? {
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
            IdentityKind::MetadataDocument => {
                Ok(core.measure(|| choosing.metadata_document()).map_err(|failed| failed.error)?)
            }
            IdentityKind::Registered => {
                let step = core.measure(|| choosing.register()).map_err(|failed| failed.error)?;
                let (fetch, waiting) = step.into_parts();
                let reply = self.fetch(fetch).await;
                Ok(core.measure(|| waiting.receive(reply)).map_err(|failed| failed.error)?)
            }
            _ => Err(LoginError::NoIdentity),
        }
    }
}
