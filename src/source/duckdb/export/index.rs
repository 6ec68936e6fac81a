//! What an export consists of: `index.json`, which travels as the backup's map.
//!
//! It has the statements that make the schema, and of each table its columns, how many rows it has
//! and a hash over them that does not depend on their order; and which objects hold them.

use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::blockfile::listing::Hex;
use crate::error::{Fault, Kind};

/// The schema this version writes and reads.
pub(crate) const SCHEMA: &str = "bkp.duckdb.export/4";

/// Schemas of which rows are as good as ever, but nothing can be compared with their hashes: those of the first
/// took 0 and -1 in columns of 128 bits for the same, those of the other one some nested values.
const SCHEMAS_OF_OTHER_HASHES: [&str; 2] = ["bkp.duckdb.export/1", "bkp.duckdb.export/3"];

/// The schema whose hashes are DuckDB's own, and tell the signs of zeros apart, which DuckDB's storage may not
/// keep.
const SCHEMA_OF_ENGINE_HASHES: &str = "bkp.duckdb.export/2";

/// Largest index that is read, bytes.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// An export.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Index {
    /// [`SCHEMA`].
    pub(crate) schema: String,
    /// The version of DuckDB that computed the hashes.
    pub(crate) engine: String,
    /// Texts and hashes of known values: an engine that makes others of them cannot compare.
    pub(crate) probe: String,
    /// The keys of the rows' hashes, 64 hexadecimal digits, the same for a full export and the increments
    /// that build on it. None where the hashes are DuckDB's own, as up to schema 2.
    #[serde(default)]
    pub(crate) row_keys: Option<String>,
    /// The storage version of the database.
    pub(crate) storage_version: String,
    /// What makes the schema, in an order in which most of it can be made.
    pub(crate) statements: Vec<Statement>,
    /// The rehearsal that found nothing wrong with them: see
    /// [`crate::source::duckdb::schema::schema_check::Rehearsal`]. Nothing where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rehearsed: Option<Hex>,
    /// What the export does not have, in words.
    pub(crate) lost: Vec<String>,
    /// The tables.
    pub(crate) tables: Vec<TableEntry>,
}

/// A statement of the schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Statement {
    /// What it makes.
    pub(crate) makes: SqlObject,
    /// Which one: schema and name, quoted.
    pub(crate) name: String,
    /// The statement.
    pub(crate) sql: String,
    /// The table that it is for, quoted with its schema: of an index, and of a comment on a table, a
    /// column or an index.
    pub(crate) table: Option<String>,
    /// Why it could not be run in an empty database, if it could not: what another engine or another
    /// machine has may be all that it needs.
    pub(crate) tried: Option<String>,
    /// Whether the export's carrier has it, from which it is made where its statement fails.
    #[serde(default)]
    pub(crate) carried: bool,
}

/// What a statement makes, in the order in which they are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SqlObject {
    /// A schema.
    Schema,
    /// A type.
    Type,
    /// A sequence, at its position.
    Sequence,
    /// A macro.
    Macro,
    /// A table with its constraints.
    Table,
    /// A view.
    View,
    /// An index; made when the rows are there.
    Index,
    /// A comment.
    Comment,
}

/// A table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TableEntry {
    /// The schema's true name.
    pub(crate) schema: String,
    /// The true name.
    pub(crate) name: String,
    /// The columns that are stored.
    pub(crate) columns: Vec<Column>,
    /// The columns of the primary key, by their true names.
    pub(crate) key: Option<Vec<String>>,
    /// Tables that it refers to, quoted with their schema.
    pub(crate) parents: Vec<String>,
    /// Its references to itself: columns, and those they refer to.
    pub(crate) own: Vec<(Vec<String>, Vec<String>)>,
    /// Its content.
    pub(crate) content: Content,
    /// Extension of the object with rows: all of them, or those that are new or changed.
    pub(crate) data: Option<String>,
    /// Whether `data` has all of them.
    pub(crate) full: bool,
    /// The member of the data archive with keys and hashes of what changed in the rows. Of a full export
    /// there is none: keys and hashes are those of `data`.
    pub(crate) rows_member: Option<String>,
    /// The table with all of its rows in the database that travels with the archive, where they are not in
    /// an object: see [`crate::source::duckdb::export::native`].
    #[serde(default)]
    pub(crate) native: Option<String>,
    /// Whether the hashes of its rows have a key; without one they are as up to schema 2.
    #[serde(default)]
    pub(crate) keyed_hashes: bool,
    /// What groups of its rows add up to, in their order; none where they have no numbers.
    #[serde(default)]
    pub(crate) groups: Vec<RowGroup>,
    /// Whether it is exported in full when anything in it has changed, since its rows cannot be read from
    /// Parquet to be compared.
    #[serde(default)]
    pub(crate) whole: bool,
    /// Whether a row of the database at hand can be asked for by its number; of no meaning in an index.
    #[serde(skip)]
    pub(crate) row_numbers: RowNumbers,
}

