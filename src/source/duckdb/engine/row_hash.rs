//! The keyed hash of a row, as a function of the engine.
//!
//! Rows of two exports are the same if their hashes are. DuckDB's own `hash` has no key: whoever writes
//! the database can look for two rows with the same hash, and an increment would miss that the one became
//! the other. So rows are hashed with SipHash-1-3 (Aumasson and Bernstein, 2012; the variant of most
//! languages' hash tables) under a key that only the export's sealed index has: whoever chooses the
//! rows never sees a hash.
//!
//! What is hashed tells every two rows of a table apart, since its columns and their types are given:
//!
//! ```text
//! of each value    numbers, dates, times, UUIDs: one or two words, with their sign
//!                  FLOAT, DOUBLE: the bits of the value as a DOUBLE; one zero, one NaN
//!                  texts, blobs: how many bytes, then the bytes, with zeros up to a whole word
//!                  NULL: nothing
//! at the end       for every 64 columns a word of bits: which values are NULL
//! ```
//!
//! Words have 64 bits and are little-endian.

use std::ffi::c_void;
use std::ops::Range;

use duckdb::ffi;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::domain::hex::{hex, unhex};
use crate::source::duckdb::engine::raw::{RawDatabase, ScalarFunction};
use crate::source::duckdb::engine::siphash::{KEY_BYTES, LANES, SipLanes};

/// The two functions, each with a key of its own. They take values of any of the types in [`Width`].
pub(crate) const FUNCTIONS: [&str; 2] = ["bkp_row_hash", "bkp_row_hash_2"];

/// The keys of an export's [`FUNCTIONS`].
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RowKeys([[u8; KEY_BYTES]; 2]);

impl std::fmt::Debug for RowKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RowKeys")
    }
}

impl RowKeys {
    /// New ones.
    ///
    /// # Errors
    /// That the system's random number generator failed.
    pub(crate) fn random() -> anyhow::Result<RowKeys> {
        let mut keys = RowKeys([[0; KEY_BYTES]; 2]);
        SystemRandom::new().fill(keys.0.as_flattened_mut()).map_err(|_unspecified| {
            anyhow::anyhow!("the system's random number generator failed")
        })?;
        Ok(keys)
    }

    /// As the index has them: 64 hexadecimal digits.
    pub(crate) fn to_hex(&self) -> String {
        hex(self.0.as_flattened())
    }

    /// Reads them; nothing if these are none.
    pub(crate) fn from_hex(text: &str) -> Option<RowKeys> {
        let bytes = unhex(text.as_bytes())?;
        let (first, second) = bytes.split_at_checked(KEY_BYTES)?;
        Some(RowKeys([first.try_into().ok()?, second.try_into().ok()?]))
    }
}

/// Makes the functions known to every connection of a database.
///
/// # Errors
/// That the engine refuses them.
pub(crate) fn register(database: &RawDatabase, keys: &RowKeys) -> Result<(), String> {
    FUNCTIONS.iter().zip(&keys.0).try_for_each(|(name, key)| {
        let function = ScalarFunction {
            name,
            parameters: &[],
            result: ffi::DUCKDB_TYPE_DUCKDB_TYPE_UBIGINT,
            has_effects: false,
            call: hash_rows,
        };
        database.register(&function, *key)
    })
}

/// How the values of a column lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    U8,
    U16,
    U32,
    U64,
    U128,
    I8,
    I16,
    I32,
    Float,
    Double,
    Bytes,
}

impl Width {
    /// That of a type; nothing for one that is not hashed as it is.
    #[expect(unsafe_code, reason = "the C interface")]
    fn of(vector: ffi::duckdb_vector) -> Option<Width> {
        // SAFETY: the vector is one of the chunk that is at hand; its type is destroyed here.
        let id = unsafe {
            let mut of_vector = ffi::duckdb_vector_get_column_type(vector);
            let mut id = ffi::duckdb_get_type_id(of_vector);
            if id == ffi::DUCKDB_TYPE_DUCKDB_TYPE_DECIMAL {
                id = ffi::duckdb_decimal_internal_type(of_vector);
            }
            ffi::duckdb_destroy_logical_type(&raw mut of_vector);
            id
        };
        match id {
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_BOOLEAN | ffi::DUCKDB_TYPE_DUCKDB_TYPE_UTINYINT => {
                Some(Width::U8)
            }
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_USMALLINT => Some(Width::U16),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_UINTEGER => Some(Width::U32),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_TINYINT => Some(Width::I8),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_SMALLINT => Some(Width::I16),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTEGER | ffi::DUCKDB_TYPE_DUCKDB_TYPE_DATE => {
                Some(Width::I32)
            }
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGINT
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_UBIGINT
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIME
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_S
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_MS
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_NS
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_TZ => Some(Width::U64),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_HUGEINT
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_UHUGEINT
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_UUID => Some(Width::U128),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_FLOAT => Some(Width::Float),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_DOUBLE => Some(Width::Double),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARCHAR | ffi::DUCKDB_TYPE_DUCKDB_TYPE_BLOB => {
                Some(Width::Bytes)
            }
            _ => None,
        }
    }
}

