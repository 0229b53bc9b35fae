//! What becomes of a client, and of what it was granted, when its metadata document changes, fails or is gone (D41).

use mcp_authz::authorization_server::DocumentHosts;
use mcp_authz::authorization_server::authorization::Authorizing;
use mcp_authz::authorization_server::document::{DocumentOutcome, DocumentVerdict, GrantsEnd, KnownDocument};
use mcp_authz::authorization_server::refusal::RefusalReason;
use mcp_authz::authorization_server::store::{RevocationTarget, RevokeAll};
use mcp_authz::identifier::ClientId;
use mcp_authz::message::exchange::{FetchFailure, Reply};
use mcp_authz::time::Duration;

use crate::approvals::{Ask, Checked, ISSUER, answered, configuration, world, world_of};
use crate::grants::{Request, World, tokens};
use crate::token_host::Seeded;

const URL: &str = "https://app.example/oauth/client.json";
const CALLBACK: &str = "http://127.0.0.1:3000/cb";
const KEY: &str =
    r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"k"}"#;
const OTHER_KEY: &str =
    r#"{"kty":"OKP","crv":"Ed25519","x":"d4zT4GExEDzHqaW_bfm_pDKHzfNPvc9JnX27lQtu2HU","kid":"k"}"#;

fn document(name: &str, method: &str, more: &str) -> Reply {
    let body = format!(
        r#"{{"client_id":"{URL}","client_name":"{name}","redirect_uris":["http://127.0.0.1/cb"],
        "grant_types":["authorization_code","refresh_token"],"token_endpoint_auth_method":"{method}"{more}}}"#
    );
    Reply::new(200, body).with_header("content-type", b"application/json")
}

fn public() -> Reply {
    document("Notes app", "none", "")
}

