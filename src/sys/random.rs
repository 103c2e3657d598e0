//! Unpredictable numbers: for message ids, DNS query ids, salts, nonces, names of temporary files, and jitter.

/// A source of randomness.
pub trait Random: Send + Sync {
    /// 64 random bits.
    fn bits(&self) -> u64;

    /// A number below `end`, close to evenly; 0 if `end` is 0.
    fn below(&self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.bits() % end }
    }
}

/// The generator of the operating system. The generator of the cryptographic library takes tens of milliseconds
/// for its first octets, which would delay the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    /// # Panics
    /// If the operating system gives no random octets: ids would not be unique then.
    fn bits(&self) -> u64 {
        #[expect(
            clippy::expect_used,
            reason = "without randomness no message id is unique; stopping is right"
        )]
        getrandom::u64().expect("the system gives random octets")
    }
}
