//! The versions of bkp and of the engines linked into it.

use std::ffi::CStr;
use std::sync::LazyLock;

/// The version of the ledger's client library; `build.rs` reads it from Cargo.lock.
const TIGERBEETLE_CLIENT: &str = env!("BKP_TIGERBEETLE_CLIENT");

/// What was built in and in which version, bkp itself first.
#[must_use]
pub fn versions() -> Vec<(String, String)> {
    let how = if cfg!(feature = "bundled") { "bundled" } else { "linked" };
    vec![
        ("bkp".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("DuckDB".to_owned(), format!("{} ({how})", duckdb())),
        ("TigerBeetle client".to_owned(), TIGERBEETLE_CLIENT.to_owned()),
    ]
}

/// What `--version` prints after the name.
pub(crate) fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let lines = versions().into_iter().enumerate().map(|(index, (name, version))| {
            // clap prints the program's own name.
            if index == 0 { version } else { format!("{name} {version}") }
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    &TEXT
}

/// The version that the linked library tells, without opening a database.
pub(crate) fn duckdb() -> String {
    #[expect(unsafe_code, reason = "the safe interface tells the version only of an open database")]
    // SAFETY: the function takes nothing, may be called at any time, and returns a pointer to a
    // NUL-terminated string that lives as long as the library, which is linked into this process.
    let text = unsafe { CStr::from_ptr(duckdb::ffi::duckdb_library_version()) };
    text.to_string_lossy().trim_start_matches('v').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_has_a_version() {
        for (name, version) in versions() {
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{name} {version}");
        }
    }
}
