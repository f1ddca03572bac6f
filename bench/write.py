"""Measures writes of files over HTTP, and compares them with pgbench on the same database.

All writes go to one replica with two web workers. Each write replaces the content of a file with
2 KB of new text. First one client writes. Then 100 clients write at once, each to a realm of its
own. Then 60 clients write to one realm, although only one transaction at a time can write to a
realm. At the end, one request to `_atomic`, the endpoint for several changes at once, adds 5,000
files.

For each request, pgbench, the benchmark program of Postgres, runs one transaction, which changes
the same rows as the server does. For a single write, the transaction takes the realm's lock,
inserts the new content, raises the realm's generation, closes the row of the file's current
version, inserts a row for the next version, and updates the job that renders the realm. Triggers of
the tables send the notifications. pgbench checks nothing and uses no HTTP, so its rate shows the
most that Postgres can do.
"""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from bench.support.comparing import Bar, Case, WrongBytes, compare
from bench.support.peers import Missing
from bench.support.running import Bench

if TYPE_CHECKING:
    from realms.models import Realm

API = "application/vnd.api+json"
SOURCE = "application/vnd.card+source"
PATH = "page.css"
#: The largest number of pgbench clients. Each client has a connection, and the embedded Postgres
#: accepts only a hundred connections.
PGBENCH_CLIENTS = 80

_WRITE = """
\\set n random(1, 1000000000000)
BEGIN;
SELECT id, url FROM bench_realm WHERE number = {number} \\gset
SELECT pg_advisory_xact_lock(hashtextextended(:url::text, 0));
INSERT INTO realms_blob (sha256, size, data, stored_at)
    SELECT encode(sha256(data), 'hex'), length(data), data, now()
    FROM (SELECT convert_to(repeat('x', 2048) || :n::text, 'UTF8') AS data) made
    ON CONFLICT (sha256) DO UPDATE SET stored_at = now();
UPDATE realms_realm SET generation = generation + 1 WHERE id = :id::uuid RETURNING generation \\gset
UPDATE realms_fileversion SET until_generation = :generation, closed_at = now()
    WHERE realm_id = :id::uuid AND path = 'page.css' AND until_generation IS NULL;
INSERT INTO realms_fileversion
    (realm_id, path, sha256, size, created_at, modified_at, from_generation)
    SELECT :id::uuid, 'page.css',
    encode(sha256(convert_to(repeat('x', 2048) || :n::text, 'UTF8')), 'hex'),
    2048, now(), now(), :generation;
UPDATE reindex_reindexjob SET generation = :generation, due_at = now()
    WHERE realm_url = :url::text AND status = 'queued';
COMMIT;
"""
_ATOMIC = """
\\set n random(1, 1000000000000)
BEGIN;
SELECT id, url FROM bench_realm WHERE number = 0 \\gset
SELECT pg_advisory_xact_lock(hashtextextended(:url::text, 0));
INSERT INTO realms_blob (sha256, size, data, stored_at)
    SELECT encode(sha256(data), 'hex'), length(data), data, now()
    FROM (SELECT convert_to(repeat('x', 200) || :n::text || ' ' || each, 'UTF8') AS data
          FROM generate_series(1, {files}) each) made ORDER BY 1;
UPDATE realms_realm SET generation = generation + 1 WHERE id = :id::uuid RETURNING generation \\gset
INSERT INTO realms_fileversion
    (realm_id, path, sha256, size, created_at, modified_at, from_generation)
    SELECT :id::uuid, 'of-pgbench/' || :n::text || '/' || each || '.txt',
    encode(sha256(convert_to(repeat('x', 200) || :n::text || ' ' || each, 'UTF8')), 'hex'),
    200, now(), now(), :generation FROM generate_series(1, {files}) each;
UPDATE reindex_reindexjob SET generation = :generation, due_at = now()
    WHERE realm_url = :url::text AND status = 'queued';
COMMIT;
"""


def main() -> int:
    bench = Bench("write", __doc__)
    with bench:
        run(bench)
    return bench.finish()


def run(bench: Bench) -> None:
    from tests.support import make
    from tests.support.cluster import cluster

    many, crowd = (10, 6) if bench.quick else (100, 60)
    each = 2 if bench.quick else 10
    files = 200 if bench.quick else 5_000
    realms = []
    for number in range(many):
        owner = make.user(f"author{number}")
        url = f"http://localhost:4201/author{number}/site/"
        realms.append(make.source(url, owner, {PATH: b"0"}))
    _number(realms)
    with cluster(bench.folder, 1) as fleet:
        writers = [Writer(fleet.replicas[0].port, realm) for realm in realms]
        alone, own, same = [writers[0]], writers, [writers[0]] * crowd
        for title, clients, target, times in (
            ("one writer", alone, "0", 10 * each),
            (f"{many} writers, each in a realm of their own", own, ":client_id", each),
            (f"{crowd} writers in one realm", same, "0", each),
        ):
            cases = [Case("HTTP", partial(_per_second, clients, times))]
            cases += _pgbench(bench, _WRITE.format(number=target), len(clients), times)
            _compare(bench, title, cases, "writes/s")
        cases = [Case("HTTP", lambda: 1 / writers[0].atomic(files))]
        cases += _pgbench(bench, _ATOMIC.format(files=files), 1, 1)
        _compare(bench, f"_atomic of {files:,} files", cases, "requests/s")


def _compare(bench: Bench, title: str, cases: Sequence[Case], unit: str) -> None:
    table = compare(
        title, unit=unit, better="higher", runs=bench.runs, cases=cases, reference=cases[-1].name
    )
    bench.add(table)
    if len(cases) > 1:
        bench.judge(
            Bar(
                f"{title}: at least half of pgbench's rate",
                table.ratio("HTTP", cases[-1].name),
                at_least=0.5,
            )
        )


