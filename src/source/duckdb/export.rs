//! Exports: every table as Parquet, or what changed in it since an earlier export.
//!
//! All of it comes from one private copy of the file, and so from one moment. Rows are streamed
//! from the engine into the chain; only keys and hashes of rows are written down in between.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::engine::{Session, TextRow};
use super::index::{Content, Index, SCHEMA, TableEntry};
use super::shape::{self, Shape};
use super::trial::Trials;
use super::wanted::Wanted;
use super::{delta, diff, hashed, overlay, sql};
use crate::ctx::Ctx;
use crate::domain::limits::EXPORT_TABLES_MAX;
use crate::source::{Captured, Chain, MapWriter, ObjectSink, SourceError};

/// Characters of a table's name in the manifest, which is bounded: see [`EXPORT_TABLES_MAX`].
const NAME_CHARS_MAX: usize = 100;

/// One row may wait for another one, be found, or have changed earlier, for so many bytes of what the
/// engine may take: several times what it takes itself, beside what the engine does.
const WAITING_BYTES: u64 = 512;

/// The table of the session with what changed in one of the exported.
const CHANGES: &str = "temp.main.bkp_changes";

/// What an export lacks, as far as the manifest names it, items.
const LOST_MAX: usize = 100;

/// What an engine makes of [`hashed::PROBE`].
pub(super) fn probe(session: &Session) -> anyhow::Result<String> {
    let rows = session.rows(hashed::PROBE)?;
    Ok(rows.into_iter().flatten().map(Option::unwrap_or_default).collect::<Vec<_>>().join(" "))
}

/// The content of the table `from` that looks like `table`.
pub(super) fn content(
    session: &Session,
    table: &TableEntry,
    from: &str,
) -> anyhow::Result<Content> {
    content_from(session, &delta::content(table, from))
}

/// What a query for the content of a table gives.
fn content_from(session: &Session, query: &str) -> anyhow::Result<Content> {
    let rows = session.rows(query)?;
    let row = rows.into_iter().next().unwrap_or_default();
    let text = |row: &TextRow, at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let count = text(&row, 0).parse().unwrap_or_default();
    Ok(Content { rows: count, sum: text(&row, 1), xor: text(&row, 2) })
}

/// What is exported, and from where.
pub(super) struct Exporting<'a> {
    pub(super) session: Session,
    pub(super) storage_version: String,
    pub(super) wanted: &'a Wanted,
    /// Whether tables are sealed; keys and hashes always are.
    pub(super) sealed: bool,
    /// A folder of ours.
    pub(super) scratch: &'a Path,
    pub(super) ctx: &'a Ctx,
}

/// The chain that an increment adds to: its indexes, base first, and where its keys and hashes are.
struct Before {
    indexes: Vec<Index>,
    folders: Vec<PathBuf>,
    /// What the linked engine makes of [`hashed::PROBE`].
    probe: String,
}

impl Before {
    /// The table as it was, if its rows have the same form.
    fn last(&self, table: &TableEntry) -> Option<&TableEntry> {
        let index = self.indexes.last().filter(|index| index.probe == self.probe)?;
        index.table(&table.schema, &table.name).filter(|last| last.is_alike(table))
    }
}

