//! A real Dovecot keeps mailboxes and passwords, as in `docs/dovecot.md`.
//!
//! Configured by `tests/interop/dovecot/dovecot.conf`, which begins with a description. Its users: `bo`,
//! with the password `open sesame`, `cy`, whose mailbox is full, and `di`, who may not log in. `ana` is in
//! our own users file.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Group, Pid, Uid, User};

use crate::peers;
use crate::test_server::{TestServer, messages_in, wait_for};

const BO: &str = "bo@here.example";
const PASSWORD: &str = "open sesame";
const SOCKETS: [&str; 3] = ["lmtp", "auth-postrider-client", "auth-postrider-userdb"];

/// A real Dovecot. Ends, with all its processes, when dropped.
struct Dovecot {
    dir: PathBuf,
    child: Option<Child>,
}

impl Dovecot {
    /// Sets one up in a folder of its own below `parent`; does not start it.
    fn new(parent: &Path) -> Self {
        let program = peers::program("dovecot");
        let tree = program.ancestors().nth(2).unwrap().join("trees/dovecot");
        let dir = parent.join("dovecot");
        fs::create_dir_all(dir.join("run")).unwrap();
        // Dovecot calls access(2) for its programs and modules. For the user nobody this call does not
        // count the capability by which the wrapper opens the tree, and a checkout below a home with mode
        // 0700 is closed. So Dovecot uses a copy.
        let copied =
            Command::new("cp").arg("-R").arg(tree.join("usr/lib/dovecot")).arg(dir.join("lib")).status();
        assert!(copied.unwrap().success());
        fs::set_permissions(parent, fs::Permissions::from_mode(0o711)).unwrap();
        // The wrapper names the folder in which the unpacked program looks for its modules.
        symlink(dir.join("lib/modules"), dir.join("run/modules")).unwrap();
        let (user, group) = Self::identity();
        let text = include_str!("../../interop/dovecot/dovecot.conf")
            .replace("@DIR@", &dir.to_string_lossy())
            .replace("@USER@", &user.name)
            .replace("@GROUP@", &group.name);
        fs::write(dir.join("dovecot.conf"), text).unwrap();
        let dovecot = Self { dir, child: None };
        dovecot.set_users(&[("bo", ""), ("cy", "userdb_quota_rule=*:bytes=10"), ("di", "nologin")]);
        dovecot
    }

    /// Its user: the wrapper changes root to nobody.
    fn identity() -> (User, Group) {
        let nobody = 65_534;
        let (uid, gid) = match Uid::current().is_root() {
            true => (Uid::from_raw(nobody), Gid::from_raw(nobody)),
            false => (Uid::current(), Gid::current()),
        };
        (User::from_uid(uid).unwrap().unwrap(), Group::from_gid(gid).unwrap().unwrap())
    }

    /// Its users in `here.example`, with extra fields; a change counts at once.
    fn set_users(&self, users: &[(&str, &str)]) {
        let (user, group) = Self::identity();
        let line = |(name, extra): &(&str, &str)| {
            let home = self.dir.join("mail").join(name);
            let (uid, gid, home) = (user.uid, group.gid, home.display());
            format!("{name}@here.example:{{PLAIN}}{PASSWORD}:{uid}:{gid}::{home}::{extra}\n")
        };
        let draft = self.dir.join("passwd.new");
        fs::write(&draft, users.iter().map(line).collect::<String>()).unwrap();
        fs::rename(draft, self.dir.join("passwd")).unwrap();
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.dir.join("run").join(name)
    }

    fn start(&mut self) {
        let output = fs::File::create(self.dir.join("output")).unwrap();
        let mut child = Command::new(peers::program("dovecot"))
            .arg("-c")
            .arg(self.dir.join("dovecot.conf"))
            .arg("-F")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        wait_for("Dovecot's sockets", || {
            if let Some(status) = child.try_wait().unwrap() {
                let said = fs::read_to_string(self.dir.join("output")).unwrap();
                panic!("dovecot ended with {status}:\n{said}{}", self.log());
            }
            SOCKETS.iter().all(|name| UnixStream::connect(self.socket(name)).is_ok()).then_some(())
        });
        self.child = Some(child);
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Its processes end with it on SIGTERM, and not when it is killed.
            kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
            child.wait().unwrap();
        }
    }

    /// The messages that it keeps for a user.
    fn mail(&self, user: &str) -> Vec<String> {
        let files = messages_in(&self.dir.join("mail").join(user).join("Maildir/new"));
        files.into_iter().map(|octets| String::from_utf8(octets).unwrap()).collect()
    }

    /// Waits for a user's first message.
    fn message(&self, user: &str) -> String {
        wait_for("a message in Dovecot's Maildir", || self.mail(user).pop())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("dovecot.log")).unwrap_or_default()
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A server and a Dovecot beside it; neither runs.
fn beside_dovecot() -> (TestServer, Dovecot, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let dovecot = Dovecot::new(dir.path());
    let [lmtp, client, userdb] = SOCKETS.map(|name| dovecot.socket(name).display().to_string());
    let server = TestServer::new(&format!(
        "[delivery]\nlocal = \"lmtp\"\n[delivery.lmtp]\naddress = \"unix:{lmtp}\"\n\
         [dovecot]\nauth = \"auto\"\nclient-socket = \"{client}\"\nuserdb-socket = \"{userdb}\"\n\
         [queue]\nretry = [\"1s\"]\n"
    ));
    (server, dovecot, dir)
}

