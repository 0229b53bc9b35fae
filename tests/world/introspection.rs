//! Opaque access tokens, introspection, and what revoking either kind of token ends.

use mcp_authz::authorization_server::record::ClientRecord;
use mcp_authz::authorization_server::store::{RevocationTarget, RevokeAll};
use mcp_authz::identifier::ClientId;
use mcp_authz::message::introspection::{ActiveToken, IntrospectionResponse};
use mcp_authz::syntax::base64url;
use mcp_authz::time::Duration;

use crate::grants::{
    APP, OTHER, RESOURCE, Request, SECRET, WEB, World, approval, family, opaque_server, scope, secret, start,
    tokens,
};
use crate::keys::OWN;
use crate::token_host::{Answer, Flow};

/// The resource server of the notes.
pub(crate) const NOTES_RS: &str = "notes-rs";
/// The resource server of something else.
const OTHER_RS: &str = "other-rs";

pub(crate) fn world(opaque: bool) -> World {
    world_of(opaque, APP)
}

fn world_of(opaque: bool, client: &str) -> World {
    let mut world = World::with_code(approval(client));
    world.server = opaque_server(opaque, NOTES_RS, OTHER_RS);
    for id in [NOTES_RS, OTHER_RS] {
        let id = ClientId::new(id).unwrap();
        world.store.put_client(ClientRecord::resource_server(id, secret(None), start()).unwrap());
    }
    world
}

fn introspect(world: &mut World, caller: &str, token: &str) -> Answer {
    let request = Request::new(&[("token", token)]).with_basic(caller, SECRET);
    let flow = Flow::introspection(&world.server, &request.head(), request.body().as_bytes());
    flow.finish(&mut world.store, &mut world.entropy)
}

