//! Which file of a module imports which: no circles, except a file and its child.
//!
//! Reads `use` declarations and paths that begin with `super::` or `crate::`. A name that a file imports from
//! elsewhere in the module is followed through `pub use` to the file that defines it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::tree::{root, shipped, sources};

/// The modules that the rule is about.
const MODULES: &[&str] = &["queue", "spool", "inbound", "courier", "smtp"];

/// The path of a module or of an item in it, from the root of the crate: `queue::manager`.
type ModulePath = Vec<String>;

/// The files of one module.
struct Files {
    /// Without comments and tests.
    code: BTreeMap<ModulePath, String>,
    /// The paths of `pub use` declarations, by the path that they define.
    exported: BTreeMap<ModulePath, ModulePath>,
    /// The files `mod.rs`, which hold no code.
    fronts: BTreeSet<ModulePath>,
}

impl Files {
    fn read(module: &str) -> Self {
        let (mut code, mut fronts) = (BTreeMap::new(), BTreeSet::new());
        for path in sources("src") {
            let below = path.strip_prefix(root().join("src")).unwrap().with_extension("");
            let mut name: ModulePath = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if name.last().is_some_and(|last| last == "mod") {
                name.pop();
                fronts.insert(name.clone());
            }
            if name.first().is_some_and(|first| first == module) {
                let text = shipped(&path);
                let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                code.insert(name, lines.collect::<Vec<_>>().join("\n"));
            }
        }
        let mut files = Self { code, exported: BTreeMap::new(), fronts };
        for (file, text) in &files.code {
            for path in used_paths(text, &["pub use ", "pub(crate) use ", "pub(super) use "]) {
                let name = path.last().cloned().unwrap_or_default();
                let exported = files.absolute(file, &path);
                files.exported.insert([file.as_slice(), &[name]].concat(), exported);
            }
        }
        files
    }

    /// `super::a::B`, `crate::queue::a::B` or `a::B`, in this file.
    fn absolute(&self, file: &ModulePath, path: &[String]) -> ModulePath {
        let mut base = file.clone();
        let mut rest = path;
        match rest.first().map(String::as_str) {
            Some("crate") => {
                base.clear();
                rest = &rest[1..];
            }
            Some("self") => rest = &rest[1..],
            Some("super") => {
                while rest.first().is_some_and(|part| part == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            // A child, or another crate; that is no file of this one.
            _ => {}
        }
        base.extend(rest.iter().cloned());
        base
    }

    /// The file that defines this path.
    fn file_of(&self, path: &ModulePath) -> Option<&ModulePath> {
        let mut path = path.clone();
        // A chain of exports is short; a circle of them does not compile.
        for _ in 0..8 {
            let export = (1..=path.len()).find_map(|end| Some((end, self.exported.get(&path[..end])?)));
            let Some((end, exported)) = export else { break };
            path = [exported.as_slice(), &path[end..]].concat();
        }
        let file = (1..=path.len()).rev().find_map(|end| self.code.get_key_value(&path[..end]));
        file.map(|(name, _)| name)
    }

    /// Each file, and the files that it imports; without the import of a file by its own child.
    fn imports(&self) -> BTreeMap<&ModulePath, BTreeSet<&ModulePath>> {
        let imports_of = |file: &ModulePath, text: &str| {
            let mut paths = used_paths(text, &["use "]);
            paths.extend(inline_paths(text));
            let found = paths.iter().filter_map(|path| self.file_of(&self.absolute(file, path)));
            let is_import = |other: &&ModulePath| {
                *other != file && !is_parent(other, file) && !self.fronts.contains(*other)
            };
            found.filter(is_import).collect()
        };
        let files = self.code.iter().filter(|(file, _)| !self.fronts.contains(*file));
        files.map(|(file, text)| (file, imports_of(file, text))).collect()
    }
}

fn is_parent(parent: &ModulePath, child: &ModulePath) -> bool {
    child.len() == parent.len() + 1 && child.starts_with(parent)
}

/// The paths of the declarations that begin with one of these keywords, with groups written out.
fn used_paths(code: &str, keywords: &[&str]) -> Vec<ModulePath> {
    let mut found = Vec::new();
    for line_start in code.match_indices('\n').map(|(at, _)| at + 1).chain([0]) {
        let line = code[line_start..].trim_start();
        if let Some(tree) = keywords.iter().find_map(|keyword| line.strip_prefix(keyword)) {
            let tree = tree.split(';').next().unwrap_or_default().replace('\n', " ");
            expand(&[], &tree, &mut found);
        } else if keywords == ["use "] && line.starts_with("pub") {
            found.extend(used_paths(
                line.lines().next().unwrap_or_default(),
                &["pub use ", "pub(crate) use "],
            ));
        }
    }
    found
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn expand(prefix: &[String], tree: &str, found: &mut Vec<ModulePath>) {
    let (path, group) = tree.split_once('{').unwrap_or((tree, ""));
    let path = path.split_once(" as ").map_or(path, |(path, _)| path);
    let mut parts = prefix.to_vec();
    parts.extend(
        path.split("::").map(str::trim).filter(|part| !part.is_empty() && *part != "self").map(str::to_owned),
    );
    if group.is_empty() {
        found.push(parts);
        return;
    }
    let (mut depth, mut item) = (1, String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            if !item.trim().is_empty() {
                expand(&parts, &std::mem::take(&mut item), found);
            }
        } else {
            item.push(c);
        }
        if depth == 0 {
            return;
        }
    }
}

/// Paths in expressions and types: `super::a::b()`, `crate::queue::C`.
fn inline_paths(code: &str) -> Vec<ModulePath> {
    let starts = ["super::", "crate::"].into_iter().flat_map(|word| code.match_indices(word));
    starts
        .filter(|(at, _)| !code[..*at].ends_with("::"))
        .map(|(at, _)| {
            let path = code[at..].chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':'));
            let path: String = path.collect();
            path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()
        })
        .collect()
}

