//! Real mail programs of others: Exim, Postfix's test programs, swaks, procmail, maildrop, HAProxy.
//!
//! Our own dialogs prove that the code does what we think the standards demand; only programs of others
//! prove that we read the standards right. This file fetches them (`scripts/fetch-debian` unpacks Debian's
//! packages below `target/debian` and installs nothing), starts them on loopback, and reads the messages that
//! they received. It does not depend on postrider, and has no tests: those of `interop` and others fail
//! if a program does not work.
//!
//! A program that cannot be fetched is a failure, never a skipped test: an interop run that did nothing
//! would look like a proof.
//!
//! Servers are children of the test and end when their value is dropped, by their own
//! process id. If a port turns out to be taken, another one is used.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// Real Exim 4, configured by `tests/interop/exim/exim.conf`, which begins with a description.
pub(crate) struct Exim {
    /// Where it listens, on 127.0.0.1.
    pub(crate) port: u16,
    /// Its own folder: configuration, certificate, spool, log and Maildir.
    pub(crate) dir: PathBuf,
    _running: Running,
}

impl Exim {
    /// Starts one in the existing folder `dir`, with a certificate of its own (`cert.pem`, for
    /// `exim.test` and `localhost`). Mail that is not for `exim.test` goes on to `next_port`.
    pub(crate) fn start(dir: &Path, next_port: u16) -> Self {
        write_certificate(dir, &["exim.test", "localhost"]);
        let (port, running) = on_a_free_port("exim4", |port| {
            let text = include_str!("../interop/exim/exim.conf")
                .replace("@EXIM@", &text(program("exim4")))
                .replace("@DIR@", &text(dir))
                .replace("@PORT@", &port.to_string())
                .replace("@NEXT_PORT@", &next_port.to_string());
            fs::write(dir.join("exim.conf"), text).unwrap();
            let errors = dir.join("exim.stderr");
            let mut running = Running::start(
                Command::new(program("exim4"))
                    .arg("-C")
                    .arg(dir.join("exim.conf"))
                    .arg("-bdf")
                    .stdout(Stdio::null())
                    .stderr(fs::File::create(&errors).unwrap()),
            );
            // Exim writes its process id once its sockets are bound. An answer on the port alone
            // could come from another program that took it in the meantime.
            let pid = running.child.id().to_string();
            until("exim4 to write its pid file", || {
                if running.has_ended() {
                    return Some(Err(fs::read_to_string(&errors).unwrap()));
                }
                let written = fs::read_to_string(dir.join("exim.pid")).unwrap_or_default();
                (written.trim() == pid).then_some(Ok(()))
            })?;
            until("exim4 to answer", || connect(port).ok());
            Ok(running)
        });
        Self { port, dir: dir.to_owned(), _running: running }
    }

    /// Waits until `count` files have arrived in Exim's Maildir, and reads them, in the order of
    /// recipient and message. More than `count` is a failure: a message was delivered twice.
    pub(crate) fn wait_for_mail(&self, count: usize) -> Vec<EximMail> {
        let mut mail = until(&format!("{count} messages in Exim's Maildir"), || {
            let files = maildir_messages(&self.dir.join("mail"));
            (files.len() >= count).then_some(files)
        });
        assert_eq!(mail.len(), count, "messages in Exim's Maildir; its log:\n{}", self.log());
        mail.sort();
        mail.iter().map(|file| EximMail::parse(file)).collect()
    }

    /// Exim's main log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log/main")).unwrap_or_default()
    }
}

/// Real HAProxy in front of a mail server, configured by `tests/interop/haproxy/haproxy.cfg`.
pub(crate) struct HaProxy {
    /// Its port for mail from other servers, with version 1 of the PROXY protocol.
    pub(crate) version_1: u16,
    /// The same, version 2.
    pub(crate) version_2: u16,
    /// Its port for TLS from the first octet, version 2.
    pub(crate) version_2_tls: u16,
    _running: Running,
}