fn active(answer: &Answer) -> Option<ActiveToken> {
    assert_eq!(answer.respond.status(), 200, "{:?}", answer.reason);
    assert_eq!(answer.respond.header("cache-control"), Some("no-store"));
    match IntrospectionResponse::parse(answer.respond.body()).unwrap() {
        IntrospectionResponse::Active(token) => Some(*token),
        IntrospectionResponse::Inactive => {
            // RFC7662-2.2-4
            assert_eq!(answer.respond.body(), br#"{"active":false}"#);
            None
        }
    }
}

/// The token with its header or claims changed, signed again by the server's own key.
pub(crate) fn resigned(token: &str, from: &str, to: &str) -> String {
    let mut parts = token.split('.');
    let mut changed = || {
        let text = String::from_utf8(base64url::decode(parts.next().unwrap()).unwrap()).unwrap();
        text.replacen(from, to, 1)
    };
    let (header, claims) = (changed(), changed());
    let input = format!("{}.{}", base64url::encode(header.as_bytes()), base64url::encode(claims.as_bytes()));
    let signed = format!("{input}.{}", base64url::encode(&OWN.sign(input.as_bytes())));
    assert_ne!(signed, token);
    signed
}

// RFC7662-4-1, I-T7: the server's own signature is not enough.
#[test]
fn a_signed_token_that_is_not_what_was_granted_is_inactive() {
    let mut world = world(false);
    let token = world.redeem().access_token.expose().to_owned();
    let iat = format!("\"iat\":{}", start().unix_timestamp());
    let harmless = resigned(&token, &iat, &format!("\"iat\":{}", start().unix_timestamp() - 1));
    assert!(active(&introspect(&mut world, NOTES_RS, &harmless)).is_some());
    for (what, from, to) in [
        ("kind", "at+jwt", "JWT"),
        ("issuer", "\"iss\":\"https://as.example", "\"iss\":\"https://bs.example"),
        ("subject", "\"sub\":\"ann\"", "\"sub\":\"ann \""),
        ("client", "\"client_id\":\"", "\"client_id\":\"x"),
    ] {
        let forged = resigned(&token, from, to);
        assert_eq!(active(&introspect(&mut world, NOTES_RS, &forged)), None, "{what}");
    }
}

// RFC7662-2.2-3
#[test]
fn a_refresh_token_that_nobody_used_in_time_is_inactive() {
    let mut world = world_of(true, WEB);
    let request = Request::code(WEB).without("client_id").with_basic(WEB, SECRET);
    let refresh = tokens(&world.send(&request)).refresh_token.unwrap().expose().to_owned();
    let expires = active(&introspect(&mut world, WEB, &refresh)).unwrap().exp.unwrap();
    let left = expires - world.store.now().unix_timestamp();
    world.store.pass(Duration::seconds(left - 1));
    assert!(active(&introspect(&mut world, WEB, &refresh)).is_some());
    world.store.pass(Duration::seconds(1));
    assert_eq!(active(&introspect(&mut world, WEB, &refresh)), None);
}

// RFC7662-4-1, RFC7662-2.2-1
#[test]
fn the_resource_server_is_told_what_either_kind_of_token_stands_for() {
    for opaque in [false, true] {
        let mut world = world(opaque);
        let tokens = world.redeem();
        let text = tokens.access_token.expose().to_owned();
        assert_eq!(text.contains('.'), !opaque);
        assert_eq!(tokens.expires_in, Some(300));
        let token = active(&introspect(&mut world, NOTES_RS, &text)).unwrap();
        assert_eq!(token.client_id.as_deref(), Some(APP));
        assert_eq!(token.sub.as_deref(), Some("ann"));
        assert_eq!(token.aud, [RESOURCE]);
        assert_eq!(token.iss.as_deref(), Some("https://as.example"));
        assert_eq!(token.scope, Some(scope("read write")));
        assert_eq!(token.exp, Some(start().unix_timestamp() + 300));
        assert_eq!(token.jti.is_some(), !opaque);
    }
}

// RFC7662-2.2-3, I-T8: another's token and no token look the same.
#[test]
fn whoever_the_token_is_not_for_learns_nothing() {
    for opaque in [false, true] {
        let mut world = world(opaque);
        let text = world.redeem().access_token.expose().to_owned();
        for caller in [OTHER_RS, WEB] {
            assert_eq!(active(&introspect(&mut world, caller, &text)), None, "{caller}");
        }
        for forged in ["unknown", "a.b.c", &text[..text.len() - 1], &format!("{text}x")] {
            assert_eq!(active(&introspect(&mut world, NOTES_RS, forged)), None, "{forged}");
        }
    }
}

// RFC7662-2.1-2: a public client's name is no authorization, not even for its own token.
#[test]
fn who_only_names_itself_may_not_introspect() {
    let mut world = world(true);
    let text = world.redeem().access_token.expose().to_owned();
    for client in [APP, OTHER] {
        let request = Request::new(&[("token", &text), ("client_id", client)]);
        let flow = Flow::introspection(&world.server, &request.head(), request.body().as_bytes());
        let answer = flow.finish(&mut world.store, &mut world.entropy);
        assert_eq!(answer.error(), (401, "invalid_client".to_owned()));
    }
    let wrong = Request::new(&[("token", &text)]).with_basic(NOTES_RS, "wrong");
    let flow = Flow::introspection(&world.server, &wrong.head(), wrong.body().as_bytes());
    assert_eq!(flow.finish(&mut world.store, &mut world.entropy).error().0, 401);
}

// I-T8: a confidential client may ask about its own.
#[test]
fn the_tokens_own_client_may_ask_and_only_it_about_refresh_tokens() {
    let mut world = world_of(true, WEB);
    let request = Request::code(WEB).without("client_id").with_basic(WEB, SECRET);
    let issued = tokens(&world.send(&request));
    let (access, refresh) = (issued.access_token.expose(), issued.refresh_token.as_ref().unwrap().expose());
    assert!(active(&introspect(&mut world, WEB, access)).is_some());
    let own = active(&introspect(&mut world, WEB, refresh)).unwrap();
    assert_eq!((own.token_type, own.client_id.as_deref()), (None, Some(WEB)));
    assert_eq!(active(&introspect(&mut world, NOTES_RS, refresh)), None);
}

// RFC7662-4-1, I-T2: what ends a grant shows at once, for signed tokens too.
#[test]
fn a_token_is_inactive_as_soon_as_anything_ends_its_grant() {
    type Ends = fn(&mut World, &str);
    let ends: [(&str, Ends); 5] = [
        ("time", |world, _| world.store.pass(Duration::seconds(300))),
        ("client", |world, refresh| {
            assert!(world.send_revocation(&Request::revocation(APP, refresh)).is_success());
        }),
        ("reuse", |world, refresh| {
            let _successor = world.send(&Request::refresh(APP, refresh));
            let _reuse = world.send(&Request::refresh(APP, refresh));
        }),
        ("subject", |world, _| {
            let _moved = world.store.revoke_all(RevokeAll::of(RevocationTarget::Subject("ann".to_owned())));
        }),
        ("consent", |world, _| {
            let (subject, client_id) = ("ann".to_owned(), ClientId::new(APP).unwrap());
            let target = RevocationTarget::Consent { subject, client_id };
            let _moved = world.store.revoke_all(RevokeAll::of(target));
        }),
    ];
    for opaque in [false, true] {
        for (name, end) in ends {
            let mut world = world(opaque);
            let issued = world.redeem();
            let text = issued.access_token.expose().to_owned();
            assert!(active(&introspect(&mut world, NOTES_RS, &text)).is_some(), "{name}");
            end(&mut world, issued.refresh_token.unwrap().expose());
            assert_eq!(active(&introspect(&mut world, NOTES_RS, &text)), None, "{name} {opaque}");
        }
    }
}

// RFC7009-2.1-5, RFC7009-2.1-3: an opaque access token ends with its refresh token; the hint does not matter.
#[test]
fn revoking_an_opaque_access_token_ends_its_grant() {
    for hint in [None, Some("access_token"), Some("refresh_token"), Some("nonsense")] {
        let mut world = world(true);
        let issued = world.redeem();
        let text = issued.access_token.expose().to_owned();
        let request = |client| match hint {
            None => Request::revocation(client, &text),
            Some(hint) => Request::revocation(client, &text).with("token_type_hint", hint),
        };
        // I-T8
        assert_eq!(world.send_revocation(&request(OTHER)).respond.status(), 200);
        assert!(!world.store.is_revoked(family()));
        assert_eq!(world.send_revocation(&request(APP)).respond.status(), 200);
        assert_eq!(world.store.revocation(family()), Some("client_request"));
        assert_eq!(active(&introspect(&mut world, NOTES_RS, &text)), None);
    }
}

// I-T5: a narrowed token says so to its resource server.
#[test]
fn a_narrowed_opaque_token_has_the_narrow_scope() {
    let mut world = world(true);
    let refresh = world.refresh_token();
    let answer = world.send(&Request::refresh(APP, &refresh).with("scope", "read"));
    let text = tokens(&answer).access_token.expose().to_owned();
    assert_eq!(active(&introspect(&mut world, NOTES_RS, &text)).unwrap().scope, Some(scope("read")));
}

// I-T7: no token of one kind is taken for another.
#[test]
fn kinds_of_tokens_do_not_mix() {
    let mut world = world(true);
    let issued = world.redeem();
    let (access, refresh) =
        (issued.access_token.expose().to_owned(), issued.refresh_token.unwrap().expose().to_owned());
    assert_eq!(world.send(&Request::refresh(APP, &access)).error().1, "invalid_grant");
    assert_eq!(world.send(&Request::code(APP).with("code", &refresh)).error().1, "invalid_grant");
    assert_eq!(active(&introspect(&mut world, NOTES_RS, crate::grants::CODE)), None);
}

// I-G9: at whatever read the store fails, the caller gets 503 and no word about the token.
#[test]
fn a_store_that_fails_says_nothing_about_the_token() {
    for (opaque, reads) in [(true, 2), (false, 3)] {
        for fails_at in 0..reads {
            let mut world = world(opaque);
            let text = world.redeem().access_token.expose().to_owned();
            let request = Request::new(&[("token", &text)]).with_basic(NOTES_RS, SECRET);
            let mut flow = Flow::introspection(&world.server, &request.head(), request.body().as_bytes());
            for _ in 0..fails_at {
                flow = flow.advance(&mut world.store, &mut world.entropy);
            }
            assert_eq!(flow.fail().answer().error(), (503, String::new()));
        }
    }
}

// I-G7
#[test]
fn a_resource_server_needs_credentials_and_can_use_no_grant() {
    use mcp_authz::authorization_server::record::ClientCredential;
    let id = || ClientId::new("rs").unwrap();
    assert!(ClientRecord::resource_server(id(), ClientCredential::None, start()).is_none());
    let url = ClientId::new("https://rs.example/id").unwrap();
    assert!(ClientRecord::resource_server(url, secret(None), start()).is_none());
    let mut world = world_of(true, NOTES_RS);
    let request = Request::code(NOTES_RS).without("client_id").with_basic(NOTES_RS, SECRET);
    assert_eq!(world.send(&request).error(), (400, "unauthorized_client".to_owned()));
}