/// Files that import each other, directly or through others: removes files that import no remaining file, and files
/// that no remaining file imports, until only circles and the ways between them are left.
fn circles<'a>(
    mut imports: BTreeMap<&'a ModulePath, BTreeSet<&'a ModulePath>>,
) -> BTreeMap<&'a ModulePath, BTreeSet<&'a ModulePath>> {
    loop {
        let before = imports.len();
        imports.retain(|_, imported| !imported.is_empty());
        let imported: BTreeSet<_> = imports.values().flatten().copied().collect();
        imports.retain(|file, _| imported.contains(*file));
        let left: BTreeSet<_> = imports.keys().copied().collect();
        imports.values_mut().for_each(|imported| imported.retain(|file| left.contains(file)));
        if imports.len() == before {
            return imports;
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle_except_parent_and_child() {
    let mut wrong = String::new();
    for module in MODULES {
        let files = Files::read(module);
        for (file, imported) in circles(files.imports()) {
            let imported: Vec<_> = imported.iter().map(|file| file.join("::")).collect();
            let _ = writeln!(wrong, "{} imports {}", file.join("::"), imported.join(", "));
        }
    }
    assert!(wrong.is_empty(), "files in circles:\n{wrong}");
}

#[test]
fn a_circle_is_found_through_groups_paths_and_exports() {
    let path = |raw: &str| raw.split("::").map(str::to_owned).collect::<ModulePath>();
    let files = |texts: &[(&str, &str)]| {
        let code = texts.iter().map(|(name, text)| (path(name), (*text).to_owned())).collect();
        Files {
            code,
            exported: BTreeMap::from([(path("m::X"), path("m::b::X"))]),
            fronts: BTreeSet::from([path("m")]),
        }
    };
    for (texts, count) in [
        (vec![("m", ""), ("m::a", "use super::b::X;"), ("m::b", "use super::a::Y;")], 2),
        (
            vec![
                ("m", ""),
                ("m::a", "use super::{c::Z, X};"),
                ("m::b", "fn f() { super::a::g(); }"),
                ("m::c", ""),
            ],
            2,
        ),
        (vec![("m", ""), ("m::a", "use crate::m::{X};"), ("m::b", "")], 0),
        (vec![("m", ""), ("m::a", "use self::c::X;"), ("m::a::c", "use super::Y;")], 0),
    ] {
        let files = files(&texts);
        assert_eq!(circles(files.imports()).len(), count, "{texts:?}");
    }
}
