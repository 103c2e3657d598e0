//! Password hashes: argon2id (RFC 9106) as PHC strings, and those that were imported; at most two
//! computed at once.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, PasswordHasher as _, Version};
use crossbeam_channel::{Receiver, Sender, bounded};

use super::{imported, scram};
use crate::mail::ScramKeys;

/// Hashes computed at once. Each needs 19 MiB, and a small host has two cores.
const AT_ONCE: usize = 2;

/// A login that has waited so long for its turn is put off instead.
const TURN_MAX: Duration = Duration::from_secs(20);

/// Logins that may wait for their turn: some two seconds' worth. Those above are put off at once,
/// so that a flood of guesses does not make everybody wait for long.
const WAITING_MAX: usize = 100;

/// Most memory that a hash in a file may ask for, in KiB; ours ask for 19456 (19 MiB).
pub(super) const MEMORY_KIB_MAX: u32 = 64 * 1024;

/// Most passes over that memory that a hash in a file may ask for; ours ask for 2.
const PASSES_MAX: u32 = 16;

/// The hash of a password that nobody has, with the parameters of those we make.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmU$ddK/8o4emEzA5MmIXmnKeSZeROZZ2EiRdwYO62s9Qzk";

/// What is kept of a password.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kept<'a> {
    /// A hash that was checked.
    Hash(&'a str),
    /// Keys of SCRAM, where there is no hash.
    Scram(&'a ScramKeys),
}

/// A new hash of a prepared password, with a random salt, as a PHC string. Takes some 40 ms and
/// 19 MiB. `Err` says what the host has no more of.
pub(super) fn hash_password(password: &[u8]) -> Result<String, String> {
    let hash = Argon2::default().hash_password(password);
    hash.map(|hash: PasswordHash| hash.to_string()).map_err(|e| e.to_string())
}

/// What a hash is called that we can compute, within bounds. The error goes on after "the
/// credential".
pub(super) fn check(text: &str) -> Result<&'static str, String> {
    if text.starts_with("$2") {
        return imported::check_bcrypt(text).map(|()| "bcrypt");
    }
    // The text is not repeated: it may be a password that somebody wrote here.
    let hash = PasswordHash::new(text).map_err(|_| "is not a password hash")?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("is not complete".to_owned());
    }
    match hash.algorithm.as_str() {
        "argon2id" => check_argon2(&hash).map(|()| "argon2id"),
        "scrypt" => imported::check_scrypt(&hash).map(|()| "scrypt"),
        other => Err(format!("is a {other} hash, not argon2id, scrypt or bcrypt")),
    }
}

