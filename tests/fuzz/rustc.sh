#!/usr/bin/env bash
# What cargo calls in place of rustc for the packages of this repository, and for no other
# (RUSTC_WORKSPACE_WRAPPER; see run.sh): bkp's library is compiled so that libFuzzer sees which of its
# branches an input takes and what it compares, with checks on. The dependencies stay those of an
# ordinary build.

set -euo pipefail

flags=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Cdebug-assertions=yes
    -Copt-level=1
)
# Its build script runs by itself, without libFuzzer.
[[ " $* " == *" --crate-name bkp "* ]] || flags=()
exec "$@" "${flags[@]}"
