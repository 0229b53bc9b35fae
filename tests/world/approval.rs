//! From a registration over a person's approval to tokens: every action of the store takes part.

use mcp_authz::authorization_server::authorization::{Authorizing, RequestOutcome};
use mcp_authz::authorization_server::decision::Decided;
use mcp_authz::authorization_server::{
    AuthorizationServer, Configuration, KnownResource, RegistrationPolicy,
};
use mcp_authz::evidence::{Approval, Authentication};
use mcp_authz::identifier::{Issuer, ResourceId, Scope};
use mcp_authz::jose::{Algorithm, SigningKeyId};
use mcp_authz::message::client_metadata::RegistrationReply;
use mcp_authz::message::exchange::RequestHead;
use mcp_authz::pkce::CodeChallenge;
use mcp_authz::secret::{AgentBinding, CodeVerifier};
use mcp_authz::syntax::form::{self, Form};

use crate::grants::{REDIRECT, RESOURCE, Request, VERIFIER, World, opened, scope, start, tokens};
use crate::store::Store;
use crate::token_host::Seeded;

fn open_world() -> World {
    let words = |scope: &str| (Scope::new(scope).unwrap(), format!("May {scope}"));
    let resource = KnownResource::new(ResourceId::new(RESOURCE).unwrap(), [words("read"), words("write")]);
    let key = SigningKeyId::new("key-1", Algorithm::EdDsa);
    let configuration = Configuration::new(Issuer::new("https://as.example").unwrap(), vec![resource], key);
    let server = AuthorizationServer::new(configuration.registration(RegistrationPolicy::Open)).unwrap();
    World { server, store: Store::new(start()), entropy: Seeded(11) }
}

fn register(world: &mut World) -> String {
    let body = format!(
        r#"{{"redirect_uris":["{REDIRECT}"],"token_endpoint_auth_method":"none","client_name":"Notes app",
        "grant_types":["authorization_code","refresh_token"],"response_types":["code"]}}"#
    );
    let step = world
        .server
        .register(
            &RequestHead::new("POST", "/register"),
            body.as_bytes(),
            world.store.now(),
            &mut world.entropy,
        )
        .unwrap();
    let (action, state) = step.into_parts();
    let respond = state.stored(world.store.insert_client(action)).unwrap();
    match RegistrationReply::parse(respond.status(), respond.body()).unwrap() {
        RegistrationReply::Registered(client) => client.client_id.as_str().to_owned(),
        RegistrationReply::Error(error) => panic!("{error:?}"),
    }
}

/// The person `ann` approves `approved` of `read write` in one browser; the code that reaches the client.
fn approve(world: &mut World, client: &str, approved: &str) -> String {
    let challenge = CodeChallenge::of(&CodeVerifier::new(VERIFIER).unwrap()).to_text();
    let query = form::encode([
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", REDIRECT),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        ("resource", RESOURCE),
        ("scope", "read write"),
        ("state", "s-1"),
    ]);
    let Authorizing::Find(step) = world.server.authorize(&query).unwrap() else { panic!() };
    let (action, state) = step.into_parts();
    let RequestOutcome::Validated(validated) = state.found(world.store.find_client(action)) else { panic!() };
    let agent = AgentBinding::session(b"a browser's nonce").unwrap();
    let person = Authentication::assertion("ann", agent, world.store.now()).unwrap();
    let step = validated.show(&person, world.store.now(), &mut world.entropy).unwrap();
    let (action, state) = step.into_parts();
    let page = state.stored(world.store.insert_decision(action)).unwrap().into_page().unwrap();

    let (action, state) = world.server.decide(&page.handle).into_parts();
    let deciding = state.found(world.store.read_decision(action)).unwrap();
    let approval = Approval::assertion("ann", agent, scope(approved));
    let (action, state) = deciding.approve(approval, &page.csrf, &mut world.entropy).unwrap().into_parts();
    let Decided::Redirect(redirect) = state.decided(world.store.decide_once(action)).unwrap() else {
        panic!()
    };
    let (_, query) = redirect.location().split_once('?').unwrap();
    Form::parse(query.as_bytes()).unwrap().get("code").unwrap().to_owned()
}

// I-C9, OAUTH21-4.1.2-2, I-T5: what the person left out, no token has.
#[test]
fn an_approval_becomes_tokens_for_what_the_person_left_ticked() {
    let mut world = open_world();
    let client = register(&mut world);
    let code = approve(&mut world, &client, "read");
    let first = tokens(&world.send(&Request::code(&client).with("code", &code)));
    let claims = opened(&first).1;
    assert_eq!(claims.sub, "ann");
    assert_eq!(claims.client_id, client);
    assert_eq!(claims.scope, Some(scope("read")));
    let refresh = first.refresh_token.unwrap();
    let wide = Request::refresh(&client, refresh.expose()).with("scope", "read write");
    assert_eq!(world.send(&wide).error(), (400, "invalid_scope".to_owned()));
    assert!(world.send(&Request::refresh(&client, refresh.expose())).is_success());
}

// I-T1: two approvals are two families, and the end of one is not the end of the other.
#[test]
fn families_end_one_by_one() {
    let mut world = open_world();
    let client = register(&mut world);
    let one = approve(&mut world, &client, "read");
    let two = approve(&mut world, &client, "read write");
    let of_one = tokens(&world.send(&Request::code(&client).with("code", &one))).refresh_token.unwrap();
    let of_two = tokens(&world.send(&Request::code(&client).with("code", &two))).refresh_token.unwrap();
    assert!(!world.send(&Request::code(&client).with("code", &one)).is_success());
    assert!(!world.send(&Request::refresh(&client, of_one.expose())).is_success());
    assert!(world.send(&Request::refresh(&client, of_two.expose())).is_success());
}
