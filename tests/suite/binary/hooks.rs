//! The operator's hooks, run by the real binary.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::peers;
use crate::test_server::{TestServer, wait_for, write_program, write_script};

const QUICK: &str = "[hooks]\nrcpt-timeout = \"1s\"\npost-data-timeout = \"1s\"\n";

fn hook(house: &TestServer, name: &str, script: &str) {
    write_script(&house.path(&format!("hooks/{name}")), script);
}

/// Hands in a short message with this line in it; the last reply.
fn send(house: &TestServer, line: &str) -> String {
    house.send_message("bo@there.example", "ana@here.example", line)
}

/// The letters in Ana's mailbox, once there are as many, each without Return-Path and Delivered-To.
fn letters(house: &TestServer, count: usize) -> Vec<String> {
    let letters = wait_for("the letters", || {
        Some(house.maildir_messages("here.example", "ana")).filter(|letters| letters.len() >= count)
    });
    let text = letters.into_iter().map(|octets| String::from_utf8(octets).unwrap());
    text.map(|letter| letter.splitn(3, '\n').nth(2).unwrap().to_owned()).collect()
}

#[test]
fn a_hook_reads_the_message_as_it_will_be_queued_and_puts_fields_on_top() {
    let mut house = TestServer::new("");
    house.add_user("bo@here.example", "another word");
    hook(&house, "post-data", "cat >seen; printf 'X-Checked: yes\\n\\tvery much\\n'");
    house.start();
    for (number, body) in
        ["Hello.\n".to_owned(), format!("{}\n", "x".repeat(70)).repeat(3000)].iter().enumerate()
    {
        let message = format!("Subject: {number}\nBcc: secret@there.example\nTo: ana@here.example\n\n{body}");
        let data = peers::swaks_data(house.dir.path(), &message);
        let mail = ["--from", "ana@here.example", "--to", "ana@here.example", "--data", &data];
        let output = house.submit_with_swaks(house.submission_port, "ana@here.example", "secret word", &mail);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let letters = letters(&house, number + 1);
        let letter = letters.iter().find(|letter| letter.contains(&format!("Subject: {number}\n"))).unwrap();
        let seen = letter.strip_prefix("X-Checked: yes\n\tvery much\n").unwrap();
        assert!(seen.starts_with("Received: from ") && seen.contains("\nMessage-ID: "), "{seen}");
        assert!(!seen.contains("Bcc:") && seen.ends_with(body), "{seen}");
        assert!(fs::read_to_string(house.path("seen")).unwrap() == seen, "message {number}");
    }
}

