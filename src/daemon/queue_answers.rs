//! The answers to `postrider queue`, and `/queue.json` of the monitor, which is the same.

use crate::control::{
    ChangeAnswer, DeliveryState, HistoryEvent, ListedMessage, ListedRecipient, RefusedChange, ShownMessage,
};
use crate::queue::{
    ChangeResult, MessageDetail, QueuedMessage, QueuedRecipient, RecipientState, StateChange,
};

/// One message in a list.
pub(super) fn listed_message(message: &QueuedMessage) -> ListedMessage {
    ListedMessage {
        id: message.id,
        arrived: message.arrived.to_string(),
        age_seconds: message.age.as_secs(),
        octets: message.octets,
        reverse_path: message.reverse_path.to_string(),
        attempts: message.attempts,
        due: message.due.map(|due| due.to_string()),
        held: message.is_held,
        recipients: message.recipients.iter().map(listed_recipient).collect(),
    }
}

fn listed_recipient(queued: &QueuedRecipient) -> ListedRecipient {
    let QueuedRecipient { recipient, state } = queued;
    let is_renamed = recipient.forward_path != *recipient.final_mailbox();
    ListedRecipient {
        recipient: recipient.to_string(),
        original: is_renamed.then(|| recipient.forward_path.to_string()),
        state: delivery_state(state),
        reason: state.reason().map(ToString::to_string),
    }
}

fn delivery_state(state: &RecipientState) -> DeliveryState {
    match state {
        RecipientState::Waiting(None) => DeliveryState::Waiting,
        RecipientState::Waiting(Some(_)) => DeliveryState::Deferred,
        RecipientState::Delivered(_) => DeliveryState::Delivered,
        RecipientState::Failed(_) => DeliveryState::Failed,
        RecipientState::Expired(_) => DeliveryState::Expired,
    }
}

/// One message with all that is known of it; without its octets.
pub(super) fn shown_message(detail: &MessageDetail) -> ShownMessage {
    let MessageDetail { view, envelope, state_changes } = detail;
    let client = envelope.client.as_ref();
    let event = |change: &StateChange| HistoryEvent {
        time: change.time.to_string(),
        attempt: change.attempt,
        recipient: envelope.recipients.get(change.position).map(ToString::to_string),
        state: delivery_state(&change.state),
        reason: change.state.reason().map(ToString::to_string),
    };
    ShownMessage {
        message: listed_message(view),
        authenticated_user: envelope.authenticated_user.as_ref().map(ToString::to_string),
        client: client.map(|client| client.address),
        helo_name: client.map(|client| client.helo_name.clone()),
        tls: client.and_then(|client| client.tls.as_ref()).map(ToString::to_string),
        body: envelope.body_type,
        smtputf8: envelope.smtputf8,
        ret: envelope.ret,
        envid: envelope.envid.clone(),
        history: state_changes.iter().map(event).collect(),
        base64: None,
    }
}

/// What a change of the queue did.
pub(super) fn change_answer(result: ChangeResult) -> ChangeAnswer {
    let ChangeResult { changed: done, pending, refused, not_processed: not_reached } = result;
    ChangeAnswer {
        changed: done,
        pending,
        refused: refused.into_iter().map(|(id, reason)| RefusedChange { id, reason }).collect(),
        not_processed: not_reached,
    }
}
