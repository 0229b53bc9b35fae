//! Every relaxation of the table both ways: without it the strict rule stands, and says which value would help where it
//! refuses; with it the server works, and no other issuer or resource is treated otherwise.

use super::*;
use crate::client::EndpointCall;
use crate::error::HostMisuse;
use crate::identifier::Origin;
use crate::jose::Algorithm;
use crate::jose::toy::ToyKey;
use crate::message::exchange::AddressPolicy;
use crate::policy::{AuthorizationExtras, LoopbackRedirect, PrivateNetworks};
use crate::sealer::PlaintextRecords;

const SILENT: (&str, &str) = ("authorization_response_iss_parameter_supported", "");
const OTHER: &str = "https://other.example";

fn with(relaxation: Relaxation, configuration: Configuration) -> Client {
    client_of(configuration.policy(policy().relax(relaxation)))
}

/// The audience of the assertion in a token request.
fn audience(client: &Client) -> String {
    let begun = begin(choosing_identity(client, &[]).pre_registered().unwrap());
    let callback = begun.callback(GENUINE);
    let outcome = begun.waiting.receive(callback, &HERE, now(), &mut Counter(5));
    let CallbackOutcome::Accepted(EndpointCall::Sign(step)) = outcome else { panic!("{outcome:?}") };
    let input = String::from_utf8(step.action().input().to_vec()).unwrap();
    let claims = crate::syntax::base64url::decode(input.split('.').nth(1).unwrap()).unwrap();
    let claims = crate::syntax::json::JsonObject::parse(&claims, 4096).unwrap();
    claims.required_string("aud").unwrap().to_owned()
}

fn signing() -> Configuration {
    let key = ToyKey::new(Algorithm::EdDsa, 3).id("k1");
    configuration().pre_registered(pre_registered().private_key(key))
}

/// What the token endpoint's refusal of the client comes to.
fn refused(client: &Client, code: &str) -> Error {
    let begun = begin(choosing_identity(client, &[]).pre_registered().unwrap());
    let callback = begun.callback(GENUINE);
    let outcome = begun.waiting.receive(callback, &HERE, now(), &mut Counter(5));
    let CallbackOutcome::Accepted(call) = outcome else { panic!("{outcome:?}") };
    let state = match call {
        EndpointCall::Fetch(step) => step.into_parts().1,
        EndpointCall::Sign(step) => {
            let (sign, state) = step.into_parts();
            let signature = ToyKey::new(Algorithm::EdDsa, 3).sign(sign.input());
            state.signed(sign.signed(signature).unwrap()).unwrap().into_parts().1
        }
    };
    let reply = Reply::new(401, format!("{{\"error\":\"{code}\"}}"));
    state.receive(Ok(reply), now()).unwrap_err().error
}

// D19, RFC7523BIS-1
#[test]
fn an_assertion_is_for_the_token_endpoint_only_where_the_issuer_is_named() {
    let strict = client_of(signing());
    assert_eq!(audience(&strict), ISSUER);
    assert_eq!(names(&refused(&strict, "invalid_client").remedy()), Some("AssertionAudience"));
    // Who is known and may not has no other audience to try.
    assert_eq!(refused(&strict, "unauthorized_client").remedy(), Remedy::FixConfiguration);
    let named = with(Relaxation::AssertionAudience(issuer(ISSUER)), signing());
    assert_eq!(audience(&named), "https://as.example/token");
    assert_eq!(refused(&named, "invalid_client").remedy(), Remedy::FixConfiguration);
    assert_eq!(audience(&with(Relaxation::AssertionAudience(issuer(OTHER)), signing())), ISSUER);
    // Nothing of a secret or a public client has an audience.
    let public = client_of(configuration().pre_registered(pre_registered()));
    assert_eq!(refused(&public, "invalid_client").remedy(), Remedy::FixConfiguration);
    assert_eq!(refused(&public, "invalid_grant").remedy(), Remedy::Reauthorize);
}

fn loopback(issuer_url: &str, localhost: bool, ports: &[u16]) -> Relaxation {
    let ports = ports.iter().copied();
    Relaxation::LoopbackRedirect(LoopbackRedirect::new(issuer(issuer_url), localhost, ports).unwrap())
}

