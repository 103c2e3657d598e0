//! Peers that follow a script, on connections that are pipes in memory.
//!
//! Each script is one connection to one endpoint; a second connection to it needs a second script.
//! One line, one thing that the peer does:
//!
//! ```text
//! S: 250-mx.there.example|250 PIPELINING     say it; | is a line end, and all goes out at once
//! C: EHLO here.example                       hear exactly this; a * at the end hears any rest
//! ! message                                  hear a message up to its final dot, and keep it
//! ! tls NAME                                 do the handshake with the certificate of that name
//! ! garbage                                  say something that is neither TLS nor SMTP
//! ! silence                                  the other side's wait is over: it reads a timeout
//! ! close                                    hang up
//! ! refuse                                   take no connection (the only line of its script)
//! ```
//!
//! At its end the peer waits for the other side to hang up. Pipelining shows in the order of lines:
//! a peer that hears three commands before it answers any is only content with a group.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a stand-in for tests; a broken script is a bug")]

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
use crate::sys::{Dial, Moment, Mutex, Stream, spawn};

/// Longer than this nobody waits: the test is wrong then.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connects to peers that follow a script.
#[derive(Default)]
pub struct ScriptedDial {
    scripts: Mutex<BTreeMap<Endpoint, Vec<String>>>,
    certificates: Mutex<BTreeMap<String, Arc<ServerConfig>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    heard: Arc<Mutex<Heard>>,
    open: Arc<AtomicUsize>,
}

/// What happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// What was dialled, in order.
    pub dialled: Vec<Endpoint>,
    /// Messages as they came, stuffed, with the final dot.
    pub messages: Vec<Vec<u8>>,
    /// Where a peer heard something else than its script says.
    pub mistakes: Vec<String>,
    /// Connections that the other side has not closed.
    pub open: usize,
    /// Where a script is that nobody came for.
    pub unused: Vec<Endpoint>,
}

impl ScriptedDial {
    /// The next connection to `endpoint` goes so.
    ///
    /// # Panics
    /// If `endpoint` is none.
    pub fn peer(&self, endpoint: &str, script: &str) {
        let endpoint = endpoint.parse().expect("unix:PATH or an address with a port");
        self.scripts.lock().entry(endpoint).or_default().push(script.to_owned());
    }

    /// A certificate, with its key, under a name for scripts.
    pub fn certificate(&self, name: &str, config: Arc<ServerConfig>) {
        self.certificates.lock().insert(name.to_owned(), config);
    }

    /// Waits for all peers to come to their end, and says what happened.
    pub fn finish(&self) -> Heard {
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                self.heard.lock().mistakes.push("a peer panicked".to_owned());
            }
        }
        let scripts = self.scripts.lock();
        let unused =
            scripts.iter().filter(|(_, left)| !left.is_empty()).map(|(endpoint, _)| endpoint.clone());
        let open = self.open.load(Ordering::SeqCst);
        Heard { open, unused: unused.collect(), ..self.heard.lock().clone() }
    }
}

impl Dial for ScriptedDial {
    fn dial(&self, endpoint: &Endpoint, _deadline: Moment) -> io::Result<Box<dyn Stream>> {
        self.heard.lock().dialled.push(endpoint.clone());
        let mut scripts = self.scripts.lock();
        let Some(left) = scripts.get_mut(endpoint).filter(|left| !left.is_empty()) else {
            self.heard.lock().mistakes.push(format!("a connection to {endpoint} that no script expects"));
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let script = left.remove(0);
        if script.trim() == "! refuse" {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = pipes();
        let endpoint = endpoint.clone();
        let mut peer = Peer {
            endpoint: endpoint.clone(),
            end: End::Plain(theirs),
            octets: Vec::new(),
            certificates: self.certificates.lock().clone(),
            heard: Arc::clone(&self.heard),
        };
        let thread = spawn("peer", move || {
            if let Err(mistake) = peer.follow(&script) {
                peer.heard.lock().mistakes.push(format!("{}: {mistake}", peer.endpoint));
            }
        });
        self.threads.lock().push(thread?);
        self.open.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(OurEnd { pipe: ours, peer: endpoint, open: Arc::clone(&self.open) }))
    }
}

enum Wire {
    Octets(Vec<u8>),
    TimedOut,
}

/// One end of two pipes.
struct Pipe {
    incoming: Option<Receiver<Wire>>,
    outgoing: Option<Sender<Wire>>,
    ahead: Vec<u8>,
}

fn pipes() -> (Pipe, Pipe) {
    let ((to_them, from_us), (to_us, from_them)) = (unbounded(), unbounded());
    let pipe =
        |incoming, outgoing| Pipe { incoming: Some(incoming), outgoing: Some(outgoing), ahead: Vec::new() };
    (pipe(from_them, to_them), pipe(from_us, to_us))
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() {
            let Some(incoming) = &self.incoming else { return Ok(0) };
            match incoming.recv_timeout(PATIENCE) {
                Ok(Wire::Octets(octets)) => self.ahead = octets,
                Ok(Wire::TimedOut) | Err(RecvTimeoutError::Timeout) => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            }
        }
        let count = self.ahead.as_slice().read(buffer)?;
        self.ahead.drain(..count);
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let sent = self.outgoing.as_ref().map(|outgoing| outgoing.send(Wire::Octets(octets.to_vec())));
        match sent {
            Some(Ok(())) => Ok(octets.len()),
            Some(Err(_)) | None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end that the code under test holds. Counts as open until it is dropped.
struct OurEnd {
    pipe: Pipe,
    peer: Endpoint,
    open: Arc<AtomicUsize>,
}

impl fmt::Debug for OurEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OurEnd({})", self.peer)
    }
}

impl Read for OurEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pipe.read(buffer)
    }
}

