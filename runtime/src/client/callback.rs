//! The loopback listener that a browser comes back to (RFC 8252 section 7.3, I-L12).
//!
//! It is bound to the literal 127.0.0.1 on a free port (and to ::1 besides, for an authorization server that must be told
//! the name `localhost`), hands each arrival to the host while a login waits, and
//! answers with a small page. Any page in any browser can make requests to it: whether an arrival is the awaited one
//! is for the core to say, and one that is not leaves the listener as it was. While no login waits, every visit is a
//! stray one.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mcp_authz::identifier::{InvalidIdentifier, RedirectUri};
use mcp_authz::message::authorization::Callback;
use mcp_authz::policy::LoopbackRedirect;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::text::HtmlText;

/// Connections served at one time; more wait in the operating system's queue.
const CONNECTIONS: usize = 128;

/// The listener has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Nobody came back in time.
    #[error("the browser did not come back in time")]
    DeadlinePassed,
    /// The port could not be served any more.
    #[error("the loopback listener stopped")]
    Stopped,
}

/// A listener on 127.0.0.1, one login at a time.
#[derive(Debug)]
pub struct CallbackListener {
    address: SocketAddr,
    arrivals: mpsc::Receiver<Arrival>,
    tasks: JoinSet<()>,
    waiting: Arc<AtomicBool>,
}

/// A login that waits for the browser, until its deadline or until it is dropped.
#[derive(Debug)]
pub struct WaitingLogin<'a> {
    listener: &'a mut CallbackListener,
    deadline: Instant,
}

/// A well-formed callback that arrived, and the browser that waits for a page.
#[derive(Debug)]
pub struct Arrival {
    callback: Callback,
    browser: WaitingBrowser,
}

/// A browser that waits for its page. Dropped, it gets the page for a stray visit.
#[derive(Debug)]
#[must_use = "the browser waits for its page"]
pub struct WaitingBrowser(oneshot::Sender<Page>);

/// What the page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Accepted,
    Failed,
    Stray,
}

impl CallbackListener {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// The operating system's, when it gives no port.
    pub async fn bind() -> std::io::Result<Self> {
        Self::bind_port(0).await
    }

    /// Listens on that port of 127.0.0.1: the one of a registration made before.
    ///
    /// # Errors
    /// The operating system's, when the port is taken.
    pub async fn bind_port(port: u16) -> std::io::Result<Self> {
        // I-L12, OAUTH21-8.4.2-1: the literal address, so that no other machine and no name leads here.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        Ok(Self::serving(vec![listener], address, false))
    }

    /// Listens for an authorization server that compares loopback redirect URIs exactly
    /// ([`LoopbackRedirect`]): on the first of those ports that is free, or on any
    /// if there are none; and by the name `localhost`, if that is what the server is told. The name leads to 127.0.0.1
    /// or to ::1, as each browser likes: both are taken, so that nobody else answers to it.
    ///
    /// # Errors
    /// The operating system's, when none of the ports is free.
    pub async fn bind_as(redirect: &LoopbackRedirect) -> std::io::Result<Self> {
        let ports: Vec<u16> = redirect.ports().collect();
        if !redirect.localhost() {
            return Self::bind_first(ports, async |port| Self::bind_port(port).await).await;
        }
        Self::bind_first(ports, async |port| {
            let four = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
            let address = four.local_addr()?;
            let listeners = match TcpListener::bind((Ipv6Addr::LOCALHOST, address.port())).await {
                Ok(six) => vec![four, six],
                Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(error),
                // Without that address nobody else has it either.
                Err(_) => vec![four],
            };
            Ok(Self::serving(listeners, address, true))
        })
        .await
    }

