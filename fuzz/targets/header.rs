//! Header sections: fields follow one another, and values have no line ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::mail::HeaderFields;

fuzz_target!(|octets: &[u8]| {
    let length = HeaderFields::section_octets(octets);
    assert!(length <= octets.len());
    let mut end = 0;
    for field in HeaderFields::new(octets) {
        assert_eq!(field.range.start, end, "fields follow one another");
        end = field.range.end;
        assert!(!field.value().contains(['\r', '\n']));
    }
    assert!(end <= length);
});
