//! The built-in user agent: it fills the pages of the authorization server in over HTTP, as a person would with a
//! browser, and plays the attacker's part where an attack needs the browser.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use mcp_authz::client::OpenUserAgent;
use mcp_authz::syntax::form::{self, Form};
use mcp_authz_tokio::BoxFuture;
use mcp_authz_tokio::client::browser::BrowserFailed;
use mcp_authz_tokio::client::user_agent::{SystemBrowser, UserAgent};
use reqwest::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use tokio::sync::mpsc;

use super::event::Event;
use super::sink::Recorder;

/// Pages a person goes through at most, from the authorization URL to the callback.
const PAGES: usize = 6;

/// What the built-in user agent does to a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// What a person does: sign in, allow, go back to the client.
    Honest,
    /// Delivers the callback with this issuer in place of the real one, the first time.
    MixedUp(&'static str),
    /// Asks with a redirect URI that differs in its last byte, the first time, before asking with the real one.
    OtherRedirect,
}

/// What became of the attacker's part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    /// The status.
    pub(super) status: u16,
    /// Whether the browser was sent on.
    pub(super) redirected: bool,
}

/// The built-in user agent.
#[derive(Clone)]
pub(super) struct BuiltIn(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    recorder: Recorder,
    cookies: Mutex<Vec<(String, String)>>,
    part: Mutex<Part>,
    attack: mpsc::UnboundedSender<Answered>,
}

impl fmt::Debug for BuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BuiltIn")
    }
}

/// Why the pages led nowhere.
#[derive(Debug)]
pub(super) enum Lost {
    Http(reqwest::Error),
    Page(&'static str),
}

impl From<reqwest::Error> for Lost {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(error) if error.is_connect() => f.write_str("a page could not be reached"),
            Self::Http(_) => f.write_str("a page could not be read"),
            Self::Page(why) => f.write_str(why),
        }
    }
}

/// A page, or where the browser is sent.
enum Shown {
    Page(String),
    Sent(String),
}

impl BuiltIn {
    /// A user agent with no cookies; the receiver hears what the server answered the attacker.
    pub(super) fn new(
        http: reqwest::Client,
        recorder: Recorder,
        part: Part,
    ) -> (Self, mpsc::UnboundedReceiver<Answered>) {
        let (attack, answers) = mpsc::unbounded_channel();
        let (cookies, part) = (Mutex::default(), Mutex::new(part));
        (Self(Arc::new(Inner { http, recorder, cookies, part, attack })), answers)
    }

