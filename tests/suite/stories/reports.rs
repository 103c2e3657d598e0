//! Which bounces are sent, when, and in which form (RFC 3461, RFC 3464), and what Python's `email` library
//! reads in them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use postrider::fakes::RecordedAttempt;
use postrider::mail::{Destination, Envelope, Mailbox, Notify, Outcome, Reason, Recipient};

use crate::queue_fixture::{MINUTE, QueueFixture, deferred, delivered, failed, mailbox};
use crate::test_server::TestServer;

const HOUR: Duration = Duration::from_secs(3600);
const MESSAGE: &[u8] = b"Subject: hello\r\nMessage-ID: <1@here.example>\r\n\r\nHello.\r\n";
const ALL: Notify = Notify::When { success: true, failure: true, delay: true };

fn text(report: &RecordedAttempt) -> String {
    String::from_utf8(report.octets.clone()).unwrap()
}

/// The `Action` of each recipient of each bounce, in order.
fn actions(fixture: &QueueFixture) -> Vec<Vec<String>> {
    let of = |report: &RecordedAttempt| {
        let text = text(report);
        text.lines().filter_map(|line| line.strip_prefix("Action: ")).map(str::to_owned).collect()
    };
    fixture.bounces().iter().map(of).collect()
}

fn submitted(fixture: &mut QueueFixture, to: &[&str], edit: impl FnOnce(&mut Envelope)) {
    let by_user = |envelope: &mut Envelope| {
        envelope.authenticated_user = Some(mailbox("ana@here.example"));
        edit(envelope);
    };
    fixture.put_with("ana@here.example", to, MESSAGE, by_user).unwrap();
    fixture.stepped.run();
}

#[test]
fn a_delay_is_reported_once_at_its_time_and_the_failure_too() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("no answer")));
    submitted(&mut fixture, &["bo@there.example", "cy@there.example"], |_| {});
    fixture.run_for(4 * HOUR - 2 * MINUTE);
    assert!(fixture.bounces().is_empty());
    fixture.run_for(4 * MINUTE);
    assert_eq!(actions(&fixture), [["delayed", "delayed"]], "one report for both");
    let report = text(&fixture.bounces()[0]);
    assert!(
        report.contains("\r\nWill-Retry-Until: ") && report.contains("\r\nStatus: 4.2.2\r\n"),
        "{report}"
    );

    // After a restart the notice is not sent again.
    let mut fixture = fixture.restarted(2);
    fixture.remote.set_default_outcome(Some(deferred("no answer")));
    fixture.run_for(100 * HOUR);
    assert!(fixture.bounces().is_empty(), "once");
    fixture.run_for(20 * HOUR);
    assert_eq!(actions(&fixture), [["failed", "failed"]]);
    assert!(text(&fixture.bounces()[0]).contains("Status: 4.4.7\r\n"));
}

#[test]
fn a_remote_sender_gets_a_delay_notice_only_if_it_asked() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("no answer")));
    fixture.receive("eve@elsewhere.example", "bo@there.example");
    fixture.run_for(10 * HOUR);
    assert!(fixture.bounces().is_empty());
}

#[test]
fn a_sender_that_asked_gets_a_report_of_local_delivery_and_of_a_relay_without_dsn() {
    let mut fixture = QueueFixture::new();
    let reports_itself =
        Reason::new(0, 0, "accepted").with_response("mx.there.example", "250 2.0.0 ok").with_dsn_accepted();
    fixture.remote.add_outcomes([delivered(), Outcome::Delivered(reports_itself), failed("no such mailbox")]);
    let to = ["ana@here.example", "bo@there.example", "cy@there.example", "eve@there.example"];
    submitted(&mut fixture, &to, |envelope| {
        envelope.envid = Some("QQ+2B1".to_owned());
        for recipient in &mut envelope.recipients {
            recipient.notify = ALL;
            recipient.orcpt = Some(format!("rfc822;{}", recipient.forward_path));
        }
    });
    assert_eq!(fixture.queue_length(), 0);
    let mut actions = actions(&fixture);
    actions.sort();
    assert_eq!(actions, [["delivered"], ["failed"], ["relayed"]], "one for each kind and attempt");
    for report in fixture.bounces() {
        let text = text(&report);
        assert!(text.contains("\r\nOriginal-Envelope-Id: QQ+1\r\n"), "{text}");
        assert!(!text.contains("cy@there.example"), "its hop reports: {text}");
        let has_body = text.contains("\r\nHello.\r\n");
        assert_eq!(has_body, text.contains("Action: failed"), "RET is about failures: {text}");
        assert!(text.contains("\r\nIn-Reply-To: <1@here.example>\r\n"), "{text}");
        assert!(text.contains("\r\nAuto-Submitted: auto-replied\r\n"), "{text}");
        assert!(text.starts_with("Received: by mail.here.example (postrider)\r\n\tid "), "{text}");
    }
}

