#!/usr/bin/env bash
# `quickstart.sh --postgres`, which sources this: a PostgreSQL server is written to and backed up meanwhile, and hands
# over its log. A table is dropped; the server is brought back as it was right before, and compared.
#
# Needs `keep` and `step` of that script, CARGO_TARGET_DIR and PREPARE_POSTGRES.

# shellcheck source=examples/postgres.sh
. examples/postgres.sh

# Shows a command of bkp as one would type it, and runs it as the server's user, to whom the store belongs.
bkp() {
    printf '\n$ bkp %s\n' "$*"
    postgres_as "$postgres_bkp" --config "$postgres_home/bkp.toml" "$@"
}

# What is in the tables: rows, their sum, and a hash that tells any difference.
totals() {
    postgres_sql "$1" "select count(*), sum(amount), sum(hashtextextended(p::text, 0)) from payments p"
}

keep_running() {
    local user=()
    [ "$(id -u)" != 0 ] || user=(setpriv --reuid="$(id -u nobody)" --regid="$(id -g nobody)" --clear-groups)
    cat >"$postgres_home/stop.sh" <<STOP
#!/bin/sh
for folder in ${postgres_servers[*]}; do
    ${user[*]} "$PREPARE_POSTGRES/pg_ctl" -D "\$folder" -m fast -w stop >/dev/null
done
rm -rf "$postgres_home"
STOP
    chmod 755 "$postgres_home/stop.sh"
    cat <<TEXT
Kept, and still running: the servers; all of it is in $postgres_home.
Try, in this or another shell${user[*]:+, each behind: ${user[*]}}

  $postgres_bkp --config $postgres_home/bkp.toml list pg --windows
  $postgres_bkp --config $postgres_home/bkp.toml snapshot pg
  $PREPARE_POSTGRES/psql -h $data.socket -U admin postgres

To stop them and remove everything: $postgres_home/stop.sh
TEXT
}

finish() {
    local status=$?
    [ -z "${writer:-}" ] || kill "$writer" 2>/dev/null || true
    # shellcheck disable=SC2154 # Of the script that sources this.
    if [ "$status" = 0 ] && [ "$keep" = yes ]; then
        keep_running
        return
    fi
    postgres_stop_all
    if [ "$status" != 0 ]; then
        printf '\nquickstart: FAILED (exit code %s). Everything is still in %s\n' "$status" "$postgres_home" >&2
    else
        rm -rf "$postgres_home"
    fi
}
postgres_home bkp-quickstart
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

data=$postgres_home/data
step "A PostgreSQL server in $data"
"$PREPARE_POSTGRES/postgres" --version
postgres_as mkdir "$postgres_home/state" "$postgres_home/store"
postgres_as tee "$postgres_home/bkp.toml" <<TOML
state_dir = "$postgres_home/state"

[store.main]
url = "file://$postgres_home/store"

[keys]
recipients = ["file:$postgres_home/key"]

[source.pg]
kind = "postgres"
conninfo = "host=$data.socket user=bkp"
checkpoint = "fast"
TOML
bkp keys generate
push="archive_command = '$postgres_bkp --config $postgres_home/bkp.toml logs pg --push %p'"
printf '\nIts configuration, beside what initdb wrote:\narchive_mode = on\n%s\n' "$push"
postgres_init "$data" "archive_mode = on" "$push"
postgres_start "$data"
postgres_sql "$data" "create role bkp replication login"
postgres_sql "$data" "grant pg_monitor to bkp"
bkp doctor

step "A base backup while the server is written to"
postgres_sql "$data" "create table payments(id bigint generated always as identity primary key, amount numeric(12, 2), note text)"
postgres_sql "$data" "insert into payments(amount, note) select random() * 1000, md5(n::text) from generate_series(1, 200000) n"
# Every payment is a transaction of its own.
yes "insert into payments(amount, note) values (random() * 1000, md5(random()::text));" 2>/dev/null |
    postgres_sql "$data" >/dev/null 2>&1 &
writer=$!
bkp snapshot pg
sleep 2
bkp snapshot pg
sleep 2

step "An accident"
postgres_sql "$data" "select pg_terminate_backend(pid) from pg_stat_activity where query like 'insert%'" >/dev/null
wait "$writer" || true
writer=''
before=$(totals "$data")
moment=$(postgres_sql "$data" "select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
sleep 1
postgres_sql "$data" "drop table payments"
printf 'The table payments is gone. Right before, at %s, it was: %s\n' "$moment" "$before"
postgres_archived "$data"

step "What has arrived of the log, and how good it is"
bkp logs pg
bkp list pg
bkp list pg --windows
bkp verify --latest pg --level decode
bkp verify pg --logs

step "Back to the moment before"
bkp restore pg --at "$moment" --to "$postgres_home/restored" --yes
# A copy beside the original must not archive into its log.
postgres_start "$postgres_home/restored" archive_mode=off
after=$(totals "$postgres_home/restored")
printf '\nbefore the accident: %s\nrestored:            %s\n\n' "$before" "$after"
if [ "$before" != "$after" ]; then
    printf 'quickstart: the restored server says something else than the original\n' >&2
    exit 1
fi
printf 'quickstart: OK. The restored server holds every payment that was acknowledged before the accident.\n'
