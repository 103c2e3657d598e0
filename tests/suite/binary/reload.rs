//! Users, aliases, domains, certificates and settings that change while the server runs.

use std::fs;

use crate::peers;
use crate::test_server::{Signal, SmtpClient, TestServer, wait_for};

#[test]
fn users_aliases_and_domains_are_in_force_soon_after_a_change() {
    let server = TestServer::new_started("");
    server.add_user("bo@here.example", "another word");
    fs::write(server.path("domains/here.example/aliases"), "info: ana, bo\n").unwrap();
    fs::create_dir(server.path("domains/bücher.example")).unwrap();
    server.add_user("ana@xn--bcher-kva.example", "another word");
    let accepts =
        |to: &str| server.send_message("x@there.example", to, "hello").starts_with("250").then_some(());
    let knows = |to: &str| {
        let mut client = server.connect();
        client.command("EHLO there.example");
        client.command("MAIL FROM:<x@there.example>");
        client.command(&format!("RCPT TO:<{to}>")).starts_with("250").then_some(())
    };
    wait_for("the alias", || knows("info@here.example"));
    accepts("info@here.example").unwrap();
    server.wait_for_message("here.example", "bo");
    server.wait_for_message("here.example", "ana");
    wait_for("the domain", || knows("ana@XN--BCHER-KVA.example"));
    accepts("ana@XN--BCHER-KVA.example").unwrap();
    server.wait_for_message("bücher.example", "ana");
}

#[test]
fn a_broken_file_leaves_the_old_one_in_force_and_is_named_in_the_log() {
    let server = TestServer::new_started("");
    fs::write(server.path("domains/here.example/aliases"), "info ana\n").unwrap();
    wait_for("the complaint", || server.log().contains("aliases:1:").then_some(()));
    server.signal(Signal::SIGHUP);
    wait_for("the refusal to reload", || server.log().contains("nothing was changed").then_some(()));
    assert!(server.send_message("x@there.example", "ana@here.example", "still").starts_with("250"));
}

#[test]
fn sighup_names_changes_that_need_a_restart_and_refuses_a_broken_postrider_toml() {
    let server = TestServer::new_started("");
    let toml = fs::read_to_string(server.path("postrider.toml")).unwrap();
    fs::write(server.path("postrider.toml"), format!("{toml}[limits]\nreceived-max = 50\n")).unwrap();
    server.signal(Signal::SIGHUP);
    let says = "postrider.toml has changed (received-max): restart postrider";
    wait_for("the advice", || server.log().contains(says).then_some(()));

    // A reload is all or nothing: the new user has to wait for the repaired file, too.
    let line = toml.lines().count() + 2;
    fs::write(server.path("postrider.toml"), format!("{toml}[limits]\nreceived-max = \"x\"\n")).unwrap();
    server.signal(Signal::SIGHUP);
    let says = format!("postrider.toml:{line}: limits.received-max: ");
    wait_for("the complaint", || server.log().contains(&says).then_some(()));
    wait_for("the refusal to reload", || server.log().contains("nothing was changed").then_some(()));
    assert!(server.send_message("x@there.example", "ana@here.example", "still").starts_with("250"));
}

#[test]
fn a_server_without_a_certificate_warns_and_offers_no_tls() {
    let mut server = TestServer::new("[relay]\nnetworks = [\"192.0.2.0/24\"]\n");
    fs::remove_dir_all(server.path("certs")).unwrap();
    server.start();
    for says in [
        "there is no certificate in certs/",
        "nobody can send by the submission port",
        "clients in 192.0.2.0/24 may send to anybody without a password",
    ] {
        assert!(server.log().contains(says), "{says} in {}", server.log());
    }
    assert!(!server.connect().expect("EHLO there.example", "250").contains("STARTTLS"));
    let mut client = SmtpClient::connect(([127, 0, 0, 1], server.submission_port).into());
    client.expect("EHLO there.example", "250");
    client.expect("AUTH PLAIN AGFuYQBzZWNyZXQ=", "5");
    client.expect("MAIL FROM:<ana@here.example>", "530 5.7.0");
    // TLS from the first octet cannot be had; the client is not left waiting.
    let swaks = peers::swaks([
        "--server",
        &format!("127.0.0.1:{}", server.submissions_port),
        "--tls-on-connect",
        "--quit-after",
        "EHLO",
    ]);
    assert!(!swaks.status.success());
    assert!(server.send_message("x@there.example", "ana@here.example", "plain").starts_with("250"));
}

#[test]
fn a_certificate_is_chosen_by_the_name_that_the_client_asks_for() {
    let mut server = TestServer::new("");
    let made = rcgen::generate_simple_self_signed(vec!["mail.elsewhere.example".to_owned()]).unwrap();
    fs::create_dir(server.path("certs/elsewhere")).unwrap();
    fs::write(server.path("certs/elsewhere/fullchain.pem"), made.cert.pem()).unwrap();
    fs::write(server.path("certs/elsewhere/privkey.pem"), made.signing_key.serialize_pem()).unwrap();
    server.start();
    let here = fs::read_to_string(server.path("certs/here/fullchain.pem")).unwrap();
    for (name, pem) in [
        ("mail.elsewhere.example", made.cert.pem()),
        ("mx.here.example", here.clone()),
        ("unknown.example", here),
    ] {
        assert!(certificate_served(&server, name).contains(&signature(&pem)), "{name}");
    }
}

/// The end of a certificate. The beginnings of two certificates of one maker are alike.
fn signature(pem: &str) -> String {
    let lines: Vec<_> = pem.lines().filter(|line| !line.starts_with('-')).collect();
    lines[lines.len() - 2..].concat()
}

/// The certificate that the smtp port shows to a client with the server name `name`.
fn certificate_served(server: &TestServer, name: &str) -> String {
    let output = peers::swaks([
        "--server",
        &format!("127.0.0.1:{}", server.smtp_port),
        "--tls",
        "--tls-sni",
        name,
        "--tls-get-peer-cert",
        "--quit-after",
        "EHLO",
    ]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| line.trim_start_matches(['=', ' ', '~', '*'])).collect()
}

#[test]
fn a_renewed_certificate_is_served_after_sighup_or_soon_and_a_broken_one_is_not() {
    let server = TestServer::new_started("");
    let renew = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        fs::write(server.path("certs/here/fullchain.pem"), made.cert.pem()).unwrap();
        fs::write(server.path("certs/here/privkey.pem"), made.signing_key.serialize_pem()).unwrap();
        made.cert.pem()
    };
    let serves = |pem: &str| certificate_served(&server, "x.example").contains(&signature(pem));
    let first = renew("one.example");
    server.signal(Signal::SIGHUP);
    wait_for("the reload", || server.log().contains("as SIGHUP asked").then_some(()));
    assert!(serves(&first));

    let second = renew("two.example");
    wait_for("the look", || serves(&second).then_some(()));

    fs::write(server.path("certs/here/privkey.pem"), "broken").unwrap();
    let says = "certs/here/privkey.pem: ";
    wait_for("the complaint", || server.log().contains(says).then_some(()));
    fs::remove_dir_all(server.path("certs/here")).unwrap();
    wait_for("the other one", || server.log().contains("certs: is empty; put").then_some(()));
    assert!(serves(&second), "what was read before stays in force");
    server.signal(Signal::SIGHUP);
    wait_for("the refusal to reload", || server.log().contains("nothing was changed").then_some(()));
    assert!(serves(&second), "and SIGHUP does not switch TLS off");
}
