//! TLS by rustls: certificate and key from PEM files, read again when the operator says so.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::configuration::{Misconfigured, Settings};

/// A certificate with its key, in use.
pub(crate) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// What the settings name; `None` where they name neither file.
    pub(super) fn of(settings: &Settings) -> Result<Option<Arc<Self>>, Misconfigured> {
        let (certificate, key) = match (&settings.tls_cert, &settings.tls_key) {
            (None, None) => return Ok(None),
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
            _ => return Err(Misconfigured("tls_cert and tls_key go together: name both".to_owned())),
        };
        if !settings.issuer.starts_with("https://") {
            return Err(Misconfigured("with TLS the issuer begins with https://".to_owned()));
        }
        let current = RwLock::new(read(&certificate, &key)?);
        Ok(Some(Arc::new(Self { certificate, key, current })))
    }

    /// Reads the files again, for connections from now on. If that fails, everything stays as it is.
    pub(super) fn reload(&self) -> Result<(), Misconfigured> {
        let read = read(&self.certificate, &self.key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> std::io::Result<TlsStream<S>> {
        let current = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        TlsAcceptor::from(current).accept(stream).await
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, Misconfigured> {
    let wrong = |file: &Path, error: &dyn std::fmt::Display| {
        Misconfigured(format!("{} cannot be used: {error}", file.display()))
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = std::fs::metadata(key).map_err(|error| wrong(key, &error))?;
        // Its group may read it: that is how certificates are handed to services.
        if metadata.permissions().mode() & 0o027 != 0 {
            return Err(Misconfigured(format!(
                "the key {} is readable by others: chmod 600 it, or 640 for a group of this server's own",
                key.display()
            )));
        }
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| wrong(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut configuration = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| wrong(certificate, &error))?;
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(configuration))
}

/// Reads the files again at each SIGHUP.
#[cfg(unix)]
pub(super) async fn reload_when_told(tls: Arc<Tls>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        match tls.reload() {
            Ok(()) => tracing::info!("the certificate was read again"),
            Err(error) => tracing::error!(%error, "the certificate stays as it was"),
        }
    }
}
