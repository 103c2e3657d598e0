//! What recent sessions and attempts did, event by event.

use std::collections::BTreeSet;

use super::html::{Html, Spell, When};
use super::shows::Shows;
use crate::observe::{Event, TraceView};

/// Traces shown on one page.
const TRACES_SHOWN: usize = 200;

/// Which traces are asked for.
enum Filter<'a> {
    All,
    Errors,
    Family(&'a str),
}

impl Filter<'_> {
    fn admits(&self, trace: &TraceView) -> bool {
        match self {
            Self::All => true,
            Self::Errors => trace.has_error(),
            Self::Family(family) => trace.family == *family,
        }
    }
}

/// `query` is what stands behind the `?`.
pub(super) fn page(shows: &dyn Shows, query: &str) -> String {
    let filter = match query.split_once('=') {
        Some(("family", family)) => Filter::Family(family),
        None if query == "errors" => Filter::Errors,
        _ => Filter::All,
    };
    let all = shows.traces().list();
    let mut html = Html::default();
    html.raw("<h1>Traces</h1>");
    filters(&mut html, &filter, &all);
    let admitted: Vec<_> = all.iter().filter(|trace| filter.admits(trace)).collect();
    if admitted.is_empty() {
        html.raw("<div class=\"card empty\">Nothing of this kind happened lately.</div>");
    }
    for trace in admitted.iter().take(TRACES_SHOWN) {
        card(&mut html, trace);
    }
    if admitted.len() > TRACES_SHOWN {
        html.raw("<p class=\"dim\">The latest ").text(TRACES_SHOWN).raw(" of ").text(admitted.len());
        html.raw(" are shown.</p>");
    }
    html.into_page("/traces", "Traces", &shows.status().hostname.to_string())
}

fn filters(html: &mut Html, filter: &Filter<'_>, all: &[TraceView]) {
    let families: BTreeSet<_> = all.iter().map(|trace| trace.family).collect();
    let class = |is_here: bool| if is_here { "\" class=\"here\">" } else { "\">" };
    html.raw("<div class=\"filter\"><a href=\"/traces").raw(class(matches!(filter, Filter::All))).raw("all ");
    html.text(all.len()).raw("</a><a href=\"/traces?errors").raw(class(matches!(filter, Filter::Errors)));
    html.raw("errors ").text(all.iter().filter(|trace| trace.has_error()).count()).raw("</a>");
    for family in families {
        html.raw("<a href=\"/traces?family=").text(family);
        html.raw(class(matches!(filter, Filter::Family(here) if *here == family))).text(family).raw(" ");
        html.text(all.iter().filter(|trace| trace.family == family).count()).raw("</a>");
    }
    html.raw("</div>");
}

fn card(html: &mut Html, trace: &TraceView) {
    html.raw(match (trace.has_error(), trace.is_finished) {
        (true, _) => "<details class=\"card bad\" open id=\"t",
        (false, false) => "<details class=\"card\" open id=\"t",
        (false, true) => "<details class=\"card\" id=\"t",
    });
    html.text(trace.number).raw("\"><summary><div class=\"line\">");
    html.raw(if trace.has_error() { "<span class=\"badge bad\">" } else { "<span class=\"badge\">" });
    html.text(trace.family).raw("</span><b class=\"mono\">").text(&trace.title).raw("</b>");
    if !trace.is_finished {
        html.raw("<span class=\"badge good\">under way</span>");
    }
    html.raw("<span class=\"push dim\">").text(When(trace.began)).raw(" · ").text(Spell(trace.took));
    html.raw("</span></div></summary><table>");
    for (position, one) in trace.events.iter().enumerate() {
        if trace.left_out > 0 && position == TraceView::EVENTS_FIRST {
            html.raw("<tr><td class=\"n\"></td><td class=\"dim\">… ").text(trace.left_out);
            html.raw(" events left out …</td></tr>");
        }
        event(html, one);
    }
    html.raw("</table></details>");
}

fn event(html: &mut Html, event: &Event) {
    html.raw(if event.is_error { "<tr class=\"bad\"><td class=\"n\">" } else { "<tr><td class=\"n dim\">" });
    html.text(Spell(event.after)).raw("</td><td>").text(&event.text).raw("</td></tr>");
}
