//! `postrider check`.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use super::terminal::{ErrorLines, print_to_stderr};
use crate::config::Config;
use crate::daemon::{
    PollSettings, ReloadableFiles, check_hooks, expiry_warnings, local_part_rules, read_config,
    unavailable_services, undefined_logins, undeliverable_postmasters,
};
use crate::sys::{Clock as _, ServiceUser, StopFlag, SystemClock, is_root};

/// The user in the server's systemd unit.
const DEFAULT_USER: &str = "postrider";

/// Reads everything that the server would, with the rights of its user, and prints every problem.
pub(super) fn run(config_dir: &Path, user: Option<&str>) -> Result<String, ErrorLines> {
    let judge = switch_to_server_user(config_dir, user)?;
    let mut wrong = Vec::new();
    let mut keep = |complaints: ErrorLines| wrong.extend(complaints);
    let config = read_config(config_dir, PollSettings::IMMEDIATE).map_err(&mut keep).ok();
    let local_part_rules = config.as_ref().map(local_part_rules).unwrap_or_default();
    // The name only selects the default certificate, and nothing is served here.
    let hostname =
        config.as_ref().map_or_else(|| IpAddr::from([127, 0, 0, 1]).into(), |c| c.hostname.clone());
    let files = ReloadableFiles::read(config_dir, &hostname, &local_part_rules, PollSettings::IMMEDIATE)
        .map_err(|changing| keep(vec![changing]))
        .ok();
    if let Some(files) = &files {
        let mistakes = files.problems();
        if let (Some(config), []) = (&config, mistakes.as_slice()) {
            keep(undefined_logins(config, &files.domains, &files.credentials.logins()));
        }
        keep(mistakes);
        keep(files.certificate_problems());
    }
    check_hooks(config_dir).unwrap_or_else(&mut keep);
    let (Some(config), Some(files), []) = (config, files, wrong.as_slice()) else {
        let count = wrong.len();
        let mistakes = if count == 1 { "mistake" } else { "mistakes" };
        let judge = judge.map_or_else(String::new, |user| format!(", for the user {user}"));
        wrong.push(format!("{count} {mistakes} in {}{judge}", config_dir.display()));
        return Err(wrong);
    };
    print_warnings(config_dir, &config, &files)?;

    let (users, aliases) = (files.domains.users(), files.domains.aliases());
    let mut text = format!("# {} with every default\n", config_dir.join("postrider.toml").display());
    let _ = match judge {
        Some(user) => writeln!(text, "# checked with the rights of the user {user}"),
        None if is_root() => {
            writeln!(text, "# checked with root's rights; name the user that the server runs as with --user")
        }
        None => Ok(()),
    };
    for name in files.certificates.certificates().dns_names() {
        let _ = writeln!(text, "# certificate for {name}");
    }
    for domain in files.domains.names() {
        let users = users.get(&domain).map_or(0, |users| users.count());
        let aliases = aliases.get(&domain).map_or(0, |aliases| aliases.count());
        let _ = writeln!(text, "# local domain {domain} (users: {users}, aliases: {aliases})");
    }
    text.push_str(&config.effective_toml());
    Ok(text)
}

fn print_warnings(config_dir: &Path, config: &Config, files: &ReloadableFiles) -> Result<(), ErrorLines> {
    // The check ends with this process, so no flag stops it earlier.
    let stop = Arc::new(StopFlag::new().map_err(|e| vec![format!("cannot make a pipe: {e}")])?);
    print_to_stderr(
        config
            .warnings
            .iter()
            .chain(&unavailable_services(config, &stop))
            .map(|warning| format!("warning: {warning}")),
    );
    let certs = files.certificates.certificates();
    if certs.is_empty() {
        print_to_stderr([format!(
            "warning: {}: there is no certificate; without one there is no TLS, and nobody can log in",
            config_dir.join("certs").display()
        )]);
    }
    print_to_stderr(
        expiry_warnings(&certs, SystemClock.wall_time()).map(|ending| format!("warning: {ending}")),
    );
    if files.domains.names().is_empty() {
        let dir = config_dir.join("domains");
        print_to_stderr([format!(
            "warning: {}: there is no local domain; `postrider user add` makes one",
            dir.display()
        )]);
    }
    let unread = undeliverable_postmasters(config_dir, config, &files.domains, &stop);
    print_to_stderr(unread.iter().map(|warning| format!("warning: {warning}")));
    Ok(())
}

/// Takes on the rights of the server's user, because root may read everything: the user given, or the owner
/// of the data directory, or the account `postrider`. Returns that user if it is another than the one who
/// runs the command. Without any of these there is no server yet whose rights could be checked.
fn switch_to_server_user(config_dir: &Path, named: Option<&str>) -> Result<Option<ServiceUser>, ErrorLines> {
    let cannot = |what: &str, e: &dyn std::fmt::Display| vec![format!("{what}: {e}")];
    if !is_root() {
        return match named {
            Some(name) if ServiceUser::of_process().to_string() != name => Err(vec![format!(
                "--user {name}: only root may check with the rights of another user; run it with sudo"
            )]),
            Some(_) | None => Ok(None),
        };
    }
    let user = match named {
        Some(name) => Some(
            ServiceUser::from_name(name)
                .map_err(|e| cannot(&format!("--user {name}"), &e))?
                .ok_or_else(|| vec![format!("--user {name}: there is no such user on this host")])?,
        ),
        None => {
            // The check itself reports the problems of the file.
            let data_dir =
                read_config(config_dir, PollSettings::IMMEDIATE).ok().map(|config| config.data_dir);
            let owner = match &data_dir {
                Some(dir) => {
                    ServiceUser::owner_of(dir).map_err(|e| cannot(&dir.display().to_string(), &e))?
                }
                None => None,
            };
            match owner {
                Some(owner) => Some(owner),
                None => ServiceUser::from_name(DEFAULT_USER).map_err(|e| cannot(DEFAULT_USER, &e))?,
            }
        }
    };
    match user {
        Some(user) if user.is_root() => Ok(None),
        Some(user) => {
            user.become_user().map_err(|e| cannot(&format!("cannot become the user {user}"), &e))?;
            Ok(Some(user))
        }
        None => Ok(None),
    }
}
