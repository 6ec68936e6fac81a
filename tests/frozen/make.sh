#!/usr/bin/env bash
# Makes a frozen store: a small store of the format that this version of bkp writes, with every kind of
# backup in it, and what has to come back from it. tests/it/pipeline/frozen.rs restores all of it with every
# later version. Run it once for each new format, never over a folder that is committed:
#
#   BKP=target/release/bkp tests/frozen/make.sh tests/frozen/v2
#
# What is expected is asked from the sources at the time of each backup, not taken from what bkp restores;
# only the digests of restored TigerBeetle files are bkp's own, after a server was started on each of them
# and had the totals of the original.
#
# Needs what the tests need: BKP (default: bkp of PATH), BKP_TEST_TIGERBEETLE, LEDGERLOAD and DUCKDB_PYTHON
# (by default those of examples/prepare.sh and cargo in CARGO_TARGET_DIR), and unshare(1), so that host and
# paths in the store are nobody's. It writes to /tmp/frozen-store, which must not exist and
# takes 3 GB for a while, and to FOLDER, which must not exist either; a run that fails leaves both to be
# looked at. It stops by its process id the server that it starts.

set -euo pipefail
shopt -s inherit_errexit

[ "$#" = 1 ] || { sed -n '2,8p' "$0" >&2; exit 2; }
if [ "${FROZEN_INSIDE:-}" != yes ]; then
    export FROZEN_INSIDE=yes
    exec unshare --map-root-user --uts -- "$0" "$1"
fi
hostname example

root=$(cd "$(dirname "$0")/../.." && pwd)
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/bkp/target}
# Links stay: an environment of Python is known by the place of its link.
BKP=$(realpath -se "$(command -v "${BKP:-bkp}")")
TIGERBEETLE=$(realpath -se "${BKP_TEST_TIGERBEETLE:-$CARGO_TARGET_DIR/tools/bin/tigerbeetle}")
LEDGERLOAD=$(realpath -se "${LEDGERLOAD:-$CARGO_TARGET_DIR/release/examples/ledgerload}")
DUCKDB_PYTHON=$(realpath -se "${DUCKDB_PYTHON:-$CARGO_TARGET_DIR/tools/duckdb-writer-1.5.6/bin/python}")
libraries=${LD_LIBRARY_PATH:-}
mkdir "$1"
out=$(cd "$1" && pwd)
work=/tmp/frozen-store
config=$work/bkp.toml
cluster=7
server_pid=
mkdir "$work"
cd "$work"

server_stop() {
    [ -n "$server_pid" ] || return 0
    # TigerBeetle has no other way to be stopped; its file is in order at any moment.
    kill -9 "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
    server_pid=
}
trap server_stop EXIT

# server_start DATA_FILE PORT
server_start() {
    : >"$1.log"
    "$TIGERBEETLE" start --cache-grid=256MiB "--addresses=127.0.0.1:$2" "$1" >"$1.log" 2>&1 </dev/null &
    server_pid=$!
    local waited=0
    until grep -q ': listening on ' "$1.log" && grep -q transition_to_normal "$1.log"; do
        sleep 0.1
        waited=$((waited + 1))
        if [ "$waited" -gt 1200 ] || ! kill -0 "$server_pid" 2>/dev/null; then
            tail -n 5 "$1.log" >&2
            return 1
        fi
    done
}

free_port() {
    python3 -c 'import socket
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    print(s.getsockname()[1])'
}

bkp() {
    env -i HOME="$work" PATH=/usr/bin:/bin LD_LIBRARY_PATH="$libraries" "$BKP" --config "$config" -q "$@"
}

# fails CODE WORD...: runs bkp, which has to end with that exit code.
fails() {
    local code=0
    bkp "${@:2}" >failed.log 2>&1 || code=$?
    [ "$code" = "$1" ] || { printf 'exit code %s, not %s: %s\n' "$code" "$1" "${*:2}" >&2; cat failed.log >&2; return 1; }
}

# made WORD...: prints the id of the backup that `bkp WORD...` makes.
made() {
    bkp "$@" --json >made.json
    python3 -c 'import json; print(json.load(open("made.json"))["manifest"]["id"])'
}

# expect KIND VALUE WORD...: notes what has to come back from `bkp restore WORD...`: totals, or rows.
expect() {
    python3 -c 'import json, sys
print(json.dumps({"restore": sys.argv[3:], sys.argv[1]: json.loads(sys.argv[2])}))' "$@" >>restores
}

