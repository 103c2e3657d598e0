//! Sockets that the service manager passes (sd_listen_fds(3)), by their names.
//!
//! A shell takes the service manager's part: it gets three sockets as its standard streams, moves
//! them to where they are expected, and becomes the server, so that `LISTEN_PID` is right.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use crate::peers;
use crate::test_server::{Signal, SmtpClient, TestServer, WAIT_TIMEOUT, wait_for};

/// A server with three sockets under these names; and their ports.
fn activated(listen: &str, names: [&str; 3]) -> (TestServer, [u16; 3]) {
    let mut server = TestServer::new("");
    let monitoring = server.monitoring_port;
    fs::write(
        server.path("postrider.toml"),
        format!(
            "hostname = \"mx.here.example\"\ndata-dir = \"data\"\ngrace = \"5s\"\n\
             [listen]\nmonitoring = \"127.0.0.1:{monitoring}\"\n{listen}"
        ),
    )
    .unwrap();
    let sockets = names.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = [0, 1, 2].map(|n: usize| sockets[n].local_addr().unwrap().port());
    [server.smtp_port, server.submission_port, server.submissions_port] = ports;
    let [first, second, third] = sockets.map(|socket| Stdio::from(OwnedFd::from(socket)));
    let serve = server.command();
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(
            "exec 3<&0 4<&1 5<&2 </dev/null >/dev/null 2>>\"$0/log\"
             LISTEN_FDS=3 LISTEN_PID=$$ exec \"$@\" serve",
        )
        .arg(server.dir.path())
        .arg(serve.get_program())
        .args(serve.get_args())
        .current_dir(server.dir.path())
        .env("LISTEN_FDNAMES", names.join(":"))
        .stdin(first)
        .stdout(second)
        .stderr(third);
    server.start_with(&mut shell);
    (server, ports)
}

/// The protocol on a port.
fn spoken(port: u16) -> &'static str {
    let address = format!("127.0.0.1:{port}");
    let encrypted =
        peers::swaks(["--server", &address, "--tls-on-connect", "--quit-after", "EHLO", "--timeout", "5s"]);
    if encrypted.status.success() {
        return "submissions";
    }
    let mut client = SmtpClient::connect(([127, 0, 0, 1], port).into());
    client.expect("EHLO there.example", "250");
    match &client.command("MAIL FROM:<ana@there.example>")[..3] {
        "250" => "smtp",
        "530" => "submission",
        other => panic!("{other}"),
    }
}

#[test]
fn every_passed_socket_has_the_protocol_of_its_name() {
    let names = ["submission", "submissions", "smtp"];
    let (mut server, ports) = activated("", names);
    assert_eq!(ports.map(spoken), names);
    assert_eq!(server.stop(), 0);
}

#[test]
fn passed_sockets_may_share_a_name_and_addresses_may_be_configured_beside_them() {
    let beside = crate::peers::free_port();
    let listen = format!("smtp = [\"systemd\", \"127.0.0.1:{beside}\"]\nsubmission = []\n");
    let (server, [one, two, other]) = activated(&listen, ["smtp", "smtp", "submissions"]);
    assert_eq!([one, two, beside, other].map(spoken), ["smtp", "smtp", "smtp", "submissions"]);
    let said = server.log();
    assert_eq!(said.matches("listening on 127.0.0.1:").count(), 4, "{said}");
}

#[test]
fn an_unused_socket_is_named_in_the_log() {
    let mut server = TestServer::new("");
    let toml = fs::read_to_string(server.path("postrider.toml")).unwrap();
    let listed = format!("smtp = [\"127.0.0.1:{}\"]", server.smtp_port);
    fs::write(server.path("postrider.toml"), toml.replace(&listed, "smtp = \"systemd\"")).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    server.smtp_port = socket.local_addr().unwrap().port();
    let serve = server.command();
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(
            "exec 3<&0 4<&0 </dev/null >/dev/null 2>>\"$0/log\"
             LISTEN_FDS=2 LISTEN_PID=$$ LISTEN_FDNAMES=smtp:smpt exec \"$@\" serve",
        )
        .arg(server.dir.path())
        .arg(serve.get_program())
        .args(serve.get_args())
        .stdin(OwnedFd::from(socket));
    server.start_with(&mut shell);
    assert!(server.log().contains("the service manager passed a socket named smpt"), "{}", server.log());
}

