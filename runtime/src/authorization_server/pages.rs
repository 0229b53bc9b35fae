//! What the person sees: pages of plain HTML that need no script, load nothing and cannot be framed.
//!
//! Text of a client leaves through [`HtmlText`] only (I-P8). The host the answer goes to stands first, because it is
//! the one thing a client cannot invent; its name is marked as its own word.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, StatusCode};
use mcp_authz::authorization_server::authorization::{ConsentView, ScopeShown};
use mcp_authz::authorization_server::client::ClientShown;
use mcp_authz::authorization_server::record::{ConsentRecord, GrantRecord};
use mcp_authz::authorization_server::refusal::Refusal;
use mcp_authz::authorization_server::sign_in::RequestShown;
use mcp_authz::syntax::base64url;
use unicode_segmentation::UnicodeSegmentation as _;

use super::grants::Allowed;
use super::people::{ProviderShown, SignInFault, Ways};
use crate::text::{HtmlText, SHOWN_GRAPHEMES};

/// What the name of a scope's box begins with; the scope follows.
pub(super) const SCOPE_FIELD: &str = "scope.";

const STYLE: &str = "\
:root{color-scheme:light dark}\
*{box-sizing:border-box}\
body{margin:0;padding:1.5rem 1rem;font:1rem/1.5 system-ui,sans-serif;background:Canvas;color:CanvasText}\
main{max-width:30rem;margin:0 auto}\
h1{font-size:1.4rem;line-height:1.25;margin:0 0 1rem}\
dl{margin:0 0 1rem;border:1px solid GrayText;border-radius:.5rem;padding:.25rem 1rem}\
dt{font-size:.85rem;opacity:.75;margin-top:.75rem}\
dd{margin:0 0 .75rem;overflow-wrap:anywhere}\
dd strong{font-size:1.1rem}\
.note{font-size:.85rem;opacity:.8}\
.mark{display:inline-block;font-size:.75rem;border:1px solid currentColor;border-radius:1rem;padding:0 .5rem;margin-left:.25rem}\
fieldset{border:1px solid GrayText;border-radius:.5rem;margin:0 0 1rem;padding:.5rem 1rem}\
label{display:flex;gap:.75rem;padding:.5rem 0;align-items:flex-start}\
input[type=checkbox]{width:1.25rem;height:1.25rem;margin:.15rem 0 0;flex:none}\
code{font-size:.85rem;opacity:.75;overflow-wrap:anywhere}\
.buttons{display:flex;gap:.75rem;flex-wrap:wrap}\
button{font:inherit;padding:.7rem 1.25rem;border-radius:.5rem;border:1px solid currentColor;background:Canvas;color:CanvasText;flex:1 1 8rem;cursor:pointer}\
button.main{background:#0b57d0;border-color:#0b57d0;color:#fff}\
button:focus-visible,input:focus-visible{outline:3px solid Highlight;outline-offset:2px}";

/// The consent page (decision D44). `name` is what somebody else calls the person.
pub(super) fn consent(base: &str, view: &ConsentView, name: Option<&str>, leave: &str) -> Response {
    let mut body = String::new();
    // Writing to a string does not fail.
    let _ = write_consent(&mut body, base, view, name);
    let _ = write_sign_out(&mut body, base, leave);
    page(StatusCode::OK, "Allow access?", &body)
}

/// Who asks, and where the answer goes.
fn write_client_shown(
    out: &mut String,
    client: &ClientShown,
    (host, is_loopback): (&str, bool),
) -> fmt::Result {
    // MCP-SEC-024, MCP-SBP-004
    let host = End(host);
    if is_loopback {
        // MCP-SEC-022
        write!(
            out,
            "<dt>The answer goes to</dt><dd><strong>a program on this computer</strong> ({host})<br>\
             <span class=\"note\">Go on only if you have just started the sign-in yourself.</span></dd>"
        )?;
    } else {
        write!(out, "<dt>The answer goes to</dt><dd><strong>{host}</strong></dd>")?;
    }
    let name = client.name.as_deref().unwrap_or("(it gives no name)");
    // RFC7591-5-2
    let mark = if client.verified { "" } else { "<span class=\"mark\">unverified</span>" };
    write!(out, "<dt>It calls itself</dt><dd>{}{mark}</dd>", HtmlText(name))?;
    // CIMD-6.4-1
    write!(out, "<dt>It is known as</dt><dd><code>{}</code></dd>", End(&client.identity))
}

/// Who is signed in: the subject, and what somebody else calls them.
struct SignedInAs<'a>(&'a str, Option<&'a str>);

impl fmt::Display for SignedInAs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            // I-P8
            Some(name) => write!(f, "{}<br><code>{}</code>", HtmlText(name), End(self.0)),
            None => HtmlText(self.0).fmt(f),
        }
    }
}

