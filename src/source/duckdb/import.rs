//! From a chain of exports back to a database file.
//!
//! The newest export's schema and list of tables count. Each table is put together without its
//! constraints beside the new file, goes into it in one piece, and is compared with what was
//! recorded: number of rows, and hashes over them. Indexes, views and comments come last.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::engine::Session;
use super::index::{Index, Makes, Statement, TableEntry};
use super::place::Workshop;
use super::{delta, export, rehearse, sql};
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::source::{Chain, Check, Compared, Drilled, RestoreRequest, Restored, SourceError};

pub(super) fn broken(what: &str) -> anyhow::Error {
    Fault::new(Kind::Integrity, format!("the export is not whole: {what}")).into()
}

pub(super) fn indexes(chain: &Chain<'_>, ctx: &Ctx) -> anyhow::Result<Vec<Index>> {
    chain.iter().map(|reader| reader.map(ctx, &mut |input| Index::read(input))).collect()
}

/// The links of the chain that hold a table, oldest first: from its last full export on.
pub(super) fn links<'i>(
    indexes: &'i [Index],
    table: &TableEntry,
) -> anyhow::Result<Vec<(usize, &'i TableEntry)>> {
    let mut links = Vec::new();
    for (order, index) in indexes.iter().enumerate().rev() {
        let entry = index.table(&table.schema, &table.name);
        let entry = entry.filter(|entry| entry.is_alike(table));
        let missing = || broken(&format!("it does not have all of the table {}", table.quoted()));
        let entry = entry.ok_or_else(missing)?;
        if entry.data.is_some() {
            links.push((order, entry));
        }
        if entry.full {
            links.reverse();
            return Ok(links);
        }
    }
    Err(broken(&format!("it never had all of the table {}", table.quoted())))
}

/// What was built.
struct Built {
    tables: usize,
    rows: u64,
    lost: Vec<String>,
}

/// A file that is being built.
struct Building<'a> {
    chain: &'a Chain<'a>,
    indexes: Vec<Index>,
    session: Session,
    /// A folder of ours.
    folder: &'a Path,
    /// Which links have their keys and hashes unpacked.
    unpacked: BTreeSet<usize>,
    ctx: &'a Ctx,
}

/// Builds the file at `path`, in a folder of ours; of one table only, if it is named, with those it
/// refers to.
fn build(chain: &Chain<'_>, path: &Path, only: Option<&str>, ctx: &Ctx) -> anyhow::Result<Built> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let indexes = indexes(chain, ctx)?;
    let newest = indexes.last().cloned().ok_or_else(|| broken("its chain is empty"))?;
    let tables = chosen(&newest, only)?;
    create(path, &newest.storage_version, folder)?;
    let session = Session::open(Some(path), true, folder, Kind::Integrity)?;
    if export::probe(&session)? != newest.probe {
        return Err(SourceError::Engine {
            what: format!("an export made with DuckDB {}", newest.engine),
            reason: format!(
                "the linked DuckDB {} computes other hashes, so that nothing could be compared",
                crate::version::duckdb()
            ),
            hint: format!("restore it with a bkp that links DuckDB {}", newest.engine),
        }
        .into());
    }
    let stage = folder.join("stage.duckdb");
    session.run(&format!("ATTACH {} AS bkp_stage", sql::text(&stage.display().to_string())))?;
    let names: BTreeSet<String> = tables.iter().map(TableEntry::quoted).collect();
    let is_wanted = |statement: &&Statement| {
        statement.makes <= Makes::Macro
            || statement.makes == Makes::Table && names.contains(&statement.name)
    };
    let mut lost = newest.lost.clone();
    let failed = rehearse::run(&session, newest.statements.iter().filter(is_wanted));
    if let Some((statement, why)) = failed.iter().find(|(found, _)| found.makes == Makes::Table) {
        return Err(broken(&format!("the table {} cannot be made: {why}", statement.name)));
    }
    lost.extend(failed.iter().map(|(statement, why)| format!("{}: {why}", statement.name)));
    let mut building = Building { chain, indexes, session, folder, unpacked: BTreeSet::new(), ctx };
    for table in &tables {
        ctx.cancel.check()?;
        building.fill(table)?;
    }
    let session = building.session;
    let later = |statement: &&Statement| match statement.makes {
        Makes::View => only.is_none(),
        Makes::Index | Makes::Comment => true,
        Makes::Schema | Makes::Type | Makes::Sequence | Makes::Macro | Makes::Table => false,
    };
    let failed = rehearse::run(&session, newest.statements.iter().filter(later));
    if only.is_none() {
        lost.extend(failed.iter().map(|(statement, why)| format!("{}: {why}", statement.name)));
    }
    session.run("DETACH bkp_stage")?;
    session.settle()?;
    for name in ["stage.duckdb", "stage.duckdb.wal"] {
        // It may have no log.
        let _gone = std::fs::remove_file(folder.join(name));
    }
    let rows = compare(path, &tables, folder)?;
    std::fs::File::open(path)?.sync_all()?;
    Ok(Built { tables: tables.len(), rows, lost })
}