#[test]
fn the_service_manager_is_notified_of_ready_reload_and_stop() {
    let mut server = TestServer::new("");
    let hears = Hears::bind(&mut server);
    server.start();
    hears.hear("READY=1");
    server.signal(Signal::SIGHUP);
    hears.hear("RELOADING=1");
    hears.hear("READY=1");
    assert_eq!(server.stop(), 0);
    hears.hear("STOPPING=1");
}

/// The notifications on the service manager's socket.
struct Hears(UnixDatagram);

impl Hears {
    fn bind(server: &mut TestServer) -> Self {
        let path = server.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        server.environment.push(("NOTIFY_SOCKET", path));
        Self(socket)
    }

    /// Waits for this notification, and drops those before it.
    fn hear(&self, what: &str) {
        let mut said = Vec::new();
        while !said.iter().any(|line| line == what) {
            let mut buffer = [0; 4096];
            let octets = self.0.recv(&mut buffer).unwrap_or_else(|e| panic!("no {what} ({e}): {said:?}"));
            let text = String::from_utf8(buffer[..octets].to_vec()).unwrap();
            said.extend(text.lines().map(str::to_owned));
        }
    }
}

#[test]
fn the_watchdog_is_notified_while_the_server_is_active() {
    let mut server = TestServer::new("");
    let hears = Hears::bind(&mut server);
    server.environment.push(("WATCHDOG_USEC", "600000".into()));
    server.start();
    hears.hear("READY=1");
    for _ in 0..5 {
        hears.hear("WATCHDOG=1");
    }
    assert!(!server.log().contains("stuck"), "who waits is not stuck: {}", server.log());
}

#[test]
fn programs_that_the_server_runs_have_no_capabilities() {
    let mut server = TestServer::new("");
    fs::write(
        server.path("domains/here.example/aliases"),
        format!("status: | cp /proc/self/status {}\n", server.path("status").display()),
    )
    .unwrap();
    let serve = server.command();
    let log = fs::OpenOptions::new().create(true).append(true).open(server.path("log")).unwrap();
    let mut started = if nix::unistd::geteuid().is_root() {
        // With the settings of the unit, for another user than root.
        fs::set_permissions(server.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let chown = Command::new("chown").args(["-R", "65534:65534"]).arg(server.dir.path()).status();
        assert!(chown.unwrap().success());
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=+net_bind_service"]);
        setpriv.args(["--ambient-caps=+net_bind_service"]).arg(serve.get_program()).args(serve.get_args());
        setpriv
    } else {
        server.command()
    };
    started.arg("serve").current_dir(server.dir.path()).stdout(Stdio::null()).stderr(log);
    server.start_with(&mut started);
    server.send_message("bo@there.example", "status@here.example", "run something");
    let status = wait_for("the program", || {
        fs::read_to_string(server.path("status")).ok().filter(|s| s.contains("CapAmb"))
    });
    let own = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    for (whose, status) in [("the program's", status), ("the server's", own)] {
        for line in status.lines().filter(|line| line.starts_with("Cap") && !line.starts_with("CapBnd")) {
            assert!(line.ends_with("\t0000000000000000"), "{whose} {line}");
        }
    }
}

#[test]
fn the_server_does_not_start_without_a_socket() {
    let server = TestServer::new("");
    fs::write(server.path("postrider.toml"), "hostname = \"mx.here.example\"\ndata-dir = \"data\"\n")
        .unwrap();
    let (code, _, error) = server.run_to_end(&["serve"]);
    assert_eq!(code, 1);
    assert!(
        error.contains("there is nothing to listen on") && error.contains("postrider-smtp.socket"),
        "{error}"
    );
}

#[test]
fn the_systemd_units_use_the_socket_names_of_the_configuration() {
    for name in ["smtp", "submission", "submissions"] {
        let unit = format!("{}/etc/systemd/postrider-{name}.socket", env!("CARGO_MANIFEST_DIR"));
        let unit = fs::read_to_string(unit).unwrap();
        assert!(unit.lines().any(|line| line == format!("FileDescriptorName={name}")), "{unit}");
        assert!(unit.lines().any(|line| line == "Service=postrider.service"), "{unit}");
    }
}
