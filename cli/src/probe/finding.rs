//! What a probe found, as values; the terminal and JSON draw them.

use mcp_authz::policy::{Policy, Relaxation};
use serde::Serialize;

use super::checks::Check;
use super::line::{Line, Peer, line};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    /// As the requirement says.
    Pass,
    /// Not as a recommendation says, or only by a relaxation that was named.
    Warn,
    /// Not as a requirement says.
    Fail,
    /// Nothing was seen that could tell.
    NotChecked,
}

/// One check and how it came out.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    /// The check.
    #[serde(flatten)]
    pub(crate) check: &'static Check,
    /// How it came out.
    pub(crate) status: Status,
    /// What was seen; why nothing was, if it was not checked.
    pub(crate) seen: Line,
    /// How to mend it.
    pub(crate) fix: Option<Line>,
}

/// Which part of the setup a section is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    /// The MCP server's answers.
    McpServer,
    /// The protected resource metadata.
    ResourceMetadata,
    /// One authorization server.
    AuthorizationServer,
    /// What this project's strict client makes of all of it.
    Client,
}

/// The checks of one part.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Section {
    /// Which.
    pub(crate) part: Part,
    /// The URL or issuer it is about.
    pub(crate) at: Line,
    /// How its checks came out, in their order.
    pub(crate) findings: Vec<Finding>,
}

impl Section {
    pub(crate) fn new(part: Part, at: Line) -> Self {
        Self { part, at, findings: Vec::new() }
    }

    fn add(&mut self, check: &'static Check, status: Status, seen: Line, fix: Option<Line>) {
        self.findings.push(Finding { check, status, seen, fix });
    }

    /// As it should be.
    pub(crate) fn pass(&mut self, check: &'static Check, seen: impl Into<Line>) {
        self.add(check, Status::Pass, seen.into(), None);
    }

    /// A recommendation is not kept.
    pub(crate) fn warn(&mut self, check: &'static Check, seen: impl Into<Line>, fix: impl Into<Line>) {
        self.add(check, Status::Warn, seen.into(), Some(fix.into()));
    }

    /// A requirement is not kept.
    pub(crate) fn fail(&mut self, check: &'static Check, seen: impl Into<Line>, fix: impl Into<Line>) {
        self.add(check, Status::Fail, seen.into(), Some(fix.into()));
    }

    /// Nothing could be seen.
    pub(crate) fn skip(&mut self, check: &'static Check, why: impl Into<Line>) {
        self.add(check, Status::NotChecked, why.into(), None);
    }

    /// The same for several checks.
    pub(crate) fn skip_all<'c>(
        &mut self,
        checks: impl IntoIterator<Item = &'c &'static Check>,
        why: impl Into<Line>,
    ) {
        let why = why.into();
        for check in checks {
            self.skip(check, why.clone());
        }
    }

    /// Either, in one go.
    pub(crate) fn pass_or_fail(
        &mut self,
        check: &'static Check,
        good: bool,
        seen: impl Into<Line>,
        fix: impl Into<Line>,
    ) {
        if good { self.pass(check, seen) } else { self.fail(check, seen, fix) }
    }

    /// Either, in one go.
    pub(crate) fn pass_or_warn(
        &mut self,
        check: &'static Check,
        good: bool,
        seen: impl Into<Line>,
        fix: impl Into<Line>,
    ) {
        if good { self.pass(check, seen) } else { self.warn(check, seen, fix) }
    }

    /// A requirement is not kept, but a client that names a relaxation goes on.
    pub(crate) fn fail_or_relax(
        &mut self,
        check: &'static Check,
        policy: &Policy,
        relaxation: &Relaxation,
        seen: impl Into<Line>,
        fix: impl Into<Line>,
    ) {
        if policy.allows(relaxation) {
            let seen = seen.into().and("; taken because of the relaxation ").and(relaxation.name());
            self.warn(check, seen, fix);
        } else {
            let fix = fix.into().and(". Until then a client needs ").and(option(relaxation));
            self.fail(check, seen, fix);
        }
    }
}

/// A relaxation as it is written. Its scope is a peer's text.
pub(crate) fn written(relaxation: &Relaxation) -> Line {
    let text = relaxation.to_string();
    match text.split_once('=') {
        Some((_, scope)) => line![relaxation.name(), "=", Peer(scope)],
        None => relaxation.name().into(),
    }
}

/// The option that names a relaxation.
pub(crate) fn option(relaxation: &Relaxation) -> Line {
    line!["--relax '", written(relaxation), "'"]
}

/// Everything that was found.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// The URL the person gave.
    pub(crate) server: Line,
    /// Part by part.
    pub(crate) sections: Vec<Section>,
    /// Requests sent.
    pub(crate) requests: usize,
    /// Why the walk did not come to its end, if it did not.
    pub(crate) cut_short: Option<Line>,
}

/// The end of a report in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// No check failed, and none warned.
    Pass,
    /// No check failed.
    Warn,
    /// A check failed.
    Fail,
    /// No check failed, but the walk could not be done, or not to its end.
    Incomplete,
}

impl Report {
    /// All findings.
    pub(crate) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.sections.iter().flat_map(|section| &section.findings)
    }

    pub(crate) fn count(&self, status: Status) -> usize {
        self.findings().filter(|finding| finding.status == status).count()
    }

    /// The names of the checks that came out so, each once, in their order.
    pub(crate) fn names(&self, status: Status) -> Vec<&'static str> {
        let mut names = Vec::new();
        for finding in self.findings().filter(|finding| finding.status == status) {
            if !names.contains(&finding.check.name) {
                names.push(finding.check.name);
            }
        }
        names
    }

    pub(crate) fn verdict(&self) -> Verdict {
        if self.count(Status::Fail) > 0 {
            Verdict::Fail
        } else if self.cut_short.is_some() {
            // What was not seen is not as it should be.
            Verdict::Incomplete
        } else if self.count(Status::Warn) > 0 {
            Verdict::Warn
        } else {
            Verdict::Pass
        }
    }

    /// The exit code: 0, 1 when a check failed (or warned, if that is to count), 2 when the walk could not be done.
    pub(crate) fn exit_code(&self, warnings_fail: bool) -> u8 {
        match self.verdict() {
            Verdict::Pass => 0,
            Verdict::Warn => u8::from(warnings_fail),
            Verdict::Fail => 1,
            Verdict::Incomplete => 2,
        }
    }
}
