//! Folders of ours, in the state directory and elsewhere, and what killed runs left of them.
//!
//! All of them are found from one folder of the state directory: those that a run has elsewhere, beside
//! the target of a restore for instance, are stood for there.

use std::path::{Path, PathBuf};

use crate::draft::workshop::{self, Left, Workshop};
use crate::error::Fault;
use crate::wire::House;

/// What a folder is for: the name of the one that it is in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Use {
    /// Exporting, or standing for a folder elsewhere.
    Work,
    /// Drilling.
    Drill,
}

impl Use {
    const ALL: [Use; 2] = [Use::Work, Use::Drill];

    fn place(self, house: &House) -> PathBuf {
        let name = match self {
            Use::Work => "work",
            Use::Drill => "drill",
        };
        house.settings.state_dir.join(name)
    }
}

/// A folder in the state directory.
///
/// # Errors
/// [`crate::error::Kind::Failed`] if it cannot be made.
pub(crate) fn make(house: &House, what: Use) -> Result<Workshop, Fault> {
    Workshop::within(&what.place(house))
}

/// Lets it be known that a folder is going to be made in `place`, for as long as what this returns
/// lives. A restore goes on where the state directory cannot be written: then only the next one to
/// the same place finds what it leaves if it is killed.
pub(crate) fn elsewhere(house: &House, place: &Path) -> Option<Workshop> {
    let noted = make(house, Use::Work).ok()?;
    noted.stand_for(place).ok()?;
    Some(noted)
}

/// A folder for a drill in `place`, or in the state directory.
///
/// # Errors
/// As [`make`].
pub(crate) fn to_drill(house: &House, place: Option<&Path>) -> Result<Workshop, Fault> {
    let Some(place) = place else { return make(house, Use::Drill) };
    let noted = elsewhere(house, place);
    Ok(Workshop::within(place)?.noted_by(noted))
}

/// What killed runs left.
pub(crate) fn left(house: &House) -> Vec<Left> {
    Use::ALL.into_iter().flat_map(|what| workshop::left_in(&what.place(house))).collect()
}

/// Removes what killed runs left, as far as it can be.
pub(crate) fn sweep(house: &House) {
    for what in Use::ALL {
        workshop::sweep(&what.place(house));
    }
}
