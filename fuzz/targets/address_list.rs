//! From and Sender fields: each address that is found can be parsed again with the same result.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::mail::{Mailbox, parse_address_list};

fuzz_target!(|octets: &[u8]| {
    if let Ok(found) = parse_address_list(octets) {
        let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
        // With U-labels an address may be longer than the parser accepts.
        if shown.iter().any(|mailbox| mailbox.len() > Mailbox::OCTETS_MAX) {
            return;
        }
        let again = shown.join(", ");
        assert_eq!(parse_address_list(again.as_bytes()), Ok(found), "{again:?}");
    }
});
