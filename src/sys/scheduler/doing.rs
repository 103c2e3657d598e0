//! What actors do and wait for.

use std::fmt;
use std::panic::Location;

/// What an actor waits for. Compared only with what others wait for at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sys) enum Key {
    /// The address of a lock, a condition variable, or what the ends of a channel share.
    Object(usize),
    /// The end of an actor.
    End(usize),
}

impl Key {
    pub(in crate::sys) fn of<T>(object: &T) -> Self {
        Self::Object(std::ptr::from_ref(object).addr())
    }
}

/// What an actor is about to do, for the trace.
#[derive(Clone)]
pub(in crate::sys) struct Doing {
    verb: &'static str,
    of: Of,
    place: Option<&'static Location<'static>>,
}

#[derive(Clone)]
enum Of {
    Type(&'static str),
    Text(String),
}

impl Doing {
    /// Something with a lock or a channel of this type, called by the caller's caller.
    #[track_caller]
    pub(in crate::sys) fn with<T>(verb: &'static str) -> Self {
        Self { place: Some(Location::caller()), ..Self::at_drop::<T>(verb) }
    }

    /// The same where the caller is not known.
    pub(in crate::sys) fn at_drop<T>(verb: &'static str) -> Self {
        Self { verb, of: Of::Type(std::any::type_name::<T>()), place: None }
    }

    pub(in crate::sys) fn text(text: String) -> Self {
        Self { verb: "", of: Of::Text(text), place: None }
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Of::Type(name) => write!(f, "{} {}", self.verb, name.replace("postrider::", ""))?,
            Of::Text(text) => write!(f, "{text}")?,
        }
        match self.place {
            Some(place) => write!(f, " at {}:{}", place.file(), place.line()),
            None => Ok(()),
        }
    }
}
