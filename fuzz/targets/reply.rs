//! Replies of a server that we deliver to.
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
                let said = reply.printable_text();
                assert!(!said.contains(|c: char| c.is_control()), "{said:?} cannot stand in a log");
                let _ = reply.to_failure("mx.there.example", "RCPT");
            }
            Err(_) => return,
        }
    }
});