/// The redirect URIs of the registration request.
fn registers(client: &Client) -> Vec<String> {
    let (fetch, _) = choosing_identity(client, &[]).register().unwrap().into_parts();
    let body = crate::syntax::json::JsonObject::parse(fetch.body(), 4096).unwrap();
    body.strings("redirect_uris").unwrap().unwrap().into_iter().map(Into::into).collect()
}

// OAUTH21-8.4.2-1, LoopbackRedirect
#[test]
fn an_issuer_is_told_localhost_only_where_it_is_named() {
    assert_eq!(registers(&strict()), [REDIRECT]);
    let named = relaxed(loopback(ISSUER, true, &[]));
    assert_eq!(registers(&named), ["http://localhost:4711/callback"]);
    let begun = begin(ready(&named));
    assert_eq!(begun.redirect_uri(), "http://localhost:4711/callback");
    // The answer arrives by the name, and by nothing else.
    let by_address = format!("{REDIRECT}?state={}{GENUINE}", begun.state());
    let by_address = Callback::from_url(&by_address).unwrap();
    let by_name = begun.callback(GENUINE);
    let waiting = match begun.waiting.receive(by_address, &HERE, now(), &mut Counter(5)) {
        CallbackOutcome::Unsolicited(waiting) => waiting,
        other => panic!("{other:?}"),
    };
    assert!(matches!(waiting.receive(by_name, &HERE, now(), &mut Counter(5)), CallbackOutcome::Accepted(_)));
    assert_eq!(registers(&relaxed(loopback(OTHER, true, &[]))), [REDIRECT]);

    // A host that configures the name says it for every issuer: refused where the issuer is not named.
    let by_name = || Configuration::new("Test", RedirectUri::new("http://localhost:4711/callback").unwrap());
    let client = client_of(by_name().policy(policy()));
    let failed = choosing_identity(&client, &[]).register().unwrap_err();
    assert_eq!(failed.error.remedy(), Remedy::Relax(loopback(ISSUER, true, &[])));
    assert!(choosing_identity(&with(loopback(ISSUER, true, &[]), by_name()), &[]).register().is_ok());
    assert!(choosing_identity(&with(loopback(OTHER, true, &[]), by_name()), &[]).register().is_err());

    // An issuer that does not take the address says so at its registration endpoint.
    let (_, state) = choosing_identity(&strict(), &[]).register().unwrap().into_parts();
    let failed = state.receive(Ok(Reply::new(400, "{\"error\":\"invalid_redirect_uri\"}"))).unwrap_err();
    assert_eq!(failed.error.remedy(), Remedy::Relax(loopback(ISSUER, true, &[])));
}

#[test]
fn an_issuer_with_fixed_ports_gets_them_all_and_the_one_in_use() {
    let named = relaxed(loopback(ISSUER, false, &[4712, 4711]));
    assert_eq!(registers(&named), [REDIRECT, "http://127.0.0.1:4712/callback"]);
    assert_eq!(begin(ready(&named)).redirect_uri(), REDIRECT);
    let elsewhere = relaxed(loopback(ISSUER, false, &[80]));
    let failed = choosing_identity(&elsewhere, &[]).register().unwrap_err();
    assert_eq!(failed.error, Error::Host(HostMisuse::LoopbackPort));
    assert_eq!(registers(&relaxed(loopback(OTHER, false, &[80]))), [REDIRECT]);
    // The next process listens on another of them, and the registration is still good.
    let record = ready(&named).registration_record(&PlaintextRecords).unwrap().unwrap();
    let next = |port| {
        let redirect = RedirectUri::new(format!("http://127.0.0.1:{port}/callback")).unwrap();
        let client = with(loopback(ISSUER, false, &[4711, 4712]), Configuration::new("Test", redirect));
        choosing_identity(&client, &[]).registered(&record, &PlaintextRecords, now())
    };
    assert_eq!(begin(next(4712).unwrap()).redirect_uri(), "http://127.0.0.1:4712/callback");
    assert_eq!(next(4713).unwrap_err().error, Error::Host(HostMisuse::LoopbackPort));
}

