//! The output of a command: its report, and its progress on standard error.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::error::Kind;

/// The result of a command that ended without an error.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// For `--json`: an object whose first field is `schema`; [`crate::cmd::schema::REPORTS`] has every shape.
    pub value: Value,
    /// The same as text for people.
    pub text: String,
    /// Set where the command did its work and what it found still is not "done": a check of
    /// `doctor` that failed, for instance.
    pub outcome: Option<Kind>,
    /// Whoever asked for quiet need not read it, unless something is wrong.
    pub is_routine: bool,
}

impl Report {
    /// A report of a command that did all it was asked to. `schema` names the stable shape of
    /// `body`, for instance `bkp.list/1`.
    ///
    /// # Errors
    /// If `body` cannot be written as JSON.
    pub fn done(schema: &str, body: &impl Serialize, text: String) -> anyhow::Result<Report> {
        let mut value = serde_json::Map::new();
        value.insert("schema".into(), schema.into());
        if let Value::Object(fields) = serde_json::to_value(body)? {
            value.extend(fields);
        }
        Ok(Report { value: Value::Object(value), text, outcome: None, is_routine: false })
    }

    /// The same report, of no interest to who asked for quiet, as long as all is well.
    #[must_use]
    pub fn routine(mut self) -> Report {
        self.is_routine = true;
        self
    }

    /// The same report with an outcome other than "done".
    #[must_use]
    pub fn with_outcome(mut self, outcome: Option<Kind>) -> Report {
        self.outcome = outcome;
        self
    }
}

/// The stable shape `bkp.error/1`: the last line on standard error of a run that failed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Failure<'a> {
    /// [`Failure::SCHEMA`].
    #[schemars(skip)]
    pub schema: &'a str,
    /// The exit code.
    pub exit_code: u8,
    /// The word for the kind of failure that the exit code stands for.
    pub kind: &'a str,
    /// One line that names the thing it happened to.
    pub message: &'a str,
    /// What led to it, outermost first.
    pub causes: &'a [String],
    /// What to do about it.
    pub hint: &'a str,
}

impl Failure<'_> {
    /// The name of the shape.
    pub const SCHEMA: &'static str = "bkp.error/1";
}

/// The stable shape `bkp.warning/1`: a line on standard error of a run that goes on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Warning<'a> {
    /// [`Warning::SCHEMA`].
    #[schemars(skip)]
    pub schema: &'a str,
    /// The warning, in one line.
    pub message: &'a str,
}

impl Warning<'_> {
    /// The name of the shape.
    pub const SCHEMA: &'static str = "bkp.warning/1";
}
