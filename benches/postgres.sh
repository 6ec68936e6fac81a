#!/usr/bin/env bash
# How fast bkp backs up and restores a PostgreSQL cluster and archives its log, against Debian's pgBackRest and what
# one would type instead.
#
#   bkp          bkp snapshot, bkp restore, bkp logs --push
#   pgbackrest   process-max=2, zst level 3, aes-256-cbc; increments by files; its archive-push also asynchronous
#   pipeline     pg_basebackup -Ft -X fetch -D - | zstd -3 -T2 | age;      age -d | zstd -d | tar -x
#
# In one run, of one server and in an order that each round chooses anew, so that a busy machine is equally unkind
# to all of them. The cluster: pgbench at --scale, and a table of rows that compress badly. Increments are taken
# after 1 % of the accounts, one beside the other, were changed. The log: 50 files of 16 MB that wait when the
# archiver is given the command.
#
# What is measured: wall time until everything is on the disk (the pipelines are followed by a `sync` of their
# result), the time of processors of the client and, apart, of the server's processes, the largest resident size of
# any single process, and the stored bytes. Of the log the client is what the archiver starts; what pgBackRest's
# asynchronous one does is not counted, since that is nobody's child. The medians of all rounds are at the end.
#
# Everything is in a folder of the system's folder for temporary files ($TMPDIR), and removed at the end; it takes
# about four times the size of the cluster, which is 23 MB for each step of the scale, and 10 GB for the log.

set -euo pipefail

usage() {
    cat <<'END'
Usage: benches/postgres.sh [--rounds N] [--scale N]

  --rounds N         measure everything N times (default 5)
  --scale N          size of the cluster (default 100: about 2.3 GB)
  --help             this text
END
}

rounds=5 scale=100
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=${2:?} && shift 2 ;;
    --scale) scale=${2:?} && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

say() { printf 'postgres: %s\n' "$*"; }

cd "$(dirname "$0")/.."
export PREPARE_SERVICES=postgres
# shellcheck source=examples/prepare.sh
. examples/prepare.sh
prepare_packages /usr/bin/time=time pgbackrest=pgbackrest
cargo build --release --locked --bins
# shellcheck source=examples/postgres.sh
. examples/postgres.sh

