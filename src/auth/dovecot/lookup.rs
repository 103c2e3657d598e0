//! Connections to Dovecot, their deadlines, and where its sockets are.

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

/// Where Dovecot is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DovecotSettings {
    /// The client socket, for passwords. Without one it is looked for, at each question.
    pub client_socket: Option<PathBuf>,
    /// The userdb socket, for mailboxes. Without one it is looked for, at each question.
    pub userdb_socket: Option<PathBuf>,
    /// A question has an answer within this, or none. Default: 5 seconds.
    pub timeout: Duration,
}

impl Default for DovecotSettings {
    fn default() -> Self {
        Self { client_socket: None, userdb_socket: None, timeout: Duration::from_secs(5) }
    }
}

/// Where Dovecot keeps its sockets if nothing else is said.
const SOCKET_DIRECTORIES: [&str; 2] = ["/run/dovecot", "/var/run/dovecot"];
/// Made for us by the operator, and Dovecot's own, which it rarely lets us use.
const CLIENT_SOCKET_NAMES: [&str; 2] = ["auth-postrider-client", "auth-client"];
const USERDB_SOCKET_NAMES: [&str; 2] = ["auth-postrider-userdb", "auth-userdb"];

/// Longest line that is read, in octets: Dovecot's own bound.
const LINE_OCTETS_MAX: usize = 16_384;
/// Lines read on one connection. A greeting has a dozen.
const LINES_MAX: usize = 200;

/// A Dovecot on this host.
pub struct DovecotAuth {
    settings: DovecotSettings,
    dial: Arc<dyn Connector>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    requests: CounterFamily,
}

impl DovecotAuth {
    /// A Dovecot to ask; nothing is asked yet.
    #[must_use]
    pub fn new(
        settings: DovecotSettings,
        dial: Arc<dyn Connector>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        metrics: &Metrics,
    ) -> Self {
        let asked = metrics.counter_family("dovecot_asked", "Questions to Dovecot, by result", "result");
        Self { settings, dial, clock, random, requests: asked }
    }

    /// What keeps either socket from answering, a sentence each; nothing if both do.
    #[must_use]
    pub fn socket_problems(&self) -> Vec<String> {
        let client = self.connect_client_socket().map(drop).err();
        let userdb = self.connect_userdb_socket().map(drop).err();
        let said = [
            client.map(|why| format!("{why}; until it does, Dovecot's users cannot log in")),
            userdb.map(|why| format!("{why}; until it does, mail for Dovecot's users is put off")),
        ];
        said.into_iter().flatten().collect()
    }

    /// Asks whether this is the user; the user's name as Dovecot has it.
    fn request_auth(&self, name: &str, password: &[u8], client: IpAddr) -> Result<DovecotAuthReply, String> {
        let Some(question) = auth_request(name, password, client) else {
            return Ok(DovecotAuthReply::Rejected);
        };
        let mut lines = self.connect_client_socket()?;
        lines.send(&question)?;
        lines.read_until(DovecotAuthReply::parse)
    }

    fn request_user(&self, name: &str) -> Result<DovecotUserReply, String> {
        let Some(question) = user_request(name) else { return Ok(DovecotUserReply::NotFound) };
        let mut lines = self.connect_userdb_socket()?;
        lines.send(&question)?;
        lines.read_until(DovecotUserReply::parse)
    }

    /// A connection to the client socket, greeted.
    fn connect_client_socket(&self) -> Result<LineConnection, String> {
        let mut lines = self.connect(self.settings.client_socket.as_deref(), CLIENT_SOCKET_NAMES)?;
        // Two connections of one client would be one to Dovecot, and it takes their process ids for
        // that. So each has a number of its own, beyond those of processes.
        let cpid = u32::try_from(self.random.below(1 << 30)).unwrap_or_default() | 1 << 30;
        lines.send(&client_handshake(cpid))?;
        let mut handshake = DovecotHandshake::default();
        lines.read_until(|line| handshake.read_client_line(line).map(|is_done| is_done.then_some(())))?;
        Ok(lines)
    }

