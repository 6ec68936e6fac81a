#!/usr/bin/env bash
# Makes WAL files of a small cluster with segments of 1 MiB, and what the server's own pg_waldump says of them.
# The unit tests of src/source/postgres/wal read both. Run it once for each new major version:
#
#   tests/vectors/wal/make.sh BIN FOLDER     BIN: the programs of the server, with pg_waldump; FOLDER: new
#
# The servers run in a folder of their own below /tmp as user nobody if this runs as root (PostgreSQL refuses root),
# listen on a socket in it, and are stopped at the end, however that comes.

set -euo pipefail

[ "$#" = 2 ] || { sed -n '2,6p' "$0" >&2; exit 2; }
bin=$1 out=$2
mkdir "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d /tmp/wal.XXXXXX)
as=()
[ "$(id -u)" != 0 ] || { as=(setpriv --reuid=65534 --regid=65534 --clear-groups) && chown 65534:65534 "$work"; }
cd "$work"
export TZ=UTC LC_ALL=C

run() { "${as[@]}" "$@"; }
stop() {
    for data in one two; do
        [ ! -e "$work/$data/postmaster.pid" ] || run "$bin/pg_ctl" -D "$work/$data" -m immediate stop >/dev/null || :
    done
    rm -rf "$work"
}
trap stop EXIT

# sql PORT STATEMENT...: each a transaction of its own.
sql() {
    local port=$1
    shift
    local words=() one
    for one; do words+=(-c "$one"); done
    run "$bin/psql" -qAtX -v ON_ERROR_STOP=1 -h "$work" -p "$port" -U bkp postgres "${words[@]}"
}
# start DATA PORT
start() {
    run "$bin/pg_ctl" -D "$1" -w -l "$1.log" -o "-c port=$2 -c unix_socket_directories=$work" start >/dev/null ||
        { cat "$1.log" >&2; exit 1; }
}

run "$bin/initdb" -D one -U bkp -A trust --no-locale -E UTF8 --wal-segsize=1 --no-sync >/dev/null
run mkdir archive
run tee -a one/postgresql.conf >/dev/null <<CONF
listen_addresses = ''
archive_mode = on
archive_command = 'cp %p $work/archive/%f'
full_page_writes = off
autovacuum = off
checkpoint_timeout = 1h
bgwriter_delay = 10s
max_prepared_transactions = 5
wal_keep_size = 64MB
fsync = off
CONF
start one 5501
sql 5501 'CREATE TABLE t (n int)' 'CREATE TABLE v (n int)' CHECKPOINT 'SELECT pg_switch_wal()' >/dev/null

# Each way to end a transaction, and a restore point.
sql 5501 'INSERT INTO t VALUES (1)' 'INSERT INTO t VALUES (2)' \
    'BEGIN; INSERT INTO t VALUES (-1); ROLLBACK' \
    'BEGIN; INSERT INTO t VALUES (3); SAVEPOINT s; INSERT INTO t VALUES (4); RELEASE s; COMMIT' \
    "BEGIN; INSERT INTO t VALUES (5); SAVEPOINT s; INSERT INTO t VALUES (6); CREATE TABLE u (n int); DROP TABLE v; PREPARE TRANSACTION 'a prepared one'" \
    "BEGIN; INSERT INTO t VALUES (-2); PREPARE TRANSACTION 'one that is not kept'" \
    'INSERT INTO t VALUES (7)' "COMMIT PREPARED 'a prepared one'" "ROLLBACK PREPARED 'one that is not kept'" \
    "SELECT pg_create_restore_point('before the drop')" 'DROP TABLE u' >/dev/null
ended=$(sql 5501 "SELECT pg_walfile_name(pg_switch_wal())")

# Records that cross pages, and one that goes on into the next file.
for _ in 1 2 3 4 5 6; do
    sql 5501 "SELECT pg_logical_emit_message(true, 'm', repeat('a', 200000))" 'INSERT INTO t VALUES (8)' >/dev/null
done
sql 5501 CHECKPOINT
crossing=$(sql 5501 "SELECT pg_walfile_name(pg_switch_wal())")

# A standby that is promoted: the old timeline ends in a file that is not full.
run "$bin/pg_basebackup" -D two -h "$work" -p 5501 -U bkp -X stream -c fast -R --no-sync
run touch two/standby.signal
start two 5502
sql 5501 'INSERT INTO t VALUES (9)' >/dev/null
at=$(sql 5501 'SELECT pg_current_wal_flush_lsn()')
until [ "$(sql 5502 "SELECT pg_last_wal_replay_lsn() >= '$at'")" = t ]; do sleep 0.1; done
branch=$(sql 5501 "SELECT pg_walfile_name('$at')")
sql 5502 'SELECT pg_promote()' 'INSERT INTO t VALUES (10)' CHECKPOINT 'SELECT pg_switch_wal()' >/dev/null
newer=00000002${branch#????????}
for file in "$ended" "$crossing" "$branch.partial" 00000002.history "$newer"; do
    tries=0
    until [ -s "archive/$file" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { echo "$file was not archived" >&2; ls archive >&2; exit 1; }
        sleep 0.1
    done
done
sleep 0.5

# The one before the file that begins with the rest of a record.
before=$(printf '%s%08X' "${crossing%????????}" "$((16#${crossing#????????????????} - 1))")
for file in "$ended" "$before" "$crossing" "$branch.partial" "$newer"; do
    install -m 644 "archive/$file" "${file%.partial}"
    # A file that ends early ends with an error.
    run "$bin/pg_waldump" "${file%.partial}" 2>/dev/null >"$file.dump" || :
    grep -E '^rmgr: (XLOG|Transaction) ' "$file.dump" | zstd -q -19 -o "$out/$file.txt.zst"
    zstd -q -19 --ultra -22 "archive/$file" -o "$out/$file.zst"
done
cp archive/00000002.history "$out"
chmod 644 "$out"/*
