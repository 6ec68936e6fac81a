//! Build script. It is in `src` because the top level of the repository is fixed.
//!
//! - Gives the binaries a run path relative to themselves, so that they find the prebuilt
//!   `libduckdb.so` beside them, in `../lib/bkp`, or in the build folder's `tools`.
//! - Tells the program the version of the TigerBeetle client that Cargo.lock pins.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a build script is told by its environment, and stops the build by panicking"
)]

use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=src/build.rs");
    println!("cargo:rerun-if-changed=Cargo.lock");
    if env::var_os("CARGO_FEATURE_BUNDLED").is_none() {
        for place in ["", "/../lib/bkp", "/../tools/duckdb", "/../../tools/duckdb"] {
            println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN{place}");
        }
    }
    // TigerBeetle's client brings Zig's `memcmp`, `memcpy` and mathematics. Hidden, they do not get in the
    // way of the C library's in shared libraries: with them an export of 10 million rows took 2.4 s, not 2.1.
    println!("cargo:rustc-link-arg=-Wl,--exclude-libs,ALL");
    let lock = fs::read_to_string("Cargo.lock").expect("Cargo.lock is part of the repository");
    let version = lock
        .split_once("name = \"tigerbeetle-unofficial-sys\"\nversion = \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .and_then(|(version, _)| version.split_once('+'))
        .map(|(_, engine)| engine.to_owned())
        .expect("Cargo.lock names the TigerBeetle client");
    println!("cargo:rustc-env=BKP_TIGERBEETLE_CLIENT={version}");
}
