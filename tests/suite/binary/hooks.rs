//! The operator's hooks, run by the real program.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::peers;
use crate::test_server::{TestServer, wait_for, write_program, write_script};

const QUICK: &str = "[hooks]\nrcpt-timeout = \"1s\"\npost-data-timeout = \"1s\"\n";

fn hook(server: &TestServer, name: &str, script: &str) {
    write_script(&server.path(&format!("hooks/{name}")), script);
}

/// Submits a short message with this line in it. Returns the last reply.
fn send(server: &TestServer, line: &str) -> String {
    server.send_message("bo@there.example", "ana@here.example", line)
}

/// The messages in Ana's mailbox, once there are `count`, each without Return-Path and Delivered-To.
fn messages(server: &TestServer, count: usize) -> Vec<String> {
    let messages = wait_for("the messages", || {
        Some(server.maildir_messages("here.example", "ana")).filter(|messages| messages.len() >= count)
    });
    let text = messages.into_iter().map(|octets| String::from_utf8(octets).unwrap());
    text.map(|message| message.splitn(3, '\n').nth(2).unwrap().to_owned()).collect()
}

#[test]
fn a_hook_reads_the_message_as_it_will_be_queued_and_puts_fields_on_top() {
    let mut server = TestServer::new("");
    server.add_user("bo@here.example", "another word");
    hook(&server, "post-data", "cat >seen; printf 'X-Checked: yes\\n\\tvery much\\n'");
    server.start();
    for (number, body) in
        ["Hello.\n".to_owned(), format!("{}\n", "x".repeat(70)).repeat(3000)].iter().enumerate()
    {
        let message = format!("Subject: {number}\nBcc: secret@there.example\nTo: ana@here.example\n\n{body}");
        let data = peers::swaks_data(server.dir.path(), &message);
        let mail = ["--from", "ana@here.example", "--to", "ana@here.example", "--data", &data];
        let output =
            server.submit_with_swaks(server.submission_port, "ana@here.example", "secret word", &mail);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let messages = messages(&server, number + 1);
        let message =
            messages.iter().find(|message| message.contains(&format!("Subject: {number}\n"))).unwrap();
        let seen = message.strip_prefix("X-Checked: yes\n\tvery much\n").unwrap();
        assert!(seen.starts_with("Received: from ") && seen.contains("\nMessage-ID: "), "{seen}");
        assert!(!seen.contains("Bcc:") && seen.ends_with(body), "{seen}");
        assert!(fs::read_to_string(server.path("seen")).unwrap() == seen, "message {number}");
    }
}

#[test]
fn a_hook_gets_the_documented_environment_and_nothing_else() {
    let mut server = TestServer::new("");
    fs::write(server.path("domains/here.example/aliases"), "all: ana, x@there.example\n").unwrap();
    server.environment = vec![("SECRET", "in our environment".into())];
    hook(&server, "post-data", "env >message.env");
    hook(&server, "rcpt", "env >$RCPT.env");
    server.start();
    let mut client = server.connect();
    client.expect("EHLO evil$(x).there.example", "250");
    client.expect("MAIL FROM:<bo@there.example>", "250");
    for to in ["ana@here.example", "all@here.example"] {
        client.expect(&format!("RCPT TO:<{to}>"), "250");
    }
    client.expect("DATA", "354");
    let reply = client.expect("Subject: x\r\n\r\nHello.\r\n.", "250");
    let environment = |name: &str| -> BTreeMap<String, String> {
        let text = fs::read_to_string(server.path(&format!("{name}.env"))).unwrap();
        let pairs = text.lines().map(|line| line.split_once('=').unwrap());
        // Variables that the shell adds, and those that depend on the user of the test.
        let own = ["_", "SHLVL", "OLDPWD", "PATH", "PWD", "USER", "SHELL"];
        pairs
            .filter(|(name, _)| !own.contains(name))
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    };
    let mut message = environment("message");
    assert!(message.remove("REMOTE_ADDR").unwrap().starts_with("127.0.0.1:"));
    let shown: Vec<_> = message.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let id = reply.trim_end().rsplit(' ').next().unwrap();
    assert_eq!(
        shown,
        [
            "AUTH_AS=",
            "EHLO_DOMAIN=evilx.there.example",
            "EHLO_DOMAIN_RAW=evil$(x).there.example",
            "FROM_LOCAL_DOMAIN=0",
            "MAIL_FROM=bo@there.example",
            "ON_TLS=0",
            &format!("QUEUE_ID={id}"),
            "RCPT_COUNT=2",
            "RCPT_TO=ana@here.example all@here.example",
            "REMOTE_NAME=",
            "SPF_PASS=0",
        ]
    );
    assert_eq!(environment("all@here.example")["RCPT"], "all@here.example");
    assert_eq!(environment("ana@here.example")["MAIL_FROM"], "bo@there.example");
}

