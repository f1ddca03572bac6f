"""Measures a manifest of millions of file versions, whole and partitioned by realm.

The manifest is the table `realms_fileversion`. Its rows are file versions. A file version says
which content a file has from one generation of its realm to another. A closed version is one that a
later write or deletion has ended. A blob is the content itself.

The project's migrations make the tables, and the project's own functions are measured. The SQL
statements of this module insert the rows, with triggers off. Neighbouring rows belong to different
realms, as after writes to all realms in turn. A fifth of the rows are closed versions. All blobs
are small, and ten rows refer to each blob. The measurements end with a garbage collection.

After that, the remaining rows are copied to a table that is partitioned by a hash of the realm, and
the original table is dropped. The partitioned table has the same columns, indexes and triggers as
the original table, with two exceptions. Its primary key consists of the realm and the id, and it
has an additional index on the id. Finally the measurements are repeated on the partitioned table.
"""

import argparse
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, LiteralString

import psutil
from psycopg.sql import SQL, Identifier, Literal

from bench.fleet.figures import say, shares, spread, table, timed
from bench.fleet.installation import ORIGIN, installation
from bench.fleet.postgres import scratch

#: The share of a realm's rows that are closed versions.
CLOSED = 0.2
#: The number of publications of each published realm. A publication says which generation of the
#: source realm the published realm shows.
KEPT = 12

