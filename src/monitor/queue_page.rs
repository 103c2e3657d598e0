//! The queue: each message with its recipients, where they stand, and what was heard last.

use super::html::{Html, Size, Spell, When};
use super::shows::Shows;
use crate::mail::ReversePath;
use crate::queue::{ItemView, RecipientView, State};

/// Recipients of one message that are shown; `/queue.json` has them all.
const RECIPIENTS_SHOWN: usize = 50;

pub(super) fn page(shows: &dyn Shows) -> String {
    let status = shows.status();
    let items = shows.queue();
    let mut html = Html::default();
    html.raw("<h1>Queue</h1>");
    if items.is_empty() {
        html.raw("<div class=\"card empty\">Nothing waits: every message has been settled.</div>");
    } else {
        html.raw("<p class=\"dim\">").text(status.queue);
        html.raw(if status.queue == 1 { " message in our care" } else { " messages in our care" });
        if items.len() < status.queue {
            html.raw("; the oldest ").text(items.len()).raw(" are shown");
        }
        html.raw(". <code>postrider queue retry all</code> tries them now.</p>");
    }
    for item in &items {
        card(&mut html, item);
    }
    html.into_page("/queue", "Queue", &status.hostname.to_string())
}

fn card(html: &mut Html, item: &ItemView) {
    html.raw("<div class=\"card\" id=\"").text(item.id).raw("\"><div class=\"line\"><b class=\"mono\">");
    html.text(item.id).raw("</b><span>");
    match &item.reverse_path {
        ReversePath::Null => html.raw("a report (null reverse-path)"),
        ReversePath::Mailbox(mailbox) => html.raw("from ").text(mailbox),
    };
    html.raw("</span><span class=\"push dim\">")
        .text(Spell(item.age))
        .raw(" old · ")
        .text(Size(item.octets))
        .raw("</span></div><div class=\"why\">arrived ")
        .text(When(item.arrived));
    match item.attempts {
        _ if item.is_held => html.raw(" · held: not tried before it is released"),
        0 => html.raw(" · not tried yet"),
        1 => html.raw(" · tried once"),
        attempts => html.raw(" · tried ").text(attempts).raw(" times"),
    };
    if !item.is_held && item.attempts > 0 {
        match item.due {
            Some(due) => html.raw(", due again ").text(When(due)),
            None => html.raw(", due now"),
        };
    }
    html.raw("</div><ul class=\"plain\">");
    for view in item.recipients.iter().take(RECIPIENTS_SHOWN) {
        recipient(html, view, item.is_held);
    }
    if let Some(more) = item.recipients.len().checked_sub(RECIPIENTS_SHOWN).filter(|more| *more > 0) {
        html.raw("<li class=\"dim\">and ").text(more).raw(" more</li>");
    }
    html.raw("</ul></div>");
}

fn recipient(html: &mut Html, view: &RecipientView, is_held: bool) {
    html.raw("<li><div class=\"line\">").raw(match &view.state {
        State::Waiting(_) if is_held => "<span class=\"badge wait\">held</span>",
        State::Waiting(None) => "<span class=\"badge\">waiting</span>",
        State::Waiting(Some(_)) => "<span class=\"badge wait\">deferred</span>",
        State::Delivered(_) => "<span class=\"badge good\">delivered</span>",
        State::Failed(_) => "<span class=\"badge bad\">failed</span>",
        State::Expired(_) => "<span class=\"badge bad\">expired</span>",
    });
    html.raw("<span>").text(&view.recipient).raw("</span></div>");
    if let Some(reason) = view.state.reason() {
        html.raw("<div class=\"why\">").text(reason).raw("</div>");
    }
    html.raw("</li>");
}
