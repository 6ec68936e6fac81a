#!/usr/bin/env bash
# How fast `bkp replicate --to` copies backups from one S3 service to another, against rclone on the same objects.
#
# Two services (`s3s-fs`) on loopback, and one backup of the given size in the first. In one run and alternating bkp copies
# the backup, checks every byte of it against the digests of its authenticated manifest, and confirms what arrived; rclone copies
# the same objects between the same services with as many streams and parts of the same size, and compares what its
# services tell.
#
# What is measured: wall time, CPU seconds (user and system, without the services) and the largest resident size of the
# process. The services write to the same disk and run on the same processors, so the figures compare; they are not the
# speed of S3. Everything is in `bench` in the build folder, which is removed at the end.

set -euo pipefail

usage() {
    cat <<'END'
Usage: benches/replicate.sh [--rounds N] [--gb N]

  --rounds N         measure everything N times (default 3); the table shows medians
  --gb N             size of what is copied, 10^9 bytes (default 5)
  --help             this text
END
}

rounds=3 gb=5
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=${2:?} && shift 2 ;;
    --gb) gb=${2:?} && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

say() { printf 'replicate: %s\n' "$*"; }

cd "$(dirname "$0")/.."
PREPARE_SERVICES=s3
# shellcheck source=examples/prepare.sh
. examples/prepare.sh
prepare_packages /usr/bin/time=time rclone=rclone
# shellcheck source=examples/server.sh
. examples/server.sh
[ -n "${BENCH_PROGRAM:-}" ] || cargo build --release --locked --bins

work=$CARGO_TARGET_DIR/bench
program=${BENCH_PROGRAM:-$CARGO_TARGET_DIR/release/bkp}
finish() {
    server_stop_all
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
rm -rf "$work"
mkdir -p "$work"/{from,to}/backups "$work/files"

# Random bytes, in files of a size that a data lake has, as one backup each of a Parquet folder would be sealed: a data file
# of that size takes an hour to make, and neither side looks at what it copies.
say "makes $gb GB"
s3_start "$work/from"
from=$s3_endpoint
s3_start "$work/to"
to=$s3_endpoint
(umask 077 && printf '[default]\naws_access_key_id = demo\naws_secret_access_key = demo-secret\n' \
    >"$work/credentials")
store() {
    printf '[store.%s]\nurl = "s3://backups/bkp"\nendpoint = "%s"\ncredentials_file = "%s"\n' \
        "$1" "$2" "$work/credentials"
}
cat >"$work/bkp.toml" <<END
state_dir = "$work/state"
$(store main "$from")
$(store copy "$to")

[keys]
recipients = ["file:$work/bkp.key"]

[source.lake]
kind = "parquet"
path = "$work/files"
store = "main"
compression = "none"
END
"$program" -q --config "$work/bkp.toml" keys generate >/dev/null
python3 - "$work/files" "$gb" <<'END'
import os, sys

# Parquet as far as a copy looks at it: magic at both ends, and a footer of an empty file.
folder, left, number = sys.argv[1], int(float(sys.argv[2]) * 1e9), 0
schema = bytes.fromhex("15 02 19 2c 48 06 73 63 68 65 6d 61 15 02 00 15 02 25 00 18 01 61 00 16 00 19 0c 00".replace(" ", ""))
while left > 0:
    size = min(left, 256_000_000)
    with open(f"{folder}/{number:03}.parquet", "wb") as out:
        out.write(b"PAR1")
        for _ in range(size // 1_000_000):
            out.write(os.urandom(1_000_000))
        out.write(schema + len(schema).to_bytes(4, "little") + b"PAR1")
    left, number = left - size, number + 1
END
"$program" -q --config "$work/bkp.toml" replicate lake >/dev/null
rm -rf "$work/files"
# What there is to copy, so that both copy the same. The slashes below matter: this service fails to say what a prefix is.
(cd "$work/from/backups/bkp" && find parquet -type f -not -name '.*') >"$work/names"

# rclone takes its remotes from the environment: nothing of them is in a command line.
unset "${!AWS_@}"
export RCLONE_CONFIG=/dev/null
for side in FROM TO; do
    lower=${side,,}
    export "RCLONE_CONFIG_${side}_TYPE=s3" "RCLONE_CONFIG_${side}_PROVIDER=Other" \
        "RCLONE_CONFIG_${side}_ENDPOINT=${!lower}" "RCLONE_CONFIG_${side}_REGION=us-east-1" \
        "RCLONE_CONFIG_${side}_ACCESS_KEY_ID=demo" "RCLONE_CONFIG_${side}_SECRET_ACCESS_KEY=demo-secret"
done
export RCLONE_S3_CHUNK_SIZE=8M RCLONE_S3_UPLOAD_CONCURRENCY=4 RCLONE_S3_NO_CHECK_BUCKET=true

# measure TOOL COMMAND...: adds a line `tool seconds cpu_seconds peak_kb` to the results.
measure() {
    /usr/bin/time -f "$1 %e %U %S %M" -a -o "$work/results" "${@:2}" >/dev/null || {
        say "$1 failed"
        return 1
    }
}

empty() {
    rm -rf "$work/to/backups" "$work/state/stores"
    mkdir "$work/to/backups"
}

for ((round = 1; round <= rounds; round++)); do
    say "round $round of $rounds"
    empty
    measure bkp "$program" -q --config "$work/bkp.toml" replicate --from main --to copy
    empty
    measure rclone rclone copy --transfers 4 --no-traverse \
        --files-from-raw "$work/names" from:backups/bkp/ to:backups/bkp/
done

python3 - "$work/results" "$(du -sb "$work/from/backups" | cut -f1)" <<'END'
import statistics, sys

rows = {}
for line in open(sys.argv[1]):
    tool, *figures = line.split()
    rows.setdefault(tool, []).append([float(figure) for figure in figures])
median = {tool: [statistics.median(column) for column in zip(*of)] for tool, of in rows.items()}
print(f"\n{int(sys.argv[2]) / 1e9:.2f} GB; medians of {len(rows['bkp'])}\n")
print(f"{'':8} {'wall':>8} {'CPU':>8} {'peak':>8}")
for tool, (wall, user, system, peak) in median.items():
    print(f"{tool:8} {wall:7.1f}s {user + system:7.1f}s {peak / 1e3:6.0f}MB")
print(f"\nbkp/rclone: {median['bkp'][0] / median['rclone'][0]:.2f} of the time, "
      f"{sum(median['bkp'][1:3]) / sum(median['rclone'][1:3]):.2f} of the CPU seconds")
END