fn write_consent(out: &mut String, base: &str, view: &ConsentView, name: Option<&str>) -> fmt::Result {
    out.push_str("<h1>Allow this application to act for you?</h1><dl>");
    write_client_shown(out, &view.client, (&view.redirect_host, view.redirect_is_loopback))?;
    write!(out, "<dt>It wants to reach</dt><dd>{}</dd>", End(view.resource.as_str()))?;
    write!(out, "<dt>You are signed in as</dt><dd>{}</dd></dl>", SignedInAs(&view.subject, name))?;
    write!(
        out,
        "<form method=\"post\" action=\"{}/decision\">\
         <input type=\"hidden\" name=\"handle\" value=\"{}\"><input type=\"hidden\" name=\"csrf\" value=\"{}\">\
         <fieldset><legend>It will be able to</legend>",
        Exact(base),
        Exact(&view.handle),
        Exact(&view.csrf)
    )?;
    for ScopeShown { scope, words, is_risky } in &view.scopes {
        let mark = if *is_risky { "<span class=\"mark\">far-reaching</span>" } else { "" };
        write!(
            out,
            "<label><input type=\"checkbox\" name=\"{SCOPE_FIELD}{}\" value=\"on\" checked>\
             <span>{}{mark}<br><code>{}</code></span></label>",
            Exact(scope.as_str()),
            HtmlText(words),
            HtmlText(scope.as_str())
        )?;
    }
    out.push_str("</fieldset>");
    if view.may_remember {
        out.push_str(
            "<label><input type=\"checkbox\" name=\"remember\" value=\"on\">\
             <span>Do not ask again for exactly this</span></label>",
        );
    }
    out.push_str(
        "<div class=\"buttons\">\
         <button name=\"decision\" value=\"deny\">Deny</button>\
         <button class=\"main\" name=\"decision\" value=\"approve\">Allow</button></div></form>",
    );
    Ok(())
}

/// The sign-in page of one button; `request` is the query to come back to.
pub(super) fn sign_in(base: &str, subject: &str, request: &str) -> Response {
    let body = format!(
        "<h1>Sign in</h1><p>An application asks for access. Sign in to see what it wants.</p>\
         <form method=\"post\" action=\"{}/sign-in\"><input type=\"hidden\" name=\"request\" value=\"{}\">\
         <div class=\"buttons\"><button class=\"main\">Continue as {}</button></div></form>",
        Exact(base),
        Exact(request),
        HtmlText(subject)
    );
    page(StatusCode::OK, "Sign in", &body)
}

/// The sign-in page: the ways there are, and before them who asks. `place` is the page to come back to.
pub(super) fn ways(
    base: &str,
    ways: &Ways,
    place: &str,
    token: &str,
    asked: Option<&RequestShown>,
    fault: Option<&str>,
) -> Response {
    let mut body = String::from("<h1>Sign in</h1>");
    // Writing to a string does not fail.
    let _ = write_ways(&mut body, base, ways, (place, token), asked, fault);
    page(if fault.is_some() { StatusCode::FORBIDDEN } else { StatusCode::OK }, "Sign in", &body)
}

fn write_ways(
    out: &mut String,
    base: &str,
    ways: &Ways,
    place: (&str, &str),
    asked: Option<&RequestShown>,
    fault: Option<&str>,
) -> fmt::Result {
    if let Some(fault) = fault {
        write!(out, "<p role=\"alert\">{}</p>", HtmlText(fault))?;
    }
    if let Some(asked) = asked {
        out.push_str("<p>An application asks to act for you:</p><dl>");
        write_client_shown(out, &asked.client, (&asked.redirect_host, asked.redirect_is_loopback))?;
        if let Some(resource) = &asked.resource {
            write!(out, "<dt>It wants to reach</dt><dd>{}</dd>", End(resource.as_str()))?;
        }
        for scope in &asked.scopes {
            let (words, scope) = (HtmlText(&scope.words), HtmlText(scope.scope.as_str()));
            write!(out, "<dt>It wants to</dt><dd>{words}<br><code>{scope}</code></dd>")?;
        }
        out.push_str("</dl><p>Go on only if you know it. Nothing is allowed yet: you are asked again.</p>");
    }
    if ways.password {
        write!(
            out,
            "<form method=\"post\" action=\"{}/sign-in\"><input type=\"hidden\" name=\"request\" value=\"{}\">\
             <fieldset><label>Name<input name=\"name\" autocomplete=\"username\" required></label>\
             <label>Password<input type=\"password\" name=\"password\" autocomplete=\"current-password\" required></label>\
             </fieldset><div class=\"buttons\"><button class=\"main\">Sign in</button></div></form>",
            Exact(base),
            Exact(place.0)
        )?;
    }
    for provider in &ways.providers {
        write_provider(out, base, provider, place, "Sign in at")?;
    }
    Ok(())
}

