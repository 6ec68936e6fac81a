//! Configuration: TOML, environment and flags become [`Settings`]. The only reader of the
//! environment.
//!
//! - [`file`]: the TOML document, its keys and their documentation.
//! - [`settings`]: finding the file, resolving defaults, checking what types cannot.
//! - [`environment`]: the variables that count, read once.
//! - `exposure`: who else may change the file, or read it.
//! - [`schema`]: the JSON Schema of the document.
//!
//! How a table of the document is read, and what is wrong with one, is in [`crate::table`], below everything
//! that reads one.

pub mod environment;
mod exposure;
pub mod file;
pub mod schema;
pub mod settings;

pub use environment::Environment;
pub use settings::Settings;
