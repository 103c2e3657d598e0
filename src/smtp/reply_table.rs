//! The replies of the server: code, enhanced status and text, in one table.
//!
//! Codes as in RFC 5321 §4.2.3, statuses as in RFC 3463 and RFC 5248. A reply that names something is a
//! function below the table. What a refusal of the policy becomes is in `refusal`.

use crate::mail::printable;

use super::reply::Reply;

/// A reply that always has the same text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FixedReply {
    code: u16,
    subject: u16,
    detail: u16,
    text: &'static str,
}

const fn reply(code: u16, subject: u16, detail: u16, text: &'static str) -> FixedReply {
    FixedReply { code, subject, detail, text }
}

impl From<FixedReply> for Reply {
    fn from(FixedReply { code, subject, detail, text }: FixedReply) -> Self {
        Self::new(code, subject, detail, text)
    }
}

// Success.
pub(super) const HELP: FixedReply = reply(214, 0, 0, "RFC 5321 describes the commands");
pub(super) const STARTTLS_READY: FixedReply = reply(220, 0, 0, "Ready to start TLS");
pub(super) const AUTHENTICATED: FixedReply = reply(235, 7, 0, "Authentication succeeded");
pub(super) const OK: FixedReply = reply(250, 0, 0, "OK");
pub(super) const CHUNK_RECEIVED: FixedReply = reply(250, 0, 0, "Chunk received");
pub(super) const SENDER_ACCEPTED: FixedReply = reply(250, 1, 0, "Sender accepted");
pub(super) const RECIPIENT_ACCEPTED: FixedReply = reply(250, 1, 5, "Recipient accepted");
// RFC 5321 §3.5.3, §7.3: neither confirms nor denies.
pub(super) const NOT_VERIFIED: FixedReply =
    reply(252, 1, 5, "Addresses are not verified; send the message and delivery will be attempted");

// Temporary refusals.
pub(super) const LOCAL_ERROR: FixedReply = reply(451, 3, 0, "Local error, try again later");
// RFC 5321 §4.5.3.1.10: the client sends the message again to the rest.
pub(super) const TOO_MANY_RECIPIENTS: FixedReply =
    reply(452, 5, 3, "Too many recipients; send the message to the others in another transaction");

// Lines and syntax.
pub(super) const LINE_TOO_LONG: FixedReply = reply(500, 5, 2, "The line is too long");
// RFC 4954 §4.
pub(super) const RESPONSE_TOO_LONG: FixedReply = reply(500, 5, 6, "The response is too long");
pub(super) const CONTROL_CHARACTER: FixedReply =
    reply(500, 5, 2, "A command may not contain control characters");
pub(super) const UNKNOWN_COMMAND: FixedReply = reply(500, 5, 2, "Unknown command");
pub(super) const MAIL_SYNTAX: FixedReply = reply(501, 5, 2, "Syntax: MAIL FROM:<address>");
pub(super) const RCPT_SYNTAX: FixedReply = reply(501, 5, 2, "Syntax: RCPT TO:<address>");
pub(super) const HELO_SYNTAX: FixedReply = reply(501, 5, 4, "Syntax: HELO hostname");
pub(super) const EHLO_SYNTAX: FixedReply = reply(501, 5, 4, "Syntax: EHLO hostname");
pub(super) const VRFY_SYNTAX: FixedReply = reply(501, 5, 4, "Syntax: VRFY address");
pub(super) const AUTH_SYNTAX: FixedReply = reply(501, 5, 4, "Syntax: AUTH mechanism [initial-response]");
pub(super) const BDAT_SYNTAX: FixedReply = reply(501, 5, 4, "Syntax: BDAT octets [LAST]");
pub(super) const NO_ARGUMENT: FixedReply = reply(501, 5, 4, "This command takes no argument");
pub(super) const NO_BINARYMIME: FixedReply = reply(501, 5, 4, "BINARYMIME is not offered here; 8BITMIME is");
pub(super) const AUTH_CANCELLED: FixedReply = reply(501, 7, 0, "Authentication cancelled");
pub(super) const BARE_LINE_END: FixedReply =
    reply(521, 5, 2, "A line must end with CRLF; CR or LF alone is not allowed");
pub(super) const PARAMETERS_NEED_EHLO: FixedReply = reply(555, 5, 4, "Parameters require EHLO");

// Commands that are not offered.
pub(super) const NO_STARTTLS: FixedReply = reply(502, 5, 1, "STARTTLS is not available");
pub(super) const NO_AUTH: FixedReply = reply(502, 5, 1, "AUTH is not available");
pub(super) const NO_EXPN: FixedReply = reply(502, 5, 1, "EXPN is not implemented");
pub(super) const HTTP_CLIENT: FixedReply = reply(502, 5, 2, "This is a mail server, not a web server");
pub(super) const TLS_CLIENT: FixedReply =
    reply(502, 5, 2, "This port starts in plain text; use STARTTLS for TLS");

