//! Notes, syncs and segments, on a simulated disk.

use super::*;
use crate::fakes::{Crash, SeededRandom, SimulatedDisk};
use crate::mail::Timestamp;
use crate::sys::{PlainMutex, ScheduleEnd, Scheduler};

fn id(n: u64) -> MessageId {
    MessageId::new(Timestamp::from_millis(0), n)
}

/// The journal on `disk`, and what it found there.
fn open(disk: &SimulatedDisk) -> (Journal, Vec<(RecordKind, MessageId)>) {
    let dir = Path::new("/journal");
    disk.create_dir(dir).unwrap();
    disk.create_dir(Path::new("/aside")).unwrap();
    let mut found = Vec::new();
    let journal = Journal::open(
        Arc::new(disk.clone()),
        Arc::new(SeededRandom::new(disk.operations().len() as u64)),
        dir,
        Path::new("/aside"),
        1000,
        &mut |record| found.push((record.kind, record.id)),
        &mut |_| panic!("nothing here is damaged"),
    );
    (journal.unwrap(), found)
}

fn paths_with_extension(disk: &SimulatedDisk, extension: &str) -> Vec<PathBuf> {
    let has = |path: &PathBuf| path.extension().is_some_and(|one| one == extension);
    disk.file_paths().into_iter().filter(has).collect()
}

/// Puts messages that fill more than a segment.
fn fill(journal: &Journal, first: u64) -> Vec<(MessageId, JournalPosition)> {
    let put = |n| (id(n), journal.put(&id(n), b"{}", &[b'x'; 350]).unwrap());
    (first..first + 3).map(put).collect()
}

/// Nothing is left to do for these, and the segments go in which nothing else is.
fn empty(journal: &Journal, messages: &[(MessageId, JournalPosition)]) {
    for (id, place) in messages {
        journal.note(RecordKind::Done, id, b"");
        journal.decrement_live(place.segment);
    }
    journal.remove_finished_segments(&|| false).unwrap();
}

#[test]
fn a_segment_that_goes_is_written_over_and_nothing_of_it_is_found_again() {
    for crash in [Crash::ProcessKilled, Crash::UnsyncedLost] {
        let disk = SimulatedDisk::default();
        let (journal, _) = open(&disk);
        (0..3).for_each(|n| empty(&journal, &fill(&journal, 10 * n)));
        assert_eq!(
            (disk.operation_count("create"), paths_with_extension(&disk, SPARE_EXTENSION).len()),
            (2, 1),
            "two take turns"
        );
        fill(&journal, 100);
        assert_eq!(
            (disk.operation_count("create"), paths_with_extension(&disk, SPARE_EXTENSION).len()),
            (2, 0)
        );
        disk.crash(crash);
        let (_, mut found) = open(&disk);
        let done: Vec<_> = found.extract_if(.., |(kind, _)| *kind == RecordKind::Done).collect();
        found.retain(|(_, id)| done.iter().all(|(_, other)| other != id));
        assert_eq!(found, [100, 101, 102].map(|n| (RecordKind::Put, id(n))));
    }
}

#[test]
fn what_somebody_still_reads_is_not_written_over() {
    let disk = SimulatedDisk::default();
    let (journal, _) = open(&disk);
    let messages = fill(&journal, 1);
    let place = messages[0].1;
    let read = journal.file(place.segment).unwrap();
    empty(&journal, &messages);
    assert!(paths_with_extension(&disk, SPARE_EXTENSION).is_empty());
    fill(&journal, 4);
    assert_eq!(read.read_range(place.offset, 5).unwrap(), b"{}xxx");
}

