//! The walk's way through the authorization servers of a resource.

use mcp_authz::client::Client;
use mcp_authz::error::{Error, Remedy};
use mcp_authz::identifier::{Endpoint, Issuer, ResourceId};
use mcp_authz::message::exchange::{FetchFailure, Reply};
use mcp_authz::message::protected_resource_metadata::ProtectedResourceMetadata;
use mcp_authz::message::server_metadata::ServerMetadata;

use super::super::authorization_server::{self, Against, Seen};
use super::super::checks;
use super::super::endpoints::{self, FOREIGN_REDIRECT};
use super::super::finding::{Part, Section, option};
use super::super::line::{Line, Peer, line};
use super::super::observation::Observed;
use super::super::registration::{self, REDIRECT};
use super::super::requests::{self, Challenged, Message, NO_CLIENT, NO_TOKEN};
use super::super::resource;
use super::super::strict;
use super::{Going, SERVERS, Walk};

impl Walk {
    /// Every authorization server of the resource, and what the strict client makes of each.
    pub(super) async fn servers(
        &mut self,
        challenge: &Reply,
        metadata: Option<&ProtectedResourceMetadata>,
        cors: bool,
        sections: &mut Vec<Section>,
    ) -> Going<()> {
        let (client, server) = (self.client.clone(), self.server.clone());
        let came = strict::resource(&client, &server, challenge, &self.documents);
        let mut verdicts = Section::new(Part::Client, line!["mcp-authz, strict but for what was named"]);
        let (issuers, identifier) = match (&came, metadata) {
            (Ok(came), _) => (came.issuers.as_slice(), &came.resource),
            (Err(_), Some(metadata)) => (metadata.authorization_servers.as_slice(), &metadata.resource),
            (Err(_), None) => (&[][..], &server),
        };
        for (at, issuer) in issuers.iter().enumerate() {
            let mut section = Section::new(Part::AuthorizationServer, line![Peer(issuer)]);
            if at >= SERVERS {
                section
                    .skip(&checks::SERVER_FOUND, "only the first four authorization servers are looked at");
                sections.push(section);
                continue;
            }
            let places = self.server_places(issuer).await?;
            let verdict = match &came {
                Ok(_) => strict::server(&client, &server, challenge, issuer, &self.documents),
                Err(error) => Err(error.clone()),
            };
            if came.is_ok() {
                judge_client(&mut verdicts, issuer, &verdict);
            }
            let seen = Seen { issuer: issuer.clone(), places, client: verdict };
            address(&mut section, &client, &server, issuer);
            let scopes = metadata.and_then(|metadata| metadata.scopes_supported.as_ref());
            let against = Against { client: &client, server: &server, resource: identifier, scopes };
            let went = match authorization_server::judge(&mut section, against, &seen) {
                Some(found) => self.endpoints(&mut section, &seen, &found, identifier, cors).await,
                None => {
                    endpoints::skip_all(&mut section, "there is no metadata that a client may use");
                    Ok(())
                }
            };
            sections.push(section);
            went?;
        }
        if let Err(error) = &came {
            verdicts.fail(&checks::CLIENT, line![error], remedy(error));
        }
        sections.push(verdicts);
        Ok(())
    }

    async fn server_places(&mut self, issuer: &Issuer) -> Going<Vec<(String, Observed)>> {
        let mut places = Vec::new();
        for url in issuer.metadata_urls() {
            let observed = self.document(&url).await?;
            places.push((url, observed));
        }
        Ok(places)
    }

    async fn endpoints(
        &mut self,
        section: &mut Section,
        seen: &Seen,
        metadata: &ServerMetadata,
        resource: &ResourceId,
        cors: bool,
    ) -> Going<()> {
        let keys = match &metadata.jwks_uri {
            Some(url) => Some(self.document(url.as_str()).await?),
            None => None,
        };
        endpoints::judge_keys(section, keys.as_ref());
        let place =
            seen.places.iter().find(|(_, observed)| observed.as_ref().is_ok_and(resource::is_document));
        let crossed = match place {
            Some((url, _)) => Some(self.send(url, Message::get().cross_origin()).await?),
            None => None,
        };
        endpoints::judge_document_cors(section, &checks::SERVER_CORS, crossed.as_ref(), cors);
        match &metadata.authorization_endpoint {
            Some(url) => {
                let asked =
                    requests::authorization(NO_CLIENT, FOREIGN_REDIRECT, resource.as_str(), Challenged::S256);
                let observed = self.authorize(url, &asked).await?;
                endpoints::judge_redirect(section, &checks::AUTHORIZE_REDIRECT, &observed);
                endpoints::judge_page_cors(section, &observed);
            }
            None => section.skip_all(
                &[&checks::AUTHORIZE_REDIRECT, &checks::AUTHORIZE_CORS],
                "there is no authorization endpoint",
            ),
        }
        match &metadata.token_endpoint {
            Some(url) => {
                let form = Message::form(requests::token_request(NO_CLIENT, resource.as_str()));
                let post = self.send(url.as_str(), form).await?;
                let get = self.send(url.as_str(), Message::get()).await?;
                endpoints::judge_token(section, &post, &get);
            }
            None => section.skip_all(
                &[&checks::TOKEN_ERROR, &checks::TOKEN_TEXT, &checks::TOKEN_STORE, &checks::TOKEN_GET],
                "there is no token endpoint",
            ),
        }
        let about = [("token", NO_TOKEN), ("client_id", NO_CLIENT)];
        let revoked = self.post(metadata.revocation_endpoint.as_ref(), &about).await?;
        endpoints::judge_revocation(section, revoked.as_ref());
        let told = self.post(metadata.introspection_endpoint.as_ref(), &[("token", NO_TOKEN)]).await?;
        endpoints::judge_introspection(section, told.as_ref());
        self.registration(section, metadata, resource).await
    }

