//! Connections to Dovecot, their deadlines, and the paths of its sockets.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::protocol::{
    DovecotAuthReply, DovecotHandshake, DovecotProtocolError, DovecotUserReply, auth_request,
    client_handshake, user_request, userdb_handshake,
};
use crate::auth::{ExternalUsers, PasswordCheck};
use crate::mail::{Endpoint, Mailbox, printable};
use crate::observe::{CounterFamily, Metrics};
use crate::sys::{Clock, Connector, LineReader, Moment, Random, Stream};

/// The sockets of Dovecot, and how long a request may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DovecotSettings {
    /// The client socket, for passwords. If `None`, the usual paths are tried for each request.
    pub client_socket: Option<PathBuf>,
    /// The userdb socket, for mailboxes. If `None`, the usual paths are tried for each request.
    pub userdb_socket: Option<PathBuf>,
    /// Longest time for a request. Default: 5 seconds.
    pub timeout: Duration,
}

impl Default for DovecotSettings {
    fn default() -> Self {
        Self { client_socket: None, userdb_socket: None, timeout: Duration::from_secs(5) }
    }
}

/// Directories in which Dovecot has its sockets by default.
const SOCKET_DIRECTORIES: [&str; 2] = ["/run/dovecot", "/var/run/dovecot"];
/// The socket that the operator made for postrider, and the one of Dovecot itself, which postrider can rarely use.
const CLIENT_SOCKET_NAMES: [&str; 2] = ["auth-postrider-client", "auth-client"];
const USERDB_SOCKET_NAMES: [&str; 2] = ["auth-postrider-userdb", "auth-userdb"];

/// Longest line that is read, in octets: Dovecot has the same limit.
const LINE_OCTETS_MAX: usize = 16_384;
/// Most lines that are read on one connection. A handshake has about a dozen.
const LINES_MAX: usize = 200;

/// The authentication service of a Dovecot on this host.
pub struct DovecotAuth {
    settings: DovecotSettings,
    connector: Arc<dyn Connector>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    requests: CounterFamily,
}

impl DovecotAuth {
    /// A client of this Dovecot; does not connect yet.
    #[must_use]
    pub fn new(
        settings: DovecotSettings,
        connector: Arc<dyn Connector>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        metrics: &Metrics,
    ) -> Self {
        let requests = metrics.counter_family("dovecot_requests", "Requests to Dovecot, by result", "result");
        Self { settings, connector, clock, random, requests }
    }

    /// Why a socket does not answer, a sentence for each; empty if both answer.
    #[must_use]
    pub fn socket_problems(&self) -> Vec<String> {
        let client = self.connect_client_socket().map(drop).err();
        let userdb = self.connect_userdb_socket().map(drop).err();
        let problems = [
            client.map(|why| format!("{why}; until it does, Dovecot's users cannot log in")),
            userdb.map(|why| format!("{why}; until it does, mail for Dovecot's users is put off")),
        ];
        problems.into_iter().flatten().collect()
    }

    /// Asks Dovecot to check a password; `name` is the name of the user in Dovecot.
    fn request_auth(&self, name: &str, password: &[u8], client: IpAddr) -> Result<DovecotAuthReply, String> {
        let Some(request) = auth_request(name, password, client) else {
            return Ok(DovecotAuthReply::Rejected);
        };
        let mut lines = self.connect_client_socket()?;
        lines.send(&request)?;
        lines.read_until(DovecotAuthReply::parse)
    }

    fn request_user(&self, name: &str) -> Result<DovecotUserReply, String> {
        let Some(request) = user_request(name) else { return Ok(DovecotUserReply::NotFound) };
        let mut lines = self.connect_userdb_socket()?;
        lines.send(&request)?;
        lines.read_until(DovecotUserReply::parse)
    }

    /// A connection to the client socket, after the handshake.
    fn connect_client_socket(&self) -> Result<LineConnection, String> {
        let mut lines = self.connect(self.settings.client_socket.as_deref(), CLIENT_SOCKET_NAMES)?;
        // Dovecot identifies clients by their process id, and does not accept two connections of the same client.
        // So each connection has its own number, which is larger than any process id.
        let cpid = u32::try_from(self.random.below(1 << 30)).unwrap_or_default() | 1 << 30;
        lines.send(&client_handshake(cpid))?;
        let mut handshake = DovecotHandshake::default();
        lines.read_until(|line| handshake.read_client_line(line).map(|is_done| is_done.then_some(())))?;
        Ok(lines)
    }

