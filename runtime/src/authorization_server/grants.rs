//! The page where a person sees what they have allowed and wanted remembered, and ends it.

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::header::{LOCATION, SET_COOKIE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use mcp_authz::authorization_server::record::{ConsentRecord, FamilyId, GrantRecord};
use mcp_authz::authorization_server::store::{RevocationTarget, RevokeAll};
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::syntax::base64url;
use mcp_authz::syntax::form::Form;

use super::people::Person;
use super::person_endpoints::approval_of;
use super::{AuthorizationServerHost, pages};
use crate::store::{AdministeredStore, GrantsOf, LISTED, StoreError};

/// Where in the two lists somebody is.
enum Page {
    Grants(Option<FamilyId>),
    Remembered(SecretDigest),
}

/// What one page shows.
#[derive(Default)]
pub(super) struct Allowed {
    pub(super) grants: Vec<GrantRecord>,
    pub(super) remembered: Vec<ConsentRecord>,
    /// The query of the next page of each list, where there may be one.
    pub(super) more: Vec<(&'static str, String)>,
    /// Whether another page came before.
    pub(super) is_later: bool,
}

impl Page {
    /// The page that a query names. What names none is the first: a place in a list is nobody's secret.
    fn asked(query: &str) -> Self {
        let form = Form::parse(query.as_bytes()).ok();
        let value = |name| form.as_ref().and_then(|form| base64url::decode(form.get(name)?).ok());
        match value("remembered").and_then(|key| key.try_into().ok()) {
            Some(key) => Self::Remembered(SecretDigest::from_bytes(key)),
            None => Self::Grants(value("after").and_then(|id| id.try_into().ok()).map(FamilyId::from_bytes)),
        }
    }

    /// What that person is shown on it. The first page of what is remembered stands below the first page of grants.
    async fn read(self, store: &dyn AdministeredStore, subject: &str) -> Result<Allowed, StoreError> {
        let is_later = !matches!(self, Self::Grants(None));
        let mut shown = Allowed { is_later, ..Allowed::default() };
        let after = match self {
            Self::Grants(after) => {
                shown.grants = store.list_grants(GrantsOf::Subject(subject), after).await?;
                if let Some(last) = shown.grants.last().filter(|_| shown.grants.len() >= LISTED) {
                    shown.more.push((
                        "More grants",
                        format!("after={}", base64url::encode(last.family.as_bytes())),
                    ));
                }
                if is_later {
                    return Ok(shown);
                }
                None
            }
            Self::Remembered(after) => Some(after),
        };
        shown.remembered = store.list_consents(GrantsOf::Subject(subject), after).await?;
        if let Some(last) = shown.remembered.last().filter(|_| shown.remembered.len() >= LISTED) {
            let key = base64url::encode(last.key().as_bytes());
            shown.more.push(("More that is remembered", format!("remembered={key}")));
        }
        Ok(shown)
    }
}

impl AuthorizationServerHost {
    /// `GET /grants`: what the person has allowed.
    pub(super) async fn grants(&self, parts: Parts) -> Response {
        let Some(administered) = &self.administered else { return StatusCode::NOT_FOUND.into_response() };
        let Some(browser) = self.browsers.known_or_fresh(&parts) else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let mut answer = match self.person_in(&parts, &browser).await {
            Person::SignedIn { subject, name, .. } => {
                let page = Page::asked(parts.uri.query().unwrap_or_default());
                match page.read(administered.as_ref(), &subject).await {
                    Ok(allowed) => {
                        let token = self.forms.token(browser.agent(), &subject);
                        let leave = self.sign_out_token(&browser);
                        let person = (subject.as_str(), name.as_deref());
                        pages::grants(self.base(), person, &allowed, (&token, &leave))
                    }
                    Err(error) => {
                        self.store_failed(&error);
                        StatusCode::SERVICE_UNAVAILABLE.into_response()
                    }
                }
            }
            Person::Button { subject } => pages::sign_in(self.base(), &subject, "/grants"),
            Person::Ways(ways) => {
                let token = self.forms.token(browser.agent(), &approval_of("/grants"));
                pages::ways(self.base(), &ways, "/grants", &token, None, None)
            }
            Person::Elsewhere(response) => *response,
            Person::Unavailable => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        };
        if let Some(cookie) = browser.set_cookie() {
            answer.headers_mut().append(SET_COOKIE, cookie.clone());
        }
        answer
    }

    /// `POST /grants`: the person ends what they allowed one application. That withdraws their consent to it, so that
    /// all its grants of theirs end, and what was remembered.
    pub(super) async fn end_grants(&self, request: Request) -> Response {
        let (parts, form) = match self.own_form(request).await {
            Ok(read) => read,
            Err(answer) => return answer,
        };
        let Some(browser) = self.browsers.known(&parts) else { return pages::expired() };
        let subject = match self.sender(&parts, &browser).await {
            Ok(subject) => subject,
            Err(answer) => return answer,
        };
        // I-P9: the form was shown to this person in this browser, by this server.
        if !self.forms.is_token(browser.agent(), &subject, form.get("csrf").unwrap_or_default()) {
            return pages::expired();
        }
        let Ok(client_id) = ClientId::new(form.get("client").unwrap_or_default()) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let target = RevocationTarget::Consent { subject, client_id };
        match self.store.revoke_all(RevokeAll::of(target)).await {
            Ok(_ended) => {
                let Ok(target) = HeaderValue::try_from(format!("{}/grants", self.base())) else {
                    return pages::expired();
                };
                (StatusCode::SEE_OTHER, [(LOCATION, target)]).into_response()
            }
            Err(error) => {
                self.store_failed(&error);
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            }
        }
    }
}
