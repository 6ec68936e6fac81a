//! Comparing two states of a table, in the engine process: their rows are read side by side.

use std::sync::mpsc;
use std::thread;

use duckdb::Connection;
use duckdb::arrow::array::UInt64Array;
use duckdb::arrow::record_batch::RecordBatch;

use crate::ctx::Cancel;
use crate::source::duckdb::engine::diff;
use crate::source::duckdb::engine::diff::{Differences, KeyedRow};
use crate::source::duckdb::engine::protocol::{Compare, OUTSIDE};
use crate::source::duckdb::engine::state_merge::Changes;

/// Batches of rows that a sequence may be ahead of the other one: the engine makes them of 2048 rows.
const BATCHES_AHEAD: usize = 16;

/// Looks for what differs in one pass over both sequences; nothing of them is held but what waits. Nothing
/// if that would be too much.
///
/// # Errors
/// What the engine says.
pub(crate) fn differences(
    connection: &Connection,
    compare: &Compare,
) -> anyhow::Result<Option<Differences>> {
    let most = usize::try_from(compare.most).unwrap_or(usize::MAX);
    let mut changes = Changes::default();
    for query in &compare.later {
        let mut statement = connection.prepare(query)?;
        for batch in statement.stream_arrow([])? {
            for [key, other, hash, live] in numbers(&batch?) {
                changes.add((key, other), (live > 0).then_some(hash));
            }
            if changes.count() > most {
                return Ok(None);
            }
        }
    }
    let base = sequence(connection, &compare.base)?;
    let now = sequence(connection, &compare.now)?;
    thread::scope(|scope| {
        let (mut base, mut now) = (base.begin(scope), now.begin(scope));
        diff::differences(
            &mut changes.over(&mut |into| base.next(into)),
            &mut |into| now.next(into),
            most,
            &Cancel::default(),
        )
    })
}

/// The rows of a query, each of four numbers, over a connection of their own: a connection has one result
/// at a time.
fn sequence<'q>(connection: &Connection, query: &'q str) -> duckdb::Result<Sequence<'q>> {
    let connection = connection.try_clone()?;
    connection.execute_batch(&format!("USE {OUTSIDE}.main"))?;
    Ok(Sequence { connection, query })
}

/// A query whose rows are read in a thread of its own: the engine works in the one that asks.
struct Sequence<'q> {
    connection: Connection,
    query: &'q str,
}

impl<'q> Sequence<'q> {
    fn begin<'s>(self, scope: &'s thread::Scope<'s, '_>) -> SequenceReader
    where
        'q: 's,
    {
        let (send, rows) = mpsc::sync_channel(BATCHES_AHEAD);
        scope.spawn(move || {
            let read = || -> duckdb::Result<()> {
                let mut statement = self.connection.prepare(self.query)?;
                for batch in statement.stream_arrow([])? {
                    let rows: Vec<KeyedRow> = numbers(&batch?).map(KeyedRow::from).collect();
                    if send.send(Ok(rows)).is_err() {
                        // Nobody wants more.
                        break;
                    }
                }
                Ok(())
            };
            if let Err(error) = read() {
                // Where nobody listens the comparison has ended already.
                let _heard = send.send(Err(error));
            }
        });
        SequenceReader(rows)
    }
}

/// The rows of a [`Sequence`] as they come.
struct SequenceReader(mpsc::Receiver<duckdb::Result<Vec<KeyedRow>>>);

impl SequenceReader {
    /// Adds the next rows; false at the end.
    fn next(&mut self, into: &mut Vec<KeyedRow>) -> anyhow::Result<bool> {
        let Ok(rows) = self.0.recv() else { return Ok(false) };
        into.extend(rows?);
        Ok(true)
    }
}

/// The rows of a batch of numbers; none if a column is of another type, which shows in the sums that are
/// made of them.
fn numbers(batch: &RecordBatch) -> impl Iterator<Item = [u64; 4]> {
    let column = |index: usize| {
        let column = batch.columns().get(index);
        let column = column.and_then(|column| column.as_any().downcast_ref::<UInt64Array>());
        column.map(|column| &**column.values()).unwrap_or_default()
    };
    let rows = column(0).iter().zip(column(1)).zip(column(2)).zip(column(3));
    rows.map(|(((a, b), c), d)| [*a, *b, *c, *d])
}
