//! An SMTP reply, of this server or of a peer.
//!
//! RFC 5321 §4.2 for the form, RFC 2034 for the enhanced status at the start of each line.

use std::fmt;

use crate::mail::{Failure, Reason, printable};

/// An enhanced status code, `class.subject.detail` (RFC 3463 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnhancedStatus {
    /// 2, 4 or 5: the first digit of the code of the reply.
    pub class: u16,
    /// The subject (RFC 3463 §3), such as 1 for addresses.
    pub subject: u16,
    /// The detail, within the subject.
    pub detail: u16,
}

impl EnhancedStatus {
    /// Parses `class.subject.detail`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let mut groups = word.splitn(3, '.').map(|group| {
            let is_number =
                !group.is_empty() && group.len() <= 3 && group.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| group.parse::<u16>().ok()).flatten()
        });
        let (class, subject, detail) = (groups.next()??, groups.next()??, groups.next()??);
        matches!(class, 2 | 4 | 5).then_some(Self { class, subject, detail })
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// A reply: a code, an enhanced status on most replies, and at least one line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// Written on every line. `None` on the greeting, on the replies to HELO and EHLO, and on 3yz replies
    /// (RFC 2034 §4).
    pub status: Option<EnhancedStatus>,
    /// Printable texts, without code and line end; not empty.
    pub lines: Vec<String>,
}

/// Why the octets of a peer are not a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line does not begin with a code and a space or hyphen.
    #[error("the other side said {0:?}, which is no SMTP reply")]
    Malformed(String),
    /// The reply has more than [`Reply::LINES_MAX`] lines, or more octets than are read.
    #[error("the other side's reply does not end")]
    TooLong,
}

impl Reply {
    /// Most lines that are read of one reply. A reply to EHLO has about twenty.
    pub const LINES_MAX: usize = 200;

    /// Most characters that are kept of a peer's text.
    pub const TEXT_CHARACTERS_MAX: usize = 1000;

    /// One line with an enhanced status of the same class as the code.
    #[must_use]
    pub fn new(code: u16, subject: u16, detail: u16, text: impl Into<String>) -> Self {
        let status = EnhancedStatus { class: code / 100, subject, detail };
        Self { code, status: Some(status), lines: vec![text.into()] }
    }

    /// One line without an enhanced status: the greeting, 334, 354.
    #[must_use]
    pub fn plain(code: u16, text: impl Into<String>) -> Self {
        Self { code, status: None, lines: vec![text.into()] }
    }

    /// The reply on the wire, with CRLF line ends. A control character in a text becomes a space, so that
    /// it cannot end a line.
    #[must_use]
    pub fn to_octets(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(self.lines.iter().map(|line| line.len() + 16).sum());
        for (n, line) in self.lines.iter().enumerate() {
            let hyphen = if n + 1 < self.lines.len() { '-' } else { ' ' };
            let text: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let head = match self.status {
                Some(status) => format!("{}{hyphen}{status} {text}", self.code),
                None => format!("{}{hyphen}{text}", self.code),
            };
            octets.extend_from_slice(head.as_bytes());
            octets.extend_from_slice(b"\r\n");
        }
        octets
    }

    /// Reads one reply of a peer from lines without their line ends; `None` until the last line is there.
    /// `lines` holds what came so far, and is empty after a complete reply.
    ///
    /// # Errors
    /// [`ReplyError`]: the connection must be closed.
    pub fn read(lines: &mut Vec<Vec<u8>>) -> Result<Option<Self>, ReplyError> {
        let Some(last) = lines.last() else { return Ok(None) };
        let malformed = || ReplyError::Malformed(printable(last, 200));
        let (digits, rest) = last.split_at_checked(3).ok_or_else(malformed)?;
        let code = std::str::from_utf8(digits)
            .ok()
            .and_then(|text| text.parse::<u16>().ok())
            .ok_or_else(malformed)?;
        if !(200..600).contains(&code) {
            return Err(malformed());
        }
        match rest.first() {
            // RFC 5321 §4.2: a code without text is accepted.
            None | Some(b' ') => {}
            Some(b'-') if lines.len() < Self::LINES_MAX => return Ok(None),
            Some(b'-') => return Err(ReplyError::TooLong),
            Some(_) => return Err(malformed()),
        }
        let mut status = None;
        let mut texts = Vec::with_capacity(lines.len());
        // RFC 5321 §4.2.1: all lines have the same code; if they do not, that of the last line counts.
        for line in lines.drain(..) {
            let text = printable(line.get(4..).unwrap_or_default(), 1000);
            let (word, rest) = text.split_once(' ').unwrap_or((text.as_str(), ""));
            match EnhancedStatus::parse(word) {
                Some(found) if found.class == code / 100 => {
                    status = Some(found);
                    texts.push(rest.to_owned());
                }
                _ => texts.push(text),
            }
        }
        Ok(Some(Self { code, status, lines: texts }))
    }

