//! The events as one self-contained page: the sequence drawn, the attacks, the table of what was proven.

use std::fmt::Write as _;

use mcp_authz_tokio::text::HtmlText;

use super::event::{Event, Party, Proven, Timed};

const LEFT: usize = 90;
const LANE: usize = 250;
const ROW: usize = 36;
const HEAD: usize = 44;

const STYLE: &str = "
:root{--ink:#17202a;--soft:#5d6b7a;--line:#cfd8e3;--paper:#fff;--band:#f4f7fb;--flow:#1f5fbf;--good:#16794a;--bad:#b3261e;--warn:#9a5b00}
@media (prefers-color-scheme:dark){:root{--ink:#e8edf3;--soft:#9aa8b7;--line:#3a4653;--paper:#12171d;--band:#1a2129;--flow:#7db0ff;--good:#5fd39a;--bad:#ff8a80;--warn:#f0b35a}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1060px;margin:0 auto;padding:32px 20px 64px}h1{font-size:1.7rem;margin:0 0 4px}h2{font-size:1.15rem;margin:40px 0 10px}
svg text.fold{fill:var(--soft)}p.lead{color:var(--soft);margin:0 0 24px}.facts{display:flex;flex-wrap:wrap;gap:12px}.facts div{background:var(--band);border-radius:10px;padding:12px 18px}
.facts b{display:block;font-size:1.35rem}.facts span{color:var(--soft);font-size:.85rem}.scroll{overflow-x:auto}
svg{display:block;min-width:900px;width:100%;height:auto;font:13px ui-monospace,monospace}svg text{fill:var(--ink)}.lane{stroke:var(--line);stroke-width:1.5}
.arrow{stroke:var(--flow);stroke-width:1.6;fill:none}.tip{fill:var(--flow)}.head rect{fill:var(--band);stroke:var(--line)}.head text{font:600 13px system-ui,sans-serif;text-anchor:middle}
.label{text-anchor:middle}.halo{paint-order:stroke;stroke:var(--paper);stroke-width:5px;stroke-linejoin:round}.proof circle{fill:var(--good)}svg .proof text{fill:var(--good);font-size:12px}
.hostile.arrow{stroke:var(--bad)}.hostile.tip,svg text.hostile{fill:var(--bad)}.refusal path{stroke:var(--warn);stroke-width:2.4;fill:none}svg .refusal text{fill:var(--warn);font-size:12px}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:8px 10px;border-bottom:1px solid var(--line);vertical-align:top}th{color:var(--soft);font-weight:500}
td:first-child{white-space:nowrap}.good{color:var(--good)}.bad{color:var(--bad)}.attack{background:var(--band);border-radius:10px;padding:14px 18px;margin:0 0 12px}
.attack h3{margin:0 0 6px;font-size:1rem}.attack dl{display:grid;grid-template-columns:90px 1fr;gap:2px 12px;margin:0}.attack dt{color:var(--soft)}.attack dd{margin:0;overflow-wrap:anywhere}
";

/// The whole page.
pub(crate) fn page(events: &[Timed]) -> String {
    let mut body = String::new();
    let mut sequence: Vec<Row<'_>> = Vec::new();
    let mut end = String::new();
    let mut left_out = 0;
    for timed in events {
        if timed.folded {
            left_out += usize::from(matches!(timed.event, Event::Message { .. }));
            continue;
        }
        if left_out > 0 && timed.event.is_step() {
            sequence.push(Row::LeftOut(std::mem::take(&mut left_out)));
        }
        match &timed.event {
            Event::Act { title, about } => {
                draw(&mut body, &std::mem::take(&mut sequence));
                push(
                    &mut body,
                    format_args!("<h2>{}</h2>\n<p class=lead>{}</p>\n", words(title), words(about)),
                );
            }
            Event::Message { .. } | Event::Evidence { .. } | Event::Refusal { .. } => {
                sequence.push(Row::Step(&timed.event))
            }
            Event::Attack { .. } => {
                draw(&mut body, &std::mem::take(&mut sequence));
                attack(&mut body, &timed.event);
            }
            Event::Note { text } => push(&mut body, format_args!("<p class=lead>{}</p>\n", words(text))),
            Event::Difference { what } => {
                push(&mut body, format_args!("<p class=bad>Differs: {}</p>\n", words(what)));
            }
            Event::Summary { proven, messages, transitions, core_microseconds, total_microseconds } => {
                let facts = [
                    (messages.to_string(), "messages over sockets"),
                    (transitions.to_string(), "calls into the core"),
                    (format!("{} ms", milliseconds(*core_microseconds)), "spent in the core"),
                    (format!("{} ms", milliseconds(*total_microseconds)), "from start to end"),
                ];
                push(&mut end, format_args!("<div class=facts>"));
                for (value, name) in facts {
                    push(&mut end, format_args!("<div><b>{value}</b><span>{name}</span></div>"));
                }
                push(&mut end, format_args!("</div>\n"));
                table(&mut end, proven);
            }
        }
    }
    draw(&mut body, &sequence);
    format!(
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\n\
         <title>mcp-authz: one authorization, from a 401 to a tool call</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<h1>One authorization, from a 401 to a tool call</h1>\n\
         <p class=lead>Recorded from real sockets by <code>mcp-authz demo</code>. Every line comes from an action or an \
         evidence value of the machines; secrets are redacted.</p>\n{end}{body}</main>\n</body>\n</html>\n"
    )
}

fn push(into: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    into.write_fmt(text).unwrap_or_default();
}

fn milliseconds(microseconds: u128) -> String {
    format!("{}.{:01}", microseconds / 1000, microseconds % 1000 / 100)
}

/// Text that may hold a peer's words, word by word, so that only single words are cut.
fn words(text: &str) -> String {
    text.split(' ').map(|word| HtmlText(word).to_string()).collect::<Vec<_>>().join(" ")
}

fn x(party: Party) -> usize {
    LEFT + party.lane() * LANE
}

/// One row of a drawing.
enum Row<'a> {
    Step(&'a Event),
    /// So many messages that repeat what was shown before.
    LeftOut(usize),
}

/// One act as a drawing: lanes from top to bottom, a row for each message and each piece of evidence.
fn draw(into: &mut String, rows: &[Row<'_>]) {
    if rows.is_empty() {
        return;
    }
    let height = HEAD + rows.len() * ROW + 14;
    let width = LEFT * 2 + LANE * 3;
    push(
        into,
        format_args!(
            "<div class=scroll><svg viewBox=\"0 0 {width} {height}\" role=img aria-label=\"sequence\">\n"
        ),
    );
    for party in Party::ALL {
        let at = x(party);
        push(into, format_args!("<line class=lane x1={at} y1=34 x2={at} y2={height} />"));
        push(
            into,
            format_args!(
                "<g class=head><rect x={} y=4 width=168 height=28 rx=8 /><text x={at} y=23>{}</text></g>\n",
                at.saturating_sub(84),
                party.name()
            ),
        );
    }
    for (row, event) in rows.iter().enumerate() {
        let y = HEAD + row * ROW + 24;
        let event = match event {
            Row::Step(event) => *event,
            Row::LeftOut(count) => {
                let middle = width / 2;
                push(
                    into,
                    format_args!(
                        "<text class=\"label halo fold\" x={middle} y={y}>⋮ {count} messages, as in the first act</text>\n"
                    ),
                );
                continue;
            }
        };
        match event {
            Event::Message { from, to, what, hostile } => {
                let class = if *hostile { " hostile" } else { "" };
                let what = if *hostile { format!("attacker: {what}") } else { what.clone() };
                let (start, end) = (x(*from), x(*to));
                let tip = if start < end { end - 8 } else { end + 8 };
                let what = shortened(&what, 92);
                // A label that is wider than its arrow stays on the paper.
                let half = what.chars().count() * 4 + 8;
                let middle = usize::midpoint(start, end).clamp(half, width - half);
                push(into, format_args!("<line class=\"arrow{class}\" x1={start} y1={y} x2={tip} y2={y} />"));
                push(
                    into,
                    format_args!(
                        "<path class=\"tip{class}\" d=\"M{end} {y}L{tip} {}L{tip} {}z\" />",
                        y - 4,
                        y + 4
                    ),
                );
                push(
                    into,
                    format_args!(
                        "<text class=\"label halo{class}\" x={middle} y={}>{}</text>\n",
                        y - 8,
                        words(&what)
                    ),
                );
            }
            Event::Evidence { at, name, of } => {
                let at = x(*at);
                let text = words(&shortened(&format!("{name}: {of}"), 70));
                let (anchor, offset) = if at > width / 2 { ("end", at - 12) } else { ("start", at + 12) };
                push(
                    into,
                    format_args!(
                        "<g class=proof><circle cx={at} cy={} r=5 /><text class=halo x={offset} y={y} text-anchor={anchor}>{text}</text></g>\n",
                        y - 4
                    ),
                );
            }
            Event::Refusal { at, why } => {
                let at = x(*at);
                let (first, second) = in_two(&format!("refused: {why}"));
                let y = if second.is_empty() { y } else { y - 8 };
                let (anchor, offset) = if at > width / 2 { ("end", at - 12) } else { ("start", at + 12) };
                push(
                    into,
                    format_args!(
                        "<g class=refusal><path d=\"M{} {}l8 8m0 -8l-8 8\" /><text class=halo x={offset} y={y} \
                         text-anchor={anchor}>{}<tspan x={offset} dy=14>{}</tspan></text></g>\n",
                        at - 4,
                        y - 8,
                        words(&first),
                        words(&second),
                    ),
                );
            }
            _ => {}
        }
    }
    into.push_str("</svg></div>\n");
}

/// Two lines of about 64 characters, broken between words.
fn in_two(text: &str) -> (String, String) {
    let mut lines = (String::new(), String::new());
    for word in text.split(' ') {
        let first = lines.1.is_empty() && lines.0.chars().count() + word.chars().count() < 64;
        let line = if first { &mut lines.0 } else { &mut lines.1 };
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    (lines.0, shortened(&lines.1, 72))
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

fn attack(into: &mut String, event: &Event) {
    let Event::Attack { name, refused, answer, reason, control, control_succeeded } = event else { return };
    let (class, verdict) = if *refused { ("good", "refused") } else { ("bad", "not refused") };
    let (control_class, outcome) = if *control_succeeded { ("good", "succeeded") } else { ("bad", "failed") };
    push(
        into,
        format_args!(
            "<div class=attack><h3>{} <span class={class}>{verdict}</span></h3><dl><dt>answer</dt><dd>{}</dd>\
             <dt>reason</dt><dd>{}</dd><dt>control</dt><dd>{} <span class={control_class}>{outcome}</span></dd></dl></div>\n",
            words(name),
            words(answer),
            words(reason),
            words(control),
        ),
    );
}

fn table(into: &mut String, proven: &[Proven]) {
    into.push_str(
        "<h2>What was proven</h2>\n<table><tr><th></th><th>statement</th><th>what was seen</th></tr>\n",
    );
    for row in proven {
        let (class, mark) = if row.held { ("good", "✓") } else { ("bad", "✗") };
        push(
            into,
            format_args!(
                "<tr><td class={class}>{mark}</td><td>{}</td><td>{}</td></tr>\n",
                words(&row.statement),
                words(&row.seen)
            ),
        );
    }
    into.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::event::{Event, Party, Timed};
    use super::page;

    #[test]
    fn peer_text_is_no_markup_and_nothing_is_loaded_from_elsewhere() {
        let hostile = "<script src=//x></script>".to_owned();
        let events: Vec<Timed> = [
            Event::Act { title: hostile.clone(), about: hostile.clone() },
            Event::Note { text: hostile.clone() },
            Event::Refusal { at: Party::Client, why: hostile.clone() },
            Event::Message {
                from: Party::Client,
                to: Party::McpServer,
                what: hostile.clone(),
                hostile: true,
            },
            Event::Evidence { at: Party::Client, name: hostile.clone(), of: hostile.clone() },
            Event::Difference { what: hostile },
        ]
        .into_iter()
        .map(|event| Timed { at: Duration::ZERO, folded: false, event })
        .collect();
        let page = page(&events);
        assert!(!page.contains("<script"), "{page}");
        assert!(!page.contains("src=") || page.contains("&lt;script src="), "{page}");
        assert!(!page.contains("href="), "{page}");
        assert!(page.ends_with("</html>\n"));
    }
}
