//! The engine's own parser, asked how many statements a text has.

use std::ffi::{CStr, CString};
use std::ptr;

use duckdb::ffi;

/// What the engine would else find out from files of the system, which are not there for it.
const SETTINGS: [(&CStr, &CStr); 2] = [(c"threads", c"1"), (c"memory_limit", c"256MiB")];

/// A parser with an empty database of its own in which nothing ever runs.
pub(super) struct Parser {
    database: ffi::duckdb_database,
    connection: ffi::duckdb_connection,
}

impl std::fmt::Debug for Parser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parser").finish_non_exhaustive()
    }
}

impl Parser {
    /// # Errors
    /// That the engine has no memory for it.
    #[expect(unsafe_code, reason = "the safe interface runs all statements of a text but the last")]
    pub(super) fn new() -> Result<Parser, String> {
        let mut parser = Parser { database: ptr::null_mut(), connection: ptr::null_mut() };
        let mut config = ptr::null_mut();
        // SAFETY: the three handles are out parameters of this process, null before; that of the settings is
        // released here and the others once, when the parser is dropped. Names and values are literals that
        // end with NUL, a null path opens a database in memory, and nobody asks for an error's text.
        let opened = unsafe {
            let set = ffi::duckdb_create_config(&raw mut config) == ffi::DuckDBSuccess
                && SETTINGS.iter().all(|(name, value)| {
                    ffi::duckdb_set_config(config, name.as_ptr(), value.as_ptr())
                        == ffi::DuckDBSuccess
                });
            let database = &raw mut parser.database;
            let opened = set
                && ffi::duckdb_open_ext(ptr::null(), database, config, ptr::null_mut())
                    == ffi::DuckDBSuccess
                && ffi::duckdb_connect(parser.database, &raw mut parser.connection)
                    == ffi::DuckDBSuccess;
            ffi::duckdb_destroy_config(&raw mut config);
            opened
        };
        if opened { Ok(parser) } else { Err("the parser cannot be made".to_owned()) }
    }

    /// How many statements a text has; nothing if it is none.
    #[expect(unsafe_code, reason = "the safe interface runs all statements of a text but the last")]
    pub(super) fn count(&self, sql: &str) -> Option<u64> {
        let text = CString::new(sql).ok()?;
        let mut extracted = ptr::null_mut();
        // SAFETY: the connection is open, the text ends with NUL and outlives the call, and what was
        // extracted is destroyed once, in any case, as the interface asks.
        let count = unsafe {
            let count =
                ffi::duckdb_extract_statements(self.connection, text.as_ptr(), &raw mut extracted);
            ffi::duckdb_destroy_extracted(&raw mut extracted);
            count
        };
        (count > 0).then_some(count)
    }

    /// Whether a text is exactly one statement, which is closed: what stands behind it is not a part of it.
    pub(super) fn is_one(&self, sql: &str) -> bool {
        self.count(sql) == Some(1) && self.count(&format!("{sql}\n;SELECT 1")) == Some(2)
    }
}

impl Drop for Parser {
    #[expect(unsafe_code, reason = "handles of the engine's own interface")]
    fn drop(&mut self) {
        // SAFETY: both are handles of this value, or null, which both functions take.
        unsafe {
            ffi::duckdb_disconnect(&raw mut self.connection);
            ffi::duckdb_close(&raw mut self.database);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_counted_by_the_engine() {
        let parser = Parser::new().expect("a parser");
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
            assert_eq!(parser.is_one(sql), expected, "{sql:?}");
        }
    }
}
