//! The filter in `etc/fail2ban` matches the right lines in the log of the real server, and no others.
//!
//! fail2ban cuts the date off a line and looks for one of the filter's expressions in the rest; grep
//! does the same here, since its expressions are of the same kind.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::test_server::{TestServer, wait_for};

/// The expressions of the filter, with an address where fail2ban puts one.
fn expressions() -> Vec<String> {
    let filter = include_str!("../../../etc/fail2ban/filter.d/postrider.conf");
    let (_, from) = filter.split_once("failregex = ").unwrap();
    let (expressions, _) = from.split_once("\n\n").unwrap();
    expressions.lines().map(|line| line.trim().replace("<ADDR>", r"(?:\d+\.){3}\d+")).collect()
}

/// The lines in which the expression is found.
fn found(expression: &str, lines: &str) -> Vec<String> {
    let mut grep = Command::new("grep")
        .args(["-P", expression])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    grep.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = grep.wait_with_output().unwrap();
    assert!(output.stderr.is_empty());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_filter_matches_wrong_passwords_and_endless_mistakes_and_nothing_else() {
    let server = TestServer::new_started("[limits]\nerrors-max = 2\n");
    let quit = ["--quit-after", "AUTH"];
    assert!(
        !server
            .submit_with_swaks(server.submission_port, "ana@here.example", "wrong", &quit)
            .status
            .success()
    );
    assert!(
        server
            .submit_with_swaks(server.submission_port, "ana@here.example", "secret word", &quit)
            .status
            .success()
    );
    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<bo@there.example>", "250");
    client.expect("RCPT TO:<nobody@here.example>", "550");
    client.expect("login-failed client=203.0.113.9 user=forged", "500");
    client.expect("NONSENSE", "421 4.7.0");
    let log = wait_for("the last line", || Some(server.log()).filter(|log| log.contains("too many errors")));
    let dateless: String = log.lines().map(|line| format!("{}\n", line.split_once(' ').unwrap().1)).collect();
    let journal: String = dateless
        .lines()
        .map(|line| format!("mx postrider[815]: {}\n", line.trim_start_matches("INFO").trim_start()))
        .collect();
    for lines in [dateless, journal] {
        let found: Vec<_> = expressions().iter().map(|expression| found(expression, &lines)).collect();
        let [passwords, mistakes] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((passwords.len(), mistakes.len()), (1, 1), "{found:?} in {log}");
        assert!(
            passwords[0].contains("login-failed client=127.0.0.1 user=ana@here.example"),
            "{passwords:?}"
        );
    }
}
