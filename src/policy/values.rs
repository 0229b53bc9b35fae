//! What a relaxation says beside its scope. Each is written as the scope, a space, and the rest.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use super::InvalidRelaxation;
use crate::identifier::{Issuer, Network, Origin};
use crate::limits;
use crate::syntax::form::{self, Form};
use crate::syntax::uri::Uri;

/// Scope and rest of a value.
fn split<'t, T, E>(
    name: &'static str,
    text: &'t str,
    scope: impl FnOnce(&'t str) -> Result<T, E>,
) -> Result<(T, &'t str), InvalidRelaxation> {
    let (before, rest) = text.split_once(' ').unwrap_or((text, ""));
    let scope = scope(before).map_err(|_| InvalidRelaxation::InvalidScope { name })?;
    Ok((scope, rest))
}

/// How an issuer wants loopback redirect URIs: with the name `localhost`, or with one of a few ports, or both. It
/// compares exactly what OAuth 2.1 section 8.4.2 tells it to compare without the port.
///
/// Written `https://as.example localhost 8080 8081`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoopbackRedirect {
    issuer: Issuer,
    localhost: bool,
    ports: BTreeSet<u16>,
}

impl LoopbackRedirect {
    const NAME: &'static str = "LoopbackRedirect";
    const USAGE: &'static str = "LoopbackRedirect=ISSUER [localhost] [PORT ...]";

    /// That issuer knows the name `localhost` instead of an address (`localhost`), and these ports instead of any
    /// (`ports`; none for any). The host listens on 127.0.0.1 and ::1 both, before the authorization begins.
    ///
    /// # Errors
    /// [`InvalidRelaxation::InvalidValue`] when it says neither, for port 0, and for more ports than
    /// [`limits::REDIRECT_URIS`].
    pub fn new(
        issuer: Issuer,
        localhost: bool,
        ports: impl IntoIterator<Item = u16>,
    ) -> Result<Self, InvalidRelaxation> {
        let ports: BTreeSet<u16> = ports.into_iter().collect();
        let says_nothing = !localhost && ports.is_empty();
        if says_nothing || ports.contains(&0) || ports.len() > limits::REDIRECT_URIS {
            return Err(InvalidRelaxation::InvalidValue { name: Self::NAME, usage: Self::USAGE });
        }
        Ok(Self { issuer, localhost, ports })
    }

    /// The issuer.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Whether the name `localhost` takes the place of an address.
    pub fn localhost(&self) -> bool {
        self.localhost
    }

    /// The ports it knows; none for any.
    pub fn ports(&self) -> impl ExactSizeIterator<Item = u16> {
        self.ports.iter().copied()
    }

    /// Whether the issuer knows that port.
    pub fn knows(&self, port: Option<u16>) -> bool {
        self.ports.is_empty() || port.is_some_and(|port| self.ports.contains(&port))
    }
}

impl fmt::Display for LoopbackRedirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.issuer)?;
        if self.localhost {
            f.write_str(" localhost")?;
        }
        self.ports.iter().try_for_each(|port| write!(f, " {port}"))
    }
}

impl FromStr for LoopbackRedirect {
    type Err = InvalidRelaxation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (issuer, rest) = split(Self::NAME, text, Issuer::new)?;
        let invalid = || InvalidRelaxation::InvalidValue { name: Self::NAME, usage: Self::USAGE };
        let mut words: Vec<&str> = rest.split(' ').filter(|_| !rest.is_empty()).collect();
        let localhost = words.first() == Some(&"localhost");
        if localhost {
            words.remove(0);
        }
        let ports: Vec<u16> =
            words.iter().map(|word| word.parse()).collect::<Result<_, _>>().map_err(|_| invalid())?;
        let read = Self::new(issuer, localhost, ports.iter().copied())?;
        // I-G2: a port named twice is a slip of the pen.
        if read.ports.len() == ports.len() { Ok(read) } else { Err(invalid()) }
    }
}

/// Further parameters of an issuer's authorization endpoint, such as `audience` or `prompt`; never one that the
/// protocol gives a meaning.
///
/// Written `https://as.example audience=x&prompt=consent`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorizationExtras {
    issuer: Issuer,
    pairs: BTreeMap<String, String>,
}

impl AuthorizationExtras {
    const NAME: &'static str = "AuthorizationExtras";
    const USAGE: &'static str =
        "AuthorizationExtras=ISSUER NAME=VALUE[&...], without names of OAuth and without repetition";

    /// The names that are the client's own, that move the answer elsewhere, or that carry a secret.
    const OURS: [&'static str; 24] = [
        "response_type",
        "response_mode",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "resource",
        "code_challenge",
        "code_challenge_method",
        "code_verifier",
        "request",
        "request_uri",
        "registration",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
        "grant_type",
        "code",
        "iss",
        "error",
        "dpop_jkt",
        "authorization_details",
        "nonce",
        "username",
    ];