#[test]
fn an_alias_of_several_is_reported_as_expanded_and_its_targets_are_not() {
    let mut fixture = QueueFixture::new();
    let behind = |raw: &str| Recipient {
        destination: Destination::Mailbox(Mailbox::parse(raw).unwrap()),
        notify: ALL,
        ..Recipient::for_mailbox(mailbox("list@here.example"))
    };
    fixture.remote.add_outcomes([deferred("busy"), failed("no such mailbox")]);
    submitted(&mut fixture, &["list@here.example"], |envelope| {
        envelope.recipients =
            vec![behind("bo@there.example"), behind("ana@here.example"), behind("cy@there.example")];
    });
    let mut seen = actions(&fixture);
    seen.sort();
    assert_eq!(seen, [["expanded"], ["failed"]]);
    fixture.run_for(HOUR);
    assert_eq!(
        (fixture.queue_length(), fixture.bounces().len()),
        (0, 2),
        "delivered at last, without a report"
    );
}

#[test]
fn with_notify_never_no_bounce_is_sent() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("no answer")));
    submitted(&mut fixture, &["bo@there.example", "ana@here.example"], |envelope| {
        for recipient in &mut envelope.recipients {
            recipient.notify = Notify::Never;
        }
    });
    fixture.run_for(121 * HOUR);
    assert_eq!((fixture.queue_length(), fixture.bounces().len()), (0, 0));
}

#[test]
fn the_sender_of_a_message_that_cannot_be_read_any_more_gets_a_bounce() {
    let mut fixture = QueueFixture::new();
    fixture.remote.set_default_outcome(Some(deferred("busy")));
    submitted(&mut fixture, &["bo@there.example"], |_| {});
    let file = fixture.disk.file_paths().into_iter().find(|path| path.parent().unwrap().ends_with("waiting"));
    fixture.disk.make_unreadable(&file.unwrap(), 0);
    fixture.remote.set_default_outcome(None);
    fixture.run_for(121 * HOUR);
    assert_eq!(fixture.queue_length(), 0);
    let reports = fixture.bounces();
    let last = text(reports.last().unwrap());
    assert!(last.contains("\r\nStatus: 4.4.7\r\n") && last.contains("nothing of it is returned"), "{last}");
    assert!(!last.contains("rfc822-headers"), "{last}");
}

#[test]
fn a_message_whose_success_cannot_be_reported_is_not_delivered_again() {
    let mut fixture = QueueFixture::new();
    fixture
        .put_with("ana@here.example", &["bo@there.example"], MESSAGE, |envelope| {
            envelope.recipients[0].notify = ALL;
        })
        .unwrap();
    fixture.disk.set_full(true);
    fixture.stepped.run();
    fixture.disk.set_full(false);
    fixture.run_for(24 * HOUR);
    assert_eq!((fixture.queue_length(), fixture.remote.delivered().len()), (0, 1));
}