    async fn post(&mut self, endpoint: Option<&Endpoint>, form: &[(&str, &str)]) -> Going<Option<Observed>> {
        let Some(url) = endpoint else { return Ok(None) };
        Ok(Some(self.send(url.as_str(), Message::form(form.iter().copied())).await?))
    }

    /// Opens the authorization endpoint as a browser would, without a person.
    async fn authorize(&mut self, endpoint: &Endpoint, parameters: &[(&str, &str)]) -> Going<Observed> {
        let Ok(url) = endpoint.with_parameters(parameters.iter().copied()) else {
            return Ok(Err(FetchFailure::NotSent));
        };
        self.send(&url, Message::page().cross_origin()).await
    }

    async fn registration(
        &mut self,
        section: &mut Section,
        metadata: &ServerMetadata,
        resource: &ResourceId,
    ) -> Going<()> {
        let (Some(endpoint), true) = (&metadata.registration_endpoint, self.plan.register) else {
            let why = if self.plan.register {
                "there is no registration endpoint"
            } else {
                "nothing is registered without --register"
            };
            registration::skip_all(section, why);
            return Ok(());
        };
        let Some(message) = Message::registration() else {
            registration::skip_all(section, "the probe's own metadata is not valid");
            return Ok(());
        };
        let observed = self.send(endpoint.as_str(), message).await?;
        let registered = registration::judge(section, &observed);
        for (check, redirect) in [
            (&checks::REGISTER_SCHEME, "javascript:alert(1)"),
            (&checks::REGISTER_HTTP, "http://mcp-authz-probe.invalid/callback"),
        ] {
            let observed = self.send(endpoint.as_str(), Message::faulty_registration(redirect)).await?;
            registration::judge_refused(section, check, &observed);
        }
        let (Some(client), Some(endpoint)) = (registered, &metadata.authorization_endpoint) else {
            section.skip_all(&registration::OF_CLIENT, "there is no registered client, or nowhere to ask");
            return Ok(());
        };
        let (id, resource) = (client.client_id.as_str(), resource.as_str());
        let ask = |redirect, challenged| requests::authorization(id, redirect, resource, challenged);
        let foreign = self.authorize(endpoint, &ask(FOREIGN_REDIRECT, Challenged::S256)).await?;
        endpoints::judge_redirect(section, &checks::KNOWN_REDIRECT, &foreign);
        let without = self.authorize(endpoint, &ask(REDIRECT, Challenged::NotAtAll)).await?;
        registration::judge_weak(section, &checks::KNOWN_NO_PKCE, &without);
        let plain = self.authorize(endpoint, &ask(REDIRECT, Challenged::Plain)).await?;
        registration::judge_weak(section, &checks::KNOWN_PLAIN, &plain);
        let announced = metadata.authorization_response_iss_parameter_supported;
        registration::judge_response(section, &without, metadata.issuer.as_str(), announced);
        Ok(())
    }
}

fn address(section: &mut Section, client: &Client, server: &ResourceId, issuer: &Issuer) {
    match client.addresses(server, issuer.as_str()) {
        Ok(_) => section.pass(&checks::ISSUER_ADDRESS, ""),
        Err(error) => section.fail(&checks::ISSUER_ADDRESS, line![Peer(issuer)], remedy(&error)),
    }
}

fn judge_client(section: &mut Section, issuer: &Issuer, verdict: &Result<ServerMetadata, Error>) {
    let check = &checks::CLIENT;
    match verdict {
        Ok(metadata) => {
            let identity = match (
                metadata.client_id_metadata_document_supported,
                metadata.registration_endpoint.is_some(),
            ) {
                (true, _) => "its metadata document",
                (false, true) => "registration",
                (false, false) => "being registered by hand",
            };
            section.pass(check, line!["to ", Peer(issuer), ", where it is known by ", identity]);
        }
        Err(error) => section.fail(check, line![Peer(issuer), ": ", error], remedy(error)),
    }
}

/// What the core says about an error, for a server's author.
fn remedy(error: &Error) -> Line {
    match error.remedy() {
        Remedy::Relax(relaxation) => {
            line!["mend the failure above. Until then a client needs ", option(&relaxation)]
        }
        Remedy::StateRevision(revision) => {
            line![
                "mend the failure above; for a server of revision ",
                revision,
                ", say --revision ",
                revision
            ]
        }
        Remedy::RetryAfter(_) => "the server failed, or did not answer: try again".into(),
        _ => "mend the failures above; no option of a client helps".into(),
    }
}
