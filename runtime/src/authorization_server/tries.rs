//! How often passwords may be tried: by name and address, and more slowly by name.
//!
//! A stranger who tries a name uses up the tries of that name from the stranger's own address, and adds a few to those of the
//! name itself. Only one with several networks reaches that bound. Neither refuses anybody in a browser in which they signed in before, whose
//! tries are its own ([`Devices`](super::devices::Devices)). What is counted is the same for names that nobody has, in tables
//! that do not grow.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::ConnectInfo;
use http::request::Parts;
use mcp_authz::time::{Duration, OffsetDateTime};

use super::devices::Device;

/// Wrong passwords for one name from one address, or in one browser, within [`PAUSE`], after which they rest for as long.
pub(super) const TRIES: u32 = 10;

/// See [`TRIES`].
const PAUSE: Duration = Duration::minutes(5);

/// Wrong passwords for one name within [`LONG_PAUSE`], from anywhere but browsers that its person signed in with.
pub(super) const NAME_TRIES: u32 = 100;

/// See [`NAME_TRIES`].
const LONG_PAUSE: Duration = Duration::hours(1);

/// Of these, what one network adds. Its further tries are bounded by [`TRIES`] alone.
pub(super) const NETWORK_TRIES: u32 = 20;

/// Places of a table. Far more than the passwords that can be hashed within a pause, so that strangers share no place with
/// anybody but by chance (I-P7).
const PLACES: usize = 65_536;

/// The address that a request comes from, as whoever serves the router knows it: put it into the request's extensions, where
/// proxies stand before this server. Without it the peer's own counts (axum's `ConnectInfo`), and without that everybody comes
/// from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestAddress(pub IpAddr);

impl RequestAddress {
    /// The network that is counted as one: an IPv4 address, or 64 bits of an IPv6 address.
    pub(super) fn network_of(request: &Parts) -> IpAddr {
        let peer = || request.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        let address = request.extensions.get::<Self>().map(|address| address.0).or_else(peer);
        match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V6(address)) => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64_u32)))
            }
            Some(address) => address,
            None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

/// Counts by place, each for a while.
struct Counts {
    places: Vec<(u32, OffsetDateTime)>,
    most: u32,
    pause: Duration,
}

impl Counts {
    fn new(most: u32, pause: Duration) -> Self {
        Self { places: vec![(0, OffsetDateTime::UNIX_EPOCH); PLACES], most, pause }
    }

    fn place(&mut self, hash: u64) -> Option<&mut (u32, OffsetDateTime)> {
        let at = usize::try_from(hash).ok()?.checked_rem(PLACES)?;
        self.places.get_mut(at)
    }

    /// Counts one; whether it is within the bound.
    fn count(&mut self, hash: u64, now: OffsetDateTime) -> bool {
        let (most, pause) = (self.most, self.pause);
        let Some(place) = self.place(hash) else { return false };
        if place.1.saturating_add(pause) <= now {
            *place = (0, now);
        }
        place.0 = place.0.saturating_add(1);
        place.0 <= most
    }

    /// Whether one more would be within the bound.
    fn has_room(&mut self, hash: u64, now: OffsetDateTime) -> bool {
        let (most, pause) = (self.most, self.pause);
        self.place(hash).is_some_and(|place| place.0 < most || place.1.saturating_add(pause) <= now)
    }

    /// Whether what was taken back had been within the bound.
    fn take_back(&mut self, hash: u64) -> bool {
        let most = self.most;
        let Some(place) = self.place(hash) else { return false };
        let was_within = place.0 <= most;
        place.0 = place.0.saturating_sub(1);
        was_within
    }

    fn clear(&mut self, hash: u64) {
        if let Some(place) = self.place(hash) {
            place.0 = 0;
        }
    }
}

/// Who tries a name: a browser that its person signed in with before, or anybody at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trier {
    Device(Device),
    Address(IpAddr),
}

