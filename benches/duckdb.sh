#!/usr/bin/env bash
# How fast bkp exports a DuckDB database, against DuckDB's own EXPORT DATABASE of the same file.
#
# In one run and alternating: `bkp export` copies the live file consistently, writes Parquet and hashes
# of every row, hashes, seals and confirms all of it; `EXPORT DATABASE … (FORMAT parquet, COMPRESSION
# zstd)` of the Python package opens the file, which needs its lock, and writes Parquet, here also of the version
# that bkp writes. `bkp restore` of that export alternates with `IMPORT DATABASE` of the other. Then increments are
# taken: of no change, of one to the last hundredth of the rows, and of one row in a hundred changed, deleted
# or inserted; and all of them are restored.
#
# What is measured: wall time, the time of processors of the process and those it starts, and the largest resident
# size of one of them. At the end medians are put beside each other: on a machine that does other work, too, only the
# time of processors says something.
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
# shellcheck source=benches/analytics.sh
. benches/analytics.sh
prepare_packages /usr/bin/time=time

sql() { "$python" -c 'import duckdb, sys
connection = duckdb.connect(sys.argv[1])
for statement in sys.argv[2:]: connection.execute(statement)' "$@"; }

# timed WHAT COMMAND...: says wall time, time of processors and largest resident size of a command.
timed() {
    local what=$1 figures=$work/figures
    shift
    /usr/bin/time -o "$figures" -f '%e s (%U + %S s of processors), %M KiB' "$@" >/dev/null
    say "$what $(cat "$figures")"
    printf '%s\t%s\n' "$what" "$(tr -d '(+,)' <"$figures")" >>"$work/all"
}

# beside ONE OTHER MOST: says the medians of ONE as parts of those of OTHER, and the largest part that they should be.
beside() {
    "$python" - "$work/all" "$@" <<'END'
import statistics, sys
path, one, other, most = sys.argv[1:]
found = {}
for line in open(path):
    what, figures = line.rstrip("\n").split("\t")
    wall, _, user, system, *_, kib, _ = figures.split()
    found.setdefault(what, []).append((float(wall), float(user) + float(system), int(kib)))
medians = lambda what: [statistics.median(column) for column in zip(*found[what])]
wall, processors, memory = (a / b for a, b in zip(medians(one), medians(other)))
print(f"duckdb: {one} : {other}: time {wall:.2f}, processors {processors:.2f} (at most {most}), memory {memory:.2f}")
END
}

# stored: says the size of the newest backup.
stored() {
    local bytes
    bytes=$("$program" list --json | "$python" -c 'import json, sys; print(json.load(sys.stdin)["backups"][-1]["stored_bytes"])')
    say "stored $bytes bytes"
}

# restored INCREMENTS: restores all there is.
restored() {
    rm -f "$work/restored.duckdb"
    timed "bkp restore of the full export and $1 increments" "$program" restore analytics --from-export --to "$work/restored.duckdb" --yes -q
}

say "makes a database of $rows rows"
sql "$work/a.duckdb" "CREATE TABLE t (id BIGINT PRIMARY KEY, moment TIMESTAMP, kind VARCHAR, price DECIMAL(18,2), ratio DOUBLE, ok BOOLEAN, note VARCHAR)" \
    "INSERT INTO t SELECT range, TIMESTAMP '2026-01-01' + to_seconds(range), 'k' || (range % 7), (range * 7919 % 1000003)::DECIMAL(18,2) / 100, random(), range % 3 = 0, md5((range % 1000)::VARCHAR) FROM range($rows)"
say "its file has $(stat -c %s "$work/a.duckdb") bytes"
for _ in $(seq "$rounds"); do
    rm -rf "$work/own"
    timed "EXPORT DATABASE" "$python" -c "import duckdb; duckdb.connect('$work/a.duckdb', read_only=True).execute(\"EXPORT DATABASE '$work/own' (FORMAT parquet, COMPRESSION zstd)\")"
    say "stored $(du -sb "$work/own" | cut -f1) bytes"
    timed "bkp export" "$program" export analytics -q --scope full
    stored
    rm -f "$work/imported.duckdb" "$work/restored.duckdb"
    timed "IMPORT DATABASE" "$python" -c "import duckdb; duckdb.connect('$work/imported.duckdb').execute(\"IMPORT DATABASE '$work/own'\")"
    timed "bkp restore of the full export" "$program" restore analytics --from-export --to "$work/restored.duckdb" --yes -q
done
rm -rf "$work/own" "$work/imported.duckdb"
timed "EXPORT DATABASE, version 2 of Parquet" "$python" -c "import duckdb; duckdb.connect('$work/a.duckdb', read_only=True).execute(\"EXPORT DATABASE '$work/own' (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2)\")"
say "stored $(du -sb "$work/own" | cut -f1) bytes"
# What changes in a ledger is recent, and so in the last row groups.
increment=(export analytics -q --scope incremental)
for round in $(seq "$rounds"); do
    timed "bkp export --scope incremental, nothing changed" "$program" "${increment[@]}"
    sql "$work/a.duckdb" "UPDATE t SET note = 'recent $round' WHERE id >= $rows - $rows / 100"
    timed "bkp export --scope incremental, the last hundredth changed" "$program" "${increment[@]}"
    stored
done
restored "$((2 * rounds))"
for round in $(seq "$rounds"); do
    sql "$work/a.duckdb" "UPDATE t SET note = 'changed $round' WHERE id % 100 = 1" "DELETE FROM t WHERE id % 100 = 10 + $round" \
        "INSERT INTO t SELECT id + $rows * 10 * $round, moment, kind, price, ratio, ok, note FROM t WHERE id < $rows AND id % 100 = 3"
    timed "bkp export --scope incremental, one row in a hundred changed" "$program" "${increment[@]}"
    stored
    restored "$((2 * rounds + round))"
    timed "bkp verify --level decode of the same" "$program" verify analytics --from-export --level decode -q
done
beside "bkp export" "EXPORT DATABASE" 1.15
beside "bkp export --scope incremental, the last hundredth changed" "bkp export" 0.25
beside "bkp restore of the full export" "IMPORT DATABASE" 1.2
beside "bkp restore of the full export and $((2 * rounds)) increments" "bkp restore of the full export" 1.2
