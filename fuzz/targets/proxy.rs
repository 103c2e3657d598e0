//! The header of the PROXY protocol.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::inbound::proxy::read_header;

fuzz_target!(|octets: &[u8]| {
    let mut left = octets;
    if let Ok(client) = read_header(&mut left) {
        // No octet after the header was read: the header alone gives the same result.
        let mut header = &octets[..octets.len() - left.len()];
        assert_eq!(read_header(&mut header).ok(), Some(client));
        assert!(header.is_empty());
    }
});
