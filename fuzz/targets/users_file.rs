//! Users files: a line that cannot be read is named.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use postrider::auth::Users;

fuzz_target!(|text: &str| {
    if let Err(errors) = Users::parse(text, Path::new("users")) {
        assert!(!errors.is_empty());
    }
});
