//! A listener on a free port, for the servers of a test.

use tokio::net::TcpListener;

/// A listener on a free port, and the origin it serves.
pub(crate) async fn port() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    (listener, origin)
}