/// A column of a chunk.
#[derive(Clone, Copy)]
struct Column {
    width: Width,
    data: *const c_void,
    /// A bit for every row that is set where there is a value; null if there is one everywhere.
    validity: *mut u64,
}

impl Column {
    /// Whether there is a value in a row.
    ///
    /// # Safety
    /// The column is one of a chunk that has more rows than `row`.
    #[expect(unsafe_code, reason = "vectors of the C interface")]
    unsafe fn has_value(&self, row: usize) -> bool {
        // SAFETY: where there is a validity it has a bit for every row.
        unsafe { self.validity.is_null() || *self.validity.add(row / 64) >> (row % 64) & 1 != 0 }
    }

    /// The values in these rows, each with its place among them.
    ///
    /// # Safety
    /// The column is one of a chunk that has these rows, and values of this type.
    #[expect(unsafe_code, reason = "vectors of the C interface")]
    unsafe fn values<T: Copy>(&self, rows: Range<usize>) -> impl Iterator<Item = (usize, T)> {
        let (column, data) = (*self, self.data.cast::<T>());
        // SAFETY: the vector is flat, has this type, and holds the row; what is NULL is not read.
        let value = move |(lane, row)| unsafe { (lane, *data.add(row)) };
        // SAFETY: as above.
        rows.enumerate().filter(move |(_, row)| unsafe { column.has_value(*row) }).map(value)
    }

    /// Adds the values of some rows to what is hashed of them: the first of these rows is lane 0.
    ///
    /// # Safety
    /// The column is one of a chunk that has these rows.
    #[expect(unsafe_code, reason = "vectors of the C interface")]
    unsafe fn add(&self, rows: Range<usize>, to: &mut SipLanes) {
        // SAFETY: each of these is how the values of the width lie in memory.
        unsafe {
            match self.width {
                Width::U8 => self.words::<u8>(rows, to, u64::from),
                Width::U16 => self.words::<u16>(rows, to, u64::from),
                Width::U32 => self.words::<u32>(rows, to, u64::from),
                Width::U64 => self.words::<u64>(rows, to, |value| value),
                Width::I8 => self.words::<i8>(rows, to, |value| signed(value.into())),
                Width::I16 => self.words::<i16>(rows, to, |value| signed(value.into())),
                Width::I32 => self.words::<i32>(rows, to, |value| signed(value.into())),
                Width::U128 => {
                    self.words::<[u64; 2]>(rows.clone(), to, |[low, _]| low);
                    self.words::<[u64; 2]>(rows, to, |[_, high]| high);
                }
                Width::Float => self.words::<f32>(rows, to, |value| canonical(value.into())),
                Width::Double => self.words::<f64>(rows, to, canonical),
                Width::Bytes => {
                    let length = |text: ffi::duckdb_string_t| bytes_of(&text).len() as u64;
                    self.words::<ffi::duckdb_string_t>(rows.clone(), to, length);
                    for (lane, text) in self.values::<ffi::duckdb_string_t>(rows) {
                        to.add_to(lane, words_of(bytes_of(&text)));
                    }
                }
            }
        }
    }

    /// Adds a word of each value.
    ///
    /// # Safety
    /// The column is one of a chunk that has these rows, and values of this type.
    #[expect(unsafe_code, reason = "vectors of the C interface")]
    unsafe fn words<T: Copy>(
        &self,
        rows: Range<usize>,
        to: &mut SipLanes,
        word: impl Fn(T) -> u64,
    ) {
        // SAFETY: as above.
        let values = unsafe { self.values::<T>(rows.clone()) };
        if !self.validity.is_null() {
            return values.for_each(|(lane, value)| to.add_to(lane, std::iter::once(word(value))));
        }
        let mut words = [0; LANES];
        // SAFETY: the vector is flat, has this type and these rows, and none of them is NULL.
        let values = unsafe {
            std::slice::from_raw_parts(self.data.cast::<T>().add(rows.start), rows.len())
        };
        for (place, value) in words.iter_mut().zip(values) {
            *place = word(*value);
        }
        to.add(words.get(..rows.len()).unwrap_or_default());
    }
}

