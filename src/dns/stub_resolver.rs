//! A stub resolver: asks name servers, blocking.
//!
//! Promises to be back by the deadline, and never to take trouble for an answer: what is not a
//! clear yes or no from some server, after all were asked, is [`DnsError::Temporary`]. Each query
//! has a random id and a socket, and so a source port, of its own; on that socket only the server
//! that was asked is heard, and a reply must repeat id and question (RFC 5452 §9). UDP with EDNS,
//! 1232 octets, TCP when a reply does not fit. What was answered is kept for its time.
//!
//! Does not resolve from the root, does not validate (it asks for AD, for the day when somebody
//! trusts it), does not read `/etc/hosts`. Called by couriers through [`Resolver`], from many
//! threads at once. Standards: RFC 1035, 2308, 5452, 6761 §6.3 (localhost), 6891, 7766.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use domain::base::{Message, MessageBuilder, Name, Rtype};

use super::budget::Budget;
use super::cache::{LookupResult, ResponseCache};
use super::error::DnsError;
use super::name_servers::{NameServerSource, Settings};
use super::resolver::{Mx, Resolver, is_localhost, reverse_name};
use super::response::{self, ParsedResponse, RecordData};
use crate::mail::Domain;
use crate::sys::{
    Clock, Connector, Moment, Mutex, Random, StopFlag, StoppableConnector, WaitResult, stopping_error,
};

/// Fits every path without fragments (DNS flag day 2020).
const UDP_PAYLOAD_OCTETS_MAX: u16 = 1232;
/// Questions asked for one name when servers do not follow CNAMEs to their end.
const CNAME_QUERIES_MAX: usize = 8;

/// Asks name servers. Shared by threads.
pub struct StubResolver {
    servers: NameServerSource,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    dial: Arc<dyn Connector>,
    /// Position of the server that answered last: a dead one is not waited for every time.
    preferred_server: AtomicUsize,
    cache: Mutex<ResponseCache>,
    /// From then on nobody is waited for.
    stop: Option<Arc<StopFlag>>,
}

