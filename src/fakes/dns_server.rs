//! A name server on loopback that serves a zone file, for tests of the real program.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use domain::base::iana::Rcode;
use domain::base::message_builder::{AnswerBuilder, MessageBuilder, PushError};
use domain::base::{Message, Name, Rtype, Serial, ToName as _, Ttl};
use domain::rdata;

use crate::dns::{MxExchange, Zone, ZoneLookup, ZoneRecordData};
use crate::mail::Domain;
use crate::sys::{Mutex, spawn};

/// TTL and MINIMUM of the SOA in a negative response.
const NEGATIVE_TTL: Ttl = Ttl::from_secs(60);
/// Most CNAMEs that are followed.
const CNAMES_MAX: usize = 8;

/// Answers from a zone, by UDP and TCP, like a recursive server; stops when dropped. A response that is larger
/// than the client's UDP size is truncated; a query for a name that is `SILENT` gets none.
pub struct DnsServer {
    /// The address and port on 127.0.0.1.
    pub address: SocketAddr,
    shared: Arc<ServerState>,
    threads: Vec<JoinHandle<()>>,
}

struct ServerState {
    zone: Mutex<Zone>,
    query_count: AtomicUsize,
    is_stopping: AtomicBool,
}

impl DnsServer {
    /// Serves the zone of this text on a free port.
    ///
    /// # Panics
    /// If the text is not a zone or the host has no free port: the test cannot go on.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a stand-in for tests: a broken zone is an error of the test")]
    pub fn start(zone: &str) -> Self {
        let zone = Zone::parse(zone).expect("the text is a zone");
        let (udp, tcp) = (0..100).find_map(|_| bind_same_port().ok()).expect("a port is free");
        let address = udp.local_addr().expect("the socket is bound");
        let shared = Arc::new(ServerState {
            zone: Mutex::new(zone),
            query_count: AtomicUsize::new(0),
            is_stopping: AtomicBool::new(false),
        });
        let (for_udp, for_tcp) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            spawn("dns-udp", move || for_udp.serve_udp(&udp)).expect("a thread starts"),
            spawn("dns-tcp", move || for_tcp.serve_tcp(&tcp)).expect("a thread starts"),
        ];
        Self { address, shared, threads }
    }

    /// Replaces the zone.
    ///
    /// # Panics
    /// If the text is not a zone.
    #[expect(clippy::expect_used, reason = "a stand-in for tests: a broken zone is an error of the test")]
    pub fn set_zone(&self, zone: &str) {
        *self.shared.zone.lock() = Zone::parse(zone).expect("the text is a zone");
    }

    /// Queries received so far, by UDP and TCP.
    #[must_use]
    pub fn query_count(&self) -> usize {
        self.shared.query_count.load(Ordering::Relaxed)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        // Wakes both threads. Fails for a thread that has ended.
        let _ =
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.send_to(&[], self.address));
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Binds the same port for both. Fails if another program has one of them.
fn bind_same_port() -> io::Result<(UdpSocket, TcpListener)> {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok((UdpSocket::bind(tcp.local_addr()?)?, tcp))
}

impl ServerState {
    fn serve_udp(&self, socket: &UdpSocket) {
        let mut buffer = [0; 4096];
        while !self.is_stopping.load(Ordering::Relaxed) {
            let Ok((octets, client)) = socket.recv_from(&mut buffer) else { continue };
            let Ok(query) = Message::from_octets(buffer.get(..octets).unwrap_or_default()) else { continue };
            let octets_max = query.opt().map_or(512, |opt| opt.udp_payload_size().max(512));
            let Some(mut reply) = self.reply(&query) else { continue };
            if reply.len() > octets_max.into() {
                let mut empty = MessageBuilder::new_vec().start_error(&query, Rcode::NOERROR);
                empty.header_mut().set_tc(true);
                reply = empty.finish();
            }
            let _ = socket.send_to(&reply, client);
        }
    }

    fn serve_tcp(&self, listener: &TcpListener) {
        while let Ok((mut stream, _)) = listener.accept() {
            if self.is_stopping.load(Ordering::Relaxed) {
                return;
            }
            let _ = self.serve_connection(&mut stream);
        }
    }

