//! `postrider torture`.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use nix::unistd::Uid;

use super::terminal::{Failed, say};
use crate::sys::{OpenDir, Random as _, SystemRandom};
use crate::torture::{
    Backlog, Blows, Recovery, Stops, Tally, Trial, TrialError, Trust, Worth, measure, stop_everywhere,
};

/// Tries the program on a simulated disk, then the program and the disk together.
pub(super) fn run(dir: &Path, rounds: usize, waiting: usize) -> Result<String, Failed> {
    // Before anything that takes long.
    let dir = opened(dir)?;
    say(["the program on a simulated disk: it stops after every single operation"]);
    let stops = stop_everywhere().map_err(|lost| vec![format!("a fault of this program: {lost}")])?;
    let (tally, recovery, worth) = in_folder(&dir, |place| {
        let cannot = |e: io::Error| TrialError::Explained(format!("{}: {e}", place.display()));
        let program = std::env::current_exe().map_err(cannot)?;
        say([format!("this program on this disk: killed {rounds} times under load, in {}", place.display())]);
        let trial = Trial { program: &program, dir: &place.join("blows") };
        let tally = Blows { trial, rounds }.strike()?;

        say([format!("the same with a long queue: killed while {waiting} messages wait")]);
        let trial = Trial { program: &program, dir: &place.join("backlog") };
        let recovery = Backlog { trial, waiting }.build_up()?;

        say(["the disk: how many messages a second it allows"]);
        fs::create_dir(place.join("worth")).map_err(cannot)?;
        Ok((tally, recovery, measure(&place.join("worth")).map_err(cannot)?))
    })?;
    Ok(told(&stops, &tally, &recovery, &worth))
}

/// The directory to make a folder in. As root we run programs and write files there, so nobody else may
/// be able to put anything in the way.
fn opened(dir: &Path) -> Result<OpenDir, Failed> {
    let open = OpenDir::open(dir).map_err(|e| vec![format!("{}: {e}", dir.display())])?;
    match open.exposure() {
        Some(exposure) if Uid::effective().is_root() => Err(vec![format!(
            "root does not run this in {}, because {exposure}; name a directory on the same file system that \
             belongs to root and that nobody else may write, or run it as the user whom {} belongs to",
            dir.display(),
            dir.display()
        )]),
        _ => Ok(open),
    }
}

/// Does something in a new folder, whose name nobody can guess and which only we may enter. The folder is
/// removed afterwards, unless there is something to see in it.
fn in_folder<T>(dir: &OpenDir, act: impl FnOnce(&Path) -> Result<T, TrialError>) -> Result<T, Failed> {
    let name = format!("postrider-torture-{:016x}", SystemRandom.bits());
    let place = dir.path().join(&name);
    let cannot = |e: io::Error| vec![format!("{}: {e}", place.display())];
    dir.create_private_dir(&name).map_err(cannot)?;
    let done = act(&place);
    if let Err(TrialError::Evidence(what)) = done {
        return Err(vec![format!(
            "{what}; what is left is in {}: have a look, then remove it",
            place.display()
        )]);
    }
    let removed = fs::remove_dir_all(&place).map_err(cannot);
    let done = done.map_err(|e| vec![e.to_string()])?;
    removed.map(|()| done)
}

fn told(stops: &Stops, tally: &Tally, recovery: &Recovery, worth: &Worth) -> String {
    let mut text = format!(
        "stopped after each of {} disk operations, in every way: {} crashes, nothing lost\n\
         killed {} times under load: {} messages promised, all of them delivered, {} more than once\n\
         with {} messages waiting, started again: greets after {:.2} s, tries each destination after {:.2} s, \
         delivers a new letter after {:.2} s, {} MiB of memory at most; all of them delivered, once, in {:.1} s\n\
         syncs: {} a second, one after another; {} us each\n",
        stops.operations,
        stops.crashes,
        tally.rounds,
        tally.promised,
        tally.twice,
        recovery.waiting,
        recovery.greets.as_secs_f64(),
        recovery.tries.as_secs_f64(),
        recovery.delivers.as_secs_f64(),
        recovery.memory.div_ceil(1024 * 1024),
        recovery.leaves.as_secs_f64(),
        worth.syncs,
        worth.sync.as_micros()
    );
    for (clients, promises) in &worth.promises {
        let _ = writeln!(text, "messages of 4 KiB, {clients:2} at a time: {promises} promised a second");
    }
    text.push_str(match worth.trust {
        Trust::Memory => "trust: none: this file system is in memory, and a power cut takes everything\n",
        Trust::TooFast => {
            "trust: none: syncs come back sooner than anything can have been written; the disk, or the \
             virtual machine's, says done before it is\n"
        }
        Trust::Cached => {
            "trust: some: syncs are as quick as with a battery or capacitors behind the disk's memory; \
             without those, the disk says done before it is\n"
        }
        Trust::Plausible => "trust: syncs take as long as writing takes; only pulling the plug proves more\n",
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
    fn the_folder_is_ours_alone_has_a_name_of_its_own_and_goes_away_unless_it_is_evidence() {
        let base = tempfile::tempdir().unwrap();
        let dir = opened(base.path()).unwrap();
        let fill = |place: &Path| {
            let facts = fs::symlink_metadata(place).unwrap();
            assert_eq!((facts.mode() & 0o7777, facts.uid()), (0o700, Uid::effective().as_raw()));
            fs::create_dir(place.join("spool")).unwrap();
            place.to_owned()
        };
        let one = in_folder(&dir, |place| Ok(fill(place))).unwrap();
        let other = in_folder(&dir, |place| Ok(fill(place))).unwrap();
        assert_ne!(one, other);
        assert_eq!(count(base.path()), 0);

        let slow = in_folder(&dir, |place| {
            fill(place);
            Err::<(), _>(TrialError::Explained("it was slow".to_owned()))
        });
        assert_eq!((slow.unwrap_err(), count(base.path())), (vec!["it was slow".to_owned()], 0));

        let lost = in_folder(&dir, |place| {
            fill(place);
            Err::<(), _>(TrialError::Evidence("1 message is lost".to_owned()))
        });
        let kept = fs::read_dir(base.path()).unwrap().next().unwrap().unwrap().path();
        let said = lost.unwrap_err().concat();
        assert!(said.starts_with("1 message is lost; what is left is in "), "{said}");
        assert!(said.contains(kept.file_name().unwrap().to_str().unwrap()), "{said}");
        assert!(kept.join("spool").is_dir());
    }
}
