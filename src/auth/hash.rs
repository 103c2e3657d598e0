//! Password hashes: argon2id (RFC 9106) as PHC strings, and those that were imported; at most two
//! computed at once.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, PasswordHasher as _, Version};
use crossbeam_channel::{Receiver, Sender, bounded};

use super::{imported_hash, scram};
use crate::mail::ScramKeys;

/// Hashes computed at once. Each needs 19 MiB, and a small host has two cores.
const HASHES_AT_ONCE_MAX: usize = 2;

/// A login that has waited so long for its turn is put off instead.
const PERMIT_WAIT_MAX: Duration = Duration::from_secs(20);

/// Logins that may wait for their turn: some two seconds' worth. Those above are put off at once,
/// so that a flood of guesses does not make everybody wait for long.
const WAITING_LOGINS_MAX: usize = 100;

/// Most memory that a hash in a file may ask for, in KiB; ours ask for 19456 (19 MiB).
const MEMORY_KIB_MAX: u32 = 64 * 1024;

/// Most passes over that memory that a hash in a file may ask for; ours ask for 2.
const PASSES_MAX: u32 = 16;

/// The hash of a password that nobody has, with the parameters of those we make.
const DECOY_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmU$ddK/8o4emEzA5MmIXmnKeSZeROZZ2EiRdwYO62s9Qzk";

/// What is kept of a password.
#[derive(Debug, Clone, Copy)]
pub(super) enum StoredPassword<'a> {
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
pub(super) fn check_hash(text: &str) -> Result<&'static str, String> {
    if text.starts_with("$2") {
        return imported_hash::check_bcrypt(text).map(|()| "bcrypt");
    }
    // The text is not repeated: it may be a password that somebody wrote here.
    let hash = PasswordHash::new(text).map_err(|_| "is not a password hash")?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("is not complete".to_owned());
    }
    match hash.algorithm.as_str() {
        "argon2id" => check_argon2(&hash).map(|()| "argon2id"),
        "scrypt" => imported_hash::check_scrypt(&hash, MEMORY_KIB_MAX).map(|()| "scrypt"),
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
type HashMemory = Vec<Block>;

/// Compares passwords with hashes, a few at once.
///
/// The memory is kept and used again. Got anew by each session's thread, it would stay behind in
/// glibc's arena of that thread: 19 MiB for each of the arenas, of which there are eight a core.
pub(super) struct PasswordVerifier {
    /// Who holds one of the memories in here may compute.
    available_memory: Receiver<HashMemory>,
    returned_memory: Sender<HashMemory>,
    waiting_logins: AtomicUsize,
    hashes_computed: AtomicU64,
}

impl fmt::Debug for PasswordVerifier {
    // Not the memory: passwords have been in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("runs", &self.hashes_computed).finish_non_exhaustive()
    }
}

/// Gives the memory back, also when the computation panics.
struct HashPermit<'h> {
    memory: HashMemory,
    returned_memory: &'h Sender<HashMemory>,
}

impl Drop for HashPermit<'_> {
    fn drop(&mut self) {
        // There is room: this is the memory that was taken out.
        let _ = self.returned_memory.try_send(std::mem::take(&mut self.memory));
    }
}

impl PasswordVerifier {
    pub(super) fn new() -> Self {
        let (give_back, take) = bounded(HASHES_AT_ONCE_MAX);
        for _ in 0..HASHES_AT_ONCE_MAX {
            let _ = give_back.try_send(HashMemory::new());
        }
        Self {
            available_memory: take,
            returned_memory: give_back,
            waiting_logins: AtomicUsize::new(0),
            hashes_computed: AtomicU64::new(0),
        }
    }

    /// The password is the one of which this was kept. With nothing kept the work is done all the
    /// same, and the answer is no. `None` if it was not our turn in time.
    pub(super) fn verify(&self, password: &[u8], kept: Option<StoredPassword<'_>>) -> Option<bool> {
        let mut turn = self.acquire_permit()?;
        self.hashes_computed.fetch_add(1, Ordering::Relaxed);
        let is_right = match kept.unwrap_or(StoredPassword::Hash(DECOY_HASH)) {
            StoredPassword::Scram(keys) => scram::verify(password, keys),
            StoredPassword::Hash(hash) if hash.starts_with("$2") => {
                imported_hash::verify_bcrypt(password, hash)
            }
            StoredPassword::Hash(hash) if hash.starts_with("$scrypt$") => {
                imported_hash::verify_scrypt(password, hash)
            }
            // It was checked when its file was read.
            StoredPassword::Hash(hash) => {
                PasswordHash::new(hash).is_ok_and(|hash| verify_argon2(password, &hash, &mut turn.memory))
            }
        };
        Some(is_right && kept.is_some())
    }

