//! The person's side of the authorization server: requests as a client's link makes them, the page, the answer.

use mcp_authz::authorization_server::authorization::{
    Authorizing, ConsentView, ErrorAwaitingPerson, Redirect, RequestOutcome, RequestValidated,
};
use mcp_authz::authorization_server::decision::{AwaitingCodeStored, Decided, Deciding};
use mcp_authz::authorization_server::record::{ClientCredential, ClientRecord};
use mcp_authz::authorization_server::refusal::{Refusal, RefusalReason};
use mcp_authz::authorization_server::store::DecideOnce;
use mcp_authz::authorization_server::{
    AuthorizationServer, Configuration, KnownResource, RegistrationPolicy,
};
use mcp_authz::evidence::{Approval, Authentication};
use mcp_authz::identifier::{ClientId, Issuer, RedirectUri, ResourceId, Scope};
use mcp_authz::jose::{Algorithm, SigningKeyId};
use mcp_authz::message::client_metadata::ClientMetadata;
use mcp_authz::message::exchange::Respond;
use mcp_authz::pkce::CodeChallenge;
use mcp_authz::secret::{AgentBinding, CodeVerifier};
use mcp_authz::syntax::form::{self, Form};

use crate::grants::{RESOURCE, VERIFIER, World, scope, start};
use crate::store::Store;
use crate::token_host::Seeded;

pub(crate) const ISSUER: &str = "https://as.example/tenant";
/// A client the operator knows.
pub(crate) const PARTNER: &str = "partner";
/// Its redirect URI.
pub(crate) const CALLBACK: &str = "https://app.example/cb?tenant=a%2Fb";
pub(crate) const PERSON: &str = "ann";

/// An issuer with two resources, everybody may register, metadata documents are read.
pub(crate) fn configuration(issuer: &str) -> Configuration {
    let words = |scope: &str| (Scope::new(scope).unwrap(), format!("May {scope} your notes"));
    let resource = |id: &str| ResourceId::new(id).unwrap();
    let notes = KnownResource::new(resource(RESOURCE), [words("read"), words("write")]);
    let root = KnownResource::new(resource("https://Other.example"), [words("list")]);
    let key = SigningKeyId::new("key-1", Algorithm::EdDsa);
    Configuration::new(Issuer::new(issuer).unwrap(), vec![notes, root.default_scopes(scope("list"))], key)
        .registration(RegistrationPolicy::Open)
}

pub(crate) fn world() -> World {
    world_of(configuration(ISSUER))
}

pub(crate) fn world_of(configuration: Configuration) -> World {
    let server = AuthorizationServer::new(configuration).unwrap();
    let mut world = World { server, store: Store::new(start()), entropy: Seeded(3) };
    world.store.put_client(operators(PARTNER, &[CALLBACK]));
    world
}

/// A public client the operator wrote down.
pub(crate) fn operators(id: &str, redirect_uris: &[&str]) -> ClientRecord {
    operators_with(id, redirect_uris, |_| {})
}

pub(crate) fn operators_with(
    id: &str,
    redirect_uris: &[&str],
    change: impl FnOnce(&mut ClientMetadata),
) -> ClientRecord {
    let mut metadata = ClientMetadata {
        redirect_uris: redirect_uris.iter().map(|uri| RedirectUri::new(*uri).unwrap()).collect(),
        grant_types: Some(vec!["authorization_code".into(), "refresh_token".into()]),
        client_name: Some("Notes app".into()),
        ..ClientMetadata::default()
    };
    change(&mut metadata);
    ClientRecord::pre_registered(ClientId::new(id).unwrap(), metadata, ClientCredential::None, start())
        .unwrap()
}

pub(crate) fn challenge() -> String {
    CodeChallenge::of(&CodeVerifier::new(VERIFIER).unwrap()).to_text()
}

/// An authorization request, open to change.
#[derive(Debug, Clone)]
pub(crate) struct Ask(pub(crate) Vec<(String, String)>);

impl Ask {
    /// One with nothing wrong.
    pub(crate) fn of(client: &str, redirect_uri: &str) -> Self {
        Self(Vec::new())
            .with("response_type", "code")
            .with("client_id", client)
            .with("redirect_uri", redirect_uri)
            .with("code_challenge", &challenge())
            .with("code_challenge_method", "S256")
            .with("resource", RESOURCE)
            .with("scope", "read write")
            .with("state", "state-of-the-client")
    }

    /// The partner's.
    pub(crate) fn partner() -> Self {
        Self::of(PARTNER, CALLBACK)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.0.retain(|(known, _)| known != name);
        self
    }

    /// With the parameter once more.
    pub(crate) fn twice(mut self, name: &str) -> Self {
        let again = self.0.iter().find(|(known, _)| known == name).cloned();
        self.0.extend(again);
        self
    }

