//! Aliases in the real program: at RCPT, and by `postrider alias`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::test_server::{SmtpClient, TestServer, wait_for, write_script};

/// A server for `here.example` with the users `ana` and `bo`, and these aliases.
fn started(aliases: &str, more: &str) -> TestServer {
    let mut server = set_up(aliases, more);
    server.start();
    server
}

fn set_up(aliases: &str, more: &str) -> TestServer {
    let server = TestServer::new(more);
    server.add_user("bo@here.example", "secret word");
    write(&server, "aliases", aliases);
    server
}

/// Writes a file into the domain's folder.
fn write(server: &TestServer, name: &str, text: &str) {
    fs::write(server.path(&format!("domains/here.example/{name}")), text).unwrap();
}

/// Makes the hook of these shell lines.
fn hook(server: &TestServer, script: &str) {
    write_script(&server.path("hooks/alias-resolve"), script);
}

/// A client after MAIL.
fn in_transaction(server: &TestServer) -> SmtpClient {
    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<eve@there.example>", "250");
    client
}

#[test]
fn mistakes_in_aliases_are_logged_before_a_message_arrives() {
    let server = started("round: again\nagain: round\ndangling: ana, eve\nlist: ana, bo\n", "");
    let mut client = in_transaction(&server);
    client.expect("RCPT TO:<eve@here.example>", "550 5.1.1 ");
    client.expect("RCPT TO:<round@here.example>", "451 4.3.0 ");
    client.expect("RCPT TO:<dangling@here.example>", "451 4.3.0 ");
    client.expect("RCPT TO:<list@here.example>", "250 ");
    let log = server.log();
    assert!(log.contains("in circles: round@here.example -> again@here.example"), "{log}");
    assert!(log.contains("alias dangling@here.example leads to eve@here.example"), "{log}");
}

#[test]
fn a_recipient_on_two_lists_gets_one_copy() {
    let server = started("one: ana, bo\ntwo: BO, ana+two\n", "");
    let mut client = in_transaction(&server);
    for name in ["one", "two", "Ana+X"] {
        client.expect(&format!("RCPT TO:<{name}@here.example>"), "250");
    }
    client.expect("DATA", "354");
    client.expect("Subject: to all\r\n\r\nhello\r\n.", "250");
    wait_for("the queue to be empty", || {
        Some(server.run_to_end(&["queue", "list"]).1).filter(|text| text.contains("the queue is empty"))
    });
    for user in ["ana", "bo"] {
        assert_eq!(server.maildir_messages("here.example", user).len(), 1, "{user}");
    }
}

#[test]
fn suffixes_and_dropped_characters_are_configurable() {
    let server = started("", "[aliases]\nsuffix-separators = \"-_\"\ndrop-characters = \".\"\n");
    server.send_message("eve@there.example", "A.n.a-lists@here.example", "by any other name");
    assert!(server.wait_for_message("here.example", "ana").contains("\nSubject: by any other name\n"));
    in_transaction(&server).expect("RCPT TO:<ana+lists@here.example>", "550");
}

#[test]
fn an_included_file_is_in_force_and_is_noticed_when_it_changes() {
    let mut server = set_up("include lists/teams\n", "");
    fs::create_dir(server.path("domains/here.example/lists")).unwrap();
    write(&server, "lists/teams", "team: bo\n");
    server.start();
    server.send_message("eve@there.example", "team@here.example", "first");
    server.wait_for_message("here.example", "bo");

    write(&server, "lists/teams", "team: bo\nnonsense\n");
    let complaint = "lists/teams:2: there is no colon behind a name";
    wait_for("a complaint", || server.log().contains(complaint).then_some(()));
    in_transaction(&server).expect("RCPT TO:<team@here.example>", "250");

    write(&server, "lists/teams", "team: ana\nnews: ana\n");
    wait_for("the new aliases", || {
        in_transaction(&server).command("RCPT TO:<news@here.example>").starts_with("250").then_some(())
    });
    server.send_message("eve@there.example", "team@here.example", "second");
    assert!(server.wait_for_message("here.example", "ana").contains("\nSubject: second\n"));
}

