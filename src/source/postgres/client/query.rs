//! Queries in one message, answered as text.

use std::ops::Range;

use postgres_protocol::escape::escape_literal;

use super::connection::Connection;
use super::error::ClientError;
use super::message::{Garbled, columns, row};

/// A row of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(Vec<Option<String>>);

impl Row {
    /// The value of a column from 0, `None` if it is NULL or there is none.
    #[must_use]
    pub fn get(&self, column: usize) -> Option<&str> {
        self.0.get(column)?.as_deref()
    }

    /// All values.
    #[must_use]
    pub fn values(&self) -> &[Option<String>] {
        &self.0
    }
}

/// The rows of one statement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResultSet {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A text as a literal of SQL, safe in every setting of the server.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    // A leading blank, which the crate adds before an E, is of no matter to SQL.
    escape_literal(text).trim_start().to_owned()
}

/// Longest answer to a question, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// What a row takes besides its values, bytes.
const ROW_BYTES: usize = 64;

impl Connection {
    /// Runs statements, and returns the rows of the last one that has any columns.
    ///
    /// # Errors
    /// [`ClientError::Server`] if one fails; the connection can be used again then. Otherwise as the connection
    /// itself.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Row>, ClientError> {
        let last = self.query_sets(sql)?.pop();
        Ok(last.map(|set| set.rows).unwrap_or_default())
    }

    /// Runs statements, and returns what each one that has columns answers.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub fn query_sets(&mut self, sql: &str) -> Result<Vec<ResultSet>, ClientError> {
        self.command(sql)?;
        let (mut sets, mut bytes): (Vec<ResultSet>, usize) = (Vec::new(), 0);
        loop {
            let (tag, range) = self.receive()?;
            bytes = bytes.saturating_add(ROW_BYTES + range.len());
            if bytes > ANSWER_BYTES_MAX {
                return Err(self.protocol("an answer that is longer than any that bkp asks for"));
            }
            match tag {
                b'T' => sets.push(self.described(range)?),
                b'D' => {
                    let row = self.row(range)?;
                    match sets.last_mut() {
                        Some(set) => set.rows.push(row),
                        None => return Err(self.unexpected(tag)),
                    }
                }
                b'C' | b'I' => {}
                b'Z' => return Ok(sets),
                other => return Err(self.unexpected(other)),
            }
        }
    }

    /// The one value of a statement.
    ///
    /// # Errors
    /// [`ClientError::Protocol`] if there is none; otherwise as [`Connection::query`].
    pub fn query_value(&mut self, sql: &str) -> Result<String, ClientError> {
        let rows = self.query(sql)?;
        let value = rows.first().and_then(|row| row.get(0)).map(str::to_owned);
        value.ok_or_else(|| self.protocol(format!("no answer to `{sql}`")))
    }

    /// The server's version as a number, such as 150018 for 15.18.
    ///
    /// # Errors
    /// As [`Connection::query_value`].
    pub fn server_version(&mut self) -> Result<u32, ClientError> {
        let text = self.query_value("SHOW server_version_num")?;
        text.parse().map_err(|_no_number| self.protocol(format!("`{text}` is no version")))
    }

    /// A result set that begins, without its rows.
    pub(super) fn described(&self, range: Range<usize>) -> Result<ResultSet, ClientError> {
        let read = columns(self.body(range));
        let columns = read.map_err(|Garbled| self.garbled("a description of rows"))?;
        Ok(ResultSet { columns, rows: Vec::new() })
    }

    pub(super) fn row(&self, range: Range<usize>) -> Result<Row, ClientError> {
        let values = row(self.body(range)).map_err(|Garbled| self.garbled("a row"))?;
        let text = |value: Vec<u8>| {
            String::from_utf8(value).map_err(|_no_text| self.garbled("a value that is no text"))
        };
        let values = values.into_iter().map(|value| value.map(text).transpose());
        Ok(Row(values.collect::<Result<_, _>>()?))
    }

    /// A result set that a command answers with in the middle of other things: everything up to its end.
    pub(super) fn result_set(&mut self) -> Result<ResultSet, ClientError> {
        let (tag, range) = self.receive()?;
        if tag != b'T' {
            return Err(self.unexpected(tag));
        }
        let mut set = self.described(range)?;
        loop {
            let (tag, range) = self.receive()?;
            match tag {
                b'D' => set.rows.push(self.row(range)?),
                b'C' => return Ok(set),
                other => return Err(self.unexpected(other)),
            }
        }
    }

    /// Waits for the end of a command of which everything else was received.
    pub(super) fn finished(&mut self) -> Result<(), ClientError> {
        loop {
            match self.receive()?.0 {
                b'C' => {}
                b'Z' => return Ok(()),
                other => return Err(self.unexpected(other)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn literals() {
        assert_eq!(quote_literal("a'b"), "'a''b'");
        assert_eq!(quote_literal("a\\b"), "E'a\\\\b'");
    }

    proptest! {
        #[test]
        fn no_text_leaves_its_quotes(text in "\\PC*") {
            let quoted = quote_literal(&text);
            let inside = quoted.trim_start_matches('E');
            let inside = inside.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            prop_assert!(!inside.unwrap().replace("''", "").contains('\''));
        }
    }
}
