//! Delivery to programs by the real program: the operator's agent, and pipes from alias files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::test_server::{TestServer, wait_for};

/// A server that delivers local mail to `program` with these `arguments`.
fn server_with_agent(program: &str, arguments: &[&str], more: &str) -> TestServer {
    TestServer::new(&format!(
        "[delivery]\nlocal = \"command\"\n[delivery.command]\nprogram = {program:?}\narguments = {arguments:?}\n{more}\n"
    ))
}

/// A server with these aliases.
fn server_with_aliases(aliases: &str, more: &str) -> TestServer {
    let server = TestServer::new(more);
    fs::write(server.path("domains/here.example/aliases"), aliases).unwrap();
    server
}

/// Waits until `postrider queue list` prints `words`, and returns its output.
fn wait_for_queue_list(server: &TestServer, words: &str) -> String {
    wait_for(words, || Some(server.run_to_end(&["queue", "list"]).1).filter(|text| text.contains(words)))
}

/// Waits until the queue is empty.
fn wait_for_empty_queue(server: &TestServer) {
    wait_for_queue_list(server, "the queue is empty");
}

fn message_id_in(listing: &str) -> &str {
    listing.split_whitespace().find(|word| word.parse::<postrider::mail::MessageId>().is_ok()).unwrap()
}

/// Waits for a file that was renamed into place.
fn wait_for_file(path: &PathBuf) -> String {
    wait_for("the program's file", || fs::read_to_string(path).ok())
}

/// For a shell: keeps standard input in the file `$0`, whole or not at all.
const SAVE_STDIN_SCRIPT: &str = r#"cat >"$0.part" && mv "$0.part" "$0""#;

#[test]
fn a_pipe_takes_the_message_with_lf_line_ends_and_the_addresses_in_its_environment() {
    let mut server = server_with_aliases("", "");
    let out = server.path("taken");
    fs::write(
        server.path("keep"),
        "{ echo \"$SENDER $ORIGINAL_RECIPIENT\"; cat; } >\"$1.part\" && mv \"$1.part\" \"$1\"",
    )
    .unwrap();
    fs::write(
        server.path("domains/here.example/aliases"),
        format!("requests: | sh \"{}\" \"{}\"\n", server.path("keep").display(), out.display()),
    )
    .unwrap();
    server.start();
    server.send_message("o'brien@there.example", "Requests@here.example", "a request");
    let taken = wait_for_file(&out);
    assert!(
        taken.starts_with(
            "o'brien@there.example Requests@here.example\nReturn-Path: <o'brien@there.example>\n"
        ),
        "{taken}"
    );
    assert!(taken.ends_with("\nSubject: a request\n\nHello Requests@here.example.\n"), "{taken}");
    assert!(!taken.contains('\r'), "{taken}");
    wait_for_empty_queue(&server);
}

#[test]
fn a_failing_pipe_causes_a_bounce_at_once_with_its_output_whatever_its_exit_status() {
    let mut server = server_with_aliases(
        "broken: | sh -c \"cat >/dev/null; echo no such folder; exit 67\"\n\
         busy: | sh -c \"cat >/dev/null; exit 75\"\nmissing: | /no/such/program\n",
        "",
    );
    server.start();
    for (number, (to, parts)) in [
        (
            "broken",
            &[
                "Final-Recipient: rfc822; broken@here.example\n",
                "Action: failed\n",
                "Status: 5.1.1\n",
                "Diagnostic-Code: x-program; sh ended with exit status 67: no such folder\n",
                "    The program said: no such folder\n",
            ][..],
        ),
        ("busy", &["Final-Recipient: rfc822; busy@here.example\n", "Status: 5.3.0\n"]),
        ("missing", &["Final-Recipient: rfc822; missing@here.example\n", "Status: 5.3.5\n"]),
    ]
    .into_iter()
    .enumerate()
    {
        server.send_message("ana@here.example", &format!("{to}@here.example"), "to a program");
        let messages = wait_for("a report", || {
            Some(server.maildir_messages("here.example", "ana")).filter(|messages| messages.len() > number)
        });
        let texts: Vec<_> = messages.into_iter().map(|octets| String::from_utf8(octets).unwrap()).collect();
        let about = format!("Final-Recipient: rfc822; {to}@here.example\n");
        let report = texts.iter().find(|text| text.contains(&about)).unwrap_or_else(|| panic!("{texts:#?}"));
        for part in parts {
            assert!(report.contains(part), "{part} in {report}");
        }
        assert!(!report.contains("Remote-MTA:"), "a program is no MTA: {report}");
    }
    wait_for_empty_queue(&server);
}

