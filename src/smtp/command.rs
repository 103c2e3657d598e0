//! Parses a command line.
//!
//! The grammar is that of RFC 5321 §4.1.1; exceptions are marked. A mistake becomes the [`Reply`] that
//! names it. Whether a command may come now is decided by `server`.

use crate::mail::{
    Domain, DomainError, ForwardPath, Mailbox, MailboxError, ReversePath, printable, split_outside_quotes,
};

use super::parameters::{MailParameters, RecipientParameters, size};
use super::reply::Reply;
use super::reply_table::{self as table, FixedReply};

/// A command with checked arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// HELO, from a client without extensions.
    Helo(HelloName),
    /// EHLO.
    Ehlo(HelloName),
    /// MAIL.
    Mail {
        /// Where failures are reported.
        reverse_path: ReversePath,
        /// The parameters.
        parameters: MailParameters,
        /// No octet of the path is above 127; otherwise SMTPUTF8 is needed.
        is_ascii: bool,
    },
    /// RCPT.
    Rcpt {
        /// The recipient.
        forward_path: ForwardPath,
        /// The parameters.
        parameters: RecipientParameters,
        /// No octet of the path or of ORCPT is above 127; otherwise SMTPUTF8 is needed.
        is_ascii: bool,
    },
    /// DATA.
    Data,
    /// BDAT (RFC 3030 §2): a chunk of the message follows the line end.
    Bdat {
        /// Length of the chunk in octets; a number that does not fit into 64 bits becomes the largest one.
        octets: u64,
        /// The chunk is the last one of the message.
        is_last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP; its argument is ignored.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY; the server does not say which addresses exist.
    Vrfy,
    /// EXPN; the server does not say which addresses are behind a name.
    Expn,
    /// HELP.
    Help,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth {
        /// Name of the mechanism in upper case.
        mechanism: String,
        /// The initial response in base64; empty if the client sent `=` (RFC 4954 §4).
        initial: Option<String>,
    },
    /// The first line of an HTTP request, from a browser.
    Http,
}

/// The name in HELO or EHLO: printable, at most [`HelloName::OCTETS_MAX`] octets.
///
/// It need not be a domain, because nothing depends on it: RFC 5321 §4.1.4 forbids to refuse mail because
/// the name does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloName(String);

impl HelloName {
    /// The longest name that is kept, in octets: the longest domain.
    pub const OCTETS_MAX: usize = 255;

    fn parse(raw: &str) -> Self {
        Self(printable(raw.as_bytes(), Self::OCTETS_MAX))
    }

    /// The name, for the log and for Received.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a domain or address literal, if it is one.
    #[must_use]
    pub fn domain(&self) -> Option<Domain> {
        Domain::parse(&self.0).ok()
    }
}

impl Command {
    /// The verb of a line, for counters: one of a fixed set, whatever the client sends.
    #[must_use]
    pub fn verb(line: &[u8]) -> &'static str {
        let word = line.split(|octet| matches!(octet, b' ' | b'\t')).next().unwrap_or_default();
        let is = |verb: &&&str| verb.as_bytes().eq_ignore_ascii_case(word);
        VERBS.iter().find(is).copied().unwrap_or("other")
    }

    /// The line as it may be logged: printable, on one line, without a password.
    #[must_use]
    pub fn printable_line(line: &[u8]) -> String {
        match Self::verb(line) {
            "AUTH" => {}
            // A client that did not wait for the refusal of its AUTH sends its response next, and passwords
            // can be short: four octets are enough to recognise HTTP or TLS.
            "other" => return printable(line, 4),
            // A trace holds many lines.
            _ => return printable(line, 200),
        }
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let mechanism = words.nth(1).map(|word| printable(word, 20));
        match (mechanism, words.next()) {
            (Some(mechanism), Some(_)) => format!("AUTH {mechanism} (response not shown)"),
            (Some(mechanism), None) => format!("AUTH {mechanism}"),
            (None, _) => "AUTH".to_owned(),
        }
    }

    /// Parses a line without its line end.
    ///
    /// # Errors
    /// The reply that names the mistake: 500, 501 or 555.
    pub fn parse(line: &[u8]) -> Result<Self, Reply> {
        let text = std::str::from_utf8(line).map_err(|_| table::UNKNOWN_COMMAND)?;
        if text.contains(|c: char| c.is_control() && c != '\t') {
            return Err(table::CONTROL_CHARACTER.into());
        }
        // RFC 5321 §4.1.1: white space before the line end is tolerated.
        let text = text.trim_end_matches([' ', '\t']);
        let (verb, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        let rest = rest.trim_start_matches(' ');
        match verb.to_ascii_uppercase().as_str() {
            "HELO" => hello(rest, table::HELO_SYNTAX).map(Self::Helo),
            "EHLO" => hello(rest, table::EHLO_SYNTAX).map(Self::Ehlo),
            "MAIL" => mail(rest),
            "RCPT" => rcpt(rest),
            "DATA" => without_argument(rest, Self::Data),
            "BDAT" => bdat(rest),
            "RSET" => without_argument(rest, Self::Rset),
            "QUIT" => without_argument(rest, Self::Quit),
            // RFC 3207 §4: an argument is refused with 501.
            "STARTTLS" => without_argument(rest, Self::StartTls),
            "NOOP" => Ok(Self::Noop),
            "HELP" => Ok(Self::Help),
            "VRFY" if rest.is_empty() => Err(table::VRFY_SYNTAX.into()),
            "VRFY" => Ok(Self::Vrfy),
            "EXPN" => Ok(Self::Expn),
            "AUTH" => auth(rest),
            "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" | "CONNECT" | "TRACE" => {
                Ok(Self::Http)
            }
            _ => Err(table::UNKNOWN_COMMAND.into()),
        }
    }
}

