//! TLS of the real program: versions, session tickets, the end of a certificate, and certificate files that are
//! replaced or unreadable while the server runs.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::Uid;
use openssl::ssl::{SslConnector, SslMethod, SslSessionCacheMode, SslVerifyMode, SslVersion};

use crate::test_server::{Signal, TestServer, WAIT_TIMEOUT, wait_for};

/// Makes a handshake on the submissions port in one version of TLS and sends some commands; how many sessions the
/// server gave to come back with.
fn shakes_hands(server: &TestServer, version: SslVersion) -> Result<usize, String> {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_verify(SslVerifyMode::NONE);
    // OpenSSL itself would not speak the old versions otherwise.
    connector.set_cipher_list("DEFAULT:@SECLEVEL=0").unwrap();
    connector.set_min_proto_version(Some(version)).unwrap();
    connector.set_max_proto_version(Some(version)).unwrap();
    connector.set_session_cache_mode(SslSessionCacheMode::CLIENT);
    let given = Arc::new(AtomicUsize::new(0));
    connector.set_new_session_callback({
        let given = Arc::clone(&given);
        move |_, _| {
            given.fetch_add(1, Ordering::SeqCst);
        }
    });
    let stream = TcpStream::connect(("127.0.0.1", server.submissions_port)).unwrap();
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    let mut stream =
        connector.build().connect("mx.here.example", stream).map_err(|error| error.to_string())?;
    // A session ticket would come before the last octet of the replies.
    stream.write_all(b"QUIT\r\n").unwrap();
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    assert!(said.starts_with("220 ") && said.contains("\r\n221 "), "{said}");
    Ok(given.load(Ordering::SeqCst))
}

#[test]
fn only_tls_1_2_and_1_3_are_accepted_and_no_session_ticket_is_issued() {
    let server = TestServer::new_started("");
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        assert_eq!(shakes_hands(&server, version), Ok(0), "{version:?}");
    }
    for version in [SslVersion::TLS1, SslVersion::TLS1_1] {
        let refusal = shakes_hands(&server, version).unwrap_err();
        assert!(refusal.contains(" alert "), "it is the server that refuses {version:?}: {refusal}");
    }
}

