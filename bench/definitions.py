"""Measures many simultaneous requests for unbuilt definitions, and look-ups of built definitions.

Definitions describe what a card module exports. They are built when they are first needed, and then
stored in the database. In the first measurement, 200 clients ask for the definitions of one new
module at the same moment. They ask two replicas, each with two web workers. A client that gets a
503 asks again after the time in Retry-After. The logs of the web services show how often the
definitions were built. In the second measurement, the benchmark's own process looks up the stored
definitions of 10,000 modules, first one at a time, then a hundred at a time. For comparison,
psycopg reads the same rows and parses their JSON.
"""

import http.client
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.support.comparing import Bar, Case, Table, WrongBytes, compare
from bench.support.running import Bench

REALM = "http://localhost:4201/ada/site/"
API = "application/vnd.api+json"
MODULE = """\
import { Card, contains, containsMany, number, string } from "@realm/base";
class Size extends Card { static fields = { width: number(), height: number() }; }
export class Thing extends Card {
  static displayName = "A thing";
  static fields = { name: string(), tags: containsMany(string()), size: contains(Size) };
}
"""
BATCH = 100
SELECT = """
SELECT module_url, definitions, error, dependencies, realm_urls, scope, built_at, build_ms,
    expires_at
FROM definitions WHERE module_url = ANY(%s) AND scope = 'public' AND reader = ''
"""


def main() -> int:
    bench = Bench("definitions", __doc__)
    with bench:
        herd(bench, 20 if bench.quick else 200)
        lookups(bench, 200 if bench.quick else 10_000)
    return bench.finish()


# --- Many requests at once ---------------------------------------------------------------------


def herd(bench: Bench, clients: int) -> None:
    """Measures how long many clients wait if they all ask for the definitions of one new module at
    once, and checks that the definitions are built only once."""
    from tests.support import make
    from tests.support.cluster import cluster

    names = [f"thing{run}" for run in range(bench.runs)]
    make.source(REALM, make.user("ada"), {f"{name}.ts": MODULE.encode() for name in names})
    taken = []
    with cluster(bench.folder, 2, REALM_LOG_LEVEL="INFO") as fleet:
        fleet.wait_reported()
        ports = [replica.port for replica in fleet.replicas]
        for name in names:
            taken.append(_ask_at_once(ports, name, clients))
        builds = [_builds(bench.folder, name) for name in names]
    title = f"{clients} clients ask for the unbuilt definitions of one module"
    bench.add(
        Table(f"{title}: time until all have them", "s", "lower", {"the last": taken}, "the last")
    )
    bench.judge(Bar(f"{title}: number of builds", max(builds), at_least=1, at_most=1, always=True))


def _builds(folder: Path, name: str) -> int:
    """Returns how often the web services have built a module's definitions, by their logs."""
    line = f"building the definitions of {REALM}{name}.ts,"
    return sum(path.read_text().count(line) for path in folder.glob("web-*.log"))


