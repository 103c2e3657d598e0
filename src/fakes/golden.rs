//! Compares with files that pin a format. For unit tests.

/// Compares with `testdata/golden/NAME`. `POSTRIDER_GOLDEN=1` writes the file anew first.
///
/// # Panics
/// The text is not that of the file.
pub(crate) fn assert_golden(name: &str, text: &str) {
    let path = format!("{}/testdata/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("POSTRIDER_GOLDEN").is_some() {
        #[expect(clippy::disallowed_methods, reason = "writes the golden file itself, when asked")]
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}: POSTRIDER_GOLDEN=1 writes it");
}
