//! `postrider user`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, Read as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::arguments::{PasswordSource, UserCommand};
use super::terminal::{ErrorLines, print_to_stderr};
use crate::alias::LocalPartRules;
use crate::auth::{self, Accounts, PasswordCheck, UserChange, Users};
use crate::daemon::{LocalDomains, local_domain_directory};
use crate::mail::{Domain, Mailbox};
use crate::sys::{OpenDir, SystemRandom, read_text};

/// Longest password in octets; a limit so that a wrong file is noticed.
const PASSWORD_OCTETS_MAX: u64 = 1000;

/// Does what the subcommand says.
pub(super) fn run(config_dir: &Path, command: &UserCommand) -> Result<String, ErrorLines> {
    let done = match command {
        UserCommand::Add { address, password, receive_only } => {
            add(config_dir, &parse_address(address)?, (!receive_only).then_some(password))
        }
        UserCommand::Passwd { address, password, receive_only } => {
            passwd(config_dir, &parse_address(address)?, (!receive_only).then_some(password))
        }
        UserCommand::Remove { address } => remove(config_dir, &parse_address(address)?),
        UserCommand::List { domain } => return list(config_dir, domain.as_deref()),
        UserCommand::Check { address, password } => {
            check_password(config_dir, &parse_address(address)?, password)
        }
    };
    done.map_err(|problem| vec![problem])
}

fn parse_address(address: &str) -> Result<Mailbox, ErrorLines> {
    let mailbox = Mailbox::parse(address).map_err(|problem| {
        vec![format!("{address:?} is not an address: {problem}; write ana@example.org")]
    })?;
    match mailbox.domain.as_address() {
        Some(_) => Err(vec![format!("{} is not a domain; users live in domains", mailbox.domain)]),
        None => Ok(mailbox),
    }
}

fn add(config_dir: &Path, mailbox: &Mailbox, from: Option<&PasswordSource>) -> Result<String, String> {
    let known = local_domain_directory(config_dir, &mailbox.domain)?;
    let password = from.map(|from| new_password(from, mailbox)).transpose()?;
    let is_new = known.is_none();
    let dir = match known {
        Some(dir) => dir,
        None => create_domain_directory(config_dir, mailbox)?,
    };
    edit(&dir, mailbox, UserChange::Add(password.as_deref()))?;
    if is_new {
        print_to_stderr([format!("{} is now a local domain: {} was made", mailbox.domain, dir.display())]);
    }
    Ok(format!("{mailbox} is in {}\n", dir.join("users").display()))
}

fn passwd(config_dir: &Path, mailbox: &Mailbox, from: Option<&PasswordSource>) -> Result<String, String> {
    let (dir, users) = read_users(config_dir, &mailbox.domain)?;
    if !users.contains(&mailbox.local_part) {
        return Err(unknown_user_error(mailbox, &dir));
    }
    let password = from.map(|from| new_password(from, mailbox)).transpose()?;
    edit(&dir, mailbox, UserChange::SetPassword(password.as_deref()))?;
    Ok(match password {
        Some(_) => format!("{mailbox} has another password\n"),
        None => format!("{mailbox} only receives\n"),
    })
}

fn remove(config_dir: &Path, mailbox: &Mailbox) -> Result<String, String> {
    let (dir, _) = read_users(config_dir, &mailbox.domain)?;
    edit(&dir, mailbox, UserChange::Remove)?;
    Ok(format!("{mailbox} is no longer in {}; the mail that is there stays\n", dir.join("users").display()))
}

fn edit(dir: &Path, mailbox: &Mailbox, change: UserChange<'_>) -> Result<(), String> {
    auth::edit_user(&SystemRandom, dir, &mailbox.local_part, change).map_err(|e| e.to_string())
}

fn list(config_dir: &Path, domain: Option<&str>) -> Result<String, ErrorLines> {
    let domains = match domain {
        Some(name) => {
            let domain = Domain::parse(name).map_err(|e| vec![format!("{name:?} is not a domain: {e}")])?;
            let (_, users) = read_users(config_dir, &domain).map_err(|e| vec![e])?;
            vec![(domain, Arc::new(users))]
        }
        None => {
            let mut all: Vec<_> =
                LocalDomains::load(config_dir, &LocalPartRules::default())?.users().into_iter().collect();
            all.sort_by(|(one, _), (other, _)| one.cmp(other));
            all
        }
    };
    let mut text = String::new();
    for (domain, users) in &domains {
        for (name, credentials) in users.list() {
            let ability = match credentials.as_slice() {
                [] => "receives only".to_owned(),
                some => format!("logs in with {}", some.join(", ")),
            };
            text.push_str(&format!("{name}@{domain}  {ability}\n"));
        }
    }
    Ok(text)
}

