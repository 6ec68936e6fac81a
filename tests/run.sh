#!/usr/bin/env bash
# Runs all tests with what ships: the release build, real TigerBeetle, PostgreSQL, S3 and KMS servers on loopback,
# real files. Needs nothing but Rust and what examples/prepare.sh gets. Writes only inside the build
# folder and the system's folder for temporary files; can be run again at any time.
#
# The files of the tests are in memory where there is enough of it, and three tests run at a time then: on a disk
# half of the time is waiting for the disk. Tests that are about file systems bring their own.
# TMPDIR=/var/tmp tests/run.sh runs all on that disk.
#
#   tests/run.sh                 all tests
#   tests/run.sh FILTER...       what `cargo test -- FILTER...` runs; also options of the test runner
#                                (tests/run.sh --exact name, tests/run.sh --nocapture)
#   tests/run.sh --quick [FILTER...]
#                                unit tests only, compiled without optimisation and incrementally: for the
#                                loop of one change and one try

set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'tests: %s\n' "$*"; }

if [ "${1:-}" = --quick ]; then
    shift
    # shellcheck source=examples/prepare.sh
    . examples/prepare.sh
    CARGO_INCREMENTAL=1 exec cargo test --release --locked --lib \
        --config 'profile.release.package.bkp.opt-level=0' -- "$@"
fi

say "prepare the tools"
PREPARE_SERVICES=all
# shellcheck source=examples/prepare.sh
. examples/prepare.sh
export BKP_TEST_TIGERBEETLE=$CARGO_TARGET_DIR/tools/bin/tigerbeetle

# Builds the program and the load generator too, which the tests start.
say "build the program, the load generator and the tests"
cargo test --release --locked --no-run

# Which of the things that a machine may not permit are tried here in vain: only the tests that need those
# are left out, and each of them says so. What is merely not installed excuses nothing.
without() {
    local folder
    unshare --map-root-user --mount mount -t tmpfs none /proc 2>/dev/null || printf 'mounts\n'
    folder=$(mktemp -d)
    mkdir "$folder/place"
    truncate -s 320M "$folder/image"
    if mkfs.xfs -q -m reflink=1 "$folder/image"; then
        if mount -o loop "$folder/image" "$folder/place" 2>/dev/null; then
            umount "$folder/place"
        else
            printf 'xfs\n'
        fi
    fi
    rm -rf "$folder"
    # The packages that bring these are for one kind of machine.
    [ "$(uname -m)" = x86_64 ] || printf 'postgres-%s\n' 16 17 18
}

if [ -z "${BKP_TEST_WITHOUT+given}" ]; then
    BKP_TEST_WITHOUT=$(PATH=$PATH:/usr/sbin:/sbin without | paste -sd ,)
fi
export BKP_TEST_WITHOUT

# What tests write at a time, with the servers that run beside, stays below 20 GiB.
memory_kib=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo)
if [ -z "${TMPDIR:-}" ] && [ "${memory_kib:-0}" -ge $((20 << 20)) ] &&
    [ "$(df --output=fstype,avail -B 1G /dev/shm 2>/dev/null | awk 'NR == 2 && $2 >= 10 { print $1 }')" = tmpfs ]; then
    TMPDIR=$(mktemp -d /dev/shm/bkp-tests-XXXXXX)
    # PostgreSQL's servers run as another user.
    chmod 711 "$TMPDIR"
    export TMPDIR RUST_TEST_THREADS=${RUST_TEST_THREADS:-3}
    trap 'rm -rf "$TMPDIR"' EXIT
    say "the files of the tests are in memory, in $TMPDIR"
fi
say "run the tests against $("$BKP_TEST_TIGERBEETLE" version 2>/dev/null)"
[ -z "$BKP_TEST_WITHOUT" ] || say "this machine does not permit, or cannot have: $BKP_TEST_WITHOUT; the tests that need it are left out"
# Without --no-fail-fast a failing unit test would hide the result of the integration tests.
cargo test --release --locked --no-fail-fast --lib --bins --test it -- "$@"
