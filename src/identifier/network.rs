//! Private networks that a relaxation lets fetches reach.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use super::address;

/// A private network, written `10.1.0.0/16` or `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Text that is no network a fetch may be let into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a network is written ADDRESS/PREFIX and lies within the private ranges of RFC 1918 or RFC 4193")]
pub struct InvalidNetwork;

impl Network {
    /// The network of that one address; `None` for one that is not private.
    pub fn of(address: IpAddr) -> Option<Self> {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        address::is_private(address).then_some(Self { address, prefix })
    }

    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32_u32.saturating_sub(self.prefix.into());
                network.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128_u32.saturating_sub(self.prefix.into());
                network.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = text.split_once('/').ok_or(InvalidNetwork)?;
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork)?;
        let prefix: u8 = prefix.parse().map_err(|_| InvalidNetwork)?;
        // The whole network has to be private: its first address is, and it is no wider than its range.
        let widest = match address {
            IpAddr::V4(address) => match address.octets() {
                [10, ..] => 8,
                [172, ..] => 12,
                _ => 16,
            },
            IpAddr::V6(_) => 7,
        };
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if !address::is_private(address) || !(widest..=longest).contains(&prefix) {
            return Err(InvalidNetwork);
        }
        Ok(Self { address, prefix })
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString as _;

    use super::Network;

    // I-L8
    #[test]
    fn networks_are_private_ones_only() {
        for text in
            ["10.0.0.0/8", "10.1.0.0/16", "172.16.0.0/12", "192.168.7.0/24", "fd00::/8", "10.1.2.3/32"]
        {
            assert!(text.parse::<Network>().is_ok(), "{text}");
        }
        for text in [
            "0.0.0.0/0",
            "10.0.0.0/7",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "192.168.0.0/15",
            "8.8.8.8/32",
            "10.0.0.0",
            "10.0.0.0/33",
            "fd00::/6",
            "::/0",
            "fe80::/10",
            "172.16.0.0/11",
            "",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_network_is_written_as_it_is_read_and_holds_its_addresses() {
        for (text, within, outside) in [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("192.168.7.9/32", "192.168.7.9", "192.168.7.8"),
            ("fd00::/8", "fdff::1", "fc00::1"),
        ] {
            let network: Network = text.parse().unwrap();
            assert_eq!(network.to_string(), text);
            assert!(network.contains(within.parse().unwrap()), "{text}");
            assert!(!network.contains(outside.parse().unwrap()), "{text}");
        }
        let one = Network::of("10.1.2.3".parse().unwrap()).unwrap();
        assert_eq!(one.to_string(), "10.1.2.3/32");
        for text in ["8.8.8.8", "127.0.0.1", "169.254.1.1", "::ffff:10.1.2.3"] {
            assert!(Network::of(text.parse().unwrap()).is_none(), "{text}");
        }
    }
}