impl StubResolver {
    /// A stub resolver that has asked nobody yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        dial: Arc<dyn Connector>,
    ) -> Self {
        Self {
            servers: NameServerSource::new(settings),
            clock,
            random,
            dial,
            preferred_server: AtomicUsize::new(0),
            cache: Mutex::new(ResponseCache::new()),
            stop: None,
        }
    }

    /// The same, that waits for no server any more once it is asked to stop: for questions on which no
    /// promise depends.
    #[must_use]
    pub fn interruptible_by(self, stop: Arc<StopFlag>) -> Self {
        Self { dial: Arc::new(StoppableConnector::new(Arc::clone(&stop))), stop: Some(stop), ..self }
    }

    /// The records of one type, from the cache or from a server.
    fn look_up(&self, name: &Domain, kind: Rtype, deadline: Moment) -> LookupResult {
        // Only a name that is too long for DNS fails, and such a name cannot exist.
        let asked = Name::vec_from_str(name.as_ascii()).map_err(|_| DnsError::NoSuchDomain)?;
        let key = (name.as_ascii().to_owned(), kind);
        if let Some(answer) = self.cache.lock().get(&key, self.clock.now()) {
            return answer;
        }
        let (answer, ttl) = self.resolve(asked, kind, deadline);
        if let Some(ttl) = ttl {
            self.cache.lock().insert(key, answer.clone(), ttl, self.clock.now());
        }
        answer
    }

    /// The answer, and for how long to keep it, if at all.
    fn resolve(
        &self,
        mut name: Name<Vec<u8>>,
        kind: Rtype,
        deadline: Moment,
    ) -> (LookupResult, Option<Duration>) {
        let mut longest = Duration::MAX;
        for _ in 0..CNAME_QUERIES_MAX {
            match self.query_servers(&name, kind, deadline) {
                Ok(ParsedResponse::Records(facts, ttl)) => return (Ok(facts), Some(ttl.min(longest))),
                Ok(ParsedResponse::NoData(ttl)) => return (Ok(Vec::new()), ttl.map(|ttl| ttl.min(longest))),
                Ok(ParsedResponse::NoSuchDomain(ttl)) => {
                    return (Err(DnsError::NoSuchDomain), ttl.map(|ttl| ttl.min(longest)));
                }
                Ok(ParsedResponse::Cname(target, ttl)) => {
                    longest = longest.min(ttl);
                    name = target;
                }
                Ok(ParsedResponse::Unusable(why) | ParsedResponse::EdnsRejected(why)) => {
                    return (Err(DnsError::Temporary(why)), Some(longest));
                }
                Err(error) => {
                    // After the caller's deadline it is unknown whether a server would have answered.
                    let keep = (self.clock.now() < deadline).then_some(longest);
                    return (Err(error), keep);
                }
            }
        }
        (Err(DnsError::Temporary("too many CNAMEs".to_owned())), Some(longest))
    }

    /// Asks the servers, one after the other, until one says something about the name. The error
    /// says what went wrong last; never [`DnsError::NoSuchDomain`].
    fn query_servers(
        &self,
        name: &Name<Vec<u8>>,
        kind: Rtype,
        deadline: Moment,
    ) -> Result<ParsedResponse, DnsError> {
        let servers = self.servers.current();
        let count = servers.addresses.len();
        let first = self.preferred_server.load(Ordering::Relaxed);
        let mut order: Vec<_> =
            servers.addresses.iter().enumerate().cycle().skip(first % count.max(1)).take(count).collect();
        let mut last_error = DnsError::BudgetExhausted("no time is left");
        for _ in 0..servers.attempts {
            let mut silent = Vec::new();
            for (position, server) in order {
                let now = self.clock.now();
                if now >= deadline {
                    return Err(last_error);
                }
                let until = deadline.min(now + servers.timeout);
                match self.query_server(*server, name, kind, until) {
                    Ok(ParsedResponse::Unusable(why) | ParsedResponse::EdnsRejected(why)) => {
                        // It has spoken, and would say the same again.
                        last_error = DnsError::Temporary(format!("{server} says {why}"));
                    }
                    Ok(verdict) => {
                        self.preferred_server.store(position, Ordering::Relaxed);
                        return Ok(verdict);
                    }
                    Err(error) => {
                        last_error = DnsError::Temporary(match error.kind() {
                            io::ErrorKind::TimedOut => format!("{server} does not answer"),
                            _ => format!("{server}: {error}"),
                        });
                        silent.push((position, server));
                    }
                }
            }
            order = silent;
        }
        Err(last_error)
    }

    /// One server's word: by UDP, by TCP if that did not fit, without EDNS if it knows none.
    fn query_server(
        &self,
        server: SocketAddr,
        name: &Name<Vec<u8>>,
        kind: Rtype,
        deadline: Moment,
    ) -> io::Result<ParsedResponse> {
        let mut verdict = ParsedResponse::Unusable(String::new());
        for edns in [Some(UDP_PAYLOAD_OCTETS_MAX), None] {
            let query = self.build_query(name, kind, edns)?;
            let mut reply = self.query_over_udp(server, &query, deadline)?;
            if reply.header().tc() {
                reply = self.query_over_tcp(server, &query, deadline)?;
            }
            verdict = response::parse_response(&reply);
            if !matches!(verdict, ParsedResponse::EdnsRejected(_)) {
                break;
            }
        }
        Ok(verdict)
    }

    fn build_query(
        &self,
        name: &Name<Vec<u8>>,
        kind: Rtype,
        edns: Option<u16>,
    ) -> io::Result<Message<Vec<u8>>> {
        let mut builder = MessageBuilder::new_vec();
        let [high, low, ..] = self.random.bits().to_be_bytes();
        builder.header_mut().set_id(u16::from_be_bytes([high, low]));
        builder.header_mut().set_rd(true);
        // RFC 6840 §5.7: "I understand the AD bit". Without it a reply would never bear one.
        builder.header_mut().set_ad(true);
        let mut builder = builder.question();
        builder.push((name, kind)).map_err(io::Error::other)?;
        let mut builder = builder.additional();
        if let Some(octets) = edns {
            builder
                .opt(|opt| {
                    opt.set_udp_payload_size(octets);
                    Ok(())
                })
                .map_err(io::Error::other)?;
        }
        Ok(builder.into_message())
    }

    fn query_over_udp(
        &self,
        server: SocketAddr,
        query: &Message<Vec<u8>>,
        deadline: Moment,
    ) -> io::Result<Message<Vec<u8>>> {
        let any: IpAddr =
            if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(server)?;
        socket.send(query.as_slice())?;
        // A server may ignore our size; what is cut off here does not parse.
        let mut buffer = vec![0; 4096];
        loop {
            let left = deadline.since(self.clock.now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if let Some(stop) = &self.stop {
                match stop.wait_until_readable(socket.as_fd(), Some(left))? {
                    WaitResult::Ready => {}
                    WaitResult::TimedOut => continue,
                    WaitResult::StopRequested => return Err(stopping_error()),
                }
            }
            socket.set_read_timeout(Some(left))?;
            let octets = match socket.recv(&mut buffer) {
                Ok(octets) => octets,
                // Linux says so when the timeout is over; the loop looks at the clock.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            let received = buffer.get(..octets).unwrap_or_default().to_vec();
            if let Ok(reply) = Message::from_octets(received)
                && is_reply_to(&reply, query)
            {
                return Ok(reply);
            }
            // Somebody else's, late, or forged: the right one may still come.
        }
    }

    fn query_over_tcp(
        &self,
        server: SocketAddr,
        query: &Message<Vec<u8>>,
        deadline: Moment,
    ) -> io::Result<Message<Vec<u8>>> {
        let mut stream = self.dial.connect(&server.into(), deadline)?;
        // RFC 7766 §8: length and message in one write.
        let length = u16::try_from(query.as_slice().len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), query.as_slice()].concat())?;
        stream.flush()?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut octets = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut octets)?;
        match Message::from_octets(octets) {
            Ok(reply) if is_reply_to(&reply, query) && !reply.header().tc() => Ok(reply),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a reply to the question")),
        }
    }
}

