//! Where events go: shown as they happen, kept for the report.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use super::event::{Event, Party, Timed};
use super::terminal::Terminal;

/// How events are shown while they happen.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Display {
    /// The sequence diagram.
    Diagram {
        /// With escape sequences for colour.
        colour: bool,
    },
    /// One JSON object a line.
    Json,
}

/// The sending end; every party of the demonstration has a clone.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    started: Instant,
    events: mpsc::Sender<Timed>,
    hostile: Arc<AtomicBool>,
    folded: Arc<AtomicBool>,
    messages: Arc<AtomicUsize>,
}

impl Recorder {
    /// Records that a message went over a socket.
    pub(crate) fn message(&self, from: Party, to: Party, what: impl Into<String>) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        // The servers are nobody's accomplices.
        let hostile = self.hostile.load(Ordering::SeqCst) && matches!(from, Party::Browser | Party::Client);
        self.record(Event::Message { from, to, what: what.into(), hostile });
    }

    /// Whether what is sent from now on is an attacker's.
    pub(crate) fn hostile(&self, hostile: bool) {
        self.hostile.store(hostile, Ordering::SeqCst);
    }

    /// Whether what happens from now on is a repetition that a diagram may leave out.
    pub(crate) fn fold(&self, folded: bool) {
        self.folded.store(folded, Ordering::SeqCst);
    }

    /// Messages recorded so far.
    pub(crate) fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    /// Records that something happened now.
    pub(crate) fn record(&self, event: Event) {
        // The receiver lives until every sender is gone; after that nobody reads.
        let folded = event.is_step() && self.folded.load(Ordering::SeqCst);
        let _ = self.events.send(Timed { at: self.started.elapsed(), folded, event });
    }

    /// Since the demonstration began.
    pub(crate) fn elapsed(&self) -> std::time::Duration {
        self.started.elapsed()
    }
}

/// The receiving end: shows on standard output, in the order of arrival, and keeps everything.
#[derive(Debug)]
pub(crate) struct Log {
    shower: thread::JoinHandle<io::Result<Vec<Timed>>>,
}

/// Opens the log.
pub(crate) fn open(display: Display) -> (Recorder, Log) {
    let (sender, receiver) = mpsc::channel::<Timed>();
    let shower = thread::spawn(move || {
        let mut kept = Vec::new();
        let mut out = io::stdout().lock();
        let mut terminal = match display {
            Display::Diagram { colour } => Some(Terminal::new(io::stdout(), colour)),
            Display::Json => None,
        };
        for timed in receiver {
            match &mut terminal {
                Some(terminal) => terminal.show(&timed)?,
                None => {
                    serde_json::to_writer(&mut out, &timed)?;
                    writeln!(out)?;
                }
            }
            kept.push(timed);
        }
        Ok(kept)
    });
    let recorder = Recorder {
        started: Instant::now(),
        events: sender,
        hostile: Arc::default(),
        folded: Arc::default(),
        messages: Arc::default(),
    };
    (recorder, Log { shower })
}

impl Log {
    /// Waits until every recorder is gone and all is shown; gives everything back.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub(crate) fn close(self) -> io::Result<Vec<Timed>> {
        self.shower.join().map_err(|_| io::Error::other("the display stopped"))?
    }
}
