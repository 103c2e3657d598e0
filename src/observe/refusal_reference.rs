//! References of refusals: a client quotes one, and the operator finds the refusal in the log and the traces.

use std::fmt;

use crate::sys::Random;

/// Crockford's base 32: no letter that looks like a digit (I, L, O), and no U. Eight symbols of five bits
/// are cut from a number below, which is less than an encoder with its specification.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CHARACTERS: usize = 8;

/// The reference of one refusal, such as `K7QD-3MXA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RefusalReference([u8; CHARACTERS]);

impl RefusalReference {
    /// A random reference; [`super::Traces::new_reference`] makes one that no kept trace has.
    #[must_use]
    pub fn draw(random: &dyn Random) -> Self {
        let mut bits = random.bits();
        Self(std::array::from_fn(|_| {
            let symbol = ALPHABET.get((bits % 32) as usize).copied().unwrap_or(b'0');
            bits /= 32;
            symbol
        }))
    }
}

impl fmt::Display for RefusalReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, symbol) in self.0.iter().enumerate() {
            if n == CHARACTERS / 2 {
                f.write_str("-")?;
            }
            write!(f, "{}", char::from(*symbol))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::SeededRandom;

    #[test]
    fn a_reference_is_two_groups_of_four_symbols() {
        let random = SeededRandom::new(1);
        for _ in 0..100 {
            let text = RefusalReference::draw(&random).to_string();
            assert_eq!((text.len(), text.find('-')), (CHARACTERS + 1, Some(4)), "{text}");
            assert!(text.bytes().all(|octet| octet == b'-' || ALPHABET.contains(&octet)), "{text}");
        }
    }
}
