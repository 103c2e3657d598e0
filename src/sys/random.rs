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

/// The library's generator, seeded by the system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    /// # Panics
    /// If the system has no randomness to give: nothing we promise would hold then.
    fn bits(&self) -> u64 {
        let mut octets = [0; 8];
        #[expect(
            clippy::expect_used,
            reason = "without randomness no message id is unique; stopping is right"
        )]
        aws_lc_rs::rand::fill(&mut octets).expect("the system gives random octets");
        u64::from_ne_bytes(octets)
    }
}
