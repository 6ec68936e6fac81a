//! All limits of the program in one place, with the arithmetic behind them.

/// Bytes of plaintext in one sealed segment. Format 1 fixes it.
pub const SEGMENT_BYTES: usize = 1 << 20;

/// Largest header of a sealed object, bytes. Ten recipients need about 4 KiB.
pub const SEAL_HEADER_BYTES_MAX: usize = 1 << 20;

/// Bytes of input in one compressed frame.
pub const FRAME_BYTES: usize = 4 << 20;

/// Bytes that compression may hold, over all its threads. The rest of a run takes about 40 MiB, so a
/// run stays under 256 MiB whatever level and number of cores.
pub const COMPRESSION_BYTES_MAX: usize = 176 << 20;

/// Largest manifest that is read, bytes. It is read before anything is authenticated, and JSON takes
/// up to a hundred times its length in memory; lists that grow with the data are objects of their own.
pub const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// Most memory that reading a manifest may take, bytes. Several are read at a time. One of 1 MiB as bkp
/// writes it takes 13 MB by the same measure.
pub const MANIFEST_WEIGHT_MAX: u64 = 16 << 20;

/// Most memory that the manifests in one listing may take, bytes: 14 000 ordinary ones.
pub const LISTED_WEIGHT_MAX: u64 = 256 << 20;

/// Largest small object beside a backup that is written or read, bytes: an annotation, an envelope.
pub const MARK_BYTES_MAX: u64 = 64 << 10;

/// Most entries of a key set that is used: 60 years of a segment of a log every 15 minutes; 32 bytes of memory each.
pub const KEY_SET_ENTRIES_MAX: usize = 2_000_000;

/// Largest key or passphrase file that is read, bytes.
pub const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Largest data file that is accepted, bytes: TigerBeetle's own limit is 64 TiB.
pub const TIGERBEETLE_FILE_BYTES_MAX: u64 = 64 << 40;

/// Largest path of a tar member, bytes.
pub const MEMBER_PATH_BYTES_MAX: usize = 255;

/// Most recipients of a backup. Each may cost a derivation before anything is authenticated.
pub const RECIPIENTS_MAX: usize = 32;

/// Rounds of PBKDF2-HMAC-SHA256 for a new passphrase recipient.
pub const PBKDF2_ROUNDS: u32 = 600_000;

/// Most rounds that a header may ask for: a hostile header must not keep a restore busy for hours.
pub const PBKDF2_ROUNDS_MAX: u32 = 10_000_000;

/// Most recipients of one backup that a passphrase is tried on, unless somebody named the backup.
pub const PASSPHRASE_TRIES_MAX: usize = 8;

/// Most derivations in a run whose keys open nothing: what is planted costs half a minute at most. What
/// somebody named is tried all the same.
pub const PBKDF2_WASTE_MAX: usize = 100;

/// Most recipients of one backup that a KMS key is tried on, unless somebody named the backup: an alias
/// does not tell which is its own.
pub const KMS_TRIES_MAX: usize = 4;

/// Longest chain of a base and its increments that is followed.
pub const CHAIN_LENGTH_MAX: usize = 1000;

/// Most events of a ledger that are read into memory: 28 years of a run every 15 minutes, 150 MB.
pub const LEDGER_EVENTS_MAX: usize = 1_000_000;

/// Most objects that a manifest names itself: each takes up to 700 bytes of it. The others of a backup with more
/// are named by an object of their own.
pub const OBJECTS_IN_MANIFEST_MAX: usize = 1024;

/// Most objects of a backup: their names take up to 70 MB of memory.
pub const OBJECTS_MAX: usize = 100_000;

/// Longest line of the list of a backup's objects, bytes: a key has up to 1024, and the rest 600.
pub const OBJECT_LINE_BYTES_MAX: u64 = 2048;

/// Largest list of a backup's objects as stored, bytes: it is read into memory and proven before anything in it is
/// looked at. A line takes about 80 bytes of it.
pub const OBJECT_LIST_BYTES_MAX: u64 = 32 << 20;

/// Most tables of an export: each takes up to 700 bytes of the manifest.
pub const EXPORT_TABLES_MAX: usize = 1000;

/// Largest DuckDB file that is accepted, bytes: its block map takes 4 GiB of memory then.
pub const DUCKDB_FILE_BYTES_MAX: u64 = 64 << 40;

/// Largest log of a DuckDB file that is captured, bytes: DuckDB checkpoints at 16 MiB unless it is
/// told otherwise, and each piece of 1 MiB takes about 100 bytes of memory.
pub const DUCKDB_LOG_BYTES_MAX: u64 = 256 << 30;
