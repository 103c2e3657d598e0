//! Memory of the real program: it does not depend on the size of the input, and an idle client costs little.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};

use crate::test_server::{SmtpClient, TestServer};

const MEBIBYTE: usize = 1024 * 1024;

/// Octets of each attempt on the server's memory.
const MUCH: usize = 24 * MEBIBYTE;

/// The memory that an attempt may take: buffers, and another thread's stack.
const LITTLE: usize = 8 * MEBIBYTE;

/// Idle sessions of each kind at the same time.
const IDLE: usize = 100;

/// The memory that an idle session may take, in octets, in a debug build: a third more than measured. A
/// release build takes 16 and 26 KiB.
const IDLE_PLAIN_MAX: usize = 32 * 1024;
const IDLE_TLS_MAX: usize = 44 * 1024;

/// The most memory that the server has ever had, in octets.
fn peak(server: &TestServer) -> usize {
    status(server, "VmHWM:")
}

/// Memory that is in no file, in octets: heaps and stacks, as far as they have been touched.
fn own(server: &TestServer) -> usize {
    status(server, "RssAnon:")
}

fn status(server: &TestServer, key: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<usize>().unwrap() * 1024
}

fn begin(client: &mut SmtpClient) {
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<bo@there.example>", "250");
    client.expect("RCPT TO:<ana@here.example>", "250");
}

/// Sends pieces of `piece` until it was `MUCH`.
fn send_much(client: &SmtpClient, piece: &[u8]) {
    let mut writer = client.cloned_stream();
    for _ in 0..MUCH / piece.len() {
        writer.write_all(piece).unwrap();
    }
}

#[test]
fn neither_messages_nor_lines_nor_chunks_nor_headers_are_held_in_memory() {
    let server = TestServer::new_started("[limits]\nmessage-size-max = \"32 MiB\"\n");
    let mut client = server.connect();
    begin(&mut client);
    client.expect("DATA", "354");
    client.expect("Subject: warm\r\n\r\nup\r\n.", "250");
    let before = peak(&server);
    let lines = "x".repeat(70) + "\r\n";
    let line = "x".repeat(8192);
    let fields = "Received-By: there.example\r\n".repeat(300);

    for (what, head, piece, end) in [
        ("lines", "Subject: long\r\n\r\n", lines.as_bytes(), "\r\n.\r\n"),
        ("one line", "Subject: wide\r\n\r\n", line.as_bytes(), "\r\n.\r\n"),
        ("one field", "Subject: ", line.as_bytes(), "\r\n\r\n.\r\n"),
        ("fields", "Subject: high\r\n", fields.as_bytes(), "\r\n.\r\n"),
    ] {
        begin(&mut client);
        client.expect("DATA", "354");
        client.send(head.as_bytes());
        send_much(&client, piece);
        client.send(end.as_bytes());
        assert!(client.read_reply().starts_with("250 "), "{what}");
        assert!(peak(&server) < before + LITTLE, "{what}: {} octets more", peak(&server) - before);
    }

    begin(&mut client);
    client.send(format!("BDAT {MUCH} LAST\r\n").as_bytes());
    send_much(&client, &[b'x'; 8192]);
    assert!(client.read_reply().starts_with("250 "), "a chunk");
    begin(&mut client);
    client.send(format!("BDAT {} LAST\r\n", 2 * MUCH).as_bytes());
    send_much(&client, &[b'x'; 8192]);
    send_much(&client, &[b'x'; 8192]);
    assert!(client.read_reply().starts_with("552 "), "a chunk that nobody wants");
    send_much(&client, &[b'x'; 8192]);
    client.expect("", "500");
    assert!(peak(&server) < before + LITTLE, "chunks and commands: {} octets more", peak(&server) - before);
}

/// So many from one address.
fn crowd() -> String {
    format!("[limits]\nsessions-per-address-max = {}\n", 2 * IDLE)
}

/// The memory of each of `IDLE` sessions, in octets.
fn each_takes<C>(server: &TestServer, connect: impl Fn() -> C) -> usize {
    // Memory that is allocated once does not count as a session's.
    drop(connect());
    let before = own(server);
    let waiting: Vec<_> = (0..IDLE).map(|_| connect()).collect();
    let more = own(server).saturating_sub(before);
    drop(waiting);
    more / IDLE
}

#[test]
fn an_idle_session_takes_little_memory() {
    let server = TestServer::new_started(&crowd());
    let each = each_takes(&server, || {
        let mut client = server.connect();
        client.expect("EHLO there.example", "250");
        client
    });
    assert!(each < IDLE_PLAIN_MAX, "{each} octets");
}

#[test]
fn an_idle_tls_session_has_freed_the_memory_of_its_handshake() {
    let server = TestServer::new_started(&crowd());
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_verify(SslVerifyMode::NONE);
    let connector = connector.build();
    let each = each_takes(&server, || {
        let stream = TcpStream::connect(("127.0.0.1", server.submissions_port)).unwrap();
        let mut stream = connector.connect("mx.here.example", stream).unwrap();
        stream.write_all(b"EHLO there.example\r\n").unwrap();
        let (mut text, mut buffer) = (Vec::new(), [0; 1024]);
        while !text.windows(6).any(|octets| octets == b"\r\n250 ") {
            let octets = stream.read(&mut buffer).unwrap();
            text.extend_from_slice(&buffer[..octets]);
        }
        stream
    });
    assert!(each < IDLE_TLS_MAX, "{each} octets");
}
