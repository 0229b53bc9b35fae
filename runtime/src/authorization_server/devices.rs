//! Browsers in which a person signed in by password before: each has tries of its own, so that nobody who tries the person's name
//! from elsewhere locks them out.
//!
//! What says so is a cookie, sealed under the server's key: it names the person and holds a number drawn for it, so that every
//! process over one store knows it and none has to remember it. It signs nobody in, outlives the session and what signs it
//! out, and counts for its person's name alone. Whoever shows none, or one that cannot be opened, is answered no otherwise.

use std::sync::Arc;

use http::HeaderValue;
use http::request::Parts;
use mcp_authz::sealer::Sealer;
use mcp_authz::syntax::base64url;
use mcp_authz::syntax::json::{JsonObject, ObjectWriter};
use mcp_authz::time::{Duration, OffsetDateTime};

use super::sessions::{cookie, only_cookie};

/// How long a browser counts as one of its person's.
const KNOWN: Duration = Duration::days(180);

/// Longest sealed text, in bytes.
const DEVICE_BYTES: usize = 4096;

/// A browser, by the number that was drawn for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Device([u8; 16]);

#[cfg(test)]
impl Device {
    pub(super) const fn of(number: [u8; 16]) -> Self {
        Self(number)
    }
}

/// Makes the cookies and reads them.
pub(super) struct Devices {
    sealer: Arc<dyn Sealer + Send + Sync>,
    name: String,
    secure: bool,
}

impl Devices {
    /// Browsers at an issuer that is https or not.
    pub(super) fn new(sealer: Arc<dyn Sealer + Send + Sync>, secure: bool) -> Self {
        let prefix = if secure { "__Host-" } else { "" };
        Self { sealer, name: format!("{prefix}mcp-authz-device"), secure }
    }

    /// What is sealed for no other use.
    fn associated(&self) -> Vec<u8> {
        [self.name.as_bytes(), b" device 1"].concat()
    }

    /// The cookie for the browser of somebody who has just given their password.
    pub(super) fn cookie(&self, person: &str, now: OffsetDateTime) -> Option<HeaderValue> {
        let mut number = [0_u8; 16];
        getrandom::fill(&mut number).ok()?;
        let text = ObjectWriter::new()
            .integer("at", now.unix_timestamp())
            .string("person", person)
            .string("number", base64url::encode(&number))
            .finish();
        let sealed = self.sealer.seal(&self.associated(), &text).ok()?;
        cookie(&self.name, &base64url::encode(&sealed), KNOWN, self.secure)
    }

    /// The browser of a request, if that person signed in with it.
    pub(super) fn of(&self, request: &Parts, person: &str, now: OffsetDateTime) -> Option<Device> {
        let sealed = base64url::decode(only_cookie(request, &self.name)?).ok()?;
        let text = self.sealer.open(&self.associated(), &sealed).ok()?;
        let device = JsonObject::parse(&text, DEVICE_BYTES).ok()?;
        let at = OffsetDateTime::from_unix_timestamp(device.integer("at").ok().flatten()?).ok()?;
        // Another's browser counts for nobody.
        if now >= at.saturating_add(KNOWN) || device.required_string("person").ok()? != person {
            return None;
        }
        base64url::decode(device.required_string("number").ok()?).ok()?.try_into().ok().map(Device)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Request;
    use http::request::Parts;
    use mcp_authz::time::{Duration, OffsetDateTime};

    use super::{Devices, KNOWN};
    use crate::sealer::AeadSealer;

    fn showing(cookies: &[&str]) -> Parts {
        Request::get("/").header("cookie", cookies.join("; ")).body(()).unwrap().into_parts().0
    }

    // I-P7
    #[test]
    fn a_browser_counts_for_its_person_for_a_while_and_cannot_be_made_up() {
        let sealer = Arc::new(AeadSealer::ephemeral().unwrap());
        let (ours, again) = (Devices::new(sealer.clone(), true), Devices::new(sealer.clone(), true));
        let at = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let set = ours.cookie("ann", at).unwrap().to_str().unwrap().to_owned();
        assert!(set.starts_with("__Host-mcp-authz-device=") && !set.contains("ann"), "{set}");
        assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=15552000; Secure"), "{set}");
        let pair = set.split(';').next().unwrap();
        let request = showing(&["other=1", pair]);
        let device = ours.of(&request, "ann", at);
        assert!(device.is_some() && device == again.of(&request, "ann", at + KNOWN - Duration::SECOND));
        assert!(ours.of(&request, "bob", at).is_none() && ours.of(&request, "", at).is_none());
        assert!(ours.of(&request, "ann", at + KNOWN).is_none());
        assert!(ours.of(&showing(&[pair, pair]), "ann", at).is_none());
        assert!(ours.of(&showing(&[&pair[..pair.len() - 4]]), "ann", at).is_none());
        assert!(ours.of(&showing(&[]), "ann", at).is_none());
        let stranger = Devices::new(Arc::new(AeadSealer::ephemeral().unwrap()), true);
        assert!(stranger.of(&request, "ann", at).is_none());
        let next = ours.cookie("ann", at).unwrap().to_str().unwrap().to_owned();
        assert_ne!(device, ours.of(&showing(&[next.split(';').next().unwrap()]), "ann", at));
    }

    // A session, or whatever else is sealed under the key, is no browser that was signed in with.
    #[test]
    fn what_is_sealed_for_another_use_is_no_device() {
        let sealer = Arc::new(AeadSealer::ephemeral().unwrap());
        let at = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let plain = Devices::new(sealer.clone(), false).cookie("ann", at).unwrap();
        let pair = plain.to_str().unwrap().split(';').next().unwrap().to_owned();
        assert!(Devices::new(sealer, true).of(&showing(&[&format!("__Host-{pair}")]), "ann", at).is_none());
    }
}
