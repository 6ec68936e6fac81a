//! Exports: every table as Parquet, or what changed in it since an earlier export.
//!
//! All of it comes from one private copy of the file, and so from one moment. Rows are streamed
//! from the engine into the chain, and are hashed on the way; only keys and hashes of what changed are
//! written down in between.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::engine::{CATALOG, SessionOptions, plain};
use crate::blockfile::listing::Hex;
use crate::ctx::Ctx;
use crate::domain::limits::EXPORT_TABLES_MAX;
use crate::error::Kind;
use crate::pipeline::objects::ObjectSink;
use crate::source::duckdb::engine::groups::Groups;
use crate::source::duckdb::engine::limits::EngineLimits;
use crate::source::duckdb::engine::row_hash::RowKeys;
use crate::source::duckdb::export::index::{Index, SCHEMA, TableEntry};
use crate::source::duckdb::export::parquet_roundtrip::RoundTrip;
use crate::source::duckdb::schema::schema_check::{Rehearsal, StaleView};
use crate::source::duckdb::schema::sql;
use crate::source::duckdb::schema::{self, DatabaseSchema};
use crate::source::{Captured, Chain, MapWriter};

pub(crate) mod carrier;
pub(crate) mod content;
pub(crate) mod delta;
mod export_context;
pub(crate) mod hashed;
pub(crate) mod index;
pub(crate) mod links;
pub(crate) mod native;
pub(crate) mod parquet_roundtrip;
mod row_groups;
mod rows;
mod segments;
pub(crate) mod stored;
pub(crate) mod unchanged;

use self::content::{content, probe};
pub(crate) use self::export_context::ExportContext;
use self::rows::{PreviousExport, Selection};

/// Characters of a table's name in the manifest, which is bounded: see [`EXPORT_TABLES_MAX`].
const NAME_CHARS_MAX: usize = 100;

/// What an export lacks, as far as the manifest names it, items.
const LOST_MAX: usize = 100;

/// What is known before rows are exported.
struct PreparedExport<'a> {
    probe: String,
    row_keys: String,
    before: Option<PreviousExport<'a>>,
    /// The rehearsal that found nothing wrong with the schema.
    rehearsed: Option<Hex>,
}