    /// A connection to the userdb socket, after the handshake.
    fn connect_userdb_socket(&self) -> Result<LineConnection, String> {
        let mut lines = self.connect(self.settings.userdb_socket.as_deref(), USERDB_SOCKET_NAMES)?;
        lines.send(&userdb_handshake())?;
        let mut handshake = DovecotHandshake::default();
        lines.read_until(|line| handshake.read_userdb_line(line).map(|is_done| is_done.then_some(())))?;
        Ok(lines)
    }

    /// A connection to the first socket that accepts one. The error is that of the first socket that exists.
    fn connect(&self, configured: Option<&Path>, names: [&str; 2]) -> Result<LineConnection, String> {
        let deadline = self.clock.now() + self.settings.timeout;
        let paths: Vec<PathBuf> = match configured {
            Some(path) => vec![path.to_owned()],
            None => names
                .iter()
                .flat_map(|name| SOCKET_DIRECTORIES.map(|dir| Path::new(dir).join(name)))
                .collect(),
        };
        let mut why = None;
        for path in paths {
            let endpoint = Endpoint::Unix(path);
            match self.connector.connect(&endpoint, deadline) {
                Ok(stream) => return Ok(LineConnection::new(stream, deadline, &endpoint)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && configured.is_none() => {}
                Err(error) => drop(why.get_or_insert(format!("no connection to {endpoint}: {error}"))),
            }
        }
        Err(why.unwrap_or_else(|| {
            format!("there is no socket {} in {}", names.join(" or "), SOCKET_DIRECTORIES.join(" or "))
        }))
    }

    fn count_result<T>(&self, result: &Result<T, String>, right: impl FnOnce(&T) -> &'static str) {
        self.requests.add_one(result.as_ref().map_or("unavailable", right));
    }
}

impl ExternalUsers for DovecotAuth {
    /// Always true: Dovecot is not asked, because it may not be running now.
    fn has_logins(&self) -> bool {
        true
    }

    fn exists(&self, mailbox: &Mailbox) -> Result<bool, String> {
        let answer = self.request_user(&dovecot_user_name(mailbox)).and_then(|reply| match reply {
            DovecotUserReply::Found => Ok(true),
            DovecotUserReply::NotFound => Ok(false),
            DovecotUserReply::Unavailable(why) => Err(why),
        });
        self.count_result(&answer, |is_known| if *is_known { "known" } else { "unknown" });
        answer
    }

    fn check_password(&self, user: &str, password: &[u8], client: IpAddr) -> PasswordCheck {
        let mailbox = Mailbox::parse(user).ok();
        let asked = mailbox.as_ref().map_or_else(|| user.to_owned(), dovecot_user_name);
        let answer = self.request_auth(&asked, password, client).and_then(|reply| match reply {
            // Dovecot may return another name of the user, or the whole address of a name without domain.
            DovecotAuthReply::Accepted(known) => {
                let mailbox = known.and_then(|known| Mailbox::parse(&known).ok()).or(mailbox);
                if mailbox.is_none() {
                    let user = printable(user.as_bytes(), 100);
                    log::warn!("{user} may not log in: Dovecot knows the password and no address; see auth_default_realm");
                }
                Ok(mailbox.map_or(PasswordCheck::Rejected, PasswordCheck::Accepted))
            }
            DovecotAuthReply::Rejected => Ok(PasswordCheck::Rejected),
            DovecotAuthReply::Unavailable(why) => Err(why),
        });
        self.count_result(&answer, |login| {
            if matches!(login, PasswordCheck::Accepted(_)) { "accepted" } else { "rejected" }
        });
        answer.unwrap_or_else(PasswordCheck::Unavailable)
    }
}

/// The name of a mailbox in Dovecot.
fn dovecot_user_name(mailbox: &Mailbox) -> String {
    format!("{}@{}", mailbox.local_part.comparison_key(), mailbox.domain.as_ascii())
}

impl fmt::Debug for DovecotAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DovecotAuth").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A connection to one of Dovecot's sockets.
struct LineConnection {
    lines: LineReader<Box<dyn Stream>>,
    socket: String,
    lines_left: usize,
}

impl LineConnection {
    fn new(mut stream: Box<dyn Stream>, deadline: Moment, socket: &Endpoint) -> Self {
        stream.set_deadline(deadline);
        let lines = LineReader::new(stream, LINE_OCTETS_MAX);
        Self { lines, socket: socket.to_string(), lines_left: LINES_MAX }
    }

