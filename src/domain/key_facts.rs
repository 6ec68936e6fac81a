//! What is known of a key itself, apart from what it opens.

use time::OffsetDateTime;

/// Whether a key can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyState {
    /// It can.
    Usable,
    /// Its service refuses, until somebody enables it again.
    Disabled,
    /// Its service deletes it, at this time if it tells one.
    Deleting(Option<OffsetDateTime>),
    /// That is not told here.
    #[default]
    Unknown,
}

/// A key, as far as its place tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyFacts {
    /// How recipients call it, where it is not the same for all of its kind.
    pub id: Option<String>,
    /// Since when it exists.
    pub created: Option<OffsetDateTime>,
    /// Whether it can be used.
    pub state: KeyState,
}
