//! The first page: how the server is, what went wrong lately, what it counted.

use std::collections::BTreeMap;

use serde_json::Value;

use super::html::{Html, Spell, When};
use super::shows::{Ending, Shows};
use crate::observe::TraceView;

/// Traces with an error that are shown here; the rest is on their own page.
const TROUBLES_SHOWN: usize = 5;

pub(super) fn page(shows: &dyn Shows) -> String {
    let status = shows.status();
    let troubles: Vec<_> = shows.traces().list().into_iter().filter(TraceView::has_error).collect();
    let mut html = Html::default();
    html.raw("<div class=\"tiles\">");
    tile(&mut html, "/", status.version, "version");
    tile(&mut html, "/", Spell(status.uptime).to_string(), "uptime");
    tile(&mut html, "/queue", status.queue.to_string(), "messages in the queue");
    tile(&mut html, "/traces?family=session", status.sessions.to_string(), "sessions now");
    if let Some(Ending { left, is_near }) = status.certificate {
        html.raw(if is_near {
            "<a class=\"tile bad\" href=\"/\"><b>"
        } else {
            "<a class=\"tile\" href=\"/\"><b>"
        });
        html.text(Spell(left)).raw("</b><span>until a certificate ends</span></a>");
    }
    html.raw(if troubles.is_empty() {
        "<a class=\"tile\" href=\"/traces?errors\"><b>"
    } else {
        "<a class=\"tile bad\" href=\"/traces?errors\"><b>"
    });
    html.text(troubles.len()).raw("</b><span>recent errors</span></a></div>");
    if !troubles.is_empty() {
        html.raw("<h2>Recent errors</h2>");
        for trouble in troubles.iter().take(TROUBLES_SHOWN) {
            trouble_card(&mut html, trouble);
        }
    }
    counters(&mut html, shows);
    html.raw("<p class=\"dim\">For programs: <a href=\"/metrics\">/metrics</a> (OpenMetrics), ").raw(
        "<a href=\"/debug/vars\">/debug/vars</a> and <a href=\"/queue.json\">/queue.json</a> (JSON).</p>",
    );
    html.into_page("/", "Overview", &status.hostname.to_string())
}

fn tile(html: &mut Html, path: &'static str, value: impl AsRef<str>, name: &'static str) {
    html.raw("<a class=\"tile\" href=\"").raw(path).raw("\"><b>").text(value.as_ref()).raw("</b><span>");
    html.raw(name).raw("</span></a>");
}

fn trouble_card(html: &mut Html, trouble: &TraceView) {
    let last = trouble.events.iter().rev().find(|event| event.is_error);
    html.raw("<div class=\"card\"><div class=\"line\"><span class=\"badge bad\">")
        .text(trouble.family)
        .raw("</span><a class=\"mono\" href=\"/traces?errors#t")
        .text(trouble.number)
        .raw("\">")
        .text(&trouble.title)
        .raw("</a><span class=\"dim push\">")
        .text(When(trouble.began))
        .raw("</span></div><div class=\"why bad\">")
        .text(last.map_or("", |event| &event.text))
        .raw("</div></div>");
}

/// All that is counted, by the first word of its name.
fn counters(html: &mut Html, shows: &dyn Shows) {
    let values = shows.metrics().to_json();
    let mut groups: BTreeMap<&str, Vec<(&str, &str, &str)>> = BTreeMap::new();
    for (name, help) in shows.metrics().list() {
        let (group, rest) = name.split_once('_').unwrap_or((name, name));
        groups.entry(group).or_default().push((name, rest, help));
    }
    if groups.is_empty() {
        return;
    }
    html.raw("<h2>Counted since the start</h2><div class=\"columns\">");
    for (group, members) in groups {
        html.raw("<div class=\"card\"><h3>").text(group).raw("</h3><table>");
        for (name, rest, help) in members {
            counter(html, rest, help, values.get(name).unwrap_or(&Value::Null));
        }
        html.raw("</table></div>");
    }
    html.raw("</div>");
}

fn counter(html: &mut Html, name: &str, help: &str, value: &Value) {
    let name = name.replace('_', " ");
    match value {
        Value::Object(by_label) => {
            html.raw("<tr title=\"").text(help).raw("\"><td colspan=\"2\">").text(name).raw("</td></tr>");
            for (label, value) in by_label {
                html.raw("<tr><td class=\"label dim\">").text(label);
                html.raw("</td><td class=\"n\">").text(value).raw("</td></tr>");
            }
        }
        value => {
            html.raw("<tr title=\"").text(help).raw("\"><td>").text(name);
            html.raw(if *value == 0 { "</td><td class=\"n zero\">" } else { "</td><td class=\"n\">" });
            html.text(value).raw("</td></tr>");
        }
    }
}
