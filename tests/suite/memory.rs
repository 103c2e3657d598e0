//! What a client sends is never held: the memory of the real binary does not follow its size.

use std::fs;
use std::io::Write as _;

use crate::house::{Client, House};

const MEBIBYTE: usize = 1024 * 1024;

/// Octets of each attempt on the server's memory.
const MUCH: usize = 24 * MEBIBYTE;

/// What it may take all the same: buffers, and another thread's stack.
const LITTLE: usize = 8 * MEBIBYTE;

/// The most memory that the server has ever had, in octets.
fn peak(house: &House) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", house.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<usize>().unwrap() * 1024
}

fn begin(client: &mut Client) {
    client.expect("EHLO there.example", "250");
    client.expect("MAIL FROM:<bo@there.example>", "250");
    client.expect("RCPT TO:<ana@here.example>", "250");
}

/// Sends pieces of `piece` until it was `MUCH`.
fn send_much(client: &Client, piece: &[u8]) {
    let mut writer = client.writer();
    for _ in 0..MUCH / piece.len() {
        writer.write_all(piece).unwrap();
    }
}

#[test]
fn neither_messages_nor_lines_nor_chunks_nor_headers_are_held_in_memory() {
    let house = House::started("[limits]\nmessage-size-max = \"32 MiB\"\n");
    let mut client = house.client();
    begin(&mut client);
    client.expect("DATA", "354");
    client.expect("Subject: warm\r\n\r\nup\r\n.", "250");
    let before = peak(&house);
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
        assert!(client.reply().starts_with("250 "), "{what}");
        assert!(peak(&house) < before + LITTLE, "{what}: {} octets more", peak(&house) - before);
    }

    begin(&mut client);
    client.send(format!("BDAT {MUCH} LAST\r\n").as_bytes());
    send_much(&client, &[b'x'; 8192]);
    assert!(client.reply().starts_with("250 "), "a chunk");
    begin(&mut client);
    client.send(format!("BDAT {} LAST\r\n", 2 * MUCH).as_bytes());
    send_much(&client, &[b'x'; 8192]);
    send_much(&client, &[b'x'; 8192]);
    assert!(client.reply().starts_with("552 "), "a chunk that nobody wants");
    send_much(&client, &[b'x'; 8192]);
    client.expect("", "500");
    assert!(peak(&house) < before + LITTLE, "chunks and commands: {} octets more", peak(&house) - before);
}