/// The bytes of a text.
///
/// # Safety
/// The text is one of a vector that lives as long.
#[expect(unsafe_code, reason = "texts of the C interface")]
unsafe fn bytes_of(text: &ffi::duckdb_string_t) -> &[u8] {
    // SAFETY: a text's pointer is valid where its length says that it is used.
    unsafe {
        let length = text.value.inlined.length as usize;
        let bytes = if length <= text.value.inlined.inlined.len() {
            text.value.inlined.inlined.as_ptr()
        } else {
            text.value.pointer.ptr
        };
        std::slice::from_raw_parts(bytes.cast::<u8>(), length)
    }
}

/// Bytes of a word.
const WORD_BYTES: usize = 8;

/// A number with its sign, as a word.
fn signed(value: i64) -> u64 {
    value.cast_unsigned()
}

/// The words of a text, of which the last one ends in zeros.
fn words_of(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let (whole, rest) = bytes.as_chunks::<WORD_BYTES>();
    let last = (!rest.is_empty()).then(|| {
        let mut word = [0; WORD_BYTES];
        for (place, byte) in word.iter_mut().zip(rest) {
            *place = *byte;
        }
        u64::from_le_bytes(word)
    });
    whole.iter().map(|word| u64::from_le_bytes(*word)).chain(last)
}

/// Bits that are the same for what DuckDB's storage may take for the same.
fn canonical(value: f64) -> u64 {
    if value == 0.0 {
        0
    } else if value.is_nan() {
        f64::NAN.to_bits()
    } else {
        value.to_bits()
    }
}