fn logs_in(server: &TestServer, user: &str, password: &str) -> String {
    let output = server.submit_with_swaks(server.submission_port, user, password, &["--quit-after", "AUTH"]);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn dovecot_checks_logins_and_recipients_and_keeps_the_mail() {
    let (mut server, mut dovecot, _dir) = beside_dovecot();
    dovecot.start();
    server.start();
    let (code, _, warnings) = server.run_to_end(&["check"]);
    assert!(code == 0 && !warnings.contains("dovecot"), "{warnings}");

    assert!(logs_in(&server, BO, "wrong").contains("535 5.7.8 "), "{}", dovecot.log());
    assert!(logs_in(&server, "eve@here.example", PASSWORD).contains("535 5.7.8 "));
    assert!(logs_in(&server, "di@here.example", PASSWORD).contains("535 5.7.8 "), "nologin");
    assert!(logs_in(&server, "bo", PASSWORD).contains("535 5.7.8 "), "there is no domain, and no address");
    assert!(logs_in(&server, "ana@here.example", "secret word").contains("235 2.7.0 "), "she is ours");
    let message =
        ["--from", BO, "--to", "Bo@HERE.example", "--header", "Subject: to myself", "--body", ".dot"];
    let sent = server.submit_with_swaks(server.submission_port, "BO@here.example", PASSWORD, &message);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stdout));
    let kept = dovecot.message("bo");
    assert!(kept.starts_with("Return-Path: <bo@here.example>\nDelivered-To: bo@here.example\n"), "{kept}");
    assert!(kept.contains("Subject: to myself\n") && kept.contains("\n\n.dot\n"), "{kept}");

    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<ana@there.example>", "250");
    client.expect("RCPT TO:<nobody@here.example>", "550 5.1.1 ");
    client.expect("RCPT TO:<\"bo x\"@here.example>", "550 5.1.1 ");
    client.expect("RCPT TO:<bo@here.example>", "250");
    wait_for("the line of the delivery", || {
        (server.log().contains("delivered ") && server.log().contains("courier=lmtp")).then_some(())
    });
}

#[test]
fn one_message_has_three_recipients_that_dovecot_accepts_defers_and_refuses() {
    let (mut server, mut dovecot, _dir) = beside_dovecot();
    dovecot.start();
    server.start();
    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<bo@here.example>", "250");
    for user in ["bo", "cy", "ana"] {
        client.expect(&format!("RCPT TO:<{user}@here.example>"), "250");
    }
    client.expect("DATA", "354");
    client.expect("Subject: for three\r\n\r\nhello\r\n.", "250");
    // The copy, and the bounce because Dovecot has no ana, who is in our users file only.
    let mail = wait_for("a copy and a report", || Some(dovecot.mail("bo")).filter(|mail| mail.len() == 2));
    let report =
        mail.iter().find(|text| text.contains("Subject: for three") && text.contains("Status: ")).unwrap();
    assert!(report.contains("Final-Recipient: rfc822; ana@here.example\n"), "{report}");
    assert!(report.contains("Status: 5.1.1\n") && !report.contains("cy@here.example"), "{report}");
    let (_, waiting, _) = server.run_to_end(&["queue", "list"]);
    assert!(waiting.contains("cy@here.example") && waiting.contains("4.2.2"), "{waiting}");

    dovecot.set_users(&[("bo", ""), ("cy", "userdb_quota_rule=*:bytes=10M")]);
    assert!(dovecot.message("cy").contains("Subject: for three\n"));
    wait_for("an empty queue", || server.run_to_end(&["queue", "list"]).1.contains("empty").then_some(()));
    assert_eq!((dovecot.mail("bo").len(), dovecot.mail("cy").len()), (2, 1), "nobody hears twice");
}

#[test]
fn while_dovecot_is_down_no_recipient_is_refused_and_mail_waits() {
    let (mut server, mut dovecot, _dir) = beside_dovecot();
    dovecot.set_users(&[("bo", ""), ("ana", "")]);
    let (code, _, warnings) = server.run_to_end(&["check"]);
    assert!(code == 0 && warnings.matches("warning: no connection to unix:").count() == 3, "{warnings}");
    server.start();
    wait_for("three warnings", || {
        (server.log().matches("no connection to unix:").count() == 3).then_some(())
    });
    let is_away = |server: &TestServer| {
        assert!(logs_in(server, BO, PASSWORD).contains("454 4.7.0 "));
        let mut client = server.connect();
        client.expect("EHLO there.example", "250");
        client.expect("MAIL FROM:<eve@there.example>", "250");
        client.expect("RCPT TO:<bo@here.example>", "451 4.3.0 ");
    };
    is_away(&server);
    server.send_message("eve@there.example", "ana@here.example", "patience");
    wait_for("a deferral", || {
        server.run_to_end(&["queue", "list"]).1.contains("no connection").then_some(())
    });

    dovecot.start();
    assert!(dovecot.message("ana").contains("Subject: patience\n"));
    assert!(logs_in(&server, BO, PASSWORD).contains("235 2.7.0 "), "{}", dovecot.log());
    dovecot.stop();
    is_away(&server);
    dovecot.start();
    server.send_message("eve@there.example", BO, "back again");
    assert!(dovecot.message("bo").contains("Subject: back again\n"));
}
