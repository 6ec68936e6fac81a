#!/usr/bin/env bash
# Fuzzes everything that bkp parses before anything is authentic, and every foreign format, with
# libFuzzer. Ends with 0 if no input made a target crash, take too long, take too much memory or lose
# some; the input that did is named, and how to run it again.
#
#   tests/fuzz/run.sh                      all targets, 30 seconds each
#   tests/fuzz/run.sh SECONDS [TARGET...]  those targets, or all, SECONDS each: an hour each is 3600
#   tests/fuzz/run.sh 0 TARGET FILE...     those inputs once, with a trace of what goes wrong
#
# Two targets run at a time (FUZZ_JOBS says how many). What was found to lead somewhere is kept in the
# build folder, fuzz/corpus, and is where the next run goes on; seeds come with each target. An input
# that was mended goes into tests/fuzz/found/TARGET (zstd -19 FILE), where the integration tests run it for ever.

set -euo pipefail
cd "$(dirname "$0")/../.."

SECONDS_EACH=30
# What one input may take; most take less than a millisecond.
INPUT_SECONDS=10
# Of the whole program, with what C libraries take; what an input may take for its length, each target
# says (tests/fuzz/targets/mod.rs).
RSS_MIB=2048
# Inputs that are kept of a target from one run to the next.
CORPUS_MAX=1500

say() { printf 'fuzz: %s\n' "$*"; }

say "prepare the tools"
# shellcheck source=examples/prepare.sh
. examples/prepare.sh
prepare_packages g++=g++
work=$CARGO_TARGET_DIR/fuzz
mkdir -p "$work"

say "build the targets"
# Only bkp's own library is compiled once more, by tests/fuzz/rustc.sh.
RUSTC_WORKSPACE_WRAPPER=$PWD/tests/fuzz/rustc.sh cargo build --release --locked --package bkp-fuzz
program=$CARGO_TARGET_DIR/release/bkp-fuzz
export LD_LIBRARY_PATH=$DUCKDB_LIB_DIR${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
BKP_FUZZ_SEEDS=$work/seeds "$program" >"$work/targets" 2>"$work/seeds.log" || {
    cat "$work/seeds.log" >&2
    exit 1
}

# longest TARGET: the length of its longest input.
longest() { sed -n "s/^$1 //p" "$work/targets"; }

# options TARGET: those that every run has.
options() {
    printf -- '-max_len=%s -timeout=%s -rss_limit_mb=%s -print_final_stats=1' \
        "$(longest "$1")" "$INPUT_SECONDS" "$RSS_MIB"
}

seconds=${1:-$SECONDS_EACH}
shift $(($# > 0 ? 1 : 0))
if [ "$seconds" = 0 ]; then
    target=$1
    shift
    # shellcheck disable=SC2046 # several words
    exec env RUST_BACKTRACE=1 BKP_FUZZ_TARGET="$target" "$program" $(options "$target") "$@"
fi
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cut -d ' ' -f 1 "$work/targets")

# fuzz TARGET: runs it, and prints a line.
fuzz() {
    local target=$1 corpus=$work/corpus/$1 log=$work/$1.log crashes=$work/crashes/$1- status=0
    [ -n "$(longest "$target")" ] || { say "there is no target $target" && return 2; }
    mkdir -p "$corpus" "$work/crashes"
    local folders=("$corpus" "$work/seeds/$target")
    if [ -d "tests/fuzz/found/$target" ]; then
        mkdir -p "$work/found/$target"
        zstd -qdf --output-dir-flat "$work/found/$target" "tests/fuzz/found/$target"/*.zst
        folders+=("$work/found/$target")
    fi
    export RUST_BACKTRACE=1 BKP_FUZZ_TARGET=$target
    # What many runs have gathered is reduced to what each branch needs: all of it is run at the start.
    if [ "$(find "$corpus" -type f | wc -l)" -gt "$CORPUS_MAX" ]; then
        rm -rf "$corpus.new" && mkdir "$corpus.new"
        # shellcheck disable=SC2046 # several words
        "$program" $(options "$target") -merge=1 "$corpus.new" "$corpus" >"$log" 2>&1 || {
            say "$target: its corpus cannot be reduced; the log is $log" >&2
            return 1
        }
        rm -rf "$corpus" && mv "$corpus.new" "$corpus"
    fi
    # shellcheck disable=SC2046 # several words
    "$program" $(options "$target") \
        -artifact_prefix="$crashes" -max_total_time="$seconds" -use_value_profile=1 \
        "${folders[@]}" >"$log" 2>&1 || status=$?
    local runs speed covered
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    speed=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    if [ "$status" = 0 ] && [ "${covered:-0}" -gt 0 ]; then
        say "$target: ${runs:-0} inputs, ${speed:-0} per second, $covered branches, nothing found"
        return 0
    fi
    tail -n 60 "$log" >&2
    say "$target: FOUND SOMETHING (status $status); the log is $log" >&2
    sed -n 's/.*Test unit written to \(.*\)/fuzz: again: tests\/fuzz\/run.sh 0 '"$target"' \1/p' "$log" >&2
    return 1
}

# A target that ends lets the next one begin.
say "${#targets[@]} targets, $seconds s each, ${FUZZ_JOBS:-2} at a time"
failed=0 running=0
for target in "${targets[@]}"; do
    if [ "$running" -ge "${FUZZ_JOBS:-2}" ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    fuzz "$target" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
[ "$failed" = 0 ] || say "see above" >&2
exit "$failed"