impl Exporting<'_> {
    /// Pushes schema, tables, keys and hashes, and returns the index.
    pub(super) fn run(
        mut self,
        chain: &Chain<'_>,
        out: &mut dyn ObjectSink,
    ) -> anyhow::Result<Captured> {
        let wanted = self.wanted;
        let trials = Trials::new(&self.session, self.scratch);
        let is_taken = |table: &TableEntry| wanted.has(table) && trials.passes(table);
        let shape = shape::read(&self.session, &is_taken, &self.storage_version, self.scratch)?;
        let bent = trials.failed();
        let mut missing = wanted.missing(&shape.tables, shape.left_out.len() - bent.len())?;
        for pattern in wanted.idle(&shape.left_out) {
            let warning = format!("no table fits `{pattern}` in `exclude`");
            self.ctx.monitor.warn(&warning);
        }
        for name in &shape.depending {
            let why = "left out, since it needs a table that `tables` or `exclude` leave out";
            self.ctx.monitor.warn(&format!("{name} is {why}"));
        }
        let Shape { statements, tables, mut lost, .. } = shape;
        lost.extend(bent);
        let mut index = Index {
            schema: SCHEMA.into(),
            engine: crate::version::duckdb(),
            probe: probe(&self.session)?,
            storage_version: self.storage_version.clone(),
            statements,
            lost,
            tables,
        };
        let count = index.tables.len();
        if count > EXPORT_TABLES_MAX {
            let what = format!("a database with {count} tables");
            let reason = format!(
                "an export has at most {EXPORT_TABLES_MAX}: choose with `tables` and `exclude`"
            );
            return Err(SourceError::Unsupported { what, reason }.into());
        }
        let before = self.before(chain, &index)?;
        let script = index.script();
        out.object("schema", "schema.sql", self.sealed, &mut |out| {
            Ok(out.write_all(script.as_bytes())?)
        })?;
        let mut members = Vec::new();
        for number in 0..count {
            self.ctx.cancel.check()?;
            if let Some(table) = index.tables.get_mut(number) {
                self.table(number + 1, table, before.as_ref(), out, &mut members)?;
            }
        }
        out.archive(&mut |out| {
            for (name, path) in &members {
                let mut file = std::fs::File::open(path)?;
                let size = file.metadata()?.len();
                out.stream(name, size, &mut |out| std::io::copy(&mut file, out).map(|_bytes| ()))?;
            }
            Ok(())
        })?;
        self.session.close()?;
        missing.extend(index.lost.iter().cloned());
        missing.extend(index.untried());
        let encoded = index.encode()?;
        let record = json!({
            "engine": index.engine,
            "tables": index.tables.iter().map(shown).collect::<Vec<_>>(),
            "lost": bounded(&missing),
        });
        let map: MapWriter = Box::new(move |out| out.write_all(&encoded));
        Ok(Captured { record, map: Some(map), lost: missing })
    }

    /// What the chain has, if it was made by an engine that hashes as this one.
    fn before(&self, chain: &Chain<'_>, index: &Index) -> anyhow::Result<Option<Before>> {
        let probe = index.probe.clone();
        let mut before = Before { indexes: Vec::new(), folders: Vec::new(), probe };
        for (order, reader) in chain.iter().enumerate() {
            before.indexes.push(reader.map(self.ctx, &mut |input| Index::read(input))?);
            before.folders.push(self.scratch.join(format!("chain-{order}")));
        }
        if before.indexes.last().is_some_and(|last| last.probe != index.probe) {
            self.ctx.monitor.warn("the export before was made with a DuckDB that computes other hashes: every table is exported in full");
            return Ok(None);
        }
        for (reader, folder) in chain.iter().zip(&before.folders) {
            unpack(reader, folder, self.ctx)?;
        }
        Ok((!before.indexes.is_empty()).then_some(before))
    }

    /// Exports one table: not at all if it is as it was, what changed if that can be told, else all.
    fn table(
        &mut self,
        number: usize,
        table: &mut TableEntry,
        before: Option<&Before>,
        out: &mut dyn ObjectSink,
        members: &mut Vec<(String, PathBuf)>,
    ) -> anyhow::Result<()> {
        let from = table.here();
        let path = self.scratch.join(format!("rows-{number}"));
        let last = before.and_then(|before| before.last(table));
        let query = match last {
            Some(last) => {
                table.content = content(&self.session, table, &from)?;
                if last.content == table.content {
                    (table.full, table.data, table.rows_member) = (false, None, None);
                    return Ok(());
                }
                let files = before.and_then(|before| state_files(before, table));
                match files.filter(|_| delta::is_divisible(table)) {
                    Some(files) => self.changes(table, &last.content, &files, &path)?,
                    None => self.all(table, &path)?,
                }
            }
            None => self.all(table, &path)?,
        };
        let name = object_name(number, table);
        let sealed = self.sealed;
        let (session, ctx) = (&mut self.session, self.ctx);
        out.object("table", &name, sealed, &mut |out| session.stream(&query, out, ctx))?;
        table.data = Some(if sealed { format!("{name}.enc") } else { name });
        let member = member_name(number);
        table.rows_member = Some(member.clone());
        members.push((member, path));
        Ok(())
    }

    /// Writes keys and hashes of all rows; returns the query for the rows. They are hashed once: what
    /// stands for the table is made of the hashes.
    fn all(&self, table: &mut TableEntry, path: &Path) -> anyhow::Result<String> {
        let from = table.here();
        self.session.save(&delta::state(table, &from), path)?;
        let state = format!("read_parquet({})", sql::text(&path.display().to_string()));
        table.content = content_from(&self.session, &delta::content_of_state(table, &state))?;
        table.full = true;
        Ok(delta::rows(table, &from))
    }

    /// Writes keys and hashes of what changed since the state in `files`; returns the query for the rows
    /// that are new or changed. Of the others nothing is written down.
    fn changes(
        &self,
        table: &mut TableEntry,
        last: &Content,
        files: &[String],
        path: &Path,
    ) -> anyhow::Result<String> {
        let from = table.here();
        table.full = false;
        if let Some(counts) = self.differences(table, last, files)?
            && let Some(query) = delta::changes_found(table, files, &from)
        {
            self.note(&query)?;
            if self.noted()? == Some(counts) {
                self.session.save(&delta::bent_changes(table, CHANGES), path)?;
                return Ok(delta::upserts_found(table, &from));
            }
            self.say_joined(table, "not every row that was found came back");
        }
        self.note(&delta::changes(table, &delta::state_of(table, files), &from))?;
        self.session.save(&delta::bent_changes(table, CHANGES), path)?;
        Ok(delta::upserts(table, CHANGES, &from))
    }

    /// Puts the changes that a query gives into the table [`CHANGES`].
    fn note(&self, query: &str) -> anyhow::Result<()> {
        self.session.run(&format!("CREATE OR REPLACE TEMP TABLE bkp_changes AS {query}"))
    }

    /// How many rows are in [`CHANGES`], and how many are gone: of a table with a key.
    fn noted(&self) -> anyhow::Result<Option<[u64; 2]>> {
        let counts = format!(
            "SELECT count(*) FILTER (bkp_live), count(*) FILTER (NOT bkp_live) FROM {CHANGES}"
        );
        let counted = self.session.rows(&counts)?;
        let number = |at| counted.first().and_then(|row| shape::text(row, at).parse().ok());
        Ok(number(0).zip(number(1)).map(|(rows, gone)| [rows, gone]))
    }

    fn say_joined(&self, table: &TableEntry, why: &str) {
        let table = table.plain();
        self.ctx.monitor.detail(&format!("{table}: {why}: it is compared by a join"));
    }

    /// Looks for what changed in one pass over the state in `files` and the table as it is, and puts that
    /// into the tables [`delta::FOUND_ROWS`] and [`delta::FOUND_GONE`]; returns how many rows are in each.
    /// Nothing if that cannot be told so: then a join has to.
    fn differences(
        &self,
        table: &TableEntry,
        last: &Content,
        files: &[String],
    ) -> anyhow::Result<Option<[u64; 2]>> {
        let sequences = delta::sequences(table, files, &table.here()).unwrap_or_default();
        let [base, later @ .., now] = sequences.as_slice() else { return Ok(None) };
        let most = self.session.memory_bytes() / WAITING_BYTES;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut changes = overlay::Changes::default();
        for query in later {
            self.session.numbers(query, &mut |[key, other, hash, live]| {
                changes.add((key, other), (live > 0).then_some(hash));
                changes.count() <= most
            })?;
        }
        let found = if changes.count() <= most {
            // The one that hashes rows is run where times have a zone.
            self.session.side_by_side([now, base], |now, base| {
                diff::differences(&mut changes.over(base), now, most, &self.ctx.cancel)
            })?
        } else {
            None
        };
        let Some(found) = found else {
            self.say_joined(table, "too much of it differs, or is in another order");
            return Ok(None);
        };
        // That what was compared is the export before and the table, the sums show.
        let is_of = |content: &Content, total: diff::Total| {
            content.rows == total.rows && content.sum == total.sum.to_string()
        };
        if !is_of(last, found.before) || !is_of(&table.content, found.now) {
            self.say_joined(table, "the sums of its hashes do not match");
            return Ok(None);
        }
        let rows = found.rows.iter().map(|place| [*place]);
        self.session.fill(delta::FOUND_ROWS, "bkp_r BIGINT", rows)?;
        let gone = found.gone.iter().map(|(key, other)| [*key, *other]);
        self.session.fill(delta::FOUND_GONE, "bkp_a UBIGINT, bkp_b UBIGINT", gone)?;
        Ok(Some([found.rows.len() as u64, found.gone.len() as u64]))
    }
}

