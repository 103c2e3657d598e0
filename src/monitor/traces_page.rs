//! The events of recent sessions and attempts.

use std::collections::BTreeSet;

use super::html::{Html, HumanDuration, HumanTime};
use super::monitor_data::MonitorData;
use crate::observe::{TraceEvent, TraceView};

/// Traces on one page.
const TRACES_SHOWN_MAX: usize = 200;

/// Which traces the page shows.
enum TraceFilter<'a> {
    All,
    Errors,
    Kind(&'a str),
}

impl TraceFilter<'_> {
    fn matches(&self, trace: &TraceView) -> bool {
        match self {
            Self::All => true,
            Self::Errors => trace.has_error(),
            Self::Kind(kind) => trace.kind == *kind,
        }
    }
}

/// `query` is the text after the `?`.
pub(super) fn page(data: &dyn MonitorData, query: &str) -> String {
    let filter = match query.split_once('=') {
        Some(("kind", kind)) => TraceFilter::Kind(kind),
        None if query == "errors" => TraceFilter::Errors,
        _ => TraceFilter::All,
    };
    let all = data.traces().list();
    let mut html = Html::default();
    html.markup("<h1>Traces</h1>");
    filter_links(&mut html, &filter, &all);
    let admitted: Vec<_> = all.iter().filter(|trace| filter.matches(trace)).collect();
    if admitted.is_empty() {
        html.markup("<div class=\"card empty\">Nothing of this kind happened lately.</div>");
    }
    for trace in admitted.iter().take(TRACES_SHOWN_MAX) {
        card(&mut html, trace);
    }
    if admitted.len() > TRACES_SHOWN_MAX {
        html.markup("<p class=\"dim\">The latest ")
            .text(TRACES_SHOWN_MAX)
            .markup(" of ")
            .text(admitted.len());
        html.markup(" are shown.</p>");
    }
    html.into_page("/traces", "Traces", &data.status().hostname.to_string())
}

fn filter_links(html: &mut Html, filter: &TraceFilter<'_>, all: &[TraceView]) {
    let kinds: BTreeSet<_> = all.iter().map(|trace| trace.kind).collect();
    let class = |is_here: bool| if is_here { "\" class=\"here\">" } else { "\">" };
    html.markup("<div class=\"filter\"><a href=\"/traces")
        .markup(class(matches!(filter, TraceFilter::All)))
        .markup("all ");
    html.text(all.len())
        .markup("</a><a href=\"/traces?errors")
        .markup(class(matches!(filter, TraceFilter::Errors)));
    html.markup("errors ").text(all.iter().filter(|trace| trace.has_error()).count()).markup("</a>");
    for kind in kinds {
        html.markup("<a href=\"/traces?kind=").text(kind);
        html.markup(class(matches!(filter, TraceFilter::Kind(here) if *here == kind))).text(kind).markup(" ");
        html.text(all.iter().filter(|trace| trace.kind == kind).count()).markup("</a>");
    }
    html.markup("</div>");
}

fn card(html: &mut Html, trace: &TraceView) {
    html.markup(match (trace.has_error(), trace.is_finished) {
        (true, _) => "<details class=\"card bad\" open id=\"t",
        (false, false) => "<details class=\"card\" open id=\"t",
        (false, true) => "<details class=\"card\" id=\"t",
    });
    html.text(trace.number).markup("\"><summary><div class=\"line\">");
    html.markup(if trace.has_error() { "<span class=\"badge bad\">" } else { "<span class=\"badge\">" });
    html.text(trace.kind).markup("</span><b class=\"mono\">").text(&trace.title).markup("</b>");
    if !trace.is_finished {
        html.markup("<span class=\"badge good\">under way</span>");
    }
    html.markup("<span class=\"push dim\">")
        .text(HumanTime(trace.started))
        .markup(" · ")
        .text(HumanDuration(trace.duration));
    html.markup("</span></div></summary><table>");
    for (position, one) in trace.events.iter().enumerate() {
        if trace.events_omitted > 0 && position == TraceView::EVENTS_FIRST {
            html.markup("<tr><td class=\"n\"></td><td class=\"dim\">… ").text(trace.events_omitted);
            html.markup(" events left out …</td></tr>");
        }
        event(html, one);
    }
    html.markup("</table></details>");
}

fn event(html: &mut Html, event: &TraceEvent) {
    html.markup(if event.is_error {
        "<tr class=\"bad\"><td class=\"n\">"
    } else {
        "<tr><td class=\"n dim\">"
    });
    html.text(HumanDuration(event.since_start)).markup("</td><td>").text(&event.text).markup("</td></tr>");
}