REALMS: LiteralString = """
INSERT INTO realms_realm (id, url, kind, generation, history_from, file_count, byte_count,
    publishable, created_at, owner_id)
SELECT md5(n::text)::uuid, %(origin)s || '/ada/r' || n || '/', 'source', 100000, 0, 0, 0, true,
    now(), %(owner)s FROM generate_series(1, %(realms)s) n
"""
PUBLISHED: LiteralString = """
INSERT INTO realms_realm (id, url, kind, generation, history_from, file_count, byte_count,
    publishable, created_at, owner_id, source_id)
SELECT md5('p' || n)::uuid, 'http://s' || n || '.localhost:4201/', 'published', %(kept)s, 0, 0, 0,
    false, now(), %(owner)s, md5(n::text)::uuid FROM generate_series(1, %(realms)s) n
"""
PUBLICATIONS: LiteralString = """
INSERT INTO realms_publication (realm_id, generation, source_id, source_generation, by, at)
SELECT md5('p' || n)::uuid, g, md5(n::text)::uuid, 90000 + 500 * g, 'ada',
    now() - make_interval(days => 40 - g)
FROM generate_series(1, %(realms)s) n, generate_series(1, %(kept)s) g
"""
RIGHTS: LiteralString = """
INSERT INTO realms_realmpermission (realm_id, audience, read, write, realm_owner)
SELECT id, 'everyone', true, false, false FROM realms_realm WHERE url <> %(origin)s || '/base/'
"""
OWNED: LiteralString = """
INSERT INTO realms_realmpermission (realm_id, account_id, read, write, realm_owner)
SELECT id, owner_id, true, true, true FROM realms_realm WHERE owner_id = %(owner)s
"""
BLOBS: LiteralString = """
INSERT INTO realms_blob (sha256, size, data, stored_at)
SELECT encode(sha256(n::text::bytea), 'hex'), 300, convert_to(repeat(md5(n::text), 9), 'UTF8'),
    now() - interval '30 days' FROM generate_series(0, %(blobs)s - 1) n
"""
#: Inserts the file versions of all source realms. The parameter `each` is the number of rows of one
#: realm, and the parameter `closed` says how many of these are closed versions. Every path has one
#: row for its current version. The paths with a number below `closed` have a second row, the closed
#: version. Half of the closed versions end at generation 50,000, before any generation that
#: PUBLICATIONS shows. The other half end between two generations that PUBLICATIONS shows.
VERSIONS: LiteralString = """
INSERT INTO realms_fileversion (realm_id, path, sha256, size, created_at, modified_at,
    from_generation, until_generation, closed_at)
SELECT md5((1 + i %% %(realms)s)::text)::uuid, 'posts/2026/' || path || '/index.json',
    encode(sha256((i %% %(blobs)s)::text::bytea), 'hex'), 300, now(), now(),
    CASE WHEN place < %(closed)s OR path >= %(closed)s THEN 1 + path ELSE until END,
    CASE WHEN place < %(closed)s THEN until END,
    CASE WHEN place < %(closed)s THEN now() - interval '20 days' END
FROM generate_series(0, %(realms)s::bigint * %(each)s - 1) i,
    LATERAL (SELECT i / %(realms)s AS place) p,
    LATERAL (
        SELECT CASE WHEN place < %(closed)s THEN place ELSE place - %(closed)s END AS path
    ) q,
    -- PUBLICATIONS shows generations from 90500 on, so none shows a version that ends at 50000.
    LATERAL (SELECT CASE WHEN path %% 2 = 0 THEN 50000 ELSE 92000 + path %% 4000 END AS until) u
"""
INDEXES: LiteralString = """
SELECT i.relname, pg_get_indexdef(i.oid), c.conname, pg_get_constraintdef(c.oid)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
LEFT JOIN pg_constraint c ON c.conindid = i.oid AND c.contype IN ('p', 'u')
WHERE x.indrelid = 'realms_fileversion'::regclass ORDER BY 1
"""
TRIGGERS: LiteralString = """
SELECT pg_get_triggerdef(oid) FROM pg_trigger
WHERE tgrelid = 'realms_fileversion'::regclass AND NOT tgisinternal
"""
SIZES: LiteralString = """
SELECT sum(pg_table_size(t.oid))::bigint, sum(pg_indexes_size(t.oid))::bigint
FROM pg_class t WHERE t.relkind = 'r' AND (t.relname = %(name)s OR t.oid IN (
    SELECT inhrelid FROM pg_inherits WHERE inhparent = %(name)s::regclass
))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--realms", type=int, default=1000)
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--reads", type=int, default=3000)
    parser.add_argument("--repeat", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="20,000 rows, few reads")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.realms, options.reads, options.repeat = 20_000, 20, 50, 3
    say(str(__doc__))
    with scratch("maintenance_work_mem=1GB", "max_parallel_maintenance_workers=2") as server, (
        installation(server)
    ):  # fmt: skip
        filled = _timed_once(lambda: fill(options))
        say(f"{options.rows:,} rows over {options.realms:,} realms, inserted in {filled:.0f} s")
        found = {"one table": measure(options)}
        _print(found)
        moved = _timed_once(lambda: partition(options.partitions))
        say(f"copied to {options.partitions} partitions in {moved:.0f} s")
        found[f"{options.partitions} partitions"] = measure(options)
    _print(found)
    return 0


def _print(found: dict[str, dict[str, str]]) -> None:
    rows = [(what, *(each[what] for each in found.values())) for what in next(iter(found.values()))]
    table("p50 / p99 / highest, in ms, unless a row says otherwise", ("", *found), rows)


# --- The rows ----------------------------------------------------------------------------------


def fill(options: argparse.Namespace) -> None:
    """Inserts all rows. Drops the indexes of the manifest before it inserts the file versions, and
    creates the indexes again afterwards, because this is faster."""
    from django.db import connection

    from tests.support import make

    each = options.rows // options.realms
    parameters = {
        "origin": ORIGIN, "owner": make.user("ada").pk, "realms": options.realms, "kept": KEPT,
        "blobs": max(1, options.rows // 10), "each": each, "closed": int(each * CLOSED),
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        for statement in (REALMS, PUBLISHED, PUBLICATIONS, RIGHTS, OWNED, BLOBS):
            cursor.execute(statement, parameters)
        cursor.execute(INDEXES)
        indexes = cursor.fetchall()
        for name, _, constraint, _ in indexes:
            drop = "ALTER TABLE realms_fileversion DROP CONSTRAINT {}" if constraint else (
                "DROP INDEX {}"
            )  # fmt: skip
            cursor.execute(SQL(drop).format(Identifier(constraint or name)))
        cursor.execute(VERSIONS, parameters)
        for _, definition, constraint, says in indexes:
            add = f'ALTER TABLE realms_fileversion ADD CONSTRAINT "{constraint}" {says}'
            cursor.execute(add if constraint else definition)
        cursor.execute("SET session_replication_role = origin")
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")


def partition(count: int) -> None:
    """Copies the manifest to a table that is partitioned by a hash of the realm, and drops the
    original table. The primary key of the partitioned table includes the realm, because Postgres
    requires the partitioning column in each primary key."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(INDEXES)
        indexes = cursor.fetchall()
        cursor.execute(TRIGGERS)
        triggers = [definition for (definition,) in cursor.fetchall()]
        cursor.execute("ALTER TABLE realms_fileversion RENAME TO realms_fileversion_whole")
        cursor.execute(
            "CREATE TABLE realms_fileversion (LIKE realms_fileversion_whole INCLUDING DEFAULTS"
            " INCLUDING IDENTITY) PARTITION BY HASH (realm_id)"
        )
        for number in range(count):
            cursor.execute(
                SQL(
                    "CREATE TABLE {} PARTITION OF realms_fileversion"
                    " FOR VALUES WITH (MODULUS {}, REMAINDER {})"
                ).format(Identifier(f"part{number}"), Literal(count), Literal(number))
            )
        cursor.execute(
            "INSERT INTO realms_fileversion OVERRIDING SYSTEM VALUE"
            " SELECT * FROM realms_fileversion_whole"
        )
        cursor.execute("DROP TABLE realms_fileversion_whole CASCADE")
        for _, definition, constraint, says in indexes:
            if constraint and says.startswith("PRIMARY KEY"):
                definition = "ALTER TABLE realms_fileversion ADD PRIMARY KEY (realm_id, id)"
            cursor.execute(definition)
        # The garbage collector deletes rows by id. The primary key doesn't help with that, because
        # it begins with the realm.
        cursor.execute("CREATE INDEX version_by_id ON realms_fileversion (id)")
        for definition in triggers:
            cursor.execute(definition)
        cursor.execute(
            "SELECT setval(pg_get_serial_sequence('realms_fileversion', 'id'),"
            " (SELECT max(id) FROM realms_fileversion))"
        )
        cursor.execute("SET session_replication_role = origin")
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")