impl HaProxy {
    /// Starts one in the existing folder `dir`.
    pub(crate) fn start(dir: &Path, smtp: u16, submissions: u16) -> Self {
        let (version_2, version_2_tls) = (free_port(), free_port());
        let (version_1, running) = on_a_free_port("haproxy", |version_1| {
            let file = dir.join("haproxy.cfg");
            let ports = [
                ("@ONE@", version_1),
                ("@TWO@", version_2),
                ("@TLS@", version_2_tls),
                ("@SMTP@", smtp),
                ("@SUBMISSIONS@", submissions),
            ];
            let text = include_str!("../interop/haproxy/haproxy.cfg").to_owned();
            let text = ports.iter().fold(text, |text, (word, port)| text.replace(word, &port.to_string()));
            fs::write(&file, text).unwrap();
            let errors = dir.join("haproxy.stderr");
            let mut running = Running::start(
                Command::new(program("haproxy"))
                    .args(["-db", "-f"])
                    .arg(file)
                    .stdout(Stdio::null())
                    .stderr(fs::File::create(&errors).unwrap()),
            );
            until("haproxy to answer", || {
                if running.has_ended() {
                    return Some(Err(fs::read_to_string(&errors).unwrap()));
                }
                connect(version_1).is_ok().then_some(Ok(()))
            })?;
            Ok(running)
        });
        Self { version_1, version_2, version_2_tls, _running: running }
    }
}

/// One file in Exim's Maildir: one message, for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EximMail {
    /// The argument of MAIL, without brackets; empty for the null reverse-path.
    pub(crate) reverse_path: String,
    /// The argument of RCPT, without brackets: the recipient of this copy.
    pub(crate) forward_path: String,
    /// Exim's own Received field: client, protocol, and the TLS cipher if there is one.
    pub(crate) trace: String,
    /// The message as it was received, with LF line ends.
    pub(crate) message: Vec<u8>,
}

impl EximMail {
    fn parse(file: &[u8]) -> Self {
        // The head of exim.conf describes the four lines of Exim's.
        let mut lines = file.splitn(5, |&octet| octet == b'\n');
        let mut line = || String::from_utf8(lines.next().unwrap().to_vec()).unwrap();
        let (from, to, by, date) = (line(), line(), line(), line());
        Self {
            reverse_path: strip(&from, "X-Envelope-From: <", ">"),
            forward_path: strip(&to, "X-Envelope-To: <", ">"),
            trace: strip(&by, "Received: ", "") + &date,
            message: lines.next().unwrap().to_vec(),
        }
    }
}

/// Postfix's `smtp-sink`: accepts every message, quickly, without TLS, and keeps it.
pub(crate) struct SmtpSink {
    /// Where it listens, on 127.0.0.1.
    pub(crate) port: u16,
    dump: PathBuf,
    counts: Arc<(Mutex<Counts>, Condvar)>,
    _running: Running,
}

/// The counters of smtp-sink since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Sessions that have ended.
    pub(crate) sessions: usize,
    /// Sessions whose client sent QUIT (RFC 5321 §4.1.1.10).
    pub(crate) quits: usize,
    /// Messages that were received to the final dot.
    pub(crate) messages: usize,
}

impl SmtpSink {
    /// Starts one that keeps its messages in the existing folder `dir`.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// Starts one with options of its own: `["-f", "RCPT"]` answers RCPT with 500, `["-r", "."]`
    /// the final dot with 450, `["-q", "DATA"]` closes the connection at DATA, `["-8"]` offers no 8BITMIME,
    /// `["-e"]` accepts HELO only, `["-L"]` speaks LMTP. See smtp-sink(1).
    pub(crate) fn start_with(dir: &Path, options: &[&str]) -> Self {
        let dump = dir.join("smtp-sink");
        fs::create_dir_all(&dump).unwrap();
        let counts = Arc::new((Mutex::new(Counts::default()), Condvar::new()));
        let (port, running) = on_a_free_port("smtp-sink", |port| {
            let errors = dir.join("smtp-sink.stderr");
            let mut running = Running::start(
                Command::new(program("smtp-sink"))
                    .args(["-c", "-h", "sink.test", "-d", "mail."])
                    .args(options)
                    .args([&format!("127.0.0.1:{port}"), "100"])
                    .current_dir(&dump)
                    .stdout(Stdio::piped())
                    .stderr(fs::File::create(&errors).unwrap()),
            );
            let output = running.child.stdout.take().unwrap();
            let shared = Arc::clone(&counts);
            thread::spawn(move || follow_counts(output, &shared));
            // It counts a session when it ends: our own probe is how we know that it was this
            // smtp-sink which answered, and not another program that took the port.
            until("smtp-sink to answer", || {
                if running.has_ended() {
                    return Some(Err(fs::read_to_string(&errors).unwrap()));
                }
                connect(port).ok().map(drop)?;
                Some(Ok(()))
            })?;
            until("smtp-sink to count", || {
                if running.has_ended() {
                    return Some(Err(fs::read_to_string(&errors).unwrap()));
                }
                (counts.0.lock().unwrap().sessions == 1).then_some(Ok(()))
            })?;
            Ok(running)
        });
        Self { port, dump, counts, _running: running }
    }

