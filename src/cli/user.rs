//! `postrider user`.

use std::fs::{self, DirBuilder};
use std::io::{self, BufRead as _, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use super::table::{Password, User};
use super::terminal::{Failed, say};
use crate::auth;
use crate::daemon::directory_of;
use crate::mail::Mailbox;
use crate::sys::{SystemDisk, SystemRandom, read_text};

/// Longest password in octets; a limit so that a wrong file is noticed.
const PASSWORD_OCTETS_MAX: u64 = 1000;

/// Does what the subcommand says.
pub(super) fn run(config_dir: &Path, command: &User) -> Result<String, Failed> {
    match command {
        User::Add { address, password } => add(config_dir, address, password).map_err(|e| vec![e]),
    }
}

fn add(config_dir: &Path, address: &str, password: &Password) -> Result<String, String> {
    let mailbox = Mailbox::parse(address)
        .map_err(|problem| format!("{address:?} is not an address: {problem}; write ana@example.org"))?;
    if mailbox.domain.as_address().is_some() {
        return Err(format!("{} is not a domain; users live in domains", mailbox.domain));
    }
    let known = directory_of(config_dir, &mailbox.domain)?;
    let password = read_password(password, &mailbox)?;
    let is_new = known.is_none();
    let dir = match known {
        Some(dir) => dir,
        None => make_directory(config_dir, &mailbox)?,
    };
    auth::add(&SystemDisk, &SystemRandom, &dir, &mailbox.local_part, password.as_deref())
        .map_err(|e| e.to_string())?;
    if is_new {
        say([format!("{} is now a local domain: {} was made", mailbox.domain, dir.display())]);
    }
    Ok(format!("{mailbox} is in {}\n", dir.join("users").display()))
}

/// A directory for a new domain, which belongs to whom `domains/` belongs.
fn make_directory(config_dir: &Path, mailbox: &Mailbox) -> Result<PathBuf, String> {
    let above = config_dir.join("domains");
    // U-labels: this is a name that people look for.
    let dir = above.join(mailbox.domain.to_unicode());
    let make = || {
        match DirBuilder::new().mode(0o750).create(&dir) {
            // Another command was here first.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            other => other?,
        }
        let owner = fs::metadata(&above)?;
        match chown(&dir, Some(owner.uid()), Some(owner.gid())) {
            // Only root may give directories away; what is ours stays ours.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other,
        }
    };
    make().map(|()| dir.clone()).map_err(|e| format!("{}: {e}", dir.display()))
}

/// The password, from where the options say; none for a user who only receives.
fn read_password(from: &Password, mailbox: &Mailbox) -> Result<Option<Vec<u8>>, String> {
    let password = if from.receive_only {
        return Ok(None);
    } else if let Some(file) = &from.password_file {
        let text = read_text(file, PASSWORD_OCTETS_MAX).map_err(|e| format!("{}: {e}", file.display()))?;
        text.lines().next().unwrap_or_default().to_owned()
    } else if from.password_stdin {
        let mut line = String::new();
        let read = io::stdin().lock().take(PASSWORD_OCTETS_MAX).read_line(&mut line);
        read.map_err(|e| format!("standard input: {e}"))?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    } else {
        ask_twice(mailbox)?
    };
    if password.is_empty() {
        return Err("the password is empty; use --receive-only for a user who never logs in".to_owned());
    }
    Ok(Some(password.into_bytes()))
}

fn ask_twice(mailbox: &Mailbox) -> Result<String, String> {
    let ask = |prompt: String| {
        rpassword::prompt_password(prompt).map_err(|e| {
            format!(
                "there is no terminal to ask for a password ({e}); use --password-file or --password-stdin"
            )
        })
    };
    let first = ask(format!("Password for {mailbox}: "))?;
    let second = ask("Again: ".to_owned())?;
    if first == second { Ok(first) } else { Err("the passwords differ; nothing was changed".to_owned()) }
}
