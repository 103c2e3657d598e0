//! One query to one name server: by UDP, by TCP if the reply does not fit, without EDNS if the server does
//! not support it.
//!
//! Each query has a random id, and a socket (and so a source port) of its own; the socket takes datagrams
//! of the server only, and a reply must repeat id and question (RFC 5452 §9). UDP with EDNS, 1232 octets.
//!
//! Called by the stub resolver. Standards: RFC 1035, 5452, 6840 §5.7, 6891, 7766.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use domain::base::{Message, MessageBuilder, Name, Rtype};

use super::response::{ParsedResponse, parse_response};
use crate::sys::{
    Clock, Connector, Moment, Random, StopFlag, StoppableConnector, WaitResult, stopping_error,
};

/// Fits every path without fragments (DNS flag day 2020).
const UDP_PAYLOAD_OCTETS_MAX: u16 = 1232;
/// Octets of a datagram that are read; a server may ignore the size that the query names.
const UDP_BUFFER_OCTETS: usize = 4096;

/// Sends queries and matches replies.
pub(super) struct NameServerClient {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    connector: Arc<dyn Connector>,
    /// Once it is requested, no reply is waited for.
    stop: Option<Arc<StopFlag>>,
}

impl NameServerClient {
    pub(super) fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>, connector: Arc<dyn Connector>) -> Self {
        Self { clock, random, connector, stop: None }
    }

    /// The same client, which waits for no reply once `stop` is requested.
    pub(super) fn interruptible_by(self, stop: Arc<StopFlag>) -> Self {
        Self { connector: Arc::new(StoppableConnector::new(Arc::clone(&stop))), stop: Some(stop), ..self }
    }

    /// Asks `server` for the records of one type.
    ///
    /// # Errors
    /// The server did not reply by `deadline`, or the network failed.
    pub(super) fn query(
        &self,
        server: SocketAddr,
        name: &Name<Vec<u8>>,
        kind: Rtype,
        deadline: Moment,
    ) -> io::Result<ParsedResponse> {
        let mut response = ParsedResponse::Unusable(String::new());
        for edns in [Some(UDP_PAYLOAD_OCTETS_MAX), None] {
            let query = self.build_query(name, kind, edns)?;
            let mut reply = self.query_over_udp(server, &query, deadline)?;
            if reply.header().tc() {
                reply = self.query_over_tcp(server, &query, deadline)?;
            }
            response = parse_response(&reply);
            if !matches!(response, ParsedResponse::EdnsRejected(_)) {
                break;
            }
        }
        Ok(response)
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
        // RFC 6840 §5.7: asks for the AD bit in the reply.
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
        // A reply that is longer is cut off and does not parse.
        let mut buffer = vec![0; UDP_BUFFER_OCTETS];
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
                // Linux reports a timeout so; the loop looks at the clock.
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
            // A late or forged reply to another query: the reply to this one may still come.
        }
    }

    fn query_over_tcp(
        &self,
        server: SocketAddr,
        query: &Message<Vec<u8>>,
        deadline: Moment,
    ) -> io::Result<Message<Vec<u8>>> {
        let mut stream = self.connector.connect(&server.into(), deadline)?;
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

/// The reply has the id of the query and repeats its question. Only a refusal may lack the question: some
/// servers that do not understand a query send back a bare header.
fn is_reply_to(reply: &Message<Vec<u8>>, query: &Message<Vec<u8>>) -> bool {
    let is_bare_refusal = reply.header().qr()
        && reply.header().id() == query.header().id()
        && reply.header_counts().qdcount() == 0
        && matches!(parse_response(reply), ParsedResponse::Unusable(_) | ParsedResponse::EdnsRejected(_))
        && reply.is_error();
    reply.is_answer(query) || is_bare_refusal
}
