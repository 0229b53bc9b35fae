//! Carries out a core [`Fetch`]: one request, under its policy (I-L8).
//!
//! No redirect is followed, no proxy of the environment is used, no cookie is kept, no connection is reused; the
//! address is checked before connecting, the body is counted while it arrives and the whole has a time limit.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use mcp_authz::identifier::address;
use mcp_authz::message::exchange::{AddressPolicy, Fetch, FetchFailure, Reply};
use mcp_authz::policy::{Policy, ProxyUrl, Relaxation};
use zeroize::Zeroizing;

use super::resolver::{Checked, Forbidden, Network, OnlyProxy, Resolver, SystemResolver, permitted};

/// The most bytes that the header fields of a reply have, names and values together, where the whole of it is read at once.
const HEAD_BYTES: usize = 32 * 1024;

/// The longest media type of a document that is read, in bytes.
const MEDIA_TYPE_BYTES: usize = 256;

/// The fetcher could not be made: TLS has no roots or no provider.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be set up: {0}")]
pub struct FetcherFailed(#[from] reqwest::Error);

/// Sends the fetches of the core. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher {
    public: reqwest::Client,
    loopback: reqwest::Client,
    private: Private,
    /// One for each set of private networks that the policy names: a request reaches its own server's and no other.
    named: Arc<[Private]>,
}

/// A client that reaches private networks beside public addresses.
#[derive(Debug, Clone)]
struct Private {
    client: reqwest::Client,
    networks: Arc<[Network]>,
}

/// How a [`Fetcher`] is set up; strict unless told otherwise.
#[derive(Debug)]
pub struct FetcherBuilder {
    resolver: Arc<dyn Resolver>,
    networks: Vec<Network>,
    named: Vec<Vec<Network>>,
    proxy: Option<ProxyUrl>,
    roots: Option<Vec<reqwest::Certificate>>,
}

impl Fetcher {
    /// A fetcher over the system's resolver and trust store, which reaches no private network.
    ///
    /// # Errors
    /// [`FetcherFailed`] when TLS cannot be set up.
    pub fn new() -> Result<Self, FetcherFailed> {
        Self::builder().build()
    }

    /// A fetcher with other parts.
    pub fn builder() -> FetcherBuilder {
        FetcherBuilder {
            resolver: Arc::new(SystemResolver),
            networks: Vec::new(),
            named: Vec::new(),
            proxy: None,
            roots: None,
        }
    }

    /// Sends the request and reads the reply.
    ///
    /// # Errors
    /// The [`FetchFailure`] to hand to the state that waits.
    pub async fn fetch(&self, fetch: &Fetch) -> Result<Reply, FetchFailure> {
        let incoming = self.fetch_whole(fetch).await?;
        Ok(reply_of(incoming.status, &incoming.headers, incoming.body))
    }

