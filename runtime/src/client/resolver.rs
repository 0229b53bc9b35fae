//! Names to addresses, and the addresses a fetch may connect to (RFC 6890, RFC 6761, I-L8).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use mcp_authz::identifier::address;
pub use mcp_authz::identifier::{InvalidNetwork, Network};
use mcp_authz::message::exchange::AddressPolicy;

use crate::BoxFuture;

/// Looks names up. The answer is checked by whoever asks: a resolver decides nothing.
pub trait Resolver: Send + Sync + fmt::Debug + 'static {
    /// The addresses of a name; none for a name that does not exist.
    fn resolve(&self, name: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>>;
}

/// The operating system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, name: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let name = name.to_owned();
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name, 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

/// Whether a fetch under that policy may connect to the address.
pub(crate) fn permitted(policy: AddressPolicy, networks: &[Network], address: IpAddr) -> bool {
    // MCP-SBP-020, MCP-SBP-023, CIMD-6.5-2
    match policy {
        AddressPolicy::Public => address::is_public(address),
        AddressPolicy::Loopback => address::is_loopback(address),
        AddressPolicy::PublicAndPrivateNetworks => {
            address::is_public(address)
                || (address::is_private(address) && networks.iter().any(|network| network.contains(address)))
        }
        // A policy of a later core that this runtime does not know permits nothing.
        _ => false,
    }
}

/// A name has an address that the fetch may not connect to.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the name has an address that this fetch may not connect to")]
pub(crate) struct Forbidden;

/// The resolver a connection is made through: it hands on only what the policy permits, so that the address
/// checked is the address connected to.
pub(crate) struct Checked {
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) policy: AddressPolicy,
    pub(crate) networks: Arc<[Network]>,
}

impl reqwest::dns::Resolve for Checked {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let name = name.as_str().trim_end_matches('.').to_ascii_lowercase();
        let (policy, networks) = (self.policy, Arc::clone(&self.networks));
        // RFC 6761 section 6.3: names under localhost are never asked of a server.
        let local = name == "localhost" || name.ends_with(".localhost");
        let answer = (!local).then(|| self.resolver.resolve(&name));
        Box::pin(async move {
            let addresses = match answer {
                Some(answer) => answer.await?,
                None => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            };
            // MCP-SBP-025: what is handed on is what is connected to. One forbidden address among public ones is the mark
            // of a name that was made to point inside.
            if !addresses.iter().all(|address| permitted(policy, &networks, *address)) {
                return Err(Forbidden.into());
            }
            let addresses: reqwest::dns::Addrs =
                Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

/// The resolver behind an egress proxy: it finds the proxy, wherever that is, and nothing else. Other names are the proxy's
/// to resolve.
pub(crate) struct OnlyProxy {
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) proxy: String,
}

impl reqwest::dns::Resolve for OnlyProxy {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let answer =
            name.as_str().eq_ignore_ascii_case(&self.proxy).then(|| self.resolver.resolve(&self.proxy));
        Box::pin(async move {
            let addresses = answer.ok_or(Forbidden)?.await?;
            let addresses: reqwest::dns::Addrs =
                Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use mcp_authz::message::exchange::AddressPolicy;
    use reqwest::dns::Resolve as _;

    use super::{Network, OnlyProxy, Resolver, permitted};
    use crate::BoxFuture;

    #[test]
    fn a_policy_permits_its_range_only() {
        let networks: [Network; 2] = ["10.1.0.0/16".parse().unwrap(), "fd12::/16".parse().unwrap()];
        let (public, loopback, private) =
            (AddressPolicy::Public, AddressPolicy::Loopback, AddressPolicy::PublicAndPrivateNetworks);
        for (address, permitted_under) in [
            ("8.8.8.8", vec![public, private]),
            ("10.1.2.3", vec![private]),
            ("fd12::7", vec![private]),
            ("127.0.0.1", vec![loopback]),
            ("::1", vec![loopback]),
            ("10.2.0.1", vec![]),
            ("169.254.169.254", vec![]),
            ("::ffff:10.1.2.3", vec![]),
            ("::ffff:127.0.0.1", vec![]),
            ("0.0.0.0", vec![]),
        ] {
            for policy in [public, loopback, private] {
                assert_eq!(
                    permitted(policy, &networks, address.parse().unwrap()),
                    permitted_under.contains(&policy),
                    "{address} under {policy:?}"
                );
            }
        }
    }

    /// Says that every name is at this address.
    #[derive(Debug)]
    struct Everywhere;

    impl Resolver for Everywhere {
        fn resolve(&self, _name: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
            Box::pin(async { Ok(vec![IpAddr::from([10, 0, 0, 1])]) })
        }
    }

    // EgressProxy: the proxy may lie anywhere; whatever else is asked for, this program does not look up.
    #[tokio::test]
    async fn behind_a_proxy_only_the_proxy_is_found() {
        let resolver = OnlyProxy { resolver: Arc::new(Everywhere), proxy: "proxy.test".into() };
        let found = async |name: &str| resolver.resolve(name.parse().unwrap()).await.is_ok();
        assert!(found("proxy.test").await && found("PROXY.test").await);
        assert!(!found("mcp.test").await && !found("localhost").await);
    }
}
