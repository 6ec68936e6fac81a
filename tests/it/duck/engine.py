"""A DuckDB of its own version, independent of bkp: writes, breaks off, and judges databases.

    engine.py write FILE STORAGE ROWS    commits until standard input ends; FILE.committed says how
                                         many, FILE.failed whatever DuckDB raised
    engine.py check FILE FROM TO         judges a database that `write` wrote: it must hold commit
                                         number FROM to TO; prints the number
    engine.py sql FILE SQL...            runs statements, prints the rows of the last one as JSON
    engine.py abandon FILE SQL...        runs statements and dies without closing the database
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


mode, path, *rest = sys.argv[1:]
if mode == "write":
    write(path, rest[0], int(rest[1]))
elif mode == "check":
    check(path, int(rest[0]), int(rest[1]))
elif mode == "sql":
    print(json.dumps(sql(path, rest), default=str))
elif mode == "abandon":
    connection = duckdb.connect(path)
    for statement in rest:
        connection.execute(statement)
    os.kill(os.getpid(), signal.SIGKILL)
elif mode == "hold":
    connection = duckdb.connect(path)
    print("open", flush=True)
    sys.stdin.read()
