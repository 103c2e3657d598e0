//! The preface of a proxy, from whom it may come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::inbound::proxy::read_header;

fuzz_target!(|octets: &[u8]| {
    let mut left = octets;
    if let Ok(client) = read_header(&mut left) {
        // Not one octet of what follows was read: the preface alone says the same.
        let mut preface = &octets[..octets.len() - left.len()];
        assert_eq!(read_header(&mut preface).ok(), Some(client));
        assert!(preface.is_empty());
    }
});
