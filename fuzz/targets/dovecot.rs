//! Lines from the sockets of Dovecot: all texts for the log are printable.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider::auth::{DovecotAuthReply, DovecotHandshake, DovecotUserReply};

fuzz_target!(|octets: &[u8]| {
    let (mut client, mut userdb) = (DovecotHandshake::default(), DovecotHandshake::default());
    for line in octets.split(|&octet| octet == b'\n') {
        let client = client.read_client_line(line);
        let userdb = userdb.read_userdb_line(line);
        for error in [client.err(), userdb.err()].into_iter().flatten() {
            assert_is_printable(&error.to_string());
        }
        match DovecotAuthReply::parse(line) {
            Ok(Some(DovecotAuthReply::Unavailable(why))) => assert_is_printable(&why),
            Ok(_) => {}
            Err(error) => assert_is_printable(&error.to_string()),
        }
        match DovecotUserReply::parse(line) {
            Ok(Some(DovecotUserReply::Unavailable(why))) => assert_is_printable(&why),
            Ok(_) => {}
            Err(error) => assert_is_printable(&error.to_string()),
        }
    }
});

fn assert_is_printable(text: &str) {
    assert!(!text.contains(|c: char| c.is_control()), "{text:?} cannot stand in a log");
}