#[test]
fn a_name_without_a_record_is_an_empty_segment_and_spares_are_few() {
    let disk = SimulatedDisk::default();
    let (journal, _) = open(&disk);
    empty(&journal, &fill(&journal, 1));
    // As after a crash between the new name and the first record under it.
    disk.rename(
        &paths_with_extension(&disk, SPARE_EXTENSION)[0],
        Path::new("/journal/00000009-00000007.journal"),
    )
    .unwrap();
    for n in 0..2 * SPARES_MAX {
        disk.create(Path::new(&format!("/journal/{n}.spare"))).unwrap();
    }
    let (_, found) = open(&disk);
    assert_eq!(found, [1, 2, 3].map(|n| (RecordKind::Done, id(n))));
    assert_eq!(paths_with_extension(&disk, SPARE_EXTENSION).len(), SPARES_MAX);
}

/// A file on which a verb panics.
#[derive(Clone, Copy, PartialEq)]
enum PanickingFile {
    Write,
    Sync,
}

impl DiskFile for PanickingFile {
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        if *self == Self::Write { panic!("a mistake") } else { Ok(()) }
    }
    fn sync(&self) -> io::Result<()> {
        if *self == Self::Sync { panic!("a mistake") } else { Ok(()) }
    }
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }
    fn length(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn truncate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn identity(&self) -> io::Result<crate::sys::FileIdentity> {
        Ok(crate::sys::FileIdentity { device: 0, inode: 0, links: 1 })
    }
}

#[test]
fn a_sync_that_panics_refuses_and_the_next_is_led_again() {
    let disk = SimulatedDisk::default();
    let (journal, _) = open(&disk);
    journal.put(&id(1), b"{}", b"").unwrap();
    for segment in journal.contents.lock().segments.values_mut() {
        segment.file = Some(Arc::new(PanickingFile::Sync));
    }
    journal.put(&id(2), b"{}", b"").unwrap_err();
    journal.put(&id(3), b"{}", b"").unwrap();
}

#[test]
fn a_note_whose_write_panics_is_owed_and_not_lost() {
    let disk = SimulatedDisk::default();
    let (journal, _) = open(&disk);
    journal.put(&id(1), b"{}", b"").unwrap();
    for segment in journal.contents.lock().segments.values_mut() {
        segment.file = Some(Arc::new(PanickingFile::Write));
    }
    let moved = journal.note(RecordKind::Moved, &id(1), b"");
    journal.sync(&moved).unwrap_err();
    journal.contents.lock().current = None;
    journal.sync(&moved).unwrap();
    disk.crash(Crash::UnsyncedLost);
    assert_eq!(open(&disk).1, [(RecordKind::Put, id(1)), (RecordKind::Moved, id(1))]);
}

#[test]
fn a_note_that_was_owed_is_durable_when_it_is_and_not_before() {
    let disk = SimulatedDisk::default();
    let (journal, _) = open(&disk);
    journal.put(&id(1), b"{}", b"").unwrap();
    disk.fail_after(0, io::ErrorKind::StorageFull);
    let moved = journal.note(RecordKind::Moved, &id(1), b"");
    // This writes both, and syncs none.
    journal.note(RecordKind::Done, &id(2), b"");
    let syncs = disk.operation_count("sync");
    journal.sync(&moved).unwrap();
    assert_eq!(disk.operation_count("sync"), syncs + 1);
    journal.sync(&moved).unwrap();
    assert_eq!(disk.operation_count("sync"), syncs + 1, "once is enough");
    disk.crash(Crash::UnsyncedLost);
    assert_eq!(
        open(&disk).1,
        [(RecordKind::Put, id(1)), (RecordKind::Moved, id(1)), (RecordKind::Done, id(2))]
    );
}

#[test]
fn a_note_that_a_failed_sync_lost_is_written_again_in_its_order() {
    let disk = SimulatedDisk::default();
    let (journal, _) = open(&disk);
    journal.put(&id(1), b"{}", b"").unwrap();
    let moved = journal.note(RecordKind::Moved, &id(1), b"");
    disk.fail_after(1, io::ErrorKind::Other);
    journal.put(&id(2), b"{}", b"").unwrap_err();
    // Its cut left an empty tail: a sync of that says nothing about the note.
    journal.sync(&moved).unwrap();
    disk.crash(Crash::UnsyncedLost);
    assert_eq!(
        open(&disk).1,
        [(RecordKind::Put, id(1)), (RecordKind::Moved, id(1)), (RecordKind::Cancel, id(2))]
    );
}

