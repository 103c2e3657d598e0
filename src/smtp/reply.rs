//! One SMTP reply: made by our server, read by our client.
//!
//! RFC 5321 §4.2 for the form, RFC 2034 for the enhanced status at the head of each line.

use std::fmt;

use crate::mail::{Failure, Reason, printable};

/// An enhanced status code, `class.subject.detail` (RFC 3463 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnhancedStatus {
    /// 2, 4 or 5: always the first digit of the reply's code.
    pub class: u16,
    /// What it is about.
    pub subject: u16,
    /// What of it.
    pub detail: u16,
}

impl EnhancedStatus {
    /// Reads `class.subject.detail`.
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

/// A reply: a code, perhaps an enhanced status, and at least one line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// Written on every line; none on the greeting, on EHLO's and on 3yz replies (RFC 2034 §4).
    pub status: Option<EnhancedStatus>,
    /// Texts without code and line end; not empty. Printable.
    pub lines: Vec<String>,
}

/// What a peer sent is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Not three digits and a space or hyphen.
    #[error("the other side said {0:?}, which is no SMTP reply")]
    Malformed(String),
    /// More than [`Reply::LINES_MAX`] lines.
    #[error("the other side's reply does not end")]
    TooLong,
}

impl Reply {
    /// Lines of a peer's reply that we read; no EHLO in the world comes near it.
    pub const LINES_MAX: usize = 200;

    /// Characters that are kept of what a peer said.
    pub const TEXT_CHARACTERS_MAX: usize = 1000;

    /// One line with an enhanced status, of the class that the code has.
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

    /// The reply as it goes out, with CRLF line ends. Nothing in a text can end a line.
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

    /// Reads one reply from the lines of a peer, each without its line end; `None` until the last
    /// line is there. `lines` holds what came so far, and is empty again after a reply.
    ///
    /// # Errors
    /// [`ReplyError`]: the connection is of no more use.
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
            // RFC 5321 §4.2: a code without text is taken.
            None | Some(b' ') => {}
            Some(b'-') if lines.len() < Self::LINES_MAX => return Ok(None),
            Some(b'-') => return Err(ReplyError::TooLong),
            Some(_) => return Err(malformed()),
        }
        let mut status = None;
        let mut texts = Vec::with_capacity(lines.len());
        // RFC 5321 §4.2.1: the codes of all lines agree; where they do not, the last one counts.
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

    /// 2yz: done.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 5yz: never.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// To RCPT: this transaction has recipients enough, which says nothing of this one (RFC 5321
    /// §4.5.3.1.10). Some servers say 552 where they mean 452.
    #[must_use]
    pub fn is_too_many_recipients(&self) -> bool {
        matches!(self.code, 452 | 552)
            && self.status.is_none_or(|status| (status.subject, status.detail) == (5, 3))
    }

    /// What a peer said, on one line, for reports and logs; the first [`Self::SAID_MAX`] characters
    /// of it, because it is written down with every attempt.
    #[must_use]
    pub fn printable_text(&self) -> String {
        let text = self.lines.join(" ");
        let said = match self.status {
            Some(status) => format!("{} {status} {text}", self.code),
            None => format!("{} {text}", self.code),
        };
        match said.char_indices().nth(Self::TEXT_CHARACTERS_MAX) {
            Some((end, _)) => format!("{}…", said.get(..end).unwrap_or_default()),
            None => said,
        }
    }

    /// What a refusal means for the mail: a 5yz is permanent, everything else transient (a 2yz or
    /// 3yz where it has no place is trouble on the other side). `host` said it, when we `asked`.
    #[must_use]
    pub fn to_failure(&self, host: &str, asked: &str) -> Failure {
        let (subject, detail) =
            self.status.map_or_else(|| default_status(self.code), |s| (s.subject, s.detail));
        let reason = Reason::new(subject, detail, format!("refused {asked}"))
            .with_response(host, self.printable_text());
        if self.is_permanent() { Failure::Permanent(reason) } else { Failure::Transient(reason) }
    }
}

/// Subject and detail for a peer that gives no enhanced status (RFC 5248 §3, by habit).
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
    fn a_reply_is_read_as_it_was_written() {
        let reply = Reply { lines: vec!["one".into(), "two".into()], ..Reply::new(550, 1, 1, "") };
        let octets = reply.to_octets();
        assert_eq!(octets, b"550-5.1.1 one\r\n550 5.1.1 two\r\n");
        assert_eq!(read(&["550-5.1.1 one"]), Ok(None));
        assert_eq!(read(&["550-5.1.1 one", "550 5.1.1 two"]), Ok(Some(reply)));
    }

    #[test]
    fn nothing_in_a_text_ends_a_line() {
        assert_eq!(Reply::new(550, 1, 1, "a\r\n250 ok").to_octets(), b"550 5.1.1 a  250 ok\r\n");
    }

    #[test]
    fn what_is_no_reply_is_an_error_and_what_barely_is_one_is_taken() {
        for line in ["", "25", "2xx ok", "199 no", "600 no", "250xok", "+OK"] {
            assert!(read(&[line]).is_err(), "{line}");
        }
        assert_eq!(read(&["250"]).unwrap().unwrap().code, 250);
        let odd = read(&["550 4.1.1 class and code disagree"]).unwrap().unwrap();
        assert_eq!(odd.status, None, "the code counts");
    }

    #[test]
    fn a_peers_words_are_kept_within_a_bound() {
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
