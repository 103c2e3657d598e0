//! `kill -9` of the real program, at random moments under load, on a real disk.
//!
//! The server runs in a folder of its own, takes mail on loopback and delivers to a Maildir there.
//! Clients hand in messages that can be told apart, and note each 250. In the end every one of those
//! must be in the Maildir, whole. Some are there twice: those that were being delivered at a blow.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::after;

use crate::sys::{Clock as _, Mutex, Random as _, SystemClock, SystemRandom, spawn};

/// Longer than anything here takes on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(10);
/// Who hand in mail at the same time.
const CLIENTS: usize = 6;
/// A round lasts so long, and up to `BLOW_WITHIN` more.
const BLOW_AFTER: Duration = Duration::from_millis(15);
const BLOW_WITHIN: Duration = Duration::from_millis(400);

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Blows<'a> {
    /// This program.
    pub program: &'a Path,
    /// A folder for everything: empty, on the disk to be tested.
    pub dir: &'a Path,
    /// How often it is killed.
    pub rounds: usize,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Messages answered 250.
    pub promised: usize,
    /// Of the messages that arrived, those that did so more than once.
    pub twice: usize,
    /// Blows.
    pub rounds: usize,
}

impl Blows<'_> {
    /// Strikes. `each` hears the number of every round that is over.
    ///
    /// # Errors
    /// What was lost or broken; or why it could not be tried.
    pub fn strike(&self, each: &mut dyn FnMut(usize)) -> Result<Tally, String> {
        let mut server = Server::set_up(self).map_err(|e| format!("{}: {e}", self.dir.display()))?;
        server.start()?;
        let load = Load::new(server.address, "ana@here.example");
        for round in 1..=self.rounds {
            let before = load.promised().len();
            let clients = load.begin(CLIENTS).map_err(|e| e.to_string())?;
            let give_up = SystemClock.now() + PATIENCE;
            while load.promised().len() == before && SystemClock.now() < give_up {
                pause(LOOK);
            }
            let within = u64::try_from(BLOW_WITHIN.as_millis()).unwrap_or(1);
            pause(BLOW_AFTER + Duration::from_millis(SystemRandom.below(within)));
            server.kill();
            load.end(clients);
            server.start()?;
            each(round);
        }
        self.tally(&load.promised(), &server)
    }

    /// Waits until everything that was promised is there.
    fn tally(&self, promised: &BTreeSet<usize>, server: &Server) -> Result<Tally, String> {
        let give_up = SystemClock.now() + PATIENCE;
        loop {
            let arrived = server.arrived().map_err(|e| e.to_string())?;
            let lost = promised.iter().filter(|number| !arrived.contains_key(number)).count();
            if lost == 0 {
                let twice = arrived.values().filter(|count| **count > 1).count();
                return Ok(Tally { promised: promised.len(), twice, rounds: self.rounds });
            }
            if SystemClock.now() > give_up {
                return Err(format!(
                    "{lost} of {} promised messages are lost; what is left is in {}",
                    promised.len(),
                    self.dir.display()
                ));
            }
            pause(50 * LOOK);
        }
    }
}

/// Not an event that is waited for: a blow comes at no particular moment.
fn pause(how_long: Duration) {
    let _ = after(how_long).recv();
}

/// The server under blows; killed when dropped.
struct Server {
    program: PathBuf,
    config: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// Writes a configuration for one local domain with one mailbox.
    fn set_up(blows: &Blows<'_>) -> io::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = blows.dir.to_owned();
        let domain = config.join("domains/here.example");
        fs::create_dir_all(&domain)?;
        fs::create_dir_all(config.join("certs"))?;
        writeln!(File::create(domain.join("users"))?, "ana: receive-only")?;
        write!(
            File::create(config.join("postrider.toml"))?,
            "hostname = \"mail.here.example\"\ndata-dir = \"data\"\n\n\
             [listen]\nsmtp = [\"{address}\"]\nsubmission = []\nsubmissions = []\n"
        )?;
        Ok(Self { program: blows.program.to_owned(), config, address, child: None })
    }

