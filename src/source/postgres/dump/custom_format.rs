//! The custom format of `pg_dump`, read as a stream from its begin to its end.
//!
//! ```text
//! header     PGDMP, version, sizes of numbers, compression, times and versions
//! contents   every entry: what it is, its name, its owner, what it depends on, whether it has data
//! data       for each entry with data: its number, and chunks of bytes up to an empty one
//! ```
//!
//! Nothing at the end says that it is the end. A file is complete if every entry that has data is followed by it, the
//! rows of every table by their terminator, and the last data by nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

/// What every file begins with.
const MAGIC: &[u8; 5] = b"PGDMP";
/// The number of the custom format.
const CUSTOM: u8 = 1;
/// The versions of the format that PostgreSQL 15 to 18 write.
const VERSIONS: std::ops::RangeInclusive<(u8, u8)> = (1, 14)..=(1, 16);
/// Since this one the header names the compression.
const NAMES_COMPRESSION: (u8, u8) = (1, 15);
/// Since this one an entry has the kind of its relation.
const HAS_RELATION_KIND: (u8, u8) = (1, 16);
/// What data begins with: that of a table, and large objects.
const TABLE_BLOCK: u8 = 1;
const LARGE_OBJECTS_BLOCK: u8 = 3;
/// Most entries of a file: each takes about 300 bytes of memory.
const ENTRIES_MAX: usize = 4_000_000;
/// Longest text of an entry, bytes: the definition of a function may be long.
const TEXT_BYTES_MAX: usize = 256 << 20;
/// Longest name, bytes: with its arguments, that of a function may have 100 times the length of a name.
const NAME_BYTES_MAX: usize = 1 << 20;
/// Most bytes of all names that are kept.
const KEPT_BYTES_MAX: usize = 1 << 30;
/// Most entries that one depends on.
const DEPENDENCIES_MAX: usize = 1_000_000;
/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// An entry of the contents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Entry {
    /// Its number, which others depend on.
    pub(crate) id: i64,
    /// What it is, as `TABLE DATA` or `FK CONSTRAINT`.
    pub(crate) kind: String,
    /// Its name in its schema.
    pub(crate) name: String,
    /// The schema that it is in, if it is in one.
    pub(crate) schema: Option<String>,
    /// The tablespace that it was in, if not in the one of the database.
    pub(crate) tablespace: Option<String>,
    /// The role that owns it.
    pub(crate) owner: Option<String>,
    /// The statement that makes it, of kinds that name further roles: [`NAMES_ROLES`].
    pub(crate) statement: String,
    /// The entries that it depends on.
    pub(crate) depends_on: Vec<i64>,
    /// Whether it has data.
    pub(crate) has_data: bool,
}

/// Kinds whose statements name roles that own nothing.
const NAMES_ROLES: [&str; 3] = ["ACL", "DEFAULT ACL", "POLICY"];

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Contents {
    /// The version of the server that was dumped, as `15.18`.
    pub(crate) server_version: String,
    /// The version of the program that dumped it.
    pub(crate) client_version: String,
    /// The entries, in the order in which they are restored.
    pub(crate) entries: Vec<Entry>,
    /// The rows of each entry with the data of a table.
    pub(crate) rows: BTreeMap<i64, u64>,
    /// How many large objects there are.
    pub(crate) large_objects: u64,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Flaw {
    /// It ends, or cannot be read.
    #[error("{0}")]
    Input(#[from] io::Error),
    /// It is not what `pg_dump` writes.
    #[error("{0}")]
    Format(String),
}

impl Flaw {
    /// Whether the file ends before it should.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self, Flaw::Input(error) if error.kind() == io::ErrorKind::UnexpectedEof)
    }
}

fn format(problem: impl Into<String>) -> Flaw {
    Flaw::Format(problem.into())
}

impl Contents {
    /// Reads a file up to its end.
    ///
    /// # Errors
    /// [`Flaw`] if it cannot be read, is none, or is not complete.
    pub(crate) fn read(input: &mut dyn Read) -> Result<Contents, Flaw> {
        let mut input = Input { input: io::BufReader::with_capacity(CHUNK_BYTES, input), kept: 0 };
        let mut contents = Contents::default();
        let version = input.header(&mut contents)?;
        let count = input.count("entries", ENTRIES_MAX)?;
        for _ in 0..count {
            contents.entries.push(input.entry(version)?);
        }
        let kinds = contents.entries.iter().filter(|entry| entry.has_data);
        let mut missing: BTreeMap<i64, bool> =
            kinds.map(|entry| (entry.id, entry.kind == "TABLE DATA")).collect();
        while let Some(block) = input.byte_or_end()? {
            let id = input.number()?;
            let is_table = missing.remove(&id).ok_or_else(|| {
                format(format!("it has data of entry {id}, which is to have none"))
            })?;
            match block {
                TABLE_BLOCK => {
                    let rows = input.table_rows(is_table)?;
                    if let Some(rows) = rows {
                        contents.rows.insert(id, rows);
                    } else if is_table {
                        return Err(format(format!("the rows of entry {id} have no end")));
                    }
                }
                LARGE_OBJECTS_BLOCK => contents.large_objects += input.large_objects()?,
                other => return Err(format(format!("it has a block of the unknown kind {other}"))),
            }
        }
        match missing.keys().next() {
            None => Ok(contents),
            Some(id) => {
                let count = missing.len();
                Err(format(format!("the data of {count} entries is missing, as of entry {id}")))
            }
        }
    }

    /// The tables with data, as schema, name and number of rows.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.entries.iter().filter_map(|entry| {
            let rows = self.rows.get(&entry.id)?;
            Some((entry.schema.as_deref().unwrap_or_default(), entry.name.as_str(), *rows))
        })
    }

    /// The roles that own entries.
    pub(crate) fn owners(&self) -> BTreeSet<&str> {
        self.entries.iter().filter_map(|entry| entry.owner.as_deref()).collect()
    }
}

