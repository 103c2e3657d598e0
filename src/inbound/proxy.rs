//! The header by which a proxy names the client: the PROXY protocol, versions 1 and 2.
//!
//! Behind a load balancer, the other end of the socket is the load balancer. It sends the address of its client
//! before all other octets, also before TLS. Only proxies that the operator named are asked for this header:
//! any other client could write a false address into it.
//!
//! The reader takes no octet beyond the header, because a TLS handshake may follow. The caller sets the
//! deadline. A header that is not exactly well formed is an error, and the connection cannot be used. The crate
//! `ppp` is not used: it accepts a port such as `+1`, and parses a buffer that may hold more than the header.
//!
//! Described in HAProxy's `doc/proxy-protocol.txt`; there is no RFC.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first octets of version 2 (§2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and protocol, length.
const FIXED_HEADER_OCTETS: usize = 16;
/// The longest line of version 1, with its CRLF (§2.1).
const VERSION_1_OCTETS_MAX: usize = 107;
/// The addresses and the values added to them (TLVs) in version 2. Usual values have some hundred octets, a
/// client certificate a few thousand.
const PAYLOAD_OCTETS_MAX: usize = 8192;

/// The header is missing or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection ended, failed or was too slow.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The first octets are of neither version: the proxy may not be set up to send the header.
    #[error("it does not begin with a PROXY header; does the proxy send one?")]
    HeaderMissing,
    /// The header names no client. Departs from §2.1 and §2.2, by which the address of the proxy would be
    /// used: the client would then have the rights of the proxy.
    #[error("it does not say whose connection it passes on")]
    ClientUnknown,
    /// The header has the first octets of a version, and is malformed.
    #[error("its PROXY header is malformed: {0}")]
    Malformed(&'static str),
}

/// Reads the header; the address of the client, or `None` if the proxy connects for itself (a health check).
///
/// # Errors
/// [`ProxyError`]: the proxy is at fault or wrongly set up, and the connection cannot be used.
pub fn read_header(input: &mut (impl Read + ?Sized)) -> Result<Option<SocketAddr>, ProxyError> {
    let mut head = vec![0; SIGNATURE.len()];
    input.read_exact(&mut head)?;
    if head == SIGNATURE {
        head.resize(FIXED_HEADER_OCTETS, 0);
        input.read_exact(head.get_mut(SIGNATURE.len()..).unwrap_or_default())?;
        read_version_2(&head, input)
    } else if head.starts_with(b"PROXY ") {
        read_version_1(head, input)
    } else {
        Err(ProxyError::HeaderMissing)
    }
}

/// Version 1: reads on to the end of the line, which is at least as far away as the octets that are
/// still missing from a CRLF.
fn read_version_1(
    mut line: Vec<u8>,
    input: &mut (impl Read + ?Sized),
) -> Result<Option<SocketAddr>, ProxyError> {
    while !line.ends_with(b"\r\n") {
        let more = if line.ends_with(b"\r") { 1 } else { 2 };
        let len = line.len();
        if len + more > VERSION_1_OCTETS_MAX {
            return Err(ProxyError::Malformed("the line does not end"));
        }
        line.resize(len + more, 0);
        input.read_exact(line.get_mut(len..).unwrap_or_default())?;
    }
    let text = line.strip_suffix(b"\r\n").and_then(|text| std::str::from_utf8(text).ok());
    parse_version_1(text.ok_or(ProxyError::Malformed("the line is not ASCII"))?)
}

