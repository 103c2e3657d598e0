//! A start and a stop do not wait for hooks, external services, clients and commands that hang.
//!
//! Where `grace` is an hour, a stop that waits for one of them does not end before the test's time-out.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::spawn;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::test_server::{Signal, SmtpClient, TestServer, WAIT_TIMEOUT, wait_for, write_script};

/// A server with this `grace`, not started.
fn server_with_grace(grace: &str, more: &str) -> TestServer {
    let server = TestServer::new(more);
    let toml = fs::read_to_string(server.path("postrider.toml")).unwrap();
    fs::write(server.path("postrider.toml"), toml.replace("grace = \"5s\"", &format!("grace = \"{grace}\"")))
        .unwrap();
    server
}

/// Adds a port for proxies at 127.0.0.2.
fn listen_for_proxies(server: &TestServer, port: u16) {
    let toml = fs::read_to_string(server.path("postrider.toml")).unwrap();
    let smtp = format!("smtp = [\"127.0.0.1:{}\"", server.smtp_port);
    let proxied = format!("proxy-from = [\"127.0.0.1\"]\n{smtp}, \"127.0.0.2:{port} proxy\"");
    assert!(toml.contains(&smtp));
    fs::write(server.path("postrider.toml"), toml.replace(&smtp, &proxied)).unwrap();
}

/// A hook that hangs for a minute for an address that begins with `asked_for`; postrider gives it
/// five seconds. Its process id is then in the file `hook-runs`, and its arguments in `asked`.
fn hanging_alias_hook(server: &TestServer, asked_for: &str) {
    let here = server.path("hook-runs").display().to_string();
    let text = format!(
        "echo $1 >>{}\ncase $1 in {asked_for}*) echo $$ >{here}.new; mv {here}.new {here}; exec sleep 60;; esac",
        server.path("asked").display()
    );
    write_script(&server.path("hooks/alias-resolve"), &text);
}

/// The process id in this file, once it is there.
fn process_in(path: &Path) -> u32 {
    wait_for("the program to begin", || fs::read_to_string(path).ok()?.trim().parse().ok())
}