    async fn bind_first(
        ports: Vec<u16>,
        bind: impl AsyncFn(u16) -> std::io::Result<Self>,
    ) -> std::io::Result<Self> {
        // A free port of the one address may be taken on the other.
        let ports = if ports.is_empty() { vec![0; 8] } else { ports };
        let mut failed = std::io::Error::from(ErrorKind::AddrInUse);
        for port in ports {
            match bind(port).await {
                Ok(bound) => return Ok(bound),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn serving(listeners: Vec<TcpListener>, address: SocketAddr, by_name: bool) -> Self {
        let (sender, arrivals) = mpsc::channel(CONNECTIONS);
        let waiting = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for listener in listeners {
            let hosts = if by_name { vec![format!("localhost:{}", address.port())] } else { Vec::new() };
            let own = listener.local_addr().unwrap_or(address).to_string();
            let hosts = hosts.into_iter().chain([own]).collect();
            let visited = Visited { hosts, sender: sender.clone(), waiting: Arc::clone(&waiting) };
            tasks.spawn(serve(listener, visited));
        }
        Self { address, arrivals, tasks, waiting }
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The redirect URI for a path that begins with a slash, such as `/callback`.
    ///
    /// # Errors
    /// [`InvalidIdentifier`] for a path no redirect URI may have.
    pub fn redirect_uri(&self, path: &str) -> Result<RedirectUri, InvalidIdentifier> {
        // OAUTH21-8.4.2-1: the literal address; the core writes the name for the server that must have it.
        RedirectUri::new(format!("http://{}{path}", self.address))
    }

    /// Begins to hand callbacks over, for so long at most. Call it before the browser is opened.
    pub fn login(&mut self, time: Duration) -> WaitingLogin<'_> {
        self.waiting.store(true, Ordering::SeqCst);
        let now = Instant::now();
        WaitingLogin { listener: self, deadline: now.checked_add(time).unwrap_or(now) }
    }

    /// Stops listening; pages already answered still reach their browsers.
    pub async fn close(mut self) {
        self.arrivals.close();
        let tasks = std::mem::take(&mut self.tasks);
        let _ = tokio::time::timeout(Duration::from_secs(2), tasks.join_all()).await;
    }
}

impl Drop for CallbackListener {
    /// Stops listening. A browser that was answered a moment ago still gets its page: what serves it ends by itself.
    fn drop(&mut self) {
        self.arrivals.close();
        self.tasks.detach_all();
    }
}

impl WaitingLogin<'_> {
    /// The next well-formed callback. What is none was answered already and is not reported.
    ///
    /// # Errors
    /// [`ListenError::DeadlinePassed`] once the time given at the start is over.
    pub async fn next(&mut self) -> Result<Arrival, ListenError> {
        match tokio::time::timeout_at(self.deadline, self.listener.arrivals.recv()).await {
            Ok(Some(arrival)) => Ok(arrival),
            Ok(None) => Err(ListenError::Stopped),
            Err(_) => Err(ListenError::DeadlinePassed),
        }
    }
}

impl Drop for WaitingLogin<'_> {
    fn drop(&mut self) {
        self.listener.waiting.store(false, Ordering::SeqCst);
        // Whoever arrived meanwhile is told that nothing waits, instead of standing in the way of the next login.
        while self.listener.arrivals.try_recv().is_ok() {}
    }
}

impl Arrival {
    /// The callback for the waiting state, and the browser to answer after it.
    pub fn into_parts(self) -> (Callback, WaitingBrowser) {
        (self.callback, self.browser)
    }
}

impl WaitingBrowser {
    /// Says that the login went on and the window may be closed.
    pub fn accepted(self) {
        let _ = self.0.send(Page::Accepted);
    }

    /// Says that the login ended without access.
    pub fn failed(self) {
        let _ = self.0.send(Page::Failed);
    }

