//! Whether the server lives, whether it can serve, and how much it has done: for whoever runs it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use mcp_authz_tokio::authorization_server::AuthorizationEvent;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;

/// Counts since the process began. None of it names a client or a person.
#[derive(Debug, Default)]
pub(super) struct Counters {
    tokens_issued: AtomicU64,
    token_failures: AtomicU64,
    refusals: AtomicU64,
    pages_shown: AtomicU64,
    registrations: AtomicU64,
    families_revoked: AtomicU64,
    store_failures: AtomicU64,
    limited: AtomicU64,
    answers: [AtomicU64; 6],
    ready: AtomicBool,
}

fn one_more(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn observe(&self, event: &AuthorizationEvent<'_>) {
        match event {
            AuthorizationEvent::TokensIssued => one_more(&self.tokens_issued),
            AuthorizationEvent::TokenFailure(_) => one_more(&self.token_failures),
            AuthorizationEvent::Refusal(_) => one_more(&self.refusals),
            AuthorizationEvent::Shown(_) => one_more(&self.pages_shown),
            AuthorizationEvent::ClientInsertion(_) => one_more(&self.registrations),
            AuthorizationEvent::FamilyRevocation(_) => one_more(&self.families_revoked),
            AuthorizationEvent::StoreFailed(_) => one_more(&self.store_failures),
            _ => {}
        }
    }

    pub(super) fn limited(&self) {
        one_more(&self.limited);
        self.answered(429);
    }

    pub(super) fn answered(&self, status: u16) {
        if let Some(counter) = self.answers.get(usize::from(status / 100)) {
            one_more(counter);
        }
    }

    /// Says whether store and keys can be used.
    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::SeqCst);
    }

    /// The counts in Prometheus' text format.
    fn render(&self) -> String {
        let mut text = String::new();
        for (name, help, counter) in [
            ("tokens_issued", "Answers with tokens.", &self.tokens_issued),
            ("token_failures", "Requests of clients that were refused.", &self.token_failures),
            ("refusals", "Refusals shown to a person.", &self.refusals),
            ("pages_shown", "Consent pages shown.", &self.pages_shown),
            ("registrations", "Clients registered.", &self.registrations),
            ("families_revoked", "Grants ended by a client or by reuse.", &self.families_revoked),
            ("store_failures", "Failures of the store.", &self.store_failures),
            ("limited", "Requests above the rate limit.", &self.limited),
        ] {
            let value = counter.load(Ordering::Relaxed);
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "# HELP mcp_authz_{name}_total {help}\n# TYPE mcp_authz_{name}_total counter\nmcp_authz_{name}_total {value}"
            );
        }
        text.push_str("# HELP mcp_authz_answers_total Answers by the first digit of their status.\n");
        text.push_str("# TYPE mcp_authz_answers_total counter\n");
        for (class, counter) in self.answers.iter().enumerate().skip(2) {
            let value = counter.load(Ordering::Relaxed);
            let _ = writeln!(text, "mcp_authz_answers_total{{class=\"{class}xx\"}} {value}");
        }
        text
    }
}

/// `/metrics`, at an address of its own.
pub(super) fn metrics(counters: Arc<Counters>) -> Router {
    Router::new().route("/metrics", get(counts)).with_state(counters)
}

/// `/healthz`, `/readyz`.
pub(super) fn router(counters: Arc<Counters>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(counters)
}

async fn ready(State(counters): State<Arc<Counters>>) -> Response {
    if counters.ready.load(Ordering::SeqCst) {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn counts(State(counters): State<Arc<Counters>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], counters.render()).into_response()
}

#[cfg(test)]
mod tests {
    use super::{AuthorizationEvent, Counters};

    #[test]
    fn what_happens_is_counted_by_kind_only() {
        let counters = Counters::default();
        counters.observe(&AuthorizationEvent::TokensIssued);
        counters.observe(&AuthorizationEvent::MetadataServed);
        counters.answered(200);
        counters.answered(503);
        counters.limited();
        let text = counters.render();
        for line in [
            "mcp_authz_tokens_issued_total 1",
            "mcp_authz_limited_total 1",
            "mcp_authz_answers_total{class=\"2xx\"} 1",
            "mcp_authz_answers_total{class=\"4xx\"} 1",
            "mcp_authz_answers_total{class=\"5xx\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