def _ask_at_once(ports: list[int], name: str, clients: int) -> float:
    """Lets all clients ask at the same moment, and each client ask again after a 503. Returns the
    time from that moment until every client has the definitions. Unit: seconds. Raises WrongBytes
    if a client gets an unexpected answer."""
    start = threading.Barrier(clients + 1)
    wrong: list[str] = []

    def ask(port: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        client.connect()
        start.wait()
        while True:
            headers = {"Host": "localhost:4201", "Accept": API}
            client.request("GET", f"/ada/site/_definition?module={name}&name=Thing", None, headers)
            answer = client.getresponse()
            body = answer.read()
            if answer.status != 503:
                break
            time.sleep(int(answer.headers["Retry-After"]))
        good = answer.status == 200
        if not good or json.loads(body)["data"]["attributes"]["displayName"] != "A thing":
            wrong.append(f"status {answer.status}, {body[:200]!r}")
        client.close()

    threads = [
        threading.Thread(target=ask, args=(ports[number % len(ports)],), daemon=True)
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    start.wait()
    at = time.perf_counter()
    for thread in threads:
        thread.join()
    if wrong:
        raise WrongBytes(f"{len(wrong)} clients got a wrong answer, for example: {wrong[0]}")
    return time.perf_counter() - at


# --- Look-ups ----------------------------------------------------------------------------------


def lookups(bench: Bench, count: int) -> None:
    """Compares the time of look-ups by `DefinitionLookup` with the time that psycopg needs to read
    the same rows."""
    from definitions.entries import CodeRef, DefinitionCacheEntryQuery
    from definitions.lookup import DefinitionLookup
    from tests.support.listening.hearing import connect

    urls = _fill(count)
    batches = [tuple(urls[at : at + BATCH]) for at in range(0, count, BATCH)]
    lookup = DefinitionLookup()

    def one_by_one() -> int:
        found = [lookup.lookup_cached_definition(CodeRef(url, "Thing")) for url in urls]
        return sum(each is not None and each["displayName"] == "A thing" for each in found)

    def in_batches() -> int:
        found = [
            lookup.get_cached_definitions_batch(DefinitionCacheEntryQuery(batch))
            for batch in batches
        ]
        return sum("Thing" in (e.definitions or {}) for each in found for e in each.values())

    with connect() as bare:

        def bare_one_by_one() -> int:
            rows = [bare.execute(SELECT, ([url],)).fetchone() for url in urls]
            return sum(row is not None and "Thing" in row[1] for row in rows)

        def bare_batches() -> int:
            found = [bare.execute(SELECT, (list(batch),)).fetchall() for batch in batches]
            return sum("Thing" in row[1] for rows in found for row in rows)

        for title, ours, theirs in (
            (f"{count:,} look-ups, one at a time", one_by_one, bare_one_by_one),
            (f"{count:,} look-ups, {BATCH} at a time", in_batches, bare_batches),
        ):
            cases = [
                Case("look-up", lambda act=ours: _timed(act, count)),  # type: ignore[misc]
                Case("bare SQL", lambda act=theirs: _timed(act, count)),  # type: ignore[misc]
            ]
            table = compare(
                title, unit="µs each", better="lower", runs=bench.runs, cases=cases,
                reference="bare SQL",
            )  # fmt: skip
            bench.add(table)
            bench.judge(
                Bar(
                    f"{title}: at most 1.5 times the time of the bare SQL",
                    table.ratio("look-up", "bare SQL"),
                    at_most=1.5,
                )
            )


def _timed(act: Callable[[], int], count: int) -> float:
    at = time.perf_counter()
    found = act()
    taken = time.perf_counter() - at
    if found != count:
        raise WrongBytes(f"only {found} of {count} definitions were found and correct")
    return taken / count * 1e6


def _fill(count: int) -> list[str]:
    """Stores definitions of `count` modules that don't exist, and returns the modules' URLs."""
    from django.db import connection
    from django.utils import timezone

    from definitions.models import CacheGeneration, Definition

    realm = "http://localhost:4201/ada/many/"
    urls = [f"{realm}thing{number}.ts" for number in range(count)]
    CacheGeneration.objects.bulk_create(
        [
            CacheGeneration(scope=scope, key=key)
            for scope, key in (("global", ""), ("realm", realm), *(("module", url) for url in urls))
        ],
        ignore_conflicts=True,
    )
    current = {
        (each.scope, each.key): each.generation
        for each in CacheGeneration.objects.filter(scope__in=["global", "realm"])
    }
    fields = {f"field{number}": {"type": "string", "label": "x" * 20} for number in range(12)}
    Definition.objects.bulk_create(
        Definition(
            module_url=url,
            realm_url=realm,
            realm_urls=[realm],
            definitions={"Thing": {"displayName": "A thing", "fields": fields}},
            global_generation=current["global", ""],
            realm_generation=current["realm", realm],
            module_generation=0,
            built_at=timezone.now(),
            build_ms=1,
        )
        for url in urls
    )
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE definitions")
    return urls


if __name__ == "__main__":
    sys.exit(main())
