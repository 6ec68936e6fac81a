#!/usr/bin/env bash
# How long `bkp list` takes over many backups: a year of a run every 15 minutes is 35 000.
#
# The store is a bucket of an S3 service on loopback, and a folder. Listing reads no object, so the objects
# are empty. The service is Garage where --garage says where its program is, since it answers a page in
# milliseconds, as those do that people keep their backups in; otherwise ministack, a server in Python that
# sorts every name of the bucket for each page: it shows how many pages are asked for, not how fast bkp is.
# (s3s-fs walks all of its files for each page: with so many it does not end.)
#
#   service   what the service alone takes for those pages, asked by curl one after the other
#   cold      bkp list, all pages of the listing; beside it the processor time of bkp
#   cached    bkp list --cached, what this host saw last
#   idle run  bkp run with a job that is not due, which asks no store; beside it `bkp --version`

set -euo pipefail

usage() {
    cat <<'END'
Usage: benches/list.sh [--garage PROGRAM] [--backups N] [--rounds N]

  --garage PROGRAM   Garage 2 (cargo install garage --locked --no-default-features
                     --features sqlite,bundled-libs; default: ministack)
  --backups N        how many (default 35000)
  --rounds N         measure everything N times (default 5); the result is the median
  --help             this text
END
}

backups=35000 rounds=5 garage=''
while [ $# -gt 0 ]; do
    case $1 in
    --garage) garage=$(realpath "${2:?}") && shift 2 ;;
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
plant() {
    mkdir -p "$1"
    (cd "$1" && xargs -n 1000 dirname < "$work/keys" | sort -u | xargs mkdir -p &&
        xargs -n 1000 touch < "$work/keys")
}
plant "$work/folder"
port=$((20000 + RANDOM % 20000))
bucket="http://127.0.0.1:$port/backups" query='list-type=2&max-keys=1000'
listing="$bucket?$query"
user=test secret=testsecret
# Signed, which ministack does not look at.
ask() {
    curl -sf --aws-sigv4 aws:amz:us-east-1:s3 --user "$user:$secret" -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" "$@"
}
# await SECONDS COMMAND...: until the service does it.
await() {
    local deadline=$((SECONDS + $1))
    until "${@:2}" > "$work/answer" 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || { cat "$work/answer" "$work/log" >&2 && exit 1; }
        sleep 0.5
    done
}
whole() { ask "$listing" > "$work/page" && grep -q '<IsTruncated>true' "$work/page"; }
if [ -n "$garage" ]; then
    user=GK$(openssl rand -hex 12) secret=$(openssl rand -hex 32)
    (umask 077 && cat > "$work/garage.toml") << END
metadata_dir = "$work/garage/meta"
data_dir = "$work/garage/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:$((port + 1))"
rpc_public_addr = "127.0.0.1:$((port + 1))"
rpc_secret = "$(openssl rand -hex 32)"
[s3_api]
s3_region = "us-east-1"
api_bind_addr = "127.0.0.1:$port"
END
    GARAGE_DEFAULT_ACCESS_KEY=$user GARAGE_DEFAULT_SECRET_KEY=$secret GARAGE_DEFAULT_BUCKET=backups \
        RUST_LOG=error "$garage" -c "$work/garage.toml" server --single-node --default-bucket \
        > "$work/log" 2>&1 &
    server=$!
    await 60 ask "$listing"
    sed "s|.*|url = http://127.0.0.1:$port/backups/&\nupload-file = $work/empty\noutput = /dev/null|" \
        "$work/keys" > "$work/uploads"
    : > "$work/empty"
    ask --retry 3 --no-progress-meter --parallel --parallel-max 16 -K "$work/uploads" 2> "$work/log"
else
    plant "$work/data/backups"
    BIND_HOST=127.0.0.1 GATEWAY_PORT=$port SERVICES=s3 LOG_LEVEL=WARNING S3_PERSIST=1 \
        S3_DATA_DIR="$work/data" "$CARGO_TARGET_DIR/tools/ministack/bin/ministack" > "$work/log" 2>&1 &
    server=$!
fi
await 300 whole

(umask 077 && printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' \
    "$user" "$secret" > "$work/credentials")
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

# measure NAME COMMAND...: says the medians of the wall and of the processor times of a command, seconds.
measure() {
    local name=$1 begin end
    shift
    : > "$work/all"
    for _ in $(seq "$rounds"); do
        begin=$(date +%s.%N)
        (TIMEFORMAT='%U %S'; time "$@" > "$work/out") 2> "$work/times" || { cat "$work/times" >&2 && exit 1; }
        end=$(date +%s.%N)
        echo "$end $begin $(tail -n 1 "$work/times")" |
            awk '{ printf "%.3f %.3f\n", $1 - $2, $3 + $4 }' >> "$work/all"
    done
    local wall processor
    wall=$(sort -n "$work/all" | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }')
    processor=$(sort -n -k 2 "$work/all" | awk '{ all[NR] = $2 } END { print all[int((NR + 1) / 2)] }')
    printf '%-15s%s s (processor %s s)\n' "$name:" "$wall" "$processor"
}
# Every page of the listing, by curl, which signs a query only if its names are in order.
pages() {
    local token='' page count=0
    while :; do
        page=$(ask "$bucket?${token:+continuation-token=$token&}$query") || return 1
        count=$((count + 1))
        token=$(sed -n 's/.*<NextContinuationToken>\([^<]*\)<.*/\1/p' <<< "$page")
        [ -n "$token" ] || break
        token=${token//+/%2B} token=${token//\//%2F} token=${token//=/%3D} token=${token//]/%5D}
    done
    [ "$count" = "$(((2 * backups + 999) / 1000))" ] || return 1
}
bkp() { "$program" --config "$work/bkp.toml" "$@"; }

measure service pages
for store in bucket folder; do
    measure "$store cold" bkp list --store "$store"
    found=$(bkp list --store "$store" | tail -n +2 | wc -l)
    [ "$found" = "$backups" ] || { echo "list found $found of $backups" >&2 && exit 1; }
    measure "$store cached" bkp list --store "$store" --cached
done
bkp -q run --store folder > "$work/first" || { cat "$work/first" >&2 && exit 1; }
measure 'idle run' bkp run --store folder
measure version "$program" --version
