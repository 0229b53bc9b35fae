//! `mcp-authz demo`: one person's authorization over real sockets, from a 401 to a tool call, and four attacks that
//! are refused. What is shown comes from the actions, the evidence and the answers of the parties, never from a script.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use event::Event;
use sink::Display;

mod attacks;
mod event;
mod notes;
mod person;
mod report;
mod sink;
mod story;
mod terminal;
mod witness;
mod world;

/// What the demonstration is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Let the built-in user agent sign in and allow access, instead of the browser.
    #[arg(long)]
    auto: bool,
    /// Write the same as a self-contained page.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print one JSON object a line, and nothing else.
    #[arg(long)]
    json: bool,
    /// Print without colour.
    #[arg(long)]
    no_color: bool,
}

/// Who goes through the pages of the login the story is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Browsing {
    /// The person, in the system's browser.
    Person,
    /// The built-in user agent, because that was asked for.
    Auto,
    /// The built-in user agent, for this reason.
    Instead(&'static str),
}

/// Runs it; the exit code says whether everything was as it should be.
pub(crate) fn run(options: &Options) -> ExitCode {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let colour = !options.no_color
        && !set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
        && io::stdout().is_terminal();
    let no_display = cfg!(target_os = "linux") && !set("DISPLAY") && !set("WAYLAND_DISPLAY");
    let browsing = match (options.auto, set("CI"), no_display) {
        (true, _, _) => Browsing::Auto,
        (false, true, _) => Browsing::Instead("CI is set"),
        (false, false, true) => Browsing::Instead("There is no display"),
        (false, false, false) => Browsing::Person,
    };
    match shown(options, colour, browsing) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => crate::REFUSED.into(),
        Err(error) => {
            eprintln!("mcp-authz demo: {error}");
            crate::FAILED.into()
        }
    }
}

/// Plays, shows and reports; whether everything was as it should be.
fn shown(options: &Options, colour: bool, browsing: Browsing) -> io::Result<bool> {
    let display = if options.json { Display::Json } else { Display::Diagram { colour } };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (recorder, log) = sink::open(display);
    let ended = runtime.block_on(story::play(&recorder, browsing));
    // Tasks that outlive the story hold recorders: the log ends with them.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    drop(recorder);
    let events = log.close()?;
    if let Err(error) = &ended {
        eprintln!("mcp-authz demo: {error}");
    }
    if let Some(path) = &options.report {
        std::fs::write(path, report::page(&events))?;
    }
    let whole = events.iter().any(|timed| matches!(timed.event, Event::Summary { .. }));
    Ok(ended.is_ok() && whole && events.iter().all(|timed| timed.event.is_as_it_should_be()))
}
