//! The contract of a stage: something that bytes pass through on their way to a store.
//!
//! Forwards a chain is made of [`Sink`]s, each owning the next: the source pushes, the store
//! receives. A stage may transform (compress, seal) or only observe (digest); what it learned comes
//! back from [`Sink::finish`] as its entry in the [`ChainStats`]. Backwards a chain is made of plain
//! [`std::io::Read`]s, with a [`crate::error::FirstError`] beside them for typed errors.
//!
//! CPU work and waiting are separated by [`thread_boundary`]s: named threads joined by bounded channels.

use std::time::Duration;

use crate::error::{Classify, Kind, diagnosed};

pub mod digest;
pub mod gzip;
pub(crate) mod parallel;
pub mod seal;
pub mod tee;
pub mod thread_boundary;
pub mod zstd;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// As gzip members, at this level (1 to 9).
    Gzip(u32),
    /// As independent zstd frames, at this level (1 to 19).
    Zstd(i32),
}

/// A stage that bytes are pushed into.
///
/// Dropping a sink without [`Sink::finish`] abandons everything behind it: the last sink of a chain
/// holds a [`crate::store::Upload`], and dropping that leaves nothing visible.
pub trait Sink: Send {
    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// The typed error of the stage or store that failed. After an error only dropping is allowed.
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()>;

    /// Ends the stream: everything behind has finished and is durable when this returns.
    ///
    /// # Errors
    /// As [`Sink::write`]; then nothing behind became visible.
    fn finish(self: Box<Self>) -> anyhow::Result<ChainStats>;
}

/// What one stage measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageStats {
    /// The stage's name, as the chain gave it.
    pub stage: &'static str,
    /// Bytes that went into it.
    pub bytes: u64,
    /// SHA-256 of those bytes, if the stage computed it.
    pub sha256: Option<[u8; 32]>,
    /// Time the stage itself spent, without what it waited for others; zero if not measured.
    pub busy: Duration,
}

/// What all stages of a finished chain measured, in the order of the data flow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainStats(pub Vec<StageStats>);

impl ChainStats {
    /// Puts the measure of a stage before those of the stages behind it.
    #[must_use]
    pub fn preceded_by(mut self, measure: StageStats) -> ChainStats {
        self.0.insert(0, measure);
        self
    }

    /// The measure of the stage with this name.
    #[must_use]
    pub fn get(&self, stage: &str) -> Option<&StageStats> {
        self.0.iter().find(|measure| measure.stage == stage)
    }
}

/// What a stage can fail with.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The bytes are not a sealed object, or not one that this version can open.
    #[error("{object}: not a sealed object of format 1: {reason}")]
    NotSealed {
        /// The object's name.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// A segment did not authenticate: altered, cut, spliced or moved.
    #[error("{object}: segment {segment} does not authenticate")]
    Forged {
        /// The object's name.
        object: String,
        /// Index of the segment, from 0.
        segment: u64,
    },
    /// The stream ended early or went on after its end.
    #[error("{object}: {reason}")]
    Cut {
        /// The object's name.
        object: String,
        /// Where it ended or went on.
        reason: String,
    },
    /// The compressed data is not valid.
    #[error("{object}: cannot decompress: {reason}")]
    Compressed {
        /// The object's name.
        object: String,
        /// What the codec said.
        reason: String,
    },
    /// The bytes are not those that the manifest names.
    #[error("{object}: {what} is {found}, the manifest says {expected}")]
    Differs {
        /// The object's name.
        object: String,
        /// `SHA-256` or `size`.
        what: &'static str,
        /// What was read.
        found: String,
        /// What the manifest says.
        expected: String,
    },
    /// A worker thread ended without a result: a bug of ours.
    #[error("the {stage} stage stopped without a result")]
    Stopped {
        /// The stage.
        stage: &'static str,
    },
}

diagnosed!(StageError);

impl Classify for StageError {
    fn kind(&self) -> Kind {
        match self {
            StageError::NotSealed { .. }
            | StageError::Forged { .. }
            | StageError::Cut { .. }
            | StageError::Compressed { .. }
            | StageError::Differs { .. } => Kind::Integrity,
            StageError::Stopped { .. } => Kind::Failed,
        }
    }
}
