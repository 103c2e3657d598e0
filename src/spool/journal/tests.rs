//! Notes, syncs and segments, on a simulated disk.

use super::*;
use crate::fakes::{Crash, SeededRandom, SimulatedDisk};
use crate::mail::Timestamp;
use crate::sys::{PlainMutex, ScheduleEnd, Scheduler};

fn id(n: u64) -> MessageId {
    MessageId::new(Timestamp::from_millis(0), n)
}

/// Opens the journal on `disk`. Returns the records that it found, too.
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

/// Puts messages that need more than one segment.
fn fill(journal: &Journal, first: u64) -> Vec<(MessageId, JournalPosition)> {
    let put = |n| (id(n), journal.put(&id(n), b"{}", &[b'x'; 350]).unwrap());
    (first..first + 3).map(put).collect()
}

/// Settles these messages, and removes the segments in which nothing else is.
fn settle(journal: &Journal, messages: &[(MessageId, JournalPosition)]) {
    for (id, place) in messages {
        journal.note(RecordKind::Done, id, b"");
        journal.decrement_live(place.segment);
    }
    journal.remove_finished_segments(&|| false).unwrap();
}

#[test]
fn the_file_of_a_removed_segment_is_written_over_and_its_records_are_not_found_again() {
    for crash in [Crash::ProcessKilled, Crash::UnsyncedLost] {
        let disk = SimulatedDisk::default();
        let (journal, _) = open(&disk);
        (0..3).for_each(|n| settle(&journal, &fill(&journal, 10 * n)));
        assert_eq!(
            (disk.operation_count("create"), paths_with_extension(&disk, SPARE_EXTENSION).len()),
            (2, 1),
            "two files are used in turn"
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
fn a_segment_that_is_still_being_read_is_not_written_over() {
    let disk = SimulatedDisk::default();
    let (journal, _) = open(&disk);
    let messages = fill(&journal, 1);
    let place = messages[0].1;
    let read = journal.file(place.segment).unwrap();
    settle(&journal, &messages);
    assert!(paths_with_extension(&disk, SPARE_EXTENSION).is_empty());
    fill(&journal, 4);
    assert_eq!(read.read_range(place.offset, 5).unwrap(), b"{}xxx");
}

#[test]
fn a_file_without_a_record_is_an_empty_segment_and_surplus_spares_are_removed() {
    let disk = SimulatedDisk::default();
    let (journal, _) = open(&disk);
    settle(&journal, &fill(&journal, 1));
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

/// A file on which one operation panics.
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
fn after_a_sync_that_panics_the_message_is_refused_and_another_sync_succeeds() {
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
fn a_note_whose_write_panics_is_written_later() {
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
fn a_note_that_was_written_late_is_durable_after_one_sync() {
    let disk = SimulatedDisk::default();
    let (journal, _) = open(&disk);
    journal.put(&id(1), b"{}", b"").unwrap();
    disk.fail_after(0, io::ErrorKind::StorageFull);
    let moved = journal.note(RecordKind::Moved, &id(1), b"");
    // This writes both notes, and syncs neither.
    journal.note(RecordKind::Done, &id(2), b"");
    let syncs = disk.operation_count("sync");
    journal.sync(&moved).unwrap();
    assert_eq!(disk.operation_count("sync"), syncs + 1);
    journal.sync(&moved).unwrap();
    assert_eq!(disk.operation_count("sync"), syncs + 1, "one sync is enough");
    disk.crash(Crash::UnsyncedLost);
    assert_eq!(
        open(&disk).1,
        [(RecordKind::Put, id(1)), (RecordKind::Moved, id(1)), (RecordKind::Done, id(2))]
    );
}

#[test]
fn a_confirmed_removal_holds_although_its_segment_could_not_be_removed() {
    let disk = SimulatedDisk::default();
    let (journal, _) = open(&disk);
    let position = journal.put(&id(1), b"{}", &[b'x'; 800]).unwrap();
    let done = journal.note(RecordKind::Done, &id(1), b"");
    journal.decrement_live(position.segment);
    // These fill the segment, and another one begins.
    (0..3).for_each(|_| drop(journal.note(RecordKind::Note, &id(2), b"{}")));
    disk.fail_after(0, io::ErrorKind::Other);
    journal.remove_finished_segments(&|| false).unwrap_err();
    journal.sync(&done).unwrap();
    disk.crash(Crash::UnsyncedLost);
    let found = open(&disk).1;
    let [put, done] = [RecordKind::Put, RecordKind::Done].map(|kind| found.contains(&(kind, id(1))));
    assert!(done || !put, "{found:?}");
}

#[test]
fn notes_that_a_failed_sync_lost_are_written_again_in_order() {
    let disk = SimulatedDisk::default();
    let (journal, _) = open(&disk);
    journal.put(&id(1), b"{}", b"").unwrap();
    let moved = journal.note(RecordKind::Moved, &id(1), b"");
    disk.fail_after(1, io::ErrorKind::Other);
    journal.put(&id(2), b"{}", b"").unwrap_err();
    // The segment was cut back, so a sync of it makes no note durable.
    journal.sync(&moved).unwrap();
    disk.crash(Crash::UnsyncedLost);
    assert_eq!(
        open(&disk).1,
        [(RecordKind::Put, id(1)), (RecordKind::Moved, id(1)), (RecordKind::Cancel, id(2))]
    );
}

#[test]
fn a_written_note_becomes_durable_although_others_cannot_be_written() {
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
fn notes_on_a_full_disk_are_written_to_the_reserve_and_are_durable() {
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
fn after_a_start_on_a_full_disk_no_message_is_accepted_before_there_is_a_reserve() {
    let disk = SimulatedDisk::default();
    disk.create_dir(Path::new("/journal")).unwrap();
    disk.set_full(true);
    let (journal, _) = open(&disk);
    assert!(journal.ensure_reserve().is_err() && journal.is_disk_full());
    disk.set_full(false);
    journal.ensure_reserve().unwrap();
    journal.put(&id(1), b"{}", b"").unwrap();
}

/// Every thread that waits for a sync that fails gets the result of its own record, whichever thread leads.
#[test]
fn a_record_that_is_confirmed_is_durable_although_syncs_fail_while_several_threads_wait() {
    for seed in 0..2000 {
        let disk = SimulatedDisk::default();
        let journal = Arc::new(open(&disk).0);
        journal.put(&id(1), b"{}", b"").unwrap();
        disk.fail_after(usize::try_from(1 + seed % 4).unwrap(), io::ErrorKind::Other);
        let confirmed = Arc::<PlainMutex<Vec<(RecordKind, MessageId)>>>::default();
        let scheduler = Scheduler::new(seed);
        for n in 2..4 {
            let (journal, confirmed) = (Arc::clone(&journal), Arc::clone(&confirmed));
            let put = move || {
                if journal.put(&id(n), b"{}", b"").is_ok() {
                    confirmed.lock().push((RecordKind::Put, id(n)));
                }
            };
            scheduler.spawn(format!("put-{n}"), put).unwrap();
        }
        let (stopping, stop_confirmed) = (Arc::clone(&journal), Arc::clone(&confirmed));
        let stop = move || {
            stopping.note(RecordKind::Done, &id(1), b"");
            if stopping.sync_notes().is_ok() {
                stop_confirmed.lock().push((RecordKind::Done, id(1)));
            }
        };
        scheduler.spawn("stop", stop).unwrap();
        assert_eq!(scheduler.run(), ScheduleEnd::AllFinished, "seed {seed}");
        disk.crash(Crash::UnsyncedLost);
        let found = open(&disk).1;
        for one in confirmed.lock().iter() {
            assert!(found.contains(one), "seed {seed}: {one:?} is not there, but {found:?}");
        }
    }
}
