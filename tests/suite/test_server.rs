//! The real program in a folder of its own, on loopback ports of its own.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

pub use nix::sys::signal::Signal;
use nix::unistd::Pid;
use postrider::fakes::DnsServer;

pub(crate) use crate::peers::until as wait_for;
use crate::peers::{self, free_port};

/// A time-out for every wait, long enough for a busy machine. Each wait is for an event.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// The lines of `postrider.toml` that let every client on loopback send to other hosts.
pub const RELAY_FROM_LOOPBACK: &str = "[relay]\nnetworks = [\"127.0.0.0/8\"]\n";

/// A server that is set up, and runs or not. Ends its process when dropped.
pub struct TestServer {
    pub dir: tempfile::TempDir,
    pub smtp_port: u16,
    pub submission_port: u16,
    pub submissions_port: u16,
    pub monitoring_port: u16,
    /// Added to the environment of the server and of the subcommands.
    pub environment: Vec<(&'static str, PathBuf)>,
    child: Option<Child>,
}

impl TestServer {
    /// Sets up a server for `here.example` with the user `ana`, password `secret word`; `more` is
    /// appended to `postrider.toml`. Does not start it.
    pub fn new(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Self {
            smtp_port: free_port(),
            submission_port: free_port(),
            submissions_port: free_port(),
            monitoring_port: free_port(),
            dir,
            environment: Vec::new(),
            child: None,
        };
        let mut text = String::new();
        let Self {
            smtp_port: smtp,
            submission_port: submission,
            submissions_port: submissions,
            monitoring_port: monitoring,
            ..
        } = &server;
        write!(
            text,
            "hostname = \"mx.here.example\"\ndata-dir = \"data\"\ngrace = \"5s\"\n\n[listen]\nsmtp = [\"127.0.0.1:{smtp}\"]\n\
             submission = [\"127.0.0.1:{submission}\"]\nsubmissions = [\"127.0.0.1:{submissions}\"]\n\
             monitoring = \"127.0.0.1:{monitoring}\"\n\n{more}\n"
        )
        .unwrap();
        fs::write(server.path("postrider.toml"), text).unwrap();
        let made =
            rcgen::generate_simple_self_signed(vec!["mx.here.example".to_owned(), "localhost".to_owned()])
                .unwrap();
        fs::create_dir_all(server.path("certs/here")).unwrap();
        fs::write(server.path("certs/here/fullchain.pem"), made.cert.pem()).unwrap();
        fs::write(server.path("certs/here/privkey.pem"), made.signing_key.serialize_pem()).unwrap();
        fs::create_dir_all(server.path("domains/here.example")).unwrap();
        server.add_user("ana@here.example", "secret word");
        server
    }

    /// Sets up and starts.
    pub fn new_started(more: &str) -> Self {
        let mut server = Self::new(more);
        server.start();
        server
    }

    /// A path below the configuration directory.
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// `postrider --config DIR …`, not started.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        command.arg("--config").arg(self.dir.path()).current_dir(self.dir.path());
        // Changed files are polled ten times as often as usual.
        command.env("POSTRIDER_POLL_INTERVAL", "100");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a subcommand to its end: exit code, standard output, standard error.
    pub fn run_to_end(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command().args(arguments).stdin(Stdio::null()).output().unwrap();
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// Makes an account.
    pub fn add_user(&self, address: &str, password: &str) {
        let mut child = self
            .command()
            .args(["user", "add", address, "--password-stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "user add {address}");
    }

    /// Starts the server and waits until it serves.
    pub fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = self.command();
        command.arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.start_with(&mut command);
    }

    /// Starts the server by this command and waits until it serves.
    pub fn start_with(&mut self, command: &mut Command) {
        self.child = Some(command.spawn().unwrap());
        wait_for("the greeting", || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            // The monitor opens last and is tried first: clients that connect while the server starts
            // have to wait, and together may be too many from one address.
            let ports = [self.monitoring_port, self.smtp_port, self.submission_port, self.submissions_port];
            ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()).then_some(())
        });
    }

    /// The server's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    /// `kill -9`, and the process is gone.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end: the exit code.
    pub fn stop(&mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.exit_code()
    }

