//! Whether a database is of the schema that this program knows.

use mcp_authz::secret::SecretDigest;
use mcp_authz::syntax::base64url;

/// Why a database cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// Its version is none that this program knows.
    Newer,
    /// Its version is known, and its tables were made by other steps.
    Other,
}

/// The steps that a database of that version still needs. `digest` is what [`digest`] gave for the steps it was made by.
pub(super) fn ahead(
    schema: &'static [&'static str],
    version: i64,
    found: &str,
) -> Result<&'static [&'static str], Mismatch> {
    let done = usize::try_from(version).map_err(|_| Mismatch::Newer)?;
    let (made, ahead) = schema.split_at_checked(done).ok_or(Mismatch::Newer)?;
    if !made.is_empty() && digest(made) != found {
        return Err(Mismatch::Other);
    }
    Ok(ahead)
}

/// What tells these steps from others.
pub(super) fn digest(steps: &[&str]) -> String {
    base64url::encode(SecretDigest::of(steps.concat().as_bytes()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{Mismatch, ahead, digest};

    #[test]
    fn a_database_gets_the_steps_after_those_that_made_it_and_no_other_is_taken_for_one() {
        const TWO: &[&str] = &["CREATE TABLE a", "CREATE TABLE b"];
        assert_eq!(ahead(TWO, 0, ""), Ok(TWO));
        assert_eq!(ahead(TWO, 1, &digest(&TWO[..1])), Ok(&TWO[1..]));
        assert_eq!(ahead(TWO, 2, &digest(TWO)), Ok(&TWO[2..]));
        for (version, found) in [(1, digest(TWO)), (2, digest(&TWO[..1])), (1, String::new())] {
            assert_eq!(ahead(TWO, version, &found), Err(Mismatch::Other), "{version}");
        }
        for version in [-1, 3, i64::MAX] {
            assert_eq!(ahead(TWO, version, &digest(TWO)), Err(Mismatch::Newer), "{version}");
        }
    }
}
