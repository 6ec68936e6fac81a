//! What the operator sees: progress and errors on standard error, reports on standard output, questions
//! on a terminal. The only module that prints.
//!
//! With `--json` every line on standard error is one JSON object: warnings, then at most one error.

mod confirm;
mod error;
mod progress;
mod report;
mod style;

pub use confirm::{ask, confirm};
pub use error::{fail, mistake};
pub use progress::Progress;
pub use report::{answer, report};
pub use style::Style;
