//! A range of addresses in the notation of operators: `192.0.2.0/24`, `2001:db8::/32`, `127.0.0.1`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network in CIDR notation (RFC 4632 §3.1, RFC 4291 §2.3).
///
/// An IPv4 address in IPv6 notation (`::ffff:192.0.2.1`, as a socket for both families reports it) counts
/// as the IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix_length: u8,
}

/// Why a text is not a network; its writer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The text before the slash is not an address.
    #[error("{0} is not an IP address")]
    InvalidAddress(String),
    /// The text after the slash is not a number, or more bits than an address has.
    #[error("/{0} is not a prefix length from 0 to {1}")]
    InvalidPrefixLength(String, u8),
    /// The address has bits set after the prefix, such as `192.0.2.7/24`: probably a mistake.
    #[error("{0} has bits set behind the prefix; the network is {1}")]
    HostBitsSet(String, Network),
}

impl Network {
    /// The network of all addresses whose first `bits` bits are those of `address`.
    fn new(address: IpAddr, bits: u8) -> Self {
        let address = match address {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(
                v4.to_bits() & prefix_mask(u128::from(u32::MAX), 32, bits) as u32,
            )),
            IpAddr::V6(v6) => {
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & prefix_mask(u128::MAX, 128, bits)))
            }
        };
        Self { address, prefix_length: bits }
    }

    /// The address is in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && Self::new(address, self.prefix_length) == *self
    }

    /// The network has all addresses of its family: as a list of trusted clients this is an open relay.
    #[must_use]
    pub fn is_all_addresses(&self) -> bool {
        self.prefix_length == 0
    }
}

/// `all` ones, `width` bits wide, with all bits after the first `bits` cleared.
fn prefix_mask(all: u128, width: u8, bits: u8) -> u128 {
    let behind = u32::from(width.saturating_sub(bits));
    all.checked_shr(behind).and_then(|ones| ones.checked_shl(behind)).unwrap_or(0) & all
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(raw: &str) -> Result<Self, NetworkError> {
        let (address, bits) = match raw.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (raw, None),
        };
        let address: IpAddr =
            address.parse().map_err(|_| NetworkError::InvalidAddress(address.to_owned()))?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|bits| *bits <= width && digits.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| NetworkError::InvalidPrefixLength(digits.to_owned(), width))?,
        };
        let network = Self::new(address, bits);
        if network.address != address {
            return Err(NetworkError::HostBitsSet(raw.to_owned(), network));
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(raw: &str) -> Network {
        raw.parse().unwrap()
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        for (net, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.0/24", "::ffff:192.0.2.1", "::ffff:192.0.3.1"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("::1", "::1", "::2"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("::/0", "2001:db8::1", "203.0.113.9"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
        ] {
            assert!(network(net).contains(inside.parse().unwrap()), "{inside} in {net}");
            assert!(!network(net).contains(outside.parse().unwrap()), "{outside} not in {net}");
        }
    }

    #[test]
    fn an_invalid_network_is_refused_with_the_reason() {
        for raw in [
            "",
            "192.0.2",
            "192.0.2.0/33",
            "192.0.2.0/",
            "192.0.2.0/+8",
            "::/129",
            "localhost",
            "192.0.2.0/24/8",
        ] {
            assert!(raw.parse::<Network>().is_err(), "{raw:?}");
        }
        let error = "192.0.2.7/24".parse::<Network>().unwrap_err().to_string();
        assert!(error.contains("192.0.2.0/24"), "{error}");
    }
}
