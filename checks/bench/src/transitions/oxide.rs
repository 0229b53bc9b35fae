//! `oxide-auth` over its maps in memory, by the functions its own endpoints are made of.
//!
//! Its pattern for a consent page is to run the authorization request a second time when the form comes back, with
//! the same query and the person's consent: [`Oxide`] does that, so that both sides take four requests. It checks no
//! browser, no form value, no `resource`, and sends no `iss`.

use std::borrow::Cow;

use oxide_auth::code_grant::accesstoken::{self, access_token};
use oxide_auth::code_grant::authorization::{self, Pending, authorization_code};
use oxide_auth::code_grant::refresh::{self, refresh};
use oxide_auth::endpoint::{Authorizer, Issuer, NormalizedParameter, QueryParameter as _, Registrar};
use oxide_auth::frontends::simple::extensions::{AddonList, Pkce};
use oxide_auth::primitives::authorizer::AuthMap;
use oxide_auth::primitives::generator::RandomGenerator;
use oxide_auth::primitives::issuer::TokenMap;
use oxide_auth::primitives::registrar::{Client, ClientMap, ExactUrl, RegisteredUrl};

use super::{CLIENT, PERSON, QUERY, REDIRECT_URI, SCOPES, Server};

/// Random bytes of a code or token: as many as ours have.
const RANDOM_BYTES: usize = 32;

/// A server with one public client.
pub struct Oxide {
    parts: Parts,
    /// Whether the authorization request is checked again with the person's answer.
    again: bool,
}

struct Parts {
    registrar: ClientMap,
    authorizer: AuthMap<RandomGenerator>,
    issuer: TokenMap<RandomGenerator>,
    addons: AddonList,
}

impl Oxide {
    /// A server that has granted nothing yet. With `again`, the consent page's form is a request of its own, as in
    /// its examples; without, the person is asked inside of the first one.
    pub fn new(again: bool) -> Self {
        let mut registrar = ClientMap::new();
        let redirect_uri = RegisteredUrl::from(ExactUrl::new(REDIRECT_URI.to_owned()).unwrap());
        registrar.register_client(Client::public(CLIENT, redirect_uri, SCOPES.parse().unwrap()));
        let mut addons = AddonList::new();
        addons.push_code(Pkce::required());
        let parts = Parts {
            registrar,
            authorizer: AuthMap::new(RandomGenerator::new(RANDOM_BYTES)),
            issuer: TokenMap::new(RandomGenerator::new(RANDOM_BYTES)),
            addons,
        };
        Self { parts, again }
    }
}

impl Server for Oxide {
    type Page = Option<Pending>;

    fn authorize(&mut self, query: &str) -> Option<Pending> {
        let pending = authorization_code(&mut self.parts, &Request::parse(query));
        let Ok(pending) = pending else { panic!("the request is good") };
        // What the page shows.
        let shown = pending.pre_grant();
        assert!(shown.client_id == CLIENT && !shown.scope.to_string().is_empty());
        (!self.again).then_some(pending)
    }

    fn approve(&mut self, page: Option<Pending>) -> String {
        let pending =
            page.unwrap_or_else(|| match authorization_code(&mut self.parts, &Request::parse(QUERY)) {
                Ok(pending) => pending,
                Err(_) => panic!("the request is good"),
            });
        match pending.authorize(&mut self.parts, Cow::Borrowed(PERSON)) {
            Ok(url) => url.into(),
            Err(_) => panic!("the person may approve"),
        }
    }

    fn redeem(&mut self, body: &str) -> String {
        match access_token(&mut self.parts, &Request::parse(body)) {
            Ok(answer) => answer.to_json(),
            Err(_) => panic!("the code is good"),
        }
    }

    fn refresh(&mut self, body: &str) -> String {
        match refresh(&mut self.parts, &Request::parse(body)) {
            Ok(answer) => answer.to_json(),
            Err(_) => panic!("the refresh token is good"),
        }
    }
}

/// Parameters, read as its own frontends read them.
struct Request(NormalizedParameter);

impl Request {
    fn parse(text: &str) -> Self {
        Self(serde_urlencoded::from_str(text).unwrap())
    }

    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.0.unique_value(name)
    }
}

impl authorization::Request for Request {
    fn valid(&self) -> bool {
        true
    }

    fn client_id(&self) -> Option<Cow<'_, str>> {
        self.get("client_id")
    }

    fn scope(&self) -> Option<Cow<'_, str>> {
        self.get("scope")
    }

    fn redirect_uri(&self) -> Option<Cow<'_, str>> {
        self.get("redirect_uri")
    }

    fn state(&self) -> Option<Cow<'_, str>> {
        self.get("state")
    }

    fn response_type(&self) -> Option<Cow<'_, str>> {
        self.get("response_type")
    }

    fn extension(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get(key)
    }
}

impl accesstoken::Request for Request {
    fn valid(&self) -> bool {
        true
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        self.get("code")
    }

    fn authorization(&self) -> accesstoken::Authorization<'_> {
        accesstoken::Authorization::None
    }

    fn client_id(&self) -> Option<Cow<'_, str>> {
        self.get("client_id")
    }

    fn redirect_uri(&self) -> Option<Cow<'_, str>> {
        self.get("redirect_uri")
    }

    fn grant_type(&self) -> Option<Cow<'_, str>> {
        self.get("grant_type")
    }

    fn extension(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get(key)
    }
}

impl refresh::Request for Request {
    fn valid(&self) -> bool {
        true
    }

    fn refresh_token(&self) -> Option<Cow<'_, str>> {
        self.get("refresh_token")
    }

    fn scope(&self) -> Option<Cow<'_, str>> {
        self.get("scope")
    }

    fn grant_type(&self) -> Option<Cow<'_, str>> {
        self.get("grant_type")
    }

    fn authorization(&self) -> Option<(Cow<'_, str>, Cow<'_, [u8]>)> {
        None
    }

    fn extension(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get(key)
    }
}

impl authorization::Endpoint for Parts {
    fn registrar(&self) -> &dyn Registrar {
        &self.registrar
    }

    fn authorizer(&mut self) -> &mut dyn Authorizer {
        &mut self.authorizer
    }

    fn extension(&mut self) -> &mut dyn authorization::Extension {
        &mut self.addons
    }
}

impl accesstoken::Endpoint for Parts {
    fn registrar(&self) -> &dyn Registrar {
        &self.registrar
    }

    fn authorizer(&mut self) -> &mut dyn Authorizer {
        &mut self.authorizer
    }

    fn issuer(&mut self) -> &mut dyn Issuer {
        &mut self.issuer
    }

    fn extension(&mut self) -> &mut dyn accesstoken::Extension {
        &mut self.addons
    }
}

impl refresh::Endpoint for Parts {
    fn registrar(&self) -> &dyn Registrar {
        &self.registrar
    }

    fn issuer(&mut self) -> &mut dyn Issuer {
        &mut self.issuer
    }
}