/// The tries of everybody.
pub(super) struct Tries {
    near: Counts,
    /// What each network added to a name.
    shares: Counts,
    names: Counts,
    /// Only who holds a sealed cookie counts here.
    devices: Counts,
    hasher: RandomState,
}

impl Tries {
    pub(super) fn new() -> Self {
        Self {
            near: Counts::new(TRIES, PAUSE),
            shares: Counts::new(NETWORK_TRIES, LONG_PAUSE),
            names: Counts::new(NAME_TRIES, LONG_PAUSE),
            devices: Counts::new(TRIES, PAUSE),
            hasher: RandomState::new(),
        }
    }

    /// Counts a try, before the password is looked at; whether it may be.
    pub(super) fn may_try(&mut self, name: &str, trier: Trier, now: OffsetDateTime) -> bool {
        match trier {
            // What others try does not count here, nor what is tried here for them: whoever took the browser has these tries and
            // no more.
            Trier::Device(device) => self.devices.count(self.hasher.hash_one((name, device)), now),
            // What rests near by does not count for the name, and no network alone uses one up.
            Trier::Address(from) => {
                let (near, name) = (self.hasher.hash_one((name, from)), self.hasher.hash_one(name));
                if !self.near.count(near, now) {
                    return false;
                }
                if self.shares.count(near, now) {
                    self.names.count(name, now)
                } else {
                    self.names.has_room(name, now)
                }
            }
        }
    }

