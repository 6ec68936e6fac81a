"""A DuckDB of its own version, independent of bkp: writes, breaks off, and judges databases.

    engine.py write FILE STORAGE ROWS    commits until standard input ends; FILE.committed says how
                                         many, FILE.failed whatever DuckDB raised
    engine.py check FILE FROM TO         judges a database that `write` wrote: it must hold commit
                                         number FROM to TO; prints the number
    engine.py sql FILE SQL...            runs statements, prints the rows of the last one as JSON
    engine.py abandon FILE SQL...        runs statements and dies without closing the database
    engine.py dump FILE                  prints all there is in a database, schema and rows, as JSON
    engine.py types FILE                 makes a table for each type there is; prints their number
    engine.py naive FILE COPY            copies a live database as `cp` would if the file were large
    engine.py hold FILE                  has the database open until standard input ends
"""

import json
import os
import random
import select
import signal
import sys

import duckdb

CHECKS = [
    # One row of the sequence, and the ledgers hold each of its numbers once.
    "SELECT count(*) = 1 FROM seq",
    "SELECT count(*) = max(k) AND count(DISTINCT k) = max(k) AND max(k) = (SELECT k FROM seq) FROM led_a",
    "SELECT count(*) = max(k) AND count(DISTINCT k) = max(k) AND max(k) = (SELECT k FROM seq) FROM led_b",
    # Money moves and is never made.
    "SELECT sum(bal) = 5000 * 1000 AND count(*) = 5000 FROM acc",
    # Each commit wrote as many rows as it says, deletions included.
    "SELECT count(*) = 0 FROM led_a l FULL JOIN (SELECT k, count(*) n FROM big GROUP BY k) b USING (k)"
    " WHERE coalesce(l.n, 0) <> coalesce(b.n, 0)",
    "SELECT count(*) = 0 FROM big WHERE s <> md5(i::VARCHAR)",
    "SELECT count(*) = 0 FROM base WHERE s <> md5(i::VARCHAR) OR r <> (i * 2654435761) % 4294967296",
    # Rows without a key, some of them twice.
    "SELECT count(*) = 2 * (SELECT k FROM seq) FROM twice",
    # The index finds what the table has.
    "SELECT count(*) = 1 FROM led_b WHERE k = (SELECT k FROM seq)",
]


def attach(path, storage):
    connection = duckdb.connect()
    connection.execute(f"ATTACH '{path}' AS d (STORAGE_VERSION '{storage}')")
    connection.execute("USE d")
    connection.execute("SET threads = 1")
    return connection


def begin(connection, rows):
    for statement in [
        "CREATE TABLE seq AS SELECT 0::BIGINT k",
        "CREATE TABLE acc AS SELECT range id, 1000::BIGINT bal FROM range(5000)",
        "CREATE TABLE led_a (k BIGINT, n BIGINT)",
        "CREATE TABLE led_b (k BIGINT PRIMARY KEY, s VARCHAR)",
        "CREATE TABLE big (k BIGINT, i BIGINT, s VARCHAR)",
        "CREATE TABLE twice (k BIGINT)",
        f"CREATE TABLE base AS SELECT range i, (range * 2654435761) % 4294967296 r, md5(range::VARCHAR) s FROM range({rows})",
        "CREATE TABLE shape0 AS SELECT 0 k",
        "CHECKPOINT",
    ]:
        connection.execute(statement)


def commit(connection, k):
    rows = random.choice([1, 10, 200])
    at = random.randrange(4000)
    run = connection.execute
    run("BEGIN")
    run("INSERT INTO led_a VALUES (?, ?)", [k, rows])
    run("INSERT INTO led_b VALUES (?, ?)", [k, str(k) * 5])
    run("INSERT INTO twice VALUES (?), (?)", [k, k])
    run("UPDATE acc SET bal = bal - 7 WHERE id BETWEEN ? AND ?", [at, at + 99])
    run("UPDATE acc SET bal = bal + 700 WHERE id = ?", [(at + 777) % 5000])
    run("INSERT INTO big SELECT ?, range, md5(range::VARCHAR) FROM range(?)", [k, rows])
    run("UPDATE seq SET k = ?", [k])
    if k % 15 == 0:
        run("DELETE FROM big WHERE k < ?", [k - 40])
        run("UPDATE led_a SET n = 0 WHERE k < ?", [k - 40])
    if k % 7 == 0:
        run(f"CREATE OR REPLACE TABLE shape{k % 3} AS SELECT range i, {k} k FROM range(5000)")
        run(f"ALTER TABLE shape{k % 3} ADD COLUMN s VARCHAR DEFAULT 'x'")
    run("COMMIT")
    if k % 4 == 0:
        run("CHECKPOINT")


