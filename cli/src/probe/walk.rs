//! The walk: which requests are sent, in which order, within which bounds. What their answers mean is judged elsewhere.
//!
//! ```text
//! MCP URL without a token ─ with made-up credentials ─ resource metadata, everywhere it may be
//!    └ each authorization server: metadata, everywhere it may be ─ authorization, token, ... endpoints ─ registration, if asked
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use mcp_authz::client::{Client, Configuration};
use mcp_authz::error::{Error, Remedy};
use mcp_authz::identifier::{Endpoint, Issuer, RedirectUri, ResourceId};
use mcp_authz::limits;
use mcp_authz::message::challenge::{BearerChallenge, parse_challenges};
use mcp_authz::message::exchange::{Fetch, FetchFailure, Reply};
use mcp_authz::message::protected_resource_metadata::ProtectedResourceMetadata;
use mcp_authz::message::server_metadata::ServerMetadata;
use mcp_authz::policy::{Policy, Relaxation};
use mcp_authz::revision::Revision;
use mcp_authz_tokio::client::fetch::{Fetcher, Outgoing};
use tokio::time::Instant;

use super::authorization_server::{self, Against, Seen};
use super::checks;
use super::endpoints::{self, FOREIGN_REDIRECT};
use super::finding::{Part, Report, Section, option};
use super::line::{Line, Peer, line};
use super::mcp_server::{self, Asked, Pretended, shown};
use super::observation::{Bounds, Observed, observe};
use super::registration::{self, REDIRECT};
use super::requests::{self, Challenged, Message, NO_CLIENT, NO_TOKEN};
use super::resource::{self, Place};
use super::strict::{self, Answers};

/// Authorization servers that are looked at; a resource with more has its first ones looked at.
const SERVERS: usize = 4;

/// How much a walk may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Requests.
    pub(crate) requests: usize,
    /// Bytes of one body.
    pub(crate) bytes: usize,
    /// Time for one request.
    pub(crate) each: Duration,
    /// Time for all of them.
    pub(crate) total: Duration,
}

impl Limits {
    /// All of it within that time.
    pub(crate) fn within(total: Duration) -> Self {
        Self { requests: 120, bytes: limits::DOCUMENT_BYTES, each: Duration::from_secs(10).min(total), total }
    }
}

/// What a walk is told.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The URL the person gave.
    pub(crate) url: String,
    pub(crate) policy: Policy,
    pub(crate) revision: Revision,
    /// Whether a client may be registered.
    pub(crate) register: bool,
    pub(crate) limits: Limits,
}

struct Walk {
    plan: Plan,
    client: Client,
    server: ResourceId,
    fetcher: Fetcher,
    until: Instant,
    requests: usize,
    documents: BTreeMap<String, Observed>,
    cut_short: Option<Line>,
}

/// Walks; a walk that could not be done is a report too.
pub(crate) async fn walk(plan: Plan) -> Report {
    let url = line![Peer(&plan.url)];
    let mut report = Report { server: url.clone(), sections: Vec::new(), requests: 0, cut_short: None };
    let mut section = Section::new(Part::McpServer, url);
    let server = match ResourceId::from_server_url(&plan.url) {
        Ok(server) => server,
        Err(error) => {
            // OAUTH21-1.5-1: nothing is sent over plain http.
            let plain = plan.url.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("http://"));
            if plain {
                let fix = "serve the MCP endpoint over https: tokens travel with every request";
                section.fail(&checks::TRANSPORT, line![error], fix);
                report.sections.push(section);
            }
            report.cut_short = Some(line!["that is no URL of an MCP server: ", error]);
            return report;
        }
    };
    section.pass(&checks::TRANSPORT, if server.is_loopback() { "on this machine" } else { "https" });
    let mut walk = match Walk::new(plan, server) {
        Ok(walk) => walk,
        Err(why) => {
            report.cut_short = Some(why);
            return report;
        }
    };
    walk.run(section, &mut report.sections).await;
    report.requests = walk.requests;
    report.cut_short = walk.cut_short;
    report
}