postgres_home bkp-bench
work=$postgres_home
finish() {
    postgres_stop_all
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

data=$work/data
figures=$(mktemp "$work/figures.XXXXXX")
postgres_as mkdir "$work/out" "$work/discarded" "$work/state" "$work/store"
postgres_as age-keygen -o "$work/age" 2>/dev/null
recipient=$(postgres_as age-keygen -y "$work/age")
postgres_as tee "$work/bkp.toml" >/dev/null <<END
state_dir = "$work/state"
[store.main]
url = "file://$work/store"
[keys]
recipients = ["file:$work/key"]
[source.pg]
kind = "postgres"
conninfo = "host=$data.socket user=admin"
checkpoint = "fast"
END
postgres_as tee "$work/pgbackrest.conf" >/dev/null <<END
[global]
repo1-path=$work/repo
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=$(head -c 24 /dev/urandom | base64)
repo1-retention-full=9
compress-type=zst
compress-level=3
process-max=2
start-fast=y
archive-check=n
log-level-file=off
log-level-console=error
log-level-stderr=off
lock-path=$work/lock
spool-path=$work/spool
[b]
pg1-path=$data
pg1-socket-path=$data.socket
pg1-user=admin
END
bkp=("$postgres_bkp" --config "$work/bkp.toml" -q)
backrest=(/usr/bin/pgbackrest "--config=$work/pgbackrest.conf" --stanza=b)
postgres_as "${bkp[@]}" keys generate

say "makes a cluster of scale $scale"
postgres_init "$data" "archive_mode = on" "archive_command = '/bin/true'" "max_wal_size = 4GB" \
    "checkpoint_timeout = 1h"
postgres_start "$data"
postgres_as "$PREPARE_POSTGRES/pgbench" -i -q -s "$scale" -h "$data.socket" -U admin postgres 2>"$figures.log" ||
    { cat "$figures.log" >&2 && exit 1; }
postgres_sql "$data" "create table randomish as select n, md5(n::text) || md5((n::bigint * 7919)::text) as text, random() from generate_series(1, $scale * 50000) n" \
    "vacuum" "checkpoint"
say "$("$PREPARE_POSTGRES/postgres" --version), $(du -sm "$data/base" | cut -f 1) MB"

# cpu PID: the time of processors that a process and its children took which have ended, in hundredths of a second.
cpu() {
    sed 's/.*) //' "/proc/$1/stat" |
        awk -v hz="$(getconf CLK_TCK)" '{ printf "%d\n", ($12 + $13 + $14 + $15) * 100 / hz }'
}

# timed WHAT CONTENDER COMMAND...: notes what a command takes.
timed() {
    local what=$1 contender=$2 server before after
    shift 2
    # What the one before has left to the disk is not this one's.
    sync
    server=$(postgres_as head -n 1 "$data/postmaster.pid")
    before=$(cpu "$server")
    postgres_as /usr/bin/time -o "$work/out/time" -f '%e %U %S %M' "$@" >/dev/null
    # Until the server has reaped its process.
    sleep 0.3
    after=$(cpu "$server")
    note "$what" "$contender" "$(awk -v server="$((after - before))" \
        '{ printf "%.2f %.2f %.2f %d", $1, $2 + $3, server / 100, $4 / 1024 }' "$work/out/time")"
}

# note WHAT CONTENDER "WALL CLIENT SERVER MIB"
note() {
    local wall client server mib
    read -r wall client server mib <<<"$3"
    say "$1, $2: $wall s; processors: $client s, server $server s; $mib MiB"
    printf '%s|%s|%s|\n' "$1" "$2" "$3" >>"$figures"
}

# note_size WHAT CONTENDER BYTES
note_size() { printf '%s|%s||%s\n' "$1" "$2" "$3" >>"$figures"; }

bytes() { postgres_as du -sb "$1" | cut -f 1; }

full() {
    case $1 in
    bkp) timed full bkp "${bkp[@]}" snapshot pg --scope full ;;
    pgbackrest) timed full pgbackrest "${backrest[@]}" --type=full backup ;;
    pipeline)
        timed full pipeline bash -c "set -o pipefail
            '$PREPARE_POSTGRES/pg_basebackup' -h '$data.socket' -U admin -c fast -Ft -X fetch -D - |
                zstd -q -3 -T2 | age -r '$recipient' >'$work/out/base.age' && sync '$work/out/base.age'"
        ;;
    esac
}

increment() {
    case $1 in
    bkp) timed increment bkp "${bkp[@]}" snapshot pg --scope incremental ;;
    pgbackrest) timed increment pgbackrest "${backrest[@]}" --type=incr backup ;;
    esac
}

# discard FOLDER...: frees what is in the files of folders, and keeps the files out of the way until the end. Removed,
# they would make every file slower for minutes that is made after them: ext4 passes over each of their inodes.
discarded=0
discard() {
    local folder
    for folder in "$@"; do
        postgres_as test -e "$folder" || continue
        postgres_as find "$folder" -type f -exec truncate -s 0 {} +
        discarded=$((discarded + 1))
        postgres_as mv "$folder" "$work/discarded/$discarded"
    done
}

# restore CONTENDER WHAT
restore() {
    local to=$work/out/restored
    postgres_as mkdir -m 700 "$to"
    case $1 in
    bkp) timed "restore, $2" bkp "${bkp[@]}" restore pg --to "$to" --yes ;;
    pgbackrest) timed "restore, $2" pgbackrest "${backrest[@]}" "--pg1-path=$to" restore ;;
    pipeline)
        timed "restore, $2" pipeline bash -c "set -o pipefail
            age -d -i '$work/age' '$work/out/base.age' | zstd -q -d | tar -x -C '$to' &&
            find '$to' -type f -exec sync {} +"
        ;;
    esac
    discard "$to"
}

