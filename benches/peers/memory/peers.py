"""Peers of the memory benchmark: SQLite's FTS5 with sqlite-vec, and a numpy scan, over the texts and vectors that it wrote.

`pip install numpy sqlite-vec apsw`, then give the interpreter to the benchmark as `--python`. It calls
`peers.py FOLDER DIMENSIONS`, where FOLDER has texts.txt and queries.txt (one a line), vectors.f32 and needles.f32.
"""

import os
import sys
import time

import apsw
import numpy
import sqlite_vec

folder, dimensions = sys.argv[1], int(sys.argv[2])


def lines(name):
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return file.read().splitlines()


def matrix(name):
    return numpy.fromfile(os.path.join(folder, name), dtype="<f4").reshape(-1, dimensions)


def say(what, wall, cpu):
    at = lambda times, part: sorted(times)[int((len(times) - 1) * part)] / 1e6
    print(
        f"{what:44} p50 {at(wall, .5):.3f} ms, p99 {at(wall, .99):.3f} ms; "
        f"of the thread p50 {at(cpu, .5):.3f} ms, p99 {at(cpu, .99):.3f} ms"
    )


def timed(what, search, queries):
    wall, cpu = [], []
    for query in queries:
        began, began_cpu = time.perf_counter_ns(), time.thread_time_ns()
        search(query)
        wall.append(time.perf_counter_ns() - began)
        cpu.append(time.thread_time_ns() - began_cpu)
    say(what, wall, cpu)


texts, queries = lines("texts.txt"), lines("queries.txt")
vectors, needles = matrix("vectors.f32"), matrix("needles.f32")
vectors /= numpy.linalg.norm(vectors, axis=1, keepdims=True)

db = apsw.Connection(os.path.join(folder, "peers.sqlite"))
db.enable_load_extension(True)
db.load_extension(sqlite_vec.loadable_path())
db.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
db.execute("CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='porter unicode61')")
db.execute(f"CREATE VIRTUAL TABLE meanings USING vec0(vector float[{dimensions}] distance_metric=cosine)")
began = time.perf_counter()
with db:
    db.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", enumerate(texts))
    db.executemany("INSERT INTO meanings (rowid, vector) VALUES (?, ?)", ((at, row.tobytes()) for at, row in enumerate(vectors)))
spent = time.perf_counter() - began
print(f"peer: {len(texts)} texts and vectors into FTS5 and sqlite-vec in {spent:.1f} s, {len(texts) / spent:.0f} a second")
db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
print(f"peer: {os.path.getsize(os.path.join(folder, 'peers.sqlite')) // len(texts)} bytes on disk each, without the texts")

BY_WORDS = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?"
BY_MEANING = "SELECT rowid FROM meanings WHERE vector MATCH ? AND k = ?"
by_words = lambda text, most: db.execute(BY_WORDS, (" OR ".join(text.split()), most)).fetchall()
by_meaning = lambda needle, most: db.execute(BY_MEANING, (needle.tobytes(), most)).fetchall()


def both(query):
    """Reciprocal ranks of a hundred each, as the documentation of sqlite-vec does it."""
    text, needle = query
    scores = {}
    for found in (by_words(text, 100), by_meaning(needle, 100)):
        for rank, (row,) in enumerate(found):
            scores[row] = scores.get(row, 0) + 1 / (60 + rank)
    return sorted(scores, key=scores.get, reverse=True)[:10]


def scan(needle):
    near = vectors @ needle
    return numpy.argpartition(near, -10)[-10:]


timed("peer: FTS5, words only", lambda text: by_words(text, 10), queries)
timed("peer: sqlite-vec, meaning only", lambda needle: by_meaning(needle, 10), needles)
timed("peer: FTS5 and sqlite-vec, both", both, list(zip(queries, needles)))
timed("peer: numpy, a scan of all vectors", scan, needles)
