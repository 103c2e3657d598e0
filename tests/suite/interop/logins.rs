//! Logins of real clients at the real server: swaks, curl, msmtp and gsasl.

use std::fs;
use std::process::{Command, Output, Stdio};

use crate::peers;
use crate::test_server::{TestServer, wait_for};

const ANA: &str = "ana@here.example";
const SECRET: &str = "secret word";

/// The output of a client.
fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(peers::program(program));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Submits a message after a login by this mechanism.
fn swaks(server: &TestServer, mechanism: &str, user: &str, password: &str, more: &[&str]) -> Output {
    let address = format!("127.0.0.1:{}", server.submissions_port);
    let login = ["--server", &address, "--tls-on-connect", "--auth", mechanism, "--auth-user", user];
    let rest = ["--auth-password", password, "--from", user, "--to", ANA];
    peers::swaks([&login[..], &rest, more].concat())
}

fn curl(server: &TestServer, mechanism: &str, password: &str) -> Output {
    let message = server.path("message");
    fs::write(&message, "Subject: by curl\r\n\r\nhello\r\n").unwrap();
    run(
        "curl",
        &[
            &format!("smtp://127.0.0.1:{}/client.example", server.submission_port),
            "--silent",
            "--show-error",
            "--ssl-reqd",
            "--insecure",
            "--login-options",
            &format!("AUTH={mechanism}"),
            "--user",
            &format!("{ANA}:{password}"),
            "--mail-from",
            ANA,
            "--mail-rcpt",
            ANA,
            "--upload-file",
            message.to_str().unwrap(),
        ],
    )
}

fn msmtp(server: &TestServer, mechanism: &str, password: &str) -> Output {
    let port = server.submission_port.to_string();
    let login = [
        "--file=/dev/null",
        "--host=127.0.0.1",
        &format!("--port={port}"),
        "--tls=on",
        "--tls-certcheck=off",
        &format!("--auth={mechanism}"),
        &format!("--user={ANA}"),
        &format!("--passwordeval=echo '{password}'"),
        &format!("--from={ANA}"),
        ANA,
    ];
    run("msmtp", &login)
}

/// Logs in and disconnects. Where there is channel binding, gsasl uses it unless an option forbids it.
fn gsasl(server: &TestServer, mechanism: &str, password: &str) -> Output {
    let binding: &[&str] = if mechanism.ends_with("-PLUS") { &[] } else { &["--no-cb"] };
    let address = format!("--connect=127.0.0.1:{}", server.submission_port);
    let login = ["--smtp", &address, "--starttls", "--x509-ca-file=", "--verbose"];
    let who = ["--mechanism", mechanism, "--authentication-id", ANA, "--password", password];
    run("gsasl", &[&login[..], &who, binding].concat())
}

/// The number of lines of this kind in the mail log.
fn count(server: &TestServer, event: &str) -> usize {
    server.log().matches(&format!(" {event} client=127.0.0.1 user={ANA}")).count()
}

#[test]
fn real_clients_log_in_by_every_mechanism_that_they_have() {
    let server = TestServer::new_started("");
    type LogIn<'a> = &'a dyn Fn(&str) -> Output;
    let clients: [(&str, LogIn<'_>); 11] = [
        ("swaks PLAIN", &|password| swaks(&server, "PLAIN", ANA, password, &[])),
        ("swaks LOGIN", &|password| swaks(&server, "LOGIN", ANA, password, &[])),
        ("curl PLAIN", &|password| curl(&server, "PLAIN", password)),
        ("curl LOGIN", &|password| curl(&server, "LOGIN", password)),
        ("msmtp PLAIN", &|password| msmtp(&server, "plain", password)),
        ("msmtp LOGIN", &|password| msmtp(&server, "login", password)),
        ("msmtp SCRAM-SHA-256", &|password| msmtp(&server, "scram-sha-256", password)),
        ("gsasl PLAIN", &|password| gsasl(&server, "PLAIN", password)),
        ("gsasl LOGIN", &|password| gsasl(&server, "LOGIN", password)),
        ("gsasl SCRAM-SHA-256", &|password| gsasl(&server, "SCRAM-SHA-256", password)),
        ("gsasl SCRAM-SHA-256-PLUS", &|password| gsasl(&server, "SCRAM-SHA-256-PLUS", password)),
    ];
    for (n, (name, log_in)) in clients.into_iter().enumerate() {
        let output = log_in("wrong word");
        assert!(!output.status.success(), "{name} with a wrong password:\n{}", text(&output));
        let what = format!("the line of {name} with a wrong password, after\n{}", text(&output));
        wait_for(&what, || (count(&server, "login-failed") > n).then_some(()));
        let output = log_in(SECRET);
        assert!(output.status.success(), "{name}:\n{}\n{}", text(&output), server.log());
        wait_for(&format!("the line of {name}"), || (count(&server, "login") > n).then_some(()));
    }
    wait_for("seven messages", || (server.maildir_messages("here.example", "ana").len() == 7).then_some(()));
    assert!(!server.log().contains(SECRET), "the password is in the log");
}

#[test]
fn a_client_that_guesses_passwords_waits_and_the_user_logs_in_from_elsewhere() {
    let server = TestServer::new_started("");
    let quit = ["--quit-after", "AUTH"];
    for _ in 0..6 {
        let output = swaks(&server, "PLAIN", ANA, "a guess", &quit);
        assert!(text(&output).contains("535 5.7.8"), "{}", text(&output));
    }
    let output = swaks(&server, "LOGIN", ANA, SECRET, &quit);
    assert!(text(&output).contains("454 4.7.0 Too many wrong logins from your address"), "{}", text(&output));
    assert_eq!(
        (count(&server, "login-failed"), count(&server, "login-throttled")),
        (6, 1),
        "{}",
        server.log()
    );
    let elsewhere = [&quit[..], &["--local-interface", "127.0.0.2"]].concat();
    let output = swaks(&server, "PLAIN", ANA, SECRET, &elsewhere);
    assert!(output.status.success(), "{}", text(&output));
    assert!(server.monitor_page("/metrics").contains("postrider_login_total{result=\"throttled\"} 1"));
}

#[test]
fn imported_hashes_work_and_scram_is_offered_only_while_all_users_have_keys() {
    let mut server = TestServer::new("");
    let users = server.path("domains/here.example/users");
    let text_before = fs::read_to_string(&users).unwrap();
    let eve = "eve: $2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n";
    let fay =
        "fay: $scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E\n";
    fs::write(&users, format!("{text_before}{eve}{fay}")).unwrap();
    server.start();
    for (user, password) in [("eve@here.example", "U*U"), ("fay@here.example", "password"), (ANA, SECRET)] {
        let output = swaks(&server, "PLAIN", user, password, &[]);
        assert!(output.status.success(), "{user}: {}", text(&output));
        assert!(text(&output).contains("AUTH PLAIN LOGIN\n"), "{}", text(&output));
    }
    for user in ["eve@here.example", "fay@here.example"] {
        let (code, _, errors) = server.run_to_end(&["user", "passwd", user, "--receive-only"]);
        assert_eq!(code, 0, "{errors}");
    }
    wait_for("SCRAM to be offered", || {
        let output = swaks(&server, "PLAIN", ANA, SECRET, &["--quit-after", "AUTH"]);
        text(&output).contains("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN\n").then_some(())
    });
}
