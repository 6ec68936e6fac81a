//! Common parts of a snapshot's tar members: numbered names, and the last member, which lists what the
//! file consists of.

use std::io::{Read, Write};

use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};

use crate::error::{Fault, Kind};

/// Name of the last member.
pub const LAYOUT_MEMBER: &str = "layout.json";

/// Reads a number in the name of a member, which has one spelling only.
#[must_use]
pub fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// The content of [`LAYOUT_MEMBER`].
pub trait LayoutFile: Serialize + DeserializeOwned {
    /// Whether it describes a file that can exist; what is wrong if not.
    ///
    /// # Errors
    /// What is wrong.
    fn check(&self) -> Result<(), &'static str>;

    /// Writes it.
    ///
    /// # Errors
    /// What `out` fails with.
    fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        serde_json::to_writer(&mut *out, self).map_err(std::io::Error::from)?;
        out.write_all(b"\n")
    }

    /// Reads and checks it.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if it does not describe a file that can exist.
    fn read(input: &mut dyn Read) -> anyhow::Result<Self> {
        let mut reader = serde_json::Deserializer::from_reader(std::io::BufReader::new(input));
        let layout = Self::deserialize(&mut reader).and_then(|layout| {
            reader.end()?;
            layout.check().map_err(serde_json::Error::custom)?;
            Ok(layout)
        });
        layout.map_err(|error| {
            let message = format!("the block map of the backup is not valid: {error}");
            Fault::new(Kind::Integrity, message).into()
        })
    }
}
