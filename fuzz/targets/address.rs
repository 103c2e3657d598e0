//! Addresses without their angle brackets: an address that can be parsed is the same after it was stored in the
//! spool.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::mail::{Domain, LocalPart, Mailbox};

fuzz_target!(|text: &str| {
    if let Ok(mailbox) = Mailbox::parse(text) {
        let written = mailbox.to_string();
        assert!(!written.contains(|c: char| c.is_control()), "{written:?} cannot stand in a header");
        let stored = serde_json::to_string(&mailbox).map(|json| serde_json::from_str(&json));
        assert_eq!(stored.ok().and_then(Result::ok).as_ref(), Some(&mailbox));
        assert_eq!(mailbox.local_part.case_mapped().comparison_key(), mailbox.local_part.comparison_key());
    }
    if let Ok(domain) = Domain::parse(text) {
        assert_eq!(Domain::parse(domain.as_ascii()).as_ref(), Ok(&domain));
    }
    let _ = LocalPart::parse(text);
});
