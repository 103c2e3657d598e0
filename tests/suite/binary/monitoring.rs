//! The log, the monitor's pages and `postrider queue` of the real program.

use crate::peers::SmtpSink;
use crate::test_server::{RELAY_FROM_LOOPBACK, TestServer, loopback_dns, wait_for};

#[test]
fn a_message_that_is_too_big_is_logged_with_its_sender() {
    let server = TestServer::new_started("[limits]\nmessage-size-max = \"64 KiB\"\n");
    let mut client = server.connect();
    client.begin_data("bo@there.example", "ana@here.example");
    client.expect(&format!("{}.", "too big\r\n".repeat(10_000)), "552 5.3.4");
    client.expect("DATA", "503");
    for line in
        ["client=127.0.0.1 from=<bo@there.example> reply=\"552 5.3.4 ", "client=127.0.0.1 reply=\"503 5.5.1 "]
    {
        wait_for(line, || server.log().contains(line).then_some(()));
    }
}

#[test]
fn metrics_traces_and_log_show_a_delivery() {
    let server = TestServer::new_started("");
    server.send_message("bo@there.example", "ana@here.example", "one");
    server.wait_for_message("here.example", "ana");
    // The message is in the Maildir a little before it is counted.
    let metrics = wait_for("the outcome", || {
        Some(server.monitor_page("/metrics")).filter(|page| page.contains("result=\"delivered\""))
    });
    assert!(
        metrics.contains("postrider_session_message_total 1") && metrics.ends_with("# EOF\n"),
        "{metrics}"
    );
    let vars: serde_json::Value = serde_json::from_str(&server.monitor_page("/debug/vars")).unwrap();
    assert_eq!(vars["session_message"], 1);
    // Counters of sessions and of the queue, in both formats.
    for (name, label, value) in [
        ("session_command", "RCPT", 1),
        ("session_reply", "354", 1),
        ("recipient_decision", "local", 1),
        ("queue_messages_accepted", "", 1),
        ("queue_attempts", "maildir", 1),
        ("queue_outcomes", "delivered", 1),
    ] {
        let found = if label.is_empty() { &vars[name] } else { &vars[name][label] };
        assert_eq!(*found, value, "{name} {label} in {vars:#} {metrics}");
        let line = format!("postrider_{name}_total");
        assert!(
            metrics.lines().any(|l| l.starts_with(&line) && l.ends_with(&format!(" {value}"))),
            "{metrics}"
        );
    }
    assert!(server.monitor_page("/").contains("mx.here.example"));
    // Traces of sessions and attempts.
    wait_for("the session's trace", || {
        server.monitor_page("/traces").contains("octets safe on disk").then_some(())
    });
    let sessions = server.monitor_page("/traces?kind=session");
    for event in ["EHLO there.example", "MAIL FROM:&lt;bo@there.example&gt;", "250 2.0.0 Queued as "] {
        assert!(sessions.contains(event), "{event} in {sessions}");
    }
    let attempts = wait_for("the attempt's trace", || {
        Some(server.monitor_page("/traces?kind=attempt")).filter(|page| page.contains("ana@here.example"))
    });
    assert!(attempts.contains("maildir") && !attempts.contains("EHLO"), "{attempts}");
    let log = wait_for("the log", || Some(server.log()).filter(|log| log.contains("delivered")));
    let id = log.lines().find(|line| line.contains("queued id=")).unwrap().split("id=").nth(1).unwrap();
    let id = id.split(' ').next().unwrap();
    assert!(
        log.lines().any(|line| line.contains("delivered") && line.contains(id)),
        "one id for all lines: {log}"
    );
}