    /// These parameters for that issuer.
    ///
    /// # Errors
    /// [`InvalidRelaxation::InvalidValue`] for none, too many, an empty or repeated name, and a name of the protocol's.
    pub fn new<N: Into<String>, V: Into<String>>(
        issuer: Issuer,
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, InvalidRelaxation> {
        let given: Vec<(String, String)> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let count = given.len();
        let pairs: BTreeMap<String, String> = given.into_iter().collect();
        // I-G2, OAUTH21-3.1-6
        let repeated = pairs.len() != count;
        let ours =
            |name: &String| name.is_empty() || Self::OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name));
        let within = (1..=limits::FORM_PARAMETERS).contains(&count);
        if repeated || !within || pairs.keys().any(ours) {
            return Err(InvalidRelaxation::InvalidValue { name: Self::NAME, usage: Self::USAGE });
        }
        Ok(Self { issuer, pairs })
    }

    /// The issuer.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Names and values.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Display for AuthorizationExtras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.issuer, form::encode(self.pairs()))
    }
}

impl FromStr for AuthorizationExtras {
    type Err = InvalidRelaxation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (issuer, rest) = split(Self::NAME, text, Issuer::new)?;
        let invalid = || InvalidRelaxation::InvalidValue { name: Self::NAME, usage: Self::USAGE };
        let form = Form::parse(rest.as_bytes()).map_err(|_| invalid())?;
        let pairs: Vec<(String, String)> = form
            .names()
            .map(|name| (name.to_string(), form.get(name).unwrap_or_default().to_string()))
            .collect();
        Self::new(issuer, pairs)
    }
}

/// Private networks that a flow for a server of one origin may reach: the server itself, and whatever its metadata
/// names. A server of another origin leads nobody there.
///
/// Written `https://mcp.corp.example 10.0.0.0/8 fd00::/8`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrivateNetworks {
    origin: Origin,
    networks: Vec<Network>,
}

impl PrivateNetworks {
    const NAME: &'static str = "PrivateNetworks";
    const USAGE: &'static str = "PrivateNetworks=ORIGIN ADDRESS/PREFIX [...], of private ranges";
    /// Networks in one relaxation; a company's ranges are a handful.
    const MOST: usize = 64;

    /// These networks, for servers of that origin.
    ///
    /// # Errors
    /// [`InvalidRelaxation::InvalidValue`] for no network, or more than 64.
    pub fn new(
        origin: Origin,
        networks: impl IntoIterator<Item = Network>,
    ) -> Result<Self, InvalidRelaxation> {
        let networks: Vec<Network> = networks.into_iter().collect();
        if !(1..=Self::MOST).contains(&networks.len()) {
            return Err(InvalidRelaxation::InvalidValue { name: Self::NAME, usage: Self::USAGE });
        }
        Ok(Self { origin, networks })
    }

    /// The origin of the servers.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The networks.
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }
}

impl fmt::Display for PrivateNetworks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)?;
        self.networks.iter().try_for_each(|network| write!(f, " {network}"))
    }
}

impl FromStr for PrivateNetworks {
    type Err = InvalidRelaxation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (origin, rest) = split(Self::NAME, text, Origin::new)?;
        let networks: Result<Vec<Network>, _> = rest.split(' ').map(str::parse).collect();
        let networks =
            networks.map_err(|_| InvalidRelaxation::InvalidValue { name: Self::NAME, usage: Self::USAGE })?;
        Self::new(origin, networks)
    }
}

/// The proxy that fetches to public and private addresses go through. It resolves names, so it and no longer this
/// program sees the addresses: the host gives its word that the proxy lets nobody into networks it should not.
///
/// Written `http://proxy.corp.example:3128 enforces-address-policy`; without the second word it is refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyUrl(String);

impl ProxyUrl {
    const NAME: &'static str = "EgressProxy";
    const USAGE: &'static str = "EgressProxy=http[s]://HOST[:PORT] enforces-address-policy";
    const WORD: &'static str = "enforces-address-policy";

    /// That proxy, of which the host knows that it refuses connections to addresses that MCP servers must not reach.
    ///
    /// # Errors
    /// [`InvalidRelaxation::InvalidScope`] for anything but scheme (http or https), host and port.
    pub fn enforcing_address_policy(url: impl Into<String>) -> Result<Self, InvalidRelaxation> {
        let url = url.into();
        let invalid = || InvalidRelaxation::InvalidScope { name: Self::NAME };
        let uri = Uri::parse(&url).map_err(|_| invalid())?;
        let plain = uri.path().is_empty() && uri.query().is_none() && uri.fragment().is_none();
        let web = matches!(uri.scheme(), "http" | "https") && uri.has_authority() && !uri.host().is_empty();
        // A password here would stand in every listing of the policy.
        if !plain || !web || uri.userinfo().is_some() {
            return Err(invalid());
        }
        Ok(Self(url))
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The proxy's host.
    pub fn host(&self) -> &str {
        Uri::read(&self.0).map_or("", |uri| uri.host())
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, Self::WORD)
    }
}

impl FromStr for ProxyUrl {
    type Err = InvalidRelaxation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (url, rest) = text.split_once(' ').unwrap_or((text, ""));
        let read = Self::enforcing_address_policy(url)?;
        if rest != Self::WORD {
            return Err(InvalidRelaxation::InvalidValue { name: Self::NAME, usage: Self::USAGE });
        }
        Ok(read)
    }
}
