//! Password hashes: argon2id (RFC 9106) as PHC strings, and imported ones. At most two are computed at once.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, PasswordHasher as _, Version};
use crossbeam_channel::{Receiver, Sender, bounded};

use super::{imported_hash, scram};
use crate::mail::ScramKeys;

/// How many hashes are computed at once: each needs 19 MiB, and a small host has two cores.
const HASHES_AT_ONCE_MAX: usize = 2;

/// A login that has waited this long for its hash is deferred.
const PERMIT_WAIT_MAX: Duration = Duration::from_secs(20);

/// How many logins may wait for their hash: about two seconds of work. Further logins are deferred at once, so
/// that a flood of guesses does not delay all users for long.
const WAITING_LOGINS_MAX: usize = 100;

/// Most memory that a hash in a file may need, in KiB. The hashes made here need 19456 KiB (19 MiB).
const MEMORY_KIB_MAX: u32 = 64 * 1024;

/// Most passes over the memory that a hash in a file may need. The hashes made here need 2.
const PASSES_MAX: u32 = 16;

/// The hash of a password that no user has, with the parameters of the hashes that are made here.
const DECOY_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmU$ddK/8o4emEzA5MmIXmnKeSZeROZZ2EiRdwYO62s9Qzk";

/// The form in which a users file stores a password.
#[derive(Debug, Clone, Copy)]
pub(super) enum StoredPassword<'a> {
    /// A hash that [`check_hash`] has accepted.
    Hash(&'a str),
    /// Keys of SCRAM, if there is no hash.
    Scram(&'a ScramKeys),
}

/// A new hash of a prepared password, with a random salt, as a PHC string. Takes about 40 ms and 19 MiB. `Err`
/// says which resource of the host is exhausted.
pub(super) fn hash_password(password: &[u8]) -> Result<String, String> {
    let hash = Argon2::default().hash_password(password);
    hash.map(|hash: PasswordHash| hash.to_string()).map_err(|e| e.to_string())
}

/// Checks that a hash can be computed within the limits, and returns the name of its algorithm. The error
/// continues "the credential …".
pub(super) fn check_hash(text: &str) -> Result<&'static str, String> {
    if text.starts_with("$2") {
        return imported_hash::check_bcrypt(text).map(|()| "bcrypt");
    }
    // The text is not repeated, because it may be a password that was written here by mistake.
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

/// The memory in which a hash is computed; empty before its first use.
type HashMemory = Vec<Block>;

/// Compares passwords with hashes, at most two at once.
///
/// The memory of a hash is used again. If the thread of each session allocated it, 19 MiB would stay in the glibc
/// arena of that thread, and there are eight arenas for each core.
pub(super) struct PasswordVerifier {
    /// A thread that has received a memory from this channel may compute a hash.
    available_memory: Receiver<HashMemory>,
    returned_memory: Sender<HashMemory>,
    waiting_logins: AtomicUsize,
    hashes_computed: AtomicU64,
}

impl fmt::Debug for PasswordVerifier {
    // Without the memory, because passwords have been in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordVerifier")
            .field("hashes_computed", &self.hashes_computed)
            .finish_non_exhaustive()
    }
}

/// The right to compute a hash. Gives the memory back when it is dropped, also after a panic.
struct HashPermit<'h> {
    memory: HashMemory,
    returned_memory: &'h Sender<HashMemory>,
}

impl Drop for HashPermit<'_> {
    fn drop(&mut self) {
        // The channel has room, because this memory was taken from it.
        let _ = self.returned_memory.try_send(std::mem::take(&mut self.memory));
    }
}

impl PasswordVerifier {
    pub(super) fn new() -> Self {
        let (returned_memory, available_memory) = bounded(HASHES_AT_ONCE_MAX);
        for _ in 0..HASHES_AT_ONCE_MAX {
            let _ = returned_memory.try_send(HashMemory::new());
        }
        Self {
            available_memory,
            returned_memory,
            waiting_logins: AtomicUsize::new(0),
            hashes_computed: AtomicU64::new(0),
        }
    }

    /// Whether `stored` was made from the password. Without a stored password, the decoy hash is computed and the
    /// result is false. `None` if no hash could be computed in time.
    pub(super) fn verify(&self, password: &[u8], stored: Option<StoredPassword<'_>>) -> Option<bool> {
        let mut permit = self.acquire_permit()?;
        self.hashes_computed.fetch_add(1, Ordering::Relaxed);
        let is_right = match stored.unwrap_or(StoredPassword::Hash(DECOY_HASH)) {
            StoredPassword::Scram(keys) => scram::verify(password, keys),
            StoredPassword::Hash(hash) if hash.starts_with("$2") => {
                imported_hash::verify_bcrypt(password, hash)
            }
            StoredPassword::Hash(hash) if hash.starts_with("$scrypt$") => {
                imported_hash::verify_scrypt(password, hash)
            }
            // The hash was checked when its file was read.
            StoredPassword::Hash(hash) => {
                PasswordHash::new(hash).is_ok_and(|hash| verify_argon2(password, &hash, &mut permit.memory))
            }
        };
        Some(is_right && stored.is_some())
    }

