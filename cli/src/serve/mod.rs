//! `mcp-authz serve`: the authorization server for a team's MCP servers, and what its operator does to the store.

use std::collections::HashSet;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use mcp_authz_tokio::authorization_server::key_ring::{self, KeyRing};
use mcp_authz_tokio::authorization_server::passwords::hash_password;
use mcp_authz_tokio::authorization_server::{AllowedOrigin, AuthorizationEvent, AuthorizationServerHost};
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::clock::{Clock as _, SystemClock};
use mcp_authz_tokio::sealer::derived_key;
use mcp_authz_tokio::store::AdministeredStore;
use mcp_authz_tokio::store::witness::{Witness, WitnessError};
use mcp_authz_tokio::text::TerminalText;
use tokio::net::TcpListener;

use configuration::{Misconfigured, Settings};
use guard::{Guard, guard};
use health::Counters;
use tls::Tls;

use crate::listener::{self, Terms};

mod administration;
mod clients;
mod configuration;
mod file;
mod guard;
mod health;
mod login;
mod parts;
pub(crate) mod tls;

pub(crate) use administration::{Clients, Grants, Keys, Stores};
pub(crate) use configuration::Options;

/// How often the server looks after keys, store and limits.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// How often it looks after the metadata documents of clients.
const DOCUMENTS: Duration = Duration::from_secs(3600);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the tool's subcommands of this kind are.
#[derive(Debug)]
pub(crate) enum Command {
    Serve(Box<Options>),
    Example,
    Grants(Box<Grants>),
    Clients(Box<Clients>),
    Keys(Box<Keys>),
    Store(Box<Stores>),
    HashPassword,
}