impl Walk {
    fn new(plan: Plan, server: ResourceId) -> Result<Self, Line> {
        if plan.policy.egress_proxy().is_some() {
            return Err("EgressProxy is not for probe: it connects to the servers itself".into());
        }
        let fetcher = Fetcher::builder().private_networks(plan.policy.networks()).build();
        let fetcher = fetcher.map_err(|_| Line::from("the HTTP client cannot be set up"))?;
        let redirect = RedirectUri::new(REDIRECT).map_err(|error| line![error])?;
        let configuration = Configuration::new("mcp-authz probe", redirect)
            .policy(plan.policy.clone())
            .revision(plan.revision);
        let until = Instant::now() + plan.limits.total;
        Ok(Self {
            plan,
            client: Client::new(configuration),
            server,
            fetcher,
            until,
            requests: 0,
            documents: BTreeMap::new(),
            cut_short: None,
        })
    }

    /// Sends one request, if its URL may be asked and the bounds allow it.
    async fn send(&mut self, url: &str, message: Message) -> Observed {
        // MCP-SBP-020, I-L8: the policy that the client's own fetches have.
        let addresses =
            self.client.addresses(&self.server, url).map_err(|_| FetchFailure::AddressForbidden)?;
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() || self.requests >= self.plan.limits.requests {
            self.cut_short =
                Some("the time, or the number of requests, ran out before everything was seen".into());
            return Err(FetchFailure::NotSent);
        }
        self.requests = self.requests.saturating_add(1);
        let bounds = Bounds { bytes: self.plan.limits.bytes, time: self.plan.limits.each.min(left) };
        let Message { method, headers, body } = message;
        observe(&self.fetcher, Outgoing { method, url, headers, body: &body, addresses }, bounds).await
    }

    /// What is at a document's place; asked for once.
    async fn document(&mut self, url: &str) -> Observed {
        if let Some(known) = self.documents.get(url) {
            return known.clone();
        }
        let observed = self.send(url, Message::get()).await;
        self.documents.insert(url.to_owned(), observed.clone());
        observed
    }

    async fn run(&mut self, mut section: Section, sections: &mut Vec<Section>) {
        let (posts, main) = self.without_token(&mut section).await;
        if let Some(why) = self.is_nowhere(&posts) {
            self.cut_short = Some(why);
            return sections.push(section);
        }
        let refused: Vec<_> = posts.iter().filter_map(Asked::refused).collect();
        let challenge = refused.iter().find(|answer| answer.has_header("www-authenticate"));
        let challenge = challenge.or(refused.first());
        let reply = challenge.map_or_else(|| Reply::new(401, ""), |answer| answer.reply());
        let (places, named, well_known) = self.places(&reply).await;
        mcp_server::judge_challenge(&mut section, &self.plan.policy, &self.server, &refused, well_known);
        let pretended = self.pretended(&main).await;
        mcp_server::judge_pretended(&mut section, &pretended, refused.first().copied());
        let url = self.plan.url.clone();
        let preflight = self.send(&url, Message::preflight()).await;
        let crossed = match self.send(&url, main.cross_origin()).await {
            Ok(answer) if answer.status == 401 => Some(answer),
            _ => None,
        };
        mcp_server::judge_cors(&mut section, &preflight, crossed.as_ref());
        let cors = preflight.is_ok_and(|answer| answer.has_header("access-control-allow-origin"));
        sections.push(section);

        let at = places.iter().find(|place| place.has_document()).or(places.first());
        let at = at.map_or_else(Line::new, |place| line![Peer(&place.url)]);
        let mut section = Section::new(Part::ResourceMetadata, at);
        let metadata = self.resource(&mut section, &places, named, cors).await;
        sections.push(section);
        self.servers(&reply, metadata.as_ref(), cors, sections).await;
    }

