//! Commands and results of the client, reply by reply.

mod again;
mod lmtp;

use super::*;
use crate::mail::{FailureScope, Mailbox, Notify, Outcome, Ret, ReversePath};

const TO: [&str; 3] = ["bo@there.example", "cy@there.example", "di@there.example"];

fn mailbox(raw: &str) -> Mailbox {
    Mailbox::parse(raw).unwrap()
}

fn plan(recipients: &[&str]) -> Plan {
    Plan {
        protocol: Protocol::Smtp,
        host: Domain::parse("mx.there.example").unwrap(),
        endpoint: "192.0.2.1:25".parse().unwrap(),
        hello: Domain::parse("here.example").unwrap(),
        reverse_path: ReversePath::Mailbox(mailbox("ana@here.example")),
        recipients: recipients.iter().map(|raw| mailbox(raw).into()).collect(),
        ret: None,
        envid: None,
        message_octets: 1000,
        has_8bit: false,
        has_utf8_header: false,
        encryption: Encryption::Opportunistic,
        credentials: None,
    }
}

fn lmtp_plan(recipients: &[&str]) -> Plan {
    Plan {
        protocol: Protocol::Lmtp,
        endpoint: "unix:/run/dovecot/lmtp".parse().unwrap(),
        encryption: Encryption::Never,
        ..plan(recipients)
    }
}

/// A reply from its lines, written `250-first|250 last`.
fn reply(lines: &str) -> Reply {
    let mut lines: Vec<Vec<u8>> = lines.split('|').map(|line| line.as_bytes().to_vec()).collect();
    Reply::read(&mut lines).unwrap().unwrap()
}

/// Plays `dialog` line by line: `S:` is a reply, `C:` what must then be written (`C: a|b` for a group). The
/// other lines are the expected steps: `message`, `settled`, `starttls`, `receive`, `close`.
fn play(plan: Plan, dialog: &str) -> Vec<RecipientResult> {
    let (mut client, mut step) = Client::new(plan);
    for line in dialog.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(said) = line.strip_prefix("S: ") {
            step = client.reply(&reply(said));
        } else if let Some(commands) = line.strip_prefix("C: ") {
            let expected = format!("{}\r\n", commands.replace('|', "\r\n"));
            match &step {
                ClientStep::Send(octets, _)
                | ClientStep::SendSecret(octets, _)
                | ClientStep::Quit(octets) => {
                    assert_eq!(String::from_utf8_lossy(octets), expected, "in {dialog}");
                }
                other => panic!("{line}: {other:?}"),
            }
        } else {
            step = match (line, step) {
                ("receive", step @ ClientStep::Receive(_)) | ("close", step @ ClientStep::Close) => step,
                ("starttls", ClientStep::StartTls) => client.handshake_succeeded(),
                ("settled", ClientStep::CheckEncryption) => client.begin_transactions(),
                ("message", ClientStep::SendMessage) => client.message_sent(),
                ("lost", _) => client.interrupted("connection reset"),
                (_, step) => panic!("{line}: {step:?}"),
            };
        }
    }
    assert!(matches!(step, ClientStep::Quit(_) | ClientStep::Close), "{step:?}");
    client.results()
}

fn shown(answers: &[RecipientResult]) -> Vec<String> {
    let shown = |answer: &RecipientResult| match answer {
        RecipientResult::Outcome(outcome) => outcome.status(),
        RecipientResult::NoAnswer(failure) => format!("open {}", Outcome::from(failure.clone()).status()),
        RecipientResult::NotAsked => "not asked".to_owned(),
    };
    answers.iter().map(shown).collect()
}

const HELLO: &str = "S: 220 hi\nC: EHLO here.example\nS: 250 mx\nsettled\nC: MAIL FROM:<ana@here.example>\n";
const PIPELINED: &str = "S: 220 hi\nC: EHLO here.example\nS: 250-mx|250 PIPELINING\nsettled\n\
    C: MAIL FROM:<ana@here.example>|RCPT TO:<bo@there.example>|RCPT TO:<cy@there.example>|RCPT TO:<di@there.example>|DATA\n";

