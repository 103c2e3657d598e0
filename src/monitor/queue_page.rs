//! The queue: each message with its recipients, their states and the last replies.

use super::html::{Html, HumanDuration, HumanSize, HumanTime};
use super::monitor_data::MonitorData;
use crate::mail::ReversePath;
use crate::queue::{QueuedMessage, QueuedRecipient, RecipientState};

/// Recipients of one message on this page; `/queue.json` has all of them.
const RECIPIENTS_SHOWN_MAX: usize = 50;

pub(super) fn page(data: &dyn MonitorData) -> String {
    let status = data.status();
    let items = data.queue();
    let mut html = Html::default();
    html.markup("<h1>Queue</h1>");
    if items.is_empty() {
        html.markup("<div class=\"card empty\">The queue is empty.</div>");
    } else {
        html.markup("<p class=\"dim\">").text(status.queue);
        html.markup(if status.queue == 1 { " message in the queue" } else { " messages in the queue" });
        if items.len() < status.queue {
            html.markup("; the oldest ").text(items.len()).markup(" are shown");
        }
        html.markup(". <code>postrider queue retry all</code> tries them now.</p>");
    }
    for item in &items {
        card(&mut html, item);
    }
    html.into_page("/queue", "Queue", &status.hostname.to_string())
}

fn card(html: &mut Html, item: &QueuedMessage) {
    html.markup("<div class=\"card\" id=\"")
        .text(item.id)
        .markup("\"><div class=\"line\"><b class=\"mono\">");
    html.text(item.id).markup("</b><span>");
    match &item.reverse_path {
        ReversePath::Null => html.markup("a bounce (null reverse-path)"),
        ReversePath::Mailbox(mailbox) => html.markup("from ").text(mailbox),
    };
    html.markup("</span><span class=\"push dim\">")
        .text(HumanDuration(item.age))
        .markup(" old · ")
        .text(HumanSize(item.octets))
        .markup("</span></div><div class=\"why\">arrived ")
        .text(HumanTime(item.arrived));
    match item.attempts {
        _ if item.is_held => html.markup(" · held: not tried before it is released"),
        0 => html.markup(" · not tried yet"),
        1 => html.markup(" · tried once"),
        attempts => html.markup(" · tried ").text(attempts).markup(" times"),
    };
    if !item.is_held && item.attempts > 0 {
        match item.due {
            Some(due) => html.markup(", due again ").text(HumanTime(due)),
            None => html.markup(", due now"),
        };
    }
    html.markup("</div><ul class=\"plain\">");
    for view in item.recipients.iter().take(RECIPIENTS_SHOWN_MAX) {
        recipient(html, view, item.is_held);
    }
    if let Some(more) = item.recipients.len().checked_sub(RECIPIENTS_SHOWN_MAX).filter(|more| *more > 0) {
        html.markup("<li class=\"dim\">and ").text(more).markup(" more</li>");
    }
    html.markup("</ul></div>");
}

fn recipient(html: &mut Html, view: &QueuedRecipient, is_held: bool) {
    html.markup("<li><div class=\"line\">").markup(match &view.state {
        RecipientState::Waiting(_) if is_held => "<span class=\"badge wait\">held</span>",
        RecipientState::Waiting(None) => "<span class=\"badge\">waiting</span>",
        RecipientState::Waiting(Some(_)) => "<span class=\"badge wait\">deferred</span>",
        RecipientState::Delivered(_) => "<span class=\"badge good\">delivered</span>",
        RecipientState::Failed(_) => "<span class=\"badge bad\">failed</span>",
        RecipientState::Expired(_) => "<span class=\"badge bad\">expired</span>",
    });
    html.markup("<span>").text(&view.recipient).markup("</span></div>");
    if let Some(reason) = view.state.reason() {
        html.markup("<div class=\"why\">").text(reason).markup("</div>");
    }
    html.markup("</li>");
}
