//! Answers from a text file, for tests without name servers.
//!
//! One record a line: owner, then optionally a time to live in seconds and `IN`, then type and
//! data. Names are always absolute, with or without the final dot, in A-labels or U-labels; `;`
//! and `#` begin a comment.
//!
//! ```text
//! there.example.       MX     10 mx.there.example.
//! mx.there.example.    A      192.0.2.1
//! mx.there.example.    AAAA   2001:db8::1
//! alias.example.       CNAME  there.example.
//! null.example.        MX     0 .
//! empty.example.       EMPTY            ; exists and has no records
//! broken.example.      SERVFAIL         ; its name servers are broken
//! silent.example.      SILENT           ; its name servers never answer
//! ```
//!
//! A name without a record, of which no name with a record is a subdomain, does not exist. Follows CNAMEs
//! like a recursive server. Never waits: a silent name is a timeout at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::budget::Budget;
use super::error::DnsError;
use super::resolver::{Mx, MxExchange, Resolver, reverse_name};
use crate::mail::Domain;

/// CNAMEs followed for one question.
const CNAMES_MAX: usize = 8;
/// The TTL where a line has none: five minutes.
const DEFAULT_TTL_SECONDS: u32 = 300;

/// The records of a zone file. A snapshot.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    records_by_name: BTreeMap<Domain, Vec<ZoneRecord>>,
}

/// A line that is no record; the author of the file is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ZoneError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// One record of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ZoneRecord {
    pub(crate) ttl_seconds: u32,
    pub(crate) data: ZoneRecordData,
}

/// The data of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ZoneRecordData {
    Address(IpAddr),
    Mx(Mx),
    Ptr(Domain),
    Cname(Domain),
    /// The name exists and has no records.
    Empty,
    Servfail,
    Silent,
}

/// What a zone has for a name, before CNAMEs are followed.
pub(crate) enum ZoneLookup<'a> {
    /// The records, none or more.
    Records(&'a [ZoneRecord]),
    /// The name does not exist.
    NoSuchDomain,
}

impl Zone {
    /// Reads the text of a zone file.
    ///
    /// # Errors
    /// The first line that is no record.
    pub fn parse(text: &str) -> Result<Self, ZoneError> {
        let mut zone = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.split([';', '#']).next().unwrap_or_default();
            let words: Vec<_> = line.split_whitespace().collect();
            if words.is_empty() {
                continue;
            }
            let (owner, record) =
                parse_record(&words).map_err(|problem| ZoneError { line: number + 1, problem })?;
            zone.records_by_name.entry(owner).or_default().push(record);
        }
        Ok(zone)
    }

    /// The records of a name.
    pub(crate) fn look_up(&self, name: &Domain) -> ZoneLookup<'_> {
        match self.records_by_name.get(name) {
            Some(records) => ZoneLookup::Records(records),
            // An empty non-terminal exists (RFC 8020 §2).
            None if self.records_by_name.keys().any(|other| is_below(other, name)) => {
                ZoneLookup::Records(&[])
            }
            None => ZoneLookup::NoSuchDomain,
        }
    }

    /// Follows CNAMEs to the records that answer.
    fn records_after_cnames(&self, name: &Domain) -> Result<&[ZoneRecord], DnsError> {
        let mut name = name;
        for _ in 0..CNAMES_MAX {
            let records = match self.look_up(name) {
                ZoneLookup::Records(records) => records,
                ZoneLookup::NoSuchDomain => return Err(DnsError::NoSuchDomain),
            };
            let mut alias = None;
            for record in records {
                match &record.data {
                    ZoneRecordData::Cname(target) => alias = Some(target),
                    ZoneRecordData::Servfail => return Err(DnsError::Temporary("SERVFAIL".to_owned())),
                    ZoneRecordData::Silent => {
                        return Err(DnsError::Temporary("no answer in time".to_owned()));
                    }
                    ZoneRecordData::Address(_)
                    | ZoneRecordData::Mx(_)
                    | ZoneRecordData::Ptr(_)
                    | ZoneRecordData::Empty => {}
                }
            }
            match alias {
                Some(target) => name = target,
                None => return Ok(records),
            }
        }
        Err(DnsError::Temporary("too many CNAMEs".to_owned()))
    }
}

impl Resolver for Zone {
    fn mx_records(&self, name: &Domain, budget: &Budget) -> Result<Vec<Mx>, DnsError> {
        budget.take_lookup()?;
        let records = self.records_after_cnames(name)?.iter();
        Ok(records
            .filter_map(|record| match &record.data {
                ZoneRecordData::Mx(mx) => Some(mx.clone()),
                _ => None,
            })
            .collect())
    }

    fn addresses(&self, host: &Domain, budget: &Budget) -> Result<Vec<IpAddr>, DnsError> {
        budget.take_lookup()?;
        let records = self.records_after_cnames(host)?.iter();
        Ok(records
            .filter_map(|record| match &record.data {
                ZoneRecordData::Address(address) => Some(*address),
                _ => None,
            })
            .collect())
    }

    fn ptr_names(&self, address: IpAddr, budget: &Budget) -> Result<Vec<Domain>, DnsError> {
        budget.take_lookup()?;
        let name = reverse_name(address)?;
        let records = self.records_after_cnames(&name)?.iter();
        Ok(records
            .filter_map(|record| match &record.data {
                ZoneRecordData::Ptr(name) => Some(name.clone()),
                _ => None,
            })
            .collect())
    }
}

