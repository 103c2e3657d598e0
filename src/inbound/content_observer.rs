//! The interface of everything that reads a message while it arrives.
//!
//! An observer collects a result and refuses nothing. `Arrival::commit` in `content` reads the result after the
//! last octet, and makes the refusal.

/// Reads the octets of an arriving message: each once, in order, in pieces of any size.
pub trait ContentObserver {
    /// The next octets of the message.
    fn feed(&mut self, octets: &[u8]);

    /// The message is complete.
    fn finish(&mut self);
}