    fn acquire_permit(&self) -> Option<HashPermit<'_>> {
        let turn = |memory| HashPermit { memory, returned_memory: &self.returned_memory };
        if let Ok(memory) = self.available_memory.try_recv() {
            return Some(turn(memory));
        }
        let is_crowded = self.waiting_logins.fetch_add(1, Ordering::Relaxed) >= WAITING_LOGINS_MAX;
        let memory = if is_crowded { None } else { self.available_memory.recv_timeout(PERMIT_WAIT_MAX).ok() };
        self.waiting_logins.fetch_sub(1, Ordering::Relaxed);
        memory.map(turn)
    }

    pub(super) fn hashes_computed(&self) -> u64 {
        self.hashes_computed.load(Ordering::Relaxed)
    }
}

/// What [`argon2::PasswordVerifier`] does, in memory that is given.
fn verify_argon2(password: &[u8], hash: &PasswordHash, memory: &mut HashMemory) -> bool {
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

    fn verify_hash(hasher: &PasswordVerifier, password: &[u8], hash: &str) -> Option<bool> {
        hasher.verify(password, Some(StoredPassword::Hash(hash)))
    }

    #[test]
    fn a_password_is_right_only_with_its_own_hash() {
        let hasher = PasswordVerifier::new();
        let phc = hash_password(b"correct horse").unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert_eq!(check_hash(&phc), Ok("argon2id"));
        assert_ne!(phc, hash_password(b"correct horse").unwrap(), "salts differ");
        assert_eq!(verify_hash(&hasher, b"correct horse", &phc), Some(true));
        assert_eq!(verify_hash(&hasher, b"correct horsE", &phc), Some(false));
        assert_eq!(verify_hash(&hasher, b"", &phc), Some(false));
    }

    #[test]
    fn every_kind_of_hash_is_tried_in_its_own_way() {
        let hasher = PasswordVerifier::new();
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
            assert_eq!(check_hash(hash), Ok(scheme));
            assert_eq!(verify_hash(&hasher, b"U*U", hash), Some(true), "{scheme}");
            assert_eq!(verify_hash(&hasher, b"U*V", hash), Some(false), "{scheme}");
        }
        let keys = scram::derive_keys(b"U*U", b"saltsalt".to_vec(), 4096);
        assert_eq!(hasher.verify(b"U*U", Some(StoredPassword::Scram(&keys))), Some(true));
        assert_eq!(hasher.verify(b"U*V", Some(StoredPassword::Scram(&keys))), Some(false));
        assert_eq!(hasher.hashes_computed(), 6);
    }

    #[test]
    fn who_comes_when_too_many_wait_is_put_off_at_once() {
        let hasher = PasswordVerifier::new();
        let turns: Vec<_> = (0..HASHES_AT_ONCE_MAX).map(|_| hasher.acquire_permit().unwrap()).collect();
        hasher.waiting_logins.store(WAITING_LOGINS_MAX, Ordering::Relaxed);
        assert_eq!(verify_hash(&hasher, b"x", DECOY_HASH), None);
        drop(turns);
        assert_eq!(verify_hash(&hasher, b"x", DECOY_HASH), Some(false));
        assert_eq!(hasher.waiting_logins.load(Ordering::Relaxed), WAITING_LOGINS_MAX);
    }

    #[test]
    fn the_hash_of_nobody_costs_what_a_hash_costs() {
        assert_eq!(check_hash(DECOY_HASH), Ok("argon2id"));
        let nobody = Params::try_from(&PasswordHash::new(DECOY_HASH).unwrap()).unwrap();
        assert_eq!(nobody.m_cost(), Params::default().m_cost());
        assert_eq!(nobody.t_cost(), Params::default().t_cost());
        assert_eq!(nobody.p_cost(), Params::default().p_cost());
    }

    #[test]
    fn memory_is_used_again_by_hashes_of_every_size() {
        let hasher = PasswordVerifier::new();
        let small = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        let small: PasswordHash = small.hash_password(b"correct horse").unwrap();
        let (small, ours) = (small.to_string(), hash_password(b"correct horse").unwrap());
        for phc in [&ours, &ours, &small, &ours, &small, &small, &ours] {
            assert_eq!(verify_hash(&hasher, b"correct horse", phc), Some(true), "{phc}");
            assert_eq!(verify_hash(&hasher, b"correct horsE", phc), Some(false), "{phc}");
        }
    }

    #[test]
    fn a_turn_is_given_back() {
        let hasher = PasswordVerifier::new();
        for _ in 0..HASHES_AT_ONCE_MAX * 2 {
            assert_eq!(verify_hash(&hasher, b"x", "not a hash"), Some(false));
        }
        assert_eq!(hasher.hashes_computed(), HASHES_AT_ONCE_MAX as u64 * 2);
    }
}