/// An empty file with this storage version.
fn create(path: &Path, storage_version: &str, folder: &Path) -> anyhow::Result<()> {
    let session = Session::open(None, true, folder, Kind::Integrity)?;
    let place = sql::text(&path.display().to_string());
    let version = sql::text(storage_version);
    session.run(&format!("ATTACH {place} AS bkp_new (STORAGE_VERSION {version})"))?;
    session.run("CHECKPOINT bkp_new; DETACH bkp_new")?;
    session.close()
}

/// The tables to bring back, each after those that it refers to.
fn chosen(index: &Index, only: Option<&str>) -> anyhow::Result<Vec<TableEntry>> {
    let mut wanted: BTreeSet<String> = match only {
        None => index.tables.iter().map(TableEntry::quoted).collect(),
        Some(name) => {
            let is_it = |table: &&TableEntry| {
                table.plain() == name || table.schema == "main" && table.name == name
            };
            let found = index.tables.iter().find(is_it).ok_or_else(|| {
                let message = format!("the export has no table `{name}`");
                Fault::new(Kind::NotFound, message).hint(
                    "give it as SCHEMA.TABLE; `bkp list --long --json` names those of an export",
                )
            })?;
            [found.quoted()].into()
        }
    };
    loop {
        let needed: BTreeSet<String> = index
            .tables
            .iter()
            .filter(|table| wanted.contains(&table.quoted()))
            .flat_map(|table| table.parents.iter().cloned())
            .filter(|parent| !wanted.contains(parent))
            .collect();
        if needed.is_empty() {
            break;
        }
        wanted.extend(needed);
    }
    let mut left: Vec<&TableEntry> =
        index.tables.iter().filter(|table| wanted.contains(&table.quoted())).collect();
    let mut ordered: Vec<TableEntry> = Vec::new();
    while !left.is_empty() {
        let names: BTreeSet<String> = left.iter().map(|table| table.quoted()).collect();
        let (ready, rest): (Vec<_>, Vec<_>) =
            left.iter().partition(|table| !table.parents.iter().any(|p| names.contains(p)));
        if ready.is_empty() {
            return Err(broken("its tables refer to each other in a circle"));
        }
        ordered.extend(ready.into_iter().cloned());
        left = rest;
    }
    Ok(ordered)
}