    /// The first requests of a client, and the one of them that the later ones vary.
    async fn without_token(&mut self, section: &mut Section) -> (Vec<Asked>, Message) {
        let (url, revision) = (self.plan.url.clone(), self.plan.revision);
        let mut messages = vec![(&checks::NO_TOKEN_INITIALIZE, Message::initialize(revision))];
        if revision >= Revision::V2026_07_28 {
            messages.insert(0, (&checks::NO_TOKEN_STATELESS, Message::stateless(revision)));
        }
        let mut posts = Vec::new();
        let mut main = messages.first().map(|(_, message)| message.clone());
        for (check, message) in messages {
            let asked = Asked { check, observed: self.send(&url, message.clone()).await };
            if asked.refused().is_some() && !posts.iter().any(|asked: &Asked| asked.refused().is_some()) {
                main = Some(message);
            }
            posts.push(asked);
        }
        let observed = self.send(&url, Message::stream(revision)).await;
        let get = Asked { check: &checks::NO_TOKEN_GET, observed };
        mcp_server::judge_without_token(section, &posts, &get);
        (posts, main.unwrap_or_else(|| Message::initialize(revision)))
    }

    /// Why there is nothing to walk: nobody answers, or somebody who is no MCP server.
    fn is_nowhere(&self, posts: &[Asked]) -> Option<Line> {
        let nothing = |asked: &Asked| match &asked.observed {
            Ok(answer) => answer.is_redirect() || matches!(answer.status, 404 | 500..),
            Err(_) => true,
        };
        if !posts.iter().all(nothing) {
            return None;
        }
        let first = posts.first()?;
        let words =
            line!["the server answers nothing that a client could go on from: ", shown(&first.observed)];
        Some(match &first.observed {
            Ok(answer) if answer.is_redirect() => words.and(". A client follows no redirect: probe that URL"),
            Ok(_) => words.and(". Is it the URL of the MCP endpoint?"),
            Err(FetchFailure::AddressForbidden) => {
                match self.client.addresses(&self.server, &self.plan.url) {
                    Err(error) => match error.remedy() {
                        Remedy::Relax(relaxation) => line![words, ". In an intranet: ", option(&relaxation)],
                        _ => words,
                    },
                    Ok(_) => words.and(
                        ". In an intranet, name its network: --relax 'PrivateNetworks=ORIGIN ADDRESS/PREFIX'",
                    ),
                }
            }
            Err(_) => words,
        })
    }

