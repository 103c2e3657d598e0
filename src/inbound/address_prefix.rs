//! The parts of an address by which clients and networks are counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The prefix of one client: an IPv4 address, or the first 64 bits of an IPv6 address. A host may have a whole
/// /64 (RFC 4291 §2.5.1), and could use another address each time.
pub(super) fn client_prefix(address: IpAddr) -> IpAddr {
    truncate(address, 32, 64)
}

/// The prefix of one network: an IPv4 /24, the smallest that is routed by itself, or an IPv6 /48, which a site
/// gets.
pub(super) fn network_prefix(address: IpAddr) -> IpAddr {
    truncate(address, 24, 48)
}

/// The address with all bits after the first ones cleared.
fn truncate(address: IpAddr, v4_bits: u32, v6_bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(32 - v4_bits).unwrap_or(0)).into()
        }
        IpAddr::V6(v6) => {
            Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(128 - v6_bits).unwrap_or(0)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_grouped_by_client_and_by_network() {
        for (address, client, network) in [
            ("192.0.2.77", "192.0.2.77", "192.0.2.0"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::", "2001:db8:1::"),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(client_prefix(address), client.parse::<IpAddr>().unwrap());
            assert_eq!(network_prefix(address), network.parse::<IpAddr>().unwrap());
        }
    }
}
