//! A small blocking client of PostgreSQL: connection strings, TLS, queries, physical replication. It knows
//! nothing of backups.
//!
//! ```text
//! connect                        from a connection string to a server that waits for commands
//! query, replication,            what can be asked: SQL; systems, timelines, slots;
//! base_backup, wal_stream        a base backup; the log as it is written
//! copy                           rows from one server into another
//! auth                           passwords and SCRAM
//! connection                     messages back and forth
//! stream, dial, tls              bytes back and forth
//! conninfo                       what libpq's strings, variables and files say
//! libpq                          the same for libpq's own programs
//! frame, message                 what stands in the bytes
//! error, lsn
//! ```
//!
//! The server's bytes are not trusted, and no wait is without end: every read and write has a limit of silence,
//! and looks at the wish to stop five times a second.

pub use self::base_backup::{
    BackupEvent, BackupOptions, BaseBackup, Checkpoint, Position, Tablespace,
};
pub use self::connect::Purpose;
pub use self::connection::Connection;
pub use self::conninfo::{ChannelBinding, Conninfo, Endpoint, Surroundings, TargetSession};
pub use self::error::{ClientError, PgError, quote_identifier};
pub use self::libpq::{Variables, quoted};
pub use self::lsn::{Lsn, NotAnLsn};
pub use self::query::{ResultSet, Row, quote_literal};
pub use self::replication::{Slot, SystemIdentity};
pub use self::wal_stream::{WalEvent, WalStatus, WalStream};

mod auth;
mod base_backup;
mod certificate;
mod connect;
mod connection;
mod conninfo;
mod copy;
mod dial;
mod error;
mod frame;
mod keyword_table;
mod keywords;
mod libpq;
mod lsn;
mod message;
mod password_file;
mod query;
mod replication;
mod server_check;
mod service_file;
mod stream;
mod tls;
mod tls_settings;
mod wal_stream;