# --- Measurements ------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> dict[str, str]:
    """Measures reads, writes, publishes and the garbage collection. Returns the figures, as texts,
    by the name of the measurement."""
    from realms.content.history import difference
    from realms.content.resolve import resolve
    from realms.housekeeping.garbage import collect_garbage
    from realms.models import Realm
    from tests.support import make

    chance = random.Random(7)
    each = options.rows // options.realms
    paths = each - int(each * CLOSED)
    realms = options.realms

    def path() -> str:
        return f"posts/2026/{chance.randrange(paths)}/index.json"

    def read(url: Callable[[], str], at: int | None = None) -> Callable[[], object]:
        def once() -> object:
            found = resolve(url(), at=at)
            assert found is not None and (at is not None or found.file is not None)
            return found

        return once

    source = lambda: f"{ORIGIN}/ada/r{chance.randint(1, realms)}/{path()}"  # noqa: E731
    site = lambda: f"http://s{chance.randint(1, realms)}.localhost:4201/{path()}"  # noqa: E731

    def differ() -> object:
        realm = Realm.objects.get(url=f"http://s{chance.randint(1, realms)}.localhost:4201/")
        found = difference(realm, KEPT - 2, KEPT)
        assert found is not None
        return found

    def write() -> object:
        realm = Realm.objects.get(url=f"{ORIGIN}/ada/r{chance.randint(1, realms)}/")
        return make.write_paths(realm, {path(): f"{chance.random()}".encode()})

    def publish() -> object:
        number = chance.randint(1, realms)
        realm = Realm.objects.get(url=f"{ORIGIN}/ada/r{number}/")
        return make.publish(realm, f"http://s{number}.localhost:4201/")

    for warm in (read(source), read(site)):
        timed(warm, options.reads // 4)
    found = {
        "size of the table, of its indexes (GB)": _sizes(),
        "planning of a read by path (ms)": _planning(f"{ORIGIN}/ada/r1/", path()),
        "read a source's file": shares(timed(read(source), options.reads), digits=2),
        "read a published file": shares(timed(read(site), options.reads), digits=2),
        "read as of an old generation": shares(
            timed(read(source, 60_000), options.reads), digits=2
        ),
        "difference of two publications": shares(timed(differ, options.repeat), digits=2),
        "write one file": shares(timed(write, options.repeat), digits=2),
        "publish": shares(timed(publish, options.repeat), digits=2),
    }
    for what, action, repeat in (
        ("read of a source's file", read(source), options.reads),
        ("difference of two publications", differ, options.repeat),
        ("publish", publish, options.repeat),
    ):
        found[f"processor time of Postgres for a {what} (ms)"] = _cpu(action, repeat)
    collected: list[Any] = []
    seconds = _timed_once(lambda: collected.append(collect_garbage(grace=timedelta(days=1))))
    done = collected[0]
    found["collect_garbage (s)"] = f"{seconds:.1f}"
    found["garbage removed"] = f"{done.publications:,} publications, {done.versions:,} versions, " \
        f"{done.blobs:,} blobs"  # fmt: skip
    found["VACUUM of the manifest after collect_garbage (s)"] = f"{_vacuum():.1f}"
    again = [_timed_once(lambda: collect_garbage(grace=timedelta(days=1))) for _ in range(2)]
    found["collect_garbage, nothing to remove (s)"] = spread(again, digits=1)
    return found


def _sizes() -> str:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(SIZES, {"name": "realms_fileversion"})
        heap, indexes = cursor.fetchone()
    return f"{heap / 1e9:.2f}, {indexes / 1e9:.2f}"


def _planning(realm: str, path: str) -> str:
    from django.db import connection

    from realms import sql

    parameters = {
        "candidates": [realm], "url": realm + path, "extensions": [""], "known": None, "at": None,
    }  # fmt: skip
    planned = []
    with connection.cursor() as cursor:
        for _ in range(50):
            cursor.execute("EXPLAIN (SUMMARY, FORMAT JSON) " + sql.RESOLVE, parameters)
            planned.append(cursor.fetchone()[0][0]["Planning Time"])
    return spread(planned)


def _cpu(action: Callable[[], object], repeat: int) -> str:
    """Returns the mean processor time in ms that Postgres spends on one call of `action`. Postgres
    has one process for this connection, and the processor time is that of this process. Other work
    on the machine distorts processor time less than elapsed time."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        process = psutil.Process(cursor.fetchone()[0])
    began = sum(process.cpu_times()[:2])
    timed(action, repeat)
    return f"{1000 * (sum(process.cpu_times()[:2]) - began) / repeat:.2f}"


def _vacuum() -> float:
    from django.db import connection

    with connection.cursor() as cursor:
        return _timed_once(lambda: cursor.execute("VACUUM realms_fileversion"))


def _timed_once(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
