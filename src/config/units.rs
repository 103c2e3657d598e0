//! Parses and formats the durations, sizes and addresses of the configuration.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Units of time from the largest; a day is 24 hours.
const DURATIONS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// Units of size from the largest.
const SIZES: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Parses `30s`, `5m`, `2h`, `5d`, or several units from the largest to the smallest: `1h30m`.
pub(super) fn parse_duration(raw: &str) -> Option<Duration> {
    let mut rest = raw;
    let mut seconds = 0_u64;
    let mut units = DURATIONS.iter();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit_and_more) = rest.split_at_checked(digits)?;
        let number: u64 = number.parse().ok()?;
        let (unit_letter, more) = unit_and_more.split_at_checked(1)?;
        // Each unit occurs once, and a smaller unit follows a larger one.
        let (_, factor) = units.find(|(unit, _)| *unit == unit_letter)?;
        seconds = seconds.checked_add(number.checked_mul(*factor)?)?;
        rest = more;
    }
    if raw.is_empty() { None } else { Some(Duration::from_secs(seconds)) }
}

/// Formats a duration in the form that [`parse_duration`] reads.
pub(super) fn show_duration(duration: Duration) -> String {
    let mut seconds = duration.as_secs();
    if seconds == 0 {
        return "0s".to_owned();
    }
    let mut shown = String::new();
    for (unit, factor) in DURATIONS {
        if seconds >= factor {
            shown.push_str(&format!("{}{unit}", seconds / factor));
            seconds %= factor;
        }
    }
    shown
}

/// Parses a size into octets: `52428800`, `50 MiB`, `50MiB`, `64 KiB`.
pub(super) fn parse_size(raw: &str) -> Option<u64> {
    let digits = raw.find(|c: char| !c.is_ascii_digit()).unwrap_or(raw.len());
    let (number, unit) = raw.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit.trim_start() {
        "" => Some(number),
        unit => {
            let (_, factor) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
            number.checked_mul(*factor)
        }
    }
}

/// Formats a size in the form that [`parse_size`] reads, in the largest unit that needs no fraction.
pub(super) fn show_size(octets: u64) -> String {
    SIZES
        .iter()
        .find(|(_, factor)| octets >= *factor && octets.is_multiple_of(*factor))
        .map_or_else(|| octets.to_string(), |(unit, factor)| format!("{} {unit}", octets / factor))
}

/// Parses `192.0.2.1:25`, `[2001:db8::1]:25`, or `:25` for every address of this host.
pub(super) fn parse_address(raw: &str) -> Option<SocketAddr> {
    match raw.strip_prefix(':') {
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            Some(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port.parse().ok()?))
        }
        Some(_) => None,
        None => raw.parse().ok(),
    }
}

/// Parses the address of a resolver, which is at `port` unless `raw` names another port.
pub(super) fn parse_resolver_address(raw: &str, port: u16) -> Option<SocketAddr> {
    let bare = raw.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(raw);
    match bare.parse::<IpAddr>() {
        Ok(address) => Some(SocketAddr::new(address, port)),
        Err(_) => raw.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_shown() {
        for (raw, seconds) in
            [("30s", 30), ("5m", 300), ("2h", 7200), ("5d", 432_000), ("1h30m", 5400), ("0s", 0)]
        {
            assert_eq!(parse_duration(raw), Some(Duration::from_secs(seconds)), "{raw}");
            assert_eq!(show_duration(Duration::from_secs(seconds)), raw);
        }
        for raw in
            ["", "5", "m", "5 m", "-5m", "1.5h", "5min", "30m1h", "1m1m", "5µ", "99999999999999999999d"]
        {
            assert_eq!(parse_duration(raw), None, "{raw:?}");
        }
    }

    #[test]
    fn sizes_are_read_as_they_are_shown() {
        for (raw, octets) in [("50 MiB", 50 << 20), ("64 KiB", 65536), ("1 GiB", 1 << 30), ("1000", 1000)] {
            assert_eq!(parse_size(raw), Some(octets), "{raw}");
            assert_eq!(show_size(octets), raw);
        }
        assert_eq!(parse_size("50mib"), Some(50 << 20));
        for raw in ["", "MiB", "-1", "50 MB", "1.5 MiB", "99999999999 GiB"] {
            assert_eq!(parse_size(raw), None, "{raw:?}");
        }
    }

    #[test]
    fn an_address_needs_a_port_and_a_server_does_not() {
        assert_eq!(parse_address(":25"), "[::]:25".parse().ok());
        assert_eq!(parse_address("127.0.0.1:2525"), "127.0.0.1:2525".parse().ok());
        for raw in ["", "25", ":", ":x", ":+5", "127.0.0.1", "localhost:25", "::1:25:"] {
            assert_eq!(parse_address(raw), None, "{raw:?}");
        }
        assert_eq!(parse_resolver_address("192.0.2.1", 53), "192.0.2.1:53".parse().ok());
        assert_eq!(parse_resolver_address("192.0.2.1:5353", 53), "192.0.2.1:5353".parse().ok());
        assert_eq!(parse_resolver_address("::1", 53), "[::1]:53".parse().ok());
        assert_eq!(parse_resolver_address("[::1]", 53), "[::1]:53".parse().ok());
        assert_eq!(parse_resolver_address("[::1]:54", 53), "[::1]:54".parse().ok());
        assert_eq!(parse_resolver_address("2001:db8::1", 53), "[2001:db8::1]:53".parse().ok());
        assert_eq!(parse_resolver_address("[2001:db8::1]:5353", 53), "[2001:db8::1]:5353".parse().ok());
        for raw in ["", "dns.example", "ns.example:53", "192.0.2.1:x", "192.0.2.1:66000"] {
            assert_eq!(parse_resolver_address(raw, 53), None, "{raw:?}");
        }
    }
}
