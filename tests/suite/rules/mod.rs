//! Rules of this project that the compiler does not check.
//!
//! - `layers`: which module may import which
//! - `repository`: dependencies, introductions, file names, standards and links
//! - `tree`: finds and reads the files that the rules are about

mod layers;
mod repository;
mod tree;
