#!/usr/bin/env bash
# What a tick costs in which nothing is due: `bkp run` reads the configuration and what it keeps of the
# jobs, and asks no store. Beside it `bkp --version`, which only starts the program: most of either is
# loading it.
#
# The jobs are a working set: snapshots, logs, verifications and cleanup, by intervals and by calendars.

set -euo pipefail

usage() {
    cat <<'END'
Usage: benches/idle.sh [--rounds N] [--jobs N]

  --rounds N         measure everything N times (default 200); the result is the median
  --jobs N           how many jobs the configuration has (default 20)
  --help             this text
END
}

rounds=200 jobs=20
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=${2:?} && shift 2 ;;
    --jobs) jobs=${2:?} && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

cd "$(dirname "$0")/.."
# shellcheck source=examples/prepare.sh
. examples/prepare.sh
cargo build --release --locked --bins

program=$CARGO_TARGET_DIR/release/bkp
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/store"
{
    printf 'state_dir = "%s/state"\n[run]\nparallel = 1\n[store.main]\nurl = "file://%s/store"\n' "$work" "$work"
    for ((job = 0; job < jobs; job++)); do
        case $((job % 2)) in
        0) printf '[job.j%d]\nrun = "cleanup"\nevery = "10d"\n' "$job" ;;
        1) printf '[job.j%d]\nrun = "cleanup"\nat = "monthly on 1 at 03:00 Europe/Berlin"\n' "$job" ;;
        esac
    done
} > "$work/bkp.toml"
bkp() { "$program" --config "$work/bkp.toml" "$@"; }

# Every job once, so that none is due.
bkp -q run --json > "$work/first" || { cat "$work/first" >&2 && exit 1; }
mv "$work/store" "$work/away"
bkp run | grep -q '^nothing is due' || { echo "something is due" >&2 && exit 1; }

# Medians of the wall times and of the processor's times of a command, milliseconds.
LC_ALL=C
TIMEFORMAT='%3R %3U %3S'
measure() {
    for ((round = 0; round < rounds; round++)); do
        { time "$@" > "$work/out"; } 2>&1
    done > "$work/times"
    local wall processor
    wall=$(awk '{ print $1 * 1000 }' "$work/times" | sort -n | middle)
    processor=$(awk '{ print ($2 + $3) * 1000 }' "$work/times" | sort -n | middle)
    echo "$wall ms, $processor ms of a processor"
}
middle() { awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }
echo "version:   $(measure "$program" --version)"
echo "idle tick: $(measure "$program" --config "$work/bkp.toml" run), $jobs jobs"
