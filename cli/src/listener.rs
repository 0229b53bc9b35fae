//! Connections of the commands that serve: how many, in all and of one network, how long each may take to say what it wants and to
//! read what it asked for, and their end when the server is told to stop.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Sleep;
use tower::ServiceExt as _;

use crate::network::network;
use crate::serve::tls::Tls;

/// Connections at one time; more wait in the system's queue (I-P7).
const CONNECTIONS: usize = 4096;

/// Connections at one time of an address, which in IPv6 is a network of 64 bits: many people may share one.
const OF_AN_ADDRESS: usize = 512;

/// Connections at one time of a network, 24 bits in IPv4 and 48 in IPv6: what one stranger may have whole.
const OF_A_NETWORK: usize = 1024;

/// How long a peer may take for its handshake, and then for the head of each request, idle time before it included.
const HEAD: Duration = Duration::from_secs(30);

/// How long a peer may read nothing of what is sent to it.
const STALLED: Duration = Duration::from_secs(30);

/// How long requests may take to end once the server was told to stop.
const GRACE: Duration = Duration::from_secs(20);

/// What a peer may take of a server's connections.
#[derive(Debug)]
pub(crate) struct Terms {
    trusted: Vec<IpNet>,
    of_an_address: usize,
    of_a_network: usize,
    head: Duration,
    stalled: Duration,
}

impl Terms {
    /// The usual ones. The trusted are proxies: their connections are everybody's, and not counted.
    pub(crate) fn new(trusted: Vec<IpNet>) -> Self {
        Self {
            trusted,
            of_an_address: OF_AN_ADDRESS,
            of_a_network: OF_A_NETWORK,
            head: HEAD,
            stalled: STALLED,
        }
    }
}

/// How many connections each network has.
#[derive(Default)]
struct Shares(Mutex<HashMap<(IpAddr, u32), usize>>);

impl Shares {
    fn counts(&self) -> MutexGuard<'_, HashMap<(IpAddr, u32), usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more connection of that peer; `None` if its address or its network has as many as it may.
    fn room(self: &Arc<Self>, peer: IpAddr, terms: &Terms) -> Option<Share> {
        let peer = peer.to_canonical();
        let mut share = Share { shares: Arc::clone(self), held: Vec::new() };
        if terms.trusted.iter().any(|proxies| proxies.contains(&peer)) {
            return Some(share);
        }
        let counted = [(network(peer, 32, 64), 0), (network(peer, 24, 48), 1)];
        let mut counts = self.counts();
        let has = |of: &(IpAddr, u32)| counts.get(of).copied().unwrap_or(0);
        let [address, network] = &counted;
        if has(address) >= terms.of_an_address || has(network) >= terms.of_a_network {
            return None;
        }
        for of in counted {
            let count = counts.entry(of).or_insert(0);
            *count = count.saturating_add(1);
            share.held.push(of);
        }
        drop(counts);
        Some(share)
    }
}

/// A connection's place among those of its networks, until it ends.
struct Share {
    shares: Arc<Shares>,
    held: Vec<(IpAddr, u32)>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.shares.counts();
        for of in &self.held {
            match counts.get_mut(of) {
                Some(count) if *count > 1 => *count = count.saturating_sub(1),
                _ => {
                    counts.remove(of);
                }
            }
        }
    }
}