/// A file that is being read.
struct Input<R> {
    input: io::BufReader<R>,
    /// Bytes of names that are kept.
    kept: usize,
}

impl<R: Read> Input<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, Flaw> {
        let [byte] = self.bytes()?;
        Ok(byte)
    }

    /// The next byte, or nothing at the end.
    fn byte_or_end(&mut self) -> Result<Option<u8>, Flaw> {
        let mut byte = [0];
        loop {
            match self.input.read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(byte[0])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A number: its sign, and four bytes.
    fn number(&mut self) -> Result<i64, Flaw> {
        let sign = self.byte()?;
        let value = i64::from(u32::from_le_bytes(self.bytes()?));
        match sign {
            0 => Ok(value),
            1 => Ok(-value),
            other => Err(format(format!("a number has the sign {other}"))),
        }
    }

    fn count(&mut self, what: &str, max: usize) -> Result<usize, Flaw> {
        let number = self.number()?;
        let count = usize::try_from(number).ok().filter(|count| *count <= max);
        count.ok_or_else(|| format(format!("{number} {what} are none, or more than {max}")))
    }

    /// The length of a text, nothing for none.
    fn length(&mut self) -> Result<Option<usize>, Flaw> {
        let number = self.number()?;
        if number < 0 {
            return Ok(None);
        }
        let length = usize::try_from(number).ok().filter(|length| *length <= TEXT_BYTES_MAX);
        length.map(Some).ok_or_else(|| format(format!("a text of {number} bytes")))
    }

    fn skip_text(&mut self) -> Result<(), Flaw> {
        let length = self.length()?.unwrap_or_default();
        self.skip(length)
    }

    fn skip(&mut self, length: usize) -> Result<(), Flaw> {
        let skipped = io::copy(&mut self.input.by_ref().take(length as u64), &mut io::sink())?;
        if skipped == length as u64 {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
        }
    }

    /// A text that is kept.
    fn text(&mut self) -> Result<Option<String>, Flaw> {
        let Some(length) = self.length()? else { return Ok(None) };
        self.kept += length;
        if length > NAME_BYTES_MAX || self.kept > KEPT_BYTES_MAX {
            return Err(format(format!("a name of {length} bytes")));
        }
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes)?;
        // Another encoding than UTF-8 can only be that of a server without one.
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Reads the header; the version of the format.
    fn header(&mut self, contents: &mut Contents) -> Result<(u8, u8), Flaw> {
        if &self.bytes()? != MAGIC {
            return Err(format("it does not begin as a dump in the custom format"));
        }
        let [major, minor, _revision, number_bytes, offset_bytes, kind] = self.bytes()?;
        let version = (major, minor);
        if !VERSIONS.contains(&version) {
            return Err(format(format!("it has the unknown version {major}.{minor}")));
        }
        if (number_bytes, offset_bytes, kind) != (4, 8, CUSTOM) {
            return Err(format("it is in another format than the custom one"));
        }
        let compression =
            if version >= NAMES_COMPRESSION { i64::from(self.byte()?) } else { self.number()? };
        if compression != 0 {
            return Err(format("its data is compressed"));
        }
        // When it was begun, as a calendar has it.
        for _ in 0..7 {
            self.number()?;
        }
        self.skip_text()?;
        contents.server_version = self.text()?.unwrap_or_default();
        contents.client_version = self.text()?.unwrap_or_default();
        Ok(version)
    }

    fn entry(&mut self, version: (u8, u8)) -> Result<Entry, Flaw> {
        let id = self.number()?;
        let has_data = self.number()? != 0;
        // Numbers of the catalogue's table and of its row.
        self.skip_text()?;
        self.skip_text()?;
        let name = self.text()?.unwrap_or_default();
        let kind = self.text()?.unwrap_or_default();
        let _section = self.number()?;
        let statement = if NAMES_ROLES.contains(&kind.as_str()) {
            self.text()?.unwrap_or_default()
        } else {
            self.skip_text()?;
            String::new()
        };
        // How it is dropped, and how its data is copied.
        self.skip_text()?;
        self.skip_text()?;
        let schema = self.text()?;
        let tablespace = self.text()?.filter(|name| !name.is_empty());
        // The access method of a table.
        self.skip_text()?;
        if version >= HAS_RELATION_KIND {
            self.number()?;
        }
        let owner = self.text()?.filter(|name| !name.is_empty());
        // Whether it has the old kind of row numbers.
        self.skip_text()?;
        let mut depends_on = Vec::new();
        while let Some(text) = self.text()? {
            let id =
                text.parse().map_err(|_odd| format("an entry depends on what is no number"))?;
            depends_on.push(id);
            if depends_on.len() > DEPENDENCIES_MAX {
                return Err(format(format!("entry {id} depends on too many others")));
            }
        }
        // Where its data is, which a file written to a pipe does not know.
        self.bytes::<9>()?;
        Ok(Entry { id, kind, name, schema, tablespace, owner, statement, depends_on, has_data })
    }

    /// Reads the data of an entry; the number of its rows, or nothing if they have no terminator.
    fn table_rows(&mut self, is_table: bool) -> Result<Option<u64>, Flaw> {
        let mut rows = RowCounter::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let mut left = self.count("bytes of data", i32::MAX as usize)?;
            if left == 0 {
                return Ok(rows.ended.then_some(rows.rows));
            }
            while left > 0 {
                let wanted = left.min(CHUNK_BYTES);
                let part = chunk.get_mut(..wanted).unwrap_or_default();
                self.input.read_exact(part)?;
                if is_table {
                    rows.take(part);
                }
                left -= wanted;
            }
        }
    }

    /// Reads large objects, and counts them.
    fn large_objects(&mut self) -> Result<u64, Flaw> {
        let mut count = 0;
        while self.number()? != 0 {
            count += 1;
            loop {
                match self.count("bytes of data", i32::MAX as usize)? {
                    0 => break,
                    length => self.skip(length)?,
                }
            }
        }
        Ok(count)
    }
}

