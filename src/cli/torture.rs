//! `postrider torture`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::terminal::{Failed, say};
use crate::torture::{Backlog, Blows, Recovery, Stops, Tally, Trial, Trust, Worth, measure, stop_everywhere};

/// Tries the program on a simulated disk, then the program and the disk together.
pub(super) fn run(dir: &Path, rounds: usize, waiting: usize) -> Result<String, Failed> {
    say(["the program on a simulated disk: it stops after every single operation"]);
    let stops = stop_everywhere().map_err(|lost| vec![format!("a fault of this program: {lost}")])?;

    // Several at once, or one that was interrupted, are not in one another's way.
    let place = dir.join(format!("postrider-torture-{}", std::process::id()));
    let cannot = |e: std::io::Error| vec![format!("{}: {e}", place.display())];
    fs::create_dir_all(&place).map_err(cannot)?;
    let place = fs::canonicalize(&place).map_err(cannot)?;
    let program = std::env::current_exe().map_err(cannot)?;
    say([format!("this program on this disk: killed {rounds} times under load, in {}", place.display())]);
    let trial = Trial { program: &program, dir: &place.join("blows") };
    let tally = Blows { trial, rounds }.strike().map_err(|lost| vec![lost])?;

    say([format!("the same with a long queue: killed while {waiting} messages wait")]);
    let trial = Trial { program: &program, dir: &place.join("backlog") };
    let recovery = Backlog { trial, waiting }.build_up().map_err(|wrong| vec![wrong])?;

    say(["the disk: how many messages a second it allows"]);
    fs::create_dir(place.join("worth")).map_err(cannot)?;
    let worth = measure(&place.join("worth")).map_err(cannot)?;
    fs::remove_dir_all(&place).map_err(cannot)?;
    Ok(told(&stops, &tally, &recovery, &worth))
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