/// A form of one button that sends the person to a provider.
fn write_provider(
    out: &mut String,
    base: &str,
    provider: &ProviderShown,
    (place, token): (&str, &str),
    words: &str,
) -> fmt::Result {
    write!(
        out,
        "<form method=\"post\" action=\"{}/sign-in\"><input type=\"hidden\" name=\"request\" value=\"{}\">\
         <input type=\"hidden\" name=\"csrf\" value=\"{}\"><div class=\"buttons\">\
         <button class=\"main\" name=\"provider\" value=\"{}\">{words} {}</button></div></form>",
        Exact(base),
        Exact(place),
        Exact(token),
        Exact(&provider.id),
        End(&provider.host)
    )
}

/// An error for a client that nobody vouches for: where the browser would go with it, and a link for whoever wants that.
pub(super) fn error_for_client(asked: &RequestShown, error: (&str, &str), location: &str) -> Response {
    let mut body = String::from("<h1>This application asked for something that is not possible</h1><dl>");
    // Writing to a string does not fail.
    let _ = write_error_for_client(&mut body, asked, error, location);
    page(StatusCode::BAD_REQUEST, "This did not work", &body)
}

fn write_error_for_client(
    out: &mut String,
    asked: &RequestShown,
    (code, words): (&str, &str),
    location: &str,
) -> fmt::Result {
    // MCP-SEC-020, OAUTH21-7.12.2-1
    write_client_shown(out, &asked.client, (&asked.redirect_host, asked.redirect_is_loopback))?;
    write!(
        out,
        "<dt>What is wrong</dt><dd>{}<br><code>{}</code></dd></dl>\
         <p>Nothing was allowed. You can close this page, or tell the application, if you know it:</p>\
         <p><a href=\"{}\" rel=\"noreferrer\">go to {}</a></p>",
        HtmlText(words),
        HtmlText(code),
        Exact(location),
        End(&asked.redirect_host)
    )
}

/// Why a sign-in elsewhere came to nothing, and a way to try again where the request is still known.
pub(super) fn sign_in_failed(
    base: &str,
    fault: &SignInFault,
    provider: &ProviderShown,
    again: Option<(&str, &str)>,
) -> Response {
    let mut body = String::new();
    // Writing to a string does not fail.
    let _ = write_failure(&mut body, base, fault, provider, again);
    page(fault.status, "Signing in did not work", &body)
}

fn write_failure(
    out: &mut String,
    base: &str,
    fault: &SignInFault,
    provider: &ProviderShown,
    again: Option<(&str, &str)>,
) -> fmt::Result {
    let (host, reason) = (End(&provider.host), Exact(&fault.reason));
    write!(out, "<h1>Signing in at {host} did not work</h1><p>Reason: {reason}.</p>")?;
    if let Some(account) = &fault.account {
        write!(out, "<p>The account is known there as <code>{}</code>.</p>", End(account))?;
    }
    write!(out, "<p>{}</p>", fault.advice)?;
    match again {
        Some(place) => write_provider(out, base, provider, place, "Try again at"),
        None => write!(out, "<p>Start again from the application.</p>"),
    }
}

/// The person is signed in, and what they came for is not known any more.
pub(super) fn signed_in() -> Response {
    let body = "<h1>You are signed in</h1><p>Start again from the application; it asks you at once.</p>";
    page(StatusCode::OK, "You are signed in", body)
}

/// The button for whoever is signed in, and should not be.
fn write_sign_out(out: &mut String, base: &str, token: &str) -> fmt::Result {
    write!(
        out,
        "<form method=\"post\" action=\"{}/sign-out\"><input type=\"hidden\" name=\"csrf\" value=\"{}\">\
         <p class=\"note\">Somebody else, or done here?</p><div class=\"buttons\"><button>Sign out</button></div></form>",
        Exact(base),
        Exact(token)
    )
}

/// Nobody is signed in in this browser any longer.
pub(super) fn signed_out(base: &str) -> Response {
    let body = format!(
        "<h1>You are signed out</h1><p>An application that asks has you sign in again. What you allowed stays: \
         <a href=\"{}/grants\">sign in to see it and to end it</a>.</p>",
        Exact(base)
    );
    page(StatusCode::OK, "You are signed out", &body)
}

/// What the person has allowed and wanted remembered, with a button for each application.
pub(super) fn grants(
    base: &str,
    (subject, name): (&str, Option<&str>),
    allowed: &Allowed,
    (token, leave): (&str, &str),
) -> Response {
    let person = SignedInAs(subject, name);
    let mut body = format!("<h1>What you have allowed</h1><p>You are signed in as {person}.</p>");
    // Writing to a string does not fail.
    let _ = write_allowed(&mut body, base, allowed, token);
    let _ = write_sign_out(&mut body, base, leave);
    page(StatusCode::OK, "What you have allowed", &body)
}

