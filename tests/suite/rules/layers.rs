//! Which module may import which.
//!
//! One crate has no walls between its modules, so a table in ARCHITECTURE.md is the wall. A new arrow between modules
//! is an architectural act: it changes the table, and its commit message has the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::tree::{module_of, relative, root, shipped, sources};

/// The table in ARCHITECTURE.md: each module, and the modules that it may import. Tests inside a file may import more.
fn layers() -> Vec<(String, Vec<String>)> {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, table) =
        document.split_once("\n| module | may import |\n|---|---|\n").expect("the table of layers");
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(names);
            (cells.next().unwrap().remove(0), cells.next().unwrap())
        })
        .collect()
}

/// Modules without sockets, files, threads, locks, clocks, randomness and logging.
const PURE: &[&str] = &["smtp", "stamp", "dsn", "route", "config", "mail"];

/// The modules named after `crate::`, also in groups: `use crate::{mail::Domain, sys::Clock}`.
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
    let layers = layers();
    let mut wrong = Vec::new();
    for path in sources("src") {
        let module = module_of(&path);
        if matches!(module.as_str(), "main" | "lib") {
            continue;
        }
        let Some((_, allowed)) = layers.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: {module} has no row in the layer table", relative(&path)));
            continue;
        };
        for import in imports(&shipped(&path)) {
            if import != module && !allowed.contains(&import) {
                wrong.push(format!("{}: {module} may not import {import}", relative(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "the layer table forbids:\n{}", wrong.join("\n"));
}

#[test]
fn the_layer_table_has_no_circle() {
    let layers = layers();
    assert!(layers.len() > 20, "only {} rows were found", layers.len());
    for (place, (module, allowed)) in layers.iter().enumerate() {
        for import in allowed {
            let below = layers.iter().position(|(name, _)| name == import);
            assert!(below.is_some_and(|below| below > place), "{module} must stand above {import}");
        }
    }
}

#[test]
fn the_biggest_module_is_at_most_13_percent_of_the_code() {
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for path in sources("src") {
        *lines.entry(module_of(&path)).or_default() += shipped(&path).lines().count();
    }
    let all: usize = lines.values().sum();
    let too_big: Vec<_> = lines.iter().filter(|(_, lines)| **lines * 100 > all * 13).collect();
    assert!(too_big.is_empty(), "split these modules, in lines of {all}: {too_big:?}");
}

#[test]
fn pure_modules_do_no_input_or_output() {
    let mut wrong = Vec::new();
    for path in sources("src").into_iter().filter(|path| PURE.contains(&module_of(path).as_str())) {
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
                wrong.push(format!("{}: {word}", relative(&path)));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "pure modules have no sockets, files, threads, locks, clocks or logging:\n{}",
        wrong.join("\n")
    );
}
