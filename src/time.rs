//! Time as an argument: instants come from the host, arithmetic is checked.

pub use ::time::{Duration, OffsetDateTime};

/// `instant + duration`, held at the largest representable instant instead of overflowing.
pub(crate) fn after(instant: OffsetDateTime, duration: Duration) -> OffsetDateTime {
    instant.saturating_add(duration)
}

/// A duration of whole seconds from an unsigned count, held at the largest representable one.
///
/// `expires_in` is any JSON integer: a server may write 2^63.
pub(crate) fn seconds(count: u64) -> Duration {
    Duration::seconds(i64::try_from(count).unwrap_or(i64::MAX))
}
