#!/usr/bin/env bash
# How long the commits of a database's owner take, with and without bkp at work on it.
#
# One process of the Python package duckdb, which knows nothing of bkp, makes the same commits in every
# run: each inserts ten rows, updates a hundred and deletes some; every 50th is followed by a
# checkpoint. Beside it runs nothing, or `bkp snapshot` of its file (full ones, or incremental ones), or
# `bkp export`, again and again without a pause. All of that alternates, so that a busy machine is
# equally unkind to every row. The commits of all rounds count together.
#
# Store and database are on one disk, and commits wait for that disk: some of what they wait for is
# what bkp writes. Everything is in `bench` in the build folder, which is removed at the end.

set -euo pipefail

usage() {
    cat <<'END_OF_TEXT'
Usage: benches/duckdb-latency.sh [--rounds N] [--rows N] [--commits N]

  --rounds N         how often each row is measured (default 3)
  --rows N           rows of the database, 60 bytes each (default 2000000)
  --commits N        commits in each measurement (default 2000)
  --help             this text
END_OF_TEXT
}

rounds=3 rows=2000000 commits=2000
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=${2:?} && shift 2 ;;
    --rows) rows=${2:?} && shift 2 ;;
    --commits) commits=${2:?} && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

say() { printf 'duckdb-latency: %s\n' "$*"; }

cd "$(dirname "$0")/.."
# shellcheck source=benches/analytics.sh
. benches/analytics.sh

say "a database of $rows rows, $commits commits in each of $rounds rounds"
"$python" - "$work/a.duckdb" "$program" "$rounds" "$rows" "$commits" <<'END'
import subprocess
import sys
import threading
import time

import duckdb

path, program = sys.argv[1:3]
rounds, rows, commits = map(int, sys.argv[3:])
LOADS = {
    "nothing": None,
    "`bkp snapshot --scope full`": ["snapshot", "analytics", "--scope", "full", "-q"],
    "`bkp snapshot --scope incremental`": ["snapshot", "analytics", "--scope", "incremental", "-q"],
    "`bkp export`": ["export", "analytics", "-q"],
}


class Load(threading.Thread):
    """Runs bkp again and again until it is told to end."""

    def __init__(self, words):
        super().__init__()
        self.words, self.done, self.runs, self.failed = words, threading.Event(), 0, 0

    def run(self):
        while self.words and not self.done.is_set():
            run = subprocess.run([program, *self.words], stdout=subprocess.DEVNULL)
            self.runs, self.failed = self.runs + 1, self.failed + (run.returncode != 0)


def measure(run, number):
    """The times of all commits, seconds."""
    times = []
    for k in range(commits):
        at = (k * 7919 + number) % rows
        began = time.monotonic()
        run("BEGIN")
        run("INSERT INTO t SELECT ? + range, now()::TIMESTAMP, md5(range::VARCHAR), 0.5 FROM range(10)", [rows + 10 * k])
        run("UPDATE t SET x = x + 1 WHERE id BETWEEN ? AND ?", [at, at + 99])
        run("DELETE FROM t WHERE id BETWEEN ? AND ?", [rows + 10 * (k - 100), rows + 10 * (k - 100) + 9])
        run("COMMIT")
        times.append(time.monotonic() - began)
        if k % 50 == 49:
            run("CHECKPOINT")
    run("DELETE FROM t WHERE id >= ?", [rows])
    return times


connection = duckdb.connect(path)
connection.execute("SET threads = 1")
connection.execute("CREATE TABLE t AS SELECT range::BIGINT id, TIMESTAMP '2026-01-01' + to_seconds(range) moment, md5(range::VARCHAR) s, random() x FROM range(?)", [rows])
connection.execute("CHECKPOINT")
subprocess.run([program, "snapshot", "analytics", "-q"], check=True, stdout=subprocess.DEVNULL)
found = {name: ([], []) for name in LOADS}
for number in range(rounds):
    for name, words in LOADS.items():
        load = Load(words)
        load.start()
        times = measure(connection.execute, number)
        load.done.set()
        load.join()
        assert load.failed == 0, f"{load.failed} of {load.runs} runs of {name} failed"
        found[name][0].extend(times)
        found[name][1].append(load.runs)
print("\n| beside it | its runs | commits | median | 99 % | longest |\n| --- | ---: | ---: | ---: | ---: | ---: |")
for name, (times, runs) in found.items():
    times.sort()
    at = lambda part: f"{1000 * times[min(int(len(times) * part), len(times) - 1)]:.1f} ms"
    print(f"| {name} | {sum(runs)} | {len(times)} | {at(0.5)} | {at(0.99)} | {at(1)} |")
END
