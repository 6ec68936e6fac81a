#!/usr/bin/env bash
# How fast bkp backs up and restores a TigerBeetle data file, against what one would type instead.
#
# In one run, on one file and alternating, so that a busy machine is equally unkind to all of them.
# Nothing that is read is in the page cache: a server keeps its data file out of it, so a backup reads
# the disk. With --warm everything is in it, which helps those who read through it.
#
#   bkp          bkp snapshot (mode stopped) to a store on the same disk; bkp restore
#   tar+age      tar | zstd -T2 -3 | age to a recipient;                  age | zstd | tar -x
#   zstd+openssl zstd -T2 -3 | openssl enc -aes-256-ctr -pbkdf2;          openssl | zstd
#
# What is measured: wall time until everything is on the disk (the pipelines are followed by a
# `sync` of their result, since bkp returns only then), the largest resident size of any single
# process (that of a pipeline's biggest member, not of all together), and the stored bytes. Neither
# pipeline notices a truncated or torn source, and openssl does not authenticate.
#
# The file: by default made here by a server that takes 5 million transfers in batches of 500, about
# 4.9 GB of which half is live. Everything is written to `bench` in the build folder, which each run
# makes anew and removes at its end; it needs about five times the size of the file.

set -euo pipefail

usage() {
    cat <<'END'
Usage: benches/capture.sh [--rounds N] [--warm] [--transfers N | --file DATA_FILE]

  --rounds N         measure everything N times (default 3); the table shows medians
  --transfers N      size of the file that is made (default 5000000)
  --warm             keep what is read in the page cache
  --file DATA_FILE   take this data file, of a cluster of one and of no running server; it is only
                     read, and then what bkp restores is verified but not started
  --help             this text
END
}

rounds=3 transfers=5000000 data_file='' warm=no
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=${2:?} && shift 2 ;;
    --transfers) transfers=${2:?} && shift 2 ;;
    --warm) warm=yes && shift ;;
    --file) data_file=$(realpath -e "${2:?}") && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

say() { printf 'capture: %s\n' "$*"; }

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
mkdir -p "$work/out"

totals=
if [ -z "$data_file" ]; then
    data_file=$work/0_0.tigerbeetle
    say "makes a data file of $transfers transfers"
    server_format "$data_file"
    server_start "$data_file"
    ledgerload load "$server_address" --record "$work/acknowledged" --batch 500 --clients 4 \
        --transfers "$transfers"
    totals=$(ledgerload totals "$server_address")
    server_stop "$server_pid"
fi
bytes=$(stat -c %s "$data_file")
say "file of $bytes bytes"

# Keys that live as long as this run.
age-keygen -o "$work/age.key" 2>/dev/null
recipient=$(age-keygen -y "$work/age.key")
openssl rand -hex 32 >"$work/pass"
cat >"$work/bkp.toml" <<END
state_dir = "$work/state"

[store.main]
url = "file://$work/out/store"

[keys]
recipients = ["file:$work/bkp.key"]

[source.books]
kind = "tigerbeetle"
data_file = "$data_file"
mode = "stopped"
END
"$program" -q --config "$work/bkp.toml" keys generate >/dev/null

# The commands, each with its part: `save` writes below out/, `load` writes out/back.
export work program data_file recipient
folder=$(dirname "$data_file") name=$(basename "$data_file")
export folder name
# shellcheck disable=SC2016 # The shells that run them expand them.
{
    bkp_save='mkdir out/store && "$program" -q --config bkp.toml snapshot books --scope full >/dev/null'
    bkp_load='"$program" -q --config bkp.toml restore books --to out/back --yes >/dev/null'
    age_save='tar -C "$folder" -cf - "$name" | zstd -q -T2 -3 | age -r "$recipient" >out/age && sync out/age'
    age_load='mkdir out/tree && age -d -i age.key <out/age | zstd -q -d | tar -C out/tree -xf - &&
        mv "out/tree/$name" out/back && sync out/back'
    ssl_save='zstd -q -T2 -3 <"$data_file" |
        openssl enc -aes-256-ctr -pbkdf2 -pass file:pass >out/ssl && sync out/ssl'
    ssl_load='openssl enc -d -aes-256-ctr -pbkdf2 -pass file:pass <out/ssl | zstd -q -d >out/back && sync out/back'
}

