//! The data directory is renamed, removed or replaced while the server runs.

use std::fs;

use crate::test_server::{TestServer, wait_for};

#[test]
fn no_message_is_accepted_into_a_renamed_data_directory_and_none_gets_into_the_new_one() {
    let mut first = TestServer::new_started("");
    assert!(first.send_message("bo@there.example", "ana@here.example", "one").starts_with("250"));
    wait_for("the first message", || first.maildir_messages("here.example", "ana").pop());
    let data = first.path("data");
    fs::rename(&data, first.path("moved")).unwrap();

    // A second server works in the new directory of the old name.
    let mut second = TestServer::new("");
    let config = fs::read_to_string(second.path("postrider.toml")).unwrap();
    let config = config.replace("data-dir = \"data\"", &format!("data-dir = {data:?}"));
    fs::write(second.path("postrider.toml"), config).unwrap();
    second.start();

    for octets in [10, 100_000] {
        let mut client = first.connect();
        client.begin_data("bo@there.example", "ana@here.example");
        let refused = client.command(&format!("Subject: refused\r\n\r\n{}\r\n.", "x\r\n".repeat(octets / 3)));
        assert!(refused.starts_with("451"), "{refused}");
    }
    assert!(first.log().contains("was moved, removed or replaced"), "{}", first.log());
    assert!(second.send_message("bo@there.example", "ana@here.example", "two").starts_with("250"));
    wait_for("the second message", || {
        (first.maildir_messages("here.example", "ana").len() == 1).then_some(())
    });
    assert_eq!(first.stop(), 0);
    assert_eq!(second.stop(), 0);

    // The refused message is not delivered later.
    fs::remove_dir_all(&data).unwrap();
    fs::rename(first.path("moved"), &data).unwrap();
    first.start();
    assert!(first.send_message("bo@there.example", "ana@here.example", "three").starts_with("250"));
    let subjects = wait_for("the third message", || {
        let all = first.maildir_messages("here.example", "ana");
        all.iter().any(|one| one.windows(14).any(|text| text == b"Subject: three")).then_some(all)
    });
    assert_eq!(subjects.len(), 2, "one and three");
}

#[test]
fn no_message_is_accepted_into_a_data_directory_that_was_removed() {
    let mut server = TestServer::new_started("");
    assert!(server.send_message("bo@there.example", "ana@here.example", "one").starts_with("250"));
    wait_for("the first message", || server.maildir_messages("here.example", "ana").pop());
    fs::remove_dir_all(server.path("data")).unwrap();
    let refused = server.send_message("bo@there.example", "ana@here.example", "two");
    assert!(refused.starts_with("451"), "{refused}");
    fs::create_dir(server.path("data")).unwrap();
    let refused = server.send_message("bo@there.example", "ana@here.example", "three");
    assert!(refused.starts_with("451"), "{refused}");
    server.kill();
}
