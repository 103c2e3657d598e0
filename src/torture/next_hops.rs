//! Other hosts: each has a port on loopback that refuses connections at first. Later it accepts every message
//! and records its number.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};

use super::load_message::LoadMessage;
use super::test_server::WAIT_MAX;
use crate::sys::{Mutex, spawn};

/// A number of hosts; closed when dropped.
pub(super) struct NextHops {
    /// Bound from the beginning, which reserves the ports; without listen(2), connections are refused.
    sockets: Vec<Arc<Socket>>,
    pub(super) ports: Vec<u16>,
    accepted: Arc<Mutex<Vec<usize>>>,
}

impl NextHops {
    /// This many hosts, all of which refuse connections.
    pub(super) fn closed(count: usize) -> io::Result<Self> {
        let (mut sockets, mut ports) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
            ports.extend(socket.local_addr()?.as_socket().map(|address| address.port()));
            sockets.push(Arc::new(socket));
        }
        Ok(Self { sockets, ports, accepted: Arc::default() })
    }

    /// Lets the hosts accept mail from now on.
    pub(super) fn start_listening(&self) -> io::Result<()> {
        for socket in &self.sockets {
            socket.listen(128)?;
            let (socket, accepted) = (Arc::clone(socket), Arc::clone(&self.accepted));
            spawn("next-hop", move || {
                while let Ok((client, _)) = socket.accept() {
                    let accepted = Arc::clone(&accepted);
                    // An error ends the session: a message in progress is not accepted.
                    let _ = spawn("next-hop-session", move || drop(serve_session(client.into(), &accepted)));
                }
            })?;
        }
        Ok(())
    }

    /// The numbers of the messages that were accepted with 250, in order.
    pub(super) fn accepted(&self) -> Vec<usize> {
        self.accepted.lock().clone()
    }
}

impl Drop for NextHops {
    fn drop(&mut self) {
        // Wakes the threads in accept(2).
        self.sockets.iter().for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
    }
}

/// Runs one SMTP session.
fn serve_session(client: TcpStream, accepted: &Mutex<Vec<usize>>) -> io::Result<()> {
    client.set_read_timeout(Some(WAIT_MAX))?;
    client.set_nodelay(true)?;
    let mut reader = BufReader::new(client);
    reader.get_mut().write_all(b"220 there.example\r\n")?;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let reply = match line.get(..4).map(str::to_ascii_uppercase).as_deref() {
            Some("EHLO") => "250-there.example\r\n250 PIPELINING\r\n",
            Some("DATA") => {
                reader.get_mut().write_all(b"354 go on\r\n")?;
                accepted.lock().push(read_message(&mut reader)?);
                "250 taken\r\n"
            }
            Some("QUIT") => return reader.get_mut().write_all(b"221 bye\r\n"),
            _ => "250 fine\r\n",
        };
        reader.get_mut().write_all(reply.as_bytes())?;
    }
}

/// Reads a message up to its final dot.
fn read_message(reader: &mut BufReader<TcpStream>) -> io::Result<usize> {
    let mut octets = Vec::new();
    while !octets.ends_with(b"\r\n.\r\n") {
        if reader.read_until(b'\n', &mut octets)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    octets.truncate(octets.len() - b".\r\n".len());
    LoadMessage::parse_number(&octets)
        .ok_or_else(|| io::Error::other("not a message of the load generator, or an incomplete one"))
}
