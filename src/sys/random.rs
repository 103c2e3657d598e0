//! Octets that nobody can guess: for message ids, jitter and DNS query ids.

/// A source of randomness.
pub trait Random: Send + Sync {
    /// 64 random bits.
    fn bits(&self) -> u64;

    /// A number below `end`, close to evenly; 0 if `end` is 0.
    fn below(&self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.bits() % end }
    }
}

/// The system's generator. The cryptographic library has one of its own, whose first octets take tens
/// of milliseconds: a start need not wait for that.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    /// # Panics
    /// If the system has no randomness to give: nothing we promise would hold then.
    fn bits(&self) -> u64 {
        #[expect(
            clippy::expect_used,
            reason = "without randomness no message id is unique; stopping is right"
        )]
        getrandom::u64().expect("the system gives random octets")
    }
}
