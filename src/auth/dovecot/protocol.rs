//! The lines of the authentication sockets of Dovecot.
//!
//! Pure: parses lines without their ends, and formats requests. Words are separated by tabs; a tab in a word is
//! escaped with 0x01. Lines that begin with an unknown word are ignored, as the protocol requires.
//!
//! Standards: the auth client protocol 1.1 of Dovecot, and USER of its master protocol.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::mail::printable;

/// The major version of both protocols; all its minor versions are compatible.
const VERSION: &str = "1";

/// The handshake of the server, on both sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DovecotHandshake {
    has_version: bool,
    offers_plain: bool,
}

/// The reply to a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DovecotAuthReply {
    /// The password is right; the name of the user in Dovecot, if the reply has it.
    Accepted(Option<String>),
    /// There is no such user, or the password is wrong.
    Rejected,
    /// Dovecot could not find out; its reason, printable in a log.
    Unavailable(String),
}

/// The reply to a lookup of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DovecotUserReply {
    /// The user exists.
    Found,
    /// There is no such user.
    NotFound,
    /// Dovecot could not find out; its reason, printable in a log.
    Unavailable(String),
}

/// The server on the socket does not speak the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DovecotProtocolError {
    /// Another protocol, or an unknown version of this one.
    #[error("it speaks another protocol: {0}")]
    Version(String),
    /// The server does not offer PLAIN, so that no login can be checked.
    #[error("it does not offer PLAIN: add `plain` to Dovecot's auth_mechanisms")]
    PlainNotOffered,
    /// A reply that does not belong to the request.
    #[error("an unexpected answer: {0}")]
    Unexpected(String),
}

impl DovecotHandshake {
    /// Reads a handshake line of the client socket; true for the last one.
    ///
    /// # Errors
    /// Logins cannot be checked here.
    pub fn read_client_line(&mut self, line: &[u8]) -> Result<bool, DovecotProtocolError> {
        let words = self.versioned_words(line)?;
        match words.as_slice() {
            [b"MECH", b"PLAIN", ..] => self.offers_plain = true,
            [b"DONE", ..] if !self.offers_plain => return Err(DovecotProtocolError::PlainNotOffered),
            [b"DONE", ..] => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    /// Reads a handshake line of the userdb socket; true for the last one.
    ///
    /// # Errors
    /// Users cannot be looked up here.
    pub fn read_userdb_line(&mut self, line: &[u8]) -> Result<bool, DovecotProtocolError> {
        let words = self.versioned_words(line)?;
        match words.first() {
            Some(&b"SPID") => Ok(true),
            // Only a client socket lists mechanisms.
            Some(&b"MECH") => Err(unexpected(line)),
            _ => Ok(false),
        }
    }

    /// The words of a line; the first line must be the version.
    fn versioned_words<'a>(&mut self, line: &'a [u8]) -> Result<Vec<&'a [u8]>, DovecotProtocolError> {
        let words = split_words(line);
        match words.as_slice() {
            [b"VERSION", major, ..] if *major == VERSION.as_bytes() => self.has_version = true,
            _ if self.has_version => {}
            _ => return Err(DovecotProtocolError::Version(printable_line(line))),
        }
        Ok(words)
    }
}

impl DovecotAuthReply {
    /// Parses a line; `None` if it is not a reply.
    ///
    /// # Errors
    /// The line is a reply to another request.
    pub fn parse(line: &[u8]) -> Result<Option<Self>, DovecotProtocolError> {
        let words = split_words(line);
        let [command, id, values @ ..] = words.as_slice() else { return Ok(None) };
        let answer = match *command {
            // The password is right, but the user may not log in, or only on another host.
            b"OK" if has_word(values, "nologin") || has_word(values, "proxy") => Self::Rejected,
            b"OK" => Self::Accepted(value(values, b"user=")),
            b"FAIL" if has_word(values, "temp") || values.contains(&b"code=temp_fail".as_slice()) => {
                Self::Unavailable(reason(values))
            }
            b"FAIL" => Self::Rejected,
            // PLAIN needs no second response.
            b"CONT" => return Err(unexpected(line)),
            _ => return Ok(None),
        };
        if is_request_id(id) { Ok(Some(answer)) } else { Err(unexpected(line)) }
    }
}

