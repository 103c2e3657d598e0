//! Channels without a bound, between threads.
//!
//! In a shipped program these are crossbeam's, under our names. In test builds they are choice points of a
//! `scheduler` on its actors, and crossbeam's on all other threads; they have the methods that we use.

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

    /// One end of a channel; dropped after crossbeam's, so that those who wait see that it is gone.
    #[derive(Clone)]
    struct ChannelEnd {
        /// Shared by all ends of a channel: its address is the channel's key. Not of size zero, which
        /// need not have an address of its own.
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
            if let Some(here) = current_actor() {
                here.release(self.key(), Operation::without_location::<Self>(self.drop_description));
            }
        }
    }

    /// Sends; clones send to the same channel.
    pub struct Sender<T> {
        plain: crossbeam_channel::Sender<T>,
        end: ChannelEnd,
    }

    impl<T> Sender<T> {
        /// Sends; never waits.
        ///
        /// # Errors
        /// When all receivers are gone.
        #[track_caller]
        pub fn send(&self, message: T) -> Result<(), SendError<T>> {
            let Some(here) = current_actor() else { return self.plain.send(message) };
            here.scheduling_point(Operation::on::<T>("send"));
            let sent = self.plain.send(message);
            // A switch here lets the receiver act before the sender does anything else.
            here.wake(self.end.key());
            here.scheduling_point(Operation::on::<T>("sent"));
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

    /// Receives; each message goes to one of its clones.
    pub struct Receiver<T> {
        plain: crossbeam_channel::Receiver<T>,
        end: ChannelEnd,
    }

    impl<T> Receiver<T> {
        /// Waits for a message.
        ///
        /// # Errors
        /// When there is none and all senders are gone.
        #[track_caller]
        pub fn recv(&self) -> Result<T, RecvError> {
            let Some(here) = current_actor() else { return self.plain.recv() };
            self.receive_as(&here, &Operation::on::<T>("recv"), None).map_err(|_| RecvError)
        }

        /// Waits for a message, but not longer than this.
        ///
        /// # Errors
        /// When there is none by then, or all senders are gone.
        #[track_caller]
        pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
            let Some(here) = current_actor() else { return self.plain.recv_timeout(timeout) };
            self.receive_as(&here, &Operation::on::<T>("recv with a deadline"), Some(timeout))
        }

        /// A message that is there.
        ///
        /// # Errors
        /// When there is none.
        #[track_caller]
        pub fn try_recv(&self) -> Result<T, TryRecvError> {
            if let Some(here) = current_actor() {
                here.scheduling_point(Operation::on::<T>("try_recv"));
            }
            self.plain.try_recv()
        }

        /// Whether no message is there.
        #[track_caller]
        #[must_use]
        pub fn is_empty(&self) -> bool {
            self.len() == 0
        }

        /// How many messages are there.
        #[track_caller]
        #[must_use]
        pub fn len(&self) -> usize {
            if let Some(here) = current_actor() {
                here.scheduling_point(Operation::on::<T>("len"));
            }
            self.plain.len()
        }

        /// Waits for each message, until there is none and all senders are gone.
        pub fn iter(&self) -> Messages<'_, T> {
            Messages { receiver: self, is_blocking: true }
        }

        /// The messages that are there.
        pub fn try_iter(&self) -> Messages<'_, T> {
            Messages { receiver: self, is_blocking: false }
        }

        fn receive_as(
            &self,
            here: &CurrentActor,
            doing: &Operation,
            timeout: Option<Duration>,
        ) -> Result<T, RecvTimeoutError> {
            here.scheduling_point(doing.clone());
            let deadline = timeout.map(|timeout| here.now() + timeout);
            let mut is_late = false;
            loop {
                match self.plain.try_recv() {
                    Ok(message) => return Ok(message),
                    Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                    Err(TryRecvError::Empty) if is_late => return Err(RecvTimeoutError::Timeout),
                    Err(TryRecvError::Empty) if here.has_ended() && std::thread::panicking() => {
                        return Err(RecvTimeoutError::Disconnected);
                    }
                    Err(TryRecvError::Empty) => is_late = here.wait(self.end.key(), doing, deadline),
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
