//! Reports what a restore of a chain of exports would be missing, without loading its rows: the schema
//! is created, and every row is read as the table would store it and compared with what was recorded.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use crate::ctx::Ctx;
use crate::source::Chain;
use crate::source::duckdb::engine::{Session, plain};
use crate::source::duckdb::export::content::{content, content_of};
use crate::source::duckdb::export::delta;
use crate::source::duckdb::export::index::{Content, Index, TableEntry};
use crate::source::duckdb::export::links;
use crate::source::duckdb::export::native;
use crate::source::duckdb::export::parquet_roundtrip::content_once_loaded;
use crate::source::duckdb::restore::checks::CheckTrial;
use crate::source::duckdb::restore::{BuildContext, BuiltSchema};
use crate::source::duckdb::schema::sql;

/// A chain whose rows are read, in a folder of ours.
struct RowReader<'a> {
    chain: &'a Chain<'a>,
    indexes: &'a [Index],
    session: &'a Session,
    folder: &'a Path,
    /// Whether the session is outside of the database: see [`Session::leave_user_schema`].
    outside: bool,
    ctx: &'a Ctx,
    read: RefCell<BTreeSet<(usize, String)>>,
    /// What rows are refused by the checks of their tables, in words.
    refused: RefCell<Vec<String>>,
}

/// What a restore would lack that the export does not name itself, in words.
#[derive(Default)]
pub(crate) struct RestoreGaps {
    /// Tables and other objects that cannot be made, or not as they were; rows that a table refuses.
    pub(crate) schema: Vec<String>,
    /// Rows that are not what was recorded.
    pub(crate) rows: Vec<String>,
    /// The objects that were read to their ends: the place of the link, and the extension.
    pub(crate) read: BTreeSet<(usize, String)>,
}

/// Looks for what a restore on `context` would lack. Of constraints only CHECKs are tried, by [`CheckTrial`]: whether
/// rows satisfy keys, references and unique indexes shows a drill, for here tables are empty. Hashes are compared if the linked engine hashes as the one did that
/// made the export.
///
/// # Errors
/// What chain, store and engine say.
pub(crate) fn find_restore_gaps(
    context: &BuildContext<'_>,
    indexes: &[Index],
) -> anyhow::Result<RestoreGaps> {
    let mut gaps = RestoreGaps::default();
    let Some(newest) = indexes.last() else { return Ok(gaps) };
    let schema = context.all_of_schema(newest, &mut gaps.schema)?;
    if schema.comparable && newest.row_keys.is_some() {
        gaps.compare_rows(context, indexes, newest, &schema)?;
    } else {
        let engine = plain(&newest.engine);
        let why = format!(
            "rows are not compared: DuckDB {engine}, which made the export, hashes them in another way"
        );
        context.ctx.monitor.warn(&why);
    }
    // As in a restore they come last: an engine may not open a file again that has some indexes.
    context.rest(&schema.left, &schema.tables, &mut gaps.schema)?;
    Ok(gaps)
}

impl RestoreGaps {
    /// Reads the rows of every table and compares them with what was recorded.
    fn compare_rows(
        &mut self,
        context: &BuildContext<'_>,
        indexes: &[Index],
        newest: &Index,
        schema: &BuiltSchema,
    ) -> anyhow::Result<()> {
        let session = context.session_with_files(schema.rows.as_deref())?;
        session.take_row_keys(newest.row_keys.as_deref())?;
        let outside = session.leave_user_schema()?;
        let (chain, folder, ctx) = (context.chain, context.folder, context.ctx);
        let (read, refused) = (RefCell::default(), RefCell::default());
        let session_of = &session;
        let reader =
            RowReader { chain, indexes, session: session_of, folder, outside, ctx, read, refused };
        for table in &schema.tables {
            ctx.cancel.check()?;
            let why = match reader.difference(table) {
                Ok(why) => why,
                // Words that damage brings from the chain have no refusal of the engine beside them.
                Err(error) => Some(session.refusal_of_rows().ok_or(error)?),
            };
            self.rows.extend(why.map(|why| format!("the rows of {}: {why}", table.quoted())));
        }
        self.schema.extend(reader.refused.into_inner());
        self.read = reader.read.into_inner();
        session.close()
    }
}

impl RowReader<'_> {
    /// How the rows of a table differ from what was recorded.
    fn difference(&self, table: &TableEntry) -> anyhow::Result<Option<String>> {
        if let Some(native) = &table.native {
            let found = content(self.session, table, &native::relation(native))?;
            return Ok(content_difference(&found, &table.content));
        }
        let links = links::of(self.indexes, table)?;
        let data = links.iter().filter_map(|(order, entry)| Some((*order, entry.data.clone()?)));
        self.read.borrow_mut().extend(data);
        let files = links::files(self.chain, &links, self.folder, self.ctx)?;
        let state = files.state(self.session, table, None);
        let checks = CheckTrial::of(self.session, table, self.outside, self.ctx)?;
        // Which rows are gone without a key only a restore finds out.
        let checks = checks.filter(|_| delta::is_keyed(table) || links.len() == 1);
        // What changed later, as a restore tells it.
        let file = |path: &String| format!("read_parquet({})", sql::text(path));
        let later: Vec<String> = state.later.iter().map(file).collect();
        let later_than = |link: usize| later.get(link..).unwrap_or_default();
        let increments = links.iter().skip(1).zip(&state.later).zip(1_usize..);
        for (((order, entry), changes), number) in increments {
            let rows = links::rows(self.chain, *order, entry, self.folder, self.ctx)?;
            let again = delta::rows_again(table, &self.session.path(&rows), None);
            let found = content(self.session, table, &again)?;
            self.try_checks(checks.as_ref(), table, &rows, later_than(number))?;
            std::fs::remove_file(&rows)?;
            let arrivals = delta::content_of_state(table, &delta::arrivals(table, changes));
            let recorded = content_of(self.session, &arrivals)?;
            if let Some(why) = content_difference(&found, &recorded) {
                std::fs::remove_file(&files.base)?;
                return Ok(Some(format!("of what changed in one of its increments, {why}")));
            }
        }
        let found = if table.whole {
            // What Parquet makes of such values shows when they are in a table again.
            content_once_loaded(self.session, table, &files.base)?
        } else if state.later.is_empty() {
            content(self.session, table, &state.base)?
        } else {
            let query = delta::content_of_state(table, &delta::state_of(table, &state));
            content_of(self.session, &query)?
        };
        self.try_checks(checks.as_ref(), table, &files.base, later_than(0))?;
        std::fs::remove_file(&files.base)?;
        Ok(content_difference(&found, &table.content))
    }

    /// Notes if a table's checks refuse rows of a file; one refusal is enough, as for a restore.
    fn try_checks(
        &self,
        checks: Option<&CheckTrial<'_>>,
        table: &TableEntry,
        path: &Path,
        later: &[String],
    ) -> anyhow::Result<()> {
        let Some(checks) = checks else { return Ok(()) };
        let heading = format!("the rows of {}: ", table.quoted());
        if self.refused.borrow().iter().any(|refused| refused.starts_with(&heading)) {
            return Ok(());
        }
        let why = checks.refusal(path, later)?;
        self.refused.borrow_mut().extend(why.map(|why| heading + &why));
        Ok(())
    }
}

fn content_difference(found: &Content, recorded: &Content) -> Option<String> {
    (found != recorded).then(|| {
        format!(
            "read {} rows with hash {}, recorded {} with {}",
            found.rows, found.sum, recorded.rows, recorded.sum
        )
    })
}
