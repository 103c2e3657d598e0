//! The end of our certificates: shown all the time, and said in the log when it is near.
//!
//! A certificate that has ended stops mail without any error on this host, so whoever reads the log
//! hears of it in time, once a day.

use std::sync::Arc;
use std::time::Duration;

use crate::mail::Timestamp;
use crate::observe::{Gauge, Metrics};
use crate::sys::{Clock, Moment, Mutex};
use crate::tls::{CertSet, Held};

/// How often the log says it again.
const AGAIN: Duration = Duration::from_hours(24);

/// Looks after the ends.
pub(super) struct Expiry {
    clock: Arc<dyn Clock>,
    seconds: Gauge,
    /// When the log was last told, about these certificates.
    said: Mutex<Option<Moment>>,
}

impl Expiry {
    pub(super) fn new(clock: Arc<dyn Clock>, metrics: &Metrics) -> Self {
        let help = "Seconds until the first of our certificates ends; 0 when one has, or there is none";
        Self { clock, seconds: metrics.gauge("tls_certificate_expiry_seconds", help), said: Mutex::default() }
    }

    /// Other certificates are in force.
    pub(super) fn look_anew(&self, certs: &CertSet) {
        *self.said.lock() = None;
        self.look(certs);
    }

    /// Shows how long there is, and says what is ending unless that was said within a day.
    pub(super) fn look(&self, certs: &CertSet) {
        let left = first_end(certs).map_or(Duration::ZERO, |held| held.validity.left(self.clock.wall()));
        self.seconds.set(i64::try_from(left.as_secs()).unwrap_or(i64::MAX));
        let mut said = self.said.lock();
        let now = self.clock.now();
        if said.is_none_or(|said| now.since(said) >= AGAIN) {
            *said = Some(now);
            endings(certs, self.clock.wall()).for_each(|words| log::warn!("{words}"));
        }
    }
}

/// The certificate that ends first.
pub(super) fn first_end(certs: &CertSet) -> Option<&Held> {
    certs.held().iter().min_by_key(|held| held.validity.until)
}

/// A sentence for each certificate that has ended or ends soon.
pub fn endings(certs: &CertSet, now: Timestamp) -> impl Iterator<Item = String> {
    certs.held().iter().filter(move |held| held.validity.is_ending(now)).map(move |held| {
        let Held { folder, validity } = held;
        let days = validity.left(now).as_secs() / 86_400;
        let when = match days {
            _ if validity.left(now).is_zero() => "has ended: clients refuse it or do not log in".to_owned(),
            0 => "ends within a day".to_owned(),
            1 => "ends in a day".to_owned(),
            days => format!("ends in {days} days"),
        };
        format!(
            "the certificate in certs/{folder} {when} ({}); put a renewed one there, it is noticed by itself",
            validity.until
        )
    })
}
