//! Who a request is for, and which web pages may send one: `Host` and `Origin` against lists of the configuration
//! (DNS rebinding), and what browsers are told across origins (Fetch standard; D45).

use alloc::string::String;
use alloc::vec::Vec;

use super::denial::{Denial, DenialReason};
use super::scope::RequiredScopes;
use super::{InvalidConfiguration, ResourceServer};
use crate::identifier::{Origin, ResourceId};
use crate::message::exchange::{RequestHead, Respond};

/// Request fields a page may set: credentials, content, and those of the MCP transports.
const ALLOWED_FIELDS: &str = "authorization, content-type, accept, last-event-id, mcp-protocol-version, mcp-session-id, mcp-method, mcp-name";

/// Response fields a page may read: where to get a token, and when to come back.
const EXPOSED_FIELDS: &str = "www-authenticate, retry-after, mcp-session-id, mcp-protocol-version";

/// How long a browser may remember the answer to a pre-flight request, in seconds.
const PREFLIGHT_SECONDS: &str = "600";

/// The hosts and web origins a resource server answers to: its own, unless the host names others.
#[derive(Debug, Clone)]
pub(super) struct Addressing {
    /// In lower case, without the default port.
    hosts: Vec<String>,
    origins: Vec<Origin>,
    default_port: &'static str,
}

impl Addressing {
    pub(super) fn of(resource: &ResourceId) -> Self {
        let origin = resource.origin();
        let default_port = if origin.as_str().starts_with("https:") { ":443" } else { ":80" };
        let authority = origin.as_str().split_once("://").map(|(_, authority)| String::from(authority));
        Self { hosts: authority.into_iter().collect(), origins: Vec::from([origin]), default_port }
    }

    fn folded(&self, host: &str) -> String {
        let host = host.to_ascii_lowercase();
        host.strip_suffix(self.default_port).map(String::from).unwrap_or(host)
    }

    fn is_own_host(&self, host: &[u8]) -> bool {
        let Ok(host) = core::str::from_utf8(host) else { return false };
        let without_port = host.len().checked_sub(self.default_port.len());
        let host = match without_port.and_then(|at| host.split_at_checked(at)) {
            Some((name, port)) if port == self.default_port => name,
            _ => host,
        };
        self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
    }

    /// The one origin of a request, if it is allowed.
    fn allowed_origin(&self, origin: &[u8]) -> Option<&Origin> {
        self.origins.iter().find(|allowed| allowed.as_str().as_bytes() == origin)
    }
}

impl ResourceServer {
    /// Answers to requests for these hosts instead of the resource's own, each as it stands in the `Host` field: for a
    /// server behind a proxy that rewrites it.
    ///
    /// # Errors
    /// [`InvalidConfiguration::Host`] for an empty list, and for what cannot stand in that field.
    pub fn with_hosts(
        mut self,
        hosts: impl IntoIterator<Item = String>,
    ) -> Result<Self, InvalidConfiguration> {
        let addressing = &mut self.configuration_mut().addressing;
        let hosts: Vec<String> = hosts.into_iter().map(|host| addressing.folded(&host)).collect();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%:[]".contains(&byte);
        // I-G8: no host never means any host.
        if hosts.is_empty() || hosts.iter().any(|host| host.is_empty() || !host.bytes().all(allowed)) {
            return Err(InvalidConfiguration::Host);
        }
        addressing.hosts = hosts;
        Ok(self)
    }

    /// Also lets web pages of these origins call, besides those of the resource's own origin. Browsers are told so, and
    /// may read the challenge; they never send cookies along (D45).
    #[must_use]
    pub fn with_origins(mut self, origins: impl IntoIterator<Item = Origin>) -> Self {
        self.configuration_mut().addressing.origins.extend(origins);
        self
    }

    /// Whether a request is for this server and comes from nowhere it may not come from. Ask this before anything else,
    /// for the metadata document too; [`ResourceServer::admit`] asks it by itself.
    ///
    /// # Errors
    /// The [`Denial`] to answer with: 421 for another host, 403 for another origin.
    pub fn addressed(&self, head: &RequestHead) -> Result<(), Denial> {
        self.check_addressed(head).map_err(|reason| Denial::new(self, &RequiredScopes::none(), reason))
    }

    pub(super) fn check_addressed(&self, head: &RequestHead) -> Result<(), DenialReason> {
        let addressing = &self.0.addressing;
        // I-A11: a page that points its own name at this machine sends that name.
        let mut hosts = head.host();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) if addressing.is_own_host(host) => {}
            _ => return Err(DenialReason::Host),
        }
        let mut origins = head.origin();
        match (origins.next(), origins.next()) {
            // No browser sends it.
            (None, _) => Ok(()),
            (Some(origin), None) if addressing.allowed_origin(origin).is_some() => Ok(()),
            _ => Err(DenialReason::Origin),
        }
    }

    /// The answer to a pre-flight request, which carries no credentials and is never answered with 401; `None` for any
    /// other request.
    pub fn preflight(&self, head: &RequestHead) -> Option<Result<Respond, Denial>> {
        if head.method() != "OPTIONS" || head.origin().len() == 0 {
            return None;
        }
        Some(self.addressed(head).map(|()| {
            let answer = self
                .cross_origin(head)
                .into_iter()
                .fold(Respond::new(204), |answer, (name, value)| answer.with_header(name, value));
            answer
                .with_header("access-control-allow-methods", "GET, POST, DELETE")
                .with_header("access-control-allow-headers", ALLOWED_FIELDS)
                .with_header("access-control-max-age", PREFLIGHT_SECONDS)
        }))
    }

    /// The fields that let the page that sent this request read the answer, whatever it is; none for a request without
    /// an allowed origin. Credentials are never allowed: a token travels in its own field.
    pub fn cross_origin(&self, head: &RequestHead) -> Vec<(&'static str, String)> {
        let mut origins = head.origin();
        let (Some(origin), None) = (origins.next(), origins.next()) else { return Vec::new() };
        let Some(origin) = self.0.addressing.allowed_origin(origin) else { return Vec::new() };
        Vec::from([
            ("access-control-allow-origin", String::from(origin.as_str())),
            ("access-control-expose-headers", String::from(EXPOSED_FIELDS)),
            ("vary", String::from("origin")),
        ])
    }
}
