//! SCRAM keys (RFC 5802 §3, RFC 7677): derived from a password, stored as text, compared with a password.
//!
//! The text has the format of PostgreSQL, `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY`, with everything
//! but the number in base64.

use std::num::NonZeroU32;
use std::path::Path;
use std::{fmt, io};

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::mail::ScramKeys;
use crate::sys::{Disk, Random, replace_file};

/// Iterations of new keys. A login costs the client as much as a guess costs a thief of the file, so there are
/// more than the 4096 of RFC 7677 §4; a telephone needs a tenth of a second.
pub(super) const ITERATIONS: u32 = 100_000;

/// Iterations that keys in a file may have. RFC 7677 §4 requires at least 4096; with the largest number a login
/// takes a second.
const ITERATIONS_RANGE: std::ops::RangeInclusive<u32> = 4096..=1_000_000;

/// Octets of the salt of new keys.
const SALT_OCTETS: usize = 16;

/// Octets that a salt in a file may have; a longer one would not fit into the challenge.
const SALT_OCTETS_RANGE: std::ops::RangeInclusive<usize> = 8..=64;

const SCHEME_PREFIX: &str = "SCRAM-SHA-256$";

/// Derives the keys of a prepared password.
pub(super) fn derive_keys(password: &[u8], salt: Vec<u8>, iterations: u32) -> ScramKeys {
    let rounds = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password, &mut salted);
    let client_key = hmac_sha256(&salted, b"Client Key");
    let mut stored_key = [0; 32];
    stored_key.copy_from_slice(digest::digest(&digest::SHA256, &client_key).as_ref());
    ScramKeys { salt, iterations, stored_key, server_key: hmac_sha256(&salted, b"Server Key") }
}

/// New keys of a prepared password, with a random salt.
pub(super) fn generate_keys(password: &[u8], random: &dyn Random) -> ScramKeys {
    let salt = (0..SALT_OCTETS / 8).flat_map(|_| random.bits().to_be_bytes()).collect();
    derive_keys(password, salt, ITERATIONS)
}

/// Whether the keys were derived from this password.
pub(super) fn verify(password: &[u8], stored: &ScramKeys) -> bool {
    let derived = derive_keys(password, stored.salt.clone(), stored.iterations);
    constant_time::verify_slices_are_equal(&derived.stored_key, &stored.stored_key).is_ok()
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut octets = [0; 32];
    octets.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref());
    octets
}

/// The keys as text for a users file.
pub(super) fn to_text(keys: &ScramKeys) -> String {
    let ScramKeys { salt, iterations, stored_key, server_key } = keys;
    let [salt, stored_key, server_key] =
        [salt.as_slice(), stored_key, server_key].map(|octets| STANDARD.encode(octets));
    format!("{SCHEME_PREFIX}{iterations}:{salt}${stored_key}:{server_key}")
}

/// Whether the word is meant as SCRAM keys.
pub(super) fn has_scheme_prefix(word: &str) -> bool {
    word.starts_with(SCHEME_PREFIX)
}

/// Parses the text of a users file. The error continues "the credential …".
pub(super) fn parse(text: &str) -> Result<ScramKeys, String> {
    let (iterations, keys) = decode(text).ok_or("is not SCRAM keys: ITERATIONS:SALT$STOREDKEY:SERVERKEY")?;
    let ScramKeys { salt, .. } = &keys;
    if !ITERATIONS_RANGE.contains(&iterations) {
        let (fewest, most) = (ITERATIONS_RANGE.start(), ITERATIONS_RANGE.end());
        return Err(format!("has {iterations} iterations, and must have from {fewest} to {most}"));
    }
    if !SALT_OCTETS_RANGE.contains(&salt.len()) {
        let (least, most) = (SALT_OCTETS_RANGE.start(), SALT_OCTETS_RANGE.end());
        return Err(format!("has a salt of {} octets, and must have from {least} to {most}", salt.len()));
    }
    Ok(keys)
}