/// What Python's `email` library reads in the bounces in `paths`.
fn read_by_python(paths: &[&Path]) -> String {
    const PROGRAM: &str = r#"
import email, email.policy, sys
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        octets = b"\r\n".join(file.read().replace(b"\r\n", b"\n").split(b"\n"))
    report = email.message_from_bytes(octets, policy=email.policy.SMTP)
    assert not report.defects, report.defects
    assert report.get_content_type() == "multipart/report", report.get_content_type()
    kind = report.get_param("report-type")
    parts = list(report.iter_parts())
    assert parts[0].get_content_type() == "text/plain" and parts[0].get_content().strip()
    assert parts[1].get_content_type() == "message/" + kind, parts[1].get_content_type()
    assert not any(part.defects for part in report.walk())
    assert report["Auto-Submitted"] == "auto-replied" and report["Date"].datetime and report["Message-ID"]
    # The library parses message/delivery-status only: its blocks are header sections.
    blocks = parts[1].get_payload()
    if kind == "global-delivery-status":
        text = octets.split(b"Content-Type: message/global-delivery-status")[1].split(b"\r\n--=_")[0]
        text = text.decode("utf-8").split("\r\n\r\n", 1)[1]
        blocks = [email.message_from_string(block) for block in text.split("\r\n\r\n") if block.strip()]
    blocks = [block for block in blocks if len(block)]
    assert blocks[0]["Reporting-MTA"].startswith("dns; "), blocks[0].items()
    for block in blocks[1:]:
        for name in ("Final-Recipient", "Action", "Status"):
            assert block.get_all(name) and len(block.get_all(name)) == 1, (path, name, block.items())
        assert block["Status"][0] in {"failed": "45", "delayed": "4"}.get(block["Action"], "2")
        print(block["Action"], block["Status"], block["Final-Recipient"])
    types = [part.get_content_type() for part in parts[2:]]
    print(" ".join(types) or "nothing returned")
"#;
    let output = Command::new("python3").arg("-c").arg(PROGRAM).args(paths).output();
    let output = output.expect("python3, whose email library reads our reports");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn pythons_email_library_reads_every_kind_of_bounce() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden");
    let kinds = ["failed", "expired", "delayed", "delivered", "relayed", "expanded", "unreadable", "global"];
    let paths: Vec<_> = kinds.iter().map(|kind| golden.join(format!("bounce-{kind}.eml"))).collect();
    let read = read_by_python(&paths.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    assert_eq!(
        read,
        "failed 5.1.1 rfc822; bo@there.example\nmessage/rfc822\n\
         failed 4.4.7 rfc822; bo@there.example\ntext/rfc822-headers\n\
         delayed 4.2.2 rfc822; bo@there.example\ntext/rfc822-headers\n\
         delivered 2.0.0 rfc822; bo@here.example\ntext/rfc822-headers\n\
         relayed 2.0.0 rfc822; bo@there.example\ntext/rfc822-headers\n\
         expanded 2.0.0 rfc822; list@here.example\ntext/rfc822-headers\n\
         failed 5.1.1 rfc822; bo@there.example\nnothing returned\n\
         failed 5.1.1 utf-8; bö@bücher.example\nmessage/global\n"
    );
}

#[test]
fn a_bounce_goes_to_the_targets_of_the_senders_address() {
    let server = TestServer::new("[queue]\nretry = [\"1s\"]\n[dns]\nservers = [\"127.0.0.1:1\"]\n");
    server.add_user("bo@here.example", "other words");
    std::fs::write(server.path("domains/here.example/aliases"), "team: bo\nsink: |/bin/false\n").unwrap();
    let mut server = server;
    server.start();
    assert!(server.send_message("team@here.example", "sink@here.example", "hello").starts_with("250"));
    let report = server.wait_for_message("here.example", "bo");
    assert!(report.contains("To: <team@here.example>\n"), "{report}");
    assert!(report.contains("Received: by mx.here.example (postrider)\n"), "{report}");
    let path = server.path("report.eml");
    std::fs::write(&path, report).unwrap();
    let read = read_by_python(&[&path]);
    assert_eq!(read, "failed 5.3.0 rfc822; sink@here.example\nmessage/rfc822\n");
}

#[test]
fn a_bounce_has_the_envelope_id_and_the_original_recipient_of_the_client() {
    let server = TestServer::new("");
    server.add_user("bo@here.example", "other words");
    std::fs::write(server.path("domains/here.example/aliases"), "sink: |/bin/false\n").unwrap();
    let mut server = server;
    server.start();
    let mut client = server.connect();
    assert!(client.expect("EHLO there.example", "250").contains("DSN"));
    client.expect("MAIL FROM:<ana@here.example> RET=HDRS ENVID=QQ+2B314159", "250");
    client.expect("RCPT TO:<sink@here.example> NOTIFY=NEVER", "250");
    client.expect("RCPT TO:<bo@here.example> NOTIFY=SUCCESS ORCPT=rfc822;b+2Bo@old.example", "250");
    client.expect("DATA", "354");
    client.expect("Subject: hello\r\n\r\nHello bo.\r\n.", "250");
    let report = server.wait_for_message("here.example", "ana");
    let field = |name: &str| report.lines().find_map(|line| line.strip_prefix(name)).unwrap_or(&report);
    assert_eq!(field("Original-Envelope-Id: "), "QQ+314159");
    assert_eq!(field("Original-Recipient: "), "rfc822; b+o@old.example");
    assert_eq!(field("Final-Recipient: "), "rfc822; bo@here.example");
    assert_eq!(field("Action: "), "delivered");
    assert!(
        report.contains("Content-Type: text/rfc822-headers") && !report.contains("Hello bo."),
        "{report}"
    );
    assert!(!report.contains("sink@"), "no report was asked for this recipient: {report}");
}
