//! Shows when certificates expire, and warns in the log once a day when one is about to.
//!
//! An expired certificate stops mail without any error on this host.

use std::sync::Arc;
use std::time::Duration;

use crate::mail::Timestamp;
use crate::observe::{Gauge, Metrics};
use crate::sys::{Clock, Moment, Mutex};
use crate::tls::{CertificateInfo, CertificateSet};

/// Time between two warnings.
const WARNING_INTERVAL: Duration = Duration::from_hours(24);

/// Watches the expiry of the certificates in force.
pub(super) struct ExpiryMonitor {
    clock: Arc<dyn Clock>,
    seconds_left_gauge: Gauge,
    /// When the last warning about the certificates in force was logged.
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

    /// Checks certificates that have just been put in force.
    pub(super) fn check_replaced(&self, certs: &CertificateSet) {
        *self.last_warning.lock() = None;
        self.check(certs);
    }

    /// Updates the metric, and logs warnings unless some were logged within a day.
    pub(super) fn check(&self, certs: &CertificateSet) {
        let left = first_to_expire(certs)
            .map_or(Duration::ZERO, |certificate| certificate.validity.remaining(self.clock.wall_time()));
        self.seconds_left_gauge.set(i64::try_from(left.as_secs()).unwrap_or(i64::MAX));
        let mut last_warning = self.last_warning.lock();
        let now = self.clock.now();
        if last_warning.is_none_or(|last_warning| now.since(last_warning) >= WARNING_INTERVAL) {
            *last_warning = Some(now);
            expiry_warnings(certs, self.clock.wall_time()).for_each(|warning| log::warn!("{warning}"));
        }
    }
}

/// The certificate that expires first.
pub(super) fn first_to_expire(certs: &CertificateSet) -> Option<&CertificateInfo> {
    certs.certificates().iter().min_by_key(|certificate| certificate.validity.not_after)
}

/// A sentence for each certificate that has expired or expires soon.
pub fn expiry_warnings(certs: &CertificateSet, now: Timestamp) -> impl Iterator<Item = String> {
    certs.certificates().iter().filter(move |certificate| certificate.validity.is_expiring_soon(now)).map(move |certificate| {
        let CertificateInfo { folder, validity } = certificate;
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
