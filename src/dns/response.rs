//! What a name server's reply says about the question.
//!
//! Pure: the octets of a reply that was matched to its question go in, a [`ParsedResponse`] comes out.
//! Follows CNAMEs within the reply, whatever their order, and distinguishes results that servers mix up:
//! "no such name", "no record of this type" (RFC 2308 §2), a referral, and nonsense. A malformed reply is
//! a value; nothing here panics on octets from the network.
//!
//! Called by the stub resolver. Standards: RFC 1035, 2181 §8, 2308, 6604 (the code is about the last name
//! of a chain), 6891 (EDNS).

use std::net::IpAddr;
use std::time::Duration;

use domain::base::iana::{Class, OptRcode};
use domain::base::wire::ParseError;
use domain::base::{Message, Name, ParsedName, Rtype, ToName as _, Ttl};
use domain::rdata;

use super::resolver::{Mx, MxExchange};
use crate::mail::Domain;

/// CNAMEs followed within a reply.
const CNAMES_MAX: usize = 8;
/// Records kept of one reply: a bound on memory, far above what mail needs.
const RECORDS_MAX: usize = 64;

/// A record of the type that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RecordData {
    Address(IpAddr),
    Mx(Mx),
    Ptr(Domain),
}

/// The meaning of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ParsedResponse {
    /// The records; at least one.
    Records(Vec<RecordData>, Duration),
    /// The name exists and has no such record. Not to be cached if there is no time.
    NoData(Option<Duration>),
    /// The name, or the name at the end of its CNAMEs, does not exist.
    NoSuchDomain(Option<Duration>),
    /// The name is an alias of this one, about which the reply says nothing.
    Cname(Name<Vec<u8>>, Duration),
    /// The reply says nothing about the name; another server may. The text is for the log.
    Unusable(String),
    /// The server may not support EDNS: to be asked again without (RFC 6891 §6.2.2).
    EdnsRejected(String),
}

/// Reads a reply that is complete and was matched to its question.
pub(super) fn parse_response<Octs: domain::dep::octseq::Octets + ?Sized>(
    reply: &Message<Octs>,
) -> ParsedResponse {
    match reply.opt_rcode() {
        OptRcode::NOERROR | OptRcode::NXDOMAIN => parse_sections(reply)
            .unwrap_or_else(|error| ParsedResponse::Unusable(format!("malformed reply: {error}"))),
        code @ (OptRcode::FORMERR | OptRcode::NOTIMP | OptRcode::BADVERS) => {
            ParsedResponse::EdnsRejected(code.to_string())
        }
        code => ParsedResponse::Unusable(code.to_string()),
    }
}

struct AnswerRecord<T> {
    owner: Name<Vec<u8>>,
    ttl: Duration,
    data: T,
}

fn parse_sections<Octs: domain::dep::octseq::Octets + ?Sized>(
    reply: &Message<Octs>,
) -> Result<ParsedResponse, ParseError> {
    let question = reply.sole_question()?;
    let mut aliases: Vec<AnswerRecord<Name<Vec<u8>>>> = Vec::new();
    let mut records: Vec<AnswerRecord<RecordData>> = Vec::new();
    for record in reply.answer()? {
        let record = record?;
        if record.class() != Class::IN {
            continue;
        }
        let (owner, ttl) = (record.owner().to_vec(), ttl_duration(record.ttl()));
        if record.rtype() == Rtype::CNAME {
            if let Some(cname) = record.to_record::<rdata::Cname<ParsedName<_>>>()? {
                aliases.push(AnswerRecord { owner, ttl, data: cname.data().cname().to_vec() });
            }
        } else if record.rtype() == question.qtype() {
            let data = match record.rtype() {
                Rtype::A => {
                    record.to_record::<rdata::A>()?.map(|a| RecordData::Address(a.data().addr().into()))
                }
                Rtype::AAAA => record
                    .to_record::<rdata::Aaaa>()?
                    .map(|aaaa| RecordData::Address(aaaa.data().addr().into())),
                Rtype::MX => record.to_record::<rdata::Mx<ParsedName<_>>>()?.map(|mx| {
                    RecordData::Mx(Mx {
                        preference: mx.data().preference(),
                        exchange: MxExchange::from_dns_name(&mx.data().exchange().to_string()),
                    })
                }),
                Rtype::PTR => record.to_record::<rdata::Ptr<ParsedName<_>>>()?.and_then(|ptr| {
                    match MxExchange::from_dns_name(&ptr.data().ptrdname().to_string()) {
                        MxExchange::Host(name) => Some(RecordData::Ptr(name)),
                        MxExchange::NullMx | MxExchange::InvalidHostName(_) => None,
                    }
                }),
                _ => None,
            };
            records.extend(data.map(|data| AnswerRecord { owner, ttl, data }));
        }
    }

    let asked: Name<Vec<u8>> = question.qname().to_vec();
    let mut name = asked.clone();
    let mut ttl = Duration::MAX;
    let has_name = reply.opt_rcode() == OptRcode::NOERROR;
    for _ in 0..CNAMES_MAX {
        if has_name && records.iter().any(|record| record.owner == name) {
            records.retain(|record| record.owner == name);
            let ttl = records.iter().map(|record| record.ttl).fold(ttl, Duration::min);
            let mut records: Vec<_> = records.into_iter().map(|record| record.data).collect();
            // The hosts to be tried first must not be cut off.
            records.sort_by_key(|record| match record {
                RecordData::Mx(mx) => mx.preference,
                RecordData::Address(_) | RecordData::Ptr(_) => 0,
            });
            records.truncate(RECORDS_MAX);
            return Ok(ParsedResponse::Records(records, ttl));
        }
        let Some(alias) = aliases.iter().find(|alias| alias.owner == name) else {
            return parse_negative(reply, name, (ttl < Duration::MAX).then_some(ttl), has_name);
        };
        ttl = ttl.min(alias.ttl);
        name = alias.data.clone();
    }
    Ok(ParsedResponse::Unusable("too many CNAMEs".to_owned()))
}

