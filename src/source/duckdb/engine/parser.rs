//! Counts the statements in a text with the engine's own parser. Nothing of the text is run, bound or looked up.

use std::ffi::CString;
use std::ptr;

use duckdb::ffi;

use crate::source::duckdb::engine::raw::RawDatabase;

/// How many statements a text has; nothing if it is none.
#[expect(unsafe_code, reason = "the safe interface runs all statements of a text but the last")]
pub(crate) fn count(database: &RawDatabase, sql: &str) -> Option<u64> {
    let text = CString::new(sql).ok()?;
    let mut extracted = ptr::null_mut();
    // SAFETY: the connection is open, the text ends with NUL and outlives the call, and what was
    // extracted is destroyed once, in any case, as the interface asks.
    let count = unsafe {
        let count = ffi::duckdb_extract_statements(
            database.connection(),
            text.as_ptr(),
            &raw mut extracted,
        );
        ffi::duckdb_destroy_extracted(&raw mut extracted);
        count
    };
    (count > 0).then_some(count)
}

/// Whether a text is exactly one statement, which is closed: what stands behind it is not a part of it.
pub(crate) fn is_one(database: &RawDatabase, sql: &str) -> bool {
    count(database, sql) == Some(1) && count(database, &format!("{sql}\n;SELECT 1")) == Some(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_counted_by_the_engine() {
        let settings = [("threads", "1"), ("memory_limit", "256MiB")];
        let database = RawDatabase::open(&settings).expect("a database");
        for (sql, expected) in [
            ("CREATE MACRO m(a) AS $$;$$ || ';'", true),
            ("CREATE TABLE \"a;b\" (i INTEGER DEFAULT ';');", true),
            ("CREATE VIEW v AS SELECT 1; DROP TABLE t", false),
            ("CREATE VIEW v AS SELECT 1 -- ;", true),
            ("CREATE VIEW v AS SELECT 1 /* ", false),
            ("CREATE TYPE e AS ENUM ('a\nCREATE MACRO x() AS 1; SELECT 2; ')", true),
            ("", false),
            ("no statement", false),
            ("SELECT 1\0", false),
        ] {
            assert_eq!(is_one(&database, sql), expected, "{sql:?}");
        }
    }
}