    fn acquire_permit(&self) -> Option<HashPermit<'_>> {
        let permit = |memory| HashPermit { memory, returned_memory: &self.returned_memory };
        if let Ok(memory) = self.available_memory.try_recv() {
            return Some(permit(memory));
        }
        let is_overloaded = self.waiting_logins.fetch_add(1, Ordering::Relaxed) >= WAITING_LOGINS_MAX;
        let memory =
            if is_overloaded { None } else { self.available_memory.recv_timeout(PERMIT_WAIT_MAX).ok() };
        self.waiting_logins.fetch_sub(1, Ordering::Relaxed);
        memory.map(permit)
    }

    pub(super) fn hashes_computed(&self) -> u64 {
        self.hashes_computed.load(Ordering::Relaxed)
    }
}

/// [`argon2::PasswordVerifier`] with memory of the caller.
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
        // `Output` compares in constant time.
        && Output::new(&computed).is_ok_and(|computed| computed == *expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify_hash(verifier: &PasswordVerifier, password: &[u8], hash: &str) -> Option<bool> {
        verifier.verify(password, Some(StoredPassword::Hash(hash)))
    }

    #[test]
    fn a_password_matches_only_its_own_hash() {
        let verifier = PasswordVerifier::new();
        let phc = hash_password(b"correct horse").unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert_eq!(check_hash(&phc), Ok("argon2id"));
        assert_ne!(phc, hash_password(b"correct horse").unwrap(), "salts differ");
        assert_eq!(verify_hash(&verifier, b"correct horse", &phc), Some(true));
        assert_eq!(verify_hash(&verifier, b"correct horsE", &phc), Some(false));
        assert_eq!(verify_hash(&verifier, b"", &phc), Some(false));
    }

    #[test]
    fn each_kind_of_hash_is_verified_by_its_own_algorithm() {
        let verifier = PasswordVerifier::new();
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
            assert_eq!(verify_hash(&verifier, b"U*U", hash), Some(true), "{scheme}");
            assert_eq!(verify_hash(&verifier, b"U*V", hash), Some(false), "{scheme}");
        }
        let keys = scram::derive_keys(b"U*U", b"saltsalt".to_vec(), 4096);
        assert_eq!(verifier.verify(b"U*U", Some(StoredPassword::Scram(&keys))), Some(true));
        assert_eq!(verifier.verify(b"U*V", Some(StoredPassword::Scram(&keys))), Some(false));
        assert_eq!(verifier.hashes_computed(), 6);
    }

    #[test]
    fn a_login_is_deferred_at_once_when_too_many_wait() {
        let verifier = PasswordVerifier::new();
        let permits: Vec<_> = (0..HASHES_AT_ONCE_MAX).map(|_| verifier.acquire_permit().unwrap()).collect();
        verifier.waiting_logins.store(WAITING_LOGINS_MAX, Ordering::Relaxed);
        assert_eq!(verify_hash(&verifier, b"x", DECOY_HASH), None);
        drop(permits);
        assert_eq!(verify_hash(&verifier, b"x", DECOY_HASH), Some(false));
        assert_eq!(verifier.waiting_logins.load(Ordering::Relaxed), WAITING_LOGINS_MAX);
    }

    #[test]
    fn the_decoy_hash_has_the_parameters_of_a_new_hash() {
        assert_eq!(check_hash(DECOY_HASH), Ok("argon2id"));
        let decoy = Params::try_from(&PasswordHash::new(DECOY_HASH).unwrap()).unwrap();
        assert_eq!(decoy.m_cost(), Params::default().m_cost());
        assert_eq!(decoy.t_cost(), Params::default().t_cost());
        assert_eq!(decoy.p_cost(), Params::default().p_cost());
    }

    #[test]
    fn memory_is_reused_by_hashes_of_every_size() {
        let verifier = PasswordVerifier::new();
        let small = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        let small: PasswordHash = small.hash_password(b"correct horse").unwrap();
        let (small, new) = (small.to_string(), hash_password(b"correct horse").unwrap());
        for phc in [&new, &new, &small, &new, &small, &small, &new] {
            assert_eq!(verify_hash(&verifier, b"correct horse", phc), Some(true), "{phc}");
            assert_eq!(verify_hash(&verifier, b"correct horsE", phc), Some(false), "{phc}");
        }
    }

    #[test]
    fn a_permit_is_given_back() {
        let verifier = PasswordVerifier::new();
        for _ in 0..HASHES_AT_ONCE_MAX * 2 {
            assert_eq!(verify_hash(&verifier, b"x", "not a hash"), Some(false));
        }
        assert_eq!(verifier.hashes_computed(), HASHES_AT_ONCE_MAX as u64 * 2);
    }
}
