//! Users files: a file that is refused has at least one error.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use postrider::auth::Users;

fuzz_target!(|text: &str| {
    if let Err(errors) = Users::parse(text, Path::new("users")) {
        assert!(!errors.is_empty());
    }
});
