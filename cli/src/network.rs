//! Networks of addresses: whom a server counts as one, and which are its proxies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The network of that many leading bits.
pub(crate) fn network(address: IpAddr, v4: u32, v6: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(v4)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(v6)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

/// The proxies that a text names.
///
/// # Errors
/// Why it names none, without the text.
pub(crate) fn proxies(text: &str) -> Result<IpNet, &'static str> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match network {
        // Nobody's proxies are everybody (I-G8).
        Ok(network) if network.prefix_len() > 0 => Ok(network.trunc()),
        _ => Err("it is neither an address nor a network such as 10.0.0.0/8"),
    }
}