    async fn visit(&self, url: String) -> Result<(), Lost> {
        let part = {
            let mut part = self.0.part.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *part, Part::Honest)
        };
        if part == Part::OtherRedirect {
            let changed = with_parameter(&url, "redirect_uri", |uri| {
                let mut uri = uri.to_owned();
                uri.pop();
                uri + "j"
            })
            .ok_or(Lost::Page("the authorization URL has no redirect URI"))?;
            self.attack(&changed).await?;
        }
        let callback = self.consent(url).await?;
        let callback = match part {
            Part::MixedUp(issuer) => {
                self.0.recorder.hostile(true);
                with_parameter(&callback, "iss", |_| issuer.to_owned())
                    .ok_or(Lost::Page("the callback names no issuer"))?
            }
            _ => callback,
        };
        self.0.recorder.fold(false);
        let reply = self.0.http.get(callback).send().await?;
        if matches!(part, Part::MixedUp(_)) {
            self.0.recorder.hostile(false);
            let redirected = reply.headers().contains_key(LOCATION);
            // The receiver is gone only when nobody asks any more.
            let _ = self.0.attack.send(Answered { status: reply.status().as_u16(), redirected });
        }
        Ok(())
    }

    async fn attack(&self, url: &str) -> Result<(), Lost> {
        self.0.recorder.fold(false);
        self.0.recorder.hostile(true);
        let reply = self.0.http.get(url).send().await;
        self.0.recorder.hostile(false);
        let reply = reply?;
        let answered =
            Answered { status: reply.status().as_u16(), redirected: reply.headers().contains_key(LOCATION) };
        let _ = self.0.attack.send(answered);
        Ok(())
    }

    /// From the authorization URL over sign-in and consent to the URL the browser is sent back to.
    async fn consent(&self, url: String) -> Result<String, Lost> {
        let server = reqwest::Url::parse(&url).map_err(|_| Lost::Page("the URL is none"))?;
        let mut shown = self.open_page(&server, None).await?;
        for _ in 0..PAGES {
            shown = match shown {
                Shown::Sent(to) => {
                    let next = server.join(&to).map_err(|_| Lost::Page("sent to no URL"))?;
                    if next.origin() != server.origin() {
                        return Ok(to);
                    }
                    self.open_page(&next, None).await?
                }
                Shown::Page(html) => {
                    let (action, fields) = filled_in(&html).ok_or(Lost::Page("the page has no form"))?;
                    let action = server.join(&action).map_err(|_| Lost::Page("the form leads nowhere"))?;
                    if action.origin() != server.origin() {
                        return Err(Lost::Page("the form leads to another server"));
                    }
                    self.open_page(&action, Some(fields)).await?
                }
            };
        }
        Err(Lost::Page("the pages never end"))
    }

    async fn open_page(&self, url: &reqwest::Url, fields: Option<String>) -> Result<Shown, Lost> {
        let http = &self.0.http;
        let mut request = match fields {
            None => http.get(url.clone()),
            Some(body) => {
                http.post(url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
            }
        };
        let cookies = self.cookies();
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies);
        }
        let reply = request.send().await?;
        for cookie in reply.headers().get_all(SET_COOKIE) {
            let pair = cookie.to_str().ok().and_then(|cookie| cookie.split(';').next()?.split_once('='));
            if let Some((name, value)) = pair {
                let mut kept = self.0.cookies.lock().unwrap_or_else(PoisonError::into_inner);
                kept.retain(|(other, _)| other != name);
                kept.push((name.to_owned(), value.to_owned()));
            }
        }
        if let Some(to) = reply.headers().get(LOCATION) {
            let to = to.to_str().map_err(|_| Lost::Page("sent to no URL"))?;
            return Ok(Shown::Sent(to.to_owned()));
        }
        if !reply.status().is_success() {
            return Err(Lost::Page("the server shows an error page"));
        }
        Ok(Shown::Page(reply.text().await?))
    }

    fn cookies(&self) -> String {
        let kept = self.0.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }
}

