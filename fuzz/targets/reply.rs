//! Replies of a server to which mail is delivered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::smtp::{Extensions, Reply};

fuzz_target!(|octets: &[u8]| {
    let mut lines = Vec::new();
    for line in octets.split(|&octet| octet == b'\n') {
        lines.push(line.to_vec());
        match Reply::read(&mut lines) {
            Ok(None) => {}
            Ok(Some(reply)) => {
                let _ = Extensions::read(&reply);
                let text = reply.printable_text();
                assert!(!text.contains(|c: char| c.is_control()), "{text:?} cannot stand in a log");
                let _ = reply.to_failure("mx.there.example", "RCPT");
            }
            Err(_) => return,
        }
    }
});
