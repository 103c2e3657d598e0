//! From and Sender fields of our users: whoever is found is an address that reads the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::mail::address_list;

fuzz_target!(|octets: &[u8]| {
    if let Ok(found) = address_list(octets) {
        let again = found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        assert_eq!(address_list(again.as_bytes()), Ok(found), "{again:?}");
    }
});