    /// The password was right.
    pub(super) fn signed_in(&mut self, name: &str, trier: Trier) {
        match trier {
            Trier::Device(device) => self.devices.clear(self.hasher.hash_one((name, device))),
            Trier::Address(from) => {
                let near = self.hasher.hash_one((name, from));
                self.near.clear(near);
                if self.shares.take_back(near) {
                    self.names.take_back(self.hasher.hash_one(name));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;
    use std::net::{IpAddr, SocketAddr};

    use axum::extract::ConnectInfo;
    use http::Request;
    use mcp_authz::time::{Duration, OffsetDateTime};

    use super::{LONG_PAUSE, NAME_TRIES, NETWORK_TRIES, PAUSE, RequestAddress, TRIES, Trier, Tries};
    use crate::authorization_server::devices::Device;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::days(20_000) + Duration::seconds(seconds)
    }

    fn address_of(n: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(0xc000_0200 + n))
    }

    fn address(n: u32) -> Trier {
        Trier::Address(address_of(n))
    }

    fn device(n: u8) -> Trier {
        Trier::Device(Device::of([n; 16]))
    }

    // A stranger at another address takes no try away from anybody.
    #[test]
    fn tries_are_counted_for_the_name_from_the_address() {
        let mut tries = Tries::new();
        for _ in 0..TRIES {
            assert!(tries.may_try("ann", address(1), at(0)));
        }
        for _ in 0..10 * NAME_TRIES {
            assert!(!tries.may_try("ann", address(1), at(0)));
        }
        assert!(tries.may_try("ann", address(2), at(0)), "another address");
        assert!(tries.may_try("bob", address(1), at(0)), "another name");
        assert!(!tries.may_try("ann", address(1), at(PAUSE.whole_seconds() - 1)));
        assert!(tries.may_try("ann", address(1), at(PAUSE.whole_seconds())));
    }

    // Many addresses reach the name's own bound, which a browser that its person signed in with before does not notice.
    #[test]
    fn a_name_that_many_try_rests_but_not_where_it_signed_in_before() {
        let mut tries = Tries::new();
        for n in 1..=NAME_TRIES {
            assert!(tries.may_try("ann", address(n), at(0)), "{n}");
        }
        assert!(!tries.may_try("ann", address(1000), at(0)));
        for _ in 0..TRIES {
            assert!(tries.may_try("ann", device(1), at(0)), "her own browser");
        }
        assert!(!tries.may_try("ann", device(1), at(0)), "which is counted, too");
        assert!(tries.may_try("ann", device(2), at(0)), "and by itself");
        assert!(tries.may_try("bob", device(1), at(0)), "for each name");
        tries.signed_in("ann", device(1));
        assert!(tries.may_try("ann", device(1), at(0)), "a right password begins anew");
        assert!(!tries.may_try("ann", address(1000), at(LONG_PAUSE.whole_seconds() - 1)));
        assert!(tries.may_try("ann", address(1000), at(LONG_PAUSE.whole_seconds())));
    }

    // One network alone rests nobody's name, however long it tries; a few together do.
    #[test]
    fn one_network_uses_no_name_up_and_several_do() {
        let mut tries = Tries::new();
        let mut allowed = 0;
        for seconds in (0..8 * 3600).step_by(10) {
            allowed += u32::from(tries.may_try("ann", address(1), at(seconds)));
            // At home, where a wrong password is typed now and then, and then the right one.
            if seconds % 600 == 0 {
                assert!(tries.may_try("ann", address(2), at(seconds)), "{seconds}");
                tries.signed_in("ann", address(2));
            }
        }
        assert!(allowed > 2 * NAME_TRIES, "{allowed}");
        let mut tries = Tries::new();
        for n in 1..=NAME_TRIES / NETWORK_TRIES {
            for k in 0..NETWORK_TRIES {
                let seconds = i64::from(k / TRIES) * PAUSE.whole_seconds();
                assert!(tries.may_try("ann", address(n), at(seconds)), "{n}");
            }
        }
        assert!(!tries.may_try("ann", address(1000), at(1200)), "the name rests");
        assert!(!tries.may_try("ann", address(1), at(1200)), "for those who are beyond their share, too");
        assert!(tries.may_try("ann", address(1), at(LONG_PAUSE.whole_seconds())));
    }

    // The right password takes back what its own try added, and nothing of others.
    #[test]
    fn a_right_password_beyond_the_share_of_its_network_takes_nothing_back_from_the_name() {
        let mut tries = Tries::new();
        for n in 2..=NAME_TRIES {
            assert!(tries.may_try("ann", address(n), at(0)));
        }
        let own = tries.hasher.hash_one(("ann", address_of(1)));
        while tries.shares.count(own, at(0)) {}
        assert!(tries.may_try("ann", address(1), at(0)));
        tries.signed_in("ann", address(1));
        assert!(tries.may_try("ann", address(1000), at(0)));
        assert!(!tries.may_try("ann", address(1001), at(0)));
    }

    // What is tried in a browser that was signed in with takes nothing from anybody else.
    #[test]
    fn a_browser_uses_up_no_address_and_no_name() {
        let mut tries = Tries::new();
        for n in 0..2 * NAME_TRIES {
            tries.may_try("ann", device(u8::try_from(n % 250).unwrap()), at(0));
        }
        assert!(tries.may_try("ann", address(1), at(0)));
    }

    // I-P7
    #[test]
    fn a_flood_of_names_fills_nothing_and_hides_no_try() {
        let mut tries = Tries::new();
        for n in 0..20_000 {
            tries.may_try(&format!("stranger {n}"), address(n), at(0));
        }
        let allowed = (0..100).filter(|_| tries.may_try("ann", address(1), at(0))).count();
        assert!(allowed <= usize::try_from(TRIES).unwrap());
    }

    #[test]
    fn an_address_is_the_one_that_is_known_best() {
        let network = |own: Option<&str>, peer: Option<&str>| {
            let mut request = Request::new(()).into_parts().0;
            if let Some(own) = own {
                request.extensions.insert(RequestAddress(own.parse().unwrap()));
            }
            if let Some(peer) = peer {
                request.extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
            }
            RequestAddress::network_of(&request).to_string()
        };
        assert_eq!(network(Some("192.0.2.1"), Some("127.0.0.1")), "192.0.2.1");
        assert_eq!(network(None, Some("::ffff:192.0.2.1")), "192.0.2.1");
        assert_eq!(network(Some("2001:db8::1:2:3:4"), None), "2001:db8::");
        assert_eq!(network(None, None), "::");
    }
}