# repl STATEMENT: one request.
repl() {
    "$TIGERBEETLE" repl "--cluster=$cluster" "--addresses=127.0.0.1:$port" "--command=$1" >>repl.log 2>&1
}

ledgerload() {
    "$LEDGERLOAD" "$1" --cluster "$cluster" --addresses "127.0.0.1:$port" --timeout 120 "${@:2}"
}

totals() { ledgerload totals; }

# fill TRANSFERS: one operation each.
fill() {
    ledgerload load --record record --batch 1 --clients 1 --accounts 4 --transfers "$1" >/dev/null
}

# window SOURCE FIELD: of the log's only window.
window() {
    bkp list "$1" --windows --json | python3 -c 'import json, sys
(window,) = json.load(sys.stdin)["windows"]
print(window[sys.argv[1]])' "$2"
}

engine() { "$DUCKDB_PYTHON" "$root/tests/it/support/duck/engine.py" "$@"; }

# rows FILE QUERY...: pairs of a query and its answer. A copy of the database with its log is asked, since
# DuckDB writes into what it opens.
rows() {
    local query
    for query in "${@:2}"; do
        rm -f asked.duckdb asked.duckdb.wal
        cp "$1" asked.duckdb
        [ ! -e "$1.wal" ] || cp "$1.wal" asked.duckdb.wal
        engine sql asked.duckdb "SET TimeZone = 'UTC'" "$query" | python3 -c 'import json, sys
print(json.dumps([sys.argv[1], json.load(sys.stdin)]))' "$query"
    done | python3 -c 'import json, sys; print(json.dumps([json.loads(line) for line in sys.stdin]))'
}

port=$(free_port)
cat >bkp.toml <<END
state_dir = "state"
lease = "2s"
[store.main]
url = "file://$work/store"
[store.second]
url = "file://$work/second"
[keys]
recipients = ["file:key", "passphrase:file:passphrase"]
[tools]
tigerbeetle = "$TIGERBEETLE"
[source.books]
kind = "tigerbeetle"
data_file = "$work/0_0.tigerbeetle"
addresses = ["127.0.0.1:$port"]
tenant = "acme"
store = "main"
logs.mode = "wal"
[source.asked]
kind = "tigerbeetle"
data_file = "$work/0_0.tigerbeetle"
addresses = ["127.0.0.1:$port"]
store = "main"
compression = "gzip"
logs.mode = "query"
[source.analytics]
kind = "duckdb"
path = "$work/analytics.duckdb"
store = "main"
[source.carried]
kind = "duckdb"
path = "$work/carried.duckdb"
store = "main"
[source.open]
kind = "duckdb"
path = "$work/small.duckdb"
store = "main"
compression = "none"
encryption = "none"
[source.twice]
kind = "duckdb"
path = "$work/small.duckdb"
store = ["main", "second"]
compression = "gzip"
[source.absent]
kind = "duckdb"
path = "$work/absent.duckdb"
store = "main"
[source.passing]
kind = "duckdb"
path = "$work/small.duckdb"
store = "main"
[job.passing]
run = "snapshot"
source = "passing"
every = "1d"
retention = { keep_last = 1, min_keep = 1, max_removed_percent = 100 }
END
chmod 600 bkp.toml
mkdir store second
bkp keys generate >/dev/null
printf 'correct horse battery staple\n' >passphrase
chmod 600 passphrase

# --- TigerBeetle ---------------------------------------------------------------------------------------
"$TIGERBEETLE" format "--cluster=$cluster" --replica=0 --replica-count=1 0_0.tigerbeetle >format.log 2>&1
server_start 0_0.tigerbeetle "$port"
repl "create_accounts id=1001 ledger=9 code=1 flags=history, id=1002 ledger=9 code=1 flags=debits_must_not_exceed_credits user_data_64=7, id=1003 ledger=9 code=1"
repl "create_transfers id=2001 debit_account_id=1001 credit_account_id=1002 amount=1000 ledger=9 code=2 user_data_128=5, id=2002 debit_account_id=1002 credit_account_id=1003 amount=300 ledger=9 code=2 flags=pending timeout=1, id=2003 debit_account_id=1002 credit_account_id=1003 amount=40 ledger=9 code=2 flags=pending"
# Some of them refused, and one left to expire. Then a checkpoint, so that the backup has a grid.
fill 1000
made logs asked >/dev/null
full=$(made snapshot books --scope full)
full_totals=$(totals)
made logs books >/dev/null
repl "create_transfers id=2004 pending_id=2003 amount=25 ledger=9 code=2 flags=post_pending_transfer, id=2005 debit_account_id=1002 credit_account_id=1001 amount=5000 ledger=9 code=2"
fill 200
made logs books >/dev/null
made logs asked >/dev/null
early_op=$(window books last_op)
early_at=$(window asked until)
early_totals=$(totals)
# Over another checkpoint.
fill 900
step=$(made snapshot books --scope incremental)
step_totals=$(totals)
repl "create_transfers id=2006 debit_account_id=1003 credit_account_id=1001 amount=7 ledger=9 code=2 flags=linked, id=2007 debit_account_id=1001 credit_account_id=1003 amount=8 ledger=9 code=2"
fill 50
made logs books >/dev/null
made logs asked >/dev/null
late_op=$(window books last_op)
late_at=$(window asked until)
late_totals=$(totals)
expect totals "$full_totals" books --id "$full"
expect totals "$step_totals" books --id "$step"
expect totals "$early_totals" books --op "$early_op"
expect totals "$early_totals" books --at "$early_at"
expect totals "$late_totals" books --op "$late_op"
expect totals "$early_totals" asked --at "$early_at"
expect totals "$late_totals" asked --at "$late_at"

