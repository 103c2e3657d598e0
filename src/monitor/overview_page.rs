//! The first page: version and uptime, recent errors, counters.

use std::collections::BTreeMap;

use serde_json::Value;

use super::html::{Html, HumanDuration, HumanTime};
use super::monitor_data::{CertificateExpiry, MonitorData};
use crate::observe::TraceView;

/// Traces with an error on this page; `/traces` has the others.
const ERRORS_SHOWN_MAX: usize = 5;

pub(super) fn page(data: &dyn MonitorData) -> String {
    let status = data.status();
    let errors: Vec<_> = data.traces().list().into_iter().filter(TraceView::has_error).collect();
    let mut html = Html::default();
    html.markup("<div class=\"tiles\">");
    tile(&mut html, "/", status.version, "version");
    tile(&mut html, "/", HumanDuration(status.uptime).to_string(), "uptime");
    tile(&mut html, "/queue", status.queue.to_string(), "messages in the queue");
    tile(&mut html, "/traces?kind=session", status.sessions.to_string(), "sessions now");
    if let Some(CertificateExpiry { remaining: left, is_near }) = status.certificate {
        html.markup(if is_near {
            "<a class=\"tile bad\" href=\"/\"><b>"
        } else {
            "<a class=\"tile\" href=\"/\"><b>"
        });
        html.text(HumanDuration(left)).markup("</b><span>until a certificate ends</span></a>");
    }
    html.markup(if errors.is_empty() {
        "<a class=\"tile\" href=\"/traces?errors\"><b>"
    } else {
        "<a class=\"tile bad\" href=\"/traces?errors\"><b>"
    });
    html.text(errors.len()).markup("</b><span>recent errors</span></a></div>");
    if !errors.is_empty() {
        html.markup("<h2>Recent errors</h2>");
        for trace in errors.iter().take(ERRORS_SHOWN_MAX) {
            error_card(&mut html, trace);
        }
    }
    counters(&mut html, data);
    html.markup("<p class=\"dim\">For programs: <a href=\"/metrics\">/metrics</a> (OpenMetrics), ").markup(
        "<a href=\"/debug/vars\">/debug/vars</a> and <a href=\"/queue.json\">/queue.json</a> (JSON).</p>",
    );
    html.into_page("/", "Overview", &status.hostname.to_string())
}

fn tile(html: &mut Html, path: &'static str, value: impl AsRef<str>, name: &'static str) {
    html.markup("<a class=\"tile\" href=\"")
        .markup(path)
        .markup("\"><b>")
        .text(value.as_ref())
        .markup("</b><span>");
    html.markup(name).markup("</span></a>");
}

fn error_card(html: &mut Html, trace: &TraceView) {
    let last = trace.events.iter().rev().find(|event| event.is_error);
    html.markup("<div class=\"card\"><div class=\"line\"><span class=\"badge bad\">")
        .text(trace.kind)
        .markup("</span><a class=\"mono\" href=\"/traces?errors#t")
        .text(trace.number)
        .markup("\">")
        .text(&trace.title)
        .markup("</a><span class=\"dim push\">")
        .text(HumanTime(trace.started))
        .markup("</span></div><div class=\"why bad\">")
        .text(last.map_or("", |event| &event.text))
        .markup("</div></div>");
}

/// All counters, grouped by the first word of their names.
fn counters(html: &mut Html, data: &dyn MonitorData) {
    let values = data.metrics().to_json();
    let mut groups: BTreeMap<&str, Vec<(&str, &str, &str)>> = BTreeMap::new();
    for (name, help) in data.metrics().list() {
        let (group, rest) = name.split_once('_').unwrap_or((name, name));
        groups.entry(group).or_default().push((name, rest, help));
    }
    if groups.is_empty() {
        return;
    }
    html.markup("<h2>Counted since the start</h2><div class=\"columns\">");
    for (group, members) in groups {
        html.markup("<div class=\"card\"><h3>").text(group).markup("</h3><table>");
        for (name, rest, help) in members {
            counter(html, rest, help, values.get(name).unwrap_or(&Value::Null));
        }
        html.markup("</table></div>");
    }
    html.markup("</div>");
}

fn counter(html: &mut Html, name: &str, help: &str, value: &Value) {
    let name = name.replace('_', " ");
    match value {
        Value::Object(by_label) => {
            html.markup("<tr title=\"")
                .text(help)
                .markup("\"><td colspan=\"2\">")
                .text(name)
                .markup("</td></tr>");
            for (label, value) in by_label {
                html.markup("<tr><td class=\"label dim\">").text(label);
                html.markup("</td><td class=\"n\">").text(value).markup("</td></tr>");
            }
        }
        value => {
            html.markup("<tr title=\"").text(help).markup("\"><td>").text(name);
            html.markup(if *value == 0 { "</td><td class=\"n zero\">" } else { "</td><td class=\"n\">" });
            html.text(value).markup("</td></tr>");
        }
    }
}
