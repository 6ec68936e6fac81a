#!/usr/bin/env bash
# How fast bkp exports a DuckDB database, against DuckDB's own EXPORT DATABASE of the same file.
#
# In one run and alternating: `bkp export` copies the live file consistently, writes Parquet and hashes
# of every row, hashes, seals and confirms all of it; `EXPORT DATABASE … (FORMAT parquet, COMPRESSION
# zstd)` of the Python package opens the file, which needs its lock, and writes Parquet. Then one
# row in a hundred is changed, deleted or inserted, and an incremental export is taken.
#
# What is measured: wall time, the time of processors, and the largest resident size of the process.
# Everything is in `bench` in the build folder, which is removed at the end.

set -euo pipefail

usage() {
    cat <<'END'
Usage: benches/duckdb.sh [--rounds N] [--rows N]

  --rounds N         measure everything N times (default 3)
  --rows N           rows of the table that is exported (default 10000000)
  --help             this text
END
}

rounds=3 rows=10000000
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=${2:?} && shift 2 ;;
    --rows) rows=${2:?} && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

say() { printf 'duckdb: %s\n' "$*"; }

cd "$(dirname "$0")/.."
PREPARE_SERVICES=all
# shellcheck source=examples/prepare.sh
. examples/prepare.sh
prepare_packages /usr/bin/time=time
cargo build --release --locked --bins

work=$CARGO_TARGET_DIR/bench
program=$CARGO_TARGET_DIR/release/bkp
python=$CARGO_TARGET_DIR/tools/duckdb-writer-1.5.6/bin/python
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

sql() { "$python" -c 'import duckdb, sys
connection = duckdb.connect(sys.argv[1])
for statement in sys.argv[2:]: connection.execute(statement)' "$@"; }

# timed COMMAND...: wall time, time of processors and largest resident size of a command.
timed() { /usr/bin/time -f '%e s (%U + %S s of processors), %M KiB' "$@" 2>&1 >/dev/null | tail -1; }

say "makes a database of $rows rows"
sql "$work/a.duckdb" "CREATE TABLE t (id BIGINT PRIMARY KEY, moment TIMESTAMP, kind VARCHAR, price DECIMAL(18,2), ratio DOUBLE, ok BOOLEAN, note VARCHAR)" \
    "INSERT INTO t SELECT range, TIMESTAMP '2026-01-01' + to_seconds(range), 'k' || (range % 7), (range * 7919 % 1000003)::DECIMAL(18,2) / 100, random(), range % 3 = 0, md5((range % 1000)::VARCHAR) FROM range($rows)"
say "its file has $(stat -c %s "$work/a.duckdb") bytes"
for _ in $(seq "$rounds"); do
    rm -rf "$work/own"
    say "EXPORT DATABASE:  $(timed "$python" -c "import duckdb; duckdb.connect('$work/a.duckdb', read_only=True).execute(\"EXPORT DATABASE '$work/own' (FORMAT parquet, COMPRESSION zstd)\")"), $(du -sb "$work/own" | cut -f1) bytes"
    say "bkp export:       $(timed "$program" export analytics -q), $("$program" list --json | "$python" -c 'import json, sys; print(json.load(sys.stdin)["backups"][-1]["stored_bytes"])') bytes"
done
sql "$work/a.duckdb" "UPDATE t SET note = 'changed' WHERE id % 100 = 1" "DELETE FROM t WHERE id % 100 = 2" \
    "INSERT INTO t SELECT id + $rows * 10, moment, kind, price, ratio, ok, note FROM t WHERE id % 100 = 3"
say "bkp export --scope incremental: $(timed "$program" export analytics -q --scope incremental), $("$program" list --json | "$python" -c 'import json, sys; print(json.load(sys.stdin)["backups"][-1]["stored_bytes"])') bytes"
say "bkp restore of both: $(timed "$program" restore analytics --from-export --to "$work/restored.duckdb" --yes -q)"
