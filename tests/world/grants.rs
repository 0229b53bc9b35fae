//! A small world at the token endpoint: one server, a few clients, and a person's approval as a stored code.

use std::collections::BTreeMap;

use mcp_authz::authorization_server::grace::RefreshGrace;
use mcp_authz::authorization_server::record::{
    ClientCredential, ClientRecord, CodeRecord, FamilyId, SecretMethod,
};
use mcp_authz::authorization_server::{AuthorizationServer, Configuration, KnownResource, Lifetimes};
use mcp_authz::identifier::{ClientId, Issuer, RedirectUri, ResourceId, Scope, ScopeSet};
use mcp_authz::jose::{Algorithm, SigningKeyId};
use mcp_authz::message::client_metadata::ClientMetadata;
use mcp_authz::message::exchange::RequestHead;
use mcp_authz::message::jwt_claims::AccessTokenClaims;
use mcp_authz::message::token::{TokenReply, TokenResponse};
use mcp_authz::pkce::CodeChallenge;
use mcp_authz::secret::{ClientSecret, CodeVerifier, SecretDigest};
use mcp_authz::syntax::json::JsonObject;
use mcp_authz::syntax::{base64url, basic, form};
use mcp_authz::time::{Duration, OffsetDateTime};

use crate::store::Store;
use crate::token_host::{Answer, Flow, Seeded};

pub(crate) const RESOURCE: &str = "https://mcp.example/notes";
pub(crate) const REDIRECT: &str = "http://127.0.0.1:4711/callback";
pub(crate) const CODE: &str = "the-code-that-the-person-approved";
pub(crate) const VERIFIER: &str = "verifier-verifier-verifier-verifier-verifier";
pub(crate) const SECRET: &str = "a secret: with % + and colon";
/// Public, with refresh tokens: the client of the code.
pub(crate) const APP: &str = "app";
/// Public, with refresh tokens: somebody else's.
pub(crate) const OTHER: &str = "other-app";
/// Confidential, with refresh tokens.
pub(crate) const WEB: &str = "web app:1";
/// Public, without the refresh grant.
pub(crate) const SHORT: &str = "short-lived";
/// Registered for refresh only.
pub(crate) const NO_CODES: &str = "no-codes";

/// A server, its store, and the random numbers of a run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) server: AuthorizationServer,
    pub(crate) store: Store,
    pub(crate) entropy: Seeded,
}

pub(crate) fn start() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

/// The notes, with these scopes, and something else.
fn resources(scopes: &[&str]) -> [KnownResource; 2] {
    let words = |scope: &&str| (Scope::new(*scope).unwrap(), format!("May {scope}"));
    let other = ResourceId::new("https://mcp.example/other").unwrap();
    [
        KnownResource::new(ResourceId::new(RESOURCE).unwrap(), scopes.iter().map(words)),
        KnownResource::new(other, [words(&"read")]),
    ]
}

fn configuration(resources: [KnownResource; 2]) -> Configuration {
    let key = SigningKeyId::new("key-1", Algorithm::EdDsa);
    Configuration::new(Issuer::new("https://as.example").unwrap(), resources.into(), key)
}

pub(crate) fn server_with(scopes: &[&str], lifetimes: Lifetimes) -> AuthorizationServer {
    AuthorizationServer::new(configuration(resources(scopes)).lifetimes(lifetimes)).unwrap()
}

/// A server that repeats lost answers.
pub(crate) fn with_grace(grace: RefreshGrace) -> AuthorizationServer {
    let configuration = configuration(resources(&["read", "write", "admin"])).refresh_grace(grace);
    AuthorizationServer::new(configuration).unwrap()
}

/// A server whose resource servers introspect, with opaque tokens for the notes or signed ones.
pub(crate) fn opaque_server(opaque: bool, notes_rs: &str, other_rs: &str) -> AuthorizationServer {
    let [notes, other] = resources(&["read", "write", "admin"]);
    let id = |id| ClientId::new(id).unwrap();
    let notes = if opaque { notes.opaque_tokens(id(notes_rs)) } else { notes.introspected_by(id(notes_rs)) };
    AuthorizationServer::new(configuration([notes, other.introspected_by(id(other_rs))])).unwrap()
}

pub(crate) fn client(id: &str, grant_types: &[&str], credential: ClientCredential) -> ClientRecord {
    let metadata = ClientMetadata {
        redirect_uris: vec![RedirectUri::new(REDIRECT).unwrap()],
        grant_types: Some(grant_types.iter().map(|&name| name.to_owned()).collect()),
        ..ClientMetadata::default()
    };
    ClientRecord::pre_registered(ClientId::new(id).unwrap(), metadata, credential, start()).unwrap()
}

pub(crate) fn secret(expires: Option<OffsetDateTime>) -> ClientCredential {
    let digest = ClientSecret::new(SECRET).unwrap().digest();
    ClientCredential::Secret { method: SecretMethod::Basic, digest, expires }
}