/// Whether a row can be asked for by its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum RowNumbers {
    /// It can.
    #[default]
    Known,
    /// A column, which may be a computed one, has the name that the number has.
    Hidden,
}

/// A group of rows: see [`crate::source::duckdb::engine::groups`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RowGroup {
    /// What they add up to.
    #[serde(flatten)]
    pub(crate) content: Content,
    /// How many rows are in front of them in `data` of the table's last full export, if they are in there and
    /// nothing of them has changed since.
    pub(crate) base_at: Option<u64>,
    /// What they are read from in the database's file, where that is known: see
    /// [`crate::source::duckdb::export::stored`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stored: Option<Hex>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: String,
    /// Its type, as DuckDB writes it.
    pub(crate) data_type: String,
}

/// What rows add up to: equal for equal rows, whatever their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Content {
    /// Rows.
    pub(crate) rows: u64,
    /// Sum of the rows' hashes, decimal.
    #[serde(with = "decimal")]
    pub(crate) sum: u128,
    /// Exclusive or of the rows' hashes, or of their second hashes where they have two, decimal.
    #[serde(with = "decimal")]
    pub(crate) xor: u64,
}

impl Content {
    /// What these rows and others add up to.
    pub(crate) fn plus(&self, other: &Content) -> Content {
        Content {
            rows: self.rows.saturating_add(other.rows),
            sum: self.sum.saturating_add(other.sum),
            xor: self.xor ^ other.xor,
        }
    }
}

/// Numbers as text: JSON has none of this size.
mod decimal {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(
        number: &impl Display,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        // Earlier ones have no number where there are no rows.
        let digits = if text.is_empty() { "0" } else { &text };
        digits.parse().map_err(de::Error::custom)
    }
}

/// How the names of types begin whose values are stored as structs.
const STRUCTS: [&str; 3] = ["STRUCT(", "UNION(", "VARIANT"];

impl TableEntry {
    /// Whether values of it are stored as structs.
    pub(crate) fn has_struct(&self) -> bool {
        let is_struct =
            |column: &Column| STRUCTS.iter().any(|kind| column.data_type.contains(kind));
        self.columns.iter().any(is_struct)
    }

    /// Schema and name, quoted.
    pub(crate) fn quoted(&self) -> String {
        format!(
            "{}.{}",
            crate::source::duckdb::schema::sql::name(&self.schema),
            crate::source::duckdb::schema::sql::name(&self.name)
        )
    }

    /// The table in a database of ours: unlike a name of two parts this one is never ambiguous.
    pub(crate) fn here(&self) -> String {
        format!(
            "{}.{}",
            crate::source::duckdb::schema::sql::name(crate::source::duckdb::engine::CATALOG),
            self.quoted()
        )
    }

