//! The header section of a message that comes in: whatever it holds, the streaming reader finds the
//! fields that the whole text has, and leaves out those and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::inbound::{ContentObserver as _, HeaderScanner};
use postrider::mail::HeaderFields;

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, octets) = input;
    // As the body reader hands it on: a line ends with CRLF and with nothing else.
    let mut message = Vec::new();
    for line in octets.split(|&octet| octet == b'\n') {
        message.extend(line.iter().filter(|octet| **octet != b'\r'));
        message.extend_from_slice(b"\r\n");
    }
    let mut head = HeaderScanner::default();
    message.chunks(usize::from(cut) + 1).for_each(|piece| head.feed(piece));
    head.finish();

    let fields: Vec<_> = HeaderFields::new(&message).collect();
    let count = |name: &str| fields.iter().filter(|field| field.has_name(name)).count();
    assert_eq!(head.received_count(), count("Received"));
    assert_eq!(head.has_date(), count("Date") > 0);
    assert_eq!(head.has_message_id(), count("Message-ID") > 0);
    assert_eq!(head.from().count, count("From"));
    assert_eq!(head.sender().count, count("Sender"));
    if let Some(from) = fields.iter().find(|field| field.has_name("From"))
        && !head.from().is_truncated
    {
        assert_eq!(head.from().raw_value, from.raw_value);
    }

    let ranges = head.removed_ranges(true);
    assert!(ranges.iter().all(|(start, end)| start < end));
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    let is_left_out = |at: usize| ranges.iter().any(|(start, end)| (*start..*end).contains(&(at as u64)));
    for field in &fields {
        let is_private = ["Bcc", "Resent-Bcc", "Return-Path"].iter().any(|name| field.has_name(name));
        assert!(is_private || !field.range.clone().any(is_left_out), "{field:?} is left out");
        let is_kept = !field.range.clone().all(is_left_out);
        // More places than are remembered: such a message is refused.
        assert!(!is_private || !is_kept || ranges.len() >= 32, "{field:?} is kept");
    }
});