const VERBS: &[&str] = &[
    "HELO", "EHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "EXPN", "HELP",
    "STARTTLS", "AUTH",
];

fn without_argument(rest: &str, command: Command) -> Result<Command, Reply> {
    if rest.is_empty() { Ok(command) } else { Err(table::NO_ARGUMENT.into()) }
}

/// Departs from RFC 5321 §4.1.1.1: a name with underscores, or with words after it, is accepted. Such names
/// are common, and nothing depends on them.
fn hello(rest: &str, missing: FixedReply) -> Result<HelloName, Reply> {
    match rest.split_ascii_whitespace().next() {
        Some(word) => Ok(HelloName::parse(word)),
        None => Err(missing.into()),
    }
}

fn auth(rest: &str) -> Result<Command, Reply> {
    let mut words = rest.split_ascii_whitespace();
    let (Some(mechanism), initial, None) = (words.next(), words.next(), words.next()) else {
        return Err(table::AUTH_SYNTAX.into());
    };
    // RFC 4954 §4: "=" is an empty initial response.
    let initial = initial.map(|word| if word == "=" { String::new() } else { word.to_owned() });
    Ok(Command::Auth { mechanism: mechanism.to_ascii_uppercase(), initial })
}

fn bdat(rest: &str) -> Result<Command, Reply> {
    let mut words = rest.split_ascii_whitespace();
    let octets = words.next().and_then(size);
    let is_last = match words.next() {
        None => Some(false),
        Some(word) => word.eq_ignore_ascii_case("LAST").then_some(true),
    };
    match (octets, is_last, words.next()) {
        (Some(octets), Some(is_last), None) => Ok(Command::Bdat { octets, is_last }),
        _ => Err(table::BDAT_SYNTAX.into()),
    }
}

/// Which path is parsed: the enhanced statuses differ (RFC 3463 §3.2).
#[derive(Clone, Copy)]
enum PathKind {
    Sender,
    Recipient,
}

fn mail(rest: &str) -> Result<Command, Reply> {
    let (path, words) = split_path(rest, "FROM:").ok_or(table::MAIL_SYNTAX)?;
    let parameters = MailParameters::parse(words)?;
    let reverse_path = match path {
        "" => ReversePath::Null,
        path => ReversePath::Mailbox(mailbox(path, PathKind::Sender)?),
    };
    Ok(Command::Mail { reverse_path, parameters, is_ascii: path.is_ascii() })
}

fn rcpt(rest: &str) -> Result<Command, Reply> {
    let (path, words) = split_path(rest, "TO:").ok_or(table::RCPT_SYNTAX)?;
    let parameters = RecipientParameters::parse(words)?;
    // RFC 5321 §4.1.1.3: the one address that needs no domain, in any case.
    let forward_path = if path.eq_ignore_ascii_case("postmaster") {
        ForwardPath::Postmaster
    } else {
        ForwardPath::Mailbox(mailbox(path, PathKind::Recipient)?)
    };
    let is_ascii = path.is_ascii() && parameters.orcpt.as_ref().is_none_or(|orcpt| orcpt.is_ascii());
    Ok(Command::Rcpt { forward_path, parameters, is_ascii })
}

/// Splits `FROM:<path> parameters` into the path and the parameters.
fn split_path<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let (head, path) = rest.split_at_checked(keyword.len())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return None;
    }
    // Departs from RFC 5321 §4.1.1.2, which allows no space here: common clients send one.
    let inside = path.strip_prefix(' ').unwrap_or(path).strip_prefix('<')?;
    let (path, behind) = split_outside_quotes(inside, |c| c == '>')?;
    (behind.is_empty() || behind.starts_with(' ')).then_some((path, behind))
}

