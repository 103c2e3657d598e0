//! Rules of this project that the compiler does not check.
//!
//! - `circles`: which file of a module may import which
//! - `layers`: which module may import which
//! - `repository`: dependencies, introductions, file names, standards and links
//! - `words`: words that are not used
//! - `tree`: finds and reads the files that the rules are about

mod circles;
mod layers;
mod repository;
mod tree;
mod words;
