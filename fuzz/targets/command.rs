//! Command lines: the printable form has no control characters, and a refusal has a reply code of 5xx.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::smtp::Command;

fuzz_target!(|line: &[u8]| {
    let shown = Command::printable_line(line);
    assert!(!shown.contains(|c: char| c.is_control()), "{shown:?} cannot stand in a log");
    let _ = Command::verb(line);
    if let Err(reply) = Command::parse(line) {
        assert!((500..600).contains(&reply.code), "{reply:?} is not a refusal");
    }
});
