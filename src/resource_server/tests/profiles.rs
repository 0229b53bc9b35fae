//! Tokens in the shape that common identity providers document for their own APIs (D32): what passes with the preset,
//! and what of the same issuer does not.

use super::*;

/// A provider's issuer and audience, the header and claims of an access token, and of an ID token of the same issuer.
struct Provider {
    issuer: &'static str,
    audience: &'static str,
    header: &'static str,
    access: &'static str,
    id: &'static str,
    client: &'static str,
    profile: fn() -> TokenProfile,
}

const ENTRA: Provider = Provider {
    issuer: "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0",
    audience: "00001111-aaaa-2222-bbbb-3333cccc4444",
    header: r#"{"typ":"JWT","alg":"EdDSA","kid":"k1"}"#,
    access: r#"{"aud":"00001111-aaaa-2222-bbbb-3333cccc4444","iss":"https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0","iat":1799999900,"nbf":1799999900,"exp":1800000300,"aio":"x","azp":"99998888-aaaa-7777-bbbb-6666cccc5555","azpacr":"0","name":"Alice","oid":"o","preferred_username":"alice@example.com","rh":"0.A","scp":"files:read files:write","sub":"pairwise","tid":"11111111-2222-3333-4444-555555555555","uti":"u","ver":"2.0"}"#,
    id: r#"{"aud":"99998888-aaaa-7777-bbbb-6666cccc5555","iss":"https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0","iat":1799999900,"nbf":1799999900,"exp":1800000300,"name":"Alice","nonce":"n","oid":"o","sub":"pairwise","tid":"11111111-2222-3333-4444-555555555555","ver":"2.0"}"#,
    client: "99998888-aaaa-7777-bbbb-6666cccc5555",
    profile: TokenProfile::entra_v2,
};

const OKTA: Provider = Provider {
    issuer: "https://dev-1.okta.com/oauth2/default",
    audience: "api://default",
    header: r#"{"kid":"k1","alg":"EdDSA"}"#,
    access: r#"{"ver":1,"jti":"AT.1","iss":"https://dev-1.okta.com/oauth2/default","aud":"api://default","iat":1799999900,"exp":1800000300,"cid":"0oa1","uid":"00u1","scp":["files:read","files:write"],"auth_time":1799999800,"sub":"alice@example.com"}"#,
    id: r#"{"sub":"00u1","name":"Alice","ver":1,"iss":"https://dev-1.okta.com/oauth2/default","aud":"0oa1","iat":1799999900,"exp":1800000300,"jti":"ID.1","amr":["pwd"],"idp":"00o1","nonce":"n","auth_time":1799999800,"at_hash":"h"}"#,
    client: "0oa1",
    profile: TokenProfile::okta,
};

const AUTH0: Provider = Provider {
    issuer: "https://tenant.eu.auth0.com/",
    audience: "https://mcp.example/mcp",
    header: r#"{"alg":"EdDSA","typ":"JWT","kid":"k1"}"#,
    access: r#"{"iss":"https://tenant.eu.auth0.com/","sub":"auth0|123","aud":["https://mcp.example/mcp","https://tenant.eu.auth0.com/userinfo"],"iat":1799999900,"exp":1800000300,"azp":"my_client_id","scope":"openid files:read files:write"}"#,
    id: r#"{"nickname":"alice","name":"Alice","iss":"https://tenant.eu.auth0.com/","sub":"auth0|123","aud":"my_client_id","iat":1799999900,"exp":1800000300,"sid":"s","nonce":"n"}"#,
    client: "my_client_id",
    profile: TokenProfile::auth0,
};

