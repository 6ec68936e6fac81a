#!/usr/bin/env bash
# PostgreSQL servers for the scripts that source this. They listen on sockets of their own only, and live with all
# that belongs to them in a folder of the system's folder for temporary files: the path of a socket has to be short.
# PostgreSQL refuses to run as root: then servers, their `archive_command` and bkp run as `nobody`, who has a copy of bkp
# there, since root's folders are closed to everybody else. It stops only what it started: call `postgres_stop_all`
# in a trap on EXIT.
#
# Needs CARGO_TARGET_DIR and PREPARE_POSTGRES (examples/prepare.sh).

postgres_servers=()

# postgres_home NAME: makes the folder, sets postgres_home and postgres_bkp, the program that servers can run.
postgres_home() {
    local temporary=${TMPDIR:-/tmp}
    postgres_home=$(mktemp -d "${temporary%/}/$1.XXXXXX")
    postgres_bkp=$CARGO_TARGET_DIR/release/bkp
    if [ "$(id -u)" = 0 ]; then
        mkdir "$postgres_home/bin"
        cp "$postgres_bkp" "$CARGO_TARGET_DIR/tools/duckdb/libduckdb.so" "$postgres_home/bin"
        chmod -R go=rX "$postgres_home/bin"
        postgres_bkp=$postgres_home/bin/bkp
        chown "$(id -u nobody):$(id -g nobody)" "$postgres_home"
    fi
}

# postgres_as COMMAND...: runs a command as the user of the servers, in their folder, with nothing of this environment.
postgres_as() {
    local as=()
    [ "$(id -u)" != 0 ] ||
        as=(setpriv "--reuid=$(id -u nobody)" "--regid=$(id -g nobody)" --clear-groups)
    (cd "$postgres_home" && exec "${as[@]}" env -i HOME="$postgres_home" PATH=/usr/bin:/bin LC_ALL=C "$@")
}

# postgres_init FOLDER SETTING...: a new cluster with the superuser `admin` and these lines of configuration.
postgres_init() {
    local folder=$1
    shift
    postgres_as "$PREPARE_POSTGRES/initdb" --data-checksums --auth trust --username admin \
        --locale C --encoding UTF8 -D "$folder" >"$postgres_home/initdb.log" 2>&1 || {
        cat "$postgres_home/initdb.log" >&2
        return 1
    }
    printf '%s\n' "$@" | postgres_as tee -a "$folder/postgresql.conf" >/dev/null
}

# postgres_start FOLDER SETTING...: starts a server and waits until it can be written to. Its socket is in
# FOLDER.socket, its log is FOLDER.log. These settings go before those in its files.
postgres_start() {
    local folder=$1 options setting deadline=$((SECONDS + 600))
    shift
    options="-c listen_addresses='' -c unix_socket_directories='$folder.socket'"
    for setting in "$@"; do options+=" -c $setting"; done
    postgres_as mkdir -p "$folder.socket"
    postgres_as "$PREPARE_POSTGRES/pg_ctl" -D "$folder" -l "$folder.log" -w -t 600 -o "$options" \
        start >/dev/null || {
        tail -n 10 "$folder.log" >&2
        return 1
    }
    postgres_servers+=("$folder")
    until [ "$(postgres_sql "$folder" "select pg_is_in_recovery()")" = f ]; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            tail -n 10 "$folder.log" >&2
            return 1
        fi
        sleep 0.2
    done
}

# postgres_sql FOLDER STATEMENT...: asks a server, each statement in a transaction of its own.
postgres_sql() {
    local folder=$1 statement statements=()
    shift
    for statement in "$@"; do statements+=(-c "$statement"); done
    postgres_as "$PREPARE_POSTGRES/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "$folder.socket" -U admin \
        -d postgres "${statements[@]}"
}

# postgres_archived FOLDER: has the server finish its file of the log, and waits until that is archived.
postgres_archived() {
    local folder=$1 file deadline=$((SECONDS + 600))
    file=$(postgres_sql "$folder" "select pg_walfile_name(pg_switch_wal() - 1)")
    until [ "$(postgres_sql "$folder" "select last_archived_wal >= '$file' from pg_stat_archiver")" = t ]; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            tail -n 10 "$folder.log" >&2
            printf 'the server does not archive %s\n' "$file" >&2
            return 1
        fi
        sleep 0.2
    done
}

# postgres_stop FOLDER
postgres_stop() {
    local server left=()
    postgres_as "$PREPARE_POSTGRES/pg_ctl" -D "$1" -m fast -w -t 600 stop >/dev/null || true
    for server in "${postgres_servers[@]}"; do [ "$server" = "$1" ] || left+=("$server"); done
    postgres_servers=("${left[@]}")
}

postgres_stop_all() {
    local server
    for server in "${postgres_servers[@]}"; do postgres_stop "$server"; done
}
