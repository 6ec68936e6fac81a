//! From a chain of exports back to a database file.
//!
//! The newest export's schema and list of tables count. Each table is put together without its
//! constraints beside the new file, goes into it in one piece, and is compared with what was
//! recorded: number of rows, and hashes over them. Indexes, views and comments come last.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::ctx::Ctx;
use crate::error::Kind;
use crate::source::duckdb::engine::limits::EngineLimits;
use crate::source::duckdb::engine::{CATALOG, DatabaseTarget, Session, SessionOptions, plain};
use crate::source::duckdb::export::content::{content, probe};
use crate::source::duckdb::export::index::{Index, SqlObject, Statement, TableEntry};
use crate::source::duckdb::export::links::{broken, indexes};
use crate::source::duckdb::export::{carrier, native};
use crate::source::duckdb::restore::place::RestoreDir;
use crate::source::duckdb::restore::table_loader::TableLoader;
use crate::source::duckdb::schema::schema_check;
use crate::source::{Chain, Check, Compared, Drilled, ResourceLimits, RestoreRequest, Restored};

pub(crate) mod assemble;
mod checks;
pub(crate) mod decode;
pub(crate) mod inspect;
pub(crate) mod place;
mod reread;
pub(crate) mod table_loader;
mod tables;

use tables::{carried, chosen, in_words, is_copied, is_with_table, make_tables};

/// What was built.
struct BuildResult {
    tables: usize,
    rows: u64,
    /// What the file does not have.
    lost: Vec<String>,
    /// Why hashes were not compared, if they were not.
    uncompared: Option<String>,
    /// Tables that are not what was recorded.
    different: usize,
}

impl BuildResult {
    fn found(&self) -> String {
        let BuildResult { tables, rows, uncompared, different, .. } = self;
        if *different > 0 {
            return format!(
                "{tables} tables with {rows} rows, {different} of them different from what was recorded"
            );
        }
        match uncompared {
            None => format!("{tables} tables with {rows} rows, equal to what was recorded"),
            Some(why) => format!(
                "{tables} tables with {rows} rows, as many as were recorded; hashes were not compared, since {why}"
            ),
        }
    }
}

/// Where a file is built, and of what.
pub(crate) struct BuildContext<'a> {
    pub(crate) chain: &'a Chain<'a>,
    pub(crate) folder: &'a Path,
    place: DatabaseTarget<'a>,
    options: SessionOptions<'a>,
    /// Whether everything is wanted, and not only one table.
    all: bool,
    pub(crate) ctx: &'a Ctx,
}

/// A schema that was made.
pub(crate) struct BuiltSchema {
    /// The tables that are there.
    pub(crate) tables: Vec<TableEntry>,
    /// What is to be made when they have their rows.
    left: Vec<Statement>,
    /// The database file with the rows of some.
    pub(crate) rows: Option<PathBuf>,
    /// Whether the linked engine hashes as the one did that made the export.
    pub(crate) comparable: bool,
}

/// Builds the file at `path`, in a folder of ours; of one table only, if it is named, with those it
/// refers to.
fn build(
    chain: &Chain<'_>,
    path: &Path,
    only: Option<&str>,
    limits: EngineLimits,
    ctx: &Ctx,
) -> anyhow::Result<BuildResult> {
    let indexes = indexes(chain, ctx)?;
    let newest = indexes.last().cloned().ok_or_else(|| broken("its chain is empty"))?;
    let context =
        BuildContext { all: only.is_none(), ..BuildContext::of(chain, &newest, path, limits, ctx) };
    let options = context.options;
    // Of a whole database also what the export itself does not have.
    let mut lost = if only.is_none() { newest.lost.clone() } else { Vec::new() };
    let schema = context.schema(&newest, chosen(&newest, only)?, &mut lost)?;
    let comparable = schema.comparable;
    let uncompared = (!comparable).then(|| {
        let linked = crate::version::duckdb();
        format!("DuckDB {}, which made the export, hashes differently from {linked}", newest.engine)
    });
    let left = schema.left.clone();
    let filled = context.rows(indexes, schema, &mut lost)?;
    context.rest(&left, &filled, &mut lost)?;
    let before = lost.len();
    let session = Session::opened(
        DatabaseTarget { file: Some(path), ..DatabaseTarget::default() },
        &options,
    )?;
    session.take_row_keys(newest.row_keys.as_deref())?;
    let rows = compare(session, &filled, comparable, &mut lost)?;
    let different = lost.len() - before;
    for text in &mut lost {
        *text = plain(text);
    }
    std::fs::File::open(path)?.sync_all()?;
    Ok(BuildResult { tables: filled.len(), rows, lost, uncompared, different })
}

