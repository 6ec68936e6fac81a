#!/usr/bin/env bash
# How long `bkp list` takes over many backups: a year of a run every 15 minutes is 35 000.
#
# The store is a bucket of an S3 service on loopback (ministack, which reads its objects from files when it
# starts, so that they can be made at once), and a folder. Listing reads no object, so the objects are
# empty. (s3s-fs walks all of its files for each page: with so many it does not end.)
#
#   service   what the service alone takes for those pages, asked by curl
#   cold      bkp list, all pages of the listing; beside it the processor time of bkp
#   cached    bkp list --cached, what this host saw last
#   idle run  bkp run with a job that is not due, which asks no store; beside it `bkp --version`

set -euo pipefail

usage() {
    cat <<'END'
Usage: benches/list.sh [--backups N] [--rounds N]

  --backups N        how many (default 35000)
  --rounds N         measure everything N times (default 5); the result is the median
  --help             this text
END
}

backups=35000 rounds=5
while [ $# -gt 0 ]; do
    case $1 in
    --backups) backups=${2:?} && shift 2 ;;
    --rounds) rounds=${2:?} && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

cd "$(dirname "$0")/.."
export PREPARE_SERVICES=all
# shellcheck source=examples/prepare.sh
. examples/prepare.sh
cargo build --release --locked --bins

program=$CARGO_TARGET_DIR/release/bkp
# In memory where there is such a place: what a disk does is not measured here.
memory=/dev/shm
[ -d "$memory" ] || memory=${TMPDIR:-/tmp}
work=$(mktemp -d -p "$memory")
server=''
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

# The keys of a year of backups, with ids of version 7 of their time.
awk -v count="$backups" 'BEGIN {
    begin = 1735689600
    for (i = 0; i < count; i++) {
        at = begin + i * 900
        id = sprintf("%08x-%04x-7000-8000-%012x", int(at * 1000 / 65536), (at * 1000) % 65536, i)
        day = strftime("%Y/%m/%d", at, 1)
        key = "tigerbeetle/books/full/" day "/tigerbeetle-snapshot-" id
        print key ".tar.zst.enc"
        print key ".manifest.json"
    }
}' > "$work/keys"
for place in data/backups folder; do
    mkdir -p "$work/$place"
    (cd "$work/$place" && xargs -n 1000 dirname < "$work/keys" | sort -u | xargs mkdir -p &&
        xargs -n 1000 touch < "$work/keys")
done
port=$((20000 + RANDOM % 20000))
BIND_HOST=127.0.0.1 GATEWAY_PORT=$port SERVICES=s3 LOG_LEVEL=WARNING S3_PERSIST=1 \
    S3_DATA_DIR="$work/data" "$CARGO_TARGET_DIR/tools/ministack/bin/ministack" > "$work/log" 2>&1 &
server=$!
listing="http://127.0.0.1:$port/backups?list-type=2&max-keys=1000"
deadline=$((SECONDS + 300))
until curl -sf "$listing" > "$work/page" && grep -q '<IsTruncated>true' "$work/page"; do
    [ "$SECONDS" -lt "$deadline" ] || { cat "$work/log" >&2 && exit 1; }
    sleep 0.5
done

printf '[default]\naws_access_key_id = test\naws_secret_access_key = testsecret\n' > "$work/credentials"
chmod 600 "$work/credentials"
cat > "$work/bkp.toml" <<END
state_dir = "$work/state"
[store.bucket]
url = "s3://backups"
endpoint = "http://127.0.0.1:$port"
region = "us-east-1"
credentials_file = "$work/credentials"
[store.folder]
url = "file://$work/folder"
[job.idle]
run = "cleanup"
every = "10d"
END

# Medians of the wall and of the processor times of a command, seconds.
median() {
    for _ in $(seq "$rounds"); do
        local begin end
        begin=$(date +%s.%N)
        (TIMEFORMAT='%U %S'; time "$@" > "$work/out") 2> "$work/times"
        end=$(date +%s.%N)
        echo "$end $begin $(tail -n 1 "$work/times")" | awk '{ printf "%.3f %.3f\n", $1 - $2, $3 + $4 }'
    done > "$work/all"
    local wall processor
    wall=$(sort -n "$work/all" | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }')
    processor=$(sort -n -k 2 "$work/all" | awk '{ all[NR] = $2 } END { print all[int((NR + 1) / 2)] }')
    echo "$wall s (processor $processor s)"
}
# Every page of the listing, by curl.
pages() {
    local token='' page
    while :; do
        page=$(curl -sf -G "$listing" ${token:+--data-urlencode "continuation-token=$token"})
        token=$(sed -n 's/.*<NextContinuationToken>\([^<]*\)<.*/\1/p' <<< "$page")
        [ -n "$token" ] || break
    done
}
bkp() { "$program" --config "$work/bkp.toml" "$@"; }

echo "service:       $(median pages)"
for store in bucket folder; do
    echo "$store cold:   $(median bkp list --store "$store")"
    found=$(bkp list --store "$store" | tail -n +2 | wc -l)
    [ "$found" = "$backups" ] || { echo "list found $found of $backups" >&2 && exit 1; }
    echo "$store cached: $(median bkp list --store "$store" --cached)"
done
bkp -q run --store folder > "$work/first" || { cat "$work/first" >&2 && exit 1; }
echo "idle run:      $(median bkp run --store folder)"
echo "version:       $(median "$program" --version)"
