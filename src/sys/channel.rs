//! Channels without a bound, between threads.
//!
//! In a shipped program these are the channels of crossbeam. In a test build, on an actor of a `scheduler`, each
//! call is a point at which the scheduler may let another actor run; on all other threads they behave like
//! those of crossbeam. They have only the methods that this program uses.

#[cfg(not(any(test, feature = "fakes")))]
pub use crossbeam_channel::{Receiver, Sender, unbounded as channel};
pub use crossbeam_channel::{RecvError, RecvTimeoutError, SendError, TryRecvError};
#[cfg(any(test, feature = "fakes"))]
pub use scheduled::{Receiver, Sender, channel};

#[cfg(any(test, feature = "fakes"))]
mod scheduled {
    use std::fmt;
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::scheduler::{CurrentActor, Operation, WaitKey, current_actor};
    use super::{RecvError, RecvTimeoutError, SendError, TryRecvError};

    /// A channel that takes any number of messages.
    #[must_use]
    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let key = Arc::new(0);
        let sender = Sender {
            plain: sender,
            end: ChannelEnd { key: Arc::clone(&key), drop_description: "dropped a sender of" },
        };
        let receiver =
            Receiver { plain: receiver, end: ChannelEnd { key, drop_description: "dropped a receiver of" } };
        (sender, receiver)
    }

    /// One end of a channel; dropped after crossbeam's end, so that waiting actors see that that end is gone.
    #[derive(Clone)]
    struct ChannelEnd {
        /// Shared by all ends of a channel: its address is the key of the channel. Its size is not zero, because
        /// a value of size zero need not have an address of its own.
        key: Arc<u8>,
        drop_description: &'static str,
    }

    impl ChannelEnd {
        fn key(&self) -> WaitKey {
            WaitKey::of(self.key.as_ref())
        }
    }

    impl Drop for ChannelEnd {
        fn drop(&mut self) {
            if let Some(actor) = current_actor() {
                actor.release(self.key(), Operation::without_location::<Self>(self.drop_description));
            }
        }
    }

    /// The sending end of a channel; its clones send to the same channel.
    pub struct Sender<T> {
        plain: crossbeam_channel::Sender<T>,
        end: ChannelEnd,
    }

    impl<T> Sender<T> {
        /// Sends without waiting.
        ///
        /// # Errors
        /// When all receivers are gone.
        #[track_caller]
        pub fn send(&self, message: T) -> Result<(), SendError<T>> {
            let Some(actor) = current_actor() else { return self.plain.send(message) };
            actor.scheduling_point(Operation::on::<T>("send"));
            let sent = self.plain.send(message);
            // A switch here lets the receiver act before the sender does anything else.
            actor.wake(self.end.key());
            actor.scheduling_point(Operation::on::<T>("sent"));
            sent
        }
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            Self { plain: self.plain.clone(), end: self.end.clone() }
        }
    }

    impl<T> fmt::Debug for Sender<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.plain.fmt(f)
        }
    }

    /// The receiving end of a channel; each message goes to one of its clones.
    pub struct Receiver<T> {
        plain: crossbeam_channel::Receiver<T>,
        end: ChannelEnd,
    }

    impl<T> Receiver<T> {
        /// Waits for a message.
        ///
        /// # Errors
        /// When there is no message and all senders are gone.
        #[track_caller]
        pub fn recv(&self) -> Result<T, RecvError> {
            let Some(actor) = current_actor() else { return self.plain.recv() };
            self.receive_as(&actor, &Operation::on::<T>("recv"), None).map_err(|_| RecvError)
        }

        /// Waits for a message, at most for `timeout`.
        ///
        /// # Errors
        /// When there is no message by then, or all senders are gone.
        #[track_caller]
        pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
            let Some(actor) = current_actor() else { return self.plain.recv_timeout(timeout) };
            self.receive_as(&actor, &Operation::on::<T>("recv with a deadline"), Some(timeout))
        }

        /// Takes a message without waiting.
        ///
        /// # Errors
        /// When there is no message.
        #[track_caller]
        pub fn try_recv(&self) -> Result<T, TryRecvError> {
            if let Some(actor) = current_actor() {
                actor.scheduling_point(Operation::on::<T>("try_recv"));
            }
            self.plain.try_recv()
        }

        /// Whether the channel has no message.
        #[track_caller]
        #[must_use]
        pub fn is_empty(&self) -> bool {
            self.len() == 0
        }

        /// How many messages the channel has.
        #[track_caller]
        #[must_use]
        pub fn len(&self) -> usize {
            if let Some(actor) = current_actor() {
                actor.scheduling_point(Operation::on::<T>("len"));
            }
            self.plain.len()
        }

        /// Waits for each message, until there is no more and all senders are gone.
        pub fn iter(&self) -> Messages<'_, T> {
            Messages { receiver: self, is_blocking: true }
        }

        /// The messages of the channel, without waiting.
        pub fn try_iter(&self) -> Messages<'_, T> {
            Messages { receiver: self, is_blocking: false }
        }

        fn receive_as(
            &self,
            actor: &CurrentActor,
            operation: &Operation,
            timeout: Option<Duration>,
        ) -> Result<T, RecvTimeoutError> {
            actor.scheduling_point(operation.clone());
            let deadline = timeout.map(|timeout| actor.now() + timeout);
            let mut is_late = false;
            loop {
                match self.plain.try_recv() {
                    Ok(message) => return Ok(message),
                    Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                    Err(TryRecvError::Empty) if is_late => return Err(RecvTimeoutError::Timeout),
                    Err(TryRecvError::Empty) if actor.has_ended() && std::thread::panicking() => {
                        return Err(RecvTimeoutError::Disconnected);
                    }
                    Err(TryRecvError::Empty) => is_late = actor.wait(self.end.key(), operation, deadline),
                }
            }
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            Self { plain: self.plain.clone(), end: self.end.clone() }
        }
    }

    impl<T> fmt::Debug for Receiver<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.plain.fmt(f)
        }
    }

    impl<'a, T> IntoIterator for &'a Receiver<T> {
        type Item = T;
        type IntoIter = Messages<'a, T>;

        fn into_iter(self) -> Messages<'a, T> {
            self.iter()
        }
    }

    /// The messages of a channel.
    pub struct Messages<'a, T> {
        receiver: &'a Receiver<T>,
        is_blocking: bool,
    }

    impl<T> Iterator for Messages<'_, T> {
        type Item = T;

        fn next(&mut self) -> Option<T> {
            if self.is_blocking { self.receiver.recv().ok() } else { self.receiver.try_recv().ok() }
        }
    }
}