impl<'a> BuildContext<'a> {
    /// For all of `newest`, the index of the last link, at `path` in a folder of ours.
    pub(crate) fn of(
        chain: &'a Chain<'a>,
        newest: &'a Index,
        path: &'a Path,
        limits: EngineLimits,
        ctx: &'a Ctx,
    ) -> BuildContext<'a> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let options =
            SessionOptions { folder: Some(folder), kind: Kind::Failed, limits, ctx: Some(ctx) };
        let storage_version = Some(newest.storage_version.as_str());
        let place = DatabaseTarget {
            file: Some(path),
            write: true,
            storage_version,
            ..DatabaseTarget::default()
        };
        BuildContext { chain, folder, place, options, all: true, ctx }
    }

    /// Makes all of the schema.
    pub(crate) fn all_of_schema(
        &self,
        newest: &Index,
        lost: &mut Vec<String>,
    ) -> anyhow::Result<BuiltSchema> {
        self.schema(newest, chosen(newest, None)?, lost)
    }

    /// A session that reads files, with the database file that has the rows of some tables beside it. Only
    /// statements of ours may run there.
    pub(crate) fn session_with_files(&self, rows: Option<&Path>) -> anyhow::Result<Session> {
        let beside: Vec<_> = rows.map(|path| (native::NAME, path)).into_iter().collect();
        Session::opened(
            DatabaseTarget { beside: &beside, files: true, ..self.place },
            &self.options,
        )
    }

    /// A database file that travels with the newest export, if it is wanted and there.
    fn fetch(&self, member: &str, wanted: bool) -> anyhow::Result<Option<PathBuf>> {
        match self.chain.last().filter(|_| wanted) {
            Some(reader) => carrier::unpack(reader, member, self.folder, self.ctx),
            None => Ok(None),
        }
    }

    /// Makes the new file, and in it what tables need, and the tables. Statements of the database run there,
    /// so there are no files.
    fn schema(
        &self,
        newest: &Index,
        tables: Vec<TableEntry>,
        lost: &mut Vec<String>,
    ) -> anyhow::Result<BuiltSchema> {
        let wanted = carried(newest, self.all);
        let carrier = self.fetch(carrier::MEMBER, !wanted.is_empty())?;
        let is_native = tables.iter().any(|table| table.native.is_some());
        let rows = self.fetch(native::MEMBER, is_native)?;
        let beside_rows = rows.as_deref().map(|path| (native::NAME, path));
        let carrier = carrier.as_deref().map(|path| (carrier::NAME, path));
        let beside: Vec<_> = carrier.into_iter().chain(beside_rows).collect();
        let session =
            Session::opened(DatabaseTarget { beside: &beside, ..self.place }, &self.options)?;
        let comparable = probe(&session)? == newest.probe;
        let copied = match carrier {
            Some(_) => carrier::take(&session, &wanted)?,
            None => BTreeSet::new(),
        };
        let mut index = newest.clone();
        index.statements.retain(|statement| !is_copied(statement, &copied));
        let tables = make_tables(&session, &index, tables, self.all, lost);
        session.merge_log()?;
        Ok(BuiltSchema { tables, left: index.statements, rows, comparable })
    }

    /// Brings the rows into the tables; only statements of ours run there. Returns the tables that have theirs.
    fn rows(
        &self,
        indexes: Vec<Index>,
        schema: BuiltSchema,
        lost: &mut Vec<String>,
    ) -> anyhow::Result<Vec<TableEntry>> {
        let (name, stage) = (table_loader::stage(), self.folder.join("stage.duckdb"));
        let rows = schema.rows.as_deref().map(|path| (native::NAME, path));
        let beside: Vec<_> = rows.into_iter().chain([(name.as_str(), stage.as_path())]).collect();
        let place = DatabaseTarget { beside: &beside, files: true, ..self.place };
        let limits = self.options.limits.inserting(&schema.tables);
        let session = Session::opened(place, &SessionOptions { limits, ..self.options })?;
        session.take_row_keys(indexes.last().and_then(|newest| newest.row_keys.as_deref()))?;
        let outside = session.leave_user_schema()?;
        let mut loader = TableLoader {
            outside,
            chain: self.chain,
            indexes,
            session,
            folder: self.folder,
            comparable: schema.comparable,
            ctx: self.ctx,
        };
        let mut filled: Vec<TableEntry> = Vec::new();
        for table in schema.tables {
            self.ctx.cancel.check()?;
            let is_there = |parent: &&String| filled.iter().any(|t| t.quoted() == **parent);
            if let Some(parent) = table.parents.iter().find(|parent| !is_there(parent)) {
                lost.push(format!("the rows of {}: it refers to {parent}", table.quoted()));
                continue;
            }
            match loader.fill_or_say(&table)? {
                None => filled.push(table),
                Some(why) => lost.push(format!("the rows of {}: {why}", table.quoted())),
            }
        }
        loader.session.merge_log()?;
        for name in ["stage.duckdb", "stage.duckdb.wal", carrier::MEMBER, native::MEMBER] {
            // It may have no log.
            let _gone = std::fs::remove_file(self.folder.join(name));
        }
        Ok(filled)
    }

    /// Makes indexes, views and the comments on these, which come last; again without files.
    fn rest(
        &self,
        statements: &[Statement],
        filled: &[TableEntry],
        lost: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        let session = Session::opened(self.place, &self.options)?;
        let names: BTreeSet<String> = filled.iter().map(TableEntry::quoted).collect();
        let later = |statement: &&Statement| match (&statement.table, statement.makes) {
            (Some(table), _) => names.contains(table) || self.all,
            (None, SqlObject::View | SqlObject::Index | SqlObject::Comment) => self.all,
            (None, _) => false,
        };
        let tables = statements.iter().filter(|statement| statement.makes == SqlObject::Table);
        let tables: BTreeSet<String> = tables.map(|table| table.name.clone()).collect();
        let late = statements.iter().filter(|statement| !is_with_table(statement, &tables));
        let failed = schema_check::run(&session, late.filter(later));
        self.ctx.cancel.check()?;
        lost.extend(failed.iter().map(in_words));
        session.merge_log()
    }
}