    /// Its counters, without our own probe at the start.
    pub(crate) fn counts(&self) -> Counts {
        let counts = *self.counts.0.lock().unwrap();
        Counts { sessions: counts.sessions - 1, ..counts }
    }

    /// Waits until the counters fulfil `enough`.
    pub(crate) fn wait_until(&self, enough: impl Fn(Counts) -> bool) -> Counts {
        let (counts, changed) = &*self.counts;
        let waited = changed
            .wait_timeout_while(counts.lock().unwrap(), PATIENCE, |counts| {
                !enough(Counts { sessions: counts.sessions - 1, ..*counts })
            })
            .unwrap();
        assert!(!waited.1.timed_out(), "smtp-sink counted only {:?}", waited.0);
        drop(waited);
        self.counts()
    }

    /// Waits until `count` messages have been received, and reads them, in no certain order.
    /// More than `count` is a failure: a message was delivered twice.
    pub(crate) fn wait_for_mail(&self, count: usize) -> Vec<SinkMail> {
        self.wait_until(|counts| counts.messages >= count);
        assert_eq!(self.counts().messages, count, "messages that smtp-sink received");
        self.mail()
    }

    /// All transactions so far, among them those that were not finished.
    pub(crate) fn mail(&self) -> Vec<SinkMail> {
        fs::read_dir(&self.dump)
            .unwrap()
            .map(|entry| SinkMail::parse(&fs::read(entry.unwrap().path()).unwrap()))
            .collect()
    }
}

/// One transaction that smtp-sink has kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SinkMail {
    /// The argument of EHLO or HELO.
    pub(crate) hello: String,
    /// The argument of MAIL as it was sent, with its parameters: `<ana@example.test> SIZE=4`.
    pub(crate) mail: String,
    /// The arguments of RCPT, likewise.
    pub(crate) recipients: Vec<String>,
    /// The message as it was received, with LF line ends.
    pub(crate) message: Vec<u8>,
}

impl SinkMail {
    fn parse(file: &[u8]) -> Self {
        let mut mail =
            Self { hello: String::new(), mail: String::new(), recipients: Vec::new(), message: Vec::new() };
        let mut rest = file;
        loop {
            let end = rest.iter().position(|&octet| octet == b'\n').unwrap();
            let line = String::from_utf8_lossy(&rest[..end]).into_owned();
            let (name, value) = line.split_once(": ").unwrap();
            match name {
                "X-Client-Addr" | "X-Client-Proto" => {}
                "X-Helo-Args" => value.clone_into(&mut mail.hello),
                "X-Mail-Args" => value.clone_into(&mut mail.mail),
                "X-Rcpt-Args" => mail.recipients.push(value.to_owned()),
                // Its own trace field has three lines; all after it is what was sent.
                _ => break,
            }
            rest = &rest[end + 1..];
        }
        let message = rest.splitn(4, |&octet| octet == b'\n').nth(3).unwrap();
        // It closes each file with a line end of its own; one that is still being written has none.
        mail.message = message.strip_suffix(b"\n").unwrap_or(message).to_vec();
        mail
    }
}