    /// A 2yz reply.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// A 5yz reply.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// A reply to RCPT that means: too many recipients in this transaction (RFC 5321 §4.5.3.1.10). It says
    /// nothing about this recipient. Some servers send 552 instead of 452.
    #[must_use]
    pub fn is_too_many_recipients(&self) -> bool {
        matches!(self.code, 452 | 552)
            && self.status.is_none_or(|status| (status.subject, status.detail) == (5, 3))
    }

    /// The text of a peer on one line, for bounces and logs. At most [`Self::TEXT_CHARACTERS_MAX`]
    /// characters, because it is stored with every attempt.
    #[must_use]
    pub fn printable_text(&self) -> String {
        let text = self.lines.join(" ");
        let shown = match self.status {
            Some(status) => format!("{} {status} {text}", self.code),
            None => format!("{} {text}", self.code),
        };
        match shown.char_indices().nth(Self::TEXT_CHARACTERS_MAX) {
            Some((end, _)) => format!("{}…", shown.get(..end).unwrap_or_default()),
            None => shown,
        }
    }

    /// What a refusal by `host` of `asked` means for the message: a 5yz is permanent, everything else
    /// transient. A 2yz or 3yz in a wrong place is a fault of the host.
    #[must_use]
    pub fn to_failure(&self, host: &str, asked: &str) -> Failure {
        let (subject, detail) =
            self.status.map_or_else(|| default_status(self.code), |s| (s.subject, s.detail));
        let reason = Reason::new(subject, detail, format!("refused {asked}"))
            .with_response(host, self.printable_text());
        if self.is_permanent() { Failure::Permanent(reason) } else { Failure::Transient(reason) }
    }
}

/// Subject and detail for a peer that sends no enhanced status (RFC 5248 §3, and common practice).
fn default_status(code: u16) -> (u16, u16) {
    match code {
        450 | 550 => (2, 0),
        452 | 552 => (2, 2),
        551 => (1, 6),
        553 => (1, 3),
        500..=504 | 555 => (5, 0),
        421 => (3, 2),
        451 => (3, 0),
        _ => (0, 0),
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.printable_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Result<Option<Reply>, ReplyError> {
        Reply::read(&mut lines.iter().map(|line| line.as_bytes().to_vec()).collect())
    }

    #[test]
    fn a_written_reply_is_read_back() {
        let reply = Reply { lines: vec!["one".into(), "two".into()], ..Reply::new(550, 1, 1, "") };
        let octets = reply.to_octets();
        assert_eq!(octets, b"550-5.1.1 one\r\n550 5.1.1 two\r\n");
        assert_eq!(read(&["550-5.1.1 one"]), Ok(None));
        assert_eq!(read(&["550-5.1.1 one", "550 5.1.1 two"]), Ok(Some(reply)));
    }

    #[test]
    fn a_text_cannot_end_a_line() {
        assert_eq!(Reply::new(550, 1, 1, "a\r\n250 ok").to_octets(), b"550 5.1.1 a  250 ok\r\n");
    }

    #[test]
    fn an_invalid_reply_is_an_error_and_an_unusual_one_is_read() {
        for line in ["", "25", "2xx ok", "199 no", "600 no", "250xok", "+OK"] {
            assert!(read(&[line]).is_err(), "{line}");
        }
        assert_eq!(read(&["250"]).unwrap().unwrap().code, 250);
        let odd = read(&["550 4.1.1 class and code disagree"]).unwrap().unwrap();
        assert_eq!(odd.status, None, "the code counts");
    }

    #[test]
    fn the_text_of_a_peer_is_shortened() {
        let line = format!("450-{}", "é".repeat(900));
        let reply = read(&[&line, &line, "450 end"]).unwrap().unwrap();
        assert_eq!(reply.printable_text().chars().count(), Reply::TEXT_CHARACTERS_MAX + 1);
    }

    #[test]
    fn only_5yz_is_permanent() {
        assert!(matches!(
            read(&["550 no"]).unwrap().unwrap().to_failure("mx", "RCPT"),
            Failure::Permanent(_)
        ));
        for line in ["450 4.2.1 later", "354 odd", "250 odd"] {
            assert!(matches!(
                read(&[line]).unwrap().unwrap().to_failure("mx", "RCPT"),
                Failure::Transient(_)
            ));
        }
    }
}
