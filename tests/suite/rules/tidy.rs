//! The house rules that the compiler does not know.
//!
//! First of them the layers: one crate has no walls between its modules, so this table is the
//! wall. A new arrow between modules is an architectural act: it changes the table here and in
//! ARCHITECTURE.md, and its commit message says why.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each module, and what it may import. Tests inside a file may import more.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "daemon",
            "torture",
            "control",
            "auth",
            "alias",
            "domaininfo",
            "config",
            "tls",
            "queue",
            "observe",
            "route",
            "mail",
            "sys",
        ],
    ),
    (
        "daemon",
        &[
            "inbound",
            "control",
            "monitor",
            "queue",
            "courier",
            "alias",
            "auth",
            "domaininfo",
            "smtp",
            "route",
            "config",
            "dns",
            "tls",
            "observe",
            "mail",
            "sys",
        ],
    ),
    ("torture", &["fakes", "queue", "courier", "route", "observe", "mail", "sys"]),
    ("fakes", &["courier", "dns", "mail", "sys"]),
    (
        "inbound",
        &["queue", "alias", "auth", "domaininfo", "smtp", "stamp", "dns", "tls", "observe", "mail", "sys"],
    ),
    ("control", &["queue", "alias", "auth", "domaininfo", "observe", "mail", "sys"]),
    ("monitor", &["queue", "alias", "auth", "domaininfo", "observe", "mail", "sys"]),
    ("queue", &["spool", "courier", "route", "dsn", "stamp", "observe", "mail", "sys"]),
    ("spool", &["observe", "mail", "sys"]),
    ("courier", &["route", "smtp", "dns", "tls", "domaininfo", "observe", "mail", "sys"]),
    ("alias", &["observe", "mail", "sys"]),
    ("auth", &["observe", "mail", "sys"]),
    ("domaininfo", &["domain_store", "tls", "observe", "mail", "sys"]),
    ("domain_store", &["observe", "mail", "sys"]),
    ("smtp", &["mail"]),
    ("dsn", &["mail"]),
    ("stamp", &["mail"]),
    ("route", &["mail"]),
    ("config", &["mail"]),
    ("dns", &["mail", "sys"]),
    ("tls", &["mail", "sys"]),
    ("observe", &["mail", "sys"]),
    ("sys", &["mail"]),
    ("mail", &[]),
];

/// Crates that bring an event loop, or that we have decided against.
const FORBIDDEN_CRATES: &[&str] =
    &["tokio", "async-std", "smol", "async-io", "mio", "futures-executor", "rsa"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The source files that ship.
fn sources(dir: &str) -> Vec<PathBuf> {
    let mut sources = files(dir, &[".rs"]);
    sources.retain(|path| !path.ends_with("tests.rs"));
    sources
}

/// Every file below `dir` with one of these endings, sorted.
fn files(dir: &str, endings: &[&str]) -> Vec<PathBuf> {
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

/// What the project keeps in its repository: not what a build or a run leaves behind.
fn kept_files() -> Vec<PathBuf> {
    let listing = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    let text = String::from_utf8(listing.stdout).unwrap();
    let mut names: Vec<_> =
        text.split('\0').filter(|name| !name.is_empty()).map(|name| root().join(name)).collect();
    names.retain(|path| path.is_file());
    names
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The part of a source file that ships: everything above its tests.
fn shipped(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()
}

/// `src/queue/spool.rs` and `src/queue/mod.rs` belong to `queue`, `src/route.rs` to `route`.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules named behind `crate::`, also in groups: `use crate::{mail::Domain, sys::Clock}`.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            continue;
        };
        let (mut depth, mut item) = (1, String::new());
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => {
                    found.insert(std::mem::take(&mut item));
                }
                c if depth == 1 && (c.is_alphanumeric() || c == '_' || c == ':') => item.push(c),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        found.insert(item);
    }
    found
        .into_iter()
        .map(|item| item.split(':').next().unwrap_or_default().to_owned())
        .filter(|item| !item.is_empty())
        .collect()
}

#[test]
fn no_module_imports_from_above_or_beside() {
    let mut wrong = Vec::new();
    for path in sources("src") {
        let module = module_of(&path);
        if matches!(module.as_str(), "main" | "lib") {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: {module} has no row in the layer table", shown(&path)));
            continue;
        };
        for import in imports(&shipped(&path)) {
            if import != module && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{}: {module} may not import {import}", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "the layer table forbids:\n{}", wrong.join("\n"));
}

#[test]
fn the_layer_table_has_no_circle_and_is_the_one_in_the_architecture_document() {
    for (place, (module, allowed)) in LAYERS.iter().enumerate() {
        for import in *allowed {
            let theirs = LAYERS.iter().position(|(name, _)| name == import);
            assert!(theirs.is_some_and(|theirs| theirs > place), "{module} must stand above {import}");
        }
    }
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for (module, allowed) in LAYERS {
        let words = if allowed.is_empty() {
            "nothing".to_owned()
        } else {
            allowed.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ")
        };
        let row = format!("| `{module}` | {words} |");
        assert!(document.contains(&row), "ARCHITECTURE.md lacks this row of the layer table:\n{row}");
    }
}

#[test]
fn no_async_runtime_is_in_the_dependency_tree() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--all-features",
            "--edges",
            "all",
            "--target",
            "all",
            "--prefix",
            "none",
            "--no-dedupe",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    assert!(text.contains("rustls v"), "the tree was read");
    for line in text.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        assert!(!FORBIDDEN_CRATES.contains(&name), "{line} is in the dependency tree");
    }
}