#[test]
fn a_message_is_sent_command_by_command() {
    let answers = play(
        plan(&TO[..1]),
        &format!(
            "{HELLO} S: 250 ok\nC: RCPT TO:<bo@there.example>\nS: 250 ok\nC: DATA\nS: 354 go\nmessage\n\
             S: 250 2.6.0 queued\nC: QUIT"
        ),
    );
    let [RecipientResult::Outcome(Outcome::Delivered(reason))] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    assert_eq!(reason.to_string(), "accepted: mx.there.example said: 250 2.6.0 queued");
    assert_eq!(shown(&answers), ["2.6.0"]);
}

#[test]
fn a_peer_with_pipelining_gets_the_commands_in_one_group() {
    let answers = play(
        plan(&TO),
        &format!(
            "{PIPELINED} S: 250 ok\nreceive\nS: 250 ok\nreceive\nS: 550 5.1.1 no\nreceive\nS: 450 4.2.1 busy\n\
             receive\nS: 354 go\nmessage\nS: 250 2.0.0 ok\nC: QUIT"
        ),
    );
    assert_eq!(shown(&answers), ["2.0.0", "5.1.1", "4.2.1"]);
}

#[test]
fn a_group_is_limited_and_the_next_one_follows() {
    let many: Vec<String> = (0..150).map(|n| format!("r{n}@there.example")).collect();
    let (mut client, _) = Client::new(plan(&many.iter().map(String::as_str).collect::<Vec<_>>()));
    let _ = client.reply(&reply("220 hi"));
    assert_eq!(client.reply(&reply("250-mx|250 PIPELINING")), ClientStep::CheckEncryption);
    let mut commands = Vec::new();
    let mut step = client.begin_transactions();
    loop {
        step = match step {
            ClientStep::Send(octets, _) => {
                commands.push(octets.iter().filter(|&&octet| octet == b'\n').count());
                client.reply(&reply("250 ok"))
            }
            ClientStep::Receive(Wait::Data) => client.reply(&reply("354 go")),
            ClientStep::Receive(_) => client.reply(&reply("250 ok")),
            ClientStep::SendMessage => client.message_sent(),
            ClientStep::Quit(_) => break,
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(commands, [100, 52]);
    assert_eq!(shown(&client.results()), ["2.0.0"; 150]);
}

#[test]
fn when_all_are_refused_no_data_is_sent() {
    let dialog = format!("{HELLO} S: 250 ok\nC: RCPT TO:<bo@there.example>\nS: 550 5.1.1 no\nC: QUIT");
    assert_eq!(shown(&play(plan(&TO[..1]), &dialog)), ["5.1.1"]);
}

#[test]
fn when_all_are_refused_in_a_group_a_354_is_answered_by_a_lone_dot() {
    let dialog = format!(
        "{PIPELINED} S: 250 ok\nS: 550 5.1.1 no\nS: 550 5.1.1 no\nS: 450 4.2.0 no\nS: 354 go\nC: .\nS: 250 ok\nC: QUIT"
    );
    assert_eq!(shown(&play(plan(&TO), &dialog)), ["5.1.1", "5.1.1", "4.2.0"]);
    let dialog = format!(
        "{PIPELINED} S: 250 ok\nS: 550 5.1.1 no\nS: 550 5.1.1 no\nS: 450 4.2.0 no\nS: 503 5.5.1 no\nC: QUIT"
    );
    assert_eq!(shown(&play(plan(&TO), &dialog)), ["5.1.1", "5.1.1", "4.2.0"]);
}

#[test]
fn a_552_to_rcpt_counts_as_452() {
    let dialog = format!("{HELLO} S: 250 ok\nC: RCPT TO:<bo@there.example>\nS: 552 5.5.3 many\nC: QUIT");
    assert_eq!(shown(&play(plan(&TO[..1]), &dialog)), ["4.5.3"]);
}

#[test]
fn a_5yz_to_mail_data_or_the_dot_is_permanent_and_a_4yz_is_not() {
    let one = &TO[..1];
    for (code, mail, data) in [("554 5.7.1", "5.7.1", "5.7.1"), ("451 4.7.1", "open 4.7.1", "4.7.1")] {
        assert_eq!(shown(&play(plan(one), &format!("{HELLO} S: {code} no\nC: QUIT"))), [mail]);
        let rcpt = format!("{HELLO} S: 250 ok\nC: RCPT TO:<bo@there.example>\nS: 250 ok\nC: DATA\n");
        assert_eq!(shown(&play(plan(one), &format!("{rcpt} S: {code} no\nC: QUIT"))), [data]);
        let dot = format!("{rcpt} S: 354 go\nmessage\nS: {code} no\nC: QUIT");
        assert_eq!(shown(&play(plan(one), &dot)), [data]);
    }
    let group = format!("{PIPELINED} S: 550 5.7.1 no\nS: 503 no\nS: 503 no\nS: 503 no\nS: 503 no\nC: QUIT");
    assert_eq!(shown(&play(plan(&TO), &group)), ["5.7.1"; 3], "later replies of the group change nothing");
}

#[test]
fn a_refusal_before_the_transaction_leaves_the_message_to_other_hosts() {
    let one = || plan(&TO[..1]);
    for (dialog, status) in [
        ("S: 554 5.3.2 no\nC: QUIT", "open 4.3.2"),
        ("S: 450 later\nC: QUIT", "open 4.2.0"),
        ("S: 421 4.3.2 busy\nclose", "open 4.3.2"),
        (
            "S: 220 hi\nC: EHLO here.example\nS: 502 no\nC: HELO here.example\nS: 550 no\nC: QUIT",
            "open 4.2.0",
        ),
        ("S: 220 hi\nC: EHLO here.example\nS: 451 no\nC: QUIT", "open 4.3.0"),
    ] {
        assert_eq!(shown(&play(one(), dialog)), [status], "{dialog}");
    }
}

#[test]
fn a_server_that_refuses_ehlo_gets_helo() {
    let dialog = "S: 220 hi\nC: EHLO here.example\nS: 500 what\nC: HELO here.example\nS: 250 mx\nsettled\n\
        C: MAIL FROM:<ana@here.example>\nS: 250 ok\nC: RCPT TO:<bo@there.example>\nS: 250 ok\nC: DATA\n\
        S: 354 go\nmessage\nS: 250 ok\nC: QUIT";
    assert_eq!(shown(&play(plan(&TO[..1]), dialog)), ["2.0.0"]);
}

#[test]
fn extensions_offered_before_tls_are_forgotten_after_it() {
    let dialog = "S: 220 hi\nC: EHLO here.example\nS: 250-mx|250-SIZE 10|250-PIPELINING|250 STARTTLS\nC: STARTTLS\n\
        S: 220 go\nstarttls\nC: EHLO here.example\nS: 250-mx|250-STARTTLS|250 size\nsettled\n\
        C: MAIL FROM:<ana@here.example> SIZE=1000\nS: 550 5.7.1 no\nC: QUIT";
    assert_eq!(shown(&play(plan(&TO[..1]), dialog)), ["5.7.1"]);
}

#[test]
fn a_refused_starttls_leaves_plain_text_and_the_caller_decides() {
    for refusal in ["454 4.7.0 not now", "554 5.7.0 not for you", "250 what?", "354 go"] {
        let dialog = format!(
            "S: 220 hi\nC: EHLO here.example\nS: 250-mx|250 STARTTLS\nC: STARTTLS\nS: {refusal}\nsettled\n\
             C: MAIL FROM:<ana@here.example>\nS: 550 5.7.1 no\nC: QUIT"
        );
        assert_eq!(shown(&play(plan(&TO[..1]), &dialog)), ["5.7.1"], "{refusal}");
    }
}

#[test]
fn a_530_to_mail_without_tls_does_not_refuse_the_sender() {
    let refused = "S: 220 hi\nC: EHLO here.example\nS: 250-mx|250 STARTTLS\nC: STARTTLS\n\
        S: 454 4.7.0 not now\nsettled\nC: MAIL FROM:<ana@here.example>\nS: 530 5.7.0 STARTTLS first\nC: QUIT";
    assert_eq!(shown(&play(plan(&TO[..1]), refused)), ["open 4.7.0"]);
    let never = Plan { encryption: Encryption::Never, ..plan(&TO[..1]) };
    let dialog = "S: 220 hi\nC: EHLO here.example\nS: 250-mx|250 STARTTLS\nsettled\n\
        C: MAIL FROM:<ana@here.example>\nS: 530 5.7.0 STARTTLS first\nC: QUIT";
    assert_eq!(shown(&play(never, dialog)), ["open 4.7.0"]);
    let not_offered = format!("{HELLO} S: 530 5.7.0 log in first\nC: QUIT");
    assert_eq!(shown(&play(plan(&TO[..1]), &not_offered)), ["5.7.0"]);
}

#[test]
fn a_plan_for_plain_text_sends_no_starttls() {
    let dialog = "S: 220 hi\nC: EHLO here.example\nS: 250-mx|250 STARTTLS\nsettled\n\
        C: MAIL FROM:<ana@here.example>\nS: 550 5.7.1 no\nC: QUIT";
    let answers = play(Plan { encryption: Encryption::Never, ..plan(&TO[..1]) }, dialog);
    assert_eq!(shown(&answers), ["5.7.1"]);
}

#[test]
fn a_421_leaves_recipients_without_an_answer_to_another_host() {
    let dialog = format!("{PIPELINED} S: 250 ok\nS: 250 ok\nS: 550 5.1.1 no\nS: 421 4.3.2 bye\nclose");
    assert_eq!(shown(&play(plan(&TO), &dialog)), ["open 4.3.2", "5.1.1", "open 4.3.2"]);
}

#[test]
fn after_a_lost_connection_another_host_is_tried_only_before_the_dot() {
    let rcpt = format!("{HELLO} S: 250 ok\nC: RCPT TO:<bo@there.example>\nS: 250 ok\nC: DATA\n");
    for (end, status) in [
        ("lost\nclose", "open 4.4.2"),
        ("S: 354 go\nlost\nclose", "open 4.4.2"),
        ("S: 354 go\nmessage\nlost\nclose", "4.4.2"),
    ] {
        assert_eq!(shown(&play(plan(&TO[..1]), &format!("{rcpt}{end}"))), [status], "{end}");
    }
    let dot = format!("{rcpt} S: 354 go\nmessage\nS: 421 4.3.2 bye\nC: QUIT");
    assert_eq!(shown(&play(plan(&TO[..1]), &dot)), ["4.3.2"]);
}

#[test]
fn the_message_is_announced_with_its_size_and_body() {
    let hello = "S: 220 hi\nC: EHLO here.example\nS: 250-mx|250-SIZE 0|250 8BITMIME\nsettled\n";
    let mail = "C: MAIL FROM:<ana@here.example> SIZE=1000 BODY=8BITMIME\nS: 550 5.7.1 no\nC: QUIT";
    let answers = play(Plan { has_8bit: true, ..plan(&TO[..1]) }, &format!("{hello}{mail}"));
    assert_eq!(shown(&answers), ["5.7.1"]);
    let mail = "C: MAIL FROM:<ana@here.example> SIZE=1000\nS: 550 5.7.1 no\nC: QUIT";
    assert_eq!(shown(&play(plan(&TO[..1]), &format!("{hello}{mail}"))), ["5.7.1"]);
}

#[test]
fn a_message_that_the_peer_cannot_take_is_refused_before_mail() {
    let bare = "S: 220 hi\nC: EHLO here.example\nS: 250 mx\nsettled\nC: QUIT";
    assert_eq!(shown(&play(Plan { has_8bit: true, ..plan(&TO[..1]) }, bare)), ["open 5.6.3"]);
    let small = "S: 220 hi\nC: EHLO here.example\nS: 250-mx|250 SIZE 999\nsettled\nC: QUIT";
    assert_eq!(shown(&play(plan(&TO[..1]), small)), ["5.3.4"]);
    let sender = ReversePath::Mailbox(mailbox("añña@here.example"));
    assert_eq!(shown(&play(Plan { reverse_path: sender, ..plan(&TO) }, bare)), ["open 5.6.7"; 3]);
    let header = Plan { has_8bit: true, has_utf8_header: true, ..plan(&TO[..1]) };
    assert_eq!(shown(&play(header, bare)), ["open 5.6.7"]);
}

#[test]
fn without_smtputf8_only_recipients_that_need_it_are_left_out() {
    let dialog = format!(
        "{HELLO} S: 250 ok\nC: RCPT TO:<bo@xn--bcher-kva.example>\nS: 250 ok\nC: DATA\nS: 354 go\nmessage\n\
         S: 250 ok\nC: QUIT"
    );
    let answers = play(plan(&["δοκιμή@there.example", "bo@bücher.example"]), &dialog);
    assert_eq!(shown(&answers), ["open 5.6.7", "2.0.0"]);
}

#[test]
fn smtputf8_is_requested_when_it_is_needed_and_offered() {
    let hello = "S: 220 hi\nC: EHLO here.example\nS: 250-mx|250-8BITMIME|250 SMTPUTF8\nsettled\n";
    let dialog = format!(
        "{hello}C: MAIL FROM:<ana@here.example> SMTPUTF8\nS: 250 ok\nC: RCPT TO:<δοκιμή@bücher.example>\n\
         S: 550 5.1.1 no\nC: QUIT"
    );
    assert_eq!(shown(&play(plan(&["δοκιμή@bücher.example"]), &dialog)), ["5.1.1"]);
    let header = Plan { has_8bit: true, has_utf8_header: true, ..plan(&TO[..1]) };
    let dialog =
        format!("{hello}C: MAIL FROM:<ana@here.example> BODY=8BITMIME SMTPUTF8\nS: 550 5.7.1 no\nC: QUIT");
    assert_eq!(shown(&play(header, &dialog)), ["5.7.1"]);
    let dialog = format!("{hello}C: MAIL FROM:<ana@here.example>\nS: 550 5.7.1 no\nC: QUIT");
    assert_eq!(shown(&play(plan(&["bo@bücher.example"]), &dialog)), ["5.7.1"], "a domain does not need it");
}

#[test]
fn a_withheld_recipient_is_not_named_to_the_peer() {
    let (mut client, _) = Client::new(plan(&TO[..2]));
    let _ = client.reply(&reply("220 hi"));
    let _ = client.reply(&reply("250 mx"));
    client.withhold(0, Failure::transient(7, 4, "not encrypted"));
    let _ = client.begin_transactions();
    let step = client.reply(&reply("250 ok"));
    assert_eq!(step, ClientStep::Send(b"RCPT TO:<cy@there.example>\r\n".to_vec(), Wait::Rcpt));
    let _ = client.reply(&reply("550 5.1.1 no"));
    assert_eq!(shown(&client.results()), ["open 4.7.4", "5.1.1"]);
}

#[test]
fn a_reply_before_the_end_of_the_message_is_not_a_delivery() {
    for (code, status) in [("250 2.0.0", "4.0.0"), ("552 5.3.4", "5.3.4"), ("451 4.3.0", "4.3.0")] {
        let (mut client, _) = Client::new(plan(&TO[..1]));
        let _ = client.reply(&reply("220 hi"));
        let _ = client.reply(&reply("250 mx"));
        let _ = client.begin_transactions();
        let _ = client.reply(&reply("250 ok"));
        let _ = client.reply(&reply("250 ok"));
        assert_eq!(client.reply(&reply("354 go")), ClientStep::SendMessage);
        assert_eq!(client.reply(&reply(&format!("{code} early"))), ClientStep::Close);
        assert_eq!(shown(&client.results()), [status]);
    }
}

/// From the greeting to the end of one message to Bo.
const TO_BO: &str =
    "S: 250 ok\nC: RCPT TO:<bo@there.example>\nS: 250 ok\nC: DATA\nS: 354 go\nmessage\nS: 250 2.0.0 ok\n";

#[test]
fn requested_reports_are_passed_on_to_a_peer_with_dsn() {
    let asking = || {
        let mut plan = plan(&TO[..2]);
        plan.ret = Some(Ret::Headers);
        plan.envid = Some("QQ314159".to_owned());
        plan.recipients[0].notify = Notify::When { success: true, failure: true, delay: false };
        plan.recipients[0].orcpt = Some("rfc822;bo+2Bx@there.example".to_owned());
        plan.recipients[1].notify = Notify::Never;
        plan.recipients[1].orcpt = Some("rfc822;not plain".to_owned());
        plan
    };
    let dialog = "S: 220 hi\nC: EHLO here.example\nS: 250-mx|250 DSN\nsettled\n\
        C: MAIL FROM:<ana@here.example> RET=HDRS ENVID=QQ314159\nS: 250 ok\n\
        C: RCPT TO:<bo@there.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bo+2Bx@there.example\nS: 250 ok\n\
        C: RCPT TO:<cy@there.example> NOTIFY=NEVER\nS: 550 5.1.1 no\nC: DATA\nS: 354 go\nmessage\n\
        S: 250 ok\nC: QUIT";
    let took_dsn = |answers: &[RecipientResult]| match answers.first() {
        Some(RecipientResult::Outcome(outcome)) => {
            outcome.reason().response.as_ref().is_some_and(|remote| remote.has_accepted_dsn)
        }
        other => panic!("{other:?}"),
    };
    assert!(took_dsn(&play(asking(), dialog)));
    let dialog = format!(
        "{HELLO} S: 250 ok\nC: RCPT TO:<bo@there.example>\nS: 250 ok\nC: RCPT TO:<cy@there.example>\n\
         S: 250 ok\nC: DATA\nS: 354 go\nmessage\nS: 250 ok\nC: QUIT"
    );
    assert!(!took_dsn(&play(asking(), &dialog)));
    let plain = format!(
        "S: 220 hi\nC: EHLO here.example\nS: 250-mx|250 DSN\nsettled\n\
        C: MAIL FROM:<ana@here.example>\n{TO_BO}C: QUIT"
    );
    assert!(took_dsn(&play(plan(&TO[..1]), &plain)), "though it asked for nothing");
}

#[test]
fn a_failure_before_mail_concerns_the_host_and_a_refused_sender_the_message() {
    let scope = |answers: &[RecipientResult]| match answers.first() {
        Some(RecipientResult::NoAnswer(failure)) => failure.reason().scope,
        other => panic!("{other:?}"),
    };
    let one = || plan(&TO[..1]);
    for dialog in ["S: 554 no\nC: QUIT", "lost\nclose", "S: 220 hi\nC: EHLO here.example\nS: 421 no\nclose"] {
        assert_eq!(scope(&play(one(), dialog)), FailureScope::Destination, "{dialog}");
    }
    for end in ["S: 451 4.1.8 who\nC: QUIT", "S: 250 ok\nlost\nclose"] {
        assert_eq!(scope(&play(one(), &format!("{HELLO} {end}"))), FailureScope::Message, "{end}");
    }
}

/// Small and seeded.
#[test]
fn every_session_ends_with_a_result_for_every_recipient() {
    let replies = [
        "220 a",
        "250 b",
        "250-c|250-STARTTLS|250 PIPELINING",
        "250-d|250-SIZE 5000|250 SMTPUTF8",
        "354 e",
        "421 f",
        "450 g",
        "550 h",
        "552 i",
        "299 j",
        "399 k",
        "452 4.5.3 l",
        "250-m|250 LIMITS RCPTMAX=2 MAILMAX=3",
    ];
    for seed in 0..2000 {
        // Xorshift, so that the test is pure like the client.
        let mut bits: u64 = seed + 1;
        let mut below = |end: u64| {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            bits % end
        };
        let plan = if seed % 2 == 0 { plan(&TO) } else { lmtp_plan(&TO) };
        let (mut client, mut step) = Client::new(plan);
        for round in 0.. {
            assert!(round < 100, "seed {seed} has no end");
            step = match step {
                ClientStep::Quit(_) | ClientStep::Close => break,
                ClientStep::StartTls if below(2) == 0 => client.handshake_failed("no common suite"),
                ClientStep::StartTls => client.handshake_succeeded(),
                ClientStep::CheckEncryption => client.begin_transactions(),
                ClientStep::SendMessage if below(4) > 0 => client.message_sent(),
                _ if below(20) == 0 => client.interrupted("timed out"),
                _ => {
                    let said = replies[usize::try_from(below(replies.len() as u64)).unwrap()];
                    client.reply(&reply(said))
                }
            };
        }
        assert_eq!(client.results().len(), TO.len());
    }
}
