//! A message that arrives and is not accepted yet.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::manager_event::ManagerEvent;
use super::outgoing_content::{OutgoingContent, sent_ranges};
use super::queue_shared::QueueShared;
use crate::courier::Message as _;
use crate::mail::{Envelope, MessageId};
use crate::spool::{MessageFileWriter, is_disk_full_error};

/// Why a message was not accepted. The client still has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// The queue holds `messages-max`, or the disk is full: 452 4.3.1.
    #[error("the queue or its disk is full")]
    Full,
    /// The disk failed: 451 4.3.0.
    #[error("the spool cannot be written: {0}")]
    Io(String),
    /// The server is about to stop: 421 4.3.2.
    #[error("the server is stopping")]
    Stopping,
}

impl From<io::Error> for PutError {
    fn from(error: io::Error) -> Self {
        if is_disk_full_error(error.kind()) { Self::Full } else { Self::Io(error.to_string()) }
    }
}

/// A message that arrives. Dropped before [`IncomingMessage::commit`], it leaves nothing on disk.
pub struct IncomingMessage {
    shared: Arc<QueueShared>,
    id: MessageId,
    octets: u64,
    content: IncomingContent,
}

enum IncomingContent {
    /// In memory; a commit writes it to the journal.
    InMemory(Vec<u8>),
    /// In a file of its own.
    InFile(MessageFileWriter),
}

impl IncomingMessage {
    pub(super) fn new(shared: Arc<QueueShared>, id: MessageId) -> Self {
        shared.incoming_count.fetch_add(1, Ordering::Relaxed);
        Self { shared, id, octets: 0, content: IncomingContent::InMemory(Vec::new()) }
    }

    /// The id of the message, for added fields, the log and the reply.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// Octets appended so far.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Adds octets as they are sent: CRLF line ends, not dot-stuffed. Octets are collected in memory; when
    /// there are more than `journal_message_octets_max`, they are written to a file.
    ///
    /// # Errors
    /// The disk refused; drop the value.
    pub fn append(&mut self, octets: &[u8]) -> Result<(), PutError> {
        self.octets += octets.len() as u64;
        match &mut self.content {
            IncomingContent::InFile(writer) => writer.append(octets)?,
            IncomingContent::InMemory(held)
                if held.len() + octets.len() <= self.shared.settings.journal_message_octets_max =>
            {
                held.extend_from_slice(octets);
            }
            IncomingContent::InMemory(held) => {
                let mut writer = self.shared.spool.create_message_file(&self.id)?;
                writer.append(held)?;
                writer.append(octets)?;
                self.content = IncomingContent::InFile(writer);
            }
        }
        Ok(())
    }

    /// Lets `look` read the message as a courier would read it with this envelope.
    ///
    /// # Errors
    /// The disk refused.
    pub fn read_as_sent<T>(
        &mut self,
        envelope: &Envelope,
        look: impl FnOnce(&mut dyn Read) -> T,
    ) -> Result<T, PutError> {
        match &mut self.content {
            IncomingContent::InMemory(held) => {
                let mut whole = envelope.added_text().into_bytes();
                let place = |octets: u64| usize::try_from(octets).unwrap_or(usize::MAX);
                for (start, end) in sent_ranges(envelope, held.len() as u64) {
                    whole.extend_from_slice(held.get(place(start)..place(end)).unwrap_or_default());
                }
                if !whole.ends_with(b"\r\n") {
                    whole.extend_from_slice(b"\r\n");
                }
                Ok(look(&mut whole.as_slice()))
            }
            IncomingContent::InFile(writer) => {
                let content = OutgoingContent::new(writer.extent()?, envelope)?;
                Ok(look(&mut content.open()?))
            }
        }
    }

    /// Accepts the message: octets, envelope and file name are durable when this returns `Ok`. Sets the id of
    /// the envelope to this message's.
    ///
    /// # Errors
    /// The disk refused, and the message is not accepted. After a failed sync the next start may find it
    /// nevertheless, as a duplicate; never half of it.
    pub fn commit(mut self, mut envelope: Envelope) -> Result<(), PutError> {
        envelope.id = self.id;
        envelope.queued_at = Some(self.shared.spool.age_clock.now());
        let arrived_at = self.shared.clock.now();
        match std::mem::replace(&mut self.content, IncomingContent::InMemory(Vec::new())) {
            IncomingContent::InMemory(octets) => self.shared.spool.put_in_journal(&envelope, &octets)?,
            IncomingContent::InFile(writer) => self.shared.spool.put_as_file(writer, &envelope)?,
        }
        self.shared.messages_put.add_one();
        // If the manager has ended, the next start finds the message on disk.
        let put = ManagerEvent::Put { id: self.id, envelope: Arc::new(envelope), arrived_at };
        let _ = self.shared.events.send(put);
        Ok(())
    }
}

impl Drop for IncomingMessage {
    fn drop(&mut self) {
        self.shared.incoming_count.fetch_sub(1, Ordering::Relaxed);
    }
}