#[test]
fn every_package_in_the_list_is_used() {
    let code: String = sources("src").iter().map(|path| shipped(path)).collect();
    for package in [
        "rustls",
        "native_tls",
        "dns_lookup",
        "idna",
        "crossbeam_channel",
        "log",
        "env_logger",
        "serde_json",
        "arc_swap",
    ] {
        assert!(code.contains(&format!("{package}::")), "{package} is in Cargo.toml and nobody calls it");
    }
}

#[test]
fn pure_modules_do_no_input_or_output() {
    let pure = ["src/mail", "src/smtp"];
    let mut wrong = Vec::new();
    let paths = pure.iter().flat_map(|dir| sources(dir));
    for path in paths.chain(["src/route.rs", "src/dsn.rs", "src/stamp.rs"].map(|name| root().join(name))) {
        let text = shipped(&path);
        for word in [
            "std::net::Tcp",
            "std::net::Udp",
            "std::fs",
            "std::thread",
            "std::sync",
            "std::time::Instant",
            "log::",
        ] {
            let says = |line: &str| line.contains(word) && !line.trim_start().starts_with("//");
            // Sharing a value is no lock.
            if text.lines().any(|line| says(line) && !line.contains("std::sync::Arc")) {
                wrong.push(format!("{}: {word}", shown(&path)));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "pure modules have no sockets, files, threads, locks, clocks or logging:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_file_begins_with_an_introduction() {
    for path in files("src", &[".rs"]).into_iter().chain(files("tests", &[".rs"])) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with an introduction", shown(&path));
    }
    for path in files("scripts", &[""]) {
        let text = fs::read_to_string(&path).unwrap();
        let second = text.lines().nth(1).unwrap_or_default();
        assert!(
            text.starts_with("#!") && second.starts_with('#'),
            "{} does not say why it exists",
            shown(&path)
        );
    }
}

#[test]
fn mod_rs_holds_no_types_and_no_functions() {
    for path in files("src", &["mod.rs"]) {
        for line in fs::read_to_string(&path).unwrap().lines() {
            let code = line.trim_start();
            let is_item = ["fn ", "struct ", "enum ", "trait ", "impl "].iter().any(|word| {
                code.trim_start_matches("pub ").trim_start_matches("pub(crate) ").starts_with(word)
            });
            assert!(
                !is_item,
                "{}: a front is introduction, list of files and `pub use`; found: {line}",
                shown(&path)
            );
        }
    }
}

#[test]
fn main_rs_only_calls_the_library() {
    let lines = fs::read_to_string(root().join("src/main.rs")).unwrap().lines().count();
    assert!(lines < 30, "src/main.rs has {lines} lines");
}

#[test]
fn no_file_is_named_util_or_helpers() {
    for path in files("src", &[".rs"]) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        for drawer in ["util", "utils", "common", "helpers", "types", "core", "misc"] {
            assert_ne!(name, drawer, "{}: come back with a name", shown(&path));
        }
    }
}

#[test]
fn every_standard_named_in_the_code_has_a_row_in_the_list_of_standards() {
    let list = fs::read_to_string(root().join("docs/rfc.md")).unwrap();
    let mut missing = BTreeSet::new();
    for path in files("src", &[".rs"]) {
        let text = fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices("RFC ") {
            let number: String = text[at + 4..].chars().take_while(char::is_ascii_digit).collect();
            if !number.is_empty() && !list.contains(&format!("| {number} |")) {
                missing.insert(format!("RFC {number} ({})", shown(&path)));
            }
        }
    }
    assert!(missing.is_empty(), "docs/rfc.md has no row for: {missing:?}");
}

#[test]
fn files_named_in_the_list_of_standards_exist() {
    let list = fs::read_to_string(root().join("docs/rfc.md")).unwrap();
    for word in list.split('`').skip(1).step_by(2) {
        let is_path = ["src/", "tests/", "testdata/"].iter().any(|dir| word.starts_with(dir));
        assert!(!is_path || root().join(word).exists(), "docs/rfc.md names {word}, which does not exist");
    }
}

#[test]
fn the_repository_holds_nothing_unfinished_and_nothing_of_one_machine() {
    // Put together here, so that this file does not find itself.
    let unfinished = ["TO", "FIX", "XX"].map(|start| match start {
        "TO" => format!("{start}DO"),
        "FIX" => format!("{start}ME"),
        _ => format!("{start}X"),
    });
    let machine = [format!("/wo{}/", "rk"), format!("/ho{}/", "me/"), format!("/ro{}/.", "ot")];
    let mut wrong = Vec::new();
    for path in kept_files() {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if path.ends_with("Cargo.lock") {
            continue;
        }
        for (n, line) in text.lines().enumerate() {
            if unfinished.iter().chain(&machine).any(|word| line.contains(word.as_str())) {
                wrong.push(format!("{}:{}: {line}", shown(&path), n + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for path in kept_files().into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "md"))
    {
        let text = fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices("](") {
            let target: String = text[at + 2..].chars().take_while(|c| *c != ')' && *c != '#').collect();
            let is_elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !is_elsewhere && !path.parent().unwrap().join(&target).exists() {
                wrong.push(format!("{} -> {target}", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "dead links:\n{}", wrong.join("\n"));
}
