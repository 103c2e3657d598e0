//! Directories in which other users may write, with links, pipes and directories in the place of files.

use std::fs;
use std::os::unix::fs::{chown, symlink};

use nix::sys::stat::Mode as NixMode;
use nix::unistd::mkfifo;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::sys::SystemRandom;

/// A name that other users can guess.
struct FixedRandom;

impl Random for FixedRandom {
    fn bits(&self) -> u64 {
        7
    }
}

/// A user other than root and the user of the test.
const OTHER_UID: u32 = 65534;

fn is_root() -> bool {
    geteuid().is_root()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A directory, and elsewhere a file that only the user of the test may read.
fn dir_and_secret() -> (TempDir, TempDir, PathBuf) {
    let (dir, elsewhere) = (tempdir().unwrap(), tempdir().unwrap());
    let secret = elsewhere.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    set_mode(&secret, 0o600);
    if is_root() {
        chown(dir.path(), Some(OTHER_UID), Some(OTHER_UID)).unwrap();
    }
    (dir, elsewhere, secret)
}

fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let facts = fs::symlink_metadata(path).unwrap();
    (facts.uid(), facts.gid(), facts.mode() & 0o7777)
}

/// Owner and group. Only if the test runs as root do they differ from those of the test.
fn owner_of(dir: &Path) -> (u32, u32) {
    let (owner, group, _) = owner_and_mode(dir);
    (owner, group)
}

