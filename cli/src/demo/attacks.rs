//! Four attacks on sockets, each beside a control that differs from it in nothing but the attack.

use std::time::Duration;

use mcp_authz::message::exchange::Reply;
use mcp_authz_tokio::client::connection::{Connection, SendError};
use mcp_authz_tokio::client::driver::LoginError;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use tokio::sync::mpsc;

use super::event::{Event, Party};
use super::person::{Answered, BuiltIn, Part};
use super::story::{act, hostile, initialize};
use super::witness::{error_answer, mcp_answer};
use super::world::{Failure, World};

/// What an attack and its control came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What it proves.
    pub(super) statement: &'static str,
    /// Whether it was refused.
    pub(super) refused: bool,
    /// The answer the attacker got.
    pub(super) answer: String,
    /// Whether the control succeeded.
    pub(super) control_succeeded: bool,
}

/// All of them, in turn.
pub(super) async fn all(world: &World) -> Result<Vec<Outcome>, Failure> {
    Ok(vec![
        replayed_code(world).await?,
        other_resource(world).await?,
        mixed_up(world).await?,
        other_redirect(world).await?,
    ])
}

/// A client of its own whose person plays this part.
async fn client(
    world: &World,
    part: Part,
    url: &str,
) -> Result<(Connection, mpsc::UnboundedReceiver<Answered>), Failure> {
    // Until the attack or the callback it goes as in the first act.
    world.witness.recorder.fold(true);
    let (agent, answers) = BuiltIn::new(world.http.clone(), world.witness.recorder.clone(), part);
    let driver = world.client(agent, Duration::from_secs(10)).await?;
    Ok((Connection::new(driver, url)?, answers))
}

/// Whether a request goes through, over whatever logins it takes.
async fn works(world: &World, connection: &Connection) -> bool {
    match connection.send(&initialize()).await {
        Ok(reply) => reply.status == 200,
        Err(error) => {
            let what = format!("a request that should go through: {error}");
            world.witness.recorder.record(Event::Difference { what });
            false
        }
    }
}

/// Shows the attack's outcome.
fn report(
    world: &World,
    statement: &'static str,
    name: &str,
    attack: (bool, String, Option<String>),
    control: (&str, bool),
) -> Outcome {
    let (refused, answer, reason) = attack;
    world.witness.recorder.fold(false);
    let reason = reason.unwrap_or_else(|| "no reason was seen".to_owned());
    world.witness.recorder.record(Event::Attack {
        name: name.to_owned(),
        refused,
        answer: answer.clone(),
        reason,
        control: control.0.to_owned(),
        control_succeeded: control.1,
    });
    Outcome { statement, refused, answer, control_succeeded: control.1 }
}

/// The client's own code exchange, sent a second time byte for byte.
async fn replayed_code(world: &World) -> Result<Outcome, Failure> {
    let witness = &world.witness;
    act(
        witness,
        "4. Attack: a replayed code",
        "Somebody recorded the client's token request, code and verifier included, and sends it again.",
    );
    let (connection, _answers) = client(world, Part::Honest, &world.notes_url).await?;
    let control = works(world, &connection).await;
    let (url, body) = witness.facts().exchange.take().ok_or("no code exchange was seen")?;
    let request =
        world.http.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body.to_vec());
    let before = witness.facts().token_failures.len();
    let what = "POST /token, the same request again";
    let reply = hostile(world, Party::AuthorizationServer, what, request).await?;
    let status = reply.status().as_u16();
    let first = error_answer(status, &reply.bytes().await?);
    witness.recorder.message(Party::AuthorizationServer, Party::Client, &*first);
    let reason = witness.facts().token_failures.get(before).cloned();
    // What the code had brought is dead too, wherever it is.
    let family = connection.refresh().await;
    let dead =
        matches!(&family, Err(SendError::Denied(error)) if error.to_string().contains("invalid_grant"));
    let answer = if dead { format!("{first}; its refresh token is dead too") } else { first.clone() };
    let refused = first == "400 invalid_grant" && dead;
    Ok(report(
        world,
        "A code is good once; a replay ends its family",
        "A replayed authorization code",
        (refused, answer, reason),
        ("the first redemption of the same code", control),
    ))
}

