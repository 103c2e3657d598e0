//! What differs in LMTP (RFC 2033): LHLO, and a reply to the dot for each recipient.

use super::*;

const LMTP: &str = "S: 220 hi\nC: LHLO here.example\nS: 250-store|250 PIPELINING\nsettled\n\
    C: MAIL FROM:<ana@here.example>|RCPT TO:<bo@there.example>|RCPT TO:<cy@there.example>|RCPT TO:<di@there.example>|DATA\n\
    S: 250 ok\nreceive\n";

/// A transaction with three recipients, after MAIL was accepted.
fn by_lmtp(dialog: &str) -> Vec<String> {
    shown(&play(lmtp_plan(&TO), &format!("{LMTP}{dialog}")))
}

#[test]
fn the_dot_is_answered_for_each_recipient() {
    let accepted = "S: 250 ok\nreceive\nS: 250 ok\nreceive\nS: 250 ok\nreceive\nS: 354 go\nmessage\n";
    let three = "S: 250 2.0.0 stored\nreceive\nS: 452 4.2.2 full\nreceive\nS: 550 5.7.1 no\nC: QUIT";
    assert_eq!(by_lmtp(&format!("{accepted}{three}")), ["2.0.0", "4.2.2", "5.7.1"]);
    let busy = "S: 421 4.3.2 busy\nreceive\nS: 250 2.0.0 stored\nreceive\nS: 250 2.0.0 stored\nC: QUIT";
    assert_eq!(by_lmtp(&format!("{accepted}{busy}")), ["4.3.2", "2.0.0", "2.0.0"]);
}

#[test]
fn only_accepted_recipients_have_a_reply_to_the_dot() {
    let refused = "S: 250 ok\nreceive\nS: 550 5.1.1 no\nreceive\nS: 250 ok\nreceive\nS: 354 go\nmessage\n";
    let two = "S: 550 5.2.2 full\nreceive\nS: 250 2.0.0 stored\nC: QUIT";
    assert_eq!(by_lmtp(&format!("{refused}{two}")), ["5.2.2", "5.1.1", "2.0.0"]);
    let nobody = "S: 552 5.2.2 full\nreceive\nS: 550 5.1.1 no\nreceive\nS: 450 4.2.1 busy\nreceive\n";
    let statuses = ["5.2.2", "5.1.1", "4.2.1"];
    assert_eq!(by_lmtp(&format!("{nobody}S: 503 5.5.1 nobody\nC: QUIT")), statuses);
    assert_eq!(by_lmtp(&format!("{nobody}S: 354 go\nC: .|QUIT")), statuses, "there is no reply to that dot");
}

#[test]
fn a_lost_connection_changes_no_answer() {
    let accepted = "S: 250 ok\nreceive\nS: 250 ok\nreceive\nS: 250 ok\nreceive\nS: 354 go\nmessage\n";
    let broken = "S: 250 2.0.0 stored\nreceive\nlost\nclose";
    assert_eq!(by_lmtp(&format!("{accepted}{broken}")), ["2.0.0", "4.4.2", "4.4.2"]);
    assert_eq!(by_lmtp("S: 250 ok\nreceive\nlost\nclose"), ["open 4.4.2"; 3]);
}

#[test]
fn a_refused_lhlo_has_no_fallback() {
    let answers = play(lmtp_plan(&TO[..1]), "S: 220 hi\nC: LHLO here.example\nS: 500 what\nC: QUIT");
    let [RecipientResult::NoAnswer(failure @ Failure::Transient(_))] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    assert!(failure.to_string().contains("LHLO"), "{failure}");
}

#[test]
fn utf8_is_stored_as_it_is_and_a_domain_is_in_a_labels() {
    let reverse_path = ReversePath::Mailbox(mailbox("añña@there.example"));
    let plan =
        Plan {
            reverse_path, has_8bit: true, has_utf8_header: true, ..lmtp_plan(&["δοκιμή@bücher.example"])
        };
    let dialog = |offer: &str, asked: &str| {
        format!(
            "S: 220 hi\nC: LHLO here.example\nS: 250-store{offer}|250 8BITMIME\nsettled\n\
             C: MAIL FROM:<añña@there.example> BODY=8BITMIME{asked}\nS: 250 ok\n\
             C: RCPT TO:<δοκιμή@xn--bcher-kva.example>\nS: 450 4.2.1 busy\nC: QUIT"
        )
    };
    assert_eq!(shown(&play(plan.clone(), &dialog("", ""))), ["4.2.1"]);
    assert_eq!(shown(&play(plan, &dialog("|250-SMTPUTF8", " SMTPUTF8"))), ["4.2.1"]);
}