/// The load that `smtp-source` sends.
#[derive(Debug, Clone)]
pub(crate) struct Load<'a> {
    /// The server's port on 127.0.0.1.
    pub(crate) port: u16,
    /// Sessions at once.
    pub(crate) sessions: usize,
    /// Messages in all, one session each.
    pub(crate) messages: usize,
    /// Octets of each message's body, about.
    pub(crate) octets: usize,
    /// In MAIL.
    pub(crate) reverse_path: &'a str,
    /// In RCPT.
    pub(crate) forward_path: &'a str,
}

/// Sends a load with Postfix's `smtp-source`; returns when all is sent. It exits 0 if each message
/// was answered 250, and at the first other answer it gives up with a sentence on stderr.
pub(crate) fn smtp_source(load: &Load<'_>) -> Output {
    run(Command::new(program("smtp-source"))
        .args(["-M", "source.test"])
        .args(["-s", &load.sessions.to_string()])
        .args(["-m", &load.messages.to_string()])
        .args(["-l", &load.octets.to_string()])
        .args(["-f", load.reverse_path])
        .args(["-t", load.forward_path])
        .arg(format!("127.0.0.1:{}", load.port)))
}

/// Runs `swaks`, the SMTP client for trying things: its output is the transcript. Exit status
/// 0 means that the message was accepted; see swaks(1), "EXIT CODES", for the others.
pub(crate) fn swaks<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    run(Command::new(program("swaks")).args(["--helo", "client.test"]).args(arguments))
}

/// Keeps `message`, which has LF line ends, in the folder `dir`, and returns the argument of
/// `swaks --data` that sends exactly this message. (Swaks replaces words such as `%DATE%`.)
pub(crate) fn swaks_data(dir: &Path, message: &str) -> String {
    let path = dir.join("swaks-data");
    // Swaks ends the last line itself.
    fs::write(&path, message.strip_suffix('\n').unwrap()).unwrap();
    format!("@{}", text(path))
}

/// A command that delivers the message on its standard input into `maildir`, with procmail.
///
/// `-m` because otherwise procmail, even with a mailbox in its arguments, first makes a mailbox in
/// /var/mail; `-t` because a Maildir that cannot be written is then exit 75, not 73.
pub(crate) fn procmail_command(maildir: &Path) -> Vec<String> {
    vec![
        text(program("procmail")),
        "-t".to_owned(),
        "-m".to_owned(),
        format!("DEFAULT={}/", text(maildir)),
        format!("ORGMAIL={}/", text(maildir)),
        "/dev/null".to_owned(),
    ]
}

/// A command that reads the message and exits with `code`, as a recipe of procmail may say.
/// Keeps its recipe in the folder `dir`.
pub(crate) fn procmail_exit_command(dir: &Path, code: u8) -> Vec<String> {
    let recipe = dir.join(format!("exit-{code}.procmailrc"));
    // Assigning HOST something else than the host's name ends procmail: procmailrc(5).
    fs::write(&recipe, format!("EXITCODE={code}\nHOST\n")).unwrap();
    vec![text(program("procmail")), "-m".to_owned(), text(recipe)]
}

/// A command that delivers the message on its standard input into `maildir`, with maildrop.
/// Makes the Maildir, which maildrop would not, and keeps a filter file beside it.
pub(crate) fn maildrop_command(maildir: &Path) -> Vec<String> {
    for folder in ["new", "cur", "tmp"] {
        fs::create_dir_all(maildir.join(folder)).unwrap();
    }
    let filter = maildir.with_extension("mailfilter");
    write_private(&filter, &format!("to \"{}/\"\n", text(maildir)));
    vec![text(program("maildrop")), text(filter)]
}

/// A command that reads the message and exits with `code`, as a filter of maildrop may say.
/// Keeps its filter in the folder `dir`.
pub(crate) fn maildrop_exit_command(dir: &Path, code: u8) -> Vec<String> {
    let filter = dir.join(format!("exit-{code}.mailfilter"));
    write_private(&filter, &format!("EXITCODE={code}\nexit\n"));
    vec![text(program("maildrop")), text(filter)]
}

/// The contents of all messages in a Maildir's `new`, in no certain order.
pub(crate) fn maildir_messages(maildir: &Path) -> Vec<Vec<u8>> {
    match fs::read_dir(maildir.join("new")) {
        Ok(entries) => entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect(),
        Err(_) => Vec::new(), // nothing has arrived yet
    }
}