/// A table in the manifest. Names in there are cut: those in the index are whole.
fn shown(table: &TableEntry) -> serde_json::Value {
    let name = short(&table.plain(), NAME_CHARS_MAX);
    json!({ "table": name, "rows": table.content.rows, "hash": table.content.sum, "object": table.data })
}

fn short(text: &str, chars_max: usize) -> String {
    let cut = text.chars().take(chars_max).collect::<String>();
    if cut.len() < text.len() { cut + "…" } else { cut }
}

/// As much of a list as the manifest takes; the index has all of it.
fn bounded(list: &[String]) -> Vec<String> {
    let more = list.len().saturating_sub(LOST_MAX);
    let shown = list.iter().take(LOST_MAX).map(|text| short(text, 4 * NAME_CHARS_MAX));
    shown.chain((more > 0).then(|| format!("{more} more, which the run has named"))).collect()
}

/// The files with keys and hashes of a table, from its last full export on; `None` if a link of the
/// chain does not have them.
fn state_files(before: &Before, table: &TableEntry) -> Option<Vec<String>> {
    let mut files = Vec::new();
    for (index, folder) in before.indexes.iter().zip(&before.folders).rev() {
        let index = Some(index).filter(|index| index.probe == before.probe)?;
        let entry = index.table(&table.schema, &table.name)?;
        if let Some(member) = &entry.rows_member {
            files.push(folder.join(member).display().to_string());
        }
        if entry.full {
            files.reverse();
            return Some(files);
        }
    }
    None
}

/// Puts the files with keys and hashes of an export into a folder.
pub(super) fn unpack(
    reader: &crate::pipeline::BackupReader<'_>,
    folder: &Path,
    ctx: &Ctx,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder.join("rows"))?;
    reader.entries(ctx, &mut |name, _size, body| {
        // Names of members never lead out of a folder; only those that an export writes are wanted.
        if name.starts_with("rows/") && name.matches('/').count() == 1 {
            let mut file = std::fs::File::create_new(folder.join(name))?;
            std::io::copy(body, &mut file)?;
        }
        Ok(())
    })
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
