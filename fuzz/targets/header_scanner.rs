//! The header section of an incoming message: the streaming scanner finds the same fields as a parser of the whole
//! text, and removes private fields and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::inbound::{ContentObserver as _, HeaderScanner};
use postrider::mail::HeaderFields;

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, octets) = input;
    // Like the output of the body reader: each line ends with CRLF.
    let mut message = Vec::new();
    for line in octets.split(|&octet| octet == b'\n') {
        message.extend(line.iter().filter(|octet| **octet != b'\r'));
        message.extend_from_slice(b"\r\n");
    }
    let mut scanner = HeaderScanner::default();
    message.chunks(usize::from(cut) + 1).for_each(|piece| scanner.feed(piece));
    scanner.finish();

    let fields: Vec<_> = HeaderFields::new(&message).collect();
    let count = |name: &str| fields.iter().filter(|field| field.has_name(name)).count();
    assert_eq!(scanner.received_count(), count("Received"));
    assert_eq!(scanner.has_date(), count("Date") > 0);
    assert_eq!(scanner.has_message_id(), count("Message-ID") > 0);
    assert_eq!(scanner.from().count, count("From"));
    assert_eq!(scanner.sender().count, count("Sender"));
    if let Some(from) = fields.iter().find(|field| field.has_name("From"))
        && !scanner.from().is_truncated
    {
        assert_eq!(scanner.from().raw_value, from.raw_value);
    }

    let ranges = scanner.removed_ranges(true);
    assert!(ranges.iter().all(|(start, end)| start < end));
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    let is_removed = |at: usize| ranges.iter().any(|(start, end)| (*start..*end).contains(&(at as u64)));
    for field in &fields {
        let is_private = ["Bcc", "Resent-Bcc", "Return-Path"].iter().any(|name| field.has_name(name));
        assert!(is_private || !field.range.clone().any(is_removed), "{field:?} is removed");
        let is_kept = !field.range.clone().all(is_removed);
        // A message with more ranges than the scanner records is refused.
        assert!(!is_private || !is_kept || ranges.len() >= 32, "{field:?} is kept");
    }
});
