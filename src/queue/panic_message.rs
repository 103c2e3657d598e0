//! The message of a panic, for logs.

use std::any::Any;

use crate::mail::printable;

/// The message of a panic, printable and at most 500 octets long.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    printable(text.unwrap_or("no words").as_bytes(), 500)
}