/// Same id, and the question repeated. Only a refusal may come without it: some servers that do
/// not understand a query send back a bare header.
fn is_reply_to(reply: &Message<Vec<u8>>, query: &Message<Vec<u8>>) -> bool {
    let is_bare_refusal = reply.header().qr()
        && reply.header().id() == query.header().id()
        && reply.header_counts().qdcount() == 0
        && matches!(
            response::parse_response(reply),
            ParsedResponse::Unusable(_) | ParsedResponse::EdnsRejected(_)
        )
        && reply.is_error();
    reply.is_answer(query) || is_bare_refusal
}

impl Resolver for StubResolver {
    fn mx_records(&self, name: &Domain, budget: &Budget) -> Result<Vec<Mx>, DnsError> {
        let deadline = budget.take_lookup()?;
        if is_localhost(name) {
            return Ok(Vec::new());
        }
        let facts = self.look_up(name, Rtype::MX, deadline)?;
        Ok(facts
            .into_iter()
            .filter_map(|fact| match fact {
                RecordData::Mx(mx) => Some(mx),
                RecordData::Address(_) | RecordData::Ptr(_) => None,
            })
            .collect())
    }

    fn addresses(&self, host: &Domain, budget: &Budget) -> Result<Vec<IpAddr>, DnsError> {
        let deadline = budget.take_lookup()?;
        if is_localhost(host) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let v4 = match self.look_up(host, Rtype::A, deadline) {
            Err(DnsError::NoSuchDomain) => return Err(DnsError::NoSuchDomain),
            other => other,
        };
        let facts = match (v4, self.look_up(host, Rtype::AAAA, deadline)) {
            (Ok(mut v4), Ok(v6)) => {
                v4.extend(v6);
                v4
            }
            // RFC 4074 §4: servers that know A and not AAAA may say anything when asked for AAAA.
            (Ok(v4), Err(DnsError::NoSuchDomain)) => v4,
            (Ok(some), Err(_)) | (Err(_), Ok(some)) if !some.is_empty() => some,
            (Err(trouble), _) | (_, Err(trouble)) => return Err(trouble),
        };
        Ok(facts
            .into_iter()
            .filter_map(|fact| match fact {
                RecordData::Address(address) => Some(address),
                RecordData::Mx(_) | RecordData::Ptr(_) => None,
            })
            .collect())
    }

