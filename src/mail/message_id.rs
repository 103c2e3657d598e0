//! The id of a message in the spool, the log and replies.
//!
//! Twenty characters of lower-case Crockford base 32: nine for the millisecond of arrival, so that ids sort
//! by time, and eleven random ones, so that ids are unique across restarts and clock changes. An id is safe
//! in file names and log lines, and case does not matter, so that it can be read out over a telephone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::timestamp::Timestamp;

/// A message id: sortable by time of arrival, unique across restarts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId([u8; Self::LENGTH]);

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TIME_DIGITS: u32 = 9;
const RANDOM_DIGITS: u32 = 11;

impl MessageId {
    /// Characters of an id.
    pub const LENGTH: usize = 20;

    /// The id of a message that arrives now; `random` makes it unique.
    #[must_use]
    pub fn new(now: Timestamp, random: u64) -> Self {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        let mut id = [b'0'; Self::LENGTH];
        let digits = (0..TIME_DIGITS)
            .rev()
            .map(|place| millis >> (5 * place))
            .chain((0..RANDOM_DIGITS).rev().map(|place| random >> (5 * place)));
        for (slot, digit) in id.iter_mut().zip(digits) {
            *slot = ALPHABET.get((digit & 31) as usize).copied().unwrap_or(b'0');
        }
        Self(id)
    }

    /// When the message arrived, by the wall clock.
    #[must_use]
    pub fn arrived_at(&self) -> Timestamp {
        let digits = self.0.iter().take(TIME_DIGITS as usize);
        let value = |octet: &u8| ALPHABET.iter().position(|digit| digit == octet).unwrap_or(0);
        let millis =
            digits.fold(0_i64, |millis, octet| millis << 5 | i64::try_from(value(octet)).unwrap_or(0));
        Timestamp::from_millis(millis)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // All octets are characters of the alphabet.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The text is not a message id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a message id: twenty letters and digits, as in the log and in `postrider queue list`")]
pub struct MessageIdError(String);

impl FromStr for MessageId {
    type Err = MessageIdError;

    /// Parses an id in any case.
    fn from_str(raw: &str) -> Result<Self, MessageIdError> {
        let refuse = || MessageIdError(raw.chars().take(40).collect());
        let mut id = [0; Self::LENGTH];
        if raw.len() != Self::LENGTH {
            return Err(refuse());
        }
        for (slot, octet) in id.iter_mut().zip(raw.bytes()) {
            *slot = octet.to_ascii_lowercase();
            if !ALPHABET.contains(slot) {
                return Err(refuse());
            }
        }
        Ok(Self(id))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_are_parsed_back() {
        let early = MessageId::new(Timestamp::from_millis(1_795_000_000_000), u64::MAX);
        let late = MessageId::new(Timestamp::from_millis(1_795_000_000_001), 0);
        assert!(early < late);
        assert!(early.as_str() < late.as_str());
        assert_eq!(early.as_str().to_uppercase().parse::<MessageId>().unwrap(), early);
    }

    #[test]
    fn a_text_that_is_not_an_id_is_refused() {
        for raw in ["", "../../../etc/passwd0", "0123", "0123456789abcdefghi!", "ééééééééééé"] {
            assert!(raw.parse::<MessageId>().is_err(), "{raw}");
        }
    }
}
