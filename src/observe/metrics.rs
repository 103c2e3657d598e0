//! Counters and gauges.
//!
//! A module that counts asks for its counters once, by name, when it is built, and keeps them;
//! the registry knows them all and shows them as OpenMetrics text and as JSON. Names are without
//! prefix and without `_total`; both are added here.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};

use crate::sys::Mutex;

type PrometheusCounter = counter::Counter<u64, AtomicU64>;

/// Counts what happened.
#[derive(Debug, Clone, Default)]
pub struct Counter(PrometheusCounter);

impl Counter {
    /// One more.
    pub fn add_one(&self) {
        self.0.inc();
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// So far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

/// Says how many there are now.
#[derive(Debug, Clone, Default)]
pub struct Gauge(gauge::Gauge<i64, AtomicI64>);

impl Gauge {
    /// There are `n` now.
    pub fn set(&self, n: i64) {
        self.0.set(n);
    }

    /// One more.
    pub fn add_one(&self) {
        self.0.inc();
    }

    /// One less.
    pub fn subtract_one(&self) {
        self.0.dec();
    }

    /// Now.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.get()
    }
}

type PrometheusFamily = Family<Vec<(&'static str, String)>, PrometheusCounter>;

/// A counter for each value of one label. Values come from a fixed, small set: never an address
/// or anything else that a peer chooses.
#[derive(Debug, Clone)]
pub struct CounterFamily {
    family: PrometheusFamily,
    label: &'static str,
    /// The counters so far, so that counting makes no new key.
    counters_by_value: Arc<Mutex<Vec<(String, PrometheusCounter)>>>,
}

impl CounterFamily {
    /// One more for `value`.
    pub fn add_one(&self, value: &str) {
        let mut known = self.counters_by_value.lock();
        if let Some((_, counter)) = known.iter().find(|(other, _)| other == value) {
            counter.inc();
            return;
        }
        let counter = self.family.get_or_create_owned(&vec![(self.label, value.to_owned())]);
        counter.inc();
        known.push((value.to_owned(), counter));
    }

    /// So far, for `value`.
    #[must_use]
    pub fn value(&self, value: &str) -> u64 {
        self.counters_by_value
            .lock()
            .iter()
            .find(|(other, _)| other == value)
            .map_or(0, |(_, counter)| counter.get())
    }
}

enum Metric {
    Counter(Counter),
    Family(CounterFamily),
    Gauge(Gauge),
}

struct RegisteredMetric {
    name: &'static str,
    help: &'static str,
    metric: Metric,
}

/// Everything that is counted. Shared by reference; asking twice for a name gives the same counter.
#[derive(Default)]
pub struct Metrics {
    registered: Mutex<Vec<RegisteredMetric>>,
}

impl Metrics {
    /// The counter of this name. `help` is a sentence without a final dot.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        let mut known = self.registered.lock();
        for one in known.iter() {
            if let (true, Metric::Counter(counter)) = (one.name == name, &one.metric) {
                return counter.clone();
            }
        }
        let counter = Counter::default();
        known.push(RegisteredMetric { name, help, metric: Metric::Counter(counter.clone()) });
        counter
    }

    /// The counters of this name, told apart by `label`.
    pub fn counter_family(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
    ) -> CounterFamily {
        let mut known = self.registered.lock();
        for one in known.iter() {
            if let (true, Metric::Family(family)) = (one.name == name, &one.metric) {
                return family.clone();
            }
        }
        let family =
            CounterFamily { family: PrometheusFamily::default(), label, counters_by_value: Arc::default() };
        known.push(RegisteredMetric { name, help, metric: Metric::Family(family.clone()) });
        family
    }

    /// The gauge of this name.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        let mut known = self.registered.lock();
        for one in known.iter() {
            if let (true, Metric::Gauge(gauge)) = (one.name == name, &one.metric) {
                return gauge.clone();
            }
        }
        let gauge = Gauge::default();
        known.push(RegisteredMetric { name, help, metric: Metric::Gauge(gauge.clone()) });
        gauge
    }

    /// All of it as OpenMetrics 1.0 text.
    #[must_use]
    pub fn to_openmetrics(&self) -> String {
        let mut registry = Registry::with_prefix("postrider");
        for RegisteredMetric { name, help, metric: kind } in self.registered.lock().iter() {
            match kind {
                Metric::Counter(counter) => registry.register(*name, *help, counter.0.clone()),
                Metric::Family(family) => registry.register(*name, *help, family.family.clone()),
                Metric::Gauge(gauge) => registry.register(*name, *help, gauge.0.clone()),
            }
        }
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &registry);
        text
    }

    /// All of it as one JSON object; a family is an object by label value.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut all = Map::new();
        for RegisteredMetric { name, metric: kind, .. } in self.registered.lock().iter() {
            let value = match kind {
                Metric::Counter(counter) => json!(counter.value()),
                Metric::Gauge(gauge) => json!(gauge.value()),
                Metric::Family(family) => {
                    let known = family.counters_by_value.lock();
                    let values = known.iter().map(|(value, counter)| (value.clone(), json!(counter.get())));
                    values.collect::<Map<_, _>>().into()
                }
            };
            all.insert((*name).to_owned(), value);
        }
        Value::Object(all)
    }

    /// Name and help of everything that is counted, sorted by name: for the documentation.
    #[must_use]
    pub fn list(&self) -> Vec<(&'static str, &'static str)> {
        let mut list: Vec<_> = self.registered.lock().iter().map(|one| (one.name, one.help)).collect();
        list.sort_unstable();
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_shown_as_text_and_as_json() {
        let metrics = Metrics::default();
        metrics.counter("queue_messages_accepted", "Messages promised").add(2);
        metrics.counter_family("session_command", "Commands, by verb", "verb").add_one("MAIL");
        metrics.gauge("queue_length", "Messages in the queue").set(3);
        assert_eq!(metrics.counter("queue_messages_accepted", "").value(), 2, "the same counter");
        let text = metrics.to_openmetrics();
        for line in [
            "postrider_queue_messages_accepted_total 2",
            "postrider_session_command_total{verb=\"MAIL\"} 1",
            "postrider_queue_length 3",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert_eq!(
            metrics.to_json(),
            json!({"queue_messages_accepted": 2, "session_command": {"MAIL": 1}, "queue_length": 3})
        );
    }
}
