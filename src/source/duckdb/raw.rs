//! A database in memory, opened through DuckDB's C interface: for what the safe interface does not have.

use std::ffi::{CStr, CString};
use std::ptr;

use duckdb::ffi;

/// An empty database in memory, and a connection to it.
pub(super) struct RawDatabase {
    database: ffi::duckdb_database,
    connection: ffi::duckdb_connection,
}

impl std::fmt::Debug for RawDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawDatabase").finish_non_exhaustive()
    }
}

impl RawDatabase {
    /// Opens one with these settings.
    ///
    /// # Errors
    /// A setting that the engine does not know, or that it cannot open a database.
    #[expect(unsafe_code, reason = "handles of the C interface")]
    pub(super) fn open(settings: &[(&str, impl AsRef<str>)]) -> Result<RawDatabase, String> {
        let mut opened = RawDatabase { database: ptr::null_mut(), connection: ptr::null_mut() };
        let texts = settings
            .iter()
            .map(|(name, value)| Ok((CString::new(*name)?, CString::new(value.as_ref())?)))
            .collect::<Result<Vec<_>, std::ffi::NulError>>()
            .map_err(|error| format!("a setting of the engine: {error}"))?;
        let mut config = ptr::null_mut();
        let mut why = ptr::null_mut();
        // SAFETY: the four handles are out parameters of this function, null before. The settings' is released
        // here, the error's text is copied and freed here, and the others are closed once, when the value is
        // dropped. Names and values end with NUL and outlive the calls; a null path opens a database in memory.
        unsafe {
            let mut refused = (ffi::duckdb_create_config(&raw mut config) != ffi::DuckDBSuccess)
                .then(|| "settings".to_owned());
            for (name, value) in &texts {
                if refused.is_none()
                    && ffi::duckdb_set_config(config, name.as_ptr(), value.as_ptr())
                        != ffi::DuckDBSuccess
                {
                    refused = Some(name.to_string_lossy().into_owned());
                }
            }
            if refused.is_none()
                && ffi::duckdb_open_ext(ptr::null(), &raw mut opened.database, config, &raw mut why)
                    != ffi::DuckDBSuccess
            {
                let text = if why.is_null() {
                    String::new()
                } else {
                    CStr::from_ptr(why).to_string_lossy().into_owned()
                };
                ffi::duckdb_free(why.cast());
                refused = Some(format!("a database in memory: {text}"));
            }
            ffi::duckdb_destroy_config(&raw mut config);
            if refused.is_none()
                && ffi::duckdb_connect(opened.database, &raw mut opened.connection)
                    != ffi::DuckDBSuccess
            {
                refused = Some("a connection".to_owned());
            }
            refused.map_or(Ok(opened), |what| Err(format!("the engine refuses {what}")))
        }
    }

    /// A connection with the safe interface, which must not outlive this value.
    ///
    /// # Errors
    /// What the engine says.
    #[expect(unsafe_code, reason = "the only way from the C interface to the safe one")]
    pub(super) fn connect(&self) -> duckdb::Result<duckdb::Connection> {
        // SAFETY: the database is open until this value is dropped.
        unsafe { duckdb::Connection::open_from_raw(self.database) }
    }

    /// The connection of the C interface, valid as long as this value.
    pub(super) fn connection(&self) -> ffi::duckdb_connection {
        self.connection
    }
}

impl Drop for RawDatabase {
    #[expect(unsafe_code, reason = "handles of the C interface")]
    fn drop(&mut self) {
        // SAFETY: both are handles of this value, or null, which both functions take.
        unsafe {
            ffi::duckdb_disconnect(&raw mut self.connection);
            ffi::duckdb_close(&raw mut self.database);
        }
    }
}