# measure TOOL PART COMMAND: adds a line `tool part seconds peak_kb` to the results.
measure() {
    (cd "$work" && /usr/bin/time -f "$1 $2 %e %M" -a -o results bash -euo pipefail -c "$3") || {
        say "$1 ($2) failed"
        return 1
    }
}

# Looks at what came back, once: a fast tool that brings nothing back is of no use.
look_at() {
    case $1 in
    tar+age | zstd+openssl) cmp "$data_file" "$work/out/back" ;;
    bkp)
        "$program" -q --config "$work/bkp.toml" verify --latest books --level decode >/dev/null
        # Blocks that are not in use do not travel, so the bytes may differ; the books may not.
        [ -n "$totals" ] || return 0
        server_start "$work/out/back"
        local found
        found=$(ledgerload totals "$server_address")
        server_stop "$server_pid"
        [ "$found" = "$totals" ] || {
            say "bkp brought back $found instead of $totals"
            return 1
        }
        ;;
    esac
}

# What earlier steps left to be written must not be written during the measurement, and what is going
# to be read is in the page cache or not, as asked.
settle() {
    sync
    local file
    while IFS= read -r file; do
        if [ "$warm" = yes ]; then
            cat "$file" >/dev/null
        else
            # An advice of `dd`: the whole file leaves the cache; nothing is read.
            dd if="$file" iflag=nocache count=0 status=none
        fi
    done < <(printf '%s\n' "$data_file" && find "$work/out" -type f)
}

# one_round TOOL SAVE LOAD
one_round() {
    rm -rf "$work/out" && mkdir "$work/out"
    settle
    measure "$1" save "$2"
    printf '%s %s\n' "$1" "$(du -sb "$work/out" | cut -f 1)" >>"$work/sizes"
    settle
    measure "$1" load "$3"
    [ "$round" != 1 ] || look_at "$1"
}

for ((round = 1; round <= rounds; round++)); do
    say "round $round of $rounds"
    one_round bkp "$bkp_save" "$bkp_load"
    one_round tar+age "$age_save" "$age_load"
    one_round zstd+openssl "$ssl_save" "$ssl_load"
done

python3 - "$work" "$program" "$bytes" <<'END'
import statistics, subprocess, sys, time

work, program, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
times, peaks, stored = {}, {}, {}
for line in open(f"{work}/results"):
    tool, part, seconds, peak_kb = line.split()
    times.setdefault((tool, part), []).append(float(seconds))
    peaks[tool, part] = max(peaks.get((tool, part), 0), int(peak_kb))
for line in open(f"{work}/sizes"):
    tool, out_bytes = line.split()
    stored[tool] = int(out_bytes)

def seconds(tool, part):
    return statistics.median(times[tool, part])

print(f"\nfile: {size / 1e9:.2f} GB; medians of {len(times['bkp', 'save'])}; ratio = time / bkp's time\n")
print(f"{'':13} {'backup':>8} {'ratio':>6} {'peak':>7} {'restore':>8} {'ratio':>6} {'peak':>7} {'stored':>9}")
for tool in stored:
    cells = ""
    for part in ("save", "load"):
        ratio = seconds(tool, part) / max(seconds("bkp", part), 0.01)
        cells += f"{seconds(tool, part):7.1f}s {ratio:6.2f} {peaks[tool, part] / 1e3:5.0f}MB "
    print(f"{tool:13} {cells}{stored[tool] / 1e6:7.0f}MB")

starts = []
for _ in range(50):
    began = time.perf_counter()
    subprocess.run([program, "--version"], stdout=subprocess.DEVNULL, check=True)
    starts.append((time.perf_counter() - began) * 1e3)
print(f"\nbkp --version: median {statistics.median(starts):.1f} ms, longest {max(starts):.1f} ms of 50")
END