const KEYCLOAK: Provider = Provider {
    issuer: "https://sso.example/realms/main",
    audience: "https://mcp.example/mcp",
    header: r#"{"alg":"EdDSA","typ":"JWT","kid":"k1"}"#,
    access: r#"{"exp":1800000300,"iat":1799999900,"auth_time":1799999800,"jti":"onrtac:1","iss":"https://sso.example/realms/main","aud":["https://mcp.example/mcp","account"],"sub":"f4","typ":"Bearer","azp":"inspector","sid":"s","acr":"1","allowed-origins":["*"],"realm_access":{"roles":["offline_access"]},"resource_access":{"account":{"roles":["view-profile"]}},"scope":"openid files:read files:write"}"#,
    id: r#"{"exp":1800000300,"iat":1799999900,"auth_time":1799999800,"jti":"2","iss":"https://sso.example/realms/main","aud":"inspector","sub":"f4","typ":"ID","azp":"inspector","sid":"s","at_hash":"h","acr":"1"}"#,
    client: "inspector",
    profile: TokenProfile::keycloak,
};

const PROVIDERS: [Provider; 4] = [ENTRA, OKTA, AUTH0, KEYCLOAK];

impl Provider {
    fn server(&self, profile: TokenProfile) -> ResourceServer {
        let trusted = TrustedIssuer::with_keys(issuer(self.issuer), keys_of(key())).with_profile(profile);
        server_with([trusted.accepting_audiences([self.audience.into()]).unwrap()])
    }

    fn verify(&self, claims: &str) -> Result<VerifiedToken, DenialReason> {
        let token = key().token(self.header, claims);
        verify(&self.server((self.profile)()), &token).map_err(|denial| denial.reason())
    }
}

// D32
#[test]
fn an_access_token_of_the_documented_shape_passes_with_its_preset() {
    for provider in PROVIDERS {
        let authorized =
            provider.verify(provider.access).unwrap().authorize(&required("files:read files:write"));
        let authorized = authorized.unwrap();
        assert_eq!(authorized.client().as_str(), provider.client);
        assert_eq!(authorized.issuer().issuer().as_str(), provider.issuer);
        assert_eq!(authorized.audience().audience().as_str(), provider.audience);
    }
}

// D32, RFC9068-4-1
#[test]
fn without_its_preset_no_such_token_passes() {
    for provider in PROVIDERS {
        let token = key().token(provider.header, provider.access);
        let strict = provider.server(TokenProfile::rfc9068());
        assert_eq!(verify(&strict, &token).unwrap_err().reason(), DenialReason::TokenType);
    }
}