# drain CONTENDER COMMAND: 50 files wait; how long until the server knows that they are archived. Sets archived, the
# name of the last one, of which it leaves a copy in `out`.
drain() {
    local contender=$1 command=$2 archiver before begin wall
    postgres_sql "$data" "alter system set archive_command = '/bin/false'" "select pg_reload_conf()" >/dev/null
    postgres_sql "$data" "select count(pg_logical_emit_message(false, 'bench', repeat((select string_agg(md5((random() + m * n)::text), '') from generate_series(1, 2000) m), 4))) from generate_series(1, 3200) n" >/dev/null
    archived=$(postgres_sql "$data" "select pg_walfile_name(pg_switch_wal() - 1)")
    sync
    archiver=$(postgres_sql "$data" "select pid from pg_stat_activity where backend_type = 'archiver'")
    before=$(cpu "$archiver")
    postgres_sql "$data" "alter system set archive_command = '$command'" >/dev/null
    begin=$(date +%s%N)
    postgres_sql "$data" "select pg_reload_conf()" >/dev/null
    until [ "$(postgres_sql "$data" "select last_archived_wal >= '$archived' from pg_stat_archiver")" = t ]; do
        sleep 0.1
    done
    wall=$(($(date +%s%N) - begin))
    note "log, 50 files" "$contender" "$(awk -v wall="$wall" -v cpu="$(($(cpu "$archiver") - before))" \
        'BEGIN { printf "%.1f %.2f 0 0", wall / 1e9, cpu / 100 }')"
    postgres_as cp "$data/pg_wal/$archived" "$work/out/$archived"
    postgres_sql "$data" "alter system set archive_command = '/bin/true'" "select pg_reload_conf()" >/dev/null
}

# often WHAT CONTENDER COMMAND...: a command 20 times in a row in the data folder, whatever it ends with.
often() {
    # shellcheck disable=SC2016 # For the shell that is started.
    timed "$1" "$2" bash -c 'cd "$0"; for _ in {1..20}; do "$@" 2>/dev/null || true; done' "$data" "${@:3}"
}

for round in $(seq "$rounds"); do
    say "round $round of $rounds"
    discard "$work/state" "$work/store" "$work/repo" "$work/spool"
    postgres_as rm -f "$work/out/base.age"
    postgres_as mkdir "$work/state" "$work/store" "$work/spool"
    postgres_as "${backrest[@]}" stanza-create
    for contender in $(shuf -e bkp pgbackrest pipeline); do full "$contender"; done
    own=$(bytes "$work/store") other=$(bytes "$work/repo/backup")
    note_size full bkp "$own"
    note_size full pgbackrest "$other"
    note_size full pipeline "$(bytes "$work/out/base.age")"
    for contender in $(shuf -e bkp pgbackrest pipeline); do restore "$contender" full; done
    postgres_sql "$data" "update pgbench_accounts set abalance = abalance + 1 where aid between $((round * 2000 * scale)) and $((round * 2000 * scale + 1000 * scale))" "checkpoint"
    for contender in $(shuf -e bkp pgbackrest); do increment "$contender"; done
    note_size increment bkp $(($(bytes "$work/store") - own))
    note_size increment pgbackrest $(($(bytes "$work/repo/backup") - other))
    for contender in $(shuf -e bkp pgbackrest); do restore "$contender" increment; done
    for contender in $(shuf -e pgbackrest asynchronous bkp); do
        case $contender in
        bkp)
            drain bkp "${bkp[*]} logs pg --push %p"
            own_file=$work/out/$archived
            ;;
        pgbackrest)
            drain pgbackrest "${backrest[*]} archive-push %p"
            other_file=$work/out/$archived
            ;;
        asynchronous) drain "pgbackrest, asynchronous" "${backrest[*]} --archive-async archive-push %p" ;;
        esac
    done
    # What is archived already, and what is asked for at the end of every recovery.
    often "20 x push, archived" bkp "${bkp[@]}" logs pg --push "$own_file"
    often "20 x push, archived" pgbackrest "${backrest[@]}" archive-push "$other_file"
    often "20 x fetch, absent" bkp "${bkp[@]}" logs pg --fetch 00000099.history pg_wal/RECOVERYHISTORY
    often "20 x fetch, absent" pgbackrest "${backrest[@]}" archive-get 00000099.history pg_wal/RECOVERYHISTORY
done

say "medians: wall time, processors of the client, of the server, largest process, stored"
python3 - "$figures" <<'END'
import collections, statistics, sys
figures, sizes = collections.defaultdict(list), collections.defaultdict(list)
for line in open(sys.argv[1]):
    what, contender, numbers, size = line.rstrip("\n").split("|")
    if numbers:
        figures[what, contender].append([float(number) for number in numbers.split()])
    else:
        sizes[what, contender].append(int(size))
for key, rows in sorted(figures.items()):
    wall, client, server, mib = (statistics.median(column) for column in zip(*rows))
    stored = f"{statistics.median(sizes[key]) / 1e6:.1f} MB" if key in sizes else ""
    print(f"{key[0]:20} {key[1]:25} {wall:7.2f} s {client:7.2f} s {server:7.2f} s {mib:5.0f} MiB {stored:>10}")
END