    /// A connection to the userdb socket, greeted.
    fn connect_userdb_socket(&self) -> Result<LineConnection, String> {
        let mut lines = self.connect(self.settings.userdb_socket.as_deref(), USERDB_SOCKET_NAMES)?;
        lines.send(&userdb_handshake())?;
        let mut handshake = DovecotHandshake::default();
        lines.read_until(|line| handshake.read_userdb_line(line).map(|is_done| is_done.then_some(())))?;
        Ok(lines)
    }

    /// The first socket that takes a connection, or why the most telling one does not.
    fn connect(&self, configured: Option<&Path>, names: [&str; 2]) -> Result<LineConnection, String> {
        let deadline = self.clock.now() + self.settings.timeout;
        let places: Vec<PathBuf> = match configured {
            Some(path) => vec![path.to_owned()],
            None => names
                .iter()
                .flat_map(|name| SOCKET_DIRECTORIES.map(|folder| Path::new(folder).join(name)))
                .collect(),
        };
        let mut why = None;
        for path in places {
            let place = Endpoint::Unix(path);
            match self.dial.connect(&place, deadline) {
                Ok(stream) => return Ok(LineConnection::new(stream, deadline, &place)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && configured.is_none() => {}
                Err(error) => drop(why.get_or_insert(format!("no connection to {place}: {error}"))),
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
    /// Dovecot is not asked who could: it may be away just now.
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
            // Dovecot may know the user by another name, and a user without a domain by a whole one.
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
            if matches!(login, PasswordCheck::Accepted(_)) { "right" } else { "wrong" }
        });
        answer.unwrap_or_else(PasswordCheck::Unavailable)
    }
}

/// How a mailbox of ours is called there.
fn dovecot_user_name(mailbox: &Mailbox) -> String {
    format!("{}@{}", mailbox.local_part.comparison_key(), mailbox.domain.as_ascii())
}

impl fmt::Debug for DovecotAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dovecot").field("settings", &self.settings).finish_non_exhaustive()
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

    /// Reads lines until one is what is waited for.
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
            .ok_or_else(|| format!("{}: it talks without giving an answer", self.socket))?;
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

