//! A small OpenID Provider on loopback, for tests: it signs everybody in without a question, and lies as it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::{hmac, signature::Ed25519KeyPair};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use mcp_authz::jose::{Algorithm, JwkSet, PublicKey, signing_input};
use mcp_authz::pkce::CodeChallenge;
use mcp_authz::secret::CodeVerifier;
use mcp_authz::syntax::base64url;
use mcp_authz::syntax::form::{self, Form};
use mcp_authz_tokio::clock::{Clock as _, SystemClock};
use mcp_authz_tokio::keys::SigningKey;
use serde_json::{Value, json};

pub(crate) const CLIENT: &str = "our server";
pub(crate) const SECRET: &str = "a secret: of ours";
/// In every token that must not be seen again.
pub(crate) const CANARY: &str = "upstream-canary";

/// What the provider does that it must not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Lie {
    /// Nothing.
    None,
    /// One claim of the ID token is another, or is left out (`null`).
    Claim(&'static str, Value),
    /// `alg` is `none`, without and with a signature.
    Unsigned,
    /// HMAC under the bytes of the public key.
    SharedSecret,
    /// A key of its own that it does not publish.
    OtherKey,
    /// `typ` of the header.
    Type(&'static str),
    /// `iss` of the callback is another.
    CallbackIssuer(&'static str),
    /// No `iss` in the callback, although the document announces it.
    NoCallbackIssuer,
    /// The person says no there.
    Denies,
    /// The token endpoint fails.
    Down,
    /// No ID token.
    NoIdToken,
}

/// What a code stands for.
struct Asked {
    nonce: String,
    challenge: String,
    redirect_uri: String,
}

pub(crate) struct Told {
    pub(crate) lie: Lie,
    pub(crate) subject: String,
    pub(crate) name: String,
    /// Requests of browsers, as they came.
    pub(crate) visits: Vec<String>,
    /// Token requests that were good.
    pub(crate) redeemed: usize,
    /// What is done once somebody has proved who they are, before they are sent back.
    pub(crate) proved: Option<Box<dyn FnOnce() + Send>>,
    /// What is done once a code was redeemed, before anybody hears of it.
    pub(crate) meanwhile: Option<Box<dyn FnOnce() + Send>>,
    codes: BTreeMap<String, Asked>,
}

#[derive(Clone)]
pub(crate) struct OpenIdProvider {
    pub(crate) origin: String,
    pub(crate) told: Arc<Mutex<Told>>,
    key: Arc<SigningKey>,
}

impl OpenIdProvider {
    pub(crate) async fn start() -> Self {
        let (listener, origin) = crate::support::port().await;
        let told = Told {
            lie: Lie::None,
            subject: "248289761001".to_owned(),
            name: "Ann <b>Other</b>".to_owned(),
            visits: Vec::new(),
            redeemed: 0,
            proved: None,
            meanwhile: None,
            codes: BTreeMap::new(),
        };
        let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let provider = Self { origin, told: Arc::new(Mutex::new(told)), key: Arc::new(key) };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(Self::document))
            .route("/authorize", get(Self::authorize))
            .route("/token", post(Self::token))
            .route("/jwks", get(Self::keys))
            .with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    pub(crate) fn lies(&self, lie: Lie) {
        self.told.lock().unwrap().lie = lie;
    }

    pub(crate) fn visits(&self) -> usize {
        self.told.lock().unwrap().visits.len()
    }

    async fn document(State(this): State<Self>) -> Response {
        let origin = &this.origin;
        let document = json!({
            "issuer": origin,
            "authorization_endpoint": format!("{origin}/authorize"),
            "token_endpoint": format!("{origin}/token"),
            "userinfo_endpoint": format!("{origin}/me"),
            "jwks_uri": format!("{origin}/jwks"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["EdDSA"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
        });
        ([(CONTENT_TYPE, "application/json")], document.to_string()).into_response()
    }

    async fn authorize(State(this): State<Self>, uri: Uri) -> Response {
        let query = Form::parse(uri.query().unwrap().as_bytes()).unwrap();
        let query: BTreeMap<String, String> =
            query.names().map(|name| (name.to_owned(), query.get(name).unwrap().to_owned())).collect();
        let mut told = this.told.lock().unwrap();
        told.visits.push(format!("{query:?}"));
        let scopes: Vec<&str> = query["scope"].split(' ').collect();
        assert!(scopes.contains(&"openid") && query["client_id"] == CLIENT, "{query:?}");
        assert!(!query.contains_key("resource"));
        let code = format!("{CANARY}-code-{}", told.visits.len());
        let asked = Asked {
            nonce: query["nonce"].clone(),
            challenge: query["code_challenge"].clone(),
            redirect_uri: query["redirect_uri"].clone(),
        };
        told.codes.insert(code.clone(), asked);
        if let Some(proved) = told.proved.take() {
            proved();
        }
        let iss = match &told.lie {
            Lie::CallbackIssuer(other) => Some((*other).to_owned()),
            Lie::NoCallbackIssuer => None,
            _ => Some(this.origin.clone()),
        };
        let mut pairs = match told.lie {
            Lie::Denies => vec![("error", "access_denied"), ("error_description", "<b>no</b>")],
            _ => vec![("code", code.as_str())],
        };
        pairs.push(("state", &query["state"]));
        pairs.extend(iss.as_deref().map(|iss| ("iss", iss)));
        let target = format!("{}?{}", query["redirect_uri"], form::encode(pairs));
        (StatusCode::FOUND, [(LOCATION, target)]).into_response()
    }

    async fn token(State(this): State<Self>, headers: HeaderMap, body: Bytes) -> Response {
        let mut told = this.told.lock().unwrap();
        if told.lie == Lie::Down {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let form = Form::parse(&body).unwrap();
        let refused = || {
            let body = json!({ "error": "invalid_grant" }).to_string();
            (StatusCode::BAD_REQUEST, [(CONTENT_TYPE, "application/json")], body).into_response()
        };
        assert!(headers[AUTHORIZATION].to_str().unwrap().starts_with("Basic "));
        let Some(asked) = told.codes.remove(form.get("code").unwrap()) else { return refused() };
        let verifier = CodeVerifier::new(form.get("code_verifier").unwrap()).unwrap();
        if CodeChallenge::of(&verifier).to_text() != asked.challenge
            || form.get("redirect_uri") != Some(asked.redirect_uri.as_str())
        {
            return refused();
        }
        told.redeemed += 1;
        if let Some(meanwhile) = told.meanwhile.take() {
            meanwhile();
        }
        let mut answer = json!({
            "access_token": format!("{CANARY}-access"), "token_type": "Bearer", "expires_in": 3600,
            "refresh_token": format!("{CANARY}-refresh"), "scope": "openid",
        });
        if told.lie != Lie::NoIdToken {
            answer["id_token"] = this.id_token(&told, &asked.nonce).into();
        }
        ([(CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
    }

    fn id_token(&self, told: &Told, nonce: &str) -> String {
        let now = SystemClock.now().unix_timestamp();
        let mut claims = json!({
            "iss": self.origin, "sub": told.subject, "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": nonce,
            "name": told.name, "email": "ann@example.com", "email_verified": true, "canary": CANARY,
        });
        if let Lie::Claim(name, value) = &told.lie {
            match value {
                Value::Null => claims.as_object_mut().unwrap().remove(*name),
                value => claims.as_object_mut().unwrap().insert((*name).to_owned(), value.clone()),
            };
        }
        let claims = claims.to_string();
        let other = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let id = self.key.id();
        let pair = |key: &SigningKey| Ed25519KeyPair::from_pkcs8(key.to_pkcs8().unwrap().expose()).unwrap();
        let by_hand = |header: Value| {
            let header = base64url::encode(header.to_string().as_bytes());
            format!("{header}.{}", base64url::encode(claims.as_bytes()))
        };
        let (input, signature) = match &told.lie {
            Lie::Unsigned => (by_hand(json!({ "alg": "none" })), b"x".to_vec()),
            Lie::SharedSecret => {
                let PublicKey::Ed25519 { x } = self.key.jwk().key() else { panic!("the key is Ed25519") };
                let input = by_hand(json!({ "alg": "HS256", "kid": id.kid() }));
                let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, x), input.as_bytes());
                (input, tag.as_ref().to_vec())
            }
            lie => {
                let kind = if let Lie::Type(kind) = lie { *kind } else { "JWT" };
                let input = signing_input(&id, kind, claims.as_bytes());
                let key = if *lie == Lie::OtherKey { &other } else { &*self.key };
                let signature = pair(key).sign(&input).as_ref().to_vec();
                (String::from_utf8(input).unwrap(), signature)
            }
        };
        format!("{input}.{}", base64url::encode(&signature))
    }

    async fn keys(State(this): State<Self>) -> Response {
        let keys = JwkSet::new([this.key.jwk().clone()]).unwrap().render();
        ([(CONTENT_TYPE, "application/json")], keys).into_response()
    }
}
