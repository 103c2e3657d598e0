//! Tests of every key and of the error texts.

use super::*;
use crate::config::{
    Exit75Setting, HelloSetting, HookFailureSetting, HooksConfig, LineEndsSetting, ListenEntry,
    LocalDelivery, SenderSetting, SmtpDelivery, SocketSource, SubmissionConfig,
};
use crate::mail::Via;

fn read(text: &str) -> Result<Config, Vec<String>> {
    let host = HostFacts { hostname: &|| Some("mail.example.org".to_owned()) };
    Config::parse(text, Path::new("/etc/postrider/postrider.toml"), &host)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// The one mistake in the text.
fn mistake(text: &str) -> String {
    let errors = read(text).expect_err("the text has a mistake");
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.into_iter().next().unwrap()
}

#[test]
fn an_empty_file_is_a_configuration() {
    let config = read("").unwrap();
    assert_eq!(config.hostname.as_ascii(), "mail.example.org");
    assert_eq!(config.limits.message_octets_max, 52_428_800);
    assert_eq!(config.limits.received_max, 100);
    assert_eq!(config.queue.lifetime, Duration::from_hours(120));
    assert_eq!(config.delivery.smtp, SmtpDelivery::default());
    assert!(config.warnings.is_empty());
    assert_eq!(config.effective_toml(), Config::defaults(config.hostname.clone()).effective_toml());
}

#[test]
fn every_key_does_what_it_says() {
    let config = read(
        r#"
        hostname = "Bücher.example"
        data-dir = "data"
        grace = "5s"
        [listen]
        smtp = ["127.0.0.1:2525", ":25"]
        submission = "systemd"
        submissions = []
        monitoring = "127.0.0.1:10990"
        [limits]
        message-size-max = "1 MiB"
        recipients-max = 200
        received-max = 30
        sessions-max = 7
        sessions-per-address-max = 3
        errors-max = 4
        command-timeout = "10s"
        message-timeout = "1m30s"
        session-timeout = "2h"
        [queue]
        lifetime = "2d"
        retry = ["1s", "2h"]
        delay-warning = "6h"
        messages-max = 12
        local-threads = 2
        remote-threads = 3
        attempts-per-destination-max = 1
        probe-interval-max = "30m"
        [delivery]
        local = "command"
        [delivery.command]
        program = "bin/agent"
        arguments = ["-f", "%from%", "-d", "%to_user%", "100%", "5%to%"]
        line-ends = "crlf"
        timeout = "1m"
        [delivery.pipe]
        timeout = "2m"
        exit-75 = "transient"
        [delivery.smtp]
        port = 2500
        hello = "hostname"
        via = "relay.example:587 login=relay1"
        messages-per-connection-max = 7
        [dns]
        servers = ["127.0.0.1:5353", "::1"]
        [dovecot]
        auth = "auto"
        client-socket = "auth/client"
        [leniency]
        bare-line-ends = ["192.0.2.7"]
        [relay]
        networks = ["192.0.2.0/24"]
        [submission]
        sender = "any"
        [hooks]
        on-failure = "accept"
        rcpt-timeout = "2s"
        post-data-timeout = "2m"
        "#,
    )
    .unwrap();
    assert_eq!(config.hostname.as_ascii(), "xn--bcher-kva.example");
    assert_eq!(config.data_dir, Path::new("/etc/postrider/data"), "relative paths count from the file");
    assert_eq!(config.grace, Duration::from_secs(5));
    let addresses = ["127.0.0.1:2525", "[::]:25"]
        .map(|a| ListenEntry { source: SocketSource::Address(a.parse().unwrap()), has_proxy_header: false });
    assert_eq!(config.listen.smtp, addresses);
    assert_eq!(
        config.listen.submission,
        [ListenEntry { source: SocketSource::Systemd, has_proxy_header: false }]
    );
    assert!(config.listen.submissions.is_empty());
    assert_eq!(config.listen.monitoring, "127.0.0.1:10990".parse().ok());
    assert_eq!(config.limits.message_octets_max, 1 << 20);
    assert_eq!(config.limits.recipients_max, 200);
    assert_eq!(config.limits.received_max, 30);
    assert_eq!(config.limits.sessions_max, 7);
    assert_eq!(config.limits.sessions_per_address_max, 3);
    assert_eq!(config.limits.errors_max, 4);
    assert_eq!(config.limits.command_timeout, Duration::from_secs(10));
    assert_eq!(config.limits.message_timeout, Duration::from_secs(90));
    assert_eq!(config.limits.session_timeout, Duration::from_hours(2));
    assert_eq!(config.queue.lifetime, Duration::from_hours(48));
    assert_eq!(config.queue.retry, [SECOND, Duration::from_hours(2)]);
    assert_eq!(config.queue.delay_warning, Duration::from_hours(6));
    assert_eq!(config.queue.messages_max, 12);
    assert_eq!(config.queue.local_threads, 2);
    assert_eq!(config.queue.remote_threads, 3);
    assert_eq!(config.queue.attempts_per_destination_max, 1);
    assert_eq!(config.queue.probe_interval_max, Duration::from_mins(30));
    let LocalDelivery::Command(command) = &config.delivery.local else { panic!("not the command") };
    assert_eq!(command.program, "/etc/postrider/bin/agent");
    assert_eq!(command.arguments.len(), 6);
    assert_eq!(command.line_ends, LineEndsSetting::Crlf);
    assert_eq!(command.timeout, Duration::from_mins(1));
    assert_eq!(config.delivery.pipe.timeout, Duration::from_mins(2));
    assert_eq!(config.delivery.pipe.exit_75, Exit75Setting::Transient);
    let via = Some(Via::parse("relay.example:587 login=relay1").unwrap());
    let expected =
        SmtpDelivery { port: 2500, hello: HelloSetting::Hostname, via, messages_per_connection_max: 7 };
    assert_eq!(config.delivery.smtp, expected);
    assert_eq!(config.dns.servers, ["127.0.0.1:5353".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    assert!(config.dovecot.is_enabled && config.dovecot.userdb_socket.is_none());
    assert_eq!(config.dovecot.client_socket.as_deref(), Some(Path::new("/etc/postrider/auth/client")));
    assert_eq!(config.relay.networks, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(config.submission, SubmissionConfig { sender: SenderSetting::Any });
    assert_eq!(
        config.hooks,
        HooksConfig {
            on_failure: HookFailureSetting::Accept,
            rcpt_timeout: Duration::from_secs(2),
            post_data_timeout: Duration::from_mins(2)
        }
    );
    assert_eq!(config.leniency.bare_line_ends, ["192.0.2.7/32".parse().unwrap()]);
    assert_eq!(config.warnings.len(), 1, "a relay is warned about: {:?}", config.warnings);
}

#[test]
fn what_check_prints_is_a_configuration_that_means_the_same() {
    for text in [
        "",
        "[delivery]\nlocal = \"command\"\n[delivery.command]\nprogram = \"procmail\"\narguments = [\"-a\", \"%to%\", \"\\\"\\\\\"]",
        "[delivery]\nlocal = \"lmtp\"\n[delivery.lmtp]\naddress = \"unix:lmtp\"",
        "[dovecot]\nauth = \"auto\"\nuserdb-socket = \"/x/userdb\"",
        "[listen]\nmonitoring = \"[::1]:8080\"\nsmtp = [\"192.0.2.1:25\", \"systemd\"]\n[relay]\nnetworks = [\"::1\"]",
        "[limits]\nmessage-size-max = 65537\ncommand-timeout = \"1h\"\n[dns]\nservers = [\"::1\"]",
    ] {
        let shown = read(text).unwrap().effective_toml();
        assert_eq!(read(&shown).unwrap().effective_toml(), shown, "{text}");
    }
}

#[test]
fn a_mistake_names_file_line_key_and_remedy() {
    assert_eq!(
        mistake("\n[limits]\nmessage_size_max = 5\n"),
        "/etc/postrider/postrider.toml:3: limits.message_size_max: unknown key; did you mean message-size-max?"
    );
    assert_eq!(
        mistake("[limits]\nrecipients-max = 50"),
        "/etc/postrider/postrider.toml:2: limits.recipients-max: 50 is out of range; write a number from 100 to 10000"
    );
    assert_eq!(
        mistake("[delivery.smtp]\nhello = \"sender\""),
        "/etc/postrider/postrider.toml:2: delivery.smtp.hello: \"sender\" is not one of the choices; write \"sender-domain\" or \"hostname\""
    );
}

#[test]
fn every_mistake_is_reported_at_once() {
    let errors = read(
        "hostname = \"mail\"\nhostnam = 1\n[limits]\nsessions-max = \"x\"\n[queue]\nretry = []\nlifetime = 5\n[nothing]\n",
    )
    .unwrap_err();
    let keys = ["hostname", "hostnam", "limits.sessions-max", "queue.retry", "queue.lifetime", "nothing"];
    assert_eq!(errors.len(), keys.len(), "{errors:#?}");
    for key in keys {
        assert!(errors.iter().any(|error| error.contains(&format!(" {key}: "))), "{key} in {errors:#?}");
    }
    assert!(errors[0].contains("toml:1:"), "in the order of the file: {errors:#?}");
}

#[test]
fn what_is_not_toml_is_named_by_its_line() {
    let errors = read("hostname = \"mail.example.org\"\n[listen\nsmtp = 5\n").unwrap_err();
    assert!(errors[0].starts_with("/etc/postrider/postrider.toml:2: not TOML: "), "{errors:?}");
    let errors = read("grace = \"1s\"\ngrace = \"2s\"\n").unwrap_err();
    assert!(errors[0].starts_with("/etc/postrider/postrider.toml:2: not TOML: "), "{errors:?}");
}

#[test]
fn a_host_name_is_qualified_or_an_error_that_says_so() {
    for name in ["mail", "localhost"] {
        let error = mistake(&format!("hostname = \"{name}\""));
        assert!(error.contains("is not fully qualified"), "{error}");
    }
    for name in ["localhost.localdomain", "mail.localhost", "[192.0.2.1]", "a..b", ""] {
        mistake(&format!("hostname = \"{name}\""));
    }
    let hosts: [fn() -> Option<String>; 2] = [|| None, || Some("vm-1".to_owned())];
    for hostname in hosts {
        let host = HostFacts { hostname: &hostname };
        let errors = Config::parse("", Path::new("postrider.toml"), &host).unwrap_err();
        assert_eq!(errors[0].key, "hostname");
        assert!(errors[0].remedy.contains("hostname = "), "{errors:?}");
    }
}

#[test]
fn the_host_is_not_asked_for_a_name_that_the_file_gives() {
    let host = HostFacts { hostname: &|| panic!("asked") };
    assert!(Config::parse("hostname = \"mail.example.org\"", Path::new("x"), &host).is_ok());
}

#[test]
fn what_would_be_dangerous_is_an_error_or_a_warning() {
    assert!(mistake("[relay]\nnetworks = [\"0.0.0.0/0\"]").contains("open relay"));
    assert!(mistake("[leniency]\nbare-line-ends = [\"::/0\"]").contains("smuggle"));
    assert!(
        mistake("[listen]\nsmtp = []\nsubmission = []\nsubmissions = []").contains("has no address at all")
    );
    assert!(mistake("[listen]\nsmtp = [\":25\"]\nsubmission = [\":25\"]").contains("twice"));
    assert!(mistake("[listen]\nsmtp = [\"\"]").contains("not an address"));
    assert!(mistake("[delivery.maildir]\npath = \"/var/mail/all\"").contains("%user%"));
    assert!(mistake("[delivery.maildir]\npath = \"/var/mail/%user%/%to%\"").contains("%to%"));
    assert!(mistake("[delivery.command]\narguments = [\"%sender%\"]").contains("%sender%"));
    assert!(mistake("[delivery]\nlocal = \"command\"").contains("delivery.command.program"));
    assert!(mistake("[delivery]\nlocal = \"lmtp\"").contains("delivery.lmtp.address"));
    let lmtp =
        |address: &str| format!("[delivery]\nlocal = \"lmtp\"\n[delivery.lmtp]\naddress = {address:?}");
    assert!(mistake(&lmtp("[::1]:25")).contains("port 25"));
    assert!(mistake(&lmtp("/run/dovecot/lmtp")).contains("unix:/run/dovecot/lmtp"));
    let warned = read("[listen]\nmonitoring = \":1099\"").unwrap().warnings;
    assert!(warned.len() == 1 && warned[0].contains("listen.monitoring"), "{warned:?}");
}
