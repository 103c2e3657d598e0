//! The subcommands of the real program: output and exit status.
//!
//! Also the documents that are made from the program's tables, and `make install`.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use postrider::auth::{Accounts, PasswordCheck, Users};
use postrider::mail::{Domain, Mailbox};

/// The address prefix of logins.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Output and exit status of a command.
struct ProgramOutput {
    status: i32,
    out: String,
    err: String,
}

impl From<Output> for ProgramOutput {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A configuration directory of its own.
struct ConfigDir(tempfile::TempDir);

impl ConfigDir {
    /// With this `postrider.toml`, and no domains.
    fn new(toml: &str) -> Self {
        let config = Self(tempfile::tempdir().unwrap());
        config.write("postrider.toml", toml);
        fs::create_dir(config.path("domains")).unwrap();
        config
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn write(&self, below: &str, text: &str) {
        fs::create_dir_all(self.path(below).parent().unwrap()).unwrap();
        fs::write(self.path(below), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        command.arg("--config").arg(self.0.path()).args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> ProgramOutput {
        self.command(arguments).output().unwrap().into()
    }

    fn add(&self, address: &str, password: &str) -> ProgramOutput {
        self.write("password", password);
        let file = self.path("password");
        self.run(&["user", "add", address, "--password-file", file.to_str().unwrap()])
    }

    fn users(&self, domain: &str) -> Users {
        let file = self.path("domains").join(domain).join("users");
        Users::parse(&fs::read_to_string(&file).unwrap(), &file).unwrap()
    }
}

const GOOD: &str = "hostname = \"mail.here.example\"\n";

#[test]
fn check_names_file_line_key_and_remedy_of_every_mistake() {
    let config =
        ConfigDir::new("hostname = \"mail\"\n\n[limits]\nmessage_size_max = \"1 MiB\"\nreceived-max = 5\n");
    config.write("domains/here.example/users", "# ours\nana\n");
    config.write("domains/here.example/aliases", "postmaster: ana eve\n");
    config.write("certs/here/fullchain.pem", "not a certificate\n");
    let said = config.run(&["check"]);
    assert_eq!((said.status, said.out.as_str()), (1, ""));
    for line in [
        "postrider.toml:1: hostname: \"mail\" is not fully qualified (it has no dot); write the whole name",
        "postrider.toml:4: limits.message_size_max: unknown key; did you mean message-size-max?",
        "postrider.toml:5: limits.received-max: 5 is out of range; write a number from 10 to 1000",
        "domains/here.example/users:2: there is no colon behind a name; write `name: credential`",
        "domains/here.example/aliases:1: \"ana eve\" is not an address",
        "certs/here/fullchain.pem: ",
        "6 mistakes in ",
    ] {
        assert!(said.err.contains(line), "{line:?} is missing in:\n{}", said.err);
    }
}

#[test]
fn check_prints_the_configuration_in_force() {
    let config = ConfigDir::new(&format!("{GOOD}[relay]\nnetworks = [\"192.0.2.0/24\"]\n"));
    config.write("domains/here.example/aliases", "postmaster: ana\n");
    let said = config.run(&["check"]);
    assert_eq!(said.status, 0, "{}", said.err);
    for line in [
        "# local domain here.example (users: 0, aliases: 1)",
        "hostname = \"mail.here.example\"",
        "message-size-max = \"50 MiB\"",
        "networks = [\"192.0.2.0/24\"]",
    ] {
        assert!(said.out.lines().any(|l| l == line), "{line:?} is missing in:\n{}", said.out);
    }
    for warning in ["may send to anybody without a password", "there is no certificate"] {
        assert!(said.err.contains(warning), "{warning:?} is missing in:\n{}", said.err);
    }
    let again = ConfigDir::new(&said.out);
    assert_eq!(again.run(&["check"]).status, 0, "what it prints is a configuration");
}

#[test]
fn the_host_name_is_looked_up_if_it_is_not_configured() {
    let config = ConfigDir::new("");
    let said = config.run(&["check"]);
    let host = Command::new("hostname").arg("--fqdn").output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap().trim().to_lowercase();
    let is_placeholder = host.starts_with("localhost.") || host.ends_with(".localdomain");
    if host.contains('.') && !is_placeholder {
        let line = format!("hostname = \"{host}\"");
        assert!(said.out.lines().any(|l| l == line), "{line:?} is missing in:\n{}{}", said.out, said.err);
    } else {
        let says = "postrider.toml: hostname: is not set, and the host name of the system, ";
        assert!(said.status == 1 && said.err.contains(says), "{}{}", said.out, said.err);
    }
}

#[test]
fn check_warns_of_a_domain_without_postmaster() {
    let config = ConfigDir::new(GOOD);
    config.write("domains/here.example/users", "ana: receive-only\n");
    let warning =
        "mail for postmaster@here.example must always be taken, and is put off for now: nobody reads";
    let said = config.run(&["check"]);
    assert!(said.status == 0 && said.err.contains(warning), "{}", said.err);
    for (file, line) in
        [("users", "Postmaster: receive-only\n"), ("aliases", "postmaster: ana\n"), ("aliases", "*: ana\n")]
    {
        config.write(&format!("domains/here.example/{file}"), line);
        let said = config.run(&["check"]);
        assert!(said.status == 0 && !said.err.contains(warning), "{line}: {}", said.err);
        config.write(&format!("domains/here.example/{file}"), "");
    }
}

#[test]
fn a_directory_without_a_configuration_is_an_error_with_a_remedy() {
    let empty = tempfile::tempdir().unwrap();
    for subcommand in [&["check"][..], &["serve"], &["queue", "list"]] {
        let said: ProgramOutput = Command::new(env!("CARGO_BIN_EXE_postrider"))
            .arg("--config")
            .arg(empty.path())
            .args(subcommand)
            .output()
            .unwrap()
            .into();
        assert_eq!(said.status, 1, "{subcommand:?}");
        assert!(said.err.contains("postrider.toml") && said.err.contains("--config DIR"), "{}", said.err);
    }
}

#[test]
fn a_user_that_was_added_can_log_in() {
    let config = ConfigDir::new(GOOD);
    let said = config.add("Ana@XN--BCHER-KVA.example", "correct horse\nsecond line\n");
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.err.contains("bücher.example is now a local domain"), "{}", said.err);
    let said = config.add("bo@bücher.example", "x");
    assert_eq!((said.status, said.err.as_str()), (0, ""), "the domain is known by now");

    let accounts = Accounts::new(
        [(Domain::parse("bücher.example").unwrap(), Arc::new(config.users("bücher.example")))].into(),
    );
    let ana = Mailbox::parse("ana@bücher.example").unwrap();
    assert_eq!(accounts.exists(&ana), Ok(true));
    assert_eq!(
        accounts.check_password("ana@bücher.example", b"correct horse", HERE),
        PasswordCheck::Accepted(ana)
    );
    assert_eq!(accounts.check_password("ana@bücher.example", b"x", HERE), PasswordCheck::Rejected);

    let file = config.path("domains/bücher.example/users");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("correct horse"), "{text}");
}

#[test]
fn a_user_cannot_be_added_twice_or_without_a_password() {
    let config = ConfigDir::new(GOOD);
    assert_eq!(config.add("ana@here.example", "x").status, 0);
    let before = fs::read(config.path("domains/here.example/users")).unwrap();
    for (said, says) in [
        (config.add("ANA@here.example", "y"), "already"),
        (config.add("bo@here.example", "\n"), "--receive-only"),
        (config.add("bo", "x"), "ana@example.org"),
        (config.add("bo@[192.0.2.1]", "x"), "not a domain"),
        (config.run(&["user", "add", "bo@here.example"]), "--password-file"),
    ] {
        assert_eq!(said.status, 1);
        assert!(said.err.contains(says), "{says:?} is missing in: {}", said.err);
    }
    assert_eq!(fs::read(config.path("domains/here.example/users")).unwrap(), before);
    assert_eq!(config.run(&["user", "add", "list@here.example", "--receive-only"]).status, 0);
    assert_eq!(config.users("here.example").count(), 2);
}

#[test]
fn no_user_is_added_through_a_link_that_another_user_can_make() {
    let config = ConfigDir::new(GOOD);
    let elsewhere = tempfile::tempdir().unwrap();
    let secret = elsewhere.path().join("secret");
    fs::write(&secret, "eve: receive-only\n").unwrap();
    fs::create_dir(config.path("domains/here.example")).unwrap();
    let add = || config.run(&["user", "add", "ana@here.example", "--receive-only"]);
    let users = config.path("domains/here.example/users");

    symlink(&secret, &users).unwrap();
    let said = add();
    assert_eq!(said.status, 1);
    assert!(said.err.contains("domains/here.example/users: is a symbolic link"), "{}", said.err);
    assert!(fs::symlink_metadata(&users).unwrap().is_symlink());
    fs::remove_file(&users).unwrap();

    mkfifo(&users, Mode::S_IRWXU).unwrap();
    for command in ["add", "passwd", "remove", "check"] {
        let more = if matches!(command, "add" | "passwd") { &["--receive-only"][..] } else { &[] };
        let said = config.run(&[&["user", command, "ana@here.example"], more].concat());
        assert_eq!(said.status, 1, "{command}: {}", said.out);
        assert!(said.err.contains("domains/here.example/users: is "), "{}", said.err);
    }
    fs::remove_file(&users).unwrap();

    // Others own, or may write, where the domains are.
    fs::rename(config.path("domains/here.example"), elsewhere.path().join("here.example")).unwrap();
    symlink(elsewhere.path().join("here.example"), config.path("domains/here.example")).unwrap();
    fs::set_permissions(config.path("domains"), fs::Permissions::from_mode(0o777)).unwrap();
    let said = add();
    assert_eq!(said.status, 1);
    assert!(said.err.contains("domains/here.example is a symbolic link"), "{}", said.err);
    assert!(said.err.contains("only root may write it"), "{}", said.err);
    fs::set_permissions(config.path("domains"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(add().status, 0, "an operator may link directories");
    assert!(elsewhere.path().join("here.example/users").exists());
}

#[test]
fn a_users_password_can_be_changed_and_checked_and_the_user_removed() {
    let config = ConfigDir::new(GOOD);
    let given = |arguments: &[&str], password: &str| {
        let file = config.path("given");
        fs::write(&file, password).unwrap();
        config.run(&[&["user"], arguments, &["--password-file", file.to_str().unwrap()]].concat())
    };
    assert_eq!(config.add("ana@here.example", "old").status, 0);
    config.write("domains/here.example/users", &format!("# ours\n{}", users_text(&config)));
    let checked = |password: &str| given(&["check", "ana@here.example"], password).status;
    assert_eq!((checked("old"), checked("new")), (0, 1));
    assert_eq!(given(&["passwd", "Ana@here.example"], "new").status, 0);
    assert_eq!((checked("old"), checked("new")), (1, 0));
    assert!(users_text(&config).starts_with("# ours\n"), "comments stay");

    let keys = users_text(&config).split_once("SCRAM").unwrap().1.to_owned();
    given(&["passwd", "ana@here.example"], "other");
    let text = users_text(&config);
    let (before, _) = text.split_once("SCRAM").unwrap();
    config.write("domains/here.example/users", &format!("{before}SCRAM{keys}"));
    let said = given(&["check", "ana@here.example"], "other");
    assert!(said.status == 1 && said.err.contains("SCRAM keys are of another one"), "{}", said.err);

    assert_eq!(config.run(&["user", "passwd", "ana@here.example", "--receive-only"]).status, 0);
    assert_eq!(checked("other"), 1);
    assert_eq!(config.run(&["user", "list"]).out, "ana@here.example  receives only\n");
    assert_eq!(config.run(&["user", "remove", "ana@here.example"]).status, 0);
    assert!(!users_text(&config).contains("receive-only"), "{}", users_text(&config));
    for (arguments, says) in [
        (&["remove", "ana@here.example"][..], "user list"),
        (&["passwd", "ana@here.example", "--receive-only"], "user list"),
        (&["check", "ana@here.example"], "user list"),
        (&["check", "ana@there.example"], "not a local domain"),
        (&["list", "there.example"], "not a local domain"),
        (&["list", "not a domain"], "not a domain"),
    ] {
        let said = config.run(&[&["user"], arguments].concat());
        assert!(said.status == 1 && said.err.contains(says), "{arguments:?}: {}", said.err);
    }
}

fn users_text(config: &ConfigDir) -> String {
    fs::read_to_string(config.path("domains/here.example/users")).unwrap()
}

#[test]
fn users_that_are_added_concurrently_all_exist() {
    let config = ConfigDir::new(GOOD);
    let commands: Vec<_> = (0..8)
        .map(|n| {
            let address = format!("user{n}@here.example");
            let mut command = config.command(&["user", "add", &address, "--password-stdin"]);
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(format!("secret{n}\n").as_bytes()).unwrap();
            child
        })
        .collect();
    for command in commands {
        let said: ProgramOutput = command.wait_with_output().unwrap().into();
        assert_eq!(said.status, 0, "{}", said.err);
    }
    assert_eq!(config.users("here.example").count(), 8);
    let names: Vec<_> = fs::read_dir(config.path("domains/here.example")).unwrap().collect();
    assert_eq!(names.len(), 1, "no draft or lock file stays: {names:?}");
}

#[test]
fn commands_for_the_server_fail_when_no_server_runs() {
    let config = ConfigDir::new(&format!("{GOOD}data-dir = \"data\"\n"));
    for subcommand in [
        &["queue", "list"][..],
        &["queue", "retry", "all"],
        &["peer", "list"],
        &["peer", "show", "there.example"],
        &["peer", "forget", "there.example"],
    ] {
        let said = config.run(subcommand);
        assert_eq!(said.status, 1, "{subcommand:?}");
        assert!(said.err.contains("postrider is not running"), "{subcommand:?}: {}", said.err);
        assert!(said.err.contains("data/control"), "{subcommand:?}: {}", said.err);
    }
}

#[test]
fn wrong_usage_has_a_status_of_its_own() {
    let config = ConfigDir::new(GOOD);
    for arguments in [&["dance"][..], &["user", "add"], &["check", "--fast"], &[]] {
        assert_eq!(config.run(arguments).status, 2, "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["help", "queue"], &["--version"], &["version"]] {
        let said = config.run(arguments);
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{arguments:?}");
        assert!(said.out.contains("postrider"), "{}", said.out);
    }
}

#[test]
fn the_files_of_make_run_are_kept_by_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    // Everything but the server: its ports are for people.
    let program = dir.path().join("program");
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *serve) exit 7;; esac\nexec '{}' \"$@\"\n",
        env!("CARGO_BIN_EXE_postrider")
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let run = dir.path().join("run");
    let start = || -> ProgramOutput {
        let mut sample = Command::new(root().join("scripts/sample"));
        sample.arg(&program).env("RUN", &run).stdin(Stdio::null()).output().unwrap().into()
    };
    let first = start();
    assert_eq!(first.status, 7, "it ends as the server: {}{}", first.out, first.err);
    for says in ["swaks --server 127.0.0.1:2525 --to ana@example.test", "curl ", "/mail/example.test/ana/new"]
    {
        assert!(first.out.contains(says), "{says:?} is missing in:\n{}", first.out);
    }
    let kept = |file: &str| fs::read_to_string(run.join(file)).unwrap();
    let password = kept("ana.password");
    assert!(first.out.contains(&format!("password {}\n", password.trim())), "{}", first.out);
    assert_eq!(fs::metadata(run.join("ana.password")).unwrap().permissions().mode() & 0o777, 0o600);

    let config = Command::new(&program).arg("--config").arg(&run).arg("check").output().unwrap();
    let checked = ProgramOutput::from(config);
    assert_eq!((checked.status, checked.err.as_str()), (0, ""), "not even a warning");
    for line in
        ["# certificate for localhost", "smtp = [\"127.0.0.1:2525\"]", "monitoring = \"127.0.0.1:10990\""]
    {
        assert!(checked.out.contains(line), "{line:?} is missing in:\n{}", checked.out);
    }
    let file = run.join("domains/example.test/users");
    let users = Users::parse(&fs::read_to_string(&file).unwrap(), &file).unwrap();
    let accounts = Accounts::new([(Domain::parse("example.test").unwrap(), Arc::new(users))].into());
    assert!(matches!(
        accounts.check_password("ana@example.test", password.trim().as_bytes(), HERE),
        PasswordCheck::Accepted(_)
    ));

    let files = [
        "ana.password",
        "domains/example.test/users",
        "domains/example.test/aliases",
        "certs/localhost/privkey.pem",
        "postrider.toml",
    ];
    let before = files.map(kept);
    let second = start();
    assert_eq!(second.out, first.out);
    assert_eq!(files.map(kept), before);
}

#[test]
fn install_puts_everything_in_its_place_and_never_replaces_a_configuration() {
    let dest = tempfile::tempdir().unwrap();
    // Any program will do, and a small one is quicker to copy.
    let program = dest.path().join("program");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let into = dest.path().join("into");
    let make = |target: &str| {
        let said: ProgramOutput = Command::new("make")
            .current_dir(root())
            // A `make test` around us has wishes of its own.
            .env_remove("MAKEFLAGS")
            .arg(target)
            .arg("PREFIX=/opt/mail")
            .arg(format!("DESTDIR={}", into.display()))
            .arg(format!("BIN={}", program.display()))
            .output()
            .unwrap()
            .into();
        assert_eq!(said.status, 0, "{}{}", said.out, said.err);
        said.out
    };
    assert!(make("install").contains("postrider check"), "it prints what to do next");
    let installed = files_below(&into);
    assert_eq!(
        installed,
        [
            "etc/postrider/postrider.toml",
            "opt/mail/bin/postrider",
            "opt/mail/lib/systemd/system/postrider-smtp.socket",
            "opt/mail/lib/systemd/system/postrider-submission.socket",
            "opt/mail/lib/systemd/system/postrider-submissions.socket",
            "opt/mail/lib/systemd/system/postrider.service",
            "opt/mail/share/man/man5/postrider.toml.5",
            "opt/mail/share/man/man8/postrider.8",
            "opt/mail/share/postrider/hooks/post-data",
        ]
    );
    let unit = fs::read_to_string(into.join("opt/mail/lib/systemd/system/postrider.service")).unwrap();
    assert!(unit.contains("\nExecStart=/opt/mail/bin/postrider serve\n"), "{unit}");
    assert!(!unit.contains('@') || !unit.contains("@PREFIX@"), "{unit}");

    let config = into.join("etc/postrider/postrider.toml");
    fs::write(&config, "# mine\n").unwrap();
    make("install");
    assert_eq!(fs::read_to_string(&config).unwrap(), "# mine\n");
    for dir in ["", "domains", "certs", "hooks"] {
        let facts = fs::metadata(into.join("etc/postrider").join(dir)).unwrap();
        assert_eq!(facts.permissions().mode() & 0o777, 0o755, "{dir}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let (private, nothing) = (elsewhere.path().join("private"), elsewhere.path().join("nothing"));
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_dir(into.join("etc/postrider/domains")).unwrap();
    symlink(&private, into.join("etc/postrider/domains")).unwrap();
    fs::remove_file(&config).unwrap();
    symlink(&nothing, &config).unwrap();
    make("install");
    assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o700, "links lead elsewhere");
    assert!(!nothing.exists(), "links lead elsewhere");
    fs::remove_file(into.join("etc/postrider/domains")).unwrap();
    fs::remove_file(&config).unwrap();
    fs::write(&config, "# mine\n").unwrap();
    make("uninstall");
    assert_eq!(files_below(&into), ["etc/postrider/postrider.toml"]);
}

/// Sorted, as paths relative to `dir`.
fn files_below(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, top: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, top, found);
            } else {
                found.push(path.strip_prefix(top).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

/// Documents that are made from the program's tables and checked in. `make man` writes them.
mod generated {
    use super::*;

    fn compare(path: &str, made: &str) {
        let file = root().join(path);
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, made).unwrap();
        }
        let there = fs::read_to_string(&file).unwrap_or_default();
        assert!(there == made, "{path} is not what the program's tables say: run `make man`");
    }

    #[test]
    fn the_sample_configuration_is_up_to_date() {
        compare("etc/postrider/postrider.toml", &postrider::config::sample());
    }

    #[test]
    fn the_manual_of_the_configuration_is_up_to_date() {
        let head = include_str!("../../../docs/man/postrider.toml.5.head");
        compare("docs/man/postrider.toml.5", &format!("{head}{}", postrider::config::manual()));
    }

    #[test]
    fn the_manual_of_the_program_is_up_to_date() {
        let mut command = postrider::cli::clap_command().disable_help_subcommand(true);
        command.build();
        let man = clap_mangen::Man::new(command.clone())
            .section("8")
            .title("postrider")
            .date("")
            .source("postrider")
            .manual("System Administration");
        let mut page = Vec::new();
        man.render_title(&mut page).unwrap();
        man.render_name_section(&mut page).unwrap();
        // clap_mangen's own leaves out that --config takes a value.
        page.extend_from_slice(
            b".SH SYNOPSIS\n\\fBpostrider\\fR [\\fB\\-\\-config\\fR \\fIDIR\\fR] \\fICOMMAND\\fR [\\fIARGUMENT\\fR ...]\n",
        );
        man.render_description_section(&mut page).unwrap();
        man.render_options_section(&mut page).unwrap();
        let mut page = String::from_utf8(page).unwrap();
        page.push_str(".SH COMMANDS\n");
        describe(&command, "", &mut page);
        page.push_str(include_str!("../../../docs/man/postrider.8.tail"));
        compare("docs/man/postrider.8", &page);
    }

    /// A paragraph for each subcommand that does something.
    fn describe(command: &clap::Command, above: &str, page: &mut String) {
        for subcommand in command.get_subcommands() {
            let name = format!("{above}{}", subcommand.get_name());
            let about = subcommand.get_long_about().or(subcommand.get_about()).map(ToString::to_string);
            let about = about.unwrap_or_default();
            if subcommand.has_subcommands() {
                describe(subcommand, &format!("{name} "), page);
                continue;
            }
            let arguments: Vec<_> = subcommand.get_positionals().map(argument).collect();
            page.push_str(&format!(".TP\n.B {}\n", roff(&format!("{name}{}", arguments.concat()))));
            page.push_str(&about.split("\n\n").map(roff).collect::<Vec<_>>().join("\n.IP\n"));
            page.push('\n');
            let options = subcommand.get_arguments().filter(|a| !a.is_positional() && !a.is_global_set());
            for option in options.filter(|option| option.get_long().is_some_and(|long| long != "help")) {
                let value = option.get_value_names().filter(|_| option.get_action().takes_values());
                let value = value.map(|names| format!(" {}", names[0])).unwrap_or_default();
                page.push_str(&format!(
                    ".RS\n.TP\n.B {}\n{}\n.RE\n",
                    roff(&format!("--{}{value}", option.get_long().unwrap())),
                    roff(&option.get_help().map(ToString::to_string).unwrap_or_default())
                ));
            }
        }
    }

    /// As in a synopsis: `[X]` may be left out, `X …` may be several.
    fn argument(argument: &clap::Arg) -> String {
        let name = &argument.get_value_names().unwrap()[0];
        let more = if matches!(argument.get_action(), clap::ArgAction::Append) { " …" } else { "" };
        if argument.is_required_set() { format!(" {name}{more}") } else { format!(" [{name}{more}]") }
    }

    fn roff(text: &str) -> String {
        let text = text.replace('\\', "\\e").replace('-', "\\-");
        if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
    }
}
