//! Rules of this project that the compiler does not check.

mod tidy;
