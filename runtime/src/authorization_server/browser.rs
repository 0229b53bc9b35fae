//! The person's browser, known by the nonce in its cookie (I-P9).
//!
//! The cookie is `__Host-` prefixed, `Secure`, `HttpOnly`, `SameSite=Lax` and for all paths. On a loopback issuer
//! over http, where browsers give no such prefix, its name holds the port instead, because cookies of one host reach
//! every port; another program on the same machine that the person visits can read it there.

use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use mcp_authz::identifier::Issuer;
use mcp_authz::secret::AgentBinding;
use mcp_authz::syntax::base64url;
use zeroize::Zeroizing;

use super::sessions::only_cookie;

/// Bytes of a nonce.
const NONCE_BYTES: usize = 32;

/// How the cookie is called and set for one issuer.
#[derive(Debug)]
pub(crate) struct Browsers {
    name: String,
    secure: bool,
    origin: String,
}

/// The browser of one request.
#[derive(Debug)]
pub struct Browser {
    agent: AgentBinding,
    fresh: Option<HeaderValue>,
}

impl Browser {
    /// What stands for it in records.
    pub fn agent(&self) -> &AgentBinding {
        &self.agent
    }

    /// The `Set-Cookie` field for a browser that came without a cookie.
    pub(crate) fn set_cookie(&self) -> Option<&HeaderValue> {
        self.fresh.as_ref()
    }
}

impl Browsers {
    pub(crate) fn new(issuer: &Issuer) -> Self {
        let origin = issuer.origin().as_str().to_owned();
        let secure = origin.starts_with("https://");
        let name = if secure {
            "__Host-mcp-authz".to_owned()
        } else {
            let port = origin.rsplit_once(':').map_or("80", |(_, port)| port);
            format!("mcp-authz-{port}")
        };
        Self { name, secure, origin }
    }

    /// The browser as its cookie says, if it has exactly one that is well-formed.
    pub(crate) fn known(&self, head: &Parts) -> Option<Browser> {
        let value = only_cookie(head, &self.name)?;
        let nonce = Zeroizing::new(base64url::decode(value).ok()?);
        let agent = (nonce.len() == NONCE_BYTES).then(|| AgentBinding::session(&nonce).ok()).flatten()?;
        Some(Browser { agent, fresh: None })
    }

    /// The browser as its cookie says, or a new cookie for it.
    ///
    /// `None` when there is no randomness.
    pub(crate) fn known_or_fresh(&self, head: &Parts) -> Option<Browser> {
        self.known(head).or_else(|| self.fresh())
    }

    /// A new cookie for the browser, whatever it has.
    ///
    /// `None` when there is no randomness.
    pub(crate) fn fresh(&self) -> Option<Browser> {
        let mut nonce = Zeroizing::new([0_u8; NONCE_BYTES]);
        getrandom::fill(nonce.as_mut_slice()).ok()?;
        let agent = AgentBinding::session(nonce.as_slice()).ok()?;
        let value = Zeroizing::new(base64url::encode(nonce.as_slice()));
        // MCP-SBP-007
        let secure = if self.secure { "; Secure" } else { "" };
        let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Lax{secure}", self.name, value.as_str());
        let mut cookie = HeaderValue::try_from(cookie).ok()?;
        cookie.set_sensitive(true);
        Some(Browser { agent, fresh: Some(cookie) })
    }

    /// Whether a POST comes from a page of this server, as far as the browser says.
    pub(crate) fn same_origin(&self, headers: &HeaderMap) -> bool {
        let is = |name: &str, expected: &str| {
            let mut values = headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (None, _) => true,
                (Some(value), None) => value.as_bytes() == expected.as_bytes(),
                _ => false,
            }
        };
        is("origin", &self.origin) && is("sec-fetch-site", "same-origin")
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::request::Parts;
    use mcp_authz::identifier::Issuer;

    use super::Browsers;

    fn head(fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::post("/decision");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn browsers(issuer: &str) -> Browsers {
        Browsers::new(&Issuer::new(issuer).unwrap())
    }

    // I-P9
    #[test]
    fn the_cookie_is_for_this_host_only_and_comes_back_as_the_same_browser() {
        let browsers = browsers("https://as.example/t");
        let fresh = browsers.known_or_fresh(&head(&[])).unwrap();
        let cookie = fresh.set_cookie().unwrap().to_str().unwrap();
        assert!(cookie.starts_with("__Host-mcp-authz="));
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"));
        let pair = cookie.split(';').next().unwrap();
        let again = head(&[("cookie", &format!("other=1; {pair}"))]);
        assert_eq!(browsers.known(&again).unwrap().agent(), fresh.agent());
        assert!(browsers.known_or_fresh(&again).unwrap().set_cookie().is_none());
        let twice = head(&[("cookie", pair), ("cookie", pair)]);
        assert!(browsers.known(&twice).is_none());
        let cut = head(&[("cookie", &pair[..pair.len() - 4])]);
        assert!(browsers.known(&cut).is_none());
        assert!(browsers.known(&head(&[("cookie", "__Host-mcp-authz=")])).is_none());
    }

    #[test]
    fn a_loopback_server_has_a_cookie_of_its_own_port() {
        let cookie = browsers("http://127.0.0.1:8080").known_or_fresh(&head(&[])).unwrap();
        let cookie = cookie.set_cookie().unwrap().to_str().unwrap();
        assert!(cookie.starts_with("mcp-authz-8080=") && !cookie.contains("Secure"));
    }

    #[test]
    fn another_origin_is_noticed() {
        let browsers = browsers("https://as.example/t");
        for (fields, same) in [
            (&[][..], true),
            (&[("origin", "https://as.example")], true),
            (&[("origin", "https://as.example"), ("sec-fetch-site", "same-origin")], true),
            (&[("origin", "https://evil.example")], false),
            (&[("origin", "null")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("origin", "https://as.example"), ("origin", "https://evil.example")], false),
        ] {
            assert_eq!(browsers.same_origin(&head(fields).headers), same, "{fields:?}");
        }
    }
}
