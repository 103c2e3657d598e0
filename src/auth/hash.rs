//! Password hashes: argon2id (RFC 9106) as PHC strings, at most two computed at once.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, PasswordHasher as _, Version};
use crossbeam_channel::{Receiver, Sender, bounded};

/// Hashes computed at once. Each needs 19 MiB, and a small host has two cores.
const AT_ONCE: usize = 2;

/// A login that has waited so long for its turn is put off instead.
const TURN_MAX: Duration = Duration::from_secs(20);

/// Most memory that a hash in a file may ask for, in KiB; ours ask for 19456 (19 MiB).
const MEMORY_KIB_MAX: u32 = 64 * 1024;

/// Most passes over that memory that a hash in a file may ask for; ours ask for 2.
const PASSES_MAX: u32 = 16;

/// The hash of a password that nobody has, with the parameters of those we make.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmU$ddK/8o4emEzA5MmIXmnKeSZeROZZ2EiRdwYO62s9Qzk";

/// A password that could not be hashed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Nobody should have none.
    #[error("the password is empty")]
    Empty,
    /// No randomness or no memory.
    #[error("the password could not be hashed: {0}")]
    Failed(String),
}

/// A new hash with a random salt, as a PHC string. Takes some 40 ms and 19 MiB.
///
/// # Errors
/// When the password is empty, or the host has no memory or randomness to give.
pub fn hash_password(password: &[u8]) -> Result<String, HashError> {
    if password.is_empty() {
        return Err(HashError::Empty);
    }
    let hash = Argon2::default().hash_password(password);
    hash.map(|hash: PasswordHash| hash.to_string()).map_err(|e| HashError::Failed(e.to_string()))
}

/// The text is a hash that we can compute, within bounds. The error goes on after "the credential".
pub(super) fn check(phc: &str) -> Result<(), String> {
    // The text is not repeated: it may be a password that somebody wrote here.
    let hash = PasswordHash::new(phc).map_err(|_| "is not a password hash in PHC form")?;
    if hash.algorithm.as_str() != "argon2id" {
        return Err(format!("is a {} hash, not argon2id", hash.algorithm));
    }
    let params = Params::try_from(&hash).map_err(|e| format!("has parameters that argon2 refuses: {e}"))?;
    if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX {
        return Err(format!("asks for more than {MEMORY_KIB_MAX} KiB of memory or {PASSES_MAX} passes"));
    }
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("is not complete".to_owned());
    }
    Ok(())
}

/// What a hash is computed in; empty until it is used for the first time.
type Memory = Vec<Block>;

/// Compares passwords with hashes, a few at once.
///
/// The memory is kept and used again. Got anew by each session's thread, it would stay behind in
/// glibc's arena of that thread: 19 MiB for each of the arenas, of which there are eight a core.
pub(super) struct Hasher {
    /// Who holds one of the memories in here may compute.
    take: Receiver<Memory>,
    give_back: Sender<Memory>,
    runs: AtomicU64,
}

impl fmt::Debug for Hasher {
    // Not the memory: passwords have been in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("runs", &self.runs).finish_non_exhaustive()
    }
}

/// Gives the memory back, also when the computation panics.
struct Turn<'h> {
    memory: Memory,
    give_back: &'h Sender<Memory>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // There is room: this is the memory that was taken out.
        let _ = self.give_back.try_send(std::mem::take(&mut self.memory));
    }
}

impl Hasher {
    pub(super) fn new() -> Self {
        let (give_back, take) = bounded(AT_ONCE);
        for _ in 0..AT_ONCE {
            let _ = give_back.try_send(Memory::new());
        }
        Self { take, give_back, runs: AtomicU64::new(0) }
    }

    /// The password is the one behind `phc`. Without a hash the work is done all the same, and
    /// the answer is no. `None` if it was not our turn in time.
    pub(super) fn is_right(&self, password: &[u8], phc: Option<&str>) -> Option<bool> {
        let memory = self.take.recv_timeout(TURN_MAX).ok()?;
        let mut turn = Turn { memory, give_back: &self.give_back };
        self.runs.fetch_add(1, Ordering::Relaxed);
        // The PHC string was checked when its file was read.
        let is_equal = PasswordHash::new(phc.unwrap_or(NOBODY))
            .is_ok_and(|hash| is_equal(password, &hash, &mut turn.memory));
        Some(is_equal && phc.is_some())
    }

    pub(super) fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }
}

/// What [`argon2::PasswordVerifier`] does, in memory that is given.
fn is_equal(password: &[u8], hash: &PasswordHash, memory: &mut Memory) -> bool {
    let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else { return false };
    let (Ok(algorithm), Ok(version), Ok(params)) = (
        Algorithm::try_from(hash.algorithm.as_str()),
        hash.version.map_or(Ok(Version::default()), Version::try_from),
        Params::try_from(hash),
    ) else {
        return false;
    };
    memory.resize(params.block_count(), Block::default());
    let argon2 = Argon2::new(algorithm, version, params);
    let mut computed = vec![0; expected.len()];
    argon2.hash_password_into_with_memory(password, salt, &mut computed, memory.as_mut_slice()).is_ok()
        // An output compares itself in constant time.
        && Output::new(&computed).is_ok_and(|computed| computed == *expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_right_only_with_its_own_hash() {
        let hasher = Hasher::new();
        let phc = hash_password(b"correct horse").unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert_eq!(check(&phc), Ok(()));
        assert_ne!(phc, hash_password(b"correct horse").unwrap(), "salts differ");
        assert_eq!(hasher.is_right(b"correct horse", Some(&phc)), Some(true));
        assert_eq!(hasher.is_right(b"correct horsE", Some(&phc)), Some(false));
        assert_eq!(hasher.is_right(b"", Some(&phc)), Some(false));
        assert_eq!(hash_password(b""), Err(HashError::Empty));
    }

    #[test]
    fn the_hash_of_nobody_costs_what_a_hash_costs() {
        assert_eq!(check(NOBODY), Ok(()));
        let nobody = Params::try_from(&PasswordHash::new(NOBODY).unwrap()).unwrap();
        assert_eq!(nobody.m_cost(), Params::default().m_cost());
        assert_eq!(nobody.t_cost(), Params::default().t_cost());
        assert_eq!(nobody.p_cost(), Params::default().p_cost());
    }

    #[test]
    fn memory_is_used_again_by_hashes_of_every_size() {
        let hasher = Hasher::new();
        let small = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        let small: PasswordHash = small.hash_password(b"correct horse").unwrap();
        let (small, ours) = (small.to_string(), hash_password(b"correct horse").unwrap());
        for phc in [&ours, &ours, &small, &ours, &small, &small, &ours] {
            assert_eq!(hasher.is_right(b"correct horse", Some(phc)), Some(true), "{phc}");
            assert_eq!(hasher.is_right(b"correct horsE", Some(phc)), Some(false), "{phc}");
        }
    }

    #[test]
    fn a_turn_is_given_back() {
        let hasher = Hasher::new();
        for _ in 0..AT_ONCE * 2 {
            assert_eq!(hasher.is_right(b"x", Some("not a hash")), Some(false));
        }
        assert_eq!(hasher.runs(), AT_ONCE as u64 * 2);
    }
}
