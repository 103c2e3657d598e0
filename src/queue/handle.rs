//! What other modules hold of the queue.
//!
//! A [`Handle`] is cheap to clone and may be used from every thread. Putting a message is the
//! caller's own thread's work, sync included; everything else is a hint to the manager, which
//! looks at the disk for the truth.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::claims::{AfterClaim, ClaimReply};
use super::outgoing_content::{OutgoingContent, sent_ranges};
use super::schedule::Settings;
use crate::courier::Message as _;
use crate::mail::{Envelope, MessageId, Recipient, ReversePath, Timestamp};
use crate::observe::Counter;
use crate::spool::{
    AgeClock, LoadError, MessageFileWriter, MessageProgress, RecipientState, Spool, is_disk_full_error,
};
use crate::sys::{Clock, FileLock, Moment, Random, Sender};

/// The queue, as sessions, the monitor and the control socket see it.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<QueueShared>,
}

/// What all handles share.
pub(super) struct QueueShared {
    pub(super) spool: Arc<Spool>,
    pub(super) events: Sender<ManagerEvent>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) settings: Settings,
    pub(super) messages_put: Counter,
    /// Messages begun and not yet committed or dropped.
    pub(super) incoming_count: AtomicUsize,
    pub(super) is_stopping: AtomicBool,
    /// Given back when the last of those who could still write is gone: a session that commits late
    /// must not write into a spool that another process has opened.
    pub(super) _lock: Option<FileLock>,
}

/// A hint to the manager: look again. Never the only copy of anything.
pub(super) enum ManagerEvent {
    /// A message was put.
    Put {
        id: MessageId,
        envelope: Arc<Envelope>,
        /// When it came: its age counts from here.
        arrived_at: Moment,
    },
    /// An attempt is over.
    AttemptFinished(super::delivery_threads::AttemptResult),
    /// Try these messages now.
    Retry(HashSet<MessageId>),
    /// A command wants this message for itself; a claim on it speaks by `news`.
    Claim { id: MessageId, reply_to: Sender<ClaimReply>, events: Sender<ManagerEvent> },
    /// A command is done with it.
    ClaimReturned { id: MessageId, due: Option<Moment>, next_step: AfterClaim },
    /// Hand out no more attempts.
    Stop,
}

/// Why a message was not taken. The sender still has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// The queue holds `messages-max`, or the disk is full: 452 4.3.1.
    #[error("the queue or its disk is full")]
    Full,
    /// The disk failed: 451 4.3.0.
    #[error("the spool cannot be written: {0}")]
    Io(String),
    /// We are about to stop: 421 4.3.2.
    #[error("the server is stopping")]
    Stopping,
}

impl From<io::Error> for PutError {
    fn from(error: io::Error) -> Self {
        if is_disk_full_error(error.kind()) { Self::Full } else { Self::Io(error.to_string()) }
    }
}

/// A queued message, as the queue dump shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedMessage {
    /// Its name.
    pub id: MessageId,
    /// When it came.
    pub arrived: Timestamp,
    /// How long it has been with us, whatever the wall clock did meanwhile.
    pub age: Duration,
    /// Length of the message, without what we add.
    pub octets: u64,
    /// Where failures are reported.
    pub reverse_path: ReversePath,
    /// Rounds of attempts so far.
    pub attempts: u32,
    /// When it is due, as last written down; `retry` may have brought that forward. Nothing: it is due
    /// now, and tried when its turn comes or its destination is probed.
    pub due: Option<Timestamp>,
    /// It is not tried before somebody releases it.
    pub is_held: bool,
    /// One for each recipient, in the envelope's order.
    pub recipients: Vec<QueuedRecipient>,
}

/// One recipient of a queued message.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedRecipient {
    /// Who.
    pub recipient: Recipient,
    /// Where it stands, with what was heard last.
    pub state: RecipientState,
}

impl QueuedMessage {
    pub(super) fn new(envelope: &Envelope, progress: MessageProgress, octets: u64, ages: &AgeClock) -> Self {
        let recipients = envelope.recipients.iter().cloned().zip(progress.states);
        Self {
            id: envelope.id,
            arrived: envelope.arrived_at,
            age: ages.age(envelope),
            octets,
            reverse_path: envelope.reverse_path.clone(),
            attempts: progress.attempts,
            due: ages.to_wall(progress.due),
            is_held: progress.is_held,
            recipients: recipients.map(|(recipient, state)| QueuedRecipient { recipient, state }).collect(),
        }
    }
}

impl Handle {
    pub(super) fn new(shared: Arc<QueueShared>) -> Self {
        Self { shared }
    }

    /// Begins to take a message, and gives it its id.
    ///
    /// # Errors
    /// [`PutError::Full`] at `messages-max` and while the disk is full, [`PutError::Stopping`] after [`Handle::stop`].
    pub fn begin(&self) -> Result<IncomingMessage, PutError> {
        let shared = &self.shared;
        if shared.is_stopping.load(Ordering::Acquire) {
            return Err(PutError::Stopping);
        }
        let coming = shared.incoming_count.load(Ordering::Relaxed);
        if shared.spool.count() + coming >= shared.settings.messages_max || self.is_disk_full() {
            return Err(PutError::Full);
        }
        self.begin_generated()
    }