/// Gives the server a certificate that ends so many days from now, which may be in the past.
fn give_certificate(server: &TestServer, days: i64) {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let end = i64::try_from(seconds).unwrap() + days * 86_400 + 3600;
    let mut params = rcgen::CertificateParams::new(vec!["mx.here.example".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    let end = Duration::from_secs(end.try_into().unwrap());
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + end;
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    fs::write(server.path("certs/here/fullchain.pem"), made.pem()).unwrap();
    fs::write(server.path("certs/here/privkey.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn a_certificate_that_ends_soon_is_logged_and_shown_until_it_is_renewed() {
    let mut server = TestServer::new("");
    give_certificate(&server, 5);
    let words = "the certificate in certs/here ends in 5 days (";
    assert!(server.run_to_end(&["check"]).2.contains(&format!("warning: {words}")));
    server.start();
    assert_eq!(server.log().matches(words).count(), 1, "{}", server.log());
    let seconds = || -> u64 {
        let metrics = server.monitor_page("/metrics");
        let line = metrics.lines().find(|line| line.starts_with("postrider_tls_certificate_expiry_seconds "));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!((5 * 86_400..5 * 86_400 + 3601).contains(&seconds()));
    assert!(
        server.monitor_page("/").contains("<a class=\"tile bad\" href=\"/\"><b>5 d "),
        "{}",
        server.monitor_page("/")
    );
    give_certificate(&server, 60);
    wait_for("the renewed one", || (seconds() > 59 * 86_400).then_some(()));
    assert!(
        server.monitor_page("/").contains("<a class=\"tile\" href=\"/\"><b>60 d "),
        "{}",
        server.monitor_page("/")
    );
    assert_eq!(server.log().matches("the certificate in certs/here").count(), 1, "nothing more to say");
    give_certificate(&server, -1);
    wait_for("the complaint", || {
        server.log().contains("the certificate in certs/here has ended: ").then_some(())
    });
    assert_eq!(seconds(), 0);
}

/// Puts a certificate and its key into a folder, with a suffix for the files' names.
fn write_pair(folder: &Path, suffix: &str) {
    let made = rcgen::generate_simple_self_signed(vec!["mx.here.example".to_owned()]).unwrap();
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(format!("fullchain{suffix}.pem")), made.cert.pem()).unwrap();
    fs::write(folder.join(format!("privkey{suffix}.pem")), made.signing_key.serialize_pem()).unwrap();
}

/// Makes `link` lead to `target` in one step.
fn lead(target: impl AsRef<Path>, link: &Path) {
    let new = link.with_extension("new");
    symlink(target, &new).unwrap();
    fs::rename(new, link).unwrap();
}

/// The layout of certbot: `certs/here` leads to `live/here`, and the links in there to `archive`. Two pairs
/// are in the archive, and the first is in use.
fn like_certbot(server: &TestServer) {
    write_pair(&server.path("archive"), "1");
    write_pair(&server.path("archive"), "2");
    fs::create_dir_all(server.path("live/here")).unwrap();
    renew_chain(server, 1);
    renew_key(server, 1);
    fs::remove_dir_all(server.path("certs/here")).unwrap();
    symlink(server.path("live/here"), server.path("certs/here")).unwrap();
}

fn renew_chain(server: &TestServer, number: usize) {
    lead(format!("../../archive/fullchain{number}.pem"), &server.path("live/here/fullchain.pem"));
}

fn renew_key(server: &TestServer, number: usize) {
    lead(format!("../../archive/privkey{number}.pem"), &server.path("live/here/privkey.pem"));
}

fn offers_starttls(server: &TestServer) -> bool {
    server.connect().expect("EHLO there.example", "250").contains("STARTTLS")
}

/// Sets the flag when it is dropped, also by a panic.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One client asks for everything that must never be refused.
fn asks(server: &TestServer) {
    let mut client = server.connect();
    let offer = client.expect("EHLO there.example", "250");
    assert!(offer.contains("STARTTLS"), "{offer}\n{}", server.log());
    client.expect("MAIL FROM:<bo@there.example>", "250");
    for recipient in ["ana@here.example", "info@here.example"] {
        let reply = client.command(&format!("RCPT TO:<{recipient}>"));
        assert!(reply.starts_with("250"), "{recipient} was answered {reply}\n{}", server.log());
    }
    client.expect("QUIT", "221");
}

#[test]
fn clients_never_miss_users_aliases_and_certificates_that_are_replaced_in_a_loop() {
    const LOAD: Duration = Duration::from_secs(4);
    const CLIENTS: usize = 2;
    // No state in between lasts long enough to be used by the server.
    const HELD_MAX: Duration = Duration::from_millis(200);
    let mut server =
        TestServer::new("[limits.address-per-hour]\nconnections = 0\nmessages = 0\nrecipients = 0\n");
    server.environment.push(("POSTRIDER_POLL_INTERVAL", "1000".into()));
    like_certbot(&server);
    let folder = server.path("domains/here.example");
    let hash = fs::read_to_string(folder.join("users")).unwrap();
    let others: String = (0..200).map(|number| format!("user{number}: receive-only\n")).collect();
    let users = format!("{others}{hash}");
    let aliases = "sales: ana\n".to_owned() + &"# more\n".repeat(200) + "info: ana\n";
    fs::write(folder.join("users"), &users).unwrap();
    fs::write(folder.join("aliases"), &aliases).unwrap();
    server.start();

    let (has_ended, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let server = &server;
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (has_ended, rounds) = (&has_ended, &rounds);
            scope.spawn(move || {
                let _ends = Ends(has_ended);
                while !has_ended.load(Ordering::SeqCst) {
                    asks(server);
                    if client == 0 {
                        assert_eq!(shakes_hands(server, SslVersion::TLS1_3), Ok(0));
                    }
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let _ends = Ends(&has_ended);
        let began = Instant::now();
        let meanwhile = |step: usize| {
            if !step.is_multiple_of(3) {
                server.signal(Signal::SIGHUP);
            }
            let (held, seen) = (Instant::now(), rounds.load(Ordering::SeqCst));
            wait_for("the clients", || {
                let is_seen = rounds.load(Ordering::SeqCst) > seen + CLIENTS;
                (is_seen || held.elapsed() > HELD_MAX || has_ended.load(Ordering::SeqCst)).then_some(())
            });
        };
        let in_place = |path: &Path, text: &str, step: usize| {
            let (half, rest) = text.split_at(text.len() / 2);
            let mut file = fs::File::create(path).unwrap();
            meanwhile(step);
            file.write_all(half.as_bytes()).unwrap();
            meanwhile(step + 1);
            file.write_all(rest.as_bytes()).unwrap();
        };
        let away = |path: &Path, step: usize| {
            fs::rename(path, server.path("away")).unwrap();
            meanwhile(step);
            fs::rename(server.path("away"), path).unwrap();
        };
        let chain = fs::read_to_string(server.path("archive/fullchain1.pem")).unwrap();
        let mut steps = 0..;
        while began.elapsed() < LOAD && !has_ended.load(Ordering::SeqCst) {
            let step = steps.next().unwrap();
            match step % 8 {
                0 => in_place(&folder.join("users"), &users, step),
                1 => {
                    fs::write(folder.join("new"), &users).unwrap();
                    meanwhile(step);
                    fs::rename(folder.join("new"), folder.join("users")).unwrap();
                }
                2 => in_place(&folder.join("aliases"), &aliases, step),
                3 => away(&folder.join("users"), step),
                4 => away(&folder, step),
                5 => {
                    renew_key(server, step / 8 % 2 + 1);
                    meanwhile(step);
                    renew_chain(server, step / 8 % 2 + 1);
                }
                6 => away(&server.path("certs/here"), step),
                _ => in_place(&server.path("archive/fullchain1.pem"), &chain, step),
            }
            meanwhile(step + 1);
        }
    });

    // The writing has ended, and the last change is in force soon.
    fs::write(folder.join("users"), format!("{users}new: receive-only\n")).unwrap();
    server.signal(Signal::SIGHUP);
    wait_for("the new user", || {
        let mut client = server.connect();
        client.expect("EHLO there.example", "250");
        client.expect("MAIL FROM:<>", "250");
        client.command("RCPT TO:<new@here.example>").starts_with("250").then_some(())
    });
}

/// A command of the server's for a user that is not root: `nobody` if the tests run as root, who may read
/// everything. The files of the server belong to that user then.
fn unprivileged(server: &TestServer, arguments: &[&str]) -> Command {
    let ours = server.command();
    let program = server.path("postrider");
    let is_root = Uid::effective().is_root();
    if is_root && !program.exists() {
        // Where the tests were built, that user may not enter.
        fs::copy(ours.get_program(), &program).unwrap();
        assert!(
            Command::new("chown")
                .args(["-R", "65534:65534"])
                .arg(server.dir.path())
                .status()
                .unwrap()
                .success()
        );
    }
    let mut command = Command::new(if is_root { program.as_os_str() } else { ours.get_program() });
    command.args(ours.get_args()).args(arguments).current_dir(server.dir.path()).stdin(Stdio::null());
    command.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if is_root {
        command.uid(65534).gid(65534);
    }
    command
}

fn start_unprivileged(server: &mut TestServer) {
    let log = fs::OpenOptions::new().create(true).append(true).open(server.path("log")).unwrap();
    let mut command = unprivileged(server, &["serve"]);
    command.stdout(Stdio::null()).stderr(log);
    server.start_with(&mut command);
}

#[test]
fn an_unreadable_certificate_is_an_error_and_never_switches_tls_off() {
    let mut server = TestServer::new("");
    like_certbot(&server);
    start_unprivileged(&mut server);
    let live = server.path("live");
    let allow = |mode: u32| fs::set_permissions(&live, Permissions::from_mode(mode)).unwrap();
    allow(0);
    server.signal(Signal::SIGHUP);
    wait_for("the refusal to reload", || server.log().contains("nothing was changed").then_some(()));
    let says = format!("may not enter the directory {}", live.display());
    assert!(server.log().contains(&says), "{says}: {}", server.log());
    assert!(offers_starttls(&server));
    assert_eq!(server.stop(), 0);

    // It is the only certificate: a start without it would be a start without TLS.
    let refused = unprivileged(&server, &["serve"]).output().unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && text.contains(&says), "{text}");

    // With another certificate the server starts, and logs the one that is missing.
    write_pair(&server.path("certs/other"), "");
    assert!(
        Command::new("chmod")
            .args(["-R", "a+rX"])
            .arg(server.path("certs/other"))
            .status()
            .unwrap()
            .success()
    );
    start_unprivileged(&mut server);
    assert!(server.log().contains("the other certificates are used"), "{}", server.log());
    assert!(offers_starttls(&server));

    // The repaired file is noticed.
    allow(0o755);
    wait_for("the certificate", || server.log().contains("certificates were read anew").then_some(()));
    fs::remove_dir_all(server.path("certs")).unwrap();
    let refusals = || server.log().matches("nothing was changed").count();
    let before = refusals();
    server.signal(Signal::SIGHUP);
    wait_for("the refusal to reload", || (refusals() > before).then_some(()));
    assert!(server.log().contains("certs: is empty; put a certificate there"), "{}", server.log());
    assert!(offers_starttls(&server));
}

#[test]
fn check_uses_the_rights_of_the_servers_user() {
    let server = TestServer::new("");
    like_certbot(&server);
    fs::create_dir_all(server.path("data")).unwrap();
    fs::create_dir(server.path("hooks")).unwrap();
    fs::write(server.path("hooks/rcpt"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(server.path("hooks/rcpt"), Permissions::from_mode(0o755)).unwrap();
    // Makes the files that user's.
    let checked = unprivileged(&server, &["check"]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    write_pair(&server.path("certs/other"), "");
    for (below, mode) in [
        ("live", 0),
        ("certs/other/privkey.pem", 0),
        ("domains/here.example/users", 0),
        ("hooks/rcpt", 0o011),
    ] {
        fs::set_permissions(server.path(below), Permissions::from_mode(mode)).unwrap();
    }
    // Root runs it, if the tests run as root.
    let (code, _, error) = server.run_to_end(&["check"]);
    assert_eq!(code, 1, "{error}");
    let live = format!("may not enter the directory {}", server.path("live").display());
    for says in [
        live.as_str(),
        "certs/other/privkey.pem: Permission denied",
        "here.example/users: Permission denied",
        "may not read it; give it that right",
        "hooks/rcpt: the user ",
        "4 mistakes in ",
    ] {
        assert!(error.contains(says), "{says} is missing in:\n{error}");
    }
    if Uid::effective().is_root() {
        assert!(error.contains("for the user nobody"), "the owner of the data directory: {error}");
        let (code, _, same) = server.run_to_end(&["check", "--user", "nobody"]);
        assert_eq!((code, same), (1, error));
        let (code, _, error) = server.run_to_end(&["check", "--user", "root"]);
        assert_eq!(code, 0, "{error}");
        let (code, _, error) = server.run_to_end(&["check", "--user", "no-such-user"]);
        assert!(code == 1 && error.contains("there is no such user"), "{error}");
    } else {
        let (code, _, error) = server.run_to_end(&["check", "--user", "root"]);
        assert!(code == 1 && error.contains("only root may check"), "{error}");
    }
}
