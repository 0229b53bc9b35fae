//! A report as a table for people, or as JSON for programs.

use std::io::{self, Write};

use mcp_authz::revision::Revision;
use serde::Serialize;

use super::finding::{Finding, Part, Report, Section, Status, Verdict, written};
use super::line::Line;
use super::walk::Plan;

const DIM: &str = "\u{1b}[2m";
const BOLD: &str = "\u{1b}[1m";
const GREEN: &str = "\u{1b}[32m";
const RED: &str = "\u{1b}[31m";
const YELLOW: &str = "\u{1b}[33m";
const RESET: &str = "\u{1b}[0m";

/// Columns of the status.
const STATUS: usize = 5;
/// Columns of the requirement ids.
const IDS: usize = 18;
/// Columns of the text.
const TEXT: usize = 70;

/// What the report was made under.
#[derive(Debug)]
pub(crate) struct Context {
    revision: Revision,
    relaxations: Vec<Line>,
    warnings_fail: bool,
}

impl Context {
    pub(crate) fn of(plan: &Plan, warnings_fail: bool) -> Self {
        let relaxations = plan.policy.relaxations().map(written).collect();
        Self { revision: plan.revision, relaxations, warnings_fail }
    }
}

/// The object that `--json` prints. Members are added, never renamed.
#[derive(Debug, Serialize)]
struct Document<'a> {
    /// The form of this object.
    format: u8,
    server: &'a Line,
    revision: &'static str,
    relaxations: &'a [Line],
    sections: &'a [Section],
    counts: Counts,
    requests: usize,
    /// Why the walk did not come to its end; `null` when it did.
    cut_short: Option<&'a Line>,
    verdict: Verdict,
    exit_code: u8,
}

#[derive(Debug, Serialize)]
struct Counts {
    pass: usize,
    warn: usize,
    fail: usize,
    not_checked: usize,
}

impl Counts {
    fn of(report: &Report) -> Self {
        Self {
            pass: report.count(Status::Pass),
            warn: report.count(Status::Warn),
            fail: report.count(Status::Fail),
            not_checked: report.count(Status::NotChecked),
        }
    }
}

/// Writes the object.
pub(crate) fn json(mut out: impl Write, report: &Report, context: &Context) -> io::Result<()> {
    let document = Document {
        format: 1,
        server: &report.server,
        revision: context.revision.as_str(),
        relaxations: &context.relaxations,
        sections: &report.sections,
        counts: Counts::of(report),
        requests: report.requests,
        cut_short: report.cut_short.as_ref(),
        verdict: report.verdict(),
        exit_code: report.exit_code(context.warnings_fail),
    };
    serde_json::to_writer_pretty(&mut out, &document)?;
    writeln!(out)
}

/// Writes the table.
pub(crate) fn table(out: impl Write, report: &Report, context: &Context, colour: bool) -> io::Result<()> {
    Table { out, colour }.whole(report, context)
}

struct Table<W> {
    out: W,
    colour: bool,
}