impl DovecotUserReply {
    /// Parses a line; `None` if it is not a reply.
    ///
    /// # Errors
    /// The line is a reply to another request.
    pub fn parse(line: &[u8]) -> Result<Option<Self>, DovecotProtocolError> {
        let words = split_words(line);
        let [command, id, values @ ..] = words.as_slice() else { return Ok(None) };
        let answer = match *command {
            b"USER" => Self::Found,
            b"NOTFOUND" => Self::NotFound,
            b"FAIL" => Self::Unavailable(reason(values)),
            _ => return Ok(None),
        };
        if is_request_id(id) { Ok(Some(answer)) } else { Err(unexpected(line)) }
    }
}

/// The id of the only request on a connection.
const REQUEST_ID: &str = "1";

/// The handshake of the client on the client socket; no other client may have the same `cpid`.
pub(super) fn client_handshake(cpid: u32) -> String {
    format!("VERSION\t{VERSION}\t1\nCPID\t{cpid}\n")
}

/// The handshake of the client on the userdb socket.
pub(super) fn userdb_handshake() -> String {
    format!("VERSION\t{VERSION}\t1\n")
}

/// The request to check a password of a client with this address; `None` if name or password cannot be sent, so
/// that the login is wrong.
pub(super) fn auth_request(name: &str, password: &[u8], client: IpAddr) -> Option<String> {
    if !is_valid_user_name(name) || password.len() > PASSWORD_OCTETS_MAX || password.contains(&0) {
        return None;
    }
    // RFC 4616 §2.
    let response = STANDARD.encode([b"\0", name.as_bytes(), b"\0", password].concat());
    // `secured`: the client has sent the password by TLS. `no-penalty`: postrider delays clients that guess, and
    // a delay of Dovecot would exceed the timeout. `rip`: for the log and allow_nets of Dovecot. `resp=` must be
    // the last field.
    Some(format!(
        "AUTH\t{REQUEST_ID}\tPLAIN\tservice=smtp\tsecured\tno-penalty\trip={client}\tresp={response}\n"
    ))
}

/// The request to look a user up; `None` if the name cannot be sent, so that there is no such user.
pub(super) fn user_request(name: &str) -> Option<String> {
    is_valid_user_name(name).then(|| format!("USER\t{REQUEST_ID}\t{name}\tservice=smtp\n"))
}

/// Longest name that is sent, in octets: that of an address (RFC 5321 §4.5.3.1.3).
const NAME_OCTETS_MAX: usize = 254;
/// Longest password in octets: with the name, in base64, it fits into a line of 8192 octets, Dovecot's limit.
const PASSWORD_OCTETS_MAX: usize = 4096;

/// Whether the name is one word of the protocol, without characters that must be escaped.
fn is_valid_user_name(name: &str) -> bool {
    let is_word = |c: char| !c.is_whitespace() && !c.is_control();
    !name.is_empty() && name.len() <= NAME_OCTETS_MAX && name.chars().all(is_word)
}

fn split_words(line: &[u8]) -> Vec<&[u8]> {
    line.split(|octet| *octet == b'\t').collect()
}

fn is_request_id(id: &[u8]) -> bool {
    id == REQUEST_ID.as_bytes()
}