fn check_argon2(hash: &PasswordHash) -> Result<(), String> {
    let params = Params::try_from(hash).map_err(|e| format!("has parameters that argon2 refuses: {e}"))?;
    if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX {
        return Err(format!("asks for more than {MEMORY_KIB_MAX} KiB of memory or {PASSES_MAX} passes"));
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
    waiting: AtomicUsize,
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
        Self { take, give_back, waiting: AtomicUsize::new(0), runs: AtomicU64::new(0) }
    }

    /// The password is the one of which this was kept. With nothing kept the work is done all the
    /// same, and the answer is no. `None` if it was not our turn in time.
    pub(super) fn is_right(&self, password: &[u8], kept: Option<Kept<'_>>) -> Option<bool> {
        let mut turn = self.turn()?;
        self.runs.fetch_add(1, Ordering::Relaxed);
        let is_right = match kept.unwrap_or(Kept::Hash(NOBODY)) {
            Kept::Scram(keys) => scram::is_right(password, keys),
            Kept::Hash(hash) if hash.starts_with("$2") => imported::is_bcrypt(password, hash),
            Kept::Hash(hash) if hash.starts_with("$scrypt$") => imported::is_scrypt(password, hash),
            // It was checked when its file was read.
            Kept::Hash(hash) => {
                PasswordHash::new(hash).is_ok_and(|hash| is_equal(password, &hash, &mut turn.memory))
            }
        };
        Some(is_right && kept.is_some())
    }

    fn turn(&self) -> Option<Turn<'_>> {
        let turn = |memory| Turn { memory, give_back: &self.give_back };
        if let Ok(memory) = self.take.try_recv() {
            return Some(turn(memory));
        }
        let is_crowded = self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX;
        let memory = if is_crowded { None } else { self.take.recv_timeout(TURN_MAX).ok() };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        memory.map(turn)
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

    fn is_right(hasher: &Hasher, password: &[u8], hash: &str) -> Option<bool> {
        hasher.is_right(password, Some(Kept::Hash(hash)))
    }

    #[test]
    fn a_password_is_right_only_with_its_own_hash() {
        let hasher = Hasher::new();
        let phc = hash_password(b"correct horse").unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert_eq!(check(&phc), Ok("argon2id"));
        assert_ne!(phc, hash_password(b"correct horse").unwrap(), "salts differ");
        assert_eq!(is_right(&hasher, b"correct horse", &phc), Some(true));
        assert_eq!(is_right(&hasher, b"correct horsE", &phc), Some(false));
        assert_eq!(is_right(&hasher, b"", &phc), Some(false));
    }

    #[test]
    fn every_kind_of_hash_is_tried_in_its_own_way() {
        let hasher = Hasher::new();
        let scrypt = "$scrypt$ln=4,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$";
        let scrypt = {
            let params = scrypt::Params::new(4, 8, 1).unwrap();
            let salt = PasswordHash::new(&format!("{scrypt}AAAAAAAAAAAAAAAAAAAAAA")).unwrap().salt.unwrap();
            let mut output = [0; 32];
            scrypt::scrypt(b"U*U", &salt, &params, &mut output).unwrap();
            format!("{scrypt}{}", Output::new(&output).unwrap())
        };
        let bcrypt = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
        for (hash, scheme) in [(scrypt.as_str(), "scrypt"), (bcrypt, "bcrypt")] {
            assert_eq!(check(hash), Ok(scheme));
            assert_eq!(is_right(&hasher, b"U*U", hash), Some(true), "{scheme}");
            assert_eq!(is_right(&hasher, b"U*V", hash), Some(false), "{scheme}");
        }
        let keys = scram::keys(b"U*U", b"saltsalt".to_vec(), 4096);
        assert_eq!(hasher.is_right(b"U*U", Some(Kept::Scram(&keys))), Some(true));
        assert_eq!(hasher.is_right(b"U*V", Some(Kept::Scram(&keys))), Some(false));
        assert_eq!(hasher.runs(), 6);
    }

    #[test]
    fn who_comes_when_too_many_wait_is_put_off_at_once() {
        let hasher = Hasher::new();
        let turns: Vec<_> = (0..AT_ONCE).map(|_| hasher.turn().unwrap()).collect();
        hasher.waiting.store(WAITING_MAX, Ordering::Relaxed);
        assert_eq!(is_right(&hasher, b"x", NOBODY), None);
        drop(turns);
        assert_eq!(is_right(&hasher, b"x", NOBODY), Some(false));
        assert_eq!(hasher.waiting.load(Ordering::Relaxed), WAITING_MAX);
    }

    #[test]
    fn the_hash_of_nobody_costs_what_a_hash_costs() {
        assert_eq!(check(NOBODY), Ok("argon2id"));
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
            assert_eq!(is_right(&hasher, b"correct horse", phc), Some(true), "{phc}");
            assert_eq!(is_right(&hasher, b"correct horsE", phc), Some(false), "{phc}");
        }
    }

    #[test]
    fn a_turn_is_given_back() {
        let hasher = Hasher::new();
        for _ in 0..AT_ONCE * 2 {
            assert_eq!(is_right(&hasher, b"x", "not a hash"), Some(false));
        }
        assert_eq!(hasher.runs(), AT_ONCE as u64 * 2);
    }
}
