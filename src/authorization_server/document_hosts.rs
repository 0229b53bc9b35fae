//! Whose client metadata documents are read: the operator's policy on hosts (MCP security considerations, trust policies).

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

/// One host, or everything below one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum HostRule {
    Exactly(String),
    Below(String),
}

/// Text that names no hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a host as app.example.com, or all hosts below one as *.example.com")]
pub struct InvalidDocumentHost;

/// The hosts whose documents are read. An empty list names nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DocumentHosts(Vec<HostRule>);

impl DocumentHosts {
    /// Reads a list of `host` and `*.host`. The star stands for one label or more, and never for none.
    ///
    /// # Errors
    /// [`InvalidDocumentHost`] for anything else.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, InvalidDocumentHost> {
        texts.into_iter().map(rule).collect::<Result<Vec<_>, _>>().map(Self)
    }

    /// Whether documents of this host are read.
    pub fn contains(&self, host: &str) -> bool {
        // MCP-SEC-025: whole labels, in any case, as names are compared.
        self.0.iter().any(|rule| match rule {
            HostRule::Exactly(known) => host.eq_ignore_ascii_case(known),
            HostRule::Below(parent) => {
                let labels = host.len().checked_sub(parent.len()).and_then(|at| host.split_at_checked(at));
                labels.is_some_and(|(labels, end)| {
                    end.eq_ignore_ascii_case(parent) && labels.len() > 1 && labels.ends_with('.')
                })
            }
        })
    }
}

fn rule(text: &str) -> Result<HostRule, InvalidDocumentHost> {
    let (parent, name) = match text.strip_prefix("*.") {
        Some(parent) => (true, parent),
        None => (false, text),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if !name.split('.').all(is_label) {
        return Err(InvalidDocumentHost);
    }
    let name = name.to_string();
    Ok(if parent { HostRule::Below(name) } else { HostRule::Exactly(name) })
}

#[cfg(test)]
mod tests {
    use super::DocumentHosts;

    fn hosts(texts: &[&str]) -> DocumentHosts {
        DocumentHosts::parse(texts.iter().copied()).unwrap()
    }

    // MCP-SEC-025
    #[test]
    fn a_host_is_one_that_is_named_or_below_one() {
        let exact = hosts(&["app.example.com"]);
        assert!(exact.contains("app.example.com") && exact.contains("APP.example.COM"));
        for other in ["example.com", "x.app.example.com", "xapp.example.com", "app.example.com.evil.test", ""]
        {
            assert!(!exact.contains(other), "{other}");
        }
        let below = hosts(&["*.example.com"]);
        assert!(below.contains("app.example.com") && below.contains("a.b.EXAMPLE.com"));
        for other in ["example.com", ".example.com", "evilexample.com", "example.com.evil.test", "com", ""] {
            assert!(!below.contains(other), "{other}");
        }
    }

    // I-G8
    #[test]
    fn nothing_named_is_nobody_and_nothing_malformed_is_a_name() {
        assert!(!hosts(&[]).contains("app.example.com"));
        for text in [
            "",
            "*",
            "*.",
            ".",
            ".example.com",
            "a..b",
            "https://a.example",
            "a.example/",
            "a.*.b",
            "a b",
            "*.*.b",
        ] {
            assert!(DocumentHosts::parse([text]).is_err(), "{text}");
        }
    }
}
