//! From and Sender fields of our users: whoever is found is an address that reads the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::mail::{Mailbox, parse_address_list};

fuzz_target!(|octets: &[u8]| {
    if let Ok(found) = parse_address_list(octets) {
        let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
        // In U-labels an address may be longer than one that is read.
        if shown.iter().any(|mailbox| mailbox.len() > Mailbox::OCTETS_MAX) {
            return;
        }
        let again = shown.join(", ");
        assert_eq!(parse_address_list(again.as_bytes()), Ok(found), "{again:?}");
    }
});