#[test]
fn the_exit_status_is_the_verdict_and_the_last_line_is_in_the_reply() {
    let server = TestServer::new_started(QUICK);
    for (script, reply) in [
        ("exit 0", "250 2.0.0"),
        ("echo looking; echo 'No lotteries'; echo oops >&2; exit 20", "554 5.7.0 No lotteries (ref "),
        ("cat; echo '5.7.28 Too much from you'; exit 20", "554 5.7.28 Too much from you (ref "),
        ("exit 20", "554 5.7.0 This is against the rules of this server (ref "),
        ("echo 'Come again'; exit 1", "451 4.7.0 Come again (ref "),
        ("echo '4.7.1 Greylisted'; exit 75", "451 4.7.1 Greylisted (ref "),
        ("printf 'a\\rb\\033[31m'; exit 20", "554 5.7.0 a\\x0db\\x1b[31m (ref "),
        ("head -c 5000000 /dev/zero | tr '\\0' x; exit 20", "554 5.7.0 xxx"),
        ("kill -9 $$", "451 4.3.0 Local error"),
        ("sleep 600 & echo $! >child; wait", "451 4.3.0 Local error"),
    ] {
        hook(&server, "post-data", script);
        let said = send(&server, "verdict");
        assert!(said.starts_with(reply), "{script}: {said}");
        assert!(said.len() < 512, "{script}: {} octets", said.len());
    }
    assert_eq!(messages(&server, 1).len(), 1, "what was refused did not come");
    let child = fs::read_to_string(server.path("child")).unwrap();
    wait_for("the hook's child to be gone", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    for says in ["hooks/post-data: oops", "was killed by signal 9", "took longer than 1 s and was ended"] {
        assert!(server.log().contains(says), "{says} in {}", server.log());
    }
    assert!(server.monitor_page("/metrics").contains("hook_post_data_total{result=\"refused\"} 5"));
}

#[test]
fn output_that_is_no_header_is_left_out_and_a_child_of_the_hook_delays_nothing() {
    let server = TestServer::new_started("");
    for (script, says) in [
        ("echo 'hello there'", "line 1: it is neither"),
        ("printf 'X-A: b\\n\\nThe body is mine\\n'", "line 2: it is empty"),
        ("yes 'X-A: b' | head -c 3000000", "it is longer than 65536 octets"),
        ("printf 'X-A: \\377\\n'", "it is not ASCII"),
    ] {
        hook(&server, "post-data", script);
        assert!(send(&server, "garbage").starts_with("250"), "{script}");
        assert!(
            server.log().contains(&format!("hooks/post-data printed is left out: {says}")),
            "{}",
            server.log()
        );
    }
    assert!(messages(&server, 4).iter().all(|message| message.starts_with("Received: ")));
    hook(&server, "post-data", "sleep 15 & echo 'X-A: b'");
    assert!(send(&server, "child").starts_with("250"));
    assert!(messages(&server, 5).iter().any(|message| message.starts_with("X-A: b\nReceived: ")));
}

#[test]
fn a_hook_is_found_from_a_relative_configuration_directory() {
    let mut server = TestServer::new("");
    hook(&server, "post-data", "echo 'X-Checked: yes'");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_postrider"));
    let name = server.dir.path().file_name().unwrap();
    command.current_dir(server.dir.path().parent().unwrap()).arg("--config").arg(name).arg("serve");
    server.start_with(&mut command);
    assert!(send(&server, "relative").starts_with("250"));
    assert!(messages(&server, 1)[0].starts_with("X-Checked: yes\n"));
}

#[test]
fn a_refused_recipient_does_not_affect_the_others() {
    let mut server = TestServer::new(QUICK);
    server.add_user("bo@here.example", "another word");
    server.start();
    hook(
        &server,
        "rcpt",
        "case $RCPT in bo@*) echo 'Bo is away'; exit 20;; cy@*) exit 3;; di@*) sleep 600;; \
         postmaster) echo '5.2.1 Nobody'; exit 20;; esac",
    );
    fs::write(server.path("domains/here.example/aliases"), "cy: ana\ndi: ana\npostmaster: ana\n").unwrap();
    wait_for("the aliases", || {
        let mut client = server.connect();
        client.expect("EHLO there.example", "250");
        client.expect("MAIL FROM:<x@there.example>", "250");
        client.command("RCPT TO:<cy@here.example>").starts_with("451").then_some(())
    });
    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<x@there.example>", "250");
    client.expect("RCPT TO:<bo@here.example>", "550 5.7.1 Bo is away");
    client.expect("RCPT TO:<cy@here.example>", "451 4.7.0 This server cannot decide now");
    client.expect("RCPT TO:<di@here.example>", "451 4.3.0");
    client.expect("RCPT TO:<postmaster>", "550 5.2.1 Nobody");
    client.expect("RCPT TO:<nobody@here.example>", "550 5.1.1");
    client.expect("RCPT TO:<ana@here.example>", "250");
    client.expect("DATA", "354");
    client.expect("Subject: one\r\n\r\nHello.\r\n.", "250");
    messages(&server, 1);
    assert!(server.maildir_messages("here.example", "bo").is_empty());
}

#[test]
fn a_hook_that_cannot_be_run_defers_or_accepts_as_configured() {
    for (failure, reply) in [("defer", "451 4.3.0"), ("accept", "250 2.0.0")] {
        let mut server = TestServer::new(&format!("[hooks]\non-failure = \"{failure}\"\n"));
        fs::create_dir_all(server.path("hooks/rcpt")).unwrap();
        fs::write(server.path("hooks/post-data"), "#!/bin/sh\n").unwrap();
        let (code, _, errors) = server.run_to_end(&["check"]);
        for says in [
            "hooks/rcpt: is not a file; a hook is a program; rename or remove it",
            "hooks/post-data: is not executable; make it so with chmod +x, or remove it",
        ] {
            assert!(code == 1 && errors.contains(says), "{says} in {errors}");
        }
        server.start();
        assert!(server.log().contains("hooks/post-data: is not executable"), "said at the start");
        fs::remove_dir(server.path("hooks/rcpt")).unwrap();
        assert!(send(&server, "broken").starts_with(reply));
        // A program that the kernel cannot run.
        write_program(&server.path("hooks/post-data"), "#!/no/such/shell\n");
        assert!(send(&server, "broken").starts_with(reply));
        assert!(server.log().contains("hooks/post-data: cannot be run: "), "{}", server.log());
    }
}

#[test]
fn an_alias_hook_that_cannot_be_run_is_logged_at_the_start() {
    let mut server = TestServer::new("");
    let file = server.path("hooks/alias-resolve");
    fs::create_dir_all(server.path("hooks")).unwrap();
    std::os::unix::fs::symlink("nowhere", &file).unwrap();
    let (code, _, errors) = server.run_to_end(&["check"]);
    let says = "hooks/alias-resolve: is a symbolic link to nothing; mend or remove it";
    assert!(code == 1 && errors.contains(says), "{errors}");
    server.start();
    assert!(server.log().contains(says), "said at the start");
    let hears = |reply: &str| {
        let mut client = server.connect();
        client.expect("EHLO there.example", "250");
        client.expect("MAIL FROM:<bo@there.example>", "250");
        client.expect("RCPT TO:<ana@here.example>", reply);
    };
    hears("451");
    fs::remove_file(&file).unwrap();
    fs::write(&file, "#!/bin/sh\n").unwrap();
    let (code, _, errors) = server.run_to_end(&["check"]);
    let says = "hooks/alias-resolve: is not executable; make it so with chmod +x, or remove it";
    assert!(code == 1 && errors.contains(says), "{errors}");
    hears("451");
    fs::remove_file(&file).unwrap();
    assert_eq!(server.run_to_end(&["check"]).0, 0, "none is no mistake");
    hears("250");
}

#[test]
fn the_example_hook_runs_the_installed_checkers() {
    let mut server = TestServer::new("");
    let bin = server.path("bin");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    server.environment = vec![("PATH", path.into())];
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/postrider/hooks/post-data");
    write_program(&server.path("hooks/post-data"), &fs::read_to_string(example).unwrap());
    server.start();
    let top = |count: usize| {
        messages(&server, count).iter().filter(|message| !message.starts_with("Received: ")).count()
    };
    assert!(send(&server, "none is installed").starts_with("250"));
    assert_eq!(top(1), 0);

    write_program(
        &bin.join("clamdscan"),
        "#!/bin/sh\nif grep -q EICAR; then echo 'stream: Eicar FOUND'; exit 1; fi\n",
    );
    write_program(
        &bin.join("spamc"),
        "#!/bin/sh\n[ \"$*\" = '-x -c' ] || exit 64\ntext=$(cat)\ncase $text in\n*SPAM*) echo 12.0/5.0; exit 1;;\n\
         *BROKEN*) exit 69;;\n*) echo 0.1/5.0;;\nesac\n",
    );
    write_program(
        &bin.join("rspamc"),
        "#!/bin/sh\n[ \"$2\" = 127.0.0.1 ] && [ \"$4\" = there.example ] && [ \"$6\" = bo@there.example ] || exit 64\n\
         text=$(cat)\ncase $text in\n*REJECT*) action=reject;;\n*LATER*) action='soft reject';;\n\
         *MAYBE*) action='add header';;\n*) action='no action';;\nesac\necho \"Action: $action\"\n",
    );
    for (line, reply) in [
        ("fine", "250"),
        ("EICAR", "550 5.7.1 The message holds a virus"),
        ("SPAM", "550 5.7.1 The message looks like spam (12.0/5.0)"),
        ("REJECT", "550 5.7.1 The message looks like spam"),
        ("LATER", "451 4.7.1 Come again later"),
        ("BROKEN", "451 4.3.0 The message cannot be checked now"),
        ("MAYBE", "250"),
    ] {
        let said = send(&server, line);
        assert!(said.starts_with(reply), "{line}: {said}");
    }
    assert_eq!(top(3), 2);
    let marked = messages(&server, 3);
    assert!(
        marked.iter().any(|message| message.starts_with("X-Spam-Score: 0.1/5.0\nX-Spam: yes\nReceived: ")),
        "{marked:?}"
    );
}
