//! The walk: which requests are sent, in which order, within which bounds. What their answers mean is judged elsewhere.
//!
//! ```text
//! MCP URL without a token ─ with made-up credentials ─ resource metadata, everywhere it may be
//!    └ each authorization server: metadata, everywhere it may be ─ authorization, token, ... endpoints ─ registration, if asked
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use mcp_authz::client::{Client, Configuration};
use mcp_authz::error::Remedy;
use mcp_authz::identifier::{Endpoint, RedirectUri, ResourceId};
use mcp_authz::limits;
use mcp_authz::message::challenge::{BearerChallenge, parse_challenges};
use mcp_authz::message::exchange::{FetchFailure, Reply};
use mcp_authz::message::protected_resource_metadata::ProtectedResourceMetadata;
use mcp_authz::policy::{Policy, Relaxation};
use mcp_authz::revision::Revision;
use mcp_authz_tokio::client::fetch::{Fetcher, Outgoing};
use tokio::time::Instant;

use super::checks;
use super::endpoints;
use super::finding::{Part, Report, Section, option};
use super::line::{Line, Peer, line};
use super::mcp_server::{self, Asked, Otherwise, Pretended, shown};
use super::observation::{Bounds, Observed, observe};
use super::registration::REDIRECT;
use super::requests::{Message, NO_TOKEN};
use super::resource::{self, Place};

mod servers;

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
    /// What reaches the private networks of the policy, and no others.
    pub(crate) fetcher: Fetcher,
}

/// What the MCP server's answers led to.
struct Found {
    /// The 401 that a client would go on from.
    challenge: Reply,
    places: Vec<Place>,
    /// Whether the first place is the one that the challenge names.
    named: bool,
    /// Whether pages of other origins may use the server.
    cors: bool,
}

struct Walk {
    plan: Plan,
    client: Client,
    server: ResourceId,
    until: Instant,
    requests: usize,
    documents: BTreeMap<String, Observed>,
}

/// Why the walk does not go on. What was not seen is not judged.
#[derive(Debug)]
struct CutShort(Line);

type Going<T> = Result<T, CutShort>;

/// Walks; a walk that could not be done is a report too.
pub(crate) async fn walk(mut plan: Plan) -> Report {
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
            report.cut_short = Some(line![
                "that is no URL of an MCP server, which begins with https:// (http:// on this machine only): ",
                error
            ]);
            return report;
        }
    };
    // What a client makes of the text: scheme and host in lower case.
    server.as_str().clone_into(&mut plan.url);
    section.pass(&checks::TRANSPORT, if server.is_loopback() { "on this machine" } else { "https" });
    let mut walk = match Walk::new(plan, server) {
        Ok(walk) => walk,
        Err(why) => {
            report.cut_short = Some(why);
            return report;
        }
    };
    let end = walk.run(section, &mut report.sections).await;
    report.requests = walk.requests;
    report.cut_short = end.err().map(|CutShort(why)| why);
    report
}

impl Walk {
    fn new(plan: Plan, server: ResourceId) -> Result<Self, Line> {
        if plan.policy.egress_proxy().is_some() {
            return Err("EgressProxy is not for probe: it connects to the servers itself".into());
        }
        let redirect = RedirectUri::new(REDIRECT).map_err(|error| line![error])?;
        let configuration = Configuration::new("mcp-authz probe", redirect)
            .policy(plan.policy.clone())
            .revision(plan.revision);
        let until = Instant::now() + plan.limits.total;
        Ok(Self {
            plan,
            client: Client::new(configuration).map_err(|error| line![&error])?,
            server,
            until,
            requests: 0,
            documents: BTreeMap::new(),
        })
    }