# --- Over HTTP ---------------------------------------------------------------------------------


class Writer:
    """A client that writes to a realm with the login of the realm's owner."""

    _numbers = count(1)

    def __init__(self, port: int, realm: "Realm") -> None:
        from tests.support import make

        assert realm.owner is not None
        self._port, self._realm = port, realm
        self._login = make.realm_login(realm, realm.owner.get_username())

    def write(self, times: int) -> None:
        """Writes one file again and again, with new content each time. `times` is the number of
        writes. Raises WrongBytes unless the server accepts every write."""
        client = self._client()
        for _ in range(times):
            body = b"x" * 2048 + str(next(self._numbers)).encode()
            self._send(client, PATH, SOURCE, body, 204)
        client.close()

    def atomic(self, files: int) -> float:
        """Adds new files in one request, and returns how long the request takes. Unit: seconds.
        `files` is the number of files."""
        number = next(self._numbers)
        operations = [
            {
                "op": "add",
                "href": f"./{number}/{each}.txt",
                "data": {
                    "type": "source",
                    "attributes": {"content": f"{'x' * 200}{number} {each}"},
                },
            }
            for each in range(files)
        ]
        client = self._client()
        body = json.dumps({"atomic:operations": operations}).encode()
        at = time.perf_counter()
        self._send(client, "_atomic", API, body, 201)
        taken = time.perf_counter() - at
        client.close()
        found = self._realm.versions.open().filter(path__startswith=f"{number}/").count()
        if found != files:
            raise WrongBytes(f"only {found} of {files} files were added")
        return taken

    @property
    def generation(self) -> int:
        """The realm's generation, which each write raises by one."""
        self._realm.refresh_from_db(fields=["generation"])
        return self._realm.generation

    def _client(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)

    def _send(
        self, client: http.client.HTTPConnection, path: str, kind: str, body: bytes, status: int
    ) -> None:
        headers = {"Host": "localhost:4201", "Accept": kind, "Content-Type": kind, **self._login}
        target = self._realm.url.removeprefix("http://localhost:4201")
        while True:
            client.request("POST", target + path, body, headers)
            answer = client.getresponse()
            told = answer.read()
            if answer.status != 503:
                break
            # The server responds with 503 if no thread becomes free for the request in time.
            time.sleep(int(answer.headers["Retry-After"]))
        if answer.status != status:
            raise WrongBytes(f"{self._realm.url}{path}: status {answer.status}, {told[:200]!r}")


def _per_second(writers: Sequence[Writer], times: int) -> float:
    """Lets all writers write at once, and returns the number of writes a second."""
    realms = set(writers)
    before = sum(each.generation for each in realms)
    wrong: list[BaseException] = []

    def write(writer: Writer) -> None:
        try:
            writer.write(times)
        except (WrongBytes, OSError) as error:
            wrong.append(error)

    threads = [threading.Thread(target=write, args=(each,), daemon=True) for each in writers]
    at = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - at
    if wrong:
        raise WrongBytes(f"{len(wrong)} writers failed, for example: {wrong[0]}")
    written = sum(each.generation for each in realms) - before
    if written != len(writers) * times:
        raise WrongBytes(f"{len(writers) * times} writes raised the generation by {written}")
    return written / taken


# --- pgbench -----------------------------------------------------------------------------------


def _number(realms: Sequence["Realm"]) -> None:
    """Creates the table `bench_realm`. In this table, the scripts for pgbench find a realm by its
    number."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_realm (number int PRIMARY KEY, id uuid, url text)")
        for number, realm in enumerate(realms):
            cursor.execute(
                "INSERT INTO bench_realm VALUES (%s, %s, %s)", [number, realm.pk, realm.url]
            )


def _pgbench(bench: Bench, script: str, clients: int, times: int) -> list[Case]:
    """Returns a list with one case, which runs a script with pgbench. `times` is how often each
    client runs the script. If pgbench isn't installed, returns an empty list, and adds pgbench to
    the skipped peers."""
    program = shutil.which("pgbench")
    if program is None:
        missing = Missing("pgbench", "apt-get install postgresql-contrib")
        bench.skipped[missing.name] = missing.remedy
        return []
    number = min(clients, PGBENCH_CLIENTS)
    path = bench.folder / "pgbench.sql"

    def measure() -> float:
        path.write_text(script)
        return _transactions_per_second(program, path, number, times)

    return [Case("pgbench" if number == clients else f"pgbench, {number} clients", measure)]


def _transactions_per_second(
    program: str, script: os.PathLike[str], clients: int, times: int
) -> float:
    from django.db import connection

    parameters = connection.get_connection_params()
    environment = {
        f"PG{name.upper()}": str(parameters[key])
        for name, key in (
            ("host", "host"), ("port", "port"), ("user", "user"), ("password", "password"),
            ("database", "dbname"),
        )
        if parameters.get(key)
    }  # fmt: skip
    command = (
        program, "--no-vacuum", "--protocol=prepared", f"--file={os.fspath(script)}",
        f"--client={clients}", f"--jobs={min(clients, os.cpu_count() or 1)}",
        f"--transactions={times}",
    )  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True
    )
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    expected = f"number of transactions actually processed: {clients * times}/{clients * times}"
    if done.returncode or found is None or expected not in done.stdout:
        raise WrongBytes(f"pgbench: {done.stderr[-500:]}{done.stdout[-500:]}")
    return float(found[1])


if __name__ == "__main__":
    sys.exit(main())