/// The meaning of a reply without the records that were asked for; `alias_ttl` if `name` was reached by
/// CNAMEs.
fn parse_negative<Octs: domain::dep::octseq::Octets + ?Sized>(
    reply: &Message<Octs>,
    name: Name<Vec<u8>>,
    alias_ttl: Option<Duration>,
    has_name: bool,
) -> Result<ParsedResponse, ParseError> {
    let mut negative_ttl = None;
    let mut has_referral = false;
    for record in reply.authority()? {
        let record = record?;
        if record.rtype() == Rtype::NS {
            has_referral = true;
        }
        if record.rtype() == Rtype::SOA
            && let Some(soa) = record.to_record::<rdata::Soa<ParsedName<_>>>()?
        {
            // RFC 2308 §5: the smaller of the SOA's own TTL and its MINIMUM.
            let ttl = ttl_duration(soa.ttl()).min(ttl_duration(soa.data().minimum()));
            negative_ttl = Some(ttl.min(alias_ttl.unwrap_or(Duration::MAX)));
        }
    }
    Ok(match (has_name, negative_ttl, alias_ttl) {
        // RFC 6604 §3: the code is about the last name of the chain.
        (false, ttl, _) => ParsedResponse::NoSuchDomain(ttl),
        (true, Some(ttl), _) => ParsedResponse::NoData(Some(ttl)),
        // Without a SOA record the server may not have looked at the end of the chain.
        (true, None, Some(ttl)) => ParsedResponse::Cname(name, ttl),
        // RFC 2308 §2.2: NS records without a SOA record are a referral, which says nothing about the name.
        (true, None, None) if has_referral && !reply.header().aa() => {
            ParsedResponse::Unusable("a referral instead of an answer".to_owned())
        }
        (true, None, None) => ParsedResponse::NoData(None),
    })
}

/// RFC 2181 §8: a TTL with its highest bit set is zero.
fn ttl_duration(ttl: Ttl) -> Duration {
    let seconds = ttl.as_secs();
    Duration::from_secs(if seconds > i32::MAX.unsigned_abs() { 0 } else { seconds.into() })
}

#[cfg(test)]
mod tests {
    use domain::base::iana::Rcode;
    use domain::base::{MessageBuilder, Serial};

    use super::*;

    type Owned = Name<Vec<u8>>;

    fn name(text: &str) -> Owned {
        Name::vec_from_str(text).unwrap()
    }