    /// A Dovecot that says the first text, hears some lines, says the second and hangs up; what it has
    /// heard comes by the channel.
    fn server(dir: &TempDir, name: &str, first: &str, hears: usize, then: &str) -> Receiver<Vec<String>> {
        let listener = UnixListener::bind(dir.path().join(name)).unwrap();
        let (first, then) = (first.to_owned(), then.to_owned());
        let (tell, heard) = bounded(1);
        spawn("dovecot", move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(first.as_bytes()).unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            tell.send(lines.take(hears).map(Result::unwrap).collect()).unwrap();
            // Whoever has heard enough hangs up.
            let _ = stream.write_all(then.as_bytes());
        })
        .unwrap();
        heard
    }

    fn dovecot_auth(dir: &TempDir, deadline: Duration) -> DovecotAuth {
        let settings = DovecotSettings {
            client_socket: Some(dir.path().join("client")),
            userdb_socket: Some(dir.path().join("userdb")),
            timeout: deadline,
        };
        let (dial, clock, random) =
            (Arc::new(SystemConnector), Arc::new(SystemClock), Arc::new(SeededRandom::new(1)));
        DovecotAuth::new(settings, dial, clock, random, &Metrics::default())
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
    fn a_login_is_asked_as_plain_whoever_the_client_says_it_is() {
        let (answer, heard) =
            login(GREETING, "OK\t1\tuser=ana@xn--bcher-kva.example\n", "Ana@bücher.example");
        assert_eq!(answer, PasswordCheck::Accepted(Mailbox::parse("ana@bücher.example").unwrap()));
        let [version, cpid, question] = heard.as_slice() else { panic!("{heard:?}") };
        assert_eq!(version, "VERSION\t1\t1");
        let cpid: u32 = cpid.strip_prefix("CPID\t").unwrap().parse().unwrap();
        assert!(cpid > 1 << 22, "{cpid} may be a process");
        let (fields, response) = question.split_once("resp=").unwrap();
        assert_eq!(fields, "AUTH\t1\tPLAIN\tservice=smtp\tsecured\tno-penalty\trip=192.0.2.7\t");
        assert_eq!(response, "AGFuYUB4bi0tYmNoZXIta3ZhLmV4YW1wbGUAc2VjcmV0");
    }

    #[test]
    fn dovecot_may_know_a_user_by_another_name() {
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
    fn a_mailbox_is_there_or_not() {
        assert_eq!(exists("USER\t1\tana@xn--bcher-kva.example\tuid=8\n"), Ok(true));
        assert_eq!(exists("NOTFOUND\t1\n"), Ok(false));
        assert_eq!(exists("FAIL\t1\tdatabase is away\n"), Err("database is away".to_owned()));
    }

    #[test]
    fn trouble_is_never_a_wrong_password() {
        let endless = "x".repeat(2 * LINE_OCTETS_MAX);
        let chatter = "NEWS\n".repeat(LINES_MAX);
        for (greeting, answer, says) in [
            (GREETING, "FAIL\t1\ttemp\n", "Dovecot has trouble"),
            (GREETING, "OK\t9\tuser=eve@here.example\n", "unexpected"),
            (GREETING, "OK\t1\tuser=ana@here.example", "hung up"),
            (GREETING, "", "hung up"),
            (GREETING, endless.as_str(), "no end"),
            (GREETING, chatter.as_str(), "without giving an answer"),
        ] {
            let PasswordCheck::Unavailable(why) = login(greeting, answer, "ana@here.example").0 else {
                panic!("{says}")
            };
            assert!(why.contains(says) && !why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn who_says_nothing_is_not_waited_for_beyond_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("client")).unwrap();
        let PasswordCheck::Unavailable(why) =
            dovecot_auth(&dir, Duration::from_millis(50)).check_password("ana", b"x", CLIENT)
        else {
            panic!("an answer from nowhere")
        };
        assert!(why.ends_with("client gives no answer: it took too long"), "{why}");
        drop(listener);
    }

    #[test]
    fn a_socket_made_for_us_is_looked_for_first() {
        let dial = Arc::new(ScriptedConnector::default());
        dial.add_peer("unix:/var/run/dovecot/auth-userdb", "! close");
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SeededRandom::new(1)));
        let dovecot = DovecotAuth::new(
            DovecotSettings::default(),
            Arc::clone(&dial) as _,
            clock,
            random,
            &Metrics::default(),
        );
        let why = dovecot.exists(&Mailbox::parse("ana@here.example").unwrap()).unwrap_err();
        assert_eq!(why, "unix:/var/run/dovecot/auth-userdb gives no answer: it hung up");
        let dialled: Vec<_> = dial.finish().connected.iter().map(ToString::to_string).collect();
        assert_eq!(
            dialled,
            [
                "unix:/run/dovecot/auth-postrider-userdb",
                "unix:/var/run/dovecot/auth-postrider-userdb",
                "unix:/run/dovecot/auth-userdb",
                "unix:/var/run/dovecot/auth-userdb",
            ]
        );
    }

    #[test]
    fn what_keeps_a_socket_from_answering_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dovecot_auth(&dir, MINUTE).socket_problems();
        assert!(absent.len() == 2 && absent[0].contains("cannot log in"), "{absent:?}");
        assert!(absent[1].contains("userdb: ") && absent[1].contains("is put off"), "{absent:?}");
        let servers =
            [server(&dir, "client", GREETING, 2, ""), server(&dir, "userdb", USERDB_GREETING, 1, "")];
        assert!(dovecot_auth(&dir, MINUTE).socket_problems().is_empty());
        servers.iter().for_each(|server| drop(server.recv().unwrap()));
    }
}
