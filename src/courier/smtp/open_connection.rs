//! A connection to a peer, with the client machine that speaks on it.
//!
//! Reads replies and writes octets, each by a deadline. Handed from one message to the next by the
//! connection pool.

use std::io::{self, Read as _, Write as _};

use crate::mail::printable;
use crate::smtp::client::Client;
use crate::smtp::{Reply, ReplyReader};
use crate::sys::{Moment, Stream};
use crate::tls::SecurityLevel;

/// Octets read from the peer at once.
const REPLY_BLOCK_OCTETS: usize = 2 * 1024;

/// A connection on which the peer waits for a command or we wait for a reply.
pub(in crate::courier) struct OpenConnection {
    pub(super) stream: Box<dyn Stream>,
    pub(super) client: Client,
    pub(super) replies: ReplyReader,
    /// How well the connection is protected, as of now.
    pub(super) level: SecurityLevel,
    /// When the connection was opened.
    pub(super) opened_at: Moment,
    /// Messages that the connection was used for.
    pub(super) message_count: u32,
    /// The command that ends the session.
    pub(super) quit_octets: Vec<u8>,
}

impl OpenConnection {
    /// A connection that has just been opened, without TLS.
    pub(super) fn new(stream: Box<dyn Stream>, client: Client, opened_at: Moment) -> Self {
        Self {
            stream,
            client,
            replies: ReplyReader::default(),
            level: SecurityLevel::Plain,
            opened_at,
            message_count: 0,
            quit_octets: Vec::new(),
        }
    }

    /// Writes octets and flushes them.
    pub(super) fn send(&mut self, octets: &[u8], deadline: Moment) -> io::Result<()> {
        self.stream.set_deadline(deadline);
        self.stream.write_all(octets)?;
        self.stream.flush()
    }

    /// Sends QUIT.
    ///
    /// # Errors
    /// The peer has closed the connection.
    pub(super) fn send_quit(&mut self, deadline: Moment) -> io::Result<()> {
        let quit = std::mem::take(&mut self.quit_octets);
        self.send(&quit, deadline)
    }

    /// RFC 5321 §4.1.1.10: waits for the reply to QUIT, and closes. Nothing depends on the reply.
    pub(super) fn await_quit_reply(mut self, deadline: Moment) {
        if self.read_reply(deadline).is_err() {
            self.stream.abort();
        }
    }

    /// The next reply, or a clause that says why there is none.
    pub(super) fn read_reply(&mut self, deadline: Moment) -> Result<Reply, String> {
        self.stream.set_deadline(deadline);
        let mut octets = [0; REPLY_BLOCK_OCTETS];
        loop {
            if let Some(reply) = self.replies.next_reply().map_err(|error| error.to_string())? {
                return Ok(reply);
            }
            match self.stream.read(&mut octets) {
                Ok(0) => return Err("the other side closed the connection".to_owned()),
                Ok(count) => self.replies.feed(octets.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(describe_io_error(&error)),
            }
        }
    }
}

/// An error as a clause, without the number that the system has for it.
pub(in crate::courier) fn describe_io_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        io::ErrorKind::UnexpectedEof => "the other side closed the connection".to_owned(),
        kind if error.get_ref().is_none() && !kind.to_string().starts_with("uncategorized") => {
            kind.to_string()
        }
        _ => printable(error.to_string().as_bytes(), 300),
    }
}
