//! The stub resolver against name servers on loopback that answer, lie, break off and keep silent.

use std::net::{SocketAddr, UdpSocket};
use std::thread::JoinHandle;

use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder};
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

/// A socket on loopback that never replies.
fn silent_socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// Answers `count` queries with the datagrams that `replies` returns for each, and closes its socket.
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
    let records = stub.look_up(&name(text), Rtype::A, deadline_in(10))?;
    Ok(records
        .iter()
        .map(|record| match record {
            RecordData::Address(address) => address.to_string(),
            other @ (RecordData::Mx(_) | RecordData::Ptr(_)) => panic!("{other:?}"),
        })
        .collect())
}

#[test]
fn mx_records_addresses_and_their_absence_are_distinguished() {
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
fn a_question_with_a_cached_answer_is_not_asked_again() {
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
fn a_reply_that_does_not_fit_is_asked_for_by_tcp() {
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
fn forged_and_stray_replies_are_ignored() {
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
fn a_chain_of_cnames_that_a_server_does_not_finish_is_followed() {
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
fn a_chain_of_cnames_without_an_end_is_a_temporary_failure() {
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
fn a_server_without_edns_is_asked_again_without_it() {
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
fn a_silent_server_is_temporary_and_the_deadline_is_kept() {
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
fn a_silent_first_server_is_skipped_and_not_waited_for_again() {
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
fn a_server_that_fails_is_skipped() {
    let broken = DnsServer::start("there.example. SERVFAIL");
    let server = DnsServer::start("there.example. A 192.0.2.1");
    let stub = stub(&[broken.address, server.address], 2000);
    assert_eq!(ipv4_addresses(&stub, "there.example").unwrap(), ["192.0.2.1"]);
    assert_eq!((broken.query_count(), server.query_count()), (1, 1));
}

#[test]
fn a_closed_port_is_temporary_and_reported_at_once() {
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
fn localhost_is_this_host_and_no_server_is_asked() {
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