def write(path, storage, rows):
    random.seed(1)
    connection = attach(path, storage)
    connection.execute("SET wal_autocheckpoint = '64KB'")
    begin(connection, rows)
    with open(path + ".committed", "w") as committed:
        k = 0
        while not select.select([sys.stdin], [], [], 0)[0]:
            k += 1
            try:
                commit(connection, k)
            except duckdb.Error as error:
                with open(path + ".failed", "a") as failed:
                    failed.write(f"{error}\n")
                raise
            committed.seek(0)
            committed.write(str(k).ljust(20))
            committed.flush()


def check(path, low, high):
    connection = duckdb.connect(path)
    (k,) = connection.execute("SELECT k FROM seq").fetchone()
    if not low <= k <= high:
        sys.exit(f"commit {k} is not within {low} and {high}")
    for statement in CHECKS if k else []:
        if connection.execute(statement).fetchone() != (True,):
            sys.exit(f"at commit {k}: {statement}")
    for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
        connection.execute(f'SELECT bit_xor(hash(*COLUMNS(*))) FROM "{name}"').fetchall()
    connection.execute("CHECKPOINT")
    print(k)


def sql(path, statements):
    connection = duckdb.connect(path)
    for statement in statements:
        rows = connection.execute(statement).fetchall()
    return rows


DUMPED = [
    "SELECT schema_name, type_name, typeof(NULL), labels, comment FROM duckdb_types() WHERE NOT internal ORDER BY ALL",
    "SELECT schema_name, sequence_name, sql, comment FROM duckdb_sequences() ORDER BY ALL",
    "SELECT schema_name, view_name, sql, comment FROM duckdb_views() WHERE NOT internal ORDER BY ALL",
    "SELECT schema_name, index_name, sql, comment FROM duckdb_indexes() ORDER BY ALL",
    "SELECT schema_name, function_name, parameters, macro_definition, comment FROM duckdb_functions() WHERE NOT internal ORDER BY ALL",
    "SELECT schema_name, table_name, sql, comment FROM duckdb_tables() ORDER BY ALL",
    "SELECT schema_name, table_name, column_name, data_type, column_default, comment FROM duckdb_columns() WHERE NOT internal ORDER BY ALL",
    "SELECT schema_name, table_name, constraint_type, constraint_column_names, referenced_table, referenced_column_names FROM duckdb_constraints() ORDER BY ALL",
]


def dump(path):
    connection = duckdb.connect(path, read_only=True)
    connection.execute("SET TimeZone = 'UTC'")
    found = [connection.execute(query).fetchall() for query in DUMPED]
    for schema, table, *_ in found[5]:
        name = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, table))
        # The text of a value does not show nulls in it, the option of a union, the type in a variant.
        rows = connection.execute(f"SELECT COLUMNS(*)::VARCHAR, hash(COLUMNS(*))::VARCHAR FROM {name}")
        found.append([schema, table, sorted(rows.fetchall(), key=str)])
    return found