    /// Says that nothing was awaited here.
    pub fn stray(self) {
        let _ = self.0.send(Page::Stray);
    }
}

/// What a connection needs to know.
#[derive(Clone)]
struct Visited {
    /// What a browser may call this listener.
    hosts: Arc<[String]>,
    sender: mpsc::Sender<Arrival>,
    waiting: Arc<AtomicBool>,
}

/// Accepts connections until the host stops listening.
async fn serve(listener: TcpListener, visited: Visited) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        let stream = tokio::select! {
            () = visited.sender.closed() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let visited = visited.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let visited = visited.clone();
                async move { Ok::<_, Infallible>(answer(&request, &visited).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(2))
                .max_buf_size(16 * 1024)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(Duration::from_secs(60), connection).await;
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Answers one request, after asking the host about a callback.
async fn answer(request: &Request<Incoming>, visited: &Visited) -> Response<Full<Bytes>> {
    // Of two, another reader may take the other one (RFC 9112 section 3.2).
    if request.headers().get_all(HOST).iter().count() > 1 {
        return page(StatusCode::BAD_REQUEST, Page::Stray);
    }
    let Visited { hosts, sender, waiting } = visited;
    // A name that was made to point at this machine carries its own Host (I-A11).
    let host = request.headers().get(HOST).map(http::HeaderValue::as_bytes);
    let known = hosts.iter().find(|known| Some(known.as_bytes()) == host);
    // A target with a host of its own is for a proxy, which this is not.
    let Some(host) = known.filter(|_| request.uri().authority().is_none()) else {
        return page(StatusCode::MISDIRECTED_REQUEST, Page::Stray);
    };
    if request.method() != Method::GET {
        return page(StatusCode::METHOD_NOT_ALLOWED, Page::Stray);
    }
    // I-A9: the location is one of this listener's own, not what the request says.
    let location = format!("http://{host}{}", request.uri().path());
    let Ok(callback) = Callback::from_parts(&location, request.uri().query().unwrap_or_default()) else {
        return page(StatusCode::NOT_FOUND, Page::Stray);
    };
    if !waiting.load(Ordering::SeqCst) {
        return page(StatusCode::NOT_FOUND, Page::Stray);
    }
    let (browser, answered) = oneshot::channel();
    let arrival = Arrival { callback, browser: WaitingBrowser(browser) };
    if sender.send(arrival).await.is_err() {
        return page(StatusCode::NOT_FOUND, Page::Stray);
    }
    match answered.await.unwrap_or(Page::Stray) {
        shown @ Page::Stray => page(StatusCode::NOT_FOUND, shown),
        shown => page(StatusCode::OK, shown),
    }
}

/// A page of fixed text: nothing of the request is repeated, nothing is loaded, nothing runs.
fn page(status: StatusCode, page: Page) -> Response<Full<Bytes>> {
    let (title, text) = match page {
        Page::Accepted => ("Signed in", "Access was granted. You can close this window."),
        Page::Failed => ("Not signed in", "No access was granted. You can close this window."),
        Page::Stray => ("Nothing here", "No sign-in is waiting for this page."),
    };
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{0}</title><h1>{0}</h1><p>{1}</p>",
        HtmlText(title),
        HtmlText(text)
    );
    let mut response = Response::new(Full::new(Bytes::from(html)));
    *response.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        // The address bar holds the code: it is neither stored nor passed on (OAUTH21-7.5.3-1).
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use mcp_authz::identifier::Issuer;
    use mcp_authz::policy::LoopbackRedirect;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::{CallbackListener, ListenError};

    async fn visit(address: SocketAddr, request: String) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn get(address: SocketAddr, target: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nhost: {address}\r\n\r\n")
    }

    #[tokio::test]
    async fn listens_on_the_literal_loopback_address_only() {
        let listener = CallbackListener::bind().await.unwrap();
        assert_eq!(listener.address().ip().to_string(), "127.0.0.1");
        let uri = listener.redirect_uri("/callback").unwrap();
        assert_eq!(uri.as_str(), format!("http://127.0.0.1:{}/callback", listener.address().port()));
    }

    #[tokio::test]
    async fn hands_over_each_callback_and_goes_on_listening() {
        let mut listener = CallbackListener::bind().await.unwrap();
        let address = listener.address();
        let mut login = listener.login(Duration::from_secs(5));
        let stray = tokio::spawn(visit(address, get(address, "/other?code=x&state=y")));
        let (callback, browser) = login.next().await.unwrap().into_parts();
        assert_eq!(callback.location(), format!("http://{address}/other"));
        browser.stray();
        assert!(stray.await.unwrap().starts_with("HTTP/1.1 404"));
        let real = tokio::spawn(visit(address, get(address, "/callback?code=x&state=y&iss=https%3A%2F%2Fh")));
        let (callback, browser) = login.next().await.unwrap().into_parts();
        assert_eq!(callback.iss(), Some("https://h"));
        browser.accepted();
        drop(login);
        listener.close().await;
        let answer = real.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"));
        assert!(answer.contains("no-store") && answer.contains("default-src 'none'"));
        assert!(!answer.contains("state"));
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_page_reaches_its_browser_though_the_listener_is_dropped() {
        let mut listener = CallbackListener::bind().await.unwrap();
        let address = listener.address();
        let mut login = listener.login(Duration::from_secs(5));
        let visit = tokio::spawn(visit(address, get(address, "/callback?code=x&state=y")));
        let browser = login.next().await.unwrap().into_parts().1;
        drop(login);
        drop(listener);
        browser.accepted();
        assert!(visit.await.unwrap().contains("Access was granted"));
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_callback_is_answered_and_not_reported() {
        let mut listener = CallbackListener::bind().await.unwrap();
        let address = listener.address();
        let mut login = listener.login(Duration::from_millis(400));
        for (request, status) in [
            (get(address, "/favicon.ico"), "404"),
            (get(address, "/callback?code=a&code=b"), "404"),
            (
                format!("POST /callback?code=a HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\n\r\n"),
                "405",
            ),
            ("GET /callback?code=a HTTP/1.1\r\nhost: rebound.test\r\n\r\n".to_owned(), "421"),
            ("GET /callback?code=a HTTP/1.1\r\n\r\n".to_owned(), "421"),
            (format!("GET /callback?code=a HTTP/1.1\r\nhost: {address}\r\nhost: {address}\r\n\r\n"), "400"),
            (get(address, &format!("http://{address}/callback?code=a")), "421"),
        ] {
            let answer = visit(address, request.clone()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request} {answer}");
        }
        assert_eq!(login.next().await.unwrap_err(), ListenError::DeadlinePassed);
    }

    #[tokio::test]
    async fn a_silent_connection_does_not_keep_others_out() {
        let mut listener = CallbackListener::bind().await.unwrap();
        let address = listener.address();
        let mut login = listener.login(Duration::from_secs(5));
        let _silent = TcpStream::connect(address).await.unwrap();
        let visit = tokio::spawn(visit(address, get(address, "/callback?code=x&state=y")));
        login.next().await.unwrap().into_parts().1.failed();
        assert!(visit.await.unwrap().contains("No access was granted"));
    }

    #[tokio::test]
    async fn while_no_login_waits_every_visit_is_stray() {
        let mut listener = CallbackListener::bind().await.unwrap();
        let address = listener.address();
        let target = "/callback?code=x&state=y";
        assert!(visit(address, get(address, target)).await.starts_with("HTTP/1.1 404"));
        let early = {
            let _login = listener.login(Duration::from_secs(5));
            let early = tokio::spawn(visit(address, get(address, target)));
            tokio::time::sleep(Duration::from_millis(100)).await;
            early
        };
        assert!(early.await.unwrap().starts_with("HTTP/1.1 404"));
        let mut login = listener.login(Duration::from_millis(100));
        assert_eq!(login.next().await.unwrap_err(), ListenError::DeadlinePassed);
    }

    fn known(localhost: bool, ports: impl IntoIterator<Item = u16>) -> LoopbackRedirect {
        LoopbackRedirect::new(Issuer::new("https://as.example").unwrap(), localhost, ports).unwrap()
    }

    #[tokio::test]
    async fn the_name_is_answered_to_on_both_addresses_and_nobody_else_can() {
        let mut listener = CallbackListener::bind_as(&known(true, [])).await.unwrap();
        let port = listener.address().port();
        let six = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
        let mut addresses = vec![listener.address()];
        if TcpStream::connect(six).await.is_ok() {
            addresses.push(six);
        }
        for address in addresses {
            assert!(TcpListener::bind(address).await.is_err());
            for (host, reached) in [
                (format!("localhost:{port}"), true),
                (address.to_string(), true),
                ("localhost".to_owned(), false),
                (format!("localhost.evil.example:{port}"), false),
            ] {
                let mut login = listener.login(Duration::from_millis(300));
                let request = format!("GET /callback?code=x&state=y HTTP/1.1\r\nhost: {host}\r\n\r\n");
                let visit = tokio::spawn(visit(address, request));
                match login.next().await {
                    Ok(arrival) => {
                        let (callback, browser) = arrival.into_parts();
                        assert!(
                            reached && callback.location() == format!("http://{host}/callback"),
                            "{host}"
                        );
                        browser.accepted();
                    }
                    Err(_) => assert!(!reached && visit.await.unwrap().starts_with("HTTP/1.1 421"), "{host}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn the_first_free_port_that_the_server_knows_is_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let [taken_port, free_port] = [&taken, &free].map(|it| it.local_addr().unwrap().port());
        drop(free);
        for localhost in [false, true] {
            let redirect = known(localhost, [taken_port, free_port]);
            let listener = CallbackListener::bind_as(&redirect).await.unwrap();
            assert_eq!(listener.address().port(), free_port);
            listener.close().await;
            assert!(CallbackListener::bind_as(&known(localhost, [taken_port])).await.is_err());
        }
    }
}