    /// The disk is known to be full: no message can be put until it has room again.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.shared.spool.is_disk_full()
    }

    /// Begins a message of our own: exempt from `messages-max`, and possible while stopping, so
    /// that no report is lost. For [`super::OwnMail`] only.
    ///
    /// # Errors
    /// None so far; the disk speaks later.
    pub fn begin_generated(&self) -> Result<IncomingMessage, PutError> {
        let id = MessageId::new(self.wall(), self.shared.random.bits());
        self.shared.incoming_count.fetch_add(1, Ordering::Relaxed);
        Ok(IncomingMessage {
            shared: Arc::clone(&self.shared),
            id,
            octets: 0,
            content: IncomingContent::InMemory(Vec::new()),
        })
    }

    /// The wall clock of the queue.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.shared.clock.wall_time()
    }

    /// Messages in our care.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.spool.count()
    }

    /// One message; nothing if it is not, or no longer, in our care, or cannot be read.
    #[must_use]
    pub fn message(&self, id: &MessageId) -> Option<QueuedMessage> {
        let loaded = match self.shared.spool.load(id) {
            Ok(loaded) => loaded,
            Err(LoadError::NotQueued | LoadError::FileMissing) => return None,
            Err(e) => {
                log::warn!(target: "queue", "{id} cannot be shown: {e}");
                return None;
            }
        };
        Some(QueuedMessage::new(
            &loaded.envelope,
            loaded.progress,
            loaded.octets,
            &self.shared.spool.age_clock,
        ))
    }

    /// Begins to stop: no more attempts are handed out and no message can be begun. What has
    /// been begun may still be committed; attempts under way may come back.
    pub fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        let _ = self.shared.events.send(ManagerEvent::Stop);
    }
}

/// A message on its way in. Dropped without [`Incoming::commit`], nothing remains of it.
pub struct IncomingMessage {
    shared: Arc<QueueShared>,
    id: MessageId,
    octets: u64,
    content: IncomingContent,
}

enum IncomingContent {
    /// In memory, on its way to the journal.
    InMemory(Vec<u8>),
    /// In a file of its own.
    InFile(MessageFileWriter),
}

impl IncomingMessage {
    /// The message's id: for the stamp, the log and the reply.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// Octets appended so far.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Adds octets as they go out: CRLF line ends, not dot-stuffed. What comes in small pieces is
    /// collected; a message over `small_octets_max` goes to disk from there on.
    ///
    /// # Errors
    /// The disk refused; drop the value.
    pub fn append(&mut self, octets: &[u8]) -> Result<(), PutError> {
        self.octets += octets.len() as u64;
        match &mut self.content {
            IncomingContent::InFile(draft) => draft.append(octets)?,
            IncomingContent::InMemory(held)
                if held.len() + octets.len() <= self.shared.settings.journal_message_octets_max =>
            {
                held.extend_from_slice(octets);
            }
            IncomingContent::InMemory(held) => {
                let mut draft = self.shared.spool.create_message_file(&self.id)?;
                draft.append(held)?;
                draft.append(octets)?;
                self.content = IncomingContent::InFile(draft);
            }
        }
        Ok(())
    }

    /// Lets `look` read the message as it would leave the queue with this envelope.
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
                let mut whole = envelope.added_fields.clone().into_bytes();
                let place = |octets: u64| usize::try_from(octets).unwrap_or(usize::MAX);
                for (start, end) in sent_ranges(envelope, held.len() as u64) {
                    whole.extend_from_slice(held.get(place(start)..place(end)).unwrap_or_default());
                }
                if !whole.ends_with(b"\r\n") {
                    whole.extend_from_slice(b"\r\n");
                }
                Ok(look(&mut whole.as_slice()))
            }
            IncomingContent::InFile(draft) => {
                let octets = OutgoingContent::new(draft.extent()?, envelope)?;
                Ok(look(&mut octets.open()?))
            }
        }
    }

    /// The promise: octets, envelope and name are durable when this returns `Ok`. The envelope's
    /// id must be this message's; it is set to it.
    ///
    /// # Errors
    /// The disk refused: the message is not ours. After a failed sync it may come to life again
    /// at the next start all the same, as a duplicate; never half of it.
    pub fn commit(mut self, mut envelope: Envelope) -> Result<(), PutError> {
        envelope.id = self.id;
        envelope.queued_at = Some(self.shared.spool.age_clock.now());
        let since = self.shared.clock.now();
        match std::mem::replace(&mut self.content, IncomingContent::InMemory(Vec::new())) {
            IncomingContent::InMemory(octets) => self.shared.spool.put_in_journal(&envelope, &octets)?,
            IncomingContent::InFile(draft) => self.shared.spool.put_as_file(draft, &envelope)?,
        }
        self.shared.messages_put.add_one();
        // A manager that has ended does not hear; the next one finds the message on disk.
        let _ = self.shared.events.send(ManagerEvent::Put {
            id: self.id,
            envelope: Arc::new(envelope),
            arrived_at: since,
        });
        Ok(())
    }
}

impl Drop for IncomingMessage {
    fn drop(&mut self) {
        self.shared.incoming_count.fetch_sub(1, Ordering::Relaxed);
    }
}