impl<W: Write> Table<W> {
    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour && !style.is_empty() { format!("{style}{text}{RESET}") } else { text.to_owned() }
    }

    fn whole(&mut self, report: &Report, context: &Context) -> io::Result<()> {
        let revision = context.revision;
        writeln!(self.out, "{} (MCP {revision})", self.paint(BOLD, report.server.as_str()))?;
        for relaxation in &context.relaxations {
            writeln!(self.out, "{}", self.paint(DIM, &format!("relaxed: {relaxation}")))?;
        }
        for section in &report.sections {
            writeln!(self.out, "\n{}  {}", self.paint(BOLD, title(section.part)), section.at)?;
            self.rows(&section.findings)?;
        }
        self.end(report, context)
    }

    /// Row by row; several in a row that were not checked for one reason are one.
    fn rows(&mut self, mut findings: &[Finding]) -> io::Result<()> {
        while let Some((first, behind)) = findings.split_first() {
            let alike = |finding: &&Finding| {
                first.status == Status::NotChecked
                    && finding.status == first.status
                    && finding.seen == first.seen
            };
            let more = behind.iter().take_while(alike).count();
            if more < 2 {
                self.row(first)?;
                findings = behind;
                continue;
            }
            let (folded, rest) = findings.split_at(more.saturating_add(1));
            let names: Vec<&str> = folded.iter().map(|finding| finding.check.name).collect();
            let ids = format!("{} checks", folded.len());
            let text = wrapped(&format!("{}: {}", first.seen, names.join(", ")));
            self.columns(("-", DIM), &[ids], text.iter().map(|line| self.paint(DIM, line)).collect())?;
            findings = rest;
        }
        Ok(())
    }

    /// One finding, and how to mend it. What is as it should be takes little room.
    fn row(&mut self, finding: &Finding) -> io::Result<()> {
        let (word, style) = match finding.status {
            Status::Pass => ("pass", GREEN),
            Status::Warn => ("warn", YELLOW),
            Status::Fail => ("FAIL", RED),
            Status::NotChecked => ("-", DIM),
        };
        let seen = match finding.seen.as_str() {
            "" => finding.check.title.to_owned(),
            seen => format!("{}: {seen}", finding.check.title),
        };
        let seen_style = if finding.status == Status::NotChecked { DIM } else { "" };
        let mut text: Vec<String> = wrapped(&seen).iter().map(|line| self.paint(seen_style, line)).collect();
        if let Some(fix) = &finding.fix {
            text.extend(wrapped(&format!("fix: {fix}")).iter().map(|line| self.paint(style, line)));
        }
        let ids: Vec<String> = match finding.check.requirements {
            [] => vec!["(practice)".to_owned()],
            [first, more @ ..] if !more.is_empty() && finding.fix.is_none() => {
                vec![format!("{first} +{}", more.len())]
            }
            ids => ids.iter().map(|id| (*id).to_owned()).collect(),
        };
        self.columns((word, style), &ids, text)
    }

    /// Status, ids and text beside each other, each in as many lines as it takes.
    fn columns(&mut self, (word, style): (&str, &str), ids: &[String], text: Vec<String>) -> io::Result<()> {
        for at in 0..text.len().max(ids.len()) {
            let status = if at == 0 { word } else { "" };
            let id = ids.get(at).map(String::as_str).unwrap_or_default();
            let (status, id) = (format!("{status:<STATUS$}"), format!("{id:<IDS$}"));
            let (status, id) = (self.paint(style, &status), self.paint(DIM, &id));
            let line = text.get(at).map(String::as_str).unwrap_or_default();
            writeln!(self.out, "{}", format!(" {status} {id} {line}").trim_end())?;
        }
        Ok(())
    }

    fn end(&mut self, report: &Report, context: &Context) -> io::Result<()> {
        writeln!(self.out)?;
        for (status, word, style) in [(Status::Fail, "failed", RED), (Status::Warn, "warned", YELLOW)] {
            let names = report.names(status);
            for (at, line) in
                wrapped(&names.join(", ")).iter().enumerate().filter(|(_, line)| !line.is_empty())
            {
                let word = if at == 0 { word } else { "" };
                writeln!(self.out, "{} {line}", self.paint(style, &format!("{word:<7}")))?;
            }
        }
        if let Some(why) = &report.cut_short {
            for line in wrapped(&format!("The walk stopped: {why}.")) {
                writeln!(self.out, "{}", self.paint(RED, &line))?;
            }
        }
        let Counts { pass, warn, fail, not_checked } = Counts::of(report);
        let (verdict, style) = match report.verdict() {
            Verdict::Pass => ("PASS", GREEN),
            Verdict::Warn if context.warnings_fail => ("FAIL", RED),
            Verdict::Warn => ("PASS", YELLOW),
            Verdict::Fail => ("FAIL", RED),
            Verdict::Incomplete => ("NOT DONE", RED),
        };
        let verdict = self.paint(style, verdict);
        let requests = report.requests;
        writeln!(
            self.out,
            "{verdict}: {pass} pass, {warn} warn, {fail} fail, {not_checked} not checked, in {requests} requests."
        )
    }
}

fn title(part: Part) -> &'static str {
    match part {
        Part::McpServer => "MCP server",
        Part::ResourceMetadata => "Resource metadata",
        Part::AuthorizationServer => "Authorization server",
        Part::Client => "Client",
    }
}

/// Lines of at most so many characters, broken between words. A longer word stays whole, so that it can be copied.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { continue };
        let fits = line.chars().count().saturating_add(word.chars().count()) < TEXT;
        if line.is_empty() {
            line.push_str(word);
        } else if fits {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
