//! Scratch folders, in the state directory and elsewhere, and those left behind by killed runs.
//!
//! All of them are found from one folder of the state directory: those that a run has elsewhere, beside
//! the target of a restore for instance, are stood for there.

use std::path::{Path, PathBuf};

use crate::error::Fault;
use crate::fs::scratch_dir;
use crate::fs::scratch_dir::{LeftBehind, ScratchDir};
use crate::wire::AppContext;

/// What a folder is for: the name of the one that it is in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ScratchPurpose {
    /// Exporting, or standing for a folder elsewhere.
    Work,
    /// Restores of a drill.
    Drill,
}

impl ScratchPurpose {
    const ALL: [ScratchPurpose; 2] = [ScratchPurpose::Work, ScratchPurpose::Drill];

    fn place(self, app: &AppContext) -> PathBuf {
        let name = match self {
            ScratchPurpose::Work => "work",
            ScratchPurpose::Drill => "drill",
        };
        app.settings.state_dir.join(name)
    }
}

/// A folder in the state directory.
///
/// # Errors
/// [`crate::error::Kind::Failed`] if it cannot be made.
pub(crate) fn make(app: &AppContext, what: ScratchPurpose) -> Result<ScratchDir, Fault> {
    ScratchDir::within(&what.place(app))
}

/// Where folders for work are made.
pub(crate) fn place(app: &AppContext) -> PathBuf {
    ScratchPurpose::Work.place(app)
}

/// Lets it be known that a folder is going to be made in `place`, for as long as what this returns
/// lives. A restore goes on where the state directory cannot be written: then only the next one to
/// the same place finds what it leaves if it is killed.
pub(crate) fn elsewhere(app: &AppContext, place: &Path) -> Option<ScratchDir> {
    let noted = make(app, ScratchPurpose::Work).ok()?;
    noted.stand_for(place).ok()?;
    Some(noted)
}

/// A folder for a drill in `place`, or in the state directory.
///
/// # Errors
/// As [`make`].
pub(crate) fn to_drill(app: &AppContext, place: Option<&Path>) -> Result<ScratchDir, Fault> {
    let Some(place) = place else { return make(app, ScratchPurpose::Drill) };
    let noted = elsewhere(app, place);
    Ok(ScratchDir::within(place)?.noted_by(noted))
}

/// The scratch folders that killed runs left behind.
pub(crate) fn left(app: &AppContext) -> Vec<LeftBehind> {
    ScratchPurpose::ALL
        .into_iter()
        .flat_map(|what| scratch_dir::left_behind_in(&what.place(app)))
        .collect()
}

/// Removes what killed runs left, as far as it can be.
pub(crate) fn sweep(app: &AppContext) {
    for what in ScratchPurpose::ALL {
        scratch_dir::sweep(&what.place(app));
    }
}
