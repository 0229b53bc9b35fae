//! What a person or a log gets to see: of a peer's words nothing, unless the host asks for them and hands them to an
//! output type of its sink (I-P8).

use mcp_authz_tokio::client::connection::SendError;
use mcp_authz_tokio::text::{HtmlText, SHOWN_GRAPHEMES, TerminalText};
use serde_json::{Value, json};

use crate::server::Answer;
use crate::world::{At, HONEST, NOTES, World, control};

/// What every peer says wherever it can say something: a number to call, an escape, a line of its own, text that runs
/// backwards, a letter that is not seen, and no end.
fn words() -> String {
    format!("call 0800 \u{1b}[2J\r\nmcp-authz: all is well \u{202e}\u{200b}\u{9b}31m<b>{}", "x".repeat(500))
}

/// The document with those words in every member that may hold any.
fn talking(honest: Answer, members: &[&str]) -> Answer {
    members.iter().fold(honest, |honest, member| honest.member(member, words()))
}

fn says_nothing(text: &str) {
    assert!(!text.contains("0800") && !text.contains("all is well"), "{text}");
    let deceives = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{200b}');
    assert!(!text.contains(deceives), "{text:?}");
}

fn observed(world: &World) -> String {
    world.shared.events.lock().unwrap().join("\n")
}

/// What a program would print of an error, however it does.
fn printed(error: &SendError) -> String {
    let mut texts = vec![error.to_string(), format!("{error:?}")];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        texts.push(cause.to_string());
        source = cause.source();
    }
    texts.join("\n")
}

#[tokio::test]
async fn a_login_shows_nothing_of_what_its_peers_say_of_themselves() {
    control().await;
    let mut world = World::new().await;
    world.change(NOTES, At::Mcp, |request, honest| match request.header("authorization") {
        Some(_) => honest,
        None => {
            let challenge = honest.header("www-authenticate").unwrap();
            let realm = "realm=\"call 0800\", error_description=\"call 0800\", x=\"\u{202e}0800\"";
            honest.with("www-authenticate", format!("{challenge}, {realm}"))
        }
    });
    world.change(NOTES, At::ResourceMetadata, |_, honest| {
        talking(honest, &["resource_name", "x", "resource_name#de"])
    });
    world.change(HONEST, At::ServerMetadata, |_, honest| {
        talking(honest, &["x", "display_name"]).member("ui_locales_supported", json!([words()]))
    });
    world.change(HONEST, At::Registration, |_, honest| talking(honest, &["x", "software_version"]));
    world.change(HONEST, At::CodeExchange, |_, honest| talking(honest, &["x", "id_token", "error_hint"]));
    assert_eq!(world.call().await.unwrap(), 200);
    says_nothing(&observed(&world));
    says_nothing(&world.pages(1).await[0].1);
}

#[tokio::test]
async fn an_error_shows_nothing_of_what_the_peer_says_of_it() {
    control().await;
    let refusal = |code: &str| json!({ "error": code, "error_description": words(), "error_uri": words(), "x": words() });
    for at in [At::Registration, At::CodeExchange] {
        for code in ["invalid_request", "invalid_client", "call_0800", "call 0800"] {
            for status in [200, 400, 401, 503] {
                let mut world = World::new().await;
                let body = refusal(code);
                world.change(HONEST, at, move |_, _| {
                    Answer::document(status, &body).with("x-reason", "call 0800")
                });
                let error = world.call().await.unwrap_err();
                says_nothing(&printed(&error));
                says_nothing(&observed(&world));
            }
        }
    }
    for (server, at) in [(NOTES, At::ResourceMetadata), (HONEST, At::ServerMetadata)] {
        for member in
            ["resource", "issuer", "authorization_servers", "token_endpoint", "response_types_supported"]
        {
            for value in [Value::from(words()), json!([words()]), json!({ words(): words() })] {
                let mut world = World::new().await;
                let said = value.clone();
                world.change(server, at, move |_, honest| honest.member(member, said.clone()));
                // A member that is of the other document says nothing there, and is passed over.
                if let Err(error) = world.call().await {
                    says_nothing(&printed(&error));
                }
                says_nothing(&observed(&world));
            }
        }
    }
    for status in [401, 403] {
        for challenge in ["Bearer call 0800", "Bearer error=\"call 0800\", scope=\"call_0800\", scope=\"x\""]
        {
            let mut world = World::new().await;
            assert_eq!(world.call().await.unwrap(), 200);
            world.change(NOTES, At::Mcp, move |_, _| {
                Answer::status(status).with("www-authenticate", challenge)
            });
            let error = world.call().await.unwrap_err();
            says_nothing(&printed(&error));
            says_nothing(&observed(&world));
        }
    }
}

// The words are there for who asks: a challenge's scopes for a prompt, a refusal's description for a log. What they may
// hold is bounded already, and the output types bound the rest.
#[tokio::test]
async fn what_a_host_shows_of_a_peer_goes_through_the_type_of_its_sink() {
    let words = words();
    for shown in [TerminalText(&words).to_string(), HtmlText(&words).to_string()] {
        let deceives = |c: char| c.is_control() || matches!(c, '\u{202e}' | '\u{200b}');
        assert!(!shown.contains(deceives), "{shown:?}");
        assert!(shown.contains("call 0800") && shown.ends_with('…'));
    }
    assert!(!HtmlText(&words).to_string().contains('<'));
    assert_eq!(TerminalText(&"ö".repeat(500)).to_string().chars().count(), SHOWN_GRAPHEMES + 1);
}