// AuthorizationExtras, OAUTH21-3.1-6
#[test]
fn an_issuer_gets_further_parameters_only_where_it_is_named() {
    let extras = |at: &str| {
        let pairs = [("audience", "https://api.example/?a=1&b=2"), ("prompt", "consent")];
        Relaxation::AuthorizationExtras(AuthorizationExtras::new(issuer(at), pairs).unwrap())
    };
    let strict_form = parameters(&begin(ready(&strict())).url);
    let form = parameters(&begin(ready(&relaxed(extras(ISSUER)))).url);
    assert_eq!(form.get("audience"), Some("https://api.example/?a=1&b=2"));
    assert_eq!(form.get("prompt"), Some("consent"));
    assert_eq!(form.names().count(), strict_form.names().count() + 2);
    // Ours are as they were, fresh values aside.
    for name in strict_form.names().filter(|name| !matches!(*name, "state" | "code_challenge")) {
        assert_eq!(form.get(name), strict_form.get(name), "{name}");
    }
    let other = parameters(&begin(ready(&relaxed(extras(OTHER)))).url);
    assert_eq!((other.get("audience"), other.get("prompt")), (None, None));
    // A name that the endpoint has in its own query would be there twice.
    let endpoint = [("authorization_endpoint", "\"https://as.example/authorize?prompt=login\"")];
    let failed = ready_with(&relaxed(extras(ISSUER)), &endpoint)
        .begin(&ScopeSet::new(), HERE, now(), &mut Counter(0))
        .unwrap_err();
    assert!(matches!(failed.error, Error::Host(HostMisuse::AuthorizationUrl(_))));
}

// D9, PrivateScheme
#[test]
fn a_private_scheme_is_taken_only_where_that_very_uri_is_named() {
    const PRIVATE: &str = "com.example.app:/cb";
    let uri = |text: &str| RedirectUri::private_scheme(text).unwrap();
    let app = || Configuration::new("Test", uri(PRIVATE));
    for policy in [policy(), policy().relax(Relaxation::PrivateScheme(uri("com.example.app:/cb2")))] {
        let failed = choosing_identity(&client_of(app().policy(policy)), &[]).register().unwrap_err();
        assert_eq!(failed.error.remedy(), Remedy::Relax(Relaxation::PrivateScheme(uri(PRIVATE))));
    }
    let client = with(Relaxation::PrivateScheme(uri(PRIVATE)), app());
    assert_eq!(registers(&client), [PRIVATE]);
    let ready = ready(&client);
    let record = ready.registration_record(&PlaintextRecords).unwrap().unwrap();
    let begun = begin(ready);
    assert_eq!(begun.redirect_uri(), PRIVATE);
    let callback = begun.callback(GENUINE);
    assert!(matches!(
        begun.waiting.receive(callback, &HERE, now(), &mut Counter(5)),
        CallbackOutcome::Accepted(_)
    ));
    assert!(choosing_identity(&client, &[]).registered(&record, &PlaintextRecords, now()).is_ok());
    // There is no path of an issuer's own below it.
    let failed = choosing_identity(&client, &[SILENT]).register().unwrap_err();
    assert_eq!(names(&failed.error.remedy()), Some("SharedRedirect"));
    // A server that registers another one than asked for is not taken at its word.
    let (_, state) = choosing_identity(&client, &[]).register().unwrap().into_parts();
    let body = "{\"client_id\":\"c\",\"redirect_uris\":[\"com.example.app:/other\"]}";
    assert!(state.receive(Ok(Reply::new(201, body))).is_err());
    // Nor is it a redirect URI of an identity that was registered by hand.
    let by_hand = PreRegistered::new(issuer(ISSUER), ClientId::new("pre").unwrap(), uri(PRIVATE), [server()]);
    let client = client_of(configuration().pre_registered(by_hand));
    let failed = choosing_identity(&client, &[]).pre_registered().unwrap_err();
    assert_eq!(names(&failed.error.remedy()), Some("PrivateScheme"));
}

