//! `postrider torture`.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use nix::unistd::Uid;

use super::terminal::{ErrorLines, print_to_stderr};
use crate::sys::{OpenDir, Random as _, SystemRandom};
use crate::torture::{
    BacklogTest, BacklogTestResult, CrashTestResult, DiskBenchmark, KillTest, KillTestResult, SyncTrust,
    TortureError, TortureSetup, measure_disk, run_crash_test,
};

/// Tests the program on a simulated disk, then the program and the real disk together.
pub(super) fn run(dir: &Path, rounds: usize, waiting: usize) -> Result<String, ErrorLines> {
    // Before anything that takes long.
    let dir = open_private_parent(dir)?;
    print_to_stderr(["the program on a simulated disk: it stops after every single operation"]);
    let crash_results = run_crash_test().map_err(|lost| vec![format!("a fault of this program: {lost}")])?;
    let (kill_results, backlog_results, disk_results) = with_private_directory(&dir, |path| {
        let cannot = |e: io::Error| TortureError::RemoveFolder(format!("{}: {e}", path.display()));
        let program = std::env::current_exe().map_err(cannot)?;
        print_to_stderr([format!(
            "this program on this disk: killed {rounds} times under load, in {}",
            path.display()
        )]);
        let setup = TortureSetup { program: &program, dir: &path.join("kill-test") };
        let kill_results = KillTest { setup, rounds }.run()?;

        print_to_stderr([format!("the same with a long queue: killed while {waiting} messages wait")]);
        let setup = TortureSetup { program: &program, dir: &path.join("backlog") };
        let backlog_results = BacklogTest { setup, waiting_messages: waiting }.run()?;

        print_to_stderr(["the disk: syncs and messages per second"]);
        fs::create_dir(path.join("disk-benchmark")).map_err(cannot)?;
        Ok((kill_results, backlog_results, measure_disk(&path.join("disk-benchmark")).map_err(cannot)?))
    })?;
    Ok(format_results(&crash_results, &kill_results, &backlog_results, &disk_results))
}

/// The directory for the new folder. As root this writes files and runs programs there, so no other user may
/// be able to replace or add files in it.
fn open_private_parent(dir: &Path) -> Result<OpenDir, ErrorLines> {
    let open = OpenDir::open(dir).map_err(|e| vec![format!("{}: {e}", dir.display())])?;
    match open.exposure() {
        Some(exposure) if Uid::effective().is_root() => Err(vec![format!(
            "root does not run this in {}, because {exposure}; name a directory on the same file system that \
             belongs to root and that no other user may write, or run it as the owner of {}",
            dir.display(),
            dir.display()
        )]),
        _ => Ok(open),
    }
}

/// Calls `act` with a new directory, whose name cannot be guessed and which only the user of this process may
/// enter. It is removed afterwards, unless it shows how a test failed.
fn with_private_directory<T>(
    dir: &OpenDir,
    act: impl FnOnce(&Path) -> Result<T, TortureError>,
) -> Result<T, ErrorLines> {
    let name = format!("postrider-torture-{:016x}", SystemRandom.bits());
    let path = dir.path().join(&name);
    let cannot = |e: io::Error| vec![format!("{}: {e}", path.display())];
    dir.create_private_dir(&name).map_err(cannot)?;
    let done = act(&path);
    if let Err(TortureError::KeepFolder(what)) = done {
        return Err(vec![format!(
            "{what}; its files are in {}: examine them, then remove them",
            path.display()
        )]);
    }
    let removed = fs::remove_dir_all(&path).map_err(cannot);
    let done = done.map_err(|e| vec![e.to_string()])?;
    removed.map(|()| done)
}

fn format_results(
    crash_results: &CrashTestResult,
    kill_results: &KillTestResult,
    backlog_results: &BacklogTestResult,
    disk_results: &DiskBenchmark,
) -> String {
    let mut text = format!(
        "stopped after each of {} disk operations, in every way: {} crashes, nothing lost\n\
         killed {} times under load: {} messages accepted, all of them delivered, {} more than once\n\
         with {} messages waiting, started again: greets after {:.2} s, tries each destination after {:.2} s, \
         delivers a new message after {:.2} s, {} MiB of memory at most; all of them delivered, once, in {:.1} s\n\
         syncs: {} a second, one after another; {} us each\n",
        crash_results.operations,
        crash_results.crashes,
        kill_results.rounds,
        kill_results.accepted,
        kill_results.delivered_twice,
        backlog_results.waiting_messages,
        backlog_results.greeting_after.as_secs_f64(),
        backlog_results.all_destinations_tried_after.as_secs_f64(),
        backlog_results.new_message_delivered_after.as_secs_f64(),
        backlog_results.memory_peak_octets.div_ceil(1024 * 1024),
        backlog_results.queue_emptied_after.as_secs_f64(),
        disk_results.syncs_per_second,
        disk_results.sync_median.as_micros()
    );
    for (clients, accepted) in &disk_results.messages_per_second {
        let _ = writeln!(text, "messages of 4 KiB, {clients:2} at a time: {accepted} accepted a second");
    }
    text.push_str(match disk_results.trust {
        SyncTrust::InMemory => {
            "trust: none: this file system is in memory, and a power cut takes everything\n"
        }
        SyncTrust::TooFast => {
            "trust: none: syncs return before the data can have been written; the disk, or the \
             disk of the virtual machine, confirms a sync too early\n"
        }
        SyncTrust::Cached => {
            "trust: some: syncs are as quick as with a battery or capacitors behind the disk's memory; \
             without those, the disk confirms a sync too early\n"
        }
        SyncTrust::Plausible => {
            "trust: syncs take as long as writing takes; only a test with a real power cut proves more\n"
        }
    });
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn count(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn the_directory_is_private_has_its_own_name_and_is_removed_unless_a_test_failed() {
        let base = tempfile::tempdir().unwrap();
        let dir = open_private_parent(base.path()).unwrap();
        let fill = |path: &Path| {
            let facts = fs::symlink_metadata(path).unwrap();
            assert_eq!((facts.mode() & 0o7777, facts.uid()), (0o700, Uid::effective().as_raw()));
            fs::create_dir(path.join("spool")).unwrap();
            path.to_owned()
        };
        let one = with_private_directory(&dir, |path| Ok(fill(path))).unwrap();
        let other = with_private_directory(&dir, |path| Ok(fill(path))).unwrap();
        assert_ne!(one, other);
        assert_eq!(count(base.path()), 0);

        let slow = with_private_directory(&dir, |path| {
            fill(path);
            Err::<(), _>(TortureError::RemoveFolder("it was slow".to_owned()))
        });
        assert_eq!((slow.unwrap_err(), count(base.path())), (vec!["it was slow".to_owned()], 0));

        let lost = with_private_directory(&dir, |path| {
            fill(path);
            Err::<(), _>(TortureError::KeepFolder("1 message is lost".to_owned()))
        });
        let kept = fs::read_dir(base.path()).unwrap().next().unwrap().unwrap().path();
        let said = lost.unwrap_err().concat();
        assert!(said.starts_with("1 message is lost; its files are in "), "{said}");
        assert!(said.contains(kept.file_name().unwrap().to_str().unwrap()), "{said}");
        assert!(kept.join("spool").is_dir());
    }
}
