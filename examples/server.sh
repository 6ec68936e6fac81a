#!/usr/bin/env bash
# TigerBeetle servers, an S3 service and loads, on loopback, for the scripts that source this. It stops only what
# it started, by process id: call `server_stop_all` in a trap on EXIT.
#
# Needs CARGO_TARGET_DIR (examples/prepare.sh).

SERVER_PROGRAM=$CARGO_TARGET_DIR/tools/bin/tigerbeetle
SERVER_LEDGERLOAD=$CARGO_TARGET_DIR/release/examples/ledgerload
SERVER_CLUSTER=0
SERVER_READY_SECONDS=120
SERVER_S3=$CARGO_TARGET_DIR/tools/s3s/bin/s3s-fs
server_pids=()

# server_format DATA_FILE: a new data file for a cluster of one replica.
server_format() {
    "$SERVER_PROGRAM" format "--cluster=$SERVER_CLUSTER" --replica=0 --replica-count=1 "$1" \
        >"$1.log" 2>&1 || {
        cat "$1.log" >&2
        return 1
    }
}

# server_start DATA_FILE: starts a server, waits until it is ready, sets server_pid and
# server_address. The server logs to DATA_FILE.log.
server_start() {
    local tries=5
    while [ "$tries" -gt 0 ]; do
        tries=$((tries - 1))
        server_address=127.0.0.1:$(server_free_port)
        : >"$1.log"
        "$SERVER_PROGRAM" start --cache-grid=256MiB "--addresses=$server_address" "$1" \
            >"$1.log" 2>&1 </dev/null &
        server_pid=$!
        server_pids+=("$server_pid")
        if server_wait_ready "$1.log"; then return; fi
        server_stop "$server_pid"
        # Somebody else may have taken the port between the look and the start.
        grep -q AddressInUse "$1.log" || break
    done
    tail -n 10 "$1.log" >&2
    printf 'the server does not start on %s\n' "$1" >&2
    return 1
}

server_wait_ready() {
    local deadline=$((SECONDS + SERVER_READY_SECONDS))
    while [ "$SECONDS" -lt "$deadline" ] && kill -0 "$server_pid" 2>/dev/null; do
        if grep -q ': listening on ' "$1" && grep -q transition_to_normal "$1"; then return; fi
        sleep 0.1
    done
    return 1
}

server_free_port() {
    python3 -c 'import socket
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    print(s.getsockname()[1])'
}

# server_stop PID: a server has no other end than a signal; its data file is in order at any moment.
server_stop() {
    kill "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
    local pid left=()
    for pid in "${server_pids[@]}"; do [ "$pid" = "$1" ] || left+=("$pid"); done
    server_pids=("${left[@]}")
}

server_stop_all() {
    local pid
    for pid in "${server_pids[@]}"; do server_stop "$pid"; done
}

# s3_start FOLDER: starts an S3 service whose buckets are the folders in FOLDER, waits until it is
# ready, sets s3_endpoint. Its key id is `demo`, its secret `demo-secret`; it logs to FOLDER.log.
s3_start() {
    local port deadline=$((SECONDS + SERVER_READY_SECONDS))
    port=$(server_free_port)
    "$SERVER_S3" --host 127.0.0.1 --port "$port" --access-key demo --secret-key demo-secret "$1" \
        >"$1.log" 2>&1 </dev/null &
    server_pids+=("$!")
    # shellcheck disable=SC2034 # For the scripts that source this.
    s3_endpoint=http://127.0.0.1:$port
    until (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        if [ "$SECONDS" -ge "$deadline" ] || ! kill -0 "${server_pids[-1]}" 2>/dev/null; then
            tail -n 10 "$1.log" >&2
            printf 'the S3 service does not start\n' >&2
            return 1
        fi
        sleep 0.1
    done
}

# ledgerload TASK ADDRESS [OPTION...]
ledgerload() {
    "$SERVER_LEDGERLOAD" "$1" --cluster "$SERVER_CLUSTER" --addresses "$2" --timeout 120 "${@:3}"
}

# load_start ADDRESS RECORD OPTION...: a load in the background; sets load_pid.
load_start() {
    # Not through ledgerload(): the shell around it would be signalled in its place.
    "$SERVER_LEDGERLOAD" load --cluster "$SERVER_CLUSTER" --addresses "$1" --record "$2" "${@:3}" &
    load_pid=$!
    server_pids+=("$load_pid")
}

# load_stop: lets it finish its batches; fails if the load failed.
load_stop() {
    kill "$load_pid" 2>/dev/null || true
    wait "$load_pid"
    server_stop "$load_pid"
}
