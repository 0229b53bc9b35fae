//! What stands before the endpoints: whose request it is, and how many an address may make.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::configuration::Settings;
use super::health::Counters;

/// The limits of one server.
pub(super) struct Guard {
    registrations: DefaultKeyedRateLimiter<IpAddr>,
    authorizations: DefaultKeyedRateLimiter<IpAddr>,
    token_requests: DefaultKeyedRateLimiter<IpAddr>,
    trusted: Vec<IpAddr>,
    counters: Arc<Counters>,
}

impl Guard {
    pub(super) fn new(settings: &Settings, counters: Arc<Counters>) -> Self {
        let limiter = |a_minute| {
            RateLimiter::keyed(Quota::per_minute(NonZeroU32::new(a_minute).unwrap_or(NonZeroU32::MIN)))
        };
        Self {
            registrations: limiter(settings.limits.registrations),
            authorizations: limiter(settings.limits.authorizations),
            token_requests: limiter(settings.limits.token_requests),
            trusted: settings.trusted_proxies.clone(),
            counters,
        }
    }

    /// Forgets addresses that could make all their requests again (I-P7).
    pub(super) fn tidy(&self) {
        for limiter in [&self.registrations, &self.authorizations, &self.token_requests] {
            limiter.retain_recent();
        }
    }

    /// The address a request comes from: the peer's own, or what a trusted proxy says of it.
    fn address(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        let mut address = peer.ip();
        if !self.trusted.contains(&address) {
            return address;
        }
        // From the right: each trusted proxy wrote the one before it. What stands left of the first stranger is the
        // stranger's own word (I-A9).
        let fields = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = fields.flat_map(|field| field.split(',')).map(str::trim).collect();
        for hop in hops.into_iter().rev() {
            let Ok(next) = hop.parse() else { break };
            address = next;
            if !self.trusted.contains(&address) {
                break;
            }
        }
        address
    }

    fn allows(&self, path: &str, address: IpAddr) -> bool {
        let limiter = match path.rsplit_once('/').map_or(path, |(_, last)| last) {
            "register" => &self.registrations,
            "authorize" | "par" | "sign-in" | "decision" => &self.authorizations,
            "token" | "revoke" | "introspect" => &self.token_requests,
            _ if path.contains("/register/") => &self.registrations,
            _ => return true,
        };
        limiter.check_key(&address).is_ok()
    }
}

/// The middleware.
pub(super) async fn guard(
    State(guard): State<Arc<Guard>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let address = guard.address(peer, request.headers());
    if !guard.allows(request.uri().path(), address) {
        guard.counters.limited();
        return (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "60")]).into_response();
    }
    let answer = next.run(request).await;
    guard.counters.answered(answer.status().as_u16());
    answer
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::sync::Arc;

    use reqwest::header::HeaderMap;

    use super::{Counters, Guard, Settings};

    fn guard(trusted: &[&str]) -> Guard {
        let trusted_proxies = trusted.iter().map(|text| text.parse().unwrap()).collect();
        Guard::new(&Settings { trusted_proxies, ..Settings::default() }, Arc::new(Counters::default()))
    }

    fn from(guard: &Guard, peer: &str, forwarded: &[&str]) -> IpAddr {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        guard.address(SocketAddr::new(peer.parse().unwrap(), 1), &headers)
    }

    // I-A9
    #[test]
    fn only_a_trusted_proxy_says_where_a_request_comes_from() {
        let alone = guard(&[]);
        assert_eq!(from(&alone, "192.0.2.1", &["198.51.100.1"]).to_string(), "192.0.2.1");
        let behind = guard(&["192.0.2.1", "192.0.2.2"]);
        assert_eq!(from(&behind, "192.0.2.9", &["198.51.100.1"]).to_string(), "192.0.2.9");
        assert_eq!(from(&behind, "192.0.2.1", &["198.51.100.1"]).to_string(), "198.51.100.1");
        assert_eq!(from(&behind, "192.0.2.1", &["203.0.113.5, 198.51.100.1"]).to_string(), "198.51.100.1");
        assert_eq!(
            from(&behind, "192.0.2.1", &["203.0.113.5", "198.51.100.1, 192.0.2.2"]).to_string(),
            "198.51.100.1"
        );
        assert_eq!(from(&behind, "192.0.2.1", &["198.51.100.1, x"]).to_string(), "192.0.2.1");
        assert_eq!(from(&behind, "192.0.2.1", &[]).to_string(), "192.0.2.1");
    }

    // I-P7
    #[test]
    fn each_address_has_its_own_count_and_each_kind_of_endpoint() {
        let guard = guard(&[]);
        let (one, two) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..10 {
            assert!(guard.allows("/t/register", one));
        }
        assert!(!guard.allows("/t/register", one));
        assert!(guard.allows("/t/register", two) && guard.allows("/t/token", one));
        assert!(!guard.allows("/t/register/id", one));
        assert!(guard.allows("/.well-known/oauth-authorization-server/t", one));
    }
}
