//! Password hashes that other programs made: scrypt (RFC 7914) and bcrypt. They are verified here, never made.
//!
//! The parameters in a hash determine how much work it takes. They are limited when the file is read, so that a
//! wrong or hostile file does not overload the host at the first login.

use argon2::password_hash::phc::PasswordHash;
use scrypt::Scrypt;
use scrypt::password_hash::PasswordVerifier as _;

/// Most lanes of scrypt (its parameter p), which are computed one after the other.
const SCRYPT_LANES_MAX: u32 = 4;

/// Largest cost of bcrypt, which takes about a second.
const BCRYPT_COST_MAX: u32 = 14;

/// Checks that a scrypt hash can be computed with at most `memory_kib_max` KiB. The error continues "the
/// credential …".
pub(super) fn check_scrypt(hash: &PasswordHash, memory_kib_max: u32) -> Result<(), String> {
    let params = scrypt::Params::try_from(&hash.params)
        .map_err(|e| format!("has parameters that scrypt refuses: {e}"))?;
    // RFC 7914 §5: 128 * r * N octets, once.
    let memory_kib = u64::from(params.r()).saturating_mul(params.n()) / 8;
    if memory_kib > u64::from(memory_kib_max) || params.p() > SCRYPT_LANES_MAX {
        return Err(format!("asks for more than {memory_kib_max} KiB of memory or {SCRYPT_LANES_MAX} lanes"));
    }
    Ok(())
}

/// Whether a checked scrypt hash was made from the password.
pub(super) fn verify_scrypt(password: &[u8], phc: &str) -> bool {
    PasswordHash::new(phc).is_ok_and(|hash| Scrypt::new().verify_password(password, &hash).is_ok())
}

/// Checks that a bcrypt hash can be computed within the limits. The error continues "the credential …".
pub(super) fn check_bcrypt(crypt: &str) -> Result<(), String> {
    let parts: bcrypt::HashParts = crypt.parse().map_err(|_| "is not a bcrypt hash".to_owned())?;
    // Version 2x marks hashes of a faulty program, which are wrong for non-ASCII passwords.
    if !["$2a$", "$2b$", "$2y$"].iter().any(|version| crypt.starts_with(version)) {
        return Err("is a bcrypt hash of a version other than 2a, 2b and 2y".to_owned());
    }
    if parts.get_cost() > BCRYPT_COST_MAX {
        return Err(format!("asks for a cost of {}, more than {BCRYPT_COST_MAX}", parts.get_cost()));
    }
    Ok(())
}

/// Whether a checked bcrypt hash was made from the password, of which bcrypt uses the first 72 octets.
pub(super) fn verify_bcrypt(password: &[u8], crypt: &str) -> bool {
    bcrypt::verify(password, crypt).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the documentation of passlib.
    const SCRYPT: &str =
        "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E";
    /// From the test vectors of OpenBSD's bcrypt, as crypt_blowfish has them.
    const BCRYPT: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

    const MEMORY_KIB_MAX: u32 = 64 * 1024;

    #[test]
    fn hashes_of_other_programs_are_verified() {
        assert_eq!(check_scrypt(&PasswordHash::new(SCRYPT).unwrap(), MEMORY_KIB_MAX), Ok(()));
        assert!(verify_scrypt(b"password", SCRYPT) && !verify_scrypt(b"Password", SCRYPT));
        for version in ["2a", "2b", "2y"] {
            let crypt = BCRYPT.replacen("2a", version, 1);
            assert_eq!(check_bcrypt(&crypt), Ok(()));
            assert!(verify_bcrypt(b"U*U", &crypt) && !verify_bcrypt(b"U*U*", &crypt), "{crypt}");
        }
    }

    #[test]
    fn a_hash_that_needs_too_much_work_is_refused() {
        for params in
            ["ln=17,r=8,p=1", "ln=16,r=9,p=1", "ln=16,r=8,p=5", "ln=40,r=8,p=1", "ln=14,r=99999999,p=1"]
        {
            let phc = SCRYPT.replace("ln=16,r=8,p=1", params);
            let checked = check_scrypt(&PasswordHash::new(&phc).unwrap(), MEMORY_KIB_MAX);
            assert!(checked.is_err(), "{params}");
        }
        assert!(check_bcrypt(&BCRYPT.replace("$05$", "$15$")).unwrap_err().contains("cost"));
        assert!(check_bcrypt(&BCRYPT.replace("2a", "2x")).unwrap_err().contains("version"));
        assert!(check_bcrypt("$2b$12$abc").is_err());
    }
}
