//! Whether a table comes back from Parquet as it is, where that is not known of its types: Parquet's
//! variants have other types than DuckDB's.

use std::cell::RefCell;
use std::path::Path;

use super::engine::Session;
use super::index::TableEntry;
use super::{delta, export, sql};

/// Tables that were tried.
pub(super) struct Trials<'a> {
    session: &'a Session,
    scratch: &'a Path,
    failed: RefCell<Vec<String>>,
}

impl<'a> Trials<'a> {
    /// None yet; `scratch` is a folder for temporary files.
    pub(super) fn new(session: &'a Session, scratch: &'a Path) -> Self {
        Trials { session, scratch, failed: RefCell::default() }
    }

    /// Whether the table comes back as it is.
    pub(super) fn passes(&self, table: &TableEntry) -> bool {
        if !table.columns.iter().any(|column| column.data_type.contains("VARIANT")) {
            return true;
        }
        let why = match self.comes_back(table) {
            Ok(true) => return true,
            Ok(false) => "they come back as others".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        let name = table.quoted();
        self.failed.borrow_mut().push(format!(
            "the table {name}: Parquet cannot hold its values of the type VARIANT, a snapshot does: {why}"
        ));
        false
    }

    fn comes_back(&self, table: &TableEntry) -> anyhow::Result<bool> {
        // A name for each: DuckDB keeps what it has read of one.
        let path = self.scratch.join(format!("trial-{}.parquet", uuid::Uuid::now_v7()));
        let file = sql::text(&path.display().to_string());
        let names: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
        let (from, names) = (table.here(), sql::names(&names));
        self.session.save(&delta::rows(table, &from), &path)?;
        self.session.run(&format!("CREATE OR REPLACE TEMP TABLE bkp_trial AS SELECT {names} FROM {from} LIMIT 0; INSERT INTO bkp_trial SELECT {names} FROM read_parquet({file})"))?;
        let came = export::content(self.session, table, "temp.main.bkp_trial")?;
        self.session.run("DROP TABLE temp.main.bkp_trial")?;
        std::fs::remove_file(&path)?;
        Ok(came == export::content(self.session, table, &from)?)
    }

    /// Those that do not, in words.
    pub(super) fn failed(self) -> Vec<String> {
        self.failed.into_inner()
    }
}
