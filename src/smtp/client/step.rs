//! What the client asks of its caller, which holds the socket and the clock.
//!
//! The caller does what a step says, and reports by the method that the step names.

/// What the caller does next.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientStep {
    /// Read one reply, then [`super::Client::reply`].
    Receive(Wait),
    /// Write these octets, one command or a pipelined group, read one reply, then [`super::Client::reply`].
    Send(Vec<u8>, Wait),
    /// The same as [`Self::Send`], but the octets are secret and must not be logged.
    SendSecret(Vec<u8>, Wait),
    /// Discard all octets that were read ahead, make the handshake, then
    /// [`super::Client::handshake_succeeded`] or [`super::Client::handshake_failed`].
    StartTls,
    /// The encryption of the connection is decided, and the transaction has not begun:
    /// [`super::Client::withhold`] the recipients for which it is not good enough, then
    /// [`super::Client::begin_transactions`].
    CheckEncryption,
    /// Write the message, dot-stuffed and with its final dot, then [`super::Client::message_sent`]. If the
    /// peer stops reading, look for an early reply, then [`super::Client::reply`].
    SendMessage,
    /// All recipients are decided. Keep the connection if [`super::Client::is_reusable`], or write these
    /// octets, wait a little for a reply, and close.
    Quit(Vec<u8>),
    /// Close the connection.
    Close,
}

/// The command whose reply is awaited; each has a timeout of its own (RFC 5321 §4.5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The greeting (§4.5.3.2.1).
    Greeting,
    /// EHLO, HELO, LHLO, STARTTLS or AUTH.
    Hello,
    /// MAIL (§4.5.3.2.2).
    Mail,
    /// RCPT (§4.5.3.2.3).
    Rcpt,
    /// DATA (§4.5.3.2.4).
    Data,
    /// The final dot (§4.5.3.2.6); one timeout for all its replies in LMTP.
    Dot,
}
