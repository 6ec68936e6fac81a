#!/usr/bin/env bash
# How fast bkp ships and replays a change log, beside a raw client that pages through the same data.
#
# In one run, alternating, on one server, so that a busy machine is equally unkind to all of them.
#
#   pages        a client reads all accounts and all transfers, page after page, and keeps nothing
#   query        bkp logs --mode query: the same, compressed, sealed and stored
#   wal          bkp logs --mode wal: the ring of the data file, as far as it goes back
#   idle         bkp logs in either mode when nothing happened: wall and CPU time
#   load         a new cluster is formatted and started, and one client creates the transfers in full batches
#   replay       bkp restore --at, mode query: into a new cluster, which it formats and starts, too
#
# Everything is written to `bench` in the build folder, which each run makes anew and removes at its end.

set -euo pipefail

usage() {
    cat <<'END_OF_USAGE'
Usage: benches/logs.sh [--rounds N] [--transfers N]

  --rounds N         measure everything N times (default 3); the table shows medians
  --transfers N      transfers in the cluster (default 2000000)
  --help             this text
END_OF_USAGE
}

rounds=3 transfers=2000000
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=${2:?} && shift 2 ;;
    --transfers) transfers=${2:?} && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

say() { printf 'logs: %s\n' "$*"; }

cd "$(dirname "$0")/.."
# shellcheck source=examples/prepare.sh
. examples/prepare.sh
prepare_packages /usr/bin/time=time
# shellcheck source=examples/server.sh
. examples/server.sh
cargo build --release --locked --bins --examples

work=$CARGO_TARGET_DIR/bench
program=$CARGO_TARGET_DIR/release/bkp
finish() {
    server_stop_all
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
rm -rf "$work"
mkdir -p "$work"

# load_once DATA_FILE: makes a cluster with the transfers; adds the seconds to the results.
load_once() {
    local began
    began=$(date +%s.%N)
    server_format "$1"
    server_start "$1"
    ledgerload load "$server_address" --record "$1.record" --batch 8189 --clients 1 \
        --transfers "$transfers" >/dev/null
    printf 'load %s\n' "$(echo "$(date +%s.%N) $began" | awk '{ print $1 - $2 }')" >>"$work/results"
}

say "makes a cluster of $transfers transfers"
data_file=$work/0_0.tigerbeetle
load_once "$data_file"

cat >"$work/bkp.toml" <<END_OF_CONFIG
state_dir = "$work/state"

[store.main]
url = "file://$work/store"

[keys]
recipients = ["file:$work/bkp.key"]

[tools]
tigerbeetle = "$SERVER_PROGRAM"

[source.books]
kind = "tigerbeetle"
data_file = "$data_file"
addresses = ["$server_address"]
END_OF_CONFIG
"$program" -q --config "$work/bkp.toml" keys generate >/dev/null

# measure NAME COMMAND...: adds a line `name seconds cpu_seconds` to the results.
measure() {
    /usr/bin/time -f "$1 %e %U %S" -a -o "$work/results" "${@:2}" >"$work/said" || {
        say "$1 failed"
        return 1
    }
}

bkp() { "$program" -q --config "$work/bkp.toml" "$@"; }

for ((round = 1; round <= rounds; round++)); do
    say "round $round of $rounds"
    rm -rf "$work/store" "$work/state" "$work/restored" && mkdir "$work/store"
    measure pages "$SERVER_LEDGERLOAD" pages --cluster "$SERVER_CLUSTER" \
        --addresses "$server_address" --timeout 600
    measure query "$program" -q --config "$work/bkp.toml" logs books --mode query
    du -sb "$work/store" | cut -f 1 >"$work/query_bytes"
    measure idle-query "$program" -q --config "$work/bkp.toml" logs books --mode query
    until=$(bkp list books --windows --json |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["windows"][0]["until"])')
    measure replay "$program" -q --config "$work/bkp.toml" restore books --at "$until" \
        --to "$work/restored" --yes
    measure wal "$program" -q --config "$work/bkp.toml" logs books --mode wal --json
    cp "$work/said" "$work/wal_said"
    measure idle-wal "$program" -q --config "$work/bkp.toml" logs books --mode wal
    before=$server_pid
    load_once "$work/again.tigerbeetle"
    server_stop "$server_pid"
    server_pid=$before server_address=$(sed -n 's/^addresses = \["\(.*\)"\]/\1/p' "$work/bkp.toml")
    rm -f "$work"/again.tigerbeetle*
done

python3 - "$work" "$transfers" <<'END_OF_TABLE'
import json, statistics, sys

work, transfers = sys.argv[1], int(sys.argv[2])
times, cpu = {}, {}
for line in open(f"{work}/results"):
    name, seconds, *used = line.split()
    times.setdefault(name, []).append(float(seconds))
    if used:
        cpu.setdefault(name, []).append(sum(map(float, used)))

def row(name, against=None):
    seconds = statistics.median(times[name])
    rate = f"{transfers / seconds:12.0f}/s" if name not in ("wal", "idle-query", "idle-wal") else " " * 14
    ratio = f"{seconds / statistics.median(times[against]):6.2f} x {against}" if against else ""
    used = f"{statistics.median(cpu[name]):6.2f} s CPU" if name in cpu else " " * 12
    print(f"{name:11} {seconds:7.2f} s {used} {rate} {ratio}")

print(f"\n{transfers} transfers; medians of {len(times['query'])}\n")
row("pages")
row("query", "pages")
row("load")
row("replay", "load")
row("wal", "pages")
row("idle-query")
row("idle-wal")
wal = json.load(open(f"{work}/wal_said"))["manifest"]
print(f"\nstored: query {int(open(f'{work}/query_bytes').read()) / 1e6:.0f} MB;"
      f" wal {wal['sizes']['stored_bytes'] / 1e6:.0f} MB of {wal['sizes']['plaintext_bytes'] / 1e6:.0f} MB,"
      f" {wal['capture']['records']['ops']} ops")
END_OF_TABLE