/// Hashes the rows of a chunk.
#[expect(unsafe_code, reason = "called by the C interface")]
unsafe extern "C" fn hash_rows(
    info: ffi::duckdb_function_info,
    chunk: ffi::duckdb_data_chunk,
    output: ffi::duckdb_vector,
) {
    // SAFETY: the engine calls this with a chunk whose vectors are flat and live as long as the call, a vector
    // for as many numbers as the chunk has rows, and the key that the function was
    // registered with.
    unsafe {
        let key = &*ffi::duckdb_scalar_function_get_extra_info(info).cast::<[u8; KEY_BYTES]>();
        let rows = usize::try_from(ffi::duckdb_data_chunk_get_size(chunk)).unwrap_or(0);
        let count = ffi::duckdb_data_chunk_get_column_count(chunk);
        let column = |index| {
            let vector = ffi::duckdb_data_chunk_get_vector(chunk, index);
            Some(Column {
                width: Width::of(vector)?,
                data: ffi::duckdb_vector_get_data(vector),
                validity: ffi::duckdb_vector_get_validity(vector),
            })
        };
        let Some(columns) = (0..count).map(column).collect::<Option<Vec<_>>>() else {
            let why = c"a value of this type has no hash";
            ffi::duckdb_scalar_function_set_error(info, why.as_ptr());
            return;
        };
        let results = ffi::duckdb_vector_get_data(output).cast::<u64>();
        let results = std::slice::from_raw_parts_mut(results, rows);
        let mut lanes = SipLanes::new(key);
        for (start, results) in (0..).step_by(LANES).zip(results.chunks_mut(LANES)) {
            let some = start..start + results.len();
            lanes.clear();
            for column in &columns {
                column.add(some.clone(), &mut lanes);
            }
            for columns in columns.chunks(64) {
                let may_lack = columns.iter().any(|column| !column.validity.is_null());
                let mut nulls = [0; LANES];
                for (word, row) in nulls.iter_mut().zip(some.clone()).filter(|_| may_lack) {
                    let bit = |(number, column): (usize, &Column)| {
                        u64::from(!column.has_value(row)) << number
                    };
                    *word = columns.iter().enumerate().map(bit).fold(0, |all, bit| all | bit);
                }
                lanes.add(nulls.get(..results.len()).unwrap_or_default());
            }
            lanes.finish(results);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use siphasher::sip::SipHasher13;

    use super::*;

    fn engine() -> (RawDatabase, duckdb::Connection) {
        let settings = [("threads", "2"), ("memory_limit", "256MiB")];
        let database = RawDatabase::open(&settings).expect("a database in memory");
        let keys =
            RowKeys::from_hex(&("0123456789abcdef".repeat(2) + &"ab".repeat(16))).expect("keys");
        register(&database, &keys).expect("functions");
        let connection = database.connect().expect("a connection");
        (database, connection)
    }

    fn hashes(connection: &duckdb::Connection, query: &str) -> Vec<u64> {
        let mut statement = connection.prepare(query).expect(query);
        let rows = statement.query_map([], |row| row.get(0)).expect(query);
        rows.collect::<Result<_, _>>().expect(query)
    }

    #[test]
    fn a_hash_is_that_of_the_documented_bytes() {
        let (_database, connection) = engine();
        let key = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef].repeat(2);
        let expected = |bytes: &[u8]| {
            let key: &[u8; KEY_BYTES] = key.as_slice().try_into().expect("16 bytes");
            let mut hasher = SipHasher13::new_with_key(key);
            hasher.write(bytes);
            hasher.finish()
        };
        let row = "SELECT system.main.bkp_row_hash(-2::TINYINT, 'a text that is not inline', NULL::DATE, -0.0::DOUBLE, true, 3::UHUGEINT, 1.5::FLOAT, 'in'::BLOB)";
        let mut bytes = (-2_i64).to_le_bytes().to_vec();
        bytes.extend(25_u64.to_le_bytes());
        bytes.extend(b"a text that is not inline\0\0\0\0\0\0\0");
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        bytes.extend(3_u128.to_le_bytes());
        bytes.extend(1.5_f64.to_bits().to_le_bytes());
        bytes.extend(2_u64.to_le_bytes());
        bytes.extend(b"in\0\0\0\0\0\0");
        bytes.extend(0b100_u64.to_le_bytes());
        assert_eq!(hashes(&connection, row), [expected(&bytes)]);
        let columns = vec!["NULL::INTEGER"; 65].join(", ");
        let wide = hashes(&connection, &format!("SELECT system.main.bkp_row_hash({columns})"));
        assert_eq!(wide, [expected(&[[0xff; 8], [1, 0, 0, 0, 0, 0, 0, 0]].concat())]);
        let other = hashes(&connection, "SELECT system.main.bkp_row_hash_2(1), bkp_row_hash(1)");
        assert_ne!(other, hashes(&connection, "SELECT system.main.bkp_row_hash(1)"));
    }

    /// However the engine hands a value over, flat, constant, or by a dictionary, and to whichever thread.
    #[test]
    fn a_hash_does_not_depend_on_what_stands_around_a_value() {
        let (_database, connection) = engine();
        let setup = "CREATE TABLE t AS SELECT i, 'k' || (i % 3) AS kind, CASE WHEN i % 5 > 0 THEN i END AS gap, CASE WHEN i > 90000 THEN i % 7 = 0 END AS late, (i % 11 - 5)::DECIMAL(20,2) AS price FROM range(100000) s(i); CREATE MACRO bkp_row_hash(a, b, c, d, e) AS 0";
        connection.execute_batch(setup).expect("a table");
        let hash = "system.main.bkp_row_hash(i, kind, gap, late, price)";
        let all = hashes(&connection, &format!("SELECT {hash} FROM t ORDER BY i"));
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        for filter in ["kind = 'k1'", "gap IS NULL", "late", "i % 2048 = 7", "price < 0"] {
            let query = format!("SELECT {hash} FROM t WHERE {filter} ORDER BY i");
            let places = format!("SELECT i::UBIGINT FROM t WHERE {filter} ORDER BY i");
            let expected: Vec<u64> = hashes(&connection, &places)
                .into_iter()
                .map(|i| all[usize::try_from(i).expect("a place")])
                .collect();
            assert_eq!(hashes(&connection, &query), expected, "{filter}");
        }
        let one = "SELECT system.main.bkp_row_hash(7::BIGINT, 'k1', 7::BIGINT, NULL::BOOLEAN, 2::DECIMAL(20,2))";
        assert_eq!(hashes(&connection, one), [all[7]]);
    }

    #[test]
    fn values_that_differ_have_hashes_that_differ() {
        let (_database, connection) = engine();
        let values = [
            "NULL::VARCHAR, ''",
            "'', NULL::VARCHAR",
            "'', ''",
            "'a', ''",
            "'', 'a'",
            "'a', 'a'",
            "'A', 'a'",
            "'a\u{301}', 'a'",
            "'twelve bytes', 'a'",
            "'thirteen char', 'a'",
        ];
        let hash = |values: &str| {
            let query = format!("SELECT system.main.bkp_row_hash({values})");
            hashes(&connection, &query)[0]
        };
        let found: std::collections::BTreeSet<u64> = values.iter().map(|v| hash(v)).collect();
        assert_eq!(found.len(), values.len());
        assert_eq!(hash("'a' COLLATE NOCASE"), hash("'a'"));
        assert_ne!(hash("'A' COLLATE NOCASE"), hash("'a'"));
        assert_ne!(hash("0::HUGEINT"), hash("-1::HUGEINT"));
        assert_eq!(hash("0.0::FLOAT"), hash("-0.0::FLOAT"));
        assert_eq!(hash("'nan'::DOUBLE"), hash("-('nan'::DOUBLE)"));
        assert_ne!(hash("'inf'::DOUBLE"), hash("'-inf'::DOUBLE"));
        for refused in ["[1]", "{'a': 1}", "INTERVAL 1 DAY", "'1'::BIT"] {
            let query = format!("SELECT system.main.bkp_row_hash({refused})");
            let why = connection.execute_batch(&query).expect_err(refused).to_string();
            assert!(why.contains("has no hash"), "{why}");
        }
    }
}
