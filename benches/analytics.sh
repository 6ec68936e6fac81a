# A DuckDB database `a.duckdb` in `$work` and bkp configured to back it up to a folder beside it. Sourced by
# the benchmarks of DuckDB, in the repository's root; the folder is removed when they end.
# shellcheck shell=bash

export PREPARE_SERVICES=all
# shellcheck source=examples/prepare.sh
. examples/prepare.sh
cargo build --release --locked --bins

work=$CARGO_TARGET_DIR/bench
program=$CARGO_TARGET_DIR/release/bkp
export python=$CARGO_TARGET_DIR/tools/duckdb-writer-1.5.6/bin/python
trap 'rm -rf "$work"' EXIT
rm -rf "$work"
mkdir -p "$work/store"
cat >"$work/bkp.toml" <<END
state_dir = "$work/state"
[store.main]
url = "file://$work/store"
[keys]
recipients = ["file:$work/key"]
[source.analytics]
kind = "duckdb"
path = "$work/a.duckdb"
END
export BKP_CONFIG=$work/bkp.toml
"$program" keys generate -q
