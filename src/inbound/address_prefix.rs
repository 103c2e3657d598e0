//! Whose doings are counted together: who has one address could often have come from its neighbours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One client: an IPv4 address, or the first 64 bits of an IPv6 one. A host is given a /64 to itself
/// (RFC 4291 §2.5.1), and could come from another address each time.
pub(super) fn client_prefix(address: IpAddr) -> IpAddr {
    truncate(address, 32, 64)
}

/// One owner of many clients, as far as an address tells: an IPv4 /24, the smallest that is routed by
/// itself, or an IPv6 /48, what a site is given.
pub(super) fn network_prefix(address: IpAddr) -> IpAddr {
    truncate(address, 24, 48)
}

/// The address with all that is behind its first bits cleared.
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
        for (address, client, owner) in [
            ("192.0.2.77", "192.0.2.77", "192.0.2.0"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::", "2001:db8:1::"),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(client_prefix(address), client.parse::<IpAddr>().unwrap());
            assert_eq!(network_prefix(address), owner.parse::<IpAddr>().unwrap());
        }
    }
}
