"""Measures how often a streaming standby returns wrong bytes while its replay lags or is paused.

A standby is a second Postgres that replays the WAL (the log of changes) of the first Postgres, the
primary. `pg_basebackup` makes the standby. Each read runs the SQL statement by which the realm
server reads a file that isn't in its caches. The script tries three rules while the standby
replays, and again while the replay is paused:

- ask only the standby;
- when the read begins, ask the primary for its LSN, a position in the WAL; ask the standby for the
  file if the standby has replayed the WAL up to this LSN, and otherwise ask the primary;
- for a pinned read, which names one generation of the realm, ask the standby; use the standby's
  answer if the standby has this generation, and otherwise ask the primary.

An answer is wrong if its bytes differ from the bytes that the primary had committed when the read
began.
"""

import argparse
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

from bench.fleet.figures import say, shares, table, timed
from bench.fleet.installation import ORIGIN, installation
from bench.fleet.postgres import Server, free_port, scratch

SOURCE = f"{ORIGIN}/ada/bench/"
WRITTEN: LiteralString = "SELECT pg_current_wal_lsn()"
REPLAYED: LiteralString = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="five changes")
    options = parser.parse_args()
    if options.quick:
        options.changes = 5
    say(str(__doc__))
    with scratch("wal_level=replica") as server, installation(server), standby(server) as other:
        measure(server, other, options.changes)
    return 0


@contextmanager
def standby(server: Server) -> Iterator[Server]:
    """Runs a streaming standby of `server`. Stops and removes the standby after the block."""
    folder = server.folder.parent / "standby"
    server.run(
        "pg_basebackup", "-D", str(folder), "-R", "-X", "stream", "-c", "fast",
        "-d", f"host=127.0.0.1 port={server.port} user=postgres",
    )  # fmt: skip
    made = Server(free_port(), folder, server.binaries, server.user)
    made.start(("hot_standby=on",))
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


@dataclass
class Reads:
    """Reads a file from the standby (`replica`) or from the primary. The methods `anything`,
    `by_lsn` and `pinned` follow the three rules of this module's docstring, in the same order. Each
    of the three methods returns the file's bytes, and True if the bytes come from the standby."""

    primary: Any
    replica: Any
    #: The generation that a pinned read names. It is committed before the read begins, as in the
    #: pinned reads of the realm server.
    pin: int

    def primary_lsn(self) -> str:
        """Returns the position up to which the primary has written the WAL. A transaction's commit
        is in the WAL before other sessions see the transaction's changes. So a standby that has
        replayed the WAL up to this position has every change that was visible on the primary."""
        return str(self.primary.execute(WRITTEN).fetchone()[0])

    def replayed(self, lsn: str) -> bool:
        return bool(self.replica.execute(REPLAYED, [lsn]).fetchone()[0])

    def at(self, connection: Any, generation: int | None = None) -> tuple[int, bytes]:
        """Reads the file moving.txt over a connection, as of `generation`, by default as of the
        realm's current generation. Returns the realm's current generation and the file's bytes;
        (0, b"") if the realm doesn't exist."""
        from realms import sql

        row = connection.execute(
            sql.RESOLVE,
            {
                "candidates": [SOURCE], "url": f"{SOURCE}moving.txt", "extensions": [""],
                "known": None, "at": generation,
            },
        ).fetchone()  # fmt: skip
        return (row[3], bytes(row[12] or b"")) if row else (0, b"")

    def anything(self) -> tuple[bytes, bool]:
        return self.at(self.replica)[1], True

    def by_lsn(self) -> tuple[bytes, bool]:
        there = self.replayed(self.primary_lsn())
        return self.at(self.replica if there else self.primary)[1], there

    def pinned(self) -> tuple[bytes, bool]:
        generation, data = self.at(self.replica, self.pin)
        if generation >= self.pin:
            return data, True
        return self.at(self.primary, self.pin)[1], False


def measure(server: Server, other: Server, changes: int) -> None:
    from tests.support import make

    realm = make.source(SOURCE, make.user("ada"), {"moving.txt": b"0"})
    with server.connect() as primary, other.connect() as replica:
        reads = Reads(primary, replica, realm.generation)
        rows = []
        for lag in ("streaming", "paused"):
            if lag == "paused":
                replica.execute("SELECT pg_wal_replay_pause()")
            for name, rule in (
                ("whatever it has", reads.anything), ("by LSN", reads.by_lsn),
                ("pinned, by generation", reads.pinned),
            ):  # fmt: skip
                found: list[tuple[bool, bool]] = []
                taken: list[float] = []
                for number in range(changes):
                    data = f"{lag} {name} {number}".encode()
                    reads.pin = make.write_paths(realm, {"moving.txt": data})
                    began = time.perf_counter()
                    read, there = rule()
                    taken.append(time.perf_counter() - began)
                    found.append((read != data, there))
                wrong, used = (sum(each) for each in zip(*found, strict=True))
                rows.append(
                    (lag, name, f"{wrong} of {changes}", f"{used} of {changes}",
                     shares(taken, digits=2))
                )  # fmt: skip
        replica.execute("SELECT pg_wal_replay_resume()")
        _catch_up(reads)
        asked = timed(reads.primary_lsn, 10 * changes)
        resolved = timed(lambda: reads.at(primary), 10 * changes)
    table(
        f"{changes} reads for each row, each right after a commit",
        ("standby", "rule", "wrong bytes", "answered by the standby", "p50 / p99 / highest ms"),
        rows,
    )
    say(
        "times on the primary, p50 / p99 / highest ms: asking for the LSN "
        f"{shares(asked, digits=2)}; reading the file {shares(resolved, digits=2)}"
    )


def _catch_up(reads: Reads) -> None:
    written, deadline = reads.primary_lsn(), time.monotonic() + 60
    while not reads.replayed(written):
        if time.monotonic() > deadline:
            raise TimeoutError("the standby has not caught up within a minute")
        time.sleep(0.01)