fn signing(keys: &[&str]) -> Reply {
    document("Notes app", "private_key_jwt", &format!(r#","jwks":{{"keys":[{}]}}"#, keys.join(",")))
}

/// A person was asked about the client of that document, and it has a refresh token if it is public.
struct Known {
    world: World,
    refresh: Option<String>,
}

/// What was done about a fetch.
#[derive(Debug, PartialEq)]
enum Done {
    Nothing,
    Ended(GrantsEnd),
    Stored,
    Forgotten,
}

impl Known {
    fn of(reply: Reply) -> Self {
        let mut world = world();
        let Ok(Authorizing::Fetch(step)) = world.server.authorize(&Ask::of(URL, CALLBACK).query()) else {
            panic!("a URL is fetched")
        };
        let request = Checked::from(step.into_parts().1.receive(Ok(reply), world.store.now())).valid();
        let view = world.show(request);
        let redirect = world.approve(&view).unwrap();
        let code = answered(redirect.location()).get("code").unwrap().to_owned();
        let answer = world.send(&Request::code(URL).with("code", &code).with("redirect_uri", CALLBACK));
        let refresh = answer.is_success().then(|| tokens(&answer).refresh_token.unwrap().expose().to_owned());
        Self { world, refresh }
    }

    fn known(&self) -> Option<KnownDocument> {
        let step = self.world.server.tend_document(&ClientId::new(URL).unwrap()).unwrap();
        let (find, waiting) = step.into_parts();
        waiting.found(self.world.store.find_client(find))
    }

    fn tend(&mut self, fetched: Result<Reply, FetchFailure>) -> (Done, DocumentVerdict) {
        let known = self.known().unwrap();
        assert_eq!(known.fetch().unwrap().url(), URL);
        let now = self.world.store.now();
        let mut outcome = known.receive(fetched, now, &mut self.world.entropy);
        let mut done = Done::Nothing;
        loop {
            outcome = match outcome {
                DocumentOutcome::Settled(verdict) => return (done, verdict),
                DocumentOutcome::EndGrants(why, step) => {
                    done = Done::Ended(why);
                    let (revoke, waiting) = step.into_parts();
                    let receipt = self.world.store.revoke_all(revoke);
                    waiting.ended(receipt, &mut self.world.entropy).unwrap()
                }
                DocumentOutcome::Store(step) => {
                    if done == Done::Nothing {
                        done = Done::Stored;
                    }
                    let (update, waiting) = step.into_parts();
                    let receipt = self.world.store.update_client(update);
                    DocumentOutcome::Settled(waiting.stored(receipt).unwrap())
                }
                DocumentOutcome::Forget(step) => {
                    done = Done::Forgotten;
                    let (delete, waiting) = step.into_parts();
                    let receipt = self.world.store.delete_client(delete);
                    DocumentOutcome::Settled(waiting.forgotten(receipt).unwrap())
                }
            }
        }
    }

    /// Whether its refresh token still works; it is rotated.
    fn refreshes(&mut self) -> bool {
        let token = self.refresh.clone().unwrap();
        let answer = self.world.send(&Request::refresh(URL, &token));
        if answer.is_success() {
            self.refresh = Some(tokens(&answer).refresh_token.unwrap().expose().to_owned());
        }
        answer.is_success()
    }

    fn pass(&mut self, time: Duration) {
        self.world.store.pass(time);
    }
}

fn gone() -> Result<Reply, FetchFailure> {
    Ok(Reply::new(404, "no"))
}

// D41: name, pages and redirect URIs may change; what was granted stands.
#[test]
fn a_change_of_what_is_shown_is_kept_and_ends_nothing() {
    let mut known = Known::of(public());
    assert_eq!(known.tend(Ok(public())), (Done::Nothing, DocumentVerdict::Serves));
    let renamed = document("Other name", "none", "");
    assert_eq!(known.tend(Ok(renamed)), (Done::Stored, DocumentVerdict::Serves));
    let stored = known.world.store.client(URL).unwrap();
    assert_eq!(stored.metadata.client_name.as_deref(), Some("Other name"));
    assert!(known.refreshes());
    // A stronger method is no reason either; the client has to use it from now on.
    assert_eq!(known.tend(Ok(signing(&[KEY]))), (Done::Stored, DocumentVerdict::Serves));
    assert!(!known.refreshes());
}

// CIMD-6.3-1, D41
#[test]
fn a_document_that_proves_less_ends_what_was_granted() {
    for (next, why) in [
        (public(), GrantsEnd::AuthenticationWeakened),
        (signing(&[OTHER_KEY]), GrantsEnd::KeysDisappeared),
        (
            document("Notes app", "private_key_jwt", r#","jwks_uri":"https://app.example/jwks""#),
            GrantsEnd::KeysDisappeared,
        ),
    ] {
        let mut known = Known::of(signing(&[KEY]));
        assert_eq!(known.tend(Ok(next)), (Done::Ended(why), DocumentVerdict::Serves));
        let client = known.world.store.client(URL).unwrap();
        assert_eq!(client.credential.is_confidential(), why == GrantsEnd::KeysDisappeared);
    }
    // Old and new key together, then the new one alone: a change of keys as it should be.
    let mut known = Known::of(signing(&[KEY]));
    assert_eq!(known.tend(Ok(signing(&[OTHER_KEY, KEY]))).0, Done::Stored);
    assert_eq!(known.tend(Ok(signing(&[OTHER_KEY]))).0, Done::Stored);
}

#[test]
fn the_grants_end_before_the_weaker_document_is_stored() {
    let known = Known::of(signing(&[KEY]));
    let now = known.world.store.now();
    let outcome = known.known().unwrap().receive(Ok(public()), now, &mut Seeded(9));
    let DocumentOutcome::EndGrants(_, step) = outcome else { panic!("{outcome:?}") };
    let (revoke, waiting) = step.into_parts();
    let client = RevocationTarget::Client(ClientId::new(URL).unwrap());
    assert_eq!(*revoke.target(), client);
    // The receipt of another revocation does not do.
    let other = RevokeAll::of(RevocationTarget::Subject("ann".into())).revoked();
    let waiting = waiting.ended(other, &mut Seeded(9)).unwrap_err().state;
    assert!(known.world.store.client(URL).unwrap().credential.is_confidential());
    assert!(matches!(waiting.ended(revoke.revoked(), &mut Seeded(9)), Ok(DocumentOutcome::Store(_))));
}

// CIMD-4.4-3, D41
#[test]
fn a_document_that_cannot_be_fetched_serves_for_a_while_and_then_the_client_waits() {
    for failed in [
        || Err(FetchFailure::Unreachable),
        || Err(FetchFailure::TooLarge),
        || Ok(Reply::new(500, "")),
        || Ok(Reply::new(200, "{}").with_header("content-type", b"application/json")),
        gone,
    ] {
        let mut known = Known::of(public());
        known.pass(Duration::days(6));
        assert_eq!(known.tend(failed()).1, DocumentVerdict::Serves);
        assert!(known.refreshes());
        known.pass(Duration::days(1));
        let (done, DocumentVerdict::Refused(failure)) = known.tend(failed()) else { panic!("it serves") };
        assert_eq!((done, failure.respond().status()), (Done::Nothing, 503));
        // What the store has was not touched, and serves again as soon as the document does.
        assert_eq!(known.tend(Ok(public())), (Done::Stored, DocumentVerdict::Serves));
        assert!(known.refreshes());
        known.pass(Duration::days(6));
        assert_eq!(known.tend(failed()).1, DocumentVerdict::Serves);
    }
}

// D41: seven days without a day on which it was there.
#[test]
fn a_document_that_is_gone_for_seven_days_ends_the_client() {
    let mut known = Known::of(public());
    known.pass(Duration::days(1));
    assert_eq!(known.tend(gone()).0, Done::Stored);
    known.pass(Duration::days(6));
    assert_eq!(known.tend(Ok(Reply::new(410, ""))).0, Done::Nothing);
    // It comes back for a moment, and the days count anew.
    assert_eq!(known.tend(Ok(public())).0, Done::Stored);
    assert_eq!(known.tend(gone()).0, Done::Stored);
    known.pass(Duration::days(7) - Duration::seconds(1));
    assert_eq!(known.tend(gone()).0, Done::Nothing);
    // A failure of another kind does not end it, whatever the time.
    known.pass(Duration::seconds(2));
    assert_eq!(known.tend(Err(FetchFailure::Unreachable)).0, Done::Nothing);
    assert_eq!(known.tend(gone()).0, Done::Forgotten);
    assert!(known.world.store.client(URL).is_none() && known.known().is_none());
    assert!(!known.refreshes());
}

#[test]
fn an_older_document_takes_no_newer_ones_place() {
    let known = Known::of(public());
    let before = known.world.store.now() - Duration::seconds(1);
    let renamed = document("Older name", "none", "");
    let outcome = known.known().unwrap().receive(Ok(renamed), before, &mut Seeded(9));
    assert!(matches!(outcome, DocumentOutcome::Settled(DocumentVerdict::Serves)));
}

// I-P1: a name that no person was asked about, and one that is no URL, lead to no fetch.
#[test]
fn a_stranger_has_nothing_fetched_at_the_token_endpoint() {
    let world = world();
    let tend = |id: &str| world.server.tend_document(&ClientId::new(id).unwrap());
    assert!(tend("partner").is_none() && tend("http://app.example/c.json").is_none());
    let (find, waiting) = tend("https://stranger.example/c.json").unwrap().into_parts();
    assert!(waiting.found(world.store.find_client(find)).is_none());
}

// MCP-SEC-025, I-G8
#[test]
fn documents_of_a_host_that_is_not_trusted_are_not_fetched() {
    let trusting = |hosts: &[&str]| {
        let hosts = DocumentHosts::parse(hosts.iter().copied()).unwrap();
        world_of(configuration(ISSUER).document_hosts(hosts))
    };
    let asked = Ask::of(URL, CALLBACK).query();
    for hosts in [&["app.example"][..], &["other.test", "*.example"]] {
        assert!(matches!(trusting(hosts).server.authorize(&asked), Ok(Authorizing::Fetch(_))));
    }
    for hosts in [&[][..], &["*.app.example"], &["other.test"]] {
        let refusal = trusting(hosts).server.authorize(&asked).unwrap_err();
        assert_eq!((refusal.reason(), refusal.status()), (RefusalReason::UntrustedDocument, 400));
    }
    // A host that is trusted no longer: its clients are let in no longer.
    let mut known = Known::of(public());
    known.world.server = trusting(&["other.test"]).server;
    assert_eq!(known.known().unwrap().fetch().unwrap_err().respond().status(), 401);
}
