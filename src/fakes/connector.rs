//! Peers that follow a script, on connections that are pipes in memory.
//!
//! Each script is one connection to one endpoint; a second connection to it needs a second script.
//! Each line is one action of the peer:
//!
//! ```text
//! S: 250-mx.there.example|250 PIPELINING     send these lines at once; | is a line end
//! C: EHLO here.example                       expect exactly this line; * at its end stands for any rest
//! ! message                                  receive a message up to its final dot, and record it
//! ! tls NAME                                 do the handshake with the certificate of that name
//! ! garbage                                  send something that is neither TLS nor SMTP
//! ! silence                                  let the read of the other side time out
//! ! close                                    close the connection
//! ! refuse                                   refuse the connection (the only line of its script)
//! ```
//!
//! At the end of its script the peer waits until the other side closes the connection. The order of lines
//! tests pipelining: a peer that expects three commands before it answers any needs a group of commands.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a stand-in for tests: a broken script is an error of the test"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::mail::Endpoint;
use crate::sys::{Connector, Moment, Mutex, Stream, spawn};

/// Longest wait of a read; after it the test has failed.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(20);

/// Connects to peers that follow a script.
#[derive(Default)]
pub struct ScriptedConnector {
    scripts: Mutex<BTreeMap<Endpoint, Vec<String>>>,
    certificates: Mutex<BTreeMap<String, Arc<ServerConfig>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    log: Arc<Mutex<PeerLog>>,
    open_connections: Arc<AtomicUsize>,
}

/// What happened on all connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerLog {
    /// The endpoints of all connection attempts, in order.
    pub connected: Vec<Endpoint>,
    /// Messages as they were received, with dot-stuffing and the final dot.
    pub messages: Vec<Vec<u8>>,
    /// Where the other side did something that the script does not expect.
    pub mismatches: Vec<String>,
    /// Connections that the other side has not closed.
    pub open_connections: usize,
    /// Endpoints with scripts that were not used.
    pub unused_scripts: Vec<Endpoint>,
}

impl ScriptedConnector {
    /// Adds the script of the next connection to `endpoint`.
    ///
    /// # Panics
    /// If `endpoint` cannot be parsed.
    pub fn add_peer(&self, endpoint: &str, script: &str) {
        let endpoint = endpoint.parse().expect("unix:PATH or an address with a port");
        self.scripts.lock().entry(endpoint).or_default().push(script.to_owned());
    }

    /// Adds a certificate with its key, which scripts refer to by `name`.
    pub fn add_certificate(&self, name: &str, config: Arc<ServerConfig>) {
        self.certificates.lock().insert(name.to_owned(), config);
    }

    /// Waits until all peers have ended, and returns what happened.
    pub fn finish(&self) -> PeerLog {
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                self.log.lock().mismatches.push("a peer panicked".to_owned());
            }
        }
        let scripts = self.scripts.lock();
        let unused =
            scripts.iter().filter(|(_, left)| !left.is_empty()).map(|(endpoint, _)| endpoint.clone());
        let open = self.open_connections.load(Ordering::SeqCst);
        PeerLog { open_connections: open, unused_scripts: unused.collect(), ..self.log.lock().clone() }
    }
}