#[test]
fn exit_75_of_a_pipe_defers_if_configured() {
    let mut server = server_with_aliases("", "[delivery.pipe]\nexit-75 = \"transient\"\n");
    let (keep, out, gate) = (server.path("keep"), server.path("taken"), server.path("gate"));
    fs::write(&keep, "[ -e \"$2\" ] || exit 75; cat >\"$1.part\" && mv \"$1.part\" \"$1\"").unwrap();
    fs::write(
        server.path("domains/here.example/aliases"),
        format!(
            "busy: | sh \"{}\" \"{}\" \"{}\"\nbroken: | sh -c \"exit 74\"\n",
            keep.display(),
            out.display(),
            gate.display()
        ),
    )
    .unwrap();
    server.start();
    server.send_message("ana@here.example", "busy@here.example", "try again");
    let listing = wait_for_queue_list(&server, "sh ended with exit status 75");
    fs::write(&gate, "").unwrap();
    assert_eq!(server.run_to_end(&["queue", "retry", message_id_in(&listing)]).0, 0);
    assert!(wait_for_file(&out).ends_with("\nSubject: try again\n\nHello busy@here.example.\n"));
    wait_for_empty_queue(&server);
    assert!(server.maildir_messages("here.example", "ana").is_empty(), "the sender is told nothing");
    server.send_message("ana@here.example", "broken@here.example", "for good");
    assert!(server.wait_for_message("here.example", "ana").contains("Status: 5.3.0\n"));
}

#[test]
fn an_apostrophe_reaches_the_agent_as_it_is() {
    let mut server = server_with_agent(
        "sh",
        &[
            "-c",
            "printf '%s|' \"$@\" >>addresses; cat >>/dev/null; mv addresses \"$1\"",
            "sh",
            "taken",
            "%to%",
            "%to_user%",
            "%from%",
        ],
        "",
    );
    server.add_user("o'brien@here.example", "secret word");
    server.start();
    let mut client = server.connect();
    client.begin_data("d'arc@there.example", "o'brien@here.example");
    client.expect("Subject: quotes\r\n\r\nhello\r\n.", "250");
    assert_eq!(
        wait_for_file(&server.path("taken")),
        "taken|o'brien@here.example|o'brien|d'arc@there.example|"
    );
    wait_for_empty_queue(&server);
}

#[test]
fn mail_for_a_missing_agent_waits_until_the_agent_exists() {
    let mut server = server_with_agent("./agent", &["-c", SAVE_STDIN_SCRIPT, "taken"], "");
    server.start();
    server.send_message("bo@there.example", "ana@here.example", "patience");
    let listing = wait_for_queue_list(&server, "cannot be run");
    assert!(listing.contains("deferred") && server.log().contains("status=4.3.5"), "{listing}");
    symlink("/bin/sh", server.path("agent")).unwrap();
    assert_eq!(server.run_to_end(&["queue", "retry", message_id_in(&listing)]).0, 0);
    assert!(
        wait_for_file(&server.path("taken")).ends_with("\nSubject: patience\n\nHello ana@here.example.\n")
    );
    wait_for_empty_queue(&server);
}

#[test]
fn an_agent_over_its_time_limit_is_ended_and_its_mail_waits() {
    let mut server =
        server_with_agent("sh", &["-c", "echo $$ >pid; echo still busy; sleep 600"], "timeout = \"1s\"");
    server.start();
    server.send_message("bo@there.example", "ana@here.example", "slow");
    let listing = wait_for_queue_list(&server, "took longer than 1 s");
    assert!(listing.contains("deferred") && listing.contains("still busy"), "{listing}");
    assert!(server.log().contains("status=4.3.0"), "{}", server.log());
    let pid = fs::read_to_string(server.path("pid")).unwrap();
    assert!(!PathBuf::from(format!("/proc/{}", pid.trim())).exists(), "the agent is gone");
}

#[test]
fn the_agent_gets_the_configured_line_ends() {
    for (chosen, end) in [("lf", "\n"), ("crlf", "\r\n")] {
        let mut server =
            server_with_agent("sh", &["-c", SAVE_STDIN_SCRIPT, "taken"], &format!("line-ends = {chosen:?}"));
        server.start();
        server.send_message("bo@there.example", "ana@here.example", "ends");
        let taken = wait_for_file(&server.path("taken"));
        let body = ["", "Subject: ends", "", "Hello ana@here.example.", ""].join(end);
        assert!(taken.ends_with(&body), "{chosen}: {taken:?}");
        let lines = taken.matches('\n').count();
        assert_eq!(taken.matches("\r\n").count(), if chosen == "crlf" { lines } else { 0 });
    }
}

#[test]
fn a_deferred_message_is_attempted_again() {
    let script = format!("[ -e tried ] || {{ touch tried; exit 75; }}; {SAVE_STDIN_SCRIPT}");
    let mut server = server_with_agent("sh", &["-c", &script, "taken"], "[queue]\nretry = [\"1s\"]");
    server.start();
    server.send_message("bo@there.example", "ana@here.example", "second try");
    assert!(
        wait_for_file(&server.path("taken")).ends_with("\nSubject: second try\n\nHello ana@here.example.\n")
    );
    wait_for_empty_queue(&server);
    let log = server.log();
    assert!(log.contains("status=4.3.0") && log.contains("attempt=2"), "{log}");
}
