//! The end of our certificates: shown all the time, and said in the log when it is near.
//!
//! A certificate that has ended stops mail without any error on this host, so whoever reads the log
//! hears of it in time, once a day.

use std::sync::Arc;
use std::time::Duration;

use crate::mail::Timestamp;
use crate::observe::{Gauge, Metrics};
use crate::sys::{Clock, Moment, Mutex};
use crate::tls::{CertificateInfo, CertificateSet};

/// How often the log says it again.
const WARNING_INTERVAL: Duration = Duration::from_hours(24);

/// Looks after the ends.
pub(super) struct ExpiryMonitor {
    clock: Arc<dyn Clock>,
    seconds_left_gauge: Gauge,
    /// When the log was last told, about these certificates.
    last_warning: Mutex<Option<Moment>>,
}

impl ExpiryMonitor {
    pub(super) fn new(clock: Arc<dyn Clock>, metrics: &Metrics) -> Self {
        let help = "Seconds until the first of our certificates ends; 0 when one has, or there is none";
        Self {
            clock,
            seconds_left_gauge: metrics.gauge("tls_certificate_expiry_seconds", help),
            last_warning: Mutex::default(),
        }
    }

    /// Other certificates are in force.
    pub(super) fn check_replaced(&self, certs: &CertificateSet) {
        *self.last_warning.lock() = None;
        self.check(certs);
    }

    /// Shows how long there is, and says what is ending unless that was said within a day.
    pub(super) fn check(&self, certs: &CertificateSet) {
        let left = first_to_expire(certs)
            .map_or(Duration::ZERO, |held| held.validity.remaining(self.clock.wall_time()));
        self.seconds_left_gauge.set(i64::try_from(left.as_secs()).unwrap_or(i64::MAX));
        let mut said = self.last_warning.lock();
        let now = self.clock.now();
        if said.is_none_or(|said| now.since(said) >= WARNING_INTERVAL) {
            *said = Some(now);
            expiry_warnings(certs, self.clock.wall_time()).for_each(|words| log::warn!("{words}"));
        }
    }
}

/// The certificate that ends first.
pub(super) fn first_to_expire(certs: &CertificateSet) -> Option<&CertificateInfo> {
    certs.certificates().iter().min_by_key(|held| held.validity.not_after)
}

/// A sentence for each certificate that has ended or ends soon.
pub fn expiry_warnings(certs: &CertificateSet, now: Timestamp) -> impl Iterator<Item = String> {
    certs.certificates().iter().filter(move |held| held.validity.is_expiring_soon(now)).map(move |held| {
        let CertificateInfo { folder, validity } = held;
        let days = validity.remaining(now).as_secs() / 86_400;
        let when = match days {
            _ if validity.remaining(now).is_zero() => {
                "has ended: clients refuse it or do not log in".to_owned()
            }
            0 => "ends within a day".to_owned(),
            1 => "ends in a day".to_owned(),
            days => format!("ends in {days} days"),
        };
        format!(
            "the certificate in certs/{folder} {when} ({}); put a renewed one there, it is noticed by itself",
            validity.not_after
        )
    })
}
