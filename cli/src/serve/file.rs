//! Reading the configuration file, and saying what is wrong with it: where, and which member, but never what stands there, because
//! some of it is secret.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A number of the file within bounds. One outside of them is no configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub(crate) struct Within<const LEAST: i64, const MOST: i64>(i64);

impl<const LEAST: i64, const MOST: i64> Within<LEAST, MOST> {
    /// A number that this program names: it does not compile outside of the bounds.
    pub(super) const fn of<const NUMBER: i64>() -> Self {
        const { assert!(LEAST <= NUMBER && NUMBER <= MOST) }
        Self(NUMBER)
    }

    pub(super) const fn get(self) -> i64 {
        self.0
    }
}

impl<const LEAST: i64, const MOST: i64> TryFrom<i64> for Within<LEAST, MOST> {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let fits = LEAST <= number && number <= MOST;
        if fits { Ok(Self(number)) } else { Err(format!("{number} is not from {LEAST} to {MOST}")) }
    }
}

/// Reads the file.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| fault(text, &error))
}

/// What is wrong, and where.
fn fault(text: &str, error: &toml::de::Error) -> String {
    let what = without_values(error.message());
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return what };
    let line = before.matches('\n').count().saturating_add(1);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count().saturating_add(1);
    // Where the file is no TOML, what stands before may be a piece of a value.
    let is_toml = text.parse::<toml::Table>().is_ok();
    match member(before).filter(|_| is_toml) {
        Some(member) => format!("line {line}, column {column}, {member}: {what}"),
        None => format!("line {line}, column {column}: {what}"),
    }
}

/// The name of the member whose value begins here.
fn member(before: &str) -> Option<&str> {
    let name = before.trim_end().strip_suffix('=')?.trim_end();
    let is_apart = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    name.rsplit(is_apart).next().filter(|name| !name.is_empty())
}

/// The message, without the text that stands where something else belongs: it may be a password at the wrong place (I-G7).
fn without_values(message: &str) -> String {
    for what in ["invalid type: string", "invalid value: string", "unknown variant"] {
        if let Some(expected) = message.strip_prefix(what).and_then(|rest| rest.rsplit_once(", expected ")) {
            return format!("{what}, expected {}", expected.1);
        }
    }
    message.to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::configuration::Settings;
    use super::parse;

    fn fault(text: &str) -> String {
        parse::<Settings>(text).expect_err(text)
    }

    // I-G7: the line with the store holds a password.
    #[test]
    fn what_is_wrong_with_a_file_is_said_without_what_stands_there() {
        let secret = "hunter2";
        for broken in [
            "store = \"postgres://ann:hunter2@db/authz",
            "store = 'postgres://ann:hunter2@db/authz\"",
            "store = postgres://ann:hunter2@db/authz",
            "store = \"postgres://ann:hunter2@db/authz\" json_log = true",
            "store = \"postgres://ann:hunter2\\@db/authz\"",
            "store = \"postgres://ann:hunter2=\n\"",
            "store = \"postgres://db/authz?password=hunter2=\u{1}\"",
            "store = \"a\"\nstore = \"postgres://ann:hunter2@db/authz\"",
            "store = [\"postgres://ann:hunter2@db/authz\"]",
            "store = { \"hunter2\" = 1 }",
            "client = \"hunter2\"",
            "user = \"ann:hunter2\"",
            "user = [\"ann:hunter2\"]",
            "listen = \"postgres://ann:hunter2@db/authz\"",
            "json_log = \"hunter2, expected a boolean\"",
            "grant_days = \"hunter2\"",
            "registration = \"hunter2\"",
            "[[user]]\nname = \"ann\"\npassword_hash = [\"hunter2\"]",
            "[[user]]\nname = \"ann\"\npassword_hash = \"hunter2\"\nrole = \"hunter2\"",
        ] {
            let broken = format!("issuer = \"https://auth.example\"\n{broken}\n");
            let fault = fault(&broken);
            assert!(!fault.contains(secret), "{fault}");
            assert!(fault.starts_with("line ") && fault.contains(", column "), "{fault}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_place_and_its_member() {
        for (text, said) in [
            (
                "issuer = \"a\"\njson_log = \"yes\"",
                "line 2, column 12, json_log: invalid type: string, expected a boolean",
            ),
            ("\n\n  limits = { registrations = 0 }", "line 3, column 30, registrations: "),
            ("isuer = \"a\"", "line 1, column 1: unknown field `isuer`, "),
            ("issuer = \"a\"\nissuer = \"b\"", "line 2, column 1: duplicate key"),
            (
                "registration = \"everyone\"",
                "registration: unknown variant, expected one of `open`, `closed`, `token`",
            ),
            ("listen = \"here\"", "line 1, column 10, listen: "),
        ] {
            let fault = fault(text);
            assert!(fault.contains(said), "{fault}");
        }
    }

    // I-G8: nothing is bent to a number that would do.
    #[test]
    fn a_number_out_of_its_bounds_is_refused() {
        for (member, wrong, right) in [
            ("signing_key_days", &["-5", "0", "3651", "9223372036854775807", "1.5", "\"30\""][..], "3650"),
            ("grant_days", &["-1", "0", "401", "9223372036854775807", "9223372036854775808"], "400"),
            ("refresh_idle_days", &["-1", "0", "401", "9223372036854775807"], "1"),
            ("access_token_seconds", &["-1", "0", "901", "9223372036854775807"], "900"),
            ("document_cache.stale_days", &["-1", "0", "31", "9223372036854775807"], "30"),
            ("document_cache.least_seconds", &["-1"], "1"),
            ("refresh_grace.seconds", &["-1", "0", "61", "9223372036854775807"], "60"),
            ("limits.registrations", &["-1", "0", "4294967296"], "1"),
            ("limits.authorizations", &["-1", "0", "4294967296"], "1"),
            ("limits.token_requests", &["-1", "0", "4294967296"], "1"),
            ("limits.tokens_per_client", &["-1", "0", "4294967296"], "4294967295"),
            ("limits.pages_per_person", &["-1", "0"], "1"),
        ] {
            let more = if member.starts_with("refresh_grace") { "refresh_grace.repeats = 1\n" } else { "" };
            let of = |number: &str| format!("{more}{member} = {number}\n");
            assert!(parse::<Settings>(&of(right)).is_ok(), "{member} = {right}");
            let named = member.rsplit('.').next().unwrap();
            for number in wrong {
                let fault = fault(&of(number));
                let is_named = fault.contains(named) || *number == "9223372036854775808";
                assert!(is_named && fault.starts_with("line "), "{fault}");
            }
        }
    }
}
