//! An in-memory database, opened through DuckDB's C interface, for features missing in the safe
//! interface, such as functions that are also called for NULL or that have side effects.

use std::ffi::{CStr, CString, c_void};
use std::ptr;

use duckdb::ffi;

/// A function of a chunk of rows, which finds its state by `duckdb_scalar_function_get_extra_info`.
pub(crate) struct ScalarFunction<'a> {
    pub(crate) name: &'a str,
    /// The types of what it takes; without any it takes as many values as there are, of all types, also NULL.
    pub(crate) parameters: &'a [ffi::duckdb_type],
    pub(crate) result: ffi::duckdb_type,
    /// Whether it has to be called once for each row, whatever it takes.
    pub(crate) has_effects: bool,
    pub(crate) call:
        unsafe extern "C" fn(ffi::duckdb_function_info, ffi::duckdb_data_chunk, ffi::duckdb_vector),
}

/// An empty database in memory, and a connection to it.
pub(crate) struct RawDatabase {
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
    pub(crate) fn open(settings: &[(&str, impl AsRef<str>)]) -> Result<RawDatabase, String> {
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
    pub(crate) fn connect(&self) -> duckdb::Result<duckdb::Connection> {
        // SAFETY: the database is open until this value is dropped.
        unsafe { duckdb::Connection::open_from_raw(self.database) }
    }

    /// The connection of the C interface, valid as long as this value.
    pub(crate) fn connection(&self) -> ffi::duckdb_connection {
        self.connection
    }

    /// Makes a function known to every connection of the database. It has its state for as long as the engine
    /// has the function, and calls come from several threads.
    ///
    /// # Errors
    /// That the engine refuses it.
    #[expect(unsafe_code, reason = "handles of the C interface")]
    pub(crate) fn register<T: Send + Sync>(
        &self,
        of: &ScalarFunction<'_>,
        state: T,
    ) -> Result<(), String> {
        let name = CString::new(of.name).map_err(|error| error.to_string())?;
        let state: *mut T = Box::into_raw(Box::new(state));
        // SAFETY: function and types are made and destroyed here; the engine copies what it needs of them. The
        // state belongs to the function from here on, and is released by `release`, once.
        let registered = unsafe {
            let mut function = ffi::duckdb_create_scalar_function();
            ffi::duckdb_scalar_function_set_name(function, name.as_ptr());
            for parameter in of.parameters {
                let mut parameter = ffi::duckdb_create_logical_type(*parameter);
                ffi::duckdb_scalar_function_add_parameter(function, parameter);
                ffi::duckdb_destroy_logical_type(&raw mut parameter);
            }
            if of.parameters.is_empty() {
                let mut any = ffi::duckdb_create_logical_type(ffi::DUCKDB_TYPE_DUCKDB_TYPE_ANY);
                ffi::duckdb_scalar_function_set_varargs(function, any);
                ffi::duckdb_scalar_function_set_special_handling(function);
                ffi::duckdb_destroy_logical_type(&raw mut any);
            }
            let mut result = ffi::duckdb_create_logical_type(of.result);
            ffi::duckdb_scalar_function_set_return_type(function, result);
            ffi::duckdb_destroy_logical_type(&raw mut result);
            if of.has_effects {
                ffi::duckdb_scalar_function_set_volatile(function);
            }
            ffi::duckdb_scalar_function_set_extra_info(function, state.cast(), Some(release::<T>));
            ffi::duckdb_scalar_function_set_function(function, Some(of.call));
            let registered = ffi::duckdb_register_scalar_function(self.connection, function);
            ffi::duckdb_destroy_scalar_function(&raw mut function);
            registered
        };
        let is_registered = registered == ffi::DuckDBSuccess;
        is_registered
            .then_some(())
            .ok_or_else(|| format!("the engine refuses the function {}", of.name))
    }
}

/// Releases the state of a function that is gone.
#[expect(unsafe_code, reason = "called by the C interface")]
unsafe extern "C" fn release<T>(state: *mut c_void) {
    // SAFETY: it is what `register` gave away, and nobody has it any more.
    drop(unsafe { Box::from_raw(state.cast::<T>()) });
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