    /// Answers one query: the stub resolver sends one on each connection.
    fn serve_connection(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut octets = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut octets)?;
        let query = Message::from_octets(octets.as_slice()).map_err(io::Error::other)?;
        let Some(reply) = self.reply(&query) else { return Ok(()) };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), reply.as_slice()].concat())
    }

    fn reply(&self, query: &Message<&[u8]>) -> Option<Vec<u8>> {
        self.query_count.fetch_add(1, Ordering::Relaxed);
        let question = query.sole_question().ok()?;
        let start = |code| MessageBuilder::new_vec().start_error(query, code);
        let Ok(mut name) = Domain::parse(&question.qname().to_string()) else {
            return Some(start(Rcode::NXDOMAIN).finish());
        };
        let mut builder = start(Rcode::NOERROR);
        builder.header_mut().set_ra(true);
        let zone = self.zone.lock();
        for _ in 0..CNAMES_MAX {
            let ZoneLookup::Records(records) = zone.look_up(&name) else {
                builder.header_mut().set_rcode(Rcode::NXDOMAIN);
                return with_soa(builder).ok();
            };
            let owner = Name::<Vec<u8>>::vec_from_str(name.as_ascii()).ok()?;
            let mut alias = None;
            let mut is_found = false;
            for record in records {
                let (kind, ttl) = (question.qtype(), Ttl::from_secs(record.ttl_seconds));
                is_found |= match (&record.data, kind) {
                    (ZoneRecordData::Silent, _) => return None,
                    (ZoneRecordData::Servfail, _) => return Some(start(Rcode::SERVFAIL).finish()),
                    (ZoneRecordData::Cname(target), _) => {
                        let to = Name::<Vec<u8>>::vec_from_str(target.as_ascii()).ok()?;
                        builder.push((&owner, ttl, rdata::Cname::new(to))).ok()?;
                        alias = Some(target.clone());
                        false
                    }
                    (ZoneRecordData::Address(IpAddr::V4(v4)), Rtype::A) => {
                        builder.push((&owner, ttl, rdata::A::new(*v4))).is_ok()
                    }
                    (ZoneRecordData::Address(IpAddr::V6(v6)), Rtype::AAAA) => {
                        builder.push((&owner, ttl, rdata::Aaaa::new(*v6))).is_ok()
                    }
                    (ZoneRecordData::Mx(mx), Rtype::MX) => {
                        let host = match &mx.exchange {
                            MxExchange::Host(host) => host.as_ascii(),
                            MxExchange::NullMx => ".",
                            MxExchange::InvalidHostName(text) => text,
                        };
                        let host = Name::<Vec<u8>>::vec_from_str(host).ok()?;
                        builder.push((&owner, ttl, rdata::Mx::new(mx.preference, host))).is_ok()
                    }
                    (ZoneRecordData::Ptr(name), Rtype::PTR) => {
                        let name = Name::<Vec<u8>>::vec_from_str(name.as_ascii()).ok()?;
                        builder.push((&owner, ttl, rdata::Ptr::new(name))).is_ok()
                    }
                    (
                        ZoneRecordData::Address(_)
                        | ZoneRecordData::Mx(_)
                        | ZoneRecordData::Ptr(_)
                        | ZoneRecordData::Empty,
                        _,
                    ) => false,
                };
            }
            match alias {
                Some(target) => name = target,
                None if is_found => return Some(builder.finish()),
                None => return with_soa(builder).ok(),
            }
        }
        Some(start(Rcode::SERVFAIL).finish())
    }
}

/// Adds a SOA, which says how long a negative response may be cached (RFC 2308 §5).
fn with_soa(builder: AnswerBuilder<Vec<u8>>) -> Result<Vec<u8>, PushError> {
    let root = Name::root_vec();
    let ttl = NEGATIVE_TTL;
    let soa = rdata::Soa::new(root.to_vec(), root.to_vec(), Serial(1), ttl, ttl, ttl, ttl);
    let mut builder = builder.authority();
    builder.push((root, ttl, soa))?;
    Ok(builder.finish())
}