impl Building<'_> {
    /// Brings the rows of one table into the new file.
    fn fill(&mut self, table: &TableEntry) -> anyhow::Result<()> {
        let target = table.quoted();
        let columns: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
        let columns = sql::names(&columns);
        let links: Vec<(usize, TableEntry)> = links(&self.indexes, table)?
            .into_iter()
            .map(|(order, entry)| (order, entry.clone()))
            .collect();
        let at_once = links.len() == 1 && table.own.is_empty();
        let stage = if at_once { target.clone() } else { "bkp_stage.main.rows".to_owned() };
        if !at_once {
            self.session.run(&format!(
                "CREATE OR REPLACE TABLE {stage} AS SELECT {columns} FROM {target} LIMIT 0"
            ))?;
        }
        for (order, entry) in &links {
            if !entry.full {
                let changes = self.rows(*order, entry)?;
                self.session.run(&delta::removal(table, &changes, &stage))?;
            }
            let path = self.fetch(*order, entry)?;
            let from = sql::text(&path.display().to_string());
            self.session.run(&format!(
                "INSERT INTO {stage} ({columns}) SELECT * FROM read_parquet({from})"
            ))?;
            std::fs::remove_file(&path)?;
        }
        if !at_once {
            self.load(table, &stage, &columns)?;
        }
        Ok(())
    }

    /// From the stage into the table with its constraints.
    fn load(&self, table: &TableEntry, stage: &str, columns: &str) -> anyhow::Result<()> {
        let target = table.quoted();
        let insert = format!("INSERT INTO {target} ({columns}) SELECT {columns} FROM {stage} AS s");
        let Some(rule) = delta::loadable(table, &target) else {
            return self.session.run(&insert);
        };
        let left = || -> anyhow::Result<String> {
            let rows = self.session.rows(&format!("SELECT count(*) FROM {stage}"))?;
            Ok(rows.into_iter().flatten().next().flatten().unwrap_or_default())
        };
        let mut before = left()?;
        while before != "0" {
            self.ctx.cancel.check()?;
            self.session.run(&format!(
                "CREATE OR REPLACE TEMP TABLE bkp_next AS SELECT s.rowid AS bkp_r, {columns} FROM {stage} AS s WHERE {rule}"
            ))?;
            self.session
                .run(&format!("INSERT INTO {target} ({columns}) SELECT {columns} FROM bkp_next"))?;
            self.session
                .run(&format!("DELETE FROM {stage} WHERE rowid IN (SELECT bkp_r FROM bkp_next)"))?;
            let now = left()?;
            if now == before {
                return Err(broken(&format!(
                    "{now} rows of {target} refer to each other in a circle"
                )));
            }
            before = now;
        }
        self.session.run("DROP TABLE IF EXISTS bkp_next")
    }

    /// What changed in a link, as a relation.
    fn rows(&mut self, order: usize, entry: &TableEntry) -> anyhow::Result<String> {
        let folder = self.folder.join(format!("chain-{order}"));
        let reader = self.chain.get(order).ok_or_else(|| broken("a link is missing"))?;
        if self.unpacked.insert(order) {
            export::unpack(reader, &folder, self.ctx)?;
        }
        let member = entry.rows_member.as_deref().unwrap_or_default();
        Ok(format!("read_parquet({})", sql::text(&folder.join(member).display().to_string())))
    }

    /// The rows of a link as a file: Parquet is read from its end. Its digest is compared before
    /// anything is made of it.
    fn fetch(&self, order: usize, entry: &TableEntry) -> anyhow::Result<PathBuf> {
        let reader = self.chain.get(order).ok_or_else(|| broken("a link is missing"))?;
        let name = entry.data.as_deref().unwrap_or_default();
        // A name of its own for every file: DuckDB keeps what it has read of one, and tells two
        // files under one name apart by size and time only.
        let path = self.folder.join(format!("fetched-{order}-{name}"));
        reader.named(name, self.ctx, &mut |body| {
            let mut file = std::fs::File::create(&path)?;
            std::io::copy(body, &mut file)?;
            Ok(())
        })?;
        Ok(path)
    }
}

/// Opens the file anew and compares every table with what was recorded. Returns the rows.
fn compare(path: &Path, tables: &[TableEntry], spill: &Path) -> anyhow::Result<u64> {
    let session = Session::open(Some(path), false, spill, Kind::Integrity)?;
    let mut rows = 0;
    for table in tables {
        let found = export::content(&session, table, &table.quoted())?;
        if found != table.content {
            let what = format!(
                "the table {} has {} rows with the hash {}, recorded are {} with {}",
                table.quoted(),
                found.rows,
                found.sum,
                table.content.rows,
                table.content.sum
            );
            return Err(broken(&what));
        }
        rows += found.rows;
    }
    session.close()?;
    Ok(rows)
}

/// Brings a chain back as a database file.
pub(super) fn restore(
    chain: &Chain<'_>,
    request: &RestoreRequest,
    ctx: &Ctx,
) -> anyhow::Result<Restored> {
    let workshop = Workshop::beside(&request.target)?;
    let built_at = workshop.path("restored.duckdb");
    let built = build(chain, &built_at, request.table.as_deref(), ctx)?;
    let bytes = std::fs::metadata(&built_at)?.len();
    let moved_aside = workshop.publish(&built_at, &request.target, request.force)?;
    for lost in &built.lost {
        ctx.monitor.warn(&format!("the export does not have {lost}"));
    }
    Ok(Restored {
        target: request.target.clone(),
        bytes,
        bytes_written: bytes,
        moved_aside,
        next: format!(
            "open it with DuckDB: {} tables with {} rows, equal to what was recorded",
            built.tables, built.rows
        ),
        lost: Vec::new(),
    })
}

/// Builds the file in `scratch` and compares it.
pub(super) fn drill(chain: &Chain<'_>, scratch: &Path, ctx: &Ctx) -> anyhow::Result<Drilled> {
    let began = Instant::now();
    let built = build(chain, &scratch.join("drill.duckdb"), None, ctx)?;
    let check = Check {
        what: format!("DuckDB {} loads every table", crate::version::duckdb()),
        ok: built.lost.is_empty(),
        found: format!("{} tables, {} rows, equal to what was recorded", built.tables, built.rows),
        hint: (!built.lost.is_empty()).then(|| format!("not in it: {}", built.lost.join("; "))),
    };
    let rto_seconds = began.elapsed().as_secs_f64();
    Ok(Drilled { rto_seconds, compared: Compared::Equal, checks: vec![check] })
}
