//! A message as a mailbox or a program gets it.
//!
//! This is final delivery: Return-Path, with the envelope's reverse-path, goes on top (RFC 5321
//! §4.4), and Delivered-To, by which a loop through a mailbox is noticed. Line ends become what
//! the receiver wants, as the octets stream by.

use std::io::{self, Read};

use super::contract::Delivery;
use crate::mail::Mailbox;
use crate::sys::LfReader;

/// What ends a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnds {
    /// LF, as in files.
    Lf,
    /// CR LF, as on the wire.
    CrLf,
}

/// Opens the message for its delivery to `mailbox`.
pub(super) fn open<'a>(
    delivery: &Delivery<'a>,
    mailbox: &Mailbox,
    line_ends: LineEnds,
) -> io::Result<Box<dyn Read + 'a>> {
    // Neither can hold a line end: addresses have no control characters.
    let top = format!("Return-Path: {}\r\nDelivered-To: {mailbox}\r\n", delivery.envelope.reverse_path);
    let whole = io::Cursor::new(top.into_bytes()).chain(delivery.message.open()?);
    Ok(match line_ends {
        LineEnds::Lf => Box::new(LfReader::new(whole)),
        LineEnds::CrLf => Box::new(whole),
    })
}