# Values that are hard to carry; types that this engine does not have are left out.
VALUES = [
    "true", "(-128)::TINYINT", "255::UTINYINT", "(-32768)::SMALLINT", "65535::USMALLINT",
    "(-2147483648)::INT", "4294967295::UINTEGER", "(-9223372036854775808)::BIGINT",
    "18446744073709551615::UBIGINT", "170141183460469231731687303715884105727::HUGEINT",
    "170141183460469231731687303715884105::HUGEINT",
    "340282366920938463463374607431768211455::UHUGEINT", "3.4e38::FLOAT", "0.1::DOUBLE",
    "'nan'::DOUBLE", "'-inf'::DOUBLE", "'-0.0'::DOUBLE", "1.5::DECIMAL(4,1)",
    "123456789012345.678::DECIMAL(18,3)", "99999999999999999999999999999999999999::DECIMAL(38,0)",
    "'0.12345678901234567890123456789012345678'::DECIMAL(38,38)", "DATE '2024-02-29'",
    "'infinity'::DATE", "'0044-03-15 (BC)'::DATE", "TIME '23:59:59.999999'", "TIME '24:00:00'",
    "'23:59:59.123456+05:30'::TIMETZ", "'23:59:59.123456789'::TIME_NS",
    "TIMESTAMP '2024-01-01 00:00:00.123456'", "'infinity'::TIMESTAMP",
    "'2024-01-01 00:00:00'::TIMESTAMP_S", "'infinity'::TIMESTAMP_S", "'2024-01-01 00:00:00.123'::TIMESTAMP_MS",
    "'2024-01-01 00:00:00.123456789'::TIMESTAMP_NS",
    "'2024-01-01 00:00:00.123456+02'::TIMESTAMPTZ", "'-infinity'::TIMESTAMPTZ",
    "INTERVAL '1 month 2 days 3.123456 seconds'", "INTERVAL '1 millisecond'",
    "INTERVAL '-5 months 3 days'", "INTERVAL '1 microsecond'",
    "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::UUID", "'\\x00\\xFF'::BLOB", "'0101011'::BIT",
    "'h\u00e9\U0001f600'", "'a' || chr(0) || 'b'", "''", "'b'::ENUM('a', 'b')",
    "'{\"a\": 1}'::JSON", "'-99999999999999999999999999999999999999999999999999'::BIGNUM",
    "[1, NULL, 3]", "[[1], [], NULL]", "[]::INT[]", "[1, 2, 3]::INT[3]", "['a', NULL]::VARCHAR[2]",
    "{'a': 1, 'b': 'x', 'c': [{'d': DATE '2020-01-01'}]}", "{'a b': 1, '\"q': 2}",
    "MAP {'k': 1, 'l': NULL}", "MAP {[1]: {'x': 'y'}}",
    "union_value(i := 1)::UNION(i INT, s VARCHAR)", "union_value(s := 'x')::UNION(i INT, s VARCHAR)",
    "['b']::ENUM('a', 'b')[]", "[340282366920938463463374607431768211455::UHUGEINT]",
    "{'b': '01'::BIT}", "[INTERVAL '-1 month 1 microsecond']", "{'INTERVAL': INTERVAL '-2 days'}",
    "MAP {'k': '10:00:00+05'::TIMETZ}", "union_value(v := INTERVAL '-1 day')::UNION(v INTERVAL, i INT)",
    "[TIME '01:02:03']", "42::VARIANT", "{'a': [1, 'x']}::VARIANT", "NULL",
]


def types(path):
    connection = duckdb.connect(path)
    made = 0
    for number, value in enumerate(VALUES):
        try:
            connection.execute(f"CREATE TABLE t{number} AS SELECT {value} AS v")
        except duckdb.Error:
            continue
        connection.execute(f"INSERT INTO t{number} VALUES (NULL)")
        made += 1
    return made


def naive(path, copy):
    """Copies the file while some checkpoints go on, and then its log."""
    committed = path + ".committed"
    size = os.path.getsize(path)
    with open(path, "rb") as source, open(copy, "wb") as target:
        while block := source.read(max(size // 8, 1)):
            target.write(block)
            before = int(open(committed).read() or 0)
            while int(open(committed).read() or 0) < before + 5:
                pass
    try:
        with open(path + ".wal", "rb") as source, open(copy + ".wal", "wb") as target:
            target.write(source.read())
    except FileNotFoundError:
        pass


mode, path, *rest = sys.argv[1:]
if mode == "write":
    write(path, rest[0], int(rest[1]))
elif mode == "check":
    check(path, int(rest[0]), int(rest[1]))
elif mode == "sql":
    print(json.dumps(sql(path, rest), default=str))
elif mode == "dump":
    print(json.dumps(dump(path), default=str))
elif mode == "types":
    print(types(path))
elif mode == "naive":
    naive(path, rest[0])
elif mode == "abandon":
    connection = duckdb.connect(path)
    for statement in rest:
        connection.execute(statement)
    os.kill(os.getpid(), signal.SIGKILL)
elif mode == "hold":
    connection = duckdb.connect(path)
    print("open", flush=True)
    sys.stdin.read()
