//! From a chain of exports back to a database file.
//!
//! The newest export's schema and list of tables count. Each table is put together without its
//! constraints beside the new file, goes into it in one piece, and is compared with what was
//! recorded: number of rows, and hashes over them. Indexes, views and comments come last.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use super::build::{self, Building};
use super::engine::{CATALOGUE, Opening, Session};
use super::index::{Index, Makes, Statement, TableEntry};
use super::means::Means;
use super::place::Workshop;
use super::{export, rehearse, sql};
use crate::ctx::Ctx;
use crate::error::{Fault, Kind};
use crate::source::{Chain, Check, Compared, Drilled, RestoreRequest, Restored, Share};

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
    /// What the file does not have.
    lost: Vec<String>,
    /// Why hashes were not compared, if they were not.
    uncompared: Option<String>,
}

impl Built {
    fn found(&self) -> String {
        let Built { tables, rows, uncompared, .. } = self;
        match uncompared {
            None => format!("{tables} tables with {rows} rows, equal to what was recorded"),
            Some(why) => format!(
                "{tables} tables with {rows} rows, as many as were recorded; hashes were not compared, since {why}"
            ),
        }
    }
}

/// Builds the file at `path`, in a folder of ours; of one table only, if it is named, with those it
/// refers to.
fn build(
    chain: &Chain<'_>,
    path: &Path,
    only: Option<&str>,
    means: Means,
    ctx: &Ctx,
) -> anyhow::Result<Built> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let indexes = indexes(chain, ctx)?;
    let newest = indexes.last().cloned().ok_or_else(|| broken("its chain is empty"))?;
    let tables = chosen(&newest, only)?;
    let opening = Opening { spill: folder, kind: Kind::Failed, means, ctx: Some(ctx) };
    create(path, &newest.storage_version, &opening)?;
    let session = Session::opened(Some(path), true, &opening)?;
    let comparable = export::probe(&session)? == newest.probe;
    let uncompared = (!comparable).then(|| {
        let linked = crate::version::duckdb();
        format!(
            "DuckDB {}, which made the export, hashes in another way than {linked}",
            newest.engine
        )
    });
    let stage = folder.join("stage.duckdb");
    let name = sql::name(&build::stage());
    // Some types exist since a storage version.
    let version = sql::text(&newest.storage_version);
    let place = sql::text(&stage.display().to_string());
    session.run(&format!("ATTACH {place} AS {name} (STORAGE_VERSION {version})"))?;
    // Of a whole database also what the export itself does not have.
    let mut lost = if only.is_none() { newest.lost.clone() } else { Vec::new() };
    let tables = make_tables(&session, &newest, tables, only.is_none(), &mut lost);
    session.step_out()?;
    let mut building =
        Building { chain, indexes, session, folder, unpacked: BTreeSet::new(), comparable, ctx };
    let mut filled = Vec::new();
    for table in tables {
        ctx.cancel.check()?;
        let is_there =
            |parent: &&String| filled.iter().any(|t: &TableEntry| t.quoted() == **parent);
        if let Some(parent) = table.parents.iter().find(|parent| !is_there(parent)) {
            lost.push(format!("the rows of {}: it refers to {parent}", table.quoted()));
            continue;
        }
        match building.fill(&table)? {
            None => filled.push(table),
            Some(why) => lost.push(format!("the rows of {}: {why}", table.quoted())),
        }
    }
    let session = building.session;
    session.step_in()?;
    let names: BTreeSet<String> = filled.iter().map(TableEntry::quoted).collect();
    let later = |statement: &&Statement| match (&statement.table, statement.makes) {
        (Some(table), _) => names.contains(table) || only.is_none(),
        (None, Makes::View | Makes::Index | Makes::Comment) => only.is_none(),
        (None, _) => false,
    };
    let failed = rehearse::run(&session, newest.statements.iter().filter(later));
    ctx.cancel.check()?;
    lost.extend(failed.iter().map(in_words));
    session.run(&format!("DETACH {name}"))?;
    session.settle()?;
    for name in ["stage.duckdb", "stage.duckdb.wal"] {
        // It may have no log.
        let _gone = std::fs::remove_file(folder.join(name));
    }
    let rows = compare(path, &filled, comparable, &opening)?;
    std::fs::File::open(path)?.sync_all()?;
    Ok(Built { tables: filled.len(), rows, lost, uncompared })
}

