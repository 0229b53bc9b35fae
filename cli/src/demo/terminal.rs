//! The events as a sequence diagram on a terminal: four lanes on the left, what happened on the right.

use std::io::{self, Write};

use mcp_authz_tokio::text::TerminalText;

use super::event::{Event, Party, Timed};

const DIM: &str = "\u{1b}[2m";
const BOLD: &str = "\u{1b}[1m";
const GREEN: &str = "\u{1b}[32m";
const RED: &str = "\u{1b}[31m";
const CYAN: &str = "\u{1b}[36m";
const YELLOW: &str = "\u{1b}[33m";
const RESET: &str = "\u{1b}[0m";

/// Columns from one lane to the next.
const PITCH: usize = 12;
/// Columns beside the lanes.
const BESIDE: usize = 54;
/// Columns of a note.
const NOTE: usize = 96;
/// Columns before the first lane.
const MARGIN: usize = 5;

/// Draws on a terminal, with or without colour.
#[derive(Debug)]
pub(crate) struct Terminal<W> {
    out: W,
    colour: bool,
    /// Messages left out since the last line.
    left_out: usize,
}

impl<W: Write> Terminal<W> {
    pub(crate) fn new(out: W, colour: bool) -> Self {
        Self { out, colour, left_out: 0 }
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour { format!("{style}{text}{RESET}") } else { text.to_owned() }
    }

    /// The names above the lanes, each in the middle of its own.
    fn heads() -> String {
        let mut line = String::new();
        for party in Party::ALL {
            let middle = MARGIN.saturating_add(party.lane().saturating_mul(PITCH));
            let start = middle.saturating_sub(party.name().len() / 2);
            let pad = start.saturating_sub(line.len());
            line.push_str(&" ".repeat(pad));
            line.push_str(party.name());
        }
        line
    }

    /// The four lanes with an arrow from one to another.
    fn arrow(&self, from: Party, to: Party, style: &str) -> String {
        let (low, high) = (from.lane().min(to.lane()), from.lane().max(to.lane()));
        let rightward = from.lane() < to.lane();
        let mut line = " ".repeat(MARGIN);
        for party in Party::ALL {
            let lane = party.lane();
            let inside = (low..high).contains(&lane);
            let cell = match lane {
                _ if lane == to.lane() && rightward => "▶",
                _ if lane == to.lane() => "◀",
                _ if lane == from.lane() && rightward => "├",
                _ if lane == from.lane() => "┤",
                _ if inside => "┼",
                _ => "│",
            };
            let cell = if cell == "│" { self.paint(DIM, cell) } else { self.paint(style, cell) };
            line.push_str(&cell);
            let gap = PITCH.saturating_sub(1);
            let gap = if inside { self.paint(style, &"─".repeat(gap)) } else { " ".repeat(gap) };
            if lane.saturating_add(1) < Party::ALL.len() {
                line.push_str(&gap);
            }
        }
        line
    }

    /// The four lanes with a mark on one.
    fn mark(&self, at: Option<Party>, mark: &str, style: &str) -> String {
        let mut line = " ".repeat(MARGIN);
        for party in Party::ALL {
            let cell = if Some(party) == at { self.paint(style, mark) } else { self.paint(DIM, "│") };
            line.push_str(&cell);
            if party.lane().saturating_add(1) < Party::ALL.len() {
                line.push_str(&" ".repeat(PITCH.saturating_sub(1)));
            }
        }
        line
    }

    /// Writes a row: the lanes and what stands beside them, in as many lines as it takes.
    fn row(&mut self, lanes: &str, style: &str, text: &str) -> io::Result<()> {
        let mut lanes = lanes.to_owned();
        for line in wrapped(&clean(text), BESIDE) {
            writeln!(
                self.out,
                "{lanes}   {}",
                if style.is_empty() { line } else { self.paint(style, &line) }
            )?;
            lanes = self.mark(None, "", "");
        }
        Ok(())
    }

