#!/usr/bin/env bash
# Makes a frozen store of replicas, as make.sh does of everything else: what tests/it/pipeline/frozen.rs has to
# bring back with every later version. Run it once for each new format, never over a folder that is committed:
#
#   BKP=target/release/bkp tests/frozen/make-replica.sh tests/frozen/replica-v2
#
# Needs BKP (default: bkp of PATH), DUCKDB_PYTHON (default that of examples/prepare.sh) and unshare(1). It writes to
# /tmp/frozen-replica, which must not exist, and to FOLDER, which must not exist either.

set -euo pipefail
shopt -s inherit_errexit

[ "$#" = 1 ] || { sed -n '2,5p' "$0" >&2; exit 2; }
if [ "${FROZEN_INSIDE:-}" != yes ]; then
    export FROZEN_INSIDE=yes
    exec unshare --map-root-user --uts -- "$0" "$1"
fi
hostname example

CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/bkp/target}
BKP=$(realpath -se "$(command -v "${BKP:-bkp}")")
DUCKDB_PYTHON=$(realpath -se "${DUCKDB_PYTHON:-$CARGO_TARGET_DIR/tools/duckdb-writer-1.5.6/bin/python}")
libraries=${LD_LIBRARY_PATH:-}
mkdir "$1"
out=$(cd "$1" && pwd)
work=/tmp/frozen-replica
mkdir -p "$work/store" "$work/tier/2026/11"
cd "$work"
cat >bkp.toml <<END
state_dir = "state"
[store.main]
url = "file://$work/store"
[keys]
recipients = ["file:key"]
[source.tier]
kind = "parquet"
path = "$work/tier"
files = ["**/*"]
[source.plain]
kind = "parquet"
path = "$work/tier"
encryption = "none"
END

bkp() {
    env -i HOME="$work" PATH=/usr/bin:/bin LD_LIBRARY_PATH="$libraries" "$BKP" --config "$work/bkp.toml" -q "$@"
}

# state SOURCE PATTERN: takes a replica and notes the SHA-256 of every file that it has to bring back.
state() {
    bkp replicate "$1" --json >made.json
    "$DUCKDB_PYTHON" - "$2" >>states <<'END'
import hashlib, json, os, sys
made = json.load(open("made.json"))["manifest"]
files = {}
for folder, _, names in os.walk(b"tier"):
    for name in names:
        if sys.argv[1] == "all" or name.endswith(b".parquet"):
            path = os.path.join(folder, name)
            files[os.path.relpath(path, b"tier").hex()] = hashlib.sha256(open(path, "rb").read()).hexdigest()
print(json.dumps({"id": made["id"], "scope": made["scope"], "files": files}))
END
}

bkp keys generate
"$DUCKDB_PYTHON" -c 'import duckdb
duckdb.sql("COPY (SELECT range AS id, range * 2 AS twice FROM range(1000)) TO '"'tier/2026/11/a.parquet'"' (FORMAT parquet)")
duckdb.sql("COPY (SELECT range AS id, [range] AS list FROM range(10)) TO '"'tier/b.parquet'"' (FORMAT parquet)")'
printf 'one' >tier/one
: >tier/empty
printf 'odd' >"$(printf 'tier/odd \377\001"')"
state tier all
state plain parquet
printf 'two' >tier/one
mv tier/2026/11/a.parquet tier/moved.parquet
rm tier/empty
state tier all
printf 'new' >tier/2026/new
rm tier/b.parquet
state tier all
state plain parquet
cp -r store key "$out"
"$DUCKDB_PYTHON" -c 'import json; print(json.dumps([json.loads(line) for line in open("states")], indent=1))' >"$out/expected.json"
# What a run leaves besides backups is of no use to anybody.
rm -rf "$out/store/leases" "$out/store/audit" "$out/store/runs"
find "$out" -type f -exec chmod 644 {} +
rm -rf "$work"
