//! Finds and reads the files that the rules are about.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The source files below `dir`, without those that hold only tests.
pub fn sources(dir: &str) -> Vec<PathBuf> {
    let mut sources = files(dir, &[".rs"]);
    sources.retain(|path| !path.iter().any(|name| name == "tests" || name == "tests.rs"));
    sources
}

/// Every file below `dir` with one of these endings, sorted.
pub fn files(dir: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The files of the repository.
pub fn tracked_files() -> Vec<PathBuf> {
    let listing = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    let text = String::from_utf8(listing.stdout).unwrap();
    let mut names: Vec<_> =
        text.split('\0').filter(|name| !name.is_empty()).map(|name| root().join(name)).collect();
    names.retain(|path| path.is_file());
    names
}

/// The path below the root.
pub fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// A source file without its tests.
pub fn shipped(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()
}

/// `src/queue/spool.rs` and `src/queue/mod.rs` belong to `queue`, `src/route.rs` to `route`.
pub fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}
