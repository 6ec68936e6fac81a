//! The ways to capture a data file.

use std::path::Path;

use crate::source::SourceError;

/// How a data file is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CaptureMode {
    /// While the replica writes it.
    Online,
    /// From a clone that the file system makes in an instant.
    Reflink,
    /// While no server holds it.
    Stopped,
    /// While the server is suspended.
    Pause,
}

impl CaptureMode {
    /// Every mode, the default first.
    pub(crate) const ALL: [CaptureMode; 4] =
        [CaptureMode::Online, CaptureMode::Reflink, CaptureMode::Stopped, CaptureMode::Pause];

    /// The words for [`CaptureMode::ALL`].
    pub(crate) const NAMES: &'static [&'static str] = &["online", "reflink", "stopped", "pause"];

    pub(crate) fn name(self) -> &'static str {
        match self {
            CaptureMode::Online => "online",
            CaptureMode::Reflink => "reflink",
            CaptureMode::Stopped => "stopped",
            CaptureMode::Pause => "pause",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<CaptureMode> {
        CaptureMode::ALL.into_iter().find(|mode| mode.name() == text)
    }

    /// Attempts that make sense: a file that holds still either reads in a few or never.
    pub(crate) fn attempts_max(self, configured: u32) -> u32 {
        match self {
            CaptureMode::Online => configured,
            CaptureMode::Reflink | CaptureMode::Stopped | CaptureMode::Pause => 3,
        }
    }
}

/// A file that cannot be captured in this mode.
pub(super) fn refuse(path: &Path, mode: CaptureMode, reason: &str, hint: &str) -> SourceError {
    SourceError::Mode {
        what: path.display().to_string(),
        mode: mode.name(),
        reason: reason.into(),
        hint: hint.into(),
    }
}