fn mailbox(path: &str, whose: PathKind) -> Result<Mailbox, Reply> {
    let refused = |error: &MailboxError| {
        let detail = match (whose, error) {
            (PathKind::Sender, MailboxError::Domain(_)) => 8,
            (PathKind::Sender, _) => 7,
            (PathKind::Recipient, MailboxError::Domain(_)) => 2,
            (PathKind::Recipient, _) => 3,
        };
        table::invalid_address(detail, error)
    };
    let path = without_source_route(path).ok_or_else(|| refused(&MailboxError::MalformedLocalPart))?;
    Mailbox::parse(path).map_err(|error| refused(&error))
}

/// RFC 5321 §4.1.1.3, appendix C: the source route `@a,@b:` before a mailbox is accepted and ignored.
fn without_source_route(path: &str) -> Option<&str> {
    let Some(mut rest) = path.strip_prefix('@') else { return Some(path) };
    loop {
        let end = match rest.strip_prefix('[') {
            Some(_) => rest.find(']')? + 1,
            None => rest.find([',', ':'])?,
        };
        let (host, behind) = rest.split_at_checked(end)?;
        let known: Result<Domain, DomainError> = Domain::parse(host);
        known.ok()?;
        if let Some(mailbox) = behind.strip_prefix(':') {
            return Some(mailbox);
        }
        rest = behind.strip_prefix(",@")?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Command::parse(line.as_bytes()).map_err(|reply| {
            let status = reply.status.expect("a refusal has a status");
            format!("{} {status}", reply.code)
        })
    }

    fn mail(line: &str) -> (ReversePath, MailParameters) {
        match parse(line) {
            Ok(Command::Mail { reverse_path, parameters, .. }) => (reverse_path, parameters),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn rcpt(line: &str) -> String {
        match parse(line) {
            Ok(Command::Rcpt { forward_path, .. }) => forward_path.to_string(),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refused(line: &str, with: &str) {
        assert_eq!(parse(line), Err(with.to_owned()), "{line:?}");
    }

    #[test]
    fn verbs_are_accepted_in_any_case_and_with_white_space_after_them() {
        assert_eq!(parse("quit"), Ok(Command::Quit));
        assert_eq!(parse("QuIt  \t"), Ok(Command::Quit));
        assert_eq!(parse("noop anything at all"), Ok(Command::Noop));
        assert_eq!(parse("HELP MAIL"), Ok(Command::Help));
        assert_eq!(parse("VRFY ana"), Ok(Command::Vrfy));
        assert_eq!(parse("GET / HTTP/1.1"), Ok(Command::Http));
        for line in ["", " QUIT", "QUITE", "X", "\u{e9}", "MAILFROM:<a@b.example>"] {
            refused(line, "500 5.5.2");
        }
        for line in
            ["QUIT now", "DATA x", "RSET x", "STARTTLS x", "VRFY", "AUTH", "AUTH PLAIN a b", "EHLO", "helo  "]
        {
            refused(line, "501 5.5.4");
        }
        refused("NOOP \0", "500 5.5.2");
        assert!(Command::parse(b"NOOP \xff").is_err());
    }

    #[test]
    fn a_logged_line_has_no_password_and_a_counted_verb_is_of_a_fixed_set() {
        for (line, verb, shown) in [
            ("mail FROM:<a@b.example>", "MAIL", "mail FROM:<a@b.example>"),
            ("auth PLAIN AGFuYQBzZWNyZXQ=", "AUTH", "AUTH PLAIN (response not shown)"),
            ("AUTH\tPLAIN AGFuYQBzZWNyZXQ=", "AUTH", "AUTH PLAIN (response not shown)"),
            ("AUTH PLAIN", "AUTH", "AUTH PLAIN"),
            ("AUTH", "AUTH", "AUTH"),
            ("non\x07sense", "other", "non\\x07…"),
            // ana, secret
            ("AGFuYQBzZWNyZXQ=", "other", "AGFu…"),
            ("XYZ", "other", "XYZ"),
        ] {
            assert_eq!(Command::verb(line.as_bytes()), verb, "{line:?}");
            assert_eq!(Command::printable_line(line.as_bytes()), shown, "{line:?}");
        }
        let long = format!("RCPT TO:<{}@here.example>", "a".repeat(800));
        assert!(Command::printable_line(long.as_bytes()).len() <= 203);
    }

    #[test]
    fn almost_any_name_is_accepted_in_ehlo() {
        for (line, word) in [
            ("EHLO there.example", "there.example"),
            ("EHLO [192.0.2.1]", "[192.0.2.1]"),
            ("EHLO under_score", "under_score"),
            ("EHLO a b c", "a"),
            ("EHLO \u{202e}x", "\\xe2\\x80\\xaex"),
        ] {
            match parse(line) {
                Ok(Command::Ehlo(hello)) => assert_eq!(hello.as_str(), word),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn paths_follow_the_grammar() {
        assert_eq!(mail("MAIL FROM:<>").0, ReversePath::Null);
        for (line, path) in [
            ("mail from:<ana@there.example>", "<ana@there.example>"),
            ("MAIL FROM: <ana@there.example>", "<ana@there.example>"),
            ("MAIL FROM:<\"a > b\"@there.example>", "<\"a > b\"@there.example>"),
            ("MAIL FROM:<\"a\\\"> b\"@there.example>", "<\"a\\\"> b\"@there.example>"),
            ("MAIL FROM:<@a.example,@b.example:ana@there.example>", "<ana@there.example>"),
            ("MAIL FROM:<@[IPv6:::1]:ana@there.example>", "<ana@there.example>"),
            ("MAIL FROM:<ana@[192.0.2.7]>", "<ana@[192.0.2.7]>"),
        ] {
            assert_eq!(mail(line).0.to_string(), path, "{line}");
        }
        assert_eq!(rcpt("RCPT TO:<@a.example,@b.example:bo@here.example>"), "<bo@here.example>");
        assert_eq!(rcpt("RCPT TO:<PostMaster>"), "<postmaster>");
        assert_eq!(rcpt("RCPT TO:<postmaster@here.example>"), "<postmaster@here.example>");
        for line in [
            "MAIL",
            "MAIL FROM",
            "MAIL FROM:",
            "MAIL FROM:ana@there.example",
            "MAIL FROM:<ana@there.example",
            "MAIL FROM:  <ana@there.example>",
            "MAIL FROM :<ana@there.example>",
            "MAIL TO:<ana@there.example>",
            "MAIL FROM:<ana@there.example>SIZE=1",
            "RCPT TO:<\"bo@here.example>",
            "RCPT <bo@here.example>",
        ] {
            refused(line, "501 5.5.2");
        }
        for line in [
            "MAIL FROM:<ana>",
            "MAIL FROM:<a b@there.example>",
            "MAIL FROM:<ana@there.example\\>>",
            "MAIL FROM:<@a.example>",
            "MAIL FROM:<@a.example,ana@there.example>",
            "MAIL FROM:< >",
        ] {
            assert!(parse(line).is_err(), "{line:?}");
        }
        refused("MAIL FROM:<ana>", "501 5.1.7");
        refused("MAIL FROM:<ana@-there.example>", "501 5.1.8");
        refused("RCPT TO:<>", "501 5.1.3");
        refused("RCPT TO:<bo>", "501 5.1.3");
        refused("RCPT TO:<bo@a..example>", "501 5.1.2");
        refused(&format!("RCPT TO:<{}@here.example>", "x".repeat(250)), "501 5.1.3");
    }

    #[test]
    fn a_chunk_is_a_number_of_octets_and_may_be_the_last() {
        for (line, octets, is_last) in [
            ("BDAT 0", 0, false),
            ("bdat 86 last", 86, true),
            ("BDAT 0 LAST ", 0, true),
            ("BDAT 99999999999999999999", u64::MAX, false),
        ] {
            assert_eq!(parse(line), Ok(Command::Bdat { octets, is_last }), "{line}");
        }
        for line in
            ["BDAT", "BDAT LAST", "BDAT -1", "BDAT 1x", "BDAT 1 FIRST", "BDAT 1 LAST LAST", "BDAT 0x10"]
        {
            refused(line, "501 5.5.4");
        }
        refused(&format!("BDAT {}", "1".repeat(21)), "501 5.5.4");
    }

    #[test]
    fn a_path_with_characters_beyond_ascii_needs_smtputf8() {
        for (line, expected) in [
            ("RCPT TO:<bo@xn--bcher-kva.example>", true),
            ("RCPT TO:<bo@bücher.example>", false),
            ("RCPT TO:<bö@here.example>", false),
            ("RCPT TO:<bo@here.example> ORCPT=utf-8;bö@here.example", false),
        ] {
            match parse(line) {
                Ok(Command::Rcpt { is_ascii, .. }) => assert_eq!(is_ascii, expected, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Command::parse(&line);
        }

        #[test]
        fn no_path_makes_the_parser_panic(line in "(MAIL FROM:|RCPT TO:) ?<[@a.:,\\[\\]\"\\\\<> é]{0,20}>?[ A-Z=+]{0,12}") {
            let _ = Command::parse(line.as_bytes());
        }
    }
}