#[test]
fn the_alias_hook_adds_names_and_its_failure_defers() {
    let server = set_up("file: ana\n", "");
    hook(
        &server,
        "case $LOCAL_PART in\nsales) echo \"bo, ana\" ;;\nfile) echo bo ;;\nbroken) echo sorry >&2; exit 1 ;;\nesac",
    );
    let mut server = server;
    server.start();
    let mut client = in_transaction(&server);
    client.expect("RCPT TO:<sales@here.example>", "250");
    client.expect("RCPT TO:<eve@here.example>", "550 5.1.1 ");
    client.expect("RCPT TO:<broken@here.example>", "451 4.3.0 ");
    let log = server.log();
    assert!(log.contains("alias-resolve ended with exit status 1 for broken@here.example"), "{log}");
    assert!(log.contains("sorry"), "what it says is in the log: {log}");
    let (code, tree, _) = server.run_to_end(&["alias", "resolve", "file@here.example"]);
    assert_eq!(
        (code, tree.as_str()),
        (
            0,
            "file@here.example: alias\n\
             ├ ana@here.example: user  domains/here.example/aliases:1\n\
             └ bo@here.example: user   hooks/alias-resolve\n"
        )
    );
    server.send_message("eve@there.example", "file@here.example", "both");
    server.wait_for_message("here.example", "ana");
    server.wait_for_message("here.example", "bo");
}

#[test]
fn mail_for_postmaster_and_abuse_of_every_domain_is_accepted() {
    let addresses = [
        "postmaster",
        "Postmaster@here.example",
        "abuse@here.example",
        "postmaster@second.example",
        "abuse@localhost",
        "postmaster@mx.here.example",
    ];
    let mut server = set_up("", "");
    fs::create_dir_all(server.path("domains/second.example")).unwrap();
    let (code, _, warnings) = server.run_to_end(&["check"]);
    assert!(code == 0 && warnings.contains("postmaster@second.example must always be taken"), "{warnings}");
    server.start();
    let mut client = in_transaction(&server);
    for address in addresses {
        // No postmaster is configured: the mail is deferred, and the log warns the operator.
        client.expect(&format!("RCPT TO:<{address}>"), "451 4.3.0 ");
    }
    client.expect("RCPT TO:<ana@mx.here.example>", "550 5.7.1 ");
    assert!(server.log().contains("nobody reads mail for postmaster@here.example"), "{}", server.log());
    server.stop();

    let file = server.path("postrider.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("postmaster = \"bo@here.example\"\n{text}")).unwrap();
    server.start();
    let mut client = in_transaction(&server);
    for address in addresses {
        client.expect(&format!("RCPT TO:<{address}>"), "250");
    }
    client.expect("DATA", "354");
    client.expect("Subject: complaint\r\n\r\nhello\r\n.", "250");
    assert!(server.wait_for_message("here.example", "bo").contains("\nSubject: complaint\n"));
}

