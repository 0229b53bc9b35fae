//! The demonstration as a person or a CI job runs it: the binary, its exit code, what it prints and what it writes.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

fn run(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mcp-authz"))
        .args(arguments)
        .env("TMPDIR", directory)
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        .env_remove("CI")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn events(output: &Output) -> Vec<Value> {
    let lines = text(&output.stdout).lines();
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

/// The longest run of base64url in a text: codes, states, verifiers and tokens have 43 characters and more.
fn longest_random(text: &str) -> &str {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-');
    text.split(word)
        .filter(|word| word.chars().any(|c| c.is_ascii_digit()))
        .max_by_key(|word| word.len())
        .unwrap()
}

#[test]
fn every_act_is_played_and_every_attack_refused_beside_its_control() {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("flow.html");
    let started = Instant::now();
    let output = run(&["demo", "--auto", "--json", "--report", report.to_str().unwrap()], directory.path());
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(text(&output.stderr), "");

    let events = events(&output);
    assert_eq!(of_kind(&events, "act").len(), 7);
    assert!(of_kind(&events, "difference").is_empty());
    let attacks = of_kind(&events, "attack");
    assert_eq!(attacks.len(), 4);
    for (attack, (answer, reason)) in attacks.iter().zip([
        ("400 invalid_grant", "the code was used before"),
        ("401 invalid_token", "the token is not meant for this resource"),
        ("0 token requests", "does not come from the authorization server that was asked"),
        ("400, shown to the person; no redirect", "an address that it has not registered"),
    ]) {
        assert_eq!(attack["refused"], true, "{attack}");
        assert_eq!(attack["control_succeeded"], true, "{attack}");
        assert!(attack["answer"].as_str().unwrap().contains(answer), "{attack}");
        assert!(attack["reason"].as_str().unwrap().contains(reason), "{attack}");
    }
    let seen: Vec<&str> = of_kind(&events, "evidence").iter().filter_map(|it| it["name"].as_str()).collect();
    for name in [
        "ResourceMatched",
        "IssuerMatched",
        "RedirectMatched",
        "ConsentGiven",
        "CallbackMatched",
        "VerifierMatched",
        "CodeRedemption",
        "AudienceAccepted",
        "StepUp",
        "RefreshRotation",
        "RevokeFamily",
    ] {
        assert!(seen.contains(&name), "{name} is not among {seen:?}");
    }
    let summary = of_kind(&events, "summary");
    assert_eq!(summary.len(), 1);
    assert!(summary[0]["proven"].as_array().unwrap().iter().all(|row| row["held"] == true));
    assert!(summary[0]["transitions"].as_u64().unwrap() > 50);
    assert!(summary[0]["core_microseconds"].as_u64().unwrap() > 0);

    let page = std::fs::read_to_string(&report).unwrap();
    assert!(page.contains("</html>") && page.contains("<svg") && !page.contains("<script"));
    for shown in [text(&output.stdout), &page] {
        assert!(longest_random(shown).len() < 32, "{}", longest_random(shown));
        assert!(!shown.contains("Bearer ") && !shown.contains("eyJ"));
    }
    // The store is gone with the run; only the report is left.
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn the_diagram_has_no_colour_where_nobody_sees_it_and_says_who_goes_through_the_pages() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(&["demo"], directory.path());
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(!shown.contains('\u{1b}'));
    let widest = shown.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 120, "{widest}");
    assert!(shown.contains("auth server") && shown.contains("What was proven") && shown.contains('▶'));
    if cfg!(target_os = "linux") {
        assert!(shown.contains("There is no display: the built-in user agent goes to"));
        assert!(shown.contains("state=…"));
    }
}

#[test]
fn a_report_that_cannot_be_written_is_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("no/such/directory/flow.html");
    let output = run(&["demo", "--auto", "--report", nowhere.to_str().unwrap()], directory.path());
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("mcp-authz demo:"));
}

#[test]
fn the_help_names_every_option() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(&["demo", "--help"], directory.path());
    assert!(output.status.success());
    for option in ["--auto", "--report <FILE>", "--json", "--no-color"] {
        assert!(text(&output.stdout).contains(option), "{option}");
    }
    assert!(text(&run(&["--help"], directory.path()).stdout).contains("demo"));
}