# --- DuckDB --------------------------------------------------------------------------------------------
engine sql :memory: "ATTACH 'analytics.duckdb' AS d (STORAGE_VERSION 'v1.5.0')" "CREATE TABLE d.first AS SELECT 1 i" >/dev/null
engine sql analytics.duckdb "DROP TABLE first" \
    "CREATE TYPE mood AS ENUM ('calm', 'it''s odd')" \
    "CREATE SEQUENCE ticket START 5 INCREMENT 2" \
    "SELECT nextval('ticket'), nextval('ticket')" \
    "CREATE TABLE orders (id BIGINT PRIMARY KEY, price DECIMAL(18,3) NOT NULL CHECK (price >= 0), m mood, t INTEGER DEFAULT nextval('ticket'), note VARCHAR UNIQUE)" \
    "INSERT INTO orders SELECT range, range * 1.125, CASE range % 3 WHEN 0 THEN 'calm' WHEN 1 THEN 'it''s odd' END, range, 'n' || range FROM range(200)" \
    "CREATE TABLE lines (id BIGINT REFERENCES orders(id), what VARCHAR)" \
    "INSERT INTO lines SELECT range % 20, 'line ' || range % 7 FROM range(100)" \
    "INSERT INTO lines VALUES (1, 'same'), (1, 'same'), (NULL, NULL)" \
    "CREATE TABLE odd (b BOOLEAN, t TINYINT, h HUGEINT, u UHUGEINT, f FLOAT, d DOUBLE, n DECIMAL(38,10), day DATE, time TIME, tz TIMETZ, ts TIMESTAMP, ns TIMESTAMP_NS, tstz TIMESTAMPTZ, i INTERVAL, id UUID, bl BLOB, bits BIT, s VARCHAR, j JSON, big BIGNUM, l INTEGER[], a VARCHAR[2], st STRUCT(x INTEGER, \"Y z\" INTERVAL), m MAP(VARCHAR, INTEGER), un UNION(i INTEGER, s VARCHAR))" \
    "INSERT INTO odd VALUES (true, -128, 170141183460469231731687303715884105727, 340282366920938463463374607431768211455, 3.4e38, 'nan', 99999999999.0000000001, '0044-03-15 (BC)', '24:00:00', '23:59:59.123456+05:30', 'infinity', '2024-01-01 00:00:00.123456789', '2024-01-01 00:00:00.123456+02', INTERVAL '-5 months 3 days 1 microsecond', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '\\x00\\xFF', '0101011', 'h' || chr(233) || chr(0) || chr(128512), '{\"a\": 1}', '-99999999999999999999999999999999999999999999999999', [1, NULL, 3], ['a', NULL], {'x': 1, 'Y z': INTERVAL '-1 month'}, MAP {'k': 1, 'l': NULL}, union_value(s := 'x'))" \
    "INSERT INTO odd (s) VALUES (NULL), ('')" \
    "CREATE MACRO plus(a, b := 3) AS a + b" \
    "CREATE VIEW dear AS SELECT plus(id) AS more, price FROM orders WHERE price > 200" \
    "CREATE INDEX by_price ON orders(price)" \
    "COMMENT ON TABLE orders IS 'it''s a comment'" "CHECKPOINT" >/dev/null
