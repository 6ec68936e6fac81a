//! Counts rows and sums their hashes while they are written, as a function of the engine.
//!
//! A full export reads a table once: `COPY (SELECT … WHERE bkp_tally(group, hash))`. The function is
//! true for every row, and notes on the way how many rows of each group there were, the sum of their hashes
//! and the exclusive or of them, or of second ones. The engine takes it for one with effects of its own,
//! and so calls it once for each row; how many rows the statement wrote shows whether that was so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use duckdb::ffi;

use crate::source::duckdb::engine::raw::{RawDatabase, ScalarFunction};
use crate::source::duckdb::export::index::Content;

/// The functions: of the number of a row's group and its hash, or two hashes of it, all of them UBIGINT; a
/// BOOLEAN. The engine would compute a hash twice that is both.
pub(crate) const ONE_HASH: &str = "bkp_tally";
pub(crate) const TWO_HASHES: &str = "bkp_tally_2";

/// Groups that are told apart: of more the export is refused, for it has no place for them.
const GROUPS_MAX: usize = 1 << 20;

/// What has been written, by group, since it was last taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tallies(Arc<Mutex<BTreeMap<u64, Content>>>);

impl Tallies {
    /// What there is, and begins anew.
    pub(crate) fn take(&self) -> BTreeMap<u64, Content> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds rows; false where there are too many groups.
    fn add(&self, rows: impl Iterator<Item = (u64, u64, u64)>) -> bool {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = rows.peekable();
        // Most rows of a chunk are of one group.
        while let Some((group, ..)) = rows.peek().copied() {
            let mut more = Content::default();
            while let Some((_, hash, other)) = rows.next_if(|(of, ..)| *of == group) {
                more.rows += 1;
                more.sum += u128::from(hash);
                more.xor ^= other;
            }
            let sum = tallies.entry(group).or_default();
            *sum = sum.plus(&more);
        }
        tallies.len() <= GROUPS_MAX
    }
}

/// Makes the functions known to every connection of a database; they note into `tallies`.
///
/// # Errors
/// That the engine refuses it.
pub(crate) fn register(database: &RawDatabase, tallies: &Tallies) -> Result<(), String> {
    let number = ffi::DUCKDB_TYPE_DUCKDB_TYPE_UBIGINT;
    for (name, parameters) in [(ONE_HASH, &[number; 2][..]), (TWO_HASHES, &[number; 3])] {
        let function = ScalarFunction {
            name,
            parameters,
            result: ffi::DUCKDB_TYPE_DUCKDB_TYPE_BOOLEAN,
            has_effects: true,
            call: tally_rows,
        };
        database.register(&function, tallies.clone())?;
    }
    Ok(())
}

/// Notes the rows of a chunk.
#[expect(unsafe_code, reason = "called by the C interface")]
unsafe extern "C" fn tally_rows(
    info: ffi::duckdb_function_info,
    chunk: ffi::duckdb_data_chunk,
    output: ffi::duckdb_vector,
) {
    // SAFETY: the engine calls this with a chunk of two or three flat vectors of this type and without
    // NULL, which live as long as the call, a vector for as many truth values as the chunk has rows, and
    // the tallies that the function was registered with.
    unsafe {
        let tallies = &*ffi::duckdb_scalar_function_get_extra_info(info).cast::<Tallies>();
        let rows = usize::try_from(ffi::duckdb_data_chunk_get_size(chunk)).unwrap_or(0);
        let column = |index| {
            let vector = ffi::duckdb_data_chunk_get_vector(chunk, index);
            let data = ffi::duckdb_vector_get_data(vector).cast::<u64>();
            std::slice::from_raw_parts(data, rows)
        };
        let last = ffi::duckdb_data_chunk_get_column_count(chunk).saturating_sub(1);
        let noted = column(0).iter().zip(column(1)).zip(column(last));
        if !tallies.add(noted.map(|((group, hash), other)| (*group, *hash, *other))) {
            let why = c"there are too many groups of rows";
            ffi::duckdb_scalar_function_set_error(info, why.as_ptr());
        }
        let results = ffi::duckdb_vector_get_data(output).cast::<u8>();
        std::slice::from_raw_parts_mut(results, rows).fill(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_counts_once() {
        let settings = [("threads", "2"), ("memory_limit", "256MiB")];
        let database = RawDatabase::open(&settings).expect("a database in memory");
        let tallies = Tallies::default();
        register(&database, &tallies).expect("a function");
        let connection = database.connect().expect("a connection");
        let make = "CREATE TABLE t AS SELECT range::UBIGINT AS i FROM range(300000); DELETE FROM t WHERE i % 1000 = 7";
        connection.execute_batch(make).expect(make);
        let query = "SELECT i FROM t AS r WHERE system.main.bkp_tally_2(CAST(r.rowid // 122880 AS UBIGINT), i, i + 1)";
        let folder = tempfile::tempdir().expect("a folder");
        let copy = format!("COPY ({query}) TO '{}'", folder.path().join("rows.parquet").display());
        assert_eq!(connection.execute(&copy, []).expect("as many rows as there are"), 299_700);
        let expected = |group: u64| {
            let rows = (group * 122_880..((group + 1) * 122_880).min(300_000))
                .filter(|i| i % 1000 != 7)
                .collect::<Vec<_>>();
            Content {
                rows: rows.len() as u64,
                sum: rows.iter().map(|i| u128::from(*i)).sum(),
                xor: rows.iter().fold(0, |xor, i| xor ^ (i + 1)),
            }
        };
        let expected: BTreeMap<u64, Content> =
            (0..3).map(|group| (group, expected(group))).collect();
        assert_eq!(tallies.take(), expected);
        assert!(tallies.take().is_empty());
        // A single column may be looked at where it is stored.
        let one = "CREATE TABLE v AS SELECT i FROM t WHERE system.main.bkp_tally(i // 100000, i)";
        connection.execute_batch(one).expect(one);
        assert_eq!(tallies.take().values().map(|group| group.rows).sum::<u64>(), 299_700);
    }
}