/// What the person approved: `read write` of the notes, for a week, a minute to redeem the code.
pub(crate) fn approval(client: &str) -> CodeRecord {
    let challenge = CodeChallenge::of(&CodeVerifier::new(VERIFIER).unwrap()).to_text();
    let (expires, not_after) = (start() + Duration::MINUTE, start() + Duration::WEEK);
    let family = base64url::encode(&[9; 16]);
    let json = format!(
        r#"{{"kind":"code","version":1,"family":"{family}","client_id":"{client}",
        "subject":"ann","resource":"{RESOURCE}","scope":"read write","epochs":"0 0 0","authenticated":{},"not_after":{},
        "challenge":"{challenge}","redirect_uri":"{REDIRECT}","refresh":true,"expires":{}}}"#,
        start().unix_timestamp(),
        not_after.unix_timestamp(),
        expires.unix_timestamp(),
    );
    CodeRecord::from_bytes(json.as_bytes()).unwrap()
}

pub(crate) fn family() -> FamilyId {
    FamilyId::from_bytes([9; 16])
}

impl World {
    /// Everybody is registered, and `client` has a code.
    pub(crate) fn with_code_for(client_id: &str) -> Self {
        Self::with_code(approval(client_id))
    }

    pub(crate) fn with_code(record: CodeRecord) -> Self {
        let mut store = Store::new(start());
        let both = ["authorization_code", "refresh_token"];
        store.put_client(client(APP, &both, ClientCredential::None));
        store.put_client(client(OTHER, &both, ClientCredential::None));
        store.put_client(client(WEB, &both, secret(None)));
        store.put_client(client(SHORT, &["authorization_code"], ClientCredential::None));
        store.put_client(client(NO_CODES, &["refresh_token"], ClientCredential::None));
        store.put_code(SecretDigest::of(CODE.as_bytes()), record);
        let server = server_with(&["read", "write", "admin"], Lifetimes::default());
        Self { server, store, entropy: Seeded(1) }
    }

    /// Sends a request to the token endpoint and carries everything out.
    pub(crate) fn send(&mut self, request: &Request) -> Answer {
        request.begin(&self.server).finish(&mut self.store, &mut self.entropy)
    }

    /// Sends a request to the revocation endpoint and carries everything out.
    pub(crate) fn send_revocation(&mut self, request: &Request) -> Answer {
        request.begin_revocation(&self.server).finish(&mut self.store, &mut self.entropy)
    }

    /// Redeems the code and gives the tokens.
    pub(crate) fn redeem(&mut self) -> TokenResponse {
        tokens(&self.send(&Request::code(APP)))
    }

    /// Redeems the code and gives the refresh token.
    pub(crate) fn refresh_token(&mut self) -> String {
        self.redeem().refresh_token.unwrap().expose().to_owned()
    }
}

/// A request as a client would send it, open to change.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) fields: Vec<(&'static str, Vec<u8>)>,
    pub(crate) target: &'static str,
    pub(crate) form: BTreeMap<&'static str, String>,
}

impl Request {
    pub(crate) fn new(form: &[(&'static str, &str)]) -> Self {
        let content_type = b"application/x-www-form-urlencoded".to_vec();
        Self {
            fields: vec![("content-type", content_type)],
            target: "/token",
            form: form.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        }
    }

    /// The code's owner asks for its tokens.
    pub(crate) fn code(client: &str) -> Self {
        Self::new(&[
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("code", CODE),
            ("code_verifier", VERIFIER),
            ("redirect_uri", REDIRECT),
            ("resource", RESOURCE),
        ])
    }

    pub(crate) fn refresh(client: &str, token: &str) -> Self {
        Self::new(&[("grant_type", "refresh_token"), ("client_id", client), ("refresh_token", token)])
    }

    pub(crate) fn revocation(client: &str, token: &str) -> Self {
        Self::new(&[("token", token), ("client_id", client)])
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.form.insert(name, value.to_owned());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.form.remove(name);
        self
    }

    pub(crate) fn with_basic(mut self, client: &str, secret: &str) -> Self {
        let value = basic::encode(client, &ClientSecret::new(secret).unwrap());
        self.fields.push(("authorization", value.as_bytes().to_vec()));
        self
    }

    pub(crate) fn head(&self) -> RequestHead {
        let head = RequestHead::new("POST", self.target);
        self.fields.iter().fold(head, |head, (name, value)| head.with_header(name, value))
    }

    pub(crate) fn body(&self) -> String {
        form::encode(self.form.iter().map(|(name, value)| (*name, value.as_str())))
    }

    pub(crate) fn begin(&self, server: &AuthorizationServer) -> Flow {
        Flow::token(server, &self.head(), self.body().as_bytes())
    }

    pub(crate) fn begin_revocation(&self, server: &AuthorizationServer) -> Flow {
        Flow::revocation(server, &self.head(), self.body().as_bytes())
    }
}

/// The tokens of an answer that must have them.
pub(crate) fn tokens(answer: &Answer) -> TokenResponse {
    assert!(answer.is_success(), "{:?}", answer.reason);
    match TokenReply::parse(200, answer.respond.body()).unwrap() {
        TokenReply::Tokens(tokens) => tokens,
        TokenReply::Error(error) => panic!("{error:?}"),
    }
}

/// Header and claims of an access token.
pub(crate) fn opened(tokens: &TokenResponse) -> (JsonObject, AccessTokenClaims) {
    let mut parts = tokens.access_token.expose().split('.');
    let mut part = || base64url::decode(parts.next().unwrap()).unwrap();
    let header = JsonObject::parse(&part(), 10_000).unwrap();
    (header, AccessTokenClaims::parse(&part()).unwrap())
}

pub(crate) fn scope(text: &str) -> ScopeSet {
    ScopeSet::parse(text).unwrap()
}
