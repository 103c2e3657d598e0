//! The real program in a directory of its own, on loopback: starts, observes and kills it.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crossbeam_channel::after;

use super::load_message::LoadMessage;
use crate::sys::{Clock as _, SystemClock};

/// Longest wait: nothing here takes so long, even on a busy host.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(120);
/// Delay between two checks of something that is waited for.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Waits for this time, because another process offers no event to wait for.
pub(super) fn pause(how_long: Duration) {
    let _ = after(how_long).recv();
}

/// The program under test, and its directory.
#[derive(Debug, Clone, Copy)]
pub struct TortureSetup<'a> {
    /// The executable of this program.
    pub program: &'a Path,
    /// A directory for all files of the test: empty, on the disk to be tested.
    pub dir: &'a Path,
}

/// The server of one test; killed when dropped.
pub(super) struct TortureServer {
    program: PathBuf,
    config_dir: PathBuf,
    pub(super) smtp_address: SocketAddr,
    monitor_address: SocketAddr,
    child: Option<Child>,
}

impl TortureServer {
    /// Writes a configuration for the local domain here.example with one mailbox, ana, and these lines of
    /// `aliases`. `more` is appended to postrider.toml. Only the user of this process may be able to write the
    /// directory, because files in it are created by their paths.
    pub(super) fn set_up(setup: &TortureSetup<'_>, aliases: &str, more: &str) -> io::Result<Self> {
        // Both at the same time, so that they differ.
        let ports = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [address, monitoring] = [ports[0].local_addr()?, ports[1].local_addr()?];
        let config = setup.dir.to_owned();
        let domain = config.join("domains/here.example");
        fs::create_dir_all(&domain)?;
        fs::create_dir_all(config.join("certs"))?;
        writeln!(File::create(domain.join("users"))?, "ana: receive-only")?;
        File::create(domain.join("aliases"))?.write_all(aliases.as_bytes())?;
        let server = Self {
            program: setup.program.to_owned(),
            config_dir: config,
            smtp_address: address,
            monitor_address: monitoring,
            child: None,
        };
        server.write_config(more)?;
        Ok(server)
    }

    /// Writes postrider.toml with `more` at its end. A running server keeps the settings that it has read.
    pub(super) fn write_config(&self, more: &str) -> io::Result<()> {
        let Self { smtp_address: address, monitor_address: monitoring, .. } = self;
        write!(
            File::create(self.config_dir.join("postrider.toml"))?,
            "hostname = \"mail.here.example\"\ndata-dir = \"data\"\n\n\
             [listen]\nsmtp = [\"{address}\"]\nsubmission = []\nsubmissions = []\n\
             monitoring = \"{monitoring}\"\n\n{more}"
        )
    }

    /// Starts the server, waits until it greets, and returns how long that took.
    pub(super) fn start(&mut self) -> Result<Duration, String> {
        let log = self.config_dir.join("log");
        let cannot = |e: io::Error| format!("the server does not start: {e}");
        let stderr = File::options().create(true).append(true).open(&log).map_err(cannot)?;
        let mut command = self.command();
        command.arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let began = SystemClock.now();
        let child = self.child.insert(command.spawn().map_err(cannot)?);
        while await_greeting(self.smtp_address).is_err() {
            let is_over = SystemClock.now().since(began) > WAIT_MAX;
            if is_over || child.try_wait().map_err(cannot)?.is_some() {
                return Err(format!("the server does not start; see {}", log.display()));
            }
            pause(POLL_INTERVAL);
        }
        Ok(SystemClock.now().since(began))
    }

    /// Kills the server with SIGKILL.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Runs a subcommand of `postrider` for this server.
    pub(super) fn run_subcommand(&self, arguments: &[&str]) -> Result<(), String> {
        let ran = self.command().args(arguments).stdin(Stdio::null()).output();
        let ran = ran.map_err(|e| format!("{} cannot be run: {e}", arguments.join(" ")))?;
        let stderr = String::from_utf8_lossy(&ran.stderr);
        if ran.status.success() { Ok(()) } else { Err(format!("{}: {}", arguments.join(" "), stderr.trim())) }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config_dir);
        command
    }

    /// The value of a metric; 0 if nothing was counted yet.
    pub(super) fn metric(&self, name: &str) -> Result<usize, String> {
        let text = http_get(self.monitor_address, "/metrics")
            .map_err(|e| format!("the monitor does not answer: {e}"))?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(Ok(0), |value| value.parse().map_err(|_| format!("the monitor says {name} {value}")))
    }

    /// The peak of the memory of the process, in octets.
    pub(super) fn memory_peak(&self) -> Option<usize> {
        let id = self.child.as_ref()?.id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<usize>().ok()? * 1024)
    }

    /// The numbers of the messages in the mailbox.
    pub(super) fn delivered_numbers(&self) -> io::Result<Vec<usize>> {
        let mut arrived = Vec::new();
        let new = self.config_dir.join("data/mail/here.example/ana/new");
        if new.is_dir() {
            for entry in fs::read_dir(new)? {
                arrived.extend(LoadMessage::parse_number(&fs::read(entry?.path())?));
            }
        }
        Ok(arrived)
    }
}

impl Drop for TortureServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn await_greeting(address: SocketAddr) -> io::Result<()> {
    let stream = connect(address)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.starts_with("220") { Ok(()) } else { Err(io::Error::other(line)) }
}

fn http_get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Connects, with a timeout for reads.
pub(super) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    Ok(stream)
}
