#!/usr/bin/env bash
# Dumps and restores the database that PostgreSQL's own regression tests leave behind: what bkp restores has to be
# what `pg_dump | pg_restore` restores, as pg_dump describes both.
#
#   tests/postgres-regression.sh SOURCE
#
# SOURCE is an unpacked source of PostgreSQL, of the major version of the programs in BIN (default: those of Debian).
# The tests are not judged, only run: a few want a library that only a build of PostgreSQL has.
# `apt-get source postgresql-15` gets the source on Debian. Needs bkp in BKP (default: the release build). As root,
# the server runs as nobody.

set -euo pipefail
source=${1:?SOURCE, an unpacked source of PostgreSQL}
root=$(cd "$(dirname "$0")/.." && pwd)
major=$(basename "$source" | sed 's/^postgresql-\([0-9]*\).*/\1/')
bin=${BIN:-/usr/lib/postgresql/$major/bin}
bkp=${BKP:-${CARGO_TARGET_DIR:-$root/target}/release/bkp}
regress=$(cd "$source/src/test/regress" && pwd)

work=$(mktemp -d /tmp/bkp-regression-XXXXXX)
as() { "$@"; }
if [ "$(id -u)" = 0 ]; then
    chown nobody "$work"
    as() { setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME="$work" "$@"; }
fi
chmod 755 "$work"
stop() {
    as "$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap stop EXIT
say() { printf 'regression: %s\n' "$*"; }

export PGHOST=$work PGPORT=5432 PGUSER=postgres PGDATABASE=postgres PGTZ=PST8PDT PGDATESTYLE='Postgres, MDY' LC_ALL=C
as "$bin/initdb" -D "$work/data" -U postgres -A trust -N --no-locale -E UTF8 >/dev/null
as "$bin/pg_ctl" -D "$work/data" -w -l "$work/log" start \
    -o "-c listen_addresses= -c unix_socket_directories=$work -c fsync=off -c max_prepared_transactions=2" >/dev/null
psql() { as "$bin/psql" -X -q "$@"; }

psql -c 'create database regression template template0' -c 'alter database regression set bytea_output = hex'
export PG_ABS_SRCDIR=$regress PG_ABS_BUILDDIR=$regress PG_LIBDIR=$("$bin/pg_config" --pkglibdir 2>/dev/null || true) PG_DLSUFFIX=.so
count=0
for name in $(sed -n 's/^test: //p' "$regress/parallel_schedule"); do
    case $name in
    # These make and drop what other databases see, too.
    tablespace | dbsize) continue ;;
    esac
    (cd "$regress" && psql -d regression -a -f "sql/$name.sql" >"/dev/null" 2>&1) || true
    count=$((count + 1))
done
objects=$(psql -At -d regression -c "select count(*) from pg_class where oid >= 16384")
say "$count tests left $objects relations of PostgreSQL $major"

describe() { as "$bin/pg_dump" -d "$1" | sed '/^\\\(un\)\?restrict /d'; }
psql -c 'create database reference template template0'
as "$bin/pg_dump" -Fc -Z0 -d regression -f "$work/reference.dump"
as "$bin/pg_restore" --exit-on-error -d reference "$work/reference.dump"

as mkdir "$work/store"
as tee "$work/bkp.toml" >/dev/null <<TOML
state_dir = "$work/state"
[store.main]
url = "file://$work/store"
[keys]
recipients = ["file:$work/key"]
[tools]
postgres = "$bin"
[source.pg]
kind = "postgres"
conninfo = "host=$work user=postgres"
databases = ["regression"]
TOML
as chmod 600 "$work/bkp.toml"
# The build folder may be one that only its owner reads.
cp "$bkp" "${DUCKDB_LIB_DIR:-${CARGO_TARGET_DIR:-$root/target}/tools/duckdb}/libduckdb.so" "$work/"
run() { as env LD_LIBRARY_PATH="$work" "$work/$(basename "$bkp")" --config "$work/bkp.toml" "$@"; }
run keys generate
run export pg
run restore pg --from-export --yes --to "postgresql://postgres@/restored?host=$work"
run verify --latest pg --from-export --level drill

# Rows have no order of their own: where pages have room decides it.
describe reference | LC_ALL=C sort >"$work/reference.sql"
describe restored | LC_ALL=C sort >"$work/restored.sql"
if ! diff "$work/reference.sql" "$work/restored.sql" >"$work/differences"; then
    head -40 "$work/differences"
    say "FAILED: what bkp restored is not what pg_restore restored"
    exit 1
fi
say "equal: $(wc -l <"$work/restored.sql") lines of pg_dump, $(wc -c <"$work/restored.sql") bytes"