    fn ptr_names(&self, address: IpAddr, budget: &Budget) -> Result<Vec<Domain>, DnsError> {
        let deadline = budget.take_lookup()?;
        let facts = self.look_up(&reverse_name(address)?, Rtype::PTR, deadline)?;
        Ok(facts
            .into_iter()
            .filter_map(|fact| match fact {
                RecordData::Ptr(name) => Some(name),
                RecordData::Address(_) | RecordData::Mx(_) => None,
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use std::thread::JoinHandle;

    use domain::base::iana::Rcode;
    use domain::rdata;

    use super::*;
    use crate::dns::MxExchange;
    use crate::fakes::DnsServer;
    use crate::sys::{SystemClock, SystemConnector, SystemRandom, spawn};

    fn stub(servers: &[SocketAddr], timeout_millis: u64) -> StubResolver {
        let settings = Settings {
            servers: servers.to_vec(),
            timeout: Duration::from_millis(timeout_millis),
            ..Settings::default()
        };
        StubResolver::new(settings, Arc::new(SystemClock), Arc::new(SystemRandom), Arc::new(SystemConnector))
    }

    fn name(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn deadline_in(seconds: u64) -> Moment {
        SystemClock.now() + Duration::from_secs(seconds)
    }

    fn budget(seconds: u64) -> Budget {
        Budget::new(deadline_in(seconds), 10)
    }

    fn mx_record(preference: u16, text: &str) -> Mx {
        Mx { preference, exchange: MxExchange::from_dns_name(text) }
    }

    /// A socket on loopback whose owner never replies.
    fn silent_socket() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").unwrap()
    }

    /// Sends what `replies` makes of each query, until its socket is closed by the `count`th.
    fn scripted_server(
        count: usize,
        replies: impl Fn(&Message<Vec<u8>>) -> Vec<Vec<u8>> + Send + 'static,
    ) -> (SocketAddr, JoinHandle<()>) {
        let socket = silent_socket();
        let address = socket.local_addr().unwrap();
        let thread = spawn("scripted", move || {
            for _ in 0..count {
                let mut buffer = [0; 4096];
                let (octets, client) = socket.recv_from(&mut buffer).unwrap();
                for reply in replies(&Message::from_octets(buffer[..octets].to_vec()).unwrap()) {
                    socket.send_to(&reply, client).unwrap();
                }
            }
        });
        (address, thread.unwrap())
    }

    fn address_reply(query: &Message<Vec<u8>>, last_octet: u8) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec().start_answer(query, Rcode::NOERROR).unwrap();
        let owner = query.sole_question().unwrap().into_qname();
        builder.push((owner, 60, rdata::A::from_octets(192, 0, 2, last_octet))).unwrap();
        builder.finish()
    }

    fn ipv4_addresses(stub: &StubResolver, text: &str) -> Result<Vec<String>, DnsError> {
        let facts = stub.look_up(&name(text), Rtype::A, deadline_in(10))?;
        Ok(facts
            .iter()
            .map(|fact| match fact {
                RecordData::Address(address) => address.to_string(),
                other @ (RecordData::Mx(_) | RecordData::Ptr(_)) => panic!("{other:?}"),
            })
            .collect())
    }

    #[test]
    fn mx_records_addresses_and_their_absence_are_told_apart() {
        let server = DnsServer::start(
            "there.example.    MX 10 mx.there.example.\n\
             there.example.    MX 20 192.0.2.7\n\
             mx.there.example. A 192.0.2.1\n\
             mx.there.example. AAAA 2001:db8::1\n\
             null.example.     MX 0 .\n\
             alias.example.    CNAME there.example.\n\
             bücher.example.   CNAME mx.there.example.\n\
             broken.example.   SERVFAIL",
        );
        let stub = stub(&[server.address], 2000);
        let there = [mx_record(10, "mx.there.example"), mx_record(20, "192.0.2.7")];
        assert_eq!(stub.mx_records(&name("there.example"), &budget(10)).unwrap(), there);
        assert_eq!(stub.mx_records(&name("alias.example"), &budget(10)).unwrap(), there, "through a CNAME");
        assert_eq!(stub.mx_records(&name("null.example"), &budget(10)).unwrap(), [mx_record(0, ".")]);
        assert_eq!(stub.mx_records(&name("mx.there.example"), &budget(10)).unwrap(), [], "NODATA");
        assert_eq!(stub.mx_records(&name("nowhere.example"), &budget(10)), Err(DnsError::NoSuchDomain));
        assert!(matches!(stub.mx_records(&name("broken.example"), &budget(10)), Err(DnsError::Temporary(_))));

        let both: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        for text in ["mx.there.example", "bücher.example"] {
            assert_eq!(stub.addresses(&name(text), &budget(10)).unwrap(), both, "{text}");
        }
        assert_eq!(stub.addresses(&name("null.example"), &budget(10)).unwrap(), Vec::<IpAddr>::new());
        assert_eq!(stub.addresses(&name("nowhere.example"), &budget(10)), Err(DnsError::NoSuchDomain));
    }

    #[test]
    fn the_names_of_an_address_are_its_ptr_records_through_cnames() {
        let server = DnsServer::start(
            "7.2.0.192.in-addr.arpa. CNAME 7.sub.2.0.192.in-addr.arpa.\n\
             7.sub.2.0.192.in-addr.arpa. PTR mx.there.example.\n",
        );
        let stub = stub(&[server.address], 1000);
        let names = |raw: &str| stub.ptr_names(raw.parse().unwrap(), &budget(5));
        assert_eq!(names("192.0.2.7"), Ok(vec![name("mx.there.example")]));
        assert_eq!(names("192.0.2.8"), Err(DnsError::NoSuchDomain));
    }

    #[test]
    fn what_was_answered_is_not_asked_again() {
        let server = DnsServer::start("there.example. MX 10 mx.there.example.\nbroken.example. SERVFAIL");
        let stub = stub(&[server.address], 2000);
        for text in ["there.example", "nowhere.example", "broken.example"] {
            let before = server.query_count();
            let first = stub.mx_records(&name(text), &budget(10));
            server.set_zone("other.example. EMPTY");
            assert_eq!(stub.mx_records(&name(text), &budget(10)), first, "{text}");
            assert_eq!(server.query_count() - before, 1, "{text}");
            server.set_zone("there.example. MX 10 mx.there.example.\nbroken.example. SERVFAIL");
        }
    }

    #[test]
    fn a_reply_that_does_not_fit_comes_by_tcp() {
        let mut zone = String::new();
        for n in 0..60 {
            zone += &format!("many.example. MX {n} a-rather-long-name-{n:02}.there.example.\n");
        }
        let server = DnsServer::start(&zone);
        let found = stub(&[server.address], 2000).mx_records(&name("many.example"), &budget(10)).unwrap();
        assert_eq!(found.len(), 60);
        assert_eq!(found[0], mx_record(0, "a-rather-long-name-00.there.example"));
        assert_eq!(server.query_count(), 2, "once by UDP, once by TCP");
    }

    #[test]
    fn forged_and_stray_replies_are_not_heard() {
        let (server, thread) = scripted_server(1, |query| {
            let mut wrong_id = address_reply(query, 66);
            wrong_id[0] ^= 0xff;
            let mut other = MessageBuilder::new_vec();
            other.header_mut().set_id(query.header().id());
            let mut other = other.question();
            other.push((Name::vec_from_str("other.example").unwrap(), Rtype::A)).unwrap();
            let wrong_question = address_reply(&other.into_message(), 66);
            let not_a_reply = query.as_slice().to_vec();
            vec![wrong_id, wrong_question, not_a_reply, vec![], vec![0; 5], address_reply(query, 1)]
        });
        assert_eq!(ipv4_addresses(&stub(&[server], 5000), "there.example").unwrap(), ["192.0.2.1"]);
        thread.join().unwrap();
    }

    #[test]
    fn a_chain_that_a_server_leaves_open_is_followed() {
        let (server, thread) = scripted_server(2, |query| {
            let owner = query.sole_question().unwrap().into_qname();
            if owner.to_string() == "there.example" {
                return vec![address_reply(query, 1)];
            }
            let mut builder = MessageBuilder::new_vec().start_answer(query, Rcode::NOERROR).unwrap();
            let target = Name::vec_from_str("there.example").unwrap();
            builder.push((owner, 60, rdata::Cname::new(target))).unwrap();
            vec![builder.finish()]
        });
        assert_eq!(ipv4_addresses(&stub(&[server], 5000), "alias.example").unwrap(), ["192.0.2.1"]);
        thread.join().unwrap();
    }

    #[test]
    fn aliases_without_end_are_given_up() {
        let (server, thread) = scripted_server(CNAME_QUERIES_MAX, |query| {
            let owner = query.sole_question().unwrap().into_qname();
            let target = Name::vec_from_str(&format!("x{owner}")).unwrap();
            let mut builder = MessageBuilder::new_vec().start_answer(query, Rcode::NOERROR).unwrap();
            builder.push((owner, 60, rdata::Cname::new(target))).unwrap();
            vec![builder.finish()]
        });
        assert!(matches!(ipv4_addresses(&stub(&[server], 5000), "a.example"), Err(DnsError::Temporary(_))));
        thread.join().unwrap();
    }

    #[test]
    fn a_server_that_does_not_know_edns_is_asked_without() {
        let (server, thread) = scripted_server(2, |query| {
            if query.opt().is_none() {
                return vec![address_reply(query, 1)];
            }
            // A bare header, as old servers send it.
            let mut refusal = MessageBuilder::new_vec();
            refusal.header_mut().set_id(query.header().id());
            refusal.header_mut().set_qr(true);
            refusal.header_mut().set_rcode(Rcode::FORMERR);
            vec![refusal.finish()]
        });
        assert_eq!(ipv4_addresses(&stub(&[server], 5000), "there.example").unwrap(), ["192.0.2.1"]);
        thread.join().unwrap();
    }

    #[test]
    fn a_silent_server_is_temporary_and_the_deadline_holds() {
        let socket = silent_socket();
        let stub = stub(&[socket.local_addr().unwrap()], 60_000);
        let began = SystemClock.now();
        let deadline = began + Duration::from_millis(100);
        let answer = stub.addresses(&name("there.example"), &Budget::new(deadline, 10));
        assert!(matches!(answer, Err(DnsError::Temporary(_))), "{answer:?}");
        let took = SystemClock.now().since(began);
        assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(10), "{took:?}");
    }

    #[test]
    fn a_budget_without_time_is_temporary_and_not_kept_for_the_next_caller() {
        let server = DnsServer::start("there.example. MX 10 mx.there.example.");
        let stub = stub(&[server.address], 2000);
        let there = name("there.example");
        let answer = stub.mx_records(&there, &Budget::new(SystemClock.now(), 10));
        assert_eq!(answer, Err(DnsError::BudgetExhausted("no time is left")));
        assert_eq!(stub.mx_records(&there, &budget(10)).unwrap().len(), 1);
    }

    #[test]
    fn one_question_is_one_look_up_however_many_queries_it_takes() {
        let server = DnsServer::start("there.example. A 192.0.2.1\nthere.example. AAAA 2001:db8::1");
        let stub = stub(&[server.address], 2000);
        let budget = Budget::new(deadline_in(10), 2);
        for _ in 0..2 {
            assert_eq!(stub.addresses(&name("there.example"), &budget).unwrap().len(), 2);
        }
        assert_eq!(server.query_count(), 2, "A and AAAA, and then the cache");
        let answer = stub.addresses(&name("there.example"), &budget);
        assert_eq!(answer, Err(DnsError::BudgetExhausted("no look-ups are left")));
    }

    #[test]
    fn a_silent_server_is_asked_as_often_as_the_settings_say() {
        let socket = silent_socket();
        let stub = stub(&[socket.local_addr().unwrap()], 20);
        assert!(matches!(stub.mx_records(&name("there.example"), &budget(10)), Err(DnsError::Temporary(_))));
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 512];
        let mut ids = Vec::new();
        let mut ports = Vec::new();
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            ids.push([buffer[0], buffer[1]]);
            ports.push(client.port());
        }
        assert_eq!(ids.len(), 2);
        assert!(ids[0] != ids[1] || ports[0] != ports[1], "each query has an id and a port of its own");
    }

