//! The directories in which programs are looked for.

/// `PATH` of the programs that the server starts, unless the operator gives another.
pub const PROGRAM_SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