// I-L8, MCP-SBP-020
#[test]
fn private_networks_are_reached_from_the_named_origin_only() {
    let networks = |origin: &str, network: &str| {
        let networks = [network.parse().unwrap()];
        Relaxation::PrivateNetworks(PrivateNetworks::new(Origin::new(origin).unwrap(), networks).unwrap())
    };
    let inside = "https://10.1.2.3/register";
    let metadata = [("token_endpoint", "\"https://10.1.2.3/token\"")];
    let judged = |client: &Client| awaiting_server(client, ISSUER).receive(Ok(server_metadata(&metadata)));
    let failed = judged(&strict()).unwrap_err();
    assert_eq!(names(&failed.error.remedy()), Some("PrivateNetworks"));
    for relaxation in [networks("https://mcp.example", "10.2.0.0/16"), networks(OTHER, "10.0.0.0/8")] {
        assert!(judged(&relaxed(relaxation)).is_err());
    }
    let both = policy()
        .relax(networks("https://mcp.example", "10.1.0.0/16"))
        .relax(networks(OTHER, "192.168.0.0/16"));
    let client = client_of(configuration().policy(both));
    assert!(judged(&client).is_ok());
    // A name may resolve into the networks of this server's own relaxation, and into no other server's.
    let changes = [("registration_endpoint", "\"https://10.1.2.3/register\"")];
    let (fetch, _) = choosing_identity(&client, &changes).register().unwrap().into_parts();
    assert_eq!((fetch.url(), fetch.policy().addresses()), (inside, AddressPolicy::PublicAndPrivateNetworks));
    assert_eq!(fetch.private_networks(), ["10.1.0.0/16".parse().unwrap()]);
    let elsewhere = ResourceId::from_server_url("https://third.example/").unwrap();
    assert_eq!(client.addresses(&elsewhere, "https://name.example/"), Ok(AddressPolicy::Public));
    assert!(client.addresses(&elsewhere, "https://192.168.1.1/").is_err());
}

// D29, D36, D1, D35 and the others are refused and named where their rules are tested: `discovery.rs`, `registration.rs`,
// `authorization.rs`, `legacy.rs`. This holds for all of them at once.
#[test]
fn a_relaxation_for_another_server_changes_nothing() {
    let elsewhere = || issuer(OTHER);
    let resource = || ResourceId::new("https://other.example/notes").unwrap();
    let relaxations = [
        Relaxation::AssumeS256(elsewhere()),
        Relaxation::IssuerRootSlash(elsewhere()),
        Relaxation::OmitResource(elsewhere()),
        Relaxation::ResourcePathPrefix(resource()),
        Relaxation::MetadataOnOtherOrigin(Origin::new(OTHER).unwrap()),
        Relaxation::SharedRedirect(elsewhere()),
        Relaxation::AssertionAudience(elsewhere()),
        Relaxation::LegacyEndpoints(resource()),
    ];
    let client = client_of(configuration().policy(relaxations.into_iter().fold(policy(), Policy::relax)));
    // AssumeS256
    let no_s256 = [("code_challenge_methods_supported", "")];
    let failed = awaiting_server(&client, ISSUER).receive(Ok(server_metadata(&no_s256))).unwrap_err();
    assert_eq!(names(&failed.error.remedy()), Some("AssumeS256"));
    // IssuerRootSlash
    let failed = awaiting_server(&client, "https://as.example/").receive(Ok(server_metadata(&[])));
    assert_eq!(names(&failed.unwrap_err().error.remedy()), Some("IssuerRootSlash"));
    // OmitResource
    let pinned = pre_registered().scopes(scopes("read"));
    let omits = with(Relaxation::OmitResource(elsewhere()), configuration().pre_registered(pinned.clone()));
    let begun = begin(choosing_identity(&omits, &[]).pre_registered().unwrap());
    assert_eq!(parameters(&begun.url).get("resource"), Some(SERVER));
    let omits = with(Relaxation::OmitResource(issuer(ISSUER)), configuration().pre_registered(pinned));
    let begun = begin(choosing_identity(&omits, &[]).pre_registered().unwrap());
    assert_eq!(parameters(&begun.url).get("resource"), None);
    // Unpinned, the parameter stays (D36).
    let unpinned = relaxed(Relaxation::OmitResource(issuer(ISSUER)));
    assert_eq!(parameters(&begin(ready(&unpinned)).url).get("resource"), Some(SERVER));
    // ResourcePathPrefix
    let (_, state) = challenged(&client, &challenge("Bearer")).into_parts();
    let failed = state.receive(Ok(resource_metadata("https://mcp.example", ISSUER))).unwrap_err();
    assert_eq!(names(&failed.error.remedy()), Some("ResourcePathPrefix"));
    // MetadataOnOtherOrigin
    let named = challenge("Bearer resource_metadata=\"https://third.example/prm\"");
    let error = client.challenged(&server(), &named).unwrap_err();
    assert_eq!(names(&error.remedy()), Some("MetadataOnOtherOrigin"));
    // SharedRedirect
    let own = begin(ready_with(&client, &[SILENT])).redirect_uri();
    assert_ne!(own, REDIRECT);
}