    /// The requests with credentials that nobody issued.
    async fn pretended(&mut self, main: &Message) -> Pretended {
        let url = self.plan.url.clone();
        let separator = if url.contains('?') { '&' } else { '?' };
        let in_query = format!("{url}{separator}access_token={NO_TOKEN}");
        let with = |fields: &[&'static str]| main.clone().with_authorization(fields);
        Pretended {
            token: self.send(&url, with(&["Bearer mcp-authz-probe.not-a-token"])).await,
            query: self.send(&in_query, main.clone()).await,
            malformed: self.send(&url, with(&["Bearer not one token"])).await,
            twice: self.send(&url, with(&["Bearer one", "Bearer two"])).await,
            basic: self.send(&url, with(&["Basic bm9ib2R5Om5vdGhpbmc="])).await,
        }
    }

    /// Where the resource's metadata may be, in the order of a client; whether the first place is the challenge's; and
    /// whether a well-known place has a document.
    async fn places(&mut self, challenge: &Reply) -> (Vec<Place>, bool, bool) {
        let mut places = Vec::new();
        let all = parse_challenges(challenge.www_authenticate()).ok();
        let bearer = all.and_then(|all| BearerChallenge::find(&all).ok()).flatten();
        let named = bearer.and_then(|bearer| bearer.resource_metadata).filter(|url| self.may_be_named(url));
        if let Some(url) = &named {
            let (observed, expected) = (self.document(url).await, vec![self.server.clone()]);
            places.push(Place { name: "named by the challenge", url: url.clone(), expected, observed });
        }
        let locations = self.server.metadata_locations();
        let mut well_known = false;
        let last = locations.len().saturating_sub(1);
        for (at, location) in locations.into_iter().enumerate() {
            let observed = self.document(&location.url).await;
            let name = if at == last { "well-known, of the host" } else { "well-known, of the path" };
            let place = Place { name, url: location.url, expected: location.identifiers, observed };
            well_known |= place.has_document();
            if named.as_ref() != Some(&place.url) {
                places.push(place);
            }
        }
        (places, named.is_some(), well_known)
    }

    /// Whether the client would fetch the URL of a challenge.
    fn may_be_named(&self, url: &str) -> bool {
        let Ok(endpoint) = Endpoint::new(url) else { return false };
        let origin = endpoint.origin();
        origin == self.server.origin() || self.plan.policy.allows(&Relaxation::MetadataOnOtherOrigin(origin))
    }

    async fn resource(
        &mut self,
        section: &mut Section,
        places: &[Place],
        named: bool,
        cors: bool,
    ) -> Option<ProtectedResourceMetadata> {
        let document = places.iter().find(|place| place.has_document());
        if document.is_none() && self.plan.revision == Revision::V2025_03_26 {
            section.skip(
                &checks::RESOURCE_FOUND,
                "none, and 2025-03-26 has none: the origin is the authorization server",
            );
            return None;
        }
        let metadata = resource::judge(section, &self.plan.policy, &self.server, places, named);
        let crossed = match document {
            Some(place) => Some(self.send(&place.url, Message::get().cross_origin()).await),
            None => None,
        };
        endpoints::judge_document_cors(section, &checks::RESOURCE_CORS, crossed.as_ref(), cors);
        metadata
    }

    /// Every authorization server of the resource, and what the strict client makes of each.
    async fn servers(
        &mut self,
        challenge: &Reply,
        metadata: Option<&ProtectedResourceMetadata>,
        cors: bool,
        sections: &mut Vec<Section>,
    ) {
        let (client, server) = (self.client.clone(), self.server.clone());
        let came = strict::resource(&client, &server, challenge, self).await;
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
            let verdict = match &came {
                Ok(_) => strict::server(&client, &server, challenge, issuer, self).await,
                Err(error) => Err(error.clone()),
            };
            if came.is_ok() {
                judge_client(&mut verdicts, issuer, &verdict);
            }
            let seen = self.server_places(issuer, verdict).await;
            address(&mut section, &client, &server, issuer);
            let scopes = metadata.and_then(|metadata| metadata.scopes_supported.as_ref());
            let against = Against { client: &client, server: &server, resource: identifier, scopes };
            if let Some(found) = authorization_server::judge(&mut section, against, &seen) {
                self.endpoints(&mut section, &seen, &found, identifier, cors).await;
            }
            sections.push(section);
        }
        if let Err(error) = &came {
            verdicts.fail(&checks::CLIENT, line![error], remedy(error));
        }
        sections.push(verdicts);
    }

    async fn server_places(&mut self, issuer: &Issuer, client: Result<ServerMetadata, Error>) -> Seen {
        let mut places = Vec::new();
        for url in issuer.metadata_urls() {
            let observed = self.document(&url).await;
            places.push((url, observed));
        }
        Seen { issuer: issuer.clone(), places, client }
    }

