#!/usr/bin/env bash
# bkp's main job, for real, on this machine: a TigerBeetle server is written to as fast as it takes
# it, and is backed up meanwhile. The backups are verified, restored and started, and what comes
# back is compared with what the server had acknowledged. With --s3 the backups go through an S3
# service instead of to a folder, and every run is recorded in a ledger, a second TigerBeetle server.
# With --postgres the server is one of PostgreSQL, and comes back as it was right before an accident; all of that is
# in a folder of its own in the system's folder for temporary files.
#
# Everything happens in the build folder (`quickstart` in $CARGO_TARGET_DIR or target); it is
# removed and made anew by each run. Servers listen on loopback only, on free ports, and are stopped
# at the end, or with --keep by `stop.sh` in that folder. Takes a few minutes when bkp is built, and about 6 GB of disk.

set -euo pipefail
# bkp refuses a configuration that others can write.
umask 022

usage() {
    cat <<'END'
Usage: examples/quickstart.sh [--s3 | --postgres] [--keep]

  --s3     back up to an S3 service on loopback, with a ledger (builds the service first, which takes
           a few minutes once)
  --postgres
           back up a PostgreSQL server, and bring back a table that was dropped
  --keep   leave the demo as it is, servers too, to go on with bkp by hand; says how, and how to end it
  --help   this text
END
}

keep=no
s3=no
postgres=no
for argument in "$@"; do
    case $argument in
    --keep) keep=yes ;;
    --s3) s3=yes ;;
    --postgres) postgres=yes ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done
if [ "$s3$postgres" = yesyes ]; then
    usage >&2
    exit 2
fi

step() { printf '\n== %s\n' "$*"; }

# Shows a command of bkp as one would type it, and runs it.
bkp() {
    printf '\n$ bkp %s\n' "$*"
    "$CARGO_TARGET_DIR/release/bkp" --config "$demo/bkp.toml" "$@"
}

step "Tools and build"
cd "$(dirname "$0")/.."
[ "$s3" = no ] || PREPARE_SERVICES=s3
[ "$postgres" = no ] || PREPARE_SERVICES=postgres
# shellcheck source=examples/prepare.sh
. examples/prepare.sh
if [ "$postgres" = yes ]; then
    cargo build --release --locked --bins
    # shellcheck source=examples/quickstart-postgres.sh
    . examples/quickstart-postgres.sh
    exit
fi
# shellcheck source=examples/server.sh
. examples/server.sh
cargo build --release --locked --bins --examples

demo=$CARGO_TARGET_DIR/quickstart

# What is kept goes on after this script: `stop.sh` ends the servers that still are those of the demo,
# and removes the folder.
keep_running() {
    cat >"$demo/stop.sh" <<END
#!/bin/sh
for pid in ${server_pids[*]}; do
    if tr '\\0' ' ' <"/proc/\$pid/cmdline" 2>/dev/null | grep -qF "$demo"; then kill "\$pid"; fi
done
rm -rf "$demo"
END
    chmod +x "$demo/stop.sh"
    disown -a
    cat <<END
Kept, and still running: the server at $address and what bkp needs; all of it is in $demo.
Try, in this or another shell:

  export BKP_CONFIG=$demo/bkp.toml PATH=$CARGO_TARGET_DIR/release:\$PATH
  bkp list --long
  bkp status
  bkp snapshot books
  bkp restore books --to $demo/again.tigerbeetle
  $SERVER_LEDGERLOAD totals --cluster $SERVER_CLUSTER --addresses $address

To stop it and remove everything: $demo/stop.sh
END
}

finish() {
    local status=$?
    if [ "$status" = 0 ] && [ "$keep" = yes ]; then
        keep_running
        return
    fi
    server_stop_all
    if [ "$status" != 0 ]; then
        printf '\nquickstart: FAILED (exit code %s). Everything is still in %s\n' "$status" "$demo" >&2
    else
        rm -rf "$demo"
    fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step "A TigerBeetle server in $demo"
# What an earlier run kept.
[ ! -x "$demo/stop.sh" ] || "$demo/stop.sh"
rm -rf "$demo"
mkdir -p "$demo"
data_file=$demo/0_0.tigerbeetle
record=$demo/acknowledged
server_format "$data_file"
server_start "$data_file"
address=$server_address
printf 'It listens on %s, its data file is %s\n' "$address" "$data_file"

if [ "$s3" = yes ]; then
    step "An S3 service with a bucket, and a TigerBeetle server for the ledger"
    mkdir -p "$demo/s3/backups"
    s3_start "$demo/s3"
    (umask 077 && printf '[default]\naws_access_key_id = demo\naws_secret_access_key = demo-secret\n' \
        >"$demo/credentials")
    server_format "$demo/ledger.tigerbeetle"
    server_start "$demo/ledger.tigerbeetle"
    printf 'The service listens at %s, the ledger at %s\n' "$s3_endpoint" "$server_address"
    store="url = \"s3://backups/demo\"
endpoint = \"$s3_endpoint\"
credentials_file = \"$demo/credentials\""
    ledger="
[ledger]
cluster = \"$SERVER_CLUSTER\"
addresses = [\"$server_address\"]"
else
    mkdir "$demo/store"
    store="url = \"file://$demo/store\""
    ledger=""
fi

step "The configuration"
cat >"$demo/bkp.toml" <<END
state_dir = "$demo/state"

[store.main]
$store

[keys]
recipients = ["file:$demo/key"]

[tools]
tigerbeetle = "$SERVER_PROGRAM"

[source.books]
kind = "tigerbeetle"
data_file = "$data_file"
cluster = "$SERVER_CLUSTER"
addresses = ["$address"]
$ledger
END
cat "$demo/bkp.toml"
mkdir "$demo/state"
bkp keys generate
bkp doctor

step "Backups while the server is written to"
load_start "$address" "$record" --batch 500 --clients 2 --seconds 3600
sleep 5
bkp snapshot books
sleep 2
before_incremental=$(date +%s.%N)
bkp snapshot books --scope incremental
load_stop

step "Back from the backup that was taken under load"
bkp restore books --to "$demo/live.tigerbeetle" --yes
server_start "$demo/live.tigerbeetle"
printf 'It must hold every transfer that was acknowledged before that backup began:\n'
ledgerload check "$server_address" --record "$record" --before "$before_incremental" --every
server_stop "$server_pid"
rm "$demo/live.tigerbeetle"

step "A backup of the server at rest, and how good the backups are"
bkp snapshot books
bkp list
bkp verify --latest books --level decode
bkp verify --latest books --level drill
if [ "$s3" = yes ]; then
    bkp list --from-ledger
    bkp verify --ledger
fi

step "Back from the last backup"
bkp restore books --to "$demo/restored.tigerbeetle" --yes
server_start "$demo/restored.tigerbeetle"
ledgerload check "$server_address" --record "$record" --every --read-only
original=$(ledgerload totals "$address")
restored=$(ledgerload totals "$server_address")
printf '\noriginal: %s\nrestored: %s\n\n' "$original" "$restored"
if [ "$original" != "$restored" ]; then
    printf 'quickstart: the restored server says something else than the original\n' >&2
    exit 1
fi
server_stop "$server_pid"
rm "$demo/restored.tigerbeetle"
printf 'quickstart: OK. The restored server holds every transfer that was acknowledged, and its accounts\n'
printf 'are those of the original.\n'
