//! What several tests need: an authorization server of ours on a free loopback port, and a person who allows everything.

use std::sync::Arc;

use axum::http::header::{COOKIE, LOCATION, SET_COOKIE};
use mcp_authz::authorization_server::{
    AuthorizationServer, Configuration, KnownResource, RegistrationPolicy,
};
use mcp_authz::client::OpenUserAgent;
use mcp_authz::identifier::{Issuer, ResourceId, Scope};
use mcp_authz::jose::Algorithm;
use mcp_authz::syntax::form;
use mcp_authz_tokio::BoxFuture;
use mcp_authz_tokio::authorization_server::AuthorizationServerHost;
use mcp_authz_tokio::authorization_server::people::LocalUser;
use mcp_authz_tokio::client::browser::BrowserFailed;
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::client::user_agent::UserAgent;
use mcp_authz_tokio::keys::SigningKey;
use mcp_authz_tokio::store::memory::MemoryStore;

mod port;

pub(crate) use port::port;

/// Starts an authorization server where anybody may register, for one resource with these scopes; nobody has to sign in.
pub(crate) async fn authorization_server(resource: &str, scopes: &[&str]) -> Issuer {
    let (listener, origin) = port().await;
    let issuer = Issuer::new(origin).unwrap();
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let scopes = scopes.iter().map(|scope| (Scope::new(*scope).unwrap(), format!("Use {scope}")));
    let resource = KnownResource::new(ResourceId::new(resource).unwrap(), scopes.collect::<Vec<_>>());
    let configuration =
        Configuration::new(issuer.clone(), vec![resource], key.id()).registration(RegistrationPolicy::Open);
    let host = AuthorizationServerHost::new(
        AuthorizationServer::new(configuration).unwrap(),
        Arc::new(MemoryStore::new()),
        Arc::new(key),
        Arc::new(LocalUser::automatic("alice").unwrap()),
        Fetcher::new().unwrap(),
    );
    tokio::spawn(async move { axum::serve(listener, host.router()).await });
    issuer
}

/// A browser whose person allows everything that is asked.
#[derive(Debug, Clone)]
pub(crate) struct Allowing(reqwest::Client);

impl Allowing {
    pub(crate) fn new() -> Self {
        let redirect = reqwest::redirect::Policy::none();
        Self(reqwest::Client::builder().redirect(redirect).no_proxy().build().unwrap())
    }

    /// Goes through the consent page and back to the client.
    pub(crate) async fn visit(self, url: String) {
        let http = self.0.clone();
        let callback = self.consent(url).await;
        http.get(callback).send().await.unwrap();
    }

    /// Goes through the consent page; where the browser is sent then.
    pub(crate) async fn consent(self, url: String) -> String {
        let asked = reqwest::Url::parse(&url).unwrap();
        let page = self.0.get(asked.clone()).send().await.unwrap();
        let cookie = page.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
        let page = page.text().await.unwrap();
        let hidden = |name: &str| {
            let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
            rest.split_once('"').unwrap().0.to_owned()
        };
        let mut fields = vec![("decision".to_owned(), "approve".to_owned())];
        fields.extend(["handle", "csrf"].map(|name| (name.to_owned(), hidden(name))));
        let scopes = page.split("name=\"scope.").skip(1).map(|rest| rest.split_once('"').unwrap().0);
        fields.extend(scopes.map(|scope| (format!("scope.{scope}"), "on".to_owned())));
        let body = form::encode(fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let answer = self
            .0
            .post(asked.join("/decision").unwrap())
            .header("content-type", "application/x-www-form-urlencoded")
            .header(COOKIE, cookie)
            .body(body)
            .send()
            .await
            .unwrap();
        answer.headers()[LOCATION].to_str().unwrap().to_owned()
    }
}

impl UserAgent for Allowing {
    fn open<'a>(&'a self, action: &'a OpenUserAgent) -> BoxFuture<'a, Result<(), BrowserFailed>> {
        tokio::spawn(self.clone().visit(action.url().to_owned()));
        Box::pin(std::future::ready(Ok(())))
    }
}