    /// Waits for the end: the exit code.
    pub fn exit_code(&mut self) -> i32 {
        let mut child = self.child.take().unwrap();
        let status = wait_for("the server to stop", || child.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }

    /// The messages in a user's Maildir, as they are on disk.
    pub fn maildir_messages(&self, domain: &str, user: &str) -> Vec<Vec<u8>> {
        messages_in(&self.path(&format!("data/mail/{domain}/{user}/new")))
    }

    /// Waits for the first message in a user's Maildir.
    pub fn wait_for_message(&self, domain: &str, user: &str) -> String {
        let octets = wait_for("a message", || self.maildir_messages(domain, user).pop());
        String::from_utf8(octets).unwrap()
    }

    /// Logs in on a submission port with swaks; `more` has the rest of its arguments.
    pub fn submit_with_swaks(&self, port: u16, user: &str, password: &str, more: &[&str]) -> Output {
        let address = format!("127.0.0.1:{port}");
        let tls = if port == self.submissions_port { "--tls-on-connect" } else { "--tls" };
        let login =
            ["--server", &address, tls, "--auth", "PLAIN", "--auth-user", user, "--auth-password", password];
        peers::swaks(login.iter().chain(more))
    }

    /// One page of the monitor.
    pub fn monitor_page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.monitoring_port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{path}: {text}");
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// A client on the smtp port, greeted.
    pub fn connect(&self) -> SmtpClient {
        SmtpClient::connect(([127, 0, 0, 1], self.smtp_port).into())
    }

    /// Submits one short message on the smtp port. Returns the last reply.
    pub fn send_message(&self, from: &str, to: &str, subject: &str) -> String {
        let mut client = self.connect();
        client.begin_data(from, to);
        client.command(&format!("Subject: {subject}\r\n\r\nHello {to}.\r\n."))
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A name server by which the MX host of each domain is on loopback, and the lines of `postrider.toml` that make
/// the server ask it and connect to `port`. `null.example` takes no mail (RFC 7505).
pub fn loopback_dns(domains: &[&str], port: u16) -> (DnsServer, String) {
    let mut zone = "null.example. MX 0 .\n".to_owned();
    for domain in domains {
        writeln!(zone, "{domain}. MX 10 mx.{domain}.\nmx.{domain}. A 127.0.0.1").unwrap();
    }
    let dns = DnsServer::start(&zone);
    let toml = format!("[dns]\nservers = [\"{}\"]\n\n[delivery.smtp]\nport = {port}\n", dns.address);
    (dns, toml)
}

/// The code that a client from this address is greeted with.
pub fn greeted_from(from: [u8; 4], port: u16) -> String {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd as _;
    let [a, b, c, d] = from;
    let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(client.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).unwrap();
    connect(client.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).unwrap();
    let mut code = [0; 3];
    TcpStream::from(client).read_exact(&mut code).unwrap();
    String::from_utf8(code.to_vec()).unwrap()
}

/// Runs one test of this program in a process of its own: a test can end a process, or needs another environment.
/// `module` is what `module_path!()` says there.
pub fn run_test_alone(module: &str, name: &str, set_up: impl FnOnce(&mut Command)) -> Output {
    let (_crate, module) = module.split_once("::").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    set_up(command.args(["--exact", &format!("{module}::{name}")]));
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test\n"), "there is no test {name} in {module}: {text}");
    output
}

/// Writes a program, and makes it executable. An older one is removed first: a file that runs cannot be written.
pub fn write_program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = fs::remove_file(path);
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The same for a shell script, without its first line.
pub fn write_script(path: &Path, text: &str) {
    write_program(path, &format!("#!/bin/sh\n{text}\n"));
}

/// The files of a folder, read.
pub fn messages_in(dir: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> =
        fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A simple SMTP client.
pub struct SmtpClient {
    reader: BufReader<TcpStream>,
}

impl SmtpClient {
    /// Connects and reads the greeting.
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|refusal| panic!("no greeting but {refusal:?}"))
    }

    /// Connects. `Err` has the reply instead of a greeting.
    pub fn try_connect(address: SocketAddr) -> Result<Self, String> {
        Self::try_connect_after(address, b"")
    }

    /// Connects and sends octets before the greeting, as a proxy does.
    pub fn try_connect_after(address: SocketAddr, preface: &[u8]) -> Result<Self, String> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        let mut client = Self { reader: BufReader::new(stream) };
        client.send(preface);
        let greeting = client.read_reply();
        if greeting.starts_with("220 ") { Ok(client) } else { Err(greeting) }
    }

    /// Reads one reply, all its lines; empty when the server has closed the connection.
    pub fn read_reply(&mut self) -> String {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).unwrap_or(0) == 0 {
                return text;
            }
            text.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                return text;
            }
        }
    }

    /// Another handle of the connection, for a thread that only writes.
    pub fn cloned_stream(&self) -> TcpStream {
        self.reader.get_ref().try_clone().unwrap()
    }

    /// Sends octets as they are.
    pub fn send(&mut self, octets: &[u8]) {
        self.reader.get_mut().write_all(octets).unwrap();
    }

    /// Sends a line and reads the reply.
    pub fn command(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.read_reply()
    }

    /// Sends EHLO, MAIL, RCPT and DATA, for one recipient.
    pub fn begin_data(&mut self, from: &str, to: &str) {
        self.expect("EHLO there.example", "250");
        self.expect(&format!("MAIL FROM:<{from}>"), "250");
        self.expect(&format!("RCPT TO:<{to}>"), "250");
        self.expect("DATA", "354");
    }

    /// Sends a line; the reply must begin with `code`.
    pub fn expect(&mut self, line: &str, code: &str) -> String {
        let reply = self.command(line);
        assert!(reply.starts_with(code), "{line} was answered {reply}");
        reply
    }
}