# A table that Parquet cannot hold, and a view that no empty database takes.
engine sql :memory: "ATTACH 'carried.duckdb' AS d (STORAGE_VERSION 'v1.5.0')" "USE d" \
    "CREATE TABLE variants AS SELECT {'a': [1, NULL]}::VARIANT AS v, [union_value(i := 1)::UNION(i INTEGER, s VARCHAR)] AS l" \
    "CREATE TABLE gone AS SELECT 1 AS i" "CREATE VIEW dangling AS SELECT i FROM gone" "DROP TABLE gone" "CHECKPOINT" >/dev/null
engine sql :memory: "ATTACH 'small.duckdb' AS d (BLOCK_SIZE 16384)" "CREATE TABLE d.t AS SELECT range AS i, 'row ' || range AS s FROM range(50)" >/dev/null

questions=(
    "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE table_name IN ('orders', 'lines', 'odd') ORDER BY ALL"
    "SELECT table_name, constraint_type, constraint_column_names FROM duckdb_constraints() ORDER BY ALL"
    "SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY ALL"
    "SELECT index_name FROM duckdb_indexes() ORDER BY ALL"
    "SELECT comment FROM duckdb_tables() WHERE comment IS NOT NULL"
    "SELECT plus(1), nextval('ticket')"
    "SELECT * FROM dear ORDER BY ALL"
    "SELECT COLUMNS(*)::VARCHAR FROM orders ORDER BY ALL"
    "SELECT COLUMNS(*)::VARCHAR FROM lines ORDER BY ALL"
    "SELECT COLUMNS(*)::VARCHAR FROM odd ORDER BY ALL"
)
small_question="SELECT * FROM t ORDER BY ALL"

# analytics SCOPE: a snapshot and an export of the same content.
analytics() {
    local now id
    now=$(rows analytics.duckdb "${questions[@]}")
    id=$(made snapshot analytics --scope "$1")
    expect rows "$now" analytics --id "$id"
    id=$(made export analytics --scope "$1")
    expect rows "$now" analytics --id "$id"
}

# small KIND SOURCE SCOPE
small() {
    local now id
    now=$(rows small.duckdb "$small_question")
    id=$(made "$1" "$2" --scope "$3")
    expect rows "$now" "$2" --id "$id"
}

analytics full
engine sql analytics.duckdb "UPDATE orders SET price = 7 WHERE id = 199" "DELETE FROM orders WHERE id = 150" \
    "INSERT INTO orders VALUES (1000, 300, NULL, 1, NULL)" "INSERT INTO lines VALUES (2, 'new'), (2, 'new')" \
    "DELETE FROM lines WHERE what = 'line 3'" "CHECKPOINT" >/dev/null
analytics incremental
# What only the log has; its writer is gone.
engine abandon analytics.duckdb "SET wal_autocheckpoint = '1TB'" "INSERT INTO orders VALUES (2000, 400, 'calm', 1, 'in the log')" \
    "DELETE FROM odd WHERE s = ''" >/dev/null 2>&1 || true
[ -s analytics.duckdb.wal ]
analytics incremental
analytics differential
now=$(rows analytics.duckdb "SELECT COLUMNS(*)::VARCHAR FROM lines ORDER BY ALL")
expect rows "$now" analytics --from-export --table main.lines
now=$(rows carried.duckdb "SELECT COLUMNS(*)::VARCHAR FROM variants" "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal")
id=$(made export carried)
expect rows "$now" carried --id "$id"
small snapshot open full
small export open full
small snapshot twice full
engine sql small.duckdb "INSERT INTO t VALUES (-1, 'new')" "CHECKPOINT" >/dev/null
small snapshot open incremental
small export open incremental
small snapshot twice incremental

