//! The wall clock, as a value a host can replace.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use mcp_authz::time::OffsetDateTime;

/// Where the runtime reads the time it passes to the core.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The current instant.
    fn now(&self) -> OffsetDateTime;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    /// A clock set before 1970 reads as 1970: everything has expired for those who wait, nothing is newly valid.
    fn now(&self) -> OffsetDateTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs())
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .and_then(|second| second.replace_nanosecond(since.subsec_nanos()).ok())
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}
