//! Rules for the repository: dependencies, introductions, file names, standards and links.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::tree::{files, relative, root, shipped, sources, tracked_files};

/// Crates that bring an event loop, or that we have decided against.
const FORBIDDEN_CRATES: &[&str] =
    &["tokio", "async-std", "smol", "async-io", "mio", "futures-executor", "rsa"];

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
        assert!(code.contains(&format!("{package}::")), "{package} is in Cargo.toml and is not used");
    }
}

#[test]
fn every_file_begins_with_an_introduction() {
    for path in files("src", &[".rs"]).into_iter().chain(files("tests", &[".rs"])) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with an introduction", relative(&path));
    }
    for path in files("scripts", &[""]) {
        let text = fs::read_to_string(&path).unwrap();
        let second = text.lines().nth(1).unwrap_or_default();
        assert!(
            text.starts_with("#!") && second.starts_with('#'),
            "{} does not begin with an introduction",
            relative(&path)
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
                "{}: mod.rs has an introduction, a list of files and `pub use`; found: {line}",
                relative(&path)
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
        for forbidden in ["util", "utils", "common", "helpers", "types", "core", "misc"] {
            assert_ne!(name, forbidden, "{}: name the file for its subject", relative(&path));
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
                missing.insert(format!("RFC {number} ({})", relative(&path)));
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
    for path in tracked_files() {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if path.ends_with("Cargo.lock") {
            continue;
        }
        for (n, line) in text.lines().enumerate() {
            if unfinished.iter().chain(&machine).any(|word| line.contains(word.as_str())) {
                wrong.push(format!("{}:{}: {line}", relative(&path), n + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for path in
        tracked_files().into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "md"))
    {
        let text = fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices("](") {
            let target: String = text[at + 2..].chars().take_while(|c| *c != ')' && *c != '#').collect();
            let is_elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !is_elsewhere && !path.parent().unwrap().join(&target).exists() {
                wrong.push(format!("{} -> {target}", relative(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "dead links:\n{}", wrong.join("\n"));
}