/// A loopback port that is free and that no other test gets. Below the range from which the
/// system takes ports for clients, so that a connection does not take it before its server does;
/// another test run may, so a server that is started on it may find it taken.
pub(crate) fn free_port() -> u16 {
    const PORTS: std::ops::Range<u32> = 10_000..32_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Runs side by side begin in different places.
    let begin = std::process::id().wrapping_mul(7919);
    loop {
        let step = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        let port = u16::try_from(PORTS.start + step).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `look` finds something. Fails after the time-out, with the name of `what` it waited for.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The path of one of the wrappers, after making sure that it is there.
///
/// Programs are fetched once per test process; processes wait for each other in the script.
pub(crate) fn program(name: &str) -> PathBuf {
    static FETCHED: OnceLock<Result<(), String>> = OnceLock::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fetched = FETCHED.get_or_init(|| {
        let output = Command::new(root.join("scripts/fetch-debian"))
            .args([
                "exim", "postfix", "procmail", "maildrop", "swaks", "haproxy", "dovecot", "msmtp", "gsasl",
                "curl",
            ])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("scripts/fetch-debian did not start: {error}"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    });
    if let Err(why) = fetched {
        panic!("the interop tests need real mail programs, and they cannot be had.\n{why}");
    }
    root.join("target/debian/bin").join(name)
}

/// A server that ends with this value.
struct Running {
    child: Child,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        Self { child: command.stdin(Stdio::null()).spawn().unwrap() }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // By its own id; each wrapper has become its program by exec.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server on a port that was free a moment ago, and on another one if it was not.
fn on_a_free_port(name: &str, start: impl Fn(u16) -> Result<Running, String>) -> (u16, Running) {
    let mut said = String::new();
    for _ in 0..5 {
        let port = free_port();
        match start(port) {
            Ok(running) => return (port, running),
            Err(why) => said = why,
        }
    }
    panic!("{name} ended instead of listening on 127.0.0.1; it said:\n{said}");
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port))
}

/// Runs a program to its end, within the tests' time-out.
fn run(command: &mut Command) -> Output {
    let mut limited = Command::new("timeout");
    limited
        .args(["--foreground", &PATIENCE.as_secs().to_string()])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    let output = limited.output().unwrap();
    assert_ne!(output.status.code(), Some(124), "{command:?} was not done within {PATIENCE:?}");
    output
}

/// Reads smtp-sink's running counters, `sess=3 quit=3 mesg=2` and a CR each time, to their end.
fn follow_counts(mut output: ChildStdout, counts: &(Mutex<Counts>, Condvar)) {
    let mut pending = String::new();
    let mut buffer = [0; 4096];
    while let Ok(octets @ 1..) = output.read(&mut buffer) {
        pending += std::str::from_utf8(&buffer[..octets]).unwrap();
        while let Some((line, rest)) = pending.split_once('\r') {
            let number = |name| {
                let mut words = line.split_whitespace();
                words.find_map(|word| word.strip_prefix(name)?.parse().ok())
            };
            if let (Some(sessions), Some(quits), Some(messages)) =
                (number("sess="), number("quit="), number("mesg="))
            {
                *counts.0.lock().unwrap() = Counts { sessions, quits, messages };
                counts.1.notify_all();
            }
            pending = rest.to_owned();
        }
    }
}

/// Writes `cert.pem` and `key.pem`, self-signed, for these names.
fn write_certificate(dir: &Path, names: &[&str]) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

/// Writes a file that only its owner may read: maildrop accepts no other as a filter.
fn write_private(path: &Path, contents: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(contents.as_bytes()).unwrap();
}

fn strip(line: &str, before: &str, after: &str) -> String {
    let inner = line.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    inner.unwrap_or_else(|| panic!("{line:?} is not {before:?}…{after:?}")).to_owned()
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().expect("paths of tests are UTF-8").to_owned()
}

/// How long anything may take. Generous: the machine may be busy, and only failures wait for it.
const PATIENCE: Duration = Duration::from_secs(60);
