//! What is known of domains, learnt, kept and forgotten, on disks that do and do not work.

use super::*;
use crate::fakes::{SeededRandom, TestClock, WatchedDisk};
use crate::sys::{SystemDisk, spawn};

/// How many operations the host's disk does yet; then nothing works any more.
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
    clock: Arc<TestClock>,
    random: Arc<SeededRandom>,
    metrics: Metrics,
    domains_max: usize,
}

impl Fixture {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            disk: FailingDisk::default(),
            clock: Arc::default(),
            random: Arc::default(),
            metrics: Metrics::default(),
            domains_max: 100,
        }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("data").join("domaininfo")
    }

    /// As after a start of the program.
    fn open(&self) -> DomainInfo {
        let settings = Settings { dir: self.dir(), domains_max: self.domains_max };
        let (disk, random) = (Arc::new(self.disk.disk()), Arc::clone(&self.random));
        let clock = Arc::clone(&self.clock);
        DomainInfo::open(disk, random, clock, &self.metrics, settings).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        create_dir_all(&SystemDisk, &self.dir()).unwrap();
        SystemDisk.create(&self.dir().join(name)).unwrap().append(text.as_bytes()).unwrap();
    }

    fn text(&self, name: &str) -> String {
        crate::sys::read_text(&self.dir().join(name), 10_000).unwrap()
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

#[test]
fn equal_passes_higher_is_remembered_and_lower_is_refused() {
    let house = Fixture::new();
    let (info, there) = (house.open(), domain("there.example"));
    assert_eq!(info.check_outgoing(&there, SecurityLevel::Plain), Ok(()));
    assert_eq!(info.check_outgoing(&there, SecurityLevel::TlsUnverified), Ok(()));
    assert_eq!(info.check_outgoing(&there, SecurityLevel::TlsUnverified), Ok(()));
    assert_eq!(
        info.check_outgoing(&there, SecurityLevel::Plain),
        Err(LowerThanKnown { known: SecurityLevel::TlsUnverified })
    );
    assert_eq!(info.check_outgoing(&there, SecurityLevel::TlsVerified), Ok(()));
    let refused = info.check_outgoing(&there, SecurityLevel::TlsUnverified).unwrap_err();
    assert!(refused.to_string().contains("tls-verified"), "{refused}");

    assert_eq!(info.check_incoming(&there, IncomingSecurityLevel::Plain), Ok(()), "apart from outgoing");
    assert_eq!(info.check_incoming(&there, IncomingSecurityLevel::Tls), Ok(()));
    assert!(info.check_incoming(&there, IncomingSecurityLevel::Plain).is_err());
    assert_eq!(house.count("domaininfo_raised"), 3);
    assert_eq!(house.count("domaininfo_refused"), 3);
}

#[test]
fn a_restart_remembers_and_every_spelling_is_one_domain() {
    let house = Fixture::new();
    house.open().check_outgoing(&domain("bücher.example"), SecurityLevel::TlsVerified).unwrap();
    let info = house.open();
    assert!(info.check_outgoing(&domain("XN--BCHER-KVA.example"), SecurityLevel::TlsUnverified).is_err());
    assert_eq!(info.get(&domain("bücher.example")).outgoing, SecurityLevel::TlsVerified);
}

#[test]
fn a_person_can_read_the_file() {
    let house = Fixture::new();
    let info = house.open();
    info.check_incoming(&domain("bücher.example"), IncomingSecurityLevel::Tls).unwrap();
    assert_eq!(
        house.text("xn--bcher-kva.example.json"),
        "{\n  \"version\": 1,\n  \"domain\": \"bücher.example\",\n  \"in\": \"tls\",\n  \
         \"out\": \"plain\",\n  \"in_seen\": \"2026-01-01T00:00:00.000Z\"\n}\n"
    );
}

#[test]
fn only_what_was_seen_above_plain_has_a_file() {
    let house = Fixture::new();
    let info = house.open();
    info.check_outgoing(&domain("plain.example"), SecurityLevel::Plain).unwrap();
    info.check_incoming(&domain("plain.example"), IncomingSecurityLevel::Plain).unwrap();
    info.check_outgoing(&domain("[192.0.2.1]"), SecurityLevel::TlsVerified).unwrap();
    info.check_outgoing(&domain("[192.0.2.1]"), SecurityLevel::Plain).unwrap();
    assert_eq!(house.files(), Vec::<String>::new());
}

#[test]
fn what_is_forgotten_may_be_plain_again() {
    let house = Fixture::new();
    let (info, there) = (house.open(), domain("there.example"));
    assert!(!info.forget(&there).unwrap());
    info.check_outgoing(&there, SecurityLevel::TlsVerified).unwrap();
    info.check_outgoing(&domain("a.example"), SecurityLevel::TlsUnverified).unwrap();
    let names: Vec<_> = info.list().unwrap().into_iter().map(|known| known.domain).collect();
    assert_eq!(names, [domain("a.example"), there.clone()]);
    assert!(info.forget(&there).unwrap());
    assert_eq!(house.files(), ["a.example.json"]);
    assert_eq!(info.check_outgoing(&there, SecurityLevel::Plain), Ok(()));
    assert_eq!(house.open().get(&there), PeerEntry::unknown(&there));
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_level_or_the_new_one() {
    let there = domain("there.example");
    for stop in 0.. {
        let house = Fixture::new();
        house.open().check_outgoing(&there, SecurityLevel::TlsUnverified).unwrap();
        let info = house.open();
        house.disk.fail_after(stop);
        assert_eq!(info.check_outgoing(&there, SecurityLevel::TlsVerified), Ok(()));
        let was_stopped = house.count("domaininfo_error") > 0;
        house.disk.repair();
        let known = house.open().get(&there).outgoing;
        assert!(known >= SecurityLevel::TlsUnverified, "stop {stop}");
        assert_eq!(house.files(), ["there.example.json"], "drafts are swept, stop {stop}");
        if !was_stopped {
            assert_eq!(known, SecurityLevel::TlsVerified);
            assert!(stop >= 5, "create, append, sync, rename, sync_dir");
            return;
        }
    }
}

#[test]
fn while_the_disk_does_not_write_memory_decides_and_a_later_check_saves() {
    let house = Fixture::new();
    let (info, there) = (house.open(), domain("there.example"));
    info.check_outgoing(&there, SecurityLevel::Plain).unwrap();
    house.disk.fail_after(0);
    assert_eq!(info.check_outgoing(&there, SecurityLevel::TlsVerified), Ok(()));
    assert!(info.check_outgoing(&there, SecurityLevel::Plain).is_err(), "from memory");
    assert!(house.count("domaininfo_error") > 0);
    house.disk.repair();
    assert_eq!(info.check_outgoing(&there, SecurityLevel::TlsVerified), Ok(()));
    assert_eq!(house.open().get(&there).outgoing, SecurityLevel::TlsVerified);
}

#[test]
fn while_the_disk_does_not_read_nothing_is_known_and_nothing_is_lost() {
    let house = Fixture::new();
    let there = domain("there.example");
    house.open().check_outgoing(&there, SecurityLevel::TlsVerified).unwrap();
    let info = house.open();
    house.disk.fail_after(0);
    assert_eq!(info.check_outgoing(&there, SecurityLevel::TlsUnverified), Ok(()));
    house.disk.repair();
    assert!(info.check_outgoing(&there, SecurityLevel::TlsUnverified).is_err(), "the file says more");
}

#[test]
fn a_damaged_file_is_moved_aside_and_a_newer_one_is_left_alone() {
    let house = Fixture::new();
    house.write("bad.example.json", "{\"version\":1,\"dom");
    house.write(
        "other.example.json",
        "{\"version\":1,\"domain\":\"x.example\",\"in\":\"tls\",\"out\":\"plain\"}",
    );
    house.write("new.example.json", "{\"version\":2,\"levels\":[]}");
    let info = house.open();
    for name in ["bad.example", "other.example", "new.example"] {
        assert_eq!(info.check_outgoing(&domain(name), SecurityLevel::TlsUnverified), Ok(()), "{name}");
    }
    assert_eq!(
        house.files(),
        [
            "bad.example.json",
            "bad.example.json.1767225600000.damaged",
            "new.example.json",
            "other.example.json",
            "other.example.json.1767225600000.damaged",
        ]
    );
    assert!(house.text("new.example.json").contains("levels"));
    assert_eq!((house.count("domaininfo_damaged"), house.count("domaininfo_error")), (2, 1));
}

#[test]
fn beyond_the_bound_new_domains_are_not_recorded_and_old_ones_are_raised() {
    let mut house = Fixture::new();
    house.domains_max = 2;
    let info = house.open();
    for name in ["a.example", "b.example", "c.example"] {
        assert_eq!(info.check_outgoing(&domain(name), SecurityLevel::TlsUnverified), Ok(()));
    }
    assert_eq!(info.check_outgoing(&domain("c.example"), SecurityLevel::TlsUnverified), Ok(()));
    assert_eq!(house.files(), ["a.example.json", "b.example.json"]);
    assert_eq!(house.count("domaininfo_full"), 1);

    let info = house.open();
    info.check_outgoing(&domain("a.example"), SecurityLevel::TlsVerified).unwrap();
    info.check_outgoing(&domain("d.example"), SecurityLevel::TlsVerified).unwrap();
    assert_eq!(house.files().len(), 2);
    info.forget(&domain("b.example")).unwrap();
    info.check_outgoing(&domain("d.example"), SecurityLevel::TlsVerified).unwrap();
    assert_eq!(house.files(), ["a.example.json", "d.example.json"], "a place was free");
}

#[test]
fn threads_that_raise_one_domain_never_lower_it() {
    let house = Fixture::new();
    for round in 0..20 {
        let there = domain(&format!("d{round}.example"));
        let info = Arc::new(house.open());
        let threads: Vec<_> = [0, 1, 2, 3]
            .map(|n| {
                let (info, there) = (Arc::clone(&info), there.clone());
                let raise = move || match n {
                    0 => drop(info.check_outgoing(&there, SecurityLevel::TlsVerified)),
                    1 | 2 => drop(info.check_outgoing(&there, SecurityLevel::TlsUnverified)),
                    _ => drop(info.check_incoming(&there, IncomingSecurityLevel::Tls)),
                };
                spawn("raises", raise).unwrap()
            })
            .into();
        for thread in threads {
            thread.join().unwrap();
        }
        let known = house.open().get(&there);
        assert_eq!(
            (known.incoming, known.outgoing),
            (IncomingSecurityLevel::Tls, SecurityLevel::TlsVerified)
        );
    }
}

#[test]
fn the_cache_is_bounded() {
    let mut house = Fixture::new();
    house.domains_max = 0;
    let info = house.open();
    for n in 0..CACHED_DOMAINS_MAX * 2 {
        let _ = info.get(&domain(&format!("d{n}.example")));
        assert!(info.cache.lock().peers.len() <= CACHED_DOMAINS_MAX);
    }
}

#[test]
fn a_name_too_long_for_a_file_is_not_kept() {
    let house = Fixture::new();
    let long =
        domain(&[["a"; 60].concat(), ["b"; 60].concat(), ["c"; 60].concat(), ["d"; 60].concat()].join("."));
    let info = house.open();
    assert_eq!(info.check_outgoing(&long, SecurityLevel::TlsVerified), Ok(()));
    assert_eq!(info.check_outgoing(&long, SecurityLevel::Plain), Ok(()));
    assert_eq!(house.count("domaininfo_error"), 0);
}
