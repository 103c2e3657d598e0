//! What the machine wants of its shell.
//!
//! The shell holds the socket and the clock. It does what a step says, and tells the machine by the
//! method that the step names.

/// What the shell does next.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientStep {
    /// Read one reply, then [`super::Client::reply`].
    Receive(Wait),
    /// Write these octets, one command or a pipelined group, read one reply, then [`super::Client::reply`].
    Send(Vec<u8>, Wait),
    /// The same, but what is written must not be shown to anybody.
    SendSecret(Vec<u8>, Wait),
    /// Forget every octet that was read ahead, do the handshake, then [`super::Client::secured`] or
    /// [`super::Client::handshake_failed`].
    StartTls,
    /// It is known now whether this connection is encrypted, and the transaction has not begun:
    /// [`super::Client::withhold`] recipients for whom that is not enough, then [`super::Client::go_ahead`].
    CheckEncryption,
    /// Write the message, dot-stuffed and with its final dot, then [`super::Client::message_sent`]; if the
    /// peer stops reading, look for a reply of its own accord, then [`super::Client::reply`].
    SendMessage,
    /// All is decided: keep the connection if [`super::Client::can_go_on`], or write these octets, wait a
    /// little for a reply, and close.
    Quit(Vec<u8>),
    /// Close.
    Close,
}

/// What a reply is awaited to; each has a timeout of its own (RFC 5321 §4.5.3.2).
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
    /// The final dot (§4.5.3.2.6); one time for all its replies in LMTP.
    Dot,
}