    /// Sends the request and reads the reply with every header field, for a host that reads more of them than the core.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`].
    pub async fn fetch_whole(&self, fetch: &Fetch) -> Result<Incoming, FetchFailure> {
        let policy = fetch.policy();
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(fetch.accept()));
        if let Some(value) = fetch.content_type() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
        }
        if let Some(version) = fetch.protocol_version() {
            headers.insert("mcp-protocol-version", HeaderValue::from_static(version));
        }
        if let Some(value) = fetch.authorization() {
            headers.insert(AUTHORIZATION, secret_header(value).ok_or(FetchFailure::Unreachable)?);
        }
        let outgoing = Outgoing {
            method: if fetch.method() == "POST" { Method::POST } else { Method::GET },
            url: fetch.url(),
            headers,
            body: fetch.body(),
            addresses: policy.addresses(),
            networks: fetch.private_networks(),
        };
        self.send(outgoing, policy.max_bytes(), policy.timeout()).await
    }

    /// Sends one request under a policy, and reads the whole reply within the time.
    ///
    /// # Errors
    /// [`FetchFailure`]
    pub async fn send(
        &self,
        outgoing: Outgoing<'_>,
        max_bytes: usize,
        timeout: Duration,
    ) -> Result<Incoming, FetchFailure> {
        let exchange = async {
            let opened = self.open(outgoing).await?;
            let fields =
                opened.headers.iter().map(|(name, value)| name.as_str().len().saturating_add(value.len()));
            // I-P7: a reply is kept with what its reader reads of its head.
            if fields.fold(0, usize::saturating_add) > HEAD_BYTES {
                return Err(FetchFailure::TooLarge);
            }
            opened.read(max_bytes).await
        };
        // CIMD-6.6-1: from connecting to the last byte.
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(FetchFailure::TimedOut))
    }

    /// Sends one request under a policy, and reads the head of the reply. The caller limits the time
    /// and the body.
    ///
    /// # Errors
    /// [`FetchFailure`]
    pub async fn open(&self, outgoing: Outgoing<'_>) -> Result<Opened, FetchFailure> {
        let addresses = outgoing.addresses;
        // I-L8, PrivateNetworks: a server's own networks, never those that were named for another.
        let private = match outgoing.networks {
            [] => &self.private,
            named => self
                .named
                .iter()
                .find(|private| *private.networks == *named)
                .ok_or(FetchFailure::AddressForbidden)?,
        };
        // I-L8: literal addresses are checked here, names where they are resolved.
        let url = checked_url(addresses, &private.networks, outgoing.url)?;
        let client = match addresses {
            AddressPolicy::Public => &self.public,
            AddressPolicy::Loopback => &self.loopback,
            AddressPolicy::PublicAndPrivateNetworks => &private.client,
            _ => return Err(FetchFailure::AddressForbidden),
        };
        let mut request = reqwest::Request::new(outgoing.method, url);
        *request.headers_mut() = outgoing.headers;
        if !outgoing.body.is_empty() {
            let body = Erased(Zeroizing::new(outgoing.body.to_vec()));
            *request.body_mut() = Some(Bytes::from_owner(body).into());
        }
        let response = client.execute(request).await.map_err(|error| failure(&error))?;
        let headers = response.headers().iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Opened { status: response.status().as_u16(), headers, body: response })
    }
}

/// The URL for the connection, if its scheme and a literal host are permitted.
fn checked_url(
    policy: AddressPolicy,
    networks: &[Network],
    text: &str,
) -> Result<reqwest::Url, FetchFailure> {
    let url = reqwest::Url::parse(text).map_err(|_| FetchFailure::Unreachable)?;
    match url.scheme() {
        "https" => {}
        // OAUTH21-1.5-1, MCP-SBP-020: plain http stays on this machine.
        "http" if policy == AddressPolicy::Loopback => {}
        _ => return Err(FetchFailure::AddressForbidden),
    }
    let host = url.host_str().ok_or(FetchFailure::Unreachable)?;
    match address::literal(host) {
        // MCP-SBP-023, CIMD-6.5-2
        Some(literal) if !permitted(policy, networks, literal) => Err(FetchFailure::AddressForbidden),
        _ => Ok(url),
    }
}

impl FetcherBuilder {
    /// Looks names up through this resolver. Its answers are checked like any other's.
    #[must_use]
    pub fn resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Takes over what a client's policy says about connections: the private networks it names, each for the requests of its
    /// own servers, and the proxy.
    ///
    /// Through a proxy names are resolved by it, so that the check of addresses is the proxy's: the host has given its
    /// word for that with [`ProxyUrl::enforcing_address_policy`]. Loopback servers are reached without it.
    #[must_use]
    pub fn policy(mut self, policy: &Policy) -> Self {
        for relaxation in policy.relaxations() {
            if let Relaxation::PrivateNetworks(private) = relaxation {
                self.named.push(private.networks().to_vec());
            }
        }
        self.proxy = policy.egress_proxy().cloned();
        self
    }

    /// Lets requests whose policy says `PublicAndPrivateNetworks`, and that name no networks, reach these: those of a resource
    /// server to the introspection endpoint it was configured with. A client's reach what its policy names for their server
    /// ([`FetcherBuilder::policy`]).
    #[must_use]
    pub fn private_networks(mut self, networks: impl IntoIterator<Item = Network>) -> Self {
        self.networks.extend(networks);
        self
    }

