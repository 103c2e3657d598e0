//! Writes the lines of a bounce: folded, printable, and not too long.

use std::fmt::Write as _;

use crate::mail::{Mailbox, decode_xtext, printable};

/// RFC 5322 §2.1.1: the longest line, without its line end.
const LINE_OCTETS_MAX: usize = 998;
/// Lines are folded here, if they can be.
const FOLDED_LINE_OCTETS_MAX: usize = 76;

/// `Content-Transfer-Encoding`, if it is not 7bit (RFC 2045 §6.1).
pub(super) fn transfer_encoding_field(octets: &[u8]) -> String {
    if octets.is_ascii() { String::new() } else { "Content-Transfer-Encoding: 8bit\r\n".to_owned() }
}

/// The address with its type (RFC 3464 §2.3.2, RFC 6533 §3).
pub(super) fn typed_address(mailbox: &Mailbox) -> String {
    match mailbox.needs_smtputf8() {
        true => format!("utf-8; {mailbox}"),
        false => format!("rfc822; {}", mailbox.to_ascii_domain()),
    }
}

/// ASCII, with every other octet as `\xHH`, like text of a peer that was made printable.
pub(super) fn escape_non_ascii(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    for octet in raw.bytes() {
        match octet {
            32..=126 => text.push(char::from(octet)),
            octet => {
                let _ = write!(text, "\\x{octet:02x}");
            }
        }
    }
    text
}

/// The text that `xtext` stands for, made printable. Malformed xtext stays as it is.
pub(super) fn printable_xtext(xtext: &str) -> String {
    let octets = decode_xtext(xtext).unwrap_or_else(|| xtext.as_bytes().to_vec());
    printable(&octets, LINE_OCTETS_MAX / 2)
}

/// Writes a field, folded between words.
pub(super) fn write_field(text: &mut String, name: &str, value: &str) {
    let _ = write!(text, "{name}:");
    let mut column = name.len() + 1;
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        for piece in split_long_word(word) {
            if column + 1 + piece.len() > FOLDED_LINE_OCTETS_MAX && column > name.len() + 1 {
                text.push_str("\r\n");
                column = 0;
            }
            let _ = write!(text, " {piece}");
            column += 1 + piece.len();
        }
    }
    text.push_str("\r\n");
}

/// Writes a paragraph, in lines of at most 76 octets.
pub(super) fn write_paragraph(text: &mut String, indent: &str, words: &str) {
    let mut column = 0;
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        for piece in split_long_word(word) {
            if column > 0 && column + 1 + piece.len() <= FOLDED_LINE_OCTETS_MAX {
                text.push(' ');
                column += 1;
            } else {
                text.push_str(if column == 0 { "" } else { "\r\n" });
                text.push_str(indent);
                column = indent.len();
            }
            text.push_str(piece);
            column += piece.len();
        }
    }
    text.push_str("\r\n");
}

/// Splits a word that is longer than a line may be.
fn split_long_word(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let end = rest.floor_char_boundary(LINE_OCTETS_MAX - 100);
        let (piece, tail) = rest.split_at_checked(end).filter(|(piece, _)| !piece.is_empty())?;
        rest = tail;
        Some(piece)
    })
}

pub(super) fn has_long_line(octets: &[u8]) -> bool {
    octets.split(|&b| b == b'\n').any(|line| line.strip_suffix(b"\r").unwrap_or(line).len() > LINE_OCTETS_MAX)
}

pub(super) fn truncate_long_lines(octets: &[u8]) -> Vec<u8> {
    if !has_long_line(octets) {
        return octets.to_vec();
    }
    let mut cut = Vec::with_capacity(octets.len());
    for line in octets.split_inclusive(|&b| b == b'\n') {
        let content = line.strip_suffix(b"\r\n").unwrap_or(line);
        cut.extend_from_slice(content.get(..LINE_OCTETS_MAX).unwrap_or(content));
        cut.extend_from_slice(b"\r\n");
    }
    cut
}
