//! What stands before the endpoints: whose request it is, and how many an address and a client may make.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;
use mcp_authz::limits;
use mcp_authz::syntax::form::Form;
use mcp_authz::syntax::{base64url, basic};
use mcp_authz_tokio::authorization_server::passwords::RequestAddress;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderMap, RETRY_AFTER};

use super::configuration::{Misconfigured, Settings};
use super::health::Counters;
use crate::network::{network, proxies};

/// Addresses that one limiter tells apart; above that it counts their networks (I-P7).
const ADDRESSES: usize = 100_000;

/// How long a peer may take to send the form of a token request.
const BODY: Duration = Duration::from_secs(10);

/// The limits of one server.
pub(super) struct Guard {
    registrations: Addresses,
    authorizations: Addresses,
    token_requests: Addresses,
    clients: Clients,
    trusted: Vec<IpNet>,
    proxies_only: bool,
    counters: Arc<Counters>,
}

/// How often each address comes.
struct Addresses {
    near: DefaultKeyedRateLimiter<IpAddr>,
    /// By the leading bits of an IPv6 address that one subscriber may have to give away, and so many times the requests.
    subscribers: [(u32, DefaultKeyedRateLimiter<IpAddr>); SUBSCRIBERS.len()],
    far: DefaultKeyedRateLimiter<IpAddr>,
    most: usize,
}

/// One line of a household has up to 256 networks of 64 bits, one customer of a host up to 65,536: what they all may do together,
/// in times of what one may.
const SUBSCRIBERS: [(u32, NonZeroU32); 2] =
    [(56, NonZeroU32::MIN.saturating_add(3)), (48, NonZeroU32::MIN.saturating_add(15))];

impl Addresses {
    fn new(requests: NonZeroU32, most: usize) -> Self {
        let limiter = |requests| RateLimiter::keyed(Quota::per_minute(requests));
        let subscribers = SUBSCRIBERS.map(|(bits, times)| (bits, limiter(requests.saturating_mul(times))));
        Self { near: limiter(requests), subscribers, far: limiter(requests), most }
    }

    /// A stranger with more addresses than are told apart is counted by its networks, and one with more of those as one.
    fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if self.near.len() >= self.most {
            self.forget();
        }
        if self.near.len() < self.most {
            let is_within = |(bits, limiter): &(u32, DefaultKeyedRateLimiter<IpAddr>)| {
                limiter.check_key(&network(address, 32, *bits)).is_ok()
            };
            return self.near.check_key(&network(address, 32, 64)).is_ok()
                && (address.is_ipv4() || self.subscribers.iter().all(is_within));
        }
        let far = network(address, 16, 32);
        let far = if self.far.len() < self.most { far } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        self.far.check_key(&far).is_ok()
    }

    /// Whoever could make all requests again. A network's count ends before those of what is in it.
    fn forget(&self) {
        self.near.retain_recent();
        for (_, limiter) in &self.subscribers {
            limiter.retain_recent();
        }
    }

    fn tidy(&self) {
        self.forget();
        self.far.retain_recent();
        let wider = self.subscribers.iter().map(|(_, limiter)| limiter);
        for limiter in wider.chain([&self.near, &self.far]) {
            limiter.shrink_to_fit();
        }
    }
}

/// Who an assertion says that it is of. Nobody has checked it: tokens are counted once they were given for it.
fn claimed_issuer(assertion: &str) -> Option<String> {
    let claims = base64url::decode(assertion.split('.').nth(1)?).ok()?;
    match serde_json::from_slice::<serde_json::Value>(&claims).ok()?.get("iss")? {
        serde_json::Value::String(issuer) => Some(issuer.clone()),
        _ => None,
    }
}

/// How many answers with tokens each client gets. Only what was answered so counts: whoever merely says a client's name
/// cannot use its limit up.
struct Clients {
    answered: DefaultKeyedRateLimiter<u64>,
    /// Until when who has had its share waits.
    waiting: Mutex<HashMap<u64, Instant>>,
    clock: DefaultClock,
    names: RandomState,
}