fn check_password(config_dir: &Path, mailbox: &Mailbox, from: &PasswordSource) -> Result<String, String> {
    let (dir, users) = read_users(config_dir, &mailbox.domain)?;
    if !users.contains(&mailbox.local_part) {
        return Err(unknown_user_error(mailbox, &dir));
    }
    let password = match password_from_options(from)? {
        Some(password) => password,
        None => prompt_for_password(&format!("Password for {mailbox}: "))?,
    };
    let scram_fits = users.matches_scram_keys(&mailbox.local_part, &password);
    match try_login(mailbox, users, &password) {
        PasswordCheck::Accepted(_) if scram_fits == Some(false) => Err(format!(
            "the password of {mailbox} is right, but its SCRAM keys are of another one; set it again with: \
             postrider user passwd {mailbox}"
        )),
        PasswordCheck::Accepted(_) => Ok(format!("the password of {mailbox} is right\n")),
        PasswordCheck::Rejected => Err(format!("that is not the password of {mailbox}, or it only receives")),
        PasswordCheck::Unavailable(why) => {
            Err(format!("the password of {mailbox} could not be checked: {why}"))
        }
    }
}

/// The users file as the server finds it.
fn try_login(mailbox: &Mailbox, users: Users, password: &str) -> PasswordCheck {
    let accounts = Accounts::new(HashMap::from([(mailbox.domain.clone(), Arc::new(users))]));
    accounts.check_password(&mailbox.to_string(), password.as_bytes(), Ipv4Addr::LOCALHOST.into())
}

fn unknown_user_error(mailbox: &Mailbox, dir: &Path) -> String {
    format!("{mailbox} is not in {}; see who is with: postrider user list", dir.join("users").display())
}

/// The directory of a local domain, and its users.
fn read_users(config_dir: &Path, domain: &Domain) -> Result<(PathBuf, Users), String> {
    let dir = local_domain_directory(config_dir, domain)?.ok_or_else(|| {
        format!(
            "{domain} is not a local domain: it has no directory in {}",
            config_dir.join("domains").display()
        )
    })?;
    let file = dir.join("users");
    let text = match read_text(&file, Users::OCTETS_MAX) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.map_err(|e| format!("{}: {e}", file.display()))?,
    };
    let users = Users::parse(&text, &file)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    Ok((dir, users))
}

/// Makes a directory for a new domain, with the owner of `domains/`.
fn create_domain_directory(config_dir: &Path, mailbox: &Mailbox) -> Result<PathBuf, String> {
    let above = config_dir.join("domains");
    // U-labels, because people look for this name.
    let name = mailbox.domain.to_unicode();
    // If the directory exists now, another command was first.
    OpenDir::open(&above)
        .and_then(|above| above.create_dir(OsStr::new(&name), 0o750))
        .map_err(|e| format!("{}: {e}", above.display()))?;
    Ok(above.join(name))
}

/// The new password, from the source that the options name.
fn new_password(from: &PasswordSource, mailbox: &Mailbox) -> Result<String, String> {
    let password = match password_from_options(from)? {
        Some(password) => password,
        None => {
            let first = prompt_for_password(&format!("Password for {mailbox}: "))?;
            if prompt_for_password("Again: ")? != first {
                return Err("the passwords differ; nothing was changed".to_owned());
            }
            first
        }
    };
    if password.is_empty() {
        return Err("the password is empty; use --receive-only for a user who never logs in".to_owned());
    }
    Ok(password)
}

/// The password that the options give; `None` if it is to be asked for.
fn password_from_options(from: &PasswordSource) -> Result<Option<String>, String> {
    if let Some(file) = &from.password_file {
        return first_line(file).map(Some).map_err(|e| format!("{}: {e}", file.display()));
    }
    if from.password_stdin {
        let mut line = String::new();
        let read = io::stdin().lock().take(PASSWORD_OCTETS_MAX).read_line(&mut line);
        read.map_err(|e| format!("standard input: {e}"))?;
        return Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()));
    }
    Ok(None)
}

/// Not `read_text`: the file may be a pipe, as in `--password-file <(pass show mail)`.
fn first_line(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(PASSWORD_OCTETS_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > PASSWORD_OCTETS_MAX {
        let text = format!("larger than {PASSWORD_OCTETS_MAX} octets");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn prompt_for_password(prompt: &str) -> Result<String, String> {
    rpassword::prompt_password(prompt).map_err(|e| {
        format!("there is no terminal to ask for a password ({e}); use --password-file or --password-stdin")
    })
}