#[test]
fn the_steps_to_a_wrong_alias_are_shown_with_its_line() {
    let server = started("all: ana, lost\nlost: eve\n*: *@there.example\n", "");
    let (code, tree, _) = server.run_to_end(&["alias", "resolve", "all@here.example"]);
    assert_eq!(code, 0, "{tree}");
    assert!(
        tree.contains("│") || tree.contains("└ eve@here.example: nobody, so it is the catch-all's"),
        "{tree}"
    );
    assert!(tree.contains("eve@there.example: remote") && tree.contains("aliases:3"), "{tree}");
    let (_, list, _) = server.run_to_end(&["alias", "list", "HERE.example"]);
    assert_eq!(
        list,
        "all@here.example: ana@here.example, lost@here.example  domains/here.example/aliases:1\n\
         lost@here.example: eve@here.example  domains/here.example/aliases:2\n\
         *@here.example: *@there.example  domains/here.example/aliases:3\n"
    );
    assert!(server.run_to_end(&["alias", "list", "there.example"]).2.contains("not a local domain"));

    write(&server, "aliases", "all: ana, lost\nlost: eve\n");
    let (code, _, errors) = wait_for("the change", || {
        Some(server.run_to_end(&["alias", "resolve", "all@here.example"])).filter(|(code, ..)| *code == 1)
    });
    let says =
        "eve@here.example: WRONG: alias lost@here.example leads to eve@here.example, which does not exist";
    assert!(code == 1 && errors.contains(says) && errors.contains("aliases:2"), "{errors}");
    let (code, json, errors) = server.run_to_end(&["alias", "resolve", "--json", "lost@here.example"]);
    let answer: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, answer["steps"][0]["kind"].as_str()), (1, Some("error")));
    assert!(errors.contains("the aliases behind lost@here.example have a mistake"), "{errors}");
    write(&server, "aliases", "all: ana\n");
    let json = wait_for("the mended file", || {
        let (code, json, _) = server.run_to_end(&["alias", "resolve", "--json", "all@here.example"]);
        (code == 0).then_some(json)
    });
    assert!(json.contains("\"user\"") && !json.contains("wrong"), "{json}");
    assert_eq!(server.run_to_end(&["alias", "resolve", "nonsense"]).0, 1);
}

/// Every file below a folder, concatenated.
fn all_below(dir: &std::path::Path, into: &mut Vec<u8>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all_below(&path, into);
        } else if path.is_file() {
            into.extend(fs::read(path).unwrap());
        }
    }
}

#[test]
fn mail_for_a_named_host_logs_in_there_and_the_password_stays_in_its_file() {
    let relay = TestServer::new_started("");
    let hosts = format!("127.0.0.1:{} tls=required login=relay1", relay.submission_port);
    let mut server = set_up(&format!("far: ana@here.example via {hosts}\n"), "");
    let file = server.path("credentials.toml");
    let credentials = |password: &str, mode: u32| {
        let text = format!("[relay1]\nuser = \"ana@here.example\"\npassword = \"{password}\"\n");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    let (code, _, errors) = server.run_to_end(&["check"]);
    assert!(code == 1 && errors.contains("aliases:1: there is no login relay1"), "{errors}");
    credentials("quite wrong", 0o644);
    let (code, _, errors) = server.run_to_end(&["check"]);
    assert!(code == 1 && errors.contains("chmod 0640"), "{errors}");
    credentials("quite wrong", 0o600);
    let (code, shown, errors) = server.run_to_end(&["check"]);
    assert!(code == 0 && !shown.contains("quite"), "{shown}{errors}");

    server.start();
    server.send_message("ana@here.example", "far@here.example", "by way of another");
    let listing = wait_for("the refusal", || {
        Some(server.run_to_end(&["queue", "list"]).1).filter(|text| text.contains("the login relay1"))
    });
    assert!(!listing.contains("quite wrong"), "{listing}");
    credentials("secret word", 0o600);
    wait_for("the new password", || server.log().contains("credentials were read anew").then_some(()));
    assert_eq!(server.run_to_end(&["queue", "retry", "all"]).0, 0);
    let message = relay.wait_for_message("here.example", "ana");
    assert!(
        message.contains("\nSubject: by way of another\n") && message.contains(" with ESMTPSA"),
        "{message}"
    );
    let mut kept = server.log().into_bytes();
    all_below(&server.path("data"), &mut kept);
    kept.extend(server.monitor_page("/traces").into_bytes());
    let kept = String::from_utf8_lossy(&kept);
    assert!(kept.contains("login=relay1"), "the name is there");
    for secret in ["quite wrong", "secret word"] {
        assert!(!kept.contains(secret), "{secret} was kept");
    }
}