fn is_below(name: &Domain, ancestor: &Domain) -> bool {
    name.as_ascii().strip_suffix(ancestor.as_ascii()).is_some_and(|rest| rest.ends_with('.'))
}

fn parse_record(words: &[&str]) -> Result<(Domain, ZoneRecord), String> {
    let (owner, mut rest) = words.split_first().ok_or("nothing there")?;
    let owner = parse_name(owner)?;
    let mut ttl_seconds = DEFAULT_TTL_SECONDS;
    if let [seconds, after @ ..] = rest
        && let Ok(seconds) = seconds.parse()
    {
        (ttl_seconds, rest) = (seconds, after);
    }
    if let [class, after @ ..] = rest
        && class.eq_ignore_ascii_case("IN")
    {
        rest = after;
    }
    let (kind, values) = rest.split_first().ok_or("the record type is missing")?;
    let data = match (kind.to_ascii_uppercase().as_str(), values) {
        ("A", [address]) => ZoneRecordData::Address(IpAddr::V4(parse_value::<Ipv4Addr>(address)?)),
        ("AAAA", [address]) => ZoneRecordData::Address(IpAddr::V6(parse_value::<Ipv6Addr>(address)?)),
        ("MX", [preference, exchange]) => ZoneRecordData::Mx(Mx {
            preference: parse_value(preference)?,
            exchange: MxExchange::from_dns_name(exchange),
        }),
        ("CNAME", [target]) => ZoneRecordData::Cname(parse_name(target)?),
        ("PTR", [name]) => ZoneRecordData::Ptr(parse_name(name)?),
        ("EMPTY", []) => ZoneRecordData::Empty,
        ("SERVFAIL", []) => ZoneRecordData::Servfail,
        ("SILENT", []) => ZoneRecordData::Silent,
        ("A" | "AAAA" | "MX" | "CNAME" | "PTR" | "EMPTY" | "SERVFAIL" | "SILENT", values) => {
            return Err(format!("{kind} does not take {} values", values.len()));
        }
        _ => return Err(format!("{kind} is not a known record type")),
    };
    Ok((owner, ZoneRecord { ttl_seconds, data }))
}

fn parse_name(raw: &str) -> Result<Domain, String> {
    let name = raw.strip_suffix('.').unwrap_or(raw);
    match Domain::parse(name) {
        Ok(domain) if domain.as_address().is_none() => Ok(domain),
        _ => Err(format!("{raw} is not a name")),
    }
}

fn parse_value<T: FromStr>(raw: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    raw.parse().map_err(|error| format!("{raw}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Moment;

    const TEXT: &str = "
        ; a comment
        there.example.     MX 10 mx.there.example.   # another
        mx.there.example   60 IN A 192.0.2.1
        mx.there.example.  aaaa 2001:db8::1
        alias.example.     CNAME there.example.
        one.example.       CNAME two.example.
        two.example.       CNAME one.example.
        bücher.example.    MX 0 .
        deep.empty.example EMPTY
        broken.example.    SERVFAIL
        silent.example.    SILENT
    ";

    fn budget() -> Budget {
        Budget::new(Moment::default(), 10)
    }

    fn mx_record_count(name: &str) -> Result<usize, DnsError> {
        let zone = Zone::parse(TEXT).unwrap();
        zone.mx_records(&Domain::parse(name).unwrap(), &budget()).map(|records| records.len())
    }

    #[test]
    fn a_zone_answers_like_a_recursive_server() {
        assert_eq!(mx_record_count("there.example"), Ok(1));
        assert_eq!(mx_record_count("THERE.example"), Ok(1));
        assert_eq!(mx_record_count("alias.example"), Ok(1), "through a CNAME");
        assert_eq!(mx_record_count("xn--bcher-kva.example"), Ok(1), "in either spelling");
        assert_eq!(mx_record_count("mx.there.example"), Ok(0), "no MX");
        assert_eq!(mx_record_count("deep.empty.example"), Ok(0), "no records");
        assert_eq!(mx_record_count("empty.example"), Ok(0), "an empty non-terminal");
        assert_eq!(mx_record_count("nowhere.example"), Err(DnsError::NoSuchDomain));
        assert_eq!(mx_record_count("ere.example"), Err(DnsError::NoSuchDomain), "names end in whole labels");
        for name in ["broken.example", "silent.example", "one.example"] {
            assert!(matches!(mx_record_count(name), Err(DnsError::Temporary(_))), "{name}");
        }
        let zone = Zone::parse(TEXT).unwrap();
        let host = Domain::parse("mx.there.example").unwrap();
        assert_eq!(zone.addresses(&host, &budget()).unwrap().len(), 2, "both families");
    }

    #[test]
    fn a_wrong_line_is_named_with_its_number() {
        for (line, problem) in [
            ("there.example. MX mx.there.example.", "MX does not take 1 values"),
            ("there.example. MX ten mx.there.example.", "ten: invalid digit found in string"),
            ("there.example. A 192.0.2.256", "192.0.2.256: invalid IPv4 address syntax"),
            ("there.example.", "the record type is missing"),
            ("there.example. WKS x", "WKS is not a known record type"),
            ("a..example. A 192.0.2.1", "a..example. is not a name"),
        ] {
            let error = Zone::parse(&format!("; first\n{line}\n")).unwrap_err();
            assert_eq!(error, ZoneError { line: 2, problem: problem.to_owned() });
        }
    }
}