    /// Sends one request, if its URL may be asked and the bounds allow it.
    async fn send(&mut self, url: &str, message: Message) -> Going<Observed> {
        // MCP-SBP-020, I-L8: the policy that the client's own fetches have.
        let Ok(addresses) = self.client.addresses(&self.server, url) else {
            return Ok(Err(FetchFailure::AddressForbidden));
        };
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(CutShort("the time was up before everything was seen".into()));
        }
        if self.requests >= self.plan.limits.requests {
            return Err(CutShort("it took more requests than a probe sends".into()));
        }
        self.requests = self.requests.saturating_add(1);
        let bounds = Bounds { bytes: self.plan.limits.bytes, time: self.plan.limits.each.min(left) };
        let Message { method, headers, body } = message;
        let outgoing = Outgoing {
            method,
            url,
            headers,
            body: &body,
            addresses,
            networks: self.client.private_networks(&self.server),
        };
        Ok(observe(&self.plan.fetcher, outgoing, bounds).await)
    }

    /// What is at a document's place; asked for once.
    async fn document(&mut self, url: &str) -> Going<Observed> {
        if let Some(known) = self.documents.get(url) {
            return Ok(known.clone());
        }
        let observed = self.send(url, Message::get()).await?;
        self.documents.insert(url.to_owned(), observed.clone());
        Ok(observed)
    }

    /// Part by part. A part that was begun is in the report whatever comes of it.
    async fn run(&mut self, mut section: Section, sections: &mut Vec<Section>) -> Going<()> {
        let begun = self.mcp_server(&mut section).await;
        sections.push(section);
        let Found { challenge, places, named, cors } = begun?;
        let at = places.iter().find(|place| place.has_document()).or(places.first());
        let at = at.map_or_else(Line::new, |place| line![Peer(&place.url)]);
        let mut section = Section::new(Part::ResourceMetadata, at);
        let metadata = self.resource(&mut section, &places, named, cors).await;
        sections.push(section);
        self.servers(&challenge, metadata?.as_ref(), cors, sections).await
    }

    /// The MCP server's answers.
    async fn mcp_server(&mut self, section: &mut Section) -> Going<Found> {
        let (posts, main) = self.without_token(section).await?;
        let refused: Vec<_> = posts.iter().filter_map(Asked::refused).collect();
        let challenge = refused.iter().find(|answer| answer.has_header("www-authenticate"));
        let challenge = challenge.or(refused.first());
        let reply = challenge.map_or_else(|| Reply::new(401, ""), |answer| answer.reply());
        let (places, named, well_known) = self.places(&reply).await?;
        let otherwise = match well_known {
            true => Otherwise::WellKnown,
            false if self.plan.revision == Revision::V2025_03_26 => Otherwise::NotNeeded,
            false => Otherwise::Nowhere,
        };
        mcp_server::judge_challenge(section, &self.plan.policy, &self.server, &refused, otherwise);
        let pretended = self.pretended(&main).await?;
        mcp_server::judge_pretended(section, &pretended, refused.first().copied());
        let url = self.plan.url.clone();
        let preflight = self.send(&url, Message::preflight()).await?;
        let crossed = self.send(&url, main.cross_origin()).await?.ok().filter(|answer| answer.status == 401);
        mcp_server::judge_cors(section, &preflight, crossed.as_ref());
        let cors = preflight.is_ok_and(|answer| answer.has_header("access-control-allow-origin"));
        Ok(Found { challenge: reply, places, named, cors })
    }

    /// The first requests of a client, and the one of them that the later ones vary.
    async fn without_token(&mut self, section: &mut Section) -> Going<(Vec<Asked>, Message)> {
        let (url, revision) = (self.plan.url.clone(), self.plan.revision);
        let mut messages = vec![(&checks::NO_TOKEN_INITIALIZE, Message::initialize(revision))];
        if revision >= Revision::V2026_07_28 {
            messages.insert(0, (&checks::NO_TOKEN_STATELESS, Message::stateless(revision)));
        }
        let mut posts = Vec::new();
        let mut main = messages.first().map(|(_, message)| message.clone());
        for (check, message) in messages {
            let asked = Asked { check, observed: self.send(&url, message.clone()).await? };
            if asked.refused().is_some() && !posts.iter().any(|asked: &Asked| asked.refused().is_some()) {
                main = Some(message);
            }
            posts.push(asked);
        }
        if let Some(why) = self.is_nowhere(&posts) {
            section.skip_all(posts.iter().map(|asked| &asked.check), "nothing answers as an MCP server does");
            return Err(CutShort(why));
        }
        let observed = self.send(&url, Message::stream(revision)).await?;
        let get = Asked { check: &checks::NO_TOKEN_GET, observed };
        mcp_server::judge_without_token(section, &posts, &get);
        Ok((posts, main.unwrap_or_else(|| Message::initialize(revision))))
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
    async fn pretended(&mut self, main: &Message) -> Going<Pretended> {
        let url = self.plan.url.clone();
        let separator = if url.contains('?') { '&' } else { '?' };
        let in_query = format!("{url}{separator}access_token={NO_TOKEN}");
        let with = |fields: &[&'static str]| main.clone().with_authorization(fields);
        Ok(Pretended {
            token: self.send(&url, with(&["Bearer mcp-authz-probe.not-a-token"])).await?,
            query: self.send(&in_query, main.clone()).await?,
            malformed: self.send(&url, with(&["Bearer not one token"])).await?,
            twice: self.send(&url, with(&["Bearer one", "Bearer two"])).await?,
            basic: self.send(&url, with(&["Basic bm9ib2R5Om5vdGhpbmc="])).await?,
        })
    }

    /// Where the resource's metadata may be, in the order of a client; whether the first place is the challenge's; and
    /// whether a well-known place has a document.
    async fn places(&mut self, challenge: &Reply) -> Going<(Vec<Place>, bool, bool)> {
        let mut places = Vec::new();
        let all = parse_challenges(challenge.www_authenticate()).ok();
        let bearer = all.and_then(|all| BearerChallenge::find(&all).ok()).flatten();
        let named = bearer.and_then(|bearer| bearer.resource_metadata).filter(|url| self.may_be_named(url));
        if let Some(url) = &named {
            let (observed, expected) = (self.document(url).await?, vec![self.server.clone()]);
            places.push(Place { name: "named by the challenge", url: url.clone(), expected, observed });
        }
        let locations = self.server.metadata_locations();
        let mut well_known = false;
        let last = locations.len().saturating_sub(1);
        for (at, location) in locations.into_iter().enumerate() {
            let observed = self.document(&location.url).await?;
            let name = if at == last { "well-known, of the host" } else { "well-known, of the path" };
            let place = Place { name, url: location.url, expected: location.identifiers, observed };
            well_known |= place.has_document();
            if named.as_ref() != Some(&place.url) {
                places.push(place);
            }
        }
        Ok((places, named.is_some(), well_known))
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
    ) -> Going<Option<ProtectedResourceMetadata>> {
        let document = places.iter().find(|place| place.has_document());
        if document.is_none() && self.plan.revision == Revision::V2025_03_26 {
            section.skip(
                &checks::RESOURCE_FOUND,
                "none, and 2025-03-26 has none: the origin is the authorization server",
            );
            return Ok(None);
        }
        let metadata = resource::judge(section, &self.plan.policy, &self.server, places, named);
        let crossed = match document {
            Some(place) => Some(self.send(&place.url, Message::get().cross_origin()).await?),
            None => None,
        };
        endpoints::judge_document_cors(section, &checks::RESOURCE_CORS, crossed.as_ref(), cors);
        Ok(metadata)
    }
}
