//! Which IP addresses a fetch may connect to (RFC 6890 and its registries, invariant I-L8).
//!
//! The host of a program checks every address a name resolves to; the core checks literals in URLs.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is public unicast: not loopback, private, link-local, shared, reserved, multicast, and not an
/// IPv6 form that carries such an IPv4 address.
pub fn is_public(address: IpAddr) -> bool {
    // CIMD-6.5-2, MCP-SBP-020
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Whether an address is loopback: `127.0.0.0/8` or `::1`. Mapped forms are not.
pub fn is_loopback(address: IpAddr) -> bool {
    address.is_loopback()
}

/// Whether an address is private: RFC 1918, or a unique local one (RFC 4193).
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

/// Whether a URL with this host may be fetched as a public one: a literal address must be public, and a name must
/// not be `localhost` or lie below it. What another name resolves to is the host's to check with [`is_public`].
pub fn is_public_host(host: &str) -> bool {
    // CIMD-6.5-1, MCP-SBP-020, MCP-SBP-023; other spellings of an address do not pass the URI grammar.
    match literal(host) {
        Some(address) => is_public(address),
        None => !host.rsplit('.').next().unwrap_or_default().eq_ignore_ascii_case("localhost"),
    }
}

/// The literal IP address a URL's host is, if it is one.
pub fn literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        // Shared address space, 100.64.0.0/10
        || (a == 100 && (64..128).contains(&b))
        // IETF protocol assignments, the deprecated 6to4 relay, AS112
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 192 && b == 31 && c == 196)
        || (a == 192 && b == 52 && c == 193)
        || (a == 192 && b == 175 && c == 48)
        // Benchmarking, 198.18.0.0/15
        || (a == 198 && (b == 18 || b == 19))
        // Multicast and reserved, broadcast among them
        || a >= 224)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, _, e, f, ..] = address.segments();
    // Global unicast is 2000::/3; ::, ::1, mapped, compatible, translated (64:ff9b::/96, 64:ff9b:1::/48), discard,
    // unique local, link-local, site-local, multicast and SRv6 all lie outside.
    let global = a & 0xe000 == 0x2000;
    // ISATAP: an IPv4 address behind 0000:5efe or 0200:5efe in the interface identifier.
    let isatap = f == 0x5efe && (e == 0 || e == 0x0200);
    // Special uses within: Teredo, benchmarking, ORCHID and others in 2001::/23; documentation; 6to4.
    let special = (a == 0x2001 && (b < 0x0200 || b == 0x0db8))
        || a == 0x2002
        || (a == 0x3fff && b < 0x1000)
        || (a == 0x2620 && b == 0x004f && c == 0x8000)
        || a == 0x3ffe;
    global && !isatap && !special
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{is_loopback, is_private, is_public, is_public_host, literal};

    #[test]
    fn special_use_addresses_are_not_public() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.31.196.1",
            "192.52.193.1",
            "192.88.99.1",
            "192.175.48.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "2620:4f:8000::1",
            "3ffe::1",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2400:1::200:5efe:10.0.0.1",
            "2400:1::5efe:7f00:1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "8.8.8.8",
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.31.195.1",
            "192.32.196.1",
            "192.88.98.1",
            "192.52.192.1",
            "192.175.47.1",
            "198.17.255.1",
            "198.20.0.1",
            "11.0.0.1",
            "126.0.0.1",
            "128.0.0.1",
            "2001:200::1",
            "2003::1",
            "2620:4f:8001::1",
            "3fff:1000::1",
            "2400:1::1:5efe:a00:1",
            "223.255.255.1",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "2a00:1450::1",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn loopback_and_private_do_not_take_mapped_forms() {
        assert!(is_loopback("127.0.0.2".parse().unwrap()) && is_loopback("::1".parse().unwrap()));
        assert!(!is_loopback("::ffff:127.0.0.1".parse().unwrap()));
        assert!(is_private("10.1.2.3".parse().unwrap()) && is_private("fd00::1".parse().unwrap()));
        assert!(
            !is_private("::ffff:10.1.2.3".parse().unwrap()) && !is_private("169.254.1.1".parse().unwrap())
        );
    }

    #[test]
    fn literals_are_read_with_brackets() {
        assert_eq!(literal("127.0.0.1"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(literal("[::1]"), Some("::1".parse().unwrap()));
        for host in ["::1", "localhost", "127.1", "[127.0.0.1]", "[::1"] {
            assert_eq!(literal(host), None, "{host}");
        }
    }

    // MCP-SBP-023, CIMD-6.5-1
    #[test]
    fn a_host_is_public_unless_it_is_local_or_a_special_literal() {
        for host in ["localhost", "LocalHost", "a.localhost", "127.0.0.1", "[::1]", "10.0.0.1", "[fd00::1]"] {
            assert!(!is_public_host(host), "{host}");
        }
        for host in ["h.example", "localhost.example", "8.8.8.8", "[2606:4700::1]"] {
            assert!(is_public_host(host), "{host}");
        }
    }

    proptest! {
        // I-L8: no address is both public and of a forbidden kind, also when it is embedded.
        #[test]
        fn an_embedded_ipv4_address_is_never_reached(octets in any::<[u8; 4]>()) {
            let [a, b, c, d] = octets;
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for segments in [
                [0, 0, 0, 0, 0, 0xffff, high, low],
                [0, 0, 0, 0, 0, 0, high, low],
                [0x64, 0xff9b, 0, 0, 0, 0, high, low],
                [0x2002, high, low, 0, 0, 0, 0, 1],
                [0x2400, 1, 0, 0, 0, 0x5efe, high, low],
            ] {
                prop_assert!(!is_public(core::net::Ipv6Addr::from(segments).into()));
            }
        }
    }
}