/// Counts the rows of `COPY`, each of which is a line, up to the line that ends them.
#[derive(Debug, Default)]
struct RowCounter {
    rows: u64,
    /// The bytes of the line that has begun, as far as its end could be the terminator.
    line: LineStart,
    ended: bool,
}

/// How a line begins.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum LineStart {
    #[default]
    Empty,
    Backslash,
    Terminator,
    Other,
}

impl RowCounter {
    fn take(&mut self, mut bytes: &[u8]) {
        while !self.ended && !bytes.is_empty() {
            if self.line == LineStart::Other {
                // What is left of a row; most bytes are.
                let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
                bytes = bytes.get(end..).unwrap_or_default();
            }
            let Some((byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            self.line = match (self.line, byte) {
                (LineStart::Terminator, b'\n') => {
                    self.ended = true;
                    LineStart::Other
                }
                (_, b'\n') => {
                    self.rows += 1;
                    LineStart::Empty
                }
                (LineStart::Empty, b'\\') => LineStart::Backslash,
                (LineStart::Backslash, b'.') => LineStart::Terminator,
                _ => LineStart::Other,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(value: i64) -> Vec<u8> {
        let [a, b, c, d, ..] = value.unsigned_abs().to_le_bytes();
        vec![u8::from(value < 0), a, b, c, d]
    }

    fn text(value: Option<&str>) -> Vec<u8> {
        let length = value.map_or(-1, |value| i64::try_from(value.len()).expect("short"));
        [number(length), value.unwrap_or_default().as_bytes().to_vec()].concat()
    }

    fn entry(id: i64, kind: &str, has_data: bool, depends_on: &[i64]) -> Vec<u8> {
        let depends_on = depends_on.iter().map(|id| text(Some(&id.to_string())));
        let parts = [
            number(id),
            number(has_data.into()),
            text(Some("0")),
            text(Some("0")),
            text(Some("t")),
            text(Some(kind)),
            number(2),
            text(Some("CREATE ...")),
            text(None),
            text(None),
            text(Some("s")),
            text(Some("")),
            text(None),
            text(Some("o")),
            text(Some("false")),
        ];
        let depends_on: Vec<u8> = depends_on.flatten().collect();
        [parts.concat(), depends_on, text(None), vec![1; 9]].concat()
    }

    /// A file with a table and large objects, as version 1.14 has it; the table's data in chunks.
    fn file(rows: &[u8], chunk: usize) -> Vec<u8> {
        let mut all = b"PGDMP\x01\x0e\x00\x04\x08\x01".to_vec();
        (0..8).for_each(|_| all.extend(number(0)));
        all.extend(["app", "15.18", "15.18"].map(|word| text(Some(word))).concat());
        all.extend(number(3));
        all.extend(entry(1, "TABLE", false, &[]));
        all.extend(entry(2, "TABLE DATA", true, &[1]));
        all.extend(entry(3, "BLOBS", true, &[]));
        all.push(TABLE_BLOCK);
        all.extend(number(2));
        for part in rows.chunks(chunk) {
            all.extend(number(i64::try_from(part.len()).expect("short")));
            all.extend(part);
        }
        all.extend(number(0));
        all.push(LARGE_OBJECTS_BLOCK);
        all.extend(number(3));
        for part in [number(16_421), number(2), b"\x00\x01".to_vec(), number(0), number(0)] {
            all.extend(part);
        }
        all
    }

    #[test]
    fn a_complete_file_is_counted_and_one_that_was_cut_anywhere_is_not() {
        let rows = b"1\ta\n\\N\t\\\\.\n\n\\.\n\n\n";
        let whole = file(rows, 3);
        let contents = Contents::read(&mut whole.as_slice()).expect("complete");
        assert_eq!(contents.tables().collect::<Vec<_>>(), [("s", "t", 3)]);
        assert_eq!((contents.large_objects, contents.server_version.as_str()), (1, "15.18"));
        assert_eq!(contents.owners().into_iter().collect::<Vec<_>>(), ["o"]);
        for end in 0..whole.len() {
            let cut = whole.get(..end).expect("shorter");
            assert!(Contents::read(&mut &*cut).is_err(), "{end}");
        }
        let more = [whole, vec![0]].concat();
        assert!(Contents::read(&mut more.as_slice()).is_err());
    }

    #[test]
    fn rows_without_their_terminator_are_not_complete() {
        for rows in [&b"1\n2\n"[..], b"1\n\\.", b"1\n\\.x\n", b""] {
            let flaw = Contents::read(&mut file(rows, 8).as_slice());
            assert!(flaw.expect_err("cut").to_string().contains("no end"));
        }
    }

    proptest! {
        #[test]
        fn rows_are_counted_however_they_are_cut(
            rows in proptest::collection::vec("[a-z.\\\\]{0,5}", 0..20), chunk in 1_usize..9
        ) {
            let rows: Vec<String> = rows.into_iter().filter(|row| row != "\\.").collect();
            let lines = rows.join("\n") + if rows.is_empty() { "" } else { "\n" };
            let whole = file(format!("{lines}\\.\n\n\n").as_bytes(), chunk);
            let contents = Contents::read(&mut whole.as_slice()).expect("complete");
            prop_assert_eq!(contents.rows.get(&2).copied(), Some(rows.len() as u64));
        }

        #[test]
        fn no_bytes_make_it_fail_otherwise_than_by_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let whole = [&b"PGDMP\x01\x0e\x00\x04\x08\x01"[..], &bytes].concat();
            let _either = Contents::read(&mut whole.as_slice());
        }
    }
}