impl Connector for ScriptedConnector {
    fn connect(&self, endpoint: &Endpoint, _deadline: Moment) -> io::Result<Box<dyn Stream>> {
        self.log.lock().connected.push(endpoint.clone());
        let mut scripts = self.scripts.lock();
        let Some(left) = scripts.get_mut(endpoint).filter(|left| !left.is_empty()) else {
            self.log.lock().mismatches.push(format!("a connection to {endpoint} that no script expects"));
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let script = left.remove(0);
        if script.trim() == "! refuse" {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = pipe_pair();
        let endpoint = endpoint.clone();
        let mut peer = Peer {
            endpoint: endpoint.clone(),
            stream: PeerStream::Plain(theirs),
            unread: Vec::new(),
            certificates: self.certificates.lock().clone(),
            log: Arc::clone(&self.log),
        };
        let thread = spawn("peer", move || {
            if let Err(mistake) = peer.run_script(&script) {
                peer.log.lock().mismatches.push(format!("{}: {mistake}", peer.endpoint));
            }
        });
        self.threads.lock().push(thread?);
        self.open_connections.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(ClientStream {
            pipe: ours,
            peer: endpoint,
            open_connections: Arc::clone(&self.open_connections),
        }))
    }
}

enum PipeItem {
    Octets(Vec<u8>),
    TimedOut,
}

/// One end of two pipes.
struct Pipe {
    incoming: Option<Receiver<PipeItem>>,
    outgoing: Option<Sender<PipeItem>>,
    buffered: Vec<u8>,
}

fn pipe_pair() -> (Pipe, Pipe) {
    let ((to_them, from_us), (to_us, from_them)) = (unbounded(), unbounded());
    let pipe = |incoming, outgoing| Pipe {
        incoming: Some(incoming),
        outgoing: Some(outgoing),
        buffered: Vec::new(),
    };
    (pipe(from_them, to_them), pipe(from_us, to_us))
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.buffered.is_empty() {
            let Some(incoming) = &self.incoming else { return Ok(0) };
            match incoming.recv_timeout(SCRIPT_TIMEOUT) {
                Ok(PipeItem::Octets(octets)) => self.buffered = octets,
                Ok(PipeItem::TimedOut) | Err(RecvTimeoutError::Timeout) => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            }
        }
        let count = self.buffered.as_slice().read(buffer)?;
        self.buffered.drain(..count);
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let sent = self.outgoing.as_ref().map(|outgoing| outgoing.send(PipeItem::Octets(octets.to_vec())));
        match sent {
            Some(Ok(())) => Ok(octets.len()),
            Some(Err(_)) | None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end of a connection that the code under test holds. The connection is open until this is dropped.
struct ClientStream {
    pipe: Pipe,
    peer: Endpoint,
    open_connections: Arc<AtomicUsize>,
}

impl fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientStream({})", self.peer)
    }
}

impl Read for ClientStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pipe.read(buffer)
    }
}

impl Write for ClientStream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.pipe.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.flush()
    }
}

impl Stream for ClientStream {
    /// Does nothing: a read times out when the script says so.
    fn set_deadline(&mut self, _deadline: Moment) {}

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.pipe.outgoing = None;
        Ok(())
    }

    fn abort(&mut self) {
        (self.pipe.incoming, self.pipe.outgoing) = (None, None);
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        self.open_connections.fetch_sub(1, Ordering::SeqCst);
    }
}

enum PeerStream {
    Plain(Pipe),
    Tls(Box<StreamOwned<ServerConnection, Pipe>>),
    Closed,
}

struct Peer {
    endpoint: Endpoint,
    stream: PeerStream,
    /// Octets that were read and not yet matched with the script.
    unread: Vec<u8>,
    certificates: BTreeMap<String, Arc<ServerConfig>>,
    log: Arc<Mutex<PeerLog>>,
}