    /// A reply to an A question for `a.example`: answers as `owner CNAME target` or `owner A`.
    fn reply(rcode: Rcode, answers: &[&str], authority: &[&str]) -> Message<Vec<u8>> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_qr(true);
        builder.header_mut().set_rcode(rcode);
        let mut builder = builder.question();
        builder.push((name("a.example"), Rtype::A)).unwrap();
        let mut builder = builder.answer();
        for line in answers {
            match line.split(' ').collect::<Vec<_>>()[..] {
                [owner, "A"] => builder.push((name(owner), 60, rdata::A::from_octets(192, 0, 2, 1))).unwrap(),
                [owner, "CNAME", target] => {
                    builder.push((name(owner), 30, rdata::Cname::new(name(target)))).unwrap();
                }
                _ => panic!("{line}"),
            }
        }
        let mut builder = builder.authority();
        for kind in authority {
            match *kind {
                "NS" => builder.push((name("example"), 60, rdata::Ns::new(name("ns.example")))).unwrap(),
                _ => {
                    let ttl = Ttl::from_secs(20);
                    let soa = rdata::Soa::new(name("ns"), name("root"), Serial(1), ttl, ttl, ttl, ttl);
                    builder.push((name("example"), 600, soa)).unwrap();
                }
            }
        }
        builder.into_message()
    }

    fn address_records(count: usize) -> Vec<RecordData> {
        vec![RecordData::Address(IpAddr::from([192, 0, 2, 1])); count]
    }

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn records_are_found_through_cnames_in_any_order() {
        let ok = Rcode::NOERROR;
        assert_eq!(
            parse_response(&reply(ok, &["A.Example A"], &[])),
            ParsedResponse::Records(address_records(1), secs(60))
        );
        let chain = ["c.example A", "b.example CNAME c.example", "a.example CNAME b.example"];
        assert_eq!(
            parse_response(&reply(ok, &chain, &[])),
            ParsedResponse::Records(address_records(1), secs(30))
        );
    }

    #[test]
    fn records_of_other_names_are_ignored() {
        let response = parse_response(&reply(Rcode::NOERROR, &["other.example A"], &[]));
        assert_eq!(response, ParsedResponse::NoData(None));
    }

    #[test]
    fn a_chain_that_the_reply_does_not_finish_needs_another_query() {
        let chain = ["a.example CNAME b.example"];
        assert_eq!(
            parse_response(&reply(Rcode::NOERROR, &chain, &[])),
            ParsedResponse::Cname(name("b.example"), secs(30))
        );
        assert_eq!(
            parse_response(&reply(Rcode::NOERROR, &chain, &["SOA"])),
            ParsedResponse::NoData(Some(secs(20)))
        );
        assert_eq!(
            parse_response(&reply(Rcode::NXDOMAIN, &chain, &["SOA"])),
            ParsedResponse::NoSuchDomain(Some(secs(20)))
        );
    }

    #[test]
    fn a_circle_of_cnames_is_unusable() {
        let chain = ["a.example CNAME b.example", "b.example CNAME a.example"];
        assert!(matches!(parse_response(&reply(Rcode::NOERROR, &chain, &[])), ParsedResponse::Unusable(_)));
    }

    #[test]
    fn no_such_name_and_no_such_record_are_distinguished() {
        assert_eq!(
            parse_response(&reply(Rcode::NOERROR, &[], &["SOA"])),
            ParsedResponse::NoData(Some(secs(20)))
        );
        assert_eq!(
            parse_response(&reply(Rcode::NXDOMAIN, &[], &["SOA"])),
            ParsedResponse::NoSuchDomain(Some(secs(20)))
        );
        assert_eq!(
            parse_response(&reply(Rcode::NOERROR, &[], &[])),
            ParsedResponse::NoData(None),
            "not to be cached"
        );
        assert_eq!(parse_response(&reply(Rcode::NXDOMAIN, &[], &[])), ParsedResponse::NoSuchDomain(None));
    }

    #[test]
    fn a_referral_is_not_the_absence_of_records() {
        assert!(matches!(parse_response(&reply(Rcode::NOERROR, &[], &["NS"])), ParsedResponse::Unusable(_)));
    }

    #[test]
    fn a_failure_of_the_server_is_not_an_answer() {
        for code in [Rcode::SERVFAIL, Rcode::REFUSED, Rcode::NOTAUTH] {
            assert!(
                matches!(parse_response(&reply(code, &[], &["SOA"])), ParsedResponse::Unusable(_)),
                "{code}"
            );
        }
        for code in [Rcode::FORMERR, Rcode::NOTIMP] {
            assert!(
                matches!(parse_response(&reply(code, &[], &[])), ParsedResponse::EdnsRejected(_)),
                "{code}"
            );
        }
    }

    #[test]
    fn a_damaged_reply_is_unusable_and_causes_no_panic() {
        let whole =
            reply(Rcode::NOERROR, &["a.example CNAME b.example", "b.example A"], &["SOA"]).into_octets();
        for end in 12..whole.len() {
            let cut = Message::from_octets(whole[..end].to_vec()).unwrap();
            assert!(
                matches!(parse_response(&cut), ParsedResponse::Unusable(_) | ParsedResponse::Records(..)),
                "{end}"
            );
            let mut bent = whole.clone();
            bent[end] ^= 0xff;
            let _ = parse_response(&Message::from_octets(bent).unwrap());
        }
    }
}