impl ExportContext<'_> {
    /// Pushes schema, tables, keys and hashes, and returns the index.
    pub(crate) fn run(
        mut self,
        chain: &Chain<'_>,
        out: &mut dyn ObjectSink,
    ) -> anyhow::Result<Captured> {
        let wanted = self.wanted;
        let is_taken = |table: &TableEntry| wanted.has(table);
        let mut shape = schema::read(&self.session, &is_taken)?;
        let mut missing = wanted.missing(&shape.tables, shape.left_out.len())?;
        for pattern in wanted.unused_patterns(&shape.left_out) {
            let warning = format!("no table matches `{pattern}` in `exclude`");
            self.ctx.monitor.warn(&plain(&warning));
        }
        let mut tables = std::mem::take(&mut shape.tables);
        let PreparedExport { probe, row_keys, before, rehearsed } =
            self.rehearse_and_prepare(&mut shape, chain, &mut tables)?;
        for name in &shape.depending {
            let why = "left out because it needs a table that `tables` or `exclude` leaves out";
            self.ctx.monitor.warn(&plain(&format!("{name} is {why}")));
        }
        self.row_keys.clone_from(&row_keys);
        let mut index = Index {
            schema: SCHEMA.into(),
            engine: crate::version::duckdb(),
            probe,
            row_keys: Some(row_keys),
            storage_version: self.storage_version.clone(),
            statements: shape.statements,
            rehearsed,
            lost: shape.lost,
            tables,
        };
        index.mark_bare();
        let script = index.script();
        out.object("schema", "schema.sql", self.sealed, &mut |out| {
            Ok(out.write_all(script.as_bytes())?)
        })?;
        let mut members = Vec::new();
        for number in 0..index.tables.len() {
            self.ctx.cancel.check()?;
            if let Some(table) = index.tables.get_mut(number) {
                self.table(number + 1, table, before.as_ref(), out, &mut members)?;
            }
        }
        let (scratch, limits, ctx) = (self.scratch, EngineLimits::ample(self.share), self.ctx);
        self.session.close()?;
        members.extend(companions(&mut index, scratch, limits, ctx)?);
        out.archive(&mut |out| {
            for (name, path) in &members {
                let mut file = std::fs::File::open(path)?;
                let size = file.metadata()?.len();
                out.stream(name, size, &mut |out| std::io::copy(&mut file, out).map(|_bytes| ()))?;
            }
            Ok(())
        })?;
        missing.extend(index.lost.iter().cloned());
        missing.extend(index.untried());
        for text in &mut missing {
            *text = plain(text);
        }
        let encoded = index.encode()?;
        let record = json!({
            "engine": index.engine,
            "tables": index.tables.iter().take(EXPORT_TABLES_MAX).map(shown).collect::<Vec<_>>(),
            "lost": bounded(&missing),
        });
        let map: MapWriter = Box::new(move |out| out.write_all(&encoded));
        Ok(Captured { record, map: Some(map), lost: missing })
    }

    /// Reads the chain that the export adds to, and tries how the tables are exported. Meanwhile another engine
    /// recreates the schema, unless that was done with the same one for the last export.
    fn rehearse_and_prepare<'c>(
        &self,
        shape: &mut DatabaseSchema,
        chain: &'c Chain<'c>,
        tables: &mut [TableEntry],
    ) -> anyhow::Result<PreparedExport<'c>>
    where
        Self: 'c,
    {
        let probe = probe(&self.session)?;
        let before = PreviousExport::read(chain, &probe, self.scratch, self.ctx)?;
        let row_keys = match &before {
            Some(before) => before.row_keys.clone(),
            None => RowKeys::random()?.to_hex(),
        };
        self.session.take_row_keys(Some(&row_keys))?;
        let rehearsal = Rehearsal::of(shape, &self.session, &self.storage_version, self.scratch)?;
        let fingerprint = rehearsal.fingerprint(shape)?;
        let held = before.as_ref().and_then(PreviousExport::rehearsed);
        let rehearsed = if held == Some(fingerprint) {
            self.choose(tables)?;
            held
        } else {
            let stale = self.rehearse_and_choose(shape, &rehearsal, tables)?;
            shape.confirm(&self.session, &stale);
            (shape.is_whole() && stale.is_empty()).then_some(fingerprint)
        };
        Ok(PreparedExport { probe, row_keys, before, rehearsed })
    }

    /// One engine makes the schema anew while the other one tries rows of the tables.
    fn rehearse_and_choose(
        &self,
        shape: &mut DatabaseSchema,
        rehearsal: &Rehearsal<'_>,
        tables: &mut [TableEntry],
    ) -> anyhow::Result<Vec<StaleView>> {
        std::thread::scope(|scope| {
            let rehearsed = std::thread::Builder::new()
                .name("rehearsal".into())
                .spawn_scoped(scope, || shape.rehearse(rehearsal))?;
            let chosen = self.choose(tables);
            let stale =
                rehearsed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            chosen.map(|()| stale)
        })
    }

    /// Marks the tables whose rows do not go through Parquet.
    fn choose(&self, tables: &mut [TableEntry]) -> anyhow::Result<()> {
        let mut sizes = HashMap::new();
        if tables.len() > EXPORT_TABLES_MAX {
            let query = format!(
                "SELECT schema_name, table_name, coalesce(estimated_size, 0) FROM duckdb_tables() WHERE database_name = '{CATALOG}'"
            );
            for row in self.session.rows(&query)? {
                let name = schema::quoted(&schema::text(&row, 0), &schema::text(&row, 1));
                sizes.insert(name, schema::number::<u64>(&row, 2).unwrap_or_default());
            }
        }
        let size = |at: &usize| {
            let table = tables.get(*at).map(TableEntry::quoted).unwrap_or_default();
            std::cmp::Reverse(sizes.get(&table).copied().unwrap_or_default())
        };
        let mut order: Vec<usize> = (0..tables.len()).collect();
        order.sort_by_key(size);
        for (rank, at) in order.into_iter().enumerate() {
            self.ctx.cancel.check()?;
            let Some(table) = tables.get_mut(at) else { continue };
            let why = if rank < EXPORT_TABLES_MAX {
                match parquet_roundtrip::run(&self.session, table, self.scratch, self.ctx)? {
                    RoundTrip::Fails(why) => Some(why),
                    RoundTrip::Passes => None,
                    RoundTrip::Whole => {
                        table.whole = true;
                        None
                    }
                }
            } else {
                Some(format!("{EXPORT_TABLES_MAX} larger ones do"))
            };
            if let Some(why) = why {
                let name = plain(&table.plain());
                let what = "are stored in a separate database file instead of Parquet";
                self.ctx.monitor.detail(&format!("{name}: its rows {what}: {why}"));
                table.native = Some(format!("rows_{at:04}"));
            }
        }
        Ok(())
    }

    /// Exports one table: not at all if it is as it was, what changed if that can be told, else all.
    fn table(
        &mut self,
        number: usize,
        table: &mut TableEntry,
        before: Option<&PreviousExport<'_>>,
        out: &mut dyn ObjectSink,
        members: &mut Vec<(String, PathBuf)>,
    ) -> anyhow::Result<()> {
        if table.native.is_some() {
            // What cannot be told of them is that they come back, and then they are left out.
            table.content = content(&self.session, table, &table.here()).unwrap_or_default();
            return Ok(());
        }
        let path = self.scratch.join(format!("rows-{number}"));
        // Whether rows have changed is told by their hashes.
        let is_told = !table.columns.iter().any(|column| sql::may_collide(&column.data_type));
        let before = before.filter(|_| is_told);
        let last = before.and_then(|before| Some((before, before.last(table)?)));
        let selection = match last {
            Some((before, last)) => self.since(table, before, last, &path)?,
            None => Selection::All,
        };
        let name = object_name(number, table);
        let mut all = Groups::default();
        let (sealed, ctx, session) = (self.sealed, self.ctx, &self.session);
        match &selection {
            Selection::Nothing => {
                table.full = false;
                return Ok(());
            }
            Selection::Changed(query) => {
                out.object("table", &name, sealed, &mut |out| session.stream(query, out, ctx))?;
            }
            Selection::All => {
                let query = delta::tallied_rows(table, &table.here());
                out.object("table", &name, sealed, &mut |out| {
                    all = session.stream_tallied(&query, out, ctx)?;
                    Ok(())
                })?;
            }
        }
        table.full = matches!(selection, Selection::All);
        if table.full {
            table.content = all.content();
            let mut recorded = all.recorded();
            if stored::is_knowable(table, table.content.rows) {
                self.storage().groups(table, Some(&all))?.mark(&all, &mut recorded);
            }
            self.record(table, recorded);
        } else {
            let member = member_name(number);
            table.rows_member = Some(member.clone());
            members.push((member, path));
        }
        table.data = Some(if sealed { format!("{name}.enc") } else { name });
        Ok(())
    }
}