/// Parses the line of version 1: `PROXY TCP4 CLIENT HERE CLIENT-PORT PORT`.
fn parse_version_1(text: &str) -> Result<Option<SocketAddr>, ProxyError> {
    let words: Vec<_> = text.split(' ').collect();
    match words.as_slice() {
        [_, "UNKNOWN", ..] => Err(ProxyError::ClientUnknown),
        [_, "TCP4", from, to, from_port, to_port] => {
            let (from, _) = (parse_ipv4(from)?, parse_ipv4(to)?);
            parse_port(to_port)?;
            Ok(Some(SocketAddr::new(from.into(), parse_port(from_port)?)))
        }
        [_, "TCP6", from, to, from_port, to_port] => {
            let (from, _) = (parse_ipv6(from)?, parse_ipv6(to)?);
            parse_port(to_port)?;
            Ok(Some(SocketAddr::new(from.into(), parse_port(from_port)?)))
        }
        _ => Err(ProxyError::Malformed("the line has other words than TCP4, TCP6 or UNKNOWN and theirs")),
    }
}

fn parse_ipv4(word: &str) -> Result<Ipv4Addr, ProxyError> {
    word.parse().map_err(|_| ProxyError::Malformed("not an IPv4 address"))
}

fn parse_ipv6(word: &str) -> Result<Ipv6Addr, ProxyError> {
    word.parse().map_err(|_| ProxyError::Malformed("not an IPv6 address"))
}

fn parse_port(word: &str) -> Result<u16, ProxyError> {
    let is_plain =
        word.bytes().all(|octet| octet.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_plain).ok_or(ProxyError::Malformed("not a port"))
}

/// Reads version 2 after its fixed part.
fn read_version_2(head: &[u8], input: &mut (impl Read + ?Sized)) -> Result<Option<SocketAddr>, ProxyError> {
    let &[.., version_and_command, family, high, low] = head else {
        return Err(ProxyError::Malformed("it has no head"));
    };
    let octets = usize::from(u16::from_be_bytes([high, low]));
    if octets > PAYLOAD_OCTETS_MAX {
        return Err(ProxyError::Malformed("it is too long"));
    }
    let mut rest = vec![0; octets];
    input.read_exact(&mut rest)?;
    match version_and_command {
        // LOCAL: the family is ignored.
        0x20 => Ok(None),
        0x21 => parse_version_2(family, &rest),
        _ => Err(ProxyError::Malformed("neither LOCAL nor PROXY of version 2")),
    }
}