    async fn endpoints(
        &mut self,
        section: &mut Section,
        seen: &Seen,
        metadata: &ServerMetadata,
        resource: &ResourceId,
        cors: bool,
    ) {
        let keys = match &metadata.jwks_uri {
            Some(url) => Some(self.document(url.as_str()).await),
            None => None,
        };
        endpoints::judge_keys(section, keys.as_ref());
        let place =
            seen.places.iter().find(|(_, observed)| observed.as_ref().is_ok_and(resource::is_document));
        let crossed = match place {
            Some((url, _)) => Some(self.send(url, Message::get().cross_origin()).await),
            None => None,
        };
        endpoints::judge_document_cors(section, &checks::SERVER_CORS, crossed.as_ref(), cors);
        match &metadata.authorization_endpoint {
            Some(url) => {
                let asked =
                    requests::authorization(NO_CLIENT, FOREIGN_REDIRECT, resource.as_str(), Challenged::S256);
                let observed = self.authorize(url, &asked).await;
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
                let post = self.send(url.as_str(), form).await;
                let get = self.send(url.as_str(), Message::get()).await;
                endpoints::judge_token(section, &post, &get);
            }
            None => section.skip_all(
                &[&checks::TOKEN_ERROR, &checks::TOKEN_TEXT, &checks::TOKEN_STORE, &checks::TOKEN_GET],
                "there is no token endpoint",
            ),
        }
        let about = [("token", NO_TOKEN), ("client_id", NO_CLIENT)];
        let revoked = self.post(metadata.revocation_endpoint.as_ref(), &about).await;
        endpoints::judge_revocation(section, revoked.as_ref());
        let told = self.post(metadata.introspection_endpoint.as_ref(), &[("token", NO_TOKEN)]).await;
        endpoints::judge_introspection(section, told.as_ref());
        self.registration(section, seen, metadata, resource).await;
    }

    async fn post(&mut self, endpoint: Option<&Endpoint>, form: &[(&str, &str)]) -> Option<Observed> {
        let url = endpoint?;
        Some(self.send(url.as_str(), Message::form(form.iter().copied())).await)
    }

    /// Opens the authorization endpoint as a browser would, without a person.
    async fn authorize(&mut self, endpoint: &Endpoint, parameters: &[(&str, &str)]) -> Observed {
        let url = endpoint.with_parameters(parameters.iter().copied()).map_err(|_| FetchFailure::NotSent)?;
        self.send(&url, Message::page().cross_origin()).await
    }

    async fn registration(
        &mut self,
        section: &mut Section,
        seen: &Seen,
        metadata: &ServerMetadata,
        resource: &ResourceId,
    ) {
        let (Some(endpoint), true) = (&metadata.registration_endpoint, self.plan.register) else {
            let why = if self.plan.register {
                "there is no registration endpoint"
            } else {
                "nothing is registered without --register"
            };
            return registration::skip_all(section, why);
        };
        let Some(message) = Message::registration() else {
            return registration::skip_all(section, "the probe's own metadata is not valid");
        };
        let observed = self.send(endpoint.as_str(), message).await;
        let registered = registration::judge(section, &observed);
        for (check, redirect) in [
            (&checks::REGISTER_SCHEME, "javascript:alert(1)"),
            (&checks::REGISTER_HTTP, "http://mcp-authz-probe.invalid/callback"),
        ] {
            let observed = self.send(endpoint.as_str(), Message::faulty_registration(redirect)).await;
            registration::judge_refused(section, check, &observed);
        }
        let (Some(client), Some(endpoint)) = (registered, &metadata.authorization_endpoint) else {
            return section
                .skip_all(&registration::OF_CLIENT, "there is no registered client, or nowhere to ask");
        };
        let (id, resource) = (client.client_id.as_str(), resource.as_str());
        let ask = |redirect, challenged| requests::authorization(id, redirect, resource, challenged);
        let foreign = self.authorize(endpoint, &ask(FOREIGN_REDIRECT, Challenged::S256)).await;
        endpoints::judge_redirect(section, &checks::KNOWN_REDIRECT, &foreign);
        let without = self.authorize(endpoint, &ask(REDIRECT, Challenged::NotAtAll)).await;
        registration::judge_weak(section, &checks::KNOWN_NO_PKCE, &without);
        let plain = self.authorize(endpoint, &ask(REDIRECT, Challenged::Plain)).await;
        registration::judge_weak(section, &checks::KNOWN_PLAIN, &plain);
        let announced = metadata.authorization_response_iss_parameter_supported;
        registration::judge_response(section, &without, seen.issuer.as_str(), announced);
    }
}

impl Answers for Walk {
    async fn at(&mut self, fetch: &Fetch) -> Observed {
        self.document(fetch.url()).await
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