impl UserAgent for BuiltIn {
    fn open<'a>(&'a self, action: &'a OpenUserAgent) -> BoxFuture<'a, Result<(), BrowserFailed>> {
        let (agent, url) = (self.clone(), action.url().to_owned());
        tokio::spawn(async move {
            if let Err(lost) = agent.visit(url).await {
                agent.0.recorder.hostile(false);
                agent.0.recorder.record(Event::Difference { what: format!("in the browser: {lost}") });
            }
        });
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The person's own browser, and the built-in one where there is none.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) built_in: BuiltIn,
    /// Why the built-in one takes over, when it does so from the start.
    pub(super) instead: Option<&'static str>,
    /// Whether to try the person's own browser at all.
    pub(super) own: bool,
}

impl UserAgent for Person {
    fn open<'a>(&'a self, action: &'a OpenUserAgent) -> BoxFuture<'a, Result<(), BrowserFailed>> {
        Box::pin(async move {
            let mut instead = self.instead;
            if self.own {
                match SystemBrowser.open(action).await {
                    Ok(()) => {
                        let text = "Your browser shows the page of the authorization server: sign in and allow access \
                                    there."
                            .to_owned();
                        self.built_in.0.recorder.record(Event::Note { text });
                        return Ok(());
                    }
                    Err(BrowserFailed) => instead = Some("No browser could be started"),
                }
            }
            if let Some(why) = instead {
                let url = redacted(action);
                let text = format!("{why}: the built-in user agent goes to {url}");
                self.built_in.0.recorder.record(Event::Note { text });
            }
            self.built_in.open(action).await
        })
    }
}

/// The authorization URL in parts, without the values that are one-time or random.
fn redacted(action: &OpenUserAgent) -> String {
    let names = parameters(action.url()).unwrap_or_default();
    let shown = names.iter().map(|(name, value)| match name.as_str() {
        "state" | "code_challenge" | "client_id" => format!("{name}=…"),
        _ => format!("{name}={value}"),
    });
    format!("{} with {}", action.endpoint(), shown.collect::<Vec<_>>().join(" "))
}

fn parameters(url: &str) -> Option<Vec<(String, String)>> {
    let (_, query) = url.split_once('?')?;
    let form = Form::parse(query.as_bytes()).ok()?;
    // The order of the names is the form's, not the URL's; servers do not care.
    Some(form.names().map(|name| (name.to_owned(), form.get(name).unwrap_or_default().to_owned())).collect())
}

/// The URL with one parameter changed.
fn with_parameter(url: &str, name: &str, change: impl FnOnce(&str) -> String) -> Option<String> {
    let (base, _) = url.split_once('?')?;
    let mut pairs = parameters(url)?;
    let (_, value) = pairs.iter_mut().find(|(other, _)| other == name)?;
    *value = change(value);
    let query = form::encode(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    Some(format!("{base}?{query}"))
}

/// Where the first form of a page leads and what it holds when a person presses its main button: hidden fields,
/// ticked boxes, the last button.
fn filled_in(html: &str) -> Option<(String, String)> {
    let (_, form) = html.split_once("<form ")?;
    let (form, _) = form.split_once("</form>")?;
    let action = attribute(form.split_once('>')?.0, "action")?;
    let mut fields: Vec<(String, String)> = Vec::new();
    for tag in form.split('<').filter(|tag| tag.starts_with("input ")) {
        let tag = tag.split('>').next().unwrap_or_default();
        if let Some(name) = attribute(tag, "name") {
            fields.push((name, attribute(tag, "value").unwrap_or_default()));
        }
    }
    let button = form.split('<').rfind(|tag| tag.starts_with("button"));
    let button = button.and_then(|tag| tag.split('>').next()).unwrap_or_default();
    if let Some(name) = attribute(button, "name") {
        fields.push((name, attribute(button, "value").unwrap_or_default()));
    }
    Some((action, form::encode(fields.iter().map(|(name, value)| (name.as_str(), value.as_str())))))
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!("{name}=\""))?;
    let (value, _) = rest.split_once('"')?;
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    Some(plain.iter().fold(value.to_owned(), |text, (from, to)| text.replace(from, to)))
}

#[cfg(test)]
mod tests {
    use super::{filled_in, with_parameter};

    #[test]
    fn a_form_is_filled_in_as_its_main_button_sends_it() {
        let page = "<p><form method=\"post\" action=\"/decision\"><input type=\"hidden\" name=\"csrf\" \
                    value=\"a&amp;b\"><input type=\"checkbox\" name=\"scope.x\" value=\"on\" checked>\
                    <button name=\"decision\" value=\"deny\">No</button>\
                    <button class=\"main\" name=\"decision\" value=\"approve\">Yes</button></form>";
        let (action, fields) = filled_in(page).unwrap();
        assert_eq!(action, "/decision");
        assert_eq!(fields, "csrf=a%26b&scope.x=on&decision=approve");
        assert!(filled_in("<p>no form</p>").is_none());
    }

    #[test]
    fn one_parameter_is_changed_and_no_other() {
        let changed = with_parameter("http://h/cb?code=c&iss=http%3A%2F%2Fa", "iss", |_| "b".to_owned());
        let changed = changed.unwrap();
        assert!(changed.contains("iss=b") && changed.contains("code=c") && !changed.contains("%2F"));
        assert!(with_parameter("http://h/cb?code=c", "iss", |_| String::new()).is_none());
    }
}