    /// Trusts these certificate authorities instead of the system's.
    #[must_use]
    pub fn trust_only(mut self, roots: impl IntoIterator<Item = reqwest::Certificate>) -> Self {
        self.roots.get_or_insert_default().extend(roots);
        self
    }

    /// Sets the HTTP clients up.
    ///
    /// # Errors
    /// [`FetcherFailed`] when TLS cannot be set up.
    pub fn build(self) -> Result<Fetcher, FetcherFailed> {
        let public = self.client(AddressPolicy::Public, &Arc::default())?;
        let loopback = self.client(AddressPolicy::Loopback, &Arc::default())?;
        let private = |networks: &[Network]| {
            let networks: Arc<[Network]> = networks.into();
            let client = self.client(AddressPolicy::PublicAndPrivateNetworks, &networks)?;
            Ok(Private { client, networks })
        };
        let named =
            self.named.iter().map(|networks| private(networks)).collect::<Result<_, FetcherFailed>>()?;
        Ok(Fetcher { public, loopback, private: private(&self.networks)?, named })
    }

    fn client(
        &self,
        policy: AddressPolicy,
        networks: &Arc<[Network]>,
    ) -> Result<reqwest::Client, FetcherFailed> {
        let builder = reqwest::Client::builder()
            // MCP-SBP-024, CIMD-4-3, D8
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("mcp-authz/", env!("CARGO_PKG_VERSION")));
        // EgressProxy: never to this machine, whose addresses it does not have.
        let mut builder = match self.proxy.as_ref().filter(|_| policy != AddressPolicy::Loopback) {
            None => builder.dns_resolver(Checked {
                resolver: Arc::clone(&self.resolver),
                policy,
                networks: Arc::clone(networks),
            }),
            Some(proxy) => builder.proxy(reqwest::Proxy::all(proxy.as_str())?).dns_resolver(OnlyProxy {
                resolver: Arc::clone(&self.resolver),
                proxy: proxy.host().to_ascii_lowercase(),
            }),
        };
        if let Some(roots) = &self.roots {
            builder = builder.tls_certs_only(roots.iter().cloned());
        }
        Ok(builder.build()?)
    }
}

/// One request of the host's own as it goes out: to the MCP server, or to look at a server. Those of a flow are the
/// core's ([`Fetcher::fetch`]).
pub struct Outgoing<'a> {
    /// The method.
    pub method: Method,
    /// The absolute URL.
    pub url: &'a str,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body; none if it is empty.
    pub body: &'a [u8],
    /// Where it may connect to.
    pub addresses: AddressPolicy,
    /// The private networks among that: those of the server it is for
    /// ([`Client::private_networks`](mcp_authz::client::Client::private_networks)).
    pub networks: &'a [Network],
}

impl fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Fields and body may hold secrets.
        f.debug_struct("Outgoing")
            .field("method", &self.method)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// One reply as it came in.