impl Peer {
    fn run_script(&mut self, script: &str) -> Result<(), String> {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.run_line(line).map_err(|mistake| format!("{line}: {mistake}"))?;
        }
        let rest = self.read_rest();
        if rest.is_empty() {
            return Ok(());
        }
        Err(format!("after the end of the script it received {}", String::from_utf8_lossy(&rest)))
    }

    fn run_line(&mut self, line: &str) -> Result<(), String> {
        let (mark, what) = line.split_at_checked(2).ok_or("too short")?;
        let what = what.trim();
        match (mark, what.split_once(' ').unwrap_or((what, ""))) {
            ("S:", _) => self.send(format!("{}\r\n", what.replace('|', "\r\n")).as_bytes()),
            ("C:", _) => self.expect_line(what),
            ("! ", ("message", _)) => self.receive_message(),
            ("! ", ("tls", name)) => self.start_tls(name),
            ("! ", ("garbage", _)) => {
                self.send(b"this is not a server hello at all\r\n")?;
                // The answer of the other side does not matter.
                self.read_rest();
                Ok(())
            }
            ("! ", ("silence", _)) => self.send_timeout(),
            ("! ", ("close", _)) => {
                self.stream = PeerStream::Closed;
                Ok(())
            }
            _ => Err("no such line in a script".to_owned()),
        }
    }

    fn send(&mut self, octets: &[u8]) -> Result<(), String> {
        let written = match &mut self.stream {
            PeerStream::Plain(pipe) => pipe.write_all(octets),
            PeerStream::Tls(stream) => stream.write_all(octets).and_then(|()| stream.flush()),
            PeerStream::Closed => return Err("the script has closed the connection before".to_owned()),
        };
        written.map_err(|_| "the other side is gone".to_owned())
    }

    /// Reads more octets; false at the end of the stream.
    fn read_more(&mut self) -> Result<bool, String> {
        let mut buffer = [0; 4096];
        let read = match &mut self.stream {
            PeerStream::Plain(pipe) => pipe.read(&mut buffer),
            PeerStream::Tls(stream) => stream.read(&mut buffer),
            PeerStream::Closed => Ok(0),
        };
        let count = read.map_err(|error| error.to_string())?;
        self.unread.extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok(count > 0)
    }

    fn expect_line(&mut self, expected: &str) -> Result<(), String> {
        let line = loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                break String::from_utf8_lossy(&line).trim_end().to_owned();
            }
            if !self.read_more()? {
                return Err("the other side closed the connection".to_owned());
            }
        };
        let fits = match expected.strip_suffix('*') {
            Some(start) => line.starts_with(start),
            None => line == expected,
        };
        if fits { Ok(()) } else { Err(format!("received {line}")) }
    }

    fn receive_message(&mut self) -> Result<(), String> {
        const END: &[u8] = b"\r\n.\r\n";
        loop {
            if let Some(start) = self.unread.windows(END.len()).position(|part| part == END) {
                let message = self.unread.drain(..start + END.len()).collect();
                self.log.lock().messages.push(message);
                return Ok(());
            }
            if !self.read_more()? {
                return Err("the other side closed the connection".to_owned());
            }
        }
    }

    fn start_tls(&mut self, name: &str) -> Result<(), String> {
        let config = self.certificates.get(name).ok_or("no such certificate")?;
        let PeerStream::Plain(mut pipe) = std::mem::replace(&mut self.stream, PeerStream::Closed) else {
            return Err("no plain connection to begin with".to_owned());
        };
        let mut connection = ServerConnection::new(Arc::clone(config)).map_err(|error| error.to_string())?;
        while connection.is_handshaking() {
            connection.complete_io(&mut pipe).map_err(|error| error.to_string())?;
        }
        self.stream = PeerStream::Tls(Box::new(StreamOwned::new(connection, pipe)));
        Ok(())
    }

    fn send_timeout(&mut self) -> Result<(), String> {
        let pipe = match &mut self.stream {
            PeerStream::Plain(pipe) => pipe,
            PeerStream::Tls(stream) => &mut stream.sock,
            PeerStream::Closed => return Err("the script has closed the connection before".to_owned()),
        };
        // Fails if the other side has closed the connection.
        let _ = pipe.outgoing.as_ref().map(|outgoing| outgoing.send(PipeItem::TimedOut));
        Ok(())
    }

    /// Everything up to the end of the stream, or to close_notify of TLS.
    fn read_rest(&mut self) -> Vec<u8> {
        while matches!(self.read_more(), Ok(true)) {}
        std::mem::take(&mut self.unread)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.endpoint)
    }
}