fn decode(text: &str) -> Option<(u32, ScramKeys)> {
    let (head, tail) = text.strip_prefix(SCHEME_PREFIX)?.split_once('$')?;
    let (iterations, salt) = head.split_once(':')?;
    let (stored_key, server_key) = tail.split_once(':')?;
    let key = |text: &str| STANDARD.decode(text).ok()?.try_into().ok();
    let iterations = iterations.parse().ok()?;
    let salt = STANDARD.decode(salt).ok()?;
    Some((
        iterations,
        ScramKeys { salt, iterations, stored_key: key(stored_key)?, server_key: key(server_key)? },
    ))
}

/// Makes decoy keys for unknown users. They are the same for a name each time, also after a restart, so that a
/// salt does not show which users exist.
pub struct DecoyKeys([u8; 32]);

impl fmt::Debug for DecoyKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecoyKeys(…)")
    }
}

impl DecoyKeys {
    /// A new, unpredictable secret for decoy keys.
    #[must_use]
    pub fn new(random: &dyn Random) -> Self {
        let mut secret = [0; 32];
        for octets in secret.chunks_mut(8) {
            octets.copy_from_slice(&random.bits().to_be_bytes());
        }
        Self(secret)
    }

    /// The secret from `file`, which is created if it is missing and replaced if it is invalid.
    ///
    /// # Errors
    /// As the file system says.
    pub fn load_or_create(disk: &dyn Disk, random: &dyn Random, file: &Path) -> io::Result<Self> {
        let text = match disk.open(file) {
            Ok(open) => open.read_range(0, 100)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        if let Some(secret) =
            STANDARD.decode(text.trim_ascii_end()).ok().and_then(|octets| octets.try_into().ok())
        {
            return Ok(Self(secret));
        }
        let new = Self::new(random);
        replace_file(disk, random, file, format!("{}\n", STANDARD.encode(new.0)).as_bytes())?;
        Ok(new)
    }

    /// Decoy keys for a name in its canonical spelling. No password matches them.
    pub(super) fn keys_for(&self, name: &str) -> ScramKeys {
        let part = |of: &str| hmac_sha256(&self.0, format!("{of} {name}").as_bytes());
        ScramKeys {
            salt: part("salt").into_iter().take(SALT_OCTETS).collect(),
            iterations: ITERATIONS,
            stored_key: part("stored"),
            server_key: part("server"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{SystemDisk, SystemRandom};

    /// RFC 7677 §3: the password is "pencil".
    const VECTOR: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
                          $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn the_keys_of_rfc_7677_are_derived_and_parsed() {
        let read = parse(VECTOR).unwrap();
        assert_eq!(derive_keys(b"pencil", read.salt.clone(), 4096), read);
        assert_eq!(to_text(&read), VECTOR);
        assert!(verify(b"pencil", &read) && !verify(b"pencils", &read));
    }

    #[test]
    fn new_keys_have_a_random_salt_and_can_be_parsed() {
        let keys = generate_keys(b"pencil", &SystemRandom);
        assert_eq!(parse(&to_text(&keys)), Ok(keys.clone()));
        assert_ne!(generate_keys(b"pencil", &SystemRandom).salt, keys.salt);
    }

    #[test]
    fn keys_that_are_malformed_too_weak_or_too_much_work_are_refused() {
        for (from, to) in [
            ("4096", "4095"),
            ("4096", "1000001"),
            ("4096", "4294967296"),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", "AAAA"),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", &"AAAA".repeat(22)),
            (":wfPL", "$wfPL"),
            ("WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=", "WG5d"),
        ] {
            assert!(parse(&VECTOR.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn decoy_keys_of_a_name_stay_the_same_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("decoy-key");
        let open = || DecoyKeys::load_or_create(&SystemDisk, &SystemRandom, &file).unwrap();
        let (first, second) = (open(), open());
        assert_eq!(first.keys_for("ana"), second.keys_for("ana"));
        assert_ne!(first.keys_for("ana").salt, first.keys_for("bo").salt);
        assert_ne!(first.keys_for("ana").salt, DecoyKeys::new(&SystemRandom).keys_for("ana").salt);
        assert_eq!(first.keys_for("ana").salt.len(), SALT_OCTETS);
        assert!(parse(&to_text(&first.keys_for("ana"))).is_ok(), "decoy keys look like real keys");
    }
}