fn write_allowed(out: &mut String, base: &str, allowed: &Allowed, token: &str) -> fmt::Result {
    let mut by_client: BTreeMap<&str, (Vec<&GrantRecord>, Vec<&ConsentRecord>)> = BTreeMap::new();
    for grant in &allowed.grants {
        by_client.entry(grant.client_id.as_str()).or_default().0.push(grant);
    }
    for consent in &allowed.remembered {
        by_client.entry(consent.client_id.as_str()).or_default().1.push(consent);
    }
    if by_client.is_empty() {
        let none = if allowed.is_later { "Nothing more." } else { "No application may act for you." };
        write!(out, "<p>{none}</p>")?;
    }
    for (client, (grants, remembered)) in by_client {
        write_client(out, base, client, (&grants, &remembered), token)?;
    }
    for (words, query) in &allowed.more {
        write!(out, "<p><a href=\"{}/grants?{}\">{words}</a></p>", Exact(base), Exact(query))?;
    }
    Ok(())
}

fn write_client(
    out: &mut String,
    base: &str,
    client: &str,
    (grants, remembered): (&[&GrantRecord], &[&ConsentRecord]),
    token: &str,
) -> fmt::Result {
    write!(out, "<dl><dt>Application</dt><dd><code>{}</code></dd>", End(client))?;
    let may = grants.iter().map(|grant| ("It may reach", &grant.resource, &grant.scope, grant.not_after));
    let asked = remembered
        .iter()
        .map(|consent| ("You are not asked about", &consent.resource, &consent.scope, consent.not_after));
    for (words, resource, scope, not_after) in may.chain(asked) {
        write!(
            out,
            "<dt>{words}</dt><dd>{}<br><code>{}</code><br><span class=\"note\">until {} at the latest</span></dd>",
            End(resource.as_str()),
            HtmlText(&scope.to_string()),
            not_after.date()
        )?;
    }
    write!(
        out,
        "<dt></dt><dd><form method=\"post\" action=\"{}/grants\">\
         <input type=\"hidden\" name=\"csrf\" value=\"{}\"><input type=\"hidden\" name=\"client\" value=\"{}\">\
         <div class=\"buttons\"><button>End it</button></div>\
         <span class=\"note\">Ends all that this application may do for you; it has to ask again.</span></form></dd></dl>",
        Exact(base),
        Exact(token),
        Exact(client)
    )
}

/// A refusal that the person sees instead of the client.
pub(super) fn refusal(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut page = said(status, &refusal.reason().to_string());
    let later = refusal.respond().header("retry-after").map(HeaderValue::try_from);
    if let Some(Ok(later)) = later {
        page.headers_mut().insert(RETRY_AFTER, later);
    }
    page
}

/// A form that is not, or no longer, of this browser.
pub(super) fn expired() -> Response {
    said(
        StatusCode::FORBIDDEN,
        "this page has expired or was opened elsewhere; start again from the application",
    )
}

fn said(status: StatusCode, words: &str) -> Response {
    let body = format!("<h1>This did not work</h1><p>Reason: {}.</p>", Exact(words));
    page(status, "This did not work", &body)
}

fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let mut nonce = [0_u8; 16];
    if getrandom::fill(&mut nonce).is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let nonce = base64url::encode(&nonce);
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{}</title>\
         <style nonce=\"{nonce}\">{STYLE}</style></head><body><main>{body}</main></body></html>",
        HtmlText(title)
    );
    // MCP-SBP-006, OAUTH21-7.10-1, D44, I-R8: nothing loads, nothing runs, nothing frames it.
    let policy =
        format!("default-src 'none'; style-src 'nonce-{nonce}'; frame-ancestors 'none'; base-uri 'none'");
    let Ok(policy) = HeaderValue::try_from(policy) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (X_FRAME_OPTIONS, "DENY"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: with it a browser sends `Origin: null` with the form, and the check of the origin is lost.
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The end of a host or URL: of a long one the end says whose it is, and a beginning can be made to look like another.
struct End<'a>(&'a str);

impl fmt::Display for End<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.0.graphemes(true).count();
        let Some(hidden) = length.checked_sub(SHOWN_GRAPHEMES).filter(|hidden| *hidden > 0) else {
            return HtmlText(self.0).fmt(f);
        };
        f.write_str("…")?;
        HtmlText(&self.0.graphemes(true).skip(hidden).collect::<String>()).fmt(f)
    }
}

/// A value of this server's own, or of a grammar without control characters, in full: for attributes that come back.
struct Exact<'a>(&'a str);

impl fmt::Display for Exact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