impl Clients {
    fn new(tokens: NonZeroU32) -> Self {
        Self {
            answered: RateLimiter::keyed(Quota::per_minute(tokens)),
            waiting: Mutex::default(),
            clock: DefaultClock::default(),
            names: RandomState::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client that a request names, as a number of this process's own.
    fn named(&self, headers: &HeaderMap, body: &[u8]) -> Option<u64> {
        let basic = headers.get(AUTHORIZATION).and_then(|field| basic::decode(field.as_bytes()).ok());
        let form = Form::parse(body).ok()?;
        let assertion = form.get("client_assertion");
        let name = match (&basic, form.get("client_id")) {
            (Some((name, _)), _) => Cow::Borrowed(name.as_str()),
            (None, Some(name)) => Cow::Borrowed(name),
            // An assertion names its client by itself.
            (None, None) => Cow::Owned(claimed_issuer(assertion?)?),
        };
        Some(self.names.hash_one(name.as_bytes()))
    }

    fn allows(&self, client: u64) -> bool {
        let mut waiting = self.waiting();
        match waiting.get(&client) {
            Some(until) if Instant::now() < *until => false,
            Some(_) => {
                waiting.remove(&client);
                true
            }
            None => true,
        }
    }

    fn answered(&self, client: u64) {
        if let Err(not_until) = self.answered.check_key(&client) {
            let wait = not_until.wait_time_from(self.clock.now());
            if let Some(until) = Instant::now().checked_add(wait) {
                self.waiting().insert(client, until);
            }
        }
    }

    fn tidy(&self) {
        self.answered.retain_recent();
        let now = Instant::now();
        self.waiting().retain(|_, until| now < *until);
    }
}

impl Guard {
    /// `proxies_only`: this server listens to everybody without TLS, and answers its proxies alone.
    pub(super) fn new(
        settings: &Settings,
        proxies_only: bool,
        counters: Arc<Counters>,
    ) -> Result<Self, Misconfigured> {
        let limits = settings.limits;
        Ok(Self {
            registrations: Addresses::new(limits.registrations, ADDRESSES),
            authorizations: Addresses::new(limits.authorizations, ADDRESSES),
            token_requests: Addresses::new(limits.token_requests, ADDRESSES),
            clients: Clients::new(limits.tokens_per_client),
            trusted: settings.trusted_proxies.iter().map(|text| proxy(text)).collect::<Result<_, _>>()?,
            proxies_only,
            counters,
        })
    }

    /// Forgets addresses that could make all their requests again (I-P7).
    pub(super) fn tidy(&self) {
        for limiter in [&self.registrations, &self.authorizations, &self.token_requests] {
            limiter.tidy();
        }
        self.clients.tidy();
    }

    /// Proxies whose word is believed.
    pub(super) fn trusted(&self) -> &[IpNet] {
        &self.trusted
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// The address a request comes from: the peer's own, or what a trusted proxy says of it.
    fn address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut address = peer;
        if !self.is_trusted(address) {
            return address;
        }
        // From the right: each trusted proxy wrote the one before it. What stands left of the first stranger is the
        // stranger's own word (I-A9).
        let fields = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = fields.flat_map(|field| field.split(',')).map(str::trim).collect();
        for hop in hops.into_iter().rev() {
            let Ok(next) = hop.parse::<IpAddr>() else { break };
            address = next.to_canonical();
            if !self.is_trusted(address) {
                break;
            }
        }
        address
    }

    fn allows(&self, path: &str, address: IpAddr) -> bool {
        let limiter = match endpoint(path) {
            "register" => &self.registrations,
            "authorize" | "par" | "sign-in" | "sign-out" | "decision" | "grants" => &self.authorizations,
            "token" | "revoke" | "introspect" => &self.token_requests,
            _ if path.contains("/register/") => &self.registrations,
            _ if path.contains("/sign-in/") => &self.authorizations,
            _ => return true,
        };
        limiter.allows(address)
    }

    fn too_many(&self) -> Response {
        self.counters.limited();
        (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "60")]).into_response()
    }
}

fn endpoint(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, last)| last)
}

/// A proxy's address, or the network of several.
fn proxy(text: &str) -> Result<IpNet, Misconfigured> {
    proxies(text).map_err(|why| Misconfigured(format!("trusted_proxies: {text:?}: {why}")))
}

/// The middleware.
pub(super) async fn guard(
    State(guard): State<Arc<Guard>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = peer.ip().to_canonical();
    if guard.proxies_only && !guard.is_trusted(peer) {
        guard.counters.answered(403);
        let words = "This server is reached through its proxy.\n";
        return (StatusCode::FORBIDDEN, words).into_response();
    }
    let address = guard.address(peer, request.headers());
    if !guard.allows(request.uri().path(), address) {
        return guard.too_many();
    }
    // Wrong passwords are counted for it.
    request.extensions_mut().insert(RequestAddress(address));
    let answer = if endpoint(request.uri().path()) == "token" {
        token_request(&guard, request, next).await
    } else {
        next.run(request).await
    };
    guard.counters.answered(answer.status().as_u16());
    answer
}

