//! What lies under one name of a store: a sealed record, the number it was written under, and the claim on it.
//!
//! The record is secret and sealed, the numbers are not: who can write to the place can undo what is in it anyway.

use mcp_authz::limits;
use mcp_authz::syntax::json::{JsonObject, ObjectWriter};
use mcp_authz::time::{Duration, OffsetDateTime};

use super::StoreFailed;

/// The form of the bytes.
const FORMAT: i64 = 1;

/// More than a record ever has.
const ENTRY_BYTES: usize = 1024 * 1024;

/// A process that refreshes the session, until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) fence: u64,
    pub(super) until: OffsetDateTime,
}

impl Claim {
    /// Whether others have to wait for it.
    pub(super) fn holds(&self, now: OffsetDateTime) -> bool {
        // One that reaches far further than a claim can was made before the clock was set back: nobody waits that long.
        // A clock that is put right by a little ends no claim.
        let longest = Duration::seconds(limits::REFRESH_CLAIM_SECONDS.saturating_mul(2));
        now < self.until && self.until <= now.checked_add(longest).unwrap_or(self.until)
    }
}

/// A record as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) claim: Option<Claim>,
    pub(super) record: Vec<u8>,
}

impl Entry {
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, StoreFailed> {
        let damaged = || StoreFailed::Damaged("the record to be kept".into());
        let number = |number: u64| i64::try_from(number).map_err(|_| damaged());
        let nanoseconds =
            |at: OffsetDateTime| i64::try_from(at.unix_timestamp_nanos()).map_err(|_| damaged());
        let record = String::from_utf8(self.record.clone()).map_err(|_| damaged())?;
        let writer = ObjectWriter::new()
            .integer("format", FORMAT)
            .integer("number", number(self.number)?)
            .string("record", record);
        let writer = match &self.claim {
            None => writer,
            Some(claim) => writer
                .integer("fence", number(claim.fence)?)
                .integer("claimed_until_ns", nanoseconds(claim.until)?),
        };
        Ok(writer.finish())
    }

    /// `place` is where the bytes lie, for the person to find.
    pub(super) fn from_bytes(bytes: &[u8], place: &str) -> Result<Self, StoreFailed> {
        let damaged = || StoreFailed::Damaged(place.into());
        let object = JsonObject::parse(bytes, ENTRY_BYTES).map_err(|_| damaged())?;
        match object.integer("format") {
            Ok(Some(FORMAT)) => {}
            Ok(Some(later)) if later > FORMAT => return Err(StoreFailed::Later(place.into())),
            _ => return Err(damaged()),
        }
        let integer = |name| object.integer(name).map_err(|_| damaged());
        let positive = |number: i64| u64::try_from(number).map_err(|_| damaged());
        let claim = match (integer("fence")?, integer("claimed_until_ns")?) {
            (None, None) => None,
            (Some(fence), Some(until)) => Some(Claim {
                fence: positive(fence)?,
                until: OffsetDateTime::from_unix_timestamp_nanos(until.into()).map_err(|_| damaged())?,
            }),
            _ => return Err(damaged()),
        };
        let number = positive(integer("number")?.ok_or_else(damaged)?)?;
        let record = object.required_string("record").map_err(|_| damaged())?.as_bytes().to_vec();
        Ok(Self { number, claim, record })
    }
}