impl Write for OurEnd {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.pipe.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.flush()
    }
}

impl Stream for OurEnd {
    /// A script says when time is over, not the clock.
    fn set_deadline(&mut self, _deadline: Moment) {}

    fn finish(&mut self) -> io::Result<()> {
        self.pipe.outgoing = None;
        Ok(())
    }

    fn abort(&mut self) {
        (self.pipe.incoming, self.pipe.outgoing) = (None, None);
    }
}

impl Drop for OurEnd {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

enum End {
    Plain(Pipe),
    Tls(Box<StreamOwned<ServerConnection, Pipe>>),
    Closed,
}

struct Peer {
    endpoint: Endpoint,
    end: End,
    /// Read and not yet heard.
    octets: Vec<u8>,
    certificates: BTreeMap<String, Arc<ServerConfig>>,
    heard: Arc<Mutex<Heard>>,
}

impl Peer {
    fn follow(&mut self, script: &str) -> Result<(), String> {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.act(line).map_err(|mistake| format!("{line}: {mistake}"))?;
        }
        let rest = self.rest();
        if rest.is_empty() {
            return Ok(());
        }
        Err(format!("after the end it heard {}", String::from_utf8_lossy(&rest)))
    }

    fn act(&mut self, line: &str) -> Result<(), String> {
        let (mark, what) = line.split_at_checked(2).ok_or("too short")?;
        let what = what.trim();
        match (mark, what.split_once(' ').unwrap_or((what, ""))) {
            ("S:", _) => self.say(format!("{}\r\n", what.replace('|', "\r\n")).as_bytes()),
            ("C:", _) => self.hear(what),
            ("! ", ("message", _)) => self.hear_message(),
            ("! ", ("tls", name)) => self.start_tls(name),
            ("! ", ("garbage", _)) => {
                self.say(b"this is not a server hello at all\r\n")?;
                // Neither is what the other side says to that.
                self.rest();
                Ok(())
            }
            ("! ", ("silence", _)) => self.be_silent(),
            ("! ", ("close", _)) => {
                self.end = End::Closed;
                Ok(())
            }
            _ => Err("no such line in a script".to_owned()),
        }
    }

    fn say(&mut self, octets: &[u8]) -> Result<(), String> {
        let written = match &mut self.end {
            End::Plain(pipe) => pipe.write_all(octets),
            End::Tls(stream) => stream.write_all(octets).and_then(|()| stream.flush()),
            End::Closed => return Err("the peer hung up before".to_owned()),
        };
        written.map_err(|_| "the other side is gone".to_owned())
    }

    /// Reads more; says whether there was any.
    fn read(&mut self) -> Result<bool, String> {
        let mut buffer = [0; 4096];
        let read = match &mut self.end {
            End::Plain(pipe) => pipe.read(&mut buffer),
            End::Tls(stream) => stream.read(&mut buffer),
            End::Closed => Ok(0),
        };
        let count = read.map_err(|error| error.to_string())?;
        self.octets.extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok(count > 0)
    }

    fn hear(&mut self, expected: &str) -> Result<(), String> {
        let line = loop {
            if let Some(end) = self.octets.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.octets.drain(..end + 2).collect();
                break String::from_utf8_lossy(&line).trim_end().to_owned();
            }
            if !self.read()? {
                return Err("heard that the other side hung up".to_owned());
            }
        };
        let fits = match expected.strip_suffix('*') {
            Some(start) => line.starts_with(start),
            None => line == expected,
        };
        if fits { Ok(()) } else { Err(format!("heard {line}")) }
    }

    fn hear_message(&mut self) -> Result<(), String> {
        const END: &[u8] = b"\r\n.\r\n";
        loop {
            if let Some(start) = self.octets.windows(END.len()).position(|part| part == END) {
                let message = self.octets.drain(..start + END.len()).collect();
                self.heard.lock().messages.push(message);
                return Ok(());
            }
            if !self.read()? {
                return Err("heard that the other side hung up".to_owned());
            }
        }
    }

    fn start_tls(&mut self, name: &str) -> Result<(), String> {
        let config = self.certificates.get(name).ok_or("no such certificate")?;
        let End::Plain(mut pipe) = std::mem::replace(&mut self.end, End::Closed) else {
            return Err("no plain connection to begin with".to_owned());
        };
        let mut connection = ServerConnection::new(Arc::clone(config)).map_err(|error| error.to_string())?;
        while connection.is_handshaking() {
            connection.complete_io(&mut pipe).map_err(|error| error.to_string())?;
        }
        self.end = End::Tls(Box::new(StreamOwned::new(connection, pipe)));
        Ok(())
    }

    fn be_silent(&mut self) -> Result<(), String> {
        let pipe = match &mut self.end {
            End::Plain(pipe) => pipe,
            End::Tls(stream) => &mut stream.sock,
            End::Closed => return Err("the peer hung up before".to_owned()),
        };
        // Gone already is as silent.
        let _ = pipe.outgoing.as_ref().map(|outgoing| outgoing.send(Wire::TimedOut));
        Ok(())
    }

    /// What comes until the other side hangs up, or until its goodbye by TLS.
    fn rest(&mut self) -> Vec<u8> {
        while matches!(self.read(), Ok(true)) {}
        std::mem::take(&mut self.octets)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.endpoint)
    }
}