/// A token request, counted for the client it names if it is answered with tokens.
async fn token_request(guard: &Guard, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = match tokio::time::timeout(BODY, axum::body::to_bytes(body, limits::FORM_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => return StatusCode::REQUEST_TIMEOUT.into_response(),
    };
    let client = guard.clients.named(&parts.headers, &body);
    if client.is_some_and(|client| !guard.clients.allows(client)) {
        return guard.too_many();
    }
    let answer = next.run(Request::from_parts(parts, Body::from(body))).await;
    if let Some(client) = client.filter(|_| answer.status() == StatusCode::OK) {
        guard.clients.answered(client);
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::sync::Arc;

    use reqwest::header::HeaderMap;

    use super::{Addresses, Clients, Counters, Guard, Settings};

    fn guard(trusted: &[&str]) -> Guard {
        let trusted_proxies = trusted.iter().map(|text| (*text).to_owned()).collect();
        let settings = Settings { trusted_proxies, ..Settings::default() };
        Guard::new(&settings, false, Arc::new(Counters::default())).unwrap()
    }

    fn from(guard: &Guard, peer: &str, forwarded: &[&str]) -> IpAddr {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        headers.append("forwarded", "for=203.0.113.99".parse().unwrap());
        headers.append("x-real-ip", "203.0.113.99".parse().unwrap());
        guard.address(peer.parse().unwrap(), &headers)
    }

    // I-A9
    #[test]
    fn only_a_trusted_proxy_says_where_a_request_comes_from() {
        let alone = guard(&[]);
        assert_eq!(from(&alone, "192.0.2.1", &["198.51.100.1"]).to_string(), "192.0.2.1");
        for trusted in [&["192.0.2.1", "192.0.2.2"][..], &["192.0.2.0/29"]] {
            let behind = guard(trusted);
            for (peer, forwarded, expected) in [
                ("192.0.2.9", &["198.51.100.1"][..], "192.0.2.9"),
                ("192.0.2.1", &["198.51.100.1"], "198.51.100.1"),
                ("192.0.2.1", &["203.0.113.5, 198.51.100.1"], "198.51.100.1"),
                ("192.0.2.1", &["203.0.113.5", "198.51.100.1, 192.0.2.2"], "198.51.100.1"),
                ("192.0.2.1", &["203.0.113.5, ::ffff:198.51.100.1"], "198.51.100.1"),
                ("192.0.2.1", &["198.51.100.1, x"], "192.0.2.1"),
                ("192.0.2.1", &[], "192.0.2.1"),
            ] {
                assert_eq!(from(&behind, peer, forwarded).to_string(), expected, "{forwarded:?}");
            }
        }
    }

    // I-G8
    #[test]
    fn a_network_of_everybody_is_nobodys_proxy() {
        for text in ["0.0.0.0/0", "::/0", "", "*", "10.0.0.0/33", "proxy.example"] {
            let settings = Settings { trusted_proxies: vec![text.to_owned()], ..Settings::default() };
            assert!(Guard::new(&settings, false, Arc::new(Counters::default())).is_err(), "{text}");
        }
    }

    // I-A9: without TLS, and with everybody able to reach it, the server answers its proxies alone.
    #[tokio::test]
    async fn a_server_that_is_exposed_answers_its_proxies_alone() {
        let settings = Settings { trusted_proxies: vec!["192.0.2.0/24".to_owned()], ..Settings::default() };
        for (proxies_only, peer, status) in [
            (true, "192.0.2.7", 200),
            (true, "::ffff:192.0.2.7", 200),
            (true, "198.51.100.1", 403),
            (true, "127.0.0.1", 403),
            (false, "198.51.100.1", 200),
        ] {
            let guards = Guard::new(&settings, proxies_only, Arc::new(Counters::default())).unwrap();
            let router = axum::Router::new()
                .route("/token", axum::routing::post(|| async {}))
                .layer(axum::middleware::from_fn_with_state(Arc::new(guards), super::guard));
            let mut request = axum::extract::Request::post("/token").body(axum::body::Body::empty()).unwrap();
            let peer = std::net::SocketAddr::new(peer.parse().unwrap(), 1);
            request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
            let answer = tower::ServiceExt::oneshot(router, request).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{peer}");
        }
    }

    // I-A9: what counts wrong passwords is told whose they are.
    #[tokio::test]
    async fn the_endpoints_are_told_where_a_request_comes_from() {
        let guards = Arc::new(guard(&["127.0.0.1"]));
        let said = axum::routing::post(|request: axum::extract::Request| async move {
            request.extensions().get::<super::RequestAddress>().unwrap().0.to_string()
        });
        let router = axum::Router::new()
            .route("/sign-in", said)
            .layer(axum::middleware::from_fn_with_state(guards, super::guard));
        for (peer, expected) in [("127.0.0.1", "198.51.100.1"), ("192.0.2.9", "192.0.2.9")] {
            let request = axum::extract::Request::post("/sign-in").header("x-forwarded-for", "198.51.100.1");
            let mut request = request.body(axum::body::Body::empty()).unwrap();
            let peer = std::net::SocketAddr::new(peer.parse().unwrap(), 1);
            request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
            let answer = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
            let body = axum::body::to_bytes(answer.into_body(), 100).await.unwrap();
            assert_eq!(body, expected);
        }
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
        for _ in 0..60 {
            assert!(guard.allows("/t/sign-in/op", one));
        }
        for path in [
            "/t/sign-in/op",
            "/t/sign-in",
            "/t/sign-out",
            "/t/authorize",
            "/t/grants",
            "/t/decision",
            "/t/par",
        ] {
            assert!(!guard.allows(path, one), "{path}");
        }
        assert!(guard.allows("/.well-known/oauth-authorization-server/t", one));
    }

    // I-P7: an IPv6 network of one household is one, and an IPv4 address in IPv6 is itself.
    #[test]
    fn whoever_has_a_network_of_addresses_is_counted_once() {
        let limiter = Addresses::new(2.try_into().unwrap(), 100);
        let allows = |text: &str| limiter.allows(text.parse().unwrap());
        assert!(allows("2001:db8::1") && allows("2001:db8::2") && !allows("2001:db8::3"));
        assert!(allows("2001:db8:0:1::1"));
        assert!(allows("192.0.2.1") && allows("::ffff:192.0.2.1") && !allows("192.0.2.1"));
    }

    // I-P7: nor has one subscriber many times the requests of another.
    #[test]
    fn whoever_has_many_networks_is_counted_for_all_of_them_too() {
        for (step, within) in [(1_u64, 4 * 10), (1 << 8, 16 * 10)] {
            let limiter = Addresses::new(10.try_into().unwrap(), 100_000);
            let of = |network: u64| {
                let high = 0x2001_0db8_0000_0000_u64 + network * step;
                IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64))
            };
            let allowed = (0..200).filter(|network| limiter.allows(of(*network))).count();
            assert_eq!(allowed, within, "{step}");
            assert!(limiter.allows("2001:db8:1::1".parse().unwrap()), "a neighbour");
            assert!((0..100).all(|last| limiter.allows(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))));
        }
    }

    // I-P7: the limiter itself does not grow.
    #[test]
    fn a_stranger_with_many_addresses_does_not_fill_the_memory() {
        let limiter = Addresses::new(2.try_into().unwrap(), 100);
        let mut allowed = 0;
        for high in 0..300_u16 {
            for low in 0..4_u16 {
                let address = Ipv6Addr::new(0x2001, high, low, 0, 0, 0, 0, 1);
                allowed += u32::from(limiter.allows(IpAddr::V6(address)));
            }
        }
        assert!(limiter.near.len() <= 100 && limiter.far.len() <= 101);
        // A hundred addresses, twice a hundred networks, and twice all others together.
        assert!(allowed <= 100 + 200 + 2, "{allowed}");
        // Those it tells apart are not shut out for good.
        assert!(limiter.far.len() > 50);
        let other = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        assert!(!limiter.allows(other), "while it lasts, strangers share what is left");
    }

    // I-P7
    #[test]
    fn a_client_that_had_its_share_of_tokens_waits_and_nobody_can_use_it_up() {
        let clients = Clients::new(3.try_into().unwrap());
        let (mut basic, none) = (HeaderMap::new(), HeaderMap::new());
        basic.insert("authorization", "Basic YTpzZWNyZXQ=".parse().unwrap());
        let a = clients.named(&none, b"client_id=a&code=x").unwrap();
        assert_eq!(clients.named(&basic, b"client_id=b"), Some(a), "the field names it, not the body");
        assert!(clients.named(&none, b"code=x").is_none() && clients.named(&none, b"a&a").is_none());
        let b = clients.named(&none, b"client_id=b").unwrap();
        // By an assertion alone, as by its identifier.
        let claims = super::base64url::encode(br#"{"iss":"a","sub":"x"}"#);
        let form = |claims: &str| format!("client_assertion=h.{claims}.s").into_bytes();
        assert_eq!(clients.named(&none, &form(&claims)), Some(a));
        for other in ["", "!", "e30", "bnVsbA", "eyJpc3MiOjF9"] {
            assert!(clients.named(&none, &form(other)).is_none(), "{other}");
        }
        // Requests alone do not count.
        assert!((0..100).all(|_| clients.allows(a)));
        for _ in 0..4 {
            assert!(clients.allows(a));
            clients.answered(a);
        }
        assert!(!clients.allows(a) && clients.allows(b));
        clients.tidy();
        assert!(!clients.allows(a));
    }
}
