#!/usr/bin/env bash
# How fast bkp sends a backup to an S3 service and reads it back, against rclone on the same bytes.
#
# In one run and alternating, to the same service on loopback (`s3s-fs`), without compression, so that
# both move the same bytes: bkp's snapshot of a data file also captures, hashes and encrypts what
# it sends; rclone then sends the very object that bkp made. Reading back, `bkp verify` (digest)
# fetches every byte and compares its SHA-256; rclone fetches to /dev/null, with the same number of
# requests at a time.
#
# What is measured: wall time, and the largest resident size of the process. The service writes to the
# same disk and runs on the same processors, so the figures compare; they are not the speed of S3.
# Everything is in `bench` in the build folder, which is removed at the end.

set -euo pipefail

usage() {
    cat <<'END'
Usage: benches/s3.sh [--rounds N] [--transfers N]

  --rounds N         measure everything N times (default 3); the table shows medians
  --transfers N      size of the data file that is backed up (default 5000000: 2.8 GB are live)
  --help             this text
END
}

rounds=3 transfers=5000000
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=${2:?} && shift 2 ;;
    --transfers) transfers=${2:?} && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

say() { printf 's3: %s\n' "$*"; }

cd "$(dirname "$0")/.."
PREPARE_SERVICES=s3
# shellcheck source=examples/prepare.sh
. examples/prepare.sh
prepare_packages /usr/bin/time=time rclone=rclone
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
mkdir -p "$work/s3/backups"

say "makes a data file of $transfers transfers"
server_format "$work/0_0.tigerbeetle"
server_start "$work/0_0.tigerbeetle"
ledgerload load "$server_address" --record "$work/acknowledged" --batch 500 --clients 4 \
    --transfers "$transfers"
server_stop "$server_pid"

s3_start "$work/s3"
(umask 077 && printf '[default]\naws_access_key_id = demo\naws_secret_access_key = demo-secret\n' \
    >"$work/credentials")
cat >"$work/bkp.toml" <<END
state_dir = "$work/state"

[store.main]
url = "s3://backups/bkp"
endpoint = "$s3_endpoint"
credentials_file = "$work/credentials"

[keys]
recipients = ["file:$work/bkp.key"]

[source.books]
kind = "tigerbeetle"
data_file = "$work/0_0.tigerbeetle"
mode = "stopped"
compression = "none"
END
"$program" -q --config "$work/bkp.toml" keys generate >/dev/null

# rclone takes its remote from the environment: nothing of it is in a command line. What the
# environment says of other services is not meant for this one.
unset "${!AWS_@}"
export RCLONE_CONFIG=/dev/null RCLONE_CONFIG_S3_TYPE=s3 RCLONE_CONFIG_S3_PROVIDER=Other
export RCLONE_CONFIG_S3_ENDPOINT=$s3_endpoint RCLONE_CONFIG_S3_REGION=us-east-1
export RCLONE_CONFIG_S3_ACCESS_KEY_ID=demo RCLONE_CONFIG_S3_SECRET_ACCESS_KEY=demo-secret
export RCLONE_S3_CHUNK_SIZE=8M RCLONE_S3_UPLOAD_CONCURRENCY=4 RCLONE_S3_NO_CHECK_BUCKET=true

# measure TOOL PART COMMAND...: adds a line `tool part seconds peak_kb` to the results.
measure() {
    sync
    /usr/bin/time -f "$1 $2 %e %M" -a -o "$work/results" "${@:3}" >/dev/null || {
        say "$1 ($2) failed"
        return 1
    }
}

for ((round = 1; round <= rounds; round++)); do
    say "round $round of $rounds"
    rm -rf "$work/s3/backups" "$work/state/stores" && mkdir "$work/s3/backups"
    measure bkp send "$program" -q --config "$work/bkp.toml" snapshot books --scope full
    object=$(find "$work/s3/backups/bkp" -name '*.tar.enc')
    cp "$object" "$work/object"
    measure rclone send rclone copyto "$work/object" s3:backups/rclone/object
    measure bkp fetch "$program" -q --config "$work/bkp.toml" verify --latest books --level digest
    measure rclone fetch rclone cat s3:backups/rclone/object
done

python3 - "$work" "$(stat -c %s "$work/object")" <<'END'
import statistics, sys

work, size = sys.argv[1], int(sys.argv[2])
times, peaks = {}, {}
for line in open(f"{work}/results"):
    tool, part, seconds, peak_kb = line.split()
    times.setdefault((tool, part), []).append(float(seconds))
    peaks[tool, part] = max(peaks.get((tool, part), 0), int(peak_kb))
print(f"\nobject: {size / 1e9:.2f} GB; medians of {len(times['bkp', 'send'])}\n")
print(f"{'':8} {'send':>8} {'peak':>7} {'fetch':>8} {'peak':>7}")
for tool in ("bkp", "rclone"):
    cells = ""
    for part in ("send", "fetch"):
        cells += f"{statistics.median(times[tool, part]):7.1f}s {peaks[tool, part] / 1e3:5.0f}MB "
    print(f"{tool:8} {cells}")
END