// D32
#[test]
fn an_id_token_of_the_same_issuer_does_not_pass() {
    for provider in PROVIDERS {
        assert!(provider.verify(provider.id).is_err(), "{}", provider.issuer);
        // Nor does one for a client that is the resource itself, as long as it is marked.
        let marked = provider.access.replacen('{', r#"{"nonce":"n","#, 1);
        assert_eq!(provider.verify(&marked).unwrap_err(), DenialReason::IdToken, "{}", provider.issuer);
    }
}

// D32
#[test]
fn an_audience_that_is_the_client_is_an_id_tokens_unless_it_is_configured() {
    for provider in PROVIDERS {
        let both = format!(r#"["{}","{}"]"#, provider.audience, provider.client);
        let claims = JsonObject::parse(provider.access.as_bytes(), 4096).unwrap();
        let members: Vec<_> = claims
            .names()
            .filter(|name| *name != "aud")
            .map(|name| {
                let value = serde_json::to_string(claims.get(name).unwrap()).unwrap();
                format!("\"{name}\":{value}")
            })
            .collect();
        let claims = format!("{{{},\"aud\":{both}}}", members.join(","));
        assert_eq!(provider.verify(&claims).unwrap_err(), DenialReason::IdToken, "{}", provider.issuer);
        let trusted = TrustedIssuer::with_keys(issuer(provider.issuer), keys_of(key()))
            .with_profile((provider.profile)())
            .accepting_audiences([provider.audience.into(), provider.client.into()])
            .unwrap();
        let token = key().token(provider.header, &claims);
        assert!(verify(&server_with([trusted]), &token).is_ok(), "{}", provider.issuer);
    }
}

// D32: Keycloak's refresh and offline tokens have the header of its access tokens.
#[test]
fn a_typ_claim_other_than_bearer_is_another_kind_of_token() {
    for kind in ["\"Refresh\"", "\"Offline\"", "\"Logout\"", "\"bearer\"", "[\"Bearer\"]", "null"] {
        let claims = KEYCLOAK.access.replace("\"typ\":\"Bearer\"", &format!("\"typ\":{kind}"));
        assert_eq!(KEYCLOAK.verify(&claims).unwrap_err(), DenialReason::IdToken, "{kind}");
    }
}

// I-A3
#[test]
fn each_preset_refuses_the_scope_in_the_other_shape_and_a_missing_client() {
    for provider in PROVIDERS {
        let (text, list) = (r#""files:read files:write""#, r#"["files:read","files:write"]"#);
        let other = if provider.access.contains(list) {
            provider.access.replace(list, text)
        } else {
            provider.access.replace(r#""openid files:read files:write""#, list).replace(text, list)
        };
        assert_ne!(other, provider.access);
        assert!(matches!(provider.verify(&other).unwrap_err(), DenialReason::Claim(Some("scp" | "scope"))));
        let claims = (provider.profile)().claims();
        let nameless = provider.access.replace(&format!("\"{}\":", claims.client_id), "\"no_client\":");
        assert_eq!(provider.verify(&nameless).unwrap_err(), DenialReason::Claim(Some(claims.client_id)));
    }
}

#[test]
fn every_relaxation_is_listed_for_an_audit() {
    assert_eq!(server().relaxations(), []);
    let names = |server: ResourceServer| format!("{:?}", server.relaxations());
    let entra = names(ENTRA.server(TokenProfile::entra_v2()));
    assert!(entra.contains("NamedProfile") && entra.contains("AcceptedAudiences"), "{entra}");
    let held = introspection().accepting_tokens_without_expiry(Duration::seconds(60)).unwrap();
    let opaque = names(server_with([TrustedIssuer::with_introspection(issuer(ISSUER), held)]));
    assert!(opaque.contains("NonExpiring(Issuer(https://as.example))"), "{opaque}");
}

/// RFC 7519 section 3.1 and RFC 9068 section 2.2: the claims of the published examples, in our key's signature.
#[test]
fn the_published_rfc9068_example_passes_and_the_plain_jwt_does_not() {
    // RFC 9068 section 2.2 (an example token); its times are long past, so the clock stands where it was valid.
    let claims = r#"{"iss":"https://authorization-server.example.com/","sub":"5ba552d67","aud":"https://rs.example.com/","exp":1639528912,"iat":1618354090,"jti":"dbe39bf3a3ba4238a513f51d6e1691c4","client_id":"s6BhdRkqt3","scope":"openid profile reademail"}"#;
    let trusted =
        TrustedIssuer::with_keys(issuer("https://authorization-server.example.com/"), keys_of(key()))
            .accepting_audiences(["https://rs.example.com/".into()])
            .unwrap();
    let server = server_with([trusted]);
    let at = |seconds| {
        let token = key().token(HEADER, claims);
        let presented = server.admit(&bearing(&token), &RequiredScopes::none()).unwrap();
        let outcome = presented.verify(OffsetDateTime::from_unix_timestamp(seconds).unwrap());
        match outcome {
            VerificationOutcome::Verified(verified) => Ok(verified),
            VerificationOutcome::Denied(denial) => Err(denial.reason()),
            VerificationOutcome::Introspect(_) => panic!("the issuer is not to be asked"),
        }
    };
    let authorized = at(1_639_528_000).unwrap().authorize(&required("reademail")).unwrap();
    assert_eq!((authorized.subject(), authorized.client().as_str()), ("5ba552d67", "s6BhdRkqt3"));
    assert_eq!(at(NOW).unwrap_err(), DenialReason::Expired);
    // RFC 7519 section 3.1: an issuer, an expiry and nothing else.
    let bare = r#"{"iss":"joe","exp":1300819380,"http://example.com/is_root":true}"#;
    assert_eq!(
        verify(&server, &key().token(HEADER, bare)).unwrap_err().reason(),
        DenialReason::UnknownIssuer
    );
}