#[derive(Debug)]
pub struct Incoming {
    /// The status code.
    pub status: u16,
    /// The header fields, in their order.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Body bytes that are erased once they are sent.
struct Erased(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Erased {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A header value that no log of the HTTP client prints.
pub(crate) fn secret_header(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// One reply whose body has not been read.
#[derive(Debug)]
pub struct Opened {
    /// The status code.
    pub status: u16,
    /// The header fields, in their order.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    body: reqwest::Response,
}

impl Opened {
    /// The next bytes of the body.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, FetchFailure> {
        self.body.chunk().await.map_err(|error| failure(&error))
    }

    /// Reads the body up to the limit.
    ///
    /// # Errors
    /// [`FetchFailure::TooLarge`] as soon as it is longer.
    pub async fn read(mut self, max_bytes: usize) -> Result<Incoming, FetchFailure> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            // CIMD-6.6-1
            if piece.len() > max_bytes.saturating_sub(body.len()) {
                return Err(FetchFailure::TooLarge);
            }
            body.extend_from_slice(&piece);
        }
        Ok(Incoming { status: self.status, headers: self.headers, body })
    }
}

/// The reply as the core reads it.
pub fn reply_of(status: u16, headers: &[(HeaderName, HeaderValue)], body: impl Into<Vec<u8>>) -> Reply {
    let reply = Reply::new(status, body);
    headers.iter().fold(reply, |reply, (name, value)| reply.with_header(name.as_str(), value.as_bytes()))
}

/// A document's reply as it is kept: with the media type, and nothing else of its head.
pub(crate) fn document_of(incoming: Incoming) -> Reply {
    // I-P7: what is kept for long is as large as the fetch's policy says, whatever head a stranger's server sends.
    let is_read =
        |(name, value): &&(HeaderName, HeaderValue)| name == CONTENT_TYPE && value.len() <= MEDIA_TYPE_BYTES;
    let reply = Reply::new(incoming.status, incoming.body);
    incoming
        .headers
        .iter()
        .filter(is_read)
        .fold(reply, |reply, (name, value)| reply.with_header(name.as_str(), value.as_bytes()))
}

/// What an error of the HTTP client means for the state that waits. Its text, which may be a peer's, ends here.
fn failure(error: &reqwest::Error) -> FetchFailure {
    let mut source: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = source {
        if cause.is::<Forbidden>() {
            return FetchFailure::AddressForbidden;
        }
        source = cause.source();
    }
    if error.is_timeout() { FetchFailure::TimedOut } else { FetchFailure::Unreachable }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use http::{HeaderMap, Method};
    use mcp_authz::message::exchange::{AddressPolicy, FetchFailure};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::{Fetcher, Incoming, Outgoing};
    use crate::BoxFuture;
    use crate::client::resolver::Resolver;

    /// Says that every name has these addresses.
    #[derive(Debug)]
    struct Always(Vec<IpAddr>);

    impl Resolver for Always {
        fn resolve(&self, _name: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
            let addresses = self.0.clone();
            Box::pin(async move { Ok(addresses) })
        }
    }

    fn fetcher(addresses: &[&str]) -> Fetcher {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Fetcher::builder().resolver(Arc::new(Always(addresses))).build().unwrap()
    }

    /// A server that counts connections and answers each with these bytes, one piece per 50 ms.
    async fn server(pieces: &'static [&'static str]) -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        tokio::spawn(async move {
            for _ in 0..8 {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await;
                    for piece in pieces {
                        let _ = stream.write_all(piece.as_bytes()).await;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                });
            }
        });
        (port, count)
    }

    async fn get(fetcher: &Fetcher, url: &str, addresses: AddressPolicy) -> Result<Incoming, FetchFailure> {
        let headers = HeaderMap::new();
        let outgoing = Outgoing { method: Method::GET, url, headers, body: &[], addresses, networks: &[] };
        fetcher.send(outgoing, 100, Duration::from_millis(500)).await
    }

    const OK: &[&str] = &["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"];

    #[tokio::test]
    async fn a_loopback_fetch_reads_status_and_body() {
        let (port, count) = server(OK).await;
        for host in ["127.0.0.1", "localhost", "server.test"] {
            let url = format!("http://{host}:{port}/");
            let reply = get(&fetcher(&["127.0.0.1"]), &url, AddressPolicy::Loopback).await.unwrap();
            assert_eq!((reply.status, reply.body.as_slice()), (200, b"ok".as_slice()));
        }
        assert_eq!(count.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_redirect_is_handed_back_and_not_followed() {
        let (target, reached) = server(OK).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let head = format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{target}/\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
        });
        let reply = get(&fetcher(&[]), &url, AddressPolicy::Loopback).await.unwrap();
        assert_eq!(reply.status, 302);
        assert_eq!(reached.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_whether_announced_or_not() {
        const LONG: &str =
            "HTTP/1.1 200 OK\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
        let (port, _) = server(&[LONG, "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"]).await;
        let url = format!("http://127.0.0.1:{port}/");
        let failure = get(&fetcher(&[]), &url, AddressPolicy::Loopback).await.unwrap_err();
        assert_eq!(failure, FetchFailure::TooLarge);
    }

    // I-P7: the body's limit is one of the whole reply.
    #[tokio::test]
    async fn a_head_over_the_limit_is_refused() {
        let head = |fields: usize| {
            let field = format!("www-authenticate: Bearer realm=\"{}\"\r\n", "r".repeat(950));
            let head = format!("HTTP/1.1 200 OK\r\n{}connection: close\r\n\r\n", field.repeat(fields));
            &*head.leak()
        };
        for (fields, is_read) in [(30, true), (40, false)] {
            let (port, _) = server(vec![head(fields), "ok"].leak()).await;
            let url = format!("http://127.0.0.1:{port}/");
            let reply = get(&fetcher(&[]), &url, AddressPolicy::Loopback).await;
            let failure = reply.map(|reply| reply.status).err();
            assert_eq!(failure, (!is_read).then_some(FetchFailure::TooLarge), "{fields}");
        }
    }

    // I-P7
    #[test]
    fn a_document_is_kept_without_its_head() {
        let kept = |fields: &[(&'static str, String)]| {
            let field = |(name, value): &(&'static str, String)| {
                (http::HeaderName::from_static(name), value.parse::<http::HeaderValue>().unwrap())
            };
            let headers = fields.iter().map(field).collect();
            super::document_of(Incoming { status: 200, headers, body: b"{}".to_vec() })
        };
        let challenge = ("www-authenticate", "Bearer realm=\"x\"".to_owned());
        let retry = ("retry-after", "5".to_owned());
        let reply =
            kept(&[challenge.clone(), ("content-type", "application/json".to_owned()), challenge, retry]);
        assert_eq!((reply.status(), reply.body()), (200, b"{}".as_slice()));
        assert!(reply.is_json());
        assert_eq!(reply.www_authenticate().count(), 0);
        assert_eq!(reply.retry_after(), None);
        let long = format!("application/json; x={}", "x".repeat(30_000));
        assert_eq!(kept(&[("content-type", long)]).content_type(), None);
    }

    #[tokio::test]
    async fn a_body_that_trickles_runs_out_of_time() {
        const DROP: &str = "x";
        let (port, _) = server(&[
            "HTTP/1.1 200 OK\r\n\r\n",
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
            DROP,
        ])
        .await;
        let url = format!("http://127.0.0.1:{port}/");
        let failure = get(&fetcher(&[]), &url, AddressPolicy::Loopback).await.unwrap_err();
        assert_eq!(failure, FetchFailure::TimedOut);
    }

    #[tokio::test]
    async fn a_name_that_points_inside_is_refused_before_connecting() {
        let (port, count) = server(OK).await;
        let url = format!("https://metadata.test:{port}/");
        for addresses in [
            &["127.0.0.1"][..],
            &["::1"],
            &["8.8.8.8", "127.0.0.1"],
            &["::ffff:127.0.0.1"],
            &["169.254.169.254"],
        ] {
            for policy in [AddressPolicy::Public, AddressPolicy::PublicAndPrivateNetworks] {
                let failure = get(&fetcher(addresses), &url, policy).await.unwrap_err();
                assert_eq!(failure, FetchFailure::AddressForbidden, "{addresses:?}");
            }
        }
        let url = format!("https://localhost:{port}/");
        let failure = get(&fetcher(&["8.8.8.8"]), &url, AddressPolicy::Public).await.unwrap_err();
        assert_eq!(failure, FetchFailure::AddressForbidden);
        assert_eq!(count.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn literals_outside_the_policy_are_refused_before_connecting() {
        let (port, count) = server(OK).await;
        for host in [
            "127.0.0.1",
            "[::1]",
            "169.254.169.254",
            "10.0.0.1",
            "[fe80::1]",
            "[::ffff:127.0.0.1]",
            "2130706433",
            "0x7f.1",
            "0.0.0.0",
        ] {
            let url = format!("https://{host}:{port}/");
            let failure = get(&fetcher(&["127.0.0.1"]), &url, AddressPolicy::Public).await.unwrap_err();
            assert_eq!(failure, FetchFailure::AddressForbidden, "{host}");
        }
        for host in ["169.254.169.254", "10.0.0.1", "8.8.8.8"] {
            let url = format!("http://{host}:{port}/");
            let failure = get(&fetcher(&[]), &url, AddressPolicy::Loopback).await.unwrap_err();
            assert_eq!(failure, FetchFailure::AddressForbidden, "{host}");
        }
        assert_eq!(count.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn plain_http_leaves_this_machine_under_no_policy() {
        let (port, count) = server(OK).await;
        let url = format!("http://server.test:{port}/");
        for policy in [AddressPolicy::Public, AddressPolicy::PublicAndPrivateNetworks] {
            let failure = get(&fetcher(&["8.8.8.8"]), &url, policy).await.unwrap_err();
            assert_eq!(failure, FetchFailure::AddressForbidden);
        }
        assert_eq!(count.load(Ordering::SeqCst), 0);
    }

    /// A proxy that notes what it is asked to connect to, and refuses it.
    async fn proxy() -> (u16, Arc<std::sync::Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        tokio::spawn(async move {
            for _ in 0..8 {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let mut request = [0; 4096];
                let length = stream.read(&mut request).await.unwrap_or(0);
                let line = String::from_utf8_lossy(&request[..length]).lines().next().unwrap().to_owned();
                notes.lock().unwrap().push(line);
                let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
        (port, asked)
    }

    fn with_policy(addresses: &[&str], relaxations: &[&str]) -> Fetcher {
        let policy = relaxations.join("\n").parse().unwrap();
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Fetcher::builder().resolver(Arc::new(Always(addresses))).policy(&policy).build().unwrap()
    }

    // EgressProxy
    #[tokio::test]
    async fn through_a_named_proxy_names_are_resolved_by_it_alone() {
        let (port, asked) = proxy().await;
        // The resolver knows the proxy at 127.0.0.1, and would have the target there too.
        let named = format!("EgressProxy=http://proxy.test:{port} enforces-address-policy");
        let fetcher = with_policy(&["127.0.0.1"], &[&named]);
        let failure = get(&fetcher, "https://mcp.test/x", AddressPolicy::Public).await.unwrap_err();
        assert_eq!(failure, FetchFailure::Unreachable);
        assert_eq!(*asked.lock().unwrap(), ["CONNECT mcp.test:443 HTTP/1.1"]);
        // Literals that no proxy should be asked for are refused here all the same, and so is plain http.
        for url in ["https://10.0.0.1/", "https://127.0.0.1/", "https://169.254.169.254/", "http://mcp.test/"]
        {
            let failure = get(&fetcher, url, AddressPolicy::Public).await.unwrap_err();
            assert_eq!(failure, FetchFailure::AddressForbidden, "{url}");
        }
        // This machine is reached without it.
        let (local, _) = server(OK).await;
        let url = format!("http://127.0.0.1:{local}/");
        assert_eq!(get(&fetcher, &url, AddressPolicy::Loopback).await.unwrap().status, 200);
        assert_eq!(asked.lock().unwrap().len(), 1);
        // Without the relaxation nothing goes there.
        let failure =
            get(&with_policy(&["127.0.0.1"], &[]), "https://mcp.test/x", AddressPolicy::Public).await;
        assert_eq!(failure.unwrap_err(), FetchFailure::AddressForbidden);
        assert_eq!(asked.lock().unwrap().len(), 1);
    }

    // PrivateNetworks: of two servers' networks, a fetch reaches those of its own.
    #[tokio::test]
    async fn a_named_network_is_reached_for_its_own_servers_only() {
        let fetcher = with_policy(
            &["10.1.2.3"],
            &["PrivateNetworks=https://a.test 10.1.0.0/16", "PrivateNetworks=https://b.test 192.168.0.0/16"],
        );
        let networks = |texts: &[&str]| -> Vec<super::Network> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let failure = async |of_server: &[&str]| {
            let networks = networks(of_server);
            let outgoing = Outgoing {
                method: Method::GET,
                url: "https://name.test:1/",
                headers: HeaderMap::new(),
                body: &[],
                addresses: AddressPolicy::PublicAndPrivateNetworks,
                networks: &networks,
            };
            fetcher.send(outgoing, 100, Duration::from_millis(50)).await.unwrap_err()
        };
        assert_ne!(failure(&["10.1.0.0/16"]).await, FetchFailure::AddressForbidden, "it may be tried");
        // Another server's, a set that no relaxation names, and none.
        for networks in [&["192.168.0.0/16"][..], &["10.0.0.0/8"], &[]] {
            assert_eq!(failure(networks).await, FetchFailure::AddressForbidden, "{networks:?}");
        }
    }
}