    #[test]
    fn a_dead_first_server_is_passed_over_and_not_waited_for_again() {
        let socket = silent_socket();
        let server = DnsServer::start("a.example. A 192.0.2.1\nb.example. A 192.0.2.2");
        let stub = stub(&[socket.local_addr().unwrap(), server.address], 1000);
        assert_eq!(ipv4_addresses(&stub, "a.example").unwrap(), ["192.0.2.1"]);
        assert_eq!(ipv4_addresses(&stub, "b.example").unwrap(), ["192.0.2.2"]);
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 512];
        assert!(socket.recv_from(&mut buffer).is_ok());
        assert!(socket.recv_from(&mut buffer).is_err(), "asked once only");
    }

    #[test]
    fn a_server_in_trouble_is_passed_over() {
        let broken = DnsServer::start("there.example. SERVFAIL");
        let server = DnsServer::start("there.example. A 192.0.2.1");
        let stub = stub(&[broken.address, server.address], 2000);
        assert_eq!(ipv4_addresses(&stub, "there.example").unwrap(), ["192.0.2.1"]);
        assert_eq!((broken.query_count(), server.query_count()), (1, 1));
    }

    #[test]
    fn nobody_listening_is_temporary_and_known_at_once() {
        let closed = silent_socket().local_addr().unwrap();
        let answer = stub(&[closed], 60_000).mx_records(&name("there.example"), &budget(50));
        assert!(matches!(answer, Err(DnsError::Temporary(_))), "{answer:?}");
    }

    #[test]
    fn one_family_is_enough_when_the_other_is_broken() {
        let (server, thread) = scripted_server(2, |query| {
            if query.qtype() == Some(Rtype::A) {
                return vec![address_reply(query, 1)];
            }
            vec![MessageBuilder::new_vec().start_answer(query, Rcode::SERVFAIL).unwrap().finish()]
        });
        let found = stub(&[server], 5000).addresses(&name("there.example"), &budget(10)).unwrap();
        assert_eq!(found, [IpAddr::from([192, 0, 2, 1])]);
        thread.join().unwrap();
    }

    #[test]
    fn localhost_is_this_host_and_nobody_is_asked() {
        let server = DnsServer::start("localhost. A 192.0.2.1");
        let stub = stub(&[server.address], 2000);
        for text in ["localhost", "mail.localhost"] {
            assert!(stub.addresses(&name(text), &budget(10)).unwrap().iter().all(IpAddr::is_loopback));
        }
        assert_eq!(server.query_count(), 0);
    }

    #[test]
    fn a_name_too_long_for_dns_does_not_exist() {
        let server = DnsServer::start("");
        let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(63)].join(".");
        let answer = stub(&[server.address], 2000).mx_records(&name(&long), &budget(10));
        assert_eq!(answer, Err(DnsError::NoSuchDomain));
    }
}
