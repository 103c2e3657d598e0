//! A message as a mailbox or a program gets it.
//!
//! This is final delivery: Return-Path, with the envelope's reverse-path, is added on top (RFC 5321 §4.4),
//! and Delivered-To, by which a loop through a mailbox is noticed. Line ends are converted while the
//! octets are read.

use std::io::{self, Read};

use super::contract::Delivery;
use crate::mail::Mailbox;
use crate::sys::LfReader;

/// The end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnds {
    /// LF, as in files.
    Lf,
    /// CR LF, as in SMTP.
    CrLf,
}

/// Opens the message for its delivery to `mailbox`.
pub(super) fn open<'a>(
    delivery: &Delivery<'a>,
    mailbox: &Mailbox,
    line_ends: LineEnds,
) -> io::Result<Box<dyn Read + 'a>> {
    // Addresses have no control characters, so neither field can hold a line end.
    let top = format!("Return-Path: {}\r\nDelivered-To: {mailbox}\r\n", delivery.envelope.reverse_path);
    let whole = io::Cursor::new(top.into_bytes()).chain(delivery.message.open()?);
    Ok(match line_ends {
        LineEnds::Lf => Box::new(LfReader::new(whole)),
        LineEnds::CrLf => Box::new(whole),
    })
}