// The order of commands.
pub(super) const EHLO_FIRST: FixedReply = reply(503, 5, 1, "Send EHLO first");
pub(super) const ALREADY_TLS: FixedReply = reply(503, 5, 1, "TLS is already active");
pub(super) const ALREADY_AUTHENTICATED: FixedReply = reply(503, 5, 1, "You are already authenticated");
// RFC 4954 §4.
pub(super) const AUTH_IN_TRANSACTION: FixedReply =
    reply(503, 5, 1, "AUTH is not allowed during a mail transaction");
pub(super) const MAIL_IN_TRANSACTION: FixedReply =
    reply(503, 5, 1, "A transaction has already begun; RSET ends it");
pub(super) const MAIL_FIRST: FixedReply = reply(503, 5, 1, "Send MAIL before RCPT");
pub(super) const RCPT_AFTER_BDAT: FixedReply =
    reply(503, 5, 1, "The message is already being sent; RSET ends it");
pub(super) const DATA_OUT_OF_ORDER: FixedReply = reply(503, 5, 1, "Send MAIL and RCPT before DATA");
pub(super) const BDAT_OUT_OF_ORDER: FixedReply = reply(503, 5, 1, "Send MAIL and RCPT before BDAT");
pub(super) const NO_VALID_RECIPIENT: FixedReply = reply(503, 5, 1, "No valid recipient");
// RFC 3030 §2.
pub(super) const DATA_AFTER_BDAT: FixedReply =
    reply(503, 5, 1, "The message is already being sent with BDAT");
pub(super) const BDAT_NEEDS_EHLO: FixedReply = reply(503, 5, 1, "BDAT requires EHLO");
// RFC 5321 §3.1, §4.3.1. Instead of a greeting.
pub(super) const EARLY_TALKER: FixedReply =
    reply(554, 5, 1, "Wait for the greeting before you send commands");

// Authentication.
pub(super) const LOGIN_REQUIRED: FixedReply = reply(530, 7, 0, "Authentication required");
pub(super) const TLS_AND_LOGIN_REQUIRED: FixedReply =
    reply(530, 7, 0, "Authentication required; start TLS first");
pub(super) const WRONG_LOGIN: FixedReply = reply(535, 7, 8, "User name or password is wrong");
pub(super) const AUTH_NEEDS_TLS: FixedReply = reply(538, 7, 11, "Authentication requires TLS");

// Addresses and messages.
pub(super) const NO_SUCH_RECIPIENT: FixedReply = reply(550, 1, 1, "The recipient does not exist");
pub(super) const TOO_LARGE: FixedReply = reply(552, 3, 4, "The message is too large");
pub(super) const SMTPUTF8_REQUIRED: FixedReply =
    reply(553, 6, 7, "An address with characters beyond ASCII requires SMTPUTF8");
pub(super) const BARE_LINE_END_IN_CHUNK: FixedReply =
    reply(554, 6, 0, "A line of the message must end with CRLF; CR or LF alone is not allowed");

/// RFC 2034 §4: the greeting has no enhanced status.
pub(super) fn greeting(hostname: &str) -> Reply {
    Reply::plain(220, format!("{hostname} ESMTP postrider"))
}

/// RFC 2034 §4: neither have the replies to HELO and EHLO.
pub(super) fn hello(hostname: &str, extensions: Vec<String>) -> Reply {
    let mut reply = Reply::plain(250, hostname);
    reply.lines.extend(extensions);
    reply
}

pub(super) fn go_ahead_with_data() -> Reply {
    Reply::plain(354, "Start mail input; end with <CRLF>.<CRLF>")
}

/// `challenge` is encoded in base64.
pub(super) fn auth_challenge(challenge: String) -> Reply {
    Reply::plain(334, challenge)
}

/// The message is in the queue under this id.
pub(super) fn queued(id: impl std::fmt::Display) -> Reply {
    Reply::new(250, 0, 0, format!("Queued as {id}"))
}

pub(super) fn quit_accepted(hostname: &str) -> Reply {
    Reply::new(221, 0, 0, format!("{hostname} closing connection"))
}

/// RFC 5321 §3.8: 421 begins with the name of the server. `why` completes the sentence.
pub(super) fn closing(subject: u16, detail: u16, hostname: &str, why: &str) -> Reply {
    Reply::new(421, subject, detail, format!("{hostname} closing connection: {why}"))
}

pub(super) fn unknown_mechanism(offered: &[String]) -> Reply {
    Reply::new(504, 5, 4, format!("Unknown mechanism; this server offers {}", offered.join(" ")))
}

/// `detail` is 2 or 3 for a recipient, 7 or 8 for a sender (RFC 3463 §3.2).
pub(super) fn invalid_address(detail: u16, error: impl std::fmt::Display) -> Reply {
    Reply::new(501, 1, detail, format!("Invalid address: {error}"))
}

pub(super) fn unknown_parameter(keyword: &str) -> Reply {
    Reply::new(555, 5, 4, format!("Unknown parameter {}", printable(keyword.as_bytes(), 40)))
}

pub(super) fn repeated_parameter(keyword: &str) -> Reply {
    Reply::new(501, 5, 4, format!("The parameter {keyword} is repeated"))
}

pub(super) fn invalid_value(keyword: &str) -> Reply {
    Reply::new(501, 5, 4, format!("The parameter {keyword} has an invalid value"))
}