#[test]
fn a_refusal_is_a_log_line_with_client_sender_recipient_and_reply() {
    let server = TestServer::new_started("[limits]\nreceived-max = 10\n");
    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<bo@there.example>", "250");
    client.expect("RCPT TO:<nobody@here.example>", "550 5.1.1");
    client.expect("RCPT TO:<eve@elsewhere.example>", "550 5.7.1");
    client.expect("RCPT TO:<ana@here.example>", "250");
    client.expect("NONSENSE", "500");
    client.expect("DATA", "354");
    client.expect(&format!("{}\r\nhello\r\n.", "Received: by x\r\n".repeat(11)), "554 5.4.6");
    let is_ours = |line: &str| line.contains("refused client=") && line.contains("bo@there.example");
    let lines = wait_for("the last refusal", || {
        let lines: Vec<String> = server.log().lines().filter(|l| is_ours(l)).map(str::to_owned).collect();
        lines.last().is_some_and(|line| line.contains("554 5.4.6")).then_some(lines)
    });
    for (line, says) in lines.iter().zip([
        "client=127.0.0.1 from=<bo@there.example> to=<nobody@here.example> reply=\"550 5.1.1 ",
        "client=127.0.0.1 from=<bo@there.example> to=<eve@elsewhere.example> reply=\"550 5.7.1 ",
        "client=127.0.0.1 from=<bo@there.example> reply=\"500 5.5.",
        "client=127.0.0.1 from=<bo@there.example> reply=\"554 5.4.6 ",
    ]) {
        assert!(line.contains(says), "{says} in {line}");
    }
    assert_eq!(lines.len(), 4, "{lines:#?}");
}

#[test]
fn waiting_messages_are_listed_retried_and_removed_by_commands() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SmtpSink::start_with(dir.path(), &["-r", "RCPT"]);
    let (_dns, toml) = loopback_dns(&["there.example"], sink.port);
    let server = TestServer::new_started(&format!("{toml}\n{RELAY_FROM_LOOPBACK}"));
    server.send_message("ana@here.example", "bo@there.example", "waits");
    let listing = wait_for("a deferral", || {
        let (code, text, error) = server.run_to_end(&["queue", "list"]);
        assert_eq!(code, 0, "{error}");
        text.contains("deferred").then_some(text)
    });
    assert!(listing.contains("bo@there.example") && listing.contains("ana@here.example"), "{listing}");
    let page = server.monitor_page("/queue");
    let dump: serde_json::Value = serde_json::from_str(&server.monitor_page("/queue.json")).unwrap();
    let (_, listed, _) = server.run_to_end(&["queue", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    for dump in [dump, listed] {
        let message = &dump["messages"][0];
        assert!(dump["count"] == 1 && message["age-seconds"].is_u64(), "{dump}");
        assert_eq!(message["reverse-path"], "<ana@here.example>");
        assert_eq!(message["recipients"][0]["recipient"], "bo@there.example");
        assert_eq!(message["recipients"][0]["state"], "deferred");
        let reason = message["recipients"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("450") && listing.contains(message["id"].as_str().unwrap()), "{dump}");
        for shown in [message["id"].as_str().unwrap(), "ana@here.example", "bo@there.example", "450"] {
            assert!(page.contains(shown), "{shown} in {page}");
        }
    }
    let id =
        listing.split_whitespace().find(|word| word.parse::<postrider::mail::MessageId>().is_ok()).unwrap();
    let before = sink.counts().sessions;
    assert_eq!(server.run_to_end(&["queue", "retry", id]).0, 0);
    sink.wait_until(|counts| counts.sessions > before);
    let (code, said, error) = server.run_to_end(&["queue", "hold", "--to", "there.example"]);
    assert!(code == 0 && said.contains(id), "{said}{error}");
    wait_for("the hold", || server.run_to_end(&["queue", "list", "--held"]).1.contains(id).then_some(()));
    assert!(server.monitor_page("/queue").contains("held: not tried before it is released"));
    let (_, shown, _) = server.run_to_end(&["queue", "show", id, "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert!(shown["held"] == true && shown["client"] == "127.0.0.1", "{shown}");
    assert!(shown["history"][0]["reason"].as_str().unwrap().contains("450"), "{shown}");
    let (_, message, _) = server.run_to_end(&["queue", "show", id, "--message"]);
    assert!(message.starts_with("Received: ") && message.ends_with("\r\n\r\nHello bo@there.example.\r\n"));
    for wrong in
        [&["queue", "remove"][..], &["queue", "hold", "nonsense"], &["queue", "release", "--from", "@"]]
    {
        assert_ne!(server.run_to_end(wrong).0, 0, "{wrong:?}");
    }
    assert_eq!(
        server.run_to_end(&["queue", "remove", "--from", "bo@there.example"]).0,
        1,
        "no queued message matches"
    );
    assert_eq!(server.run_to_end(&["queue", "remove", id, "--bounce=Not today."]).0, 0);
    assert!(!server.run_to_end(&["queue", "list"]).1.contains(id));
    assert!(
        server.wait_for_message("here.example", "ana").contains("Diagnostic-Code: x-postrider; Not today.\n")
    );
}