    fn send(&mut self, text: &str) -> Result<(), String> {
        let stream = self.lines.stream_mut();
        let sent = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
        sent.map_err(|error| self.no_answer_message(&error))
    }

    /// Reads lines until `read` returns a value for one.
    fn read_until<T>(
        &mut self,
        mut read: impl FnMut(&[u8]) -> Result<Option<T>, DovecotProtocolError>,
    ) -> Result<T, String> {
        loop {
            let line = self.read_line()?;
            if let Some(found) = read(&line).map_err(|error| format!("{}: {error}", self.socket))? {
                return Ok(found);
            }
        }
    }

    fn read_line(&mut self) -> Result<Vec<u8>, String> {
        let line = self.lines.read_line().map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => format!("{}: a line has no end", self.socket),
            _ => self.no_answer_message(&error),
        })?;
        self.lines_left = self
            .lines_left
            .checked_sub(1)
            .ok_or_else(|| format!("{}: too many lines without a reply", self.socket))?;
        Ok(line)
    }

    fn no_answer_message(&self, error: &io::Error) -> String {
        let why = match error.kind() {
            io::ErrorKind::TimedOut => "it took too long".to_owned(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                "it hung up".to_owned()
            }
            _ => error.to_string(),
        };
        format!("{} gives no answer: {why}", self.socket)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;

    use crossbeam_channel::{Receiver, bounded};
    use tempfile::TempDir;

    use super::*;
    use crate::fakes::{ScriptedConnector, SeededRandom};
    use crate::sys::{SystemClock, SystemConnector, spawn};

    const GREETING: &str = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t7\nCUID\t1\nCOOKIE\tx\nDONE\n";
    const USERDB_GREETING: &str = "VERSION\t1\t1\nSPID\t7\n";

    /// A server that sends the first text, reads `line_count` lines, sends the second text and closes the
    /// connection. The channel returns the lines.
    fn server(
        dir: &TempDir,
        name: &str,
        first: &str,
        line_count: usize,
        then: &str,
    ) -> Receiver<Vec<String>> {
        let listener = UnixListener::bind(dir.path().join(name)).unwrap();
        let (first, then) = (first.to_owned(), then.to_owned());
        let (sender, received) = bounded(1);
        spawn("dovecot", move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(first.as_bytes()).unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            sender.send(lines.take(line_count).map(Result::unwrap).collect()).unwrap();
            // Fails if the client has closed the connection.
            let _ = stream.write_all(then.as_bytes());
        })
        .unwrap();
        received
    }

    fn dovecot_auth(dir: &TempDir, deadline: Duration) -> DovecotAuth {
        let settings = DovecotSettings {
            client_socket: Some(dir.path().join("client")),
            userdb_socket: Some(dir.path().join("userdb")),
            timeout: deadline,
        };
        let (connector, clock, random) =
            (Arc::new(SystemConnector), Arc::new(SystemClock), Arc::new(SeededRandom::new(1)));
        DovecotAuth::new(settings, connector, clock, random, &Metrics::default())
    }

    const MINUTE: Duration = Duration::from_secs(60);
    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn login(greeting: &str, answer: &str, user: &str) -> (PasswordCheck, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let server = server(&dir, "client", greeting, 3, answer);
        let login = dovecot_auth(&dir, MINUTE).check_password(user, b"secret", CLIENT);
        (login, server.recv().unwrap())
    }

    fn exists(answer: &str) -> Result<bool, String> {
        let dir = tempfile::tempdir().unwrap();
        let server = server(&dir, "userdb", USERDB_GREETING, 2, answer);
        let known = dovecot_auth(&dir, MINUTE).exists(&Mailbox::parse("Ana@bücher.example").unwrap());
        assert_eq!(
            server.recv().unwrap(),
            ["VERSION\t1\t1", "USER\t1\tana@xn--bcher-kva.example\tservice=smtp"]
        );
        known
    }

    #[test]
    fn a_login_is_sent_as_plain_with_the_name_in_its_comparison_form() {
        let (answer, lines) =
            login(GREETING, "OK\t1\tuser=ana@xn--bcher-kva.example\n", "Ana@bücher.example");
        assert_eq!(answer, PasswordCheck::Accepted(Mailbox::parse("ana@bücher.example").unwrap()));
        let [version, cpid, question] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(version, "VERSION\t1\t1");
        let cpid: u32 = cpid.strip_prefix("CPID\t").unwrap().parse().unwrap();
        assert!(cpid > 1 << 22, "{cpid} may be a process");
        let (fields, response) = question.split_once("resp=").unwrap();
        assert_eq!(fields, "AUTH\t1\tPLAIN\tservice=smtp\tsecured\tno-penalty\trip=192.0.2.7\t");
        assert_eq!(response, "AGFuYUB4bi0tYmNoZXIta3ZhLmV4YW1wbGUAc2VjcmV0");
    }

    #[test]
    fn dovecot_may_return_another_name_of_a_user() {
        let ana = PasswordCheck::Accepted(Mailbox::parse("ana@here.example").unwrap());
        assert_eq!(login(GREETING, "OK\t1\tuser=ana@here.example\n", "ana").0, ana);
        assert_eq!(login(GREETING, "OK\t1\tuser=ana\n", "ana@here.example").0, ana);
        assert_eq!(
            login(GREETING, "OK\t1\tuser=ana\n", "ana").0,
            PasswordCheck::Rejected,
            "that is no address"
        );
        assert_eq!(login(GREETING, "FAIL\t1\tuser=ana\n", "ana@here.example").0, PasswordCheck::Rejected);
    }

    #[test]
    fn a_mailbox_exists_or_not_or_cannot_be_looked_up() {
        assert_eq!(exists("USER\t1\tana@xn--bcher-kva.example\tuid=8\n"), Ok(true));
        assert_eq!(exists("NOTFOUND\t1\n"), Ok(false));
        assert_eq!(exists("FAIL\t1\tdatabase is away\n"), Err("database is away".to_owned()));
    }

    #[test]
    fn a_failure_of_dovecot_is_not_a_wrong_password() {
        let endless = "x".repeat(2 * LINE_OCTETS_MAX);
        let chatter = "NEWS\n".repeat(LINES_MAX);
        for (greeting, answer, says) in [
            (GREETING, "FAIL\t1\ttemp\n", "Dovecot has trouble"),
            (GREETING, "OK\t9\tuser=eve@here.example\n", "unexpected"),
            (GREETING, "OK\t1\tuser=ana@here.example", "hung up"),
            (GREETING, "", "hung up"),
            (GREETING, endless.as_str(), "no end"),
            (GREETING, chatter.as_str(), "without a reply"),
        ] {
            let PasswordCheck::Unavailable(why) = login(greeting, answer, "ana@here.example").0 else {
                panic!("{says}")
            };
            assert!(why.contains(says) && !why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn a_silent_dovecot_is_waited_for_until_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("client")).unwrap();
        let PasswordCheck::Unavailable(why) =
            dovecot_auth(&dir, Duration::from_millis(50)).check_password("ana", b"x", CLIENT)
        else {
            panic!("the server sent nothing")
        };
        assert!(why.ends_with("client gives no answer: it took too long"), "{why}");
        drop(listener);
    }

    #[test]
    fn the_socket_made_for_postrider_is_tried_first() {
        let connector = Arc::new(ScriptedConnector::default());
        connector.add_peer("unix:/var/run/dovecot/auth-userdb", "! close");
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SeededRandom::new(1)));
        let dovecot = DovecotAuth::new(
            DovecotSettings::default(),
            Arc::clone(&connector) as _,
            clock,
            random,
            &Metrics::default(),
        );
        let why = dovecot.exists(&Mailbox::parse("ana@here.example").unwrap()).unwrap_err();
        assert_eq!(why, "unix:/var/run/dovecot/auth-userdb gives no answer: it hung up");
        let connected: Vec<_> = connector.finish().connected.iter().map(ToString::to_string).collect();
        assert_eq!(
            connected,
            [
                "unix:/run/dovecot/auth-postrider-userdb",
                "unix:/var/run/dovecot/auth-postrider-userdb",
                "unix:/run/dovecot/auth-userdb",
                "unix:/var/run/dovecot/auth-userdb",
            ]
        );
    }

    #[test]
    fn the_reason_why_a_socket_does_not_answer_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let problems = dovecot_auth(&dir, MINUTE).socket_problems();
        assert!(problems.len() == 2 && problems[0].contains("cannot log in"), "{problems:?}");
        assert!(problems[1].contains("userdb: ") && problems[1].contains("is put off"), "{problems:?}");
        let servers =
            [server(&dir, "client", GREETING, 2, ""), server(&dir, "userdb", USERDB_GREETING, 1, "")];
        assert!(dovecot_auth(&dir, MINUTE).socket_problems().is_empty());
        servers.iter().for_each(|server| drop(server.recv().unwrap()));
    }
}
