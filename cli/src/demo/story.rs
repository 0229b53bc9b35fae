//! The acts: a login that a tool call asks for, a step-up, a refresh, then the attacks and the account of it all.

use std::time::Duration;

use mcp_authz_tokio::client::connection::{Connection, McpReply, McpRequest, SendError};
use mcp_authz_tokio::client::driver::Driver;

use super::Browsing;
use super::attacks::{self, Outcome};
use super::event::{Event, Party, Proven};
use super::person::{BuiltIn, Part, Person};
use super::sink::Recorder;
use super::witness::Witness;
use super::world::{Failure, World};

/// How long a person may take on one page.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long everything may take when nobody has to be waited for.
const AUTO_LIMIT: Duration = Duration::from_secs(60);

/// Plays everything and takes the stage down again.
pub(super) async fn play(recorder: &Recorder, browsing: Browsing) -> Result<(), Failure> {
    let world = World::start(Witness::new(recorder.clone())).await?;
    let limit = if browsing == Browsing::Person { PATIENCE.saturating_mul(3) } else { AUTO_LIMIT };
    let played = tokio::select! {
        played = acts(&world, browsing) => played,
        () = tokio::time::sleep(limit) => Err("it took too long".into()),
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    world.stop().await;
    played
}

async fn acts(world: &World, browsing: Browsing) -> Result<(), Failure> {
    let witness = &world.witness;
    let (built_in, _) = BuiltIn::new(world.http.clone(), witness.recorder.clone(), Part::Honest);
    let instead = match browsing {
        Browsing::Instead(why) => Some(why),
        _ => None,
    };
    let person = Person { built_in, instead, own: browsing == Browsing::Person };
    let driver = world.client(person, PATIENCE).await?;
    let (connection, login) = login(world, &driver).await?;
    let step_up = step_up(world, &connection).await;
    let rotation = rotation(world, &connection).await;
    drop(connection);
    driver.close().await;
    let outcomes = attacks::all(world).await?;
    summary(world, [login, step_up, rotation], &outcomes);
    Ok(())
}

/// A new act.
pub(super) fn act(witness: &Witness, title: &str, about: &str) {
    witness.recorder.record(Event::Act { title: title.to_owned(), about: about.to_owned() });
}

/// A JSON-RPC request of the MCP client.
fn json_rpc(id: u32, operation: &str, method: &str, params: &str) -> McpRequest {
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
    McpRequest::json_rpc(operation, body)
}

/// The first request of every client.
pub(super) fn initialize() -> McpRequest {
    let params =
        r#"{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"demo","version":"1"}}"#;
    json_rpc(1, "initialize", "initialize", params)
}

fn initialized() -> McpRequest {
    McpRequest::json_rpc("initialized", r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
}

/// The list of tools.
pub(super) fn list_tools() -> McpRequest {
    json_rpc(2, "tools/list", "tools/list", "{}")
}

fn read_notes() -> McpRequest {
    json_rpc(3, "tools/call read_notes", "tools/call", r#"{"name":"read_notes","arguments":{}}"#)
}

fn add_note() -> McpRequest {
    let params = r#"{"name":"add_note","arguments":{"text":"call Bob"}}"#;
    json_rpc(4, "tools/call add_note", "tools/call", params)
}

/// Whether a request was answered as it should be, with this text in the answer.
fn holds(witness: &Witness, what: &str, answer: &Result<McpReply, SendError>, text: &str) -> bool {
    let problem = match answer {
        Ok(reply) if !matches!(reply.status, 200 | 202) => format!("{what}: {}", reply.status),
        Ok(reply) if !String::from_utf8_lossy(&reply.body).contains(text) => {
            format!("{what}: the answer is another one")
        }
        Ok(_) => return true,
        Err(error) => format!("{what}: {error}"),
    };
    witness.recorder.record(Event::Difference { what: problem });
    false
}

async fn login(world: &World, driver: &Driver) -> Result<(Connection, Proven), Failure> {
    let witness = &world.witness;
    act(
        witness,
        "1. From a 401 to a tool call",
        "The client knows one URL. The 401 leads it to the authorization server, where alice allows reading.",
    );
    let connection = Connection::new(driver.clone(), &world.notes_url)?;
    let mut held = true;
    for (request, text) in [
        (initialize(), "serverInfo"),
        (initialized(), ""),
        (list_tools(), "read_notes"),
        (read_notes(), "buy milk"),
    ] {
        let answer = connection.send(&request).await;
        held &= holds(witness, &request.operation, &answer, text);
    }
    let scopes = connection.scopes().to_string();
    held &= scopes == "notes:read";
    let statement = "A client that knows one URL gets to a tool call".to_owned();
    Ok((connection, Proven { statement, seen: format!("session for {scopes}"), held }))
}

async fn step_up(world: &World, connection: &Connection) -> Proven {
    let witness = &world.witness;
    act(
        witness,
        "2. Step-up",
        "Adding a note needs more than was allowed. The 403 says what, and alice is asked for just that.",
    );
    let before = connection.scopes().to_string();
    let answer = connection.send(&add_note()).await;
    let mut held = holds(witness, "add_note", &answer, "2 notes");
    let after = connection.scopes().to_string();
    held &= before == "notes:read" && after == "notes:read notes:write";
    held &= witness.facts().denials.iter().any(|why| why.contains("lacks a scope"));
    let statement = "A 403 leads to more scope, and loses none".to_owned();
    Proven { statement, seen: format!("{before} → {after}"), held }
}

async fn rotation(world: &World, connection: &Connection) -> Proven {
    let witness = &world.witness;
    act(
        witness,
        "3. Refresh",
        "The refresh token is exchanged: the old one is retired in the same transaction that stores the new one.",
    );
    let before = witness.evidence("RefreshRotation").0;
    let refreshed = connection.refresh().await;
    if let Err(error) = &refreshed {
        witness.recorder.record(Event::Difference { what: format!("refresh: {error}") });
    }
    let answer = connection.send(&read_notes()).await;
    let mut held = refreshed.is_ok() && holds(witness, "read_notes", &answer, "call Bob");
    let rotations = witness.evidence("RefreshRotation").0.saturating_sub(before);
    held &= rotations == 1;
    let statement = "A refresh token is used once".to_owned();
    Proven { statement, seen: format!("{rotations} rotation, new token accepted"), held }
}

fn summary(world: &World, acts: [Proven; 3], outcomes: &[Outcome]) {
    let witness = &world.witness;
    let mut proven = Vec::from(acts);
    for (name, statement) in [
        ("ResourceMatched", "The metadata is the resource's own"),
        ("IssuerMatched", "Metadata and callback are the asked issuer's"),
        ("CallbackMatched", "The callback answers this client's request"),
        ("RedirectMatched", "The code goes to a registered address only"),
        ("ConsentGiven", "The person agreed, in the browser that was asked"),
        ("VerifierMatched", "Whoever redeems a code holds its verifier"),
        ("AudienceAccepted", "A token is taken by its own resource"),
    ] {
        let (count, _) = witness.evidence(name);
        proven.push(Proven {
            statement: statement.to_owned(),
            seen: format!("{name}, {count} times"),
            held: count > 0,
        });
    }
    for outcome in outcomes {
        proven.push(Proven {
            statement: outcome.statement.to_owned(),
            seen: outcome.answer.clone(),
            held: outcome.refused && outcome.control_succeeded,
        });
    }
    let recorder = &witness.recorder;
    recorder.record(Event::Summary {
        proven,
        messages: recorder.messages(),
        transitions: world.core.calls(),
        core_microseconds: world.core.total().as_micros(),
        total_microseconds: recorder.elapsed().as_micros(),
    });
}

/// Sends what an attacker sends, as it is, and shows it.
pub(super) async fn hostile(
    world: &World,
    to: Party,
    what: &str,
    request: reqwest::RequestBuilder,
) -> Result<reqwest::Response, Failure> {
    let recorder = &world.witness.recorder;
    recorder.hostile(true);
    recorder.message(Party::Client, to, what);
    recorder.hostile(false);
    Ok(request.send().await?)
}