/// Whether the word is there, with or without a value.
fn has_word(values: &[&[u8]], word: &str) -> bool {
    let is_it = |value: &&[u8]| {
        let rest = value.strip_prefix(word.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
    };
    values.iter().any(is_it)
}

/// The value after `key`, unescaped; `None` if it is missing or is not UTF-8.
fn value(values: &[&[u8]], key: &[u8]) -> Option<String> {
    let raw = values.iter().find_map(|value| value.strip_prefix(key))?;
    let mut octets = Vec::with_capacity(raw.len());
    let mut rest = raw.iter();
    while let Some(&octet) = rest.next() {
        octets.push(match octet {
            0x01 => match rest.next()? {
                b'0' => 0,
                b'1' => 0x01,
                b't' => b'\t',
                b'n' => b'\n',
                b'r' => b'\r',
                other => *other,
            },
            octet => octet,
        });
    }
    String::from_utf8(octets).ok()
}

/// The reason of a failure: `reason=` on the client socket, a word without a key on the userdb socket.
fn reason(values: &[&[u8]]) -> String {
    let text = value(values, b"reason=").or_else(|| {
        let word = values.iter().find(|word| !word.contains(&b'=') && **word != b"temp")?;
        value(&[word], b"")
    });
    text.map_or_else(|| "Dovecot has trouble; see its log".to_owned(), |text| printable_line(text.as_bytes()))
}

fn unexpected(line: &[u8]) -> DovecotProtocolError {
    DovecotProtocolError::Unexpected(printable_line(line))
}

fn printable_line(octets: &[u8]) -> String {
    printable(octets, 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn handshake(
        lines: &str,
        read: fn(&mut DovecotHandshake, &[u8]) -> Result<bool, DovecotProtocolError>,
    ) -> Result<bool, String> {
        let mut handshake = DovecotHandshake::default();
        let mut is_done = false;
        for line in lines.lines() {
            assert!(!is_done, "{line} comes after the end");
            is_done = read(&mut handshake, line.as_bytes()).map_err(|error| error.to_string())?;
        }
        Ok(is_done)
    }

    #[test]
    fn the_handshake_of_each_socket_is_parsed() {
        let client = "VERSION\t1\t2\nMECH\tLOGIN\tplaintext\nMECH\tPLAIN\tplaintext\nSPID\t6091\nCUID\t1\nCOOKIE\t4cd5\nNEWS\nDONE";
        assert_eq!(handshake(client, DovecotHandshake::read_client_line), Ok(true));
        assert_eq!(handshake("VERSION\t1\t1\nSPID\t6091", DovecotHandshake::read_userdb_line), Ok(true));
        assert_eq!(handshake("VERSION\t1\t1\nMECH\tPLAIN", DovecotHandshake::read_client_line), Ok(false));
    }

    #[test]
    fn another_protocol_is_refused() {
        let other = ["VERSION\t2\t0\nDONE", "220 mail.here.example ESMTP", "", "MECH\tPLAIN\nVERSION\t1\t1"];
        for lines in other {
            let error = handshake(&format!("{lines}\n\n"), DovecotHandshake::read_client_line).unwrap_err();
            assert!(error.contains("another protocol"), "{error}");
        }
        let no_plain =
            handshake("VERSION\t1\t2\nMECH\tGSSAPI\nDONE", DovecotHandshake::read_client_line).unwrap_err();
        assert!(no_plain.contains("auth_mechanisms"), "{no_plain}");
        let swapped =
            handshake("VERSION\t1\t2\nMECH\tPLAIN", DovecotHandshake::read_userdb_line).unwrap_err();
        assert!(swapped.contains("unexpected"), "{swapped}");
    }

    fn login(line: &[u8]) -> Option<DovecotAuthReply> {
        DovecotAuthReply::parse(line).unwrap()
    }

    #[test]
    fn a_login_is_accepted_rejected_or_cannot_be_checked() {
        let right = |user: &str| Some(DovecotAuthReply::Accepted(Some(user.to_owned())));
        assert_eq!(
            login(b"OK\t1\tuser=ana@here.example\toriginal_user=ANA@here.example"),
            right("ana@here.example")
        );
        assert_eq!(login(b"OK\t1\tx\tuser=a\x01tb"), right("a\tb"));
        assert_eq!(login(b"OK\t1\tuser=a\x01b\tnologins"), right("ab"));
        for nameless in [b"OK\t1".as_slice(), b"OK\t1\tuser=\xff", b"OK\t1\tuser=a\x01"] {
            assert_eq!(login(nameless), Some(DovecotAuthReply::Accepted(None)));
        }
        for wrong in [
            b"OK\t1\tuser=ana@here.example\tnologin".as_slice(),
            b"OK\t1\tuser=ana@here.example\tnologin=\treason=moved",
            b"OK\t1\tproxy=y\tuser=ana@here.example\thost=192.0.2.1",
            b"FAIL\t1\tuser=ana@here.example",
            b"FAIL\t1",
            b"FAIL\t1\tuser_disabled\tcode=user_disabled",
        ] {
            assert_eq!(login(wrong), Some(DovecotAuthReply::Rejected));
        }
        for (line, why) in [
            (b"FAIL\t1\tuser=ana\ttemp".as_slice(), "Dovecot has trouble; see its log"),
            (b"FAIL\t1\tcode=temp_fail\treason=no\x01nentry", "no\\x0aentry"),
        ] {
            assert_eq!(login(line), Some(DovecotAuthReply::Unavailable(why.to_owned())));
        }
        for other in [b"".as_slice(), b"OK", b"COOKIE\t1", b"ok\t1"] {
            assert_eq!(login(other), None);
        }
        for strange in [b"OK\t2\tuser=ana@here.example".as_slice(), b"FAIL\t", b"CONT\t1\t"] {
            assert!(DovecotAuthReply::parse(strange).is_err());
        }
    }

    #[test]
    fn a_user_is_found_not_found_or_cannot_be_looked_up() {
        let read = |line: &[u8]| DovecotUserReply::parse(line).unwrap();
        assert_eq!(read(b"USER\t1\tana@here.example\tuid=8\thome=/x"), Some(DovecotUserReply::Found));
        assert_eq!(read(b"NOTFOUND\t1"), Some(DovecotUserReply::NotFound));
        let trouble = |why: &str| Some(DovecotUserReply::Unavailable(why.to_owned()));
        assert_eq!(read(b"FAIL\t1\tpermission denied"), trouble("permission denied"));
        assert_eq!(read(b"FAIL\t1\treason=later"), trouble("later"));
        assert_eq!(read(b"FAIL\t1"), trouble("Dovecot has trouble; see its log"));
        assert_eq!(read(b"SPID\t1"), None);
        assert!(DovecotUserReply::parse(b"USER\t7\tana@here.example").is_err());
    }

    #[test]
    fn a_name_that_is_more_than_one_word_is_never_sent() {
        let long = "x".repeat(NAME_OCTETS_MAX + 1);
        for name in ["", "a b", "a\tb", "a\nUSER\t2\tb", "a\u{1}tb", "a\u{2028}b", "a\u{a0}b", "a\0b", &long]
        {
            assert_eq!(user_request(name), None, "{name:?}");
            assert_eq!(auth_request(name, b"secret", CLIENT), None, "{name:?}");
        }
        assert_eq!(user_request("ana@here.example").unwrap(), "USER\t1\tana@here.example\tservice=smtp\n");
    }

    #[test]
    fn a_request_is_one_line_that_dovecot_accepts() {
        let name = "x".repeat(NAME_OCTETS_MAX);
        let request = auth_request(&name, &[b'\n'; PASSWORD_OCTETS_MAX], CLIENT).unwrap();
        assert!(request.len() < 8192 && request.matches('\n').count() == 1, "{}", request.len());
        assert!(auth_request("ana", b"secret", CLIENT).unwrap().ends_with("\tresp=AGFuYQBzZWNyZXQ=\n"));
        assert_eq!(auth_request("ana", b"a\0b", CLIENT), None);
        assert_eq!(auth_request("ana", &[b'x'; PASSWORD_OCTETS_MAX + 1], CLIENT), None);
    }
}
