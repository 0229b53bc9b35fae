//! Text from peers on its way to a person: each sink has an output type, and there is no other way out (I-P8).
//!
//! [`TerminalText`] and [`HtmlText`] escape control characters, bidirectional and zero-width marks, and cut after
//! 80 graphemes; `HtmlText` also escapes what HTML reads as markup.

use std::fmt;

use unicode_segmentation::UnicodeSegmentation as _;

/// Graphemes shown of one peer-supplied text.
pub const SHOWN_GRAPHEMES: usize = 80;

/// Peer text for a terminal or a log line.
#[derive(Debug, Clone, Copy)]
pub struct TerminalText<'a>(pub &'a str);

/// This program's own sentence for a terminal or a log line, with paths or options of the person's in it: escaped alike,
/// and whole. Nothing of a peer's goes through here.
#[derive(Debug, Clone, Copy)]
pub struct OwnText<'a>(pub &'a str);

/// Peer text for an HTML page, in element content or a quoted attribute.
#[derive(Debug, Clone, Copy)]
pub struct HtmlText<'a>(pub &'a str);

/// Whether a character could move the cursor, reorder the line, hide, or join what is beside it.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

fn write_escaped(
    text: &str,
    graphemes: usize,
    f: &mut fmt::Formatter<'_>,
    mut plain: impl FnMut(char, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    for (shown, grapheme) in text.graphemes(true).enumerate() {
        if shown == graphemes {
            return f.write_str("…");
        }
        // A grapheme may stack any number of marks: more than a few is an attack on the reader.
        for c in grapheme.chars().take(8) {
            if is_deceptive(c) {
                write!(f, "\\u{{{:x}}}", u32::from(c))?;
            } else {
                plain(c, f)?;
            }
        }
    }
    Ok(())
}

impl fmt::Display for TerminalText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(self.0, SHOWN_GRAPHEMES, f, |c, f| write!(f, "{c}"))
    }
}

impl fmt::Display for OwnText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(self.0, usize::MAX, f, |c, f| write!(f, "{c}"))
    }
}

impl fmt::Display for HtmlText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(self.0, SHOWN_GRAPHEMES, f, |c, f| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            _ => write!(f, "{c}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{HtmlText, OwnText, SHOWN_GRAPHEMES, TerminalText};

    #[test]
    fn escapes_what_deceives() {
        assert_eq!(TerminalText("a\u{1b}[2Jb").to_string(), "a\\u{1b}[2Jb");
        assert_eq!(TerminalText("pay\u{202e}lap").to_string(), "pay\\u{202e}lap");
        assert_eq!(TerminalText("zero\u{200b}width").to_string(), "zero\\u{200b}width");
        assert_eq!(TerminalText("line\r\nbreak").to_string(), "line\\u{d}\\u{a}break");
        assert_eq!(TerminalText("plain — ünïcode").to_string(), "plain — ünïcode");
    }

    #[test]
    fn html_has_no_markup_left() {
        let shown = HtmlText("<img src=x onerror='a(\"b\")'>&amp;").to_string();
        assert_eq!(shown, "&lt;img src=x onerror=&#39;a(&quot;b&quot;)&#39;&gt;&amp;amp;");
    }

    #[test]
    fn long_text_is_cut() {
        let shown = TerminalText(&"x".repeat(500)).to_string();
        assert_eq!(shown.chars().count(), SHOWN_GRAPHEMES + 1);
        assert!(shown.ends_with('…'));
        let own = OwnText(&"x\u{1b}".repeat(500)).to_string();
        assert_eq!(own, "x\\u{1b}".repeat(500));
    }

    proptest! {
        // I-P8
        #[test]
        fn nothing_deceptive_or_unbounded_passes(text in "\\PC*|(.|\\u{202e}|\\u{1b}|\\u{200b}){0,200}") {
            for shown in [TerminalText(&text).to_string(), HtmlText(&text).to_string()] {
                prop_assert!(!shown.chars().any(super::is_deceptive));
                prop_assert!(shown.chars().count() <= (SHOWN_GRAPHEMES + 1) * 8 * 10);
            }
            let html = HtmlText(&text).to_string();
            prop_assert!(!html.contains(['<', '>', '"', '\'']));
        }
    }
}
