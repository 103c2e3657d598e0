//! What stands at Dovecot's sockets may be anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::auth::{DovecotAuthReply, DovecotHandshake, DovecotUserReply};

fuzz_target!(|octets: &[u8]| {
    let (mut client, mut userdb) = (DovecotHandshake::default(), DovecotHandshake::default());
    for line in octets.split(|&octet| octet == b'\n') {
        let client = client.read_client_line(line);
        let userdb = userdb.read_userdb_line(line);
        for error in [client.err(), userdb.err()].into_iter().flatten() {
            is_fit_for_a_log(&error.to_string());
        }
        match DovecotAuthReply::parse(line) {
            Ok(Some(DovecotAuthReply::Unavailable(why))) => is_fit_for_a_log(&why),
            Ok(_) => {}
            Err(error) => is_fit_for_a_log(&error.to_string()),
        }
        match DovecotUserReply::parse(line) {
            Ok(Some(DovecotUserReply::Unavailable(why))) => is_fit_for_a_log(&why),
            Ok(_) => {}
            Err(error) => is_fit_for_a_log(&error.to_string()),
        }
    }
});

fn is_fit_for_a_log(text: &str) {
    assert!(!text.contains(|c: char| c.is_control()), "{text:?} cannot stand in a log");
}