    pub(crate) fn query(&self) -> String {
        form::encode(self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }
}

/// What the checks on a request came to.
#[derive(Debug)]
pub(crate) enum Checked {
    Valid(RequestValidated),
    Error(ErrorAwaitingPerson),
    Page(Refusal),
}

impl Checked {
    pub(crate) fn valid(self) -> RequestValidated {
        match self {
            Self::Valid(request) => request,
            other => panic!("the request is not valid: {other:?}"),
        }
    }

    pub(crate) fn error(self) -> ErrorAwaitingPerson {
        match self {
            Self::Error(error) => error,
            other => panic!("the request is not answered by an error: {other:?}"),
        }
    }

    pub(crate) fn page(self) -> Refusal {
        match self {
            Self::Page(refusal) => refusal,
            other => panic!("the request is not refused on a page: {other:?}"),
        }
    }
}

impl From<RequestOutcome> for Checked {
    fn from(outcome: RequestOutcome) -> Self {
        match outcome {
            RequestOutcome::Validated(request) => Self::Valid(request),
            RequestOutcome::Error(error) => Self::Error(error),
            RequestOutcome::Refused(refusal) => Self::Page(refusal),
        }
    }
}

pub(crate) fn browser(n: u8) -> AgentBinding {
    AgentBinding::session(&[n; 16]).unwrap()
}

impl World {
    /// Sends a request to the authorization endpoint and looks the client up.
    pub(crate) fn ask(&self, ask: &Ask) -> Checked {
        self.ask_raw(&ask.query())
    }

    pub(crate) fn ask_raw(&self, query: &str) -> Checked {
        self.checked(self.server.authorize(query))
    }

    fn checked(&self, authorizing: Result<Authorizing, Refusal>) -> Checked {
        match authorizing {
            Ok(Authorizing::Find(step)) => {
                let (action, state) = step.into_parts();
                state.found(self.store.find_client(action)).into()
            }
            Ok(Authorizing::Pushed(step)) => {
                let (action, state) = step.into_parts();
                self.checked(state.found(self.store.read_pushed(action)))
            }
            Ok(Authorizing::Fetch(step)) => panic!("the client is fetched: {:?}", step.action()),
            Err(refusal) => Checked::Page(refusal),
        }
    }

    /// The person, signed in before their browser.
    pub(crate) fn person(&self) -> Authentication {
        Authentication::assertion(PERSON, browser(1), self.store.now()).unwrap()
    }

    /// Shows a request to the person.
    pub(crate) fn show(&mut self, request: RequestValidated) -> ConsentView {
        let step = request.show(&self.person(), self.store.now(), &mut self.entropy).unwrap();
        let (action, state) = step.into_parts();
        state.stored(self.store.insert_decision(action)).unwrap().into_page().unwrap()
    }

    /// The page for a request with nothing wrong.
    pub(crate) fn shown(&mut self, ask: &Ask) -> ConsentView {
        let request = self.ask(ask).valid();
        self.show(request)
    }

    /// The form came back, and the store has read what was shown.
    pub(crate) fn deciding(&self, handle: &str) -> Result<Deciding, RefusalReason> {
        let (action, state) = self.server.decide(handle).into_parts();
        state.found(self.store.read_decision(action)).map_err(|refusal| refusal.reason())
    }

    /// Presses approve, as whoever, up to the store.
    pub(crate) fn press(
        &mut self,
        view: &ConsentView,
        approval: Approval,
        csrf: &str,
    ) -> Result<(DecideOnce, AwaitingCodeStored), RefusalReason> {
        let deciding = self.deciding(&view.handle)?;
        let step = deciding.approve(approval, csrf, &mut self.entropy).map_err(|refusal| refusal.reason())?;
        Ok(step.into_parts())
    }

    /// The person approves everything on the page.
    pub(crate) fn approve(&mut self, view: &ConsentView) -> Result<Redirect, RefusalReason> {
        let all = view.scopes.iter().map(|shown| shown.scope.clone()).collect();
        let (action, state) = self.press(view, Approval::assertion(PERSON, browser(1), all), &view.csrf)?;
        self.decided(action, state)
    }

    /// The store carries the decision out.
    pub(crate) fn decided(
        &mut self,
        action: DecideOnce,
        state: AwaitingCodeStored,
    ) -> Result<Redirect, RefusalReason> {
        match state.decided(self.store.decide_once(action)).unwrap() {
            Decided::Redirect(redirect) => Ok(redirect),
            Decided::Refused(refusal) => Err(refusal.reason()),
        }
    }

    /// From a request to the code that reaches the client.
    pub(crate) fn code(&mut self, ask: &Ask) -> String {
        let view = self.shown(ask);
        let redirect = self.approve(&view).unwrap();
        answered(redirect.location()).get("code").unwrap().to_owned()
    }
}

/// The parameters of an answer: a form, so none stands twice.
pub(crate) fn answered(location: &str) -> Form {
    let (_, query) = location.split_once('?').unwrap();
    Form::parse(query.as_bytes()).unwrap()
}

/// Where an answer sends the browser.
pub(crate) fn location(respond: &Respond) -> &str {
    respond.header("location").unwrap()
}