    /// Starts it, and waits until it greets.
    fn start(&mut self) -> Result<(), String> {
        let log = self.config.join("log");
        let cannot = |e: io::Error| format!("the server does not start: {e}");
        let stderr = File::options().create(true).append(true).open(&log).map_err(cannot)?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config).arg("serve");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = self.child.insert(command.spawn().map_err(cannot)?);
        let give_up = SystemClock.now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            if child.try_wait().map_err(cannot)?.is_some() || SystemClock.now() > give_up {
                return Err(format!("the server does not start; see {}", log.display()));
            }
            pause(LOOK);
        }
        Ok(())
    }

    /// `kill -9`.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Messages in the mailbox: number, and how often.
    fn arrived(&self) -> io::Result<BTreeMap<usize, usize>> {
        let mut arrived = BTreeMap::new();
        let new = self.config.join("data/mail/here.example/ana/new");
        if new.is_dir() {
            for entry in fs::read_dir(new)? {
                if let Some(number) = Letter::recognise(&fs::read(entry?.path())?) {
                    *arrived.entry(number).or_default() += 1;
                }
            }
        }
        Ok(arrived)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Messages that can be told apart, and whole ones from others.
struct Letter;

impl Letter {
    const LINE: &'static str = "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy";

    /// Every seventh is large: it has a file of its own from the beginning.
    fn lines(number: usize) -> usize {
        if number.is_multiple_of(7) { 3000 } else { 20 }
    }

    fn write(number: usize) -> String {
        let body = format!("{}\r\n", Self::LINE).repeat(Self::lines(number));
        format!("Subject: number-{number}\r\n\r\n{body}")
    }

    /// The number, if all of it is there; line ends are those of the mailbox.
    fn recognise(octets: &[u8]) -> Option<usize> {
        let text = std::str::from_utf8(octets).ok()?;
        let number: usize = text.split_once("\nSubject: number-")?.1.lines().next()?.parse().ok()?;
        let lines = text.trim_end().lines().rev();
        (lines.take_while(|line| *line == Self::LINE).count() == Self::lines(number)).then_some(number)
    }
}

/// Clients that hand in mail until they are stopped or the server is gone.
#[derive(Clone)]
pub struct Load(Arc<Shared>);

struct Shared {
    address: SocketAddr,
    to: String,
    next: AtomicUsize,
    promised: Mutex<BTreeSet<usize>>,
    is_over: AtomicBool,
}

impl Load {
    /// For this server and recipient. Nobody hands in anything yet.
    #[must_use]
    pub fn new(address: SocketAddr, to: &str) -> Self {
        Self(Arc::new(Shared {
            address,
            to: to.to_owned(),
            next: AtomicUsize::new(0),
            promised: Mutex::default(),
            is_over: AtomicBool::new(false),
        }))
    }

    /// So many clients begin.
    ///
    /// # Errors
    /// When the host has no thread to give.
    pub fn begin(&self, clients: usize) -> io::Result<Vec<JoinHandle<()>>> {
        self.0.is_over.store(false, Ordering::Relaxed);
        let begin = |n| {
            let shared = Arc::clone(&self.0);
            spawn(format!("client-{n}"), move || {
                let _ = shared.hand_in();
            })
        };
        (0..clients).map(begin).collect()
    }

    /// They end after the message that they are at.
    pub fn end(&self, clients: Vec<JoinHandle<()>>) {
        self.0.is_over.store(true, Ordering::Relaxed);
        for client in clients {
            let _ = client.join();
        }
    }

    /// Numbers of the messages that were answered 250.
    #[must_use]
    pub fn promised(&self) -> BTreeSet<usize> {
        self.0.promised.lock().clone()
    }

    /// The number of a message that arrived whole.
    #[must_use]
    pub fn recognise(octets: &[u8]) -> Option<usize> {
        Letter::recognise(octets)
    }
}

impl Shared {
    /// One client: until the server is gone, or it is over.
    fn hand_in(&self) -> io::Result<()> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream);
        let mut say = |text: &str, code: &str| -> io::Result<()> {
            reader.get_mut().write_all(text.as_bytes())?;
            let mut line = String::new();
            loop {
                line.clear();
                let is_over = reader.read_line(&mut line)? == 0;
                if is_over || line.as_bytes().get(3) != Some(&b'-') {
                    break;
                }
            }
            if line.starts_with(code) { Ok(()) } else { Err(io::Error::other(line)) }
        };
        say("", "220")?;
        say("EHLO there.example\r\n", "250")?;
        while !self.is_over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            say("MAIL FROM:<bo@there.example>\r\n", "250")?;
            say(&format!("RCPT TO:<{}>\r\n", self.to), "250")?;
            say("DATA\r\n", "354")?;
            say(&format!("{}.\r\n", Letter::write(number)), "250")?;
            self.promised.lock().insert(number);
        }
        say("QUIT\r\n", "221")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_recognised_only_when_it_is_whole() {
        for number in [1, 7] {
            let letter = format!("Received: x\r\n{}", Letter::write(number));
            assert_eq!(Letter::recognise(letter.as_bytes()), Some(number));
            assert_eq!(Letter::recognise(letter.replace("\r\n", "\n").as_bytes()), Some(number));
            assert_eq!(Letter::recognise(&letter.as_bytes()[..letter.len() - 3]), None);
            assert_eq!(Letter::recognise(&letter.as_bytes()[..letter.len() - 72]), None);
        }
    }
}
