//! DATA and BDAT: the message itself (RFC 5321 §4.1.1.4, RFC 3030 §2).
//!
//! Behind BDAT comes what was announced, whatever we think of it: a chunk that is refused is read to its
//! last octet and thrown away, and only then is it said why. Nothing in it is ever a command. Any such
//! refusal ends the transaction, so that the chunks which a client has sent ahead are refused as well.

use super::{PendingQuestion, Server, ServerStage};
use crate::smtp::action::{Question, ReceiveMode, ServerAction};
use crate::smtp::body::{BodyEnd, BodyReader};
use crate::smtp::reply_table as table;

impl Server {
    pub(super) fn data(&mut self) -> ServerAction {
        match &self.transaction {
            None => self.refuse(table::DATA_OUT_OF_ORDER),
            // RFC 2920 §3.1: a client that sent all at once must not hear 354 when all of its
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
            // A client that does not wait sends all chunks of a message before it hears that the first
            // one was refused: these count as commands that lead nowhere, not as mistakes.
            let no = ServerAction::Reply(table::BDAT_OUT_OF_ORDER.into());
            return self.discard_chunk(octets, no);
        };
        let refusal = if !is_esmtp {
            Some(table::BDAT_NEEDS_EHLO)
        } else if transaction.recipients.is_empty() {
            Some(table::NO_VALID_RECIPIENT)
        } else {
            None
        };
        if let Some(reply) = refusal {
            let no = self.refuse_content(reply);
            return self.discard_chunk(octets, no);
        }
        let part =
            if transaction.chunk_reader.is_some() { ReceiveMode::Continue } else { ReceiveMode::Begin };
        let (octets_max, line_ends) = (self.settings.message_octets_max, self.settings.bare_line_ends);
        let reader =
            transaction.chunk_reader.get_or_insert_with(|| BodyReader::in_chunks(octets_max, line_ends));
        if reader.is_too_big_with(octets) {
            let no = self.refuse_content(table::TOO_LARGE);
            return self.discard_chunk(octets, no);
        }
        self.stage = ServerStage::Chunk { octets, is_last };
        ServerAction::Receive { reply: None, mode: part }
    }

    /// More octets after [`Action::Receive`], as they come; perhaps none. What is to be kept of them
    /// goes to `sink`, in order. `None` as long as more must come. Then says what is next, and how
    /// many of `octets` it took: what is behind them are commands again.
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
            // Nobody knows where the other side thinks that its message ends.
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
            // The octets are counted, so that it is known where commands begin again.
            Some(BodyEnd::BareLineEnd) => self.refuse_content(table::BARE_LINE_END_IN_CHUNK),
            Some(end) => self.message_ended(end),
        };
        if left == 0 {
            return Some((here.len(), then));
        }
        self.stage = ServerStage::DiscardedChunk { octets: left, then };
        None
    }

    /// RFC 3030 §2: the octets of a chunk come, even if nobody wants them.
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