/// Runs one; the exit code says whether it did what it should.
pub(crate) fn run(command: Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let done = runtime.block_on(async {
        match command {
            Command::Serve(options) => serve(options.settings()?).await,
            Command::Example => Ok(write!(std::io::stdout(), "{}", configuration::EXAMPLE)?),
            Command::Grants(command) => administration::grants(*command).await,
            Command::Clients(command) => administration::clients(*command).await,
            Command::Keys(command) => administration::keys(*command).await,
            Command::Store(command) => administration::stores(*command).await,
            Command::HashPassword => hash(),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error.as_ref()),
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    // Word by word: what is in it may be a database's or a file's, and an operator needs the whole of it.
    let text = error.to_string();
    let words: Vec<String> = text.split(' ').map(|word| TerminalText(word).to_string()).collect();
    let _ = writeln!(std::io::stderr(), "mcp-authz: {}", words.join(" "));
    match error.downcast_ref() {
        // I-G14: everything is in order but this.
        Some(WitnessError::Restored { .. }) => crate::REFUSED.into(),
        _ => crate::FAILED.into(),
    }
}

/// Reads a password from standard input and prints its hash.
fn hash() -> Result<(), Failure> {
    let mut line = zeroize::Zeroizing::new(String::new());
    std::io::stdin().lock().read_line(&mut line)?;
    let hash = hash_password(line.trim_end_matches(['\r', '\n']))?;
    Ok(writeln!(std::io::stdout(), "{hash}")?)
}

fn log(json: bool) {
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(true);
    let subscriber = subscriber.with_ansi(std::io::stderr().is_terminal());
    // A second start in one process, as in tests, keeps the first log.
    let _ = if json { subscriber.json().try_init() } else { subscriber.try_init() };
}

async fn serve(settings: Settings) -> Result<(), Failure> {
    log(settings.json_log);
    settings.issuer()?;
    let listener = TcpListener::bind(settings.listen).await?;
    let address = listener.local_addr()?;
    let metrics = match settings.metrics_listen {
        Some(address) => Some(TcpListener::bind(address).await?),
        None => None,
    };
    if let Some(listener) = &metrics {
        tracing::info!(address = %listener.local_addr()?, "whoever reaches this address reads the metrics");
    }
    let tls = Tls::of(&settings)?;
    let is_exposed = tls.is_none() && !address.ip().is_loopback();
    if is_exposed && settings.trusted_proxies.is_empty() {
        return Err(Misconfigured(
            "without TLS this server listens on loopback only: name a certificate with --tls-cert and --tls-key, or the \
             proxy with TLS before it with --trusted-proxy (trusted_proxies in the file)"
                .to_owned(),
        )
        .into());
    }
    // Who speaks https to the world is a proxy: unnamed, everybody would have its address, and share its limits (I-A9).
    if tls.is_none() && settings.issuer.starts_with("https://") && settings.trusted_proxies.is_empty() {
        return Err(Misconfigured(
            "the issuer is https, and this server has no certificate: name one with --tls-cert and --tls-key, or the proxy \
             with TLS before it with --trusted-proxy (127.0.0.1 for one on this machine)"
                .to_owned(),
        )
        .into());
    }
    let master = parts::master_key(&settings)?;
    let store = parts::store(&settings.store, settings.limits.bounds()).await?;
    let now = SystemClock.now();
    let (server, introspectors) = parts::server(&settings, &master, now)?;
    let configured = clients::configured(introspectors, &settings.client, now)?;
    let witness = parts::witness(&settings).map(Witness::open).transpose()?;
    if let Some(witness) = &witness {
        // I-G14
        witness.advance(store.as_ref()).await?;
    }
    administration::end_clients_taken_out(store.as_ref(), &configured).await?;
    for record in configured {
        store.put_client(record).await?;
    }
    let ring = Arc::new(administration::key_ring(&settings, &master, Arc::clone(&store))?);
    ring.tend().await?;

    let counters = Arc::new(Counters::default());
    let observer = Arc::clone(&counters);
    let origins = settings.allowed_origins.iter().map(|origin| {
        let parsed = AllowedOrigin::new(origin);
        parsed.map_err(|error| Misconfigured(format!("allowed_origins: {origin:?}: {error}")))
    });
    let fetcher = Fetcher::new()?;
    let people = login::people(&settings, &master, &server, Arc::new(Arc::clone(&store)), &fetcher)?;
    let administered: Arc<dyn AdministeredStore> = Arc::clone(&store);
    let host =
        AuthorizationServerHost::new(server, Arc::new(Arc::clone(&store)), ring.clone(), people, fetcher)
            .grants_page(administered)
            .form_key(*derived_key(&master, b"mcp-authz forms 1"))
            .document_caching(parts::document_caching(&settings)?)
            .allowed_origins(origins.collect::<Result<_, _>>()?)
            .observer(move |event: AuthorizationEvent<'_>| observer.observe(&event));
    let host = match &settings.auto_approve {
        None => host,
        Some(user) => {
            warn_of_auto_approval(user);
            host.dangerously_approve_everything()
        }
    };
    let guards = Arc::new(Guard::new(&settings, is_exposed, Arc::clone(&counters))?);
    let terms = Terms::new(guards.trusted().to_vec());
    let looking_after = tokio::spawn(look_after_documents(host.clone()));
    let ending = tokio::spawn({
        let store = Arc::clone(&store);
        let people: HashSet<String> = match &settings.auto_approve {
            Some(user) => [user.clone()].into(),
            None => settings.user.iter().map(|user| user.name.clone()).collect(),
        };
        async move {
            if let Err(error) = administration::end_people_taken_out(store.as_ref(), &people).await {
                tracing::warn!(%error, "what people allowed who stand in the configuration no longer is withheld, and not ended yet");
            }
        }
    });
    let router: Router = host
        .router()
        .layer(from_fn_with_state(Arc::clone(&guards), guard))
        .merge(health::router(Arc::clone(&counters)));
    parts::warn_of_one_place(&settings);
    let metrics = metrics.map(|listener| {
        let router = health::metrics(Arc::clone(&counters));
        tokio::spawn(listener::serve(listener, None, Terms::new(Vec::new()), router, std::future::pending()))
    });
    counters.set_ready(true);
    tracing::info!(issuer = %settings.issuer, %address, "serving");
    let keeping = tokio::spawn(housekeeping(ring, store, witness, guards, Arc::clone(&counters)));
    let stop = async {
        listener::told_to_stop().await;
        counters.set_ready(false);
        tracing::info!("stopping");
    };
    #[cfg(unix)]
    let reloading = tls.clone().map(|tls| tokio::spawn(tls::reload_when_told(tls)));
    listener::serve(listener, tls, terms, router, stop).await;
    #[cfg(unix)]
    if let Some(reloading) = reloading {
        reloading.abort();
    }
    for task in [Some(keeping), Some(looking_after), Some(ending), metrics].into_iter().flatten() {
        task.abort();
    }
    Ok(())
}

fn warn_of_auto_approval(user: &str) {
    let user = TerminalText(user);
    let _ = writeln!(
        std::io::stderr(),
        "WARNING: everybody who reaches this server is {user}, and every request is approved without a question. \
         This is for tests only."
    );
}

/// The clients' metadata documents, now and every hour.
async fn look_after_documents(host: AuthorizationServerHost) {
    loop {
        if let Err(error) = host.look_after_documents().await {
            tracing::error!(%error, "the clients' metadata documents could not be looked after");
        }
        tokio::time::sleep(DOCUMENTS).await;
    }
}

/// Keys, store, incarnation and limits, again and again.
async fn housekeeping(
    ring: Arc<KeyRing>,
    store: Arc<dyn AdministeredStore>,
    witness: Option<Witness>,
    guards: Arc<Guard>,
    counters: Arc<Counters>,
) {
    debug_assert!(HOUSEKEEPING.as_secs() <= key_ring::INTERVAL.whole_seconds().unsigned_abs());
    loop {
        tokio::time::sleep(HOUSEKEEPING).await;
        guards.tidy();
        let mut ready = true;
        if let Err(error) = ring.tend().await {
            tracing::error!(%error, "the signing keys could not be looked after");
            ready = false;
        }
        if let Err(error) = store.sweep().await {
            tracing::error!(%error, "the store could not be cleaned up");
        }
        if let Some(witness) = &witness {
            match witness.advance(store.as_ref()).await {
                Ok(()) => {}
                Err(error @ WitnessError::Restored { .. }) => {
                    // Nothing that this store says can be trusted: not one more token.
                    tracing::error!(%error, "the store was replaced by an older copy");
                    std::process::exit(crate::REFUSED.into());
                }
                Err(error) => {
                    tracing::error!(%error, "the store's incarnation could not be counted");
                    ready = false;
                }
            }
        }
        counters.set_ready(ready);
    }
}
