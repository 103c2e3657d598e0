//! Several transactions on one connection: of one message, or of the next one.

use super::*;

/// A client that has just sent a message to Bo, to a peer that offers `offers`.
fn after_a_message(offers: &str) -> Client {
    let (mut client, _) = Client::new(plan(&TO[..1]));
    for line in ["220 hi", offers] {
        let _ = client.reply(&reply(line));
    }
    let mut step = client.begin_transactions();
    while !matches!(step, ClientStep::Quit(_)) {
        step = match step {
            ClientStep::SendMessage => client.message_sent(),
            ClientStep::Send(octets, _) if octets.starts_with(b"DATA") => client.reply(&reply("354 go")),
            _ => client.reply(&reply("250 ok")),
        };
    }
    assert_eq!(shown(&client.results()), ["2.0.0"]);
    client
}

fn sent(step: &ClientStep) -> String {
    match step {
        ClientStep::Send(octets, _) | ClientStep::Quit(octets) => {
            String::from_utf8_lossy(octets).trim_end().to_owned()
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn the_next_message_uses_the_same_connection() {
    let mut client = after_a_message("250 mx");
    assert!(client.is_reusable());
    assert_eq!(client.begin_message(plan(&TO[1..2])), ClientStep::CheckEncryption);
    assert_eq!(sent(&client.begin_transactions()), "MAIL FROM:<ana@here.example>");
    let _ = client.reply(&reply("250 ok"));
    assert_eq!(sent(&client.reply(&reply("550 5.1.1 no"))), "QUIT");
    assert_eq!(shown(&client.results()), ["5.1.1"]);
    assert!(client.is_reusable() && !client.is_stale());
    let _ = client.begin_message(plan(&TO[..1]));
    assert_eq!(sent(&client.begin_transactions()), "RSET", "the last transaction was left open");
    assert_eq!(sent(&client.reply(&reply("250 ok"))), "MAIL FROM:<ana@here.example>");
}

#[test]
fn a_dead_connection_from_the_pool_does_not_concern_the_message() {
    let begun = || {
        let mut client = after_a_message("250 mx");
        let _ = client.begin_message(plan(&TO[..1]));
        let _ = client.begin_transactions();
        client
    };
    for line in ["421 4.4.2 idle", "452 4.5.3 enough messages"] {
        let mut client = begun();
        let _ = client.reply(&reply(line));
        assert!(client.is_stale(), "{line}");
    }
    let mut client = begun();
    let _ = client.interrupted("connection reset");
    assert!(client.is_stale() && !client.is_reusable());

    let mut client = begun();
    let _ = client.reply(&reply("250 ok"));
    let _ = client.interrupted("connection reset");
    assert!(!client.is_stale(), "the peer has answered MAIL");
    let (mut fresh, _) = Client::new(plan(&TO[..1]));
    let _ = fresh.reply(&reply("421 4.3.2 busy"));
    assert!(!fresh.is_stale());
}

#[test]
fn a_recipient_above_the_limit_is_named_in_the_next_transaction() {
    for too_many in ["452 4.5.3 many", "452 many", "552 many"] {
        let dialog = format!(
            "{PIPELINED} S: 250 ok\nS: 250 ok\nS: {too_many}\nS: 452 4.2.2 full\nS: 354 go\nmessage\n\
             S: 250 ok\nC: MAIL FROM:<ana@here.example>|RCPT TO:<cy@there.example>|DATA\n\
             S: 250 ok\nS: 250 ok\nS: 354 go\nmessage\nS: 250 ok\nC: QUIT"
        );
        assert_eq!(shown(&play(plan(&TO), &dialog)), ["2.0.0", "2.0.0", "4.2.2"], "{too_many}");
    }
}

#[test]
fn limits_of_the_peer_split_the_recipients() {
    let offers =
        |limits: &str| format!("S: 220 hi\nC: EHLO here.example\nS: 250-mx|250 LIMITS {limits}\nsettled\n");
    let to = |name: &str| {
        format!(
            "C: MAIL FROM:<ana@here.example>\nS: 250 ok\nC: RCPT TO:<{name}>\nS: 250 ok\nC: DATA\n\
             S: 354 go\nmessage\nS: 250 ok\n"
        )
    };
    let (bo, cy) = (to("bo@there.example"), to("cy@there.example"));
    let dialog = format!("{} {bo} {cy} C: QUIT", offers("RCPTMAX=1"));
    assert_eq!(shown(&play(plan(&TO[..2]), &dialog)), ["2.0.0", "2.0.0"]);
    let dialog = format!("{} {bo} C: QUIT", offers("RCPTMAX=1 MAILMAX=1"));
    assert_eq!(shown(&play(plan(&TO[..2]), &dialog)), ["2.0.0", "not asked"]);
    let elsewhere = to("di@elsewhere.example");
    let dialog = format!("{} {bo} {elsewhere} C: QUIT", offers("RCPTDOMAINMAX=1"));
    assert_eq!(
        shown(&play(plan(&["bo@there.example", "di@elsewhere.example"]), &dialog)),
        ["2.0.0", "2.0.0"]
    );
    assert!(!after_a_message("250-mx|250 LIMITS MAILMAX=1").is_reusable());
}