#[test]
fn a_hook_learns_the_circumstances_and_nothing_else() {
    let mut house = TestServer::new("");
    fs::write(house.path("domains/here.example/aliases"), "all: ana, x@there.example\n").unwrap();
    house.environment = vec![("SECRET", "in our environment".into())];
    hook(&house, "post-data", "env >message.env");
    hook(&house, "rcpt", "env >$RCPT.env");
    house.start();
    let mut client = house.connect();
    client.expect("EHLO evil$(x).there.example", "250");
    client.expect("MAIL FROM:<bo@there.example>", "250");
    for to in ["ana@here.example", "all@here.example"] {
        client.expect(&format!("RCPT TO:<{to}>"), "250");
    }
    client.expect("DATA", "354");
    let reply = client.expect("Subject: x\r\n\r\nHello.\r\n.", "250");
    let environment = |name: &str| -> BTreeMap<String, String> {
        let text = fs::read_to_string(house.path(&format!("{name}.env"))).unwrap();
        let pairs = text.lines().map(|line| line.split_once('=').unwrap());
        // What the shell adds by itself, and what depends on who runs the test.
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
fn the_exit_status_is_the_verdict_and_the_last_line_is_what_the_client_hears() {
    let house = TestServer::new_started(QUICK);
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
        hook(&house, "post-data", script);
        let said = send(&house, "verdict");
        assert!(said.starts_with(reply), "{script}: {said}");
        assert!(said.len() < 512, "{script}: {} octets", said.len());
    }
    assert_eq!(letters(&house, 1).len(), 1, "what was refused did not come");
    let child = fs::read_to_string(house.path("child")).unwrap();
    wait_for("the hook's child to be gone", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    for says in ["hooks/post-data: oops", "was killed by signal 9", "took longer than 1 s and was ended"] {
        assert!(house.log().contains(says), "{says} in {}", house.log());
    }
    assert!(house.monitor_page("/metrics").contains("hook_post_data_total{result=\"refused\"} 5"));
}

#[test]
fn what_is_no_header_is_left_out_and_a_child_that_stays_holds_nobody_up() {
    let house = TestServer::new_started("");
    for (script, says) in [
        ("echo 'hello there'", "line 1: it is neither"),
        ("printf 'X-A: b\\n\\nThe body is mine\\n'", "line 2: it is empty"),
        ("yes 'X-A: b' | head -c 3000000", "it is longer than 65536 octets"),
        ("printf 'X-A: \\377\\n'", "it is not ASCII"),
    ] {
        hook(&house, "post-data", script);
        assert!(send(&house, "garbage").starts_with("250"), "{script}");
        assert!(
            house.log().contains(&format!("hooks/post-data printed is left out: {says}")),
            "{}",
            house.log()
        );
    }
    assert!(letters(&house, 4).iter().all(|letter| letter.starts_with("Received: ")));
    hook(&house, "post-data", "sleep 15 & echo 'X-A: b'");
    assert!(send(&house, "child").starts_with("250"));
    assert!(letters(&house, 5).iter().any(|letter| letter.starts_with("X-A: b\nReceived: ")));
}

#[test]
fn a_hook_is_found_from_a_relative_configuration_directory() {
    let mut house = TestServer::new("");
    hook(&house, "post-data", "echo 'X-Checked: yes'");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_postrider"));
    let name = house.dir.path().file_name().unwrap();
    command.current_dir(house.dir.path().parent().unwrap()).arg("--config").arg(name).arg("serve");
    house.start_with(&mut command);
    assert!(send(&house, "relative").starts_with("250"));
    assert!(letters(&house, 1)[0].starts_with("X-Checked: yes\n"));
}

#[test]
fn a_recipient_is_refused_by_itself() {
    let mut house = TestServer::new(QUICK);
    house.add_user("bo@here.example", "another word");
    house.start();
    hook(
        &house,
        "rcpt",
        "case $RCPT in bo@*) echo 'Bo is away'; exit 20;; cy@*) exit 3;; di@*) sleep 600;; \
         postmaster) echo '5.2.1 Nobody'; exit 20;; esac",
    );
    fs::write(house.path("domains/here.example/aliases"), "cy: ana\ndi: ana\npostmaster: ana\n").unwrap();
    wait_for("the aliases", || {
        let mut client = house.connect();
        client.expect("EHLO there.example", "250");
        client.expect("MAIL FROM:<x@there.example>", "250");
        client.command("RCPT TO:<cy@here.example>").starts_with("451").then_some(())
    });
    let mut client = house.connect();
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
    letters(&house, 1);
    assert!(house.maildir_messages("here.example", "bo").is_empty());
}

#[test]
fn a_hook_that_cannot_be_run_defers_or_accepts_as_the_operator_says() {
    for (failure, reply) in [("defer", "451 4.3.0"), ("accept", "250 2.0.0")] {
        let mut house = TestServer::new(&format!("[hooks]\non-failure = \"{failure}\"\n"));
        fs::create_dir_all(house.path("hooks/rcpt")).unwrap();
        fs::write(house.path("hooks/post-data"), "#!/bin/sh\n").unwrap();
        let (code, _, errors) = house.run_to_end(&["check"]);
        for says in [
            "hooks/rcpt: is not a file; a hook is a program; rename or remove it",
            "hooks/post-data: is not executable; make it so with chmod +x, or remove it",
        ] {
            assert!(code == 1 && errors.contains(says), "{says} in {errors}");
        }
        house.start();
        assert!(house.log().contains("hooks/post-data: is not executable"), "said at the start");
        fs::remove_dir(house.path("hooks/rcpt")).unwrap();
        assert!(send(&house, "broken").starts_with(reply));
        // A program that the kernel does not know.
        write_program(&house.path("hooks/post-data"), "#!/no/such/shell\n");
        assert!(send(&house, "broken").starts_with(reply));
        assert!(house.log().contains("hooks/post-data: cannot be run: "), "{}", house.log());
    }
}

#[test]
fn an_alias_hook_that_cannot_be_run_is_named_before_a_sender_hears_of_it() {
    let mut house = TestServer::new("");
    let file = house.path("hooks/alias-resolve");
    fs::create_dir_all(house.path("hooks")).unwrap();
    std::os::unix::fs::symlink("nowhere", &file).unwrap();
    let (code, _, errors) = house.run_to_end(&["check"]);
    let says = "hooks/alias-resolve: is a symbolic link to nothing; mend or remove it";
    assert!(code == 1 && errors.contains(says), "{errors}");
    house.start();
    assert!(house.log().contains(says), "said at the start");
    let hears = |reply: &str| {
        let mut client = house.connect();
        client.expect("EHLO there.example", "250");
        client.expect("MAIL FROM:<bo@there.example>", "250");
        client.expect("RCPT TO:<ana@here.example>", reply);
    };
    hears("451");
    fs::remove_file(&file).unwrap();
    fs::write(&file, "#!/bin/sh\n").unwrap();
    let (code, _, errors) = house.run_to_end(&["check"]);
    let says = "hooks/alias-resolve: is not executable; make it so with chmod +x, or remove it";
    assert!(code == 1 && errors.contains(says), "{errors}");
    hears("451");
    fs::remove_file(&file).unwrap();
    assert_eq!(house.run_to_end(&["check"]).0, 0, "none is no mistake");
    hears("250");
}

#[test]
fn the_example_asks_whichever_checkers_are_installed() {
    let mut house = TestServer::new("");
    let bin = house.path("bin");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    house.environment = vec![("PATH", path.into())];
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/postrider/hooks/post-data");
    write_program(&house.path("hooks/post-data"), &fs::read_to_string(example).unwrap());
    house.start();
    let top = |count: usize| {
        letters(&house, count).iter().filter(|letter| !letter.starts_with("Received: ")).count()
    };
    assert!(send(&house, "none is installed").starts_with("250"));
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
        let said = send(&house, line);
        assert!(said.starts_with(reply), "{line}: {said}");
    }
    assert_eq!(top(3), 2);
    let marked = letters(&house, 3);
    assert!(
        marked.iter().any(|letter| letter.starts_with("X-Spam-Score: 0.1/5.0\nX-Spam: yes\nReceived: ")),
        "{marked:?}"
    );
}
