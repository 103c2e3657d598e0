//! Log, counters and traces for the operator.
//!
//! - `log_setup`: set-up of the `log` facade: one line per record, on standard error
//! - `maillog`: one line for each thing that happens to a message
//! - `metrics`: counters and gauges, as OpenMetrics and as JSON
//! - `refusal_reference`: references by which the operator finds a refusal in the log and the traces
//! - `trace`: the events of recent sessions and attempts, in bounded memory

mod log_setup;
pub mod maillog;
mod metrics;
mod refusal_reference;
mod trace;

pub use log_setup::{FILTER_VARIABLE, set_up_log};
pub use metrics::{Counter, CounterFamily, Gauge, Metrics};
pub use refusal_reference::RefusalReference;
pub use trace::{Trace, TraceEvent, TraceView, Traces};