fn in_words((statement, why): &(&Statement, String)) -> String {
    let (word, name) = (statement.makes.word(), &statement.name);
    format!("the {word} {name}: {}", rehearse::first_line(why))
}

/// Makes what tables need, and the tables, in their order. One whose statement fails is made of its
/// columns; one for which that fails too is left out. Returns those that are there.
fn make_tables(
    session: &Session,
    newest: &Index,
    tables: Vec<TableEntry>,
    all: bool,
    lost: &mut Vec<String>,
) -> Vec<TableEntry> {
    let names: BTreeSet<String> = tables.iter().map(TableEntry::quoted).collect();
    let is_wanted = |statement: &&Statement| {
        statement.makes <= Makes::Macro
            || statement.makes == Makes::Table && names.contains(&statement.name)
    };
    let mut left: Vec<&Statement> = newest.statements.iter().filter(is_wanted).collect();
    loop {
        let failed = rehearse::run(session, left.iter().copied());
        let first = failed.iter().find(|(statement, _)| statement.makes == Makes::Table);
        let Some((statement, why)) = first else {
            // What no table needs is missed only where everything is wanted.
            lost.extend(failed.iter().filter(|_| all).map(in_words));
            break;
        };
        // Others may refer to it: they are tried again when it is there.
        let table = tables.iter().find(|table| table.quoted() == statement.name);
        let made = table.map(|table| session.attempt(&build::bare(table)));
        let name = &statement.name;
        lost.push(match made {
            Some(Ok(())) => format!(
                "what the table {name} has beside columns and rows: {}",
                rehearse::first_line(why)
            ),
            Some(Err(_)) | None => format!("the table {name}: {}", rehearse::first_line(why)),
        });
        let done: &Statement = statement;
        left = failed.iter().map(|(one, _)| *one).filter(|one| *one != done).collect();
    }
    let there = |table: &TableEntry| session.attempt(&format!("FROM {} LIMIT 0", table.here()));
    tables.into_iter().filter(|table| there(table).is_ok()).collect()
}

/// Makes an empty file with this storage version.
///
/// # Errors
/// What the engine says.
pub(super) fn create(
    path: &Path,
    storage_version: &str,
    opening: &Opening<'_>,
) -> anyhow::Result<()> {
    let session = Session::opened(None, true, opening)?;
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
            return Err(build::circle().into());
        }
        ordered.extend(ready.into_iter().cloned());
        left = rest;
    }
    Ok(ordered)
}

/// Opens the file anew and compares every table with what was recorded; without the hashes if they are
/// not `comparable`. Returns the rows.
fn compare(
    path: &Path,
    tables: &[TableEntry],
    comparable: bool,
    opening: &Opening<'_>,
) -> anyhow::Result<u64> {
    let session = Session::opened(Some(path), false, opening)?;
    session.step_out()?;
    let mut rows = 0;
    for table in tables {
        let found = export::content(&session, table, &table.here())?;
        let is_same =
            if comparable { found == table.content } else { found.rows == table.content.rows };
        if !is_same {
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
    let built_at = workshop.path(&format!("{CATALOGUE}.duckdb"));
    let means = Means::ample(request.share);
    let built = build(chain, &built_at, request.table.as_deref(), means, ctx)?;
    let bytes = std::fs::metadata(&built_at)?.len();
    let moved_aside = workshop.publish(&built_at, &request.target, request.force)?;
    let next = format!("open it with DuckDB: {}", built.found());
    let target = request.target.clone();
    Ok(Restored { target, bytes, bytes_written: bytes, moved_aside, next, lost: built.lost })
}

/// Builds the file in `scratch` and compares it.
pub(super) fn drill(
    chain: &Chain<'_>,
    scratch: &Path,
    share: Share,
    ctx: &Ctx,
) -> anyhow::Result<Drilled> {
    let began = Instant::now();
    let path = scratch.join(format!("{CATALOGUE}.duckdb"));
    let built = build(chain, &path, None, Means::ample(share), ctx)?;
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