    /// Whether it has a column of this name, in any case.
    pub(crate) fn has_column(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// Whether its rows have numbers that can be asked for.
    pub(crate) fn has_rowid(&self) -> bool {
        self.row_numbers == RowNumbers::Known
    }

    /// The true name of a column, which may be written in any case.
    pub(crate) fn true_column(&self, name: &str) -> String {
        let is_it = |column: &&Column| column.name.eq_ignore_ascii_case(name);
        self.columns.iter().find(is_it).map_or(name, |column| &column.name).to_owned()
    }

    /// Schema and name, as people write them.
    pub(crate) fn plain(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Whether rows of both have the same form, the same key, and the same hashes.
    pub(crate) fn is_alike(&self, other: &TableEntry) -> bool {
        self.columns == other.columns
            && self.key == other.key
            && self.keyed_hashes == other.keyed_hashes
    }
}

impl Index {
    /// `index.json`.
    ///
    /// # Errors
    /// [`Kind::Failed`] if it is larger than what is read.
    pub(crate) fn encode(&self) -> anyhow::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        if bytes.len() as u64 > INDEX_BYTES_MAX {
            let size = bytes.len();
            let message = format!(
                "the index of the export would have {size} bytes, more than the limit of {INDEX_BYTES_MAX}"
            );
            let hint = "export fewer tables: see `tables` and `exclude` in the source's table";
            return Err(Fault::new(Kind::Failed, message).hint(hint).into());
        }
        Ok(bytes)
    }

    /// Reads `index.json`.
    ///
    /// # Errors
    /// [`Kind::Integrity`] if it is none.
    pub(crate) fn read(input: &mut dyn Read) -> anyhow::Result<Index> {
        let invalid = |why: String| {
            Fault::new(Kind::Integrity, format!("the index of the export is not valid: {why}"))
        };
        let mut bytes = Vec::new();
        input.take(INDEX_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > INDEX_BYTES_MAX {
            return Err(invalid(format!("it is larger than {INDEX_BYTES_MAX} bytes")).into());
        }
        let mut index: Index =
            serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        match index.schema.as_str() {
            SCHEMA | SCHEMA_OF_ENGINE_HASHES => {}
            other if SCHEMAS_OF_OTHER_HASHES.contains(&other) => index.probe.clear(),
            other => return Err(invalid(format!("its schema is `{other}`")).into()),
        }
        Ok(index)
    }

    /// Takes a table out that cannot be exported, and says so.
    pub(crate) fn leave_out(&mut self, name: &str, why: &str) {
        self.tables.retain(|table| table.quoted() != name);
        self.lost.push(format!("the table {name}: {why}"));
    }

    /// Of a table that has nothing but columns, and rows in a database of its own, the statement is of no
    /// matter: the types of some columns cannot even be written.
    pub(crate) fn mark_bare(&mut self) {
        for statement in &mut self.statements {
            let is_it = |table: &&TableEntry| {
                statement.makes == SqlObject::Table && table.quoted() == statement.name
            };
            let table = self.tables.iter().find(is_it).filter(|table| table.native.is_some());
            statement.carried |= table.is_some_and(|table| {
                let columns = table.columns.iter();
                let columns = columns.map(|column| (&*column.name, &*column.data_type));
                crate::source::duckdb::schema::sql::is_bare(
                    &statement.sql,
                    &columns.collect::<Vec<_>>(),
                )
            });
        }
    }

    /// The statements that could not be run in an empty database, in words.
    pub(crate) fn untried(&self) -> impl Iterator<Item = String> {
        self.statements.iter().filter_map(|statement| {
            let why = statement.tried.as_ref().filter(|_| !statement.carried)?;
            let (word, name) = (statement.makes.word(), &statement.name);
            Some(format!(
                "a check that the {word} {name} can be recreated, only its statement: {why}"
            ))
        })
    }

    /// The table with these true names.
    pub(crate) fn table(&self, schema: &str, name: &str) -> Option<&TableEntry> {
        self.tables.iter().find(|table| table.schema == schema && table.name == name)
    }

    /// The schema as a script for people.
    pub(crate) fn script(&self) -> String {
        let heads = "-- Rows go in after the tables and before the indexes. A statement that needs a later one is to be run again.\n";
        let lines = self.statements.iter().map(|statement| {
            let words = |why: &String| why.replace(['\n', '\r'], " ");
            let tried = statement.tried.as_ref().map(words);
            let tried = tried.map(|why| format!("-- Failed in an empty database: {why}\n"));
            format!("{}{}\n", tried.unwrap_or_default(), statement.sql)
        });
        std::iter::once(heads.to_owned()).chain(lines).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_with_other_hashes_is_read_and_never_compared() {
        let index = |schema: &str| {
            format!(
                r#"{{"schema":"{schema}","engine":"1.5.6","probe":"1 2","storage_version":"v1.0.0","statements":[],"lost":[],"tables":[]}}"#
            )
        };
        let read = |schema: &str| Index::read(&mut index(schema).as_bytes());
        assert_eq!(read(SCHEMA).expect("an index").probe, "1 2");
        assert_eq!(read(SCHEMA_OF_ENGINE_HASHES).expect("an index").probe, "1 2");
        for schema in SCHEMAS_OF_OTHER_HASHES {
            assert_eq!(read(schema).expect("an index").probe, "");
        }
        assert!(read("bkp.duckdb.export/5").is_err());
    }
}