/// The client of version 2. The values after the addresses are not used.
fn parse_version_2(family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let short = ProxyError::Malformed("it is too short for its addresses");
    match family {
        // UNSPEC with any protocol, and UNIX: there is no IP address.
        0x00 | 0x31 => Err(ProxyError::ClientUnknown),
        // TCP over IPv4: two addresses, two ports.
        0x11 => match rest {
            &[a, b, c, d, _, _, _, _, high, low, _, _, ..] => {
                Ok(Some((IpAddr::from([a, b, c, d]), u16::from_be_bytes([high, low])).into()))
            }
            _ => Err(short),
        },
        // TCP over IPv6.
        0x21 => match (rest.first_chunk::<16>(), rest.get(32..36)) {
            (Some(from), Some(&[high, low, _, _])) => {
                Ok(Some((IpAddr::from(*from), u16::from_be_bytes([high, low])).into()))
            }
            _ => Err(short),
        },
        _ => Err(ProxyError::Malformed("no stream of TCP or UNIX")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result, and the number of octets that are left after the header.
    fn read_all(octets: &[u8]) -> (Result<Option<SocketAddr>, ProxyError>, usize) {
        let mut input = octets;
        let result = read_header(&mut input);
        (result, input.len())
    }

    fn client_of(octets: &[u8]) -> Option<SocketAddr> {
        let mut wire = octets.to_vec();
        wire.extend_from_slice(b"EHLO x\r\n");
        let (result, left) = read_all(&wire);
        assert_eq!(left, 8, "what follows is left alone: {octets:?}");
        result.unwrap()
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, [command, family].as_slice(), &length, rest].concat()
    }

    const V4_ADDRESSES: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0xC0, 0x01, 0, 25];

    #[test]
    fn a_line_of_version_1_names_the_client() {
        for (line, client) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 49153 25\r\n", "192.0.2.7:49153"),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 65535 465\r\n", "[2001:db8::7]:65535"),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 25\r\n", "[::ffff:192.0.2.7]:1"),
        ] {
            assert_eq!(client_of(line.as_bytes()), Some(client.parse().unwrap()), "{line}");
        }
    }

    #[test]
    fn a_header_of_version_2_names_the_client_with_any_added_values() {
        assert_eq!(client_of(&v2(0x21, 0x11, &V4_ADDRESSES)), Some("192.0.2.7:49153".parse().unwrap()));
        let added = [V4_ADDRESSES.as_slice(), &[0x03, 0, 4, 1, 2, 3, 4], &[0xEE; 500]].concat();
        assert_eq!(client_of(&v2(0x21, 0x11, &added)), Some("192.0.2.7:49153".parse().unwrap()));
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        v6[15] = 7;
        v6[33] = 9;
        assert_eq!(client_of(&v2(0x21, 0x21, &v6)), Some("[2001:db8::7]:9".parse().unwrap()));
    }

    #[test]
    fn a_proxy_that_connects_for_itself_names_no_client() {
        for octets in [v2(0x20, 0x00, b""), v2(0x20, 0x11, &V4_ADDRESSES), v2(0x20, 0xFF, b"x")] {
            assert_eq!(client_of(&octets), None, "{octets:?}");
        }
    }

    #[test]
    fn a_header_without_a_client_address_is_refused() {
        for octets in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n".to_vec(),
            v2(0x21, 0x00, b"more"),
            v2(0x21, 0x31, &[b'/'; 216]),
        ] {
            assert!(
                matches!(read_header(&mut octets.as_slice()), Err(ProxyError::ClientUnknown)),
                "{octets:?}"
            );
        }
    }

    #[test]
    fn a_malformed_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(VERSION_1_OCTETS_MAX));
        for line in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 49153\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 49153 25 \r\n",
            "PROXY TCP4  192.0.2.7 198.51.100.1 49153 25\r\n",
            "PROXY TCP4 192.0.2.07 198.51.100.1 49153 25\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +1 25\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 025\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 25\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 1 25\r\n",
            "PROXY tcp4 192.0.2.7 198.51.100.1 1 25\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 1 25\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 25\nEHLO x\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 25\rEHLO x\r\n",
            "PROXY \u{e9}TCP4 192.0.2.7\r\n",
            &long,
        ] {
            let result = read_all(line.as_bytes()).0;
            assert!(matches!(result, Err(ProxyError::Malformed(_))), "{line:?}: {result:?}");
        }
        for octets in [
            v2(0x22, 0x11, &V4_ADDRESSES),
            v2(0x11, 0x11, &V4_ADDRESSES),
            v2(0x21, 0x12, &V4_ADDRESSES),
            v2(0x21, 0x41, &V4_ADDRESSES),
            v2(0x21, 0x11, &V4_ADDRESSES[..11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x11, &[0; PAYLOAD_OCTETS_MAX + 1]),
        ] {
            let result = read_all(&octets).0;
            assert!(matches!(result, Err(ProxyError::Malformed(_))), "{octets:?}: {result:?}");
        }
        for octets in
            [b"EHLO there.example\r\n".as_slice(), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00"]
        {
            assert!(matches!(read_all(octets).0, Err(ProxyError::HeaderMissing)), "{octets:?}");
        }
    }

    #[test]
    fn a_header_that_is_cut_short_is_an_end_of_input() {
        for octets in
            [b"PROXY TCP4 192.0.2.7 198.51.100.1 49153 25\r\n".to_vec(), v2(0x21, 0x11, &V4_ADDRESSES)]
        {
            for end in 0..octets.len() {
                let result = read_all(&octets[..end]).0;
                assert!(matches!(result, Err(ProxyError::Io(_))), "{end}: {result:?}");
            }
        }
    }
}