# --- Marks, and records of what was done ----------------------------------------------------------------
bkp pin "$full" --note "as it was frozen" >/dev/null
bkp pin "$step" >/dev/null
bkp unpin "$step" >/dev/null
bkp note "$step" "a note: hé, \"quoted\"" >/dev/null
# Damage that was found, and was mended.
object=$(find store/tigerbeetle/books -name "*$full.map.json.zst.enc")
cp "$object" whole
chmod u+w "$object"
printf 'X' | dd of="$object" bs=1 seek=1000 conv=notrunc status=none
fails 13 verify --id "$full" --level digest
cp whole "$object"
bkp verify --id "$full" --level digest >/dev/null
# A run that fails, and two of a job, of which cleanup removes the first.
fails 15 snapshot absent
bkp run passing >/dev/null
bkp snapshot passing --scope full >/dev/null
bkp run passing >/dev/null
bkp cleanup >cleanup.log
# Under a ledger: manifests name their event.
cp bkp.toml without.toml
printf '[ledger]\ncluster = "%s"\naddresses = ["127.0.0.1:%s"]\n' "$cluster" "$port" >>bkp.toml
small snapshot open full
small export open full
bkp run passing >/dev/null
mv without.toml bkp.toml
now=$(rows small.duckdb "$small_question")
for id in $(bkp list passing --json | python3 -c 'import json, sys
print(*(backup["id"] for backup in json.load(sys.stdin)["backups"]))'); do
    expect rows "$now" passing --id "$id"
done
server_stop

# --- What comes back, and the proof of it ----------------------------------------------------------------
# A restored file is asked by a server once, here. Later versions have to make the same file of it: a server
# of another release may not open this one's files. Where bkp starts a server itself the file differs from
# time to time, and later servers are asked again.
python3 - "$BKP" <<'END' >proofs
import json
for number, line in enumerate(open("restores")):
    row = json.loads(line)
    if "totals" in row and row["restore"][0] == "books":
        print(number, *row["restore"])
END
while read -r number words; do
    # shellcheck disable=SC2086 # They are words.
    bkp restore $words --to "proof.tigerbeetle" --yes >/dev/null
    sha256sum proof.tigerbeetle | cut -d ' ' -f 1 >"proof.$number"
    port=$(free_port)
    server_start proof.tigerbeetle "$port"
    totals >"proof.$number.totals"
    server_stop
    rm proof.tigerbeetle
done <proofs
bkp verify --all --level decode >/dev/null
# As another host lists it, which knows the store and a key.
sed -n '/^\[store.main\]/,/^url/p; /^\[keys\]/,/^recipients/p' bkp.toml >bare.toml
echo 'state_dir = "bare"' | cat - bare.toml >"$work/other.toml"
chmod 600 other.toml
config=$work/other.toml
bkp list --json --long >listed.json
bkp list --runs --limit 1000 --json >runs.json
# The kinds of records that a store may have.
for kind in deleted failed restored verified; do
    find store/audit -name "$kind-*" | grep -q . || { printf 'no record: %s\n' "$kind" >&2; exit 1; }
done

python3 - <<'END' >expected.json
import json, os
restores = [json.loads(line) for line in open("restores")]
for number, row in enumerate(restores):
    if os.path.exists(f"proof.{number}"):
        found = json.load(open(f"proof.{number}.totals"))
        if found != row["totals"]:
            raise SystemExit(f"{row['restore']}: {found}, not {row['totals']}")
        row["sha256"] = open(f"proof.{number}").read().strip()


def kept(rows, names):
    """One line each, without what depends on the place of the store."""
    return "[\n" + ",\n".join(json.dumps({name: row[name] for name in names if name in row}) for row in rows) + "\n]"


listed = json.load(open("listed.json"))["backups"]
marks = {row["id"]: [[mark["word"], mark.get("note")] for mark in row["said"]] for row in listed if row.get("said")}
logs = sorted({row["source"] for row in listed if row["kind"] == "log"})
backups = kept(listed, ["id", "type", "source", "scope", "kind", "started", "stored_bytes", "pinned"])
runs = kept(json.load(open("runs.json"))["runs"], ["id", "status", "job", "source", "host", "user", "started", "exit_code", "backup", "proven"])
restores = kept(restores, ["restore", "sha256", "totals", "rows"])
print('{"backups": %s,\n"marks": %s,\n"logs": %s,\n"runs": %s,\n"restores": %s}' % (backups, json.dumps(marks), json.dumps(logs), runs, restores))
END

# Of the leases only the last one of each job says something.
for folder in store/leases/*/; do
    find "$folder" -type f | sort | head -n -1 | xargs -r rm
done
# A member of an export that is a DuckDB file has at least a block of 256 KiB, and no file here may be larger
# than that (tests/it/house/tidy.rs): what is larger is kept in parts, which tests/it/pipeline/frozen.rs puts
# together.
find store -type f -size +262144c | while read -r object; do
    split -b 262144 -d -a 2 "$object" "$object.part-"
    rm "$object"
done
cp -R store "$out/store"
cp key passphrase expected.json "$out/"
chmod -R u+rwX,go+rX "$out"
if find "$out" -type f -size +262144c | grep .; then exit 1; fi
if grep -rlaE 'TO[D]O|FIX[M]E' "$out"; then exit 1; fi
if grep -rlaE "/root|/home|$root|$CARGO_TARGET_DIR" "$out"; then exit 1; fi
rm -rf "$work"
du -sh --apparent-size "$out"
