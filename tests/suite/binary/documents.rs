//! Runs the examples in `docs/`, so that they stay true.
//!
//! Each page has a server of its own, for `here.example`, with the user `ana`. The info string after the three
//! backticks of a fenced block gives its purpose:
//!
//! - `toml`: a piece of `postrider.toml` that `postrider check` accepts
//! - `toml server`: the same, and the page's server is configured with it
//! - `text file:PATH`, `sh file:PATH`: a file below the configuration directory, there before the
//!   server starts; a script is made executable
//! - `console`: lines that begin with `$ ` are run, in order, and the lines below are their
//!   output; `…` matches anything in a line, and alone on a line any lines. `\` at its end continues a
//!   command on the next line
//!
//! In commands, `localhost:25`, `:587` and `:465` are replaced by the ports of the page's server.
//! `postrider` uses the server's configuration. `swaks` is the real one; it returns once its message
//! is delivered or deferred, so that the next command sees the result.
//!
//! Any other block is not run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::peers;
use crate::test_server::TestServer;

#[test]
fn the_examples_in_the_documents_are_true() {
    let mut pages: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    pages.sort();
    // Side by side: each page has a server of its own, and its examples mostly wait for a program.
    let examples: usize = std::thread::scope(|scope| {
        let pages: Vec<_> = pages.iter().map(|page| scope.spawn(|| run(page))).collect();
        pages.into_iter().map(|page| page.join().unwrap()).sum()
    });
    assert!(examples > 0, "no page has an example that is run");
}

/// Runs the examples of one page. Returns their number.
fn run(page: &Path) -> usize {
    let blocks = blocks(page);
    let of = |kind: &str| blocks.iter().filter(move |block| block.info == kind).collect::<Vec<_>>();
    of("toml").iter().for_each(|block| check(block));
    let configuration: Vec<_> = of("toml server").iter().map(|block| block.text.as_str()).collect();
    let mut server = TestServer::new(&configuration.join("\n"));
    let files: Vec<_> = blocks.iter().filter(|block| block.info.contains(" file:")).collect();
    for block in &files {
        let (kind, path) = block.info.split_once(" file:").unwrap();
        let path = server.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &block.text).unwrap();
        if kind == "sh" {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let dialogs = of("console");
    if configuration.len() + files.len() + dialogs.len() > 0 {
        let (code, output, errors) = server.run_to_end(&["check"]);
        assert_eq!(code, 0, "{}: its server is not configured well:\n{output}{errors}", page.display());
    }
    if !dialogs.is_empty() {
        server.start();
        dialogs.iter().for_each(|block| type_in(&server, block));
    }
    of("toml").len() + configuration.len() + files.len() + dialogs.len()
}

/// A fenced block.
struct Block {
    /// The info string.
    info: String,
    text: String,
    /// The page and the line where it begins.
    place: String,
}

fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => {
                let place = format!("{}:{}", page.file_name().unwrap().to_string_lossy(), index + 1);
                open = Some(Block { info: info.trim().to_owned(), text: String::new(), place });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a block is not closed", page.display());
    blocks
}

fn check(block: &Block) {
    let server = TestServer::new("");
    // A whole file of its own: the piece may be about [listen].
    let text = format!("hostname = \"mx.here.example\"\ndata-dir = \"data\"\n{}", block.text);
    fs::write(server.path("postrider.toml"), text).unwrap();
    let (code, output, errors) = server.run_to_end(&["check"]);
    assert_eq!(code, 0, "{}: `postrider check` says\n{output}{errors}", block.place);
}

fn type_in(server: &TestServer, block: &Block) {
    let mut lines = block.text.lines().peekable();
    while let Some(line) = lines.next() {
        let command = line.strip_prefix("$ ").unwrap_or_else(|| panic!("{}: no command", block.place));
        let mut command = command.to_owned();
        while command.ends_with('\\') {
            command.push('\n');
            command.push_str(lines.next().unwrap_or_default());
        }
        let mut expected = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
            expected.push(line);
        }
        let printed = shell(server, &at_home(server, &command));
        let printed: Vec<_> = printed.lines().collect();
        assert!(
            are_as_shown(&expected, &printed),
            "{}: `{command}` prints\n{}\nand not\n{}",
            block.place,
            printed.join("\n"),
            expected.join("\n")
        );
    }
}

/// The command with the ports of the page's server instead of the usual ports.
fn at_home(server: &TestServer, command: &str) -> String {
    let ports = [("25", server.smtp_port), ("587", server.submission_port), ("465", server.submissions_port)];
    ports.iter().fold(command.to_owned(), |command, (usual, port)| {
        command.replace(&format!("localhost:{usual} "), &format!("127.0.0.1:{port} "))
    })
}

/// The output of the command, with errors.
fn shell(server: &TestServer, command: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", &format!("exec 2>&1; {command}")])
        .env("PATH", format!("{}:{}", bin(server).display(), std::env::var("PATH").unwrap()))
        .current_dir(server.dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A folder with a `postrider` that uses the page's server, and a `swaks` that waits for the delivery.
fn bin(server: &TestServer) -> PathBuf {
    let bin = server.path("bin");
    if !bin.exists() {
        fs::create_dir_all(&bin).unwrap();
        let (binary, dir) = (env!("CARGO_BIN_EXE_postrider"), server.dir.path().display());
        let postrider = format!("#!/bin/sh\nexec '{binary}' --config '{dir}' \"$@\"\n");
        // Asked twice: a list that is read while a report takes its message's place shows neither.
        let swaks = format!(
            "#!/bin/sh\n'{}' --helo there.example \"$@\"; code=$?\n\
             settled() {{ postrider queue list | grep -Eq 'deferred|is empty'; }}\n\
             for _ in $(seq 600); do\nsettled && settled && exit $code\nsleep 0.05\ndone\n\
             echo 'what swaks handed in is not settled'; exit 1\n",
            peers::program("swaks").display()
        );
        for (name, script) in [("postrider", postrider), ("swaks", swaks)] {
            fs::write(bin.join(name), script).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    bin
}

fn are_as_shown(expected: &[&str], printed: &[&str]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((&"…", rest)) => (0..=printed.len()).any(|skipped| are_as_shown(rest, &printed[skipped..])),
        Some((first, rest)) => printed
            .split_first()
            .is_some_and(|(line, others)| is_as_shown(first, line) && are_as_shown(rest, others)),
    }
}

/// One line, where `…` is anything. Spaces at the end, and how many stand together, do not matter.
fn is_as_shown(expected: &str, line: &str) -> bool {
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (expected, line) = (squeezed(expected), squeezed(line));
    let Some((start, middle)) = expected.split_once('…') else { return expected == line };
    let Some(mut rest) = line.strip_prefix(start) else { return false };
    let mut pieces: Vec<_> = middle.split('…').collect();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(end)
}

#[test]
fn an_ellipsis_matches_anything_and_other_text_matches_itself() {
    assert!(is_as_shown("queued id=… from=<ana>", "queued  id=123 from=<ana> "));
    assert!(is_as_shown("…b…d", "abcd") && !is_as_shown("…b…e", "abcd") && !is_as_shown("a", "ab"));
    assert!(are_as_shown(&["a", "…", "d"], &["a", "b", "c", "d"]) && !are_as_shown(&["a", "…"], &["b"]));
    assert!(are_as_shown(&["…"], &[]) && !are_as_shown(&[], &["a"]));
}