/// Serves the router, over TLS if there is a certificate, until `stop` ends and what was begun has ended.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    terms: Terms,
    router: Router,
    stop: impl Future<Output = ()>,
) {
    let (graceful, room) = (GracefulShutdown::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    let (head, shares) = (terms.head, Arc::new(Shares::default()));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, (stream, peer)) = tokio::select! {
            () = &mut stop => break,
            (permit, accepted) = accepted => match accepted {
                Ok(accepted) => (permit, accepted),
                Err(error) => {
                    // Out of descriptors, or a peer that was gone before it was there.
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        // I-P7: whoever opens and opens takes nobody's place but its own network's.
        let Some(share) = shares.room(peer.ip(), &terms) else {
            tracing::debug!(%peer, "its network has as many connections as it may");
            continue;
        };
        let stream = Reading { stream, stalled: terms.stalled, until: None };
        let (tls, router, watcher) = (tls.clone(), router.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _held = (permit, share);
            match tls {
                None => speak(stream, peer, head, router, watcher).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(head, tls.accept(stream)).await {
                        speak(stream, peer, head, router, watcher).await;
                    }
                }
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    head: Duration,
    router: Router,
    watcher: Watcher,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .serve_connection(TokioIo::new(stream), service);
    // A peer that breaks the protocol or hangs up is no fault of ours.
    let _ = watcher.watch(connection).await;
}

/// A connection whose peer has to read: if it takes nothing for too long, writing fails, and what waited for it is thrown away.
struct Reading {
    stream: TcpStream,
    stalled: Duration,
    /// From the first write that had to wait until one did not.
    until: Option<Pin<Box<Sleep>>>,
}

impl Reading {
    /// What a write gives, if it has not waited for too long.
    fn within<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.until = None;
            return written;
        }
        let stalled = self.stalled;
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(stalled)));
        if until.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        // The system does not go on holding what nobody reads, once this is closed.
        let _ = self.stream.set_zero_linger();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Reading {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.within(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // A socket's own flush and shutdown never wait.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Waits for the signal to stop.
pub(crate) async fn told_to_stop() {
    let interrupt = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return interrupt.await };
        tokio::select! {
            () = interrupt => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    interrupt.await;
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::sync::Arc;
    use std::time::Duration;

    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    use super::{Shares, Terms};

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n";

    /// What a test waits for at most, far more than it needs.
    const LONG: Duration = Duration::from_secs(20);

    async fn serving(terms: Terms, answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(move || async move { answer }));
        tokio::spawn(super::serve(listener, None, terms, router, std::future::pending()));
        address
    }

    /// A connection from that address of this machine.
    async fn from(peer: &str, server: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(peer.parse().unwrap(), 0)).unwrap();
        socket.connect(server).await.unwrap()
    }

    /// Whether a request is answered; otherwise the connection was closed.
    async fn is_served(connection: &mut TcpStream) -> bool {
        let mut answer = Vec::new();
        let answered = async {
            connection.write_all(REQUEST).await?;
            while !answer.ends_with(b"here") {
                if connection.read_buf(&mut answer).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok::<_, std::io::Error>(())
        };
        let answered = tokio::time::timeout(LONG, answered).await.expect("neither answered nor closed");
        assert!(answered.is_err() || answer.starts_with(b"HTTP/1.1 200"));
        answered.is_ok()
    }

    // I-P7: whoever has as many connections as it may takes nobody else's place, and gets its own back.
    #[tokio::test]
    async fn one_network_does_not_take_all_connections() {
        let server = serving(Terms { of_an_address: 2, ..Terms::new(Vec::new()) }, "here").await;
        let (mut one, mut two) = (from("127.0.0.1", server).await, from("127.0.0.1", server).await);
        assert!(is_served(&mut one).await && is_served(&mut two).await);
        assert!(!is_served(&mut from("127.0.0.1", server).await).await, "one more is closed at once");
        assert!(is_served(&mut from("127.0.0.2", server).await).await, "another network is served");
        assert!(is_served(&mut two).await, "and so are those that were there");
        drop(one);
        let again = async { while !is_served(&mut from("127.0.0.1", server).await).await {} };
        tokio::time::timeout(LONG, again).await.expect("a place that is left is free");
    }

    // I-P7: the connections of a proxy are everybody's.
    #[tokio::test]
    async fn a_trusted_proxy_has_as_many_connections_as_it_opens() {
        let trusted = vec!["127.0.0.1/32".parse().unwrap()];
        let server = serving(Terms { of_an_address: 1, ..Terms::new(trusted) }, "here").await;
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(from("127.0.0.1", server).await);
            assert!(is_served(held.last_mut().unwrap()).await);
        }
    }

    // I-P7
    #[test]
    fn whoever_has_a_network_of_addresses_has_no_more_than_its_share() {
        let terms = Terms { of_an_address: 2, of_a_network: 5, ..Terms::new(Vec::new()) };
        let shares = Arc::new(Shares::default());
        let room = |text: String| shares.room(text.parse::<IpAddr>().unwrap(), &terms);
        let mut held = Vec::new();
        for n in 0..2 {
            held.push(room(format!("2001:db8:0:1::{n}")).unwrap());
        }
        assert!(room("2001:db8:0:1::9".to_owned()).is_none(), "64 bits are an address");
        for n in 2..5 {
            held.push(room(format!("2001:db8:0:{n}::1")).unwrap());
        }
        assert!(room("2001:db8:0:9::1".to_owned()).is_none(), "48 bits are a network");
        assert!(room("2001:db8:1::1".to_owned()).is_some() && room("192.0.2.1".to_owned()).is_some());
        held.push(room("192.0.2.1".to_owned()).unwrap());
        held.push(room("::ffff:192.0.2.1".to_owned()).unwrap());
        assert!(room("192.0.2.1".to_owned()).is_none(), "an IPv4 address in IPv6 is itself");
        drop(held);
        assert!(shares.counts().is_empty(), "nothing is kept of who is gone");
    }

    /// Asks for far more than a connection holds, and reads none of it.
    async fn asking(server: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut connection = socket.connect(server).await.unwrap();
        connection.write_all(&REQUEST.repeat(ASKED)).await.unwrap();
        connection
    }

    const ASKED: usize = 100;

    /// An answer to fill what the system holds for a connection soon.
    fn much() -> &'static str {
        Box::leak("x".repeat(1_000_000).into_boxed_str())
    }

    // I-P7: hyper's time for a head stands still while it writes.
    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_dropped() {
        let terms = Terms { stalled: Duration::from_millis(200), ..Terms::new(Vec::new()) };
        let server = serving(terms, much()).await;
        let mut connection = asking(server).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut read = Vec::new();
        let end = tokio::time::timeout(LONG, connection.read_to_end(&mut read)).await;
        assert!(end.expect("it is held").is_err(), "reset");
        assert!(read.len() < 90_000_000, "{} bytes", read.len());
    }

    #[tokio::test]
    async fn a_peer_that_reads_slowly_is_served() {
        let terms = Terms { stalled: Duration::from_secs(3), ..Terms::new(Vec::new()) };
        let server = serving(terms, much()).await;
        let mut connection = asking(server).await;
        let mut piece = vec![0_u8; 1_000_000];
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            connection.read_exact(&mut piece).await.unwrap();
        }
    }

    // I-P7: before the first request, and after one.
    #[tokio::test]
    async fn a_peer_that_asks_nothing_is_dropped() {
        let terms = Terms { head: Duration::from_millis(200), ..Terms::new(Vec::new()) };
        let server = serving(terms, "here").await;
        for asks in [false, true] {
            let mut connection = from("127.0.0.1", server).await;
            assert!(!asks || is_served(&mut connection).await);
            let mut rest = Vec::new();
            let end = tokio::time::timeout(LONG, connection.read_to_end(&mut rest)).await;
            assert!(end.is_ok(), "it is held");
        }
    }
}