#[test]
fn a_note_that_is_written_becomes_durable_though_others_are_owed() {
    let disk = SimulatedDisk::default();
    let (journal, _) = open(&disk);
    journal.put(&id(1), b"{}", b"").unwrap();
    let moved = journal.note(RecordKind::Moved, &id(1), b"");
    disk.set_full(true);
    let done = journal.note(RecordKind::Done, &id(2), b"");
    journal.sync(&moved).unwrap();
    assert!(journal.sync(&done).is_err());
    disk.crash(Crash::UnsyncedLost);
    assert_eq!(open(&disk).1, [(RecordKind::Put, id(1)), (RecordKind::Moved, id(1))]);
}

#[test]
fn notes_of_a_full_disk_stand_in_the_reserve_and_are_durable() {
    let disk = SimulatedDisk::default();
    let (journal, _) = open(&disk);
    journal.ensure_reserve().unwrap();
    journal.put(&id(1), b"{}", b"").unwrap();
    disk.set_full(true);
    let done = journal.note(RecordKind::Done, &id(1), b"");
    journal.sync(&done).unwrap();
    assert!(journal.is_disk_full() && journal.put(&id(2), b"{}", b"").is_err());
    assert!(journal.ensure_reserve().is_err(), "there is no room for another");
    assert!(journal.is_disk_full());
    disk.set_full(false);
    journal.ensure_reserve().unwrap();
    journal.put(&id(3), b"{}", b"").unwrap();
    disk.crash(Crash::UnsyncedLost);
    assert_eq!(
        open(&disk).1,
        [(RecordKind::Put, id(1)), (RecordKind::Done, id(1)), (RecordKind::Put, id(3))]
    );
}

#[test]
fn a_start_on_a_full_disk_takes_no_message_before_there_is_a_reserve() {
    let disk = SimulatedDisk::default();
    disk.create_dir(Path::new("/journal")).unwrap();
    disk.set_full(true);
    let (journal, _) = open(&disk);
    assert!(journal.ensure_reserve().is_err() && journal.is_disk_full());
    disk.set_full(false);
    journal.ensure_reserve().unwrap();
    journal.put(&id(1), b"{}", b"").unwrap();
}

/// Whoever waits for a sync that fails hears of its own record, whoever leads and whoever wakes first.
#[test]
fn what_is_said_to_be_durable_is_so_although_syncs_fail_between_several_who_wait() {
    for seed in 0..2000 {
        let disk = SimulatedDisk::default();
        let journal = Arc::new(open(&disk).0);
        journal.put(&id(1), b"{}", b"").unwrap();
        disk.fail_after(usize::try_from(1 + seed % 4).unwrap(), io::ErrorKind::Other);
        let said = Arc::<PlainMutex<Vec<(RecordKind, MessageId)>>>::default();
        let scheduler = Scheduler::new(seed);
        for n in 2..4 {
            let (journal, said) = (Arc::clone(&journal), Arc::clone(&said));
            let put = move || {
                if journal.put(&id(n), b"{}", b"").is_ok() {
                    said.lock().push((RecordKind::Put, id(n)));
                }
            };
            scheduler.spawn(format!("put-{n}"), put).unwrap();
        }
        let (theirs, noted) = (Arc::clone(&journal), Arc::clone(&said));
        let stop = move || {
            theirs.note(RecordKind::Done, &id(1), b"");
            if theirs.sync_notes().is_ok() {
                noted.lock().push((RecordKind::Done, id(1)));
            }
        };
        scheduler.spawn("stop", stop).unwrap();
        assert_eq!(scheduler.run(), ScheduleEnd::AllFinished, "seed {seed}");
        disk.crash(Crash::UnsyncedLost);
        let found = open(&disk).1;
        for one in said.lock().iter() {
            assert!(found.contains(one), "seed {seed}: {one:?} is not there, but {found:?}");
        }
    }
}