/// A token for the calendar, presented to the notes.
async fn other_resource(world: &World) -> Result<Outcome, Failure> {
    let witness = &world.witness;
    act(
        witness,
        "5. Attack: a token for another resource",
        "The calendar got a token from the client and presents it to the notes, which trust the same issuer.",
    );
    let (connection, _answers) = client(world, Part::Honest, &world.calendar_url).await?;
    let control = works(world, &connection).await;
    // The client itself does not let it out for another URL.
    let (kept, token) = connection
        .session(|session| {
            let kept = session.authorization_for(&world.notes_url).err();
            (kept, session.authorization_for(&world.calendar_url))
        })
        .ok_or("there is no session for the calendar")?;
    if let Some(error) = &kept {
        witness.refusal(Party::Client, &error.to_string());
    }
    let token = token?;
    let request = world
        .http
        .post(&world.notes_url)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, text/event-stream")
        .header(AUTHORIZATION, token.expose())
        .body(initialize().body);
    let before = witness.facts().denials.len();
    let what = "initialize, with the calendar's token";
    let reply = hostile(world, Party::McpServer, what, request).await?;
    let mut seen = Reply::new(reply.status().as_u16(), Vec::new());
    for (name, value) in reply.headers() {
        seen = seen.with_header(name.as_str(), value.as_bytes());
    }
    let answer = mcp_answer(&seen);
    witness.recorder.message(Party::McpServer, Party::Client, &*answer);
    let reason = witness.facts().denials.get(before).cloned();
    Ok(report(
        world,
        "A token for another resource opens nothing",
        "A token for another resource",
        (answer.starts_with("401 invalid_token") && kept.is_some(), answer, reason),
        ("the same token at its own resource", control),
    ))
}

/// The callback of this very login, but in the name of another issuer.
async fn mixed_up(world: &World) -> Result<Outcome, Failure> {
    let witness = &world.witness;
    act(
        witness,
        "6. Attack: a callback from a mixed-up issuer",
        "The callback has the right state and a real code, but says that another server issued it.",
    );
    let part = Part::MixedUp("https://evil.example");
    let (connection, mut answers) = client(world, part, &world.notes_url).await?;
    let (before, tokens) = {
        let facts = witness.facts();
        (facts.rejections.len(), facts.token_requests)
    };
    let attempt = connection.send(&initialize()).await;
    let rejected = matches!(attempt, Err(SendError::Login(LoginError::Rejected(_))));
    let delivered = answers.recv().await.is_some();
    let (reason, sent) = {
        let facts = witness.facts();
        (facts.rejections.get(before).cloned(), facts.token_requests.saturating_sub(tokens))
    };
    witness.recorder.fold(true);
    let control = works(world, &connection).await;
    Ok(report(
        world,
        "A callback of another issuer is not used",
        "A callback from a mixed-up issuer",
        (rejected && delivered && sent == 0, format!("rejected; {sent} token requests were sent"), reason),
        ("the same login, its callback unchanged", control),
    ))
}

/// The authorization request of this very login, but with one byte of the redirect URI changed.
async fn other_redirect(world: &World) -> Result<Outcome, Failure> {
    let witness = &world.witness;
    act(
        witness,
        "7. Attack: a redirect URI that differs by one byte",
        "Somebody changed the address the code is to be sent to, in its last letter.",
    );
    let (connection, mut answers) = client(world, Part::OtherRedirect, &world.notes_url).await?;
    let before = witness.facts().refusals.len();
    let control = works(world, &connection).await;
    let answered = answers.try_recv().ok();
    let reason = witness.facts().refusals.get(before).cloned();
    let refused = answered.is_some_and(|answered| answered.status == 400 && !answered.redirected);
    let answer = match answered {
        Some(Answered { status, redirected: false }) => format!("{status}, shown to the person; no redirect"),
        Some(Answered { status, redirected: true }) => format!("{status}, redirected"),
        None => "none".to_owned(),
    };
    Ok(report(
        world,
        "One byte of a redirect URI is enough to refuse it",
        "A redirect URI that differs by one byte",
        (refused, answer, reason),
        ("the registered redirect URI", control),
    ))
}
