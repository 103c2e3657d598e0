//! When a certificate begins and ends, and when a warning is due.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::mail::Timestamp;

/// A renewed certificate should exist this long before the end. ACME clients renew a month before.
const RENEWAL_NOTICE: Duration = Duration::from_hours(14 * 24);

/// The time in which a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: Timestamp,
    /// The last moment.
    pub not_after: Timestamp,
}

impl Validity {
    /// `None` if the octets are no certificate.
    pub(super) fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let leaf = EndEntityCert::try_from(certificate).ok()?;
        // webpki has no function for the dates, but its error for a wrong time has them. It checks the time
        // first, so no trusted root is needed. (x509-parser would bring a dozen crates for two dates.)
        let refusal =
            |time| leaf.verify_for_usage(&[], &[], &[], time, KeyUsage::server_auth(), None, None).err();
        let Some(webpki::Error::CertNotValidYet { not_before, .. }) = refusal(unix_time(0)) else {
            return None;
        };
        let Some(webpki::Error::CertExpired { not_after, .. }) = refusal(unix_time(u64::MAX)) else {
            return None;
        };
        Some(Self { not_before: timestamp(not_before), not_after: timestamp(not_after) })
    }

    /// The time until the end; zero after it.
    #[must_use]
    pub fn remaining(&self, now: Timestamp) -> Duration {
        self.not_after.since(now)
    }

    /// Whether a renewed certificate should exist by now: two weeks before the end, or a third of the whole
    /// time if that is shorter.
    #[must_use]
    pub fn is_expiring_soon(&self, now: Timestamp) -> bool {
        self.remaining(now) < RENEWAL_NOTICE.min(self.not_after.since(self.not_before) / 3)
    }
}

fn unix_time(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn timestamp(time: UnixTime) -> Timestamp {
    Timestamp::from_millis(i64::try_from(time.as_secs().saturating_mul(1000)).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn validity_between(from: (i32, u8, u8), to: (i32, u8, u8)) -> Validity {
        let mut params = rcgen::CertificateParams::new(vec!["mx.here.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        Validity::of_certificate(made.der()).unwrap()
    }

    #[test]
    fn a_certificate_is_valid_from_its_first_to_its_last_second() {
        let validity = validity_between((2026, 11, 1), (2027, 1, 30));
        assert_eq!(validity.not_before.to_string(), "2026-11-01T00:00:00.000Z");
        assert_eq!(validity.not_after.to_string(), "2027-01-30T00:00:00.000Z");
        assert_eq!(
            validity_between((2049, 1, 1), (2060, 1, 1)).not_after.to_string(),
            "2060-01-01T00:00:00.000Z"
        );
        assert!(Validity::of_certificate(&CertificateDer::from(b"nothing".as_slice())).is_none());
    }

    #[test]
    fn a_certificate_expires_soon_in_its_last_two_weeks_or_the_last_third_of_a_short_life() {
        for (validity, early) in [
            (validity_between((2026, 11, 1), (2027, 1, 30)), DAY * (90 - 14)),
            (validity_between((2026, 11, 1), (2026, 11, 7)), DAY * 4),
        ] {
            assert!(!validity.is_expiring_soon(validity.not_before.after(early)));
            assert!(validity.is_expiring_soon(validity.not_before.after(early + Duration::from_secs(1))));
            assert_eq!(validity.remaining(validity.not_after.after(DAY)), Duration::ZERO);
            assert!(validity.is_expiring_soon(validity.not_after.after(DAY)));
        }
    }
}