fn is_running(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn wait_until_gone(process: u32) {
    wait_for("the program to be gone", || (!is_running(process)).then_some(()));
}

/// A client that has said RCPT for this address and has no answer.
fn client_asking_for(server: &TestServer, to: &str) -> SmtpClient {
    let mut client = server.connect();
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<bo@there.example>", "250");
    client.send(format!("RCPT TO:<{to}>\r\n").as_bytes());
    client
}

#[test]
fn a_stop_does_not_wait_for_the_alias_hook_of_a_session() {
    let mut server = server_with_grace("1h", "");
    hanging_alias_hook(&server, "slow");
    server.start();
    let mut client = client_asking_for(&server, "slow@here.example");
    let hook = process_in(&server.path("hook-runs"));
    assert_eq!(server.stop(), 0);
    assert!(client.read_reply().starts_with("451 4."), "the recipient is put off");
    assert!(client.read_reply().starts_with("421 4.3.2 "), "and the client hears why it is left");
    wait_until_gone(hook);
    let log = server.log();
    assert!(log.contains("nothing was under way"), "{log}");
    assert!(!log.contains("took longer than"), "the hook's time was over before the server stopped: {log}");
}

#[test]
fn start_stop_and_reload_do_not_wait_for_the_alias_hook_of_postmasters() {
    let mut server = server_with_grace("1h", "");
    hanging_alias_hook(&server, "postmaster");
    server.start();
    let hook = process_in(&server.path("hook-runs"));
    fs::write(server.path("domains/here.example/aliases"), "bo: ana\n").unwrap();
    wait_for("the look at files", || server.log().contains("users and aliases were read anew").then_some(()));
    // It runs for the next name when its time for the first is over.
    let asked = || fs::read_to_string(server.path("asked")).unwrap();
    assert_eq!(asked(), "postmaster@here.example\n", "the look at files waited for the hook");
    server.signal(Signal::SIGTERM);
    wait_until_gone(hook);
    assert_eq!(asked(), "postmaster@here.example\n", "the stop waited for the hook");
    assert_eq!(server.exit_code(), 0);
    assert!(server.log().contains("nothing was under way"), "{}", server.log());
}

#[test]
fn a_message_whose_hook_still_runs_is_deferred_when_grace_is_over() {
    let mut server = server_with_grace("3s", "[hooks]\non-failure = \"accept\"\n");
    let runs = server.path("hook-runs").display().to_string();
    write_script(
        &server.path("hooks/post-data"),
        &format!("echo $$ >{runs}.new; mv {runs}.new {runs}; exec sleep 60"),
    );
    server.start();
    let mut client = server.connect();
    client.begin_data("bo@there.example", "ana@here.example");
    client.send(b"Subject: judged\r\n\r\nhello\r\n.\r\n");
    let hook = process_in(&server.path("hook-runs"));
    assert_eq!(server.stop(), 0);
    let reply = client.read_reply();
    assert!(reply.starts_with("451 4.3.2 "), "{reply:?}\n{}", server.log());
    wait_until_gone(hook);
}

/// `postrider queue hold ID`, under way.
fn hold(server: &TestServer, id: &str) -> Child {
    let mut command = server.command();
    command.args(["queue", "hold", id]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn commands_that_wait_for_attempts_are_answered_when_the_server_stops() {
    let more = "[delivery]\nlocal = \"command\"\n[delivery.command]\nprogram = \"deliver\"\n\
                [queue]\nretry = [\"1s\"]\n";
    let mut server = server_with_grace("5s", "");
    let program = server.path("deliver").display().to_string();
    let toml = fs::read_to_string(server.path("postrider.toml")).unwrap();
    fs::write(server.path("postrider.toml"), toml + &more.replace("\"deliver\"", &format!("{program:?}")))
        .unwrap();
    write_script(&server.path("deliver"), "echo $$ >>runs; exec sleep 600");
    server.environment.push(("POSTRIDER_LOG", "info,postrider::control=debug".into()));
    server.start();
    let ids: Vec<_> = (0..6)
        .map(|number| {
            let reply = server.send_message("bo@there.example", "ana@here.example", &number.to_string());
            assert!(reply.starts_with("250 "), "{reply}");
            reply.trim_end().rsplit(' ').next().unwrap().to_owned()
        })
        .collect();
    let runs = || fs::read_to_string(server.path("runs")).unwrap_or_default();
    wait_for("six attempts", || (runs().lines().count() == 6).then_some(()));
    let processes: Vec<u32> = runs().lines().map(|line| line.parse().unwrap()).collect();
    let commands: Vec<_> = ids.iter().map(|id| hold(&server, id)).collect();
    wait_for("four commands", || (server.log().matches("asked by user").count() >= 4).then_some(()));
    let began = Instant::now();
    server.signal(Signal::SIGTERM);
    for command in commands {
        let output = command.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("the server is stopping"), "{said}\n{}", server.log());
        assert!(!output.status.success(), "{said}");
    }
    assert!(is_running(server.pid()), "the commands were answered before the attempts ended");
    assert_eq!(server.exit_code(), 0);
    // Twice the grace, for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}\n{}", began.elapsed(), server.log());
    processes.into_iter().for_each(wait_until_gone);
    write_script(&server.path("deliver"), "cat >>delivered");
    server.start();
    wait_for("six deliveries", || (server.log().matches(" delivered id=").count() == 6).then_some(()));
    assert!(!server.log().contains("failed id="), "no attempt was given up for the stop: {}", server.log());
}

#[test]
fn a_second_signal_leaves_no_program_behind() {
    let mut server = server_with_grace("1h", "");
    let (runs, program) = (server.path("runs").display().to_string(), server.path("slow"));
    write_script(&program, &format!("echo $$ >{runs}.new; mv {runs}.new {runs}; exec sleep 600"));
    fs::write(server.path("domains/here.example/aliases"), format!("slow: | sh \"{}\"\n", program.display()))
        .unwrap();
    server.start();
    assert!(server.send_message("bo@there.example", "slow@here.example", "slow").starts_with("250 "));
    let program = process_in(&server.path("runs"));
    server.signal(Signal::SIGTERM);
    wait_for("the stop", || server.log().contains("stopping").then_some(()));
    assert!(is_running(program), "an attempt under way has its grace");
    assert_eq!(server.stop(), 1);
    wait_until_gone(program);
    assert!(!server.log().contains("failed id="), "{}", server.log());
}

#[test]
fn the_greeting_does_not_wait_for_a_silent_dovecot() {
    let dir = tempfile::tempdir().unwrap();
    let [client, userdb] = ["client", "userdb"].map(|name| dir.path().join(name));
    let listeners = [&client, &userdb].map(|path| UnixListener::bind(path).unwrap());
    let more =
        format!("[dovecot]\nauth = \"auto\"\nclient-socket = {client:?}\nuserdb-socket = {userdb:?}\n");
    let mut server = server_with_grace("1h", &more);
    server.start();
    server.connect().expect("EHLO there.example", "250");
    assert!(!server.log().contains("took too long"), "the start waited for Dovecot: {}", server.log());
    let (_asked, _) = listeners[0].accept().unwrap();

    // Dovecot does not answer the question about a client's recipient.
    let mut asking = client_asking_for(&server, "cy@here.example");
    let (mut asked, _) = listeners[1].accept().unwrap();
    asked.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    assert!(asked.read(&mut [0; 64]).unwrap() > 0);
    assert_eq!(server.stop(), 0);
    let replies = asking.read_reply() + &asking.read_reply();
    assert!(replies.contains("421 4.3.2 "), "{replies:?}");
    let log = server.log();
    assert!(!log.contains("took too long"), "Dovecot's time was over before the server stopped: {log}");
}

#[test]
fn a_stop_does_not_wait_for_the_name_server_of_a_session() {
    let name_server = UdpSocket::bind("127.0.0.1:0").unwrap();
    name_server.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    let proxied = crate::peers::free_port();
    let more = format!("[dns]\nservers = [\"{}\"]\n", name_server.local_addr().unwrap());
    let mut server = server_with_grace("1h", &more);
    listen_for_proxies(&server, proxied);
    server.start();
    // Only public addresses have names.
    let mut client = SmtpClient::try_connect_after(
        ([127, 0, 0, 2], proxied).into(),
        b"PROXY TCP4 203.0.113.7 203.0.113.1 4711 25\r\n",
    )
    .unwrap();
    client.expect("EHLO there.example", "250");
    client.send(b"MAIL FROM:<bo@there.example>\r\n");
    name_server.recv(&mut [0; 512]).unwrap();
    assert_eq!(server.stop(), 0);
    let replies = client.read_reply() + &client.read_reply();
    assert!(replies.contains("421 4.3.2 "), "{replies:?}");
}

#[test]
fn the_greeting_does_not_wait_for_an_lmtp_server_that_accepts_no_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lmtp");
    let address = SockAddr::unix(&path).unwrap();
    let full = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    full.bind(&address).unwrap();
    full.listen(0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        match socket.connect(&address) {
            Ok(()) => waiting.push(socket),
            Err(_) => break,
        }
    }
    let more =
        format!("[delivery]\nlocal = \"lmtp\"\n[delivery.lmtp]\naddress = \"unix:{}\"\n", path.display());
    let mut server = server_with_grace("1h", &more);
    server.start();
    server.connect().expect("EHLO there.example", "250");
    assert!(!server.log().contains("no connection to"), "the start waited for it: {}", server.log());
    assert_eq!(server.stop(), 0);
    assert!(!server.log().contains("no connection to"), "the stop waited for it: {}", server.log());
}

#[test]
fn missing_services_are_logged_at_the_start() {
    let more = "[delivery]\nlocal = \"lmtp\"\n[delivery.lmtp]\naddress = \"unix:/no/such/lmtp\"\n\
                [dovecot]\nauth = \"auto\"\nclient-socket = \"/no/such/client\"\nuserdb-socket = \"/no/such/userdb\"\n";
    let server = TestServer::new_started(more);
    for says in
        ["no connection to unix:/no/such/lmtp", "cannot log in", "mail for Dovecot's users is put off"]
    {
        wait_for("the warning", || server.log().contains(says).then_some(()));
    }
}

#[test]
fn a_stop_does_not_wait_for_clients_that_are_silent_or_do_not_read() {
    let mut server = server_with_grace("1h", "[limits]\ncommand-timeout = \"1h\"\n");
    let proxied = crate::peers::free_port();
    listen_for_proxies(&server, proxied);
    server.start();
    let mut silent = Vec::new();
    // No first octet of a handshake, and half of one.
    silent.push(TcpStream::connect(("127.0.0.1", server.submissions_port)).unwrap());
    let mut half = TcpStream::connect(("127.0.0.1", server.submissions_port)).unwrap();
    half.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01").unwrap();
    silent.push(half);
    // No preface of a proxy.
    silent.push(TcpStream::connect(("127.0.0.2", proxied)).unwrap());
    // A request to the monitor whose answer is not read, and half of a request.
    for request in ["GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "GET /metr"] {
        let mut monitor = TcpStream::connect(("127.0.0.1", server.monitoring_port)).unwrap();
        monitor.write_all(request.as_bytes()).unwrap();
        silent.push(monitor);
    }
    // More control clients than are served at once.
    let control: Vec<_> = (0..6).map(|_| UnixStream::connect(server.path("data/control")).unwrap()).collect();
    // A client that sends commands and reads no reply.
    let deaf = server.connect();
    let mut writer = deaf.cloned_stream();
    writer.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let commands = "NOOP\r\n".repeat(1000);
    let flood = spawn(move || while writer.write_all(commands.as_bytes()).is_ok() {});
    flood.join().unwrap();
    let mut idle = server.connect();
    let began = Instant::now();
    server.signal(Signal::SIGTERM);
    assert!(idle.read_reply().starts_with("421 4.3.2 "));
    assert_eq!(server.exit_code(), 0);
    // The silent control clients have five seconds, and the monitor's ten.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(server.log().contains("nothing was under way"), "{}", server.log());
    drop((silent, control, deaf));
}

#[test]
fn a_message_that_does_not_end_has_no_more_time_than_grace() {
    let mut server = server_with_grace("2s", "");
    server.start();
    let mut busy = server.connect();
    busy.begin_data("bo@there.example", "ana@here.example");
    busy.send(b"Subject: never finished\r\n");
    let began = Instant::now();
    assert_eq!(server.stop(), 0);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(server.log().contains("stopped with work under way"), "{}", server.log());
}

#[test]
fn start_and_stop_do_not_wait_for_a_service_manager_that_does_not_read() {
    let mut server = server_with_grace("1h", "");
    let path = server.path("notify");
    let deaf = UnixDatagram::bind(&path).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(&path).unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.send(b"X=1").is_ok() {}
    server.environment.push(("NOTIFY_SOCKET", path));
    server.environment.push(("WATCHDOG_USEC", "600000".into()));
    server.start();
    wait_for("the service", || server.log().contains("serves as").then_some(()));
    server.signal(Signal::SIGHUP);
    wait_for("the reload", || server.log().contains("as SIGHUP asked").then_some(()));
    assert_eq!(server.stop(), 0);
    drop(deaf);
}

#[test]
fn a_stop_does_not_wait_for_a_next_hop_that_does_not_answer_quit() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = std::sync::mpsc::channel();
    let peer = spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 there.example\r\n").unwrap();
        let mut lines = std::io::BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        let mut is_message = false;
        loop {
            line.clear();
            if std::io::BufRead::read_line(&mut lines, &mut line).unwrap_or(0) == 0 {
                return;
            }
            let reply = match (is_message, line.trim_end()) {
                (true, ".") => "250 taken",
                (true, _) => continue,
                (false, "DATA") => "354 go on",
                (false, "QUIT") => {
                    tell.send(()).unwrap();
                    continue;
                }
                (false, _) => "250 fine",
            };
            is_message = reply.starts_with("354");
            stream.write_all(format!("{reply}\r\n").as_bytes()).unwrap();
        }
    });
    let more =
        format!("[delivery.smtp]\nvia = \"127.0.0.1:{port}\"\n[relay]\nnetworks = [\"127.0.0.0/8\"]\n");
    let mut server = server_with_grace("1h", &more);
    server.start();
    assert!(server.send_message("ana@here.example", "bo@there.example", "away").starts_with("250 "));
    wait_for("the delivery", || server.log().contains("delivered id=").then_some(()));
    assert_eq!(server.stop(), 0);
    told.recv_timeout(WAIT_TIMEOUT).unwrap();
    peer.join().unwrap();
}

#[test]
fn a_stop_does_not_wait_for_the_reader_of_the_log() {
    let mut server = server_with_grace("2s", "");
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = server.command();
    command.arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer.try_clone().unwrap());
    server.start_with(&mut command);
    drop(command);
    // The server's end of the pipe is this one too.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while writer.write(b"x").is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
    drop(reader);
}
