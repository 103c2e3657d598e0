//! What stands at Dovecot's sockets may be anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::auth::{Handshake, LoginReply, UserReply};

fuzz_target!(|octets: &[u8]| {
    let (mut client, mut userdb) = (Handshake::default(), Handshake::default());
    for line in octets.split(|&octet| octet == b'\n') {
        let client = client.client_line(line);
        let userdb = userdb.userdb_line(line);
        for error in [client.err(), userdb.err()].into_iter().flatten() {
            is_fit_for_a_log(&error.to_string());
        }
        match LoginReply::read(line) {
            Ok(Some(LoginReply::Unavailable(why))) => is_fit_for_a_log(&why),
            Ok(_) => {}
            Err(error) => is_fit_for_a_log(&error.to_string()),
        }
        match UserReply::read(line) {
            Ok(Some(UserReply::Unavailable(why))) => is_fit_for_a_log(&why),
            Ok(_) => {}
            Err(error) => is_fit_for_a_log(&error.to_string()),
        }
    }
});

fn is_fit_for_a_log(text: &str) {
    assert!(!text.contains(|c: char| c.is_control()), "{text:?} cannot stand in a log");
}