    /// Shows one event.
    pub(crate) fn show(&mut self, timed: &Timed) -> io::Result<()> {
        if timed.folded {
            self.left_out += usize::from(matches!(timed.event, Event::Message { .. }));
            return Ok(());
        }
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 && timed.event.is_step() {
            let text = format!("⋮ {left_out} messages, as in the first act");
            let lanes = self.mark(None, "", "");
            self.row(&lanes, DIM, &text)?;
        }
        match &timed.event {
            Event::Act { title, about } => {
                writeln!(self.out, "\n{}", self.paint(BOLD, &clean(title)))?;
                writeln!(self.out, "{}\n", self.paint(DIM, &clean(about)))?;
                writeln!(self.out, "{}", self.paint(DIM, &Self::heads()))?;
            }
            Event::Message { from, to, what, hostile } => {
                let style = if *hostile { RED } else { CYAN };
                let lanes = self.arrow(*from, *to, style);
                if *hostile {
                    self.row(&lanes, RED, &format!("attacker: {what}"))?;
                } else {
                    self.row(&lanes, "", what)?;
                }
            }
            Event::Evidence { at, name, of } => {
                let lanes = self.mark(Some(*at), "✓", GREEN);
                self.row(&lanes, GREEN, &format!("{name}: {of}"))?;
            }
            Event::Refusal { at, why } => {
                let lanes = self.mark(Some(*at), "✗", YELLOW);
                self.row(&lanes, YELLOW, &format!("refused: {why}"))?;
            }
            Event::Note { text } => {
                writeln!(self.out)?;
                for line in wrapped(&clean(text), NOTE) {
                    writeln!(self.out, "{}", self.paint(DIM, &line))?;
                }
                writeln!(self.out)?;
            }
            Event::Attack { name, refused, answer, reason, control, control_succeeded } => {
                let (style, verdict) = if *refused { (GREEN, "refused") } else { (RED, "NOT REFUSED") };
                writeln!(self.out, "\n   {}: {}", self.paint(BOLD, name), self.paint(style, verdict))?;
                writeln!(self.out, "     answer   {}", clean(answer))?;
                writeln!(self.out, "     reason   {}", clean(reason))?;
                let (style, outcome) =
                    if *control_succeeded { (GREEN, "succeeded") } else { (RED, "FAILED") };
                writeln!(self.out, "     control  {}: {}", clean(control), self.paint(style, outcome))?;
            }
            Event::Difference { what } => {
                writeln!(self.out, "{} {}", self.paint(RED, "differs:"), clean(what))?;
            }
            Event::Summary { proven, messages, transitions, core_microseconds, total_microseconds } => {
                let width = proven.iter().map(|row| row.statement.chars().count()).max().unwrap_or(0);
                writeln!(self.out, "\n{}\n", self.paint(BOLD, "What was proven"))?;
                for row in proven {
                    let mark = if row.held { self.paint(GREEN, "✓") } else { self.paint(RED, "✗") };
                    let pad = " ".repeat(width.saturating_sub(row.statement.chars().count()));
                    let seen = self.paint(DIM, &clean(&row.seen));
                    writeln!(self.out, " {mark} {}{pad}  {seen}", clean(&row.statement))?;
                }
                writeln!(
                    self.out,
                    "\n{messages} messages over sockets in {} ms, of which {} ms in the core: {transitions} calls.",
                    milliseconds(*total_microseconds),
                    milliseconds(*core_microseconds),
                )?;
            }
        }
        self.out.flush()
    }
}

fn milliseconds(microseconds: u128) -> String {
    format!("{}.{:01}", microseconds / 1000, microseconds % 1000 / 100)
}

/// Lines of at most so many characters, broken between words; what comes later is indented.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { continue };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count().saturating_add(word.chars().count()) < width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(format!("  {word}"));
        }
    }
    lines
}

/// Peer text may be part of a line: word by word through the terminal's escaping type, so that only single words
/// are cut.
fn clean(text: &str) -> String {
    text.split(' ').map(|word| TerminalText(word).to_string()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::event::{Event, Party, Timed};
    use super::Terminal;

    fn drawn(event: Event, colour: bool) -> String {
        let mut out = Vec::new();
        Terminal::new(&mut out, colour).show(&Timed { at: Duration::ZERO, folded: false, event }).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn message(from: Party, to: Party) -> Event {
        Event::Message { from, to, what: "GET /x".to_owned(), hostile: false }
    }

    #[test]
    fn an_arrow_runs_from_sender_to_receiver() {
        let right = drawn(message(Party::Client, Party::AuthorizationServer), false);
        assert_eq!(right, "     │           ├───────────┼───────────▶   GET /x\n");
        let left = drawn(message(Party::McpServer, Party::Client), false);
        assert_eq!(left, "     │           ◀───────────┤           │   GET /x\n");
    }

    #[test]
    fn the_names_stand_over_their_lanes() {
        let heads = Terminal::<Vec<u8>>::heads();
        assert_eq!(heads, "  browser     client    MCP server  auth server");
    }

    #[test]
    fn a_long_line_goes_on_beside_the_lanes() {
        let why = "a word and another ".repeat(5);
        let shown = drawn(Event::Refusal { at: Party::Client, why }, false);
        assert_eq!(shown.lines().count(), 2);
        assert!(
            shown.lines().all(|line| line.chars().count() <= 100 && line.starts_with("     │")),
            "{shown}"
        );
    }

    #[test]
    fn repetitions_are_counted_instead_of_shown() {
        let mut out = Vec::new();
        let mut terminal = Terminal::new(&mut out, false);
        for folded in [true, true, false] {
            let event = message(Party::Client, Party::McpServer);
            terminal.show(&Timed { at: Duration::ZERO, folded, event }).unwrap();
        }
        let shown = String::from_utf8(out).unwrap();
        assert_eq!(shown.lines().count(), 2);
        assert!(shown.contains("⋮ 2 messages"));
    }

    #[test]
    fn peer_text_cannot_steer_the_terminal() {
        let hostile = "x\u{1b}]0;title\u{7} \u{202e}y".to_owned();
        let shown = drawn(Event::Difference { what: hostile }, false);
        assert!(!shown.trim_end_matches('\n').chars().any(char::is_control), "{shown:?}");
        assert!(!shown.contains('\u{202e}'));
    }

    #[test]
    fn without_colour_there_is_no_escape_sequence() {
        let event =
            Event::Evidence { at: Party::Client, name: "IssuerMatched".into(), of: "https://a".into() };
        assert!(!drawn(event.clone(), false).contains('\u{1b}'));
        assert!(drawn(event, true).contains('\u{1b}'));
    }
}
