//! What an export of a server says of its databases: the object beside the dumps that describes all of them.

use std::io::Read;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::selection::{bounded, plain};
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::pipeline::BackupReader;
use crate::source::Chain;

/// What the `capture` record of an export names as its mode.
pub(super) const MODE: &str = "dump";
/// The schema of the index.
pub(super) const SCHEMA: &str = "bkp.postgres-dumps/1";
/// The end of the name of the object with roles and tablespaces.
pub(super) const GLOBALS: &str = "globals.sql.zst.enc";
/// Longest index that is read, bytes.
const INDEX_BYTES_MAX: u64 = 1 << 30;
/// Databases, and tables of all of them, that the manifest names by itself.
const DATABASES_SHOWN_MAX: usize = 100;
const TABLES_SHOWN_MAX: usize = 500;
/// Characters of a name in the manifest.
const NAME_CHARS_MAX: usize = 130;

/// What an export says of its databases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Index {
    /// [`SCHEMA`].
    pub(crate) schema: String,
    /// The server's version, as it says it.
    pub(crate) version: String,
    /// The same as a number: 180006.
    pub(crate) version_number: u32,
    /// The version of the programs that dumped it.
    pub(crate) client: String,
    /// Whether the roles have their passwords.
    pub(crate) passwords: bool,
    /// Tablespaces besides those of every cluster.
    pub(crate) tablespaces: Vec<String>,
    /// The databases, in the order in which they were dumped.
    pub(crate) databases: Vec<Database>,
    /// Databases that were not dumped, and why.
    pub(crate) left_out: Vec<String>,
}

/// A database and its dump.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Database {
    /// Its name.
    pub(crate) name: String,
    /// The end of its object's name.
    pub(crate) object: String,
    /// The moment whose state it has, by the server's clock.
    pub(crate) moment: String,
    /// The position of the log then.
    pub(crate) lsn: String,
    /// What its catalogue says.
    #[serde(flatten)]
    pub(crate) facts: Facts,
    /// The tables with rows, and how many.
    pub(crate) tables: Vec<Table>,
    /// How many large objects there are in the dump.
    pub(crate) large_objects: u64,
}

/// What the catalogue says of a database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// The role that owns it.
    pub(crate) owner: String,
    /// How text is encoded.
    pub(crate) encoding: String,
    /// Who knows the order of text: `c` libc, `i` ICU, `b` PostgreSQL itself.
    pub(crate) provider: String,
    /// The order of text.
    pub(crate) collate: String,
    /// The kinds of characters.
    pub(crate) ctype: String,
    /// The locale of a provider other than libc.
    #[serde(default)]
    pub(crate) locale: Option<String>,
    /// Rules beside that locale.
    #[serde(default)]
    pub(crate) rules: Option<String>,
    /// Roles that own something in it, or have rights on it.
    #[serde(default)]
    pub(crate) roles: Vec<String>,
    /// Superusers of the server: what they own may read everything when it is made.
    #[serde(default)]
    pub(crate) superusers: Vec<String>,
    /// Extensions with their versions.
    #[serde(default)]
    pub(crate) extensions: Vec<Extension>,
    /// Publications.
    #[serde(default)]
    pub(crate) publications: Vec<Publication>,
    /// Subscriptions.
    #[serde(default)]
    pub(crate) subscriptions: Vec<String>,
}

/// An extension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Extension {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
}

/// A publication.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Publication {
    /// Its name.
    pub(crate) name: String,
    /// Whether it is of all tables, which only a superuser makes.
    pub(crate) all_tables: bool,
}

/// A table and its rows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Table {
    /// Its schema.
    pub(crate) schema: String,
    /// Its name.
    pub(crate) name: String,
    /// How many rows the dump has of it.
    pub(crate) rows: u64,
}

/// Whether a `capture` record is that of an export.
pub(in crate::source::postgres) fn is_dump(record: &Value) -> bool {
    record.get("mode").and_then(Value::as_str) == Some(MODE)
}

impl Index {
    /// Reads that of an export.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if it is none; what the store fails with.
    pub(crate) fn of(link: &BackupReader<'_>, ctx: &Ctx) -> anyhow::Result<Index> {
        link.map(ctx, &mut |input| {
            let mut bytes = Vec::new();
            input.take(INDEX_BYTES_MAX).read_to_end(&mut bytes)?;
            let index: Index = serde_json::from_slice(&bytes).map_err(|error| {
                Fault::new(
                    Kind::Integrity,
                    format!("the list of the dumps cannot be read: {error}"),
                )
            })?;
            if index.schema == SCHEMA {
                return Ok(index);
            }
            let message =
                format!("the list of the dumps has the unknown schema `{}`", index.schema);
            Err(Fault::new(Kind::Refused, message).hint("use a newer version of bkp").into())
        })
    }

    /// The major version of the server.
    pub(crate) fn major(&self) -> anyhow::Result<u8> {
        Ok(u8::try_from(self.version_number / 10_000)?)
    }

    /// The database that is wanted: the one of this name, or the only one.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none of the name; [`Kind::Usage`] if none is named and there are several.
    pub(crate) fn database(&self, name: Option<&str>) -> Result<&Database, Fault> {
        let has = || format!("it has: {}", bounded(self.databases.iter().map(|d| d.name.as_str())));
        match (name, self.databases.as_slice()) {
            (None, [only]) => Ok(only),
            (None, several) => {
                let message = format!("the backup has {} databases", several.len());
                Err(Fault::new(Kind::Usage, message)
                    .hint(format!("choose one with --database; {}", has())))
            }
            (Some(name), all) => {
                all.iter().find(|database| database.name == name).ok_or_else(|| {
                    Fault::new(Kind::NotFound, format!("the backup has no database `{name}`"))
                        .hint(has())
                })
            }
        }
    }

    /// The `capture` record: as much of this as the manifest has room for.
    pub(super) fn record(&self, system: &str) -> Value {
        let mut room = TABLES_SHOWN_MAX;
        let databases = self.databases.iter().take(DATABASES_SHOWN_MAX).map(|database| {
            let shown = database.tables.len().min(room);
            room -= shown;
            let tables = database.tables.iter().take(shown).map(|table| {
                json!({ "table": short(&format!("{}.{}", table.schema, table.name)), "rows": table.rows })
            });
            let rows = database.tables.iter().map(|table| table.rows).fold(0, u64::saturating_add);
            json!({
                "database": short(&database.name),
                "object": database.object,
                "moment": database.moment,
                "lsn": database.lsn,
                "table_count": database.tables.len(),
                "row_count": rows,
                "large_objects": database.large_objects,
                "tables": tables.collect::<Vec<_>>(),
            })
        });
        json!({
            "mode": MODE,
            "consistency": "transaction-consistent, each database by itself",
            "version": self.version,
            "version_number": self.version_number,
            "client": self.client,
            "system": system,
            "passwords": self.passwords,
            "database_count": self.databases.len(),
            "databases": databases.collect::<Vec<_>>(),
        })
    }
}

/// The export that a chain is: one backup.
///
/// # Errors
/// [`Kind::Integrity`] if there is none.
pub(crate) fn export<'c, 's>(chain: &'c Chain<'s>) -> Result<&'c BackupReader<'s>, Fault> {
    chain.last().ok_or_else(|| Fault::new(Kind::Integrity, "the chain is empty"))
}

/// A name as the manifest has it: those in the index are whole.
fn short(name: &str) -> String {
    let name = plain(name);
    match name.char_indices().nth(NAME_CHARS_MAX) {
        None => name,
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
    }
}
