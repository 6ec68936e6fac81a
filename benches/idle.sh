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

# Median of the wall times of a command, milliseconds.
median() {
    for ((round = 0; round < rounds; round++)); do
        local begin=${EPOCHREALTIME/./}
        "$@" > "$work/out"
        echo $((${EPOCHREALTIME/./} - begin))
    done | sort -n | awk '{ all[NR] = $1 } END { printf "%.1f\n", all[int((NR + 1) / 2)] / 1000 }'
}
version=$(median "$program" --version)
idle=$(median "$program" --config "$work/bkp.toml" run)
echo "version:   $version ms"
echo "idle tick: $idle ms with $jobs jobs"