#[test]
fn a_new_file_gets_the_owner_of_the_directory_and_its_replacement_that_of_the_old_file() {
    let (dir, _elsewhere, _) = dir_and_secret();
    let (owner, group) = owner_of(dir.path());
    let open = OpenDir::open(dir.path()).unwrap();
    assert!(open.read("users", 100).unwrap().is_none());
    open.replace(&SystemRandom, "users", "one", None, 0o640).unwrap();
    let file = dir.path().join("users");
    assert_eq!(owner_and_mode(&file), (owner, group, 0o640));
    if is_root() {
        chown(&file, Some(OTHER_UID - 1), Some(OTHER_UID - 2)).unwrap();
    }
    set_mode(&file, 0o4604);
    let (owner, group) = owner_of(&file);
    let old = open.read("users", 100).unwrap().unwrap();
    assert_eq!(old.text, "one");
    open.replace(&SystemRandom, "users", "two", Some(&old), 0o640).unwrap();
    assert_eq!(owner_and_mode(&file), (owner, group, 0o604), "the set-user-ID bit is not copied");
    assert_eq!(fs::read_to_string(&file).unwrap(), "two");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    assert_eq!(open.read("users", 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
}

#[test]
fn a_link_a_pipe_and_a_directory_in_the_place_of_a_file_are_refused() {
    let (dir, _elsewhere, secret) = dir_and_secret();
    let open = OpenDir::open(dir.path()).unwrap();
    symlink(&secret, dir.path().join("link")).unwrap();
    mkfifo(&dir.path().join("pipe"), NixMode::S_IRWXU).unwrap();
    fs::create_dir(dir.path().join("directory")).unwrap();
    for name in ["link", "pipe", "directory"] {
        let error = open.read(name, 100).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}: {error}");
    }
    assert!(open.read("link", 100).unwrap_err().to_string().contains("symbolic link"));
    // Without an old file, the link itself is replaced, not its target.
    let before = owner_and_mode(&secret);
    open.replace(&SystemRandom, "link", "new", None, 0o644).unwrap();
    assert_eq!((owner_and_mode(&secret), fs::read_to_string(&secret).unwrap().as_str()), (before, "secret"));
    assert!(open.replace(&SystemRandom, "directory", "new", None, 0o644).is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "no temporary file is left");
}

#[test]
fn replacing_the_temporary_file_by_a_link_changes_no_other_file() {
    let (dir, _elsewhere, secret) = dir_and_secret();
    let before = owner_and_mode(&secret);
    let open = OpenDir::open(dir.path()).unwrap();
    let temporary = open.create_temporary_file(&SystemRandom, "users").unwrap();
    let name = dir.path().join(&temporary.name);
    fs::remove_file(&name).unwrap();
    symlink(&secret, &name).unwrap();
    let like = OwnerAndMode { owner: OTHER_UID, group: OTHER_UID, mode: 0o666 };
    temporary.write("text", like).unwrap();
    temporary.rename_into_place("users").unwrap();
    assert_eq!((owner_and_mode(&secret), fs::read_to_string(&secret).unwrap().as_str()), (before, "secret"));
    // The link has the name now, and the next command refuses it.
    assert!(open.read("users", 100).is_err());
    // A link at the name of the temporary file is not followed, either.
    let taken = dir.path().join(format!(".users.{:016x}", FixedRandom.bits()));
    symlink(dir.path().join("nothing"), &taken).unwrap();
    let refused = open.replace(&FixedRandom, "users", "x", None, 0o644);
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert!(!dir.path().join("nothing").exists());
}

#[test]
fn another_name_of_the_file_keeps_its_text_owner_and_mode() {
    let (dir, _elsewhere, secret) = dir_and_secret();
    let before = owner_and_mode(&secret);
    let file = dir.path().join("users");
    if fs::hard_link(&secret, &file).is_err() {
        // The directories are on different file systems, so there can be no hard link.
        fs::copy(&secret, &file).unwrap();
    }
    let open = OpenDir::open(dir.path()).unwrap();
    let old = open.read("users", 100).unwrap().unwrap();
    open.replace(&SystemRandom, "users", "secret and more", Some(&old), 0o644).unwrap();
    assert_eq!(owner_and_mode(&file), before, "the copy is not readable for more users than the text was");
    assert_eq!((owner_and_mode(&secret), fs::read_to_string(&secret).unwrap().as_str()), (before, "secret"));
}

#[test]
fn a_link_in_the_path_is_followed_if_no_other_user_can_have_made_it() {
    let base = tempdir().unwrap();
    let (ours, theirs, target) =
        (base.path().join("ours"), base.path().join("theirs"), base.path().join("target"));
    for dir in [&ours, &theirs, &target] {
        fs::create_dir(dir).unwrap();
        symlink("../target", dir.join("link")).unwrap();
    }
    set_mode(&theirs, 0o777);
    fs::create_dir(target.join("domain")).unwrap();
    let opened = OpenDir::open(&ours.join("link/domain")).unwrap();
    assert_eq!(opened.path(), fs::canonicalize(target.join("domain")).unwrap());
    let refused = OpenDir::open(&theirs.join("link/domain")).unwrap_err().to_string();
    assert!(refused.contains("theirs/link is a symbolic link"), "{refused}");
    assert!(refused.contains("other users may write"), "{refused}");
    assert!(OpenDir::open(&theirs.join("link")).is_err(), "also as the last name");
    OpenDir::open(&theirs.join("../target/domain")).unwrap();
    symlink("round", ours.join("round")).unwrap();
    assert!(OpenDir::open(&ours.join("round")).is_err());
    if is_root() {
        set_mode(&theirs, 0o755);
        OpenDir::open(&theirs.join("link")).unwrap();
        chown(&theirs, Some(OTHER_UID), Some(OTHER_UID)).unwrap();
        let refused = OpenDir::open(&theirs.join("link")).unwrap_err().to_string();
        assert!(refused.contains("belongs to user 65534"), "{refused}");
    }
}

#[test]
fn a_directory_is_exposed_if_others_may_write_it_or_one_above_it() {
    let base = tempdir().unwrap();
    let (above, dir) = (base.path().join("above"), base.path().join("above/dir"));
    fs::create_dir_all(&dir).unwrap();
    let exposure = || OpenDir::open(&dir).unwrap().exposure().map(ToString::to_string);
    for (mode_above, mode, exposed) in [
        (0o755, 0o755, None),
        (0o755, 0o777, Some("above/dir")),
        (0o755, 0o1777, Some("above/dir")),
        (0o755, 0o775, Some("above/dir")),
        (0o777, 0o755, Some("above")),
        (0o775, 0o755, Some("above")),
        (0o1777, 0o755, None),
    ] {
        set_mode(&above, mode_above);
        set_mode(&dir, mode);
        let reason = exposure();
        let ends = |name: &&str| reason.as_ref().is_some_and(|reason| reason.ends_with(*name));
        assert_eq!(reason.is_some(), exposed.is_some(), "{mode_above:o} {mode:o}: {reason:?}");
        assert!(exposed.as_ref().is_none_or(ends), "{reason:?}");
    }
    if is_root() {
        chown(&dir, Some(OTHER_UID), None).unwrap();
        // The owner of a directory may rename it although the directory above has the sticky bit.
        assert!(exposure().unwrap().starts_with("other users may write"));
        set_mode(&above, 0o755);
        assert!(exposure().unwrap().ends_with("above/dir belongs to user 65534"));
    }
}

#[test]
fn a_new_directory_gets_owner_and_mode_unless_another_user_has_replaced_it() {
    let (dir, _elsewhere, _) = dir_and_secret();
    let (owner, group) = owner_of(dir.path());
    let open = OpenDir::open(dir.path()).unwrap();
    let make = |name: &str| open.create_dir(OsStr::new(name), 0o750);
    assert!(make("new.example").unwrap());
    assert_eq!(owner_and_mode(&dir.path().join("new.example")), (owner, group, 0o750));
    assert!(!make("new.example").unwrap(), "the directory exists");
    symlink("nowhere", dir.path().join("link.example")).unwrap();
    assert!(!make("link.example").unwrap());
    assert!(!dir.path().join("nowhere").exists());
    // Another directory has the name instead of the one that was created.
    let theirs = dir.path().join("theirs.example");
    fs::create_dir(&theirs).unwrap();
    set_mode(&theirs, 0o700);
    fs::write(theirs.join("file"), "").unwrap();
    let before = owner_and_mode(&theirs);
    assert!(open.set_dir_owner_and_mode(OsStr::new("theirs.example"), 0o750).is_err());
    assert!(open.set_dir_owner_and_mode(OsStr::new("link.example"), 0o750).is_err());
    assert_eq!(owner_and_mode(&theirs), before);
}

#[test]
fn a_new_directory_keeps_an_inherited_set_group_id_bit() {
    let (dir, _elsewhere, _) = dir_and_secret();
    set_mode(dir.path(), 0o2755);
    let open = OpenDir::open(dir.path()).unwrap();
    assert!(open.create_dir(OsStr::new("new.example"), 0o750).unwrap());
    assert_eq!(owner_and_mode(&dir.path().join("new.example")).2, 0o2750);
}

#[test]
fn a_lock_that_another_process_keeps_is_waited_for_only_until_the_timeout() {
    let dir = tempdir().unwrap();
    let (one, other) = (OpenDir::open(dir.path()).unwrap(), OpenDir::open(dir.path()).unwrap());
    one.lock(Duration::ZERO).unwrap();
    assert_eq!(other.lock(Duration::ZERO).unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(one);
    other.lock(Duration::ZERO).unwrap();
}