/// Makes the database files that travel with an export, each with its name there: with rows that do not go
/// through Parquet, and with definitions that statements do not make again. The private copy of the
/// database, which is closed, is of no other use any more.
fn companions(
    index: &mut Index,
    scratch: &Path,
    limits: EngineLimits,
    ctx: &Ctx,
) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let copy = scratch.join(format!("{CATALOG}.duckdb"));
    let options =
        SessionOptions { folder: Some(scratch), kind: Kind::Source, limits, ctx: Some(ctx) };
    let mut made = Vec::new();
    if index.tables.iter().any(|table| table.native.is_some()) {
        let (path, failed) = native::make(index, &copy, &options)?;
        for (name, why) in failed {
            index.leave_out(&name, &why);
        }
        made.push((native::MEMBER.to_owned(), path));
    }
    if let Some(path) = carrier::make(index, &copy, &options, ctx)? {
        made.push((carrier::MEMBER.to_owned(), path));
    }
    Ok(made)
}

/// A table in the manifest. Names in there are cut: those in the index are whole.
fn shown(table: &TableEntry) -> serde_json::Value {
    let name = short(&plain(&table.plain()), NAME_CHARS_MAX);
    let object = table.data.as_deref().or(table.native.as_ref().map(|_| native::MEMBER));
    json!({ "table": name, "rows": table.content.rows, "hash": table.content.sum.to_string(), "object": object })
}

fn short(text: &str, chars_max: usize) -> String {
    let cut = text.chars().take(chars_max).collect::<String>();
    if cut.len() < text.len() { cut + "…" } else { cut }
}

/// As much of a list as the manifest takes; the index has all of it.
fn bounded(list: &[String]) -> Vec<String> {
    let more = list.len().saturating_sub(LOST_MAX);
    let shown = list.iter().take(LOST_MAX).map(|text| short(text, 4 * NAME_CHARS_MAX));
    shown.chain((more > 0).then(|| format!("{more} more, named by the run"))).collect()
}

fn member_name(number: usize) -> String {
    format!("rows/{number:04}.parquet")
}

/// The end of an object's name: a number, and so much of the table's name as any store can carry.
fn object_name(number: usize, table: &TableEntry) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let safe = |name: &str| name.chars().take(60).map(plain).collect::<String>();
    format!("{number:04}-{}.{}.parquet", safe(&table.schema), safe(&table.name))
}
