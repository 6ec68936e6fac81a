//! Names of sealed objects.

/// What an object is called, for [`open_header`](super::open_header).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectName<'a> {
    /// `<backup id>/<object name>`.
    Whole(&'a str),
    /// The name behind an id that only the header tells.
    Behind(&'a str),
}

impl ObjectName<'_> {
    pub(super) fn is(self, name: &str) -> bool {
        match self {
            ObjectName::Whole(whole) => name == whole,
            ObjectName::Behind(rest) => {
                name.split_once('/').is_some_and(|(_id, behind)| behind == rest)
            }
        }
    }

    pub(super) fn shown(&self) -> &str {
        match self {
            ObjectName::Whole(name) | ObjectName::Behind(name) => name,
        }
    }
}
