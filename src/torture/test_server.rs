//! The real program in a folder of its own, on loopback: started, watched and killed.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crossbeam_channel::after;

use super::load_message::LoadMessage;
use crate::sys::{Clock as _, SystemClock};

/// Longer than anything here takes on a busy host.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(120);
/// Between two looks at something that is waited for.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Not an event that is waited for: another process has none to offer.
pub(super) fn pause(how_long: Duration) {
    let _ = after(how_long).recv();
}

/// What is tried, and where.
#[derive(Debug, Clone, Copy)]
pub struct TortureSetup<'a> {
    /// This program.
    pub program: &'a Path,
    /// A folder for everything: empty, on the disk to be tested.
    pub dir: &'a Path,
}

/// The server of one trial; killed when dropped.
pub(super) struct TortureServer {
    program: PathBuf,
    config_dir: PathBuf,
    pub(super) smtp_address: SocketAddr,
    monitor_address: SocketAddr,
    child: Option<Child>,
}

impl TortureServer {
    /// Writes a configuration for the local domain here.example with one mailbox, ana, and these
    /// lines of `aliases`. `more` stands at the end of postrider.toml. The folder must be one that only
    /// our own user may write: files in it are made by their paths.
    pub(super) fn set_up(trial: &TortureSetup<'_>, aliases: &str, more: &str) -> io::Result<Self> {
        // At the same time, or both might get the same port.
        let ports = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [address, monitoring] = [ports[0].local_addr()?, ports[1].local_addr()?];
        let config = trial.dir.to_owned();
        let domain = config.join("domains/here.example");
        fs::create_dir_all(&domain)?;
        fs::create_dir_all(config.join("certs"))?;
        writeln!(File::create(domain.join("users"))?, "ana: receive-only")?;
        File::create(domain.join("aliases"))?.write_all(aliases.as_bytes())?;
        let server = Self {
            program: trial.program.to_owned(),
            config_dir: config,
            smtp_address: address,
            monitor_address: monitoring,
            child: None,
        };
        server.write_config(more)?;
        Ok(server)
    }

    /// Writes postrider.toml with `more` at its end. A running server goes on with what it has read.
    pub(super) fn write_config(&self, more: &str) -> io::Result<()> {
        let Self { smtp_address: address, monitor_address: monitoring, .. } = self;
        write!(
            File::create(self.config_dir.join("postrider.toml"))?,
            "hostname = \"mail.here.example\"\ndata-dir = \"data\"\n\n\
             [listen]\nsmtp = [\"{address}\"]\nsubmission = []\nsubmissions = []\n\
             monitoring = \"{monitoring}\"\n\n{more}"
        )
    }

    /// Starts it, and waits until it greets; says how long that took.
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

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// A subcommand for this server, as an operator types it.
    pub(super) fn run_subcommand(&self, arguments: &[&str]) -> Result<(), String> {
        let ran = self.command().args(arguments).stdin(Stdio::null()).output();
        let ran = ran.map_err(|e| format!("{} cannot be run: {e}", arguments.join(" ")))?;
        let said = String::from_utf8_lossy(&ran.stderr);
        if ran.status.success() { Ok(()) } else { Err(format!("{}: {}", arguments.join(" "), said.trim())) }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config_dir);
        command
    }

    /// A number from the monitor; 0 if nothing was counted yet.
    pub(super) fn metric(&self, name: &str) -> Result<usize, String> {
        let text = http_get(self.monitor_address, "/metrics")
            .map_err(|e| format!("the monitor does not answer: {e}"))?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(Ok(0), |value| value.parse().map_err(|_| format!("the monitor says {name} {value}")))
    }

    /// The most memory that the process has had at a time, in octets.
    pub(super) fn memory_peak(&self) -> Option<usize> {
        let id = self.child.as_ref()?.id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<usize>().ok()? * 1024)
    }

    /// Letters in the mailbox, by number.
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

/// A connection on which no read waits for ever.
pub(super) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    Ok(stream)
}
