//! Levels of domains are raised, compared, listed and forgotten.

use super::*;
use crate::fakes::{SeededRandom, TestClock, assert_golden};
use crate::sys::{Disk as _, SystemDisk, spawn};

struct Fixture {
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
    random: Arc<SeededRandom>,
    metrics: Metrics,
}

impl Fixture {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Arc::default(),
            random: Arc::default(),
            metrics: Metrics::default(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("data").join("domaininfo")
    }

    /// As after a start of the program.
    fn open(&self) -> DomainInfo {
        let (disk, random) = (Arc::new(SystemDisk), Arc::clone(&self.random));
        let clock = Arc::clone(&self.clock);
        DomainInfo::open(disk, random, clock, &self.metrics, Settings::new(self.dir())).unwrap()
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
fn an_equal_level_passes_a_higher_one_is_saved_and_a_lower_one_is_refused() {
    let fixture = Fixture::new();
    let (info, there) = (fixture.open(), domain("there.example"));
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
    assert_eq!(fixture.count("domaininfo_raised"), 3);
    assert_eq!(fixture.count("domaininfo_refused"), 3);
}

#[test]
fn levels_survive_a_restart_and_every_spelling_is_one_domain() {
    let fixture = Fixture::new();
    fixture.open().check_outgoing(&domain("bücher.example"), SecurityLevel::TlsVerified).unwrap();
    let info = fixture.open();
    assert!(info.check_outgoing(&domain("XN--BCHER-KVA.example"), SecurityLevel::TlsUnverified).is_err());
    assert_eq!(info.get(&domain("bücher.example")).outgoing, SecurityLevel::TlsVerified);
}

#[test]
fn the_file_has_the_pinned_format() {
    let fixture = Fixture::new();
    let info = fixture.open();
    info.check_incoming(&domain("bücher.example"), IncomingSecurityLevel::Tls).unwrap();
    info.check_outgoing(&domain("bücher.example"), SecurityLevel::TlsVerified).unwrap();
    assert_golden("domaininfo.json", &fixture.text("xn--bcher-kva.example.json"));
}

#[test]
fn only_a_domain_that_was_seen_above_plain_text_has_a_file() {
    let fixture = Fixture::new();
    let info = fixture.open();
    info.check_outgoing(&domain("plain.example"), SecurityLevel::Plain).unwrap();
    info.check_incoming(&domain("plain.example"), IncomingSecurityLevel::Plain).unwrap();
    info.check_outgoing(&domain("[192.0.2.1]"), SecurityLevel::TlsVerified).unwrap();
    info.check_outgoing(&domain("[192.0.2.1]"), SecurityLevel::Plain).unwrap();
    assert_eq!(fixture.files(), Vec::<String>::new());
}

#[test]
fn plain_text_passes_again_after_a_domain_was_forgotten() {
    let fixture = Fixture::new();
    let (info, there) = (fixture.open(), domain("there.example"));
    assert!(!info.forget(&there).unwrap());
    info.check_outgoing(&there, SecurityLevel::TlsVerified).unwrap();
    info.check_outgoing(&domain("a.example"), SecurityLevel::TlsUnverified).unwrap();
    let names: Vec<_> = info.list().unwrap().into_iter().map(|known| known.domain).collect();
    assert_eq!(names, [domain("a.example"), there.clone()]);
    assert!(info.forget(&there).unwrap());
    assert_eq!(fixture.files(), ["a.example.json"]);
    assert_eq!(info.check_outgoing(&there, SecurityLevel::Plain), Ok(()));
    assert_eq!(fixture.open().get(&there), StoredLevels::default().into_entry(there));
}

#[test]
fn threads_that_raise_the_level_of_one_domain_never_lower_it() {
    let fixture = Fixture::new();
    for round in 0..20 {
        let there = domain(&format!("d{round}.example"));
        let info = Arc::new(fixture.open());
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
        let known = fixture.open().get(&there);
        assert_eq!(
            (known.incoming, known.outgoing),
            (IncomingSecurityLevel::Tls, SecurityLevel::TlsVerified)
        );
    }
}
