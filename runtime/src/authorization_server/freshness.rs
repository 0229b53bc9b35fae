//! For how long a fetched document may be used without another fetch (RFC 9111 section 4.2), within the operator's bounds.

use std::time::{Duration, UNIX_EPOCH};

use http::header::{AGE, CACHE_CONTROL, DATE, EXPIRES};
use http::{HeaderName, HeaderValue};
use mcp_authz::time::OffsetDateTime;

/// For how long client metadata documents are used before they are fetched again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentCaching {
    least: Duration,
    most: Duration,
}

impl Default for DocumentCaching {
    fn default() -> Self {
        Self { least: Duration::from_secs(300), most: Duration::from_secs(86_400) }
    }
}

impl DocumentCaching {
    /// What the header fields of a document say counts between these bounds; `None` when the least is above the most, or
    /// nothing, or the most above a week.
    pub fn within(least: Duration, most: Duration) -> Option<Self> {
        let fits = !least.is_zero() && least <= most && most <= Duration::from_secs(7 * 86_400);
        fits.then_some(Self { least, most })
    }

    /// How long a reply with these header fields is fresh, from now. What cannot be read says nothing, and who says
    /// nothing gets the least.
    pub(super) fn fresh_for(&self, headers: &[(HeaderName, HeaderValue)], now: OffsetDateTime) -> Duration {
        // MCP-REG-022
        stated(headers, now).unwrap_or(Duration::ZERO).clamp(self.least, self.most)
    }
}

fn stated(headers: &[(HeaderName, HeaderValue)], now: OffsetDateTime) -> Option<Duration> {
    let all = |name: &HeaderName| {
        let name = name.clone();
        headers.iter().filter(move |(known, _)| *known == name).filter_map(|(_, value)| value.to_str().ok())
    };
    // One field line and no other: two of a kind say nothing.
    let only = |name: &HeaderName| {
        let mut values = all(name);
        values.next().filter(|_| values.next().is_none())
    };
    let directives = || all(&CACHE_CONTROL).flat_map(|line| line.split(',')).map(str::trim);
    if directives().any(|directive| {
        let name = directive.split('=').next().unwrap_or_default();
        ["no-store", "no-cache", "private"].iter().any(|other| name.eq_ignore_ascii_case(other))
    }) {
        return None;
    }
    let seconds = |wanted: &str| {
        let mut found = directives().filter_map(|directive| directive.split_once('='));
        let mut found = found.by_ref().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        let (_, value) = found.next()?;
        match found.next() {
            Some(_) => Some(None),
            None => Some(value.trim_matches('"').parse().ok().map(Duration::from_secs)),
        }
    };
    let age = match only(&AGE) {
        Some(age) => Duration::from_secs(age.trim().parse().ok()?),
        None => Duration::ZERO,
    };
    // A shared cache's own directive first; one that cannot be read is not passed over for another.
    if let Some(stated) = seconds("s-maxage").or_else(|| seconds("max-age")) {
        return stated?.checked_sub(age);
    }
    let expires = httpdate::parse_http_date(only(&EXPIRES)?).ok()?;
    let sent = match only(&DATE) {
        Some(date) => httpdate::parse_http_date(date).ok()?,
        None => UNIX_EPOCH.checked_add(Duration::from_secs(now.unix_timestamp().try_into().ok()?))?,
    };
    expires.duration_since(sent).ok()?.checked_sub(age)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderName, HeaderValue};
    use mcp_authz::time::OffsetDateTime;

    use super::DocumentCaching;

    const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn fresh(fields: &[(&'static str, &'static str)]) -> u64 {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let now = OffsetDateTime::from_unix_timestamp(784_111_777).unwrap();
        let caching = DocumentCaching::within(Duration::from_secs(60), Duration::from_secs(3600)).unwrap();
        caching.fresh_for(&fields, now).as_secs()
    }

    // MCP-REG-022
    #[test]
    fn a_document_is_fresh_for_as_long_as_its_header_fields_say() {
        for (expected, fields) in [
            (60, &[][..]),
            (100, &[("cache-control", "max-age=100")]),
            (100, &[("cache-control", "public, MAX-AGE=\"100\"")]),
            (200, &[("cache-control", "max-age=100, s-maxage=200")]),
            (200, &[("cache-control", "max-age=100"), ("cache-control", "s-maxage=200")]),
            (90, &[("cache-control", "max-age=100"), ("age", "10")]),
            (3600, &[("cache-control", "max-age=99999999999")]),
            (100, &[("expires", "Sun, 06 Nov 1994 08:51:17 GMT")]),
            (100, &[("expires", "Sun, 06 Nov 1994 09:51:17 GMT"), ("date", "Sun, 06 Nov 1994 09:49:37 GMT")]),
            (100, &[("cache-control", "max-age=100"), ("expires", NOW)]),
        ] {
            assert_eq!(fresh(fields), expected, "{fields:?}");
        }
    }

    // MCP-REG-022: who says nothing, or nothing that can be read, gets the least.
    #[test]
    fn what_cannot_be_read_does_not_prolong_anything() {
        for fields in [
            &[("cache-control", "no-store, max-age=1000")][..],
            &[("cache-control", "no-cache"), ("cache-control", "max-age=1000")],
            &[("cache-control", "private, max-age=1000")],
            &[("cache-control", "no-cache=\"x\", max-age=1000")],
            &[("cache-control", "max-age=1000, max-age=2000")],
            &[("cache-control", "s-maxage=x, max-age=1000")],
            &[("cache-control", "max-age=-1000")],
            &[("cache-control", "max-age=1000"), ("age", "x")],
            &[("cache-control", "max-age=1000"), ("age", "1001")],
            &[("cache-control", "max-age=0"), ("expires", "Sun, 06 Nov 2094 08:51:17 GMT")],
            &[("expires", "0")],
            &[("expires", "Sun, 06 Nov 1994 08:51:17 GMT"), ("expires", "Sun, 06 Nov 2094 08:51:17 GMT")],
        ] {
            assert_eq!(fresh(fields), 60, "{fields:?}");
        }
    }

    #[test]
    fn bounds_that_contradict_each_other_are_none() {
        let within = |least, most| {
            DocumentCaching::within(Duration::from_secs(least), Duration::from_secs(most)).is_some()
        };
        assert!(within(1, 1) && within(1, 7 * 86_400));
        assert!(!within(0, 1) && !within(2, 1) && !within(1, 7 * 86_400 + 1));
    }
}
