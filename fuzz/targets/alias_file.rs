//! Alias files: a line that cannot be read is named.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use postrider::alias::Aliases;
use postrider::mail::Domain;

fuzz_target!(|text: &str| {
    let Ok(domain) = Domain::parse("here.example") else { return };
    if let Err(errors) = Aliases::parse(text, Path::new("aliases"), &domain) {
        assert!(!errors.is_empty());
        assert!(errors.iter().all(|error| (1..=text.lines().count()).contains(&error.line)));
    }
});