/// Compares every table of the file, opened anew, with what was recorded; without the hashes if they are
/// not `comparable`. What differs is named: nobody is helped by getting nothing. Returns the rows.
fn compare(
    session: Session,
    tables: &[TableEntry],
    comparable: bool,
    lost: &mut Vec<String>,
) -> anyhow::Result<u64> {
    session.leave_user_schema()?;
    let mut rows = 0;
    for table in tables {
        let found = content(&session, table, &table.here())?;
        let is_same =
            if comparable { found == table.content } else { found.rows == table.content.rows };
        if !is_same {
            lost.push(format!(
                "a check that the table {} is what was exported: it has {} rows with hash {}, recorded {} with {}",
                table.quoted(),
                found.rows,
                found.sum,
                table.content.rows,
                table.content.sum
            ));
        }
        rows += found.rows;
    }
    session.close()?;
    Ok(rows)
}

/// Brings a chain back as a database file.
pub(crate) fn restore(
    chain: &Chain<'_>,
    request: &RestoreRequest,
    ctx: &Ctx,
) -> anyhow::Result<Restored> {
    let scratch = RestoreDir::beside(&request.target)?;
    let built_at = scratch.path(&format!("{CATALOG}.duckdb"));
    let limits = EngineLimits::ample(request.share);
    let built = build(chain, &built_at, request.table.as_deref(), limits, ctx)?;
    let bytes = std::fs::metadata(&built_at)?.len();
    let moved_aside = scratch.publish(&built_at, &request.target, request.force)?;
    let next = format!("open it with DuckDB: {}", built.found());
    let target = request.target.clone();
    Ok(Restored { target, bytes, bytes_written: bytes, moved_aside, next, lost: built.lost })
}

/// Builds the file in `scratch` and compares it.
pub(crate) fn drill(
    chain: &Chain<'_>,
    scratch: &Path,
    share: ResourceLimits,
    ctx: &Ctx,
) -> anyhow::Result<Drilled> {
    let began = Instant::now();
    let path = scratch.join(format!("{CATALOG}.duckdb"));
    let built = build(chain, &path, None, EngineLimits::ample(share), ctx)?;
    let check = Check {
        what: format!("DuckDB {} loads every table", crate::version::duckdb()),
        ok: built.lost.is_empty(),
        found: built.found(),
        hint: (!built.lost.is_empty()).then(|| format!("not in it: {}", built.lost.join("; "))),
    };
    let rto_seconds = began.elapsed().as_secs_f64();
    let compared = if built.uncompared.is_none() { Compared::Equal } else { Compared::Nothing };
    Ok(Drilled { rto_seconds, compared, checks: vec![check] })
}
