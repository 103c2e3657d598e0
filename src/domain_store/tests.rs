//! Values are saved, read, bounded and removed, on disks that work and on disks that fail.

use serde::Deserialize;

use super::*;
use crate::fakes::{SeededRandom, TestClock, WatchedDisk};
use crate::observe::Metrics;
use crate::sys::{SystemDisk, spawn};

/// A value with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Visits {
    visits: u32,
}

/// A disk that works for a number of operations, and then fails.
#[derive(Clone, Default)]
struct FailingDisk(Arc<Mutex<Option<usize>>>);

impl FailingDisk {
    fn fail_after(&self, operations: usize) {
        *self.0.lock() = Some(operations);
    }

    fn repair(&self) {
        *self.0.lock() = None;
    }

    fn disk(&self) -> WatchedDisk {
        let failing = self.clone();
        WatchedDisk::new(SystemDisk, move |verb, _| match verb {
            "create-dir" => Ok(()),
            _ => failing.count_operation(),
        })
    }

    fn count_operation(&self) -> io::Result<()> {
        match &mut *self.0.lock() {
            Some(0) => Err(io::Error::other("on purpose")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    disk: FailingDisk,
    random: Arc<SeededRandom>,
    metrics: Metrics,
    files_max: usize,
}

impl Fixture {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            disk: FailingDisk::default(),
            random: Arc::default(),
            metrics: Metrics::default(),
            files_max: 100,
        }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("data").join("visits")
    }

    /// The store after a start of the program.
    fn open(&self) -> DomainStore<Visits> {
        let interfaces = Interfaces {
            disk: Arc::new(self.disk.disk()),
            random: self.random.clone(),
            clock: Arc::new(TestClock::default()),
        };
        let settings = Settings {
            dir: self.dir(),
            subject: "visits",
            version: 2,
            files_max: self.files_max,
            file_octets_max: 1000,
        };
        let counters = Counters {
            errors: self.metrics.counter("error", ""),
            damaged: self.metrics.counter("damaged", ""),
            not_recorded: self.metrics.counter("full", ""),
        };
        DomainStore::open(interfaces, settings, counters).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        create_dir_all(&SystemDisk, &self.dir()).unwrap();
        SystemDisk.create(&self.dir().join(name)).unwrap().append(text.as_bytes()).unwrap();
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> =
            SystemDisk.list(&self.dir()).unwrap().into_iter().map(|entry| entry.name).collect();
        names.sort();
        names
    }

    fn count(&self, name: &'static str) -> u64 {
        self.metrics.counter(name, "").value()
    }
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn set(store: &DomainStore<Visits>, name: &str, visits: u32) {
    store.update(&domain(name), |_| Ok::<_, ()>(Some(Visits { visits }))).unwrap();
}

/// An update that changes nothing.
fn touch(store: &DomainStore<Visits>, name: &str) {
    store.update(&domain(name), |_| Ok::<_, ()>(None)).unwrap();
}

fn visits(store: &DomainStore<Visits>, name: &str) -> Option<u32> {
    store.get(&domain(name)).map(|value| value.visits)
}

#[test]
fn a_value_survives_a_restart_and_is_listed_until_it_is_removed() {
    let fixture = Fixture::new();
    let store = fixture.open();
    assert_eq!(visits(&store, "there.example"), None);
    set(&store, "there.example", 1);
    set(&store, "there.example", 2);
    set(&store, "a.example", 3);
    let store = fixture.open();
    assert_eq!(visits(&store, "there.example"), Some(2));
    let list = store.list().unwrap();
    assert_eq!(
        list,
        [("a.example", 3), ("there.example", 2)].map(|(name, visits)| (domain(name), Visits { visits }))
    );
    assert!(store.remove(&domain("there.example")).unwrap());
    assert!(!store.remove(&domain("there.example")).unwrap());
    assert_eq!(visits(&store, "there.example"), None);
    assert_eq!(fixture.files(), ["a.example.json"]);
}

#[test]
fn an_update_that_is_refused_changes_nothing() {
    let fixture = Fixture::new();
    let store = fixture.open();
    set(&store, "there.example", 1);
    assert_eq!(store.update(&domain("there.example"), |_| Err("refused")), Err("refused"));
    assert_eq!(visits(&store, "there.example"), Some(1));
}

#[test]
fn a_file_of_an_older_version_is_read_and_the_next_update_writes_this_version() {
    let fixture = Fixture::new();
    fixture.write("old.example.json", "{\"version\":1,\"domain\":\"old.example\",\"visits\":7,\"extra\":0}");
    let store = fixture.open();
    assert_eq!(visits(&store, "old.example"), Some(7));
    set(&store, "old.example", 8);
    assert_eq!(
        crate::sys::read_text(&fixture.dir().join("old.example.json"), 1000).unwrap(),
        "{\n  \"version\": 2,\n  \"domain\": \"old.example\",\n  \"visits\": 8\n}\n"
    );
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_value_or_the_new_one() {
    for stop in 0.. {
        let fixture = Fixture::new();
        set(&fixture.open(), "there.example", 1);
        let store = fixture.open();
        fixture.disk.fail_after(stop);
        set(&store, "there.example", 2);
        let was_stopped = fixture.count("error") > 0;
        fixture.disk.repair();
        let value = visits(&fixture.open(), "there.example");
        assert!(matches!(value, Some(1 | 2)), "stop {stop}: {value:?}");
        assert_eq!(fixture.files(), ["there.example.json"], "temporary files are removed, stop {stop}");
        if !was_stopped {
            assert_eq!(value, Some(2));
            assert!(stop >= 5, "create, append, sync, rename, sync_dir");
            return;
        }
    }
}

#[test]
fn a_value_that_could_not_be_written_is_kept_in_memory_and_written_by_a_later_update() {
    let fixture = Fixture::new();
    let store = fixture.open();
    touch(&store, "there.example");
    fixture.disk.fail_after(0);
    set(&store, "there.example", 1);
    assert_eq!(visits(&store, "there.example"), Some(1), "from memory");
    assert!(fixture.count("error") > 0);
    fixture.disk.repair();
    touch(&store, "there.example");
    assert_eq!(visits(&fixture.open(), "there.example"), Some(1));
}

#[test]
fn a_file_that_cannot_be_read_is_unknown_for_now_and_is_not_replaced() {
    let fixture = Fixture::new();
    set(&fixture.open(), "there.example", 5);
    let store = fixture.open();
    fixture.disk.fail_after(0);
    set(&store, "there.example", 1);
    fixture.disk.repair();
    assert_eq!(visits(&store, "there.example"), Some(5));
}

#[test]
fn a_damaged_file_is_moved_aside_and_a_newer_one_is_left_alone() {
    let fixture = Fixture::new();
    fixture.write("bad.example.json", "{\"version\":1,\"dom");
    fixture.write("large.example.json", &" ".repeat(1001));
    fixture.write("other.example.json", "{\"version\":1,\"domain\":\"x.example\",\"visits\":1}");
    fixture.write("new.example.json", "{\"version\":3,\"visitors\":[]}");
    let store = fixture.open();
    for name in ["bad.example", "large.example", "other.example", "new.example"] {
        set(&store, name, 1);
    }
    assert_eq!(
        fixture.files(),
        [
            "bad.example.json",
            "bad.example.json.1767225600000.damaged",
            "large.example.json",
            "large.example.json.1767225600000.damaged",
            "new.example.json",
            "other.example.json",
            "other.example.json.1767225600000.damaged",
        ]
    );
    let newer = crate::sys::read_text(&fixture.dir().join("new.example.json"), 1000).unwrap();
    assert!(newer.contains("visitors"));
    assert_eq!((fixture.count("damaged"), fixture.count("error")), (3, 1));
}

#[test]
fn beyond_the_bound_new_domains_are_not_recorded_and_recorded_ones_are_updated() {
    let mut fixture = Fixture::new();
    fixture.files_max = 2;
    let store = fixture.open();
    for name in ["a.example", "b.example", "c.example"] {
        set(&store, name, 1);
    }
    touch(&store, "c.example");
    assert_eq!(fixture.files(), ["a.example.json", "b.example.json"]);
    assert_eq!(fixture.count("full"), 1);

    let store = fixture.open();
    set(&store, "a.example", 2);
    set(&store, "d.example", 2);
    assert_eq!(fixture.files().len(), 2);
    store.remove(&domain("b.example")).unwrap();
    set(&store, "d.example", 3);
    assert_eq!(fixture.files(), ["a.example.json", "d.example.json"], "there was room for one file");
}

#[test]
fn threads_that_update_one_domain_do_so_one_after_the_other() {
    let fixture = Fixture::new();
    let store = Arc::new(fixture.open());
    let threads = [(); 4].map(|()| {
        let store = Arc::clone(&store);
        let add = move || {
            for _ in 0..10 {
                let more = |value: Option<&Visits>| {
                    Ok::<_, ()>(Some(Visits { visits: value.map_or(1, |value| value.visits + 1) }))
                };
                store.update(&domain("there.example"), more).unwrap();
            }
        };
        spawn("adds", add).unwrap()
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(visits(&fixture.open(), "there.example"), Some(40));
}

#[test]
fn the_cache_is_bounded_and_a_slot_in_use_stays() {
    let mut fixture = Fixture::new();
    fixture.files_max = 0;
    let store = fixture.open();
    let in_use = store.slot(&domain("there.example"));
    for n in 0..CACHED_DOMAINS_MAX * 2 {
        let _ = store.get(&domain(&format!("d{n}.example")));
        assert!(store.slots.lock().len() <= CACHED_DOMAINS_MAX + 1);
    }
    assert!(Arc::ptr_eq(&in_use, &store.slot(&domain("there.example"))));
}

#[test]
fn a_domain_that_cannot_be_a_file_name_is_not_stored() {
    let fixture = Fixture::new();
    let labels = ["a", "b", "c", "d"].map(|label| label.repeat(60));
    let store = fixture.open();
    for name in [labels.join(".").as_str(), "[192.0.2.1]"] {
        assert!(!is_storable(&domain(name)));
        set(&store, name, 1);
        assert_eq!(visits(&store, name), None);
        assert!(!store.remove(&domain(name)).unwrap());
    }
    assert_eq!((fixture.files(), fixture.count("error")), (vec![], 0));
}
