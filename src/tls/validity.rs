//! When a certificate begins and ends, and when that is worth a word.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::mail::Timestamp;

/// A renewed one should be there this long before the end. Those who renew do it a month before.
const NOTICE: Duration = Duration::from_hours(14 * 24);

/// The time in which a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// It begins.
    pub from: Timestamp,
    /// It ends.
    pub until: Timestamp,
}

impl Validity {
    /// `None` for what is no certificate.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let leaf = EndEntityCert::try_from(certificate).ok()?;
        // The library does not show the dates; it names them where it refuses a time. It looks at them
        // before anything else, so that nobody has to vouch for the certificate.
        let refusal =
            |time| leaf.verify_for_usage(&[], &[], &[], time, KeyUsage::server_auth(), None, None).err();
        let Some(webpki::Error::CertNotValidYet { not_before, .. }) = refusal(moment(0)) else { return None };
        let Some(webpki::Error::CertExpired { not_after, .. }) = refusal(moment(u64::MAX)) else {
            return None;
        };
        Some(Self { from: timestamp(not_before), until: timestamp(not_after) })
    }

    /// How long it still holds; zero when it is over.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Duration {
        self.until.since(now)
    }

    /// A renewed one should have been here by now: two weeks before the end, or a third of its life
    /// where that is shorter.
    #[must_use]
    pub fn is_ending(&self, now: Timestamp) -> bool {
        self.left(now) < NOTICE.min(self.until.since(self.from) / 3)
    }
}

fn moment(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn timestamp(time: UnixTime) -> Timestamp {
    Timestamp::from_millis(i64::try_from(time.as_secs().saturating_mul(1000)).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn from_to(from: (i32, u8, u8), to: (i32, u8, u8)) -> Validity {
        let mut params = rcgen::CertificateParams::new(vec!["mx.here.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        Validity::of(made.der()).unwrap()
    }

    #[test]
    fn a_certificate_holds_from_its_first_to_its_last_second() {
        let validity = from_to((2026, 11, 1), (2027, 1, 30));
        assert_eq!(validity.from.to_string(), "2026-11-01T00:00:00.000Z");
        assert_eq!(validity.until.to_string(), "2027-01-30T00:00:00.000Z");
        assert_eq!(from_to((2049, 1, 1), (2060, 1, 1)).until.to_string(), "2060-01-01T00:00:00.000Z");
        assert!(Validity::of(&CertificateDer::from(b"nothing".as_slice())).is_none());
    }

    #[test]
    fn the_end_is_near_in_two_weeks_or_the_last_third_of_a_short_life() {
        for (validity, early) in [
            (from_to((2026, 11, 1), (2027, 1, 30)), DAY * (90 - 14)),
            (from_to((2026, 11, 1), (2026, 11, 7)), DAY * 4),
        ] {
            assert!(!validity.is_ending(validity.from.after(early)));
            assert!(validity.is_ending(validity.from.after(early + Duration::from_secs(1))));
            assert_eq!(validity.left(validity.until.after(DAY)), Duration::ZERO);
            assert!(validity.is_ending(validity.until.after(DAY)));
        }
    }
}
