//! DATA and BDAT: the message (RFC 5321 §4.1.1.4, RFC 3030 §2).
//!
//! The octets of a chunk follow its BDAT in any case: a refused chunk is read to its last octet and
//! discarded, and then its refusal is sent. Nothing in a chunk is taken for a command. Such a refusal ends
//! the transaction, so that the chunks that a client has sent ahead are refused as well.

use super::{PendingQuestion, Server, ServerStage};
use crate::smtp::action::{Question, ReceiveMode, ServerAction};
use crate::smtp::body::{BodyEnd, BodyReader};
use crate::smtp::reply_table as table;

impl Server {
    pub(super) fn data(&mut self) -> ServerAction {
        match &self.transaction {
            None => self.refuse(table::DATA_OUT_OF_ORDER),
            // RFC 2920 §3.1: a client that sent all commands at once must not get 354 when all of its
            // recipients were refused.
            Some(transaction) if transaction.recipients.is_empty() => self.refuse(table::NO_VALID_RECIPIENT),
            Some(transaction) if transaction.chunk_reader.is_some() => self.refuse(table::DATA_AFTER_BDAT),
            Some(_) => {
                let reader = BodyReader::new(self.settings.message_octets_max, self.settings.bare_line_ends);
                self.stage = ServerStage::Message(reader);
                ServerAction::Receive { reply: Some(table::go_ahead_with_data()), mode: ReceiveMode::Begin }
            }
        }
    }

    pub(super) fn bdat(&mut self, octets: u64, is_last: bool) -> ServerAction {
        let is_esmtp = self.is_esmtp();
        let Some(transaction) = &mut self.transaction else {
            // A client may send all chunks of a message before it gets the refusal of the first one. The
            // others count as commands without a message, not as errors.
            let refusal = ServerAction::Reply(table::BDAT_OUT_OF_ORDER.into());
            return self.discard_chunk(octets, refusal);
        };
        let refusing_reply = if !is_esmtp {
            Some(table::BDAT_NEEDS_EHLO)
        } else if transaction.recipients.is_empty() {
            Some(table::NO_VALID_RECIPIENT)
        } else {
            None
        };
        if let Some(reply) = refusing_reply {
            let refusal = self.refuse_content(reply);
            return self.discard_chunk(octets, refusal);
        }
        let part =
            if transaction.chunk_reader.is_some() { ReceiveMode::Continue } else { ReceiveMode::Begin };
        let (octets_max, line_ends) = (self.settings.message_octets_max, self.settings.bare_line_ends);
        let reader =
            transaction.chunk_reader.get_or_insert_with(|| BodyReader::in_chunks(octets_max, line_ends));
        if reader.is_too_big_with(octets) {
            let refusal = self.refuse_content(table::TOO_LARGE);
            return self.discard_chunk(octets, refusal);
        }
        self.stage = ServerStage::Chunk { octets, is_last };
        ServerAction::Receive { reply: None, mode: part }
    }

    /// Takes octets after [`ServerAction::Receive`], in pieces of any size, also of none. The octets of the
    /// message go to `sink`, in order. Returns `None` until all have come; then the next action, and how
    /// many of `octets` were used. Commands follow them.
    pub fn body(&mut self, octets: &[u8], sink: &mut impl FnMut(&[u8])) -> Option<(usize, ServerAction)> {
        match std::mem::replace(&mut self.stage, ServerStage::Command) {
            ServerStage::Message(mut reader) => match reader.feed(octets, sink) {
                Some((used, end)) => Some((used, self.message_ended(end))),
                None => {
                    self.stage = ServerStage::Message(reader);
                    None
                }
            },
            ServerStage::Chunk { octets: left, is_last } => self.chunk(left, is_last, octets, sink),
            ServerStage::DiscardedChunk { octets: left, then } => {
                let taken = prefix(octets, left).len();
                let left = left.saturating_sub(taken as u64);
                if left == 0 {
                    return Some((taken, then));
                }
                self.stage = ServerStage::DiscardedChunk { octets: left, then };
                None
            }
            ServerStage::Command
            | ServerStage::AuthResponse(_)
            | ServerStage::Handshake
            | ServerStage::Answer(_)
            | ServerStage::Closed => Some((0, self.close_with_fault())),
        }
    }

    fn message_ended(&mut self, end: BodyEnd) -> ServerAction {
        match end {
            BodyEnd::Complete(facts) => self.ask(Question::Content(facts), PendingQuestion::Content),
            BodyEnd::TooBig => self.refuse_content(table::TOO_LARGE),
            // The two sides may disagree about where the message ends.
            BodyEnd::BareLineEnd => self.close(table::BARE_LINE_END),
        }
    }

    fn chunk(
        &mut self,
        left: u64,
        is_last: bool,
        octets: &[u8],
        sink: &mut impl FnMut(&[u8]),
    ) -> Option<(usize, ServerAction)> {
        let Some(reader) =
            self.transaction.as_mut().and_then(|transaction| transaction.chunk_reader.as_mut())
        else {
            return Some((0, self.close_with_fault()));
        };
        let here = prefix(octets, left);
        let left = left.saturating_sub(here.len() as u64);
        let end = match reader.feed(here, sink) {
            Some((_, end)) => Some(end),
            None if left > 0 => {
                self.stage = ServerStage::Chunk { octets: left, is_last };
                return None;
            }
            None => is_last.then(|| reader.finish(sink)),
        };
        let then = match end {
            None => ServerAction::Reply(table::CHUNK_RECEIVED.into()),
            // The rest of the chunk is counted, because commands follow it.
            Some(BodyEnd::BareLineEnd) => self.refuse_content(table::BARE_LINE_END_IN_CHUNK),
            Some(end) => self.message_ended(end),
        };
        if left == 0 {
            return Some((here.len(), then));
        }
        self.stage = ServerStage::DiscardedChunk { octets: left, then };
        None
    }

    /// RFC 3030 §2: the octets of a refused chunk come as well.
    fn discard_chunk(&mut self, octets: u64, then: ServerAction) -> ServerAction {
        self.stage = ServerStage::DiscardedChunk { octets, then };
        ServerAction::Receive { reply: None, mode: ReceiveMode::Discard }
    }
}

/// The first octets, at most `max` of them.
fn prefix(octets: &[u8], max: u64) -> &[u8] {
    let end = usize::try_from(max).unwrap_or(usize::MAX).min(octets.len());
    octets.get(..end).unwrap_or_default()
}
